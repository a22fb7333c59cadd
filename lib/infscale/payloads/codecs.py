"""Encoders from rows to the bytes of a request body, and decoders from the bytes of an answer to rows.

Floats in JSON are written as the shortest decimals that give the same fp32 back, which is the least that a client can
send; ``json.dumps(x.tolist())`` on float64 would double the bytes.
"""

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from infscale.models.reference import Array, Rows

Encode = Callable[[str, Rows], bytes]
"""Takes a model's name and rows of shape (batch, …); returns a request body."""
Decode = Callable[[bytes], Array]
"""Takes the body of an answer; returns float32 of shape (batch, …)."""

# ------------------------------------------------------------------------------------------ any framework


def json_rows(rows: Rows) -> Any:
    """Return rows as nested lists; each float is the one whose ``json.dumps`` is shortest for the same fp32."""
    if rows.dtype == np.uint8:
        return rows.tolist()
    shortest = np.array([float(text) for text in rows.ravel().astype("U32")])
    return shortest.reshape(rows.shape).tolist()


def instances(_: str, rows: Rows) -> bytes:
    """Return ``{"instances": […]}`` with one entry for each row."""
    return json.dumps({"instances": json_rows(rows)}, separators=(",", ":")).encode()


def predictions(body: bytes) -> Array:
    """Return the rows under ``predictions`` in a JSON answer."""
    return np.array(json.loads(body)["predictions"], dtype=np.float32)


def raw(_: str, rows: Rows) -> bytes:
    """Return the bytes of the rows: little-endian fp32, uint8 pixels, or files one after the other."""
    if rows.dtype.kind == "S":
        return b"".join(rows.tolist())
    return rows.tobytes() if rows.dtype == np.uint8 else rows.astype("<f4").tobytes()


def from_raw(body: bytes) -> Array:
    """Return little-endian fp32 as a flat array."""
    return np.frombuffer(body, dtype="<f4").astype(np.float32)


