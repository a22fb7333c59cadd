"""The picture of the whole study: every named contrast as a point with its interval, grouped by question."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from infscale.analysis.answers import DIFFERS, EQUAL, UNDECIDED
from infscale.experiment.design.design import CAPACITY, FIRST, GAP, P95, PER_CORE, PER_MESSAGE, SATURATION
from infscale.report.figures.legends import legend, mark
from infscale.report.figures.parts import log_axis, styled
from infscale.report.wording import QUANTITIES
from infscale.vocabulary import number

COLOURS = {DIFFERS: "#111111", EQUAL: "#009E73", UNDECIDED: "#999999"}
"""Colour by answer: black, green and grey, which are told apart without colour by their marks too."""

MARKS = {DIFFERS: "D", EQUAL: "s", UNDECIDED: "o"}
"""Matplotlib's marker by answer."""

COLUMNS = {P95: "p95 response time at moderate load\n(ratio)", SATURATION: "saturation rate λ*\n(ratio)"}
"""Label of the axis of each metric that has one of its own."""

SHARED = {FIRST: P95, GAP: P95, PER_MESSAGE: P95, PER_CORE: SATURATION, CAPACITY: SATURATION}
"""Whose axis each other metric shares: one where less is better, or one where more is. A column of their own would be
empty but for one question."""

WITH_OTHERS = {
    P95: "p95 response time at moderate load,\nor what the row names (ratio)",
    SATURATION: "saturation rate λ*,\nor what the row names (ratio)",
}
"""Labels of the axes where metrics that share them have rows."""

MOST, MOST_DECIDED = 20.0, 100.0
"""Largest ratio, or inverse of one, that an axis holds: of an undecided contrast, and of one that is decided. What lies
beyond ends in an arrow."""

WIDTH = 46
"""Letters of a line of a contrast's name."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return the figure of the contrasts of :func:`infscale.report.claims.table`: a row each, a column a metric.

    Where there are several findings, the rows of each stand below its name. A contrast of a metric without a column of
    its own (:data:`SHARED`) has a row of its own, which names the metric.
    """
    columns = axis_labels(table)
    table = on_shared_axes(table)
    places, names = _rows(table)
    figure = Figure(figsize=(WIDTH_IN, 1.0 + ROW_IN * (max(names, default=0.0) + 1)), layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True)
    for ax, (metric, label) in zip(axes, columns.items(), strict=True):
        own = table[table["metric"] == metric]
        ends = _ends(own)
        ax.set_xlim(*ends)
        for _, row in own.iterrows():
            _contrast(ax, row, places[row["finding"], row["contrast"]], ends)
        ax.axvline(1, color="0.2", linewidth=0.8, zorder=0)
        log_axis(ax, "x")
        if ends[1] > 100 * ends[0]:  # decades alone would be two or three numbers
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=12))
        ax.set_title(label, fontsize="small")  # above: the first that a screen shows of a tall figure
        if max(names, default=0.0) > SCREEN:
            ax.set_xlabel(label, fontsize="small")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(max(names, default=0.0) + 0.7, -0.7)
    axes[0].set_yticks(list(names), list(names.values()))
    headings = set(names) - set(places.values())
    for at, text in zip(names, axes[0].get_yticklabels(), strict=True):
        text.set(fontsize="x-small", fontweight="bold" if at in headings else "normal", linespacing=1.0)
    legend(figure, [mark(answer, MARKS[answer], COLOURS[answer], filled=answer != UNDECIDED) for answer in COLOURS])
    return figure


WIDTH_IN, ROW_IN = 5.6, 0.17
"""Width of the figure, which stands beside the sentences of a first page, and height of a line of text, inches."""

SCREEN = 25
"""Lines of text above which the foot of the figure is on another screen than its head, and is labelled, too."""


def axis_labels(table: pd.DataFrame) -> dict[str, str]:
    """Return the label of each axis, by its metric; it says where metrics that share it have rows."""
    others = set(table["metric"].map(SHARED).dropna())
    return COLUMNS | {metric: label for metric, label in WITH_OTHERS.items() if metric in others}


