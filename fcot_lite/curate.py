"""Samples → training set. Every sample is either kept or dropped for one named reason: kept + dropped = input.

What each reason means, in which order they are asked, and the arms of the paper stand in docs/curation.md.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fcot_lite.answers import accepted, answer_start, final_sentence
from fcot_lite.contamination import NGRAM, Contamination, Overlap, overlaps
from fcot_lite.curate_block import Check, CurateBlock, Select
from fcot_lite.prompts import Prompt, Rendered, completion, completion_ids, prompt_ids, split_answer
from fcot_lite.rationale import arithmetic
from fcot_lite.records import Example, Problem, Sample, Verdict
from fcot_lite.replay import replay
from fcot_lite.selection import balanced, chosen, near_duplicates
from fcot_lite.tasks.splits import permutation

# The beginnings of all reasons, in the order in which they are asked; verdicts add who judged ("wrong (math-verify)").
REASONS = (
    "answer only", "unfinished", "no answer", "conflicting answers", "not judged", "wrong", "no rationale",
    "false arithmetic", "golden: wrong step", "golden: not followed", "over max_length", "question in test",
    f"{NGRAM}-gram in test", "duplicate", "near duplicate", "over max_per_problem", "balance", "size_match",
)  # fmt: skip
_SENTENCE_END = re.compile(r"[.!?][*_)\"'’”]{0,3}\s|[。！？]|\n")


Fault = tuple[str, str | None]  # the reason and what was found


@dataclass(frozen=True, slots=True)
class Dropped:
    """`detail` says what was found: the false equation, the earlier row, the test question."""

    problem_id: str
    sample_index: int | None
    reason: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Curated:
    """`input` counts what came in: the samples and, where the answer alone is learnt, the problems."""

    examples: list[Example]
    dropped: list[Dropped]
    input: int
    contamination: Contamination

    def counts(self) -> dict[str, int]:
        """Dropped by reason, in the order in which the reasons are asked."""
        return dict(sorted(Counter(row.reason for row in self.dropped).items(), key=lambda item: _place(item[0])))


@dataclass(frozen=True, slots=True)
class _Row:
    """`would_pass`: the check that `size_match` names."""

    example: Example
    reasoning: str
    num_tokens: int
    would_pass: bool = True


def curate(
    problems: Sequence[Problem],
    samples: Iterable[Sequence[Sample]],
    verdicts: Iterable[Sequence[Verdict]],
    rendered: Sequence[Rendered],
    tokenizer: Any,
    block: CurateBlock,
    *,
    teacher_prompt: Prompt,
    student_prompt: Prompt,
    test: Sequence[Problem] = (),
    seed: int = 0,
) -> Curated:
    """The training set of the student: what is finished, right, short enough, not in test and not said before.

    `samples[i]` are the samples of problem i, `verdicts[i]` those on them, `rendered[i]` the student's prompt for it.
    The label is the gold answer, the rationale the teacher's. A row over `max_length` tokens is dropped whole: nothing
    is ever truncated. Where the student learns the answer alone, each problem is one row and no sample is used. `seed`
    is that of the draw which `size_match` makes.
    """
    overlap, contamination = overlaps(problems, test)
    answer_only = "{rationale}" not in student_prompt.completion
    dropped: list[Dropped] = []
    questions: list[list[_Row]] = []
    num_input = 0
    for problem, drawn, judged, asked in zip(problems, samples, verdicts, rendered, strict=True):
        num_input += len(drawn) + answer_only
        if answer_only:
            dropped += [Dropped(problem.id, sample.sample_index, "answer only") for sample in drawn]
            teaching: list[tuple[int | None, str]] = [(None, "")]
        else:
            teaching = _teaching(problem, drawn, judged, teacher_prompt, block, dropped)
        room = block.max_length - len(prompt_ids(tokenizer, asked, problem.id))
        prompt = asked if isinstance(asked, str) else tuple(asked)
        in_test = _in_test(overlap.get(problem.id), block)
        rows: list[_Row] = []
        for index, reasoning in teaching:
            said = completion(student_prompt, reasoning, problem.target, final_sentence(problem))
            num_tokens = len(completion_ids(tokenizer, said))
            fault = ("over max_length", f"{num_tokens - room} tokens more") if num_tokens > room else in_test
            if fault is None:
                would_pass = block.size_match is None or reasoning_fault(block.size_match, reasoning, problem) is None
                rows.append(_Row(Example(prompt, said, problem.id, index), reasoning, num_tokens, would_pass))
            else:
                dropped.append(Dropped(problem.id, index, *fault))
        questions.append(rows)
    kept, late = _settled(questions, block)
    if block.size_match is not None:
        size = len(_settled([[row for row in rows if row.would_pass] for rows in questions], block)[0])
        stay = set(permutation(f"size_match/{seed}", len(kept))[:size])
        late += [_dropped(row, "size_match") for place, row in enumerate(kept) if place not in stay]
        kept = [row for place, row in enumerate(kept) if place in stay]
    position = {problem.id: place for place, problem in enumerate(problems)}
    dropped = sorted(
        [*dropped, *late],
        key=lambda row: (position[row.problem_id], -1 if row.sample_index is None else row.sample_index),
    )
    return Curated([row.example for row in kept], dropped, num_input, contamination)


def _teaching(
    problem: Problem,
    drawn: Sequence[Sample],
    judged: Sequence[Verdict],
    prompt: Prompt,
    block: CurateBlock,
    dropped: list[Dropped],
) -> list[tuple[int | None, str]]:
    """The index and the reasoning of each sample that may teach."""
    teaching: list[tuple[int | None, str]] = []
    for sample, verdict in zip(drawn, judged, strict=True):
        reasoning = rationale(prompt, sample, problem)
        if fault := _fault(sample, verdict, reasoning, problem, block):
            dropped.append(Dropped(problem.id, sample.sample_index, *fault))
        else:
            teaching.append((sample.sample_index, reasoning))
    return teaching


def _fault(sample: Sample, verdict: Verdict, reasoning: str, problem: Problem, block: CurateBlock) -> Fault | None:
    """Why a sample may not teach, or None."""
    if sample.finish_reason != "stop":
        return "unfinished", None
    if block.filter == "answer" and not accepted(sample.finish_reason, verdict):
        return verdict.reason, None
    return reasoning_fault(block.check, reasoning, problem) if reasoning else ("no rationale", None)


def reasoning_fault(check: Check, reasoning: str, problem: Problem) -> Fault | None:
    """What the rationale check finds, or None. `golden` lets pass only what could be followed to the answer."""
    if check == "arithmetic" and (findings := arithmetic(reasoning)):
        return "false arithmetic", findings[0].reason
    if check == "golden":
        followed = replay(f"{reasoning}\n{final_sentence(problem)}", problem)
        if followed.outcome == "wrong":
            return "golden: wrong step", followed.findings[0].reason
        if followed.outcome == "not followed":
            return "golden: not followed", f"{followed.num_steps_followed} of {followed.num_steps} steps"
    return None


def _in_test(overlap: Overlap | None, block: CurateBlock) -> Fault | None:
    if overlap is None or (overlap.kind == "ngram" and block.ngram_overlap == "report"):
        return None
    return f"{NGRAM}-gram in test" if overlap.kind == "ngram" else "question in test", overlap.test_problem_id


def _settled(questions: Sequence[Sequence[_Row]], block: CurateBlock) -> tuple[list[_Row], list[Dropped]]:
    """What stays of the rows that may teach, and what does not: said before, over the cap, too many of one question."""
    dropped: list[Dropped] = []
    questions = [_said_once(rows, block.near_duplicates, dropped) for rows in questions]
    if block.max_per_problem is not None:
        cap = block.max_per_problem
        questions = [_capped(rows, cap, block.select, "over max_per_problem", dropped) for rows in questions]
    if block.balance:
        cap = balanced([len(rows) for rows in questions])
        questions = [_capped(rows, cap, block.select, "balance", dropped) for rows in questions]
    return [row for rows in questions for row in rows], dropped


def _said_once(rows: Sequence[_Row], threshold: float | None, dropped: list[Dropped]) -> list[_Row]:
    first: dict[str, _Row] = {}
    for row in rows:
        earlier = first.setdefault(row.example.completion, row)
        if earlier is not row:
            dropped.append(_dropped(row, "duplicate", f"of sample {earlier.example.sample_index}"))
    distinct = list(first.values())
    if threshold is None:
        return distinct
    repeats = near_duplicates([row.reasoning for row in distinct], threshold)
    for place, earlier_place in repeats.items():
        earlier = distinct[earlier_place]
        dropped.append(_dropped(distinct[place], "near duplicate", f"of sample {earlier.example.sample_index}"))
    return [row for place, row in enumerate(distinct) if place not in repeats]


def _capped(rows: Sequence[_Row], cap: int, by: Select, reason: str, dropped: list[Dropped]) -> list[_Row]:
    stay = chosen([row.reasoning for row in rows], [row.num_tokens for row in rows], cap, by)
    dropped += [_dropped(row, reason) for place, row in enumerate(rows) if place not in stay]
    return [row for place, row in enumerate(rows) if place in stay]


def _dropped(row: _Row, reason: str, detail: str | None = None) -> Dropped:
    return Dropped(row.example.problem_id, row.example.sample_index, reason, detail)


def _place(reason: str) -> int:
    return next((place for place, start in enumerate(REASONS) if reason.startswith(start)), len(REASONS))


def rationale(prompt: Prompt, sample: Sample, problem: Problem) -> str:
    """The reasoning of a sample that was drawn with `prompt`, without its final answer: what stands before the sentence
    in which the grader reads it. The label states the answer, and once is enough."""
    text, _ = split_answer(prompt, sample)
    start = answer_start(text, problem)
    if start is None:
        return text.strip()
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, start)]
    return text[: ends[-1] if ends else 0].strip()
