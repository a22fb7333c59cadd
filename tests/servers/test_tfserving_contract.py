"""The embedded server answers what TensorFlow Serving's contract says, over REST and gRPC.

One server runs for most rows. Its one model has a signature for each kind of tensor, so that a row of a table is a
request and its answer.
"""

import gzip
import json
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import requests
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from helpers.embedded_server import (
    START_SECONDS,
    Server,
    broken_model,
    floats,
    predict_request,
    run_command,
    spec,
    until,
    work_for,
)
from infscale.deployment.processes.ports import free_ports
from infscale.deployment.tfserving import export
from infscale.servers.embedded.api import jsonin, jsonout, jsonvalues
from infscale.servers.embedded.runtime import joining, running, servable, tensors

TYPES = ("float64", "int32", "int64", "int8", "uint8", "uint32", "uint64", "bool", "string", "float16")
SIGNATURES: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "serving_default": (lambda x: {"y": x / 2 + 2}, [spec("x")]),
    "pairs": (lambda x: {"y": tf.matmul(x, [[1.0, 0.0], [0.0, 10.0]])}, [spec("x", (None, 2))]),
    "two": (lambda a, b: {"sum": a + b, "difference": a - b}, [spec("a"), spec("b")]),
    "text": (lambda s: {"same": s, "raw_bytes": tf.strings.upper(s)}, [spec("s", dtype=tf.string)]),
    "slow": (work_for, [spec("seconds", ())]),
    "echo": (lambda x: {"y": tf.identity(x)}, [spec("x", None)]),
    **{name: (lambda x: {"y": tf.identity(x)}, [spec("x", None, tf.dtypes.as_dtype(name))]) for name in TYPES},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with version 123 of a model that has a signature for each kind of tensor."""
    base = tmp_path_factory.mktemp("everything")
    made = {name: tf.function(run).get_concrete_function(*specs) for name, (run, specs) in SIGNATURES.items()}
    tf.saved_model.save(tf.Module(), str(base / "123"), signatures=made)
    return base


@pytest.fixture(scope="module")
def server(saved: Path, tmp_path_factory: pytest.TempPathFactory, server_process: None) -> Iterator[Server]:
    running = Server(saved, tmp_path_factory.mktemp("log") / "server.log", "--rest_api_timeout_in_ms=1500")
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


# --- predictions over REST, byte for byte ---------------------------------------------------------------------------

PREDICT = "/v1/models/m:predict"
ONE_LINE = '{\n    "predictions": [%s\n    ]\n}'

ROWS_AND_COLUMNS = [
    ("a row each", {"instances": [2.0, 3.0]}, ONE_LINE % "3.0, 3.5"),
    ("integers for floats", {"instances": [2, 3]}, ONE_LINE % "3.0, 3.5"),
    ("named rows", {"instances": [{"x": 2.0}, {"x": 3.0}]}, ONE_LINE % "3.0, 3.5"),
    ("columns", {"inputs": [2.0, 3.0]}, '{\n    "outputs": [\n        3.0,\n        3.5\n    ]\n}'),
    ("named columns", {"inputs": {"x": [2.0]}}, '{\n    "outputs": [\n        3.0\n    ]\n}'),
    ("named signature", {"signature_name": "serving_default", "instances": [2.0]}, ONE_LINE % "3.0"),
    (
        "vectors in rows",
        {"signature_name": "pairs", "instances": [[1, 2], [3, 4]]},
        ONE_LINE % "[1.0, 20.0], [3.0, 40.0]",
    ),
    (
        "integers that a float rounds",
        {"signature_name": "pairs", "instances": [[1435774380, 1]]},
        ONE_LINE % "[1.4357743e+09, 10.0]",
    ),
    (
        "an integer that a float rounds",
        {"signature_name": "echo", "inputs": 16777217},
        '{\n    "outputs": 16777216.0\n}',
    ),
    (
        "an integer that a double rounds",
        {"signature_name": "float64", "inputs": 2**53 + 1},
        '{\n    "outputs": 9007199254740992.0\n}',
    ),
    (
        "vectors in columns",
        {"signature_name": "pairs", "inputs": [[1, 2]]},
        '{\n    "outputs": [\n        [\n            1.0,\n            20.0\n        ]\n    ]\n}',
    ),
    (
        "several outputs in rows",
        {"signature_name": "two", "instances": [{"a": 1.0, "b": 2.0}]},
        ONE_LINE % '\n        {\n            "difference": -1.0,\n            "sum": 3.0\n        }',
    ),
    (
        "several outputs in columns",
        {"signature_name": "two", "inputs": {"a": [1.0], "b": [2.0]}},
        '{\n    "outputs": {\n        "difference": [\n            -1.0\n        ],\n'
        '        "sum": [\n            3.0\n        ]\n    }\n}',
    ),
    (
        "strings, and bytes in base64",
        {"signature_name": "text", "instances": ['aé"\n', {"b64": "YmM="}]},
        ONE_LINE
        % (
            '\n        {\n            "raw_bytes": {\n                "b64": "QcOpIgo="\n            },\n'
            '            "same": "aé\\"\\n"\n        },\n        {\n            "raw_bytes": {\n'
            '                "b64": "QkM="\n            },\n            "same": "bc"\n        }'
        ),
    ),
    (
        "a matrix of no columns",
        {"signature_name": "echo", "inputs": [[], []]},
        '{\n    "outputs": [\n        [],\n        []\n    ]\n}',
    ),
    ("a scalar", {"signature_name": "echo", "inputs": 1.5}, '{\n    "outputs": 1.5\n}'),
    ("a single string", {"signature_name": "string", "inputs": "aé"}, '{\n    "outputs": "aé"\n}'),
    ("an empty string", {"signature_name": "string", "inputs": ""}, '{\n    "outputs": ""\n}'),
]


@pytest.mark.parametrize(("body", "expected"), [r[1:] for r in ROWS_AND_COLUMNS], ids=[r[0] for r in ROWS_AND_COLUMNS])
def test_a_client_gets_predictions_byte_for_byte(server: Server, body: Any, expected: str) -> None:
    answer = server.post(body)
    assert answer.text == expected
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("sent", "printed"),
    [
        ("0.1", "0.1"),
        ("0.33333334", "0.33333334"),
        ("16777215", "16777215.0"),
        ("1e-10", "1e-10"),
        ("3e38", "3e+38"),
        ("-0.0", "-0.0"),
        ("123456.79", "123456.79"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
    ],
)
def test_a_float_keeps_its_value_in_the_fewest_digits(server: Server, sent: str, printed: str) -> None:
    answer = server.post(b'{"signature_name":"echo","instances":[%s]}' % sent.encode())
    assert answer.text == ONE_LINE % printed


@pytest.mark.parametrize(
    ("dtype", "sent", "printed"),
    [
        ("float64", "[0.1, 1e300]", "0.1, 1e+300"),
        ("int32", "[1, -2]", "1, -2"),
        ("int64", "[9223372036854775807]", "9223372036854775807"),
        ("int8", "[127, 300]", "127, 44"),
        ("uint8", "[255]", "255"),
        ("uint32", "[4294967295]", "4294967295"),
        ("uint64", "[18446744073709551615]", "18446744073709551615"),
        ("bool", "[true, false]", "true, false"),
        ("string", '["a"]', '"a"'),
    ],
)
def test_every_type_passes_both_ways_in_json(server: Server, dtype: str, sent: str, printed: str) -> None:
    assert server.post(f'{{"signature_name":"{dtype}","instances":{sent}}}'.encode()).text == ONE_LINE % printed


@pytest.mark.parametrize("tail", [b" trailing", b"}", b"\n\n", b"\0"])
def test_text_after_the_object_is_ignored(server: Server, tail: bytes) -> None:
    assert server.post(b'{"instances":[2.0]}' + tail).text == ONE_LINE % "3.0"


# --- errors over REST -----------------------------------------------------------------------------------------------

S = "signature_name"
POST = "POST " + PREDICT


def test_a_compressed_body_is_read_and_a_broken_one_is_an_empty_one(server: Server) -> None:
    """The real server's HTTP stack decompresses where Content-Encoding holds "gzip", and drops what is no gzip."""
    body = json.dumps({"signature_name": "echo", "inputs": 1.5}).encode()
    whole = gzip.compress(body)

    def post(data: bytes, encoding: str) -> requests.Response:
        url = f"{server.url}/v1/models/m:predict"
        return requests.post(url, data=data, headers={"Content-Encoding": encoding}, timeout=20)

    assert post(whole, "gzip").text == server.post(body).text
    for broken in (body, whole[:-9], whole[:5]):
        refused = post(broken, "gzip")
        assert refused.status_code == 400
        assert "The document is empty" in refused.text
    assert post(body, "identity").status_code == 200


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/m", "/v1/models/m/metadata"])
def test_a_browser_may_ask_before_it_posts_from_another_origin(server: Server, path: str) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    answer = requests.options(server.url + path, headers=headers, timeout=20)
    assert (answer.status_code, answer.content) == (200, b"")
    allowed = {name: answer.headers[f"Access-Control-Allow-{name}"] for name in ("Origin", "Methods", "Headers")}
    assert allowed == {"Origin": "*", "Methods": "POST, GET", "Headers": "Content-Type"}


