"""The figure of encodings by size: p95 and saturation rate against the bytes of a tensor, a line for each encoding."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.analysis.tables import Tables
from infscale.experiment.design import labels
from infscale.experiment.design.design import P95
from infscale.records.gate import VALID
from infscale.records.runs import Run
from infscale.report.figures.parts import (
    COLOURS,
    LineStyle,
    Look,
    hollow,
    log_axis,
    panel_title,
    panels,
    styled,
    systems,
)
from infscale.report.figures.picture import Picture
from infscale.vocabulary import NAMES

MODEL, ROW_BYTES = "mlp", 3136
"""The model whose rows are sent in several sizes, and bytes of one of its rows: 784 numbers of float32."""

WAY = ["protocol", "encoding", "gzip"]
"""The factors that say how a tensor becomes bytes."""

LINES: tuple[LineStyle, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 3)))
MARKERS = "os^DvP"
"""Lines and markers, in turn, of the encodings of one protocol, whose colour they share."""


def numbers(run: Run, tables: Tables) -> pd.DataFrame:
    """Return the arms that send the same kind of tensor in several sizes, with ``tensor_bytes`` and ``way``.

    ``way`` is the encoding as it is shown. Empty where there is but one size.
    """
    table, arms = tables.summary, run.manifest.design.arms
    plain = (table["model"] == MODEL) & (table["front"] == "") & (table["http"] == "1.1") & (table["client"] == "wire")
    table = table[plain].drop_duplicates(["system", *WAY, "batch"])
    table = table.assign(
        tensor_bytes=table["batch"].astype(int) * ROW_BYTES,
        way=[labels.encoding(arms[arm]) + (", gzip" if arms[arm].gzip else "") for arm in table["arm"]],
    )
    return table if table["tensor_bytes"].nunique() > 1 else table.iloc[:0]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return p95 above, saturation rate below, against the bytes of the tensor; a column for each serving system.

    No line passes what is not VALID, or a saturation rate without a bracket: it is hollow and grey.
    """
    names = systems(table)
    figure, axes = panels(2, len(names), row_in=2.3, sharex=True, sharey="row", wide=True)
    looks = {(p, way): look for p in NAMES for way, look in _looks(table[table["protocol"] == p], p).items()}
    for column, name in enumerate(names):
        for (protocol, way), own in table[table["system"] == name].groupby(["protocol", "way"], sort=False):
            line, look = own.sort_values("tensor_bytes"), looks[str(protocol), str(way)]
            valid, bracketed = line["verdict"] == VALID, line["bound"] == ""
            _line(axes[0, column], line, P95, (f"{P95}_low", f"{P95}_high"), valid, look)
            ends = ("low_per_s", "high_per_s")
            _line(axes[1, column], line, "saturation_per_s", ends, bracketed, look)
        axes[0, column].set_title(panel_title(name, len(names)))
        axes[1, column].set_xlabel("tensor (bytes)")
        axes[1, column].set_xscale("log")
    axes[0, 0].set_ylabel("p95 response time (ms)")
    axes[1, 0].set_ylabel("saturation rate λ* (requests/s)")
    for row in axes[:, 0]:
        log_axis(row, "y")
    handles = [Line2D([], [], label=f"{NAMES[p]}, {way}", **look) for (p, way), look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=3.2)
    return figure


def _looks(table: pd.DataFrame, protocol: str) -> dict[str, Look]:
    """Return the look of each encoding of a protocol."""
    turns = zip(table["way"].unique(), itertools.cycle(zip(LINES, MARKERS, strict=True)), strict=False)
    return {
        str(way): Look(color=COLOURS[protocol], markersize=4, linewidth=1, linestyle=line, marker=marker)
        for way, (line, marker) in turns
    }


def _line(ax: Axes, own: pd.DataFrame, name: str, ends: tuple[str, str], sure: "pd.Series[bool]", look: Look) -> None:
    at, values = own["tensor_bytes"], own[name].astype(float)
    ax.vlines(at[sure], own[ends[0]][sure], own[ends[1]][sure], color=look["color"], linewidth=0.8)
    ax.plot(at, values.where(sure), **look)
    other = ~sure & np.isfinite(values)
    ax.plot(at[other], values[other], **hollow(look))


SIZES = Picture(
    "sizes",
    numbers,
    draw,
    lambda _, tables: (
        "Above p95 response time, below saturation rate λ*, against the bytes of the fp32 tensor of a request, with "
        "95 % intervals over lifetimes. Encodings of one size and serving system are compared at one arrival "
        "rate, which differs between sizes. Hollow grey: not VALID; of a saturation rate: without a bracket."
    ),
    "p95 response time and saturation rate against the size of the tensor, a line for each encoding.",
)
