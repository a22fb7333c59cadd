"""If these fail, a user cannot measure a server or a model of their own, or measures it with wrong requests."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from helpers.artifacts import (
    ONE_PROTOCOL,
    SAVED_MODEL,
    TRITON_CONFIG,
    TRITON_MODEL,
    TRITON_TELLS,
    TRITON_TELLS_CONFIG,
    archive,
)
from infscale import deployment as servers
from infscale.deployment import tfserving, torchserve
from infscale.deployment.client import AnsweredError, UnansweredError
from infscale.deployment.counters import statistics
from infscale.deployment.endpoint import Endpoint, ask
from infscale.deployment.own import requests as own
from infscale.deployment.own.attach import attach
from infscale.errors import ConfigError, DeploymentError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.payloads.messages import tensorflow, triton
from infscale.payloads.tensors import Input


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("saved") / "mine"
    subprocess.run([sys.executable, "-c", SAVED_MODEL, str(base / "7")], check=True, capture_output=True)
    return base


@pytest.fixture(scope="module")
def running(saved_model: Path, server_process: None) -> Iterator[Endpoint]:
    """A server that already runs: TensorFlow Serving's API before a SavedModel that this project does not know."""
    with servers.deploy("tfserving", saved_model, way="embedded") as endpoint:
        yield endpoint


def attached(running: Endpoint, **options: Any) -> Any:
    given = {"model": "mine", "rest": running.rest, "grpc": running.grpc}
    return attach("tfserving", **(given | options))


def outputs(endpoint: Endpoint, protocol: str, **options: Any) -> Any:
    """The outputs of a pool's first request, by name."""
    body = ask(endpoint, endpoint.payload(protocol, **options))
    if protocol == "rest":
        return json.loads(body)["outputs" if b'"outputs"' in body else "predictions"]
    return tensorflow["PredictResponse"].FromString(body).outputs


# ------------------------------------------------------------------------------------------- attaching


def test_requests_are_made_up_from_the_metadata_of_either_protocol(running: Endpoint) -> None:
    with attached(running) as both, attached(running, rest="") as grpc_only, attached(running, grpc="") as rest_only:
        for endpoint in (both, rest_only):
            told = outputs(endpoint, "rest", batch=4)
            assert len(told["sum"]) == 4
            assert all(text.startswith("TEXT-") for text in told["label"])
        for endpoint in (both, grpc_only):
            assert len(outputs(endpoint, "grpc", batch=4)["sum"].float_val) == 4
        assert rest_only.payload("rest").bodies == both.payload("rest").bodies
        assert grpc_only.payload("grpc").bodies == both.payload("grpc").bodies
        assert len(set(both.payload("grpc").bodies)) == 256, "equal bodies would be answered from a cache"


def test_both_protocols_carry_the_same_numbers(running: Endpoint) -> None:
    with attached(running) as endpoint:
        rest, grpc = outputs(endpoint, "rest", batch=8), outputs(endpoint, "grpc", batch=8)
        np.testing.assert_allclose(rest["sum"], list(grpc["sum"].float_val), rtol=1e-6)
        assert [text.encode() for text in rest["label"]] == list(grpc["label"].string_val)


def test_an_attached_server_is_never_stopped_nor_called_by_another_name(running: Endpoint) -> None:
    before = {p.pid for p in running.processes()}
    with attached(running) as endpoint:
        assert endpoint.processes() == []
        assert endpoint.implementation == "tfserving-attached"
        assert "attached" in endpoint.label
    assert {p.pid for p in running.processes()} == before
    assert all(psutil.pid_exists(pid) for pid in before)


def test_a_trial_loads_an_attached_server(running: Endpoint) -> None:
    with attached(running) as endpoint:
        for protocol in ("rest", "grpc"):
            plan = trial.Plan(Arm(protocol), rate_per_s=40, duration_s=1)
            outcome = trial.run(endpoint, plan)
            assert set(outcome.samples["status"]) == {"ok"}
            assert outcome.manifest.host.same_host is True
            assert outcome.manifest.implementation == "tfserving-attached"


