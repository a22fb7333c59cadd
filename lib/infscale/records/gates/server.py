"""Gates on the server: does it keep up with the arrivals?"""

import math

import numpy as np
import pandas as pd
from scipy import special

from infscale.records.gate import Floats, Gate
from infscale.records.samples import NEVER, ordered

FAILED_MAX = 0.01
"""Largest accepted share of requests that did not succeed."""

GROWTH_MAX = 0.25
"""Largest accepted growth of requests in flight, or of response times, over a trial, as a share of their mean."""

GROWTH_ALPHA = 5e-5
"""Probability of taking chance for growth in one trial. It is the same in every run, so that λ* does not move with the
number of trials."""

QUEUE_MIN = 3.0
"""Growth in requests in flight that is accepted however few requests a trial has: it is no queue yet."""

BEHIND_MAX = 0.01
"""Growth in requests in flight that is accepted, as a share of the requests that came meanwhile: a server that falls
behind by less keeps up."""

BATCHES = 20
"""Equal parts of a trial whose means are compared."""

FIRST_PART = 0.10
"""Share of a trial, from its start, that neither the growth rule nor the percentiles look at."""


def saturated(samples: pd.DataFrame, duration_ns: float) -> tuple[Gate, Gate, Gate]:
    """Judge the signs that a server does not keep up: requests in flight grow, response times grow, requests fail.

    Growth is judged on the means of twenty equal batches of time after the first 10 % of the trial. What counts as a
    queue in response times is, by Little's law, the time in which so many requests arrive.
    """
    in_flight, response_ms = batch_means(samples, duration_ns)
    arrivals = len(samples)
    queue = max(QUEUE_MIN, BEHIND_MAX * (1 - FIRST_PART) * arrivals)
    return (
        growth("in_flight", "requests in flight", in_flight, queue),
        growth("response", "response time (ms)", response_ms, queue / max(arrivals, 1) * duration_ns / 1e6),
        failures(samples),
    )


def batch_means(samples: pd.DataFrame, duration_ns: float, batches: int = BATCHES) -> tuple[Floats, Floats]:
    """Return means over equal batches of [10 %, 100 %] of the trial, each of shape (batches,).

    First the requests in flight (scheduled, not yet done), averaged over time exactly: the integral up to x
    of a counting process with events t is Σ (x − t) over the events before x. Then the response time in ms
    of the requests scheduled in each batch (NaN where there are none); one that was given up counts with
    the time until then.
    """
    edges = np.linspace(FIRST_PART * duration_ns, duration_ns, batches + 1)
    scheduled = samples["scheduled_ns"].to_numpy(dtype=np.float64)
    done = samples["done_ns"].to_numpy(dtype=np.float64)
    ended = done != NEVER
    in_flight = np.diff(_integral(scheduled, edges) - _integral(done[ended], edges)) / np.diff(edges)
    # Equal batches are counted by arithmetic: np.histogram sorts all values if it gets edges.
    batch = np.floor((scheduled - edges[0]) / (edges[1] - edges[0])).astype(np.int64)
    inside = ended & (batch >= 0) & (batch < batches)
    count = np.bincount(batch[inside], minlength=batches)
    total = np.bincount(batch[inside], weights=(done - scheduled)[inside], minlength=batches)
    response_ms = np.divide(total / 1e6, count, out=np.full(batches, np.nan), where=count > 0)
    return in_flight, response_ms


def growth(name: str, what: str, means: Floats, queue: float = 0.0, alpha: float = GROWTH_ALPHA) -> Gate:
    """Judge whether batch means grow by more than 25 % of their mean, beyond chance, and by what could be a queue.

    All three are needed. The slope's t interval takes batches for independent, which those of a busy queue are
    not: alone, at 5 %, it condemns most stationary queues at ρ = 0.9. The strict level and the floor on the
    size of the growth hold false alarms down (docs/gates-simulated.md). The amount is the median slope between two
    batches, times the number of batches, so that one stall, however long a queue it leaves for a while, is no growth.

    Args:
        name, what: of the gate, and of what is averaged.
        means: by batch, NaN where unknown, shape (batches,).
        queue: the smallest amount that could be a queue, in the unit of ``means``.
        alpha: two-sided level of the interval of the slope.

    Source of the median slope: P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau" (1968).
    """
    known = np.isfinite(means)
    y = means[known]
    if y.size < BATCHES // 2 or y.mean() <= 0 or np.ptp(y) == 0:
        return Gate(name, True, 0.0, GROWTH_MAX, f"{what}: no growth to judge")
    x = np.flatnonzero(known).astype(np.float64)
    slope, error = slope_with_error(x, y)
    value = slope * len(means) / float(y.mean())
    half_width = float(special.stdtrit(y.size - 2, 1 - alpha / 2)) * error
    amount = median_slope(x, y) * len(means)
    passed = not (value > GROWTH_MAX and slope - half_width > 0 and amount > queue)
    chance = "beyond chance" if slope - half_width > 0 else "within chance"
    change = f"change of {value:+.0%} of its mean over the trial, {chance}, by {amount:+.3g}"
    text = f"{what}: {change} (at most +{GROWTH_MAX:.0%}, or +{queue:.3g})"
    return Gate(name, passed, value, GROWTH_MAX, text)


def slope_with_error(x: Floats, y: Floats) -> tuple[float, float]:
    """Return the slope of the least-squares line through points of shape (n,), n > 2, and its standard error.

    As ``scipy.stats.linregress``, at a tenth of its time: every trial of a run is judged by two such lines.
    """
    dx, dy = x - x.mean(), y - y.mean()
    spread = float(dx @ dx)
    slope = float(dx @ dy) / spread
    rest = dy - slope * dx
    return slope, math.sqrt(float(rest @ rest) / (len(x) - 2) / spread)


def median_slope(x: Floats, y: Floats) -> float:
    """Return the median of the slopes between all pairs of points of shape (n,), ascending in x, n > 1."""
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def failures(samples: pd.DataFrame) -> Gate:
    """Judge the share of requests that did not succeed: a server that sheds load does not keep up with it."""
    n = len(samples)
    failed = int((samples["status"] != "ok").sum())
    value = failed / n if n else 0.0
    text = f"{failed} of {n} requests failed or timed out ({value:.2%}; at most {FAILED_MAX:.0%})"
    return Gate("errors", value <= FAILED_MAX, value, FAILED_MAX, text)


def _integral(events: Floats, edges: Floats) -> Floats:
    """Return ∫₀ˣ (number of events before t) dt at every edge x."""
    rising = ordered(events)
    before = np.searchsorted(rising, edges)
    sums = np.concatenate(([0.0], np.cumsum(rising)))
    integral: Floats = before * edges - sums[before]
    return integral
