"""Rows a second of CPU time, so on one core: each grading mode against math-verify, on the same completions.

    python benchmarks/grading.py                       # solutions of generated problems, about 100 tokens each
    python benchmarks/grading.py samples.sqlite ...    # what runs drew for gsm8k, multiarith, svamp, addsub, single_eq
    python benchmarks/grading.py rows.jsonl            # {"target": "5", "text": "...", "finish_reason": "stop"}

Writes benchmarks/results/grading.json. Every mode and math-verify take turns; reading the rows is not part of the time.
math-verify runs in this process with its defaults for numbers and formulas, as its README has it: `parse` both,
`verify`. `--disagreements FILE.jsonl` keeps what strict and math-verify disagree on, to be read.
"""

import argparse
import contextlib
import json
import logging
import random
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fcot_lite import answers, tasks
from fcot_lite.records import Problem

TURNS = 7
ROWS = 250  # of one turn: math-verify needs seconds for them
TIMES = 20  # as often the grader goes over them in its turn
RESULTS = Path(__file__).parent / "results"


def main(paths: list[Path], disagreements_path: Path | None) -> None:
    rows = [row for path in paths for row in (stored if path.suffix == ".sqlite" else given)(path)] or generated()
    rows = list({(row["problem"].id, row["text"]): row for row in rows}.values())
    random.Random("rows").shuffle(rows)

    def chosen(turn: int) -> list[dict[str, Any]]:
        """Rows that no turn had before: sympy remembers what it has seen."""
        return [rows[i % len(rows)] for i in range(turn * ROWS, (turn + 1) * ROWS)]

    def grader(mode: answers.Mode) -> Callable[[int], float]:
        def rows_per_second(turn: int) -> float:
            own = chosen(turn)
            start = time.process_time()
            for _ in range(TIMES):
                for row in own:
                    answers.grade(row["text"], row["problem"], mode, "zs_cot", finish_reason=row["finish_reason"])
            return TIMES * ROWS / (time.process_time() - start)

        return rows_per_second

    def math_verify(turn: int) -> float:
        own = chosen(turn)
        start = time.process_time()
        for row in own:
            verified(row)
        return ROWS / (time.process_time() - start)

    arms = {mode: grader(mode) for mode in answers.MODES} | {"math-verify": math_verify}
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(TURNS + 1):
        names = list(arms)[turn % len(arms) :] + list(arms)[: turn % len(arms)]
        for name in names:
            speed = arms[name](turn)
            if turn:  # the first is for warming up
                speeds[name].append(speed)
    result: dict[str, Any] = {
        "what": "rows per second of CPU time, without reading them",
        "rows_of_a_turn": ROWS,
        "mean_characters": statistics.fmean(len(row["text"]) for row in rows),
        "mean_tokens": statistics.fmean(row["num_tokens"] for row in rows) if "num_tokens" in rows[0] else None,
        "arms": {},
    }
    generator = random.Random("bootstrap")
    for name, own in speeds.items():
        ratios = [a / b for a, b in zip(own, speeds["math-verify"], strict=True)]
        medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(10_000))
        result["arms"][name] = {
            "rows_per_second": own,
            "median": statistics.median(own),
            "ratio_to_math_verify": statistics.median(ratios),
            "ci95": [medians[250], medians[9749]],
        }
        print(f"{name}: {statistics.median(own):,.0f} rows/s, {statistics.median(ratios):,.0f} times math-verify's")
    counts: Counter[str] = Counter()
    disagreements = []
    for row in rows:
        verdict = answers.grade(row["text"], row["problem"], finish_reason=row["finish_reason"])
        other = verified(row)
        counts[f"strict {verdict.reason}, math-verify {'right' if other else 'not right'}"] += 1
        if verdict.correct != other:
            disagreements.append(
                {name: value for name, value in row.items() if name != "problem"}
                | {"problem_id": row["problem"].id, "strict": verdict.reason, "math_verify_is_right": other}
            )
    result |= {"rows_compared": len(rows), "verdicts": dict(counts.most_common()), "disagreements": len(disagreements)}
    print(json.dumps(result["verdicts"], indent=2))
    (RESULTS / "grading.json").write_text(json.dumps(result, indent=2) + "\n")
    if disagreements_path is not None:
        disagreements_path.write_text("".join(json.dumps(row) + "\n" for row in disagreements))


def verified(row: dict[str, Any]) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(f"${row['problem'].target}$"), parse(row["text"])))


def generated() -> list[dict[str, Any]]:
    solved = tasks.solved_examples("chain_arithmetic", options={"terms": [12, 20]}, count=2000)
    return [
        {
            "problem": Problem(f"gsm8k/generated/{i}", question, solution.rpartition(" ")[2].rstrip(".")),
            "text": solution,
            "finish_reason": "stop",
        }
        for i, (question, solution) in enumerate(solved)
    ]


def given(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {"finish_reason": "stop"} | row | {"problem": Problem(f"gsm8k/{path.name}/{i}", "", row["target"])}
        for i, row in enumerate(rows)
    ]


def stored(path: Path) -> list[dict[str, Any]]:
    """Samples of the paper's tasks with numbers for answers: a generated problem's id does not name its options."""
    problems: dict[str, Problem] = {}
    for name, task in tasks.TASKS.items():
        if task.data is not None and task.answer_kind == "number":
            for by in ("template", "paper"):
                for split in tasks.SPLITS:
                    problems |= {problem.id: problem for problem in tasks.load(name, split, by=by)}
    columns = "campaign, problem_id, sample_index, text, finish_reason, num_tokens"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        store.row_factory = sqlite3.Row
        drawn = [dict(row) for row in store.execute(f"SELECT {columns} FROM sample ORDER BY 1, 2, 3")]
    return [row | {"problem": problems[row["problem_id"]]} for row in drawn if row["problem_id"] in problems]


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # math-verify's warnings
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", type=Path)
    parser.add_argument("--disagreements", type=Path)
    arguments = parser.parse_args()
    main(arguments.rows, arguments.disagreements)
