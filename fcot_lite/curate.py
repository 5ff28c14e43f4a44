"""Samples → training set. Every sample is either kept or dropped for one named reason: kept + dropped = input."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fcot_lite.answers import accepted, answer_start, grade
from fcot_lite.prompts import Message, completion_ids, prompt_ids
from fcot_lite.recipe import CurateBlock
from fcot_lite.records import Example, Problem, Sample

_SENTENCE_END = re.compile(r"[.!?][*_)\"'’”]{0,3}\s|\n")


@dataclass(frozen=True, slots=True)
class Dropped:
    problem_id: str
    sample_index: int
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
    samples: Sequence[Sequence[Sample]],
    chats: Sequence[Sequence[Message]],
    tokenizer: Any,
    block: CurateBlock,
) -> Curated:
    """The training set of the student: what is finished, right, short enough and not said before.

    `samples[i]` are the samples of problem i, `chats[i]` the student's prompt for it. The label is the gold answer,
    the rationale the teacher's. A row over `max_length` tokens is dropped whole: nothing is ever truncated.
    """
    examples, dropped = [], []
    for problem, drawn, chat in zip(problems, samples, chats, strict=True):
        prompt_length = len(prompt_ids(tokenizer, chat, problem.id))
        seen: set[str] = set()
        for sample in drawn:
            verdict = grade(sample.text, problem, "strict", finish_reason=sample.finish_reason)
            reasoning = rationale(sample.text)
            completion = f"{reasoning}\nThe answer is {problem.target}."
            reason = None
            if not accepted(sample.finish_reason, verdict):
                reason = verdict.reason
            elif not reasoning:
                reason = "no rationale"
            elif prompt_length + len(completion_ids(tokenizer, completion)) > block.max_length:
                reason = "over max_length"
            elif completion in seen:
                reason = "duplicate"
            elif block.max_per_problem is not None and len(seen) == block.max_per_problem:
                reason = "over max_per_problem"
            if reason:
                dropped.append(Dropped(problem.id, sample.sample_index, reason))
            else:
                seen.add(completion)
                examples.append(Example(tuple(chat), completion, problem.id, sample.sample_index))
    return Curated(examples, dropped)


def rationale(text: str) -> str:
    """The reasoning without the final answer: what stands before the sentence in which the grader read it."""
    start = answer_start(text)
    if start is None:
        return text.strip()
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, start)]
    return text[: ends[-1] if ends else 0].strip()
