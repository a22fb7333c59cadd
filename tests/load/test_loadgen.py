"""MLPerf LoadGen as a client: if these fail, its trials are of other requests, another schedule or another clock."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infscale.analysis.percentiles import fewest_queries
from infscale.errors import ConfigError, EngineError, MissingError
from infscale.experiment.design.arm import CLIENTS, Arm
from infscale.load import loadgen_client
from infscale.load.engine.run import Result
from infscale.load.loadgen_client import DETAIL, IN_FLIGHT, SCENARIOS, SUMMARY
from infscale.load.null_server import NullServer, null_server
from infscale.records.samples import NEVER, SCHEMA, is_status

PROTOCOLS = [("http", "rest"), ("grpc", "grpc")]
BODIES = [b"a" * 10, b"b" * 300, b"c" * 20]


def load(
    client: str, url: str, *, count: int = 100, rate: float = 200.0, timeout_s: float = 5.0, seed: int = 3
) -> Result:
    return loadgen_client.run(
        client,
        url,
        BODIES,
        np.arange(count, dtype=np.int32) % len(BODIES),
        rate_per_s=rate,
        duration_s=0.3,
        seed=seed,
        timeout_s=timeout_s,
        connections=8,
        headers={},
    )


def url_of(server: NullServer, scheme: str, port: str) -> str:
    return f"{scheme}://{getattr(server, port)}/a.B/C"


@contextmanager
def receiving() -> Iterator[tuple[str, list[bytes]]]:
    """A server in a thread of the test, and the bodies that it has received."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def summary_ms(result: Result, percentile: str) -> float:
    """A latency as LoadGen's summary prints it."""
    found = re.search(rf"^{percentile} percentile latency \(ns\)\s*: (\d+)$", result.logs[SUMMARY], re.MULTILINE)
    assert found, result.logs[SUMMARY]
    return int(found[1]) / 1e6


@pytest.mark.server
@pytest.mark.parametrize("client", SCENARIOS)
@pytest.mark.parametrize(("scheme", "port"), PROTOCOLS)
def test_every_query_is_a_row_and_loadgens_numbers_stand_beside_ours(client: str, scheme: str, port: str) -> None:
    with null_server() as server:
        found = load(client, url_of(server, scheme, port))
    rows, said = found.samples, found.generator.reported
    assert said is not None
    assert set(SCHEMA.names) - {"trial_id"} == set(rows.columns)
    assert (rows["status"] == "ok").all()
    assert (np.diff(rows[["scheduled_ns", "due_ns", "sent_ns", "done_ns"]].to_numpy(), axis=1) >= 0).all()
    assert rows["scheduled_ns"].min() == 0
    assert client == "loadgen-single" or len(rows) == 100
    assert (rows["payload"] == np.arange(len(rows)) % len(BODIES) % 100).all() or client == "loadgen-single"
    assert found.generator.cpu_s > 0
    assert said.requests == len(rows)
    response_ms = np.sort((rows["done_ns"] - rows["scheduled_ns"]) / 1e6)
    for name, p in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        own, theirs = response_ms[int(len(rows) * p)], getattr(said, f"{name}_ms")
        assert theirs == summary_ms(found, f"{100 * p:.2f}")
        # LoadGen notes an end after we have, and its schedule cannot come later than ours: see schedule_of.
        assert 0 < own <= theirs + 1e-5
    assert said.throughput_per_s is not None
    assert said.throughput_per_s == pytest.approx(len(rows) / (rows["done_ns"].max() / 1e9), rel=0.1)


@pytest.mark.parametrize("client", SCENARIOS)
def test_the_bodies_are_the_trials_choice_not_loadgens(client: str) -> None:
    with receiving() as (url, received):
        rows = load(client, url).samples
    assert (rows["status"] == "ok").all()
    assert sorted(received) == sorted(BODIES[k] for k in rows["payload"])
    expected = np.resize(np.arange(100) % len(BODIES), len(rows))
    assert rows["payload"].tolist() == expected.tolist()


