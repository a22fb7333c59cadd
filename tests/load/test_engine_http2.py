"""If these fail, an HTTP/2 or gRPC reply counts as what it was not, or a large body or a busy server stalls a trial.

``h2`` is the oracle: as the server it reads our requests and writes valid replies, as a client it reads the same
bytes as our codec.
"""

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import hpack
import pytest
from h2.settings import SettingCodes, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from infscale.load.engine import status
from infscale.load.engine.wire.http2 import Http2, Request, encode_grpc, encode_rest
from infscale.load.engine.wire.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_BLOCK,
    MAX_FRAME,
    MAX_NUMBER,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    uint32,
)
from infscale.load.engine.wire.http2_replies import Heads

Finished = list[tuple[int, int, int, int]]
MESSAGE = b"\0\0\0\0\3abc"
EMPTY_SETTINGS = frame(SETTINGS, 0, 0)


def grpc(message: bytes = b"hello", **options: Any) -> Request:
    return encode_grpc("example:1", "/package.Service/Method", {}, message, **options)


def rest(body: bytes = b"[1]", **options: Any) -> Request:
    return encode_rest("POST", "example:1", "/predict", {"content-type": "application/json"}, body, **options)


def setting(key: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HL", key, value))


def block(*fields: tuple[str, str]) -> bytes:
    """Header fields as literals, which depend on nothing before."""
    return bytes(hpack.Encoder().encode([(name, value, True) for name, value in fields]))


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """``data`` in parts, cut at each of ``cuts`` (modulo its length)."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def started(requests: Sequence[Request], count: int = 1, *, is_grpc: bool = True, **options: Any) -> Http2:
    """A codec that knows the server's settings and has sent ``count`` requests, with tokens from 0."""
    codec = Http2(requests, grpc=is_grpc, **options)
    codec.receive(EMPTY_SETTINGS, 1, [])
    for token in range(count):
        codec.send(token % len(requests), token)
    codec.out.clear()
    return codec


def drained(codec: Http2) -> bytes:
    data = b"".join(codec.out)
    codec.out.clear()
    return data


OK_HEAD = frame(HEADERS, END_HEADERS, 1, block((":status", "200"), ("content-type", "application/grpc")))
GOOD = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(("grpc-status", "0")))
BODY = frame(DATA, 0, 1, MESSAGE)


def only(*fields: tuple[str, str]) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, block(*fields))


def head(*fields: tuple[str, str]) -> bytes:
    return frame(HEADERS, END_HEADERS, 1, block(*fields))


