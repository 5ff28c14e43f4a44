"""`fcot grade`: what is printed, what is written, which rows are set aside and why, and what it costs in memory."""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import REPOSITORY
from test_cli import fcot

from fcot_lite import answers, grading, math_check, paper_rules, tasks
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.finish_reasons import FINISH_REASONS
from fcot_lite.readings import folded
from fcot_lite.records import AnswerKind

DATA = os.environ.get("FCOT_DATA") or None  # read here: conftest.py hides it from every test
RIGHT = {"target": "5", "text": "2 + 3 = 5. The answer is 5."}


def written(folder: Path, *rows: Mapping[str, Any] | bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows) + b"\n")
    return path


def graded(
    path: Path, modes: Sequence[str] = ("strict",), task: str | None = None, answer: str | None = None
) -> tuple[grading.Counts, list[dict[str, Any]]]:
    """The counts and the rows that were written."""
    out = path.with_name("out.jsonl")
    counts = grading.grade_file(str(path), out, task, answer or (None if task else "number"), modes)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum("set_aside" in row for row in rows) == counts.num_set_aside
    return counts, [row for row in rows if "set_aside" not in row]


@pytest.mark.skipif(DATA is None, reason="FCOT_DATA names no folder with paper-mode-examples.jsonl")
@pytest.mark.parametrize("task", paper_rules.RULES)
def test_mode_paper_gives_the_official_verdicts(tmp_path: Path, task: str) -> None:
    assert DATA is not None
    examples = [json.loads(line) for line in (Path(DATA) / "paper-mode-examples.jsonl").read_text().splitlines()]
    rows = [row for row in examples if row["task"] == task]
    assert len(rows) == 5
    counts, found = graded(written(tmp_path, *rows), ["paper"], task)
    assert counts.num_set_aside == 0
    assert [row["correct"] for row in found] == [row["correct"] for row in rows]
    for row, example in zip(found, rows, strict=True):
        same = row["extracted"] == example["extracted"]
        assert same or float(row["extracted"]) == example["extracted"]


