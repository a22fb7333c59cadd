"""The search for λ* of all arms of a lifetime, in turn.

An arm's rate goes up by a step while it keeps up and down while it does not, until both ends of a bracket of one step
are known. The first rate is the middle of what earlier lifetimes found, moved at random by up to half a step up or
down. That is one step in all: where in its step a bracket lies is uniform then, whatever the earlier lifetimes found,
and so the brackets of lifetimes are independent and without bias, also where a server's limit is sharp.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from infscale.deployment.endpoint import Endpoint
from infscale.experiment.session import Session
from infscale.experiment.settle import drain
from infscale.load import ceiling
from infscale.records.gate import INVALID, UNSTEADY, VALID

STEP = 1.25
"""Ratio of the two ends of a bracket."""

DITHER = 0.5
"""Largest move of the first rate, in steps."""

MOST_TRIALS, MOST_INVALID = 12, 3
"""Most trials of an arm in a lifetime, and most INVALID ones among them."""

CEILING_SHARE = 0.8
"""The search goes no higher than this share of what a null server answers to the generator."""


@dataclass
class _Search:
    """The state of one arm's search: the bracket so far, and the next rate."""

    arm: int
    rate: float
    most: float
    low: float = 0.0
    high: float = math.inf
    trials: int = 0
    invalid: int = 0
    outward: int = 0
    again: bool = False

    @property
    def done(self) -> bool:
        bracketed = self.low > 0 and self.high <= self.low * STEP * 1.001
        spent = self.trials >= MOST_TRIALS or self.invalid >= MOST_INVALID
        return bracketed or spent or self.low >= self.most

    def judge(self, verdict: str) -> None:
        """Take in the verdict of a trial at :attr:`rate`, and choose the next rate.

        An UNSTEADY trial is repeated once, with other arrivals: of sound trials near saturation one in six is.
        """
        self.trials += 1
        if verdict == INVALID:
            self.invalid += 1
            return
        if verdict == UNSTEADY and not self.again:
            self.again = True
            return
        self.again = False
        if verdict == VALID:
            self.low = self.rate
        else:
            self.high = self.rate
        if self.low and math.isfinite(self.high):
            self.rate = float(np.sqrt(self.low * self.high))
            return
        factor = STEP ** (1 + self.outward // 2)  # two steps, then larger ones: the first rate was far away
        self.outward += 1
        self.rate = min(self.rate * factor, self.most) if self.low else self.rate / factor


def run(session: Session, endpoints: Mapping[int, Endpoint], number: int) -> None:
    """Search λ* of every arm once, and store the brackets in the manifest.

    Args:
        session: of the run.
        endpoints: what answers each arm, by its number.
        number: of the lifetime, from 0.
    """
    searches = [_begin(session, endpoints[arm], arm, number) for arm in endpoints]
    for turn in range(MOST_TRIALS):
        pending = [one for one in searches if not one.done]
        for one in pending[::-1] if (number + turn) % 2 else pending:
            one.judge(_verdict(session, endpoints[one.arm], one, number))
    for one in searches:
        session.manifest.brackets.setdefault(one.arm, {})[number] = (
            one.low or None,
            one.high if math.isfinite(one.high) else None,
        )
    session.save()


def _begin(session: Session, endpoint: Endpoint, arm: int, number: int) -> _Search:
    """Return an arm's search at its first rate."""
    earlier = [
        math.log(low * high) / 2
        for lifetime, (low, high) in session.manifest.brackets.get(arm, {}).items()
        if lifetime < number and low and high
    ]
    middle = float(np.exp(np.mean(earlier))) if earlier else session.manifest.pilot[arm].saturation_per_s
    move = np.random.default_rng([session.design.seed, number, arm, 5]).uniform(-DITHER, DITHER)
    most = _most(session, endpoint, arm)
    return _Search(arm, min(middle * STEP**move, most), most)


def _most(session: Session, endpoint: Endpoint, arm: int) -> float:
    """Return the largest rate at which a trial can be VALID, by the generator's ceiling."""
    factors = session.design.arms[arm]
    protocol = "grpc" if factors.http == "2" else factors.protocol
    bodies = session.bodies(endpoint, factors)
    top = ceiling.of_payload(session.manifest.ceilings, protocol, bodies)
    return min(session.design.most_per_s, CEILING_SHARE * 0.99 * top) if top else session.design.most_per_s


def _verdict(session: Session, endpoint: Endpoint, one: _Search, number: int) -> str:
    """Return the verdict of one trial, from disk if it is there."""
    rate = one.rate = min(float(f"{one.rate:.4g}"), one.most) if one.rate < one.most else one.most
    name = f"{session.name(one.arm)}-search{one.trials}-l{number}"
    manifest = session.stored(name)
    if manifest is None:
        drain(endpoint)
        seconds = session.design.duration_s(rate, search=True)
        key = number + 1, 50 + one.trials, one.arm
        plan = session.plan(one.arm, rate, key, seconds, phase="search", lifetime=number, usage=True)
        manifest = session.run(endpoint, name, plan, repeatable=not one.invalid)
        verdict = manifest.judged.short
        session.say(f"lifetime {number + 1}: {session.labels[one.arm]} λ={rate:g}/s, search for λ*: {verdict}")
    return manifest.judged.name