IN_THREE = b"".join(frame(DATA, 0, 1, part) for part in pieces(MESSAGE, [2, 6]))
ENDLESS_HEAD = frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * (MAX_BLOCK // 8)

GRPC_ROWS: list[tuple[str, bytes, str]] = [
    ("a message and status 0", OK_HEAD + BODY + GOOD, "ok"),
    (
        "a message in three frames",
        OK_HEAD + IN_THREE + GOOD,
        "ok",
    ),
    ("an empty message", OK_HEAD + frame(DATA, 0, 1, bytes(5)) + GOOD, "ok"),
    ("a compressed message", OK_HEAD + frame(DATA, 0, 1, b"\1" + MESSAGE[1:]) + GOOD, "ok"),
    ("an interim reply first", head((":status", "103")) + OK_HEAD + BODY + GOOD, "ok"),
    ("padding", OK_HEAD + frame(DATA, PADDED, 1, b"\4" + MESSAGE + bytes(4)) + GOOD, "ok"),
    ("frames of unknown type", OK_HEAD + frame(77, 255, 1, b"x") + BODY + frame(78, 0, 0) + GOOD, "ok"),
    (
        "a head in pieces",
        frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, 0, 1) + frame(CONTINUATION, END_HEADERS, 1) + BODY + GOOD,
        "ok",
    ),
    (
        "a head with padding and priority",
        frame(HEADERS, END_HEADERS | PADDED | PRIORITISED, 1, b"\2" + bytes(5) + b"\x88" + bytes(2)) + BODY + GOOD,
        "ok",
    ),
    ("trailers only", only((":status", "200"), ("grpc-status", "5"), ("grpc-message", "no%20such")), "grpc_NOT_FOUND"),
    ("an error in trailers", OK_HEAD + only(("grpc-status", "14")), "grpc_UNAVAILABLE"),
    ("an error outweighs HTTP's", only((":status", "503"), ("grpc-status", "8")), "grpc_RESOURCE_EXHAUSTED"),
    ("a status that nobody knows", OK_HEAD + only(("grpc-status", "99")), "grpc_UNKNOWN"),
    ("a status that is no number", OK_HEAD + only(("grpc-status", "-1")), "grpc_UNKNOWN"),
    ("an HTTP error without grpc-status", only((":status", "404")), "http_404"),
    ("success of another kind", only((":status", "204"), ("grpc-status", "0")), "bad_response"),
    ("no status", OK_HEAD + frame(DATA, END_STREAM, 1, MESSAGE), "bad_response"),
    ("no message", OK_HEAD + GOOD, "bad_response"),
    ("half a message", OK_HEAD + frame(DATA, 0, 1, MESSAGE[:-1]) + GOOD, "bad_response"),
    ("half a prefix", OK_HEAD + frame(DATA, 0, 1, MESSAGE[:3]) + GOOD, "bad_response"),
    ("two messages", OK_HEAD + BODY + BODY + GOOD, "bad_response"),
    ("it is reset", OK_HEAD + frame(RST_STREAM, 0, 1, uint32(2)), "reset"),
    ("it is refused", frame(RST_STREAM, 0, 1, uint32(REFUSED_STREAM)), "grpc_UNAVAILABLE"),
    ("reset without an error behind the whole reply", OK_HEAD + BODY + GOOD + frame(RST_STREAM, 0, 1, uint32(0)), "ok"),
    ("the connection goes away before it", frame(GOAWAY, 0, 0, uint32(0) + uint32(0)), "reset"),
    (
        "and twofold, gracefully",
        frame(GOAWAY, 0, 0, uint32(MAX_NUMBER) + uint32(0))
        + OK_HEAD
        + frame(GOAWAY, 0, 0, uint32(1) + uint32(0))
        + BODY
        + GOOD,
        "ok",
    ),
    ("the server ends at once", b"", "reset"),
    ("and in between", OK_HEAD + BODY, "bad_response"),
    ("data before the head", BODY + OK_HEAD + GOOD, "bad_response"),
    ("only an interim reply", only((":status", "103")), "bad_response"),
    ("a head without :status", head(("x", "y")) + BODY + GOOD, "bad_response"),
    ("a :status that is none", head((":status", "ok")) + BODY + GOOD, "bad_response"),
    ("two heads", OK_HEAD + OK_HEAD + BODY + GOOD, "bad_response"),
    ("padding longer than the frame", OK_HEAD + frame(DATA, PADDED, 1, b"\5" + bytes(4)), "bad_response"),
    ("padding in nothing", OK_HEAD + frame(DATA, PADDED, 1), "bad_response"),
    ("priority in nothing", frame(HEADERS, END_HEADERS | PRIORITISED, 1, b"\x88"), "bad_response"),
    ("a push", frame(PUSH_PROMISE, END_HEADERS, 1, uint32(2) + b"\x88"), "bad_response"),
    ("a frame on a stream that was not opened", frame(HEADERS, END_HEADERS, 99, b"\x88"), "bad_response"),
    ("a frame on a stream of the server's", frame(DATA, 0, 2, b"x"), "bad_response"),
    ("data of the connection", frame(DATA, 0, 0, b"x"), "bad_response"),
    ("settings of a stream", frame(SETTINGS, 0, 1), "bad_response"),
    ("settings cut short", frame(SETTINGS, 0, 0, bytes(5)), "bad_response"),
    ("settings beyond their range", setting(4, MAX_NUMBER + 1), "bad_response"),
    ("a frame size below the least", setting(5, MAX_FRAME - 1), "bad_response"),
    ("a ping of another length", frame(PING, 0, 0, bytes(7)), "bad_response"),
    ("a reset of another length", frame(RST_STREAM, 0, 1, bytes(5)), "bad_response"),
    ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, uint32(0)), "bad_response"),
    ("a window beyond 2³¹ − 1", frame(WINDOW_UPDATE, 0, 0, uint32(MAX_NUMBER)), "bad_response"),
    ("going away cut short", frame(GOAWAY, 0, 0, uint32(0)), "bad_response"),
    ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, b"\x88"), "bad_response"),
    ("a head interrupted", frame(HEADERS, 0, 1, b"\x88") + frame(PING, 0, 0, bytes(8)), "bad_response"),
    ("a head without end", frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, bytes(9000)) * 8, "bad_response"),
    (
        "a head of empty frames without end",
        ENDLESS_HEAD,
        "bad_response",
    ),
    ("a header block that is none", frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), "bad_response"),
    ("a frame longer than agreed", OK_HEAD + frame(DATA, 0, 1, bytes(MAX_FRAME + 1)), "bad_response"),
    ("HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", "bad_response"),
]


