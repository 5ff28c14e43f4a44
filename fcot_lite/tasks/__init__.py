"""Tasks: where questions and their gold answers come from.

A task is two functions and a line in `TASKS`. To add one, write them beside the others and add the line. Names that
begin with "rg:" are the datasets of reasoning-gym, see rg.py.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from fcot_lite.errors import RecipeError
from fcot_lite.recipe import TaskBlock
from fcot_lite.records import AnswerKind, Problem
from fcot_lite.tasks import arithmetic, generated, generated_choices, generated_names, rg

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Task:
    """`load(split, options, limit)` gives problems; `examples(options, count)` gives (question, solution) pairs that
    stand in no validation or test split, each solution ending in "The answer is N."."""

    answer_kind: AnswerKind
    load: Callable[[Split, Mapping[str, Any], int | None], list[Problem]]
    examples: Callable[[Mapping[str, Any], int], list[tuple[str, str]]]


TASKS = {
    "chain_arithmetic": Task("number", generated.CHAIN_ARITHMETIC.load, generated.CHAIN_ARITHMETIC.examples),
    "generated_coin_flip": Task("yes_no", generated_names.COIN_FLIP.load, generated_names.COIN_FLIP.examples),
    "generated_last_letters": Task("letters", generated_names.LAST_LETTERS.load, generated_names.LAST_LETTERS.examples),
    "generated_shuffled_objects": Task(
        "choice", generated_choices.SHUFFLED_OBJECTS.load, generated_choices.SHUFFLED_OBJECTS.examples
    ),
    "generated_date_understanding": Task(
        "choice", generated_choices.DATE_UNDERSTANDING.load, generated_choices.DATE_UNDERSTANDING.examples
    ),
    "gsm8k": Task("number", arithmetic.load_gsm8k, arithmetic.word_problem_examples),
    "multiarith": Task("number", arithmetic.load_multiarith, arithmetic.word_problem_examples),
    "svamp": Task("number", arithmetic.load_svamp, arithmetic.word_problem_examples),
}


def load(
    name: str, split: Split, *, options: Mapping[str, Any] = NO_OPTIONS, limit: int | None = None
) -> list[Problem]:
    """The problems of a split in a fixed order: `limit=50` is a prefix of `limit=200`.

    Without a limit a data set comes whole and a generated task in its default size. A data set with fewer than
    `limit` problems comes whole.
    Raises RecipeError for an unknown task, split or option, DataError where the data cannot be had, ResourceError
    where a package or the cache for it is missing.
    """
    chosen = task(name)
    if split not in SPLITS:
        raise RecipeError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise RecipeError(f"limit of {name}/{split} is {limit!r}; give a whole number from 1, or leave it out for all")
    return chosen.load(split, options, limit)


def solved_examples(name: str, *, options: Mapping[str, Any] = NO_OPTIONS, count: int = 4) -> list[tuple[str, str]]:
    """`count` pairs (question, solution) for few-shot prompts; never from validation or test.

    Raises RecipeError for an unknown task or option, or where the task has fewer than `count`.
    """
    chosen = task(name)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise RecipeError(f"number of solved examples is {count!r}; give a whole number from 0")
    return chosen.examples(options, count)


def task(name: str) -> Task:
    """The task of that name. Raises RecipeError for an unknown one; an unknown dataset after "rg:" only shows when it
    is loaded, because reasoning-gym takes seconds to import."""
    if name.startswith(rg.PREFIX):
        return Task("number", partial(rg.load, name), partial(rg.examples, name))
    if name not in TASKS:
        close = difflib.get_close_matches(name.lower().replace("-", "_"), TASKS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(TASKS)}, or {rg.PREFIX}<dataset>"
        raise RecipeError(f"unknown task {name!r}: {hint}")
    return TASKS[name]


def problems(block: TaskBlock, split: Split) -> list[Problem]:
    """The problems of a split of a recipe's task. Raises as `load` does."""
    limit = {"train": block.train, "validation": block.validation, "test": block.test}[split]
    return load(block.name, split, options=block.options, limit=limit)


def examples(block: TaskBlock, count: int) -> list[tuple[str, str]]:
    """`count` solved (question, solution) pairs of a recipe's task. Raises as `solved_examples` does."""
    return solved_examples(block.name, options=block.options, count=count)


def fingerprint(block: TaskBlock) -> str | None:
    """What the problems depend on besides the recipe and this package, whose files are pinned: another fingerprint,
    other problems."""
    return rg.version() if block.name.startswith(rg.PREFIX) else None
