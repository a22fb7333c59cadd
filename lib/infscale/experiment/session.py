"""A session on a run: its folder, its manifest, what is stored of it, and the servers that it starts."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from infscale import machine
from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.fronts import FRONTS
from infscale.deployment.processes.pids import record_pids
from infscale.errors import DataError, ServerLostError
from infscale.experiment import trial
from infscale.experiment.design.grid import Grid
from infscale.experiment.folder import now
from infscale.experiment.trial import Arm, Outcome, Plan
from infscale.load import ceiling
from infscale.records import samples
from infscale.records.manifest import read_json, write_json
from infscale.records.runs import COMPLETE

Report = Callable[[str], None]
Start = Callable[..., AbstractContextManager[Endpoint]]
"""What gives an endpoint, as :func:`infscale.deployment.deploy` does."""

WARM_S, WARM_REQUESTS = 1.0, 20
RESTARTS = 3


class Session:
    """One process's work on one run: keeps the manifest, skips what is stored, starts servers."""

    def __init__(self, grid: Grid, folder: Path, say: Report, start: Start = deploy) -> None:
        self.grid, self.folder, self.say, self.start = grid, folder, say, start
        self.manifest = read_json(folder / "run.json")
        self.manifest.setdefault("ceilings", {})
        self.began = time.monotonic()
        self.session: dict[str, Any] = {
            "started_at": now(),
            "trials": 0,
        }
        self.manifest["sessions"].append(self.session)
        self.pids = folder / "pids.txt"

    def save(self) -> None:
        """Write the run's manifest."""
        self.session["seconds"] = round(time.monotonic() - self.began, 1)
        write_json(self.folder / "run.json", self.manifest)

    @contextlib.contextmanager
    def server(self, framework: str, *, model: str = "", front: str = "", **options: Any) -> Iterator[Endpoint]:
        """A framework's endpoint, told in the manifest; ``options`` are the deployment's."""
        start = FRONTS[front].start if front else self.start
        given = {**options, "log_folder": self.folder / "logs", "pid_log": self.pids}
        with start(framework, model or self.grid.model, **given) as endpoint:
            known, name = self.manifest["implementations"], endpoint.implementation
            if known.get(name, {}).get("label", endpoint.label) != endpoint.label:
                name = endpoint.label  # the same server, deployed in another way (Triton with its cache)
            known[name] = endpoint.describe() | {"name": endpoint.implementation}
            yield endpoint

    def patiently(self, framework: str, work: Callable[[Endpoint], None], **how: Any) -> None:
        """Do ``work`` on a framework's server, deployed as ``how`` says; one that is lost is started anew and told.

        ``work`` begins again then: what is stored is not measured twice. ``how`` is as of :meth:`server`.

        Raises:
            ServerLostError: for the fourth time.
        """
        for restart in range(RESTARTS + 1):
            try:
                with self.server(framework, **how) as endpoint:
                    work(endpoint)
                return
            except ServerLostError as error:
                if restart == RESTARTS:
                    raise
                told = str(error).splitlines()[0]
                self.manifest.setdefault("restarts", []).append(told)
                self.say(f"{told}: started anew")

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the generator's ceilings first; complete at the end; what is stored stays, whatever happens.

        Raises:
            DataError: the folder cannot be written.
        """
        record_pids(self.pids, {os.getpid(): "measuring process"})
        try:
            if not self.manifest["ceilings"]:
                self.manifest["ceilings"] = ceiling.measure(self.grid.protocols)
                self.save()
            yield
            self.manifest["status"], self.manifest["finished_at"] = COMPLETE, now()
        except OSError as error:
            raise DataError(f"cannot write in {self.folder}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                self.save()

    def stored(self, trial_id: str) -> dict[str, Any] | None:
        """The manifest of a trial that is on disk."""
        path = self.folder / "trials" / f"{trial_id}.json"
        return read_json(path) if path.exists() else None

    def run(self, endpoint: Endpoint, trial_id: str, plan: Plan) -> dict[str, Any]:
        """Run and store one trial; an interrupted one is not stored, one that the server did not survive is.

        Raises:
            KeyboardInterrupt: asked to stop in its middle.
            ServerLostError: the server died under it.
        """
        outcome = trial.run(endpoint, plan, trials_of_grid=self.grid.trials(), ceilings=self.manifest["ceilings"])
        if outcome.interrupted:
            raise KeyboardInterrupt
        died = bool(endpoint.command) and not endpoint.processes()
        outcome.manifest["server"]["died"] = died
        self.store(trial_id, outcome)
        if died:
            raise ServerLostError(f"{endpoint.label} died during the trial {trial_id}", endpoint.log_tail())
        return outcome.manifest

    def store(self, trial_id: str, outcome: Outcome) -> None:
        """Write a trial's rows, then its manifest."""
        frame = outcome.samples.assign(trial_id=trial_id)
        samples.write(self.folder / "trials" / f"{trial_id}.parquet", frame)
        if outcome.usage is not None:
            outcome.usage.to_parquet(
                self.folder / "trials" / f"{trial_id}.usage.parquet", index=False, compression="zstd"
            )
        identity = {"schema_version": samples.SCHEMA_VERSION, "trial_id": trial_id, "run_id": self.manifest["run_id"]}
        identity["machine_digest"] = machine.machine_digest()
        write_json(self.folder / "trials" / f"{trial_id}.json", identity | outcome.manifest)
        self.session["trials"] += 1
        self.save()

    def warm(self, endpoint: Endpoint, arm: Arm, rate: float) -> None:
        """Load that is not recorded: JIT compilers and caches settle before the trials."""
        duration = min(WARM_S, self.grid.trial_s)
        rate = min(rate, self.grid.most_per_s)
        trial.run(endpoint, self.plan(arm, rate, (98,), max(duration, WARM_REQUESTS / rate)))

    def plan(self, arm: Arm, rate: float, key: tuple[int, ...], duration_s: float, **labels: Any) -> Plan:
        """A trial of this run; ``key`` tells its draws apart."""
        return Plan(arm, rate, duration_s, self.grid.timeout_s, self.grid.seed, key, labels)
