"""Budgets: a policy sees the prefix only, its replay is its expectation, and the live run costs little more."""

import itertools
import random
import statistics
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fcot_lite.budget import (
    Cost,
    Fixed,
    Policy,
    Recorded,
    Schedule,
    Until,
    expectation,
    least_left,
    one_more,
    pass_rate,
    prefix,
    replay,
)

POLICIES: list[Policy] = [
    Fixed(n=1),
    Fixed(n=8),
    Fixed(n=16),
    Until(accept=1, max=16),
    Until(accept=4, max=16),
    Until(accept=16, max=16),
    Until(accept=4, max=8, give_up=0.3),
    Until(accept=4, max=16, give_up=0.1),
    Until(accept=8, max=16, allocation="proportional"),
    Until(accept=4, max=16, give_up=0.2, allocation="proportional"),
]
UNTIL = [policy for policy in POLICIES if isinstance(policy, Until)]
IDS = [str(policy) for policy in POLICIES]


def recorded(questions: int, seed: int = 0, n: int = 16) -> list[Recorded]:
    """Questions that are mostly hard or easy, and right rationales that are shorter than wrong ones."""
    generator = random.Random(seed)
    pool = []
    for _ in range(questions):
        rate = generator.betavariate(0.6, 0.6)
        right = [generator.random() < rate for _ in range(n)]
        pool.append([(max(5, min(256, int(generator.lognormvariate(4.2 if r else 4.7, 0.5)))), r) for r in right])
    return pool


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    most = draw(st.integers(1, 12))
    if draw(st.booleans()):
        return Fixed(n=most)
    return Until(
        accept=draw(st.integers(1, most)),
        max=most,
        give_up=draw(st.sampled_from([None, 0.05, 0.2, 0.5, 0.9])),
        allocation=draw(st.sampled_from(["uniform", "proportional"])),
    )


# ---- policies


def test_when_a_question_is_done() -> None:
    assert [Fixed(n=3).done(drawn, drawn) for drawn in range(5)] == [False, False, False, True, True]
    four = Until(accept=4, max=6)
    assert not four.done(5, 3)
    assert four.done(4, 4)
    assert four.done(6, 0)


def test_a_hopeless_question_is_given_up_sooner_than_one_that_was_right_once() -> None:
    policy = Until(accept=4, max=16, give_up=0.1)
    given_up = next(drawn for drawn in range(17) if policy.done(drawn, 0))
    assert given_up == 13  # 1 - sqrt(13.5 / 16.5) = 0.095; at 12 it is 0.13
    assert next(drawn for drawn in range(17) if policy.done(drawn, 1)) == 15  # the last one: 1.5 / 16 = 0.094
    assert prefix(policy, [False] * 16) == 13
    assert prefix(Until(accept=4, max=16), [False] * 16) == 16


def test_the_chance_of_one_more_is_the_beta_binomials() -> None:
    def exact(drawn: int, accepted: int, left: int) -> Fraction:
        none = Fraction(1)
        for i in range(left):  # one after the other: none of them is accepted
            none *= (drawn + i - accepted + Fraction(1, 2)) / (drawn + i + 1)
        return 1 - none

    for drawn, accepted, left in itertools.product(range(0, 20, 3), range(0, 20, 4), range(0, 17, 4)):
        if accepted <= drawn:
            assert one_more(drawn, accepted, left) == pytest.approx(float(exact(drawn, accepted, left)), abs=1e-12)
    assert one_more(5, 2, 1) == pytest.approx(pass_rate(5, 2))


def test_proportional_wants_more_of_harder_questions() -> None:
    policy = Until(accept=8, max=100, allocation="proportional")
    wanted = []
    for rate in (0.1, 0.3, 0.6, 0.9, 1.0):
        generator = random.Random(f"{rate}")
        runs = [[generator.random() < rate for _ in range(100)] for _ in range(200)]
        wanted.append(statistics.mean(sum(flags[: prefix(policy, flags)]) for flags in runs))
    assert wanted == sorted(wanted, reverse=True)
    assert wanted[0] > 5  # of 8
    assert 1 <= wanted[-1] <= 2
    assert policy.target(1000, 0) == 8
    assert policy.target(1000, 1000) == 1


