"""The ASGI application that runs inside Envoy: it answers both protocols, and loads and unloads models."""

import gc
import os
import sys
import traceback
from pathlib import Path

import tensorflow as tf

from infscale.servers.asgi import messages as asgi
from infscale.servers.asgi.messages import Receive, Scope, Send
from infscale.servers.asgi.status import Code, StatusError
from infscale.servers.embedded import config, flags, reloading
from infscale.servers.embedded.api import grpc, rest
from infscale.servers.embedded.api.jsonout import error_body
from infscale.servers.embedded.runtime.batching import Batcher
from infscale.servers.embedded.runtime.metrics import Metrics
from infscale.servers.embedded.runtime.models import Models
from infscale.servers.embedded.runtime.running import Runner
from infscale.servers.embedded.runtime.server import Runs, Server

_TEXT = [(b"content-type", b"text/plain")]
_JSON = [(b"content-type", b"application/json")]


class App:
    """One server: its models, and both protocols on them."""

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
        """Answer one request; the port tells the protocol, as in the real server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body = await asgi.body(receive)
        if body is None:
            return
        if scope["server"] and scope["server"][1] == self._settings.rest_api_port:
            await self._rest(scope, body, send)
        else:
            await self._grpc(scope, body, send)

    async def _rest(self, scope: Scope, body: bytes, send: Send) -> None:
        path = scope["raw_path"].partition(b"?")[0].decode("latin1")
        if path == self._metrics_path and self._metrics is not None:
            await asgi.reply(send, 200, _TEXT, self._metrics.page())
            return
        if not rest.is_api(path):
            await asgi.reply(send, 404, _TEXT, b"Not Found")
            return
        if scope["method"] == "OPTIONS":
            await asgi.reply(send, 200, rest.PREFLIGHT, b"")
            return
        body = rest.plain(body, dict(scope["headers"]).get(b"content-encoding", b""))
        try:
            status, answer = await rest.handle(self._server, scope["method"], path, body, self._rest_timeout)
        except Exception:
            traceback.print_exc()
            status, answer = 500, error_body("The server failed; its log says why")
        await asgi.reply(send, status, _JSON, answer)

    async def _grpc(self, scope: Scope, body: bytes, send: Send) -> None:
        headers = dict(scope["headers"])
        if scope["method"] != "POST" or not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            await asgi.reply(send, 415, [], b"")
            return
        try:
            answer = await grpc.handle(self._server, scope["path"], headers, body)
        except StatusError as error:
            await asgi.fail(send, error)
            return
        except Exception:
            traceback.print_exc()
            await asgi.fail(send, StatusError(Code.INTERNAL, "The server failed; its log says why"))
            return
        await asgi.answer(send, answer)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        tf.get_logger().setLevel("ERROR")  # the session loader is deprecated, and what the real server does
        # TensorFlow leaves millions of objects that live for ever: collections must not walk them during requests.
        # This is done before the models are loaded, so that those can be collected.
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


def __getattr__(name: str) -> App:
    """Make the application when the server asks for it, so that importing this module starts nothing."""
    if name != "app":
        raise AttributeError(name)
    return App(flags.from_json(os.environ[flags.ENVIRONMENT_KEY]))
