"""The null server's process: one thread and one epoll loop that send fixed replies, at once or as a FIFO server.

:mod:`infscale.load.null_server` starts it as ``python -m``. Standard input carries one line of JSON and the service
times (int64 ns), and then stays open: its end, which also comes with the owner's death, ends the process. Each byte
that comes on it is answered on standard output with the stamps of the streams so far.

The FIFO server has workers, of which each request takes the first that is free: with one, request i is answered at
end_i = max(receipt_i, end_{i−1}) + S_i. An absolute timerfd goes off
:data:`SPIN_NS` before that; the rest of the time it polls without waiting.
"""

import ctypes
import gc
import heapq
import json
import mmap
import os
import resource
import select
import socket
import sys
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypedDict

from infscale.servers.null.emission import Emission
from infscale.servers.null.http1 import BLOCKED, GONE, Http1Server, replies
from infscale.servers.null.http2 import Http2Server

SPIN_NS = 150_000
"""Time for which the loop polls before a reply is due, ns.

It is longer than a timerfd is late at p99 on a core that nothing else wants, and 4 % of a service time of 4 ms.
"""

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
_TFD_NONBLOCK, _TFD_CLOEXEC, _ABSTIME = 0o4000, 0o2000000, 1
_TRASH_BYTES = 1 << 24
_ANSWERS_BETWEEN_POLLS = 32


class Specification(TypedDict):
    """The server's settings: a line of JSON on standard input.

    The keys are those of :func:`infscale.load.null_server.null_server`; ``fifo`` tells whether there are service times,
    which follow in ``service_bytes`` bytes, ``cores`` the CPU affinity, and ``stream`` the fields of an
    :class:`Emission`, if requests are answered with streams.
    """

    host: str
    reply_bytes: int
    chunked: bool
    max_streams: int | None
    fifo: bool
    service_bytes: int
    workers: int
    cores: list[int] | None
    real_time: bool
    stream: dict[str, Any] | None


class _Codec(Protocol):
    skip: int
    closing: bool
    out: list[bytes | memoryview]

    def receive(self, data: bytes, requests: list[int]) -> None: ...
    def skipped(self, requests: list[int]) -> None: ...
    def reply(self, token: int) -> None: ...
    def begin(self, token: int, content_type: str) -> bool: ...
    def state(self, token: int) -> int: ...
    def emit(self, token: int, message: bytes) -> None: ...
    def end(self, token: int, *, failed: bool = False, cut: bool = False) -> None: ...
    def goodbye(self) -> None: ...


class _Discard:
    """Discards everything it receives; large bodies through a codec are compared with it."""

    def __init__(self) -> None:
        self.skip = 1 << 62
        self.closing = False
        self.out: list[bytes | memoryview] = []

    def receive(self, data: bytes, requests: list[int]) -> None:
        pass

    def skipped(self, requests: list[int]) -> None:
        pass

    def reply(self, token: int) -> None:
        pass

    def begin(self, token: int, content_type: str) -> bool:
        return False

    def state(self, token: int) -> int:
        return GONE

    def emit(self, token: int, message: bytes) -> None:
        pass

    def end(self, token: int, *, failed: bool = False, cut: bool = False) -> None:
        pass

    def goodbye(self) -> None:
        self.closing = True


class _Connection:
    __slots__ = ("codec", "parked", "pending", "sock")

    def __init__(self, sock: socket.socket, codec: _Codec) -> None:
        self.sock: socket.socket | None = sock
        self.codec = codec
        self.pending: memoryview | None = None  # bytes that a full socket did not take
        self.parked: list[tuple[int, int]] = []  # number and token of streams that wait for the client