@pytest.mark.parametrize("fields", [{"accept": 0, "max": 3}, {"accept": 1, "max": 3, "give_up": 1.0}, {"accept": 1}])
def test_what_is_no_policy(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Until.model_validate(fields)


@settings(max_examples=60, deadline=None)
@given(policies(), st.lists(st.booleans(), min_size=12, max_size=12))
def test_what_is_left_bounds_what_comes(policy: Policy, flags: list[bool]) -> None:
    end = prefix(policy, flags)
    for drawn in range(end):
        left = end - drawn
        assert 1 <= least_left(policy, drawn, sum(flags[:drawn])) <= left
        assert least_left(policy, drawn, sum(flags[:drawn])) <= policy.expected_left(drawn, sum(flags[:drawn])) + 1e-9
        assert policy.expected_left(drawn, sum(flags[:drawn])) <= policy.max - drawn
    assert policy.expected_left(end, sum(flags[:end])) == 0


@settings(max_examples=30, deadline=None)
@given(policies().filter(lambda policy: policy.max <= 8))
def test_the_least_that_is_left_is_attained(policy: Policy) -> None:
    ends = {flags: prefix(policy, flags) for flags in itertools.product((True, False), repeat=policy.max)}
    for drawn in range(policy.max):
        for head in {flags[:drawn] for flags in ends}:
            left = min(end - drawn for flags, end in ends.items() if flags[:drawn] == head)
            if left > 0:
                assert least_left(policy, drawn, sum(head)) == left


# ---- replay and expectation


@settings(max_examples=40, deadline=None)
@given(policies(), st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=6, max_size=6))
def test_the_expectation_is_the_mean_over_all_orders(policy: Policy, samples: list[tuple[int, bool]]) -> None:
    if policy.max > len(samples):
        return
    costs = [replay(policy, [order], at_most=2) for order in itertools.permutations(samples)]
    mean = [statistics.fmean(figures) for figures in zip(*costs, strict=True)]
    assert list(expectation(policy, [samples], at_most=2)) == pytest.approx(mean)


@pytest.mark.parametrize("policy", POLICIES, ids=IDS)
def test_replay_over_random_orders_agrees_with_the_exact_expectation(policy: Policy) -> None:
    pool, generator = recorded(60), random.Random("orders")
    costs = []
    for _ in range(400):
        costs.append(replay(policy, [generator.sample(list(samples), len(samples)) for samples in pool], at_most=4))
    exact = expectation(policy, pool, at_most=4)
    for figures, expected in zip(zip(*costs, strict=True), exact, strict=True):
        error = statistics.stdev(figures) / len(costs) ** 0.5
        assert abs(statistics.fmean(figures) - expected) <= 4 * error + 1e-6  # 4 errors: once in 16,000


def test_the_negative_hypergeometric_mean() -> None:
    """The k-th of `right` accepted ones among 16 comes after k (16 + 1) / (right + 1) draws on average."""
    for right, accept in [(4, 4), (8, 4), (16, 4), (5, 1)]:
        samples = [(1, i < right) for i in range(16)]
        mean = expectation(Until(accept=accept, max=16), [samples], at_most=accept).num_samples
        assert mean == pytest.approx(accept * 17 / (right + 1))


@pytest.mark.parametrize(("accept", "most"), [(1, 8), (2, 8), (4, 16), (8, 16)])
def test_an_early_stop_brings_as_many_useful_rationales_as_a_fixed_number(accept: int, most: int) -> None:
    pool = recorded(200)
    early, fixed = Until(accept=accept, max=most), Fixed(n=most)
    one, other = replay(early, pool, accept), replay(fixed, pool, accept)
    assert (one.useful, one.covered) == (other.useful, other.covered)
    assert one.num_tokens < other.num_tokens
    assert one.useful == sum(min(accept, sum(right for _, right in samples[:most])) for samples in pool)
    # In every order, so in expectation too.
    exact = expectation(early, pool, accept)
    assert (exact.useful, exact.covered) == pytest.approx(expectation(fixed, pool, accept)[2:])


def test_giving_up_trades_useful_rationales_for_tokens() -> None:
    pool = recorded(200)
    costs = [expectation(Until(accept=4, max=16, give_up=g), pool, 4) for g in (None, 0.05, 0.1, 0.2, 0.4)]
    for one, next_ in itertools.pairwise(costs):
        assert next_.num_tokens <= one.num_tokens
        assert next_.useful <= one.useful
    assert costs[-1].num_tokens < 0.9 * costs[0].num_tokens
    assert costs[-1].useful < costs[0].useful


def test_a_pool_that_is_too_small_is_refused() -> None:
    samples = [(1, False)] * 15
    for count in (replay, expectation):
        with pytest.raises(ValueError, match="15 samples of a question are recorded, which is too few for until 4"):
            count(Until(accept=4, max=16), [samples], 4)
        assert count(Until(accept=4, max=15), [samples], 4).num_samples == 15


