"""The ASGI application of a gateway: one port, both protocols (told apart by the content type)."""

import json
import os
import sys
import traceback
from typing import Any

from infscale.gateway.edge import Edge
from infscale.gateway.settings import ENVIRONMENT_KEY, Settings, from_json
from infscale.gateway.upstream import Reply, Upstream
from infscale.tfserving import asgi
from infscale.tfserving.asgi import Receive, Scope, Send
from infscale.tfserving.errors import Code, StatusError

_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
_HTTP_STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


def http_status(code: Code) -> int:
    """The status of an answer for what the server behind said over gRPC: 502 for what has none of its own."""
    return _HTTP_STATUS.get(code, 502)


def json_reply(value: Any) -> Reply:
    """An answer of the gateway's own."""
    return Reply(200, [(b"content-type", b"application/json")], json.dumps(value).encode())


class App:
    """One gateway; its parts are made when its event loop runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._edge: Edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever it is."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body = await asgi.body(receive)
        if body is not None:
            await self._rest(scope, body, send)

    async def _rest(self, scope: Scope, body: bytes, send: Send) -> None:
        target = scope["raw_path"].decode("latin1")
        try:
            status, headers, content = await self._answer(scope, target, body)
        except StatusError as error:
            status, headers, content = http_status(error.code), _TEXT, str(error).encode()
        except Exception:
            traceback.print_exc()
            status, headers, content = 500, _TEXT, b"The gateway failed; its log says why"
        await asgi.reply(send, status, headers, content)

    async def _answer(self, scope: Scope, target: str, body: bytes) -> Reply:
        if (scope["method"], target) == ("GET", "/gateway/stats"):
            return json_reply(dict(self._edge.counts))
        return await self._edge.rest(scope["method"], target, dict(scope["headers"]), body)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._edge = Edge(self._settings, Upstream(self._settings))
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # Envoy would report a failed start without the reason
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        os._exit(0)


def __getattr__(name: str) -> App:
    """Make the application when the server asks for it: importing this module starts nothing."""
    if name != "app":
        raise AttributeError(name)
    return App(from_json(os.environ[ENVIRONMENT_KEY]))
