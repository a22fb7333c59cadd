"""Measured response times against true ones, request by request, over real sockets.

A FIFO server answers in service times of mean 4 ms that are known beforehand, so Lindley's recursion on the *scheduled*
arrivals gives every response time. What the engine measures beyond it is the transport and the lateness of two timers.
Beside it stands the round trip of the null server, which answers at once, at the same rate.

    python -m benchmarks.truth.fifo [--duration 20] [--replicates 3]
"""

import argparse

import numpy as np
import pandas as pd

from benchmarks.truth.table import micros, report, trial
from infscale.load import schedule as arrivals
from infscale.load.null_server import Times, lindley, null_server, service_times

SERVICE_S = 0.004
LOADS = (0.3, 0.6, 0.9)
KINDS = ("constant", "exponential")
LIMITS = {"rest": {"connections": 256, "open_first": 16}, "grpc": {"connections": 8, "open_first": 8}}
"""As in the headline experiments."""

TARGET_US = 500


def null_round_trip(protocol: str, schedule: Times) -> dict[str, float]:
    """Round-trip times of the server that answers at once, in µs."""
    with null_server() as server:
        rows, _ = trial(protocol, server, schedule, **LIMITS[protocol])
    times = rows["done_ns"] - rows["sent_ns"]
    return {"null_p50_us": micros(times, 0.5), "null_p99_us": micros(times, 0.99)}


def fifo_error(protocol: str, kind: str, schedule: Times, seed: int) -> dict[str, object]:
    """Measured − true response times, in µs, and the lag and wait among them."""
    service = service_times(kind, SERVICE_S, len(schedule), seed)
    with null_server(service_ns=service) as server:
        rows, said = trial(protocol, server, schedule, **LIMITS[protocol])
    error = (rows["done_ns"] - rows["scheduled_ns"]).to_numpy() - lindley(schedule, service)
    levels = {"error_min_us": 0.0, "error_p50_us": 0.5, "error_p99_us": 0.99, "error_max_us": 1.0}
    return {
        "requests": len(rows),
        **{name: micros(error, level) for name, level in levels.items()},
        "lag_p99_us": micros(rows["due_ns"] - rows["scheduled_ns"], 0.99),
        "wait_p99_us": micros(rows["sent_ns"] - rows["due_ns"], 0.99),
        **said,
    }


def main() -> None:
    """Run every cell and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--duration", type=float, default=20, help="seconds of each trial")
    parser.add_argument("--replicates", type=int, default=3)
    options = parser.parse_args()
    lines = []
    for replicate in range(options.replicates):
        for number, load in enumerate(LOADS):
            seed = np.random.SeedSequence([replicate, number])
            schedule = arrivals.poisson(load / SERVICE_S, options.duration, seed)
            for protocol in LIMITS:
                null = null_round_trip(protocol, schedule)
                for kind in KINDS:
                    found = fifo_error(protocol, kind, schedule, seed=replicate)
                    cell = {"protocol": protocol, "service": kind, "load": load, "replicate": replicate}
                    lines.append({**cell, "rate_per_s": load / SERVICE_S, **found, **null})
    table = pd.DataFrame(lines)
    table["excess_p99_us"] = table["error_p99_us"] - table["null_p99_us"]
    report("fifo-trials", table)
    keys = ["protocol", "service", "load", "rate_per_s"]
    shown = ["error_p50_us", "error_p99_us", "null_p50_us", "null_p99_us", "excess_p99_us", "lag_p99_us"]
    medians = table.groupby(keys, as_index=False)[shown].median()
    medians["within"] = np.where(medians["excess_p99_us"] <= TARGET_US, "yes", "NO")
    print(f"\nMedians of {options.replicates} replicates; within: error p99 − null server's p99 ≤ {TARGET_US} µs")
    report("fifo", medians)


if __name__ == "__main__":
    main()
