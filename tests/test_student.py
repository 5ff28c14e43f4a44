"""Fine-tuning tiny models of random weights with the real TRL, PEFT and bitsandbytes; described machines elsewhere."""
# ruff: noqa: E402

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, LlamaConfig, PreTrainedTokenizerFast
from trl import SFTConfig

from fcot_lite import packing, student
from fcot_lite.errors import DataError, EngineError, RecipeError
from fcot_lite.machine import Machine
from fcot_lite.student import TokenRow

pytestmark = pytest.mark.real

VOCAB, POSITIONS, END_OF_TURN = 97, 64, 2
CPU = Machine("cpu", tuple(sorted(os.sched_getaffinity(0))))
AMPERE = Machine("cuda", (0, 1), "NVIDIA GeForce RTX 3090", 24.0, (8, 6))
TURING = Machine("cuda", (0, 1), "NVIDIA GeForce RTX 2080 Ti", 11.0, (7, 5))
SFT = {"learning_rate": 1e-2, "num_train_epochs": 2, "per_device_train_batch_size": 4}


def row(num_prompt: int, num_completion: int, key: int = 0) -> TokenRow:
    rng = torch.Generator().manual_seed(key)
    ids = torch.randint(3, VOCAB, (num_prompt + num_completion,), generator=rng).tolist()
    ids[-1] = END_OF_TURN
    return TokenRow(ids, [-100] * num_prompt + ids[num_prompt:])


ROWS = [row(3 + i % 4, 4 + i % 5, i) for i in range(10)]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        eos_token_id=1,
        initializer_range=0.2,
    )
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.generation_config.max_new_tokens = 17  # anything that would get lost
    model.save_pretrained(folder)
    vocabulary = {"<unk>": 0, "<eos>": 1, "<end>": END_OF_TURN} | {f"w{i}": i for i in range(3, VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", additional_special_tokens=["<end>"]
    )
    # As in Qwen's base models, a turn ends in another token than the one that the tokenizer calls eos.
    fast.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<end>{% endif %}{% endfor %}"
    )
    fast.save_pretrained(folder)
    return folder


def train(model_dir: Path, folder: Path, **changes: Any) -> student.TrainOutcome:
    arguments: dict[str, Any] = {
        "train_rows": ROWS,
        "method": "lora",
        "lora": {"r": 4},
        "sft": SFT,
        "seed": 1,
        "machine": CPU,
        "output_dir": folder / "adapter",
        "checkpoints_dir": folder / "checkpoints",
        "progress": lambda *_: None,
        "say": print,
    }
    rows = changes.pop("train_rows", ROWS)
    return student.train(model_dir, rows, **{k: v for k, v in (arguments | changes).items() if k != "train_rows"})


# Pure functions: what each machine gets.


@pytest.mark.parametrize(
    ("machine", "use_cpu", "bf16", "fp16", "gradient_checkpointing"),
    [(CPU, True, True, False, False), (AMPERE, False, True, False, True), (TURING, False, False, True, True)],
)
def test_sft_arguments_per_machine(
    machine: Machine, use_cpu: bool, bf16: bool, fp16: bool, gradient_checkpointing: bool, tmp_path: Path
) -> None:
    arguments = student.sft_arguments({"learning_rate": 1e-4}, machine, 7, tmp_path)
    assert arguments["use_cpu"] is use_cpu
    assert (arguments["bf16"], arguments["fp16"]) == (bf16, fp16)
    assert arguments["gradient_checkpointing"] is gradient_checkpointing
    assert arguments["learning_rate"] == 1e-4
    assert arguments["seed"] == arguments["data_seed"] == 7
    assert arguments["max_length"] is None
    assert arguments["dataset_kwargs"] == {"skip_prepare_dataset": True}
    assert arguments["report_to"] == []
    assert arguments["save_strategy"] == "no"
    assert arguments["prediction_loss_only"] is True


def test_every_sft_argument_is_one_of_trls_and_survives_it(tmp_path: Path) -> None:
    arguments = student.sft_arguments(SFT, CPU, 7, tmp_path)
    config = SFTConfig(**arguments)
    for name, value in arguments.items():
        assert getattr(config, name) == value, name


