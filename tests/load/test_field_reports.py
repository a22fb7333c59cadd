"""If these fail, a fault that users reported of other load generators is ours too: a wrong row, a hang, or lost data.

Each test is a line of those reports; parsers and gates have theirs in their own modules.
"""

import io
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

from helpers.raw_server import REPLY, replying, server
from helpers.virtual_server import VirtualServer, VirtualSocket
from helpers.waiting import await_true
from infscale import cli
from infscale.cli import load as command
from infscale.errors import ConfigError
from infscale.load import schedule, single
from infscale.load.engine import run as engine
from infscale.load.engine import status
from infscale.load.engine.interfaces import Limits
from infscale.load.engine.job import Job, codec_factory, named, parse
from infscale.load.engine.loop import MOST_TRIES, Engine
from infscale.load.engine.run import Result
from infscale.load.engine.wire import http2_frames as frames
from infscale.load.engine.wire.http2 import MOST_BARREN
from infscale.records import samples
from infscale.servers.null.http1 import Http1Server, replies

MB = 1_000_000


def load(url: str, schedule_ms: list[float], *, body: bytes = b"body", **options: object) -> Result:
    at = (np.array(schedule_ms) * 1e6).astype(np.int64)
    settings: dict[str, object] = {"timeout_s": 10.0, **options}
    return engine.run(url, [body], [at], [np.zeros(len(at), np.int32)], **settings)  # type: ignore[arg-type]


def shown(*words: object) -> tuple[int, str, str]:
    """Exit code, output and errors of ``infscale load``."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        code = cli.main(["load", *map(str, words)])
    return code, out.getvalue(), errors.getvalue()


def statuses(result: Result) -> dict[str, int]:
    return {str(name): int(n) for name, n in result.samples["status"].value_counts().items() if n}


# ---------------------------------------------------------------------------------- a peer that sends without end


class Torrent(VirtualServer):
    """Its first connection always has more to read, and each read takes 10 ms."""

    def connect(self, target: int = 0) -> VirtualSocket:
        sock = super().connect(target)
        if sock.number == 0:
            begun = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffff\r\n"]

            def recv(size: int) -> bytes:
                if not self.requests_on[0]:
                    raise BlockingIOError
                self._clock += 10_000_000
                return begun.pop() if begun else bytes(size)

            sock.recv = recv  # type: ignore[method-assign]
            sock.inbox += b"always"
        return sock


def test_what_is_due_is_sent_while_one_peer_sends_without_end() -> None:
    """The engine read 1,001 times in one go, and sent 10 s late what was due after 0.5 s."""
    world = Torrent(partial(Http1Server, replies(b"reply"), {}), [0, 0])
    due, limits = array("q", [0, 500_000_000]), Limits(2_000_000_000, 4, 1)
    job = Job("http://virtual:1/", [b"body"], due, array("i", [0, 0]), limits)
    loop = Engine(world, codec_factory(job), job.schedule, job.choice, limits)
    loop.open(10**9)
    loop.run(world.now())
    assert [status.name(code) for code in loop.rows.outcome] == ["timeout", "ok"]
    assert loop.rows.due[1] - due[1] < 100_000_000


class Torrents:
    """The first connection is sent ``again`` without end, and nothing is read from it; the others are answered."""

    def __init__(self, first: bytes, again: bytes) -> None:
        self.first, self.again, self.taken = first, again, threading.Lock()

    def __call__(self, connection: socket.socket) -> None:
        if not self.taken.acquire(blocking=False):
            replying(REPLY)(connection)
            return
        connection.recv(65_536)
        connection.sendall(self.first)
        while True:
            connection.sendall(self.again)


def test_chunks_of_one_byte_without_end_are_a_timeout_and_others_are_served() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    with server(Torrents(head, b"1\r\nx\r\n" * 2000)) as url:
        result = load(url, list(range(0, 500, 10)), timeout_s=1.0, open_first=1)
    assert statuses(result) == {"ok": 49, "timeout": 1}


@pytest.mark.parametrize("scheme", ["h2c", "grpc"])
@pytest.mark.parametrize(
    "flood",
    [
        frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.SETTINGS, 0, 0),
        frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.uint32(1)),
        frames.frame(200, 0, 0, b"unknown"),
    ],
    ids=["pings", "settings", "window updates", "unknown frames"],
)
def test_a_flood_of_frames_ends_the_connection_with_its_reason(scheme: str, flood: bytes) -> None:
    """Acknowledgements that nobody reads filled 3 GB in 12 s, at real-time priority."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(frames.frame(frames.SETTINGS, 0, 0))
        while True:  # and nothing more is read
            connection.sendall(flood * 500)

    with server(talk) as url:
        result = load(url.replace("http", scheme) + "p.S/M", [0, 5], timeout_s=10.0, connections=1)
    assert set(statuses(result)) <= {"bad_response", "reset"}, "whether the flood came before the request or after it"
    assert all(f"{MOST_BARREN:,} frames in a row" in reason.text for reason in result.generator.reasons)
    assert sum(reason.requests for reason in result.generator.reasons) == 2
    assert result.generator.shards[0].peak_memory_bytes < 300 * MB


