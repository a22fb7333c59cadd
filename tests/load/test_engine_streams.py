"""If these fail, the messages of a stream are counted or timed wrong, or a stream that failed passes as a good one."""

import itertools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.streamed import HEAD, OK2, TRAILERS, VERSIONS, block, chunk, ending, framed, head2, reply, reset, trailers
from infscale.load.engine import status
from infscale.load.engine.interfaces import Codec, Messages, Streaming
from infscale.load.engine.wire.http1 import encode
from infscale.load.engine.wire.http2 import Http2, encode_grpc, encode_rest
from infscale.load.engine.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    uint32,
)
from infscale.load.engine.wire.streams import http2 as streams_http2
from infscale.load.engine.wire.streams import readers
from infscale.load.engine.wire.streams.http1 import StreamHttp1
from infscale.load.engine.wire.streams.http2 import StreamHttp2
from infscale.payloads.streams import JSON_ERRORS, TRITON_ERRORS

WAYS = pytest.mark.parametrize(("way", "version"), VERSIONS)


@dataclass
class Seen:
    """What became of a stream: its outcome and reason, and each message's size and time."""

    status: str
    why: str
    sizes: list[int]
    times: list[int]
    first: int
    size: int
    codec: Codec


def codec_of(way: str, version: int, streaming: Streaming, kept: Messages) -> Codec:
    if version == 1:
        return StreamHttp1([encode("POST", "/", {"host": "a"}, b"body")], streaming, kept)
    request = encode_grpc("a", "/p.S/M", {}, b"b") if way == "grpc" else encode_rest("POST", "a", "/", {}, b"b")
    codec = StreamHttp2([request], streaming, kept)
    codec.start()
    codec.receive(frame(SETTINGS, 0, 0), 0, [])
    codec.out.clear()
    return codec


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """``data`` in parts, cut at each of ``cuts`` (modulo its length)."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def read(way: str, version: int, parts: Sequence[bytes], *, closes: bool = True, **options: object) -> Seen:
    """One stream in parts, part k at time k from 1, then the connection's end; there must be one outcome."""
    kept = Messages(8)
    codec = codec_of(way, version, Streaming(way, **options), kept)  # type: ignore[arg-type]
    codec.send(0, 7)
    finished: list[tuple[int, int, int, int]] = []
    for now, part in enumerate(parts, 1):
        codec.receive(part, now, finished)
    if closes:
        codec.end(finished)
    ((token, outcome, size, first),) = finished
    assert token == 7
    assert set(kept.sequence) <= {7}
    assert list(kept.index) == list(range(len(kept.at)))
    why = codec.reasons.get(7, "")
    return Seen(status.name(outcome), why, list(kept.bytes), list(kept.at), first, size, codec)


# ------------------------------------------------------------------------------------------ messages and their times

MESSAGES = st.lists(
    st.binary(min_size=1, max_size=40).map(lambda m: bytes(97 + b % 26 for b in m)), min_size=1, max_size=6
)
CUTS = st.lists(st.integers(0, 2**16), max_size=8)


@WAYS
@settings(max_examples=150, deadline=None)
@given(messages=MESSAGES, body_cuts=CUTS, cuts=CUTS)
def test_any_cutting_into_reads_gives_the_same_messages_each_at_its_read(
    way: str, version: int, messages: list[bytes], body_cuts: list[int], cuts: list[int]
) -> None:
    wire = reply(way, version, messages, body_cuts)
    parts = pieces(wire.data, cuts)
    seen = read(way, version, parts)
    assert (seen.status, seen.sizes) == ("ok", [len(message) for message in messages])
    read_to = list(itertools.accumulate(map(len, parts)))
    expected = [1 + next(k for k, to in enumerate(read_to) if to >= end) for end in wire.ends]
    assert seen.times == expected
    assert seen.first == expected[0]


@WAYS
def test_messages_are_seen_byte_by_byte(way: str, version: int) -> None:
    wire = reply(way, version, [b"one", b"two", b"x" * 300], [2, 9, 11])
    seen = read(way, version, [bytes([byte]) for byte in wire.data])
    assert (seen.status, seen.sizes, seen.times) == ("ok", [3, 3, 300], wire.ends)


