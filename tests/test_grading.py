"""`fcot grade`: what is printed, what is written, which rows are set aside and why, and what it costs in memory."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import REPOSITORY
from test_cli import fcot

from fcot_lite import answers, grading, paper_rules, tasks
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.readings import folded
from fcot_lite.records import AnswerKind

DATA = os.environ.get("FCOT_DATA")  # read here: conftest.py hides it from every test
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
    return counts, [json.loads(line) for line in out.read_text().splitlines()]


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
    assert found["set_aside"] == {"count": 0, "reasons": {}, "first": []}
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
    ("finish_reason of others", {**RIGHT, "finish_reason": "eos"}, "unknown finish_reason"),
    ("finish_reason is a number", {**RIGHT, "finish_reason": 0}, "unknown finish_reason"),
    ("question is a number", {**RIGHT, "question": 5}, "wrong type"),
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
    assert f"{path}: none of its rows could be graded" in done.stderr
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
    assert (done.returncode, done.stderr) == (3, "fcot: stdin: none of its rows could be graded\n")


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


@pytest.mark.parametrize("letter", ["E", "F", "J", "Z"])
def test_without_options_there_are_as_many_as_the_gold_answer_needs(tmp_path: Path, letter: str) -> None:
    _, (row,) = graded(written(tmp_path, {"target": letter, "text": f"The answer is ({letter})."}), answer="choice")
    assert row["correct"]


@pytest.mark.parametrize(
    ("kind", "target", "text"),
    [
        ("yes_no", "Yes", "The answer is yes."),
        ("yes_no", False, "The answer is no."),
        ("letters", "eksa", "The answer is e-k-s-a."),
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
    assert (tmp_path / "verdicts.jsonl").read_text().splitlines(keepends=True)[0] == row


def test_the_page_says_how_modes_differ(tmp_path: Path) -> None:
    table = re.findall(r"^\| `(.*?)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    assert len(table) == 4
    for text, *cells in table:
        path = written(tmp_path, {"target": "18", "text": text, "template": "zs_cot"})
        _, found = graded(path, answers.MODES, "gsm8k")
        shown = [f"~~{row['extracted']}~~" if row["reason"] == "wrong" else row["extracted"] or "none" for row in found]
        assert shown == cells, text


@pytest.mark.parametrize(
    "word", [*paper_rules.TEMPLATES, *grading.FINISH_REASONS, *get_args(AnswerKind), *answers.MODES]
)
def test_the_page_lists_every_word_that_a_row_or_option_takes(word: str) -> None:
    assert f"`{word}`" in PAGE or f" {word}`" in PAGE
