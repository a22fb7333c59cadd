"""Estimates with their intervals: percentiles of censored times, means over replicates, corrected tests.

Pure functions of arrays. Intervals are Student's t on the logarithm, over replicates: rows within a trial
are dependent, replicates are not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

MIN_REPLICATES = 3
"""Fewer replicates get no interval."""
EXPLORATORY_BELOW = 5
"""From three replicates to one fewer than this, an interval is marked exploratory."""
ROBUST_FROM = 6
"""From so many replicates on, the Hodges–Lehmann estimate stands beside the mean."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Percentile:
    """A percentile; ``bound`` is true when the request at that rank never succeeded (``value`` is what it exceeds)."""

    value: float
    bound: bool


@dataclass(frozen=True)
class Interval:
    """A geometric mean over ``replicates`` values and its interval (NaN where it is withheld)."""

    value: float
    low: float
    high: float
    replicates: int
    p_value: float

    @property
    def exploratory(self) -> bool:
        """Whether the interval rests on three or four replicates."""
        return MIN_REPLICATES <= self.replicates < EXPLORATORY_BELOW


def ordered(values: ArrayLike) -> Floats:
    """Sorted values, float64; those that are sorted already come back as they are, which costs far less."""
    x = np.asarray(values, dtype=np.float64)
    return x if bool((x[1:] >= x[:-1]).all()) else np.sort(x)


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


def geometric_mean(values: ArrayLike) -> Interval:
    """The geometric mean of positive values with its 95 % interval, t on the logarithm, R − 1 degrees of freedom.

    ``p_value`` is that of the two-sided t test of the mean logarithm against 0 (a ratio against 1). Both are
    NaN below three values, and where a value is not finite.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    n = logs.size
    nan = float("nan")
    if n == 0:
        return Interval(nan, nan, nan, 0, nan)
    mean = float(np.mean(logs))
    if n < MIN_REPLICATES or not np.isfinite(mean):
        return Interval(float(np.exp(mean)), nan, nan, n, nan)
    error = float(stats.sem(logs))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0)
    return Interval(float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half)), n, p_value)


def hodges_lehmann(values: ArrayLike) -> float:
    """The median of all pairwise geometric means, each value with itself too: one odd replicate moves it little.

    NaN below :data:`ROBUST_FROM` values. Source: J. L. Hodges and E. L. Lehmann, "Estimates of location based on rank
    tests", Ann. Math. Statist. 34 (1963), on the logarithms.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    if logs.size < ROBUST_FROM:
        return float("nan")
    i, j = np.triu_indices(logs.size)
    return float(np.exp(np.median((logs[i] + logs[j]) / 2)))


def spread(values: ArrayLike) -> float:
    """Between-run spread: the geometric standard deviation minus 1 (0.1: runs differ by about 10 %); NaN below two."""
    logs = np.log(np.asarray(values, dtype=np.float64))
    return float(np.expm1(np.std(logs, ddof=1))) if logs.size > 1 else float("nan")


def replicates_needed(effect: float, spread: float, power: float = 0.8) -> int:
    """Fewest replicates at which a paired t test at 5 % finds a ratio of ``effect`` with probability ``power``.

    Args:
        effect: the ratio to be told apart from 1, e.g. 1.1.
        spread: of the pairs' ratios over replicates (:func:`spread`).
        power: in (0, 1).

    Source: the noncentral t distribution, as in J. Cohen, "Statistical power analysis" (1988), chapter 2.
    """
    sigma = np.log1p(spread)
    for n in range(MIN_REPLICATES, 1000):
        shift = abs(np.log(effect)) / sigma * np.sqrt(n) if sigma > 0 else np.inf
        if not np.isfinite(shift) or achieved_power(shift, n) >= power:
            return n
    return 1000


def achieved_power(shift: float, n: int) -> float:
    """Probability that a two-sided t test at 5 % of n values rejects, its statistic being shifted by ``shift``."""
    critical = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))


def early_stopping(n: int, over: int, p: float = 0.99, confidence: float = 0.99) -> bool:
    """Whether n queries, ``over`` of them beyond a limit, show that its percentile ``p`` lies within the limit.

    True from n ≥ h + t on, for the smallest h with I(p; h, t + 1) ≤ 1 − confidence, I the regularised incomplete beta
    function and t = ``over``: 459 queries without any for p99, 662 with one. Queries are taken for independent, which
    those of a busy server are not.

    Source: V. J. Reddi et al., "MLPerf Inference Benchmark" (ISCA 2020) and its rules on early stopping.
    """
    h = n - over
    return h > 0 and bool(special.betainc(h, over + 1, p) <= 1 - confidence)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p-values, shape as given; NaN stays NaN and does not count as a test.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted
