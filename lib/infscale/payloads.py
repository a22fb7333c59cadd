"""Payloads: pools of pre-encoded request bodies, and the decoders of their responses.

An encoding is how a tensor becomes bytes. The table :data:`ENCODERS` lists what each framework takes
over each protocol. Floats in JSON are the shortest decimals that give the same fp32 back, which is
the least a client can send; ``json.dumps(x.tolist())`` on float64 would double the bytes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infscale.errors import ConfigError, one_of
from infscale.models import Array

PROTOCOLS = ("rest", "grpc")

Encode = Callable[[str, Array], bytes]
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


def json_rows(rows: Array) -> Any:
    """Nested lists of floats whose ``json.dumps`` is the shortest that gives the same fp32 back."""
    shortest = np.array([float(text) for text in rows.ravel().astype("U32")])
    return shortest.reshape(rows.shape).tolist()


def _instances(_: str, rows: Array) -> bytes:
    return json.dumps({"instances": json_rows(rows)}, separators=(",", ":")).encode()


def _predictions(body: bytes) -> Array:
    return np.array(json.loads(body)["predictions"], dtype=np.float32)


def _raw(_: str, rows: Array) -> bytes:
    return rows.astype("<f4").tobytes()


def _from_raw(body: bytes) -> Array:
    return np.frombuffer(body, dtype="<f4").astype(np.float32)


def _tf_request(model: str, rows: Array) -> bytes:
    from infscale.protos import DT_FLOAT, tensorflow

    request = tensorflow["PredictRequest"]()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = DT_FLOAT
    for size in rows.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = rows.astype("<f4").tobytes()
    return bytes(request.SerializeToString(deterministic=True))


def _tf_answer(body: bytes) -> Array:
    from infscale.protos import tensorflow

    tensor = tensorflow["PredictResponse"].FromString(body).outputs["y"]
    shape = [d.size for d in tensor.tensor_shape.dim]
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val)
    return values.astype(np.float32).reshape(shape)


def _ts_request(key: str) -> Encode:
    def encode(model: str, rows: Array) -> bytes:
        from infscale.protos import torchserve

        body = _instances(model, rows) if key == "json" else _raw(model, rows)
        message = torchserve["PredictionsRequest"](model_name=model, input={key: body})
        return bytes(message.SerializeToString(deterministic=True))

    return encode


def _ts_answer(inner: Decode) -> Decode:
    def decode(body: bytes) -> Array:
        from infscale.protos import torchserve

        return inner(torchserve["PredictionResponse"].FromString(body).prediction)

    return decode


JSON = "application/json"
OCTETS = "application/octet-stream"
TF_PREDICT = "/tensorflow.serving.PredictionService/Predict"
TORCHSERVE_PREDICT = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"


@dataclass(frozen=True)
class Encoder:
    """How one framework takes one encoding: path (``{model}`` is filled in), content type, both codecs."""

    path: str
    content_type: str | None
    encode: Encode
    decode: Decode


ENCODERS: dict[tuple[str, str], dict[str, Encoder]] = {
    ("tfserving", "rest"): {
        "json": Encoder("/v1/models/{model}:predict", JSON, _instances, _predictions),
    },
    ("tfserving", "grpc"): {
        "protobuf": Encoder(TF_PREDICT, None, _tf_request, _tf_answer),
    },
    ("torchserve", "rest"): {
        "json": Encoder("/predictions/{model}", JSON, _instances, _predictions),
        "raw": Encoder("/predictions/{model}", OCTETS, _raw, _from_raw),
    },
    ("torchserve", "grpc"): {
        "raw": Encoder(TORCHSERVE_PREDICT, None, _ts_request("raw"), _ts_answer(_from_raw)),
        "json": Encoder(TORCHSERVE_PREDICT, None, _ts_request("json"), _ts_answer(_predictions)),
    },
}
"""The first encoding of each entry is the one that F0 uses."""


def default_encoding(framework: str, protocol: str) -> str:
    """The encoding that F0 uses: JSON over REST, binary tensors over gRPC."""
    one_of("protocol", protocol, PROTOCOLS)
    one_of("framework", framework, {f for f, _ in ENCODERS})
    return next(iter(ENCODERS[framework, protocol]))


def build(framework: str, protocol: str, model: str, rows: Array, *, encoding: str = "", batch: int = 1) -> Payload:
    """Encode ``rows`` of shape (n, …) into ``n // batch`` request bodies.

    Raises:
        ConfigError: the framework, protocol or encoding is unknown, or ``rows`` are fewer than ``batch``.
    """
    encoding = one_of("encoding", encoding or default_encoding(framework, protocol), ENCODERS[framework, protocol])
    if not 1 <= batch <= len(rows):
        raise ConfigError(f"batch={batch} cannot be cut from {len(rows)} rows; accepted: 1 to {len(rows)}")
    encoder = ENCODERS[framework, protocol][encoding]
    groups = [rows[i : i + batch] for i in range(0, len(rows) - batch + 1, batch)]
    headers = {"content-type": encoder.content_type} if encoder.content_type else {}
    bodies = [encoder.encode(model, group) for group in groups]
    return Payload(protocol, encoding, encoder.path.format(model=model), bodies, encoder.decode, headers)