# ------------------------------------------------------------------------------------- replies before their time


def test_an_early_413_is_read_while_the_body_is_still_being_sent() -> None:
    """The reply stood in the socket's buffer, and the failed send was taken for a reset."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 9\r\nconnection: close\r\n\r\ntoo large")

    size = 8 * MB
    with server(talk) as url:
        result = load(url, list(range(0, 200, 20)), body=bytes(size))
    assert statuses(result) == {"http_413": 10}
    assert result.generator.reasons[0].text == "too large"
    assert (result.samples["bytes_out"] < size).all(), "bytes that were never sent are counted"


def test_a_reply_with_its_end_in_one_segment_closes_the_connection_for_those_that_wait() -> None:
    """Half of all requests were sent behind the end of their connection."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.send(REPLY, socket.MSG_MORE)  # the end goes with it

    with server(talk) as url:
        result = load(url, [k / 2 for k in range(400)], connections=2)
    assert statuses(result) == {"ok": 400}


# ------------------------------------------------------------------------------------------------ refused streams


def test_streams_that_a_cpp_server_refuses_are_sent_again() -> None:
    """grpcio has all its calls answered by this server, because it retries what was not processed; so must we."""

    class Slow(grpc.GenericRpcHandler):  # type: ignore[type-arg]
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            def answer(request: bytes, _: object) -> bytes:
                time.sleep(0.002)
                return request

            return grpc.unary_unary_rpc_method_handler(answer)

    options = [("grpc.max_concurrent_streams", 2)]
    refusing = grpc.server(ThreadPoolExecutor(8), handlers=[Slow()], options=options)
    port = refusing.add_insecure_port("127.0.0.1:0")
    refusing.start()
    try:
        result = load(f"grpc://127.0.0.1:{port}/any.Service/Method", list(range(300)), connections=4, open_first=4)
    finally:
        refusing.stop(None).wait(60)
    assert statuses(result) == {"ok": 300}


def refusing_streams(connection: socket.socket) -> None:
    """A server that refuses every stream."""
    data, stream = connection.recv(65_536), 1
    connection.sendall(frames.frame(frames.SETTINGS, 0, 0))
    data = data[24:]
    while True:
        while len(data) >= 9:
            word, _, number = frames.HEAD.unpack_from(data)
            data = data[9 + (word >> 8) :]
            if word & 255 == frames.HEADERS:
                stream = number
                refused = frames.uint32(frames.REFUSED_STREAM)
                connection.sendall(frames.frame(frames.RST_STREAM, 0, stream, refused))
        more = connection.recv(65_536)
        if not more:
            return
        data += more


@pytest.mark.parametrize(("scheme", "expected"), [("grpc", "grpc_UNAVAILABLE"), ("h2c", "reset")])
def test_a_server_that_refuses_always_is_not_asked_for_ever(scheme: str, expected: str) -> None:
    with server(refusing_streams) as url:
        result = load(url.replace("http", scheme) + "p.S/M", [0, 20, 40], connections=1)
    assert statuses(result) == {expected: 3}
    assert result.generator.retried == 3 * (MOST_TRIES - 1)
    assert result.generator.reasons[0].text == f"the server refused it {MOST_TRIES} times without processing it"


# ---------------------------------------------------------------------------------------- names of the server


def job(url: str, **fields: object) -> Job:
    empty = array("q"), array("i")
    return Job(url, [b"body"], *empty, Limits(1, 1, 1), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["http", "h2c", "h2", "grpc", "grpcs", "https"])
def test_a_request_names_its_server_once(scheme: str) -> None:
    """Host beside another :authority is refused by strict servers."""
    url = f"{scheme}://127.0.0.1:1/p.S/M"
    assert named(job(url)) == ("127.0.0.1:1", {})
    assert named(job(url, headers={"Host": "model.example"})) == ("model.example", {})
    assert named(job(url, authority="model.example:8")) == ("model.example:8", {})
    with pytest.raises(ConfigError, match="differ"):
        named(job(url, authority="a", headers={"host": "b"}))