def test_trials_of_two_attached_servers_are_not_sent_each_others_requests(running: Endpoint) -> None:
    plan = trial.Plan(Arm("rest"), rate_per_s=40, duration_s=0.5)
    for signature in ("", "half"):
        with attached(running, signature=signature) as endpoint:
            assert set(trial.run(endpoint, plan).samples["status"]) == {"ok"}


def test_a_server_elsewhere_is_not_called_the_same_host(running: Endpoint) -> None:
    assert running.same_host()
    assert replace(running, rest="localhost:80").same_host()
    assert replace(running, rest="[::1]:80").same_host()
    assert not replace(running, grpc="192.0.2.1:8500").same_host()
    assert not replace(running, grpc="no-such-host.invalid:8500").same_host()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "9"}, r"404: [\s\S]*Servable not found for request: Specific\(mine, 9\)"),
        ({"version": "9", "rest": ""}, r"NOT_FOUND: Servable not found for request: Specific\(mine, 9\)"),
        ({"signature": "none"}, r'400: [\s\S]*signature name: \\"none\\" not found'),
        ({"signature": "none", "rest": ""}, r'FAILED_PRECONDITION: Serving signature key "none" not found'),
        ({"model": "other"}, r"404: [\s\S]*Servable not found for request: Latest\(other\)"),
    ],
    ids=["version, REST", "version, gRPC", "signature, REST", "signature, gRPC", "model"],
)
def test_the_servers_own_error_is_passed_on(running: Endpoint, options: dict[str, str], message: str) -> None:
    with pytest.raises(AnsweredError, match=message), attached(running, **options):
        pass


def test_a_version_and_a_signature_that_exist_are_used(running: Endpoint) -> None:
    with attached(running, version="7", signature="half") as endpoint:
        assert np.array(outputs(endpoint, "rest", batch=3)).shape == (3, 2)
        assert len(outputs(endpoint, "grpc", batch=3)["half"].double_val) == 6


@pytest.mark.parametrize(
    ("framework", "options", "message"),
    [
        ("tfserving", {}, r"needs an address; accepted: host:port"),
        ("tfserving", {"rest": "ftp://example.org:21"}, r"rest='ftp://.*accepted: host:port, or https://host:port"),
        ("tfserving", {"grpc": "grpcs://example.org:0"}, r"grpc='grpcs://.*accepted: host:port, or grpcs://host:port"),
        ("tfserving", {"rest": "http://example.org:80/v1"}, r"rest='http://.*/v1' is not an address"),
        ("tfserving", {"rest": "127.0.0.1:1", "ca": "/none"}, r"ca='/none' is for TLS; accepted: addresses such as"),
        ("tfserving", {"rest": "https://127.0.0.1:1", "ca": "/none"}, r"ca='/none'.* cannot be read: No such file"),
        ("tfserving", {"rest": "127.0.0.1:1", "headers": {"a b": "c"}}, r"headers: 'a b' is not a header"),
        ("tfserving", {"rest": "127.0.0.1:1", "headers": {"a": "b\r\nc: d"}}, r"headers: 'a' is not a header"),
        ("tfserving", {"rest": "127.0.0.1:1", "headers": {"A": "b", "a": "c"}}, r"headers: one of A, a is given twice"),
        ("tfserving", {"rest": "127.0.0.1:1", "headers": {"Content-Type": "x"}}, r"Content-Type is set by the engine"),
        ("tfserving", {"rest": "127.0.0.1:1", "answer_timeout_s": 0}, r"answer_timeout_s=0 is not a duration"),
        ("tfserving", {"rest": "127.0.0.1"}, r"rest='127.0.0.1' is not an address"),
        ("tfserving", {"rest": "127.0.0.1:1", "version": "one"}, r"version='one'.*numbers"),
        ("torchserve", {"rest": "127.0.0.1:1"}, r"payload=None: TorchServe does not tell.*accepted: a payload file"),
        ("torchserve", {"rest": "127.0.0.1:1", "signature": "s"}, "payload=None"),
        ("triton", {"rest": "127.0.0.1:1", "signature": "s"}, "Triton's models have no signatures"),
        ("tfserving", {"rest": "127.0.0.1:1", "payload": "/none"}, r"payload='/none' does not exist"),
        ("onnx", {"rest": "127.0.0.1:1"}, r"framework='onnx'.*accepted: tfserving, torchserve, triton"),
    ],
)
def test_bad_values_are_named_before_anything_is_sent(framework: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message), attach(framework, model="m", **options):
        pass


