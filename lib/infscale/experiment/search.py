"""Measuring by search: each arm's capacity by bisection, and each block at one common rate, per replicate.

Within a replicate all arms of a block get the same arrivals at the common rate, on servers started for it, in random
order. Rows, verdicts and files are those of a sweep.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from infscale.deployment.endpoint import Endpoint, check_answers
from infscale.errors import ConfigError, MissingError, ServerLostError
from infscale.experiment.bracket import FIRST_RATE, bracket
from infscale.experiment.session import RESTARTS, Session, first_line
from infscale.experiment.settle import drain
from infscale.load.codec_cost import cpu_us, decoding, encoded
from infscale.records.gate import INVALID, VALID
from infscale.records.manifest import Phase, Pilot

STEP = 1.25
"""A replicate begins at the pilot's saturation rate and goes away from it by this factor, then by its square, then by
its cube, until one rate was VALID and another SATURATED."""

MORE = 4
"""Most trials beyond the design's bisections: to repeat INVALID ones, and to find both ends of a bracket."""

FIRST_BYTES_PER_S = 50e6
"""Largest load of the pilot's first trial, bytes/s: a server that is given gigabytes at once may not come back."""

SEARCH_REQUESTS, SEARCH_SHARE = 2_000, 0.4
"""A trial of a search ends early when it has this many requests, but not before this share of its length."""

ATTEMPTS = 3
"""Maximum attempts for a trial invalidated by the host or the generator; an interval needs three valid pairs."""


def measure(session: Session) -> None:
    """Measure what a run does not hold yet of a search.

    Arms whose deployment lacks something on this machine are left out, with the reason in the manifest.

    Raises:
        DeploymentError: a server could not be started.
        MissingError: none of the arms can be measured here.
    """
    design = session.design
    for arms in design.deployments():
        _pilot(session, arms)
    _set_rates(session)
    there = [arm for arm in range(len(design.arms)) if arm in session.manifest.pilot]
    for replicate in range(design.replicates):
        groups = design.deployments(there)
        for i in np.random.default_rng([design.seed, replicate]).permutation(len(groups)):
            _replicate(session, replicate, groups[i])


def _on_server(session: Session, arms: list[int], work: Callable[[Endpoint], None]) -> None:
    session.patiently(session.design.arms[arms[0]], work)


def _pilot(session: Session, arms: list[int]) -> None:
    """Find the capacity of each arm of one deployment, roughly."""
    losses: Counter[int] = Counter()
    while left := [arm for arm in arms if not _settled(session, arm)]:
        before = losses.total()
        try:
            _on_server(session, left, partial(_find_capacities, session, arms=left, losses=losses))
            return
        except MissingError as error:
            _leave_out(session, left, error)
            return
        except ServerLostError:  # the others can still be measured
            if losses.total() == before:  # it was lost under none of them
                raise


def _settled(session: Session, arm: int) -> bool:
    """Return whether a capacity is known, or was given up: the common rates were set without it."""
    return arm in session.manifest.pilot or arm in session.manifest.lost


def _leave_out(session: Session, arms: list[int], error: Exception) -> None:
    for arm in arms:
        reason = first_line(error)
        session.manifest.skipped[arm] = reason
        session.say(f"{session.labels[arm]}: left out: {reason}")
    session.save()


def _find_capacities(session: Session, endpoint: Endpoint, arms: list[int], losses: "Counter[int]") -> None:
    differences = {name: value if math.isfinite(value) else None for name, value in check_answers(endpoint).items()}
    for number in arms:
        if _settled(session, number):  # before the server was lost
            continue
        arm = session.design.arms[number]
        try:
            endpoint.scheme(arm.protocol, arm.http)
        except ConfigError as error:  # another server of this framework would take it
            session.manifest.skipped[number] = str(error)
            continue
        payload, encode = encoded(endpoint, arm)
        try:
            low, high = _rough_capacity(session, endpoint, number, len(payload.bodies[0]))
        except ServerLostError as error:
            losses[number] += 1
            if losses[number] > RESTARTS:
                session.manifest.lost.append(number)
                _leave_out(session, [number], error)
            raise
        session.manifest.skipped.pop(number, None)
        pilot = Pilot(
            implementation=endpoint.implementation,
            saturation_per_s=float(f"{np.sqrt(low * high):.4g}"),
            bracket_per_s=(low, high),
            encode_us=cpu_us(encode),
            decode_us=cpu_us(decoding(endpoint, payload)),
            differences=differences,
            ready_s=round(endpoint.ready_s, 3),
        )
        session.manifest.pilot[number] = pilot
        session.save()
        session.say(f"{session.labels[number]}: λ* near {pilot.saturation_per_s:.0f} requests/s")