@WAYS
def test_messages_that_come_in_one_read_have_one_time(way: str, version: int) -> None:
    """So that what a proxy has gathered is not taken for a fast server."""
    seen = read(way, version, [reply(way, version, [b"a", b"b", b"c"]).data])
    assert seen.times == [1, 1, 1]


@WAYS
def test_a_connection_carries_stream_after_stream(way: str, version: int) -> None:
    kept = Messages(8)
    codec = codec_of(way, version, Streaming(way), kept)
    finished: list[tuple[int, int, int, int]] = []
    for token in (3, 4):
        codec.send(0, token)
        data = reply(way, version, [b"a", b"bc"]).data
        if version == 2:
            stream, bodies = 2 * token - 5, [framed(way, b"a"), framed(way, b"bc")]
            end = trailers(stream) if way == "grpc" else frame(DATA, END_STREAM, stream)
            data = head2(stream) + b"".join(frame(DATA, 0, stream, body) for body in bodies) + end
        codec.receive(data, token, finished)
    assert [(token, outcome) for token, outcome, *_ in finished] == [(3, status.OK), (4, status.OK)]
    assert (list(kept.sequence), list(kept.index), list(kept.at)) == ([3, 3, 4, 4], [0, 1, 0, 1], [3, 3, 4, 4])
    assert not codec.closing


def test_a_large_message_is_timed_at_its_last_byte() -> None:
    message = bytes(300_000)
    body = framed("grpc", message)
    frames = [frame(DATA, 0, 1, body[at : at + 16_384]) for at in range(0, len(body), 16_384)]
    seen = read("grpc", 2, [OK2, *frames, TRAILERS])
    assert (seen.sizes, seen.times) == ([300_000], [len(frames) + 1])


EVENTS: list[tuple[str, bytes, list[int]]] = [
    ("line feeds", b"data: ab\n\ndata: c\n\n", [2, 1]),
    ("carriage returns", b"data: ab\r\rdata: c\r\r", [2, 1]),
    ("both", b"data: ab\r\n\r\ndata: c\r\n\r\n", [2, 1]),
    ("line ends mixed", b"data: ab\n\r\ndata: c\r\n\r", [2, 1]),
    ("no space", b"data:ab\n\n", [2]),
    ("two spaces, of which one is data", b"data:  ab\n\n", [3]),
    ("data of several lines", b"data: ab\ndata: c\n\n", [4]),
    ("other fields", b"id: 1\nevent: token\ndata: ab\nretry: 5\n\n", [2]),
    ("comments are no messages", b": keep-alive\n\n:\n\ndata: ab\n\n: bye\n\n", [2]),
    ("a comment within an event", b": hello\ndata: ab\n\n", [2]),
    ("an event without data is none", b"event: ping\n\ndata: ab\n\n", [2]),
    ("empty data are a message", b"data:\n\ndata\n\n", [0, 0]),
    ("blank lines between", b"\n\n\n\ndata: ab\n\n\n\n\ndata: c\n\n\n", [2, 1]),
    ("a byte order mark", b"\xef\xbb\xbfdata: ab\n\n", [2]),
    ("a field whose name only begins so", b"database: 1\ndata: ab\n\n", [2]),
    ("a comment at the end, without its own", b"data: ab\n\n: bye", [2]),
]


@pytest.mark.parametrize(("body", "sizes"), [row[1:] for row in EVENTS], ids=[row[0] for row in EVENTS])
@pytest.mark.parametrize("version", [1, 2])
def test_events_are_read_as_the_standard_says(version: int, body: bytes, sizes: list[int]) -> None:
    whole = [HEAD + chunk(body) + ending("sse", 1)] if version == 1 else [OK2, frame(DATA, END_STREAM, 1, body)]
    assert (seen := read("sse", version, whole)).sizes == sizes, seen
    assert seen.status == "ok"
    single = [HEAD, *(chunk(body[k : k + 1]) for k in range(len(body))), ending("sse", 1)]
    if version == 2:
        single = [OK2, *(frame(DATA, 0, 1, body[k : k + 1]) for k in range(len(body))), ending("sse", 2)]
    assert (seen := read("sse", version, single)).sizes == sizes, seen
    assert seen.status == "ok"


