"""The whole procedure of answers, simulated against a truth that is known.

Runs of F0's shape (three groups of four contrasts: p95 and λ*, each for two payloads) are drawn with lifetimes whose
log ratios spread as measured (0.19 of p95, 0.17 of λ*), and go through what a user's run goes through: a first look
when the budget is spent, then continuations in which the contrasts themselves decide who gets the next lifetime.

    python -m benchmarks.truth.answers [RUNS] [DRAW]

prints the table of docs/answers-simulated.md, or the rows of one way to draw.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infscale.analysis.allocation import order
from infscale.analysis.answers import DIFFERS, EQUAL, Claim, answers, claim, looks

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, float], float]

GROUPS, PER_GROUP = 3, 4
MARGINS = [1.10, 1.10, 1.15, 1.15] * GROUPS
SPREADS = [0.19, 0.19, 0.17, 0.17] * GROUPS
PLACES = [k // PER_GROUP for k in range(GROUPS * PER_GROUP)]


def normal(rng: np.random.Generator, spread: float) -> float:
    """Draw from a normal distribution."""
    return float(rng.normal(0, spread))


def heavy(rng: np.random.Generator, spread: float) -> float:
    """Draw from Student's t with 3 degrees of freedom, scaled to the spread."""
    return float(rng.standard_t(3) * spread / np.sqrt(3))


def stalled(rng: np.random.Generator, spread: float) -> float:
    """Draw from a normal distribution; in one lifetime of ten, one of the arms stalled and took three times as long."""
    shift = np.log(3) * rng.choice([-1, 1]) if rng.random() < 0.1 else 0.0
    return float(rng.normal(0, spread) + shift)


def lost(rng: np.random.Generator, spread: float) -> float:
    """Draw from a normal distribution; one lifetime in ten says nothing: its trials were INVALID or UNSTEADY."""
    return float("nan") if rng.random() < 0.1 else float(rng.normal(0, spread))


DRAWS: dict[str, Draw] = {
    "normal": normal,
    "heavy-tailed": heavy,
    "one in ten stalled": stalled,
    "one in ten lost": lost,
}


@dataclass
class Run:
    """One simulated run: the values of its contrasts so far."""

    truth: list[float]
    first: int
    draw: Draw
    rng: np.random.Generator
    values: list[list[float]] = field(default_factory=lambda: [[] for _ in PLACES])
    claims: dict[tuple[int, int], Claim] = field(default_factory=dict)

    def claim(self, k: int) -> Claim:
        """Return what can be claimed of a contrast; it changes at its looks alone."""
        seen = k, len(looks(self.first, len(self.values[k])))
        if seen not in self.claims:
            self.claims[seen] = claim(self.values[k], self.first, MARGINS[k])
        return self.claims[seen]

    def lifetime(self, place: int) -> None:
        """Measure one lifetime of a group."""
        for k, own in enumerate(PLACES):
            if own == place:
                self.values[k].append(np.log(self.truth[k]) + self.draw(self.rng, SPREADS[k]))

    def begin(self) -> None:
        """Measure until the first look."""
        for _ in range(self.first):
            for place in range(GROUPS):
                self.lifetime(place)

    def go_on(self, lifetimes: int) -> None:
        """Measure further lifetimes of the groups that decide most."""
        arrays = [np.array(own) for own in self.values]
        for _ in range(lifetimes):
            claims = [self.claim(k) for k in range(len(PLACES))]
            places = order(claims, arrays, MARGINS, PLACES, [1.0] * GROUPS, self.first)
            if not places:
                return
            self.lifetime(places[0])
            arrays = [np.array(own) for own in self.values]

    def judge(self) -> tuple[list[str], list[bool]]:
        """Return the answers, and whether each interval holds the truth."""
        claims = [self.claim(k) for k in range(len(PLACES))]
        held = [one.low <= ratio <= one.high for one, ratio in zip(claims, self.truth, strict=True)]
        return answers(claims), held


def false_claim(answer: str, ratio: float, margin: float) -> bool:
    """Return whether an answer is wrong: "differs" of 1, or "equal" of a ratio at or beyond the margin."""
    return (answer == DIFFERS and ratio == 1) or (answer == EQUAL and abs(np.log(ratio)) >= np.log(margin) - 1e-9)


def simulate(
    runs: int, truth: list[float], first: int, more: tuple[int, ...], draw: Draw, seed: int
) -> dict[str, float]:
    """Return shares over runs, and over contrasts of all runs.

    ``wrong``: runs with a false claim after any stage; ``covered``: intervals that hold the truth at the end;
    ``differs``, ``equal``: answers at the end; ``lifetimes``: mean lifetimes of a group at the end.
    """
    wrong = covered = differs = equal = total = lifetimes = 0
    for k in range(runs):
        run = Run(truth, first, draw, np.random.default_rng([seed, k]))
        run.begin()
        said, held = run.judge()
        bad = any(map(false_claim, said, truth, MARGINS))
        for extra in more:
            run.go_on(extra)
            said, held = run.judge()
            bad = bad or any(map(false_claim, said, truth, MARGINS))
        wrong += bad
        covered += sum(held)
        total += len(held)
        differs += said.count(DIFFERS)
        equal += said.count(EQUAL)
        lifetimes += sum(map(len, run.values))
    return {
        "wrong": wrong / runs,
        "covered": covered / total,
        "differs": differs / total,
        "equal": equal / total,
        "lifetimes": lifetimes / total,
    }


SCENARIOS: tuple[tuple[str, list[float], int, tuple[int, ...]], ...] = (
    ("all 1.0; 7 lifetimes, then 3 continuations", [1.0] * 12, 7, (21, 21, 21)),
    ("half 1.0, half at the margin; 7, then 3", [1.0, 1.10, 1.0, 1.15] * 3, 7, (21, 21, 21)),
    ("all 1.5; 7 lifetimes (15 minutes)", [1.5] * 12, 7, ()),
    ("one 1.5, others 1.0; 7 lifetimes", [1.5, *[1.0] * 11], 7, ()),
    ("all 1.2; 20 lifetimes (45 minutes)", [1.2] * 12, 20, ()),
    ("one 1.2, others 1.0; 20 lifetimes", [1.2, *[1.0] * 11], 20, ()),
    ("all 1.0; 40 lifetimes", [1.0] * 12, 40, ()),
    ("half 1.0, half at the margin; 80 lifetimes", [1.0, 1.10, 1.0, 1.15] * 3, 80, ()),
    ("all at the margin; 40, then 3 continuations", [1.10, 1.10, 1.15, 1.15] * 3, 40, (40, 40, 40)),
)


def main(runs: int, only: str = "") -> None:
    """Print the table."""
    print(
        "| truth and run | lifetimes | runs with a false claim | intervals that cover | differs | equal | lifetimes |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, truth, first, more in SCENARIOS:
        for kind, draw in {kind: draw for kind, draw in DRAWS.items() if only in ("", kind)}.items():
            got = simulate(runs, truth, first, more, draw, seed=20261126)
            cells = [f"{100 * got[key]:.1f} %" for key in ("wrong", "covered", "differs", "equal")]
            print(f"| {name} | {kind} | {' | '.join(cells)} | {got['lifetimes']:.1f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, "".join(sys.argv[2:3]))
