"""If these fail, an HTTP/1.1 reply counts as what it was not, or a strange one stops the whole trial.

``h11`` is the oracle: as the server it writes valid replies, as a client it reads the same bytes as our codec.
"""

import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infscale.load.engine import status
from infscale.load.engine.wire.http1 import MAX_HEAD, Http1, encode

HEADERS = {"host": "example", "content-type": "application/json"}
REQUEST = encode("POST", "/predict", HEADERS, b"[1]")


@dataclass
class Seen:
    """What became of a request: its outcome, the bytes counted for it, and whether the connection lives on."""

    status: str
    size: int
    reusable: bool


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """``data`` in parts, cut at each of ``cuts`` (modulo its length)."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def read(parts: Sequence[bytes], *, closes: bool = True) -> Seen:
    """One request, its reply in parts, and the connection's end; there must be one outcome, not more."""
    codec = Http1([REQUEST])
    codec.send(0, 7)
    finished: list[tuple[int, int, int, int]] = []
    for now, part in enumerate(parts, 1):
        codec.receive(part, now, finished)
    reusable = not codec.closing and codec.free == 1
    if closes:
        codec.end(finished)
    ((token, outcome, size, first),) = finished
    assert token == 7
    assert first == (1 if size else 0)
    return Seen(status.name(outcome), size, reusable)


OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"content-length: 0\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

