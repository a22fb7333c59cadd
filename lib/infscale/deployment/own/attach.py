"""Servers that already run, and models from the user's own files."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from infscale.deployment.client import trusting
from infscale.deployment.endpoint import ANSWER_TIMEOUT_S, Endpoint, ask
from infscale.deployment.framework import FRAMEWORKS, Framework
from infscale.deployment.own.requests import Own
from infscale.errors import SET_BY_CLIENTS, ConfigError, DeploymentError, check_duration, check_header, one_of
from infscale.vocabulary import HTTP

_ENCRYPTED = {"": False, "http": False, "grpc": False, "https": True, "grpcs": True}
"""Whether an address is encrypted, by its scheme."""


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
    headers: Mapping[str, str] | None = None,
    ca: str | Path = "",
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
) -> Iterator[Endpoint]:
    """Use a server that already runs, here or elsewhere; it is not stopped at the end.

    Requests are made from ``payload`` (see :mod:`infscale.deployment.own.requests`), or are made up to fit the inputs
    that TensorFlow Serving and Triton describe. One request has been answered over each protocol before this yields.

    ``rest`` and ``grpc`` are ``host:port``, or with TLS ``https://host:port`` and ``grpcs://host:port``; one of them
    may be left out. ``ca`` is the file of the certificates that vouch for them (default: the system's). ``headers`` are
    sent with every request, of trials, too, such as ``{"authorization": "Bearer …"}``; ``host`` is the authority that
    is asked for, over gRPC as well. Their values are stored nowhere. ``answer_timeout_s`` is the longest wait for an
    answer outside of trials.

    What answers behind the API cannot be known from outside, so that results are labelled ``<framework>-attached``.

    Raises:
        ConfigError: an unknown framework, a bad address, header or certificate, or a payload file that does not fit.
        DeploymentError: it does not answer, or answers with an error, whose text is passed on.
    """
    chosen = FRAMEWORKS[one_of("framework", framework, FRAMEWORKS)]
    if not rest and not grpc:
        raise ConfigError("rest='' and grpc='': a server to attach to needs an address; accepted: host:port")
    own = Own(chosen.own_api(), chosen.title, Path(payload) if payload is not None else None, version, signature)
    own.check()
    (rest, rest_tls), (grpc, grpc_tls) = _address("rest", rest), _address("grpc", grpc)
    tls = tuple(protocol for protocol, encrypted in (("rest", rest_tls), ("grpc", grpc_tls)) if encrypted)
    endpoint = Endpoint(
        framework=framework,
        implementation=f"{framework}-attached",
        version="unknown",
        label=f"{chosen.title} at {rest or grpc} (attached)",
        runtime="unknown",
        model=model,
        rest=rest,
        grpc=grpc,
        interface=chosen.interface,
        metrics=f"{rest}{chosen.metrics_path}" if rest and chosen.metrics_path else "",
        own=own,
        tls=tls,
        ca=_trusted(str(ca), tls),
        headers=_headers(headers or {}),
        timeout_s=check_duration(answer_timeout_s, "answer_timeout_s"),
        http=HTTP,  # not known from outside; a version that the server does not speak fails the trial
    )
    endpoint = replace(endpoint, version=_version(chosen, endpoint))
    _check(endpoint)
    yield endpoint


def attached(framework: str, **options: Any) -> Callable[..., AbstractContextManager[Endpoint]]:
    """Return a function that attaches to one server, whatever a design asks for: ``start`` of :func:`infscale.measure`.

    The design's arms have ``framework="endpoint"``; the arguments are those of :func:`attach`.
    """

    def start(*_: object, **__: object) -> AbstractContextManager[Endpoint]:
        return attach(framework, **options)

    return start


def _address(name: str, text: str) -> tuple[str, bool]:
    """Return ``host:port``, and whether it is encrypted."""
    scheme, _, plain = text.rstrip("/").rpartition("://")
    encrypted = _ENCRYPTED.get(scheme)
    if encrypted and ":" not in plain:
        plain += ":443"
    host, _, port = plain.rpartition(":")
    good = encrypted is not None and host and port.isdigit() and 1 <= int(port) <= 65535 and "/" not in host
    if text and not good:
        tls = "https" if name == "rest" else "grpcs"
        raise ConfigError(f"{name}={text!r} is not an address; accepted: host:port, or {tls}://host:port for TLS")
    return plain, bool(encrypted)


def _trusted(ca: str, tls: tuple[str, ...]) -> str:
    if ca and not tls:
        raise ConfigError(f"ca={ca!r} is for TLS; accepted: addresses such as https://host:port and grpcs://host:port")
    if ca:
        try:
            trusting(ca)
        except DeploymentError as error:
            raise ConfigError(f"ca={ca!r}: {error}") from error
    return ca


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with names in lower case; the payload's own one is not among them."""
    own = (*SET_BY_CLIENTS, "content-type")
    checked = {check_header(f"headers: {name!r}", name, value, own): value for name, value in headers.items()}
    if len(checked) < len(headers):
        raise ConfigError(f"headers: one of {', '.join(headers)} is given twice")
    return checked


def _version(framework: Framework, endpoint: Endpoint) -> str:
    """Return the version that the server tells, or "unknown"."""
    if not endpoint.rest:
        return "unknown"
    try:
        return framework.version(endpoint)
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
