"""Reading a predict request in JSON into arrays, with the C++ server's rules about types, shapes and precision.

The fast way gives whole nested lists to NumPy, and accepts the result if its type proves that every element was
acceptable. Anything doubtful goes the slow way, value by value, which knows the error texts. RapidJSON, the real
server's parser, reads what orjson cannot: NaN, and the texts and offsets of errors.
"""

import functools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import rapidjson
from tensorflow.core.framework import types_pb2

from infscale.servers.asgi.status import StatusError, invalid
from infscale.servers.embedded.api import jsonvalues
from infscale.servers.embedded.runtime import tensors
from infscale.servers.embedded.runtime.servable import Signature
from infscale.servers.embedded.runtime.tensors import Array

Object = dict[str, Any]
"""A JSON object, as it was parsed."""

_NUMBERS = rapidjson.NM_NATIVE | rapidjson.NM_NAN
_AFTER_ROOT = "The document root must not be followed by other values."


def parse(body: bytes) -> Object:
    """Return the JSON object that a body starts with; text after it is ignored.

    Raises:
        StatusError: INVALID_ARGUMENT with RapidJSON's text and offset.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = _loads(body.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except RecursionError:
        raise invalid("JSON Parse error: Terminate parsing due to Handler error. at offset: 0") from None
    except rapidjson.JSONDecodeError as error:
        where, _, text = str(error).partition(": ")
        raise invalid(f"JSON Parse error: {text} at offset: {where.rpartition(' ')[2]}") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {jsonvalues.text_of(document)} Is not object")
    return document


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return rapidjson.loads(body, number_mode=_NUMBERS)
    except rapidjson.JSONDecodeError as error:
        where, _, text = str(error).partition(": ")
        if text != _AFTER_ROOT:
            raise
        return rapidjson.loads(body[: int(where.rpartition(" ")[2])], number_mode=_NUMBERS)


def signature_name(document: Object) -> str:
    """Return the signature a request names, empty for the default one."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        text = "not formatted correctly. 'signature_name' key must be a string value."
        raise invalid(f"JSON Value: {jsonvalues.text_of(document)} {text}")
    return name


def inputs(document: Object, signature: Signature, body: bytes) -> tuple[bool, dict[str, Array]]:
    """Return whether the request is in row format, and its inputs by alias.

    Raises:
        StatusError: INVALID_ARGUMENT, naming the first element that does not fit.
    """
    if "instances" in document:
        rows = document["instances"]
        if "inputs" in document:
            text = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
            raise invalid(f"JSON Value: {jsonvalues.text_of(document)} {text}")
        if not isinstance(rows, list):
            raise invalid(f"JSON Value: {jsonvalues.text_of(document)} Excepting 'instances' to be an list/array")
        if not rows:
            raise invalid(f"JSON Value: {jsonvalues.text_of(document)} No values in 'instances' array")
        return True, _fast_rows(rows, signature, Reader(body)) or _slow_rows(rows, signature)
    if "inputs" in document:
        return False, _columns(document["inputs"], signature, Reader(body))
    raise invalid("Missing 'inputs' or 'instances' key")


class Reader:
    """The fast way. NumPy would take ``true`` for 1, so that a body with a boolean is read the slow way."""

    def __init__(self, body: bytes) -> None:
        # One letter first: searching for it is ten times faster, and it is seldom there.
        self._booleans = (b"r" in body and b"true" in body) or (b"l" in body and b"false" in body)

    def read(self, values: Any, dtype: int) -> Array | None:
        """Return the tensor, or None if the slow way has to read it, or to find what is wrong."""
        if dtype == types_pb2.DT_STRING or self._booleans:
            return None
        packed = _packed(values) if dtype == types_pb2.DT_FLOAT else None
        if packed is not None and _all_below(packed, jsonvalues.FLOATS[dtype]):
            return packed
        try:
            array = np.array(values)
        except (ValueError, OverflowError, RecursionError):  # ragged, or too deep for NumPy
            return None
        if array.size == 0 or array.dtype.kind not in "iuf":
            return None
        if dtype in jsonvalues.FLOATS:
            array = array.astype(np.float64, copy=False)  # as RapidJSON reads every number, before it is rounded
            fits = _all_below(array, jsonvalues.FLOATS[dtype])
        else:
            least, most = jsonvalues.INTEGERS.get(dtype, (1, 0))
            fits = array.dtype.kind in "iu" and least <= int(array.min()) and int(array.max()) <= most
        return array.astype(tensors.numpy_type(dtype)) if fits else None


