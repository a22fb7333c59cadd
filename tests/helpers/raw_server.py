"""Servers that send what a test gives them, byte for byte, each connection in a thread of its own; and a proxy."""

import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Talk = Callable[[socket.socket], None]


@contextmanager
def server(talk: Talk) -> Iterator[str]:
    """A server whose every connection is handled by ``talk``; yields its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=guarded, args=(connection,), daemon=True).start()

        def guarded(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def replying(reply: bytes, *, close: bool = False) -> Talk:
    """A conversation in which each request, which must arrive in one piece, gets the same reply."""

    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(reply)
            if close:
                return

    return talk


class Proxy:
    """What a proxy does with its connections: it passes bytes on to ``address``, until it is told to cut them all."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._there, self._cuts, self._epoch = (host, int(port)), 0, 0

    def cut(self, times: int = 1) -> None:
        """Reset every connection at its next bytes, this and the next ``times`` − 1 times that one is opened."""
        self._cuts, self._epoch = times, self._epoch + 1

    def __call__(self, near: socket.socket) -> None:
        """Serve one connection."""
        epoch, doomed = self._epoch, self._cuts > 0
        with socket.create_connection(self._there) as far:
            other = {near: far, far: near}
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(65_536)
                    if doomed or epoch != self._epoch:
                        self._cuts = max(0, self._cuts - 1)
                        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
                        return
                    if not data:
                        return
                    other[ready].sendall(data)
