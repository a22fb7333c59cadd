"""Figures of a sweep: response times, rates and verdicts of REST and gRPC against the arrival rate λ."""

from infscale.report.figures.sweep.achieved import ACHIEVED as ACHIEVED
from infscale.report.figures.sweep.distributions import ECDF as ECDF
from infscale.report.figures.sweep.distributions import QUANTILES as QUANTILES
from infscale.report.figures.sweep.distributions import TAIL as TAIL
from infscale.report.figures.sweep.generator import ARRIVALS as ARRIVALS
from infscale.report.figures.sweep.generator import LAG as LAG
from infscale.report.figures.sweep.percentiles import PERCENTILES as PERCENTILES
from infscale.report.figures.sweep.queues import QUEUES as QUEUES
from infscale.report.figures.sweep.ratio import RATIO as RATIO

PICTURES = (
    PERCENTILES,
    RATIO,
    ECDF,
    TAIL,
    QUANTILES,
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
]
