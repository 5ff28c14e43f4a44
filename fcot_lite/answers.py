r"""The one grader: filter, evaluation and audit all call `grade`.

Strict: an answer counts only where the text says that it is one, as "the answer is 5", "answer: 5", "#### 5" or
"\boxed{5}". The last number or letter of a text is never taken for its answer: that rule admits rationales whose
conclusion is something else. Rules, in order:

- Every stated answer is read. Two that differ are "conflicting answers", and so is one that is stated and denied
  ("the answer is not 5"). A statement that names no answer ("the answer is <number>") says nothing and is passed over.
- "####", and an answer on the line below its announcement, must fill the line: "#### 2. Add them up" is a heading.
- number: of "12 + 3 = 15" the value after the last "=" counts. What is not one plain number, such as "12 + 3",
  "5 or 6", "5 hours 30 minutes", "1,23", "5 million" or "1e9", is no answer, and next to a plain one a conflict.
  Numbers are compared exactly. Thousands separators, currency signs, a per cent sign, unit words, markdown and LaTeX
  around a number do not matter: $1,234.00 is 1234, 50% is 50. Fractions are read as 3/4 and \frac{3}{4}.
- choice: a letter, "(B)", "B)", "B." or "b", with nothing behind it or its own option's text, "(B) 6"; or exactly the
  text of one option. "A ball" is no letter, "(A) or (B)" no answer.
- yes_no and letters: the word alone, or before a full stop, a comma or "because"; letters also apart, "n-y-d-a".
- text: the line, or the sentence, in any case, without quotes and markdown around it and without its last stop. Where
  the gold answer has several lines, all up to an empty line.
- math: numbers only so far.

A problem whose metadata name a `scorer` is graded by that: an answer is found as a text is, and the scorer judges it.

Time grows linearly with the text; texts are searched, never evaluated.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Literal

from fcot_lite import readings
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.readings import Read, Stated, folded
from fcot_lite.readings import number as number
from fcot_lite.records import FinishReason, Problem, Verdict

GRADER_VERSION = "2"  # part of every stage's key; raise it with any change of a verdict
MOST_ANSWERS = 50  # only the last 50 statements are read: beyond that a text only repeats itself

# Where an answer is stated.
STATED = re.compile(
    # The set of first characters comes first and alone: the engine then skips all others, three times as fast.
    r"""[Aa\#\\] (?:
        (?i:nswer) (?<![A-Za-z].{6}) [*_]{0,3}+ (?: \s{1,3}to\s{1,3}th(?:e|is)\s{1,3}(?:question|problem) )?+
        (?: \s{1,3}(?i:is)\b (?P<denied>\s{1,3}(?i:not)\b)?+ | (?P<isnt>\s{1,3}(?i:isn)['’]t\b) | \s{0,3}: )
      | \#\#\# (?<=\#{4}) (?P<hashes>\#*+)
      | boxed (?<=\\.{5}) \s{0,3}\{ )""",
    re.VERBOSE,
)
# What announces the next statement and is no part of the answer before it: "Paris. So the final answer is Paris".
ANNOUNCES = re.compile(
    r"""(?<![A-Za-z])
        (?: (?i:so|thus|hence|therefore|then|and|the|my|our|final|correct)\b [\s,:*_\#$\\([]{1,4} ){0,6}+ \Z
      | [\s*_\#$\\([]{1,8} \Z""",
    re.VERBOSE,
)
LONGEST_ANNOUNCEMENT = 60
Scorer = Callable[[Problem, str], bool]


def grade(
    text: str,
    problem: Problem,
    mode: Literal["strict"] = "strict",
    *,
    finish_reason: FinishReason = "stop",
    scorer: Scorer | None = None,
) -> Verdict:
    """Whether `text` states the gold answer of `problem`. `reason` is "correct", "wrong", "no answer",
    "conflicting answers" or "unfinished"; a text that was cut off never counts. "correct" and "wrong" name the scorer
    where one judged: "correct (rg:sudoku)".

    No text makes it raise. Raises DataError where the gold answer itself is not of its kind, or where the problem asks
    for a scorer and there is none; RecipeError for an unknown mode.
    """
    if mode != "strict":
        raise RecipeError(f"grading mode {mode!r} is unknown; there is 'strict'")
    gold, read = _rules(problem)
    name = problem.metadata.get("scorer")
    if name is not None and scorer is None:
        raise DataError(f"problem {problem.id}: only its scorer {name} can grade it, and none was given")
    if finish_reason != "stop":
        return Verdict(False, None, "unfinished")
    answers: list[Stated] = []
    denied: set[Fraction | str | None] = set()
    for statement, answer in _statements(text, read):
        if statement["denied"] or statement["isnt"]:
            denied.add(answer[0])
        else:
            answers.append(answer)
    values = {value for value, _ in answers}
    if not values or values == {None}:
        return Verdict(False, None, "no answer")
    value, written = answers[-1]
    if len(values) > 1 or value in denied:
        return Verdict(False, written, "conflicting answers")
    if name is not None and scorer is not None:
        # As written, without the full stop of its sentence, without quotes and markdown around it.
        forms = dict.fromkeys([written, written.removesuffix(".").rstrip(), readings.trimmed(written)])
        correct = any(scorer(problem, form) for form in forms)
        return Verdict(correct, written, f"{'correct' if correct else 'wrong'} ({name})")
    return Verdict(value == gold, written, "correct" if value == gold else "wrong")


def answer_start(text: str, problem: Problem) -> int | None:
    """Where the last answer that `grade` reads is announced; None where there is none.

    Raises DataError where the gold answer is not of its kind.
    """
    starts = [statement.start() for statement, _ in _statements(text, _rules(problem)[1])]
    return starts[-1] if starts else None


def final_sentence(problem: Problem) -> str:
    """The sentence that states the gold answer, as every solved example and every label ends."""
    target = problem.target
    if problem.answer_kind == "choice":
        return f"The answer is ({target})."
    if problem.answer_kind == "yes_no":
        return f"The answer is {target.lower()}."
    if "\n" in target:
        return f"The answer is:\n{target}"
    # The colon keeps "not guilty" from being a denial of "guilty".
    return f"The answer is{':' if target.lower().startswith('not ') else ''} {target}."


def accepted(finish_reason: FinishReason, verdict: Verdict) -> bool:
    """Whether a sample may teach: it finished by itself and is correct. Budget, curation and audit share this."""
    return finish_reason == "stop" and verdict.correct


def _rules(problem: Problem) -> tuple[Fraction | str, Read]:
    """The gold answer as a value, and what reads an answer of its kind."""
    kind, target = problem.answer_kind, problem.target
    gold: Fraction | str | None = None
    read: Read = readings.read_number
    if kind in ("number", "math"):
        gold = number(target)
    elif kind == "choice":
        choices = problem.metadata.get("choices", ())
        read = partial(readings.read_choice, choices)
        gold = target if len(target) == 1 and "A" <= target < chr(ord("A") + min(26, len(choices))) else None
    elif kind == "yes_no":
        read = readings.read_yes_no
        gold = target.lower() if target.lower() in ("yes", "no") else None
    elif kind == "letters":
        read = readings.read_letters
        gold = target.lower() if re.fullmatch(r"[^\W\d_]+", target) else None
    else:
        gold = folded(target) or None
        read = partial(readings.read_text, target)
    if gold is None:
        what = {"number": "a number", "choice": "the letter of a choice", "yes_no": "yes or no", "text": "a text"}
        what |= {"letters": "letters", "math": "a number; other formulas cannot be graded yet"}
        raise DataError(f"problem {problem.id}: target {target!r} is not {what[kind]}")
    return gold, read


def _statements(text: str, read: Read) -> Iterator[tuple[re.Match[str], Stated]]:
    statements = deque(STATED.finditer(text), maxlen=MOST_ANSWERS)
    ends = [*[_announced(text, statement.start()) for statement in statements][1:], len(text)]
    for statement, end in zip(statements, ends, strict=False):
        answer = read(text, statement.end(), end, statement["hashes"] is not None)
        if answer is not None:
            yield statement, answer


def _announced(text: str, start: int) -> int:
    announcement = ANNOUNCES.search(text, max(0, start - LONGEST_ANNOUNCEMENT), start)
    return announcement.start() if announcement else start
