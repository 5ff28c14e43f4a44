"""Which engine arguments sample fastest on a CPU: one change at a time, each in a process of its own.

    python benchmarks/engine_arguments.py [--model starter:NAME] [--turns 2] [--only VARIANT ...]
                                                            # writes benchmarks/results/engine_arguments.json

The quickstart's prompts (four solved examples before each question): REQUESTS of them, NUM_TOKENS each whatever they
say, so that every variant does the same work. Turns are interleaved, and a turn that is in the results is not run
again. Each one also reads what the machine can do at that time, by a bf16 matrix product: a token that is read takes
two operations for each weight of the layers, one that is written two more for each weight of the head.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "engine_arguments.json"
REQUESTS, NUM_TOKENS = 96, 32
LIBIOMP = Path(sys.prefix) / "lib" / "libiomp5.so"  # of the package intel-openmp
Environment = dict[str, str | None]  # None: not set


@dataclass(frozen=True)
class Variant:
    """What differs from `fcot-lite`. `sampling` is the quickstart's, but for what is named."""

    arguments: dict[str, Any] = field(default_factory=dict)
    environment: Environment = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    keep_pages: bool = True
    threshold: bool = True
    neighbour: bool = False  # another process keeps one core busy meanwhile


BEFORE = {"keep_pages": False, "threshold": False}  # what engines/vllm.py passed until it was measured
VARIANTS = {
    "fcot-lite": Variant(),
    "as before": Variant(**BEFORE),
    "before, min_p by threshold": Variant(keep_pages=False),
    "before, freed pages kept": Variant(threshold=False),
    "before, huge pages": Variant(**BEFORE, environment={"THP_MEM_ALLOC_ENABLE": "1"}),
    "vLLM's own": Variant(
        **BEFORE,
        arguments={"enforce_eager": False, "block_size": 128},
        environment={
            "VLLM_ENABLE_V1_MULTIPROCESSING": None,
            "VLLM_CPU_OMP_THREADS_BIND": None,
            "OMP_NUM_THREADS": None,
        },
    ),
    "in processes of its own": Variant(environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}),
    "compiled": Variant(arguments={"enforce_eager": False}),
    "libiomp5": Variant(environment={"LD_PRELOAD": str(LIBIOMP)}),
    "passive waits": Variant(environment={"OMP_WAIT_POLICY": "passive"}),
    "beside a busy process": Variant(neighbour=True),
    "beside a busy process, passive waits": Variant(environment={"OMP_WAIT_POLICY": "passive"}, neighbour=True),
    "block_size 64": Variant(arguments={"block_size": 64}),
    "block_size 128": Variant(arguments={"block_size": 128}),
    "no prefix caching": Variant(arguments={"enable_prefix_caching": False}),
    "max_num_seqs 32": Variant(arguments={"max_num_seqs": 32}),
    "max_num_batched_tokens 1024": Variant(arguments={"max_num_batched_tokens": 1024}),
    "temperature alone": Variant(sampling={"min_p": 0.0}),
    "top_p": Variant(sampling={"min_p": 0.0, "top_p": 0.95}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Which engine arguments sample fastest on a CPU.")
    parser.add_argument("--model", default="starter:qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--cell", metavar="NAME", help="one turn of one variant, in this process")
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(cell(given.model, VARIANTS[given.cell])))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows: dict[str, list[dict[str, float]]] = results.setdefault(given.model, {})
    for turn in range(given.turns):
        for name in given.only:
            if len(rows.setdefault(name, [])) <= turn:
                rows[name].append(in_its_own_process(given.model, name))
                print(f"{name}: {rows[name][-1]}", flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    table(rows)


def in_its_own_process(model: str, name: str) -> dict[str, float]:
    from fcot_lite.engines.vllm import engine_environment
    from fcot_lite.machine import detect

    environment = {**os.environ, **engine_environment(detect()), **VARIANTS[name].environment}
    done = subprocess.run(
        [sys.executable, __file__, "--model", model, "--cell", name],
        env={key: value for key, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-3000:]}")
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def cell(model: str, variant: Variant) -> dict[str, float]:
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    from fcot_lite import models, tasks, teacher
    from fcot_lite.engines import vllm as ours
    from fcot_lite.machine import detect
    from fcot_lite.prompts import ANSWER_FORMS, load_tokenizer, render
    from fcot_lite.recipe import load

    recipe = load(Path(__file__).parent.parent / "recipes" / "quickstart.yaml")
    block, prompt = recipe.teacher, recipe.prompts[recipe.teacher.prompt]
    model_dir, machine = models.resolve(model, say=print), detect()
    start = time.perf_counter()
    if variant.keep_pages:
        ours.keep_freed_pages()
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    if variant.threshold:
        ours.min_p_by_threshold()
    llm = LLM(**ours.engine_arguments(model_dir, block.engine, machine) | variant.arguments)
    ready = time.perf_counter() - start
    problems = tasks.load(recipe.task.name, "train", options=recipe.task.options, limit=REQUESTS // 2)
    solved = tasks.solved_examples(recipe.task.name, options=recipe.task.options, count=prompt.examples)
    rendered = [render(prompt, problem.question, solved, ANSWER_FORMS[problem.answer_kind]) for problem in problems]
    asked = teacher.questions(load_tokenizer(model_dir), problems, rendered, block.sampling, block.engine)
    prompts = [TokensPrompt(prompt_token_ids=list(question.prompt_token_ids)) for question in asked for _ in range(2)]
    sampling = block.sampling.model_copy(update=variant.sampling).model_dump(exclude={"seed", "max_tokens"})

    def generate(count: int, num_tokens: int) -> int:
        """How many tokens of the prompts were not in the cache."""
        parameters = [SamplingParams(**sampling, max_tokens=num_tokens, ignore_eos=True, seed=i) for i in range(count)]
        outputs = llm.generate(prompts[:count], parameters, use_tqdm=False)
        return sum(len(output.prompt_token_ids) - output.num_cached_tokens for output in outputs)

    generate(REQUESTS // 2, 4)  # warm-up
    llm.reset_prefix_cache()
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if variant.neighbour else None
    start = time.perf_counter()
    num_read = generate(REQUESTS, NUM_TOKENS)
    took = time.perf_counter() - start
    if neighbour:
        neighbour.kill()
    num_written = REQUESTS * NUM_TOKENS
    layers, head = weights(model_dir)
    gflops = matrix_gflops()
    return {
        "tokens_per_second": round(num_written / took, 1),
        "prompt_tokens_computed": num_read,
        "share_of_matrix_limit": round(
            2 * (layers * (num_read + num_written) + head * num_written) / took / gflops / 1e9, 3
        ),
        "matrix_gflops": round(gflops),
        "ready_seconds": round(ready, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def weights(model_dir: Path) -> tuple[int, int]:
    """How many the layers have, and the head."""
    from safetensors import safe_open

    config = json.loads((model_dir / "config.json").read_text())
    with safe_open(model_dir / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if ".layers." in name]  # noqa: SIM118 (it is no mapping)
        layers = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return layers, config["vocab_size"] * config["hidden_size"]


def matrix_gflops() -> float:
    """The best of ten bf16 products of 2048³ on the threads that the engine used."""
    import torch

    a, b = (torch.randn(2048, 2048).to(torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def table(rows: dict[str, list[dict[str, float]]]) -> None:
    print("\nRows of different machine speed don't compare: what is not a matrix product does not follow it.\n")
    print("| variant | tokens per second | machine, GFLOP/s | share of the limit | ready after | peak GiB |")
    print("|---|---|---|---|--:|--:|")
    for name, turns in rows.items():
        tokens, machine, share = (
            " ".join(f"{turn[column]:{form}}" for turn in turns)
            for column, form in (
                ("tokens_per_second", ".0f"),
                ("matrix_gflops", ".0f"),
                ("share_of_matrix_limit", ".2f"),
            )
        )
        ready = statistics.median(turn["ready_seconds"] for turn in turns)
        peak = max(turn["peak_memory_gib"] for turn in turns)
        print(f"| {name} | {tokens} | {machine} | {share} | {ready:.0f} s | {peak:.1f} |")


if __name__ == "__main__":
    main()
