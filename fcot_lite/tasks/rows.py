"""Rows of data files that others made: JSONL, CSV, Parquet and data sets of the hub.

A row that can't be read costs that row and no other, and comes back as the reason. Rows are numbered as an editor
numbers lines (JSONL, CSV: the line a row begins in), or from 1 (Parquet, hub). A line longer than `MAX_ROW_BYTES` is
never held whole.
"""

import codecs
import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from fcot_lite.errors import DataError, ResourceError
from fcot_lite.task_block import Hub

MAX_ROW_BYTES = 1_000_000  # some 250,000 tokens: no model here reads more
BATCH_ROWS = 1_000
FIRST_ROWS = 100  # by which the columns of a JSONL file are told
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class BadRowError(ValueError):
    """Why one row can't be used: a reason that is counted, and what was found."""

    def __init__(self, reason: str, found: str = "") -> None:
        super().__init__(reason, found)
        self.reason, self.found = reason, found


Rows = Iterator[tuple[int, dict[str, Any] | BadRowError]]


def data_file(name: str) -> Path:
    """The file that a recipe names, `~` filled in. Raises DataError where there is none, or nothing in it."""
    try:
        path = Path(name).expanduser()
        if path.is_file():  # a pipe or a device would never end
            if path.stat().st_size == 0:
                raise DataError(f"{path}: is empty; give it a row for each question")
            return path
        what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "no such file"
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, the home of nobody
        raise DataError(f"{name[:200]}: cannot be a file ({getattr(error, 'strerror', None) or error})") from None
    raise DataError(f"{path}: {what}; relative paths start at the current folder, {Path.cwd()}")


def file_rows(path: Path, columns: Sequence[str], max_row_bytes: int = MAX_ROW_BYTES) -> Rows:
    """The rows of a .jsonl, .csv or .parquet file, each with its number; empty lines are no rows.

    Raises DataError where the file can't be read as a whole, or its head lacks one of the columns; ResourceError where
    the package for Parquet is missing.
    """
    try:
        if path.suffix.lower() == ".parquet":
            yield from _parquet(path, columns)
            return
        with open(path, "rb") as file:
            if file.read(2) in UTF16:
                raise DataError(f"{path}: is UTF-16; save it as UTF-8")
            file.seek(0)
            lines = _lines(file, max_row_bytes)
            yield from _csv(path, lines, columns) if path.suffix.lower() == ".csv" else _jsonl(lines)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def column_names(path: Path) -> list[str]:
    """The columns of a .jsonl, .csv or .parquet file: of JSONL those of its first rows; [] where none can be read.

    Raises as `file_rows` does.
    """
    if path.suffix.lower() == ".parquet":
        return _parquet_columns(path)
    return keys(row for _, row in file_rows(path, ()))


def keys(rows: Iterable[dict[str, Any] | BadRowError]) -> list[str]:
    """The keys of the first rows that can be read."""
    readable = islice((row for row in rows if isinstance(row, dict)), FIRST_ROWS)
    return list(dict.fromkeys(key for row in readable for key in row))


def jsonl_rows(file: BinaryIO, max_row_bytes: int) -> Rows:
    """The rows of an open JSONL file, each with its line's number; empty lines are no rows. Holds one row at a time."""
    return _jsonl(_lines(file, max_row_bytes))


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str
    fault: BadRowError | None = None