@pytest.mark.server
def test_the_server_scenario_is_an_open_loop_with_a_poisson_schedule_of_its_own() -> None:
    """A server that stalls moves no arrival, and each seed has a schedule."""
    stalled = np.array([300_000_000], np.int64)
    with null_server(service_ns=stalled) as slow, null_server() as fast:
        first = load("loadgen-server", url_of(slow, "grpc", "grpc"), count=400, rate=800).samples
        again = load("loadgen-server", url_of(fast, "grpc", "grpc"), count=400, rate=800).samples
        other = load("loadgen-server", url_of(fast, "grpc", "grpc"), count=400, rate=800, seed=4).samples
    assert np.abs(first["scheduled_ns"] - again["scheduled_ns"]).max() <= 2, "the trace rounds to 1 ns"
    assert np.abs(other["scheduled_ns"] - again["scheduled_ns"]).max() > 1e6
    gaps = np.diff(first["scheduled_ns"]) / 1e9
    # The mean of 399 exponential gaps lies within 1.25 ± 0.25 ms in all but one of 10,000 seeds; the seed is fixed.
    assert gaps.mean() == pytest.approx(1 / 800, rel=0.2)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.25)
    waited = first[first["scheduled_ns"] < 250_000_000]
    assert ((waited["done_ns"] - waited["scheduled_ns"]) > 40_000_000).all(), "the wait in the stall is hidden"


@pytest.mark.server
@pytest.mark.parametrize(("scheme", "port"), PROTOCOLS)
def test_the_closed_scenarios_send_what_theirs_says(scheme: str, port: str) -> None:
    service = np.full(100_000, 1_000_000, np.int64)
    with null_server(service_ns=service) as server:
        single = load("loadgen-single", url_of(server, scheme, port)).samples
        offline = load("loadgen-offline", url_of(server, scheme, port), count=200).samples
    assert (single["scheduled_ns"].to_numpy()[1:] >= single["done_ns"].to_numpy()[:-1]).all(), "two at a time"
    assert single["scheduled_ns"].max() >= 250_000_000, "it ended long before the trial did"
    assert set(offline["scheduled_ns"]) == {0}
    sent, done = np.sort(offline["sent_ns"]), np.sort(offline["done_ns"])
    in_flight = np.arange(1, len(sent) + 1) - np.searchsorted(done, sent)
    assert 8 <= in_flight.max() <= IN_FLIGHT


@pytest.mark.parametrize("client", SCENARIOS)
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_not_there_is_a_status_not_a_hang(client: str, scheme: str) -> None:
    found = load(client, f"{scheme}://127.0.0.1:1/a.B/C", count=20)
    assert set(found.samples["status"]) <= {"refused", "grpc_UNAVAILABLE"}
    assert all(is_status(status) for status in found.samples["status"])
    assert found.generator.reasons


@pytest.mark.server
@pytest.mark.parametrize(("scheme", "port"), PROTOCOLS)
def test_a_server_that_does_not_keep_up_is_invalid_to_loadgen_by_name(scheme: str, port: str) -> None:
    """20 requests a second where 200 come: nearly all wait for longer than the limit."""
    with null_server(service_ns=np.full(1000, 50_000_000, np.int64)) as server:
        found = load("loadgen-server", url_of(server, scheme, port), timeout_s=0.3)
    said = found.generator.reported
    assert said is not None
    assert (found.samples["status"] == "timeout").mean() > 0.5
    assert said.valid is False
    assert "performance" in said.unmet
    assert (found.samples["sent_ns"] != NEVER).all()


