"""What figures are made of: one look for a protocol, panels, axes, legends; what is not VALID is hollow and grey."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from infscale.analysis.tables.trials import QUANTILES, metric
from infscale.records.gate import SATURATED, VALID
from infscale.vocabulary import NAMES

COLUMN_IN, PAGE_IN = 3.5, 7.2
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


# ------------------------------------------------------------------------------------------ parts of panels


def series(
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
    for protocol, arm in by_protocol(panel):
        style = protocol_look(protocol, scale)
        at = arm[x] + dodge * panel[x].max() * (1 if protocol == "grpc" else -1)
        valid, finite = arm["verdict"] == VALID, np.isfinite(arm[column])
        if (valid & finite).any():  # a gap where a point is not VALID: no line across it
            ax.plot(at, arm[column].where(valid & finite), **style)
        if f"{column}_low" in arm:
            whiskers(ax, at[valid & finite], arm[valid & finite], column, COLOURS[protocol])
        hollow = style | {"color": GREY, "markerfacecolor": "white", "linestyle": ""}
        ax.plot(at[~valid & finite], arm.loc[~valid & finite, column], **hollow)
        if arrows:
            endless = np.isposinf(arm[column])
            edge = np.full(int(endless.sum()), 0.98)
            ax.plot(at[endless], edge, transform=ax.get_xaxis_transform(), **(hollow | {"marker": "^"}))
            bound = finite & ((arm["verdict"] == SATURATED) | arm[f"{column}_bound"])
            bound_arrows(ax, at[bound], arm.loc[bound, column])


def whiskers(ax: Axes, x: "pd.Series[float]", arm: pd.DataFrame, column: str, colour: str) -> None:
    """The 95 % intervals, where there are any."""
    lengths = np.abs(arm[[f"{column}_low", f"{column}_high"]].to_numpy().T - arm[column].to_numpy())
    ax.errorbar(x, arm[column], lengths, fmt="none", color=colour, linewidth=0.9)


def bound_arrows(ax: Axes, x: "pd.Series[float]", y: "pd.Series[float]") -> None:
    """Short arrows upwards from marks that are lower bounds."""
    arrow = {"arrowstyle": "<|-", "color": GREY, "linewidth": 0.8, "mutation_scale": 6, "shrinkA": 0, "shrinkB": 2.5}
    for point in zip(x, y, strict=True):
        ax.annotate("", xy=point, xytext=(0, 11), textcoords="offset points", arrowprops=arrow)


def saturation(ax: Axes, arms: pd.DataFrame) -> None:
    """λ* of each protocol as a line, with its bracket as a band where both ends are known."""
    for protocol, arm in by_protocol(arms[arms["bound"] == ""]):
        low, value, high = (float(arm[name].iloc[0]) for name in ("low_per_s", "saturation_per_s", "high_per_s"))
        # At the edge and one below the other: bands over the whole panel would mix where they overlap.
        height = 0.985 if protocol == "rest" else 0.945
        edge: dict[str, Any] = {"color": COLOURS[protocol], "alpha": 0.45, "linewidth": 3.5}
        edge |= {"transform": ax.get_xaxis_transform(), "solid_capstyle": "butt", "zorder": 1}
        ax.plot([low, high], [height, height], **edge)
        ax.axvline(value, color=COLOURS[protocol], linestyle=LINES[protocol], linewidth=0.9, alpha=0.8)


def by_protocol(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each protocol, always in the same order."""
    for protocol in NAMES:
        if (table["protocol"] == protocol).any():
            yield protocol, table[table["protocol"] == protocol]


def protocol_look(protocol: str, scale: float = 1) -> dict[str, Any]:
    """Colour, line and marker of a protocol; REST's marks are larger, so that gRPC's never hide them."""
    size = scale * (4.8 if protocol == "rest" else 3.4)
    line = {"color": COLOURS[protocol], "linestyle": LINES[protocol], "linewidth": 1.2 * scale}
    return line | {"marker": MARKERS[protocol], "markersize": size}


