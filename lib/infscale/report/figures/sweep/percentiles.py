"""The figure of response times: p50, p95 and p99 against the arrival rate λ."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.analysis.tables import Tables
from infscale.analysis.tables.trials import metric
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import Handle, legend, not_valid_handles, protocol_handles
from infscale.report.figures.parts import (
    COLOURS,
    LINES,
    Look,
    by_protocol,
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
from infscale.vocabulary import NAMES

P50, P95 = (metric("response", quantile) for quantile in ("p50", "p95"))
SATURATION = ["bound", "saturation_per_s", "low_per_s", "high_per_s"]
"""Columns of ``arms`` that hold an arm's λ*."""

HEIGHTS = {"rest": 0.985, "grpc": 0.945}
"""Where the interval of each protocol's λ* lies, as a share of the panel's height: one below the other at the upper
edge, because bands over the whole panel would mix where they overlap."""


def numbers(_: Run, tables: Tables) -> pd.DataFrame:
    """Return the points with the λ* of their arms."""
    return with_panels(tables.points.merge(tables.arms[["arm", *SATURATION]], on="arm", how="left"))


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return p95 (marks, with intervals) and p50 (thin) of the response time (ms, log) against λ, a panel a payload."""
    names = panel_names(table)
    figure, axes = tiles(table, row_in=2.1, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        panel = table[table["panel"] == name]
        _saturation(ax, panel)
        series(ax, panel, P50, arrows=False, scale=0.5, intervals=False)
        series(ax, panel, P95, dodge=0.006)
        ax.set_title(panel_title(name, len(axes[0])))
        rate_axis(ax)
        ax.set_xlim(0, 1.06 * panel["rate_per_s"].max())
    marks = table[[P50, P95]].to_numpy(dtype=float)
    marks = marks[np.isfinite(marks)]
    for ax in axes.flat:
        # The marks set the axis, with room for arrows; an interval of few lifetimes may leave it.
        if len(marks):
            ax.set_ylim(marks.min() / 1.6, marks.max() * 3)
        log_axis(ax, "y")
    for ax in axes[:, 0]:
        ax.set_ylabel("response time (ms)")
    kinds = [
        Line2D([], [], color="0.2", linewidth=1.2, marker="o", markersize=4, label="p95"),
        Line2D([], [], color="0.2", linewidth=0.6, marker="o", markersize=2, label="p50"),
    ]
    handles: list[Handle] = [
        *protocol_handles(table),
        *kinds,
        *_saturation_handles(table),
        *not_valid_handles(table, (P95,)),
    ]
    legend(figure, handles)
    return figure


def _bracket_look(protocol: str) -> Look:
    return {"color": COLOURS[protocol], "alpha": 0.45, "linewidth": 3.5, "solid_capstyle": "butt"}


def _line_look(protocol: str) -> Look:
    return {"color": COLOURS[protocol], "linestyle": LINES[protocol], "linewidth": 0.9, "alpha": 0.8}


def _saturation(ax: Axes, panel: pd.DataFrame) -> None:
    """Draw λ* of each protocol as a line, and its interval as a block at the upper edge, where both ends are known."""
    for protocol, points in by_protocol(panel[panel["bound"] == ""]):
        arm, height = points.iloc[0], HEIGHTS[protocol]
        look = _bracket_look(protocol)
        ends = [arm["low_per_s"], arm["high_per_s"]]
        ax.plot(ends, [height, height], transform=ax.get_xaxis_transform(), zorder=1, **look)
        ax.axvline(arm["saturation_per_s"], **_line_look(protocol))


def _saturation_handles(table: pd.DataFrame) -> list[tuple[Artist, ...]]:
    return [
        (
            Line2D([], [], **_bracket_look(protocol)),
            Line2D([], [], label=f"λ* of {NAMES[protocol]}", **_line_look(protocol)),
        )
        for protocol, _ in by_protocol(table[table["bound"] == ""])
    ]


def caption(_: Run, tables: Tables) -> str:
    """Return the caption."""
    return (
        "Response time, from the scheduled time of a request to the end of its answer, against the arrival rate λ "
        f"(Poisson arrivals, open loop). {captions.basis(tables.points)} Bars: 95 % intervals of p95 over lifetimes (t "
        "on the logarithm; those of few lifetimes may leave the axis). The protocols are set slightly apart sideways. "
        "Vertical line: the saturation rate λ* of a protocol; block at the upper edge: its 95 % interval. "
        f"{captions.not_valid(tables.points, arrows=True)}"
    )


PERCENTILES = Picture(
    "percentiles",
    numbers,
    draw,
    caption,
    "Line charts of the p50 and p95 of the response time against the arrival rate: a panel for each serving system and "
    "payload, one line for each protocol. The numbers are in the table of all points.",
)
