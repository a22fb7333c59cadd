"""The client's side of HTTP/2 (RFC 9113), for gRPC and REST, without input and output: bytes in, finished replies out.

Bodies of replies are counted, not kept. The parts: :mod:`http2_frames` (layout of frames), :mod:`http2_requests` (the
pool, encoded once), :mod:`http2_flow` (windows of what is sent), :mod:`http2_replies` (header blocks and outcomes).
"""

import struct
from collections.abc import Sequence

import hpack

from infscale.load.engine import status
from infscale.load.engine.status import Finished
from infscale.load.engine.wire import http2_frames as wire
from infscale.load.engine.wire.http1 import EXCERPT, excerpt
from infscale.load.engine.wire.http2_flow import Flow
from infscale.load.engine.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    MAX_FRAME,
    MAX_NUMBER,
    ProtocolError,
    frame,
    uint32,
)
from infscale.load.engine.wire.http2_replies import Heads, Stream, whole_reply
from infscale.load.engine.wire.http2_requests import Request, ServerTable, encode_grpc, encode_rest

__all__ = ["Http2", "Request", "encode_grpc", "encode_rest"]

_UNAVAILABLE = 14
"""gRPC's status for a request that the server refused without processing it."""
GIVE_BACK = 2**30
"""Bytes received before the connection's window is filled up again."""
MOST_BARREN = 10_000
"""Most frames in a row that bring no reply on: a server that sends more of them only keeps the client busy."""


