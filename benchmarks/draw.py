"""The figure: CPU per request, p99 and the rate delivered, open loop on the left, closed loop on the right."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.plan import RATES
from benchmarks.table import medians, read
from infscale.report.figures.parts import house_style

COLOURS = {
    "ours": "#D55E00",
    "perf_analyzer": "#0072B2",
    "locust": "#009E73",
    "loadgen": "#CC79A7",
    "wrk": "#000000",
    "h2load": "#56B4E9",
    "hey": "#E69F00",
}
"""Of the palette of Okabe and Ito (2008)."""
LOOKS: dict[str, dict[str, Any]] = {
    "rest": {"marker": "o", "linestyle": "-"},
    "grpc": {"marker": "s", "linestyle": "--", "markerfacecolor": "white"},
}
NAMES = {"rest": "REST", "grpc": "gRPC"}
PLACES = [*RATES, 0.0]
TITLES = {"open": "open loop (Poisson arrivals)", "closed": "closed loop (constant gaps, or none at “most”)"}
ROWS = {
    "cpu_us": "client's CPU per\nrequest (µs)",
    "p99_ms": "p99 (ms), from each\nclient's own clock",
    "delivered_per_s": "rate delivered\n(successes/s)",
}


def figure(cells: pd.DataFrame) -> Figure:
    """One column for each kind of loop, which share no axis; ``cells`` are medians on Triton."""
    drawing = Figure(figsize=(7.2, 6.4), layout="constrained")
    axes = drawing.subplots(len(ROWS), 2, squeeze=False)
    for column, loop in enumerate(TITLES):
        panel = cells[cells["loop"] == loop]
        axes[0, column].set_title(TITLES[loop])
        for row, (metric, label) in enumerate(ROWS.items()):
            _draw(axes[row, column], panel, metric)
            axes[row, column].set_ylabel(label)
        axes[-1, column].set_xlabel("offered (requests/s)")
    _legend(drawing, cells)
    return drawing


def _draw(ax: Axes, panel: pd.DataFrame, metric: str) -> None:
    for (tool, protocol), line in panel.groupby(["tool", "protocol"], sort=False):
        line = line[np.isfinite(line[metric]) & line["rate_per_s"].isin(PLACES)].sort_values("rate_per_s")
        look = {"color": COLOURS[str(tool)], **LOOKS[str(protocol)]}
        paced, most = line[line["rate_per_s"] > 0], line[line["rate_per_s"] == 0]
        ax.plot([PLACES.index(r) for r in paced["rate_per_s"]], paced[metric], **look)
        ax.plot([len(PLACES) - 1] * len(most), most[metric], **look | {"linestyle": ""})
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(range(len(PLACES)), [f"{rate:,.0f}" if rate else "most" for rate in PLACES])
    ax.set_xlim(-0.3, len(PLACES) - 0.7)


def _legend(drawing: Figure, cells: pd.DataFrame) -> None:
    handles = [Line2D([], [], color=c, label=t) for t, c in COLOURS.items() if (cells["tool"] == t).any()]
    handles += [Line2D([], [], color="0.3", label=NAMES[p], **look) for p, look in LOOKS.items()]
    drawing.legend(handles=handles, loc="outside lower center", ncols=5)


def write(folder: Path) -> Path:
    """Draw figure.png from the rows in ``folder``."""
    cells = medians(read(folder))
    path = folder / "figure.png"
    with house_style():
        figure(cells[cells["server"] == "triton"]).savefig(path)
    return path
