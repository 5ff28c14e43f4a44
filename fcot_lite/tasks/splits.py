"""Fixed shuffles and splits. Everything is keyed by a string, so no two uses share their random numbers by accident
(with `seed + index`, item i of one seed is item i + 1 of the seed before)."""

import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from fcot_lite.records import Problem


def normalised(question: str) -> str:
    """The text by which two questions count as the same: case, white space and Unicode form do not matter."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def permutation(key: str, n: int) -> list[int]:
    """0 … n-1 in an order that depends on `key` and `n` only: the same on every machine and in every process."""
    order = list(range(n))
    random.Random(key).shuffle(order)
    return order


def without(problems: Iterable[Problem], others: Iterable[Problem]) -> list[Problem]:
    """The problems whose question does not stand in `others`."""
    questions = {normalised(problem.question) for problem in others}
    return [problem for problem in problems if normalised(problem.question) not in questions]


def hold_out(problems: Sequence[Problem], key: str) -> tuple[list[Problem], list[Problem]]:
    """(train, validation). Validation gets a tenth of the problems, at least 30, at most 500 and never over a half;
    questions that occur more than once lie whole on one side, so it can come out a few problems larger."""
    wanted = min(len(problems) // 2, 500, max(30, round(0.1 * len(problems))))
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[normalised(problem.question)].append(problem)
    texts = list(groups)
    train: list[Problem] = []
    validation: list[Problem] = []
    for i in permutation(key, len(texts)):
        (validation if len(validation) < wanted else train).extend(groups[texts[i]])
    return train, validation


def shuffled(problems: Sequence[Problem], key: str) -> list[Problem]:
    return [problems[i] for i in permutation(key, len(problems))]
