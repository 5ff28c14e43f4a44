"""The sample store: what was committed survives any death, what was damaged is drawn again, one process writes."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite import files
from fcot_lite.errors import DataError, ResourceError
from fcot_lite.records import Sample
from fcot_lite.store import SCHEMA_VERSION, SampleKey, SampleStore, derive_seed

ENGINE = "fake 1.0"
SAMPLE = Sample("p/0", 0, "1 + 1 = 2. The answer is 2.", None, "stop", 5, 9, 123)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.sqlite"


def stored(path: Path, *samples: Sample) -> str:
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": "w"})
        store.put(campaign, [("h", sample) for sample in samples], ENGINE)
    return campaign


def read(path: Path, campaign: str) -> dict[SampleKey, Sample]:
    with SampleStore(path) as store:
        return store.read(campaign)


def execute(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Behind the store's back."""
    database = sqlite3.connect(path)
    database.text_factory = bytes
    with database:
        rows = database.execute(statement, values).fetchall()
    database.close()
    return rows


def test_a_store_that_another_process_has_is_waited_for(tmp_path: Path) -> None:
    holder = files.lock(tmp_path / "s.lock", "the sample store")
    said: list[str] = []

    def waiting(who: str) -> None:
        said.append(who)
        if len(said) == 2:
            os.close(holder)

    with SampleStore(tmp_path / "s", waiting=waiting):
        assert [f"the sample store is in use by process {os.getpid()} " in who for who in said] == [True, True]


@pytest.mark.real
def test_kill_9_in_the_middle_of_put(path: Path) -> None:
    child_program = f"""
import itertools, sys
from pathlib import Path
from fcot_lite.records import Sample
from fcot_lite.store import SampleStore
with SampleStore(Path({str(path)!r})) as store:
    campaign = store.add_campaign({{"weights": "w"}})
    first = len(store.read(campaign))
    print(campaign, flush=True)
    for start in itertools.count(first, 5):
        samples = [Sample("p", i, "x" * 3000, None, "stop", 1, 1, i) for i in range(start, start + 5)]
        store.put(campaign, [("h", s) for s in samples], "e")
        print(start + 5, flush=True)
"""
    rng = random.Random(0)
    committed = 0
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", child_program], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        campaign = child.stdout.readline().strip()
        time.sleep(rng.uniform(0.0, 0.15))
        child.kill()
        lines = child.communicate()[0].splitlines(keepends=True)
        whole = [int(line) for line in lines if line.endswith("\n")]
        committed = max([committed, *whole])
        indices = [key.sample_index for key in read(path, campaign)]
        # A batch whose commit was never announced may be there as well, but whole.
        assert sorted(indices) == list(range(len(indices)))
        assert len(indices) % 5 == 0
        assert len(indices) >= committed
        assert execute(path, "PRAGMA integrity_check") == [(b"ok",)]
        committed = len(indices)
    assert committed > 20


@pytest.mark.parametrize("column", ["text", "finish_reason", "num_tokens", "seed", "engine", "checksum", "answer_text"])
@pytest.mark.parametrize("value", ["flipped", "X'ff00'", "CAST(X'6fff6f' AS TEXT)", "7"])
def test_a_damaged_row_is_set_aside_and_counts_as_missing(path: Path, column: str, value: str) -> None:
    other = replace(SAMPLE, sample_index=1)
    campaign = stored(path, SAMPLE, other)
    damaged = value if value != "flipped" else "'flipped'"
    execute(path, f"UPDATE sample SET {column} = {damaged} WHERE sample_index = 0")
    assert read(path, campaign) == {SampleKey("p/0", "h", 1): other}
    assert execute(path, "SELECT problem_id, sample_index FROM damaged") == [(b"p/0", 0)]
    assert stored(path, SAMPLE) == campaign
    assert read(path, campaign) == {SampleKey("p/0", "h", 0): SAMPLE, SampleKey("p/0", "h", 1): other}


def test_a_flipped_bit_in_the_file_never_gives_a_changed_sample(path: Path) -> None:
    samples = [replace(SAMPLE, sample_index=i, text=f"rationale {i} " * 20) for i in range(40)]
    campaign = stored(path, *samples)
    whole = path.read_bytes()
    rng = random.Random(1)
    outcomes, refusals = set(), []
    for _ in range(60):
        position, bit = rng.randrange(len(whole)), rng.randrange(8)
        flipped = bytearray(whole)
        flipped[position] ^= 1 << bit
        path.write_bytes(flipped)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        try:
            found = read(path, campaign)
        except (DataError, ResourceError) as error:
            refusals.append(str(error))
            continue
        assert set(found.values()) <= set(samples)
        outcomes.add("whole" if len(found) == len(samples) else "set aside")
    assert outcomes == {"whole", "set aside"}
    assert all(str(path) in refusal for refusal in refusals)


@pytest.mark.parametrize("length", [0, 1, 99, 4096])
def test_a_file_that_was_cut_short(path: Path, length: int) -> None:
    campaign = stored(path, SAMPLE)
    os.truncate(path, length)
    if length < 2:  # what a crash just after creation leaves behind; SQLite takes it for a new database
        assert read(path, campaign) == {}
        return
    with pytest.raises(DataError, match=r"samples\.sqlite: .*(move it away|restore)"):
        read(path, campaign)


def test_a_file_that_is_something_else(path: Path) -> None:
    path.write_bytes(b"problem_id,text\n" * 1000)
    for _ in range(2):  # the first refusal let go of the lock
        with pytest.raises(DataError, match=r"samples\.sqlite: file is not a database; .*move it away"):
            SampleStore(path)
    assert path.read_bytes() == b"problem_id,text\n" * 1000


