"""Addresses and ports on this machine."""

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from infscale.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """Where a server runs: on this machine's loopback, or in a network namespace.

    Attributes:
        prefix: what its command line begins with; in a namespace ``ip netns exec NAME``.
        host: IPv4 address that it listens on and is reached at.
    """

    prefix: tuple[str, ...] = ()
    host: str = "127.0.0.1"


HERE = Place()
"""This machine's loopback."""


def free_ports(count: int) -> list[int]:
    """Return ``count`` distinct TCP ports that are free on 127.0.0.1 now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def check_port(name: str, port: int, place: Place = HERE) -> int:
    """Return ``port`` if it can be bound on 127.0.0.1; in a namespace every port is free.

    Raises:
        ConfigError: it is outside 1–65535, or taken; ``name`` is the parameter's.
    """
    if not 1 <= port <= 65535:
        raise ConfigError(f"{name}={port} is not a TCP port; accepted: 1 to 65535")
    if place.prefix:
        return port
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"{name}={port} is taken by another process; accepted: any free port") from error
    return port


def choose_ports(wanted: Mapping[str, int], place: Place = HERE) -> list[int]:
    """Return a port for each parameter of ``wanted``, in order: its value, or a free port where that is 0.

    Raises:
        ConfigError: a port that was asked for cannot be used.
    """
    free = free_ports(len(wanted))
    return [check_port(name, port, place) if port else free[i] for i, (name, port) in enumerate(wanted.items())]
