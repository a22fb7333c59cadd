"""Drives a trial by MLPerf LoadGen: SingleStream, Server and Offline, over REST (``requests``) and gRPC (``grpcio``).

LoadGen decides when queries are issued, measures them by its own clock, and judges itself; it has no client of its own.
Behind it are the senders of :mod:`infscale.load.clients`, in a process of its own with the engine's cores and priority,
and the bodies are the trial's, in the trial's order: LoadGen's own draw of an index for each query is not used but in
accuracy mode, so that arms of a block carry the same bodies.

- **Server** is an open loop: Poisson arrivals of rate λ, drawn by LoadGen from a seed of the trial's. It issues as many
  queries as the trial has arrivals.
- **SingleStream** is a closed loop: a query is issued when the one before it has ended, as many as fit into the trial.
- **Offline** is a closed loop, too: one query with as many samples as the trial has arrivals, all issued at once; at
  most :data:`IN_FLIGHT` are in flight at a time.

``scheduled_ns`` is the time for which LoadGen scheduled a query, from its trace (``mlperf_log_trace.json``); the detail
log has none. In SingleStream and Offline LoadGen schedules a query when it issues it. The trace is on the system's
clock: it is laid on the monotonic clock by the query that reached us soonest after LoadGen issued it, so that
``due_ns``, when LoadGen called us, never comes before. A step of the system's clock in a trial would be seen as lag.

A request's time limit counts from when LoadGen handed it over, since its schedule is known only afterwards; in Offline
from the send, because there a request waits for the ones before it. To LoadGen every outcome is a completed query, a
failure and a timeout as well: its percentiles hold them, the rows tell them apart.
"""

import ctypes
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from infscale.errors import EngineError, MissingError, one_of
from infscale.experiment.design.slo import Slo
from infscale.load import clients
from infscale.load.clients import Ints
from infscale.load.engine.child import allow_files, prioritise
from infscale.load.engine.run import Result
from infscale.programs import package_version
from infscale.records.manifest import Generator, Reported
from infscale.records.samples import NEVER

IN_FLIGHT = clients.THREADS
"""Most requests of the Offline scenario at a time."""

FASTEST_S = 1e-4
"""The shortest response for which LoadGen prepares queries of SingleStream, s: no Python client is faster."""

SCENARIOS = {"loadgen-single": "SingleStream", "loadgen-server": "Server", "loadgen-offline": "Offline"}
"""LoadGen's scenarios, by the names of our clients."""

SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
"""LoadGen's own logs that are kept with a run."""

_TRACE, _ACCURACY = "mlperf_log_trace.json", "mlperf_log_accuracy.json"
_PATIENCE_S = 60.0
"""Longest wait for the process after all requests must have ended, s."""

_CONSTRAINTS = {
    "performance": "result_perf_constraints_met",
    "min_duration": "result_min_duration_met",
    "min_queries": "result_min_queries_met",
    "early_stopping": "early_stopping_met",
}
"""LoadGen's constraints of a valid run, by their keys in the detail log."""

_THROUGHPUT = ("result_completed_samples_per_sec", "result_qps_with_loadgen_overhead", "result_samples_per_second")
"""Keys of the throughput in the detail log: of Server, SingleStream and Offline."""


def check_installed() -> None:
    """Find out whether LoadGen is there.

    Raises:
        MissingError: it is not; the message has the command that installs it.
    """
    if not package_version(("mlperf_loadgen",), "mlcommons-loadgen"):
        raise MissingError(f"MLPerf LoadGen is not installed: {sys.executable} -m pip install mlcommons-loadgen")


@dataclass
class Job(clients.Job):
    """What LoadGen's process needs; ``schedule`` holds when each request was handed over, ns, as they are.

    Attributes:
        rate_per_s: λ of Server.
        duration_ns: length of SingleStream.
        seed: of LoadGen's arrivals.
        accuracy: whether every body is asked for once, for its answer.
        latency_ns, percentile: the limit by which Server judges itself; 0 takes the time limit of a request.
    """

    rate_per_s: float = 1.0
    duration_ns: int = 0
    seed: int = 0
    accuracy: bool = False
    latency_ns: int = 0
    percentile: float = 0.99


