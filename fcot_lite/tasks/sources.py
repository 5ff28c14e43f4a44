"""The data files that tasks read, each pinned by commit and SHA-256.

A file is looked for in the folder `FCOT_DATA`, then in the user's cache, then downloaded into the cache. Both folders
have the same layout: the keys of `SOURCES`.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from fcot_lite.errors import DataError, ResourceError
from fcot_lite.files import write_atomic

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


SOURCES = {
    "grade-school-math/train.jsonl": Source(
        "openai/grade-school-math",
        "3101c7d5072418e28b9008a6636bde82a006892c",
        "grade_school_math/data/train.jsonl",
        "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    ),
    "grade-school-math/test.jsonl": Source(
        "openai/grade-school-math",
        "3101c7d5072418e28b9008a6636bde82a006892c",
        "grade_school_math/data/test.jsonl",
        "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    ),
    "zero_shot_cot/MultiArith/MultiArith.json": Source(
        "kojima-takeshi188/zero_shot_cot",
        "5ef330fcdeec0cd26aee27943504f91f8ec1c33c",
        "dataset/MultiArith/MultiArith.json",
        "dc9db1b6cc68b1ecc2dec830d15aaf8c9a0932aa31d5ffce88ef3628179d36f4",
    ),
    "zero_shot_cot/SVAMP/SVAMP.json": Source(
        "kojima-takeshi188/zero_shot_cot",
        "5ef330fcdeec0cd26aee27943504f91f8ec1c33c",
        "dataset/SVAMP/SVAMP.json",
        "5be77703a6d891ae476d7c082787ad361392aa02453b132516cdd5f4e7934e3e",
    ),
}


def read_source(name: str) -> bytes:
    """The verified content of the file `name`, a key of `SOURCES`.

    Raises DataError where a copy is not the pinned file, or where there is none and it cannot be downloaded;
    ResourceError where the cache cannot be written.
    """
    source = SOURCES[name]
    cached = platformdirs.user_cache_path("fcot-lite") / "data" / name
    offline = os.environ.get("FCOT_DATA")
    for path in [Path(offline).expanduser() / name, cached] if offline else [cached]:
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
