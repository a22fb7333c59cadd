"""If these fail, a trial's rows are not what happened: a wrong outcome, a lost request, a wrong clock."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from helpers.raw_server import REPLY, replying, server
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.processes.ports import free_ports
from infscale.errors import ConfigError
from infscale.load import schedule as arrivals
from infscale.load.engine import run as engine
from infscale.load.null_server import null_server
from infscale.models import reference as models
from infscale.records import samples
from infscale.vocabulary import PROTOCOLS, SCHEME


def load(url: str, schedule_ms: list[float], **options: object) -> pd.DataFrame:
    schedule = (np.array(schedule_ms) * 1e6).astype(np.int64)
    choice = np.zeros(len(schedule), np.int32)
    settings: dict[str, object] = {"timeout_s": 2.0, **options}
    return engine.run(url, [b"body"], [schedule], [choice], **settings).samples  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_scheduled_request_has_one_row_in_order(endpoint: Endpoint, protocol: str) -> None:
    payload = endpoint.interface.payload(protocol, "mlp", models.inputs("mlp", 64))
    schedule = arrivals.poisson(100, 2, np.random.SeedSequence(1))
    choice = arrivals.payload_choice(len(schedule), 64, np.random.SeedSequence(2))
    url = f"{SCHEME[protocol]}://{endpoint.address(protocol)}{payload.path}"
    result = engine.run(
        url, payload.bodies, [schedule], [choice], timeout_s=5, open_first=4, connections=8, headers=payload.headers
    )
    rows = result.samples
    assert (rows["scheduled_ns"] == schedule).all()
    assert (rows["payload"] == choice).all()
    assert (rows["status"] == "ok").all()
    for earlier, later in zip(samples.TIMES, samples.TIMES[1:], strict=False):
        assert (rows[earlier] <= rows[later]).all(), f"{earlier} after {later}"
    assert (rows["bytes_out"] > [len(payload.bodies[i]) for i in choice]).all()
    assert (rows["bytes_in"] > 0).all()
    assert rows["connection"].nunique() >= (4 if protocol == "grpc" else 1)
    assert result.generator.cpu_s > 0


def test_a_stalled_server_does_not_stall_the_schedule() -> None:
    """An engine that waits for answers would hide the backlog: the loop must be open.

    The server answers nobody until all have asked, so a closed loop would run into its timeouts.
    """
    arrived = threading.Barrier(50)

    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            arrived.wait(10)
            connection.sendall(REPLY)

    with server(talk) as url:
        rows = load(url, list(range(0, 500, 10)), connections=256, timeout_s=10)
    assert (rows["status"] == "ok").all()
    assert rows["connection"].nunique() == 50


def test_with_one_connection_the_backlog_counts_in_the_response_time_only() -> None:
    """The round trip of a held-back request looks fast: this is coordinated omission, and must show."""
    stalled = threading.Event()  # for 600 ms: longer than the schedule, which has 500

    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            if not stalled.is_set():
                stalled.wait(0.6)
                stalled.set()
            connection.sendall(REPLY)

    with server(talk) as url:
        rows = load(url, list(range(0, 500, 10)), connections=1)
    assert (rows["status"] == "ok").all()
    assert rows["connection"].nunique() == 1
    stalled_until, behind = rows["done_ns"].iloc[0], rows.iloc[1:]
    assert (behind["scheduled_ns"] < stalled_until).all()
    assert (behind["sent_ns"] >= stalled_until).all(), "the wait lies before the round trip, within the response time"
    assert (behind["due_ns"] - behind["scheduled_ns"]).median() < (behind["sent_ns"] - behind["due_ns"]).median()


@pytest.mark.parametrize(
    ("talk", "expected"),
    [
        (replying(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"), "http_503"),
        (replying(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", close=True), "bad_response"),
        (replying(b"no such protocol\r\n\r\n"), "bad_response"),
        (replying(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000), "bad_response"),
        (replying(b"", close=True), "reset"),
        (replying(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True), "ok"),
        (replying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "ok"),
        (replying(b"HTTP/1.1 100 Continue\r\n\r\n" + REPLY), "ok"),
        (replying(REPLY.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), close=True), "ok"),
    ],
    ids=["503", "cut short", "not HTTP", "endless head", "closes", "until close", "chunked", "100 first", "close each"],
)
def test_outcomes_over_http(talk: Callable[[socket.socket], None], expected: str) -> None:
    with server(talk) as url:
        rows = load(url, [0, 20, 40])
    assert rows["status"].tolist() == [expected] * 3


def test_no_answer_is_a_timeout_censored_at_its_limit() -> None:
    with server(lambda connection: time.sleep(5)) as url:
        rows = load(url, [0, 10], timeout_s=0.3)
    assert rows["status"].tolist() == ["timeout"] * 2
    assert (rows["done_ns"] - rows["scheduled_ns"] >= 0.3e9).all()
    assert (rows["first_byte_ns"] == samples.NEVER).all()


@pytest.mark.parametrize("scheme", ["http", "grpc", "h2c"])
def test_nobody_listening_is_refused(scheme: str) -> None:
    port = free_ports(1)[0]
    rows = load(f"{scheme}://127.0.0.1:{port}/p.S/M", list(range(200)))
    assert set(rows["status"]) == {"refused"}


def test_http_on_a_grpc_port_and_the_reverse_are_rows_not_hangs(endpoint: Endpoint) -> None:
    over_http = load(f"http://{endpoint.grpc}/p.S/M", [0, 5])
    over_grpc = load(f"grpc://{endpoint.rest}/p.S/M", [0, 5])
    assert "ok" not in set(over_http["status"]) | set(over_grpc["status"])


def test_grpc_errors_carry_their_code(endpoint: Endpoint) -> None:
    rows = load(f"grpc://{endpoint.grpc}/no.such.Service/Method", [0, 5, 10])
    assert set(rows["status"]) == {"grpc_UNIMPLEMENTED"}


def test_shards_make_one_table() -> None:
    schedules = list(arrivals.shards(200, 1, np.random.SeedSequence(1), 2))
    choices = [np.zeros(len(s), np.int32) for s in schedules]
    with server(replying(REPLY)) as url:
        result = engine.run(url, [b"body"], schedules, choices, timeout_s=2)
    assert len(result.samples) == sum(map(len, schedules))
    assert result.samples["scheduled_ns"].is_monotonic_increasing
    assert set(result.samples["shard"]) == {0, 1}


def test_a_load_that_is_ended_in_its_middle_is_an_exception_with_its_rows() -> None:
    """As a result like any other, half a load was taken for a whole one, and the next one ran on."""
    asked: list[float] = []

    def stop_once(elapsed_s: float, _: object) -> None:
        asked.append(elapsed_s)
        if len(asked) == 1:
            raise KeyboardInterrupt

    with (
        server(replying(REPLY)) as url,
        pytest.raises(engine.Interrupted, match=r"ended after \d+ of 600 requests") as caught,
    ):
        load(url, [1000.0 * k for k in range(600)], progress=stop_once)
    assert isinstance(caught.value, KeyboardInterrupt)
    rows = caught.value.result.samples
    assert len(rows) == 600
    assert (rows["status"] == "unsent").sum() > 500
    assert set(rows.loc[rows["sent_ns"] == samples.NEVER, "status"]) == {"unsent"}


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ftp://127.0.0.1:1/", {}, "accepted: http, https, h2c, h2, grpc, grpcs"),
        ("grpc://127.0.0.1:1/nomethod", {}, "needs a method"),
        ("http://127.0.0.1:99999/", {}, "needs a host and a port"),
        ("http://127.0.0.1:1/", {"timeout_s": 0}, "must be positive"),
    ],
)
def test_bad_input_is_named(url: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(url, [0], **options)
    with pytest.raises(ConfigError, match="no request"):
        load("http://127.0.0.1:1/", [])


OWNER = """
import numpy as np
from infscale.load.engine import run as engine
engine.run({url!r}, [b"x"], [np.arange(600, dtype=np.int64) * 10**9], [np.zeros(600, np.int32)], timeout_s=5)
"""


def test_the_engine_ends_with_its_owner() -> None:
    import psutil

    with (
        server(replying(REPLY)) as url,
        subprocess.Popen([sys.executable, "-c", OWNER.format(url=url)], stderr=subprocess.DEVNULL) as owner,
    ):
        end = time.monotonic() + 20
        while not (children := psutil.Process(owner.pid).children()):
            assert time.monotonic() < end
            time.sleep(0.02)
        owner.kill()
        owner.wait()
        psutil.wait_procs(children, timeout=20)
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_bytes_sent_are_counted_past_the_servers_window(protocol: str) -> None:
    """A body that waits for windows is as many bytes as one that does not: else gRPC looks small where it is large."""
    size = 5_000_000
    with null_server() as server:
        scheme, address = {"rest": ("http", server.rest), "grpc": ("grpc", server.grpc)}[protocol]
        schedule, choice = np.array([0, 10**8, 2 * 10**8]), np.zeros(3, np.int32)
        url = f"{scheme}://{address}/infscale.Null/Call"
        rows = engine.run(url, [bytes(size)], [schedule], [choice], timeout_s=20, connections=1).samples
    assert set(rows["status"]) == {"ok"}
    assert rows["bytes_out"].between(size, 1.001 * size + 500).all()
