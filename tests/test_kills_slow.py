"""`kill -9` at random moments of a real run: the same command then finishes it, and nothing is lost or made twice.

Once as it runs on a CPU, and once with vLLM's engine in processes of its own, as it runs on a card: there these are
killed too. tests/test_kills.py has many more kills, without a model.
"""

import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fcot_lite.errors import EngineError
from fcot_lite.files import read_json, read_jsonl, read_record
from fcot_lite.process import RECORD

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
RECIPE = Path(__file__).parent / "e2e.yaml"
KILLS = 20
KILLS_OF_EACH = 3  # of the engine's own processes
SECONDS_TO_VANISH = 5
# `fcot` whose stages start vLLM with EngineCore as a process of its own.
SEPARATE_ENGINE = """
import sys
from fcot_lite import cli, pipeline
stage = '''
from fcot_lite.engines import vllm
suggested = vllm.engine_environment
vllm.engine_environment = lambda machine: suggested(machine) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
from fcot_lite.stage import main
main()
'''
pipeline.stage_command = lambda name, run_dir: [sys.executable, "-c", stage, name, str(run_dir)]
cli.main()
"""


def running(run: int, record: Path) -> set[int]:
    """The processes below the run and those of its stage's session."""
    pids = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        pids = {child.pid for child in psutil.Process(run).children(recursive=True)}
    session = read_record(record).get("session")
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session:
                pids.add(pid)
        except ProcessLookupError:
            continue
    return pids


def alive(pids: set[int]) -> Iterator[str]:
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                yield f"{pid} {process.name()}"
        except psutil.NoSuchProcess:
            continue


def kill_at(seconds: float, command: list[str], runs: Path) -> tuple[bool, set[str]]:
    """Kills the run after so long; returns whether it still ran, and the names of the processes it had by then.

    Fails where one of them is alive five seconds later.
    """
    with open(runs / "stderr.log", "ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    time.sleep(seconds)
    record = runs / "e2e" / RECORD
    pids = running(process.pid, record)
    names = {line.split(" ", 1)[1] for line in alive(pids)}
    was_running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    pids |= running(process.pid, record)  # what was started in between
    await_the_end_of(pids)
    return was_running, names


def await_the_end_of(pids: set[int]) -> None:
    deadline = time.monotonic() + SECONDS_TO_VANISH
    while (left := list(alive(pids))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"{SECONDS_TO_VANISH} s after kill -9 there are still: {left}"


def num_stored(store: Path) -> int:
    """How many samples a store holds that was never closed."""
    if not store.exists():
        return 0
    with contextlib.closing(sqlite3.connect(store)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        (count,) = database.execute("SELECT count(*) FROM sample").fetchone() if "sample" in tables else (0,)
    return int(count)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    clock = random.Random("kills")
    kills = 0
    for attempt in range(KILLS):
        if kills >= KILLS:
            break
        kills += killed_until_done(tmp_path / str(attempt), clock)
    assert kills >= KILLS
    print(f"{kills} kills, processes left: 0")


def killed_until_done(runs: Path, clock: random.Random) -> int:
    """Kills a run again and again until one comes through; returns how often."""
    runs.mkdir()
    command = [sys.executable, "-m", "fcot_lite", "run", str(RECIPE), "--runs", str(runs)]
    stored = kills = 0
    while kills < KILLS and not (runs / "e2e" / "result.json").exists():
        kills += kill_at(clock.uniform(0.5, 20), command, runs)[0]
        count = num_stored(runs / "samples.sqlite")
        assert count >= stored, "samples were lost"
        stored = count
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    result = read_json(runs / "e2e" / "result.json")
    samples = read_jsonl(runs / "e2e" / "samples.jsonl")
    assert len({(sample["problem_id"], sample["sample_index"]) for sample in samples}) == 48 == len(samples)
    assert result["teacher"]["samples"] == 48
    assert result["curation"]["kept"] + sum(result["curation"]["dropped"].values()) == 48
    return kills


def test_the_engines_own_processes_go_too(tmp_path: Path) -> None:
    arguments = ["sample", str(RECIPE), "teacher.n=2000", "--runs", str(tmp_path)]
    clock = random.Random("engine kills")
    seen: set[str] = set()
    for kill in range(KILLS):
        # Most of them while vLLM starts: its processes can't follow their parent yet, and only the reaper takes them.
        was_running, names = kill_at(
            clock.uniform(3, 45), [sys.executable, "-c", SEPARATE_ENGINE, *arguments], tmp_path
        )
        seen |= names
        assert was_running, f"kill {kill} came too late"
    assert any("EngineCore" in name for name in seen), f"no engine of its own was ever seen: {seen}"
    print(f"{KILLS} kills with a separate engine, processes left: 0; seen: {sorted(seen)}")


@pytest.mark.parametrize("victim", ["EngineCore", "Worker"])
def test_an_engine_whose_process_dies_fails_the_stage_and_loses_nothing(tmp_path: Path, victim: str) -> None:
    """The first kill falls anywhere in the start, the others while samples are drawn."""
    command = [sys.executable, "-c", SEPARATE_ENGINE, "sample", str(RECIPE), "teacher.n=150", "--runs", str(tmp_path)]
    clock, log, record = random.Random(victim), tmp_path / "stderr.log", tmp_path / "e2e" / RECORD
    stored, seconds_to_fail = [0], []
    for kill in range(KILLS_OF_EACH):
        log.write_text("")
        with open(log, "ab") as stderr:
            run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        drawing = re.compile(r"sample: \d+/\d+ samples") if kill else re.compile("")
        pid = None
        while pid is None or not drawing.search(log.read_text()):
            assert run.poll() is None, log.read_text()
            time.sleep(0.2)
            pid = next((int(line.split()[0]) for line in alive(running(run.pid, record)) if victim in line), None)
        time.sleep(clock.uniform(0, 8))
        pids = running(run.pid, record)
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        assert run.wait(60) == EngineError.exit_code, log.read_text()
        seconds_to_fail.append(time.monotonic() - killed_at)
        assert str(tmp_path / "e2e" / "logs" / "sample.log") in log.read_text(), "it names the log"
        await_the_end_of(pids)
        stored.append(num_stored(tmp_path / "samples.sqlite"))
        assert stored[-1] >= stored[-2], "samples were lost"
        assert kill == 0 or stored[-1] > stored[-2], "what was finished is kept"
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    samples = read_jsonl(tmp_path / "e2e" / "samples.jsonl")
    assert len({(sample["problem_id"], sample["sample_index"]) for sample in samples}) == 16 * 150 == len(samples)
    longest = max(seconds_to_fail)
    print(f"{KILLS_OF_EACH} kills of {victim}, processes left: 0; stored {stored[1:]}; failed within {longest:.1f} s")
