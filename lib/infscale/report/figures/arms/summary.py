"""The figure of every finding: what each arm sends, what it can take, and how fast it is at moderate load."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from infscale.analysis.tables import Tables
from infscale.experiment.design.design import P95
from infscale.records.gate import VALID
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend
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

HATCHES = {"rest": "", "grpc": "//"}
"""Hatch of bars by protocol."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return bytes on the wire, saturation rate and p95 of every arm, a row each; protocol by colour and marker.

    ``table`` is ``Tables.summary``. Lines are 95 % intervals over lifetimes. What is not VALID, and a saturation rate
    of which only a bound is known, is hollow and grey.
    """
    figure = Figure(figsize=(PAGE_IN, 0.9 + 0.27 * len(table)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1.2, 1.2))
    height = pd.Series(np.arange(len(table))[::-1], index=table.index)
    for protocol, arms in by_protocol(table):
        y = height[arms.index].to_numpy()
        _bytes(axes[0], y, arms, protocol)
        _capacity(axes[1], y, arms, protocol)
        _times(axes[2], y, arms, protocol)
    axes[0].set_yticks(height, [row_title(label) for label in table["label"]])
    _finish(axes, height.to_numpy(), table)
    marks = [
        Line2D([], [], color=COLOURS[protocol], marker=MARKERS[protocol], label=NAMES[protocol])
        for protocol, _ in by_protocol(table)
    ]
    bars = [Patch(color="0.3", label="request"), Patch(color="0.3", alpha=0.45, label="answer")]
    legend(figure, [*marks, *bars])
    return figure


def _finish(axes: NDArray[np.object_], y: NDArray[np.int64], table: pd.DataFrame) -> None:
    """Set scales and labels, and part the blocks of arms that are compared with one another.

    Where blocks are compared at different rates, the rate of each arm stands on the right.
    """
    log_axis(axes[0], "x", (1, 3))
    axes[0].set_xlabel("on the wire\n(bytes a request)")
    axes[1].set_xlabel("saturation rate λ*\n(requests/s)")
    axes[1].xaxis.set_major_locator(MaxNLocator(4))
    axes[1].xaxis.set_major_formatter(PLAIN)
    axes[1].set_xlim(left=0)
    rates = table["rate_per_s"].dropna().unique()
    if len(rates) == 1:
        axes[2].set_xlabel(f"p95 response time (ms)\nat λ = {number(rates[0])} requests/s")
    else:
        axes[2].set_xlabel("p95 response time (ms)\nat the λ on the right")
        for at, rate in zip(y, table["rate_per_s"], strict=True):
            text = f"{number(rate)}/s" if np.isfinite(rate) else ""
            axes[2].text(1.02, at, text, transform=axes[2].get_yaxis_transform(), va="center", fontsize="x-small")
    for at in y[1:][np.diff(table["block"]) != 0]:
        for ax in axes:
            ax.axhline(at + 0.5, color="0.8", linewidth=0.6)
    if np.isfinite(table[P95].to_numpy(dtype=float)).any():
        log_axis(axes[2], "x")
    else:
        axes[2].set_xticks([])
        axes[2].text(0.5, 0.5, "no steady VALID trial", transform=axes[2].transAxes, ha="center", va="center")
    for ax in axes:
        ax.grid(axis="y", visible=False)


def _bytes(ax: Axes, y: NDArray[np.int64], arms: pd.DataFrame, protocol: str) -> None:
    """Draw a bar for the request, and below it a lighter one for the answer."""
    for column, aside, alpha in (("bytes_out", 0.2, 1.0), ("bytes_in", -0.2, 0.45)):
        bars = ax.barh(y + aside, arms[column], height=0.36, alpha=alpha, color=COLOURS[protocol], linewidth=0)
        for bar in bars:
            bar.set(edgecolor="white", hatch=HATCHES[protocol])


def _capacity(ax: Axes, y: NDArray[np.int64], arms: pd.DataFrame, protocol: str) -> None:
    """Draw λ* with its interval over lifetimes."""
    ends = arms[["low_per_s", "high_per_s"]].replace([0, np.inf], np.nan)
    ax.hlines(y, ends["low_per_s"], ends["high_per_s"], color=COLOURS[protocol], linewidth=1)
    _marks(ax, y, arms["saturation_per_s"], (arms["bound"] == "").to_numpy(), protocol)


def _times(ax: Axes, y: NDArray[np.int64], arms: pd.DataFrame, protocol: str) -> None:
    """Draw p95 with its interval."""
    valid = (arms["verdict"] == VALID).to_numpy()
    colour, ends = COLOURS[protocol], arms[valid]
    ax.hlines(y[valid], ends[f"{P95}_low"], ends[f"{P95}_high"], color=colour, linewidth=1)
    _marks(ax, y, arms[P95], valid, protocol)


def _marks(ax: Axes, y: NDArray[np.int64], values: "pd.Series[float]", sure: NDArray[np.bool_], protocol: str) -> None:
    """Draw a mark for each arm: filled where it is ``sure``, else hollow and grey."""
    x, other = values.to_numpy(dtype=float), Look(color=GREY, markerfacecolor="white")
    ax.plot(x[sure], y[sure], MARKERS[protocol], color=COLOURS[protocol], markersize=4)
    shown = ~sure & np.isfinite(x)
    ax.plot(x[shown], y[shown], MARKERS[protocol], markersize=4, **other)


def caption(_: Run, tables: Tables) -> str:
    """Return the caption."""
    table = tables.summary
    known = table.dropna(subset=["lifetimes", "n"])
    counts = f"{captions.span(known['lifetimes'])} lifetimes, n = {captions.span(known['n'])} requests an arm"
    unseen = " No bar: what that client put on the wire was not seen." if table["bytes_out"].isna().any() else ""
    return (
        "Left: bytes on the wire of a request and its answer, framing included. Middle: saturation rate λ* with its "
        "95 % interval over lifetimes. Right: p95 response time with its 95 % interval, at one arrival rate λ for all "
        f"arms that are compared with one another (Poisson arrivals, open loop; {counts}). Hollow grey: not VALID; of "
        f"a saturation rate: a bound.{unseen}"
    )


SUMMARY = Picture(
    "",
    lambda _, tables: tables.summary,
    draw,
    caption,
    "Bytes on the wire, saturation rate and p95 response time of every arm, a row each.",
)
