"""The simulation of the gates: if these fail, the published rates of false and missed alarms are of other queues."""

import numpy as np
import pytest
from benchmarks.truth import gates as truth

from infscale.load.null_server import lindley


def test_one_worker_is_the_queue_of_the_truth_benchmarks() -> None:
    rng = np.random.default_rng(1)
    arrivals = np.sort(rng.integers(0, 10**9, (3, 400)), axis=1)
    service = rng.integers(0, 4_000_000, (3, 400))
    found = truth.responses(arrivals.astype(np.float64), service.astype(np.float64), 1)
    assert found.tolist() == [lindley(*each).tolist() for each in zip(arrivals, service, strict=True)]


def test_a_request_waits_for_the_first_worker_that_is_free() -> None:
    arrivals = np.array([[0.0, 1.0, 2.0, 3.0]])
    service = np.array([[10.0, 4.0, 1.0, 1.0]])
    assert truth.responses(arrivals, service, 2).tolist() == [[10.0, 4.0, 4.0, 4.0]]


@pytest.mark.parametrize("rate", [50.0, 2000.0])
def test_arrivals_are_a_poisson_process_of_their_rate(rate: float) -> None:
    """Each trial has its own number of them; all lie within its length, in order."""
    drawn, responses = truth.trials(
        np.random.default_rng(2), 200, rate, 2.0, lambda rng, shape: np.ones(shape), 1, 1e-6
    )
    counts = np.array([len(times) for times in drawn])
    assert [len(r) for r in responses] == counts.tolist()
    assert counts.mean() == pytest.approx(2 * rate, rel=4 / np.sqrt(400 * rate))
    assert 0.7 < counts.var() / counts.mean() < 1.4
    assert all((np.diff(times) >= 0).all() and times[-1] < 2.0 for times in drawn)
    assert np.concatenate(drawn).mean() == pytest.approx(1.0, abs=0.02)


def test_the_shares_are_those_of_the_verdicts() -> None:
    """An overloaded queue is SATURATED, one that is next to idle is neither."""
    for rho, expected in ((3.0, (1.0, 0.0)), (0.01, (0.0, 0.0))):
        drawn = truth.trials(np.random.default_rng(3), 10, 500, 1.0, lambda rng, s: np.ones(s), 1, rho / 500)
        assert truth.shares(*drawn, 1.0) == expected