def matches(text: str | None, expected: str) -> bool:
    return text == expected or (expected.endswith("…") and (text or "").startswith(expected[:-1]))


IN_ROW_1 = "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
REST_ERRORS: list[tuple[str, Any, int, str]] = [
    # request line, body, status, error text (… stands for any end)
    ("POST /v1/models/other:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(other)"),
    ("POST /v1/models/m/versions/9:predict", {"instances": [1]}, 404, "Servable not found for request: Specific(m, 9)"),
    ("POST /v1/models/m/labels/L:predict", {"instances": [1]}, 400, "Unrecognized servable version label: L"),
    ("POST /v1/models/a%20b:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(a b)"),
    ("GET /v1/models", None, 400, "Missing model name in request."),
    ("GET /v1/models/other", None, 404, "Could not find any versions of model other"),
    ("GET /v1/models/m/versions/9", None, 404, "Could not find version 9 of model m"),
    ("GET /v1/models/other/metadata", None, 404, "Servable not found for request: Latest(other)"),
    (POST, {S: "s", "instances": [1]}, 400, 'Serving signature name: "s" not found in signature def'),
    (
        POST,
        {S: 1, "instances": [1]},
        400,
        'JSON Value: {\n    "signature_name": 1,\n    "instances": [\n        1\n    ]\n} not formatted correctly. '
        "'signature_name' key must be a string value.",
    ),
    (
        POST,
        {"instances": [{"z": 1}]},
        400,
        "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have "
        "named input: z",
    ),
    (POST, {"inputs": {"z": [1]}}, 400, "Missing named input: x in 'inputs' object."),
    (
        POST,
        {S: "two", "instances": [{"a": 1}]},
        400,
        "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys must be equal to: a,b",
    ),
    (
        POST,
        {"instances": ["a"]},
        400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"a\" Type: String is "
        "not of expected type: float",
    ),
    (POST, {"inputs": [True]}, 400, "JSON Value: true Type: True is not of expected type: float"),
    (POST, {"inputs": [1.5, None]}, 400, "JSON Value: null Type: Null is not of expected type: float"),
    (POST, {S: "int32", "inputs": [1.5]}, 400, "JSON Value: 1.5 Type: Number is not of expected type: int32"),
    (POST, {S: "string", "inputs": [1]}, 400, "JSON Value: 1 Type: Number is not of expected type: string"),
    (POST, {S: "string", "inputs": {"b64": "?"}}, 400, "Unable to base64 decode"),
    (POST, {S: "float16", "inputs": [1]}, 501, "Conversion of JSON Value: 1 to type: half"),
    (POST, {"inputs": [1e39]}, 400, "Cannot convert JSON value: 1e+39 to float without loss of precision."),
    (
        POST,
        {S: "pairs", "instances": [[1, 2], [1]]},
        400,
        IN_ROW_1 + "Expecting tensor size: 2 but got: 1",
    ),
    (
        POST,
        {S: "pairs", "instances": [[1, 2], [[1], [2]]]},
        400,
        IN_ROW_1 + "Expecting shape [2] but got: [2,1]",
    ),
    (POST, {"inputs": [[1, 2], [1]]}, 400, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    (POST, {S: "pairs", "instances": [[1, 2, 3]]}, 400, "Matrix size-incompatible: In[0]: [1,3], In[1]…"),
    (POST, {"inputs": 1.5, S: "two"}, 400, "inputs is a plain value/list, but expecting an object as…"),
    (POST, {"instances": [1], S: "two"}, 400, "instances is a plain list, but expecting list of objects as…"),
    (POST, {"instances": [1, {"x": 1}]}, 400, "Expecting value/list but got object at item 1 of input list"),
    (POST, {"instances": [{"x": 1}, 1]}, 400, "Expecting object but got list at item 1 of input list"),
    (
        POST,
        {S: "echo", "instances": []},
        400,
        'JSON Value: {\n    "signature_name": "echo",\n    "instances": []\n} No values in \'instances\' array',
    ),
    (POST, {"instances": 1}, 400, "JSON Value: {\n    \"instances\": 1\n} Excepting 'instances' to be an list/array"),
    (POST, {}, 400, "Missing 'inputs' or 'instances' key"),
    (
        POST,
        {"inputs": 1, "instances": [1]},
        400,
        'JSON Value: {\n    "inputs": 1,\n    "instances": [\n        1\n    ]\n} '
        "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
    ),
    (POST, b"", 400, "JSON Parse error: The document is empty"),
    (POST, b"instances = [1, 2]", 400, "JSON Parse error: Invalid value. at offset: 0"),
    (POST, b'{"instances": [1,', 400, "JSON Parse error: Invalid value. at offset: 17"),
    (POST, b"[1]", 400, "JSON Value: [\n    1\n] Is not object"),
    ("POST /v1/models/other:predict", b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
    ("POST /v1/models/m", {}, 400, "Malformed request: POST /v1/models/m"),
    ("POST /v1/models/m:explain", {}, 400, "Malformed request: POST /v1/models/m:explain"),
    ("POST /v1/models/m:PREDICT", {"instances": [1]}, 400, "Malformed request: POST /v1/models/m:PREDICT"),
    ("GET " + PREDICT, None, 400, "Malformed request: GET " + PREDICT),
    ("PUT " + PREDICT, {}, 400, "Malformed request: PUT " + PREDICT),
    (
        "GET /v1/models/m/versions/9223372036854775808",
        None,
        400,
        "Failed to convert version: 9223372036854775808 to numeric.",
    ),
    ("POST /v1/models/m:classify", {"examples": [{}]}, 501, "Classify API is not supported yet"),
    ("POST /v1/models/m:regress", {"examples": [{}]}, 501, "Regress API is not supported yet"),
]


@pytest.mark.parametrize(("request_line", "body", "status", "error"), REST_ERRORS)
def test_a_rest_error_has_the_contract_s_status_and_text(
    server: Server, request_line: str, body: Any, status: int, error: str
) -> None:
    method, path = request_line.split(" ")
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    answer = requests.request(method, server.url + path, data=data, timeout=20)
    message = json.loads(answer.text)["error"]
    assert matches(message, error)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == jsonout.error_body(message).decode()


MANY = 10**5
LONG = [
    {S: "echo", "instances": [["a" * MANY]]},
    {S: "echo", "instances": [{"b" * MANY: 1.0}]},
    {S: "s" * MANY, "instances": [1.0]},
    {S: 1, "instances": [1.0] * MANY},
    {"instances": [1.0], "inputs": [1.0] * MANY},
    {S: "two", "instances": [{"a": [1.0] * MANY}]},
    [1.0] * MANY,
]


@pytest.mark.parametrize("body", LONG, ids=range(len(LONG)))
def test_an_error_quotes_no_more_than_the_beginning_of_a_long_value(server: Server, body: Any) -> None:
    """Its text would be as long as the request, 31 MB for one, and be written while everybody waits."""
    answer = server.post(body)
    assert answer.status_code == 400
    assert "..." in answer.json()["error"]
    assert len(answer.json()["error"]) < 2 * jsonvalues.MAX_TEXT + 200


@pytest.mark.parametrize("depth", [33, 500, 990, 1010, 100_000])
def test_deep_nesting_is_refused(server: Server, depth: int) -> None:
    answer = server.post(b'{"signature_name":"echo","instances":' + b"[" * depth + b"1" + b"]" * depth + b"}")
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_a_path_outside_the_api_is_not_json(server: Server) -> None:
    answer = requests.get(server.url + "/", timeout=20)
    assert answer.status_code == 404
    assert answer.headers["content-type"] != "application/json"


@pytest.mark.parametrize(
    "path", ["/V1/MODELS/m:predict", "/v1/models/m/versions/123:predict", "/v1/models/m:predict?a=b"]
)
def test_other_spellings_of_the_path_predict(server: Server, path: str) -> None:
    assert server.post({"instances": [2.0]}, path).text == ONE_LINE % "3.0"


# --- status and metadata --------------------------------------------------------------------------------------------

STATUS = (
    '{\n "model_version_status": [\n  {\n   "version": "123",\n   "state": "AVAILABLE",\n   "status": {\n'
    '    "error_code": "OK",\n    "error_message": ""\n   }\n  }\n ]\n}\n'
)


@pytest.mark.parametrize("path", ["/v1/models/m", "/v1/models/m/versions/123"])
def test_a_monitor_sees_the_version_available(server: Server, path: str) -> None:
    answer = requests.get(server.url + path, timeout=20)
    assert (answer.status_code, answer.text) == (200, STATUS)


def test_a_client_learns_the_inputs_from_the_metadata(server: Server) -> None:
    answer = requests.get(server.url + "/v1/models/m/metadata", timeout=20).json()
    assert answer["model_spec"] == {"name": "m", "signature_name": "", "version": "123"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["pairs"]
    tensor = signature["inputs"]["x"]
    assert tensor["dtype"] == "DT_FLOAT"
    assert tensor["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
        "unknown_rank": False,
    }
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["defaults"] == {}


def test_a_grpc_client_learns_dtypes_and_shapes(server: Server) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "m"
    response = server.prediction.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    tensor = signatures.signature_def["pairs"].inputs["x"]
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 123)
    assert (tensor.dtype, [dim.size for dim in tensor.tensor_shape.dim]) == (tf.float32.as_datatype_enum, [-1, 2])


def test_a_grpc_client_sees_the_version_available(server: Server) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "m"
    (entry,) = server.model.GetModelStatus(request).model_version_status
    assert (entry.version, entry.state, entry.status.error_code) == (123, entry.AVAILABLE, 0)


# --- predictions over gRPC ------------------------------------------------------------------------------------------


def test_values_come_in_typed_fields_with_the_model_they_came_from(server: Server) -> None:
    response = server.prediction.Predict(predict_request(x=floats(2, 3)))
    assert list(response.outputs["y"].float_val) == [3.0, 3.5]  # clients in the field read only these fields
    assert response.outputs["y"].tensor_content == b""
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 123)
    assert response.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("as_content", [True, False], ids=["content", "fields"])
def test_every_type_passes_both_ways_in_protobuf(server: Server, dtype: str, as_content: bool) -> None:
    array = np.array([[1, 0], [100, 7]]).astype(object if dtype == "string" else dtype)
    if dtype == "string":
        array = np.array([[b"a", b""], [b"\xff\0", b"b"]], object)
    proto = tf.make_tensor_proto(array)
    if not as_content or dtype == "string":
        proto = type(proto)()
        tensors.encode(array, proto)
    response = server.prediction.Predict(predict_request(dtype, x=proto))
    assert np.array_equal(tf.make_ndarray(response.outputs["y"]), array)


def test_a_short_list_of_values_fills_its_shape(server: Server) -> None:
    proto = tf.make_tensor_proto(floats(1, 1, 1))
    proto.ClearField("tensor_content")
    proto.float_val[:] = [4.0, 6.0]
    response = server.prediction.Predict(predict_request(x=proto))
    assert list(response.outputs["y"].float_val) == [4.0, 5.0, 5.0]


def test_an_output_filter_returns_only_what_it_names(server: Server) -> None:
    request = predict_request("two", a=floats(1), b=floats(2))
    request.output_filter.append("sum")
    assert set(server.prediction.Predict(request).outputs) == {"sum"}


def broken_content() -> Any:
    proto = tf.make_tensor_proto(floats(1, 2))
    proto.tensor_content = b"123"
    return proto


def shape_of_terabytes() -> Any:
    proto = tf.make_tensor_proto(floats(1))
    proto.tensor_shape.dim[0].size = 2**40
    return proto


def filtered(*aliases: str) -> Any:
    request = predict_request("two", a=floats(1), b=floats(2))
    request.output_filter.extend(aliases)
    return request


def versioned(version: int) -> Any:
    request = predict_request(x=floats(1))
    request.model_spec.version.value = version
    return request


def labelled(label: str) -> Any:
    request = predict_request(x=floats(1))
    request.model_spec.version_label = label
    return request


SIZE = "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}."
GRPC_ERRORS = [
    (lambda: predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    (lambda: predict_request(name=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    (lambda: predict_request(name="other"), "NOT_FOUND", "Servable not found for request: Latest(other)"),
    (lambda: versioned(9), "NOT_FOUND", "Servable not found for request: Specific(m, 9)"),
    (lambda: labelled("L"), "INVALID_ARGUMENT", "Unrecognized servable version label: L"),
    (lambda: predict_request("s", x=floats(1)), "FAILED_PRECONDITION", 'Serving signature key "s" not found.'),
    (lambda: predict_request(), "INVALID_ARGUMENT", SIZE),
    (
        lambda: predict_request(x=floats(1), z=floats(1)),
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
    ),
    (
        lambda: predict_request(z=floats(1)),
        "INVALID_ARGUMENT",
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default "
        "value "
        "provided. Inputs expected to be in the request {z}, or default input alias set: ",
    ),
    (lambda: predict_request(x=np.array([1])), "INVALID_ARGUMENT", "Expects arg[0] to be float but int64 is provided"),
    (lambda: predict_request(x=broken_content()), "INVALID_ARGUMENT", "tensor parsing error: x"),
    (lambda: predict_request(x=shape_of_terabytes()), "INVALID_ARGUMENT", "tensor parsing error: x"),
    (
        lambda: predict_request("pairs", x=np.ones((1, 3), np.float32)),
        "INVALID_ARGUMENT",
        "Matrix size-incompatible: In[0]: [1,3], In[1]…",
    ),
    (
        lambda: filtered("z"),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z Outputs expected to be in the set {difference,sum}.",
    ),
    (lambda: filtered("sum", "sum"), "INVALID_ARGUMENT", "duplicate output tensor alias: sum"),
    (lambda: predict_request("é%\n", x=floats(1)), "FAILED_PRECONDITION", 'Serving signature key "é%\n" not found.'),
]


@pytest.mark.parametrize(("request_of", "code", "details"), GRPC_ERRORS)
def test_a_grpc_error_has_the_contract_s_code_and_text(
    server: Server, request_of: Callable[[], Any], code: str, details: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request_of(), timeout=20)
    assert caught.value.code().name == code
    assert matches(caught.value.details(), details)


def metadata_request(*fields: str) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "m"
    return request


def status_request(name: str, version: int | None = None) -> Any:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


OTHER_CALLS = [
    (
        "GetModelMetadata",
        metadata_request(),
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    ("GetModelMetadata", metadata_request("weights"), "INVALID_ARGUMENT", "Metadata field weights is not supported"),
    ("GetModelStatus", status_request("other"), "NOT_FOUND", "Could not find any versions of model other"),
    ("GetModelStatus", status_request("m", 9), "NOT_FOUND", "Could not find version 9 of model m"),
    ("Classify", classification_pb2.ClassificationRequest(), "UNIMPLEMENTED", "Classify API is not supported yet"),
    ("Regress", regression_pb2.RegressionRequest(), "UNIMPLEMENTED", "Regress API is not supported yet"),
    (
        "MultiInference",
        inference_pb2.MultiInferenceRequest(),
        "UNIMPLEMENTED",
        "MultiInference API is not supported yet",
    ),
]


@pytest.mark.parametrize(("method", "request_message", "code", "details"), OTHER_CALLS)
def test_the_other_methods_end_in_the_contract_s_status(
    server: Server, method: str, request_message: Any, code: str, details: str
) -> None:
    stub = server.model if method == "GetModelStatus" else server.prediction
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request_message, timeout=20)
    assert (caught.value.code().name, caught.value.details()) == (code, details)


def raw_call(server: Server, method: str) -> Callable[..., bytes]:
    path = f"/tensorflow.serving.PredictionService/{method}"
    call: Callable[..., bytes] = server.channel.unary_unary(path, lambda data: data, lambda data: data)
    return call


def test_an_unknown_method_is_unimplemented(server: Server) -> None:
    call = raw_call(server, "Explain")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_long_message_is_cut(server: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(predict_request("s" * 2000, x=floats(1)), timeout=20)
    details = caught.value.details() or ""
    assert (len(details), details[-12:]) == (1024, "...TRUNCATED")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_understood(server: Server, compression: grpc.Compression) -> None:
    response = server.prediction.Predict(predict_request(x=np.zeros(5000, np.float32)), compression=compression)
    assert list(response.outputs["y"].float_val) == [2.0] * 5000


def test_a_message_of_64_megabytes_passes_both_ways(server: Server) -> None:
    sizes = [(f"grpc.max_{way}_message_length", 1 << 28) for way in ("send", "receive")]
    values = np.arange(16 << 20, dtype=np.float32)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=sizes) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(predict_request("echo", x=values), timeout=60)
    assert np.array_equal(np.array(response.outputs["y"].float_val, np.float32), values)


def test_a_large_json_body_passes_both_ways(server: Server) -> None:
    values = [[float(i % 1000)] * 100 for i in range(5000)]
    assert server.post({"signature_name": "echo", "instances": values}).json() == {"predictions": values}


# --- a slow model, a broken client ----------------------------------------------------------------------------------


def test_a_slow_model_holds_nobody_else_up(server: Server) -> None:
    call = server.prediction.Predict.future(predict_request("slow", seconds=np.array(1.0, np.float32)))
    for _ in range(5):
        assert server.post({"instances": [2.0]}).text == ONE_LINE % "3.0"
    assert not call.done()
    assert list(call.result(timeout=20).outputs["y"].float_val) == [0.0]


def test_a_loop_that_was_quick_holds_nobody_up_when_it_is_long(server: Server) -> None:
    """A quick model runs where requests are read. One with a loop is not known by its sizes: the values decide."""
    for _ in range(5):
        assert server.post({"signature_name": "slow", "inputs": 0.0}).status_code == 200
    call = server.prediction.Predict.future(predict_request("slow", seconds=np.array(3.0, np.float32)))
    for _ in range(5):
        assert server.post({"instances": [2.0]}).text == ONE_LINE % "3.0"
    assert not call.done()
    assert server.post({"signature_name": "slow", "inputs": 3.0}).status_code == 504
    assert list(call.result(timeout=20).outputs["y"].float_val) == [0.0]


def test_rest_gives_up_after_its_time_limit(server: Server) -> None:
    answer = server.post({"signature_name": "slow", "inputs": 3.0})
    assert answer.status_code == 504
    assert "Timed out" in answer.json()["error"]


def alive(server: Server) -> bool:
    return server.process.poll() is None and server.post({"instances": [2.0]}).text == ONE_LINE % "3.0"


quickly = settings(
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # in place of the profile's
)


@quickly
@given(body=st.binary(max_size=200) | st.text(alphabet='{}[]":,.0123456789eE-+ntrufalsNI', max_size=60).map(str.encode))
def test_no_body_hangs_or_kills_rest(server: Server, body: bytes) -> None:
    answer = server.post(body)
    assert answer.status_code in (200, 400)
    assert "error" in answer.json() or "predictions" in answer.json()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "b64", "z"]), inner, max_size=2),
    max_leaves=8,
)


