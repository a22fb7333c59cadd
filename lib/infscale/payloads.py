"""Payloads: pools of pre-encoded request bodies, and the decoders of their responses.

An encoding is how a tensor becomes bytes. The table :data:`ENCODERS` lists what each framework takes
over each protocol. Floats in JSON are the shortest decimals that give the same fp32 back, which is
the least a client can send; ``json.dumps(x.tolist())`` on float64 would double the bytes.
"""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infscale.errors import ConfigError, one_of
from infscale.models import Array, Rows, inputs, model

PROTOCOLS = ("rest", "grpc")

Encode = Callable[[str, Rows], bytes]
Decode = Callable[[bytes], Array]


@dataclass(frozen=True)
class Payload:
    """A pool of request bodies for one model, protocol and encoding.

    Attributes:
        protocol: "rest" or "grpc".
        encoding: a key of :data:`ENCODERS` for the framework and protocol.
        path: HTTP path, or ``/package.Service/Method`` for gRPC.
        headers: beside what the protocol itself needs.
        bodies: HTTP bodies, or serialised protobuf messages without the gRPC frame.
        decode: body of an answer → float32 array of shape (batch, …).
    """

    protocol: str
    encoding: str
    path: str
    bodies: list[bytes]
    decode: Decode
    headers: dict[str, str] = field(default_factory=dict)


def json_rows(rows: Rows) -> Any:
    """Nested lists of numbers; of floats, those whose ``json.dumps`` is the shortest that gives the same fp32 back."""
    if rows.dtype == np.uint8:
        return rows.tolist()
    shortest = np.array([float(text) for text in rows.ravel().astype("U32")])
    return shortest.reshape(rows.shape).tolist()


def _instances(_: str, rows: Rows) -> bytes:
    return json.dumps({"instances": json_rows(rows)}, separators=(",", ":")).encode()


def _predictions(body: bytes) -> Array:
    return np.array(json.loads(body)["predictions"], dtype=np.float32)


def _raw(_: str, rows: Rows) -> bytes:
    """Little-endian fp32, pixels, or files one after the other."""
    if rows.dtype.kind == "S":
        return b"".join(rows.tolist())
    return rows.tobytes() if rows.dtype == np.uint8 else rows.astype("<f4").tobytes()


def _b64(_: str, rows: Rows) -> bytes:
    return json.dumps({"b64": base64.b64encode(_raw(_, rows)).decode()}, separators=(",", ":")).encode()


def _tf_b64(_: str, rows: Rows) -> bytes:
    """A string tensor for the signature ``from_bytes``: what TF Serving's REST takes instead of numbers."""
    coded = [{"b64": base64.b64encode(_raw(_, rows[i : i + 1])).decode()} for i in range(len(rows))]
    return json.dumps({"signature_name": "from_bytes", "instances": coded}, separators=(",", ":")).encode()


def _npy(_: str, rows: Rows) -> bytes:
    file = io.BytesIO()
    np.save(file, rows if rows.dtype == np.uint8 else rows.astype("<f4"))
    return file.getvalue()


def _from_npy(body: bytes) -> Array:
    rows: Array = np.load(io.BytesIO(body), allow_pickle=False).astype(np.float32)
    return rows


def _from_raw(body: bytes) -> Array:
    return np.frombuffer(body, dtype="<f4").astype(np.float32)


def _tf_request(model: str, rows: Rows) -> bytes:
    from infscale.protos import DT_FLOAT, DT_STRING, DT_UINT8, tensorflow

    request = tensorflow["PredictRequest"]()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = {"f": DT_FLOAT, "u": DT_UINT8, "S": DT_STRING}[rows.dtype.kind]
    for size in rows.shape:
        tensor.tensor_shape.dim.add(size=size)
    if rows.dtype.kind == "S":
        tensor.string_val.extend(rows.tolist())
    else:
        tensor.tensor_content = _raw(model, rows)
    return bytes(request.SerializeToString(deterministic=True))