def of_length(length: str) -> bytes:
    return head((":status", "200"), ("content-length", length))


ABC = frame(DATA, END_STREAM, 1, b"abc")

REST_ROWS: list[tuple[str, bytes, str]] = [
    ("a body", head((":status", "200")) + frame(DATA, END_STREAM, 1, b"abc"), "ok"),
    (
        "a body of its length",
        of_length("3") + ABC,
        "ok",
    ),
    (
        "of another",
        of_length("4") + ABC,
        "bad_response",
    ),
    (
        "a length that is none",
        of_length("x") + frame(DATA, END_STREAM, 1),
        "bad_response",
    ),
    ("a head alone", only((":status", "204")), "ok"),
    ("trailers", head((":status", "200")) + frame(DATA, 0, 1, b"abc") + only(("x-sum", "1")), "ok"),
    ("an error", only((":status", "429")), "http_429"),
    ("304 with the length of what it does not send", only((":status", "304"), ("content-length", "9")), "http_304"),
    ("gRPC's status means nothing here", only((":status", "200"), ("grpc-status", "5")), "ok"),
    ("it is refused", frame(RST_STREAM, 0, 1, uint32(REFUSED_STREAM)), "reset"),
]
ROWS = [(True, *row) for row in GRPC_ROWS] + [(False, *row) for row in REST_ROWS]


@pytest.mark.parametrize(
    ("is_grpc", "reply", "expected"),
    [(row[0], *row[2:]) for row in ROWS],
    ids=[f"{'gRPC' if row[0] else 'REST'}: {row[1]}" for row in ROWS],
)
def test_a_reply_is_what_it_is_in_one_piece_and_in_many(is_grpc: bool, reply: bytes, expected: str) -> None:
    step = 1 if len(reply) < 2000 else 777
    for parts in ([reply], [reply[at : at + step] for at in range(0, len(reply), step)]):
        for before in (0, 2):  # later requests' replies may be recognised at a glance
            codec = started([grpc() if is_grpc else rest()], 1 + before, is_grpc=is_grpc)
            finished: Finished = []
            for part in parts:
                codec.receive(part, 5, finished)
            codec.end(finished)
            outcomes = outcomes_of(codec, finished)
            assert sorted(outcomes) == list(range(1 + before))
            assert outcomes[0] == expected


def outcomes_of(codec: Http2, finished: Finished) -> dict[int, str]:
    """The outcome of each request, of which there must be one; of a refused one, that which it has in the end."""
    pairs = [(token, outcome) for token, outcome, _, _ in finished] + codec.refused
    assert len(dict(pairs)) == len(pairs)
    return {token: status.name(outcome) for token, outcome in pairs}


def test_why_a_request_failed_is_kept() -> None:
    codec = started([grpc()], 2)
    codec.receive(only((":status", "200"), ("grpc-status", "3"), ("grpc-message", "shape %E2%89%A0 [2]")), 1, [])
    assert codec.message == "shape ≠ [2]"
    codec.receive(frame(GOAWAY, 0, 0, uint32(3) + uint32(11) + b"calm down"), 1, [])
    assert codec.message == "calm down"


def test_going_away_ends_only_what_the_server_will_not_answer() -> None:
    codec = started([grpc()], 3)
    finished: Finished = []
    codec.receive(frame(GOAWAY, 0, 0, uint32(MAX_NUMBER) + uint32(0)), 1, finished)
    assert (finished, codec.closing) == ([], True)
    codec.receive(frame(GOAWAY, 0, 0, uint32(3) + uint32(0)), 1, finished)
    assert finished == []
    assert codec.refused == [(2, status.RESET)], "which another connection may carry"
    assert codec.tokens() == [0, 1]


def test_a_request_given_up_is_reset_and_its_late_reply_ignored() -> None:
    codec = started([grpc()], 2)
    free = codec.free
    codec.cancel(0)
    assert drained(codec) == frame(RST_STREAM, 0, 1, uint32(8))
    assert (codec.tokens(), codec.free) == ([1], free + 1)
    finished: Finished = []
    codec.receive(OK_HEAD + BODY + GOOD, 1, finished)
    assert (finished, codec.closing) == ([], False)


