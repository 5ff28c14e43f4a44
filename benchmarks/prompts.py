"""Which wording brings the most right rationales out of a teacher, and what they cost in tokens.

    FCOT_DATA=... python benchmarks/prompts.py      # writes benchmarks/results/prompts.json, prints a Markdown table

One engine, the 0.5B starter, five tasks, every prompt on the same train questions, one sample each at T = 0.7. A sample
counts as a run would count it: finished, and right by the strict grader.
"""

import json
import os
import tempfile
from pathlib import Path

MODEL = "starter:qwen2.5-coder-0.5b-instruct"
TASKS = {
    "chain_arithmetic": {"operators": "+-"},
    "multiarith": {},
    "generated_coin_flip": {},
    "generated_last_letters": {"words": [2, 2]},
    "generated_shuffled_objects": {},
}
PROBLEMS = 40


def main() -> None:
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    from fcot_lite import models, stats, tasks, teacher
    from fcot_lite.budget import Fixed
    from fcot_lite.engines.vllm import VllmEngine
    from fcot_lite.machine import detect
    from fcot_lite.prompts import ANSWER_FORMS, METHODS, Prompt, load_tokenizer, render, whole_text
    from fcot_lite.recipe import EngineBlock, Sampling
    from fcot_lite.store import SampleStore

    end = "End with: The answer is {answer_form}."
    prompts = {
        "zero_shot": METHODS["zero_shot"],
        "zero_shot_cot": METHODS["zero_shot_cot"],
        "few_shot_cot": METHODS["few_shot_cot"],
        "chat, step by step": Prompt(template=f"{{question}}\nLet's think step by step. {end}"),
        "chat, step by step, no code": Prompt(
            template=f"{{question}}\nThink step by step in plain words, without code. {end}"
        ),
        "chat, four examples": METHODS["chat_cot"],
    }
    sampling = Sampling(max_tokens=192, temperature=0.7, min_p=0.1)
    options = EngineBlock.model_validate({"max_model_len": 2048, "max_num_seqs": 64})
    model_dir = models.resolve(MODEL, say=print)
    tokenizer = load_tokenizer(model_dir)
    engine = VllmEngine(model_dir, options, detect())
    rows = []
    for name, task_options in TASKS.items():
        problems = tasks.load(name, "train", options=task_options, limit=PROBLEMS)
        for label, prompt in prompts.items():
            solved = tasks.solved_examples(name, options=task_options, count=prompt.examples)
            rendered = [render(prompt, p.question, solved, ANSWER_FORMS[p.answer_kind]) for p in problems]
            asked = teacher.questions(tokenizer, problems, rendered, sampling, options, prompt.answer_trigger)
            with tempfile.TemporaryDirectory() as folder, SampleStore(Path(folder) / "samples.sqlite") as store:
                campaign = teacher.open_campaign(
                    store, weights_hash=MODEL, prompt=prompt, sampling=sampling, engine=options, tokenizer=tokenizer
                )
                drawn = teacher.draw(
                    store, campaign, asked, Fixed(n=1), start_engine=lambda: engine, max_num_seqs=options.max_num_seqs,
                    progress=lambda done, total, note: None,
                )  # fmt: skip
                samples = [sample for (sample,) in teacher.drawn_samples(store, campaign, asked, drawn)]
            accepted = sum(
                tasks.grade(whole_text(prompt, sample), problem, sample.finish_reason).correct
                for problem, sample in zip(problems, samples, strict=True)
            )
            num_tokens = sum(sample.num_tokens for sample in samples)
            rows.append(
                {
                    "task": name,
                    "prompt": label,
                    "accepted": accepted,
                    "n": len(samples),
                    "ci95": stats.wilson(accepted, len(samples)),
                    "num_tokens": num_tokens,
                    "accepted_per_1000_tokens": 1000 * accepted / num_tokens,
                    "unfinished": sum(sample.finish_reason != "stop" for sample in samples),
                    "with_code": sum("```" in sample.text or "def " in sample.text for sample in samples),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    engine.close()
    path = Path(__file__).parent / "results" / "prompts.json"
    path.write_text(json.dumps({"model": MODEL, "sampling": sampling.model_dump(), "rows": rows}, indent=2) + "\n")
    print(f"\n| prompt | {' | '.join(TASKS)} | all | unfinished | with code |\n|{'---|' * (len(TASKS) + 4)}")
    for label in prompts:
        own = [row for row in rows if row["prompt"] == label]
        cells = [f"{row['accepted'] / row['n']:.0%} ({row['accepted_per_1000_tokens']:.1f})" for row in own]
        total, tokens = sum(row["accepted"] for row in own), sum(row["num_tokens"] for row in own)
        share = total / sum(row["n"] for row in own)
        cells += [f"{share:.0%} ({1000 * total / tokens:.1f})"]
        cells += [str(sum(row[key] for row in own)) for key in ("unfinished", "with_code")]
        print(f"| {label} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
