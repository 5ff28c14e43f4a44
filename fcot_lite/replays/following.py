"""What the families share: the result of a replay, the notes taken on the way, and words."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from fcot_lite.rationale import Finding
from fcot_lite.records import Problem

MOST_FINDINGS = 50  # beyond that a text only repeats itself
NUMBER_WORDS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
""".split()  # noqa: SIM905 - one quote a word would hide them
ORDINALS = """
    zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
""".split()  # noqa: SIM905
# A stop ends a sentence before white space only: "3.5" and "file.txt" hold none.
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)*]*(?=\s|\Z)|\n")
STATES_THE_ANSWER = re.compile(r"\b(?i:answer)\b")  # that sentence is for answers.grade to judge


@dataclass(frozen=True, slots=True)
class Replay:
    """How far a text could be followed through a problem whose states are known.

    `outcome` is "right" where every step that was read is right and they lead to the answer, "wrong" where one
    contradicts the truth, "not followed" where too little was read. `num_steps` counts the steps of the problem,
    `num_steps_followed` those of them that the text states rightly.
    """

    outcome: Literal["right", "wrong", "not followed"]
    num_steps_followed: int
    num_steps: int
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class Notes:
    """Taken while a text is read: the steps it states rightly, and what is wrong."""

    num_steps: int
    followed: set[int] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, reason: str, start: int, end: int) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding("replay", reason, start, end))

    def replay(self, enough: bool) -> Replay:
        outcome: Literal["right", "wrong", "not followed"] = "right" if enough else "not followed"
        findings = tuple(sorted(self.findings, key=lambda finding: (finding.start, finding.end)))
        return Replay("wrong" if findings else outcome, len(self.followed), self.num_steps, findings)


# A family reads a problem, and gives what follows a text through it; None where it cannot read the problem.
Follow = Callable[[str], Replay]
Reader = Callable[[Problem], Follow | None]


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence or line starts and ends, its stop included."""
    start = 0
    for stop in SENTENCE_END.finditer(text):
        if stop.start() > start:  # no empty lines
            yield start, stop.end()
        start = stop.end()
    if start < len(text):
        yield start, len(text)


def whole_number(word: str) -> int | None:
    """A number in digits or, up to twenty, in words."""
    word = word.lower()
    if word.isascii() and word.isdigit():
        return int(word) if len(word) < 10 else None
    return NUMBER_WORDS.index(word) if word in NUMBER_WORDS else None


def ordinal(word: str) -> int | None:
    """A number as "third" or "3rd"."""
    word = word.lower()
    if word in ORDINALS:
        return ORDINALS.index(word)
    digits = re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)", word)
    return int(digits[1]) if digits else None


def any_of(words: list[str] | tuple[str, ...]) -> str:
    """A pattern for one of `words`, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
