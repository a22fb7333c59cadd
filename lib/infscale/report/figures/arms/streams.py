"""The figures of streams: the gaps between messages as distributions, and the first message against the arrival rate.

A panel for each block of arms, and a line for each arm. An arm whose messages arrived together although they were sent
apart (the remark "coalesced") is dotted, with crosses.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.experiment.design.design import FIRST
from infscale.records.gate import SATURATED, VALID
from infscale.report.figures.legends import legend, not_valid_handles
from infscale.report.figures.parts import (
    COLOURS,
    Look,
    bound_arrows,
    hollow,
    log_axis,
    panel_title,
    panels,
    protocol_look,
    rate_axis,
    styled,
    whiskers,
)
from infscale.vocabulary import NAMES, number

LEAST_MS = 0.01
"""Gaps are drawn as at least so many ms: of messages that came in one read there is none on a logarithmic axis."""

COLUMNS = 3
"""Most panels in a row."""


def look_of(arm: pd.DataFrame) -> Look:
    """Return how the line of an arm looks: as its protocol's, and dotted with crosses where messages came together."""
    look = protocol_look(str(arm["protocol"].iloc[0]))
    if arm["coalesced"].iloc[0]:
        look["linestyle"], look["marker"] = ":", "X"
    return look


def _panels(table: pd.DataFrame) -> tuple[Figure, Iterator[tuple[Axes, pd.DataFrame]], "np.ndarray[Any, Any]"]:
    """Return a figure, its panels with the rows of each, and all axes, of shape (rows, columns)."""
    names = list(dict.fromkeys(table["panel"]))
    columns = min(COLUMNS, len(names))
    figure, axes = panels(-(-len(names) // columns), columns, row_in=2.2, wide=True)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    each = ((ax, table[table["panel"] == name]) for ax, name in zip(axes.flat, names, strict=False))
    return figure, each, axes


def _handles(table: pd.DataFrame) -> list[Artist]:
    """Return an entry for each kind of line that is drawn."""
    handles: list[Artist] = []
    for (protocol, coalesced), arms in table.groupby(["protocol", "coalesced"], sort=False):
        label = f"{NAMES[str(protocol)]}, messages arrived together" if coalesced else NAMES[str(protocol)]
        handles.append(Line2D([], [], label=label, **look_of(arms)))
    return handles


@styled
def draw_gaps(table: pd.DataFrame) -> Figure:
    """Return the share of gaps between messages that are no longer than a time (ms, log).

    Args:
        table: rows of ``Tables.gaps`` with ``panel`` and ``coalesced`` (whether messages arrived together), and
            ``interval_ms``, at which messages are sent.
    """
    figure, each, axes = _panels(table)
    most = 1.3 * float(table["gap_ms"].max())
    for ax, panel in each:
        if sent := float(panel["interval_ms"].iloc[0]):
            ax.axvline(sent, color="0.7", linewidth=0.8, zorder=0)
        for _, arm in panel.groupby("arm", sort=False):
            gaps, look = arm["gap_ms"].clip(lower=LEAST_MS), look_of(arm)
            ax.plot(gaps, arm["level"], drawstyle="steps-post", markevery=0.15, **look)
        ax.set_xlim(LEAST_MS / 1.3, max(most, 2 * LEAST_MS))
        ax.set_ylim(0, 1)
        log_axis(ax, "x")
        rate = number(float(panel["rate_per_s"].iloc[0]))
        ax.set_title(f"{panel_title(str(panel['panel'].iloc[0]), axes.shape[1])}\nλ = {rate} requests/s")
        ax.set_xlabel("gap between messages (ms)")
    for ax in axes[:, 0]:
        ax.set_ylabel("gaps no longer (share)")
    legend(figure, _handles(table))
    return figure


@styled
def draw_first(table: pd.DataFrame) -> Figure:
    """Return p95 of the time from the schedule to the first message (ms, log) against λ, with 95 % intervals.

    ``table`` has rows of ``Tables.points`` with ``panel`` and ``coalesced``.
    """
    figure, each, axes = _panels(table)
    for ax, panel in each:
        for _, arm in panel.sort_values("rate_per_s").groupby("arm", sort=False):
            _first(ax, arm)
        rate_axis(ax)
        ax.set_xlim(0, 1.06 * panel["rate_per_s"].max())
        ax.set_title(panel_title(str(panel["panel"].iloc[0]), axes.shape[1]))
        shown = panel.loc[np.isfinite(panel[FIRST]), FIRST]
        if len(shown):
            ax.set_ylim(shown.min() / 1.6, shown.max() * 3)
        log_axis(ax, "y")
    for ax in axes[:, 0]:
        ax.set_ylabel("to the first message (ms)")
    legend(figure, [*_handles(table), *not_valid_handles(table, (FIRST,))])
    return figure


def _first(ax: Axes, arm: pd.DataFrame) -> None:
    look, at = look_of(arm), arm["rate_per_s"]
    valid, finite = arm["verdict"] == VALID, np.isfinite(arm[FIRST])
    if (valid & finite).any():
        ax.plot(at, arm[FIRST].where(valid & finite), **look)
    whiskers(ax, at[valid & finite], arm[valid & finite], FIRST, COLOURS[str(arm["protocol"].iloc[0])])
    ax.plot(at[~valid & finite], arm.loc[~valid & finite, FIRST], **hollow(look))
    bound = finite & ((arm["verdict"] == SATURATED) | arm[f"{FIRST}_bound"].eq(True))
    bound_arrows(ax, at[bound], arm.loc[bound, FIRST])


GAPS_CAPTION = (
    "Distribution of the gaps between the messages of a stream at the larger λ of moderate load, lifetimes pooled. "
    f"Messages that came in one read are drawn at {LEAST_MS:g} ms. Grey line: the interval at which messages are sent; "
    "without one they are sent as fast as the server can, and the gaps are the backend's own. Dotted, with crosses: "
    "messages arrived together that were sent apart."
)
"""The caption of :func:`draw_gaps`, before how much it rests on."""

GAPS_ALTERNATIVE = (
    "Cumulative distributions of the gaps between messages: a panel for each server, size and interval, a line an arm."
)

FIRST_CAPTION = (
    "The 95th percentile of the time from the scheduled time of a request to the first message of its reply, against "
    "the arrival rate λ (Poisson arrivals, open loop). Bars: 95 % intervals over lifetimes. Dotted, with crosses: "
    "messages arrived together that were sent apart."
)
"""The caption of :func:`draw_first`, before how much it rests on."""

FIRST_ALTERNATIVE = (
    "Line charts of the p95 time to the first message against the arrival rate: a panel for each server, size and "
    "interval."
)
