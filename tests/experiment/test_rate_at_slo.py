"""The search for the rate at an SLO: if these fail, an engineer promises a latency at a load that does not keep it."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from benchmarks.truth import capacity as simulated
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from infscale.errors import ConfigError
from infscale.experiment import capacity
from infscale.experiment.capacity import Found, SpoiltError, Trial, most_late, observe, search
from infscale.experiment.design.slo import Slo, parse

P95 = Slo("p95", 20.0)
RUNS = 300
"""Simulated searches of each queue; docs/capacity-simulated.md has 2,000 of each case."""


# ------------------------------------------------------------------------------------------- on queues with an answer


@cache
def results(queue: str) -> list[Found]:
    return [simulated.found(7, number, queue, P95, 5.0) for number in range(RUNS)]


@pytest.mark.parametrize("queue", simulated.QUEUES)
def test_the_interval_holds_the_rate_as_often_as_it_says(queue: str) -> None:
    true = 1e3 * simulated.truth(queue, P95)
    missed = sum(not one.low <= true <= one.high for one in results(queue))
    assert missed <= stats.binom.ppf(0.995, RUNS, capacity.ALPHA)


@pytest.mark.parametrize("queue", simulated.QUEUES)
def test_the_interval_says_something_from_twelve_trials(queue: str) -> None:
    """One from 0 to ∞ would hold every rate."""
    found = results(queue)
    assert not any(one.bound for one in found)
    assert np.median([one.high / one.low for one in found]) < 1.4
    assert max(len(one.trials) for one in found) <= capacity.MOST_TRIALS
    assert abs(np.median([one.value for one in found]) / 1e3 / simulated.truth(queue, P95) - 1) < 0.03


def test_hopeless_trials_end_early_and_the_others_do_not() -> None:
    trials = [one for found in results("M/M/1") for one in found.trials]
    hopeless = [one for one in trials if one.hopeless]
    assert hopeless
    assert all(one.late == most_late(P95, one.planned) and not one.kept(P95) for one in hopeless)
    assert np.mean([one.requests / one.planned for one in hopeless]) < 0.9
    assert all(one.requests == one.planned for one in trials if not one.hopeless)


def test_the_answer_for_constant_service_is_that_of_a_long_simulation() -> None:
    rate = simulated.truth("M/D/1", P95)
    late = simulated.responses(np.random.default_rng(3), "M/D/1", rate, 4_000_000)[100_000:] > P95.limit_ms
    error = late.reshape(100, -1).mean(axis=1).std(ddof=1) / 10
    assert abs(late.mean() - P95.late) < 4 * error
    assert error < 0.1 * P95.late


# ----------------------------------------------------------------------------------------------- on imagined endpoints


def sharp(limit: float) -> Callable[[float, int, bool], Trial]:
    """An endpoint that is never late up to a rate, and always beyond it."""

    def run(rate: float, planned: int, long: bool) -> Trial:
        late = rate > limit
        response = np.full(most_late(P95, planned) if late else planned, 100.0 if late else 1.0)
        return observe(rate, response, P95, planned, hopeless=late, long=long)

    return run


@given(st.floats(10, 1e5), st.floats(-1, 3))
def test_a_sharp_limit_lies_within_a_narrow_interval_wherever_the_search_begins(limit: float, away: float) -> None:
    found = search(sharp(limit), P95, limit * math.exp(away), longest_s=5.0)
    assert not found.bound
    assert found.low <= 1.002 * limit  # the steepest curve that is fitted is none of a trial that is exactly there
    assert found.high >= limit / 1.002
    assert found.high / found.low < 1.6


def test_an_endpoint_that_is_never_late_gives_a_bound_with_the_largest_rate_that_kept_the_limit() -> None:
    found = search(sharp(math.inf), P95, 10.0, most=500.0)
    assert (found.bound, found.value) == ("≥", 500.0)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.why == "no higher rate may be tried"


def test_a_bracket_that_never_closes_is_said_with_the_trials_that_it_took() -> None:
    found = search(sharp(math.inf), P95, 1.0)
    assert found.bound == "≥"
    assert found.value == max(one.rate_per_s for one in found.trials)
    assert found.why == f"the trials were spent after {capacity.MOST_TRIALS}"


def test_an_endpoint_that_is_always_late_gives_a_bound_from_above() -> None:
    found = search(sharp(0.0), Slo("p50", 20.0), 1e4, longest_s=1.0)
    assert found.bound == "<"
    assert found.value == min(one.rate_per_s for one in found.trials)
    assert found.why == "at lower rates trials would take more than 10 minutes"


def test_a_generator_that_fails_ends_the_search_with_what_is_known() -> None:
    def fails(rate: float, planned: int, long: bool) -> Trial:
        if rate > 50:
            raise SpoiltError("it was late")
        return sharp(math.inf)(rate, planned, long)

    found = search(fails, P95, 10.0)
    assert (found.bound, found.value) == ("≥", 30.0)
    assert "generator or its host failed: it was late" in found.why
    assert search(fails, P95, 100.0).bound == "?"


def test_trials_that_would_take_an_hour_are_refused_before_they_begin() -> None:
    ran: list[float] = []

    def run(rate: float, planned: int, long: bool) -> Trial:
        ran.append(rate)
        return sharp(math.inf)(rate, planned, long)

    with pytest.raises(ConfigError, match="p99<20ms needs trials of 1,000 requests, which take 17 minutes"):
        search(run, Slo("p99", 20.0), 1.0)
    assert ran == []


def test_requests_that_are_late_together_count_as_fewer() -> None:
    """200 late requests in one burst say less of the rate than 200 spread over the trial."""
    apart, together = np.ones(10_000), np.ones(10_000)
    apart[::50], together[3_000:3_200] = 99.0, 99.0
    found = []
    for response in (apart, together):
        trials = [observe(rate, response, P95, 10_000, hopeless=False, long=True) for rate in (90.0, 100.0, 110.0)]
        found.append(capacity._dependence(trials, P95))
    assert found[0] == 1.0
    assert found[1] > 100


# --------------------------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize(
    ("text", "percentile", "limit_ms", "late"),
    [("p99<50ms", "p99", 50.0, 0.01), (" p95 <= 0.2s ", "p95", 200.0, 0.05), ("p50<800us", "p50", 0.8, 0.5),
     ("p90<1.5ms", "p90", 1.5, 0.1)],
)  # fmt: skip
def test_objectives_are_read(text: str, percentile: str, limit_ms: float, late: float) -> None:
    slo = parse(text)
    assert slo.percentile == percentile
    assert slo.limit_ms == pytest.approx(limit_ms)
    assert slo.late == pytest.approx(late)
    assert parse(str(slo)) == slo


@pytest.mark.parametrize(
    "text",
    ["", "50ms", "p99", "p99<50", "p99>50ms", "p98<50ms", "p99<0ms", "p99<-1ms", "p99<1e3ms", "p99<infs", "q99<1s"],
)
def test_what_is_no_objective_is_named_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--slo=.*accepted: p50, p90, p95 or p99, < and a time above 0"):
        parse(text, "--slo")
