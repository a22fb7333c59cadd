"""How often the rules of growth and of steadiness are wrong, on queues whose truth is known.

    python -m benchmarks.truth.gates [cases]

draws trials from queues that start empty (M/M/1, M/D/1, four workers with exponential service), at the lengths that are
used, and judges each by the rules of :mod:`infscale.records.gates`. It prints the tables of docs/gates-simulated.md: of
queues, of few requests, of a fast server that stalls once, and of servers that become faster or slower.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from infscale.records.gates.server import saturated
from infscale.records.gates.steady import own_warm_up_s, steady

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
"""Draws service times with mean 1, of the shape that is asked for."""

SERVICES: dict[str, tuple[Draw, int]] = {
    "M/M/1": (lambda rng, shape: rng.exponential(1.0, shape), 1),
    "M/D/1": (lambda rng, shape: np.ones(shape), 1),
    "M/M/4": (lambda rng, shape: rng.exponential(1.0, shape), 4),
}
RHO = (0.2, 0.4, 0.7, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5)
SIZES = ((50.0, 5.0), (250.0, 1.0), (500.0, 1.0), (2_000.0, 1.0), (10_000.0, 1.0))
"""Arrival rate (1/s) and length (s) of a trial."""

FEW, FEW_RATE = (10, 20, 30, 40, 60, 100, 250), 2.0
"""Mean requests of trials with few of them, and their arrival rate, 1/s."""

FAST = ((50.0, 0.35), (200.0, 0.35), (2_000.0, 0.1), (2_000.0, 0.2))
"""Arrival rate (1/s) and mean service time (ms) of a fast server."""
STALLS_MS = (0, 26, 100, 300)

VARYING: dict[str, Draw] = {
    "exponential": lambda rng, shape: rng.exponential(1.0, shape),
    "lognormal, σ 0.3": lambda rng, shape: np.exp(rng.normal(-0.045, 0.3, shape)),
}
FACTOR = float(np.log(3))
CHANGES: dict[str, Callable[[Floats], Floats]] = {
    "do not change": lambda u: 0 * u,
    "fall threefold in all of the trial": lambda u: -FACTOR * u,
    "fall threefold in its first half": lambda u: -FACTOR * np.minimum(2 * u, 1),
    "are threefold in its first tenth": lambda u: FACTOR * (u < 0.1),
    "rise threefold in all of the trial": lambda u: FACTOR * u,
    "rise threefold in its last half": lambda u: FACTOR * np.maximum(2 * u - 1, 0),
    "rise linearly to twice": lambda u: np.log1p(u),
    "step down by a third at 60 %": lambda u: np.log(1.5) * (u < 0.6),
}
"""Logarithm of the factor on response times, by the share of the trial that has passed."""


def responses(arrivals: Floats, service: Floats, workers: int) -> Floats:
    """Return the response times of FIFO queues with ``workers`` servers; all of shape (cases, requests).

    By the recursion of J. Kiefer and J. Wolfowitz, "On the theory of queues with many servers" (1955): a request begins
    when it has come and the first worker is free. All cases take each step together.
    """
    cases, n = arrivals.shape
    free, rows, ends = np.zeros((cases, workers)), np.arange(cases), np.empty((n, cases))
    for i in range(n):
        first = free.argmin(axis=1) if workers > 1 else 0
        end = np.maximum(arrivals[:, i], free[rows, first]) + service[:, i]
        free[rows, first] = ends[i] = end
    return ends.T - arrivals


def trials(
    rng: np.random.Generator, cases: int, rate: float, duration_s: float, draw: Draw, workers: int, mean_s: float
) -> tuple[list[Floats], list[Floats]]:
    """Return the arrival times and response times of some trials, s, each of shape (requests of that trial,)."""
    counts = rng.poisson(rate * duration_s, cases)
    times = np.sort(rng.uniform(0, duration_s, (cases, max(1, int(counts.max())))), axis=1)
    for row, count in zip(times, counts, strict=True):  # what is too many comes after the end, and is cut off
        row[:count], row[count:] = np.sort(row[rng.permutation(len(row))[:count]]), duration_s + 1
    response = responses(times, draw(rng, times.shape) * mean_s, workers)
    cut = [slice(int(count)) for count in counts]
    return [t[s] for t, s in zip(times, cut, strict=True)], [r[s] for r, s in zip(response, cut, strict=True)]


def rows(times: Floats, response: Floats, timeout_s: float = np.inf) -> pd.DataFrame:
    """Return the columns of the samples table that the rules look at."""
    scheduled = (times * 1e9).astype(np.int64)
    done = scheduled + (np.minimum(response, timeout_s) * 1e9).astype(np.int64)
    status = pd.Categorical(np.where(response > timeout_s, "timeout", "ok"), categories=["ok", "timeout"])
    return pd.DataFrame({"scheduled_ns": scheduled, "done_ns": done, "status": status})


def shares(
    times: list[Floats], response: list[Floats], duration_s: float, timeout_s: float = np.inf
) -> tuple[float, float]:
    """Return the shares of trials that are SATURATED, and UNSTEADY but not SATURATED."""
    found = []
    for t, r in zip(times, response, strict=True):
        frame = rows(t, r, timeout_s)
        grown = not all(gate.passed for gate in saturated(frame, duration_s * 1e9))
        found.append((grown, not grown and not steady(frame, duration_s).passed))
    grown, unsteady = np.mean(found, axis=0)
    return float(grown), float(unsteady)


def queues(cases: int) -> None:
    """Print the shares SATURATED / UNSTEADY of queues, by utilisation ρ."""
    header("queue", "λ, 1/s", "length, s", *(f"ρ {rho}" for rho in RHO))
    for name, (draw, workers) in SERVICES.items():
        for rate, duration_s in SIZES:
            cells = []
            for rho in RHO:
                rng = np.random.default_rng([20261126, int(rate), int(100 * rho)])
                drawn = trials(rng, cases, rate, duration_s, draw, workers, rho * workers / rate)
                cells.append(both(*shares(*drawn, duration_s)))
            line(name, f"{rate:,.0f}", f"{duration_s:g}", *cells)


def few(cases: int) -> None:
    """Print the shares SATURATED / UNSTEADY of trials with few requests, which are given up after ten service times."""
    header("queue", "requests", *(f"ρ {rho}" for rho in (0.5, 0.7, 1.25, 1.5)))
    for name, (draw, workers) in SERVICES.items():
        for requests in FEW:
            cells = []
            for rho in (0.5, 0.7, 1.25, 1.5):
                rng = np.random.default_rng([20261126, requests, int(100 * rho)])
                mean_s = rho * workers / FEW_RATE
                times, response = trials(rng, cases, FEW_RATE, requests / FEW_RATE, draw, workers, mean_s)
                cells.append(both(*shares(times, response, requests / FEW_RATE, 10 * mean_s)))
            line(name, f"{requests}", *cells)


def fast(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw service times with mean 1 that vary little."""
    return 0.85 + rng.exponential(0.15, shape)


