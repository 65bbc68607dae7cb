"""The bounds cover as often as they promise, on simulated inputs with fixed seeds, and are worth having."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from hwsearch.finalizer.certificate import (
    MeanLimit,
    bound_mean,
    climb,
    clopper_pearson,
    empirical_bernstein,
    hoeffding_bentkus,
)

REPEATS = 2000


def draws(shares: list[float], n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), size=(REPEATS, n), p=shares)


@pytest.mark.parametrize(
    ("shares", "costs"),
    [
        ([0.9, 0.1], (1.0, 2.5)),
        ([0.5, 0.5], (1.0, 2.5)),
        ([0.02, 0.98], (1.0, 2.5)),
        ([0.7, 0.2, 0.1], (1.0, 1.5, 4.0)),
        ([0.98, 0.01, 0.01], (1.0, 3.0, 4.0)),
        ([0.3, 0.3, 0.2, 0.2], (2.0, 1.0, 3.0, 3.0)),
    ],
)
def test_the_true_mean_lies_below_the_bound_as_often_as_promised(shares: list[float], costs: tuple[float, ...]) -> None:
    truth, delta = float(np.dot(shares, costs)), 0.1
    samples = [tuple(np.bincount(row, minlength=len(shares))) for row in draws(shares, 120, seed=1)]
    uppers = {counts: bound_mean(np.repeat(np.arange(len(shares)), counts), costs, delta).upper for counts in set(samples)}
    covered = sum(uppers[counts] >= truth for counts in samples)
    allowed = binom.ppf(1e-4, REPEATS, 1 - delta)  # fails by chance once in ten thousand if coverage is just as promised
    assert covered >= allowed


def test_a_bound_at_too_small_a_risk_would_fail_the_coverage_test() -> None:
    """The test above can fail: the plain sample mean, sold as a bound, covers about half the time."""
    truth = 1.1
    covered = sum(1.0 + row.mean() >= truth for row in draws([0.9, 0.1], 120, seed=1))
    assert covered < binom.ppf(1e-4, REPEATS, 0.9)


def test_climbing_a_ladder_breaks_the_limit_no_more_often_than_promised() -> None:
    """Many rungs straddle the limit; a bound picked without regard to the many tests would fail far more often."""
    repeats = 600
    rng, delta, limit = np.random.default_rng(2), 0.1, MeanLimit(limit=1.3, path_costs=(1.0, 2.0))
    shares = np.linspace(0.002, 0.602, 13)  # one lies just above the limit
    broken = 0
    for _ in range(repeats):
        scores = rng.random(150)
        chosen = climb([(scores < share).astype(np.int64) for share in shares], [limit], delta)
        broken += 1.0 + shares[chosen] > limit.limit + 1e-12
    assert broken <= binom.ppf(1 - 1e-4, repeats, delta)
    assert broken > 0


def test_every_limit_must_hold() -> None:
    rungs = [np.zeros(50, dtype=np.int64), np.ones(50, dtype=np.int64)]
    loose, tight = MeanLimit(limit=9.0, path_costs=(1.0, 2.0)), MeanLimit(limit=1.5, path_costs=(1.0, 2.0))
    assert climb(rungs, [loose], 0.05) == 1
    assert climb(rungs, [loose, tight], 0.05) == 0
    assert climb(rungs, [MeanLimit(limit=0.5, path_costs=(1.0, 2.0))], 0.05) == -1


def test_a_single_path_needs_no_statistics() -> None:
    bound = bound_mean(np.zeros(10, dtype=np.int64), (3.0,), 0.05)
    assert (bound.upper, bound.method) == (3.0, "exact")


@settings(deadline=None)
@given(st.integers(2, 400), st.floats(0, 1), st.floats(0.001, 0.4))
def test_bounds_lie_between_the_observed_mean_and_the_dearest_path(n: int, share: float, delta: float) -> None:
    entries = np.minimum((np.arange(n) < share * n).astype(np.int64) * 2, 2)
    bound = bound_mean(entries, (1.0, 2.0, 5.0), delta)
    assert bound.observed <= bound.upper + 1e-12
    assert bound.upper <= 5.0


def test_hoeffding_bentkus_is_tighter_than_plain_hoeffding() -> None:
    n, delta = 250, 0.05
    for mean in (0.05, 0.3, 0.6):
        assert mean < hoeffding_bentkus(mean, n, delta) < mean + np.sqrt(np.log(1 / delta) / (2 * n))


def test_hoeffding_bentkus_of_a_zero_mean_solves_its_equation() -> None:
    """With no spending seen, the tighter tail is exp(-n KL(0, m)) = (1 - m)^n, which the bound sets to delta."""
    assert hoeffding_bentkus(0.0, 100, 0.05) == pytest.approx(1 - 0.05 ** (1 / 100), abs=1e-9)


def test_empirical_bernstein_by_hand() -> None:
    """mean 0.5, variance 1/3 of four values, log(2 / 0.1) = 2.9957: 0.5 + sqrt(2 * 2.9957 / 12) + 7 * 2.9957 / 9."""
    assert empirical_bernstein(np.array([0.0, 0.0, 1.0, 1.0]), 0.1) == pytest.approx(0.5 + 0.70660 + 2.33001, abs=1e-4)


def test_clopper_pearson_equals_the_textbook() -> None:
    """The one-sided 95 % rule of three: no success in 100 gives 1 - 0.05^(1/100)."""
    assert clopper_pearson(0, 100, 0.05) == pytest.approx(0.0295130, abs=1e-6)
    assert clopper_pearson(100, 100, 0.05) == 1.0


def test_a_certificate_without_data_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two inputs"):
        bound_mean(np.zeros(1, dtype=np.int64), (1.0, 2.0), 0.05)
    with pytest.raises(ValueError, match="between 0 and 1"):
        bound_mean(np.zeros(5, dtype=np.int64), (1.0, 2.0), 1.5)
