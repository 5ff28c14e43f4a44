"""`fcot samples`: the list says what is in the store, an export restores all of it, and nothing else gets in."""

import hashlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import fcot

from fcot_lite import answers, samples, sampling_runs
from fcot_lite.errors import INTERRUPTED, DataError, ResourceError
from fcot_lite.recipe import STORE
from fcot_lite.records import Sample, Verdict
from fcot_lite.store import SampleKey, SampleStore, Use, VerdictKey

SAMPLE = Sample("p/0", 0, "1 + 1 = 2. The answer is 2.", None, "stop", 5, 9, 123)
HOSTILE = 'a\x00b\u2028c\u2029d\x85e\r\n\U0001f600\\"{}'
FORMATS = ("jsonl", "parquet")


def fill(
    path: Path, weights: str = "w", num_questions: int = 3, n: int = 4, use: Use | None = None, graded: int = 2
) -> str:
    """n samples of each question; of the first `graded` questions the last sample is right."""
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": weights, "sampling": {"temperature": 0.7}}, use)
        keys = [SampleKey(f"p/{q}", "h", i) for q in range(num_questions) for i in range(n)]
        drawn = [
            replace(SAMPLE, problem_id=key.problem_id, sample_index=key.sample_index, text=f"{key} {HOSTILE}")
            for key in keys
        ]
        store.put(campaign, [("h", sample) for sample in drawn], "vllm 1", wall_seconds=1800.0)
        store.put_verdicts(campaign, verdicts(keys[: graded * n], n))
        store.add_cancelled(campaign, 7)
    return campaign


def verdicts(keys: list[SampleKey], n: int, grader: str = answers.GRADER_VERSION) -> dict[VerdictKey, Verdict]:
    return {
        VerdictKey(key, grader, "strict", "number", "7"): Verdict(key.sample_index == n - 1, None, "correct")
        for key in keys
    }


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs" / STORE


