"""If these fail, the truth about streams is wrong: clients must receive what the null server stamped, as it did."""

import http.client
import time
from collections.abc import Generator, Iterator
from itertools import pairwise
from typing import Any

import grpc
import h2.events
import h11
import numpy as np
import pytest

from helpers.h2_client import Client, connect
from helpers.waiting import await_true
from infscale.errors import ConfigError
from infscale.load.null_server import Emission, NullServer, evenly, identity, null_server

pytestmark = pytest.mark.server
WAYS = ("sse", "chunks", "lines")
MS = 1_000_000


def grpc_stream(address: str, *, both_ways: bool = False, options: Any = None) -> Generator[bytes, None, None]:
    """The messages of one streaming call."""
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1), *(options or [])]) as channel:
        if both_ways:
            yield from channel.stream_stream("/package.Service/Both", None, None)(iter([b"m"]), timeout=60)
        else:
            yield from channel.unary_stream("/package.Service/One", None, None)(b"m", timeout=60)


def http1_chunks(address: str) -> Generator[bytes, None, None]:
    """The chunks of one answer, as h11 finds their borders; it raises RemoteProtocolError for one that is cut short."""
    reader = h11.Connection(h11.CLIENT)
    chunk = b""
    with connect(address) as sock:
        sock.sendall(reader.send(h11.Request(method="POST", target="/", headers=[("host", "x")])) or b"")
        sock.sendall(reader.send(h11.EndOfMessage()) or b"")
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                reader.receive_data(sock.recv(65_536))
            elif isinstance(event, h11.Data):
                chunk += event.data
                if event.chunk_end:
                    yield chunk
                    chunk = b""
            elif isinstance(event, h11.EndOfMessage):
                return


def contents(body: bytes, way: str) -> list[bytes]:
    """The messages in a whole body."""
    if way == "sse":
        events = body.split(b"\n\n")
        assert events.pop() == b""
        assert all(event.startswith(b"data: ") for event in events)
        return [event.removeprefix(b"data: ") for event in events]
    return body.splitlines() if way == "lines" else [body]


def check_stamps(server: NullServer, received: list[tuple[bytes, int]], emission: Emission) -> None:
    """Match messages, and the times at which a client had them, with the stamps of request 0."""
    stamps = server.stamps()
    assert [identity(content) for content, _ in received] == [(0, i) for i in range(len(received))]
    assert stamps.index[stamps.request == 0].tolist() == list(range(len(received)))
    written = stamps.of(0)
    assert (written - stamps.received_ns[0] >= np.array(emission.offsets_ns)).all(), "a message went before its time"
    assert all(at >= stamp for (_, at), stamp in zip(received, written, strict=True)), "a message came before its stamp"


def timed(messages: Iterator[bytes]) -> list[tuple[bytes, int]]:
    return [(message, time.monotonic_ns()) for message in messages]


def until_error(messages: Iterator[bytes]) -> tuple[list[bytes], Any]:
    """The messages of a call before it failed, and its status."""
    received = []
    try:
        for message in messages:
            received.append(message)
    except grpc.RpcError as error:
        status: Any = error
        return received, status.code()
    return received, grpc.StatusCode.OK


SIZES = [16, 37, 32_000, 256_000]  # 37 is b"%", of which a format must not be made


@pytest.mark.parametrize("both_ways", [False, True], ids=["server-streaming", "bidirectional"])
def test_grpcio_receives_each_message_after_its_stamp_and_in_order(both_ways: bool) -> None:
    emission = Emission(evenly(8, 10 * MS, first_ns=5 * MS), size=SIZES)
    with null_server(stream=emission) as server:
        received = timed(grpc_stream(server.grpc, both_ways=both_ways))
        check_stamps(server, received, emission)
    assert [len(content) for content, _ in received] == SIZES * 2


