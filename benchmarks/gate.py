"""The gate of ``infscale compare``: how often it calls a candidate worse that is not, and finds one that is.

    python -m benchmarks.gate --simulate 2000                    # known truths and noise: docs/compare-simulated.md
    python -m benchmarks.gate --real 20 --budget 1m              # A/A: two real servers that sleep 5 ms
    python -m benchmarks.gate --real 10 --slowed 1.2             # the candidate sleeps 20 % longer
    python -m benchmarks.gate --real 20 --budget 1m --triton     # A/A: one Triton, as both
    python -m benchmarks.gate --real 8 --budget 1m --streams     # A/A: one Triton that streams, as both

Real servers are null servers with workers that each take one request for a set time, and nothing else; the gate is the
command, in a process of its own, judged by its exit code.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.answers import DRAWS, Draw
from benchmarks.truth.gates import responses
from benchmarks.truth.search import searched
from infscale.analysis.answers import ALPHA, UNDECIDED, claim
from infscale.analysis.candidate.judgement import NOT_WORSE, WORSE, judge, margins, overall, worsening
from infscale.analysis.candidate.stored import said_of
from infscale.analysis.tables.saturation import lifetime_logs
from infscale.experiment.design.design import FIRST, GAP, P95, SATURATION

Floats = NDArray[np.float64]
Logs = Mapping[str, Floats]
"""Logarithms of candidate ÷ reference in each lifetime, by metric."""

AT_MOST = 0.05
EDGES = margins(AT_MOST)
"""The command's default margins."""

SEED = 20261127

# ------------------------------------------------------------------------------------------- simulation

LOOKS = (("4 lifetimes (a minute)", 4, 1), ("9 lifetimes (3 minutes)", 9, 1), ("9, continued twice", 9, 3))
"""Name, lifetimes of the first look, and looks until which an undecided run goes on."""

TRUTHS = (
    ("equal", (1.0, 1.0)),
    ("at the margins", (EDGES[P95], 1 / EDGES[SATURATION])),
    ("20 % slower", (1.2, 1 / 1.2)),
    ("20 % slower, as much load", (1.2, 1.0)),
)
"""Name, and the true ratios of p95 and of λ*."""

SPREADS = (("0.05, 0.12", (0.05, 0.12)), ("0.10, 0.15", (0.10, 0.15)), ("0.19, 0.17", (0.19, 0.17)))
"""Standard deviations between lifetimes of the log ratio of p95 and of λ*."""

METRICS = P95, SATURATION, FIRST, GAP
"""In the order of the cases' numbers; single replies have the first two."""

STREAMED_TRUTHS = (
    ("equal", (1.0, 1.0, 1.0, 1.0)),
    ("at the margins", (EDGES[P95], 1 / EDGES[SATURATION], EDGES[FIRST], EDGES[GAP])),
    ("gaps 20 % longer", (1.0, 1.0, 1.0, 1.2)),
    ("first message 20 % later", (1.0, 1.0, 1.2, 1.0)),
)
STREAMED_SPREADS = (
    ("0.01, 0.12, 0.10, 0.05", (0.01, 0.12, 0.10, 0.05)),
    ("0.05, 0.15, 0.20, 0.10", (0.05, 0.15, 0.20, 0.10)),
)
"""As :data:`TRUTHS` and :data:`SPREADS`, of the four metrics."""

WORKERS, SLEEP_S, TRANSPORT_S = 8, 0.005, 0.0003
OFFSET = 0.02
"""Standard deviation of the logarithm by which two processes of one program differ for as long as they live."""


def judged(logs: Logs, first: int) -> str:
    """Return what the command says after a look at all lifetimes of which there are values."""
    said = []
    for metric, values in logs.items():
        one = claim(values, first, EDGES[metric])
        wide = claim(values, first, EDGES[metric], alpha=2 * ALPHA / len(logs))
        least = worsening(metric, wide.low, wide.high)[0] if len(logs) > 2 else None
        said.append(judge(metric, EDGES[metric], one.low, one.high, least))
    return overall(said)


def gate(draw: Callable[[int], Logs], first: int, most: int) -> str:
    """Return what is said of a candidate whose run is continued while it is undecided, ``most`` looks in all."""
    logs = draw(first * 2 ** (most - 1))
    said = UNDECIDED
    for look in range(most):
        said = judged({metric: values[: first * 2**look] for metric, values in logs.items()}, first)
        if said != UNDECIDED:
            break
    return said


def shares(said: Sequence[str]) -> str:
    """Return the shares of worse, not worse and undecided as cells of a table."""
    counts = Counter(said)
    return " | ".join(f"{100 * counts[name] / len(said):.1f} %" for name in (WORSE, NOT_WORSE, UNDECIDED))


def drawn(
    rng: np.random.Generator, truth: Sequence[float], spreads: Sequence[float], draw: Draw
) -> Callable[[int], Logs]:
    """Return a function that draws lifetimes of a known truth and noise, of as many of :data:`METRICS` as are given."""

    def values(lifetimes: int) -> Logs:
        return {
            metric: np.array([np.log(ratio) + draw(rng, spread) for _ in range(lifetimes)])
            for metric, ratio, spread in zip(METRICS, truth, spreads, strict=False)
        }

    return values


