"""The recipe book: every file loads, is complete, and says what it needs, how it is launched and what to expect."""

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from fcot_lite.recipe import ImportBlock, dump, load
from fcot_lite.tasks import TASKS, solved_examples

FOLDER = REPOSITORY / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
PAPER = [name for name, task in TASKS.items() if task.data is not None]  # each of the paper's tasks has its recipe
NAMES = sorted(["cpu", "gpu", "gpu-12gb", "import", "quickstart", *PAPER])


def test_the_book_is_complete() -> None:
    assert sorted(path.stem for path in RECIPES) == NAMES
    assert [path for path in FOLDER.iterdir() if path.suffix != ".yaml" and path.name != "README.md"] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_reads_as_a_lesson(path: Path) -> None:
    device = "cpu" if path.stem in ("cpu", "quickstart") else "cuda"
    recipe = load(path, device=device)
    assert recipe.name == path.stem
    lines = path.read_text().splitlines()
    assert len(lines) <= 60
    assert all(len(line) <= 120 for line in lines)
    head = " ".join(line.removeprefix("# ") for line in lines if line.startswith("# "))
    launch = "Launch: fcot run recipes/import.yaml" if path.stem == "import" else "Launch: make distill"
    for word in ("Needs: ", launch, "Expect"):
        assert word in head, f"the head comment has no {word!r}"
    # Either figures of ours, with the place they come from, or the words that there are none.
    assert ("not yet measured" in head) != bool(re.search(r"Expect.*% → .*(README|benchmarks)", head))
    readme = (REPOSITORY / "README.md").read_text()
    for before, after in re.findall(r"([\d.]+) % → ([\d.]+) %", head):
        for figure in (before, after):
            assert re.search(rf"student (before|after) \([\w-]+\) +{re.escape(figure)} %", readme), figure
    # Complete: what is written is what runs, and loading it again changes nothing.
    assert recipe.task.name in TASKS or recipe.task.name.startswith("rg:")
    assert recipe.cost.usd_per_hour is not None
    assert "sampling:\n    max_tokens" in dump(recipe)


@pytest.mark.parametrize("name", PAPER)
def test_prompts_ask_for_the_sentence_that_ends_an_answer(name: str) -> None:
    recipe = load(FOLDER / f"{name}.yaml")
    wanted = {
        "number": "The answer is <number>.",
        "choice": "The answer is (X).",
        "yes_no": "The answer is yes. Or with: The answer is no.",
        "letters": "The answer is <letters>.",
    }
    assert recipe.task.name == name
    assert recipe.prompts["step_by_step"].template.endswith(wanted[TASKS[name].answer_kind])
    assert len(solved_examples(name, count=recipe.prompts["few_shot"].examples)) == 4


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_prompts_that_nobody_uses_do_not_stand_there(path: Path) -> None:
    recipe = load(path)
    of_teacher = {recipe.teacher.prompt} - {None}
    assert set(recipe.prompts) == {*of_teacher, recipe.student.prompt, *recipe.evaluate.before}


def test_the_table_of_recipes_has_them_all() -> None:
    table = (FOLDER / "README.md").read_text()
    assert not re.search(r"\b[A-Z0-9]+(ROW|TABLE)\b|TODO|TBD", table + (REPOSITORY / "README.md").read_text())
    listed = re.findall(r"^\| \[([\w.-]+)\.yaml\]\(\1\.yaml\) \|", table, flags=re.MULTILINE)
    assert sorted(listed) == NAMES
    for path in RECIPES:
        recipe = load(path)
        (row,) = [line for line in table.splitlines() if line.startswith(f"| [{path.name}]")]
        for model in recipe.models:
            assert model.rpartition("/")[2].removeprefix("starter:") in row
        assert recipe.student.method in row
        teacher = recipe.teacher
        if isinstance(teacher, ImportBlock):
            assert teacher.file in row
        else:
            assert (f"D = {teacher.n}" if teacher.n else str(teacher.policy).split(",")[0]) in row
