"""Our engine as a client program: one JSON argument (see :class:`Order`), one line of JSON out."""

import json
import resource
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.peers.parse import NAN, SCHEDULED, Outcome
from infscale.load import schedule as arrivals
from infscale.load.engine.run import run
from infscale.vocabulary import CONNECTIONS

MAX_STREAMS = 32
"""On each gRPC connection. With a trial's 8 that is 256 requests in flight, as many as REST's connections: beyond
that Triton's gRPC slows down, and a run over its limit would measure that."""


@dataclass(frozen=True)
class Order:
    """What to send: ``body`` is a file (for gRPC the bare message)."""

    url: str
    body: str
    rate_per_s: float
    seconds: float
    seed: int
    headers: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0


def _cpu_s() -> float:
    """User + system of this process and of the engine's processes that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(order: Order) -> Outcome:
    """Run one open loop of Poisson arrivals; its CPU is from the schedule to the samples table."""
    before = _cpu_s()
    protocol = "grpc" if order.url.startswith("grpc") else "rest"
    limit = CONNECTIONS[protocol]
    schedule = arrivals.poisson(order.rate_per_s, order.seconds, np.random.SeedSequence(order.seed))
    result = run(
        order.url,
        [Path(order.body).read_bytes()],
        [schedule],
        [np.zeros(len(schedule), np.int32)],
        timeout_s=order.timeout_s,
        connections=limit,
        open_first=min(8, limit),
        headers=order.headers,
        max_streams=MAX_STREAMS,
    )
    cpu_s = _cpu_s() - before
    rows = result.samples
    good = rows[rows["status"] == "ok"]
    lag = (rows["due_ns"] - rows["scheduled_ns"])[rows["due_ns"] >= 0].to_numpy()
    response, trip = ((good["done_ns"] - good[c]).to_numpy() / 1e6 for c in ("scheduled_ns", "sent_ns"))
    span_s = (good["done_ns"].max() - rows["scheduled_ns"].min()) / 1e9 if len(good) else NAN
    p50, p99 = np.percentile(response, (50, 99)) if len(good) else (NAN, NAN)
    return Outcome(
        requests=len(rows),
        errors=len(rows) - len(good),
        delivered_per_s=len(good) / span_s,
        p50_ms=float(p50),
        p99_ms=float(p99),
        clock=SCHEDULED,
        rtt_p99_ms=float(np.percentile(trip, 99)) if len(good) else NAN,
        lag_p50_us=float(np.percentile(lag, 50)) / 1e3,
        lag_p99_us=float(np.percentile(lag, 99)) / 1e3,
        engine_cpu_us=result.generator.cpu_s / len(rows) * 1e6,
        peak_bytes=float(sum(shard.peak_memory_bytes for shard in result.generator.shards)),
        client_cpu_s=cpu_s,
    )


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Order(**json.loads(sys.argv[1]))))))
