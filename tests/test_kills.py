"""`kill -9`, Ctrl-C and SIGTERM at random moments of a sampling run: the next one goes on, and nothing is lost, made
twice or decided otherwise.

Real processes, signals and SQLite; the engine is a fake one whose core and worker are processes of their own. What is
the same with a model and vLLM is in tests/test_kills_slow.py.
"""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import light_stage
import psutil
import pytest

from fcot_lite.errors import INTERRUPTED, EngineError
from fcot_lite.recipe import STORE
from fcot_lite.store import SampleStore

pytestmark = pytest.mark.real
KILLS = 16  # for each policy
INTERRUPTS = 6
ATTEMPTS = 10  # runs for each stop that is wanted: where the machine gets faster meanwhile, many end before theirs
POLICIES: dict[str, dict[str, Any]] = {"n": {"n": 6}, "until": {"until": {"accept": 2, "max": 8}}}


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def stored(folder: Path) -> set[str]:
    """The keys of all samples in the store, by which the engine knows them."""
    with SampleStore(folder / STORE) as store:
        rows = store._database.execute("SELECT campaign, problem_id, prompt_hash, sample_index FROM sample").fetchall()
    return {"/".join(map(str, row)) for row in rows}


def question_and_index(key: str) -> tuple[str, int]:
    _, *problem_id, _, index = key.split("/")
    return "/".join(problem_id), int(index)


def vanished(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


@pytest.fixture(scope="module", params=POLICIES)
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted run: its policy, how long it took, its samples.jsonl and its keys."""
    policy = POLICIES[request.param]
    folder = light_stage.prepare(tmp_path_factory.mktemp("straight"), **policy)
    light_stage.start(folder).join()  # what is loaded once is loaded now
    folder = light_stage.prepare(tmp_path_factory.mktemp("straight"), **policy)
    started = time.monotonic()
    run = light_stage.start(folder)
    run.join()
    assert run.exitcode == 0, lines(folder / "log")
    return policy, time.monotonic() - started, (folder / "light" / "samples.jsonl").read_bytes(), stored(folder)


class Stopped:
    """One run after another in a folder, each stopped; counts what was finished, lost and made twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: set[str] = set()
        self.lost = 0
        self.codes: list[int] = []

    def once(self, seconds: float, victims: Iterator[str], number: int) -> bool:
        """Whether it came in time."""
        seen = [len(lines(self.folder / name)) for name in ("pids", "finished", "said")]
        run = light_stage.start(self.folder)
        time.sleep(seconds)
        if number != signal.SIGKILL:  # an interrupt that comes while Python starts is the parent's to answer
            while len(lines(self.folder / "said")) == seen[2] and run.is_alive():
                time.sleep(0.001)
        alive = {"run": run.pid}
        alive |= {name: int(pid) for name, pid in map(str.split, lines(self.folder / "pids")[seen[0] :])}
        victim = next(name for name in victims if name in alive)
        with contextlib.suppress(ProcessLookupError):
            os.kill(alive[victim], number)
        run.join(60)
        assert run.exitcode is not None, f"60 s after {victim} was killed the run still ran"
        self.codes.append(run.exitcode)
        deadline = time.monotonic() + 30
        pids = [int(line.split()[1]) for line in lines(self.folder / "pids")[seen[0] :]]
        while not vanished(pids):
            assert time.monotonic() < deadline, f"{victim} was killed, and there is still one of {pids}"
            time.sleep(0.01)
        polls = [json.loads(line) for line in lines(self.folder / "finished")[seen[1] :]]
        finished = [key for poll in polls for key in poll]
        now = stored(self.folder)
        assert now >= self.kept, "what was stored is gone"
        assert not self.kept & set(finished), "it was made twice"
        assert len(finished) == len(set(finished))
        lost = set(finished) - now
        assert lost <= set(polls[-1] if polls else ()), "more than one poll's samples are lost"
        self.kept, self.lost = now, self.lost + len(lost)
        if run.exitcode != 0:
            expected = {"run": -signal.SIGKILL, "stage": 256 - signal.SIGKILL}.get(victim, EngineError.exit_code)
            assert run.exitcode == (expected if number == signal.SIGKILL else INTERRUPTED), lines(self.folder / "log")
        return bool(run.exitcode != 0)


def until_done(
    folder: Path, straight: Any, clock: random.Random, victims: list[str], numbers: list[int], most: int
) -> Stopped:
    """Stops a run up to `most` times, lets it finish, and compares it with the straight one."""
    policy, seconds, samples, keys = straight
    stopped = Stopped(light_stage.prepare(folder, **policy))
    while len(stopped.codes) < most and 0 not in stopped.codes:
        order = iter([*clock.sample(victims, len(victims)), "run"])
        stopped.once(clock.uniform(0, seconds), order, clock.choice(numbers))
    run = light_stage.start(folder)
    run.join()
    assert run.exitcode == 0, lines(folder / "log")
    assert (folder / "light" / "samples.jsonl").read_bytes() == samples
    there = stored(folder)
    # What a budget asked for in advance and then did not need is in the store or not, as it happened to finish.
    used = {(row["problem_id"], row["sample_index"]) for row in map(json.loads, samples.splitlines())}
    assert used <= set(map(question_and_index, there)) if "until" in policy else there == keys
    return stopped


def test_killed_at_random_moments(straight: Any, tmp_path: Path) -> None:
    clock, kills, lost = random.Random("kills"), 0, 0
    for attempt in range(ATTEMPTS * KILLS):
        if kills < KILLS:
            victims = ["run", "stage", "core", "worker"]
            done = until_done(tmp_path / str(attempt), straight, clock, victims, [signal.SIGKILL], KILLS - kills)
            kills, lost = kills + sum(code != 0 for code in done.codes), lost + done.lost
    assert kills == KILLS
    assert lost <= kills * light_stage.PER_POLL
    print(f"{kills} kills: samples lost {lost}, made twice 0, processes left 0")


def test_interrupted_at_random_moments(straight: Any, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM, at whatever the stage does: it drains, stores and says 130."""
    clock, stops, lost = random.Random("stops"), 0, 0
    for attempt in range(ATTEMPTS * INTERRUPTS):
        if stops < INTERRUPTS:
            numbers = [signal.SIGINT, signal.SIGTERM]
            done = until_done(tmp_path / str(attempt), straight, clock, ["stage"], numbers, INTERRUPTS - stops)
            stops, lost = stops + sum(code != 0 for code in done.codes), lost + done.lost
    assert stops == INTERRUPTS
    assert lost <= stops * light_stage.PER_POLL  # where it comes between the engine's answer and the commit
