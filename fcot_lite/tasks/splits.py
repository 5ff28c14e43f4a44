"""How a data set is cut into train, validation and test.

`paper`: the test sets of Ho, Schmid & Yun 2023 (arXiv 2212.10071). A train question that also stands in test is left
out: it would be a test question the student has seen. `template`: nothing of one group on two sides, where a group is
what a question shares with its siblings, told by its metadata: its template (names and numbers taken out), its context,
its story, or a name. Either way validation is taken out of train, whole groups at a time.

Shuffles are keyed by a string, so no two uses share their random numbers by accident (with `seed + index`, item i of
one seed is item i + 1 of the seed before).
"""

import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fcot_lite.errors import RecipeError
from fcot_lite.records import Problem

By = Literal["paper", "template"]
SPLITTINGS: tuple[By, ...] = ("paper", "template")

PRONOUN = "he|she|him|his|her|hers|himself|herself"
NUMERAL = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
# Names are words with a capital. The first word of a sentence is taken for one too: with all else equal it is
# the same template, and no list of names is complete. Capitals of every alphabet that has them: Chinese has none.
CAPITALS = "".join(filter(str.isupper, map(chr, range(0x10000))))
NAME = re.compile(rf"\b(?:[{CAPITALS}][\w'’]*|(?:{PRONOUN})\b)")
NUMBER = re.compile(rf"\d+(?:[.,/:]\d+)*|\b(?:{NUMERAL})\b")


@dataclass(frozen=True, slots=True)
class DataSet:
    """Upstream's files, and what reads one of them into problems with the rows' indices for ids. Without a
    `train_file` the one file holds everything."""

    name: str
    read: Callable[[str], list[Problem]]
    test_file: str
    train_file: str | None = None

    @property
    def files(self) -> list[str]:
        return [self.test_file] if self.train_file is None else [self.train_file, self.test_file]


def normalised(question: str) -> str:
    """The text by which two questions count as the same: case, white space and Unicode form do not matter."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def exact(question: str) -> str:
    """The text by which a question is known: of Unicode's ways to write the same characters one, single spaces. Case
    and what only looks alike (3² and 32) stay apart, as in "the ASCII code of a"."""
    return " ".join(unicodedata.normalize("NFC", question).split())


def template(question: str) -> str:
    """The words of a question without its names and numbers: "Ann has 3 cats." and "Bo has 12 cats." share one."""
    words = re.findall(r"\w+", NUMBER.sub("0", NAME.sub("_", question)))
    return " ".join(word for word, before in zip(words, ["", *words], strict=False) if not word == before == "_")


def group(problem: Problem) -> str:
    """What must not stand on two sides: the task's own key, or else the question."""
    return str(problem.metadata.get("group", normalised(problem.question)))


def load(data: DataSet, by: By, split: str, options: Mapping[str, Any], limit: int | None) -> list[Problem]:
    """The problems of a split in a fixed shuffled order; an id ends in the row's index in upstream's file.

    Raises RecipeError for any option, because a data set has none, and DataError as reading the file does.
    """
    refuse_options(data.name, options)
    is_own_file = split == "test" and data.train_file is not None  # read alone: AQuA's training file cannot be had
    problems = data.read(data.test_file) if is_own_file else parts(data, by)[split]
    chosen = shuffled(problems, f"{data.name}/{split}/order")[:limit]
    return [replace(problem, id=f"{data.name}/{split}/{problem.id}") for problem in chosen]


def refuse_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises RecipeError for any option."""
    if options:
        raise RecipeError(f"{name}: unknown option {next(iter(options))!r}; a data set has none")


def solved_examples(
    name: str, solved: Sequence[tuple[str, str]], options: Mapping[str, Any], count: int
) -> list[tuple[str, str]]:
    """The first `count` of those that were written for the data set. Raises RecipeError where there are fewer."""
    refuse_options(name, options)
    if count > len(solved):
        raise RecipeError(f"{count} solved examples asked for; {name} has {len(solved)}")
    return list(solved[:count])


def parts(data: DataSet, by: By) -> dict[str, list[Problem]]:
    """train, validation and test, and the train questions that were left out because of test."""
    test = data.read(data.test_file)
    if data.train_file is not None:
        train = data.read(data.train_file)
    elif by == "paper":
        train, test = _as_in_the_paper(test)
    else:
        train, test = take_groups(test, _num_test(len(test)), f"{data.name}/template")
    unseen = without(train, test)
    if by == "template":
        of_test = {group(problem) for problem in test}
        unseen = [problem for problem in unseen if group(problem) not in of_test]
    kept, validation = hold_out(unseen, f"{data.name}/validation")
    ids = {problem.id for problem in unseen}
    left_out = [problem for problem in train if problem.id not in ids]
    return {"train": kept, "validation": validation, "test": test, "left_out": left_out}


def _as_in_the_paper(problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """(train, test) of the paper's published index files: RandomState(0).permutation(n), the first round(0.7 n) train,
    each sorted."""
    import numpy as np

    order = np.random.RandomState(0).permutation(len(problems)).tolist()
    num_train = len(problems) - _num_test(len(problems))
    return [problems[i] for i in sorted(order[:num_train])], [problems[i] for i in sorted(order[num_train:])]


def _num_test(num_problems: int) -> int:
    return num_problems - round(0.7 * num_problems)


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
    a group lies whole on one side, so it can come out a few problems larger."""
    wanted = min(len(problems) // 2, 500, max(30, round(0.1 * len(problems))))
    return take_groups(problems, wanted, key)


def take_groups(problems: Sequence[Problem], wanted: int, key: str) -> tuple[list[Problem], list[Problem]]:
    """(rest, taken): whole groups in an order of the key's until `wanted` problems or a few more are taken; never over
    a half of all, so a group as large as that stays in the rest."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(group(problem), []).append(problem)
    members = list(groups.values())
    rest: list[Problem] = []
    taken: list[Problem] = []
    for i in permutation(key, len(members)):
        fits = len(taken) < wanted and len(taken) + len(members[i]) <= len(problems) // 2
        (taken if fits else rest).extend(members[i])
    return rest, taken


def shuffled(problems: Sequence[Problem], key: str) -> list[Problem]:
    return [problems[i] for i in permutation(key, len(problems))]
