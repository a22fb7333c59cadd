"""Measuring a grid: ceilings, pilot, trials in random order, restarts, resume. Every trial is on disk when it ends."""

from pathlib import Path

from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint
from infscale.experiment.design.grid import Grid, sensitivity_arms
from infscale.experiment.folder import folder_for
from infscale.experiment.search import bisect, pilot
from infscale.experiment.session import Report, Session, Start
from infscale.experiment.settle import drain
from infscale.experiment.trial import Arm
from infscale.paths import project_root
from infscale.records.gate import INVALID, SATURATED
from infscale.records.runs import COMPLETE

Todo = tuple[str, str, Arm, float, tuple[int, ...]]
"""Name, phase, arm, λ and key of a trial that is to be run."""

__all__ = ["default_place", "folder_for", "measure"]


def measure(grid: Grid, folder: Path, say: Report = print, start: Start = deploy) -> Path:
    """Measure what ``folder`` does not hold yet of ``grid``; returns the folder, complete.

    ``say`` gets a line for each step; ``start`` gives the endpoint of a framework. Interrupted by an exception or
    Ctrl-C, the finished trials stay.

    Raises:
        DeploymentError, MissingError: a server cannot be had.
        DataError: the folder cannot be written.
    """
    session = Session(grid, folder, say, start)
    if session.manifest["status"] == COMPLETE:
        say(f"{folder.name} is complete: nothing to measure")
        return folder
    with session.measuring():
        for framework in grid.frameworks:
            pilot(session, framework)
        for replicate in range(grid.replicates):
            for framework, pairs in grid.order(replicate):
                _replicate(session, replicate, framework, pairs)
    return folder


def _replicate(session: Session, replicate: int, framework: str, pairs: list[tuple[Arm, int]]) -> None:
    """All trials of one framework in one replicate, on a server started for it."""
    implementation = session.manifest["pilot"][framework]["implementation"]
    rates = session.manifest["rates_per_s"][implementation]
    todo: list[Todo] = [
        (f"{implementation}-{a.protocol}-{i}-r{replicate}", "grid", a, rates[i], (replicate + 1, i)) for a, i in pairs
    ]
    if session.grid.sensitivity:
        middle = len(rates) // 2 - 1
        for k, arm in enumerate(sensitivity_arms(framework)):
            if arm.protocol in session.grid.protocols:
                name = f"{implementation}-sensitivity{k}-r{replicate}"
                todo.append((name, "sensitivity", arm, rates[middle], (replicate + 1, middle)))
    todo = [item for item in todo if _next_attempt(session, item[0])]
    while todo:
        session.patiently(framework, lambda endpoint: _on_one_server(session, endpoint, replicate, todo, rates))
    _bisect(session, replicate, framework, rates)


def _on_one_server(session: Session, endpoint: Endpoint, replicate: int, todo: list[Todo], rates: list[float]) -> None:
    """Trials of ``todo``, which they are taken from, until none is left or the server is spent."""
    for arm in {item[2].protocol: Arm(item[2].protocol) for item in todo}.values():
        session.warm(endpoint, arm, rates[len(rates) // 2])
    while todo:
        verdict = _attempt(session, endpoint, replicate, *todo[0])
        if not _next_attempt(session, todo[0][0]):
            todo.pop(0)
        if verdict == SATURATED and session.grid.restart:
            return


def _bisect(session: Session, replicate: int, framework: str, rates: list[float]) -> None:
    """Narrow every arm's bracket of λ*, on a server started for it."""
    if not session.grid.bisections:
        return

    def narrow(endpoint: Endpoint) -> None:
        for protocol in session.grid.protocols:
            session.warm(endpoint, Arm(protocol), rates[len(rates) // 2])
            bisect(session, endpoint, replicate, Arm(protocol), rates)

    session.patiently(framework, narrow)


def _next_attempt(session: Session, name: str) -> int:
    """The attempt that is to be made of a trial: 1, or 2 after an INVALID first one; 0 when it is done."""
    first = session.stored(f"{name}-a1")
    if first is None:
        return 1
    repeat = first["verdict"]["verdict"] == INVALID and session.stored(f"{name}-a2") is None
    return 2 if repeat else 0


def _attempt(
    session: Session,
    endpoint: Endpoint,
    replicate: int,
    name: str,
    phase: str,
    arm: Arm,
    rate: float,
    key: tuple[int, ...],
) -> str:
    attempt = _next_attempt(session, name)
    duration = session.grid.duration_s(rate)
    labels = {"phase": phase, "replicate": replicate, "attempt": attempt}
    drain(endpoint)
    manifest = session.run(endpoint, f"{name}-a{attempt}", session.plan(arm, rate, key, duration, **labels))
    verdict = str(manifest["verdict"]["verdict"])
    reasons = ", ".join(manifest["verdict"]["reasons"])
    shown = f"{verdict} ({reasons})" if reasons else verdict
    session.say(f"replicate {replicate + 1}: {endpoint.implementation} {arm.protocol} λ={rate:g}/s {phase}: {shown}")
    return verdict


def default_place() -> Path:
    """Where runs are stored: ``data/raw`` of the project."""
    return project_root() / "data" / "raw"
