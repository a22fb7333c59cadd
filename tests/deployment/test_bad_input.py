"""If these fail, a server's failure reaches the user as a hang, as a stack trace, or not at all.

Each failure must come as an error that carries what the framework itself said, and the end of its log. What concerns
versions, signatures and types of a running server is in ``test_attach``; models that do not load, in ``test_servers``.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from helpers.artifacts import ONE_PROTOCOL, TRITON_CONFIG, archive
from helpers.waiting import await_true, gone
from infscale import deployment as servers
from infscale.deployment.client import AnsweredError
from infscale.deployment.endpoint import Endpoint, check_answers, predict
from infscale.deployment.processes import ports as addresses
from infscale.errors import ConfigError, DeploymentError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.models import reference as models
from infscale.vocabulary import FRAMEWORK_NAMES

pytestmark = pytest.mark.server

START: dict[str, dict[str, Any]] = {"tfserving": {"way": "embedded"}, "torchserve": {}, "triton": {}}
each = pytest.mark.parametrize("framework", FRAMEWORK_NAMES)


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


# ------------------------------------------------------------------------------------------------ ports


@each
def test_another_servers_port_is_named_and_that_server_never_mistaken_for_ours(
    deployed: Callable[[str], Endpoint], framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one answers, and right: it serves the same model. Ours cannot start, and only that counts."""
    other = deployed(framework)
    ports = {"rest_port": port(other.rest), "grpc_port": port(other.grpc)}
    for name, value in ports.items():
        with (
            pytest.raises(ConfigError, match=f"{name}={value} is taken"),
            servers.deploy(framework, "mlp", **(START[framework] | {name: value})),
        ):
            pass
    # as if the other one had taken them just after we looked
    monkeypatch.setattr(addresses, "check_port", lambda _, port, *place: port)
    with (
        pytest.raises(DeploymentError, match=r"ended while starting[\s\S]*end of the server's log[\s\S]*\w"),
        servers.deploy(framework, "mlp", **(START[framework] | ports)),
    ):
        pass
    assert max(check_answers(other).values()) <= 1e-5


# ------------------------------------------------------------------------------------------------- logs


@each
def test_a_full_disk_is_told_before_anything_is_started(framework: str, tmp_path: Path) -> None:
    """Else the server fails at its first line of log, and the log that would say so is empty."""
    for name in ("tfserving-embedded", "torchserve", "triton"):
        (tmp_path / f"{name}.log").symlink_to("/dev/full")
    with (
        pytest.raises(DeploymentError, match=r"cannot write the log .*: .*No space left on device"),
        servers.deploy(framework, "noop", log_folder=tmp_path, **START[framework]),
    ):
        pass


@each
def test_a_log_folder_that_is_none_is_named(framework: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DeploymentError, match=r"cannot write the log .*file/"),
        servers.deploy(framework, "noop", log_folder=tmp_path / "file", **START[framework]),
    ):
        pass


# --------------------------------------------------------------------------------------- large requests


def test_a_body_over_the_servers_limit_is_refused_in_its_words(deployed: Callable[[str], Endpoint]) -> None:
    endpoint, large = deployed("torchserve"), np.zeros((22_000, 784), np.float32)  # 69 MB
    for protocol, message in (("rest", "answered 413: "), ("grpc", "(RESOURCE_EXHAUSTED|CANCELLED): ")):
        with pytest.raises(AnsweredError, match=message):
            predict(endpoint, protocol, large, encoding="raw", timeout_s=60)
        assert predict(endpoint, protocol, models.inputs("mlp", 1), encoding="raw").shape == (1, 10)


# --------------------------------------------------------------------------------------- killed servers


def kill_when_loaded(server: psutil.Process, port: int) -> None:
    def connections() -> int:
        established = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED)
        return sum(getattr(c.laddr, "port", 0) == port for c in established)

    await_true(lambda: connections() >= 8)  # those that the engine opens before a trial
    threading.Event().wait(0.5)  # some requests must have been answered; what is tested does not hang on how many
    server.send_signal(signal.SIGKILL)


