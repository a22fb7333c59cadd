"""Whole distributions of response times, and of gaps between messages, in numbers few enough to be stored."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from infscale.analysis.intervals import NOTHING
from infscale.analysis.percentiles import pooled_percentile
from infscale.analysis.streams import stream_times
from infscale.analysis.tables.points import FEW, P99_INDEPENDENT, P99_REQUESTS
from infscale.analysis.tables.trials import POINT, STREAM_COLUMNS, identified, metric, used
from infscale.records.gate import VALID, Floats
from infscale.records.runs import Run, Trial

EVEN, TAIL = 200, 100
COLUMNS = ("scheduled_ns", "done_ns", "status")
DISTRIBUTION_COLUMNS = ["rate_per_s", "n", "lifetimes", "common", "level", "response_ms"]
"""The columns of :func:`distributions_table` beside those that identify the arm."""

GAP_COLUMNS = ["rate_per_s", "n", "lifetimes", "common", "level", "gap_ms"]
"""The columns of :func:`gaps_table` beside those that identify the arm."""

Pools = dict[tuple[int, float], list[Floats]]
"""Response times (ms) of the VALID points, by arm and rate: an array for each lifetime, sorted, of shape (n,). +∞ for a
request that did not succeed."""


def pools(run: Run, trials: pd.DataFrame, points: pd.DataFrame) -> Pools:
    """Return the response times of every VALID point after the warm-up of each trial."""
    stored = {trial.manifest.trial_id: trial for trial in run.trials}
    valid = points.loc[points["verdict"] == VALID, POINT]
    chosen = used(trials[trials["verdict"] == VALID]).merge(valid, on=POINT)
    found: Pools = {}
    for row in chosen.to_dict("records"):
        start, response = _responses(stored[row["trial_id"]])
        key = int(row["arm"]), float(row["rate_per_s"])
        found.setdefault(key, []).append(np.sort(response[start >= row["warm_up_s"]]))
    return dict(sorted(found.items()))


def distributions_table(pooled: Pools, points: pd.DataFrame, rates: Mapping[int, float]) -> pd.DataFrame:
    """Return response times (ms) of every VALID point, lifetimes pooled, at levels that an ECDF is drawn from.

    ``level`` is the share of requests at or below ``response_ms``: 200 even levels and up to 100 more towards the
    largest of the ``n`` requests, on a log scale. A request that did not succeed is +∞. ``common`` marks the one λ per
    block of ``rates`` at which arms are compared.
    """
    blocks = dict(zip(points["arm"], points["block"], strict=True))
    parts = []
    for (arm, rate), times in pooled.items():
        stored = np.sort(np.concatenate(times))
        levels = _levels(len(stored))
        ranks = np.clip(np.ceil(levels * len(stored)).astype(int) - 1, 0, len(stored) - 1)
        common = rates.get(int(blocks[arm])) == rate
        point = {"arm": arm, "rate_per_s": rate, "n": len(stored), "lifetimes": len(times), "common": common}
        parts.append(pd.DataFrame({**point, "level": levels, "response_ms": stored[ranks]}))
    return identified(_joined(parts, DISTRIBUTION_COLUMNS), points)


def with_p99(points: pd.DataFrame, trials: pd.DataFrame, pooled: Pools) -> pd.DataFrame:
    """Return the points with the p99 response time of all requests of a VALID point, lifetimes pooled.

    One lifetime has too few requests for it. It needs :data:`P99_REQUESTS` of them in all, and
    :data:`P99_INDEPENDENT` independent ones; else it is withheld, with the reason in its ``_note``.
    """
    name = metric("response", "p99")
    independent = used(trials[trials["verdict"] == VALID]).groupby(POINT)[f"{name}_n_eff"].sum()
    rows = []
    for row in points.to_dict("records"):
        key = int(row["arm"]), float(row["rate_per_s"])
        if key in pooled:
            known = sum(map(len, pooled[key])) >= P99_REQUESTS and independent.loc[key] >= P99_INDEPENDENT
            one = pooled_percentile(pooled[key], 0.99) if known else NOTHING
            bound = bool(np.isinf(one.value))
            every = np.concatenate(pooled[key])
            value = float(np.max(every, initial=np.nan, where=np.isfinite(every))) if bound else one.value
            row |= {name: value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_bound": bound}
            row[f"{name}_note"] = FEW if not known else "a lower bound" if bound else ""
            row[f"{name}_below_floor"] = False
        rows.append(row)
    return pd.DataFrame(rows, columns=points.columns).astype(points.dtypes).copy()  # in one piece


def gaps_table(run: Run, trials: pd.DataFrame, points: pd.DataFrame, rates: Mapping[int, float]) -> pd.DataFrame:
    """Return the gaps between messages (ms) of the VALID points at the rates of ``rates``, lifetimes pooled.

    ``level`` is the share of the ``n`` gaps at or below ``gap_ms``, as in
    :func:`distributions_table`; a message that came in one read with the one
    before has a gap of 0. Empty of runs without streams. ``common`` is true of every row.
    """
    stored = {trial.manifest.trial_id: trial for trial in run.trials if trial.manifest.messages is not None}
    at = points["rate_per_s"] == points["block"].map(dict(rates))
    valid = points.loc[at & (points["verdict"] == VALID), POINT]
    chosen = used(trials[trials["verdict"] == VALID]).merge(valid, on=POINT)
    found: dict[tuple[int, float], list[Floats]] = {}
    for row in chosen.to_dict("records"):
        gaps = _gaps(stored[row["trial_id"]], row["warm_up_s"]) if row["trial_id"] in stored else np.array([])
        if len(gaps):
            found.setdefault((int(row["arm"]), float(row["rate_per_s"])), []).append(gaps)
    parts = []
    for (arm, rate), gaps_ms in sorted(found.items()):
        every = np.sort(np.concatenate(gaps_ms))
        levels = _levels(len(every))
        ranks = np.clip(np.ceil(levels * len(every)).astype(int) - 1, 0, len(every) - 1)
        point = {"arm": arm, "rate_per_s": rate, "n": len(every), "lifetimes": len(gaps_ms), "common": True}
        parts.append(pd.DataFrame({**point, "level": levels, "gap_ms": every[ranks]}))
    return identified(_joined(parts, GAP_COLUMNS), points)


def _gaps(trial: Trial, warm_up_s: float) -> Floats:
    """Return the gaps between the messages of a trial's streams after its warm-up, ascending, ms."""
    messages = trial.chunks()
    if messages is None:
        return np.array([])
    samples = trial.samples(STREAM_COLUMNS)
    kept = samples[samples["scheduled_ns"] >= warm_up_s * 1e9]
    return stream_times(kept, messages, trial.manifest.timeout_s * 1e3).gaps_ms


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
