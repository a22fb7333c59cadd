"""Supervised processes: started once, watched, and gone when their owner is.

The owner holds the write end of a pipe; :mod:`infscale.deployment.processes.supervise` ends the process and all
its descendants when that pipe closes, so an exit, an exception and kill -9 of the owner all clean up.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from infscale.deployment.processes.folder import _check_writable
from infscale.deployment.processes.pids import record_pids
from infscale.deployment.processes.ports import HERE, Place
from infscale.errors import DeploymentError
from infscale.machine import split_cores

_SCRIPT = Path(__file__).with_name("supervise.py")
_LISTENING = "0A"  # the state of a socket in /proc/PID/net/tcp


class Process:
    """One supervised command.

    Attributes:
        pid: the command's process id.
        command: what was started.
        log: the file that holds its standard output and error.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace_s: float = 8.0,
        remove: Sequence[Path] = (),
        on_exit: Sequence[str] | None = None,
        pid_log: Path | None = None,
        place: Place = HERE,
    ) -> None:
        """Start ``command`` in ``place``; ``grace_s`` seconds pass between SIGTERM and SIGKILL at its end.

        Raises:
            DeploymentError: the command cannot be executed, or its log folder cannot be written.
        """
        self.command = list(command)
        self.log = log
        self._place = place
        spec = {
            "command": [*place.prefix, *self.command],
            "env": {**os.environ, **(env or {})},
            "cwd": str(cwd) if cwd else None,
            "log": str(log),
            "grace_s": grace_s,
            "cores": sorted(cores[1]) if (cores := split_cores()) else None,
            "remove": [str(path) for path in remove],
            "on_exit": list(on_exit) if on_exit else None,
        }
        try:
            _check_writable(log)
            self._log_from = log.stat().st_size  # what another start wrote before is not this one's
        except OSError as error:
            raise DeploymentError(f"cannot write the log {log}: {error}") from error
        self._supervisor = subprocess.Popen(
            [sys.executable, "-S", "-E", str(_SCRIPT), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal reaches the owner only
            bufsize=0,
        )
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._pipe, self._words = self._supervisor.stdin, self._supervisor.stdout
        self.pid = int(self._words.readline() or 0)
        self.returncode: int | None = None
        if pid_log:
            record_pids(pid_log, {self._supervisor.pid: "supervisor", self.pid: Path(self.command[0]).name})
        if not self.pid:
            self.stop()
            raise DeploymentError(f"{self.command[0]} did not start", self.log_tail())

    def alive(self) -> bool:
        """Whether the command still runs."""
        if self.returncode is None and select.select([self._words], [], [], 0)[0]:
            self.returncode = int(self._words.readline() or -9)
        return self.returncode is None

    def tree(self) -> list[psutil.Process]:
        """The command's process and all its descendants that live."""
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def owns_port(self, port: int) -> bool:
        """Whether this process, or a descendant, listens on the TCP ``port``."""
        if self._place.prefix:
            return self._namespace_listens(port)
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                        return True
        return False

    def _namespace_listens(self, port: int) -> bool:
        """Whether anyone listens in the process's network namespace, where nobody is but what we started.

        (psutil sees the sockets of its own namespace only.)
        """
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{self.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
                fields = [line.split() for line in lines]
                if any(f[3] == _LISTENING and int(f[1].rpartition(":")[2], 16) == port for f in fields):
                    return True
        return False

    def log_tail(self, lines: int = 25) -> str:
        """The last ``lines`` lines of the log."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(self._log_from, self.log.stat().st_size - 20_000))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def stop(self) -> None:
        """End the command and everything it started; returns when all of it is gone."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._supervisor.wait()
        self.alive()
        self._words.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_ready(process: Process, answered: Callable[[], bool], *, what: str, timeout_s: float) -> float:
    """Wait until ``answered()`` is true; returns the seconds it took.

    Raises:
        DeploymentError: the process ended or the time ran out, with the end of its log.
    """
    start = time.monotonic()
    while time.monotonic() - start < timeout_s:
        if not process.alive():
            raise DeploymentError(f"{what} ended while starting (exit code {process.returncode})", process.log_tail())
        if answered():
            return time.monotonic() - start
        time.sleep(0.05)
    raise DeploymentError(f"{what} did not answer a prediction within {timeout_s:.0f} s", process.log_tail())
