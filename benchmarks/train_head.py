"""TRL's training step on the CPU against ours, on the same batches: the head alone, and all of `student.train`.

    python benchmarks/train_head.py          # writes benchmarks/results/train_head.json

Three arms take turns, in rotating order: TRL's SFTTrainer as it comes; the same with the labelled-only head;
`student.train`, which also drops PEFT's casts and, since the stored results, the padding. 135M student, LoRA r=32 on
all linear layers, bfloat16 weights and autocast, no gradient checkpointing, 8 rows a step. The rows are random tokens
with the lengths of chain-arithmetic rationales (mean 72 + 88 tokens). The first step of each turn warms up and is not
timed.
"""

import json
import os
import random
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

TURNS, STEPS, BATCH = 5, 4, 8
MODEL = "starter:smollm2-135m-instruct"
SFT = {
    "learning_rate": 5e-4,
    "num_train_epochs": 1,
    "per_device_train_batch_size": BATCH,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "random",  # else the arms would pad differently
}


def main() -> None:
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""})
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from fcot_lite import labelled_head, models, student
    from fcot_lite.machine import detect

    machine = detect()
    torch.set_num_threads(len(machine.cpus))
    model_dir = models.resolve(MODEL, say=print)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    draw = random.Random("rows")
    rows = []
    for _ in range(STEPS * BATCH):
        num_prompt, num_completion = (max(20, round(draw.gauss(mean, spread))) for mean, spread in ((72, 16), (88, 30)))
        ids = [draw.randrange(3, len(tokenizer)) for _ in range(num_prompt + num_completion)]
        ids[-1] = tokenizer.eos_token_id
        rows.append(student.TokenRow(ids, [-100] * num_prompt + ids[num_prompt:]))

    class Steps(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    def through_trainer(trainer_of: Any, folder: Path) -> tuple[list[float], list[float], list[float]]:
        steps = Steps()
        trainer = trainer_of(
            model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16),
            args=SFTConfig(**student.sft_arguments(SFT, machine, 0, folder)),
            train_dataset=Dataset.from_dict(
                {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
            ),
            processing_class=AutoTokenizer.from_pretrained(model_dir),
            peft_config=LoraConfig(**student.lora_arguments({"r": 32})),
            callbacks=[steps],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        return steps.ends, [entry["loss"] for entry in log], [entry["num_tokens"] for entry in log]

    def through_student(folder: Path) -> tuple[list[float], list[float], list[float]]:
        ends: list[float] = []
        outcome = student.train(
            model_dir,
            rows,
            method="lora",
            lora={"r": 32},
            sft=SFT,
            seed=0,
            machine=machine,
            output_dir=folder / "adapter",
            checkpoints_dir=folder / "checkpoints",
            progress=lambda done, total, note: ends.append(time.perf_counter()) if done else None,
            say=print,
        )
        return ends, [loss for _, loss in outcome.losses], []

    arms = {
        "trl": lambda folder: through_trainer(SFTTrainer, folder),
        "labelled_head": lambda folder: through_trainer(labelled_head.sft_trainer, folder),
        "student": through_student,
    }
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    losses: dict[str, list[float]] = {}
    num_tokens = 0.0
    for turn in range(TURNS):
        seconds = {}
        for name in [*arms, *arms][turn % 3 : turn % 3 + 3]:
            with tempfile.TemporaryDirectory() as folder:
                ends, losses[name], counts = arms[name](Path(folder))
            seconds[name] = ends[-1] - ends[0]
            num_tokens = counts[-1] - counts[0] if counts else num_tokens
        for name in arms:
            speeds[name].append(num_tokens / seconds[name])
        print(f"turn {turn + 1}: " + ", ".join(f"{name} {speeds[name][-1]:.0f} tok/s" for name in arms), flush=True)

    result: dict[str, Any] = {
        "what": "training tokens per second (real tokens, no padding), same batches",
        "steps_timed_per_turn": STEPS - 1,
        "num_tokens_timed_per_turn": num_tokens,
        "num_threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "tokens_per_second": speeds,
        "losses": losses,
    }
    for name in ("labelled_head", "student"):
        ratios = [ours / theirs for ours, theirs in zip(speeds[name], speeds["trl"], strict=True)]
        generator = random.Random("bootstrap")
        medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(10_000))
        differences = [ours - theirs for ours, theirs in zip(losses[name], losses["trl"], strict=True)]
        median, low, high = statistics.median(ratios), medians[250], medians[9749]
        result[name] = {"median_ratio": median, "ci95": [low, high]}
        print(
            f"{name} / trl: {median:.2f}, 95 % interval {low:.2f} … {high:.2f}; loss difference per step: "
            + " ".join(f"{difference:+.4f}" for difference in differences)
        )
    path = Path(__file__).parent / "results" / "train_head.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
