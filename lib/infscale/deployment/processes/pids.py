"""A file that lists the processes that were started, so that a check can find those that were left."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import psutil


def record_pids(path: Path, pids: Mapping[int, str]) -> None:
    """Append a line ``pid start-time name`` for each process; the start time tells a reused pid from ours."""
    with open(path, "a", encoding="utf-8") as file:
        for pid, name in pids.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                file.write(f"{pid} {psutil.Process(pid).create_time():.2f} {name}\n")


def living(path: Path) -> list[str]:
    """Return the lines of such a file whose process still lives."""
    alive = []
    for line in path.read_text(encoding="utf-8").splitlines():
        pid, created, _ = line.split(maxsplit=2)
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(pid))
            if abs(process.create_time() - float(created)) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(line)
    return alive
