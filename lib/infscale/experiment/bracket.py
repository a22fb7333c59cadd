"""Where arms saturate: a short pilot that sets a sweep's rates, and bisection between its verdicts."""

import numpy as np

from infscale.deployment.endpoint import Endpoint
from infscale.experiment.session import Session
from infscale.experiment.settle import drain
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, VALID, Verdict
from infscale.records.manifest import Pilot, TrialManifest

FIRST_RATE = 100.0
"""The pilot's first rate, requests/s."""

TRIAL_S = 1.5
"""Length of a pilot trial's arrivals, s."""

LEAST_REQUESTS = 20
"""Fewest requests of a pilot trial."""

SLOWEST = 0.2
"""The rate below which nothing is tried, requests/s."""

RAISE = 1.3
"""Ratio of neighbouring rates at which the pilot ends; also the step by which the top of a sweep is raised."""

PASSING = {"host", "lag", "run_delay", "arrivals"}
"""Gates that a passing disturbance fails, whatever the rate."""


def pilot(session: Session, block: list[int]) -> None:
    """Find roughly where each arm of a block saturates, and set the block's rates from the largest of them."""
    if set(block) <= set(session.manifest.pilot):
        return
    session.patiently(session.design.arms[block[0]], lambda endpoint: _set_rates(session, endpoint, block))
    rates = session.manifest.rates_per_s[session.design.block(block[0])]
    top = rates[-1] / session.design.fractions[-1]
    names = ", ".join(session.labels[arm] for arm in block)
    session.say(f"{names}: saturation near {top:.0f}/s; rates {', '.join(f'{r:g}' for r in rates)} per s")


def _set_rates(session: Session, endpoint: Endpoint, block: list[int]) -> None:
    brackets = {}
    for arm in block:
        session.warm(endpoint, session.design.arms[arm], FIRST_RATE)
        brackets[arm] = bracket(session, endpoint, arm)
    design = session.design
    top = min(_raised(session, endpoint, brackets), design.most_per_s / max(1, *design.fractions))
    rates = [float(f"{fraction * top:.3g}") for fraction in design.fractions]
    session.manifest.rates_per_s[design.block(block[0])] = rates
    for arm, ends in brackets.items():
        session.manifest.pilot[arm] = Pilot(
            implementation=endpoint.implementation, saturation_per_s=_middle(ends), bracket_per_s=ends
        )
    session.save()


def _middle(bracket: tuple[float, float]) -> float:
    """Return the geometric mean of two rates, to four digits."""
    return float(f"{np.sqrt(bracket[0] * bracket[1]):.4g}")


def _raised(session: Session, endpoint: Endpoint, brackets: dict[int, tuple[float, float]]) -> float:
    """Return the largest λ* of ``brackets``, raised until no arm keeps up at the sweep's largest rate.

    The short trials of the pilot, on a server whose JIT compiler still works, call a rate SATURATED too early;
    so every arm's knee lies within the sweep.
    """
    middle = {arm: float(np.sqrt(low * high)) for arm, (low, high) in brackets.items()}
    top, share = max(middle.values()), max(session.design.fractions)
    for step in range(20, 26 if share > 1 else 20):
        rate = float(f"{share * top:.3g}")
        if rate > session.design.most_per_s:
            break
        for arm in sorted(middle, key=lambda number: -middle[number]):
            drain(endpoint)
            if _keep_up(session, endpoint, arm, rate, step, session.design.trial_s).judged.name == VALID:
                top *= RAISE
                break
        else:
            break
    return top


