"""The `fcot` command. Prints and exits; no logic. stdout is the result, stderr log and progress."""

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fcot_lite.errors import INTERRUPTED, FcotError, RecipeError, ResourceError
from fcot_lite.files import disk_fault

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fine-tune-CoT: distil the reasoning of a teacher you own into a student that fits one GPU.",
)
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe such as recipes/quickstart.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="replace values of it")]
Runs = Annotated[Path, typer.Option(help="folder of the runs and of the sample store")]
Force = Annotated[bool, typer.Option("--force", help="start the run over; stored samples are kept")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the whole recipe as it would run, and stop")]
AsJson = Annotated[bool, typer.Option("--json", help="print result.json in place of the tables")]
AsChecks = Annotated[bool, typer.Option("--json", help="print the checks as JSON in place of the table")]


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """All stages: sample, curate, train, evaluate, and the table at the end."""
    if dry_run:
        _guarded(lambda: print(_dumped(recipe, overrides, as_json), end=""))
    else:
        _stages(recipe, overrides, runs, "evaluate", force, as_json)


@app.command()
def sample(recipe: RecipeFile, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Draw the teacher's rationales that the sample store lacks."""
    _stages(recipe, overrides, runs, "sample")


@app.command()
def curate(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="print curation.json, but for its rows")] = False,
) -> None:
    """Sample, then keep what is right: writes train.jsonl and curation.json, prints what was dropped and why."""

    def show(run_dir: Path) -> None:
        from fcot_lite.files import read_json
        from fcot_lite.report import contamination_note, funnel

        curation = read_json(run_dir / "curation.json")
        if as_json:
            print(json.dumps({key: value for key, value in curation.items() if key != "rows"}, indent=2))
            return
        console = _console(width=120)
        console.print(funnel(curation))
        for note in contamination_note(curation):
            console.print(note, soft_wrap=True)

    _stages(recipe, overrides, runs, "curate", then=show)


