"""Streams whose messages were stamped just before they were written: is each first message, and each gap, right?

The null server emits messages at set times and stamps each just before its write. Measured − stamped is the error of a
first message; the difference of two such errors is that of a gap. Goal: within 0.2 ms at p99 for 200 streams of spread
phases and messages up to 4 kB. Streams in phase, and messages of 256 kB, are reported.

Requests are matched to the server's in the order of sending. Where many are sent at once over connections of their own
(REST, in phase), the server may take them in another order, which the error then contains.

    python -m benchmarks.truth.streams [--seconds 5] [--rounds 4]
"""

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.measure import host_state
from benchmarks.truth.table import micros, report
from infscale.load.engine import run as engine
from infscale.load.engine.interfaces import Streaming
from infscale.load.null_server import Emission, NullServer, Times, evenly, null_server

MS = 1_000_000
GOAL_US = 200.0
"""Most error at p99 of streams of spread phases and messages up to 4 kB."""
LEAD_NS = 100 * MS
"""From the trial's start to the first request."""

WAYS = {
    "gRPC": ("grpc", "grpc://{grpc}/inference.Service/Stream"),
    "SSE, HTTP/1.1": ("sse", "http://{rest}/v1/stream"),
    "SSE, HTTP/2": ("sse", "h2c://{grpc}/v1/stream"),
    "lines, HTTP/1.1": ("lines", "http://{rest}/v1/stream"),
    "chunks, HTTP/1.1": ("chunks", "http://{rest}/v1/stream"),
}
"""Way and URL."""


@dataclass(frozen=True)
class Case:
    """What is emitted: ``streams`` at a time, whose messages of ``size`` bytes come every ``interval_ns``."""

    streams: int
    size: int
    interval_ns: int
    spread: bool

    @property
    def judged(self) -> bool:
        """Whether the goal is for this case."""
        return self.spread and self.size <= 4096


CASES = [
    Case(200, 32, 20 * MS, spread=True),
    Case(200, 4096, 20 * MS, spread=True),
    Case(200, 32, 20 * MS, spread=False),
    Case(2, 262_144, 5 * MS, spread=True),
]


def errors(way: str, case: Case, server: NullServer, seconds: float) -> tuple[Times, Times]:
    """Run one trial; returns the errors of first messages, and those of gaps without their sign, ns, shape (n,)."""
    kind, url = WAYS[way]
    count = max(2, round(seconds * 1e9 / case.interval_ns))
    step = case.interval_ns // case.streams if case.spread else 0
    schedule = LEAD_NS + np.arange(case.streams, dtype=np.int64) * step
    connections = 1 if url.startswith(("grpc", "h2c")) else case.streams
    before = server.stamps()
    result = engine.run(
        url.format(grpc=server.grpc, rest=server.rest),
        [b"a body of no meaning"],
        [schedule],
        [np.zeros(case.streams, np.int32)],
        timeout_s=seconds + 30,
        connections=connections,
        open_first=connections,
        streaming=Streaming(kind, count),
    )
    rows, chunks, stamps = result.samples, result.chunks, server.stamps()
    if set(rows["status"]) != {"ok"} or chunks is None:
        raise SystemExit(f"{way}: not every stream succeeded: {rows['status'].value_counts().to_dict()}")
    start = result.generator.start_ns or 0
    measured = chunks["at_ns"].to_numpy().reshape(case.streams, count)[np.argsort(rows["sent_ns"], kind="stable")]
    ours = slice(len(before.written_ns), None)
    order = np.argsort(stamps.request[ours], kind="stable")
    written = stamps.written_ns[ours][order].reshape(case.streams, count)
    late: npt.NDArray[np.int64] = start + measured - written
    return late[:, 0], np.abs(np.diff(late, axis=1)).ravel()


def measure(way: str, case: Case, seconds: float, rounds: int) -> dict[str, object]:
    """Run the trials of one case; returns its row, times in µs."""
    host = host_state()
    count = max(2, round(seconds * 1e9 / case.interval_ns))
    emission = Emission(evenly(count, case.interval_ns, case.interval_ns), case.size, way=_rest_way(way))
    with null_server(stream=emission) as server:
        parts = [errors(way, case, server, seconds) for _ in range(rounds)]
    first, gaps = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = {
        f"{name}_error_{label}_us": micros(values, level)
        for name, values in (("first", first), ("gap", gaps))
        for label, level in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
    within = max(found["first_error_p99_us"], found["gap_error_p99_us"]) <= GOAL_US
    return {
        "way": way,
        "streams": case.streams,
        "bytes": case.size,
        "phases": "spread" if case.spread else "together",
        "messages_per_s": case.streams * 1e9 / case.interval_ns,
        "messages": len(gaps) + len(first),
        **found,
        "ok": ("yes" if within else "NO") if case.judged else "–",
        "server": server.scheduler,
        **host.since(),
    }


def _rest_way(way: str) -> str:
    return "sse" if WAYS[way][0] == "grpc" else WAYS[way][0]


def main() -> None:
    """Run every way and case, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5, help="of each trial")
    parser.add_argument("--rounds", type=int, default=4, help="trials of each case")
    options = parser.parse_args()
    rows = [measure(way, case, options.seconds, options.rounds) for case in CASES for way in WAYS]
    report("streams", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