def _rough_capacity(session: Session, endpoint: Endpoint, number: int, body_bytes: int) -> tuple[float, float]:
    """Return the bracket by the pilot's short trials; the server is idle again then."""
    first = min(FIRST_RATE, FIRST_BYTES_PER_S / body_bytes)
    session.warm(endpoint, session.design.arms[number], first)
    ends = bracket(session, endpoint, number, first)
    drain(endpoint)
    return ends


def _set_rates(session: Session) -> None:
    """Set the common rates of each block from the smallest capacity of its arms."""
    design, pilots = session.design, session.manifest.pilot
    if not pilots:
        reasons = (f"{session.labels[arm]}: {reason}" for arm, reason in session.manifest.skipped.items())
        raise MissingError("; ".join(reasons))
    for arms in design.blocks():
        known = [pilots[arm].saturation_per_s for arm in arms if arm in pilots]
        if known:
            rates = [float(f"{share * min(known):.3g}") for share in design.fractions]
            session.manifest.rates_per_s.setdefault(design.block(arms[0]), rates)
    session.save()


def _replicate(session: Session, replicate: int, arms: list[int]) -> None:
    """Run one replicate of a deployment's arms, on a server of its own, in random order."""
    design = session.design
    order = np.random.default_rng([design.seed, replicate, 1]).permutation(len(arms))

    def work(endpoint: Endpoint) -> None:
        rates = {arm: session.manifest.rates_per_s[design.block(arm)] for arm in arms}
        for arm in arms:
            session.warm(endpoint, design.arms[arm], rates[arm][-1])
        for k in range(len(design.fractions)):
            for i in order:
                _common(session, endpoint, replicate, arms[i], k, rates[arms[i]][k])
        for i in order:
            _capacity(session, endpoint, replicate, arms[i])

    try:
        _on_server(session, arms, work)
    except ServerLostError as error:  # what it has is kept, and the other replicates may have it all
        names = ", ".join(session.labels[arm] for arm in arms)
        reason = f"Replicate {replicate + 1} of {names} was given up: {first_line(error)}."
        session.manifest.restarts.append(reason)
        session.say(reason)


def _common(session: Session, endpoint: Endpoint, replicate: int, arm: int, k: int, rate: float) -> None:
    """Run one trial at a common rate; it is repeated while it is INVALID, up to :data:`ATTEMPTS` in all."""
    for attempt in range(1, ATTEMPTS + 1):
        name = f"{session.name(arm)}-{k}-r{replicate}-a{attempt}"
        if _run(session, endpoint, name, arm, rate, (replicate + 1, k), "grid", replicate, attempt) != INVALID:
            return


def _capacity(session: Session, endpoint: Endpoint, replicate: int, arm: int) -> None:
    """Bracket one replicate's capacity; halve the bracket as long as there are trials for it, or it is wide."""
    low, high = 0.0, np.inf
    rate = session.manifest.pilot[arm].saturation_per_s
    left, outward = session.design.bisections, 0
    for step in range(session.design.bisections + MORE):
        if left <= 0 and low and high <= STEP * low:
            return
        name = f"{session.name(arm)}-capacity{step}-r{replicate}"
        verdict = _run(session, endpoint, name, arm, rate, (replicate + 1, 50 + step), "bisection", replicate)
        if verdict == INVALID:
            continue
        left -= 1
        low, high = (rate, high) if verdict == VALID else (low, rate)
        outward += 1
        factor = STEP**outward
        rate = float(f"{rate * factor if np.isinf(high) else rate / factor if not low else np.sqrt(low * high):.4g}")


def _run(
    session: Session,
    endpoint: Endpoint,
    name: str,
    arm: int,
    rate: float,
    key: tuple[int, ...],
    phase: Phase,
    replicate: int,
    attempt: int = 1,
) -> str:
    """Return the verdict of one trial, from disk if it is there."""
    manifest = session.stored(name)
    if manifest is None:
        drain(endpoint)
        seconds = session.design.duration_s(rate)
        if phase == "bisection":
            seconds = min(seconds, max(SEARCH_SHARE * seconds, SEARCH_REQUESTS / rate))
        plan = session.plan(arm, rate, key, seconds, phase=phase, replicate=replicate, attempt=attempt, usage=True)
        manifest = session.run(endpoint, name, plan)
        verdict = manifest.judged.short
        session.say(f"replicate {replicate + 1}: {session.labels[arm]} λ={rate:g}/s {phase}: {verdict}")
    return manifest.judged.name
