"""Answers to contrasts: differs, equal, or undecided, at looks that neither stopping nor continuing a run can bend.

A contrast has one value in each lifetime of the servers: the logarithm of the ratio of two arms. It is looked at only
when the number of its group's lifetimes reaches R₁, 2 R₁, 4 R₁ and so on; a lifetime may say nothing of it (a trial was
disturbed three times), which leaves the others. The look number k spends the share ``weight(k)`` of the
error of 5 %, whatever the other looks showed; so the probability of a false claim stays within 5 % whoever gets the
next lifetime, whenever a run stops, and however often it is continued (the union bound). Over the named contrasts of
a run the error is shared by Holm's procedure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from infscale.analysis.intervals import holm
from infscale.records.gate import Floats

ALPHA = 0.05
"""The error that all looks at a contrast share, and that all contrasts of a run share."""

LEAST = 4
"""Fewest lifetimes of the first look: an interval by Student's t from fewer is too wide to say anything."""

SAME = 1e-9
"""Logarithms of ratios that differ by less are taken for the same."""

DIFFERS, EQUAL, UNDECIDED = "differs", "equal", "undecided"
"""What can be said of a contrast."""


WEIGHTS = (0.8, 0.12, 0.05, 0.02)
"""Shares of the error that the first looks spend. Each further look spends half of what is left of the whole."""


def weight(look: int) -> float:
    """Return the share of the error that a look spends, by its number from 0; the sum over all looks is 1."""
    return WEIGHTS[look] if look < len(WEIGHTS) else (1 - sum(WEIGHTS)) * 0.5 ** (look - len(WEIGHTS) + 1)


def looks(first: int, lifetimes: int) -> list[int]:
    """Return the numbers of lifetimes at which a contrast whose group had ``lifetimes`` of them has been looked at.

    Args:
        first: the number of lifetimes at the first look, R₁.
        lifetimes: how many there are.
    """
    sizes: list[int] = []
    while first * 2 ** len(sizes) <= lifetimes:
        sizes.append(first * 2 ** len(sizes))
    return sizes


@dataclass(frozen=True)
class Claim:
    """What the looks at a contrast have shown.

    Attributes:
        ratio: the geometric mean of the ratios at the last look; of all values where none was reached. It is the
            median where a value is infinite.
        low, high: the interval that holds the ratio with 95 %: what the intervals of all looks have in common, each of
            level 1 − 0.05 × its weight. NaN before the first look; 0 or ∞ where only a bound is known.
        values: how many lifetimes have a value; ``used`` of them rest in the last look.
        p_differs: the smallest p ÷ weight over the looks, of the hypothesis that the ratio is 1.
        p_equal: the same of the hypothesis that the ratio lies outside the margin, doubled, so that it is below 5 %
            exactly where the interval lies within the margin.
        spread: standard deviation of the logarithms; NaN below two values, or where one is infinite.
    """

    ratio: float
    low: float
    high: float
    values: int
    used: int
    p_differs: float
    p_equal: float
    spread: float


def claim(logs: ArrayLike, first: int, margin: float, seen: Sequence[ArrayLike] = (), alpha: float = ALPHA) -> Claim:
    """Return what can be claimed of a contrast.

    At each look the interval is Student's t with n − 1 degrees of freedom. Where a value is infinite (an arm that did
    not answer in time), it is the interval between two order statistics, by the sign test, and may end at 0 or ∞.

    Args:
        logs: the logarithm of the ratio in each lifetime, in the order of the lifetimes, shape (n,); ±∞ where one arm
            did not answer in time or kept up with every rate, NaN where the lifetime says nothing.
        first: the number of lifetimes at the first look.
        margin: the ratio within which two arms count as equal, above 1.
        seen: the values as they were at each look, where they are not simply the first ones of ``logs``: an estimate
            from all lifetimes gives earlier ones other values than one from the lifetimes until then.
        alpha: the error that all looks at the interval share.
    """
    every = np.asarray(logs, dtype=np.float64)
    sizes, edge = looks(first, every.size), math.log(margin)
    values = last = _known(every)
    low, high = (-np.inf, np.inf) if sizes else (np.nan, np.nan)
    p_differs, p_above, p_below = (1.0, 1.0, 1.0) if sizes else (np.nan, np.nan, np.nan)
    for look, size in enumerate(sizes):
        now, share = _known(np.asarray(seen[look], dtype=np.float64) if seen else every[:size]), weight(look)
        ends = interval(now, alpha * share)
        low, high = max(low, ends[0]), min(high, ends[1])
        p_differs = min(p_differs, 2 * min(_tail(now, 0.0), _tail(-now, 0.0)) / share)
        p_above = min(p_above, 2 * _tail(now, -edge) / share)
        p_below = min(p_below, 2 * _tail(-now, -edge) / share)
        last = now
    middle = _middle(last)
    if low > high:  # looks that contradict one another: once in hundreds of runs
        low, high = interval(last, alpha * weight(len(sizes) - 1))
    elif sizes:
        middle = min(max(middle, low), high)
    spread = float(np.std(last, ddof=1)) if last.size > 1 and np.isfinite(last).all() else np.nan
    ratio, lower, upper = (float(np.exp(end)) for end in (middle, low, high))
    return Claim(ratio, lower, upper, values.size, last.size, p_differs, max(p_above, p_below), spread)


