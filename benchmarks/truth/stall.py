"""A server that stalls once for a second under 200 requests/s, over real sockets.

One request at a time (one HTTP/1.1 connection, or one gRPC stream) must show the backlog in the response time while the
round trip hides it: coordinated omission. Without a limit the two must agree: the loop is open. Lindley's recursion,
with one service time of 1 s and all others 0, gives the true response times.

    python -m benchmarks.truth.stall [--duration 10]
"""

import argparse

import numpy as np
import pandas as pd

from benchmarks.truth.table import micros, report, trial
from infscale.load import schedule as arrivals
from infscale.load.null_server import Times, lindley, null_server, stall

RATE_PER_S, STALL_S = 200, 1.0
WAYS: dict[str, tuple[str, dict[str, int], int | None]] = {
    "REST, one connection": ("rest", {"connections": 1}, None),
    "REST, no limit": ("rest", {"connections": 1024, "open_first": 16}, None),
    "gRPC, one stream": ("grpc", {"connections": 1}, 1),
    "gRPC, no limit": ("grpc", {"connections": 8, "open_first": 8}, None),
}
"""Protocol, the engine's limits, and the server's stream limit."""


def measure(way: str, duration_s: float) -> dict[str, object]:
    """One trial: percentiles in µs, and what is measured beyond the truth."""
    protocol, limits, streams = WAYS[way]
    schedule = arrivals.poisson(RATE_PER_S, duration_s, np.random.SeedSequence(11))
    service = np.zeros(len(schedule), np.int64)
    stalled = stall(int(RATE_PER_S), STALL_S)
    service[: len(stalled)] = stalled
    with null_server(service_ns=service, max_streams=streams) as server:
        rows, said = trial(protocol, server, schedule, **limits)
    response, round_trip = rows["done_ns"] - rows["scheduled_ns"], rows["done_ns"] - rows["sent_ns"]
    error = response.to_numpy() - lindley(schedule, service)
    columns: dict[str, pd.Series[int] | Times] = {
        "response": response,
        "round_trip": round_trip,
        "wait": rows["sent_ns"] - rows["due_ns"],
        "error": error,
    }
    levels = {"p50": 0.5, "p99": 0.99}
    found = {f"{name}_{p}_us": micros(column, q) for name, column in columns.items() for p, q in levels.items()}
    ratio = found["response_p99_us"] / found["round_trip_p99_us"]
    expected = ratio > 100 if "one" in way else abs(ratio - 1) < 0.01
    return {"way": way, "requests": len(rows), **found, "p99_ratio": ratio, "ok": "yes" if expected else "NO", **said}


def main() -> None:
    """Run every way and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--duration", type=float, default=10, help="seconds of each trial, at least 3")
    options = parser.parse_args()
    report("stall", pd.DataFrame([measure(way, max(3, options.duration)) for way in WAYS]))


if __name__ == "__main__":
    main()
