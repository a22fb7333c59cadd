"""The client's side of HTTP/1.1 (RFC 9112) without input and output: bytes in, finished replies out.

A connection carries one request at a time (no pipelining). Bodies of replies are counted, not kept. Lines must end in
CRLF; LF alone, which the RFC allows a client to accept, is refused.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

from infscale.load.engine import status
from infscale.load.engine.status import Finished

MAX_HEAD = 65_536
"""Longest accepted status line and headers, chunk line or trailers, in bytes; a longer one is a bad response."""

EXCERPT = 200
"""Bytes of a failed request's reply that are kept as its reason."""

_Head = tuple[int, int, bool]
"""HTTP status, body length (or one of the two constants below), and whether the connection is kept."""

CHUNKED, UNTIL_CLOSE = -1, -2
"""Instead of a body length: the body comes in chunks, or ends with the connection."""
ON_HEAD, ON_LENGTH, ON_CLOSE, ON_CHUNKS, ON_TRAILER = range(5)
"""What part of a reply is being read."""

_NAME = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\0\r\n]*)?((?:\r\n" + _NAME + rb":[^\0\r\n]*)*+)")
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|connection):([^\r\n]*)", re.IGNORECASE)
_FIELD = re.compile(_NAME + rb":[^\0\r\n]*|[ \t][^\0\r\n]*")
_FOLD = re.compile(rb"\r\n[ \t]+")
_LONE_LF = re.compile(rb"[^\r]\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,20})[ \t]*(?:;.*)?")


