"""One trial: one arm at one λ, once — load, samples, the host's state, a verdict."""

import datetime as dt
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from infscale import arrivals, components, machine, payloads, validity
from infscale.engine import run as engine
from infscale.engine.balanced import PICKS
from infscale.errors import ConfigError, ServerLostError, one_of
from infscale.paths import project_root
from infscale.payloads import PROTOCOLS
from infscale.samples import SCHEMA_VERSION
from infscale.servers import statistics
from infscale.servers.endpoint import Endpoint, answers

POOL = 256
"""Distinct request bodies of a payload, so that no cache is hit by accident."""

CONNECTIONS = {"rest": 256, "grpc": 8}
"""F0's connections: REST as many keep-alive ones as needed up to this, gRPC just so many."""


@dataclass(frozen=True)
class Arm:
    """A combination of factor levels; empty ``encoding`` and 0 ``connections`` take F0's; ``gzip`` compresses.

    ``pick`` is how the client chooses among the endpoint's replicas ("": the first takes all); without ``reuse`` every
    request has a connection of its own.
    """

    protocol: str
    encoding: str = ""
    connections: int = 0
    batch: int = 1
    gzip: bool = False
    client: str = "wire"
    pick: str = ""
    reuse: bool = True

    def __post_init__(self) -> None:
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("client", self.client, {"rest": ("wire", "requests"), "grpc": ("wire", "grpcio")}[self.protocol])
        one_of("pick", self.pick, ("", *PICKS))
        if self.client != "wire" and (self.pick or not self.reuse):
            raise ConfigError(f"client={self.client!r} neither picks replicas nor renews connections; accepted: wire")
        if self.connections < 0:
            raise ConfigError(f"connections={self.connections} is not a number of connections; accepted: 1 or more")

    def key(self) -> str:
        """A name for files: the protocol, and what differs from F0."""
        parts = [self.protocol, self.encoding, f"c{self.connections}" if self.connections else ""]
        parts += [f"b{self.batch}" if self.batch > 1 else "", "gzip" if self.gzip else ""]
        parts += [self.client if self.client != "wire" else ""]
        parts += [self.pick.replace("_", "-"), "" if self.reuse else "fresh"]
        return "-".join(part for part in parts if part)

    def limit(self) -> int:
        """Most connections at a time."""
        return self.connections or CONNECTIONS[self.protocol]


@dataclass(frozen=True)
class Plan:
    """Everything that determines a trial's load.

    Attributes:
        arm: factor levels.
        rate_per_s: λ.
        duration_s: of the arrivals; the trial ends when the last request has an outcome.
        timeout_s: from the scheduled time.
        seed: of the experiment; ``key`` tells this trial's draws apart. Arms with the same seed and key
            get the same arrivals and the same payload choice, which is what pairs them.
    """

    arm: Arm
    rate_per_s: float
    duration_s: float
    timeout_s: float = 5.0
    seed: int = 1
    key: tuple[int, ...] = (0,)
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A finished trial: its rows (``infscale.samples``) and its manifest, verdict included."""

    samples: pd.DataFrame
    manifest: dict[str, Any]
    interrupted: bool = False

    @property
    def verdict(self) -> str:
        """VALID, SATURATED or INVALID."""
        return str(self.manifest["verdict"]["verdict"])


def run(
    endpoint: Endpoint, plan: Plan, *, trials_of_grid: int = 1, ceilings: Mapping[str, Any] | None = None
) -> Outcome:
    """Load ``endpoint`` as ``plan`` says and judge what came back.

    ``ceilings`` are the generator's own, by protocol (:mod:`infscale.ceiling`), measured in the same run.

    Raises:
        ConfigError: λ or the duration is not a positive number, or the encoding is unknown.
        EngineError: the load engine failed.
    """
    arrivals.check_rate(plan.rate_per_s, "rate_per_s")
    payload = _payload(endpoint, plan.arm)
    seeds = {name: np.random.SeedSequence(plan.seed, spawn_key=(*plan.key, i)) for i, name in enumerate(_DRAWS)}
    schedule = arrivals.poisson(plan.rate_per_s, plan.duration_s, seeds["arrivals"])
    choice = arrivals.payload_choice(len(schedule), len(payload.bodies), seeds["payload"])
    url = f"{endpoint.scheme(plan.arm.protocol)}://{endpoint.address(plan.arm.protocol)}{payload.path}"
    counted = statistics(endpoint)
    load, steal, started = os.getloadavg()[0], machine.steal_ticks(), dt.datetime.now(dt.UTC)
    shares = endpoint.shares()
    result = _send(plan, url, payload, schedule, choice, _targets(endpoint, plan.arm))
    manifest = _manifest(endpoint, plan, payload, result)
    manifest["ceiling_per_s"] = _ceiling(ceilings or {}, payload)
    manifest["host"] = _host(endpoint, load, steal)
    if parts := components.split(result.samples, counted, statistics(endpoint)):
        manifest["components"] = parts
    if shares:  # requests that each replica answered; None for one that does not tell
        gained = zip(shares, endpoint.shares(), strict=True)
        manifest["shares"] = [None if math.isnan(after - before) else after - before for before, after in gained]
    manifest["started_at"] = started.isoformat(timespec="seconds")
    manifest["verdict"] = validity.judge(result.samples, manifest, trials_of_grid).as_dict()
    return Outcome(result.samples, manifest, result.interrupted)


def _ceiling(ceilings: Mapping[str, Any], payload: payloads.Payload) -> float | None:
    from infscale import ceiling  # which needs this module's names

    return ceiling.of_payload(ceilings, payload.protocol, payload.bodies)


def _targets(endpoint: Endpoint, arm: Arm) -> Sequence[str]:
    """The replicas among which the client picks; none if it does not."""
    if not arm.pick:
        return ()
    if not endpoint.replicas.get(arm.protocol):
        raise ConfigError(f"pick={arm.pick!r} needs replicas to pick from: deploy them with balancer='client'")
    return endpoint.replicas[arm.protocol]


def _send(
    plan: Plan, url: str, payload: payloads.Payload, schedule: Any, choice: Any, targets: Sequence[str]
) -> engine.Result:
    """The load, by the arm's client."""
    arm = plan.arm
    if arm.client != "wire":
        from infscale import client_stacks

        given: dict[str, Any] = {"connections": arm.limit(), "headers": payload.headers}
        return client_stacks.run(arm.client, url, payload.bodies, schedule, choice, timeout_s=plan.timeout_s, **given)
    return engine.run(
        url,
        payload.bodies,
        [schedule],
        [choice],
        timeout_s=plan.timeout_s,
        connections=arm.limit(),
        open_first=min(8, arm.limit()),
        headers=payload.headers,
        cores=cores[0] if (cores := machine.split_cores()) else (),
        gzip=arm.gzip,
        keep_alive=arm.reuse,
        targets=targets,
        pick=arm.pick,
    )


