"""One trial: one arm at one λ, once — load, samples, the host's state, a verdict."""

import datetime as dt
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from infscale import machine
from infscale.deployment.counters import cache_counts, statistics
from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError, check_rate
from infscale.experiment.design.arm import Arm
from infscale.experiment.settle import _await_counts, drain
from infscale.experiment.usage import resources
from infscale.load import schedule as arrivals
from infscale.load.engine import run as engine
from infscale.paths import project_root
from infscale.payloads import encoders as payloads
from infscale.payloads import similarity
from infscale.payloads.limits import check_gzip
from infscale.records import components
from infscale.records import verdict as validity
from infscale.records.samples import SCHEMA_VERSION
from infscale.vocabulary import CONNECTIONS

__all__ = ["CONNECTIONS", "POOL", "Arm", "Outcome", "Plan", "drain", "run"]

POOL = 256
"""Distinct request bodies of a payload, so that no cache is hit by accident."""


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
        usage: read what every process uses meanwhile (:mod:`infscale.experiment.usage.resources`).
    """

    arm: Arm
    rate_per_s: float
    duration_s: float
    timeout_s: float = 5.0
    seed: int = 1
    key: tuple[int, ...] = (0,)
    labels: dict[str, Any] = field(default_factory=dict)
    usage: bool = False


@dataclass(frozen=True)
class Outcome:
    """A finished trial: rows (``infscale.records.samples``), manifest with verdict, and rows of ``infscale.experiment.usage.sampler`` if asked."""

    samples: pd.DataFrame
    manifest: dict[str, Any]
    interrupted: bool = False
    usage: pd.DataFrame | None = None

    @property
    def verdict(self) -> str:
        """VALID, SATURATED or INVALID."""
        return str(self.manifest["verdict"]["verdict"])


def run(
    endpoint: Endpoint, plan: Plan, *, trials_of_grid: int = 1, ceilings: Mapping[str, Any] | None = None
) -> Outcome:
    """Load ``endpoint`` as ``plan`` says and judge what came back.

    ``ceilings`` are the generator's own, by protocol (:mod:`infscale.load.ceiling`), measured in the same run.

    Raises:
        ConfigError: λ or the duration is not a positive number, the encoding is unknown, or the server's REST does
            not speak the arm's HTTP version.
        EngineError: the load engine failed.
    """
    check_rate(plan.rate_per_s, "rate_per_s")
    payload = _payload(endpoint, plan.arm)
    seeds = {name: np.random.SeedSequence(plan.seed, spawn_key=(*plan.key, i)) for i, name in enumerate(_DRAWS)}
    schedule = arrivals.poisson(plan.rate_per_s, plan.duration_s, seeds["arrivals"])
    payload, choice = _chosen(payload, plan, len(schedule), seeds["payload"])
    if endpoint.own is None:  # a handler of the user's own may decompress
        check_gzip(endpoint.interface, plan.arm.protocol, gzip=plan.arm.gzip)
    scheme = endpoint.scheme(plan.arm.protocol, plan.arm.http)
    url = f"{scheme}://{endpoint.address(plan.arm.protocol)}{payload.path}"
    counted, cached = statistics(endpoint), cache_counts(endpoint)
    load, steal, started = os.getloadavg()[0], machine.steal_ticks(), dt.datetime.now(dt.UTC)
    shares = endpoint.shares()
    given: dict[str, Any] = {"ca": endpoint.ca, "targets": _targets(endpoint, plan.arm)}
    with resources.watching(endpoint, plan.usage) as used:
        result = _send(plan, url, payload, schedule, choice, mark=used.mark, **given)
    manifest = _manifest(endpoint, plan, payload, result)
    manifest["ceiling_per_s"] = _ceiling(ceilings or {}, payload, plan.arm.http)
    manifest["host"] = _host(endpoint, load, steal)
    if parts := components.split(result.samples, counted, statistics(endpoint)):
        manifest["components"] = parts
    after = cache_counts(endpoint)
    manifest["cache"] = {name: value - cached.get(name, 0.0) for name, value in after.items()}
    manifest |= used.told(result.stats, plan.duration_s)
    if shares:
        _await_counts(endpoint, sum(shares) + int((result.samples["status"] == "ok").sum()))
        # Requests that each replica answered; None for one that does not tell.
        gained = zip(shares, endpoint.shares(), strict=True)
        manifest["shares"] = [None if math.isnan(after - before) else after - before for before, after in gained]
    manifest["started_at"] = started.isoformat(timespec="seconds")
    manifest["verdict"] = validity.judge(result.samples, manifest, trials_of_grid).as_dict()
    return Outcome(result.samples, manifest, result.interrupted, used.rows)


def _chosen(
    payload: payloads.Payload, plan: Plan, count: int, seed: np.random.SeedSequence
) -> tuple[payloads.Payload, Any]:
    """The bodies of this trial and which of them each request carries."""
    arm = plan.arm
    name = f"{arm.key()} {plan.labels.get('attempt')}"
    if arm.repeat is not None:
        bodies, choice = similarity.repeating(payload.bodies, arm.repeat, count, seed, name)
    elif arm.zipf is not None:
        bodies, choice = similarity.popular(payload.bodies, arm.zipf, count, seed, name)
    else:
        return payload, arrivals.payload_choice(count, len(payload.bodies), seed)
    return replace(payload, bodies=bodies), choice


def _ceiling(ceilings: Mapping[str, Any], payload: payloads.Payload, http: str) -> float | None:
    from infscale.load import ceiling  # which needs this module's names

    # REST on HTTP/2 has the engine's gRPC codec and connections: against the null server both came within 12 %.
    return ceiling.of_payload(ceilings, "grpc" if http == "2" else payload.protocol, payload.bodies)


def _targets(endpoint: Endpoint, arm: Arm) -> Sequence[str]:
    """The replicas among which the client picks; none if it does not."""
    if not arm.pick:
        return ()
    if not endpoint.replicas.get(arm.protocol):
        raise ConfigError(f"pick={arm.pick!r} needs replicas to pick from: deploy them with balancer='client'")
    return endpoint.replicas[arm.protocol]


def _send(
    plan: Plan, url: str, payload: payloads.Payload, schedule: Any, choice: Any, *, ca: str, **more: Any
) -> engine.Result:
    """The load, by the arm's client."""
    arm, cores = plan.arm, tuple((machine.split_cores() or ((),))[0])
    if arm.client != "wire":
        from infscale.load import clients as client_stacks

        given: dict[str, Any] = {"connections": arm.limit(), "headers": payload.headers, "ca": ca, "cores": cores}
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
        cores=cores,
        gzip=arm.gzip,
        ca=ca,
        keep_alive=arm.reuse,
        pick=arm.pick,
        **more,
    )


_DRAWS = ("arrivals", "payload")
_payloads: dict[tuple[str, str, Arm], payloads.Payload] = {}


def _payload(endpoint: Endpoint, arm: Arm) -> payloads.Payload:
    if endpoint.own is not None:  # it keeps its own
        return endpoint.payload(arm.protocol, encoding=arm.encoding, batch=arm.batch)
    key = (endpoint.framework, endpoint.model, arm)
    if key not in _payloads:
        alike = arm.repeat is not None or arm.zipf is not None
        given: dict[str, Any] = {"count": POOL, "change": similarity.marked if alike else None}
        _payloads[key] = endpoint.payload(arm.protocol, encoding=arm.encoding, batch=arm.batch, **given)
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
        "link": endpoint.link or None,
        "tls": bool(endpoint.tls),
        "loadavg_1m": round(load, 2),
        "steal_fraction": stolen / ticks if ticks else 0.0,
        "cores": len(os.sched_getaffinity(0)),
        "pinned": machine.split_cores() is not None,
    }
