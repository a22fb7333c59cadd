"""Deployments: real serving systems as supervised processes."""

from contextlib import AbstractContextManager
from typing import Any

from infscale.errors import one_of
from infscale.servers.endpoint import Endpoint

FRAMEWORKS = ("tfserving", "torchserve")


def deploy(framework: str, model: str = "mlp", **options: Any) -> AbstractContextManager[Endpoint]:
    """Start a serving system with one reference model; a context manager that yields its endpoint.

    ``options`` are those of the framework's own module, such as ``rest_port``, ``grpc_port``,
    ``log_folder``; TorchServe's ``workers``; TensorFlow Serving's ``way``.

    Raises:
        ConfigError: unknown framework or model, taken port.
        MissingError: a program or package that it needs is not installed.
        DeploymentError: it did not become ready, with the end of its log.
    """
    from infscale import models
    from infscale.servers import tfserving, torchserve

    one_of("framework", framework, FRAMEWORKS)
    models.model(model)
    start: Any = {"tfserving": tfserving.deploy, "torchserve": torchserve.deploy}[framework]
    deployment: AbstractContextManager[Endpoint] = start(model, **options)
    return deployment