def _tf_float_val(model: str, rows: Rows) -> bytes:
    """The tensor as repeated floats: as many bytes as ``tensor_content``, another decoder."""
    from infscale.protos import tensorflow

    request = tensorflow["PredictRequest"].FromString(_tf_request(model, rows))
    tensor = request.inputs["x"]
    tensor.ClearField("tensor_content")
    tensor.float_val.extend(rows.ravel().tolist())
    return bytes(request.SerializeToString(deterministic=True))


def _tf_answer(body: bytes) -> Array:
    from infscale.protos import tensorflow

    tensor = tensorflow["PredictResponse"].FromString(body).outputs["y"]
    shape = [d.size for d in tensor.tensor_shape.dim]
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val)
    return values.astype(np.float32).reshape(shape)


def _ts_request(key: str) -> Encode:
    def encode(model: str, rows: Rows) -> bytes:
        from infscale.protos import torchserve

        body = {"json": _instances, "npy": _npy, "raw": _raw}[key](model, rows)
        message = torchserve["PredictionsRequest"](model_name=model, input={key: body})
        return bytes(message.SerializeToString(deterministic=True))

    return encode


def _ts_answer(inner: Decode) -> Decode:
    def decode(body: bytes) -> Array:
        from infscale.protos import torchserve

        return inner(torchserve["PredictionResponse"].FromString(body).prediction)

    return decode


def _v2_json(_: str, rows: Rows) -> bytes:
    return _compact(_v2_input(rows) | {"data": json_rows(rows.ravel())})


def _v2_input(rows: Rows) -> dict[str, Any]:
    shape = [len(rows), 1] if rows.dtype.kind == "S" else list(rows.shape)
    return {"name": "x", "shape": shape, "datatype": {"f": "FP32", "u": "UINT8", "S": "BYTES"}[rows.dtype.kind]}


def _v2_bytes(model: str, rows: Rows) -> bytes:
    """A tensor in binary: files have their length before them (KServe's binary tensor data extension)."""
    if rows.dtype.kind != "S":
        return _raw(model, rows)
    return b"".join(len(row).to_bytes(4, "little") + row for row in rows.tolist())


