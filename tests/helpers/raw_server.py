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
        self._there, self._cuts = (host, int(port)), 0

    def cut(self, times: int) -> None:
        """Reset so many connections, each when it has carried some requests."""
        self._cuts = times

    def __call__(self, near: socket.socket) -> None:
        """Serve one connection."""
        reads = 0
        with socket.create_connection(self._there) as far:
            other = {near: far, far: near}
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(65_536)
                    reads += ready is near
                    if reads > 3 and self._cuts > 0:  # after HTTP/2's greetings
                        self._cuts -= 1
                        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
                        return
                    if not data:
                        return
                    other[ready].sendall(data)