Cases = Sequence[tuple[str, Sequence[float]]]
"""Names, and a number for each metric."""


def by_noise(runs: int, truths: Cases = TRUTHS, every: Cases = SPREADS, of: str = "p95, λ*") -> None:
    """Print worse / not worse of known ratios, by how lifetimes spread (rows) and are distributed (columns)."""
    print(
        f"\n| truth | lifetimes | spread of {of} | {' | '.join(DRAWS)} |\n|---|---|---|{'---|' * len(DRAWS)}",
        flush=True,
    )
    for truth_name, truth in truths:
        for name, first, most in LOOKS:
            for spread_name, spreads in every:
                cells = []
                for draw in DRAWS.values():
                    rngs = (np.random.default_rng([SEED, k, first]) for k in range(runs))
                    counts = Counter(gate(drawn(rng, truth, spreads, draw), first, most) for rng in rngs)
                    cells.append(" / ".join(f"{100 * counts[said] / runs:.1f}" for said in (WORSE, NOT_WORSE)))
                print(f"| {truth_name} | {name} | {spread_name} | {' | '.join(cells)} |", flush=True)


def by_streams(runs: int) -> None:
    """Print the same of streams, of which four metrics are compared."""
    by_noise(runs, STREAMED_TRUTHS, STREAMED_SPREADS, "p95, λ*, first message, gap")


def server(
    rng: np.random.Generator, slowed: float, jitter_s: float, offset: float, spread: float
) -> Callable[[int], Logs]:
    """Return a function that draws lifetimes of a server with workers that sleep, request by request.

    p95 comes from queues with the same arrivals for both; λ* from searches as a run makes them.

    Args:
        rng: what draws.
        slowed: the candidate's time of service ÷ the reference's.
        jitter_s: mean of an exponential time that the machine adds to each response, s.
        offset: standard deviation of the logarithm by which the two processes differ in all lifetimes.
        spread: of the logarithm of an arm's speed between lifetimes.
    """

    def values(lifetimes: int) -> Logs:
        factors = np.array([1.0, slowed]) * np.exp(rng.normal(0, offset, 2))
        capacity = 0.95 * WORKERS / (SLEEP_S * factors.max())
        service = SLEEP_S * factors * np.exp(rng.normal(0, spread, (lifetimes, 2)))
        p95 = np.zeros(lifetimes)
        for rate in (0.2 * capacity, 0.4 * capacity):
            duration_s = max(1.0, 250 / rate)
            times = np.cumsum(rng.exponential(1 / rate, (lifetimes, round(2 * rate * duration_s))), axis=1)
            both = np.concatenate([times, times])
            queued = responses(both, np.repeat(service.T.reshape(-1, 1), times.shape[1], axis=1), WORKERS)
            response = queued + TRANSPORT_S + rng.exponential(jitter_s, both.shape)
            response[(both < 0.1 * duration_s) | (both > duration_s)] = np.nan
            logs = np.log(np.nanquantile(response, 0.95, axis=1))
            p95 += (logs[lifetimes:] - logs[:lifetimes]) / 2
        loads = [lifetime_logs(searched(rng, lifetimes, 0.03, spread))["value"].to_numpy() - np.log(f) for f in factors]
        return {P95: p95, SATURATION: loads[1] - loads[0]}

    return values


def by_server(runs: int) -> None:
    """Print what is said in three minutes of servers that sleep 5 ms, and 20 % longer."""
    print("\n| candidate | mean jitter | processes differ by | worse | not worse | undecided |")
    print("|---|---|---|---|---|---|", flush=True)
    _, first, most = LOOKS[1]
    for slowed in (1.0, 1.2):
        for jitter_s, offset in ((0.0003, 0.0), (0.0003, OFFSET), (0.001, 0.0)):
            rngs = (np.random.default_rng([SEED, k, first]) for k in range(runs))
            said = [gate(server(rng, slowed, jitter_s, offset, 0.03), first, most) for rng in rngs]
            what = "equal" if slowed == 1 else f"sleeps {100 * (slowed - 1):.0f} % longer"
            print(f"| {what} | {1e3 * jitter_s:g} ms | {100 * offset:g} % | {shares(said)} |", flush=True)


