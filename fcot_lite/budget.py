"""How many samples a question gets: policies, which of them to ask for next, and what a policy would have cost.

A policy looks at one question's samples in the order of their indices and says after each whether that is enough. It
sees nothing but the prefix: a decision on whichever samples finished first would favour short rationales. So one pure
`done(drawn, accepted)` is the whole policy, and the live run, its replay on recorded samples and the exact expectation
over all orders of them share it.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, PositiveInt

from fcot_lite.task_block import Block

# Jeffreys' prior Beta(1/2, 1/2) on a question's pass rate: most questions are nearly always or nearly never solved.
# Jeffreys 1946, Proc. R. Soc. A 186, 453.
PRIOR = 0.5


class Fixed(Block):
    """The paper's D: n samples of every question, whatever comes."""

    n: PositiveInt

    @property
    def max(self) -> int:
        return self.n

    def done(self, drawn: int, accepted: int) -> bool:
        return drawn >= self.n

    def expected_left(self, drawn: int, accepted: int) -> float:
        return max(0, self.n - drawn)

    def __str__(self) -> str:
        return f"n = {self.n}"


class Until(Block):
    """Samples until `accept` of a question's are accepted, `max` at most.

    `give_up` ends a question once one more accepted sample within what is left is less likely than that, by the Beta
    posterior of its pass rate. `allocation` is DART-Math's (arXiv 2407.13690): "uniform" wants `accept` of every
    question, "proportional" as many as its difficulty says, that is, `accept` times the posterior mean of its failure
    rate, and one at least.
    """

    accept: PositiveInt
    max: PositiveInt
    give_up: Annotated[float, Field(gt=0, lt=1)] | None = None
    allocation: Literal["uniform", "proportional"] = "uniform"

    def target(self, drawn: int, accepted: int) -> int:
        """How many accepted samples the question is to have, by what is known of it."""
        if self.allocation == "uniform":
            return self.accept
        return max(1, math.ceil(self.accept * (1 - pass_rate(drawn, accepted))))

    def done(self, drawn: int, accepted: int) -> bool:
        if drawn >= self.max or accepted >= self.target(drawn, accepted):
            return True
        return self.give_up is not None and one_more(drawn, accepted, self.max - drawn) < self.give_up

    def expected_left(self, drawn: int, accepted: int) -> float:
        """How many more samples the question will take, in expectation over the posterior of its pass rate."""
        return 0.0 if self.done(drawn, accepted) else _expected_left(self)[drawn, accepted]

    def __str__(self) -> str:
        more = [f", give_up {self.give_up:g}"] if self.give_up is not None else []
        more += [", proportional"] if self.allocation == "proportional" else []
        return f"until {self.accept} accepted of {self.max}{''.join(more)}"


Policy = Fixed | Until


def pass_rate(drawn: int, accepted: int) -> float:
    """The mean of the Beta posterior of a question's pass rate: also the chance that its next sample is accepted."""
    return (accepted + PRIOR) / (drawn + 2 * PRIOR)


def one_more(drawn: int, accepted: int, left: int) -> float:
    """The chance of at least one accepted sample among the next `left`: the Beta-binomial distribution."""
    failures = drawn - accepted + PRIOR
    none = math.lgamma(failures + left) - math.lgamma(failures)
    none += math.lgamma(drawn + 2 * PRIOR) - math.lgamma(drawn + 2 * PRIOR + left)
    return -math.expm1(none)


@cache
def _expected_left(policy: Until) -> dict[tuple[int, int], float]:
    left: dict[tuple[int, int], float] = {}
    for drawn in range(policy.max - 1, -1, -1):
        for accepted in range(min(drawn, policy.accept - 1) + 1):
            if not policy.done(drawn, accepted):
                p = pass_rate(drawn, accepted)
                after = left.get((drawn + 1, accepted + 1), 0.0), left.get((drawn + 1, accepted), 0.0)
                left[drawn, accepted] = 1 + p * after[0] + (1 - p) * after[1]
    return left


@cache
def least_left(policy: Policy, drawn: int, accepted: int) -> int:
    """How many more samples the question takes whatever they turn out to be. It stops earliest if all of them are
    accepted, or none is."""
    left = 0
    while not (policy.done(drawn + left, accepted + left) or policy.done(drawn + left, accepted)):
        left += 1
    return left


