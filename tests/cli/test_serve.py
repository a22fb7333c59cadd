"""If these fail, a user who just wants a server to try gets addresses that do not answer, or servers that stay."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from helpers.artifacts import archive
from helpers.waiting import await_true, gone
from infscale.deployment.processes.pids import living

pytestmark = pytest.mark.server


class Serving:
    """``infscale serve`` as a user starts it, and what it has printed."""

    def __init__(self, process: "subprocess.Popen[str]", pid_log: Path) -> None:
        self.process, self.pid_log, self.lines = process, pid_log, list[str]()
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("Ctrl-C ends it"):
                break

    def line(self, start: str) -> str:
        return next(line for line in self.lines if line.startswith(start))

    def tree(self) -> list[int]:
        """Every process that was started: the supervisors, their servers, and the servers' own workers."""
        return [p.pid for p in psutil.Process(self.process.pid).children(recursive=True)]

    def end(self, number: signal.Signals) -> str:
        """Send a signal, and return what was printed on standard error until the end."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def serving(tmp_path: Path, *arguments: str) -> Iterator[Serving]:
    pids = tmp_path / "pids"
    command = [sys.executable, "-m", "infscale.cli", "serve", *arguments, "--pid-log", str(pids)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Serving(process, pids)
        finally:
            process.kill()


def sh(line: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env={**os.environ, "PATH": path})


@pytest.mark.parametrize(
    ("framework", "number"),
    [("tfserving", signal.SIGTERM), ("torchserve", signal.SIGINT), ("triton", signal.SIGINT)],
)
def test_the_printed_lines_work_and_a_signal_leaves_nothing(
    tmp_path: Path, framework: str, number: signal.Signals
) -> None:
    with serving(tmp_path, framework, "mlp") as served:
        rest, grpc = served.line("REST").split()[1], served.line("gRPC").split()[1]
        curl = served.line("curl ")
        assert f"http://{rest}/" in curl
        shown = sh(curl)
        assert shown.returncode == 0, shown.stderr
        assert "predictions" in json.loads(shown.stdout) or "outputs" in json.loads(shown.stdout)
        for url in (f"http://{rest}", f"grpc://{grpc}"):
            loaded = sh(served.line(f"infscale load {url}").replace("--duration 5", "--duration 0.5"))
            assert loaded.returncode in (0, 3), loaded.stderr  # 3: this machine was too busy to judge
        recorded, started = served.pid_log.read_text(), served.tree()
        assert len(started) >= 2
        assert "stopped" in served.end(number)
        assert served.process.wait(60) == 0
        assert len(recorded.splitlines()) == 2
        assert living(served.pid_log) == []
        await_true(lambda: all(gone(pid) for pid in started))
        folder = re.search(r"@(/\S+)/rest\.body", curl)
        assert folder
        assert not Path(folder[1]).exists()


def test_a_signal_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infscale.cli", "serve", "torchserve", "--pid-log", str(tmp_path / "pids")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        await_true(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().count("\n") == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert living(tmp_path / "pids") == []


def test_a_server_that_ends_by_itself_is_an_error_with_its_log(tmp_path: Path) -> None:
    with serving(tmp_path, "triton", "noop") as served:
        server = int(served.pid_log.read_text().splitlines()[1].split()[0])
        os.kill(server, signal.SIGKILL)
        assert served.process.wait(60) == 1
        assert served.process.stderr is not None
        errors = served.process.stderr.read()
        assert "Triton" in errors
        assert "ended by itself" in errors
        assert "end of the server's log" in errors


def test_a_model_of_ones_own_is_served_with_its_payload(tmp_path: Path) -> None:
    (tmp_path / "body.bin").write_bytes(b"1234567")
    with serving(tmp_path, "torchserve", str(archive(tmp_path)), "--payload", str(tmp_path / "body.bin")) as served:
        assert json.loads(sh(served.line("curl ")).stdout) == {"bytes": 7}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tf"], "framework='tf' is not known; accepted: tfserving, torchserve, triton"),
        (["triton", "vgg"], "model='vgg' is not known; accepted: cnn, device, image, mlp, noop, photo"),
        (["tfserving", "--way", "podman"], "way='podman' is not known; accepted: auto, binary, docker, embedded"),
        (["tfserving", "--rest-port", "70000"], "rest_port=70000 is not a TCP port"),
        (["torchserve", "./none.mar", "--payload", "x"], "model='none.mar' does not exist"),
        (["torchserve", "mlp", "--way", "docker"], "way='docker' is no option of TorchServe; accepted: answer"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "infscale.cli", "serve", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 1
    assert message in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