def run(
    client: str,
    url: str,
    bodies: Sequence[bytes],
    choice: npt.NDArray[np.int32],
    *,
    rate_per_s: float,
    duration_s: float,
    seed: int,
    timeout_s: float,
    connections: int,
    headers: Mapping[str, str],
    ca: str = "",
    cores: Sequence[int] = (),
    slo: Slo | None = None,
) -> Result:
    """Let LoadGen send requests, and return when every one has an outcome.

    Args:
        client: one of :data:`SCENARIOS`.
        url: as of :func:`infscale.load.clients.run`.
        bodies: the pool.
        choice: the body that each request carries, as an index into the pool; its length is the number of requests of
            Server and Offline, and SingleStream takes it again from the start where it issues more.
        rate_per_s: λ of Server, requests/s.
        duration_s: length of SingleStream, s.
        seed: of Server's arrivals.
        timeout_s: time from handing a request over to giving it up, s.
        connections, headers, ca, cores: as of :func:`infscale.load.clients.run`.
        slo: the percentile and the limit by which Server judges itself; None takes p99 within ``timeout_s``.

    Raises:
        ConfigError: an unknown client.
        MissingError: LoadGen is not installed.
        EngineError: its process failed.
    """
    one_of("client", client, SCENARIOS)
    count = max(1, len(choice))
    if client == "loadgen-single":  # LoadGen prepares queries for twice the duration
        count = int(2 * duration_s / FASTEST_S) + 1
    longest_s = {
        "loadgen-single": duration_s + timeout_s,
        "loadgen-server": 2 * count / rate_per_s + timeout_s,
        "loadgen-offline": (count / IN_FLIGHT + 1) * timeout_s,
    }[client]
    job = Job(
        client,
        url,
        bodies,
        np.zeros(count, np.int64),
        np.resize(choice, count),
        int(timeout_s * 1e9),
        connections,
        headers,
        ca,
        cores,
        rate_per_s=rate_per_s,
        duration_ns=int(duration_s * 1e9),
        seed=seed,
        latency_ns=0 if slo is None else int(slo.limit_ms * 1e6),
        percentile=0.99 if slo is None else 1 - slo.late,
    )
    answer = _in_process(job, longest_s)
    due, n = answer["due"], len(answer["due"])
    columns = {
        "sequence": np.arange(n, dtype=np.int64),
        "scheduled_ns": answer["scheduled"],
        "due_ns": due,
        "sent_ns": answer["sent"],
        "first_byte_ns": answer["done"],
        "done_ns": answer["done"],
        "status": pd.Categorical(answer["status"]),
        "bytes_out": np.full(n, NEVER),
        "bytes_in": np.full(n, NEVER),
        "payload": job.choice[:n],
        "connection": np.zeros(n, np.int32),
        "shard": np.zeros(n, np.int32),
    }
    return Result(pd.DataFrame(columns), answer["generator"], answer["logs"])


def answers(
    url: str,
    bodies: Sequence[bytes],
    *,
    timeout_s: float,
    connections: int,
    headers: Mapping[str, str],
    ca: str = "",
) -> tuple[list[bytes | None], Mapping[str, str]]:
    """Let LoadGen ask for every body once in its mode AccuracyOnly; return the answers and LoadGen's logs.

    The answers are those of LoadGen's own accuracy log, by the index of the body; None for a request that failed.

    Raises:
        MissingError, EngineError: as of :func:`run`.
    """
    count = len(bodies)
    job = Job(
        "loadgen-single",
        url,
        bodies,
        np.zeros(count, np.int64),
        np.arange(count, dtype=np.int32),
        int(timeout_s * 1e9),
        connections,
        headers,
        ca,
        accuracy=True,
    )
    answer = _in_process(job, count * timeout_s)
    logged = {entry["qsl_idx"]: bytes.fromhex(entry["data"]) for entry in json.loads(answer["accuracy"])}
    failed = {int(answer["indices"][i]) for i, status in enumerate(answer["status"]) if status != "ok"}
    return [None if k in failed else logged.get(k) for k in range(count)], answer["logs"]


def _in_process(job: Job, longest_s: float) -> "_Answer":
    check_installed()
    command, data = [sys.executable, "-m", "infscale.load.loadgen_client"], pickle.dumps(job, protocol=5)
    longest_s += _PATIENCE_S
    try:
        process = subprocess.run(command, input=data, capture_output=True, timeout=longest_s)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"LoadGen had not ended after {longest_s:.0f} s") from error
    if process.returncode:
        raise EngineError(f"LoadGen failed: {process.stderr.decode(errors='replace')[-2000:]}")
    answer: _Answer = pickle.loads(process.stdout)
    return answer


