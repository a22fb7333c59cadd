"""One lifetime: the servers of a group of arms are started, warmed up, loaded at each rate and to their limits, ended.

Arms of one block are loaded in turn, seconds apart, with the same arrivals; which of them comes first is balanced over
lifetimes. Everything that a lifetime finds is on disk when it is found: one that was interrupted goes on where it was.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from infscale.deployment.endpoint import Endpoint
from infscale.errors import ServerLostError
from infscale.experiment.design.design import SHARES, Design
from infscale.experiment.lifetime import pilot, search
from infscale.experiment.session import RESTARTS, Endpoints, Session, first_line
from infscale.experiment.settle import drain
from infscale.records.gate import INVALID, UNSTEADY
from infscale.records.manifest import Lifetime, Phase

ATTEMPTS = 3
"""Most attempts for a trial at a set rate that is INVALID or UNSTEADY: a lifetime without it says nothing."""

CURVE_LIFETIMES = 2
"""Lifetimes in which the curve over further rates is measured."""

CHECK_LIFETIMES = 3
"""Lifetimes in which the arms of the sensitivity check are measured: an interval needs so many."""

BEYOND = 1.3
"""An arm is not tried at rates of the curve above this multiple of its λ*: it would only collapse."""


def run(session: Session, arms: Sequence[int], number: int) -> None:
    """Run one lifetime of a group of arms, and note it in the manifest.

    A server that is lost is started again, up to :data:`RESTARTS` times, and the lifetime goes on; then what it has is
    kept, and it ends. Losses in the rough search are counted for each arm instead, and cost the arm.

    Args:
        session: of the run.
        arms: numbers of the arms.
        number: of the lifetime, from 0.

    Raises:
        DeploymentError: a server could not be started.
    """
    began, extra_s = time.monotonic(), 0.0
    losses: Counter[int] = Counter()
    others = 0
    while others <= RESTARTS:
        in_pilot = losses.total()
        try:
            with session.servers(there(session, arms)) as endpoints:
                extra_s += _on_servers(session, endpoints, number, losses)
            break
        except ServerLostError as error:
            others += losses.total() == in_pilot
            _note_loss(session, arms, number, error, last=others > RESTARTS)
    seconds = time.monotonic() - began
    session.manifest.lifetimes.append(
        Lifetime(
            arms=list(arms),
            number=number,
            seconds=round(seconds, 2),
            extra_s=round(extra_s, 2),
            session=len(session.manifest.sessions) - 1,
        )
    )
    session.save()


def there(session: Session, arms: Sequence[int]) -> list[int]:
    """Return the arms that can be measured on this machine."""
    return [arm for arm in arms if arm not in session.manifest.skipped]


def _note_loss(session: Session, arms: Sequence[int], number: int, error: Exception, *, last: bool) -> None:
    reason = first_line(error)
    text = f"A server was lost under load and started again: {reason}."
    if last:
        names = ", ".join(session.labels[arm] for arm in arms)
        text = f"Lifetime {number + 1} of {names} was given up because its servers were lost again and again: {reason}."
    session.manifest.restarts.append(text)
    session.say(text)


def _on_servers(session: Session, endpoints: Endpoints, number: int, losses: "Counter[int]") -> float:
    """Measure what a lifetime lacks; return the seconds that later lifetimes will not need."""
    began = time.monotonic()
    unknown = [arm for arm in endpoints if not pilot.known(session, arm)]
    for arm in unknown:
        pilot.find(session, endpoints[arm], arm, losses)
    extra_s = time.monotonic() - began
    endpoints = {arm: endpoint for arm, endpoint in endpoints.items() if arm in session.manifest.pilot}
    if not endpoints:
        return extra_s
    _warm_up(session, {arm: endpoint for arm, endpoint in endpoints.items() if arm not in unknown})
    rates_known = all(session.design.block(arm) in session.manifest.rates_per_s for arm in endpoints)
    if not rates_known:  # a rough λ* of a server that has just started is too low to set the rates of a whole run
        search.run(session, endpoints, number)
        pilot.set_rates(session)
    for k in range(len(SHARES)):
        _round(session, endpoints, number, k, "grid")
    began = time.monotonic()
    if number < CURVE_LIFETIMES:
        for k in range(session.design.curve):
            _round(session, endpoints, number, len(SHARES) + k, "grid")
    if number < CHECK_LIFETIMES:
        checked = {arm: endpoints[session.design.varied(arm)] for arm in session.design.checked_with(list(endpoints))}
        _round(session, checked, number, len(SHARES) - 1, "sensitivity")
    extra_s += time.monotonic() - began
    if rates_known:
        search.run(session, endpoints, number)
    return extra_s


def _warm_up(session: Session, endpoints: Endpoints) -> None:
    """Warm every arm, also in a lifetime that goes on: its servers were started again.

    The rate is the highest of the arm's that it keeps up with: a queue would have to be waited for.
    """
    for arm, endpoint in endpoints.items():
        most = pilot.rough_per_s(session, arm)
        rates = _rates(session, arm) or [SHARES[-1] * most]
        fitting = [rate for rate in rates if rate <= most]
        session.warm(endpoint, session.design.arms[arm], max(fitting or rates[:1]))


def _rates(session: Session, arm: int) -> list[float]:
    """Return the moderate rates of the arm's block, then those of its curve; none before they are set."""
    block = session.design.block(arm)
    return [*session.manifest.rates_per_s.get(block, []), *session.manifest.curve_per_s.get(block, [])]


def order(design: Design, arms: Sequence[int], number: int, k: int) -> list[int]:
    """Return the order of arms at one rate of a lifetime: random, and reversed in every second (lifetime + rate).

    So each of two arms comes first equally often over lifetimes, at every rate.
    """
    mixed = np.random.default_rng([design.seed, number // 2, k, 7]).permutation(len(arms))
    return [arms[i] for i in (mixed[::-1] if (number + k) % 2 else mixed)]


def _round(session: Session, endpoints: Mapping[int, Endpoint], number: int, k: int, phase: Phase) -> None:
    """Run one trial of each arm at one of its block's rates."""
    for arm in order(session.design, list(endpoints), number, k):
        rate = _rates(session, arm)[k]
        if k < len(SHARES) or rate <= BEYOND * pilot.rough_per_s(session, arm):
            _trial(session, endpoints[arm], arm, number, k, rate, phase)


def _name(session: Session, arm: int, number: int, k: int, attempt: int) -> str:
    return f"{session.name(arm)}-{k}-l{number}-a{attempt}"


def _trial(session: Session, endpoint: Endpoint, arm: int, number: int, k: int, rate: float, phase: Phase) -> None:
    """Run one trial; it is repeated at once while it is INVALID or UNSTEADY, :data:`ATTEMPTS` in all."""
    for attempt in range(1, ATTEMPTS + 1):
        name = _name(session, arm, number, k, attempt)
        manifest = session.stored(name)
        if manifest is None:
            drain(endpoint)
            seconds = session.design.duration_s(rate)
            key = number + 1, k, attempt  # with the same arrivals a trial might fail again for the same reason
            plan = session.plan(arm, rate, key, seconds, phase=phase, lifetime=number, attempt=attempt, usage=True)
            manifest = session.run(endpoint, name, plan, repeatable=attempt < ATTEMPTS)
            session.say(f"lifetime {number + 1}: {session.labels[arm]} λ={rate:g}/s: {manifest.judged.short}")
        if manifest.judged.name not in (INVALID, UNSTEADY):
            return
