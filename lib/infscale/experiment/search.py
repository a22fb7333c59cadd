"""Where arms saturate: a short pilot that sets a grid's rates, and bisection between the grid's verdicts."""

from typing import Any

import numpy as np

from infscale.deployment.endpoint import Endpoint
from infscale.experiment.session import Session
from infscale.experiment.settle import drain
from infscale.experiment.trial import Arm
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, VALID

PILOT_FIRST_RATE = 100.0
PILOT_TRIAL_S = 1.5
LEAST_REQUESTS = 20
SLOWEST = 0.2
"""Requests of the shortest pilot trial, and requests/s below which nothing is tried."""
RAISE = 1.3
"""Ratio of neighbouring rates of the pilot where it ends; also the step by which the grid's top is raised."""


def pilot(session: Session, framework: str) -> None:
    """Find each protocol's saturation rate roughly, and set the framework's rates from the larger one."""
    done = session.manifest["pilot"].get(framework)
    if done and set(done["saturation_per_s"]) == set(session.grid.protocols):
        return
    session.patiently(framework, lambda endpoint: _set_rates(session, endpoint))
    rates = session.manifest["rates_per_s"][session.manifest["pilot"][framework]["implementation"]]
    top = rates[-1] / session.grid.fractions[-1]
    session.say(f"{framework}: saturation near {top:.0f}/s; rates {', '.join(f'{r:g}' for r in rates)} per s")


def _set_rates(session: Session, endpoint: Endpoint) -> None:
    found = {}
    for protocol in session.grid.protocols:
        session.warm(endpoint, Arm(protocol), PILOT_FIRST_RATE)
        found[protocol] = bracket(session, endpoint, Arm(protocol))
    top = min(_raised(session, endpoint, found), session.grid.most_per_s / max(1, *session.grid.fractions))
    rates = [float(f"{fraction * top:.3g}") for fraction in session.grid.fractions]
    session.manifest["rates_per_s"][endpoint.implementation] = rates
    session.manifest["pilot"][endpoint.framework] = {
        "implementation": endpoint.implementation,
        "saturation_per_s": {p: float(f"{np.sqrt(low * high):.4g}") for p, (low, high) in found.items()},
        "bracket_per_s": found,
    }
    session.save()


def _raised(session: Session, endpoint: Endpoint, found: dict[str, tuple[float, float]]) -> float:
    """The larger λ* of ``found``, raised until no protocol keeps up at the grid's largest rate.

    The short trials of the pilot, on a server whose JIT compiler still works, call a rate SATURATED too early;
    so every arm's knee lies within the grid.
    """
    middle = {protocol: float(np.sqrt(low * high)) for protocol, (low, high) in found.items()}
    top, share = max(middle.values()), max(session.grid.fractions)
    for step in range(20, 26 if share > 1 else 20):
        rate = float(f"{share * top:.3g}")
        if rate > session.grid.most_per_s:
            break
        for protocol in sorted(middle, key=lambda p: -middle[p]):
            drain(endpoint)
            manifest = _keep_up(session, endpoint, Arm(protocol), rate, step, session.grid.trial_s)
            if manifest["verdict"]["verdict"] == VALID:
                top *= RAISE
                break
        else:
            break
    return top


def bracket(
    session: Session, endpoint: Endpoint, arm: Arm, name: str = "", first: float = PILOT_FIRST_RATE, **labels: Any
) -> tuple[float, float]:
    """Rates (largest that kept up, smallest that did not): by fours, then from what the overload let through.

    ``first`` is the rate to begin with. Trials are called after ``name`` (default: implementation and arm) and carry
    ``labels``.
    """
    rate = min(first, session.grid.most_per_s)
    low, high, guess = 0.0, 0.0, 0.0
    for step in range(16):
        drain(endpoint)
        manifest = _keep_up(session, endpoint, arm, rate, step, name=name, **labels)
        if _kept_up(manifest["verdict"]):
            low = rate
            if low >= high:  # what was seen there before was a disturbance
                high, guess = 0.0, 0.0
        else:
            guess = guess if high else _completed_per_s(session, manifest)
            high = rate
        if not high and low >= session.grid.most_per_s:
            return low, low
        if not high:
            rate = min(low * 4, session.grid.most_per_s)
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
    return low, high


def _keep_up(
    session: Session,
    endpoint: Endpoint,
    arm: Arm,
    rate: float,
    step: int,
    duration_s: float = 0,
    name: str = "",
    **labels: Any,
) -> dict[str, Any]:
    """The manifest of a pilot trial, from disk if it is there."""
    trial_id = f"pilot-{name or f'{endpoint.implementation}-{arm.key()}'}-{rate:.0f}-{step}"
    stored = session.stored(trial_id)
    if stored is not None:
        return stored
    duration = max(duration_s or min(PILOT_TRIAL_S, session.grid.trial_s * 2), LEAST_REQUESTS / rate)
    plan = session.plan(arm, rate, (0, step), duration, phase="pilot", replicate=0, attempt=1, **labels)
    return session.run(endpoint, trial_id, plan) | {"trial_id": trial_id}


def _completed_per_s(session: Session, manifest: dict[str, Any]) -> float:
    """Successes per second of a trial, from its first request to its last response."""
    rows = samples.read(session.folder / "trials" / f"{manifest['trial_id']}.parquet")
    good = rows[rows["status"] == "ok"]
    return len(good) / (float(good["done_ns"].max()) / 1e9) if len(good) else 0.0


def _kept_up(verdict: dict[str, Any]) -> bool:
    """Whether a pilot trial was VALID, or INVALID by a passing disturbance rather than by its rate.

    A generator that fails otherwise has met its own ceiling: no rate above can be measured either way.
    """
    failed = {gate["name"] for gate in verdict["gates"] if not gate["passed"]}
    passing = verdict["verdict"] == INVALID and failed <= {"host", "lag", "run_delay", "arrivals"}
    return bool(verdict["verdict"] == VALID or passing)


def bisect(session: Session, endpoint: Endpoint, replicate: int, arm: Arm, rates: list[float]) -> None:
    """Narrow one replicate's bracket of λ* on a log scale, between its largest VALID and smallest SATURATED rate.

    Nothing is tried where there is no bracket, or where the verdicts do not rise in order.
    """
    name = f"{endpoint.implementation}-{arm.protocol}"
    verdicts = {rate: _last_verdict(session, f"{name}-{i}-r{replicate}") for i, rate in enumerate(rates)}
    valid = [rate for rate, verdict in verdicts.items() if verdict == VALID]
    saturated = [rate for rate, verdict in verdicts.items() if verdict == SATURATED]
    if not valid or not saturated or max(valid) > min(saturated):
        return
    low, high = max(valid), min(saturated)
    for step in range(session.grid.bisections):
        rate = float(f"{np.sqrt(low * high):.4g}")
        trial_id = f"{name}-bisection{step}-r{replicate}"
        manifest = session.stored(trial_id)
        if manifest is None:
            drain(endpoint)
            labels = {"phase": "bisection", "replicate": replicate, "attempt": 1}
            key, duration = (replicate + 1, 50 + step), session.grid.duration_s(rate)
            manifest = session.run(endpoint, trial_id, session.plan(arm, rate, key, duration, **labels))
        if manifest["verdict"]["verdict"] == INVALID:
            return
        low, high = (rate, high) if manifest["verdict"]["verdict"] == VALID else (low, rate)


def _last_verdict(session: Session, name: str) -> str:
    found = [stored for attempt in (1, 2) if (stored := session.stored(f"{name}-a{attempt}"))]
    return str(found[-1]["verdict"]["verdict"]) if found else ""