def test_nobody_at_the_address_is_an_error() -> None:
    with pytest.raises(DeploymentError, match="Connection refused"), attach("triton", model="m", rest="127.0.0.1:1"):
        pass


def test_a_server_of_another_kind_is_not_taken_for_one(running: Endpoint) -> None:
    with (
        pytest.raises(DeploymentError, match=r"GET http://.*/v2/models/m answered 404"),
        attach("triton", model="m", rest=running.rest),
    ):
        pass


# --------------------------------------------------------------------------------------- payload files


@dataclass
class Sent:
    file: str
    write: Any
    signature: str = ""


FILES = [
    Sent("rows.npy", lambda p: np.save(p, np.arange(20, dtype=np.int32).reshape(10, 2)), "half"),
    Sent("body.json", lambda p: p.write_text('{"signature_name": "half", "instances": [[0, 1], [2, 3]]}'), "half"),
    Sent("body.json", lambda p: p.write_text('{"signature_name": "half", "instances": [{"n": [0, 1]}]}'), "half"),
    Sent("body.json", lambda p: p.write_text('{"signature_name": "half", "inputs": {"n": [[0, 1]]}}'), "half"),
    Sent("any.npz", lambda p: np.savez(p, x=np.linspace(0, 1, 12).reshape(2, 2, 3)), "any"),
]


@pytest.mark.parametrize("sent", FILES, ids=["npy", "rows", "named rows", "columns", "npz of any rank"])
def test_a_payload_file_is_sent_over_both_protocols(running: Endpoint, tmp_path: Path, sent: Sent) -> None:
    sent.write(tmp_path / sent.file)
    with attached(running, payload=tmp_path / sent.file, signature=sent.signature) as endpoint:
        rest = np.array(outputs(endpoint, "rest"), float)
        (tensor,) = outputs(endpoint, "grpc").values()
        np.testing.assert_allclose(list(tensor.double_val), rest.ravel())
        if sent.file.endswith(".json"):
            assert endpoint.payload("rest").bodies == [(tmp_path / sent.file).read_bytes()], "sent as it stands"


def test_grpc_runs_the_signature_and_the_bytes_of_a_json_file(running: Endpoint, tmp_path: Path) -> None:
    """The file alone says what runs; text in base64 is bytes, and keeps NULs at its end."""
    file = tmp_path / "body.json"
    file.write_text('{"signature_name": "half", "instances": [[0, 1], [2, 3]]}')
    with attached(running, payload=file) as endpoint:
        halves = np.array(outputs(endpoint, "rest"), float)
        np.testing.assert_allclose(list(outputs(endpoint, "grpc")["half"].double_val), halves.ravel())
    file.write_text('{"instances": [{"x": [1, 2, 3], "label": {"b64": "YQA="}}, {"x": [0, 0, 1], "label": "b"}]}')
    with attached(running, payload=file) as endpoint:
        grpc = outputs(endpoint, "grpc")
        told = zip(grpc["sum"].float_val, grpc["label"].string_val, strict=True)
        rows = [(row["sum"], row["label"].encode()) for row in outputs(endpoint, "rest")]
        assert list(told) == rows == [(6.0, b"A\0"), (1.0, b"B")]


