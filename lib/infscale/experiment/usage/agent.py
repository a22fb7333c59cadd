"""An agent that reads what servers use on another machine: the Dask task of a worker there."""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from functools import partial

import psutil

from infscale.experiment.usage.sampler import Sampler
from infscale.load.cluster import rows
from infscale.load.cluster.line import Line, LineBrokenError, Ping, Pong, Read, Readings, Watch, Watching
from infscale.load.cluster.station import CONNECT_S, facts


def serve(host: str, port: int, token: str, *, apart: bool) -> None:
    """Connect to the driver, and read processes for it when it asks, until the line ends.

    Args:
        host, port, token, apart: as of :func:`infscale.load.cluster.station.serve`.
    """
    if apart:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
    with contextlib.suppress(LineBrokenError), socket.create_connection((host, port), CONNECT_S) as sock:
        line = Line(sock)
        line.send(facts(token))
        with contextlib.ExitStack() as stack:
            _answer(line, stack)


def _answer(line: Line, stack: contextlib.ExitStack) -> None:
    sampler: Sampler | None = None
    while True:
        message, _ = line.receive()
        if isinstance(message, Ping):
            received = time.monotonic_ns()
            line.send(Pong(received, time.monotonic_ns()))
        elif isinstance(message, Watch):
            missing = [port for port in message.ports.values() if not listening(port)]
            if missing:
                line.send(Watching(f"no process that this worker may see listens at port {missing[0]}"))
                continue
            sampler = stack.enter_context(Sampler(groups(message.ports)))
            line.send(Watching())
        elif isinstance(message, Read) and sampler is not None:
            sampler.refresh()
            stack.close()
            line.send(Readings(), rows.file(sampler.rows(0)))
            sampler = None


def groups(ports: Mapping[str, int]) -> dict[str, partial[list[psutil.Process]]]:
    """Return what lists the processes of each group, by the port at which the first of them listens."""
    return {name: partial(listening, port) for name, port in ports.items()}


def listening(port: int) -> list[psutil.Process]:
    """Return the processes that listen at a TCP port of this machine, and all that descend from them."""
    found: dict[int, psutil.Process] = {}
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(connection.pid)
                found |= {one.pid: one for one in [process, *process.children(recursive=True)]}
    return list(found.values())