def reported(detail: str) -> Reported:
    """Return what LoadGen says of its own run, from its detail log (``mlperf_log_detail.txt``).

    The detail log holds the numbers of the summary with keys of their own.
    """
    entries = [
        json.loads(line.removeprefix(":::MLLOG ")) for line in detail.splitlines() if line.startswith(":::MLLOG")
    ]
    values = {entry["key"]: entry["value"] for entry in entries}
    offline = values.get("effective_scenario") == "Offline"
    return Reported(
        tool=f"MLPerf LoadGen {str(values.get('loadgen_version', '')).partition(' ')[0]}".rstrip(),
        valid=values["result_validity"] == "VALID" if "result_validity" in values else None,
        unmet=[name for name, key in _CONSTRAINTS.items() if values.get(key) is False],
        errors=[str(entry["value"]) for entry in entries if entry["metadata"].get("is_error")],
        requests=values.get("generated_samples_per_query" if offline else "result_query_count"),
        p50_ms=_ms(values, "50.00"),
        p95_ms=_ms(values, "95.00"),
        p99_ms=_ms(values, "99.00"),
        throughput_per_s=next((float(values[key]) for key in _THROUGHPUT if key in values), None),
    )


def _ms(values: Mapping[str, Any], percentile: str) -> float | None:
    value = values.get(f"result_{percentile}_percentile_latency_ns")
    return None if value is None else value / 1e6


_SAMPLE = re.compile(
    r'"name":"Sample",[^\n]*"ph": ?"b",[^\n]*"ts":(-?[\d.]+),"args":\{"sample_seq":(\d+),[^\n]*"issue_start_ns":(-?\d+)'
)


def schedule_of(trace: str, called_ns: Ints) -> Ints:
    """Return when LoadGen scheduled each query, ns on the clock of ``called_ns``.

    Args:
        trace: the text of LoadGen's trace.
        called_ns: when it called us for each query, in the order of issue, on the monotonic clock, shape (n,).

    Raises:
        EngineError: the trace does not have every query once.
    """
    scheduled, issued = (np.full(len(called_ns), NEVER, np.int64) for _ in range(2))
    found = _SAMPLE.findall(trace)
    if sorted(int(sequence) for _, sequence, _ in found) != list(range(len(called_ns))):
        raise EngineError(f"LoadGen's trace has {len(found)} queries; it issued {len(called_ns)}")
    for micros, sequence, delay in found:
        i = int(sequence)
        scheduled[i] = round(float(micros) * 1e3)
        issued[i] = scheduled[i] + int(delay)
    return np.asarray(scheduled + np.min(called_ns - issued, initial=np.iinfo(np.int64).max), dtype=np.int64)


# ------------------------------------------------------------------------------------- in the process


class _Answer(TypedDict):
    """What the process sends back; times in ns from the first scheduled time, each of shape (requests,)."""

    scheduled: Ints
    due: Ints
    sent: Ints
    done: Ints
    status: list[str]
    indices: list[int]
    generator: Generator
    logs: dict[str, str]
    accuracy: str


class _Rows(clients._Rows):
    """Times and outcome of each request, on the monotonic clock as it is; LoadGen hears of each outcome."""

    def __init__(self, job: Job, loadgen: Any) -> None:
        super().__init__(job)
        self.ids, self.indices = [0] * len(job.schedule), [0] * len(job.schedule)
        self.in_flight = threading.Semaphore(IN_FLIGHT)
        self._loadgen, self._accuracy = loadgen, job.accuracy

    def end(self, i: int, status: str, why: str = "", answer: bytes = b"") -> None:
        super().end(i, status, why)
        self.in_flight.release()
        data = ctypes.create_string_buffer(answer, len(answer)) if self._accuracy else None
        place = (ctypes.addressof(data), len(answer)) if data is not None and answer else (0, 0)
        self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(self.ids[i], *place)])  # it copies data


