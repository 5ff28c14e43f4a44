r"""The one grader: filter, evaluation and audit all call `grade`.

Strict: an answer counts only where the text says that it is one, as "the answer is 5", "answer: 5", "#### 5" or
"\boxed{5}". The last number of a text is never taken for its answer: that rule admits rationales whose conclusion
is something else. Rules, in order:

- Every stated answer is read. Two that differ are "conflicting answers", and so is one that is stated and denied
  ("the answer is not 5"). A statement that names no number ("the answer is <number>") says nothing and is passed over.
- Of "12 + 3 = 15" the value after the last "=" counts. What is not one plain number, such as "12 + 3", "5 or 6",
  "5 hours 30 minutes", "1,23", "5 million" or "1e9", is no answer, and next to a plain one a conflict.
- Numbers are compared exactly. Thousands separators, currency signs, a per cent sign, unit words, markdown and LaTeX
  around a number do not matter: $1,234.00 is 1234, 50% is 50. Fractions are read as 3/4 and \frac{3}{4}.
- "####", and an answer on the line below its announcement, must fill the line: "#### 2. Add them up" is a heading.

Time grows linearly with the text; texts are searched, never evaluated.
"""

import re
from collections import deque
from fractions import Fraction
from typing import Literal

from fcot_lite.errors import DataError, RecipeError
from fcot_lite.records import FinishReason, Problem, Verdict

GRADER_VERSION = "1"  # part of every stage's key; raise it with any change of a verdict
MOST_ANSWERS = 50  # only the last 50 statements are read: beyond that a text only repeats itself
MOST_STEPS = 32  # as many terms as the longest generated chain has

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
# What may stand between the statement and its number.
LEAD = re.compile(
    r"""(?: [\s*_`"'“”:=(\[{$€£¥₹₽₩] | \\[(\[,!;$\ ] | \\(?:text|textbf|mathbf|mathrm|bf)\b
          | (?i:therefore|thus|then|hence|so|simply|just|exactly|also|still|indeed|clearly|now|again
                |equal\s{1,3}to|equals|a\s{1,3}total\s{1,3}of)\b [,:]?+
          | (?:USD|EUR|GBP|INR|US)\b | Rs\b\.?+ | [A-Za-z]{1,20}+\s?+=(?!=) ){0,40}+""",
    re.VERBOSE,
)
_COMMA = r"(?:,|\{,\}|\\,)"  # 1,234 and, in LaTeX, 1{,}234 and 1\,234
# At most 1,000 digits: Python itself refuses to convert more than 4,300, and no task has an answer near either.
_WHOLE = rf"(?:[0-9]{{1,3}}+(?:{_COMMA}[0-9]{{3}}){{1,300}}+|[0-9]{{1,1000}}+)"
_NUMBER = rf"(?:{_WHOLE}(?:\.[0-9]{{1,1000}}+)?+|\.[0-9]{{1,1000}}+)(?![0-9])"
VALUE = re.compile(
    rf"""(?P<sign>[-−–+]?+) (?:\\?[$€£¥₹₽₩])?+
         (?: (?P<a>{_NUMBER}) (?: /(?P<b>{_NUMBER}) )?+ | \\[dt]?frac\{{(?P<c>{_NUMBER})\}}\{{(?P<d>{_NUMBER})\}} )""",
    re.VERBOSE,
)
LIKE_A_NUMBER = re.compile(r"[-−–+]?+(?:\\?[$€£¥₹₽₩])?+(?:\.?+[0-9]|\\[dt]?frac)")

