"""The figures that look closer: tails, quantiles against quantiles, shapes over λ, time, arrivals, verdicts, models.

As in :mod:`infscale.report.figures.rates`: tables of ``infscale.analysis.tables.summary`` in, Matplotlib figures out.
"""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infscale.analysis.queues import MODELS, mean_response_ms
from infscale.analysis.tables.trials import QUANTILES
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.gates.generator import DISPERSION_TOLERANCE
from infscale.report.figures.parts import (
    COLOURS,
    GREY,
    LINES,
    RATE_AXIS,
    by_protocol,
    legend,
    log_axis,
    not_valid_handles,
    panel_labels,
    panels,
    protocol_handles,
    protocol_look,
    rate_axis,
    series,
    styled,
    wrapped,
)
from infscale.vocabulary import NAMES

MODEL_LINES: dict[str, Any] = {"M/M/1": (0, (1, 1)), "M/D/1": (0, (4, 1.5)), "M/G/1": (0, (6, 1, 1, 1))}
VIOLIN_LEVELS = (np.arange(400) + 0.5) / 400
WITHOUT = "no λ at which every protocol is VALID"


def _empty() -> Figure:
    figure, axes = panels(1, 1, row_in=1.5)
    axes[0, 0].set(xlabel="response time (ms)", ylabel="share of requests", title=WITHOUT)
    return figure


@styled
def latency_tail(distributions: pd.DataFrame) -> Figure:
    """The share of requests (log) that take longer than a response time (ms, log), at one λ per implementation."""
    common = distributions[distributions["common"].astype(bool)]
    labels = panel_labels(common)
    if not labels:
        return _empty()
    figure, axes = panels(1, len(labels), row_in=2.3, sharey=True)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = common[common["label"] == label]
        for protocol, arm in by_protocol(panel):
            shown = arm[np.isfinite(arm["response_ms"]) & (arm["level"] < 1)]
            ax.plot(
                shown["response_ms"],
                1 - shown["level"],
                drawstyle="steps-post",
                markevery=0.15,
                **protocol_look(protocol),
            )
        log_axis(ax, "x")
        ax.set_yscale("log")
        for p in QUANTILES.values():
            ax.axhline(1 - p, color="0.8", linewidth=0.6, zorder=0)
        ax.set_title(f"{wrapped(label, len(labels))}\nλ = {panel['rate_per_s'].iloc[0]:,.4g} requests/s")
        ax.set_xlabel("response time (ms)")
    axes[0, 0].set_ylabel("share of requests beyond")
    grid = Line2D([], [], color="0.8", linewidth=0.6, label="p50, p95, p99")
    legend(figure, [*protocol_handles(common), grid])
    return figure


@styled
def quantiles_against(distributions: pd.DataFrame, over: str = "rest", under: str = "grpc") -> Figure:
    """Quantile by quantile, the response time of one protocol against the other's (ms, log), and the diagonal."""
    common = distributions[distributions["common"].astype(bool) & np.isfinite(distributions["response_ms"])]
    labels = panel_labels(common)
    if not labels:
        return _empty()
    figure, axes = panels(1, len(labels), row_in=2.6)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = common[common["label"] == label]
        rates = {name: arm.set_index("level")["response_ms"] for name, arm in by_protocol(panel)}
        if {over, under} <= set(rates):
            levels = np.linspace(0.005, min(rates[over].index.max(), rates[under].index.max()), 300)
            x, y = (np.interp(levels, rates[name].index, rates[name]) for name in (under, over))
            ax.plot(x, y, color="black", linewidth=1.3)
            for mark, (name, p) in zip("o^s", QUANTILES.items(), strict=True):
                at = [float(np.interp(p, rates[side].index, rates[side])) for side in (under, over)]
                ax.plot(*at, mark, color="black", markerfacecolor="white", markersize=5, label=name)
        low, high = panel["response_ms"].min() * 0.9, panel["response_ms"].max() * 1.1
        ax.plot([low, high], [low, high], color="0.4", linewidth=0.8, linestyle=":")
        ax.set(xlim=(low, high), ylim=(low, high))
        log_axis(ax, "x")
        log_axis(ax, "y")
        ax.set_title(f"{wrapped(label, len(labels))}\nλ = {panel['rate_per_s'].iloc[0]:,.4g} requests/s")
        ax.set_xlabel(f"{NAMES[under]} response time (ms)")
    axes[0, 0].set_ylabel(f"{NAMES[over]} response time (ms)")
    marks = [
        Line2D([], [], color="black", marker=mark, markerfacecolor="white", linestyle="", label=name)
        for mark, name in zip("o^s", QUANTILES, strict=True)
    ]
    diagonal = Line2D([], [], color="0.4", linewidth=0.8, linestyle=":", label="equal")
    legend(figure, [*marks, diagonal])
    return figure


