"""`make setup`: makes .venv with everything in it, or says in one line why it can't.

Runs before anything is installed, so it imports only the standard library, and it must parse and reach its own version
check on a Python as old as 3.6. Exit codes as in errors.py: 4 where the machine lacks something, 5 where pip fails.
"""

import ctypes
import errno
import fcntl
import hashlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "setup.stamp"  # written last: it exists <=> the environment is whole
NO_COMPILER = VENV / "reasoning-gym.needs-a-compiler"  # written where its step failed and there was none
LOG = VENV / "setup.log"
HEARTBEAT_SECONDS = 20
PIP_INSTALL = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input")

TORCH = "torch==2.13.0"
MIN_MEMORY_GB = 7  # a 0.5B teacher in bf16, its KV cache and the engine's own libraries
MIN_CACHE_GB = 3  # the two starter models of the quickstart while the larger one is converted
# Of an empty disk, with pip's cache of what it fetched and the quickstart's models. The CPU environment itself measured
# 3.0 GB with a CPU torch, 6.7 GB with the ordinary one; GPU_GB is an estimate from 4.1 GB of wheels.
CPU_TORCH_GB, ANY_TORCH_GB, GPU_GB = 7, 12, 20


class SetupError(Exception):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main() -> int:
    try:
        check_python()
        gpu = has_gpu()
        if is_current(gpu) and not compiler_came():
            say(".venv is up to date")
            return 0
        # On the folder itself, so that no lock file is left. pip inherits it, and keeps it should we be killed.
        lock = os.open(str(ROOT), os.O_RDONLY)
        wait_for_lock(lock)
        start = time.monotonic()
        if not is_current(gpu):
            check_machine(gpu)
            install(gpu, lock)
        elif compiler_came():
            install_reasoning_gym(lock)
        else:
            return 0
        say(f"done in {time.monotonic() - start:.0f} s")
        return 0
    except SetupError as error:
        print(f"make setup: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"make setup: {error}; make room or mend the permissions, then run it again", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("make setup: interrupted; run it again, it starts afresh", file=sys.stderr)
        return 130


def say(line: str) -> None:
    print(f"setup: {line}", flush=True)


# ---- what the machine must have, before anything is downloaded ---------------------------------------------------


def check_python() -> None:
    version = platform.python_version()
    if sys.version_info < (3, 11):  # noqa: UP036
        raise SetupError(
            f"Python 3.11 or newer is needed, this is {version}; install one (Debian: apt install python3.11-venv) "
            "or name it: make setup PYTHON=/path/to/python3.11",
            4,
        )


def check_machine(gpu: bool) -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise SetupError(
            f"the engines exist for Linux on x86-64 and aarch64, this is {sys.platform} on {platform.machine()}; "
            "use such a machine or a container on one",
            4,
        )
    try:
        import ensurepip  # noqa: F401  (what `python -m venv` needs, and Debian packs apart)
    except ImportError:
        raise SetupError("this Python has no ensurepip; Debian: apt install python3-venv", 4) from None
    if not gpu:
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            raise SetupError(
                "libnuma.so.1 is missing, which vLLM on a CPU loads; Debian: apt install libnuma1", 4
            ) from None
    memory = memory_gb()
    if memory < MIN_MEMORY_GB:
        raise SetupError(
            f"{MIN_MEMORY_GB} GB of memory are needed, this machine has {memory:.1f} GB; use a larger one", 4
        )
    need = GPU_GB if gpu else CPU_TORCH_GB if has_cpu_torch() else ANY_TORCH_GB
    check_disk(ROOT, need, "make room, or move this folder to a larger disk")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if existing(cache).stat().st_dev != ROOT.stat().st_dev:
        check_disk(cache, MIN_CACHE_GB, "make room, or set XDG_CACHE_HOME to a folder on a larger disk")


def check_disk(folder: Path, need_gb: int, remedy: str) -> None:
    free_gb = shutil.disk_usage(str(existing(folder))).free / 1e9
    if free_gb < need_gb:
        raise SetupError(f"{need_gb} GB of disk are needed in {folder}, {free_gb:.1f} GB are free; {remedy}", 4)


def existing(folder: Path) -> Path:
    """The nearest folder above that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def memory_gb() -> float:
    """What this process may use: the machine's memory, or a container's smaller share of it (cgroup v2, then v1)."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if os.path.exists(file):
            text = Path(file).read_text().strip()
            limits.append(int(text) if text.isdigit() else limits[0])
    return min(limits) / 1e9


def has_gpu() -> bool:
    if os.path.exists("/dev/nvidia0"):
        return True
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi"], capture_output=True, check=False).returncode == 0


def has_cpu_torch() -> bool:
    """Whether pip is pointed at a folder with a CPU wheel of torch, which it then prefers."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, check=False)
    words = [os.environ.get("PIP_FIND_LINKS", "")]
    for line in listed.stdout.decode().splitlines():
        name, _, value = line.partition("=")
        if name.endswith(".find-links"):
            words.append(value.strip("'\""))
    wheel = TORCH.replace("==", "-") + "+cpu-*.whl"
    folders = [word.replace("file://", "") for word in " ".join(words).split()]
    return any(os.path.isdir(folder) and any(Path(folder).glob(wheel)) for folder in folders)


# ---- the environment ---------------------------------------------------------------------------------------------


def fingerprint(gpu: bool) -> str:
    """A hash of all that decides what is in .venv. Not of pyproject's linter settings: they must not cost minutes."""
    import tomllib

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lists = ("cuda.txt" if gpu else "cpu.txt", "reasoning-gym.txt")
    pins = [(ROOT / "constraints" / name).read_text(encoding="utf-8") for name in lists]
    what = [pyproject["project"], pyproject["build-system"], pins, TORCH, sys.version, str(ROOT)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def is_current(gpu: bool) -> bool:
    # bin/python is a symbolic link into a Python that may have been removed since.
    return STAMP.is_file() and STAMP.read_text() == fingerprint(gpu) and (VENV / "bin" / "python").exists()


def compiler_came() -> bool:
    """Whether reasoning-gym, left out for want of a C compiler, can be installed now."""
    return NO_COMPILER.exists() and shutil.which("cc") is not None


def install(gpu: bool, lock: int) -> None:
    kind = "an NVIDIA GPU" if gpu else "no NVIDIA GPU, so the CPU build"
    say(f"making .venv with Python {platform.python_version()} ({kind}); the log is {LOG.relative_to(ROOT)}")
    empty_venv()
    run("making .venv", lock, sys.executable, "-m", "venv", str(VENV))
    pip = (str(VENV / "bin" / "python"), *PIP_INSTALL)
    if gpu:
        extras = str(ROOT) + "[cuda,dev]"
        constraints = str(ROOT / "constraints" / "cuda.txt")
        # setuptools by name: on Python 3.11 no package asks for it, and the next step builds with it.
        run("installing the engines", lock, *pip, "-c", constraints, "setuptools", "-e", extras)
    else:
        run("installing torch", lock, *pip, TORCH)
        run("installing the engines", lock, *pip, "--no-deps", "-r", str(ROOT / "constraints" / "cpu.txt"))
        run("installing fcot-lite", lock, *pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    install_reasoning_gym(lock)
    os.sync()  # what pip wrote, before the stamp that vouches for it
    temporary = STAMP.with_suffix(".tmp")
    with open(str(temporary), "w") as file:
        file.write(fingerprint(gpu))
        file.flush()
        os.fsync(file.fileno())
    os.replace(str(temporary), str(STAMP))


def install_reasoning_gym(lock: int) -> None:
    """Where it cannot be built, everything but the rg: tasks works: a line says so, and setup goes on."""
    pip = (str(VENV / "bin" / "python"), *PIP_INSTALL)
    pins = str(ROOT / "constraints" / "reasoning-gym.txt")
    # Forced: a retry that was killed can have left packages that only look installed.
    command = (*pip, "--no-deps", "--no-build-isolation", "--force-reinstall", "-r", pins)
    try:
        run("installing reasoning-gym", lock, *command)
    except SetupError as error:
        # A failed build's own last words stand above pip's.
        lines = str(error).splitlines()
        builds = [line.strip() for line, after in itertools.pairwise(lines) if "[end of output]" in after]
        reason = builds[-1] if builds else lines[-1]
        if shutil.which("cc") is None:
            NO_COMPILER.touch()
            remedy = "install a C compiler (Debian: apt install gcc python3-dev) and run make setup again"
        else:
            NO_COMPILER.unlink(missing_ok=True)
            remedy = f"the log is {LOG}; when that is mended: {' '.join(command)}"
        say(f"rg: tasks are not available, all others are: reasoning-gym was not installed ({reason}); {remedy}")
    else:
        NO_COMPILER.unlink(missing_ok=True)


def empty_venv() -> None:
    """Removes what is in .venv, the stamp first: a killed pip can leave packages that only look installed."""
    VENV.mkdir(exist_ok=True)
    STAMP.unlink(missing_ok=True)
    for child in VENV.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(str(child))
        else:
            child.unlink()


def run(what: str, lock: int, *command: str) -> None:
    """Runs `command` into the log, with a line now and then. Raises SetupError with the log's end where it fails."""
    say(what)
    environment = dict(os.environ, PIP_USER="0")  # a user's `user = true` is an error inside a venv
    start = time.monotonic()
    with open(str(LOG), "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=(lock,)
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(timeout=HEARTBEAT_SECONDS)
                except subprocess.TimeoutExpired:
                    say(f"{what}, {time.monotonic() - start:.0f} s")
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        # pip warns on some machines of index folders that it skips; those lines would hide the one that matters.
        lines = LOG.read_text(errors="replace").splitlines()
        tail = "\n".join([line for line in lines if not line.startswith("WARNING: Location")][-20:])
        raise SetupError(f"{what} failed (exit code {process.returncode}); the log is {LOG}; it ends with\n{tail}", 5)


def wait_for_lock(lock: int) -> None:
    said = None
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if said is None or time.monotonic() - said > HEARTBEAT_SECONDS:
            say("another make setup is at work here; waiting for it")
            said = time.monotonic()
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
