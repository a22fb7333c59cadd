"""An endpoint: what a deployment yields, and a prediction over it as a user would make one."""

import ipaddress
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil

from infscale.deployment import client
from infscale.deployment.client import UnansweredError
from infscale.display import Shown, Summary
from infscale.errors import ConfigError, DeploymentError
from infscale.models import stream as streams
from infscale.models.reference import Array, Rows, inputs, max_difference, model
from infscale.models.stream import StreamPlan
from infscale.payloads.encoders import Interface, Payload
from infscale.payloads.limits import most_rows
from infscale.payloads.streams import events
from infscale.vocabulary import OTHER, PROTOCOLS, SCHEME

ANSWER_TIMEOUT_S = 10.0
"""Longest wait for one answer of a server, unless a deployment has a limit of its own, seconds."""

Processes = Callable[[], list[psutil.Process]]
"""A function that lists the processes that live now."""


class Requests(Protocol):
    """Makes requests for a model of the user's own; see :mod:`infscale.deployment.own.requests`."""

    def payload(self, endpoint: "Endpoint", protocol: str, encoding: str, batch: int) -> Payload:
        """Return a pool of request bodies that fit the served model."""

    def answered(self, endpoint: "Endpoint") -> bool:
        """Return whether the model is loaded and answers over each protocol, or refuses a request with an error.

        Raises:
            UnansweredError: it does not, for now, with the reason.
        """


