"""The result of ``infscale load``: numbers computed from rows, as JSON and as text.

A timeout counts as more than its limit and any other failure as +∞ in the percentiles of response and round-trip
time; those of successes alone stand beside them. A percentile beyond which less than one request is expected is
omitted.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from infscale.analysis.percentiles import Times, trial_times
from infscale.analysis.streams import StreamTimes, stream_times
from infscale.cli.printed import Result
from infscale.records.gate import INVALID, SATURATED, Gate
from infscale.records.gates.verdict import judge
from infscale.records.manifest import ClusterWorker, Generator, LoadManifest, Reason
from infscale.records.samples import NEVER

SHOWN = 5
"""How many reasons of failures are printed, the most frequent ones."""

Summary = dict[str, Any]
"""The result by name: numbers and texts that JSON can hold, as users read them."""

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
TYPICAL = {"p50": 0.50, "p99": 0.99}
TIMES = {
    "response_time": ("response", QUANTILES),
    "round_trip_time": ("roundtrip", QUANTILES),
    "response_time_ok": ("response_ok", QUANTILES),
    "round_trip_time_ok": ("roundtrip_ok", QUANTILES),
    "lag": ("lag", TYPICAL),
    "wait": ("wait", TYPICAL),
}
"""Name of a time in the result → key of :func:`infscale.analysis.percentiles.trial_times`, and its percentiles."""

STREAM_TIMES = {
    "first_message": QUANTILES,
    "first_message_from_send": QUANTILES,
    "gap": QUANTILES,
}
"""Name of a time of streams in the result → its percentiles."""

LEFT_OUT = {"unsent": "never sent", "cut_off": "still in flight when interrupted"}
"""Counts of an interrupted load in words, by name."""


class LoadResult(Result, kw_only=True, forbid_unknown_fields=True):
    """``infscale load``: the rows after the warm-up in numbers; the manifest that ``--out`` writes has it, too.

    ``response_time`` runs from the schedule, ``round_trip_time`` from the send; a timeout counts in them as more than
    its limit, any other failure as infinite, and those that end in ``_ok`` are of successes alone. A percentile is null
    where it is infinite or exceeds a limit (``bounds`` says what it exceeds) and where it is left out (``omitted`` says
    why). What is of streams alone is absent of other replies.
    """

    url: str
    arrivals: str
    rate_per_s: float
    seed: int
    warmup_s: float
    timeout_s: float
    duration_s: float
    requests: int
    succeeded: int
    warmup_requests: int
    unsent: int
    cut_off: int
    errors: dict[str, int]
    reasons: list[Reason]
    offered_per_s: float
    achieved_per_s: float
    response_time_p50_ms: float | None
    response_time_p90_ms: float | None
    response_time_p95_ms: float | None
    response_time_p99_ms: float | None
    response_time_p99_9_ms: float | None
    round_trip_time_p50_ms: float | None
    round_trip_time_p90_ms: float | None
    round_trip_time_p95_ms: float | None
    round_trip_time_p99_ms: float | None
    round_trip_time_p99_9_ms: float | None
    response_time_ok_p50_ms: float | None
    response_time_ok_p90_ms: float | None
    response_time_ok_p95_ms: float | None
    response_time_ok_p99_ms: float | None
    response_time_ok_p99_9_ms: float | None
    round_trip_time_ok_p50_ms: float | None
    round_trip_time_ok_p90_ms: float | None
    round_trip_time_ok_p95_ms: float | None
    round_trip_time_ok_p99_ms: float | None
    round_trip_time_ok_p99_9_ms: float | None
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    wait_p50_ms: float | None
    wait_p99_ms: float | None
    first_message_p50_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_p90_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_p95_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_p99_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_p99_9_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_from_send_p50_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_from_send_p90_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_from_send_p95_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_from_send_p99_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    first_message_from_send_p99_9_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    gap_p50_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    gap_p90_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    gap_p95_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    gap_p99_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    gap_p99_9_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    bounds: dict[str, str]
    omitted: dict[str, str]
    streaming: str | msgspec.UnsetType = msgspec.UNSET
    messages: int | msgspec.UnsetType = msgspec.UNSET
    messages_per_s: float | msgspec.UnsetType = msgspec.UNSET
    cpu_per_message_us: float | msgspec.UnsetType | None = msgspec.UNSET
    messages_per_stream_min: int | msgspec.UnsetType = msgspec.UNSET
    messages_per_stream_max: int | msgspec.UnsetType = msgspec.UNSET
    messages_per_read: float | msgspec.UnsetType | None = msgspec.UNSET
    messages_together_share: float | msgspec.UnsetType | None = msgspec.UNSET
    longest_stall_ms: float | msgspec.UnsetType | None = msgspec.UNSET
    messages_unkept: int | msgspec.UnsetType = msgspec.UNSET
    tokens: int | msgspec.UnsetType = msgspec.UNSET
    tokens_per_s: float | msgspec.UnsetType = msgspec.UNSET
    cpu_per_request_us: float
    cpu_user_per_request_us: float
    cpu_system_per_request_us: float
    peak_memory_bytes: int
    connections_opened: int | None
    connections_lost: int | None
    retried: int
    connection_error: str
    workers: list[ClusterWorker]
    bytes_out: int
    bytes_in: int
    interrupted: bool
    verdict: str
    verdict_text: str
    gates: list[Gate]


def summarise(
    samples: pd.DataFrame,
    manifest: LoadManifest,
    chunks: pd.DataFrame | None = None,
    tokens: npt.NDArray[np.int32] | None = None,
) -> Summary:
    """Return every number that is reported, of the rows after the warm-up; keys carry their units.

    A percentile is ``None`` where it is omitted (``omitted`` says why) and where it is infinite. ``bounds`` gives, for
    a percentile that falls on a timed-out or failed request, the value that it exceeds. An interrupted load is judged
    by the rows whose outcome is known; ``unsent`` and ``cut_off`` (in flight when it ended) count the others.

    Args:
        samples: all rows.
        manifest: of the load.
        chunks: the messages, if replies are streams.
        tokens: the number of tokens that the server counted, by row, −1 for unknown.
    """
    rows, counts = _measured(samples, manifest)
    duration_s = max(1e-3, manifest.duration_s - manifest.warmup_s)  # interrupted in the warm-up: no rows
    verdict = judge(rows, duration_s, manifest.generator, manifest.host)
    ok = rows[rows["status"] == "ok"]
    times = trial_times(rows, manifest.timeout_s * 1e3)
    quantiles = dict(TIMES)
    of_streams: Summary = {}
    if chunks is not None:
        streams = stream_times(rows, chunks, manifest.timeout_s * 1e3)
        of_streams = _of_streams(chunks, streams, manifest, duration_s)
        if tokens is not None:
            of_streams |= _tokens(rows, tokens, duration_s)
        times |= {"first_message": streams.first, "first_message_from_send": streams.first_from_send}
        times["gap"] = Times(streams.gaps_ms)
        quantiles |= {name: (name, levels) for name, levels in STREAM_TIMES.items()}
    finished = int((ok["done_ns"] < duration_s * 1e9).sum())
    return {
        **{key: getattr(manifest, key) for key in ("url", "arrivals", "rate_per_s", "seed", "warmup_s", "timeout_s")},
        "duration_s": duration_s,
        "requests": len(rows),
        "succeeded": len(ok),
        **counts,
        "errors": verdict.errors,
        "reasons": msgspec.to_builtins(manifest.generator.reasons),
        "offered_per_s": len(rows) / duration_s,
        "achieved_per_s": finished / duration_s,
        **_percentiles(times, quantiles),
        **of_streams,
        **_costs(samples, manifest.generator),
        "workers": msgspec.to_builtins(manifest.generator.workers),
        "bytes_out": int(rows["bytes_out"].sum()),
        "bytes_in": int(rows["bytes_in"].sum()),
        "interrupted": manifest.interrupted,
        "verdict": verdict.name,
        "verdict_text": _sentence(verdict.text, verdict.name),
        "gates": msgspec.to_builtins(verdict.gates),
    }


def _measured(samples: pd.DataFrame, manifest: LoadManifest) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows to judge, times counted from the end of the warm-up, and how many were left out, by reason."""
    warmup_ns = round(manifest.warmup_s * 1e9)
    warm = samples["scheduled_ns"] < warmup_ns
    unsent = samples["status"] == "unsent"
    gave_up = samples["done_ns"] - samples["scheduled_ns"] < manifest.timeout_s * 1e9
    cut_off = (samples["status"] == "timeout") & gave_up & bool(manifest.interrupted)
    rows = samples[~(warm | unsent | cut_off)].copy()
    times = [name for name in rows.columns if name.endswith("_ns")]
    rows[times] = rows[times].where(rows[times] == NEVER, rows[times] - warmup_ns)
    left_out = {"warmup_requests": warm, "unsent": unsent & ~warm, "cut_off": cut_off & ~warm}
    return rows, {name: int(mask.sum()) for name, mask in left_out.items()}


