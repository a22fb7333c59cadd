"""Programs, addresses and ports on this machine."""

import contextlib
import os
import shutil
import socket
from dataclasses import dataclass

from infscale.errors import ConfigError

SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
"""Where Debian puts programs of the system, which are not on every user's PATH."""


@dataclass(frozen=True)
class Place:
    """Where a server runs: what its command is started by, and the address that it listens on.

    Attributes:
        prefix: of the command; of a network namespace ``ip netns exec NAME``.
        host: IPv4 address to listen on and to be reached at.
    """

    prefix: tuple[str, ...] = ()
    host: str = "127.0.0.1"


HERE = Place()


def find_program(name: str) -> str | None:
    """Path of an installed program, on PATH or in :data:`SYSTEM_FOLDERS`."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS]))


def free_ports(count: int) -> list[int]:
    """``count`` distinct TCP ports that are free on 127.0.0.1 now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def check_port(name: str, port: int, place: Place = HERE) -> int:
    """Return ``port`` if it can be bound on 127.0.0.1; in a namespace of our own all are free.

    Raises:
        ConfigError: outside 1–65535, or taken.
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
