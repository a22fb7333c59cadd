"""Any tensor as a request: models of a user's own have inputs of any name, type and shape.

The functions come in pairs for the two APIs that take tensors by name: TensorFlow Serving's, and KServe v2's, which
Triton speaks.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infscale.errors import ConfigError
from infscale.payloads.codecs import json_rows

Tensor = npt.NDArray[Any]
"""An array of numbers, booleans or texts; texts are arrays of ``str`` or ``bytes``."""
Tensors = dict[str, Tensor]
"""Arrays by the name of the input."""

# numpy's name: (TensorFlow's number, TensorFlow's name in JSON, KServe's name)
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
    """One input of a model.

    Attributes:
        dtype: numpy's name of its type; "object" for texts.
        shape: −1 stands for any size; None for any number of dimensions.
    """

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Target:
    """The model that a request is for; an empty version or signature leaves the choice to the server."""

    model: str
    version: str = ""
    signature: str = ""


def numpy_type(input_name: str, dtype: int | str) -> str:
    """Return numpy's name of a type that TensorFlow or KServe names.

    Raises:
        ConfigError: no request can carry that type.
    """
    if dtype not in _NUMPY:
        accepted = ", ".join(kserve for _, _, kserve in _TYPES.values())
        raise ConfigError(f"the input {input_name!r} has the type {dtype}; accepted: {accepted}")
    return _NUMPY[dtype]


def _names(array: Tensor) -> tuple[int, str, str]:
    """Return the names of an array's type in the two APIs."""
    name = "object" if array.dtype.kind in "OSU" else array.dtype.name
    if name not in _TYPES:
        raise ConfigError(f"payload: arrays of type {array.dtype} cannot be sent; accepted: {', '.join(_TYPES)}")
    return _TYPES[name]


def _texts(array: Tensor) -> list[bytes]:
    return [text if isinstance(text, bytes) else str(text).encode() for text in array.ravel().tolist()]


def _little_endian(array: Tensor) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _nested_lists(array: Tensor) -> Any:
    """Return an array as JSON takes it; floats are the shortest decimals that give the same value back."""
    if array.dtype.kind == "f":
        return json_rows(array)
    if array.dtype.kind not in "OSU":
        return array.tolist()
    texts = np.empty(array.size, object)
    texts[:] = [_json_text(text) for text in _texts(array)]
    return texts.reshape(array.shape).tolist()


def _json_text(text: bytes) -> str | dict[str, str]:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(text).decode()}


# -------------------------------------------------------------------------------- TensorFlow Serving's API


def tensorflow_json(target: Target, tensors: Tensors) -> bytes:
    """Return a REST body in TensorFlow Serving's columnar format."""
    signature = {"signature_name": target.signature} if target.signature else {}
    document = {**signature, "inputs": {name: _nested_lists(array) for name, array in tensors.items()}}
    return json.dumps(document, separators=(",", ":")).encode()


def tensorflow_message(target: Target, tensors: Tensors) -> bytes:
    """Return a serialised ``PredictRequest``."""
    from infscale.payloads.messages import tensorflow

    request = tensorflow["PredictRequest"]()
    fill_model_spec(request.model_spec, target)
    for name, array in tensors.items():
        tensor = request.inputs[name]
        tensor.dtype = _names(array)[0]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        if array.dtype.kind in "OSU":
            tensor.string_val.extend(_texts(array))
        else:
            tensor.tensor_content = _little_endian(array)
    return bytes(request.SerializeToString(deterministic=True))


def fill_model_spec(spec: Any, target: Target) -> None:
    """Write the target into a ``ModelSpec`` message."""
    spec.name, spec.signature_name = target.model, target.signature
    if target.version:
        spec.version.value = int(target.version)


# --------------------------------------------------------------------------------------------- KServe v2


def kserve_json(_: Target, tensors: Tensors) -> bytes:
    """Return a REST body of the KServe v2 protocol with the data in the JSON."""
    inputs = [{**_kserve_input(name, array), "data": _nested_lists(array.ravel())} for name, array in tensors.items()]
    return json.dumps({"inputs": inputs}, separators=(",", ":")).encode()


def kserve_message(target: Target, tensors: Tensors) -> bytes:
    """Return a serialised ``ModelInferRequest``."""
    return bytes(kserve_request(target, tensors).SerializeToString(deterministic=True))


def kserve_request(target: Target, tensors: Tensors) -> Any:
    """Return a ``ModelInferRequest`` with raw bytes; each text has its length before it in four bytes."""
    from infscale.payloads.messages import triton

    request = triton["ModelInferRequest"](model_name=target.model, model_version=target.version)
    for name, array in tensors.items():
        request.inputs.add(**_kserve_input(name, array))
        if array.dtype.kind in "OSU":
            raw = b"".join(len(text).to_bytes(4, "little") + text for text in _texts(array))
        else:
            raw = _little_endian(array)
        request.raw_input_contents.append(raw)
    return request


def _kserve_input(name: str, array: Tensor) -> dict[str, object]:
    return {"name": name, "datatype": _names(array)[2], "shape": list(array.shape)}
