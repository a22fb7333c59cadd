"""Measuring a finding: its cases' capacities by bisection, and all of them at one common rate, in every replicate.

Within a replicate every case of a framework gets the same arrivals at the common rate, on a server started for it, in
random order. Rows, verdicts and files are those of the protocol grid.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infscale import payloads, trial
from infscale.errors import ConfigError
from infscale.grid import Case, Grid
from infscale.models import inputs
from infscale.pilot import bracket
from infscale.runs import COMPLETE
from infscale.servers import deploy
from infscale.servers.endpoint import Endpoint, ask
from infscale.session import Report, Session, Start
from infscale.validity import INVALID, VALID

STEP = 1.25
"""From the pilot's capacity a replicate searches by this factor until it has both sides of its own."""


def check(grid: Grid) -> None:
    """Find out what cannot be, before anything is deployed.

    Raises:
        ConfigError: a framework cannot take an encoding, a batch passes its message limit, or two cases have one name.
    """
    names = [case.name for case in grid.cases]
    if len(set(names)) < len(names) or grid.reference not in names:
        raise ConfigError(f"cases {names} must have different names, one of them the reference {grid.reference!r}")
    for case in grid.cases:
        known = payloads.ENCODERS.get((case.framework, case.arm.protocol), {})
        encoding = case.arm.encoding or next(iter(known), "")
        if encoding not in known:
            raise ConfigError(
                f"{case.name}: encoding={encoding!r} is not one that {case.framework} takes over {case.arm.protocol}; "
                f"accepted: {', '.join(known)}"
            )
        payloads.check_http(case.framework, case.arm.http)
        payloads.check_batch(case.framework, case.arm.protocol, encoding, grid.model, case.arm.batch)


def measure(grid: Grid, folder: Path, say: Report = print, start: Start = deploy) -> Path:
    """Measure what ``folder`` does not hold yet of a finding; returns the folder, complete.

    Raises:
        ConfigError: as :func:`check`.
        DeploymentError, MissingError: a server cannot be had.
        DataError: the folder cannot be written.
    """
    check(grid)
    session = Session(grid, folder, say, start)
    if session.manifest["status"] == COMPLETE:
        say(f"{folder.name} is complete: nothing to measure")
        return folder
    with session.measuring():
        for framework in grid.frameworks:
            _pilot(session, framework)
        for replicate in range(grid.replicates):
            for framework in np.random.default_rng([grid.seed, replicate]).permutation(grid.frameworks):
                _replicate(session, replicate, str(framework))
    return folder


def _cases(session: Session, framework: str) -> list[Case]:
    return [case for case in session.grid.cases if case.framework == framework]


def _pilot(session: Session, framework: str) -> None:
    """Every case's capacity, roughly, and from the smallest the common rates."""
    if framework in session.manifest["pilot"]:
        return
    session.patiently(framework, lambda endpoint: _find_capacities(session, endpoint))
    found = session.manifest["pilot"][framework]
    told = ", ".join(f"{name} {rate:.0f}" for name, rate in found["capacity_per_s"].items())
    rates = session.manifest["rates_per_s"][found["implementation"]]
    session.say(f"{framework}: capacities near {told} requests/s; common rates {rates}")


def _find_capacities(session: Session, endpoint: Endpoint) -> None:
    found: dict[str, float] = {}
    for case in _cases(session, endpoint.framework):
        session.warm(endpoint, case.arm, 100.0)
        low, high = bracket(session, endpoint, case.arm, case=case.name)
        found[case.name] = float(f"{np.sqrt(low * high):.4g}")
        session.manifest.setdefault("codec_us", {})[case.name] = _codec_us(session, endpoint, case)
    rates = [float(f"{share * min(found.values()):.3g}") for share in session.grid.fractions]
    session.manifest["rates_per_s"][endpoint.implementation] = rates
    session.manifest["pilot"][endpoint.framework] = {
        "implementation": endpoint.implementation,
        "capacity_per_s": found,
    }
    session.save()


