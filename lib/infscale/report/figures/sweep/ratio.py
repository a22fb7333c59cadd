"""The figure of the headline: the ratio of the protocols' p95 response times against the arrival rate λ."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from infscale.analysis.intervals import MIN_REPLICATES
from infscale.analysis.tables import Tables
from infscale.experiment.design.design import P95
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend, mark
from infscale.report.figures.parts import GREY, log_axis, panel_title, panels, rate_axis, styled, systems
from infscale.report.figures.picture import Picture
from infscale.vocabulary import NAMES


def numbers(run: Run, tables: Tables) -> pd.DataFrame:
    """Return the contrasts of p95, with the protocol of the reference as ``reference_protocol``."""
    contrasts, arms = tables.contrasts, run.manifest.design.every_arm()
    if contrasts.empty:
        return contrasts
    table = contrasts[contrasts["metric"] == P95].reset_index(drop=True)
    return table.assign(reference_protocol=[arms[reference].protocol for reference in table["reference"]])


@styled
def draw(ratios: pd.DataFrame) -> Figure:
    """Return the ratio (log) against λ with its 95 % interval, and a line at 1, a panel for each serving system.

    Filled marks differ from 1 at 5 % after Holm's correction over the figure.
    """
    names = systems(ratios)
    figure, axes = panels(1, len(names), row_in=2.3, sharey=True)
    for ax, name in zip(axes.flat, names, strict=True):
        panel = ratios[ratios["system"] == name]
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
        ax.set_title(panel_title(name, len(names)))
        rate_axis(ax)
    axes[0, 0].set_ylabel(f"{' ÷ '.join(_names(ratios))}, p95\nof response time (ratio)")
    legend(figure, _handles(ratios))
    return figure


def _handles(ratios: pd.DataFrame) -> list[Artist]:
    handles = [mark("differs from 1 (Holm, 5 %)", "D"), mark("not significant", "D", filled=False)]
    if (np.isfinite(ratios["ratio"]) & ~np.isfinite(ratios["ratio_low"])).any():
        handles.append(mark("too few pairs", "_"))
    if not np.isfinite(ratios["ratio"]).all():
        handles.append(mark("not all VALID", "x", GREY))
    return handles


def _names(ratios: pd.DataFrame) -> tuple[str, str]:
    """Return what is divided, and by what: "REST" and "gRPC"."""
    first = ratios.iloc[0]
    return NAMES[first["protocol"]], NAMES[first["reference_protocol"]]


def caption(run: Run, tables: Tables) -> str:
    """Return the caption."""
    ratios = numbers(run, tables)
    if ratios.empty:
        return "No ratio of the protocols: the run compares no two arms."
    over, under = _names(ratios)
    known = ratios[np.isfinite(ratios["ratio"])]
    basis = f" ({captions.replicates(known['replicates'])})" if len(known) else ""
    few = "" if np.isfinite(known["ratio_low"]).all() else f" Dashes: fewer than {MIN_REPLICATES} pairs, no interval."
    return (
        f"Ratio of the p95 response times, {over} ÷ {under}, paired by replicate{basis}: above 1 {over} is slower, "
        f"below 1 {under} is. Bars: 95 % intervals (t on the log ratio). Filled marks: different from 1 at 5 % after "
        "Holm's correction over the figure. Crosses: no ratio, because a protocol was SATURATED in a replicate, or "
        f"because there is no replicate in which both are VALID.{few}"
    )


RATIO = Picture(
    "ratio",
    numbers,
    draw,
    caption,
    "Ratio of the p95 response times of the two protocols against the arrival rate, with intervals and a line at one; "
    "a panel for each serving system. The numbers are in the table of ratios.",
)