@pytest.fixture
def other(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    return tmp_path / "other" / STORE


def execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


def content(path: Path) -> list[str]:
    """All of the store but who has it open."""
    database = sqlite3.connect(path)
    database.text_factory = bytes
    tables = ("campaign", "campaign_use", "sample", "verdict", "damaged")
    rows = [f"{table} {row}" for table in tables for row in database.execute(f"SELECT * FROM {table}")]
    database.close()
    return sorted(rows)


# ---- the list


def test_the_list(store: Path) -> None:
    use = Use("teacher", "starter:small", "gsm8k", "chat_cot", 2.0)
    campaign = fill(store, use=use)
    (row,) = sampling_runs.listing(store)
    assert row["first_used"] == row["last_used"] > 1_700_000_000
    low, high = row["pass_rate_ci95"]
    assert low < 0.25 < high
    assert {k: v for k, v in row.items() if k not in ("first_used", "last_used", "pass_rate_ci95")} == {
        "campaign": campaign,
        "role": "teacher",
        "model": "starter:small",
        "task": "gsm8k",
        "prompt": "chat_cot",
        "temperature": 0.7,
        "questions": 3,
        "samples": 12,
        "graded": 8,
        "pass_rate": 0.25,
        "coverage": 1.0,
        "num_tokens": 108,
        "num_tokens_cancelled": 7,
        "wall_seconds": 1800.0,
        "cost_usd": 1.0,
    }


def test_what_is_unknown_is_none_and_no_zero(store: Path) -> None:
    with SampleStore(store) as open_store:
        campaign = open_store.add_campaign({"file": "of another lab"})
        open_store.put_verdicts(campaign, verdicts([SampleKey("p/0", "h", 0)], 1, grader="an earlier one"))
    (row,) = sampling_runs.listing(store)
    unknown = {"role", "model", "task", "prompt", "temperature", "pass_rate", "pass_rate_ci95", "coverage"}
    unknown |= {"wall_seconds", "cost_usd", "first_used", "last_used"}
    assert {name for name, value in row.items() if value is None} == unknown
    assert (row["samples"], row["graded"], row["num_tokens"]) == (0, 0, 0)


def test_a_right_sample_of_another_mode_or_grader_does_not_count(store: Path) -> None:
    campaign = fill(store, graded=1)
    with SampleStore(store) as open_store:
        key = VerdictKey(SampleKey("p/1", "h", 0), answers.GRADER_VERSION, "flexible", "number", "7")
        right = Verdict(True, "7", "correct")
        open_store.put_verdicts(campaign, {key: right, key._replace(mode="strict", grader="0"): right})
    (row,) = sampling_runs.listing(store)
    assert (row["graded"], row["pass_rate"], row["coverage"]) == (4, 0.25, 1.0)


def test_teachers_first_then_the_latest(store: Path) -> None:
    hashes = {}
    for last_used, role in ((1001, "student"), (1000, "teacher"), (1002, "teacher"), (1003, "student")):
        hashes[last_used] = fill(store, str(last_used), use=Use(role, "m", "t", "p"))  # type: ignore[arg-type]
        execute(store, f"UPDATE campaign_use SET last_used = {last_used} WHERE campaign = '{hashes[last_used]}'")
    expected = [hashes[last_used] for last_used in (1002, 1000, 1003, 1001)]
    assert [row["campaign"] for row in sampling_runs.listing(store)] == expected


def test_the_table_on_stdout(store: Path) -> None:
    campaign = fill(store, use=Use("teacher", "starter/[red]small", "gsm8k", "chat_cot"))
    fill(store, "v", graded=0)
    done = fcot("samples", "--runs", store.parent)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert lines[0][-4:] == ["cancelled", "hours", "cost,", "USD"]
    of_campaign = next(line for line in lines if line[0] == campaign[:8])
    assert of_campaign[1:] == [
        *("teacher", "[red]small", "gsm8k", "chat_cot", "0.7", "3", "12", "25.0%", "100.0%", "108", "7", "0.50", "–")
    ]
    ungraded = next(line for line in lines[2:] if line[0] != campaign[:8])
    assert ungraded[1:] == ["–", "–", "–", "–", "0.7", "3", "12", "–", "–", "108", "7", "–", "–"]
    assert json.loads(fcot("samples", "--runs", store.parent, "--json").stdout) == sampling_runs.listing(store)


def test_a_store_that_a_run_is_writing_is_listed_and_exported_but_not_restored_into(
    store: Path, tmp_path: Path
) -> None:
    fill(store)
    samples.export(store, tmp_path / "x.jsonl")
    with SampleStore(store):
        assert fcot("samples", "--runs", store.parent).returncode == 0
        assert fcot("samples", "export", tmp_path / "x.jsonl", "--runs", store.parent).returncode == 0
        done = fcot("samples", "import", tmp_path / "x.jsonl", "--runs", store.parent)
    assert done.returncode == 4
    assert "the sample store is in use by process" in done.stderr


# ---- there and back


def there_and_back(store: Path, other: Path, suffix: str, campaigns: tuple[str, ...] = ()) -> None:
    first, second = store.parent / f"first.{suffix}", store.parent / f"second.{suffix}"
    samples.export(store, first, campaigns)
    samples.restore(first, other)
    samples.export(other, second, campaigns)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_export_restores_all_of_it(store: Path, other: Path, suffix: str) -> None:
    for weights in "wv":
        fill(store, weights, use=Use("teacher", "m", "t", "p", 1.5))
    there_and_back(store, other, suffix)
    assert content(other) == content(store)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_campaign_alone_into_a_store_that_has_others(store: Path, other: Path, suffix: str) -> None:
    wanted = fill(store)
    fill(store, "v")
    fill(other, "u", num_questions=2)
    before = content(other)
    there_and_back(store, other, suffix, (wanted[:6],))
    assert set(content(other)) - set(before) == {row for row in content(store) if wanted in row}
    assert set(before) <= set(content(other))


def test_both_formats_hold_the_same(store: Path, other: Path, tmp_path: Path) -> None:
    fill(store, use=Use("teacher", "m", "t", "p", 1.5))
    samples.export(store, tmp_path / "a.jsonl")
    samples.export(store, tmp_path / "a.parquet")
    samples.restore(tmp_path / "a.parquet", other)
    samples.export(other, tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(), st.none() | st.text()), min_size=1, max_size=4), st.sampled_from(FORMATS))
def test_any_text_goes_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str | None]], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("samples")
    with SampleStore(folder / STORE) as open_store:
        campaign = open_store.add_campaign({"weights": texts[0][0]})
        drawn = [replace(SAMPLE, sample_index=i, text=text, answer_text=a) for i, (text, a) in enumerate(texts)]
        open_store.put(campaign, [("h", sample) for sample in drawn], "e")
    there_and_back(folder / STORE, folder / "other.sqlite", suffix)


