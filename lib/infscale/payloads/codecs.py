"""From rows to the bytes of a request body, and from those of an answer to rows: a function for each encoding.

Floats in JSON are the shortest decimals that give the same fp32 back, which is the least a client can send;
``json.dumps(x.tolist())`` on float64 would double the bytes.
"""

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from infscale.models.reference import Array, Rows

Encode = Callable[[str, Rows], bytes]
Decode = Callable[[bytes], Array]


def json_rows(rows: Rows) -> Any:
    """Nested lists of numbers; of floats, those whose ``json.dumps`` is the shortest that gives the same fp32 back."""
    if rows.dtype == np.uint8:
        return rows.tolist()
    shortest = np.array([float(text) for text in rows.ravel().astype("U32")])
    return shortest.reshape(rows.shape).tolist()


def instances(_: str, rows: Rows) -> bytes:
    """JSON with one entry of ``instances`` a row."""
    return json.dumps({"instances": json_rows(rows)}, separators=(",", ":")).encode()


def predictions(body: bytes) -> Array:
    """The rows of a JSON answer's ``predictions``."""
    return np.array(json.loads(body)["predictions"], dtype=np.float32)


def raw(_: str, rows: Rows) -> bytes:
    """Little-endian fp32, pixels, or files one after the other."""
    if rows.dtype.kind == "S":
        return b"".join(rows.tolist())
    return rows.tobytes() if rows.dtype == np.uint8 else rows.astype("<f4").tobytes()


def b64(_: str, rows: Rows) -> bytes:
    """JSON with all rows' bytes as one base64 text."""
    return json.dumps({"b64": base64.b64encode(raw(_, rows)).decode()}, separators=(",", ":")).encode()


def tf_b64(_: str, rows: Rows) -> bytes:
    """A string tensor for the signature ``from_bytes``: what TF Serving's REST takes instead of numbers."""
    coded = [{"b64": base64.b64encode(raw(_, rows[i : i + 1])).decode()} for i in range(len(rows))]
    return json.dumps({"signature_name": "from_bytes", "instances": coded}, separators=(",", ":")).encode()


def npy(_: str, rows: Rows) -> bytes:
    """A numpy file of the rows."""
    file = io.BytesIO()
    np.save(file, rows if rows.dtype == np.uint8 else rows.astype("<f4"))
    return file.getvalue()


def from_npy(body: bytes) -> Array:
    """The rows of a numpy file."""
    rows: Array = np.load(io.BytesIO(body), allow_pickle=False).astype(np.float32)
    return rows


def from_raw(body: bytes) -> Array:
    """Little-endian fp32 as a flat array."""
    return np.frombuffer(body, dtype="<f4").astype(np.float32)


def tf_request(model: str, rows: Rows) -> bytes:
    """A ``PredictRequest`` with the rows as ``tensor_content``; files as ``string_val``."""
    from infscale.payloads.protos import DT_FLOAT, DT_STRING, DT_UINT8, tensorflow

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
    """The tensor as repeated floats: as many bytes as ``tensor_content``, another decoder."""
    from infscale.payloads.protos import tensorflow

    request = tensorflow["PredictRequest"].FromString(tf_request(model, rows))
    tensor = request.inputs["x"]
    tensor.ClearField("tensor_content")
    tensor.float_val.extend(rows.ravel().tolist())
    return bytes(request.SerializeToString(deterministic=True))


def tf_answer(body: bytes) -> Array:
    """The rows of a ``PredictResponse``."""
    from infscale.payloads.protos import tensorflow

    tensor = tensorflow["PredictResponse"].FromString(body).outputs["y"]
    shape = [d.size for d in tensor.tensor_shape.dim]
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val)
    return values.astype(np.float32).reshape(shape)


