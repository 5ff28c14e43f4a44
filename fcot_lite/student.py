"""Fine-tuning the student: TRL's SFTTrainer on token ids, with an adapter (lora, qlora) or on all weights (full).

What the libraries would do by default and this does not: load weights in float32, cut long rows, round the adapter of
a 4-bit model to bfloat16, replace a loss that is not a number by the mean of the others.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from fcot_lite import adapters, checkpoints, labelled_head, packing, training_preflight
from fcot_lite.checkpoints import Spent
from fcot_lite.errors import EngineError, RecipeError
from fcot_lite.files import whole_folder
from fcot_lite.machine import Machine
from fcot_lite.out_of_memory import named_out_of_memory
from fcot_lite.prompts import end_of_turn_id
from fcot_lite.rows import TokenRow, check_rows

Method = Literal["lora", "qlora", "full"]
Base = Literal["unquantised", "nf4"]  # which weights an adapter is merged into


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """`num_tokens` counts real tokens over all epochs, prompt included and padding not; `losses` are (step, loss).
    `wall_seconds` is the training proper, its checkpoints included: no loading, no saving at the end. Over resumes it
    adds up, without the steps that a kill lost. `resumed_at` is the step of the checkpoint that training went on from,
    `epochs` are the names of the students kept by epoch. `batching` says how rows shared a step, and why, `padding`
    which share of the positions that were computed held no token. The gpu fields are None on the CPU."""

    trainable_parameters: int
    num_tokens: int
    wall_seconds: float
    tokens_per_second: float
    losses: list[tuple[int, float]]
    batching: str
    padding: float | None
    steps: int
    resumed_at: int | None
    epochs: list[str]
    peak_gpu_allocated_gib: float | None
    peak_gpu_reserved_gib: float | None


def sft_arguments(
    sft: Mapping[str, Any],
    machine: Machine,
    seed: int,
    output_dir: Path,
    padding_free: bool = False,
    method: Method = "lora",
) -> dict[str, Any]:
    """The keyword arguments of TRL's SFTConfig: the recipe's `sft` over our defaults, under what cannot be chosen.

    `max_length` is not among them: `check_rows` holds to it, and TRL would cut rows there.
    Raises RecipeError where `sft` asks for something else than the machine or the data path allows.
    """
    cuda = machine.device == "cuda"
    defaults = {
        "gradient_checkpointing": cuda,  # memory is scarce on a card; a CPU only pays the third more compute
        # Moments of 8 bits take 2 bytes a trained weight instead of 8, without a loss that arXiv:2110.02861 could find.
        # With all weights trained that decides what fits: a 1.5B student takes 14 GiB before its activations, not 23.
        # Of an adapter of rank 32 on 7B it would save 0.45 GiB.
        "optim": "adamw_8bit" if cuda and method == "full" else "adamw_torch_fused",
        "logging_steps": 1,
        # Where batches are padded, their rows are of one length, so that there is little to pad.
        "train_sampling_strategy": "random" if padding_free else "group_by_length",
    }
    fixed = {
        "output_dir": str(output_dir),
        "use_cpu": not cuda,
        "bf16": machine.dtype == "bfloat16",
        "fp16": machine.dtype == "float16",
        "seed": seed,
        "data_seed": seed,
        "max_length": None,
        "padding_free": padding_free,
        "packing": False,  # would need TRL's own tokenisation, which `skip_prepare_dataset` turns off; see packing.py
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "save_strategy": "no",  # checkpoints.py says when
        "eval_strategy": "no",
        "prediction_loss_only": True,
        "logging_strategy": "steps",
        "logging_nan_inf_filter": False,  # True would log the mean of the earlier losses in place of a NaN
        "report_to": [],
        "disable_tqdm": True,
    }
    for name in fixed.keys() & sft.keys() - {"max_length"}:
        if sft[name] != fixed[name]:
            raise RecipeError(
                f"student.sft.{name}: {sft[name]!r} cannot be chosen here, it is always {fixed[name]!r}; remove it"
            )
    return {**defaults, **sft, **fixed}


def quantization_arguments(machine: Machine) -> dict[str, Any]:
    """The keyword arguments of BitsAndBytesConfig: QLoRA's NF4 with double quantisation (arXiv:2305.14314)."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",  # the library's default is fp4
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": machine.dtype,  # the library's default is float32
    }


