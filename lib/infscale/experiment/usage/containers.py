"""What a container used, as Docker tells it: for servers whose processes this machine may not see."""

import contextlib
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from infscale.deployment.endpoint import Endpoint
from infscale.records.manifest import Container

PATIENCE_S = 10.0
"""Longest that Docker's answer is waited for, s."""

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KB": 10**3, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def container_of(command: Sequence[str]) -> tuple[str, str] | None:
    """Return Docker's client and the container's name by a ``docker run`` command line; None for another command."""
    if len(command) < 2 or Path(command[0]).name != "docker" or command[1] != "run" or "--name" not in command:
        return None
    return command[0], command[command.index("--name") + 1]


def parse(line: str) -> dict[str, float]:
    """Return what a line of ``docker stats --format json`` says: CPU (cores), bytes of memory and network, processes.

    Docker rounds: CPU to 0.01 %, bytes to about four digits.

    Raises:
        ValueError: it is not such a line.
    """
    values = json.loads(line)
    try:
        received, sent = (_bytes(part) for part in values["NetIO"].split(" / "))
        return {
            "cores": float(values["CPUPerc"].rstrip("%")) / 100,
            "memory_bytes": _bytes(values["MemUsage"].partition(" / ")[0]),
            "received_bytes": received,
            "sent_bytes": sent,
            "processes": float(values["PIDs"]),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{line!r} is not a line of docker stats: {error}") from error


def _bytes(text: str) -> float:
    size = re.fullmatch(r"([\d.]+)\s*([A-Za-z]+)", text.strip())
    if not size or size[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a size")
    return float(size[1]) * _UNITS[size[2]]


def read(client: str, name: str) -> dict[str, float] | None:
    """Return one reading of a running container, which takes Docker a second or two; None if it gives none."""
    command = [client, "stats", "--no-stream", "--format", "json", name]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        return parse(asked.stdout.strip()) if asked.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


@contextlib.contextmanager
def watching(endpoint: Endpoint) -> Iterator[list[Container]]:
    """Fill a list with readings of the endpoint's container, one after the other; it stays empty where there is none.

    ``time_ns`` is when a reading was complete (CLOCK_MONOTONIC). The last one is complete after the context's end.
    """
    seen: list[Container] = []
    container = container_of(endpoint.command)
    if container is None:
        yield seen
        return
    over = threading.Event()

    def keep_reading() -> None:
        while True:
            if reading := read(*container):
                seen.append(Container(time_ns=time.monotonic_ns(), **reading))
            if over.wait(1.0):
                return

    thread = threading.Thread(target=keep_reading, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(2 * PATIENCE_S)
