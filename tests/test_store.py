"""The sample store: what was committed survives any death, what was damaged is drawn again, one process writes."""

import os
import random
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite import files
from fcot_lite.errors import DataError, ResourceError
from fcot_lite.records import Sample, Verdict
from fcot_lite.store import SCHEMA_VERSION, SampleKey, SampleStore, Use, VerdictKey, derive_seed, snapshot

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


def opened(path: Path, content: bytes, log: bytes = b"") -> dict[SampleKey, Sample] | str:
    """All that a store of these bytes gives, or what it says in place of it; never any other exception."""
    path.write_bytes(content)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    path.with_name(path.name + "-wal").unlink(missing_ok=True)
    if log:
        path.with_name(path.name + "-wal").write_bytes(log)
    try:
        with SampleStore(path) as store:
            campaign = store.add_campaign({"weights": "w"})
            store.other_campaigns("none", "p/0")
            return store.read(campaign)
    except (DataError, ResourceError) as error:
        return str(error)


PAGE = 4096  # SQLite's own


@pytest.fixture
def sixty(path: Path) -> list[Sample]:
    samples = [replace(SAMPLE, sample_index=i, text=f"rationale {i} " * 30) for i in range(60)]
    stored(path, *samples)
    return samples


def test_every_page_may_be_damaged(path: Path, sixty: list[Sample]) -> None:
    whole, rng, seen = path.read_bytes(), random.Random(2), set()
    for page in range(0, len(whole), PAGE):
        for damage in (bytes(PAGE), rng.randbytes(PAGE), whole[page : page + 100] + bytes(PAGE - 100)):
            found = opened(path, whole[:page] + damage + whole[page + PAGE :])
            if not isinstance(found, str):
                assert set(found.values()) <= set(sixty)
            else:
                assert str(path) in found
            seen.add(isinstance(found, str))
    assert seen == {True, False}, "some damage is told, some costs samples alone"


