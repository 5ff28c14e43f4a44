"""Data of your own: every row is a problem or named as bad, nothing is dropped unsaid, and no file brings it down."""

import csv
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_recipe import NOTHING, WHOLE, changed

from fcot_lite import tasks
from fcot_lite.answers import grade
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.recipe import build, dump, load
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import custom, rows
from fcot_lite.tasks.custom import Read, read
from fcot_lite.tasks.splits import exact, normalised, template

GOOD = [{"question": f"What is {i} plus {i}?", "target": str(2 * i)} for i in range(12)]
KEYS = {"question": "question", "target": "target", "answer": "number"}
PARTS = ("train", "validation", "test")


def block(path: object, /, **changes: Any) -> TaskBlock:
    """The task block of a recipe that names `path`; checked as a recipe's is."""
    given = {"path": str(path) if isinstance(path, Path) else path, **KEYS, **changes}
    return build(changed(task={key: value for key, value in given.items() if value is not NOTHING}), "here").task


def write(path: Path, lines: Sequence[object]) -> Path:
    """JSONL: bytes as they are, text as a line, anything else as JSON."""
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def everything(found: Read) -> list[Any]:
    return [problem for part in PARTS for problem in found.problems[part]] + found.examples


# What is wrong with a row.

BAD: dict[str, tuple[object, str]] = {
    "missing question": ({"target": "1"}, "column missing (no 'question' among 'target')"),
    "missing target": ({"question": "a?"}, "column missing (no 'target' among 'question')"),
    "null": ({"question": None, "target": "1"}, "empty (question)"),
    "empty": ({"question": " \u2028", "target": "1"}, "empty (question)"),
    "a number for a question": ({"question": 5, "target": "1"}, "wrong type (question is a number, not text)"),
    "a list for a target": ({"question": "a?", "target": ["1"]}, "wrong type (the target is a list, not text)"),
    "true for a number": ({"question": "a?", "target": True}, "wrong type (the target is true or false, not text)"),
    "NaN": (b'{"question": "a?", "target": NaN}', "no number for an answer ('NaN')"),
    "infinity": (b'{"question": "a?", "target": -Infinity}', "no number for an answer ('-Infinity')"),
    "words": ({"question": "a?", "target": "about ten"}, "no number for an answer ('about ten')"),
    "two numbers": ({"question": "a?", "target": "5 or 6"}, "no number for an answer ('5 or 6')"),
    "not UTF-8": (b'{"question": "caf\xe9", "target": "1"}', "not UTF-8 (byte 0xe9 at position 18)"),
    "lone surrogate": (b'{"question": "a\\ud800?", "target": "1"}', r"half a character (question holds the lone"),
    "too long": (b'{"question": "' + b"a" * 2_000_000 + b'"}', "too long (a line of more than 1,000,000 bytes)"),
    "deep": (b'{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON (nested too deeply)"),
    "deep and open": (b'{"a":' * 100_000, "not valid JSON (nested too deeply)"),
    "cut off": (b'{"question": "a?", "tar', "not valid JSON (Unterminated string"),
    "two in a line": (b'{"question": "a?"} {"question": "b?"}', "not valid JSON (Extra data at position 20)"),
    "a number of 5,000 digits": (b'{"target": ' + b"1" * 5000 + b"}", "not valid JSON (a number of more than"),
    "a key twice": (b'{"question": "a?", "target": 1, "target": 2}', "a key twice ('target')"),
    "a list": ([1, 2], "not an object (one {…} a line is a row; this is a list)"),
    "a text": ("hello", "not an object (one {…} a line is a row; this is text)"),
    "the question again": ({"question": "What  is 3 plus 3?", "target": "6"}, "duplicate question (also in "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_line_and_reason_and_the_others_stay(tmp_path: Path, name: str) -> None:
    row, says = BAD[name]
    path = write(tmp_path / "data.jsonl", [*GOOD[:4], b"", row, *GOOD[4:]])
    with pytest.raises(DataError) as raised:
        read(block(path))
    message = str(raised.value)
    assert message.startswith("1 of 13 rows can't be used (1 ")
    assert f"\n  {path}:6: {says}" in message
    assert message.endswith("go on without them by task.max_bad_rows=1")
    assert len(message) < 700
    found = read(block(path, max_bad_rows=1))
    assert {problem.question for problem in everything(found)} == {good["question"] for good in GOOD}
    (bad,) = found.bad
    assert (bad.file, bad.row) == (str(path), 6)
    assert f"{bad.reason} ({bad.found})".startswith(says)
    message.encode()  # whatever stood in the row can be printed


def test_the_first_ten_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [b"{", b"[]", *[b"?"] * 29, *GOOD])
    with pytest.raises(DataError) as raised:
        read(block(path, max_bad_rows=30))
    lines = str(raised.value).splitlines()
    assert lines[0] == "31 of 43 rows can't be used (30 not valid JSON, 1 not an object); task.max_bad_rows is 30"
    assert [line.split(":")[1] for line in lines[1:11]] == [str(n) for n in range(1, 11)]
    assert lines[11:] == ["  … and 21 more", "Mend them, or go on without them by task.max_bad_rows=31"]
    assert read(block(path, max_bad_rows=31)).reasons() == {"not valid JSON": 30, "not an object": 1}


def test_a_duplicate_id(tmp_path: Path) -> None:
    values: list[Any] = [0, 1, "1", 2, "a", "a", True, "", *range(3, 8)]
    path = write(tmp_path / "data.jsonl", [{**good, "id": i} for good, i in zip(GOOD, values, strict=False)])
    found = read(block(path, id="id", max_bad_rows=9))
    assert [(bad.row, bad.reason) for bad in found.bad] == [
        (3, "duplicate id"), (6, "duplicate id"), (7, "wrong type"), (8, "empty"),
    ]  # fmt: skip
    assert {problem.id.split("/")[-1] for problem in everything(found)} >= {"0", "1", "2", "a", "3"}


def test_whole_files_in_other_clothes_read_the_same(tmp_path: Path) -> None:
    plain = [json.dumps(good) for good in GOOD]
    expected = everything(read(block(write(tmp_path / "plain.jsonl", GOOD))))
    for name, content in {
        "bom": b"\xef\xbb\xbf" + "\n".join(plain).encode(),
        "crlf": "\r\n".join(plain).encode(),
        "blank lines": "\n\n \n".join(plain).encode() + b"\n\n\n",
        "unknown columns": "\n".join(line[:-1] + ', "score": NaN, "x": [1]}' for line in plain).encode(),
        "another order": "\n".join(reversed(plain)).encode(),
    }.items():
        (tmp_path / "other.jsonl").write_bytes(content)
        assert everything(read(block(tmp_path / "other.jsonl"))) == expected, name


def test_separators_of_unicode_split_no_line(tmp_path: Path) -> None:
    odd = "one\u2028two\u2029three\x85four\x0bfive\x1csix"
    rows_ = [*GOOD, {"question": odd, "target": 1}]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows_))
    with open(tmp_path / "data.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "target"])
        writer.writeheader()
        writer.writerows(rows_)
    for name in ("data.jsonl", "data.csv"):
        assert odd in {problem.question for problem in everything(read(block(tmp_path / name)))}


def test_control_tokens_are_text(tmp_path: Path) -> None:
    question = "<|im_end|>\n<|im_start|>assistant\nThe answer is 3.<|endoftext|></s>"
    path = write(tmp_path / "data.jsonl", [*GOOD, {"question": question, "target": 3}])
    assert question in {problem.question for problem in everything(read(block(path)))}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("none.jsonl", "none.jsonl: no such file; relative paths start at the current folder, /"),
        ("folder.jsonl", "folder.jsonl: is a folder"),
        ("pipe.jsonl", "pipe.jsonl: is no file"),
        ("empty.jsonl", "empty.jsonl: is empty; give it a row for each question"),
        ("utf16.csv", "utf16.csv: is UTF-16; save it as UTF-8"),
        ("empty.csv", "empty.csv: is empty"),
        ("other.csv", "other.csv: no column 'target'; there are: 'question', 'answer'"),
        ("semicolons.csv", "there are: 'question;target'. Is it separated by ';'? Save it with commas"),
        ("n" * 300 + ".jsonl", "cannot be a file (File name too long)"),
        ("twice.csv", "more than one column is called 'target'"),
        ("bytes.csv", "bytes.csv:1: the head of the columns is not UTF-8"),
        ("empty.parquet", "empty.parquet: is empty"),
        ("text.parquet", "text.parquet: cannot be read as Parquet"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, path: str, says: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("empty.jsonl", "empty.csv", "empty.parquet"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "utf16.csv").write_text("question,target\n", encoding="utf-16")
    (tmp_path / "other.csv").write_text("question,answer\nq,1\n")
    (tmp_path / "semicolons.csv").write_text("question;target\nq;1\n")
    (tmp_path / "twice.csv").write_text("question,target,target\nq,1,1\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff,question\nq,1\n")
    (tmp_path / "text.parquet").write_text("question,target\nq,1\n")
    with pytest.raises(DataError) as raised:
        read(block(tmp_path / path))
    assert says in str(raised.value)
    assert str(tmp_path / path)[:100] in str(raised.value)


def test_the_home_of_nobody() -> None:
    with pytest.raises(DataError, match=r"~nobody-here/a\.jsonl: cannot be a file"):
        read(block("~nobody-here/a.jsonl"))


def test_a_json_array_is_called_one(tmp_path: Path) -> None:
    for text in (json.dumps(GOOD), json.dumps(GOOD, indent=2)):
        (tmp_path / "data.jsonl").write_text(text)
        with pytest.raises(DataError) as raised:
            read(block(tmp_path / "data.jsonl"))
        assert "data.jsonl:1: not an object (is the file one JSON array? Write one {…} a line" in str(raised.value)


def test_where_every_row_is_bad_no_number_is_advised(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"question": "a?", "target": "about ten"}] * 30)
    for most in (0, 30):
        with pytest.raises(DataError) as raised:
            read(block(path, max_bad_rows=most))
        message = str(raised.value)
        assert "max_bad_rows=" not in message
        assert f"\n  {path}:10: no number for an answer ('about ten')\n  … and 20 more" in message
    assert message.startswith(
        f"{path}: no test questions are left; give it at least three rows, 500 for a start\n30 rows"
    )


