"""The gRPC API: message framing, compression and status, and the methods of both services.

Nothing of a gRPC library is needed on this side: Envoy speaks HTTP/2, and a unary call is one framed message each way.
"""

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping
from urllib.parse import quote

from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

from infscale.tfserving import predict, status, tensors
from infscale.tfserving.errors import Code, StatusError, invalid
from infscale.tfserving.models import Models
from infscale.tfserving.server import Server

MAX_MESSAGE_BYTES = 1 << 30
_MAX_STATUS_BYTES = 1024
_TRUNCATED = "...TRUNCATED"
_TIMEOUT_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

_PREDICTION = "/tensorflow.serving.PredictionService/"
_PREDICT = _PREDICTION + "Predict"
_MODEL = "/tensorflow.serving.ModelService/"
_RELOAD = _MODEL + "HandleReloadConfigRequest"


async def handle(server: Server, path: str, headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    """Answer one call with the framed response message.

    Raises:
        StatusError: the status that the call ends with.
    """
    if path not in (_PREDICT, _RELOAD) and path not in _METHODS:
        raise StatusError(Code.UNIMPLEMENTED, "")
    data = unframe(body, headers.get(b"grpc-encoding", b"identity"))
    try:
        if path == _PREDICT:
            message = await _predict(server, data, timeout_seconds(headers))
        elif path == _RELOAD:
            message = await _reload(server.models, data)
        else:
            message = _METHODS[path](server.models, data)
    except DecodeError:
        raise StatusError(Code.INTERNAL, "Failed to parse the request message") from None
    answer: bytes = message.SerializeToString()
    return b"\0" + len(answer).to_bytes(4, "big") + answer


def unframe(body: bytes, encoding: bytes) -> bytes:
    """Return the one message in a request body, decompressed.

    Raises:
        StatusError: INTERNAL for a broken frame, UNIMPLEMENTED for an unknown encoding.
    """
    if len(body) < 5 or len(body) != 5 + int.from_bytes(body[1:5], "big") or body[0] > 1:
        raise StatusError(Code.INTERNAL, "The request is not one gRPC message")
    if body[0] == 0:
        return body[5:]
    if encoding not in (b"gzip", b"deflate"):
        raise StatusError(Code.UNIMPLEMENTED, f"Compression algorithm {encoding.decode('latin1')!r} is not supported")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by its header
    try:
        message = inflater.decompress(body[5:], MAX_MESSAGE_BYTES)
    except zlib.error as error:
        raise StatusError(Code.INTERNAL, f"Failed to decompress the request message: {error}") from None
    if not inflater.eof:
        raise StatusError(Code.RESOURCE_EXHAUSTED, "The decompressed request message is too large or incomplete")
    return message


def status_headers(code: Code, message: str) -> list[tuple[bytes, bytes]]:
    """Return the headers or trailers that carry a status: long messages are cut, and percent-encoded."""
    headers = [(b"grpc-status", b"%d" % code)]
    if message:
        data = message.encode("utf-8", "replace")
        if len(data) > _MAX_STATUS_BYTES:
            kept = data[: _MAX_STATUS_BYTES - len(_TRUNCATED)].decode("utf-8", "ignore")
            data = (kept + _TRUNCATED).encode()
        headers.append((b"grpc-message", quote(data, safe=_UNQUOTED).encode()))
    return headers


_UNQUOTED = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def timeout_seconds(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the deadline a client set, or None; a malformed one counts as none."""
    text = headers.get(b"grpc-timeout", b"").decode("latin1")
    if not text or text[-1] not in _TIMEOUT_UNITS or not (text[:-1].isascii() and text[:-1].isdigit()):
        return None
    return int(text[:-1][:12]) * _TIMEOUT_UNITS[text[-1]]


def _target(spec: model_pb2.ModelSpec) -> tuple[str, int | None, str | None]:
    version = spec.version.value if spec.HasField("version") else None
    return spec.name, version, spec.version_label or None


async def _predict(server: Server, data: bytes, timeout: float | None) -> Message:
    started, code = time.perf_counter(), Code.OK
    request = predict_pb2.PredictRequest.FromString(data)
    try:
        return await _prediction(server, request, timeout)
    except StatusError as error:
        code = error.code
        raise
    finally:
        server.count(request.model_spec.name, "Predict", "GRPC", code, started)


async def _prediction(server: Server, request: predict_pb2.PredictRequest, timeout: float | None) -> Message:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    servable = server.models.find(*_target(request.model_spec))
    signature = predict.signature_of(servable, request.model_spec.signature_name)
    predict.check_names(signature, request.inputs)
    inputs = {alias: tensors.decode(proto, alias) for alias, proto in request.inputs.items()}
    predict.check_types(signature, {alias: proto.dtype for alias, proto in request.inputs.items()})
    wanted = list(request.output_filter)
    predict.check_outputs(signature, wanted)
    predict.fill_defaults(signature, inputs)
    outputs = await server.run(servable, signature, inputs, wanted, timeout)
    response = predict_pb2.PredictResponse()
    response.model_spec.name = servable.name
    response.model_spec.signature_name = signature.name
    response.model_spec.version.value = servable.version
    for alias, array in outputs.items():
        tensors.encode(array, response.outputs[alias])
    message: Message = response
    return message


async def _reload(models: Models, data: bytes) -> Message:
    config = model_management_pb2.ReloadConfigRequest.FromString(data).config
    if config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )
    await asyncio.get_running_loop().run_in_executor(None, models.reload, config)
    response: Message = model_management_pb2.ReloadConfigResponse()
    response.status.SetInParent()  # type: ignore[attr-defined]
    return response


def _get_model_metadata(models: Models, data: bytes) -> Message:
    request = get_model_metadata_pb2.GetModelMetadataRequest.FromString(data)
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    response: Message = status.model_metadata(models, *_target(request.model_spec), list(request.metadata_field))
    return response


def _get_model_status(models: Models, data: bytes) -> Message:
    request = get_model_status_pb2.GetModelStatusRequest.FromString(data)
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    response: Message = status.model_status(models, *_target(request.model_spec))
    return response


def _unsupported(name: str) -> Callable[[Models, bytes], Message]:
    def method(models: Models, data: bytes) -> Message:
        raise StatusError(Code.UNIMPLEMENTED, f"{name} API is not supported yet")

    return method


_METHODS: dict[str, Callable[[Models, bytes], Message]] = {
    _PREDICTION + "GetModelMetadata": _get_model_metadata,
    _PREDICTION + "Classify": _unsupported("Classify"),
    _PREDICTION + "Regress": _unsupported("Regress"),
    _PREDICTION + "MultiInference": _unsupported("MultiInference"),
    _MODEL + "GetModelStatus": _get_model_status,
}
