"""Supervised processes: started once, watched, and ended together with their owner.

The owner holds the write end of a pipe. :mod:`infscale.deployment.processes.supervise` ends the process and all its
descendants when that pipe closes, so that an exit, an exception and a kill -9 of the owner all clean up.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from infscale.deployment.client import UnansweredError
from infscale.deployment.processes.folder import check_writable
from infscale.deployment.processes.pids import record_pids
from infscale.deployment.processes.ports import HERE, Place
from infscale.errors import DeploymentError, Interrupt
from infscale.machine import split_cores

_SCRIPT = Path(__file__).with_name("supervise.py")
_LISTENING = "0A"  # the state of a socket in /proc/PID/net/tcp
START_TIMEOUT_S = 60.0
"""Longest time that a server may take until it answers, seconds."""


class Process:
    """One supervised command.

    Attributes:
        pid: the command's process id.
        command: the command line.
        log: the file that holds its standard output and error.
        ready_s: seconds from the start until it was ready; 0 until then.
        returncode: its exit status, or None while it runs.
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
        """Start ``command`` in ``place``.

        Args:
            command: program and arguments.
            log: file to which its standard output and error are appended.
            env: variables added to this process's environment.
            cwd: working directory; None for this process's own.
            grace_s: seconds between SIGTERM and SIGKILL at its end.
            remove: folders that are removed at its end.
            on_exit: a command that is run at its end.
            pid_log: file to which the ids of its process and supervisor are appended.
            place: this machine's loopback, or a network namespace.

        Raises:
            DeploymentError: the command cannot be executed, or its log folder cannot be written.
        """
        self.command = list(command)
        self.log = log
        self.ready_s = 0.0
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
            check_writable(log)
            self._log_from = log.stat().st_size  # lines of an earlier start are not this one's
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
        self._pipe, self._messages = self._supervisor.stdin, self._supervisor.stdout
        self.pid = int(self._messages.readline() or 0)
        self.returncode: int | None = None
        if pid_log:
            record_pids(pid_log, {self._supervisor.pid: "supervisor", self.pid: Path(self.command[0]).name})
        if not self.pid:
            self.stop()
            raise DeploymentError(f"{self.command[0]} did not start", self.log_tail())

    def alive(self) -> bool:
        """Return whether the command still runs."""
        if self.returncode is None and select.select([self._messages], [], [], 0)[0]:
            self.returncode = int(self._messages.readline() or -9)
        return self.returncode is None

    def tree(self) -> list[psutil.Process]:
        """Return the living processes: the command's own and all its descendants."""
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def owns_port(self, port: int) -> bool:
        """Return whether this process, or a descendant, listens on the TCP ``port``."""
        if self._place.prefix:
            return self._namespace_listens(port)
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                        return True
        return False

    def _namespace_listens(self, port: int) -> bool:
        """Return whether anything listens in the process's network namespace, which holds nothing but our processes.

        psutil sees the sockets of its own namespace only.
        """
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{self.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
                fields = [line.split() for line in lines]
                if any(row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port for row in fields):
                    return True
        return False

    def log_tail(self, lines: int = 25) -> str:
        """Return the last ``lines`` lines of the log."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(self._log_from, self.log.stat().st_size - 20_000))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def stop(self) -> None:
        """End the command and everything that it started, and return when all of it is gone."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._supervisor.wait()
        self.alive()
        self._messages.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_ready(
    process: Process,
    ready: Callable[[], bool],
    *,
    what: str,
    timeout_s: float,
    log_tail: Callable[[Process], str] = Process.log_tail,
) -> float:
    """Wait until ``ready()`` is true and return the seconds that it took; ``what`` names the server in messages.

    ``ready`` may raise UnansweredError instead of returning False: then the message says what was missing last.

    Raises:
        DeploymentError: the process ended or the time ran out; the message has ``log_tail(process)``. Also whatever
            else ``ready`` raises, at once.
    """
    start, missing = time.monotonic(), ""
    while time.monotonic() - start < timeout_s:
        if not process.alive():
            raise DeploymentError(f"{what} ended while starting (exit code {process.returncode})", log_tail(process))
        try:
            if ready():
                return time.monotonic() - start
        except UnansweredError as error:
            missing = f": {error.reason}"
        time.sleep(0.05)
    raise DeploymentError(f"{what} did not answer a prediction within {timeout_s:.0f} s{missing}", log_tail(process))


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    *,
    what: str,
    log: Path,
    ports: Collection[int] = (),
    ready: Callable[[Process], bool] = lambda _: True,
    timeout_s: float = START_TIMEOUT_S,
    log_tail: Callable[[Process], str] = Process.log_tail,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace_s: float = 8.0,
    remove: Sequence[Path] = (),
    on_exit: Sequence[str] | None = None,
    pid_log: Path | None = None,
    place: Place = HERE,
) -> Iterator[Process]:
    """Start a server and yield its process once it listens on all ``ports`` and is ``ready``; stop it at the end.

    A port counts only if the process itself listens on it: another server's answer is no answer. ``what`` names the
    server in messages, and ``log_tail`` chooses the lines of its log that follow them; the other arguments are those of
    :class:`Process`.

    Raises:
        DeploymentError: the command cannot be executed, ended, or was not ready in time.
        Interrupt: Ctrl-C ended it meanwhile.
    """
    with Process(
        command,
        log=log,
        env=env,
        cwd=cwd,
        grace_s=grace_s,
        remove=remove,
        on_exit=on_exit,
        pid_log=pid_log,
        place=place,
    ) as process:

        def answers() -> bool:
            return all(process.owns_port(port) for port in ports) and ready(process)

        try:
            process.ready_s = wait_ready(process, answers, what=what, timeout_s=timeout_s, log_tail=log_tail)
        except KeyboardInterrupt as error:
            raise Interrupt(f"{what} was ended before it was ready; deploy it again") from error
        yield process
