"""HTTP/1.1 client framing (RFC 9112), sans I/O: bytes in, finished replies out.

One request at a time on a connection, as every HTTP/1.1 client in the field does (no pipelining).
Bodies are counted, not kept.
"""

from collections.abc import Mapping, Sequence
from gzip import compress

from infscale.engine import status

MAX_HEAD = 65_536
"""Longest accepted status line and headers, in bytes; a longer one is a bad response."""

Finished = tuple[int, int, int, int]
"""Token of the request, outcome (:mod:`status`), bytes received for it, time of its first byte."""

_Head = tuple[int, int, bool]
"""HTTP status, body length (−1 chunked, −2 until close), keep-alive."""


def encode(method: str, path: str, headers: Mapping[str, str], body: bytes, *, gzip: bool = False) -> bytes:
    """One whole request; Content-Length is added; ``gzip`` compresses the body, and takes compressed replies."""
    if gzip:
        body, headers = compress(body, mtime=0), {**headers, "content-encoding": "gzip", "accept-encoding": "gzip"}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Http1:
    """The client's side of one connection.

    ``requests`` are the pool's encoded requests. Attributes that the loop reads: ``ready`` (always),
    ``free`` (streams that may be opened now), ``closing`` (no further request on this connection).
    """

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self.ready = True
        self.free = 1
        self.closing = False
        self.message = ""
        self.out: list[bytes | memoryview] = []
        self._token = -1
        self._memo: dict[bytes, _Head] = {}
        self._reset()

    def _reset(self) -> None:
        self._head = b""  # bytes of an unfinished head, or of an unfinished chunk line
        self._left = 0  # body bytes to come; −2 until close
        self._in_body = False
        self._chunk = ""  # state of a chunked body: "", "size", "data", "trailer"
        self._code = 0
        self._keep = True
        self._bytes = 0
        self._first = 0

    def start(self) -> bytes:
        """What a new connection sends first: nothing."""
        return b""

    def send(self, payload: int, token: int) -> bytes:
        """The bytes of a request; the connection is busy until its reply is finished."""
        self.free = 0
        self._token = token
        return self._requests[payload]

    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrived at time ``now``; append to ``finished`` what it completes."""
        if self._token < 0:
            self.closing = True  # bytes without a request: nothing after them can be trusted
            return
        if not self._bytes:
            self._first = now
        self._bytes += len(data)
        try:
            while data and self._token >= 0:
                data = self._body(data, finished) if self._in_body else self._headers(data, finished)
        except ValueError:
            self._finish(status.BAD_RESPONSE, finished, keep=False)
        if data:
            self.closing = True

    def end(self, finished: list[Finished]) -> None:
        """The server closed its side: completes a close-delimited body, fails anything else."""
        self.closing = True
        if self._token >= 0:
            whole = self._in_body and self._left == -2
            failed = status.BAD_RESPONSE if self._bytes else status.RESET
            self._finish(status.of_http(self._code) if whole else failed, finished, keep=False)

    def cancel(self, token: int) -> None:
        """Give a request up; a later reply cannot be told apart, so the connection is done for."""
        self.closing = True
        self._token = -1

    def tokens(self) -> list[int]:
        """Requests without a finished reply."""
        return [self._token] if self._token >= 0 else []

    def _finish(self, outcome: int, finished: list[Finished], *, keep: bool) -> None:
        finished.append((self._token, outcome, self._bytes, self._first))
        self._token = -1
        if keep:
            self.free = 1
            self._reset()
        else:
            self.closing = True

    def _headers(self, data: bytes, finished: list[Finished]) -> bytes:
        if self._head:
            data = self._head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > MAX_HEAD or not b"HTTP/1.".startswith(data[:7]):
                raise ValueError("not an HTTP/1.x head")
            self._head = data
            return b""
        self._head = b""
        code, length, keep = self._parsed(data[:end])
        data = data[end + 4 :]
        if code < 200:  # 100 Continue and its like: the reply is still to come
            return data
        if 0 <= length <= len(data):
            self._finish(status.of_http(code), finished, keep=keep)
            return data[length:]
        self._code, self._keep, self._in_body, self._left = code, keep, True, length
        if length == -1:
            self._chunk = "size"
        else:
            self._keep = keep and length != -2
        return data

    def _parsed(self, head: bytes) -> _Head:
        # A server's heads repeat while its Date header does, so a small memory of them saves the parse.
        known = self._memo.get(head)
        if known is None:
            if len(self._memo) > 64:
                self._memo.clear()
            known = self._memo[head] = _parse_head(head)
        return known

    def _body(self, data: bytes, finished: list[Finished]) -> bytes:
        if self._chunk:
            return self._chunked(data, finished)
        if self._left == -2:
            return b""
        if len(data) < self._left:
            self._left -= len(data)
            return b""
        left = self._left
        self._finish(status.of_http(self._code), finished, keep=self._keep)
        return data[left:]

    def _chunked(self, data: bytes, finished: list[Finished]) -> bytes:
        if self._chunk == "data":
            if len(data) < self._left:
                self._left -= len(data)
                return b""
            data, self._chunk = data[self._left :], "size"
            return data
        line, found, rest = (self._head + data).partition(b"\r\n")
        if not found:
            if len(line) > MAX_HEAD:
                raise ValueError("endless chunk line")
            self._head = line
            return b""
        self._head = b""
        if self._chunk == "size":
            size = _chunk_size(line)
            self._chunk, self._left = ("data", size + 2) if size else ("trailer", 0)
        elif not line:
            self._finish(status.of_http(self._code), finished, keep=self._keep)
        return rest


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
        raise ValueError("bad chunk size")
    return int(digits, 16)


def _parse_head(head: bytes) -> _Head:
    first, _, rest = head.partition(b"\r\n")
    parts = first.split(b" ", 2)
    if len(parts) < 2 or parts[0] not in (b"HTTP/1.1", b"HTTP/1.0") or len(parts[1]) != 3 or not parts[1].isdigit():
        raise ValueError("bad status line")
    fields: dict[bytes, bytes] = {}
    for line in rest.split(b"\r\n") if rest else ():
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise ValueError("bad header line")
        key = name.lower()
        fields[key] = fields[key] + b"," + value.strip() if key in fields else value.strip()
    code, connection = int(parts[1]), fields.get(b"connection", b"").lower()
    keep = b"close" not in connection if parts[0] == b"HTTP/1.1" else b"keep-alive" in connection
    return code, _body_length(code, fields), keep


def _body_length(code: int, fields: Mapping[bytes, bytes]) -> int:
    """RFC 9112 section 6.3, for a reply to POST or GET."""
    if code < 200 or code in (204, 304):
        return 0
    if b"transfer-encoding" in fields:
        if fields[b"transfer-encoding"].lower().endswith(b"chunked"):
            return -1
        return -2
    lengths = {part.strip() for part in fields.get(b"content-length", b"").split(b",")} - {b""}
    if not lengths:
        return -2
    if len(lengths) > 1 or not next(iter(lengths)).isdigit():
        raise ValueError("bad content-length")
    return int(next(iter(lengths)))
