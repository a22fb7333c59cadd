"""If these fail, a cache or a hybrid in front of a server answers wrongly, or something else is measured."""

import asyncio
import contextlib
import http.client
import json
import shutil
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.waiting import await_true
from infscale import deployment as servers
from infscale.deployment import FRAMEWORKS
from infscale.deployment.client import fetch
from infscale.deployment.counters import statistics
from infscale.deployment.endpoint import Endpoint, answers, ask, check_answers, predict
from infscale.deployment.fronts import gateway
from infscale.deployment.fronts.redis import redis_server
from infscale.deployment.processes.ports import free_ports
from infscale.deployment.processes.process import Process, wait_ready
from infscale.errors import ConfigError, DeploymentError, MissingError, ServerLostError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.settle import drain
from infscale.models.reference import inputs, max_difference
from infscale.payloads.encoders import JSON, OCTETS
from infscale.servers.asgi.status import Code
from infscale.servers.gateway.app import http_status
from infscale.servers.gateway.cache import digest
from infscale.servers.gateway.store import KEY_BYTES, Memory

quickly = settings(
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # in place of the profile's
)
PREDICT = "/v1/models/mlp:predict"


@pytest.fixture(scope="module")
def triton(deployed: Callable[[str], Endpoint]) -> Endpoint:
    return deployed("triton")


@pytest.fixture(scope="module")
def edge(triton: Endpoint, server_process: None) -> Iterator[Endpoint]:
    with gateway.serve(triton, mode="edge") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def shared_cache(triton: Endpoint, server_process: None) -> Iterator[Endpoint]:
    with gateway.serve(triton, mode="cache") as endpoint:
        yield endpoint


@pytest.fixture
def cache(shared_cache: Endpoint) -> Endpoint:
    gateway.clear(shared_cache)
    return shared_cache


def post(endpoint: Endpoint, body: bytes, *, kind: str = JSON, path: str = PREDICT) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(endpoint.rest, timeout=20)
    try:
        connection.request("POST", path, body, {"content-type": kind})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# --- edge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["json", "raw"])
def test_an_edge_predicts_what_the_server_does(triton: Endpoint, edge: Endpoint, encoding: str) -> None:
    rows = inputs("mlp", 5)
    assert max_difference(predict(edge, "rest", rows, encoding=encoding), predict(triton, "grpc", rows)) == 0


@pytest.mark.parametrize("framework", ["tfserving", "torchserve"])
def test_an_edge_stands_before_the_other_frameworks_too(deployed: Callable[[str], Endpoint], framework: str) -> None:
    server = deployed(framework)
    with gateway.serve(server, mode="edge") as front:
        assert max(check_answers(front).values()) <= 1e-5
        assert front.implementation == f"edge-{server.implementation}"
        assert post(front, b"[]", path="/v1/models/mlp:predict")[0] == 400
        status, said = post(front, json.dumps({"instances": [[0.0] * 784]}).encode(), path="/v1/models/none:predict")
        assert status in {"tfserving": (404,), "torchserve": (404, 502)}[framework], said


def test_a_trial_runs_on_an_edge_and_names_its_processes(edge: Endpoint, triton: Endpoint) -> None:
    outcome = trial.run(edge, trial.Plan(Arm("rest", "raw"), rate_per_s=100, duration_s=1))
    drain(edge)
    assert set(outcome.samples["status"]) == {"ok"}
    assert outcome.manifest.implementation == "edge-triton"
    pids = {name: {p.pid for p in living()} for name, living in edge.parts.items()}
    assert pids["server"] == {p.pid for p in triton.processes()}
    assert pids["gateway"].isdisjoint(pids["server"])
    assert {p.pid for p in edge.processes()} == pids["server"] | pids["gateway"]


def test_an_edge_has_no_grpc_arm(edge: Endpoint) -> None:
    with pytest.raises(ConfigError, match="accepted: rest"):
        trial.run(edge, trial.Plan(Arm("grpc"), rate_per_s=10, duration_s=1))


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"{", JSON, "instances"),
        (b'{"instances": [[1, 2]]}', JSON, "784"),
        (b'{"instances": [["1.5", "2"]]}', JSON, "no nested lists of numbers"),
        (b'{"instances": [[1], [1, 2]]}', JSON, "instances"),
        (b'{"instances": []}', JSON, "accepted"),
        (json.dumps({"instances": [[1e39] * 784]}).encode(), JSON, "beyond fp32"),
        (b"", OCTETS, "multiples of 3136"),
        (b"x" * 3135, OCTETS, "multiples of 3136"),
    ],
)
def test_an_edge_says_what_is_wrong_with_a_body(edge: Endpoint, body: bytes, kind: str, said: str) -> None:
    status, answer = post(edge, body, kind=kind)
    assert status == 400
    assert said in answer.decode()