@pytest.mark.parametrize("way", WAYS)
def test_an_http_client_receives_each_message_after_its_stamp_and_in_order(way: str) -> None:
    """Over HTTP/1.1 each message is a chunk of its own, whatever the way."""
    emission = Emission(evenly(8, 10 * MS), size=SIZES, way=way)
    with null_server(stream=emission) as server:
        received = [(contents(chunk, way)[0], at) for chunk, at in timed(http1_chunks(server.rest))]
        check_stamps(server, received, emission)
    assert [len(content) for content, _ in received] == SIZES * 2


@pytest.mark.parametrize("way", WAYS)
def test_rest_over_http2_is_the_same_stream(way: str) -> None:
    emission = Emission(evenly(5, 0), size=100, way=way)
    with null_server(stream=emission) as server, Client(server.grpc) as client:
        stream = client.open("application/json")
        client.until(h2.events.StreamEnded)
        head = next(event for event in client.events if isinstance(event, h2.events.ResponseReceived))
        frames = [event.data for event in client.events if isinstance(event, h2.events.DataReceived) and event.data]
        assert client.body(stream) == b"".join(frames)
        assert [identity(contents(frame, way)[0]) for frame in frames] == [(0, i) for i in range(5)]
    assert dict(head.headers)["content-type"] == emission.content_type


def test_a_kept_connection_carries_stream_after_stream() -> None:
    with null_server(stream=Emission(evenly(3, MS), way="lines")) as server:
        client = http.client.HTTPConnection(server.rest, timeout=60)
        for number in range(3):
            client.request("POST", "/", b"body")
            lines = client.getresponse().read().splitlines()
            assert [identity(line) for line in lines] == [(number, index) for index in range(3)]
        client.close()
        assert server.stamps().request.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("per_write", [1, 16])
def test_messages_without_an_interval_share_a_write_and_its_stamp_only_if_asked(per_write: int) -> None:
    with null_server(stream=Emission(evenly(64, 0), size=64, per_write=per_write)) as server:
        assert len(list(grpc_stream(server.grpc))) == 64
        assert len(set(server.stamps().of(0).tolist())) == 64 // per_write


def test_many_streams_on_one_connection_keep_their_own_times() -> None:
    emission = Emission(evenly(20, 5 * MS), size=64)
    with null_server(stream=emission) as server, grpc.insecure_channel(server.grpc) as channel:
        method = channel.unary_stream("/package.Service/One", None, None)
        calls = [method(b"m", timeout=60) for _ in range(50)]
        for call in calls:
            assert [identity(message)[1] for message in call] == list(range(20))
        stamps = server.stamps()
    due = stamps.received_ns[stamps.request] + np.array(emission.offsets_ns)[stamps.index]
    assert (stamps.written_ns >= due).all()
    assert np.bincount(stamps.request).tolist() == [20] * 50


def test_a_stream_waits_for_a_client_that_does_not_read_and_loses_nothing() -> None:
    """Windows and sockets hold a stream up; what a server made in advance would have no true stamp."""
    with null_server(stream=Emission(evenly(400, 0), size=100_000)) as server:
        assert [identity(message)[1] for message in grpc_stream(server.grpc)] == list(range(400))
        with connect(server.rest) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nhost: x\r\n\r\n")
            await_true(lambda: len(server.stamps().received_ns) == 2)
            with grpc.insecure_channel(server.grpc) as channel:  # others go on meanwhile
                assert len(list(channel.unary_stream("/package.Service/One", None, None)(b"", timeout=60))) == 400
            assert len(server.stamps().of(1)) < 400
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                body += sock.recv(1 << 20)
        assert len(server.stamps().of(1)) == 400


def test_small_windows_cut_frames_and_not_messages() -> None:
    options = [("grpc.http2.lookahead_bytes", 16_384), ("grpc.http2.bdp_probe", 0)]
    with null_server(stream=Emission(evenly(20, 0), size=200_000, ending="error")) as server:
        received, code = until_error(grpc_stream(server.grpc, options=options))
    assert [identity(message)[1] for message in received] == list(range(20))
    assert code is grpc.StatusCode.INTERNAL


# --- endings ---


