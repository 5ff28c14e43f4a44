"""`student.train` against TRL's SFTTrainer on the same rows: tokens per second, and what was learnt from them.

    python benchmarks/train_speed.py quickstart [SECONDS]    # adds turns to benchmarks/results/train_speed.json:
    python benchmarks/train_speed.py long_tail [SECONDS]     # all of them, or as many as there is time for
    python benchmarks/train_speed.py learning [SECONDS]
    python benchmarks/train_speed.py                         # prints the tables

A turn trains the 135M student once with each, with the turn's number as the seed: LoRA r=32 on all linear layers,
bfloat16 weights and autocast, no gradient checkpointing, 8 rows a step in random order, the same ones for both. TRL
pads them. The turns alternate in who comes first. The first step warms up and is not timed.

quickstart: chain arithmetic solved by its generator, rendered as recipes/quickstart.yaml does (mean 77 tokens).
long_tail: random tokens; lengths are log-normal, median 180, 95th percentile 400, at most 1,000; 45 % are prompt.
learning: more of the quickstart's rows, and the loss on 40 others afterwards, in float32, the same code for both.
"""

import itertools
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

MODEL = "starter:smollm2-135m-instruct"
RESULTS = Path(__file__).parent / "results" / "train_speed.json"
ARMS = ("trl", "student")
BATCH = 8
STEPS = {"quickstart": 8, "long_tail": 3, "learning": 20}
TURNS = {"quickstart": 5, "long_tail": 5, "learning": 3}
SFT = {
    "learning_rate": 5e-4,
    "num_train_epochs": 1,
    "per_device_train_batch_size": BATCH,
    "lr_scheduler_type": "linear",
    "warmup_steps": 3,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "random",
}


def main() -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if len(sys.argv) > 1:
        mix, deadline = sys.argv[1], time.monotonic() + float(sys.argv[2]) if len(sys.argv) > 2 else math.inf
        turns, longest = results.setdefault(mix, []), 0.0
        while len(turns) < TURNS[mix] and time.monotonic() + longest < deadline:
            start, seed = time.monotonic(), len(turns)
            turns.append({arm: one_training(arm, mix, seed) for arm in (ARMS if seed % 2 else ARMS[::-1])})
            longest = max(longest, time.monotonic() - start)
            results["versions"] = {name: version(name) for name in ("torch", "trl", "transformers", "peft")}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            speeds = {arm: round(turns[-1][arm]["tokens_per_second"]) for arm in ARMS}
            print(f"{mix}, seed {seed}: {speeds} tok/s", flush=True)
    for mix in STEPS:
        if mix in results:
            print_table(mix, results[mix])


def rows_of(mix: str, tokenizer: Any) -> tuple[list[Any], list[Any]]:
    """(to train on, to validate on)."""
    from fcot_lite import recipe, tasks
    from fcot_lite.prompts import completion_ids, prompt_ids, render
    from fcot_lite.rows import IGNORED, TokenRow

    num_rows = STEPS[mix] * BATCH
    rows = []
    if mix != "long_tail":
        quickstart = recipe.load(Path(__file__).parents[1] / "recipes" / "quickstart.yaml")
        prompt = quickstart.prompts[quickstart.student.prompt]
        for question, solution in tasks.examples(quickstart.task, num_rows + 40):
            asked = prompt_ids(tokenizer, render(prompt, question, []), question)
            said = completion_ids(tokenizer, solution)
            rows.append(TokenRow([*asked, *said], [IGNORED] * len(asked) + list(said)))
    else:
        draw = random.Random("rows")
        for _ in range(num_rows):
            num_tokens = min(1000, max(40, round(180 * math.exp(draw.gauss(0, math.log(400 / 180) / 1.645)))))
            ids = [draw.randrange(3, len(tokenizer)) for _ in range(num_tokens - 1)] + [tokenizer.eos_token_id]
            num_prompt = num_tokens * 45 // 100
            rows.append(TokenRow(ids, [IGNORED] * num_prompt + ids[num_prompt:]))
    return rows[:num_rows], rows[num_rows:]


