"""If these fail, a finding on load balancing is wrong: who got the requests, or what stood between."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infscale.analysis.queueing import scaling
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.fronts import nginx
from infscale.deployment.fronts import replicas as balancing
from infscale.errors import ConfigError, MissingError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm

FRAMEWORK = "triton"


def shares(endpoint: Endpoint, protocol: str, **arm: object) -> list[float]:
    """What each replica answered in a short trial without failures."""
    chosen = Arm(protocol, **arm)  # type: ignore[arg-type]
    outcome = trial.run(endpoint, trial.Plan(chosen, rate_per_s=100, duration_s=1))
    assert (outcome.samples["status"] == "ok").all()
    found = [share for share in outcome.manifest.shares if share is not None]
    assert sum(found) == len(outcome.samples)
    return found


@pytest.fixture(scope="module")
def by_client(server_process: None) -> Iterator[Endpoint]:
    with balancing.deploy(FRAMEWORK, balancer="client", slow={"replica": 1, "delay_ms": 50}) as endpoint:
        yield endpoint


@pytest.mark.server
def test_one_grpc_connection_through_l4_reaches_one_replica_and_fresh_ones_reach_all() -> None:
    with balancing.deploy(FRAMEWORK, balancer="envoy-l4") as endpoint:
        assert min(shares(endpoint, "grpc", connections=1)) == 0
        fresh = shares(endpoint, "grpc", reuse=False)
        assert abs(fresh[0] - fresh[1]) <= 1
        assert {name: bool(found()) for name, found in endpoint.parts.items()} == dict.fromkeys(
            ("server 1", "server 2", "balancer"), True
        )


@pytest.mark.server
@pytest.mark.parametrize("balancer", ["envoy-round-robin", "nginx"])
def test_a_router_shares_requests_evenly_even_those_of_one_connection(balancer: str) -> None:
    if balancer == "nginx":
        try:
            nginx.program()
        except MissingError as error:
            pytest.skip(str(error))
    with balancing.deploy(FRAMEWORK, balancer=balancer) as endpoint:
        for protocol in ("rest", "grpc"):
            found = shares(endpoint, protocol, connections=1)
            assert abs(found[0] - found[1]) <= 2


@pytest.mark.server
def test_replicas_of_a_model_that_takes_one_protocol_are_balanced_over_it() -> None:
    slow = {"replica": 1, "delay_ms": 5}
    with balancing.deploy(FRAMEWORK, balancer="envoy-round-robin", slow=slow, protocols=("grpc",)) as endpoint:
        assert endpoint.protocols() == ("grpc",)
        assert min(shares(endpoint, "grpc", connections=1)) > 0


def test_nginx_listens_for_the_protocols_that_have_replicas(tmp_path: Path) -> None:
    upstreams = {"rest": ["127.0.0.1:1"], "grpc": ["127.0.0.1:2"]}
    both = nginx.configuration({"rest": 3, "grpc": 4}, upstreams, tmp_path)
    assert "listen 127.0.0.1:3; location / { proxy_pass http://rest;" in both
    assert "listen 127.0.0.1:4 http2; location / { grpc_pass grpc://grpc;" in both
    alone = nginx.configuration({"grpc": 4}, upstreams, tmp_path)
    assert "proxy_pass" not in alone
    for text in (both, alone):
        assert text.count("{") == text.count("}")


@pytest.mark.server
def test_least_request_and_tensorflow_servings_counter() -> None:
    """Without the counter of the Prometheus page a share of TensorFlow Serving would be unknown."""
    with balancing.deploy("tfserving", balancer="envoy-least-request", way="embedded") as endpoint:
        assert min(shares(endpoint, "rest")) > 0
        assert "embedded" in endpoint.label


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_client_goes_round_and_power_of_two_spares_the_slow_replica(by_client: Endpoint, protocol: str) -> None:
    even = shares(by_client, protocol, pick="round_robin")
    assert abs(even[0] - even[1]) <= 1
    slow, fast = shares(by_client, protocol, pick="power_of_two")
    assert slow < fast
    assert "simulated slow" in by_client.label


def test_rows_tell_their_target(by_client: Endpoint) -> None:
    arm = Arm("rest", pick="power_of_two")
    outcome = trial.run(by_client, trial.Plan(arm, rate_per_s=100, duration_s=1))
    counted = [int((outcome.samples["connection"] % 2 == k).sum()) for k in (0, 1)]
    assert counted == outcome.manifest.generator.share_by_target == outcome.manifest.shares


@pytest.mark.server
@pytest.mark.parametrize(("balancer", "pick"), [("envoy-round-robin", ""), ("client", "round_robin")])
def test_a_killed_replica_costs_its_requests_and_hangs_nothing(balancer: str, pick: str) -> None:
    with balancing.deploy(FRAMEWORK, balancer=balancer) as endpoint:
        for process in endpoint.parts["server 2"]():
            process.kill()
        plan = trial.Plan(Arm("rest", pick=pick), rate_per_s=50, duration_s=1, timeout_s=2)
        outcome = trial.run(endpoint, plan)
        good = outcome.samples["status"] == "ok"
        assert 0 < good.sum() < len(good)
        assert outcome.manifest.shares[0] == good.sum()
        assert outcome.manifest.shares[1] is None


@pytest.mark.parametrize(
    "options",
    [
        {"replicas": 0},
        {"replicas": 9},
        {"balancer": "haproxy"},
        {"balancer": "none", "replicas": 2},
        {"rest_port": 8501},
        {"slow": {"replica": 3, "delay_ms": 20}},
        {"slow": {"replica": 1, "delay_ms": 0}},
        {"slow": {"replica": 1}},
    ],
)
def test_what_cannot_be_is_said_before_a_server_starts(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError), balancing.deploy(FRAMEWORK, **options):  # type: ignore[arg-type]
        pass


def test_a_pick_without_replicas_is_refused(by_client: Endpoint) -> None:
    with pytest.raises(ConfigError, match="client"):
        trial.run(replace(by_client, replicas={}), trial.Plan(Arm("rest", pick="round_robin"), 10, 1))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8).filter(any))
def test_jain_lies_between_one_replicas_share_and_one(counts: list[int]) -> None:
    assert 1 / len(counts) - 1e-12 <= scaling.jain(counts) <= 1 + 1e-12


def test_jain_of_known_shares() -> None:
    assert scaling.jain([5, 5, 5]) == pytest.approx(1)
    assert scaling.jain([7, 0]) == pytest.approx(0.5)
    assert math.isnan(scaling.jain([0, 0]))


@given(st.floats(1, 1e5), st.floats(0, 0.9), st.floats(0, 0.1))
def test_usl_finds_the_law_that_made_the_points(rate: float, sigma: float, kappa: float) -> None:
    n = [1, 2, 3, 4, 6, 8]
    law = [rate * k / (1 + sigma * (k - 1) + kappa * k * (k - 1)) for k in n]
    fit = scaling.usl(n, law)
    assert fit.capacity(n) == pytest.approx(law, rel=1e-3)
    assert not fit.exact
    assert scaling.usl(n[:3], law[:3]).note
