"""The figures of experiment F0 (frameworks × protocols × λ): tables in, Matplotlib figures out.

Nothing is measured or written here, and no data are read. A protocol has a colour, a marker and a line style,
so that it is recognised in greyscale too; what is not VALID is hollow and grey. Units are on every axis.
Tables are those of ``infscale.summary``.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from infscale.trial_table import QUANTILES, metric
from infscale.validity import LAG_FLOOR_NS, SATURATED, VALID

COLUMN_IN, PAGE_IN = 3.5, 7.2
NAMES = {"rest": "REST", "grpc": "gRPC"}
COLOURS = {"rest": "#D55E00", "grpc": "#0072B2"}
"""Vermilion and blue of the palette of Okabe and Ito (2008), told apart with every common colour vision."""
MARKERS = {"rest": "o", "grpc": "s"}
LINES: dict[str, Any] = {"rest": "-", "grpc": "--"}
GREY = "0.5"
PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")
"""1,000 and 0.5 instead of powers of ten."""
RATE_AXIS = "arrival rate λ (requests/s)"

P = ParamSpec("P")


@contextmanager
def house_style() -> Iterator[None]:
    """The project's style sheet on Matplotlib's defaults, whatever the caller's settings; they come back after."""
    with matplotlib.style.context(["default", Path(__file__).with_name("infscale.mplstyle")]):
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw within :func:`house_style`."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with house_style():
            return draw(*args, **kwargs)

    return inner


@styled
def percentiles_vs_rate(points: pd.DataFrame, arms: pd.DataFrame) -> Figure:
    """p50, p95 and p99 of the response time (ms, log) against λ: rows are percentiles, columns implementations.

    Bars are 95 % intervals over replicates; the block at the upper edge is the bracket of a protocol's λ*, the line
    λ* itself.
    """
    labels = _labels(points)
    figure, axes = _panels(len(QUANTILES), len(labels), row_in=1.75, sharex="col", sharey=True)
    for column, label in enumerate(labels):
        for row, quantile in enumerate(QUANTILES):
            ax = axes[row, column]
            _saturation(ax, arms[arms["label"] == label])
            _series(ax, points[points["label"] == label], metric("response", quantile), dodge=0.006)
        axes[0, column].set_title(_wrapped(label, len(labels)))
        _rate_axis(axes[-1, column])
    for row, quantile in enumerate(QUANTILES):
        axes[row, 0].set_ylabel(f"{quantile} response time (ms)")
    marks = points[[metric("response", quantile) for quantile in QUANTILES]].to_numpy(dtype=float)
    marks = marks[np.isfinite(marks)]
    for ax in axes.flat:
        # The marks set the axis, with room for arrows; an interval of two or three replicates may leave it.
        if len(marks):
            ax.set_ylim(marks.min() / 2, marks.max() * 5)
        _log_axis(ax, "y")
        ax.set_xlim(left=0)
    _legend(figure, [*_protocol_handles(points), *_saturation_handles(arms), *_not_valid_handles(points)])
    return figure


@styled
def latency_ecdf(distributions: pd.DataFrame) -> Figure:
    """The distribution of response times (ms, log) at one λ per implementation, VALID replicates pooled.

    A request that did not succeed lies beyond the axis: its curve then ends below 1.
    """
    labels = _labels(distributions)
    figure, axes = _panels(1, max(1, len(labels)), row_in=2.3, sharey=True)
    axes[0, 0].set(ylim=(0, 1), xlabel="response time (ms)")
    if not labels:
        axes[0, 0].set_title("no λ at which every protocol is VALID")
        return figure
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = distributions[distributions["label"] == label]
        finite = panel.loc[np.isfinite(panel["response_ms"]), "response_ms"]
        for protocol, arm in _by_protocol(panel):
            times = arm["response_ms"].clip(upper=100 * finite.max())
            sns.ecdfplot(x=times, ax=ax, log_scale=True, markevery=0.12, **_look(protocol))
        ax.set_xlim(finite.min() * 0.9, finite.max() * 1.1)
        _log_axis(ax, "x")
        ax.set_title(f"{_wrapped(label, len(labels))}\nλ = {panel['rate_per_s'].iloc[0]:,.4g} requests/s")
        ax.set_xlabel("response time (ms)")
        ax.set_ylabel("")
    axes[0, 0].set_ylabel("share of requests")
    _legend(figure, _protocol_handles(distributions))
    return figure


