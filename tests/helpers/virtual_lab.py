"""Servers and trials in virtual time: a run is measured in a second or two, and no busy machine changes a verdict.

Everything but the load itself is the project's own: designs, sessions, searches, gates, records, packing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from helpers.synthetic_run import TRANSPORT_NS, Ints, generator_of, host_of, manifest_of
from infscale.deployment.endpoint import Endpoint
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.experiment.measure import measure
from infscale.experiment.trial import Outcome, Plan
from infscale.load import schedule
from infscale.load.null_server import lindley
from infscale.machine import Calibration
from infscale.records import samples
from infscale.records.gates.verdict import judge_trial
from infscale.records.manifest import GroupUsage, TrialManifest
from infscale.records.runs import Run

CALIBRATION = Calibration(python=1e7, numpy=1e4, calls=1e6, loopback=1e4)
"""How fast the machine of every lab is."""

WARM_UP = 98
"""The key of loads that are not recorded."""


class Answering:
    """Stands for requests of a user's own, all of which are answered."""

    def answered(self, endpoint: Endpoint) -> bool:
        """Whether the server answers: it does."""
        return True

    def payload(self, *_: object) -> Any:
        """Return the requests, of which only the size counts."""
        return SimpleNamespace(bodies=[bytes(100)])


def readings(n: int = 5) -> pd.DataFrame:
    """Return readings of a client and a server, as the sampler gives them."""
    columns = {
        "time_ns": np.repeat(np.arange(n) * 10**8, 2),
        "group": pd.Categorical(["client", "server"] * n),
        "pid": [7, 8] * n,
        "name": pd.Categorical(["python", f"server {n}"] * n),
        "user_s": np.linspace(0, 1, 2 * n),
        "system_s": 0.0,
        "rss_bytes": 10**6,
        "voluntary": np.repeat(np.arange(n), 2),
        "involuntary": 0,
        "threads": 1,
        "network_bytes": -1,
        "ended": False,
    }
    return pd.DataFrame(columns)


@dataclass
class Lab:
    """Servers that take each arm's requests one after the other, in constant time.

    Attributes:
        capacity: requests/s that a server completes of an arm.
        before: called before each recorded trial with its plan; may raise.
        disturbed: whether the host spoils a trial.
        drifting: whether responses become faster from the first to the last of a trial, by a factor of e⁴.
        held_ms: for how long a proxy on the way to an arm keeps the messages of streams; 0 for none.
        stream: returns an arm with the messages that its server sends, where the arm itself does not know them.
        free_gib: memory that is free when a server is to be started.
        clock_s: the time of sessions and lifetimes: a trial takes as long as its arrivals, a start one second.
        starts: the arms' frameworks, in the order of the servers' starts.
        plans: of the recorded trials.
        warm_ups: of the loads that are not recorded.
    """

    capacity: Callable[[Arm], float]
    before: Callable[[Plan], None] = lambda plan: None
    disturbed: Callable[[Plan], bool] = lambda plan: False
    clock_s: float = 0.0
    drifting: Callable[[Plan], bool] = lambda plan: False
    held_ms: Callable[[Arm], float] = lambda arm: 0.0
    stream: Callable[[Arm], Arm] = lambda arm: arm
    free_gib: float = 64.0
    starts: list[str] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    warm_ups: list[Plan] = field(default_factory=list)

    @contextlib.contextmanager
    def start(self, framework: str, model: str = "mlp", **options: Any) -> Iterator[Endpoint]:
        """Start a server, as :func:`infscale.deployment.deploy` does."""
        self.starts.append(framework)
        self.clock_s += 1.0
        label = f"{framework} with a cache" if options.get("cache") else framework
        yield Endpoint(framework, framework, "1", label, "virtual", model, ":1", ":2", own=Answering())

    def run(self, endpoint: Endpoint, plan: Plan, **options: Any) -> Outcome:
        """Run a trial, as :func:`infscale.experiment.trial.run` does."""
        recorded = plan.key[0] != WARM_UP
        (self.plans if recorded else self.warm_ups).append(plan)
        if recorded:
            self.before(plan)
        self.clock_s += plan.duration_s
        seed = np.random.SeedSequence(plan.seed, spawn_key=(*plan.key, 0))
        arrivals = schedule.poisson(plan.rate_per_s, plan.duration_s, seed)
        service = np.full(len(arrivals), 1e9 / self.capacity(plan.arm), np.int64)
        response = lindley(arrivals, service) + TRANSPORT_NS
        if self.drifting(plan):
            response = (response * np.exp(4 - 4 * arrivals / plan.duration_s / 1e9)).astype(np.int64)
        begun, held_ms = arrivals + response, self.held_ms(plan.arm)
        first = response + round(1e6 * held_ms)
        sent = self.stream(plan.arm) if plan.arm.streams else plan.arm
        response = first + round(1e9 * _stream_s(sent))
        limit = int(plan.timeout_s * 1e9)
        rows = samples.synthetic(
            arrivals,
            np.minimum(response, limit),
            lag_ns=50_000,
            status=np.where(response >= limit, "timeout", "ok"),
        )
        messages = None
        if plan.arm.streams:
            rows["first_byte_ns"] = np.where(first < limit, arrivals + first, samples.NEVER)
            messages = messages_of(sent, begun, arrivals + limit, held_ms)
        manifest = manifest_of(
            msgspec.structs.replace(plan.arm, connections=plan.arm.limit()),
            phase=plan.phase,
            lifetime=plan.lifetime,
            attempt=plan.attempt,
            arm_number=plan.arm_number,
            block=plan.block,
            implementation=endpoint.implementation,
            rate_per_s=plan.rate_per_s,
            duration_s=plan.duration_s,
            timeout_s=plan.timeout_s,
            rows=len(rows),
            messages=None if messages is None else len(messages),
            generator=generator_of(
                cpu_s=0.0 if messages is None else 1e-6 * len(messages), run_delay_s=0.0, wall_s=plan.duration_s
            ),
            host=host_of(steal_fraction=0.5 if self.disturbed(plan) else 0.0),
            usage={"server": _used(plan.duration_s)} if plan.usage else {},
            ceiling_per_s=None,
        )
        manifest.verdict = judge_trial(rows, manifest, messages)
        return Outcome(rows, manifest, usage=readings() if plan.usage else None, chunks=messages)


