"""The figure of queueing models: the mean response time against the arrival rate λ, and the queues fitted to it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.analysis.queueing.queues import MODELS, mean_response_ms
from infscale.analysis.tables import Tables
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.files import rounded
from infscale.report.figures.legends import legend, not_valid_handles, protocol_handles
from infscale.report.figures.parts import (
    COLOURS,
    GREY,
    LineStyle,
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
from infscale.vocabulary import NAMES

QUEUE_LINES: dict[str, LineStyle] = {
    "M/M/1": (0, (1, 1)),
    "M/D/1": (0, (4, 1.5)),
    "M/G/1": (0, (6, 1, 1, 1)),
}
"""Line style by queueing model."""

FIT_DIGITS = 4
"""Significant digits of fitted parameters: those of an optimiser differ between machines from the eighth on."""

T_DECIMALS, CV2_DECIMALS = 3, 2
"""Decimals of the fitted T (ms) and c², which may be 0: an optimiser ends somewhere near their bound."""

COLUMNS = [
    "arm",
    "label",
    "system",
    "implementation",
    "framework",
    "model",
    "batch",
    "protocol",
    "rate_per_s",
    "verdict",
]
"""Columns of points that are kept beside the mean response time."""


def numbers(_: Run, tables: Tables) -> pd.DataFrame:
    """Return the points, and below them the parameters of the fitted queues, which have a ``queue`` and no rate."""
    exact = tables.queues
    fits = rounded(exact, FIT_DIGITS).assign(t_ms=exact["t_ms"].round(T_DECIMALS), cv2=exact["cv2"].round(CV2_DECIMALS))
    return with_panels(pd.concat([tables.points[[*COLUMNS, "response_mean_ms"]], fits], ignore_index=True))


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return the mean response time (ms, log) against λ, and thin behind it the queues fitted below saturation."""
    points, fits = table[table["rate_per_s"].notna()], table[table["s_ms"].notna()]
    names = panel_names(points)
    figure, axes = tiles(points, row_in=2.3, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        panel = points[points["panel"] == name]
        for _, fit in fits[fits["panel"] == name].iterrows():
            _curve(ax, fit, panel["rate_per_s"].max())
        series(ax, panel, "response_mean_ms", arrows=False)
        ax.set_xlim(left=0)
        ax.set_title(panel_title(name, len(axes[0])))
        rate_axis(ax)
        if points["response_mean_ms"].notna().any():
            ax.set_ylim(points["response_mean_ms"].min() / 2, points["response_mean_ms"].max() * 2)
        log_axis(ax, "y")
    for ax in axes[:, 0]:
        ax.set_ylabel("mean response time (ms)")
    queues = [Line2D([], [], color=GREY, linewidth=0.7, linestyle=QUEUE_LINES[name], label=name) for name in MODELS]
    legend(figure, [*protocol_handles(points), *queues, *not_valid_handles(points)])
    return figure


def _curve(ax: Axes, fit: "pd.Series[float]", last_per_s: float) -> None:
    """Draw a fitted queue up to its limit, or to the last rate that is drawn."""
    rates = np.linspace(0, min(fit["limit_per_s"] * 0.999, last_per_s), 300)[1:]
    queue, protocol = str(fit["queue"]), str(fit["protocol"])
    means = mean_response_ms(queue, rates, fit["t_ms"], fit["s_ms"], fit["cv2"])
    means[~np.isfinite(means)] = np.nan  # rounding S may move the limit below the last rate
    look = Look(color=COLOURS[protocol], linestyle=QUEUE_LINES[queue], linewidth=0.7, alpha=0.75)
    ax.plot(rates, means, zorder=1, **look)


def caption(_: Run, tables: Tables) -> str:
    """Return the caption."""
    fits = tables.queues
    known = fits[np.isfinite(fits["misfit"])]
    best = known.loc[known.groupby("arm", sort=False)["misfit"].idxmin()] if len(known) else known
    least = captions.by_system(
        best,
        lambda row: (
            f"{NAMES[row['protocol']]} {row['queue']} with {100 * row['misfit']:.0f} % on {row['points']:.0f} points"
        ),
    )
    return (
        "Mean response time of the successes against the arrival rate, and thin behind it three queues with one "
        "server, fitted to the VALID points below λ*; an arm with too few points has no curve. Smallest misfit (root "
        f"mean square of the relative deviations) of each arm: {least or 'no arm has enough points'}. "
        f"{captions.basis(tables.points)} {captions.not_valid(tables.points)}"
    )


QUEUES = Picture(
    "queues",
    numbers,
    draw,
    caption,
    "Mean response time against the arrival rate, with three fitted queueing curves for each arm.",
)
