"""The figures of load tools: what each reports beside what its rows say, and what it makes of a known server."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from infscale.report.figures.legends import legend, mark
from infscale.report.figures.parts import COLOURS, PAGE_IN, PLAIN, by_protocol, log_axis, row_title, styled
from infscale.vocabulary import NAMES

KINDS = {
    "rows": "by the rows of its requests",
    "corrected": "the same, with what was omitted",
    "reported": "as the tool reports it",
}
"""Where a number comes from, and how it is shown."""

MARKERS = {"rows": ("o", True), "corrected": ("D", True), "reported": ("s", False)}
"""Matplotlib's marker of each kind, and whether it is filled."""


LOG_FROM = 20
"""A panel is logarithmic where its largest value is more than so many times the smallest."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Return a row for each arm, and a panel for each quantity, with a mark for each kind of number.

    Args:
        table: columns ``label``, ``protocol``, ``panel`` (what is shown, with its unit), ``kind`` (a key of
            :data:`KINDS`) and ``value`` (NaN: none).
    """
    names, labels = list(dict.fromkeys(table["panel"])), list(dict.fromkeys(table["label"]))
    figure = Figure(figsize=(PAGE_IN, 1.0 + 0.27 * len(labels)), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    height = {label: len(labels) - 1 - place for place, label in enumerate(labels)}
    for ax, name in zip(axes, names, strict=True):
        for protocol, own in by_protocol(table[table["panel"] == name]):
            for kind, some in own.groupby("kind"):
                marker, filled = MARKERS[str(kind)]
                colour = COLOURS[protocol]
                face = colour if filled else "none"
                y = [height[label] for label in some["label"]]
                ax.plot(some["value"], y, marker, color=colour, markerfacecolor=face, markersize=4 if filled else 6.5)
        ax.set_xlabel(name)
        _scale(ax, table.loc[table["panel"] == name, "value"].dropna().to_numpy(dtype=float))
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(list(height.values()), [row_title(label) for label in labels])
    axes[0].set_ylim(-0.6, len(labels) - 0.4)
    protocols = [mark(NAMES[protocol], "o", COLOURS[protocol]) for protocol, _ in by_protocol(table)]
    shown = [kind for kind in KINDS if (table["kind"] == kind).any()]
    kinds = [mark(KINDS[kind], MARKERS[kind][0], "0.3", filled=MARKERS[kind][1]) for kind in shown]
    legend(figure, [*protocols, *kinds])
    return figure


def _scale(ax: Axes, values: NDArray[np.float64]) -> None:
    """Begin an axis at 0, or make it logarithmic where the small values would all be marks at 0."""
    if len(values) and values.min() > 0 and values.max() > LOG_FROM * values.min():
        ax.set_xlim(values.min() / 1.5, values.max() * 1.5)
        log_axis(ax, "x", (1, 3))
        return
    ax.set_xlim(0, 1.08 * max(1e-9, values.max(initial=0.0)))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(PLAIN)


REPORTED_CAPTION = (
    "Percentiles of the response time at the larger rate of moderate load, medians over lifetimes: by the rows of the "
    "requests (filled; from the scheduled time, of Locust's users from when they were ready to send), and as the tool "
    "itself reports them (hollow; of the whole trial, without a warm-up cut off, and of Locust in whole ms). No "
    "intervals. Open and closed loops share these axes to be compared as tools, not as loads."
)

REPORTED_ALTERNATIVE = (
    "Three percentiles of the response time by arm: from the rows, and as the load tool reports them."
)

KNOWN_ALTERNATIVE = (
    "By arm: the p99 of a server that stalls once, how many requests met the stall, and the most requests a second "
    "that the client sends."
)


def known_caption(rate_per_s: float, stall_ms: float, limit_per_s: float) -> str:
    """Return the caption of the figure of known servers."""
    return (
        f"The null server, one load each, no interval. Left and middle: it stalls once for {stall_ms:g} ms under a "
        f"nominal {rate_per_s:g} requests/s; requests that met the stall are those that took longer than 10 ms. What "
        "was omitted is added by the rule of HdrHistogram: for each response that is longer than its user's interval, "
        "those of the requests that the user would have sent meanwhile. Right: what was answered of a nominal "
        f"{limit_per_s:,.0f} requests/s, which shows what a client can send."
    )
