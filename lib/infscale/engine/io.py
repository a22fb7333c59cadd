"""Real input and output for the loop: non-blocking sockets, epoll, and a timerfd on CLOCK_MONOTONIC."""

import contextlib
import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from infscale.engine.loop import READ, WRITE

_TFD_NONBLOCK, _TFD_CLOEXEC, _ABSTIME = 0o4000, 0o2000000, 1
_TIMER, _OWNER = 2**30, 2**30 + 1

Address = tuple[socket.AddressFamily, tuple[str, int] | str]


def resolve(host: str, port: int) -> Address:
    """The address family and address of a host, once, before the trial.

    Raises:
        OSError: the name cannot be resolved.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.AddressFamily(family), (str(address[0]), int(address[1]))


class SocketIo:
    """The loop's :class:`~infscale.engine.loop.Io` over real sockets.

    epoll's own timeout rounds to 1 ms; a timerfd with an absolute time wakes 50–60 µs late.
    ``owner`` is a file descriptor that becomes readable (or ends) when the engine must stop.
    """

    def __init__(self, address: Address, owner: int | None = None) -> None:
        self._family, self._address = address
        self._epoll = select.epoll()
        libc = ctypes.CDLL(None, use_errno=True)
        self._timer = libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._spec = ctypes.create_string_buffer(32)
        self._spec_at = ctypes.addressof(self._spec)
        self._pack = struct.Struct("qqqq").pack_into
        self._armed = -1
        self._poll = self._epoll.poll
        self.now = time.monotonic_ns
        # Edge-triggered: a new expiry is a new edge, so the timer needs no read.
        self._epoll.register(self._timer, READ | select.EPOLLET)
        self._numbers: dict[int, int] = {self._timer: _TIMER}
        if owner is not None:
            self._epoll.register(owner, READ)
            self._numbers[owner] = _OWNER

    def connect(self, number: int) -> socket.socket:
        """Begin a connection; small writes go out at once (TCP_NODELAY)."""
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if self._family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with contextlib.suppress(BlockingIOError):
                sock.connect(self._address)
        except OSError:
            sock.close()
            raise
        self._epoll.register(sock, READ | WRITE)
        self._numbers[sock.fileno()] = number
        return sock

    def watch(self, sock: socket.socket, number: int, events: int) -> None:
        """Change the events of a socket."""
        self._epoll.modify(sock, events)

    def close(self, sock: socket.socket) -> None:
        """Unregister and close."""
        del self._numbers[sock.fileno()]
        sock.close()  # epoll forgets it by itself

    def wait(self, until: int) -> Sequence[tuple[int, int]]:
        """Wait for events until the monotonic time ``until`` (ns)."""
        if until != self._armed:
            self._armed = until
            seconds, nanoseconds = divmod(until, 1_000_000_000)
            self._pack(self._spec, 0, 0, 0, seconds, nanoseconds or 1)
            self._settime(self._timer, _ABSTIME, self._spec_at, None)
        numbers = self._numbers
        events = []
        for fd, mask in self._poll():
            number = numbers[fd]
            if number == _TIMER:
                self._armed = -1
            else:
                events.append((-1 if number == _OWNER else number, mask))
        return events

    def shut(self) -> None:
        """Give back the timer and the epoll descriptor."""
        os.close(self._timer)
        self._epoll.close()
