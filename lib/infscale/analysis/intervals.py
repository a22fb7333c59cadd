"""Estimates over lifetimes with their intervals, and corrected tests.

Pure functions of arrays. Intervals are Student's t on the logarithm, over lifetimes: rows within a trial
are dependent, lifetimes are not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from infscale.records.gate import Floats

MIN_LIFETIMES = 3
"""Fewest lifetimes for an interval."""
CONFIDENCE = 0.95
"""The level of every interval."""


@dataclass(frozen=True)
class Interval:
    """A geometric mean with its interval.

    Attributes:
        value: the mean.
        low, high: ends of the 95 % interval; NaN where it is withheld.
        lifetimes: number of values.
        p_value: of the test of the mean against 1; NaN where the interval is withheld.
    """

    value: float
    low: float
    high: float
    lifetimes: int
    p_value: float


NOTHING = Interval(float("nan"), float("nan"), float("nan"), 0, float("nan"))
"""What too few values say."""


def geometric_mean(values: ArrayLike) -> Interval:
    """Return the geometric mean of R positive values with its 95 % interval.

    The interval is Student's t on the logarithm with R − 1 degrees of freedom. ``p_value`` is that of the two-sided t
    test of the mean logarithm against 0 (a ratio against 1). Both are NaN below three values, and where a value is not
    finite.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    n = logs.size
    nan = float("nan")
    if n == 0:
        return Interval(nan, nan, nan, 0, nan)
    mean = float(np.mean(logs))
    if n < MIN_LIFETIMES or not np.isfinite(mean):
        return Interval(float(np.exp(mean)), nan, nan, n, nan)
    error = float(np.std(logs, ddof=1) / np.sqrt(n))
    half = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    p_value = float(2 * special.stdtr(n - 1, -abs(mean) / error)) if error > 0 else float(mean == 0)
    return Interval(float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half)), n, p_value)


def spread(values: ArrayLike) -> float:
    """Return the spread between runs: the geometric standard deviation minus 1; NaN below two values.

    0.1 means that runs differ by about 10 %.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    return float(np.expm1(np.std(logs, ddof=1))) if logs.size > 1 else float("nan")


def holm(p_values: ArrayLike) -> Floats:
    """Return Holm's adjusted p-values, shape as given; NaN stays NaN and does not count as a test.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted
