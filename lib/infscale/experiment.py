"""Measuring a grid: pilot, trials in random order, restarts, resume. Every trial is on disk when it ends."""

import contextlib
import datetime as dt
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from infscale import machine, samples, trial
from infscale.errors import DataError, DeploymentError
from infscale.grid import Grid, sensitivity_arms
from infscale.paths import project_root
from infscale.runs import COMPLETE
from infscale.servers import deploy
from infscale.servers.endpoint import Endpoint
from infscale.servers.process import record_pids
from infscale.trial import Arm, Outcome, Plan
from infscale.validity import INVALID, SATURATED, VALID

Report = Callable[[str], None]

PILOT_FIRST_RATE = 100.0
PILOT_LAST_RATE = 30_000.0
PILOT_TRIAL_S = 1.5
WARM_S = 1.0
RAISE = 1.3
"""Ratio of neighbouring rates of the pilot where it ends; also the step by which the grid's top is raised."""


def folder_for(grid: Grid, place: Path, *, fresh: bool = False) -> Path:
    """The folder of this grid's run below ``place``: an interrupted one is continued, a complete one kept.

    A run is continued only by the same grid, code, environment and machine. ``fresh`` always starts a new one.

    Raises:
        DataError: the folder cannot be written.
    """
    if not fresh:
        for file in sorted(place.glob("*/run.json"), reverse=True):
            with contextlib.suppress(DataError):
                manifest = samples.read_json(file)
                if all(manifest.get(key) == value for key, value in _identity(grid).items()):
                    return file.parent
    stamp = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%S")
    names = itertools.chain([f"{stamp}-{grid.profile}"], (f"{stamp}-{grid.profile}-{i}" for i in itertools.count(2)))
    folder = next(place / name for name in names if not (place / name).exists())
    try:
        (folder / "trials").mkdir(parents=True)
        (folder / "logs").mkdir()
    except OSError as error:
        raise DataError(f"cannot write in {place}: {error.strerror}") from error
    samples.write_json(folder / "run.json", _new_manifest(grid, folder.name))
    return folder


def _identity(grid: Grid) -> dict[str, Any]:
    """What must be equal for two sessions' trials to belong to one run."""
    return {
        "grid_digest": grid.digest(),
        "code_digest": machine.code_digest(),
        "environment_digest": machine.environment_digest(),
        "machine": machine.describe(),
    }


def _new_manifest(grid: Grid, run_id: str) -> dict[str, Any]:
    return {
        "schema_version": samples.SCHEMA_VERSION,
        "run_id": run_id,
        "experiment": "protocol-grid",
        "profile": grid.profile,
        "status": "interrupted",  # until it is complete
        "config": grid.config(),
        "rates_per_s": {},
        "pilot": {},
        "implementations": {},
        **_identity(grid),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "clock": "CLOCK_MONOTONIC",
        "time_plan": grid.time_plan().splitlines(),
        "sessions": [],
        "started_at": _now(),
        "finished_at": None,
    }


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


class _Session:
    """One process's work on one run: keeps the manifest, skips what is stored, starts servers."""

    def __init__(self, grid: Grid, folder: Path, say: Report) -> None:
        self.grid, self.folder, self.say = grid, folder, say
        self.manifest = samples.read_json(folder / "run.json")
        self.began = time.monotonic()
        self.session: dict[str, Any] = {
            "started_at": _now(),
            "trials": 0,
        }
        self.manifest["sessions"].append(self.session)
        self.pids = folder / "pids.txt"
        record_pids(self.pids, {os.getpid(): "measuring process"})

    def save(self) -> None:
        self.session["seconds"] = round(time.monotonic() - self.began, 1)
        samples.write_json(self.folder / "run.json", self.manifest)

    @contextlib.contextmanager
    def server(self, framework: str) -> Iterator[Endpoint]:
        options = {"log_folder": self.folder / "logs", "pid_log": self.pids}
        with deploy(framework, self.grid.model, **options) as endpoint:
            self.manifest["implementations"][endpoint.implementation] = endpoint.describe() | {
                "name": endpoint.implementation
            }
            yield endpoint

    def stored(self, trial_id: str) -> dict[str, Any] | None:
        path = self.folder / "trials" / f"{trial_id}.json"
        return samples.read_json(path) if path.exists() else None

    def run(self, endpoint: Endpoint, trial_id: str, plan: Plan) -> dict[str, Any]:
        """Run and store one trial; an interrupted one is not stored.

        Raises:
            KeyboardInterrupt: asked to stop in its middle.
            DeploymentError: the server died under it.
        """
        outcome = trial.run(endpoint, plan, trials_of_grid=self.grid.trials())
        if outcome.interrupted:
            raise KeyboardInterrupt
        if endpoint.command and not endpoint.processes():
            raise DeploymentError(f"{endpoint.label} died during the trial {trial_id}; see {self.folder / 'logs'}")
        self.store(trial_id, outcome)
        return outcome.manifest

    def store(self, trial_id: str, outcome: Outcome) -> None:
        frame = outcome.samples.assign(trial_id=trial_id)
        samples.write(self.folder / "trials" / f"{trial_id}.parquet", frame)
        identity = {"schema_version": samples.SCHEMA_VERSION, "trial_id": trial_id, "run_id": self.manifest["run_id"]}
        samples.write_json(self.folder / "trials" / f"{trial_id}.json", identity | outcome.manifest)
        self.session["trials"] += 1
        self.save()

    def plan(self, arm: Arm, rate: float, key: tuple[int, ...], duration_s: float, **labels: Any) -> Plan:
        return Plan(arm, rate, duration_s, self.grid.timeout_s, self.grid.seed, key, labels)


