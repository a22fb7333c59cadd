"""The server's side of HTTP/2 in clear text (RFC 9113) without I/O, for gRPC and REST, with a fixed reply.

Receive windows of 2³¹ − 1 and frames of up to 16 MB are announced at the start, so that a large body flows as one frame
without updates, and ``skip`` lets the loop discard it unread. Replies keep to the client's windows. Header blocks of a
connection repeat while its header table does not change, so that each distinct one is decoded, and encoded, once.

Instead of a reply it can send a stream: :meth:`Http2Server.begin`, :meth:`~Http2Server.emit`, :meth:`~Http2Server.end`.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import hpack
from hpack.table import HeaderTable

from infscale.servers.null.emission import ERROR, GRPC_INTERNAL
from infscale.servers.null.http1 import BLOCKED, GONE, READY

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_WINDOW, MAX_FRAME, MAX_BLOCK = 2**31 - 1, 2**24 - 1, 65_536
REST, GRPC = 0, 1

_FRAME = struct.Struct(">HBBBL")
_PROTOCOL_ERROR, _INTERNAL_ERROR, _FLOW_CONTROL_ERROR, _REFUSED_STREAM = 1, 2, 3, 7
_OK = [(":status", "200")]
_TRAILERS = [("grpc-status", "0")]
_FAILED = [("grpc-status", str(GRPC_INTERNAL)), ("grpc-message", ERROR)]
_Block = tuple[tuple[str, str], ...]

Parts = tuple[bytes, bytes, bytes, bytes]
"""A whole reply, cut where the number of the stream goes: three places for gRPC; for REST two, and an empty part."""


def _head(kind: int, flags: int, length: int) -> bytes:
    """Return a frame's header without the stream's number."""
    return _FRAME.pack(length >> 8, length & 255, kind, flags, 0)[:5]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one whole frame."""
    return _head(kind, flags, len(payload)) + stream.to_bytes(4, "big") + payload


@dataclass(slots=True)
class _Held:
    """The rest of a reply's body, or of a stream's message, which waits for the client's windows."""

    stream: int
    left: memoryview
    window: int
    trailers: bytes  # the whole frame, or nothing: then the body ends the stream, unless it is open
    open: bool = False  # a stream, to which more messages may come


