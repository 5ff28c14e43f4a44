"""`fcot samples export` and `import`: the sampling runs of a store as one file that restores them.

An export holds everything that a store knows of a campaign: its description, its samples with their checksums, the
verdicts. Its rows are of five kinds, in this order: format, campaign, use, sample, verdict, and one at the end with
the hash of all before it, so that a file that was cut short is no smaller export.
"""

import hashlib
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from fcot_lite.errors import DataError, RecipeError, ResourceError
from fcot_lite.files import open_atomic, sha256_json
from fcot_lite.store import SampleStore, is_sound, set_aside, snapshot

FORMAT = 1
SHOWN = 5  # conflicts that a message names
ROW_GROUP = 2000  # rows that writing and reading Parquet hold in memory

_SAMPLE_KEY = {"campaign": str, "problem_id": str, "prompt_hash": str, "sample_index": int}
# By kind of row: its columns and their types, as the tables of the store have them. A column of _NULLABLE may lack.
COLUMNS: dict[str, dict[str, type]] = {
    "format": {"version": int},
    "campaign": {"campaign": str, "description": str, "num_tokens_cancelled": int},
    "use": {
        **{"campaign": str, "role": str, "model": str, "task": str, "prompt": str},
        **{"first_used": int, "last_used": int, "wall_seconds": float, "cost_usd": float},
    },
    "sample": {
        **_SAMPLE_KEY,
        **{"seed": int, "text": str, "answer_text": str, "finish_reason": str, "num_prompt_tokens": int},
        **{"num_tokens": int, "engine": str, "checksum": str},
    },
    "verdict": {
        **_SAMPLE_KEY,
        **{"grader": str, "mode": str, "answer_kind": str, "target": str, "correct": bool, "extracted": str},
        "reason": str,
    },
    "end": {"sha256": str},
}
_NULLABLE = {"cost_usd", "answer_text", "extracted"}
_TABLES = {"campaign": "campaign", "use": "campaign_use", "sample": "sample", "verdict": "verdict"}
_KEYS = {
    "sample": tuple(_SAMPLE_KEY),
    "verdict": (*_SAMPLE_KEY, "mode", "answer_kind", "target", "grader"),
}


class Row(NamedTuple):
    """A row of an export: its kind, and its values in the order of COLUMNS."""

    kind: str
    values: tuple[Any, ...]

    def mapping(self) -> dict[str, Any]:
        named = zip(COLUMNS[self.kind], self.values, strict=True)
        return {"kind": self.kind, **{name: value for name, value in named if value is not None}}

    def line(self) -> bytes:
        # ASCII only: U+2028 in a completion can then not split a line.
        return json.dumps(self.mapping()).encode() + b"\n"


# ---- export


def export(store: Path, out: Path, campaigns: Sequence[str] = ()) -> Counter[str]:
    """Writes the campaigns (all where none is named; the start of a hash is enough) to `out`, whole or not at all.

    Returns the number of rows by kind, and that of damaged samples, which are left out. The store may be in use: the
    export is of the moment at which it began. Raises DataError for a campaign that is not there, RecipeError for a
    file that is neither .jsonl nor .parquet.
    """
    write = {".jsonl": _write_jsonl, ".parquet": _write_parquet}.get(out.suffix)
    if write is None:
        raise RecipeError(f"{out}: name a file that ends in .jsonl or .parquet")
    counts: Counter[str] = Counter()
    with snapshot(store) as database:
        write(out, _ended(_exported(database, _chosen(database, campaigns), counts)))
    return counts


def _chosen(database: sqlite3.Connection, wanted: Sequence[str]) -> list[str]:
    there = [campaign for (campaign,) in database.execute("SELECT hash FROM campaign ORDER BY hash")]
    if not wanted:
        return there
    chosen = set()
    for start in wanted:
        found = [campaign for campaign in there if campaign.startswith(start)]
        if len(found) != 1:
            what = f"begins the hashes of {len(found)} sampling runs" if found else "is no sampling run in the store"
            raise DataError(f"--campaign {start}: {what}; fcot samples lists them")
        chosen.update(found)
    return sorted(chosen)


def _exported(database: sqlite3.Connection, campaigns: Sequence[str], counts: Counter[str]) -> Iterator[Row]:
    yield Row("format", (FORMAT,))
    damaged: set[tuple[Any, ...]] = set()
    for kind, of_store in _TABLES.items():
        names = ", ".join("hash" if (kind, name) == ("campaign", "campaign") else name for name in COLUMNS[kind])
        order = ", ".join(_KEYS.get(kind, ())) or names
        where = "hash" if kind == "campaign" else "campaign"
        for campaign in campaigns:
            for values in database.execute(
                f"SELECT {names} FROM {of_store} WHERE {where} = ? ORDER BY {order}", (campaign,)
            ):
                row = _stored(kind, values)
                if row is not None and (kind != "verdict" or values[:4] not in damaged):
                    counts[kind] += 1
                    yield row
                elif kind == "sample":
                    damaged.add(values[:4])
                    counts["damaged"] += 1
                elif kind == "campaign":
                    raise DataError(
                        f"sampling run {campaign}: its description in the store is damaged, so nothing could restore "
                        "it; export the others with --campaign"
                    )