def _codec_us(session: Session, endpoint: Endpoint, case: Case) -> list[float]:
    """CPU µs that this client takes to encode one request and to decode one real answer, compression apart."""
    arm, name = case.arm, session.grid.model
    rows = inputs(name)[np.arange(arm.batch) % len(inputs(name))]
    payload = payloads.build(endpoint.framework, arm.protocol, name, rows, encoding=arm.encoding, batch=arm.batch)
    encode = payloads.ENCODERS[endpoint.framework, arm.protocol][payload.encoding].encode
    answer = ask(endpoint, payload)
    return [_cpu_us(lambda: encode(name, rows)), _cpu_us(lambda: payload.decode(answer))]


def _cpu_us(call: Callable[[], object]) -> float:
    """CPU time of one call, µs: the median of five rounds of at least 20 ms."""
    call()
    rounds = []
    for _ in range(5):
        start, count = time.process_time_ns(), 0
        while time.process_time_ns() - start < 20_000_000:
            call()
            count += 1
        rounds.append((time.process_time_ns() - start) / count / 1e3)
    return round(float(np.median(rounds)), 2)


def _replicate(session: Session, replicate: int, framework: str) -> None:
    """One replicate of a framework's cases, on a server of its own, in random order."""
    cases = _cases(session, framework)
    order = np.random.default_rng([session.grid.seed, replicate, 1]).permutation(len(cases))

    def work(endpoint: Endpoint) -> None:
        rates = session.manifest["rates_per_s"][endpoint.implementation]
        for case in cases:
            session.warm(endpoint, case.arm, rates[-1])
        for k, rate in enumerate(rates):
            for i in order:
                _common(session, endpoint, replicate, cases[i], k, rate)
        for i in order:
            _capacity(session, endpoint, replicate, cases[i])

    session.patiently(framework, work)


def _common(session: Session, endpoint: Endpoint, replicate: int, case: Case, k: int, rate: float) -> None:
    """One trial at a common rate, repeated once if it is INVALID."""
    for attempt in (1, 2):
        name = f"{endpoint.implementation}-{case.arm.key()}-{k}-r{replicate}-a{attempt}"
        labels = {"phase": "grid", "replicate": replicate, "attempt": attempt}
        if _run(session, endpoint, name, case, rate, (replicate + 1, k), labels) != INVALID:
            return


def _capacity(session: Session, endpoint: Endpoint, replicate: int, case: Case) -> None:
    """Bracket one replicate's capacity, and halve the bracket as long as there are trials for it."""
    low, high = 0.0, np.inf
    rate = session.manifest["pilot"][endpoint.framework]["capacity_per_s"][case.name]
    for step in range(session.grid.bisections):
        name = f"{endpoint.implementation}-{case.arm.key()}-capacity{step}-r{replicate}"
        labels = {"phase": "bisection", "replicate": replicate, "attempt": 1}
        verdict = _run(session, endpoint, name, case, rate, (replicate + 1, 50 + step), labels)
        if verdict == INVALID:
            continue
        low, high = (rate, high) if verdict == VALID else (low, rate)
        rate = float(f"{rate * STEP if np.isinf(high) else rate / STEP if not low else np.sqrt(low * high):.4g}")


def _run(
    session: Session,
    endpoint: Endpoint,
    name: str,
    case: Case,
    rate: float,
    key: tuple[int, ...],
    labels: dict[str, Any],
) -> str:
    """The verdict of one trial, from disk if it is there."""
    manifest = session.stored(name)
    if manifest is None:
        trial.drain(endpoint)
        plan = session.plan(case.arm, rate, key, session.grid.duration_s(rate), case=case.name, **labels)
        manifest = session.run(endpoint, name, plan)
        reasons = ", ".join(manifest["verdict"]["reasons"])
        told = f"{manifest['verdict']['verdict']}{f' ({reasons})' if reasons else ''}"
        session.say(f"replicate {labels['replicate'] + 1}: {case.name} λ={rate:g}/s {labels['phase']}: {told}")
    return str(manifest["verdict"]["verdict"])
