"""How many independent requests the dependent ones of a trial are worth.

Pure functions of arrays in the order of arrival.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, stats

from infscale.records.gate import Floats
from infscale.records.samples import ordered

WINDOW = 5.0
"""Sokal's window: lags up to this many autocorrelation times are summed."""


def autocorrelation_time(values: ArrayLike) -> tuple[float, float]:
    """Return the integrated autocorrelation time τ = 1 + 2 Σ ρ_k, at least 1, in values, and its standard error.

    The sum ends at the smallest lag M with M ≥ 5 τ(M) (a sum over all lags has no finite variance); the error is
    τ √(2(2M + 1) ÷ n).

    Source: A. Sokal, "Monte Carlo methods in statistical mechanics" (1997), section 3.

    Args:
        values: shape (n,), in the order of arrival; constant values give 1.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2 or np.ptp(x) == 0:
        return 1.0, 0.0
    size = fft.next_fast_len(2 * n, real=True)
    power = np.abs(fft.rfft(x - x.mean(), size)) ** 2
    covariance = fft.irfft(power, size)[:n]
    tau = 2 * np.cumsum(covariance / covariance[0]) - 1
    inside = np.arange(n) >= WINDOW * tau
    window = int(np.argmax(inside)) if inside.any() else n - 1
    time = max(1.0, float(tau[window]))
    return time, time * float(np.sqrt(2 * (2 * window + 1) / n))


@dataclass(frozen=True)
class Quantile:
    """A percentile of one trial with its interval; an end whose rank lies beyond the trial's values is NaN.

    Attributes:
        value, low, high: of the values' unit.
        n_eff: n ÷ τ, the number of independent requests that the trial's n are worth for this percentile.
    """

    value: float
    low: float
    high: float
    n_eff: float


def quantiles(values: ArrayLike, levels: Sequence[float], confidence: float = 0.95) -> list[Quantile]:
    """Return percentiles of dependent values with their intervals: p ± z √(p(1 − p) ÷ n_eff), as ranks of the n values.

    n_eff is n ÷ τ, with τ of the indicator of values at or below the percentile, one standard error more than
    estimated: with the estimate itself 93–95 % of the intervals cover (tests/analysis/test_dependence.py simulates).
    An end of the interval is NaN where its level leaves (0, 1): for p99 at n_eff < 381, for p99.9 at n_eff < 3,838.

    Args:
        values: shape (n,), in the order of arrival; +∞ for a request that did not succeed.
        levels: each p in (0, 1).
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n == 0:
        return [Quantile(np.nan, np.nan, np.nan, 0.0) for _ in levels]
    in_order = ordered(x)
    return [_quantile(x, in_order, p, confidence) for p in levels]


def quantile(values: ArrayLike, p: float, confidence: float = 0.95) -> Quantile:
    """Return :func:`quantiles` at one level."""
    return quantiles(values, [p], confidence)[0]


def _quantile(x: Floats, ordered: Floats, p: float, confidence: float) -> Quantile:
    n = len(x)
    value = float(ordered[_rank(n, p)])
    n_eff = n / sum(autocorrelation_time(x <= value))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * np.sqrt(p * (1 - p) / n_eff)
    low = float(ordered[_rank(n, p - half)]) if p - half > 0 else np.nan
    high = float(ordered[_rank(n, p + half)]) if p + half < 1 else np.nan
    return Quantile(value, low, high, n_eff)


def _rank(n: int, p: float) -> int:
    """Return the index of the order statistic of rank ⌈np⌉."""
    return max(0, int(np.ceil(n * p - 1e-9)) - 1)