def _costs(samples: pd.DataFrame, generator: Generator) -> Summary:
    """Return the generator's own costs, over warm-up and measured part, without its start."""
    came_due = max(1, int((samples["due_ns"] != NEVER).sum()))
    return {
        "cpu_per_request_us": 1e6 * generator.cpu_s / came_due,
        "cpu_user_per_request_us": 1e6 * generator.cpu_user_s / came_due,
        "cpu_system_per_request_us": 1e6 * generator.cpu_system_s / came_due,
        "peak_memory_bytes": max((shard.peak_memory_bytes for shard in generator.shards), default=0),
        "connections_opened": generator.connections_opened,
        "connections_lost": generator.connections_lost,
        "retried": generator.retried,
        "connection_error": generator.error,
    }


def _of_streams(chunks: pd.DataFrame, streams: StreamTimes, manifest: LoadManifest, duration_s: float) -> Summary:
    """Return what is reported of messages beside the percentiles of their times.

    The rate is that of all messages that came within the measured part; the other numbers are those of the streams that
    were scheduled in it and ended well, or went on until their timeout.
    """
    generator, counts = manifest.generator, streams.messages
    messages = int(counts.sum())
    since_warmup_s = chunks["at_ns"].to_numpy() / 1e9 - manifest.warmup_s
    within = int(((since_warmup_s >= 0) & (since_warmup_s < duration_s)).sum())
    return {
        "streaming": manifest.streaming,
        "messages": messages,
        "messages_per_s": within / duration_s,
        "cpu_per_message_us": 1e6 * generator.cpu_s / len(chunks) if len(chunks) else None,
        "messages_per_stream_min": int(counts.min(initial=messages)),
        "messages_per_stream_max": int(counts.max(initial=0)),
        "messages_per_read": streams.per_read if messages else None,
        "messages_together_share": streams.together if len(streams.gaps_ms) else None,
        "longest_stall_ms": float(streams.stalls_ms[-1]) if len(streams.stalls_ms) else None,
        "messages_unkept": generator.messages_unkept,
    }


