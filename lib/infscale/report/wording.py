"""How estimates are written in sentences of the report."""

from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.intervals import Interval
from infscale.analysis.tables.ratios import withheld_because
from infscale.experiment.design.labels import count
from infscale.vocabulary import number

BOUNDARIES = {"response": "response time", "roundtrip": "round-trip time"}


def metric_text(name: str) -> str:
    """Return the name of a column of percentiles in words: "p95 response time" for ``response_p95_ms``."""
    boundary, quantile, _ = name.split("_")
    return f"{quantile} {BOUNDARIES[boundary]}"


def interval_text(low: float, high: float) -> str:
    """Return an interval in words: "95 % interval 1.2 to 1.8"."""
    return f"95 % interval {number(low)} to {number(high)}"


def ratio_text(subject: str, estimate: Interval | None, other: str) -> str:
    """Return how a quantity compares with that of another arm: "its p95 response time is 1.3 times that of gRPC (…)".

    Args:
        subject: the quantity, as in "its p95 response time".
        estimate: their ratio; None where one of the two was not measured.
        other: what it is compared with, as in "that of gRPC".
    """
    reason = "one of them was not measured" if estimate is None else withheld_because(estimate.replicates)
    return _compared(subject, estimate, other, reason)


def capacity_ratio_text(subject: str, estimate: Interval, other: str) -> str:
    """Return the same of a saturation rate; without a ratio, why the brackets of λ* give none."""
    if np.isfinite(estimate.value):
        return _compared(subject, estimate, other, withheld_because(estimate.replicates))
    known = f"only {count(estimate.replicates, 'replicate')}" if estimate.replicates else "no replicate"
    reason = f"both rates have a lower and an upper bound in {known}; every replicate needs both"
    return _compared(subject, estimate, other, reason)


def _compared(subject: str, estimate: Interval | None, other: str, reason: str) -> str:
    if estimate is None or not np.isfinite(estimate.value):
        return f"{subject} cannot be compared with {other} ({reason})"
    known = np.isfinite(estimate.low)
    return (
        f"{subject} is {number(estimate.value)} times {other} "
        f"({interval_text(estimate.low, estimate.high) if known else reason})"
    )


def saturation_text(arm: "pd.Series[Any]") -> str:
    """Return where an arm's saturation rate lies, with the verb: "lies between 950 and 1050 requests/s".

    ``arm`` has the columns of ``Tables.arms``.
    """
    return f"{'is' if arm['bound'] == '?' else 'lies'} {saturation_range(arm)}"


def saturation_range(arm: "pd.Series[Any]") -> str:
    """Return the same without the verb, for a table."""
    match arm["bound"]:
        case "":
            low, high = arm["interval_low_per_s"], arm["interval_high_per_s"]
            interval = f" ({interval_text(low, high)}, over replicates)" if np.isfinite(low) else ""
            return f"between {number(arm['low_per_s'])} and {number(arm['high_per_s'])} requests/s{interval}"
        case "≥":
            return f"at or above {number(arm['low_per_s'])} requests/s (never SATURATED in this run)"
        case "<":
            return f"below {number(arm['high_per_s'])} requests/s (nothing below was VALID)"
        case "~":
            many = round(arm["contradictions"])
            verdicts = f"{count(many, 'verdict')} {'contradicts' if many == 1 else 'contradict'} it"
            return f"near {number(arm['saturation_per_s'])} requests/s ({verdicts})"
        case _:
            return "unknown (no usable trial)"
