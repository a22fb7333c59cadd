"""A server's reply on a stream: its header blocks, and the outcome that follows from them and the body."""

import struct
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import hpack

from infscale.load.engine import status
from infscale.load.engine.wire.http2_frames import DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, MAX_FRAME

_PREFIXED = struct.Struct(">LBLBL")
"""Layout of a frame's head and the prefix of a gRPC message (compressed, length)."""
MANY = "a stream of several messages, where one was asked for"
_OTHER = 0, 0
_UNKNOWN = 2
"""gRPC's status UNKNOWN, for a status that cannot be read."""


class Head(NamedTuple):
    """The fields of a header block that matter: ``:status`` (0: none), grpc-status and content-length (−1: none)."""

    code: int
    grpc: int
    length: int
    message: str


class Stream:
    """A request without a finished reply. The class attributes are the values of a reply that has not begun."""

    code = 0
    grpc = -1
    expected = -1  # bytes of the body, by content-length or by the gRPC message's prefix
    data = 0  # bytes of the body so far
    received = 0  # bytes of its frames so far
    first = 0
    prefix = b""  # of the gRPC message, while incomplete
    message = ""

    def __init__(self, token: int) -> None:
        self.token = token

    def expect(self, part: bytes) -> None:
        """Read the gRPC message's length from its prefix, of which ``part`` is the next piece."""
        self.prefix += part
        if len(self.prefix) >= 5:
            self.expected = 5 + int.from_bytes(self.prefix[1:5], "big")

    def add(self, head: Head, grpc: bool, *, ends: bool) -> str:
        """Take a header block, and return what is wrong with it, or ""; ``ends``: nothing follows it."""
        if not self.code:
            if 100 <= head.code < 200 and not ends:
                return ""  # the reply is still to come
            if head.code < 200:
                return "a reply without a final status"
            self.code = head.code
            if not grpc:
                self.expected = head.length
        elif head.code or not ends:
            return "a second head where trailers are due"
        if head.grpc >= 0:
            self.grpc, self.message = head.grpc, head.message
        return ""

    def outcome(self, grpc: bool) -> int:
        """Return the outcome (:mod:`infscale.load.engine.status`) of the reply, which has ended."""
        if self.grpc > 0 and grpc:
            return status.of_grpc(self.grpc)
        result = status.of_http(self.code)
        if result != status.OK:
            return result
        if grpc:
            whole = self.code == 200 and self.grpc == 0 and self.data == self.expected
            if not whole and self.grpc == 0:
                several = 0 <= self.expected < self.data
                self.message = MANY if several else "a reply without a whole message"
        else:
            whole = self.expected < 0 or self.data == self.expected
        return status.OK if whole else status.BAD_RESPONSE


class Heads:
    """Decodes a connection's header blocks.

    A block that does not change the header table (of indexed fields, and of literals that are not indexed) decodes to
    the same until the table changes; such blocks are remembered in ``known``.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}
        self._decoder = hpack.Decoder()

    def decode(self, block: bytes) -> Head:
        """Return what a block that is not in ``known`` says.

        Raises:
            hpack.HPACKError: it cannot be decoded, nor can any block behind it.
        """
        before = self._table()
        head = _read(self._decoder.decode(block, raw=True))
        after = self._table()
        # By identity: an insertion may push out an equal entry.
        if before[0] is not after[0] or before[1:] != after[1:] or len(self.known) >= 256:
            self.known.clear()
        else:
            self.known[block] = head
        return head

    def _table(self) -> tuple[object, int, int]:
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return entries[0] if entries else None, len(entries), table.maxsize


def whole_reply(
    data: bytes, start: int, end: int, stream: int, known: Mapping[bytes, Head], grpc: bool
) -> tuple[int, int]:
    """Recognise the usual successful reply: head, body and, for gRPC, trailers, a frame each, of known blocks.

    It halves the time of a reply and serves nothing else.

    Args:
        data: what arrived.
        start: where the head's block begins.
        end: where it ends.
        stream: number of the request's stream.
        known: header blocks that were decoded before (:class:`Heads`).
        grpc: whether the reply is gRPC's.

    Returns:
        Where the reply ends, and the body's bytes; twice 0 for a reply of another kind, or one that is not whole.
    """
    head = known.get(data[start:end])
    if head is None or head.code != 200 or head.grpc >= 0 or len(data) - end < _PREFIXED.size:
        return _OTHER
    word, flags, owner, _, length = _PREFIXED.unpack_from(data, end)
    body, kind = word >> 8, word & 255
    stop = end + 9 + body
    if owner != stream or kind != DATA or stop > len(data) or body > MAX_FRAME:
        return _OTHER
    if not grpc:
        return (stop, body) if flags == END_STREAM and head.length in (-1, body) else _OTHER
    if flags or body != length + 5 or len(data) - stop < 9:
        return _OTHER
    word, flags, owner = HEAD.unpack_from(data, stop)
    begin = stop + 9
    last = begin + (word >> 8)
    if owner != stream or word & 255 != HEADERS or flags != END_HEADERS | END_STREAM or last > len(data):
        return _OTHER
    trailers = known.get(data[begin:last])
    return (last, body) if trailers is not None and not trailers.grpc and not trailers.code else _OTHER


def _read(fields: Iterable[tuple[bytes, bytes]]) -> Head:
    code, grpc, length, message = 0, -1, -1, ""
    for name, value in fields:
        if name == b":status":
            code = _natural(value, 3, 0)
        elif name == b"grpc-status":
            grpc = _natural(value, 3, _UNKNOWN)
        elif name == b"content-length":
            length = _natural(value, 18, sys.maxsize)  # no body has that length
        elif name == b"grpc-message":
            message = unquote_to_bytes(value).decode(errors="replace")
    return Head(code, grpc, length, message)


def _natural(value: bytes, digits: int, otherwise: int) -> int:
    return int(value) if value.isdigit() and len(value) <= digits else otherwise