@quickly
@given(key=st.sampled_from(["instances", "inputs"]), signature=st.sampled_from([*TYPES, "echo"]), value=JSON)
def test_no_value_hangs_or_kills_rest(server: Server, key: str, signature: str, value: Any) -> None:
    answer = server.post({"signature_name": signature, key: value})
    assert answer.status_code in (200, 400, 501)


@quickly
@given(message=st.binary(max_size=200))
def test_no_message_hangs_or_kills_grpc(server: Server, message: bytes) -> None:
    call = raw_call(server, "Predict")
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=20)
    assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


@quickly
@given(data=st.binary(max_size=300), port=st.sampled_from(["rest", "grpc"]))
def test_no_bytes_on_a_socket_kill_the_server(server: Server, data: bytes, port: str) -> None:
    with socket.create_connection(("127.0.0.1", server.rest_port if port == "rest" else server.grpc_port)) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
    assert server.process.poll() is None


def test_the_server_outlives_its_clients_abuse(server: Server) -> None:
    assert alive(server)


# --- a process: starting, new versions, stopping --------------------------------------------------------------------


def copy_version(source: Path, target: Path) -> None:
    """Make a version appear at once, as a careful deployment does."""
    shutil.copytree(source, target.with_name("copying"))
    target.with_name("copying").rename(target)


