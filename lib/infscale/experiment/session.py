"""A session on a run: its folder, its manifest, what is stored of it, and the servers that it starts."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import psutil

from infscale import machine
from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.fronts import FRONTS
from infscale.deployment.processes.pids import record_pids
from infscale.deployment.processes.ports import other_ports_if_taken
from infscale.errors import DataError, DeploymentError, MissingError, ServerLostError
from infscale.experiment import trial
from infscale.experiment.beside import anchor
from infscale.experiment.design.arm import Arm, Level
from infscale.experiment.design.labels import labels
from infscale.experiment.folder import now
from infscale.experiment.live.view import View
from infscale.experiment.trial import Outcome, Plan
from infscale.experiment.usage.elsewhere import Elsewhere
from infscale.load import ceiling
from infscale.load.cluster.connect import Cluster
from infscale.records import chunks, samples
from infscale.records import manifest as manifests
from infscale.records.gates.verdict import judge_trial
from infscale.records.manifest import Implementation, Phase, RunManifest, TrialManifest
from infscale.records.manifest import Session as SessionRecord

Report = Callable[[str], None]
Start = Callable[..., AbstractContextManager[Endpoint]]
"""A function that starts a server and yields its endpoint, as :func:`infscale.deployment.deploy` does."""
Endpoints = dict[int, Endpoint]
"""What answers each arm, by its number."""

WARM_S, WARM_REQUESTS, WARM_MOST = 0.6, 30, 5
"""Length of a load that is not recorded, s; its fewest requests; and most such loads of an arm in a lifetime."""

STEADY = 1.2
"""An arm is warm when the median response time of a load's last third is not shorter by more than this factor than that
of its second third."""

LONGEST_NAME = 80
"""Characters of a label that file names hold; a file system takes about 250 in all."""

MEMORY_GIB = 0.75
"""Memory that must be free before a server is started, GiB for each replica."""

WORKER_LOSSES = 3
"""How often a trial is run while workers of a cluster are lost in it."""

RESTARTS = 3
"""How often a server that is lost is started again for the same work."""


class Session:
    """One process's work on one run: keeps the manifest, skips what is stored, starts servers."""

    def __init__(
        self,
        folder: Path,
        say: Report,
        start: Start = deploy,
        cluster: Cluster | None = None,
        elsewhere: Elsewhere | None = None,
        view: View | None = None,
    ) -> None:
        self.folder, self.say, self.start, self.view = folder, say, start, view
        self.cluster, self.elsewhere = cluster, elsewhere
        self.manifest = manifests.read(folder / "run.json", RunManifest)
        self.design = self.manifest.design
        self.labels = labels(self.design.every_arm())
        self.began, self.earlier_s = time.monotonic(), self.manifest.measured_s
        self.record = SessionRecord(started_at=now())
        self.manifest.sessions.append(self.record)
        self.pids = folder / "pids.txt"

    def elapsed_s(self) -> float:
        """Return the seconds of measuring of all sessions on this run, this one included."""
        return self.earlier_s + time.monotonic() - self.began

    def save(self) -> None:
        """Write the run's manifest."""
        self.record.seconds = round(time.monotonic() - self.began, 1)
        manifests.write(self.folder / "run.json", self.manifest)

    def name(self, arm: int) -> str:
        """Return an arm's name for files: its number, which makes it unique, and its label."""
        label = re.sub(r"[^a-z0-9]+", "-", self.labels[arm].lower()).strip("-")
        return f"{arm:02d}-{label[:LONGEST_NAME]}"

    @contextlib.contextmanager
    def servers(self, arms: Sequence[int]) -> Iterator[Endpoints]:
        """Deploy all that some arms need, and record in the manifest what answers.

        The deployments of arms that cannot be had on this machine are left out, with the reason in the manifest.

        Yields:
            The endpoint of each arm that is left, by its number.

        Raises:
            DeploymentError: a server could not be started.
        """
        endpoints: Endpoints = {}
        with contextlib.ExitStack() as stack:
            for alike in self.design.deployments(arms):
                self._check_memory(alike, len(self.design.deployments(arms)))
                try:
                    endpoint = stack.enter_context(self._server(self.design.arms[alike[0]]))
                except MissingError as error:
                    self._leave_out(alike, error)
                else:
                    endpoints |= dict.fromkeys(alike, endpoint)
            yield dict(sorted(endpoints.items()))

    def _check_memory(self, arms: Sequence[int], deployments: int) -> None:
        """Raise DeploymentError where what a group needs together does not fit into memory."""
        available_gib = psutil.virtual_memory().available / 2**30
        needed_gib = MEMORY_GIB * self.design.arms[arms[0]].replicas
        if available_gib < needed_gib:
            raise DeploymentError(
                f"{self.labels[arms[0]]}: {available_gib:.1f} GiB of memory are left for a server that may take "
                f"{needed_gib:g} GiB; the {deployments} deployments of its group run together: measure fewer arms in a "
                "block, or on a larger machine"
            )

    @contextlib.contextmanager
    def _server(self, arm: Arm) -> Iterator[Endpoint]:
        start = FRONTS[_front(arm)].start if arm.front else self.start
        begin = partial(
            start, arm.framework, arm.model, log_folder=self.folder / "logs", pid_log=self.pids, **options(arm)
        )
        with other_ports_if_taken(begin) if arm.front else begin() as endpoint:
            self._record(endpoint)
            yield endpoint

    def _leave_out(self, arms: Sequence[int], error: MissingError) -> None:
        for arm in arms:
            self.manifest.skipped[arm] = first_line(error)
            self.say(f"{self.labels[arm]}: left out: {self.manifest.skipped[arm]}")
        self.save()

    def _record(self, endpoint: Endpoint) -> None:
        known, name = self.manifest.implementations, endpoint.implementation
        if name in known and known[name].label != endpoint.label:
            name = endpoint.label  # the same server, deployed in another way (Triton with its cache)
        known[name] = Implementation(name=endpoint.implementation, **endpoint.describe())

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the generator's ceilings, let the caller measure, then mark the run as complete.

        Whatever happens meanwhile, finished trials stay on disk and the manifest is written.

        Raises:
            DataError: the folder cannot be written.
        """
        record_pids(self.pids, {os.getpid(): "measuring process"})
        try:
            self.record.calibration = machine.calibrate()
            if self.design.anchor and self.record.anchor is None:
                self.record.anchor = anchor.measure(self.start, self.folder / "logs", self.pids, self.say, self.view)
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

    def run(self, endpoint: Endpoint, trial_id: str, plan: Plan, *, repeatable: bool = False) -> TrialManifest:
        """Run one trial and store it, also where the server was lost under it; an interrupted one is not stored.

        Args:
            endpoint: what answers.
            trial_id: the trial's name.
            plan: the trial.
            repeatable: whether it can be run again: it is INVALID then if connections were cut, else SATURATED.

        Raises:
            KeyboardInterrupt: asked to stop in its middle.
            ServerLostError: the server died under it, or was stopped; the trial is INVALID then.
        """
        outcome = self._with_all_workers(endpoint, trial_id, plan)
        server = outcome.manifest.server
        server.died = bool(endpoint.command) and not endpoint.processes()
        server.stopped = not server.died and _stopped(endpoint)
        server.cut = repeatable and not (server.died or server.stopped) and outcome.manifest.judged.cut
        if server.died or server.stopped or server.cut:
            outcome.manifest.verdict = judge_trial(outcome.samples, outcome.manifest, outcome.chunks)
        self.store(trial_id, outcome)
        if server.died or server.stopped:
            how = "died" if server.died else "was stopped"
            raise ServerLostError(f"{endpoint.label} {how} during the trial {trial_id}", endpoint.log_tail())
        return outcome.manifest

    def _with_all_workers(self, endpoint: Endpoint, trial_id: str, plan: Plan) -> Outcome:
        """Run one trial, again where a worker of the cluster was lost in it; each that is INVALID for that is stored.

        Raises:
            DeploymentError: the scheduler has gone, or no worker is left.
        """
        for number in range(1, WORKER_LOSSES + 1):
            outcome = self._try(endpoint, plan)
            lost = [worker for worker in outcome.manifest.generator.workers if worker.lost]
            if not lost:
                return outcome
            self.say(f"{trial_id}: a worker was lost ({lost[0].name}: {lost[0].lost}); the trial is INVALID")
            if number < WORKER_LOSSES:
                self.store(f"{trial_id}-lost{number}", outcome)
        return outcome

    def _try(self, endpoint: Endpoint, plan: Plan) -> Outcome:
        ceilings, elsewhere = self.manifest.ceilings, self.elsewhere
        return trial.run(endpoint, plan, ceilings=ceilings, cluster=self.cluster, elsewhere=elsewhere, view=self.view)

    def store(self, trial_id: str, outcome: Outcome) -> None:
        """Write a trial's rows and the logs of its load tool, then its manifest."""
        place = self.folder / "trials"
        samples.write(place / f"{trial_id}.parquet", outcome.samples.assign(trial_id=trial_id))
        if outcome.chunks is not None:
            chunks.write(place / f"{trial_id}.chunks.parquet", outcome.chunks.assign(trial_id=trial_id))
        if outcome.usage is not None:
            outcome.usage.to_parquet(place / f"{trial_id}.usage.parquet", index=False, compression="zstd")
        manifest = outcome.manifest
        for name, text in outcome.logs.items():  # not beside the rows: packing removes the trials' own files
            (self.folder / "logs" / f"{trial_id}.{name}").write_text(text, encoding="utf-8")
        manifest.trial_id, manifest.run_id = trial_id, self.manifest.run_id
        manifest.machine_digest = self.manifest.machine.digest()
        manifests.write(place / f"{trial_id}.json", manifest)
        self.record.trials += 1
        self.save()

    def warm(self, endpoint: Endpoint, arm: Arm, rate: float, most: int = WARM_MOST) -> None:
        """Send loads that are not recorded, until the arm's response time falls no more: JIT compilers, caches.

        At most ``most`` loads: trials of an arm that never becomes steady are UNSTEADY by their own verdicts.

        Args:
            endpoint: what answers the arm.
            arm: its factors.
            rate: λ, requests/s.
            most: loads at most.

        Raises:
            KeyboardInterrupt: asked to stop in the middle of one.
        """
        rate = min(rate, self.design.most_per_s)
        seconds = max(min(WARM_S, self.design.trial_s), WARM_REQUESTS / rate)
        for k in range(most):
            plan = Plan(arm, rate, seconds, self.design.timeout_s, self.design.seed, (98, k))
            rows = trial.run(endpoint, plan, cluster=self.cluster, view=self.view).samples
            ok = rows[rows["status"] == "ok"]
            _, before, after = np.array_split((ok["done_ns"] - ok["scheduled_ns"]).to_numpy(), 3)
            if len(before) and len(after) and np.median(before) <= STEADY * np.median(after):
                return

    def bodies(self, endpoint: Endpoint, arm: Arm) -> Sequence[bytes]:
        """Return the request bodies of an arm."""
        return trial.payload_of(endpoint, arm).bodies

    def plan(
        self,
        arm: int,
        rate: float,
        key: tuple[int, ...],
        duration_s: float,
        *,
        phase: Phase,
        lifetime: int = 0,
        attempt: int = 1,
        usage: bool = False,
    ) -> Plan:
        """Return the plan of one trial of an arm.

        Args:
            arm: the number of the arm.
            rate: λ, requests/s.
            key: makes the random arrivals and bodies of this trial differ from those of others.
            duration_s: length of the arrivals, s.
            phase, lifetime, attempt: the trial's place in the run.
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
            lifetime=lifetime,
            attempt=attempt,
            arm_number=arm,
            block=self.design.block(arm),
            usage=usage,
            slo=self.design.objective if phase == "capacity" else None,
        )


def _stopped(endpoint: Endpoint) -> bool:
    """Return whether a process of the endpoint's stands still (SIGSTOP)."""
    for process in endpoint.processes():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                return True
    return False


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
