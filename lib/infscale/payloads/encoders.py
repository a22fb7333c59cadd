"""Payloads: pools of pre-encoded request bodies, and the decoders of their responses.

An encoding is how a tensor becomes bytes. The table :data:`ENCODERS` lists what each framework takes
over each protocol; the functions themselves are in :mod:`infscale.payloads.codecs`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from infscale.errors import ConfigError, one_of
from infscale.models.reference import Rows, model
from infscale.payloads import codecs
from infscale.payloads.codecs import Decode, Encode
from infscale.vocabulary import PROTOCOLS


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
        "json": Encoder("/v1/models/{model}:predict", JSON, codecs.instances, codecs.predictions),
        "b64": Encoder("/v1/models/{model}:predict", JSON, codecs.tf_b64, codecs.predictions),
    },
    ("tfserving", "grpc"): {
        "protobuf": Encoder(TF_PREDICT, None, codecs.tf_request, codecs.tf_answer),
        "float_val": Encoder(TF_PREDICT, None, codecs.tf_float_val, codecs.tf_answer),
    },
    ("torchserve", "rest"): {
        "json": Encoder("/predictions/{model}", JSON, codecs.instances, codecs.predictions),
        "raw": Encoder("/predictions/{model}", OCTETS, codecs.raw, codecs.from_raw),
        "npy": Encoder("/predictions/{model}", "application/x-npy", codecs.npy, codecs.from_npy),
        "b64": Encoder("/predictions/{model}", JSON, codecs.b64, codecs.predictions),
    },
    ("torchserve", "grpc"): {
        "raw": Encoder(TORCHSERVE_PREDICT, None, codecs.ts_request("raw"), codecs.ts_answer(codecs.from_raw)),
        "json": Encoder(TORCHSERVE_PREDICT, None, codecs.ts_request("json"), codecs.ts_answer(codecs.predictions)),
        "npy": Encoder(TORCHSERVE_PREDICT, None, codecs.ts_request("npy"), codecs.ts_answer(codecs.from_npy)),
    },
    ("triton", "rest"): {
        "json": Encoder(V2_INFER, JSON, codecs.v2_json, codecs.v2_answer),
        "raw": Encoder(V2_INFER, OCTETS, codecs.v2_raw, codecs.v2_answer, codecs.v2_head_length),
    },
    ("triton", "grpc"): {
        "protobuf": Encoder(TRITON_INFER, None, codecs.triton_request, codecs.triton_answer),
        "contents": Encoder(TRITON_INFER, None, codecs.triton_contents, codecs.triton_answer),
    },
    ("edge", "rest"): {
        "json": Encoder("/v1/models/{model}:predict", JSON, codecs.instances, codecs.predictions),
        "raw": Encoder("/v1/models/{model}:predict", OCTETS, codecs.raw, codecs.from_raw),
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
