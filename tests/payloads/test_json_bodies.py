"""If these fail, protocols are compared on different work where a payload is JSON of a user's own."""

import base64
import json
import math
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tritonclient.grpc import service_pb2

from infscale.payloads.json_bodies import kserve_message_of, tensorflow_message_of, tensorflow_signature
from infscale.payloads.tensors import Input, Target, Tensor
from infscale.servers.embedded.api import jsonin
from infscale.servers.embedded.runtime import tensors as served

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
VALUES: dict[str, list[list[Any]]] = {
    "float16": [[0.1, 1], [65504, -2.5]],
    "float32": [[0.1, 1435774380], [3e38, -2.5]],
    "float64": [[0.1, 2**53 + 1], [1e300, -2.5]],
    "bool": [[True, False], [False, True]],
    "object": [["é", ""], ["a\0", {"b64": "/wA="}]],
    **{name: [[int(np.iinfo(name).min), 0], [1, int(np.iinfo(name).max)]] for name in INTEGERS},
}
"""Values of every type; the last text is bytes that are no UTF-8, and two of them end in NUL."""
KSERVE = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL", "object": "BYTES"}
KSERVE |= {name: name.upper() for name in INTEGERS}
NOT_IN_JSON = ("float16", "uint16")
"""Types that TensorFlow Serving reads over gRPC only."""


def array(values: Any, dtype: str) -> Tensor:
    """Return what a server has to read from JSON values."""

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(each) for each in value]
        if isinstance(value, dict):
            return base64.b64decode(value["b64"])
        return value.encode() if isinstance(value, str) else value

    return np.array(read(values), dtype)


def same(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.shape, one.tolist()) == (other.dtype, other.shape, other.tolist())


FORMS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "rows": lambda v: ({"instances": v}, v),
    "rows of one value": lambda v: ({"instances": v[1]}, v[1]),
    "named rows": lambda v: ({"instances": [{"x": row} for row in v]}, v),
    "named rows of one value": lambda v: ({"instances": [{"x": value} for value in v[1]]}, v[1]),
    "columns": lambda v: ({"inputs": v}, v),
    "named columns": lambda v: ({"inputs": {"x": v}}, v),
    "one value": lambda v: ({"inputs": v[1][1]}, v[1][1]),
    "one named value": lambda v: ({"inputs": {"x": v[1][1]}}, v[1][1]),
    "no columns": lambda v: ({"inputs": [[], []]}, [[], []]),
}


