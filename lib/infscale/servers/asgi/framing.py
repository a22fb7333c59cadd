"""gRPC's framing of messages, compression, status and deadline.

A server needs no gRPC library for it: Envoy speaks HTTP/2, and a unary call is one framed message each way.
"""

import zlib
from collections.abc import Mapping
from urllib.parse import quote

from infscale.servers.asgi.status import Code, StatusError

MAX_MESSAGE_BYTES = 1 << 30
_MAX_STATUS_BYTES = 1024
_TRUNCATED = "...TRUNCATED"
_TIMEOUT_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def frame(message: bytes) -> bytes:
    """Return a message as the body of an answer, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def unframe(body: bytes, encoding: bytes) -> bytes:
    """Return the one message in a request body, decompressed.

    Raises:
        StatusError: INTERNAL for a broken frame, UNIMPLEMENTED for an unknown encoding.
    """
    if len(body) < 5 or len(body) != 5 + int.from_bytes(body[1:5], "big") or body[0] > 1:
        raise StatusError(Code.INTERNAL, "The request is not one gRPC message")
    if body[0] == 0:
        return body[5:]
    if encoding not in (b"gzip", b"deflate"):
        raise StatusError(Code.UNIMPLEMENTED, f"Compression algorithm {encoding.decode('latin1')!r} is not supported")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by its header
    try:
        message = inflater.decompress(body[5:], MAX_MESSAGE_BYTES)
    except zlib.error as error:
        raise StatusError(Code.INTERNAL, f"Failed to decompress the request message: {error}") from None
    if not inflater.eof:
        raise StatusError(Code.RESOURCE_EXHAUSTED, "The decompressed request message is too large or incomplete")
    return message


def status_headers(code: Code, message: str) -> list[tuple[bytes, bytes]]:
    """Return the headers or trailers that carry a status: long messages are cut, and percent-encoded."""
    headers = [(b"grpc-status", b"%d" % code)]
    if message:
        data = message.encode("utf-8", "replace")
        if len(data) > _MAX_STATUS_BYTES:
            kept = data[: _MAX_STATUS_BYTES - len(_TRUNCATED)].decode("utf-8", "ignore")
            data = (kept + _TRUNCATED).encode()
        headers.append((b"grpc-message", quote(data, safe=_UNQUOTED).encode()))
    return headers


_UNQUOTED = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def timeout_seconds(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the deadline a client set, or None; a malformed one counts as none."""
    text = headers.get(b"grpc-timeout", b"").decode("latin1")
    if not text or text[-1] not in _TIMEOUT_UNITS or not (text[:-1].isascii() and text[:-1].isdigit()):
        return None
    return int(text[:-1][:12]) * _TIMEOUT_UNITS[text[-1]]
