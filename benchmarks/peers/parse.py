"""What each client prints, as one :class:`Outcome`. Pure functions of text; times in ms unless named otherwise."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NAN = math.nan
SCHEDULED, SENT, CLOSED = "scheduled time", "actual send", "closed loop"
"""The clocks: a time runs from the schedule, from the send, or from a send that waited for the answer before."""
CPU_LINE = r"^client_cpu_s ([\d.]+)"
"""What the Python clients print: their own CPU since the start of the load."""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Outcome:
    """What a client says about its run.

    Attributes:
        requests: completed, failures included; the CPU's divisor.
        errors: of these, not successful.
        delivered_per_s: successes per second by the client's own count and clock.
        p50_ms, p99_ms: of the headline time, which runs from ``clock``.
        rtt_p99_ms: from the actual send, where a client tells it beside a headline from the schedule.
        lag_p50_us, lag_p99_us: due − scheduled; NaN where the client does not report it.
        engine_cpu_us: per request, of our engine's processes alone.
        peak_bytes: of our engine's processes.
        client_cpu_s: user + system since the start of the load, where the client itself can say; else NaN.
    """

    requests: int
    errors: int
    delivered_per_s: float
    p50_ms: float
    p99_ms: float
    clock: str
    rtt_p99_ms: float = NAN
    lag_p50_us: float = NAN
    lag_p99_us: float = NAN
    engine_cpu_us: float = NAN
    peak_bytes: float = NAN
    client_cpu_s: float = NAN


def _number(pattern: str, text: str, default: float | None = None) -> float:
    """The first group of ``pattern`` as a number.

    Raises:
        ValueError: it is not there and has no default.
    """
    found = re.search(pattern, text, re.MULTILINE)
    if found:
        return float(found.group(1))
    if default is None:
        raise ValueError(f"the output holds no match of {pattern!r}: {text[-500:]!r}")
    return default


def _with_unit(pattern: str, text: str) -> float:
    """A duration such as ``4.49ms`` in ms; ``pattern``'s groups are number and unit."""
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise ValueError(f"the output holds no match of {pattern!r}: {text[-500:]!r}")
    return float(found.group(1)) * _UNITS[found.group(2)]


def ours(text: str) -> Outcome:
    """The last line of :mod:`benchmarks.peers.ours_client`: an Outcome as JSON."""
    return Outcome(**json.loads(text.strip().splitlines()[-1]))


def wrk(text: str) -> Outcome:
    """``wrk --latency``."""
    requests = int(_number(r"^\s*(\d+) requests in", text))
    errors = int(_number(r"Non-2xx or 3xx responses: (\d+)", text, 0))
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors += sum(map(int, sockets.groups())) if sockets else 0
    p50, p99 = (_with_unit(rf"^\s*{p}%\s+([\d.]+)(us|ms|s|m)", text) for p in (50, 99))
    rate = _number(r"Requests/sec:\s+([\d.]+)", text)
    return Outcome(requests, errors, rate * (1 - errors / max(1, requests)), p50, p99, CLOSED)


def h2load(text: str, log: str = "") -> Outcome:
    """``h2load``; ``log`` is its ``--log-file``: start, status, duration in µs, tab separated."""
    done, good = (int(_number(rf"^requests:.* (\d+) {word}", text)) for word in ("done", "succeeded"))
    rate = _number(r"^finished in .*?, ([\d.]+) req/s", text)
    times = [int(line.split("\t")[2]) for line in log.splitlines() if line.count("\t") >= 2]
    p50, p99 = np.percentile(times, (50, 99)) / 1e3 if times else (NAN, NAN)
    return Outcome(done, done - good, rate * good / max(1, done), float(p50), float(p99), CLOSED)


def hey(text: str) -> Outcome:
    """hey's summary."""
    codes = [(int(code), int(n)) for code, n in re.findall(r"^\s*\[(\d{3})\]\s+(\d+) responses", text, re.MULTILINE)]
    failed = sum(int(n) for n in re.findall(r"^\s*\[(\d+)\]\s+(?!\d+ responses)\S", text, re.MULTILINE))
    requests = sum(n for _, n in codes) + failed
    errors = requests - sum(n for code, n in codes if code < 400)
    p50, p99 = (_number(rf"^\s*{p}%+ in ([\d.]+) secs", text) * 1e3 for p in (50, 99))
    rate = _number(r"Requests/sec:\s+([\d.]+)", text)
    return Outcome(requests, errors, rate * (1 - errors / max(1, requests)), p50, p99, CLOSED)


def perf_analyzer(text: str, clock: str = SENT, export: str = "") -> Outcome:
    """perf_analyzer's client report of one request rate; ``export`` is its ``--profile-export-file``.

    Its own throughput divides by a window that ends up to a second or two after the last request, so the rate
    delivered comes from the timestamps of the export, or is NaN without one.
    """
    requests = int(_number(r"Request count: (\d+)", text))
    rate = _export_rate(export) if export else NAN
    p50, p99 = (_number(rf"p{p} latency: (\d+) usec", text) / 1e3 for p in (50, 99))
    return Outcome(requests, int(_number(r"Failed Request Count: (\d+)", text, 0)), rate, p50, p99, clock)


def _export_rate(export: str) -> float:
    """Answers ÷ (last answer − first send), from nanosecond timestamps."""
    requests = json.loads(export)["experiments"][0]["requests"]
    answers = [max(r["response_timestamps"]) for r in requests if r["response_timestamps"]]
    return float(len(answers)) / float(max(answers) - min(r["timestamp"] for r in requests)) * 1e9


def _histogram_percentile(counts: Sequence[tuple[float, int]], p: float) -> float:
    """The value of rank ⌈np⌉ in ``(value, count)`` pairs."""
    ordered = sorted(counts)
    total = np.cumsum([count for _, count in ordered])
    return ordered[int(np.searchsorted(total, math.ceil(total[-1] * p)))][0] if ordered else NAN


def locust(text: str, clock: str) -> Outcome:
    """``locust --json``: one entry, whose times Locust has rounded (to 1 ms below 100 ms)."""
    entries = json.loads(text[text.index("[") : text.rindex("]") + 1])
    entry = entries[0]
    counts = [(float(ms), int(n)) for ms, n in entry["response_times"].items()]
    requests, errors = int(entry["num_requests"]), int(entry["num_failures"])
    wall_s = entry["last_request_timestamp"] - entry["start_time"]
    p50, p99 = (_histogram_percentile(counts, p) for p in (0.5, 0.99))
    cpu_s = _number(CPU_LINE, text)
    return Outcome(requests, errors, (requests - errors) / wall_s, p50, p99, clock, client_cpu_s=cpu_s)


def loadgen(text: str, summary: str) -> Outcome:
    """LoadGen's ``mlperf_log_summary.txt`` of the Server scenario, and the client's count of errors."""
    requests = int(_number(r"^issued (\d+)", text))
    errors = int(_number(r"^errors (\d+)", text))
    rate = _number(r"Completed samples per second\s*:\s*([\d.]+)", summary)
    p50, p99 = (_number(rf"{p}\.00 percentile latency \(ns\)\s*:\s*(\d+)", summary) / 1e6 for p in (50, 99))
    good = 1 - errors / max(1, requests)
    return Outcome(requests, errors, rate * good, p50, p99, SCHEDULED, client_cpu_s=_number(CPU_LINE, text))
