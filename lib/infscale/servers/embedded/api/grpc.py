"""The gRPC API: the methods of both services."""

import asyncio
import time
from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

from infscale.servers.asgi.framing import frame, timeout_seconds, unframe
from infscale.servers.asgi.status import Code, StatusError, invalid
from infscale.servers.embedded.api import model_status as status
from infscale.servers.embedded.runtime import predict, tensors
from infscale.servers.embedded.runtime.models import Models
from infscale.servers.embedded.runtime.server import Server

_PREDICTION = "/tensorflow.serving.PredictionService/"
_PREDICT = _PREDICTION + "Predict"
_MODEL = "/tensorflow.serving.ModelService/"
_RELOAD = _MODEL + "HandleReloadConfigRequest"


async def handle(server: Server, path: str, headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    """Answer one call: return the framed response message.

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
    return frame(message.SerializeToString())


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