def _issuer(job: Job, rows: _Rows, send: clients.Send, meter: clients.Meter) -> Callable[[Sequence[Any]], None]:
    """Return the function that LoadGen calls with the samples of a query.

    The meter begins anew with the first: LoadGen's preparations are no cost of the load.
    """
    issued = 0
    offline = SCENARIOS[job.client] == "Offline"

    def issue(samples: Sequence[Any]) -> None:
        nonlocal issued
        now = rows.now()
        if not issued:
            meter.begin()
        first, issued = issued, issued + len(samples)
        for i, sample in enumerate(samples, first):
            rows.ids[i], rows.indices[i], rows.due[i] = sample.id, sample.index, now
        for i, sample in enumerate(samples, first):
            if offline:
                rows.in_flight.acquire()
                now = rows.now()
            if job.accuracy:
                job.choice[i] = sample.index
            job.schedule[i] = now
            send(i)

    return issue


def _settings(loadgen: Any, job: Job) -> Any:
    """Return LoadGen's settings: nothing but the trial's own number of queries or duration ends it."""
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, SCENARIOS[job.client])
    settings.mode = loadgen.TestMode.AccuracyOnly if job.accuracy else loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.min_query_count = 0, len(job.schedule)
    if job.client == "loadgen-single":
        settings.min_duration_ms, settings.min_query_count = max(1, job.duration_ns // 1_000_000), 1
        settings.single_stream_expected_latency_ns = int(FASTEST_S * 1e9)
    settings.server_target_qps = job.rate_per_s
    settings.server_target_latency_ns = job.latency_ns or job.timeout_ns  # in most trials the only limit there is
    settings.server_target_latency_percentile = job.percentile
    settings.offline_expected_qps = 1e-3  # so that the number of samples is the one above
    settings.schedule_rng_seed = job.seed
    return settings


def _drive(job: Job) -> _Answer:
    import mlperf_loadgen as loadgen  # type: ignore[import-not-found, unused-ignore]

    if job.cores:
        os.sched_setaffinity(0, job.cores)
    allow_files()
    scheduler = prioritise()  # threads that start from here on have it, too
    rows = _Rows(job, loadgen)
    rest = job.url.startswith("http")
    send, close = (clients._requests if rest else clients._grpcio)(job, rows)
    meter = clients.Meter(scheduler)
    with tempfile.TemporaryDirectory(prefix="infscale-loadgen-") as name:
        folder = Path(name)
        log = loadgen.LogSettings()
        log.enable_trace = not job.accuracy
        log.log_output.outdir = name
        sut = loadgen.ConstructSUT(_issuer(job, rows, send, meter), lambda: None)
        pool = len(job.bodies)
        library = loadgen.ConstructQSL(pool, pool, lambda _: None, lambda _: None)
        # Not the audit.config that may lie in the working folder: it would change the settings.
        loadgen.StartTestWithLogSettings(sut, library, _settings(loadgen, job), log, str(folder / "audit.config"))
        generator = meter.read(job.client, rows.start, rows.reasons)
        close()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
        logs = {file: (folder / file).read_text(encoding="utf-8") for file in (SUMMARY, DETAIL)}
        accuracy = (folder / _ACCURACY).read_text() if job.accuracy else ""
        n = int((rows.due != NEVER).sum())
        due = rows.due[:n]
        scheduled = due if job.accuracy else schedule_of((folder / _TRACE).read_text(), due)
    start = int(scheduled.min(initial=time.monotonic_ns()))
    done = rows.done[:n] - start
    generator.start_ns, generator.wall_s = start, max(1e-9, float(done.max(initial=0)) / 1e9)
    generator.reported = reported(logs[DETAIL])
    generator.reported.files = list(logs)
    sent = np.where(rows.sent[:n] == NEVER, NEVER, rows.sent[:n] - start)
    return {
        "scheduled": scheduled - start,
        "due": due - start,
        "sent": sent,
        "done": done,
        "status": rows.status[:n],
        "indices": rows.indices[:n],
        "generator": generator,
        "logs": logs,
        "accuracy": accuracy,
    }


def _main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # whatever LoadGen prints must not get between
    answer = pickle.dumps(_drive(pickle.load(sys.stdin.buffer)), protocol=5)
    with os.fdopen(out, "wb") as pipe:
        pipe.write(answer)


if __name__ == "__main__":
    # Under -m this module is __main__: a job pickled by its own name must be found there too.
    sys.modules["infscale.load.loadgen_client"] = sys.modules["__main__"]
    _main()