@pytest.mark.server
def test_the_floor_of_percentiles_is_the_number_that_loadgen_prints() -> None:
    with null_server() as server:
        url = url_of(server, "grpc", "grpc")
        open_loop, single = load("loadgen-server", url), load("loadgen-single", url)
    more = re.search(r"need to run at least (\d+) more queries", open_loop.logs[SUMMARY])
    assert more, open_loop.logs[SUMMARY]
    assert fewest_queries(0.99, over=0) == 100 + int(more[1])
    least = re.search(r"Processed at least (\d+) queries", single.logs[SUMMARY])
    assert least, single.logs[SUMMARY]
    assert fewest_queries(0.90) == int(least[1])
    if fewest_queries(0.99) > len(single.samples):
        assert f"least {fewest_queries(0.99)} total queries" in single.logs[SUMMARY]
    else:
        assert "Early stopping 99.0th percentile estimate" in single.logs[SUMMARY]


def test_an_audit_config_in_the_working_folder_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoadGen reads a file of that name where it is started, and takes its settings."""
    (tmp_path / "audit.config").write_text("*.*.min_query_count = 7\n*.*.mode = 1\n")
    monkeypatch.chdir(tmp_path)
    with receiving() as (url, _):
        found = load("loadgen-server", url, count=30)
    assert len(found.samples) == 30
    assert [file.name for file in tmp_path.iterdir()] == ["audit.config"], "its logs lie in the working folder"


def test_the_trace_lays_loadgens_schedule_on_our_clock() -> None:
    line = (
        '{"name":"Sample","cat":"default","ph":"b","pid":1,"id":%d,"ts":%s,"args":{"sample_seq":%d,"query_seq":%d,'
        '"sample_idx":9,"issue_start_ns":%d,"complete_ns":5}},\n'
    )
    trace = "".join(line % (i, ts, i, i, late) for i, ts, late in [(1, "30.002", 500), (0, "10.000", 0)])
    called = np.array([1_000_040_000, 1_000_060_602], np.int64)  # 30 µs and 30.1 µs after LoadGen issued them
    assert loadgen_client.schedule_of(trace, called).tolist() == [1_000_040_000, 1_000_060_002]
    with pytest.raises(EngineError, match="has 1 queries; it issued 2"):
        loadgen_client.schedule_of(line % (0, "10.000", 0, 0, 0), called)


def test_loadgen_that_is_not_installed_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadgen_client, "package_version", lambda *_: "")
    with pytest.raises(MissingError, match="pip install mlcommons-loadgen"):
        load("loadgen-server", "http://127.0.0.1:1/")


def test_names_and_levels_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="accepted: loadgen-offline, loadgen-server, loadgen-single"):
        load("loadgen", "http://127.0.0.1:1/")
    with pytest.raises(ConfigError, match="client='loadgen-single' supports neither repeat nor zipf"):
        Arm("grpc", client="loadgen-single", repeat=0.5)
    for protocol in ("rest", "grpc"):
        for client in SCENARIOS:
            assert Arm(protocol, client=client).client == client
    assert list(SCENARIOS) == [name for name, client in CLIENTS.items() if client.tool == "loadgen"]


def test_a_detail_log_without_a_verdict_is_no_verdict() -> None:
    said = loadgen_client.reported("nothing of LoadGen's\n")
    assert (said.valid, said.unmet, said.p99_ms, said.throughput_per_s) == (None, [], None, None)


def test_errors_of_the_detail_log_are_kept() -> None:
    with receiving() as (url, _):
        detail = load("loadgen-server", url, count=10).logs[DETAIL]
    assert loadgen_client.reported(detail).errors == []
    line = ':::MLLOG {"key": "error_runtime", "value": "no queries", "metadata": {"is_error": true}}\n'
    assert loadgen_client.reported(detail + line).errors == ["no queries"]


def test_rows_can_be_stored(tmp_path: Path) -> None:
    from infscale.records import samples

    with receiving() as (url, _):
        rows = load("loadgen-offline", url, count=10).samples
    samples.write(tmp_path / "t.parquet", rows.assign(trial_id="t"))
    pd.testing.assert_series_equal(samples.read(tmp_path / "t.parquet")["done_ns"], rows["done_ns"])
