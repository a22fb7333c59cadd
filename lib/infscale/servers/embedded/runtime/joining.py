"""Joining the rows of several requests to one input, and splitting one output into the rows of each request."""

import math
from collections.abc import Sequence

import numpy as np

from infscale.servers.asgi.status import Code, StatusError, invalid
from infscale.servers.embedded.config import Batching
from infscale.servers.embedded.runtime.servable import Signature
from infscale.servers.embedded.runtime.tensors import Array

Inputs = dict[str, Array]

_MAX_PADDED_RANK = 6


def join(requests: Sequence[Inputs], signature: Signature, size: int, options: Batching) -> Inputs:
    """Return the inputs of all requests joined along dimension 0, filled up to ``size`` with copies of a row.

    Raises:
        StatusError: FAILED_PRECONDITION if shapes differ and may not be padded; INVALID_ARGUMENT if they cannot be.
    """
    joined = {}
    for alias, tensor in signature.inputs.items():
        arrays = [request[alias] for request in requests]
        if any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
            arrays = _padded(arrays, tensor, options.pad_variable_length_inputs)
        missing = size - sum(map(len, arrays))
        rows = next((array for array in reversed(arrays) if len(array)), None)  # the last request's, unless empty
        if missing > 0 and rows is not None:
            arrays = [*arrays, np.repeat(rows[:1], missing, axis=0)]
        joined[alias] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return joined


def _padded(arrays: list[Array], tensor: str, allowed: bool) -> list[Array]:
    ranks = {array.ndim for array in arrays}
    if not allowed or len(ranks) > 1:
        raise StatusError(
            Code.FAILED_PRECONDITION,
            f"Tensors with name '{tensor}' from different tasks have different shapes and padding is turned off. "
            "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal "
            "dimensions starting with the first dim.",
        )
    if max(ranks) > _MAX_PADDED_RANK:
        raise invalid("Only tensors with rank from 1 to 6 can be padded.")
    most = np.max([array.shape[1:] for array in arrays], axis=0)
    return [_pad(array, most) for array in arrays]


def _pad(array: Array, most: Array) -> Array:
    """Return an array enlarged at the end of each dimension but the first, with its own first value."""
    widths = [(0, 0)] + [(0, int(wanted) - has) for wanted, has in zip(most, array.shape[1:], strict=True)]
    if not any(after for _, after in widths):
        return array
    if array.size == 0:
        raise invalid("Got empty tensor in batch of non-empty tensors.")
    shape = [has + after for has, (_, after) in zip(array.shape, widths, strict=True)]
    padded = np.repeat(array.ravel()[:1], math.prod(shape)).reshape(shape)
    padded[tuple(slice(0, has) for has in array.shape)] = array
    return padded


def split(outputs: dict[str, Array], sizes: Sequence[int], padded_size: int) -> list[dict[str, Array]]:
    """Return each request's rows of the outputs.

    Raises:
        StatusError: FAILED_PRECONDITION if an output does not have a row for each row of the inputs.
    """
    _check_rows(outputs, padded_size)
    ends = np.cumsum(sizes).tolist()
    return [
        {alias: array[end - size : end] for alias, array in outputs.items()}
        for end, size in zip(ends, sizes, strict=True)
    ]


def _check_rows(outputs: dict[str, Array], size: int) -> None:
    for array in outputs.values():
        if np.ndim(array) == 0:
            raise StatusError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != size:
            raise StatusError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )
