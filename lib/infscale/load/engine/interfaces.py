"""What the loop needs from others: codecs, and input and output; what it may use; the rows that it fills."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from infscale.load.engine.status import Finished

READ, WRITE = 1, 4  # EPOLLIN, EPOLLOUT


class Codec(Protocol):
    """The client's side of one connection, sans I/O."""

    @property
    def ready(self) -> bool:
        """Whether the connection is set up."""
        ...

    @property
    def closing(self) -> bool:
        """Whether no further request may be sent on it."""
        ...

    @property
    def free(self) -> int:
        """How many requests may be sent now."""
        ...

    @property
    def message(self) -> str:
        """What the server said last of a failure, or why the connection failed; empty if nothing."""
        ...

    @property
    def out(self) -> list[bytes | memoryview]:
        """What is to be sent beside the requests; the loop empties it."""
        ...

    @property
    def held(self) -> int:
        """Bytes of the last request that :meth:`send` put into ``out`` or keeps until the server's windows allow it."""
        ...

    def start(self) -> bytes: ...  # noqa: D102
    def send(self, payload: int, token: int) -> bytes: ...  # noqa: D102
    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None: ...  # noqa: D102
    def end(self, finished: list[Finished]) -> None: ...  # noqa: D102
    def cancel(self, token: int) -> None: ...  # noqa: D102
    def tokens(self) -> list[int]: ...  # noqa: D102


class Io(Protocol):
    """Sockets, waiting and the clock: real (:mod:`io`) or in memory and in virtual time.

    ``owner`` is the descriptor whose event asks the engine to stop; −1 if there is none.
    """

    @property
    def owner(self) -> int: ...  # noqa: D102

    def now(self) -> int:
        """Nanoseconds of one monotonic clock."""
        ...

    def connect(self, target: int) -> Any:
        """A non-blocking socket that connects to that target, watched for reading and writing.

        Raises OSError when it is refused at once.
        """
        ...

    def watch(self, sock: Any, events: int) -> None:
        """Change the events of a socket."""
        ...

    def close(self, sock: Any) -> None:
        """Forget a socket and close it."""
        ...

    def wait(self, until: int) -> Sequence[tuple[int, int]]:
        """Events as (file descriptor, mask), at the latest when the clock reaches ``until``.

        They may be edge-triggered. A descriptor that belongs to no socket means nothing, but ``owner`` asks the
        engine to end.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """What the engine may use.

    Attributes:
        timeout_ns: from the scheduled time to giving up.
        connections: most connections at a time.
        open_first: connections that are opened before the trial.
        keep_alive: False opens a connection for every request.
    """

    timeout_ns: int
    connections: int
    open_first: int
    keep_alive: bool = True


class Rows:
    """Preallocated columns, one row per scheduled request; times in ns since the trial's start, −1 never."""

    def __init__(self, count: int) -> None:
        def never() -> "array[int]":
            return array("q", [-1]) * count

        self.due, self.sent, self.first, self.done = never(), never(), never(), never()
        self.bytes_in = array("q", [0]) * count
        self.bytes_out = array("q", [0]) * count
        self.outcome = array("h", [0]) * count
        self.connection = array("i", [-1]) * count


CodecFactory = Callable[[], Codec]
