"""Figures of what processes use: CPU against the achieved rate, and what a request costs.

The table of both is ``points`` of ``usage_table``, or any with its columns: ``label``, ``framework``, ``protocol``,
``rate_per_s`` (λ), ``achieved_per_s`` (successes/s), ``group`` ("client", "server", "gateway", …), ``user_s_per_s`` and
``system_s_per_s`` (CPU seconds per second, so cores), ``rss_bytes`` (peak), ``cpu_us_per_request`` (µs), ``verdict``.
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from infscale.records.gate import VALID
from infscale.report.figures.parts import (
    COLOURS,
    GREY,
    LINES,
    PAGE_IN,
    PLAIN,
    by_protocol,
    legend,
    not_valid_handles,
    panel_labels,
    panels,
    protocol_handles,
    protocol_look,
    rate_axis,
    styled,
    wrapped,
)
from infscale.vocabulary import NAMES

CASE = ["label", "protocol"]

HATCHES = {"client": ("",), "front": ("....", "oo", "**"), "server": ("////", "\\\\\\\\", "xxxx", "++++")}
"""Of groups of processes by kind: a server looks alike in every figure, whatever stands before it."""


def groups(table: pd.DataFrame) -> list[str]:
    """The groups of processes as a request passes them: the client, what stands before servers, servers."""
    names = map(str, table["group"].unique())
    return sorted(names, key=lambda name: (name != "client", _kind(name) == "server", name))


def _kind(group: str) -> str:
    return "client" if group == "client" else "server" if group.startswith("server") else "front"


@styled
def cores_vs_rate(table: pd.DataFrame) -> Figure:
    """CPU cores used against the achieved rate: a row of panels a group of processes, a column a serving system.

    Lines with marks are user and system time together, dotted ones system time alone. Where an achieved rate falls
    although λ rises, the line turns back: it follows λ. What is SATURATED is hollow.
    """
    rows, labels = groups(table), _systems(table)
    figure, axes = panels(len(rows), len(labels), row_in=1.6, sharex="col", sharey="row", wide=True)
    for row, group in enumerate(rows):
        for column, label in enumerate(labels):
            ax = axes[row, column]
            _cores(ax, table[(table["group"] == group) & (_system(table) == label)])
        axes[row, 0].set_ylabel(f"{group}\n(CPU cores)")
    for column, label in enumerate(labels):
        axes[0, column].set_title(wrapped(label, len(labels)))
        rate_axis(
            axes[-1, column], "achieved rate (successes/s)" if len(labels) < 4 or column == len(labels) // 2 else ""
        )
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(3 if len(labels) < 6 else 2))
    for ax in axes.flat:  # when all is drawn, or what shares an axis with the first panel is cut off
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
    system = Line2D([], [], color="0.2", linestyle=":", linewidth=1, label="system time alone")
    legend(figure, [*protocol_handles(table), system, *_hollow(table)])
    return figure


def _system(table: pd.DataFrame) -> "pd.Series[str]":
    """What has a panel: the label, or the server where each protocol has one case on it."""
    if "implementation" not in table or table.groupby("label")["protocol"].nunique().max() > 1:
        return table["label"]
    many = table.groupby(["implementation", "protocol"])["label"].nunique().max() > 1
    return table["label"] if many else table["implementation"]


def _systems(table: pd.DataFrame) -> list[str]:
    return panel_labels(pd.DataFrame({"label": _system(table)}))


def _cores(ax: Axes, panel: pd.DataFrame) -> None:
    for protocol, arm in by_protocol(panel):
        for _, line in arm.sort_values("rate_per_s").groupby("label", sort=False):
            at, whole = line["achieved_per_s"], line["user_s_per_s"] + line["system_s_per_s"]
            look = protocol_look(protocol) | {"linestyle": ""}
            ax.plot(at, whole, color=COLOURS[protocol], linestyle=LINES[protocol])
            ax.plot(at, line["system_s_per_s"], color=COLOURS[protocol], linestyle=":", linewidth=1)
            valid = line["verdict"] == VALID
            ax.plot(at[valid], whole[valid], **look)
            ax.plot(at[~valid], whole[~valid], **(look | {"color": GREY, "markerfacecolor": "white"}))


def _hollow(table: pd.DataFrame) -> list[Artist]:
    return not_valid_handles(table, arrows=False)


@styled
def cost_of_a_request(table: pd.DataFrame) -> Figure:
    """CPU of a request (ms) and peak memory (MB), stacked by group of processes; a bar a case and protocol.

    Cases of a serving system are compared at the highest λ at which all of them are VALID; where there is none, each
    is shown at its own highest VALID one (or at its highest, if none is). The λ is in the bar's name.
    """
    chosen = _chosen(table)
    bars = chosen[[*CASE, "rate_per_s"]].drop_duplicates().reset_index(drop=True)
    figure = Figure(figsize=(PAGE_IN, 0.9 + 0.4 * len(bars)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(bars))[::-1]
    for ax, column, scale in ((axes[0], "cpu_us_per_request", 1e-3), (axes[1], "rss_bytes", 1e-6)):
        left, unknown = np.zeros(len(bars)), np.zeros(len(bars), bool)
        for group, hatch in zip(groups(chosen), _hatches(chosen), strict=True):
            own = chosen[chosen["group"] == group]
            found = bars.merge(own, on=[*CASE, "rate_per_s"], how="left", indicator=True)
            unknown |= ((found["_merge"] == "both") & found[column].isna()).to_numpy()
            width = found[column].fillna(0).to_numpy() * scale
            colours = [COLOURS[protocol] for protocol in bars["protocol"]]
            ax.barh(y, width, left=left, height=0.7, color=colours, edgecolor="white", hatch=hatch, linewidth=0.6)
            left += width
        for at, end in zip(y[unknown], left[unknown], strict=True):
            ax.text(end, at, " + ?", va="center")
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_formatter(PLAIN)
    axes[0].set_yticks(y, [_bar_name(row) for row in bars.to_dict("records")])
    axes[0].set_xlabel("CPU of a request (ms)")
    axes[1].set_xlabel("peak resident memory (MB)")
    marks = [Patch(color=COLOURS[name], label=NAMES[name]) for name, _ in by_protocol(chosen)]
    legend(figure, [*marks, *_group_handles(chosen)])
    return figure


def _chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Of every case the rows of one λ: CPU of a request falls as λ grows, so that cases must be compared at the same.

    It is the highest at which all cases of a serving system are VALID, else for each case its own highest VALID one.
    """
    return pd.concat([_at_one_rate(own) for _, own in table.groupby(_system(table), sort=False)])


