"""Where a trial's warm-up ends, and whether it ends at all."""

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from infscale.records.gate import Floats, Gate
from infscale.records.gates.server import slope_with_error
from infscale.records.samples import NEVER

BATCHES = 100
"""Equal batches of a trial whose means are searched for the end of the warm-up."""
SEARCHED = 0.75
"""Share of the batches that is searched."""
LATEST_CUT = 0.5
"""A cut beyond this share of a trial means that it never became steady: its percentiles are withheld."""
PARTS = 20
"""Equal parts in which what a cut leaves, or divides, is compared."""
MATTERS = math.log(1.25)
"""Change of the mean log response time that a cut, or a drift, must amount to."""
STEP_ALPHA = 0.01
"""Probability of taking chance for a difference between what is before and after a late cut. The cut is chosen, so that
the difference is there by chance more often than this (docs/gates-simulated.md)."""
DRIFT_ALPHA = 0.005
"""Probability of taking chance for a drift of what a cut leaves, where parts are independent."""


def warm_up(values: ArrayLike) -> int:
    """Return how many values to leave out at the start, by MSER on the logarithm; n when they never become steady.

    The means Y of a hundred equal batches are cut at the d that makes Σ_{i>d} (Y_i − Ȳ_d)² ÷ (k − d)² smallest, over
    the first three quarters. There is no steady part, and n is returned, in two cases: the cut lies past the half, and
    what it divides differs; or what the cut leaves drifts. Both must be beyond chance and by 25 %: in short trials a
    burst of arrivals moves the cut past the half as often as a warm-up does. A late cut that does not matter is
    replaced by the best one in the first half. MSER-5 on the times themselves cuts at single late hiccups
    (docs/decisions/0009-warm-up.md).

    Source: K. P. White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69
    (1997).

    Args:
        values: shape (n,), positive and finite, in the order of arrival.
    """
    x = np.log(np.asarray(values, dtype=np.float64))
    batch = max(1, len(x) // BATCHES)
    k = len(x) // batch
    if k < 10:
        return 0
    y = x[: k * batch].reshape(k, batch).mean(axis=1)
    y -= y.mean()  # the sums below would lose digits otherwise
    left = np.arange(k, 0, -1)
    sums, squares = np.cumsum(y[::-1])[::-1], np.cumsum(y[::-1] ** 2)[::-1]
    spread = np.maximum(squares - sums**2 / left, 0) / left**2.0
    cut = int(np.argmin(spread[: int(SEARCHED * k)]))  # of the last few batches the spread is small by chance
    if cut > LATEST_CUT * k:
        if _steps(x, cut / k):
            return len(x)
        cut = int(np.argmin(spread[: int(LATEST_CUT * k) + 1]))
    return len(x) if _drifts(x, cut * batch) else cut * batch


def _parts(x: Floats) -> Floats:
    """Return the means of twenty equal parts of ``x``, or of fewer of one value each."""
    size = max(1, len(x) // PARTS)
    count = len(x) // size
    means: Floats = x[len(x) - count * size :].reshape(count, size).mean(axis=1)
    return means


def _steps(x: Floats, share: float) -> bool:
    """Return whether the means before and after ``share`` of ``x`` differ by 25 % and beyond chance (t of parts)."""
    y = _parts(x)
    before, after = np.split(y, [round(share * len(y))])
    step = float(before.mean() - after.mean())
    rest = float(((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum())
    error = math.sqrt(rest / (len(y) - 2) * (1 / len(before) + 1 / len(after)))
    return abs(step) > max(MATTERS, float(special.stdtrit(len(y) - 2, 1 - STEP_ALPHA / 2)) * error)


def _drifts(x: Floats, cut: int) -> bool:
    """Return whether what ``cut`` leaves of ``x`` rises or falls by 25 %, and that is not chance.

    It is not if the slope of the rest is beyond chance, or that of the whole is and goes the same way: the half of a
    drift is harder to tell from chance than all of it.
    """
    rest, rest_certain = _drift(x[cut:])
    whole, whole_certain = _drift(x)
    return abs(rest) > MATTERS and (rest_certain or (whole_certain and rest * whole > 0))


def _drift(x: Floats) -> tuple[float, bool]:
    """Return by how much ``x`` rises from its start to its end, by least squares, and whether that is beyond chance."""
    y = _parts(x)
    slope, error = slope_with_error(np.arange(len(y), dtype=np.float64), y)
    return slope * len(y), abs(slope) > float(special.stdtrit(len(y) - 2, 1 - DRIFT_ALPHA / 2)) * error


def own_warm_up_s(samples: pd.DataFrame, duration_s: float) -> float:
    """Return the seconds from the start of a trial until its response time is steady; ∞ when it never is."""
    ended = samples[samples["done_ns"] != NEVER]
    if not ended["scheduled_ns"].is_monotonic_increasing:
        ended = ended.sort_values("scheduled_ns", kind="stable")
    response = (ended["done_ns"] - ended["scheduled_ns"]).to_numpy()
    cut = warm_up(np.maximum(response, 1))
    if cut == len(response):
        return float("inf") if cut else 0.0
    return float(ended["scheduled_ns"].iloc[cut]) / 1e9 if cut else 0.0


def steady(samples: pd.DataFrame, duration_s: float) -> Gate:
    """Judge whether the response time settles within the first half of a trial."""
    end_s = own_warm_up_s(samples, duration_s)
    share, settled = end_s / duration_s, np.isfinite(end_s)
    text = f"the response time settled after {share:.0%} of the trial" if settled else "the response time never settled"
    return Gate("steady", bool(settled), share if settled else None, LATEST_CUT, f"{text} (at most {LATEST_CUT:.0%})")
