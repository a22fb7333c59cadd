"""How estimates are written in sentences of the report."""

from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.answers import DIFFERS, EQUAL
from infscale.analysis.intervals import MIN_LIFETIMES, Interval
from infscale.analysis.tables.saturation import CAPACITY_COLUMNS
from infscale.experiment.design.design import (
    CAPACITY,
    FIRST,
    GAP,
    MARGINS,
    METRIC_NAMES,
    MORE_IS_BETTER,
    P95,
    PER_CORE,
    PER_MESSAGE,
    SATURATION,
    TIMES,
)
from infscale.experiment.design.labels import count
from infscale.vocabulary import number

BOUNDARIES = {"response": "response time", "roundtrip": "round-trip time"}


def metric_text(name: str) -> str:
    """Return the name of a metric in words: "p95 response time" for ``response_p95_ms``, "saturation rate λ*"."""
    if name in METRIC_NAMES:
        return METRIC_NAMES[name]
    boundary, quantile, _ = name.split("_")
    return f"{quantile} {BOUNDARIES[boundary]}"


def interval_text(low: float, high: float) -> str:
    """Return a 95 % interval in words: "95 % interval 1.2 to 1.8"; of one known end, "with 95 % at least 1.2"."""
    below, above = not low > 0, not np.isfinite(high)
    if below and above:
        return "no bound known"
    if below or above:
        return f"with 95 % {f'at most {number(high)}' if below else f'at least {number(low)}'}"
    return f"95 % interval {number(low)} to {number(high)}"


def with_interval(value: float, low: float, high: float) -> str:
    """Return a number with its 95 % interval in brackets, as lists and tables hold it; alone where there is none."""
    return f"{number(value)} [{number(low)}, {number(high)}]" if np.isfinite([low, high]).all() else number(value)


# -------------------------------------------------------------------------------------------- contrasts

WORDS = {
    (P95, True): "is slower than",
    (P95, False): "is faster than",
    (SATURATION, True): "keeps up with more load than",
    (SATURATION, False): "keeps up with less load than",
    (CAPACITY, True): "keeps the SLO up to a higher rate than",
    (CAPACITY, False): "keeps the SLO only up to a lower rate than",
    (FIRST, True): "brings its first message later than",
    (FIRST, False): "brings its first message sooner than",
    (GAP, True): "has longer gaps between messages than",
    (GAP, False): "has shorter gaps between messages than",
    (PER_CORE, True): "sends more messages for its CPU than",
    (PER_CORE, False): "sends fewer messages for its CPU than",
    (PER_MESSAGE, True): "costs the client more CPU a message than",
    (PER_MESSAGE, False): "costs the client less CPU a message than",
}
"""What is said of an arm whose ratio is above 1 (True) or below."""

MUCH = dict.fromkeys(TIMES, "as long") | dict.fromkeys(MORE_IS_BETTER, "as high") | {PER_MESSAGE: "as much"}
"""How a multiple of a metric is called."""

QUANTITIES = {metric: (METRIC_NAMES[metric], MUCH[metric]) for metric in METRIC_NAMES} | {SATURATION: ("λ*", "as high")}
"""What a contrast compares, and how a multiple of it is called."""

QUESTIONS = {
    P95: "is faster",
    FIRST: "brings its first message sooner",
    GAP: "has the shorter gaps between messages",
    PER_CORE: "sends more messages for its CPU",
    PER_MESSAGE: "costs the client less CPU a message",
}
"""What an undecided contrast leaves open; of the other metrics, which arm has the higher one."""


def contrast_text(row: "pd.Series[Any]", arm: str = "", reference: str = "") -> str:
    """Return what a run says of one named contrast, as a sentence without a full stop.

    Args:
        row: of :func:`infscale.analysis.tables.contrasts.contrasts_table`.
        arm, reference: the names of the two arms; "" takes their labels.
    """
    arm, reference = quoted(arm or row["label"]), quoted(reference or row["reference_label"])
    what, much = QUANTITIES[row["metric"]]
    if not row["lifetimes"]:
        return f"{arm} and {reference} cannot be compared in {what}: no lifetime has a usable value of both"
    if row["answer"] == EQUAL:
        return f"{arm} and {reference} are {equal_text(row['metric'])} (ratio {number(row['ratio'])}, {_basis(row)})"
    if row["answer"] == DIFFERS:
        return f"{arm} {WORDS[row['metric'], row['ratio'] > 1]} {reference}: its {what} is {_times(row, much)}"
    question = QUESTIONS.get(row["metric"], f"has the higher {what}")
    would = f"would decide a ratio of {row['needed_ratio']:g}"
    needed = f"; {needed_text(row['needed'])} {would}" if np.isfinite(row["needed"]) else ""
    return f"undecided whether {arm} or {reference} {question} ({what} ratio {_ratio(row)}, {_basis(row)}{needed})"


def quoted(name: str) -> str:
    """Return the name of an arm as a sentence holds it: in quotation marks where it has a comma."""
    return f"“{name}”" if "," in name else name


def equal_text(metric: str) -> str:
    """Return what is said of two arms whose ratio lies within the margin of equality."""
    return f"equal within {100 * (MARGINS[metric] - 1):.0f} % in {QUANTITIES[metric][0]}"


