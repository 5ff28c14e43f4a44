"""Tasks: where questions and their gold answers come from.

The paper's twelve read pinned files (sources.py) and are split in two ways (splits.py); generated ones need no file.
To add one, write its functions beside the others and a line in `TASKS`. Names that begin with "rg:" are the datasets
of reasoning-gym, see rg.py; data of your own needs no code, see custom.py.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from types import MappingProxyType
from typing import Any, Literal

from fcot_lite import answers, math_check
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.records import AnswerKind, FinishReason, Problem, Verdict
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import (
    arithmetic,
    commonsense,
    custom,
    generated,
    generated_choices,
    generated_names,
    other,
    rg,
    splits,
    symbolic,
)
from fcot_lite.tasks.leakage import Leakage, overlap
from fcot_lite.tasks.sources import SOURCES, is_here
from fcot_lite.tasks.splits import SPLITTINGS, By, DataSet

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})

GENERATED = "made by fcot-lite"
AS_PUBLISHED = "as its authors published it"  # research data without a licence file


@dataclass(frozen=True, slots=True)
class Task:
    """`load(split, options, limit)` gives problems; `examples(options, count)` gives (question, solution) pairs that
    stand in no validation or test split, each solution ending as `answers.final_sentence` has it. `data` is None where
    no files are read: then there is one way to split."""

    answer_kind: AnswerKind
    load: Callable[[Split, Mapping[str, Any], int | None], list[Problem]]
    examples: Callable[[Mapping[str, Any], int], list[tuple[str, str]]]
    category: str
    source: str
    licence: str
    data: DataSet | None = None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A line of the table of tasks. Numbers of problems, of the paper's split, are None where they cannot be counted
    here; `random_guess` is the accuracy of guessing, from 0 to 1; `fault` says what is wrong with the task's files."""

    name: str
    category: str
    answer_kind: AnswerKind
    train: int | None
    validation: int | None
    test: int | None
    source: str
    licence: str
    random_guess: float | None
    is_present_offline: bool
    fault: str | None = None


def _data_set(kind: AnswerKind, category: str, licence: str, data: DataSet, solved: Sequence[tuple[str, str]]) -> Task:
    file = SOURCES[data.test_file]
    return Task(
        kind,
        partial(splits.load, data, "paper"),
        partial(splits.solved_examples, data.name, solved),
        category,
        f"{file.repository}@{file.commit[:7]}",
        licence,
        data,
    )


def _generated(kind: AnswerKind, category: str, task: generated.Generator) -> Task:
    return Task(kind, task.load, task.examples, category, GENERATED, "Apache-2.0")


