"""The figure of caching: the gain of a cache against the fraction of requests that repeat, and where it breaks even."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.report.figures.legends import legend
from infscale.report.figures.parts import Look, log_axis, panel_title, panels, styled

PLACES = {"memory": "in a gateway", "redis": "in a gateway with Redis", "": "in the server"}
"""Where answers are cached, in words, by the factor ``store``: the gateway's store, or none."""

LOOKS: dict[str, Look] = {
    "memory": {"color": "#0072B2", "marker": "o", "linestyle": "-", "markersize": 4},
    "redis": {"color": "#56B4E9", "marker": "^", "linestyle": ":", "markersize": 4},
    "": {"color": "#009E73", "marker": "D", "linestyle": "--", "markersize": 4},
}
"""Look of a cache, by the same factor."""

ASIDE = {"memory": -0.8, "redis": 0.0, "": 0.8}
"""How far marks are set apart sideways, in percent of repeats, so that no interval hides another."""

NONE: Look = {"color": "0.3", "linewidth": 1}
"""The line at 1."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return the saturation rate with a cache ÷ without (log), against the fraction of requests that repeat (%).

    Args:
        table: columns ``panel`` (title of the panel; empty where there is one), ``store`` (a key of :data:`PLACES`),
            ``repeat`` (0 to 1), ``gain``, and ``gain_low`` and ``gain_high`` (95 % interval; NaN where withheld).
    """
    names = list(dict.fromkeys(table["panel"]))
    columns = min(3, len(names))
    figure, axes = panels(math.ceil(len(names) / columns), columns, row_in=2.4, sharey=True, wide=columns > 1)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, names, strict=False):
        ax.axhline(1, **NONE)
        for store, own in table[table["panel"] == name].groupby("store", sort=False):
            x, look = 100 * own["repeat"] + ASIDE[str(store)], LOOKS[str(store)]
            ax.vlines(x, own["gain_low"], own["gain_high"], color=look["color"], linewidth=1)
            ax.plot(x, own["gain"], **look)
        ax.set_title(panel_title(str(name), columns))
        ax.set_xlabel("requests that repeat (%)")
        log_axis(ax, "y", (1, 2, 3, 5, 7))
        ax.set_xlim(-4, 101)
    for ax in axes[:, 0]:
        ax.set_ylabel("λ* with a cache ÷ without (ratio)")
    marks = [
        Line2D([], [], label=f"cache {PLACES[store]}", **look)
        for store, look in LOOKS.items()
        if (table["store"] == store).any()
    ]
    legend(figure, [*marks, Line2D([], [], label="as without a cache", **NONE)])
    return figure


CAPTION = (
    "Saturation rate λ* with a cache divided by that without, against the fraction of requests that repeat, with 95 % "
    "intervals over lifetimes. Below 1 the cache costs more than it gains."
)

ALTERNATIVE = (
    "Saturation rate with a cache divided by that without, against the fraction of requests that repeat: a line for "
    "each place of the cache, and a line at one."
)
