"""Whole distributions of response times, in few enough numbers to be stored beside the other tables."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from infscale.analysis.tables.trials import POINT, identified, used
from infscale.records.gate import VALID, Floats
from infscale.records.runs import Run, Trial

EVEN, TAIL = 200, 100
COLUMNS = ("scheduled_ns", "done_ns", "status")
DISTRIBUTION_COLUMNS = ["rate_per_s", "n", "lifetimes", "common", "level", "response_ms"]
"""The columns of :func:`distributions_table` beside those that identify the arm."""


def distributions_table(
    run: Run, trials: pd.DataFrame, points: pd.DataFrame, rates: Mapping[int, float]
) -> pd.DataFrame:
    """Return response times (ms) of every VALID point, lifetimes pooled, at levels that an ECDF is drawn from.

    ``level`` is the share of requests at or below ``response_ms``: 200 even levels and up to 100 more towards the
    largest of the ``n`` requests, on a log scale. A request that did not succeed is +∞. ``common`` marks the one λ per
    block of ``rates`` at which arms are compared.
    """
    valid = points.loc[points["verdict"] == VALID, [*POINT, "block"]]
    chosen = used(trials[trials["verdict"] == VALID])
    parts = []
    for (arm, rate), group in chosen.merge(valid, on=[*POINT, "block"]).groupby(POINT):
        stored = _pooled(run, group)
        levels = _levels(len(stored))
        ranks = np.clip(np.ceil(levels * len(stored)).astype(int) - 1, 0, len(stored) - 1)
        common = rates.get(int(group["block"].iloc[0])) == rate
        point = {"arm": arm, "rate_per_s": rate, "n": len(stored), "lifetimes": len(group), "common": common}
        parts.append(pd.DataFrame({**point, "level": levels, "response_ms": stored[ranks]}))
    return identified(_joined(parts, DISTRIBUTION_COLUMNS), trials)


def _pooled(run: Run, group: pd.DataFrame) -> Floats:
    """Return the sorted response times of some trials after their warm-up, ms."""
    stored = {trial.manifest.trial_id: trial for trial in run.trials}
    parts: Iterator[Floats] = (
        response[start >= warm_up]
        for name, warm_up in zip(group["trial_id"], group["warm_up_s"], strict=True)
        for start, response in [_responses(stored[name])]
    )
    pooled: Floats = np.sort(np.concatenate(list(parts)))
    return pooled


def _joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    if parts:
        return pd.concat(parts, ignore_index=True)
    kinds = {"arm": int, **{name: bool if name == "common" else float for name in columns}}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


def _levels(n: int) -> Floats:
    even = np.arange(1, EVEN + 1) / EVEN
    tail = 1 - np.geomspace(0.02, 1 / n, TAIL) if n > 50 else np.array([])
    levels: Floats = np.unique(np.concatenate([even, tail]))
    return levels


def _responses(trial: Trial) -> tuple[Floats, Floats]:
    """Return scheduled times (s) and response times (ms; +∞ where a request did not succeed)."""
    rows = trial.samples(COLUMNS)
    response = (rows["done_ns"] - rows["scheduled_ns"]).to_numpy(dtype=np.float64) / 1e6
    scheduled = rows["scheduled_ns"].to_numpy(dtype=np.float64) / 1e9
    known: Floats = np.where(rows["status"] == "ok", response, np.inf)
    return scheduled, known
