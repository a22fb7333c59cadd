"""Cuts the body of a reply into messages, without input and output: gRPC's messages, server-sent events, lines, chunks.

A message is what the protocol says, however the bytes arrive. Messages are counted, not kept, apart from what is needed
to see an error or the end mark in them.
"""

import re
import struct
import zlib
from contextlib import suppress

from infscale.load.engine import status
from infscale.load.engine.interfaces import Messages, Streaming
from infscale.load.engine.wire.http1 import EXCERPT, excerpt

MOST_MESSAGE = 64 << 20
"""Longest accepted gRPC message, bytes; a longer one is a bad response."""

MOST_EVENT = 8 << 20
"""Longest accepted event or line, bytes; a longer one is a bad response, as it may never end."""

_PREFIX = struct.Struct(">BL")
"""Layout of what precedes a gRPC message: whether it is compressed, its length."""
_HEAD = EXCERPT + 16
"""Bytes of a message that is not whole yet that are kept, to see whether it is an error."""
_MOST_SIZE = 2**32 - 1
"""Largest size of a message that is kept as a number; only a chunk may be longer."""
_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,9})')
_DATA = re.compile(rb"^d(a(t(a(:.*)?)?)?)?$", re.MULTILINE)
"""A line of an event's data, or its beginning."""
_BOM = b"\xef\xbb\xbf"
"""Byte order mark, which may precede the first event."""


class Reader:
    """Reads the messages of one reply.

    Attributes:
        count: messages so far.
        first: time of the first one, ns since the trial's start; −1 for none.
        fault: outcome of a stream that has failed within its messages; PENDING while it has not.
        why: the reason of a failure.
    """

    def __init__(self, streaming: Streaming, kept: Messages, token: int) -> None:
        self.count = 0
        self.first = -1
        self.fault = status.PENDING
        self.why = ""
        self._streaming = streaming
        self._errors = streaming.errors
        self._kept = kept
        self._token = token

    def feed(self, data: bytes, at: int, end: int, now: int) -> None:
        """Take the part ``data[at:end]`` of the body, which was read at time ``now`` (ns).

        Raises:
            ValueError: a message is too long, or none at all.
        """
        raise NotImplementedError

    def mark(self, now: int) -> None:
        """Take the end of a chunk, or of a DATA frame."""

    def outcome(self) -> int:
        """Return the outcome of the reply, which has ended as its framing says, and note why it failed."""
        rest = self._end()
        streaming, count = self._streaming, self.count
        if self.fault:
            return self.fault
        if rest and self._begun(rest):
            return self._failed(status.STREAM_CUT, "the reply ended within a message")
        if rest and not count:
            if self._errors is not None and self._errors.match(rest):
                return self._failed(status.STREAM_ERROR, excerpt(rest))
            return self._failed(status.STREAM_EMPTY, f"no message; the reply begins {excerpt(rest)}".rstrip())
        if streaming.needs_done and not self._done():
            return self._failed(status.STREAM_CUT, f"the reply ended without {excerpt(streaming.done)}")
        if not count:
            return self._failed(status.STREAM_EMPTY, "the reply brought no message")
        if streaming.expected and count != streaming.expected:
            outcome = status.STREAM_FEW if count < streaming.expected else status.STREAM_MANY
            return self._failed(outcome, f"{count} messages instead of {streaming.expected}")
        return status.OK

    def cut(self, why: str) -> int:
        """Return the outcome of a reply that ended before its framing says that it is whole."""
        return self.fault or self._failed(status.STREAM_CUT, why)

    def _end(self) -> bytes:
        """Return the beginning of what is left of an unfinished message; b"" for nothing."""
        return b""

    def _begun(self, rest: bytes) -> bool:
        """Return whether what is left can be the beginning of a message."""
        return True

    def _done(self) -> bool:
        return True

    def _failed(self, fault: int, why: str) -> int:
        self.fault, self.why = self.fault or fault, self.why or why
        return self.fault

    def _came(self, sizes: list[int], now: int) -> None:
        if not self.count:
            self.first = now
        self._kept.add(self._token, self.count, now, sizes)
        self.count += len(sizes)


