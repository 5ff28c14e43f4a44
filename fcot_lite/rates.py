"""How fast a stage goes: by what finished runs on the same device measured, else by a card's roofline.

The roofline and its efficiencies: what a card could do by its bandwidth and its matrix products, times the share of it
that published measurements reach (databasemart's vLLM runs on a 4090; foundation-model-stack's training runs).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fcot_lite import dimensions, report
from fcot_lite.devices import Card
from fcot_lite.dimensions import Dimensions
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import read_record
from fcot_lite.recipe import Recipe, load

NEWEST_RUNS = 20  # read in half a second
TRAINING_EFFICIENCY = 0.35  # of a card's matrix products; LoRA on an A100 reached 50 %
QLORA_SLOWDOWN = 0.85  # each micro-batch unpacks every weight three times; 0.76 to 0.95 of LoRA's speed on an A100


@dataclass(frozen=True, slots=True)
class Observed:
    """What one stage of a finished run did. `startup_seconds` is all its wall time but the tokens' own."""

    run: str
    stage: str
    device: str
    model: str
    parameters: int
    tokens_per_second: float
    startup_seconds: float
    method: str | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    tokens_per_second: float
    startup_seconds: float
    basis: str


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its recipe, its result and what its stages did."""

    recipe: Recipe
    result: dict[str, Any]
    observed: tuple[Observed, ...]


def device_key(gpu_name: str | None, cpus: Sequence[int]) -> str:
    """What a rate holds for: a card of that name, or that many cores."""
    return gpu_name or ("1 CPU core" if len(cpus) == 1 else f"{len(cpus)} CPU cores")


def finished(runs: Path) -> list[Run]:
    """The newest finished runs in the folder, newest first; what cannot be read is left out."""
    files = sorted(runs.glob("*/result.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    found = []
    for file in files[:NEWEST_RUNS]:
        try:
            result, recipe = report.read(file), load(file.parent / "recipe.yaml")
        except (DataError, RecipeError, OSError):
            continue
        machine = read_record(file.parent / "manifest.json").get("machine") or {}
        device = device_key(machine.get("gpu_name"), machine.get("cpus", ()))
        found.append(Run(recipe, result, tuple(_observed(recipe.name, device, result))))
    return found


def _observed(run: str, device: str, result: dict[str, Any]) -> Iterable[Observed]:
    for stage, side in (("sample", "teacher"), ("train", "student"), ("evaluate", "student")):
        model, figures = result[side]["model"], result["stages"].get(stage) or {}
        form = dimensions.of(model) if model else None
        tokens, seconds = figures.get("num_tokens"), figures.get("wall_seconds")
        if form is None or not tokens or not seconds:
            continue
        # Of an evaluation only the whole is known, its engines' start included.
        rate = tokens / seconds if stage == "evaluate" else result[side].get("tokens_per_second")
        if not rate:
            continue
        method = result["student"].get("method") if stage == "train" else None
        startup = max(0.0, seconds - tokens / rate)
        yield Observed(run, stage, device, model, form.parameters, rate, startup, method)


def measured(stage: str, form: Dimensions, method: str | None, device: str, seen: Sequence[Observed]) -> Rate | None:
    """By the run on this device whose model is nearest in size, in proportion to the parameters; None without one."""
    same = [one for one in seen if (one.stage, one.device, one.method) == (stage, device, method)]
    if not same:
        return None
    nearest = min(same, key=lambda one: abs(one.parameters - form.parameters))
    scale = nearest.parameters / form.parameters
    scaled = "" if nearest.parameters == form.parameters else f", scaled from {nearest.parameters / 1e9:.2g}B"
    return Rate(nearest.tokens_per_second * scale, nearest.startup_seconds, f"measured in run {nearest.run}{scaled}")


def errors(device: str, seen: Sequence[Observed]) -> list[float]:
    """How far each observed rate is from what the others predict for it: predicted / observed − 1."""
    found = []
    for one in seen:
        form = dimensions.of(one.model)
        others = [other for other in seen if other.run != one.run]
        if one.device == device and form and (rate := measured(one.stage, form, one.method, device, others)):
            found.append(rate.tokens_per_second / one.tokens_per_second - 1)
    return found


def typical_error(found: Sequence[float]) -> float | None:
    return median(abs(error) for error in found) if found else None


# ---- a card's roofline -------------------------------------------------------------------------------------------

STARTUP_SECONDS = 60.0  # of an engine or a trainer with 15 GB of weights on a local disk: a guess, not measured


def decoding(form: Dimensions, weights_bytes: float, sequences: float, context: float, card: Card) -> Rate:
    """`sequences` at once, each `context` tokens long on average: bandwidth or matrix products, whichever is less."""
    read = weights_bytes + sequences * context * form.kv_bytes_per_token
    step = max(read / (1e9 * card.bandwidth_gb_per_second), 2 * form.parameters * sequences / (1e12 * card.tflops))
    efficiency = _decoding_efficiency(form)
    return Rate(efficiency * sequences / step, STARTUP_SECONDS, f"roofline × {efficiency:g}")


def _decoding_efficiency(form: Dimensions) -> float:
    """Published / roofline on a 4090: 0.51 Llama-8B, 0.33 Qwen2.5-7B, 0.25 3B, 0.20 1.5B. Many KV heads make a step
    long enough to hide the host's work; small models wait for it."""
    if form.parameters < 5e9:
        return 0.22
    return 0.5 if form.kv_bytes_per_token >= 100 * 1024 else 0.33


def fine_tuning(form: Dimensions, method: str, checkpointing: bool, card: Card) -> Rate:
    """Floating-point operations per token: 6 per parameter for full, 4 for an adapter, 2 more with checkpointing."""
    operations = (6 if method == "full" else 4) + (2 if checkpointing else 0)
    efficiency = TRAINING_EFFICIENCY * (QLORA_SLOWDOWN if method == "qlora" else 1)
    rate = efficiency * 1e12 * card.tflops / (operations * form.parameters)
    return Rate(
        rate, STARTUP_SECONDS, f"{operations} operations a parameter, {efficiency:.0%} of {card.tflops:g} TFLOP/s"
    )