def test_the_name_is_what_a_server_sees_over_http1_and_http2(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        if data := connection.recv(65_536):
            seen.append(data)
            connection.sendall(REPLY)

    with server(talk) as url:
        shown(url, "--rate", 20, "--duration", 0.2, "--header", "Host: model.example")
        assert b"host: model.example\r\n" in seen[0]
        assert seen[0].lower().count(b"host:") == 1
        seen.clear()
        shown("http://model.example:80/v1", "--connect-to", url[7:-1], "--rate", 20, "--duration", 0.2)
    assert b"host: model.example:80\r\n" in seen[0]


def test_a_certificate_of_another_name_than_the_address_is_accepted_when_that_name_is_given(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("model.example").configure_cert(context)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)

    def talk(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as connection:
            replying(REPLY)(connection)

    with server(talk) as url:
        address = url[7:-1]
        by_address = load(f"https://{address}/", [0], ca=str(ca))
        by_name = load(f"https://{address}/", [0], ca=str(ca), authority="model.example")
        elsewhere = load("https://model.example/", [0], ca=str(ca), targets=[address])
    assert (statuses(by_address), statuses(by_name), statuses(elsewhere)) == ({"bad_response": 1}, {"ok": 1}, {"ok": 1})
    assert set(names) == {None, "model.example"}


def test_a_server_that_wants_a_certificate_gets_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = authority.issue_cert("client.example")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("localhost").configure_cert(context)

    def talk(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as connection:
            replying(REPLY)(connection)

    with server(talk) as url:
        target, ca = url.replace("http://127.0.0.1", "https://localhost"), str(tmp_path / "ca.pem")
        without = load(target, [0], ca=ca)
        files: dict[str, Any] = {"certificate": str(tmp_path / "own.pem"), "key": str(tmp_path / "own.key")}
        with_it = load(target, [0], ca=ca, **files)
    assert "ok" not in statuses(without)
    assert statuses(with_it) == {"ok": 1}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:0/", "needs a host and a port"),
        ("http://user:secret@127.0.0.1:1/", "user name, which is not sent"),
    ],
)
def test_what_a_url_cannot_say_is_refused_in_a_clear_line(url: str, message: str) -> None:
    """Port 0 became 80, and the password was dropped."""
    with pytest.raises(ConfigError, match=message) as error:
        parse(url)
    assert "secret" not in str(error.value)


# ------------------------------------------------------------------------------------------- reasons of failures


def test_why_requests_failed_is_told_with_counts_in_text_and_json() -> None:
    """Of "47 grpc_INVALID_ARGUMENT" nobody learns which argument."""

    class Picky(grpc.GenericRpcHandler):  # type: ignore[type-arg]
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input 'x' has shape [2], expected [3]")
                raise AssertionError

            return grpc.unary_unary_rpc_method_handler(answer)

    picky = grpc.server(ThreadPoolExecutor(2), handlers=[Picky()])
    port = picky.add_insecure_port("127.0.0.1:0")
    picky.start()
    words = f"grpc://127.0.0.1:{port}/p.S/M", "--rate", 100, "--duration", 0.5
    try:
        code, text, _ = shown(*words)
        _, as_json, errors = shown(*words, "--json")
    finally:
        picky.stop(None).wait(60)
    (reason,) = json.loads(as_json)["reasons"]
    assert (reason["status"], reason["text"]) == ("grpc_INVALID_ARGUMENT", "input 'x' has shape [2], expected [3]")
    assert reason["requests"] == json.loads(as_json)["requests"]
    assert "× grpc_INVALID_ARGUMENT: input 'x' has shape [2], expected [3]" in text
    assert (code, "input 'x' has shape [2]" in errors) == (command.NOTHING_SUCCEEDED, True)


@pytest.mark.parametrize(
    ("reply", "close", "name", "reason"),
    [
        (b'HTTP/1.1 400 -\r\ncontent-length: 16\r\n\r\n{"error": "bad"}', False, "http_400", '{"error": "bad"}'),
        (b"HTTP/1.1 500 -\r\ntransfer-encoding: chunked\r\n\r\n4\r\noops\r\n0\r\n\r\n", False, "http_500", "oops"),
        (b"HTTP/1.1 502 -\r\n\r\nuntil the end", True, "http_502", "until the end"),
        (b"no such protocol\r\n\r\n", False, "bad_response", "not an HTTP/1 head: b'no such protocol'"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", True, "bad_response", "ended within the reply"),
        (b"", True, "reset", "the server closed the connection"),
    ],
    ids=["400", "500 in chunks", "502 until the end", "malformed", "cut short", "closed"],
)
def test_each_failure_has_its_reason(reply: bytes, close: bool, name: str, reason: str) -> None:
    with server(replying(reply, close=close)) as url:
        result = load(url, [0, 30, 60])
    (why,) = result.generator.reasons
    assert (why.status, why.requests) == (name, 3)
    assert reason in why.text


def test_reasons_that_differ_each_time_do_not_fill_the_memory() -> None:
    count = iter(range(10**6))

    def talk(connection: socket.socket) -> None:
        while connection.recv(65_536):
            body = f"request {next(count)} failed".encode()
            connection.sendall(b"HTTP/1.1 500 -\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    with server(talk) as url:
        result = load(url, [k / 4 for k in range(800)])
    assert statuses(result) == {"http_500": 800}
    assert result.generator.reasons[0].text == "(other reasons)"
    assert len(result.generator.reasons) <= 20


# ------------------------------------------------------------------------------------------------ nothing is lost


def test_rows_are_kept_elsewhere_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There was a traceback, nothing was printed, and an hour's rows were gone."""
    out, elsewhere = tmp_path / "full" / "rows.parquet", tmp_path / "room"
    out.parent.mkdir()
    elsewhere.mkdir()
    out.write_bytes(b"rows of an earlier load")
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr("tempfile.tempdir", None)
    write = samples.write

    def full(path: Path, frame: object) -> None:
        if path == out:
            raise OSError(28, "No space left on device")
        write(path, frame)  # type: ignore[arg-type]

    monkeypatch.setattr("infscale.load.single.write", full)
    with server(replying(REPLY)) as url:
        code, text, errors = shown(url, "--rate", 100, "--duration", 0.5, "--out", out)
    assert code == command.NOT_STORED
    assert "response time" in text
    (kept,) = elsewhere.glob("*.parquet")
    assert f"{out} cannot be written: No space left on device; the rows are in {kept}" in errors
    assert len(samples.read(kept)) > 20
    assert kept.with_suffix(".json").is_file()
    assert out.read_bytes() == b"rows of an earlier load"


def test_a_terminal_that_is_gone_costs_no_row(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    asked = threading.Event()

    def talk(connection: socket.socket) -> None:
        while connection.recv(65_536):
            asked.set()
            connection.sendall(REPLY)

    with server(talk) as url:
        words = ("load", url, "--rate", "50", "--duration", "60", "--out", str(out))
        default = "import signal, sys; signal.signal(1, signal.SIG_DFL)"  # under nohup these tests ignore it
        program = f"{default}; from infscale.cli import main; sys.exit(main())"
        with subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            await_true(asked.is_set)
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()  # the terminal's end
            process.stderr.close()
            process.send_signal(1)
            assert process.wait(60) == command.INTERRUPTED
    assert (samples.read(out)["status"] == "ok").any()


# ----------------------------------------------------------------------------------------------------- requests


def test_any_method_is_sent_and_one_whose_replies_have_no_body_is_refused() -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65_536):
            seen.append(data)
            connection.sendall(REPLY)

    with server(talk) as url:
        assert shown(url, "--rate", 50, "--duration", 0.2, "--method", "GET")[0] in (0, 3)
        assert shown(url, "--rate", 50, "--duration", 0.2, "--method", "HEAD")[0] == 1
    assert all(data.startswith(b"GET / HTTP/1.1\r\n") for data in seen)


def test_a_folder_of_bodies_is_used_once_in_order_or_at_random(tmp_path: Path) -> None:
    for k in range(7):
        (tmp_path / f"{k}.json").write_bytes(b"%d" % k)
    assert command.bodies_of("--body", [str(tmp_path)]) == tuple(b"%d" % k for k in range(7))
    seed = np.random.SeedSequence(1)
    assert schedule.payload_choice(9, 7, seed, "in-order").tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    shuffled = schedule.payload_choice(14, 7, seed, "shuffled").tolist()
    assert sorted(shuffled[:7]) == sorted(shuffled[7:]) == list(range(7))
    assert shuffled[:7] != shuffled[7:]
    bodies: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65_536):
            bodies.append(data.rpartition(b"\r\n\r\n")[2])
            connection.sendall(REPLY)

    with server(talk) as url:
        words = "--rate", 20, "--duration", 0.5, "--body", tmp_path, "--order", "in-order", "--connections", 1
        shown(url, "--arrivals", "constant", *words)
    assert bodies == [b"%d" % (k % 7) for k in range(len(bodies))]


def test_bodies_are_in_order_over_all_shards() -> None:
    options: dict[str, Any] = {
        "url": "http://127.0.0.1:1/",
        "rate": "100",
        "duration": 1.0,
        "body": (),
        "header": (),
        "arrivals": "poisson",
        "cv": None,
        "connections": None,
        "streams": 0,
        "shards": 3,
        "timeout": 5.0,
        "warmup": 0.0,
        "seed": 1,
        "order": "in-order",
        "method": "POST",
    }
    options |= dict.fromkeys(("trace", "trace_column", "ca", "cert", "key", "authority", "connect_to", "out"), "")
    options |= dict.fromkeys(("no_keep_alive", "gzip", "insecure"), False)
    plan = single.schedules(replace(command.checked(**options), bodies=(b"0", b"1", b"2")))
    times, choice = np.concatenate(plan.schedules), np.concatenate(plan.choices)
    assert choice[np.argsort(times, kind="stable")].tolist() == [k % 3 for k in range(len(times))]