def on_shared_axes(table: pd.DataFrame) -> pd.DataFrame:
    """Return the contrasts with those that share an axis on it, each in a row that names its metric."""
    own = table["metric"].isin(SHARED)
    named = table["contrast"] + ", " + table["metric"].map(lambda metric: QUANTITIES[metric][0])
    metric = table["metric"].map(lambda metric: SHARED.get(metric, metric))
    return table.assign(contrast=table["contrast"].mask(own, named), metric=metric)


def _rows(table: pd.DataFrame) -> tuple[dict[tuple[str, str], float], dict[float, str]]:
    """Return the height of each contrast by finding and name, and the text at each height, from the top, in lines."""
    places: dict[tuple[str, str], float] = {}
    names: dict[float, str] = {}
    line, several = 0.0, table["finding"].nunique() > 1
    for finding, own in table.groupby("finding", sort=False):
        if several:
            names[line] = str(finding).replace("-", " ").capitalize()
            line += 1
        for contrast in own["contrast"].unique():
            text = textwrap.wrap(str(contrast), WIDTH, break_long_words=False, break_on_hyphens=False)
            at = line + (len(text) - 1) / 2
            places[str(finding), str(contrast)] = at
            names[at] = "\n".join(text)
            line += len(text)
    return places, names


def _ends(own: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of an axis: all points, and the intervals of what is decided, as far as an axis goes."""
    sure = own["answer"] != UNDECIDED
    decided = pd.concat([own.loc[sure, name] for name in ("ratio", "low", "high")])
    parts = ((own.loc[~sure, "ratio"], MOST), (decided, MOST_DECIDED))
    values = [value for part, most in parts for value in part.dropna() if 1 / most < value < most]
    return min([0.5, *(value / 1.15 for value in values)]), max([2.0, *(value * 1.15 for value in values)])


def _contrast(ax: Axes, row: "pd.Series[Any]", y: float, ends: tuple[float, float]) -> None:
    """Draw one contrast; what lies beyond the axis is an arrow at its end, with the ratio where that lies there too."""
    answer, ratio = str(row["answer"]), float(row["ratio"])
    colour = COLOURS[answer]
    known = np.isfinite([row["low"], row["high"]])
    low, high = row["low"] if known[0] else 0.0, row["high"] if known[1] else np.inf
    if known.any():
        ax.hlines(y, max(low, ends[0]), min(high, ends[1]), color=colour, linewidth=1.1)
    reaches = (min(low, ratio), max(high, ratio)) if known.any() else (ratio, ratio)  # NaN reaches nowhere
    for beyond, end, marker in ((reaches[0] < ends[0], ends[0], "<"), (reaches[1] > ends[1], ends[1], ">")):
        if beyond:
            ax.plot(end, y, marker, color=colour, markersize=4, clip_on=False)
    if ends[0] <= ratio <= ends[1]:
        face = "white" if answer == UNDECIDED else colour
        ax.plot(ratio, y, MARKS[answer], color=colour, markerfacecolor=face, markersize=4, clip_on=False)
    elif np.isfinite(ratio):
        left = ratio < 1
        aside: dict[str, Any] = {"xytext": (0, 2), "textcoords": "offset points", "ha": "left" if left else "right"}
        ax.annotate(number(ratio), (ends[0] if left else ends[1], y), va="bottom", fontsize="x-small", **aside)


CAPTION = (
    "Every contrast that was named before its run: the ratio of two arms with its 95 % interval over lifetimes, at "
    "looks that allow a run to be stopped and continued. Left: p95 response time at moderate load (below 1 the first "
    "arm is faster). Right: saturation rate λ* (above 1 the first arm takes more load). Other metrics are named in "
    "their rows: times and CPU stand left, the rate at an SLO and messages/s a core right. Black: the two differ; "
    "green: equal within 10 % (rates and CPU: 15 %); grey: undecided, after Holm's correction over the contrasts of a "
    "run; without a bar there is no bound, or no look yet. Arrows: the interval goes on beyond the axis, and a number "
    "beside one is the ratio that lies there."
)
"""The caption of the figure."""

ALTERNATIVE = (
    "Every named contrast as a point with its interval on a logarithmic axis of ratios, grouped by question and marked "
    "by its answer. The numbers are in contrasts.csv."
)
"""What the figure shows, for those who cannot see it."""
