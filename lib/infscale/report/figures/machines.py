"""The forest plot of merged runs: each contrast by machine, and pooled over machines as a random effect."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.analysis.merging.machines import POOLED
from infscale.report.figures.legends import legend, mark
from infscale.report.figures.overview import axis_labels, on_shared_axes
from infscale.report.figures.parts import GREY, PAGE_IN, log_axis, styled

ROW_IN = 0.155
"""Height of a row, inches."""

WIDTH = 46
"""Letters of a line of a name."""

REACH = 4
"""How far an interval stretches an axis beyond the marks, as a factor; one that goes on ends in an arrow."""

MACHINE, AHEAD = "#0072B2", "#E69F00"
"""Colours of a machine and of the prediction: blue and orange of Okabe and Ito's palette, apart in lightness, too."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return the figure of :func:`infscale.analysis.merging.machines.table`: a row a machine, a column a metric."""
    labels, table = axis_labels(table), on_shared_axes(table)
    labels = {metric: label for metric, label in labels.items() if (table["metric"] == metric).any()}
    places, names = _rows(table)
    lines = max(names) + 1
    figure = Figure(figsize=(PAGE_IN, 1.1 + ROW_IN * lines), layout="constrained")
    axes = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for ax, (metric, label) in zip(axes, labels.items(), strict=True):
        own = table[table["metric"] == metric]
        ends = _ends(own)
        ax.set_xlim(*ends)
        for _, row in own.iterrows():
            _row(ax, row, places[row["contrast"], row["machine"]], ends)
        ax.axvline(1, color="0.2", linewidth=0.8, zorder=0)
        log_axis(ax, "x")
        ax.set_xlabel(label)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(lines - 0.3, -0.7)
    axes[0].set_yticks(list(names), list(names.values()))
    for at, text in zip(names, axes[0].get_yticklabels(), strict=True):
        text.set(fontsize="small", fontweight="normal" if at in places.values() else "bold", linespacing=1.0)
    legend(figure, _handles(table))
    return figure


def _rows(table: pd.DataFrame) -> tuple[dict[tuple[str, str], float], dict[float, str]]:
    """Return the height of each contrast's machine, and the text at each height, in lines from the top."""
    places: dict[tuple[str, str], float] = {}
    names: dict[float, str] = {}
    line = 0.0
    for contrast, own in table.groupby("contrast", sort=False):
        heading = textwrap.wrap(str(contrast), WIDTH, break_long_words=False, break_on_hyphens=False)
        names[line + (len(heading) - 1) / 2] = "\n".join(heading)
        line += len(heading)
        machines = sorted(
            own["machine"].unique(), key=lambda name: name == POOLED
        )  # stable: the pooled row is the last
        for machine in machines:
            places[str(contrast), str(machine)] = line
            names[line] = textwrap.shorten(str(machine), WIDTH, placeholder=" …")
            line += 1
        line += 0.5
    return places, names


def _ends(own: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of an axis: all marks, and intervals as far as :data:`REACH` beyond them."""
    marks = own.loc[np.isfinite(own["ratio"]) & (own["ratio"] > 0), "ratio"]
    least, most = (float(marks.min()), float(marks.max())) if len(marks) else (1.0, 1.0)
    lows, highs = (own[[name, f"next_{name}"]].to_numpy(dtype=float).ravel() for name in ("low", "high"))
    low = max(least / REACH, min([least, *lows[lows > 0]]))
    high = min(most * REACH, max([most, *highs[np.isfinite(highs)]]))
    return min(0.8, low / 1.1), max(1.25, high * 1.1)


def _row(ax: Axes, row: "pd.Series[Any]", y: float, ends: tuple[float, float]) -> None:
    """Draw what one machine says, or all together, with what one more would show."""
    pooled, left_out = row["machine"] == POOLED, bool(row["why"])
    colour = "black" if pooled else GREY if left_out else MACHINE
    if pooled:
        _bar(ax, y, (row["next_low"], row["next_high"]), ends, AHEAD, 3.0)
    _bar(ax, y, (row["low"], row["high"]), ends, colour, 1.6 if pooled else 1.0)
    if ends[0] <= row["ratio"] <= ends[1]:
        face = "white" if left_out else colour
        ax.plot(
            row["ratio"], y, "D" if pooled else "o", color=colour, markerfacecolor=face, markersize=5 if pooled else 4
        )


def _bar(
    ax: Axes, y: float, reaches: tuple[float, float], ends: tuple[float, float], colour: str, width: float
) -> None:
    """Draw an interval; what goes on beyond the axis ends in an arrow there. NaN has none."""
    low, high = reaches
    if np.isnan([low, high]).any():
        return
    ax.hlines(y, max(low, ends[0]), min(high, ends[1]), color=colour, linewidth=width)
    for beyond, end, marker in ((low < ends[0], ends[0], "<"), (high > ends[1], ends[1], ">")):
        if beyond:
            ax.plot(end, y, marker, color=colour, markersize=4, clip_on=False)


def _handles(table: pd.DataFrame) -> list[Artist]:
    """Return an entry for each kind of mark that is drawn."""
    pooled, left_out = table["machine"] == POOLED, table["why"] != ""
    handles: list[Artist] = []
    if (~pooled & ~left_out).any():
        handles.append(Line2D([], [], color=MACHINE, marker="o", markersize=4, linewidth=1, label="one machine, 95 %"))
    if (left_out & np.isfinite(table["ratio"].astype(float))).any():
        handles.append(mark("not pooled (see the table)", "o", GREY, filled=False))
    if pooled.any():
        handles.append(
            Line2D([], [], color="black", marker="D", markersize=5, linewidth=1.6, label="mean over machines, 95 %")
        )
        handles.append(Line2D([], [], color=AHEAD, linewidth=3, label="one more machine, 95 %"))
    return handles
