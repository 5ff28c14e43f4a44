"""Nothing of a stage outlives its run: not what ignores signals, not what was starting, not what was overlooked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fcot_lite import process
from fcot_lite.errors import EngineError, FcotError, ResourceError
from fcot_lite.files import read_json, write_json
from fcot_lite.progress import Display

pytestmark = pytest.mark.real

# A stage that starts a child of its own, as vLLM starts EngineCore, and waits; both without a lifeline.
STAGE = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(1000)
"""
RUN = """
import sys
from pathlib import Path
from fcot_lite import process
from fcot_lite.progress import Display

class NoMeter:
    def save_sometimes(self): pass
    def stop(self): pass

folder = Path(sys.argv[1])
command = [sys.executable, "-c", sys.argv[2], str(folder / "child")]
process.run_stage("sample", command, folder / "log", folder / "record.json", {}, Display(), lambda pid: NoMeter())
"""


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def number(file: Path) -> int:
    wait_for(lambda: file.exists() and file.read_text())
    return int(file.read_text())


@pytest.fixture
def run(tmp_path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), STAGE], stderr=subprocess.DEVNULL)


def test_the_reaper_takes_what_has_no_lifeline(run: subprocess.Popen[bytes], tmp_path: Path) -> None:
    child = number(tmp_path / "child")
    wait_for((tmp_path / "record.json").exists)
    stage = read_json(tmp_path / "record.json")["session"]
    assert alive(stage)
    assert os.getsid(child) == stage
    run.kill()
    run.wait()
    wait_for(lambda: not alive(child) and not alive(stage), seconds=5)
    # What the dead run left on disk names nobody any more.
    assert process.orphans(tmp_path / "record.json") == []


def test_an_orphan_is_named_and_ended(
    run: subprocess.Popen[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = number(tmp_path / "child")
    record = tmp_path / "record.json"
    wait_for(record.exists)
    stage = read_json(record)["session"]
    for reaper in psutil.Process(run.pid).children():
        if reaper.pid != stage:
            reaper.kill()
    run.kill()
    run.wait()
    os.kill(stage, signal.SIGKILL)
    time.sleep(0.2)
    assert alive(child), "without its reaper it is an orphan"
    assert [orphan.pid for orphan in process.orphans(record)] == [child]
    with Display() as display:
        process.end_orphans(record, display)
    assert f"ending process {child} (python" in capsys.readouterr().err
    wait_for(lambda: not alive(child))
    assert not record.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"boot": "another"},
        {"namespace": "pid:[1]"},
        {"init_ticks": -1},
        {"session": 0},
        {"session": None},
        {"started_ticks": 10**15},
        {"started_ticks": 1},
        {"started_ticks": None},
    ],
    ids=str,
)
def test_a_stranger_with_the_same_number_is_left_alone(tmp_path: Path, change: dict[str, object]) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    record = tmp_path / "record.json"
    try:
        known = process._identity(stranger.pid)
        write_json(record, known)
        assert [orphan.pid for orphan in process.orphans(record)] == [stranger.pid]
        write_json(record, known | change)
        assert process.orphans(record) == []
        with Display() as display:
            process.end_orphans(record, display)
        assert alive(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"session": "x"}', "\x00\x00"])
def test_a_damaged_record_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    assert process.orphans(tmp_path / "record.json") == []
    assert process.orphans(tmp_path / "missing.json") == []


TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n'
VLLM = "(EngineCore pid=7) ERROR 11-22 10:00:00 [core.py:1108] "


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("\n \n", ""),
        ("one\ntwo\n\n", "two"),
        (TRACEBACK + "ValueError: no room\n", "ValueError: no room"),
        (TRACEBACK + "torch.OutOfMemoryError: 3 GiB\nbye\n", "torch.OutOfMemoryError: 3 GiB"),
        (
            f"{VLLM}ValueError: No available memory for the cache blocks.\n"
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n",
            "ValueError: No available memory for the cache blocks.",
        ),
        ("Error: nothing\nthe Exception was none\n", "the Exception was none"),
        ("bad \xff bytes", "bad \xff bytes"),
    ],
)
def test_last_words(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "log").write_text(log)
    assert process.last_words(tmp_path / "log") == words


def test_last_words_of_this_attempt_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"ValueError: yesterday\n")
    start = log.stat().st_size
    log.write_bytes(log.read_bytes() + b"x" * 10_000_000 + b"\nKeyError: today\n\xff\xfe\n")
    assert process.last_words(log, start) == "KeyError: today"
    assert process.last_words(log, log.stat().st_size) == ""


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("ValueError: no such kernel", EngineError),
        ("ValueError: No available memory for the cache blocks. Try increasing it", ResourceError),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", ResourceError),
    ],
)
def test_a_vague_fault_is_followed_by_its_cause(tmp_path: Path, cause: str, kind: type[FcotError]) -> None:
    class NoMeter:
        def save_sometimes(self) -> None: ...

        def stop(self) -> None: ...

    stage = (
        "import json, os, sys\n"
        f"print({VLLM!r} + {cause!r})\n"
        "message = {'error': 'vLLM could not start: Engine core initialization failed. See root cause above.'}\n"
        "os.write(int(os.environ['FCOT_PROGRESS_FD']), json.dumps(message).encode() + b'\\n')\n"
        "sys.exit(5)\n"
    )
    with pytest.raises(FcotError) as raised, Display() as display:
        process.run_stage(
            *("sample", [sys.executable, "-c", stage], tmp_path / "log", tmp_path / "record", {}, display),
            lambda pid: NoMeter(),
        )
    assert type(raised.value) is kind
    assert f"the engine's own process says: {cause}" in str(raised.value)
    assert ("lower engine.max_num_seqs" in str(raised.value)) == (kind is ResourceError)
    assert str(tmp_path / "log") in str(raised.value)
    assert not (tmp_path / "record").exists()
