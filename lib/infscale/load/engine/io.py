"""Real input and output for the engine's loop: non-blocking sockets, epoll, and a timerfd on CLOCK_MONOTONIC."""

import ctypes
import select
import socket
import struct
import time
from collections.abc import Sequence

from infscale.load.engine.interfaces import READ, WRITE

_TFD_NONBLOCK, _TFD_CLOEXEC, _ABSTIME = 0o4000, 0o2000000, 1

# Edge-triggered: a socket that was read is not looked at again by the next wait (−10 % CPU per request at 2,000/s).
# RDHUP tells an end that arrived together with data apart from the data.
_EDGE = select.EPOLLET | select.EPOLLRDHUP

Address = tuple[socket.AddressFamily, tuple[str, int] | str]


def resolve(host: str, port: int, path: str = "", *, probe_s: float = 1.0) -> Address:
    """Return the address family and address of a host, or of a Unix socket.

    Args:
        host: name or address.
        port: TCP port.
        path: of a Unix socket, instead of host and port.
        probe_s: longest wait for each address, s. Of a name with several addresses (``localhost``: ::1 and 127.0.0.1)
            the first one that accepts a connection is returned.

    Raises:
        OSError: the name cannot be resolved.
    """
    if path:
        return socket.AF_UNIX, path
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [
        (socket.AddressFamily(family), (str(address[0]), int(address[1]))) for family, _, _, _, address in answers
    ]
    return next((a for a in addresses[:-1] if _accepts(a, probe_s)), addresses[-1])


def _accepts(address: Address, patience_s: float) -> bool:
    with socket.socket(address[0], socket.SOCK_STREAM) as sock:
        sock.settimeout(patience_s)
        return sock.connect_ex(address[1]) == 0


class SocketIo:
    """Implements :class:`~infscale.load.engine.interfaces.Io` over real sockets.

    epoll's own timeout rounds to 1 ms; a timerfd with an absolute time wakes 50–60 µs late.

    Args:
        addresses: of the targets, as :func:`resolve` returns them.
        owner: file descriptor that becomes readable, or ends, when the engine must stop.
    """

    def __init__(self, addresses: Sequence[Address], owner: int | None = None) -> None:
        self._addresses = addresses
        self._epoll = select.epoll()
        libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: giving it up costs more than the calls do
        self._timer = libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        settime = libc.timerfd_settime
        settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._settime = settime
        self._spec = ctypes.create_string_buffer(32)
        self._spec_at = ctypes.c_void_p(ctypes.addressof(self._spec))
        self._pack = struct.Struct("qqqq").pack_into
        self._armed = -1
        self._poll = self._epoll.poll
        self.now = time.monotonic_ns
        # Edge-triggered: a new expiry is a new edge, so the timer needs no read.
        self._epoll.register(self._timer, READ | select.EPOLLET)
        self.owner = -1 if owner is None else owner
        if owner is not None:
            self._epoll.register(owner, READ)

    def connect(self, target: int) -> socket.socket:
        """Begin a connection to a target, whose small writes go out at once (TCP_NODELAY), and return its socket."""
        family, address = self._addresses[target]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect(address)
        except OSError as error:
            # On a Unix socket EAGAIN is a full backlog: nothing is under way.
            if not isinstance(error, BlockingIOError) or family == socket.AF_UNIX:
                sock.close()
                raise
        self._epoll.register(sock, READ | WRITE | _EDGE)
        return sock

    def watch(self, sock: socket.socket, events: int) -> None:
        """Watch a socket for these events; those that are there now are told again."""
        self._epoll.modify(sock, events | _EDGE)

    def close(self, sock: socket.socket) -> None:
        """Close a socket; epoll forgets it by itself."""
        sock.close()

    def wait(self, until: int) -> Sequence[tuple[int, int]]:
        """Wait for events until the monotonic time ``until`` (ns), and return them."""
        if until != self._armed:
            # A timer that went off is armed again all the same: the next time that is asked for is a later one.
            self._armed = until
            self._pack(self._spec, 0, 0, 0, until // 1_000_000_000, until % 1_000_000_000 or 1)
            self._settime(self._timer, _ABSTIME, self._spec_at, None)
        return self._poll()
