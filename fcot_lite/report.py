"""Results → result.json, a table, report.md."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from fcot_lite.errors import DataError
from fcot_lite.files import read_json
from fcot_lite.meter import cost_usd
from fcot_lite.recipe import Recipe

SCHEMA_VERSION = 1
STAGE_FIGURES = (
    "peak_memory_gib",
    "peak_gpu_allocated_gib",
    "peak_gpu_reserved_gib",
    "peak_gpu_nvml_gib",
    "energy_kwh",
)
KEYS = {
    "schema_version", "name", "recipe_hash", "task", "seed", "wall_seconds", "cost_usd", "usd_per_hour", "teacher",
    "curation", "student", "methods", "validation", "before", "after", "difference", "served", "stages",
}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """The result in `path`. Raises DataError where there is none or it is not one of this version's."""
    if not path.exists():
        raise DataError(f"{path}: no such file; a run writes it when all its stages are done")
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION or not value.keys() >= KEYS:
        raise DataError(f"{path}: no result of schema {SCHEMA_VERSION}; run its recipe again to write a new one")
    return value


def result(
    recipe: Recipe, outcomes: Mapping[str, Mapping[str, Any]], meters: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of result.json (docs/architecture.md has the schema). What wasn't measured is None, never 0."""
    sample, curate, train, evaluate = (outcomes[name] for name in ("sample", "curate", "train", "evaluate"))
    price = recipe.cost.usd_per_hour
    stages = {}
    for name, meter in meters.items():
        figures = {key: meter.get(key) for key in STAGE_FIGURES}
        seconds = meter["wall_seconds"]
        stages[name] = {
            "wall_seconds": seconds,
            # What this run itself generated or trained on, as the time and the money are.
            "num_tokens": outcomes.get(name, {}).get("num_tokens_generated", outcomes.get(name, {}).get("num_tokens")),
            **figures,
            "cost_usd": cost_usd(seconds, price),
        }
    for key in ("peak_gpu_allocated_gib", "peak_gpu_reserved_gib"):
        stages["train"][key] = train.get(key)
    wall_seconds = sum(stage["wall_seconds"] for stage in stages.values())
    return {
        "schema_version": SCHEMA_VERSION,
        "name": recipe.name,
        "recipe_hash": recipe.hash(),
        "task": recipe.task.label,
        "seed": recipe.seed,
        "wall_seconds": wall_seconds,
        "cost_usd": cost_usd(wall_seconds, price),
        "usd_per_hour": price,
        "teacher": {
            key: sample[key]
            for key in (
                "model", "samples", "samples_new", "samples_reused", "pass_rate", "pass_rate_ci95", "coverage",
                "num_tokens", "num_tokens_cancelled", "tokens_per_accepted", "tokens_per_second",
            )
        } | {
            "policy": sample.get("policy"),  # None: the rationales were there already
            "samples_unfinished": sample.get("samples_unfinished"),
        },
        "imported": sample.get("imported"),
        "graded": sample.get("graded"),
        "bad_rows": sample.get("bad_rows", {}),
        # input and contamination are None where an earlier version curated
        "curation": {key: curate.get(key) for key in ("kept", "dropped", "input", "contamination")},
        "student": {
            key: train.get(key)
            for key in (
                "model", "method", "trainable_parameters", "num_tokens", "tokens_per_second", "rows", "steps",
                "batching", "padding", "per_device_train_batch_size", "gradient_accumulation_steps",
            )
        },
        "selection": evaluate.get("selection"),
        **{key: evaluate[key] for key in ("methods", "validation", "before", "after", "difference", "served")},
        "stages": stages,
    }  # fmt: skip


def tables(result: Mapping[str, Any]) -> list[Table]:
    """What a run ends with: accuracies, then the price of each stage."""
    teacher, methods = result["teacher"], result["methods"]
    before, after = methods[result["before"]], methods[result["after"]]
    accuracy = Table(box=box.SIMPLE_HEAD, title=f"{result['name']}: {result['task']}, seed {result['seed']}")
    for heading in ("", "accuracy", "95 % interval", "n"):
        accuracy.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    rate, interval = teacher["pass_rate"], teacher["pass_rate_ci95"]
    accuracy.add_row(
        f"teacher pass rate ({_short(teacher['model'])})", _percent(rate), _interval(interval), str(teacher["samples"])
    )
    accuracy.add_row(f"student before ({result['before']})", *_method(before))
    accuracy.add_row(f"student after ({result['after']})", *_method(after))
    difference = result["difference"]
    accuracy.add_row(
        "after − before (paired)",
        f"{100 * difference['accuracy']:+.1f}",
        f"{100 * difference['ci95'][0]:+.1f} … {100 * difference['ci95'][1]:+.1f}",
        str(after["n"]),
    )
    stages = Table(box=box.SIMPLE_HEAD)
    for heading in ("stage", "wall time", "peak memory", "tokens", "cost"):
        stages.add_column(heading, justify="left" if heading == "stage" else "right", no_wrap=True)
    for name, stage in result["stages"].items():
        stages.add_row(
            name,
            duration(stage["wall_seconds"]),
            _gib(stage["peak_memory_gib"] if stage["peak_gpu_nvml_gib"] is None else stage["peak_gpu_nvml_gib"]),
            _count(stage["num_tokens"]),
            _usd(stage["cost_usd"]),
        )
    stages.add_row("all", duration(result["wall_seconds"]), "", "", _usd(result["cost_usd"]))
    return [accuracy, stages]


def funnel(curation: Mapping[str, Any]) -> Table:
    """What curation was given, what each reason took, and what is left; `curation` as in curation.json."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "dropped", "left"):
        table.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    left = curation["kept"] + sum(curation["dropped"].values())
    table.add_row("input", "", _count(left))
    for reason, count in curation["dropped"].items():
        left -= count
        table.add_row(reason, _count(count), _count(left))
    table.add_row("kept", "", _count(curation["kept"]))
    return table


def contamination_note(curation: Mapping[str, Any]) -> list[str]:
    """What the train questions share with those of test; nothing where an earlier version curated."""
    found = curation.get("contamination")
    if found is None:
        return []
    counts = f"train questions that stand in test: {found['exact'] + found['normalised']:,} of {found['train']:,}"
    shared = (
        f"that share 13 words in a row with one of {found['test_ngram']:,} (of {found['test']:,}): {found['ngram']:,}"
    )
    example = next((row for row in found["examples"] if row["kind"] == "ngram"), None)
    like = f", such as {example['problem_id']} with {example['test_problem_id']}" if example else ""
    return [f"{counts}; {shared}{like}"]


def notes(result: Mapping[str, Any]) -> list[str]:
    """The lines under the tables: what the figures rest on."""
    teacher, curation, student = result["teacher"], result["curation"], result["student"]
    cut = teacher.get("samples_unfinished")
    dropped = ", ".join(f"{count} {reason}" for reason, count in curation["dropped"].items()) or "none"
    before, after = (result["methods"][result[key]] for key in ("before", "after"))
    chosen = ", ".join(f"{name} {_percent(row['accuracy'])}" for name, row in result["validation"].items())
    price, speed = result["usd_per_hour"], student["tokens_per_second"]
    parameters = _count(student["trainable_parameters"])
    bad_rows = result.get("bad_rows") or {}
    aside = ", ".join(f"{count} {reason}" for reason, count in sorted(bad_rows.items()))
    return [
        *_import_notes(result.get("imported")),
        *([f"data: {sum(bad_rows.values())} rows set aside ({aside}); bad_rows.json names them"] if bad_rows else []),
        *_sampling(result),
        *([f"sampling: {unfinished(cut, teacher['samples'])}"] if cut and result.get("imported") is None else []),
        *_grading(result.get("graded") or {}),
        f"training set: {curation['kept']} rationales kept; dropped: {dropped}",
        *contamination_note(curation),
        f"student: {_short(student['model'])}, {student['method']}, {parameters} trainable parameters, "
        f"{'–' if speed is None else f'{speed:.0f}'} tok/s in training",
        *_batches(student),
        *_selection(result.get("selection")),
        f"prompt before: the best on validation ({chosen})",
        f"cut off at max_tokens: {before['truncated']} before, {after['truncated']} after; errored: "
        f"{before['errored']} and {after['errored']}",
        "cost: no price given (cost.usd_per_hour)" if price is None else f"cost: wall time × {price:g} USD per hour",
    ]


def _batches(student: Mapping[str, Any]) -> list[str]:
    """How the student's rows came together; nothing for a run from before that was written down."""
    if student.get("steps") is None:
        return []
    padding = "" if student["padding"] is None else f", {student['padding']:.1%} padding"
    return [f"training: {student['rows']} rows, {student['steps']} steps; batches {student['batching']}{padding}"]


def unfinished(num: int, samples: int) -> str:
    """What samples that ran into max_tokens mean, and what helps."""
    return (
        f"{num:,} of {samples:,} samples ({num / samples:.0%}) were cut off at max_tokens and teach nothing; raise "
        "teacher.sampling.max_tokens"
    )


def _grading(graded: Mapping[str, int]) -> list[str]:
    """Nothing where nothing about it needs a word."""
    lines = []
    if graded.get("regraded"):
        lines.append(f"graded again by a newer grader: {graded['regraded']} samples, {graded['changed']} otherwise")
    if graded.get("math_verify") or graded.get("not_judged"):
        lines.append(f"math-verify gave {graded['math_verify']} verdicts and could not judge {graded['not_judged']}")
    return lines


def _selection(selection: Mapping[str, Any] | None) -> list[str]:
    """Nothing where the last student was taken, as it is without a choice."""
    if not selection or selection["by"] == "last":
        return []
    figures = ", ".join(f"{name} {_percent(row['accuracy'])}" for name, row in selection["candidates"].items())
    return [f"student after: {selection['picked']}, the best on validation by greedy accuracy ({figures})"]


def _import_notes(imported: Mapping[str, Any] | None) -> list[str]:
    if imported is None:
        return []
    first = imported["first_left_out"]
    left_out = ", ".join(f"{imported[kind]:,} {kind}" for kind in ("unmatched", "duplicates", "bad"))
    return [
        f"teacher: imported from {imported['file']} (read as {imported['layout']}): {imported['imported']:,} of "
        f"{imported['rationales']:,} rationales; {left_out}" + ("; imports.json names them:" if first else ""),
        *(f"  {row}" for row in first),
    ]


def _sampling(result: Mapping[str, Any]) -> list[str]:
    """Of a budget that stops early; a fixed n needs no words."""
    teacher = result["teacher"]
    policy = teacher.get("policy")
    if policy is None or policy.startswith("n = "):
        return []
    return [
        f"sampling: {policy}; {teacher['samples']:,} samples, and {_count(teacher['num_tokens_cancelled'])} tokens of "
        "cancelled ones. Easy questions stop first, so neither the pass rate nor the mix of difficulties compares with "
        "that of a fixed n"
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """report.md: the same tables and notes."""

    def row(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    lines = []
    for table in tables(result):
        if table.title:
            lines += [f"# {table.title}", ""]
        columns = [list(column.cells) for column in table.columns]
        lines.append(row(column.header for column in table.columns))
        lines.append("|" + "|".join("---" if i == 0 else "--:" for i in range(len(columns))) + "|")
        lines += [row(cells) for cells in zip(*columns, strict=True)]
        lines.append("")
    return "\n".join([*lines, *(f"* {note}" for note in notes(result)), ""])


def _method(method: Mapping[str, Any]) -> tuple[str, str, str]:
    return _percent(method["accuracy"]), _interval(method["ci95"]), str(method["n"])


def _short(model: str) -> str:
    return model.removeprefix("starter:").rsplit("/", 1)[-1]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.1f} … {100 * bounds[1]:.1f}"


def duration(seconds: float) -> str:
    """Minutes and seconds, such as 2:28 min."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def _gib(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} GiB"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _usd(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f} USD"
