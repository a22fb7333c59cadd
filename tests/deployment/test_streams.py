"""If these fail, streams are measured on servers that send something else than was asked for, or at other times."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import h11
import numpy as np
import pytest
import requests
from msgspec.structs import replace

from helpers.h2_client import connect
from infscale import deployment
from infscale.deployment.client import AnsweredError, UnansweredError
from infscale.deployment.endpoint import Endpoint, contents
from infscale.deployment.fronts import FRONTS, buffer
from infscale.errors import ConfigError, DeploymentError
from infscale.experiment.check import check
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.models.stream import StreamPlan, read
from infscale.payloads.encoders import Payload

STREAMING = ("torchserve", "triton")
PROTOCOLS = ("rest", "grpc")


@pytest.fixture(scope="module", params=STREAMING)
def served(request: pytest.FixtureRequest, server_process: None) -> Iterator[Endpoint]:
    with deployment.deploy(request.param, "stream") as running:
        yield running


protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


def asked(endpoint: Endpoint, protocol: str, **plan: Any) -> list[bytes]:
    """The contents of all messages, by the project's own client, after the end."""
    wanted = StreamPlan(**plan)
    return contents(endpoint, endpoint.stream(protocol, wanted), wanted)


def as_they_come(endpoint: Endpoint, payload: Payload) -> Iterator[bytes]:
    """The messages as grpcio and requests find their borders; requests hides those of chunks, which h11 tells."""
    if payload.protocol == "grpc":
        with grpc.insecure_channel(endpoint.grpc, options=[("grpc.max_receive_message_length", -1)]) as channel:
            yield from channel.stream_stream(payload.path, None, None)(iter(payload.bodies), timeout=60)
        return
    assert payload.stream is not None
    if payload.stream.way == "sse":
        url = f"http://{endpoint.rest}{payload.path}"
        with requests.post(url, payload.bodies[0], headers=payload.headers, stream=True, timeout=60) as response:
            assert response.status_code == 200
            for line in response.iter_lines(chunk_size=None):
                if line:
                    assert line.startswith(b"data: ")
                    yield line.removeprefix(b"data: ")
        return
    yield from _chunks(endpoint.rest, payload)


def _chunks(address: str, payload: Payload) -> Iterator[bytes]:
    reader, chunk = h11.Connection(h11.CLIENT), b""
    headers = [("host", address), ("content-length", str(len(payload.bodies[0]))), *payload.headers.items()]
    with connect(address) as sock:
        sock.sendall(reader.send(h11.Request(method="POST", target=payload.path, headers=headers)) or b"")
        sock.sendall(reader.send(h11.Data(data=payload.bodies[0])) or b"")
        reader.send(h11.EndOfMessage())
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                reader.receive_data(sock.recv(65_536))
            elif isinstance(event, h11.Response):
                assert event.status_code == 200
            elif isinstance(event, h11.Data):
                chunk += event.data
                if event.chunk_end:
                    yield chunk
                    chunk = b""


# --- what comes ---


@protocols
@pytest.mark.parametrize("size", [32, 4_096, 256_000])
def test_each_message_comes_as_one_in_order_and_has_its_size(served: Endpoint, protocol: str, size: int) -> None:
    payload = served.stream(protocol, StreamPlan(count=20, size=size, interval_us=1_000))
    assert payload.stream is not None
    messages = [payload.stream.content(message) for message in as_they_come(served, payload)]
    assert [read(message)[0] for message in messages] == list(range(20))
    assert {len(message) for message in messages} == {size}
    assert payload.messages == 20


@protocols
def test_messages_are_sent_at_their_times_and_not_before(served: Endpoint, protocol: str) -> None:
    """Their stamps are the truth with which a client's times are compared."""
    stamps = np.array([read(message)[1] for message in asked(served, protocol, count=10, interval_us=10_000)])
    assert (np.diff(stamps) > 0).all()
    assert stamps[-1] - stamps[0] >= 85e6