def answers(claims: Sequence[Claim]) -> list[str]:
    """Return what is said of each contrast after Holm's correction over all of them.

    A contrast is *equal* where ``p_equal`` is below 5 % after the correction over the contrasts' ``p_equal``, even if
    its interval excludes 1; else it *differs* where ``p_differs`` is after the correction over the ``p_differs``. The
    two are corrected apart: a contrast that is rightly called equal must not make it easier to call others different.
    Contrasts without a look are undecided, and do not count.
    """
    equal = holm([one.p_equal for one in claims]) <= ALPHA
    differs = corrected(claims) <= ALPHA
    return [EQUAL if same else DIFFERS if other else UNDECIDED for same, other in zip(equal, differs, strict=True)]


def corrected(claims: Sequence[Claim]) -> Floats:
    """Return Holm's adjusted p-values of the hypotheses that ratios are 1, shape (n,); NaN before a first look."""
    return holm([one.p_differs for one in claims])


def needed(spread: float, ratio: float, family: int, look: int = 1) -> int:
    """Return how many lifetimes would decide a ratio in four runs of five, if the spread stays as it is.

    Args:
        spread: standard deviation of the logarithms between lifetimes.
        ratio: the ratio to be told apart from 1.
        family: how many contrasts share the error; the first step of Holm's procedure is reckoned with.
        look: the number of the look that decides, whose share of the error is taken.

    Returns:
        At most 1,000.
    """
    alpha = ALPHA * weight(look) / max(1, family)
    for n in range(LEAST, 1000):
        shift = abs(math.log(ratio)) / spread * math.sqrt(n) if spread > 0 else math.inf
        critical = float(special.stdtrit(n - 1, 1 - alpha / 2))
        if math.isinf(shift) or 1 - float(special.nctdtr(n - 1, shift, critical)) >= 0.8:
            return n
    return 1000


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _middle(values: Floats) -> float:
    if not values.size:
        return float("nan")
    return float(np.mean(values) if np.isfinite(values).all() else np.median(values))


def interval(values: Floats, alpha: float) -> tuple[float, float]:
    """Return the two-sided interval of the location of ``values``, shape (n,), at level 1 − ``alpha``.

    Student's t where all are finite; else the ends are order statistics, by the sign test, and may be ±∞. Values that
    are all equal come from one grid, of which nothing can be said: the interval has no ends then.
    """
    n = values.size
    if n > 1 and np.isfinite(values).all():
        if np.ptp(values) < SAME:
            return -np.inf, np.inf
        half = float(special.stdtrit(n - 1, 1 - alpha / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
        middle = float(np.mean(values))
        return middle - half, middle + half
    inside = [k for k in range(n // 2) if 2 * float(special.bdtr(k, n, 0.5)) <= alpha]
    if not inside:
        return -np.inf, np.inf
    ranked = np.sort(values)
    return float(ranked[inside[-1]]), float(ranked[n - 1 - inside[-1]])


def _tail(values: Floats, edge: float) -> float:
    """Return the one-sided p-value of the hypothesis that the location of ``values`` is ``edge`` or less."""
    n = values.size
    if not np.isfinite(values).all():
        return float(special.bdtr(int((values <= edge).sum()), n, 0.5))
    if n < 2 or np.ptp(values) < SAME:
        return 1.0
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(special.stdtr(n - 1, (edge - float(np.mean(values))) / error))
