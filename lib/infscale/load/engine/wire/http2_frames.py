"""HTTP/2 frames (RFC 9113): their layout, and the numbers of types, flags, settings and errors."""

import struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 7, 8
ERRORS = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""Names of errors by number (section 7)."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_NUMBER = 2**31 - 1
"""Largest stream number and largest window."""
FIRST_WINDOW = 65_535
"""Bytes that may be sent before the peer changes its window."""
TABLE_SIZE = 4096
"""Size of the header table in bytes, unless a setting changes it."""
MAX_FRAME = 16_384
"""Longest payload of a frame in bytes, unless a setting changes it."""
MAX_BLOCK = 65_536
"""Longest accepted header block with its frames, in bytes."""
MAX_PARTS = 64
"""Most frames of a header block: each one that arrives makes the whole block be looked at again."""

HEAD = struct.Struct(">LBL")
"""Layout of a frame's head: length × 256 + type, flags, stream number."""


class ProtocolError(ValueError):
    """The server broke the protocol; the connection cannot be used any more."""


def frame_head(kind: int, flags: int, stream: int, size: int) -> bytes:
    """Return the nine bytes before a payload of ``size`` bytes."""
    return HEAD.pack(size << 8 | kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one whole frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def uint32(value: int) -> bytes:
    """Return a number as four bytes, as error codes and the growth of windows are sent."""
    return value.to_bytes(4, "big")


def error_name(code: int) -> str:
    """Return the name of an error, or its number if it has none."""
    return ERRORS[code] if code < len(ERRORS) else f"error {code}"


def read_uint32(payload: bytes) -> int:
    """Return the number that four bytes hold.

    Raises:
        ProtocolError: the payload's length is not four.
    """
    if len(payload) != 4:
        raise ProtocolError(f"{len(payload)} bytes where a number takes 4")
    return int.from_bytes(payload, "big")


def header_frames(stream: int, block: bytes, *, end: bool, limit: int = MAX_FRAME) -> bytes:
    """Return a HEADERS frame, and CONTINUATION frames for what exceeds ``limit`` bytes; ``end``: there is no body."""
    parts = [block[at : at + limit] for at in range(0, len(block), limit)]
    kinds = [HEADERS] + [CONTINUATION] * (len(parts) - 1)
    flags = [END_STREAM * end] + [0] * (len(parts) - 1)
    flags[-1] |= END_HEADERS
    return b"".join(frame(k, f, stream, p) for k, f, p in zip(kinds, flags, parts, strict=True))


def inner(flags: int, data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return start and end of a DATA or HEADERS payload without padding and priority.

    Raises:
        ProtocolError: the padding is longer than the frame.
    """
    if flags & PADDED:
        if start == end:
            raise ProtocolError("padding without its length")
        end -= data[start]
        start += 1
    if flags & PRIORITISED:
        start += 5
    if end < start:
        raise ProtocolError("padding or priority longer than the frame")
    return start, end


def whole_block(data: bytes, start: int, end: int, flags: int, stream: int) -> tuple[bytes, int]:
    """Return the header block that begins in the HEADERS payload at ``start``, and where its last frame ends.

    The end is −1 when not all frames have arrived.

    Raises:
        ProtocolError: another frame came between, or the block exceeds :data:`MAX_BLOCK`.
    """
    first, last = inner(flags, data, start, end)
    parts = [data[first:last]]
    begun = start
    while not flags & END_HEADERS:
        if end - begun > MAX_BLOCK or len(parts) > MAX_PARTS:
            raise ProtocolError("header block too large")
        if len(data) - end < HEAD.size:
            return b"", -1
        word, flags, owner = HEAD.unpack_from(data, end)
        start = end + HEAD.size
        end = start + (word >> 8)
        if word & 255 != CONTINUATION or owner & MAX_NUMBER != stream or word >> 8 > MAX_FRAME:
            raise ProtocolError("a header block was interrupted")
        if end > len(data):
            return b"", -1
        parts.append(data[start:end])
    return b"".join(parts), end
