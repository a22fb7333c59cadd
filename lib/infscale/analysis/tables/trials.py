"""From the rows of a run to one row per trial.

Times are in ms, rates per second; every percentile ``x`` has a column ``x_bound``: true where the value is a
lower bound.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infscale.analysis.percentiles import early_stopping, trial_times
from infscale.analysis.warm_up import quantiles, warm_up
from infscale.errors import DataError
from infscale.records.components import PARTS
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.generator_gates import gaps_distance
from infscale.records.runs import Run, Trial, trials_of_grid
from infscale.records.samples import NEVER
from infscale.records.server_gates import FIRST_PART
from infscale.records.verdict import judge

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
BOUNDARIES = ("response", "roundtrip")
ARM = ["run_id", "framework", "implementation", "label", "protocol"]
POINT = [*ARM, "rate_per_s"]

Floats = NDArray[np.float64]

COLUMNS = ("scheduled_ns", "due_ns", "sent_ns", "done_ns", "status", "bytes_out", "bytes_in")


def metric(boundary: str, quantile: str) -> str:
    """The column of a percentile: ``metric("response", "p95")`` is ``response_p95_ms``."""
    return f"{boundary}_{quantile}_ms"


METRICS = tuple(metric(boundary, quantile) for boundary in BOUNDARIES for quantile in QUANTILES)


def trials_table(run: Run, slo_ms: float = 100.0) -> pd.DataFrame:
    """One row per attempted trial of a run, pilot included.

    Verdicts are judged anew from the rows, so that a stored run follows the rules of this program;
    ``verdict_stored`` is what was found when it was measured. Percentiles rest on what came after ``warm_up_s``, the
    same for all arms of a (replicate, λ); where ``steady`` is false they are withheld. ``slo_ms`` is the limit of
    response time that goodput counts.

    Raises:
        DataError: the run has no trial.
    """
    if not run.trials:
        raise DataError(f"{run.folder} holds no finished trial")
    grid = trials_of_grid(run.manifest)
    table = with_warm_up(pd.DataFrame([_judged(run, trial, grid) for trial in run.trials]))
    starts = table[["duration_s", "timeout_s", "warm_up_s", "steady"]].to_dict("records")
    measured = [
        measures(trial.samples(COLUMNS), start["duration_s"], start["timeout_s"], slo_ms, start["warm_up_s"])
        for trial, start in zip(run.trials, starts, strict=True)
    ]
    table = pd.concat([table, pd.DataFrame(measured)], axis=1)
    withheld = [name for name in table if isinstance(name, str) and re.fullmatch(r"(response|roundtrip)_.*_ms", name)]
    table.loc[~table["steady"], withheld] = np.nan
    return table


def _judged(run: Run, trial: Trial, grid: int) -> dict[str, Any]:
    manifest, samples = trial.manifest, trial.samples(COLUMNS)
    verdict = judge(samples, manifest, grid)
    gates = {gate.name: gate for gate in verdict.gates}
    copied = ("framework", "implementation", "protocol", "encoding", "model", "batch", "phase", "rate_per_s")
    return {
        "run_id": run.id,
        "trial_id": manifest["trial_id"],
        "label": run.label_of(manifest),
        "block": manifest.get("block") or manifest["implementation"],
        **{key: manifest[key] for key in (*copied, "replicate", "attempt", "duration_s", "timeout_s", "started_at")},
        "verdict": verdict.verdict,
        "reasons": " ".join(verdict.reasons),
        "verdict_stored": (manifest.get("verdict") or {}).get("verdict", ""),
        "scheduled": len(samples),
        "failed": sum(verdict.errors.values()),
        "errors": json.dumps(verdict.errors),
        "dispersion_difference": gates["arrivals"].value,
        "gaps_distance": gaps_distance(samples),
        "ceiling_share": gates["ceiling"].value,
        **_bytes(samples),
        "hit_ratio": _hit_ratio(manifest.get("cache") or {}),
        **_costs(manifest, len(samples)),
        **{f"mean_{part}_ms": manifest.get("components", {}).get(part, float("nan")) for part in (*PARTS, "response")},
        "own_warm_up_s": own_warm_up_s(samples, manifest["duration_s"]),
    }


def _hit_ratio(cache: Mapping[str, float]) -> float:
    """Hits ÷ look-ups of a trial; NaN where nothing was looked up."""
    hits, misses = cache.get("hits", 0.0), cache.get("misses", 0.0)
    return hits / (hits + misses) if hits + misses else float("nan")


def own_warm_up_s(samples: pd.DataFrame, duration_s: float) -> float:
    """Seconds from the start of a trial until its response time is steady; ∞ when it never is."""
    ended = samples[samples["done_ns"] != NEVER]
    if not ended["scheduled_ns"].is_monotonic_increasing:
        ended = ended.sort_values("scheduled_ns", kind="stable")
    response = (ended["done_ns"] - ended["scheduled_ns"]).to_numpy()
    cut = warm_up(np.maximum(response, 1))
    if cut == len(response):
        return float("inf") if cut else 0.0
    return float(ended["scheduled_ns"].iloc[cut]) / 1e9 if cut else 0.0


def with_warm_up(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with ``warm_up_s`` and ``steady``, one cut for the arms of each (replicate, λ).

    It is the largest over those that are VALID and became steady, so that arms stay paired; one that never did is
    withheld alone (docs/decisions/0009-warm-up.md). SATURATED and INVALID trials have no steady part to look for: they
    are cut at the tenth that the rule of growth leaves out too.
    """
    valid = table["verdict"] == VALID
    steady = ~(valid & np.isinf(table["own_warm_up_s"]))
    keys = ["phase", "block", "rate_per_s", "replicate"]
    cut = table[valid & steady].groupby(keys)["own_warm_up_s"].transform("max").reindex(table.index)
    return table.assign(warm_up_s=cut.where(valid & steady, FIRST_PART * table["duration_s"]), steady=steady)


