"""Which engine arguments sample fastest on a CPU: one change at a time, each in a process of its own.

    python benchmarks/engine_arguments.py [--turns 3] [--only NAME ...]    # writes benchmarks/results/engine_arguments.json

The quickstart's teacher and prompts (four solved examples before each question): REQUESTS at once, NUM_TOKENS each
whatever they say, so that every variant does the same work. Turns are interleaved, a turn that is in the results is
not run again, and each one reads the machine's own speed beside it: of a bf16 matrix product, the work of a token
being two operations for each weight. FCOT_BENCH_MODEL names another model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "engine_arguments.json"
MODEL = os.environ.get("FCOT_BENCH_MODEL", "starter:qwen2.5-coder-0.5b-instruct")
REQUESTS, NUM_TOKENS = 128, 48
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
        environment={"VLLM_ENABLE_V1_MULTIPROCESSING": None, "VLLM_CPU_OMP_THREADS_BIND": None, "OMP_NUM_THREADS": None},
    ),
    "in processes of its own": Variant(environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}),
    "compiled": Variant(arguments={"enforce_eager": False}),
    "libiomp5": Variant(environment={"LD_PRELOAD": str(LIBIOMP)}),
    "passive waits": Variant(environment={"OMP_WAIT_POLICY": "passive"}),
    "threads not bound": Variant(environment={"VLLM_CPU_OMP_THREADS_BIND": "nobind"}),
    "block_size 16": Variant(arguments={"block_size": 16}),
    "block_size 64": Variant(arguments={"block_size": 64}),
    "block_size 128": Variant(arguments={"block_size": 128}),
    "no prefix caching": Variant(arguments={"enable_prefix_caching": False}),
    "max_num_seqs 32": Variant(arguments={"max_num_seqs": 32}),
    "max_num_seqs 64": Variant(arguments={"max_num_seqs": 64}),
    "max_num_batched_tokens 1024": Variant(arguments={"max_num_batched_tokens": 1024}),
    "temperature alone": Variant(sampling={"min_p": 0.0}),
    "top_p": Variant(sampling={"min_p": 0.0, "top_p": 0.95}),
    "top_k": Variant(sampling={"min_p": 0.0, "top_k": 50}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Which engine arguments sample fastest on a CPU.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--cell", metavar="NAME", help="one turn of one variant, in this process")
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(cell(VARIANTS[given.cell])))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows: dict[str, list[dict[str, float]]] = results.setdefault(MODEL, {})
    for turn in range(given.turns):
        for name in given.only:
            if len(rows.setdefault(name, [])) <= turn:
                rows[name].append(in_its_own_process(name))
                print(f"{name}: {rows[name][-1]}", flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    table(rows)


def in_its_own_process(name: str) -> dict[str, float]:
    from fcot_lite.engines.vllm import engine_environment
    from fcot_lite.machine import detect

    environment = {**os.environ, **engine_environment(detect()), **VARIANTS[name].environment}
    done = subprocess.run(
        [sys.executable, __file__, "--cell", name],
        env={key: value for key, value in environment.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cell(variant: Variant) -> dict[str, float]:
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    from fcot_lite import models, tasks, teacher
    from fcot_lite.engines import vllm as ours
    from fcot_lite.machine import detect
    from fcot_lite.prompts import ANSWER_FORMS, load_tokenizer, render
    from fcot_lite.recipe import load

    recipe = load(Path(__file__).parent.parent / "recipes" / "quickstart.yaml")
    block, prompt = recipe.teacher, recipe.prompts[recipe.teacher.prompt]
    model_dir, machine = models.resolve(MODEL, say=print), detect()
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

    def seconds(count: int, num_tokens: int) -> float:
        parameters = [
            SamplingParams(**sampling, max_tokens=num_tokens, ignore_eos=True, seed=i, detokenize=True)
            for i in range(count)
        ]
        start = time.perf_counter()
        llm.generate(prompts[:count], parameters, use_tqdm=False)
        return time.perf_counter() - start

    seconds(REQUESTS // 2, 4)  # warm-up
    llm.reset_prefix_cache()
    took = seconds(REQUESTS, NUM_TOKENS)
    speed = REQUESTS * NUM_TOKENS / took
    gflops = matrix_gflops()
    return {
        "tokens_per_second": round(speed, 1),
        "ready_seconds": round(ready, 1),
        "matrix_gflops": round(gflops),
        "share_of_matrix_limit": round(speed * 2 * weights(model_dir) / gflops / 1e9, 3),
    }


def weights(model_dir: Path) -> int:
    """Of the model, tied ones once: each is multiplied once for a token."""
    from safetensors import safe_open

    with safe_open(model_dir / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())


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
    base = rows.get("as before", [])
    print("\n| variant | tokens per second | to before (median) | share of the matrix limit | ready after |")
    print("|---|---|--:|--:|--:|")
    for name, turns in rows.items():
        speeds = [turn["tokens_per_second"] for turn in turns]
        pairs = [mine / before["tokens_per_second"] for mine, before in zip(speeds, base, strict=False)]
        ratio = f"{statistics.median(pairs):.2f}" if pairs else ""
        share = statistics.median(turn["share_of_matrix_limit"] for turn in turns)
        ready = statistics.median(turn["ready_seconds"] for turn in turns)
        print(f"| {name} | {' '.join(f'{s:.0f}' for s in speeds)} | {ratio} | {share:.2f} | {ready:.0f} s |")


if __name__ == "__main__":
    main()
