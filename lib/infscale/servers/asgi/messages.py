"""Messages of an ASGI application: whole request bodies, and answers over both protocols."""

from collections.abc import Awaitable, Callable
from typing import Any

from infscale.servers.asgi.framing import status_headers
from infscale.servers.asgi.status import StatusError

Message = dict[str, Any]
Scope = Message
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_GRPC = [(b"content-type", b"application/grpc")]
_OK = [(b"grpc-status", b"0")]


async def body(receive: Receive) -> bytes | None:
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


async def reply(send: Send, status: int, headers: Headers, content: bytes) -> None:
    """Send an answer over REST."""
    length = (b"content-length", b"%d" % len(content))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": content})


async def fail(send: Send, error: StatusError) -> None:
    """End a call without a message; its status goes into the headers."""
    headers = _GRPC + status_headers(error.code, error.message)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body"})


async def answer(send: Send, framed: bytes) -> None:
    """End a call with its one framed message."""
    await send({"type": "http.response.start", "status": 200, "headers": _GRPC, "trailers": True})
    await send({"type": "http.response.body", "body": framed})
    await send({"type": "http.response.trailers", "headers": _OK})
