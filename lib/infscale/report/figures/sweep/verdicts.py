"""The map of verdicts: what may be believed of a sweep."""

import pandas as pd
import seaborn as sns
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from infscale.analysis.tables import Tables
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.legends import legend
from infscale.report.figures.parts import RATE_AXIS, panel_title, panels, styled, systems
from infscale.report.figures.picture import Picture
from infscale.vocabulary import NAMES

SHADES = {VALID: "0.95", SATURATED: "0.72", INVALID: "0.45"}
"""Shade of grey by verdict."""


@styled
def draw(points: pd.DataFrame) -> Figure:
    """Return a field for each arm and λ, shaded by its verdict, with how many attempts got each of the three."""
    names = systems(points)
    figure, axes = panels(len(names), 1, row_in=0.85, wide=len(names) > 1)
    order = {verdict: code for code, verdict in enumerate(SHADES)}
    for ax, name in zip(axes.flat, names, strict=True):
        panel = points[points["system"] == name]
        protocols = [protocol for protocol in NAMES if (panel["protocol"] == protocol).any()]
        counts = [f"{row.valid}·{row.saturated}·{row.invalid}" for row in panel.itertuples()]
        cells = panel.assign(code=panel["verdict"].map(order), text=counts)
        codes, texts = (
            cells.pivot(index="protocol", columns="rate_per_s", values=column).reindex(protocols)
            for column in ("code", "text")
        )
        sns.heatmap(
            codes.astype(float),
            annot=texts.fillna(""),
            fmt="",
            cmap=ListedColormap(list(SHADES.values())),
            vmin=0,
            vmax=len(SHADES) - 1,
            cbar=False,
            linewidths=1,
            linecolor="white",
            annot_kws={"size": 7},
            ax=ax,
        )
        ax.set_yticklabels([NAMES[protocol] for protocol in protocols], rotation=0)
        ax.set_xticklabels([f"{rate:,.4g}" for rate in codes.columns], rotation=0)
        ax.set(xlabel="", ylabel="")
        ax.set_title(panel_title(name, 1))
        ax.tick_params(length=0)
    axes[-1, 0].set_xlabel(RATE_AXIS)
    legend(figure, [Patch(facecolor=shade, edgecolor="0.6", label=verdict) for verdict, shade in SHADES.items()])
    return figure


def caption(_: Run, tables: Tables) -> str:
    """Return the caption."""
    return (
        "The verdict of every arm at every arrival rate. The numbers in a field count the attempts that were VALID · "
        "SATURATED · INVALID; an INVALID trial is repeated once, and both attempts count. A point is SATURATED if any "
        f"replicate that can be used is. {captions.basis(tables.points)}"
    )


VERDICTS = Picture(
    "verdicts",
    lambda _, tables: tables.points,
    draw,
    caption,
    "A field for each arm and arrival rate, shaded by its verdict, with the numbers of VALID, SATURATED and INVALID "
    "attempts.",
)
