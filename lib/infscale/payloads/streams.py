"""Requests for streams, and what their messages carry, for each framework that has streams."""

import json
import re

from infscale.models.stream import StreamPlan
from infscale.payloads.codecs import ts_message, ts_prediction

TRITON_ERRORS = re.compile(rb"\x0a[\x80-\xff]*[\x01-\x7f]")
"""Matches the beginning of a ``ModelStreamInferResponse`` that tells an error: field 1, its text, with its length.
Messages without an error lack that field."""

GRPC_ERRORS = {"/inference.GRPCInferenceService/ModelStreamInfer": TRITON_ERRORS}
"""Patterns of gRPC messages that tell that their stream failed, by method; of others the status tells it."""

JSON_ERRORS = re.compile(rb'(?=\s*\{\s*"(?:error"\s*:\s*+(?!null|false|""|\{\s*\}|\[\s*\])|object"\s*:\s*"error"))')
"""Matches the beginning of a JSON object that tells that its stream failed: a first member "error" that is not empty,
as Triton's and chat-completion interfaces send it, or "object": "error"."""


def plan_json(_: str, plan: StreamPlan) -> bytes:
    """Return the plan as JSON: for TorchServe's handler, and for Triton's ``generate_stream``."""
    return json.dumps(plan.fields(), separators=(",", ":")).encode()


def as_it_is(message: bytes) -> bytes:
    """Return a message that is nothing but its content: TorchServe's chunk."""
    return message


def ts_plan(model: str, plan: StreamPlan) -> bytes:
    """Return a ``PredictionsRequest`` that carries the plan as JSON."""
    return ts_message(model, "data", plan_json(model, plan))


def ts_content(message: bytes) -> bytes:
    """Return the content of a ``PredictionResponse`` of a stream."""
    return ts_prediction(message)


def triton_plan(model: str, plan: StreamPlan) -> bytes:
    """Return a ``ModelInferRequest`` with the numbers of the plan as inputs of one int64 each."""
    from infscale.payloads.messages import triton

    fields = plan.fields()
    contents = [value.to_bytes(8, "little", signed=True) for value in fields.values()]
    request = triton["ModelInferRequest"](model_name=model, raw_input_contents=contents)
    for name in fields:
        request.inputs.add(name=name, shape=[1], datatype="INT64")
    return bytes(request.SerializeToString(deterministic=True))


def triton_content(message: bytes) -> bytes:
    """Return the text in a ``ModelStreamInferResponse``; nothing for one that tells an error.

    A text is one of the tensor's strings, with its length in four bytes before it.
    """
    from infscale.payloads.messages import triton

    contents = triton["ModelStreamInferResponse"].FromString(message).infer_response.raw_output_contents
    return bytes(contents[0][4:]) if contents else b""


def generate_content(data: bytes) -> bytes:
    """Return the text in an event of Triton's ``generate_stream``; nothing for one that tells an error."""
    return str(json.loads(data).get("text", "")).encode()


def events(body: bytes) -> list[bytes]:
    """Return the data of the events in a whole body of server-sent events, as Triton sends them: one line each."""
    return [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