def test_pings_and_settings_are_answered() -> None:
    codec = started([grpc()])
    codec.receive(frame(PING, 0, 0, b"12345678") + frame(PING, ACK, 0, b"other..."), 1, [])
    assert drained(codec) == frame(PING, ACK, 0, b"12345678")
    codec.receive(EMPTY_SETTINGS + frame(SETTINGS, ACK, 0), 1, [])
    assert drained(codec) == frame(SETTINGS, ACK, 0)


def test_streams_stay_within_both_limits_also_when_the_server_changes_its_own() -> None:
    codec = started([grpc()], 2, max_streams=3)
    assert codec.free == 1
    codec.receive(setting(3, 1), 1, [])
    assert codec.free == -1
    codec.receive(setting(3, 0) + OK_HEAD + BODY + GOOD, 1, [])
    assert codec.free == -1
    codec.receive(setting(3, 100), 1, [])
    assert codec.free == 2


def test_the_last_stream_number_ends_the_connection_and_not_the_trial() -> None:
    codec = started([grpc()])
    codec._next = MAX_NUMBER - 2
    codec.send(0, 1)
    assert not codec.closing
    assert codec.send(0, 2)[5:9] == uint32(MAX_NUMBER)
    assert codec.closing
    finished: Finished = []
    codec.receive(
        b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, n, block((":status", "200"), ("grpc-status", "1")))
            for n in (MAX_NUMBER - 2, MAX_NUMBER)
        ),
        1,
        finished,
    )
    assert [token for token, *_ in finished] == [1, 2]


def test_an_answer_before_the_end_of_a_request_stops_its_body() -> None:
    """Otherwise the rest of a refused 64 MB body would be sent for nothing, in everybody's way."""
    codec = started([rest(bytes(1 << 20))], is_grpc=False)
    finished: Finished = []
    codec.receive(only((":status", "413")), 1, finished)
    assert status.name(finished[0][1]) == "http_413"
    assert drained(codec) == frame(RST_STREAM, 0, 1, uint32(8))
    codec.receive(
        frame(WINDOW_UPDATE, 0, 0, uint32(1 << 20)) + frame(WINDOW_UPDATE, 0, 1, uint32(1 << 20)), 1, finished
    )
    assert drained(codec) == b""


def test_the_window_for_replies_is_filled_up_again() -> None:
    """Otherwise a connection would stall for ever after 2 GB of replies."""
    codec = started([rest()], is_grpc=False)
    codec.receive(head((":status", "200")), 1, [])
    chunk = frame(DATA, 0, 1, bytes(MAX_FRAME)) * 64
    while not (out := drained(codec)):
        codec.receive(chunk, 1, [])
    (grown,) = struct.unpack(">9xL", out)
    assert 2**30 <= grown < 2**31 - 1


FIELD = st.tuples(
    st.sampled_from(["date", "x-id", "server", ":status", "grpc-status"]),
    st.sampled_from(["1", "2", "200", "long" * 9]),
)
SIZES = st.sampled_from([None, None, 0, 60, 120, 4096])
HEAD_LISTS = st.lists(st.tuples(st.lists(st.tuples(FIELD, st.booleans()), max_size=4), SIZES), max_size=40)


@settings(deadline=None)
@given(HEAD_LISTS)
def test_remembered_header_blocks_say_what_decoding_them_says(lists: list[Any]) -> None:
    """A block remembered beyond a change of the header table would turn one status into another."""
    encoder, plain, heads = hpack.Encoder(), hpack.Decoder(), Heads()
    for fields, resized in lists:
        if resized is not None:
            encoder.header_table_size = resized
        encoded = encoder.encode([(name, value, literal) for (name, value), literal in fields])
        decoded = dict(plain.decode(encoded))
        seen = heads.known.get(encoded) or heads.decode(encoded)
        assert seen.code == int(decoded.get(":status", "0").replace("long" * 9, "0"))
        assert seen.grpc == int(decoded.get("grpc-status", "-1").replace("long" * 9, "2"))


# --- exchanges with an h2 server ---


