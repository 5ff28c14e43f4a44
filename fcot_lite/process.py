"""A stage as a child process in a session of its own, and nothing of it outlives the run, whatever ends the run.

Three things see to that. The stage is killed with its parent (lifeline.py), and so are vLLM's own processes once they
have loaded our plugin. Before that, for the seconds in which they only import, a reaper holds a pipe from the run: when
the pipe ends, it kills the stage's process group. And should something be left all the same, each stage's session is on
disk while it runs, so that the next run finds what is left of it.
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from fcot_lite.engines.lifeline import LIFELINE
from fcot_lite.engines.memory import LOWER_MEMORY, ran_out_of_memory
from fcot_lite.errors import INTERRUPTED, EngineError, FcotError, ResourceError
from fcot_lite.files import read_record, write_json
from fcot_lite.progress import PROGRESS_FD, Display

RECORD = "stages/process.json"  # in the run's folder, while a stage runs
SECONDS_TO_DRAIN = 10  # what a stage gets to stop by itself after Ctrl-C
LOG_TAIL_BYTES = 65536
# An end of file, and not a line, means that the run has died: the run writes one before it ends the reaper.
REAPER = 'read -r _ || kill -s KILL -- "-$0"'
# The exception at the end of a traceback, also behind vLLM's "(EngineCore pid=1) ERROR 11-22 [core.py:9] ".
EXCEPTION = re.compile(r"(?:^|\s)((?:\w+\.)*\w+(?:Error|Exception): .+)$")
CAUSE_IS_ELSEWHERE = "See root cause above"  # vLLM 0.32, v1/engine/utils.py: the engine's own process has logged it


class Watch(Protocol):
    """A meter that is told now and then to save itself."""

    def save_sometimes(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Orphan:
    """A process that an earlier run left behind."""

    pid: int
    name: str


def run_stage(
    name: str,
    command: Sequence[str],
    log: Path,
    record: Path,
    environment: dict[str, str],
    display: Display,
    watch: Callable[[int], Watch],
) -> None:
    """Runs the stage to its end, its output appended to `log`; `watch(pid)` measures it.

    While it runs, `record` names its session. Raises the fault that the stage ended with, naming stage, reason and
    log; KeyboardInterrupt where it was interrupted. A first interrupt of ours lets it finish what is under way, a
    second one, or SECONDS_TO_DRAIN, kills it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log_start = log.stat().st_size if log.exists() else 0
    reading, writing = os.pipe()
    display.begin(name)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[writing],
            # Unbuffered: the last lines before a crash are the ones that are needed.
            env=os.environ
            | environment
            | {PROGRESS_FD: str(writing), LIFELINE: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
        )
    message, reaper, meter = "", None, None
    try:
        os.close(writing)
        reaper = subprocess.Popen(
            ["/bin/sh", "-c", REAPER, str(process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        meter = watch(process.pid)
        write_json(record, _identity(process.pid))
        message = _follow(process, reading, display, meter)
    except KeyboardInterrupt:
        display.say(f"{name}: stopping; what is finished is kept")
        _drain(process)
        raise
    finally:
        _kill_group(process)  # first: a full disk must not keep the meter from it
        os.close(reading)
        if reaper is not None:
            reaper.communicate(b"\n")
        if meter is not None:
            meter.stop()
        record.unlink(missing_ok=True)
    if process.returncode == 0:
        return
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    where = f"\n  the whole log: {log}"
    if process.returncode == -signal.SIGKILL:
        raise ResourceError(
            f"{name}: was killed, most likely because memory ran out; take a smaller model, batch or "
            f"engine.max_num_seqs{where}"
        )
    faults = {fault.exit_code: fault for fault in FcotError.__subclasses__()}
    fault = faults.get(process.returncode, EngineError)
    if not message or CAUSE_IS_ELSEWHERE in message:
        words = last_words(log, log_start)
        if not message:
            message = f"{_end(process.returncode)}; its last words: {words or 'none'}"
        else:
            message = f"{message}\n  the engine's own process says: {words}"
        if ran_out_of_memory(words):
            fault, message = ResourceError, f"{message}\n  {LOWER_MEMORY}"
    raise fault(f"{name}: {message}{where}")


def _follow(process: subprocess.Popen[bytes], reading: int, display: Display, meter: Watch) -> str:
    """Shows the stage's progress until it ends; returns its last words."""
    buffered, error = b"", ""
    while True:
        ended = process.poll() is not None  # asked before reading: its last words may come between
        ready, _, _ = select.select([reading], [], [], 1.0)
        chunk = os.read(reading, 65536) if ready else b""
        *lines, buffered = (buffered + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "error" in message:
                error = message["error"]
            elif "say" in message:
                display.say(message["say"])
            else:
                display.update(message)
        display.tick()
        meter.save_sometimes()
        if ended and not chunk:
            return error
        if ready and not chunk:  # all writers are gone, the process is about to end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)


def _drain(process: subprocess.Popen[bytes]) -> None:
    """The stage's main process first: its engine has to live until what is finished is stored."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(SECONDS_TO_DRAIN)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends whatever is left of the stage's process group, and waits for the stage itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with code {returncode} without saying why"


def last_words(log: Path, start: int = 0) -> str:
    """The last exception in the log from byte `start` on, else its last line; "" where there is none."""
    with open(log, "rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    for line in reversed(lines):
        if (found := EXCEPTION.search(line)) and CAUSE_IS_ELSEWHERE not in line:
            return found[1]
    return lines[-1] if lines else ""


# ---- what an earlier run may have left ---------------------------------------------------------------------------


def _identity(pid: int) -> dict[str, Any]:
    """What makes the number of a session unmistakable: this boot, this container, and when the stage was started."""
    return {
        "session": pid,
        "started_ticks": _started_ticks(pid),
        "init_ticks": _started_ticks(1),  # a container that is started anew can get its old namespace's number
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "namespace": os.readlink("/proc/self/ns/pid"),
    }


def _started_ticks(pid: int) -> int:
    """When the process was started, in clock ticks since boot: unlike a time of day, nobody sets it."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])  # proc(5): field 22; the name before it may hold anything


def orphans(record: Path) -> list[Orphan]:
    """The processes still alive of the stage that `record` names, whose run must be known to be dead."""
    known, here = read_record(record), _identity(os.getpid())
    if any(known.get(key) != here[key] for key in ("boot", "namespace", "init_ticks")):
        return []
    session, started = known.get("session"), known.get("started_ticks")
    if not isinstance(session, int) or not isinstance(started, int) or session <= 1:
        return []
    with contextlib.suppress(OSError):
        if _started_ticks(session) != started:
            return []  # the number was given out again, to a stranger
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it may end while we look
            # The kernel gives a session's number to nobody else while one of its processes lives.
            if (
                os.getsid(process.pid) == session
                and _started_ticks(process.pid) >= started
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(Orphan(process.pid, process.name()))
    return found


def end_orphans(record: Path, display: Display) -> None:
    """Names what is left of an earlier run's stage, which may hold a card's memory, and ends it."""
    for orphan in orphans(record):
        display.say(f"ending process {orphan.pid} ({orphan.name}), left behind by an earlier run")
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan.pid, signal.SIGKILL)
    record.unlink(missing_ok=True)