def _used(seconds: float) -> GroupUsage:
    return GroupUsage(seconds=seconds, cores=0.5, cpu_user_s=seconds / 4, cpu_system_s=seconds / 4)


def _stream_s(arm: Arm) -> float:
    """The time from the first message of a stream to the last."""
    return max(0, (arm.messages or 0) - 1) * arm.interval_ms / 1e3


def messages_of(arm: Arm, first_ns: Ints, end_ns: Ints, held_ms: float = 0.0) -> pd.DataFrame:
    """Messages of streams that begin at ``first_ns``, until ``end_ns``, as a proxy that holds them passes them on.

    Args:
        arm: their number, size and interval.
        first_ns, end_ns: of each stream, shape (n,).
        held_ms: 0 for no proxy.
    """
    n, count = len(first_ns), arm.messages or 0
    sequence, index = np.repeat(np.arange(n), count), np.tile(np.arange(count), n)
    since = index * round(1e6 * arm.interval_ms)
    if held_ms:  # what comes within the time goes on at its end
        since = (since // round(1e6 * held_ms) + 1) * round(1e6 * held_ms)
    at = np.repeat(first_ns, count) + since
    frame = pd.DataFrame({"sequence": sequence, "index": index, "at_ns": at, "bytes": arm.message_bytes})
    return frame[at < np.repeat(end_ns, count)].reset_index(drop=True)


def move_in(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Let trials run in ``lab`` and in its time from here on; servers are started by :meth:`Lab.start`."""
    for module in ("session", "lifetime.lifetime"):
        clock = SimpleNamespace(monotonic=lambda: lab.clock_s)
        monkeypatch.setattr(f"infscale.experiment.{module}.time", clock)
    monkeypatch.setattr("infscale.experiment.trial.run", lab.run)
    monkeypatch.setattr("infscale.load.ceiling.measure", lambda protocols: {})
    monkeypatch.setattr("infscale.machine.calibrate", lambda: CALIBRATION)
    memory = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=lab.free_gib * 2**30))
    monkeypatch.setattr("infscale.experiment.session.psutil", memory)
    monkeypatch.setattr("infscale.experiment.settle.time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: 0))
    return lab


def quiet(line: str) -> None:
    """Say nothing."""


def run_in(lab: Lab, design: Design, place: Path, **more: Any) -> Run:
    """Measure a design in a lab."""
    return measure(design, place, say=more.pop("say", quiet), start=more.pop("start", lab.start), **more)


def trials_of(run: Run, phase: str) -> list[TrialManifest]:
    """Return the manifests of a run's trials of one phase."""
    return [one.manifest for one in run.trials if one.manifest.phase == phase]
