"""What the coverage-guided fuzz (fuzz_answers.py) found worth keeping, replayed: no text makes a grading mode, a check
or a replay raise, and what they say agrees.

An input is 5 bytes that choose the problem, the mode and how the text ended, and the text, in front of which a NUL may
set off a target of its own.
"""

import base64
import json
from pathlib import Path
from typing import NamedTuple

from fcot_lite import answers, rationale, replay, tasks
from fcot_lite.errors import DataError
from fcot_lite.paper_rules import RULES, TEMPLATES
from fcot_lite.records import FinishReason, Problem, Verdict

CORPUS = Path(__file__).parent / "data" / "fuzz_corpus.jsonl"
FINISH_REASONS: tuple[FinishReason, ...] = ("stop", "stop", "stop", "length")


class Case(NamedTuple):
    problem: Problem
    text: str
    mode: answers.Mode
    template: str
    finish_reason: FinishReason
    judged: bool | None  # what the stand-in for math-verify says


def problems() -> list[Problem]:
    """Hand-made ones of every kind, and one of every generated task, whose questions the replays read."""
    made = [
        Problem("gsm8k/test/0", "How many?", "5"),
        Problem("svamp/test/0", "How many?", "1234.5"),
        Problem("own/test/0", "How many?", "-3/4"),
        Problem("aqua/test/0", "Which?", "B", "choice", {"choices": ["5", "7", "5 or 7", "A", ""]}),
        Problem(
            "commonsense_qa/test/0", "Which?", "C", "choice", {"choices": ["a ball", "no", "ball", "the red ball"]}
        ),
        Problem("strategy_qa/test/0", "Is it?", "Yes", "yes_no"),
        Problem("coin_flip/test/0", "Is it?", "no", "yes_no"),
        Problem("last_letter_concatenation/test/0", "Which letters?", "nyda", "letters"),
        Problem("own/test/1", "What?", "St. Louis, not Paris", "text"),
        Problem("own/test/2", "What?", "3\n2 4\n\n1", "text"),
        Problem("own/test/3", "What?", r"\frac{\sqrt{3}}{2}", "math"),
        Problem("own/test/4", "What?", r"\left( 3, \frac{\pi}{2} \right)", "math"),
        Problem("own/test/5", "What?", "5", "math"),
    ]
    names = [name for name, task in tasks.TASKS.items() if task.data is None]
    return made + [problem for name in names for problem in tasks.load(name, "train", limit=2)]


PROBLEMS = problems()


def case(data: bytes) -> Case:
    """The case that an input stands for: every input stands for one."""
    which, mode, template, finish_reason, judged = data[:5].ljust(5, b"\0")
    text = data[5:].decode("utf-8", "surrogateescape")
    problem = PROBLEMS[which % len(PROBLEMS)]
    if which >= 128:
        target, separator, rest = text.partition("\0")
        if separator:
            text = rest
            problem = Problem(problem.id, problem.question, target, problem.answer_kind, problem.metadata)
    return Case(
        problem,
        text,
        answers.MODES[mode % len(answers.MODES)],
        TEMPLATES[template % len(TEMPLATES)],
        FINISH_REASONS[finish_reason % len(FINISH_REASONS)],
        (True, False, None)[judged % 3],
    )


def check(case: Case) -> None:
    """Raises where something raises that must not, or says what cannot be."""
    problem, text = case.problem, case.text

    def grade(text: str, mode: answers.Mode, finish_reason: FinishReason = "stop") -> Verdict | None:
        """None where the gold answer is none, or the paper has no such task."""
        try:
            return answers.grade(
                text,
                problem,
                mode,
                case.template,
                finish_reason=finish_reason,
                verifier=lambda gold, given: case.judged,
            )
        except DataError:
            return None

    verdict = grade(text, case.mode, case.finish_reason)
    # A DataError is about the problem: no text brings it about.
    assert (verdict is None) == (grade("", case.mode) is None)
    if verdict is not None:
        assert verdict.correct == verdict.reason.startswith("correct")
        assert (verdict.extracted is None) == (verdict.reason in ("no answer", "unfinished"))
    if problem.id.partition("/")[0] not in RULES:
        assert case.mode not in ("paper", "paper-v1") or verdict is None
    strict = grade(text, "strict")
    if strict is None:
        return
    assert strict.extracted is None or strict.extracted in text
    if strict.correct:
        flexible = grade(text, "flexible")
        assert flexible is not None
        assert flexible.correct
    start = answers.answer_start(text, problem)
    assert start is None or 0 <= start < len(text)

    followed = replay.replay(text, problem)
    assert 0 <= followed.num_steps_followed <= followed.num_steps
    assert followed.outcome != "wrong" or followed.findings
    findings = [
        *rationale.arithmetic(text),
        *rationale.contradiction(text, problem),
        *rationale.repetition(text),
        *rationale.language(text),
        *followed.findings,
    ]
    for finding in findings:
        assert 0 <= finding.start < finding.end <= len(text), finding


def kept() -> list[bytes]:
    """The inputs that are replayed."""
    return [base64.b64decode(json.loads(line)) for line in CORPUS.read_text(encoding="ascii").splitlines()]


def test_every_kept_input():
    inputs = kept()
    assert len(inputs) > 100
    for data in inputs:
        try:
            check(case(data))
        except Exception as error:
            error.add_note(f"the input: {data!r}")
            raise


def test_the_kept_inputs_meet_every_mode_and_every_kind_of_answer():
    cases = [case(data) for data in kept()]
    assert {case.mode for case in cases} == set(answers.MODES)
    assert {case.problem.answer_kind for case in cases} == {"number", "choice", "yes_no", "letters", "text", "math"}
