"""If these fail, a user with Docker or the real binary is served by another server, or keeps containers for ever.

Neither the real binary nor a Docker engine is here: the embedded server stands in as ``tensorflow_model_server``,
and :mod:`helpers.docker_stand_in` for the engine. What is tested is the launcher.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import docker_stand_in
from helpers.docker_stand_in import Docker
from helpers.waiting import await_true
from infscale import deployment as servers
from infscale.deployment import tfserving
from infscale.deployment.endpoint import check_answers
from infscale.deployment.processes import docker, ports
from infscale.errors import DeploymentError, MissingError

pytestmark = pytest.mark.server

STAND_IN = f"""#!/bin/sh
[ "$1" = --version ] && {{ echo "TensorFlow ModelServer: stand-in"; exit 0; }}
exec {sys.executable} -m infscale.servers.embedded "$@"
"""


def program(folder: Path, text: str = STAND_IN) -> Path:
    path = folder / "tensorflow_model_server"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder first on a PATH that has neither the binary nor Docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    monkeypatch.delenv("TENSORFLOW_MODEL_SERVER", raising=False)
    return folder


@pytest.fixture
def engine(bin_folder: Path) -> Iterator[Docker]:
    with docker_stand_in.docker(bin_folder) as engine:
        yield engine


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_the_binary_on_path_comes_before_docker(bin_folder: Path, engine: Docker) -> None:
    path = program(bin_folder)
    with servers.deploy("tfserving", "mlp") as endpoint:
        assert endpoint.implementation == "tfserving"
        assert endpoint.version == "TensorFlow ModelServer: stand-in"
        assert endpoint.command[0] == str(path)
        assert max(check_answers(endpoint).values()) <= 1e-5
    assert not engine.started


def test_a_named_binary_that_is_none_is_not_passed_over(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a user who named the real one would measure the embedded one."""
    monkeypatch.setenv("TENSORFLOW_MODEL_SERVER", str(bin_folder / "none"))
    with pytest.raises(MissingError, match=r"TENSORFLOW_MODEL_SERVER='.*none' is no program"), tfserving.deploy("mlp"):
        pass


def test_a_binary_that_cannot_run_is_named(bin_folder: Path) -> None:
    path = program(bin_folder, "\x7fELF but not really")
    with pytest.raises(DeploymentError, match=f"{path} --version"), tfserving.deploy("mlp"):
        pass


def test_the_binarys_own_refusal_is_passed_on(bin_folder: Path) -> None:
    program(bin_folder, "#!/bin/sh\necho 'unknown argument: --rest_api_port' >&2\nexit 255\n")
    with (
        pytest.raises(DeploymentError, match=r"exit code 255\)[\s\S]*unknown argument: --rest_api_port"),
        tfserving.deploy("mlp", way="binary"),
    ):
        pass


def test_docker_serves_with_ports_on_loopback_and_the_model_read_only(engine: Docker) -> None:
    with servers.deploy("tfserving", "mlp") as endpoint:
        assert endpoint.implementation == "tfserving-docker"
        assert endpoint.label == "TensorFlow Serving (Docker)"
        assert endpoint.version == "tensorflow/serving@sha256:0123456789ab"
        assert max(check_answers(endpoint).values()) <= 1e-5
        (container,) = engine.started
        assert container.image == "tensorflow/serving"
        ports = {address.rpartition(":")[2] for address in (endpoint.rest, endpoint.grpc)}
        assert set(container.all("-p")) == {f"127.0.0.1:{port}:{port}" for port in ports}
        assert container.all("-v") == [f"{tfserving.export('mlp').resolve()}:/models/mlp:ro"]
        assert "--model_base_path=/models/mlp" in container.flags
        assert ["run", "--rm", "--name", container.name] == next(c for c in engine.calls if c[0] == "run")[:4]
        assert container.process.pid in [p.pid for p in endpoint.processes()], "the server's own CPU is not seen"
        assert list(engine.containers) == [container.name]
    assert engine.containers == {}
    assert container.process.poll() is not None


def test_an_image_that_is_not_here_is_fetched_first(engine: Docker) -> None:
    engine.has_image = False
    with tfserving.deploy("noop", way="docker"):
        assert ["pull", "tensorflow/serving"] in engine.calls


def test_an_image_that_cannot_be_fetched_is_an_error_with_dockers_text(
    engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.has_image = False
    monkeypatch.setattr(tfserving, "IMAGE", "tensorflow/no-such-image")
    with (
        pytest.raises(DeploymentError, match=r"docker pull[\s\S]*pull access denied for tensorflow/no-such-image"),
        tfserving.deploy("mlp", way="docker"),
    ):
        pass


OWNER = """
import sys, time
from infscale.deployment import tfserving
from infscale.deployment.processes import docker, ports
with tfserving.deploy("noop", way="docker") as endpoint:
    print(endpoint.rest, flush=True)
    time.sleep(600)
"""


def test_a_container_does_not_outlive_an_owner_killed_by_kill_9(engine: Docker) -> None:
    """A container is no child of ours: only its removal by name ends it."""
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline().rpartition(":")[2])
        assert listens(port)
        owner.send_signal(signal.SIGKILL)
    await_true(lambda: not engine.containers and not listens(port))
    (container,) = engine.started
    assert ["rm", "-f", container.name] in engine.calls


def test_a_container_that_dies_is_noticed_and_removed(engine: Docker) -> None:
    with tfserving.deploy("noop", way="docker") as endpoint:
        (container,) = engine.started
        owned = {p.pid for p in endpoint.processes()}
        container.process.kill()
        await_true(lambda: not endpoint.processes())
        assert container.process.pid in owned
    assert engine.containers == {}


def test_dockers_taken_port_is_an_error_though_another_server_answers_there(
    engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our check and Docker's start somebody took the ports, with the same model even."""
    with tfserving.deploy("noop", way="embedded") as other:
        rest, grpc = (int(address.rpartition(":")[2]) for address in (other.rest, other.grpc))
        monkeypatch.setattr(ports, "check_port", lambda _, port, *place: port)
        with (
            pytest.raises(DeploymentError, match=r"ended while starting[\s\S]*port is already allocated"),
            tfserving.deploy("noop", way="docker", rest_port=rest, grpc_port=grpc),
        ):
            pass


def test_a_docker_client_without_a_daemon_is_no_docker(bin_folder: Path) -> None:
    client = bin_folder / "docker"
    client.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    client.chmod(0o755)
    assert docker.docker() is None
    with pytest.raises(MissingError, match="no Docker daemon answers"), tfserving.deploy("mlp", way="docker"):
        pass
