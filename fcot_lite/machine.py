"""Where things run. The device is chosen here and nowhere else; everything that depends on it takes a Machine,
so that tests can describe a card that is not there."""

import os
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Machine:
    """`cpus` are the cores this process may use; the gpu fields are None on device "cpu"."""

    device: Literal["cuda", "cpu"]
    cpus: tuple[int, ...]
    gpu_name: str | None = None
    gpu_memory_gib: float | None = None
    compute_capability: tuple[int, int] | None = None

    @property
    def dtype(self) -> Literal["bfloat16", "float16"]:
        """bfloat16, but float16 on cards before Ampere (compute capability 8.0), which have no bf16 arithmetic."""
        if self.compute_capability is not None and self.compute_capability < (8, 0):
            return "float16"
        return "bfloat16"


def detect() -> Machine:
    """The machine this process runs on: the first NVIDIA card that is visible, else the CPU.

    Asks NVML, not torch: importing torch costs seconds, and initialising CUDA in a parent breaks its children.
    """
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return Machine("cpu", cpus)
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Machine("cpu", cpus)
    try:
        handle = _first_card(visible)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return Machine(
            "cuda",
            cpus,
            gpu_name=str(pynvml.nvmlDeviceGetName(handle)),
            gpu_memory_gib=pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30,
            compute_capability=(major, minor),
        )
    except pynvml.NVMLError:  # CUDA_VISIBLE_DEVICES names no card that is here
        return Machine("cpu", cpus)
    finally:
        pynvml.nvmlShutdown()


def card_in_use() -> tuple[float, list[int]]:
    """(GiB that are free on the card that `detect` names, the processes that compute on it). Raises pynvml.NVMLError
    where the driver does not tell."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handle = _first_card(os.environ.get("CUDA_VISIBLE_DEVICES"))
        free: int = pynvml.nvmlDeviceGetMemoryInfo(handle).free
        return free / 2**30, [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    finally:
        pynvml.nvmlShutdown()


def _first_card(visible: str | None) -> Any:
    import pynvml

    first = (visible or "0").split(",")[0].strip()
    if first.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(first))
    return pynvml.nvmlDeviceGetHandleByUUID(first)