@protocols
@pytest.mark.parametrize("count", [1, 2, 300])
def test_as_fast_as_it_can_nothing_is_lost(served: Endpoint, protocol: str, count: int) -> None:
    messages = asked(served, protocol, count=count, interval_us=0)
    assert [read(message)[0] for message in messages] == list(range(count))


@protocols
def test_no_messages_are_an_answer(served: Endpoint, protocol: str) -> None:
    """TorchServe has no answer without a message: over gRPC it is an empty one."""
    wanted = [b""] if (served.framework, protocol) == ("torchserve", "grpc") else []
    assert asked(served, protocol, count=0) == wanted


# --- errors ---


@protocols
@pytest.mark.parametrize("after", [0, 3, 5])
def test_an_error_within_a_stream_can_be_told_from_its_end(served: Endpoint, protocol: str, after: int) -> None:
    payload = served.stream(protocol, StreamPlan(count=5, interval_us=1_000, fail_after=after))
    assert payload.stream is not None
    found, failed = [], False
    try:
        for message in as_they_come(served, payload):
            found.append(message)
    except (grpc.RpcError, h11.RemoteProtocolError, ConnectionError, AssertionError):
        failed = True
    by_status = payload.stream.way == "sse" and after == 0  # Triton's HTTP status, as nothing has been sent yet
    errors = None if by_status else payload.stream.errors
    if errors is not None:
        assert not failed, "Triton ends a stream with an error well"
        reason = errors.match(found[-1])
        assert reason is not None
        assert found.pop()[reason.end() :].startswith(b"told to fail after")
        assert not any(errors.match(message) for message in found)
    else:
        assert failed
    assert len(found) <= after, "more came than were sent"
    if errors is not None or protocol == "grpc":
        assert len(found) == after


def test_a_unary_call_of_a_decoupled_model_is_refused_by_triton(server_process: None) -> None:
    with deployment.deploy("triton", "stream") as endpoint:
        payload = endpoint.stream("grpc", StreamPlan(count=1))
        with pytest.raises(AnsweredError, match="UNIMPLEMENTED"):
            endpoint.call("/inference.GRPCInferenceService/ModelInfer", payload.bodies[0])


# --- side by side ---


def test_a_label_tells_how_many_streams_a_worker_serves_at_a_time(server_process: None) -> None:
    with deployment.deploy("torchserve", "stream", workers=2) as endpoint:
        assert endpoint.label.endswith("(2 workers, a stream each)")
        assert endpoint.streams_at_once == 2


def test_streams_of_triton_run_side_by_side(server_process: None) -> None:
    """One that held up the others would look like a slow first message."""
    with deployment.deploy("triton", "stream") as endpoint:
        assert endpoint.streams_at_once is None
        payload = endpoint.stream("grpc", StreamPlan(count=20, interval_us=20_000))
        with grpc.insecure_channel(endpoint.grpc) as channel:
            calls = [
                channel.stream_stream(payload.path, None, None)(iter(payload.bodies), timeout=60) for _ in range(4)
            ]
            stamps = [
                [read(payload.stream.content(message))[1] for message in call] for call in calls if payload.stream
            ]
    starts, ends = [each[0] for each in stamps], [each[-1] for each in stamps]
    assert max(starts) < min(ends)


# --- what cannot be asked for ---


def test_tensorflow_serving_has_no_streams() -> None:
    with pytest.raises(ConfigError, match=r"no streaming predictions.*accepted for model='stream': torchserve, triton"):
        deployment.deploy("tfserving", "stream")
    with pytest.raises(ConfigError, match="no streaming predictions"):
        check(Design(finding="streams", arms=(streaming_arm("tfserving"),)))
    with pytest.raises(ConfigError, match="size=8 is no size of a message"):
        check(Design(finding="streams", arms=(replace(streaming_arm("triton"), message_bytes=8),)))
    with pytest.raises(ConfigError, match="encoding='chunks' is not known; accepted: , sse"):
        check(Design(finding="streams", arms=(replace(streaming_arm("triton"), encoding="chunks"),)))


