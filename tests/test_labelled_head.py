"""The labelled-only head against TRL's own, on the same batch of tiny models of the true architectures.

In bites of 5 and 2 rows, so that every test crosses their borders.
"""
# ruff: noqa: E402

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from fcot_lite import labelled_head

pytestmark = pytest.mark.real

VOCAB = 97
IGNORED = -100


@pytest.fixture(autouse=True)
def small_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_head, "ROWS_PER_PRODUCT", 5)
    monkeypatch.setattr(labelled_head, "ROWS_PER_SOFTMAX", 2)


def tiny(model_type: str, *, tied: bool = True, **options: Any) -> Any:
    torch.manual_seed(0)
    heads = {} if model_type == "gpt2" else {"num_key_value_heads": 2, "intermediate_size": 48}
    config = CONFIG_MAPPING[model_type](
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.3,  # logits far from uniform
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **heads,
        **options,
    )
    if model_type == "gpt2":
        config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0  # two forwards must see the same network
    return AutoModelForCausalLM.from_config(config).train()


def batch(*, padded: bool) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(1)
    input_ids = torch.randint(3, VOCAB, (3, 14), generator=rng)
    labels = input_ids.clone()
    labels[:, :5] = IGNORED
    labels[1, 9] = IGNORED  # a hole, as in a row of several turns
    attention_mask = torch.ones_like(input_ids)
    if padded:
        for row, length in ((0, 8), (2, 11)):
            input_ids[row, length:], labels[row, length:], attention_mask[row, length:] = 0, IGNORED, 0
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def run(model: Any, inputs: dict[str, Any], **options: Any) -> tuple[Any, dict[str, Any]]:
    model.zero_grad()
    outputs = model(**inputs, fused_lm_head=True, **options)
    outputs.loss.backward()
    return outputs, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def both(model: Any, inputs: dict[str, Any], **options: Any) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    theirs, their_gradients = run(model, inputs, **options)
    labelled_head.rebind_forward(base)
    ours, our_gradients = run(model, inputs, **options)
    return theirs, ours, their_gradients, our_gradients


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("model_type", labelled_head.MODEL_TYPES)
def test_agrees_with_trl_in_float32(model_type: str, tied: bool, padded: bool) -> None:
    model, inputs = tiny(model_type, tied=tied), batch(padded=padded)
    theirs, ours, their_gradients, our_gradients = both(model, inputs)
    assert isinstance(ours, FusedCausalLMOutput)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    for field in ("log_probs", "entropy"):
        torch.testing.assert_close(getattr(ours, field), getattr(theirs, field), rtol=1e-5, atol=1e-5)
    for field in ("is_top1", "label_mask"):
        assert torch.equal(getattr(ours, field), getattr(theirs, field)), field
    assert ours.log_probs.shape == (3, 13)
    assert ours.label_mask.sum() == (inputs["labels"][:, 1:] != IGNORED).sum()
    assert our_gradients.keys() == their_gradients.keys()
    assert len(our_gradients) > 10
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-4, atol=1e-5, msg=name)
    assert max(gradient.abs().max() for gradient in our_gradients.values()) > 1e-3  # zero agrees with zero


@pytest.mark.parametrize("model_type", labelled_head.MODEL_TYPES)
def test_agrees_with_trl_under_an_adapter_where_the_head_is_frozen(model_type: str) -> None:
    adapter = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    theirs, ours, their_gradients, our_gradients = both(get_peft_model(tiny(model_type), adapter), batch(padded=True))
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    assert all("lora_" in name for name in our_gradients)
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("adapter", [False, True])
def test_is_as_exact_as_trl_under_bfloat16_autocast(adapter: bool) -> None:
    """Both round; neither may be further from the float32 gradient than the other by more than a fifth."""
    model, inputs = tiny("llama"), batch(padded=True)
    if adapter:
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(model, config)
    base = model.get_base_model() if adapter else model
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    exact, exact_gradients = run(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours, their_gradients, our_gradients = both(model, inputs)

    def error(gradients: dict[str, Any]) -> float:
        return float(torch.cat([(gradients[name] - g).flatten() for name, g in exact_gradients.items()]).norm())

    assert ours.log_probs.dtype == torch.float32
    assert abs(ours.loss - exact.loss) < 0.01 * exact.loss
    assert abs(ours.loss - theirs.loss) < 0.002 * exact.loss
    size = float(torch.cat([g.flatten() for g in exact_gradients.values()]).norm())
    assert 0 < error(our_gradients) < 1.2 * error(their_gradients)
    assert error(our_gradients) < 0.1 * size  # of the bfloat16 layers below, mostly


def test_gradient_follows_any_weighting_of_the_tokens() -> None:
    """TRL's `dft` loss weighs each token by its own probability, so a row's gradient may not assume -1/n."""
    model, inputs = tiny("qwen2"), batch(padded=True)
    weights = torch.rand(3, 13, generator=torch.Generator().manual_seed(2)) - 0.3
    gradients = []
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    for _ in range(2):
        model.zero_grad()
        (model(**inputs, fused_lm_head=True).log_probs * weights).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        labelled_head.rebind_forward(model)
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradient, gradients[0][name], rtol=1e-4, atol=1e-5, msg=name)