_GAP = r"(?:[^\S\n]|[*_`)}$%]|\\[)\]%$]){0,8}"  # closes markdown and LaTeX around a number
_UNITS = r"(?:(?:/[^\S\n]?)?+[A-Za-z°]{1,20}+[^\S\n]{0,3}+){0,3}"
_OPEN = r"(?:[^\S\n]|[*_`({$]|\\[(\[]){0,8}"
# A further term: 12 [+] 3, 12 apples [=] 15 apples.
STEP = re.compile(
    rf"""{_GAP} {_UNITS} {_GAP} (?P<operator> = | [-+−–*×·•÷/^≈~] | \*\* | \\(?:times|div|cdot|approx)\b
         | [xX](?=[\W\d]) | (?:plus|minus|times|over|(?:multiplied|divided)[ ]by)\b )
         {_OPEN} (?={LIKE_A_NUMBER.pattern})""",
    re.VERBOSE,
)
# What makes a number more than one plain number.
GOES_ON = re.compile(
    rf"""[A-Za-z_]{{0,20}}[0-9] | (?:{_COMMA}|[.:'/])[0-9]
      | [kKM]\b | {_GAP} (?i:hundred|thousand|million|billion|trillion)\b
      | {_GAP} {_UNITS} {_GAP} (?:[,;&]|\b(?:or|and|to|less|more|not|no|rather|wait|actually)\b)
        (?:[^\S\n]{{0,3}}(?:[,;]|\b(?:or|no|not|rather|wait|actually|than)\b)){{0,4}}+ {_OPEN}
        (?={LIKE_A_NUMBER.pattern})
      | {_GAP} (?: (?i:feet|foot|ft|hours?|minutes?|days?|weeks?|months?|years?|dollars?|pounds?|meters?|dozen)\b )?+
        [^\S\n]{{1,3}} (?={LIKE_A_NUMBER.pattern})""",
    re.VERBOSE,
)
FILLS_LINE = re.compile(rf"{_GAP}{_UNITS}(?:[^\S\n]|[*_`.)\]}}$%!\"'’”]|\\[)\]])*+(?:\n|\Z)")

Stated = tuple[Fraction | None, str]  # a value, None where it is not one plain number; and the answer as written


def grade(
    text: str,
    problem: Problem,
    mode: Literal["strict"] = "strict",
    *,
    finish_reason: FinishReason = "stop",
) -> Verdict:
    """Whether `text` states the gold answer of `problem`. `reason` is "correct", "wrong", "no answer",
    "conflicting answers" or "unfinished"; a text that was cut off never counts.

    No text makes it raise. Raises DataError where the gold answer itself is not a number, RecipeError for an unknown
    mode.
    """
    if mode != "strict":
        raise RecipeError(f"grading mode {mode!r} is unknown; there is 'strict'")
    gold = number(problem.target)
    if gold is None:
        raise DataError(f"problem {problem.id}: target {problem.target!r} is not a number")
    if finish_reason != "stop":
        return Verdict(False, None, "unfinished")
    answers: list[Stated] = []
    denied: set[Fraction | None] = set()
    statements = deque(STATED.finditer(text), maxlen=MOST_ANSWERS)
    ends = [*[statement.start() for statement in statements][1:], len(text)]
    for statement, end in zip(statements, ends, strict=False):
        answer = _read(text, statement.end(), end, must_fill_line=statement["hashes"] is not None)
        if answer is None:
            continue
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
    return Verdict(value == gold, written, "correct" if value == gold else "wrong")


def answer_start(text: str) -> int | None:
    """Where the last answer that `grade` reads is announced; None where there is none."""
    starts = [
        statement.start()
        for statement in deque(STATED.finditer(text), maxlen=MOST_ANSWERS)
        if _read(text, statement.end(), len(text), must_fill_line=statement["hashes"] is not None) is not None
    ]
    return starts[-1] if starts else None


def accepted(finish_reason: FinishReason, verdict: Verdict) -> bool:
    """Whether a sample may teach: it finished by itself and is correct. Budget, curation and audit share this."""
    return finish_reason == "stop" and verdict.correct


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number and nothing else, else None: "1,080" is 1080."""
    text = text.strip()
    match = VALUE.fullmatch(text)
    return _value(match) if match else None


def _read(text: str, start: int, end: int, *, must_fill_line: bool) -> Stated | None:
    """The answer stated from `start` on, or None where no number follows."""
    lead = LEAD.match(text, start, end)
    position = lead.end() if lead else start
    if not LIKE_A_NUMBER.match(text, position, end):
        return None
    must_fill_line = must_fill_line or "\n" in text[start:position]
    is_expression = False
    for _ in range(MOST_STEPS):
        match = VALUE.match(text, position, end)
        if not match:
            return None, ""
        step = STEP.match(text, match.end(), end)
        if not step:
            break
        is_expression = step["operator"] != "="
        position = step.end()
    else:
        return None, ""
    after = match.end()
    if must_fill_line and not FILLS_LINE.match(text, after, end):
        return None
    if is_expression or text[after : after + 1].isnumeric() or GOES_ON.match(text, after, end):
        return None, ""
    return _value(match), match.group()


def _value(match: re.Match[str]) -> Fraction | None:
    above, below = match["a"] or match["c"], match["b"] or match["d"] or "1"
    numerator, denominator = (Fraction(re.sub(r"[^0-9.]", "", part)) for part in (above, below))
    if denominator == 0:
        return None
    value = numerator / denominator
    return value if match["sign"] in ("", "+") else -value
