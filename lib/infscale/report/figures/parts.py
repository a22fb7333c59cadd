"""Parts of figures: the style, the look of each protocol, panels, axes and marks.

A protocol has one colour, marker and line style in every figure, so that it is recognised without colour too. What is
not VALID is hollow and grey. Sizes are those of print: as wide as a column or a page.
"""

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypedDict

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from infscale.experiment.design import labels
from infscale.records.gate import SATURATED, VALID
from infscale.vocabulary import NAMES

COLUMN_IN, PAGE_IN = 3.5, 7.2
"""Widths of a column and of a page, inches."""

COLOURS = {"rest": "#D55E00", "grpc": "#0072B2"}
"""Colour by protocol: vermilion and blue of the palette of Okabe and Ito (2008), distinct in all common kinds of colour
vision."""

MARKERS = {"rest": "o", "grpc": "s"}
"""Matplotlib's marker by protocol."""

LineStyle = Literal["-", "--", "-.", ":", ""] | tuple[float, tuple[float, ...]]
"""A line style as Matplotlib takes it: a short name, or an offset and the lengths of dashes and gaps, points."""

LINES: dict[str, LineStyle] = {"rest": "-", "grpc": "--"}
"""Line style by protocol."""

GREY = "0.5"
"""Colour of marks that are not VALID."""

PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")
"""Formats the numbers of an axis as 1,000 and 0.5 instead of powers of ten."""

RATE_AXIS = "arrival rate λ (requests/s)"
"""Label of an axis of arrival rates."""

SIZES = {"rest": 4.8, "grpc": 3.4}
"""Size of marks by protocol, points; REST's are larger, so that gRPC's never hide them."""


class Look(TypedDict, total=False):
    """How a line and its marks look, as keyword arguments of Matplotlib."""

    color: str
    linestyle: LineStyle
    linewidth: float
    marker: str
    markersize: float
    markerfacecolor: str
    alpha: float
    solid_capstyle: Literal["butt", "projecting", "round"]


P = ParamSpec("P")


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the project's style sheet to Matplotlib's defaults, whatever the caller's settings; restore them after."""
    with matplotlib.style.context(["default", Path(__file__).with_name("infscale.mplstyle")]):
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function draw within :func:`house_style`."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with house_style():
            return draw(*args, **kwargs)

    return inner


# ---------------------------------------------------------------------------------------------- looks


def protocol_look(protocol: str, scale: float = 1) -> Look:
    """Return colour, line and marker of a protocol, their sizes multiplied by ``scale``."""
    return {
        "color": COLOURS[protocol],
        "linestyle": LINES[protocol],
        "linewidth": 1.2 * scale,
        "marker": MARKERS[protocol],
        "markersize": scale * SIZES[protocol],
    }


def hollow(look: Look) -> Look:
    """Return a look for marks that are not VALID: the same marker, grey and empty, without a line."""
    return {**look, "color": GREY, "markerfacecolor": "white", "linestyle": ""}


# --------------------------------------------------------------------------------------------- panels


def panels(
    rows: int,
    columns: int,
    row_in: float,
    *,
    wide: bool = False,
    sharex: bool | Literal["col"] = False,
    sharey: bool | Literal["row"] = False,
) -> tuple[Figure, np.ndarray[Any, Any]]:
    """Return a figure as wide as a column (one panel) or a page, outside pyplot's registry, and its axes.

    Args:
        rows, columns: of panels; the axes have shape (rows, columns).
        row_in: height of a row, inches.
        wide: as wide as a page although there is one column of panels.
        sharex, sharey: which panels share an axis.
    """
    width = COLUMN_IN if columns == 1 and not wide else PAGE_IN
    figure = Figure(figsize=(width, rows * row_in + 0.45), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)