def needed_text(least: float, most: float | None = None) -> str:
    """Return how many lifetimes would decide, as :func:`infscale.analysis.answers.needed` reckons: at most 1,000."""
    low, high = (f"{value:,.0f}" if value < 1000 else "more than 1,000" for value in (least, most or least))
    if least >= 1000:
        return f"{low} lifetimes"
    return f"about {low} lifetimes" if low == high else f"about {low} to {high} lifetimes"


def _times(row: "pd.Series[Any]", much: str) -> str:
    """Return how many times as long or as high, with its interval; where the ratio has no end, with what is known."""
    if np.isfinite(row["ratio"]) and row["ratio"] > 0:
        return f"{number(row['ratio'])} times {much} ({_basis(row)})"
    bound = f"at least {number(row['ratio_low'])}" if row["ratio"] > 1 else f"at most {number(row['ratio_high'])}"
    why = "one of them did not keep up" if row["metric"] in TIMES else "one of them has no end"
    return f"{bound} times {much} (with 95 %; {why} in half of {_lifetimes(row)} or more)"


def _ratio(row: "pd.Series[Any]") -> str:
    return number(row["ratio"]) if np.isfinite(row["ratio"]) and row["ratio"] > 0 else "not known"


def _basis(row: "pd.Series[Any]") -> str:
    """Return the interval of a contrast, and on how many lifetimes it rests."""
    if np.isnan(row["ratio_low"]):
        return f"{_lifetimes(row)}, not looked at yet"
    differ = f"; its sessions differ: {row['sessions']}" if row["sessions"] else ""
    return f"{interval_text(row['ratio_low'], row['ratio_high'])}, {_lifetimes(row)}{differ}"


def _lifetimes(row: "pd.Series[Any]") -> str:
    return count(int(row["looked_at"] or row["lifetimes"]), "lifetime")


# ---------------------------------------------------------------------------------------- descriptions


def ratio_text(subject: str, estimate: Interval | None, other: str) -> str:
    """Return how a quantity compares with that of another arm: "its p95 response time is 1.3 times that of gRPC (…)".

    Args:
        subject: the quantity, as in "its p95 response time".
        estimate: their ratio; None where one of the two was not measured.
        other: what it is compared with, as in "that of gRPC".
    """
    if estimate is None or not np.isfinite(estimate.value):
        reason = "one of them was not measured" if estimate is None else _withheld(estimate.lifetimes)
        return f"{subject} cannot be compared with {other} ({reason})"
    known = np.isfinite(estimate.low)
    basis = interval_text(estimate.low, estimate.high) if known else _withheld(estimate.lifetimes)
    return f"{subject} is {number(estimate.value)} times {other} ({basis})"


def _withheld(lifetimes: int) -> str:
    """Return why so many lifetimes give no interval."""
    if lifetimes == 0:
        return "no lifetime has a usable value of both"
    if lifetimes < MIN_LIFETIMES:
        return f"only {count(lifetimes, 'lifetime')}; an interval needs {MIN_LIFETIMES}"
    return "in a lifetime one of them did not keep up, or kept up with every rate"


def saturation_text(arm: "pd.Series[Any]") -> str:
    """Return an arm's saturation rate with the verb: "is 1,000 requests/s (95 % interval 950 to 1,050, 7 lifetimes)".

    ``arm`` has the columns of ``Tables.arms``.
    """
    return f"is {saturation_range(arm)}"


def capacity_text(arm: "pd.Series[Any]") -> str:
    """Return an arm's rate at the SLO with the verb, as :func:`saturation_text` does; its run's design has an SLO."""
    own = pd.Series({as_saturation: arm[name] for as_saturation, name in CAPACITY_COLUMNS.items()})
    return f"is {saturation_range(own.fillna({'bound': '?'}), 'the SLO was kept at')}"


def saturation_range(arm: "pd.Series[Any]", kept: str = "it kept up with") -> str:
    """Return the same without the verb, for a table; ``kept`` says what was found of all rates, or of none."""
    value, low, high = number(arm["saturation_per_s"]), arm["low_per_s"], arm["high_per_s"]
    lifetimes = count(int(arm["saturation_lifetimes"]), "lifetime")
    match arm["bound"]:
        case "":
            known = low > 0 and np.isfinite(high)  # lifetimes that are all alike have no interval
            interval = f"{interval_text(low, high)}, {lifetimes}" if known else f"{lifetimes}, no interval"
            return f"{value} requests/s ({interval})"
        case "≥":
            return f"about {value} requests/s or more ({_some(arm)} {kept} every rate)"
        case "<":
            return f"below {value} requests/s ({_some(arm)} {kept} no rate)"
        case _:
            return "not defined for a closed loop" if arm.get("closed", False) else "unknown (no usable trial)"


def _some(arm: "pd.Series[Any]") -> str:
    """Return in how many of an arm's lifetimes something happened that happened in one or more."""
    lifetimes = int(arm["saturation_lifetimes"])
    return "in its only lifetime" if lifetimes == 1 else f"in at least one of {lifetimes} lifetimes"