def gzipped(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a compressed request that accepts a compressed reply; an empty body stays empty."""
    added = {"accept-encoding": "gzip"} | ({"content-encoding": "gzip"} if body else {})
    kept = {name: value for name, value in headers.items() if name.lower() not in added}
    return kept | added, zlib.compress(body, wbits=31) if body else body


def encode(method: str, path: str, headers: Mapping[str, str], body: bytes, *, gzip: bool = False) -> bytes:
    """Return one whole request with its Content-Length; ``gzip`` compresses the body and accepts compressed replies."""
    if gzip:
        headers, body = gzipped(headers, body)
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items() if k.lower() != "content-length")]
    lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def excerpt(body: bytes) -> str:
    """Return the beginning of a reply's body as a line of text; "" for bytes that are no text."""
    if body.startswith(b"\x1f\x8b"):
        with suppress(zlib.error):
            body = zlib.decompressobj(wbits=31).decompress(body, EXCERPT)
    text = " ".join(body[:EXCERPT].decode(errors="replace").split())
    return text if text.isprintable() and text.count("\ufffd") < 4 else ""


class Http1:
    """The client's side of one connection, a :class:`~infscale.load.engine.interfaces.Codec`.

    ``requests`` are the pool's encoded requests; not HEAD, whose replies lack the body that they announce.
    ``message`` is what was wrong with the last bad reply; ``reasons`` hold the same, and the beginning of the body of
    a reply whose status is not 2xx.
    """

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self.held = 0
        self.ready = True
        self.free = 1
        self.closing = False
        self.out: list[bytes | memoryview] = []
        self.message = ""
        self.refused: list[tuple[int, int]] = []  # by HTTP/1 a request is never refused unprocessed
        self.reasons: dict[int, str] = {}
        self.single = True
        self.withheld: dict[int, int] = {}
        self._excerpt = b""
        self._token = -1
        self._memo: dict[bytes, _Head] = {}
        self._state = ON_HEAD
        self._held = b""  # an unfinished head, line or line end
        self._left = 0  # body bytes to come; see _on_chunks and _on_trailer
        self._code = 0
        self._keep = True
        self._bytes = 0
        self._first = 0

    def start(self) -> bytes:
        """Return what a new connection sends first: nothing."""
        return b""

    def send(self, payload: int, token: int) -> bytes:
        """Return the bytes of a request; the connection is busy until its reply is finished."""
        self.free = 0
        self._token = token
        return self._requests[payload]

    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrived at time ``now`` (ns), and append the request that it completes to ``finished``."""
        if self._token < 0:
            self.closing = True  # bytes without a request: nothing after them can be trusted
            return
        if not self._bytes:
            self._first = now
        self._bytes += len(data)
        if self._held:
            data = self._held + data
            self._held = b""
        try:
            self._parse(data, finished)
        except ValueError as error:
            self.message = self.reasons[self._token] = str(error)
            self._finish(status.BAD_RESPONSE, 0, finished, keep=False)

    def end(self, finished: list[Finished]) -> None:
        """Take the server's end: it completes a body that lasts until the connection closes, and fails any other."""
        self.closing = True
        if self._token >= 0:
            failed = status.BAD_RESPONSE if self._bytes else status.RESET
            whole = self._state == ON_CLOSE
            if self._bytes and not whole:
                self.reasons[self._token] = "the connection ended within the reply"
            self._finish(status.of_http(self._code) if whole else failed, 0, finished, keep=False)

    def cancel(self, token: int) -> None:
        """Give up the request and the connection: a late reply could be taken for the next request's."""
        self.closing = True
        self._token = -1

    def tokens(self) -> list[int]:
        """Return the requests without a finished reply."""
        return [self._token] if self._token >= 0 else []

    def so_far(self, token: int) -> tuple[int, int]:
        """Return twice 0: the reply is no stream."""
        return 0, 0

    def _finish(self, outcome: int, surplus: int, finished: list[Finished], *, keep: bool) -> None:
        """Finish the request; ``surplus`` bytes arrived behind its reply and belong to no request."""
        finished.append((self._token, outcome, self._bytes - surplus, self._first))
        if self._excerpt:
            self.reasons.setdefault(self._token, excerpt(self._excerpt))
            self._excerpt = b""
        self._token = -1
        self._bytes = 0
        self._state = ON_HEAD
        if keep and not surplus:
            self.free = 1
        else:
            self.closing = True

    # --- the states: each returns how far it read; the bytes from there on are incomplete ---

    def _parse(self, data: bytes, finished: list[Finished]) -> None:
        at, size = 0, len(data)
        while at < size and self._token >= 0:
            state, before = self._state, at
            if state == ON_HEAD:
                at = self._on_head(data, at, finished)
            elif state == ON_CHUNKS:
                at = self._on_chunks(data, at)
            elif state == ON_TRAILER:
                at = self._on_trailer(data, at, finished)
            else:
                at = self._on_body(data, at, finished)
            if at == before:
                self._held = data[at:]
                return

    def _on_head(self, data: bytes, at: int, finished: list[Finished]) -> int:
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            self._check_unfinished(data[at:])
            return at
        head = data[at:end]
        code, length, keep = self._memo.get(head) or self._remember(head)
        at = end + 4
        if code < 200:  # an interim reply such as 100 Continue
            return at
        if 0 <= length <= len(data) - at:
            if code >= 300:
                self._excerpt = data[at : at + min(length, EXCERPT)]
            self._finish(status.of_http(code), len(data) - at - length, finished, keep=keep)
            return at + length
        self._code, self._keep, self._left = code, keep, length
        self._state = {CHUNKED: ON_CHUNKS, UNTIL_CLOSE: ON_CLOSE}.get(length, ON_LENGTH)
        return at

    def _check_unfinished(self, head: bytes) -> None:
        # What can never become a head fails now instead of at its timeout.
        if len(head) > MAX_HEAD + 3 or not b"HTTP/1.".startswith(head[:7]) or _LONE_LF.search(head):
            raise ValueError(f"not an HTTP/1 head: {head[:40]!r}")

    def _remember(self, head: bytes) -> _Head:
        # A server's heads repeat while its Date header does, so that remembering a few saves parsing them.
        if len(self._memo) > 64:
            self._memo.clear()
        parsed = self._memo[head] = _parse_head(head)
        return parsed

    def _keep_excerpt(self, part: bytes) -> None:
        if self._code >= 300 and len(self._excerpt) < EXCERPT:
            self._excerpt += part[:EXCERPT]

    def _on_body(self, data: bytes, at: int, finished: list[Finished]) -> int:
        size = len(data)
        if self._state == ON_CLOSE:
            self._keep_excerpt(data[at : at + EXCERPT])
            return size
        taken = min(self._left, size - at)
        self._keep_excerpt(data[at : at + min(taken, EXCERPT)])
        self._left -= taken
        if not self._left:
            self._finish(status.of_http(self._code), size - at - taken, finished, keep=self._keep)
        return at + taken

    def _on_chunks(self, data: bytes, at: int) -> int:
        """Read chunks. ``_left``: bytes of the chunk to come; 0 before the line end behind it; −1 before a size."""
        size = len(data)
        while True:
            if self._left > 0:
                end = min(size, at + self._left)
                self._left -= end - at
                self._on_chunk(data, at, end)
                at = end
            if self._left >= 0:
                if size - at < 2 or self._left:
                    return at
                if not data.startswith(b"\r\n", at):
                    raise ValueError("a chunk is longer than its size")
                at += 2
                self._left = -1
            end = _line_end(data, at)
            if end < 0:
                return at
            self._left = _chunk_size(data[at:end])
            at = end + 2
            if not self._left:
                self._state = ON_TRAILER
                return at

    def _on_chunk(self, data: bytes, at: int, end: int) -> None:
        """Take the part ``data[at:end]`` of a chunk, of which ``_left`` bytes are still to come."""
        self._keep_excerpt(data[at : min(end, at + EXCERPT)])

    def _on_trailer(self, data: bytes, at: int, finished: list[Finished]) -> int:
        """Read trailers. ``_left``: bytes of trailer lines so far."""
        end = _line_end(data, at)
        if end < 0:
            return at
        if end == at:
            self._finish(status.of_http(self._code), len(data) - end - 2, finished, keep=self._keep)
        elif self._left > MAX_HEAD or not _FIELD.fullmatch(data, at, end):
            raise ValueError(f"bad trailer: {data[at : at + 40]!r}")
        self._left += end - at
        return end + 2


def _line_end(data: bytes, at: int) -> int:
    """Return where the line that begins at ``at`` ends; −1 when its end has not arrived."""
    end = data.find(b"\r\n", at)
    if (end if end >= 0 else len(data) - 1) - at > MAX_HEAD:
        raise ValueError("endless line in a chunked body")
    return end


@lru_cache(maxsize=256)  # the chunks of streams repeat their sizes
def _chunk_size(line: bytes) -> int:
    """Return the size in bytes that the line before a chunk says."""
    match = _CHUNK.fullmatch(line)
    if match is None:
        raise ValueError(f"bad chunk size: {line[:40]!r}")
    return int(match[1], 16)


def _parse_head(head: bytes) -> _Head:
    unfolded = _FOLD.sub(b" ", head) if b"\r\n " in head or b"\r\n\t" in head else head
    match = _HEAD.fullmatch(unfolded)
    if match is None or len(head) > MAX_HEAD:
        raise ValueError(f"not an HTTP/1 head: {head[:40]!r}")
    fields: dict[bytes, bytes] = {}
    for name, value in _FRAMING.findall(match[3]):
        key = name.lower()
        fields[key] = fields[key] + b"," + value if key in fields else value
    return int(match[2]), _body_length(int(match[2]), fields), _keeps(match[1] == b"0", fields)


def _keeps(old: bool, fields: Mapping[bytes, bytes]) -> bool:
    """Return whether the connection may carry another request (RFC 9112, section 9.3); ``old``: HTTP/1.0."""
    options = {option.strip() for option in fields.get(b"connection", b"").lower().split(b",")}
    if old:  # a transfer coding in HTTP/1.0 is faulty framing: the reply must be the connection's last (section 6.1)
        return b"keep-alive" in options and b"transfer-encoding" not in fields
    return b"close" not in options


def _body_length(code: int, fields: Mapping[bytes, bytes]) -> int:
    """Return the length of the body of a reply to POST or GET (RFC 9112, section 6.3)."""
    if code == 101:
        raise ValueError("101 Switching Protocols, which was not asked for")
    if code < 200 or code in (204, 304):
        return 0
    if b"transfer-encoding" in fields:
        last = fields[b"transfer-encoding"].lower().rpartition(b",")[2]
        return CHUNKED if last.strip() == b"chunked" else UNTIL_CLOSE
    if b"content-length" not in fields:
        return UNTIL_CLOSE
    lengths = {length.strip() for length in fields[b"content-length"].split(b",")}
    length = lengths.pop()
    if lengths or not length.isdigit() or len(length) > 20:
        raise ValueError(f"bad content-length: {fields[b'content-length'][:40]!r}")
    return int(length)
