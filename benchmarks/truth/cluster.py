"""What a cluster of workers does to a load, where the truth is known: on one machine, whose clock all workers share.

    python -m benchmarks.truth.cluster [--short]

- ``skew``: when workers began, against the time that they were told, on the clock that they share; the estimate of the
  offset is all error. Of four processes of this machine, and (root) of two in network namespaces behind links.
- ``same``: one schedule of 10,000 requests/s sent by one worker and by two in turn: rows, p99, CPU for a request.
- ``four``: four workers at 8,000/s, with the gates that failed.
- ``cost``: seconds that a load takes by the cluster beside the same one by this process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import namespaces
from benchmarks.measure import host_state
from benchmarks.truth.table import BODIES, micros, report
from infscale import machine
from infscale.deployment.fronts.link import Link
from infscale.errors import InfscaleError
from infscale.load import ceiling, schedule
from infscale.load.cluster.connect import Cluster, connected
from infscale.load.cluster.run import run
from infscale.load.cluster.spec import parse
from infscale.load.engine import run as engine
from infscale.load.engine.run import Result
from infscale.load.null_server import null_server
from infscale.records.gates.verdict import judge
from infscale.records.manifest import Host

Times = npt.NDArray[np.int64]


def sent(cluster: Cluster, url: str, parts: list[Times]) -> Result:
    """A load of these shards by a cluster."""
    choices = [(np.arange(len(part)) % len(BODIES)).astype(np.int32) for part in parts]
    return run(cluster, url, BODIES, parts, choices, timeout_s=5, connections=64, open_first=8)


def drawn(cluster: Cluster, rate: float, seconds: float, seed: int) -> list[Times]:
    """The shards of a Poisson process."""
    return list(schedule.shards(rate, seconds, np.random.SeedSequence(seed), cluster.shards))


def skews(cluster: Cluster, url: str, loads: int, seconds: float) -> list[dict[str, int]]:
    """For each load and worker: how far its start was from the driver's, and what it was thought to be, ns."""
    found = []
    for k in range(loads):
        for worker in sent(cluster, url, drawn(cluster, 500, seconds, k)).generator.workers:
            true = worker.skew_ns[0] + worker.offset_ns  # the true offset is 0
            found.append({"true": true, "said": worker.skew_ns[0], "within": worker.within_ns})
    return found


def skew_row(where: str, found: list[dict[str, int]]) -> dict[str, Any]:
    """A row of the table, µs."""
    table = pd.DataFrame(found)
    true = table["true"].abs()
    return {
        "measured": "skew",
        "of": where,
        "loads": len(found),
        "p50": micros(true, 0.5),
        "p99": micros(true, 0.99),
        "worst": micros(true, 1.0),
        "within": micros(table["within"], 0.5),
        "note": "µs; within: half the shortest round trip",
    }


def in_namespaces(link: Link, loads: int) -> dict[str, Any]:
    """The skews of two workers in network namespaces, behind links like this."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        namespaces.machines(4, link) as (driver, target, *others),
        namespaces.served(target) as address,
        namespaces.scheduled(driver, others, Path(scratch)) as scheduler,
    ):
        words = [sys.executable, "-m", "benchmarks.truth.cluster", "--inside", scheduler, f"http://{address}/"]
        done = subprocess.run(driver.command(*words, "--loads", str(loads)), capture_output=True, check=True)
    return skew_row(f"2 namespaces, {link}", json.loads(done.stdout))


def same(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """One worker and two on one schedule, in turn."""
    rows = []
    with null_server() as server, connected(parse("local:1")) as one, connected(parse("local:2")) as two:
        url = f"http://{server.rest}/"
        for k in range(rounds):
            parts = drawn(two, 10_000, seconds, 100 + k)
            loads = {1: (one, [np.sort(np.concatenate(parts))]), 2: (two, parts)}
            for workers in (1, 2) if k % 2 else (2, 1):
                state = host_state()
                result = sent(loads[workers][0], url, loads[workers][1])
                response = (result.samples["done_ns"] - result.samples["scheduled_ns"]).to_numpy()
                rows.append(
                    {
                        "round": k,
                        "workers": workers,
                        "rows": len(result.samples),
                        "ok": int((result.samples["status"] == "ok").sum()),
                        "p99_us": micros(response, 0.99),
                        "cpu_us": 1e6 * result.generator.cpu_s / len(result.samples),
                        "workers_cpu_us": 1e6
                        * sum(worker.cpu_s or 0 for worker in result.generator.workers)
                        / len(result.samples),
                        **state.since(),
                    }
                )
    return rows


def same_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The ratios two ÷ one of the rounds: medians and range."""
    table = pd.DataFrame(rows).pivot(index="round", columns="workers")
    equal = bool((table["rows"][1] == table["rows"][2]).all() and (table["ok"][1] == table["ok"][2]).all())
    p99, cpu = (table[name][2] / table[name][1] for name in ("p99_us", "cpu_us"))
    spread = f"p99 {p99.min():.2f} to {p99.max():.2f}, CPU {cpu.min():.2f} to {cpu.max():.2f}"
    return {
        "measured": "same",
        "of": "2 ÷ 1 workers, 10,000/s",
        "loads": len(rows),
        "p50": float(cpu.median()),
        "p99": float(p99.median()),
        "worst": float(p99.max()),
        "note": f"ratios, medians: p99 {p99.median():.2f}, CPU a request {cpu.median():.2f}; {spread}; "
        f"rows equal: {'yes' if equal else 'NO'}; p99 of one {table['p99_us'][1].median():.0f} µs",
    }