TASKS = {
    "single_eq": _data_set(
        "number", "arithmetic", AS_PUBLISHED, arithmetic.SINGLE_EQ, arithmetic.WORD_PROBLEM_EXAMPLES
    ),
    "addsub": _data_set("number", "arithmetic", AS_PUBLISHED, arithmetic.ADDSUB, arithmetic.WORD_PROBLEM_EXAMPLES),
    "multiarith": _data_set(
        "number", "arithmetic", AS_PUBLISHED, arithmetic.MULTIARITH, arithmetic.WORD_PROBLEM_EXAMPLES
    ),
    "gsm8k": _data_set("number", "arithmetic", "MIT", arithmetic.GSM8K, arithmetic.WORD_PROBLEM_EXAMPLES),
    "aqua": _data_set("choice", "arithmetic", "Apache-2.0", arithmetic.AQUA, arithmetic.AQUA_EXAMPLES),
    "svamp": _data_set("number", "arithmetic", "MIT", arithmetic.SVAMP, arithmetic.WORD_PROBLEM_EXAMPLES),
    "date_understanding": _data_set(
        "choice", "other", "Apache-2.0", other.DATE_UNDERSTANDING, other.DATE_UNDERSTANDING_EXAMPLES
    ),
    "tracking_shuffled_objects": _data_set(
        "choice", "other", "Apache-2.0", other.TRACKING_SHUFFLED_OBJECTS, other.TRACKING_SHUFFLED_OBJECTS_EXAMPLES
    ),
    "last_letter_concatenation": _data_set(
        "letters", "symbolic", AS_PUBLISHED, symbolic.LAST_LETTER_CONCATENATION, symbolic.LAST_LETTER_EXAMPLES
    ),
    "coin_flip": _data_set("yes_no", "symbolic", AS_PUBLISHED, symbolic.COIN_FLIP, symbolic.COIN_FLIP_EXAMPLES),
    "commonsense_qa": _data_set(
        "choice", "commonsense", AS_PUBLISHED, commonsense.COMMONSENSE_QA, commonsense.COMMONSENSE_QA_EXAMPLES
    ),
    "strategy_qa": _data_set(
        "yes_no", "commonsense", "Apache-2.0", commonsense.STRATEGY_QA, commonsense.STRATEGY_QA_EXAMPLES
    ),
    "chain_arithmetic": _generated("number", "arithmetic", generated.CHAIN_ARITHMETIC),
    "generated_coin_flip": _generated("yes_no", "symbolic", generated_names.COIN_FLIP),
    "generated_last_letters": _generated("letters", "symbolic", generated_names.LAST_LETTERS),
    "generated_shuffled_objects": _generated("choice", "other", generated_choices.SHUFFLED_OBJECTS),
    "generated_date_understanding": _generated("choice", "other", generated_choices.DATE_UNDERSTANDING),
}