def test_a_store_without_a_sample(store: Path, other: Path) -> None:
    SampleStore(store).close()
    there_and_back(store, other, "jsonl")
    there_and_back(store, other, "parquet")
    assert sampling_runs.listing(other) == []


def test_importing_again_changes_nothing(store: Path, other: Path, tmp_path: Path) -> None:
    fill(store, use=Use("teacher", "m", "t", "p", 1.5))
    samples.export(store, tmp_path / "x.jsonl")
    counts = samples.restore(tmp_path / "x.jsonl", other)
    assert (counts["campaign"], counts["sample"], counts["verdict"], counts["kept"]) == (1, 12, 8, 0)
    before = content(other)
    counts = samples.restore(tmp_path / "x.jsonl", other)
    assert (counts["campaign"], counts["sample"], counts["verdict"], counts["kept"]) == (0, 0, 0, 21)
    assert content(other) == before


def test_what_two_stores_share_is_joined(store: Path, other: Path, tmp_path: Path) -> None:
    use = Use("teacher", "m", "t", "p", 1.0)
    fill(store, n=4, use=use)
    campaign = fill(other, n=2, graded=0, use=use)
    samples.export(store, tmp_path / "x.jsonl")
    counts = samples.restore(tmp_path / "x.jsonl", other)
    assert (counts["sample"], counts["verdict"]) == (6, 8)
    with SampleStore(other) as open_store:
        assert set(open_store.indices(campaign).values()) == {range(4)}
    (row,) = sampling_runs.listing(other)
    assert (row["wall_seconds"], row["cost_usd"], row["num_tokens_cancelled"]) == (1800.0, 0.5, 7)  # not twice


def test_a_damaged_sample_is_left_out_and_restored_where_it_was_damaged(store: Path, tmp_path: Path) -> None:
    fill(store)
    before = content(store)
    samples.export(store, tmp_path / "whole.jsonl")
    execute(store, "UPDATE sample SET text = 'x' WHERE problem_id = 'p/0' AND sample_index = 3")
    done = fcot("samples", "export", tmp_path / "rest.jsonl", "--runs", store.parent)
    assert done.stdout.endswith("1 sampling run, 11 samples, 7 verdicts\n")
    assert done.stderr == "fcot: damaged samples that were left out: 1\n"
    counts = samples.restore(tmp_path / "whole.jsonl", store)
    assert (counts["sample"], counts["verdict"], counts["kept"]) == (1, 1, 19)
    assert [row for row in content(store) if not row.startswith("damaged")] == before


@pytest.mark.parametrize("column", ["text", "reason", "correct", "seed", "num_tokens", "description", "wall_seconds"])
def test_damage_of_any_kind_is_no_traceback_and_never_exported(store: Path, tmp_path: Path, column: str) -> None:
    fill(store, use=Use("teacher", "m", "t", "p"))
    tables = {"reason": "verdict", "correct": "verdict", "description": "campaign", "wall_seconds": "campaign_use"}
    execute(store, f"UPDATE {tables.get(column, 'sample')} SET {column} = X'ff00'")
    if column == "description":
        with pytest.raises(DataError, match="its description in the store is damaged"):
            samples.export(store, tmp_path / "x.jsonl")
        return
    samples.export(store, tmp_path / "x.jsonl")
    assert b'\\u0000"' not in (tmp_path / "x.jsonl").read_bytes()
    samples.restore(tmp_path / "x.jsonl", tmp_path / "other.sqlite")


# ---- which campaigns


def test_a_campaign_that_is_not_there_or_not_the_only_one(store: Path, tmp_path: Path) -> None:
    hashes = [fill(store, str(i), num_questions=1, n=1, graded=0) for i in range(20)]
    first_letters = [campaign[0] for campaign in hashes]
    twice = next(letter for letter in first_letters if first_letters.count(letter) > 1)
    for start, message in (("zz", "is no sampling run in the store"), (twice, "begins the hashes of [2-9]")):
        with pytest.raises(DataError, match=message):
            samples.export(store, tmp_path / "x.jsonl", [start])
        assert not (tmp_path / "x.jsonl").exists()
    samples.export(store, tmp_path / "x.jsonl", [hashes[3], hashes[3][:9], hashes[5]])
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [row["campaign"] for row in lines if row["kind"] == "campaign"] == sorted([hashes[3], hashes[5]])


