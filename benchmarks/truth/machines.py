"""The whole procedure of ``infscale merge``, simulated against a truth that is known; and intervals over blocks.

Machines are drawn around a true ratio, lifetimes around each machine's own; what they say goes through what a user's
runs go through: an estimate of each machine, and all together as a random effect.

    python -m benchmarks.truth.machines [CASES]

prints the tables of docs/machines-simulated.md.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats

from benchmarks.truth.answers import DRAWS, Draw
from infscale.analysis.merging.blocks import BLOCKS, uncertainty
from infscale.analysis.merging.pooled import Estimate, Pooled, estimate, pool
from infscale.records.gate import Floats

RATIO = 1.3
"""The true ratio, of which machines have ratios of their own."""

LIFETIME = 0.19
"""Standard deviation of the logarithm of a p95 ratio between lifetimes, as measured on real servers."""

MACHINES = (3, 8)
BETWEEN = (0.0, 0.1, 0.3)
"""Standard deviations τ of the logarithm of the ratio between machines."""

LIFETIMES = (4, 8)
"""Fewest and most lifetimes of a machine; each has its own number."""


@dataclass(frozen=True)
class Case:
    """How one set of machines is drawn: their number, τ, their lifetimes, and the distribution of either."""

    machines: int
    between: float
    draw: Draw
    machine_draw: Draw = DRAWS["normal"]
    noisier: float = 1.0

    def logs(self, rng: np.random.Generator, centre: float, spread: float) -> list[float]:
        """Return the log ratios of a machine's lifetimes."""
        return [centre + self.draw(rng, spread) for _ in range(rng.integers(LIFETIMES[0], LIFETIMES[1] + 1))]

    def simulate(self, rng: np.random.Generator) -> tuple[list[Estimate], list[float], Pooled | None, Estimate]:
        """Return the machines' estimates, their own true ratios, what is pooled, and what one more machine shows."""
        centres = [np.log(RATIO) + self.machine_draw(rng, self.between) for _ in range(self.machines + 1)]
        spreads = [LIFETIME * (self.noisier if k == 0 else 1.0) for k in range(self.machines)]
        found = [estimate(self.logs(rng, *own)) for own in zip(centres, spreads, strict=False)]
        following = estimate(self.logs(rng, centres[-1], LIFETIME))
        return found, [float(np.exp(centre)) for centre in centres[:-1]], pool(found), following


KINDS: dict[str, tuple[str, str, float]] = {
    "normal": ("normal", "normal", 1.0),
    "one machine 3 times as noisy": ("normal", "normal", 3.0),
    "heavy-tailed lifetimes": ("heavy-tailed", "normal", 1.0),
    "heavy-tailed machines": ("normal", "heavy-tailed", 1.0),
    "one lifetime in ten stalled": ("one in ten stalled", "normal", 1.0),
    "one lifetime in ten lost": ("one in ten lost", "normal", 1.0),
}
"""What is drawn: lifetimes, machines, and how many times as noisy the first machine is."""

CELLS = [(kind, machines, between) for kind, machines, between in product(KINDS, MACHINES, BETWEEN)]


def cell(kind: str, machines: int, between: float, cases: int, seed: int = 20261127) -> dict[str, float]:
    """Return shares: of intervals that hold the truth (of a machine, of the mean, of τ), of prediction intervals that
    hold one more machine's estimate, of cases that are pooled; and the median width of the mean's, as a ratio of ends.
    """
    lifetimes, machine_draw, noisier = KINDS[kind]
    case = Case(machines, between, DRAWS[lifetimes], DRAWS[machine_draw], noisier)
    own: list[bool] = []
    mean: list[bool] = []
    spread: list[bool] = []
    ahead: list[bool] = []
    widths: list[float] = []
    for k in range(cases):
        rng = np.random.default_rng([seed, list(KINDS).index(kind), machines, round(100 * between), k])
        found, truths, both, following = case.simulate(rng)
        own += [one.low <= truth <= one.high for one, truth in zip(found, truths, strict=True) if not one.why]
        if both is not None:
            mean.append(both.low <= RATIO <= both.high)
            spread.append(both.between_low <= np.exp(between) <= both.between_high)
            widths.append(both.high / both.low)
            if not following.why:
                ahead.append(both.next_low <= following.ratio <= both.next_high)
    shares = {"own": own, "mean": mean, "spread": spread, "ahead": ahead}
    return {
        **{name: float(np.mean(held)) for name, held in shares.items()},
        "pooled": len(mean) / cases,
        "width": float(np.median(widths)),
    }


