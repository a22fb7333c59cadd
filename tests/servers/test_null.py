"""If these fail, ceilings and known answers are those of a broken server: official clients must find it sound."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import h11
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.h2_client import Client, connect
from infscale.errors import ConfigError
from infscale.load.null_server import NullServer, null_server, service_times, stall
from infscale.servers.null import http1 as null_http1
from infscale.servers.null import http2 as null_http2

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(server_process: None) -> Iterator[NullServer]:
    with null_server(reply_bytes=1000) as running:
        yield running


def call(address: str, message: bytes, options: list[tuple[str, Any]] | None = None) -> bytes:
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1), *(options or [])]) as channel:
        reply: bytes = channel.unary_unary("/package.Service/Method", None, None)(message, timeout=20)
        return reply


# --- HTTP/1.1 ---


@pytest.mark.server
@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 1000, 3 * MIB])
def test_http_client_reads_reply_after_reply_on_one_connection(chunked: bool, size: int) -> None:
    with null_server(reply_bytes=size, chunked=chunked) as running:
        client = http.client.HTTPConnection(running.rest, timeout=20)
        client.connect()
        sock = client.sock
        for body in (b"", b"x", b"y" * 100_000, iter([b"in", b"chunks"])):
            client.request("POST", "/any/path", body)
            response = client.getresponse()
            assert response.status == 200
            assert response.read() == b"x" * size
            assert client.sock is sock, "the connection was not kept"
        client.close()


def test_a_client_that_asks_for_close_gets_its_reply_and_the_end(server: NullServer) -> None:
    with connect(server.rest) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="GET", target="/", headers=[("host", "x"), ("connection", "close")]))
        while data := sock.recv(65_536):
            reader.receive_data(data)
        reader.receive_data(b"")
        events = [reader.next_event() for _ in range(3)]
    assert [type(event) for event in events] == [h11.Response, h11.Data, h11.EndOfMessage]


@given(
    bodies=st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 30), max_size=8),
)
def test_requests_as_h11_writes_them_are_counted_however_they_are_cut(
    bodies: list[tuple[bytes, bool]], cuts: list[int]
) -> None:
    wire = b""
    client = h11.Connection(h11.CLIENT)
    for body, chunked in bodies:
        length = ("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body)))
        for event in (
            h11.Request(method="POST", target="/", headers=[("host", "x"), length]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            wire += client.send(event) or b""
        client = h11.Connection(h11.CLIENT)
    connection = null_http1.Http1Server(null_http1.replies(b"ok"), {})
    assert feed(connection, wire, cuts) == [null_http1.KEEP] * len(bodies)
    assert not connection.closing


def feed(connection: null_http1.Http1Server | null_http2.Http2Server, wire: bytes, cuts: list[int]) -> list[int]:
    """Pass bytes on in pieces, as the loop does: what the connection wants skipped is only counted."""
    requests: list[int] = []
    sizes = iter(cuts)
    while wire:
        size = next(sizes, len(wire))
        if connection.skip:
            size = min(size, connection.skip, len(wire))
            connection.skip -= size
            if not connection.skip:
                connection.skipped(requests)
        else:
            connection.receive(wire[:size], requests)
        wire = wire[size:]
    return requests


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000])
def test_garbage_ends_the_connection_and_not_the_server(server: NullServer, garbage: bytes) -> None:
    for address in (server.rest, server.grpc):
        with connect(address) as sock:
            sock.sendall(garbage)
            try:
                while sock.recv(65_536):
                    pass
            except ConnectionResetError:
                pass
    assert call(server.grpc, b"still there") == b"x" * 1000


# --- HTTP/2 ---


@pytest.mark.parametrize("size", [0, 1, 20_000, 64 * MIB])
def test_grpcio_sends_any_size_and_gets_the_reply(server: NullServer, size: int) -> None:
    assert call(server.grpc, b"m" * size) == b"x" * 1000


@pytest.mark.server
@pytest.mark.parametrize("size", [0, 70_000, 5 * MIB])
def test_grpcio_receives_a_reply_larger_than_its_windows(size: int) -> None:
    with null_server(reply_bytes=size) as running:
        assert call(running.grpc, b"") == b"x" * size
        small = [("grpc.http2.lookahead_bytes", 16_384), ("grpc.http2.bdp_probe", 0)]
        assert call(running.grpc, b"", small) == b"x" * size


def test_grpcio_s_many_streams_at_once_all_get_a_reply(server: NullServer) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        method = channel.unary_unary("/package.Service/Method", None, None)
        calls = [method.future(b"m" * (i * 97 % 40_000), timeout=20) for i in range(300)]
        assert {len(future.result()) for future in calls} == {1000}


def test_h2_reads_rest_and_grpc_replies_on_one_connection(server: NullServer) -> None:
    with Client(server.grpc) as client:
        streams = [client.open(kind) for kind in ["application/json", "application/grpc"] * 5]
        client.until(h2.events.StreamEnded, len(streams))
        for rest, rpc in zip(streams[::2], streams[1::2], strict=True):
            assert client.body(rest) == b"x" * 1000
            assert client.body(rpc) == b"\0\0\0\x03\xe8" + b"x" * 1000
        trailers = [e for e in client.events if isinstance(e, h2.events.TrailersReceived)]
        assert [dict(e.headers) for e in trailers] == [{"grpc-status": "0"}] * 5


def test_ping_is_acknowledged_and_large_windows_are_announced(server: NullServer) -> None:
    with Client(server.grpc) as client:
        client.h2.ping(b"01234567")
        assert client.until(h2.events.PingAckReceived)[0].ping_data == b"01234567"
        assert client.h2.remote_settings.initial_window_size == 2**31 - 1
        assert client.h2.max_outbound_frame_size == 2**24 - 1
        assert client.h2.outbound_flow_control_window == 2**31 - 1


@pytest.mark.server
def test_a_reply_stops_at_the_client_s_window_and_goes_on_with_it() -> None:
    """A server that ignored the windows would be faster than one may be."""
    with null_server(reply_bytes=100_000) as running, Client(running.grpc) as client:
        stream = client.open("application/json")
        client.until(h2.events.DataReceived)
        while len(client.body(stream)) < 65_535:  # the default window, of stream and connection
            client.events += client.h2.receive_data(client.sock.recv(65_536))
        client.h2.ping(b"01234567")
        client.until(h2.events.PingAckReceived)
        assert len(client.body(stream)) == 65_535
        client.h2.increment_flow_control_window(100_000)
        client.h2.increment_flow_control_window(100_000, stream)
        client.until(h2.events.StreamEnded)
        assert client.body(stream) == b"x" * 100_000


@pytest.mark.server
def test_more_streams_than_announced_are_refused_and_a_reset_one_makes_room() -> None:
    with null_server(max_streams=2) as running, Client(running.grpc) as client:
        client.until(h2.events.RemoteSettingsChanged)
        assert client.h2.remote_settings.max_concurrent_streams == 2
        client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        client.h2.remote_settings.acknowledge()
        first, _, third = (client.open("application/grpc", end=False) for _ in range(3))
        refused = client.until(h2.events.StreamReset)[0]
        assert (refused.stream_id, refused.error_code) == (third, 7)
        client.h2.reset_stream(first)
        fourth = client.open("application/grpc")
        assert client.until(h2.events.StreamEnded)[0].stream_id == fourth


@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=6), cuts=st.lists(st.integers(1, 60), max_size=12))
def test_requests_as_h2_writes_them_are_counted_however_they_are_cut(sizes: list[int], cuts: list[int]) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
    for i, size in enumerate(sizes):
        client.send_headers(2 * i + 1, fields, end_stream=not size)
        if size:
            client.send_data(2 * i + 1, b"d" * size, end_stream=True, pad_length=size % 3 or None)
    connection = null_http2.Http2Server(b"ok")
    requests = feed(connection, client.data_to_send(), cuts)
    assert requests == [2 * i + 1 for i in range(len(sizes))]
    for stream in requests:
        connection.reply(stream)
    events = client.receive_data(b"".join(connection.out))
    assert sum(isinstance(event, h2.events.StreamEnded) for event in events) == len(sizes)
    assert not connection.closing


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_bytes_raise_nothing(parts: list[bytes]) -> None:
    served: list[tuple[bytes, null_http1.Http1Server | null_http2.Http2Server]] = [
        (b"", null_http1.Http1Server(null_http1.replies(b"ok"), {})),
        (null_http2.PREFACE, null_http2.Http2Server(b"ok")),
    ]
    for greeting, connection in served:
        for part in [greeting, *parts]:
            if not connection.closing:
                feed(connection, part, [])


@pytest.mark.server
def test_goodbye_is_said_before_the_end() -> None:
    """Without GOAWAY a client cannot tell a shutdown from a crash."""
    with null_server() as running:
        client = Client(running.grpc)
        client.open("application/grpc")
        client.until(h2.events.StreamEnded)
    with client:
        assert client.until(h2.events.ConnectionTerminated)[0].error_code == 0
        assert not client.sock.recv(1)


# --- service times ---


@pytest.mark.server
def test_the_fifo_server_takes_the_service_times_in_order_of_receipt_over_both_ports() -> None:
    service = np.array([0.2, 0.0, 0.1], np.float64) * 1e9
    with (
        null_server(service_ns=service.astype(np.int64)) as running,
        connect(running.rest) as rest,
        Client(running.grpc) as rpc,
    ):
        rpc.until(h2.events.RemoteSettingsChanged)
        began = time.monotonic()
        rest.sendall(b"GET / HTTP/1.1\r\n\r\n")
        rest.setblocking(True)
        assert rest.recv(65_536).endswith(b"xx")
        first = time.monotonic()
        rpc.open("application/grpc")
        rpc.open("application/grpc")
        ended = [event.stream_id for event in rpc.until(h2.events.StreamEnded, 2)]
        last = time.monotonic()
    assert ended == [1, 3]
    assert first - began >= 0.2
    assert last - first >= 0.1


@pytest.mark.server
def test_workers_serve_at_the_same_time() -> None:
    """The gate's servers take as many requests at a time as they have workers, each for as long as is set."""
    service = np.full(3, 200_000_000, np.int64)
    with null_server(service_ns=service, workers=2) as running, Client(running.grpc) as client:
        began = time.monotonic()
        for _ in range(3):
            client.open("application/grpc")
        client.until(h2.events.StreamEnded, 2)
        second = time.monotonic() - began
        client.until(h2.events.StreamEnded, 3)
        third = time.monotonic() - began
    assert second >= 0.2
    assert third >= 0.4
    assert third - second >= 0.1, "the third waited for a worker, and the second did not"


