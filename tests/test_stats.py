import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_lite.stats import clustered_wilson, paired_difference, wilson

pairs = st.integers(0, 12).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # R: prop.test(correct, n, correct = FALSE)
    [(8, 10, 0.4901625, 0.9433178), (0, 10, 0, 0.2775328), (10, 10, 0.7224672, 1), (1, 1, 0.2065493, 1),
     (50, 100, 0.4038315, 0.5961685)],
)  # fmt: skip
def test_wilson_matches_the_reference(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=1e-6)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == (0, 1)
    assert clustered_wilson([]) == (0, 1)
    assert clustered_wilson([(0, 0)]) == (0, 1)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (1, 0), (0, -1)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="correct of"):
        wilson(correct, n)
    with pytest.raises(ValueError, match="correct of"):
        clustered_wilson([(1, 2), (correct, n)])


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_proportion_and_narrows_with_less_confidence(counts: tuple[int, int]) -> None:
    correct, n = counts
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    narrow_low, narrow_high = wilson(correct, n, 0.5)
    assert low <= narrow_low
    assert narrow_high <= high
    assert (1 - high, 1 - low) == pytest.approx(wilson(n - correct, n))


@given(st.lists(pairs, min_size=1))
def test_clustering_never_makes_an_interval_narrower(counts: list[tuple[int, int]]) -> None:
    low, high = clustered_wilson(counts)
    plain_low, plain_high = wilson(sum(c for c, _ in counts), sum(n for _, n in counts))
    assert 0 <= low <= plain_low + 1e-12
    assert plain_high - 1e-12 <= high <= 1
    assert low < high


def test_samples_that_repeat_their_problem_count_once() -> None:
    problems = [(1, 1), (0, 1)] * 10
    repeated = [(8 * correct, 8) for correct, _ in problems]
    low, high = clustered_wilson(repeated)
    assert (low, high) == pytest.approx(wilson(10, 20), abs=0.01)
    assert clustered_wilson([(8, 8)] * 20) == pytest.approx(wilson(20, 20))


def test_clustered_wilson_covers_what_plain_wilson_misses() -> None:
    rng = np.random.default_rng(0)
    clustered = plain = 0
    for _ in range(500):
        correct = rng.binomial(8, rng.beta(0.5, 0.5, size=60))  # mean 0.5, problems mostly easy or hard
        low, high = clustered_wilson([(int(c), 8) for c in correct])
        clustered += low <= 0.5 <= high
        low, high = wilson(int(correct.sum()), 480)
        plain += low <= 0.5 <= high
    assert 0.92 <= clustered / 500 <= 0.985
    assert plain / 500 < 0.8


def test_paired_difference_is_the_bootstrap_it_says() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random(200) < 0.4, rng.random(200) < 0.6
    difference, low, high = paired_difference(before.tolist(), after.tolist())
    assert difference == pytest.approx(after.mean() - before.mean())
    change = after.astype(int) - before.astype(int)
    resampled = change[rng.integers(200, size=(10_000, 200))].mean(axis=1)
    assert (low, high) == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.006)


def test_pairing_matters() -> None:
    before = [i % 2 == 0 for i in range(400)]
    same_but_ten = [True if i < 20 else b for i, b in enumerate(before)]
    assert paired_difference(before, same_but_ten)[1] > 0
    assert paired_difference(before, same_but_ten[::-1])[1] < 0


def test_paired_difference_is_deterministic_antisymmetric_and_fast() -> None:
    before, after = [i % 3 == 0 for i in range(100_000)], [i % 5 == 0 for i in range(100_000)]
    began = time.process_time()
    difference, low, high = paired_difference(before, after, seed=3)
    assert time.process_time() - began < 1
    assert (difference, low, high) == paired_difference(before, after, seed=3)
    assert low < difference < high
    back = paired_difference(after, before, seed=3)
    assert back == pytest.approx((-difference, -high, -low), abs=0.002)


@pytest.mark.parametrize(("before", "after"), [*product([False, True], repeat=2)])
def test_paired_difference_at_the_edges(before: bool, after: bool) -> None:
    change = int(after) - int(before)
    assert paired_difference([before] * 7, [after] * 7) == (change, change, change)
    assert paired_difference([], []) == (0, -1, 1)
    with pytest.raises(ValueError, match="same problems"):
        paired_difference([before], [])