class _Timer:
    """A timerfd on CLOCK_MONOTONIC, which needs no read where it is registered edge-triggered."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._armed = -1

    def arm(self, at_ns: int) -> None:
        if at_ns != self._armed:
            self._armed = at_ns
            spec = (ctypes.c_long * 4)(0, 0, at_ns // 1_000_000_000, at_ns % 1_000_000_000 or 1)
            self._settime(self.fd, _ABSTIME, spec, None)


class Server:
    """The loop. ``service`` is None, or S_i in ns in the order of receipt; requests beyond its end take no time."""

    def __init__(self, service: "array[int] | None", workers: int = 1) -> None:
        self._epoll = select.epoll()
        self._timer = _Timer()
        self._epoll.register(self._timer.fd, _READ | select.EPOLLET)
        self._handlers: dict[int, Callable[[int], None]] = {self._timer.fd: lambda mask: None}
        self._connections: dict[int, _Connection] = {}
        self._trash = mmap.mmap(-1, _TRASH_BYTES)
        self._service = service
        self._received = 0
        self._free_ns = [0] * workers  # a heap: when each worker has answered all that it has taken
        self._queue: list[tuple[int, int, _Connection, int]] = []  # a heap: end_i, i, connection and token
        self._turns = 0
        self._receipts = array("q")  # by request, of streams only
        self._request_of = array("i")  # by message of a stream, in the order of the writes
        self._written_ns = array("q")
        self._running = True

    def listen(self, host: str, codec: Callable[[], _Codec]) -> int:
        """Listen on a new port whose connections get a ``codec()`` each, and return the port."""
        listener = socket.create_server((host, 0), backlog=4096)
        listener.setblocking(False)
        self._handle(listener.fileno(), lambda mask: self._accept(listener, codec))
        return int(listener.getsockname()[1])

    def run(self, owner: int) -> None:
        """Serve until ``owner`` (a file descriptor) ends."""
        self._handle(owner, lambda mask: self._owner(owner))
        handlers, poll, now, queue = self._handlers, self._epoll.poll, time.monotonic_ns, self._queue
        while self._running:
            wait = -1.0
            if queue:
                left = queue[0][0] - now()
                if left <= 0:
                    self._answer()
                    self._turns += 1
                    if self._turns % _ANSWERS_BETWEEN_POLLS:
                        continue
                    wait = 0.0
                elif left <= SPIN_NS:
                    wait = 0.0
                else:
                    self._timer.arm(queue[0][0] - SPIN_NS)
            for fd, mask in poll(wait):
                handler = handlers.get(fd)
                if handler is not None:
                    handler(mask)
        self._goodbye()

    def _handle(self, fd: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, _READ)

    def _owner(self, owner: int) -> None:
        """Tell the stamps for each byte that comes, and end with the owner.

        A line of JSON has the numbers of requests and messages; then come the receipts and the stamps (int64), and the
        request of each message (int32), in the order of the writes.
        """
        self._running = bool(os.read(owner, 1))
        if self._running:
            line = json.dumps([len(self._receipts), len(self._written_ns)]).encode() + b"\n"
            with open(1, "wb", closefd=False) as standard_output:
                for part in (line, self._receipts, self._written_ns, self._request_of):
                    standard_output.write(part)

    def _accept(self, listener: socket.socket, codec: Callable[[], _Codec]) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._connections[sock.fileno()] = _Connection(sock, codec())
        self._handle(sock.fileno(), partial(self._event, connection))
        self._flush(connection)

    def _event(self, connection: _Connection, mask: int) -> None:
        if mask & _WRITE:
            self._flush(connection)
        if mask & ~_WRITE:
            self._readable(connection)

    def _readable(self, connection: _Connection) -> None:
        sock, codec = connection.sock, connection.codec
        if sock is None:
            return
        requests: list[int] = []
        try:
            if codec.skip:
                # MSG_TRUNC: TCP throws the bytes away without copying them.
                count = sock.recv_into(self._trash, min(codec.skip, _TRASH_BYTES), socket.MSG_TRUNC)
                codec.skip -= count
                if not codec.skip:
                    codec.skipped(requests)
            else:
                data = sock.recv(65_536)
                count = len(data)
                codec.receive(data, requests)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._drop(connection)
            return
        if requests:
            self._take(connection, requests)
        if connection.parked:
            self._unpark(connection)
        if codec.out or codec.closing:
            self._flush(connection)

    def _take(self, connection: _Connection, requests: list[int]) -> None:
        """Answer requests that have just come, or enter their answers into the queue."""
        if self._service is None:
            for token in requests:
                connection.codec.reply(token)
            return
        receipt, service = time.monotonic_ns(), self._service
        for token in requests:
            own = service[self._received] if self._received < len(service) else 0
            self._received += 1
            end = max(receipt, self._free_ns[0]) + own
            heapq.heapreplace(self._free_ns, end)
            heapq.heappush(self._queue, (end, self._received, connection, token))

    def _answer(self) -> None:
        _, _, connection, token = heapq.heappop(self._queue)
        if connection.sock is not None:
            connection.codec.reply(token)
            self._flush(connection)

    def _unpark(self, connection: _Connection) -> None:
        """Let the streams go on that waited for the client."""
        now = time.monotonic_ns()
        for number, token in connection.parked:
            heapq.heappush(self._queue, (now, number, connection, token))
        connection.parked.clear()

    def _flush(self, connection: _Connection) -> None:
        sock, out, pending = connection.sock, connection.codec.out, connection.pending
        if sock is None:
            return
        data: bytes | memoryview = pending if pending is not None else b""
        try:
            while data or out:
                if not data:
                    data = out[0] if len(out) == 1 else b"".join(out)
                    out.clear()
                sent = sock.send(data)
                data = memoryview(data)[sent:] if sent < len(data) else b""
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        if data or pending is not None:
            connection.pending = memoryview(data) if data else None
            self._epoll.modify(sock, _READ | _WRITE if data else _READ)
            if not data and connection.parked:
                self._unpark(connection)
        if not data and connection.codec.closing:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        sock = connection.sock
        if sock is not None:
            connection.sock = None
            del self._handlers[sock.fileno()], self._connections[sock.fileno()]
            sock.close()  # epoll forgets it by itself

    def _goodbye(self) -> None:
        for connection in list(self._connections.values()):
            connection.codec.goodbye()
            self._flush(connection)


class _Flow:
    __slots__ = ("grpc", "index", "received_ns")

    def __init__(self, received_ns: int, grpc: bool) -> None:
        self.received_ns = received_ns
        self.index = 0
        self.grpc = grpc


class Emitter(Server):
    """Answers each request with a stream of messages at known times, and keeps the stamp of each message's write.

    Streams that are late take turns, a write each. A stream whose client does not read, or gives it no window, waits
    until it can send, and nothing is made in advance.
    """

    def __init__(self, emission: Emission) -> None:
        super().__init__(None)
        self._emission = emission
        self._due = emission.due_ns()
        self._messages = emission.messages(grpc=False), emission.messages(grpc=True)
        self._flows: dict[int, _Flow] = {}

    def _take(self, connection: _Connection, requests: list[int]) -> None:
        receipt, first = time.monotonic_ns(), max(0, self._due(0))
        for token in requests:
            number = len(self._receipts)
            self._receipts.append(receipt)
            grpc = connection.codec.begin(token, self._emission.content_type)
            self._flows[number] = _Flow(receipt, grpc)
            heapq.heappush(self._queue, (receipt + first, number, connection, token))

    def _answer(self) -> None:
        _, number, connection, token = heapq.heappop(self._queue)
        codec, flow = connection.codec, self._flows[number]
        state = codec.state(token)
        if connection.sock is None or state == GONE:
            del self._flows[number]
            return
        if state == BLOCKED or connection.pending is not None:
            connection.parked.append((number, token))
            return
        due, message, index, received = self._due, self._messages[flow.grpc], flow.index, flow.received_ns
        offset, now, last = due(index), time.monotonic_ns(), index + self._emission.per_write
        while index < last and offset >= 0 and received + offset <= now:
            codec.emit(token, message(number, index))
            index += 1
            offset = due(index)
            if codec.state(token) == BLOCKED:
                break
        ends = offset < 0 and codec.state(token) != BLOCKED
        if ends:
            self._end(number, connection, token)
        written = time.monotonic_ns()
        for _ in range(index - flow.index):
            self._request_of.append(number)
            self._written_ns.append(written)
        flow.index = index
        if not ends:
            heapq.heappush(self._queue, (max(received + offset, written), number, connection, token))
        self._flush(connection)

    def _end(self, number: int, connection: _Connection, token: int) -> None:
        """End a stream as the emission says, behind its last message."""
        codec, ending, flow = connection.codec, self._emission.ending, self._flows.pop(number)
        if ending == "stalled":
            return
        if ending in ("error", "error_message"):
            error = self._emission.error(flow.grpc)
            if error:
                codec.emit(token, error)
            codec.end(token, failed=ending == "error")
        else:
            codec.end(token, cut=ending == "cut")


def _prioritise() -> str:
    """Run before ordinary processes where that is allowed, as the load engine does; return the policy."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return "other"
    return "fifo"