# ---- the live run


class Machine:
    """Gives every sample that runs a token a step, `max_num_seqs` at a time, first come first served."""

    def __init__(self, policy: Policy, pool: Sequence[Recorded], max_num_seqs: int) -> None:
        self.schedule = Schedule(policy, [{} for _ in pool])
        self.pool, self.max_num_seqs = pool, max_num_seqs
        self.generated: dict[tuple[int, int], int] = {}
        self.num_tokens = self.starved = 0

    def run(self) -> int:
        """The tokens that it took, those of cancelled samples included."""
        window = 4 * self.max_num_seqs
        while True:
            self.generated |= dict.fromkeys(self.schedule.take(self.max_num_seqs, window), 0)
            assert len(self.generated) == self.schedule.in_flight <= window
            if not self.generated:
                return self.num_tokens
            needed = self.schedule.num_expected()
            if self.schedule._spare() > 0:  # else more may come to nothing than the run can afford
                self.starved += len(self.generated) < min(self.max_num_seqs, needed)
            running = list(self.generated)[: self.max_num_seqs]
            self.num_tokens += len(running)
            for key in running:
                self.generated[key] += 1
            finished = [(n, i) for n, i in running if self.generated[n, i] == self.pool[n][i][0]]
            for key in finished:
                del self.generated[key]
            for number, index in finished:
                for dropped in self.schedule.record(number, index, self.pool[number][index][1]):
                    self.generated.pop((number, dropped), None)


@pytest.mark.parametrize("policy", UNTIL, ids=[str(policy) for policy in UNTIL])
@pytest.mark.parametrize(("questions", "max_num_seqs"), [(20, 128), (150, 128), (300, 64)])
def test_a_live_run_costs_at_most_a_tenth_more_than_its_replay(
    policy: Until, questions: int, max_num_seqs: int
) -> None:
    """Measured over 105 runs, the smallest of 20 questions with room for 128: 1.00 to 1.06, median 1.01."""
    pool = recorded(questions, seed=1)
    machine = Machine(policy, pool, max_num_seqs)
    live, least = machine.run(), replay(policy, pool, 4).num_tokens
    assert least <= live <= 1.10 * least
    assert machine.schedule.prefixes == [prefix(policy, [right for _, right in samples]) for samples in pool]


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(1, 30), st.integers(1, 20), st.integers(0, 5))
def test_the_engine_never_starves_and_decisions_do_not_depend_on_lengths(
    policy: Policy, questions: int, max_num_seqs: int, seed: int
) -> None:
    pool = recorded(questions, seed, n=12)
    machine = Machine(policy, pool, max_num_seqs)
    live = machine.run()
    # What is needed is told by index: some of the samples that count as needed may be finished behind a gap.
    assert machine.starved == 0
    assert machine.schedule.prefixes == [prefix(policy, [right for _, right in samples]) for samples in pool]
    if isinstance(policy, Fixed):
        assert live == replay(policy, pool, 1).num_tokens


@settings(max_examples=60, deadline=None)
@given(policies(), st.data())
def test_a_schedule_that_starts_with_some_samples_asks_for_none_of_them(policy: Policy, data: st.DataObject) -> None:
    flags = data.draw(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=4))
    there = [data.draw(st.sets(st.integers(0, policy.max - 1))) for _ in flags]
    schedule = Schedule(policy, [{i: row[i] for i in own} for row, own in zip(flags, there, strict=True)])
    while taken := schedule.take(3, 12):
        for number, index in taken:
            assert index not in there[number]
            there[number].add(index)
        # Newest first: the order in which they finish.
        for number, index in reversed(taken):
            schedule.record(number, index, flags[number][index])
    assert schedule.prefixes == [prefix(policy, row) for row in flags]
    assert not schedule.is_open()
    assert schedule.num_expected() == schedule.in_flight == 0


def test_the_engine_is_full_until_the_last_questions() -> None:
    policy, pool = Until(accept=4, max=16), recorded(300)
    machine = Machine(policy, pool, 64)
    steps = 0
    take = machine.schedule.take

    def counted(max_num_seqs: int, window: int) -> list[tuple[int, int]]:
        nonlocal steps
        steps += 1
        return take(max_num_seqs, window)

    machine.schedule.take = counted  # type: ignore[method-assign]
    num_tokens = machine.run()
    assert num_tokens > 0.9 * 64 * steps


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3, 4) + Cost(1, 1, 1, 1) == Cost(2, 3, 4, 5)
