"""A FIFO server in memory and in virtual time, as the engine's :class:`~infscale.load.engine.interfaces.Io`.

Bytes arrive the moment they are sent, computing takes no time, and the clock moves only while the engine waits: so
every time that the engine notes is known beforehand, to the nanosecond.
"""

from collections import deque
from collections.abc import Callable, Sequence

from infscale.load.engine.interfaces import READ, WRITE
from infscale.servers.null import http1 as null_http1
from infscale.servers.null import http2 as null_http2

RDHUP = 0x2000  # EPOLLRDHUP
Served = null_http1.Http1Server | null_http2.Http2Server


class VirtualSocket:
    """The engine's end of a connection."""

    def __init__(self, world: "VirtualServer", number: int, served: Served) -> None:
        self.number = number
        self.served = served
        self.inbox = bytearray()
        self.watched = READ | WRITE
        self.news = True  # since the last event, for edge-triggered ones
        self.closed = self.ended = False  # by the engine, by the server
        self._world = world

    def fileno(self) -> int:
        return self.number

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def send(self, data: bytes | memoryview) -> int:
        self._world.arrive(self, bytes(data))
        return len(data)

    def sendmsg(self, parts: Sequence[bytes | memoryview]) -> int:
        return sum(self.send(part) for part in parts)

    def recv(self, size: int) -> bytes:
        if not self.inbox and not self.ended:
            raise BlockingIOError
        data = bytes(self.inbox[:size])
        del self.inbox[:size]
        return data

    def recv_into(self, buffer: "memoryview | bytearray", size: int = 0) -> int:
        data = self.recv(size or len(buffer))
        memoryview(buffer)[: len(data)] = data
        return len(data)


class VirtualServer:
    """Serves request i, in the order of receipt, in ``service[i]`` ns: end_i = max(receipt_i, end_{i−1}) + S_i.

    With ``edges`` an event is reported once, else as long as it holds.

    Attributes:
        owner: as the engine's Io has it; nobody.
        in_system_ns: the integral over time of the number of requests received and not answered.
        most_in_system: the largest such number.
        requests_on: how many requests each connection has carried.
    """

    def __init__(self, served: Callable[[], Served], service: Sequence[int], *, edges: bool = False) -> None:
        self.owner = -1
        self._edges = edges
        self._served = served
        self._service = service
        self._clock = 1_700_000_000_000
        self._free = 0
        self._queue: deque[tuple[int, int, VirtualSocket, int]] = deque()  # end, receipt, whom to answer
        self._sockets: list[VirtualSocket] = []
        self.in_system_ns = 0
        self.most_in_system = 0
        self.requests_on: list[int] = []

    # --- the engine's Io ---

    def now(self) -> int:
        return self._clock

    def connect(self, target: int = 0) -> VirtualSocket:
        assert len(self.requests_on) < 10 * len(self._service) + 10, "connections are opened without end"
        sock = VirtualSocket(self, len(self.requests_on), self._served())
        self._sockets.append(sock)
        self.requests_on.append(0)
        self._pass_on(sock)
        return sock

    def watch(self, sock: VirtualSocket, events: int) -> None:
        sock.watched = events
        sock.news = True

    def close(self, sock: VirtualSocket) -> None:
        sock.closed = True
        self._sockets.remove(sock)

    def wait(self, until: int) -> Sequence[tuple[int, int]]:
        events = self._events()
        if not events:
            self._clock = max(self._clock, min(until, self._queue[0][0]) if self._queue else until)
            while self._queue and self._queue[0][0] <= self._clock:
                self._answer()
            events = self._events()
        return events

    def _events(self) -> list[tuple[int, int]]:
        events = []
        for sock in self._sockets:
            readable = READ if sock.inbox or sock.ended else 0
            mask = sock.watched & (WRITE | readable) | (RDHUP if sock.ended else 0)
            if mask and (sock.news or not self._edges):
                sock.news = False
                events.append((sock.number, mask))
        return events

    # --- the server ---

    def arrive(self, sock: VirtualSocket, data: bytes) -> None:
        requests: list[int] = []
        served = sock.served
        while data:
            if served.skip:
                taken = min(served.skip, len(data))
                served.skip -= taken
                data = data[taken:]
                if not served.skip:
                    served.skipped(requests)
            else:
                served.receive(data, requests)
                data = b""
        for token in requests:
            self._free = max(self._clock, self._free) + self._service[sum(self.requests_on)]
            self.requests_on[sock.number] += 1
            self._queue.append((self._free, self._clock, sock, token))
            self.most_in_system = max(self.most_in_system, len(self._queue))
        self._pass_on(sock)

    def _answer(self) -> None:
        """Work that was begun is done, also for a client that has given up."""
        end, receipt, sock, token = self._queue.popleft()
        self.in_system_ns += end - receipt
        if not sock.closed:
            sock.served.reply(token)
            self._pass_on(sock)

    def _pass_on(self, sock: VirtualSocket) -> None:
        sock.news |= bool(sock.served.out)
        sock.inbox += b"".join(sock.served.out)
        sock.served.out.clear()
        sock.ended = sock.served.closing
