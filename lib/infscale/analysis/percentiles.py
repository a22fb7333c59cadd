"""Percentiles of one trial in which some requests never succeeded, and MLPerf's rule of early stopping."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from infscale.records.gate import Floats
from infscale.records.samples import ordered


@dataclass(frozen=True)
class Percentile:
    """A percentile; ``bound`` is true when the request at that rank never succeeded (``value`` is what it exceeds)."""

    value: float
    bound: bool


WITHHELD = Percentile(float("nan"), False)


class Times:
    """Response times of one trial, sorted, with the requests that never succeeded ordered above them.

    A timeout counts as more than its limit and any other failure as +∞, so that a server that refuses fast
    does not look fast.

    Args:
        successes: shape (n,), any unit.
        timeouts: how many requests were given up at ``limit`` (same unit).
        failures: how many ended in another failure.
    """

    def __init__(self, successes: ArrayLike, timeouts: int = 0, failures: int = 0, limit: float = np.inf) -> None:
        self.ordered: Floats = ordered(successes)
        self.timeouts = timeouts
        self.limit = limit
        self.n = len(self.ordered) + timeouts + failures

    def percentile(self, p: float) -> Percentile:
        """The order statistic of rank ⌈np⌉ (the inverse of the empirical distribution function).

        No interpolation: between a time and +∞ there is nothing to interpolate. Withheld (NaN) when fewer
        than one request is expected beyond it: n(1 − p) < 1.
        """
        if self.n == 0 or self.n * (1 - p) < 1 - 1e-9:
            return WITHHELD
        rank = max(1, int(np.ceil(self.n * p - 1e-9)))
        k = len(self.ordered)
        if rank <= k:
            return Percentile(float(self.ordered[rank - 1]), False)
        if rank <= k + self.timeouts:
            return Percentile(max(self.limit, float(self.ordered[-1]) if k else 0.0), True)
        return Percentile(float("inf"), True)


def early_stopping(n: int, over: int, p: float = 0.99, confidence: float = 0.99) -> bool:
    """Whether n queries, ``over`` of them beyond a limit, show that its percentile ``p`` lies within the limit.

    True from n ≥ h + t on, for the smallest h with I(p; h, t + 1) ≤ 1 − confidence, I the regularised incomplete beta
    function and t = ``over``: 459 queries without any for p99, 662 with one. Queries are taken for independent, which
    those of a busy server are not.

    Source: V. J. Reddi et al., "MLPerf Inference Benchmark" (ISCA 2020) and its rules on early stopping.
    """
    h = n - over
    return h > 0 and bool(special.betainc(h, over + 1, p) <= 1 - confidence)
