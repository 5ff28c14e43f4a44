"""Every prompt of the recipe book fits where it is sent, by the real tokenizers and the real questions."""

from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from fcot_lite import models, tasks
from fcot_lite.errors import DataError
from fcot_lite.prompts import ANSWER_FORMS, load_tokenizer, render
from fcot_lite.recipe import ImportBlock, Recipe, TeacherBlock, load
from fcot_lite.records import Problem
from fcot_lite.tasks.sources import SOURCES, is_here
from fcot_lite.teacher import questions

pytestmark = pytest.mark.e2e
FOLDER = REPOSITORY / "recipes"
LONGEST = 20  # questions by their own tokens: what stands around them is the same for all
PAPER = [name for name, task in tasks.TASKS.items() if task.data is not None]


def longest_questions(recipe: Recipe, tokenizer: Any) -> list[Problem]:
    data = tasks.task(str(recipe.task.name)).data
    if data is not None and not is_here(data.test_file):
        pytest.skip(f"the files of {recipe.task.name} are not here")
    problems = tasks.problems(recipe.task, "test")
    if data is None or all(file in SOURCES and is_here(file) for file in data.files):
        problems += tasks.problems(recipe.task, "train") + tasks.problems(recipe.task, "validation")
    return sorted(problems, key=lambda problem: len(tokenizer(problem.question)["input_ids"]))[-LONGEST:]


def check(recipe: Recipe, teacher: Any, student: Any) -> None:
    """Raises DataError where a prompt of either model leaves no room for what is to be generated."""
    for tokenizer, names, side in (
        (teacher, [recipe.teacher.prompt], recipe.teacher),
        (student, recipe.evaluate.before, recipe.evaluate),
    ):
        if isinstance(side, ImportBlock):
            continue
        problems = longest_questions(recipe, tokenizer)
        for name in names:
            prompt = recipe.prompts[name]
            solved = tasks.examples(recipe.task, prompt.examples)
            rendered = [render(prompt, p.question, solved, ANSWER_FORMS[p.answer_kind]) for p in problems]
            asked = questions(tokenizer, problems, rendered, side.sampling, side.engine, prompt.answer_trigger)
            if name == recipe.student.prompt and isinstance(recipe.teacher, TeacherBlock):
                # A rationale as long as the teacher may write it stays in training.
                longest = max(len(question.prompt_token_ids) for question in asked)
                assert longest + recipe.teacher.sampling.max_tokens <= recipe.curate.max_length


@pytest.fixture(scope="module")
def smollm2() -> Any:
    return load_tokenizer(models.resolve("starter:smollm2-135m-instruct", say=print))


@pytest.fixture(scope="module")
def qwen() -> Any:
    """Its vocabulary is that of all Qwen2.5 models."""
    return load_tokenizer(models.resolve("starter:qwen2.5-coder-0.5b-instruct", say=print))


@pytest.mark.parametrize("name", tasks.TASKS)
def test_on_a_cpu_every_task_fits(name: str, smollm2: Any) -> None:
    """Asked of the student's tokenizer for both, which makes more tokens than the teacher's in nearly every prompt."""
    check(load(FOLDER / "cpu.yaml", [f"task.name={name}"]), smollm2, smollm2)


@pytest.mark.slow  # 491 MB to fetch
@pytest.mark.parametrize("name", tasks.TASKS)
def test_on_a_cpu_every_task_fits_its_teacher(name: str, qwen: Any, smollm2: Any) -> None:
    check(load(FOLDER / "cpu.yaml", [f"task.name={name}"]), qwen, smollm2)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_fits(path: Path, qwen: Any) -> None:
    recipe = load(path)
    if path.stem in ("cpu", "gpu", "quickstart"):  # cpu: above; gpu: rg:gsm_symbolic, half a minute
        recipe = load(path, ["task.train=50", "task.validation=5", "task.test=5"])
    check(recipe, qwen, qwen)


@pytest.mark.parametrize("side", ["teacher", "evaluate"])
def test_a_recipe_that_is_too_small_is_found(side: str, smollm2: Any) -> None:
    recipe = load(FOLDER / "cpu.yaml", ["task.name=generated_shuffled_objects", f"{side}.engine.max_model_len=1152"])
    with pytest.raises(DataError, match=r"raise engine\.max_model_len"):
        check(recipe, smollm2, smollm2)
