"""An endpoint: what a deployment yields, and a prediction over it as a user would make one."""

import ipaddress
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import psutil

from infscale.deployment.client import call, fetch
from infscale.errors import ConfigError, DeploymentError
from infscale.models.reference import Array, Rows, inputs, max_difference, model
from infscale.payloads import encoders as payloads
from infscale.payloads.limits import most_rows
from infscale.vocabulary import PROTOCOLS, SCHEME


class Requests(Protocol):
    """Requests for a model that is none of the reference models; see :mod:`infscale.deployment.own.requests`."""

    def payload(self, endpoint: "Endpoint", protocol: str, encoding: str, batch: int) -> payloads.Payload:
        """A pool of request bodies that fit the served model."""

    def answered(self, endpoint: "Endpoint") -> bool:
        """Whether the model is loaded and a request is answered over each protocol, or with an error over one."""


@dataclass(frozen=True)
class Endpoint:
    """A running deployment.

    Attributes:
        framework: "tfserving", "torchserve" or "triton"; "edge" for a REST edge in front of one of them.
        implementation: what really answers, e.g. "tfserving-embedded"; the label of every result.
        version: of the server.
        label: for titles; says so when the server is our own.
        runtime: what computes, e.g. "TensorFlow 2.21.0".
        model: name of the served model.
        rest, grpc: ``host:port``; empty for a protocol that an attached server was not given for.
        command: the server's command line.
        processes: the server's processes that live now.
        ready_s: seconds from the start to the first right answer.
        log_tail: the end of the server's log; empty for a server that is not ours.
        metrics: ``host:port`` of the server's own counters, where they have an address of their own.
        management: ``host:port`` of the server's administration, where it has one.
        own: makes the requests of a model of the user's own; None for a reference model.
        tls: the protocols that are encrypted.
        ca: file of the certificate that vouches for an encrypted server; "" for the system's.
        link: what lies between client and server on this machine, e.g. "100 Mb/s, 0 ms"; "" for the loopback.
        parts: the processes that live now by what they do ("server", "gateway", "balancer", "server 2"); empty where
            all of ``processes`` are the server's.
        http: versions of HTTP that its REST speaks; "2" is prior knowledge in clear text, ALPN over TLS.
        members: the endpoint of each replica behind this one; empty for one server alone.
        replicas: the addresses of all replicas by protocol, where the client is to choose among them; else empty.
        shares: requests that each replica has counted since its start; NaN for one that does not tell.
    """

    framework: str
    implementation: str
    version: str
    label: str
    runtime: str
    model: str
    rest: str
    grpc: str
    command: Sequence[str] = ()
    processes: Callable[[], list[psutil.Process]] = field(default=list, repr=False)
    ready_s: float = 0.0
    log_tail: Callable[[], str] = field(default=str, repr=False)
    metrics: str = ""
    management: str = ""
    own: Requests | None = field(default=None, repr=False)
    tls: Collection[str] = ()
    ca: str = ""
    link: str = ""
    parts: Mapping[str, Callable[[], list[psutil.Process]]] = field(default_factory=dict, repr=False)
    http: Collection[str] = ("1.1",)
    members: Sequence["Endpoint"] = ()
    replicas: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shares: Callable[[], list[float]] = field(default=list, repr=False)

    def scheme(self, protocol: str, http: str = "1.1") -> str:
        """The scheme of the engine's URLs; ``http`` is REST's version.

        Raises:
            ConfigError: the server's REST does not speak it.
        """
        if protocol == "rest" and http not in self.http:
            accepted = ", ".join(self.http)
            raise ConfigError(f"http={http!r}: the REST of {self.label} does not speak it; accepted: {accepted}")
        if protocol == "rest" and http == "2":
            return "h2" if protocol in self.tls else "h2c"
        return SCHEME[protocol] + ("s" if protocol in self.tls else "")

    def address(self, protocol: str) -> str:
        """``host:port`` for "rest" or "grpc".

        Raises:
            ConfigError: an attached server without an address for it.
        """
        address = {"rest": self.rest, "grpc": self.grpc}[protocol]
        if not address:
            raise ConfigError(f"protocol={protocol!r}: no {protocol} address was given for {self.label}")
        return address

    def protocols(self) -> tuple[str, ...]:
        """The protocols that have an address."""
        return tuple(p for p in PROTOCOLS if {"rest": self.rest, "grpc": self.grpc}[p])

    def payload(
        self,
        protocol: str,
        *,
        encoding: str = "",
        batch: int = 1,
        count: int = 256,
        change: Callable[[Rows], Rows] | None = None,
    ) -> payloads.Payload:
        """A pool of at most ``count`` request bodies of ``batch`` rows each, ready for the engine.

        ``change`` is done to the rows before they are encoded.

        Raises:
            ConfigError: the protocol or encoding is unknown, or the payload file does not fit.
            DeploymentError: the server does not tell its metadata.
        """
        if self.own is not None:
            return self.own.payload(self, protocol, encoding, batch)
        rows = _batches(inputs(self.model), batch, count)
        rows = change(rows) if change else rows
        return payloads.build(self.framework, protocol, self.model, rows, encoding=encoding, batch=batch)

    def same_host(self) -> bool:
        """Whether a link of ours is in between, or every address is a loopback one (a tunnel looks like one, too)."""
        return bool(self.link) or all(_is_loopback(self.address(protocol)) for protocol in self.protocols())

    def describe(self) -> dict[str, str]:
        """Names and versions for the manifest."""
        keys = ("framework", "implementation", "version", "label", "runtime", "model")
        return {key: getattr(self, key) for key in keys}


