"""The figures of whole distributions at one arrival rate: the distribution, its tail, and quantile against quantile."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.analysis.tables import Tables
from infscale.analysis.tables.trials import QUANTILES as PERCENTILES
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend, mark, protocol_handles
from infscale.report.figures.parts import (
    Look,
    by_protocol,
    log_axis,
    panel_names,
    panel_title,
    protocol_look,
    styled,
    tiles,
    with_panels,
)
from infscale.report.figures.picture import Picture
from infscale.vocabulary import NAMES, number

TIME_AXIS = "response time (ms)"

DIAGONAL: Look = {"color": "0.4", "linewidth": 0.8, "linestyle": ":"}
GRID: Look = {"color": "0.8", "linewidth": 0.6}


def common(_: Run, tables: Tables) -> pd.DataFrame:
    """Return the distributions at the λ of each serving system at which its arms are compared."""
    table = tables.distributions
    return with_panels(table[table["common"].astype(bool)].reset_index(drop=True))


def title_with_rate(panel: pd.DataFrame, columns: int) -> str:
    """Return the title of a panel at one λ: its name, and the λ."""
    name, rate = panel[["panel", "rate_per_s"]].iloc[0]
    return f"{panel_title(str(name), columns)}\nλ = {number(rate)} requests/s"


def rests_on(tables: Tables) -> str:
    """Return how many requests the figures at one λ rest on, or that there are none."""
    drawn = tables.distributions[tables.distributions["common"].astype(bool)]
    return captions.sizes(drawn) if len(drawn) else "No protocol is VALID at moderate load."


# --------------------------------------------------------------------------------------- distribution


@styled
def draw_ecdf(distributions: pd.DataFrame) -> Figure:
    """Return the share of requests that took no longer than a response time (ms, log).

    A request that did not succeed lies beyond the axis: its curve then ends below 1.
    """
    names = panel_names(distributions)
    figure, axes = tiles(distributions, row_in=2.3, sharey=True)
    axes[0, 0].set_ylim(0, 1)
    for ax, name in zip(axes.flat, names, strict=False):
        panel = distributions[distributions["panel"] == name]
        finite = panel.loc[np.isfinite(panel["response_ms"]), "response_ms"]
        for protocol, arm in by_protocol(panel):
            times = arm["response_ms"].clip(upper=100 * finite.max())
            shares = np.diff(arm["level"], prepend=0)
            sns.ecdfplot(x=times, weights=shares, ax=ax, log_scale=True, markevery=0.12, **protocol_look(protocol))
        ax.set_xlim(finite.min() * 0.9, finite.max() * 1.1)
        log_axis(ax, "x")
        ax.set_title(title_with_rate(panel, len(axes[0])))
        ax.set(xlabel=TIME_AXIS, ylabel="")
    for ax in axes[:, 0]:
        ax.set_ylabel("share of requests")
    legend(figure, protocol_handles(distributions))
    return figure


def ecdf_caption(_: Run, tables: Tables) -> str:
    """Return the caption of :func:`draw_ecdf`."""
    return (
        "Distribution of the response time at the larger λ of moderate load, lifetimes pooled. "
        f"Requests that did not succeed lie beyond the right edge. {rests_on(tables)}"
    )


ECDF = Picture(
    "ecdf",
    common,
    draw_ecdf,
    ecdf_caption,
    "Cumulative distributions of the response time, a panel for each serving system, a curve for each protocol.",
)

# ----------------------------------------------------------------------------------------------- tail


@styled
def draw_tail(distributions: pd.DataFrame) -> Figure:
    """Return the share of requests (log) that took longer than a response time (ms, log)."""
    names = panel_names(distributions)
    figure, axes = tiles(distributions, row_in=2.3, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        panel = distributions[distributions["panel"] == name]
        for protocol, arm in by_protocol(panel):
            shown = arm[np.isfinite(arm["response_ms"]) & (arm["level"] < 1)]
            beyond = 1 - shown["level"]
            ax.plot(
                shown["response_ms"], beyond, drawstyle="steps-post", markevery=0.15, **protocol_look(protocol)
            )  # fmt: skip
        log_axis(ax, "x")
        log_axis(ax, "y")
        for level in PERCENTILES.values():
            ax.axhline(1 - level, zorder=0, **GRID)
        ax.set_title(title_with_rate(panel, len(axes[0])))
        ax.set_xlabel(TIME_AXIS)
    for ax in axes[:, 0]:
        ax.set_ylabel("share of requests beyond")
    legend(figure, [*protocol_handles(distributions), Line2D([], [], label=", ".join(PERCENTILES), **GRID)])
    return figure


def tail_caption(_: Run, tables: Tables) -> str:
    """Return the caption of :func:`draw_tail`."""
    return (
        "The tail of the same distributions: the share of requests (log) that took longer than a response time. Grey "
        f"lines: {', '.join(PERCENTILES)}. The last steps are single requests of the pooled lifetimes. "
        f"{rests_on(tables)}"
    )


TAIL = Picture(
    "tail",
    common,
    draw_tail,
    tail_caption,
    "Complementary cumulative distributions of the response time on log scales, a curve for each protocol.",
)

# ------------------------------------------------------------------------------ quantile against quantile

MARKS = dict(zip(PERCENTILES, "o^s", strict=True))
"""Matplotlib's marker by percentile."""


