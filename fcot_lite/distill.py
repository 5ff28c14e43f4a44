"""What `make distill TASK=… TEACHER=… STUDENT=… N=… METHOD=… LIMIT=… SEED=… EXTRA=…` runs: picks the recipe for this
machine, turns the words into overrides, prints the `fcot` command and becomes it."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fcot_lite.errors import FcotError, RecipeError
from fcot_lite.files import sha256_json
from fcot_lite.machine import Machine, detect
from fcot_lite.recipe import TeacherBlock, load

RECIPES = Path("recipes")
LARGE_CARD_GIB = 20  # the recipes by task and gpu.yaml are for 24 GB; smaller cards take gpu-12gb.yaml
NAME_LENGTH = 64  # as long as a run's name may be
# Full fine-tuning wants about a tenth of LoRA's learning rate (TRL's guide "LoRA Without Regret"). On the quickstart's
# task 5e-4 for LoRA and 5e-5 for full fine-tuning came out the same.
FULL_LEARNING_RATE = 0.1
WORDS = ("TASK", "TEACHER", "STUDENT", "N", "METHOD", "LIMIT", "SEED", "EXTRA")


def command(words: Mapping[str, str], machine: Machine, recipes: Path = RECIPES) -> list[str]:
    """The arguments of `fcot`. Every word becomes part of the run's name, so that runs stay side by side.

    Raises RecipeError for a word that is not one of `WORDS`.
    """
    for word in words:
        if word not in WORDS:
            raise RecipeError(f"make distill: {word}= is none of {', '.join(f'{known}=' for known in WORDS)}")
    given = {word: value for word, value in words.items() if value.strip()}
    task = given.get("TASK", "")
    recipe = _recipe(task, machine, recipes)
    overrides, name = [], recipe.stem
    if task and not (recipe.stem == task and load(recipe).task.name == task):
        overrides.append(f"task.name={task}")
        name = f"{task}-{recipe.stem}" if machine.device == "cpu" else task
    for word, keys in (
        ("TEACHER", ["teacher.model"]),
        ("STUDENT", ["student.model"]),
        ("N", ["teacher.n"]),
        ("METHOD", ["student.method"]),
        ("LIMIT", ["task.train", "task.validation", "task.test"]),
        ("SEED", ["seed"]),
    ):
        if word in given:
            overrides += [f"{key}={given[word]}" for key in keys]
            name += "-" + {"TEACHER": "from-", "N": "n", "LIMIT": "limit", "SEED": "seed"}.get(word, "")
            name += given[word].strip("/")
    if "N" in given and isinstance(teacher := load(recipe).teacher, TeacherBlock) and teacher.until is not None:
        overrides.append("teacher.until=null")
    if given.get("METHOD") == "full" and (rate := load(recipe).student.sft.get("learning_rate")):
        overrides.append(f"student.sft.learning_rate={rate * FULL_LEARNING_RATE:g}")
    try:
        extra = shlex.split(given.get("EXTRA", ""))
    except ValueError as error:
        raise RecipeError(f"EXTRA={given['EXTRA']}: {error}; quotes come in pairs") from None
    for override in extra:
        key, equals, value = override.partition("=")
        if equals and not key.startswith("-"):
            name += f"-{key.rpartition('.')[2]}-{value}"
    if name != recipe.stem:
        overrides.append(f"name={_safe(name)}")
    return ["run", str(recipe), *overrides, *extra]


def _recipe(task: str, machine: Machine, recipes: Path) -> Path:
    if not task:
        return recipes / "quickstart.yaml"
    if machine.device == "cpu":
        return recipes / "cpu.yaml"
    if machine.gpu_memory_gib is not None and machine.gpu_memory_gib < LARGE_CARD_GIB:
        return recipes / "gpu-12gb.yaml"
    for own in recipes.glob("*.yaml"):  # by its file name only: TASK=../x must not become a path
        if own.stem == task and load(own).task.name == task:
            return own
    return recipes / "gpu.yaml"


def _safe(name: str) -> str:
    """The name as a run may be called; one that is too long keeps its start and a hash of the whole."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")
    return safe if len(safe) <= NAME_LENGTH else f"{safe[: NAME_LENGTH - 9]}-{sha256_json(safe)[:8]}"


def main(arguments: Sequence[str]) -> None:
    try:
        words = {word: value for word, _, value in (argument.partition("=") for argument in arguments)}
        run = command(words, detect())
    except FcotError as error:
        print(f"fcot: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    fcot = os.path.relpath(Path(sys.executable).parent / "fcot")
    print(shlex.join([fcot, *run]), flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "fcot_lite", *run])


if __name__ == "__main__":
    main(sys.argv[1:])
