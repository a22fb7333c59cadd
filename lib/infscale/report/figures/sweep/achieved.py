"""The figure of throughput: achieved against offered rate."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from infscale.analysis.tables import Tables
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend, not_valid_handles, protocol_handles
from infscale.report.figures.parts import (
    PLAIN,
    Look,
    panel_names,
    panel_title,
    rate_axis,
    series,
    styled,
    tiles,
    with_panels,
)
from infscale.report.figures.picture import Picture

DIAGONAL: Look = {"color": "0.3", "linewidth": 0.8, "linestyle": ":"}


@styled
def draw(points: pd.DataFrame) -> Figure:
    """Return successes per second against the offered rate (both 1/s); on the diagonal a server keeps up."""
    names = panel_names(points)
    figure, axes = tiles(points, row_in=2.5)
    for ax, name in zip(axes.flat, names, strict=False):
        panel = points[points["panel"] == name]
        end = 1.05 * panel[["offered_per_s", "achieved_per_s"]].to_numpy().max()
        ax.plot([0, end], [0, end], **DIAGONAL)
        series(ax, panel, "achieved_per_s", x="offered_per_s", arrows=False)
        ax.set_title(panel_title(name, len(axes[0])))
        rate_axis(ax, "offered rate (requests/s)")
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(PLAIN)
        ax.set_xlim(0, end)
        ax.set_ylim(0, end)
    for ax in axes[:, 0]:
        ax.set_ylabel("achieved rate (successes/s)")
    diagonal = Line2D([], [], label="achieved = offered", **DIAGONAL)
    legend(figure, [*protocol_handles(points), diagonal, *not_valid_handles(points)])
    return figure


def caption(_: Run, tables: Tables) -> str:
    """Return the caption."""
    return (
        "Successful responses per second against the requests per second that the schedule held; means over lifetimes "
        f"with 95 % intervals. On the dotted diagonal a server keeps up. {captions.basis(tables.points)} "
        f"{captions.not_valid(tables.points)}"
    )


ACHIEVED = Picture(
    "achieved",
    lambda _, tables: with_panels(tables.points),
    draw,
    caption,
    "Achieved against offered rate: a panel for each serving system, a line for each protocol, and the diagonal.",
)