def test_an_error_ends_grpc_with_its_status_and_rest_with_a_message() -> None:
    with null_server(stream=Emission(evenly(3, 0), ending="error")) as server:
        received, code = until_error(grpc_stream(server.grpc))
        assert code is grpc.StatusCode.INTERNAL
        assert len(received) == 3
        *events, last = contents(b"".join(http1_chunks(server.rest)), "sse")
        assert len(events) == 3
        assert last.startswith(b'{"error": "')
        assert len(server.stamps().of(0)) == 3, "an error is no message"


def test_triton_s_error_is_a_message_of_a_stream_that_ends_well() -> None:
    with null_server(stream=Emission(evenly(2, 0), ending="error_message")) as server:
        *_, last = grpc_stream(server.grpc)
    assert last[0] == 0x0A
    assert last[2:] == b"the null server was told to fail"


def test_a_stream_cut_short_looks_so_over_every_protocol() -> None:
    with null_server(stream=Emission(evenly(2, 0), ending="cut")) as server:
        chunks = http1_chunks(server.rest)
        assert [identity(contents(next(chunks), "sse")[0]) for _ in range(2)] == [(0, 0), (0, 1)]
        with pytest.raises(h11.RemoteProtocolError):
            next(chunks)
        with Client(server.grpc) as client:
            stream = client.open("application/grpc")
            assert client.until(h2.events.StreamReset)[0].error_code == 2
            assert len(client.body(stream)) == 2 * (5 + 32)
        with pytest.raises(grpc.RpcError):  # which throws away what came before a reset
            list(grpc_stream(server.grpc))


def test_no_messages_are_a_sound_stream() -> None:
    with null_server(stream=Emission()) as server:
        assert list(grpc_stream(server.grpc)) == []
        assert list(http1_chunks(server.rest)) == []
        assert server.stamps().written_ns.size == 0
        assert server.stamps().received_ns.size == 2


def test_an_endless_stream_goes_on_until_its_client_ends_it() -> None:
    with null_server(stream=Emission(evenly(2, MS), ending="endless")) as server:
        chunks = http1_chunks(server.rest)
        assert [identity(contents(next(chunks), "sse")[0])[1] for _ in range(40)] == list(range(40))
        chunks.close()
        messages = grpc_stream(server.grpc)
        assert [identity(next(messages))[1] for _ in range(40)] == list(range(40))
        messages.close()

        def ended() -> bool:
            before = server.stamps().written_ns.size
            time.sleep(0.05)
            return server.stamps().written_ns.size == before

        await_true(ended)
        assert np.diff(server.stamps().of(1)[:40]).min() > 0


def test_a_stalled_stream_sends_nothing_more_and_does_not_end() -> None:
    with null_server(stream=Emission(evenly(2, 0), ending="stalled")) as server, Client(server.grpc) as client:
        stream = client.open("application/grpc")
        client.until(h2.events.DataReceived, 2)
        client.h2.ping(b"01234567")
        client.until(h2.events.PingAckReceived)
        assert not [event for event in client.events if isinstance(event, h2.events.StreamEnded)]
        client.h2.reset_stream(stream)
        other = client.open("application/grpc")
        client.until(h2.events.DataReceived, 4)
        assert len(client.body(other)) == 2 * (5 + 32)


@pytest.mark.parametrize(
    "options",
    [
        {"way": "websocket"},
        {"ending": "later"},
        {"offsets_ns": (5, 4)},
        {"offsets_ns": (-1,)},
        {"size": 15},
        {"size": []},
        {"per_write": 0},
        {"ending": "endless"},
    ],
)
def test_bad_plans_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        Emission(**options)


def test_service_times_and_streams_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="accepted"), null_server(stream=Emission(), service_ns=np.zeros(1, np.int64)):
        pass


def test_intervals_without_messages_in_between_are_kept_in_the_stamps() -> None:
    with null_server(stream=Emission(evenly(10, 10 * MS))) as server:
        list(grpc_stream(server.grpc))
        written = server.stamps().of(0)
    assert all(later - earlier >= 0 for earlier, later in pairwise(written.tolist()))
    assert written[-1] - written[0] >= 80 * MS
