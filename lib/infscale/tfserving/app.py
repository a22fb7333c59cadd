"""The ASGI application that runs inside Envoy: requests of both protocols, and the models' life."""

import gc
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from infscale.tfserving import config, flags, grpc, reloading, rest
from infscale.tfserving.batching import Batcher
from infscale.tfserving.errors import Code, StatusError
from infscale.tfserving.jsonout import error_body
from infscale.tfserving.metrics import Metrics
from infscale.tfserving.models import Models
from infscale.tfserving.running import Runner
from infscale.tfserving.server import Runs, Server

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_TEXT = [(b"content-type", b"text/plain")]
_JSON = [(b"content-type", b"application/json")]
_GRPC = [(b"content-type", b"application/grpc")]
_OK = [(b"grpc-status", b"0")]


class App:
    """One server: its models and the two protocols on them."""

    def __init__(self, settings: flags.Settings) -> None:
        self._settings = settings
        self._metrics_path = config.metrics_path(settings)
        self._metrics = Metrics() if self._metrics_path else None
        unavailable_labels = settings.allow_version_labels_for_unavailable_models
        models = Models(reloading.loader(self._metrics), unavailable_labels=unavailable_labels)
        self._server = Server(models, _runner(settings, self._metrics), self._metrics)
        milliseconds = settings.rest_api_timeout_in_ms
        self._rest_timeout = milliseconds / 1000 if milliseconds > 0 else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch by listener, as the two ports of the real server do."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        if scope["server"] and scope["server"][1] == self._settings.rest_api_port:
            await self._rest(scope, body, send)
        else:
            await self._grpc(scope, body, send)

    async def _rest(self, scope: Scope, body: bytes, send: Send) -> None:
        path = scope["raw_path"].partition(b"?")[0].decode("latin1")
        if path == self._metrics_path and self._metrics is not None:
            await _reply(send, 200, _TEXT, self._metrics.page())
            return
        if not rest.is_api(path):
            await _reply(send, 404, _TEXT, b"Not Found")
            return
        try:
            status, answer = await rest.handle(self._server, scope["method"], path, body, self._rest_timeout)
        except Exception:
            traceback.print_exc()
            status, answer = 500, error_body("The server failed; its log says why")
        await _reply(send, status, _JSON, answer)

    async def _grpc(self, scope: Scope, body: bytes, send: Send) -> None:
        headers = dict(scope["headers"])
        if scope["method"] != "POST" or not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            await _reply(send, 415, [], b"")
            return
        try:
            answer = await grpc.handle(self._server, scope["path"], headers, body)
        except StatusError as error:
            await _fail(send, error)
            return
        except Exception:
            traceback.print_exc()
            await _fail(send, StatusError(Code.INTERNAL, "The server failed; its log says why"))
            return
        await send({"type": "http.response.start", "status": 200, "headers": _GRPC, "trailers": True})
        await send({"type": "http.response.body", "body": answer})
        await send({"type": "http.response.trailers", "headers": _OK})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        tf.get_logger().setLevel("ERROR")  # the session loader is deprecated, and what the real server does
        # TensorFlow leaves millions of objects that live for ever: collections must not walk them during requests.
        # Before the models are loaded, so that those can be collected.
        gc.collect()
        gc.freeze()
        try:
            self._server.models.reload(config.models_of(self._settings))
        except StatusError as error:
            print(f"Failed to start server. Error: {error}", file=sys.stderr, flush=True)
            # Envoy reports a failed start without a reason on its standard error; the reason is above.
            os._exit(1)
        reloading.watch(self._settings, self._server.models)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._settings.grpc_socket_path:
            Path(self._settings.grpc_socket_path).unlink(missing_ok=True)
        await send({"type": "lifespan.shutdown.complete"})
        os._exit(0)


def _runner(settings: flags.Settings, counted: Metrics | None) -> Runs:
    options = config.batching(settings)
    if options is None:
        return Runner(counted)
    return Batcher(Runner(counted, options.num_batch_threads), options, counted)


async def _body(receive: Receive) -> bytes | None:
    """Return a request's whole body, or None if the client left before its end."""
    parts: list[bytes] = []
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        parts.append(event.get("body", b""))
        more = event.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _reply(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def _fail(send: Send, error: StatusError) -> None:
    """End a call without a message: the status goes into the headers."""
    headers = _GRPC + grpc.status_headers(error.code, error.message)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body"})


def __getattr__(name: str) -> App:
    """Make the application when the server asks for it: importing this module starts nothing."""
    if name != "app":
        raise AttributeError(name)
    return App(flags.Settings(**json.loads(os.environ[flags.ENVIRONMENT_KEY])))