def tiles(table: pd.DataFrame, row_in: float, *, sharey: bool = False) -> tuple[Figure, np.ndarray[Any, Any]]:
    """Return a figure with a panel for each of :func:`panel_names`, and its axes; those beyond are left out.

    Columns are serving systems, at most three, so that rows are payloads.

    Args:
        table: what is drawn, with the columns ``panel`` and ``system``; the axes have shape (rows, columns).
        row_in: height of a row, inches.
        sharey: whether all panels share the vertical axis.
    """
    count = table["panel"].nunique()
    columns = min(table["system"].nunique(), TILES)
    figure, axes = panels(-(-count // columns), columns, row_in, sharey=sharey, wide=count > 1)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, axes


TILES = 3
"""Most panels of :func:`tiles` in a row."""


def with_panels(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with a column ``panel``: the serving system, and the payload where it has several."""
    several = dict(table.groupby("system")["batch"].nunique() > 1) if len(table) else {}
    models = table["model"].nunique() > 1
    names = [
        ", ".join([system, *([model] if models else []), *([labels.count(batch, "row")] if several[system] else [])])
        for system, model, batch in zip(table["system"], table["model"], table["batch"].astype(int), strict=True)
    ]
    return table.assign(panel=pd.Series(names, index=table.index, dtype=object))


def panel_names(table: pd.DataFrame) -> list[str]:
    """Return the panels of a table in its order, one payload after the other: rows of tiles are payloads."""
    order = table.drop_duplicates("panel").sort_values("batch", kind="stable")
    return [str(panel) for panel in order["panel"]]


def systems(table: pd.DataFrame) -> list[str]:
    """Return the serving systems of a table in its order: each has a panel."""
    return [str(system) for system in table["system"].unique()]


def by_protocol(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each protocol with its rows, REST first."""
    for protocol in NAMES:
        if (table["protocol"] == protocol).any():
            yield protocol, table[table["protocol"] == protocol]


def panel_title(text: str, columns: int) -> str:
    """Return a panel's title in lines that fit beside those of ``columns`` panels; a remark in brackets gets its own.

    A figure of a single column of panels may be as narrow as a column of print.
    """
    width = 34 if columns < 4 else 28 if columns < 6 else 11
    lines = [text] if len(text) <= width else text.replace(" (", "\n(").splitlines()
    return "\n".join(textwrap.fill(line, width) for line in lines)


def row_title(text: str) -> str:
    """Return the name of a row of a figure, in lines that leave room for the panels; lines end after a comma."""
    parts = text.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return textwrap.fill(parts, 34).replace("\N{NO-BREAK SPACE}", " ")


def rate_axis(ax: Axes, label: str = RATE_AXIS) -> None:
    """Make the lower axis one of rates, linear, with few numbers."""
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(PLAIN)


def log_axis(ax: Axes, which: Literal["x", "y"], steps: tuple[float, ...] = (1, 2, 5)) -> None:
    """Make an axis logarithmic, with plain numbers at each decade, or at ``steps`` of each where there are few."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    (ax.set_yscale if which == "y" else ax.set_xscale)("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=steps if high < 100 * low else (1,), numticks=12))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------------------------------------- marks


def series(
    ax: Axes,
    panel: pd.DataFrame,
    column: str,
    *,
    x: str = "rate_per_s",
    arrows: bool = True,
    scale: float = 1,
    dodge: float = 0,
    intervals: bool = True,
) -> None:
    """Draw a column of ``points`` against ``x``, a line for each protocol, with 95 % intervals where there are any.

    What is not VALID is hollow and grey, and no line passes it.

    Args:
        ax: the panel.
        panel: rows of one serving system.
        column: what is drawn; ``<column>_low`` and ``<column>_high`` are its interval.
        x: the column of the other axis.
        arrows: mark lower bounds by arrows, and infinite values at the upper edge.
        scale: of lines and marks.
        dodge: how far the protocols are set apart sideways, as a share of the axis, so that no interval hides another.
        intervals: draw them.
    """
    for protocol, arm in by_protocol(panel):
        look = protocol_look(protocol, scale)
        at = arm[x] + dodge * panel[x].max() * (1 if protocol == "grpc" else -1)
        valid, finite = arm["verdict"] == VALID, np.isfinite(arm[column])
        if (valid & finite).any():  # a gap where a point is not VALID: no line across it
            ax.plot(at, arm[column].where(valid & finite), **look)
        if intervals and f"{column}_low" in arm:
            whiskers(ax, at[valid & finite], arm[valid & finite], column, COLOURS[protocol])
        ax.plot(at[~valid & finite], arm.loc[~valid & finite, column], **hollow(look))
        if arrows:
            endless = np.isposinf(arm[column])
            edge = np.full(int(endless.sum()), 0.98)
            beyond: Look = {**hollow(look), "marker": "^"}
            ax.plot(at[endless], edge, transform=ax.get_xaxis_transform(), **beyond)
            bound = finite & ((arm["verdict"] == SATURATED) | arm[f"{column}_bound"])
            bound_arrows(ax, at[bound], arm.loc[bound, column])


def whiskers(ax: Axes, x: "pd.Series[float]", arm: pd.DataFrame, column: str, colour: str) -> None:
    """Draw the 95 % intervals of a column, where there are any."""
    lengths = np.abs(arm[[f"{column}_low", f"{column}_high"]].to_numpy().T - arm[column].to_numpy())
    ax.errorbar(x, arm[column], lengths, fmt="none", color=colour, linewidth=0.9)


def bound_arrows(ax: Axes, x: "pd.Series[float]", y: "pd.Series[float]") -> None:
    """Draw short arrows upwards from marks that are lower bounds."""
    arrow = {"arrowstyle": "<|-", "color": GREY, "linewidth": 0.8, "mutation_scale": 6, "shrinkA": 0, "shrinkB": 2.5}
    for point in zip(x, y, strict=True):
        ax.annotate("", xy=point, xytext=(0, 11), textcoords="offset points", arrowprops=arrow)
