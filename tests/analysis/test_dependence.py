"""If these fail, an interval within a trial claims more than its dependent requests can carry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats

from infscale.analysis.dependence import autocorrelation_time, quantile


def autoregressive(rng: np.random.Generator, phi: float, n: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """A stationary AR(1) of variance 1: its autocorrelation time is (1 + φ) ÷ (1 − φ)."""
    noise = rng.normal(scale=np.sqrt(1 - phi**2), size=n)
    noise[0] = rng.normal()
    return np.asarray(signal.lfilter([1], [1, -phi], noise))


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_of_a_known_process_is_found(phi: float) -> None:
    rng = np.random.default_rng(5)
    result = np.mean([autocorrelation_time(autoregressive(rng, phi, 20_000))[0] for _ in range(40)])
    assert result == pytest.approx((1 + phi) / (1 - phi), rel=0.1)


def test_constant_and_empty_values_have_nothing_to_correlate() -> None:
    assert autocorrelation_time([]) == autocorrelation_time([3.0, 3.0, 3.0]) == (1.0, 0.0)


@pytest.mark.parametrize("p", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_intervals_of_dependent_values_cover_what_they_say(p: float, phi: float) -> None:
    """Of 2,000 intervals at least 95 % hold the truth, less what chance allows (binomial, 99 %)."""
    rng = np.random.default_rng(9)
    cases, n = 2000, 6000
    truth = float(stats.norm.ppf(p))
    result = [quantile(autoregressive(rng, phi, n), p) for _ in range(cases)]
    known = [q for q in result if np.isfinite(q.high)]
    assert len(known) > 0.9 * cases
    covered = sum(q.low <= truth <= q.high for q in known)
    assert covered >= stats.binom.ppf(0.005, len(known), 0.95)


def test_too_few_independent_values_leave_an_end_open() -> None:
    """MLPerf's floors come out of the rule itself: p99 needs some 381 independent requests."""
    rng = np.random.default_rng(10)
    assert np.isnan(quantile(rng.normal(size=300), 0.99).high)
    assert np.isfinite(quantile(rng.normal(size=500), 0.99).high)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=300), st.floats(0.01, 0.99))
def test_any_values_give_an_ordered_interval_within_them(values: list[float], p: float) -> None:
    result = quantile(values, p)
    assert min(values) <= result.value <= max(values)
    assert not result.low > result.value
    assert not result.high < result.value
    assert 0 < result.n_eff <= len(values)
