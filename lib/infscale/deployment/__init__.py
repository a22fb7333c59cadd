"""Deployments: real serving systems as supervised processes, or servers that already run.

Importing this package imports no framework; each is imported in the processes that need it.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from infscale.deployment import tfserving, torchserve, triton
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.framework import FRAMEWORKS, Framework, add
from infscale.deployment.own.attach import attach, attached, deploy_own, is_artifact
from infscale.deployment.processes.ports import other_ports_if_taken
from infscale.errors import ConfigError, one_of
from infscale.models import reference as models
from infscale.models import stream
from infscale.vocabulary import DEVICE

__all__ = ["FRAMEWORKS", "Endpoint", "Framework", "add", "attach", "attached", "check_model", "deploy"]

for _framework in (tfserving.FRAMEWORK, torchserve.FRAMEWORK, triton.FRAMEWORK):
    add(_framework)


def deploy(
    framework: str, model: str | Path = "mlp", *, payload: str | Path | None = None, **options: Any
) -> AbstractContextManager[Endpoint]:
    """Start a serving system with one model; a context manager that yields its endpoint.

    ``model`` is the name of a reference model, or the path of a model of your own: a SavedModel base path, a .mar or
    a Triton repository (of one model, or the folder of one of several), with the requests to send in ``payload`` (see
    :mod:`infscale.deployment.own.requests`). The reference model "stream" answers with streams of messages
    (:class:`infscale.models.stream.StreamPlan`), which :meth:`Endpoint.stream` asks for.

    ``options`` are those of the framework's own module, such as ``rest_port``, ``grpc_port`` and ``log_folder``;
    TorchServe's ``workers``; TensorFlow Serving's ``way``; Triton's ``cache``, ``instances`` and ``batch_delay_us``.
    ``protocols`` of every framework are those over which the model takes requests (default: both), such as
    ``("grpc",)`` for a handler that reads one kind of request only, or for fp16, which JSON does not carry.
    ``start_timeout_s`` is the longest time until the first answer (default: 60), and ``answer_timeout_s`` the longest
    wait for each outside of trials (default: 10): a large model may need more of both.

    Raises:
        ConfigError: an unknown framework, model or option, or a taken port.
        MissingError: a program or package that it needs is not installed.
        DeploymentError: it did not become ready; the message has the end of its log.
    """
    chosen = FRAMEWORKS[one_of("framework", framework, FRAMEWORKS)]
    if is_artifact(model):
        return _started(lambda: deploy_own(chosen, Path(model), payload=payload, **options), options)
    check_model(chosen, str(model))
    if payload is not None:
        raise ConfigError(f"payload={str(payload)!r} is for a model of your own; {model} is a reference model")
    chosen.check_options(options)
    return _started(lambda: chosen.start(str(model), **options), options)


def check_model(framework: Framework, model: str) -> None:
    """Check that a framework serves a reference model.

    Raises:
        ConfigError: there is no such model, or it streams or waits, which the framework's exports cannot do.
    """
    if model == stream.NAME:
        able, lacking = _names(lambda one: bool(one.interface.streams)), "has no streaming predictions in its interface"
    else:
        waiting = models.model(model).name == DEVICE
        able, lacking = _names(lambda one: one.waits or not waiting), "has no operation that waits in its models"
    if framework.name not in able:
        fault = f"framework={framework.name!r}: {framework.title} {lacking}"
        raise ConfigError(f"{fault}; accepted for model={model!r}: {', '.join(able)}")


def _names(holds: Callable[[Framework], bool]) -> list[str]:
    return sorted(name for name, one in FRAMEWORKS.items() if holds(one))


def _started(
    start: Callable[[], AbstractContextManager[Endpoint]], options: Mapping[str, Any]
) -> AbstractContextManager[Endpoint]:
    """Start a server on free ports, on others if need be; on ports that were asked for once."""
    return start() if {"rest_port", "grpc_port"} & {*options} else other_ports_if_taken(start)