def test_num_items_in_batch_divides_the_loss() -> None:
    model, inputs = tiny("llama"), batch(padded=False)
    theirs, ours, *_ = both(model, inputs, num_items_in_batch=torch.tensor(100))
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)


@pytest.mark.parametrize("adapter", [False, True])
def test_a_batch_without_labels_has_loss_zero_and_gradient_zero(adapter: bool) -> None:
    model, inputs = tiny("llama"), batch(padded=True)
    if adapter:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    inputs["labels"] = torch.full_like(inputs["labels"], IGNORED)
    _, ours, _, gradients = both(model, inputs)
    assert ours.loss.item() == 0
    assert gradients
    assert all(not gradient.any() for gradient in gradients.values())


def test_only_labelled_positions_reach_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    function = labelled_head._labelled_log_probs()
    apply = function.apply
    monkeypatch.setattr(function, "apply", lambda hidden, *rest: scored.append(len(hidden)) or apply(hidden, *rest))
    model, inputs = tiny("llama"), batch(padded=True)
    both(model, inputs)
    assert scored == [int((inputs["labels"][:, 1:] != IGNORED).sum())]
    assert scored[0] < inputs["labels"].numel() / 2


def test_without_fused_lm_head_the_model_is_as_before() -> None:
    model, inputs = tiny("llama"), batch(padded=False)
    before = model(**inputs)
    prompt = inputs["input_ids"][:1]
    text = model.generate(prompt, max_new_tokens=4, do_sample=False)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    labelled_head.rebind_forward(model)
    after = model(**inputs)
    assert torch.equal(before.logits, after.logits)
    assert before.loss == after.loss
    assert torch.equal(text, model.generate(prompt, max_new_tokens=4, do_sample=False))


def trainer(folder: Path, model: Any, **options: Any) -> Any:
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    rows = batch(padded=False)
    return labelled_head.sft_trainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=2,
            num_train_epochs=3,
            learning_rate=1e-2,
            logging_steps=1,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            save_strategy="no",
            report_to=[],
            **options,
        ),
        train_dataset=Dataset.from_dict({key: rows[key].tolist() for key in ("input_ids", "labels")}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>"),
    )


def has_labelled_head(model: Any) -> bool:
    return bool(model.forward.__func__.__globals__["__name__"] == labelled_head.__name__)


def test_another_trl_version_trains_with_trls_own_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert has_labelled_head(trainer(tmp_path, tiny("llama")).model)
    monkeypatch.setattr(labelled_head, "TRL_VERSION", "1.15.9")
    caplog.set_level("INFO", logger=labelled_head.__name__)
    assert not has_labelled_head(trainer(tmp_path, tiny("llama")).model)
    assert "1.15.9" in caplog.text


@pytest.mark.parametrize("loss_type", ["nll", "dft"])
def test_training_takes_the_same_course_with_either_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    courses = []
    for version in (labelled_head.TRL_VERSION, "1.15.9"):
        monkeypatch.setattr(labelled_head, "TRL_VERSION", version)
        one = trainer(tmp_path, tiny("llama"), loss_type=loss_type)
        one.train()
        courses.append([entry for entry in one.state.log_history if "loss" in entry])
    assert len(courses[0]) == 6
    assert courses[0][-1]["mean_token_accuracy"] > courses[0][0]["mean_token_accuracy"]
    for ours, theirs in zip(*courses, strict=True):
        for key in ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-4), key


@pytest.mark.parametrize("model_type", ["granite", "gemma2", "cohere"])  # a divisor, a soft cap, a factor
def test_a_model_that_transforms_its_logits_keeps_trls_head(tmp_path: Path, model_type: str) -> None:
    model = tiny(model_type)
    assert model_type in str(labelled_head.why_not(model))
    assert not has_labelled_head(trainer(tmp_path, model).model)


def test_a_head_with_a_bias_keeps_trls_head() -> None:
    model = tiny("llama", tied=False)
    assert labelled_head.why_not(model) is None
    model.set_output_embeddings(torch.nn.Linear(32, VOCAB, bias=True))
    assert "bias" in str(labelled_head.why_not(model))
