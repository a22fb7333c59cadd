"""The server's side of HTTP/1.1 (RFC 9112) without I/O: it takes bytes, finds requests, and gives a fixed reply.

Instead of a reply it can send a stream: :meth:`Http1Server.begin`, :meth:`~Http1Server.emit`, :meth:`~Http1Server.end`.

Heads repeat from request to request, so that each distinct one is parsed once. A body is counted and not read: ``skip``
tells the loop how many bytes it may discard.
"""

MAX_HEAD = 65_536
"""Longest accepted request line and headers, or chunk line, in bytes."""

BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE, KEEP = 0, 1
READY, BLOCKED, GONE = 0, 1, 2
"""Whether a stream can send a message now, has to wait for the client, or has ended."""

_Head = tuple[int, int, bool]
"""Body length (−1: chunked), CLOSE or KEEP, whether the client waits for ``100 Continue``."""


def replies(body: bytes, *, chunked: bool = False) -> tuple[bytes, bytes]:
    """Return two whole 200 replies with ``body``: one that closes the connection, and one that keeps it."""
    length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(body)
    if chunked:
        body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n" + length
    return head + b"\r\nconnection: close\r\n\r\n" + body, head + b"\r\n\r\n" + body


class Http1Server:
    """One connection.

    Attributes:
        skip: number of bytes of a body to come, which need not be passed to :meth:`receive`; count it down, and call
            :meth:`skipped` when it reaches 0.
        out: bytes to be sent, in order.
        closing: close the connection once ``out`` is sent.
    """

    def __init__(self, answers: tuple[bytes, bytes], heads: dict[bytes, _Head]) -> None:
        """Make a connection that sends ``answers`` of :func:`replies`; all connections share the parsed ``heads``."""
        self.skip = 0
        self.out: list[bytes | memoryview] = []
        self.closing = False
        self._answers = answers
        self._heads = heads
        self._rest = b""
        self._token = KEEP
        self._streaming = False
        self._chunks = ""  # within a chunked body: the line that comes next, "size" or "trailer"

    def receive(self, data: bytes, requests: list[int]) -> None:
        """Take bytes, and append a token for :meth:`reply` to ``requests`` for each request that is complete."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        heads = self._heads
        try:
            while data and not self.closing:
                if self._chunks:
                    data = self._chunk_line(data, requests)
                    continue
                end = data.find(b"\r\n\r\n") + 4
                if end < 4:
                    self._keep_rest(data)
                    return
                head = data[:end]
                length, token, expects = heads.get(head) or self._learn(head)
                self._token = token
                have = len(data) - end
                if expects and not have:
                    self.out.append(CONTINUE)
                if length < 0:
                    self._chunks = "size"
                elif have < length:
                    self.skip = length - have
                    return
                else:
                    requests.append(token)
                    end += length
                data = data[end:]
        except ValueError:
            self.out.append(BAD_REQUEST)
            self.closing = True

    def skipped(self, requests: list[int]) -> None:
        """Learn that all bytes of ``skip`` have been discarded; append a token if that completes a request."""
        if not self._chunks:
            requests.append(self._token)

    def reply(self, token: int) -> None:
        """Answer the oldest request that has no answer."""
        self.out.append(self._answers[token])
        if token == CLOSE:
            self.closing = True

    def begin(self, token: int, content_type: str) -> bool:
        """Begin a stream as the answer to a request; return False, since it is not gRPC.

        A request that comes while a stream is sent ends the connection: no client of streams pipelines them.
        """
        if self._streaming:
            self._streaming, self.closing = False, True
            return False
        self._streaming = True
        close = b"connection: close\r\n" if token == CLOSE else b""
        kind = content_type.encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n%b\r\n"
        self.out.append(head % (kind, close))
        return False

    def state(self, token: int) -> int:
        """Return READY while there is a stream, else GONE; the socket alone blocks it."""
        return READY if self._streaming else GONE

    def emit(self, token: int, message: bytes) -> None:
        """Send a message of the stream as one chunk."""
        self.out += (b"%x\r\n" % len(message), message, b"\r\n")

    def end(self, token: int, *, failed: bool = False, cut: bool = False) -> None:
        """End the stream, or the connection in the middle of it; HTTP/1.1 has no sign for a failure."""
        self._streaming = False
        if not cut:
            self.out.append(b"0\r\n\r\n")
        if cut or token == CLOSE:
            self.closing = True

    def goodbye(self) -> None:
        """End the connection; HTTP/1.1 has no message for that."""
        self.closing = True

    def _keep_rest(self, data: bytes) -> None:
        if len(data) > MAX_HEAD:
            raise ValueError("endless head")
        self._rest = data

    def _learn(self, head: bytes) -> _Head:
        if len(self._heads) >= 4096:
            self._heads.clear()
        self._heads[head] = parsed = _parse(head)
        return parsed

    def _chunk_line(self, data: bytes, requests: list[int]) -> bytes:
        line, found, rest = data.partition(b"\r\n")
        if not found:
            self._keep_rest(data)
            return b""
        if self._chunks == "trailer":
            if not line:
                self._chunks = ""
                requests.append(self._token)
            return rest
        size = int(line.partition(b";")[0], 16)
        if size < 0:
            raise ValueError("negative chunk size")
        if not size:
            self._chunks = "trailer"
            return rest
        self.skip = max(0, size + 2 - len(rest))
        return rest[size + 2 :]


def _parse(head: bytes) -> _Head:
    first, *lines = head[:-4].split(b"\r\n")
    version = first.rpartition(b" ")[2]
    if not version.startswith(b"HTTP/1."):
        raise ValueError("not a request line")
    fields = {name.strip().lower(): value.strip().lower() for name, _, value in (x.partition(b":") for x in lines)}
    connection = fields.get(b"connection", b"")
    keep = b"close" not in connection if version == b"HTTP/1.1" else b"keep-alive" in connection
    length = -1 if fields.get(b"transfer-encoding", b"").endswith(b"chunked") else int(fields.get(b"content-length", 0))
    if length < -1:
        raise ValueError("negative content-length")
    return length, KEEP if keep else CLOSE, fields.get(b"expect") == b"100-continue"
