"""Files that are whole or absent: temporary name, fsync, rename, fsync of the folder."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fcot_lite.errors import DataError, ResourceError


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write that replaces `path` when the block ends: after a crash or an error the old content is there,
    never a part of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write or fsync does not know its file
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def disk_fault(error: OSError) -> ResourceError | None:
    """What to tell a user of a failed write or read; None where the disk is not to blame."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(f"{where}the disk is full ({error.strerror}); make room, then run again")
    if error.errno == errno.EIO:
        # Never tried again: after a failed fsync the kernel calls the lost pages written (Rebello et al., ATC'20).
        return ResourceError(
            f"{where}the disk failed ({error.strerror}), and what had not reached it is made again; look at the disk, "
            "then run again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(f"{where}{error.strerror}; make it writable, then run again")
    return None


def write_atomic(path: Path, data: str | bytes) -> None:
    """Replaces `path` by `data`: after a crash the old content or the new is there, never a part."""
    with open_atomic(path) as file:
        file.write(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place, durable, once the block is done. What killed processes
    left of theirs is removed: weights are too large to gather."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if (pid := left.name.removeprefix(f".{path.name}.").partition(".")[0]).isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}{kind}.tmp") for kind in ("", ".old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        fsync_tree(temporary)
        # Two renames in a row: a kill while weights are being deleted would leave neither.
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        fsync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    return pid == os.getpid() or Path(f"/proc/{pid}").exists()


def fsync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Makes everything below `folder` durable."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    fsync_folder(folder)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    # ASCII only: U+2028 or a lone surrogate inside a completion can then neither split a line nor fail to encode.
    with open_atomic(path) as file:
        for row in rows:
            file.write(f"{json.dumps(row)}\n".encode())


def read_json(path: Path) -> Any:
    """The value in `path`. Raises DataError naming the file where it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None


def read_record(path: Path) -> dict[str, Any]:
    """What an earlier run left in `path`; {} where it is missing or damaged, so that it is made again."""
    try:
        value = read_json(path)
    except DataError:
        return {}
    return value if isinstance(value, dict) else {}


def read_jsonl(path: Path) -> list[Any]:
    """The rows of `path` in order. Raises DataError naming file and line."""
    return list(iterate_jsonl(path))


def iterate_jsonl(path: Path) -> Iterator[Any]:
    """The rows of `path`, one in memory at a time. Raises DataError naming file and line."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise DataError(f"{path}:{number}: not valid JSON ({error})") from None
                    yield row
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """A hash of a JSON value that does not depend on key order or white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def lock(path: Path, what: str, waiting: Callable[[str], None] | None = None) -> int:
    """The handle of an open, locked file that names its holder; close it to let go (the end of the process does too).

    Where another process has it: waits, telling `waiting` who has it about once a second, or without `waiting` raises
    ResourceError naming the holder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise ResourceError(f"{path.parent}: is a file, not a folder; give another --runs") from None
    except OSError as error:
        raise ResourceError(f"{path}: {error.strerror}; make the folder writable") from None
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
            if waiting is None:
                os.close(handle)
                raise ResourceError(f"{path}: {what} is in use by {holder}; wait for it, or stop it") from None
            waiting(f"{what} is in use by {holder}")
            time.sleep(1)
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}\n".encode(), 0)
    return handle