@pytest.mark.parametrize("address", ["rest", "grpc"])
def test_another_signature_than_a_json_file_s_is_refused(running: Endpoint, tmp_path: Path, address: str) -> None:
    """REST would run the one and gRPC the other."""
    files = {'{"signature_name": "half", "instances": [[0, 1]]}': "half", '{"inputs": {"x": []}}': "serving_default"}
    for text, runs in files.items():
        (tmp_path / "body.json").write_text(text)
        one = {"rest": "", "grpc": "", "model": "mine", address: getattr(running, address)}
        with (
            pytest.raises(ConfigError, match=rf"signature='any': .*body\.json' .* runs '{runs}'"),
            attach("tfserving", **one, payload=tmp_path, signature="any"),
        ):
            pass


def test_a_json_file_is_sent_as_it_stands_also_beside_arrays(running: Endpoint, tmp_path: Path) -> None:
    text = '{"signature_name": "half",   "instances": [[0, 1]]}'
    (tmp_path / "0.json").write_text(text)
    np.save(tmp_path / "1.npy", np.array([[2, 3], [4, 5]], np.int32))
    with attached(running, payload=tmp_path, signature="half") as endpoint:
        assert endpoint.payload("rest").bodies[0] == text.encode()
        assert [len(endpoint.payload(protocol).bodies) for protocol in ("rest", "grpc")] == [3, 3]


def test_a_folder_is_a_pool_of_requests(running: Endpoint, tmp_path: Path) -> None:
    for number in range(3):
        body = {"signature_name": "half", "instances": [[number, number]]}
        (tmp_path / f"{number}.json").write_text(json.dumps(body))
    with attached(running, payload=tmp_path, signature="half") as endpoint:
        assert len(set(endpoint.payload("rest").bodies)) == 3
        assert len(set(endpoint.payload("grpc").bodies)) == 3