def test_service_times_come_from_their_seed() -> None:
    drawn = service_times("exponential", 0.004, 10_000, seed=3)
    assert (drawn == service_times("exponential", 0.004, 10_000, seed=3)).all()
    assert (drawn != service_times("exponential", 0.004, 10_000, seed=4)).any()
    assert drawn.mean() == pytest.approx(4e6, rel=0.05)
    assert set(service_times("constant", 0.004, 5)) == {4_000_000}
    assert stall(2, 1.0).tolist() == [0, 0, 1_000_000_000]


@pytest.mark.parametrize(
    "options", [{"reply_bytes": -1}, {"service_ns": np.array([-1])}, {"max_streams": -1}, {"workers": 0}]
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="accepted"), null_server(**options):
        pass
    with pytest.raises(ConfigError, match="accepted: constant, exponential"):
        service_times("weibull", 1, 1)


# --- the process ---


@pytest.mark.server
def test_it_imports_no_framework_and_ends_with_its_owner() -> None:
    """A server that outlives a killed benchmark would take a core from the next one."""
    code = """
import json, sys, time
from infscale.load.null_server import null_server
with null_server() as running:
    heavy = [m for m in ("tensorflow", "torch", "grpc", "google.protobuf") if m in sys.modules]
    print(json.dumps([running.pid, heavy]), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid, heavy = json.loads(owner.stdout.readline())
        child = psutil.Process(pid)
        mapped = " ".join(mapping.path for mapping in child.memory_maps())
        owner.kill()
        owner.wait()
        psutil.wait_procs([child], timeout=20)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        assert heavy == []
        assert not [name for name in ("tensorflow", "torch", "grpc", "protobuf") if name in mapped]
