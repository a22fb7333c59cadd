"""If these fail, a trial's start counts as its steady state, or a sound trial is thrown away."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from infscale.records import samples
from infscale.records.gates.steady import own_warm_up_s, warm_up


def test_a_warm_up_is_cut_where_it_ends() -> None:
    """A JIT compiler's first second, ten times as slow, must not be in the percentiles."""
    rng = np.random.default_rng(6)
    cuts = []
    for _ in range(200):
        values = rng.exponential(1.0, 4000)
        values[:600] += 10.0
        cuts.append(warm_up(values))
    assert np.mean([600 <= cut < 900 for cut in cuts]) > 0.9
    assert min(cuts) >= 600


def test_a_steady_trial_keeps_nearly_all_of_its_requests() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(scale=0.6, size=(200, 4000))
    shares = [warm_up(np.exp(signal.lfilter([1], [1, -0.8], own))) / 4000 for own in noise]
    assert np.median(shares) < 0.05
    assert np.mean(np.array(shares) > 0.5) < 0.05


def test_a_trial_that_drifts_throughout_has_no_steady_part() -> None:
    values = np.exp(np.linspace(0, 10, 4000) + np.random.default_rng(8).normal(size=4000))
    assert warm_up(values) == 4000


@given(st.lists(st.floats(1e-9, 1e9), min_size=0, max_size=300))
def test_any_values_have_a_cut_within_them(values: list[float]) -> None:
    assert 0 <= warm_up(values) <= len(values)


def test_a_cut_does_not_depend_on_the_unit() -> None:
    """Seconds, ms or ns: the same trial must keep the same requests."""
    rng = np.random.default_rng(11)
    values = rng.exponential(1.0, 3000) + np.where(np.arange(3000) < 400, 8.0, 0.5)
    assert 400 <= warm_up(values) == warm_up(1e-3 * values) == warm_up(1e6 * values)


def test_the_warm_up_of_a_trial_is_in_seconds_from_its_start_in_any_order_of_rows() -> None:
    """Two shards are concatenated; and requests that never ended say nothing of when it settled."""
    scheduled = np.arange(4000) * 1_000_000
    rng = np.random.default_rng(12)
    response = rng.integers(1_000_000, 3_000_000, 4000) + np.where(scheduled < 1e9, 30_000_000, 0)
    frame = samples.synthetic(scheduled, response, lag_ns=50_000)
    assert own_warm_up_s(frame, 4.0) == pytest.approx(1.0, abs=0.1)
    assert own_warm_up_s(frame.sample(frac=1, random_state=1), 4.0) == own_warm_up_s(frame, 4.0)
    lost = frame.assign(done_ns=frame["done_ns"].where(np.arange(4000) % 2 == 0, samples.NEVER))
    assert own_warm_up_s(lost, 4.0) == pytest.approx(1.0, abs=0.1)
    drifting = samples.synthetic(scheduled, (1e6 * np.exp(scheduled / 1e9)).astype(np.int64), lag_ns=50_000)
    assert own_warm_up_s(drifting, 4.0) == float("inf")
    assert own_warm_up_s(frame.iloc[:0], 4.0) == 0
