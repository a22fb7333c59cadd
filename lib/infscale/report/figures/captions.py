"""Sentences that captions share: how many lifetimes and requests a figure rests on, and what its marks mean."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from infscale.analysis.intervals import MIN_LIFETIMES
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID
from infscale.records.gates.server import FIRST_PART
from infscale.vocabulary import NAMES


def basis(points: pd.DataFrame) -> str:
    """Return how many lifetimes and requests each point rests on."""
    cut = f"warm-up cut by MSER; of a trial that is not VALID, the first {100 * FIRST_PART:.0f} % are cut"
    return f"Each point: {lifetimes(points['lifetimes'])}, n = {span(points['n'])} requests ({cut})."


def lifetimes(counts: "pd.Series[int]") -> str:
    """Return the number of lifetimes, and whether it allows intervals."""
    low, high = int(counts.min()), int(counts.max())
    text = f"{low} lifetime{'s' if low != 1 else ''}" if low == high else f"{low} to {high} lifetimes"
    if low < MIN_LIFETIMES:
        return f"{text}, no interval below {MIN_LIFETIMES}"
    return text


def span(values: "pd.Series[int]") -> str:
    """Return the least and the largest of some counts: "4,916", or "3,100 to 4,916"."""
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def sizes(distributions: pd.DataFrame) -> str:
    """Return the number of requests in each distribution that is drawn."""
    first = distributions.drop_duplicates("arm")
    counts = by_system(first, lambda row: f"{NAMES[row['protocol']]} {row['n']:,}")
    return f"Requests: {counts} ({lifetimes(first['lifetimes'])}, pooled)."


def by_system(table: pd.DataFrame, describe: "Callable[[pd.Series[Any]], str]") -> str:
    """Return a description of each row, gathered by serving system: "Triton: REST 12, gRPC 15; TorchServe: …"."""
    return "; ".join(
        f"{system}: {', '.join(describe(row) for _, row in rows.iterrows())}"
        for system, rows in table.groupby("system", sort=False)
    )


def not_valid(points: pd.DataFrame, *, arrows: bool = False) -> str:
    """Return what hollow marks mean; with ``arrows``, what those arrows mean that stand on SATURATED points."""
    if (points["verdict"] == VALID).all():
        return "Every point is VALID."
    bound = "; arrows: a lower bound, because the value grows with the length of the trial" if arrows else ""
    meanings = {
        SATURATED: f"the server did not keep up{bound}",
        UNSTEADY: "the response time did not settle",
        INVALID: "the load generator or the host failed",
    }
    texts = [f"{verdict} ({text})" for verdict, text in meanings.items() if (points["verdict"] == verdict).any()]
    return f"Hollow grey marks are not VALID: {' or '.join(texts)}."
