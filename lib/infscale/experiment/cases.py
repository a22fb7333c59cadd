"""Measuring a finding: its cases' capacities by bisection, and each block of them at one common rate, per replicate.

Within a replicate all cases of a block get the same arrivals at the common rate, on servers started for it, in random
order. Rows, verdicts and files are those of the protocol grid.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint, check_answers
from infscale.errors import ConfigError, MissingError, ServerLostError
from infscale.experiment.check import check
from infscale.experiment.codec_cost import _cpu_us, _decoding, _encoded
from infscale.experiment.design.case import Case
from infscale.experiment.design.grid import Grid
from infscale.experiment.search import PILOT_FIRST_RATE, bracket
from infscale.experiment.session import RESTARTS, Report, Session, Start
from infscale.experiment.settle import drain
from infscale.records.gate import INVALID, VALID
from infscale.records.runs import COMPLETE

STEP = 1.25
"""From the pilot's capacity a replicate searches by this factor, then its square, its cube, until it has both sides."""

MORE = 4
"""Trials beside a grid's bisections: for those that are INVALID, and until a bracket has both of its ends."""
FIRST_BYTES_PER_S = 50e6
"""The pilot begins with at most so much: a server that is given gigabytes at once may not come back."""
SEARCH_REQUESTS, SEARCH_SHARE = 2_000, 0.4
"""A search for capacity ends a trial early that has as many requests, but not before this share of its length."""
ATTEMPTS = 3
"""Of a trial that the host or the generator spoils: without a pair in three replicates there is no interval."""


def measure(grid: Grid, folder: Path, say: Report = print, start: Start = deploy) -> Path:
    """Measure what ``folder`` does not hold yet of a finding; returns the folder, complete.

    Cases whose deployment lacks something on this machine are left out, with the reason in the manifest.

    Raises:
        ConfigError: as :func:`check`.
        DeploymentError: a server cannot be had.
        MissingError: none of the cases can be measured here.
        DataError: the folder cannot be written.
    """
    session = Session(grid, folder, say, start)
    if session.manifest["status"] == COMPLETE:
        say(f"{folder.name} is complete: nothing to measure")
        return folder
    check(grid)
    with session.measuring():
        for cases in _deployments(grid.cases):
            _pilot(session, cases)
        _set_rates(session)
        there = [case for case in grid.cases if case.name in session.manifest["pilot"]]
        for replicate in range(grid.replicates):
            groups = _deployments(there)
            for i in np.random.default_rng([grid.seed, replicate]).permutation(len(groups)):
                _replicate(session, replicate, groups[i])
        if grid.experiment == "caching" and "staleness" not in session.manifest:
            from infscale.deployment.fronts import staleness  # which a figure does not need

            session.manifest["staleness"] = staleness.measure(log_folder=folder / "logs", pid_log=session.pids)
    return folder