# ---- what is no export


def exported(store: Path, suffix: str = "jsonl") -> Path:
    fill(store, use=Use("teacher", "m", "t", "p", 1.5))
    samples.export(store, store.parent / f"x.{suffix}")
    return store.parent / f"x.{suffix}"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_anywhere_is_refused_and_nothing_is_imported(store: Path, other: Path, suffix: str) -> None:
    file = exported(store, suffix)
    fill(other, "u")
    before, whole = content(other), file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")][:-1]
    cuts = {0, 1, len(whole) // 2, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 20), *ends[:30]}
    cuts -= {len(whole) - 1} if suffix == "jsonl" else set()  # the last line's end alone: nothing lacks
    for length in sorted(cuts):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"x\.{suffix}.*(cut short|not a whole|copy the file again|no export)"):
            samples.restore(file, other)
        assert content(other) == before, length


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_flipped_bit_is_refused_or_makes_no_difference(store: Path, tmp_path: Path, suffix: str) -> None:
    file = exported(store, suffix)
    whole = file.read_bytes()
    rng = random.Random(1)
    refusals = []
    for i in range(60):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(flipped)
        other = tmp_path / f"{i}.sqlite"
        try:
            samples.restore(file, other)
        except DataError as fault:
            refusals.append(str(fault))
            continue
        assert content(other) == content(store)
    assert len(refusals) > 20
    assert all(f"x.{suffix}" in refusal for refusal in refusals)