def _stored(kind: str, values: tuple[Any, ...]) -> Row | None:
    """None for a damaged row. A verdict or a use that is lost is made again."""
    named = dict(zip(COLUMNS[kind], values, strict=True))
    if "correct" in named and named["correct"] in (0, 1):
        named["correct"] = bool(named["correct"])
    row = _row({"kind": kind, **named})
    if kind == "campaign":
        return row if row is not None and _is_description(*row.values[:2]) else None
    return row if row is not None and (kind != "sample" or is_sound(values)) else None


def _ended(rows: Iterable[Row]) -> Iterator[Row]:
    seen = hashlib.sha256()
    for row in rows:
        seen.update(row.line())
        yield row
    yield Row("end", (seen.hexdigest(),))


def _write_jsonl(out: Path, rows: Iterable[Row]) -> None:
    with open_atomic(out) as file:
        for row in rows:
            file.write(row.line())


def _write_parquet(out: Path, rows: Iterable[Row]) -> None:
    """One table for all kinds: a column that a kind lacks is null there."""
    pa, parquet = _pyarrow()
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = {name: types[kind] for of_kind in COLUMNS.values() for name, kind in of_kind.items()}
    schema = pa.schema({"kind": pa.string(), **columns})
    with (
        open_atomic(out) as file,
        parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(row.mapping())
            if len(group) == ROW_GROUP or row.kind == "end":
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ResourceError("Parquet needs pyarrow, which is not installed; take a .jsonl file in its place") from None
    return pyarrow, pyarrow.parquet


def summary(counts: Counter[str]) -> str:
    """Such as "2 sampling runs, 1 sample, 0 verdicts"."""
    names = {"campaign": "sampling run", "sample": "sample", "verdict": "verdict"}
    return ", ".join(f"{counts[kind]:,} {name}{'s' * (counts[kind] != 1)}" for kind, name in names.items())


# ---- import


def restore(file: Path, store: Path) -> Counter[str]:
    """Puts an export's rows into the store, all or none; returns how many of each kind were new, under "kept" how many
    rows were there already.

    Where a campaign is there too, the larger count of cancelled tokens and the longer time win: what two stores share
    is not counted twice. Raises DataError, with nothing changed, for a file that is no whole export and for samples
    or verdicts that the store has otherwise. One transaction: an interrupt or a full disk leaves nothing half done.
    """
    rows = _checked(file, _read(file))
    first = next(rows)  # before the store is made: a file that is none of ours leaves no trace
    counts: Counter[str] = Counter()
    conflicts: list[str] = []
    with SampleStore(store) as open_store, open_store.transaction() as database:
        for number, row in enumerate(chain([first], rows), 1):
            try:
                fate = _put(database, row)
            except UnicodeEncodeError:
                raise DataError(f"{file}: row {number}: holds half a character (a lone surrogate)") from None
            counts[fate if fate != "new" else row.kind] += 1
            if fate == "conflict" and len(conflicts) < SHOWN:
                conflicts.append(" ".join(str(value) for value in row.values[: len(_KEYS["sample"])]))
        if counts["conflict"]:
            raise DataError(
                f"{file}: {counts['conflict']:,} of its samples and verdicts are others than those in {store}, such "
                f"as {'; '.join(conflicts)} (sampling run, problem, prompt, index); nothing was imported. Import it "
                "into a store of its own: --runs ANOTHER_FOLDER"
            )
    return counts


def _put(database: sqlite3.Connection, row: Row) -> str:
    """new, kept or conflict."""
    of_store = _TABLES.get(row.kind)
    if of_store is None:
        return "new"
    names = list(COLUMNS[row.kind])
    columns = ", ".join("hash" if (row.kind, name) == ("campaign", "campaign") else name for name in names)
    insert = f"INSERT INTO {of_store} ({columns}) VALUES ({','.join('?' * len(names))}) ON CONFLICT"
    if row.kind == "campaign":
        there = database.execute("SELECT 1 FROM campaign WHERE hash = ?", row.values[:1]).fetchone()
        more = "num_tokens_cancelled = max(num_tokens_cancelled, excluded.num_tokens_cancelled)"
        database.execute(f"{insert} (hash) DO UPDATE SET {more}", row.values)
        return "kept" if there else "new"
    if row.kind == "use":
        database.execute(
            f"{insert} (campaign, role, model, task, prompt) DO UPDATE SET "
            "first_used = min(first_used, excluded.first_used), last_used = max(last_used, excluded.last_used), "
            "wall_seconds = max(wall_seconds, excluded.wall_seconds), "
            "cost_usd = max(ifnull(cost_usd, excluded.cost_usd), ifnull(excluded.cost_usd, cost_usd))",
            row.values,
        )
        return "new"
    if database.execute(f"{insert} DO NOTHING", row.values).rowcount == 1:
        return "new"
    named = dict(zip(names, row.values, strict=True))
    key = _KEYS[row.kind]
    there = database.execute(
        f"SELECT {columns} FROM {of_store} WHERE {' AND '.join(f'{name} = ?' for name in key)}",
        [named[name] for name in key],
    ).fetchone()
    if there == row.values:
        return "kept"
    if row.kind == "sample" and not is_sound(there):
        set_aside(database, row.values[:4])
        database.execute(f"{insert} DO NOTHING", row.values)
        return "new"
    return "conflict"


def _checked(file: Path, rows: Iterator[tuple[int, Any]]) -> Iterator[Row]:
    """The rows of a whole export. Raises DataError for the first that isn't what an export holds there."""
    seen, order, campaigns, ended = hashlib.sha256(), -1, set(), False
    kinds = list(COLUMNS)
    for number, value in rows:
        where = f"{file}: row {number}"
        row = _row(value)
        if number == 1 and (row is None or row.kind != "format"):
            raise DataError(
                f"{file}: is no export of fcot samples; rationales from elsewhere are read by a recipe (teacher.file)"
            )
        if row is None:
            raise DataError(f"{where}: a column lacks or is of another type; take an export that nobody edited")
        if number == 1 and row.values != (FORMAT,):
            raise DataError(f"{file}: format {row.values[0]} is of another version of fcot-lite; this one has {FORMAT}")
        if ended or kinds.index(row.kind) < order or (number > 1 and row.kind == "format"):
            raise DataError(f"{where}: a row of kind {row.kind} is out of order; take an export that nobody edited")
        order = kinds.index(row.kind)
        if row.kind == "end":
            if row.values != (seen.hexdigest(),):
                raise DataError(f"{file}: the rows are not those that were exported; copy the file again")
            ended = True
            continue
        seen.update(row.line())
        if row.kind == "campaign":
            if not _is_description(*row.values[:2]):
                raise DataError(f"{where}: the description is not that of its sampling run; copy the file again")
            campaigns.add(row.values[0])
        elif row.kind != "format" and row.values[0] not in campaigns:
            raise DataError(f"{where}: belongs to no campaign of this file; take an export that nobody edited")
        if row.kind == "sample" and not is_sound(row.values):
            raise DataError(f"{where}: the checksum is not this sample's; copy the file again")
        yield row
    if not ended:
        raise DataError(f"{file}: was cut short; copy the file again")


def _is_description(campaign: str, description: str) -> bool:
    try:
        return sha256_json(json.loads(description))[:16] == campaign
    except (ValueError, RecursionError):
        return False


def _row(value: Any) -> Row | None:
    """None where the value is no row of an export."""
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return None
    columns = COLUMNS.get(value["kind"])
    if columns is None or not value.keys() <= {"kind", *columns}:
        return None
    values = tuple(value.get(name) for name in columns)
    fits = all(_fits(found, name, kind) for found, (name, kind) in zip(values, columns.items(), strict=True))
    return Row(value["kind"], values) if fits else None


def _fits(value: Any, name: str, kind: type) -> bool:
    if value is None:
        return name in _NULLABLE
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, kind) and (not isinstance(value, float) or math.isfinite(value))


def _read(file: Path) -> Iterator[tuple[int, Any]]:
    """(number, row) pairs as they stand in the file."""
    if file.suffix not in (".jsonl", ".parquet"):
        raise RecipeError(f"{file}: name a file that ends in .jsonl or .parquet")
    try:
        yield from enumerate(_read_jsonl(file) if file.suffix == ".jsonl" else _read_parquet(file), 1)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from None


def _read_jsonl(file: Path) -> Iterator[Any]:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                # A line that lacks its end is what a copy that was interrupted leaves.
                what = "is not valid JSON" if line.endswith(b"\n") else "was cut short"
                raise DataError(f"{file}:{number}: {what}; copy the file again") from None


def _read_parquet(file: Path) -> Iterator[Any]:
    pa, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(file, page_checksum_verification=True) as table_file:
            for batch in table_file.iter_batches(ROW_GROUP):
                for row in batch.to_pylist():
                    yield {name: value for name, value in row.items() if value is not None}
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a whole Parquet file ({error}); copy the file again") from None
