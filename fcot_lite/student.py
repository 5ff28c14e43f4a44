"""Fine-tuning: lora, qlora or full, through TRL's SFTTrainer.

The trainer gets token ids and labels from our one renderer, so TRL's own preparation, which can truncate, is skipped.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import fsync_folder, fsync_tree
from fcot_lite.labelled_head import sft_trainer
from fcot_lite.machine import Machine

GIB = 2**30
Method = Literal["lora", "qlora", "full"]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training row; `labels` is -100 on the prompt and the token itself on the completion, end of turn included."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """`num_tokens` counts real tokens over all epochs, padding not; `losses` are (step, loss)."""

    trainable_parameters: int
    num_tokens: int
    wall_seconds: float
    tokens_per_second: float
    losses: list[tuple[int, float]]
    peak_gpu_allocated_gib: float | None
    peak_gpu_reserved_gib: float | None


def sft_arguments(sft: Mapping[str, Any], method: Method, machine: Machine, seed: int, folder: Path) -> dict[str, Any]:
    """What is passed to TRL's SFTConfig. The recipe's `sft:` block wins over what the machine suggests, except where
    we depend on it: our rows are ready, and no part of them may be cut."""
    cpu = machine.device == "cpu"
    suggested = {
        "bf16": machine.dtype == "bfloat16",
        "fp16": machine.dtype == "float16",
        # On a card the activations of a long rationale are most of the memory; a CPU has memory and wants the time.
        "gradient_checkpointing": not cpu,
        "optim": "adamw_torch_fused",
        "logging_steps": 1,
        "save_strategy": "no",
        # Rows of one length share a batch, so that little of it is padding.
        "train_sampling_strategy": "group_by_length",
    }
    required = {
        "output_dir": str(folder),
        "use_cpu": cpu,
        "seed": seed,
        "data_seed": seed,
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "prediction_loss_only": True,  # else TRL adds a forward with all logits
        "report_to": [],
        "disable_tqdm": True,
    }
    return suggested | dict(sft) | required


def quantization_arguments(machine: Machine) -> dict[str, Any]:
    """What is passed to BitsAndBytesConfig. Its own defaults are fp4 and float32."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": machine.dtype,
    }


def lora_arguments(lora: Mapping[str, Any]) -> dict[str, Any]:
    """What is passed to PEFT's LoraConfig."""
    return {"task_type": "CAUSAL_LM"} | dict(lora)


def load_model(model_dir: Path, method: Method, machine: Machine) -> Any:
    """The model to train: bf16 weights for lora, NF4 for qlora, float32 for full.

    Full fine-tuning keeps float32 weights under bf16 autocast: a step of AdamW at 5e-5 is smaller than the rounding of
    a bf16 weight, and would be lost.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    arguments: dict[str, Any] = {
        "dtype": torch.float32 if method == "full" else getattr(torch, machine.dtype),
        "attn_implementation": "sdpa",
    }
    if method == "qlora":
        arguments["quantization_config"] = BitsAndBytesConfig(**quantization_arguments(machine))
        if machine.device == "cuda":
            arguments["device_map"] = {"": 0}
    model = AutoModelForCausalLM.from_pretrained(model_dir, **arguments)
    if method == "qlora":
        keep_back_propagation(model)
    return model


def keep_back_propagation(model: Any) -> None:
    """bitsandbytes repacks NF4 weights in place on the first evaluation pass on a CPU with AVX512-BF16, and from then
    on that layer gives no gradient (bitsandbytes 0.50.2, nn/modules.py Linear4bit.forward). Switches that off."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def train(
    model_dir: Path,
    train_rows: Sequence[TokenRow],
    *,
    method: Method,
    lora: Mapping[str, Any],
    sft: Mapping[str, Any],
    seed: int,
    machine: Machine,
    output_dir: Path,
    log_dir: Path,
    progress: Callable[[int, int, str], None],
) -> TrainOutcome:
    """Fine-tunes and leaves the adapter (method full: the whole model) in `output_dir`, whole or not at all.

    Raises DataError naming the row that can't be trained on, RecipeError where TRL or PEFT refuse an option.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig

    torch.set_num_threads(len(machine.cpus))
    torch.manual_seed(seed)
    progress(0, 0, "loading the model")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = load_model(model_dir, method, machine)
    check_rows(train_rows, model.config.get_text_config().max_position_embeddings)

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
            progress(state.global_step, state.max_steps, "steps" + (f", loss {loss:.3f}" if loss else ""))

    try:
        arguments = SFTConfig(**sft_arguments(sft, method, machine, seed, log_dir / "trainer"))
        peft_config = None if method == "full" else LoraConfig(**lora_arguments(lora))
        trainer = sft_trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list([{"input_ids": r.input_ids, "labels": r.labels} for r in train_rows]),
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=[Steps()],
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"student.lora or student.sft: {error}") from error
    trainable = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        # TRL casts the adapters of a quantised model to bf16, where small updates round away: back to float32.
        parameter.data = parameter.data.float()
    if machine.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    trainer.train()
    wall_seconds = time.monotonic() - started
    history = trainer.state.log_history
    num_tokens = round(max(entry["num_tokens"] for entry in history if "num_tokens" in entry))
    progress(0, 0, "saving")
    temporary = output_dir.with_name(f".{output_dir.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    trainer.model.save_pretrained(temporary)
    if method == "full":
        tokenizer.save_pretrained(temporary)
    _publish(temporary, output_dir)
    cuda = machine.device == "cuda"
    return TrainOutcome(
        trainable_parameters=sum(parameter.numel() for parameter in trainable),
        num_tokens=num_tokens,
        wall_seconds=wall_seconds,
        tokens_per_second=num_tokens / wall_seconds,
        losses=[(entry["step"], entry["loss"]) for entry in history if "loss" in entry],
        peak_gpu_allocated_gib=torch.cuda.max_memory_allocated() / GIB if cuda else None,
        peak_gpu_reserved_gib=torch.cuda.max_memory_reserved() / GIB if cuda else None,
    )


def check_rows(rows: Sequence[TokenRow], max_positions: int) -> None:
    """Raises DataError for a row that is longer than the model's positions or teaches nothing."""
    for number, row in enumerate(rows):
        if len(row.input_ids) > max_positions:
            raise DataError(
                f"training row {number} has {len(row.input_ids)} tokens, the student takes {max_positions}; lower "
                "curate.max_length: nothing is ever truncated"
            )
        if len(row.input_ids) != len(row.labels) or all(label == -100 for label in row.labels[1:]):
            raise DataError(f"training row {number} has no labelled token; its completion is empty")


def merge(model_dir: Path, adapter_dir: Path, output_dir: Path) -> None:
    """Writes base + adapter as one bf16 model with tokenizer, whole or not at all. Never merges into 4-bit weights."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(base, adapter_dir).merge_and_unload()
    temporary = output_dir.with_name(f"{output_dir.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    merged.save_pretrained(temporary)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(temporary)
    _publish(temporary, output_dir)


def _publish(temporary: Path, target: Path) -> None:
    fsync_tree(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    fsync_folder(target.parent)
