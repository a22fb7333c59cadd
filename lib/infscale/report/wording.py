"""How estimates are written in sentences of the report."""

from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.intervals import Interval
from infscale.analysis.tables.ratios import withheld_because
from infscale.vocabulary import number

BOUNDARIES = {"response": "response time", "roundtrip": "round-trip time"}


def metric_text(name: str) -> str:
    """Return the name of a column of percentiles in words: "p95 response time" for ``response_p95_ms``."""
    boundary, quantile, _ = name.split("_")
    return f"{quantile} {BOUNDARIES[boundary]}"


def interval_text(low: float, high: float) -> str:
    """Return an interval in words: "95 % interval 1.2 to 1.8"."""
    return f"95 % interval {number(low)} to {number(high)}"


def ratio_text(estimate: Interval) -> str:
    """Return a ratio with its interval, or the reason why there is none."""
    reason = withheld_because(estimate.replicates) or "a bracket is missing"
    if not np.isfinite(estimate.value):
        return f"unknown ({reason})"
    if not np.isfinite(estimate.low):
        return f"{number(estimate.value)} ({reason})"
    return f"{number(estimate.value)} ({interval_text(estimate.low, estimate.high)})"


def capacity_ratio_text(estimate: Interval) -> str:
    """Return a ratio of two saturation rates with its interval, or the reason why there is none."""
    if np.isfinite(estimate.value) and np.isfinite(estimate.low):
        return ratio_text(estimate)
    known = f"{number(estimate.value)} (no interval: " if np.isfinite(estimate.value) else "unknown ("
    return f"{known}both saturation rates have a bracket in {estimate.replicates} replicates)"


def saturation_text(arm: "pd.Series[Any]") -> str:
    """Return an arm's saturation rate in words, with its unit; ``arm`` has the columns of ``Tables.arms``."""
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
            verdicts = f"{arm['contradictions']:.0f} verdicts contradict it"
            return f"near {number(arm['saturation_per_s'])} requests/s ({verdicts})"
        case _:
            return "unknown (no usable trial)"