@styled
def violins(distributions: pd.DataFrame) -> Figure:
    """The shape of the response times (ms, log) at every λ where a point is VALID, protocols side by side."""
    labels = panel_labels(distributions)
    if not labels:
        return _empty()
    figure, axes = panels(len(labels), 1, row_in=1.9, wide=len(labels) > 1)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = distributions[distributions["label"] == label]
        drawn = pd.concat([_even(arm) for _, arm in panel.groupby(["protocol", "rate_per_s"])], ignore_index=True)
        sns.violinplot(
            data=drawn,
            x="rate",
            y="response_ms",
            hue="protocol",
            hue_order=[name for name in NAMES if (panel["protocol"] == name).any()],
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
        ax.set_title(wrapped(label, 1))
        ax.set(xlabel="", ylabel="response time (ms)")
    axes[-1, 0].set_xlabel(RATE_AXIS)
    sides = dict(zip([name for name, _ in by_protocol(distributions)], ("left", "right"), strict=False))
    handles = [Patch(color=COLOURS[name], label=f"{NAMES[name]} ({side})") for name, side in sides.items()]
    legend(figure, [*handles, Line2D([], [], color="0.2", linewidth=0.6, linestyle="--", label="median, quartiles")])
    return figure


def _even(arm: pd.DataFrame) -> pd.DataFrame:
    """Response times of one arm at even levels, those that succeeded, so that a density can be drawn of them."""
    times = np.interp(VIOLIN_LEVELS, arm["level"], arm["response_ms"].replace(np.inf, np.nan).ffill())
    rate = f"{arm['rate_per_s'].iloc[0]:,.4g}"
    return pd.DataFrame({"protocol": arm["protocol"].iloc[0], "rate": rate, "response_ms": times})


@styled
def response_over_time(timeline: pd.DataFrame) -> Figure:
    """p50 (thick) and p95 (thin) of the response time (ms, log) over the time of the trials, each replicate a line."""
    labels = panel_labels(timeline)
    if not labels:
        return _empty()
    figure, axes = panels(1, len(labels), row_in=2.3, sharey=True)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = timeline[timeline["label"] == label]
        for protocol, arm in by_protocol(panel):
            for _, trial in arm.groupby("replicate"):
                for column, width in (("p50_ms", 1.1), ("p95_ms", 0.5)):
                    shown = trial[column].replace(np.inf, np.nan)
                    ax.plot(trial["time_s"], shown, color=COLOURS[protocol], linestyle=LINES[protocol], linewidth=width)
        cut = panel.loc[panel["steady"].astype(bool), "warm_up_s"].max()
        if cut > 0:
            ax.axvspan(0, cut, color="0.9", zorder=0)
        log_axis(ax, "y")
        ax.set_xlim(left=0)
        ax.set_title(f"{wrapped(label, len(labels))}\nλ = {panel['rate_per_s'].iloc[0]:,.4g} requests/s")
        ax.set_xlabel("time in the trial (s)")
    axes[0, 0].set_ylabel("response time (ms)")
    kinds = [
        Line2D([], [], color="0.2", linewidth=1.1, label="p50 (thick)"),
        Line2D([], [], color="0.2", linewidth=0.5, label="p95 (thin)"),
        Patch(color="0.9", label="warm-up (longest)"),
    ]
    lines = [
        Line2D([], [], color=COLOURS[name], linestyle=LINES[name], label=NAMES[name])
        for name, _ in by_protocol(timeline)
    ]
    legend(figure, [*lines, *kinds])
    return figure


@styled
def arrivals(points: pd.DataFrame) -> Figure:
    """How far the arrivals were from their schedule against λ: dispersion (upper row, gated) and gaps (lower)."""
    labels = panel_labels(points)
    figure, axes = panels(2, len(labels), row_in=1.7, sharex="col", sharey="row")
    for column, label in enumerate(labels):
        panel = points[points["label"] == label]
        for ax, name in zip(axes[:, column], ("dispersion_difference", "gaps_distance"), strict=True):
            series(ax, panel, name, arrows=False)
            ax.set_xlim(left=0)
        axes[0, column].axhline(DISPERSION_TOLERANCE, color="0.2", linewidth=0.9, linestyle="-.")
        axes[0, column].set_title(wrapped(label, len(labels)))
        rate_axis(axes[-1, column])
    axes[0, 0].set_ylabel("difference of dispersion\n(ratio)")
    axes[1, 0].set_ylabel("Kolmogorov distance\nof the gaps (share)")
    for ax in axes[:, 0]:
        ax.set_ylim(bottom=0)
    gate = Line2D([], [], color="0.2", linewidth=0.9, linestyle="-.", label="gate at 0.05")
    legend(figure, [*protocol_handles(points), gate, *not_valid_handles(points, arrows=False)])
    return figure


@styled
def verdict_map(points: pd.DataFrame) -> Figure:
    """The verdict of every arm at every λ, with how many attempts were VALID, SATURATED and INVALID."""
    labels = panel_labels(points)
    figure, axes = panels(len(labels), 1, row_in=0.85, wide=len(labels) > 1)
    shades = ListedColormap(["0.95", "0.72", "0.45"])
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = points[points["label"] == label]
        order = [name for name in NAMES if (panel["protocol"] == name).any()]
        codes = panel.assign(code=panel["verdict"].map({VALID: 0, SATURATED: 1, INVALID: 2}))
        told = panel.assign(text=[f"{r.valid}·{r.saturated}·{r.invalid}" for r in panel.itertuples()])
        grids = [
            frame.pivot(index="protocol", columns="rate_per_s", values=name).reindex(order)
            for frame, name in ((codes, "code"), (told, "text"))
        ]
        sns.heatmap(
            grids[0].astype(float), annot=grids[1].fillna(""), fmt="", cmap=shades, vmin=0, vmax=2, cbar=False,
            linewidths=1, linecolor="white", annot_kws={"size": 7}, ax=ax,
        )  # fmt: skip
        ax.set_yticklabels([NAMES[name] for name in order], rotation=0)
        ax.set_xticklabels([f"{rate:,.4g}" for rate in grids[0].columns], rotation=0)
        ax.set(xlabel="", ylabel="")
        ax.set_title(wrapped(label, 1))
        ax.tick_params(length=0)
    axes[-1, 0].set_xlabel(RATE_AXIS)
    names = zip((VALID, SATURATED, INVALID), ("0.95", "0.72", "0.45"), strict=True)
    legend(figure, [Patch(facecolor=shade, edgecolor="0.6", label=name) for name, shade in names])
    return figure


@styled
def mean_and_queues(points: pd.DataFrame, queues: pd.DataFrame) -> Figure:
    """The mean response time (ms, log) against λ, and thin behind it the queues fitted below saturation."""
    labels = panel_labels(points)
    figure, axes = panels(1, len(labels), row_in=2.3, sharey=True)
    for ax, label in zip(axes.flat, labels, strict=True):
        panel = points[points["label"] == label]
        for _, fit in queues[(queues["label"] == label) & np.isfinite(queues["s_ms"])].iterrows():
            rates = np.linspace(0, min(fit["limit_per_s"] * 0.999, panel["rate_per_s"].max()), 300)[1:]
            means = mean_response_ms(fit["model"], rates, fit["t_ms"], fit["s_ms"], fit["cv2"])
            look = {"color": COLOURS[fit["protocol"]], "linestyle": MODEL_LINES[fit["model"]]}
            ax.plot(rates, means, linewidth=0.7, alpha=0.75, zorder=1, **look)
        series(ax, panel, "response_mean_ms", arrows=False)
        marks = panel["response_mean_ms"].dropna()
        ax.set_xlim(left=0)
        ax.set_title(wrapped(label, len(labels)))
        rate_axis(ax)
        if len(marks):
            ax.set_ylim(points["response_mean_ms"].min() / 2, points["response_mean_ms"].max() * 2)
        log_axis(ax, "y")
    axes[0, 0].set_ylabel("mean response time (ms)")
    models = [Line2D([], [], color=GREY, linewidth=0.7, linestyle=MODEL_LINES[name], label=name) for name in MODELS]
    legend(figure, [*protocol_handles(points), *models, *not_valid_handles(points, arrows=False)])
    return figure
