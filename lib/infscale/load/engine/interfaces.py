"""What the engine's loop uses: a codec for each connection, input and output, limits, and the rows that it fills."""

import mmap
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from infscale.load.engine.status import Finished

if TYPE_CHECKING:  # the engine's process does without numpy
    import numpy as np
    import numpy.typing as npt

READ, WRITE = 1, 4
"""Events of a socket, as epoll numbers them (EPOLLIN, EPOLLOUT)."""

END = 0x2000
"""The event of a socket whose peer will send no more (EPOLLRDHUP)."""


class Codec(Protocol):
    """The client's side of one connection, without input and output of its own."""

    @property
    def ready(self) -> bool:
        """Return whether the connection is set up."""
        ...

    @property
    def closing(self) -> bool:
        """Return whether no further request may be sent on it."""
        ...

    @property
    def free(self) -> int:
        """Return how many requests may be sent now."""
        ...

    @property
    def message(self) -> str:
        """Return the server's last message about a failure, or why the connection failed; "" if there is none."""
        ...

    @property
    def out(self) -> list[bytes | memoryview]:
        """Return what must be sent beside the requests; the loop empties it."""
        ...

    @property
    def held(self) -> int:
        """Return how many bytes of the last request :meth:`send` kept back, in ``out`` or waiting for a window."""
        ...

    @property
    def refused(self) -> list[tuple[int, int]]:
        """Return the requests that the server has not processed, and may be sent again, each with the outcome that it
        has if that does not help; the loop empties it."""
        ...

    @property
    def single(self) -> bool:
        """Return whether the connection carries one request at a time."""
        ...

    @property
    def withheld(self) -> dict[int, int]:
        """Return how many bytes of ended requests waited for a window and were never sent, by token."""
        ...

    @property
    def reasons(self) -> dict[int, str]:
        """Return why requests failed, by token, where the server or its reply says so; the loop empties it."""
        ...

    def start(self) -> bytes:
        """Return what a new connection sends first."""
        ...

    def send(self, payload: int, token: int) -> bytes:
        """Return the bytes of request ``token`` with body ``payload`` of the pool; b"" if they are in ``out``."""
        ...

    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrived at time ``now`` (ns), and append the requests that it completes to ``finished``."""
        ...

    def end(self, finished: list[Finished]) -> None:
        """Take the end of the connection, and append the requests that it completes or fails to ``finished``."""
        ...

    def cancel(self, token: int) -> None:
        """Give up a request."""
        ...

    def tokens(self) -> list[int]:
        """Return the requests without a finished response."""
        ...

    def so_far(self, token: int) -> tuple[int, int]:
        """Return the bytes that a request's stream has brought so far, and the time of its first message (−1: none).

        Twice 0 for a reply that is no stream.
        """
        ...


class Io(Protocol):
    """Sockets, waiting and the clock: real (:mod:`io`), or in memory and in virtual time."""

    @property
    def owner(self) -> int:
        """Return the descriptor whose event asks the engine to stop; −1 if there is none."""
        ...

    def now(self) -> int:
        """Return the time of a monotonic clock, ns."""
        ...

    def connect(self, target: int) -> Any:
        """Return a non-blocking socket that connects to target number ``target``, watched for reading and writing.

        Raises:
            OSError: the connection was refused at once.
        """
        ...

    def watch(self, sock: Any, events: int) -> None:
        """Watch a socket for these events; those that are there now are told again."""
        ...

    def close(self, sock: Any) -> None:
        """Close a socket and watch it no more."""
        ...

    def wait(self, until: int) -> Sequence[tuple[int, int]]:
        """Wait for events until the clock reaches ``until`` (ns) at the latest.

        Returns:
            Pairs of file descriptor and events; they may be edge-triggered. The loop ignores a descriptor that is
            neither a socket's nor ``owner``.
        """
        ...


@dataclass(frozen=True)
class GiveUp:
    """When a load is ended early: so many requests had not succeeded in time that the rest need not be sent.

    Attributes:
        after_ns: time from a request's scheduled time within which it must succeed, ns.
        from_ns: requests scheduled before do not count, ns since the trial's start.
        most: how many late requests of one engine process end it.
    """

    after_ns: int
    from_ns: int
    most: int


@dataclass(frozen=True)
class Limits:
    """What the engine may use.

    Attributes:
        timeout_ns: time from a request's scheduled time to giving it up, ns.
        connections: most connections at a time.
        open_first: number of connections that are opened before the trial.
        keep_alive: False opens a connection for every request.
        give_up: when the load is ended early; None for never.
    """

    timeout_ns: int
    connections: int
    open_first: int
    keep_alive: bool = True
    give_up: GiveUp | None = None


@dataclass(frozen=True)
class Streaming:
    """How a reply brings its messages, and what a whole one is.

    Attributes:
        way: one of :data:`infscale.vocabulary.STREAMS`.
        expected: number of messages; 0 for any above none.
        done: data of the event, or text of the line, that ends a stream and is no message, such as ``[DONE]``; b"" for
            none.
        needs_done: whether a stream without it is cut short.
        errors: matches the beginning of a message that says that the stream failed; the text of its reason begins where
            the match ends. None looks for none.
    """

    way: str
    expected: int = 0
    done: bytes = b""
    needs_done: bool = False
    errors: re.Pattern[bytes] | None = None


MOST_MESSAGES = 1 << 24
"""Most messages of an engine process whose times are kept: 336 MB."""


class Messages:
    """The messages of streams in the order of arrival: growing columns of together 20 bytes a message.

    Messages of one request with the same time came in one read.

    Args:
        requests: number of requests.
        most: how many messages are kept; later ones are only counted, in ``unkept``.

    Attributes:
        at: when the last byte of a message was read, ns since the trial's start.
        sequence: the request.
        index: place of the message in its stream, from 0.
        bytes: of the message, without its framing.
        tokens: number of tokens that the server counted, by request; −1 for unknown.
    """

    def __init__(self, requests: int, most: int = MOST_MESSAGES) -> None:
        self.at, self.sequence, self.index, self.bytes = array("q"), array("I"), array("I"), array("I")
        self.tokens = array("i", [-1]) * requests
        self.unkept = 0
        self._room = most

    def add(self, token: int, index: int, now: int, sizes: list[int]) -> None:
        """Add the messages of request ``token``, the first of them its number ``index``, that one read completed."""
        count = len(sizes)
        if count > self._room:
            self.unkept += count - self._room
            count, sizes = self._room, sizes[: self._room]
        self._room -= count
        if count == 1:
            self.at.append(now)
            self.sequence.append(token)
            self.index.append(index)
            self.bytes.append(sizes[0])
        else:
            self.at.fromlist([now] * count)
            self.sequence.fromlist([token] * count)
            self.index.extend(range(index, index + count))
            self.bytes.fromlist(sizes)

    def columns(self) -> "dict[str, array[int]]":
        """Return the columns by name."""
        return {name: column for name, column in vars(self).items() if isinstance(column, array)}


SHARED_BYTES = 18
"""Bytes of a row in the memory that an engine process shares with its owner: two times and the outcome."""


class Rows:
    """Preallocated columns, one row per scheduled request; times in ns since the trial's start, −1 for never.

    Args:
        count: number of requests.
        shared: memory of :data:`SHARED_BYTES` a row for the columns that are watched meanwhile
            (:class:`Watched`); None takes memory of its own.
    """

    def __init__(self, count: int, shared: mmap.mmap | None = None) -> None:
        def never() -> "array[int]":
            return array("q", [-1]) * count

        memory = memoryview(bytearray(SHARED_BYTES * count) if shared is None else shared)
        memory[: 16 * count] = never().tobytes() * 2
        memory[16 * count : SHARED_BYTES * count] = bytes(2 * count)  # no page is first touched during the load
        self.due, self.done = memory[: 8 * count].cast("q"), memory[8 * count : 16 * count].cast("q")
        self.outcome = memory[16 * count : SHARED_BYTES * count].cast("h")
        self.sent, self.first = never(), never()
        self.bytes_in = array("q", [0]) * count
        self.bytes_out = array("q", [0]) * count
        self.connection = array("i", [-1]) * count


@dataclass(frozen=True)
class Watched:
    """The rows of one engine process of this machine while it runs: arrays that change, each of shape (requests,).

    The engine writes them anyway, and who looks costs it nothing.

    Attributes:
        scheduled, due, done: ns since the start, −1 for never; int64.
        outcome: as of :mod:`infscale.load.engine.status`; it is there before ``done`` is. int16.
    """

    scheduled: "npt.NDArray[np.int64]"
    due: "npt.NDArray[np.int64]"
    done: "npt.NDArray[np.int64]"
    outcome: "npt.NDArray[np.int16]"


Progress = Callable[[float, Sequence[Watched]], None]
"""Called a few times a second while a load runs, with the seconds since the schedule's start, negative before it, and
the rows so far; without any where they are on other machines."""


CodecFactory = Callable[[], Codec]
"""Returns the codec of a new connection."""