def measure(grid: Grid, folder: Path, say: Report = print) -> Path:
    """Measure what ``folder`` does not hold yet of ``grid``; returns the folder, complete.

    ``say`` gets a line for each step. Interrupted by an exception or Ctrl-C, the finished trials stay.

    Raises:
        DeploymentError, MissingError: a server cannot be had.
        DataError: the folder cannot be written.
    """
    session = _Session(grid, folder, say)
    if session.manifest["status"] == COMPLETE:
        say(f"{folder.name} is complete: nothing to measure")
        return folder
    try:
        for framework in grid.frameworks:
            _pilot(session, framework)
        for replicate in range(grid.replicates):
            for framework, pairs in grid.order(replicate):
                _replicate(session, replicate, framework, pairs)
        session.manifest["status"] = COMPLETE
        session.manifest["finished_at"] = _now()
    except OSError as error:
        raise DataError(f"cannot write in {folder}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            session.save()
    return folder


# --- pilot ---


def _pilot(session: _Session, framework: str) -> None:
    """Find each protocol's saturation rate roughly, and set the framework's rates from the larger one."""
    done = session.manifest["pilot"].get(framework)
    if done and set(done["saturation_per_s"]) == set(session.grid.protocols):
        return
    with session.server(framework) as endpoint:
        found = {}
        for protocol in session.grid.protocols:
            _warm(session, endpoint, Arm(protocol), PILOT_FIRST_RATE)
            found[protocol] = _bracket(session, endpoint, Arm(protocol))
        top = _raised(session, endpoint, found)
        rates = [float(f"{fraction * top:.3g}") for fraction in session.grid.fractions]
        session.manifest["rates_per_s"][endpoint.implementation] = rates
        session.manifest["pilot"][framework] = {
            "implementation": endpoint.implementation,
            "saturation_per_s": {p: float(f"{np.sqrt(low * high):.4g}") for p, (low, high) in found.items()},
            "bracket_per_s": found,
        }
        session.save()
    session.say(f"{framework}: saturation near {top:.0f}/s; rates {', '.join(f'{r:g}' for r in rates)} per s")


def _raised(session: _Session, endpoint: Endpoint, found: dict[str, tuple[float, float]]) -> float:
    """The larger λ* of ``found``, raised until no protocol keeps up at the grid's largest rate.

    The short trials of the pilot, on a server whose JIT compiler still works, call a rate SATURATED too early;
    so every arm's knee lies within the grid.
    """
    middle = {protocol: float(np.sqrt(low * high)) for protocol, (low, high) in found.items()}
    top, share = max(middle.values()), max(session.grid.fractions)
    for step in range(20, 26 if share > 1 else 20):
        rate = float(f"{share * top:.3g}")
        for protocol in sorted(middle, key=lambda p: -middle[p]):
            trial.drain(endpoint)
            trial_id, arm = f"pilot-{endpoint.implementation}-{protocol}-{rate:.0f}-{step}", Arm(protocol)
            manifest = _pilot_trial(session, endpoint, trial_id, arm, rate, step, session.grid.trial_s)
            if manifest["verdict"]["verdict"] == VALID:
                top *= RAISE
                break
        else:
            break
    return top


def _bracket(session: _Session, endpoint: Endpoint, arm: Arm) -> tuple[float, float]:
    """Rates (largest that kept up, smallest that did not): by fours, then from what the overload let through."""
    low, high, rate, guess = PILOT_FIRST_RATE / 4, 0.0, PILOT_FIRST_RATE, 0.0
    for step in range(16):
        trial.drain(endpoint)
        manifest = _keep_up(session, endpoint, arm, rate, step)
        if _kept_up(manifest["verdict"]):
            low = rate
        else:
            guess = guess if high else _completed_per_s(session, manifest)
            high = rate
        if not high and low >= PILOT_LAST_RATE:
            return low, low
        if not high:
            rate = low * 4
            continue
        if high / low < RAISE:
            break
        # A step to each side of the guess, while the bracket is wide, is as good as several halvings.
        inside = [r for r in (guess * RAISE**0.5, guess / RAISE**0.5) if low * 1.05 < r < high / 1.05]
        rate = float(f"{inside[0] if guess and inside else np.sqrt(low * high):.4g}")
    return low, high


def _keep_up(session: _Session, endpoint: Endpoint, arm: Arm, rate: float, step: int) -> dict[str, Any]:
    trial_id = f"pilot-{endpoint.implementation}-{arm.protocol}-{rate:.0f}-{step}"
    return _pilot_trial(session, endpoint, trial_id, arm, rate, step, min(PILOT_TRIAL_S, session.grid.trial_s * 2))


def _completed_per_s(session: _Session, manifest: dict[str, Any]) -> float:
    """Successes per second of a trial, from its first request to its last response."""
    rows = samples.read(session.folder / "trials" / f"{manifest['trial_id']}.parquet")
    good = rows[rows["status"] == "ok"]
    return len(good) / (float(good["done_ns"].max()) / 1e9) if len(good) else 0.0


def _pilot_trial(
    session: _Session, endpoint: Endpoint, trial_id: str, arm: Arm, rate: float, step: int, duration_s: float
) -> dict[str, Any]:
    """The manifest of a pilot trial, from disk if it is there."""
    stored = session.stored(trial_id)
    if stored is not None:
        return stored
    plan = session.plan(arm, rate, (0, step), duration_s, phase="pilot", replicate=0, attempt=1)
    return session.run(endpoint, trial_id, plan) | {"trial_id": trial_id}


def _kept_up(verdict: dict[str, Any]) -> bool:
    """Whether a pilot trial was VALID, or INVALID by a passing disturbance rather than by its rate.

    A generator that fails otherwise has met its own ceiling: no rate above can be measured either way.
    """
    failed = {gate["name"] for gate in verdict["gates"] if not gate["passed"]}
    passing = verdict["verdict"] == INVALID and failed <= {"host", "lag", "run_delay", "arrivals"}
    return bool(verdict["verdict"] == VALID or passing)


# --- trials ---


def _replicate(session: _Session, replicate: int, framework: str, pairs: list[tuple[Arm, int]]) -> None:
    """All trials of one framework in one replicate, on a server started for it."""
    implementation = session.manifest["pilot"][framework]["implementation"]
    rates = session.manifest["rates_per_s"][implementation]
    todo = [
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
        with session.server(framework) as endpoint:
            for arm in {item[2].protocol: Arm(item[2].protocol) for item in todo}.values():
                _warm(session, endpoint, arm, rates[len(rates) // 2])
            spent = False
            while todo and not spent:
                verdict = _attempt(session, endpoint, replicate, *todo[0])
                spent = verdict == SATURATED and session.grid.restart
                if not _next_attempt(session, todo[0][0]):
                    todo.pop(0)


def _next_attempt(session: _Session, name: str) -> int:
    """The attempt that is to be made of a trial: 1, or 2 after an INVALID first one; 0 when it is done."""
    first = session.stored(f"{name}-a1")
    if first is None:
        return 1
    repeat = first["verdict"]["verdict"] == INVALID and session.stored(f"{name}-a2") is None
    return 2 if repeat else 0


def _attempt(
    session: _Session,
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
    trial.drain(endpoint)
    manifest = session.run(endpoint, f"{name}-a{attempt}", session.plan(arm, rate, key, duration, **labels))
    verdict = str(manifest["verdict"]["verdict"])
    reasons = ", ".join(manifest["verdict"]["reasons"])
    shown = f"{verdict} ({reasons})" if reasons else verdict
    session.say(f"replicate {replicate + 1}: {endpoint.implementation} {arm.protocol} λ={rate:g}/s {phase}: {shown}")
    return verdict


def _warm(session: _Session, endpoint: Endpoint, arm: Arm, rate: float) -> None:
    """Load that is not recorded, at a rate of the grid's middle: JIT compilers and caches settle before the trials."""
    duration = min(WARM_S, session.grid.trial_s)
    plan = session.plan(arm, max(rate, PILOT_FIRST_RATE), (98,), duration)
    trial.run(endpoint, plan)


def default_place() -> Path:
    """Where runs are stored: ``data/raw`` of the project."""
    return project_root() / "data" / "raw"
