r"""The paper's own verdicts: which answer its evaluator takes from a completion, its quirks included.

For comparing with published numbers, never for admitting training data: the rules find answers that nobody stated.

"paper" is the evaluator at the head of github.com/itsnamgyu/reasoning-teacher (commit a2ca4d2,
src/evaluation/evaluator.py). A template has a prefix or none. Without one, the first candidate of the text is its
answer; with one, the first candidate behind the first place where it stands; and where it is missing, the last
candidate of the text. What counts as a candidate depends on the task alone:

- choices: any capital letter that an option may have, within words too: "Colds" is a C, "I Bet" is a B.
- numbers: what \d+(?:\.\d+)? finds, with a minus sign directly before it, after every comma is gone: "1,2" is 12,
  "3-4" is 3 and -4, ".5" is 5, "1/2" is 1 and 2. Digits of any alphabet are digits.
- yes or no: in lower case, the words between white space and any of " ' . : , so that "(yes)" and "no!" are none.
- letters: all of the text is the one candidate, without white space and " ' . and in its case. It is there even where
  it is empty.

Three tasks (addsub, svamp, single_eq) compare floats, to 1e-6; all others compare texts: gsm8k's "18.00" is not "18".
Thousands commas of the gold answer go, the gold answer of strategy_qa is put in lower case, that of coin_flip is not.
Whether a completion was cut off does not matter.

"paper-v1" is the rule behind the published numbers (commit 5a5104a, data/evaluation.py and data/finetune.py). Its
candidates are the same ("A|B|C" for "[ABC]" finds the same letters), and so are its prefixes but one: the teacher's
completions, template zs_cot, were filtered by the template of the student, whose "-->" no teacher writes. So of a
teacher's completion the last candidate counts, and the first only behind a "-->".

Left out: the evaluator takes any name that is a part of "tracking_shuffled_objects" for that task, by accident.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fcot_lite.errors import DataError
from fcot_lite.records import Verdict

Version = Literal["paper", "paper-v1"]

# The evaluator's prefix of each of its prediction templates. "ft" is the paper's own name for what the code calls
# ft_token; the label of ft_cot_natural says "Therefore the answer is", so that its prefix is never found.
PREFIXES: dict[str, str | None] = {
    "zs": None,
    "ft": None,
    "ft_token": None,
    "ft_natural": None,
    "zs_cot": None,
    "fs_cot": "The answer is",
    "ft_cot_token": "-->",
    "ft_cot_natural": "Therefore, the answer is",
}
PREFIXES_V1 = PREFIXES | {"zs_cot": "-->"}
TEMPLATES = tuple(PREFIXES)
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Rule:
    """How the answers of a task are found in `prepared(text)`, and how its gold answers are `read`.

    `candidate` finds them from the left. `tail` finds in the reversed text a piece of which `last_of` is the last one:
    1 MB of numbers need not be listed for its last.
    """

    candidate: re.Pattern[str]
    tail: re.Pattern[str]
    last_of: Callable[[str], str] = str
    prepared: Callable[[str], str] = str
    gold: Callable[[str], str] = str
    is_float: bool = False

    def first(self, text: str) -> str | None:
        found = self.candidate.search(self.prepared(text))
        return found.group() if found else None

    def last(self, text: str) -> str | None:
        found = self.tail.search(self.prepared(text)[::-1])
        return self.last_of(found.group()[::-1]) if found else None


def _last_number(run: str) -> str:
    """Of digits with points between them, read in pairs from the left: 1.2.3 is 1.2 and 3, 1.2.3.4 is 1.2 and 3.4."""
    parts = run.rsplit(".", 2)
    return ".".join(parts[-2:]) if run.count(".") % 2 else parts[-1]


def _without_commas(text: str) -> str:
    return text.replace(",", "")


def _without_quotes_stops_and_space(text: str) -> str:
    # split alone takes five times as long
    return "".join(text.replace(" ", "").replace("\n", "").split()).replace('"', "").replace("'", "").replace(".", "")


def _choice(letters: str) -> Rule:
    pattern = re.compile(f"[{letters}]")
    return Rule(pattern, pattern)


def _number(is_float: bool) -> Rule:
    candidate = re.compile(r"[-\d]\d*(?<=\d)(?:\.\d+)?")  # -?\d+(?:\.\d+)?, found faster
    return Rule(candidate, re.compile(r"\d+(?:\.\d+)*+-?"), _last_number, _without_commas, _without_commas, is_float)


def _yes_no(gold: Callable[[str], str]) -> Rule:
    no_end = r"""[^\s"'.:,]"""
    candidate = re.compile(f"[yn](?<!{no_end}[yn])(?:(?<=y)es|(?<=n)o)(?!{no_end})")
    tail = re.compile(f"[so](?<!{no_end}[so])(?:(?<=s)ey|(?<=o)n)(?!{no_end})")
    return Rule(candidate, tail, prepared=str.lower, gold=gold)


ALL_OF_IT = re.compile(r"\A.*\Z", re.DOTALL)
RULES: dict[str, Rule] = {
    "single_eq": _number(is_float=True),
    "addsub": _number(is_float=True),
    "multiarith": _number(is_float=False),
    "gsm8k": _number(is_float=False),
    "aqua": _choice("ABCDE"),
    "svamp": _number(is_float=True),
    "date_understanding": _choice("ABCDEF"),
    "tracking_shuffled_objects": _choice("ABC"),
    "last_letter_concatenation": Rule(ALL_OF_IT, ALL_OF_IT, prepared=_without_quotes_stops_and_space),
    "coin_flip": _yes_no(gold=str),
    "commonsense_qa": _choice("ABCDE"),
    "strategy_qa": _yes_no(gold=str.lower),
}


def verdict(text: str, task: str, target: str, template: str | None, version: Version) -> Verdict:
    """The paper's verdict on a completion of `task`, which one of its templates drew. `extracted` is the answer as the
    evaluator has it: of the three tasks that compare floats as Python prints the float, "7092.0" of "7,092".

    No text makes it raise. Raises DataError for a task or template that the paper does not have, and where the gold
    answer of a task that compares floats is none.
    """
    if task not in RULES:
        raise DataError(f"{task}: the paper has no rules for it; it has for {', '.join(RULES)}")
    if template not in PREFIXES:
        what = "needs the template" if template is None else f"does not know the template {template!r}"
        raise DataError(f"grading mode {version} {what} that drew the text; one of {', '.join(TEMPLATES)}")
    rule, prefix = RULES[task], (PREFIXES if version == "paper" else PREFIXES_V1)[template]
    gold = rule.gold(target)
    gold_value = _gold_float(gold, target) if rule.is_float else math.nan
    if prefix is None:
        found = rule.first(text)
    else:
        _, prefix_found, behind = text.partition(prefix)
        found = rule.first(behind) if prefix_found else rule.last(text)
    if found is None:
        return Verdict(False, None, "no answer")
    if rule.is_float:
        value = float(found)  # inf for what is too large; no gold answer is that near
        found, correct = str(value), abs(value - gold_value) <= TOLERANCE
    else:
        correct = found == gold
    return Verdict(correct, found, "correct" if correct else "wrong")


def _gold_float(gold: str, target: str) -> float:
    try:
        value = float(gold)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"target {target!r} is not a number")
    return value
