"""`fcot samples`: the sampling runs of a store, each with what it drew, how much of it is right and what it cost."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcot_lite import stats, tasks
from fcot_lite.records import Problem
from fcot_lite.store import snapshot
from fcot_lite.verdicts import MODE

if TYPE_CHECKING:
    from rich.table import Table

HASH_SHOWN = 8  # of the campaign's 16 characters


def listing(store: Path) -> list[dict[str, Any]]:
    """One row for each sampling run in the store, the teachers' first, then by when it was last used.

    `pass_rate` and `coverage` (the share of questions with a right sample) are of those with a strict verdict of this
    grader, `graded` of them; None where there are none, as for hours and costs that nobody took down. A sample that was
    graded against two gold answers, because one was mended, counts for both.
    """
    graders = sorted({tasks.grader_version(problem) for problem in _OF_EACH_GRADER})
    with snapshot(store) as database:
        campaigns = database.execute("SELECT hash, description, num_tokens_cancelled FROM campaign").fetchall()
        rows = [_listed(database, graders, *campaign) for campaign in campaigns]
    return sorted(rows, key=lambda row: (row["role"] != "teacher", -(row["last_used"] or 0), row["campaign"]))


# One problem for each version that `grader_version` can give.
_OF_EACH_GRADER = (
    Problem("", "", ""),
    Problem("", "", "", "math"),
    Problem("", "", "", metadata={"scorer": ""}),
)


def _listed(
    database: sqlite3.Connection, graders: Sequence[str], campaign: str, description: str, num_tokens_cancelled: int
) -> dict[str, Any]:
    questions, samples, num_tokens = database.execute(
        "SELECT count(*), ifnull(sum(samples), 0), ifnull(sum(num_tokens), 0) FROM ("
        "SELECT count(*) AS samples, sum(num_tokens) AS num_tokens FROM sample INDEXED BY sample_key "
        "WHERE campaign = ? GROUP BY problem_id, prompt_hash)",
        (campaign,),
    ).fetchone()
    graded = database.execute(
        "SELECT sum(correct), count(*) FROM verdict WHERE campaign = ? AND mode = ? "
        f"AND grader IN ({','.join('?' * len(graders))}) GROUP BY problem_id, prompt_hash",
        (campaign, MODE, *graders),
    ).fetchall()
    right, total = sum(correct for correct, _ in graded), sum(n for _, n in graded)
    names = ("role", "model", "task", "prompt", "first_used", "last_used", "wall_seconds", "cost_usd")
    uses = [
        dict(zip(names, row, strict=True))
        for row in database.execute(
            f"SELECT {', '.join(names)} FROM campaign_use WHERE campaign = ? ORDER BY first_used, task", (campaign,)
        )
    ]
    costs = [use["cost_usd"] for use in uses if use["cost_usd"] is not None]
    return {
        "campaign": campaign,
        **{name: ", ".join(dict.fromkeys(use[name] for use in uses)) or None for name in names[:4]},
        "temperature": _temperature(description),
        "questions": questions,
        "samples": samples,
        "graded": total,
        "pass_rate": right / total if total else None,
        "pass_rate_ci95": list(stats.clustered_wilson(graded)) if total else None,
        "coverage": sum(correct > 0 for correct, _ in graded) / len(graded) if total else None,
        "num_tokens": num_tokens,
        "num_tokens_cancelled": num_tokens_cancelled,
        "wall_seconds": sum(use["wall_seconds"] for use in uses) or None,
        "cost_usd": sum(costs) if costs else None,
        "first_used": min((use["first_used"] for use in uses), default=None),
        "last_used": max((use["last_used"] for use in uses), default=None),
    }


def _temperature(description: str) -> float | None:
    try:
        value = json.loads(description)["sampling"]["temperature"]
    except (ValueError, KeyError, TypeError):  # rationales from elsewhere have none; a damaged one stops no list
        return None
    return value if isinstance(value, (int, float)) else None


def table(rows: Sequence[dict[str, Any]]) -> "Table":
    from rich import box
    from rich.table import Table

    def shown(value: Any, form: str) -> str:
        return "–" if value is None else format(value, form)

    made = Table(box=box.SIMPLE_HEAD)
    for heading in ("sampling run", "of", "model", "task", "prompt"):
        made.add_column(heading, overflow="fold")
    for heading in ("T", "questions", "samples", "pass rate", "coverage", "tokens", "cancelled", "hours", "cost, USD"):
        made.add_column(heading, justify="right")
    for row in rows:
        hours = None if row["wall_seconds"] is None else row["wall_seconds"] / 3600
        made.add_row(
            row["campaign"][:HASH_SHOWN],
            row["role"] or "–",
            (row["model"] or "–").rpartition("/")[2],
            row["task"] or "–",
            row["prompt"] or "–",
            shown(row["temperature"], "g"),
            shown(row["questions"], ",d"),
            shown(row["samples"], ",d"),
            shown(row["pass_rate"], ".1%"),
            shown(row["coverage"], ".1%"),
            shown(row["num_tokens"], ",d"),
            shown(row["num_tokens_cancelled"], ",d"),
            shown(hours, ".2f"),
            shown(row["cost_usd"], ".2f"),
        )
    return made
