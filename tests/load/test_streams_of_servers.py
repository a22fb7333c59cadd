"""If these fail, the streams of serving systems are measured as something else than what they are."""

from collections.abc import Iterator

import numpy as np
import pytest

from infscale import deployment
from infscale.deployment.endpoint import Endpoint
from infscale.load.engine import run as engine
from infscale.load.engine.interfaces import Streaming
from infscale.models.stream import StreamPlan
from infscale.payloads.streams import GRPC_ERRORS, JSON_ERRORS
from infscale.vocabulary import PROTOCOLS, SCHEME

STREAMS = 3


@pytest.fixture(scope="module", params=["torchserve", "triton"])
def served(request: pytest.FixtureRequest, server_process: None) -> Iterator[Endpoint]:
    with deployment.deploy(request.param, "stream") as running:
        yield running


def load(endpoint: Endpoint, protocol: str, plan: StreamPlan) -> engine.Result:
    """A few streams of a plan, one after the other."""
    payload = endpoint.stream(protocol, plan)
    assert payload.stream is not None
    errors = GRPC_ERRORS.get(payload.path) if protocol == "grpc" else JSON_ERRORS
    return engine.run(
        f"{SCHEME[protocol]}://{endpoint.address(protocol)}{payload.path}",
        payload.bodies,
        [np.arange(STREAMS, dtype=np.int64) * 100_000_000],
        [np.zeros(STREAMS, np.int32)],
        timeout_s=60,
        headers=payload.headers,
        streaming=Streaming(payload.stream.way, plan.count, errors=errors),
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_message_of_a_stream_has_its_time(served: Endpoint, protocol: str) -> None:
    result = load(served, protocol, StreamPlan(count=8, size=64, interval_us=2000))
    assert (result.samples["status"] == "ok").all(), result.generator.reasons
    assert result.chunks is not None
    assert result.chunks["index"].tolist() == list(range(8)) * STREAMS
    first = result.chunks[result.chunks["index"] == 0]["at_ns"]
    assert first.tolist() == result.samples["first_byte_ns"].tolist()


FAILED = {
    ("triton", "rest"): "stream_error",
    ("triton", "grpc"): "stream_error",
    ("torchserve", "rest"): "stream_cut",
    ("torchserve", "grpc"): "grpc_UNAVAILABLE",
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_fails_within_its_stream_is_no_success(served: Endpoint, protocol: str) -> None:
    """Triton puts the error into a stream that ends well; TorchServe resets REST's connection."""
    result = load(served, protocol, StreamPlan(count=8, size=64, interval_us=2000, fail_after=4))
    assert set(result.samples["status"]) == {FAILED[served.framework, protocol]}, result.generator.reasons
    assert result.chunks is not None
    assert (result.chunks.groupby("sequence").size() >= 4).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_without_messages_is_empty(served: Endpoint, protocol: str) -> None:
    result = load(served, protocol, StreamPlan(count=0))
    own = (served.framework, protocol) == ("torchserve", "grpc")  # it answers with an empty message of its own
    assert set(result.samples["status"]) == {"ok" if own else "stream_empty"}, result.generator.reasons
