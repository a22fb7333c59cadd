"""A transparent cache for both protocols: everything passes through it, and answers to predictions are kept.

Equal requests that come at once may each go to the server: none waits for another. What an answer says of its own
caching (TorchServe forbids it) is passed on, and not obeyed.
"""

import hashlib
import re
from collections.abc import Iterable

import orjson

from infscale.servers.asgi import framing
from infscale.servers.asgi.status import StatusError
from infscale.servers.gateway.settings import Settings, Stats
from infscale.servers.gateway.store import Store, StoreError
from infscale.servers.gateway.upstream import Headers, Reply, Upstream
from infscale.servers.gateway.versions import read_version

# All other headers are a part of the key: who asks (authorization, cookie), and in which form, may change an answer.
_NEUTRAL = {
    *(b"connection", b"content-length", b"date", b"host", b"te", b"user-agent"),
    *(b"grpc-accept-encoding", b"grpc-encoding", b"grpc-timeout"),
    *(b"traceparent", b"tracestate", b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id"),
}
# Not sent on over gRPC: these are the call's own, and grpcio makes them anew.
_OF_THE_CALL = {b"accept-encoding", b"content-type", *_NEUTRAL}


class Cache:
    """One server's answers to predictions, by the bytes of the request."""

    def __init__(self, settings: Settings, upstream: Upstream, store: Store) -> None:
        self._settings, self._upstream, self._store = settings, upstream, store
        self._prediction = re.compile(rf"({settings.predictions})(\?.*)?")
        self.version = ""
        self._counts = _no_counts()

    async def refresh(self) -> None:
        """Read the model's version again.

        Raises:
            StatusError: the server does not answer; the version stays.
        """
        self.version = await read_version(self._settings, self._upstream)

    async def clear(self) -> None:
        """Empty the store and set the counters to 0.

        Raises:
            StoreError: it does not answer.
        """
        await self._store.clear()
        self._counts = _no_counts()

    async def stats(self) -> Stats:
        """Return the counters, what the store tells, and the version in the keys."""
        return {**self._counts, **await self._store.info(), "version": self.version}

    async def rest(self, method: str, target: str, headers: Headers, body: bytes) -> Reply:
        """Return the answer to a request, kept or new.

        Raises:
            StatusError: the server does not answer.
        """
        if method != "POST" or not self._prediction.fullmatch(target):
            return await self._request(method, target, headers, body)
        key = self._key("rest", target, headers, body)
        if (kept := await self._find(key)) is not None:
            return _unpack(kept)
        reply = await self._request(method, target, headers, body)
        if reply.status == 200:
            await self._keep(key, _pack(reply))
        return reply

    async def grpc(self, path: str, headers: Headers, body: bytes) -> bytes:
        """Return the framed answer to a unary call, kept or new; it is never compressed.

        Raises:
            StatusError: the server's own, or it does not answer.
        """
        message = framing.unframe(body, dict(headers).get(b"grpc-encoding", b"identity"))
        if path not in self._settings.calls:
            return framing.frame(await self._call(path, headers, message))
        key = self._key("grpc", path, headers, message)
        if (kept := await self._find(key)) is not None:
            return framing.frame(kept)
        answer = await self._call(path, headers, message)
        await self._keep(key, answer)
        return framing.frame(answer)

    async def _request(self, method: str, target: str, headers: Headers, body: bytes) -> Reply:
        try:
            reply = await self._upstream.request(method, target, headers, body)
        except StatusError:
            self._counts["upstream_errors"] += 1
            raise
        self._counts["upstream_errors"] += reply.status >= 400
        return reply

    async def _call(self, path: str, headers: Headers, message: bytes) -> bytes:
        timeout = framing.timeout_seconds(dict(headers))
        try:
            return await self._upstream.call(path, message, _metadata(headers), timeout)
        except StatusError:
            self._counts["upstream_errors"] += 1
            raise

    def _key(self, protocol: str, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
        version = self.version if self._settings.by_version else ""
        relevant = sorted((k, v) for k, v in headers if k not in _NEUTRAL)
        names = (protocol, path, self._settings.implementation, self._settings.model, version)
        return digest([*(n.encode() for n in names), *(part for pair in relevant for part in pair), body])

    async def _find(self, key: bytes) -> bytes | None:
        kept = None
        try:
            kept = await self._store.get(key)
        except StoreError:
            self._counts["store_errors"] += 1
        self._counts["misses" if kept is None else "hits"] += 1
        return kept

    async def _keep(self, key: bytes, value: bytes) -> None:
        try:
            stored = await self._store.put(key, value)
            self._counts["stored"] += stored  # not before the await: others count meanwhile
        except StoreError:
            self._counts["store_errors"] += 1


def _no_counts() -> Stats:
    return {"hits": 0, "misses": 0, "stored": 0, "store_errors": 0, "upstream_errors": 0}


def digest(parts: Iterable[bytes]) -> bytes:
    """Return 32 bytes that no other sequence of parts has: BLAKE2b (RFC 7693) over each length and part."""
    hashed = hashlib.blake2b(digest_size=32)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.digest()


def _pack(reply: Reply) -> bytes:
    headers = [[k.decode("latin1"), v.decode("latin1")] for k, v in reply.headers]
    return orjson.dumps(headers) + b"\n" + reply.body


def _unpack(kept: bytes) -> Reply:
    headers, _, body = kept.partition(b"\n")
    return Reply(200, [(k.encode("latin1"), v.encode("latin1")) for k, v in orjson.loads(headers)], body)


def _metadata(headers: Headers) -> list[tuple[str, str | bytes]]:
    """Return the caller's own metadata, without binary ones."""
    own = [(k.decode("latin1"), v.decode("latin1")) for k, v in headers if k not in _OF_THE_CALL]
    return [(k, v) for k, v in own if not k.startswith((":", "grpc-", "x-envoy-")) and not k.endswith("-bin")]