@dataclass
class Plan:
    """What the server answers to a request."""

    code: int = 200
    grpc: int | None = 0
    body: list[bytes] = field(default_factory=lambda: [MESSAGE])
    pads: list[int] = field(default_factory=list)
    interim: int = 0
    text: str = ""
    early: bool = False  # before the request's end
    reset: int | None = None  # instead of the end

    def expected(self, is_grpc: bool) -> str:
        """By the protocols' rules, written down a second time."""
        if self.reset is not None:
            return "grpc_UNAVAILABLE" if is_grpc and self.reset == REFUSED_STREAM else "reset"
        if is_grpc and self.grpc:
            return f"grpc_{status.GRPC_CODES[self.grpc]}"
        if not 200 <= self.code < 300:
            return f"http_{self.code}"
        sent = b"".join(self.body)
        whole = len(sent) >= 5 and len(sent) == 5 + int.from_bytes(sent[1:5], "big")
        return "ok" if not is_grpc or (self.code == 200 and self.grpc == 0 and whole) else "bad_response"


def frames(data: bytes) -> Iterator[bytes]:
    """The bytes of each frame, the preface for itself."""
    at = 0
    while at < len(data):
        preface = data.startswith(PREFACE, at)
        size = len(PREFACE) if preface else 9 + int.from_bytes(data[at : at + 3], "big")
        yield data[at : at + size]
        at += size


class Server:
    """An h2 server that follows one plan per request; ``rewrite`` changes its bytes' form, not their meaning."""

    def __init__(self, plans: Sequence[Plan], is_grpc: bool, first: dict[int, int]) -> None:
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        # Updates wait for an acknowledgement of a frame that would not hold them: the first settings must be initial.
        limits = {SettingCodes.MAX_CONCURRENT_STREAMS: 100, SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 16} | first
        self.connection.local_settings = Settings(client=False, initial_values=limits)
        self.connection.max_inbound_frame_size = self.connection.local_settings.max_frame_size
        self.connection.decoder.max_allowed_table_size = self.connection.local_settings.header_table_size
        self.connection.initiate_connection()
        self.requests: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytearray] = {}
        self._plans, self._grpc = plans, is_grpc

    def take(self, data: bytes) -> bytes:
        """Read what the codec sent; returns what the server says to it."""
        # Frame by frame: h2 takes up a new frame size only for what it is given after the acknowledgement.
        for event in itertools.chain.from_iterable(map(self.connection.receive_data, frames(data))):
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id] = dict(event.headers)
                self.bodies[event.stream_id] = bytearray()
                if self._plan(event.stream_id).early:
                    self._answer(event.stream_id)
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                if event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded) and not self._plan(event.stream_id).early:
                self._answer(event.stream_id)
        return bytes(self.connection.data_to_send())

    def _plan(self, stream: int) -> Plan:
        return self._plans[stream // 2]

    def _answer(self, stream: int) -> None:
        plan, send = self._plan(stream), self.connection.send_headers
        for _ in range(plan.interim):
            send(stream, [(":status", "103"), ("link", "</x>")])
        trailers = (
            []
            if plan.grpc is None or not self._grpc
            else [("grpc-status", str(plan.grpc)), ("grpc-message", plan.text)]
        )
        alone = not plan.body and plan.reset is None
        send(
            stream, [(":status", str(plan.code)), ("x-text", plan.text), *(trailers if alone else [])], end_stream=alone
        )
        for part, pad in itertools.zip_longest(plan.body, plan.pads[: len(plan.body)]):
            self.connection.send_data(stream, part, pad_length=pad)
        if plan.reset is not None:
            self.connection.reset_stream(stream, plan.reset)
        elif not alone:
            if trailers:
                send(stream, trailers, end_stream=True)
            else:
                self.connection.end_stream(stream)


def reframed(data: bytes, cuts: Sequence[int], extra: bytes) -> bytes:
    """The same frames; header blocks cut into HEADERS and CONTINUATION, padding, priority, and strange frames."""
    out, at = b"", 0
    while at < len(data):
        size, kind, flags, stream = (
            int.from_bytes(data[at : at + 3], "big"),
            data[at + 3],
            data[at + 4],
            data[at + 5 : at + 9],
        )
        payload = data[at + 9 : at + 9 + size]
        at += 9 + size
        owner = int.from_bytes(stream, "big")
        if kind == HEADERS and flags & END_HEADERS and cuts:
            first, *rest_ = pieces(payload, cuts) or [b""]
            padded = bytes([len(extra)]) + bytes(5) + first + bytes(len(extra))
            more = flags & END_STREAM | PADDED | PRIORITISED
            out += frame(HEADERS, more | (0 if rest_ else END_HEADERS), owner, padded)
            for i, part in enumerate(rest_):
                out += frame(CONTINUATION, END_HEADERS if i == len(rest_) - 1 else 0, owner, part)
        else:
            out += frame(kind, flags, owner, payload)
        if kind not in (HEADERS, CONTINUATION) or flags & END_HEADERS:
            out += frame(99, 255, owner, extra)
    return out


def converse(
    codec: Http2,
    server: Server,
    requests: Sequence[int],
    rewrite: Callable[[bytes], Sequence[bytes]] = lambda data: [data],
    changes: Sequence[dict[int, int]] = (),
) -> Finished:
    """Send each request as soon as the codec may, and pass bytes to and fro until nothing moves any more.

    ``changes``: settings that the server announces, one set after each round.
    """
    finished: Finished = []
    changing, left = list(changes), list(enumerate(requests))
    upward, first = codec.start(), True
    while True:
        downward = server.take(upward)
        if changing and not first:
            server.connection.update_settings(changing.pop(0))
            downward += server.connection.data_to_send()
        first = False
        for part in rewrite(downward):
            codec.receive(part, 1, finished)
        upward = drained(codec)
        while left and codec.free > 0 and not codec.closing:
            token, payload = left.pop(0)
            upward += codec.send(payload, token) + drained(codec)
        if not upward and not changing:
            return finished


CODES = st.sampled_from([200, 200, 200, 204, 404, 503])
PLANS = st.builds(
    Plan,
    code=CODES,
    grpc=st.sampled_from([0, 0, 0, 3, 14, None]),
    body=st.sampled_from([[MESSAGE], [MESSAGE[:2], MESSAGE[2:]], [MESSAGE[:-1]], [], [b"", MESSAGE], [MESSAGE, b"x"]]),
    pads=st.lists(st.integers(0, 255), max_size=3),
    interim=st.integers(0, 1),
    text=st.sampled_from(["", "why", "y" * 20_000]),
    early=st.booleans(),
    reset=st.sampled_from([None, None, None, 0, REFUSED_STREAM, 2]),
)
WINDOWS = st.sampled_from([0, 1, 100, 65_535, 1 << 20])
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        SettingCodes.INITIAL_WINDOW_SIZE: WINDOWS,
        SettingCodes.MAX_FRAME_SIZE: st.sampled_from([MAX_FRAME, 20_000, 1 << 20]),
        SettingCodes.MAX_CONCURRENT_STREAMS: st.integers(1, 5),
        SettingCodes.HEADER_TABLE_SIZE: st.sampled_from([0, 100, 4096, 8192]),
    },
)
CUTS = st.lists(st.integers(0, 30_000), max_size=6)


