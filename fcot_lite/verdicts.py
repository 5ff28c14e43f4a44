"""Verdicts on stored samples: read where this grader gave one before, given and stored where it did not.

A verdict's key holds the grader's version, the mode, the kind of answer and the gold answer with its choices, so a
better grader or a mended gold answer regrades what is stored by itself, without a token.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fcot_lite import tasks
from fcot_lite.answers import NOT_JUDGED
from fcot_lite.files import sha256_json
from fcot_lite.math_check import MathVerifier
from fcot_lite.prompts import Prompt, whole_text
from fcot_lite.records import Problem, Sample, Verdict
from fcot_lite.store import SampleStore, VerdictKey, prompt_hash
from fcot_lite.teacher import GIVEN_UP, Question

MODE = "strict"  # the one that admits training data and that accuracies are of
BATCH = 1000  # verdicts to a commit: each waits for the disk, and what a kill loses is graded again in a second


# What grading reads of a problem besides its gold answer: choices, and the item that its own scorer draws again.
ALSO_READ = ("choices", "scorer", "source_dataset", "options", "item")


def _gold(problem: Problem) -> str:
    """The gold answer as the key has it: B of other choices is another one."""
    read = {name: problem.metadata[name] for name in ALSO_READ if name in problem.metadata}
    return f"{problem.target} [{sha256_json(read)[:8]}]" if "choices" in read or "scorer" in read else problem.target


class Judge:
    """Gives the strict verdicts on one campaign's samples, a question at a time; counts what it did.

    Of the verdicts `regraded` replace an earlier grader's, which `changed` of those contradict; `math_verify` are those
    that math-verify gave, `not_judged` those that it could not. Made by `judging`.
    """

    def __init__(self, store: SampleStore, campaign: str, prompt: Prompt, verifier: MathVerifier) -> None:
        self._store, self._campaign, self._prompt, self._verifier = store, campaign, prompt, verifier
        self._given: dict[VerdictKey, Verdict] = {}
        names = ("new", "reused", "regraded", "changed", "math_verify", "not_judged")
        self.counts = dict.fromkeys(names, 0)  # for result.json

    def verdicts(self, question: Question, samples: Sequence[Sample]) -> list[Verdict]:
        """The verdict on each of the question's samples. Raises DataError for a gold answer that is not of its kind."""
        problem = question.problem
        prompt = prompt_hash(question.prompt_token_ids)
        known = self._store.verdicts(self._campaign, problem.id, prompt, MODE)
        before = {(key.sample, key.answer_kind, key.target): verdict.correct for key, verdict in known.items()}
        gold = _gold(problem)
        rules = (tasks.grader_version(problem), MODE, problem.answer_kind, gold)
        row = []
        for sample in samples:
            key = VerdictKey(question.key(sample.sample_index), *rules)
            verdict = known.get(key) or self._given.get(key)
            if verdict is None:
                verdict = tasks.grade(whole_text(self._prompt, sample), problem, sample.finish_reason, self._verifier)
                # What the engine gave up is drawn again, and what could not be judged is asked again.
                if sample.finish_reason not in GIVEN_UP and not verdict.reason.startswith(NOT_JUDGED):
                    self._given[key] = verdict
                earlier = before.get((key.sample, problem.answer_kind, gold))
                self.counts["new"] += 1
                self.counts["regraded"] += earlier is not None
                self.counts["changed"] += earlier is not None and earlier != verdict.correct
            else:
                self.counts["reused"] += 1
            self.counts["math_verify"] += verdict.reason.endswith("(math-verify)")
            self.counts["not_judged"] += verdict.reason.startswith(NOT_JUDGED)
            row.append(verdict)
        if len(self._given) >= BATCH:
            self.flush()
        return row

    def flush(self) -> None:
        """Stores what was given since the last time."""
        if self._given:
            self._store.put_verdicts(self._campaign, self._given)
            self._given = {}


@contextmanager
def judging(store: SampleStore, campaign: str, prompt: Prompt) -> Iterator[Judge]:
    """A judge whose verdicts are all stored at the end, also where that is an interrupt."""
    with MathVerifier() as verifier:  # starts a process when first asked
        judge = Judge(store, campaign, prompt, verifier)
        try:
            yield judge
        finally:
            judge.flush()


@dataclass(frozen=True, slots=True)
class Judged:
    """`verdicts[i]` are those on the samples of question i; `counts` are the judge's."""

    verdicts: list[list[Verdict]]
    counts: dict[str, int]


def judge(
    store: SampleStore, campaign: str, asked: Sequence[Question], prompt: Prompt, samples: Iterable[Sequence[Sample]]
) -> Judged:
    """The strict verdict on every sample, in memory; `samples[i]` answer `asked[i]`."""
    with judging(store, campaign, prompt) as a_judge:
        pairs = zip(asked, samples, strict=True)
        return Judged([a_judge.verdicts(question, drawn) for question, drawn in pairs], a_judge.counts)
