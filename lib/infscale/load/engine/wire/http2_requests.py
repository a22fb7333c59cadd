"""The requests of a pool, encoded once for HTTP/2 and gRPC.

The first request of a connection fills the server's header table; the headers of later ones are a few indexed bytes.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import hpack

from infscale.load.engine.wire import http1
from infscale.load.engine.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_FRAME,
    TABLE_SIZE,
    frame_head,
)

COPIED = 65_536
"""Longest body that is copied behind its headers, bytes; a longer one is sent in frames without copying it."""

_EMPTY_TABLE = b"\x20"
"""Announces that the header table's size becomes 0 (RFC 7541, section 6.3)."""

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Blocks:
    """A list of header fields in three encodings.

    Attributes:
        first: fills an empty header table.
        later: refers to a table that ``first`` has filled.
        plain: literals, which neither need nor change the table.
    """

    first: bytes
    later: bytes
    plain: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded request.

    Attributes:
        blocks: header fields that are common to the pool.
        own: header fields of this request, as literals that do not change the header table.
        body: of the request.
        head: together with ``middle``: ``head`` + stream number + ``middle`` + stream number + ``body`` is the whole
            request on a connection whose header table is filled.
        middle: see ``head``.
        size: of the body in bytes; 0 if the request cannot be sent as ``head`` describes.
    """

    blocks: Blocks
    own: bytes
    body: bytes
    head: bytes
    middle: bytes
    size: int


class ServerTable:
    """What one connection has put into the server's header table: the blocks in ``filled``, or nothing."""

    def __init__(self) -> None:
        self.filled: Blocks | None = None
        self._usable = True
        self._announced = b""

    def resize(self, size: int) -> None:
        """Take the server's setting of the table's size in bytes; a table smaller than usual is not used at all."""
        if size < TABLE_SIZE and self._usable:
            self._usable, self.filled, self._announced = False, None, _EMPTY_TABLE

    def block(self, request: Request) -> bytes:
        """Return the header block of the connection's next request."""
        blocks, announced = request.blocks, self._announced
        self._announced = b""
        if not self._usable:
            return announced + blocks.plain + request.own
        if self.filled is None:
            self.filled = blocks
            return blocks.first + request.own
        return (blocks.later if blocks is self.filled else blocks.plain) + request.own


@lru_cache(maxsize=64)
def _blocks(fields: Fields) -> Blocks:
    encoder = hpack.Encoder()
    first = encoder.encode(fields)
    filled = list(encoder.header_table.dynamic_entries)
    later = encoder.encode(fields)
    plain = hpack.Encoder().encode([(name, value, True) for name, value in fields])
    # Fields that do not all fit the table change it each time, so that no block can be used twice.
    return Blocks(first, later if filled == list(encoder.header_table.dynamic_entries) else plain, plain)


def _request(fields: Mapping[str, str], own: bytes, body: bytes) -> Request:
    blocks = _blocks(tuple(fields.items()))
    block = blocks.later + own
    if not 0 < len(body) <= COPIED or len(block) > MAX_FRAME:
        return Request(blocks, own, body, b"", b"", 0)
    head = frame_head(HEADERS, END_HEADERS, 0, len(block))[:5]
    middle = block + frame_head(DATA, END_STREAM, 0, len(body))[:5]
    return Request(blocks, own, body, head, middle, len(body))


def _fields(method: str, authority: str, path: str, scheme: str, headers: Mapping[str, str]) -> dict[str, str]:
    lowered = {name.lower(): value for name, value in headers.items()}
    return {":method": method, ":scheme": scheme, ":path": path, ":authority": authority, **lowered}


def encode_rest(
    method: str,
    authority: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    gzip: bool = False,
    scheme: str = "http",
) -> Request:
    """Return a REST request over HTTP/2; ``gzip`` compresses the body and accepts compressed replies."""
    if gzip:
        headers, body = http1.gzipped(headers, body)
    fields = _fields(method, authority, path, scheme, headers)
    fields.pop("content-length", None)
    return _request(fields, hpack.Encoder().encode([("content-length", str(len(body)), True)]), body)


def encode_grpc(
    authority: str,
    path: str,
    headers: Mapping[str, str],
    message: bytes,
    *,
    gzip: bool = False,
    scheme: str = "http",
) -> Request:
    """Return a unary gRPC request: the message behind its five-byte prefix.

    ``gzip`` compresses the message and accepts compressed replies. Without it, a header ``grpc-encoding`` declares that
    the message is compressed already.
    """
    usual = {"te": "trailers", "content-type": "application/grpc", "user-agent": "infscale"}
    fields = _fields("POST", authority, path, scheme, {**usual, **headers})
    if gzip:
        message = zlib.compress(message, wbits=31)
        fields |= {"grpc-encoding": "gzip", "grpc-accept-encoding": "identity,gzip"}
    compressed = fields.get("grpc-encoding", "identity") != "identity"
    return _request(fields, b"", struct.pack(">BL", compressed, len(message)) + message)
