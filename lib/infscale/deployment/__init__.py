"""Deployments: real serving systems as supervised processes."""

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError, DeploymentError, one_of
from infscale.vocabulary import FRAMEWORKS


def deploy(
    framework: str, model: str | Path = "mlp", *, payload: str | Path | None = None, **options: Any
) -> AbstractContextManager[Endpoint]:
    """Start a serving system with one model; a context manager that yields its endpoint.

    ``model`` is the name of a reference model, or the path of a model of your own: a SavedModel base path, a .mar or
    a Triton repository, with the requests to send in ``payload`` (see :mod:`infscale.deployment.own.requests`).

    ``options`` are those of the framework's own module, such as ``rest_port``, ``grpc_port``,
    ``log_folder``; TorchServe's ``workers``; TensorFlow Serving's ``way``;
    Triton's ``cache``, ``instances``, ``batch_delay_us``.

    Raises:
        ConfigError: unknown framework or model, taken port.
        MissingError: a program or package that it needs is not installed.
        DeploymentError: it did not become ready, with the end of its log.
    """
    from infscale.deployment import tfserving, torchserve, triton
    from infscale.deployment.own import attach
    from infscale.models import reference as models

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
