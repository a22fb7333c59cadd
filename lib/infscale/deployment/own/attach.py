"""Servers and models that are not this project's: a server that already runs, a model from the user's own files."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint, ask
from infscale.deployment.own.requests import Own
from infscale.errors import ConfigError, DeploymentError, one_of
from infscale.vocabulary import HTTP

_NAMES = {"tfserving": "TensorFlow Serving API", "torchserve": "TorchServe", "triton": "Triton"}
ARTIFACTS = {"tfserving": "base_path", "torchserve": "archive", "triton": "repository"}
"""The option of each framework's ``deploy`` that takes the user's own file or folder."""


@contextlib.contextmanager
def attach(
    framework: str,
    *,
    model: str,
    rest: str = "",
    grpc: str = "",
    payload: str | Path | None = None,
    version: str = "",
    signature: str = "",
) -> Iterator[Endpoint]:
    """Use a server that already runs, here or elsewhere; it is not stopped at the end.

    Requests are made from ``payload`` (see :mod:`infscale.deployment.own.requests`), else made up to fit the metadata that
    TensorFlow Serving and Triton tell. One request has been answered over each protocol before this yields.

    ``rest`` and ``grpc`` are ``host:port``; one of them may be left out. What answers behind the API cannot be known
    from outside: results are labelled ``<framework>-attached``.

    Raises:
        ConfigError: an unknown framework, a bad address, or a payload file that does not fit.
        DeploymentError: it does not answer, or answers with an error, whose text is passed on.
    """
    one_of("framework", framework, _NAMES)
    if not rest and not grpc:
        raise ConfigError("rest='' and grpc='': a server to attach to needs an address; accepted: host:port")
    own = Own(Path(payload) if payload is not None else None, version, signature)
    own.check(framework)
    rest, grpc = _address("rest", rest), _address("grpc", grpc)
    endpoint = Endpoint(
        framework=framework,
        implementation=f"{framework}-attached",
        version=_version(framework, rest),
        label=f"{_NAMES[framework]} at {rest or grpc} (attached)",
        runtime="unknown",
        model=model,
        rest=rest,
        grpc=grpc,
        own=own,
        http=HTTP,  # not known from outside; what does not speak it fails the trial
    )
    check(endpoint)
    yield endpoint


def _address(name: str, text: str) -> str:
    if not text:
        return ""
    plain = text.removeprefix("http://").removeprefix("grpc://").rstrip("/")
    host, _, port = plain.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535 or "/" in host:
        raise ConfigError(f"{name}={text!r} is not an address; accepted: host:port (plain text, no TLS)")
    return plain


def _version(framework: str, rest: str) -> str:
    """What the server says of itself; TensorFlow Serving does not."""
    method, path = {"torchserve": ("OPTIONS", "/"), "triton": ("GET", "/v2")}.get(framework, ("", ""))
    if not path or not rest:
        return "unknown"
    try:
        told = json.loads(fetch(rest, method, path, timeout_s=5))
        return str(told["info"]["version"] if framework == "torchserve" else told["version"])
    except (DeploymentError, ValueError, KeyError, TypeError):
        return "unknown"


def check(endpoint: Endpoint) -> None:
    """Send one request over each protocol.

    Raises:
        ConfigError: the payload file does not fit.
        DeploymentError: no answer, or an error: the server's own text.
    """
    for protocol in endpoint.protocols():
        ask(endpoint, endpoint.payload(protocol))


def is_artifact(model: str | Path) -> bool:
    """Whether ``model`` is a file or folder rather than the name of a reference model."""
    return isinstance(model, Path) or os.sep in model


@contextlib.contextmanager
def deploy(
    framework: str,
    artifact: Path,
    *,
    payload: str | Path | None = None,
    signature: str = "",
    start: Any,
    **options: Any,
) -> Iterator[Endpoint]:
    """Serve the user's own SavedModel base path, .mar or Triton repository with ``start`` (the framework's deploy).

    The model's name is that of the file or folder. Requests are as in :func:`attach`.

    Raises:
        ConfigError: no such file, or a payload file that does not fit.
        DeploymentError: it did not become ready, or answers the payload with an error; with the end of its log.
    """
    if not artifact.exists():
        raise ConfigError(f"model={str(artifact)!r} does not exist; accepted: a file or folder to serve")
    own = Own(Path(payload) if payload is not None else None, signature=signature)
    own.check(framework)
    name = _name(framework, artifact.resolve())
    with start(name, **{ARTIFACTS[framework]: artifact}, own=own, **options) as endpoint:
        check(endpoint)
        yield endpoint


def _name(framework: str, artifact: Path) -> str:
    if framework != "triton":
        return artifact.stem if artifact.is_file() else artifact.name
    models = sorted(path.parent.name for path in artifact.glob("*/config.pbtxt"))
    if len(models) != 1:
        found = ", ".join(models) or "none"
        raise ConfigError(f"model={str(artifact)!r}: its models are {found}; accepted: a repository of one model")
    return models[0]