def _deployments(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases by what must run for them."""
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(case.deployment, []).append(case)
    return list(groups.values())


def _on_server(session: Session, cases: list[Case], work: Callable[[Endpoint], None]) -> None:
    one = cases[0]
    session.patiently(one.framework, work, model=one.model, front=one.front, **dict(one.options))


def _pilot(session: Session, cases: list[Case]) -> None:
    """The capacity of each case of one deployment, roughly."""
    losses: Counter[str] = Counter()
    while left := [case for case in cases if not _settled(session, case)]:
        before = losses.total()
        try:
            _on_server(session, left, partial(_find_capacities, session, cases=left, losses=losses))
            return
        except MissingError as error:
            _leave_out(session, left, error)
            return
        except ServerLostError:  # the others can still be measured
            if losses.total() == before:  # it was lost under none of them
                raise


def _settled(session: Session, case: Case) -> bool:
    """Whether a capacity is known, or was given up: without it the common rates were set, which it could not keep."""
    return case.name in session.manifest["pilot"] or case.name in session.manifest.get("lost", ())


def _leave_out(session: Session, cases: list[Case], error: Exception) -> None:
    for case in cases:
        told = str(error).splitlines()[0]
        session.manifest.setdefault("skipped", {})[case.name] = told
        session.say(f"{case.name}: left out: {told}")
    session.save()


def _find_capacities(session: Session, endpoint: Endpoint, cases: list[Case], losses: "Counter[str]") -> None:
    differences = check_answers(endpoint)
    for case in cases:
        if _settled(session, case):  # before the server was lost
            continue
        try:
            endpoint.scheme(case.arm.protocol, case.arm.http)
        except ConfigError as error:  # another server of this framework would take it
            session.manifest.setdefault("skipped", {})[case.name] = str(error)
            continue
        payload, encode = _encoded(endpoint, case)
        try:
            capacity = _rough_capacity(session, endpoint, case, len(payload.bodies[0]))
        except ServerLostError as error:
            losses[case.name] += 1
            if losses[case.name] > RESTARTS:
                session.manifest.setdefault("lost", []).append(case.name)
                _leave_out(session, [case], error)
            raise
        session.manifest.get("skipped", {}).pop(case.name, None)
        session.manifest["pilot"][case.name] = {
            "implementation": endpoint.implementation,
            "capacity_per_s": capacity,
            "codec_us": [_cpu_us(encode), _cpu_us(_decoding(endpoint, payload))],
            "differences": differences,
            "ready_s": round(endpoint.ready_s, 3),
        }
        session.save()
        session.say(f"{case.name}: capacity near {capacity:.0f} requests/s")


def _rough_capacity(session: Session, endpoint: Endpoint, case: Case, body_bytes: int) -> float:
    """Requests/s, by the pilot's short trials; the server is idle again then."""
    first = min(PILOT_FIRST_RATE, FIRST_BYTES_PER_S / body_bytes)
    session.warm(endpoint, case.arm, first)
    name = _name(session, case)
    low, high = bracket(session, endpoint, case.arm, name, first, case=case.name, block=case.block)
    drain(endpoint)
    return float(f"{np.sqrt(low * high):.4g}")


def _set_rates(session: Session) -> None:
    """From the smallest capacity of each block its common rates."""
    found = session.manifest["pilot"]
    if not found:
        raise MissingError("; ".join(f"{name}: {why}" for name, why in session.manifest["skipped"].items()))
    for block in {case.block for case in session.grid.cases}:
        known = [found[c.name]["capacity_per_s"] for c in session.grid.cases if c.block == block and c.name in found]
        if known:
            rates = [float(f"{share * min(known):.3g}") for share in session.grid.fractions]
            session.manifest["rates_per_s"].setdefault(block, rates)
    session.save()


def _replicate(session: Session, replicate: int, cases: list[Case]) -> None:
    """One replicate of a deployment's cases, on a server of its own, in random order."""
    order = np.random.default_rng([session.grid.seed, replicate, 1]).permutation(len(cases))

    def work(endpoint: Endpoint) -> None:
        rates = {case.name: session.manifest["rates_per_s"][case.block] for case in cases}
        for case in cases:
            session.warm(endpoint, case.arm, rates[case.name][-1])
        for k in range(len(session.grid.fractions)):
            for i in order:
                _common(session, endpoint, replicate, cases[i], k, rates[cases[i].name][k])
        for i in order:
            _capacity(session, endpoint, replicate, cases[i])

    try:
        _on_server(session, cases, work)
    except ServerLostError as error:  # what it has is kept, and the other replicates may have it all
        names = ", ".join(case.name for case in cases)
        told = f"replicate {replicate + 1} of {names} was given up: {str(error).splitlines()[0]}"
        session.manifest.setdefault("restarts", []).append(told)
        session.say(told)


def _name(session: Session, case: Case) -> str:
    """A case's name for files, which its place among the cases makes unique."""
    words = re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-")
    return f"{session.grid.cases.index(case):02d}-{words}"


def _common(session: Session, endpoint: Endpoint, replicate: int, case: Case, k: int, rate: float) -> None:
    """One trial at a common rate, repeated twice at most if it is INVALID."""
    for attempt in range(1, ATTEMPTS + 1):
        name = f"{_name(session, case)}-{k}-r{replicate}-a{attempt}"
        labels = {"phase": "grid", "replicate": replicate, "attempt": attempt}
        if _run(session, endpoint, name, case, rate, (replicate + 1, k), labels) != INVALID:
            return


def _capacity(session: Session, endpoint: Endpoint, replicate: int, case: Case) -> None:
    """Bracket one replicate's capacity; halve the bracket as long as there are trials for it, or it is wide."""
    low, high = 0.0, np.inf
    rate = session.manifest["pilot"][case.name]["capacity_per_s"]
    left, outward = session.grid.bisections, 0
    for step in range(session.grid.bisections + MORE):
        if left <= 0 and low and high <= STEP * low:
            return
        name = f"{_name(session, case)}-capacity{step}-r{replicate}"
        labels = {"phase": "bisection", "replicate": replicate, "attempt": 1}
        verdict = _run(session, endpoint, name, case, rate, (replicate + 1, 50 + step), labels)
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
    case: Case,
    rate: float,
    key: tuple[int, ...],
    labels: dict[str, Any],
) -> str:
    """The verdict of one trial, from disk if it is there."""
    manifest = session.stored(name)
    if manifest is None:
        drain(endpoint)
        labels = {**labels, "case": case.name, "block": case.block}
        seconds = session.grid.duration_s(rate)
        if labels["phase"] == "bisection":
            seconds = min(seconds, max(SEARCH_SHARE * seconds, SEARCH_REQUESTS / rate))
        plan = session.plan(case.arm, rate, key, seconds, **labels)
        manifest = session.run(endpoint, name, replace(plan, usage=True))
        reasons = ", ".join(manifest["verdict"]["reasons"])
        told = f"{manifest['verdict']['verdict']}{f' ({reasons})' if reasons else ''}"
        session.say(f"replicate {labels['replicate'] + 1}: {case.name} λ={rate:g}/s {labels['phase']}: {told}")
    return str(manifest["verdict"]["verdict"])
