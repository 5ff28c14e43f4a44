"""What to change where a stage does not fit, in order of least harm, each with the peak that follows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from fcot_lite import dimensions, memory
from fcot_lite.engines.vllm import engine_arguments
from fcot_lite.machine import Machine
from fcot_lite.memory import GIB, Need
from fcot_lite.recipe import EngineBlock, Recipe, Sampling, TeacherBlock
from fcot_lite.student import sft_arguments

Stage = Literal["sample", "train", "evaluate"]
Folders = Mapping[str, Path | None]  # of models that are here, by name
NONE_HERE: Folders = MappingProxyType({})
Values = Mapping[str, Any]  # overrides of a recipe: dotted key and value


LEAST_GAIN = 0.02  # a change that saves less is not worth its harm


@dataclass(frozen=True, slots=True)
class Change:
    """Overrides of the recipe, and the peak of the stage with these and those of the changes before them."""

    stage: Stage
    overrides: tuple[str, ...]
    peak_gib: float
    fits: bool


def need(recipe: Recipe, stage: Stage, machine: Machine, found: Folders = NONE_HERE) -> Need | None:
    """What the stage takes at its peak; None where the model's size, or for training its dimensions, are not known."""
    if stage == "train":
        student = recipe.student
        form = dimensions.of(student.model, found.get(student.model))
        return None if form is None else memory.training(form, student, recipe.curate.max_length, machine)
    name, engine, _ = served(recipe, stage)
    form = dimensions.of(name, found.get(name))
    size = memory.weights(name, found.get(name), form)
    return None if size is None else memory.sampling(stage, size, form, engine, machine)


def stages(recipe: Recipe) -> list[Stage]:
    """Those that load a model."""
    return ["sample", "train", "evaluate"] if isinstance(recipe.teacher, TeacherBlock) else ["train", "evaluate"]


def served(recipe: Recipe, stage: Stage) -> tuple[str, EngineBlock, Sampling]:
    """The model that vLLM serves in the stage, and how."""
    if stage == "sample" and isinstance(recipe.teacher, TeacherBlock):
        return recipe.teacher.model, recipe.teacher.engine, recipe.teacher.sampling
    return recipe.student.model, recipe.evaluate.engine, recipe.evaluate.sampling


def room_gib(recipe: Recipe, stage: Stage, machine: Machine, available_gib: float) -> float:
    """What the stage can have: of a card, all of it in training and vLLM's share else; of a machine, what is free."""
    if machine.gpu_memory_gib is None:
        return available_gib
    if stage == "train":
        return machine.gpu_memory_gib
    arguments = engine_arguments("", served(recipe, stage)[1], machine)
    return float(arguments["gpu_memory_utilization"] * machine.gpu_memory_gib)


def changes(
    recipe: Recipe, stage: Stage, machine: Machine, available_gib: float, found: Folders = NONE_HERE
) -> list[Change]:
    """What makes the stage fit, one after the other; [] where it fits already or nothing is known of it.

    Of each kind the mildest that is enough is taken, or the strongest. Where the last one's `fits` is False, nothing
    here is enough.
    """
    now, made = need(recipe, stage, machine, found), []
    room = room_gib(recipe, stage, machine, available_gib)
    for kind in _TRAINING if stage == "train" else _SERVING:
        if now is None or now.gib <= room:
            break
        best: tuple[Recipe, Values, Need] | None = None
        for values in kind(recipe, stage, machine):
            changed = _with(recipe, values)
            after = need(changed, stage, machine, found)
            if after is not None and after.gib < (best[2].gib if best else (1 - LEAST_GAIN) * now.gib):
                best = changed, values, after
                if after.gib <= room:
                    break
        if best is not None:
            recipe, values, now = best
            made.append(Change(stage, _overrides(values), now.gib, now.gib <= room))
    return made


def each_alone(
    recipe: Recipe, stage: Stage, machine: Machine, found: Folders = NONE_HERE
) -> list[tuple[tuple[str, ...], float | None]]:
    """For memory that ran out whatever was estimated: the mildest change of each kind by itself, in order of least
    harm, with the peak that is estimated then."""
    alone = []
    for kind in _TRAINING if stage == "train" else _SERVING:
        for values in kind(recipe, stage, machine):
            after = need(_with(recipe, values), stage, machine, found)
            alone.append((_overrides(values), None if after is None else after.gib))
            break
    return alone