def test_an_event_is_there_at_the_carriage_return_that_ends_it() -> None:
    """A server that ends lines so would else be seen one event late."""
    seen = read("sse", 1, [HEAD, chunk(b"data: a\r\r"), chunk(b"data: b\r\n\r"), chunk(b"\n"), ending("sse", 1)])
    assert (seen.sizes, seen.times) == ([1, 1], [2, 3])


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_lines_need_no_last_line_end_and_blank_ones_are_no_messages(eol: bytes) -> None:
    body = b"{1}" + eol + eol + b"  " + eol + b"{22}"
    seen = read("lines", 1, [HEAD, chunk(body), ending("lines", 1)])
    assert (seen.status, seen.sizes, seen.times) == ("ok", [3, 4], [2, 2])


@pytest.mark.parametrize("head", [b"content-length: 12\r\n\r\n", b"\r\n"], ids=["counted", "until the end"])
def test_a_body_that_does_not_come_in_chunks_is_a_stream_of_events_too(head: bytes) -> None:
    seen = read("sse", 1, [b"HTTP/1.1 200 OK\r\n" + head + b"data: ", b"abcd\n\n"])
    assert (seen.status, seen.sizes, seen.times) == ("ok", [4], [2])
    assert read("chunks", 1, [b"HTTP/1.1 200 OK\r\n" + head + b"data: ", b"abcd\n\n"]).sizes == [12]


def test_padding_is_no_message() -> None:
    padded = frame(DATA, PADDED, 1, b"\3" + framed("grpc", b"ab") + b"\0\0\0")
    assert read("grpc", 2, [OK2 + padded + TRAILERS]).sizes == [2]


def test_compressed_grpc_messages_are_counted_and_looked_into() -> None:
    error = zlib.compress(b"\x0a\x04oops", wbits=31)
    body = struct.pack(">BL", 1, len(error)) + error
    for parts in ([body], [body[:9], body[9:]]):
        seen = read("grpc", 2, [OK2, *(frame(DATA, 0, 1, part) for part in parts), TRAILERS], errors=TRITON_ERRORS)
        assert (seen.status, seen.why, seen.sizes) == ("stream_error", "oops", [len(error)])


# --------------------------------------------------------------------------------------------------- streams that fail


@WAYS
def test_a_stream_without_messages_is_not_ok(way: str, version: int) -> None:
    seen = read(way, version, [reply(way, version, []).data])
    assert (seen.status, seen.first) == ("stream_empty", -1)
    assert "no message" in seen.why


@WAYS
@pytest.mark.parametrize(("expected", "outcome"), [(3, "stream_few"), (2, "ok"), (1, "stream_many")])
def test_a_stream_of_another_number_of_messages_is_not_ok(way: str, version: int, expected: int, outcome: str) -> None:
    seen = read(way, version, [reply(way, version, [b"a", b"b"]).data], expected=expected)
    assert (seen.status, len(seen.sizes)) == (outcome, 2)
    assert seen.why == ("" if outcome == "ok" else f"2 messages instead of {expected}")


@WAYS
def test_a_stream_without_its_end_is_cut_short_and_keeps_its_messages(way: str, version: int) -> None:
    wire = reply(way, version, [b"a", b"b"], whole=False)
    seen = read(way, version, [wire.data])
    assert (seen.status, seen.why) == ("stream_cut", "the connection ended within the reply")
    assert (seen.sizes, seen.first, seen.size > 0) == ([1, 1], 1, True)