def _specification() -> tuple[Specification, "array[int] | None"]:
    """Read the specification and the service times from standard input."""
    with open(0, "rb", closefd=False, buffering=0) as standard_input:
        data = b""
        while not data.endswith(b"\n"):
            byte = standard_input.read(1)
            if not byte:
                sys.exit(0)  # the owner is gone
            data += byte
        spec: Specification = json.loads(data)
        left, service = spec["service_bytes"], b""
        while len(service) < left:
            part = standard_input.read(left - len(service))
            if not part:
                sys.exit(0)
            service += part
    return spec, array("q", service) if spec["fifo"] else None


def main() -> None:
    """Run the server that standard input specifies."""
    spec, service = _specification()
    if spec["cores"]:
        os.sched_setaffinity(0, spec["cores"])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    body = b"x" * spec["reply_bytes"]
    answers = replies(body, chunked=spec["chunked"])
    server = Server(service, spec["workers"]) if spec["stream"] is None else Emitter(Emission(**spec["stream"]))
    ports = {
        "rest": server.listen(spec["host"], partial(Http1Server, answers, {})),
        "grpc": server.listen(spec["host"], partial(Http2Server, body, spec["max_streams"])),
        "discard": server.listen(spec["host"], _Discard),
    }
    scheduler = _prioritise() if spec["real_time"] else "other"
    gc.collect()
    gc.freeze()
    gc.disable()
    print(json.dumps({**ports, "scheduler": scheduler}), flush=True)
    server.run(owner=0)


if __name__ == "__main__":
    main()