@app.command()
def train(recipe: RecipeFile, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Everything up to the fine-tuned student: writes adapter/."""
    _stages(recipe, overrides, runs, "train")


@app.command()
def evaluate(
    recipe: RecipeFile, overrides: Overrides = None, runs: Runs = Path("runs"), as_json: AsJson = False
) -> None:
    """Everything up to the evaluation; the same as `run`."""
    _stages(recipe, overrides, runs, "evaluate", as_json=as_json)


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(metavar="RUN")], as_json: AsJson = False) -> None:
    """Print the tables of a finished run, such as runs/quickstart."""

    def show() -> None:
        from fcot_lite.report import read

        _print_result(read(_run_folder(run_dir) / "result.json"), as_json)

    _guarded(show)


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN")],
    to: Annotated[Literal["merged", "adapter"], typer.Option(help="bfloat16 weights, or the adapter")] = "merged",
    base: Annotated[
        Literal["unquantised", "nf4"], typer.Option(help="which base a qlora adapter is merged into")
    ] = "unquantised",
    out: Annotated[Path | None, typer.Option("-o", metavar="FOLDER", help="RUN/export/... if left out")] = None,
    problems: Annotated[int, typer.Option(min=1, help="test questions of the parity check")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON in place of the lines")] = False,
) -> None:
    """A finished run's student for the world outside: its weights, a model card, the line that serves it."""

    def go() -> None:
        from fcot_lite import pipeline

        done = pipeline.export(_run_folder(run_dir), to=to, base=base, folder=out, problems=problems)
        if as_json:
            print(json.dumps(done, indent=2))
            return
        from fcot_lite.export import lines

        print("\n".join(lines(done)))

    _guarded(go)


@app.command()
def models(as_json: AsJson = False) -> None:
    """The starter models: where they come from, under which licence, and whether they are here."""

    def show() -> None:
        from rich.table import Table

        from fcot_lite.models import describe

        rows = describe()
        if as_json:
            print(json.dumps([asdict(row) for row in rows], indent=2, default=str))  # str: the path
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("name", "upstream", "licence", "mirror", "sha256", "size", "here"):
            table.add_column(heading, overflow="fold")
        for row in rows:
            size = f"{row.weights_bytes / 1e9:.1f} GB"
            here = str(row.path) if row.path else "not yet"
            table.add_row(row.name, row.upstream, row.license, row.mirror, row.gguf_sha256[:12], size, here)
        _console(width=200).print(table)

    _guarded(show)


@app.command()
def tasks(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="one task, a recipe for the task in it, or rg: for their names"),
    ] = None,
    overrides: Overrides = None,
    examples: Annotated[int, typer.Option("-n", min=0, help="show its first N train questions by each prompt")] = 0,
    leakage: Annotated[bool, typer.Option("--leakage", help="count test questions that stand in train")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON in place of the tables")] = False,
) -> None:
    """The tasks: how many questions, which answers, from where, and what leaks from train into test."""

    def show() -> None:
        from fcot_lite.recipe import load
        from fcot_lite.task_block import DATA_FILES, TaskBlock
        from fcot_lite.tasks import listing, rg

        if name is None:
            if examples or leakage:
                raise RecipeError("-n and --leakage are for one task: fcot tasks NAME")
            rows = listing.overview()
            if as_json:
                print(json.dumps(rows, indent=2))
            else:
                _console(width=200).print(listing.overview_table(rows))
            for fault in listing.overview_faults(rows):
                print(f"fcot: {fault}", file=sys.stderr)
            return
        if name == rg.PREFIX:
            print(json.dumps(rg.names(), indent=2) if as_json else "\n".join(f"{rg.PREFIX}{n}" for n in rg.names()))
            return
        if Path(name).is_dir() and not name.startswith(rg.PREFIX):
            raise RecipeError(f"{name}: is a folder; name a task, or one recipe in it")
        if name.lower().endswith(DATA_FILES):
            raise RecipeError(f"{name}: is data; write a recipe whose task.path names it, see docs/tasks.md")
        recipe = load(Path(name), overrides or ()) if name.endswith((".yaml", ".yml")) else None
        if overrides and recipe is None:
            raise RecipeError("KEY=VALUE overrides are for a recipe: fcot tasks RECIPE.yaml KEY=VALUE")
        task = recipe.task if recipe else TaskBlock(name=name)
        found = listing.details(task, recipe.prompts if recipe else listing.PROMPTS, examples, leakage)
        if as_json:
            print(json.dumps(found, indent=2))
            return
        console = _console(width=120)
        for line in listing.details_lines(found):
            console.print(line, soft_wrap=isinstance(line, str))

    _guarded(show)


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="examine for this recipe as well")] = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    as_json: AsChecks = False,
) -> None:
    """Examine the machine and, with a recipe, its data, models, memory, disk and prompts. Downloads nothing."""

    def show() -> None:
        from rich.table import Table

        from fcot_lite.doctor import examine, exit_code
        from fcot_lite.machine import detect
        from fcot_lite.recipe import load

        machine = detect()
        examined = examine(load(recipe, overrides or (), machine.device) if recipe else None, machine, runs)
        code = exit_code(examined.checks)
        if as_json:
            print(json.dumps({"exit_code": code, **asdict(examined)}, indent=2))
        else:
            table = Table(box=None, pad_edge=False)
            for heading in ("", "check", "found", "fix"):
                table.add_column(heading, overflow="fold")
            for check in examined.checks:
                table.add_row({"ok": "✓", "warn": "!", "fail": "✗"}[check.state], check.name, check.found, check.fix)
            _console(width=160).print(table)
            if examined.example:
                print(f"\n{examined.example}")
        sys.exit(code)

    _guarded(show)


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    device: Annotated[
        str | None, typer.Option(help="plan for this: cpu, rtx4090, a100-40, …; else this machine")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="print JSON in place of the tables")] = False,
) -> None:
    """Memory, time and money of a recipe on a device, and what to change where it does not fit. Loads nothing."""

    def show() -> None:
        from fcot_lite import devices, rates
        from fcot_lite.meter import available_memory_gib
        from fcot_lite.plan import notes, plan, tables
        from fcot_lite.recipe import load

        machine = devices.machine(device)
        made = plan(
            load(recipe, overrides or (), machine.device), machine, available_memory_gib(), rates.finished(runs)
        )
        if as_json:
            print(json.dumps(made, indent=2))
            return
        console = _console(width=140)
        for table in tables(made):
            console.print(table)
        for note in notes(made):
            console.print(note, soft_wrap=True)

    _guarded(show)


@app.command()
def grade(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help='rows {"target", "text"}; - reads stdin')],
    task: Annotated[str | None, typer.Option(metavar="NAME", help="a task, for its kind of answer")] = None,
    answer: Annotated[str | None, typer.Option(metavar="KIND", help="without a task: number, choice, …")] = None,
    mode: Annotated[
        list[str] | None, typer.Option(help="strict (if left out), flexible, paper, paper-v1; may be repeated")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", metavar="OUT.jsonl", help="write each verdict there")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON in place of the tables")] = False,
) -> None:
    """Grade anybody's completions: accuracy by mode, counts by reason, and where modes disagree."""

    def show() -> None:
        from fcot_lite import grading

        with grading.Progress() as progress:
            counts = grading.grade_file(file, out, task, answer, mode or ["strict"], progress)
        for note in grading.notes(counts):
            print(f"fcot: {note}" if not note.startswith(" ") else note, file=sys.stderr)
        found = grading.summary(counts)
        if as_json:
            print(json.dumps(found, indent=2))
            return
        console = _console(width=160)
        for table in grading.tables(found):
            console.print(table)

    _guarded(show, "nothing was written")