def load(
    name: str,
    split: Split,
    *,
    options: Mapping[str, Any] = NO_OPTIONS,
    limit: int | None = None,
    by: By = "paper",
) -> list[Problem]:
    """The problems of a split in a fixed order: `limit=50` is a prefix of `limit=200`.

    Without a limit a data set comes whole and a generated task in its default size. A data set with fewer than
    `limit` problems comes whole. `by` is the way a data set is split, see splits.py.
    Raises RecipeError for an unknown task, split or option, DataError where the data cannot be had, ResourceError
    where a package or the cache for it is missing.
    """
    chosen = task(name)
    if split not in SPLITS:
        raise RecipeError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if by not in SPLITTINGS:
        raise RecipeError(f"split by {by!r} is not one of {', '.join(SPLITTINGS)}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise RecipeError(f"limit of {name}/{split} is {limit!r}; give a whole number from 1, or leave it out for all")
    if by == "paper":
        return chosen.load(split, options, limit)
    if chosen.data is None:
        raise RecipeError(f"{name} has no template split: only the paper's data sets do; leave task.split out")
    return splits.load(chosen.data, by, split, options, limit)


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
        return Task(
            "number", partial(rg.load, name), partial(rg.examples, name), "reasoning-gym", "reasoning-gym", "Apache-2.0"
        )
    if name not in TASKS:
        close = difflib.get_close_matches(name.lower().replace("-", "_"), TASKS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(TASKS)}, or {rg.PREFIX}<dataset>"
        raise RecipeError(f"unknown task {name!r}: {hint}")
    return TASKS[name]


def leakage(name: str, by: By = "paper", options: Mapping[str, Any] = NO_OPTIONS) -> Leakage:
    """How much of the task's test part stands in its train and validation parts. Raises as `load` does."""
    data = task(name).data
    if data is None:
        parts: Mapping[str, list[Problem]] = {s: load(name, s, options=options, by=by) for s in SPLITS}
    else:
        splits.refuse_options(name, options)
        parts = splits.parts(data, by)
    train, test, left_out = parts["train"] + parts["validation"], parts["test"], parts.get("left_out", [])
    published = overlap(train + left_out, test)
    return Leakage(name, by, len(train), len(test), len(left_out), published, overlap(train, test))


def random_guess(kind: AnswerKind, problems: Sequence[Problem]) -> float | None:
    """Accuracy from 0 to 1 of guessing: one over the number of choices on average, a half for yes or no, else 0; None
    for choices of no problems."""
    if kind == "choice":
        return fmean(1 / len(problem.metadata["choices"]) for problem in problems) if problems else None
    return 0.5 if kind == "yes_no" else 0.0


def describe() -> list[TaskRow]:
    """A row for each task in `TASKS`, without downloading anything."""
    rows = []
    for name, chosen in TASKS.items():
        files = () if chosen.data is None else chosen.data.files
        here, fault = _problems_here(name, chosen)
        train, validation, test = (len(here[split]) if split in here else None for split in SPLITS)
        rows.append(
            TaskRow(
                name,
                chosen.category,
                chosen.answer_kind,
                train,
                validation,
                test,
                chosen.source,
                chosen.licence,
                random_guess(chosen.answer_kind, here.get("test", [])),
                fault is None and all(is_here(file) for file in files if file in SOURCES),
                fault,
            )
        )
    return rows


def _problems_here(name: str, chosen: Task) -> tuple[Mapping[str, list[Problem]], str | None]:
    """The splits that can be had without a download, and what is wrong with the files that are here: one wrong file
    must not hide all other tasks."""
    try:
        if chosen.data is None:
            return {split: load(name, split) for split in SPLITS}, None
        if all(file in SOURCES and is_here(file) for file in chosen.data.files):
            return splits.parts(chosen.data, "paper"), None
        return ({"test": load(name, "test")} if chosen.data.train_file and is_here(chosen.data.test_file) else {}), None
    except DataError as error:
        return {}, str(error)


def problems(block: TaskBlock, split: Split) -> list[Problem]:
    """The problems of a split of a recipe's task. Raises as `load` does."""
    limit = {"train": block.train, "validation": block.validation, "test": block.test}[split]
    if block.name is None:
        return custom.load(block, split, limit)
    return load(block.name, split, options=block.options, limit=limit, by=block.split)


def is_generated(block: TaskBlock) -> bool:
    """Whether the task makes as many problems as it is asked for; a data set has those that it has."""
    return block.name is not None and task(block.name).data is None


def whole_test(block: TaskBlock) -> list[Problem]:
    """The test problems of a recipe's task: of a data set all, whatever part is evaluated; of a generated task those
    that the recipe asks for, since a narrow one has no more to give."""
    return problems(block if is_generated(block) else block.model_copy(update={"test": None}), "test")


def examples(block: TaskBlock, count: int) -> list[tuple[str, str]]:
    """`count` solved (question, solution) pairs of a recipe's task. Raises as `solved_examples` does."""
    if block.name is None:
        return custom.examples(block, count)
    return solved_examples(block.name, options=block.options, count=count)


def grade(
    text: str, problem: Problem, finish_reason: FinishReason, verifier: answers.Verifier | None = None
) -> Verdict:
    """The strict verdict on a completion, by the kind of answer or the scorer that the problem names."""
    return answers.grade(text, problem, "strict", finish_reason=finish_reason, scorer=rg.score, verifier=verifier)


def grader_version(problem: Problem) -> str:
    """Of what judges this problem's answers: another version may judge otherwise."""
    if "scorer" in problem.metadata:
        return f"{answers.GRADER_VERSION}, reasoning-gym {rg.version()}"
    if problem.answer_kind == "math":
        return f"{answers.GRADER_VERSION}, math-verify {math_check.version()}"
    return answers.GRADER_VERSION


def bad_rows(block: TaskBlock) -> list[custom.BadRow]:
    """The rows of data of your own that were set aside; [] for the tasks of this package."""
    return custom.read(block).bad if block.name is None else []


def fingerprint(block: TaskBlock) -> str | None:
    """What the problems depend on besides the recipe and this package, whose files are pinned: another fingerprint,
    other problems."""
    if block.name is None:
        files = custom.fingerprint(block)
        return f"{files}, math-verify {math_check.version()}" if block.answer == "math" else files
    return rg.version() if block.name.startswith(rg.PREFIX) else None