@settings(deadline=None, max_examples=200)
@given(
    plans=st.lists(PLANS, min_size=1, max_size=6),
    is_grpc=st.booleans(),
    first=CHANGES,
    changes=st.lists(CHANGES, max_size=4),
    cuts=CUTS,
    blocks=CUTS,
    extra=st.binary(max_size=9),
    sizes=st.lists(st.sampled_from([0, 3, 300, 70_000, 200_000]), min_size=6, max_size=6),
)
def test_exchanges_with_h2_come_out_as_it_meant_them_wherever_reads_cut(
    plans: list[Plan], is_grpc: bool, first: Any, changes: list[Any], cuts: list[int], blocks: list[int], extra: bytes,
    sizes: list[int],
) -> None:  # fmt: skip
    """Settings that change midway, windows of 0, header tables of 0, blocks in pieces, padding, early answers."""
    bodies = [bytes([i]) * size for i, size in enumerate(sizes)]
    pool = [grpc(body) if is_grpc else rest(body) for body in bodies]
    codec = Http2(pool, grpc=is_grpc)
    server = Server(plans, is_grpc, first)
    last = {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20, SettingCodes.MAX_CONCURRENT_STREAMS: 5}
    finished = converse(
        codec, server, range(len(plans)), lambda data: pieces(reframed(data, blocks, extra), cuts), [*changes, last]
    )
    assert outcomes_of(codec, finished) == {token: plan.expected(is_grpc) for token, plan in enumerate(plans)}
    assert codec.tokens() == []
    assert not codec.closing
    for stream, received in server.bodies.items():
        body, plan = bodies[stream // 2], plans[stream // 2]
        sent = bytes(1) + uint32(len(body)) + body if is_grpc else body
        assert sent.startswith(received) if plan.early else received == sent
        assert server.requests[stream][":path"] == ("/package.Service/Method" if is_grpc else "/predict")


@pytest.mark.parametrize("megabytes", [12.8, 64])
@pytest.mark.parametrize("is_grpc", [True, False], ids=["grpc", "rest"])
def test_large_bodies_pass_both_ways_through_windows_of_64_kib(megabytes: float, is_grpc: bool) -> None:
    size = int(megabytes * 1e6)
    request = grpc(bytes(size)) if is_grpc else rest(bytes(size))
    reply = (b"\0" + uint32(size) if is_grpc else b"") + bytes(size)
    parts = [reply[at : at + MAX_FRAME] for at in range(0, len(reply), MAX_FRAME)]
    server = Server([Plan(body=parts)], is_grpc, {})
    megabyte = lambda data: [data[at : at + 1_000_003] for at in range(0, len(data), 1_000_003)]  # noqa: E731
    ((_, outcome, received, _),) = converse(Http2([request], grpc=is_grpc), server, [0], megabyte)
    assert status.name(outcome) == "ok"
    assert received > len(reply) + 9 * len(parts)
    assert server.bodies[1] == request.body


def test_a_pool_of_different_headers_never_mixes_them_up() -> None:
    """Later requests refer to the header table that the first one filled: with their own fields, or not at all."""
    large = {f"x-{i}": str(i) * 900 for i in range(6)}  # more than the table holds
    pool = [encode_rest("POST", "a:1", f"/{i}", headers, b"x") for i in (1, 2) for headers in ({"x-id": "1"}, large)]
    server = Server([Plan()] * 12, False, {})
    assert len(converse(Http2(pool, grpc=False), server, [0, 1, 2, 3] * 3)) == 12
    for stream, fields in server.requests.items():
        k = stream // 2 % 4
        expected = {"x-id": "1"} if k % 2 == 0 else large
        assert fields[":path"] == f"/{k // 2 + 1}"
        assert {name: value for name, value in fields.items() if name.startswith("x-")} == expected


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=3000), st.booleans())
def test_compressed_requests_say_so_and_hold_what_was_given(body: bytes, is_grpc: bool) -> None:
    server = Server([Plan()], is_grpc, {})
    request = grpc(body, gzip=True, scheme="https") if is_grpc else rest(body, gzip=True, scheme="https")
    converse(Http2([request], grpc=is_grpc), server, [0])
    fields, received = server.requests[1], bytes(server.bodies[1])
    assert fields[":scheme"] == "https"
    if is_grpc:
        assert (fields["grpc-encoding"], fields["grpc-accept-encoding"]) == ("gzip", "identity,gzip")
        assert (received[0], int.from_bytes(received[1:5], "big")) == (1, len(received) - 5)
        assert zlib.decompress(received[5:], wbits=31) == body
    else:
        assert fields["accept-encoding"] == "gzip"
        assert fields["content-length"] == str(len(received))
        assert fields.get("content-encoding") == ("gzip" if body else None)
        assert (zlib.decompress(received, wbits=31) if body else received) == body


