"""If these fail, a night is planned that cannot answer its question, or one odd replicate moves the estimate."""

import numpy as np
import pytest

from infscale.analysis.intervals import CONFIDENCE, geometric_mean, hodges_lehmann, spread
from infscale.analysis.percentiles import early_stopping
from infscale.analysis.power import replicates_needed

CASES = 4000


def found(effect: float, differ: float, replicates: int) -> float:
    """How often a paired comparison of that many replicates tells the ratio from 1, by simulation."""
    rng = np.random.default_rng(11)
    ratios = np.exp(rng.normal(scale=np.log1p(differ), size=(CASES, replicates))) * effect
    return float(np.mean([geometric_mean(case).p_value < 1 - CONFIDENCE for case in ratios]))


@pytest.mark.parametrize(("effect", "differ"), [(1.1, 0.05), (1.3, 0.2), (0.8, 0.1)])
def test_as_many_replicates_as_promised_are_enough_and_one_fewer_is_not(effect: float, differ: float) -> None:
    n = replicates_needed(effect, differ)
    assert found(effect, differ, n) >= 0.8 - 0.02
    assert n == 3 or found(effect, differ, n - 1) < 0.8 + 0.02


def test_no_spread_needs_the_fewest_and_no_effect_more_than_anyone_has() -> None:
    assert replicates_needed(1.1, 0.0) == 3
    assert replicates_needed(1.0, 0.1) == 1000


def test_the_spread_is_that_of_the_runs() -> None:
    rng = np.random.default_rng(12)
    assert spread(np.exp(rng.normal(3, np.log(1.2), 20_000))) == pytest.approx(0.2, rel=0.03)
    assert np.isnan(spread([2.0]))


@pytest.mark.parametrize(("over", "least"), [(0, 459), (1, 662), (10, 2010), (100, 12_571)])
def test_early_stopping_takes_as_many_queries_as_mlperf_says(over: int, least: int) -> None:
    assert early_stopping(least, over)
    assert not early_stopping(least - 1, over)


def test_one_odd_replicate_moves_the_mean_and_not_this() -> None:
    steady = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01]
    assert hodges_lehmann([*steady, 50.0]) == pytest.approx(1.0, abs=0.03)
    assert geometric_mean([*steady, 50.0]).value > 1.5
    assert np.isnan(hodges_lehmann(steady[:5]))
