"""Verdicts on stored samples: read where this grader gave one before, given and stored where it did not.

A verdict's key holds the grader's version, the mode, the kind of answer and the gold answer, so a better grader or a
mended gold answer regrades what is stored by itself, without a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fcot_lite import tasks
from fcot_lite.answers import NOT_JUDGED
from fcot_lite.math_check import MathVerifier
from fcot_lite.prompts import Prompt, whole_text
from fcot_lite.records import Sample, Verdict
from fcot_lite.store import SampleStore, VerdictKey
from fcot_lite.teacher import GIVEN_UP, Question

MODE = "strict"  # the one that admits training data and that accuracies are of


@dataclass(frozen=True, slots=True)
class Judged:
    """`verdicts[i]` are those on the samples of question i. `regraded` of them replace an earlier grader's, which
    `changed` of those contradict."""

    verdicts: list[list[Verdict]]
    new: int
    reused: int
    regraded: int
    changed: int

    def counts(self) -> dict[str, int]:
        """For result.json. `math_verify` counts those that math-verify gave, `not_judged` those that it could not."""
        reasons = [verdict.reason for row in self.verdicts for verdict in row]
        return {
            "new": self.new,
            "reused": self.reused,
            "regraded": self.regraded,
            "changed": self.changed,
            "math_verify": sum(reason.endswith("(math-verify)") for reason in reasons),
            "not_judged": sum(reason.startswith(NOT_JUDGED) for reason in reasons),
        }


def judge(
    store: SampleStore, campaign: str, asked: Sequence[Question], prompt: Prompt, samples: Sequence[Sequence[Sample]]
) -> Judged:
    """The strict verdict on every sample; `samples[i]` answer `asked[i]`. Raises DataError for a gold answer that is
    not of its kind."""
    known = store.read_verdicts(campaign, MODE)
    before = {(key.sample, key.answer_kind, key.target): verdict.correct for key, verdict in known.items()}
    given: dict[VerdictKey, Verdict] = {}
    verdicts: list[list[Verdict]] = []
    new = regraded = changed = 0
    with MathVerifier() as verifier:  # starts a process when first asked
        for question, drawn in zip(asked, samples, strict=True):
            problem = question.problem
            rules = (tasks.grader_version(problem), MODE, problem.answer_kind, problem.target)
            row = []
            for sample in drawn:
                key = VerdictKey(question.key(sample.sample_index), *rules)
                verdict = known.get(key)
                if verdict is None:
                    verdict = tasks.grade(whole_text(prompt, sample), problem, sample.finish_reason, verifier)
                    # What the engine gave up is drawn again, and what could not be judged is asked again.
                    if sample.finish_reason not in GIVEN_UP and not verdict.reason.startswith(NOT_JUDGED):
                        given[key] = verdict
                    new += 1
                    earlier = before.get((key.sample, problem.answer_kind, problem.target))
                    regraded += earlier is not None
                    changed += earlier is not None and earlier != verdict.correct
                row.append(verdict)
            verdicts.append(row)
    if given:
        store.put_verdicts(campaign, given)
    return Judged(verdicts, new, sum(map(len, verdicts)) - new, regraded, changed)