@pytest.mark.server
def test_a_new_version_replaces_the_old_one_without_a_gap(saved: Path, tmp_path: Path) -> None:
    base = tmp_path / "model"
    base.mkdir()
    copy_version(saved / "123", base / "1")
    running = Server(base, tmp_path / "log")
    try:
        running.wait_ready()
        (base / "3").mkdir()  # a folder that is not a model yet, and one whose name is no version
        copy_version(saved / "123", base / "not-a-version")
        copy_version(saved / "123", base / "2")

        def adopted() -> bool:
            assert running.post({"instances": [2.0]}).text == ONE_LINE % "3.0"
            return running.status() == {"2": "AVAILABLE", "1": "END"}

        until(adopted, START_SECONDS, running)
        answer = running.post({"instances": [2.0]}, "/v1/models/m/versions/1:predict")
        assert answer.json() == {"error": "Servable not found for request: Specific(m, 1)"}
        (base / "3" / "saved_model.pb").write_bytes(b"broken")
        until(lambda: running.status().get("3") == "END", START_SECONDS, running)
        assert running.post({"instances": [2.0]}, "/v1/models/m/versions/2:predict").status_code == 200
    finally:
        running.stop()


@pytest.mark.server
def test_sigterm_ends_it_at_once_even_while_a_model_runs(saved: Path, tmp_path: Path) -> None:
    running = Server(saved, tmp_path / "log")
    try:
        running.wait_ready()
        call = running.prediction.Predict.future(predict_request("slow", seconds=np.array(30.0, np.float32)))
        assert running.post({"instances": [2.0]}).status_code == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0, "it waits for the model, which runs for 30 s"
        assert call.exception(timeout=10).code() is grpc.StatusCode.UNAVAILABLE
    finally:
        running.stop()


