"""Generated tasks: as many problems as you like, of the difficulty you choose.

chain_arithmetic: "Start with 17. Add 25. Subtract 8. What is the result?", golden solution included.

The split of a problem follows from a hash of what it computes, not of its wording or of the knobs: a test problem is
a test problem under all knobs, and train, validation, test and the solved examples cannot overlap.
"""

import difflib
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from fcot_lite.errors import DataError, RecipeError
from fcot_lite.records import Problem

DEFAULT_SIZE = {"train": 1000, "validation": 100, "test": 500}
BUCKETS = ("train",) * 7 + ("examples", "validation", "test")
LARGEST_RESULT = 999
MOST_ATTEMPTS = 10_000  # a tenth of all draws falls into test: an exhausted space, not bad luck, needs more than this

VERBS = {"+": "add", "-": "subtract", "*": "multiply by", "/": "divide by"}


def bucket(content: str) -> str:
    """The split of a problem with this content: seven tenths are train, one each examples, validation and test."""
    return BUCKETS[int.from_bytes(hashlib.sha256(content.encode()).digest()) % len(BUCKETS)]


@dataclass(frozen=True, slots=True)
class ChainKnobs:
    """Smallest and largest value of each. `terms` counts the numbers in a chain, the first included; `digits` are
    those of each number; `operators` is a selection of "+-*/"."""

    terms: tuple[int, int] = (2, 4)
    digits: tuple[int, int] = (1, 2)
    operators: str = "+-*"


@dataclass(frozen=True, slots=True)
class Chain:
    """A start number and (operator, number) steps, worked from left to right."""

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def content(self) -> str:
        return str(self.start) + "".join(f"{operator}{number}" for operator, number in self.steps)

    @property
    def split(self) -> str:
        return bucket(self.content)


def load_chain_arithmetic(split: str, options: Mapping[str, Any], limit: int | None) -> list[Problem]:
    """Problems whose intermediate results are all whole numbers from 0 to 999.

    Raises RecipeError for wrong knobs, DataError where the knobs do not allow so many different problems.
    """
    return list(islice(_problems(split, chain_knobs(options)), DEFAULT_SIZE[split] if limit is None else limit))


def chain_arithmetic_examples(options: Mapping[str, Any], count: int) -> list[tuple[str, str]]:
    problems = islice(_problems("examples", chain_knobs(options)), count)
    return [(problem.question, problem.metadata["solution"]) for problem in problems]


def chain_knobs(options: Mapping[str, Any]) -> ChainKnobs:
    """The knobs that `options` set, the others at their defaults. Raises RecipeError naming the knob."""
    known = list(ChainKnobs.__dataclass_fields__)
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            raise RecipeError(
                f"chain_arithmetic: unknown option {name!r}: "
                + (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}")
            )
    default = ChainKnobs()
    operators = options.get("operators", default.operators)
    if not isinstance(operators, str) or not operators or not set(operators) <= set(VERBS):
        raise RecipeError(f'chain_arithmetic: operators is {operators!r}; give some of "+-*/", for example "+-"')
    return ChainKnobs(
        # Above 32 numbers no wording is natural and no small model answers.
        terms=_bounds("terms", options.get("terms", default.terms), 2, 32),
        digits=_bounds("digits", options.get("digits", default.digits), 1, len(str(LARGEST_RESULT))),
        operators="".join(operator for operator in VERBS if operator in operators),
    )


def _bounds(name: str, value: Any, lowest: int, highest: int) -> tuple[int, int]:
    pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(type(item) is int for item in value)
    if not pair or not lowest <= value[0] <= value[1] <= highest:
        raise RecipeError(
            f"chain_arithmetic: {name} is {value!r}; give [smallest, largest] between {lowest} and {highest}"
        )
    return value[0], value[1]


def _problems(split: str, knobs: ChainKnobs) -> Iterator[Problem]:
    key = f"chain_arithmetic/{json.dumps(asdict(knobs), sort_keys=True)}/{split}"
    seen: set[str] = set()
    while True:
        index = len(seen)
        for attempt in range(MOST_ATTEMPTS):
            rng = random.Random(f"{key}/{index}/{attempt}")
            chain = _draw(rng, knobs)
            if chain is not None and chain.split == split and chain.content not in seen:
                break
        else:
            raise DataError(
                f"chain_arithmetic: no more than {index} different {split} problems found with terms "
                f"{list(knobs.terms)}, digits {list(knobs.digits)}, operators {knobs.operators!r}. "
                "Widen one of them, or ask for fewer problems"
            )
        seen.add(chain.content)
        solution, result = _solve(chain)
        yield Problem(
            f"chain_arithmetic/{split}/{index}", _wording(rng, chain), str(result), "number", {"solution": solution}
        )


def _draw(rng: random.Random, knobs: ChainKnobs) -> Chain | None:
    """A chain, or None where it ran into a value from which no operator leads on."""
    lengths = range(knobs.digits[0], knobs.digits[1] + 1)
    length = rng.choice(lengths)
    start = value = rng.randrange(10 ** (length - 1), 10**length)
    steps = []
    for _ in range(rng.randint(*knobs.terms) - 1):
        # Operator and number of digits first, each as likely as the others; then a number among those that fit.
        moves = [(op, numbers) for op in knobs.operators for n in lengths if (numbers := _operands(value, op, n))]
        if not moves:
            return None
        operator, numbers = rng.choice(moves)
        number = rng.choice(numbers)
        steps.append((operator, number))
        value = _apply(value, operator, number)
    return Chain(start, tuple(steps))


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
    return " ".join([*lines, f"The answer is {value}."]), value


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