# --------------------------------------------------------------------------------- intervals over blocks


LEVELS = (0.5, 0.95, 0.99)


def queue(rng: np.random.Generator, load: float, n: int) -> Floats:
    """Return the response times of n requests to an M/M/1 queue that serves one a second, in equilibrium, s."""
    service, gaps = rng.exponential(1, n), rng.exponential(1 / load, n)
    first = rng.exponential(1 / (1 - load)) if rng.random() < load else 0.0  # the wait of the first one
    walk = np.concatenate([[0.0], np.cumsum(service[:-1] - gaps[1:])])
    times: Floats = np.maximum(first + walk, walk - np.minimum.accumulate(walk)) + service
    return times


def covers(load: float, n: int, cases: int, seed: int = 20261127) -> dict[float, tuple[float, float]]:
    """Return shares of cases by percentile of M/M/1's response times: with an interval, and with one that is wrong."""
    given, wrong = dict.fromkeys(LEVELS, 0), dict.fromkeys(LEVELS, 0)
    for k in range(cases):
        times = queue(np.random.default_rng([seed, n, round(100 * load), k]), load, n)
        ranked = np.sort(times)
        for level in LEVELS:
            truth, value = -np.log(1 - level) / (1 - load), ranked[int(np.ceil(n * level)) - 1]
            parts = np.array_split(times <= value, BLOCKS)
            one = uncertainty([part.size for part in parts], [part.sum() for part in parts])
            low, high = level - one.half, level + one.half
            if not one.why and low > 0 and high < 1:
                given[level] += 1
                ends = (ranked[int(np.ceil(n * end)) - 1] for end in (low, high))
                wrong[level] += not next(ends) <= truth <= next(ends)
    return {level: (given[level] / cases, wrong[level] / cases) for level in LEVELS}


QUEUED = 2000
"""Cases of a queue."""
QUEUES = [(load, n) for n in (20_000, 200_000) for load in (0.5, 0.8, 0.9)]


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.1f} %"


def line(cells: Sequence[object]) -> None:
    """Print a line of a table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main(cases: int) -> None:
    """Print both tables."""
    low, high = (float(stats.binom.ppf(end, cases, 0.95)) / cases for end in (0.005, 0.995))
    print(f"{cases} cases a cell; the 99 % band around 95 % is {percent(low)} to {percent(high)}\n")
    line(
        [
            "lifetimes and machines are",
            "machines",
            "τ",
            "of one machine",
            "mean",
            "one more machine",
            "τ",
            "width",
            "pooled",
        ]
    )
    line(["---"] * 9)
    for kind, machines, between in CELLS:
        got = cell(kind, machines, between, cases)
        shares = [percent(got[name]) for name in ("own", "mean", "ahead", "spread")]
        line([kind, machines, f"{between:g}", *shares, f"{got['width']:.2f}", percent(got["pooled"])])
    print()
    of_queues()


def of_queues() -> None:
    """Print the table of intervals over blocks."""
    line(["load of M/M/1", "requests", *(f"p{100 * level:g}: given, wrong" for level in LEVELS)])
    line(["---"] * (2 + len(LEVELS)))
    for load, n in QUEUES:
        queued = covers(load, n, QUEUED).values()
        line([load, f"{n:,}", *(f"{percent(given)}, {percent(wrong)}" for given, wrong in queued)])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
