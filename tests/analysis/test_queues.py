"""If these fail, a curve behind the points is not the queue that its legend names."""

import numpy as np
import pytest

from infscale.analysis.queueing.queues import MODELS, fit, mean_response_ms

RATES = np.array([100.0, 300.0, 500.0, 700.0, 850.0])


def test_the_formulas_are_those_of_the_books() -> None:
    """At λS = 0.5 and S = 1 ms: M/M/1 2 ms, M/D/1 1.5 ms, and M/G/1 between and beyond by its c²."""
    assert mean_response_ms("M/M/1", 500, 0, 1) == pytest.approx(2.0)
    assert mean_response_ms("M/D/1", 500, 0, 1) == pytest.approx(1.5)
    assert mean_response_ms("M/G/1", 500, 0, 1, 4.0) == pytest.approx(3.5)
    assert np.isinf(mean_response_ms("M/M/1", 1000, 0, 1))


@pytest.mark.parametrize("model", list(MODELS))
def test_a_queue_that_is_one_is_found_with_its_parameters(model: str) -> None:
    truth = mean_response_ms(model, RATES, 0.4, 0.9, 2.5)
    result = fit(model, RATES, truth)
    assert result["t_ms"] == pytest.approx(0.4, rel=0.02)
    assert result["s_ms"] == pytest.approx(0.9, rel=0.02)
    assert result["misfit"] < 0.01


def test_the_misfit_says_that_another_queue_it_is_not() -> None:
    truth = mean_response_ms("M/G/1", RATES, 0.1, 1.0, 9.0)
    assert fit("M/D/1", RATES, truth)["misfit"] > 5 * fit("M/G/1", RATES, truth)["misfit"]


def test_as_many_parameters_as_points_are_no_fit() -> None:
    assert np.isnan(fit("M/G/1", RATES[:3], np.array([1.0, 2.0, 3.0]))["misfit"])
