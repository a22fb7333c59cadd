"""A session on a run: its folder, its manifest, what is stored of it, and the servers that it starts."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.fronts import FRONTS
from infscale.deployment.processes.pids import record_pids
from infscale.errors import DataError, ServerLostError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm, Level
from infscale.experiment.design.labels import labels
from infscale.experiment.folder import now
from infscale.experiment.trial import Outcome, Plan
from infscale.load import ceiling
from infscale.records import manifest as manifests
from infscale.records import samples
from infscale.records.manifest import Implementation, Phase, RunManifest, TrialManifest
from infscale.records.manifest import Session as SessionRecord

Report = Callable[[str], None]
Start = Callable[..., AbstractContextManager[Endpoint]]
"""A function that starts a server and yields its endpoint, as :func:`infscale.deployment.deploy` does."""

WARM_S, WARM_REQUESTS = 1.0, 20
"""Length of the load before the trials on a new server, s, and its fewest requests."""

LONGEST_NAME = 80
"""Characters of a label that file names hold; a file system takes about 250 in all."""

RESTARTS = 3
"""How often a server that is lost is started again for the same work."""


class Session:
    """One process's work on one run: keeps the manifest, skips what is stored, starts servers."""

    def __init__(self, folder: Path, say: Report, start: Start = deploy) -> None:
        self.folder, self.say, self.start = folder, say, start
        self.manifest = manifests.read(folder / "run.json", RunManifest)
        self.design = self.manifest.design
        self.labels = labels(self.design.every_arm())
        self.began = time.monotonic()
        self.record = SessionRecord(started_at=now())
        self.manifest.sessions.append(self.record)
        self.pids = folder / "pids.txt"

    def save(self) -> None:
        """Write the run's manifest."""
        self.record.seconds = round(time.monotonic() - self.began, 1)
        manifests.write(self.folder / "run.json", self.manifest)

    def name(self, arm: int) -> str:
        """Return an arm's name for files: its number, which makes it unique, and its label."""
        label = re.sub(r"[^a-z0-9]+", "-", self.labels[arm].lower()).strip("-")
        return f"{arm:02d}-{label[:LONGEST_NAME]}"

    @contextlib.contextmanager
    def server(self, arm: Arm) -> Iterator[Endpoint]:
        """Deploy what an arm needs, and record in the manifest what answers."""
        start = FRONTS[_front(arm)].start if arm.front else self.start
        where = {"log_folder": self.folder / "logs", "pid_log": self.pids}
        with start(arm.framework, arm.model, **options(arm), **where) as endpoint:
            self._record(endpoint)
            yield endpoint

    def _record(self, endpoint: Endpoint) -> None:
        known, name = self.manifest.implementations, endpoint.implementation
        if name in known and known[name].label != endpoint.label:
            name = endpoint.label  # the same server, deployed in another way (Triton with its cache)
        known[name] = Implementation(name=endpoint.implementation, **endpoint.describe())

    def patiently(self, arm: Arm, work: Callable[[Endpoint], None]) -> None:
        """Do ``work`` on the server of an arm; a server that is lost is started again, which the manifest records.

        ``work`` begins again then: what is stored is not measured twice.

        Raises:
            ServerLostError: for the fourth time.
        """
        for restart in range(RESTARTS + 1):
            try:
                with self.server(arm) as endpoint:
                    work(endpoint)
                return
            except ServerLostError as error:
                if restart == RESTARTS:
                    raise
                reason = first_line(error)
                self.manifest.restarts.append(f"A server was lost under load and started again: {reason}.")
                self.say(f"{reason}: started anew")

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the generator's ceilings, let the caller measure, then mark the run as complete.

        Whatever happens meanwhile, finished trials stay on disk and the manifest is written.

        Raises:
            DataError: the folder cannot be written.
        """
        record_pids(self.pids, {os.getpid(): "measuring process"})
        try:
            if not self.manifest.ceilings:
                self.manifest.ceilings = ceiling.measure(self.design.protocols())
                self.save()
            yield
            self.manifest.status, self.manifest.finished_at = "complete", now()
        except OSError as error:
            raise DataError(f"cannot write in {self.folder}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                self.save()

    def stored(self, trial_id: str) -> TrialManifest | None:
        """Return the manifest of a trial that is on disk; None if it is not."""
        path = self.folder / "trials" / f"{trial_id}.json"
        return manifests.read(path, TrialManifest) if path.exists() else None

    def run(self, endpoint: Endpoint, trial_id: str, plan: Plan) -> TrialManifest:
        """Run one trial and store it, also where the server died under it; an interrupted one is not stored.

        Raises:
            KeyboardInterrupt: asked to stop in its middle.
            ServerLostError: the server died under it.
        """
        trials = self.design.trials()
        outcome = trial.run(endpoint, plan, trials=trials, ceilings=self.manifest.ceilings)
        if outcome.interrupted:
            raise KeyboardInterrupt
        died = bool(endpoint.command) and not endpoint.processes()
        outcome.manifest.server.died = died
        self.store(trial_id, outcome)
        if died:
            raise ServerLostError(f"{endpoint.label} died during the trial {trial_id}", endpoint.log_tail())
        return outcome.manifest

    def store(self, trial_id: str, outcome: Outcome) -> None:
        """Write a trial's rows, then its manifest."""
        place = self.folder / "trials"
        samples.write(place / f"{trial_id}.parquet", outcome.samples.assign(trial_id=trial_id))
        if outcome.usage is not None:
            outcome.usage.to_parquet(place / f"{trial_id}.usage.parquet", index=False, compression="zstd")
        manifest = outcome.manifest
        manifest.trial_id, manifest.run_id = trial_id, self.manifest.run_id
        manifest.machine_digest = self.manifest.machine.digest()
        manifests.write(place / f"{trial_id}.json", manifest)
        self.record.trials += 1
        self.save()

    def warm(self, endpoint: Endpoint, arm: Arm, rate: float) -> None:
        """Send load that is not recorded: JIT compilers and caches settle before the trials."""
        duration = min(WARM_S, self.design.trial_s)
        rate = min(rate, self.design.most_per_s)
        seconds = max(duration, WARM_REQUESTS / rate)
        trial.run(endpoint, Plan(arm, rate, seconds, self.design.timeout_s, self.design.seed, (98,)))

    def plan(
        self,
        arm: int,
        rate: float,
        key: tuple[int, ...],
        duration_s: float,
        *,
        phase: Phase,
        replicate: int = 0,
        attempt: int = 1,
        usage: bool = False,
    ) -> Plan:
        """Return the plan of one trial of an arm.

        Args:
            arm: the number of the arm.
            rate: λ, requests/s.
            key: makes the random arrivals and bodies of this trial differ from those of others.
            duration_s: length of the arrivals, s.
            phase, replicate, attempt: the trial's place in the run.
            usage: whether CPU and memory of all processes are read during the trial.
        """
        return Plan(
            self.design.every_arm()[arm],
            rate,
            duration_s,
            self.design.timeout_s,
            self.design.seed,
            key,
            phase=phase,
            replicate=replicate,
            attempt=attempt,
            arm_number=arm,
            block=self.design.block(arm),
            usage=usage,
        )


def first_line(error: Exception) -> str:
    """Return an error's message without the log below it, and without a full stop."""
    return str(error).splitlines()[0].rstrip(".")


OPTIONS = ("cache", "replicas", "balancer", "slow_ms", "rate_mbit", "delay_ms", "linked", "tls")
"""Factors that are options of a deployment by the same names."""


def options(arm: Arm) -> dict[str, Level]:
    """Return the deployment options of an arm, by name: those of its levels that are not the defaults."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(Arm)}
    chosen = {name: getattr(arm, name) for name in OPTIONS if getattr(arm, name) != defaults[name]}
    if arm.front == "balanced":  # whose own defaults are others
        chosen |= {"replicas": arm.replicas, "balancer": arm.balancer}
    return {**chosen, **dict(arm.options)}


def _front(arm: Arm) -> str:
    return "cache-redis" if arm.store == "redis" else arm.front
