"""The figure of load balancing: who got the requests, and what each one more replica adds."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from infscale.report.figures.parts import COLOURS, GREY, MARKERS, PAGE_IN, PLAIN, styled
from infscale.vocabulary import NAMES

# Neither protocol's colour: these are replicas. Shades tell them apart in print, too.
_REPLICAS = ["#1b4f4a", "#56b4a0", "#b8ddd0", "#e8c872", "#9a7b2f", "#cc79a7", "#7a4166", "#d9d9d9"]
_ASIDE = 0.08
"""Replicas by which the points of neighbouring lines are set apart: else their intervals hide one another."""
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 3)))


@styled
def balancing(table: pd.DataFrame) -> Figure:
    """Left the share of each replica by case; right the capacity against the number of replicas, and the ideal line.

    ``table`` has a row for each case: ``label`` (of the left panel), ``balancer`` and ``protocol`` (a line of the
    right panel), ``replicas``, ``shares`` (a list of counts, one for each replica, None for unknown; None or empty:
    not drawn), ``scaling`` (false: not for the right panel), ``saturation_per_s`` (NaN: none), and its 95 % interval,
    ``interval_low_per_s`` and ``interval_high_per_s`` (NaN: none). The ideal is a protocol's capacity of one replica
    times their number, where that is known.
    """
    shared = table[[bool(s) and all(x is not None for x in s) and sum(s) > 0 for s in table["shares"]]]
    height = 0.9 + max(2.2, 0.24 * len(shared))
    figure = Figure(figsize=(PAGE_IN, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    bars = _shares(left, shared)
    plain = table["scaling"].to_numpy(dtype=bool) if "scaling" in table else np.ones(len(table), bool)
    lines = _capacity(right, table[plain & np.isfinite(table["saturation_per_s"].to_numpy(dtype=float))])
    # A row of replicas, and below it the lines: nine entries in one row would not fit the page.
    figure.legend(handles=lines, loc="outside lower center", ncols=4, handlelength=3.2, columnspacing=1.4)
    left.legend(handles=bars, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize="small", frameon=False)
    return figure


def _shares(ax: Axes, table: pd.DataFrame) -> list[Patch]:
    """Stacked bars of each case's shares."""
    y = np.arange(len(table))[::-1]
    most = max((len(s) for s in table["shares"]), default=0)
    for at, shares in zip(y, table["shares"], strict=True):
        parts = np.asarray(shares, dtype=float) / sum(shares)
        starts = np.cumsum(parts) - parts
        ax.barh([at] * len(parts), parts, left=starts, color=_REPLICAS[: len(parts)], height=0.7, edgecolor="white")
    ax.set_yticks(y, table["label"])
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("requests answered by each replica")
    ax.grid(axis="y", visible=False)
    return [Patch(color=_REPLICAS[k], label=f"replica {k + 1}") for k in range(most)]


def _capacity(ax: Axes, table: pd.DataFrame) -> list[Line2D]:
    """Capacity by number of replicas, a line for each balancer and protocol."""
    handles: list[Line2D] = []
    names = [str(name) for name in table["balancer"].unique() if name != "none"]
    count = max(1, len(table.loc[table["balancer"] != "none", ["protocol", "balancer"]].drop_duplicates()))
    for protocol, own in table.groupby("protocol", sort=False):
        look: dict[str, Any] = {"color": COLOURS[str(protocol)], "marker": MARKERS[str(protocol)], "markersize": 4}
        base = (
            own.sort_values(["replicas"]).assign(alone=lambda t: t["balancer"] != "none").sort_values("alone").iloc[0]
        )
        ends = np.array([1, max(2, table["replicas"].max())]) if base["replicas"] == 1 else np.array([])
        ax.plot(ends, base["saturation_per_s"] / base["replicas"] * ends, color=look["color"], linewidth=0.7, alpha=0.5)
        for name in [*names, *(["none"] if not names else [])]:
            line = own[(own["balancer"] == name) | (own["balancer"] == "none")].sort_values("replicas")
            if not (own["balancer"] == name).any():
                continue
            aside = (len(handles) - (count - 1) / 2) * min(_ASIDE, _ASIDE * 5 / count)
            at, value = line["replicas"] + aside * (line["replicas"] > 1), line["saturation_per_s"]
            whiskers = np.abs(line[["interval_low_per_s", "interval_high_per_s"]].to_numpy(float).T - value.to_numpy())
            style: Any = _LINES[names.index(name) % len(_LINES)] if names else "-"
            ax.errorbar(at, value, whiskers, **look, linestyle=style, elinewidth=0.9)
            handles.append(Line2D([], [], **look, linestyle=style, label=f"{NAMES[str(protocol)]}, {name}"))
    ax.set_xticks(sorted(table["replicas"].unique()))
    ax.yaxis.set_major_formatter(PLAIN)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("replicas")
    ax.set_ylabel("capacity λ* (requests/s)")
    return [*handles, Line2D([], [], color=GREY, linewidth=0.7, label="one replica's × their number")]
