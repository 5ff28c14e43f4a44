"""`make distill`: which recipe runs on which machine, and what the words on the command line become."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from fcot_lite.distill import command
from fcot_lite.errors import RecipeError
from fcot_lite.machine import Machine
from fcot_lite.recipe import load

CPU = Machine("cpu", (0, 1))
CARD_24 = Machine("cuda", (0,), "RTX 3090", 24.0, (8, 6))
CARD_12 = Machine("cuda", (0,), "RTX 3060", 12.0, (8, 6))
RECIPES = REPOSITORY / "recipes"


def made(machine: Machine, **words: str) -> tuple[str, list[str]]:
    run, recipe, *overrides = command(words, machine, RECIPES)
    assert run == "run"
    return Path(recipe).name, overrides


@pytest.mark.parametrize("machine", [CPU, CARD_24, CARD_12], ids=lambda m: f"{m.device}-{m.gpu_memory_gib}")
def test_without_a_task_it_is_the_quickstart_everywhere(machine: Machine) -> None:
    assert made(machine) == ("quickstart.yaml", [])
    assert made(machine, TASK="", N=" ") == ("quickstart.yaml", [])


@pytest.mark.parametrize(
    ("machine", "task", "recipe", "overrides"),
    [
        (CPU, "gsm8k", "cpu.yaml", ["task.name=gsm8k", "name=gsm8k-cpu"]),
        (CPU, "svamp", "cpu.yaml", ["task.name=svamp", "name=svamp-cpu"]),
        (CPU, "rg:gsm_symbolic", "cpu.yaml", ["task.name=rg:gsm_symbolic", "name=rg-gsm_symbolic-cpu"]),
        (CARD_24, "gsm8k", "gsm8k.yaml", []),
        (CARD_24, "multiarith", "multiarith.yaml", []),
        (CARD_24, "svamp", "svamp.yaml", []),
        (CARD_24, "chain_arithmetic", "gpu.yaml", ["task.name=chain_arithmetic", "name=chain_arithmetic"]),
        (CARD_24, "rg:gsm_symbolic", "gpu.yaml", ["task.name=rg:gsm_symbolic", "name=rg-gsm_symbolic"]),
        (CARD_24, "../../etc/passwd", "gpu.yaml", ["task.name=../../etc/passwd", "name=etc-passwd"]),
        (CARD_12, "gsm8k", "gpu-12gb.yaml", ["task.name=gsm8k", "name=gsm8k"]),
    ],
)
def test_the_recipe_by_task_and_machine(machine: Machine, task: str, recipe: str, overrides: list[str]) -> None:
    assert made(machine, TASK=task) == (recipe, overrides)


def test_every_word_becomes_an_override_and_part_of_the_name() -> None:
    recipe, overrides = made(
        CPU,
        TASK="gsm8k",
        TEACHER="Qwen/Qwen2.5-3B-Instruct",
        STUDENT="starter:smollm2-135m-instruct",
        N="8",
        METHOD="qlora",
        LIMIT="20",
        SEED="3",
        EXTRA="student.lora.r=8 'prompts.question.system=Be brief.'",
    )
    built = load(RECIPES / recipe, overrides)
    assert (built.teacher.model, built.teacher.n) == ("Qwen/Qwen2.5-3B-Instruct", 8)
    assert (built.student.model, built.student.method) == ("starter:smollm2-135m-instruct", "qlora")
    assert (built.task.train, built.task.validation, built.task.test, built.seed) == (20, 20, 20, 3)
    assert built.student.lora["r"] == 8
    assert built.prompts["question"].system == "Be brief."
    assert len(built.name) == 64
    assert built.name.startswith("gsm8k-cpu-from-Qwen-Qwen2.5-3B-Instruct-starter-smollm2-")
    other = made(CPU, TASK="gsm8k", TEACHER="Qwen/Qwen2.5-3B-Instruct", STUDENT="starter:smollm2-135m-instruct", N="9")
    assert built.name not in other[1][-1]


def test_a_number_of_samples_takes_the_place_of_a_budget() -> None:
    recipe, overrides = made(CARD_24, TASK="chain_arithmetic", N="3")
    assert load(RECIPES / recipe).teacher.until is not None
    assert str(load(RECIPES / recipe, overrides).teacher.policy) == "n = 3"


def test_full_fine_tuning_takes_a_tenth_of_the_learning_rate() -> None:
    recipe, overrides = made(CPU, METHOD="full")
    assert load(RECIPES / recipe).student.sft["learning_rate"] == 5e-4
    built = load(RECIPES / recipe, overrides)
    assert built.student.method == "full"
    assert built.student.sft["learning_rate"] == 5e-5
    assert built.name == "quickstart-full"
    # EXTRA comes last, so it wins.
    assert load(RECIPES / recipe, made(CPU, METHOD="full", EXTRA="name=mine")[1]).name == "mine"


def test_what_extra_changes_is_another_run() -> None:
    seed, qlora = (made(CPU, SEED="1", EXTRA=extra)[1] for extra in ("", "student.method=qlora --runs 'my runs'"))
    assert "name=quickstart-seed1" in seed
    assert "name=quickstart-seed1-method-qlora" in qlora


def test_models_of_other_folders_make_other_runs() -> None:
    names = {made(CPU, TASK="gsm8k", TEACHER=path)[1][-1] for path in ("/a/m/", "/b/m", "a/M", "b/M", "starter:m")}
    assert len(names) == 5
    assert "name=gsm8k-cpu-from-a-m" in names


@pytest.mark.parametrize("task", ["gpu", "cpu", "quickstart", "gpu-12gb"])
def test_the_name_of_a_recipe_is_no_task(task: str) -> None:
    for machine in (CPU, CARD_24, CARD_12):
        recipe, overrides = made(machine, TASK=task)
        assert load(RECIPES / recipe, overrides).task.name == task, "so that the run says that there is no such task"


def test_quotes_come_in_pairs() -> None:
    with pytest.raises(RecipeError, match="quotes come in pairs"):
        command({"EXTRA": "it's"}, CPU, RECIPES)


@pytest.mark.parametrize("name", ["..", "-rf", "a b/../c", "ä" * 300, "x\ny", "rg:a:b"])
def test_names_are_safe(name: str) -> None:
    (override,) = [o for o in made(CPU, TASK=name)[1] if o.startswith("name=")]
    assert re.fullmatch(r"name=[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", override)


def test_a_word_that_is_none() -> None:
    with pytest.raises(RecipeError, match="TASKS= is none of TASK=, TEACHER="):
        command({"TASKS": "gsm8k"}, CPU, RECIPES)


def test_it_prints_the_command_and_becomes_it(tmp_path: Path) -> None:
    words = ["TASK=gsm8kk", "N=2", f"EXTRA=--runs '{tmp_path}/my runs'"]
    done = subprocess.run(
        [sys.executable, "-m", "fcot_lite.distill", *words], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    fcot, *arguments = shlex.split(done.stdout)
    assert os.path.basename(fcot) == "fcot"
    assert arguments[:2] == ["run", "recipes/cpu.yaml"]
    assert arguments[2:] == ["task.name=gsm8kk", "teacher.n=2", "name=gsm8kk-cpu-n2", "--runs", f"{tmp_path}/my runs"]
    assert done.returncode == RecipeError.exit_code
    assert "unknown task 'gsm8kk': did you mean 'gsm8k'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_passes_the_words_on() -> None:
    shown = subprocess.run(
        ["make", "-n", "distill", "TASK=rg:gsm_symbolic", "LIMIT=4", "task=x", "EXTRA=seed=2 'x.system=It''s a $$'"],
        capture_output=True, text=True, cwd=REPOSITORY, check=True,
    ).stdout  # fmt: skip
    line = shown[shown.index("exec ") :].splitlines()[0]  # what follows is of a make around this one
    assert shlex.split(line)[4:] == [
        "EXTRA=seed=2 'x.system=It''s a $'", "LIMIT=4", "METHOD=", "N=", "SEED=", "STUDENT=",
        "TASK=rg:gsm_symbolic", "TEACHER=", "task=x",
    ]  # fmt: skip
