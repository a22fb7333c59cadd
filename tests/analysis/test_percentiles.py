"""If these fail, a headline number is another request's, or a server that drops its slowest requests looks fast."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from infscale.analysis.percentiles import Times, early_stopping, fewest_queries, pooled_percentile
from infscale.analysis.tables.trials import measures
from infscale.records import samples

times = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)
levels = st.sampled_from([0.5, 0.95, 0.99])


@given(times, levels)
def test_percentiles_of_finite_times_are_numpys_order_statistics(values: list[float], p: float) -> None:
    """The headline numbers of every figure: one rank off is another number."""
    result = Times(values).percentile(p)
    if len(values) * (1 - p) < 1 - 1e-9:
        assert np.isnan(result.value)
    else:
        assert result.value == np.quantile(values, p, method="inverted_cdf")
        assert not result.bound


@given(times, st.integers(0, 50), st.integers(0, 50), levels)
def test_failures_only_ever_raise_a_percentile(values: list[float], timeouts: int, failures: int, p: float) -> None:
    """A server that drops its slowest requests must not look faster than one that serves them."""
    all_served = Times([*values, *[2e6] * (timeouts + failures)]).percentile(p)
    dropped = Times(values, timeouts, failures, limit=2e6).percentile(p)
    assert dropped.value >= all_served.value or np.isnan(all_served.value)
    assert np.isnan(dropped.value) == np.isnan(all_served.value)


@pytest.mark.parametrize(
    ("ok", "timeouts", "failures", "value", "bound"),
    [(100, 0, 0, 1.0, False), (90, 10, 0, 3000.0, True), (90, 0, 10, np.inf, True), (0, 100, 0, 3000.0, True)],
)
def test_a_percentile_among_failures_is_a_bound(
    ok: int, timeouts: int, failures: int, value: float, bound: bool
) -> None:
    """A censored value taken for an estimate would be averaged, and given an interval."""
    result = Times(np.ones(ok), timeouts, failures, limit=3000.0).percentile(0.95)
    assert (result.value, result.bound) == (value, bound)


@pytest.mark.parametrize(("n", "withheld"), [(99, True), (100, False)])
def test_a_percentile_that_n_cannot_carry_is_withheld(n: int, withheld: bool) -> None:
    """The p99 of 50 requests is their maximum: a number about nothing."""
    assert np.isnan(Times(np.ones(n)).percentile(0.99).value) == withheld


def test_the_first_tenth_is_left_out_of_percentiles_and_rates() -> None:
    """Cold caches and empty queues at the start would pull every percentile."""
    scheduled = np.arange(1000) * 1_000_000
    frame = samples.synthetic(scheduled, np.where(scheduled < 100_000_000, 90_000_000, 2_000_000))
    result = measures(frame, 1.0, 3.0, slo_ms=1.0)
    assert (result["n"], result["response_p99_ms"], result["goodput_per_s"]) == (900, 2.0, 0.0)
    assert result["achieved_per_s"] == pytest.approx(1000, rel=0.12)


def test_goodput_counts_successes_within_the_limit_only() -> None:
    """Fast errors would be the best goodput of all."""
    scheduled = np.arange(1000) * 1_000_000
    status = np.where(np.arange(1000) % 2, "http_503", "ok")
    result = measures(samples.synthetic(scheduled, np.full(1000, 100_000), status=status), 1.0, 3.0, slo_ms=50.0)
    assert result["goodput_per_s"] == pytest.approx(500, rel=0.01)
    assert result["response_p99_ms"] == np.inf
    assert result["response_ok_p99_ms"] == pytest.approx(0.1)


def test_round_trips_do_not_hide_the_wait_in_the_response_time() -> None:
    """Coordinated omission: measured from sending, a generator that waits makes every server fast."""
    scheduled = np.arange(1000) * 1_000_000
    result = measures(samples.synthetic(scheduled, np.full(1000, 9_000_000), wait_ns=7_000_000), 1.0, 3.0, 100.0)
    assert (result["response_p50_ms"], result["roundtrip_p50_ms"], result["wait_p99_ms"]) == (9.0, 2.0, 7.0)


@pytest.mark.parametrize(("over", "least"), [(0, 459), (1, 662), (10, 2010), (100, 12_571)])
def test_early_stopping_takes_as_many_queries_as_mlperf_says(over: int, least: int) -> None:
    """With fewer, a limit would be called kept that is not."""
    assert early_stopping(least, over)
    assert not early_stopping(least - 1, over)


@pytest.mark.parametrize(("p", "over", "least"), [(0.99, 0, 459), (0.99, 1, 662), (0.99, 10, 2010), (0.90, 1, 64)])
def test_the_floor_of_a_percentile_is_mlperfs(p: float, over: int, least: int) -> None:
    """The numbers are those of MLPerf's rules, and those that LoadGen prints (tests/load/test_loadgen.py)."""
    assert fewest_queries(p, over) == least


@given(st.floats(0.3, 0.995), st.integers(0, 30), st.floats(0.8, 0.999), st.floats(0, 0.2))
def test_the_floor_is_the_first_that_the_binomial_tail_allows(p: float, over: int, c: float, d: float) -> None:
    n = fewest_queries(p, over, c, d)
    assert stats.binom.cdf(over, n, 1 - p + d) <= 1 - c + 1e-9
    assert stats.binom.cdf(over, n - 1, 1 - p + d) > 1 - c - 1e-9 or n == over + 1


def test_the_interval_of_a_pooled_percentile_covers_it_as_often_as_it_says() -> None:
    """Lifetimes differ, and requests within one queue: an interval that took requests for independent would be too
    narrow. A true p99 of 8 lifetimes of 300 requests, in 400 runs.
    """
    rng, held, truth = np.random.default_rng(1), 0, float(np.exp(stats.norm.ppf(0.99) * math.hypot(0.5, 0.1)))
    for _ in range(400):
        parts = [np.sort(np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.5, 300))) for _ in range(8)]
        one = pooled_percentile(parts, 0.99)
        held += one.low <= truth <= one.high
    assert held >= stats.binom.ppf(0.005, 400, 0.93)


def test_a_pooled_percentile_that_never_came_has_no_interval() -> None:
    times = [np.array([1.0, 2.0, np.inf])] * 4
    assert pooled_percentile(times, 0.5).value == 2.0
    assert np.isinf(pooled_percentile(times, 0.9).value)
    assert np.isnan(pooled_percentile(times, 0.9).low)
    assert np.isnan(pooled_percentile(times[:2], 0.5).low), "two lifetimes say nothing of how much they differ"
