"""Streams over HTTP/2, gRPC's and REST's: the codec of :mod:`infscale.load.engine.wire.http2`, cut into messages."""

from collections.abc import Sequence
from typing import cast

from infscale.load.engine import status
from infscale.load.engine.interfaces import Messages, Streaming
from infscale.load.engine.status import Finished
from infscale.load.engine.wire import http2_frames as wire
from infscale.load.engine.wire.http2 import GIVE_BACK, Http2, Request
from infscale.load.engine.wire.http2_frames import DATA, END_STREAM, HEAD, HEADERS, MAX_FRAME, MAX_NUMBER, ProtocolError
from infscale.load.engine.wire.http2_replies import Stream
from infscale.load.engine.wire.streams.readers import READERS, Reader


class Streamed(Stream):
    """A request without a finished reply, whose messages ``reader`` reads."""

    def __init__(self, token: int, reader: Reader) -> None:
        super().__init__(token)
        self.reader = reader
        self.unreturned = 0  # bytes received since its window was filled up

    def outcome(self, grpc: bool) -> int:
        """Return the outcome of the reply, which has ended."""
        reader = self.reader
        if grpc and self.grpc > 0:
            if reader.count:
                self.message = f"within the stream: {self.message}"
            return status.of_grpc(self.grpc)
        result = status.of_http(self.code)
        if result != status.OK:
            return result
        if grpc and (self.code != 200 or self.grpc < 0):
            return self.broken("the reply ended without a gRPC status")
        if not grpc and self.expected >= 0 and self.data != self.expected:
            return self.broken("the reply's length is not its content-length")
        result = reader.outcome()
        self.message = reader.why
        return result

    def broken(self, why: str) -> int:
        """Return the outcome of a reply that ended too soon."""
        result = self.reader.cut(why)
        self.message = self.reader.why
        return result


class StreamHttp2(Http2):
    """The client's side of one connection whose replies are streams of messages.

    Args:
        requests: the pool.
        streaming: how replies bring their messages.
        kept: where the messages go.
        max_streams: most streams at a time; the server's own limit holds, too.
    """

    def __init__(
        self, requests: Sequence[Request], streaming: Streaming, kept: Messages, *, max_streams: int = 2**31
    ) -> None:
        super().__init__(requests, grpc=streaming.way == "grpc", max_streams=max_streams)
        self._streaming = streaming
        self._kept_messages = kept
        self._new = READERS[streaming.way]
        self._by_frame = streaming.way == "chunks"
        self._streamed = cast("dict[int, Streamed]", self.streams)  # send() puts in nothing else
        self._now = 0

    def send(self, payload: int, token: int) -> bytes:
        """Return the bytes of a request; b"" if they are in ``out``, as far as the server's windows allow."""
        stream = self._next
        data = super().send(payload, token)
        self._streamed[stream] = Streamed(token, self._new(self._streaming, self._kept_messages, token))
        return data

    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrived at time ``now`` (ns), and append the requests that it completes to ``finished``."""
        self._now = now
        super().receive(data, now, finished)

    def end(self, finished: list[Finished]) -> None:
        """Take the end of the connection: streams that have begun are cut short, other requests fail."""
        for stream, state in list(self._streamed.items()):
            if 200 <= state.code < 300:
                outcome = state.broken(self._farewell or "the connection ended within the reply")
                self._finish(stream, state, outcome, finished)
        super().end(finished)

    def so_far(self, token: int) -> tuple[int, int]:
        """Return the bytes that a request's stream has brought so far, and the time of its first message."""
        of_it = (state for state in self._streamed.values() if state.token == token)
        return next(((state.received, state.reader.first) for state in of_it), (0, 0))

    def _finish(self, stream: int, state: Stream, outcome: int, finished: list[Finished]) -> None:
        state.first = self._streamed[stream].reader.first
        super()._finish(stream, state, outcome, finished)

    def _goaway(self, body: bytes, finished: list[Finished]) -> None:
        last = wire.read_uint32(body[:4]) & MAX_NUMBER
        for stream, state in list(self._streamed.items()):
            if stream > last and state.reader.count:  # it was processed after all, and cannot be sent again
                outcome = state.broken("the server's GOAWAY denies a stream that it has begun")
                self._finish(stream, state, outcome, finished)
        super()._goaway(body, finished)

    def _reset(self, stream: int, code: int, finished: list[Finished]) -> None:
        state = self._streamed.get(stream)
        if state is None or not 200 <= state.code < 300 or (code == wire.REFUSED_STREAM and not state.reader.count):
            super()._reset(stream, code, finished)
            return
        self._withhold(stream, state.token)
        outcome = state.broken(f"the server reset the stream ({wire.error_name(code)})")
        self._finish(stream, state, outcome, finished)

    def _frames(self, data: bytes, now: int, finished: list[Finished]) -> int:
        """Handle the whole frames, and return where an unfinished one begins."""
        position, size, unpack = 0, len(data), HEAD.unpack_from
        while size - position >= 9:
            word, flags, stream = unpack(data, position)
            start = position + 9
            end = start + (word >> 8)
            if end - start > MAX_FRAME:
                raise ProtocolError(f"a frame of {end - start} bytes, or no HTTP/2 at all")
            if end > size:
                break
            kind = word & 255
            if kind == DATA:
                self._data(flags, stream & MAX_NUMBER, data, start, end, finished)
            elif kind == HEADERS:
                end = self._headers(flags, stream & MAX_NUMBER, data, start, end, now, finished)
                if end < 0:
                    break
            else:
                self._control(kind, flags, stream & MAX_NUMBER, data[start:end], finished)
            position = end
        return position

    def _data(self, flags: int, stream: int, data: bytes, start: int, end: int, finished: list[Finished]) -> None:
        state = self._streamed.get(stream)
        if state is None or start == end or not 200 <= state.code < 300:
            super()._data(flags, stream, data, start, end, finished)
            return
        size = end - start
        self._barren = 0
        self._unreturned += size
        state.received += size + 9
        if flags & wire.PADDED:
            start, end = wire.inner(flags & wire.PADDED, data, start, end)
        state.data += end - start
        try:
            state.reader.feed(data, start, end, self._now)
        except ValueError as error:
            self._malformed(stream, state, str(error), finished)
            return
        if self._by_frame:
            state.reader.mark(self._now)
        if flags & END_STREAM:
            self._finish(stream, state, state.outcome(self._grpc), finished)
            return
        state.unreturned += size
        if state.unreturned >= GIVE_BACK:
            self.out.append(wire.frame(wire.WINDOW_UPDATE, 0, stream, wire.uint32(state.unreturned)))
            state.unreturned = 0
