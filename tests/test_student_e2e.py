"""NF4 + LoRA through the real SFTTrainer on the real 135M starter: what moves, what must not, and what merging does."""
# ruff: noqa: E402

import hashlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from fcot_lite import labelled_head, models, student
from fcot_lite.machine import detect

pytestmark = pytest.mark.e2e

TEXTS = {
    "Tom has 3 apples and buys 4 more. How many apples has he?": "He starts with 3, then 3 + 4 = 7. The answer is 7.",
    "A box holds 6 pens. How many pens are in 5 boxes?": "Each box holds 6, and 6 * 5 = 30. The answer is 30.",
    "Ann had 20 cards and gave 8 away. How many are left?": "She had 20, and 20 - 8 = 12. The answer is 12.",
    "9 birds sat on a wire and 2 flew off. How many stayed?": "There were 9, and 9 - 2 = 7. The answer is 7.",
}


def base_hashes(model: Any) -> dict[str, str]:
    """The bytes of each frozen weight and of its quantisation state. Not by `state_dict()`: it un-packs, with loss."""

    def digest(*tensors: Any) -> str:
        sha256 = hashlib.sha256()
        for tensor in tensors:
            sha256.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return sha256.hexdigest()

    hashes = {}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            continue
        name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        hashes[name] = digest(parameter.data)
        if (state := getattr(parameter, "quant_state", None)) is not None:
            hashes[f"{name} quant_state"] = digest(
                state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code
            )
    return hashes


def test_nf4_and_lora_learn_while_the_base_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    model_dir = models.resolve("starter:smollm2-135m-instruct", say=print)
    machine = detect()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = []
    for question, rationale in TEXTS.items():
        prompt = tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").input_ids
        completion = tokenizer(f"{rationale}<|im_end|>").input_ids
        rows.append(student.TokenRow(prompt + completion, [-100] * len(prompt) + completion))

    seen = {}
    make_trainer = labelled_head.sft_trainer

    def watched_trainer(**arguments: Any) -> Any:
        trainer = make_trainer(**arguments)
        model = seen["model"] = trainer.model
        seen["base"] = base_hashes(model)
        seen["adapter"] = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}
        return trainer

    monkeypatch.setattr(labelled_head, "sft_trainer", watched_trainer)
    outcome = student.train(
        model_dir,
        rows,
        method="qlora",
        lora={"r": 8},
        sft={"learning_rate": 1e-3, "max_steps": 10, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant"},
        seed=0,
        machine=machine,
        output_dir=tmp_path / "adapter",
        checkpoints_dir=tmp_path / "checkpoints",
        progress=lambda *_: None,
        say=print,
    )

    # It learns the batch by heart.
    losses = [loss for _, loss in outcome.losses]
    assert len(losses) == 10
    assert losses[-1] < 0.5 * losses[0], losses
    assert outcome.num_tokens == 10 * sum(len(row.input_ids) for row in rows)

    # The adapter moved, every matrix of it; the base did not, not by a bit.
    after = dict(seen["model"].named_parameters())
    assert len(seen["adapter"]) == 30 * 7 * 2
    assert [name for name, before in seen["adapter"].items() if torch.equal(before, after[name])] == []
    assert sum("quant_state" in name for name in seen["base"]) == 30 * 7
    assert base_hashes(seen["model"]) == seen["base"]
    assert base_hashes(student.load_model(model_dir, "qlora", machine, "sdpa")) == seen["base"]
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(saved) == len(seen["adapter"])
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}

    # Merging changes the model, into what base + adapter says.
    student.merge(model_dir, tmp_path / "adapter", tmp_path / "merged")
    inputs = torch.tensor([rows[0].input_ids])
    labels = torch.tensor([rows[0].labels])
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        plain = base(inputs, labels=labels)
        adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")(inputs, labels=labels)
        merged_model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
        assert merged_model.dtype == torch.bfloat16
        merged = merged_model.float()(inputs, labels=labels)
    change = (adapted.logits - plain.logits).norm()
    assert change > 0.05 * plain.logits.norm()
    assert (merged.logits - adapted.logits).norm() < 0.05 * change  # bfloat16 keeps 8 bits of each merged weight
    assert merged.loss < 0.6 * plain.loss  # what was learnt on NF4 holds on the unquantised weights
    assert merged.loss.item() == pytest.approx(adapted.loss.item(), rel=0.05)
