"""Generated tasks: as many problems as you like, of the difficulty you choose, each with its golden solution.

Here what they share, and chain_arithmetic: "Start with 17. Add 25. Subtract 8. What is the result?"

The split of a problem follows from a hash of what it asks, not of its wording or of the knobs: a test problem is
a test problem under all knobs, and train, validation, test and the solved examples cannot overlap.
"""

import difflib
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from fcot_lite.answers import final_sentence
from fcot_lite.errors import RecipeError
from fcot_lite.records import AnswerKind, Problem

DEFAULT_SIZE = {"train": 1000, "validation": 100, "test": 500}
BUCKETS = ("train",) * 7 + ("examples", "validation", "test")
MOST_ATTEMPTS = 10_000  # a tenth of all draws falls into test: an exhausted space, not bad luck, needs more than this


def bucket(content: str) -> str:
    """The split of a problem with this content: seven tenths are train, one each examples, validation and test."""
    return BUCKETS[int.from_bytes(hashlib.sha256(content.encode()).digest()) % len(BUCKETS)]


@dataclass(frozen=True, slots=True)
class Item:
    """What a generator draws: two items with the same `content` count as one. `steps` is the golden solution without
    its last sentence, which states the answer."""

    split: str
    content: str
    question: str
    target: str
    steps: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generator:
    """A generated task. `knobs(options)` checks the recipe's options and gives every knob its value; `draw(rng, knobs,
    split)` gives an item, of whatever split, or None where the draw came to nothing."""

    name: str
    kind: AnswerKind
    knobs: Callable[[Mapping[str, Any]], dict[str, Any]]
    draw: Callable[[random.Random, dict[str, Any], str], Item | None]

    def load(self, split: str, options: Mapping[str, Any], limit: int | None) -> list[Problem]:
        """Problems with metadata `solution` and, where there are any, `choices`.

        Raises RecipeError for wrong knobs, RecipeError where the knobs do not allow so many different problems.
        """
        problems = self._problems(split, self.knobs(options))
        return list(islice(problems, DEFAULT_SIZE[split] if limit is None else limit))

    def examples(self, options: Mapping[str, Any], count: int) -> list[tuple[str, str]]:
        """(question, solution) pairs of a split of their own. Raises as `load` does."""
        problems = islice(self._problems("examples", self.knobs(options)), count)
        return [(problem.question, problem.metadata["solution"]) for problem in problems]

    def _problems(self, split: str, knobs: dict[str, Any]) -> Iterator[Problem]:
        key = f"{self.name}/{json.dumps(knobs, sort_keys=True)}/{split}"
        seen: set[str] = set()
        while True:
            index = len(seen)
            for attempt in range(MOST_ATTEMPTS):
                item = self.draw(random.Random(f"{key}/{index}/{attempt}"), knobs, split)
                if item is not None and item.split == split and item.content not in seen:
                    break
            else:
                values = ", ".join(f"{k} {list(v) if isinstance(v, tuple) else repr(v)}" for k, v in knobs.items())
                raise RecipeError(
                    f"{self.name}: no more than {index} different {split} problems found with {values}. "
                    "Widen one of them, or ask for fewer problems"
                )
            seen.add(item.content)
            metadata = {"choices": list(item.choices)} if item.choices else {}
            problem = Problem(f"{self.name}/{split}/{index}", item.question, item.target, self.kind, metadata)
            yield replace(problem, metadata=metadata | {"solution": f"{item.steps} {final_sentence(problem)}"})