def tensorflow_request(document: Any, **dtypes: str) -> Any:
    inputs = {name: Input(dtype, None) for name, dtype in dtypes.items()}
    return predict_pb2.PredictRequest.FromString(tensorflow_message_of(Target("m", "7"), document, inputs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", VALUES)
def test_grpc_carries_the_tensor_that_tensorflow_serving_reads_from_json(dtype: str, form: str) -> None:
    """Every type in every form, base64 among the texts: as numpy has it, and as the embedded server reads both."""
    document, values = FORMS[form](VALUES[dtype])
    right = array(values, dtype)
    carried = served.decode(tensorflow_request(document, x=dtype).inputs["x"], "x")
    assert same(carried, right)
    if dtype in NOT_IN_JSON and right.size:
        return
    number = (tf.string if dtype == "object" else tf.as_dtype(dtype)).as_datatype_enum
    signature: Any = SimpleNamespace(inputs={"x": "x:0"}, dtypes={"x": number})
    body = json.dumps(document).encode()
    assert same(jsonin.inputs(jsonin.parse(body), signature, body)[1]["x"], right)


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_grpc_carries_several_inputs_by_name(form: str) -> None:
    rows = [{"n": 1, "file": {"b64": "AA=="}}, {"n": 2, "file": "b"}]
    columns = {"n": [1, 2], "file": [{"b64": "AA=="}, "b"]}
    request = tensorflow_request({form: rows if form == "instances" else columns}, n="int64", file="object")
    assert served.decode(request.inputs["n"], "n").tolist() == [1, 2]
    assert list(request.inputs["file"].string_val) == [b"\0", b"b"]


@pytest.mark.parametrize("text", ["/wA=", "/wA", " /w\nA= "])
def test_base64_has_the_forms_that_tensorflow_serving_takes(text: str) -> None:
    assert list(tensorflow_request({"inputs": {"b64": text}}, x="object").inputs["x"].string_val) == [b"\xff\0"]


def test_grpc_runs_the_signature_that_the_json_names() -> None:
    for unnamed in ({}, {"signature_name": ""}):
        assert tensorflow_signature(unnamed) == "serving_default"
        given: dict[str, Any] = {**unnamed, "instances": [1]}
        assert tensorflow_request(given, x="int8").model_spec.signature_name == ""
    document = {"signature_name": "half", "instances": [1]}
    spec = tensorflow_request(document, x="int8").model_spec
    assert (tensorflow_signature(document), spec.signature_name) == ("half", "half")
    assert (spec.name, spec.version.value) == ("m", 7)


def triton_request(document: Any) -> Any:
    return service_pb2.ModelInferRequest.FromString(kserve_message_of(Target("m", "7"), document, {}))


@pytest.mark.parametrize("form", ["flat", "nested"])
@pytest.mark.parametrize("dtype", VALUES)
def test_grpc_carries_the_tensor_that_triton_reads_from_json(dtype: str, form: str) -> None:
    values: list[list[Any]] = [["é", ""], ["a\0", "bc\0\0"]] if dtype == "object" else VALUES[dtype]
    data = values if form == "nested" else [*values[0], *values[1]]
    entry = {"name": "x", "datatype": KSERVE[dtype], "shape": [2, 2], "data": data}
    request = triton_request({"inputs": [entry]})
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", KSERVE[dtype], [2, 2])
    texts = [b"\x02\0\0\0\xc3\xa9", b"\0\0\0\0", b"\x02\0\0\0a\0", b"\x04\0\0\0bc\0\0"]
    right = b"".join(texts) if dtype == "object" else array(values, dtype).tobytes()
    assert list(request.raw_input_contents) == [right]
    assert (request.model_name, request.model_version) == ("m", "7")


def test_grpc_carries_parameters_and_outputs_of_triton_s_json() -> None:
    """What is false or zero is sent, too. The form of REST's answer is not: gRPC has one form."""
    entry = {"datatype": "INT8", "shape": [1], "data": [1]}
    given = {"yes": True, "no": False, "zero": 0, "least": -(2**63), "half": 0.5, "text": "é", "empty": ""}
    document = {
        "id": "request 1",
        "parameters": {**given, "binary_data_output": True},
        "inputs": [{"name": "a", **entry, "parameters": {"kind": 1}}, {"name": "b", **entry}],
        "outputs": [{"name": "y", "parameters": {"classification": 3, "binary_data": False}}, {"name": "z"}],
    }
    request = triton_request(document)

    def read(parameters: Any) -> dict[str, Any]:
        return {name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in parameters.items()}

    carried = read(request.parameters)
    assert carried == given
    assert {name: type(value) for name, value in carried.items()} == {n: type(v) for n, v in given.items()}
    assert request.id == "request 1"
    assert [(one.name, read(one.parameters)) for one in request.inputs] == [("a", {"kind": 1}), ("b", {})]
    assert [(one.name, read(one.parameters)) for one in request.outputs] == [("y", {"classification": 3}), ("z", {})]


OTHER_TYPES = [
    ("int64", 1.5, "1.5"),
    ("int64", 1.0, "1.0"),
    ("int32", "7", '"7"'),
    ("float32", "7", '"7"'),
    ("float32", True, "true"),
    ("float64", None, "null"),
    ("uint8", False, "false"),
    ("bool", "false", '"false"'),
    ("bool", 1, "1"),
    ("object", 7, "7"),
    ("object", {"text": "a"}, '{"text": "a"}'),
    ("int64", 2**70, str(2**70)),
    ("int64", 2**63, str(2**63)),
    ("uint64", 2**64, str(2**64)),
    ("int8", 300, "300"),
    ("uint16", -1, "-1"),
    ("float16", 65520, "65520"),
    ("float32", 1e39, "1e+39"),
    ("float64", 10**400, "1000"),
]


@pytest.mark.parametrize(("dtype", "value", "text"), OTHER_TYPES)
def test_a_value_of_another_type_is_named_and_not_converted(dtype: str, value: Any, text: str) -> None:
    """1.5 would be sent as 1, "false" as true, and 300 as 44."""
    message = f"input 'x' takes {'texts' if dtype == 'object' else dtype}, and not {re.escape(text)}"
    good = VALUES[dtype][0][0]
    for values in ([value], [good, value], value):
        with pytest.raises(ValueError, match=message):
            tensorflow_request({"inputs": {"x": values}}, x=dtype)
    entry = {"name": "x", "datatype": KSERVE[dtype], "shape": [2], "data": [good, value]}
    with pytest.raises(ValueError, match=message):
        triton_request({"inputs": [entry]})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_rounded_and_may_be_infinite_or_no_number(dtype: str) -> None:
    limits = np.finfo(dtype)
    values = [math.nan, math.inf, -math.inf, float(limits.max), 1 / 3, 2**11 + 1]
    carried = served.decode(tensorflow_request({"inputs": values}, x=dtype).inputs["x"], "x")
    np.testing.assert_array_equal(carried, np.array(values).astype(dtype))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"instances": []}, r"'instances' is \[\] and holds no rows"),
        ({"instances": None}, "'instances' is None and holds no rows"),
        ({"instances": 1.5}, "'instances' is 1.5 and holds no rows"),
        ({"instances": [1], "inputs": [1]}, "either 'instances' or 'inputs'"),
        ({}, "either 'instances' or 'inputs'"),
        ({"instances": [{"x": 1}, {"x": 1, "y": 1}]}, "rows name different inputs"),
        ({"inputs": {"y": [1]}}, r"'y' is not one of the inputs \['x'\]"),
        ({"instances": [[1, 2], [3]]}, "lists side by side have 1 and 2 values"),
        ({"instances": [[1], 2]}, r"'x' takes int64, and not \[1\]"),
    ],
)
def test_json_that_is_no_request_of_tensorflow_serving_is_refused(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensorflow_request(document, x="int64")


def test_a_signature_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="'signature_name' is 5, which is no text"):
        tensorflow_signature({"signature_name": 5})


@pytest.mark.parametrize("text", ["?", "YQ==YQ==", "é"])
def test_text_that_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        tensorflow_request({"instances": [{"b64": text}]}, x="object")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": [3]}, r"2 values for the shape \[3\]"),
        ({"shape": [-1]}, r"2 values for the shape \[-1\]"),
        ({"data": [{"b64": "AA=="}, 1]}, "takes int64, and not"),
        ({"datatype": "FP8"}, "has the type FP8"),
        ({"parameters": {"p": [1]}}, r"parameter 'p' is \[1\]"),
        ({"parameters": {"p": 2**63}}, "out of range"),
    ],
)
def test_json_that_is_no_request_of_triton_is_refused(changed: dict[str, Any], message: str) -> None:
    entry = {"name": "x", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    with pytest.raises(ValueError, match=message):
        triton_request({"inputs": [entry | changed]})
    with pytest.raises(ValueError, match="'x' is there twice"):
        triton_request({"inputs": [entry, entry]})