def streaming_arm(framework: str) -> Arm:
    """Twenty tokens over REST."""
    return Arm("rest", framework=framework, model="stream", messages=20, message_bytes=32, interval_ms=5.0)


def test_a_model_with_one_reply_is_not_asked_for_a_stream(deployed: Callable[[str], Endpoint]) -> None:
    """TorchServe would not refuse it: over REST it looks like a stream of one, and over gRPC it ends the worker."""
    with pytest.raises(ConfigError, match="model='mlp' sends one reply and no stream; accepted: 'stream'"):
        deployed("torchserve").stream("grpc", StreamPlan())


def test_a_model_of_streams_is_not_asked_for_one_reply(served: Endpoint) -> None:
    with pytest.raises(ConfigError, match="model='stream' answers with streams"):
        served.payload("rest")


@pytest.mark.parametrize("options", [{"cache": True}, {"batch_delay_us": 0}])
def test_a_decoupled_model_has_neither_cache_nor_batches(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="accepted: neither"), deployment.deploy("triton", "stream", **options):
        pass


@pytest.mark.parametrize(
    "options",
    [
        {"count": -1},
        {"count": 10**6},
        {"size": 31},
        {"size": 1 << 30},
        {"interval_us": -1},
        {"fail_after": 21},
        {"fail_after": -1},
    ],
)
def test_plans_that_no_server_can_keep_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        StreamPlan(**options)


# --- the buffering proxy ---


@pytest.fixture(scope="module")
def buffered(server_process: None) -> Iterator[Endpoint]:
    with FRONTS["buffered"].start("triton", "stream", hold_ms=100) as running:
        yield running


@protocols
def test_a_buffering_proxy_brings_messages_together_and_loses_none(buffered: Endpoint, protocol: str) -> None:
    """With 100 ms in the proxy, messages that were sent 10 ms apart come in a few reads."""
    payload = buffered.stream(protocol, StreamPlan(count=30, interval_us=10_000))
    assert payload.stream is not None
    came = [(payload.stream.content(each), time.monotonic_ns()) for each in as_they_come(buffered, payload)]
    assert [read(message)[0] for message, _ in came] == list(range(30))
    late = [at - read(message)[1] for message, at in came]
    assert max(late) >= 50e6, "no message waited"
    gaps = [after - before for (_, before), (_, after) in itertools.pairwise(came)]
    assert sum(gap < 2_000_000 for gap in gaps) >= 15, "they did not come together"


@pytest.mark.server
def test_a_buffering_proxy_passes_errors_and_the_end_of_a_connection_on() -> None:
    with buffer.deploy("torchserve", "stream", hold_ms=5) as endpoint:
        payload = endpoint.stream("rest", StreamPlan(count=5, interval_us=0, fail_after=3))
        with pytest.raises(UnansweredError):
            endpoint.fetch("POST", payload.path, payload.bodies[0], payload.headers)
        payload = endpoint.stream("grpc", StreamPlan(count=5, interval_us=0, fail_after=3))
        with pytest.raises(DeploymentError, match=r"UNAVAILABLE|UNKNOWN|INTERNAL"):
            endpoint.call_stream(payload.path, payload.bodies[0])


def test_its_label_and_parts_tell_of_the_proxy(buffered: Endpoint) -> None:
    assert buffered.label.endswith("behind a proxy that buffers for 100 ms or 65536 B")
    assert buffered.implementation == "triton+buffer"
    assert set(buffered.parts) == {"server", "proxy"}
    assert json.dumps(buffered.describe())


@pytest.mark.parametrize("options", [{"hold_ms": 0}, {"hold_ms": float("nan")}, {"hold_bytes": 0}])
def test_a_buffer_of_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="accepted"), buffer.deploy("triton", "stream", **options):
        pass