def _tokens(rows: pd.DataFrame, tokens: npt.NDArray[np.int32], duration_s: float) -> Summary:
    """Return the tokens that the server counted, and those a second of the streams that ended in the measured part."""
    counted = tokens[rows["sequence"].to_numpy()]
    known = counted >= 0
    if not known.any():
        return {}
    in_time = known & (rows["done_ns"].to_numpy() < duration_s * 1e9)
    return {"tokens": int(counted[known].sum()), "tokens_per_s": int(counted[in_time].sum()) / duration_s}


def _percentiles(times: Mapping[str, Times], quantiles: Mapping[str, tuple[str, Mapping[str, float]]]) -> Summary:
    """Return percentiles of every time in ms, with ``bounds`` and ``omitted``."""
    values: dict[str, float | None] = {}
    bounds: dict[str, str] = {}
    omitted: dict[str, str] = {}
    for name, (source, levels) in quantiles.items():
        for label, p in levels.items():
            key, percentile = f"{name}_{label}_ms", times[source].percentile(p)
            values[key] = percentile.value if math.isfinite(percentile.value) else None
            if percentile.bound:
                finite = values[key] is not None
                bounds[key] = f"> {percentile.value:g}: a timeout" if finite else "infinite: a failure"
            elif values[key] is None:
                omitted[key] = f"needs {_needed(p):,} requests, there are {times[source].n:,}"
    return {**values, "bounds": bounds, "omitted": omitted}


def _needed(p: float) -> int:
    """Return the fewest requests that give a percentile: one is expected beyond it."""
    return math.ceil(1 / (1 - p) - 1e-6)


def _sentence(text: str, verdict: str) -> str:
    if verdict in (INVALID, SATURATED):
        return text
    return f"{text}: the generator kept its schedule, and the server kept up"


# ------------------------------------------------------------------------------------------------ forms


def record(summary: Summary) -> LoadResult:
    """Return a summary as it is printed as JSON."""
    return msgspec.convert(summary, LoadResult)


def as_text(summary: Summary) -> str:
    """Return a summary as text for a terminal; its last line is the verdict."""
    rows = [("response time", "response_time"), ("round-trip time", "round_trip_time")]
    if summary["errors"]:  # of successes alone
        rows[1:1] = [("  successes alone", "response_time_ok")]
        rows += [("  successes alone", "round_trip_time_ok")]
    if "messages" in summary:
        rows += [("first message", "first_message"), ("  from the send", "first_message_from_send"), ("gap", "gap")]
    rows += [("lag", "lag"), ("wait", "wait")]
    warm = f" after {summary['warmup_s']:g} s of warm-up" if summary["warmup_s"] else ""
    rate = f"{summary['rate_per_s']:,.6g}/s for {summary['duration_s']:.3g} s"
    lines = [
        f"{summary['url']}: {summary['arrivals']}, {rate}{warm}",
        "",
        f"{'ms':18}" + "".join(f"{label.replace('_', '.'):>12}" for label in QUANTILES),
        *(f"{title:18}" + "".join(_cell(summary, f"{name}_{label}_ms") for label in QUANTILES) for title, name in rows),
        *_omitted(summary),
        "",
    ]
    return "\n".join([*lines, *_facts(summary), summary["verdict_text"]])


