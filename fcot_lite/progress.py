"""What a running stage tells the process that watches it: JSON lines through an inherited pipe, shown as one line."""

import json
import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.status import Status
from rich.text import Text

PROGRESS_FD = "FCOT_PROGRESS_FD"
_SECONDS_BETWEEN = 0.5
_SECONDS_BETWEEN_PLAIN_LINES = 15  # no silence of 30 s, even when a look comes late


class Reporter:
    """The stage's side. Called with (done, total, note); writes at most twice a second, and whatever comes last."""

    def __init__(self, handle: int | None) -> None:
        self._handle = handle
        self._last = 0.0
        self._note = ""

    def __call__(self, done: int, total: int, note: str) -> None:
        now, what = time.monotonic(), note.split(",")[0]
        if now - self._last < _SECONDS_BETWEEN and done < total and what == self._note:
            return
        self._last, self._note = now, what
        self._write({"done": done, "total": total, "note": note})

    def say(self, line: str) -> None:
        """A line that stays on the user's screen."""
        self._write({"say": line})

    def fail(self, message: str) -> None:
        """What the user will read when the stage has ended."""
        self._write({"error": message})

    def _write(self, message: dict[str, object]) -> None:
        if self._handle is not None:
            os.write(self._handle, (json.dumps(message) + "\n").encode())


def reporter() -> Reporter:
    """The reporter of this stage; silent where nobody watches."""
    handle = os.environ.get(PROGRESS_FD)
    return Reporter(int(handle) if handle else None)


class Display:
    """The watcher's side, on stderr: one live line where it is a terminal, else a plain line when something changes
    and at least every 15 seconds."""

    def __init__(self) -> None:
        # Notes and file names are shown as they are: [red] and :cat: are text.
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._live: Status | None = None
        self._stage, self._text, self._started, self._shown, self._shown_at = "", "", 0.0, "", 0.0

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live = self._console.status("")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, stage: str) -> None:
        self._stage, self._text, self._shown = stage, "starting", ""
        self._started = time.monotonic()
        self.tick()

    def update(self, message: dict[str, object]) -> None:
        done, total, note = message["done"], message["total"], str(message["note"])
        self._text = f"{done}/{total} {note}" if total else note
        self.tick()

    def tick(self) -> None:
        """Shows the present state; call it often."""
        now = time.monotonic()
        line = f"{self._stage}: {self._text} ({now - self._started:.0f} s)"
        if self._live is not None:
            self._live.update(Text(line))
            return
        what = "".join(c for c in self._text.split(",")[0] if not c.isdigit())
        if what != self._shown or now - self._shown_at >= _SECONDS_BETWEEN_PLAIN_LINES:
            self._shown, self._shown_at = what, now
            self.say(line)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, soft_wrap=True)
        sys.stderr.flush()
