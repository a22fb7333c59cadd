"""The server behind a gateway: unary gRPC calls and REST requests that always end in an answer or a status."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import aiohttp
import grpc
import grpc.aio
from yarl import URL

from infscale.servers.asgi.status import Code, StatusError
from infscale.servers.gateway.settings import Settings

Headers = list[tuple[bytes, bytes]]

_CHANNELS = 4
_CONNECTIONS = 256  # as many as REST opens to a server without a gateway
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"te", b"upgrade", b"host"}
_HOP |= {b"proxy-connection", b"expect", b"trailer"}


class Reply(NamedTuple):
    """An HTTP answer: status, headers and body."""

    status: int
    headers: Headers
    body: bytes


class Upstream:
    """Connections to one server. Make it inside the event loop that uses them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        address = settings.grpc
        channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(_CHANNELS if address else 0)]
        self._channels = itertools.cycle(channels)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def call(
        self, path: str, message: bytes, metadata: Sequence[tuple[str, str | bytes]] = (), timeout: float | None = None
    ) -> bytes:
        """Make a unary call and return the serialised answer; ``timeout`` is in seconds.

        Raises:
            StatusError: the server's own status, or UNAVAILABLE or DEADLINE_EXCEEDED where it does not answer.
        """
        if not self._settings.grpc:
            raise StatusError(Code.UNAVAILABLE, "The server behind this gateway has no gRPC address")
        method: Any = next(self._channels).unary_unary(path, None, None)
        limit = min(timeout or self._settings.timeout_s, self._settings.timeout_s)
        try:
            return bytes(await method(message, timeout=limit, metadata=tuple(metadata)))
        except grpc.aio.AioRpcError as error:
            raise StatusError(Code(error.code().value[0]), error.details() or "") from error

    async def request(self, method: str, target: str, headers: Headers, body: bytes, *, address: str = "") -> Reply:
        """Send an HTTP request and return the answer, its body as it came; ``target`` is the path and the query.

        ``address`` is the server's REST address by default.

        Raises:
            StatusError: UNAVAILABLE, DEADLINE_EXCEEDED, or UNKNOWN for an answer that is no HTTP.
        """
        address = address or self._settings.rest
        if not address:
            raise StatusError(Code.UNAVAILABLE, "The server behind this gateway has no REST address")
        url = URL(f"http://{address}{target}", encoded=True)
        sent = [(k.decode("latin1"), v.decode("latin1")) for k, v in end_to_end(headers)]
        try:
            async with self._session.request(
                method, url, headers=sent, data=body or None, allow_redirects=False
            ) as answer:
                return Reply(answer.status, end_to_end(answer.raw_headers), await answer.read())
        except TimeoutError:
            raise StatusError(Code.DEADLINE_EXCEEDED, f"{address} did not answer in time") from None
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise StatusError(Code.UNAVAILABLE, f"{address}: {error or type(error).__name__}") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise StatusError(Code.UNKNOWN, f"{address}: {error or type(error).__name__}") from None


def end_to_end(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that belong to the message, without those of one connection (RFC 9110 7.6.1)."""
    return [(k.lower(), v) for k, v in headers if k.lower() not in _HOP and not k.startswith(b":")]