def lora_arguments(lora: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of PEFT's LoraConfig; PEFT's own rank 8 and alpha 8 are small for reasoning."""
    rank = lora.get("r", 32)
    defaults = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear"}
    chosen = {name: value for name, value in lora.items() if name != adapters.LORAPLUS}
    return {**defaults, **chosen, "task_type": "CAUSAL_LM"}


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
    checkpoints_dir: Path,
    progress: Callable[[int, int, str], None],
    say: Callable[[str], None],
    epochs_dir: Path | None = None,
) -> TrainOutcome:
    """Fine-tunes the model in `model_dir` and leaves the adapter, or for `full` the whole model, in `output_dir`.

    Goes on from the newest whole checkpoint of the same training in `checkpoints_dir`, where there is one.
    `progress(done_steps, total_steps, note)` is called after each optimiser step, `say(line)` for what should stay on
    the screen. `output_dir` is whole or absent. With `epochs_dir`, the student at the end of each epoch is kept there.
    Raises DataError naming a row that cannot be trained on whole, RecipeError for an option that TRL, PEFT or this
    machine refuse, OutOfMemory, EngineError where the loss is not finite, KeyboardInterrupt after a checkpoint.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from peft.helpers import disable_input_dtype_casting
    from transformers import AutoConfig, AutoTokenizer, PrinterCallback
    from trl import SFTConfig
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    longest_row_tokens = max((len(row.input_ids) for row in train_rows), default=0)
    batching = packing.choose(AutoConfig.from_pretrained(model_dir), machine, longest_row_tokens)
    arguments = sft_arguments(sft, machine, seed, checkpoints_dir, batching.padding_free, method)
    cuda = machine.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        torch.set_num_threads(len(machine.cpus))
    progress(0, 0, f"loading the model; batches {batching}")
    with named_out_of_memory():
        model = load_model(model_dir, method, machine, batching.attn_implementation)
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        check_rows(
            train_rows,
            end_of_turn_id=end_of_turn_id(tokenizer),
            max_length=training_preflight.longest_row(model.config.get_text_config(), sft),
            vocab_size=model.get_input_embeddings().num_embeddings,
        )
        try:
            peft_config = None if method == "full" else LoraConfig(**lora_arguments(lora))
            if peft_config is not None and peft_config.init_lora_weights == "eva":
                progress(0, 0, "looking for the adapter's first directions (EVA)")
                collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=batching.padding_free)
                model, peft_config = adapters.with_eva(model, peft_config, train_rows, collate), None
            trainer = labelled_head.sft_trainer(
                model=model,
                args=SFTConfig(**arguments),
                train_dataset=Dataset.from_dict(
                    {"input_ids": [row.input_ids for row in train_rows], "labels": [row.labels for row in train_rows]}
                ),
                processing_class=tokenizer,
                peft_config=peft_config,
                callbacks=[_steps(progress)],
            )
        except (TypeError, ValueError) as error:
            raise RecipeError(f"student.sft or student.lora: {error}") from error
        training_preflight.refuse([training_preflight.padding(trainer.data_collator, train_rows)])

        def spent() -> Spent:
            return _spent(resumed.spent if resumed else Spent(), trainer, start, cuda)

        def save(path: Path) -> None:
            _save_student(trainer.model, method, machine, model_dir, path)

        identity = checkpoints.identity(model_dir, train_rows, method, lora, arguments, epochs_dir is not None)
        resumed = checkpoints.newest(checkpoints_dir, identity, say)
        trainer.remove_callback(PrinterCallback)  # writes to stdout
        padding = packing.measure_padding(trainer.model)
        trainable = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        for parameter in trainable:
            # TRL rounds the adapter of a 4-bit model to bfloat16, where a step of less than 1/256 of a weight is
            # lost, and float16's gradient scaler refuses anything but float32.
            parameter.data = parameter.data.float()
        if method != "full" and adapters.LORAPLUS in lora:
            trainer.optimizer = adapters.loraplus_optimizer(trainer, lora[adapters.LORAPLUS])
        if resumed is not None:
            say(f"training goes on from the checkpoint of step {resumed.step}")
            trainer._total_train_tokens = resumed.spent.num_tokens  # TRL's count, which its checkpoints leave out
        start = time.perf_counter()
        with checkpoints.after_the_step() as interrupt:
            saver = checkpoints.saver(checkpoints_dir, identity, seed, resumed, interrupt, spent, epochs_dir, save, say)
            trainer.add_callback(saver)
            # PEFT would cast each input to float32 for its float32 adapter, and autocast straight back.
            with contextlib.nullcontext() if method == "full" else disable_input_dtype_casting(trainer.model):
                trainer.train(resume_from_checkpoint=str(resumed.path) if resumed else None)
        total = spent()
        progress(0, 0, "saving")
        save(output_dir)
    return TrainOutcome(
        trainable_parameters=sum(parameter.numel() for parameter in trainable),
        tokens_per_second=total.num_tokens / total.wall_seconds,
        losses=[(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry],
        batching=str(batching),
        padding=padding(),
        steps=trainer.state.global_step,
        resumed_at=resumed.step if resumed else None,
        epochs=saver.epochs,
        **asdict(total),
    )


def _spent(before: Spent, trainer: Any, start: float, cuda: bool) -> Spent:
    """With what this attempt, begun at `start`, has taken so far."""
    import torch

    def peak(earlier: float | None, num_bytes: int) -> float:
        return max(earlier or 0.0, num_bytes / 2**30)

    return Spent(
        num_tokens=int(trainer._total_train_tokens),
        wall_seconds=before.wall_seconds + time.perf_counter() - start,
        peak_gpu_allocated_gib=peak(before.peak_gpu_allocated_gib, torch.cuda.max_memory_allocated()) if cuda else None,
        peak_gpu_reserved_gib=peak(before.peak_gpu_reserved_gib, torch.cuda.max_memory_reserved()) if cuda else None,
    )


def depends_on(machine: Machine) -> dict[str, Any]:
    """What training again with the same recipe can differ by. On one machine, with all of this the same, a CPU gives
    the same weights to the byte."""
    import torch

    return {
        "device": machine.gpu_name or "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # which kernels torch and oneDNN take
        "versions": {name: version(name) for name in checkpoints.LIBRARIES},
        "order_of_sums": "fixed" if machine.device == "cpu" else "not fixed: CUDA kernels add atomically",
    }


def load_model(model_dir: Path, method: Method, machine: Machine, attn_implementation: str) -> Any:
    """The model as `method` trains it: frozen weights in the machine's dtype or NF4, trained ones in float32.

    For `full`, autocast computes in the machine's dtype from float32 weights: a bfloat16 weight has 8 bits, and an
    AdamW step of less than 1/256 of it would change nothing.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options: dict[str, Any] = {
        "dtype": torch.float32 if method == "full" else getattr(torch, machine.dtype),
        "device_map": {"": "cpu" if machine.device == "cpu" else 0},
        "attn_implementation": attn_implementation,
    }
    if method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(**quantization_arguments(machine))
    model = AutoModelForCausalLM.from_pretrained(model_dir, **options)
    if method == "qlora":
        import bitsandbytes

        for module in model.modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                # On a CPU with AVX512-BF16 a forward in eval mode repacks the weight for a kernel that has no
                # backward, and training goes on without gradients (bitsandbytes 0.50, nn/modules.py).
                module.support_avx512bf16_for_cpu = False
    return model


def merge(model_dir: Path, adapter_dir: Path, output_dir: Path, base: Base = "unquantised") -> None:
    """Writes the model of `model_dir` in bfloat16 with the adapter added to its weights, whole or absent.

    The weights are the unquantised ones or, with `base="nf4"`, what NF4 makes of them: those that a QLoRA adapter was
    trained beside. The sum is never rounded back to 4 bits, which would lose most of the adapter.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if base == "nf4":
        model = load_model(model_dir, "qlora", Machine("cpu", ()), "sdpa").dequantize()
    else:
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, adapter_dir).merge_and_unload()
    with whole_folder(output_dir) as folder:
        save_model(merged, model_dir, folder)