def test_the_recipe_wins_where_it_may(tmp_path: Path) -> None:
    chosen = {"optim": "adamw_8bit", "gradient_checkpointing": False, "logging_steps": 10, "seed": 7, "max_length": 512}
    arguments = student.sft_arguments(chosen, AMPERE, 7, tmp_path)
    assert {name: arguments[name] for name in chosen} == chosen | {"max_length": None}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("packing", True),
        ("bf16", False),
        ("use_cpu", False),
        ("seed", 8),
        ("dataset_kwargs", {}),
        ("report_to", ["wandb"]),
        ("save_strategy", "steps"),
        ("output_dir", "elsewhere"),
    ],
)
def test_what_the_recipe_may_not_choose_is_refused_and_named(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"student\.sft\.{name}: "):
        student.sft_arguments({name: value}, CPU, 7, tmp_path)


@pytest.mark.parametrize(("machine", "dtype"), [(CPU, "bfloat16"), (AMPERE, "bfloat16"), (TURING, "float16")])
def test_quantization_arguments_per_machine(machine: Machine, dtype: str) -> None:
    config = BitsAndBytesConfig(**student.quantization_arguments(machine))
    assert config.quantization_method() == "nf4"
    assert config.bnb_4bit_use_double_quant is True
    assert config.bnb_4bit_compute_dtype == getattr(torch, dtype)


def test_lora_arguments() -> None:
    config = LoraConfig(**student.lora_arguments({}))
    assert (config.r, config.lora_alpha, config.target_modules) == (32, 64, "all-linear")
    assert config.task_type == "CAUSAL_LM"
    assert student.lora_arguments({"r": 8})["lora_alpha"] == 16
    chosen = {"r": 8, "lora_alpha": 3, "target_modules": ["q_proj"], "use_rslora": True}
    assert student.lora_arguments(chosen) == chosen | {"task_type": "CAUSAL_LM"}


# Loading.


def test_frozen_weights_load_in_bfloat16_and_trained_ones_in_float32(model_dir: Path) -> None:
    assert {p.dtype for p in student.load_model(model_dir, "lora", CPU, "sdpa").parameters()} == {torch.bfloat16}
    assert {p.dtype for p in student.load_model(model_dir, "full", CPU, "sdpa").parameters()} == {torch.float32}
    quantised = student.load_model(model_dir, "qlora", CPU, "sdpa")
    dtypes = {name: p.dtype for name, p in quantised.named_parameters()}
    assert dtypes["model.layers.0.mlp.up_proj.weight"] == torch.uint8
    assert dtypes["model.embed_tokens.weight"] == dtypes["model.norm.weight"] == torch.bfloat16


def test_nf4_layers_still_back_propagate_after_an_evaluation_pass(model_dir: Path) -> None:
    model = student.load_model(model_dir, "qlora", CPU, "sdpa")
    embedded = torch.randn(1, 5, 64, dtype=torch.bfloat16, requires_grad=True)

    def gradient() -> Any:
        embedded.grad = None
        model.train()
        model(inputs_embeds=embedded).logits.float().square().mean().backward()
        assert embedded.grad is not None
        return embedded.grad.clone()

    before = gradient()
    model.eval()
    with torch.no_grad():
        model(inputs_embeds=embedded)
    assert before.abs().max() > 0
    assert torch.equal(gradient(), before)


# Rows.


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (TokenRow([5, 6, END_OF_TURN], [-100, 6]), "3 input_ids but 2 labels"),
        (TokenRow([5, 6, END_OF_TURN], [-100] * 3), "no token carries a label"),
        (TokenRow([5], [5]), "no token carries a label"),
        (TokenRow([], []), "no token carries a label"),
        (TokenRow([5, 6, END_OF_TURN], [-100, 7, END_OF_TURN]), "neither its token nor -100"),
        (TokenRow([5, VOCAB, END_OF_TURN], [-100, VOCAB, END_OF_TURN]), "outside the student's vocabulary of 97"),
        (TokenRow([5, -1, END_OF_TURN], [-100, -1, END_OF_TURN]), "outside the student's vocabulary"),
        (TokenRow([5, 6, 7], [-100, 6, 7]), r"the last label is 7, not the end of turn 2"),
        (TokenRow([5, 6, 1], [-100, 6, 1]), "the last label is 1, not the end of turn 2"),  # 1 is the eos_token
        (TokenRow([5, 6, END_OF_TURN], [-100, 6, -100]), "the last label is -100"),
        (row(POSITIONS - 3, 4), f"{POSITIONS + 1} tokens are more than the {POSITIONS}"),
    ],
)
def test_a_row_that_cannot_be_learnt_whole_is_named(
    bad: TokenRow, message: str, model_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"training row 3 of 4: .*{message}"):
        train(model_dir, tmp_path, train_rows=[*ROWS[:2], bad, ROWS[3]])
    assert not (tmp_path / "adapter").exists()


