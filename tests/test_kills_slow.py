"""`kill -9` at random moments of a real run: the same command then finishes it, and nothing is lost or made twice."""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fcot_lite.files import read_json, read_jsonl

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
RECIPE = Path(__file__).parent / "e2e.yaml"
KILLS = 12


def alive(runs: Path) -> list[list[str]]:
    """Command lines of the run's processes that still run."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if str(runs) in " ".join(command) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(command)
    return found


def test_killed_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fcot_lite", "run", str(RECIPE), "--runs", str(tmp_path)]
    clock = random.Random("kills")
    stored = 0
    for kill in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(clock.uniform(0.5, 35))
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 5
        while alive(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(tmp_path), f"kill {kill}: a stage outlived its parent"
        store = tmp_path / "samples.sqlite"
        if store.exists():
            with sqlite3.connect(store) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
                (count,) = database.execute("SELECT count(*) FROM sample").fetchone() if "sample" in tables else (0,)
            assert count >= stored, "samples were lost"
            stored = count
        if (tmp_path / "e2e" / "result.json").exists():
            break
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = read_json(tmp_path / "e2e" / "result.json")
    samples = read_jsonl(tmp_path / "e2e" / "samples.jsonl")
    assert len({(sample["problem_id"], sample["sample_index"]) for sample in samples}) == 48 == len(samples)
    assert result["teacher"]["samples"] == 48
    assert result["curation"]["kept"] + sum(result["curation"]["dropped"].values()) == 48
