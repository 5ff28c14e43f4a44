"""Training into the memory that is there: smaller micro-batches where the recipe allows them, else what to change."""

import gc
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fcot_lite import advice
from fcot_lite.errors import ResourceError
from fcot_lite.machine import Machine, card_in_use
from fcot_lite.meter import GIB, available_memory_gib
from fcot_lite.out_of_memory import OutOfMemory
from fcot_lite.recipe import Recipe, StudentBlock
from fcot_lite.student import TrainOutcome

MICRO_BATCH, STEPS = "per_device_train_batch_size", "gradient_accumulation_steps"
DEFAULTS = {MICRO_BATCH: 8, STEPS: 1}  # TRL's, tests/test_fitting.py holds them against the installed one
CHANGES = 3  # that are named when memory ran out
ALWAYS = "another machine, or less that runs beside it"


def fit(
    recipe: Recipe,
    model_dir: Path,
    machine: Machine,
    train: Callable[[StudentBlock], TrainOutcome],
    say: Callable[[str], None],
) -> tuple[TrainOutcome, StudentBlock]:
    """What `train` made of the recipe's student, and the student's block as it was trained with.

    Where memory runs out, `student.auto_batch` halves the micro-batch and doubles how many make a step: the batch stays
    the same, and training goes on from its newest checkpoint. Where that is off or at its end, raises ResourceError
    with the estimate, what there was and what to change.
    """
    available = _available(machine)
    while True:
        student = recipe.student
        try:
            return train(student), student
        except OutOfMemory as error:
            smaller = halved(student.sft) if student.auto_batch else None
            if smaller is None:
                raise ResourceError(_message(recipe, model_dir, machine, str(error), available)) from error
        # Outside the except block: the exception holds the frames, and with them the tensors.
        gc.collect()
        if machine.device == "cuda":
            _empty_cache()
        recipe = recipe.model_copy(update={"student": student.model_copy(update={"sft": smaller})})
        say(
            f"memory ran out: going on with {smaller[MICRO_BATCH]} rows at once, {smaller[STEPS]} times a step "
            f"(student.auto_batch; the batch stays {smaller[MICRO_BATCH] * smaller[STEPS]})"
        )


def halved(sft: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same batch from micro-batches of at most half the size; None where they are of one row."""
    micro, steps = batch(sft).values()
    if micro == 1:
        return None
    half = next(size for size in range(micro // 2, 0, -1) if micro % size == 0)
    return {**sft, MICRO_BATCH: half, STEPS: steps * micro // half}


def batch(sft: Mapping[str, Any]) -> dict[str, int]:
    """The micro-batch and how many of them make a step."""
    return {name: sft.get(name, default) for name, default in DEFAULTS.items()}


def _message(recipe: Recipe, model_dir: Path, machine: Machine, words: str, available: str) -> str:
    """What was needed, what there was, and what to change, the least harmful first."""
    found = {recipe.student.model: model_dir}
    need = advice.need(recipe, "train", machine, found)
    estimate = "no estimate is known" if need is None else f"the estimate was {need.gib:.1f} GiB"
    alone = advice.each_alone(recipe, "train", machine, found)
    changes = [" ".join(overrides) + ("" if gib is None else f"   (about {gib:.1f} GiB)") for overrides, gib in alone]
    lines = [f"memory ran out in training ({words}): {estimate}, {available}. Change one of:"]
    lines += [*changes, ALWAYS][:CHANGES]
    if not recipe.student.auto_batch and halved(recipe.student.sft) is not None:
        lines.append("or let student.auto_batch=true find the micro-batch that fits")
    return "\n  ".join(lines)


def _available(machine: Machine) -> str:
    """How much a training that begins now can take, in words."""
    if machine.device == "cuda":
        return f"{card_in_use()[0]:.1f} GiB of the card's memory were free"
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    limited = "" if limit == resource.RLIM_INFINITY else f" and ulimit -v allows {limit / GIB:.1f} GiB of addresses"
    return f"{available_memory_gib():.1f} GiB of memory were free{limited}"


def _empty_cache() -> None:
    import torch

    torch.cuda.empty_cache()
