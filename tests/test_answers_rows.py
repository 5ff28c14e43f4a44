"""Hand-written texts: what strict and flexible say of each. A row is named for the confusion it guards against.

`extracted` is what strict found, or flexible where strict found nothing; every row that strict calls correct has it.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fcot_lite.answers import grade
from fcot_lite.records import Problem

FILE = Path(__file__).parent / "data" / "answers.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").strip().split("\n")]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['kind']}: {row['name']}" for row in ROWS])
def test_row(row: dict[str, Any]) -> None:
    metadata = {"choices": row["choices"]} if "choices" in row else {}
    problem = Problem("rows/0", "", row["target"], row["kind"], metadata)
    finish_reason = row.get("finish_reason", "stop")
    strict = grade(row["text"], problem, finish_reason=finish_reason)
    flexible = grade(row["text"], problem, "flexible", finish_reason=finish_reason)
    assert (strict.reason, flexible.reason) == (row["strict"], row["flexible"])
    found = flexible.extracted if strict.extracted is None else strict.extracted
    if strict.correct or "extracted" in row:
        assert found == row["extracted"]
    # A longer rationale before the answer changes nothing, as long as it states none itself.
    assert grade(f"First, some steps.\n\n{row['text']}", problem, finish_reason=finish_reason).reason == row["strict"]


def test_every_row_guards_against_a_confusion_of_its_own() -> None:
    def repeated(values: list[Any]) -> list[Any]:
        return [value for value, count in Counter(values).items() if count > 1]

    assert repeated([(row["kind"], row["name"]) for row in ROWS]) == []
    asked = ("kind", "target", "text", "finish_reason")
    assert repeated([(*[row.get(key) for key in asked], str(row.get("choices"))) for row in ROWS]) == []


def test_there_are_rows_of_every_kind() -> None:
    counts = Counter(row["kind"] for row in ROWS)
    least = {"number": 140, "choice": 60, "yes_no": 30, "letters": 30, "text": 25, "math": 20}
    assert all(counts[kind] >= count for kind, count in least.items())
    assert set(counts) == set(least)
