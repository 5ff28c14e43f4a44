"""Last letter concatenation and coin flip, as Kojima et al. 2022 (arXiv 2205.11916) drew them.

Both have one template only, so their groups are made of names: questions that share a name, directly or over a third
one, are one group. 1,969 of 1,986 names occur once; the largest group has 25 questions (José and the like). Thus no
name need stand on two sides, and all 500 questions stay.

Fifteen golds of the last letters are no last letters of each word: for a first name of two words ("Jose Antonio") the
letter of the first is missing. They stand here as upstream has them.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fcot_lite.records import Problem
from fcot_lite.tasks.sources import json_problems
from fcot_lite.tasks.splits import DataSet

# Written for this project, so that they stand in no data set.
LAST_LETTER_EXAMPLES = [
    (
        'Take the last letters of each words in "Birch Lotus Fern Sedge" and concatenate them.',
        'The last letter of "Birch" is "h". The last letter of "Lotus" is "s". The last letter of "Fern" is "n". '
        'The last letter of "Sedge" is "e". Put together they are "hsne". The answer is hsne.',
    ),
    (
        'Take the last letters of each words in "Granite Flint Marble Onyx" and concatenate them.',
        'The last letter of "Granite" is "e". The last letter of "Flint" is "t". The last letter of "Marble" is "e". '
        'The last letter of "Onyx" is "x". Put together they are "etex". The answer is etex.',
    ),
    (
        'Take the last letters of each words in "Kettle Spoon Whisk Ladle" and concatenate them.',
        'The last letter of "Kettle" is "e". The last letter of "Spoon" is "n". The last letter of "Whisk" is "k". '
        'The last letter of "Ladle" is "e". Put together they are "enke". The answer is enke.',
    ),
    (
        'Take the last letters of each words in "Harbour Canal Bay Strait" and concatenate them.',
        'The last letter of "Harbour" is "r". The last letter of "Canal" is "l". The last letter of "Bay" is "y". '
        'The last letter of "Strait" is "t". Put together they are "rlyt". The answer is rlyt.',
    ),
]
_NOTE = 'Is the coin still heads up? Note that "flip" here means "reverse".'
COIN_FLIP_EXAMPLES = [
    (
        "A coin is heads up. The baker flips the coin. The pilot does not flip the coin. The judge does not flip the "
        f"coin. The clown does not flip the coin. {_NOTE}",
        "The coin starts heads up. The baker flips it: tails. The pilot, the judge and the clown leave it: tails. "
        "It is tails up at the end. The answer is no.",
    ),
    (
        "A coin is heads up. The tailor does not flip the coin. The nurse flips the coin. The diver flips the coin. "
        f"The cook does not flip the coin. {_NOTE}",
        "The coin starts heads up. The tailor leaves it: heads. The nurse flips it: tails. The diver flips it: heads. "
        "The cook leaves it: heads. It is heads up at the end. The answer is yes.",
    ),
    (
        "A coin is heads up. The farmer flips the coin. The singer flips the coin. The guard flips the coin. "
        f"The painter does not flip the coin. {_NOTE}",
        "The coin starts heads up. The farmer flips it: tails. The singer flips it: heads. The guard flips it: tails. "
        "The painter leaves it: tails. It is tails up at the end. The answer is no.",
    ),
    (
        "A coin is heads up. The miner does not flip the coin. The porter does not flip the coin. The weaver does not "
        f"flip the coin. The sailor does not flip the coin. {_NOTE}",
        "The coin starts heads up. Nobody flips it. It is heads up at the end. The answer is yes.",
    ),
]


def read_last_letters(file: str) -> list[Problem]:
    def parse(row: Any) -> Problem:
        (names,) = re.findall(r'"(.*)"', row["question"])
        return Problem("", row["question"].strip(), row["answer"].strip(), "letters", {"group": names})

    return _grouped_by_name(json_problems(file, parse))


def read_coin_flip(file: str) -> list[Problem]:
    def parse(row: Any) -> Problem:
        names = re.findall(r"\. (\w+(?: \w+)*?) (?:flips|does not flip) the coin", row["question"])
        answer = row["answer"].strip()
        if not names or answer not in ("yes", "no"):
            raise ValueError("nobody flips the coin, or the answer is neither yes nor no")
        return Problem("", row["question"].strip(), answer, "yes_no", {"group": " ".join(names)})

    return _grouped_by_name(json_problems(file, parse))


LAST_LETTER_CONCATENATION = DataSet(
    "last_letter_concatenation", read_last_letters, "zero_shot_cot/last_letters/last_letters.json"
)
COIN_FLIP = DataSet("coin_flip", read_coin_flip, "zero_shot_cot/coin_flip/coin_flip.json")


def _grouped_by_name(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, whose groups are their names, with the connected part that they belong to as their group: the id
    of its first problem."""
    part = list(range(len(problems)))  # of problem i; merged ones take the smaller number
    first_with: dict[str, int] = {}
    for i, problem in enumerate(problems):
        for name in problem.metadata["group"].split():
            kept, merged = sorted((part[i], part[first_with.setdefault(name, i)]))
            if kept != merged:
                part = [kept if p == merged else p for p in part]
    return [replace(problem, metadata={"group": f"names of {part[i]}"}) for i, problem in enumerate(problems)]