def test_one_mode_by_the_command(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {**RIGHT, "id": "a"},
        {"target": 6, "text": "The answer is 5.", "id": 7},
        {**RIGHT, "finish_reason": "length"},
        {"target": "5", "text": "5"},
        name="mine",
    )
    done = fcot("grade", "--answer", "number", path, "-o", tmp_path / "new" / "out.jsonl", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["graded"] == 4
    assert found["set_aside"] == {"count": 0, "reasons": {}, "lines": {}, "first": []}
    strict = found["modes"]["strict"]
    assert (strict["n"], strict["correct"], strict["accuracy"]) == (4, 1, 0.25)
    assert strict["reasons"] == {"correct": 1, "wrong": 1, "unfinished": 1, "no answer": 1}
    assert strict["ci95"] == pytest.approx([0.0456, 0.6994], abs=1e-4)  # Wilson 1927, 1 of 4
    assert found["confusion"] == []
    rows = [json.loads(line) for line in (tmp_path / "new" / "out.jsonl").read_text().splitlines()]
    assert rows == [
        {"line": 1, "id": "a", "mode": "strict", "correct": True, "extracted": "5", "reason": "correct"},
        {"line": 2, "id": 7, "mode": "strict", "correct": False, "extracted": "5", "reason": "wrong"},
        {"line": 3, "mode": "strict", "correct": False, "extracted": None, "reason": "unfinished"},
        {"line": 4, "mode": "strict", "correct": False, "extracted": None, "reason": "no answer"},
    ]


def test_two_modes_have_a_confusion_table(tmp_path: Path) -> None:
    rows = [
        {"target": "5", "text": "The answer is 5."},
        {"target": "5", "text": "5 or so"},
        {"target": "5", "text": "2 + 3. The answer is 5."},
        {"target": "5", "text": "6"},
        {"target": "5", "text": "7"},
    ]
    path = written(tmp_path, *({**row, "template": "zs_cot"} for row in rows))
    counts, found = graded(path, ["strict", "paper"], "gsm8k")
    summary = grading.summary(counts)
    (pair,) = summary["confusion"]
    assert pair == {
        "modes": ["strict", "paper"],
        "both_correct": 1,
        "only_first_correct": 1,
        "only_second_correct": 1,
        "neither_correct": 2,
    }
    assert [row["mode"] for row in found] == ["strict", "paper"] * 5
    done = fcot("grade", "--task", "gsm8k", "--mode", "strict", "--mode", "paper", path)
    assert done.returncode == 0
    assert "paper: correct   not correct" in done.stdout
    assert "strict: correct" in done.stdout


def test_three_modes_are_each_compared_with_the_first(tmp_path: Path) -> None:
    path = written(tmp_path, {"target": "5", "text": "5 or 6", "template": "zs_cot"})
    counts, found = graded(path, ["paper-v1", "paper", "flexible", "paper"], "gsm8k")
    assert [row["mode"] for row in found] == ["paper-v1", "paper", "flexible"]  # each once, in the order asked for
    assert [(row["extracted"], row["correct"]) for row in found] == [("6", False), ("5", True), ("6", False)]
    pairs = [pair["modes"] for pair in grading.summary(counts)["confusion"]]
    assert pairs == [["paper-v1", "paper"], ["paper-v1", "flexible"]]


BAD = [
    ("no JSON", b"{'target': 5}", "not valid JSON"),
    ("cut off", b'{"target": "5", "text": "', "not valid JSON"),
    ("a list", b'["5", "5"]', "not an object"),
    ("a text", b'"5"', "not an object"),
    ("100,000 brackets", b"[" * 100_000, "not valid JSON"),
    ("5,000 digits as a number", b'{"text": "5", "target": ' + b"5" * 5000 + b"}", "not valid JSON"),
    ("the same key twice", b'{"text": "5", "target": "5", "text": "The answer is 5."}', "a key twice"),
    ("not UTF-8", b'{"target": "5", "text": "caf\xe9"}', "not UTF-8"),
    ("no text", {"target": "5"}, "field missing"),
    ("no target", {"text": "5"}, "field missing"),
    ("text is null", {"target": "5", "text": None}, "field missing"),
    ("text is a number", {"target": "5", "text": 5}, "wrong type"),
    ("text is a list of messages", {"target": "5", "text": [{"content": "5"}]}, "wrong type"),
    ("target is a list", {"target": ["5"], "text": "5"}, "wrong type"),
    ("target is true", {"target": True, "text": "5"}, "wrong type"),
    ("target is NaN", {"target": float("nan"), "text": "5"}, "target is no number"),
    ("target is infinite", {"target": float("inf"), "text": "5"}, "target is no number"),
    ("target is empty", {"target": " ", "text": "5"}, "empty"),
    ("target is words", {"target": "five", "text": "5"}, "target is no number"),
    ("target is half a character", {"target": "\ud83d", "text": "5"}, "target is no number"),
    ("finish_reason of nobody", {**RIGHT, "finish_reason": "done"}, "unknown finish_reason"),
    ("finish_reason is a number", {**RIGHT, "finish_reason": 0}, "unknown finish_reason"),
    ("id is a list", {**RIGHT, "id": [1]}, "wrong type"),
    ("a line without end", b'{"target": "5", "text": "' + b"5" * 17_000_000 + b'"}', "too long"),
]


@pytest.mark.parametrize(("row", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_row_is_set_aside_and_no_other(tmp_path: Path, row: Mapping[str, Any] | bytes, reason: str) -> None:
    counts, found = graded(written(tmp_path, RIGHT, row, RIGHT))
    assert [(row["line"], row["correct"]) for row in found] == [(1, True), (3, True)]
    assert [(bad.line, bad.reason) for bad in counts.set_aside] == [(2, reason)]
    assert counts.set_aside_reasons == {reason: 1}
    assert len(counts.set_aside[0].found) < 400


GOOD = [
    ("a lone surrogate in the text", {"target": "5", "text": "\ud83d The answer is 5."}),
    ("NUL in the text", {"target": "5", "text": "\0 The answer is 5."}),
    ("a line separator in the text", b'{"target": "5", "text": "so\xe2\x80\xa8The answer is 5."}'),
    ("a carriage return at the end", json.dumps(RIGHT).encode() + b"\r"),
    ("a BOM at the beginning", b"\xef\xbb\xbf" + json.dumps(RIGHT).encode()),
    ("an empty line before it", b"\n  \r\n" + json.dumps(RIGHT).encode()),
    ("a whole number for a target", {**RIGHT, "target": 5}),
    ("a float for a target", {**RIGHT, "target": 5.0}),
    ("null for what is optional", {**RIGHT, "finish_reason": None, "template": None, "question": None, "id": None}),
    ("a template of somebody else's", {**RIGHT, "template": "chatml", "choices": 3}),
    ("a question that numbers do not need", {**RIGHT, "question": 5, "choices": "none"}),
    *[
        (f"finish_reason {word!r}", {**RIGHT, "finish_reason": word})
        for word in ("", "eos", "EOS_TOKEN", "STOP", "stop_sequence", "end_turn")
    ],
    ("a text of 1 MB", {**RIGHT, "text": "5 " * 500_000 + "The answer is 5."}),
]


@pytest.mark.parametrize("row", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
def test_an_odd_row_is_graded(tmp_path: Path, row: Mapping[str, Any] | bytes) -> None:
    counts, found = graded(written(tmp_path, row))
    assert (counts.num_set_aside, [row["correct"] for row in found]) == (0, [True])


def test_no_line_end_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(RIGHT).encode())
    assert graded(path)[0].num_graded == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"target": "5", "text": "5"}, "field missing"),
        ({"target": "5", "text": "5", "template": "ft_cot"}, "unknown template"),
        ({"target": "5", "text": "5", "template": 1}, "unknown template"),
        ({"target": "five", "text": "5", "template": "zs"}, "target is no number"),
    ],
)
def test_rows_that_one_mode_cannot_grade_count_in_none(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    counts, found = graded(written(tmp_path, {**RIGHT, "template": "zs"}, row), ["strict", "paper"], "svamp")
    assert counts.set_aside_reasons == {reason: 1}
    assert [row["line"] for row in found] == [1, 1]


def test_the_first_ten_are_named_and_all_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, RIGHT, *[b"{"] * 12, {"target": "5"})
    done = fcot("grade", "--answer", "number", path)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines[0] == "fcot: 13 rows were set aside: 12 not valid JSON, 1 field missing"
    assert lines[1].startswith("  line 2: not valid JSON (")
    assert lines[11:] == ["  … and 3 more"]
    assert "13" not in done.stdout


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"{\n{\n", "{}".encode("utf-16")], ids=["empty", "blank", "bad", "16"]
)
def test_where_no_row_can_be_graded_nothing_is_written(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    done = fcot("grade", "--answer", "number", path, "--json", "-o", tmp_path / "out.jsonl")
    assert (done.returncode, done.stdout) == (3, "")
    what = {b"": "is empty; ", b"{}".decode().encode("utf-16"): "is UTF-16; "}
    assert f"{path}: {what.get(content, 'none of its rows could be graded')}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_an_old_output_stays_where_no_row_can_be_graded(tmp_path: Path) -> None:
    path = written(tmp_path, b"{")
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(DataError):
        graded(path)
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_reads_stdin_and_writes_to_it_all_or_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fcot_lite", "grade", "--answer", "number", "-", "--json"]
    done = subprocess.run(command, input=json.dumps(RIGHT), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["modes"]["strict"]["correct"] == 1
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "fcot: stdin: is empty; one JSON object a line is a row\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give one of --task NAME and --answer KIND"),
        (["--task", "gsm8k", "--answer", "number"], 2, "give one of --task NAME and --answer KIND"),
        (["--task", "gsm9k"], 2, "unknown task 'gsm9k': did you mean 'gsm8k'?"),
        (["--answer", "integer"], 2, "--answer integer: unknown; one of number, choice"),
        (["--answer", "number", "--mode", "lenient"], 2, "--mode lenient: unknown; one of strict, flexible, paper"),
        (["--answer", "number", "--mode", "paper"], 2, "--mode paper needs --task"),
        (["--task", "chain_arithmetic", "--mode", "paper-v1"], 2, "the paper has no rules for chain_arithmetic"),
        (["--task", "rg:sudoku"], 2, "take --answer number or --answer text"),
        (["--task", "gsm8k", "-o", "rows.jsonl"], 2, "-o rows.jsonl: is the file that is read; name another"),
        (["--task", "gsm8k", "-o", "/dev/null"], 2, "-o /dev/null: is no file; name another"),
        (["--task", "gsm8k", "-o", "."], 2, "-o .: is no file; name another"),
        (["--task", "gsm8k", "-o", "-"], 2, "-o -: stdout shows the summary; name a file"),
        (["--task", "gsm8k", "-o", "rows.jsonl/new/out"], 2, "-o rows.jsonl/new/out: cannot be written (Not a dir"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    path = written(tmp_path, RIGHT)
    done = fcot("grade", "rows.jsonl", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("file", "message"), [("none.jsonl", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(tmp_path: Path, file: str, message: str) -> None:
    done = fcot("grade", "--answer", "number", file, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"fcot: {file}: {message}" in done.stderr


CHOICES = [
    ("by letter alone", {}, "The answer is (B).", True),
    ("a text that nobody knows is no answer", {}, "The answer is blue.", False),
    ("by the row's choices", {"choices": ["red", "blue", "green"]}, "The answer is blue.", True),
    ("letter and text of the row's choices", {"choices": ["red", "blue", "green"]}, "The answer is (B) blue.", True),
    ("another option's text", {"choices": ["red", "blue", "green"]}, "The answer is red.", False),
    ("ours", {"question": "Answer choices: (A) red, (B) sky, blue, (C) green."}, "The answer is sky, blue.", True),
    ("Kojima's", {"question": "Which? Answer Choices: (A) red (B) blue (C) green"}, "The answer is blue.", True),
    ("on lines", {"question": "Which?\n(A) red\n(B) blue\n(C) green"}, "The answer is blue.", True),
    ("a bracket in the stem", {"question": "Is (A) so? Answer choices: (A) red, (B) blue."}, "Answer: blue.", True),
    ("a bracket in an option", {"question": "Answer choices: (A) red (C), (B) blue."}, "The answer is blue.", True),
    ("a question that lists none", {"question": "Which?"}, "The answer is (B).", True),
    ("in a prompt", {"question": "Q: Which? (A) red (B) blue\nA: Let us think."}, "The answer is blue.", True),
    ("half brackets", {"question": "Which? A) red B) blue\nA:"}, "The answer is blue.", True),
    ("half brackets on lines", {"question": "Which?\nA) red\nB) blue\n"}, "The answer is blue.", True),
    ("full stops on lines", {"question": "Which?\nA. red\nB. blue\nC. U.S.A."}, "The answer is blue.", True),
    ("label and text", {"choices": {"label": ["A", "B"], "text": ["red", "blue"]}}, "The answer is blue.", True),
    ("bracketed target", {"target": "(b)", "choices": ["red", "blue"]}, "The answer is blue.", True),
    ("small target", {"target": "b"}, "The answer is (B).", True),
    ("the target's text", {"target": "Blue", "choices": ["red", "blue"]}, "The answer is (B).", True),
    ("the target's place", {"target": 1, "choices": ["red", "blue"]}, "The answer is (B).", True),
    ("other labels", {"target": "2", "choices": {"label": ["1", "2"], "text": ["red", "blue"]}}, "Answer: blue", True),
    ("null for the choices", {"choices": None, "question": None}, "The answer is (B).", True),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "text", "correct"), [row[1:] for row in CHOICES], ids=[row[0] for row in CHOICES])
def test_options_of_a_choice(tmp_path: Path, fields: dict[str, Any], text: str, correct: bool) -> None:
    _, (row,) = graded(written(tmp_path, {"target": "B", "text": text, **fields}), answer="choice")
    assert row["correct"] == correct


@pytest.mark.parametrize(
    "task",
    [name for name, task in tasks.TASKS.items() if task.answer_kind == "choice"],
)
def test_options_are_read_from_the_questions_of_every_task(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    if tasks.task(task).data is not None:
        if DATA is None:
            pytest.skip("FCOT_DATA is not set")
        monkeypatch.setenv("FCOT_DATA", DATA)
    for problem in tasks.load(task, "test", limit=300):
        read = grading._listed_choices(problem.question)
        assert list(map(folded, read)) == list(map(folded, problem.metadata["choices"])), problem.id


@pytest.mark.parametrize("choices", [["red"], ["red", 5], "red, blue", [], ["x"] * 27])
def test_options_that_are_none(tmp_path: Path, choices: Any) -> None:
    row = {"target": "A", "text": "The answer is A."}
    counts, _ = graded(written(tmp_path, row, {**row, "choices": choices}), answer="choice")
    assert counts.num_set_aside == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "C", "choices": ["red", "blue"]}, "'C' is none of A, B; give the letter"),
        ({"target": "green", "choices": ["red", "blue"]}, "'green' is none of A, B"),
        ({"target": 1, "choices": ["1", "2"]}, "1 can be A or B; give the letter"),
        ({"target": "red", "choices": ["red", "red"]}, "'red' can be A or B"),
        ({"target": "blue"}, "'blue' without choices; give its letter, or the choices"),
        ({"target": 1}, "1 without choices"),
        ({"target": True, "choices": ["red", "blue"]}, "target is true or false"),
        ({"target": "A", "choices": {"label": ["A"], "text": ["red", "blue"]}}, "2"),
        ({"target": "A", "choices": {"text": ["red", "blue"]}}, "choices is not a list of texts"),
        ({"target": "A", "choices": {"label": ["A", "B"]}}, "choices is not a list of texts"),
    ],
)
def test_a_target_that_is_no_choice_says_what_to_give(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    good = {"target": "A", "text": "The answer is A."}
    counts, _ = graded(written(tmp_path, good, {"text": "The answer is A.", **fields}), answer="choice")
    assert [message in bad.found for bad in counts.set_aside] == [True], counts.set_aside


def test_letters_beyond_a_papers_options_are_set_aside(tmp_path: Path) -> None:
    rows = [{"target": letter, "text": letter, "template": "zs"} for letter in "CD"]
    for modes in (["strict"], ["paper"]):
        counts, _ = graded(written(tmp_path, *rows), modes, "tracking_shuffled_objects")
        assert [bad.line for bad in counts.set_aside] == [2]


def test_a_file_without_options_says_so_once(tmp_path: Path) -> None:
    row = {"target": "B", "text": "The answer is (B)."}
    told = "no row had options: graded by letter alone"
    assert told in grading.notes(graded(written(tmp_path, row, row), answer="choice")[0])
    assert told not in grading.notes(graded(written(tmp_path, row, {**row, "choices": ["1", "2"]}), answer="choice")[0])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        *(
            (form, "B")
            for form in ("(B) blue", "B) blue", "B. blue", "B: blue", "[B] blue", "(B) 12", "B) 12", "B: 12")
        ),
        ("(B)", "B"),
        ("B. 12", "B"),
        ("(B) blue or (C) red", None),
        ("(B) or (C)", None),
        ("B) or C", None),
        ("A blue one", None),  # an article
    ],
)
@pytest.mark.parametrize("form", ["The answer is {}", "So it is clear.\n#### {}", "Answer:\n{}\n", "Answer: **{}**"])
def test_without_options_what_stands_behind_a_letter_does_not_matter(
    tmp_path: Path, form: str, answer: str, expected: str | None
) -> None:
    path = written(tmp_path, {"target": "B", "text": form.format(answer)})
    _, (row,) = graded(path, answer="choice")
    assert (row["extracted"] and row["extracted"].strip("([])"), row["correct"]) == (expected, expected == "B")


def test_without_options_a_list_of_them_is_no_answer(tmp_path: Path) -> None:
    _, (row,) = graded(written(tmp_path, {"target": "A", "text": "Answer:\n(A) red\n(B) blue"}), answer="choice")
    assert row["reason"] == "no answer"


@pytest.mark.parametrize("letter", ["E", "F", "J", "Z"])
def test_without_options_there_are_as_many_as_the_gold_answer_needs(tmp_path: Path, letter: str) -> None:
    _, (row,) = graded(written(tmp_path, {"target": letter, "text": f"The answer is ({letter})."}), answer="choice")
    assert row["correct"]


@pytest.mark.parametrize(
    ("kind", "target", "text"),
    [
        ("yes_no", "Yes", "The answer is yes."),
        ("yes_no", False, "The answer is no."),
        ("yes_no", "True", "The answer is yes."),
        ("letters", "eksa", "The answer is e-k-s-a."),
        ("text", 1905, "The answer is 1905."),
        ("text", "Paris", "The answer is Paris."),
        ("math", "\\frac{1}{2}", "The answer is \\boxed{1/2}."),
        ("math", 3, "The answer is 3."),
    ],
)
def test_every_kind_of_answer(tmp_path: Path, kind: str, target: Any, text: str) -> None:
    _, (row,) = graded(written(tmp_path, {"target": target, "text": text}), answer=kind)
    assert row["correct"]


def test_formulas_are_judged_by_math_verify(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    rows = [{"target": "x^2+2x+1", "text": f"The answer is \\boxed{{{form}}}."} for form in ("(x+1)^2", "(x+2)^2")]
    counts, found = graded(written(tmp_path, *rows), answer="math")
    assert [(row["correct"], row["reason"]) for row in found] == [
        (True, "correct (math-verify)"),
        (False, "wrong (math-verify)"),
    ]
    assert grading.summary(counts)["modes"]["strict"]["accuracy"] == 0.5


def test_the_papers_modes_see_the_gold_answer_as_it_is(tmp_path: Path) -> None:
    rows = [{"target": target, "text": "Yes", "template": "zs_cot"} for target in ("yes", "Yes")]
    for task, expected in (("coin_flip", [True, False]), ("strategy_qa", [True, True])):
        assert [row["correct"] for row in graded(written(tmp_path, *rows), ["paper"], task)[1]] == expected


@pytest.mark.parametrize(
    ("task", "target"),
    [
        ("gsm8k", "16 - 3 = 13\n#### 18"),
        ("gsm8k", "$18"),
        ("gsm8k", "eighteen"),
        ("multiarith", "1/2"),
        ("svamp", "18 apples"),
        ("aqua", "F"),
        ("coin_flip", "heads"),
        ("strategy_qa", "maybe"),
        ("last_letter_concatenation", "e k s a"),
    ],
)
def test_a_target_that_the_paper_can_never_find_is_set_aside(tmp_path: Path, task: str, target: str) -> None:
    good = {
        "18": "gsm8k multiarith svamp",
        "A": "aqua",
        "yes": "coin_flip strategy_qa",
        "a": "last_letter_concatenation",
    }
    right = next(answer for answer, names in good.items() if task in names.split())
    rows = [{"target": gold, "text": right, "template": "zs"} for gold in (right, target)]
    counts, found = graded(written(tmp_path, *rows), ["paper"], task)
    assert [(bad.line, bad.reason.startswith("target is no")) for bad in counts.set_aside] == [(2, True)]
    assert [row["correct"] for row in found] == [True]


@pytest.mark.parametrize(
    ("task", "target", "text"),
    [
        ("gsm8k", "1,000", "1000"),
        ("gsm8k", "-5", "-5"),
        ("gsm8k", 10.0, "10"),
        ("addsub", "10.0", "10"),
        ("svamp", "1,000", "1000.0"),
    ],
)
def test_gold_answers_as_the_papers_data_write_them(tmp_path: Path, task: str, target: Any, text: str) -> None:
    _, (row,) = graded(written(tmp_path, {"target": target, "text": text, "template": "zs"}), ["paper"], task)
    assert row["correct"]


@pytest.mark.parametrize("task", paper_rules.RULES)
def test_the_paper_modes_take_every_gold_answer(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    data = tasks.task(task).data
    if data is not None:
        if DATA is None:
            pytest.skip("FCOT_DATA is not set")
        monkeypatch.setenv("FCOT_DATA", DATA)
    splits: tuple[tasks.Split, ...] = ("test",) if task == "aqua" else ("train", "test")
    for problem in (problem for split in splits for problem in tasks.load(task, split)):
        row = {"target": problem.target, "text": "", "template": "zs"}
        kind = tasks.task(task).answer_kind
        found, _ = grading._graded(row, task, kind, ["strict", "paper"], None)
        assert found.target == problem.target


def test_fields_that_a_mode_does_not_use_reject_no_row(tmp_path: Path) -> None:
    row = {"target": "B", "text": "B", "template": "zs", "finish_reason": 7, "choices": "none", "question": 5}
    assert graded(written(tmp_path, row), ["paper"], "aqua")[0].num_set_aside == 0


@pytest.mark.parametrize("word", ["max_tokens", "length", "MAX_TOKENS", "content_filter", "tool_calls"])
def test_an_unfinished_text_in_others_words(tmp_path: Path, word: str) -> None:
    _, (row,) = graded(written(tmp_path, {**RIGHT, "finish_reason": word}))
    assert row["reason"] == "unfinished"


def test_each_row_that_was_set_aside_is_written_and_its_line_told(tmp_path: Path) -> None:
    bad = [{"target": "x", "text": "5", "id": i} for i in range(15)]
    path = written(tmp_path, RIGHT, *bad, b"{")
    done = fcot("grade", "--answer", "number", path, "-o", tmp_path / "out", "--json")
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(row["line"], row["id"], row["set_aside"]) for row in rows[1:16]] == [
        (i + 2, i, "target is no number") for i in range(15)
    ]
    assert rows[16]["set_aside"] == "not valid JSON"
    found = json.loads(done.stdout)["set_aside"]
    assert found["lines"] == {"target is no number": list(range(2, 17)), "not valid JSON": [17]}
    assert len(done.stderr.splitlines()) == 12


def test_stdin_from_the_file_that_is_written_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, RIGHT)
    before = path.read_bytes()
    command = [sys.executable, "-m", "fcot_lite", "grade", "--answer", "number", "-", "-o", str(path)]
    with open(path, "rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is the file that is read" in done.stderr
    assert path.read_bytes() == before


def test_stdin_that_is_closed(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m fcot_lite grade --answer number - <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "fcot: stdin is closed; name a file, or send rows to stdin\n")


def test_a_file_that_fails_while_it_is_read(tmp_path: Path) -> None:
    done = fcot("grade", "--answer", "number", "/proc/self/mem", "-o", tmp_path / "new" / "out")
    assert done.returncode == 3
    assert done.stderr == "fcot: /proc/self/mem: cannot be read (Input/output error)\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (gzip.compress(b'{"target": "5", "text": "5"}\n'), "is packed with gzip"),
        (b"target,text\n5,The answer is 5.\n", "Is it CSV?"),
        (b'[{"target": "5", "text": "5"}]', "one JSON array?"),
        (b"PAR1\x15\x04", "is Parquet"),
    ],
)
def test_another_format_is_named_and_no_folder_is_left(tmp_path: Path, content: bytes, hint: str) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(hint)):
        grading.grade_file(str(path), tmp_path / "a" / "b" / "out", None, "number", ["strict"])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("row", "found"), [({"target": "5"}, "no 'text' among"), ({"target": "5", "text": None}, "'text' is null")]
)
def test_what_is_missing_is_told_from_what_is_null(tmp_path: Path, row: dict[str, Any], found: str) -> None:
    counts, _ = graded(written(tmp_path, RIGHT, row))
    assert counts.set_aside[0].found.startswith(found)