def _compact(tensor: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": [tensor], **more}, separators=(",", ":")).encode()


def _v2_head(rows: Rows) -> bytes:
    """The JSON that precedes the bytes of a binary tensor: equal for all bodies of a shape."""
    tensor = _v2_input(rows) | {"parameters": {"binary_data_size": len(_v2_bytes("", rows))}}
    head = _compact(tensor, parameters={"binary_data_output": True})
    # The header that tells its length is one for all bodies, and files differ in length.
    return head.ljust(192) if rows.dtype.kind == "S" else head


def _v2_raw(model: str, rows: Rows) -> bytes:
    return _v2_head(rows) + _v2_bytes(model, rows)


def _v2_head_length(rows: Rows) -> dict[str, str]:
    return {"inference-header-content-length": str(len(_v2_head(rows)))}


def _v2_answer(body: bytes) -> Array:
    """Both forms of an answer: JSON with the data in it, or JSON with the bytes of the tensor right behind it."""
    parsed, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    tensor = parsed["outputs"][0]
    values = np.array(tensor["data"], np.float32) if "data" in tensor else _from_raw(body[end:])
    return values.reshape(tensor["shape"])


def _triton_request(model: str, rows: Rows) -> bytes:
    from infscale.protos import triton

    request = triton["ModelInferRequest"](model_name=model, raw_input_contents=[_v2_bytes(model, rows)])
    request.inputs.add(**_v2_input(rows))
    return bytes(request.SerializeToString(deterministic=True))


def _triton_contents(model: str, rows: Rows) -> bytes:
    """The tensor as repeated floats (``fp32_contents``) instead of raw bytes; the answer comes raw."""
    from infscale.protos import triton

    request = triton["ModelInferRequest"](model_name=model)
    tensor = request.inputs.add(**_v2_input(rows))
    tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    return bytes(request.SerializeToString(deterministic=True))


def _triton_answer(body: bytes) -> Array:
    from infscale.protos import triton

    answer = triton["ModelInferResponse"].FromString(body)
    return _from_raw(answer.raw_output_contents[0]).reshape(list(answer.outputs[0].shape))


JSON = "application/json"
OCTETS = "application/octet-stream"
TF_PREDICT = "/tensorflow.serving.PredictionService/Predict"
V2_INFER = "/v2/models/{model}/infer"
TRITON_INFER = "/inference.GRPCInferenceService/ModelInfer"
TORCHSERVE_PREDICT = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"


@dataclass(frozen=True)
class Encoder:
    """How one framework takes one encoding: path (``{model}`` is filled in), content type, both codecs.

    ``headers`` gives, from the rows of one body, headers that every body of that shape needs.
    """

    path: str
    content_type: str | None
    encode: Encode
    decode: Decode
    headers: Callable[[Rows], dict[str, str]] = lambda _: {}


ENCODERS: dict[tuple[str, str], dict[str, Encoder]] = {
    ("tfserving", "rest"): {
        "json": Encoder("/v1/models/{model}:predict", JSON, _instances, _predictions),
        "b64": Encoder("/v1/models/{model}:predict", JSON, _tf_b64, _predictions),
    },
    ("tfserving", "grpc"): {
        "protobuf": Encoder(TF_PREDICT, None, _tf_request, _tf_answer),
        "float_val": Encoder(TF_PREDICT, None, _tf_float_val, _tf_answer),
    },
    ("torchserve", "rest"): {
        "json": Encoder("/predictions/{model}", JSON, _instances, _predictions),
        "raw": Encoder("/predictions/{model}", OCTETS, _raw, _from_raw),
        "npy": Encoder("/predictions/{model}", "application/x-npy", _npy, _from_npy),
        "b64": Encoder("/predictions/{model}", JSON, _b64, _predictions),
    },
    ("torchserve", "grpc"): {
        "raw": Encoder(TORCHSERVE_PREDICT, None, _ts_request("raw"), _ts_answer(_from_raw)),
        "json": Encoder(TORCHSERVE_PREDICT, None, _ts_request("json"), _ts_answer(_predictions)),
        "npy": Encoder(TORCHSERVE_PREDICT, None, _ts_request("npy"), _ts_answer(_from_npy)),
    },
    ("triton", "rest"): {
        "json": Encoder(V2_INFER, JSON, _v2_json, _v2_answer),
        "raw": Encoder(V2_INFER, OCTETS, _v2_raw, _v2_answer, _v2_head_length),
    },
    ("triton", "grpc"): {
        "protobuf": Encoder(TRITON_INFER, None, _triton_request, _triton_answer),
        "contents": Encoder(TRITON_INFER, None, _triton_contents, _triton_answer),
    },
    ("edge", "rest"): {
        "json": Encoder("/v1/models/{model}:predict", JSON, _instances, _predictions),
        "raw": Encoder("/v1/models/{model}:predict", OCTETS, _raw, _from_raw),
    },
    ("edge", "grpc"): {},
}
"""The first encoding of each entry is the one that F0 uses."""


_OF_FLOATS = {"float_val", "contents"}
_OF_FILES = {"b64", "raw", "protobuf"}


def taken(framework: str, protocol: str, name: str) -> dict[str, Encoder]:
    """The encodings of ``ENCODERS`` that carry a reference model's rows: a file fits no array of numbers."""
    known, dtype = ENCODERS.get((framework, protocol), {}), model(name).dtype
    if dtype == "float32":
        return known
    if framework == "edge":
        return {}
    fit = known.keys() - _OF_FLOATS if dtype == "uint8" else known.keys() & _OF_FILES
    return {encoding: encoder for encoding, encoder in known.items() if encoding in fit}


def most_rows(framework: str, name: str) -> int:
    """Rows that one request may carry: a file goes alone to TorchServe, whose bodies have no frame between files."""
    return 1 if framework == "torchserve" and model(name).dtype == "bytes" else MOST_ROWS


MOST_ROWS = 1 << 20

HTTP = ("1.1", "2")
"""Versions of HTTP that carry REST."""

H2C = ("tfserving", "edge")
"""What may take REST on HTTP/2 in clear text. TensorFlow Serving does when it is the embedded one (Envoy), as the edge.

Tried with prior knowledge: Triton closes the connection, TorchServe answers in HTTP/1.1 with an error.
"""


def check_http(framework: str, http: str) -> None:
    """Whether some server of ``framework`` speaks this version of HTTP over REST in clear text.

    Raises:
        ConfigError: none does.
    """
    if one_of("http", http, HTTP) == "2" and framework not in H2C:
        raise ConfigError(f"http='2': {framework}'s REST does not speak HTTP/2 in clear text; accepted: 1.1")


NO_GZIP = (("torchserve", "rest"), ("edge", "rest"))
"""(framework, protocol) whose server hands a compressed body to the model as it is. Tried: TorchServe answers 400."""


def check_gzip(framework: str, protocol: str, *, gzip: bool) -> None:
    """Whether ``framework`` takes compressed requests over ``protocol``, if they are to be.

    Raises:
        ConfigError: it does not.
    """
    if gzip and (framework, protocol) in NO_GZIP:
        raise ConfigError(f"gzip=True: {framework} takes no compressed body over {protocol}; accepted: False")


LIMITS = dict.fromkeys(("tfserving", "torchserve", "triton", "edge"), 64 << 20)
"""Most bytes of a message that each framework takes as this project deploys it."""


def check_batch(framework: str, protocol: str, encoding: str, name: str, batch: int) -> None:
    """Whether a request of ``batch`` rows of a reference model fits into a message, by the size of one of eight rows.

    Raises:
        ConfigError: it does not; with the limit.
    """
    if batch > most_rows(framework, name):
        raise ConfigError(f"batch={batch}: {framework} takes one row of {name} in a request; accepted: 1")
    count = min(8, most_rows(framework, name))
    rows = inputs(name, count)
    size = len(build(framework, protocol, name, rows, encoding=encoding, batch=count).bodies[0]) / count * batch
    if batch < 1 or size > LIMITS[framework]:
        most = int(batch * LIMITS[framework] / size) if size > 0 else 1
        raise ConfigError(
            f"batch={batch}: a request of about {max(size, 0) / 2**20:.0f} MiB passes {framework}'s limit of "
            f"{LIMITS[framework] >> 20} MiB; accepted with {encoding}: 1 to {most}"
        )


def default_encoding(framework: str, protocol: str) -> str:
    """The encoding that F0 uses: JSON over REST, binary tensors over gRPC."""
    one_of("framework", framework, {f for f, _ in ENCODERS})
    one_of("protocol", protocol, [p for p in PROTOCOLS if ENCODERS[framework, p]])
    return next(iter(ENCODERS[framework, protocol]))


def _default(framework: str, protocol: str, rows: Rows) -> str:
    default = default_encoding(framework, protocol)
    if rows.dtype.kind != "S" or default in _OF_FILES:
        return default
    return next(encoding for encoding in ENCODERS[framework, protocol] if encoding in _OF_FILES)


def build(framework: str, protocol: str, model: str, rows: Rows, *, encoding: str = "", batch: int = 1) -> Payload:
    """Encode ``rows`` of shape (n, …) into ``n // batch`` request bodies.

    Raises:
        ConfigError: the framework, protocol or encoding is unknown, or ``rows`` are fewer than ``batch``.
    """
    encoding = one_of("encoding", encoding or _default(framework, protocol, rows), ENCODERS[framework, protocol])
    if not 1 <= batch <= len(rows):
        raise ConfigError(f"batch={batch} cannot be cut from {len(rows)} rows; accepted: 1 to {len(rows)}")
    encoder = ENCODERS[framework, protocol][encoding]
    groups = [rows[i : i + batch] for i in range(0, len(rows) - batch + 1, batch)]
    headers = {"content-type": encoder.content_type} if encoder.content_type else {}
    headers |= encoder.headers(groups[0])
    bodies = [encoder.encode(model, group) for group in groups]
    return Payload(protocol, encoding, encoder.path.format(model=model), bodies, encoder.decode, headers)
