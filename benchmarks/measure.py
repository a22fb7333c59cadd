"""Runs one client program and says what it cost: exact CPU of its process tree, and the host's state meanwhile."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infscale.machine import steal_ticks


class RunError(RuntimeError):
    """A client program failed; the message ends with what it printed."""


@dataclass(frozen=True)
class Usage:
    """What one run of a client cost.

    Attributes:
        cpu_user_s, cpu_system_s: of the process and all its descendants that it waited for, from the kernel's
            accounting at its end (wait4); nanosecond based, not sampled.
        wall_s: from start to end, start-up included.
        load1: the machine's one-minute load average before the run.
        steal: share of all CPU ticks that the hypervisor took during the run.
        text: standard output, then standard error.
    """

    cpu_user_s: float
    cpu_system_s: float
    wall_s: float
    load1: float
    steal: float
    text: str

    @property
    def cpu_s(self) -> float:
        """User and system together."""
        return self.cpu_user_s + self.cpu_system_s


@dataclass(frozen=True)
class HostState:
    """Load average and CPU ticks at one moment."""

    load1: float
    stolen: int
    ticks: int

    def since(self) -> dict[str, float]:
        """``load1`` then, and the share ``steal`` of all ticks that the hypervisor took from then until now."""
        stolen, ticks = steal_ticks()
        return {"load1": self.load1, "steal": (stolen - self.stolen) / max(1, ticks - self.ticks)}


def host_state() -> HostState:
    """The machine's state now."""
    return HostState(os.getloadavg()[0], *steal_ticks())


def run(command: Sequence[str], folder: Path, *, timeout_s: float, env: Mapping[str, str] | None = None) -> Usage:
    """Run ``command`` in ``folder`` to its end.

    Raises:
        RunError: it ended with another code than 0, or was killed after ``timeout_s``.
    """
    state, began = host_state(), time.monotonic()
    with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, env={**os.environ, **(env or {})}
        )
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            _, code, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(code)
    wall_s, host = time.monotonic() - began, state.since()
    text = "".join((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    if process.returncode:
        how = f"was killed after {timeout_s:.0f} s" if wall_s >= timeout_s else f"ended with code {process.returncode}"
        raise RunError(f"{Path(command[0]).name} {how}: {text[-800:]}")
    return Usage(used.ru_utime, used.ru_stime, wall_s, **host, text=text)
