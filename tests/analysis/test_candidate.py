"""If these fail, a candidate that is as good as its reference is called worse, or one that is worse passes."""

import math

import numpy as np
import pytest
from benchmarks import gate as simulated
from benchmarks.truth.answers import DRAWS
from scipy import stats

from infscale.analysis.answers import UNDECIDED
from infscale.analysis.candidate.judgement import NOT_WORSE, WORSE, endless, judge, margins, overall
from infscale.analysis.candidate.stored import said_of, welch
from infscale.experiment.design.design import FIRST, GAP, P95, SATURATION

CASES = 2000
MOST_FALSE = float(stats.binom.ppf(0.99, CASES, 0.05)) / CASES
"""The end of the binomial 99 % band around 5 %."""


@pytest.mark.parametrize(
    ("metric", "low", "high", "said"),
    [
        (P95, 0.90, 1.04, NOT_WORSE),
        (P95, 0.50, 0.60, NOT_WORSE),
        (P95, 1.01, 1.04, NOT_WORSE),  # an engineer who tolerates 5 % tolerates this
        (P95, 1.01, 1.06, UNDECIDED),
        (P95, 1.06, 1.20, WORSE),
        (P95, 1.06, math.inf, WORSE),
        (P95, 0.00, math.inf, UNDECIDED),
        (P95, math.nan, math.nan, UNDECIDED),
        (SATURATION, 0.96, 1.20, NOT_WORSE),
        (SATURATION, 1.50, 1.60, NOT_WORSE),
        (SATURATION, 0.90, 1.20, UNDECIDED),
        (SATURATION, 0.70, 0.90, WORSE),
        (SATURATION, 0.00, 0.90, WORSE),
        (SATURATION, 0.00, math.inf, UNDECIDED),
        (SATURATION, math.nan, math.nan, UNDECIDED),
    ],
)
def test_a_candidate_is_worse_beyond_the_margin_and_not_worse_within_it(
    metric: str, low: float, high: float, said: str
) -> None:
    """A longer response time is worse, and a higher λ* is better."""
    assert judge(metric, 1.05, low, high) == said


def test_one_contrast_is_enough_to_be_worse_and_all_are_needed_to_be_not_worse() -> None:
    assert overall([NOT_WORSE, NOT_WORSE]) == NOT_WORSE
    assert overall([NOT_WORSE, UNDECIDED]) == UNDECIDED
    assert overall([UNDECIDED, WORSE, NOT_WORSE]) == WORSE
    assert overall([]) == UNDECIDED, "nothing that was compared lets nothing pass"


def test_the_margin_of_the_load_is_no_smaller_than_that_of_the_response_time() -> None:
    for times, load, expected in ((0.05, None, 1.2), (0.30, None, 1.3), (0.30, 0.1, 1.1)):
        found = margins(times, load)
        assert found == pytest.approx({P95: 1 + times, FIRST: 1 + times, GAP: 1 + times, SATURATION: expected})


def test_an_arm_that_kept_up_with_everything_is_beyond_it_from_six_lifetimes_on() -> None:
    assert endless(np.full(6, np.inf))
    assert endless(np.array([*[np.inf] * 6, np.nan]))
    assert not endless(np.full(5, np.inf))
    assert not endless(np.array([*[np.inf] * 9, 5.0]))
    assert not endless(np.array([]))


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("lifetimes", [4, 9])
def test_a_candidate_at_the_margin_is_rarely_called_worse(draw: str, lifetimes: int) -> None:
    """By simulation of the whole decision, both contrasts together; an equal one even less often."""
    edges = simulated.EDGES
    for truth in ((1.0, 1.0), (edges[P95], 1 / edges[SATURATION])):
        rngs = (np.random.default_rng([3, k]) for k in range(CASES))
        said = [simulated.gate(simulated.drawn(rng, truth, (0.1, 0.15), DRAWS[draw]), lifetimes, 1) for rng in rngs]
        assert said.count(WORSE) / CASES <= MOST_FALSE


def test_a_candidate_at_a_margin_rarely_passes() -> None:
    """One of its two ratios is at the margin, the other one is far better."""
    for truth in ((simulated.EDGES[P95], 3.0), (0.3, 1 / simulated.EDGES[SATURATION])):
        rngs = (np.random.default_rng([4, k]) for k in range(CASES))
        said = [simulated.gate(simulated.drawn(rng, truth, (0.1, 0.15), DRAWS["normal"]), 9, 1) for rng in rngs]
        assert said.count(NOT_WORSE) / CASES <= MOST_FALSE


def test_twenty_per_cent_more_is_found_with_the_default_budget() -> None:
    """As much as real systems spread here, or less; nine lifetimes are what three minutes buy."""
    rngs = (np.random.default_rng([5, k]) for k in range(CASES))
    said = [simulated.gate(simulated.drawn(rng, (1.2, 1.0), (0.08, 0.15), DRAWS["normal"]), 9, 1) for rng in rngs]
    assert said.count(WORSE) / CASES >= 0.9


def test_welchs_interval_is_scipys() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.0, 0.1, 7), rng.normal(0.2, 0.3, 12)
    ratio, low, high = welch(first, second, 0.05)
    known = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert math.log(ratio) == pytest.approx(second.mean() - first.mean())
    assert (math.log(low), math.log(high)) == pytest.approx((known.low, known.high))


@pytest.mark.parametrize("arms", [1, 6])
def test_two_runs_of_one_program_are_rarely_called_worse(arms: int) -> None:
    """However many contrasts there are, and where the candidate is at every margin."""
    worse = 0
    for k in range(CASES):
        rng = np.random.default_rng([6, k])
        worse += WORSE in [
            said_of(metric, rng.normal(0, 0.1, 7), rng.normal(log, 0.1, 9), 1.1, 2 * arms)
            for _ in range(arms)
            for metric, log in ((P95, math.log(1.1)), (SATURATION, -math.log(1.1)))
        ]
    assert worse / CASES <= MOST_FALSE