@styled
def offered_vs_achieved(points: pd.DataFrame) -> Figure:
    """Successful responses per second against the arrival rate; on the diagonal a server keeps up."""
    labels = _labels(points)
    figure, axes = _panels(1, len(labels), row_in=2.5)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = points[points["label"] == label]
        end = 1.05 * panel[["offered_per_s", "achieved_per_s"]].to_numpy().max()
        ax.plot([0, end], [0, end], color="0.3", linewidth=0.8, linestyle=":")
        _series(ax, panel, "achieved_per_s", x="offered_per_s", arrows=False)
        ax.set_title(_wrapped(label, len(labels)))
        _rate_axis(ax, "offered rate (requests/s)")
        ax.yaxis.set_major_formatter(PLAIN)
        ax.set_xlim(0, end)
        ax.set_ylim(0, end)
    axes[0, 0].set_ylabel("achieved rate (successes/s)")
    diagonal = Line2D([], [], color="0.3", linewidth=0.8, linestyle=":", label="achieved = offered")
    _legend(figure, [*_protocol_handles(points), diagonal, *_not_valid_handles(points, arrows=False)])
    return figure


@styled
def lag(points: pd.DataFrame) -> Figure:
    """How late the load generator was (ms, log) against λ: the median over replicates of p50, the largest p99."""
    labels = _labels(points)
    figure, axes = _panels(1, len(labels), row_in=2.3, sharey=True)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = points[points["label"] == label]
        _series(ax, panel, "lag_p99_ms", arrows=False)
        _series(ax, panel, "lag_p50_ms", arrows=False, scale=0.5)
        ax.axhline(LAG_FLOOR_NS / 1e6, color="0.2", linewidth=0.9, linestyle="-.")
        _log_axis(ax, "y")
        ax.set_xlim(left=0)
        ax.set_title(_wrapped(label, len(labels)))
        _rate_axis(ax)
    axes[0, 0].set_ylabel("lag: due − scheduled (ms)")
    kinds = [
        Line2D([], [], color="0.2", linewidth=1.2, label="p99 (thick)"),
        Line2D([], [], color="0.2", linewidth=0.6, label="p50 (thin)"),
        Line2D([], [], color="0.2", linewidth=0.9, linestyle="-.", label="gate at 1 ms"),
    ]
    _legend(figure, [*_protocol_handles(points), *kinds, *_not_valid_handles(points, arrows=False)])
    return figure


@styled
def ratio_vs_rate(ratios: pd.DataFrame) -> Figure:
    """The ratio of the protocols' percentile (log) against λ with its 95 % interval, and a line at 1.

    ``ratios`` holds one metric. Filled marks stay significant at 5 % after Holm's correction over the figure.
    """
    labels = _labels(ratios)
    figure, axes = _panels(1, len(labels), row_in=2.3, sharey=True)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = ratios[ratios["label"] == label]
        known = panel[np.isfinite(panel["ratio"]) & np.isfinite(panel["ratio_low"])]
        single = panel[np.isfinite(panel["ratio"]) & ~np.isfinite(panel["ratio_low"])]
        missing = panel[~np.isfinite(panel["ratio"])]
        ax.axhline(1, color="0.2", linewidth=0.9)
        ax.vlines(known["rate_per_s"], known["ratio_low"], known["ratio_high"], color="black", linewidth=1.1)
        for significant, fill in ((True, "black"), (False, "white")):
            marks = known[(known["p_holm"] < 0.05) == significant]
            ax.plot(marks["rate_per_s"], marks["ratio"], "D", color="black", markerfacecolor=fill)
        ax.plot(single["rate_per_s"], single["ratio"], "_", color="black", markersize=6)
        ax.plot(missing["rate_per_s"], np.ones(len(missing)), "x", color=GREY)
        _log_axis(ax, "y")
        ax.set_xlim(0, 1.08 * panel["rate_per_s"].max())
        ax.set_title(_wrapped(label, len(labels)))
        _rate_axis(ax)
    over, under, quantile = (
        NAMES[ratios["over"].iloc[0]],
        NAMES[ratios["under"].iloc[0]],
        ratios["metric"].iloc[0].split("_")[1],
    )
    axes[0, 0].set_ylabel(f"{over} ÷ {under}, {quantile}\nof response time (ratio)")
    _legend(figure, _ratio_handles(ratios))
    return figure


