"""Wait for conditions: a test awaits what it needs and never sleeps for a fixed time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


def await_true(condition: Callable[[], Any], seconds: float = 60, *, alive: Callable[[], bool] | None = None) -> None:
    """Return as soon as ``condition()`` is true; fail after ``seconds``, or at once when ``alive()`` is false."""
    end = time.monotonic() + seconds
    while not condition():
        assert alive is None or alive(), "what was waited for has ended"
        assert time.monotonic() < end, f"did not come about within {seconds:g} s"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Return whether the process ended (a zombie has ended, too)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def first_line(path: Path) -> str:
    """Return the first line of a file, once it is written whole."""
    await_true(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().splitlines()[0]