def one_training(arm: str, mix: str, seed: int) -> dict[str, Any]:
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""})
    import torch
    from transformers import AutoTokenizer

    from fcot_lite import models, student
    from fcot_lite.machine import detect
    from fcot_lite.rows import IGNORED

    machine = detect()
    torch.set_num_threads(len(machine.cpus))
    model_dir = models.resolve(MODEL, say=lambda text: print(text, file=sys.stderr))
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows, validation = rows_of(mix, tokenizer)
    ends: list[float] = []

    def step_ended(done: int, total: int, note: str) -> None:
        if done:
            ends.append(time.perf_counter())

    num_tokens = round(sum(len(row.input_ids) for row in rows) / STEPS[mix])
    rates = [matrix_rate(num_tokens)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arm == "student":
            outcome = student.train(
                model_dir,
                rows,
                method="lora",
                lora={"r": 32},
                sft=SFT,
                seed=seed,
                machine=machine,
                output_dir=folder / "adapter",
                checkpoints_dir=folder / "checkpoints",
                progress=step_ended,
                say=lambda text: print(text, file=sys.stderr),
            )
            batching, padding = outcome.batching, outcome.padding
        else:
            batching, padding = train_with_trl(model_dir, rows, seed, machine, folder, step_ended)
        rates.append(matrix_rate(num_tokens))
        loss = validation_loss(model_dir, folder / "adapter", validation) if mix == "learning" else None
    seconds = [end - start for start, end in itertools.pairwise(ends)]
    # Both arms draw the same batches; the mean step stands for those that are timed.
    num_labels = sum(label != IGNORED for row in rows for label in row.labels) / STEPS[mix]
    return {
        "tokens_per_second": num_tokens / statistics.mean(seconds),
        "seconds_of_each_step": seconds,
        "gflops": work(num_tokens, num_labels) / statistics.mean(seconds) / 1e9,
        "matrix_gflops": statistics.mean(rates),
        "batching": batching,
        "padding": padding,
        "validation_loss": loss,
    }


def train_with_trl(
    model_dir: Path, rows: list[Any], seed: int, machine: Any, folder: Path, step_ended: Any
) -> tuple[str, float | None]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from fcot_lite import packing, student

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step_ended(state.global_step, state.max_steps, "")

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16),
        args=SFTConfig(**student.sft_arguments(SFT, machine, seed, folder)),
        train_dataset=Dataset.from_dict(
            {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
        ),
        processing_class=AutoTokenizer.from_pretrained(model_dir),
        peft_config=LoraConfig(**student.lora_arguments({"r": 32})),
        callbacks=[Steps()],
    )
    trainer.remove_callback(PrinterCallback)
    padding = packing.measure_padding(trainer.model)
    trainer.train()
    trainer.model.save_pretrained(folder / "adapter")
    return "padded", padding()


def validation_loss(model_dir: Path, adapter: Path, rows: list[Any]) -> float:
    """Mean over the labelled tokens of all rows."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).eval()
    losses: list[float] = []
    with torch.no_grad():
        for row in rows:
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
            scores = torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="none")
            losses += [loss for loss, label in zip(scores.tolist(), row.labels[1:], strict=True) if label != -100]
    return statistics.mean(losses)


LAYERS, HIDDEN, INTERMEDIATE, KEYS, VOCABULARY, RANK = 30, 576, 1536, 192, 49_152, 32  # of the 135M student
SHAPES = [(HIDDEN, HIDDEN)] * 2 + [(HIDDEN, KEYS)] * 2 + [(HIDDEN, INTERMEDIATE)] * 2 + [(INTERMEDIATE, HIDDEN)]


def work(num_tokens: float, num_labels: float) -> float:
    """Floating-point operations in the matrix products of one step, forward and backward, attention left out: two per
    weight and token, twice for a frozen weight (output, input's gradient), three times for a trained one."""
    frozen = LAYERS * sum(width * height for width, height in SHAPES)
    adapter = LAYERS * RANK * sum(width + height for width, height in SHAPES)
    return num_tokens * (4 * frozen + 6 * adapter) + num_labels * 4 * HIDDEN * VOCABULARY


def matrix_rate(num_tokens: int) -> float:
    """GFLOP/s of bfloat16 products alone, in the shapes of the frozen layers and no others, one right after another."""
    import torch

    operands = [
        (torch.randn(num_tokens, width).bfloat16(), torch.randn(height, width).bfloat16()) for width, height in SHAPES
    ]
    seconds = []
    for _ in range(40):
        start = time.perf_counter()
        for rows, weight in operands:
            torch.nn.functional.linear(rows, weight)
        seconds.append(time.perf_counter() - start)
    flops = 2 * num_tokens * sum(width * height for width, height in SHAPES)
    return flops / statistics.median(seconds) / 1e9


def print_table(mix: str, turns: list[dict[str, Any]]) -> None:
    def of(arm: str, key: str, digits: int = 0) -> str:
        return " ".join("–" if turn[arm][key] is None else f"{turn[arm][key]:.{digits}f}" for turn in turns)

    ratios = [turn["student"]["tokens_per_second"] / turn["trl"]["tokens_per_second"] for turn in turns]
    generator = random.Random("bootstrap")
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(10_000))
    print(f"\n{mix}: {statistics.median(ratios):.2f} × TRL, 95 % interval {medians[250]:.2f} … {medians[9749]:.2f}")
    print("| | batches | padding | tokens per second | share of the matrix-product rate | validation loss |")
    print("|---|---|--:|---|---|---|")
    for arm in ARMS:
        shares = " ".join(f"{turn[arm]['gflops'] / turn[arm]['matrix_gflops']:.0%}" for turn in turns)
        padding = statistics.mean(turn[arm]["padding"] for turn in turns)
        print(
            f"| {arm} | {turns[0][arm]['batching']} | {padding:.0%} | {of(arm, 'tokens_per_second')} | {shares} | "
            f"{of(arm, 'validation_loss', 3)} |"
        )


if __name__ == "__main__":
    main()
