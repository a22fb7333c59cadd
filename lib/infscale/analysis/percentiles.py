"""Percentiles of one trial in which some requests never succeeded, and MLPerf's rule of early stopping."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from infscale.analysis.intervals import CONFIDENCE, MIN_LIFETIMES, Interval
from infscale.records.gate import Floats
from infscale.records.samples import NEVER, ordered


@dataclass(frozen=True)
class Percentile:
    """A percentile of one trial.

    Attributes:
        value: in the unit of the times.
        bound: whether the request at that rank never succeeded, so that the percentile exceeds ``value``.
    """

    value: float
    bound: bool


WITHHELD = Percentile(float("nan"), False)


def pooled_percentile(parts: Sequence[Floats], p: float) -> Interval:
    """Return a percentile of the values of all lifetimes together, with its 95 % interval.

    The interval is that of the jackknife: a lifetime at a time is left out, the logarithms of what the others give are
    turned into pseudo-values, and Student's t on them has R − 1 degrees of freedom. Lifetimes are what is independent;
    within one of them requests queue behind one another. NaN below three lifetimes, or where one of these percentiles
    is infinite.

    Source: R. G. Miller, "The jackknife: a review", Biometrika 61 (1974).

    Args:
        parts: of each lifetime, positive values in ascending order, +∞ for one that never came, shape (n,).
        p: between 0 and 1.
    """
    value, count = _rank(parts, p), len(parts)
    if count < MIN_LIFETIMES or not np.isfinite(value):
        return Interval(value, np.nan, np.nan, count, np.nan)
    without = np.array([_rank([*parts[:k], *parts[k + 1 :]], p) for k in range(count)])
    if not np.isfinite(without).all():
        return Interval(value, np.nan, np.nan, count, np.nan)
    pseudo = count * math.log(value) - (count - 1) * np.log(without)
    half = float(special.stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * float(np.std(pseudo, ddof=1)) / math.sqrt(count)
    return Interval(value, value * math.exp(-half), value * math.exp(half), count, np.nan)


def _rank(parts: Sequence[Floats], p: float) -> float:
    ordered_values = np.sort(np.concatenate(parts))
    return float(ordered_values[max(0, math.ceil(p * len(ordered_values)) - 1)])


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
        """Return the order statistic of rank ⌈np⌉ (the inverse of the empirical distribution function).

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


def trial_times(rows: pd.DataFrame, timeout_ms: float) -> dict[str, Times]:
    """Return the times of one trial's requests in ms, ready for percentiles.

    Args:
        rows: the trial's samples, with ``status`` and the times ``scheduled_ns``, ``due_ns``, ``sent_ns``, ``done_ns``.
        timeout_ms: the limit that a request with status "timeout" exceeded.

    Returns:
        ``response`` (from the scheduled time) and ``roundtrip`` (from the actual send) of all requests, failures
        ordered above the successes; ``response_ok`` and ``roundtrip_ok`` of the successes alone; ``lag`` of those that
        became due and ``wait`` of those that were sent.
    """
    ok = (rows["status"] == "ok").to_numpy()
    timeouts = int((rows["status"] == "timeout").sum())
    failures = len(rows) - int(ok.sum()) - timeouts
    names = ("scheduled_ns", "due_ns", "sent_ns", "done_ns")
    scheduled, due, sent, done = (rows[name].to_numpy(dtype=np.int64) for name in names)
    response, roundtrip = ordered((done - scheduled)[ok] / 1e6), ordered((done - sent)[ok] / 1e6)
    was_due, was_sent = due != NEVER, sent != NEVER
    return {
        "response": Times(response, timeouts, failures, timeout_ms),
        "roundtrip": Times(roundtrip, timeouts, failures, timeout_ms),
        "response_ok": Times(response),
        "roundtrip_ok": Times(roundtrip),
        "lag": Times((due - scheduled)[was_due] / 1e6),
        "wait": Times((sent - due)[was_due & was_sent] / 1e6),
    }


def fewest_queries(p: float, over: int = 1, confidence: float = 0.99, tolerance: float = 0.0) -> int:
    """Return the fewest queries of which ``over`` may exceed a limit and still show that it holds at percentile ``p``.

    By MLPerf's bound of early stopping: n = h + t with t = ``over``, for the smallest h at which t or fewer of n
    independent queries would exceed the limit with a probability of at most 1 − ``confidence`` if each of them did with
    the probability 1 − (p − ``tolerance``): :func:`early_stopping`, whose incomplete beta function I(p − d; h, t + 1)
    is the binomial tail P(X ≤ t; h + t, 1 − p + d).

    With ``over`` = 1, the default, it is the floor below which LoadGen gives no estimate of a percentile: 662 queries
    for p99, 64 for p90. It assumes independence, which queries of a busy server lack.

    Source: MLCommons inference, loadgen/early_stopping.cc and results.cc; confidence 0.99, tolerance 0 there.

    Args:
        p: between ``tolerance`` and 1.
        over: t, 0 or more.
        confidence, tolerance: c and d of the bound.
    """
    few, enough = over, over + 1  # doubled until one suffices, then halved: with more queries the tail only falls
    while not early_stopping(enough, over, p - tolerance, confidence):
        few, enough = enough, 2 * enough
    while enough - few > 1:
        n = (few + enough) // 2
        few, enough = (few, n) if early_stopping(n, over, p - tolerance, confidence) else (n, enough)
    return enough


def early_stopping(n: int, over: int, p: float = 0.99, confidence: float = 0.99) -> bool:
    """Return whether n queries, ``over`` of them beyond a limit, show that their percentile ``p`` is within it.

    True from n ≥ h + t on, for the smallest h with I(p; h, t + 1) ≤ 1 − confidence, I the regularised incomplete beta
    function and t = ``over``: 459 queries without any for p99, 662 with one. Queries are taken for independent, which
    those of a busy server are not.

    Source: V. J. Reddi et al., "MLPerf Inference Benchmark" (ISCA 2020) and its rules on early stopping.
    """
    h = n - over
    return h > 0 and bool(special.betainc(h, over + 1, p) <= 1 - confidence)
