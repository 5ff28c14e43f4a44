"""What a running stage tells the process that watches it: one JSON line per change, through an inherited pipe."""

import json
import os
import time
from dataclasses import dataclass

PROGRESS_FD = "FCOT_PROGRESS_FD"
_SECONDS_BETWEEN = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    total: int
    note: str


class Reporter:
    """Called with (done, total, note); writes at most twice a second, and always the last step."""

    def __init__(self, handle: int | None) -> None:
        self._handle = handle
        self._last = 0.0
        self._note = ""

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if self._handle is None or (
            now - self._last < _SECONDS_BETWEEN and done < total and note.split(",")[0] == self._note
        ):
            return
        self._last, self._note = now, note.split(",")[0]
        os.write(self._handle, (json.dumps([done, total, note]) + "\n").encode())


def reporter() -> Reporter:
    """The reporter of this stage; silent where nobody watches."""
    handle = os.environ.get(PROGRESS_FD)
    return Reporter(int(handle) if handle else None)


def parse(line: bytes) -> Progress:
    done, total, note = json.loads(line)
    return Progress(int(done), int(total), str(note))