def check_names(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises RecipeError for an option that the task `name` does not have."""
    for option in options:
        if option not in known:
            close = difflib.get_close_matches(str(option), known, n=1)
            raise RecipeError(
                f"{name}: unknown option {option!r}: "
                + (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}")
            )


def bounds(name: str, option: str, value: Any, lowest: int, highest: int) -> tuple[int, int]:
    """`value` as (smallest, largest). Raises RecipeError where it is no such pair within `lowest` and `highest`."""
    pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(type(item) is int for item in value)
    if not pair or not lowest <= value[0] <= value[1] <= highest:
        raise RecipeError(f"{name}: {option} is {value!r}; give [smallest, largest] between {lowest} and {highest}")
    return value[0], value[1]


def ranges(
    name: str, limits: Mapping[str, tuple[tuple[int, int], int, int]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Knobs that are all ranges: `limits` gives of each the default, the lowest and the highest value."""
    check_names(name, options, list(limits))
    return {
        option: bounds(name, option, options.get(option, default), lowest, highest)
        for option, (default, lowest, highest) in limits.items()
    }


# --- chain_arithmetic

VERBS = {"+": "add", "-": "subtract", "*": "multiply by", "/": "divide by"}
LARGEST_RESULT = 999


@dataclass(frozen=True, slots=True)
class Chain:
    """A start number and (operator, number) steps, worked from left to right. Intermediate results are all whole
    numbers from 0 to 999."""

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def content(self) -> str:
        return str(self.start) + "".join(f"{operator}{number}" for operator, number in self.steps)

    @property
    def split(self) -> str:
        return bucket(self.content)


def chain_knobs(options: Mapping[str, Any]) -> dict[str, Any]:
    """`terms` counts the numbers in a chain, the first included; `digits` are those of each number; `operators` is a
    selection of "+-*/"."""
    name = "chain_arithmetic"
    check_names(name, options, ["terms", "digits", "operators"])
    operators = options.get("operators", "+-*")
    if not isinstance(operators, str) or not operators or not set(operators) <= set(VERBS):
        raise RecipeError(f'{name}: operators is {operators!r}; give some of "+-*/", for example "+-"')
    return {
        # Above 32 numbers no wording is natural and no small model answers.
        "terms": bounds(name, "terms", options.get("terms", (2, 4)), 2, 32),
        "digits": bounds(name, "digits", options.get("digits", (1, 2)), 1, len(str(LARGEST_RESULT))),
        "operators": "".join(operator for operator in VERBS if operator in operators),
    }


def draw_chain(rng: random.Random, knobs: dict[str, Any], split: str) -> Item | None:
    """A chain, or None where it ran into a value from which no operator leads on."""
    lengths = range(knobs["digits"][0], knobs["digits"][1] + 1)
    length = rng.choice(lengths)
    start = value = rng.randrange(10 ** (length - 1), 10**length)
    steps = []
    for _ in range(rng.randint(*knobs["terms"]) - 1):
        # Operator and number of digits first, each as likely as the others; then a number among those that fit.
        moves = [(op, numbers) for op in knobs["operators"] for n in lengths if (numbers := _operands(value, op, n))]
        if not moves:
            return None
        operator, numbers = rng.choice(moves)
        number = rng.choice(numbers)
        steps.append((operator, number))
        value = _apply(value, operator, number)
    chain = Chain(start, tuple(steps))
    worked, result = _solve(chain)
    return Item(chain.split, chain.content, _wording(rng, chain), str(result), worked)


def _operands(value: int, operator: str, length: int) -> list[int]:
    """Numbers of `length` digits that keep the result whole and from 0 to 999; * and / take no 1 and no value 0."""
    lowest, highest = 10 ** (length - 1), 10**length - 1
    if operator == "+":
        return list(range(lowest, min(highest, LARGEST_RESULT - value) + 1))
    if operator == "-":
        return list(range(lowest, min(highest, value) + 1))
    if value == 0:
        return []
    if operator == "*":
        return list(range(max(lowest, 2), min(highest, LARGEST_RESULT // value) + 1))
    return [number for number in range(max(lowest, 2), min(highest, value) + 1) if value % number == 0]


def _apply(value: int, operator: str, number: int) -> int:
    return {"+": value + number, "-": value - number, "*": value * number, "/": value // number}[operator]


def _solve(chain: Chain) -> tuple[str, int]:
    value = chain.start
    lines = []
    for operator, number in chain.steps:
        result = _apply(value, operator, number)
        lines.append(f"{value} {operator} {number} = {result}.")
        value = result
    return " ".join(lines), value


def _wording(rng: random.Random, chain: Chain) -> str:
    start, steps = chain.start, [f"{VERBS[operator]} {number}" for operator, number in chain.steps]
    return rng.choice(
        [
            f"Start with {start}. {' '.join(f'{step.capitalize()}.' for step in steps)} What is the result?",
            f"Take the number {start}, then {', then '.join(steps)}. What number do you get?",
            f"What do you get if you begin with {start} and, one after the other, {', '.join(steps)}?",
            f"Mia writes down {start}. Working from left to right, she has to {', then '.join(steps)}. "
            "Which number does she end with?",
        ]
    )


CHAIN_ARITHMETIC = Generator("chain_arithmetic", "number", chain_knobs, draw_chain)