def ts_request(key: str) -> Encode:
    """TorchServe's ``PredictionsRequest`` around the encoding called ``key``."""

    def encode(model: str, rows: Rows) -> bytes:
        from infscale.payloads.protos import torchserve

        body = {"json": instances, "npy": npy, "raw": raw}[key](model, rows)
        message = torchserve["PredictionsRequest"](model_name=model, input={key: body})
        return bytes(message.SerializeToString(deterministic=True))

    return encode


def ts_answer(inner: Decode) -> Decode:
    """The decoder of a ``PredictionResponse`` around ``inner``."""

    def decode(body: bytes) -> Array:
        from infscale.payloads.protos import torchserve

        return inner(torchserve["PredictionResponse"].FromString(body).prediction)

    return decode


def v2_json(_: str, rows: Rows) -> bytes:
    """KServe v2 JSON with the numbers in it."""
    return compact(v2_input(rows) | {"data": json_rows(rows.ravel())})


def v2_input(rows: Rows) -> dict[str, Any]:
    """The description of the input tensor, without its data."""
    shape = [len(rows), 1] if rows.dtype.kind == "S" else list(rows.shape)
    return {"name": "x", "shape": shape, "datatype": {"f": "FP32", "u": "UINT8", "S": "BYTES"}[rows.dtype.kind]}


def v2_bytes(model: str, rows: Rows) -> bytes:
    """A tensor in binary: files have their length before them (KServe's binary tensor data extension)."""
    if rows.dtype.kind != "S":
        return raw(model, rows)
    return b"".join(len(row).to_bytes(4, "little") + row for row in rows.tolist())


def compact(tensor: dict[str, Any], **more: Any) -> bytes:
    """The JSON of a request with one input."""
    return json.dumps({"inputs": [tensor], **more}, separators=(",", ":")).encode()


def v2_head(rows: Rows) -> bytes:
    """The JSON that precedes the bytes of a binary tensor: equal for all bodies of a shape."""
    tensor = v2_input(rows) | {"parameters": {"binary_data_size": len(v2_bytes("", rows))}}
    head = compact(tensor, parameters={"binary_data_output": True})
    # The header that tells its length is one for all bodies, and files differ in length.
    return head.ljust(192) if rows.dtype.kind == "S" else head


def v2_raw(model: str, rows: Rows) -> bytes:
    """KServe v2's binary tensor: the JSON head, then the bytes."""
    return v2_head(rows) + v2_bytes(model, rows)


def v2_head_length(rows: Rows) -> dict[str, str]:
    """The header that tells how long the head is."""
    return {"inference-header-content-length": str(len(v2_head(rows)))}


def v2_answer(body: bytes) -> Array:
    """Both forms of an answer: JSON with the data in it, or JSON with the bytes of the tensor right behind it."""
    parsed, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    tensor = parsed["outputs"][0]
    values = np.array(tensor["data"], np.float32) if "data" in tensor else from_raw(body[end:])
    return values.reshape(tensor["shape"])


def triton_request(model: str, rows: Rows) -> bytes:
    """A ``ModelInferRequest`` with the rows' bytes as ``raw_input_contents``."""
    from infscale.payloads.protos import triton

    request = triton["ModelInferRequest"](model_name=model, raw_input_contents=[v2_bytes(model, rows)])
    request.inputs.add(**v2_input(rows))
    return bytes(request.SerializeToString(deterministic=True))


def triton_contents(model: str, rows: Rows) -> bytes:
    """The tensor as repeated floats (``fp32_contents``) instead of raw bytes; the answer comes raw."""
    from infscale.payloads.protos import triton

    request = triton["ModelInferRequest"](model_name=model)
    tensor = request.inputs.add(**v2_input(rows))
    tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    return bytes(request.SerializeToString(deterministic=True))


def triton_answer(body: bytes) -> Array:
    """The rows of a ``ModelInferResponse``."""
    from infscale.payloads.protos import triton

    answer = triton["ModelInferResponse"].FromString(body)
    return from_raw(answer.raw_output_contents[0]).reshape(list(answer.outputs[0].shape))