def by_runs(runs: int) -> None:
    """Print what is said of two stored runs, whose lifetimes are independent; no drift of the machine between them."""
    print("\n| truth | arms | lifetimes of each run | spread of p95, λ* of an arm | worse | not worse | undecided |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for truth_name, truth in TRUTHS[:3]:
        for arms, lifetimes in ((2, 7), (12, 7), (2, 20), (12, 20)):
            for spreads in ((0.05, 0.12), (0.15, 0.15)):
                said = []
                for k in range(runs):
                    rng, own = np.random.default_rng([SEED, k, lifetimes]), []
                    for _ in range(arms):
                        for metric, ratio, spread in zip((P95, SATURATION), truth, spreads, strict=True):
                            first = rng.normal(0, spread, lifetimes)
                            second = np.log(ratio) + rng.normal(0, spread, lifetimes)
                            own.append(said_of(metric, first, second, EDGES[metric], 2 * arms))
                    said.append(overall(own))
                spread_text = ", ".join(f"{spread:.2f}" for spread in spreads)
                print(f"| {truth_name} | {arms} | {lifetimes} | {spread_text} | {shares(said)} |", flush=True)


# ------------------------------------------------------------------------------------------ real servers

LONGEST = 4_000_000
"""Requests for which a null server has service times."""


@contextlib.contextmanager
def sleeping(slowed: float, protocol: str, workers: int) -> Iterator[list[str]]:
    """Start two servers that sleep; yields the arguments that name them to the command."""
    from benchmarks.truth.table import url
    from infscale.load.null_server import null_server

    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(
                null_server(service_ns=np.full(LONGEST, round(1e9 * SLEEP_S * own), np.int64), workers=workers)
            )
            for own in (1.0, slowed)
        ]
        yield [url(protocol, one) for one in both]


@contextlib.contextmanager
def triton(protocol: str, *, streams: bool) -> Iterator[list[str]]:
    """Start one Triton, which is both; yields the arguments that name it to the command."""
    from infscale.deployment import deploy

    with deploy("triton", "stream" if streams else "mlp") as endpoint, tempfile.TemporaryDirectory() as scratch:
        payload = endpoint.request(protocol) if streams else endpoint.payload(protocol)
        for k, body in enumerate(payload.bodies):
            (Path(scratch) / f"{k:03d}").write_bytes(body)
        address = f"{endpoint.scheme(protocol)}://{endpoint.address(protocol)}{payload.path}"
        headers = [part for name, value in payload.headers.items() for part in ("--header", f"{name}: {value}")]
        how = [] if payload.stream is None else ["--sse" if payload.stream.way == "sse" else "--stream"]
        yield [address, address, "--body", scratch, *headers, *how]


Served = Callable[[], AbstractContextManager[list[str]]]
"""Starts servers, and yields the arguments that name them to the command."""


def real(times: int, budget: str, served: Served) -> None:
    """Run the command on real servers, and print a row for each time, and the counts."""
    codes: Counter[int] = Counter()
    print("| exit code | s | what | candidate ÷ reference |\n|---|---|---|---|", flush=True)
    for _ in range(times):
        with (
            tempfile.TemporaryDirectory() as scratch,
            served() as named,
        ):
            report, began = Path(scratch) / "gate.xml", time.monotonic()
            command = [
                sys.executable,
                "-m",
                "infscale.cli",
                "compare",
                *named,
                "--budget",
                budget,
                "--junit",
                str(report),
            ]
            ended = subprocess.run(command, capture_output=True, text=True)
            seconds = time.monotonic() - began
            codes[ended.returncode] += 1
            if ended.returncode not in (0, 1, 3):
                sys.exit(f"the command failed ({ended.returncode}): {ended.stderr}")
            cases = ElementTree.parse(report).getroot().iter("testcase")
            what = "; ".join("".join(case.itertext()).strip() for case in cases)
            print(f"| {ended.returncode} | {seconds:.0f} | {what} |", flush=True)
    print(f"\n{times} times: not worse {codes[0]}, worse {codes[1]}, undecided {codes[3]}")


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--simulate", type=int, default=0, metavar="N", help="simulated runs of each row")
    parser.add_argument("--table", choices=("noise", "streams", "server", "runs"), help="this one alone")
    parser.add_argument("--real", type=int, default=0, metavar="N", help="comparisons of real servers")
    parser.add_argument("--slowed", type=float, default=1.0, help="the candidate's sleep ÷ the reference's")
    parser.add_argument("--budget", default="3m", help="of each comparison")
    parser.add_argument("--protocol", choices=("rest", "grpc"), default="rest")
    parser.add_argument("--workers", type=int, default=WORKERS, help="of each real server")
    parser.add_argument("--triton", action="store_true", help="A/A on one Triton")
    parser.add_argument("--streams", action="store_true", help="A/A on one Triton that streams")
    options = parser.parse_args()
    one_triton = options.triton or options.streams
    if one_triton and options.slowed != 1:
        parser.error("--slowed is of the servers that sleep, not of --triton or --streams")
    if not options.simulate and not options.real:
        parser.error("give --simulate N or --real N")
    tables = {"noise": by_noise, "streams": by_streams, "server": by_server, "runs": by_runs}
    for name, table in tables.items():
        if options.simulate and options.table in (None, name):
            table(options.simulate)
    if options.real:
        sleepers = partial(sleeping, options.slowed, options.protocol, options.workers)
        on_triton = partial(triton, options.protocol, streams=options.streams)
        real(options.real, options.budget, on_triton if one_triton else sleepers)


if __name__ == "__main__":
    main()
