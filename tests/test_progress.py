"""What a run shows: never silent for long, never a control code where no terminal is, never markup from a name."""

import io
import itertools
import json
import os
import sys
from collections.abc import Iterator

import pytest

from fcot_lite import progress
from fcot_lite.progress import Display, Reporter, reporter


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def told(reading: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in os.read(reading, 100_000).splitlines()]


def test_no_terminal_a_line_at_least_every_15_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[float] = []
    with Display() as display:
        display.begin("sample")
        for second in range(200):
            clock.now = 1000 + second
            display.update({"done": second, "total": 200, "note": f"samples, {second * 7} tok/s"})
            if capsys.readouterr().err:
                shown.append(clock.now)
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    assert max(gaps) <= 15
    assert len(shown) < 20, "figures alone that change are no news"


def test_a_stage_that_says_nothing_is_shown_too(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.begin("train")
        for second in range(61):
            clock.now = 1000 + second
            display.tick()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"train: starting ({s} s)" for s in (0, 15, 30, 45, 60)]


def test_news_is_shown_at_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.begin("sample")
        for note in ("loading the model", "loading the model", "samples, 3 tok/s", "samples, 4 tok/s"):
            display.update({"done": 1, "total": 9, "note": note})
        display.begin("curate")
    assert capsys.readouterr().err.splitlines() == [
        "sample: starting (0 s)",
        "sample: 1/9 loading the model (0 s)",
        "sample: 1/9 samples, 3 tok/s (0 s)",
        "curate: starting (0 s)",
    ]


HOSTILE = "[red]x[/] [/nothing] :cat: \\[bold] " + "long " * 60


def test_without_a_terminal_there_are_no_control_codes_and_lines_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.begin("sample")
        display.update({"done": 0, "total": 0, "note": HOSTILE})
        display.say(HOSTILE)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\x1b" not in captured.err
    assert captured.err.splitlines()[1:] == [f"sample: {HOSTILE} (0 s)", HOSTILE]


def test_on_a_terminal_markup_in_a_note_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with Display() as display:
        display.begin("sample")
        display.update({"done": 0, "total": 0, "note": "[red]x[/] [/nothing] :cat:"})  # would raise MarkupError
        display.say("[/nothing] :cat:")
    assert "[red]x[/] [/nothing] :cat:" in terminal.getvalue()


def test_the_live_line_ends_with_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    def interrupted() -> None:
        with Display() as display:
            display.begin("sample")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1  # the cursor is back


def test_a_reporter_writes_twice_a_second_and_whatever_comes_last(clock: Clock, pipe: tuple[int, int]) -> None:
    report = Reporter(pipe[1])
    for step in range(100):
        clock.now += 0.01
        report(step, 100, f"steps, {step} tok/s")
    report(100, 100, "steps, 100 tok/s")
    done = [message["done"] for message in told(pipe[0])]
    assert done[0] == 0
    assert done[-1] == 100
    assert len(done) <= 4


def test_a_change_of_what_is_done_is_told_at_once(clock: Clock, pipe: tuple[int, int]) -> None:
    report = Reporter(pipe[1])
    for note in ("loading", "samples, 1", "samples, 2", "merging"):
        report(1, 9, note)
    assert [message["note"] for message in told(pipe[0])] == ["loading", "samples, 1", "merging"]


def test_a_fault_is_one_line_whatever_it_holds(pipe: tuple[int, int]) -> None:
    Reporter(pipe[1]).fail("two\nlines \ud800 \u2028")
    assert told(pipe[0]) == [{"error": "two\nlines \ud800 \u2028"}]


def test_a_line_that_stays_is_no_progress(pipe: tuple[int, int]) -> None:
    report = Reporter(pipe[1])
    report(1, 9, "samples")
    report.say("a new sampling run")
    assert told(pipe[0])[1:] == [{"say": "a new sampling run"}]


def test_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(progress.PROGRESS_FD, raising=False)
    report = reporter()
    report(1, 2, "x")
    report.say("x")
    report.fail("x")


def test_the_handle_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    monkeypatch.setenv(progress.PROGRESS_FD, str(pipe[1]))
    reporter()(1, 2, "x")
    assert told(pipe[0]) == [{"done": 1, "total": 2, "note": "x"}]
