"""Reading JSON values into tensors, value by value: the slow way, which knows the real server's error texts."""

import binascii
import json
import math
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from infscale.servers.asgi.status import Code, StatusError, invalid
from infscale.servers.embedded.api.jsonout import decimal
from infscale.servers.embedded.runtime import tensors
from infscale.servers.embedded.runtime.tensors import Array

MAX_RANK = 32  # NumPy's
MAX_TEXT = 256
"""Most characters of a client's value that an error text quotes."""
FLOATS = {
    types_pb2.DT_FLOAT: float(np.finfo(np.float32).max),  # largest number
    types_pb2.DT_DOUBLE: float(np.finfo(np.float64).max),
}
INTEGERS = {
    types_pb2.DT_INT32: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT16: (-(2**31), 2**31 - 1),  # narrower types travel as int32 and wrap
    types_pb2.DT_INT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_UINT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: (0, 2**32 - 1),
    types_pb2.DT_UINT64: (0, 2**64 - 1),
}

_ENCODER = json.JSONEncoder(indent=4, ensure_ascii=False)


class Column:
    """The values of one input, one element of ``instances`` after the other; all have the first one's shape."""

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._flat: list[Any] = []
        self._shape: list[int] | None = None
        self._count = 0

    def add(self, value: Any) -> None:
        """Append one element, or raise INVALID_ARGUMENT."""
        shape = _shape(value)
        before = len(self._flat)
        _fill(value, 0, shape, self._dtype, self._flat)
        if self._shape is None:
            self._shape = shape
        elif len(self._flat) - before != math.prod(self._shape):
            size = len(self._flat) - before
            raise invalid(f"Expecting tensor size: {math.prod(self._shape)} but got: {size}")
        elif shape != self._shape:
            raise invalid(f"Expecting shape {_shape_text(self._shape)} but got: {_shape_text(shape)}")
        self._count += 1

    def array(self) -> Array:
        """Return the elements, batched."""
        return _build(self._flat, [self._count, *(self._shape or [])], self._dtype)


def whole(value: Any, dtype: int) -> Array:
    """Return the tensor that a value of any depth describes.

    Raises:
        StatusError: INVALID_ARGUMENT for the first element that does not fit.
    """
    flat: list[Any] = []
    shape = _shape(value)
    _fill(value, 0, shape, dtype, flat)
    return _build(flat, shape, dtype)


def _fill(value: Any, level: int, shape: list[int], dtype: int, flat: list[Any]) -> None:
    if isinstance(value, list):
        if level >= len(shape):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
            )
        for element in value:
            _fill(element, level + 1, shape, dtype, flat)
    elif level != len(shape):
        raise invalid(
            f"JSON Value: {text_of(value)} found at incorrect level: {level + 1} in the JSON DOM. "
            f"Expected at level: {len(shape)}"
        )
    else:
        flat.append(_scalar(value, dtype))


def _scalar(value: Any, dtype: int) -> Any:
    if dtype == types_pb2.DT_STRING:
        if isinstance(value, dict):
            return _base64(value)
        if isinstance(value, str):
            return value.encode()
    elif dtype in FLOATS:
        if type(value) in (int, float):
            return _in_range(value, dtype)
    elif dtype in INTEGERS:
        least, most = INTEGERS[dtype]
        if type(value) is int and least <= value <= most:
            return value
    elif dtype == types_pb2.DT_BOOL:
        if isinstance(value, bool):
            return value
    else:
        text = f"Conversion of JSON Value: {text_of(value)} to type: {tensors.type_name(dtype)}"
        raise StatusError(Code.UNIMPLEMENTED, text)
    expected = tensors.type_name(dtype)
    raise invalid(f"JSON Value: {text_of(value)} Type: {_kind(value)} is not of expected type: {expected}")


def _in_range(value: float, dtype: int) -> float:
    if FLOATS[dtype] < abs(value) < math.inf:
        raise invalid(
            f"Cannot convert JSON value: {text_of(value)} to {tensors.type_name(dtype)} without loss of precision."
        )
    return value


def _base64(value: dict[str, str]) -> bytes:
    if not _is_base64(value):
        raise invalid(f"JSON Value: {text_of(value)} not formatted correctly for base64 data")
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _build(flat: list[Any], shape: list[int], dtype: int) -> Array:
    if dtype == types_pb2.DT_STRING:
        array: Array = np.empty(len(flat), np.object_)
        array[:] = flat
    elif dtype in INTEGERS and dtype not in (types_pb2.DT_INT64, types_pb2.DT_UINT64):
        array = np.array(flat, np.int64).astype(tensors.numpy_type(dtype))
    else:
        array = np.array(flat, tensors.numpy_type(dtype))
    if len(shape) > MAX_RANK:
        raise invalid(f"Tensors of rank {len(shape)} are not supported")
    return array.reshape(shape)


def _shape(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _shape_text(shape: list[int]) -> str:
    return "[" + ",".join(str(size) for size in shape) + "]"


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def is_named(value: Any) -> bool:
    """Return whether a value is an object of named inputs, not one of base64 data."""
    return isinstance(value, dict) and not _is_base64(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    return {type(None): "Null", dict: "Object", list: "Array", str: "String"}.get(type(value), "Number")


def text_of(value: Any) -> str:
    """Return a value as error texts quote it; the end of a long one is left out, and not even written."""
    if isinstance(value, float):
        as_float = np.float32(value) if abs(value) <= np.finfo(np.float32).max else np.float64(value)
        return decimal(as_float)
    text = ""
    for part in _ENCODER.iterencode(value):
        text += part
        if len(text) > MAX_TEXT:
            break
    return cut(text)


def cut(text: str) -> str:
    """Return a client's text as error texts quote it: without the end of a long one."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."