@styled
def draw_quantiles(distributions: pd.DataFrame, over: str = "rest", under: str = "grpc") -> Figure:
    """Return the quantiles of one protocol's response time against those of the other (ms, log), and the diagonal."""
    finite = distributions[np.isfinite(distributions["response_ms"])]
    names = panel_names(finite)
    figure, axes = tiles(finite, row_in=2.6)
    for ax, name in zip(axes.flat, names, strict=False):
        panel = finite[finite["panel"] == name]
        curves = {protocol: arm.set_index("level")["response_ms"] for protocol, arm in by_protocol(panel)}
        if {over, under} <= set(curves):
            _against(ax, curves[over], curves[under])
        ends = (panel["response_ms"].min() * 0.9, panel["response_ms"].max() * 1.1)
        ax.plot(ends, ends, **DIAGONAL)
        ax.set(xlim=ends, ylim=ends)
        log_axis(ax, "x")
        log_axis(ax, "y")
        ax.set_title(title_with_rate(panel, len(axes[0])))
        ax.set_xlabel(f"{NAMES[under]} {TIME_AXIS}")
    for ax in axes[:, 0]:
        ax.set_ylabel(f"{NAMES[over]} {TIME_AXIS}")
    marks = [mark(percentile, marker, filled=False) for percentile, marker in MARKS.items()]
    legend(figure, [*marks, Line2D([], [], label="equal", **DIAGONAL)])
    return figure


def _against(ax: Axes, over: "pd.Series[float]", under: "pd.Series[float]") -> None:
    """Draw one curve of quantiles (ms, by level) against another, with marks at the percentiles."""
    levels = np.linspace(0.005, min(over.index.max(), under.index.max()), 300)
    ax.plot(*(np.interp(levels, curve.index, curve) for curve in (under, over)), color="black", linewidth=1.3)
    for percentile, marker in MARKS.items():
        at = [float(np.interp(PERCENTILES[percentile], curve.index, curve)) for curve in (under, over)]
        ax.plot(*at, marker, color="black", markerfacecolor="white", markersize=5)


def quantiles_caption(_: Run, tables: Tables) -> str:
    """Return the caption of :func:`draw_quantiles`."""
    return (
        "Quantile against quantile of the same distributions: above the dotted diagonal REST is slower at that "
        f"quantile, below it gRPC is. {rests_on(tables)}"
    )


QUANTILES = Picture(
    "quantiles",
    common,
    draw_quantiles,
    quantiles_caption,
    "REST's quantiles of the response time against gRPC's, with the diagonal, a panel for each serving system.",
)