# ---- which sample next -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Question:
    known: dict[int, bool]  # samples that are there, from the end of the prefix on: were they accepted?
    drawn: int = 0
    accepted: int = 0
    asked: int = 0  # every index below is known, queued or in flight
    in_flight: set[int] = field(default_factory=set)


# Samples that may prove needless, by those that were drawn. Without that bound 50 questions, 128 of which fit at once,
# take 1.48 times the tokens of the replay with `accept: 1`; with it 1.03. For 300 with `accept: 4` it is 1.01 anyway.
SPARE = 0.1


class Schedule:
    """Which samples to ask for, over all questions at once. `known[i]` are the samples of question i that are there.

    What a question takes whatever comes is queued, in rounds over all questions. Only where the engine would be left
    with fewer than max_num_seqs to work on, more is asked for: as many as the questions are expected to take, as long
    as no more than SPARE of what was drawn can come to nothing.
    """

    def __init__(self, policy: Policy, known: Iterable[Mapping[int, bool]]) -> None:
        self._policy = policy
        self._questions = [_Question(dict(samples)) for samples in known]
        self._open = set(range(len(self._questions)))
        self._queue: deque[tuple[int, int]] = deque()
        self._left = [0.0] * len(self._questions)
        self._expected_left = 0.0
        self._behind_gaps = sum(len(question.known) for question in self._questions)
        self._drawn = self._dropped = 0
        self.in_flight = 0
        for number in range(len(self._questions)):
            self._advance(number)
        self._dropped = 0  # what others left behind a question's end was not asked for here

    @property
    def prefixes(self) -> list[int]:
        """For each question, how many samples the policy has looked at: those with the indices below that."""
        return [question.drawn for question in self._questions]

    def is_open(self, number: int | None = None) -> bool:
        """Whether the question, or any at all, takes another sample."""
        return bool(self._open) if number is None else number in self._open

    def num_expected(self) -> int:
        """How many more samples all questions are expected to take."""
        return max(0, round(self._expected_left) - self._behind_gaps)

    def take(self, max_num_seqs: int, window: int) -> list[tuple[int, int]]:
        """(question, index) of the samples to ask for now; no more than `window` are in flight then."""
        taken: list[tuple[int, int]] = []
        while self._queue and self.in_flight + len(taken) < window:
            taken.append(self._queue.popleft())
        for number, index in taken:
            self._questions[number].in_flight.add(index)
        self.in_flight += len(taken)
        if not self._queue and self.in_flight < max_num_seqs:
            taken += self._take_expected(min(max_num_seqs - self.in_flight, self._spare()))
        return taken

    def record(self, number: int, index: int, accepted: bool) -> list[int]:
        """Takes a finished sample in. Where the question is done with it, returns its indices still in flight, which
        nobody waits for now."""
        question = self._questions[number]
        if index in question.in_flight:  # else it finished in the same moment as the one that ended the question
            question.in_flight.remove(index)
            self.in_flight -= 1
        if number not in self._open:
            return []
        question.known[index] = accepted
        self._behind_gaps += 1
        return self._advance(number)

    def _take_expected(self, slots: int) -> list[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        while slots > 0:
            # The questions with most to come first, one sample each, then again.
            ahead = {number: self._ahead(number) for number in self._open}
            round_ = sorted((number for number, more in ahead.items() if more > 0), key=lambda n: -ahead[n])[:slots]
            if not round_:
                break
            for number in round_:
                question = self._questions[number]
                if question.asked not in question.known:
                    taken.append((number, question.asked))
                    question.in_flight.add(question.asked)
                    self.in_flight += 1
                    slots -= 1
                question.asked += 1
        return taken

    def _spare(self) -> int:
        """How many more may be asked for that are not sure to be needed."""
        ahead = (question.asked - self._sure(question) for question in map(self._questions.__getitem__, self._open))
        return int(SPARE * self._drawn) - self._dropped - sum(more for more in ahead if more > 0)

    def _sure(self, question: _Question) -> int:
        """The question takes every sample with an index below."""
        return question.drawn + least_left(self._policy, question.drawn, question.accepted)

    def _ahead(self, number: int) -> float:
        """How many samples more than were asked for the question is expected to take."""
        return self._questions[number].drawn + self._left[number] - self._questions[number].asked

    def _advance(self, number: int) -> list[int]:
        policy, question = self._policy, self._questions[number]
        while question.drawn in question.known and not policy.done(question.drawn, question.accepted):
            question.accepted += question.known.pop(question.drawn)
            question.drawn += 1
            self._behind_gaps -= 1
            self._drawn += 1
        left = policy.expected_left(question.drawn, question.accepted)
        self._expected_left += left - self._left[number]
        self._left[number] = left
        if policy.done(question.drawn, question.accepted):
            self._open.discard(number)
            dropped = sorted(question.in_flight)
            self.in_flight -= len(dropped)
            question.in_flight.clear()
            self._dropped += len(dropped) + len(question.known)
            self._behind_gaps -= len(question.known)
            question.known.clear()
            return dropped
        needed = self._sure(question)
        for index in range(max(question.asked, question.drawn), needed):
            if index not in question.known:
                self._queue.append((number, index))
        question.asked = max(question.asked, needed)
        return []


# ---- what a policy would have cost -------------------------------------------------------------------------------

Recorded = Sequence[tuple[int, bool]]  # one question's samples by index: (num_tokens, accepted)


class Cost(NamedTuple):
    """Of a policy on a pool. `useful` counts the accepted, of each question no more than a given number; `covered` are
    the questions with at least one."""

    num_samples: float
    num_tokens: float
    useful: float
    covered: float

    def __add__(self, other: object) -> "Cost":
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


def prefix(policy: Policy, accepted: Sequence[bool]) -> int:
    """How many of one question's samples the policy draws. Raises ValueError where it wants more than there are."""
    right = 0
    for drawn in range(len(accepted) + 1):
        if policy.done(drawn, right):
            return drawn
        if drawn < len(accepted):
            right += accepted[drawn]
    raise ValueError(f"{len(accepted)} samples of a question are recorded, which is too few for {policy}")


def replay(policy: Policy, pool: Iterable[Recorded], at_most: int) -> Cost:
    """What the policy draws from the pool, in the order of the indices; `useful` counts `at_most` a question."""
    total = Cost(0, 0, 0, 0)
    for samples in pool:
        used = samples[: prefix(policy, [accepted for _, accepted in samples])]
        right = sum(accepted for _, accepted in used)
        total += Cost(len(used), sum(tokens for tokens, _ in used), min(right, at_most), min(right, 1))
    return total


def expectation(policy: Policy, pool: Iterable[Recorded], at_most: int) -> Cost:
    """The mean of `replay` over all orders of every question's samples, exactly: they are drawn without replacement.

    Given how many were accepted so far, the next is accepted with the share of accepted among those that remain, and
    which of them it is tells nothing: so its expected length is the mean of its kind.
    """
    total = Cost(0, 0, 0, 0)
    for samples in pool:
        total += _expectation(policy, samples, at_most)
    return total


def _expectation(policy: Policy, samples: Recorded, at_most: int) -> Cost:
    lengths = {kind: [tokens for tokens, accepted in samples if accepted == kind] for kind in (True, False)}
    drawn_of = {True: 0.0, False: 0.0}
    useful = covered = 0.0
    reached = {0: 1.0}  # chance of being there with so many accepted
    for drawn in range(len(samples) + 1):
        after: dict[int, float] = {}
        for accepted, chance in reached.items():
            if policy.done(drawn, accepted):
                useful += chance * min(accepted, at_most)
                covered += chance * min(accepted, 1)
                continue
            if drawn == len(samples):
                raise ValueError(f"{drawn} samples of a question are recorded, which is too few for {policy}")
            right = (len(lengths[True]) - accepted) / (len(samples) - drawn)
            for kind, share in ((True, right), (False, 1 - right)):
                if share:
                    drawn_of[kind] += chance * share
                    after[accepted + kind] = after.get(accepted + kind, 0.0) + chance * share
        reached = after
    num_tokens = sum(drawn_of[kind] * sum(tokens) / len(tokens) for kind, tokens in lengths.items() if tokens)
    return Cost(sum(drawn_of.values()), num_tokens, useful, covered)
