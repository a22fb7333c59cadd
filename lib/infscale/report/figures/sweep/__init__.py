"""Figures of a sweep: response times, rates and verdicts of REST and gRPC against the arrival rate λ."""

from infscale.report.figures.sweep.achieved import ACHIEVED
from infscale.report.figures.sweep.distributions import ECDF, QUANTILES, TAIL
from infscale.report.figures.sweep.generator import ARRIVALS, LAG
from infscale.report.figures.sweep.percentiles import PERCENTILES
from infscale.report.figures.sweep.queues import QUEUES
from infscale.report.figures.sweep.ratio import RATIO
from infscale.report.figures.sweep.shapes import TIME, VIOLINS
from infscale.report.figures.sweep.verdicts import VERDICTS

__all__ = [
    "ACHIEVED",
    "ARRIVALS",
    "ECDF",
    "LAG",
    "PERCENTILES",
    "PICTURES",
    "QUANTILES",
    "QUEUES",
    "RATIO",
    "TAIL",
    "TIME",
    "VERDICTS",
    "VIOLINS",
]

PICTURES = (
    PERCENTILES,
    RATIO,
    VERDICTS,
    ECDF,
    TAIL,
    QUANTILES,
    VIOLINS,
    TIME,
    ACHIEVED,
    QUEUES,
    LAG,
    ARRIVALS,
)
"""All of them, in the order of a report."""

__all__ = [
    "ACHIEVED",
    "ARRIVALS",
    "ECDF",
    "LAG",
    "PERCENTILES",
    "PICTURES",
    "QUANTILES",
    "QUEUES",
    "RATIO",
    "TAIL",
    "TIME",
    "VERDICTS",
    "VIOLINS",
]
