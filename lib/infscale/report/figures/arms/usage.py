"""The figures of what processes use: CPU against the achieved rate, and CPU and memory of a request.

Both draw rows of ``Tables.usage``, one for each arm, arrival rate and group of processes ("client", "server", …).
"""

import itertools

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from infscale.analysis.tables import Tables
from infscale.records.gate import VALID
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend, not_valid_handles, protocol_handles
from infscale.report.figures.parts import (
    COLOURS,
    LINES,
    PAGE_IN,
    PLAIN,
    by_protocol,
    hollow,
    panel_title,
    panels,
    protocol_look,
    rate_axis,
    row_title,
    styled,
)
from infscale.report.figures.picture import Picture
from infscale.vocabulary import NAMES, number

HATCHES = {"client": ("",), "front": ("....", "oo", "**"), "server": ("////", "\\\\\\\\", "xxxx", "++++")}
"""Hatches of groups of processes by kind: a server looks alike in every figure, whatever stands before it."""


def groups(table: pd.DataFrame) -> list[str]:
    """Return the groups of processes as a request passes them: the client, what stands before servers, servers."""
    names = map(str, table["group"].unique())
    return sorted(names, key=lambda name: (name != "client", _kind(name) == "server", name))


def _kind(group: str) -> str:
    return "client" if group == "client" else "server" if group.startswith("server") else "front"


# ----------------------------------------------------------------------------------- against the rate


@styled
def draw_cores(table: pd.DataFrame) -> Figure:
    """Return CPU cores used against the achieved rate: a row of panels for each group, a column for each system.

    Where a system has several arms of one protocol, each arm has a column of its own. Lines with marks are user and
    system time together, dotted ones system time alone. Where the achieved rate falls although λ rises, the line turns
    back. What is SATURATED is hollow.
    """
    table = table.sort_values("arm", kind="stable")
    rows, (keys, titles) = groups(table), _columns(table)
    figure, axes = panels(len(rows), len(titles), row_in=1.6, sharex="col", sharey="row", wide=True)
    for row, group in enumerate(rows):
        for column, key in enumerate(titles):
            _cores(axes[row, column], table[(table["group"] == group) & (keys == key)])
        axes[row, 0].set_ylabel(f"{group}\n(CPU cores)")
    for column, title in enumerate(titles.values()):
        axes[0, column].set_title(panel_title(title, len(titles)))
        named = len(titles) < 4 or column == len(titles) // 2
        rate_axis(axes[-1, column], "achieved rate (successes/s)" if named else "")
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(3 if len(titles) < 6 else 2))
    for ax in axes.flat:  # when all is drawn, or what shares an axis with the first panel is cut off
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
    system = Line2D([], [], color="0.2", linestyle=":", linewidth=1, label="system time alone")
    legend(figure, [*protocol_handles(table), system, *not_valid_handles(table)])
    return figure


def _columns(table: pd.DataFrame) -> tuple["pd.Series[str] | pd.Series[int]", dict[str | int, str]]:
    """Return what decides a row's column of panels, and the title of each column."""
    several = table.groupby(["system", "protocol"])["arm"].nunique().max() > 1
    key, title = ("arm", "label") if several else ("system", "system")
    first = table.drop_duplicates(key)
    return table[key], dict(zip(first[key], first[title].astype(str), strict=True))


def _cores(ax: Axes, panel: pd.DataFrame) -> None:
    for protocol, own in by_protocol(panel):
        for _, arm in own.sort_values("rate_per_s").groupby("arm", sort=False):
            at, whole = arm["achieved_per_s"], arm["user_s_per_s"] + arm["system_s_per_s"]
            ax.plot(at, whole, color=COLOURS[protocol], linestyle=LINES[protocol])
            ax.plot(at, arm["system_s_per_s"], color=COLOURS[protocol], linestyle=":", linewidth=1)
            valid, marks = arm["verdict"] == VALID, protocol_look(protocol)
            marks["linestyle"] = ""
            ax.plot(at[valid], whole[valid], **marks)
            ax.plot(at[~valid], whole[~valid], **hollow(marks))


CORES = Picture(
    "cores",
    lambda _, tables: tables.usage,
    draw_cores,
    lambda _, tables: _caption(tables.usage),
    "CPU cores used by client and server against the achieved rate, a column of panels for each serving system or arm.",
)

