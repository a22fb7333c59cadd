"""Streams over HTTP/1.1: the codec of :mod:`infscale.load.engine.wire.http1`, whose replies are cut into messages."""

from collections.abc import Sequence

from infscale.load.engine import status
from infscale.load.engine.interfaces import Messages, Streaming
from infscale.load.engine.status import Finished
from infscale.load.engine.wire.http1 import (
    CHUNKED,
    ON_CHUNKS,
    ON_CLOSE,
    ON_LENGTH,
    UNTIL_CLOSE,
    Http1,
)
from infscale.load.engine.wire.streams.readers import READERS


class StreamHttp1(Http1):
    """The client's side of one connection whose replies are streams.

    The body of a reply whose status is not 2xx holds no messages.

    Args:
        requests: the pool's encoded requests.
        streaming: how replies bring their messages.
        kept: where the messages go.
    """

    def __init__(self, requests: Sequence[bytes], streaming: Streaming, kept: Messages) -> None:
        super().__init__(requests)
        self._streaming = streaming
        self._kept = kept
        self._new = READERS[streaming.way]
        self._by_chunk = streaming.way == "chunks"
        self._reader = self._new(streaming, kept, 0)
        self._now = 0

    def send(self, payload: int, token: int) -> bytes:
        """Return the bytes of a request; the connection is busy until its reply is finished."""
        self._reader = self._new(self._streaming, self._kept, token)
        self._code = 0
        return super().send(payload, token)

    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrived at time ``now`` (ns), and append the request that it completes to ``finished``."""
        self._now = now
        super().receive(data, now, finished)

    def end(self, finished: list[Finished]) -> None:
        """Take the server's end: it completes a body that lasts until the connection closes, and cuts any other."""
        if self._token < 0 or not 200 <= self._code < 300 or self._state == ON_CLOSE:
            super().end(finished)
            return
        self.closing = True
        self._finish(self._reader.cut("the connection ended within the reply"), 0, finished, keep=False)

    def so_far(self, token: int) -> tuple[int, int]:
        """Return the bytes that a request's stream has brought so far, and the time of its first message."""
        return (self._bytes, self._reader.first) if token == self._token else (0, 0)

    def _finish(self, outcome: int, surplus: int, finished: list[Finished], *, keep: bool) -> None:
        reader = self._reader
        if outcome == status.OK:
            outcome = reader.outcome()
        self._first = reader.first
        if outcome != status.OK and reader.why:
            self.reasons.setdefault(self._token, reader.why)
        super()._finish(outcome, surplus, finished, keep=keep)

    def _on_head(self, data: bytes, at: int, finished: list[Finished]) -> int:
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            self._check_unfinished(data[at:])
            return at
        head = data[at:end]
        code, length, keep = self._memo.get(head) or self._remember(head)
        at = end + 4
        if code < 200:  # an interim reply such as 100 Continue
            return at
        self._code, self._keep, self._left = code, keep, length
        self._state = {CHUNKED: ON_CHUNKS, UNTIL_CLOSE: ON_CLOSE}.get(length, ON_LENGTH)
        if not length:
            self._finish(status.of_http(code), len(data) - at, finished, keep=keep)
        return at

    def _on_body(self, data: bytes, at: int, finished: list[Finished]) -> int:
        if self._code < 300:
            end = len(data) if self._state == ON_CLOSE else min(len(data), at + self._left)
            self._reader.feed(data, at, end, self._now)
        return super()._on_body(data, at, finished)

    def _on_chunk(self, data: bytes, at: int, end: int) -> None:
        if self._code >= 300:
            super()._on_chunk(data, at, end)
            return
        self._reader.feed(data, at, end, self._now)
        if self._by_chunk and not self._left:
            self._reader.mark(self._now)