@dataclass(frozen=True)
class Endpoint(Shown):
    """A running deployment.

    Attributes:
        framework: a name in :data:`infscale.deployment.FRAMEWORKS`; "edge" for a REST edge in front of one of them.
        implementation: what really answers, e.g. "tfserving-embedded"; the label of every result.
        version: the server's.
        label: the name in titles and sentences; it contains "embedded" if the server is this project's own.
        runtime: what computes, e.g. "TensorFlow 2.21.0".
        model: name of the served model.
        rest, grpc: ``host:port``; empty for a protocol over which the model takes no requests.
        interface: what it takes as requests for the reference models.
        command: the server's command line.
        processes: lists the server's processes that live now.
        ready_s: seconds from the start to the first right answer.
        log: the server's log file; None for a server that is not ours, or for several.
        log_tail: returns the end of the server's log; empty for a server that is not ours.
        metrics: ``host:port/path`` of the server's counters in Prometheus' format; empty where there are none.
        management: ``host:port`` of the server's administration, where it has one; it may be that of its REST.
        own: makes the requests of a model of the user's own; None for a reference model.
        tls: the protocols that are encrypted.
        ca: file of the certificate that vouches for an encrypted server; "" for the system's.
        link: what lies between client and server on this machine, e.g. "100 Mb/s, 0 ms"; "" for the loopback.
        parts: lists the processes that live now, by what they do ("server", "gateway", "balancer", "server 2"); empty
            where all of ``processes`` are the server's.
        http: versions of HTTP that its REST speaks; "2" is prior knowledge in clear text, ALPN over TLS.
        members: the endpoint of each server behind this one; empty for one server alone.
        replicas: the addresses of all replicas by protocol, where the client chooses among them; else empty.
        answered_by_replica: returns how many requests each replica has answered since its start, by its own count;
            NaN for a replica that does not count.
        cache: reads ``hits``, ``misses`` and other counts of what stands in front of the server; None where nothing
            does, so that the server's own counters tell of its cache.
        timeout_s: longest wait for one answer, outside of trials, which have their own limit.
        headers: sent with every request, names in lower case, such as ``authorization``; ``host`` is the authority that
            is asked for.
        streams_at_once: how many streams the model ``stream`` can send at a time, others wait; None for no limit.
    """

    framework: str
    implementation: str
    version: str
    label: str
    runtime: str
    model: str
    rest: str
    grpc: str
    interface: Interface = field(default=Interface(OTHER), repr=False)
    command: Sequence[str] = ()
    processes: Processes = field(default=list, repr=False)
    ready_s: float = 0.0
    log: Path | None = field(default=None, repr=False)
    log_tail: Callable[[], str] = field(default=str, repr=False)
    metrics: str = ""
    management: str = ""
    own: Requests | None = field(default=None, repr=False)
    tls: Collection[str] = ()
    ca: str = ""
    link: str = ""
    parts: Mapping[str, Processes] = field(default_factory=dict, repr=False)
    http: Collection[str] = ("1.1",)
    members: Sequence["Endpoint"] = ()
    replicas: Mapping[str, Sequence[str]] = field(default_factory=dict)
    answered_by_replica: Callable[[], list[float]] = field(default=list, repr=False)
    cache: Callable[[], dict[str, float]] | None = field(default=None, repr=False)
    timeout_s: float = ANSWER_TIMEOUT_S
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    streams_at_once: int | None = None

    def scheme(self, protocol: str, http: str = "1.1") -> str:
        """Return the scheme of the load engine's URLs; ``http`` is the version that REST uses.

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
        """Return ``host:port`` for "rest" or "grpc".

        Raises:
            ConfigError: there is no address for that protocol.
        """
        address = {"rest": self.rest, "grpc": self.grpc}[protocol]
        if not address:
            raise ConfigError(f"protocol={protocol!r}: no {protocol} address was given for {self.label}")
        return address

    def protocols(self) -> tuple[str, ...]:
        """Return the protocols that have an address."""
        return tuple(protocol for protocol in PROTOCOLS if {"rest": self.rest, "grpc": self.grpc}[protocol])

    def payload(
        self,
        protocol: str,
        *,
        encoding: str = "",
        batch: int = 1,
        count: int = 256,
        change: Callable[[Rows], Rows] | None = None,
    ) -> Payload:
        """Return a pool of at most ``count`` request bodies of ``batch`` rows each, ready for the load engine.

        ``change`` is applied to the rows before they are encoded.

        Raises:
            ConfigError: the protocol or encoding is not taken, the payload file does not fit, or the model answers with
                streams.
            DeploymentError: the server does not describe its model.
        """
        if self.own is not None:
            return self.own.payload(self, protocol, encoding, batch)
        if self.model == streams.NAME:
            raise ConfigError(
                f"model={self.model!r} answers with streams and no single reply; accepted: a stream of it"
            )
        rows = _batches(inputs(self.model), batch, count)
        rows = change(rows) if change else rows
        return self.interface.payload(protocol, self.model, rows, encoding=encoding, batch=batch)

    def stream(self, protocol: str, plan: StreamPlan) -> Payload:
        """Return the request that the reference model ``stream`` answers with ``plan``, ready for the load engine.

        Raises:
            ConfigError: the server has no streams, or the model is another one: it sends one reply. TorchServe would
                not refuse such a request: over REST it looks like a stream of one, and over gRPC it ends the worker.
        """
        if self.own is not None or self.model != streams.NAME:
            raise ConfigError(f"model={self.model!r} sends one reply and no stream; accepted: {streams.NAME!r}")
        return self.interface.stream(protocol, self.model, plan)

    def request(self, protocol: str) -> Payload:
        """Return one request that the model answers: with a stream, if it is the reference model ``stream``.

        Raises:
            ConfigError, DeploymentError: as :meth:`payload`.
        """
        if self.own is None and self.model == streams.NAME:
            return self.stream(protocol, StreamPlan())
        return self.payload(protocol, count=1)

    def fetch(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        """Send one request over REST and return the body of the answer: :func:`infscale.deployment.client.fetch`."""
        return client.fetch(
            self.address("rest"),
            method,
            path,
            body,
            {**self.headers, **(headers or {})},
            timeout_s=timeout_s or self.timeout_s,
            tls="rest" in self.tls,
            ca=self.ca,
        )

    def call(self, path: str, message: bytes, *, timeout_s: float | None = None) -> bytes:
        """Make one unary gRPC call and return the serialised answer: :func:`infscale.deployment.client.call`."""
        return client.call(
            self.address("grpc"),
            path,
            message,
            self.headers,
            timeout_s=timeout_s or self.timeout_s,
            tls="grpc" in self.tls,
            ca=self.ca,
        )

    def call_stream(self, path: str, message: bytes, *, timeout_s: float | None = None) -> list[bytes]:
        """Make one streaming gRPC call and return its messages: :func:`infscale.deployment.client.call_stream`."""
        return client.call_stream(
            self.address("grpc"),
            path,
            message,
            self.headers,
            timeout_s=timeout_s or self.timeout_s,
            tls="grpc" in self.tls,
            ca=self.ca,
        )

    def same_host(self) -> bool:
        """Return whether all addresses are loopback ones, or a link of ours leads to them; a tunnel looks the same."""
        return bool(self.link) or all(_is_loopback(self.address(protocol)) for protocol in self.protocols())

    def summary(self) -> Summary:
        """Return what answers, and where, in a table."""
        pids = [str(process.pid) for process in self.processes()]
        return Summary(
            f"{self.label}: {self.model}",
            (
                ("REST", self.rest + (" (TLS)" if "rest" in self.tls else "")),
                ("gRPC", self.grpc + (" (TLS)" if "grpc" in self.tls else "")),
                ("computes with", self.runtime),
                ("ready in", f"{self.ready_s:.1f} s" if self.ready_s else ""),
                ("processes", ", ".join(pids)),
                ("link", self.link),
            ),
        )

    def describe(self) -> dict[str, str]:
        """Return names and versions, for a run's manifest."""
        keys = ("framework", "implementation", "version", "label", "runtime", "model")
        return {key: getattr(self, key) for key in keys}