def test_no_row_at_all_is_an_error(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        train(model_dir, tmp_path, train_rows=[])


def test_a_row_is_never_cut(model_dir: Path, tmp_path: Path) -> None:
    whole = [row(POSITIONS - 10, 10)]
    sft = {**SFT, "num_train_epochs": 1, "per_device_train_batch_size": 1}
    assert train(model_dir, tmp_path, train_rows=whole, sft=sft).num_tokens == POSITIONS
    with pytest.raises(DataError, match=r"training row 1 of 1: 64 tokens are more than the 63"):
        train(model_dir, tmp_path, train_rows=whole, sft={**sft, "max_length": 63})


# Training.


def sha256(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_lora_from_rows_to_adapter(model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = sha256(model_dir)
    calls = []
    outcome = train(model_dir, tmp_path, progress=lambda *call: calls.append(call))
    assert sorted(sha256(tmp_path / "adapter")) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(model_dir)
    assert config["r"] == 4
    assert sha256(model_dir) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert outcome.trainable_parameters == sum(tensor.numel() for tensor in tensors.values())
    assert outcome.num_tokens == 2 * sum(len(row.input_ids) for row in ROWS)
    assert outcome.tokens_per_second == pytest.approx(outcome.num_tokens / outcome.wall_seconds)
    assert [step for step, _ in outcome.losses] == [1, 2, 3, 4, 5, 6]
    assert (outcome.steps, outcome.batching, outcome.padding) == (6, "padding-free", 0.0)
    assert outcome.peak_gpu_allocated_gib is outcome.peak_gpu_reserved_gib is None
    steps = [call for call in calls if call[1]]
    assert [(done, total) for done, total, _ in steps] == [(done, 6) for done in range(1, 7)]
    assert "loss" in steps[-1][2]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_without_padding_a_step_learns_the_same(
    method: student.Method, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sft = {**SFT, "learning_rate": 1e-3, "train_sampling_strategy": "sequential", "gradient_accumulation_steps": 2}
    outcomes = []
    for trl in (packing.VERSIONS["trl"], "1.15.9"):
        monkeypatch.setitem(packing.VERSIONS, "trl", trl)
        outcomes.append(train(model_dir, tmp_path / trl, method=method, sft=sft))
    packed, padded = outcomes
    assert (packed.batching, packed.padding) == ("padding-free", 0.0)
    assert padded.batching.startswith("length-grouped, because trl 1.16.0 is installed")
    assert padded.padding is not None
    assert 0.1 < padded.padding < 0.5
    num_tokens = 2 * sum(len(row.input_ids) for row in ROWS)
    assert (packed.steps, packed.num_tokens) == (padded.steps, padded.num_tokens) == (4, num_tokens)
    for (_, ours), (_, theirs) in zip(packed.losses, padded.losses, strict=True):
        assert ours == pytest.approx(theirs, rel=0.01)


def test_selective_checkpointing_learns_the_same(model_dir: Path, tmp_path: Path) -> None:
    losses = []
    for chosen in ({}, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"selective": True}}):
        losses.append([loss for _, loss in train(model_dir, tmp_path, sft={**SFT, **chosen}).losses])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_seed_repeats_and_another_seed_differs(model_dir: Path, tmp_path: Path) -> None:
    runs = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(len(runs))  # whatever ran before in this process
        outcome = train(model_dir, tmp_path / name, seed=seed, lora={"r": 4, "lora_dropout": 0.1})
        runs[name] = outcome.losses, sha256(tmp_path / name / "adapter")["adapter_model.safetensors"]
    assert runs["a"] == runs["b"]
    assert runs["a"][0] != runs["c"][0]
    assert runs["a"][1] != runs["c"][1]


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapters_are_trained_in_float32(method: student.Method, model_dir: Path, tmp_path: Path) -> None:
    train(model_dir, tmp_path, method=method)
    for name, tensor in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items():
        assert tensor.dtype == torch.float32, name
        assert not torch.equal(tensor, tensor.bfloat16().float()), f"{name} was rounded to bfloat16"


def test_a_qlora_adapter_merges_into_either_base(model_dir: Path, tmp_path: Path) -> None:
    train(model_dir, tmp_path, method="qlora")
    for base in ("unquantised", "nf4"):
        student.merge(model_dir, tmp_path / "adapter", tmp_path / base, base)
    name = "model.layers.0.mlp.up_proj.weight"
    original, plain, quantised = (
        load_file(folder / "model.safetensors")[name].float()
        for folder in (model_dir, tmp_path / "unquantised", tmp_path / "nf4")
    )
    assert load_file(tmp_path / "nf4" / "model.safetensors")[name].dtype == torch.bfloat16
    assert "quantization_config" not in json.loads((tmp_path / "nf4" / "config.json").read_text())
    update = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    scaling = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["lora_alpha"] / 4
    added = scaling * update[key.format("B")].float() @ update[key.format("A")].float()
    assert torch.allclose(plain, original + added, atol=2e-2)
    # NF4 moves each weight by up to half of a step of its sixteen values; the adapter on top is the same.
    moved = (quantised - added - original).abs()
    assert 1e-3 < moved.mean() < 0.1 * original.abs().max()


def test_full_leaves_a_whole_model(model_dir: Path, tmp_path: Path) -> None:
    outcome = train(model_dir, tmp_path, method="full", lora={})
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype="auto")
    original = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    assert saved.dtype == torch.bfloat16
    assert outcome.trainable_parameters == sum(p.numel() for p in original.parameters())
    for (name, new), old in zip(saved.named_parameters(), original.parameters(), strict=True):
        assert not torch.equal(new, old), name
    assert saved.generation_config.max_new_tokens == 17
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (model_dir, tmp_path / "adapter")]
    assert tokenizers[0]("w3 w4").input_ids == tokenizers[1]("w3 w4").input_ids == [3, 4]
    assert tokenizers[0].pad_token == tokenizers[1].pad_token is None


