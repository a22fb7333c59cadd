"""Do the intervals of predictions hold the truth, and is the number of replicas right, on queues with a known answer?

Simulated whole. M/M/1, whose response time is exponential: p = 1 − exp(−(μ − λ) t).

- *simulate*: intervals of a simulation alone, service times known exactly. One from 0 to ∞, "unknown", holds the truth.
- *predict*: service times "measured" in six lifetimes of 300 requests each, whose speeds differ by 5 %; the truth is
  that of the middle speed. The interval also holds what other lifetimes would change.
- *plan*: replicas that are drawn at random are M/M/1 each, so that N = ⌈λ ÷ (μ − ln 100 ÷ limit)⌉ keep a p99.

    python -m benchmarks.truth.planning [--cases 500] [--plans 200]
"""

import argparse
import math

import numpy as np
import pandas as pd

from benchmarks.truth.table import report
from infscale.analysis.planning.capacity import plan
from infscale.analysis.planning.predict import predict
from infscale.analysis.queueing.service import Service
from infscale.analysis.queueing.simulate import PERCENTILES, REQUESTS, Estimate, System, simulate
from infscale.experiment.design.slo import Slo

MEAN_S = 0.01
EXACT = -np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
LIFETIMES, EACH, SPREAD = 6, 300, 0.05
EACH_PREDICTED = 100_000


def truth_ms(p: float, load: float) -> float:
    """Return a percentile of the response time of M/M/1, ms."""
    return -math.log(1 - p) * MEAN_S / (1 - load) * 1e3


def judged(what: str, load: float, found: dict[str, list[Estimate]]) -> list[dict[str, object]]:
    """Return a row for each percentile: how many intervals hold the truth, and on which side it lies otherwise."""
    rows: list[dict[str, object]] = []
    for name, values in found.items():
        truth = truth_ms(PERCENTILES[name], load)
        low, high, value = (np.array([getattr(one, end) for one in values]) for end in ("low", "high", "value"))
        row = {"what": what, "load": load, "percentile": name, "cases": len(values)}
        row |= {"holds_pct": 100 * ((low <= truth) & (truth <= high)).mean(), "below_pct": 100 * (truth < low).mean()}
        row |= {
            "above_pct": 100 * (truth > high).mean(),
            "ends_pct": 100 * (np.median((high / low)[low > 0]) - 1) if low.any() else math.inf,
        }
        row |= {"unknown_pct": 100 * (low == 0).mean()}
        rows.append({**row, "bias_pct": 100 * (value.mean() / truth - 1)})
    return rows


def intervals(load: float, cases: int) -> list[dict[str, object]]:
    """Judge the intervals of simulations."""
    service = Service((MEAN_S * EXACT / EXACT.mean(),))
    found: dict[str, list[Estimate]] = {name: [] for name in PERCENTILES}
    for seed in range(cases):
        result = simulate(service, System(), load / MEAN_S, requests=REQUESTS, seed=seed)
        for name, value in result.percentiles.items():
            found[name].append(value)
    return judged(f"simulate, {REQUESTS:,} requests", load, found)


def predictions(load: float, cases: int) -> list[dict[str, object]]:
    """Judge the intervals of predictions from service times of a few lifetimes."""
    found: dict[str, list[Estimate]] = {name: [] for name in ("p50", "p95", "p99")}
    for seed in range(cases):
        rng = np.random.default_rng((7, seed))
        speeds = np.exp(rng.normal(0, SPREAD, LIFETIMES))
        service = Service(tuple(rng.standard_exponential(EACH) * MEAN_S * speed for speed in speeds))
        result = predict(service, System(), load / MEAN_S, requests=EACH_PREDICTED, seed=seed)
        for name, values in found.items():
            values.append(result.percentiles[name])
    return judged(f"predict, {LIFETIMES} lifetimes of {EACH}", load, found)


def plans(count: int) -> list[dict[str, object]]:
    """Judge numbers of replicas, of rates and limits drawn at random."""
    service, rng = Service((MEAN_S * EXACT / EXACT.mean(),)), np.random.default_rng(8)
    said = {"right": 0, "undecided, truth within": 0, "wrong": 0}
    for seed in range(count):
        rate, limit_ms = float(rng.uniform(100, 3000)), float(rng.uniform(60, 300))
        needed = math.ceil(rate / (1 / MEAN_S - math.log(100) / (limit_ms / 1e3)))
        found = plan(service, System(balancer="random"), rate, Slo("p99", limit_ms), seed=seed)
        held = found.fewest <= needed <= found.most
        said["wrong" if not held else "right" if found.decided else "undecided, truth within"] += 1
    return [{"what": f"plan: {name}", "cases": count, "holds_pct": 100 * n / count} for name, n in said.items()]


def main() -> None:
    """Run all, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--plans", type=int, default=200)
    options = parser.parse_args()
    rows = [row for load in (0.5, 0.9) for row in intervals(load, options.cases)]
    for load in (0.4, 0.7):
        rows += predictions(load, options.cases)
        report("planning", pd.DataFrame(rows))
    report("planning", pd.DataFrame([*rows, *plans(options.plans)]))


if __name__ == "__main__":
    main()