def four(loads: int, seconds: float) -> list[dict[str, Any]]:
    """Four workers at 8,000/s: verdicts, and what decided them."""
    most = ceiling.measure(["rest"])["rest"]
    rows = []
    with null_server() as server, connected(parse("local:4")) as cluster:
        for k in range(loads):
            steal, parts = machine.steal_ticks(), drawn(cluster, 8_000, seconds, 200 + k)
            result = sent(cluster, f"http://{server.rest}/", parts)
            stolen, ticks = (after - before for after, before in zip(machine.steal_ticks(), steal, strict=True))
            state = Host(same_host=True, steal_fraction=stolen / ticks)
            limits = {"rate_per_s": 8_000.0, "ceiling_per_s": ceiling.at(most, len(BODIES[0]))}
            verdict = judge(result.samples, seconds, result.generator, state, **limits)  # type: ignore[arg-type]
            values = {gate.name: gate.value for gate in verdict.gates}
            exact = np.array_equal(result.samples["scheduled_ns"], np.sort(np.concatenate(parts)))
            rows.append(
                {
                    "verdict": verdict.short,
                    "rows_are_the_sum": exact,
                    **{
                        name: values[name] for name in ("lag", "arrivals", "engine_cpu", "run_delay", "ceiling", "skew")
                    },
                }
            )
    return rows


def cost(loads: int) -> dict[str, Any]:
    """Seconds of a load beyond those that the same one takes without a cluster."""
    extra = []
    with null_server() as server, connected(parse("local:2")) as cluster:
        url = f"http://{server.rest}/"
        for k in range(loads):
            parts = drawn(cluster, 2_000, 1.0, 300 + k)
            whole = np.sort(np.concatenate(parts))
            began = time.perf_counter()
            choice = (np.arange(len(whole)) % len(BODIES)).astype(np.int32)
            engine.run(url, BODIES, [whole], [choice], timeout_s=5, connections=64, open_first=8)
            between = time.perf_counter()
            sent(cluster, url, parts)
            extra.append(time.perf_counter() - between - (between - began))
    values = np.array(extra)
    return {
        "measured": "cost",
        "of": "a load of 1 s, 2 workers",
        "loads": loads,
        "p50": float(np.median(values)),
        "p99": float(np.max(values)),
        "worst": float(np.max(values)),
        "note": "s more than without a cluster",
    }


def main() -> None:
    """Measure, and report; within a namespace, print skews."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="a tenth of the loads")
    parser.add_argument("--inside", nargs=2, metavar=("SCHEDULER", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--loads", type=int, default=20, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.inside:
        with connected(parse(said.inside[0], 2)) as cluster:
            print(json.dumps(skews(cluster, said.inside[1], said.loads, 0.3)))
        return
    few = 10 if said.short else 1
    table = []
    with null_server() as server, connected(parse("local:4")) as cluster:
        table.append(skew_row("4 processes", skews(cluster, f"http://{server.rest}/", 40 // few, 0.3)))
    for rate in (1000.0, 100.0, 10.0):
        try:
            table.append(in_namespaces(Link(rate), max(2, 12 // few)))
        except (InfscaleError, OSError, subprocess.CalledProcessError) as error:
            table.append({"measured": "skew", "of": f"2 namespaces, {rate:g} Mb/s", "note": f"not here: {error}"})
    rounds = same(1.0 if said.short else 3.0, max(2, 6 // few))
    table += [same_row(rounds), cost(max(2, 10 // few))]
    gates = four(max(2, 6 // few), 3.0)
    report("cluster-four", pd.DataFrame(gates))
    report("cluster-same", pd.DataFrame(rounds))
    report("cluster", pd.DataFrame(table))


if __name__ == "__main__":
    main()
