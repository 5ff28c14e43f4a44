r"""The one grader: filter, evaluation and audit all call `grade`.

Strict: an answer counts only where the text says that it is one, as "the answer is 5", "answer: 5", "#### 5" or
"\boxed{5}". The last number or letter of a text is never taken for its answer: that rule admits rationales whose
conclusion is something else. Rules, in order:

- Every stated answer is read. Two that differ are "conflicting answers", and so is one that is stated and denied
  ("the answer is not 5"). A statement that names no answer ("the answer is <number>") says nothing and is passed over.
- "####", and an answer on the line below its announcement, must fill the line: "#### 2. Add them up" is a heading.
- Behind an answer may stand the end of its sentence, a reason ("because ...") or a remark without a second answer of
  its kind; anything else ("5 or six", "5∕2", "(B)?", "yes, if") makes it no answer, and so does what stands right
  around a box (endings.py). A statement that is supposed or doubted ("if the answer is 5") counts as denied.
- number: of "12 + 3 = 15" the value after the last "=" counts. What is not one plain number, such as "12 + 3",
  "5 or 6", "5 hours 30 minutes", "1,23", "5 dozen", "3rd" or "3x", is no answer, and next to a plain one a conflict.
  Numbers are compared exactly; numerals.py lists how they may be written. Currency signs, a per cent sign, unit words,
  markdown and LaTeX around a number do not matter: $1,234.00 is 1234, 50% is 50, and so not 0.5. Only where a gold
  answer shows all the digits of a double, as 0.8333333333333334 for 5/6, it stands for that fraction, and its decimals
  may be rounded to two places or more: 5/6 and 0.83, not 0.8. Some of AddSub and SingleEq are such.
- choice: a letter, "(B)", "B)", "B." or "b", with nothing behind it or its own option's text, "(B) 6"; or exactly the
  text of one option. "A ball" is no letter, "(A) or (B)" no answer.
- yes_no and letters: the word alone, or before a full stop, a comma or "because"; letters also apart, "n-y-d-a".
- text: the line, or the sentence, in any case, without quotes and markdown around it and without its last stop. Where
  the gold answer has several lines, all up to an empty line.
- math: a number, or a formula in one spelling (formulas.py). Two formulas that differ are for the `verifier` to judge.
- An answer that the text takes back later ("Wait, ...", "I mean ..."), or behind which another one stands alone or is
  concluded ("So it is 6."), is a conflict (retractions.py).

Flexible: the last statement that names an answer, even where others differ; without one, the last number, option, yes
or no, word or line of the text, finished or not (flexible.py). A column to compare with, never what admits training
data.

Paper and paper-v1: the rules of the paper's own evaluator, by task and template (paper_rules.py).

A problem whose metadata name a `scorer` is graded by that: an answer is found as a text is, and the scorer judges it.

Of a text that is longer than any model writes only the end is read. Time grows linearly; texts are searched, never
evaluated.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Literal, get_args

from fcot_lite import flexible, formulas, numerals, readings
from fcot_lite.endings import box_is_alone
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.numerals import Stated
from fcot_lite.numerals import number as number
from fcot_lite.readings import Read, folded
from fcot_lite.records import FinishReason, Problem, Verdict
from fcot_lite.retractions import end_of, is_taken_back

Mode = Literal["strict", "flexible", "paper", "paper-v1"]
MODES: tuple[Mode, ...] = get_args(Mode)
GRADER_VERSION = "6"  # part of every stage's key; raise it with any change of a verdict
MOST_ANSWERS = 50  # only the last 50 statements are read: beyond that a text only repeats itself
LONGEST_READ = 250_000  # characters from the end of a text: twice what 32k tokens are

# Where an answer is stated.
STATED = re.compile(
    # The set of first characters comes first and alone: the engine then skips all others, three times as fast.
    r"""[AaCc\#\\] (?:
        (?i:nswer) (?<![A-Za-z].{6}) (?: (?<=<.{6})> | [*_"]{0,3}+
          (?: \s{1,3}to\s{1,3}th(?:e|is)\s{1,3}(?:question|problem) )?+
          (?: ,?\s(?i:therefore|then|thus|hence|so),? )?+
          (?: \s{1,3}(?i:is|(?:would|must|should)\s{1,3}be|(?<=\s[Aa]nswer\s)=(?=\s))(?!\w)
            (?P<denied>\s{1,3}(?i:not)\b)?+
            | (?P<isnt>\s{1,3}(?i:isn)['’]t\b) | \s{0,3}[:：]
            | (?<=\#\s.{6})(?=\n) ) )
      | orrect \s(?:option|choice|letter) \s{1,3}is\b (?!\s{1,3}(?i:not)\b)
      | \#\#\# (?<=\#{4}) (?P<hashes>\#*+)
      | boxed (?<=\\.{5}) \s{0,3}\{ )""",
    re.VERBOSE,
)
DENIALS = ("denied", "isnt")
# What announces the next statement and is no part of the answer before it: "Paris. So the final answer is Paris".
ANNOUNCES = re.compile(
    r"""(?<![A-Za-z])
        (?: (?i:so|thus|hence|therefore|then|and|the|my|our|final|correct)\b [\s,:*_\#$\\([]{1,4} ){0,6}+ \Z
      | [\s*_\#$\\([<"]{1,8} \Z""",
    re.VERBOSE,
)
LONGEST_ANNOUNCEMENT = 60
# "I doubt that the answer is 5", "Suppose the answer is 5": what a statement depends on stands right before it.
DOUBTS = (
    "if whether unless suppose supposing assume assuming imagine pretend doubt deny say says saying claim claims "
    "claiming guess hope wish unlikely impossible incorrect false wrong untrue unclear unsure maybe perhaps possibly "
    "until case"
)
NOT_SURE = "true correct right sure clear certain likely"
OF_OTHERS = (
    "wrong incorrect false possible another other one first second initial their his her old previous earlier original "
    "tentative"
)
SUPPOSED = re.compile(
    rf"""\b(?: (?i:{DOUBTS.replace(" ", "|")} | not\s(?:{NOT_SURE.replace(" ", "|")}))
        | (?<!I\s)(?<!We\s)(?<!we\s)(?i:think|believe|conclude|expect)
        | (?i:not|n['’]t)\s(?i:think|believe|conclude|expect|say)
        | (?i:might|could|would|may)\s(?i:think|believe|say|conclude|expect) )
      \b,? (?:\sthat)?,? (?:\s(?:the|my|your|our|his|her|their|this|its))?
      (?:\s(?:final|correct|right|real)){{0,2}} \s?\Z
      | \b(?i:{OF_OTHERS.replace(" ", "|")}|(?:student|user|model|teacher|friend)['’]s)\s\Z
      | \b(?i:if)\s(?i:so|not|yes|no|true|correct|(?:this|that|it)\s(?:is|was|were)\b[^,]{{0,25}}),?\s(?:then\s)?
        (?:(?:the|my|our)\s)?(?:(?:final|correct)\s)?\Z""",
    re.VERBOSE,
)
# One of these words is in all that SUPPOSED finds; to look for them first is ten times as fast.
_SUPPOSES = {*f"{DOUBTS} {OF_OTHERS} {NOT_SURE} think believe conclude expect s".split()}
_WORD = re.compile("[a-z]+")
LONGEST_BOX = 1_000  # characters
_BRACES = re.compile(r"\\?[{}]")
Scorer = Callable[[Problem, str], bool]
Verifier = Callable[[str, str], bool | None]  # (target, answer): None where it could not judge
NOT_JUDGED = "not judged: "  # how the reason of a verdict begins that is neither right nor wrong


def grade(
    text: str,
    problem: Problem,
    mode: Mode = "strict",
    template: str | None = None,
    *,
    finish_reason: FinishReason = "stop",
    scorer: Scorer | None = None,
    verifier: Verifier | None = None,
) -> Verdict:
    """Whether `text` states the gold answer of `problem`.

    `reason` is "correct", "wrong", "no answer" or, in strict mode only, "conflicting answers" or "unfinished"; a text
    that was cut off never counts there. "correct" and "wrong" name who judged where that was not the exact comparison:
    "correct (rg:sudoku)", "wrong (math-verify)". "not judged: ..." is a formula that needs the `verifier` where there
    is none or it gave up: neither right nor wrong. The paper's modes need a `template` (see paper_rules.py).

    No text makes it raise. Raises DataError where the gold answer itself is not of its kind, where the problem asks for
    a scorer and there is none, or where the paper has no rule for its task or template; RecipeError for an unknown
    mode.
    """
    if mode == "paper" or mode == "paper-v1":
        return _paper(text, problem, mode, template)
    if mode not in MODES:
        raise RecipeError(f"grading mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
    gold, read = _rules(problem)
    if "scorer" in problem.metadata and scorer is None:
        raise DataError(
            f"problem {problem.id}: only its scorer {problem.metadata['scorer']} can grade it, and none was given"
        )
    if mode == "flexible":
        answer = _last(text, problem, read)
        return _judged(answer, gold, problem, scorer, verifier) if answer else Verdict(False, None, "no answer")
    if finish_reason != "stop":
        return Verdict(False, None, "unfinished")
    last: Stated | None = None
    begins = 0
    denied: list[Fraction | str | None] = []
    differs = False
    for statement, answer in _statements(text, read):
        begins = begins or statement.end()
        if statement.lastgroup in DENIALS or _supposed(text, statement):
            denied.append(answer[0])
        elif last is None and answer[0] is not None:
            last = answer
        elif last is None or answer[0] != last[0]:
            differs = True
            if last is not None:
                break
    if last is None:
        return Verdict(False, None, "no answer")
    if differs or last[0] in denied or is_taken_back(text, begins, last, read):
        return Verdict(False, last[1], "conflicting answers")
    return _judged(last, gold, problem, scorer, verifier)


def answer_start(text: str, problem: Problem) -> int | None:
    """Where the last answer that strict `grade` reads is announced; None where there is none.

    Raises DataError where the gold answer is not of its kind.
    """
    last = next(_statements(text, _rules(problem)[1]), None)
    return last[0].start() if last else None


def answer_end(text: str, problem: Problem) -> int | None:
    """Where the wording of the last answer that strict `grade` reads ends; None where there is none.

    Raises DataError where the gold answer is not of its kind.
    """
    last = next(_statements(text, _rules(problem)[1]), None)
    return min(end_of(text, last[0].end(), last[1]), len(text)) if last else None


def final_sentence(problem: Problem) -> str:
    """The sentence that states the gold answer, as every solved example and every label ends."""
    target = problem.target
    if problem.answer_kind == "choice":
        return f"The answer is ({target})."
    if problem.answer_kind == "yes_no":
        return f"The answer is {target.lower()}."
    if problem.answer_kind == "math" and number(target) is None:
        return f"The answer is ${target}$."
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
    read: Read = numerals.read_number
    if kind == "number":
        meaning = numerals.meant(target)
        gold = number(target) if meaning is None else meaning
        if meaning is not None:
            read = partial(_read_meant, meaning)
    elif kind == "math":
        gold = formulas.value(target)
        read = partial(formulas.read_formula, gold)
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
        what |= {"letters": "letters", "math": "a formula"}
        raise DataError(f"problem {problem.id}: target {target!r} is not {what[kind]}")
    return gold, read


def _read_meant(meaning: Fraction, text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    """As numbers are read; what says the meaning of a computed gold answer has its value."""
    answer = numerals.read_number(text, start, end, must_fill_line)
    return (meaning, answer[1]) if answer and numerals.says(meaning, answer) else answer


def _judged(
    answer: Stated, gold: Fraction | str, problem: Problem, scorer: Scorer | None, verifier: Verifier | None
) -> Verdict:
    value, written = answer
    name = problem.metadata.get("scorer")
    if name is not None and scorer is not None:
        # As written, without the full stop of its sentence, without quotes and markdown around it.
        forms = dict.fromkeys([written, written.removesuffix(".").rstrip(), readings.trimmed(written)])
        correct = any(scorer(problem, form) for form in forms)
        return Verdict(correct, written, f"{'correct' if correct else 'wrong'} ({name})")
    if value is gold or value == gold:  # numbers that are written alike are one object
        return Verdict(True, written, "correct")
    if problem.answer_kind != "math" or (isinstance(value, Fraction) and isinstance(gold, Fraction)):
        return Verdict(False, written, "wrong")
    if verifier is None:
        return Verdict(False, written, f"{NOT_JUDGED}no verifier")
    if formulas.is_prose(written) or formulas.other_name(problem.target, written):
        return Verdict(False, written, f"{NOT_JUDGED}in words")
    judged = verifier(problem.target, written)
    if judged is None:
        return Verdict(False, written, f"{NOT_JUDGED}math-verify")
    return Verdict(judged, written, f"{'correct' if judged else 'wrong'} (math-verify)")


def _paper(text: str, problem: Problem, mode: Literal["paper", "paper-v1"], template: str | None) -> Verdict:
    from fcot_lite import paper_rules

    return paper_rules.verdict(text, problem.id.partition("/")[0], problem.target, template, mode)


def _last(text: str, problem: Problem, read: Read) -> Stated | None:
    """The last statement that names an answer, else the last thing in the text that could be one."""
    for statement, answer in _statements(text, read):
        if answer[0] is not None and statement.lastgroup not in DENIALS:
            return answer
    text = text.rstrip()
    kind = problem.answer_kind
    if kind == "number":
        found = flexible.last_number(text)
        meaning = numerals.meant(problem.target)
        return (meaning, found[1]) if found and meaning is not None and numerals.says(meaning, found) else found
    if kind == "choice":
        return flexible.last_choice(problem.metadata.get("choices", ()), text)
    if kind == "yes_no":
        return flexible.last_yes_no(text)
    if kind == "letters":
        return flexible.last_letters(text)
    if kind == "math":
        return flexible.last_formula(text)
    if kind == "text":
        line = flexible.last_line(text)
        return (folded(line), line) if folded(line) else None
    return None


def _statements(text: str, read: Read) -> Iterator[tuple[re.Match[str], Stated]]:
    """What the text states, from its last statement to the first."""
    end, following = len(text), 0
    for statement in reversed(deque(STATED.finditer(text, max(0, end - LONGEST_READ)), maxlen=MOST_ANSWERS)):
        if end < 0:
            end = _announced(text, following)
        following, start = statement.span()
        closing = text[start - 1]
        if closing == "{":
            end = _box_end(text, start, end)
        elif closing == ">":
            end = max(start, text.find("</", start, end))
        answer = read(text, start, end, statement.lastgroup == "hashes") if end else None
        if answer is not None and closing == "{" and not box_is_alone(text, following, end):
            answer = None, ""
        if answer is not None:
            yield statement, answer
        end = -1


def _box_end(text: str, start: int, end: int) -> int:
    """Where the brace before `start` is closed; 0 where it is not, within LONGEST_BOX characters."""
    depth = 1
    for brace in _BRACES.finditer(text, start, min(end, start + LONGEST_BOX)):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.start()
    return 0


def _supposed(text: str, statement: re.Match[str]) -> bool:
    start = statement.start()
    if text[start] not in "AaCc":
        return False
    before = text[max(0, start - LONGEST_ANNOUNCEMENT) : start]
    sentence = before[max(before.rfind("."), before.rfind("\n")) + 1 :]
    if len(sentence) <= 3 or sentence == " The " or _SUPPOSES.isdisjoint(_WORD.findall(sentence.casefold())):
        return False
    return SUPPOSED.search(sentence) is not None


def _announced(text: str, start: int) -> int:
    announcement = ANNOUNCES.search(text, max(0, start - LONGEST_ANNOUNCEMENT), start)
    return announcement.start() if announcement else start