def rewritten(file: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """The export with changed rows and the hash that belongs to them."""
    rows = [json.loads(line) for line in file.read_text().splitlines()][:-1]
    change(rows)
    lines = [json.dumps(row) + "\n" for row in rows]
    end = {"kind": "end", "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}
    file.write_text("".join(lines) + json.dumps(end) + "\n")


def only(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(row for row in rows if row["kind"] == kind)


CHANGES: dict[str, tuple[Callable[[list[dict[str, Any]]], object], str]] = {
    "another version": (lambda rows: rows[0].update(version=2), "format 2 is of another version"),
    "no format": (lambda rows: rows.pop(0), "is no export of fcot samples; .*teacher.file"),
    "format twice": (lambda rows: rows.insert(1, rows[0]), "row 2: .*out of order"),
    "a campaign after its samples": (lambda rows: rows.append(rows.pop(1)), "row 2: belongs to no campaign"),
    "a sample after the verdicts": (lambda rows: rows.append(only(rows, "sample")), "out of order"),
    "another text": (lambda rows: only(rows, "sample").update(text="x"), "row 4: the checksum is not this sample's"),
    "another index": (lambda rows: only(rows, "sample").update(sample_index=99), "the checksum is not"),
    "another description": (lambda rows: rows[1].update(description="{}"), "row 2: the description is not that"),
    "a description that is no JSON": (lambda rows: rows[1].update(description="{"), "row 2: the description is not"),
    "a column lacks": (lambda rows: only(rows, "sample").pop("seed"), "row 4: a column lacks"),
    "a column too many": (lambda rows: only(rows, "sample").update(more=1), "row 4: a column lacks or is of another"),
    "a number that is none": (lambda rows: only(rows, "sample").update(seed="1"), "row 4: a column lacks"),
    "a truth value that is a number": (lambda rows: only(rows, "verdict").update(correct=1), "a column lacks"),
    "a number that is a truth value": (lambda rows: rows[1].update(num_tokens_cancelled=True), "row 2: a column lacks"),
    "a number beyond SQLite's": (lambda rows: rows[1].update(num_tokens_cancelled=2**63), "row 2: a column lacks"),
    "NaN": (lambda rows: only(rows, "use").update(wall_seconds=float("nan")), "row 3: a column lacks"),
    "infinity": (lambda rows: only(rows, "use").update(cost_usd=float("inf")), "row 3: a column lacks"),
    "an unknown kind": (lambda rows: rows[3].update(kind="drop"), "row 4: a column lacks"),
    "no object": (lambda rows: rows.__setitem__(3, [1]), "row 4: a column lacks"),  # type: ignore[call-overload]
    "half a character": (lambda rows: only(rows, "verdict").update(reason="\ud800"), "half a character"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_edited_file_is_refused_and_nothing_is_imported(store: Path, other: Path, name: str) -> None:
    change, message = CHANGES[name]
    file = exported(store)
    rewritten(file, lambda rows: None)
    samples.restore(file, other.with_name("unchanged.sqlite"))
    rewritten(file, change)
    fill(other, "u")
    before = content(other)
    with pytest.raises(DataError, match=rf"x\.jsonl: .*{message}"):
        samples.restore(file, other)
    assert content(other) == before


def test_what_follows_the_end_is_refused(store: Path, other: Path) -> None:
    file = exported(store)
    whole = file.read_bytes()
    for more in (whole, whole.splitlines(keepends=True)[-1], b"\n"):
        file.write_bytes(whole + more)
        with pytest.raises(DataError):
            samples.restore(file, other)


def test_files_of_other_kinds(store: Path, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"question": "1 + 1", "rationale": "2"}\n')
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "\n")
    (tmp_path / "none.parquet").write_text("PAR1 but no more")
    (tmp_path / "folder.jsonl").mkdir()
    parquet.write_table(pa.table({"question": ["1 + 1"]}), tmp_path / "other.parquet")
    parquet.write_table(pa.table({"kind": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    names = [
        "other.jsonl",
        "empty.jsonl",
        "binary.jsonl",
        "deep.jsonl",
        "none.parquet",
        "folder.jsonl",
        "missing.jsonl",
    ]
    for name in [*names, "other.parquet", "empty.parquet", "missing.parquet"]:
        done = fcot("samples", "import", tmp_path / name, "--runs", store.parent)
        assert (done.returncode, done.stdout) == (3, ""), name
        assert done.stderr.startswith(f"fcot: {tmp_path / name}"), name
        assert done.stderr.count("\n") == 1, done.stderr
        assert list(store.parent.iterdir()) == [], "no store is made for a file that is none of ours"
    for done in (fcot("samples", "import", "x.csv"), fcot("samples", "export", "x", "--runs", tmp_path)):
        assert done.returncode == 2
        assert "name a file that ends in .jsonl or .parquet" in done.stderr


def test_parquet_without_pyarrow_names_the_other_format(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ResourceError, match=r"needs pyarrow, .*\.jsonl"):
        samples.export(store, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_no_store_is_a_message(tmp_path: Path) -> None:
    for arguments in ([], ["export", tmp_path / "x.jsonl"]):
        done = fcot("samples", *arguments, "--runs", tmp_path)
        assert done.returncode == 3
        assert f"{tmp_path / STORE}: no such sample store" in done.stderr
    assert list(tmp_path.iterdir()) == []


# ---- conflicts


def test_conflicts_are_named_and_nothing_is_imported(store: Path, other: Path, tmp_path: Path) -> None:
    campaign = fill(store)
    samples.export(store, tmp_path / "x.jsonl")
    fill(other, num_questions=2)
    with SampleStore(other) as open_store:
        open_store.put(campaign, [("h", replace(SAMPLE, problem_id="p/2", sample_index=3, text="other"))], "vllm 1")
    before = content(other)
    done = fcot("samples", "import", tmp_path / "x.jsonl", "--runs", other.parent)
    assert done.returncode == 3
    assert "1 of its samples and verdicts are others than those in" in done.stderr
    assert f"such as {campaign} p/2 h 3 (" in done.stderr
    assert content(other) == before
    assert done.stdout == ""


def test_a_verdict_of_the_same_grader_that_differs_is_a_conflict(store: Path, other: Path, tmp_path: Path) -> None:
    fill(store)
    samples.export(store, tmp_path / "x.jsonl")
    samples.restore(tmp_path / "x.jsonl", other)
    execute(other, "UPDATE verdict SET correct = 1 - correct")
    with pytest.raises(DataError, match="8 of its samples and verdicts are others") as fault:
        samples.restore(tmp_path / "x.jsonl", other)
    assert str(fault.value).count("; ") == samples.SHOWN  # the first of them, and what was not done


# ---- memory, disk, kills


@pytest.mark.parametrize("suffix", FORMATS)
def test_memory_does_not_grow_with_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(samples, "ROW_GROUP", 200)

    def peak_bytes(num_questions: int) -> list[int]:
        path, out = tmp_path / f"{num_questions}.sqlite", tmp_path / f"{num_questions}.{suffix}"
        fill(path, num_questions=num_questions, n=4, graded=num_questions)
        peaks = []
        for step in (lambda: samples.export(path, out), lambda: samples.restore(out, tmp_path / f"of {path.name}")):
            tracemalloc.start()
            step()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        return peaks

    peak_bytes(20)  # what is imported and cached once
    for small, large in zip(peak_bytes(100), peak_bytes(800), strict=True):
        assert large < 2.5 * small + 100_000  # eight times the rows; what Arrow leaves to the garbage collector varies


LIMITED = """
import resource, sys
from pathlib import Path
from fcot_lite import samples
from fcot_lite.cli import _guarded
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
what, first, second = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
_guarded(lambda: samples.export(first, second) if what == "export" else samples.restore(first, second))
"""


def limited(what: str, first: Path, second: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, what, str(first), str(second)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_keeps_the_old_export(store: Path, tmp_path: Path, suffix: str) -> None:
    with SampleStore(store) as open_store:
        campaign = open_store.add_campaign({"weights": "w"})
        rng = random.Random(0)  # what zstd can't make smaller
        drawn = [replace(SAMPLE, sample_index=i, text=rng.randbytes(1000).hex()) for i in range(500)]
        open_store.put(campaign, [("h", sample) for sample in drawn], "e")
    out = tmp_path / "out" / f"x.{suffix}"
    out.parent.mkdir()
    out.write_text("the old one")
    done = limited("export", store, out)
    assert done.returncode == 4, done.stderr
    assert f"{out}: the disk is full" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [(file.name, file.read_text()) for file in out.parent.iterdir()] == [(out.name, "the old one")]


def test_a_full_disk_imports_nothing(store: Path, other: Path, tmp_path: Path) -> None:
    fill(store, num_questions=600, n=4)
    samples.export(store, tmp_path / "x.jsonl")
    fill(other, "u")
    before = content(other)
    done = limited("import", tmp_path / "x.jsonl", other)
    assert done.returncode == 4, done.stderr
    assert "the disk is full" in done.stderr
    assert content(other) == before
    samples.restore(tmp_path / "x.jsonl", other)
    assert set(content(store)) | set(before) == set(content(other))


@pytest.mark.real
def test_kill_9_in_an_import_imports_nothing(store: Path, other: Path, tmp_path: Path) -> None:
    fill(store, num_questions=300)
    samples.export(store, tmp_path / "x.jsonl")
    fill(other, "u")
    before = content(other)
    program = (
        "import sys, os; from pathlib import Path; from fcot_lite import samples\n"
        "put, count = samples._put, 0\n"
        "def die(*a):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == int(sys.argv[3]): os.kill(os.getpid(), 9)\n"
        "    return put(*a)\n"
        "samples._put = die\n"
        "samples.restore(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    for at in (1, 3, 700, 1208):
        command = [sys.executable, "-c", program, str(tmp_path / "x.jsonl"), str(other), str(at)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert content(other) == before
    samples.restore(tmp_path / "x.jsonl", other)
    assert set(content(store)) | set(before) == set(content(other))


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("suffix", FORMATS)
def test_ctrl_c_in_an_export_or_an_import_leaves_all_as_it_was(
    store: Path, other: Path, tmp_path: Path, suffix: str, number: int
) -> None:
    fill(store)
    fill(other, "u")
    before, out = content(other), tmp_path / f"x.{suffix}"
    samples.export(store, out)
    whole = out.read_bytes()
    stops = (  # itself, at the third row
        "import os, sys\nfrom fcot_lite import cli, samples\n"
        "checked, count = samples.Row.line, 0\n"
        "def line(row):\n"
        "    global count\n"
        "    count += 1\n"
        f"    if count == 3: os.kill(os.getpid(), {int(number)})\n"
        "    return checked(row)\n"
        "samples.Row.line = line\ncli.main()\n"
    )
    for what, folder in (("export", store.parent), ("import", other.parent)):
        command = [sys.executable, "-c", stops, "samples", what, str(out), "--runs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == INTERRUPTED, done.stderr
        assert done.stderr == "fcot: interrupted; run the same command again to go on\n"
    assert out.read_bytes() == whole
    assert not list(tmp_path.glob(".*tmp"))
    assert content(other) == before
    samples.restore(out, other)
