"""What is loaded: Triton with a cached model, or the project's null server; one body for all clients."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infscale.deployment import FRAMEWORKS
from infscale.models import reference as models
from infscale.vocabulary import PROTOCOLS

MODEL = "mlp"
ENCODING = {"rest": "raw", "grpc": "protobuf"}
"""perf_analyzer's defaults: the binary tensor extension over HTTP, raw contents over gRPC."""


@dataclass(frozen=True)
class Target:
    """One server and the single request that every client sends to it.

    Attributes:
        server: "triton" or "null".
        rest, grpc: ``host:port``.
        path: per protocol.
        headers: per protocol, beside what the protocol needs.
        body: per protocol; for gRPC the message without its five-byte frame head.
        model: the served model's name and the tensor as perf_analyzer's ``--input-data`` wants it.
    """

    server: str
    rest: str
    grpc: str
    path: Mapping[str, str]
    headers: Mapping[str, Mapping[str, str]]
    body: Mapping[str, bytes]
    values: list[float] = field(repr=False, default_factory=list)
    input_name: str = ""
    model: str = MODEL

    def url(self, protocol: str) -> str:
        """The engine's URL of the request."""
        if protocol == "rest":
            return f"http://{self.rest}{self.path['rest']}"
        return f"grpc://{self.grpc}{self.path['grpc']}"

    def write_body(self, protocol: str, path: Path) -> Path:
        """The body as a file, with the gRPC frame head for clients that know HTTP/2 only."""
        body = self.body[protocol]
        path.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body if protocol == "grpc" else body)
        return path


def _target(server: str, rest: str, grpc: str) -> Target:
    rows = models.inputs(MODEL, 1)
    built = {p: FRAMEWORKS["triton"].interface.payload(p, MODEL, rows, encoding=ENCODING[p]) for p in PROTOCOLS}
    return Target(
        server,
        rest,
        grpc,
        {p: payload.path for p, payload in built.items()},
        {p: payload.headers for p, payload in built.items()},
        {p: payload.bodies[0] for p, payload in built.items()},
        [float(v) for v in rows.ravel()],
        "x",
    )


@contextmanager
def triton() -> Iterator[Target]:
    """Triton with its response cache on: after the first request no model runs."""
    from infscale.deployment import deploy

    with deploy("triton", MODEL, cache=True) as endpoint:
        yield _target("triton", endpoint.rest, endpoint.grpc)


@contextmanager
def null() -> Iterator[Target]:
    """The project's null server: it reads a request and answers a fixed one."""
    from infscale.load.null_server import null_server

    with null_server() as server:
        yield _target("null", server.rest, server.grpc)


SERVERS = {"triton": triton, "null": null}


class Keeper:
    """Keeps a server up for a section: Triton with its response cache has been seen to crash under REST load."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._stack = ExitStack()
        self._target: Target | None = None
        self.restarts = 0

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def target(self) -> Target:
        """The running server; a new one if it no longer takes connections."""
        if self._target is None or not (_accepts(self._target.rest) and _accepts(self._target.grpc)):
            self.restarts += self._target is not None
            self._stack.close()
            self._target = self._stack.enter_context(SERVERS[self._server]())
        return self._target


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True
