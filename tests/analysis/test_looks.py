"""If these fail, a run claims what is not so more often than it says, or says nothing where it could."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from benchmarks.truth import answers as truth
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from infscale.analysis.answers import (
    ALPHA,
    DIFFERS,
    EQUAL,
    LEAST,
    UNDECIDED,
    WEIGHTS,
    Claim,
    answers,
    claim,
    corrected,
    interval,
    looks,
    needed,
    weight,
)
from infscale.records.gate import Floats

MARGIN = 1.10


def logs_of(ratio: float, spread: float, n: int, seed: int = 1) -> Floats:
    """Return logarithms of ratios whose mean and standard deviation are exactly these."""
    drawn = np.random.default_rng(seed).normal(size=n)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1)
    return np.asarray(math.log(ratio) + spread * drawn)


# ----------------------------------------------------------------------------------------------------------- looks


def test_a_contrast_is_looked_at_when_its_lifetimes_have_doubled() -> None:
    """Looked at after every lifetime, anything would differ at some moment."""
    assert looks(7, 6) == []
    assert looks(7, 7) == looks(7, 13) == [7]
    assert looks(7, 14) == looks(7, 27) == [7, 14]
    assert looks(7, 56) == [7, 14, 28, 56]
    assert looks(4, 4096) == [4 * 2**k for k in range(11)]


def test_looks_share_the_error_of_one_test_however_many_there_are() -> None:
    """A run may be continued for ever: what all looks spend must still be 5 %."""
    shares = [weight(look) for look in range(200)]
    assert shares[: len(WEIGHTS)] == list(WEIGHTS)
    assert all(share > 0 for share in shares)
    assert all(later < earlier for earlier, later in itertools.pairwise(shares))
    for many in (1, 4, 10, 200):
        assert sum(shares[:many]) <= 1 + 1e-12
    assert sum(shares) == pytest.approx(1)


# ------------------------------------------------------------------------------------------------ on known numbers


@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.3])
def test_the_first_look_is_an_interval_by_students_t(ratio: float) -> None:
    logs = logs_of(ratio, 0.15, 7)
    one = claim(logs, 7, MARGIN)
    level = 1 - ALPHA * WEIGHTS[0]
    low, high = stats.t.interval(level, 6, loc=logs.mean(), scale=stats.sem(logs))
    assert (one.low, one.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert one.ratio == pytest.approx(ratio)
    assert one.spread == pytest.approx(0.15)
    assert (one.values, one.used) == (7, 7)
    assert one.p_differs == pytest.approx(min(1, stats.ttest_1samp(logs, 0).pvalue / WEIGHTS[0]))


def test_later_looks_have_what_all_intervals_have_in_common() -> None:
    """And the numbers of all looks count, each by the share of the error that it may spend."""
    logs = logs_of(1.25, 0.2, 30)
    one = claim(logs, 7, MARGIN)
    assert (one.values, one.used) == (30, 28)
    ends = [
        stats.t.interval(1 - ALPHA * share, n - 1, loc=logs[:n].mean(), scale=stats.sem(logs[:n]))
        for n, share in zip((7, 14, 28), WEIGHTS, strict=False)
    ]
    assert one.low == pytest.approx(math.exp(max(low for low, _ in ends)))
    assert one.high == pytest.approx(math.exp(min(high for _, high in ends)))
    p_values = [stats.ttest_1samp(logs[:n], 0).pvalue / share for n, share in zip((7, 14, 28), WEIGHTS, strict=False)]
    assert one.p_differs == pytest.approx(min(1, *p_values))
    assert one.ratio == pytest.approx(math.exp(logs[:28].mean()))


def test_p_of_equality_is_that_of_two_one_sided_tests() -> None:
    logs = logs_of(1.02, 0.03, 8)
    one = claim(logs, 8, MARGIN)
    edge = math.log(MARGIN)
    above = stats.ttest_1samp(logs, -edge, alternative="greater").pvalue
    below = stats.ttest_1samp(logs, edge, alternative="less").pvalue
    assert one.p_equal == pytest.approx(2 * max(above, below) / WEIGHTS[0])


def test_before_the_first_look_nothing_is_claimed() -> None:
    one = claim(logs_of(3.0, 0.01, 6), 7, MARGIN)
    assert one.ratio == pytest.approx(3.0)
    assert all(math.isnan(value) for value in (one.low, one.high, one.p_differs, one.p_equal))
    assert (one.values, one.used) == (6, 6)
    assert answers([one]) == [UNDECIDED]
    nothing = claim([], 7, MARGIN)
    assert math.isnan(nothing.ratio)
    assert nothing.values == 0
    assert answers([nothing, claim([math.nan] * 9, 7, MARGIN)]) == [UNDECIDED] * 2


def test_lifetimes_that_say_nothing_are_left_out_and_do_not_put_off_a_look() -> None:
    """A night that one disturbed trial of one lifetime left without an answer would be lost."""
    logs = logs_of(1.3, 0.1, 5)
    assert claim([*logs, math.nan], 7, MARGIN).used == 5
    assert math.isnan(claim([*logs, math.nan], 7, MARGIN).low), "no look before the seventh lifetime"
    gaps = [math.nan, *logs[:3], math.nan, *logs[3:]]
    one = claim(gaps, 7, MARGIN)
    low, high = stats.t.interval(1 - ALPHA * WEIGHTS[0], 4, loc=logs.mean(), scale=stats.sem(logs))
    assert (one.low, one.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert (one.values, one.used) == (5, 5)
    assert claim([*gaps, 3.0], 7, MARGIN).high == one.high, "what comes after a look is left to the next one"


def test_turned_around_a_contrast_says_the_same() -> None:
    """Which arm is the reference is a matter of words."""
    logs = logs_of(1.3, 0.2, 14)
    one, other = claim(logs, 7, MARGIN), claim(-logs, 7, MARGIN)
    assert (other.low, other.ratio, other.high) == pytest.approx((1 / one.high, 1 / one.ratio, 1 / one.low))
    assert (other.p_differs, other.p_equal) == pytest.approx((one.p_differs, one.p_equal))


@pytest.mark.parametrize(
    ("ratio", "spread", "expected"),
    [
        (1.5, 0.10, DIFFERS),
        (0.6, 0.10, DIFFERS),
        (1.5, 0.60, UNDECIDED),
        (1.0, 0.03, EQUAL),
        (1.0, 0.20, UNDECIDED),
        (1.05, 0.01, EQUAL),  # though the interval excludes 1: so small a difference decides nothing
        (1.09, 0.05, DIFFERS),
    ],
)
def test_an_answer_follows_from_where_the_interval_lies(ratio: float, spread: float, expected: str) -> None:
    one = claim(logs_of(ratio, spread, 8), 8, MARGIN)
    assert answers([one]) == [expected]
    assert (expected == EQUAL) == (1 / MARGIN < one.low <= one.high < MARGIN)
    if expected == DIFFERS:
        assert one.low > 1 or one.high < 1


@given(st.integers(0, 10_000), st.integers(4, 60), st.floats(0.7, 1.4), st.floats(0.01, 0.5))
def test_a_lone_contrasts_answer_agrees_with_its_interval(seed: int, n: int, ratio: float, spread: float) -> None:
    """A reader sees the interval: one that excludes 1 beside "undecided" would be taken for a mistake."""
    one = claim(np.random.default_rng(seed).normal(math.log(ratio), spread, n), 4, MARGIN)
    (answer,) = answers([one])
    inside = one.low > 1 / MARGIN and one.high < MARGIN
    if _contradict(one):
        return
    assert (answer == EQUAL) == inside
    assert (answer == DIFFERS) == (not inside and (one.low > 1 or one.high < 1))
    assert one.low <= one.ratio <= one.high


def _contradict(one: Claim) -> bool:
    """Return whether the looks have claimed both sides: the interval is then that of the last look alone."""
    return (one.p_differs <= ALPHA) != (one.low > 1 or one.high < 1) or (one.p_equal <= ALPHA) != (
        one.low > 1 / MARGIN and one.high < MARGIN
    )


def test_more_values_never_give_a_wider_interval() -> None:
    """Who adds a night must not lose what the nights before had shown."""
    contradicting = 0
    for seed in range(200):
        logs = np.random.default_rng(seed).normal(0.1, 0.2, 64)
        before = (0.0, math.inf)
        for n in range(4, 65):
            one = claim(logs[:n], 4, MARGIN)
            ends = [interval(logs[:size], ALPHA * weight(k)) for k, size in enumerate(looks(4, n))]
            if max(low for low, _ in ends) > min(high for _, high in ends):
                contradicting += 1
                break
            assert before[0] <= one.low <= one.high <= before[1]
            if n not in (4, 8, 16, 32, 64):
                assert (one.low, one.high) == before, "between looks nothing is looked at"
            before = one.low, one.high
    assert contradicting <= 2


def test_looks_that_contradict_one_another_leave_the_last_ones_interval() -> None:
    """An empty interval would be drawn as nothing."""
    logs = np.concatenate([logs_of(0.5, 0.01, 4), logs_of(2.0, 0.01, 60, seed=2)])
    one = claim(logs, 4, MARGIN)
    assert (one.low, one.high) == pytest.approx(tuple(np.exp(interval(logs, ALPHA * weight(4)))))
    assert one.low <= one.ratio <= one.high


def test_values_without_any_spread_decide_nothing() -> None:
    """Brackets of λ* that come from one grid of rates are all alike, and were once called certain."""
    for log in (math.log(1.2), 0.0):
        one = claim([log] * 5, 5, MARGIN)
        assert (one.low, one.high) == (0.0, math.inf)
        assert one.ratio == pytest.approx(math.exp(log))
        assert answers([one]) == [UNDECIDED]


@pytest.mark.filterwarnings("error")
def test_one_value_claims_nothing() -> None:
    """A design may ask for one lifetime alone."""
    one = claim([1.0], 1, MARGIN)
    assert (one.low, one.high) == (0.0, math.inf)
    assert answers([one]) == [UNDECIDED]


# ------------------------------------------------------------------------------------------------- infinite values


def test_an_arm_that_never_answered_in_time_gives_a_bound() -> None:
    """Left out, only the lifetimes in which it did well would count; taken as a number, it would be any number."""
    logs = np.full(10, math.inf)
    one = claim(logs, 10, MARGIN)
    assert one.low == math.inf
    assert answers([one]) == [DIFFERS]
    assert math.isnan(one.spread)
    some = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, math.inf, math.inf, math.inf])
    one = claim(some, 10, MARGIN)
    assert one.high == math.inf
    assert one.low == pytest.approx(math.exp(np.sort(some)[1])), "a value that is there, by the sign test"
    finite = claim(some[:7], 7, MARGIN)
    assert one.high > finite.high, "not the interval from those that are finite"
    assert one.ratio == pytest.approx(math.exp(np.median(some)))
    assert answers([one]) == [DIFFERS]
    mirrored = claim(-some, 10, MARGIN)
    assert mirrored.low == 0
    assert mirrored.high == pytest.approx(1 / one.low)


@pytest.mark.parametrize("n", [4, 7, 10, 20, 40])
@pytest.mark.parametrize("alpha", [0.04, 0.006, 0.0025])
def test_the_interval_of_infinite_values_is_that_of_the_sign_test(n: int, alpha: float) -> None:
    ranks = np.arange(1.0, n + 1)
    ranks[-1] = math.inf
    low, high = interval(ranks, alpha)
    if math.isinf(low):
        assert 2 * stats.binom.cdf(0, n, 0.5) > alpha
        return
    outside = int(low) - 1
    assert 2 * stats.binom.cdf(outside, n, 0.5) <= alpha < 2 * stats.binom.cdf(outside + 1, n, 0.5)
    assert high == ranks[n - 1 - outside]


@given(st.lists(st.floats(-3, 3) | st.sampled_from([math.inf, -math.inf, math.nan]), max_size=40), st.integers(2, 12))
def test_any_values_have_an_ordered_interval_and_an_answer(values: list[float], first: int) -> None:
    one = claim(values, first, MARGIN)
    assert not one.low > one.high
    assert answers([one])[0] in (DIFFERS, EQUAL, UNDECIDED)
    assert one.used <= one.values == sum(not math.isnan(value) for value in values)
    assert math.isnan(one.low) == (len(values) < first)


# ---------------------------------------------------------------------------------------------- several contrasts


def with_p(differs: float, equal: float = 1.0) -> Claim:
    """Return a claim of which only the p-values are known."""
    return Claim(1.0, 0.9, 1.1, 8, 8, differs, equal, 0.1)


def said(pairs: Sequence[tuple[float, float]]) -> list[str]:
    return answers([with_p(*pair) for pair in pairs])


def test_contrasts_share_the_error_by_holms_procedure() -> None:
    """Of twenty comparisons of equals one would differ by chance."""
    assert said([(0.04, 1)]) == [DIFFERS]
    assert said([(0.04, 1), (0.04, 1)]) == [UNDECIDED] * 2
    assert said([(0.02, 1), (0.04, 1)]) == [DIFFERS] * 2, "step by step: the second is one of one"
    assert said([(0.02, 1), (0.06, 1)]) == [DIFFERS, UNDECIDED]
    assert said([(1, 0.02), (1, 0.04)]) == [EQUAL] * 2
    assert said([(1, 0.03), (1, 0.04)]) == [UNDECIDED] * 2
    assert corrected([with_p(0.01), with_p(0.02), with_p(0.5)]) == pytest.approx([0.03, 0.04, 0.5])


def test_the_two_kinds_of_claim_are_corrected_apart() -> None:
    """A contrast that is rightly called equal must not make it easier to call others different."""
    assert said([(1, 1e-9), (0.03, 1)]) == [EQUAL, UNDECIDED]
    assert said([(1e-9, 1), (1, 0.03)]) == [DIFFERS, UNDECIDED]
    assert said([(0.001, 0.001), (1, 1)]) == [EQUAL, UNDECIDED], "a difference within the margin decides nothing"


def test_contrasts_without_a_look_do_not_count() -> None:
    """A group that had no lifetimes yet must not take the error of the others."""
    nan = math.nan
    assert said([(0.04, 1), (nan, nan), (nan, nan)]) == [DIFFERS, UNDECIDED, UNDECIDED]
    assert np.isnan(corrected([with_p(nan, nan)])).all()


# ---------------------------------------------------------------------------------------------- how many are needed


@pytest.mark.parametrize(("spread", "family"), [(0.1, 1), (0.19, 1), (0.19, 12)])
def test_as_many_lifetimes_as_are_needed_decide_in_four_runs_of_five(spread: float, family: int) -> None:
    """A user who adds a night by it must not add it in vain."""
    n = needed(spread, 1.2, family)
    rng = np.random.default_rng(5)
    level = ALPHA * weight(1) / family

    def decided(size: int) -> int:
        logs = rng.normal(math.log(1.2), spread, (2000, size))
        return int(np.sum(stats.ttest_1samp(logs, 0, axis=1).pvalue <= level))

    assert decided(n) >= stats.binom.ppf(0.005, 2000, 0.8)
    assert n == LEAST or decided(n - 1) <= stats.binom.ppf(0.995, 2000, 0.8)


def test_more_are_needed_for_a_larger_spread_a_smaller_ratio_and_a_larger_family() -> None:
    base = needed(0.2, 1.2, 4)
    assert needed(0.3, 1.2, 4) > base
    assert needed(0.2, 1.1, 4) > base
    assert needed(0.2, 1.2, 12) > base
    assert needed(0.2, 1.2, 4, look=3) > base > needed(0.2, 1.2, 4, look=0)
    assert needed(0.2, 1 / 1.2, 4) == base
    assert needed(0.0, 1.2, 4) == LEAST
    assert needed(0.2, 1.0001, 4) == 1000


# ----------------------------------------------------------------------------------------------- the whole, simulated


def wrong_at_most(share: float, runs: int) -> None:
    """Check that false claims are no more frequent than 5 % of the runs, but for chance (binomial, 99 %)."""
    assert share * runs <= stats.binom.ppf(0.995, runs, ALPHA)


@pytest.mark.parametrize("kind", truth.DRAWS)
def test_of_runs_that_are_looked_at_once_at_most_one_in_twenty_claims_what_is_not_so(kind: str) -> None:
    """Twelve contrasts of equals, seven lifetimes each: 2,000 such nights."""
    runs = 2000 if kind == "normal" else 500
    got = truth.simulate(runs, [1.0] * 12, 7, (), truth.DRAWS[kind], seed=1)
    wrong_at_most(got["wrong"], runs)
    if kind == "normal":
        assert got["covered"] * 12 * runs >= stats.binom.ppf(0.005, 12 * runs, 0.95)


@pytest.mark.parametrize("ratios", [[1.0] * 12, [1.0, 1.10, 1.0, 1.15] * 3])
def test_so_it_is_where_undecided_contrasts_get_the_next_lifetimes_again_and_again(ratios: list[float]) -> None:
    """Who goes on until something differs, or is equal, would always find it."""
    got = truth.simulate(150, ratios, 7, (21, 21, 21), truth.normal, seed=2)
    wrong_at_most(got["wrong"], 150)
    assert got["covered"] >= 0.95
    assert got["lifetimes"] > 20, "the run went on"


def test_large_differences_are_found_and_equals_are_called_equal_in_a_long_run() -> None:
    """A procedure that says nothing is never wrong."""
    assert truth.simulate(200, [1.5] * 12, 7, (), truth.normal, seed=3)["differs"] > 0.6
    assert truth.simulate(40, [1.0] * 12, 160, (), truth.normal, seed=4)["equal"] > 0.6
