"""Sampling through fcot-lite (own step loop, durable store, grading) against bare `LLM.generate` of the same requests.

    python benchmarks/sampling.py [--model starter:NAME] [--pairs 8]    # writes benchmarks/results/sampling.json

One engine serves both arms; they alternate, and which goes first alternates too. The prefix cache is emptied before
each arm. The quickstart's prompt and parameters; a fresh store for each of our turns. Both arms have the same requests
in the same order with the same seeds, so they generate the same tokens: `num_tokens` holds every turn's. `fixed` ends
no sample before MAX_TOKENS, so that all end in the same step. Beside the wall clock stands what each arm spent outside
vLLM's own steps, which other work on the machine hardly touches.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PROBLEMS, N = 24, 4
MAX_TOKENS = 32  # of `fixed`
RESULTS = Path(__file__).parent / "results" / "sampling.json"


class Turn(NamedTuple):
    tokens_per_second: float
    seconds_outside_steps: float
    num_tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(description="fcot-lite's sampling loop against LLM.generate.")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--model", default="starter:qwen2.5-coder-0.5b-instruct")
    given = parser.parse_args()
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    from fcot_lite import models, tasks, teacher
    from fcot_lite.answers import accepted
    from fcot_lite.budget import Fixed
    from fcot_lite.engines.vllm import VllmEngine
    from fcot_lite.machine import detect
    from fcot_lite.prompts import ANSWER_FORMS, end_of_turn_id, load_tokenizer, render
    from fcot_lite.recipe import Sampling, load
    from fcot_lite.records import Sample
    from fcot_lite.store import SampleStore, derive_seed
    from fcot_lite.verdicts import judging

    class FixedLength(Sampling):
        min_tokens: int  # nothing ends a sample before

    recipe = load(Path(__file__).parent.parent / "recipes" / "quickstart.yaml")
    block, prompt = recipe.teacher, recipe.prompts[recipe.teacher.prompt]
    model_dir = models.resolve(given.model, say=print)
    engine = VllmEngine(model_dir, block.engine, detect())
    tokenizer = load_tokenizer(model_dir)
    problems = tasks.load(recipe.task.name, "train", options=recipe.task.options, limit=PROBLEMS)
    solved = tasks.solved_examples(recipe.task.name, options=recipe.task.options, count=prompt.examples)
    rendered = [render(prompt, problem.question, solved, ANSWER_FORMS[problem.answer_kind]) for problem in problems]
    asked = teacher.questions(tokenizer, problems, rendered, block.sampling, block.engine)
    weights_hash = models.weights_hash(model_dir)
    samplings = {
        "natural": block.sampling,
        "fixed": FixedLength(**block.sampling.model_dump() | {"max_tokens": MAX_TOKENS}, min_tokens=MAX_TOKENS),
    }
    in_steps = 0.0
    step = engine._engine.step

    def timed_step() -> Any:
        nonlocal in_steps
        start = time.perf_counter()
        try:
            return step()
        finally:
            in_steps += time.perf_counter() - start

    engine._engine.step = timed_step

    def turn(run: Callable[[], int]) -> Turn:
        nonlocal in_steps
        engine._llm.reset_prefix_cache()
        start, in_steps = time.perf_counter(), 0.0
        num_tokens = run()
        wall = time.perf_counter() - start
        return Turn(num_tokens / wall, wall - in_steps, num_tokens)

    def ours(sampling: Sampling) -> tuple[Turn, str]:
        with tempfile.TemporaryDirectory() as folder, SampleStore(Path(folder) / "samples.sqlite") as store:
            campaign = teacher.open_campaign(
                store, weights_hash=weights_hash, prompt=prompt, sampling=sampling, engine=block.engine,
                tokenizer=tokenizer,
            )  # fmt: skip

            def run() -> int:
                with judging(store, campaign.hash, prompt) as judge:

                    def teaches(question: teacher.Question, sample: Sample) -> bool:
                        return accepted(sample.finish_reason, *judge.verdicts(question, [sample]))

                    return teacher.draw(
                        store, campaign, asked, Fixed(n=N), accepted=teaches, start_engine=lambda: engine,
                        max_num_seqs=block.engine.max_num_seqs, progress=lambda done, total, note: None,
                    ).num_tokens_new  # fmt: skip

            return turn(run), campaign.hash

    def bare(sampling: Sampling, campaign: str) -> Turn:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        requests = [(question, index) for question in asked for index in range(N)]  # as our schedule has them

        def run() -> int:
            outputs = engine._llm.generate(
                [TokensPrompt(prompt_token_ids=list(question.prompt_token_ids)) for question, _ in requests],
                [
                    SamplingParams(
                        **sampling.model_dump(exclude={"seed"}),
                        seed=derive_seed(campaign, question.key(index)),
                        stop_token_ids=[end_of_turn_id(tokenizer)],
                    )
                    for question, index in requests
                ],
                use_tqdm=False,
            )
            return sum(len(output.outputs[0].token_ids) for output in outputs)

        return turn(run)

    by_model: dict[str, Any] = json.loads(RESULTS.read_text()).get("models", {}) if RESULTS.exists() else {}
    own = by_model.setdefault(given.model, {"requests": PROBLEMS * N})
    for name, sampling in samplings.items():
        _, campaign = ours(sampling)  # warm-up
        pairs: list[tuple[Turn, Turn]] = []
        for i in range(given.pairs):
            first = bare(sampling, campaign) if i % 2 else None
            mine, _ = ours(sampling)
            pairs.append((mine, first or bare(sampling, campaign)))
            print(f"{name}, pair {i + 1}: fcot-lite {mine}, LLM.generate {pairs[-1][1]}", flush=True)
            if len(pairs) > 1:
                own[name] = summary(pairs)
                RESULTS.write_text(json.dumps({"models": by_model}, indent=2) + "\n")
        print(f"{name}: {own[name]}", flush=True)
    engine.close()


def summary(pairs: list[tuple[Turn, Turn]]) -> dict[str, Any]:
    ratios = [mine.tokens_per_second / theirs.tokens_per_second for mine, theirs in pairs]
    generator = random.Random("bootstrap")
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return {
        "num_tokens": sorted({turn.num_tokens for pair in pairs for turn in pair}),
        "tokens_per_second": {
            "fcot-lite": [round(mine.tokens_per_second, 1) for mine, _ in pairs],
            "LLM.generate": [round(theirs.tokens_per_second, 1) for _, theirs in pairs],
        },
        "median_ratio": round(statistics.median(ratios), 4),
        "ci95": [round(medians[250], 4), round(medians[9749], 4)],
        "seconds_outside_steps": {
            "fcot-lite": round(statistics.median(mine.seconds_outside_steps for mine, _ in pairs), 3),
            "LLM.generate": round(statistics.median(theirs.seconds_outside_steps for _, theirs in pairs), 3),
        },
    }


if __name__ == "__main__":
    main()
