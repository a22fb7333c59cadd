"""If these fail, the load is not the Poisson process that every figure's axis claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from infscale import arrivals
from infscale.errors import ConfigError

SEED = np.random.SeedSequence


def test_gaps_are_exponential_with_mean_one_over_lambda() -> None:
    gaps = np.diff(arrivals.poisson(2000, 20, SEED(5))) / 1e9
    assert gaps.mean() == pytest.approx(1 / 2000, rel=0.02)
    # Anderson–Darling with estimated scale: 1.957 is the 1 % critical value for the exponential.
    result = stats.anderson(gaps, "expon", method="interpolate")  # type: ignore[call-overload]  # stubs misspell it
    assert result.statistic < 1.957


def test_counts_have_the_dispersion_of_a_poisson_process_and_no_memory() -> None:
    counts = np.histogram(arrivals.poisson(2000, 50, SEED(6)), bins=5000)[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.06)
    assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) < 0.05


def test_shards_are_independent_and_add_up() -> None:
    """Workers with one seed keep the mean and ruin the process: twice the dispersion."""
    parts = arrivals.shards(2000, 50, SEED(7), 2)
    assert not np.array_equal(parts[0][:10], parts[1][:10])
    counts = np.histogram(np.concatenate(parts), bins=5000)[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.06)


@given(st.floats(0.1, 5000), st.floats(0.01, 2), st.integers(0, 2**32))
def test_a_schedule_is_ascending_within_its_time_and_repeats_by_seed(rate: float, duration: float, seed: int) -> None:
    schedule = arrivals.poisson(rate, duration, SEED(seed))
    assert schedule.dtype == np.int64
    assert (np.diff(schedule) >= 0).all()
    assert ((schedule >= 0) & (schedule < duration * 1e9)).all()
    assert np.array_equal(schedule, arrivals.poisson(rate, duration, SEED(seed)))


@pytest.mark.parametrize("rate", [0, -5, float("nan"), float("inf"), "100", True, None])
def test_a_rate_that_is_no_positive_number_is_named(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"rate=.* accepted: a number of requests/s above 0"):
        arrivals.poisson(rate, 1, SEED(1))


def test_payload_choice_covers_the_pool_evenly() -> None:
    choice = arrivals.payload_choice(64_000, 64, SEED(1))
    assert stats.chisquare(np.bincount(choice, minlength=64)).pvalue > 0.001
