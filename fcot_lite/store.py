"""The sample store: one SQLite file that outlives every run.

A campaign is the hash of everything that shapes a text (model weights, prompt, sampling parameters) except how many
are drawn. A sample's key is (campaign, problem, prompt hash, index) and its seed is derived from that key, so the
first n samples are always the same requests, and raising n draws only the difference.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fcot_lite.errors import DataError, ResourceError
from fcot_lite.files import lock, sha256_json
from fcot_lite.records import Sample, Verdict

SCHEMA_VERSION = 1
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

    `waiting(holder)` is called now and then while another process has it; without it, that is a ResourceError.
    What is drawn is booked on `account`, so that a stage knows what it generated itself, over all its attempts.
    """

    def __init__(self, path: Path, account: str = "", waiting: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._account = account
        self._lock = lock(path.with_name(path.name + ".lock"), "the sample store", waiting)
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            raise _storage_fault(path, error) from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        # A flipped bit can leave bytes that are no UTF-8: the row's checksum has to tell, not an error for all rows.
        self._database.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise DataError(
                    f"{self.path}: written by another version of fcot-lite (schema {version}); move it away"
                )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
            self._database.executescript(f"{_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION};")
        except sqlite3.DatabaseError as error:
            raise _storage_fault(self.path, error) from error

    def __enter__(self) -> "SampleStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()
        os.close(self._lock)

    def add_campaign(self, description: Mapping[str, Any]) -> str:
        """The campaign's hash; the description is kept beside it, once."""
        campaign = sha256_json(description)[:16]
        with self._transaction():
            self._database.execute(
                "INSERT OR IGNORE INTO campaign (hash, description) VALUES (?, ?)",
                (campaign, json.dumps(description, sort_keys=True)),
            )
        return campaign

    def put(self, campaign: str, samples: Sequence[tuple[str, Sample]], engine: str) -> None:
        """Adds (prompt hash, sample) pairs, durably: they survive a kill as soon as this returns.

        Lone surrogates, which SQLite can't store, become question marks (see `storable`).
        """
        rows = []
        for prompt, s in samples:
            answer_text = None if s.answer_text is None else storable(s.answer_text)
            row: tuple[Any, ...] = (campaign, s.problem_id, prompt, s.sample_index, s.seed, storable(s.text))
            row = (*row, answer_text, s.finish_reason, s.num_prompt_tokens, s.num_tokens, engine)
            rows.append((*row, _checksum(row)))
        with self._transaction():
            self._database.executemany(
                f"INSERT OR IGNORE INTO sample ({_COLUMNS}, checksum) VALUES ({','.join('?' * 12)})", rows
            )
            self._book(Spent(len(samples), sum(s.num_tokens for _, s in samples), 0))

    def add_cancelled(self, campaign: str, num_tokens: int) -> None:
        """Counts tokens that were generated but never became a sample."""
        with self._transaction():
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

    def num_tokens_cancelled(self, campaign: str) -> int:
        row = self._database.execute("SELECT num_tokens_cancelled FROM campaign WHERE hash = ?", (campaign,)).fetchone()
        return int(row[0]) if row else 0

    def read(self, campaign: str) -> dict[SampleKey, Sample]:
        """All sound samples of the campaign. A row whose checksum fails is set aside in the table `damaged`, so that
        it counts as missing and is drawn again."""
        samples, damaged = {}, []
        try:
            cursor = self._database.execute(f"SELECT {_COLUMNS}, checksum FROM sample WHERE campaign = ?", (campaign,))
            for *row, checksum in cursor:
                key = SampleKey(row[1], row[2], row[3])
                if _checksum(tuple(row)) == checksum:
                    samples[key] = Sample(row[1], row[3], row[5], row[6], row[7], row[8], row[9], row[4])
                else:
                    damaged.append((campaign, *key))
        except sqlite3.DatabaseError as error:
            raise _storage_fault(self.path, error) from error
        if damaged:
            where = "WHERE campaign = ? AND problem_id = ? AND prompt_hash = ? AND sample_index = ?"
            with self._transaction():
                for key_row in damaged:
                    self._database.execute(f"INSERT INTO damaged SELECT * FROM sample {where}", key_row)
                    self._database.execute(f"DELETE FROM sample {where}", key_row)
                    self._database.execute(f"DELETE FROM verdict {where}", key_row)  # the next draw is another text
        return samples

    def put_verdicts(self, campaign: str, verdicts: Mapping[VerdictKey, Verdict]) -> None:
        """Adds verdicts, durably."""
        rows = [
            (campaign, *key.sample, *key[1:], verdict.correct, verdict.extracted, verdict.reason)
            for key, verdict in verdicts.items()
        ]
        with self._transaction():
            self._database.executemany(f"INSERT OR REPLACE INTO verdict VALUES ({','.join('?' * 11)})", rows)

    def read_verdicts(self, campaign: str, mode: str) -> dict[VerdictKey, Verdict]:
        """All verdicts of that mode on the campaign's samples, those of earlier graders too."""
        verdicts = {}
        try:
            for row in self._database.execute(
                "SELECT * FROM verdict WHERE campaign = ? AND mode = ?", (campaign, mode)
            ):
                key = VerdictKey(SampleKey(row[1], row[2], row[3]), *row[4:8])
                verdicts[key] = Verdict(bool(row[8]), row[9], row[10])
        except sqlite3.DatabaseError as error:
            raise _storage_fault(self.path, error) from error
        return verdicts

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise _storage_fault(self.path, error) from error
        finally:
            if self._database.in_transaction:  # also after an interrupt: the next transaction has to begin
                self._database.execute("ROLLBACK")


def storable(text: str) -> str:
    """The text as the store keeps it: a generation that was cut inside a character can hold lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def _checksum(row: tuple[Any, ...]) -> str:
    # `default`: a damaged row can hold bytes where a text was.
    return hashlib.sha256(json.dumps(row, default=repr).encode()).hexdigest()[:16]


def _storage_fault(path: Path, error: sqlite3.DatabaseError) -> DataError | ResourceError:
    # "disk I/O error" is what SQLite says of a failed write or fsync: the samples committed so far are safe.
    if isinstance(error, sqlite3.OperationalError):
        return ResourceError(f"{path}: {error}; free disk space or make the folder writable, then run again")
    return DataError(f"{path}: {error}; the file is damaged, move it away or restore it")
