"""Every family with every method, and what a `lora:` block asks of PEFT: tiny models of random weights, trained."""
# ruff: noqa: E402

import ast
import importlib.util
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from fcot_lite import adapters, labelled_head, student, training_preflight
from fcot_lite.engines.vllm import MERGED_ONLY, adapter_rank, lora_rank_limit
from fcot_lite.errors import RecipeError
from fcot_lite.machine import Machine
from fcot_lite.rows import TokenRow

pytestmark = pytest.mark.real

VOCAB, END = 97, 2
CPU = Machine("cpu", tuple(sorted(os.sched_getaffinity(0))))
FAMILIES = ("gemma", "gemma2", "gemma3_text", "gpt2", "llama", "qwen2", "qwen3", "smollm3")
TRLS_HEAD = ("gemma2",)  # its logits are capped
SFT = {"learning_rate": 1e-2, "max_steps": 2, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant"}


def rows(count: int = 8) -> list[TokenRow]:
    made = []
    for key in range(count):
        ids = torch.randint(3, VOCAB, (12,), generator=torch.Generator().manual_seed(key)).tolist()
        ids[-1] = END
        made.append(TokenRow(ids, [-100] * 4 + ids[4:]))
    return made


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a family's tiny model, of its true architecture."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family in made:
            return made[family]
        torch.manual_seed(0)
        own = {} if family == "gpt2" else {"num_key_value_heads": 2, "intermediate_size": 64}
        own |= {"head_dim": 16} if family in ("gemma", "gemma2", "gemma3_text", "qwen3") else {}
        config = CONFIG_MAPPING[family](
            vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
            initializer_range=0.1, pad_token_id=0, bos_token_id=1, eos_token_id=END, **own,
        )  # fmt: skip
        folder = made[family] = tmp_path_factory.mktemp(family)
        AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
        words = {"<pad>": 0, "<s>": 1, "<end>": END} | {f"w{n}": n for n in range(3, 90)}  # Qwen2 adds one of its own
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
        fast.save_pretrained(folder)
        return folder

    return of


@pytest.fixture
def trained(tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Trains, and gives the trainer that did it; the adapter is in tmp_path/adapter."""
    make = labelled_head.sft_trainer
    seen = []
    monkeypatch.setattr(labelled_head, "sft_trainer", lambda **given: seen.append(make(**given)) or seen[-1])

    def run(family: str = "llama", method: student.Method = "lora", name: str = "adapter", **lora: Any) -> Any:
        student.train(
            tiny(family),
            rows(),
            method=method,
            lora={} if method == "full" else {"r": 4, **lora},
            sft=SFT,
            seed=1,
            machine=CPU,
            output_dir=tmp_path / name,
            checkpoints_dir=tmp_path / "checkpoints",
            progress=lambda *_: None,
            say=print,
        )
        return seen[-1]

    return run


def logits(trained: Any, ids: Any) -> Any:
    trained.get_base_model().set_attn_implementation("eager")  # in training it took batches without padding only
    return trained.eval().float()(ids).logits


def config_of(folder: Path) -> Any:
    return json.loads((folder / "adapter_config.json").read_text())


# ---- families ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_learns_and_the_base_stays(
    family: str, method: student.Method, trained: Any, tiny: Any, tmp_path: Path
) -> None:
    model = trained(family, method).model
    assert {check.found for check in training_preflight.of_model(tiny(family)) if check.state == "fail"} == set()
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 2 * len([name for name in adapter if "lora_B" in name]) >= 16
    assert all(tensor.abs().max() > 0 for tensor in adapter.values()), "B starts at zero"
    before = dict(student.load_model(tiny(family), method, CPU, "eager").named_parameters())
    frozen = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): parameter
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }
    assert frozen.keys() == before.keys()
    assert all(torch.equal(frozen[name].data, before[name].data) for name in before)
    quantised = [name for name, parameter in before.items() if parameter.dtype == torch.uint8]
    assert bool(quantised) == (method == "qlora")

    student.merge(tiny(family), tmp_path / "adapter", tmp_path / "merged")
    ids = torch.tensor([rows()[0].input_ids])
    with torch.no_grad():
        plain, merged = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
            for folder in (tiny(family), tmp_path / "merged")
        )
        if method == "lora":
            adapted = logits(model, ids)
            assert (merged - adapted).norm() < 0.2 * (adapted - plain).norm()
    assert (merged - plain).norm() > 0.01 * plain.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_full_fine_tuning_moves_every_weight(family: str, trained: Any, tiny: Any, tmp_path: Path) -> None:
    model = trained(family, "full").model
    assert (labelled_head.why_not(model) is None) == (family not in TRLS_HEAD)
    before, after = (
        dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())
        for folder in (tiny(family), tmp_path / "adapter")
    )
    assert before.keys() == after.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_a_soft_cap_keeps_trls_head(tiny: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny("gemma3_text"))
    assert labelled_head.why_not(model) is None
    model.config.final_logit_softcapping = 30.0
    assert "caps its logits" in str(labelled_head.why_not(model))


def test_what_vllm_serves_merged_only_is_what_it_says() -> None:
    """By its own sources, without importing a hundred models: a class serves adapters below SupportsLoRA."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    (vllm,) = importlib.util.find_spec("vllm").submodule_search_locations  # type: ignore[union-attr, misc]
    folder = Path(vllm) / "model_executor" / "models"
    above: dict[str, set[str]] = {}
    registry: dict[str, tuple[str, str]] = {}
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                names = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
                above.setdefault(node.name, set()).update(names)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_TEXT_GENERATION_MODELS":
                registry = ast.literal_eval(node.value)

    def serves(name: str, seen: tuple[str, ...] = ()) -> bool:
        return name == "SupportsLoRA" or any(serves(base, (*seen, name)) for base in above.get(name, set()) - {*seen})

    assert len(registry) > 100
    trainable = registry.keys() & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    assert sorted(MERGED_ONLY) == sorted(name for name in trainable if not serves(registry[name][1]))


# ---- options -----------------------------------------------------------------------------------------------------


def delta(tiny: Any, folder: Path, name: str) -> Any:
    """What merging adds to a weight, and B·A of the adapter."""
    tensors = load_file(folder / "adapter_model.safetensors")
    b_a = tensors[f"base_model.model.{name}.lora_B.weight"] @ tensors[f"base_model.model.{name}.lora_A.weight"]
    merged = folder.with_name(f"{folder.name}-merged")
    student.merge(tiny("llama"), folder, merged)
    weights = [load_file(at / "model.safetensors")[f"{name}.weight"].float() for at in (tiny("llama"), merged)]
    return weights[1] - weights[0], b_a


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_rslora_scales_by_the_root_of_the_rank(
    rslora: bool, scaling: float, trained: Any, tiny: Any, tmp_path: Path
) -> None:
    trained(use_rslora=rslora, lora_alpha=8)
    assert config_of(tmp_path / "adapter")["use_rslora"] is rslora
    added, b_a = delta(tiny, tmp_path / "adapter", "model.layers.0.mlp.up_proj")
    fitted = float((added * b_a).sum() / (b_a * b_a).sum())
    assert fitted == pytest.approx(scaling, rel=0.05)  # the sum is rounded to bfloat16


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_8bit"])
def test_loraplus_lets_b_learn_faster(optim: str, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SFT, "optim", optim)
    monkeypatch.setitem(SFT, "weight_decay", 0.1)
    trainer = trained(loraplus_lr_ratio=16)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    by_matrix: dict[str, set[float]] = {"A": set(), "B": set()}
    counted = 0
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            by_matrix["A" if "lora_A" in names[id(parameter)] else "B"].add(round(group["lr"], 9))
            assert group["weight_decay"] == 0.1
            counted += 1
    assert by_matrix == {"A": {0.01}, "B": {0.16}}
    assert counted == sum(parameter.requires_grad for parameter in trainer.model.parameters())
    assert type(trainer.optimizer.optimizer).__module__.startswith("bitsandbytes") == ("8bit" in optim)


def test_loraplus_takes_b_further_and_the_adapter_stays_a_plain_one(trained: Any, tmp_path: Path) -> None:
    norms = {}
    for name, lora in (("plain", {}), ("plus", {"loraplus_lr_ratio": 16})):
        trained(name=name, **lora)
        tensors = load_file(tmp_path / name / "adapter_model.safetensors")
        norms[name] = [float(tensor.norm()) for key, tensor in tensors.items() if "lora_B" in key]
    assert all(plus > 3 * plain for plus, plain in zip(norms["plus"], norms["plain"], strict=True))
    assert config_of(tmp_path / "plain") == config_of(tmp_path / "plus")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_eva_starts_where_the_data_varies_most(family: str, trained: Any, tiny: Any, tmp_path: Path) -> None:
    """By the first layer's own inputs, from which the leading directions follow without PEFT's help."""
    learnt = [row.labels.index(next(label for label in row.labels if label != -100)) for row in rows()]
    model = student.load_model(tiny(family), "lora", CPU, "eager").eval()
    layer = model.model.layers[1].mlp.down_proj if family == "llama" else model.transformer.h[1].mlp.c_proj
    fed: list[Any] = []
    layer.register_forward_hook(lambda module, given, output: fed.append(given[0].float()))
    with torch.no_grad():
        model(torch.tensor([row.input_ids for row in rows()]))
    inputs = torch.cat([one[start:] for one, start in zip(fed[0], learnt, strict=True)])
    _, _, directions = torch.linalg.svd(inputs - inputs.mean(0), full_matrices=False)

    def made(given: list[TokenRow]) -> Any:
        config = LoraConfig(**student.lora_arguments({"r": 4, "init_lora_weights": "eva"}))
        base = student.load_model(tiny(family), "lora", CPU, "eager")
        return adapters.with_eva(base, config, given, DataCollatorForLanguageModeling(pad_token_id=0))

    start, again, other = made(rows()), made(rows()), made(rows(9)[1:])
    name = "mlp.down_proj" if family == "llama" else "mlp.c_proj"
    a = {key: value for key, value in start.named_parameters() if f"1.{name}.lora_A" in key}
    ((key, found),) = a.items()
    overlap = (found.float() @ directions[: len(found)].T).norm(dim=1)
    assert overlap.min() > 0.95, "each row of A lies among the leading directions"
    assert torch.equal(dict(again.named_parameters())[key], found), "the same rows give the same start"
    assert not torch.equal(dict(other.named_parameters())[key], found), "other rows another"


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_eva_from_recipe_to_merged_weights(method: student.Method, trained: Any, tiny: Any, tmp_path: Path) -> None:
    trainer = trained(method=method, init_lora_weights="eva")
    config = config_of(tmp_path / "adapter")
    assert config["init_lora_weights"] == "eva"  # which vLLM takes for a plain adapter
    ranks = [len(tensor) for name, tensor in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items()
             if "lora_A" in name]  # fmt: skip
    assert sum(ranks) == 4 * 14, "the ranks of all layers are shared out anew"
    assert adapter_rank(config) == max(ranks) <= 8
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters() if parameter.requires_grad)
    student.merge(tiny("llama"), tmp_path / "adapter", tmp_path / "merged")
    ids = torch.tensor([rows()[0].input_ids])
    if method == "lora":
        with torch.no_grad():
            adapted = logits(trainer.model, ids)
            plain, merged = (
                AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
                for folder in (tiny("llama"), tmp_path / "merged")
            )
        assert (merged - adapted).norm() < 0.2 * (adapted - plain).norm()


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", [True, "eva"])
def test_vllm_takes_the_adapter_and_scales_each_layer_as_peft_does(
    init: bool | str, rslora: bool, trained: Any, tmp_path: Path
) -> None:
    from vllm.config.lora import LoRAConfig as Served
    from vllm.lora.peft_helper import PEFTHelper

    model = trained(init_lora_weights=init, use_rslora=rslora).model
    rank = adapter_rank(config_of(tmp_path / "adapter"))
    helper = PEFTHelper.from_local_dir(str(tmp_path / "adapter"), None)
    helper.validate_legal(Served(max_lora_rank=lora_rank_limit(rank)))
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert len(layers) >= 10
    for name, module in layers.items():
        served = helper.get_rank_and_scaling(name.removeprefix("base_model.model."))
        assert served == (module.r["default"], pytest.approx(module.scaling["default"])), name
    assert len({module.r["default"] for module in layers.values()}) == (1 if init is True else 4), (
        "EVA shares ranks out"
    )


def test_eva_ends_where_the_rows_tell_too_little(trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"eva looks for 128 directions, but the 8 rows have 64 tokens.*lora\.r"):
        trained(init_lora_weights="eva", r=64)
    monkeypatch.setattr(adapters, "EVA_BATCHES", 1)
    with pytest.raises(RecipeError, match="not settled after 1 batches"):
        trained(init_lora_weights="eva")
    assert not (tmp_path / "adapter").exists()
