"""The line between driver and worker: one TCP connection for each worker, over which everything of a load goes.

Not Dask's own messages: those pass through the scheduler, wait for its turn, and are told of a dead worker late. A line
breaks at once when one of its ends is gone, shows the clock with one short way, and keeps headers out of Dask's tasks
and logs. What is sent is a JSON header and bytes; a driver reads nothing else, and a worker reads pickles only from the
driver whose task told it where to connect.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

import msgspec

from infscale.errors import EngineError
from infscale.records.manifest import Generator

_SIZES = struct.Struct("<IQ")
MOST_HEADER, MOST_BYTES = 1 << 24, 1 << 34
"""Longest header and longest bytes of a message."""

SILENCE_MS = 10_000
"""How long sent data may stay unacknowledged before a line counts as broken, ms."""


class LineBrokenError(EngineError):
    """The other end of a line is gone."""


class Hello(msgspec.Struct, tag=True):
    """A worker's first message: the token that it was given, and what it is (:func:`infscale.load.cluster.facts`)."""

    token: str
    version: str
    code: str
    draws: str
    numpy: str
    pid: int
    host: str
    boot: str
    net: int


class Ping(msgspec.Struct, tag=True):
    """Asks for the time."""


class Pong(msgspec.Struct, tag=True):
    """The worker's monotonic clock when a ping came, and when this was sent, ns."""

    received_ns: int
    sent_ns: int


class Pool(msgspec.Struct, tag=True):
    """Bodies of requests, kept under this name; the bytes are a pickled list."""

    name: str


class Load(msgspec.Struct, tag=True):
    """A load to be made ready; the bytes are a pickled :class:`infscale.load.cluster.station.Work`."""


class Ready(msgspec.Struct, tag=True):
    """All engine processes are ready."""


class Go(msgspec.Struct, tag=True):
    """The schedule's time 0 on the worker's monotonic clock, ns."""

    start_ns: int


class Stop(msgspec.Struct, tag=True):
    """End the load, and send what there is of it."""


class Stopped(msgspec.Struct, tag=True):
    """The load was ended before it began."""


class Failed(msgspec.Struct, tag=True):
    """The load could not be made ready, or its engine failed; ``user`` says whether by what it was asked to do."""

    text: str
    user: bool


class Rows(msgspec.Struct, tag=True):
    """The end of a load; the bytes are Parquet files of these sizes: samples, and of streams messages and tokens."""

    generator: Generator
    sizes: list[int]
    cpu_s: float
    steal_fraction: float | None


class Watch(msgspec.Struct, tag=True):
    """Begin to read what the processes that listen at these TCP ports use, by the name of their group."""

    ports: dict[str, int]


class Watching(msgspec.Struct, tag=True):
    """The readings have begun, or why they cannot ("" for no reason)."""

    fault: str = ""


class Read(msgspec.Struct, tag=True):
    """End the readings."""


class Readings(msgspec.Struct, tag=True):
    """Readings; the bytes are a Parquet file, whose times are on the worker's monotonic clock."""


Message = (
    Hello | Ping | Pong | Pool | Load | Ready | Go | Stop | Stopped | Failed | Rows | Watch | Watching | Read | Readings
)
_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


@dataclass
class Line:
    """One end of a line. Several threads may send, one receives."""

    sock: socket.socket
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 4)):
            self.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)

    def send(self, message: Message, data: bytes = b"") -> None:
        """Send a message.

        Raises:
            LineBrokenError: the other end is gone.
        """
        head = _encode(message)
        with self._lock:
            try:
                self.sock.sendall(_SIZES.pack(len(head), len(data)) + head)
                if data:
                    self.sock.sendall(data)
            except OSError as error:
                raise LineBrokenError(error.strerror or str(error)) from error

    def receive(self, patience_s: float | None = None, most: int = MOST_BYTES) -> tuple[Message, bytes]:
        """Return the next message, and its bytes of which there may be ``most``.

        Raises:
            LineBrokenError: the other end is gone, says nothing for ``patience_s`` (s), or something else.
        """
        try:
            self.sock.settimeout(patience_s)
            head, data = _SIZES.unpack(self._exactly(_SIZES.size))
            if head > min(MOST_HEADER, most) or data > most:
                raise LineBrokenError("it sends no messages of ours")
            return _decode(self._exactly(head)), bytes(self._exactly(data))
        except TimeoutError as error:
            raise LineBrokenError(f"it said nothing for {patience_s:g} s") from error
        except OSError as error:
            raise LineBrokenError(error.strerror or str(error)) from error
        except msgspec.MsgspecError as error:
            raise LineBrokenError(f"it sends no messages of ours: {error}") from error

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            read = self.sock.recv_into(view)
            if not read:
                raise LineBrokenError("its process has ended")
            view = view[read:]
        return data

    def exchange(self, patience_s: float = 5.0) -> tuple[int, int, int, int]:
        """Return the four times of one round trip (:data:`infscale.load.cluster.clocks.Exchange`), ns.

        Raises:
            LineBrokenError: as :meth:`receive`.
        """
        sent = time.monotonic_ns()
        self.send(Ping())
        message, _ = self.receive(patience_s)
        received = time.monotonic_ns()
        if not isinstance(message, Pong):
            raise LineBrokenError(f"it answered a ping with {type(message).__name__}")
        return sent, message.received_ns, message.sent_ns, received

    def close(self) -> None:
        """End the line; the other end sees it at once."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def speaking(lines: list[Line], patience_s: float) -> list[Line]:
    """Wait up to ``patience_s`` (s) and return the lines that have something to be received, or are broken."""
    by_file = {line.sock.fileno(): line for line in lines}
    poll = select.poll()
    for file in by_file:
        poll.register(file, select.POLLIN | select.POLLHUP | select.POLLERR)
    return [by_file[file] for file, _ in poll.poll(1000 * patience_s)]
