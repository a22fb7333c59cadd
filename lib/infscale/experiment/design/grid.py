"""The protocol × λ grid (F0): its factors, its profiles, its order, and how long it takes."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from infscale.errors import ConfigError, check_rate, one_of
from infscale.experiment.design.case import Case
from infscale.experiment.trial import Arm
from infscale.models import reference as models
from infscale.vocabulary import FRAMEWORKS, OTHER, PROTOCOLS, clock

LEAST_REQUESTS = 100
"""Five beyond p95 on average; on a slow link, or with bodies of megabytes, a short trial would hold a handful."""


QUICK_FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.1)

# Seconds beside the arrivals themselves, from runs on two cores; they only feed the time plan.
_START_S, _WARM_S, _BETWEEN_S, _PILOT_ARM_S, _CEILING_S = 6.0, 2.5, 0.5, 20.0, 7.0


@dataclass(frozen=True)
class Grid:
    """Factors and sizes of one run.

    Attributes:
        frameworks, protocols: levels of the two factors.
        model: a reference model.
        replicates: repeats of every arm, each in a new random order on restarted servers.
        trial_s: seconds of arrivals of a trial.
        fractions: λ as shares of the pilot's saturation rate.
        timeout_s: from the scheduled time.
        seed: of arrivals, payload choice and order.
        fill_tail: let a trial last 1,000/λ at least, so that p99 is carried.
        restart: start the server anew after a SATURATED trial; otherwise it only drains until it is idle. (It always
            restarts between replicates.)
        sensitivity: also try the defaults that F0 fixes (connections, encoding), at one rate.
        most_per_s: no rate above is tried.
        bisections: trials that narrow an arm's bracket of λ* in each replicate.
        experiment: "protocol-grid" (F0), "compare" (the same of somebody's own endpoint), or the name of a finding.
        cases: the arms of a finding, which then take the place of frameworks × protocols × rates: each gets its
            capacity by bisection and one trial at a common rate, ``fractions`` × the smallest capacity of its block.
        profile: the name under which the sizes are known.
    """

    frameworks: tuple[str, ...] = tuple(FRAMEWORKS)
    protocols: tuple[str, ...] = PROTOCOLS
    model: str = "mlp"
    replicates: int = 3
    trial_s: float = 4.0
    fractions: tuple[float, ...] = QUICK_FRACTIONS
    timeout_s: float = 1.0
    seed: int = 1
    fill_tail: bool = False
    restart: bool = False
    sensitivity: bool = True
    bisections: int = 0
    most_per_s: float = 30_000.0
    experiment: str = "protocol-grid"
    cases: tuple[Case, ...] = ()
    profile: str = "quick"

    def __post_init__(self) -> None:
        for name, accepted in (("frameworks", FRAMEWORKS), ("protocols", PROTOCOLS)):
            values = getattr(self, name)
            if not values:
                raise ConfigError(f"{name}=[] makes an empty grid; accepted: any of {', '.join(accepted)}")
            for value in values:
                if value != OTHER:
                    one_of(name, value, accepted)
            if len(set(values)) < len(values):
                raise ConfigError(f"{name}={list(values)} names a level twice")
        if OTHER not in self.frameworks:
            models.model(self.model)
        if not self.fractions:
            raise ConfigError("fractions=[] makes an empty grid; accepted: shares of the saturation rate, such as 0.5")
        for fraction in self.fractions:
            check_rate(fraction, "fractions")
        check_rate(self.trial_s, "trial_s")
        check_rate(self.timeout_s, "timeout_s")
        if not isinstance(self.replicates, int) or self.replicates < 1:
            raise ConfigError(f"replicates={self.replicates!r} is not a number of repeats; accepted: 1 or more")

    def digest(self) -> str:
        """Twelve hexadecimal digits that differ where any factor or size does."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def config(self) -> dict[str, Any]:
        """For the run's manifest."""
        return {**dataclasses.asdict(self), "rates_n": len(self.fractions), "trials_n": self.trials()}

    def duration_s(self, rate_per_s: float) -> float:
        """Seconds of arrivals at one λ: those of a finding hold :data:`LEAST_REQUESTS`, as p95 needs them."""
        least = 1000 if self.fill_tail else LEAST_REQUESTS if self.cases else 0
        return max(self.trial_s, least / rate_per_s)

    def trials(self) -> int:
        """Trials of the grid, pilot and repeats apart."""
        if self.cases:
            return len(self.cases) * self.replicates * (len(self.fractions) + self.bisections)
        return len(self.frameworks) * len(self.protocols) * len(self.fractions) * self.replicates

    def extra_trials(self) -> int:
        """Trials of the sensitivity check."""
        arms = sum(a.protocol in self.protocols for f in self.frameworks for a in sensitivity_arms(f))
        return arms * self.replicates * self.sensitivity

    def contrasts(self) -> list[dict[str, str]]:
        """The comparisons that the run is made for, named before it: what the headline is allowed to be."""
        if self.cases:
            what = {"metric": "response_p95_ms", "paired_by": "replicate", "correction": "Holm over the cases"}
            return [{"over": case.name, "under": case.against, **what} for case in self.cases if case.against]
        if len(self.protocols) < 2:
            return []
        what = {"over": "rest", "under": "grpc", "metric": "response_p95_ms", "paired_by": "replicate"}
        return [{"framework": name, **what, "correction": "Holm over λ"} for name in self.frameworks]

    def expected_files(self) -> int:
        """Trials that the run will store, pilot and sensitivity check included, repeats apart; roughly."""
        arms = len(self.frameworks) * len(self.protocols)
        if self.cases:
            return self.trials() + 6 * len(self.cases)
        return self.trials() + 8 * arms + self.extra_trials() + self.bisections * arms * self.replicates

    def seconds(self) -> float:
        """Rough duration of the whole run."""
        return sum(seconds for _, seconds in self.parts())

    def parts(self) -> list[tuple[str, float]]:
        """What takes how long: name and seconds."""
        if self.cases:
            return self._parts_of_cases()
        arms = len(self.frameworks) * len(self.protocols)
        # About a third of an arm's rates saturate: they drain into timeouts.
        saturated = math.ceil(self.trials() / 3)
        starts = len(self.frameworks) * (self.replicates + 1) + saturated * self.restart
        starts += len(self.frameworks) * self.replicates * bool(self.bisections)
        extra = self.extra_trials()
        tail = self.timeout_s / 2 * saturated
        narrowing = self.bisections * arms * self.replicates
        return [
            ("the generator's own ceiling", _CEILING_S * len(self.protocols)),
            (f"pilot: λ of {arms} arms", _PILOT_ARM_S * arms),
            (f"{self.trials()} trials of {self.trial_s:g} s", self.trials() * (self.trial_s + _BETWEEN_S) + tail),
            (f"{extra} trials of the sensitivity check", extra * (self.trial_s + _BETWEEN_S)),
            (f"{narrowing} trials that narrow λ*", narrowing * (self.trial_s + _BETWEEN_S + self.timeout_s / 4)),
            (f"about {starts} server starts and warm-ups", starts * (_START_S + _WARM_S * len(self.protocols))),
        ]

    def _parts_of_cases(self) -> list[tuple[str, float]]:
        """The same for a finding."""
        starts = len({case.deployment for case in self.cases}) * (self.replicates + 1)
        narrowing = len(self.cases) * self.bisections
        common = len(self.cases) * len(self.fractions) * self.replicates
        each = self.trial_s + _BETWEEN_S + self.timeout_s / 4
        warm = _WARM_S * len(self.cases) * (self.replicates + 1)
        return [
            ("the generator's own ceiling", _CEILING_S * len(self.protocols)),
            (f"pilot: capacity of {len(self.cases)} cases", _PILOT_ARM_S * len(self.cases)),
            (f"{common} trials at common rates", common * each),
            (f"{narrowing * self.replicates} trials that narrow capacities", narrowing * self.replicates * each),
            (f"{starts} server starts and warm-ups", starts * _START_S + warm),
        ]

    def time_plan(self) -> str:
        """The plan as text, to be printed before anything starts."""
        lines = [f"Time plan, profile {self.profile} ({self.replicates} replicates, {len(self.fractions)} rates):"]
        lines += [f"  {clock(seconds):>8}  {what}" for what, seconds in self.parts() if seconds]
        return "\n".join([*lines, f"  {clock(self.seconds())}  in all, roughly"])

    def order(self, replicate: int) -> list[tuple[str, list[tuple[Arm, int]]]]:
        """A replicate's random order: frameworks, and within each its (arm, index of λ) pairs."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(99, replicate)))
        frameworks = [self.frameworks[i] for i in rng.permutation(len(self.frameworks))]
        pairs = [(Arm(p), i) for p in self.protocols for i in range(len(self.fractions))]
        return [(f, [pairs[i] for i in rng.permutation(len(pairs))]) for f in frameworks]


def sensitivity_arms(framework: str) -> Iterator[Arm]:
    """Arms beside F0's that show how much its fixed defaults decide."""
    yield Arm("grpc", connections=1)
    if framework in ("torchserve", "triton"):  # TensorFlow Serving's REST takes JSON only
        yield Arm("rest", encoding="raw")