@pytest.mark.parametrize("way", ["grpc", "sse", "lines", "chunks"])
def test_a_stream_that_the_server_resets_is_cut_short(way: str) -> None:
    wire = reply(way, 2, [b"a"], whole=False)
    seen = read(way, 2, [wire.data, reset()], closes=False)
    assert (seen.status, seen.why) == ("stream_cut", "the server reset the stream (INTERNAL_ERROR)")
    assert not seen.codec.closing


def test_a_grpc_stream_without_a_status_is_cut_short() -> None:
    body = frame(DATA, END_STREAM, 1, framed("grpc", b"a"))
    assert read("grpc", 2, [OK2 + body]).why == "the reply ended without a gRPC status"


@pytest.mark.parametrize(
    ("way", "rest"), [("grpc", b"\0\0"), ("grpc", b"\0\0\0\0\3a"), ("sse", b"data: a"), ("sse", b"da")]
)
def test_a_stream_that_ends_within_a_message_is_cut_short(way: str, rest: bytes) -> None:
    end = ending(way, 2)
    seen = read(way, 2, [OK2 + frame(DATA, 0, 1, framed(way, b"a") + rest) + end])
    assert (seen.status, seen.why, seen.sizes) == ("stream_cut", "the reply ended within a message", [1])


def test_a_status_at_the_end_of_a_grpc_stream_is_its_outcome() -> None:
    fields = ("grpc-status", "14"), ("grpc-message", "went away")
    end = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(*fields))
    seen = read("grpc", 2, [reply("grpc", 2, [b"a"], whole=False).data + end])
    assert (seen.status, seen.why, seen.sizes) == ("grpc_UNAVAILABLE", "within the stream: went away", [1])
    only = frame(HEADERS, END_HEADERS | END_STREAM, 1, block((":status", "200"), *fields))
    assert read("grpc", 2, [only]).why == "went away"


def test_tritons_error_message_over_grpc_is_an_error_though_the_stream_is_ok() -> None:
    """Triton's ModelStreamInferResponse: error_message is field 1, infer_response field 2."""
    sound, error = b"\x12\x05" + b"hello", b"\x0a\x10" + b"no such a model!"
    for cuts in ([], [30], [33], [34, 40]):
        wire = reply("grpc", 2, [sound, error, sound], cuts)
        seen = read("grpc", 2, [wire.data], errors=TRITON_ERRORS)
        assert (seen.status, seen.why, len(seen.sizes)) == ("stream_error", "no such a model!", 3)
    assert read("grpc", 2, [reply("grpc", 2, [sound, sound]).data], errors=TRITON_ERRORS).status == "ok"
    assert read("grpc", 2, [reply("grpc", 2, [error]).data]).status == "ok"  # where nobody says that it is one


ERRORS = [
    b'{"error":"it failed"}',
    b'{ "error" : {"message": "it failed", "code": 500}}',
    b'{"object":"error","message":"it failed"}',
]
SOUND = [
    b'{"error":null,"token":1}',
    b'{"error": "", "x": 1}',
    b'{"token": "error"}',
    b'{"errors": 0}',
    b'{"error": {}}',
    b"[1]",
]


@pytest.mark.parametrize(("way", "version"), VERSIONS[1:])
def test_an_error_object_within_a_stream_is_an_error_though_the_reply_is_200(way: str, version: int) -> None:
    for error in ERRORS:
        wire = reply(way, version, [b'{"token": 1}', error], [40, 50])
        for parts in ([wire.data], [bytes([byte]) for byte in wire.data]):
            seen = read(way, version, parts, errors=JSON_ERRORS)
            assert (seen.status, len(seen.sizes)) == ("stream_error", 2), error
            assert "it failed" in seen.why
    seen = read(way, version, [reply(way, version, SOUND).data], errors=JSON_ERRORS)
    assert seen.status == "ok", seen.why


def test_an_event_of_the_type_error_is_an_error() -> None:
    body = b'data: {"token": 1}\n\nevent: error\ndata: overloaded\n\n'
    seen = read("sse", 1, [HEAD + chunk(body) + ending("sse", 1)], errors=JSON_ERRORS)
    assert (seen.status, seen.why) == ("stream_error", "overloaded")