def npy(_: str, rows: Rows) -> bytes:
    """Return the rows as a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, rows if rows.dtype == np.uint8 else rows.astype("<f4"))
    return file.getvalue()


def from_npy(body: bytes) -> Array:
    """Return the rows of a ``.npy`` file."""
    rows: Array = np.load(io.BytesIO(body), allow_pickle=False).astype(np.float32)
    return rows


def b64(model: str, rows: Rows) -> bytes:
    """Return JSON with the bytes of all rows as one base64 text."""
    return json.dumps({"b64": base64.b64encode(raw(model, rows)).decode()}, separators=(",", ":")).encode()


# ------------------------------------------------------------------------------------- TensorFlow Serving


def tf_b64(model: str, rows: Rows) -> bytes:
    """Return JSON for the signature ``from_bytes``: one base64 text a row, which REST takes instead of numbers."""
    texts = [{"b64": base64.b64encode(raw(model, rows[i : i + 1])).decode()} for i in range(len(rows))]
    return json.dumps({"signature_name": "from_bytes", "instances": texts}, separators=(",", ":")).encode()


def tf_request(model: str, rows: Rows) -> bytes:
    """Return a ``PredictRequest`` with numbers as ``tensor_content`` and files as ``string_val``."""
    from infscale.payloads.messages import DT_FLOAT, DT_STRING, DT_UINT8, tensorflow

    request = tensorflow["PredictRequest"]()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = {"f": DT_FLOAT, "u": DT_UINT8, "S": DT_STRING}[rows.dtype.kind]
    for size in rows.shape:
        tensor.tensor_shape.dim.add(size=size)
    if rows.dtype.kind == "S":
        tensor.string_val.extend(rows.tolist())
    else:
        tensor.tensor_content = raw(model, rows)
    return bytes(request.SerializeToString(deterministic=True))


def tf_float_val(model: str, rows: Rows) -> bytes:
    """Return a ``PredictRequest`` with repeated floats: as many bytes as ``tensor_content``, for another decoder."""
    from infscale.payloads.messages import tensorflow

    request = tensorflow["PredictRequest"].FromString(tf_request(model, rows))
    tensor = request.inputs["x"]
    tensor.ClearField("tensor_content")
    tensor.float_val.extend(rows.ravel().tolist())
    return bytes(request.SerializeToString(deterministic=True))


def tf_answer(body: bytes) -> Array:
    """Return the rows of a ``PredictResponse``."""
    from infscale.payloads.messages import tensorflow

    tensor = tensorflow["PredictResponse"].FromString(body).outputs["y"]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val)
    return values.astype(np.float32).reshape(shape)


# --------------------------------------------------------------------------------------------- TorchServe


def ts_message(model: str, key: str, body: bytes, version: str = "") -> bytes:
    """Return a ``PredictionsRequest`` with ``body`` under ``key``; an empty version leaves the choice to the server."""
    from infscale.payloads.messages import torchserve

    message = torchserve["PredictionsRequest"](model_name=model, model_version=version, input={key: body})
    return bytes(message.SerializeToString(deterministic=True))


def ts_prediction(body: bytes) -> bytes:
    """Return the bytes that a ``PredictionResponse`` carries."""
    from infscale.payloads.messages import torchserve

    return bytes(torchserve["PredictionResponse"].FromString(body).prediction)


def ts_json(model: str, rows: Rows) -> bytes:
    """Return a ``PredictionsRequest`` that carries JSON."""
    return ts_message(model, "json", instances(model, rows))


def ts_json_answer(body: bytes) -> Array:
    """Return the rows of a ``PredictionResponse`` that carries JSON."""
    return predictions(ts_prediction(body))


def ts_npy(model: str, rows: Rows) -> bytes:
    """Return a ``PredictionsRequest`` that carries a ``.npy`` file."""
    return ts_message(model, "npy", npy(model, rows))


def ts_npy_answer(body: bytes) -> Array:
    """Return the rows of a ``PredictionResponse`` that carries a ``.npy`` file."""
    return from_npy(ts_prediction(body))


def ts_raw(model: str, rows: Rows) -> bytes:
    """Return a ``PredictionsRequest`` that carries the bytes of the rows."""
    return ts_message(model, "raw", raw(model, rows))


def ts_raw_answer(body: bytes) -> Array:
    """Return the flat fp32 values of a ``PredictionResponse``."""
    return from_raw(ts_prediction(body))


# ----------------------------------------------------------- KServe v2 (Open Inference Protocol): Triton


def v2_input(rows: Rows) -> dict[str, object]:
    """Return the description of the input tensor, without its data."""
    shape = [len(rows), 1] if rows.dtype.kind == "S" else list(rows.shape)
    return {"name": "x", "shape": shape, "datatype": {"f": "FP32", "u": "UINT8", "S": "BYTES"}[rows.dtype.kind]}


def v2_json(_: str, rows: Rows) -> bytes:
    """Return a JSON request with the numbers in it."""
    return _v2_document(v2_input(rows) | {"data": json_rows(rows.ravel())})


def v2_bytes(model: str, rows: Rows) -> bytes:
    """Return the data of a binary tensor; each file has its length before it (KServe's binary tensor extension)."""
    if rows.dtype.kind != "S":
        return raw(model, rows)
    return b"".join(len(row).to_bytes(4, "little") + row for row in rows.tolist())


def _v2_document(tensor: dict[str, object], **more: object) -> bytes:
    """Return the JSON of a request with one input."""
    return json.dumps({"inputs": [tensor], **more}, separators=(",", ":")).encode()


def v2_head(rows: Rows) -> bytes:
    """Return the JSON that precedes the bytes of a binary tensor; it is equally long for all bodies of a shape."""
    tensor = v2_input(rows) | {"parameters": {"binary_data_size": len(v2_bytes("", rows))}}
    head = _v2_document(tensor, parameters={"binary_data_output": True})
    # One header gives this length for all bodies of a pool, and files differ in the digits of their size: pad.
    return head.ljust(192) if rows.dtype.kind == "S" else head


def v2_head_length(rows: Rows) -> dict[str, str]:
    """Return the header that gives the length of :func:`v2_head` in bytes."""
    return {"inference-header-content-length": str(len(v2_head(rows)))}


def v2_raw(model: str, rows: Rows) -> bytes:
    """Return a request with a binary tensor: the JSON head, then the bytes."""
    return v2_head(rows) + v2_bytes(model, rows)


def v2_answer(body: bytes) -> Array:
    """Return the rows of an answer in either form: data inside the JSON, or bytes right behind it."""
    document, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    tensor = document["outputs"][0]
    values = np.array(tensor["data"], np.float32) if "data" in tensor else from_raw(body[end:])
    return values.reshape(tensor["shape"])


def triton_request(model: str, rows: Rows) -> bytes:
    """Return a ``ModelInferRequest`` with the bytes of the rows as ``raw_input_contents``."""
    from infscale.payloads.messages import triton

    request = triton["ModelInferRequest"](model_name=model, raw_input_contents=[v2_bytes(model, rows)])
    request.inputs.add(**v2_input(rows))
    return bytes(request.SerializeToString(deterministic=True))


def triton_contents(model: str, rows: Rows) -> bytes:
    """Return a ``ModelInferRequest`` with repeated floats (``fp32_contents``); its answer comes in raw bytes."""
    from infscale.payloads.messages import triton

    request = triton["ModelInferRequest"](model_name=model)
    tensor = request.inputs.add(**v2_input(rows))
    tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    return bytes(request.SerializeToString(deterministic=True))


def triton_answer(body: bytes) -> Array:
    """Return the rows of a ``ModelInferResponse``."""
    from infscale.payloads.messages import triton

    answer = triton["ModelInferResponse"].FromString(body)
    return from_raw(answer.raw_output_contents[0]).reshape(list(answer.outputs[0].shape))
