"""Captions and text alternatives of the figures, written from the tables that the figures were drawn from."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from infscale.analysis.intervals import EXPLORATORY_BELOW, MIN_REPLICATES
from infscale.records.gate import SATURATED, VALID
from infscale.records.gates.server import FIRST_PART
from infscale.report.figures.rates import NAMES

Tables = Mapping[str, pd.DataFrame]


def percentiles_vs_rate(tables: Tables) -> str:
    """For ``figures.percentiles_vs_rate``."""
    return (
        "Response time (from the scheduled time to the end of the answer) against the arrival rate λ, "
        "Poisson arrivals, "
        f"open loop. {_basis(tables['points'])} Bars: 95 % intervals over replicates (t on the "
        "logarithm; of few replicates they may leave the axis); the protocols "
        "are set slightly apart sideways. Block at the upper edge: the bracket in which the saturation rate λ* of a "
        "protocol lies; line: "
        f"its geometric mean. {_hollow(tables['points'])}"
    )


def latency_ecdf(tables: Tables) -> str:
    """For ``figures.latency_ecdf``."""
    drawn = tables["distributions"]
    drawn = drawn[drawn["common"].astype(bool)]
    if drawn.empty:
        return "No arrival rate at which every protocol is VALID: no distributions to compare."
    first = drawn.drop_duplicates(["label", "protocol"])
    sizes = "; ".join(f"{r['label']}, {NAMES[r['protocol']]}: n = {r['n']:,}" for _, r in first.iterrows())
    return (
        "Distribution of the response time at the largest λ of the grid at which both protocols are VALID, "
        f"replicates pooled ({_replicates(first['replicates'])}). {sizes}. Requests that did not succeed lie beyond "
        "the right edge."
    )


def offered_vs_achieved(tables: Tables) -> str:
    """For ``figures.offered_vs_achieved``."""
    return (
        "Successful responses per second against the requests per second that the schedule held: means over "
        "replicates. On the dotted diagonal a server keeps up; bars: 95 % intervals. "
        f"{_basis(tables['points'])} {_hollow(tables['points'], arrows=False)}"
    )


def lag(tables: Tables) -> str:
    """For ``figures.lag``."""
    return (
        "How late the load generator itself was (due − scheduled): the largest p99 over replicates "
        "(thick) and the median "
        "p50 (thin). Above the gate of 1 ms (or 5 % of the median response time, where that is more) a "
        "trial is INVALID. "
        f"{_basis(tables['points'])} {_hollow(tables['points'], arrows=False)}"
    )


def ratio_vs_rate(tables: Tables) -> str:
    """For ``figures.ratio_vs_rate``."""
    ratios = headline_ratios(tables)
    over, under = NAMES[ratios["over"].iloc[0]], NAMES[ratios["under"].iloc[0]]
    known = ratios[np.isfinite(ratios["ratio"])]
    basis = f" ({_replicates(known['replicates'])})" if len(known) else ""
    few = "" if np.isfinite(known["ratio_low"]).all() else f" Dashes: fewer than {MIN_REPLICATES} pairs, no interval."
    return (
        f"Ratio of the p95 response times, {over} ÷ {under}, paired by replicate{basis}: above 1 {over} "
        "is slower, below 1 "
        f"{under} is. Bars: 95 % intervals (t on the log ratio). Filled marks: different from 1 at 5 % "
        "after Holm's correction "
        "over the figure. Crosses: no ratio, because one of the protocols was SATURATED in a replicate, or "
        "they are not both VALID in any."
        f"{few}"
    )


def latency_tail(tables: Tables) -> str:
    """For ``figures_detail.latency_tail``."""
    return (
        "The tail of the same distributions: the share of requests (log) that took longer than a response time. Grey "
        f"lines: p50, p95, p99. The last steps are single requests of the pooled replicates. {_common(tables)}"
    )


def quantiles_against(tables: Tables) -> str:
    """For ``figures_detail.quantiles_against``."""
    return (
        "Quantile against quantile of the same distributions: above the dotted diagonal REST is slower at that "
        f"quantile, below it gRPC is. {_common(tables)}"
    )


def violins(tables: Tables) -> str:
    """For ``figures_detail.violins``."""
    drawn = tables["distributions"]
    basis = f" ({_replicates(drawn['replicates'])}, pooled)" if len(drawn) else ""
    return (
        "The shape of the response time at every λ where a point is VALID"
        f"{basis}: a density on the log scale, REST on the left, gRPC on the right, with median and quartiles; "
        "successes only. A half is missing where its point is not VALID, or no replicate became steady."
    )


def response_over_time(tables: Tables) -> str:
    """For ``figures_detail.response_over_time``."""
    return (
        "Response time over the time of the trials at the largest common VALID λ, one line a replicate: p50 (thick) "
        "and p95 (thin) of a fortieth of the trial each. Grey: the longest warm-up that was cut (MSER on the "
        f"logarithm); a line that never becomes steady has no percentile elsewhere. {_common(tables)}"
    )


def arrivals(tables: Tables) -> str:
    """For ``figures_detail.arrivals``."""
    return (
        "How far the arrivals were from their schedule, the largest value over replicates. Above: the index of "
        "dispersion of counts, due against scheduled (a trial beyond the gate is INVALID). Below: the Kolmogorov "
        "distance between the gaps, reported only: at thousands of requests per second a timer's jitter is of the "
        f"order of the gap. {_basis(tables['points'])} {_hollow(tables['points'], arrows=False)}"
    )


def verdict_map(tables: Tables) -> str:
    """For ``figures_detail.verdict_map``."""
    return (
        "The verdict of every arm at every arrival rate of the grid. In each field the attempts that were "
        "VALID · SATURATED · INVALID; an INVALID trial is repeated once, and both count. A point is SATURATED if any "
        "replicate that can be used is. "
        f"{_basis(tables['points'])}"
    )


def mean_and_queues(tables: Tables) -> str:
    """For ``figures_detail.mean_and_queues``."""
    fits = tables["queues"]
    known = fits[np.isfinite(fits["misfit"])]
    best = known.loc[known.groupby(["label", "protocol"], sort=False)["misfit"].idxmin()] if len(known) else known
    told = "; ".join(
        f"{r['label']}, {NAMES[r['protocol']]}: {r['model']}, {r['misfit']:.0%} on {r['points']:.0f} points"
        for _, r in best.iterrows()
    )
    return (
        "Mean response time of the successes against the arrival rate, and thin behind it three queues with one server "
        "fitted to the VALID points below λ*. Least misfit (root mean square of the relative deviations) by arm: "
        f"{told or 'no arm has enough points'}. An arm with too few points has no curve. "
        f"{_basis(tables['points'])} {_hollow(tables['points'], arrows=False)}"
    )


def _common(tables: Tables) -> str:
    """On what the figures at one λ rest."""
    drawn = tables["distributions"]
    first = drawn[drawn["common"].astype(bool)].drop_duplicates(["label", "protocol"])
    if first.empty:
        return "There is no λ at which every protocol is VALID."
    sizes = "; ".join(f"{r['label']}, {NAMES[r['protocol']]}: n = {r['n']:,}" for _, r in first.iterrows())
    return f"{sizes} ({_replicates(first['replicates'])}, pooled)."


def headline_ratios(tables: Tables, metric: str = "response_p95_ms") -> pd.DataFrame:
    """The rows of ``ratios`` for one metric."""
    ratios = tables["ratios"]
    return ratios[ratios["metric"] == metric].reset_index(drop=True)


ALTERNATIVES = {
    "percentiles": "Line charts of the p50, p95 and p99 of the response time against the arrival "
    "rate, one column of panels "
    "for each implementation, one line for each protocol. The numbers are in the table of all points.",
    "ecdf": "Cumulative distributions of the response time, a panel for each implementation, a "
    "curve for each protocol.",
    "achieved": "Achieved against offered rate, a panel for each implementation, one line for each "
    "protocol, and the diagonal.",
    "lag": "Lag of the load generator against the arrival rate, a panel for each implementation, "
    "with the line of the gate.",
    "ratio": "Ratio of the p95 response times of the two protocols against the arrival rate with "
    "intervals and a line at one, "
    "a panel for each implementation. The numbers are in the table of ratios.",
    "verdicts": "A field for each arm and arrival rate, shaded by its verdict, with counts of attempts.",
    "tail": "Complementary cumulative distributions of the response time on log scales, a curve for each protocol.",
    "quantiles": "REST's quantiles of the response time against gRPC's, with the diagonal, a panel for each "
    "implementation.",
    "violins": "Densities of the response time at each arrival rate, REST on the left and gRPC on the right half.",
    "time": "Response time over the time of the trials, a line for each replicate and protocol.",
    "arrivals": "Two measures of how far arrivals were from their schedule, against the arrival rate.",
    "queues": "Mean response time against the arrival rate, with three fitted queueing curves for each arm.",
}

CAPTIONS = {
    "percentiles": percentiles_vs_rate,
    "ratio": ratio_vs_rate,
    "verdicts": verdict_map,
    "ecdf": latency_ecdf,
    "tail": latency_tail,
    "quantiles": quantiles_against,
    "violins": violins,
    "time": response_over_time,
    "achieved": offered_vs_achieved,
    "queues": mean_and_queues,
    "lag": lag,
    "arrivals": arrivals,
}
"""By the figure's name, in the order of a report."""


def _basis(points: pd.DataFrame) -> str:
    """On what the points rest."""
    low, high = int(points["n"].min()), int(points["n"].max())
    n = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return (
        f"Each point: {_replicates(points['replicates'])}, n = {n} requests after the "
        f"warm-up (MSER; the first {FIRST_PART:.0%} of a trial that is not VALID)."
    )


def _replicates(counts: "pd.Series[int]") -> str:
    """The number of replicates, and what it allows."""
    low, high = int(counts.min()), int(counts.max())
    text = f"{low} replicate{'s' if low != 1 else ''}" if low == high else f"{low} to {high} replicates"
    if low < MIN_REPLICATES:
        return f"{text}, no interval below {MIN_REPLICATES}"
    return f"{text}, exploratory" if low < EXPLORATORY_BELOW else text


def _hollow(points: pd.DataFrame, arrows: bool = True) -> str:
    """What hollow marks mean, if the figure has any."""
    if (points["verdict"] == VALID).all():
        return "Every point is VALID."
    text = "Hollow grey marks are not VALID: SATURATED (the server did not keep up"
    if arrows and (points["verdict"] == SATURATED).any():
        text += "; a lower bound, because its value grows with the length of the trial"
    return f"{text}) or INVALID (the load generator or the host failed)."