def test_it_is_one_process(server: Server) -> None:
    assert psutil.Process(server.process.pid).children(recursive=True) == []


@pytest.mark.server
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--model_name=m"], "--model_base_path is required"),
        (["--model_base_path={tmp}/absent"], "is not a directory"),
        (["--model_base_path={tmp}"], "no version of a SavedModel"),
        (["--model_base_path={saved}", "--port=x"], "'x' is not a port"),
        (
            ["--model_base_path={saved}", "--port={taken}"],
            "--port {taken} on 127.0.0.1 cannot be used: Address already",
        ),
        (["--model_base_path={saved}", "--port=8500", "--rest_api_port", "8500"], "cannot be same"),
        (["--model_base_path={saved}", "--speed=9"], "unrecognized arguments: --speed=9"),
        (["--model_base_path={saved}", "--ssl_config_file=x"], "--ssl_config_file is not supported yet"),
        (
            ["--model_base_path={broken}"],
            "1 model(s) did not become available: {{{{{{name: default version: 1}} due to",
        ),
    ],
)
def test_a_start_that_cannot_work_ends_with_the_reason(
    saved: Path, tmp_path: Path, flags: list[str], reason: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        known = {"tmp": tmp_path, "saved": saved, "taken": other.getsockname()[1]}
        if "{broken}" in flags[0]:
            known["broken"] = broken_model(tmp_path / "broken")
        command = [flag.format(**known) for flag in flags]
        if not any(flag.startswith("--port") for flag in command):
            command.append(f"--port={free_ports(1)[0]}")
        ended = run_command(*command)
    assert ended.returncode != 0
    assert reason.format(**known) in ended.stderr
    assert "Traceback" not in ended.stderr


# --- the model alone ------------------------------------------------------------------------------------------------


def keras_model(path: Path) -> tuple[str, Any]:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, kernel_initializer="ones")])
    model.export(str(path), verbose=False)
    return "x", [[3.0]]