@each
def test_a_server_killed_during_a_trial_is_told_in_every_row_and_by_name(framework: str) -> None:
    with servers.deploy(framework, "noop", **START[framework]) as endpoint:
        family = endpoint.processes()
        killer = threading.Thread(target=kill_when_loaded, args=(family[0], port(endpoint.rest)))
        killer.start()
        outcome = trial.run(endpoint, trial.Plan(Arm("rest"), rate_per_s=40, duration_s=3, timeout_s=2))
        killer.join()
        assert len(outcome.samples) == len(outcome.samples["status"].dropna())
        assert {"ok"} < set(outcome.samples["status"]) <= {"ok", "refused", "reset", "timeout"}
        assert outcome.verdict != "VALID"
        with pytest.raises(DeploymentError, match=r"(refused|reset|UNAVAILABLE)[\s\S]*end of the server's log"):
            predict(endpoint, "rest", models.inputs("noop", 1))
        await_true(lambda: not endpoint.processes())
    assert all(gone(process.pid) for process in family)


# ---------------------------------------------------------------------------------------------- workers

DIES_AT_START = "import os\nclass Handler:\n    def initialize(self, context):\n        os._exit(9)\n"
DIES_AT_REQUEST = """
import os
class Handler:
    def initialize(self, context):
        self.initialized = True

    def handle(self, rows, context):
        print("the handler is about to crash", flush=True)
        os._exit(9)
"""


@contextlib.contextmanager
def own(framework: str, path: Path, payload: Path) -> Iterator[Endpoint]:
    with servers.deploy(framework, path, payload=payload) as endpoint:
        yield endpoint


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (DIES_AT_START, r"cannot load the model counts[\s\S]*Backend worker"),
        (DIES_AT_REQUEST, r"[\s\S]*end of the server's log[\s\S]*the handler is about to crash"),
    ],
    ids=["at its start", "at each request"],
)
def test_a_worker_that_crashes_again_and_again_ends_the_start(tmp_path: Path, handler: str, message: str) -> None:
    """TorchServe restarts it for ever, and a prediction hangs."""
    (tmp_path / "body.bin").write_bytes(b"1234")
    mar = archive(tmp_path, handler)
    with pytest.raises(DeploymentError, match=message), own("torchserve", mar, tmp_path / "body.bin"):
        pass


@pytest.mark.parametrize("method", ["initialize", "execute"])
def test_a_triton_model_that_crashes_ends_the_start(tmp_path: Path, method: str) -> None:
    (tmp_path / "adds" / "1").mkdir(parents=True)
    (tmp_path / "adds" / "config.pbtxt").write_text(TRITON_CONFIG)
    crash = f"import os\nclass TritonPythonModel:\n    def {method}(self, _):\n        os._exit(9)\n"
    if method == "initialize":
        crash += "    def execute(self, requests):\n        return []\n"
    (tmp_path / "adds" / "1" / "model.py").write_text(crash)
    np.savez(tmp_path / "rows.npz", n=np.array([[1, 2]]), text=np.array([["a"]]))
    message = r"(?i)(ended while starting[\s\S]*stub|answered 500: .*stub process .* is not healthy)"
    with pytest.raises(DeploymentError, match=message), own("triton", tmp_path, tmp_path / "rows.npz"):
        pass


# ------------------------------------------------------------------------------- errors that do not pass


@pytest.mark.parametrize("key", ["body", "data"])
def test_a_handler_that_fails_over_one_protocol_ends_the_start_with_its_error(tmp_path: Path, key: str) -> None:
    """Over gRPC it is UNAVAILABLE, and was taken for a server that is not there yet."""
    (tmp_path / "body.bin").write_bytes(b"1234")
    mar = archive(tmp_path, ONE_PROTOCOL % key)
    message = r"^(?!.*did not answer)[\s\S]*Prediction failed[\s\S]*end of the server's log[\s\S]*KeyError"
    with pytest.raises(AnsweredError, match=message), own("torchserve", mar, tmp_path / "body.bin"):
        pass


def test_an_archive_that_is_none_ends_the_start(tmp_path: Path) -> None:
    """TorchServe goes on without the model, and says 404 for ever."""
    (tmp_path / "body.bin").write_bytes(b"1234")
    mar = tmp_path / "counts.mar"
    mar.write_bytes(b"no archive")
    message = r"cannot load the model counts[\s\S]*end of the server's log"
    with pytest.raises(DeploymentError, match=message), own("torchserve", mar, tmp_path / "body.bin"):
        pass