# ---------------------------------------------------------------------------------- of a request

MEASURES = {"cpu_us_per_request": 1e-3, "rss_bytes": 1e-6}
"""Columns of the two panels, and what turns them into ms and MB."""


def at_common_rate(_: Run, tables: Tables) -> pd.DataFrame:
    """Return what processes used at the rate at which the arms are compared: the CPU of a request falls as λ grows."""
    usage = tables.usage
    return usage if usage.empty else tables.summary[["arm", "rate_per_s"]].merge(usage, on=["arm", "rate_per_s"])


@styled
def draw_costs(table: pd.DataFrame) -> Figure:
    """Return CPU (ms) and peak memory (MB) of a request, stacked by group of processes: a bar for each arm."""
    bars = table.drop_duplicates("arm").reset_index(drop=True)
    figure = Figure(figsize=(PAGE_IN, 0.9 + 0.34 * len(bars)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(bars))[::-1]
    for ax, column in zip(axes, MEASURES, strict=True):
        _stack(ax, y, bars, table, column)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_formatter(PLAIN)
    rates = bars["rate_per_s"].unique()
    one = f"\nat λ = {number(rates[0])} requests/s" if len(rates) == 1 else ""
    names = [
        row_title(str(row["label"])) + ("" if one else f"\nλ = {number(row['rate_per_s'])} requests/s")
        for _, row in bars.iterrows()
    ]
    axes[0].set_yticks(y, names)
    axes[0].set_xlabel(f"CPU of a request (ms){one}")
    axes[1].set_xlabel(f"peak resident memory (MB){one}")
    marks = [Patch(color=COLOURS[protocol], label=NAMES[protocol]) for protocol, _ in by_protocol(table)]
    legend(figure, [*marks, *_group_handles(table)])
    return figure


def _stack(ax: Axes, y: NDArray[np.int64], bars: pd.DataFrame, table: pd.DataFrame, column: str) -> None:
    """Draw the groups of one measure one after the other; "+ ?" follows where a part was not read."""
    left, unknown = np.zeros(len(bars)), np.zeros(len(bars), bool)
    colours = [COLOURS[protocol] for protocol in bars["protocol"]]
    for group, hatch in zip(groups(table), _hatches(table), strict=True):
        own = table[table["group"] == group].set_index("arm")[column]
        unknown |= bars["arm"].isin(own.index[own.isna()]).to_numpy()
        width = bars["arm"].map(own).fillna(0).to_numpy(dtype=float) * MEASURES[column]
        ax.barh(y, width, left=left, height=0.7, color=colours, edgecolor="white", hatch=hatch, linewidth=0.6)
        left += width
    for at, end in zip(y[unknown], left[unknown], strict=True):
        ax.text(end, at, " + ?", va="center")


def _hatches(table: pd.DataFrame) -> list[str]:
    left = {kind: itertools.cycle(hatches) for kind, hatches in HATCHES.items()}
    return [next(left[_kind(group)]) for group in groups(table)]


def _group_handles(table: pd.DataFrame) -> list[Artist]:
    pairs = zip(groups(table), _hatches(table), strict=True)
    return [Patch(facecolor="0.5", edgecolor="white", hatch=hatch, label=group) for group, hatch in pairs]


COSTS = Picture(
    "cost",
    at_common_rate,
    draw_costs,
    lambda run, tables: f"At the larger λ of moderate load. {_caption(at_common_rate(run, tables))}",
    "CPU of a request and peak memory of client, gateway and server, a bar for each arm.",
)


def _caption(table: pd.DataFrame) -> str:
    """Return what both figures rest on."""
    if table.empty:
        return "No usage of processes was read in this run."
    unread = " “+ ?”: beside it a part that was not read." if table["rss_bytes"].isna().any() else ""
    hollow_marks = "" if (table["verdict"] == VALID).all() else " Hollow grey: not VALID."
    return (
        "CPU time that all processes of a group used while requests arrived, read every 100 ms. CPU per request = that "
        "time ÷ successful requests in it. Memory is the peak of the resident sets, where pages that "
        "processes share count for each of them. Bytes by process are not shown, because the kernel counts them by "
        f"interface only. Means over {captions.span(table['lifetimes'])} lifetimes, no intervals."
        f"{hollow_marks}{unread}"
    )