def tf1_model(path: Path) -> tuple[str, Any]:
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        weight = v1.get_variable("w", initializer=[[1.0], [1.0]])
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": tf.matmul(x, weight)})
    return "x", [[3.0]]


@pytest.mark.parametrize("make", [keras_model, tf1_model])
def test_saved_models_of_other_makers_run(tmp_path: Path, make: Callable[[Path], tuple[str, Any]]) -> None:
    alias, expected = make(tmp_path / "1")
    signature = servable.Servable("m", 1, tmp_path / "1").signatures["serving_default"]
    (output,) = signature.run({next(iter(signature.inputs)): np.array([[1, 2]], np.float32)}).values()
    assert alias in signature.inputs or make is keras_model
    assert output.tolist() == expected


def test_only_what_takes_as_long_as_its_sizes_say_may_run_where_requests_are_read(saved: Path) -> None:
    signatures = servable.Servable("m", 1, saved / "123").signatures
    others = {name for name, signature in signatures.items() if not signature.steady}
    assert others == {"slow", "text"}, "a loop, and an operation on texts that is not known"


@pytest.mark.parametrize("model", ["noop", "mlp", "cnn", "image"])
def test_reference_models_may_run_where_requests_are_read(model: str) -> None:
    """A thread for each request would cost more than the model, and look like the cost of a protocol."""
    signatures = servable.Servable(model, 1, export(model) / "1").signatures
    assert {name: signature.steady for name, signature in signatures.items() if not signature.steady} == {}