def _at_one_rate(own: pd.DataFrame) -> pd.DataFrame:
    cases = own.groupby(CASE, sort=False).ngroups
    valid = own[own["verdict"] == VALID]
    common = valid.groupby("rate_per_s").apply(lambda at: at.groupby(CASE).ngroups == cases)
    if len(common) and common.any():
        shared: pd.DataFrame = valid[valid["rate_per_s"] == common.index[common].max()]
        return shared
    some_valid = (own["verdict"] == VALID).groupby([own[key] for key in CASE]).transform("any")
    fit = own[(own["verdict"] == VALID) | ~some_valid]
    highest: pd.DataFrame = fit[fit["rate_per_s"] == fit.groupby(CASE)["rate_per_s"].transform("max")]
    return highest


def _hatches(table: pd.DataFrame) -> list[str]:
    left = {kind: itertools.cycle(hatches) for kind, hatches in HATCHES.items()}
    return [next(left[_kind(group)]) for group in groups(table)]


def _group_handles(table: pd.DataFrame) -> list[Artist]:
    pairs = zip(groups(table), _hatches(table), strict=True)
    return [Patch(facecolor="0.5", edgecolor="white", hatch=hatch, label=group) for group, hatch in pairs]


def _bar_name(row: dict[Any, Any]) -> str:
    label, protocol = wrapped(str(row["label"]), 1), NAMES[row["protocol"]]
    rate = f"{protocol}, λ = {row['rate_per_s']:,.4g}/s"
    return f"{label}\n{rate}" if protocol not in label else f"{label}\nλ = {row['rate_per_s']:,.4g}/s"


def caption(table: pd.DataFrame) -> str:
    """For both figures."""
    told = sorted({int(count) for count in table["replicates"]}) if "replicates" in table else []
    many = (
        f" Means over {told[0]}{f' to {told[-1]}' if len(told) > 1 else ''} replicates, no intervals." if told else ""
    )
    unread = " “+ ?”: beside it a part that was not read." if table["rss_bytes"].isna().any() else ""
    return (
        "CPU time of all processes of a group, read every 100 ms and counted within the arrivals of a trial; per "
        "request: divided by the successes of that time. Memory is the peak of the resident sets, where pages that "
        "processes share count for each of them. Bytes by process are not shown: the kernel tells them of an interface "
        f"only.{many} Hollow grey: not VALID.{unread}"
    )