samples_app = typer.Typer(invoke_without_command=True)
app.add_typer(samples_app, name="samples", help="The sampling runs in the store: list them, export them, import them.")
OfStore = Annotated[Path, typer.Option("--runs", help="folder of the sample store")]


@samples_app.callback()
def samples(
    context: typer.Context,
    runs: OfStore = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="print JSON in place of the table")] = False,
) -> None:
    """List the sampling runs: what they drew, how much of it is right, what it cost. Works while one is going on."""
    if context.invoked_subcommand is not None:
        context.obj = runs
        return

    def show() -> None:
        from fcot_lite.recipe import STORE
        from fcot_lite.sampling_runs import listing, table

        rows = listing(runs / STORE)
        if as_json:
            print(json.dumps(rows, indent=2))
        else:
            _console(width=200).print(table(rows))

    _guarded(show)


@samples_app.command("export")
def export_samples(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="OUT.jsonl|OUT.parquet")],
    campaign: Annotated[
        list[str] | None, typer.Option(metavar="HASH", help="this sampling run alone; may be repeated")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="folder of the sample store")] = None,
) -> None:
    """Write sampling runs to a file with all that it takes to restore them."""

    def go() -> None:
        from fcot_lite.recipe import STORE
        from fcot_lite.samples import export, summary

        counts = export((runs or context.obj) / STORE, out, campaign or ())
        print(f"{out}: {summary(counts)}")
        if counts["damaged"]:
            print(f"fcot: damaged samples that were left out: {counts['damaged']:,}", file=sys.stderr)

    _guarded(go)


@samples_app.command("import")
def import_samples(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what `fcot samples export` wrote")],
    runs: Annotated[Path | None, typer.Option(help="folder of the sample store")] = None,
) -> None:
    """Restore sampling runs from a file: all of it or, where something is wrong with it, nothing."""

    def go() -> None:
        from fcot_lite.recipe import STORE
        from fcot_lite.samples import restore, summary

        counts = restore(file, (runs or context.obj) / STORE)
        print(f"{file}: new are {summary(counts)}; rows that were there already: {counts['kept']:,}")

    _guarded(go)


def _run_folder(run: Path) -> Path:
    """A run's name alone is a run in the usual folder."""
    return run if run.exists() or len(run.parts) > 1 else Path("runs") / run


def _stages(
    path: Path,
    overrides: list[str] | None,
    runs: Path,
    last: str,
    force: bool = False,
    as_json: bool = False,
    then: Callable[[Path], None] | None = None,
) -> None:
    """Runs the stages up to `last` and prints the result where there is one; `then` gets the folder of the run."""

    def go() -> None:
        from fcot_lite.machine import detect
        from fcot_lite.recipe import load

        loaded = load(path, overrides or (), detect().device)
        from fcot_lite import pipeline  # only now: a fault in the recipe should not wait for it

        result = pipeline.run(loaded, runs, last=last, force=force)
        if result is not None:
            _print_result(result, as_json)
        if then is not None:
            then(runs / loaded.name)

    _guarded(go)


def _dumped(path: Path, overrides: list[str] | None, as_json: bool) -> str:
    from fcot_lite import models, tasks
    from fcot_lite.machine import detect
    from fcot_lite.recipe import dump, load

    recipe = load(path, overrides or (), detect().device)
    tasks.examples(recipe.task, 0)  # raises where there is no such task or option
    for model in recipe.models:
        models.check_name(model)
    return json.dumps(recipe.model_dump(), indent=2) + "\n" if as_json else dump(recipe)


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    from fcot_lite.report import notes, tables

    console = _console(width=120)
    for table in tables(result):
        console.print(table)
    for note in notes(result):
        console.print(note, soft_wrap=True)


def _console(width: int) -> Any:
    """For stdout, `width` columns wide where it is no terminal. Names are shown as they are: [red] is text."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False, emoji=False)


def _guarded(action: Callable[[], None], interrupted: str = "run the same command again to go on") -> None:
    """Runs the action; a fault is one message and its exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "…" shows "?" and loses no run
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    try:
        action()
    except FcotError as error:
        print(f"fcot: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit as end:
        if end.code != 1:  # rich's answer to the same; no fault of ours ends with 1
            raise
    except OSError as error:  # a full disk, a folder that can't be written
        fault = disk_fault(error) or ResourceError(f"{error}; mend that, then run the same command again")
        print(f"fcot: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
    except KeyboardInterrupt:
        print(f"fcot: interrupted; {interrupted}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def main() -> None:
    app()
