"""Predicted against measured: what one replica's service times say of the other arms of the same run."""

import numpy as np
import pandas as pd

from infscale.analysis.planning.predict import predict
from infscale.analysis.queueing.service import Service, of_arm
from infscale.analysis.queueing.simulate import System
from infscale.analysis.tables import Tables
from infscale.errors import ConfigError, DataError
from infscale.experiment.design.arm import Arm
from infscale.records.gate import VALID
from infscale.records.runs import Run

REQUESTS = 100_000
"""Requests of each simulation: a p95 of theirs is known to about 1 %, which measured ones are not."""

WITHIN = 0.15
"""Relative difference of a predicted p95 from the measured one up to which it counts as right."""

SIMULATED = {
    "none": "round-robin",
    "envoy-round-robin": "round-robin",
    "nginx": "round-robin",
    "envoy-least-request": "envoy-least-request",
    "envoy-l4": "l4",
}
"""The simulated balancer that stands for each measured one."""

SHOWN = ["label", "rate_per_s", "own", "cores", "utilisation", "predicted_ms", "measured_ms", "ratio", "within"]
"""The columns that a reader looks at first."""

SAME = ("protocol", "encoding", "batch", "gzip", "client", "repeat", "zipf", "http", "framework", "model", "options")
"""Factors in which an arm and the one that its service times come from are equal."""


def validation_table(run: Run, tables: Tables) -> pd.DataFrame:
    """Return one row for each VALID point of an arm behind a balancer: its p95 as predicted and as measured.

    Service times are those of the arm with one replica at its lowest rate; behind a balancer of its own where there is
    one, so that its hop is in them. Replicas of a model that computes share the machine's cores, less what the requests
    use of them outside of the workers.

    Columns: ``run_id``, ``arm``, ``label``, ``framework``, ``model``, ``replicas``, ``balancer`` (the simulated one),
    ``rate_per_s``; ``own``: whether the service times are from these very trials; ``hop``: whether a balancer's hop is
    in them, or there is none; ``cores`` that replicas share (NaN: each worker has its own); ``utilisation``;
    ``predicted_ms``, ``measured_ms`` with ``_low`` and ``_high`` (NaN: not known); ``ratio``, predicted ÷ measured, and
    ``within``: whether it is right; ``predicted_p50_ms`` and ``measured_p50_ms``.
    """
    rows: list[dict[str, object]] = []
    services: dict[int, Service] = {}
    for point in tables.points.to_dict("records"):
        arm = run.manifest.design.arms[int(point["arm"])]
        base = base_of(run, arm)
        if base is None or point["verdict"] != VALID or point["response_p95_ms_bound"]:
            continue
        try:
            service = services[base] = services.get(base) or of_arm(run, base)
            rows.append(_row(run, arm, base, service, {str(name): value for name, value in point.items()}))
        except (DataError, ConfigError):  # too few rows, or beyond the capacity by the simulation
            continue
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=SHOWN)


def base_of(run: Run, arm: Arm) -> int | None:
    """Return the number of the measured arm from whose service times an arm is predicted; None for none."""
    if arm.front != "balanced" or arm.slow_ms or not arm.reuse or arm.closed or arm.streams:
        return None
    arms = run.manifest.design.arms
    alone = [
        number
        for number in run.measured
        if arms[number].front == "balanced"
        and arms[number].replicas == 1
        and not arms[number].slow_ms
        and all(getattr(arms[number], name) == getattr(arm, name) for name in SAME)
    ]
    with_hop = [number for number in alone if arms[number].balancer != "none"]
    return next(iter([*with_hop, *alone]), None)


def system_of(arm: Arm, cores: float | None) -> System:
    """Return the simulated system that stands for an arm.

    The load engine sends requests over the connections of gRPC in turn, so that connections which are spread evenly
    make requests go in turn, too.
    """
    if arm.balancer == "client":
        balancer = "power-of-two" if arm.pick == "power_of_two" else "round-robin"
    else:
        balancer = SIMULATED[arm.balancer]
    if balancer == "l4" and arm.protocol == "grpc" and arm.limit() % arm.replicas == 0:
        balancer = "round-robin"
    return System(arm.replicas, balancer, connections=arm.limit(), cores=cores)


def shared_cores(service: Service, cores: int, rate_per_s: float) -> float | None:
    """Return how many cores the workers of a model that computes share; None if it does not.

    They are the machine's, less what requests use outside of the workers: the server's other threads, the balancer, the
    client.
    """
    if not service.computes:
        return None
    beside = max(0.0, service.server_cpu_s + service.other_cpu_s - service.mean_s)
    return max(0.05, cores - rate_per_s * beside)


def _row(run: Run, arm: Arm, base: int, service: Service, point: dict[str, object]) -> dict[str, object]:
    rate, number = float(str(point["rate_per_s"])), int(str(point["arm"]))
    cores = shared_cores(service, run.manifest.machine.cores, rate)
    predicted = predict(service, system_of(arm, cores), rate, requests=REQUESTS)
    p95, measured = predicted.percentiles["p95"], float(str(point["response_p95_ms"]))
    alone = run.manifest.design.arms[base]
    bounded = p95.known and np.isfinite(p95.high)
    return {
        "run_id": run.id,
        "arm": number,
        "label": run.labels[number],
        "framework": arm.framework,
        "model": arm.model,
        "replicas": arm.replicas,
        "balancer": system_of(arm, cores).balancer,
        "rate_per_s": rate,
        "own": number == base and service.rate_per_s == rate,
        "hop": alone.balancer != "none" or arm.balancer in ("none", "client"),
        "cores": np.nan if cores is None else cores,
        "utilisation": predicted.utilisation,
        "predicted_ms": p95.value,
        "predicted_ms_low": p95.low if bounded else np.nan,
        "predicted_ms_high": p95.high if bounded else np.nan,
        "measured_ms": measured,
        "measured_ms_low": point["response_p95_ms_low"],
        "measured_ms_high": point["response_p95_ms_high"],
        "ratio": p95.value / measured,
        "within": abs(p95.value / measured - 1) <= WITHIN,
        "predicted_p50_ms": predicted.percentiles["p50"].value,
        "measured_p50_ms": point["response_p50_ms"],
    }
