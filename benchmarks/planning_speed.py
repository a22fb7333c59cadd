"""How long 10⁸ simulated requests take on one core, and how much memory, for every balancer, shared cores and a cache.

16 replicas at 80 % of their capacity where nothing else is said; service times are 2,000 exponential draws. Each case
runs in a process of its own, bound to one core; compiling and imports are done before, and count in memory alone. On a
busy machine the seconds are more than those of its CPU. Goals: 20 s and 1 GB for every balancer, 60 s with a cache.

    python -m benchmarks.planning_speed [--requests 100000000]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd

from benchmarks.measure import host_state
from benchmarks.truth.table import report
from infscale.analysis.queueing.service import Service
from infscale.analysis.queueing.simulate import BALANCERS, Cache, System, simulate

REPLICAS, LOAD, MEAN_S = 16, 0.8, 0.01
CACHE = Cache(items=1_000_000, zipf=1.0, entries=100_000, hit_s=0.0005)
GOAL_S, GOAL_CACHED_S, GOAL_MB = 20.0, 60.0, 1000.0
CASES = {
    **{name: System(REPLICAS, name, connections=64) for name in BALANCERS},
    "power-of-two, 1,000 replicas": System(1_000, "power-of-two"),
    "least-requests, 1,000 replicas": System(1_000, "least-requests"),
    "power-of-two, shared cores": System(REPLICAS, "power-of-two", cores=float(REPLICAS)),
    "power-of-two, cache of 10⁵ of 10⁶ (Zipf 1)": System(REPLICAS, "power-of-two", cache=CACHE),
}


def one(name: str, requests: int) -> None:
    """Simulate a case in this process and print seconds and peak memory as JSON."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    held = np.random.default_rng(1).standard_exponential(2_000) * MEAN_S
    service, system = Service((held,)), CASES[name]
    rate = LOAD * system.replicas / service.mean_s
    simulate(service, system, rate, requests=2_000)  # compiled, or read from disk
    began, used = time.perf_counter(), time.process_time()
    result = simulate(service, system, rate, requests=requests)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - used
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    p99_ms = result.percentiles["p99"].value
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak_mb, "hits": result.hits, "p99_ms": p99_ms}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000_000)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        return one(args.case, args.requests)
    host, rows = host_state(), []
    for name, system in CASES.items():
        command = [sys.executable, "-m", "benchmarks.planning_speed", "--case", name, "--requests", str(args.requests)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        goal = GOAL_CACHED_S if system.cache.items else GOAL_S
        within = found["seconds"] <= goal and found["peak_mb"] <= GOAL_MB
        rows.append({"case": name, "requests": args.requests, **found, "goal_s": goal, "within": within})
        print(rows[-1], flush=True)
    report("planning-speed", pd.DataFrame(rows).assign(**host.since()))
    return None


if __name__ == "__main__":
    main()