def test_an_error_instead_of_a_stream_of_events_is_one() -> None:
    body = b'{"error": "it cannot stream"}'
    assert read("sse", 1, [HEAD + chunk(body) + ending("sse", 1)], errors=JSON_ERRORS).status == "stream_error"
    body = b'{"answer": 42}'
    seen = read("sse", 1, [HEAD + chunk(body) + ending("sse", 1)], errors=JSON_ERRORS)
    assert (seen.status, seen.why) == ("stream_empty", 'no message; the reply begins {"answer": 42}')


@pytest.mark.parametrize("version", [1, 2])
def test_the_end_mark_is_no_message_and_may_be_asked_for(version: int) -> None:
    marked = reply("sse", version, [b"a", b"[DONE]"]).data
    assert (seen := read("sse", version, [marked], done=b"[DONE]", needs_done=True)).sizes == [1]
    assert seen.status == "ok"
    plain = reply("sse", version, [b"a"]).data
    assert read("sse", version, [plain], done=b"[DONE]").status == "ok"
    seen = read("sse", version, [plain], done=b"[DONE]", needs_done=True)
    assert (seen.status, seen.why) == ("stream_cut", "the reply ended without [DONE]")
    after = reply("sse", version, [b"a", b"[DONE]", b"b"]).data
    seen = read("sse", version, [after], done=b"[DONE]")
    assert (seen.status, seen.why) == ("stream_many", "a message after [DONE]")
    only = reply("sse", version, [b"[DONE]"]).data
    assert read("sse", version, [only], done=b"[DONE]", needs_done=True).status == "stream_empty"
    assert read(
        "lines", version, [reply("lines", version, [b"a", b"end"]).data], done=b"end", needs_done=True
    ).sizes == [1]


def test_tokens_are_what_the_server_counts_in_its_last_event() -> None:
    kept = Messages(8)
    codec = codec_of("sse", 1, Streaming("sse", done=b"[DONE]"), kept)
    events = [
        b'{"usage": null}',
        b'{"usage": {"prompt_tokens": 3, "completion_tokens": 17, "total_tokens": 20}}',
        b"[DONE]",
    ]
    codec.send(0, 2)
    codec.receive(reply("sse", 1, events).data, 1, [])
    assert list(kept.tokens) == [-1, -1, 17, -1, -1, -1, -1, -1]


@WAYS
def test_a_refusal_is_no_stream(way: str, version: int) -> None:
    if version == 1:
        parts = [b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"come later\n\n") + b"0\r\n\r\n"]
    else:
        head = frame(HEADERS, END_HEADERS, 1, block((":status", "503")))
        parts = [head + frame(DATA, END_STREAM, 1, b"come later\n\n")]
    seen = read(way, version, parts)
    assert (seen.status, seen.why, seen.sizes, seen.first) == ("http_503", "come later", [], -1)


@WAYS
def test_a_connection_that_ends_before_the_reply_is_a_reset(way: str, version: int) -> None:
    assert read(way, version, [] if version == 1 else [frame(SETTINGS, 0, 0)]).status == "reset"