# --- mutated bytes, against an h2 client ---


def replies(plans: Sequence[Plan], is_grpc: bool) -> tuple[Any, bytes]:
    """An h2 client that has asked, and a server's bytes for it behind the settings."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=False))
    client.local_settings.enable_push = 0
    client.initiate_connection()
    server = Server(plans, is_grpc, {})
    client.receive_data(server.take(client.data_to_send()))
    server.take(client.data_to_send())
    for stream in range(1, 2 * len(plans), 2):
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
        client.send_headers(stream, fields, end_stream=True)
    return client, server.take(client.data_to_send())


@dataclass
class Heard:
    """What an h2 client reported of one stream."""

    code: bytes = b""
    grpc: bytes | None = None
    data: bytes = b""
    begun: bool = False
    bad: bool = False
    ended: bool = False
    reset: int | None = None

    def outcome(self, is_grpc: bool) -> set[str]:
        """By the protocols' rules; h2 leaves some of them to its user."""
        if self.bad:
            return {"bad_response"}
        if self.reset is not None:
            return {"grpc_UNAVAILABLE" if is_grpc and self.reset == REFUSED_STREAM else "reset"}
        if not self.ended:
            return {"bad_response" if self.begun else "reset"}
        given = None if self.grpc is None else int(self.grpc) if self.grpc.isdigit() and len(self.grpc) < 4 else 2
        known = given if given is None or given < len(status.GRPC_CODES) else 2
        return {Plan(int(self.code), known, [self.data]).expected(is_grpc)}


