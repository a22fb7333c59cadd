"""One row for each trial of a run.

Times are in ms, rates per second. Every percentile ``x`` has a column ``x_bound``: true where the value is a lower
bound.
"""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from infscale.analysis.dependence import quantiles
from infscale.analysis.percentiles import Times, early_stopping, fewest_queries, trial_times
from infscale.analysis.streams import stream_times
from infscale.errors import DataError
from infscale.experiment.design.arm import CLIENTS, FACTORS, IMPORTED, Arm
from infscale.records.components import PARTS
from infscale.records.gate import COALESCED, INVALID, SATURATED, UNSTEADY, VALID, Floats, Verdict
from infscale.records.gates.generator import gaps_distance
from infscale.records.gates.late import late_share
from infscale.records.gates.server import FIRST_PART
from infscale.records.gates.verdict import judge_trial
from infscale.records.manifest import PERCENTILES, Reported, TrialManifest, nan_if_none
from infscale.records.runs import Run, Trial
from infscale.records.samples import NEVER
from infscale.records.usage import CLIENT, HOST

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
"""Percentiles of every trial, by name."""
BOUNDARIES = ("response", "roundtrip")
"""Response time (from the scheduled time) and round-trip time (from sending)."""
LOADGEN = tuple(name for name, client in CLIENTS.items() if client.tool == "loadgen")
"""Clients whose percentiles have LoadGen's floor."""
AT_ONCE = tuple(name for name, client in CLIENTS.items() if client.at_once)
"""Clients that schedule all requests at the start of a trial."""
POINT = ["arm", "rate_per_s"]
"""What tells the points of a curve apart."""
IDENTITY = ["run_id", "arm", "block", "label", "system", "implementation", *FACTORS, "closed"]
"""What every table with a row for an arm says of it: its number, the number of the arm that it is compared with, its
label (for display alone), the name and the identifier of what answered, every factor, and whether it is a closed loop,
which follows from the client."""
COLUMNS = ("scheduled_ns", "due_ns", "sent_ns", "done_ns", "status", "bytes_out", "bytes_in")
"""The columns of the samples that are read; of streams those of :data:`STREAM_COLUMNS`, of a cluster ``shard`` too."""
STREAM_COLUMNS = (*COLUMNS, "sequence", "first_byte_ns")

Row = dict[str, object]


def metric(boundary: str, quantile: str) -> str:
    """Return the column of a percentile: ``metric("response", "p95")`` is ``response_p95_ms``."""
    return f"{boundary}_{quantile}_ms"


METRICS = tuple(metric(boundary, quantile) for boundary in BOUNDARIES for quantile in QUANTILES)
"""The columns of all percentiles."""
OF_SUCCESSES = tuple(metric(f"{boundary}_ok", quantile) for boundary in BOUNDARIES for quantile in QUANTILES)
"""The columns of the percentiles of successes alone."""
MESSAGES = ("first_message", "first_message_from_send", "gap")
"""Times of streams: to the first message, from the scheduled time and from the send; between messages."""
STREAM_METRICS = tuple(metric(time, quantile) for time in MESSAGES for quantile in QUANTILES)
"""The columns of their percentiles. Tables of runs without streams have none of them."""
WITHHELD = [*METRICS, *OF_SUCCESSES, "response_mean_ms"]
"""The columns that a trial without a steady part leaves empty, beside those of :data:`STREAM_METRICS`."""


def factors(arm: Arm) -> Row:
    """Return the columns of an arm's factors, and ``closed``; a number that is not set is NaN."""
    levels = {name: float("nan") if level is None else level for name, level in arm.levels().items()}
    return {**levels, "closed": arm.closed}


def trials_table(run: Run, slo_ms: float = 100.0) -> pd.DataFrame:
    """Return one row per attempted trial of a run, pilot included.

    Verdicts are judged anew from the rows, so that a stored run follows the rules of this program; of a trial without
    rows (:func:`infscale.records.pack.pack_copy`) the one of the measurement, ``verdict_stored``, stands. Percentiles
    rest on what came after ``warm_up_s``, the same for all arms of a (block, lifetime, λ); those of an UNSTEADY trial
    are withheld. ``slo_ms`` is the limit of response time that goodput counts.

    Raises:
        DataError: the run has no trial.
    """
    if not run.trials:
        raise DataError(f"{run.folder} holds no finished trial")
    table = with_warm_up(pd.DataFrame([_judged(run, trial) for trial in run.trials]))
    table["warm_up_s"] = table["warm_up_s"].mask(table["client"].isin(AT_ONCE), 0.0)  # all is scheduled at the start
    measured = []
    for trial, start_s in zip(run.trials, table["warm_up_s"], strict=True):
        samples, messages = _read(trial)  # read again: all may not fit memory
        row = measures(samples, _length_s(trial, samples), trial.manifest.timeout_s, slo_ms, start_s)
        if messages is not None:
            row |= messages_measures(samples, messages, trial.manifest, start_s)
        measured.append(row)
    table = pd.concat([table, pd.DataFrame(measured)], axis=1)
    own = [name for name in STREAM_METRICS if name in table]
    for name in own:
        table[f"{name}_bound"] = table[f"{name}_bound"].eq(True)  # of single replies beside streams nothing is known
    table.loc[table["verdict"] == UNSTEADY, [*WITHHELD, *own]] = np.nan
    return without_short_percentiles(table)


