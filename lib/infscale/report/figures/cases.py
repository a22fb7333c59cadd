"""The figure of a finding: what each case sends, what it can take, and how fast it is at the common rate."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infscale.records.gate import VALID
from infscale.report.figures.parts import COLOURS, GREY, MARKERS, PAGE_IN, PLAIN, legend, log_axis, styled
from infscale.vocabulary import NAMES, number


@styled
def cases(table: pd.DataFrame) -> Figure:
    """Bytes on the wire, capacity and p95 of every case, one row each; protocol by colour and marker.

    ``table`` is ``cases`` of ``study_tables``. Bars are 95 % intervals over replicates; where there is none, the
    capacity has its bracket as a thin line. What is not VALID is hollow and grey.
    """
    figure = Figure(figsize=(PAGE_IN, 0.9 + 0.27 * len(table)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1.2, 1.2))
    y = np.arange(len(table))[::-1]
    for protocol, hatch in (("rest", ""), ("grpc", "//")):
        own = (table["protocol"] == protocol).to_numpy()
        look = {"color": COLOURS[protocol], "edgecolor": "white", "hatch": hatch, "linewidth": 0}
        axes[0].barh(y[own] + 0.2, table["bytes_out"][own], height=0.36, **look)
        axes[0].barh(y[own] - 0.2, table["bytes_in"][own], height=0.36, alpha=0.45, **look)
        _capacity(axes[1], y[own], table[own], protocol)
        _times(axes[2], y[own], table[own], protocol)
    axes[0].set_xscale("log")
    axes[0].set_yticks(y, table["label"])
    axes[0].set_xlabel("on the wire (bytes a request)")
    axes[1].set_xlabel("capacity λ* (requests/s)")
    rates = table["rate_per_s"].dropna().unique()
    where = f"at λ = {rates[0]:,.4g}/s" if len(rates) == 1 else "at the λ on the right"
    axes[2].set_xlabel(f"p95 response time (ms)\n{where}")
    for at, rate in zip(y, table["rate_per_s"], strict=True) if len(rates) > 1 else ():
        told = f"{number(rate)}/s" if np.isfinite(rate) else ""
        axes[2].text(1.02, at, told, transform=axes[2].get_yaxis_transform(), va="center", fontsize="x-small")
    axes[1].xaxis.set_major_formatter(PLAIN)
    axes[1].set_xlim(left=0)
    if np.isfinite(table["response_p95_ms"].to_numpy(dtype=float)).any():
        log_axis(axes[2], "x")
    else:
        axes[2].set_xticks([])
        axes[2].text(0.5, 0.5, "no steady VALID trial", transform=axes[2].transAxes, ha="center", va="center")
    for ax in axes:
        ax.grid(axis="y", visible=False)
    marks = [
        Line2D([], [], color=COLOURS[name], marker=MARKERS[name], label=NAMES[name])
        for name in NAMES
        if (table["protocol"] == name).any()
    ]
    bars = [Patch(color="0.3", label="request"), Patch(color="0.3", alpha=0.45, label="answer")]
    legend(figure, [*marks, *bars])
    return figure


def _capacity(ax: Axes, y: "np.ndarray[tuple[int], np.dtype[np.int64]]", table: pd.DataFrame, protocol: str) -> None:
    """λ* with its interval over replicates, and thin the bracket."""
    colour = COLOURS[protocol]
    ax.hlines(y, table["low_per_s"], table["high_per_s"], color=colour, linewidth=3.5, alpha=0.4)
    ax.hlines(y, table["interval_low_per_s"], table["interval_high_per_s"], color=colour, linewidth=1)
    sure = (table["bound"] == "").to_numpy()
    ax.plot(table["saturation_per_s"][sure], y[sure], MARKERS[protocol], color=colour, markersize=4)
    look: dict[str, Any] = {"color": GREY, "markerfacecolor": "white", "markersize": 4}
    ax.plot(table["saturation_per_s"][~sure], y[~sure], MARKERS[protocol], **look)


def _times(ax: Axes, y: "np.ndarray[tuple[int], np.dtype[np.int64]]", table: pd.DataFrame, protocol: str) -> None:
    """p95 with its interval."""
    valid = (table["verdict"] == VALID).to_numpy()
    name = "response_p95_ms"
    ax.hlines(y[valid], table[f"{name}_low"][valid], table[f"{name}_high"][valid], color=COLOURS[protocol], linewidth=1)
    ax.plot(table[name][valid], y[valid], MARKERS[protocol], color=COLOURS[protocol], markersize=4)
    other = table[name].to_numpy(dtype=float)
    shown = ~valid & np.isfinite(other)
    ax.plot(other[shown], y[shown], MARKERS[protocol], color=GREY, markerfacecolor="white", markersize=4)


def caption(tables: dict[str, pd.DataFrame]) -> str:
    """For :func:`cases`."""
    table = tables["cases"]
    counts = table["replicates"].dropna()
    told = f"{int(counts.min())}" if counts.nunique() == 1 else f"{counts.min():.0f} to {counts.max():.0f}"
    low, high = int(table["n"].min()), int(table["n"].max())
    unseen = " No bar: what that client put on the wire was not seen." if table["bytes_out"].isna().any() else ""
    return (
        "Left: bytes on the wire of a request and its answer, framing included. Middle: capacity, its bracket (thick) "
        "and 95 % interval over replicates (thin). Right: p95 response time with its 95 % interval, at one arrival "
        "rate λ for all cases that are compared with one another (open-loop Poisson arrivals; "
        f"{told} replicates, n = {low:,} to {high:,} requests a case). Hollow "
        f"grey: not VALID; of a capacity: without a bracket, or contradicted by other verdicts.{unseen}"
    )