def _overrides(values: Values) -> tuple[str, ...]:
    return tuple(f"{key}={_written(value)}" for key, value in values.items())


def _with(recipe: Recipe, values: Values) -> Recipe:
    changed = recipe.model_dump()
    for key, new in values.items():
        block, *between = changed, *key.split(".")[:-1]
        for part in between:
            block = block[part]
        block[key.rpartition(".")[2]] = new
    return Recipe.model_validate(changed)


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- kinds of change, each from mild to strong -------------------------------------------------------------------


def _smaller_batch(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    """With as many more steps accumulated: the optimiser sees the same batch."""
    sft = recipe.student.sft
    batch, steps = sft.get("per_device_train_batch_size", 8), sft.get("gradient_accumulation_steps", 1)
    for smaller in range(batch - 1, 0, -1):
        if batch % smaller == 0:
            yield {
                "student.sft.per_device_train_batch_size": smaller,
                "student.sft.gradient_accumulation_steps": steps * batch // smaller,
            }


def _checkpointing(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    if not sft_arguments(recipe.student.sft, machine, 0, Path())["gradient_checkpointing"]:
        yield {"student.sft.gradient_checkpointing": True}


def _eight_bit_optimiser(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    if recipe.student.method == "full" and machine.device == "cpu":  # a card's default already
        yield {"student.sft.optim": "adamw_8bit"}


def _method(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    milder = {"full": ("lora", "qlora"), "lora": ("qlora",), "qlora": ()}
    for method in milder[recipe.student.method]:
        yield {"student.method": method}


def _shorter_rows(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    """Curation drops what is longer: data is lost, so this comes late."""
    for share in (0.75, 0.5):
        if (length := int(recipe.curate.max_length * share) // 64 * 64) >= 128:
            yield {"curate.max_length": length}


def _smaller_model(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    side = "teacher" if stage == "sample" else "student"
    for name in dimensions.smaller(served(recipe, stage)[0]):
        yield {f"{side}.model": name}


def _shorter_context(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    """Down to the completion and 256 tokens of prompt; `fcot doctor` says whether the prompts fit."""
    _, engine, sampling = served(recipe, stage)
    shortest = -(-(sampling.max_tokens + 256) // 64) * 64
    for length in (engine.max_model_len * 3 // 4 // 64 * 64, shortest):
        if shortest <= length < engine.max_model_len:
            yield {f"{_block(stage)}.engine.max_model_len": length}


def _fewer_sequences(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    """Also of prompt tokens at once, which is what vLLM's largest batch takes."""
    if machine.device == "cuda":
        engine = f"{_block(stage)}.engine"
        few = min(served(recipe, stage)[1].max_num_seqs, 32)
        yield {f"{engine}.max_num_seqs": few, f"{engine}.max_num_batched_tokens": 2048}


def _smaller_cache(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    if machine.device == "cpu":
        given = engine_arguments("", served(recipe, stage)[1], machine)["kv_cache_memory_bytes"] or GIB
        for parts in (2, 4):
            yield {f"{_block(stage)}.engine.kv_cache_memory_bytes": given // parts}


def _fewer_bits(recipe: Recipe, stage: Stage, machine: Machine) -> Iterator[Values]:
    """A student is evaluated as it will be used, so this is for the teacher alone."""
    if stage == "sample" and machine.device == "cuda":
        name, engine, _ = served(recipe, stage)
        if "quantization" not in engine.model_dump() and memory.bits_in_name(name) == 16:
            if (machine.compute_capability or (0, 0)) >= (8, 0):  # with fp8 arithmetic from 8.9, weights alone below
                yield {"teacher.engine.quantization": "fp8"}
            if name.startswith("Qwen/") and name.endswith("-Instruct"):  # whose authors publish AWQ weights
                yield {"teacher.model": f"{name}-AWQ"}


def _block(stage: Stage) -> str:
    return "teacher" if stage == "sample" else "evaluate"


Kind = Callable[[Recipe, Stage, Machine], Iterator[Values]]
_TRAINING: tuple[Kind, ...] = (
    _smaller_batch, _checkpointing, _eight_bit_optimiser, _method, _shorter_rows, _smaller_model,
)  # fmt: skip
_SERVING: tuple[Kind, ...] = (_smaller_cache, _shorter_context, _fewer_sequences, _fewer_bits, _smaller_model)
