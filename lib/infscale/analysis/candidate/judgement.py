"""Judgement of a candidate against a reference, by margins that are named before the run.

A candidate may be worse by a margin. It is *worse* where a contrast's interval lies wholly beyond the margin, *not
worse* where the intervals of all contrasts end within it, and *undecided* otherwise (docs/decisions/0026-gate.md).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from infscale.analysis.answers import ALPHA, UNDECIDED, looks, weight
from infscale.analysis.tables.contrasts import claims_of, lifetime_tables
from infscale.analysis.tables.trials import trials_table
from infscale.experiment.design.design import FIRST, GAP, MORE_IS_BETTER, P95, SATURATION, Contrast
from infscale.records.gate import Floats
from infscale.records.runs import Run

WORSE, NOT_WORSE = "worse", "not worse"
"""What is said of a candidate, beside "undecided"."""

AT_MOST_LOAD = 0.20
"""Share by which the reference's λ* may be above the candidate's, unless it is given. With 0.15, within which two λ*
count as equal, two of three equal candidates are called not worse after nine lifetimes; with 0.20 five of six."""


def margins(at_most: float, at_most_load: float | None = None) -> dict[str, float]:
    """Return by what ratio above 1 a candidate may be worse, by metric.

    Args:
        at_most: share by which the response time may be longer, and of streams the time to the first message and the
            gaps: 0.1 for 10 %.
        at_most_load: share by which the reference's λ* may be above the candidate's; None for
            :data:`AT_MOST_LOAD`, or ``at_most`` if that is more.
    """
    load = max(AT_MOST_LOAD, at_most) if at_most_load is None else at_most_load
    return {**dict.fromkeys((P95, FIRST, GAP), 1 + at_most), SATURATION: 1 + load}


def worsening(metric: str, low: float, high: float) -> tuple[float, float]:
    """Return an interval of candidate ÷ reference as one of which a larger value is a worse one."""
    if metric not in MORE_IS_BETTER:
        return low, high
    with np.errstate(divide="ignore"):
        return float(np.divide(1.0, high)), float(np.divide(1.0, low))


def judge(metric: str, margin: float, low: float, high: float, least: float | None = None) -> str:
    """Return what is said of a candidate by one contrast.

    Two 95 % intervals together are wrong on their worse side in at most 5 % of runs, so that two contrasts need no
    correction. "Not worse" needs none for any number of them: it is said of a candidate only where all contrasts say
    so.

    Args:
        metric: of the contrast.
        margin: as of :func:`margins`.
        low, high: the 95 % interval of candidate ÷ reference; NaN where there is none.
        least: the end on the better side of an interval that is corrected for more than two contrasts.
    """
    low, high = worsening(metric, low, high)
    if high <= margin:
        return NOT_WORSE
    return WORSE if (low if least is None else least) > margin else UNDECIDED


def overall(judgements: Sequence[str]) -> str:
    """Return what is said of a candidate by all of its contrasts: worse by one of them is worse."""
    if WORSE in judgements:
        return WORSE
    return NOT_WORSE if judgements and set(judgements) == {NOT_WORSE} else UNDECIDED


def endless(logs: Floats) -> bool:
    """Return whether an arm kept up with every rate in so many lifetimes that its λ* lies above all of them.

    Two arms that both do have no ratio, but the candidate is not worse at any rate that may be offered. By the sign
    test, at the level that a first look spends.

    Args:
        logs: the logarithm of λ* in each lifetime; +∞ where the arm kept up with every rate, NaN where it is unknown.
    """
    known = logs[~np.isnan(logs)]
    return bool(np.isposinf(known).all()) and 0.5**known.size <= ALPHA / 2 * weight(0)


def judgements(run: Run, contrasts: pd.DataFrame, edges: Mapping[str, float]) -> list[str]:
    """Return what each contrast of a run that compares two endpoints says of the candidate.

    Args:
        run: whose contrasts all have the candidate as their arm.
        contrasts: of :func:`infscale.analysis.tables.contrasts.contrasts_table`.
        edges: the margin of each metric.
    """
    least = _corrected_ends(run, contrasts)
    rows = contrasts[["metric", "ratio_low", "ratio_high"]].itertuples(index=False)
    said = [judge(metric, edges[metric], low, high, end) for (metric, low, high), end in zip(rows, least, strict=True)]
    if UNDECIDED not in said:
        return said
    sizes = looks(run.manifest.first_look or 2**30, len(run.manifest.lifetimes))
    if not sizes:
        return said
    trials = trials_table(run)
    table = lifetime_tables(run.manifest, trials[trials["lifetime"] < sizes[-1]])[SATURATION]
    return [
        NOT_WORSE
        if one == UNDECIDED and metric == SATURATION and arm in table and endless(table[arm].to_numpy(dtype=np.float64))
        else one
        for one, metric, arm in zip(said, contrasts["metric"], contrasts["arm"], strict=True)
    ]


def _corrected_ends(run: Run, contrasts: pd.DataFrame) -> list[float | None]:
    """Return the end on the better side of each contrast's interval, corrected (Bonferroni) for more than two of them.

    None where two or fewer share the error: their own intervals do.
    """
    if len(contrasts) <= 2:
        return [None] * len(contrasts)
    rows = contrasts[["arm", "reference", "metric"]].itertuples(index=False)
    named = [Contrast(int(arm), int(reference), metric) for arm, reference, metric in rows]
    wide = claims_of(run.manifest, trials_table(run), named, 2 * ALPHA / len(named))
    return [worsening(one.metric, claim.low, claim.high)[0] for one, claim in zip(named, wide, strict=True)]
