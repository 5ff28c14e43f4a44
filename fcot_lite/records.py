"""What flows between the stages. Plain frozen values; no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

AnswerKind = Literal["number", "choice", "yes_no", "letters", "text", "math"]
# vLLM's own words, and "unknown" for what was imported without one.
FinishReason = Literal["stop", "length", "abort", "error", "repetition", "unknown"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and its gold answer. `id` is unique within a task and names the split it came from."""

    id: str
    question: str
    target: str
    answer_kind: AnswerKind = "number"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of one problem. `answer_text` is the paper's second call, where a teacher makes one."""

    problem_id: str
    sample_index: int
    text: str
    answer_text: str | None
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is "correct" or names why not; `extracted` is the answer that was found, as it was written."""

    correct: bool
    extracted: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Example:
    """A training row: the student's prompt as messages of a chat or text, the completion it learns, and where that came
    from. `sample_index` is None where no sample was needed, because the answer alone is learnt."""

    prompt: tuple[Mapping[str, str], ...] | str
    completion: str
    problem_id: str
    sample_index: int | None
