"""The figure of encodings by size: p95 and capacity against the bytes of a tensor, a line for each encoding."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.records.gate import VALID
from infscale.report.figures.parts import COLOURS, GREY, log_axis, panel_labels, panels, styled, wrapped
from infscale.vocabulary import NAMES

_LOOKS: tuple[tuple[Any, str], ...] = (
    ("-", "o"),
    ("--", "s"),
    ("-.", "^"),
    (":", "D"),
    ((0, (5, 1)), "v"),
    ((0, (1, 3)), "P"),
)
"""Line and marker, in turn, of the encodings of one protocol, whose colour they share."""


@styled
def sizes(table: pd.DataFrame) -> Figure:
    """Above p95 response time, below capacity, against the bytes of the tensor; a column for each serving system.

    Columns of ``table``: ``label`` (the serving system), ``protocol``, ``way`` (the encoding), ``tensor_bytes``,
    ``response_p95_ms``, ``saturation_per_s``, both with the ends of their 95 % intervals as in ``cases``, ``verdict``
    and ``bound``. No line passes what is not VALID, or a capacity without a bracket: it is hollow and grey.
    """
    labels = panel_labels(table)
    figure, axes = panels(2, len(labels), row_in=2.3, sharex=True, sharey="row", wide=True)
    looks = {(p, way): look for p in NAMES for way, look in _looks(table, p).items()}
    for column, label in enumerate(labels):
        for (protocol, way), own in table[table["label"] == label].groupby(["protocol", "way"], sort=False):
            line, look = own.sort_values("tensor_bytes"), looks[str(protocol), str(way)]
            ends = ("response_p95_ms_low", "response_p95_ms_high")
            _line(axes[0, column], line, "response_p95_ms", ends, line["verdict"] == VALID, look)
            ends = ("interval_low_per_s", "interval_high_per_s")
            _line(axes[1, column], line, "saturation_per_s", ends, line["bound"] == "", look)
        axes[0, column].set_title(wrapped(label, len(labels)))
        axes[1, column].set_xlabel("tensor (bytes)")
        axes[1, column].set_xscale("log")
    axes[0, 0].set_ylabel("p95 response time (ms)")
    axes[1, 0].set_ylabel("capacity λ* (requests/s)")
    for row in axes[:, 0]:
        log_axis(row, "y")
    handles = [Line2D([], [], label=f"{NAMES[p]}, {way}", **look) for (p, way), look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=3.2)
    return figure


def _looks(table: pd.DataFrame, protocol: str) -> dict[str, dict[str, Any]]:
    ways = table.loc[table["protocol"] == protocol, "way"].unique()
    turns = (_LOOKS[k % len(_LOOKS)] for k in range(len(ways)))
    names = ("linestyle", "marker")
    return {
        str(way): {"color": COLOURS[protocol], "markersize": 4, "linewidth": 1, **dict(zip(names, turn, strict=True))}
        for way, turn in zip(ways, turns, strict=True)
    }


def _line(
    ax: Axes, own: pd.DataFrame, name: str, ends: tuple[str, str], sure: "pd.Series[bool]", look: dict[str, Any]
) -> None:
    at, values = own["tensor_bytes"], own[name].astype(float)
    ax.vlines(at[sure], own[ends[0]][sure], own[ends[1]][sure], color=look["color"], linewidth=0.8)
    ax.plot(at, values.where(sure), **look)
    other = ~sure & np.isfinite(values)
    ax.plot(at[other], values[other], **(look | {"color": GREY, "markerfacecolor": "white", "linestyle": ""}))
