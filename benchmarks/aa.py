"""A/A on real servers: a sound procedure finds no difference between arms that are alike.

First six pairs of alike arms go through the whole procedure, as a run of the headline does: REST to one Triton, arms
that differ only in how many connections they may open, of which they never need more than a few. Twelve contrasts, of
p95 and of λ*. Then one arm is loaded with an idle TorchServe beside its server, and without it, in turn within each
lifetime: what runs beside an arm only because its group runs together must not matter.

    python -m benchmarks.aa [--budget 480] [--lifetimes 10]
"""

import argparse
import contextlib
import tempfile
from pathlib import Path

import numpy as np

from infscale.analysis.allocation import allocate
from infscale.analysis.answers import UNDECIDED
from infscale.analysis.intervals import Interval, geometric_mean
from infscale.analysis.tables import tabulate
from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design, against_first
from infscale.experiment.measure import measure
from infscale.experiment.settle import drain
from infscale.experiment.trial import Plan
from infscale.records.gate import VALID

PAIRS = 6
RATES = (600.0, 1200.0)
SECONDS, TRIALS = 1.0, 2
"""Length of a trial beside a neighbour, s, and trials at each rate."""


def alike(budget_s: float) -> None:
    """Compare alike arms, and print what was said of them."""
    pairs = [[Arm("rest", framework="triton", connections=250 + 2 * k + j) for j in (0, 1)] for k in range(PAIRS)]
    arms, contrasts = against_first(*pairs)
    design = Design(finding="aa", arms=arms, contrasts=contrasts, budget_s=budget_s)
    with tempfile.TemporaryDirectory() as scratch:
        table = tabulate(measure(design, Path(scratch), allocate=allocate, say=lambda _: None)).contrasts
    print(table[["metric", "ratio", "ratio_low", "ratio_high", "answer", "lifetimes", "spread"]].to_string(index=False))
    outside = ((table["ratio_low"] > 1) | (table["ratio_high"] < 1)).sum()
    print(f"{(table['answer'] != UNDECIDED).sum()} of {len(table)} decided under Holm, {outside} intervals exclude 1")


def p95_ms(endpoint: Endpoint, arm: Arm, key: tuple[int, ...]) -> float:
    """Return the geometric mean of p95 over all rates and trials, ms; trials that are not VALID are left out."""
    values = []
    for k, rate in enumerate(RATES * TRIALS):
        drain(endpoint)
        outcome = trial.run(endpoint, Plan(arm, rate, SECONDS, key=(*key, k)))
        if outcome.verdict == VALID:
            rows = outcome.samples
            values.append(float(np.quantile(rows["done_ns"] - rows["scheduled_ns"], 0.95)) / 1e6)
    return geometric_mean(values).value


def beside(lifetimes: int) -> Interval:
    """Return the ratio of an arm's p95 with an idle neighbour to that without, over lifetimes."""
    arm, ratios = Arm("rest", framework="triton"), []
    for number in range(lifetimes):
        times: dict[bool, float] = {}
        with deploy("triton", "mlp") as endpoint:
            for k in range(3):
                trial.run(endpoint, Plan(arm, RATES[-1], SECONDS, key=(98, k)))
            for neighbour in (True, False) if number % 2 else (False, True):
                with deploy("torchserve", "mlp") if neighbour else contextlib.nullcontext():
                    times[neighbour] = p95_ms(endpoint, arm, (number,))
        ratios.append(times[True] / times[False])
    return geometric_mean([ratio for ratio in ratios if np.isfinite(ratio)])


def main() -> None:
    """Run both, and print what they show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=480, help="seconds for the alike arms")
    parser.add_argument("--lifetimes", type=int, default=10, help="with and without a neighbour")
    options = parser.parse_args()
    alike(options.budget)
    ratio = beside(options.lifetimes)
    print(
        f"p95 beside an idle neighbour is {ratio.value:.3f} times that without: 95 % interval {ratio.low:.3f} to "
        f"{ratio.high:.3f}, {ratio.lifetimes} lifetimes"
    )


if __name__ == "__main__":
    main()