def test_the_servers_errors_have_an_http_status() -> None:
    known = {Code.INVALID_ARGUMENT: 400, Code.NOT_FOUND: 404, Code.DEADLINE_EXCEEDED: 504, Code.UNAVAILABLE: 503}
    assert {code: http_status(code) for code in Code} == {code: known.get(code, 502) for code in Code}


def test_an_unknown_model_or_path_is_not_found(edge: Endpoint) -> None:
    good = inputs("mlp", 1).tobytes()
    for path in ("/v1/models/none:predict", "/v1/models/mlp", "/", "/v1/models/mlp:predict/x"):
        assert post(edge, good, kind=OCTETS, path=path)[0] == 404


@pytest.mark.server
def test_a_lost_server_is_503_and_the_gateway_lives() -> None:
    with servers.deploy("triton", "mlp") as server, contextlib.ExitStack() as stack:
        front, cached = (stack.enter_context(gateway.serve(server, mode=mode)) for mode in gateway.MODES)
        for process in server.processes():
            process.kill()
        assert post(front, inputs("mlp", 1).tobytes(), kind=OCTETS)[0] == 503
        assert post(cached, b"x", path="/v2/models/mlp/infer")[0] == 503
        with pytest.raises(DeploymentError, match="UNAVAILABLE"):
            predict(cached, "grpc", inputs("mlp", 1))
        assert gateway.stats(cached)["upstream_errors"] == 2


# --- starting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", gateway.MODES)
def test_a_gateway_in_front_of_nothing_names_the_address(triton: Endpoint, mode: str) -> None:
    nothing, other = (f"127.0.0.1:{port}" for port in free_ports(2))
    front = gateway.serve(replace(triton, rest=nothing, grpc=other), mode=mode)
    with pytest.raises(DeploymentError, match=nothing), front:
        pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "proxy"}, "accepted: cache, edge"),
        ({"mode": "cache", "store": "memcached://x"}, "memcached"),
        ({"mode": "cache", "store": "redis://127.0.0.1:1/0"}, "redis://127.0.0.1:1/0"),
        ({"mode": "cache", "ttl_s": 0}, "ttl_s=0"),
    ],
)
def test_wrong_options_are_refused_by_name(triton: Endpoint, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said), gateway.serve(triton, **given):
        pass


def test_an_edge_needs_grpc(triton: Endpoint) -> None:
    with pytest.raises(ConfigError, match="no gRPC address"), gateway.serve(replace(triton, grpc=""), mode="edge"):
        pass


# --- cache -----------------------------------------------------------------------------------------------------------


def test_a_hit_is_the_miss_byte_for_byte(triton: Endpoint, cache: Endpoint) -> None:
    rows = inputs("mlp", 3)
    for number, (protocol, encoding) in enumerate([("rest", "json"), ("rest", "raw"), ("grpc", "protobuf")]):
        payload = FRAMEWORKS["triton"].interface.payload(protocol, "mlp", rows, encoding=encoding, batch=3)
        direct, miss, hit = (ask(one, payload) for one in (triton, cache, cache))
        assert hit == miss == direct
        counted = gateway.stats(cache)
        assert (counted["misses"], counted["hits"], counted["stored"]) == (number + 1,) * 3


def test_other_bytes_headers_and_protocols_are_other_entries(cache: Endpoint) -> None:
    predict(cache, "rest", inputs("mlp", 2)[:1])
    predict(cache, "rest", inputs("mlp", 2)[1:])
    predict(cache, "grpc", inputs("mlp", 1))
    payload = FRAMEWORKS["triton"].interface.payload("rest", "mlp", inputs("mlp", 1), batch=1)
    ask(cache, replace(payload, headers={**payload.headers, "authorization": "Bearer x"}))
    counted = gateway.stats(cache)
    assert (counted["hits"], counted["misses"], counted["entries"]) == (0, 4, 4)


