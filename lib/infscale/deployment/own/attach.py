"""Servers that already run, and models from the user's own files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infscale.deployment.endpoint import ANSWER_TIMEOUT_S, Endpoint, ask
from infscale.deployment.framework import FRAMEWORKS, Framework
from infscale.deployment.own.requests import Own
from infscale.errors import ConfigError, DeploymentError, check_duration, one_of
from infscale.vocabulary import HTTP


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
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
) -> Iterator[Endpoint]:
    """Use a server that already runs, here or elsewhere; it is not stopped at the end.

    Requests are made from ``payload`` (see :mod:`infscale.deployment.own.requests`), or are made up to fit the inputs
    that TensorFlow Serving and Triton describe. One request has been answered over each protocol before this yields.

    ``rest`` and ``grpc`` are ``host:port``; one of them may be left out. What answers behind the API cannot be known
    from outside, so that results are labelled ``<framework>-attached``. ``answer_timeout_s`` is the longest wait for an
    answer outside of trials.

    Raises:
        ConfigError: an unknown framework, a bad address, or a payload file that does not fit.
        DeploymentError: it does not answer, or answers with an error, whose text is passed on.
    """
    chosen = FRAMEWORKS[one_of("framework", framework, FRAMEWORKS)]
    if not rest and not grpc:
        raise ConfigError("rest='' and grpc='': a server to attach to needs an address; accepted: host:port")
    own = Own(chosen.own_api(), chosen.title, Path(payload) if payload is not None else None, version, signature)
    own.check()
    rest, grpc = _address("rest", rest), _address("grpc", grpc)
    endpoint = Endpoint(
        framework=framework,
        implementation=f"{framework}-attached",
        version=_version(chosen, rest),
        label=f"{chosen.title} at {rest or grpc} (attached)",
        runtime="unknown",
        model=model,
        rest=rest,
        grpc=grpc,
        interface=chosen.interface,
        metrics=f"{rest}{chosen.metrics_path}" if rest and chosen.metrics_path else "",
        own=own,
        timeout_s=check_duration(answer_timeout_s, "answer_timeout_s"),
        http=HTTP,  # not known from outside; a version that the server does not speak fails the trial
    )
    _check(endpoint)
    yield endpoint


def _address(name: str, text: str) -> str:
    if not text:
        return ""
    plain = text.removeprefix("http://").removeprefix("grpc://").rstrip("/")
    host, _, port = plain.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535 or "/" in host:
        raise ConfigError(f"{name}={text!r} is not an address; accepted: host:port (plain text, no TLS)")
    return plain


def _version(framework: Framework, rest: str) -> str:
    """Return the version that the server tells, or "unknown"."""
    if not rest:
        return "unknown"
    try:
        return framework.version(rest)
    except (DeploymentError, ValueError, KeyError, TypeError):
        return "unknown"


def _check(endpoint: Endpoint) -> None:
    """Send one request over each protocol.

    Raises:
        ConfigError: the payload file does not fit.
        DeploymentError: no answer, or an error; the message has the server's own text.
    """
    for protocol in endpoint.protocols():
        ask(endpoint, endpoint.payload(protocol))


def is_artifact(model: str | Path) -> bool:
    """Return whether ``model`` is a file or folder rather than the name of a reference model."""
    return isinstance(model, Path) or os.sep in model


@contextlib.contextmanager
def deploy_own(
    framework: Framework,
    artifact: Path,
    *,
    payload: str | Path | None = None,
    signature: str = "",
    **options: Any,
) -> Iterator[Endpoint]:
    """Serve the user's own file or folder; the model's name is that of the file or folder, as far as URLs can hold it.

    Requests are made as by :func:`attach`; ``options`` are those of the framework.

    Raises:
        ConfigError: no such file, an unknown option, or a payload file that does not fit.
        DeploymentError: it did not become ready, or answers the payload with an error; the message has the end of its
            log.
    """
    if not artifact.exists():
        raise ConfigError(f"model={str(artifact)!r} does not exist; accepted: a file or folder to serve")
    framework.check_options(options)
    api = framework.own_api()
    own = Own(api, framework.title, Path(payload) if payload is not None else None, signature=signature)
    own.check()
    name = framework.artifact_name(artifact.resolve())
    with framework.start(name, artifact=artifact, own=own, **options) as endpoint:
        _check(endpoint)
        yield endpoint
