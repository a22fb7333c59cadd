"""From the rows of a run to one row per trial, and to the distributions that an ECDF is drawn from.

Times are in ms, rates per second; every percentile ``x`` has a column ``x_bound``: true where the value is a
lower bound.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infscale.components import PARTS
from infscale.errors import DataError
from infscale.estimates import Times
from infscale.runs import Run, Trial
from infscale.samples import NEVER
from infscale.validity import FIRST_PART, INVALID, VALID, judge, trials_of_grid

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
BOUNDARIES = ("response", "roundtrip")
ARM = ["run_id", "framework", "implementation", "label", "protocol"]
POINT = [*ARM, "rate_per_s"]

COLUMNS = ("scheduled_ns", "due_ns", "sent_ns", "done_ns", "status")


def metric(boundary: str, quantile: str) -> str:
    """The column of a percentile: ``metric("response", "p95")`` is ``response_p95_ms``."""
    return f"{boundary}_{quantile}_ms"


METRICS = tuple(metric(boundary, quantile) for boundary in BOUNDARIES for quantile in QUANTILES)


def trials_table(run: Run, slo_ms: float = 100.0) -> pd.DataFrame:
    """One row per attempted trial of a run, pilot included.

    Verdicts are judged anew from the rows, so that a stored run follows the rules of this program;
    ``verdict_stored`` is what was found when it was measured. ``slo_ms`` is the limit of response time that
    goodput counts.

    Raises:
        DataError: the run has no trial.
    """
    if not run.trials:
        raise DataError(f"{run.folder} holds no finished trial")
    grid = trials_of_grid(run.manifest)
    rows = [_trial_row(run, trial, grid, slo_ms) for trial in run.trials]
    return pd.DataFrame(rows)


def _trial_row(run: Run, trial: Trial, grid: int, slo_ms: float) -> dict[str, Any]:
    manifest, samples = trial.manifest, trial.samples(COLUMNS)
    verdict = judge(samples, manifest, grid)
    copied = ("framework", "implementation", "protocol", "encoding", "model", "batch", "phase", "rate_per_s")
    return {
        "run_id": run.id,
        "trial_id": manifest["trial_id"],
        "label": run.label(manifest["implementation"]),
        **{key: manifest[key] for key in (*copied, "replicate", "attempt", "duration_s", "timeout_s", "started_at")},
        "verdict": verdict.verdict,
        "reasons": " ".join(verdict.reasons),
        "verdict_stored": (manifest.get("verdict") or {}).get("verdict", ""),
        "scheduled": len(samples),
        "failed": sum(verdict.errors.values()),
        "errors": json.dumps(verdict.errors),
        **_costs(manifest, len(samples)),
        **{f"mean_{part}_ms": manifest.get("components", {}).get(part, float("nan")) for part in (*PARTS, "response")},
        **measures(samples, manifest["duration_s"], manifest["timeout_s"], slo_ms),
    }


def _costs(manifest: Mapping[str, Any], requests: int) -> dict[str, Any]:
    """What the trial cost the generator, and the state of its host."""
    engine, host = manifest["engine"], manifest["host"]
    return {
        "engine_cpu_us_per_request": 1e6 * engine["cpu_s"] / requests if requests else float("nan"),
        "engine_cpu_share": engine["cpu_s"] / engine["wall_s"],
        "connections": (manifest.get("arm") or {}).get("connections"),
        "connections_opened": engine.get("connections_opened"),
        "same_host": host.get("same_host"),
        "pinned": host.get("pinned"),
        "loadavg_1m": host.get("loadavg_1m"),
        "steal_fraction": host.get("steal_fraction"),
    }


def measures(samples: pd.DataFrame, duration_s: float, timeout_s: float, slo_ms: float) -> dict[str, Any]:
    """Rates and percentiles of one trial, of the requests scheduled after its first 10 %.

    Rates count what happened within that window; ``n`` is how many requests the percentiles rest on.
    """
    start, end = FIRST_PART * duration_s * 1e9, duration_s * 1e9
    window_s = (end - start) / 1e9
    ok, done = samples["status"] == "ok", samples["done_ns"]
    finished = ok & (done >= start) & (done < end)
    in_time = finished & (done - samples["scheduled_ns"] <= slo_ms * 1e6)
    kept = samples[samples["scheduled_ns"] >= start]
    return {
        "slo_ms": slo_ms,
        "n": len(kept),
        "offered_per_s": len(kept) / window_s,
        "achieved_per_s": float(finished.sum()) / window_s,
        "goodput_per_s": float(in_time.sum()) / window_s,
        **_percentiles(kept, timeout_s * 1e3),
    }


def _percentiles(kept: pd.DataFrame, limit_ms: float) -> dict[str, Any]:
    """Response and round-trip percentiles with their bounds, those of successes alone, lag and wait."""
    ok = (kept["status"] == "ok").to_numpy()
    timeouts = int((kept["status"] == "timeout").sum())
    failures = len(kept) - int(ok.sum()) - timeouts
    scheduled, due, sent, done = (kept[name].to_numpy(dtype=np.float64) / 1e6 for name in COLUMNS[:4])
    successes = {"response": (done - scheduled)[ok], "roundtrip": (done - sent)[ok]}
    row: dict[str, Any] = {}
    for boundary, values in successes.items():
        every = Times(values, timeouts, failures, limit_ms)
        alone = Times(values)
        for name, p in QUANTILES.items():
            found = every.percentile(p)
            row[metric(boundary, name)] = found.value
            row[metric(boundary, name) + "_bound"] = found.bound
            row[metric(f"{boundary}_ok", name)] = alone.percentile(p).value
    was_due, was_sent = (kept[name].to_numpy() != NEVER for name in ("due_ns", "sent_ns"))
    lag, wait = Times((due - scheduled)[was_due]), Times((sent - due)[was_due & was_sent])
    row["lag_p50_ms"], row["lag_p99_ms"] = lag.percentile(0.50).value, lag.percentile(0.99).value
    row["wait_p99_ms"] = wait.percentile(0.99).value
    return row


def used(trials: pd.DataFrame) -> pd.DataFrame:
    """One attempt of every grid trial: the last that is not INVALID, else the last."""
    grid = trials[trials["phase"] == "grid"].assign(sound=lambda t: t["verdict"] != INVALID)
    ordered = grid.sort_values(["sound", "attempt"], kind="stable")
    return ordered.groupby([*POINT, "replicate"], sort=True).tail(1).drop(columns="sound").sort_index()


def distributions_table(run: Run, trials: pd.DataFrame, rates: Mapping[str, float], marks: int = 400) -> pd.DataFrame:
    """Response times at one rate per implementation, VALID replicates pooled: what an ECDF is drawn from.

    At most ``marks`` evenly spaced order statistics stand for the ``n`` pooled requests of an arm; a request
    that did not succeed is +∞.
    """
    stored = {trial.manifest["trial_id"]: trial for trial in run.trials}
    frame = used(trials)
    chosen = frame[(frame["verdict"] == VALID) & (frame["implementation"].map(dict(rates)) == frame["rate_per_s"])]
    parts = []
    for key, group in chosen.groupby(POINT):
        pooled = np.sort(np.concatenate([_responses(stored[name]) for name in group["trial_id"]]))
        ranks = np.unique(np.linspace(0, len(pooled) - 1, min(marks, len(pooled))).round().astype(int))
        arm = dict(zip(POINT, key, strict=True)) | {"n": len(pooled), "replicates": len(group)}
        parts.append(pd.DataFrame({**arm, "response_ms": pooled[ranks]}))
    empty = pd.DataFrame(columns=[*POINT, "n", "replicates", "response_ms"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _responses(trial: Trial) -> NDArray[np.float64]:
    """Response times in ms after the first 10 %, +∞ where a request did not succeed."""
    rows = trial.samples(("scheduled_ns", "done_ns", "status"))
    rows = rows[rows["scheduled_ns"] >= FIRST_PART * trial.manifest["duration_s"] * 1e9]
    response = (rows["done_ns"] - rows["scheduled_ns"]).to_numpy() / 1e6
    return np.where(rows["status"] == "ok", response, np.inf)
