"""The state that the loop keeps of a connection, and of all connections to one target."""

from collections import deque
from typing import Any

from infscale.load.engine.interfaces import READ, WRITE, Codec


class Connection:
    """One connection as the loop sees it."""

    __slots__ = (
        "carried",
        "codec",
        "connecting",
        "fd",
        "idle",
        "live",
        "number",
        "out",
        "pool",
        "read_size",
        "sock",
        "spent",
        "unsent",
        "watched",
    )

    def __init__(self, number: int, sock: Any, codec: Codec, pool: "Pool") -> None:
        self.number = number
        self.pool = pool
        self.sock = sock
        self.fd: int = sock.fileno()
        self.live = True
        self.codec = codec
        self.connecting = True
        self.carried = False  # whether a request was sent on it
        self.spent = False  # whether it has carried the only request that it is for (without keep-alive)
        self.idle = False  # whether it stands in its pool's deque of idle connections
        self.out: deque[memoryview] = deque()
        self.read_size = 16_384
        self.unsent = 0  # bytes of requests that could not be sent when the connection broke
        self.watched = READ | WRITE


class Pool:
    """The connections to one target, and the requests that wait for one of them."""

    __slots__ = ("idle", "limit", "live", "opening", "outstanding", "target", "waiting")

    def __init__(self, target: int, limit: int) -> None:
        self.target = target
        self.limit = limit
        self.live = 0
        self.opening = 0
        self.outstanding = 0  # requests without an outcome; kept by Balanced only
        self.idle: deque[Connection] = deque()
        self.waiting: deque[int] = deque()