def _cell(summary: Summary, key: str) -> str:
    if key not in summary:
        return " " * 12
    value = summary[key]
    if key in summary["bounds"]:
        return f"{'∞' if value is None else f'>{value:,.0f}':>12}"
    return f"{'–' if value is None else f'{value:,.3f}':>12}"


def _omitted(summary: Summary) -> list[str]:
    """Return why the table has gaps: how many requests, or successes, each percentile needs."""
    needs = [
        f"{label.replace('_', '.')} needs {_needed(p):,}"
        for label, p in QUANTILES.items()
        if any(key.endswith(f"_{label}_ms") for key in summary["omitted"])
    ]
    return [f"– too few requests: {', '.join(needs)}"] if needs else []


def reason_lines(reasons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the most frequent reasons of failures as lines: how many requests, their status, and why."""
    shown = [f"{reason['requests']:>13,}× {reason['status']}: {reason['text']}" for reason in reasons[:SHOWN]]
    rest = sum(reason["requests"] for reason in reasons[SHOWN:])
    return [*shown, f"{rest:>13,}× other reasons"] if rest else shown


def _messages(summary: Summary) -> list[str]:
    """Return the lines about the messages of streams; none of replies that are no streams."""
    if "messages" not in summary:
        return []
    least, most = summary["messages_per_stream_min"], summary["messages_per_stream_max"]
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    lines = [f"messages       {summary['messages']:,}, {each} a stream; {summary['messages_per_s']:,.1f}/s"]
    if summary["messages_together_share"] is not None:
        lines[0] += f"; longest stall {summary['longest_stall_ms']:,.3f} ms"
        lines.append(
            f"together       {summary['messages_together_share']:.1%} of the messages after the first came in one read "
            f"with the one before; {summary['messages_per_read']:,.2f} a read"
        )
    if summary["cpu_per_message_us"] is not None:
        lines.append(f"generator CPU  {summary['cpu_per_message_us']:,.1f} µs a message")
    if most == 1 and least == 1:
        lines.append("               every stream brought one message: is it one, or a unary method?")
    if summary["messages_unkept"]:
        lines.append(f"not kept       {summary['messages_unkept']:,} messages, beyond the bound of the engine's memory")
    if "tokens" in summary:
        lines.append(f"tokens         {summary['tokens']:,} by the server's count; {summary['tokens_per_s']:,.1f}/s")
    return lines


def _workers(workers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line about the workers of a cluster: how many, and how far they began from one another."""
    there = [worker for worker in workers if not worker["lost"]]
    if not there:
        return []
    skew_us = max(abs(worker["skew_ns"][0]) for worker in there) / 1e3
    within_us = max(worker["within_ns"] for worker in there) / 1e3
    lost = f", {len(workers) - len(there)} lost" if len(there) < len(workers) else ""
    return [
        f"workers        {len(workers)}{lost}; begun within {skew_us:,.1f} µs, clocks known to ±{within_us:,.1f} µs"
    ]


def _facts(summary: Summary) -> list[str]:
    errors = ", ".join(f"{kind} {n:,}" for kind, n in summary["errors"].items()) or "none"
    ended = "".join(f", {summary[name]:,} {words}" for name, words in LEFT_OUT.items() if summary[name])
    return [
        f"rate           offered {summary['offered_per_s']:,.1f}/s, achieved {summary['achieved_per_s']:,.1f}/s",
        f"requests       {summary['requests']:,}, {summary['succeeded']:,} succeeded{ended}; errors: {errors}",
        *reason_lines(summary["reasons"]),
        *_messages(summary),
        *([f"sent again     {summary['retried']:,}, refused unprocessed"] if summary["retried"] else []),
        f"generator CPU  {summary['cpu_per_request_us']:,.1f} µs a request "
        f"({summary['cpu_user_per_request_us']:,.1f} user, {summary['cpu_system_per_request_us']:,.1f} system), "
        f"{summary['peak_memory_bytes'] / 1e6:,.0f} MB",
        *_workers(summary["workers"]),
        f"connections    {summary['connections_opened']:,} opened, {summary['connections_lost']:,} lost",
        f"bytes          {summary['bytes_out']:,} out, {summary['bytes_in']:,} in",
    ]
