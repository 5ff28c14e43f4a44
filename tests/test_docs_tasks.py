"""docs/tasks.md, followed to the letter: its files are written, its commands run, and what they print stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from test_recipe import changed

from fcot_lite.recipe import build

BLOCK = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = (REPOSITORY / "docs" / "tasks.md").read_text()
BLOCKS = BLOCK.findall(PAGE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and the recipes, with every file of the page where the page says."""
    place = tmp_path_factory.mktemp("stranger")
    for folder in ("fcot_lite", "recipes"):
        shutil.copytree(REPOSITORY / folder, place / folder)
    table = place / "fcot_lite" / "tasks" / "__init__.py"
    for language, name, content in BLOCKS:
        if name == "imports":
            found = re.search(r"^from fcot_lite\.tasks import", table.read_text(), re.MULTILINE)
            _insert(table, found and found.start(), content)
        elif name == "TASKS":
            found = re.search(r"^TASKS\b.*\{\n", table.read_text(), re.MULTILINE)
            _insert(table, found and found.end(), content)
        elif name:
            assert language in ("json", "yaml", "python")
            (place / name).write_text(content)
    return place


def _insert(path: Path, position: int | None, content: str) -> None:
    assert position is not None
    text = path.read_text()
    path.write_text(text[:position] + content + text[position:])


COMMANDS = [content for language, _, content in BLOCKS if language == "console"]


def test_the_page_has_what_it_promises() -> None:
    files = [name for _, name, _ in BLOCKS if name]
    assert files == ["trips.jsonl", "trips.yaml", "fcot_lite/tasks/clock.py", "imports", "TASKS"]
    assert len(COMMANDS) == 3
    assert PAGE.count("```") == 2 * len(BLOCKS)
    assert all(len(line) <= 120 for line in PAGE.splitlines() if not line.startswith(("|", "{")))


@pytest.mark.parametrize("console", COMMANDS, ids=lambda console: console.splitlines()[0])
def test_a_command_prints_what_the_page_says(place: Path, console: str) -> None:
    first, *expected = console.splitlines()
    prompt, program, *arguments = shlex.split(first)
    assert (prompt, program) == ("$", "fcot")
    environ = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, "-m", "fcot_lite", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=environ, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    # "…" stands for any lines; those between two of them follow one another.
    groups: list[list[str]] = [[]]
    for line in expected:
        if line == "…":
            groups.append([])
        else:
            groups[-1].append(line)
    assert printed[: len(groups[0])] == groups[0]
    assert len(groups) > 1 or printed == groups[0]
    for group in groups[1:]:
        starts = [i for i in range(len(printed)) if printed[i : i + len(group)] == group]
        assert starts, f"{group} is not in\n{done.stdout}"
        printed = printed[starts[0] + len(group) :]


def test_the_fragments_of_recipes_are_right() -> None:
    fragments = [yaml.safe_load(content) for language, name, content in BLOCKS if language == "yaml" and not name]
    assert len(fragments) == 2
    for fragment in fragments:
        assert build(changed(**fragment), "docs/tasks.md").task.answer == "choice"


def test_the_table_of_answers_names_every_kind() -> None:
    from typing import get_args

    from fcot_lite.records import AnswerKind

    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE.partition("## How hard")[0], flags=re.MULTILINE)[1:]) == get_args(
        AnswerKind
    )


def test_the_table_of_options_is_what_the_tasks_take() -> None:
    from fcot_lite import tasks
    from fcot_lite.errors import RecipeError

    rows = re.findall(r"^\| `(\w+)` \| (`\w+: .*) \|$", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in rows] == [name for name, task in tasks.TASKS.items() if task.data is None]
    for name, options in rows:
        for option, default in re.findall(r"`(\w+): ([^`]*)`", options):
            given = tasks.load(name, "train", options={option: yaml.safe_load(default)}, limit=3)
            assert given == tasks.load(name, "train", limit=3), option
        for option, lowest, highest in re.findall(r"`(\w+): \[[^`]*` \((\d+) to (\d+)", options):
            for pair in ([int(lowest) - 1, int(highest)], [int(lowest), int(highest) + 1]):
                with pytest.raises(RecipeError, match=f"between {lowest} and {highest}"):
                    tasks.load(name, "train", options={option: pair}, limit=1)


def test_the_new_task_keeps_the_rules_of_tasks(place: Path) -> None:
    """Splits are disjoint, a limit is a prefix, solved examples end in the gold answer and stand in no split."""
    program = """
from fcot_lite import tasks
from fcot_lite.answers import grade
from fcot_lite.records import Problem
whole = {split: tasks.load("clock", split) for split in tasks.SPLITS}
texts = {split: {problem.question for problem in problems} for split, problems in whole.items()}
assert sum(map(len, texts.values())) == len(set.union(*texts.values())) > 2000
for split, problems in whole.items():
    assert tasks.load("clock", split, limit=7) == problems[:7]
for question, solution in tasks.solved_examples("clock", count=50):
    assert not any(question in others for others in texts.values())
    now, hours = (int(word) for word in question.split() if word.isdigit())
    assert grade(solution, Problem("x", question, str((now + hours) % 24))).correct, solution
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=place, check=False,
        env={**os.environ, "PYTHONPATH": str(place)},
    )  # fmt: skip
    assert done.stderr == ""
