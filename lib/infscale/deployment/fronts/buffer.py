"""A proxy that buffers, in front of a server: messages that were sent apart arrive together.

Proxies in the field do so by default (nginx: ``proxy_buffering``), each by rules of its own. This one is this project's
and does it by two numbers, over HTTP/1.1 and gRPC alike: see :mod:`infscale.servers.buffer`.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from infscale.deployment import deploy as deploy_one
from infscale.deployment.endpoint import Endpoint, answers
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, choose_ports
from infscale.deployment.processes.process import Process, serving
from infscale.errors import ConfigError

START_TIMEOUT_S = 20.0
"""Longest time that the proxy may take to start, seconds."""


@contextlib.contextmanager
def deploy(
    framework: str,
    model: str | Path = "stream",
    *,
    hold_ms: float = 20,
    hold_bytes: int = 65_536,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    **options: Any,
) -> Iterator[Endpoint]:
    """Start a server and a buffering proxy before it; ``options`` are those of :func:`infscale.deployment.deploy`.

    ``hold_ms`` and ``hold_bytes`` are those of :func:`hold`.
    """
    check(hold_ms, hold_bytes)
    with (
        deploy_one(framework, model, log_folder=log_folder, pid_log=pid_log, **options) as server,
        hold(server, hold_ms=hold_ms, hold_bytes=hold_bytes, log_folder=log_folder, pid_log=pid_log) as endpoint,
    ):
        yield endpoint


@contextlib.contextmanager
def hold(
    endpoint: Endpoint,
    *,
    hold_ms: float = 20,
    hold_bytes: int = 65_536,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
) -> Iterator[Endpoint]:
    """Put a buffering proxy in front of ``endpoint``, over each of its protocols, and yield it with the new addresses.

    What the server sends on a connection is kept for ``hold_ms`` after the first byte that is kept, or until it is
    ``hold_bytes``, and goes on together.

    Raises:
        ConfigError: no time or number of bytes.
        DeploymentError: it did not become ready; the message has the end of its log.
    """
    check(hold_ms, hold_bytes)
    protocols = endpoint.protocols()
    ports = choose_ports(dict.fromkeys(protocols, 0), HERE)
    address = {protocol: f"{HERE.host}:{port}" for protocol, port in zip(protocols, ports, strict=True)}
    doors = [(port, endpoint.address(protocol)) for protocol, port in zip(protocols, ports, strict=True)]
    settings = {"doors": doors, "host": HERE.host, "hold_ms": hold_ms, "hold_bytes": hold_bytes}

    def held(process: Process) -> Endpoint:
        def processes() -> list[psutil.Process]:
            """List both; none once the server has ended, since the proxy alone serves nothing."""
            server = endpoint.processes()
            return server and [*server, *process.tree()]

        return replace(
            endpoint,
            implementation=f"{endpoint.implementation}+buffer",
            label=f"{endpoint.label}, behind a proxy that buffers for {hold_ms:g} ms or {hold_bytes} B",
            rest=address.get("rest", ""),
            grpc=address.get("grpc", ""),
            processes=processes,
            parts={**(endpoint.parts or {"server": endpoint.processes}), "proxy": process.tree},
        )

    with (
        working_folder("hold") as run,
        serving(
            [sys.executable, "-m", "infscale.servers.buffer", json.dumps(settings)],
            what="the buffering proxy",
            log=(log_folder or run) / "buffer.log",
            ports=ports,
            ready=lambda process: answers(held(process)),
            timeout_s=START_TIMEOUT_S,
            grace_s=3.0,
            remove=[run],
            pid_log=pid_log,
        ) as process,
    ):
        yield held(process)


def check(hold_ms: float, hold_bytes: int) -> None:
    """Check how much is to be held up.

    Raises:
        ConfigError: no time or number of bytes.
    """
    if not 0 < hold_ms <= 60_000 or not math.isfinite(hold_ms):
        raise ConfigError(f"hold_ms={hold_ms} is no time for a buffer; accepted: above 0, at most 60000")
    if not 1 <= hold_bytes <= 1 << 30:
        raise ConfigError(f"hold_bytes={hold_bytes} is no size of a buffer; accepted: 1 to {1 << 30}")