def test_full_keeps_steps_smaller_than_bfloat16_resolves(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 1e-6 on weights of 0.2: none is visible in bfloat16 (2**-8 of the weight), all are in float32."""
    moved = {}

    def look(model: Any, *_: Any) -> None:
        weight = model.model.layers[0].mlp.up_proj.weight.data
        start = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        moved["share"] = (weight != start.model.layers[0].mlp.up_proj.weight).float().mean().item()
        raise EngineError("seen")

    monkeypatch.setattr(student, "save_model", look)
    monkeypatch.setattr(student, "_rounded", lambda *_: contextlib.nullcontext())
    with pytest.raises(EngineError, match="seen"):
        train(model_dir, tmp_path, method="full", sft={**SFT, "learning_rate": 1e-6})
    assert moved["share"] > 0.9


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_old_adapter(model_dir: Path, tmp_path: Path) -> None:
    train(model_dir, tmp_path)
    before = sha256(tmp_path / "adapter")
    broken = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(broken)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(broken)
    with pytest.raises(EngineError, match=r"training loss is nan at step 1"):
        train(broken, tmp_path)
    assert sha256(tmp_path / "adapter") == before


def test_an_adapter_takes_the_place_of_the_one_before(model_dir: Path, tmp_path: Path) -> None:
    train(model_dir, tmp_path)
    before = sha256(tmp_path / "adapter")
    (tmp_path / "adapter" / "stale.txt").write_text("")
    train(model_dir, tmp_path, seed=2)
    after = sha256(tmp_path / "adapter")
    assert sorted(after) == sorted(before)
    assert after["adapter_model.safetensors"] != before["adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"sft": {"learning_rat": 1e-4}}, "learning_rat"),
        ({"lora": {"rank": 4}}, "rank"),
        ({"lora": {"target_modules": ["no_such_layer"]}}, "no_such_layer"),
        ({"lora": {"target_modules": ["lm_head"]}}, "lm_head"),
    ],
)
def test_what_the_libraries_refuse_is_a_recipe_error(
    block: dict[str, Any], message: str, model_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        train(model_dir, tmp_path, **block)


# Merging.


def test_merging_adds_the_adapter_to_the_unquantised_weights(model_dir: Path, tmp_path: Path) -> None:
    train(model_dir, tmp_path, method="qlora")
    adapter, merged_dir = tmp_path / "adapter", tmp_path / "merged"
    student.merge(model_dir, adapter, merged_dir)
    names = {path.name for path in merged_dir.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names
    assert "quantization_config" not in json.loads((merged_dir / "config.json").read_text())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    inputs = torch.tensor([ROWS[0].input_ids])
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        plain = base(inputs).logits
        adapted = PeftModel.from_pretrained(base, adapter)(inputs).logits
        merged = AutoModelForCausalLM.from_pretrained(merged_dir, dtype="auto")
        assert merged.dtype == torch.bfloat16
        assert merged.generation_config.max_new_tokens == 17
        difference = (merged.float()(inputs).logits - adapted).norm()
    assert difference < 0.02 * adapted.norm()  # weights rounded to bfloat16
    assert difference < 0.2 * (adapted - plain).norm()
