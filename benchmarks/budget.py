"""What a useful rationale costs by budget: fixed n, an early stop, giving up, DART-Math's allocations.

    python benchmarks/budget.py                            # the table, from the recorded pool; no model is loaded
    FCOT_DATA=... python benchmarks/budget.py --record samples.sqlite    # draws the pool: 16 samples a question
    FCOT_DATA=... python benchmarks/budget.py --live       # one policy with the real engine, against its replay

Every policy is replayed on the same recorded samples, so that policies differ in nothing but what they draw. The
figures are exact expectations over all orders of a question's samples (without replacement). A rationale is useful if
it is accepted and among the first AT_MOST of its question. --record goes on where it stopped.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcot_lite.budget import Cost, Fixed, Policy, Recorded, Until, expectation, replay

if TYPE_CHECKING:
    from fcot_lite.teacher import Drawn

MODEL = "starter:qwen2.5-coder-0.5b-instruct"
TASKS: dict[str, dict[str, Any]] = {
    "chain_arithmetic": {"operators": "+-"},
    "multiarith": {},
    "generated_coin_flip": {},
}
PROBLEMS, N = 24, 16
AT_MOST = 4
POLICIES: tuple[Policy, ...] = (
    *(Fixed(n=n) for n in (4, 8, N)),
    Until(accept=AT_MOST, max=8),
    Until(accept=AT_MOST, max=N),
    *(Until(accept=AT_MOST, max=N, give_up=chance) for chance in (0.05, 0.1, 0.2, 0.3)),
    Until(accept=2 * AT_MOST, max=N, allocation="proportional"),
)
LIVE = Until(accept=AT_MOST, max=N)
ORDERS = 1000
RESULTS = Path(__file__).parent / "results"
POOL = RESULTS / "budget_pool.jsonl"

Pool = Mapping[str, Sequence[Recorded]]  # by task


def main() -> None:
    parser = argparse.ArgumentParser(description="What a useful rationale costs by budget.")
    parser.add_argument("--record", type=Path, metavar="STORE", help="draw the pool into this sample store first")
    parser.add_argument("--live", action="store_true", help="run one policy with the real engine")
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record)
    pool = read()
    if arguments.live:
        live(pool)
    else:
        table(pool)


# ---- the table


def read() -> Pool:
    pool: dict[str, list[Recorded]] = {}
    for line in POOL.read_text().splitlines():
        row = json.loads(line)
        samples = list(zip(row["num_tokens"], map(bool, row["accepted"]), strict=True))
        pool.setdefault(row["task"], []).append(samples)
    return pool


def table(pool: Pool) -> None:
    pools = {**pool, "all": [samples for rows in pool.values() for samples in rows]}
    rows = [figures(policy, task, rows) for task, rows in pools.items() for policy in POLICIES]
    checks = [check(policy, pools["all"]) for policy in POLICIES]
    result = {"model": MODEL, "samples": N, "useful_at_most": AT_MOST, "rows": rows, "replay_against_exact": checks}
    (RESULTS / "budget.json").write_text(json.dumps(result, indent=2) + "\n")
    for task, questions in pools.items():
        rate = statistics.fmean(accepted for samples in questions for _, accepted in samples)
        print(f"\n{task}: {len(questions)} questions, pass rate {rate:.0%}\n")
        print("| budget | tokens | useful | tokens per useful | to n = 16 | coverage | accepted | of them hard |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|")
        for row in rows:
            if row["task"] == task:
                low, high = row["ratio_ci95"]
                print(
                    f"| {row['policy']} | {row['num_tokens']:,.0f} | {row['useful']:.0f} | "
                    f"{row['tokens_per_useful']:.0f} | {row['ratio']:.2f} ({low:.2f} … {high:.2f}) | "
                    f"{row['coverage']:.0%} | {row['accepted']:.0f} | {row['hard_share']:.0%} |"
                )
    print("\nhard: questions that the teacher gets right less than half of the time. An early stop leaves another mix")
    print("of difficulties than a fixed n, so students that learn from the two are not trained on the same questions.")
    whole = {row["policy"]: row for row in rows if row["task"] == "all"}
    full = whole[str(LIVE)]
    for row in whole.values():
        if "give_up" in row["policy"] and "proportional" not in row["policy"]:
            print(
                f"{row['policy']}: {1 - row['num_tokens'] / full['num_tokens']:.1%} of the tokens saved, "
                f"{1 - row['useful'] / full['useful']:.1%} of the useful rationales lost"
            )
    for policy in POLICIES:
        if isinstance(policy, Until) and policy.allocation == "uniform" and policy.give_up is None:
            early, full_n = (replay(p, pools["all"], AT_MOST) for p in (policy, Fixed(n=policy.max)))
            print(
                f"in the recorded order: {policy} has {early.useful} useful rationales, n = {policy.max} has "
                f"{full_n.useful}; {early.num_tokens:,} tokens and {full_n.num_tokens:,}"
            )
    worst = max(checks, key=lambda row: row["worst_standard_errors"])
    print(f"mean of {ORDERS} replays in random order, from the exact expectation: {worst['worst_standard_errors']:.1f} "
          f"standard errors at most ({worst['policy']})")  # fmt: skip


def figures(policy: Policy, task: str, pool: Sequence[Recorded]) -> dict[str, Any]:
    """Of one policy on one task; the interval is that of the ratio of tokens per useful rationale to those of fixed
    n = 16, by a bootstrap over questions."""
    own = [expectation(policy, [samples], AT_MOST) for samples in pool]
    all_of_them = [expectation(Fixed(n=N), [samples], AT_MOST) for samples in pool]
    accepted = [expectation(policy, [samples], N).useful for samples in pool]
    hard = [2 * sum(right for _, right in samples) < len(samples) for samples in pool]
    generator = random.Random("bootstrap")
    ratios = []
    for _ in range(2000):
        chosen = generator.choices(range(len(pool)), k=len(pool))
        ratios.append(per_useful(own[i] for i in chosen) / per_useful(all_of_them[i] for i in chosen))
    ratios.sort()
    total = add(own)
    return {
        "task": task,
        "policy": str(policy),
        "num_samples": total.num_samples,
        "num_tokens": total.num_tokens,
        "useful": total.useful,
        "tokens_per_useful": per_useful(own),
        "ratio": per_useful(own) / per_useful(all_of_them),
        "ratio_ci95": [ratios[50], ratios[1949]],
        "coverage": total.covered / len(pool),
        "accepted": sum(accepted),
        "hard_share": sum(n for n, is_hard in zip(accepted, hard, strict=True) if is_hard) / sum(accepted),
        "recorded_order": replay(policy, pool, AT_MOST)._asdict(),
    }


def check(policy: Policy, pool: Sequence[Recorded]) -> dict[str, Any]:
    """How far the mean of replays in random orders is from the exact expectation, in its standard errors."""
    generator = random.Random(f"orders of {policy}")
    exact = expectation(policy, pool, AT_MOST)
    replays = [
        replay(policy, [generator.sample(list(samples), len(samples)) for samples in pool], AT_MOST)
        for _ in range(ORDERS)
    ]
    off = []
    for values, expected in zip(zip(*replays, strict=True), exact, strict=True):
        error = statistics.stdev(values) / ORDERS**0.5
        difference = abs(statistics.fmean(values) - expected)
        off.append(difference / error if error > 1e-9 else round(difference, 6))
    return {"policy": str(policy), "worst_standard_errors": max(off)}


def add(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost(0, 0, 0, 0))


def per_useful(costs: Iterable[Cost]) -> float:
    total = add(costs)
    return total.num_tokens / total.useful if total.useful else float("nan")


# ---- with the model


def record(store: Path) -> None:
    """Draws N samples of every question into `store`, as far as they are not there, and writes the pool."""
    _, rows = sample(store, Fixed(n=N))
    POOL.write_text("".join(json.dumps(row) + "\n" for row in rows))


def live(pool: Pool) -> None:
    """The tokens that the engine generates under a policy, cancelled ones included, by those of the samples that the
    policy looked at. In a store of its own, so that all is drawn."""
    with tempfile.TemporaryDirectory() as folder:
        drawn, rows = sample(Path(folder) / "samples.sqlite", LIVE)
    needed = sum(sum(row["num_tokens"]) for row in rows)
    generated = drawn.num_tokens_new + drawn.num_tokens_cancelled
    useful = sum(min(AT_MOST, sum(row["accepted"])) for row in rows)
    on_pool = add(replay(LIVE, questions, AT_MOST) for questions in pool.values())
    result = {
        "policy": str(LIVE),
        "questions": len(rows),
        "num_tokens_generated": generated,
        "num_tokens_cancelled": drawn.num_tokens_cancelled,
        "num_tokens_of_the_prefixes": needed,
        "ratio_to_own_replay": generated / needed,
        "useful": useful,
        "num_tokens_of_the_replay_on_the_pool": on_pool.num_tokens,
        "ratio_to_the_replay_on_the_pool": generated / on_pool.num_tokens,
        "useful_of_the_replay_on_the_pool": on_pool.useful,
        "tokens_per_second": generated / drawn.wall_seconds,
    }
    (RESULTS / "budget_live.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def sample(path: Path, policy: Policy) -> "tuple[Drawn, list[dict[str, Any]]]":
    """What came back, and a row for each question with the samples that the policy looked at."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    from fcot_lite import models, tasks, teacher
    from fcot_lite.answers import accepted
    from fcot_lite.engines import Engine
    from fcot_lite.engines.vllm import VllmEngine
    from fcot_lite.machine import detect
    from fcot_lite.prompts import ANSWER_FORMS, METHODS, load_tokenizer, render
    from fcot_lite.recipe import EngineBlock, Sampling
    from fcot_lite.records import Sample
    from fcot_lite.store import SampleStore
    from fcot_lite.verdicts import judging

    prompt = METHODS["chat_cot"]
    sampling = Sampling(max_tokens=192, temperature=0.7, min_p=0.1)
    options = EngineBlock.model_validate({"max_model_len": 2048, "max_num_seqs": 64})
    model_dir = models.resolve(MODEL, say=print)
    tokenizer = load_tokenizer(model_dir)
    asked: list[teacher.Question] = []
    task_of: dict[str, str] = {}
    for name, task_options in TASKS.items():
        problems = tasks.load(name, "train", options=task_options, limit=PROBLEMS)
        solved = tasks.solved_examples(name, options=task_options, count=prompt.examples)
        rendered = [render(prompt, p.question, solved, ANSWER_FORMS[p.answer_kind]) for p in problems]
        asked += teacher.questions(tokenizer, problems, rendered, sampling, options, prompt.answer_trigger)
        task_of |= {problem.id: name for problem in problems}
    engines: list[VllmEngine] = []

    def start() -> Engine:
        engines.append(VllmEngine(model_dir, options, detect()))
        return engines[-1]

    with SampleStore(path) as store:
        campaign = teacher.open_campaign(
            store, weights_hash=models.weights_hash(model_dir), prompt=prompt, sampling=sampling, engine=options,
            tokenizer=tokenizer,
        )  # fmt: skip
        with judging(store, campaign.hash, prompt) as judge:

            def teaches(question: teacher.Question, drawn: Sample) -> bool:
                return accepted(drawn.finish_reason, *judge.verdicts(question, [drawn]))

            drawn = teacher.draw(
                store, campaign, asked, policy, accepted=teaches, start_engine=start,
                max_num_seqs=options.max_num_seqs, progress=every(60),
            )  # fmt: skip
            rows = [
                {
                    "task": task_of[question.problem.id],
                    "problem_id": question.problem.id,
                    "num_tokens": [sample.num_tokens for sample in samples],
                    "accepted": [int(teaches(question, sample)) for sample in samples],
                }
                for question, samples in zip(asked, teacher.drawn_samples(store, campaign, asked, drawn), strict=True)
            ]
    for engine in engines:
        engine.close()
    return drawn, rows


def every(notes: int) -> Callable[[int, int, str], None]:
    """Prints every so many-th note."""
    count = iter(range(10**9))
    return lambda done, total, note: print(f"{done}/{total} {note}", flush=True) if next(count) % notes == 0 else None


if __name__ == "__main__":
    main()
