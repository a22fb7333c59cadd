"""A/A: the same arm compared with itself on a real server. A sound procedure finds a difference in at most 5 %.

Pairs of trials with the same arrivals, in random order, one ratio of p95 for every five pairs; Triton's
``mlp`` over gRPC and REST in turn, at three rates below saturation.

    python -m benchmarks.aa [--comparisons 40] [--seconds 1.5]
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import stats

from infscale.analysis.intervals import geometric_mean
from infscale.analysis.tables.trials import measures
from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.trial import Plan
from infscale.records.gate import VALID

PAIRS = 5
RATES = (300.0, 700.0, 1200.0)


def p95_ms(endpoint: Endpoint, arm: Arm, rate: float, seconds: float, key: tuple[int, ...]) -> float:
    """The p95 response time of one trial; NaN unless it is VALID."""
    outcome = trial.run(endpoint, Plan(arm, rate, seconds, key=key))
    if outcome.verdict != VALID:
        return float("nan")
    value = measures(outcome.samples, seconds, 5.0, 100.0)["response_p95_ms"]
    assert isinstance(value, float)
    return value


def main() -> None:
    """Compare, and print how often a difference was found beside what chance allows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    rng, counts, spreads = np.random.default_rng(1), Counter[str](), []
    load = Path("/proc/loadavg").read_text().split()[0]
    with deploy("triton", "mlp") as endpoint:
        for protocol in ("rest", "grpc"):
            trial.run(endpoint, Plan(Arm(protocol), 500.0, 2.0))
        for i in range(options.comparisons):
            arm, rate = Arm(("rest", "grpc")[i % 2]), RATES[i % len(RATES)]
            ratios = []
            for pair in range(PAIRS):
                times = [p95_ms(endpoint, arm, rate, options.seconds, (i, pair)) for _ in range(2)]
                one, other = rng.permutation(2)
                ratios.append(times[one] / times[other])
            finite = [ratio for ratio in ratios if np.isfinite(ratio)]
            interval = geometric_mean(finite)
            differs = interval.p_value < 0.05
            counts["withheld" if np.isnan(interval.low) else "different" if differs else "not told apart"] += 1
            spreads.append(np.std(np.log(finite), ddof=1) if len(finite) > 1 else np.nan)
    known = counts["different"] + counts["not told apart"]
    allowed = stats.binom.ppf(0.99, known, 0.05)
    print(f"load average {load} at the start; {dict(counts)}")
    print(f"{counts['different']} of {known} differ at 5 %; chance allows up to {allowed:.0f}")
    print(f"ratios differ by {np.expm1(np.nanmedian(spreads)):.0%} between pairs (median)")


if __name__ == "__main__":
    main()
