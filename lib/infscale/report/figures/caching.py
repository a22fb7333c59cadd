"""The figure of caching: capacity against the fraction of requests that repeat, and where a cache breaks even."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.report.figures.parts import PLAIN, legend, log_axis, panels, styled

LOOKS = {"gateway": ("#0072B2", "o", "-"), "in the server": ("#009E73", "D", "--")}
_ASIDE = {"gateway": -0.8, "in the server": 0.8}  # else one interval hides the other
NONE = "0.3"


@styled
def gain(table: pd.DataFrame) -> Figure:
    """Capacity with a cache ÷ without, against the fraction of repeats; a panel for each model and protocol.

    Columns: ``panel`` (empty where there is one), ``where`` (the cache), ``repeat`` (0 to 1), ``gain``, ``gain_low``
    and ``gain_high`` (95 % interval; NaN where it is withheld). At 1 a cache breaks even.
    """
    names = list(dict.fromkeys(table["panel"]))
    columns = min(3, len(names))
    figure, axes = panels(math.ceil(len(names) / columns), columns, row_in=2.4, sharey=True, wide=columns > 1)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, names, strict=False):
        ax.axhline(1, color=NONE, linewidth=1)
        for where, own in table[table["panel"] == name].groupby("where", sort=False):
            colour, marker, line = LOOKS[str(where)]
            x = 100 * own["repeat"] + _ASIDE[str(where)]
            ax.vlines(x, own["gain_low"], own["gain_high"], color=colour, linewidth=1)
            ax.plot(x, own["gain"], marker=marker, color=colour, linestyle=line, markersize=4)
        ax.set_title(name)
        ax.set_xlabel("requests that repeat (%)")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(PLAIN)
        log_axis(ax, "y")
        ax.set_xlim(-4, 101)
    for ax in axes[:, 0]:
        ax.set_ylabel("capacity with a cache ÷ without")
    there = [where for where in LOOKS if (table["where"] == where).any()]
    keys = ("color", "marker", "linestyle")
    looks: dict[str, dict[str, Any]] = {where: dict(zip(keys, LOOKS[where], strict=True)) for where in there}
    marks = [Line2D([], [], label=f"cache {_place(where)}", markersize=4, **look) for where, look in looks.items()]
    legend(figure, [*marks, Line2D([], [], color=NONE, linewidth=1, label="as without a cache")])
    return figure


def _place(where: str) -> str:
    return where if where.startswith("in ") else f"in a {where}"


def numbers(gains: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """The table of :func:`gain` from ``infscale.findings.answers.gain_by_repeat`` by (panel, where)."""
    rows = [
        {
            "panel": panel,
            "where": where,
            "repeat": row["repeat"],
            "hit_ratio": row["hit_ratio"],
            "gain": row["gain"].value,
            "gain_low": row["gain"].low,
            "gain_high": row["gain"].high,
        }
        for (panel, where), table in gains.items()
        for _, row in table.iterrows()
        if np.isfinite(row["gain"].value)
    ]
    return pd.DataFrame(rows)
