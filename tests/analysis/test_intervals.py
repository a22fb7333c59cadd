"""If these fail, the paper's descriptions are noise, or a figure of many ratios finds a difference by chance."""

import numpy as np
import pytest
from scipy import stats

from infscale.analysis.intervals import geometric_mean, holm, spread


def test_intervals_cover_the_truth_95_times_in_100() -> None:
    """Too narrow, and the paper's differences are noise."""
    rng = np.random.default_rng(3)
    result = [geometric_mean(np.exp(rng.normal(1, 0.3, 4))) for _ in range(2000)]
    covered = sum(f.low <= np.exp(1) <= f.high for f in result)
    assert stats.binom.ppf(0.005, 2000, 0.95) <= covered <= stats.binom.ppf(0.995, 2000, 0.95)


@pytest.mark.parametrize(("n", "known"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_few_lifetimes_get_no_interval(n: int, known: bool) -> None:
    """Two lifetimes have an interval by formula, and it says nothing."""
    result = geometric_mean(np.linspace(1, 2, n))
    assert result.lifetimes == n
    assert np.isfinite([result.low, result.high, result.p_value]).tolist() == [known] * 3


def test_an_endless_value_has_no_interval() -> None:
    """A finite one would leave out the lifetime in which an arm did not answer."""
    result = geometric_mean([1.0, 2.0, 3.0, np.inf])
    assert np.isnan([result.low, result.high, result.p_value]).all()


def test_equal_lifetimes_do_not_divide_by_zero() -> None:
    """Constant synthetic data would crash the summary of a whole run."""
    result = geometric_mean([2.0, 2.0, 2.0])
    assert (result.low, result.high, result.p_value) == pytest.approx((2.0, 2.0, 0.0))


def test_holm_by_its_published_rule() -> None:
    """Uncorrected, a run of 18 contrasts finds a difference by chance more often than not."""
    assert holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)


def test_the_spread_is_that_of_the_lifetimes() -> None:
    """A night is planned by it."""
    rng = np.random.default_rng(12)
    assert spread(np.exp(rng.normal(3, np.log(1.2), 20_000))) == pytest.approx(0.2, rel=0.03)
    assert np.isnan(spread([2.0]))
