"""What a server tells of its model's inputs, and tensors of any type as its requests.

TensorFlow Serving and Triton describe their models over REST and gRPC; TorchServe does not.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from infscale.deployment.client import call, fetch
from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError, DeploymentError
from infscale.payloads import encoders as payloads
from infscale.payloads.codecs import json_rows

Tensors = dict[str, npt.NDArray[Any]]
"""Arrays by input name; texts are arrays of ``str`` or ``bytes``."""

PREDICT = {
    "tfserving": payloads.TF_PREDICT,
    "torchserve": payloads.TORCHSERVE_PREDICT,
    "triton": payloads.TRITON_INFER,
}
DEFAULT_SIGNATURE = "serving_default"
_TF_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_TRITON_METADATA = "/inference.GRPCInferenceService/ModelMetadata"
_PATIENCE_S = 10.0

# numpy's name: (TensorFlow's number, its name in JSON, KServe's name)
_TYPES = {
    "float32": (1, "DT_FLOAT", "FP32"),
    "float64": (2, "DT_DOUBLE", "FP64"),
    "int32": (3, "DT_INT32", "INT32"),
    "uint8": (4, "DT_UINT8", "UINT8"),
    "int16": (5, "DT_INT16", "INT16"),
    "int8": (6, "DT_INT8", "INT8"),
    "object": (7, "DT_STRING", "BYTES"),
    "int64": (9, "DT_INT64", "INT64"),
    "bool": (10, "DT_BOOL", "BOOL"),
    "uint16": (17, "DT_UINT16", "UINT16"),
    "float16": (19, "DT_HALF", "FP16"),
    "uint32": (22, "DT_UINT32", "UINT32"),
    "uint64": (23, "DT_UINT64", "UINT64"),
}
_NUMPY = {key: name for name, keys in _TYPES.items() for key in keys}


@dataclass(frozen=True)
class Input:
    """One input: numpy's name of its type ("object" for texts) and its shape; −1: any size; None: any rank."""

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Target:
    """Which model a request is for; an empty version or signature leaves the choice to the server."""

    model: str
    version: str = ""
    signature: str = ""


def inputs(endpoint: Endpoint, target: Target) -> dict[str, Input]:
    """The model's inputs by name; none if the signature is unknown, so that the server itself says so.

    Raises:
        AnsweredError: the server's own error, such as for a version that does not exist.
        DeploymentError: it does not answer, or with something else than metadata.
        ConfigError: an input's type that no request can carry.
    """
    ask: Any = {
        ("tfserving", "rest"): _tensorflow_rest,
        ("tfserving", "grpc"): _tensorflow_grpc,
        ("triton", "rest"): _triton_rest,
        ("triton", "grpc"): _triton_grpc,
    }[endpoint.framework, endpoint.protocols()[0]]
    try:
        found: dict[str, tuple[Any, list[int] | None]] = ask(endpoint, target)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        said = f"{type(error).__name__}: {error}"
        raise DeploymentError(f"{endpoint.label} did not answer with a model's metadata ({said})") from error
    return {name: Input(_numpy_type(name, dtype), _shape(shape)) for name, (dtype, shape) in sorted(found.items())}


def _shape(shape: list[int] | None) -> tuple[int, ...] | None:
    return None if shape is None else tuple(int(size) for size in shape)


def _numpy_type(name: str, dtype: Any) -> str:
    if dtype not in _NUMPY:
        known = ", ".join(kserve for _, _, kserve in _TYPES.values())
        raise ConfigError(f"the input {name!r} has the type {dtype}; accepted: {known}")
    return _NUMPY[dtype]


def _tensorflow_rest(endpoint: Endpoint, target: Target) -> dict[str, Any]:
    part = f"/versions/{target.version}" if target.version else ""
    path = f"/v1/models/{quote(target.model, safe='')}{part}/metadata"
    told = json.loads(fetch(endpoint.rest, "GET", path, timeout_s=_PATIENCE_S, ca=endpoint.ca))
    signatures = told["metadata"]["signature_def"]["signature_def"]
    wanted = signatures.get(target.signature or DEFAULT_SIGNATURE, {"inputs": {}})
    return {
        name: (one["dtype"], None if (s := one["tensor_shape"])["unknown_rank"] else [d["size"] for d in s["dim"]])
        for name, one in wanted["inputs"].items()
    }


def _tensorflow_grpc(endpoint: Endpoint, target: Target) -> dict[str, Any]:
    from infscale.payloads.protos import tensorflow

    request = tensorflow["GetModelMetadataRequest"](metadata_field=["signature_def"])
    _fill_spec(request.model_spec, Target(target.model, target.version))
    body = call(endpoint.grpc, _TF_METADATA, request.SerializeToString(), timeout_s=_PATIENCE_S, ca=endpoint.ca)
    told = tensorflow["GetModelMetadataResponse"].FromString(body).metadata["signature_def"].value
    signatures = tensorflow["SignatureDefMap"].FromString(told).signature_def
    name = target.signature or DEFAULT_SIGNATURE
    return {
        alias: (one.dtype, None if (s := one.tensor_shape).unknown_rank else [d.size for d in s.dim])
        for alias, one in (signatures[name].inputs.items() if name in signatures else ())
    }


