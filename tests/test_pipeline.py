"""The stages in their order, each a real process: what fails is named, what is stopped is gone, what is done is kept.

The stages themselves are a small script that writes files of the right names.
"""

import copy
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_engine import Answer, FakeEngine
from test_report import OUTCOMES

from fcot_lite import models, pipeline, process, stage, student, tasks
from fcot_lite.engines import Request
from fcot_lite.errors import INTERRUPTED, DataError, EngineError, FcotError, RecipeError, ResourceError
from fcot_lite.evaluate import Evaluation, Student
from fcot_lite.files import lock, read_json, read_jsonl, sha256_file, write_json
from fcot_lite.machine import Machine
from fcot_lite.progress import Reporter
from fcot_lite.prompts import METHODS, render
from fcot_lite.recipe import Recipe, build
from fcot_lite.records import Example
from fcot_lite.rows import messages, token_row

pytestmark = pytest.mark.real

STAGES = ["sample", "curate", "train", "evaluate"]
FAKE_STAGE = """
import hashlib, json, os, signal, subprocess, sys, time
from pathlib import Path

name, run_dir = sys.argv[1], Path(sys.argv[2])
runs = run_dir.parent
plan = json.loads((runs / "plan.json").read_text()).get(name, {})
if plan.get("lifeline"):
    from fcot_lite.engines.lifeline import follow_parent
    follow_parent()
signal.signal(signal.SIGINT, signal.SIG_IGN if plan.get("stubborn") else lambda *_: sys.exit(130))
with open(runs / "history", "a") as file:
    file.write(name + "\\n")

def tell(**message):
    os.write(int(os.environ["FCOT_PROGRESS_FD"]), json.dumps(message).encode() + b"\\n")

if plan.get("child"):
    child = subprocess.Popen(["sleep", "1000"])
    (runs / "child").write_text(str(child.pid))
tell(done=1, total=2, note="working")
if "say" in plan:
    tell(say=plan["say"])
print("from the log")
(runs / f"{name}.pid").write_text(str(os.getpid()))
time.sleep(plan.get("sleep", 0))
if "signal" in plan:
    os.kill(os.getpid(), plan["signal"])
if "error" in plan:
    tell(error=plan["error"])
if "exit" in plan:
    sys.exit(plan["exit"])

recipe = json.loads((runs / "blocks.json").read_text())
reads = {"curate": "samples.jsonl", "train": "train.jsonl", "evaluate": "adapter/weights"}.get(name)
text = json.dumps(recipe[name]) + ((run_dir / reads).read_text() if reads else "")
writes = {"sample": "samples.jsonl", "curate": "train.jsonl", "train": "adapter/weights", "evaluate": "eval/x.jsonl"}
path = writes[name]
(run_dir / path).parent.mkdir(exist_ok=True)
(run_dir / path).write_text(text)
if name == "train":
    (run_dir / "checkpoints" / "checkpoint-1").mkdir(parents=True, exist_ok=True)
hashes = {path: hashlib.sha256(text.encode()).hexdigest()}
outcome = {**json.loads((runs / "outcomes.json").read_text())[name], "outputs": hashes}
(run_dir / "stages" / f"{name}.json").write_text(json.dumps(outcome))
"""
DRIVER = """
import os, sys
from pathlib import Path
from fcot_lite import cli, models, pipeline, process
stage = [sys.executable, sys.argv[-1] + "/fake_stage.py"]
pipeline.stage_command = lambda name, run_dir: [*stage, name, str(run_dir)]
pipeline.LEAST_MEMORY_GIB = pipeline.LEAST_DISK_GIB = 0
process.SECONDS_TO_DRAIN = float(os.environ.get("DRAIN", 1))
models.resolve = lambda name, say: Path(name)
cli.main()
"""
RECIPE: dict[str, Any] = {
    "name": "quick",
    "task": {"name": "chain_arithmetic", "train": 4},
    "prompts": {"plain": {}, "steps": {"template": "{question} Step by step."}},
    "teacher": {
        "model": "starter:t", "prompt": "steps", "n": 1,
        "sampling": {"max_tokens": 9}, "engine": {"max_model_len": 99},
    },
    "curate": {"max_length": 99},
    "student": {"model": "starter:s", "prompt": "plain"},
    "evaluate": {"before": ["plain"], "sampling": {"max_tokens": 9}, "engine": {"max_model_len": 99}},
}  # fmt: skip