class Http2:
    """The client's side of one connection, a :class:`~infscale.load.engine.interfaces.Codec`.

    ``ready`` turns true with the server's settings; ``free`` is the number of streams that may be opened now; ``out``
    holds acknowledgements, window updates and bodies that waited for a window; ``message`` is the last grpc-message,
    GOAWAY text or broken rule; ``reasons`` hold the same by request, and the beginning of an error reply's body.

    Args:
        requests: the pool.
        grpc: whether a reply's outcome is its gRPC status.
        max_streams: most streams at a time; the server's own limit holds, too.
    """

    def __init__(self, requests: Sequence[Request], *, grpc: bool, max_streams: int = 2**31) -> None:
        self.ready = False
        self.closing = False
        self.free = 0
        self.out: list[bytes | memoryview] = []
        self.streams: dict[int, Stream] = {}
        self.message = ""
        self.refused: list[tuple[int, int]] = []
        self.reasons: dict[int, str] = {}
        self.single = False
        self.withheld: dict[int, int] = {}
        self.held = 0
        self._barren = 0
        self._kept = 0  # places of streams that the server refused
        self._farewell = ""  # what the server's GOAWAY says
        self._requests = requests
        self._grpc = grpc
        self._limit = max_streams
        self._server_limit = 2**31
        self._next = 1
        self._flow = Flow()
        self._heads = Heads()
        self._table = ServerTable()
        self._unreturned = 0
        self._rest = b""  # an unfinished frame

    def start(self) -> bytes:
        """Return what a new connection sends first: preface, settings and a connection window of 2³¹ − 1 bytes."""
        settings = struct.pack(">HLHL", wire.ENABLE_PUSH, 0, wire.INITIAL_WINDOW_SIZE, MAX_NUMBER)
        grow = frame(wire.WINDOW_UPDATE, 0, 0, uint32(MAX_NUMBER - wire.FIRST_WINDOW))
        return wire.PREFACE + frame(wire.SETTINGS, 0, 0, settings) + grow

    # --- requests ---

    def send(self, payload: int, token: int) -> bytes:
        """Return the bytes of a request; b"" if they are in ``out``, as far as the server's windows allow."""
        self._barren = 0
        stream = self._next
        self._next = stream + 2
        self.free -= 1
        if stream >= MAX_NUMBER - 1:
            self.closing = True  # stream numbers are used up
        self.streams[stream] = Stream(token)
        request, flow = self._requests[payload], self._flow
        size = request.size
        if request.blocks is self._table.filled and 0 < size <= flow.single and size <= flow.window:
            flow.window -= size
            digits = stream.to_bytes(4, "big")
            return b"".join((request.head, digits, request.middle, digits, request.body))
        self.out.append(wire.header_frames(stream, self._table.block(request), end=not request.body))
        self.held = len(self.out[-1]) + flow.framed(len(request.body))
        if request.body:
            flow.add(stream, request.body)
            flow.pump(self.out)
        return b""

    def cancel(self, token: int) -> None:
        """Give up a request: its stream is reset, and the connection lives on."""
        for stream, state in self.streams.items():
            if state.token == token:
                self._barren = 0
                del self.streams[stream]
                self.free += 1
                self._release()
                self._withhold(stream, token)
                self.out.append(frame(wire.RST_STREAM, 0, stream, uint32(wire.CANCEL)))
                return

    def tokens(self) -> list[int]:
        """Return the requests without a finished reply."""
        return [state.token for state in self.streams.values()]

    def so_far(self, token: int) -> tuple[int, int]:
        """Return twice 0: the reply is no stream."""
        return 0, 0

    # --- what arrives ---

    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrived at time ``now`` (ns), and append the requests that it completes to ``finished``."""
        if self._rest:
            data = self._rest + data
        try:
            position = self._frames(data, now, finished)
        except (ValueError, hpack.HPACKError) as error:
            self._rest = b""
            self.message = str(error)
            self.out.append(frame(wire.GOAWAY, 0, 0, uint32(0) + uint32(wire.PROTOCOL_ERROR)))
            self._fail(self.streams, status.BAD_RESPONSE, finished, self.message)
            return
        self._rest = data[position:]
        if self._unreturned >= GIVE_BACK:
            self.out.append(frame(wire.WINDOW_UPDATE, 0, 0, uint32(self._unreturned)))
            self._unreturned = 0

    def end(self, finished: list[Finished]) -> None:
        """Take the end of the connection: requests without a whole reply fail."""
        begun = [stream for stream, state in self.streams.items() if state.received]
        self._fail(begun, status.BAD_RESPONSE, finished, self._farewell or "the connection ended within the reply")
        self._fail(self.streams, status.RESET, finished, self._farewell)

    def _fail(
        self, streams: Sequence[int] | dict[int, Stream], outcome: int, finished: list[Finished], why: str
    ) -> None:
        self.closing = True
        for stream in list(streams):
            state = self.streams[stream]
            state.message = state.message or why
            self._finish(stream, state, outcome, finished)

    def _is_barren(self) -> None:
        self._barren += 1
        if self._barren > MOST_BARREN:
            raise ProtocolError(f"more than {MOST_BARREN:,} frames in a row that bring no reply on")

    def _give_back(self, stream: int, state: Stream, instead: int) -> None:
        """Take a request for one that the server has not processed (RFC 9113, section 8.7).

        While others are being answered, its place stays taken until one of them is: another request would be refused.
        """
        del self.streams[stream]
        self._kept += 1
        if not self.streams:
            self._release()
        self._withhold(stream, state.token)
        self.refused.append((state.token, instead))

    def _release(self) -> None:
        self.free += self._kept
        self._kept = 0

    def _withhold(self, stream: int, token: int) -> bool:
        """Forget what waits for a window of a stream that has ended, and return whether anything did."""
        body = self._flow.waiting.pop(stream, None)
        if body is not None:
            self.withheld[token] = self._flow.framed(len(body.left))
        return body is not None

    def _finish(self, stream: int, state: Stream, outcome: int, finished: list[Finished]) -> None:
        self._barren = 0
        del self.streams[stream]
        self.free += 1
        self._release()
        finished.append((state.token, outcome, state.received, state.first))
        if outcome != status.OK and state.message:
            self.message = self.reasons[state.token] = state.message
        if self._withhold(stream, state.token):
            # The reply came before the whole request was sent; the rest of it is of no use.
            self.out.append(frame(wire.RST_STREAM, 0, stream, uint32(wire.CANCEL)))

    def _frames(self, data: bytes, now: int, finished: list[Finished]) -> int:
        """Handle the whole frames, and return where an unfinished one begins."""
        position, size = 0, len(data)
        unpack, known, streams, waiting = HEAD.unpack_from, self._heads.known, self.streams, self._flow.waiting
        while size - position >= 9:
            word, flags, stream = unpack(data, position)
            start = position + 9
            end = start + (word >> 8)
            if end - start > MAX_FRAME:
                raise ProtocolError(f"a frame of {end - start} bytes, or no HTTP/2 at all")
            if end > size:
                break
            kind = word & 255
            state = streams.get(stream)
            if kind == HEADERS and flags == END_HEADERS and state is not None and not state.received and not waiting:
                after, body = whole_reply(data, start, end, stream, known, self._grpc)
                if after:
                    del streams[stream]
                    self.free += 1
                    if self._kept:
                        self._release()
                    self._unreturned += body
                    self._barren = 0
                    finished.append((state.token, status.OK, after - position, now))
                    position = after
                    continue
            if kind == HEADERS:
                end = self._headers(flags, stream & MAX_NUMBER, data, start, end, now, finished)
                if end < 0:
                    break
            elif kind == DATA:
                self._data(flags, stream & MAX_NUMBER, data, start, end, finished)
            else:
                self._control(kind, flags, stream & MAX_NUMBER, data[start:end], finished)
            position = end
        return position

    def _headers(
        self, flags: int, stream: int, data: bytes, start: int, end: int, now: int, finished: list[Finished]
    ) -> int:
        """Handle a header block, and return where its last frame ends; −1 if that has not arrived."""
        block = data[start:end]
        if flags & ~END_STREAM != END_HEADERS:
            block, end = wire.whole_block(data, start, end, flags, stream)
            if end < 0:
                return end
        head = self._heads.known.get(block) or self._heads.decode(block)
        state = self.streams.get(stream)
        if state is None:
            self._is_barren()
            self._check_opened(stream)
            return end
        self._barren = 0
        if not state.received:
            state.first = now
        state.received += end - start + 9
        wrong = state.add(head, self._grpc, ends=bool(flags & END_STREAM))
        if wrong:
            self._malformed(stream, state, wrong, finished)
        elif flags & END_STREAM:
            self._finish(stream, state, state.outcome(self._grpc), finished)
        return end

    def _data(self, flags: int, stream: int, data: bytes, start: int, end: int, finished: list[Finished]) -> None:
        self._unreturned += end - start
        state = self.streams.get(stream)
        if state is None:
            self._is_barren()
            self._check_opened(stream)
            return  # late data of a request that was given up
        if start < end:
            self._barren = 0
        else:
            self._is_barren()
        state.received += end - start + 9
        if not state.code:
            self._malformed(stream, state, "DATA before HEADERS", finished)
            return
        if flags & wire.PADDED:
            start, end = wire.inner(flags & wire.PADDED, data, start, end)
        if state.code >= 300 and not state.message:
            state.message = excerpt(data[start : min(end, start + EXCERPT)])
        if self._grpc and state.expected < 0:
            state.expect(data[start : min(end, start + 5)])
        state.data += end - start
        if flags & END_STREAM:
            self._finish(stream, state, state.outcome(self._grpc), finished)

    def _malformed(self, stream: int, state: Stream, why: str, finished: list[Finished]) -> None:
        """Fail one request for a malformed reply; the connection and its other streams live on."""
        state.message = why
        self._withhold(stream, state.token)
        self._finish(stream, state, status.BAD_RESPONSE, finished)
        self.out.append(frame(wire.RST_STREAM, 0, stream, uint32(wire.PROTOCOL_ERROR)))

    def _check_opened(self, stream: int) -> None:
        if not stream & 1 or stream >= self._next:
            raise ProtocolError(f"a frame on stream {stream}, which was never opened")

    def _control(self, kind: int, flags: int, stream: int, body: bytes, finished: list[Finished]) -> None:
        if not self.ready and kind != wire.SETTINGS:
            raise ProtocolError("the server's settings did not come first")
        if kind != wire.WINDOW_UPDATE or not self._flow.waiting:
            self._is_barren()
        if kind == wire.WINDOW_UPDATE:
            self._window_update(stream, wire.read_uint32(body), finished)
        elif kind == wire.RST_STREAM:
            self._reset(stream, wire.read_uint32(body), finished)
        elif kind in (wire.SETTINGS, wire.PING, wire.GOAWAY) and stream:
            raise ProtocolError(f"a connection's frame on stream {stream}")
        elif kind == wire.SETTINGS:
            self._settings(flags, body)
        elif kind == wire.PING:
            if len(body) != 8:
                raise ProtocolError("a ping is not of 8 bytes")
            if not flags & wire.ACK:
                self.out.append(frame(wire.PING, wire.ACK, 0, body))
        elif kind == wire.GOAWAY:
            self._goaway(body, finished)
        elif kind in (wire.PUSH_PROMISE, wire.CONTINUATION):
            raise ProtocolError("a push, which was refused, or a continuation of nothing")

    def _window_update(self, stream: int, step: int, finished: list[Finished]) -> None:
        step &= MAX_NUMBER
        if stream:
            self._check_opened(stream)
        if step:
            self._flow.grow(stream, step)
            if self._flow.waiting:
                self._flow.pump(self.out)
        elif stream in self.streams:
            self._malformed(stream, self.streams[stream], "a window that grows by 0", finished)
        elif not stream:
            raise ProtocolError("the connection's window grows by 0")

    def _reset(self, stream: int, code: int, finished: list[Finished]) -> None:
        self._check_opened(stream)
        state = self.streams.get(stream)
        if state is None:
            return
        if code == wire.REFUSED_STREAM:
            self._give_back(stream, state, status.of_grpc(_UNAVAILABLE) if self._grpc else status.RESET)
        else:
            self._withhold(stream, state.token)
            state.message = f"the server reset the stream ({wire.error_name(code)})"
            self._finish(stream, state, status.RESET, finished)

    def _settings(self, flags: int, body: bytes) -> None:
        if len(body) % 6 or (flags & wire.ACK and body):
            raise ProtocolError("bad SETTINGS")
        if flags & wire.ACK:
            return
        for key, value in struct.iter_unpack(">HL", body):
            if key == wire.HEADER_TABLE_SIZE:
                self._table.resize(value)
            elif key == wire.MAX_CONCURRENT_STREAMS:
                self._server_limit = value
            elif key == wire.INITIAL_WINDOW_SIZE:
                self._flow.resize(value)
            elif key == wire.MAX_FRAME_SIZE:
                self._flow.reframe(value)
        self.out.append(frame(wire.SETTINGS, wire.ACK, 0))
        self.ready = True
        self._kept = 0
        self.free = min(self._limit, self._server_limit) - len(self.streams)
        self._flow.pump(self.out)

    def _goaway(self, body: bytes, finished: list[Finished]) -> None:
        """Take the server's GOAWAY: requests that it has not begun, those above its last stream, may be sent again."""
        last = wire.read_uint32(body[:4]) & MAX_NUMBER
        error, text = wire.error_name(wire.read_uint32(body[4:8])), excerpt(body[8:])
        self._farewell = f"GOAWAY ({error}): {text}" if text else f"GOAWAY ({error})"
        self.message = text or self.message
        self.closing = True
        for stream in [stream for stream in self.streams if stream > last]:
            self._give_back(stream, self.streams[stream], status.RESET)
