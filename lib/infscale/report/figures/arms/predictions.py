"""The figure of planning: percentiles as simulated from one replica's service times, beside measured ones."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infscale.report.figures.legends import legend, mark
from infscale.report.figures.parts import COLOURS, GREY, PAGE_IN, PLAIN, log_axis, row_title, styled

COLOUR = COLOURS["grpc"]
"""Colour of what was measured: all of it is over gRPC."""

PREDICTED = "#009E73"
"""Colour of what was simulated: the bluish green of Okabe and Ito's palette."""

LOG_FROM = 10
"""The axis of times is logarithmic where its largest value is more than so many times the smallest."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return a row for each arm and rate: the p95 as measured and as predicted (left), and their ratio (right).

    Args:
        table: columns ``label``, ``rate_per_s``, ``own`` (whether the service times are from these trials),
            ``measured_ms`` and ``predicted_ms`` with ``_low`` and ``_high``, ``ratio``, ``within``, and ``limit`` (the
            relative difference that counts as right).
    """
    figure = Figure(figsize=(PAGE_IN, 1.1 + 0.26 * len(table)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
    y = np.arange(len(table))[::-1]
    _times(left, table, y)
    _ratios(right, table, y)
    names = [f"{label}, {rate:,.0f}/s" for label, rate in zip(table["label"], table["rate_per_s"], strict=True)]
    left.set_yticks(y, [row_title(name) for name in names])
    left.set_ylim(-0.7, len(table) - 0.3)
    handles = [mark("measured", "s", COLOUR), mark("predicted", "o", PREDICTED)]
    if table["own"].any():
        handles.append(mark("the service times are from here", "o", PREDICTED, filled=False))
    legend(figure, handles)
    return figure


def _times(ax: Axes, table: pd.DataFrame, y: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
    for name, colour, marker, aside in (("measured_ms", COLOUR, "s", 0.16), ("predicted_ms", PREDICTED, "o", -0.16)):
        value = table[name].to_numpy(float)
        ends = np.abs(table[[f"{name}_low", f"{name}_high"]].to_numpy(float).T - value)
        own = table["own"].to_numpy(bool) & (name == "predicted_ms")
        for chosen, face in ((own, "white"), (~own, colour)):
            ax.errorbar(
                value[chosen], y[chosen] + aside, xerr=np.nan_to_num(ends[:, chosen]), fmt=marker, color=colour,
                markerfacecolor=face, markersize=4, elinewidth=0.9, linestyle="",
            )  # fmt: skip
    values = table[["measured_ms", "predicted_ms"]].to_numpy(float)
    if values.max() > LOG_FROM * values.min():
        log_axis(ax, "x")
    else:
        ax.set_xlim(left=0)
        ax.xaxis.set_major_formatter(PLAIN)
    ax.set_xlabel("p95 response time (ms)")
    ax.grid(axis="y", visible=False)


def _ratios(ax: Axes, table: pd.DataFrame, y: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
    limit = float(table["limit"].iloc[0])
    ax.axvspan(1 - limit, 1 + limit, color=GREY, alpha=0.15, linewidth=0)
    ax.axvline(1, color=GREY, linewidth=0.7)
    own = table["own"].to_numpy(bool)
    ratio = table["ratio"].to_numpy(float)
    for chosen, face in ((own, "white"), (~own, PREDICTED)):
        ax.plot(ratio[chosen], y[chosen], "o", color=PREDICTED, markerfacecolor=face, markersize=4)
    ends = max(1.4, 1.05 * ratio.max()), min(0.6, 0.95 * ratio.min())
    ax.set_xlim(ends[1], ends[0])
    ax.set_xlabel("predicted ÷ measured")
    ax.grid(axis="y", visible=False)


CAPTION = (
    "The 95th percentile of the response time as measured, and as simulated from the service times of one replica at "
    "its lowest rate (hollow: that arm itself, at that rate). Bars are 95 % intervals: of measured values over "
    "lifetimes (from three on), of predicted ones over the lifetimes of the service times, and of the simulation "
    "(alone, below three). Right: the ratio of the two; the band is a difference of {limit:.0f} %."
)

ALTERNATIVE = "p95 response time by arm and rate, as measured and as predicted by simulation, and their ratio."