class Bench:
    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.run_dir = runs / "quick"
        self.recipe = copy.deepcopy(RECIPE)
        (runs / "fake_stage.py").write_text(FAKE_STAGE)
        weights = {"weights_hash": "w", "campaign": "c", "problems_sha256": "p"}
        write_json(runs / "outcomes.json", {name: {**outcome, **weights} for name, outcome in OUTCOMES.items()})
        self.plan()

    def plan(self, **stages: dict[str, Any]) -> None:
        """What each stage does: exit, error, signal, sleep, child, stubborn, lifeline."""
        write_json(self.runs / "plan.json", stages)

    def built(self) -> Recipe:
        r = self.recipe
        teacher = {key: value for key, value in r["teacher"].items() if key != "engine"}
        blocks = {  # what shapes the texts that the stages write
            "sample": teacher,
            "curate": r["curate"],
            "train": [r["student"], r.get("seed")],
            "evaluate": [r["evaluate"], r["task"].get("test")],
        }
        write_json(self.runs / "blocks.json", blocks)
        return build(r, "here")

    def run(self, last: str = "evaluate", force: bool = False) -> dict[str, Any] | None:
        return pipeline.run(self.built(), self.runs, last=last, force=force)

    def ran(self) -> list[str]:
        """The stages that ran since this was last asked."""
        history = self.runs / "history"
        names = history.read_text().split() if history.exists() else []
        history.unlink(missing_ok=True)
        return names

    def start(self) -> subprocess.Popen[str]:
        """`fcot run` as a process of its own."""
        self.built()
        write_json(self.runs / "recipe.yaml", self.recipe)
        command = [sys.executable, "-c", DRIVER, "run", str(self.runs / "recipe.yaml"), "--runs", str(self.runs)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def pid(self, name: str) -> int:
        """What a stage wrote into the file `name`."""
        wait_for(lambda: (self.runs / name).exists() and (self.runs / name).read_text() != "")
        return int((self.runs / name).read_text())


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(autouse=True)
def small_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(name: str, run_dir: Path) -> list[str]:
        return [sys.executable, str(run_dir.parent / "fake_stage.py"), name, str(run_dir)]

    monkeypatch.setattr(pipeline, "stage_command", command)
    monkeypatch.setattr(pipeline, "LEAST_MEMORY_GIB", 0)
    monkeypatch.setattr(pipeline, "LEAST_DISK_GIB", 0)
    monkeypatch.setattr(models, "resolve", lambda name, say: Path(name))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


FINISHED: list[Path] = []


@pytest.fixture
def finished(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench whose run is done: a copy of one that ran once for all tests."""
    if not FINISHED:
        Bench(runs := tmp_path_factory.mktemp("finished")).run()
        FINISHED.append(runs)
    shutil.copytree(FINISHED[0] / "quick", tmp_path / "quick")
    return Bench(tmp_path)


def test_a_run_leaves_everything_behind(bench: Bench) -> None:
    result = bench.run()
    assert bench.ran() == STAGES
    assert result == read_json(bench.run_dir / "result.json")
    assert result is not None
    assert not (bench.run_dir / "checkpoints").exists()
    assert list(result["stages"]) == ["models", *STAGES]
    assert all(stage["wall_seconds"] > 0 for stage in result["stages"].values())
    assert {path.name for path in bench.run_dir.iterdir()} == {
        "recipe.yaml", "manifest.json", "result.json", "report.md", "samples.jsonl", "train.jsonl",
        "adapter", "eval", "stages", "logs",
    }  # fmt: skip
    manifest = read_json(bench.run_dir / "manifest.json")
    assert manifest["weights"] == {"teacher": "w", "student": "w"}
    assert manifest["outputs"].keys() == set(STAGES)
    assert "from the log" in (bench.run_dir / "logs" / "train.log").read_text()


def test_what_a_stage_says_stays_on_the_screen(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.plan(sample={"say": "sample: a new sampling run"})
    bench.run("sample")
    assert "\nsample: a new sampling run\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "kind"), [(2, RecipeError), (3, DataError), (4, ResourceError), (5, EngineError), (1, EngineError)]
)
def test_a_stages_fault_is_the_runs_fault(bench: Bench, code: int, kind: type[FcotError]) -> None:
    bench.plan(train={"error": "it is [red]out[/] of luck; wait", "exit": code})
    with pytest.raises(FcotError) as raised:
        bench.run()
    assert type(raised.value) is kind
    assert "train: it is [red]out[/] of luck; wait" in str(raised.value)
    assert str(bench.run_dir / "logs" / "train.log") in str(raised.value)
    assert bench.ran() == ["sample", "curate", "train"]
    assert not (bench.run_dir / "result.json").exists()
    bench.plan()
    assert bench.run() is not None
    assert bench.ran() == ["train", "evaluate"]


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"exit": 7}, "ended with code 7 without saying why; its last words: from the log"),
        ({"exit": 1}, "ended with code 1 without saying why; its last words: from the log"),
        ({"signal": signal.SIGKILL}, "was killed, most likely because memory ran out"),
        ({"signal": signal.SIGSEGV}, "was ended by SIGSEGV; its last words: from the log"),
    ],
)
def test_a_stage_that_dies_in_silence(bench: Bench, plan: dict[str, Any], says: str) -> None:
    bench.plan(sample=plan)
    # 4, as for all that lacks memory, where the kernel killed it; 5 for the rest
    fault = ResourceError if plan.get("signal") == signal.SIGKILL else EngineError
    with pytest.raises(fault, match=says) as raised:
        bench.run()
    assert "sample.log" in str(raised.value)


def test_the_last_words_are_heard_however_late(bench: Bench) -> None:
    # Longer silent than the watcher looks at once, then the fault and the end at the same moment.
    bench.plan(sample={"sleep": 1.0, "error": "last words", "exit": 3})
    with pytest.raises(DataError, match="last words"):
        bench.run()


def test_a_stage_that_was_interrupted_interrupts_the_run(bench: Bench) -> None:
    bench.plan(curate={"exit": INTERRUPTED})
    with pytest.raises(KeyboardInterrupt):
        bench.run()


def test_whatever_a_stage_leaves_running_ends_with_it(bench: Bench) -> None:
    bench.plan(sample={"child": True}, curate={"exit": 5})
    with pytest.raises(EngineError):
        bench.run()
    wait_for(lambda: gone(bench.pid("child")))


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything_and_the_next_run_goes_on(bench: Bench, number: int, stubborn: bool) -> None:
    bench.plan(train={"sleep": 60, "child": True, "stubborn": stubborn})
    process = bench.start()
    trainer, child = bench.pid("train.pid"), bench.pid("child")
    assert not gone(trainer)
    assert not gone(child)
    started = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - started < 5
    assert process.returncode == INTERRUPTED
    assert "interrupted; run the same command again" in err
    assert "Traceback" not in err
    assert out == ""
    assert gone(trainer)
    wait_for(lambda: gone(child))
    bench.ran()
    bench.plan()
    assert bench.run() is not None
    assert bench.ran() == ["train", "evaluate"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_waits_for_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setenv("DRAIN", "1000")
    bench.plan(train={"sleep": 1000, "stubborn": True})
    run = bench.start()
    trainer = bench.pid("train.pid")
    run.send_signal(number)
    assert run.stderr is not None
    while "train: stopping; what is finished is kept" not in (line := run.stderr.readline()):
        assert line, "it ended without a word"
    time.sleep(0.5)
    assert run.poll() is None
    assert not gone(trainer), "it was asked, not killed"
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == INTERRUPTED
    assert "Traceback" not in err
    wait_for(lambda: gone(trainer))


def test_two_runs_at_once(bench: Bench) -> None:
    bench.plan(train={"sleep": 1000})
    first = bench.start()
    bench.pid("train.pid")
    second = bench.start()
    out, err = second.communicate(timeout=20)
    assert (second.returncode, out) == (ResourceError.exit_code, "")
    assert f"the run quick is in use by process {first.pid} on " in err
    assert first.poll() is None
    first.kill()
    first.communicate()


def test_kill_9_of_the_run_takes_its_stage_along(bench: Bench) -> None:
    bench.plan(sample={"sleep": 60, "lifeline": True})
    process = bench.start()
    sampler = bench.pid("sample.pid")
    assert not gone(sampler)
    process.kill()
    process.communicate()
    wait_for(lambda: gone(sampler), seconds=5)
    bench.plan()
    assert bench.run() is not None  # the lock went with its holder


def test_a_stage_whose_run_is_gone_does_not_start(bench: Bench) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    command = [sys.executable, "-m", "fcot_lite.stage", "sample", str(bench.run_dir)]
    done = subprocess.run(command, env={**os.environ, "FCOT_LIFELINE": str(dead.pid)}, check=False)
    assert done.returncode == INTERRUPTED
    assert not bench.run_dir.exists()


def test_times_add_up_over_resumes_and_peaks_take_the_maximum(bench: Bench) -> None:
    bench.plan(train={"sleep": 0.4, "exit": 5})
    for _ in range(2):
        with pytest.raises(EngineError):
            bench.run()
    file = bench.run_dir / "stages" / "train.meter.json"
    meter = read_json(file)
    assert 0.8 < meter["wall_seconds"] < 3
    assert meter["peak_memory_gib"] > 0
    write_json(file, {**meter, "peak_memory_gib": 99.0, "peak_gpu_nvml_gib": 7.0})
    bench.plan(train={"sleep": 0.4})
    result = bench.run()
    assert result is not None
    taken = result["stages"]["train"]
    assert (taken["peak_memory_gib"], taken["peak_gpu_nvml_gib"]) == (99.0, 7.0)
    assert meter["wall_seconds"] + 0.4 < taken["wall_seconds"] < meter["wall_seconds"] + 2
    # Other inputs start at zero.
    bench.recipe["seed"] = 1
    bench.plan()
    result = bench.run()
    assert result is not None
    assert result["stages"]["train"]["wall_seconds"] < 0.8
    assert result["stages"]["train"]["peak_memory_gib"] < 1
    assert result["stages"]["train"]["peak_gpu_nvml_gib"] is None


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda r: None, []),
        (lambda r: r.update(cost={"usd_per_hour": 2.0}), []),
        (lambda r: r["prompts"].update(unused={}), []),
        (lambda r: r["evaluate"]["sampling"].update(max_tokens=8), ["evaluate"]),
        (lambda r: r["evaluate"].update(before=["plain", "steps"]), ["evaluate"]),
        (lambda r: r["task"].update(test=3), ["evaluate"]),
        (lambda r: r["student"].update(lora={"r": 4}), ["train", "evaluate"]),
        (lambda r: r.update(seed=1), ["train", "evaluate"]),
        (lambda r: r["curate"].update(max_length=98), ["curate", "train", "evaluate"]),
        (lambda r: r["curate"].update(filter="answer", check="off", balance=False), []),
        (lambda r: r["curate"].update(check="golden"), ["curate", "train", "evaluate"]),
        (lambda r: r["teacher"].update(n=2), STAGES),
        (lambda r: r["task"].update(train=5), ["sample", "curate"]),  # here the samples come out the same
        (lambda r: r["teacher"]["engine"].update(max_num_seqs=2), ["sample"]),
        (lambda r: r["prompts"]["steps"].update(template="{question}!"), ["sample"]),
    ],
    ids=str,
)
def test_a_changed_recipe_does_again_only_what_it_touches(
    finished: Bench, change: Callable[[dict[str, Any]], None], again: list[str]
) -> None:
    bench = finished
    change(bench.recipe)
    result = bench.run()
    assert bench.ran() == again
    assert result == read_json(bench.run_dir / "result.json")
    assert result is not None
    assert result["recipe_hash"] == bench.built().hash()
    assert result["usd_per_hour"] == bench.recipe.get("cost", {}).get("usd_per_hour")
    assert bench.run() == result
    assert bench.ran() == []


def test_what_is_reused_and_what_is_not_is_said_before_it_starts(
    finished: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = finished
    bench.recipe["student"]["lora"] = {"r": 4}
    bench.run()
    lines = [line for line in capsys.readouterr().err.splitlines() if "starting" not in line]
    assert lines[0] == "changed since: student.lora.r: None → 4"
    assert re.fullmatch(r"sample: reused, which saves 0:0\d min and [\d,]+ tokens", lines[1])
    assert re.fullmatch(r"curate: reused, which saves 0:0\d min", lines[2])
    assert lines[3] == "train: done again"
    assert lines[4] == "evaluate: done again; samples in the store that still fit are used" or lines[4].startswith(
        "evaluate: reused if train writes what it wrote before, which saves 0:0"
    )
    assert lines[5].startswith("train: ")
    assert len([line for line in lines if "reused" in line or "again" in line]) == 4


def test_a_run_that_was_stopped_says_what_is_left(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.plan(train={"exit": 5})
    with pytest.raises(EngineError):
        bench.run()
    assert "reused" not in capsys.readouterr().err, "there was nothing before"
    bench.plan()
    bench.run()
    said = capsys.readouterr().err
    assert "train: to do" in said
    assert "evaluate: to do" in said
    assert "changed since" not in said


def test_what_dead_runs_left_is_ended_and_what_live_ones_have_is_not(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    left = {name: subprocess.Popen(["sleep", "1000"], start_new_session=True) for name in ("quick", "dead", "alive")}
    for name, stage_process in left.items():
        write_json(bench.runs / name / process.RECORD, process._identity(stage_process.pid))
    holder = lock(bench.runs / ".alive.lock", "the run alive")
    try:
        bench.run()
        said = capsys.readouterr().err
        for name in ("quick", "dead"):
            assert f"ending process {left[name].pid} (sleep), left behind by an earlier run" in said
            assert left[name].wait(5) == -signal.SIGKILL
        assert str(left["alive"].pid) not in said
        assert left["alive"].poll() is None
    finally:
        os.close(holder)
        for stage_process in left.values():
            stage_process.kill()
            stage_process.wait()


def test_other_weights_under_the_same_name_are_another_model(bench: Bench, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"one")
    bench.recipe["student"]["model"] = str(model)
    bench.run()
    bench.ran()
    (model / "model.safetensors").write_bytes(b"another")
    bench.run()
    assert bench.ran() == ["curate", "train", "evaluate"]


def test_another_reasoning_gym_makes_other_problems(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.recipe["task"] = {"name": "rg:gsm_symbolic", "train": 4, "validation": 2, "test": 2}
    for version, again in (("1", STAGES), ("1", []), ("2", ["sample", "curate", "evaluate"])):
        monkeypatch.setattr(tasks.rg, "version", lambda version=version: version)
        bench.run()
        assert bench.ran() == again


@pytest.mark.parametrize(
    ("path", "again"),
    [
        ("samples.jsonl", ["sample"]),
        ("train.jsonl", ["curate"]),
        ("adapter/weights", ["train"]),
        ("eval/x.jsonl", ["evaluate"]),
        ("stages/train.json", ["train"]),
        ("stages/train.meter.json", ["train"]),
        ("stages/sample.json", ["sample"]),
        ("stages/models.meter.json", []),
        ("result.json", []),
        ("recipe.yaml", []),
        ("logs/train.log", []),
    ],
)
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_what_is_gone_or_damaged_is_made_again(finished: Bench, path: str, again: list[str], damage: str) -> None:
    file = finished.run_dir / path
    before = read_json(finished.run_dir / "result.json")
    if damage == "gone":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2)
    result = finished.run()
    assert finished.ran() == again
    assert result is not None
    assert result["methods"] == before["methods"]
    assert read_json(finished.run_dir / "result.json") == result


@pytest.mark.parametrize("content", ["[1]", "{}", '{"outputs": 3, "key": 3}', "null"])
def test_json_of_another_shape_is_made_again(finished: Bench, content: str) -> None:
    for path in ("stages/train.json", "stages/evaluate.meter.json", "stages/models.meter.json", "result.json"):
        (finished.run_dir / path).write_text(content)
    result = finished.run()
    assert finished.ran() == ["train", "evaluate"]
    assert read_json(finished.run_dir / "result.json") == result


def test_a_run_up_to_a_stage(bench: Bench) -> None:
    assert bench.run(last="curate") is None
    assert bench.ran() == ["sample", "curate"]
    assert not (bench.run_dir / "result.json").exists()
    assert bench.run() is not None
    assert bench.ran() == ["train", "evaluate"]
    assert bench.run(last="sample") is None
    assert bench.ran() == []


def test_a_run_that_is_not_done_has_no_result(finished: Bench) -> None:
    bench = finished
    bench.recipe["seed"] = 1
    bench.plan(evaluate={"exit": 5})
    with pytest.raises(EngineError):
        bench.run()
    assert not (bench.run_dir / "result.json").exists()


def test_force_starts_over_and_leaves_other_runs_alone(finished: Bench) -> None:
    bench = finished
    (bench.run_dir / "notes.txt").touch()
    (bench.runs / "other").mkdir()
    bench.run(force=True)
    assert bench.ran() == STAGES
    assert not (bench.run_dir / "notes.txt").exists()
    assert (bench.runs / "other").exists()


def test_force_empties_no_folder_that_is_none_of_a_run(bench: Bench) -> None:
    bench.run_dir.mkdir()
    (bench.run_dir / "thesis.txt").write_text("precious")
    with pytest.raises(RecipeError, match="not the folder of a run, so --force does not empty it"):
        bench.run(force=True)
    assert (bench.run_dir / "thesis.txt").read_text() == "precious"


def test_force_of_a_run_that_lies_elsewhere(finished: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("large disk") / "quick"
    shutil.move(finished.run_dir, elsewhere)
    finished.run_dir.symlink_to(elsewhere)
    finished.run(force=True)
    assert finished.ran() == STAGES
    assert (elsewhere / "result.json").exists()


@pytest.mark.parametrize("force", [False, True])
def test_what_is_refused_leaves_the_earlier_run_as_it_was(
    finished: Bench, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    before = {path: path.read_bytes() for path in finished.run_dir.rglob("*") if path.is_file()}

    def refuse(name: str, say: Any) -> Path:
        raise DataError("no such model")

    monkeypatch.setattr(models, "resolve", refuse)
    finished.recipe["student"]["model"] = "starter:other"
    with pytest.raises(DataError, match="no such model"):
        finished.run(force=force)
    for path, content in before.items():
        if path.name != "models.meter.json":
            assert path.read_bytes() == content, path


def test_a_second_run_of_the_same_name_is_refused(bench: Bench) -> None:
    handle = lock(bench.runs / ".quick.lock", "it")
    with pytest.raises(ResourceError, match=rf"the run quick is in use by process {os.getpid()} "):
        bench.run()
    os.close(handle)
    assert bench.run() is not None


def test_two_names_do_not_meet(bench: Bench) -> None:
    handle = lock(bench.runs / ".other.lock", "it")
    assert bench.run() is not None
    os.close(handle)


@pytest.mark.parametrize(
    ("what", "says"), [("MEMORY", "of memory are free, a run needs"), ("DISK", "of disk are free")]
)
def test_too_little_room_is_said_before_anything_is_loaded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str, says: str
) -> None:
    monkeypatch.setattr(pipeline, f"LEAST_{what}_GIB", 1e6)
    monkeypatch.setattr(models, "resolve", lambda name, say: pytest.fail("a model was asked for"))
    with pytest.raises(ResourceError, match=says):
        bench.run()
    assert bench.ran() == []


def test_a_folder_of_runs_that_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for runs in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(ResourceError, match="is a file, not a folder"):
            pipeline.run(bench.built(), runs)


def test_a_file_in_place_of_the_run(bench: Bench) -> None:
    bench.run_dir.touch()
    with pytest.raises(ResourceError, match="quick: "):
        bench.run()


def test_a_run_folder_can_be_moved(finished: Bench) -> None:
    """The finished bench is a copy, under another path."""
    assert finished.run() == read_json(FINISHED[0] / "quick" / "result.json")
    assert finished.ran() == []


def test_the_fake_stands_for_the_real_stages() -> None:
    assert list(pipeline.STAGES) == STAGES


# ---- the real stages, in this process, with an engine that answers from a function ----------------------------------


@pytest.fixture
def context(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> stage.Context:
    monkeypatch.setattr(models, "resolve", lambda name, say: model_dir)
    recipe = copy.deepcopy(RECIPE)
    recipe["teacher"] |= {"n": 3, "engine": {"max_model_len": 900, "max_num_seqs": 2}}
    recipe["curate"]["max_length"] = 900
    recipe["evaluate"]["engine"]["max_model_len"] = 900
    return stage.Context(build(recipe, "here"), tmp_path / "quick", Machine("cpu", (0,)), Reporter(None))


def serve(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, **faults: int) -> FakeEngine:
    """The engine of the next stage. It solves what its seed lets it solve."""
    problems = tasks.load("chain_arithmetic", "train", limit=4)

    def answer(request: Request) -> Answer:
        chat = tokenizer.decode(request.prompt_token_ids)
        (problem,) = (p for p in problems if p.question in chat)
        if request.key.endswith("/answer"):
            return Answer(f" {problem.target}.")
        right = request.seed % 3
        return Answer(f"Way {request.seed}. The answer is {problem.target if right else -1}.", num_tokens=5)

    engine = FakeEngine(answer, **faults)
    monkeypatch.setattr(stage.Engines, "start", lambda *_: engine)
    return engine


def as_llama_factory_and_axolotl_read_them(messages: list[dict[str, str]]) -> bool:
    """LLaMA-Factory (SharegptDatasetConverter, with the tags role and content): a system turn or none, then user and
    assistant by turns, an even number; any other row is skipped there with a warning. axolotl (chat_template) wants the
    same keys and ends with the assistant's turn."""
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    roles = [turn["role"] for turn in turns]
    texts = all(set(turn) == {"role", "content"} and isinstance(turn["content"], str) for turn in messages)
    return texts and len(roles) > 1 and roles == ["user", "assistant"] * (len(roles) // 2)


def test_a_check_is_part_of_the_budget(context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    """Right answers with wrong steps are not accepted, so more is drawn."""
    problems = tasks.load("chain_arithmetic", "train", limit=4)

    def answer(request: Request) -> Answer:
        (problem,) = (p for p in problems if p.question in tokenizer.decode(request.prompt_token_ids))
        golden = request.seed % 2
        return Answer(problem.metadata["solution"] if golden else f"1 + 1 = 3. The answer is {problem.target}.")

    monkeypatch.setattr(stage.Engines, "start", lambda *_: FakeEngine(answer))
    drawn = {}
    for check in ("off", "golden"):
        recipe = context.recipe.model_dump()
        recipe["teacher"] |= {"n": None, "until": {"accept": 2, "max": 32}}
        recipe["curate"]["check"] = check
        here = dataclasses.replace(context, recipe=build(recipe, "here"), run_dir=context.run_dir.with_name(check))
        drawn[check] = stage.sample(here)["samples"]
        dropped = stage.curate(here)["dropped"]
    assert drawn["off"] == 8 < drawn["golden"]
    assert dropped == {"golden: wrong step": drawn["golden"] - 8, "duplicate": 4}  # a golden solution has one wording
    inputs = {
        check: pipeline.stage_inputs(
            build(RECIPE | {"curate": {"max_length": 9, "check": check}}, "here"), context.machine
        )
        for check in ("off", "golden")
    }
    assert inputs["off"]["sample"] == inputs["golden"]["sample"]  # a fixed n draws the same


def test_the_draw_of_a_size_match_follows_from_the_recipe_s_seed() -> None:
    def inputs(seed: int, **curate: Any) -> Any:
        recipe = build(RECIPE | {"seed": seed, "curate": {"max_length": 9} | curate}, "here")
        return pipeline.stage_inputs(recipe, Machine("cpu", (0,)))["curate"]

    assert inputs(0) == inputs(1)
    assert inputs(0, size_match="golden") != inputs(1, size_match="golden")


@pytest.mark.parametrize("method", ["fine_tune_cot", "few_shot_cot", "chat_cot", "fine_tune_cot_paper", "fine_tune"])
def test_messages_of_every_method(method: str) -> None:
    prompt = METHODS[method]
    asked = render(prompt, "How many?", [("One?", "The answer is 1.")] * 4)
    example = Example(asked if isinstance(asked, str) else tuple(asked), "The answer is 7.", "p/0", 0)
    turns = messages(example)["messages"]
    assert as_llama_factory_and_axolotl_read_them(turns)
    assert turns[-1] == {"role": "assistant", "content": "The answer is 7."}


def test_sampling_and_curation(context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    serve(monkeypatch, tokenizer)
    sampled = stage.sample(context)
    rows = read_jsonl(context.run_dir / "samples.jsonl")
    assert (sampled["samples"], sampled["samples_new"], sampled["samples_reused"]) == (12, 12, 0) == (len(rows), 12, 0)
    right = [row["seed"] % 3 != 0 for row in rows]
    assert 0 < sum(right) < 12
    assert sampled["pass_rate"] == sum(right) / 12
    assert sampled["num_tokens"] == 60
    assert sampled["tokens_per_accepted"] == 60 / sum(right)
    assert sampled["num_tokens_cancelled"] == 0
    curated = stage.curate(context)
    assert curated["kept"] == sum(right)
    assert curated["dropped"] == {"wrong": 12 - sum(right)}
    rows = read_jsonl(context.run_dir / "train.jsonl")
    assert len(rows) == sum(right)
    assert all(row["completion"][0]["content"].startswith("Way ") for row in rows)
    others = read_jsonl(context.run_dir / "messages.jsonl")
    assert [row["messages"] for row in others] == [row["prompt"] + row["completion"] for row in rows]
    assert all(as_llama_factory_and_axolotl_read_them(row["messages"]) for row in others)
    written = read_json(context.run_dir / "curation.json")
    assert written["input"] == written["kept"] + sum(written["dropped"].values()) == 12
    assert [(row["problem_id"], row["reason"]) for row in written["rows"]] == [
        (row["problem_id"], "wrong") for row in read_jsonl(context.run_dir / "samples.jsonl") if row["seed"] % 3 == 0
    ]
    assert written["contamination"]["test"] == 500  # what the recipe evaluates on, which names no number here
    assert {key: curated[key] for key in ("input", "kept", "dropped", "contamination")}.items() <= written.items()
    for outcome in (sampled, curated):
        for path, sha256 in outcome["outputs"].items():
            assert sha256_file(context.run_dir / path) == sha256


def test_a_budget_through_the_stages(context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    """Another recipe on the same store has drawn more: what lies behind the prefix is not curated."""
    serve(monkeypatch, tokenizer)
    other = dataclasses.replace(context, run_dir=context.run_dir.with_name("other"), account="other")
    stage.sample(other)
    drawn = read_jsonl(other.run_dir / "samples.jsonl")
    recipe = copy.deepcopy(RECIPE)
    del recipe["teacher"]["n"]
    recipe["teacher"] |= {"until": {"accept": 1, "max": 8}, "engine": {"max_model_len": 900, "max_num_seqs": 2}}
    recipe["curate"]["max_length"] = 900
    recipe["evaluate"]["engine"]["max_model_len"] = 900
    engine = serve(monkeypatch, tokenizer)
    context = dataclasses.replace(context, recipe=build(recipe, "here"), account="this")
    says: list[str] = []
    monkeypatch.setattr(Reporter, "say", lambda reporter, line: says.append(line))
    sampled = stage.sample(context)
    assert says == []  # the same sampling run
    rows = read_jsonl(context.run_dir / "samples.jsonl")
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_problem.setdefault(row["problem_id"], []).append(row)
    assert len(by_problem) == 4
    for own in by_problem.values():
        assert [row["sample_index"] for row in own] == list(range(len(own)))
        assert [row["verdict"]["correct"] for row in own] == [False] * (len(own) - 1) + [True]
    assert len(rows) < len(drawn)
    assert len(engine.submitted) == len([row for row in rows if row["sample_index"] >= 3])
    assert sampled["policy"] == "until 1 accepted of 8"
    assert (sampled["samples"], sampled["coverage"]) == (len(rows), 1.0)
    assert sampled["graded"]["new"] + sampled["graded"]["reused"] == len(rows)
    assert stage.curate(context)["kept"] == 4
    recipe["teacher"]["sampling"]["temperature"] = 0.5
    stage.sample(dataclasses.replace(context, recipe=build(recipe, "here"), account="warmer"))
    assert len(says) == 1
    assert says[0].startswith("sample: a new sampling run ")
    assert says[0].endswith("in sampling.temperature (0.0 → 0.5)")


def test_a_damaged_sample_is_drawn_again_in_the_same_run(
    context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    serve(monkeypatch, tokenizer)
    sampled = stage.sample(context)
    with context.store() as store:
        store._database.execute("UPDATE sample SET text = text || '!' WHERE sample_index = 1")
    engine = serve(monkeypatch, tokenizer)
    assert stage.sample(context)["outputs"] == sampled["outputs"]
    assert len(engine.submitted) == 4


def test_nested_n_through_the_stage(context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    """n=1 ⊂ 2 ⊂ 4, in whatever run of the folder: only the difference is asked for, and nothing where there is none."""
    rows: list[dict[str, Any]] = []
    for n, run_name, new in [(1, "a", 4), (2, "b", 4), (4, "b", 8), (2, "c", 0), (4, "d", 0)]:
        recipe = copy.deepcopy(RECIPE) | {"name": run_name}
        recipe["teacher"] |= {"n": n, "engine": {"max_model_len": 900, "max_num_seqs": 2}}
        recipe["curate"]["max_length"] = 900
        recipe["evaluate"]["engine"]["max_model_len"] = 900
        engine = serve(monkeypatch, tokenizer)
        run_dir = context.run_dir.with_name(run_name)
        sampled = stage.sample(
            dataclasses.replace(context, recipe=build(recipe, "here"), run_dir=run_dir, account=f"{n} {run_name}")
        )
        assert len(engine.submitted) == new
        assert (sampled["samples"], sampled["samples_new"]) == (4 * n, new)
        assert sampled["num_tokens_generated"] == 5 * new
        before, rows = rows, read_jsonl(run_dir / "samples.jsonl")
        assert [row for row in rows if row["sample_index"] < min(n, 2)] == [
            row for row in before if row["sample_index"] < min(n, 2)
        ] or len(before) < len(rows)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r, _: r["teacher"]["sampling"].update(temperature=0.5), "sampling.temperature (0.0 → 0.5)"),
        (lambda r, _: r["prompts"]["steps"].update(template="{question}!"), "prompt.template"),
        (lambda r, patch: patch.setattr(models, "weights_hash", lambda path: "other"), "weights"),
        (lambda r, _: r["curate"].update(max_length=899), None),
        (lambda r, _: r["student"].update(lora={"r": 4}), None),
        (lambda r, _: r["evaluate"]["sampling"].update(max_tokens=8), None),
        (lambda r, _: r["teacher"]["engine"].update(max_num_seqs=3), None),
    ],
    ids=["temperature", "prompt", "model", "curation", "student", "evaluation", "speed"],
)
def test_what_costs_tokens_is_announced_and_the_rest_costs_none(
    context: stage.Context,
    monkeypatch: pytest.MonkeyPatch,
    tokenizer: Any,
    change: Callable[[dict[str, Any], pytest.MonkeyPatch], None],
    says: str | None,
) -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe["teacher"] |= {"n": 3, "engine": {"max_model_len": 900, "max_num_seqs": 2}}
    recipe["curate"]["max_length"] = 900
    recipe["evaluate"]["engine"]["max_model_len"] = 900
    serve(monkeypatch, tokenizer)
    stage.sample(dataclasses.replace(context, recipe=build(recipe, "here")))
    change(recipe, monkeypatch)
    engine = serve(monkeypatch, tokenizer)
    said: list[tuple[str, int]] = []
    monkeypatch.setattr(Reporter, "say", lambda reporter, line: said.append((line, len(engine.submitted))))
    sampled = stage.sample(dataclasses.replace(context, recipe=build(recipe, "here"), account="changed"))
    if says is None:
        assert (engine.submitted, said, sampled["num_tokens_generated"]) == ([], [], 0)
    else:
        ((line, submitted),) = said
        assert line.startswith("sample: a new sampling run ")
        assert says in line
        assert submitted == 0, "before it starts"
        assert len(engine.submitted) == 12


def test_samples_that_were_cut_off_never_train_and_are_told(
    context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    engine = serve(monkeypatch, tokenizer)
    solves = engine._answer
    assert solves is not None
    engine._answer = lambda request: solves(request)._replace(finish_reason="length" if request.seed % 2 else "stop")
    said: list[str] = []
    monkeypatch.setattr(Reporter, "say", lambda reporter, line: said.append(line))
    sampled = stage.sample(context)
    rows = read_jsonl(context.run_dir / "samples.jsonl")
    cut = [row for row in rows if row["seed"] % 2]
    assert 0 < len(cut) == sampled["samples_unfinished"] < len(rows) == 12
    assert any(row["seed"] % 3 for row in cut), "some of them state the right answer"
    assert not any(row["verdict"]["correct"] for row in cut)
    assert said == [
        f"sample: {len(cut)} of 12 samples ({len(cut) / 12:.0%}) were cut off at max_tokens and teach nothing; raise "
        "teacher.sampling.max_tokens"
    ]
    curated = stage.curate(context)
    trained = {(row["problem_id"], row["sample_index"]) for row in read_jsonl(context.run_dir / "train.jsonl")}
    assert len(trained) == curated["kept"] > 0
    assert not trained & {(row["problem_id"], row["sample_index"]) for row in cut}


@pytest.mark.parametrize(
    "method",
    [
        "fine_tune",
        "fine_tune_cot",
        "chat_cot",
        "zero_shot_cot",
        "few_shot_cot",
        "fine_tune_cot_paper",
        "fine_tune_cot_gpt3",
    ],
)
def test_sampling_training_and_evaluation_see_the_same_ids(
    context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, method: str
) -> None:
    recipe = copy.deepcopy(RECIPE)
    roomy = {"max_model_len": 9000, "max_num_seqs": 2}
    recipe["teacher"] |= {"n": 3, "prompt": method, "engine": roomy}
    recipe["curate"]["max_length"] = 9000
    recipe["student"]["prompt"] = method
    recipe["evaluate"] |= {"before": [method], "engine": roomy}
    context = dataclasses.replace(context, recipe=build(recipe, "here"))
    sampling = serve(monkeypatch, tokenizer)
    stage.sample(context)
    stage.curate(context)
    rows = read_jsonl(context.run_dir / "train.jsonl")
    assert rows
    trained = {}
    for row in rows:
        made = token_row(tokenizer, row)
        prompt_length = made.labels.count(-100)
        assert made.labels[prompt_length:] == made.input_ids[prompt_length:]
        trained[row["problem_id"]] = made.prompt
    engine = FakeEngine(lambda request: Answer("The answer is 1.", num_tokens=5))
    problems = tasks.load("chain_arithmetic", "train", limit=4)
    with context.store() as store:
        evaluation = Evaluation(context.recipe, store, context.model("m"), context.progress)
        evaluation.items(Student("other weights", None, lambda: engine), method, problems, "test")
    asked = {
        name: {
            request.key.split("/")[3]: request.prompt_token_ids
            for request in used.submitted
            if not request.key.endswith("/answer")
        }
        for name, used in (("sampled", sampling), ("evaluated", engine))
    }
    by_index = {problem_id.split("/")[2]: ids for problem_id, ids in trained.items()}
    assert asked["sampled"] == asked["evaluated"]
    assert len(asked["sampled"]) == 4
    for index, ids in by_index.items():
        assert asked["evaluated"][index] == ids


def test_the_best_epoch_on_validation_becomes_the_adapter(
    context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    """The second of three; the engine serves whatever was merged last, or the untrained student."""
    chosen = context.recipe.student.model_copy(update={"select": "validation_accuracy"})
    task = context.recipe.task.model_copy(update={"validation": 4, "test": 3})
    context = dataclasses.replace(context, recipe=context.recipe.model_copy(update={"student": chosen, "task": task}))
    serve(monkeypatch, tokenizer)
    stage.sample(context)
    stage.curate(context)
    skills, names = {"": 0, "1": 1, "2": 3, "3": 2}, ["epoch-1", "epoch-2", "epoch-3"]
    (context.run_dir / "epochs" / "epoch-9").mkdir(parents=True)  # of an earlier recipe

    def trained(*_: Any, output_dir: Path, epochs_dir: Path, **__: Any) -> student.TrainOutcome:
        for name in names:
            (epochs_dir / name).mkdir(parents=True)
            (epochs_dir / name / "weights").write_text(name[-1])
        output_dir.mkdir()
        (output_dir / "weights").write_text("3")
        return student.TrainOutcome(
            trainable_parameters=1,
            num_tokens=1,
            wall_seconds=1.0,
            tokens_per_second=1.0,
            losses=[],
            batching="padding-free",
            padding=0.0,
            steps=1,
            resumed_at=None,
            epochs=names,
            peak_gpu_allocated_gib=None,
            peak_gpu_reserved_gib=None,
        )

    monkeypatch.setattr(student, "train", trained)
    outcome = stage.train(context)
    assert sorted(outcome["outputs"]) == [f"epochs/{name}/weights" for name in names]
    assert sorted(path.name for path in (context.run_dir / "epochs").iterdir()) == names
    write_json(context.run_dir / "stages" / "train.json", outcome)

    problems = {part: tasks.problems(task, part) for part in ("validation", "test")}
    served, asked = [""], set()

    def answer(request: Request) -> Answer:
        chat = tokenizer.decode(request.prompt_token_ids)
        ((part, index),) = (
            (part, i) for part, row in problems.items() for i, p in enumerate(row) if p.question in chat
        )
        asked.add((served[0], part))
        right = index < skills[served[0]]
        return Answer(f"The answer is {problems[part][index].target if right else -1}.")

    monkeypatch.setattr(stage.Engines, "start", lambda *_: FakeEngine(answer))
    monkeypatch.setattr(student, "merge", lambda _, folder, __: served.__setitem__(0, (folder / "weights").read_text()))
    evaluated = stage.evaluate(context)
    assert evaluated["selection"]["picked"] == "epoch-2"
    assert (context.run_dir / "adapter" / "weights").read_text() == "2"
    assert evaluated["outputs"]["adapter/weights"] == sha256_file(context.run_dir / "adapter" / "weights")
    assert asked == {("", "validation"), ("", "test"), *((name, "validation") for name in "123"), ("2", "test")}


OWN = [{"text": f"Start with {n}. Add {n}. What is the result?", "result": str(2 * n)} for n in range(1, 201)]


def own_data(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "path": str(path),
        "question": "text",
        "target": "result",
        "answer": "number",
        "max_bad_rows": 3,
        "train": 4,
    }


def test_data_of_your_own_through_the_stages(
    context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, tmp_path: Path
) -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe["task"] = own_data(tmp_path / "own.jsonl", [*OWN, {"text": "How many?"}, {"text": "One?", "result": "blue"}])
    recipe["teacher"] |= {"engine": {"max_model_len": 900}}
    recipe["evaluate"]["engine"]["max_model_len"] = 900
    recipe["curate"]["max_length"] = 900
    context = dataclasses.replace(context, recipe=build(recipe, "here"))
    problems = tasks.problems(context.recipe.task, "train")

    def answer(request: Request) -> Answer:
        (problem,) = (p for p in problems if p.question in tokenizer.decode(request.prompt_token_ids))
        return Answer(f"So. The answer is {problem.target}.", num_tokens=5)

    monkeypatch.setattr(stage.Engines, "start", lambda *_: FakeEngine(answer))
    sampled = stage.sample(context)
    assert (sampled["samples"], sampled["pass_rate"], sampled["answer_kind"]) == (4, 1.0, "number")
    assert sum(sampled["bad_rows"].values()) == 2
    assert [row["row"] for row in read_json(context.run_dir / "bad_rows.json")] == [201, 202]
    assert stage.curate(context)["kept"] == 4


def test_a_changed_file_of_your_own_is_other_data(bench: Bench, tmp_path: Path) -> None:
    bench.recipe["task"] = own_data(tmp_path / "own.jsonl", OWN)
    for rows, again in (
        (OWN, STAGES),
        (OWN, []),
        ([*OWN[:-1], {**OWN[-1], "result": "401"}], ["sample", "curate", "evaluate"]),
    ):
        own_data(tmp_path / "own.jsonl", rows)
        result = bench.run()
        assert bench.ran() == again
        assert result is not None
        assert result["task"] == str(tmp_path / "own.jsonl")


def test_bad_rows_stop_the_run_before_anything_else(bench: Bench, tmp_path: Path) -> None:
    bench.recipe["task"] = own_data(tmp_path / "own.jsonl", [*OWN, *[{"text": "x"}] * 4])
    with pytest.raises(DataError, match="max_bad_rows"):
        bench.run()
    assert bench.ran() == []


def test_sampling_that_was_interrupted_counts_its_samples_as_new(
    context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    serve(monkeypatch, tokenizer, interrupted_at_poll=3)
    with pytest.raises(KeyboardInterrupt):
        stage.sample(context)
    assert not (context.run_dir / "samples.jsonl").exists()
    serve(monkeypatch, tokenizer)
    sampled = stage.sample(context)
    assert (sampled["samples"], sampled["samples_new"], sampled["samples_reused"]) == (12, 12, 0)
    assert sampled["num_tokens_cancelled"] > 0
    # Another run on the same store asks for nothing, and says so.
    engine = serve(monkeypatch, tokenizer)
    other = dataclasses.replace(context, run_dir=context.run_dir.with_name("other"), account="other")
    again = stage.sample(other)
    assert (again["samples_new"], again["samples_reused"]) == (0, 12)
    assert engine.submitted == []
    assert again["outputs"] == sampled["outputs"]


def test_a_student_without_room_is_refused_before_the_teacher_starts(
    context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    engine = serve(monkeypatch, tokenizer)
    tight = context.recipe.model_copy(update={"curate": context.recipe.curate.model_copy(update={"max_length": 5})})
    with pytest.raises(RecipeError, match=r"curate\.max_length: 5 leaves no room for a rationale"):
        stage.sample(dataclasses.replace(context, recipe=tight))
    assert engine.submitted == []


def test_a_teacher_that_is_never_right(context: stage.Context, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    serve(monkeypatch, tokenizer)._answer = lambda request: Answer("The answer is -1.")
    sampled = stage.sample(context)
    assert (sampled["pass_rate"], sampled["coverage"], sampled["tokens_per_accepted"]) == (0, 0, None)
    assert stage.curate(context)["kept"] == 0
    with pytest.raises(DataError, match=r"no rationale survived curation.*curation\.json"):
        stage.train(context)


def test_a_stage_that_is_asked_for_by_hand_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fcot_lite.stage", "curate", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == RecipeError.exit_code
    assert "recipe.yaml: No such file" in done.stderr
