"""The ASGI application of a gateway: both protocols on one port, told apart by the content type."""

import json
import os
import sys
import traceback
from typing import Protocol

from infscale.servers.asgi import messages as asgi
from infscale.servers.asgi.messages import Receive, Scope, Send
from infscale.servers.asgi.status import Code, StatusError
from infscale.servers.gateway.cache import Cache
from infscale.servers.gateway.edge import Edge
from infscale.servers.gateway.settings import ENVIRONMENT_KEY, Settings, Stats, from_json
from infscale.servers.gateway.store import StoreError, open_store
from infscale.servers.gateway.upstream import Headers, Reply, Upstream

_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
_HTTP_STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


def http_status(code: Code) -> int:
    """Return the HTTP status for a status that the server answered over gRPC; 502 for those without a counterpart."""
    return _HTTP_STATUS.get(code, 502)


class Gateway(Protocol):
    """Operations of an edge and of a cache."""

    async def rest(self, method: str, target: str, headers: Headers, body: bytes) -> Reply:
        """Answer a REST request; raises StatusError."""

    async def grpc(self, path: str, headers: Headers, body: bytes) -> bytes:
        """Return the framed answer to a gRPC call; raises StatusError."""

    async def stats(self) -> Stats:
        """Return what it has counted; raises StoreError."""

    async def refresh(self) -> None:
        """Read anew what it knows of the server; raises StatusError."""

    async def clear(self) -> None:
        """Remove all answers and set the counters to 0; raises StoreError."""


class App:
    """One gateway. Its parts are made once its event loop runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._gateway: Gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of either protocol, or take part in the start and end of the server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body = await asgi.body(receive)
        if body is None:
            return
        headers = list(scope["headers"])
        if dict(headers).get(b"content-type", b"").startswith(b"application/grpc"):
            await self._grpc(scope, headers, body, send)
        else:
            await self._rest(scope, headers, body, send)

    async def _rest(self, scope: Scope, headers: Headers, body: bytes, send: Send) -> None:
        target = scope["raw_path"].decode("latin1")
        if scope["query_string"] and "?" not in target:
            target += "?" + scope["query_string"].decode("latin1")
        try:
            status, fields, content = await self._answer(scope["method"], target, headers, body)
        except StatusError as error:
            status, fields, content = http_status(error.code), _TEXT, str(error).encode()
        except StoreError as error:
            status, fields, content = 503, _TEXT, str(error).encode()
        except Exception:
            traceback.print_exc()
            status, fields, content = 500, _TEXT, b"The gateway failed; its log says why"
        await asgi.reply(send, status, fields, content)

    async def _answer(self, method: str, target: str, headers: Headers, body: bytes) -> Reply:
        if not target.startswith("/gateway/"):
            return await self._gateway.rest(method, target, headers, body)
        match method, target:
            case "GET", "/gateway/stats":
                pass
            case "POST", "/gateway/refresh":
                await self._gateway.refresh()
            case "DELETE", "/gateway/cache":
                await self._gateway.clear()
            case _:
                raise StatusError(Code.NOT_FOUND, f"{method} {target} is nothing here")
        content = json.dumps(await self._gateway.stats()).encode()
        return Reply(200, [(b"content-type", b"application/json")], content)

    async def _grpc(self, scope: Scope, headers: Headers, body: bytes, send: Send) -> None:
        try:
            answer = await self._gateway.grpc(scope["raw_path"].decode("latin1"), headers, body)
        except StatusError as error:
            await asgi.fail(send, error)
        except Exception:
            traceback.print_exc()
            await asgi.fail(send, StatusError(Code.INTERNAL, "The gateway failed; its log says why"))
        else:
            await asgi.answer(send, answer)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._gateway = await _start(self._settings)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # Envoy would report a failed start without the reason
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        os._exit(0)


async def _start(settings: Settings) -> Gateway:
    upstream = Upstream(settings)
    if settings.mode == "edge":
        return Edge(settings, upstream)
    cache = Cache(settings, upstream, open_store(settings.store, settings.capacity_bytes, settings.ttl_s))
    await cache.refresh()
    return cache


def __getattr__(name: str) -> App:
    """Make the application when the server asks for it, so that importing this module starts nothing."""
    if name != "app":
        raise AttributeError(name)
    return App(from_json(os.environ[ENVIRONMENT_KEY]))
