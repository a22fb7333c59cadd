"""Estimates of several machines: each machine by itself, and all together only as a random effect.

Machines are what is independent, and a machine's own value is drawn from all that there might be. So a pooled value is
the mean of the machines' values, each counted once, and its interval comes from how much they differ: more lifetimes on
one machine say more about that machine, and nothing about the next.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from infscale.analysis.answers import ALPHA, LEAST, SAME, interval

MIN_MACHINES = 3
"""Fewest machines for a pooled value: the interval from two is wider than any difference of interest."""


@dataclass(frozen=True)
class Estimate:
    """What one machine says of a contrast.

    Attributes:
        ratio: the geometric mean of the lifetimes' ratios; their median where one is infinite, NaN without values.
        low, high: its plain 95 % interval over lifetimes; 0 or ∞ where only a bound is known, NaN where there is none.
        lifetimes: number of values.
        variance: the squared standard error of the logarithm of ``ratio``; NaN of an estimate that is not pooled.
        why: why it is not pooled; "" of one that is.
    """

    ratio: float
    low: float
    high: float
    lifetimes: int
    variance: float
    why: str


@dataclass(frozen=True)
class Pooled:
    """What several machines say together of a contrast.

    Attributes:
        ratio, low, high: the geometric mean over machines with its 95 % interval.
        machines: how many it rests on.
        between: by which factor machines differ: e to the standard deviation τ of the logarithms of their true ratios,
            1 where they differ no more than their lifetimes explain.
        between_low, between_high: its 95 % interval.
        next_low, next_high: the 95 % prediction interval: where the estimate of one more machine would lie, measured
            for as many lifetimes as these were.
    """

    ratio: float
    low: float
    high: float
    machines: int
    between: float
    between_low: float
    between_high: float
    next_low: float
    next_high: float


def estimate(logs: ArrayLike) -> Estimate:
    """Return what one machine says of a contrast.

    The interval is Student's t over lifetimes, or the sign test's where a value is infinite
    (:func:`infscale.analysis.answers.interval`).

    Args:
        logs: the logarithm of the ratio in each lifetime, shape (n,); ±∞ where an arm did not answer in time or kept up
            with every rate, NaN where the lifetime says nothing.
    """
    values = np.asarray(logs, dtype=np.float64)
    values = values[~np.isnan(values)]
    n, nan = values.size, math.nan
    if not n:
        return Estimate(nan, nan, nan, 0, nan, "no lifetime has a value")
    finite = np.isfinite(values)
    ratio = float(np.exp(np.mean(values) if finite.all() else np.median(values)))
    if n < LEAST:
        return Estimate(ratio, nan, nan, n, nan, f"{n} of at least {LEAST} lifetimes have a value")
    low, high = np.exp(interval(values, ALPHA)).tolist()
    why = ""
    if not finite.all():
        why = f"a bound: {n - int(finite.sum())} of {n} lifetimes have an infinite ratio"
    elif np.ptp(values) < SAME:
        why = "all lifetimes have the same value"
    return Estimate(ratio, low, high, n, nan if why else float(np.var(values, ddof=1)) / n, why)


def pool(estimates: Sequence[Estimate]) -> Pooled | None:
    """Return what several machines say together; None where fewer than :data:`MIN_MACHINES` have an estimate to pool.

    The mean m of the k machines' logarithms y has the interval m ± t s ÷ √k: Student's t with k − 1 degrees of freedom,
    s the standard deviation of y. It needs no weights, which would be estimated from a few lifetimes, and it covers
    with at least 95 % also where some machines are noisier than others (Ibragimov and Müller). The prediction interval
    is m ± t s √(1 + 1 ÷ k). τ² is s² less the mean squared standard error, and at least 0 (Hedges and Olkin); the ends
    of its interval are those of s², by χ² with k − 1 degrees of freedom, less the same.

    Sources: R. Ibragimov and U. K. Müller, "t-Statistic based correlation and heterogeneity robust inference", Journal
    of Business & Economic Statistics 28 (2010); L. V. Hedges and I. Olkin, "Statistical methods for meta-analysis"
    (1985), chapter 9. Simulated in docs/machines-simulated.md.
    """
    used = [one for one in estimates if not one.why]
    logs = np.log([one.ratio for one in used])
    k = logs.size
    if k < MIN_MACHINES or np.ptp(logs) < SAME:
        return None
    middle, square = float(np.mean(logs)), float(np.var(logs, ddof=1))
    t = float(special.stdtrit(k - 1, 1 - ALPHA / 2))
    half, ahead = t * math.sqrt(square / k), t * math.sqrt(square * (1 + 1 / k))
    within = float(np.mean([one.variance for one in used]))
    freedom = k - 1
    squares = (
        square,
        freedom * square / float(special.chdtri(freedom, ALPHA / 2)),
        freedom * square / float(special.chdtri(freedom, 1 - ALPHA / 2)),
    )
    between, between_low, between_high = (math.exp(math.sqrt(max(0.0, one - within))) for one in squares)
    return Pooled(
        ratio=math.exp(middle),
        low=math.exp(middle - half),
        high=math.exp(middle + half),
        machines=k,
        between=between,
        between_low=between_low,
        between_high=between_high,
        next_low=math.exp(middle - ahead),
        next_high=math.exp(middle + ahead),
    )