def test_errors_are_passed_on_and_not_kept(triton: Endpoint, cache: Endpoint) -> None:
    bad = b'{"inputs": 3}'
    expected = post(triton, bad, path="/v2/models/mlp/infer")
    assert expected[0] >= 400
    assert [post(cache, bad, path="/v2/models/mlp/infer") for _ in range(2)] == [expected] * 2
    for _ in range(2):
        with pytest.raises(DeploymentError, match="none"):
            ask(cache, FRAMEWORKS["triton"].interface.payload("grpc", "none", inputs("mlp", 1), batch=1))
    counted = gateway.stats(cache)
    assert (counted["hits"], counted["stored"], counted["upstream_errors"]) == (0, 0, 4)


def test_what_is_no_prediction_passes_through(cache: Endpoint, triton: Endpoint) -> None:
    path = "/v2/models/mlp/config?x=1"
    assert fetch(cache.rest, "GET", path, timeout_s=5) == fetch(triton.rest, "GET", path, timeout_s=5)
    assert statistics(cache)["requests"] == statistics(triton)["requests"] > 0
    assert gateway.stats(cache)["misses"] == 0


def test_many_requests_at_once_are_no_failure_of_redis(triton: Endpoint) -> None:
    """redis-py's pool of 100 connections would refuse the next, and the cache would be off where load is highest."""
    try:
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(redis_server())
            front = stack.enter_context(gateway.serve(triton, mode="cache", store=url))
            plan = trial.Plan(Arm("rest", repeat=0.5), rate_per_s=4000, duration_s=0.5, timeout_s=20)
            rows = trial.run(front, plan).samples
            counted = gateway.stats(front)
    except MissingError as error:
        pytest.skip(str(error))
    assert set(rows["status"]) == {"ok"}
    assert counted["store_errors"] == 0
    assert counted["hits"] > 0.3 * len(rows)


@pytest.mark.server
def test_a_server_that_died_behind_its_cache_is_noticed() -> None:
    """Hits would go on, and every trial that follows would be of a cache in front of nothing."""
    with servers.deploy("triton", "mlp") as server, gateway.serve(server, mode="cache") as front:
        predict(front, "rest", inputs("mlp", 1))
        for process in server.processes():
            process.kill()
        await_true(lambda: not server.processes())
        assert predict(front, "rest", inputs("mlp", 1)).shape == (1, 10), "the cache still answers"
        assert front.processes() == []
        with pytest.raises(ServerLostError):
            drain(front)


@pytest.mark.server
@pytest.mark.parametrize("by_version", [True, False])
def test_a_model_swap_makes_a_cache_stale_unless_it_knows_the_version(by_version: bool, tmp_path: Path) -> None:
    """A new version answers after a refresh; without the version in the key the old model's answer stays."""
    from infscale.deployment import tfserving

    base = tmp_path / "mlp"
    shutil.copytree(tfserving.export("mlp"), base)
    (old,) = (path for path in base.iterdir() if path.name.isdigit())
    new = str(int(old.name) + 1)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(tfserving.deploy("mlp", way="embedded", artifact=base))
        front = stack.enter_context(gateway.serve(server, mode="cache", by_version=by_version))
        predict(front, "rest", inputs("mlp", 1))
        shutil.copytree(old, tmp_path / "copying")
        (tmp_path / "copying").rename(base / new)
        await_true(lambda: gateway.refresh(front)["version"] == new)
        predict(front, "rest", inputs("mlp", 1))
        assert gateway.stats(front)["hits"] == (0 if by_version else 1)


def test_torchserves_version_comes_from_its_management_address(deployed: Callable[[str], Endpoint]) -> None:
    with gateway.serve(deployed("torchserve"), mode="cache") as front:
        assert max(check_answers(front).values()) <= 1e-5
        assert max(check_answers(front).values()) <= 1e-5
        counted = gateway.stats(front)
        assert counted["version"] != ""
        assert counted["hits"] == counted["misses"] == 7


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_keys_tell_apart_what_differs(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(one) == digest(other)) == (one == other)