def test_a_long_text_or_another_shape_is_not_taken_for_a_quick_one() -> None:
    """They run in a thread until their own time is known; their arrays are as large."""
    short, long = ({"s": np.array([text], object)} for text in (b"a", b"a" * 10**6))
    assert running.sizes_of(short) != running.sizes_of(long)
    wide, square = ({"x": np.zeros(shape, np.float32)} for shape in ((1, 4096), (64, 64)))
    assert running.sizes_of(wide) != running.sizes_of(square)
    more = {"x": np.zeros((1, 4097), np.float32)}
    assert running.sizes_of(wide) == running.sizes_of(more), "as powers of two"


def test_texts_that_fill_a_tensor_keep_nuls_at_their_end() -> None:
    proto = tf.make_tensor_proto([b"", b"", b""])
    proto.string_val[:] = [b"a\0"]
    assert tensors.decode(proto, "s").tolist() == [b"a\0"] * 3
    assert joining._pad(np.array([[b"a\0"]], object), np.array([2])).tolist() == [[b"a\0", b"a\0"]]


def test_without_tensorflow_s_private_callable_the_public_one_gives_the_same(saved: Path) -> None:
    loaded = servable.Servable("m", 1, saved / "123")
    session = loaded._session

    class Public:
        make_callable = staticmethod(session.make_callable)

    signature = loaded.signatures["pairs"]
    array = np.array([[1, 2]], np.float32)
    arguments = list(signature.inputs.values()), list(signature.outputs.values())
    private = servable.make_runner(session, *arguments)
    public = servable.make_runner(Public(), *arguments)
    assert private.__class__.__name__ == "_Callable"  # the fast one, while TensorFlow has it
    assert private(array)[0].tolist() == public(array)[0].tolist() == [[1.0, 20.0]]