# ------------------------------------------------------------------------------------------ parts of panels


def _series(
    ax: Axes,
    panel: pd.DataFrame,
    column: str,
    *,
    x: str = "rate_per_s",
    arrows: bool = True,
    scale: float = 1,
    dodge: float = 0,
) -> None:
    """One column of ``points`` against ``x`` by protocol: coloured, with intervals, where VALID; else hollow and grey.

    ``dodge`` moves the protocols apart sideways by that share of the axis, so that no interval hides another.
    """
    for protocol, arm in _by_protocol(panel):
        look = _look(protocol, scale)
        at = arm[x] + dodge * panel[x].max() * (1 if protocol == "grpc" else -1)
        valid, finite = arm["verdict"] == VALID, np.isfinite(arm[column])
        if (valid & finite).any():  # a gap where a point is not VALID: no line across it
            ax.plot(at, arm[column].where(valid & finite), **look)
        if f"{column}_low" in arm:
            _whiskers(ax, at[valid & finite], arm[valid & finite], column, COLOURS[protocol])
        hollow = look | {"color": GREY, "markerfacecolor": "white", "linestyle": ""}
        ax.plot(at[~valid & finite], arm.loc[~valid & finite, column], **hollow)
        if arrows:
            endless = np.isposinf(arm[column])
            edge = np.full(int(endless.sum()), 0.98)
            ax.plot(at[endless], edge, transform=ax.get_xaxis_transform(), **(hollow | {"marker": "^"}))
            bound = finite & ((arm["verdict"] == SATURATED) | arm[f"{column}_bound"])
            _arrows(ax, at[bound], arm.loc[bound, column])


def _whiskers(ax: Axes, x: "pd.Series[float]", arm: pd.DataFrame, column: str, colour: str) -> None:
    """The 95 % intervals, where there are any."""
    lengths = np.abs(arm[[f"{column}_low", f"{column}_high"]].to_numpy().T - arm[column].to_numpy())
    ax.errorbar(x, arm[column], lengths, fmt="none", color=colour, linewidth=0.9)


def _arrows(ax: Axes, x: "pd.Series[float]", y: "pd.Series[float]") -> None:
    """Short arrows upwards from marks that are lower bounds."""
    arrow = {"arrowstyle": "<|-", "color": GREY, "linewidth": 0.8, "mutation_scale": 6, "shrinkA": 0, "shrinkB": 2.5}
    for point in zip(x, y, strict=True):
        ax.annotate("", xy=point, xytext=(0, 11), textcoords="offset points", arrowprops=arrow)


def _saturation(ax: Axes, arms: pd.DataFrame) -> None:
    """λ* of each protocol as a line, with its bracket as a band where both ends are known."""
    for protocol, arm in _by_protocol(arms[arms["bound"] == ""]):
        low, value, high = (float(arm[name].iloc[0]) for name in ("low_per_s", "saturation_per_s", "high_per_s"))
        # At the edge and one below the other: bands over the whole panel would mix where they overlap.
        height = 0.985 if protocol == "rest" else 0.945
        edge: dict[str, Any] = {"color": COLOURS[protocol], "alpha": 0.45, "linewidth": 3.5}
        edge |= {"transform": ax.get_xaxis_transform(), "solid_capstyle": "butt", "zorder": 1}
        ax.plot([low, high], [height, height], **edge)
        ax.axvline(value, color=COLOURS[protocol], linestyle=LINES[protocol], linewidth=0.9, alpha=0.8)