def heard(client: Any, wire: bytes, count: int) -> tuple[list[Heard], int | None] | None:
    """What an h2 client makes of the bytes, and the last stream of a GOAWAY; None if it does not accept them."""
    streams = {1 + 2 * i: Heard() for i in range(count)}
    last = None
    try:
        events = client.receive_data(wire)
    except (h2.exceptions.H2Error, ValueError):
        return None
    for event in events:
        if isinstance(event, h2.events.ConnectionTerminated):
            last = event.last_stream_id
        stream = streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None or stream.ended or stream.reset is not None or stream.bad:
            continue
        if isinstance(
            event, h2.events.ResponseReceived | h2.events.InformationalResponseReceived | h2.events.TrailersReceived
        ):
            take_fields(stream, dict(event.headers), event)
        elif isinstance(event, h2.events.DataReceived):
            stream.begun = True
            stream.bad |= not stream.code  # h2 takes a body before the head
            stream.data += event.data
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = event.error_code
    return list(streams.values()), last


def take_fields(stream: Heard, fields: dict[bytes, bytes], event: Any) -> None:
    stream.begun = True
    if isinstance(event, h2.events.ResponseReceived):
        stream.code = fields[b":status"]
    code = fields.get(b":status", b"200")  # h2 takes any bytes for a status
    stream.bad |= not (code.isdigit() and len(code) == 3 and code >= b"100")
    if isinstance(event, h2.events.ResponseReceived):
        stream.bad |= code < b"200"
    if not isinstance(event, h2.events.InformationalResponseReceived):
        stream.grpc = fields.get(b"grpc-status", stream.grpc)


EDITS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 2), st.binary(max_size=2)), max_size=3)
SMALL = st.builds(
    Plan,
    code=CODES,
    grpc=st.sampled_from([0, 5, None]),
    text=st.sampled_from(["", "why"]),
    interim=st.integers(0, 1),
    body=st.sampled_from([[MESSAGE], [MESSAGE[:2], MESSAGE[2:]], []]),
)


def mutated(wire: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, cut, put in edits:
        at = place % (len(wire) + 1)
        wire = wire[:at] + put + wire[at + (cut or len(put)) :]
    return wire


ANY_FRAME = st.builds(frame, st.integers(0, 10), st.integers(0, 63), st.integers(0, 4), st.binary(max_size=20))


def unfinished(wire: bytes) -> bool:
    """Whether the bytes end within a frame."""
    at = 0
    while len(wire) - at >= 9:
        at += 9 + int.from_bytes(wire[at : at + 3], "big")
    return at != len(wire)


@settings(deadline=None, max_examples=600)
@given(st.lists(SMALL, min_size=1, max_size=3), st.booleans(), EDITS, CUTS)
def test_mutated_replies_are_read_as_h2_reads_them(
    plans: list[Plan], is_grpc: bool, edits: Any, cuts: list[int]
) -> None:
    """What h2 rejects as a whole we may take or fail in part, but not stumble over."""
    client, wire = replies(plans, is_grpc)
    wire = mutated(wire, edits)
    codec = started([grpc() if is_grpc else rest()], len(plans), is_grpc=is_grpc)
    finished: Finished = []
    for part in pieces(wire, cuts):
        codec.receive(part, 1, finished)
    codec.end(finished)
    seen = outcomes_of(codec, finished)
    assert sorted(seen) == list(range(len(plans)))
    if (oracle := heard(client, wire, len(plans))) is None:
        return
    streams, last = oracle
    for token, stream in enumerate(streams):
        gone = (
            last is not None and 2 * token + 1 > last and not stream.ended and stream.reset is None and not stream.bad
        )
        accepted = {"reset"} if gone else stream.outcome(is_grpc)
        if unfinished(wire) and not stream.ended and stream.reset is None:
            accepted |= {"bad_response"}  # a frame that is too long fails with its head; h2 waits for its end
        assert seen[token] in accepted


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=50), ANY_FRAME), max_size=9), st.booleans())
def test_anything_at_all_is_an_outcome_and_never_an_exception(parts: list[bytes], ready: bool) -> None:
    codec = Http2([grpc()], grpc=True)
    finished: Finished = []
    if ready:
        codec.receive(EMPTY_SETTINGS, 1, finished)
    sent = codec.ready and codec.free > 0
    if sent:
        codec.send(0, 0)
    for part in parts:
        codec.receive(part, 1, finished)
    codec.end(finished)
    assert list(outcomes_of(codec, finished)) == ([0] if sent else [])
    assert codec.closing