@pytest.mark.parametrize("zeros", [False, True], ids=["cut", "zero-filled"])
def test_a_tail_that_is_gone(path: Path, sixty: list[Sample], zeros: bool) -> None:
    whole = path.read_bytes()
    assert len(whole) > 8 * PAGE
    for length in [*range(PAGE, len(whole), PAGE), len(whole) - 1, len(whole) - PAGE // 2]:
        found = opened(path, whole[:length] + bytes(len(whole) - length) * zeros)
        if not isinstance(found, str):
            assert set(found.values()) <= set(sixty)
        else:
            assert str(path) in found
            assert "damaged" in found or "is full or fails" in found


def test_the_log_of_a_crash_gives_what_was_committed(path: Path) -> None:
    """The file and its write-ahead log as a power cut leaves them: cut at any byte, zero-filled behind it, flipped."""
    samples = [replace(SAMPLE, sample_index=i, text=f"rationale {i} " * 9) for i in range(12)]
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": "w"})
        for sample in samples:
            store.put(campaign, [("h", sample)], ENGINE)
        file, log = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    crashed = path.with_name("crashed")
    rng, counts = random.Random(3), []
    for at in sorted(rng.sample(range(len(log)), 40)):
        flipped = bytearray(log)
        flipped[at] ^= 1 << rng.randrange(8)
        kept = []
        for damaged in (log[:at], log[:at] + bytes(len(log) - at), bytes(flipped)):
            found = opened(crashed, file, damaged)
            assert not isinstance(found, str), found
            # A prefix: what was committed before the damage, nothing behind it, nothing changed.
            assert list(found.values()) == samples[: len(found)]
            kept.append(len(found))
        assert len(set(kept)) == 1
        counts.append(kept[0])
    assert counts == sorted(counts)
    assert len(set(counts)) > 6
    assert opened(crashed, file, log) == {SampleKey("p/0", "h", s.sample_index): s for s in samples}


class Broken:
    """A database whose disk fails as soon as `failing` is set; remembers what was asked of it since."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database, self.failing, self.asked = database, False, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if self.failing:
            self.asked.append(statement)
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
        return self.database.execute(statement, *values)


def test_after_a_failed_fsync_nothing_is_written_again(path: Path) -> None:
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": "w"})
        store.put(campaign, [("h", SAMPLE)], ENGINE)
        broken = Broken(store._database)
        store._database = broken  # type: ignore[assignment]
        broken.failing = True
        with pytest.raises(ResourceError, match="disk I/O error"):
            store.put(campaign, [("h", replace(SAMPLE, sample_index=1))], ENGINE)
        assert broken.asked.count("COMMIT") == 1
        with pytest.raises(ResourceError, match="disk I/O error"):
            store.add_cancelled(campaign, 3)
        assert broken.asked.count("COMMIT") == 1, "a second one could say that all is well"
        assert store.samples(campaign, "p/0", "h") == [SAMPLE], "reading goes on"
    said: list[str] = []
    with SampleStore(path, waiting=said.append) as store:
        assert store.samples(campaign, "p/0", "h") == [SAMPLE]
    assert "being checked" in said[0], "the next one looks at every page"


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
    assert "the disk is full" in message
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


# ---- what is there, by index and by question


def put_indices(path: Path, *questions: tuple[str, str, list[int]]) -> str:
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": "w"})
        for problem_id, prompt, there in questions:
            samples = [replace(SAMPLE, problem_id=problem_id, sample_index=index) for index in there]
            store.put(campaign, [(prompt, sample) for sample in samples], ENGINE)
    return campaign


def test_the_indices_that_are_there(path: Path) -> None:
    campaign = put_indices(path, ("p", "h", [0, 1, 2]), ("p", "other", [1]), ("q", "h", [4, 0, 2]), ("r", "h", [7, 8]))
    with SampleStore(path) as store:
        elsewhere = store.add_campaign({"weights": "v"})
        store.put(elsewhere, [("h", SAMPLE)], ENGINE)
        there = store.indices(campaign)
        assert there == {
            ("p", "h"): range(3),
            ("p", "other"): range(1, 2),
            ("q", "h"): [0, 2, 4],
            ("r", "h"): range(7, 9),
        }
        assert store.indices(elsewhere) == {("p/0", "h"): range(1)}
        assert store.indices("unknown") == {}


def test_samples_of_one_question_below_n_in_order(path: Path) -> None:
    campaign = put_indices(path, ("p", "h", [3, 0, 2]), ("p", "other", [1]), ("q", "h", [0]))
    with SampleStore(path) as store:

        def indices(n: int | None) -> list[int]:
            samples = store.samples(campaign, "p", "h", n)
            assert all(sample.problem_id == "p" for sample in samples)
            return [sample.sample_index for sample in samples]

        assert [indices(n) for n in (None, 4, 3, 1, 0)] == [[0, 2, 3], [0, 2, 3], [0, 2], [0], []]
        assert store.samples(campaign, "p", "unknown") == []


def test_a_damaged_sample_is_missing_from_its_question_alone(path: Path) -> None:
    campaign = put_indices(path, ("p", "h", [0, 1, 2]), ("q", "h", [0, 1, 2]))
    verdict = Verdict(True, "2", "correct")
    keys = {p: [VerdictKey(SampleKey(p, "h", i), "g", "strict", "number", "2") for i in range(3)] for p in "pq"}
    with SampleStore(path) as store:
        store.put_verdicts(campaign, {key: verdict for of_problem in keys.values() for key in of_problem})
    execute(path, "UPDATE sample SET text = 'x' WHERE sample_index = 1")
    with SampleStore(path) as store:
        # What lies beyond n is not even read.
        assert len(store.samples(campaign, "p", "h", 1)) == 1
        assert execute(path, "SELECT count(*) FROM damaged") == [(0,)]
        assert [sample.sample_index for sample in store.samples(campaign, "p", "h")] == [0, 2]
        assert execute(path, "SELECT problem_id, sample_index FROM damaged") == [(b"p", 1)]
        assert store.indices(campaign) == {("p", "h"): [0, 2], ("q", "h"): range(3)}
        assert list(store.verdicts(campaign, "p", "h", "strict")) == [keys["p"][0], keys["p"][2]]
        assert list(store.verdicts(campaign, "q", "h", "strict")) == keys["q"]
        store.put(campaign, [("h", replace(SAMPLE, problem_id="p", sample_index=1))], ENGINE)
        assert store.indices(campaign)["p", "h"] == range(3)


def test_verdicts_of_one_question_and_one_mode(path: Path) -> None:
    campaign = put_indices(path, ("p", "h", [0]))
    key = VerdictKey(SampleKey("p", "h", 0), "1", "strict", "number", "2")
    others = [
        key._replace(sample=SampleKey("q", "h", 0)),
        key._replace(sample=SampleKey("p", "other", 0)),
        key._replace(mode="paper"),
    ]
    of_question = {
        key: Verdict(True, "2", "correct"),
        key._replace(grader="0"): Verdict(False, None, "no answer"),
        key._replace(target="3"): Verdict(False, "2", "wrong"),
    }
    with SampleStore(path) as store:
        store.put_verdicts(campaign, of_question | dict.fromkeys(others, Verdict(True, "2", "correct")))
        assert store.verdicts(campaign, "p", "h", "strict") == of_question
        assert store.verdicts("unknown", "p", "h", "strict") == {}


def steps(store: SampleStore, action: Callable[[], object]) -> int:
    """How many instructions SQLite's virtual machine runs for the action, in tens: no clock, so no noise."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    store._database.set_progress_handler(tick, 10)
    action()
    store._database.set_progress_handler(None, 0)
    return count


def test_work_grows_with_what_is_asked_and_not_with_the_store(path: Path) -> None:
    sizes: dict[str, list[int]] = {"indices": [], "samples": [], "verdicts": [], "put": []}
    verdict = Verdict(True, "2", "correct")
    for questions in (200, 800):
        with SampleStore(path.with_name(f"{questions}.sqlite")) as store:
            campaign = store.add_campaign({"weights": "w"})
            keys = [SampleKey(f"p{q:04}", "h", i) for q in range(questions) for i in range(4)]
            samples = [replace(SAMPLE, problem_id=k.problem_id, sample_index=k.sample_index) for k in keys]
            store.put(campaign, [("h", sample) for sample in samples], ENGINE)
            store.put_verdicts(campaign, {VerdictKey(key, "g", "strict", "number", "2"): verdict for key in keys})
            sizes["indices"].append(steps(store, lambda: store.indices(campaign)))  # noqa: B023 - called at once
            sizes["samples"].append(steps(store, lambda: store.samples(campaign, "p0100", "h")))  # noqa: B023
            sizes["verdicts"].append(steps(store, lambda: store.verdicts(campaign, "p0100", "h", "strict")))  # noqa: B023
            sizes["put"].append(steps(store, lambda: store.put(campaign, [("new", SAMPLE)], ENGINE)))  # noqa: B023
    assert sizes["indices"][1] < 5 * sizes["indices"][0]
    for asked in ("samples", "verdicts", "put"):
        small, large = sizes[asked]
        assert large <= 1.5 * small + 5, asked


def test_what_is_there_is_told_without_a_text(path: Path) -> None:
    """Where the texts are gone from the table, the index still tells: it is all that is read."""
    campaign = put_indices(path, ("p", "h", [0, 1, 2]))
    asked: list[str] = []
    with SampleStore(path) as store:
        store._database.set_trace_callback(asked.append)
        store.indices(campaign)
        (query,) = asked
        ((*_, plan),) = store._database.execute(f"EXPLAIN QUERY PLAN {query}")
    assert "USING COVERING INDEX sample_key (campaign=?)" in plan


def test_memory_does_not_grow_with_the_samples(path: Path) -> None:
    def peak_bytes(n: int) -> int:
        file = path.with_name(f"{n}.sqlite")
        campaign = put_indices(file, *((f"p{q}", "h", list(range(n))) for q in range(50)))
        with SampleStore(file) as store:
            tracemalloc.start()
            for problem_id, prompt in store.indices(campaign):
                store.samples(campaign, problem_id, prompt, 8)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return peak

    peak_bytes(8)  # what is cached once
    assert peak_bytes(64) < 1.2 * peak_bytes(8) + 10_000


# ---- an unclean close

DIES_OPEN = """
import os, sys
from pathlib import Path
from fcot_lite.store import SampleStore
store = SampleStore(Path(sys.argv[1]))
store.add_campaign({"weights": "of the one that died"})
os._exit(9)
"""


def die_open(path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DIES_OPEN, str(path)], check=False).returncode == 9


