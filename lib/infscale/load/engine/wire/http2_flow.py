"""Flow control of what is sent (RFC 9113, section 5.2): bodies wait here for the server's windows."""

from infscale.load.engine.wire.http2_frames import (
    DATA,
    END_STREAM,
    FIRST_WINDOW,
    MAX_FRAME,
    MAX_NUMBER,
    ProtocolError,
    frame_head,
)


class Body:
    """The part of a body that is not sent yet, and the window of its stream in bytes."""

    __slots__ = ("left", "window")

    def __init__(self, left: memoryview, window: int) -> None:
        self.left = left
        self.window = window


class Flow:
    """The windows of one connection.

    Attributes:
        window: of the connection, bytes.
        waiting: bodies that are not wholly sent, by stream.
        single: longest body that a new stream may send as one frame, bytes.
    """

    def __init__(self) -> None:
        self.window = FIRST_WINDOW
        self.waiting: dict[int, Body] = {}
        self.single = MAX_FRAME
        self._stream_window = FIRST_WINDOW
        self._max_frame = MAX_FRAME

    def add(self, stream: int, body: bytes) -> None:
        """Let a body wait until :meth:`pump` moves it on."""
        self.waiting[stream] = Body(memoryview(body), self._stream_window)

    def framed(self, size: int) -> int:
        """Return the size of a body of ``size`` bytes in the longest frames that the server takes."""
        return size + 9 * -(-size // self._max_frame)

    def resize(self, window: int) -> None:
        """Take the server's setting for streams' windows, which moves those of open streams, too, even below zero."""
        if window > MAX_NUMBER:
            raise ProtocolError(f"initial window of {window} bytes")
        for body in self.waiting.values():
            self._grow(body, window - self._stream_window)
        self._stream_window = window
        self.single = min(window, self._max_frame)

    def reframe(self, size: int) -> None:
        """Take the server's setting for the longest frame."""
        if not MAX_FRAME <= size < 2**24:
            raise ProtocolError(f"frame size of {size} bytes")
        self._max_frame = size
        self.single = min(self._stream_window, size)

    def grow(self, stream: int, step: int) -> None:
        """Take the server's WINDOW_UPDATE for a stream, or for the connection (stream 0)."""
        if not stream:
            self.window += step
            if self.window > MAX_NUMBER:
                raise ProtocolError("the connection's window is too large")
        elif stream in self.waiting:
            self._grow(self.waiting[stream], step)

    def _grow(self, body: Body, step: int) -> None:
        body.window += step
        if body.window > MAX_NUMBER:
            raise ProtocolError("a stream's window is too large")

    def pump(self, out: list[bytes | memoryview]) -> None:
        """Move bodies into ``out`` as far as the windows allow, the one that has waited longest first."""
        done = []
        for stream, body in self.waiting.items():
            if self.window <= 0:
                break
            room = min(len(body.left), body.window, self.window)
            if room > 0:
                self._move(stream, body, room, out)
                if not body.left:
                    done.append(stream)
        for stream in done:
            del self.waiting[stream]

    def _move(self, stream: int, body: Body, room: int, out: list[bytes | memoryview]) -> None:
        left, step = body.left, self._max_frame
        head = frame_head(DATA, 0, stream, step)
        whole = room - room % step
        for at in range(0, whole, step):
            out += (head, left[at : at + step])
        if whole < room:
            out += (frame_head(DATA, 0, stream, room - whole), left[whole:room])
        if room == len(left):
            out[-2] = frame_head(DATA, END_STREAM, stream, len(out[-1]))
        body.left = left[room:]
        body.window -= room
        self.window -= room
