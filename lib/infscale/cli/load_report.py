"""What ``infscale load`` found: numbers computed from rows, as JSON and as text.

A timeout counts as more than its limit and any other failure as +∞ in the percentiles of response and round-trip
time; those of successes alone stand beside them. A percentile beyond which less than one request is expected is
omitted.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.percentiles import Times
from infscale.records.gate import INVALID, SATURATED
from infscale.records.samples import NEVER
from infscale.records.gates.verdict import judge

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
TYPICAL = {"p50": 0.50, "p99": 0.99}


def summarise(samples: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is reported, of the rows after the warm-up; keys carry their units.

    A percentile is ``None`` where it is omitted (``omitted`` says why) and where it is infinite; ``bounds`` says
    what a percentile that never came about exceeds. Of an interrupted load, only rows whose outcome is known count:
    ``unsent`` and ``cut_off`` (in flight when it ended) are told apart.
    """
    rows, counts = _measured(samples, manifest)
    duration_s = max(1e-3, manifest["duration_s"] - manifest["warmup_s"])  # interrupted in the warm-up: no rows
    verdict = judge(rows, {**manifest, "duration_s": duration_s}, 1)
    ok = rows[rows["status"] == "ok"]
    finished = int((ok["done_ns"] < duration_s * 1e9).sum())
    return {
        **{key: manifest[key] for key in ("url", "arrivals", "rate_per_s", "seed", "warmup_s", "timeout_s")},
        "duration_s": duration_s,
        "requests": len(rows),
        "succeeded": len(ok),
        **counts,
        "errors": verdict.errors,
        "offered_per_s": len(rows) / duration_s,
        "achieved_per_s": finished / duration_s,
        **_percentiles(rows, manifest["timeout_s"] * 1e3),
        **_costs(samples, manifest["engine"]),
        "bytes_out": int(rows["bytes_out"].sum()),
        "bytes_in": int(rows["bytes_in"].sum()),
        "interrupted": manifest["interrupted"],
        "verdict": verdict.verdict,
        "verdict_text": _sentence(verdict.text, verdict.verdict),
        "gates": verdict.as_dict()["gates"],
    }


def _measured(samples: pd.DataFrame, manifest: Mapping[str, Any]) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows to judge, times counted from the end of the warm-up; and how many were left out, by reason."""
    warmup_ns = round(manifest["warmup_s"] * 1e9)
    warm = samples["scheduled_ns"] < warmup_ns
    unsent = samples["status"] == "unsent"
    gave_up = samples["done_ns"] - samples["scheduled_ns"] < manifest["timeout_s"] * 1e9
    cut_off = (samples["status"] == "timeout") & gave_up & bool(manifest["interrupted"])
    rows = samples[~(warm | unsent | cut_off)].copy()
    times = [name for name in rows.columns if name.endswith("_ns")]
    rows[times] = rows[times].where(rows[times] == NEVER, rows[times] - warmup_ns)
    left_out = {"warmup_requests": warm, "unsent": unsent & ~warm, "cut_off": cut_off & ~warm}
    return rows, {name: int(mask.sum()) for name, mask in left_out.items()}


def _costs(samples: pd.DataFrame, engine: Mapping[str, Any]) -> dict[str, Any]:
    """The generator's own costs, over warm-up and measured part, its start-up left out."""
    came_due = max(1, int((samples["due_ns"] != NEVER).sum()))
    return {
        "cpu_per_request_us": 1e6 * engine["cpu_s"] / came_due,
        "cpu_user_per_request_us": 1e6 * engine["cpu_user_s"] / came_due,
        "cpu_system_per_request_us": 1e6 * engine["cpu_system_s"] / came_due,
        "peak_memory_bytes": max(shard["peak_memory_bytes"] for shard in engine["shards"]),
        "connections_opened": engine["connections_opened"],
        "connections_lost": engine["connections_lost"],
        "connection_error": engine["error"],
    }