def test_a_message_without_an_end_is_a_bad_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server that never ends its line fills the memory."""
    monkeypatch.setattr(readers, "MOST_EVENT", 1000)
    monkeypatch.setattr(readers, "MOST_MESSAGE", 1000)
    endless = [chunk(b"x" * 300) for _ in range(4)]
    for way in ("sse", "lines"):
        seen = read(way, 1, [HEAD + chunk(framed(way, b"a")), chunk(b"data: "), *endless])
        assert (seen.status, seen.sizes) == ("bad_response", [1])
        assert "1,000 bytes without an end" in seen.why
    seen = read("grpc", 2, [OK2 + frame(DATA, 0, 1, struct.pack(">BL", 0, 1001))], closes=False)
    assert (seen.status, seen.why) == ("bad_response", "a gRPC message of 1,001 bytes; at most 1,000 are taken")
    assert not seen.codec.closing, "other streams of the connection live on"


def test_what_is_no_grpc_message_is_a_bad_response() -> None:
    assert read("grpc", 2, [OK2 + frame(DATA, 0, 1, b"<html>")], closes=False).status == "bad_response"
    assert (
        read("grpc", 2, [OK2 + frame(DATA, 0, 1, b"<"), frame(DATA, 0, 1, b"html>")], closes=False).status
        == "bad_response"
    )


def test_a_broken_frame_is_a_bad_response_of_its_stream() -> None:
    seen = read("sse", 1, [HEAD + chunk(b"data: a\n\n") + b"nonsense\r\n"])
    assert (seen.status, seen.sizes) == ("bad_response", [1])
    assert "bad chunk size" in seen.why


def test_a_stream_that_has_begun_is_not_sent_again() -> None:
    """Its messages would be counted twice."""
    goaway = frame(GOAWAY, 0, 0, uint32(0) + uint32(0))
    seen = read("grpc", 2, [reply("grpc", 2, [b"a"], whole=False).data + goaway], closes=False)
    assert (seen.status, seen.codec.refused) == ("stream_cut", [])
    fresh = codec_of("grpc", 2, Streaming("grpc"), Messages(8))
    fresh.send(0, 7)
    finished: list[tuple[int, int, int, int]] = []
    fresh.receive(goaway, 1, finished)
    assert (fresh.refused, finished) == ([(7, status.RESET)], [])
    seen = read("grpc", 2, [reply("grpc", 2, [b"a"], whole=False).data, reset(7)], closes=False)
    assert (seen.status, seen.codec.refused) == ("stream_cut", [])


def test_a_unary_request_that_gets_a_stream_says_so() -> None:
    codec = Http2([encode_grpc("a", "/p.S/M", {}, b"b")], grpc=True)
    codec.start()
    codec.receive(frame(SETTINGS, 0, 0), 0, [])
    codec.send(0, 7)
    finished: list[tuple[int, int, int, int]] = []
    codec.receive(reply("grpc", 2, [b"a", b"b"]).data, 1, finished)
    assert finished[0][:2] == (7, status.BAD_RESPONSE)
    assert codec.reasons == {7: "a stream of several messages, where one was asked for"}


# ---------------------------------------------------------------------------------------------------- what it takes


def test_a_message_takes_at_most_24_bytes_and_a_bound_holds() -> None:
    kept = Messages(1, most=100_000)
    for index in range(1000):
        kept.add(0, 100 * index, index, [64] * 100)
    kept.add(0, 100_000, 1000, [64] * 7)
    kept.add(0, 100_007, 1001, [64])
    assert (len(kept.at), kept.unkept) == (100_000, 8)
    columns = kept.columns()
    assert sum(columns[name].__sizeof__() for name in ("at", "sequence", "index", "bytes")) <= 24 * 100_000
    assert columns["index"][-1] == 99_999


def test_long_streams_get_their_window_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of more than 2 GiB would else stand still."""
    monkeypatch.setattr(streams_http2, "GIVE_BACK", 1000)
    codec = codec_of("grpc", 2, Streaming("grpc"), Messages(8))
    codec.send(0, 7)
    codec.out.clear()
    codec.receive(OK2, 1, [])
    for _ in range(3):
        codec.receive(frame(DATA, 0, 1, framed("grpc", bytes(495))), 1, [])
    assert codec.out == [frame(WINDOW_UPDATE, 0, 1, uint32(1000))]


@WAYS
def test_what_a_stream_has_brought_can_be_asked_before_its_end(way: str, version: int) -> None:
    codec = codec_of(way, version, Streaming(way), Messages(8))
    codec.send(0, 7)
    head = HEAD if version == 1 else OK2
    codec.receive(head, 1, [])
    assert codec.so_far(7) == (len(head), -1)
    data = reply(way, version, [b"a"], whole=False).data.replace(head, b"").replace(frame(SETTINGS, 0, 0), b"")
    codec.receive(data, 2, [])
    size, first = codec.so_far(7)
    assert (size >= len(head) + len(data) - 2, first) == (True, 2)
    assert codec.so_far(8) == (0, 0)
