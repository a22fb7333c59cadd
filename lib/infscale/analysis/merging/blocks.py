"""How uncertain a percentile of dependent requests is, from the shares of consecutive blocks."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from infscale.analysis.intervals import CONFIDENCE
from infscale.records.gate import Floats

BLOCKS = 32
"""Consecutive blocks of equal time into which a trial is cut."""

FEWEST = 16
"""Blocks below which a trial is not cut: from fewer, the spread is hardly known."""

LEAST = 100
"""Fewest requests of a block, on average, for an interval."""


BEYOND = 20
"""Fewest independent requests beyond a percentile, and within it, for an interval: of fewer, a few blocks decide,
and not enough intervals hold (docs/machines-simulated.md)."""


@dataclass(frozen=True)
class Uncertain:
    """How uncertain the share of requests at or below a percentile is.

    Attributes:
        half: half the width of its 95 % interval, as a share; NaN where there is none.
        n_eff: the number of independent requests that would have the same; NaN where there is none.
        why: why there is no interval; "" where there is one.
    """

    half: float
    n_eff: float
    why: str


def uncertainty(requests: ArrayLike, within: ArrayLike) -> Uncertain:
    """Return how uncertain the share of requests within a limit is, by the method of batch means.

    Of block b, with n_b requests of which x_b are within, y_b = x_b − p n_b is its surplus over the share p of all. The
    variance of p is B ÷ (B − 1) Σ y_b² ÷ n², of which one standard error more is taken, its √(2 ÷ (B − 1)) part, and no
    less than that of independent requests, p (1 − p) ÷ n. The interval is Student's t with B − 1 degrees of freedom. It
    holds if a block is far longer than requests depend on one another.
    So where the surpluses of neighbours are correlated by more than two standard errors, 2 ÷ √B, pairs of blocks become
    one, down to :data:`FEWEST`; where they still are, there is no interval.

    Source: B. Schmeiser, "Batch size effects in the analysis of simulation output", Operations Research 30 (1982).

    Args:
        requests, within: of each block, in their order, shape (:data:`BLOCKS`,).
    """
    n, x = np.asarray(requests, dtype=np.float64), np.asarray(within, dtype=np.float64)
    total, nan = float(n.sum()), math.nan
    if n.size < BLOCKS or total < LEAST * BLOCKS:
        return Uncertain(nan, nan, f"fewer than {LEAST * BLOCKS:,} requests, or a part of the time without any")
    share = float(x.sum()) / total
    surplus = x - share * n
    while _neighbours(surplus) > 2 / math.sqrt(surplus.size):
        surplus = surplus.reshape(-1, 2).sum(axis=1)
        if surplus.size < FEWEST:
            return Uncertain(nan, nan, "the response times drift, or depend on one another for too long")
    b, independent = surplus.size, share * (1 - share) / total
    estimated = b / (b - 1) * float((surplus**2).sum()) / total**2
    variance = max(estimated * (1 + math.sqrt(2 / (b - 1))), independent)
    effective = total * independent / variance if variance > 0 else total
    if variance > 0 and effective * min(share, 1 - share) < BEYOND:
        return Uncertain(nan, nan, f"fewer than {BEYOND} independent requests beyond it")
    half = float(special.stdtrit(b - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return Uncertain(half, effective, "")


def _neighbours(surplus: Floats) -> float:
    """Return the correlation of neighbouring blocks, whose mean is 0; 0 where all are."""
    squares = float((surplus**2).sum())
    return float((surplus[1:] * surplus[:-1]).sum()) / squares if squares > 0 else 0.0
