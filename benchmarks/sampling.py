"""Sampling through fcot-lite (own step loop, durable store) against bare `LLM.generate` of the same requests.

    python benchmarks/sampling.py            # writes benchmarks/results/sampling.json

One engine serves both arms; they alternate, and which goes first alternates too. The prefix cache is emptied before
each arm. The quickstart's teacher, prompt and sampling parameters; a fresh store for each of our turns.
"""

import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

PAIRS = 6
PROBLEMS, N = 40, 4


def main() -> None:
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    from fcot_lite import models, tasks, teacher
    from fcot_lite.budget import Fixed
    from fcot_lite.engines.vllm import VllmEngine
    from fcot_lite.machine import detect
    from fcot_lite.prompts import ANSWER_FORMS, load_tokenizer, render
    from fcot_lite.recipe import load
    from fcot_lite.store import SampleStore

    recipe = load(Path(__file__).parent.parent / "recipes" / "quickstart.yaml")
    block, prompt = recipe.teacher, recipe.prompts[recipe.teacher.prompt]
    model_dir = models.resolve(block.model, say=print)
    engine = VllmEngine(model_dir, block.engine, detect())
    tokenizer = load_tokenizer(model_dir)
    problems = tasks.load(recipe.task.name, "train", options=recipe.task.options, limit=PROBLEMS)
    solved = tasks.solved_examples(recipe.task.name, options=recipe.task.options, count=prompt.examples)
    rendered = [render(prompt, problem.question, solved, ANSWER_FORMS[problem.answer_kind]) for problem in problems]
    asked = teacher.questions(tokenizer, problems, rendered, block.sampling, block.engine)
    weights_hash = models.weights_hash(model_dir)

    def ours() -> float:
        """Tokens a second."""
        engine._llm.reset_prefix_cache()
        with tempfile.TemporaryDirectory() as folder, SampleStore(Path(folder) / "samples.sqlite") as store:
            campaign = teacher.open_campaign(
                store,
                weights_hash=weights_hash,
                prompt=prompt,
                sampling=block.sampling,
                engine=block.engine,
                tokenizer=tokenizer,
            )
            start = time.perf_counter()
            drawn = teacher.draw(
                store,
                campaign,
                asked,
                Fixed(n=N),
                start_engine=lambda: engine,
                max_num_seqs=block.engine.max_num_seqs,
                progress=lambda done, total, note: None,
            )
            return drawn.num_tokens_new / (time.perf_counter() - start)

    def bare() -> float:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        from fcot_lite.prompts import end_of_turn_id
        from fcot_lite.store import derive_seed

        engine._llm.reset_prefix_cache()
        requests = [(question, index) for question in asked for index in range(N)]
        start = time.perf_counter()
        outputs = engine._llm.generate(
            [TokensPrompt(prompt_token_ids=list(question.prompt_token_ids)) for question, _ in requests],
            [
                SamplingParams(
                    **block.sampling.model_dump(exclude={"seed"}),
                    seed=derive_seed("bench", question.key(index)),
                    stop_token_ids=[end_of_turn_id(tokenizer)],
                )
                for question, index in requests
            ],
            use_tqdm=False,
        )
        return sum(len(output.outputs[0].token_ids) for output in outputs) / (time.perf_counter() - start)

    ours()  # warm-up
    bare()
    pairs = []
    for i in range(PAIRS):
        first, second = (ours(), bare()) if i % 2 == 0 else (bare(), ours())
        pairs.append((first, second) if i % 2 == 0 else (second, first))
        print(f"pair {i + 1}: fcot-lite {pairs[-1][0]:.0f} tok/s, LLM.generate {pairs[-1][1]:.0f} tok/s", flush=True)
    engine.close()
    ratios = [a / b for a, b in pairs]
    generator = random.Random("bootstrap")
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(10_000))
    result = {
        "what": "tokens per second, fcot-lite / LLM.generate, same requests",
        "requests": PROBLEMS * N,
        "pairs_tokens_per_second": pairs,
        "median_ratio": statistics.median(ratios),
        "ci95": [medians[250], medians[9749]],
    }
    print(f"ratio {result['median_ratio']:.3f}, 95 % interval {medians[250]:.3f} … {medians[9749]:.3f}")
    path = Path(__file__).parent / "results" / "sampling.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