# --- stores ----------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("put"), st.integers(0, 7), st.integers(0, 150)),
        st.tuples(st.just("wait"), st.integers(1, 7), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_memory_keeps_the_most_recently_used_within_its_bytes_and_age(steps: list[tuple[str, int, int]]) -> None:
    """Against a model: an ordered dictionary with the times of the puts."""
    now, capacity, ttl = 0.0, 300, 10.0
    store = Memory(capacity, ttl, timer=lambda: now)
    truth: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
    for step, number, size in steps:
        key = bytes([number]) * KEY_BYTES
        now += number if step == "wait" else 0
        for old in [k for k, (_, born) in truth.items() if now >= born + ttl]:
            del truth[old]
        if step == "get":
            assert asyncio.run(store.get(key)) == (truth[key][0] if key in truth else None)
            if key in truth:
                truth.move_to_end(key)
        elif step == "put" and key not in truth:
            assert asyncio.run(store.put(key, bytes(size)))
            while sum(len(v) + KEY_BYTES for v, _ in truth.values()) + size + KEY_BYTES > capacity:
                truth.popitem(last=False)
            truth[key] = bytes(size), now
        told = asyncio.run(store.info())
        assert told["bytes"] == sum(len(v) + KEY_BYTES for v, _ in truth.values()) <= capacity
        assert told["entries"] == len(truth)


def test_memory_counts_what_goes_and_refuses_what_does_not_fit() -> None:
    now = 0.0
    store = Memory(100, 10, timer=lambda: now)
    keys = [bytes([n]) * KEY_BYTES for n in range(3)]
    assert not asyncio.run(store.put(keys[0], bytes(100)))
    for key in keys[:2]:
        assert asyncio.run(store.put(key, bytes(18)))
    assert asyncio.run(store.get(keys[0])) is not None  # now the other is the least recently used
    assert asyncio.run(store.put(keys[2], b""))
    assert asyncio.run(store.get(keys[1])) is None
    assert asyncio.run(store.info()) == {"evicted": 1, "expired": 0, "bytes": 82, "entries": 2}
    now = 10.0
    assert asyncio.run(store.get(keys[0])) is None
    assert asyncio.run(store.info()) == {"evicted": 1, "expired": 2, "bytes": 0, "entries": 0}
    asyncio.run(store.clear())
    assert asyncio.run(store.info()) == {"evicted": 0, "expired": 0, "bytes": 0, "entries": 0}


def test_a_redis_keeps_answers_and_its_loss_is_counted_not_felt(triton: Endpoint, tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on PATH")
    (port,) = free_ports(1)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with Process(command, log=tmp_path / "redis.log") as redis:
        wait_ready(redis, lambda: redis.owns_port(port), what="Redis", timeout_s=10)
        with gateway.serve(triton, mode="cache", store=f"redis://127.0.0.1:{port}/0") as front:
            rows = inputs("mlp", 1)
            for protocol in front.protocols():
                truth = predict(triton, protocol, rows)
                assert all(max_difference(predict(front, protocol, rows), truth) == 0 for _ in range(2))
            counted = gateway.stats(front)
            assert (counted["hits"], counted["misses"], counted["entries"], counted["store_errors"]) == (2, 2, 2, 0)
            assert gateway.clear(front)["entries"] == 0
            redis.stop()
            for protocol in front.protocols():
                assert max_difference(predict(front, protocol, rows), predict(triton, protocol, rows)) == 0
            counted = gateway.stats(front)
            assert (counted["misses"], counted["entries"]) == (2, None)
            assert counted["store_errors"] >= 2


# --- abuse -----------------------------------------------------------------------------------------------------------


@quickly
@given(body=st.binary(max_size=200) | st.text(alphabet='{}[]":,.0123456789eE-+ntrufalsNI', max_size=60).map(str.encode))
def test_no_body_hangs_or_kills_an_edge(edge: Endpoint, body: bytes) -> None:
    assert post(edge, body)[0] == 400
    assert post(edge, body, kind=OCTETS)[0] == 400


@quickly
@given(message=st.binary(max_size=200), path=st.sampled_from(["/inference.GRPCInferenceService/ModelInfer", "/x.Y/Z"]))
def test_no_message_hangs_or_kills_a_cache(cache: Endpoint, message: bytes, path: str) -> None:
    with grpc.insecure_channel(cache.grpc) as channel:
        call: Any = channel.unary_unary(path, None, None)
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=20)
    assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


@quickly
@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"", b"POST / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
)
def test_no_bytes_on_a_socket_kill_a_gateway(edge: Endpoint, cache: Endpoint, data: bytes, start: bytes) -> None:
    for endpoint in (edge, cache):
        host, _, port = endpoint.rest.partition(":")
        # It may have closed the connection already.
        with socket.create_connection((host, int(port)), timeout=20) as client, contextlib.suppress(OSError):
            client.sendall(start + data)
            client.shutdown(socket.SHUT_WR)
    assert gateway.stats(edge) is not None
    assert gateway.stats(cache)["hits"] >= 0


def test_gateways_outlive_their_clients_abuse(edge: Endpoint, cache: Endpoint) -> None:
    assert answers(edge)
    assert answers(cache)
    assert np.isfinite(predict(edge, "rest", inputs("mlp", 64), encoding="raw")).all()