@given(value=JSON, dtype=st.sampled_from([tf.dtypes.as_dtype(name).as_datatype_enum for name in ("float32", *TYPES)]))
def test_the_fast_way_to_read_json_agrees_with_the_slow_one(value: Any, dtype: int) -> None:
    fast = jsonin.Reader(json.dumps(value).encode()).read(value, dtype)
    if fast is not None:
        slow = jsonvalues.whole(value, dtype)
        assert (fast.dtype, fast.shape) == (slow.dtype, slow.shape)
        assert np.array_equal(fast, slow)


@given(rows=st.lists(st.lists(st.floats(width=32) | st.integers(-(2**25), 2**25), min_size=2, max_size=2), min_size=1))
def test_the_fast_way_reads_rows_of_floats_or_leaves_them(rows: list[list[float]]) -> None:
    fast = jsonin.Reader(b"").read(rows, tf.float32.as_datatype_enum)
    doubtful = [x for row in rows for x in row if not abs(x) < np.finfo(np.float32).max]
    assert (fast is not None) or doubtful
    if fast is not None:
        assert np.array_equal(fast, np.array(rows, np.float32))


@given(st.floats(width=32))
def test_a_printed_float32_reads_back_as_itself(value: float) -> None:
    text = jsonout.decimal(np.float32(value))
    assert np.float32(float(text)) == np.float32(value) or np.isnan(np.float32(value))
    assert "." in text or "e" in text or text in ("NaN", "Infinity", "-Infinity")


@pytest.mark.parametrize(
    ("text", "written"), [("\x1f", '"\\u001F"'), ("\\u001f", '"\\\\u001f"'), ("é/\x7f", '"é/\x7f"'), ("\b", '"\\b"')]
)
def test_a_string_is_escaped_as_rapidjson_does(text: str, written: str) -> None:
    assert jsonout.quoted(text) == written


@pytest.mark.parametrize(
    ("shape", "row"),
    [((0,), ""), ((2, 0), "[], []"), ((1, 2, 0), "[[], []]"), ((1, 0, 2), "[]"), ((2, 1, 1), "[[0.0]], [[0.0]]")],
)
def test_empty_dimensions_are_empty_lists(shape: tuple[int, ...], row: str) -> None:
    zeros = {"y": np.zeros(shape, np.float32)}
    assert jsonout.rows(zeros).decode() == (ONE_LINE % row if row else '{\n    "predictions": []\n}')
    assert json.loads(jsonout.columns(zeros)) == {"outputs": np.zeros(shape).tolist()}


@given(st.text())
def test_a_quoted_string_is_json_for_itself(text: str) -> None:
    assert json.loads(jsonout.quoted(text)) == text
