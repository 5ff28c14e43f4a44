"""The data files that tasks read, each pinned by commit and SHA-256.

A file is looked for in the folder `FCOT_DATA`, then in the user's cache, then downloaded into the cache. Both folders
have the same layout: the keys of `SOURCES`.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs

from fcot_lite.errors import DataError, ResourceError
from fcot_lite.files import write_atomic
from fcot_lite.records import Problem

HOST = "https://raw.githubusercontent.com"
TIMEOUT_SECONDS = 30
LARGEST_FILE_BYTES = 2**26  # the largest file below has 4 MB; a runaway answer stops here


@dataclass(frozen=True, slots=True)
class Source:
    repository: str
    commit: str
    path: str
    sha256: str

    @property
    def url(self) -> str:
        return f"{HOST}/{self.repository}/{self.commit}/{self.path}"


def _pinned(folder: str, repository: str, commit: str, above: str, sums: dict[str, str]) -> dict[str, Source]:
    return {f"{folder}/{path}": Source(repository, commit, f"{above}/{path}", sums[path]) for path in sums}


SOURCES = _pinned(
    "grade-school-math",
    "openai/grade-school-math",
    "3101c7d5072418e28b9008a6636bde82a006892c",
    "grade_school_math/data",
    {
        "train.jsonl": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
        "test.jsonl": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    },
) | _pinned(
    "zero_shot_cot",
    "kojima-takeshi188/zero_shot_cot",
    "5ef330fcdeec0cd26aee27943504f91f8ec1c33c",
    "dataset",
    {
        "AQuA/test.json": "de41581881ef95c5588c44ddc701c77fd480839241dd422a0d181262af24520c",
        "AddSub/AddSub.json": "21930fa90385c72b5a15f4b9a4dda27276b889ae9ff44285505cdd9fa0a20df8",
        "Bigbench_Date/task.json": "ff716f0e399109146db3a998281c39954907b78268a9b633a95582d63847822f",
        "Bigbench_object_tracking/task.json": "74b74d3c8827c0387a3f24ee9efa7edd90b2d53af3daacb9961341af66f750a0",
        "CommonsenseQA/dev_rand_split.jsonl": "3210497fdaae614ac085d9eb873dd7f4d49b6f965a93adadc803e1229fd8a02a",
        "CommonsenseQA/train_rand_split.jsonl": "58ffa3c8472410e24b8c43f423d89c8a003d8284698a6ed7874355dedd09a2fb",
        "MultiArith/MultiArith.json": "dc9db1b6cc68b1ecc2dec830d15aaf8c9a0932aa31d5ffce88ef3628179d36f4",
        "SVAMP/SVAMP.json": "5be77703a6d891ae476d7c082787ad361392aa02453b132516cdd5f4e7934e3e",
        "SingleEq/questions.json": "051507bd2b489c257057b485774a83d2710c23a4bc0f4a58e1822ae2773ef05e",
        "StrategyQA/task.json": "60af9081fed20102fd8bb1e02dc7d9f12238efcba33e4c1a56b4d61cb6409803",
        "coin_flip/coin_flip.json": "68cf201737a1463ef6bed5419622805a8934d92bff6a28a9dfbf83be3135ba5a",
        "last_letters/last_letters.json": "60e8d092d0a6423d3256e87e0c249b69aefea4cd27985082095fa4e93931fb02",
    },
)


def is_here(name: str) -> bool:
    """Whether the file `name`, a key of `SOURCES`, is in FCOT_DATA or in the cache; its content is not looked at."""
    return any(path.is_file() for path in _places(name))


def json_problems(name: str, parse: Callable[[Any], Problem]) -> list[Problem]:
    """What `parse` makes of each row of a JSON list, or of a BIG-bench file's "examples"; ids are the rows' indices.

    Raises DataError naming file and row, and as `read_source` does.
    """
    rows = _json(read_source(name), name)
    rows = rows.get("examples") if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise DataError(f"{name}: not a list of rows")
    return [_problem(index, row, f"{name}: row {index}", parse) for index, row in enumerate(rows)]


def jsonl_problems(name: str, parse: Callable[[Any], Problem]) -> list[Problem]:
    """What `parse` makes of each line; ids are the lines' indices, from 0. Raises as `json_problems` does."""
    # Split at b"\n" alone: str.splitlines would also cut at a U+2028 inside a question.
    lines = read_source(name).removesuffix(b"\n").split(b"\n")
    return [
        _problem(index, _json(line, f"{name}:{index + 1}"), f"{name}:{index + 1}", parse)
        for index, line in enumerate(lines)
    ]


def _problem(index: int, row: Any, where: str, parse: Callable[[Any], Problem]) -> Problem:
    try:
        return replace(parse(row), id=str(index))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: not a row of this data set ({type(error).__name__}: {error})") from None


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error})") from None


def read_source(name: str) -> bytes:
    """The verified content of the file `name`, a key of `SOURCES`.

    Raises DataError where a copy is not the pinned file, or where there is none and it cannot be downloaded;
    ResourceError where the cache cannot be written.
    """
    source = SOURCES[name]
    *_, cached = places = _places(name)
    for path in places:
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        return _verified(content, source, str(path), "Delete it or replace it by")
    content = _verified(_download(name, source, cached), source, source.url, "A proxy may have answered instead of")
    try:
        write_atomic(cached, content)
    except OSError as error:
        raise ResourceError(
            f"{cached}: cannot be written ({error.strerror}). Put {source.url} at {name} in a folder and name that "
            "folder in the environment variable FCOT_DATA"
        ) from error
    return content


def _places(name: str) -> list[Path]:
    """Where the file may lie, in the order in which it is looked for; the cache is the last."""
    offline = os.environ.get("FCOT_DATA")
    cached = platformdirs.user_cache_path("fcot-lite") / "data" / name
    return [Path(offline).expanduser() / name, cached] if offline else [cached]


def _verified(content: bytes, source: Source, where: str, advice: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise DataError(f"{where}: SHA-256 is {found}, expected {source.sha256}. {advice} {source.url}")
    return content


def _download(name: str, source: Source, cached: Path) -> bytes:
    # Imported here: together they take longer than the rest of the command line's start.
    import http.client
    import urllib.request

    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT_SECONDS) as response:
            content: bytes = response.read(LARGEST_FILE_BYTES)
            return content
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{name} is neither in FCOT_DATA ({os.environ.get('FCOT_DATA') or 'not set'}) nor in the cache, and "
            f"{source.url} cannot be downloaded ({error}). Without a network put that file at {cached}, or at {name} "
            "in a folder named by FCOT_DATA. Word problems that need no file: make distill TASK=rg:gsm_symbolic"
        ) from error