def test_a_wrong_type_is_refused_by_the_framework_in_its_own_words(running: Endpoint, tmp_path: Path) -> None:
    """A file's type is not converted: what the user has is what is measured."""
    np.save(tmp_path / "rows.npy", np.zeros((4, 2), np.float64))
    options = {"payload": tmp_path / "rows.npy", "signature": "half"}
    message = r"INVALID_ARGUMENT: Expects arg\[0\] to be int32 but double is provided"
    with pytest.raises(AnsweredError, match=message), attached(running, rest="", **options):
        pass


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.npy", b"no array", r"rows\.npy' cannot be read"),
        ("rows.npz", b"PK\x03\x04 truncated", r"rows\.npz' cannot be read"),
        ("rows.csv", b"1,2", r"rows\.csv' cannot be read.*accepted: \.npy"),
        ("body.json", b"{", r"body\.json' is no JSON"),
        ("body.json", b'{"rows": []}', r"not a request of TF Serving API.*accepted: \{\"instances\""),
        ("body.json", b'{"signature_name": "half", "instances": [[1.5, 2]]}', r"'n' takes int32, and not 1\.5"),
        ("body.json", b'{"signature_name": "half", "instances": []}', r"'instances' is \[\] and holds no rows"),
        ("body.json", b'{"signature_name": "half", "instances": [[1, 1e400]]}', r"1e400 is beyond the range"),
    ],
)
def test_a_payload_file_that_is_none_is_named(
    running: Endpoint, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with (
        pytest.raises(ConfigError, match=message),
        attached(running, payload=tmp_path / name, signature="half", rest=""),
    ):
        pass


def test_a_batch_that_the_file_cannot_give_is_named(running: Endpoint, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((4, 2), np.int32))
    with attached(running, payload=tmp_path / "rows.npy", signature="half") as endpoint:
        assert len(endpoint.payload("rest", batch=2).bodies) == 2
        with pytest.raises(ConfigError, match=r"batch=5 .*4 rows.*accepted: 1 to 4"):
            endpoint.payload("rest", batch=5)
        with pytest.raises(ConfigError, match=r"encoding='raw'.*accepted: json"):
            endpoint.payload("rest", encoding="raw")


def test_inputs_of_any_shape_are_not_made_up(running: Endpoint) -> None:
    with (
        pytest.raises(ConfigError, match=r"input 'x' takes the shape any.*give a payload file"),
        attached(running, signature="any"),
    ):
        pass


def test_an_input_without_a_batch_axis_gets_one_row_a_request() -> None:
    shapes = {"scalar": Input("float32", ()), "fixed": Input("int64", (2, 3))}
    (first, *rest) = own._cut(own._generate(shapes, 1), shapes, 1)
    assert {name: array.shape for name, array in first.items()} == {"scalar": (), "fixed": (2, 3)}
    assert len(rest) == own.POOL - 1


# ---------------------------------------------------------------------------------------- own artifacts


@pytest.mark.server
def test_an_archive_of_ones_own_is_served_and_loaded(tmp_path: Path) -> None:
    """Its handler knows nothing of this project; the payload file's bytes are its body, over both protocols."""
    payload = tmp_path / "body.bin"
    payload.write_bytes(b"12345")
    with servers.deploy("torchserve", archive(tmp_path), payload=payload) as endpoint:
        assert endpoint.model == "counts"
        for protocol in ("rest", "grpc"):
            assert b'"bytes": 5' in ask(endpoint, endpoint.payload(protocol))
            plan = trial.Plan(Arm(protocol), rate_per_s=20, duration_s=0.5)
            assert set(trial.run(endpoint, plan).samples["status"]) == {"ok"}
        addresses: dict[str, Any] = {"rest": endpoint.rest, "grpc": endpoint.grpc}
        with attach("torchserve", model="counts", payload=payload, version="1.0", **addresses) as there:
            assert there.version == endpoint.version
        with (
            pytest.raises(AnsweredError, match=r"404[\s\S]*Model version: 9.9 does not exist for model: counts"),
            attach("torchserve", model="counts", payload=payload, version="9.9", **addresses),
        ):
            pass


@pytest.mark.server
@pytest.mark.parametrize(("file", "served"), [("renamed.mar", "renamed"), ("my modèl..v2.mar", "my_mod_l..v2")])
def test_an_archive_is_served_under_its_files_name_whatever_its_manifest_says(
    tmp_path: Path, file: str, served: str
) -> None:
    """TorchServe took the manifest's name, and the start waited for another."""
    (tmp_path / "body.bin").write_bytes(b"12345")
    renamed = archive(tmp_path, name="orig").rename(tmp_path / file)
    with servers.deploy("torchserve", renamed, payload=tmp_path / "body.bin") as endpoint:
        assert endpoint.model == served
        for protocol in ("rest", "grpc"):
            assert b'"bytes": 5' in ask(endpoint, endpoint.payload(protocol))
        assert statistics(endpoint)["requests"] > 0


@pytest.mark.server
def test_a_payload_that_the_users_own_model_refuses_ends_the_start_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "body.bin").write_bytes(b"bad")
    message = r"answered 503: [\s\S]*Prediction failed[\s\S]*end of the server's log[\s\S]*takes no bad body"
    with (
        pytest.raises(DeploymentError, match=message),
        servers.deploy("torchserve", archive(tmp_path), payload=tmp_path / "body.bin"),
    ):
        pass


@pytest.mark.server
def test_a_triton_repository_of_ones_own_is_served_and_loaded(tmp_path: Path) -> None:
    (tmp_path / "adds" / "1").mkdir(parents=True)
    (tmp_path / "adds" / "config.pbtxt").write_text(TRITON_CONFIG)
    (tmp_path / "adds" / "1" / "model.py").write_text(TRITON_MODEL)
    np.savez(tmp_path / "rows.npz", n=np.array([[1, 2], [3, 4]]), text=np.array([["a"], ["bcd"]]))
    with servers.deploy("triton", tmp_path, payload=tmp_path / "rows.npz") as endpoint:
        assert endpoint.model == "adds"
        told = json.loads(ask(endpoint, endpoint.payload("rest", batch=2)))["outputs"]
        assert told[0]["data"] == [4, 10]
        answer = triton["ModelInferResponse"].FromString(ask(endpoint, endpoint.payload("grpc", batch=2)))
        assert np.frombuffer(answer.raw_output_contents[0], "<i8").tolist() == [4, 10]
        with attach("triton", model="adds", rest=endpoint.rest, grpc=endpoint.grpc) as made_up:
            assert made_up.version == endpoint.version
            plan = trial.Plan(Arm("grpc"), rate_per_s=20, duration_s=0.5)
            assert set(trial.run(made_up, plan).samples["status"]) == {"ok"}
        with attach("triton", model="adds", grpc=endpoint.grpc) as by_grpc:
            assert by_grpc.payload("grpc").bodies == made_up.payload("grpc").bodies
        with (
            pytest.raises(AnsweredError, match=r"answered 404: .*'adds' version 9 is not found"),
            attach("triton", model="adds", rest=endpoint.rest, version="9"),
        ):
            pass


