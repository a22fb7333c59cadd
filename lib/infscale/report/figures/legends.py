"""Legends below the panels of a figure."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.records.gate import VALID
from infscale.report.figures.parts import COLUMN_IN, GREY, by_protocol, protocol_look
from infscale.vocabulary import NAMES

Handle = Artist | tuple[Artist, ...]
"""An entry of a legend; the artists of a tuple are drawn one over the other."""


def legend(figure: Figure, handles: Sequence[Handle]) -> None:
    """Put one legend below all panels."""
    labels = [str((handle[-1] if isinstance(handle, tuple) else handle).get_label()) for handle in handles]
    wide = figure.get_figwidth() > COLUMN_IN
    columns = 2 if not wide else len(handles) if len(handles) <= 5 else (len(handles) + 1) // 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4)  # type: ignore[call-overload]


def protocol_handles(table: pd.DataFrame) -> list[Artist]:
    """Return an entry for each protocol of a table."""
    return [Line2D([], [], label=NAMES[protocol], **protocol_look(protocol)) for protocol, _ in by_protocol(table)]


def mark(label: str, marker: str, color: str = "black", *, filled: bool = True) -> Artist:
    """Return an entry of a mark without a line."""
    face = color if filled else "white"
    return Line2D([], [], color=color, marker=marker, markerfacecolor=face, linestyle="", label=label)


def not_valid_handles(points: pd.DataFrame, columns: Sequence[str] = ()) -> list[Artist]:
    """Return the entries of what is not VALID; none where everything is.

    Args:
        points: what is drawn.
        columns: those that are drawn with arrows where their values are lower bounds.
    """
    if (points["verdict"] == VALID).all():
        return []
    if not columns:
        return [mark("not VALID", "o", GREY, filled=False)]
    handles = [mark("not VALID (↑ lower bound)", "o", GREY, filled=False)]
    if np.isposinf(points[list(columns)].to_numpy(dtype=float)).any():
        handles.append(mark("beyond the axis (failures)", "^", GREY, filled=False))
    return handles