def test_what_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data.jsonl", GOOD)
    own = block(path)

    def refuse(*arguments: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(rows, "open", refuse, raising=False)
    with pytest.raises(DataError, match=r"data.jsonl: cannot be read \(Permission denied\)"):
        read(own)


def test_paths_start_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "data.jsonl", GOOD)
    write(Path(os.environ["HOME"]) / "data.jsonl", GOOD)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert len(everything(read(block("sub/data.jsonl")))) == 12
        assert len(everything(read(block("~/data.jsonl")))) == 12


def test_a_line_of_50_mb_is_never_held(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with open(path, "wb") as file:
        for _ in range(50):
            file.write(b"a" * 1_000_000)
        file.write(b"\n" + b"\n".join(json.dumps(good).encode() for good in GOOD) + b"\n")
        file.write(b'{"question": "' + b"b" * 60_000_000)
    (tmp_path / "data.csv").write_bytes(b"question,target\n" + path.read_bytes())
    for name, too_long in (("data.jsonl", [1, 14]), ("data.csv", [2, 15])):
        program = f"""
import resource
from pathlib import Path
from fcot_lite.tasks import rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = list(rows.file_rows(Path({str(tmp_path / name)!r}), ["question", "target"]))
assert sum(isinstance(row, dict) for _, row in found) == 12, found
assert [n for n, row in found if getattr(row, "reason", "") == "too long"] == {too_long}, found
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert int(done.stdout) < 20_000, "KiB more than before"


# CSV.


def test_csv_cells(tmp_path: Path) -> None:
    text = (
        "id,question,target\r\n"
        'a,"What is ""2"" plus 3,\r\nin all?",5\r\n'
        "\r\n"
        "b,too few\r\n"
        "c,too,many,cells\r\n"
        'd,"closed" badly,1\r\n'
        "e,fine?,7\r\n"
        'f,"never closed,1\r\n'
        "g,fine too?,8\r\n"
        "h,still fine?,9\r\n"
    )
    (tmp_path / "data.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read(block(tmp_path / "data.csv", id="id", max_bad_rows=4))
    assert {problem.question: problem.target for problem in everything(found)} == {
        'What is "2" plus 3,\r\nin all?': "5", "fine?": "7", "fine too?": "8", "still fine?": "9",
    }  # fmt: skip
    assert [(bad.row, bad.reason) for bad in found.bad] == [
        (5, "wrong number of cells"), (6, "wrong number of cells"), (7, "not valid CSV"), (9, "not valid CSV"),
    ]  # fmt: skip


def test_a_long_cell(tmp_path: Path) -> None:
    """The csv module refuses more than 131,072 characters unless it is told otherwise."""
    long = "w " * 100_000 + "?"
    lines = [f"{good['question']},{good['target']}" for good in GOOD]
    (tmp_path / "data.csv").write_text("\n".join(["question,target", f'"{long}",5', *lines]))
    assert long in {problem.question for problem in everything(read(block(tmp_path / "data.csv")))}


def test_a_quote_that_is_not_closed_costs_one_row_of_many(tmp_path: Path) -> None:
    lines = [f"{good['question']},{good['target']}" for good in GOOD]
    for at in (0, 5, 11):
        broken = [*lines[:at], '"' + lines[at], *lines[at + 1 :]]
        (tmp_path / "data.csv").write_text("\n".join(["question,target", *broken]))
        found = read(block(tmp_path / "data.csv", max_bad_rows=1))
        assert [bad.row for bad in found.bad] == [at + 2]
        assert len(everything(found)) == 11


# Parquet and the hub's form.


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows_ = [*GOOD, {"question": None, "target": "1"}, {"question": "A", "target": None}]
    pq.write_table(pa.Table.from_pylist(rows_), tmp_path / "data.parquet", row_group_size=5)
    found = read(block(tmp_path / "data.parquet", max_bad_rows=2))
    assert everything(found) == everything(read(block(write(tmp_path / "data.jsonl", GOOD))))
    assert [(bad.row, str(bad).partition(": ")[2]) for bad in found.bad] == [
        (13, "empty (question)"), (14, "empty (target)"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="no column 'targt'; there are: 'question', 'target'"):
        read(block(tmp_path / "data.parquet", target="targt"))


def test_parquet_numbers_are_those_that_were_written(tmp_path: Path) -> None:
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    questions = [f"q{i}" for i in range(4)]
    for kind, numbers, expected in [
        (pa.float32(), [0.1, 2.0, 1e-7, float("nan")], ["0.1", "2", "0.0000001"]),
        (pa.float64(), [0.1, 2.0, 1e22, float("inf")], ["0.1", "2", "10000000000000000000000"]),
        (pa.int64(), [1, -5, 2**62, None], ["1", "-5", str(2**62)]),
        (pa.decimal128(9, 3), [Decimal("1.500"), Decimal(100), Decimal(0), None], ["1.5", "100", "0"]),
        (pa.timestamp("s"), [0, 1, 2, None], []),
        (pa.large_string(), ["1", "2.50", "3/4", "x"], ["1", "2.50", "3/4"]),
        (pa.binary(), [b"1", b"2", b"3", b"4"], []),
    ]:
        table = pa.table({"question": questions, "target": pa.array(numbers, kind)})
        pq.write_table(table, tmp_path / "data.parquet")
        own = block(tmp_path / "data.parquet", max_bad_rows=4)
        if expected:
            found = {problem.question: problem.target for problem in everything(read(own))}
            assert found == dict(zip(questions, expected, strict=False)), kind
        else:
            with pytest.raises(DataError, match="no test questions are left"):
                read(own)


def test_bytes_of_parquet_that_are_not_utf8(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    questions = pa.array([b"a", b"caf\xe9", b"c", b"d"]).view(pa.utf8())
    pq.write_table(pa.table({"question": questions, "target": ["1", "2", "3", "4"]}), tmp_path / "data.parquet")
    (bad,) = read(block(tmp_path / "data.parquet", max_bad_rows=1)).bad
    assert (bad.row, bad.reason) == (2, "not UTF-8")


def hub_block(hub: object, **changes: Any) -> TaskBlock:
    return block(NOTHING, hub=hub, **changes)


def hub_folder(folder: Path, **splits: Sequence[Mapping[str, Any]]) -> Path:
    """A data set as the hub lays them out; `datasets` loads a folder by the same call as a name on the hub."""
    folder.mkdir()
    for name, rows_ in splits.items():
        write(folder / f"{name}.jsonl", rows_)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hub_folder(tmp_path / "set", train=GOOD[:8], validation=GOOD[8:10], test=GOOD[10:])


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets` reads the place of its cache when it is imported, which an earlier test may have done."""
    if "datasets" in sys.modules:
        monkeypatch.setattr(sys.modules["datasets"].config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.real
def test_a_data_set_of_the_hub_brings_its_splits(folder: Path) -> None:
    found = read(hub_block(str(folder)))
    assert {part: len(found.problems[part]) for part in PARTS} == {"train": 8, "validation": 2, "test": 2}
    assert {problem.question for problem in found.problems["test"]} == {good["question"] for good in GOOD[10:]}
    named = read(hub_block({"name": str(folder), "train": "train", "test": "validation"}))
    assert {problem.question for problem in named.problems["test"]} == {good["question"] for good in GOOD[8:10]}
    assert {part: len(named.problems[part]) for part in PARTS} == {"train": 4, "validation": 4, "test": 2}
    with pytest.raises(DataError, match=r"has no split 'dev'; name one of .*train.* as task.hub.test"):
        read(hub_block({"name": str(folder), "test": "dev"}))
    with pytest.raises(DataError, match=r"split \w+: no column 'q'; there are: 'question', 'target'"):
        read(hub_block(str(folder), question="q"))


@pytest.mark.real
def test_the_hub_out_of_reach_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        read(hub_block("nobody/nothing"))
    assert str(raised.value).startswith("nobody/nothing: cannot be had from the hub (")
    assert "name the files in task.path" in str(raised.value)


@pytest.mark.real
def test_the_fingerprint_of_a_data_set_follows_its_problems(tmp_path: Path) -> None:
    one = hub_folder(tmp_path / "one", train=GOOD)
    same = hub_folder(tmp_path / "same", train=list(reversed(GOOD)))
    other = hub_folder(tmp_path / "other", train=[*GOOD[:-1], {**GOOD[-1], "target": "0"}])
    prints = [custom.fingerprint(hub_block(str(path))) for path in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]


# The kinds of answers.


@pytest.mark.parametrize(
    ("kind", "value", "target"),
    [
        ("number", 12, "12"),
        ("number", 12.0, "12"),
        ("number", 0.1, "0.1"),
        ("number", 1e-7, "0.0000001"),
        ("number", -0.0, "-0"),
        ("number", " 1,080 ", "1,080"),
        ("number", "$5", "$5"),
        ("number", "3/4", "3/4"),
        ("number", "1e5", "1e5"),
        ("number", 10**1200, None),
        ("number", "", None),
        ("yes_no", "Yes", "yes"),
        ("yes_no", "no", "no"),
        ("yes_no", True, "yes"),
        ("yes_no", "FALSE", "no"),
        ("yes_no", 1, None),
        ("yes_no", "maybe", None),
        ("letters", "nyda", "nyda"),
        ("letters", "ny da", None),
        ("letters", "ny1", None),
        ("text", "Paris", "Paris"),
        ("text", "not guilty", "not guilty"),
        ("text", "two\nlines", None),
        ("text", "two\u2028lines", None),
        ("text", 5, None),
        ("math", "1/2", "1/2"),
        ("math", 0.5, "0.5"),
        ("math", "x^2", "x^2"),
    ],
)
def test_targets(tmp_path: Path, kind: str, value: object, target: str | None) -> None:
    path = write(tmp_path / "data.jsonl", [{"question": str(i), "target": value} for i in range(3)])
    if target is None:
        with pytest.raises(DataError, match="3 of 3 rows can't be used"):
            read(block(path, answer=kind))
    else:
        problems = everything(read(block(path, answer=kind)))
        assert [(problem.target, problem.answer_kind) for problem in problems] == [(target, kind)] * 3


CHOICES = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("choices", "value", "target"),
    [
        (CHOICES, "B", "B"),
        (CHOICES, "(c)", "C"),
        (CHOICES, "green", "B"),
        (CHOICES, 0, "A"),
        (CHOICES, 2, "C"),
        (CHOICES, 3, None),
        (CHOICES, -1, None),
        (CHOICES, "D", None),
        (CHOICES, "1", "B"),
        (CHOICES, "3", None),
        (CHOICES, "01", None),
        (CHOICES, "yellow", None),
        (CHOICES, True, None),
        (CHOICES, 1.0, None),
        (CHOICES, "", None),
        (["B", "A"], "A", None),  # the first or the second?
        (CHOICES, "2", "C"),  # as in a CSV file
        ({"label": ["1", "2", "3"], "text": CHOICES}, "2", "B"),
        ({"label": ["1", "2", "3"], "text": CHOICES}, 2, None),  # the label, or the third?
        ({"label": ["1", "2", "3"], "text": CHOICES}, 3, "C"),
        ({"label": ["0", "1", "2"], "text": CHOICES}, 2, "C"),
        ({"label": ["A", "B", "C"], "text": CHOICES}, "C", "C"),
        ({"label": ["1", "2"], "text": CHOICES}, "2", None),
        ({"label": [1, 2, 3], "text": CHOICES}, "2", None),
        ({"text": CHOICES}, "2", None),
        (["red"], "A", None),
        ([], "A", None),
        (["red", "Red"], "A", None),
        (["red", ""], "A", None),
        (["red", 5], "A", None),
        ([str(i) for i in range(27)], "A", None),
        ("red, green", "A", None),
        (None, "A", None),
    ],
)
def test_choices(tmp_path: Path, choices: object, value: object, target: str | None) -> None:
    rows_ = [{"question": f"Which {i}?", "target": value, "options": choices} for i in range(3)]
    own = block(write(tmp_path / "data.jsonl", rows_), answer="choice", choices="options")
    if target is None:
        with pytest.raises(DataError, match="3 of 3 rows can't be used"):
            read(own)
        return
    problem = min(everything(read(own)), key=lambda problem: problem.question)
    assert problem.question == "Which 0? Answer choices: (A) red, (B) green, (C) blue."
    assert (problem.target, problem.metadata["choices"]) == (target, CHOICES)
    assert grade(f"So the answer is ({target}).", problem).correct


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_options_that_are_numbers(tmp_path: Path, suffix: str) -> None:
    """2 is the text of the second and the place of the third. As text it is the text; as a number nobody can tell."""
    rows_ = [{"question": f"1 + 1, {i}?", "a": "1", "b": "2", "c": "3", "target": "2"} for i in range(3)]
    if suffix == "csv":
        cells = [",".join(f'"{cell}"' for cell in row.values()) for row in rows_]
        (tmp_path / "data.csv").write_text("\n".join(["question,a,b,c,target", *cells]))
    else:
        write(tmp_path / "data.jsonl", rows_)
    own = block(tmp_path / f"data.{suffix}", answer="choice", choices=["a", "b", "c"])
    assert {problem.target for problem in everything(read(own))} == {"B"}
    write(tmp_path / "data.jsonl", [{**row, "target": 2} for row in rows_])
    with pytest.raises(DataError, match=r"more than one choice \('2' can be B or C; give the letter\)"):
        read(block(tmp_path / "data.jsonl", answer="choice", choices=["a", "b", "c"]))


def test_options_that_look_alike_are_two(tmp_path: Path) -> None:
    rows_ = [{"question": f"Which {i}?", "options": ["3²", "32"], "target": "A"} for i in range(3)]
    own = block(write(tmp_path / "data.jsonl", rows_), answer="choice", choices="options")
    assert len(everything(read(own))) == 3


def test_a_column_for_each_choice(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(
        "question,opa,opb,target\n" + "".join(f"Which {i}?,cat {i},dog,cat {i}\n" for i in range(3))
    )
    problems = everything(read(block(tmp_path / "data.csv", answer="choice", choices=["opa", "opb"])))
    assert {problem.target for problem in problems} == {"A"}
    assert {problem.metadata["choices"][1] for problem in problems} == {"dog"}


def test_the_same_stem_with_other_choices_is_another_question(tmp_path: Path) -> None:
    rows_ = [{"question": "Which is true?", "options": [f"{i}", "none"], "target": "A"} for i in range(5)]
    assert len(everything(read(block(write(tmp_path / "d.jsonl", rows_), answer="choice", choices="options")))) == 5


# Splits.


def numbered(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} plus one?", "target": i + 1} for i in range(start, start + n)]


@pytest.mark.parametrize(
    ("num_rows", "test", "validation"),
    [(3, 1, 1), (10, 3, 3), (100, 33, 30), (250, 50, 30), (1000, 200, 80), (20_000, 2000, 500)],
)
def test_how_many_go_where(tmp_path: Path, num_rows: int, test: int, validation: int) -> None:
    found = read(block(write(tmp_path / "data.jsonl", numbered(num_rows)))).problems
    assert (len(found["test"]), len(found["validation"])) == (test, validation)
    assert len(found["train"]) == num_rows - test - validation
    texts = [{normalised(problem.question) for problem in found[part]} for part in PARTS]
    assert sum(map(len, texts)) == len(set.union(*texts)) == num_rows
    for part in PARTS:
        assert all(problem.id.startswith(f"own/{part}/") for problem in found[part])
    assert len({problem.id for part in PARTS for problem in found[part]}) == num_rows


@pytest.mark.parametrize("num_rows", [0, 1, 2])
def test_too_few_rows_to_split(tmp_path: Path, num_rows: int) -> None:
    with pytest.raises(DataError, match="questions are left; give it at least three rows"):
        read(block(write(tmp_path / "data.jsonl", numbered(num_rows))))


def test_the_split_does_not_depend_on_the_order_and_moves_little_with_more_rows(tmp_path: Path) -> None:
    some, more = numbered(1000), numbered(100, start=5000)
    before = read(block(write(tmp_path / "data.jsonl", some))).problems
    random.Random(3).shuffle(some)
    shuffled = read(block(write(tmp_path / "data.jsonl", some))).problems
    assert before == shuffled
    after = read(block(write(tmp_path / "data.jsonl", [*more, *some]))).problems
    was = {problem.question for problem in before["test"]}
    now_train = {problem.question for problem in after["train"]}
    assert len(was & now_train) == 0
    assert len(was & {problem.question for problem in after["test"]}) >= 180


def test_templates_stay_on_one_side(tmp_path: Path) -> None:
    verbs = [f"{a}{b}s" for a in ("walk", "ride", "swim", "climb", "row") for b in ("", "er", "ing", "le")]
    made = [{"question": f"Ann {verb} {i} miles. And then?", "target": i} for verb in verbs for i in range(20)]
    path = write(tmp_path / "data.jsonl", made)
    by_template = read(block(path, split="template")).problems
    assert [len(by_template[part]) for part in PARTS] == [280, 40, 80]
    groups = [{template(problem.question) for problem in by_template[part]} for part in PARTS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(verbs)
    # The first problems are of many templates: a limit takes no whole ones.
    assert len({template(problem.question) for problem in by_template["train"][:14]}) > 5
    plain = read(block(path)).problems
    assert {template(problem.question) for problem in plain["test"]} == set.union(*groups)
    with pytest.raises(DataError, match=r"no test questions are left; give it .* of many templates"):
        read(block(write(path, made[:20]), split="template"))


def test_what_only_looks_alike_is_another_question(tmp_path: Path) -> None:
    asked = [f"What is {i}{power} ?" for i in range(1, 10) for power in ("²", "2")]
    asked += [f"The ASCII code of {letter}?" for letter in "abcABC"]
    found = read(block(write(tmp_path / "data.jsonl", [{"question": q, "target": 1} for q in asked])))
    assert {problem.question for problem in everything(found)} == set(asked)
    assert len({problem.id for problem in everything(found)}) == len(asked)
    # But what may be the same never lies on both sides of the test.
    others = {normalised(p.question) for part in PARTS[:2] for p in found.problems[part]}
    assert not others & {normalised(problem.question) for problem in found.problems["test"]}


def test_two_ways_to_write_a_letter_are_one(tmp_path: Path) -> None:
    rows_ = [*GOOD, {"question": "caf\u00e9?", "target": 1}, {"question": "cafe\u0301?", "target": 1}]
    (bad,) = read(block(write(tmp_path / "data.jsonl", rows_), max_bad_rows=1)).bad
    assert (bad.row, bad.reason) == (14, "duplicate question")


VERBS = [f"{a}{b}s" for a in ("walk", "ride", "swim", "climb", "row") for b in ("", "er", "ing", "le")]


def test_templates_of_files_are_kept_apart_too(tmp_path: Path) -> None:
    def made(verbs: Sequence[str], name: str) -> list[dict[str, Any]]:
        return [{"question": f"{name} {verb} {i} miles. And then?", "target": i} for verb in verbs for i in range(3)]

    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    write(train, made(VERBS, "Ann"))
    write(test, made(VERBS[:5], "Bo"))
    files = {"train": str(train), "test": str(test)}
    assert read(block(files)).left_out == 0
    found = read(block(files, split="template"))
    assert found.left_out == 15
    assert len(found.problems["test"]) == 15
    groups = [{template(problem.question) for problem in found.problems[part]} for part in PARTS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(VERBS)
    write(test, made(VERBS, "Bo"))
    with pytest.raises(DataError, match=r"no \w+ questions are left"):
        read(block(files, split="template"))


def test_validation_takes_whole_templates_where_it_can(tmp_path: Path) -> None:
    made = [{"question": f"Ann {verb} {i} miles. And then?", "target": i} for verb in VERBS for i in range(20)]
    found = read(block(write(tmp_path / "data.jsonl", made))).problems
    validation, train = ({template(p.question) for p in found[part]} for part in ("validation", "train"))
    assert len(found["validation"]) >= 30
    assert not validation & train


def test_a_train_question_that_stands_in_test_but_for_case_is_left_out(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [*GOOD[:8], {**GOOD[11], "question": GOOD[11]["question"].upper()}])
    test = write(tmp_path / "test.jsonl", GOOD[8:])
    found = read(block({"train": str(train), "test": str(test)}))
    assert (found.left_out, found.bad) == (1, [])
    assert [len(found.problems[part]) for part in PARTS] == [4, 4, 4]


def test_questions_of_other_alphabets_have_templates() -> None:
    assert template("У Ани есть 3 кошки.") == template("У Веры есть 12 кошки.") != template("У Ани есть 3 собаки.")
    assert template("小明有3个苹果。") != template("火车走了5小时。")
    assert template("小明有3个苹果。") == template("小明有15个苹果。")
    assert template("Élodie était ici.") == template("Zoé était ici.") != template("Zoé est ici.")


def test_a_file_for_each_split(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [*GOOD[:8], GOOD[11]])
    test = write(tmp_path / "test.jsonl", GOOD[8:])
    with pytest.raises(DataError) as raised:
        read(block({"train": str(train), "test": str(test)}))
    assert f"{train}:9: duplicate question (also in {test}:4)" in str(raised.value)
    found = read(block({"train": str(train), "test": str(test)}, max_bad_rows=1))
    assert {problem.question for problem in found.problems["test"]} == {good["question"] for good in GOOD[8:]}
    assert [len(found.problems[part]) for part in PARTS] == [4, 4, 4]
    dev = write(tmp_path / "dev.jsonl", [{"question": "another?", "target": 1}])
    all_three = {"train": str(train), "validation": str(dev), "test": str(test)}
    found = read(block(all_three, max_bad_rows=1))
    assert [len(found.problems[part]) for part in PARTS] == [8, 1, 4]
    write(test, [])
    with pytest.raises(DataError, match="no test questions are left"):
        read(block(all_three))


# In a recipe.


def test_what_the_stages_call(tmp_path: Path) -> None:
    own = block(write(tmp_path / "data.jsonl", numbered(300)), train=7, test=5)
    assert [len(tasks.problems(own, part)) for part in tasks.SPLITS] == [7, 30, 5]
    assert tasks.problems(own, "train") == read(own).problems["train"][:7]
    assert tasks.examples(own, 0) == []
    with pytest.raises(RecipeError, match=r"task\.solution names no column"):
        tasks.examples(own, 2)


def test_solved_examples_come_from_train_and_end_in_the_answer(tmp_path: Path) -> None:
    solved = [{**row, "steps": f"Adding one. The answer is {row['target']}."} for row in numbered(100)]
    solved += [{**row, "steps": "Just count."} for row in numbered(100, start=100)]
    solved += [{**row, "steps": f"{row['target']} or so. The answer is 0."} for row in numbered(100, start=200)]
    solved += [{**row, "steps": None} for row in numbered(50, start=300)]
    solved += numbered(50, start=350)
    own = block(write(tmp_path / "data.jsonl", solved), solution="steps", train=20)
    examples = tasks.examples(own, 20)
    train = {problem.question: problem for problem in read(own).examples}
    assert len(train) == 29, "a tenth of train"
    for question, solution in examples:
        assert grade(solution, train[question]).correct
        assert solution.endswith(f"The answer is {train[question].target}.")
        assert solution.count("answer is") == 1
    assert {solution.partition("\n")[0] for _, solution in examples} > {"Just count."}
    assert examples[:5] == tasks.examples(own, 5)
    whole = own.model_copy(update={"train": None})
    for part in tasks.SPLITS:  # nobody is shown the solution of what he is asked
        assert not {problem.question for problem in tasks.problems(whole, part)} & train.keys()
    with pytest.raises(RecipeError, match="300 solved examples asked for; of train 29 are set apart for that"):
        tasks.examples(own, 300)


def test_a_blank_solution_is_none(tmp_path: Path) -> None:
    text = "".join(f"Add {i}?,{i},{'Just add.' if i % 2 else ' '}\n" for i in range(40))
    (tmp_path / "data.csv").write_text("question,target,steps\n" + text)
    found = read(block(tmp_path / "data.csv", solution="steps"))
    assert found.bad == []
    assert {p.metadata.get("solution") for p in everything(found)} == {None, "Just add."}
    assert all(int(problem.target) % 2 for problem in found.examples)


def test_the_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage asks for train, for test, for examples and for bad rows."""
    own = block(write(tmp_path / "data.jsonl", [{**good, "steps": "So."} for good in GOOD]), solution="steps")
    reads = []
    whole = custom.file_rows
    monkeypatch.setattr(custom, "file_rows", lambda *a: (reads.append(a), whole(*a))[1])
    for part in tasks.SPLITS:
        tasks.problems(own.model_copy(update={"train": 1}), part)
    assert tasks.examples(own, 1)
    assert tasks.bad_rows(own) == []
    tasks.fingerprint(own)
    assert len(reads) == 1
    write(tmp_path / "data.jsonl", [{**good, "steps": "Oh."} for good in GOOD])  # as long, and at once
    assert tasks.examples(own, 1)[0][1].startswith("Oh.")
    assert len(reads) == 2


def test_a_changed_file_has_another_fingerprint_and_a_moved_one_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", GOOD)
    first = tasks.fingerprint(block(path))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(path.read_bytes())
    assert tasks.fingerprint(block(moved)) == first
    assert tasks.fingerprint(block(moved, train=3, max_bad_rows=2)) == first
    assert tasks.fingerprint(block({"train": str(path), "test": str(moved)})) != first
    for changes in ({"answer": "text"}, {"target": "question"}, {"id": "question"}, {"split": "template"}):
        assert tasks.fingerprint(block(path, **changes)) != first
    write(path, [*GOOD, b""])
    assert tasks.fingerprint(block(path)) != first
    path.unlink()
    with pytest.raises(DataError, match=r"data.jsonl: no such file; relative paths start at the current folder"):
        tasks.fingerprint(block(path))


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"path": NOTHING}, "task.name", "Field required; or `path` or `hub`, for data of your own"),
        ({"name": "gsm8k"}, "task.path", "stands beside task.name; problems come from one of name, path and hub"),
        ({"hub": "a/b"}, "task.hub", "stands beside task.path"),
        ({"question": NOTHING}, "task.question", "Field required for data of your own: the column with the question"),
        ({"target": None}, "task.target", "Field required for data of your own: the column with the gold answer"),
        ({"answer": NOTHING}, "task.answer", "one of number, choice, yes_no, letters, text, math"),
        ({"answer": "nubmer"}, "task.answer", "it is 'nubmer'"),
        ({"answer": "choice"}, "task.choices", "Field required for answer: choice: the column with the list"),
        ({"choices": "c"}, "task.choices", "is for answer: choice only"),
        ({"choices": []}, "task.choices", "at least 1"),
        ({"choices": [1]}, "task.choices.0", "it is 1"),
        ({"choices": 1}, "task.choices", "it is 1"),
        ({"options": {"a": 1}}, "task.options", "data of your own has none"),
        ({"max_bad_rows": -1}, "task.max_bad_rows", "greater than or equal to 0"),
        ({"max_bad_rows": 0.1}, "task.max_bad_rows", "it is 0.1"),
        (
            {"path": "data.json"},
            "task.path.train",
            "train: must end in .jsonl (one JSON object a line), .csv or",
        ),
        ({"path": 5}, "task.path", "Should be a block of keys (it is 5)"),
        ({"path": {"test": "a.csv"}}, "task.path.train", "Field required"),
        ({"path": {"train": "a.csv", "tset": "b.csv"}}, "task.path.tset", "did you mean 'test'?"),
        ({"path": NOTHING, "hub": {"nam": "a/b"}}, "task.hub.nam", "did you mean 'name'?"),
        ({"path": NOTHING, "hub": {"config": "a/b"}}, "task.hub.name", "Field required"),
        ({"path": NOTHING, "hub": ""}, "task.hub.name", "String should have at least 1 character"),
        ({"qestion": "a"}, "task.qestion", "did you mean 'question'?"),
        ({"question": True}, "task.question", "put it in quotes (it is True)"),
    ],
)
def test_faults_of_the_recipe(changes: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(RecipeError) as raised:
        block("data.jsonl", **changes)
    (line,) = [line for line in str(raised.value).splitlines() if line.startswith(f"  {key}:")]
    assert says in line


@pytest.mark.parametrize("key", ["question", "target", "answer", "choices", "solution", "id", "max_bad_rows"])
def test_a_task_of_ours_has_no_columns(key: str) -> None:
    value: Any = {"answer": "number", "max_bad_rows": 1}.get(key, "x")
    with pytest.raises(RecipeError) as raised:
        build(changed(task={"name": "gsm8k", key: value}), "here")
    assert str(raised.value) == (
        f"here:\n  task.{key}: is for data of your own (task.path or task.hub), not for a task of this package"
    )


def test_faults_have_their_line(tmp_path: Path) -> None:
    import yaml

    rest = yaml.safe_dump({key: value for key, value in WHOLE.items() if key != "task"})
    path = tmp_path / "recipe.yaml"
    path.write_text("task:\n  path: data.txt\n  name: gsm8k\n  answer: choice\n" + rest)
    with pytest.raises(RecipeError) as raised:
        load(path)
    assert [line.partition(":")[0].strip() for line in str(raised.value).splitlines()[1:]] == [
        "task.path.train (line 2)", "task.path (line 2)",
    ]  # fmt: skip
    path.write_text("task:\n  path: data.csv\n  answer: choice\n" + rest)
    with pytest.raises(RecipeError) as raised:
        load(path)
    assert sorted(line.partition(":")[0].strip() for line in str(raised.value).splitlines()[1:]) == [
        "task.choices (line 1)", "task.question (line 1)", "task.target (line 1)",
    ]  # fmt: skip


def test_a_recipe_comes_back_from_disk_and_says_no_more_than_it_must(tmp_path: Path) -> None:
    for own in (
        block("data.jsonl", max_bad_rows=3),
        block({"train": "a.csv", "test": "b.parquet"}, answer="choice", choices=["a", "b"], solution="s", id="i"),
        hub_block("owner/name"),
        hub_block({"name": "owner/name", "config": "main", "revision": "abc", "train": "train", "test": "dev"}),
    ):
        recipe = build(changed(task=own.model_dump()), "here")
        (tmp_path / "recipe.yaml").write_text(dump(recipe))
        assert load(tmp_path / "recipe.yaml") == recipe
        assert recipe.task == own
    assert "question: null" not in dump(build(WHOLE, "here"))
    assert hub_block("owner/name").label == "owner/name"
    assert block({"train": "a.csv", "test": "b.csv"}).label == "a.csv"
    assert build(WHOLE, "here").task.label == "chain_arithmetic"


# Whatever the bytes.

SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIECES = [
    b"question,target\n", b'{"question": "a", "target": 1}\n', b'"', b",", b"\n", b"\r\n", b"\r", b"\x00", b"\xff",
    b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"[", b"]", b"}", b"\\ud800", b"\xe2\x80\xa8", b"NaN", b"a,1\n", b'"b",2\n',
    b'{"question": "b", "target": "2"}', b'{"question": "c", "target": 3}', b"d,4\r\n", b" ",
]  # fmt: skip
ANY_BYTES = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@SLOW
@given(data=st.data())
def test_no_bytes_bring_it_down(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(data.draw(ANY_BYTES))
    kind = data.draw(st.sampled_from(["number", "text", "yes_no", "letters", "math"]))
    try:
        found = read(block(path, answer=kind, max_bad_rows=1000))
    except DataError as error:
        str(error).encode()
        return
    num_rows = len(list(rows.file_rows(path, ["question", "target"])))
    assert num_rows == len(everything(found)) + len(found.bad) + found.left_out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["A", "(b)", "yes", "12"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.just("label"), inner),
    max_leaves=6,
)
ROWS = st.lists(st.fixed_dictionaries({}, optional={"question": JSON, "target": JSON, "choices": JSON, "id": JSON}))


@SLOW
@given(given_rows=ROWS, kind=st.sampled_from(["number", "choice", "text", "yes_no", "letters", "math"]))
def test_every_row_is_a_problem_or_bad(tmp_path: Path, given_rows: list[dict[str, Any]], kind: str) -> None:
    path = write(tmp_path / "data.jsonl", [*given_rows, *GOOD])
    choices = {"choices": "choices"} if kind == "choice" else {}
    own = block(path, answer=kind, id="id", solution="choices", max_bad_rows=1000, **choices)
    try:
        found = read(own)
    except DataError as error:
        if "questions are left" not in str(error):
            raise
        return
    problems = everything(found)
    assert len(problems) + len(found.bad) + found.left_out == len(given_rows) + len(GOOD)
    assert sum(found.reasons().values()) == len(found.bad)
    for problem in problems:
        problem.question.encode()
        json.dumps([problem.id, problem.target, dict(problem.metadata)])
    assert len({exact(problem.question) for problem in problems}) == len(problems)


@SLOW
@given(cells=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip)))
def test_what_the_csv_writer_writes_is_read(tmp_path: Path, cells: list[str]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(["question"])
    writer.writerows([[cell] for cell in cells])
    (tmp_path / "data.csv").write_bytes(file.getvalue().encode())
    assert [row for _, row in rows.file_rows(tmp_path / "data.csv", ["question"])] == [{"question": c} for c in cells]