def bracket(session: Session, endpoint: Endpoint, arm: int, first: float = FIRST_RATE) -> tuple[float, float]:
    """Return the largest rate that kept up and the smallest that did not, requests/s.

    The search goes by fours until it has both, then on from what the overload let through. ``first`` is the rate to
    begin with.
    """
    rate = min(first, session.design.most_per_s)
    low, high, guess = 0.0, 0.0, 0.0
    for step in range(16):
        drain(endpoint)
        manifest = _keep_up(session, endpoint, arm, rate, step)
        if _kept_up(manifest.judged):
            low = rate
            if low >= high:  # what was seen there before was a disturbance
                high, guess = 0.0, 0.0
        else:
            guess = guess if high else _completed_per_s(session, manifest)
            high = rate
        if not high and low >= session.design.most_per_s:
            return low, low
        if not high:
            rate = min(low * 4, session.design.most_per_s)
            continue
        if not low and step == 0:
            continue  # once more, before the search goes down
        if not low:  # nothing has kept up yet
            if rate < SLOWEST:
                return rate / 4, high
            rate = float(f"{rate / 4:.4g}")
            continue
        if high / low < RAISE:
            break
        # A step to each side of the guess, while the bracket is wide, is as good as several halvings.
        inside = [r for r in (guess * RAISE**0.5, guess / RAISE**0.5) if low * 1.05 < r < high / 1.05]
        rate = float(f"{inside[0] if guess and inside else np.sqrt(low * high):.4g}")
    return low, max(low, high)


def _keep_up(
    session: Session, endpoint: Endpoint, arm: int, rate: float, step: int, duration_s: float = 0
) -> TrialManifest:
    """Return the manifest of a pilot trial, from disk if it is there."""
    trial_id = f"pilot-{session.name(arm)}-{rate:.0f}-{step}"
    stored = session.stored(trial_id)
    if stored is not None:
        return stored
    duration = max(duration_s or min(TRIAL_S, session.design.trial_s * 2), LEAST_REQUESTS / rate)
    return session.run(endpoint, trial_id, session.plan(arm, rate, (0, step), duration, phase="pilot"))


def _completed_per_s(session: Session, manifest: TrialManifest) -> float:
    """Return the successes per second of a trial, from its first request to its last response."""
    rows = samples.read(session.folder / "trials" / f"{manifest.trial_id}.parquet")
    good = rows[rows["status"] == "ok"]
    return len(good) / (float(good["done_ns"].max()) / 1e9) if len(good) else 0.0


def _kept_up(verdict: Verdict) -> bool:
    """Return whether a pilot trial was VALID, or INVALID by a passing disturbance rather than by its rate.

    A generator that fails otherwise has met its own ceiling: no rate above can be measured either way.
    """
    failed = {gate.name for gate in verdict.gates if not gate.passed}
    return verdict.name == VALID or (verdict.name == INVALID and failed <= PASSING)


def bisect(session: Session, endpoint: Endpoint, replicate: int, arm: int, rates: list[float]) -> None:
    """Narrow one replicate's bracket of λ* on a log scale, between its largest VALID and smallest SATURATED rate.

    Nothing is tried where there is no bracket, or where the verdicts do not rise in order.
    """
    name = session.name(arm)
    verdicts = {rate: _last_verdict(session, f"{name}-{i}-r{replicate}") for i, rate in enumerate(rates)}
    valid = [rate for rate, verdict in verdicts.items() if verdict == VALID]
    saturated = [rate for rate, verdict in verdicts.items() if verdict == SATURATED]
    if not valid or not saturated or max(valid) > min(saturated):
        return
    low, high = max(valid), min(saturated)
    for step in range(session.design.bisections):
        rate = float(f"{np.sqrt(low * high):.4g}")
        trial_id = f"{name}-bisection{step}-r{replicate}"
        manifest = session.stored(trial_id)
        if manifest is None:
            drain(endpoint)
            key, duration = (replicate + 1, 50 + step), session.design.duration_s(rate)
            plan = session.plan(arm, rate, key, duration, phase="bisection", replicate=replicate)
            manifest = session.run(endpoint, trial_id, plan)
        verdict = manifest.judged.name
        if verdict == INVALID:
            return
        low, high = (rate, high) if verdict == VALID else (low, rate)


def _last_verdict(session: Session, name: str) -> str:
    attempts = [stored for attempt in (1, 2) if (stored := session.stored(f"{name}-a{attempt}"))]
    return attempts[-1].judged.name if attempts else ""
