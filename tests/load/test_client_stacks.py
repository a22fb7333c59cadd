"""Foreign clients on our schedule: if these fail, a library's cost is measured from another clock or start."""

import numpy as np
import pytest

from infscale.errors import ConfigError
from infscale.load import clients as client_stacks
from infscale.load import schedule as arrivals
from infscale.load.engine import run as engine
from infscale.load.engine.run import Result
from infscale.load.null_server import null_server
from infscale.records.samples import NEVER, SCHEMA, is_status

CLIENTS = [("requests", "http", "rest"), ("grpcio", "grpc", "grpc")]


def load(client: str, url: str, timeout_s: float = 5.0) -> Result:
    schedule = arrivals.poisson(200.0, 1.0, np.random.SeedSequence(3))
    choice = arrivals.payload_choice(len(schedule), 2, np.random.SeedSequence(4))
    return client_stacks.run(
        client, url, [b"a" * 10, b"b" * 300], schedule, choice, timeout_s=timeout_s, connections=4, headers={}
    )


@pytest.mark.server
@pytest.mark.parametrize(("client", "scheme", "port"), CLIENTS)
def test_every_request_is_a_row_with_its_four_times_in_order(client: str, scheme: str, port: str) -> None:
    with null_server() as server:
        found = load(client, f"{scheme}://{getattr(server, port)}/a.B/C")
    rows = found.samples
    assert set(SCHEMA.names) - {"trial_id"} == set(rows.columns)
    assert (rows["status"] == "ok").all()
    assert (rows["due_ns"] >= rows["scheduled_ns"]).all()
    assert (rows["sent_ns"] >= rows["due_ns"]).all()
    assert (rows["done_ns"] >= rows["sent_ns"]).all()
    assert set(rows["bytes_out"]) == {NEVER}, "what the client put on the wire was not seen"
    assert found.generator.cpu_s > 0


@pytest.mark.server
@pytest.mark.parametrize(("client", "scheme", "port"), CLIENTS)
def test_a_library_gets_the_priority_that_the_engine_gets(client: str, scheme: str, port: str) -> None:
    """Else the kernel's favour would count as the library's slowness."""
    schedule, choice = np.arange(5) * 1_000_000, np.zeros(5, np.int32)
    with null_server() as server:
        url = f"{scheme}://{getattr(server, port)}/a.B/C"
        wire = engine.run(url, [b"a"], [schedule], [choice], timeout_s=5, connections=1)
        assert load(client, url).generator.scheduler == wire.generator.shards[0].scheduler


@pytest.mark.parametrize(("client", "scheme", "port"), CLIENTS)
def test_a_server_that_is_not_there_is_a_status_not_a_traceback(client: str, scheme: str, port: str) -> None:
    rows = load(client, f"{scheme}://127.0.0.1:1/a.B/C").samples
    assert set(rows["status"]) <= {"refused", "grpc_UNAVAILABLE"}
    assert all(is_status(status) for status in rows["status"])


@pytest.mark.server
@pytest.mark.parametrize(("client", "scheme", "port"), CLIENTS)
def test_the_timeout_runs_from_the_scheduled_time(client: str, scheme: str, port: str) -> None:
    """A server that answers one request in 50 ms, 200 of them a second: a client that waits is not excused."""
    service = np.full(1000, 50_000_000, np.int64)
    with null_server(service_ns=service) as server:
        rows = load(client, f"{scheme}://{getattr(server, port)}/a.B/C", timeout_s=0.5).samples
    late = rows["status"] == "timeout"
    assert late.mean() > 0.5
    took = rows["done_ns"] - rows["scheduled_ns"]
    # Without its limit the last of these would wait for 9 s.
    assert (took[~late] < 1_500_000_000).all()
    assert (rows["due_ns"] != NEVER).all()


def test_an_unknown_client_is_named() -> None:
    with pytest.raises(ConfigError, match="accepted: grpcio, requests"):
        load("curl", "http://127.0.0.1:1/")