def _percentiles(rows: pd.DataFrame, limit_ms: float) -> dict[str, Any]:
    """Percentiles of every time in ms, with ``bounds`` and ``omitted``."""
    ok = (rows["status"] == "ok").to_numpy()
    timeouts = int((rows["status"] == "timeout").sum())
    failures = len(rows) - int(ok.sum()) - timeouts
    names = ("scheduled_ns", "due_ns", "sent_ns", "done_ns")
    scheduled, due, sent, done = (rows[name].to_numpy(dtype=np.int64) for name in names)
    was_due, was_sent = due != NEVER, sent != NEVER
    response, round_trip = (done - scheduled)[ok] / 1e6, (done - sent)[ok] / 1e6
    tables = [
        ("response_time", Times(response, timeouts, failures, limit_ms), QUANTILES),
        ("round_trip_time", Times(round_trip, timeouts, failures, limit_ms), QUANTILES),
        ("response_time_ok", Times(response), QUANTILES),
        ("round_trip_time_ok", Times(round_trip), QUANTILES),
        ("lag", Times((due - scheduled)[was_due] / 1e6), TYPICAL),
        ("wait", Times((sent - due)[was_due & was_sent] / 1e6), TYPICAL),
    ]
    found: dict[str, Any] = {}
    bounds: dict[str, str] = {}
    omitted: dict[str, str] = {}
    for name, times, quantiles in tables:
        for label, p in quantiles.items():
            key, percentile = f"{name}_{label}_ms", times.percentile(p)
            found[key] = percentile.value if math.isfinite(percentile.value) else None
            if percentile.bound:
                above = f"> {percentile.value:g}: a timeout" if found[key] is not None else "infinite: a failure"
                bounds[key] = above
            elif found[key] is None:
                omitted[key] = f"needs {_needed(p):,} requests, there are {times.n:,}"
    return {**found, "bounds": bounds, "omitted": omitted}


def _needed(p: float) -> int:
    """The fewest requests that carry a percentile: one is expected beyond it."""
    return math.ceil(1 / (1 - p) - 1e-6)


def _sentence(text: str, verdict: str) -> str:
    if verdict in (INVALID, SATURATED):
        return text
    return f"{text}: the generator kept its schedule, and the server kept up"


# ------------------------------------------------------------------------------------------------ forms


def as_json(found: Mapping[str, Any]) -> str:
    """One JSON object."""
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)


def as_text(found: Mapping[str, Any]) -> str:
    """For a terminal; the last line is the verdict."""
    rows = [("response time", "response_time"), ("round-trip time", "round_trip_time")]
    if found["errors"]:  # of successes alone
        rows[1:1] = [("  successes alone", "response_time_ok")]
        rows += [("  successes alone", "round_trip_time_ok")]
    rows += [("lag", "lag"), ("wait", "wait")]
    warm = f" after {found['warmup_s']:g} s of warm-up" if found["warmup_s"] else ""
    lines = [
        f"{found['url']}: {found['arrivals']}, {found['rate_per_s']:,.6g}/s for {found['duration_s']:.3g} s{warm}",
        "",
        f"{'ms':18}" + "".join(f"{label.replace('_', '.'):>12}" for label in QUANTILES),
        *(f"{title:18}" + "".join(_cell(found, f"{name}_{label}_ms") for label in QUANTILES) for title, name in rows),
        *_omitted(found),
        "",
    ]
    return "\n".join([*lines, *_facts(found), found["verdict_text"]])


def _cell(found: Mapping[str, Any], key: str) -> str:
    if key not in found:
        return " " * 12
    value = found[key]
    if key in found["bounds"]:
        return f"{'∞' if value is None else f'>{value:,.0f}':>12}"
    return f"{'–' if value is None else f'{value:,.3f}':>12}"


def _omitted(found: Mapping[str, Any]) -> list[str]:
    """Why there are gaps in the table: how many requests, or successes, each percentile needs."""
    needs = [
        f"{label.replace('_', '.')} needs {_needed(p):,}"
        for label, p in QUANTILES.items()
        if any(key.endswith(f"_{label}_ms") for key in found["omitted"])
    ]
    return [f"– omitted, for want of requests: {', '.join(needs)}"] if needs else []


def _facts(found: Mapping[str, Any]) -> list[str]:
    errors = ", ".join(f"{kind} {n:,}" for kind, n in found["errors"].items()) or "none"
    left_out = {name: found[name] for name in ("unsent", "cut_off") if found[name]}
    ended = "".join(f", {n:,} {name.replace('_', ' ')}" for name, n in left_out.items())
    return [
        f"rate         offered {found['offered_per_s']:,.1f}/s, achieved {found['achieved_per_s']:,.1f}/s",
        f"requests     {found['requests']:,}, {found['succeeded']:,} succeeded{ended}; errors: {errors}",
        f"own CPU      {found['cpu_per_request_us']:,.1f} µs a request ({found['cpu_user_per_request_us']:,.1f} user, "
        f"{found['cpu_system_per_request_us']:,.1f} system), {found['peak_memory_bytes'] / 1e6:,.0f} MB",
        f"connections  {found['connections_opened']:,} opened, {found['connections_lost']:,} lost",
        f"bytes        {found['bytes_out']:,} out, {found['bytes_in']:,} in",
    ]