_POOL_BYTES = 1 << 25
"""Largest size of a pool's tensors, bytes; as JSON they take several times as many."""


def _batches(rows: Rows, batch: int, count: int) -> Rows:
    """Return rows for at most ``count`` bodies of ``batch`` rows each, drawn from ``rows`` with a fixed seed."""
    bodies = max(1, min(count, _POOL_BYTES // (batch * rows[0].nbytes)))
    if batch == 1:
        return rows[:bodies]
    drawn: Rows = rows[np.random.default_rng(batch).integers(0, len(rows), bodies * batch)]
    return drawn


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        resolved = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(ip.partition("%")[0]).is_loopback for ip in resolved)


def predict(
    endpoint: Endpoint, protocol: str, rows: Rows, *, encoding: str = "", timeout_s: float | None = None
) -> Array:
    """Ask a reference model for one prediction: ``rows`` (batch, …) in a single request; return float32 (batch, …).

    ``timeout_s`` is by default the endpoint's.

    Raises:
        ConfigError: the protocol or encoding is not taken.
        DeploymentError: refused, timed out, or answered with an error, whose text is passed on.
    """
    payload = endpoint.interface.payload(protocol, endpoint.model, rows, encoding=encoding, batch=len(rows))
    reply = ask(endpoint, payload, timeout_s=timeout_s)
    try:
        return payload.decode(reply).reshape(len(rows), *model(endpoint.model).output_shape)
    except Exception as error:  # whatever the decoder of a foreign answer raises
        reason = f"{type(error).__name__}: {error}"
        raise DeploymentError(f"{endpoint.label} answered over {protocol} with no prediction ({reason})") from error


def ask(endpoint: Endpoint, payload: Payload, *, timeout_s: float | None = None) -> bytes:
    """Send the first body of ``payload`` and return the body of the answer; ``timeout_s`` is by default the endpoint's.

    Raises:
        AnsweredError: the server answered with an error.
        UnansweredError: refused, reset or timed out. Both have the end of the server's log.
    """
    body = payload.bodies[0]
    try:
        if payload.protocol == "grpc":
            return endpoint.call(payload.path, body, timeout_s=timeout_s)
        return endpoint.fetch("POST", payload.path, body, payload.headers, timeout_s=timeout_s)
    except DeploymentError as error:
        raise type(error)(error.reason, endpoint.log_tail()) from error


def check_answers(endpoint: Endpoint) -> dict[str, float]:
    """Return the largest difference from the numpy reference by ``protocol/encoding``, for eight rows if they fit.

    The model ``stream`` computes nothing that could differ.
    """
    if endpoint.model == streams.NAME:
        return {}
    rows = inputs(endpoint.model, min(8, most_rows(endpoint.interface, endpoint.model)))
    truth = model(endpoint.model).predict(rows)
    return {
        f"{protocol}/{encoding}": max_difference(predict(endpoint, protocol, rows, encoding=encoding), truth)
        for protocol in endpoint.protocols()
        for encoding in endpoint.interface.encodings(protocol, model(endpoint.model).dtype)
    }


PARITY = {"float32": 1e-4, "uint8": 1e-4, "bytes": 2e-2}
"""Largest difference of a right answer from the reference, by the ``dtype`` of the model's rows.

Libraries decode a JPEG a little differently.
"""


def answers(endpoint: Endpoint) -> bool:
    """Return whether a prediction comes back over each protocol; that of a reference model must also be right.

    The model ``stream`` is asked for a stream, since Triton refuses any other call of it.

    Raises:
        UnansweredError: none comes back over one of them, for now, or a wrong one; with the reason.
    """
    if endpoint.own is not None:
        return endpoint.own.answered(endpoint)
    if endpoint.model == streams.NAME:
        return all(_streams(endpoint, protocol) for protocol in endpoint.protocols())
    rows = inputs(endpoint.model, 1)
    truth = model(endpoint.model).predict(rows)
    for protocol in endpoint.protocols():
        try:
            difference = max_difference(predict(endpoint, protocol, rows), truth)
        except DeploymentError as error:  # an answered one, too: a proxy says so of a server that is not there yet
            raise UnansweredError(error.reason) from error
        if not difference < PARITY[model(endpoint.model).dtype]:
            raise UnansweredError(f"{endpoint.label} predicts something else over {protocol} than the reference model")
    return True


def _streams(endpoint: Endpoint, protocol: str) -> bool:
    """Return whether the model ``stream`` sends two messages in order.

    Raises:
        UnansweredError: it does not, for now, or sends something else; with the reason.
    """
    plan = StreamPlan(count=2, interval_us=0)
    try:
        found = contents(endpoint, endpoint.stream(protocol, plan), plan)
        indices = [streams.read(each)[0] for each in found]
    except (DeploymentError, ValueError) as error:
        raise UnansweredError(str(getattr(error, "reason", error))) from error
    if indices != [0, 1]:
        raise UnansweredError(f"{endpoint.label} does not stream over {protocol}: its messages are {indices}")
    return True


def contents(endpoint: Endpoint, payload: Payload, plan: StreamPlan) -> list[bytes]:
    """Ask the model ``stream`` for ``plan`` by ``payload`` and return what its messages contain, once it has ended.

    Chunks are told apart by the size in the plan.

    Raises:
        AnsweredError, UnansweredError: as :func:`ask`.
    """
    assert payload.stream is not None
    timeout_s = endpoint.timeout_s + plan.duration_s
    try:
        if payload.protocol == "grpc":
            found = endpoint.call_stream(payload.path, payload.bodies[0], timeout_s=timeout_s)
        else:
            body = endpoint.fetch("POST", payload.path, payload.bodies[0], payload.headers, timeout_s=timeout_s)
            cut = (body[i : i + plan.size] for i in range(0, len(body), plan.size))
            found = events(body) if payload.stream.way == "sse" else list(cut)
    except DeploymentError as error:
        raise type(error)(error.reason, endpoint.log_tail()) from error
    return [payload.stream.content(message) for message in found]
