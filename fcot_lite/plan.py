"""`fcot plan`: what a recipe takes on a device, memory, time and money, before anything is loaded or fetched.

Neither torch nor vLLM is imported and nobody is asked: dimensions come from a table or a config.json at hand, speeds
from finished runs on the same device or a card's roofline. What is not known is None, and shown as unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from fcot_lite import advice, devices, dimensions, memory, rates
from fcot_lite.advice import Stage
from fcot_lite.devices import Card
from fcot_lite.machine import Machine
from fcot_lite.memory import GIB
from fcot_lite.meter import cost_usd
from fcot_lite.rates import Observed, Rate, Run
from fcot_lite.recipe import Recipe
from fcot_lite.report import duration
from fcot_lite.student import sft_arguments
from fcot_lite.workload import workload

SCHEMA_VERSION = 1
METHODS = ("full", "lora", "qlora")


def plan(recipe: Recipe, machine: Machine, available_gib: float, runs: Sequence[Run]) -> dict[str, Any]:
    """The plan as `fcot plan --json` prints it; docs/plan.md says what each entry means."""
    card, device = devices.of(machine), rates.device_key(machine.gpu_name, machine.cpus)
    seen = [one for run in runs for one in run.observed]
    work, price = workload(recipe, runs), recipe.cost.usd_per_hour
    order = advice.stages(recipe)

    def stage(name: Stage, of: Recipe = recipe) -> dict[str, Any]:
        fits = _peak(of, name, machine, available_gib)["fits"]
        rate = _rate(of, name, machine, card, device, available_gib, seen) if fits else None
        return _stage(work.tokens[name], rate, price, card)

    stages = {name: stage(name) for name in order}
    methods = {}
    for method in METHODS:
        other = recipe.model_copy(update={"student": recipe.student.model_copy(update={"method": method})})
        peak = _peak(other, "train", machine, available_gib)
        methods[method] = {
            "peak_gib": peak["peak_gib"],
            "fits": peak["fits"],
            "train_wall_seconds": stage("train", other)["wall_seconds"],
        }
    off = rates.errors(device, seen)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": recipe.name,
        "device": {
            "name": machine.gpu_name or device,
            "memory_gib": available_gib if machine.gpu_memory_gib is None else machine.gpu_memory_gib,
            **({key: value for key, value in asdict(card).items() if key in _SHOWN_OF_A_CARD} if card else {}),
        },
        "teacher": _served(recipe, "sample", machine, available_gib) if "sample" in order else None,
        "student": _peak(recipe, "train", machine, available_gib),
        "evaluation": _served(recipe, "evaluate", machine, available_gib),
        "methods": methods,
        "questions": dict(work.questions),
        "samples": _whole(work.samples),
        "training_rows": _whole(work.rows),
        "stages": stages,
        "wall_seconds": _sum(one["wall_seconds"] for one in stages.values()),
        "cost_usd": _sum(one["cost_usd"] for one in stages.values()),
        "usd_per_hour": price,
        "energy_kwh": _sum(one["energy_kwh"] for one in stages.values()),
        "changes": [
            {**asdict(change), "overrides": list(change.overrides)}
            for name in order
            for change in advice.changes(recipe, name, machine, available_gib)
        ],
        "rates": {
            "runs_on_this_device": len({one.run for one in seen if one.device == device}),
            "rates_compared": len(off),
            "median_error": rates.typical_error(off),
            "worst_error": max(map(abs, off), default=None),
        },
        "assumptions": list(work.assumptions),
    }


_SHOWN_OF_A_CARD = ("bandwidth_gb_per_second", "tflops", "watts", "source")


def _peak(recipe: Recipe, stage: Stage, machine: Machine, available_gib: float) -> dict[str, Any]:
    need, room = advice.need(recipe, stage, machine), advice.room_gib(recipe, stage, machine, available_gib)
    name = advice.served(recipe, stage)[0]
    found: dict[str, Any] = {"model": name}
    if stage == "train":
        found["method"] = recipe.student.method
    return found | {
        "peak_gib": need and need.gib,
        "room_gib": room,
        "fits": None if need is None else need.gib <= room,
        "parts_gib": dict(need.parts) if need else {},
    }


def _served(recipe: Recipe, stage: Stage, machine: Machine, available_gib: float) -> dict[str, Any]:
    """With the cache that vLLM makes of what is left, and how many sequences run in it at once."""
    found = _peak(recipe, stage, machine, available_gib)
    name, engine, _ = advice.served(recipe, stage)
    form, need = dimensions.of(name), advice.need(recipe, stage, machine)
    cache = memory.cache_gib(need, engine, machine) if need else None
    room_tokens = None if cache is None or form is None else max(0.0, cache * GIB / form.kv_bytes_per_token)
    return found | {
        "kv_cache_gib": cache,
        "kv_kib_per_token": form and form.kv_bytes_per_token / 1024,
        "max_num_seqs": engine.max_num_seqs,
        "full_length_sequences": None if room_tokens is None else int(room_tokens / engine.max_model_len),
        "average_sequences": None if room_tokens is None else int(_at_once(recipe, stage, room_tokens)),
    }


def _at_once(recipe: Recipe, stage: Stage, room_tokens: float) -> float:
    _, engine, sampling = advice.served(recipe, stage)
    return min(engine.max_num_seqs, room_tokens / _context(engine.max_model_len, sampling.max_tokens))


def _context(max_model_len: int, max_tokens: int) -> float:
    """Tokens of one sequence, on average over its life: half of the room for the prompt, a quarter of max_tokens."""
    return (max_model_len - max_tokens) / 2 + max_tokens / 4


def _rate(
    recipe: Recipe,
    stage: Stage,
    machine: Machine,
    card: Card | None,
    device: str,
    available_gib: float,
    seen: Sequence[Observed],
) -> Rate | None:
    name, engine, sampling = advice.served(recipe, stage)
    form, method = dimensions.of(name), recipe.student.method if stage == "train" else None
    if form is None:
        return None
    if (found := rates.measured(stage, form, method, device, seen)) is not None or card is None:
        return found
    if stage == "train":
        checkpointing = sft_arguments(recipe.student.sft, machine, 0, Path())["gradient_checkpointing"]
        return rates.fine_tuning(form, recipe.student.method, checkpointing, card)
    size, served = memory.weights(name, None, form), _served(recipe, stage, machine, available_gib)
    if size is None or not served["average_sequences"]:
        return None
    context = _context(engine.max_model_len, sampling.max_tokens)
    return rates.decoding(form, size.num_bytes, served["average_sequences"], context, card)


def _stage(tokens: float | None, rate: Rate | None, price: float | None, card: Card | None) -> dict[str, Any]:
    seconds = None if tokens is None or rate is None else rate.startup_seconds + tokens / rate.tokens_per_second
    return {
        "num_tokens": _whole(tokens),
        "tokens_per_second": rate and rate.tokens_per_second,
        "startup_seconds": rate and rate.startup_seconds,
        "wall_seconds": seconds,
        "cost_usd": None if seconds is None else cost_usd(seconds, price),
        "energy_kwh": None if seconds is None or card is None else card.watts * seconds / 3.6e6,
        "basis": rate and rate.basis,
    }


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)


def _sum(numbers: Iterable[float | None]) -> float | None:
    """None where one of them is: a sum of what happens to be known would look like the whole."""
    known = list(numbers)
    return None if None in known else sum(number for number in known if number is not None)


# ---- shown -------------------------------------------------------------------------------------------------------


_SIDES = {"sample": "teacher", "train": "student", "evaluate": "evaluation"}  # of each stage


def tables(plan: Mapping[str, Any]) -> list[Table]:
    """Memory by stage, the three methods side by side, time and money by stage."""
    device = plan["device"]
    peaks = _table(f"{plan['name']} on {device['name']}, {device['memory_gib']:.1f} GiB", "", "peak", "of", "", "parts")
    for title in _SIDES.values():
        if (found := plan[title]) is not None:
            parts = ", ".join(f"{part} {gib:.2f}" for part, gib in found["parts_gib"].items())
            unknown = f"the dimensions of {found['model']} are not known here"
            peaks.add_row(
                title, _gib(found["peak_gib"]), _gib(found["room_gib"]), _fits(found["fits"]), parts or unknown
            )
    methods = _table(None, "method", "peak", "", "training time")
    for method, found in plan["methods"].items():
        chosen = "→ " if method == plan["student"]["method"] else "  "
        methods.add_row(
            chosen + method, _gib(found["peak_gib"]), _fits(found["fits"]), _time(found["train_wall_seconds"])
        )
    stages = _table(None, "stage", "tokens", "tokens/s", "time", "cost", "basis")
    for name, stage in plan["stages"].items():
        stages.add_row(
            name, _count(stage["num_tokens"]), _count(stage["tokens_per_second"]), _time(stage["wall_seconds"]),
            _usd(stage["cost_usd"]), stage["basis"] or _no_basis(plan[_SIDES[name]]),
        )  # fmt: skip
    stages.add_row("all", "", "", _time(plan["wall_seconds"]), _usd(plan["cost_usd"]), _price(plan))
    return [peaks, methods, stages]


def notes(plan: Mapping[str, Any]) -> list[str]:
    """The lines under the tables: concurrency, what to change, what all of it rests on."""
    lines = []
    for title in ("teacher", "evaluation"):
        if (found := plan[title]) is not None and found["average_sequences"] is not None and found["kv_cache_gib"] > 0:
            lines.append(
                f"{title}: {found['kv_cache_gib']:.1f} GiB of KV cache, {found['kv_kib_per_token']:.0f} KiB a token: "
                f"{found['average_sequences']} sequences at once of max_num_seqs {found['max_num_seqs']}, "
                f"{found['full_length_sequences']} of full length"
            )
    for change in plan["changes"]:
        outcome = "fits" if change["fits"] else "not enough alone"
        lines.append(f"to {change['stage']}: {' '.join(change['overrides'])} → {change['peak_gib']:.1f} GiB, {outcome}")
    seen = plan["rates"]
    if seen["median_error"] is not None:
        lines.append(
            f"rates: each of {seen['rates_compared']} measured ones, told from the other runs, was off by "
            f"{seen['median_error']:.0%} (median), {seen['worst_error']:.0%} (worst)"
        )
    elif plan["wall_seconds"] is not None:
        lines.append("rates: their error is unknown, for there are not two finished runs on this device to compare")
    return lines + [f"assumed: {assumption}" for assumption in plan["assumptions"]]


def _table(title: str | None, *headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title)
    for n, heading in enumerate(headings):
        last = heading in ("parts", "basis")
        table.add_column(heading, justify="left" if n == 0 or last else "right", no_wrap=not last)
    return table


def _no_basis(side: Mapping[str, Any]) -> str:
    if side["fits"] is None:
        return "the model's dimensions are not known"
    return "no finished run on this device to tell" if side["fits"] else "does not fit"


def _fits(fits: bool | None) -> str:
    return {True: "fits", False: "too large", None: "unknown"}[fits]


def _gib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} GiB"


def _count(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds) if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _usd(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f} USD"


def _price(plan: Mapping[str, Any]) -> str:
    price, energy = plan["usd_per_hour"], plan["energy_kwh"]
    told = "no price given (cost.usd_per_hour)" if price is None else f"at {price:g} USD per hour"
    return told + ("" if energy is None else f", {energy:.2f} kWh at the card's full power")