ROWS: list[tuple[str, bytes, str, bool]] = [
    ("a counted body", OK + b"Content-Length: 2\r\n\r\nok", "ok", True),
    ("no reason phrase, as TorchServe sends", OK + b"content-length: 2\r\n\r\nok", "ok", True),
    ("an empty body", OK + b"" + EMPTY, "ok", True),
    ("a server's error", b"HTTP/1.1 503 Busy\r\n" + EMPTY, "http_503", True),
    ("204 has no body, whatever it says", b"HTTP/1.1 204 -\r\ncontent-length: 9\r\n\r\n", "ok", True),
    ("304 neither", b"HTTP/1.1 304 -\r\ncontent-length: 9\r\n\r\n", "http_304", True),
    ("it says that it closes", OK + b"Connection: Close\r\n" + EMPTY, "ok", False),
    ("close among other options", OK + b"Connection: a, close\r\n" + EMPTY, "ok", False),
    ("an option that contains close", OK + b"Connection: xclose\r\n" + EMPTY, "ok", True),
    ("HTTP/1.0 closes", b"HTTP/1.0 200 OK\r\n" + EMPTY, "ok", False),
    ("unless kept alive", b"HTTP/1.0 200 -\r\nconnection: Keep-Alive\r\n" + EMPTY, "ok", True),
    ("a body until the end", OK + b"\r\nuntil the end", "ok", False),
    ("a body of another coding ends there", OK + b"transfer-encoding: gzip\r\n\r\nxy", "ok", False),
    (
        "interim replies come first",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 -\r\nlink: x\r\n\r\n" + OK + b"content-length: 2\r\n\r\nok",
        "ok",
        True,
    ),
    ("chunks", CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", "ok", True),
    (
        "chunks with extensions and trailers",
        CHUNKED + b"3;a=b\r\nabc\r\n0;last\r\nx-sum: 1\r\nx-more: 2\r\n\r\n",
        "ok",
        True,
    ),
    (
        "chunked outweighs a length",
        OK + b"content-length: 1\r\ntransfer-encoding: gzip, Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "ok",
        True,
    ),
    (
        "chunked in HTTP/1.0 is read, and trusted no further",
        b"HTTP/1.0 200 -\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "ok",
        False,
    ),
    ("one length twice", OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok", "ok", True),
    ("two lengths", OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok", "bad_response", False),
    ("two lengths in a list", OK + b"content-length: 2, 3\r\n\r\nok", "bad_response", False),
    ("an empty length", OK + b"content-length:\r\n\r\n", "bad_response", False),
    ("a length below zero", OK + b"content-length: -2\r\n\r\n", "bad_response", False),
    ("a folded header", OK + b"x: a\r\n\tcontent-length: 9\r\n" + EMPTY, "ok", True),
    ("a space before the colon", OK + b"content-length : 0\r\n\r\n", "bad_response", False),
    ("a header line without colon", OK + b"nonsense\r\n\r\n", "bad_response", False),
    ("lines that end in LF alone", b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", "bad_response", False),
    ("a chunk longer than its size", CHUNKED + b"3\r\nabcd\r\n", "bad_response", False),
    ("a chunk without size", CHUNKED + b"\r\n", "bad_response", False),
    ("a size that is no number", CHUNKED + b"-3\r\nabc\r\n", "bad_response", False),
    ("a trailer that is none", CHUNKED + b"0\r\nnonsense\r\n\r\n", "bad_response", False),
    ("a body cut short", OK + b"content-length: 10\r\n\r\nshort", "bad_response", False),
    ("chunks cut short", CHUNKED + b"3\r\nabc\r\n", "bad_response", False),
    ("a head cut short", OK + b"content-le", "bad_response", False),
    ("only an interim reply", b"HTTP/1.1 100 Continue\r\n\r\n", "bad_response", False),
    ("a change of protocol", b"HTTP/1.1 101 -\r\nupgrade: h2c\r\n\r\n", "bad_response", False),
    ("a status below 100", b"HTTP/1.1 099 -\r\n\r\n", "bad_response", False),
    ("another protocol's line", b"220 mail.example ESMTP\r\n", "bad_response", False),
    ("HTTP/2", b"\0\0\0\4\0\0\0\0\0", "bad_response", False),
    ("an endless head", OK + b"x: " + b"a" * (MAX_HEAD + 1), "bad_response", False),
    ("an endless chunk line", CHUNKED + b"1;" + b"a" * (MAX_HEAD + 1), "bad_response", False),
    ("endless trailers", CHUNKED + b"0\r\n" + b"a: b\r\n" * (MAX_HEAD // 3), "bad_response", False),
    ("nothing", b"", "reset", False),
]
"""What a reply is, the reply, its outcome, and whether the connection may carry another request."""


@pytest.mark.parametrize(("reply", "expected", "reusable"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_reply_is_what_it_is_in_one_piece_and_byte_by_byte(reply: bytes, expected: str, reusable: bool) -> None:
    assert read([reply] if reply else []) == Seen(expected, len(reply), reusable)
    bytewise = read(pieces(reply, range(len(reply)) if len(reply) < MAX_HEAD else [MAX_HEAD // 2]))
    assert (bytewise.status, bytewise.reusable) == (expected, reusable)


def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    """A client that took them for the next reply would shift every answer by one."""
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    assert read([reply + b"HTTP/1.1"], closes=False) == Seen("ok", len(reply), False)
    codec = Http1([REQUEST])
    codec.receive(b"HTTP/1.1 408 Timeout\r\n\r\n", 1, [])
    assert codec.closing


def test_a_reply_given_up_is_never_taken_for_the_next_one() -> None:
    codec = Http1([REQUEST])
    codec.send(0, 1)
    codec.cancel(1)
    finished: list[tuple[int, int, int, int]] = []
    codec.receive(b"HTTP/1.1 200 OK\r\n" + EMPTY, 1, finished)
    codec.end(finished)
    assert finished == []
    assert codec.closing


# --- against h11 ---

LENGTH, CHUNKS, CLOSE = "length", "chunks", "close"


@dataclass
class Reply:
    code: int
    framing: str
    parts: list[bytes]
    interim: int
    trailers: list[tuple[str, str]]
    closes: bool


PARTS = st.lists(st.binary(min_size=1, max_size=300), max_size=6)
NAMES = st.sampled_from(["x-request-id", "date", "server"])
TRAILERS = st.lists(st.tuples(NAMES, st.text("abc 1,;", max_size=9).map(str.strip)), max_size=3)
REPLIES = st.builds(
    Reply,
    code=st.sampled_from([200, 201, 204, 304, 400, 413, 500, 503]),
    framing=st.sampled_from([LENGTH, CHUNKS, CLOSE]),
    parts=PARTS,
    interim=st.integers(0, 2),
    trailers=TRAILERS,
    closes=st.booleans(),
)


def written(server: h11.Connection, reply: Reply) -> bytes:
    """A reply as h11 writes it."""
    whole = b"" if reply.code in (204, 304) else b"".join(reply.parts)
    framing = {LENGTH: [("content-length", str(len(whole)))], CHUNKS: [("transfer-encoding", "chunked")], CLOSE: []}
    headers = [("server", "oracle"), *framing[reply.framing]]
    if reply.closes or reply.framing == CLOSE:
        headers.append(("connection", "close"))
    chunked = reply.framing == CHUNKS and whole
    events: list[h11.Event] = [h11.InformationalResponse(status_code=103, headers=[])] * reply.interim
    events.append(h11.Response(status_code=reply.code, headers=headers))
    events += [h11.Data(data=part) for part in reply.parts] if whole else []
    events.append(h11.EndOfMessage(headers=reply.trailers if chunked else []))
    return b"".join(server.send(event) or b"" for event in events)


def asked(server: h11.Connection, request: bytes) -> bytes:
    """The body of a request, as h11 reads it."""
    server.receive_data(request)
    body = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            body += event.data
    return body


@settings(deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=4), st.lists(st.integers(0, 5000), max_size=12))
def test_exchanges_with_h11_come_out_as_it_meant_them_wherever_reads_cut(replies: list[Reply], cuts: list[int]) -> None:
    server, codec = h11.Connection(h11.SERVER), Http1([REQUEST])
    for token, reply in enumerate(replies):
        assert asked(server, codec.send(0, token)) == b"[1]"
        wire = written(server, reply)
        finished: list[tuple[int, int, int, int]] = []
        for now, part in enumerate(pieces(wire, cuts), 1):
            codec.receive(part, now, finished)
        closes = server.our_state is not h11.DONE
        if closes:
            codec.end(finished)
        assert finished == [(token, status.of_http(reply.code), len(wire), 1)]
        assert codec.closing == closes
        if closes:
            return
        server.start_next_cycle()


def oracle(wire: bytes) -> tuple[int, int, bool | None] | None:
    """Code, size and reuse (None: not compared) of a reply as an h11 client reads it; None if it does not accept it."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    code, version = 0, b""
    try:
        client.receive_data(wire)
        ended = False
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                code, version = event.status_code, event.http_version
            if event is h11.NEED_DATA:
                if ended:
                    return None
                ended = True
                client.receive_data(b"")
    except h11.RemoteProtocolError:
        return None
    if version not in (b"1.0", b"1.1"):
        return None  # h11 reads any version as 1.1; we read what we know
    surplus = len(client.trailing_data[0])
    # h11 closes after any HTTP/1.0 reply; we keep what says keep-alive.
    reusable = None if version == b"1.0" else client.our_state is h11.DONE and not surplus and not ended
    return code, len(wire) - surplus, reusable


STARTS = [OK, b"HTTP/1.0 200\r\n", b"HTTP/1.1 204 -\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + OK]
FIELDS = [
    b"Content-Length: 3\r\n",
    b"content-length:3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"connection: keep-alive\r\n",
]
FIELDS += [b"Connection: a, Close\r\n", b" folded\r\n", b"x: y\r\n", b"content-length: 0\r\n"]
BODIES = [
    b"",
    b"abc",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"03;a=b\r\nabc\r\n1 \r\n \r\n0\r\nx: y\r\n\r\n",
    b"3\r\nabc\r\n",
    b"abcd",
]
LIKELY = st.builds(
    lambda start, fields, body: start + b"".join(fields) + b"\r\n" + body,
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(FIELDS), max_size=3),
    st.sampled_from(BODIES),
)
EDITS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=2)), max_size=3)


def mutated(wire: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """``wire`` with ``cut`` bytes replaced by others at some places."""
    for place, cut, put in edits:
        at = place % (len(wire) + 1)
        wire = wire[:at] + put + wire[at + cut :]
    return wire


@settings(deadline=None, max_examples=800)
@given(st.one_of(st.builds(mutated, LIKELY, EDITS), st.binary(max_size=60)), st.lists(st.integers(0, 400), max_size=6))
def test_mutated_replies_are_read_as_h11_reads_them(wire: bytes, cuts: list[int]) -> None:
    """What h11 rejects we may take (an unusual transfer coding, a space in a chunk line), but not stumble over."""
    seen = read(pieces(wire, cuts))
    expected = oracle(wire)
    if re.search(rb"(?<!\r)\n", wire):
        return  # h11 takes LF alone for a line's end, which the RFC allows and we do not
    if expected is not None:
        code, size, reusable = expected
        assert (seen.status, seen.size) == (status.name(status.of_http(code)), size)
        assert reusable in (None, seen.reusable)


@settings(deadline=None)
@given(st.binary(max_size=2000), st.booleans())
def test_h11_reads_our_requests(body: bytes, gzip: bool) -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(encode("POST", "/v1/models/m:predict", {**HEADERS, "Content-Length": "9"}, body, gzip=gzip))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"POST", b"/v1/models/m:predict")
    fields = dict(request.headers)
    received = b""
    while isinstance(event := server.next_event(), h11.Data):
        received += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert server.trailing_data == (b"", False)
    assert fields.get(b"accept-encoding") == (b"gzip" if gzip else None)
    compressed = gzip and bool(body)
    assert fields.get(b"content-encoding") == (b"gzip" if compressed else None)
    assert (zlib.decompress(received, wbits=31) if compressed else received) == body


@pytest.mark.parametrize("framing", [LENGTH, CHUNKS])
def test_a_reply_of_64_mb_is_counted_to_the_byte(framing: str) -> None:
    part = bytes(1 << 20)
    head = b"HTTP/1.1 200 OK\r\n"
    if framing == LENGTH:
        wire = head + b"content-length: %d\r\n\r\n" % (64 << 20) + part * 64
    else:
        chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
        wire = head + b"transfer-encoding: chunked\r\n\r\n" + chunk * (16 << 10) + b"0\r\n\r\n"
    seen = read([wire[at : at + 1_000_003] for at in range(0, len(wire), 1_000_003)], closes=False)
    assert seen == Seen("ok", len(wire), True)
