"""HTTP/2 client framing (RFC 9113), for gRPC and for plain REST, sans I/O.

Request header blocks are encoded once per pool: the first request of a connection fills the
server's header table, the following ones are a few indexed bytes. A reply's header block of only
indexed fields decodes the same until the table changes, so it is remembered.
"""

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from gzip import compress
from urllib.parse import unquote_to_bytes

import hpack

from infscale.engine import status
from infscale.engine.http1 import Finished

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_WINDOW = 2**31 - 1
MAX_FRAME = 16_384
_FRAME = struct.Struct(">HBBBL")
_REFUSED_STREAM, _CANCEL = 7, 8

Fields = tuple[tuple[str, str], ...]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return _FRAME.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


@lru_cache(maxsize=16)
def _blocks(fields: Fields, table: bool) -> tuple[bytes, bytes]:
    """The header block of a connection's first request and that of all later ones."""
    encoder = hpack.Encoder()
    if not table:
        encoder.header_table_size = 0
    return encoder.encode(fields), encoder.encode(fields)


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded request: header fields common to the pool, those of its own, and the body."""

    fields: Fields
    own: bytes  # never-indexed literals, which leave the header table alone
    body: bytes


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
    """A REST request over HTTP/2; ``gzip`` compresses the body, and takes compressed replies."""
    if gzip:
        body, headers = compress(body, mtime=0), {**headers, "content-encoding": "gzip", "accept-encoding": "gzip"}
    fields = ((":method", method), (":scheme", scheme), (":path", path), (":authority", authority), *headers.items())
    own = hpack.Encoder().encode([("content-length", str(len(body)), True)])
    return Request(tuple((k.lower(), v) for k, v in fields), own, body)


def encode_grpc(
    authority: str,
    path: str,
    headers: Mapping[str, str],
    message: bytes,
    *,
    gzip: bool = False,
    scheme: str = "http",
) -> Request:
    """A unary gRPC request: the message behind its five-byte prefix, compressed if ``gzip`` says so."""
    fixed = {":method": "POST", ":scheme": scheme, ":path": path, ":authority": authority}
    fixed |= {"te": "trailers", "content-type": "application/grpc", "user-agent": "infscale"}
    if gzip:
        message = compress(message, mtime=0)
        fixed |= {"grpc-encoding": "gzip", "grpc-accept-encoding": "identity,gzip"}
    prefix = struct.pack(">BL", gzip or "grpc-encoding" in {k.lower() for k in headers}, len(message))
    return Request(tuple({**fixed, **headers}.items()), b"", prefix + message)


class _Stream:
    """A request without a finished reply."""

    __slots__ = ("bytes", "code", "data", "expected", "first", "grpc", "prefix", "token", "window")

    def __init__(self, token: int, window: int) -> None:
        self.token = token
        self.window = window
        self.first = self.bytes = self.data = self.code = 0
        self.grpc = self.expected = -1
        self.prefix = b""


class _ProtocolError(Exception):
    """The server broke the framing; the connection is done for."""


class Http2:
    """The client's side of one connection; ``requests`` are the pool's, ``grpc`` reads gRPC's status.

    ``ready`` turns true with the server's settings, ``free`` is the number of streams that may be
    opened now, ``closing`` says that no further request may be sent here. ``out`` holds what must be
    sent beside requests (acknowledgements, window updates, bodies that waited for a window).
    """

    def __init__(self, requests: Sequence[Request], *, grpc: bool, max_streams: int = 2**31) -> None:
        self._requests = requests
        self._grpc = grpc
        self._limit = max_streams
        self.ready = False
        self.closing = False
        self.free = 0
        self.out: list[bytes | memoryview] = []
        self.streams: dict[int, _Stream] = {}
        self.message = ""  # the last grpc-message or GOAWAY text, for error reports
        self._next = 1
        self._server_limit = 2**31
        self._window = 65_535  # bytes that may be sent on the connection
        self._stream_window = 65_535
        self._max_frame = MAX_FRAME
        self._consumed = 0
        self._buffer = b""
        self._hpack = hpack.Decoder()
        self._memo: dict[bytes, tuple[int, int]] = {}
        self._table = True
        self._prepared: list[tuple[bytes, bytes, bytes, int] | None] = []
        self._waiting: deque[tuple[int, memoryview]] = deque()  # bodies held back by a window
        self._continued: tuple[int, int, bytes] | None = None

    def start(self) -> bytes:
        """Preface, settings and a connection window of 2³¹ − 1."""
        settings = struct.pack(">HLHL", 2, 0, 4, MAX_WINDOW)  # no push; stream window
        grow = struct.pack(">L", MAX_WINDOW - 65_535)
        return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, grow)

    def send(self, payload: int, token: int) -> bytes:
        """The bytes of a request, or its first part: the rest follows in ``out`` as windows allow."""
        stream = self._next
        self._next = stream + 2
        self.free -= 1
        if self._next > MAX_WINDOW - 2:
            self.closing = True
        state = self.streams[stream] = _Stream(token, self._stream_window)
        prepared = self._prepared[payload] if stream > 1 else None
        if prepared is not None and prepared[3] <= self._window and prepared[3] <= self._stream_window:
            head, middle, body, size = prepared
            self._window -= size
            state.window -= size
            number = stream.to_bytes(4, "big")
            return b"".join((head, number, middle, number, body))
        request = self._requests[payload]
        block = _blocks(request.fields, self._table)[stream > 1] + request.own
        flags = END_HEADERS if request.body else END_HEADERS | END_STREAM
        self.out.append(frame(HEADERS, flags, stream, block))
        if request.body:
            self._waiting.append((stream, memoryview(request.body)))
            self._pump()
        return b""

    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrived at time ``now``; append to ``finished`` what it completes."""
        if self._buffer:
            data = self._buffer + data
        position, size = 0, len(data)
        unpack = _FRAME.unpack_from
        try:
            while size - position >= 9:
                high, low, kind, flags, stream = unpack(data, position)
                start = position + 9
                end = start + (high << 8) + low
                if end > size:
                    if end - start > MAX_FRAME:
                        raise _ProtocolError("frame too large")
                    break
                self._frame(kind, flags, stream & 0x7FFFFFFF, data[start:end], now, finished)
                position = end
        except (_ProtocolError, hpack.HPACKError, struct.error, IndexError, ValueError, OverflowError) as error:
            self.message = str(error)
            self._fail_all(status.BAD_RESPONSE, finished)
            return
        self._buffer = data[position:] if position < size else b""

    def end(self, finished: list[Finished]) -> None:
        """The server closed: what is without a reply is lost."""
        self._fail_all(status.RESET, finished)

    def cancel(self, token: int) -> None:
        """Give a request up; its stream is reset, the connection lives on."""
        for number, stream in self.streams.items():
            if stream.token == token:
                del self.streams[number]
                self._waiting = deque(w for w in self._waiting if w[0] != number)
                self.out.append(frame(RST_STREAM, 0, number, struct.pack(">L", _CANCEL)))
                self._count_free()
                return

    def tokens(self) -> list[int]:
        """Requests without a finished reply."""
        return [stream.token for stream in self.streams.values()]

    def _count_free(self) -> None:
        self.free = min(self._limit, self._server_limit) - len(self.streams) if self.ready else 0

    def _fail_all(self, outcome: int, finished: list[Finished]) -> None:
        self.closing = True
        for stream in self.streams.values():
            finished.append((stream.token, outcome, stream.bytes, stream.first))
        self.streams.clear()
        self._waiting.clear()

    def _finish(self, number: int, outcome: int, finished: list[Finished]) -> None:
        stream = self.streams.pop(number)
        self.free += 1
        finished.append((stream.token, outcome, stream.bytes, stream.first))
        if self._waiting:
            self._waiting = deque(w for w in self._waiting if w[0] != number)

    # --- frames ---

    def _frame(self, kind: int, flags: int, number: int, body: bytes, now: int, finished: list[Finished]) -> None:
        if self._continued is not None and kind != CONTINUATION:
            raise _ProtocolError("a header block was interrupted")
        if not self.ready and kind != SETTINGS:
            raise _ProtocolError("the server's settings did not come first")
        if kind == DATA:
            self._data(flags, number, body, now, finished)
        elif kind == HEADERS:
            block = _unpadded(flags, body)
            if flags & PRIORITISED:
                block = block[5:]
            self._block(flags, number, block, now, finished)
        elif kind == CONTINUATION:
            if self._continued is None or self._continued[0] != number:
                raise _ProtocolError("CONTINUATION without HEADERS")
            _, first_flags, block = self._continued
            self._continued = None
            self._block(first_flags & ~END_HEADERS | flags & END_HEADERS, number, block + body, now, finished)
        elif kind == PUSH_PROMISE:
            raise _ProtocolError("push was refused")
        elif kind == RST_STREAM:
            self._reset(number, body, finished)
        elif kind == SETTINGS:
            self._settings(flags, number, body)
        elif kind == PING:
            if len(body) != 8 or number:
                raise _ProtocolError("bad PING")
            if not flags & ACK:
                self.out.append(frame(PING, ACK, 0, body))
        elif kind == GOAWAY:
            self._goaway(body, finished)
        elif kind == WINDOW_UPDATE:
            self._window_update(number, body)

    def _data(self, flags: int, number: int, body: bytes, now: int, finished: list[Finished]) -> None:
        if not number:
            raise _ProtocolError("DATA on stream 0")
        self._consumed += len(body)
        if self._consumed >= 2**30:
            self.out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", self._consumed)))
            self._consumed = 0
        stream = self.streams.get(number)
        if stream is None:
            self._known(number)
            return  # late data of a stream that we gave up
        if not stream.code:
            raise _ProtocolError("DATA before HEADERS")
        if flags & PADDED:
            body = _unpadded(flags, body)
        stream.bytes += len(body) + 9
        if self._grpc and stream.expected < 0:
            prefix = stream.prefix + body if stream.prefix else body
            if len(prefix) >= 5:
                stream.expected = 5 + int.from_bytes(prefix[1:5], "big")
            else:
                stream.prefix = prefix
        stream.data += len(body)
        if flags & END_STREAM:
            self._ended(number, stream, finished)

    def _block(self, flags: int, number: int, block: bytes, now: int, finished: list[Finished]) -> None:
        if not flags & END_HEADERS:
            if len(block) > 65_536:
                raise _ProtocolError("header block too large")
            self._continued = (number, flags, block)
            return
        code, grpc = self._decode(block)
        stream = self.streams.get(number)
        if stream is None:
            self._known(number)
            return
        stream.bytes += len(block) + 9
        if not stream.first:
            stream.first = now
        if 100 <= code < 200:
            return
        if not stream.code:
            if not code:
                raise _ProtocolError("no :status")
            stream.code = code
        if grpc >= 0:
            stream.grpc = grpc
        if flags & END_STREAM:
            self._ended(number, stream, finished)

    def _decode(self, block: bytes) -> tuple[int, int]:
        """HTTP status (0: none) and gRPC status (−1: none) of a header block."""
        known = self._memo.get(block)
        if known is not None:
            return known
        code, grpc = 0, -1
        for name, value in self._hpack.decode(block, raw=True):
            if name == b":status":
                code = int(value)
            elif name == b"grpc-status":
                grpc = int(value)
            elif name == b"grpc-message":
                self.message = unquote_to_bytes(value).decode(errors="replace")
        if all(128 <= byte < 255 for byte in block):
            self._memo[block] = code, grpc
        else:  # the header table may have changed, and with it what the indices mean
            self._memo.clear()
        return code, grpc

    def _ended(self, number: int, stream: _Stream, finished: list[Finished]) -> None:
        if not self._grpc:
            outcome = status.of_http(stream.code)
        elif stream.grpc > 0:
            outcome = status.of_grpc(stream.grpc)
        elif stream.code != 200:
            outcome = status.of_http(stream.code)
        elif stream.grpc < 0 or stream.data != stream.expected:
            outcome = status.BAD_RESPONSE  # no status, or the message was cut short
        else:
            outcome = status.OK
        self._finish(number, outcome, finished)
        if any(waiting[0] == number for waiting in self._waiting):
            self.out.append(frame(RST_STREAM, 0, number, struct.pack(">L", _CANCEL)))

    def _reset(self, number: int, body: bytes, finished: list[Finished]) -> None:
        (code,) = struct.unpack(">L", body)
        self._known(number)
        if number in self.streams:
            stream = self.streams[number]
            refused = self._grpc and code == _REFUSED_STREAM
            outcome = status.of_grpc(14) if refused else status.RESET
            if self._grpc and stream.grpc >= 0:
                outcome = status.of_grpc(stream.grpc)
            self._finish(number, outcome, finished)

    def _known(self, number: int) -> None:
        if not number & 1 or number >= self._next:
            raise _ProtocolError(f"frame on stream {number}, which was never opened")

    def _settings(self, flags: int, number: int, body: bytes) -> None:
        if number or len(body) % 6:
            raise _ProtocolError("bad SETTINGS")
        if flags & ACK:
            return
        for key, value in struct.iter_unpack(">HL", body):
            if key == 1 and value < 4096:
                self._table = False
            elif key == 3:
                self._server_limit = value
            elif key == 4:
                self._change_stream_window(value)
            elif key == 5:
                self._max_frame = value
        self.out.append(frame(SETTINGS, ACK, 0))
        self.ready = True
        self._prepared = [self._prepare(request) for request in self._requests]
        self._count_free()
        self._pump()

    def _change_stream_window(self, value: int) -> None:
        if value > MAX_WINDOW:
            raise _ProtocolError("window too large")
        for stream in self.streams.values():
            stream.window += value - self._stream_window
        self._stream_window = value

    def _prepare(self, request: Request) -> tuple[bytes, bytes, bytes, int] | None:
        # A longer body is sent from where it lies, in frames, instead of being copied behind its head.
        return _prepared(request, self._table) if 0 < len(request.body) <= min(self._max_frame, 65_536) else None

    def _goaway(self, body: bytes, finished: list[Finished]) -> None:
        last, _ = struct.unpack_from(">LL", body)
        self.closing = True
        self.message = body[8:].decode(errors="replace")
        for number in [n for n in self.streams if n > last & 0x7FFFFFFF]:
            self._finish(number, status.RESET, finished)

    def _window_update(self, number: int, body: bytes) -> None:
        (grow,) = struct.unpack(">L", body)
        if not number:
            self._window += grow
            if self._window > MAX_WINDOW:
                raise _ProtocolError("window too large")
        elif number in self.streams:
            self.streams[number].window += grow
        if self._waiting:
            self._pump()

    def _pump(self) -> None:
        """Move held-back bodies into ``out`` as far as the windows reach."""
        for _ in range(len(self._waiting)):
            number, body = self._waiting.popleft()
            state = self.streams.get(number)
            if state is None:
                continue
            while body and (room := min(len(body), state.window, self._window, self._max_frame)) > 0:
                last = room == len(body)
                self.out += (_FRAME.pack(room >> 8, room & 255, DATA, END_STREAM if last else 0, number), body[:room])
                body = body[room:]
                state.window -= room
                self._window -= room
            if body:
                self._waiting.append((number, body))


@lru_cache(maxsize=4096)
def _prepared(request: Request, table: bool) -> tuple[bytes, bytes, bytes, int]:
    """A later request of a connection, in parts between which its stream number goes."""
    block = _blocks(request.fields, table)[1] + request.own
    head = _FRAME.pack(len(block) >> 8, len(block) & 255, HEADERS, END_HEADERS, 0)[:5]
    data = _FRAME.pack(len(request.body) >> 8, len(request.body) & 255, DATA, END_STREAM, 0)[:5]
    return head, block + data, request.body, len(request.body)


def _unpadded(flags: int, body: bytes) -> bytes:
    if not flags & PADDED:
        return body
    if body[0] >= len(body):
        raise _ProtocolError("padding longer than the frame")
    return body[1 : len(body) - body[0]]