def stalls(cases: int) -> None:
    """Print the shares SATURATED / UNSTEADY of a fast server that stops once, at a random moment, in a trial of 1 s."""
    header("λ, 1/s", "service, ms", *(f"stall of {ms} ms" if ms else "no stall" for ms in STALLS_MS))
    for rate, service_ms in FAST:
        cells = []
        for stall_ms in STALLS_MS:
            rng = np.random.default_rng([20261126, int(rate), stall_ms])
            counts = int(rate)

            def draw(rng: np.random.Generator, shape: tuple[int, ...], ms: float = stall_ms) -> Floats:
                service = fast(rng, shape)
                service[np.arange(len(service)), rng.integers(0, counts, len(service))] += ms / service_ms  # noqa: B023
                return service

            cells.append(both(*shares(*trials(rng, cases, rate, 1.0, draw, 1, service_ms / 1000), 1.0)))
        line(f"{rate:,.0f}", f"{service_ms:g}", *cells)


def drifts(cases: int) -> None:
    """Print the shares UNSTEADY of servers at ρ = 0.4 whose response times change in the trial."""
    header("response times", "service", *(f"{rate:,.0f}/s, {duration_s:g} s" for rate, duration_s in SIZES))
    for name, change in CHANGES.items():
        for kind, draw in VARYING.items():
            cells = []
            for rate, duration_s in SIZES:
                rng = np.random.default_rng([20261126, int(rate)])
                times, response = trials(rng, cases, rate, duration_s, draw, 1, 0.4 / rate)
                changed = [r * np.exp(change(t / duration_s)) for t, r in zip(times, response, strict=True)]
                cells.append(percent(shares(times, changed, duration_s)[1]))
            line(name, kind, *cells)


def selection(cases: int) -> None:
    """Print what repeating UNSTEADY trials does to the ratio of the p95 of two arms with the same arrivals, ρ = 0.4.

    A pair counts if neither trial is UNSTEADY, each after the later of both warm-ups. Ratios are geometric means, with
    their standard errors; "all" leaves nothing out, and cuts the first tenth where there is no cut.
    """
    header("arms", "λ, 1/s", "pairs left out", "ratio of all pairs", "ratio of what is kept")
    for name, share in (("alike", 0.0), ("one stalls for 100 ms in one trial of ten", 0.1)):
        for rate in (250.0, 2000.0):
            rng = np.random.default_rng([20261126, int(rate), int(100 * share)])
            times, response = trials(rng, cases, rate, 1.0, VARYING["exponential"], 1, 0.4 / rate)
            logs, kept = [], []
            for t, first in zip(times, response, strict=True):
                service = rng.exponential(0.4 / rate, len(t))
                if rng.uniform() < share:
                    service[rng.integers(0, len(t))] += 0.1
                second = responses(t[None], service[None], 1)[0]
                cuts = [own_warm_up_s(rows(t, r), 1.0) for r in (first, second)]
                sound = all(cut < 1 for cut in cuts)
                after = t >= (max(cuts) if sound else 0.1)
                logs.append(float(np.log(np.quantile(second[after], 0.95) / np.quantile(first[after], 0.95))))
                kept.append(sound)
            line(name, f"{rate:,.0f}", percent(1 - np.mean(kept)), mean_ratio(logs), mean_ratio(np.array(logs)[kept]))


def mean_ratio(logs: npt.ArrayLike) -> str:
    """Return the geometric mean of ratios by their logarithms, and its standard error."""
    x = np.asarray(logs, dtype=np.float64)
    return f"{np.exp(x.mean()):.3f} ± {np.exp(x.mean()) * x.std(ddof=1) / np.sqrt(len(x)):.3f}"


def percent(share: float | np.floating[Any]) -> str:
    """Return a share as a cell of a table."""
    return f"{100 * share:.1f} %"


def both(saturated_share: float, unsteady_share: float) -> str:
    """Return two shares as one cell."""
    return f"{100 * saturated_share:.1f} / {100 * unsteady_share:.1f}"


def header(*names: str) -> None:
    """Print the head of a table."""
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def line(*cells: str) -> None:
    """Print a line of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def main(cases: int) -> None:
    """Print all tables."""
    for table in (queues, few, stalls, drifts, selection):
        table(cases)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
