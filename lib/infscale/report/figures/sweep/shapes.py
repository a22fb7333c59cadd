"""The figures of shapes: response times at every arrival rate, and over the time of a trial."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infscale.analysis.tables import Tables
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend
from infscale.report.figures.parts import (
    COLOURS,
    LINES,
    RATE_AXIS,
    by_protocol,
    log_axis,
    panel_title,
    panels,
    styled,
    systems,
)
from infscale.report.figures.picture import Picture
from infscale.report.figures.sweep.distributions import TIME_AXIS, rests_on, title_with_rate
from infscale.vocabulary import NAMES

LEVELS = (np.arange(400) + 0.5) / 400
"""Even levels at which a distribution is read, so that a density can be drawn of it."""

# ------------------------------------------------------------------------------------ at every rate


@styled
def draw_violins(distributions: pd.DataFrame) -> Figure:
    """Return the density of the response time (ms, log) at every λ where a point is VALID, protocols side by side."""
    names = systems(distributions)
    figure, axes = panels(len(names), 1, row_in=1.9, wide=len(names) > 1)
    for ax, name in zip(axes.flat, names, strict=True):
        panel = distributions[distributions["system"] == name]
        drawn = pd.concat([_even(point) for _, point in panel.groupby(["arm", "rate_per_s"])], ignore_index=True)
        sns.violinplot(
            data=drawn,
            x="rate",
            y="response_ms",
            hue="protocol",
            order=[f"{rate:,.4g}" for rate in sorted(panel["rate_per_s"].unique())],
            hue_order=[protocol for protocol, _ in by_protocol(panel)],
            palette=COLOURS,
            split=panel["protocol"].nunique() == 2,
            inner="quart",
            cut=0,
            saturation=1,
            log_scale=(False, True),
            density_norm="width",
            linewidth=0.6,
            ax=ax,
            legend=False,
        )
        log_axis(ax, "y")
        ax.set_title(panel_title(name, 1))
        ax.set(xlabel="", ylabel=TIME_AXIS)
    axes[-1, 0].set_xlabel(RATE_AXIS)
    sides = zip([protocol for protocol, _ in by_protocol(distributions)], ("left", "right"), strict=False)
    handles = [Patch(color=COLOURS[protocol], label=f"{NAMES[protocol]} ({side})") for protocol, side in sides]
    legend(figure, [*handles, Line2D([], [], color="0.2", linewidth=0.6, linestyle="--", label="median, quartiles")])
    return figure


def _even(point: pd.DataFrame) -> pd.DataFrame:
    """Return the response times of a point's successes at even levels."""
    times = np.interp(LEVELS, point["level"], point["response_ms"].replace(np.inf, np.nan).ffill())
    protocol, rate = point[["protocol", "rate_per_s"]].iloc[0]
    return pd.DataFrame({"protocol": protocol, "rate": f"{rate:,.4g}", "response_ms": times})


def violins_caption(_: Run, tables: Tables) -> str:
    """Return the caption of :func:`draw_violins`."""
    drawn = tables.distributions
    basis = f" ({captions.replicates(drawn['replicates'])}, pooled)" if len(drawn) else ""
    return (
        f"The shape of the response time at every λ where a point is VALID{basis}: a density on the log scale, REST on "
        "the left, gRPC on the right, with median and quartiles; successes only. A half is missing where its point is "
        "not VALID, or where no replicate became steady."
    )


VIOLINS = Picture(
    "violins",
    lambda _, tables: tables.distributions,
    draw_violins,
    violins_caption,
    "Densities of the response time at each arrival rate, REST on the left half and gRPC on the right.",
)

# ---------------------------------------------------------------------------------- over time

WIDTHS = {"p50_ms": 1.1, "p95_ms": 0.5}
"""Line width by percentile, points."""


@styled
def draw_time(timeline: pd.DataFrame) -> Figure:
    """Return p50 and p95 of the response time (ms, log) over the time of the trials, a line for each replicate."""
    names = systems(timeline)
    figure, axes = panels(1, len(names), row_in=2.3, sharey=True)
    for ax, name in zip(axes.flat, names, strict=True):
        panel = timeline[timeline["system"] == name]
        for protocol, arm in by_protocol(panel):
            for _, trial in arm.groupby("replicate"):
                for column, width in WIDTHS.items():
                    shown = trial[column].replace(np.inf, np.nan)
                    ax.plot(trial["time_s"], shown, color=COLOURS[protocol], linestyle=LINES[protocol], linewidth=width)
        cut = panel.loc[panel["steady"].astype(bool), "warm_up_s"].max()
        if cut > 0:
            ax.axvspan(0, cut, color="0.9", zorder=0)
        log_axis(ax, "y")
        ax.set_xlim(left=0)
        ax.set_title(title_with_rate(panel, len(names)))
        ax.set_xlabel("time in the trial (s)")
    axes[0, 0].set_ylabel(TIME_AXIS)
    lines = [
        Line2D([], [], color=COLOURS[protocol], linestyle=LINES[protocol], label=NAMES[protocol])
        for protocol, _ in by_protocol(timeline)
    ]
    kinds = [
        Line2D([], [], color="0.2", linewidth=WIDTHS["p50_ms"], label="p50 (thick)"),
        Line2D([], [], color="0.2", linewidth=WIDTHS["p95_ms"], label="p95 (thin)"),
        Patch(color="0.9", label="warm-up (longest)"),
    ]
    legend(figure, [*lines, *kinds])
    return figure


def time_caption(_: Run, tables: Tables) -> str:
    """Return the caption of :func:`draw_time`."""
    return (
        "Response time over the time of the trials at the largest λ at which every protocol is VALID, a line for each "
        "replicate: p50 (thick) and p95 (thin) of a fortieth of the trial each. Grey: the longest warm-up that was cut "
        "(MSER on the logarithm). A trial that never became steady has no percentile in any other figure. "
        f"{rests_on(tables)}"
    )


TIME = Picture(
    "time",
    lambda _, tables: tables.timeline,
    draw_time,
    time_caption,
    "Response time over the time of the trials, a line for each replicate and protocol.",
)