_POOL_BYTES = 1 << 25
"""Most bytes of the tensors of a pool; as JSON they are several times that."""


def _batches(rows: Rows, batch: int, count: int) -> Rows:
    """Rows for at most ``count`` distinct bodies of ``batch`` rows each, drawn from ``rows`` with a fixed seed."""
    bodies = max(1, min(count, _POOL_BYTES // (batch * rows[0].nbytes)))
    if batch == 1:
        return rows[:bodies]
    drawn: Rows = rows[np.random.default_rng(batch).integers(0, len(rows), bodies * batch)]
    return drawn


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)


def predict(endpoint: Endpoint, protocol: str, rows: Rows, *, encoding: str = "", timeout_s: float = 10.0) -> Array:
    """One prediction of a reference model for ``rows`` (batch, …) in a single request; float32 (batch, …).

    Raises:
        DeploymentError: refused, timed out, or answered with an error (whose text is passed on).
    """
    payload = payloads.build(endpoint.framework, protocol, endpoint.model, rows, encoding=encoding, batch=len(rows))
    reply = ask(endpoint, payload, timeout_s=timeout_s)
    try:
        return payload.decode(reply).reshape(len(rows), *model(endpoint.model).output_shape)
    except Exception as error:  # whatever the decoder of a foreign answer raises
        said = f"{type(error).__name__}: {error}"
        raise DeploymentError(f"{endpoint.label} answered over {protocol} with no prediction ({said})") from error


def ask(endpoint: Endpoint, payload: payloads.Payload, *, timeout_s: float = 10.0) -> bytes:
    """Send the first body of ``payload``; returns the answer's body.

    Raises:
        AnsweredError: the server answered with an error.
        DeploymentError: refused, reset or timed out. Both carry the end of the server's log.
    """
    address, body = endpoint.address(payload.protocol), payload.bodies[0]
    try:
        if payload.protocol == "grpc":
            return call(address, payload.path, body, timeout_s=timeout_s, ca=endpoint.ca)
        return fetch(address, "POST", payload.path, body, payload.headers, timeout_s=timeout_s, ca=endpoint.ca)
    except DeploymentError as error:
        raise type(error)(str(error), endpoint.log_tail()) from error


def check_answers(endpoint: Endpoint) -> dict[str, float]:
    """Largest difference from the numpy reference for each protocol and encoding; eight rows each, where they fit."""
    rows = inputs(endpoint.model, min(8, most_rows(endpoint.framework, endpoint.model)))
    truth = model(endpoint.model).predict(rows)
    return {
        f"{protocol}/{encoding}": max_difference(predict(endpoint, protocol, rows, encoding=encoding), truth)
        for protocol in endpoint.protocols()
        for encoding in payloads.taken(endpoint.framework, protocol, endpoint.model)
    }


PARITY = {"float32": 1e-4, "uint8": 1e-4, "bytes": 2e-2}
"""Largest difference of a right answer from the reference; libraries decode a JPEG a little differently."""


def answers(endpoint: Endpoint) -> bool:
    """Whether a prediction comes back over each protocol it has, and right where the model is a reference model."""
    if endpoint.own is not None:
        return endpoint.own.answered(endpoint)
    rows = inputs(endpoint.model, 1)
    truth = model(endpoint.model).predict(rows)
    try:
        return all(
            max_difference(predict(endpoint, protocol, rows, timeout_s=2), truth) < PARITY[model(endpoint.model).dtype]
            for protocol in endpoint.protocols()
        )
    except DeploymentError:
        return False