def test_a_store_of_a_newer_version_is_left_as_it_is(path: Path) -> None:
    execute(path, "CREATE TABLE of_tomorrow (x)")
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for _ in range(2):
        with pytest.raises(DataError, match=rf"another version of fcot-lite \(schema {SCHEMA_VERSION + 1}\)"):
            SampleStore(path)
    assert execute(path, "SELECT name FROM sqlite_master") == [(b"of_tomorrow",)]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (Path("/proc/fcot"), tmp_path / "file"):  # not even root can write there
        with pytest.raises(ResourceError, match=r"make the folder writable|is a file, not a folder"):
            SampleStore(folder / "samples.sqlite")
    (tmp_path / "samples.sqlite").mkdir()
    with pytest.raises(ResourceError, match="unable to open database file"):
        SampleStore(tmp_path / "samples.sqlite")


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    """No test can cut the power, so this one asks SQLite whether it waits (2 is FULL)."""
    with SampleStore(path) as store:
        assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_full_disk_keeps_what_is_committed(path: Path) -> None:
    child = f"""
import resource
from pathlib import Path
from fcot_lite.errors import ResourceError
from fcot_lite.records import Sample
from fcot_lite.store import SampleStore
with SampleStore(Path({str(path)!r})) as store:
    campaign = store.add_campaign({{"weights": "w"}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    for i in range(1000):
        try:
            store.put(campaign, [("h", Sample("p", i, "x" * 3000, None, "stop", 1, 1, i))], "e")
        except ResourceError as error:
            print(campaign, i, error)
            break
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    campaign, count, message = done.stdout.split(maxsplit=2)
    assert "free disk space" in message
    assert int(count) > 5
    assert sorted(key.sample_index for key in read(path, campaign)) == list(range(int(count)))
    assert stored(path, SAMPLE) == campaign


def test_a_second_process_is_refused_at_once_and_told_by_whom(path: Path) -> None:
    program = f"from pathlib import Path; from fcot_lite.store import SampleStore; SampleStore(Path({str(path)!r}))"
    started = time.monotonic()
    with SampleStore(path):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"the sample store is in use by process {os.getpid()} " in done.stderr
    assert time.monotonic() - started < 5
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_interrupt_inside_a_transaction_leaves_the_store_usable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": "w"})

        def begin_and_be_interrupted() -> None:
            with store.transaction():
                store._database.execute("UPDATE campaign SET num_tokens_cancelled = 99")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            begin_and_be_interrupted()
        assert store.num_tokens_cancelled(campaign) == 0
        store.add_cancelled(campaign, 3)
        store.add_cancelled(campaign, 4)
        assert store.num_tokens_cancelled(campaign) == 7
        assert store.num_tokens_cancelled("unknown") == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(st.characters()), st.none() | st.text(st.characters())), max_size=5))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str | None]]) -> None:
    samples = [replace(SAMPLE, sample_index=i, text=text, answer_text=a) for i, (text, a) in enumerate(texts)]
    path = tmp_path_factory.mktemp("store") / "samples.sqlite"
    campaign = stored(path, *samples)

    def replaced(text: str | None) -> str | None:
        return text and "".join("?" if 0xD800 <= ord(c) < 0xE000 else c for c in text)

    assert list(read(path, campaign).values()) == [
        replace(s, text=replaced(s.text) or "", answer_text=replaced(s.answer_text)) for s in samples
    ]


def test_nul_line_separators_and_lone_surrogates(path: Path) -> None:
    text = "a\x00b\u2028c\u2029d\x85e\U0001f600"
    campaign = stored(path, replace(SAMPLE, text=text), replace(SAMPLE, sample_index=1, text="\ud800x"))
    assert [sample.text for sample in read(path, campaign).values()] == [text, "?x"]


def test_putting_twice_keeps_the_first(path: Path) -> None:
    campaign = stored(path, SAMPLE, SAMPLE)
    stored(path, replace(SAMPLE, text="another"))
    assert list(read(path, campaign).values()) == [SAMPLE]


def test_whatever_shapes_the_text_makes_another_campaign(path: Path) -> None:
    description = {"weights": "w", "adapter": None, "prompt": {"template": "{question}"}, "sampling": {"seed": 0}}
    with SampleStore(path) as store:
        one = store.add_campaign(description)
        assert one == store.add_campaign(dict(reversed(description.items())))
        others = {
            store.add_campaign({**description, key: changed})
            for key, changed in [
                ("weights", "v"),
                ("adapter", "a"),
                ("prompt", {"template": "{question}?"}),
                ("sampling", {"seed": 1}),
            ]
        }
        store.put(one, [("h", SAMPLE)], ENGINE)
        assert len(others | {one}) == 5
        assert all(store.read(other) == {} for other in others)


def test_seeds_are_of_31_bits_and_neighbours_share_nothing() -> None:
    keys = [SampleKey(f"p/{p}", "h", i) for p in range(40) for i in range(40)]
    seeds = {campaign: [derive_seed(campaign, key) for key in keys] for campaign in ("a", "b")}
    assert all(0 <= seed < 2**31 for row in seeds.values() for seed in row)
    assert max(seeds["a"]) > 2**30
    assert len({*seeds["a"], *seeds["b"]}) == 3200
    differences = {b - a for a, b in zip(seeds["a"], seeds["a"][1:], strict=False)}
    assert len(differences) > 1500  # no seed + i
    assert derive_seed("a", SampleKey("p", "h", 1)) == derive_seed("a", SampleKey("p", "h", 1))


def test_parts_of_a_key_cannot_run_into_each_other() -> None:
    assert derive_seed("a", SampleKey("p1", "h", 1)) != derive_seed("a", SampleKey("p", "1h", 1))
