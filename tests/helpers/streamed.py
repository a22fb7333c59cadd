"""Streams as bytes on the wire: messages in each way, over HTTP/1.1 and HTTP/2, whole or not."""

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import hpack

from infscale.load.engine.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    frame,
    uint32,
)

VERSIONS = [("grpc", 2), ("sse", 1), ("sse", 2), ("lines", 1), ("lines", 2), ("chunks", 1), ("chunks", 2)]
"""Every way, and the versions of HTTP that carry it."""

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def framed(way: str, message: bytes, eol: bytes = b"\n") -> bytes:
    """A message with what frames it in the body."""
    if way == "grpc":
        return struct.pack(">BL", 0, len(message)) + message
    if way == "sse":
        return b"".join(b"data: " + line + eol for line in message.split(b"\n")) + eol
    return message + eol if way == "lines" else message


def chunk(data: bytes) -> bytes:
    """One chunk of HTTP/1.1."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def block(*fields: tuple[str, str]) -> bytes:
    """Header fields as literals, which depend on nothing before."""
    return bytes(hpack.Encoder().encode([(name, value, True) for name, value in fields]))


def head2(stream: int = 1) -> bytes:
    """The head of a reply over HTTP/2."""
    return frame(HEADERS, END_HEADERS, stream, block((":status", "200")))


def trailers(stream: int = 1) -> bytes:
    """The sound end of a gRPC reply."""
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block(("grpc-status", "0")))


OK2 = head2()
TRAILERS = trailers()


@dataclass
class Wire:
    """A reply as bytes, and how many of them complete each message."""

    data: bytes = b""
    ends: list[int] = field(default_factory=list)


def reply(way: str, version: int, messages: Sequence[bytes], cuts: Sequence[int] = (), *, whole: bool = True) -> Wire:
    """A stream of these messages, its body in pieces that are cut at ``cuts`` (modulo its length).

    A chunk is a message; so is a DATA frame's content where the way is "chunks". Without ``whole`` the end is missing.
    """
    parts = [framed(way, message) for message in messages]
    body, places = b"".join(parts), {0}
    ends: list[int] = []
    for part in parts:
        ends.append((ends[-1] if ends else 0) + len(part))
    if way == "chunks":
        places.update(ends)
    else:
        places.update(cut % (len(body) + 1) for cut in cuts)
    places.add(len(body))
    ordered = sorted(places)
    wire = Wire(HEAD if version == 1 else frame(SETTINGS, 0, 0) + OK2)
    for start, stop in itertools.pairwise(ordered):
        piece = body[start:stop]
        begin = len(wire.data)
        for end in ends:
            if start < end <= stop:
                inside = len(b"%x\r\n" % len(piece)) + end - start
                wire.ends.append(begin + (inside if version == 1 else 9 + len(piece)))
        wire.data += chunk(piece) if version == 1 else frame(DATA, 0, 1, piece)
    if whole:
        wire.data += ending(way, version)
    return wire


def ending(way: str, version: int) -> bytes:
    """The sound end of a stream."""
    if version == 1:
        return b"0\r\n\r\n"
    return TRAILERS if way == "grpc" else frame(DATA, END_STREAM, 1)


def reset(code: int = 2) -> bytes:
    """A reset of the stream over HTTP/2."""
    return frame(RST_STREAM, 0, 1, uint32(code))
