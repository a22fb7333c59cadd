"""The figure of response times: p50, p95 and p99 against the arrival rate λ."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.analysis.tables import Tables
from infscale.analysis.tables.trials import QUANTILES, metric
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend, not_valid_handles, protocol_handles
from infscale.report.figures.parts import (
    COLOURS,
    LINES,
    Look,
    by_protocol,
    log_axis,
    panel_title,
    panels,
    rate_axis,
    series,
    styled,
    systems,
)
from infscale.report.figures.picture import Picture
from infscale.vocabulary import NAMES

COLUMNS = tuple(metric("response", quantile) for quantile in QUANTILES)
SATURATION = ["bound", "saturation_per_s", "low_per_s", "high_per_s", "interval_low_per_s", "interval_high_per_s"]
"""Columns of ``arms`` that hold an arm's λ*."""

HEIGHTS = {"rest": 0.985, "grpc": 0.945}
"""Where the bracket of each protocol's λ* lies, as a share of the panel's height: one below the other at the upper
edge, because bands over the whole panel would mix where they overlap."""


def numbers(_: Run, tables: Tables) -> pd.DataFrame:
    """Return the points with the λ* of their arms."""
    return tables.points.merge(tables.arms[["arm", *SATURATION]], on="arm", how="left")


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return the figure: rows of panels are percentiles (ms, log), columns serving systems."""
    names = systems(table)
    figure, axes = panels(len(QUANTILES), len(names), row_in=1.75, sharex="col", sharey=True)
    for column, name in enumerate(names):
        panel = table[table["system"] == name]
        for ax, percentile in zip(axes[:, column], COLUMNS, strict=True):
            _saturation(ax, panel)
            series(ax, panel, percentile, dodge=0.006)
        axes[0, column].set_title(panel_title(name, len(names)))
        rate_axis(axes[-1, column])
    for row, quantile in enumerate(QUANTILES):
        axes[row, 0].set_ylabel(f"{quantile} response time (ms)")
    marks = table[list(COLUMNS)].to_numpy(dtype=float)
    marks = marks[np.isfinite(marks)]
    for ax in axes.flat:
        # The marks set the axis, with room for arrows; an interval of two or three replicates may leave it.
        if len(marks):
            ax.set_ylim(marks.min() / 2, marks.max() * 5)
        log_axis(ax, "y")
        ax.set_xlim(left=0)
    legend(figure, [*protocol_handles(table), *_saturation_handles(table), *not_valid_handles(table, COLUMNS)])
    return figure


def _bracket_look(protocol: str) -> Look:
    return {"color": COLOURS[protocol], "alpha": 0.45, "linewidth": 3.5, "solid_capstyle": "butt"}


def _line_look(protocol: str) -> Look:
    return {"color": COLOURS[protocol], "linestyle": LINES[protocol], "linewidth": 0.9, "alpha": 0.8}


def _saturation(ax: Axes, panel: pd.DataFrame) -> None:
    """Draw λ* of each protocol as a line, and its bracket as a block at the upper edge, where both ends are known."""
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
        f"(Poisson arrivals, open loop). {captions.basis(tables.points)} Bars: 95 % intervals over replicates (t on "
        "the logarithm; those of few replicates may leave the axis). The protocols are set slightly apart sideways. "
        "Vertical line: the saturation rate λ* of a protocol; block at the upper edge: the bracket that it lies in. "
        f"{captions.not_valid(tables.points, arrows=True)}"
    )


PERCENTILES = Picture(
    "percentiles",
    numbers,
    draw,
    caption,
    "Line charts of the p50, p95 and p99 of the response time against the arrival rate: one column of panels for each "
    "serving system, one line for each protocol. The numbers are in the table of all points.",
)
