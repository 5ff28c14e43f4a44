"""Samples → training set. Every sample is either kept or dropped for one named reason: kept + dropped = input."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fcot_lite.answers import accepted, answer_start, final_sentence
from fcot_lite.prompts import Prompt, Rendered, completion, completion_ids, prompt_ids, split_answer
from fcot_lite.recipe import CurateBlock
from fcot_lite.records import Example, Problem, Sample, Verdict

_SENTENCE_END = re.compile(r"[.!?][*_)\"'’”]{0,3}\s|\n")


@dataclass(frozen=True, slots=True)
class Dropped:
    problem_id: str
    sample_index: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Curated:
    examples: list[Example]
    dropped: list[Dropped]

    def counts(self) -> dict[str, int]:
        """Dropped samples by reason."""
        return dict(Counter(row.reason for row in self.dropped))


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
) -> Curated:
    """The training set of the student: what is finished, right, short enough and not said before.

    `samples[i]` are the samples of problem i, `verdicts[i]` those on them, `rendered[i]` the student's prompt for it.
    The label is the gold answer, the rationale the teacher's. A row over `max_length` tokens is dropped whole: nothing
    is ever truncated. Where the student learns the answer alone, each problem is one row and no sample is used.
    """
    examples: list[Example] = []
    dropped: list[Dropped] = []
    for problem, drawn, judged, asked in zip(problems, samples, verdicts, rendered, strict=True):
        room = block.max_length - len(prompt_ids(tokenizer, asked, problem.id))
        prompt = asked if isinstance(asked, str) else tuple(asked)

        def said(rationale: str, problem: Problem = problem) -> str:
            return completion(student_prompt, rationale, problem.target, final_sentence(problem))

        if "{rationale}" not in student_prompt.completion:
            dropped += [Dropped(problem.id, sample.sample_index, "answer only") for sample in drawn]
            if len(completion_ids(tokenizer, said(""))) > room:
                dropped.append(Dropped(problem.id, None, "over max_length"))
            else:
                examples.append(Example(prompt, said(""), problem.id, None))
            continue
        seen: set[str] = set()
        for sample, verdict in zip(drawn, judged, strict=True):
            reasoning = rationale(teacher_prompt, sample, problem)
            reason = None
            if not accepted(sample.finish_reason, verdict):
                reason = verdict.reason
            elif not reasoning:
                reason = "no rationale"
            elif len(completion_ids(tokenizer, said(reasoning))) > room:
                reason = "over max_length"
            elif said(reasoning) in seen:
                reason = "duplicate"
            elif block.max_per_problem is not None and len(seen) == block.max_per_problem:
                reason = "over max_per_problem"
            if reason:
                dropped.append(Dropped(problem.id, sample.sample_index, reason))
            else:
                seen.add(said(reasoning))
                examples.append(Example(prompt, said(reasoning), problem.id, sample.sample_index))
    return Curated(examples, dropped)


def rationale(prompt: Prompt, sample: Sample, problem: Problem) -> str:
    """The reasoning of a sample that was drawn with `prompt`, without its final answer: what stands before the sentence
    in which the grader reads it. The label states the answer, and once is enough."""
    text, _ = split_answer(prompt, sample)
    start = answer_start(text, problem)
    if start is None:
        return text.strip()
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, start)]
    return text[: ends[-1] if ends else 0].strip()
