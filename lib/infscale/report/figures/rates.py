"""The figures of experiment F0 (frameworks × protocols × λ): tables in, Matplotlib figures out.

Nothing is measured or written here, and no data are read. A protocol has a colour, a marker and a line style,
so that it is recognised in greyscale too; what is not VALID is hollow and grey. Units are on every axis.
Tables are those of ``infscale.analysis.tables.summary``.
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infscale.analysis.tables.trials import QUANTILES, metric
from infscale.records.gates.generator import LAG_FLOOR_NS
from infscale.report.figures.parts import (
    COLOURS,
    COLUMN_IN,
    GREY,
    LINES,
    MARKERS,
    PAGE_IN,
    PLAIN,
    by_protocol,
    house_style,
    legend,
    log_axis,
    not_valid_handles,
    panel_labels,
    panels,
    protocol_handles,
    protocol_look,
    rate_axis,
    ratio_handles,
    saturation,
    saturation_handles,
    series,
    styled,
    wrapped,
)
from infscale.vocabulary import NAMES

__all__ = ["COLOURS", "COLUMN_IN", "LINES", "MARKERS", "NAMES", "PAGE_IN", "house_style"]


@styled
def percentiles_vs_rate(points: pd.DataFrame, arms: pd.DataFrame) -> Figure:
    """p50, p95 and p99 of the response time (ms, log) against λ: rows are percentiles, columns implementations.

    Bars are 95 % intervals over replicates; the block at the upper edge is the bracket of a protocol's λ*, the line
    λ* itself.
    """
    labels = panel_labels(points)
    figure, axes = panels(len(QUANTILES), len(labels), row_in=1.75, sharex="col", sharey=True)
    for column, label in enumerate(labels):
        for row, quantile in enumerate(QUANTILES):
            ax = axes[row, column]
            saturation(ax, arms[arms["label"] == label])
            series(ax, points[points["label"] == label], metric("response", quantile), dodge=0.006)
        axes[0, column].set_title(wrapped(label, len(labels)))
        rate_axis(axes[-1, column])
    for row, quantile in enumerate(QUANTILES):
        axes[row, 0].set_ylabel(f"{quantile} response time (ms)")
    marks = points[[metric("response", quantile) for quantile in QUANTILES]].to_numpy(dtype=float)
    marks = marks[np.isfinite(marks)]
    for ax in axes.flat:
        # The marks set the axis, with room for arrows; an interval of two or three replicates may leave it.
        if len(marks):
            ax.set_ylim(marks.min() / 2, marks.max() * 5)
        log_axis(ax, "y")
        ax.set_xlim(left=0)
    legend(figure, [*protocol_handles(points), *saturation_handles(arms), *not_valid_handles(points)])
    return figure


@styled
def latency_ecdf(distributions: pd.DataFrame) -> Figure:
    """The distribution of response times (ms, log) at one λ per implementation, VALID replicates pooled.

    A request that did not succeed lies beyond the axis: its curve then ends below 1.
    """
    distributions = distributions[distributions["common"].astype(bool)]
    labels = panel_labels(distributions)
    figure, axes = panels(1, max(1, len(labels)), row_in=2.3, sharey=True)
    axes[0, 0].set(ylim=(0, 1), xlabel="response time (ms)")
    if not labels:
        axes[0, 0].set_title("no λ at which every protocol is VALID")
        return figure
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = distributions[distributions["label"] == label]
        finite = panel.loc[np.isfinite(panel["response_ms"]), "response_ms"]
        for protocol, arm in by_protocol(panel):
            times = arm["response_ms"].clip(upper=100 * finite.max())
            shares = np.diff(arm["level"], prepend=0)
            sns.ecdfplot(x=times, weights=shares, ax=ax, log_scale=True, markevery=0.12, **protocol_look(protocol))
        ax.set_xlim(finite.min() * 0.9, finite.max() * 1.1)
        log_axis(ax, "x")
        ax.set_title(f"{wrapped(label, len(labels))}\nλ = {panel['rate_per_s'].iloc[0]:,.4g} requests/s")
        ax.set_xlabel("response time (ms)")
        ax.set_ylabel("")
    axes[0, 0].set_ylabel("share of requests")
    legend(figure, protocol_handles(distributions))
    return figure


@styled
def offered_vs_achieved(points: pd.DataFrame) -> Figure:
    """Successful responses per second against the arrival rate; on the diagonal a server keeps up."""
    labels = panel_labels(points)
    figure, axes = panels(1, len(labels), row_in=2.5)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = points[points["label"] == label]
        end = 1.05 * panel[["offered_per_s", "achieved_per_s"]].to_numpy().max()
        ax.plot([0, end], [0, end], color="0.3", linewidth=0.8, linestyle=":")
        series(ax, panel, "achieved_per_s", x="offered_per_s", arrows=False)
        ax.set_title(wrapped(label, len(labels)))
        rate_axis(ax, "offered rate (requests/s)")
        ax.yaxis.set_major_formatter(PLAIN)
        ax.set_xlim(0, end)
        ax.set_ylim(0, end)
    axes[0, 0].set_ylabel("achieved rate (successes/s)")
    diagonal = Line2D([], [], color="0.3", linewidth=0.8, linestyle=":", label="achieved = offered")
    legend(figure, [*protocol_handles(points), diagonal, *not_valid_handles(points, arrows=False)])
    return figure


@styled
def lag(points: pd.DataFrame) -> Figure:
    """How late the load generator was (ms, log) against λ: the median over replicates of p50, the largest p99."""
    labels = panel_labels(points)
    figure, axes = panels(1, len(labels), row_in=2.3, sharey=True)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = points[points["label"] == label]
        series(ax, panel, "lag_p99_ms", arrows=False)
        series(ax, panel, "lag_p50_ms", arrows=False, scale=0.5)
        ax.axhline(LAG_FLOOR_NS / 1e6, color="0.2", linewidth=0.9, linestyle="-.")
        log_axis(ax, "y")
        ax.set_xlim(left=0)
        ax.set_title(wrapped(label, len(labels)))
        rate_axis(ax)
    axes[0, 0].set_ylabel("lag: due − scheduled (ms)")
    kinds = [
        Line2D([], [], color="0.2", linewidth=1.2, label="p99 (thick)"),
        Line2D([], [], color="0.2", linewidth=0.6, label="p50 (thin)"),
        Line2D([], [], color="0.2", linewidth=0.9, linestyle="-.", label="gate at 1 ms"),
    ]
    legend(figure, [*protocol_handles(points), *kinds, *not_valid_handles(points, arrows=False)])
    return figure


@styled
def ratio_vs_rate(ratios: pd.DataFrame) -> Figure:
    """The ratio of the protocols' percentile (log) against λ with its 95 % interval, and a line at 1.

    ``ratios`` holds one metric. Filled marks stay significant at 5 % after Holm's correction over the figure.
    """
    labels = panel_labels(ratios)
    figure, axes = panels(1, len(labels), row_in=2.3, sharey=True)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = ratios[ratios["label"] == label]
        known = panel[np.isfinite(panel["ratio"]) & np.isfinite(panel["ratio_low"])]
        single = panel[np.isfinite(panel["ratio"]) & ~np.isfinite(panel["ratio_low"])]
        missing = panel[~np.isfinite(panel["ratio"])]
        ax.axhline(1, color="0.2", linewidth=0.9)
        ax.vlines(known["rate_per_s"], known["ratio_low"], known["ratio_high"], color="black", linewidth=1.1)
        for significant, fill in ((True, "black"), (False, "white")):
            marks = known[(known["p_holm"] < 0.05) == significant]
            ax.plot(marks["rate_per_s"], marks["ratio"], "D", color="black", markerfacecolor=fill)
        ax.plot(single["rate_per_s"], single["ratio"], "_", color="black", markersize=6)
        ax.plot(missing["rate_per_s"], np.ones(len(missing)), "x", color=GREY)
        log_axis(ax, "y")
        ax.set_xlim(0, 1.08 * panel["rate_per_s"].max())
        ax.set_title(wrapped(label, len(labels)))
        rate_axis(ax)
    over, under, quantile = (
        NAMES[ratios["over"].iloc[0]],
        NAMES[ratios["under"].iloc[0]],
        ratios["metric"].iloc[0].split("_")[1],
    )
    axes[0, 0].set_ylabel(f"{over} ÷ {under}, {quantile}\nof response time (ratio)")
    legend(figure, ratio_handles(ratios))
    return figure
