"""What of test stands in train: to the letter, but for case and white space, and by thirteen words in a row."""

import json
from pathlib import Path

from fcot_lite import tasks
from fcot_lite.contamination import MOST_EXAMPLES, NGRAM, Overlap, overlaps
from fcot_lite.records import Problem
from fcot_lite.task_block import TaskBlock

WORDS = [f"w{n}" for n in range(30)]


def asked(question: str, name: str = "t") -> Problem:
    return Problem(name, question, "1")


def test_the_nearest_kind_counts() -> None:
    test = [asked("Ann has 3 cats.", "test/0"), asked(" ".join(WORDS), "test/1"), asked("Who?", "test/2")]
    train = [
        asked("Ann has 3 cats.", "a"),
        asked("ANN  has\n3 cats.", "b"),
        asked("Ａnn has 3 cats.", "c"),  # a full-width A
        asked("Ann has 4 cats.", "d"),
        asked("So " + ", ".join(WORDS[3 : 3 + NGRAM]) + "?", "e"),
        asked(" ".join(WORDS[3 : 2 + NGRAM]) + " end", "f"),
        asked("", "g"),
    ]
    found, contamination = overlaps(train, test)
    assert {name: overlap.kind for name, overlap in found.items()} == {
        "a": "exact",
        "b": "normalised",
        "c": "normalised",
        "e": "ngram",
    }
    assert found["e"] == Overlap("e", "ngram", "test/1", " ".join(WORDS[3 : 3 + NGRAM]))
    assert (contamination.train, contamination.test, contamination.test_too_short) == (7, 3, 2)
    assert (contamination.exact, contamination.normalised, contamination.ngram) == (1, 2, 1)
    assert contamination.test_ngram == 1
    assert [overlap.problem_id for overlap in contamination.examples] == ["a", "b", "c", "e"]


def test_without_test_or_train_there_is_none() -> None:
    assert overlaps([], [asked("x")])[0] == overlaps([asked("x")], [])[0] == {}


def test_examples_are_a_handful() -> None:
    _, contamination = overlaps([asked("x", str(n)) for n in range(99)], [asked("x", "test")])
    assert contamination.exact == 99
    assert len(contamination.examples) == MOST_EXAMPLES


def test_tasks_made_from_templates_share_words_and_no_question() -> None:
    """Why the overlap is reported, and drops only what a recipe says: here it would drop nearly all."""
    train, test = (tasks.load("generated_coin_flip", split, limit=100) for split in ("train", "test"))
    _, contamination = overlaps(train, test)
    assert (contamination.exact, contamination.normalised) == (0, 0)
    assert contamination.ngram > 90


def test_of_a_generated_task_no_more_is_made_than_the_recipe_asks_for(tmp_path: Path) -> None:
    """Sums of two digits have no 500 questions for test."""
    narrow = {"terms": [2, 2], "digits": [1, 1], "operators": "+"}
    block = TaskBlock.model_validate({"name": "chain_arithmetic", "options": narrow, "test": 8})
    assert tasks.is_generated(block)
    assert len(tasks.whole_test(block)) == 8
    rows = [{"question": f"How many are {i}?", "answer": str(i)} for i in range(40)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = TaskBlock.model_validate(
        {"path": str(tmp_path / "own.jsonl"), "answer": "number", "question": "question", "target": "answer", "test": 1}
    )
    assert not tasks.is_generated(own)
    assert len(tasks.whole_test(own)) > 1, "another run may evaluate on more of them"