def _bytes(samples: pd.DataFrame) -> dict[str, float]:
    """Bytes on the wire of a request and of its answer, framing included: means of the successes; NaN if not seen."""
    ok = samples[samples["status"] == "ok"]
    seen = {name: ok[name].where(ok[name] != NEVER) for name in ("bytes_out", "bytes_in")}
    return {name: float(values.mean()) for name, values in seen.items()}


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


def measures(
    samples: pd.DataFrame, duration_s: float, timeout_s: float, slo_ms: float, warm_up_s: float | None = None
) -> dict[str, Any]:
    """Rates and percentiles of one trial, from its rows after the warm-up (10 % of the trial if None).

    Rates are of the window from there to the end of the arrivals: ``offered_per_s`` counts the schedule,
    ``achieved_per_s`` the successes that finished in it, ``goodput_per_s`` those of them within ``slo_ms``;
    ``n`` is how many requests the percentiles rest on. ``slo_passed``: p99 lies within ``slo_ms`` by MLPerf's rule of
    early stopping (a diagnostic: it takes requests for independent).
    """
    start = (FIRST_PART * duration_s if warm_up_s is None else warm_up_s) * 1e9
    end = duration_s * 1e9
    window_s = (end - start) / 1e9
    ok, done = samples["status"] == "ok", samples["done_ns"]
    finished = ok & (done >= start) & (done < end)
    in_time = finished & (done - samples["scheduled_ns"] <= slo_ms * 1e6)
    kept = samples[samples["scheduled_ns"] >= start]
    if not kept["scheduled_ns"].is_monotonic_increasing:  # several shards
        kept = kept.sort_values("scheduled_ns", kind="stable")
    over = len(kept) - int((kept["status"].eq("ok") & (kept["done_ns"] - kept["scheduled_ns"] <= slo_ms * 1e6)).sum())
    return {
        "slo_ms": slo_ms,
        "slo_passed": early_stopping(len(kept), over),
        "n": len(kept),
        "offered_per_s": len(kept) / window_s,
        "achieved_per_s": float(finished.sum()) / window_s,
        "goodput_per_s": float(in_time.sum()) / window_s,
        **_percentiles(kept, timeout_s * 1e3),
    }


def _percentiles(kept: pd.DataFrame, limit_ms: float) -> dict[str, Any]:
    """Response and round-trip percentiles with their bounds, those of successes alone, lag and wait."""
    times = trial_times(kept, limit_ms)
    row: dict[str, Any] = {}
    for boundary in BOUNDARIES:
        for name, p in QUANTILES.items():
            percentile = times[boundary].percentile(p)
            row[metric(boundary, name)] = percentile.value
            row[metric(boundary, name) + "_bound"] = percentile.bound
            row[metric(f"{boundary}_ok", name)] = times[f"{boundary}_ok"].percentile(p).value
    ok, response = kept["status"] == "ok", (kept["done_ns"] - kept["scheduled_ns"]) / 1e6
    row |= _within(np.where(ok, response, np.where(kept["status"] == "timeout", limit_ms, np.inf)))
    successes = times["response_ok"].ordered
    row["response_mean_ms"] = float(np.mean(successes)) if len(successes) else float("nan")
    row["lag_p50_ms"], row["lag_p99_ms"] = (times["lag"].percentile(p).value for p in (0.50, 0.99))
    row["wait_p99_ms"] = times["wait"].percentile(0.99).value
    return row


def _within(response_ms: Floats) -> dict[str, Any]:
    """The interval of each percentile within the trial (a diagnostic), and how many independent requests n is worth.

    ``…_below_floor`` is true where n_eff is too small for the interval to have an upper end.
    """
    row: dict[str, Any] = {}
    for name, found in zip(QUANTILES, quantiles(response_ms, list(QUANTILES.values())), strict=True):
        column = metric("response", name)
        row |= {f"{column}_in_low": found.low, f"{column}_in_high": found.high, f"{column}_n_eff": found.n_eff}
        row[f"{column}_below_floor"] = bool(np.isnan(found.high))
    return row


def comparable(trials: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of :func:`used` whose ``name`` may enter a ratio: VALID, steady, not a bound.

    None of a point where any replicate was SATURATED: the others alone would be the kind ones.
    """
    frame = used(trials)
    spoiled = (frame["verdict"] == SATURATED).groupby([frame[key] for key in POINT]).transform("any")
    known = np.isfinite(frame[name].astype(float)) & ~frame[f"{name}_bound"].astype(bool)
    return frame[(frame["verdict"] == VALID) & frame["steady"].astype(bool) & ~spoiled & known]


def used(trials: pd.DataFrame) -> pd.DataFrame:
    """One attempt of every grid trial: the last that is not INVALID, else the last."""
    grid = trials[trials["phase"] == "grid"].assign(sound=lambda t: t["verdict"] != INVALID)
    ordered = grid.sort_values(["sound", "attempt"], kind="stable")
    return ordered.groupby([*POINT, "replicate"], sort=True).tail(1).drop(columns="sound").sort_index()