class GrpcReader(Reader):
    """Reads messages of gRPC, each behind a prefix of five bytes."""

    def __init__(self, streaming: Streaming, kept: Messages, token: int) -> None:
        super().__init__(streaming, kept, token)
        self._prefix = b""  # an unfinished one
        self._flag = self._size = self._left = 0  # of an unfinished message; bytes to come
        self._head = b""

    def feed(self, data: bytes, at: int, end: int, now: int) -> None:
        """Take a part of the body."""
        if self._left or self._prefix:
            at = self._resume(data, at, end, now)
        sizes: list[int] = []
        unpack, errors = _PREFIX.unpack_from, self._errors
        while end - at >= 5:
            flag, size = unpack(data, at)
            at += 5
            if flag > 1 or size > MOST_MESSAGE:
                self._refuse(flag, size)
            stop = at + size
            if stop > end:
                self._flag, self._size, self._left, self._head = flag, size, stop - end, data[at : min(end, at + _HEAD)]
                at = end
                break
            if errors is not None and (flag or errors.match(data, at, stop)):
                self._look(flag, data[at : min(stop, at + _HEAD)])
            sizes.append(size)
            at = stop
        if at < end:
            self._prefix = data[at:end]
        if sizes:
            self._came(sizes, now)

    def _resume(self, data: bytes, at: int, end: int, now: int) -> int:
        """Go on with an unfinished prefix or message, and return where the next one begins."""
        if not self._left:
            at, before = at + 5 - len(self._prefix), at
            self._prefix += data[before : min(at, end)]
            if at > end:
                return end
            self._flag, self._size = _PREFIX.unpack(self._prefix)
            self._prefix = self._head = b""
            if self._flag > 1 or self._size > MOST_MESSAGE:
                self._refuse(self._flag, self._size)
            self._left = self._size
        taken = min(self._left, end - at)
        if len(self._head) < _HEAD:
            self._head += data[at : at + min(taken, _HEAD - len(self._head))]
        self._left -= taken
        if not self._left:
            if self._errors is not None:
                self._look(self._flag, self._head)
            self._came([self._size], now)
        return at + taken

    def _refuse(self, flag: int, size: int) -> None:
        if flag > 1:
            raise ValueError(f"no gRPC message: its first byte is {flag}")
        raise ValueError(f"a gRPC message of {size:,} bytes; at most {MOST_MESSAGE:,} are taken")

    def _look(self, flag: int, head: bytes) -> None:
        """Note an error in a message that begins with ``head``; ``flag``: it is compressed."""
        if flag:
            with suppress(zlib.error):
                head = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
        if self._errors is not None and (error := self._errors.match(head)):
            self._failed(status.STREAM_ERROR, excerpt(head[error.end() :]) or "the message is an error")

    def _end(self) -> bytes:
        return self._prefix or (b"\0" if self._left else b"")


class TextReader(Reader):
    """What events and lines have in common: text, and a mark that ends the stream."""

    def __init__(self, streaming: Streaming, kept: Messages, token: int) -> None:
        super().__init__(streaming, kept, token)
        self._rest = bytearray()  # an unfinished message
        self._done_text = streaming.done
        self._done_size = len(streaming.done) or -1
        self._last = b""
        self._at = 0  # when the last part was read
        self._is_done = False

    def _text(self, text: bytes, start: int, sizes: list[int]) -> None:
        """Take the message ``text[start:]``, which is whole."""
        size = len(text) - start
        if size == self._done_size and text.endswith(self._done_text):
            self._is_done = True
            return
        if self._is_done:
            self._failed(status.STREAM_MANY, f"a message after {excerpt(self._done_text)}")
        if self._errors is not None and (error := self._errors.match(text, start)):
            self._failed(status.STREAM_ERROR, excerpt(text[error.end() :]))
        self._last = text
        sizes.append(size)

    def _keep(self, text: bytes) -> None:
        self._rest += text
        if len(self._rest) > MOST_EVENT:
            raise ValueError(f"an event or a line of more than {MOST_EVENT:,} bytes without an end")

    def _done(self) -> bool:
        return self._is_done

    def outcome(self) -> int:
        """Return the outcome of the reply, and note the tokens that the server counted."""
        outcome = super().outcome()
        if self._done_text and (match := _TOKENS.search(self._last)):
            self._kept.tokens[self._token] = int(match[1])
        return outcome


