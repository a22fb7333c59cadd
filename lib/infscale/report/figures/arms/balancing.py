"""The figure of load balancing: which replica got the requests, and what each further replica adds."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from infscale.report.figures.parts import (
    COLOURS,
    GREY,
    MARKERS,
    PAGE_IN,
    PLAIN,
    LineStyle,
    Look,
    by_protocol,
    row_title,
    styled,
)
from infscale.vocabulary import NAMES

REPLICAS = ("#1b4f4a", "#56b4a0", "#b8ddd0", "#e8c872", "#9a7b2f", "#cc79a7", "#7a4166", "#d9d9d9")
"""Colours of replicas, neither of which is a protocol's; their shades differ in print without colour, too."""

ASIDE = 0.08
"""How far neighbouring lines are set apart sideways, in replicas, so that no interval hides another."""

LINES: tuple[LineStyle, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 3)))
"""Line styles of balancers, in turn."""

ALONE = "none"
"""The balancer of a server alone."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return the share of each replica by arm (left), and λ* against the number of replicas (right), with the ideal.

    The ideal is a protocol's λ* of one replica times their number, where that is known.

    Args:
        table: a row for each arm: ``label`` (of the left panel), ``balancer`` (in words; "none" for a server alone),
            ``protocol``, ``replicas``, ``shares`` (a count for each replica; empty: not drawn), ``scaling`` (whether
            the arm belongs to the right panel), ``saturation_per_s`` (NaN: none), ``low_per_s`` and
            ``high_per_s`` (95 %; NaN: none).
    """
    shared = table[[len(shares) > 0 and sum(shares) > 0 for shares in table["shares"]]]
    height = 0.9 + max(2.2, 0.24 * len(shared))
    figure = Figure(figsize=(PAGE_IN, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    bars = _shares(left, shared)
    lines = _capacity(right, table[table["scaling"] & np.isfinite(table["saturation_per_s"].astype(float))])
    # A row of replicas, and below it the lines: nine entries in one row would not fit the page.
    figure.legend(handles=lines, loc="outside lower center", ncols=4, handlelength=3.2, columnspacing=1.4)
    left.legend(handles=bars, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize="small", frameon=False)
    return figure


def _shares(ax: Axes, table: pd.DataFrame) -> list[Patch]:
    """Draw stacked bars of each arm's shares; return entries of the replicas."""
    y = np.arange(len(table))[::-1]
    most = max((len(shares) for shares in table["shares"]), default=0)
    for at, shares in zip(y, table["shares"], strict=True):
        parts = np.asarray(shares, dtype=float) / sum(shares)
        starts = np.cumsum(parts) - parts
        ax.barh([at] * len(parts), parts, left=starts, color=REPLICAS[: len(parts)], height=0.7, edgecolor="white")
    ax.set_yticks(y, [row_title(label) for label in table["label"]])
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    ax.set_xlabel("requests answered by each replica (%)")
    ax.grid(axis="y", visible=False)
    return [Patch(color=REPLICAS[k], label=f"replica {k + 1}") for k in range(most)]


def _capacity(ax: Axes, table: pd.DataFrame) -> list[Line2D]:
    """Draw λ* by number of replicas, a line for each balancer and protocol; return their entries."""
    handles: list[Line2D] = []
    balanced = table[table["balancer"] != ALONE]
    balancers = [str(name) for name in balanced["balancer"].unique()] or [ALONE]
    lines = max(1, balanced.groupby(["protocol", "balancer"]).ngroups)
    for protocol, own in by_protocol(table):
        _ideal(ax, own, max(2, int(table["replicas"].max())), COLOURS[protocol])
        for name in balancers:
            if not (own["balancer"] == name).any():
                continue
            line = own[own["balancer"].isin([name, ALONE])].sort_values("replicas")
            aside = (len(handles) - (lines - 1) / 2) * min(ASIDE, 5 * ASIDE / lines)
            at, value = line["replicas"] + aside * (line["replicas"] > 1), line["saturation_per_s"]
            whiskers = np.abs(line[["low_per_s", "high_per_s"]].to_numpy(float).T - value.to_numpy())
            style = LINES[balancers.index(name) % len(LINES)]
            look = Look(color=COLOURS[protocol], marker=MARKERS[protocol], markersize=4, linestyle=style)
            ax.errorbar(at, value, whiskers, elinewidth=0.9, **look)
            handles.append(Line2D([], [], label=f"{NAMES[protocol]}, {name}", **look))
    ax.set_xticks(sorted(table["replicas"].unique()))
    ax.yaxis.set_major_formatter(PLAIN)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("replicas (number)")
    ax.set_ylabel("saturation rate λ* (requests/s)")
    return [*handles, Line2D([], [], color=GREY, linewidth=0.7, label="one replica's × their number")]


def _ideal(ax: Axes, own: pd.DataFrame, most: int, colour: str) -> None:
    """Draw the λ* of one replica times their number; nothing where one replica was not measured."""
    one = own[own["replicas"] == 1].sort_values("balancer", key=lambda names: names != ALONE)
    if len(one):
        ends = np.array([1, most])
        ax.plot(ends, one["saturation_per_s"].iloc[0] * ends, color=colour, linewidth=0.7, alpha=0.5)


CAPTION = (
    "Left: the share of requests that each replica answered at moderate load, by the servers' own counters: the "
    "busiest of each trial first, or the slow one where one is slow. Right: saturation rate λ* by number of replicas, "
    "with 95 % intervals, and that of one replica times their number."
)

ALTERNATIVE = "Share of the requests by replica, and saturation rate against the number of replicas."
