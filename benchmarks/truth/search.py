"""λ* of two equal arms, searched as a run does it: how often an interval over lifetimes says that they differ.

A trial keeps up with a probability that falls with its rate along a logistic curve (its *softness* is the scale over
the logarithm of the rate), and each lifetime's capacity differs at random. Each search begins where earlier ones ended.

    python -m benchmarks.truth.search [RUNS]

prints a line for each number of lifetimes, softness and spread: the share of runs in which Student's t at 5 % finds a
difference, over the middles of brackets and over the values that the tables take.
"""

import sys

import numpy as np
import pandas as pd
from scipy import stats

from infscale.analysis.tables.saturation import lifetime_brackets, lifetime_logs
from infscale.experiment.lifetime.search import DITHER, STEP, _Search
from infscale.records.gate import SATURATED, VALID

START_ERROR = 0.3
"""Standard deviation of the logarithm of the first rate, which the rough search gives."""


def searched(rng: np.random.Generator, lifetimes: int, softness: float, spread: float) -> pd.DataFrame:
    """Return the trials of one arm whose λ* is 1."""
    start, rows = rng.normal(0, START_ERROR), []
    middles: list[float] = []
    for number in range(lifetimes):
        capacity = rng.normal(0, spread)
        first = (np.mean(middles) if middles else start) + np.log(STEP) * rng.uniform(-DITHER, DITHER)
        one = _Search(0, float(np.exp(first)), 1e9)
        while not one.done:
            verdict = VALID if np.log(one.rate) + softness * rng.logistic() < capacity else SATURATED
            rows.append((number, one.rate, verdict))
            one.judge(verdict)
        middles.append(np.log(one.low * one.high) / 2)
    return pd.DataFrame(rows, columns=["lifetime", "rate_per_s", "verdict"]).assign(arm=0, phase="search", closed=False)


def main(runs: int) -> None:
    """Print the table."""
    print("| lifetimes | softness | spread | middles of brackets | values |\n|---|---|---|---|---|")
    for lifetimes in (7, 20):
        for softness in (0.001, 0.03, 0.06, 0.09, 0.12):
            for spread in (0.05, 0.15):
                rng, found = np.random.default_rng(20261126), np.zeros(2)
                for _ in range(runs):
                    pair = [searched(rng, lifetimes, softness, spread) for _ in range(2)]
                    ends = [np.log(lifetime_brackets(one)[["low_per_s", "high_per_s"]]).mean(axis=1) for one in pair]
                    values = [lifetime_logs(one)["value"] for one in pair]
                    for k, (one, other) in enumerate((ends, values)):
                        found[k] += stats.ttest_1samp(one - other, 0).pvalue < 0.05
                shares = " | ".join(f"{100 * share:.1f} %" for share in found / runs)
                print(f"| {lifetimes} | {softness:g} | {spread:g} | {shares} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
