"""Rows laid end to end against the same rows run one by one, on tiny models of the true architectures."""
# ruff: noqa: E402

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from fcot_lite import labelled_head, packing
from fcot_lite.machine import Machine

pytestmark = pytest.mark.real

VOCAB = 97
IGNORED = -100
CPU = Machine("cpu", (0, 1))
AMPERE = Machine("cuda", (0, 1), "NVIDIA GeForce RTX 3090", 24.0, (8, 6))


@pytest.fixture(autouse=True)
def short_rows_are_of_up_to_nine_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a batch holds both kinds of attention."""
    monkeypatch.setattr(packing, "PLAIN_ATTENTION_TOKENS", 9)


def tiny(model_type: str, **options: Any) -> Any:
    torch.manual_seed(0)
    heads = {} if model_type == "gpt2" else {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8}
    config = CONFIG_MAPPING[model_type](
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,  # attention far from uniform
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **heads,
        **options,
    )
    if model_type == "gpt2":
        config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0  # two forwards must see the same network
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    assert packing.choose(model.config, CPU, 20).attn_implementation == packing.BY_ROW
    return model


def rows() -> list[dict[str, list[int]]]:
    """Of 5, 14, 1, 9 and 11 tokens; two of them the same, which shows where one sees what is before it."""
    rng = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, VOCAB, (length,), generator=rng).tolist() for length in (5, 14, 1, 9, 11)]
    ids[3] = ids[1][:9]
    return [{"input_ids": row, "labels": [IGNORED] * (len(row) // 3) + row[len(row) // 3 :]} for row in ids]


def end_to_end(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
    return DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(batch)


def gradients(model: Any) -> dict[str, Any]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model_type", packing.MODEL_TYPES)
def test_logits_and_gradients_are_those_of_the_rows_by_themselves(model_type: str, checkpointing: bool) -> None:
    model, batch = tiny(model_type), rows()
    alone = [model(input_ids=torch.tensor([row["input_ids"]])).logits for row in batch]
    weights = torch.rand(sum(map(len, (row["input_ids"] for row in batch))), VOCAB)
    (torch.cat(alone, dim=1)[0].log_softmax(-1) * weights).sum().backward()
    expected = gradients(model)
    model.zero_grad()

    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.set_attn_implementation(packing.BY_ROW)
    together = model(**{k: v for k, v in end_to_end(batch).items() if k != "labels"}, use_cache=False).logits
    (together[0].log_softmax(-1) * weights).sum().backward()
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=2e-6, atol=2e-6 * together.abs().max().item())
    assert len(expected) > 10
    for name, gradient in gradients(model).items():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5 * max(scale, 1), msg=name)


@pytest.mark.parametrize("model_type", packing.MODEL_TYPES)
def test_without_the_borders_the_rows_would_see_each_other(model_type: str) -> None:
    """Else the test above could not fail."""
    model, batch = tiny(model_type), rows()
    inputs = end_to_end(batch)
    model.set_attn_implementation(packing.BY_ROW)
    inputs.pop("labels")
    apart = model(**inputs, use_cache=False).logits
    num_tokens = inputs["input_ids"].shape[1]
    inputs["cu_seq_lens_q"] = torch.tensor([0, num_tokens])
    mixed = model(**inputs, use_cache=False).logits
    first = len(batch[0]["input_ids"])
    torch.testing.assert_close(mixed[:, :first], apart[:, :first])
    assert (mixed - apart)[:, first:].abs().max() > 0.01 * apart.abs().max()


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("model_type", labelled_head.MODEL_TYPES)
def test_a_step_with_the_labelled_head_is_that_of_the_padded_batch(model_type: str, adapter: bool) -> None:
    model, batch = tiny(model_type), rows()
    base = model
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    if adapter:
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(model, config)
    labelled_head.rebind_forward(base)
    padded = model(**DataCollatorForLanguageModeling(pad_token_id=0)(batch), fused_lm_head=True)
    padded.loss.backward()
    expected = gradients(model)
    model.zero_grad()

    base.set_attn_implementation(packing.BY_ROW)
    ours = model(**end_to_end(batch), use_cache=False, fused_lm_head=True)
    ours.loss.backward()
    assert (
        ours.label_mask.sum()
        == padded.label_mask.sum()
        == sum(sum(label != IGNORED for label in row["labels"][1:]) for row in batch)
    )
    assert ours.loss.item() == pytest.approx(padded.loss.item(), rel=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_attention_by_row_never_guesses_where_rows_begin() -> None:
    model = tiny("llama")
    model.set_attn_implementation(packing.BY_ROW)
    with pytest.raises(ValueError, match="batches without padding"):
        model(input_ids=torch.tensor([[5, 6, 7]]))


def config_of(model_type: str, **options: Any) -> Any:
    return CONFIG_MAPPING[model_type](**options)


@pytest.mark.parametrize(
    ("config", "longest", "reason"),
    [
        (config_of("gemma2"), 10, "not with gemma2"),  # a soft cap inside its attention
        (config_of("qwen3_next"), 10, "not with qwen3_next"),  # linear attention carries its state across rows
        (config_of("mistral", sliding_window=256), 257, "the longest row has 257 tokens, the attention's window 256"),
    ],
)
def test_what_is_not_known_to_keep_rows_apart_is_padded(config: Any, longest: int, reason: str) -> None:
    for machine, short, long in ((CPU, "eager", "sdpa"), (AMPERE, "sdpa", "sdpa")):
        batching = packing.choose(config, machine, longest)
        assert reason in str(batching.why_padded)
        assert batching.attn_implementation == (short if longest <= 256 else long)
        assert not batching.padding_free
        assert str(batching) == f"length-grouped, because {batching.why_padded}"
    assert packing.choose(config_of("mistral", sliding_window=256), CPU, 256).why_padded is None


@pytest.mark.parametrize("name", packing.VERSIONS)
def test_other_versions_train_with_padding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = packing.version
    monkeypatch.setattr(packing, "version", lambda package: "9.9" if package == name else installed(package))
    assert packing.choose(config_of("llama"), CPU, 9) == packing.Batching(
        "eager", f"{name} 9.9 is installed, batches without padding are tested with {packing.VERSIONS[name]}"
    )


@pytest.mark.parametrize("plain_tokens", [0, 9, 99])
def test_autocast_meets_every_kernel_with_queries_in_float32(
    plain_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where all weights are trained: the rotated queries and keys come in float32, the values in bfloat16."""
    monkeypatch.setattr(packing, "PLAIN_ATTENTION_TOKENS", plain_tokens)
    model, inputs = tiny("llama"), end_to_end(rows())
    inputs.pop("labels")
    model.set_attn_implementation(packing.BY_ROW)
    exact = model(**inputs, use_cache=False).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(**inputs, use_cache=False).logits
    rounded.float().sum().backward()
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_dropout_drops() -> None:
    packing._register()
    torch.manual_seed(0)
    q = k = v = torch.randn(1, 2, 6, 4)
    borders = torch.tensor([0, 4, 6])
    kept, dropped = (
        packing._attend_by_row(None, q, k, v, None, cu_seq_lens_q=borders, dropout=share)[0] for share in (0.0, 0.5)
    )
    assert kept.shape == dropped.shape == (1, 6, 2, 4)
    assert not torch.equal(kept, dropped)


def test_padding_is_what_training_computed_for_nothing() -> None:
    model, batch = tiny("llama"), rows()
    padding = packing.measure_padding(model)
    assert padding() is None
    padded = DataCollatorForLanguageModeling(pad_token_id=0)(batch)
    model(**padded)
    assert padding() == pytest.approx(1 - 40 / (5 * 14))
    model.eval()(**padded)
    assert padding() == pytest.approx(1 - 40 / (5 * 14))
    model.train().set_attn_implementation(packing.BY_ROW)
    model(**end_to_end(batch), use_cache=False)
    assert padding() == pytest.approx(1 - 80 / (5 * 14 + 40))
