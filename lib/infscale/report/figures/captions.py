"""Sentences that captions share: how many replicates and requests a figure rests on, and what its marks mean."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from infscale.analysis.intervals import EXPLORATORY_BELOW, MIN_REPLICATES
from infscale.records.gate import SATURATED, VALID
from infscale.records.gates.server import FIRST_PART
from infscale.vocabulary import NAMES


def basis(points: pd.DataFrame) -> str:
    """Return how many replicates and requests each point rests on."""
    cut = f"warm-up cut by MSER; of a trial that is not VALID, the first {100 * FIRST_PART:.0f} % are cut"
    return f"Each point: {replicates(points['replicates'])}, n = {span(points['n'])} requests ({cut})."


def replicates(counts: "pd.Series[int]") -> str:
    """Return the number of replicates, and whether it allows intervals."""
    low, high = int(counts.min()), int(counts.max())
    text = f"{low} replicate{'s' if low != 1 else ''}" if low == high else f"{low} to {high} replicates"
    if low < MIN_REPLICATES:
        return f"{text}, no interval below {MIN_REPLICATES}"
    return f"{text}, exploratory" if low < EXPLORATORY_BELOW else text


def span(values: "pd.Series[int]") -> str:
    """Return the least and the largest of some counts: "4,916", or "3,100 to 4,916"."""
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def sizes(distributions: pd.DataFrame) -> str:
    """Return the number of requests in each distribution that is drawn."""
    first = distributions.drop_duplicates("arm")
    counts = by_system(first, lambda row: f"{NAMES[row['protocol']]} {row['n']:,}")
    return f"Requests: {counts} ({replicates(first['replicates'])}, pooled)."


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
    text = "Hollow grey marks are not VALID: SATURATED (the server did not keep up"
    if arrows and (points["verdict"] == SATURATED).any():
        text += "; arrows: a lower bound, because the value grows with the length of the trial"
    return f"{text}) or INVALID (the load generator or the host failed)."
