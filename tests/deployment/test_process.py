"""If these fail, a user's machine is left with servers that nobody asked for, or a start that never ends."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from helpers.waiting import await_true, first_line, gone
from infscale.deployment.client import AnsweredError, UnansweredError
from infscale.deployment.processes import process
from infscale.deployment.processes.folder import copy_tree, working_folder
from infscale.deployment.processes.ports import check_port
from infscale.deployment.processes.process import Process
from infscale.errors import ConfigError, DeploymentError

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
# A server with a worker that left its session and ignores SIGTERM, as badly behaved ones do.
FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-S", "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"], start_new_session=True)
print(worker.pid, flush=True)
time.sleep(600)
"""


def test_stop_ends_stubborn_descendants_too(tmp_path: Path) -> None:
    with Process([sys.executable, "-S", "-c", FAMILY], log=tmp_path / "log", grace_s=0.5) as family:
        worker = int(first_line(tmp_path / "log"))
        assert not gone(worker)
        assert family.alive()
    assert gone(family.pid)
    assert gone(worker)


OWNER = """
import sys, time
from pathlib import Path
from infscale.deployment.processes.process import Process
family = Process([sys.executable, "-S", "-c", {family!r}], log=Path({log!r}), grace_s=0.5, remove=[Path({folder!r})])
print(family.pid, flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "number"),
    [
        ("time.sleep(600)", signal.SIGKILL),
        ("time.sleep(600)", signal.SIGINT),
        ("raise RuntimeError('a bug in the notebook')", None),
        ("sys.exit(0)", None),
    ],
    ids=["kill -9", "Ctrl-C", "exception", "exit without stopping"],
)
def test_nothing_outlives_its_owner(tmp_path: Path, then: str, number: signal.Signals | None) -> None:
    folder = tmp_path / "working"
    folder.mkdir()
    text = textwrap.dedent(OWNER).format(family=FAMILY, log=str(tmp_path / "log"), folder=str(folder), then=then)
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        worker = int(first_line(tmp_path / "log")) if number else 0
        if number:
            owner.send_signal(number)
        try:
            owner.wait(60)
        finally:
            owner.kill()
    await_true(lambda: gone(pid) and (not worker or gone(worker)) and not folder.exists())


def test_a_killed_supervisor_takes_the_server_with_it(tmp_path: Path) -> None:
    with Process(SLEEP, log=tmp_path / "log") as sleeper:
        supervisor = psutil.Process(sleeper.pid).ppid()
        os.kill(supervisor, signal.SIGKILL)
        await_true(lambda: gone(sleeper.pid))
        assert not sleeper.alive()


def test_a_server_that_dies_while_starting_is_an_error_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "print('no such model: m'); raise SystemExit(3)"]
    with (
        Process(command, log=tmp_path / "log") as dying,
        pytest.raises(DeploymentError, match=r"exit code 3\)[\s\S]*no such model: m"),
    ):
        process.wait_ready(dying, lambda: False, what="the server", timeout_s=20)


def test_a_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="did not start"):
        Process(["/nonexistent/server"], log=tmp_path / "log")


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeploymentError, match="cannot write the log"):
        Process(SLEEP, log=tmp_path / "file" / "log")


def test_somebody_elses_port_is_never_taken_for_ours(tmp_path: Path) -> None:
    with socket.socket() as sock, Process(SLEEP, log=tmp_path / "log") as sleeper:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        assert not sleeper.owns_port(port)
        with pytest.raises(ConfigError, match=rf"rest_port={port} is taken"):
            check_port("rest_port", port)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_outside_tcp_is_an_error(port: int) -> None:
    with pytest.raises(ConfigError, match="accepted: 1 to 65535"):
        check_port("rest_port", port)


def test_folders_of_dead_owners_are_swept() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as ended:
        ended.wait()
    with working_folder("first") as first:
        stale = first.parent / f"infscale-{ended.pid}-ts-left"
        stale.mkdir()
        with working_folder("second"):
            assert not stale.exists()
            assert first.exists()


def test_a_time_limit_says_what_was_missing_last_and_an_error_does_not_wait_for_it(tmp_path: Path) -> None:
    def unanswered() -> bool:
        raise UnansweredError("POST http://127.0.0.1:1/: timed out", "a log that is shown once")

    def refused() -> bool:
        raise AnsweredError("answered 404: no such model")

    with Process(SLEEP, log=tmp_path / "log") as sleeper:
        with pytest.raises(DeploymentError, match=r"the server did not answer a prediction .* timed out$"):
            process.wait_ready(sleeper, unanswered, what="the server", timeout_s=0.2)
        with pytest.raises(AnsweredError, match="no such model"):
            process.wait_ready(sleeper, refused, what="the server", timeout_s=600)


def test_a_copy_can_be_written_and_removed_whatever_the_modes_of_the_original(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "program").touch()
    (source / "folder" / "program").chmod(0o555)
    (source / "folder").chmod(0o555)
    copy_tree(source, tmp_path / "copy")
    (source / "folder").chmod(0o755)
    assert (tmp_path / "copy" / "folder").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "copy" / "folder" / "program").stat().st_mode & 0o777 == 0o755
