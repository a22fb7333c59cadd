"""Addresses and ports on this machine."""

import contextlib
import random
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from infscale.errors import ConfigError, DeploymentError


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


LOWEST = 10_000
"""The lowest port that is chosen: below lie those of well-known services."""

TRIES = 3
"""How often a server is started whose ports others take meanwhile."""

_TAKEN = re.compile(r"already in use|already allocated|BindException|failed to bind", re.IGNORECASE)

T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Return ``count`` distinct TCP ports that are free on 127.0.0.1 now.

    They lie below those that the kernel gives to outgoing connections, of which a load takes thousands: until the
    server binds its port, one of them might take it.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        below = range(LOWEST, max(LOWEST, _first_outgoing()))
        candidates = random.sample(below, min(100 * count, len(below)))
        for sock in sockets:
            while candidates:
                with contextlib.suppress(OSError):
                    sock.bind(("127.0.0.1", candidates.pop()))
                    break
            else:
                sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def _first_outgoing() -> int:
    """Return the first port of outgoing connections; 0 where the kernel does not tell."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def other_ports_if_taken(start: Callable[[], AbstractContextManager[T]]) -> AbstractContextManager[T]:
    """Start a server, and again where another process took a port of its between choosing and binding.

    Raises:
        DeploymentError: it did not start, for another reason or again and again.
    """
    return _started(start, start())  # what is wrong with its options shows itself at once


@contextlib.contextmanager
def _started(start: Callable[[], AbstractContextManager[T]], first: AbstractContextManager[T]) -> Iterator[T]:
    for attempt in range(1, TRIES + 1):
        with contextlib.ExitStack() as stack:
            try:
                started = stack.enter_context(first if attempt == 1 else start())
            except DeploymentError as error:
                if attempt == TRIES or not _TAKEN.search(str(error)):
                    raise
                continue
            yield started
        return


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