_DRAWS = ("arrivals", "payload")
_payloads: dict[tuple[str, str, Arm], payloads.Payload] = {}


def _payload(endpoint: Endpoint, arm: Arm) -> payloads.Payload:
    if endpoint.own is not None:  # it keeps its own
        return endpoint.payload(arm.protocol, encoding=arm.encoding, batch=arm.batch)
    key = (endpoint.framework, endpoint.model, arm)
    if key not in _payloads:
        _payloads[key] = endpoint.payload(arm.protocol, encoding=arm.encoding, batch=arm.batch, count=POOL)
    return _payloads[key]


def _manifest(endpoint: Endpoint, plan: Plan, payload: payloads.Payload, result: engine.Result) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        **plan.labels,
        "framework": endpoint.framework,
        "implementation": endpoint.implementation,
        "protocol": plan.arm.protocol,
        "encoding": payload.encoding,
        "model": endpoint.model,
        "batch": plan.arm.batch,
        "rate_per_s": plan.rate_per_s,
        "duration_s": plan.duration_s,
        "timeout_s": plan.timeout_s,
        "arm": {**asdict(plan.arm), "encoding": payload.encoding, "connections": plan.arm.limit()},
        "seeds": {"entropy": plan.seed, **{name: [*plan.key, i] for i, name in enumerate(_DRAWS)}},
        "pool": len(payload.bodies),
        "engine": result.stats,
        "server": {
            # Below the project's root, paths are the same on every machine.
            "command": [part.replace(str(project_root()), ".") for part in endpoint.command],
            "pids": [p.pid for p in endpoint.processes()],
            "ready_s": round(endpoint.ready_s, 3),
        },
        "rows": len(result.samples),
    }


def _host(endpoint: Endpoint, load: float, steal: tuple[int, int]) -> dict[str, Any]:
    stolen, ticks = (after - before for after, before in zip(machine.steal_ticks(), steal, strict=True))
    return {
        "same_host": endpoint.same_host(),
        "loadavg_1m": round(load, 2),
        "steal_fraction": stolen / ticks if ticks else 0.0,
        "cores": len(os.sched_getaffinity(0)),
        "pinned": machine.split_cores() is not None,
    }


def drain(endpoint: Endpoint, *, patience_s: float = 15.0) -> None:
    """Wait until the server has finished what an earlier trial left: it answers, and is idle.

    Raises:
        ServerLostError: it died, or does not answer within ``patience_s``.
    """
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if endpoint.command and not endpoint.processes():
            raise ServerLostError(f"{endpoint.label} died", endpoint.log_tail())
        before = _cpu_seconds(endpoint)
        if answers(endpoint):
            time.sleep(0.1)
            if _cpu_seconds(endpoint) - before < 0.03:
                return
    if not answers(endpoint):
        raise ServerLostError(f"{endpoint.label} does not answer {patience_s:.0f} s after a trial")


def _cpu_seconds(endpoint: Endpoint) -> float:
    import psutil

    total = 0.0
    for process in endpoint.processes():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