def _lines(file: BinaryIO, max_row_bytes: int) -> Iterator[_Line]:
    """Cut at line feeds alone: str.splitlines would also cut at a U+2028 inside a question."""
    number = 0
    while line := file.readline(max_row_bytes + 1):
        number += 1
        if len(line) > max_row_bytes and not line.endswith(b"\n"):
            while not line.endswith(b"\n") and (line := file.readline(max_row_bytes)):
                pass
            yield _Line(number, "", BadRowError("too long", f"a line of more than {max_row_bytes:,} bytes"))
            continue
        try:
            yield _Line(number, (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode())
        except UnicodeDecodeError as error:
            found = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
            yield _Line(number, "", BadRowError("not UTF-8", found))


def _jsonl(lines: Iterator[_Line]) -> Rows:
    for line in lines:
        if line.fault:
            yield line.number, line.fault
        elif line.number == 1 and line.text.startswith("["):
            yield 1, BadRowError("not an object", "is the file one JSON array? Write one {…} a line, without commas")
        elif text := line.text.rstrip(" \t\r\n"):
            yield line.number, _json_object(text)


def _json_object(text: str) -> dict[str, Any] | BadRowError:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except BadRowError as error:
        return error
    except json.JSONDecodeError as error:
        return BadRowError("not valid JSON", f"{error.msg.removesuffix(' at')} at position {error.colno}")
    except RecursionError:  # 100,000 brackets
        return BadRowError("not valid JSON", "nested too deeply")
    except ValueError:  # Python reads no more at once
        return BadRowError("not valid JSON", "a number of more than 4,300 digits")
    if not isinstance(value, dict):
        return BadRowError("not an object", f"one {{…}} a line is a row; this is {kind_of(value)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object. Raises BadRowError where a key stands in it twice: json would silently take the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise BadRowError("a key twice", ascii(next(key for key in keys if keys.count(key) > 1)))
    return value


def _csv(path: Path, lines: Iterator[_Line], columns: Sequence[str]) -> Rows:
    csv.field_size_limit(MAX_ROW_BYTES)  # 131,072 where nobody says otherwise
    records = _csv_records(lines)
    number, head = next(((n, cells) for n, cells in records if cells), (1, []))
    if isinstance(head, BadRowError):
        raise DataError(f"{path}:{number}: the head of the columns is {head.reason} ({head.found})")
    _check_columns(path, columns, head)
    for number, cells in records:
        if isinstance(cells, BadRowError):
            yield number, cells
        elif len(cells) == len(head):
            yield number, dict(zip(head, cells, strict=True))
        elif cells:
            yield number, BadRowError("wrong number of cells", f"{len(cells)}; the head has {len(head)}")


def _csv_records(lines: Iterator[_Line]) -> Iterator[tuple[int, list[str] | BadRowError]]:
    """One record may run over several lines. Where it is broken its first line alone is lost: a quote that nobody
    closes would else take the rows behind it along."""
    waiting: deque[_Line] = deque()
    taken: list[_Line] = []

    def take() -> Iterator[str]:
        while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
            taken.append(line)
            if line.fault:
                raise line.fault
            yield line.text

    while True:
        taken.clear()
        try:
            cells = next(csv.reader(take(), strict=True))
        except StopIteration:
            return
        except (csv.Error, BadRowError) as error:
            first, *rest = taken
            waiting.extendleft(reversed(rest))
            yield first.number, first.fault or BadRowError("not valid CSV", error.args[0])
        else:
            yield taken[0].number, cells


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ResourceError(f"{path}: Parquet needs the package pyarrow ({error}); pip install pyarrow") from error
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error


def _parquet_columns(path: Path) -> list[str]:
    with _parquet_file(path) as file:
        return list(file.schema_arrow.names)


def _parquet(path: Path, columns: Sequence[str]) -> Rows:
    with _parquet_file(path) as file:
        _check_columns(path, columns, file.schema_arrow.names)
        number = 1
        for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
            yield from _arrow_rows(batch, columns, number)
            number += batch.num_rows


def hub_rows(hub: Hub, columns: Sequence[str]) -> dict[str, Rows]:
    """For each split of the data set its rows. It is downloaded into the cache of `datasets`, unless it is there.

    Raises DataError where it can't be had or lacks a column, ResourceError where the package `datasets` is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise ResourceError(f"task.hub needs the package datasets ({error}); make setup brings it") from error
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(hub.name, hub.config, revision=hub.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{hub.name}: cannot be had from the hub ({' '.join(str(error).split())[:300]}). Without a network fetch "
            "it elsewhere, save each split with .to_json('train.jsonl') and name the files in task.path"
        ) from error
    for name, data in loaded.items():
        _check_columns(f"{hub.name}, split {name}", columns, data.column_names)
    return {str(name): _hub_split(data, columns) for name, data in loaded.items()}


def _hub_split(data: Any, columns: Sequence[str]) -> Rows:
    number = 1
    for table in data.select_columns(list(columns)).with_format("arrow").iter(BATCH_ROWS):
        yield from _arrow_rows(table, columns, number)
        number += table.num_rows


def _arrow_rows(table: Any, columns: Sequence[str], first: int = 1) -> Rows:
    for i in range(table.num_rows):
        try:
            yield first + i, {name: _arrow_value(table.column(name)[i]) for name in columns}
        except UnicodeDecodeError:
            yield first + i, BadRowError("not UTF-8")
        except (ValueError, OverflowError) as error:  # a date that Python doesn't have
            yield first + i, BadRowError("wrong type", str(error))


def _arrow_value(cell: Any) -> Any:
    if str(cell.type) in ("float", "halffloat") and cell.is_valid:
        return float(cell.cast("string").as_py())  # as_py() makes 0.10000000149011612 of a 0.1 in 32 bits
    return cell.as_py()


def _check_columns(where: object, columns: Sequence[str], there: Sequence[str]) -> None:
    for column in columns:
        if column not in there:
            hint = "".join(
                f". Is it separated by {mark!r}? Save it with commas"
                for mark in (";", "\t", "|")
                if len(there) == 1 and mark in there[0]
            )
            raise DataError(f"{where}: no column {column!r}; there are: {', '.join(map(repr, there))[:500]}{hint}")
        if there.count(column) > 1:
            raise DataError(f"{where}: more than one column is called {column!r}; rename one")


def kind_of(value: object) -> str:
    """What a JSON value is, in a reader's words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
