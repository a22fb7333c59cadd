"""If these fail, the paper's differences are noise, or one odd replicate moves an estimate."""

import numpy as np
import pytest
from scipy import stats

from infscale.analysis.intervals import geometric_mean, hodges_lehmann, holm, spread


def test_intervals_cover_the_truth_95_times_in_100() -> None:
    """Too narrow, and the paper's differences are noise."""
    rng = np.random.default_rng(3)
    result = [geometric_mean(np.exp(rng.normal(1, 0.3, 4))) for _ in range(2000)]
    covered = sum(f.low <= np.exp(1) <= f.high for f in result)
    assert stats.binom.ppf(0.005, 2000, 0.95) <= covered <= stats.binom.ppf(0.995, 2000, 0.95)


@pytest.mark.parametrize(
    ("n", "known", "exploratory"),
    [(1, False, False), (2, False, False), (3, True, True), (4, True, True), (5, True, False)],
)
def test_few_replicates_get_no_interval_or_a_warning(n: int, known: bool, exploratory: bool) -> None:
    """Two runs have an interval by formula, and it says nothing."""
    result = geometric_mean(np.linspace(1, 2, n))
    assert (np.isfinite(result.low), result.exploratory) == (known, exploratory)


def test_equal_replicates_do_not_divide_by_zero() -> None:
    """Constant synthetic data would crash the summary of a whole run."""
    result = geometric_mean([2.0, 2.0, 2.0])
    assert (result.low, result.high, result.p_value) == pytest.approx((2.0, 2.0, 0.0))


def test_holm_by_its_published_rule() -> None:
    """Uncorrected, one figure of 18 ratios finds a difference by chance more often than not."""
    assert holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)


def test_the_spread_is_that_of_the_runs() -> None:
    """A night is planned by it."""
    rng = np.random.default_rng(12)
    assert spread(np.exp(rng.normal(3, np.log(1.2), 20_000))) == pytest.approx(0.2, rel=0.03)
    assert np.isnan(spread([2.0]))


def test_one_odd_replicate_moves_the_mean_and_not_the_robust_estimate() -> None:
    """It stands beside the mean so that a reader sees that a single replicate decides."""
    steady = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01]
    assert hodges_lehmann([*steady, 50.0]) == pytest.approx(1.0, abs=0.03)
    assert geometric_mean([*steady, 50.0]).value > 1.5
    assert np.isnan(hodges_lehmann(steady[:5]))
