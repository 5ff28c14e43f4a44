"""Time, memory and money of a real process tree."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fcot_lite import meter
from fcot_lite.meter import GIB, TreeMeter, available_memory_gib, cost_usd, gpu_memory, proportional_set_size, tree

# A process with a child of its own, which holds 200 MB, then frees them.
HOLDS_MEMORY = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import sys; x = bytearray(200_000_000); print(1, flush=True); sys.stdin.read(1);"
                " del x; print(2, flush=True); sys.stdin.read()"])
"""


def test_the_whole_tree_is_measured_and_the_peak_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(meter, "_MOST_OF_THE_TIME", 1.0)
    process = subprocess.Popen([sys.executable, "-c", HOLDS_MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    watch = TreeMeter(process.pid, cuda=False)
    started = time.monotonic()
    assert process.stdout.readline() == b"1\n"
    held = 0.0
    while held < 0.18 and time.monotonic() - started < 10:
        time.sleep(0.05)
        held = watch.reading().peak_memory_gib or 0.0
    process.stdin.write(b".")
    process.stdin.flush()
    assert process.stdout.readline() == b"2\n"
    time.sleep(0.2)
    process.communicate()
    reading = watch.stop()
    assert reading.peak_memory_gib is not None
    assert 0.18 < held <= reading.peak_memory_gib < 0.35
    assert reading.peak_gpu_nvml_gib is None
    assert reading.wall_seconds == pytest.approx(time.monotonic() - started, abs=0.2)


def test_a_costly_look_is_taken_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def slow(pid: int) -> list[int]:
        looks.append(time.monotonic())
        time.sleep(0.02)
        return []

    monkeypatch.setattr(meter, "tree", slow)
    monkeypatch.setattr(meter, "_SECONDS_BETWEEN_LOOKS", 0.0)
    watch = TreeMeter(os.getpid(), cuda=False)
    time.sleep(1.2)
    assert watch.stop().wall_seconds < 1.5  # nobody waits for the next look
    assert 1 <= len(looks) <= 2  # of 20 ms, a fiftieth of the time: one a second


def test_a_process_that_is_gone_was_not_measured() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert tree(process.pid) == []
    assert proportional_set_size(process.pid) is None
    reading = TreeMeter(process.pid, cuda=False).stop()
    assert reading.peak_memory_gib is None  # not 0


def test_shared_pages_count_once() -> None:
    size = proportional_set_size(os.getpid())
    assert size is not None
    assert 5e6 < size < 1e11
    assert tree(os.getpid())[0] == os.getpid()


def test_no_price_no_cost() -> None:
    assert cost_usd(3600, None) is None
    assert cost_usd(1800, 0.5) == 0.25
    assert cost_usd(1800, 0.0) == 0.0


@pytest.mark.parametrize("version", [1, 2])
def test_the_containers_limit_counts_and_its_file_cache_does_not(tmp_path: Path, version: int) -> None:
    names = {
        1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
        2: ("memory.max", "memory.current", "memory.stat"),
    }[version]
    (tmp_path / "memory").mkdir()

    def container(limit: str, used: int, stat: str) -> float:
        for name, text in zip(names, (limit, str(used), stat), strict=True):
            (tmp_path / name).write_text(text + "\n")
        return available_memory_gib(tmp_path)

    machine = available_memory_gib(tmp_path)
    stat = f"anon {GIB // 8}\ninactive_file {GIB // 8}\nactive_file {GIB // 16}"
    assert container(str(GIB // 2), GIB * 3 // 8, stat) == pytest.approx(1 / 8 + 3 / 16)
    assert container(str(GIB // 2), GIB * 3 // 8, "anon 1") == pytest.approx(1 / 8)
    assert container(str(GIB // 2), GIB, "anon 1") == 0
    assert container("9223372036854771712", GIB, "anon 1") == pytest.approx(machine, rel=0.5)  # cgroup v1's "no limit"
    if version == 2:
        assert container("max", GIB, "anon 1") == pytest.approx(machine, rel=0.5)


class NVML(SimpleNamespace):
    """Two cards and the processes on them: (pid, bytes)."""

    NVMLError = RuntimeError

    def __init__(self, *cards: list[tuple[int, int | None]]) -> None:
        super().__init__(cards=cards)

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, index: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.cards[index]]


def test_gpu_memory_of_ones_own_processes_on_all_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", NVML([(1, 100), (2, 10)], [(1, 1), (3, None)]))
    assert gpu_memory({1, 3}) == 101
    assert gpu_memory({1, 2}) == 111
    assert gpu_memory({4}) is None  # in a container they go by other numbers: not measured, not 0
    assert gpu_memory({3}) is None


def test_no_driver_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no driver")

    nvml = NVML()
    nvml.nvmlInit = fail
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert gpu_memory({1}) is None