@pytest.mark.server
def test_triton_reads_the_same_from_json_over_both_protocols(tmp_path: Path) -> None:
    """Parameters, the choice of outputs, and texts that end in NUL: the model tells what has come."""
    (tmp_path / "tells" / "1").mkdir(parents=True)
    (tmp_path / "tells" / "config.pbtxt").write_text(TRITON_TELLS_CONFIG)
    (tmp_path / "tells" / "1" / "model.py").write_text(TRITON_TELLS)
    given = {"yes": True, "no": False, "n": 3, "s": "é"}
    texts = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a\0\0", "é"]}
    body = {"parameters": given, "inputs": [texts], "outputs": [{"name": "told"}]}
    (tmp_path / "body.json").write_text(json.dumps(body))
    with servers.deploy("triton", tmp_path, payload=tmp_path / "body.json") as endpoint:
        rest = json.loads(ask(endpoint, endpoint.payload("rest")))["outputs"]
        grpc = triton["ModelInferResponse"].FromString(ask(endpoint, endpoint.payload("grpc")))
        assert [one["name"] for one in rest] == [one.name for one in grpc.outputs] == ["told"]
        told = json.loads(rest[0]["data"][0])
        assert told == json.loads(grpc.raw_output_contents[0][4:])
        assert told == {"parameters": given, "lengths": [3, 2]}


HALF_CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP16 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP16 dims: [ 2 ] } ]
"""
HALF_MODEL = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [utils.InferenceResponse([utils.Tensor("y", rows * 2)]) for rows in inputs]
"""


@pytest.mark.server
def test_a_model_that_one_protocol_cannot_carry_is_served_over_the_other(tmp_path: Path) -> None:
    """Triton takes no fp16 in JSON. Its counters are read over HTTP nevertheless."""
    (tmp_path / "half" / "1").mkdir(parents=True)
    (tmp_path / "half" / "config.pbtxt").write_text(HALF_CONFIG)
    (tmp_path / "half" / "1" / "model.py").write_text(HALF_MODEL)
    with pytest.raises(AnsweredError, match="FP16"), servers.deploy("triton", tmp_path):
        pass
    with servers.deploy("triton", tmp_path, protocols=("grpc",)) as endpoint:
        assert endpoint.protocols() == ("grpc",)
        outcome = trial.run(endpoint, trial.Plan(Arm("grpc"), rate_per_s=20, duration_s=0.5))
        assert set(outcome.samples["status"]) == {"ok"}
        assert statistics(endpoint)["requests"] > 0
        with pytest.raises(ConfigError, match="no rest address"):
            trial.run(endpoint, trial.Plan(Arm("rest"), rate_per_s=20, duration_s=0.5))


@pytest.mark.server
@pytest.mark.parametrize(("key", "protocol"), [("body", "rest"), ("data", "grpc")])
def test_a_handler_that_takes_one_protocol_only_is_served_over_it(tmp_path: Path, key: str, protocol: str) -> None:
    (tmp_path / "body.bin").write_bytes(b"12345")
    mar = archive(tmp_path, ONE_PROTOCOL % key)
    with servers.deploy("torchserve", mar, payload=tmp_path / "body.bin", protocols=(protocol,)) as endpoint:
        assert b'"bytes": 5' in ask(endpoint, endpoint.payload(protocol))