def panels(
    rows: int, columns: int, row_in: float, *, wide: bool = False, **share: Any
) -> tuple[Figure, np.ndarray[Any, Any]]:
    """A figure of one column or page width, outside pyplot's registry, and its axes of shape (rows, columns)."""
    width = COLUMN_IN if columns == 1 and not wide else PAGE_IN
    figure = Figure(figsize=(width, rows * row_in + 0.45), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def panel_labels(table: pd.DataFrame) -> list[str]:
    """The implementations' labels in the tables' order, one panel each."""
    return [str(label) for label in table["label"].unique()]


def wrapped(label: str, columns: int) -> str:
    """A title in lines of a panel's width, a remark in brackets on a line of its own."""
    width = 34 if columns < 3 else 28 if columns < 6 else 11
    parts = [label] if len(label) <= width else label.replace(" (", "\n(").splitlines()
    return "\n".join(textwrap.fill(part, width) for part in parts)


def rate_axis(ax: Axes, label: str = RATE_AXIS) -> None:
    """A linear axis of rates below a panel."""
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(PLAIN)


def log_axis(ax: Axes, which: str) -> None:
    """A logarithmic axis labelled with plain numbers, at 1, 2 and 5 where there is room."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    ax.set(**{f"{which}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=12))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------------------------------------- legends


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend below the panels; a tuple of handles is drawn one over the other."""
    labels = [str((handle[-1] if isinstance(handle, tuple) else handle).get_label()) for handle in handles]
    wide = figure.get_figwidth() > COLUMN_IN
    columns = 2 if not wide else len(handles) if len(handles) <= 5 else (len(handles) + 1) // 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4)


def protocol_handles(table: pd.DataFrame) -> list[Artist]:
    """A legend entry for each protocol."""
    return [Line2D([], [], label=NAMES[protocol], **protocol_look(protocol)) for protocol, _ in by_protocol(table)]


def saturation_handles(arms: pd.DataFrame) -> list[tuple[Artist, Artist]]:
    """Legend entries of λ* and its bracket."""
    return [
        (
            Line2D([], [], color=COLOURS[name], alpha=0.45, linewidth=3.5, solid_capstyle="butt"),
            Line2D([], [], color=COLOURS[name], linestyle=LINES[name], linewidth=0.9, label=f"λ* of {NAMES[name]}"),
        )
        for name, _ in by_protocol(arms[arms["bound"] == ""])
    ]


def not_valid_handles(points: pd.DataFrame, arrows: bool = True) -> list[Artist]:
    """Legend entries of what is not VALID, if anything is."""
    if (points["verdict"] == VALID).all():
        return []
    look: dict[str, Any] = {"color": GREY, "markerfacecolor": "white", "linestyle": ""}
    handles: list[Artist] = [Line2D([], [], marker="o", label="not VALID (↑ lower bound)", **look)]
    if not arrows:
        return [Line2D([], [], marker="o", label="not VALID", **look)]
    if np.isposinf(points[[metric("response", quantile) for quantile in QUANTILES]].to_numpy(dtype=float)).any():
        handles.append(Line2D([], [], marker="^", label="beyond the axis (failures)", **look))
    return handles


def ratio_handles(ratios: pd.DataFrame) -> list[Artist]:
    """Legend entries of ratios."""
    handles: list[Artist] = [
        Line2D([], [], color="black", marker="D", linestyle="", label="differs from 1 (Holm, 5 %)"),
        Line2D([], [], color="black", marker="D", markerfacecolor="white", linestyle="", label="not significant"),
    ]
    if (np.isfinite(ratios["ratio"]) & ~np.isfinite(ratios["ratio_low"])).any():
        handles.append(Line2D([], [], color="black", marker="_", linestyle="", label="too few pairs"))
    if not np.isfinite(ratios["ratio"]).all():
        handles.append(Line2D([], [], color=GREY, marker="x", linestyle="", label="not all VALID"))
    return handles
