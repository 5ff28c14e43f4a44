"""The sample store: one SQLite file that outlives every run.

A campaign is the hash of everything that shapes a text (model weights, prompt, sampling parameters) except how many
are drawn. A sample's key is (campaign, problem, prompt hash, index) and its seed is derived from that key, so the
first n samples are always the same requests, and raising n draws only the difference.

Nothing here grows with the number of samples but the file: what is there is told by index alone, texts are read one
question at a time.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fcot_lite.errors import DataError, ResourceError
from fcot_lite.files import lock, sha256_json
from fcot_lite.records import Sample, Verdict

SCHEMA_VERSION = 1  # what came later (sample_key, campaign_use, opened) only adds, so both read each other's files
_SCHEMA = """
CREATE TABLE IF NOT EXISTS campaign (
    hash TEXT PRIMARY KEY, description TEXT NOT NULL, num_tokens_cancelled INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sample (
    campaign TEXT NOT NULL REFERENCES campaign(hash), problem_id TEXT NOT NULL, prompt_hash TEXT NOT NULL,
    sample_index INTEGER NOT NULL, seed INTEGER NOT NULL, text TEXT NOT NULL, answer_text TEXT,
    finish_reason TEXT NOT NULL, num_prompt_tokens INTEGER NOT NULL, num_tokens INTEGER NOT NULL,
    engine TEXT NOT NULL, checksum TEXT NOT NULL,
    PRIMARY KEY (campaign, problem_id, prompt_hash, sample_index)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sample_key ON sample (campaign, problem_id, prompt_hash, sample_index, num_tokens);
CREATE TABLE IF NOT EXISTS campaign_use (
    campaign TEXT NOT NULL REFERENCES campaign(hash), role TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL,
    prompt TEXT NOT NULL, first_used INTEGER NOT NULL, last_used INTEGER NOT NULL,
    wall_seconds REAL NOT NULL DEFAULT 0, cost_usd REAL,
    PRIMARY KEY (campaign, role, model, task, prompt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS opened (by TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spent (
    account TEXT PRIMARY KEY, num_samples INTEGER NOT NULL, num_tokens INTEGER NOT NULL,
    num_tokens_cancelled INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS damaged AS SELECT * FROM sample WHERE 0;
CREATE TABLE IF NOT EXISTS verdict (
    campaign TEXT NOT NULL, problem_id TEXT NOT NULL, prompt_hash TEXT NOT NULL, sample_index INTEGER NOT NULL,
    grader TEXT NOT NULL, mode TEXT NOT NULL, answer_kind TEXT NOT NULL, target TEXT NOT NULL,
    correct INTEGER NOT NULL, extracted TEXT, reason TEXT NOT NULL,
    PRIMARY KEY (campaign, problem_id, prompt_hash, sample_index, mode, answer_kind, target, grader)
) WITHOUT ROWID;
"""
_COLUMNS = (
    "campaign, problem_id, prompt_hash, sample_index, seed, text, answer_text, finish_reason, num_prompt_tokens, "
    "num_tokens, engine"
)
_NO_LIMIT = 2**63 - 1  # SQLite's largest integer


class SampleKey(NamedTuple):
    problem_id: str
    prompt_hash: str
    sample_index: int


def prompt_hash(prompt_token_ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(prompt_token_ids)).encode()).hexdigest()[:16]


def derive_seed(campaign: str, key: SampleKey) -> int:
    """A seed of 31 bits for this sample alone: neighbouring indices share no random stream, as seed + i would in a
    second run that starts at another seed."""
    return int.from_bytes(hashlib.sha256(json.dumps([campaign, *key]).encode()).digest()[:4], "big") >> 1


class Use(NamedTuple):
    """What a campaign was drawn for: for people, no part of its identity. Its time is priced where a price is given."""

    role: Literal["teacher", "student"]
    model: str
    task: str
    prompt: str
    usd_per_hour: float | None = None


class Spent(NamedTuple):
    """What was generated on one account; `num_tokens` are those of its samples, cancelled ones stand apart."""

    num_samples: int
    num_tokens: int
    num_tokens_cancelled: int


class VerdictKey(NamedTuple):
    """A verdict holds for one sample, one grader's version, one mode and one gold answer."""

    sample: SampleKey
    grader: str
    mode: str
    answer_kind: str
    target: str


class SampleStore:
    """The open store. One process writes at a time; use as a context manager.

    `waiting(why)` is called now and then while another process has it (without it, that is a ResourceError), and before
    the file is checked after a process that died with it open.
    What is drawn is booked on `account`, so that a stage knows what it generated itself, over all its attempts.
    """

    def __init__(self, path: Path, account: str = "", waiting: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._account = account
        self._waiting = waiting
        self._uses: dict[str, Use] = {}
        self._lock = lock(path.with_name(path.name + ".lock"), "the sample store", waiting)
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            raise _storage_fault(path, error) from error
        self._checked = False
        self._fault: ResourceError | None = None  # of the disk: nothing is written after it
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._database.text_factory = _decoded
        try:
            _refuse_other_versions(self.path, self._database)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
            if _is_current(self._database):
                self._check()
            else:
                self._database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        except sqlite3.DatabaseError as error:
            raise _storage_fault(self.path, error) from error
        with self.transaction():
            self._database.execute("DELETE FROM opened")
            self._database.execute("INSERT INTO opened VALUES (?)", (f"process {os.getpid()}, {time.ctime()}",))
        self._checked = True

    def _check(self) -> None:
        """Reads every page, but only after a process that died with the store open."""
        unclean = self._database.execute("SELECT by FROM opened").fetchone()
        if unclean is None:
            return
        if self._waiting is not None:
            self._waiting(f"the sample store is being checked, because {unclean[0]}, never closed it")
        (finding,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise DataError(
                f"{self.path}: damaged ({' '.join(finding.split())}; looked at because {unclean[0]}, never closed it); "
                "nothing was changed. Restore a copy, or save what can be read (sqlite3 "
                f"{self.path.name} .recover | sqlite3 new.sqlite) and put new.sqlite in its place"
            )

    def __enter__(self) -> "SampleStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, which moves what is in its write-ahead log into it, and lets the lock go."""
        if self._checked and self._fault is None:
            # Where the disk failed the mark stays, and the next one to open the store checks it: that loses nothing.
            with suppress(sqlite3.DatabaseError):
                self._database.execute("DELETE FROM opened")
        self._database.close()
        os.close(self._lock)

    def add_campaign(self, description: Mapping[str, Any], use: Use | None = None) -> str:
        """The campaign's hash; the description is kept beside it, once, and who uses it for what and since when."""
        campaign = sha256_json(description)[:16]
        with self.transaction():
            self._database.execute(
                "INSERT OR IGNORE INTO campaign (hash, description) VALUES (?, ?)",
                (campaign, json.dumps(description, sort_keys=True)),
            )
            if use is not None:
                self._uses[campaign] = use
                self._book_use(campaign, 0.0)
        return campaign

    def put(self, campaign: str, samples: Sequence[tuple[str, Sample]], engine: str, wall_seconds: float = 0.0) -> None:
        """Adds (prompt hash, sample) pairs, durably: they survive a kill as soon as this returns. `wall_seconds` is
        the time that these took, and adds up over all puts.

        Lone surrogates, which SQLite can't store, become question marks (see `storable`).
        """
        rows = []
        for prompt, s in samples:
            answer_text = None if s.answer_text is None else storable(s.answer_text)
            row: tuple[Any, ...] = (campaign, s.problem_id, prompt, s.sample_index, s.seed, storable(s.text))
            row = (*row, answer_text, s.finish_reason, s.num_prompt_tokens, s.num_tokens, engine)
            rows.append((*row, _checksum(row)))
        with self.transaction():
            self._database.executemany(
                f"INSERT OR IGNORE INTO sample ({_COLUMNS}, checksum) VALUES ({','.join('?' * 12)})", rows
            )
            self._book(Spent(len(samples), sum(s.num_tokens for _, s in samples), 0))
            self._book_use(campaign, wall_seconds)

    def add_cancelled(self, campaign: str, num_tokens: int) -> None:
        """Counts tokens that were generated but never became a sample."""
        with self.transaction():
            self._database.execute(
                "UPDATE campaign SET num_tokens_cancelled = num_tokens_cancelled + ? WHERE hash = ?",
                (num_tokens, campaign),
            )
            self._book(Spent(0, 0, num_tokens))

    def spent(self) -> Spent:
        """What was generated on this account."""
        row = self._database.execute(
            "SELECT num_samples, num_tokens, num_tokens_cancelled FROM spent WHERE account = ?", (self._account,)
        ).fetchone()
        return Spent(*row) if row else Spent(0, 0, 0)

    def _book(self, spent: Spent) -> None:
        self._database.execute(
            "INSERT INTO spent VALUES (?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET "
            "num_samples = num_samples + excluded.num_samples, num_tokens = num_tokens + excluded.num_tokens, "
            "num_tokens_cancelled = num_tokens_cancelled + excluded.num_tokens_cancelled",
            (self._account, *spent),
        )

    def _book_use(self, campaign: str, wall_seconds: float) -> None:
        use = self._uses.get(campaign)
        if use is not None:
            now = int(time.time())
            cost = None if use.usd_per_hour is None else wall_seconds / 3600 * use.usd_per_hour
            self._database.execute(
                "INSERT INTO campaign_use VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (campaign, role, model, task, prompt) DO UPDATE SET "
                "last_used = excluded.last_used, wall_seconds = wall_seconds + excluded.wall_seconds, cost_usd = "
                "CASE WHEN excluded.cost_usd IS NULL THEN cost_usd ELSE ifnull(cost_usd, 0) + excluded.cost_usd END",
                (campaign, *use[:4], now, now, wall_seconds, cost),
            )

    def num_tokens_cancelled(self, campaign: str) -> int:
        row = self._database.execute("SELECT num_tokens_cancelled FROM campaign WHERE hash = ?", (campaign,)).fetchone()
        return int(row[0]) if row else 0

    def other_campaigns(self, campaign: str, problem_id: str) -> dict[str, dict[str, Any]]:
        """The descriptions of the other campaigns that have a sample of this problem, by hash."""
        rows = self._rows(
            "SELECT hash, description FROM campaign WHERE hash != ? AND EXISTS "
            "(SELECT 1 FROM sample INDEXED BY sample_key WHERE sample.campaign = hash AND problem_id = ?)",
            *(campaign, problem_id),
        )
        described = {}
        for other, description in rows:
            with suppress(ValueError):  # a damaged one
                described[other] = json.loads(description)
        return described

    def indices(self, campaign: str) -> dict[tuple[str, str], Collection[int]]:
        """The sample indices that are there by (problem id, prompt hash), in order: a range where they have no gap.

        Reads an index of the keys and no text, so a damaged row counts as there until `samples` reads it.
        """
        there: dict[tuple[str, str], Collection[int]] = {}
        where = "FROM sample INDEXED BY sample_key WHERE campaign = ?"
        groups = self._rows(
            f"SELECT problem_id, prompt_hash, min(sample_index), max(sample_index), count(*) {where} "
            "GROUP BY problem_id, prompt_hash",
            campaign,
        )
        for problem_id, prompt, low, high, count in groups:
            if high - low + 1 == count:
                there[problem_id, prompt] = range(low, high + 1)
            else:
                rows = self._rows(
                    f"SELECT sample_index {where} AND problem_id = ? AND prompt_hash = ? ORDER BY sample_index",
                    *(campaign, problem_id, prompt),
                )
                there[problem_id, prompt] = [index for (index,) in rows]
        return there

    def samples(self, campaign: str, problem_id: str, prompt_hash: str, n: int | None = None) -> list[Sample]:
        """The sound samples of one question whose index is below n (all where None), in order.

        A row whose checksum fails is set aside in the table `damaged`, and its verdicts are dropped: it counts as
        missing and is drawn again.
        """
        sound, damaged = [], []
        rows = self._rows(
            f"SELECT {_COLUMNS}, checksum FROM sample WHERE campaign = ? AND problem_id = ? AND prompt_hash = ? "
            "AND sample_index < ? ORDER BY sample_index",
            *(campaign, problem_id, prompt_hash, _NO_LIMIT if n is None else n),
        )
        for row in rows:
            sample = _sound(row)
            if sample is None:
                damaged.append(row[:4])
            else:
                sound.append(sample)
        if damaged:
            with self.transaction() as database:
                for key in damaged:
                    set_aside(database, key)
        return sound

    def read(self, campaign: str) -> dict[SampleKey, Sample]:
        """All sound samples of the campaign, in memory."""
        return {
            SampleKey(problem_id, prompt, sample.sample_index): sample
            for problem_id, prompt in self.indices(campaign)
            for sample in self.samples(campaign, problem_id, prompt)
        }

    def put_verdicts(self, campaign: str, verdicts: Mapping[VerdictKey, Verdict]) -> None:
        """Adds verdicts, durably."""
        rows = [
            (campaign, *key.sample, *key[1:], verdict.correct, verdict.extracted, verdict.reason)
            for key, verdict in verdicts.items()
        ]
        with self.transaction():
            self._database.executemany(f"INSERT OR REPLACE INTO verdict VALUES ({','.join('?' * 11)})", rows)

    def verdicts(self, campaign: str, problem_id: str, prompt_hash: str, mode: str) -> dict[VerdictKey, Verdict]:
        """All verdicts of that mode on one question's samples, those of earlier graders too."""
        rows = self._rows(
            "SELECT * FROM verdict WHERE campaign = ? AND problem_id = ? AND prompt_hash = ? AND mode = ?",
            *(campaign, problem_id, prompt_hash, mode),
        )
        return {
            VerdictKey(SampleKey(row[1], row[2], row[3]), *row[4:8]): Verdict(bool(row[8]), row[9], row[10])
            for row in rows
        }

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._database.execute(query, values)
        except sqlite3.DatabaseError as error:
            raise _storage_fault(self.path, error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done within is there as a whole, durably, or not at all. Once the disk has failed, every further one
        raises that fault: after a failed fsync another one can lie."""
        if self._fault is not None:
            raise self._fault
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database
            self._database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            fault = _storage_fault(self.path, error)
            self._fault = fault if isinstance(fault, ResourceError) else None
            raise fault from error
        finally:
            if self._database.in_transaction:  # also after an interrupt: the next transaction has to begin
                self._database.execute("ROLLBACK")


def storable(text: str) -> str:
    """The text as the store keeps it: a generation that was cut inside a character can hold lone surrogates."""
    return text.encode("utf-8", "replace").decode()


@contextmanager
def snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """The store as it is at this moment, for reading: without the lock, so also while a run is writing to it.

    Raises DataError where there is none.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such sample store; runs make it, so name their folder with --runs")
    try:
        database = _connect_for_reading(path)
        if not _is_current(database):
            database.close()
            SampleStore(path).close()
            database = _connect_for_reading(path)
        with closing(database):
            _refuse_other_versions(path, database)
            database.execute("BEGIN")
            yield database
    except sqlite3.DatabaseError as error:
        raise _storage_fault(path, error) from error


def _connect_for_reading(path: Path) -> sqlite3.Connection:
    # Not mode=ro: such a connection can't tidy up the log that it opens, if it is the last to close.
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    database.execute("PRAGMA query_only = ON")
    database.text_factory = _decoded
    return database


def _is_current(database: sqlite3.Connection) -> bool:
    """Whether the file has all tables, as one of an earlier version or an empty one has not."""
    return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'opened'").fetchone())


def _decoded(text: bytes) -> str:
    # A flipped bit can leave bytes that are no UTF-8: the row's checksum has to tell, not an error for all rows.
    return text.decode("utf-8", "replace")


def _refuse_other_versions(path: Path, database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in (0, SCHEMA_VERSION):
        raise DataError(f"{path}: written by another version of fcot-lite (schema {version}); move it away")


def set_aside(database: sqlite3.Connection, key: tuple[Any, ...]) -> None:
    """Moves a sample to the table `damaged` and drops its verdicts: the next draw is another text."""
    where = "WHERE campaign = ? AND problem_id = ? AND prompt_hash = ? AND sample_index = ?"
    database.execute(f"INSERT INTO damaged SELECT * FROM sample {where}", key)
    database.execute(f"DELETE FROM sample {where}", key)
    database.execute(f"DELETE FROM verdict {where}", key)


def _sound(row: tuple[Any, ...]) -> Sample | None:
    """The sample in a row of _COLUMNS and its checksum; None where the checksum is not that of the row."""
    if not is_sound(row):
        return None
    return Sample(row[1], row[3], row[5], row[6], row[7], row[8], row[9], row[4])


def is_sound(row: tuple[Any, ...]) -> bool:
    """Whether a row of the table `sample` is as it was written."""
    *values, checksum = row
    return bool(_checksum(tuple(values)) == checksum)


def _checksum(row: tuple[Any, ...]) -> str:
    # `default`: a damaged row can hold bytes where a text was.
    return hashlib.sha256(json.dumps(row, default=repr).encode()).hexdigest()[:16]


def _storage_fault(path: Path, error: sqlite3.DatabaseError) -> DataError | ResourceError:
    """What a user is told."""
    name = getattr(error, "sqlite_errorname", "")
    kept = "what was stored before is kept"
    if name == "SQLITE_FULL":
        return ResourceError(f"{path}: {error}; make room, then run again ({kept})")
    if name.startswith("SQLITE_IOERR") and name != "SQLITE_IOERR_SHORT_READ":
        return ResourceError(f"{path}: {error} ({name}): the disk is full or fails; mend that, then run again ({kept})")
    if isinstance(error, sqlite3.OperationalError) and name != "SQLITE_IOERR_SHORT_READ":
        return ResourceError(f"{path}: {error}; make the file and its folder writable, then run again")
    return DataError(f"{path}: {error}; the file is damaged, move it away or restore it")