def _triton_rest(endpoint: Endpoint, target: Target) -> dict[str, Any]:
    part = f"/versions/{quote(target.version, safe='')}" if target.version else ""
    path = f"/v2/models/{quote(target.model, safe='')}{part}"
    told = json.loads(fetch(endpoint.rest, "GET", path, timeout_s=_PATIENCE_S, ca=endpoint.ca))
    return {one["name"]: (one["datatype"], one["shape"]) for one in told["inputs"]}


def _triton_grpc(endpoint: Endpoint, target: Target) -> dict[str, Any]:
    from infscale.payloads.protos import triton

    request = triton["ModelMetadataRequest"](name=target.model, version=target.version)
    body = call(endpoint.grpc, _TRITON_METADATA, request.SerializeToString(), timeout_s=_PATIENCE_S, ca=endpoint.ca)
    return {one.name: (one.datatype, one.shape) for one in triton["ModelMetadataResponse"].FromString(body).inputs}


# ------------------------------------------------------------------------------------------ requests


def _kind(array: npt.NDArray[Any]) -> tuple[int, str, str]:
    name = "object" if array.dtype.kind in "OSU" else array.dtype.name
    if name not in _TYPES:
        raise ConfigError(f"payload: arrays of type {array.dtype} cannot be sent; accepted: {', '.join(_TYPES)}")
    return _TYPES[name]


def _texts(array: npt.NDArray[Any]) -> list[bytes]:
    return [text if isinstance(text, bytes) else str(text).encode() for text in array.ravel().tolist()]


def _plain(array: npt.NDArray[Any]) -> Any:
    """Nested lists for JSON; floats as the shortest decimals that give the same value back."""
    if array.dtype.kind == "f":
        return json_rows(array)
    if array.dtype.kind not in "OSU":
        return array.tolist()
    listed = np.empty(array.size, object)
    listed[:] = [_text_json(text) for text in _texts(array)]
    return listed.reshape(array.shape).tolist()


def _text_json(text: bytes) -> Any:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(text).decode()}


def tensorflow_json(target: Target, tensors: Tensors) -> bytes:
    """A REST body in TensorFlow Serving's columnar format."""
    signature = {"signature_name": target.signature} if target.signature else {}
    document = {**signature, "inputs": {name: _plain(array) for name, array in tensors.items()}}
    return json.dumps(document, separators=(",", ":")).encode()


def tensorflow_message(target: Target, tensors: Tensors) -> bytes:
    """A serialised PredictRequest."""
    from infscale.payloads.protos import tensorflow

    request = tensorflow["PredictRequest"]()
    _fill_spec(request.model_spec, target)
    for name, array in tensors.items():
        tensor = request.inputs[name]
        tensor.dtype = _kind(array)[0]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        if array.dtype.kind in "OSU":
            tensor.string_val.extend(_texts(array))
        else:
            tensor.tensor_content = _little(array)
    return bytes(request.SerializeToString(deterministic=True))


def _fill_spec(spec: Any, target: Target) -> None:
    spec.name, spec.signature_name = target.model, target.signature
    if target.version:
        spec.version.value = int(target.version)


def _little(array: npt.NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def triton_json(_: Target, tensors: Tensors) -> bytes:
    """A REST body of the KServe v2 protocol, data as JSON."""
    described = [{**_v2(name, a), "data": _plain(a.ravel())} for name, a in tensors.items()]
    return json.dumps({"inputs": described}, separators=(",", ":")).encode()


def _v2(name: str, array: npt.NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": _kind(array)[2], "shape": list(array.shape)}


def triton_message(target: Target, tensors: Tensors) -> bytes:
    """A serialised ModelInferRequest, data as raw bytes (a text as its length in four bytes and itself)."""
    from infscale.payloads.protos import triton

    request = triton["ModelInferRequest"](model_name=target.model, model_version=target.version)
    for name, array in tensors.items():
        request.inputs.add(**_v2(name, array))
        texts = _texts(array) if array.dtype.kind in "OSU" else None
        raw = _little(array) if texts is None else b"".join(len(t).to_bytes(4, "little") + t for t in texts)
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString(deterministic=True))


def from_json(framework: str, document: Any, known: dict[str, Input]) -> Tensors:
    """The tensors that a framework's REST body holds, in the types that the model's inputs have.

    Raises:
        ConfigError: it is none of the framework's bodies, or no tensor of that type.
    """
    read = {"tfserving": _from_tensorflow, "triton": _from_triton}[framework]
    try:
        return read(document, known)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        shapes = {"tfserving": '{"instances": …} or {"inputs": …}', "triton": '{"inputs": [{"name": …, "data": …}]}'}
        raise ConfigError(f"payload: not a request of {framework} ({error}); accepted: {shapes[framework]}") from error


def _array(name: str, value: Any, known: dict[str, Input]) -> npt.NDArray[Any]:
    dtype = known[name].dtype if name in known else None
    return np.array(value, str if dtype == "object" else dtype)


def _from_tensorflow(document: Any, known: dict[str, Input]) -> Tensors:
    rows = document.get("instances")
    columns = document["inputs"] if rows is None else rows
    if rows is not None and isinstance(rows[0], dict) and set(rows[0]) <= set(known):
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    if not isinstance(columns, dict):
        (only,) = known
        columns = {only: columns}
    return {name: _array(name, value, known) for name, value in columns.items()}


def _from_triton(document: Any, known: dict[str, Input]) -> Tensors:
    return {t["name"]: _array(t["name"], t["data"], known).reshape(t["shape"]) for t in document["inputs"]}
