"""Time, memory and money, measured from outside a stage."""

import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from fcot_lite.files import read_record, write_json

GIB = 2**30
_SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_SAVES = 10  # what a killed run loses of its own time
# Reading the PSS of a process walks all its pages: 130 ms for 6.6 GB. On two cores that keep each other waiting at
# every layer of a model this costs more than it says, so no more than a fiftieth of the time is spent looking.
_MOST_OF_THE_TIME = 0.02


@dataclass(frozen=True, slots=True)
class Reading:
    """Peaks over the process tree. `peak_memory_gib` is PSS: shared pages count once, however many map them."""

    wall_seconds: float
    peak_memory_gib: float | None
    peak_gpu_nvml_gib: float | None


class TreeMeter:
    """Watches the process tree below `pid` (itself included) about once a second until `stop`."""

    def __init__(self, pid: int, cuda: bool) -> None:
        self._pid = pid
        self._cuda = cuda
        self._start = time.monotonic()
        self._peak: int | None = None
        self._gpu_peak: int | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> Reading:
        self._done.set()
        self._thread.join()
        return self.reading()

    def reading(self) -> Reading:
        return Reading(
            time.monotonic() - self._start,
            None if self._peak is None else self._peak / GIB,
            None if self._gpu_peak is None else self._gpu_peak / GIB,
        )

    def _watch(self) -> None:
        while True:
            start = time.monotonic()
            pids = tree(self._pid)
            memory = [size for pid in pids if (size := proportional_set_size(pid)) is not None]
            if memory:
                self._peak = max(self._peak or 0, sum(memory))
            if self._cuda and (used := gpu_memory(set(pids))) is not None:
                self._gpu_peak = max(self._gpu_peak or 0, used)
            looked = time.monotonic() - start
            if self._done.wait(max(_SECONDS_BETWEEN_LOOKS, looked / _MOST_OF_THE_TIME)):
                return


class StageMeter:
    """A stage's meter on disk: over resumes times add up and peaks take the maximum; new inputs start at zero."""

    def __init__(self, file: Path, key: str, pid: int, cuda: bool, account: str = "") -> None:
        self._file = file
        before = read_record(file)
        self._before = before if before.get("key") == key else {}
        self._identity = {"key": key, "account": account}
        self._meter = TreeMeter(pid, cuda)
        self._saved = time.monotonic()
        self._save()

    def save_sometimes(self) -> None:
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            self._save()

    def stop(self) -> None:
        self._meter.stop()
        self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        total: dict[str, Any] = dict(self._identity)
        for key, value in asdict(self._meter.reading()).items():
            old = self._before.get(key)
            known = [figure for figure in (old, value) if figure is not None]
            total[key] = (sum if key == "wall_seconds" else max)(known) if known else None
        write_json(self._file, total)


def tree(pid: int) -> list[int]:
    """The process and all below it that are alive."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def proportional_set_size(pid: int) -> int | None:
    """Bytes of memory; None where the process is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return None


def gpu_memory(pids: set[int]) -> int | None:
    """Bytes that these processes hold on all cards, by NVML; None where the driver does not tell.

    None as well where it lists none of them: inside a container it can know processes by other numbers.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        used = 0
        for index in range(pynvml.nvmlDeviceGetCount()):
            card = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(card):
                if process.pid in pids and process.usedGpuMemory is not None:
                    used += process.usedGpuMemory
        return used or None
    except pynvml.NVMLError:
        return None


def cost_usd(wall_seconds: float, usd_per_hour: float | None) -> float | None:
    """Money; None where the recipe names no price."""
    return None if usd_per_hour is None else wall_seconds / 3600 * usd_per_hour


def available_memory_gib(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """What new processes can take without swapping, the container's own limit included (cgroup v2, then v1)."""
    available = psutil.virtual_memory().available
    for limit_file, used_file, stat_file in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        if (cgroup / limit_file).exists() and (cgroup / used_file).exists():
            limit = (cgroup / limit_file).read_text().strip()
            if limit != "max":
                # What is used includes the cache of files read, which the kernel gives up before it runs out.
                stat = dict(line.split() for line in (cgroup / stat_file).read_text().splitlines())
                cache = sum(int(stat.get(name, 0)) for name in ("inactive_file", "active_file"))
                available = min(available, max(0, int(limit) - int((cgroup / used_file).read_text()) + cache))
    return available / GIB
