"""The figure of every finding: what each arm sends, what it can take, and how fast it is at moderate load."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from infscale.analysis.tables import Tables
from infscale.experiment.design.design import P95
from infscale.records.gate import VALID
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend, mark
from infscale.report.figures.parts import (
    COLOURS,
    GREY,
    MARKERS,
    PAGE_IN,
    PLAIN,
    Look,
    by_protocol,
    log_axis,
    row_title,
    styled,
)
from infscale.report.figures.picture import Picture
from infscale.vocabulary import NAMES, number

LOG_FROM = 5
"""An axis of λ* is logarithmic where the largest is so many times the smallest: a slow link would be a mark at 0."""

REACH = 3
"""How far an interval stretches an axis beyond the marks, as a factor; one that goes on ends in an arrow."""

SAME_WITHIN = 0.05
"""Bytes on the wire that differ by less than this share over all arms are not drawn: every row would be the same."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return bytes on the wire, saturation rate and p95 of every arm, a row each; protocol by colour and marker.

    ``table`` is ``Tables.summary``. Lines are 95 % intervals over lifetimes. What is not VALID, and a saturation rate
    of which only a bound is known, is grey. Bytes that are alike in all arms have no panel.
    """
    figure = Figure(figsize=(PAGE_IN, 0.9 + 0.27 * len(table)), layout="constrained")
    widths = (1, 1.2, 1.2) if _bytes_differ(table) else (1, 1)
    axes = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
    height = pd.Series(np.arange(len(table))[::-1], index=table.index)
    capacities = _ends(table["saturation_per_s"], table["low_per_s"], table["high_per_s"])
    times = _ends(table[P95], table[f"{P95}_low"], table[f"{P95}_high"])
    for protocol, arms in by_protocol(table):
        y, colour = height[arms.index].to_numpy(), COLOURS[protocol]
        known, valid = (arms["bound"] == "").to_numpy(), (arms["verdict"] == VALID).to_numpy()
        if len(axes) == 3:
            _bytes(axes[0], y, arms, protocol)
        _intervals(axes[-2], y[known], arms.loc[known, ["low_per_s", "high_per_s"]], colour, capacities)
        exact = ~arms["bound"].isin(("≥", "<")).to_numpy()
        _marks(axes[-2], y[exact], arms.loc[exact, "saturation_per_s"], known[exact], protocol)
        for bound, marker in (("≥", ">"), ("<", "<")):
            own = (arms["bound"] == bound).to_numpy()
            axes[-2].plot(arms.loc[own, "saturation_per_s"], y[own], marker, color=GREY, markersize=5)
        _intervals(axes[-1], y[valid], arms.loc[valid, [f"{P95}_low", f"{P95}_high"]], colour, times)
        _marks(axes[-1], y, arms[P95], valid, protocol)
    axes[0].set_yticks(height, [row_title(label) for label in table["label"]])
    axes[0].set_ylim(-0.6, len(table) - 0.4)
    _finish(axes, height.to_numpy(), table, capacities, times)
    legend(figure, _handles(table, bytes_too=len(axes) == 3))
    return figure


def _bytes_differ(table: pd.DataFrame) -> bool:
    """Return whether arms differ in the bytes of a request, or of its answer."""
    sent = table[["bytes_out", "bytes_in"]]
    return bool((sent.max() > (1 + SAME_WITHIN) * sent.min()).any())


def _ends(values: "pd.Series[float]", low: "pd.Series[float]", high: "pd.Series[float]") -> tuple[float, float]:
    """Return the ends of an axis: all marks, and intervals as far as :data:`REACH` beyond them; NaN without marks."""
    marks = values[np.isfinite(values) & (values > 0)]
    if marks.empty:
        return float("nan"), float("nan")
    least, most = float(marks.min()), float(marks.max())
    lows, highs = low[low > 0], high[np.isfinite(high)]
    return max(least / REACH, min([least, *lows])) / 1.15, min(most * REACH, max([most, *highs])) * 1.15


def _handles(table: pd.DataFrame, *, bytes_too: bool) -> list[Artist]:
    """Return an entry for each kind of mark that is drawn."""
    handles: list[Artist] = [
        Line2D([], [], color=COLOURS[protocol], marker=MARKERS[protocol], label=NAMES[protocol])
        for protocol, _ in by_protocol(table)
    ]
    if bytes_too:
        handles += [mark("request", "o", "0.3"), mark("answer", "o", "0.3", filled=False)]
    if table["bound"].isin(("≥", "<")).any():
        handles.append(mark("a bound: λ* lies further in this direction", ">", GREY))
    hollow = (table["verdict"] != VALID) & np.isfinite(table[P95])
    if (hollow | ((table["bound"] == "?") & np.isfinite(table["saturation_per_s"]))).any():
        handles.append(mark("not VALID", "o", GREY, filled=False))
    return handles


def _finish(
    axes: "Sequence[Axes]",
    y: NDArray[np.int64],
    table: pd.DataFrame,
    capacities: tuple[float, float],
    times: tuple[float, float],
) -> None:
    """Set scales and labels, and part the blocks of arms that are compared with one another.

    Where blocks are compared at different rates, the rate of each arm stands on the right.
    """
    if len(axes) == 3:
        log_axis(axes[0], "x", (1, 3))
        axes[0].set_xlabel("on the wire\n(bytes a request)")
    middle, right = axes[-2], axes[-1]
    middle.set_xlabel("saturation rate λ*\n(requests/s)")
    known = table["saturation_per_s"][table["saturation_per_s"] > 0]
    if len(known) and known.max() > LOG_FROM * known.min():
        middle.set_xlim(*capacities)
        log_axis(middle, "x")
    else:
        middle.xaxis.set_major_locator(MaxNLocator(4))
        middle.xaxis.set_major_formatter(PLAIN)
        middle.set_xlim(0, capacities[1] if np.isfinite(capacities[1]) else 1)
    rates = table["rate_per_s"].dropna().unique()
    if len(rates) == 1:
        right.set_xlabel(f"p95 response time (ms)\nat λ = {number(rates[0])} requests/s")
    else:
        right.set_xlabel("p95 response time (ms)\nat the λ on the right")
        for at, rate in zip(y, table["rate_per_s"], strict=True):
            text = f"{number(rate)}/s" if np.isfinite(rate) else ""
            right.text(1.05, at, text, transform=right.get_yaxis_transform(), va="center", fontsize="x-small")
    for at in y[1:][np.diff(table["block"]) != 0]:
        for ax in axes:
            ax.axhline(at + 0.5, color="0.8", linewidth=0.6)
    if np.isfinite(times).all():
        right.set_xlim(*times)
        log_axis(right, "x")
    else:
        right.set_xticks([])
        right.text(0.5, 0.5, "no steady VALID trial", transform=right.transAxes, ha="center", va="center")
    for ax in axes:
        ax.grid(axis="y", visible=False)


def _bytes(ax: Axes, y: NDArray[np.int64], arms: pd.DataFrame, protocol: str) -> None:
    """Draw a mark for the request, and a hollow one for the answer: a bar on this logarithmic axis has no zero."""
    for column, face in (("bytes_out", COLOURS[protocol]), ("bytes_in", "white")):
        look = Look(color=COLOURS[protocol], markerfacecolor=face, linestyle="")
        ax.plot(arms[column], y, marker=MARKERS[protocol], markersize=4, **look)


def _intervals(ax: Axes, y: NDArray[np.int64], intervals: pd.DataFrame, colour: str, ends: tuple[float, float]) -> None:
    """Draw intervals; what goes on beyond the axis ends in an arrow there."""
    low, high = intervals.astype(float).to_numpy().T
    known = np.isfinite(low) & (low > 0) & np.isfinite(high)
    ax.hlines(y[known], np.maximum(low, ends[0])[known], np.minimum(high, ends[1])[known], color=colour, linewidth=1)
    for beyond, end, marker in ((low < ends[0], ends[0], "<"), (high > ends[1], ends[1], ">")):
        for at in y[known & beyond]:
            ax.plot(end, at, marker, color=colour, markersize=4, clip_on=False)


def _marks(ax: Axes, y: NDArray[np.int64], values: "pd.Series[float]", sure: NDArray[np.bool_], protocol: str) -> None:
    """Draw a mark for each arm: filled where it is ``sure``, else hollow and grey."""
    x, other = values.to_numpy(dtype=float), Look(color=GREY, markerfacecolor="white")
    ax.plot(x[sure], y[sure], MARKERS[protocol], color=COLOURS[protocol], markersize=4)
    shown = ~sure & np.isfinite(x)
    ax.plot(x[shown], y[shown], MARKERS[protocol], markersize=4, **other)


def _span(values: "pd.Series[float]") -> str:
    """Return the least and the largest of some bytes: "3,190", or "3,180 to 3,190"."""
    texts = dict.fromkeys((number(float(values.min())), number(float(values.max()))))
    return " to ".join(texts)


def _loops(table: pd.DataFrame) -> str:
    """Return how requests were sent: a closed loop is at the nominal rate at most, and has no λ*."""
    if not table["closed"].any():
        return "Poisson arrivals, open loop"
    closed = "closed loops, whose λ is nominal and which have no λ*"
    return closed if table["closed"].all() else f"open loops, and {closed}"


def caption(_: Run, tables: Tables) -> str:
    """Return the caption."""
    table = tables.summary
    known = table.dropna(subset=["lifetimes", "n"])
    counts = f"{captions.span(known['lifetimes'])} lifetimes, n = {captions.span(known['n'])} requests an arm"
    unseen = " No mark: what that client put on the wire was not seen." if table["bytes_out"].isna().any() else ""
    out, back = (_span(table[name].dropna()) for name in ("bytes_out", "bytes_in"))
    left = f"Bytes on the wire are alike: {out} of a request, {back} of its answer, framing included. Left"
    if _bytes_differ(table):
        left = f"Left: bytes on the wire of a request and its answer, framing included.{unseen} Middle"
    return (
        f"{left}: saturation rate λ* with its 95 % interval over lifetimes; a grey arrowhead is a bound, and points to "
        "where λ* lies. Right: p95 response time with its 95 % interval, at one arrival rate λ for all arms that are "
        f"compared with one another ({_loops(table)}; {counts}). Hollow grey: not VALID. An interval that "
        "ends in an arrow goes on beyond the axis."
    )


SUMMARY = Picture(
    "",
    lambda _, tables: tables.summary,
    draw,
    caption,
    "Bytes on the wire, saturation rate and p95 response time of every arm, a row each.",
)
