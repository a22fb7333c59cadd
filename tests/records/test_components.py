"""If these fail, a reader looks for lost milliseconds in the wrong place: in the network, the queue or the model."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infscale.deployment.counters import statistics
from infscale.deployment.endpoint import Endpoint, predict
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.models import reference as models
from infscale.records import samples
from infscale.records.components import server_means, split

PARTS = ("lag", "wait", "transport", "queue", "compute")
ms = st.floats(0, 1000)


@given(lag=ms, wait=ms, transport=ms, queue=ms, compute=st.lists(ms, min_size=1, max_size=4), n=st.integers(1, 50))
def test_known_parts_are_found_again_and_add_up(
    lag: float, wait: float, transport: float, queue: float, compute: list[float], n: int
) -> None:
    whole = lag + wait + transport + queue + sum(compute)
    rows = samples.synthetic(
        np.arange(n, dtype=np.int64) * 1_000_000,
        np.full(n, round(whole * 1e6), dtype=np.int64),
        lag_ns=round(lag * 1e6),
        wait_ns=round(wait * 1e6),
    )
    before = {"requests": 7.0, "queue_ms": 70.0, **{f"c{i}_ms": 1.0 for i in range(len(compute))}}
    times = {
        "compute_output_ms": 1e6,
        "queue_ms": 70 + n * queue,
        **{f"c{i}_ms": 1 + n * value for i, value in enumerate(compute)},
    }
    parts = split(rows, before, {"requests": 7.0 + n, **times})
    assert parts is not None
    assert parts.response == pytest.approx(whole, abs=1e-5)
    assert sum(getattr(parts, name) for name in PARTS) == pytest.approx(parts.response, abs=1e-9)
    truth = (lag, wait, transport, queue, sum(compute))
    assert [getattr(parts, name) for name in PARTS] == pytest.approx(truth, abs=1e-5)


def test_readings_of_other_requests_give_nothing() -> None:
    """After timeouts the server worked on: its means belong to other requests than the client's."""
    n, before = 100, {"requests": 0.0, "queue_ms": 0.0}
    status = np.where(np.arange(n) < 40, "timeout", "ok")
    rows = samples.synthetic(np.arange(n, dtype=np.int64), np.full(n, 2_000_000, dtype=np.int64), status=status)
    assert split(rows, before, {"requests": 100.0, "queue_ms": 50.0}) is None
    parts = split(rows, before, {"requests": 60.0, "queue_ms": 50.0})
    assert parts is not None
    assert parts.queue == pytest.approx(50 / 60)


@pytest.mark.parametrize("after", [{}, {"requests": 3.0, "queue_ms": 5.0}, {"requests": 9.0, "queue_ms": 5.0}])
def test_a_server_that_timed_nothing_has_no_means(after: dict[str, float]) -> None:
    assert server_means({"requests": 3.0, "queue_ms": 5.0}, after) == {}


def test_no_request_that_succeeded_gives_nothing() -> None:
    rows = samples.synthetic(np.arange(3, dtype=np.int64), np.full(3, 5, dtype=np.int64), status="timeout")
    assert split(rows, {}, {"requests": 0.0}) is None
    assert split(rows, {}, {"requests": 3.0, "queue_ms": 1.0}) is None


def test_servers_count_the_requests_that_were_made(endpoint: Endpoint) -> None:
    before, rows = statistics(endpoint), models.inputs("mlp", 2)
    for protocol in ("rest", "rest", "grpc"):
        predict(endpoint, protocol, rows)
    after = statistics(endpoint)
    if endpoint.framework == "tfserving":
        assert (before, after) == ({}, {})
    else:
        assert after["requests"] - before["requests"] == 3
        assert min(server_means(before, after).values()) >= 0


def test_a_trial_stores_the_components_where_the_server_reports_them(endpoint: Endpoint) -> None:
    plans = {protocol: trial.Plan(Arm(protocol), rate_per_s=100, duration_s=0.5) for protocol in ("rest", "grpc")}
    outcomes = {protocol: trial.run(endpoint, plan) for protocol, plan in plans.items()}
    reporting = {"tfserving": set(), "torchserve": {"rest"}, "triton": {"rest", "grpc"}}[endpoint.framework]
    assert {protocol for protocol, o in outcomes.items() if o.manifest.components} == reporting
    for protocol in reporting:
        rows, parts = outcomes[protocol].samples, outcomes[protocol].manifest.components
        assert parts is not None
        mean = (rows["done_ns"] - rows["scheduled_ns"]).mean() / 1e6
        assert sum(getattr(parts, name) for name in PARTS) == pytest.approx(mean)
        assert min(msgspec.structs.astuple(parts)) >= 0, "busy for longer than its client waited"
