"""Locust as a client: if these fail, its users are another load than they are said to be, or have another clock."""

import sys

import numpy as np
import pytest

from helpers.trials import sound
from infscale.errors import ConfigError, EngineError, MissingError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.trial import Plan
from infscale.load import locust_client
from infscale.load.engine.run import Result
from infscale.load.null_server import null_server
from infscale.records.samples import NEVER, SCHEMA, is_status

PROTOCOLS = [("rest", "http"), ("grpc", "grpc")]
CLIENTS = ["locust", "locust-poisson"]
CHOICE = np.arange(5000, dtype=np.int32) % 2


def load(client: str, url: str, rate: float = 200.0, timeout_s: float = 5.0, users: int = 4) -> Result:
    return locust_client.run(
        client,
        url,
        [b"a" * 10, b"b" * 300],
        CHOICE,
        rate_per_s=rate,
        duration_s=1.5,
        seed=3,
        timeout_s=timeout_s,
        connections=users,
        headers={},
    )


@pytest.mark.server
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("protocol", "scheme"), PROTOCOLS)
def test_users_send_at_the_nominal_rate_and_wait_for_their_answers(client: str, protocol: str, scheme: str) -> None:
    with null_server() as server:
        found = load(client, f"{scheme}://{getattr(server, protocol)}/a.B/C")
    rows, generator = found.samples, found.generator
    assert set(SCHEMA.names) - {"trial_id"} == set(rows.columns)
    assert (rows["status"] == "ok").all()
    assert (rows["sent_ns"] >= rows["scheduled_ns"]).all()
    assert (rows["done_ns"] >= rows["sent_ns"]).all()
    assert set(rows["bytes_out"]) == {NEVER}, "what the client put on the wire was not seen"
    assert rows["scheduled_ns"].between(0, 1.5e9).all(), "nothing is sent after the end"
    # 300 are planned: evenly paced users send them, those of a Poisson wait as many within five deviations.
    assert 300 - 5 * 300**0.5 < len(rows) <= (300 if client == "locust" else 300 + 5 * 300**0.5)
    assert rows["connection"].nunique() == 4
    for _, own in rows.groupby("connection"):
        assert (own["done_ns"].to_numpy()[:-1] <= own["scheduled_ns"].to_numpy()[1:]).all()
    assert rows.sort_values("sent_ns")["payload"].tolist() == CHOICE[: len(rows)].tolist()
    assert (generator.client, generator.cpu_s > 0, generator.start_ns is not None) == (client, True, True)
    # Its statistics, in whole ms, are of the same requests.
    said = generator.reported
    assert said is not None
    assert (said.tool.rpartition(" ")[0], said.valid, said.requests) == ("Locust", None, len(rows))
    assert said.throughput_per_s == pytest.approx(len(rows) / 1.5, rel=0.15)
    own_p99 = float((rows["done_ns"] - rows["sent_ns"]).quantile(0.99, "higher")) / 1e6  # Locust takes a request's
    assert said.p50_ms is not None
    assert said.p95_ms is not None
    assert said.p99_ms is not None
    assert said.p50_ms <= said.p95_ms <= said.p99_ms <= own_p99 + 1


@pytest.mark.server
@pytest.mark.parametrize(("protocol", "scheme"), PROTOCOLS)
def test_a_stall_delays_what_comes_next_and_nothing_is_made_up_for(protocol: str, scheme: str) -> None:
    """The requests that an open loop would have sent meanwhile are missing: that is what a closed loop leaves out."""
    service = np.zeros(1000, np.int64)
    service[100] = 500_000_000
    with null_server(service_ns=service) as server:
        rows = load("locust", f"{scheme}://{getattr(server, protocol)}/a.B/C").samples
    slow = rows["done_ns"] - rows["sent_ns"] > 250_000_000
    assert 1 <= slow.sum() <= 4, "one request of each user at most"
    assert len(rows) <= 300 - 75, "of the hundred requests of half a second the users sent at most four"
    starts = rows["sent_ns"].sort_values().diff().max()
    assert starts > 400_000_000


@pytest.mark.server
def test_a_rate_beyond_the_users_is_sent_without_waits() -> None:
    """It is how the most that Locust can send is found."""
    with null_server() as server:
        rows = load("locust", f"http://{server.rest}/a", rate=1e6, users=2).samples
    assert len(rows) < 1e6
    idle = [
        own["scheduled_ns"].to_numpy()[1:] - own["done_ns"].to_numpy()[:-1] for _, own in rows.groupby("connection")
    ]
    assert np.median(np.concatenate(idle)) < 2_000_000


@pytest.mark.parametrize(("protocol", "scheme"), PROTOCOLS)
def test_a_server_that_is_not_there_is_a_status_not_a_traceback(protocol: str, scheme: str) -> None:
    found = load("locust", f"{scheme}://127.0.0.1:1/a.B/C")
    assert set(found.samples["status"]) == {{"rest": "refused", "grpc": "grpc_UNAVAILABLE"}[protocol]}
    assert all(is_status(status) for status in found.samples["status"])
    assert found.generator.reasons[0].text


@pytest.mark.server
@pytest.mark.parametrize(("protocol", "scheme"), PROTOCOLS)
def test_a_user_gives_up_after_the_timeout(protocol: str, scheme: str) -> None:
    with null_server(service_ns=np.full(1000, 3_000_000_000, np.int64)) as server:
        rows = load("locust", f"{scheme}://{getattr(server, protocol)}/a.B/C", timeout_s=0.3).samples
    assert set(rows["status"]) == {"timeout"}
    assert (rows["done_ns"] - rows["sent_ns"] >= 290_000_000).all()


def test_without_locust_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locust_client, "package_version", lambda modules, package: "")
    with pytest.raises(MissingError, match=f"Locust is not installed: {sys.executable} -m pip install locust"):
        load("locust", "http://127.0.0.1:1/")


def test_a_load_without_a_request_is_refused() -> None:
    with pytest.raises(ConfigError, match="the nominal rate × the duration is less than a request"):
        locust_client.run(
            "locust",
            "http://127.0.0.1:1/",
            [b""],
            CHOICE[:0],
            rate_per_s=0.1,
            duration_s=1.0,
            seed=1,
            timeout_s=1.0,
            connections=1,
            headers={},
        )


@pytest.mark.server
def test_a_page_on_a_port_that_is_taken_says_so() -> None:
    with null_server() as server:
        host, _, port = server.rest.partition(":")
        with (
            pytest.raises(EngineError, match=f"Locust cannot serve its page at {server.rest}: Address already in use"),
            locust_client.page(f"http://{server.rest}/", [b""], timeout_s=1, headers={}, host=host, port=int(port)),
        ):
            pass


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_trial_of_a_real_server_is_driven_by_locust(protocol: str, deployed: object) -> None:
    endpoint = deployed("triton")  # type: ignore[operator]
    arm = Arm(protocol, client="locust", connections=4)
    outcome = sound(lambda attempt: trial.run(endpoint, Plan(arm, 60.0, 1.5, key=(attempt,), usage=True)))
    assert (outcome.samples["status"] == "ok").all()
    assert outcome.manifest.arm.closed
    assert outcome.manifest.arm.connections == 4
    generator = outcome.manifest.generator
    assert generator.client == "locust"
    assert outcome.manifest.usage["client"].cpu_user_s == generator.cpu_user_s
