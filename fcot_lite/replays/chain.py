"""The running value of a chain of operations.

Each equation is compared with the next operation on the value reached so far. An equation that is no step of the chain
may be help ("72 * 10 = 720" on the way to 72 * 11); it counts as wrong where the text never comes back to the chain and
ends on another value.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from fcot_lite.records import Problem
from fcot_lite.replays.following import STATES_THE_ANSWER, Follow, Notes, Replay, sentences

QUESTIONS = (
    re.compile(r"Start with (?P<start>\d+)\. (?P<steps>.*) What is the result\?"),
    re.compile(r"Take the number (?P<start>\d+), then (?P<steps>.*)\. What number do you get\?"),
    re.compile(r"What do you get if you begin with (?P<start>\d+) and, one after the other, (?P<steps>.*)\?"),
    re.compile(
        r"Mia writes down (?P<start>\d+)\. Working from left to right, she has to (?P<steps>.*)\. "
        r"Which number does she end with\?"
    ),
)
STEP = re.compile(r"(?:, then |, |\. |\A)(?P<verb>add|subtract|multiply by|divide by) (?P<number>\d+)", re.I)
OPERATORS = {"add": "+", "subtract": "-", "multiply by": "*", "divide by": "/"}
SIGNS = {"−": "-", "–": "-", "×": "*", "x": "*", "·": "*", "÷": "/", "\\times": "*", "\\div": "/"}
SIGNS |= {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/"}
SIGN = r"\+|-|−|–|\*|×|x|·|/|÷|\\times|\\div|plus|minus|times|multiplied by|divided by"
NUMBER = r"[-−]?\d{1,12}(?:,\d{3}){0,4}(?:\.\d{1,6})?"
G = r"[\s*_$\\()]{0,6}"  # what may stand between the parts: blanks, markdown, LaTeX, brackets
END = rf"(?!\d)(?!{G}(?:{SIGN}){G}\d)"  # else it would be the beginning of a number or a sum
EQUATION = re.compile(
    rf"(?<![\w.,+/×÷])(?<![+/×÷] )(?P<left>{NUMBER}(?:{G}(?:{SIGN}){G}{NUMBER}){{1,40}}+){G}"
    rf"(?:=|\bis(?: equal to)?\b|\bequals\b|\bgives\b|\bmakes\b|→|->){G}(?P<right>{NUMBER}){END}"
)
FIRST = re.compile(NUMBER)
PART = re.compile(rf"{G}(?P<sign>{SIGN}){G}(?P<number>{NUMBER})")
# "adding 90 to 63, which is 66", "the sum of 69 and 87 is 56"
PUT = re.compile(
    rf"\b(?:(?P<verb>add(?:s|ing|ed)?|subtract(?:s|ing|ed)?) (?P<number>{NUMBER}) (?:to|from)"
    rf"|sum of (?P<of>{NUMBER}) and) (?P<first>{NUMBER})(?![\d.,]*\d),? ?(?:you |we |she |to )?"
    rf"(?:which (?:is|gives|results in|equals)|is|gives|results in|get|equals|:|=){G}(?P<right>{NUMBER}){END}",
    re.I,
)
IT = r"(?:it|that|this|the result)"
SPOKEN = re.compile(
    rf"\b(?P<verb>add|adding|subtract|subtracting|multiply(?:ing)?(?: {IT})? by|divid(?:e|ing)(?: {IT})? by)"
    rf"{G}(?P<number>{NUMBER})(?![\d.,]*\d)(?:\s?(?:to|from) {IT})?[,:]?\s{{0,2}}"
    r"(?:(?:and |to |we |you |she |which |this |it |now |has |the |new |value |result |number |total ){0,6}"
    rf"(?:get|gets|gives?|is|have|makes?|equals|results? in)|=|:|→|->){G}(?P<right>{NUMBER}){END}",
    re.I,
)
START = re.compile(
    rf"\b(?:starts?|starting|begins?|beginning) (?:with|from|at)(?: the number)?{G}(?P<number>{NUMBER})(?!\d)", re.I
)
RESULT = re.compile(rf"\b(?:final )?(?:result|number|value) is(?: now)?{G}(?P<number>{NUMBER})(?!\d)", re.I)


MOST_STRAYS = 100


@dataclass(frozen=True, slots=True)
class Chain:
    """`values` are those before, between and after the steps."""

    steps: tuple[tuple[str, Fraction], ...]
    values: tuple[Fraction, ...]


def read(problem: Problem) -> Follow | None:
    asked = next((match for q in QUESTIONS if (match := q.fullmatch(problem.question.strip()))), None)
    if asked is None:
        return None
    steps = [(OPERATORS[s["verb"].lower()], Fraction(s["number"])) for s in STEP.finditer(asked["steps"])]
    values = [Fraction(asked["start"])]
    for operator, number in steps:
        if operator == "/" and number == 0:
            return None
        values.append(_applied(values[-1], operator, number))
    if not steps or str(values[-1]) != problem.target:
        return None
    chain = Chain(tuple(steps), tuple(values))
    return lambda text: Reading(text, chain).follow()


def _applied(value: Fraction, operator: str, number: Fraction) -> Fraction:
    if operator == "+":
        return value + number
    if operator == "-":
        return value - number
    return value * number if operator == "*" else value / number


class Reading:
    """One text being read: `num_done` steps, and the value the text has reached, which is not the true one behind a
    wrong result."""

    def __init__(self, text: str, chain: Chain) -> None:
        self.text, self.chain = text, chain
        self.notes = Notes(len(chain.steps))
        self.num_done, self.value = 0, chain.values[0]
        self.strays: list[tuple[str, int, int]] = []  # equations that hold and are no step

    def follow(self) -> Replay:
        chain, last = self.chain, self.chain.values[0]
        for start, end in sentences(self.text):
            if STATES_THE_ANSWER.search(self.text, start, end):
                continue
            found = [match for form in (EQUATION, SPOKEN, PUT) for match in form.finditer(self.text, start, end)]
            for match in sorted(found, key=lambda match: match.start()):
                last = self._equation(match)
            for match in START.finditer(self.text, start, end):
                if _number(match["number"]) not in chain.values[: self.num_done + 1]:
                    reason = f"the chain starts with {chain.values[0]}, the text says {match['number']}"
                    self.notes.wrong(reason, *match.span())
            for match in RESULT.finditer(self.text, start, end):
                number = _number(match["number"])
                if not found and self.num_done < len(chain.steps) and number == self._true_next():
                    self.notes.followed.add(self.num_done)  # "After multiplying 72 by 11, the value is 792"
                    self.num_done, self.value, last = self.num_done + 1, number, number
                elif not found and number not in (chain.values[-1], self.value):
                    reason = f"the value is {self.value}, the text says {match['number']}"
                    self.notes.wrong(reason, *match.span())
        if self.strays and last != chain.values[-1]:
            expected = "the chain is done" if self.num_done == len(chain.steps) else f"the next step is {self._next()}"
            written, start, end = self.strays[0]
            self.notes.wrong(f"{expected}, the text computes {written}", start, end)
        return self.notes.replay(len(self.notes.followed) == len(chain.steps))

    def _next(self) -> str:
        operator, number = self.chain.steps[self.num_done]
        return f"{self.value} {operator} {number}"

    def _equation(self, match: re.Match[str]) -> Fraction:
        """The value that the equation arrives at."""
        stated = _number(match["right"])
        first, parts = _terms(match)
        if self._step(match, first, parts, stated):
            return stated
        if first is not None:
            value = _evaluated(first, parts)
            if value != stated:
                sum_ = _written(first, parts)
                is_ = "nothing" if value is None else value
                self.notes.wrong(f"{sum_} is {is_}, the text says {match['right']}", *match.span())
                return stated
        if stated == self.value or stated in self.chain.values:
            self.strays.clear()  # back on the chain
            if self.num_done < len(self.chain.steps) and stated == self._true_next():
                self.notes.followed.add(self.num_done)
                self.num_done, self.value = self.num_done + 1, stated
        elif len(self.strays) < MOST_STRAYS:
            self.strays.append((match[0], match.start(), match.end()))
        return stated

    def _true_next(self) -> Fraction:
        return _applied(self.value, *self.chain.steps[self.num_done])

    def _step(
        self, match: re.Match[str], first: Fraction | None, parts: list[tuple[str, Fraction]], stated: Fraction
    ) -> bool:
        """Whether the equation is the next step or steps, or repeats one that was done; its result is compared."""
        chain = self.chain
        for done, value in ((self.num_done, self.value), *((i, chain.values[i]) for i in range(len(chain.steps)))):
            behind = done + len(parts)
            if behind > len(chain.steps):
                continue
            steps = list(chain.steps[done:behind])
            same = parts == steps and first in (None, value)
            turned = (
                len(parts) == 1 and parts[0][0] in "+*" and (first, parts[0]) == (steps[0][1], (steps[0][0], value))
            )
            if not same and not turned:
                continue
            result = value
            for operator, number in steps:
                result = _applied(result, operator, number)
            if stated == result:
                self.notes.followed.update(range(done, behind))
            else:
                reason = f"{_written(value, steps)} is {result}, the text says {match['right']}"
                self.notes.wrong(reason, *match.span())
            self.num_done, self.value = behind, stated
            self.strays.clear()
            return True
        return False


def _number(written: str) -> Fraction:
    return Fraction(written.replace(",", "").replace("−", "-"))


def _terms(match: re.Match[str]) -> tuple[Fraction | None, list[tuple[str, Fraction]]]:
    """What an equation starts with, None where it is the value reached, and what it applies to that."""
    if match.re is EQUATION:
        first = FIRST.match(match["left"])
        parts = PART.finditer(match["left"], first.end() if first else 0)
        terms = [(SIGNS.get(part["sign"], part["sign"]), _number(part["number"])) for part in parts]
        return _number(first[0]) if first else None, terms
    operator = next(sign for verb, sign in OPERATORS.items() if (match["verb"] or "add").lower()[:3] == verb[:3])
    if match.re is PUT:
        return _number(match["first"]), [(operator, _number(match["number"] or match["of"]))]
    return None, [(operator, _number(match["number"]))]


def _written(first: Fraction, parts: list[tuple[str, Fraction]]) -> str:
    return f"{first} " + " ".join(f"{operator} {number}" for operator, number in parts)


def _evaluated(first: Fraction, parts: list[tuple[str, Fraction]]) -> Fraction | None:
    """Multiplication and division first; None for a division by zero."""
    terms = [first]
    for operator, number in parts:
        if operator in "*/":
            if operator == "/" and number == 0:
                return None
            terms[-1] = _applied(terms[-1], operator, number)
        else:
            terms.append(number if operator == "+" else -number)
    return sum(terms, Fraction(0))