def test_whoever_waits_for_a_check_is_told(path: Path) -> None:
    die_open(path)
    said: list[str] = []
    SampleStore(path, waiting=said.append).close()
    SampleStore(path, waiting=said.append).close()
    (line,) = said
    assert line.startswith("the sample store is being checked, because process ")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that a store runs while it opens."""
    asked: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database = connect(*arguments, **options)
        database.set_trace_callback(asked.append)
        return database

    monkeypatch.setattr(sqlite3, "connect", traced)
    return asked


def test_the_file_is_checked_after_an_unclean_close_only(path: Path, checks: list[str]) -> None:
    campaign = stored(path, SAMPLE)
    for die, expected in ((False, 0), (True, 1), (False, 0)):
        if die:
            die_open(path)
        checks.clear()
        assert len(read(path, campaign)) == 1
        assert sum("quick_check" in statement for statement in checks) == expected


def test_closing_leaves_one_file_and_no_mark(path: Path) -> None:
    campaign = stored(path, SAMPLE)
    assert sorted(file.name for file in path.parent.iterdir()) == ["samples.sqlite", "samples.sqlite.lock"]
    assert execute(path, "SELECT * FROM opened") == []
    with SampleStore(path) as store:
        ((by,),) = execute(path, "SELECT by FROM opened")
        assert isinstance(by, bytes)
        assert by.startswith(f"process {os.getpid()}, ".encode())
        assert len(store.samples(campaign, "p/0", "h")) == 1
    with pytest.raises(KeyboardInterrupt), SampleStore(path):
        raise KeyboardInterrupt  # is a clean close too
    assert execute(path, "SELECT * FROM opened") == []


def test_a_damaged_file_after_an_unclean_close_is_named_and_left_as_it_is(path: Path) -> None:
    campaign = stored(path, *(replace(SAMPLE, sample_index=i, text="x" * 500) for i in range(100)))
    die_open(path)
    execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    ((page_bytes,),) = execute(path, "PRAGMA page_size")
    assert isinstance(page_bytes, int)
    # The last page that holds samples: the table's root and the mark stay readable.
    at = whole.rfind(b"xxxx") // page_bytes * page_bytes
    damaged = whole[:at] + bytes([255] * 200) + whole[at + 200 :]
    path.write_bytes(damaged)
    for _ in range(2):  # the mark stays until somebody has mended it
        with pytest.raises(DataError, match=r"samples\.sqlite: damaged .*process \d+, .*never closed.*\.recover"):
            SampleStore(path)
        assert path.read_bytes() == damaged
    path.write_bytes(whole)
    assert len(read(path, campaign)) == 100


# ---- a file of the earlier schema

FIRST_SCHEMA = """
CREATE TABLE campaign (
    hash TEXT PRIMARY KEY, description TEXT NOT NULL, num_tokens_cancelled INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE sample (
    campaign TEXT NOT NULL REFERENCES campaign(hash), problem_id TEXT NOT NULL, prompt_hash TEXT NOT NULL,
    sample_index INTEGER NOT NULL, seed INTEGER NOT NULL, text TEXT NOT NULL, answer_text TEXT,
    finish_reason TEXT NOT NULL, num_prompt_tokens INTEGER NOT NULL, num_tokens INTEGER NOT NULL,
    engine TEXT NOT NULL, checksum TEXT NOT NULL,
    PRIMARY KEY (campaign, problem_id, prompt_hash, sample_index)
) WITHOUT ROWID;
CREATE TABLE spent (
    account TEXT PRIMARY KEY, num_samples INTEGER NOT NULL, num_tokens INTEGER NOT NULL,
    num_tokens_cancelled INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE damaged AS SELECT * FROM sample WHERE 0;
CREATE TABLE verdict (
    campaign TEXT NOT NULL, problem_id TEXT NOT NULL, prompt_hash TEXT NOT NULL, sample_index INTEGER NOT NULL,
    grader TEXT NOT NULL, mode TEXT NOT NULL, answer_kind TEXT NOT NULL, target TEXT NOT NULL,
    correct INTEGER NOT NULL, extracted TEXT, reason TEXT NOT NULL,
    PRIMARY KEY (campaign, problem_id, prompt_hash, sample_index, mode, answer_kind, target, grader)
) WITHOUT ROWID;
INSERT INTO campaign VALUES ('f124250e72271b9d', '{"weights": "w"}', 5);
INSERT INTO sample VALUES ('f124250e72271b9d', 'p/0', 'h', 0, 123, '1 + 1 = 2. The answer is 2.', NULL, 'stop', 5, 9,
    'fake 1.0', '60fd7e093c356983');
INSERT INTO spent VALUES ('run', 1, 9, 5);
INSERT INTO verdict VALUES ('f124250e72271b9d', 'p/0', 'h', 0, '1', 'strict', 'number', '2', 1, '2', 'correct');
PRAGMA user_version = 1;
"""


@pytest.fixture
def of_the_first_schema(path: Path) -> str:
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(FIRST_SCHEMA)
    database.close()
    return "f124250e72271b9d"


def test_a_file_of_the_first_schema_opens_with_all_that_is_in_it(path: Path, of_the_first_schema: str) -> None:
    campaign = of_the_first_schema
    with SampleStore(path, "run") as store:
        assert store.add_campaign({"weights": "w"}) == campaign
        assert store.indices(campaign) == {("p/0", "h"): range(1)}
        assert store.samples(campaign, "p/0", "h") == [SAMPLE]
        assert list(store.verdicts(campaign, "p/0", "h", "strict").values()) == [Verdict(True, "2", "correct")]
        assert store.spent() == (1, 9, 5)
        store.put(campaign, [("h", replace(SAMPLE, sample_index=1))], ENGINE)
        assert store.indices(campaign) == {("p/0", "h"): range(2)}
    # What the earlier version knows stands where it looks for it.
    assert execute(path, "PRAGMA user_version") == [(1,)]
    assert execute(path, "SELECT sample_index FROM sample ORDER BY 1") == [(0,), (1,)]


def test_reading_a_file_of_the_first_schema_brings_it_up_to_date(path: Path, of_the_first_schema: str) -> None:
    with snapshot(path) as database:
        assert database.execute("SELECT count(*) FROM sample INDEXED BY sample_key").fetchone() == (1,)


# ---- what a campaign was used for

USE = Use("teacher", "starter:small", "gsm8k", "chat_cot", 2.0)


def uses(path: Path) -> list[tuple[object, ...]]:
    columns = "role, model, task, prompt, wall_seconds, cost_usd"
    return execute(path, f"SELECT {columns} FROM campaign_use ORDER BY task")


def test_time_and_cost_add_up_over_processes(path: Path) -> None:
    description = {"weights": "w"}
    for index in range(2):
        with SampleStore(path) as store:
            campaign = store.add_campaign(description, USE)
            assert campaign == store.add_campaign(description)
            store.put(campaign, [("h", replace(SAMPLE, sample_index=index))], ENGINE, wall_seconds=1800.0)
    (row,) = uses(path)
    assert row == (b"teacher", b"starter:small", b"gsm8k", b"chat_cot", 3600.0, 2.0)
    ((first, last),) = execute(path, "SELECT first_used, last_used FROM campaign_use")
    assert isinstance(first, int)
    assert isinstance(last, int)
    assert time.time() - 60 < first <= last <= time.time()


def test_what_has_no_price_has_no_cost_until_it_has_one(path: Path) -> None:
    for price, expected in ((None, None), (2.0, 1.0), (None, 1.0)):
        with SampleStore(path) as store:
            campaign = store.add_campaign({"weights": "w"}, USE._replace(usd_per_hour=price))
            store.put(campaign, [], ENGINE, wall_seconds=1800.0)
        assert uses(path)[0][-1] == expected
    assert uses(path)[0][-2] == 5400.0


def test_one_campaign_serves_several_tasks(path: Path) -> None:
    with SampleStore(path) as store:
        hashes = {store.add_campaign({"weights": "w"}, USE._replace(task=task)) for task in ("gsm8k", "multiarith")}
        store.put(hashes.pop(), [("h", SAMPLE)], ENGINE, wall_seconds=36.0)
    assert hashes == set()
    assert [(row[2], row[4]) for row in uses(path)] == [(b"gsm8k", 0.0), (b"multiarith", 36.0)]


# ---- reading while another process writes


def test_a_snapshot_needs_no_lock_and_does_not_move(path: Path) -> None:
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": "w"})
        store.put(campaign, [("h", SAMPLE)], ENGINE)
        with snapshot(path) as database:
            count = "SELECT count(*) FROM sample"
            assert database.execute(count).fetchone() == (1,)
            store.put(campaign, [("h", replace(SAMPLE, sample_index=1))], ENGINE)
            assert database.execute(count).fetchone() == (1,)
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                database.execute("DELETE FROM sample")
    assert sorted(file.name for file in path.parent.iterdir()) == ["samples.sqlite", "samples.sqlite.lock"]


def test_a_snapshot_of_what_is_no_store(path: Path) -> None:
    with pytest.raises(DataError, match=r"samples\.sqlite: no such sample store; .*--runs"), snapshot(path):
        pass
    assert list(path.parent.iterdir()) == []
    path.write_bytes(b"problem_id,text\n" * 1000)
    with pytest.raises(DataError, match="file is not a database"), snapshot(path):
        pass
    path.unlink()
    execute(path, "CREATE TABLE of_tomorrow (x)")
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(DataError, match="another version of fcot-lite"), snapshot(path):
        pass
