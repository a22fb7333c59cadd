"""Every figure of experiment F0 by name, with the numbers that it draws."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from infscale.analysis.tables import summary
from infscale.report.figures import distributions as figures_detail
from infscale.report.figures import rates as figures
from infscale.report.figures.captions import headline_ratios
from infscale.report.figures.files import save_figure

Tables = Mapping[str, pd.DataFrame]

FIGURES: dict[str, Callable[[Tables], tuple[Figure, pd.DataFrame]]] = {
    "percentiles": lambda t: (
        figures.percentiles_vs_rate(t["points"], t["arms"]),
        summary.with_saturation(t["points"], t["arms"]),
    ),
    "ecdf": lambda t: (figures.latency_ecdf(t["distributions"]), _common(t)),
    "achieved": lambda t: (figures.offered_vs_achieved(t["points"]), t["points"]),
    "lag": lambda t: (figures.lag(t["points"]), t["points"]),
    "ratio": lambda t: (figures.ratio_vs_rate(headline_ratios(t)), headline_ratios(t)),
    "verdicts": lambda t: (figures_detail.verdict_map(t["points"]), t["points"]),
    "tail": lambda t: (figures_detail.latency_tail(t["distributions"]), _common(t)),
    "quantiles": lambda t: (figures_detail.quantiles_against(t["distributions"]), _common(t)),
    "violins": lambda t: (figures_detail.violins(t["distributions"]), t["distributions"]),
    "time": lambda t: (figures_detail.response_over_time(t["timeline"]), t["timeline"]),
    "arrivals": lambda t: (figures_detail.arrivals(t["points"]), t["points"]),
    "queues": lambda t: (figures_detail.mean_and_queues(t["points"], t["queues"]), _queue_numbers(t)),
}
"""By the name that captions and files have; the data go to the CSV file beside the picture."""


def draw(name: str, tables: Tables, folder: Path, run: Mapping[str, Any]) -> Path:
    """Draw one figure to ``folder`` as PDF, PNG and CSV; returns the PNG's path.

    Args:
        name: of :data:`FIGURES`.
        tables: what ``summary.summarise`` gave.
        folder: where the files ``f0-<name>`` go.
        run: the run's manifest.
    """
    figure, numbers = FIGURES[name](tables)
    return save_figure(figure, f"f0-{name}", folder, numbers, run)


def _common(tables: Tables) -> pd.DataFrame:
    distributions = tables["distributions"]
    return distributions[distributions["common"].astype(bool)]


def _queue_numbers(tables: Tables) -> pd.DataFrame:
    """The points and, below them, the parameters of the curves."""
    columns = [
        "run_id",
        "framework",
        "implementation",
        "label",
        "protocol",
        "rate_per_s",
        "verdict",
        "response_mean_ms",
    ]
    return pd.concat([tables["points"][columns], tables["queues"]], ignore_index=True)
