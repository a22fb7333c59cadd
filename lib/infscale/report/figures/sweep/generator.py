"""The figures of the load generator: how late it was, and how far arrivals were from their schedule."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.analysis.tables import Tables
from infscale.records.gates.generator import DISPERSION_TOLERANCE, LAG_FLOOR_NS
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend, not_valid_handles, protocol_handles
from infscale.report.figures.parts import (
    Look,
    log_axis,
    panel_names,
    panel_title,
    rate_axis,
    series,
    styled,
    tiles,
    with_panels,
)
from infscale.report.figures.picture import Picture

LIMIT: Look = {"color": "0.2", "linewidth": 0.9, "linestyle": "-."}


@styled
def draw_lag(points: pd.DataFrame) -> Figure:
    """Return the lag (ms, log) against λ: the median over lifetimes of its p50, and the largest of its p99."""
    names = panel_names(points)
    figure, axes = tiles(points, row_in=2.3, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        panel = points[points["panel"] == name]
        series(ax, panel, "lag_p99_ms", arrows=False)
        series(ax, panel, "lag_p50_ms", arrows=False, scale=0.5)
        ax.axhline(LAG_FLOOR_NS / 1e6, **LIMIT)
        log_axis(ax, "y")
        ax.set_xlim(left=0)
        ax.set_title(panel_title(name, len(axes[0])))
        rate_axis(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("lag: due − scheduled (ms)")
    kinds = [
        Line2D([], [], color="0.2", linewidth=1.2, label="p99 (thick)"),
        Line2D([], [], color="0.2", linewidth=0.6, label="p50 (thin)"),
        Line2D([], [], label=f"limit of {LAG_FLOOR_NS / 1e6:g} ms", **LIMIT),
    ]
    legend(figure, [*protocol_handles(points), *kinds, *not_valid_handles(points)])
    return figure


def lag_caption(_: Run, tables: Tables) -> str:
    """Return the caption of :func:`draw_lag`."""
    return (
        "How late the load generator itself was (lag = due − scheduled): the largest p99 over lifetimes (thick) and "
        "the median p50 (thin). A trial whose p99 is above the limit of 1 ms, or of 5 % of the median response time "
        f"where that is more, is INVALID. {captions.basis(tables.points)} {captions.not_valid(tables.points)}"
    )


LAG = Picture(
    "lag",
    lambda _, tables: with_panels(tables.points),
    draw_lag,
    lag_caption,
    "Lag of the load generator against the arrival rate, a panel for each serving system, with the line of the limit.",
)


@styled
def draw_arrivals(points: pd.DataFrame) -> Figure:
    """Return the difference of arrivals from their schedule against λ, by the index of dispersion, with its limit."""
    names = panel_names(points)
    figure, axes = tiles(points, row_in=1.7, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        series(ax, points[points["panel"] == name], "dispersion_difference", arrows=False)
        ax.axhline(DISPERSION_TOLERANCE, **LIMIT)
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        ax.set_title(panel_title(name, len(axes[0])))
        rate_axis(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("difference of dispersion\n(ratio)")
    limit = Line2D([], [], label=f"limit of {DISPERSION_TOLERANCE:g}", **LIMIT)
    legend(figure, [*protocol_handles(points), limit, *not_valid_handles(points)])
    return figure


def arrivals_caption(_: Run, tables: Tables) -> str:
    """Return the caption of :func:`draw_arrivals`."""
    return (
        "How far the arrivals were from their schedule: the difference of the index of dispersion of counts, due "
        "against scheduled, the largest value over lifetimes; a trial above the limit is INVALID. "
        f"{captions.basis(tables.points)} {captions.not_valid(tables.points)}"
    )


ARRIVALS = Picture(
    "arrivals",
    lambda _, tables: with_panels(tables.points),
    draw_arrivals,
    arrivals_caption,
    "How far arrivals were from their schedule, against the arrival rate.",
)