def _by_protocol(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each protocol, always in the same order."""
    for protocol in NAMES:
        if (table["protocol"] == protocol).any():
            yield protocol, table[table["protocol"] == protocol]


def _look(protocol: str, scale: float = 1) -> dict[str, Any]:
    """Colour, line and marker of a protocol; REST's marks are larger, so that gRPC's never hide them."""
    size = scale * (4.8 if protocol == "rest" else 3.4)
    line = {"color": COLOURS[protocol], "linestyle": LINES[protocol], "linewidth": 1.2 * scale}
    return line | {"marker": MARKERS[protocol], "markersize": size}


def _panels(rows: int, columns: int, row_in: float, **share: Any) -> tuple[Figure, np.ndarray[Any, Any]]:
    """A figure of one column or page width, outside pyplot's registry, and its axes of shape (rows, columns)."""
    width = COLUMN_IN if columns == 1 else PAGE_IN
    figure = Figure(figsize=(width, rows * row_in + 0.45), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def _labels(table: pd.DataFrame) -> list[str]:
    """The implementations' labels in the tables' order, one panel each."""
    return [str(label) for label in table["label"].unique()]


def _wrapped(label: str, columns: int) -> str:
    """A title in lines of a panel's width, a remark in brackets on a line of its own."""
    width = 34 if columns < 3 else 28
    parts = [label] if len(label) <= width else label.replace(" (", "\n(").splitlines()
    return "\n".join(textwrap.fill(part, width) for part in parts)


def _rate_axis(ax: Axes, label: str = RATE_AXIS) -> None:
    """A linear axis of rates below a panel."""
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(PLAIN)


def _log_axis(ax: Axes, which: str) -> None:
    """A logarithmic axis labelled with plain numbers, at 1, 2 and 5 where there is room."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    ax.set(**{f"{which}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=12))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------------------------------------- legends


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend below the panels; a tuple of handles is drawn one over the other."""
    labels = [str((handle[-1] if isinstance(handle, tuple) else handle).get_label()) for handle in handles]
    wide = figure.get_figwidth() > COLUMN_IN
    columns = 2 if not wide else len(handles) if len(handles) <= 5 else (len(handles) + 1) // 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4)


def _protocol_handles(table: pd.DataFrame) -> list[Artist]:
    return [Line2D([], [], label=NAMES[protocol], **_look(protocol)) for protocol, _ in _by_protocol(table)]


def _saturation_handles(arms: pd.DataFrame) -> list[tuple[Artist, Artist]]:
    return [
        (
            Line2D([], [], color=COLOURS[name], alpha=0.45, linewidth=3.5, solid_capstyle="butt"),
            Line2D([], [], color=COLOURS[name], linestyle=LINES[name], linewidth=0.9, label=f"λ* of {NAMES[name]}"),
        )
        for name, _ in _by_protocol(arms[arms["bound"] == ""])
    ]


def _not_valid_handles(points: pd.DataFrame, arrows: bool = True) -> list[Artist]:
    if (points["verdict"] == VALID).all():
        return []
    look: dict[str, Any] = {"color": GREY, "markerfacecolor": "white", "linestyle": ""}
    handles: list[Artist] = [Line2D([], [], marker="o", label="not VALID (↑ lower bound)", **look)]
    if not arrows:
        return [Line2D([], [], marker="o", label="not VALID", **look)]
    if np.isposinf(points[[metric("response", quantile) for quantile in QUANTILES]].to_numpy(dtype=float)).any():
        handles.append(Line2D([], [], marker="^", label="beyond the axis (failures)", **look))
    return handles


def _ratio_handles(ratios: pd.DataFrame) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color="black", marker="D", linestyle="", label="differs from 1 (Holm, 5 %)"),
        Line2D([], [], color="black", marker="D", markerfacecolor="white", linestyle="", label="not significant"),
    ]
    if (np.isfinite(ratios["ratio"]) & ~np.isfinite(ratios["ratio_low"])).any():
        handles.append(Line2D([], [], color="black", marker="_", linestyle="", label="too few pairs for an interval"))
    if not np.isfinite(ratios["ratio"]).all():
        handles.append(Line2D([], [], color=GREY, marker="x", linestyle="", label="not both VALID"))
    return handles
