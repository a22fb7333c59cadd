"""Writing arrays as a predict response in JSON, in the layout of the C++ server's pretty writer.

Row format keeps a row on one line; columnar format puts each number on an indented line of its own.
"""

import base64
import json
import math
import re
from typing import Any

import numpy as np
import orjson

from infscale.servers.asgi.status import invalid
from infscale.servers.embedded.runtime.tensors import Array

_INDENT = "    "
_ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|\\)")  # escaped backslashes too, so that none starts a match
_WRITABLE = frozenset("float32 float64 int32 int16 int8 uint8 int64 uint32 uint64 bool object".split())  # noqa: SIM905
_TYPE_NAMES = {"float16": "half"}
_MOST_DIGITS = {"float32": 9, "float64": 17}
_NOT_FINITE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
# Between these, the plain notation of orjson and the real server's agree.
_PLAIN_FROM, _PLAIN_TO = 1e-4, 1e6


def decimal(value: Any) -> str:
    """Return a NumPy float scalar as the shortest text that reads back as the same value, ``.0`` added if whole."""
    return numbers(np.array([value]))[0]


def numbers(flat: Array) -> list[str]:
    """Return the JSON texts of a one-dimensional array of numbers or booleans.

    Floats have the fewest digits that read back as the same float32 (or float64). orjson writes those forty times
    faster than Python could; the few whose exponent the real server would write are written here.
    """
    if flat.size == 0:
        return []
    texts = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")
    if flat.dtype.kind == "f":
        size = np.abs(flat)
        odd = ((size < _PLAIN_FROM) & (flat != 0)) | ~(size < _PLAIN_TO)
        for position in odd.nonzero()[0].tolist():
            texts[position] = _decimal(flat[position])
    return texts


def _decimal(value: Any) -> str:
    """Return a number as C's %g writes it, with six digits, or as many more as it takes to read the same value back."""
    number = float(value)
    for digits in range(6, _MOST_DIGITS[value.dtype.name] + 1):
        text = f"%.{digits}g" % number
        if value.dtype.type(text) == value:
            break
    if text in _NOT_FINITE:
        return _NOT_FINITE[text]
    return text if "." in text or "e" in text else text + ".0"


def quoted(text: str) -> str:
    """Return a JSON string as RapidJSON writes it: only necessary escapes, with upper-case hexadecimal digits."""
    return _ESCAPE.sub(lambda match: match[0][:2] + match[0][2:].upper(), json.dumps(text, ensure_ascii=False))


def error_body(message: str) -> bytes:
    """Return the body of an error response."""
    return f'{{\n    "error": {quoted(message)}\n}}'.encode("utf-8", "surrogateescape")


def rows(outputs: dict[str, Array]) -> bytes:
    """Return a response in row format: one element of ``predictions`` per index of the first dimension.

    Raises:
        StatusError: INVALID_ARGUMENT if an output has no batch dimension, or they differ in it.
    """
    batch = _batch_size(outputs)
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        elements = _elements(name, array, 2)
    else:
        columns = [(quoted(name), _elements(name, array, 3)) for name, array in outputs.items()]
        elements = [
            "\n        {" + ",".join(f"\n            {key}: {column[item]}" for key, column in columns) + "\n        }"
            for item in range(batch)
        ]
    joined = (", " if len(outputs) == 1 else ",").join(elements)
    end = "\n    ]" if batch else "]"
    return _encoded(f'{{\n    "predictions": [{joined}{end}\n}}')


def columns(outputs: dict[str, Array]) -> bytes:
    """Return a response in columnar format: each output as a whole, without its name if it is the only one."""
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        text = _nested(_texts(name, array, array.ndim + 1), list(array.shape), 1)
    else:
        members = [
            f"\n        {quoted(name)}: " + _nested(_texts(name, array, array.ndim + 2), list(array.shape), 2)
            for name, array in outputs.items()
        ]
        text = "{" + ",".join(members) + "\n    }"
    return _encoded(f'{{\n    "outputs": {text}\n}}')


def _batch_size(outputs: dict[str, Array]) -> int:
    batch = -1
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch >= 0 and len(array) != batch:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch}")
        batch = len(array)
    return batch


def _elements(name: str, array: Array, depth: int) -> list[str]:
    """Return the text of each element along the first dimension, on one line."""
    texts = _texts(name, array, depth + array.ndim - 1)
    for level in range(array.ndim - 1, 0, -1):
        size = array.shape[level]
        texts = _joined(texts, size) if size else ["[]"] * math.prod(array.shape[:level])
    return texts


def _joined(texts: list[str], size: int) -> list[str]:
    return ["[" + ", ".join(texts[i : i + size]) + "]" for i in range(0, len(texts), size)]


def _nested(texts: list[str], shape: list[int], depth: int) -> str:
    """Return nested lists with every element on a line of its own, indented by its depth."""
    for level in range(len(shape) - 1, -1, -1):
        size = shape[level]
        if 0 in shape[: level + 1]:
            texts = ["[]"] * math.prod(shape[:level])
            continue
        inner = "\n" + _INDENT * (depth + level + 1)
        end = "\n" + _INDENT * (depth + level) + "]"
        texts = ["[" + inner + ("," + inner).join(texts[i : i + size]) + end for i in range(0, len(texts), size)]
    return texts[0]


def _texts(name: str, array: Array, depth: int) -> list[str]:
    """Return every value as JSON; ``depth`` is the number of lists and objects around it."""
    if array.dtype.name not in _WRITABLE:
        kind = _TYPE_NAMES.get(array.dtype.name, array.dtype.name)
        raise invalid(f"Failed to write JSON value for tensor type: {kind}")
    flat = array.ravel()
    if array.dtype.kind != "O":
        return numbers(flat)
    if not name.endswith("_bytes"):
        return [quoted(value.decode("utf-8", "surrogateescape")) for value in flat.tolist()]
    inner, end = "\n" + _INDENT * (depth + 1), "\n" + _INDENT * depth
    return ["{" + inner + f'"b64": "{base64.b64encode(value).decode()}"' + end + "}" for value in flat.tolist()]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