class Http2Server:
    """One connection, with the attributes of :class:`infscale.servers.null.http1.Http1Server`."""

    def __init__(self, body: bytes, max_streams: int | None = None) -> None:
        """Make a connection that replies with ``body`` (gRPC: as the message).

        ``max_streams`` is the most streams at a time, which is announced and enforced; None sets no limit.
        """
        limit = b"" if max_streams is None else struct.pack(">HL", 3, max_streams)
        settings = limit + struct.pack(">HLHL", 4, MAX_WINDOW, 5, MAX_FRAME)
        grow = struct.pack(">L", MAX_WINDOW - 65_535)
        self.out: list[bytes | memoryview] = [frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, grow)]
        self.skip = 0
        self.closing = False
        self.streams: dict[int, int] = {}  # those without a reply, and whether they are REST or GRPC
        self._bodies = body, b"\0" + struct.pack(">L", len(body)) + body
        self._fields = (
            [*_OK, ("content-type", "application/octet-stream"), ("content-length", str(len(body)))],
            [
                *_OK,
                ("content-type", "application/grpc"),
            ],
        )
        self._max_streams = MAX_WINDOW if max_streams is None else max_streams
        self._rest, self._preface = b"", False
        self._ends = 0  # the stream that ends with the frame being skipped
        self._last = 0
        self._consumed = 0
        self._window, self._stream_window, self._max_frame = 65_535, 65_535, 16_384
        self._grown: dict[int, int] = {}  # window updates of streams that have no reply yet
        self._held: list[_Held] = []
        self._open: dict[int, _Held] = {}  # streams of messages; those that have something left are in _held, too
        self._grpc: set[int] = set()  # those of them that are gRPC
        self._blocks: dict[_Block, bytes] = {}  # encoded header blocks of streams of messages
        self._decoder, self._encoder = hpack.Decoder(), hpack.Encoder()
        self._kinds: dict[bytes, int] = {}
        self._replies: dict[int, Parts] = {}
        self._block: tuple[int, int, bytes] | None = None  # a header block that CONTINUATION goes on with
        self._control: dict[int, Callable[[int, int, bytes, list[int]], None]] = {
            HEADERS: self._on_headers,
            CONTINUATION: self._on_continuation,
            SETTINGS: self._on_settings,
            PING: self._on_ping,
            WINDOW_UPDATE: self._on_window_update,
            RST_STREAM: self._on_reset,
        }

    def receive(self, data: bytes, requests: list[int]) -> None:
        """Take bytes, and append the stream of each request that is complete to ``requests``."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        try:
            if not self._preface:
                data = self._greeted(data)
            self._frames(data, requests)
        except (ValueError, IndexError, struct.error, hpack.HPACKError) as error:
            self._fail(_PROTOCOL_ERROR, str(error))

    def skipped(self, requests: list[int]) -> None:
        """Learn that all bytes of ``skip`` have been discarded; append the stream if that completes a request."""
        if self._ends in self.streams:
            requests.append(self._ends)

    def reply(self, stream: int) -> None:
        """Answer a request, unless the client has cancelled it."""
        kind = self.streams.pop(stream, -1)
        if kind < 0:
            return
        head, middle, tail, trailers = self._replies.get(kind) or self._encoded(kind)
        body, number = self._bodies[kind], stream.to_bytes(4, "big")
        window = self._stream_window + (self._grown.pop(stream, 0) if self._grown else 0)
        if not body or len(body) <= min(self._max_frame, self._window, window):
            self._window -= len(body)
            end = (tail, number, trailers) if kind else ()
            self.out.append(b"".join((head, number, middle, number, body, *end)))
            return
        self.out.append(head + number + middle[:-5])  # the DATA frame's header is made anew, piece by piece
        self._held.append(_Held(stream, memoryview(body), window, tail + number + trailers if kind else b""))
        self._pump()

    def begin(self, stream: int, content_type: str) -> bool:
        """Begin a stream of messages as the answer to a request, unless it is cancelled; return whether it is gRPC.

        ``content_type`` is that of REST.
        """
        kind = self.streams.pop(stream, -1)
        if kind < 0:
            return False
        if kind == GRPC:
            self._grpc.add(stream)
            content_type = "application/grpc"
        block = self._block_of([*_OK, ("content-type", content_type)])
        self._open[stream] = _Held(
            stream, memoryview(b""), self._stream_window + self._grown.pop(stream, 0), b"", open=True
        )
        self.out.append(frame(HEADERS, END_HEADERS, stream, block))
        return kind == GRPC

    def state(self, stream: int) -> int:
        """Return READY, BLOCKED while a message waits for the client's windows, or GONE for a stream that has ended."""
        held = self._open.get(stream)
        if held is None:
            return GONE
        return BLOCKED if held.left else READY

    def emit(self, stream: int, message: bytes) -> None:
        """Send a message of a stream that is READY, as far as the client's windows reach."""
        held, size = self._open[stream], len(message)
        if size <= min(self._max_frame, self._window, held.window):
            self._window -= size
            held.window -= size
            self.out += (_FRAME.pack(size >> 8, size & 255, DATA, 0, stream), message)
            return
        held.left = memoryview(message)
        self._held.append(held)
        self._pump()

    def end(self, stream: int, *, failed: bool = False, cut: bool = False) -> None:
        """End a stream of messages behind its last: as it should, with an error's status (gRPC), or by a reset."""
        held = self._open.pop(stream)
        grpc = stream in self._grpc
        self._grpc.discard(stream)
        if cut:
            last = frame(RST_STREAM, 0, stream, struct.pack(">L", _INTERNAL_ERROR))
        elif grpc:
            block = self._block_of(_FAILED if failed else _TRAILERS)
            last = frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
        else:
            last = frame(DATA, END_STREAM, stream)
        if held.left:
            held.trailers = last
        else:
            self.out.append(last)

    def goodbye(self) -> None:
        """Tell the client that no further stream will be answered."""
        self._fail(0, "shutting down")

    def _fail(self, code: int, why: str) -> None:
        self.out.append(frame(GOAWAY, 0, 0, struct.pack(">LL", self._last, code) + why.encode()[:100]))
        self.closing = True

    # --- frames ---

    def _greeted(self, data: bytes) -> bytes:
        if not data.startswith(PREFACE[: len(data)]):
            raise ValueError("no HTTP/2 preface")
        if len(data) < len(PREFACE):
            self._rest = data
            return b""
        self._preface = True
        return data[len(PREFACE) :]

    def _frames(self, data: bytes, requests: list[int]) -> None:
        position, size, unpack = 0, len(data), _FRAME.unpack_from
        while size - position >= 9:
            high, low, kind, flags, stream = unpack(data, position)
            start = position + 9
            end = start + (high << 8) + low
            if self._block and kind != CONTINUATION:
                raise ValueError("a header block was interrupted")
            if kind == DATA:
                self._on_data(flags, stream, end - start, end - size, requests)
                if end > size:
                    return
            elif end > size:
                if end - start > MAX_BLOCK:
                    raise ValueError("frame too large")
                break
            elif kind in self._control:
                self._control[kind](flags, stream & MAX_WINDOW, data[start:end], requests)
            position = end
        if position < size:
            self._rest = data[position:]

    def _on_data(self, flags: int, stream: int, length: int, missing: int, requests: list[int]) -> None:
        if not 0 < stream <= self._last:
            raise ValueError("DATA on a stream that was never opened")
        self._consumed += length
        if self._consumed >= 2**30:
            self.out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", self._consumed)))
            self._consumed = 0
        ends = flags & END_STREAM
        if missing > 0:
            self.skip, self._ends = missing, stream if ends else 0
        elif ends and stream in self.streams:
            requests.append(stream)

    def _on_headers(self, flags: int, stream: int, payload: bytes, requests: list[int]) -> None:
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if flags & PRIORITISED:
            payload = payload[5:]
        if not flags & END_HEADERS:
            self._block = stream, flags, payload
            return
        kind = self._kinds.get(payload, -1)
        if kind < 0:
            kind = self._decoded(payload)
        if stream > self._last and stream & 1:
            self._last = stream
            if len(self.streams) + len({*self._open, *(held.stream for held in self._held)}) >= self._max_streams:
                self.out.append(frame(RST_STREAM, 0, stream, struct.pack(">L", _REFUSED_STREAM)))
                return
            self.streams[stream] = kind
        elif stream > self._last or not stream & 1:
            raise ValueError("a client's streams are odd")
        if flags & END_STREAM and stream in self.streams:
            requests.append(stream)

    def _on_continuation(self, flags: int, stream: int, payload: bytes, requests: list[int]) -> None:
        if not self._block or self._block[0] != stream or len(self._block[2]) > MAX_BLOCK:
            raise ValueError("CONTINUATION out of place")
        first, begun = self._block[1] & ~(PADDED | PRIORITISED), self._block[2]
        self._block = None
        self._on_headers(first | flags & END_HEADERS, stream, begun + payload, requests)

    def _on_settings(self, flags: int, stream: int, payload: bytes, requests: list[int]) -> None:
        if flags & ACK:
            return
        for key, value in struct.iter_unpack(">HL", payload):
            if key == 1:
                self._encoder.header_table_size = min(value, 4096)
                self._replies.clear()
                self._blocks.clear()
            elif key == 4:
                for held in {held.stream: held for held in (*self._held, *self._open.values())}.values():
                    held.window += value - self._stream_window
                self._stream_window = value
            elif key == 5:
                self._max_frame = value
        self.out.append(frame(SETTINGS, ACK, 0))
        self._pump()

    def _on_ping(self, flags: int, stream: int, payload: bytes, requests: list[int]) -> None:
        if not flags & ACK:
            self.out.append(frame(PING, ACK, 0, payload))

    def _on_window_update(self, flags: int, stream: int, payload: bytes, requests: list[int]) -> None:
        (grow,) = struct.unpack(">L", payload)
        if not stream:
            self._window += grow
            if self._window > MAX_WINDOW:
                self._fail(_FLOW_CONTROL_ERROR, "window too large")
        elif stream in self.streams:
            self._grown[stream] = self._grown.get(stream, 0) + grow
        elif stream in self._open:
            self._open[stream].window += grow
        else:
            for held in self._held:
                held.window += grow if held.stream == stream else 0
        if self._held:
            self._pump()

    def _on_reset(self, flags: int, stream: int, payload: bytes, requests: list[int]) -> None:
        self.streams.pop(stream, None)
        self._grown.pop(stream, None)
        self._open.pop(stream, None)
        self._grpc.discard(stream)
        self._held = [held for held in self._held if held.stream != stream]

    # --- header blocks and windows ---

    def _decoded(self, block: bytes) -> int:
        table = self._decoder.header_table
        before = _newest(table)
        fields = dict(self._decoder.decode(block, raw=True))
        kind = GRPC if fields.get(b"content-type", b"").startswith(b"application/grpc") else REST
        if _changed(table, before) or len(self._kinds) >= 4096:
            self._kinds.clear()  # indices may mean something else now
        else:
            self._kinds[block] = kind
        return kind

    def _encoded(self, kind: int) -> Parts:
        encoder = self._encoder
        before = _newest(encoder.header_table)
        fields, last = encoder.encode(self._fields[kind]), encoder.encode(_TRAILERS) if kind == GRPC else b""
        data = _head(DATA, 0 if kind == GRPC else END_STREAM, min(len(self._bodies[kind]), MAX_FRAME))
        tail = _head(HEADERS, END_HEADERS | END_STREAM, len(last)) if kind == GRPC else b""
        parts = _head(HEADERS, END_HEADERS, len(fields)), fields + data, tail, last
        if _changed(encoder.header_table, before):
            self._replies.clear()
        else:
            self._replies[kind] = parts
        return parts

    def _block_of(self, fields: list[tuple[str, str]]) -> bytes:
        """Return an encoded header block that leaves the header table alone, so that it can be sent at any time."""
        key = tuple(fields)
        if key not in self._blocks:
            never = [hpack.NeverIndexedHeaderTuple(*field) for field in fields]
            self._blocks[key] = self._encoder.encode(never)
        return self._blocks[key]

    def _pump(self) -> None:
        """Send the bodies that wait, in order, as far as the client's windows reach."""
        waiting = []
        for held in self._held:
            while held.left and (room := min(len(held.left), held.window, self._window, self._max_frame)) > 0:
                ends = room == len(held.left) and not held.trailers and not held.open
                head = _head(DATA, END_STREAM if ends else 0, room) + held.stream.to_bytes(4, "big")
                self.out += (head, held.left[:room])
                held.left = held.left[room:]
                held.window -= room
                self._window -= room
            if held.left:
                waiting.append(held)
            elif held.trailers:
                self.out.append(held.trailers)
        self._held = waiting


_Newest = tuple[tuple[bytes, bytes] | None, int]


def _newest(table: HeaderTable) -> _Newest:
    """Return the newest entry of a header table, and the number of entries."""
    entries = table.dynamic_entries
    return entries[0] if entries else None, len(entries)


def _changed(table: HeaderTable, before: _Newest) -> bool:
    """Return whether an entry was added or removed, so that indices mean something else."""
    entry, count = _newest(table)
    return entry is not before[0] or count != before[1]
