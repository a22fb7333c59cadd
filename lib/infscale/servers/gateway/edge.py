"""An edge: it takes REST from the client, and asks the server over gRPC."""

import pkgutil
import re
from typing import Any
from urllib.parse import unquote

import numpy as np
import orjson

from infscale.models.reference import Array, model
from infscale.payloads.codecs import Decode, Encode
from infscale.payloads.encoders import JSON, OCTETS
from infscale.servers.asgi.status import Code, StatusError, invalid
from infscale.servers.gateway.settings import Settings, Stats
from infscale.servers.gateway.upstream import Headers, Reply, Upstream

_PATH = re.compile(r"/v1/models/([^/:]+):predict")
_JSON = [(b"content-type", JSON.encode())]
_RAW = [(b"content-type", OCTETS.encode())]


class Edge:
    """Takes rows as JSON or as raw fp32, asks the server over gRPC, and answers in the form of the request."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self._upstream, self._call = upstream, settings.call
        self._encode: Encode = pkgutil.resolve_name(settings.encode)
        self._decode: Decode = pkgutil.resolve_name(settings.decode)
        served = model(settings.model)
        self._input_shape, self._output_shape = served.input_shape, served.output_shape
        self._counts = _no_counts()

    async def grpc(self, path: str, headers: Headers, body: bytes) -> bytes:
        """Refuse a gRPC call: an edge takes REST only.

        Raises:
            StatusError: UNIMPLEMENTED.
        """
        raise StatusError(Code.UNIMPLEMENTED, f"{path}: this gateway takes REST only")

    async def stats(self) -> Stats:
        """Return how many requests came, were refused here, and failed behind."""
        return self._counts

    async def refresh(self) -> None:
        """Do nothing: an edge knows nothing of the server that could change."""

    async def clear(self) -> None:
        """Set the counters to 0."""
        self._counts = _no_counts()

    async def rest(self, method: str, target: str, headers: Headers, body: bytes) -> Reply:
        """Answer one request.

        Raises:
            StatusError: INVALID_ARGUMENT or NOT_FOUND for what is no prediction request, or the server's own status.
        """
        self._counts["requests"] += 1
        raw = dict(headers).get(b"content-type", b"").partition(b";")[0].strip() == OCTETS.encode()
        try:
            name = _model_of(method, target)
            rows = self._raw(body) if raw else self._json(body)
        except StatusError:
            self._counts["refused"] += 1
            raise
        try:
            answer = await self._upstream.call(self._call, self._encode(name, rows))
        except StatusError:
            self._counts["upstream_errors"] += 1
            raise
        return self._reply(answer, len(rows), raw)

    def _reply(self, answer: bytes, count: int, raw: bool) -> Reply:
        try:
            decoded = self._decode(answer).reshape(count, *self._output_shape)
        except Exception as error:  # whatever the decoder of a foreign answer raises
            self._counts["upstream_errors"] += 1
            raise StatusError(Code.UNKNOWN, f"The server answered with no prediction: {error}") from None
        values = np.ascontiguousarray(decoded, "<f4")
        if raw:
            return Reply(200, _RAW, values.tobytes())
        return Reply(200, _JSON, orjson.dumps({"predictions": values}, option=orjson.OPT_SERIALIZE_NUMPY))

    def _raw(self, body: bytes) -> Array:
        size = 4 * int(np.prod(self._input_shape))
        if not body or len(body) % size:
            raise invalid(f"{len(body)} bytes are no rows of little-endian fp32; accepted: multiples of {size}")
        return np.frombuffer(body, "<f4").reshape(-1, *self._input_shape)

    def _json(self, body: bytes) -> Array:
        try:
            rows = _numbers(orjson.loads(body)["instances"])
        except (ValueError, TypeError, KeyError) as error:
            raise invalid(f'Not {{"instances": [rows of numbers]}}: {type(error).__name__}: {error}') from None
        if not len(rows) or rows.shape[1:] != self._input_shape:
            shape = [-1, *self._input_shape]
            raise invalid(f"instances of shape {list(rows.shape)}; accepted: {shape}, at least one row")
        return rows


def _no_counts() -> Stats:
    return {"requests": 0, "refused": 0, "upstream_errors": 0}


def _model_of(method: str, target: str) -> str:
    match = _PATH.fullmatch(target.partition("?")[0])
    if method != "POST" or not match:
        raise StatusError(Code.NOT_FOUND, f"{method} {target} is nothing here; accepted: POST /v1/models/NAME:predict")
    return unquote(match[1])


def _numbers(value: Any) -> Array:
    """Return nested lists of numbers as fp32.

    Raises:
        ValueError: ragged, no numbers, no list, or beyond fp32.
    """
    array = np.array(value)
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise ValueError("no nested lists of numbers")
    with np.errstate(over="ignore"):
        rows: Array = array.astype(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("a number is beyond fp32")
    return rows
