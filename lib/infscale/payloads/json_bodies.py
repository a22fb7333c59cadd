"""REST bodies of a user's own as gRPC messages, which carry what the server would read from the JSON.

As :mod:`infscale.payloads.tensors`, for TensorFlow Serving's API and KServe v2's.
"""

import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from infscale.payloads.tensors import Input, Target, Tensor, Tensors, kserve_request, numpy_type, tensorflow_message

_PARAMETER_FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
_FORM_OF_ANSWER = ("binary_data_output", "binary_data")  # parameters that REST alone has: gRPC answers in one form


def _flattened(values: Any) -> tuple[list[Any], list[int]]:
    """Return what nested lists hold, one value after the other, and the shape of the lists.

    Raises:
        ValueError: lists side by side are not equally long.
    """
    flat: list[Any] = [values]
    shape: list[int] = []
    while flat and all(isinstance(value, list) for value in flat):
        sizes = {len(value) for value in flat}
        if len(sizes) > 1:
            raise ValueError(f"lists side by side have {' and '.join(map(str, sorted(sizes)[:2]))} values")
        shape.append(sizes.pop())
        flat = [element for value in flat for element in value]
    return flat, shape


def _typed(name: str, flat: list[Any], dtype: str) -> Tensor:
    """Return JSON values as an array of an input's type: floats are rounded to it, and nothing is converted.

    Texts become bytes, since numpy's own type of texts would lose NULs at their end.

    Raises:
        ValueError: a value is of another type, or beyond the range of its own.
    """
    fits = _fits(dtype)
    for value in flat:
        if not fits(value):
            kind = "texts" if dtype == "object" else dtype
            raise ValueError(f"the input {name!r} takes {kind}, and not {json.dumps(value):.80}")
    return np.array([value.encode() if isinstance(value, str) else value for value in flat], dtype)


def _fits(dtype: str) -> Callable[[Any], bool]:
    """Return a function that says whether a JSON value is one of numpy's type."""
    if dtype == "object":
        return lambda value: isinstance(value, str | bytes)
    if dtype == "bool":
        return lambda value: isinstance(value, bool)
    if dtype.startswith("float"):
        limits = np.finfo(dtype)
        infinite = 2**limits.maxexp - 2 ** (limits.maxexp - limits.nmant - 2)  # the least that is rounded to infinity
        return lambda value: type(value) in (int, float) and not infinite <= abs(value) < math.inf
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    return lambda value: type(value) is int and least <= value <= most


# -------------------------------------------------------------------------------- TensorFlow Serving's API


def tensorflow_signature(document: Any) -> str:
    """Return the name of the signature that a REST body runs.

    Raises:
        AttributeError, TypeError: the document is no such body.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise TypeError(f"'signature_name' is {name!r:.80}, which is no text")
    return name or "serving_default"


def tensorflow_message_of(target: Target, document: Any, inputs: Mapping[str, Input]) -> bytes:
    """Return the ``PredictRequest`` for a REST body in row or columnar format, in the types of the model's inputs.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the document is no such body.
    """
    if not inputs:
        raise ValueError(f"the model has no signature {tensorflow_signature(document)!r}")
    if ("instances" in document) == ("inputs" in document):
        raise ValueError("it needs either 'instances' or 'inputs'")
    columns = document["inputs"] if "inputs" in document else _columns(document["instances"])
    if not _is_named(columns):
        if len(inputs) != 1:
            raise ValueError(f"its values need the names of inputs, which are {sorted(inputs)}")
        columns = {next(iter(inputs)): columns}
    tensors = {name: _tensor(name, values, inputs) for name, values in columns.items()}
    return tensorflow_message(replace(target, signature=document.get("signature_name", "")), tensors)


def _columns(rows: Any) -> Any:
    """Return rows of named inputs as a list for each input, and other rows as they are."""
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"'instances' is {rows!r:.80} and holds no rows")
    if not _is_named(rows[0]):
        return rows
    names = rows[0].keys()
    if any(row.keys() != names for row in rows):
        raise ValueError("its rows name different inputs")
    return {name: [row[name] for row in rows] for name in names}


def _tensor(name: str, values: Any, inputs: Mapping[str, Input]) -> Tensor:
    if name not in inputs:
        raise ValueError(f"{name!r} is not one of the inputs {sorted(inputs)}")
    flat, shape = _flattened(values)
    dtype = inputs[name].dtype
    if dtype == "object":
        flat = [_decoded(value["b64"]) if _is_base64(value) else value for value in flat]
    return _typed(name, flat, dtype).reshape(shape)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    """Return whether a value is an object of named inputs, not one of base64 data."""
    return isinstance(value, dict) and not _is_base64(value)


def _decoded(base64: str) -> bytes:
    """Return the bytes of base64, which may have white space in it and no padding, as TensorFlow Serving takes it."""
    text = "".join(base64.split()).rstrip("=")
    return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)


# --------------------------------------------------------------------------------------------- KServe v2


def kserve_message_of(target: Target, document: Any, _: Mapping[str, Input]) -> bytes:
    """Return the ``ModelInferRequest`` for a REST body of the KServe v2 protocol, in the types that the body names.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the document is no such body.
    """
    tensors: Tensors = {}
    for entry in document["inputs"]:
        if entry["name"] in tensors:
            raise ValueError(f"the input {entry['name']!r} is there twice")
        tensors[entry["name"]] = _kserve_tensor(entry)
    request = kserve_request(target, tensors)
    request.id = document.get("id", "")
    _copy_parameters(document, request)
    for entry, tensor in zip(document["inputs"], request.inputs, strict=True):
        _copy_parameters(entry, tensor)
    for entry in document.get("outputs", ()):
        _copy_parameters(entry, request.outputs.add(name=entry["name"]))
    return bytes(request.SerializeToString(deterministic=True))


def _kserve_tensor(entry: Any) -> Tensor:
    name, shape = entry["name"], entry["shape"]
    flat, _ = _flattened(entry["data"])
    if len(flat) != math.prod(shape):
        raise ValueError(f"the input {name!r} has {len(flat)} values for the shape {shape}")
    return _typed(name, flat, numpy_type(name, entry["datatype"])).reshape(shape)


def _copy_parameters(entry: Any, part: Any) -> None:
    """Copy the parameters of a request, an input or an output from JSON into the message for it."""
    for name, value in entry.get("parameters", {}).items():
        if name in _FORM_OF_ANSWER:
            continue
        if type(value) not in _PARAMETER_FIELDS:
            raise ValueError(f"the parameter {name!r} is {value!r:.80}; accepted: a text, a number, true or false")
        setattr(part.parameters[name], _PARAMETER_FIELDS[type(value)], value)
