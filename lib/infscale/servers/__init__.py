"""Deployments: real serving systems as supervised processes."""

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from infscale.errors import ConfigError, DeploymentError, one_of
from infscale.servers.endpoint import Endpoint

FRAMEWORKS = ("tfserving", "torchserve", "triton")


def deploy(
    framework: str, model: str | Path = "mlp", *, payload: str | Path | None = None, **options: Any
) -> AbstractContextManager[Endpoint]:
    """Start a serving system with one model; a context manager that yields its endpoint.

    ``model`` is the name of a reference model, or the path of a model of your own: a SavedModel base path, a .mar or
    a Triton repository, with the requests to send in ``payload`` (see :mod:`infscale.servers.own`).

    ``options`` are those of the framework's own module, such as ``rest_port``, ``grpc_port``,
    ``log_folder``; TorchServe's ``workers``; TensorFlow Serving's ``way``;
    Triton's ``cache``, ``instances``, ``batch_delay_us``.

    Raises:
        ConfigError: unknown framework or model, taken port.
        MissingError: a program or package that it needs is not installed.
        DeploymentError: it did not become ready, with the end of its log.
    """
    from infscale import models
    from infscale.servers import attach, tfserving, torchserve, triton

    one_of("framework", framework, FRAMEWORKS)
    start: Any = {"tfserving": tfserving.deploy, "torchserve": torchserve.deploy, "triton": triton.deploy}[framework]
    deployment: AbstractContextManager[Endpoint]
    if attach.is_artifact(model):
        deployment = attach.deploy(framework, Path(model), payload=payload, start=start, **options)
        return deployment
    models.model(str(model))
    if payload is not None:
        raise ConfigError(f"payload={str(payload)!r} is for a model of your own; {model} is a reference model")
    deployment = start(model, **options)
    return deployment


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """What the server has counted for its model since its start: ``requests``, and sums of ms (names in ``…_ms``).

    Of replicas the sum. Empty where a server counts nothing (TensorFlow Serving without ``monitoring``), or does
    not tell.
    """
    from infscale.servers import tfserving, torchserve, triton

    if endpoint.members:
        counted = [statistics(member) for member in endpoint.members]
        return {key: sum(one[key] for one in counted) for key in counted[0]} if all(counted) else {}
    readers = {"tfserving": tfserving.statistics, "torchserve": torchserve.statistics, "triton": triton.statistics}
    if endpoint.framework not in readers or not endpoint.rest:  # attached by gRPC alone
        return {}
    try:
        return readers[endpoint.framework](endpoint)
    except (DeploymentError, ValueError, KeyError):  # an answer that is not what this server sends
        return {}


def cache_counts(endpoint: Endpoint) -> dict[str, float]:
    """``hits`` and ``misses`` of the cache in front of the server or within it; empty where there is none to ask."""
    from infscale import gateway

    try:
        if "gateway" in endpoint.parts:
            told = gateway.stats(endpoint)
            return {name: float(told[name]) for name in ("hits", "misses", "store_errors", "bytes") if told.get(name)}
        if endpoint.framework == "triton":
            told = statistics(endpoint)
            return {"hits": told["cache_hits"], "misses": told["requests"] - told["cache_hits"]}
    except (DeploymentError, KeyError):
        return {}
    return {}


def answered(endpoint: Endpoint) -> float:
    """Requests that the server has counted since its start; NaN where it does not tell."""
    return statistics(endpoint).get("requests", math.nan)
