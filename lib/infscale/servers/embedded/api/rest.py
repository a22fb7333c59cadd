"""The REST API: answers to a method, a path and a body."""

import functools
import json
import re
import time
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format

from infscale.servers.asgi.framing import MAX_MESSAGE_BYTES
from infscale.servers.asgi.status import Code, StatusError, http_status, invalid
from infscale.servers.embedded.api import jsonin, jsonout, jsonvalues
from infscale.servers.embedded.api import model_status as status
from infscale.servers.embedded.runtime import predict
from infscale.servers.embedded.runtime.models import Models
from infscale.servers.embedded.runtime.servable import DEFAULT_SIGNATURE, Servable
from infscale.servers.embedded.runtime.server import Server
from infscale.servers.embedded.versions import MAX_INT64

PREFLIGHT = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
]
"""Headers of the answer to OPTIONS, which a browser asks before it posts JSON from another origin (CORS)."""
_NAME = r"(?P<name>[^/:]+)"
_VERSION = r"(?:(?:/versions/(?P<version>[0-9]+))|(?:/labels/(?P<label>[^/:]+)))?"
_POST = re.compile(rf"/v1/models/{_NAME}{_VERSION}:(?P<verb>classify|regress|predict)", re.IGNORECASE)
_VERBS = ("predict", "classify", "regress")
_GET = re.compile(rf"/v1/models(?:/{_NAME})?{_VERSION}(?:/(?P<part>metadata))?", re.IGNORECASE)


def is_api(path: str) -> bool:
    """Return whether a path belongs to the API; others are 404 without JSON."""
    return path[:4].lower() == "/v1/"


def plain(body: bytes, encoding: bytes) -> bytes:
    """Return a body decompressed by its Content-Encoding; incomplete gzip counts as empty, as in the real server."""
    if b"gzip" not in encoding:
        return body
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: gzip
    try:
        text = inflater.decompress(body, MAX_MESSAGE_BYTES)
    except zlib.error:
        return b""
    return text if inflater.eof else b""


async def handle(server: Server, method: str, path: str, body: bytes, timeout: float | None) -> tuple[int, bytes]:
    """Answer one request: return HTTP status and JSON body."""
    started, request, code = time.perf_counter(), None, Code.OK
    try:
        request = route(method, path)
        answer = await _answer(server, request, body, timeout)
    except StatusError as error:
        code, answer = error.code, jsonout.error_body(error.message)
    if request is not None and method == "POST":
        server.count(request.name, request.verb, "REST", code, started)
    return http_status(code), answer


@dataclass(frozen=True)
class Route:
    """The request that a method and a path make."""

    verb: str
    name: str
    version: int | None
    label: str | None


@functools.lru_cache(1024)
def route(method: str, path: str) -> Route:
    """Return the request that a method and a path make; ``verb`` is predict, classify, regress, status or metadata.

    Raises:
        StatusError: INVALID_ARGUMENT if the API has no such request.
    """
    match = {"POST": _POST, "GET": _GET}[method].fullmatch(path) if method in ("POST", "GET") else None
    if match is None:
        raise invalid(f"Malformed request: {method} {path}")
    name = unquote(match["name"] or "")
    label = unquote(match["label"]) if match["label"] else None
    version = _version(match["version"])
    if method == "POST":
        if match["verb"] not in _VERBS:  # an upper-case verb matches the path, and then no method
            raise invalid(f"Malformed request: {method} {path}")
        return Route(match["verb"], name, version, label)
    if not name:
        raise invalid("Missing model name in request.")
    return Route("metadata" if match["part"] == "metadata" else "status", name, version, label)


async def _answer(server: Server, request: Route, body: bytes, timeout: float | None) -> bytes:
    models = server.models
    if request.verb == "predict":
        document = jsonin.parse(body)
        key = jsonin.signature_name(document)
        servable = models.find(request.name, request.version, request.label)
        return await _predict(server, servable, key, document, body, timeout)
    if request.verb == "status":
        return _status(models, request)
    if request.verb == "metadata":
        return _metadata(models.find(request.name, request.version, request.label))
    raise StatusError(Code.UNIMPLEMENTED, f"{request.verb.capitalize()} API is not supported yet")


def _version(text: str | None) -> int | None:
    if text is None:
        return None
    if len(text.lstrip("0")) > 19 or int(text) > MAX_INT64:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return int(text)


async def _predict(
    server: Server, servable: Servable, key: str, document: jsonin.Object, body: bytes, timeout: float | None
) -> bytes:
    signature = servable.signatures.get(key or DEFAULT_SIGNATURE)
    if signature is None:
        name = jsonvalues.cut(key or DEFAULT_SIGNATURE)
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {key or 'DEFAULT'}")
    try:
        in_rows, inputs = jsonin.inputs(document, signature, body)
    except RecursionError:
        raise invalid("JSON Value is nested too deeply") from None
    outputs = await server.run(servable, predict.signature_of(servable, key), inputs, (), timeout)
    return jsonout.rows(outputs) if in_rows else jsonout.columns(outputs)


def _status(models: Models, request: Route) -> bytes:
    response = status.model_status(models, request.name, request.version, request.label)
    return (_proto_json(response) + "\n").encode()


def _metadata(servable: Servable) -> bytes:
    spec = json.dumps({"name": servable.name, "signature_name": "", "version": str(servable.version)}, indent=1)
    # Joined by hand, as the C++ server does: its layout is part of what clients have seen.
    signatures = _proto_json(servable.definitions)
    return f'{{\n"model_spec":{spec}\n,\n"metadata": {{"signature_def": {signatures}\n}}\n}}\n'.encode()


def _proto_json(message: Any) -> str:
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(fields, indent=1)
