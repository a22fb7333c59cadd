"""Queues with one server, fitted to the mean response times below saturation.

R(λ) = T + W(λ): T is what does not queue (transport), W the time in a queue with mean service time S:

- M/M/1: W = S ÷ (1 − λS)
- M/D/1: W = S + λS² ÷ (2 (1 − λS))
- M/G/1: W = S + λS² (1 + c²) ÷ (2 (1 − λS)), c the coefficient of variation of the service time (Pollaczek–Khinchine)

Source: L. Kleinrock, "Queueing Systems", volume 1 (1975), chapters 3 and 5. A server with workers, batches or shared
cores is none of these: the misfit says how far it is.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from infscale.records.gate import Floats

MODELS = {"M/M/1": 2, "M/D/1": 2, "M/G/1": 3}
"""Number of free parameters of each queue: T and S, and c² for M/G/1."""


def mean_response_ms(model: str, rate_per_s: ArrayLike, t_ms: float, s_ms: float, cv2: float = 1.0) -> Floats:
    """Return the mean response time R(λ) in ms; +∞ from λS = 1 on.

    Args:
        model: a key of :data:`MODELS`.
        rate_per_s: arrival rates λ, any shape.
        t_ms, s_ms: T and S.
        cv2: c², of M/G/1; it is 1 for M/M/1 and 0 for M/D/1.
    """
    squared = {"M/M/1": 1.0, "M/D/1": 0.0}.get(model, cv2)
    load = np.asarray(rate_per_s, dtype=np.float64) * s_ms / 1e3
    with np.errstate(divide="ignore"):
        wait = np.where(load < 1, s_ms * load * (1 + squared) / (2 * np.where(load < 1, 1 - load, 1)), np.inf)
    response: Floats = t_ms + s_ms + wait
    return response


def fit(model: str, rate_per_s: Floats, response_ms: Floats) -> dict[str, float]:
    """Return T, S, c² and the misfit of one queue, fitted by least squares on the logarithm.

    ``misfit`` is the root mean square of the relative deviations (0.1: about 10 %), on the degrees of freedom that are
    left. All NaN where there are no more points than parameters.
    """
    names = ("t_ms", "s_ms", "cv2")[: MODELS[model]]
    if len(rate_per_s) <= len(names):
        return dict.fromkeys(("t_ms", "s_ms", "cv2", "misfit"), np.nan)
    most = 0.999e3 / rate_per_s.max()

    def deviations(values: Floats) -> Floats:
        logs: Floats = np.log(mean_response_ms(model, rate_per_s, *values) / response_ms)
        return logs

    starts = [(response_ms.min() / 2, share * most, 1.0)[: len(names)] for share in (0.1, 0.5, 0.9)]
    bounds = ((0, 1e-9 * most, 0)[: len(names)], (response_ms.min(), most, 1e3)[: len(names)])
    fitted = min((_minimum(deviations, start, bounds) for start in starts), key=lambda result: result.cost)
    cv2 = {"M/M/1": 1.0, "M/D/1": 0.0}.get(model, fitted.x[-1])
    misfit = float(np.sqrt(2 * fitted.cost / (len(rate_per_s) - len(names))))
    return {"t_ms": float(fitted.x[0]), "s_ms": float(fitted.x[1]), "cv2": float(cv2), "misfit": misfit}


def _minimum(
    deviations: Callable[[Floats], Floats], start: Sequence[float], bounds: tuple[Sequence[float], Sequence[float]]
) -> optimize.OptimizeResult:
    """Return a local minimum, so near to it that other processors end at the same parameters to seven digits."""
    return optimize.least_squares(deviations, start, bounds=bounds, jac="3-point", ftol=None, xtol=1e-12, gtol=1e-12)