class EventReader(TextReader):
    """Reads server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Lines end in CR, LF or CRLF, an event at a blank line. Events without data, such as comments, are no messages.
    """

    def __init__(self, streaming: Streaming, kept: Messages, token: int) -> None:
        super().__init__(streaming, kept, token)
        self._after_cr = False  # whether a line feed would belong to the line end before it
        self._fresh = True

    def feed(self, data: bytes, at: int, end: int, now: int) -> None:
        """Take a part of the body."""
        text = data if end - at == len(data) else data[at:end]
        if self._after_cr and text:
            self._after_cr = False
            if text[0] == 10:
                text = text[1:]
        if b"\r" in text:
            self._after_cr = text[-1] == 13
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not text:
            return
        rest = self._rest
        if rest:
            if not (text[0] == 10 and rest[-1] == 10) and b"\n\n" not in text:
                self._keep(text)
                return
            text = bytes(rest) + text
            rest.clear()
        events = text.split(b"\n\n")
        if events[-1]:
            self._keep(events[-1])
        del events[-1]
        if events:
            self._events(events, now)

    def _events(self, events: list[bytes], now: int) -> None:
        if self._fresh:
            self._fresh = False
            events[0] = events[0].removeprefix(_BOM)
        sizes: list[int] = []
        for event in events:
            if event.startswith(b"data:") and b"\n" not in event:
                self._text(event, 6 if event.startswith(b" ", 5) else 5, sizes)
            elif (text := self._data(event)) is not None:
                self._text(text, 0, sizes)
        if sizes:
            self._came(sizes, now)

    def _data(self, event: bytes) -> bytes | None:
        """Return an event's data; None if it has none."""
        values, error = [], False
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                values.append(line[6 if line.startswith(b" ", 5) else 5 :])
            elif line == b"data":
                values.append(b"")
            elif line in (b"event: error", b"event:error"):
                error = True
        if not values:
            return None
        text = b"\n".join(values)
        if error and self._errors is not None:
            self._failed(status.STREAM_ERROR, excerpt(text) or "an event of the type error")
        return text

    def _end(self) -> bytes:
        return bytes(self._rest[:_HEAD]).strip(b"\n").removeprefix(_BOM)

    def _begun(self, rest: bytes) -> bool:
        return _DATA.search(rest) is not None  # other text, such as a JSON object or a comment, becomes no message


class LineReader(TextReader):
    """Reads lines that end in LF or CRLF (NDJSON); blank ones are no messages, the last one needs no end."""

    def feed(self, data: bytes, at: int, end: int, now: int) -> None:
        """Take a part of the body."""
        text = data if end - at == len(data) else data[at:end]
        self._at = now
        rest = self._rest
        if b"\n" not in text:
            self._keep(text)
            return
        if rest:
            text = bytes(rest) + text
            rest.clear()
        lines = text.split(b"\n")
        self._keep(lines.pop())
        self._lines(lines, now)

    def _lines(self, lines: list[bytes], now: int) -> None:
        sizes: list[int] = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if line and not line.isspace():
                self._text(line, 0, sizes)
        if sizes:
            self._came(sizes, now)

    def _end(self) -> bytes:
        rest = bytes(self._rest)
        self._rest.clear()
        self._lines([rest], self._at)
        return b""


class ChunkReader(Reader):
    """Reads chunks of HTTP/1.1, or the contents of DATA frames; a reply without chunks is one message."""

    def __init__(self, streaming: Streaming, kept: Messages, token: int) -> None:
        super().__init__(streaming, kept, token)
        self._size = self._at = 0
        self._head = b""

    def feed(self, data: bytes, at: int, end: int, now: int) -> None:
        """Take a part of a chunk."""
        if self._errors is not None and len(self._head) < _HEAD:
            self._head += data[at : min(end, at + _HEAD - len(self._head))]
        self._size += end - at
        self._at = now

    def mark(self, now: int) -> None:
        """Take the end of a chunk, which is a message if it is not empty."""
        if not self._size:
            return
        if self._errors is not None:
            if error := self._errors.match(self._head):
                self._failed(status.STREAM_ERROR, excerpt(self._head[error.end() :]))
            self._head = b""
        size, self._size = self._size, 0
        self._came([min(size, _MOST_SIZE)], now)

    def _end(self) -> bytes:
        self.mark(self._at)
        return b""


READERS: dict[str, type[Reader]] = {
    "grpc": GrpcReader,
    "sse": EventReader,
    "lines": LineReader,
    "chunks": ChunkReader,
}
"""By way (:data:`infscale.vocabulary.STREAMS`)."""
