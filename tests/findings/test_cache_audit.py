"""If these fail, a server that remembers its answers passes for a fast one, or a sound one is suspected."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from infscale.analysis.answers import DIFFERS, EQUAL, UNDECIDED
from infscale.findings.cache_audit import judge, sentence


def rounds(
    ratio: float, *, count: int = 12, spread: float = 0.03, seed: int = 0, hits: tuple[float, float] | None = None
) -> pd.DataFrame:
    """Rounds in which fresh requests take ``ratio`` times as long; ``hits`` are hit ratios of fresh and repeated."""
    rng = np.random.default_rng(seed)
    minute = rng.lognormal(0, 0.3, count)[:, None]  # what a minute does to both
    p50_ms = minute * rng.lognormal(0, spread, (count, 2)) * [ratio, 1.0]
    shares = np.full(2, math.nan) if hits is None else np.array(hits)
    columns = {
        "round": np.repeat(np.arange(1, count + 1), 2),
        "kind": ["fresh", "repeated"] * count,
        "p50_ms": p50_ms.ravel(),
        "hits": np.tile(200 * shares, count),
        "misses": np.tile(200 * (1 - shares), count),
    }
    return pd.DataFrame(columns)


def test_a_cache_that_counts_its_hits_is_the_factor() -> None:
    found = judge(rounds(3.0, seed=1, hits=(0.0, 0.98)))
    assert (found.answer, found.cached, found.passed) == (DIFFERS, True, True)
    assert found.ratio.low < 3.0 < found.ratio.high
    assert "a cache is the factor: it answered 98 % of the repeated and 0 % of the fresh requests" in sentence(found)


@pytest.mark.parametrize("hits", [None, (0.5, 0.5), (0.0, 0.0)])
def test_a_difference_that_no_cache_explains_fails(hits: tuple[float, float] | None) -> None:
    found = judge(rounds(1.5, hits=hits))
    assert (found.answer, found.cached, found.passed) == (DIFFERS, False, False)
    assert "unexplained" in sentence(found)


def test_equal_speed_passes_and_says_so() -> None:
    found = judge(rounds(1.0))
    assert (found.answer, found.passed) == (EQUAL, True)
    assert "equally fast within 10 %" in sentence(found)
    assert "no cache is seen" in sentence(found)


def test_a_cache_that_saves_no_time_is_said() -> None:
    assert "although a cache answered 90 %" in sentence(judge(rounds(1.0, hits=(0.0, 0.9))))


def test_faster_fresh_requests_are_no_cache() -> None:
    found = judge(rounds(0.5, hits=(0.0, 0.9)))
    assert (found.answer, found.passed) == (DIFFERS, False)
    assert "which no cache does" in sentence(found)


def test_noise_is_undecided_and_nothing_is_said_of_nothing() -> None:
    found = judge(rounds(1.05, count=3, spread=0.5, seed=5))
    assert (found.answer, found.passed) == (UNDECIDED, False)
    assert sentence(found).startswith("undecided whether repeated requests are answered faster")
    nothing = judge(rounds(1.0).iloc[:0])
    assert (nothing.answer, nothing.passed, nothing.ratio.lifetimes) == (UNDECIDED, False, 0)
    assert "cannot conclude" in sentence(nothing)


def test_a_round_that_lacks_a_kind_does_not_count() -> None:
    assert judge(rounds(1.0).iloc[1:]).ratio.lifetimes == 11


def test_false_alarms_and_coverage_are_as_stated() -> None:
    """2,000 audits of a server without a cache: "differs" in at most 5 %; the interval holds the truth in 95 %."""
    found = [judge(rounds(1.0, count=8, spread=0.06, seed=seed)) for seed in range(2000)]
    most = stats.binom.ppf(0.99, 2000, 0.05)
    assert sum(one.answer == DIFFERS for one in found) <= most
    missed = sum(not one.ratio.low <= 1.0 <= one.ratio.high for one in found)
    assert stats.binom.ppf(0.005, 2000, 0.05) <= missed <= stats.binom.ppf(0.995, 2000, 0.05)


def test_a_cache_that_saves_a_third_is_found() -> None:
    found = [judge(rounds(1.5, count=12, spread=0.1, seed=seed)).answer for seed in range(500)]
    assert found.count(DIFFERS) >= 495