def _read(trial: Trial) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return a trial's rows, and its messages; None of replies that are no streams."""
    messages = trial.chunks()
    columns = COLUMNS if messages is None else STREAM_COLUMNS
    return trial.samples((*columns, "shard") if trial.manifest.generator.workers else columns), messages


def _length_s(trial: Trial, samples: pd.DataFrame) -> float:
    """Return the time over which a trial's rates are taken, s: of arrivals, or to the end where all come at once."""
    if trial.manifest.arm.client in AT_ONCE and len(samples):
        return float(samples["done_ns"].max()) / 1e9
    return trial.manifest.duration_s


def without_short_percentiles(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` without the percentiles that too few of LoadGen's queries are behind, and with ``floor_note``.

    LoadGen estimates a percentile only from :func:`infscale.analysis.percentiles.fewest_queries` queries on. The ones
    that its summary prints beside (``reported_…``) have no such floor there, and get the same one here.
    """
    loadgen, notes = table["client"].isin(LOADGEN), pd.Series("", table.index)
    for name, p in QUANTILES.items():
        floor = fewest_queries(p)
        own = [metric(boundary, name) for boundary in (*BOUNDARIES, *(f"{one}_ok" for one in BOUNDARIES))]
        short = loadgen & (table["n"] < floor)
        table.loc[short, own] = np.nan
        table.loc[short, [f"{metric(boundary, name)}_bound" for boundary in BOUNDARIES]] = False
        table.loc[loadgen & ~(table["reported_requests"] >= floor), f"reported_{name}_ms"] = np.nan
        notes[short] += f"{name} needs {floor} queries; "
    return table.assign(floor_note=notes.str.removesuffix("; "))


def identities(trials: pd.DataFrame) -> pd.DataFrame:
    """Return :data:`IDENTITY` of every arm that has a trial, by the number of the arm."""
    return trials.drop_duplicates("arm")[IDENTITY].sort_values("arm").reset_index(drop=True)


def identified(table: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Return ``table``, which has a column ``arm``, with :data:`IDENTITY` of each row's arm in front."""
    return table[["arm"]].merge(identities(trials), on="arm", how="left")[IDENTITY].join(table.drop(columns="arm"))


def _judged(run: Run, trial: Trial) -> Row:
    manifest, (samples, messages) = trial.manifest, _read(trial)
    verdict = judge_trial(samples, manifest, messages) if len(samples) else manifest.judged
    gates = {gate.name: gate.value for gate in verdict.gates}
    return {
        "run_id": run.id,
        "arm": manifest.arm_number,
        "block": manifest.block,
        "label": run.labels[manifest.arm_number],
        "system": run.system(manifest.implementation),
        "implementation": manifest.implementation,
        **factors(manifest.arm),
        "trial_id": manifest.trial_id,
        "phase": manifest.phase,
        "rate_per_s": manifest.rate_per_s,
        "lifetime": manifest.lifetime,
        "attempt": manifest.attempt,
        "duration_s": manifest.duration_s,
        "timeout_s": manifest.timeout_s,
        "started_at": manifest.started_at,
        "verdict": verdict.name,
        "reasons": " ".join(verdict.reasons),
        "verdict_stored": manifest.verdict.name if manifest.verdict else "",
        "scheduled": len(samples),
        "failed": sum(verdict.errors.values()),
        "finished_per_s": _finished_per_s(samples, manifest.duration_s),
        "errors": json.dumps(verdict.errors),
        "dispersion_difference": nan_if_none(gates["arrivals"]),
        "gaps_distance": gaps_distance(samples),
        "ceiling_share": nan_if_none(gates["ceiling"]),
        **_bytes(samples),
        "hit_ratio": _hit_ratio(manifest.cache),
        **_costs(manifest, len(samples)),
        **_components(manifest),
        **reported(manifest.generator.reported),
        "own_warm_up_s": nan_if_none(gates["steady"]) * manifest.duration_s,
        **_late(run, samples, manifest),
        **_coalesced(verdict),
    }


def _coalesced(verdict: Verdict) -> Row:
    """Return the share of messages that arrived together though sent apart, and whether it is too large.

    Nothing of replies that are no streams; NaN of streams that were not judged.
    """
    own = [gate for gate in verdict.gates if gate.name == COALESCED]
    return {"coalesced_share": nan_if_none(own[0].value), "coalesced": not own[0].passed} if own else {}


def _late(run: Run, samples: pd.DataFrame, manifest: TrialManifest) -> Row:
    """Return the share of late requests by the design's SLO, and whether it was kept; nothing without an SLO."""
    slo = run.manifest.design.objective
    if slo is None:
        return {}
    share = late_share(samples, slo.limit_ms, manifest.duration_s)
    return {"late_share": share, "slo_kept": share <= slo.late}


def _finished_per_s(samples: pd.DataFrame, duration_s: float) -> float:
    """Return the successes that finished within the arrivals, warm-up included, per second."""
    return float(((samples["status"] == "ok") & (samples["done_ns"] < duration_s * 1e9)).sum()) / duration_s


def _hit_ratio(cache: Mapping[str, float]) -> float:
    """Return hits ÷ look-ups of a trial; NaN where nothing was looked up."""
    hits, misses = cache.get("hits", 0.0), cache.get("misses", 0.0)
    return hits / (hits + misses) if hits + misses else float("nan")


def with_warm_up(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with ``warm_up_s``, one cut for the arms of each (block, lifetime, λ).

    It is the largest over those that are VALID, so that arms stay paired (docs/decisions/0009-warm-up.md). Trials that
    are not have no steady part to look for: they are cut at the tenth that the rule of growth leaves out too.
    """
    valid = table["verdict"] == VALID
    keys = ["phase", "block", "rate_per_s", "lifetime"]
    cut = table[valid].groupby(keys)["own_warm_up_s"].transform("max").reindex(table.index)
    return table.assign(warm_up_s=cut.where(valid, FIRST_PART * table["duration_s"]))


def _bytes(samples: pd.DataFrame) -> Row:
    """Return the mean bytes on the wire of a request and of its answer, framing included; NaN if not seen."""
    ok = samples[samples["status"] == "ok"]
    seen = {name: ok[name].where(ok[name] != NEVER) for name in ("bytes_out", "bytes_in")}
    return {name: float(values.mean()) for name, values in seen.items()}


def _costs(manifest: TrialManifest, requests: int) -> Row:
    """Return what the trial cost the generator, and the state of its host."""
    generator, host = manifest.generator, manifest.host
    cpu_s = float("nan") if generator.client in IMPORTED else generator.cpu_s  # a file of another tool has none
    return {
        "engine_cpu_us_per_request": 1e6 * cpu_s / requests if requests else float("nan"),
        "engine_cpu_share": cpu_s / generator.wall_s,
        "connections_opened": nan_if_none(generator.connections_opened),
        "same_host": host.same_host,
        "pinned": host.pinned,
        "loadavg_1m": nan_if_none(host.loadavg_1m),
        "steal_fraction": nan_if_none(host.steal_fraction),
    }


def reported(said: Reported | None) -> Row:
    """Return columns of what a load tool says of its own trial; NaN, and an empty text, where none says anything."""
    said = said or Reported(tool="")
    numbers = ("requests", *PERCENTILES, "throughput_per_s")
    verdict = {True: VALID, False: INVALID, None: ""}[said.valid]
    row: Row = {f"reported_{name}": nan_if_none(getattr(said, name)) for name in numbers}
    return {"reported_by": said.tool, "reported_verdict": verdict, "reported_unmet": " ".join(said.unmet), **row}


def _components(manifest: TrialManifest) -> Row:
    """Return the mean time of each part of a response, ms; NaN where the server reported none."""
    parts = manifest.components
    return {f"mean_{part}_ms": getattr(parts, part) if parts else float("nan") for part in (*PARTS, "response")}


def measures(
    samples: pd.DataFrame, duration_s: float, timeout_s: float, slo_ms: float, warm_up_s: float | None = None
) -> Row:
    """Return rates and percentiles of one trial, from its rows after the warm-up (10 % of the trial if None).

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


def messages_measures(samples: pd.DataFrame, chunks: pd.DataFrame, manifest: TrialManifest, warm_up_s: float) -> Row:
    """Return what one trial's streams brought, from its rows after the warm-up and their messages.

    Percentiles of the times to the first message and of the gaps, ms, each with its bound: of gaps there is none. The
    longest gap is ``stall_ms``; ``gaps`` is how many there are; ``messages_per_read`` and ``messages_together`` (the
    share that came in one read with the one before) tell how they arrived. Of the whole trial, warm-up included:
    ``messages_per_s`` that came within the arrivals; ``messages_per_core_s``, the same for a second of CPU of all
    processes of the deployment, NaN where that was not read; and ``client_cpu_us_per_message``.
    """
    kept = samples[samples["scheduled_ns"] >= warm_up_s * 1e9]
    times = stream_times(kept, chunks, manifest.timeout_s * 1e3)
    first, from_send = times.first, times.first_from_send
    row: Row = {}
    for name, own in zip(MESSAGES, (first, from_send, Times(times.gaps_ms)), strict=True):
        for quantile, p in QUANTILES.items():
            percentile = own.percentile(p)
            row |= {metric(name, quantile): percentile.value, f"{metric(name, quantile)}_bound": percentile.bound}
    within = int((chunks["at_ns"] < manifest.duration_s * 1e9).sum())
    cpu_s = _deployment_cpu_s(manifest)
    return row | {
        "gaps": len(times.gaps_ms),
        "stall_ms": float(times.stalls_ms[-1]) if len(times.stalls_ms) else float("nan"),
        "messages_per_read": times.per_read,
        "messages_together": times.together,
        "messages_per_s": within / manifest.duration_s,
        "messages_per_core_s": within / cpu_s if cpu_s > 0 else float("nan"),
        "client_cpu_us_per_message": 1e6 * manifest.generator.cpu_s / len(chunks) if len(chunks) else float("nan"),
    }


def _deployment_cpu_s(manifest: TrialManifest) -> float:
    """Return the CPU seconds of all processes but the client's within a trial's arrivals; NaN if they were not read."""
    own = [used for group, used in manifest.usage.items() if group not in (CLIENT, HOST)]
    seconds = [nan_if_none(one.cpu_user_s) + nan_if_none(one.cpu_system_s) for one in own]
    return sum(seconds) if seconds else float("nan")


def _percentiles(kept: pd.DataFrame, limit_ms: float) -> Row:
    """Return response and round-trip percentiles with their bounds, those of successes alone, lag and wait."""
    times = trial_times(kept, limit_ms)
    row: Row = {}
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


def _within(response_ms: Floats) -> Row:
    """Return each percentile's interval within the trial (a diagnostic), and how many independent requests n is worth.

    ``…_below_floor`` is true where n_eff is too small for the interval to have an upper end.
    """
    row: Row = {}
    for name, estimate in zip(QUANTILES, quantiles(response_ms, list(QUANTILES.values())), strict=True):
        column = metric("response", name)
        row |= {f"{column}_in_low": estimate.low, f"{column}_in_high": estimate.high}
        row |= {f"{column}_n_eff": estimate.n_eff, f"{column}_below_floor": bool(np.isnan(estimate.high))}
    return row


def comparable(trials: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of :func:`used` whose ``name`` may enter a ratio: VALID, not a bound.

    A point at which an arm did not keep up (:func:`kept_up`) is left out entirely: keeping only the lifetimes that did
    well would bias the ratio.
    """
    frame = used(trials)
    known = np.isfinite(frame[name].astype(float)) & ~frame[f"{name}_bound"].astype(bool)
    return frame[(frame["verdict"] == VALID) & kept_up(frame) & known]


def kept_up(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each trial whether its arm kept up with its rate: SATURATED in less than half of the usable trials."""
    usable = frame["verdict"] != INVALID
    saturated = (frame["verdict"] == SATURATED).where(usable)
    share = saturated.astype(float).groupby([frame[key] for key in POINT]).transform("mean")
    return ~(share >= 0.5)


def used(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one attempt of every trial at a set rate: the last that is neither INVALID nor UNSTEADY, else the last."""
    grid = trials[trials["phase"] == "grid"]
    ranked = grid.assign(rank=grid["verdict"].map(RANK)).sort_values(["rank", "attempt"], kind="stable")
    return ranked.groupby([*POINT, "lifetime"], sort=True).tail(1).drop(columns="rank").sort_index()


RANK = {INVALID: 0, UNSTEADY: 1, SATURATED: 2, VALID: 2}
"""Which attempt of a trial is used, by its verdict: that of the largest number."""