def _save_student(model: Any, method: Method, machine: Machine, model_dir: Path, path: Path) -> None:
    with whole_folder(path) as folder:
        if method == "full":
            with _rounded(model, machine.dtype):
                save_model(model, model_dir, folder)
        else:
            model.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink()  # PEFT's model card, all blanks


@contextlib.contextmanager
def _rounded(model: Any, dtype: str) -> Iterator[None]:
    """The weights in `dtype` inside the block, and after it as they were: training may go on."""
    import torch

    exact = [(parameter, parameter.data) for parameter in model.parameters()]
    for parameter, data in exact:
        parameter.data = data.to(getattr(torch, dtype))
    try:
        yield
    finally:
        for parameter, data in exact:
            parameter.data = data


def save_model(model: Any, model_dir: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    model.save_pretrained(folder)  # safetensors, config and generation_config
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(folder)  # read again: TRL sets a pad token on its own


def _steps(progress: Callable[[int, int, str], None]) -> Any:
    from transformers import TrainerCallback

    class Steps(TrainerCallback):  # type: ignore[misc]
        loss = math.nan

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
            if "loss" in logs:
                self.loss = float(logs["loss"])
                if not math.isfinite(self.loss):
                    raise EngineError(
                        f"the training loss is {self.loss} at step {state.global_step}; lower student.sft.learning_rate"
                    )

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            known = math.isfinite(self.loss)  # a step is logged after it has ended
            progress(state.global_step, state.max_steps, f"steps, loss {self.loss:.3f}" if known else "steps")

    return Steps()
