"""A small supervisor: runs one command, and leaves nothing of it behind whatever happens to its owner.

:mod:`infscale.deployment.processes.process` starts it as a plain script that needs the standard library only, so that
it starts in 20 ms. Its standard input is a pipe whose other end only the owner holds: its end means that the owner
stops the command, or that the owner died, even by kill -9. Every descendant of the command is adopted
(PR_SET_CHILD_SUBREAPER) and ended, including those that left their session. If the supervisor itself is killed,
PR_SET_PDEATHSIG ends the command.

The specification is JSON in ``argv[1]``: ``command``, ``env``, ``cwd``, ``log``, ``grace_s``, ``cores`` (CPU affinity,
or null), ``remove`` (folders deleted at the end), ``on_exit`` (a command run at the end, or null). It writes a line to
standard output when the command has started (its process id) and another when it has ended (its return code).
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import TypedDict


class Specification(TypedDict):
    """What to run, and what to do at its end."""

    command: list[str]
    env: dict[str, str]
    cwd: str | None
    log: str
    grace_s: float
    cores: list[int] | None
    remove: list[str]
    on_exit: list[str] | None


PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _children() -> list[int]:
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == me]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _kill_descendants() -> None:
    # Killing a child hands its children to us (subreaper): repeat until none is left.
    end = time.monotonic() + 5
    while (children := _children()) and time.monotonic() < end:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        _reap()


def _tell_owner(line: str) -> None:
    with contextlib.suppress(OSError):  # the owner may be gone
        os.write(1, f"{line}\n".encode())


def _wait_for_end(child: "subprocess.Popen[bytes]") -> bool:
    """Wait until the child ends by itself (return True), or the owner closes its pipe or dies (False)."""
    pidfd = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if pidfd in ready:
            return True
        if 0 in ready and not os.read(0, 1024):
            return False


def main() -> int:
    """Run the specification in ``argv[1]`` to its end."""
    spec: Specification = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the owner's pipe ends us
    _prctl(PR_SET_CHILD_SUBREAPER, 1)

    def prepare() -> None:
        if spec["cores"]:
            os.sched_setaffinity(0, spec["cores"])
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    code = 127
    try:
        with open(spec["log"], "ab") as log:
            child = subprocess.Popen(
                spec["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=spec["cwd"],
                env=spec["env"],
                preexec_fn=prepare,  # this process has one thread, so forking with Python code is safe
            )
            _tell_owner(str(child.pid))
            if not _wait_for_end(child):
                child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(spec["grace_s"])
            _kill_descendants()
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(5)
    except OSError as error:
        with open(spec["log"], "ab") as log:
            log.write(f"cannot start {spec['command'][0]}: {error}\n".encode())
        _tell_owner("0")
    _tell_owner(str(code))
    # The owner still reads the log of a command that failed: its folder is removed once the owner closes the pipe.
    while os.read(0, 1024):
        pass
    _clean(spec)
    return 0


def _clean(spec: Specification) -> None:
    try:
        if spec["on_exit"]:
            subprocess.run(spec["on_exit"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=10)
    finally:
        for folder in spec["remove"]:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