@pytest.mark.parametrize("framework", ["tfserving", "torchserve", "triton"])
@pytest.mark.parametrize("protocols", [(), ("soap",), ("grpc", "soap"), "soap", None])
def test_protocols_that_are_none_are_named_before_anything_is_started(framework: str, protocols: Any) -> None:
    with pytest.raises(ConfigError, match=r"protocols=.*accepted: "):
        servers.deploy(framework, "mlp", protocols=protocols)


SLOW_HANDLER = """
import time

class Handler:
    def initialize(self, context):
        self.initialized = True

    def handle(self, rows, context):
        time.sleep(2)
        return [{"bytes": 1} for row in rows]
"""


@pytest.mark.server
def test_a_slow_answer_is_waited_for_as_long_as_the_user_says(tmp_path: Path) -> None:
    (tmp_path / "body.bin").write_bytes(b"12345")
    options: dict[str, Any] = {"payload": tmp_path / "body.bin"}
    mar = archive(tmp_path, SLOW_HANDLER)
    with servers.deploy("torchserve", mar, answer_timeout_s=30, **options) as endpoint:
        assert endpoint.timeout_s == 30
        there = {"model": "counts", "rest": endpoint.rest, **options}
        with (
            pytest.raises(UnansweredError, match="timed out"),
            attach("torchserve", answer_timeout_s=0.5, **there),
        ):
            pass
        with attach("torchserve", answer_timeout_s=30, **there) as attached_there:
            assert attached_there.timeout_s == 30


@pytest.mark.server
@pytest.mark.parametrize("framework", ["tfserving", "torchserve", "triton"])
def test_a_start_takes_as_long_as_the_user_says(framework: str) -> None:
    """A large model loads for minutes; here the limit is so short that no server keeps it."""
    with (
        pytest.raises(DeploymentError, match="did not answer a prediction within 0 s"),
        servers.deploy(framework, "noop", start_timeout_s=0.01),
    ):
        pass


@pytest.mark.parametrize("framework", ["tfserving", "torchserve", "triton"])
@pytest.mark.parametrize("name", ["start_timeout_s", "answer_timeout_s"])
@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf, "70", None])
def test_a_limit_that_is_no_time_is_named_before_anything_is_started(framework: str, name: str, limit: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name}=.* is not a duration"):
        servers.deploy(framework, "mlp", **{name: limit})


def test_the_servers_own_limits_are_not_below_those_of_the_user(tmp_path: Path) -> None:
    """TorchServe gives a worker up, and TensorFlow Serving a request over REST, before the user's time is over."""
    properties = torchserve._properties(tmp_path, "127.0.0.1", "m", [1, 2, 3, 4, 5, 6], 1, 10, (70.5, 5.0))
    assert "default_startup_timeout=71\n" in properties
    assert "default_response_timeout=60\n" in properties
    limits = {seconds: tfserving._Model("m", tmp_path, 1, 2, seconds).flags(tmp_path) for seconds in (10.0, 45.0)}
    assert not any("timeout" in flag for flag in limits[10.0])
    assert "--rest_api_timeout_in_ms=45000" in limits[45.0]


@pytest.mark.parametrize(
    ("framework", "message"),
    [
        ("tfserving", r"no version in .*1/saved_model\.pb"),
        ("triton", r"its models are none; accepted: a repository of one model"),
    ],
)
def test_a_folder_that_holds_no_model_is_named(tmp_path: Path, framework: str, message: str) -> None:
    with pytest.raises((ConfigError, DeploymentError), match=message), servers.deploy(framework, tmp_path):
        pass


def test_an_artifact_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none' does not exist"), servers.deploy("tfserving", tmp_path / "none"):
        pass


def test_a_payload_for_a_reference_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"payload='.*' is for a model of your own; mlp is a reference model"):
        servers.deploy("tfserving", "mlp", payload=tmp_path)