def _packed(rows: Any) -> Array | None:
    """Return equally long lists of numbers as float32, three times faster than NumPy; None for anything else."""
    if type(rows) is not list or not rows or type(rows[0]) is not list:
        return None
    size = len(rows[0])
    if not all(type(row) is list and len(row) == size for row in rows):
        return None
    pack = _packer(size)
    try:
        data = b"".join([pack(*row) for row in rows])
    except (struct.error, OverflowError):  # not numbers, or too large ones
        return None
    return np.frombuffer(data, np.float32).reshape(len(rows), size)


@functools.lru_cache(64)
def _packer(size: int) -> Callable[..., bytes]:
    return struct.Struct(f"{size}f").pack


def _all_below(array: Array, limit: float) -> bool:
    """Return whether all values of an array of floats are below a limit in size, and none is NaN."""
    if np.vdot(array, array) < limit * limit:  # one pass, enough for nearly all
        return True
    return bool(-limit < array.min() and array.max() < limit)


def _fast_rows(rows: list[Any], signature: Signature, reader: Reader) -> dict[str, Array] | None:
    names = list(signature.inputs)
    if not isinstance(rows[0], dict):
        array = reader.read(rows, signature.dtypes[names[0]]) if len(names) == 1 else None
        return None if array is None else {names[0]: array}
    expected = set(names)
    if not all(isinstance(row, dict) and row.keys() == expected for row in rows):
        return None
    arrays = {name: reader.read([row[name] for row in rows], signature.dtypes[name]) for name in names}
    complete = {name: array for name, array in arrays.items() if array is not None}
    return complete if len(complete) == len(names) else None


def _slow_rows(rows: list[Any], signature: Signature) -> dict[str, Array]:
    if not isinstance(rows[0], dict) and len(signature.inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    objects = jsonvalues.is_named(rows[0])
    columns = {name: jsonvalues.Column(dtype) for name, dtype in signature.dtypes.items()}
    for index, row in enumerate(rows):
        if objects != jsonvalues.is_named(row):
            expected, got = ("object", "list") if objects else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {got} at item {index} of input list")
        if objects:
            _add_object(row, index, columns)
        else:
            try:
                next(iter(columns.values())).add(row)
            except StatusError as error:
                raise invalid(f"Failed to process element: {index} of 'instances' list. Error: {error}") from None
    return {name: column.array() for name, column in columns.items()}


def _add_object(row: Object, index: int, columns: dict[str, jsonvalues.Column]) -> None:
    for name, value in row.items():
        try:
            if name not in columns:
                raise invalid(f"JSON object: does not have named input: {jsonvalues.cut(name)}")
            columns[name].add(value)
        except StatusError as error:
            raise invalid(
                f"Failed to process element: {index} key: {jsonvalues.cut(name)} of 'instances' list. Error: {error}"
            ) from None
    if row.keys() != columns.keys():
        text = f"JSON object: {jsonvalues.text_of(row)} keys must be equal to: {','.join(sorted(columns))}"
        raise invalid(f"Failed to process element: {index} of 'instances' list. {text}")


def _columns(values: Any, signature: Signature, reader: Reader) -> dict[str, Array]:
    if jsonvalues.is_named(values):
        for name in signature.inputs:
            if name not in values:
                raise invalid(f"Missing named input: {name} in 'inputs' object.")
        named = values
    elif len(signature.inputs) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    else:
        named = {next(iter(signature.inputs)): values}
    return {name: _column(named[name], dtype, reader) for name, dtype in signature.dtypes.items()}


def _column(value: Any, dtype: int, reader: Reader) -> Array:
    array = reader.read(value, dtype)
    if array is not None:
        return array
    return jsonvalues.whole(value, dtype)
