"""The figure of the headline: the ratio of the protocols' p95 response times against the arrival rate λ."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from infscale.analysis.tables import Tables
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.parts import log_axis, panel_names, panel_title, styled, tiles, with_panels
from infscale.report.figures.picture import Picture
from infscale.vocabulary import NAMES


def numbers(run: Run, tables: Tables) -> pd.DataFrame:
    """Return the ratios of p95 by rate, with the protocol of the reference as ``reference_protocol``."""
    arms = run.manifest.design.every_arm()
    table = tables.ratios[np.isfinite(tables.ratios["ratio"])].reset_index(drop=True)
    return with_panels(table.assign(reference_protocol=[arms[reference].protocol for reference in table["reference"]]))


@styled
def draw(ratios: pd.DataFrame) -> Figure:
    """Return the ratio (log) against λ as a share of the smaller λ*, with its 95 % interval, and a line at 1."""
    names = panel_names(ratios)
    figure, axes = tiles(ratios, row_in=2.0, sharey=True)
    values = ratios["ratio"].to_numpy(dtype=float)
    low, high = min(0.5, values.min() / 1.5), max(2.0, values.max() * 1.5)
    for ax, name in zip(axes.flat, names, strict=False):
        panel = ratios[ratios["panel"] == name].sort_values("share")
        ax.axhline(1, color="0.2", linewidth=0.9)
        ax.vlines(panel["share"], panel["ratio_low"], panel["ratio_high"], color="black", linewidth=1.1)
        ax.plot(panel["share"], panel["ratio"], "D-", color="black", linewidth=0.6)
        ax.set_ylim(low, high)
        log_axis(ax, "y")
        ax.set_xlim(0, max(1.0, 1.08 * ratios["share"].max()))
        ax.set_title(panel_title(name, len(axes[0])))
        ax.set_xlabel("arrival rate λ (share of the smaller λ*)")
    for ax in axes[:, 0]:
        ax.set_ylabel(f"{' ÷ '.join(_names(ratios))}, p95\nof response time (ratio)")
    return figure


def _names(ratios: pd.DataFrame) -> tuple[str, str]:
    """Return what is divided, and by what: "REST" and "gRPC"."""
    first = ratios.iloc[0]
    return NAMES[first["protocol"]], NAMES[first["reference_protocol"]]


def caption(run: Run, tables: Tables) -> str:
    """Return the caption."""
    ratios = numbers(run, tables)
    if ratios.empty:
        return "No ratio of the protocols: at no rate were both VALID."
    over, under = _names(ratios)
    return (
        f"How the ratio of the p95 response times, {over} ÷ {under}, changes with the load, paired by lifetime "
        f"({captions.lifetimes(ratios['lifetimes'])}): above 1 {over} is slower, below 1 {under} is. Bars: plain 95 % "
        "intervals, which describe and claim nothing and may leave the axis; without a bar there are fewer than three "
        "lifetimes. Rates at which a protocol did not keep up have no ratio."
    )


RATIO = Picture(
    "ratio",
    numbers,
    draw,
    caption,
    "Ratio of the p95 response times of the two protocols against the arrival rate, with intervals and a line at one; "
    "a panel for each serving system. The numbers are in the table of ratios.",
)
