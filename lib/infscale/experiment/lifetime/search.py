"""The search for λ* of all arms of a lifetime, in turn; and in the same way for the rate at the design's SLO.

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
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID
from infscale.records.gates.late import late_share
from infscale.records.manifest import Phase, TrialManifest

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
    """Search λ* of every arm once, then the rate at the SLO if there is one, and store the brackets in the manifest.

    A closed loop has neither.

    Args:
        session: of the run.
        endpoints: what answers each arm, by its number.
        number: of the lifetime, from 0.
    """
    _search(session, endpoints, number, slo=False)
    if session.design.slo:
        _search(session, endpoints, number, slo=True)


def _search(session: Session, endpoints: Mapping[int, Endpoint], number: int, *, slo: bool) -> None:
    brackets = session.manifest.capacity_brackets if slo else session.manifest.brackets
    open_arms = [arm for arm in endpoints if not session.design.arms[arm].closed]
    searches = [_begin(session, endpoints[arm], arm, number, slo=slo) for arm in open_arms]
    for turn in range(MOST_TRIALS):
        pending = [one for one in searches if not one.done]
        for one in pending[::-1] if (number + turn) % 2 else pending:
            one.judge(_verdict(session, endpoints[one.arm], one, number, slo=slo))
    for one in searches:
        brackets.setdefault(one.arm, {})[number] = (one.low or None, one.high if math.isfinite(one.high) else None)
    session.save()


def _begin(session: Session, endpoint: Endpoint, arm: int, number: int, *, slo: bool) -> _Search:
    """Return an arm's search at its first rate."""
    brackets = session.manifest.capacity_brackets if slo else session.manifest.brackets
    earlier = [
        math.log(low * high) / 2
        for lifetime, (low, high) in brackets.get(arm, {}).items()
        if lifetime < number and low and high
    ]
    otherwise = _below(session, arm, number) if slo else session.manifest.pilot[arm].saturation_per_s
    middle = float(np.exp(np.mean(earlier))) if earlier else otherwise
    move = np.random.default_rng([session.design.seed, number, arm, 6 if slo else 5]).uniform(-DITHER, DITHER)
    most = _most(session, endpoint, arm)
    return _Search(arm, min(middle * STEP**move, most), most)


def _below(session: Session, arm: int, number: int) -> float:
    """Return where the first search for the rate at the SLO begins: a step below the λ* that was just found."""
    low, high = session.manifest.brackets[arm][number]
    return (low or high or session.manifest.pilot[arm].saturation_per_s) / STEP


def _most(session: Session, endpoint: Endpoint, arm: int) -> float:
    """Return the largest rate at which a trial can be VALID, by the generator's ceiling."""
    factors = session.design.arms[arm]
    protocol = "grpc" if factors.http == "2" else factors.protocol
    bodies = session.bodies(endpoint, factors)
    top = ceiling.of_payload(session.manifest.ceilings, protocol, bodies)
    return min(session.design.most_per_s, CEILING_SHARE * 0.99 * top) if top else session.design.most_per_s


def _verdict(session: Session, endpoint: Endpoint, one: _Search, number: int, *, slo: bool) -> str:
    """Return the verdict of one trial, from disk if it is there; by the SLO that is VALID where it was kept."""
    rate = one.rate = min(float(f"{one.rate:.4g}"), one.most) if one.rate < one.most else one.most
    name = f"{session.name(one.arm)}-{'slo' if slo else 'search'}{one.trials}-l{number}"
    manifest = session.stored(name)
    if manifest is None:
        drain(endpoint)
        seconds = session.design.slo_duration_s(rate) if slo else session.design.duration_s(rate, search=True)
        key = number + 1, (50 if not slo else 50 + MOST_TRIALS) + one.trials, one.arm
        phase: Phase = "capacity" if slo else "search"
        plan = session.plan(one.arm, rate, key, seconds, phase=phase, lifetime=number, usage=not slo)
        manifest = session.run(endpoint, name, plan, repeatable=not one.invalid)
        verdict = manifest.judged.short
        what = f"search for the rate at {session.design.slo}" if slo else "search for λ*"
        session.say(f"lifetime {number + 1}: {session.labels[one.arm]} λ={rate:g}/s, {what}: {verdict}")
    return _by_slo(session, manifest) if slo else manifest.judged.name


def _by_slo(session: Session, manifest: TrialManifest) -> str:
    """Return VALID where a trial kept the SLO, SATURATED where it did not, INVALID where it says nothing.

    Whether it became steady, and whether a queue grew, is not asked: its late requests are counted.
    """
    slo = session.design.objective
    if manifest.judged.name == INVALID or slo is None:
        return INVALID
    rows = samples.read(session.folder / "trials" / f"{manifest.trial_id}.parquet")
    return VALID if late_share(rows, slo.limit_ms, manifest.duration_s) <= slo.late else SATURATED