def test_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with grading.Progress() as progress:
        progress(1)
        monkeypatch.setattr(grading, "SECONDS_BETWEEN_LINES", 0.0)
        progress(1234)
    assert capsys.readouterr().err == "grade: 1,234 rows (0 s)\n"


def test_ctrl_c_promises_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fcot_lite",
        "grade",
        "--answer",
        "number",
        "-",
        "-o",
        str(tmp_path / "new" / "out"),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        deadline = time.monotonic() + 30
        while not (tmp_path / "new").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()
    assert (running.returncode, said) == (130, "fcot: interrupted; nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_the_reason_why_a_formula_was_not_judged_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("math_verify")
    monkeypatch.setattr(math_check, "WALL_SECONDS", 1.0)
    rows = [
        {"target": "x+1", "text": r"The answer is \boxed{9^{9^{9^9}}}."},
        {"target": "\0", "text": r"The answer is \boxed{x}."},
    ]
    counts, found = graded(written(tmp_path, *rows), ["strict", "flexible"], answer="math")
    assert [row["reason"] for row in found] == ["not judged: out of time"] * 2
    assert grading.summary(counts)["modes"]["strict"]["reasons"] == {"not judged: out of time": 1}
    assert [(bad.line, bad.reason) for bad in counts.set_aside] == [(2, "target is no math")]


def test_an_unfinished_text_counts_for_the_paper(tmp_path: Path) -> None:
    path = written(tmp_path, {**RIGHT, "template": "fs_cot", "finish_reason": "length"})
    _, found = graded(path, ["strict", "paper"], "gsm8k")
    assert [row["correct"] for row in found] == [False, True]


def test_an_unknown_mode_is_refused_before_anything_is_read() -> None:
    with pytest.raises(RecipeError, match="unknown"):
        grading.grade_file("none.jsonl", None, "gsm8k", None, ["official"])


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak_kib(num_rows: int) -> int:
        line = json.dumps({**RIGHT, "text": "x" * 1000 + " The answer is 5.", "template": "zs"}) + "\n"
        bad = "{\n"
        (tmp_path / "rows.jsonl").write_text((line + bad) * (num_rows // 2))
        code = (
            "import resource, sys; from pathlib import Path; from fcot_lite import grading;"
            "grading.grade_file('rows.jsonl', Path('out.jsonl'), 'gsm8k', None, ['strict', 'paper']);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return int(done.stdout)

    # 20,000 rows are 10 MB in the file and more in memory.
    assert peak_kib(20_000) < peak_kib(200) + 4096


PAGE = (REPOSITORY / "docs" / "grading.md").read_text()
BLOCKS = re.findall(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_shows_what_the_command_prints(tmp_path: Path) -> None:
    (name, content), *none = [(name, content) for _, name, content in BLOCKS if name]
    (tmp_path / name).write_text(content)
    (console,) = (content for language, _, content in BLOCKS if language == "console")
    command, *expected = console.splitlines()
    assert (none, command[:7]) == ([], "$ fcot ")
    done = fcot(*shlex.split(command)[2:], cwd=tmp_path)
    assert done.returncode == 0
    printed = [line.rstrip() for line in (done.stderr + done.stdout).splitlines()]
    for line in expected:
        assert line == "…" or line in printed, done.stderr + done.stdout
    (row,) = (content for language, name, content in BLOCKS if language == "json" and not name)
    lines = (tmp_path / "verdicts.jsonl").read_text().splitlines(keepends=True)
    assert lines[0] + lines[-1] == row


def test_the_page_says_how_modes_differ(tmp_path: Path) -> None:
    table = re.findall(r"^\| `(.*?)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    assert len(table) == 4
    for text, *cells in table:
        path = written(tmp_path, {"target": "18", "text": text, "template": "zs_cot"})
        _, found = graded(path, answers.MODES, "gsm8k")
        shown = [f"~~{row['extracted']}~~" if row["reason"] == "wrong" else row["extracted"] or "none" for row in found]
        assert shown == cells, text


@pytest.mark.parametrize("word", [*paper_rules.TEMPLATES, *FINISH_REASONS, *get_args(AnswerKind), *answers.MODES])
def test_the_page_lists_every_word_that_a_row_or_option_takes(word: str) -> None:
    assert f"`{word}`" in PAGE or f" {word}`" in PAGE
