"""Where a trial's warm-up ends, and whether it ends at all."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from infscale.records.gate import Gate
from infscale.records.samples import NEVER

BATCHES = 100
"""Equal batches of a trial whose means are searched for the end of the warm-up."""
SEARCHED = 0.75
"""Share of the batches that is searched."""
LATEST_CUT = 0.5
"""A cut beyond this share of a trial means that it never became steady: its percentiles are withheld."""


def warm_up(values: ArrayLike) -> int:
    """Return how many values to leave out at the start, by MSER on the logarithm; n when they never become steady.

    The means Y of a hundred equal batches are cut at the d that makes Σ_{i>d} (Y_i − Ȳ_d)² ÷ (k − d)² smallest, over
    the first three quarters; n when that lies past the half, as a trial that drifts throughout has no steady part.
    MSER-5 on the times themselves cuts at single late hiccups (docs/decisions/0009-warm-up.md).

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
    return len(x) if cut > LATEST_CUT * k else cut * batch


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
