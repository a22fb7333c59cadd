"""The caching audit: are repeated requests answered faster than fresh ones, and is it a cache?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from infscale.analysis.answers import DIFFERS, EQUAL, UNDECIDED
from infscale.analysis.intervals import Interval, geometric_mean
from infscale.report.wording import interval_text
from infscale.vocabulary import number

MARGIN = 1.1
"""Largest ratio of response times that counts as equal; MLPerf's TEST04 allows repeated queries as much."""

EXPLAINED = 0.1
"""A cache explains a difference where its hit ratio is higher by more than this for repeated requests."""


@dataclass(frozen=True)
class Audit:
    """What the rounds of an audit show.

    Attributes:
        answer: "equal" (the interval lies within the margin), else "differs" (it excludes 1), else "undecided".
        ratio: p50 response time of fresh ÷ of repeated requests, over rounds.
        hit_ratios: of fresh and of repeated requests, as a cache counted them; NaN without one that counts.
    """

    answer: str
    ratio: Interval
    hit_ratios: tuple[float, float]

    @property
    def cached(self) -> bool:
        """Whether a cache counted its hits among the repeated requests."""
        fresh, repeated = self.hit_ratios
        return repeated - fresh > EXPLAINED

    @property
    def passed(self) -> bool:
        """Whether both are equally fast, or repeated ones are faster by a cache that says so."""
        return self.answer == EQUAL or (self.answer == DIFFERS and self.cached and self.ratio.value > 1)


def judge(rounds: pd.DataFrame) -> Audit:
    """Return what an audit's rounds show.

    Each round gives one logarithm of a ratio: its trials lie seconds apart on one server, with the same arrivals. The
    interval is Student's t over rounds; it is looked at once.

    Args:
        rounds: of :func:`infscale.experiment.beside.audit.rounds`.
    """
    wide = rounds.pivot(index="round", columns="kind", values="p50_ms").reindex(columns=["fresh", "repeated"]).dropna()
    ratio = geometric_mean(wide["fresh"] / wide["repeated"])
    counts = rounds.groupby("kind")[["hits", "misses"]].sum(min_count=1).reindex(["fresh", "repeated"])
    lookups = (counts["hits"] + counts["misses"]).replace(0, np.nan)
    fresh, repeated = (counts["hits"] / lookups).tolist()
    return Audit(_answer(ratio), ratio, (fresh, repeated))


def _answer(ratio: Interval) -> str:
    if ratio.low >= 1 / MARGIN and ratio.high <= MARGIN:
        return EQUAL
    return DIFFERS if ratio.low > 1 or ratio.high < 1 else UNDECIDED


def sentence(found: Audit) -> str:
    """Return in one sentence whether repeated and fresh requests differ in speed, and whether a cache is the factor."""
    ratio = found.ratio
    if not ratio.lifetimes:
        return "cannot conclude: no round had a trial of each kind that was neither INVALID nor UNSTEADY."
    basis = f"{interval_text(ratio.low, ratio.high)}, {ratio.lifetimes} rounds"
    times = f"the p50 response time of fresh ones is {number(ratio.value)} times that of repeated ones ({basis})"
    if found.answer == UNDECIDED:
        return f"undecided whether repeated requests are answered faster than fresh ones: {times}."
    fresh, repeated = found.hit_ratios
    counted = f"answered {100 * repeated:.0f} % of the repeated and {100 * fresh:.0f} % of the fresh requests"
    if found.answer == EQUAL:
        remark = f", although a cache {counted}" if found.cached else ", and no cache is seen"
        return f"repeated and fresh requests are equally fast within {100 * (MARGIN - 1):.0f} %: {times}{remark}."
    if ratio.value < 1:
        return f"fresh requests are answered faster than repeated ones, which no cache does: {times}."
    cause = (
        f"a cache is the factor: it {counted}" if found.cached else "no cache counted hits, so that it is unexplained"
    )
    return f"repeated requests are answered faster than fresh ones: {times}; {cause}."
