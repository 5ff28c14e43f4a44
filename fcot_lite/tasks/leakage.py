"""How much of a test set stands in train: word for word, but for case and white space, or as a sibling of the same
template, context, story or name."""

from collections.abc import Sequence
from dataclasses import dataclass

from fcot_lite.records import Problem
from fcot_lite.tasks.splits import By, normalised, template


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many test questions have such a partner in train or validation."""

    exact: int
    normalised: int
    template: int


@dataclass(frozen=True, slots=True)
class Leakage:
    """`train` (validation included) and `test` are numbers of questions as loaded, `left_out` those of train that are
    not loaded because of test; `published` is the overlap with them, `loaded` without."""

    task: str
    by: By
    train: int
    test: int
    left_out: int
    published: Overlap
    loaded: Overlap


def overlap(train: Sequence[Problem], test: Sequence[Problem]) -> Overlap:
    exact = {problem.question for problem in train}
    texts = {normalised(problem.question) for problem in train}
    keys = {_key(problem) for problem in train}
    return Overlap(
        sum(problem.question in exact for problem in test),
        sum(normalised(problem.question) in texts for problem in test),
        sum(_key(problem) in keys for problem in test),
    )


def _key(problem: Problem) -> str:
    return str(problem.metadata["group"]) if "group" in problem.metadata else template(problem.question)
