"""A client of HTTP/2 on the library h2, for tests of what a server really sends."""

import socket
from typing import Any

import h2.config
import h2.connection
import h2.events


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


class Client:
    """A client on the library h2."""

    def __init__(self, address: str) -> None:
        self.sock = connect(address)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def open(self, content_type: str, *, end: bool = True) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
        self.h2.send_headers(stream, [*fields, ("content-type", content_type)], end_stream=end)
        return stream

    def until(self, kind: type, count: int = 1) -> list[Any]:
        """Exchange until ``count`` events of a kind have come."""
        while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
            self.sock.sendall(self.h2.data_to_send())
            data = self.sock.recv(65_536)
            assert data, f"the server closed before {kind.__name__}"
            self.events += self.h2.receive_data(data)
        self.sock.sendall(self.h2.data_to_send())
        return found

    def body(self, stream: int) -> bytes:
        return b"".join(e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream)
