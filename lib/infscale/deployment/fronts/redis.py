"""A Redis server of our own, for a cache that gateways share."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import free_ports
from infscale.deployment.processes.process import serving
from infscale.errors import MissingError
from infscale.programs import find_program

START_TIMEOUT_S = 20.0
"""Longest time that Redis may take to start, seconds."""
MEMORY = "256mb"
"""Redis's ``maxmemory``; beyond it the least recently used keys go."""


@contextlib.contextmanager
def redis_server(*, log_folder: Path | None = None, pid_log: Path | None = None) -> Iterator[str]:
    """Start ``redis-server`` on a free loopback port, without files on disk, and yield its URL.

    Raises:
        MissingError: it is not installed.
        DeploymentError: it did not answer.
    """
    program = find_program("redis-server")
    if program is None:
        raise MissingError("redis-server is not installed; get it by apt-get install redis-server (Debian, Ubuntu)")
    (port,) = free_ports(1)
    with working_folder("redis") as run:
        flags = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": run}
        flags |= {"maxmemory": MEMORY, "maxmemory-policy": "allkeys-lru"}
        with serving(
            [program, *(str(part) for name, value in flags.items() for part in (f"--{name}", value))],
            what="Redis",
            log=(log_folder or run) / "redis.log",
            ports=[port],
            ready=lambda _: _answers(port),
            timeout_s=START_TIMEOUT_S,
            remove=[run],
            pid_log=pid_log,
        ):
            yield f"redis://127.0.0.1:{port}/0"


def _answers(port: int) -> bool:
    """Return whether PING is answered (https://redis.io/docs/latest/develop/reference/protocol-spec)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(7) == b"+PONG\r\n"
    except OSError:
        return False
