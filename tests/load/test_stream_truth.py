"""If these fail, a stream of known messages at known times is reported as another one."""

from typing import Any

import numpy as np
import pytest

from infscale.load.engine import run as engine
from infscale.load.engine.interfaces import Streaming
from infscale.load.null_server import Emission, NullServer, evenly, null_server
from infscale.payloads.streams import JSON_ERRORS, TRITON_ERRORS

pytestmark = pytest.mark.server

MS = 1_000_000
WAYS = {
    "grpc": ("grpc", "grpc://{grpc}/inference.Service/Stream"),
    "sse-1": ("sse", "http://{rest}/v1/stream"),
    "sse-2": ("sse", "h2c://{grpc}/v1/stream"),
    "lines-1": ("lines", "http://{rest}/v1/stream"),
    "lines-2": ("lines", "h2c://{grpc}/v1/stream"),
    "chunks-1": ("chunks", "http://{rest}/v1/stream"),
    "chunks-2": ("chunks", "h2c://{grpc}/v1/stream"),
}
STREAMS = 6


def emission(name: str, *offsets_ns: int, **options: Any) -> Emission:
    """What the server sends in one of :data:`WAYS`."""
    way = WAYS[name][0]
    return Emission(offsets_ns, way="sse" if way == "grpc" else way, **options)


def load(name: str, server: NullServer, *, timeout_s: float = 60, **options: Any) -> engine.Result:
    """A few streams, 5 ms apart, over one connection for each, or over one for all."""
    way, url = WAYS[name]
    errors = JSON_ERRORS if way != "grpc" else TRITON_ERRORS
    return engine.run(
        url.format(grpc=server.grpc, rest=server.rest),
        [b"a body"],
        [np.arange(STREAMS, dtype=np.int64) * 5 * MS],
        [np.zeros(STREAMS, np.int32)],
        timeout_s=timeout_s,
        connections=1 if url.startswith(("grpc", "h2c")) else STREAMS,
        streaming=Streaming(way, errors=errors, **options),
    )


@pytest.mark.parametrize("name", WAYS)
def test_every_message_is_timed_after_it_was_written_and_in_its_order(name: str) -> None:
    sizes = [32, 4096, 100]
    with null_server(stream=emission(name, *evenly(9, 2 * MS, MS), size=sizes)) as server:
        result = load(name, server, expected=9)
        stamps = server.stamps()
    rows, chunks = result.samples, result.chunks
    assert chunks is not None
    assert (rows["status"] == "ok").all(), result.generator.reasons
    assert chunks["index"].tolist() == list(range(9)) * STREAMS
    assert chunks["bytes"].tolist() == sizes * 3 * STREAMS
    start = result.generator.start_ns
    assert start is not None
    at = chunks["at_ns"].to_numpy().reshape(STREAMS, 9) + start
    written = stamps.written_ns[np.argsort(stamps.request, kind="stable")].reshape(STREAMS, 9)
    assert (np.sort(at.ravel()) >= np.sort(written.ravel())).all()
    if "1" not in name:  # one connection: requests arrive in the order of sending
        assert (at >= written).all()
    assert (np.diff(at, axis=1) >= 0).all()
    assert (rows["first_byte_ns"].to_numpy() + start == at[:, 0]).all()


@pytest.mark.parametrize("name", WAYS)
def test_messages_of_one_write_came_together(name: str) -> None:
    with null_server(stream=emission(name, 0, 0, 0, 0, size=32, per_write=4)) as server:
        chunks = load(name, server, expected=4).chunks
    assert chunks is not None
    assert (chunks.groupby("sequence")["at_ns"].nunique() == 1).all()


FAILURES = [
    ("error", "grpc", "grpc_INTERNAL"),
    ("error", "rest", "stream_error"),
    ("error_message", "grpc", "stream_error"),
    ("cut", "grpc", "stream_cut"),
    ("cut", "rest", "stream_cut"),
    ("stalled", "grpc", "timeout"),
    ("stalled", "rest", "timeout"),
    ("endless", "grpc", "timeout"),
    ("endless", "rest", "timeout"),
]


@pytest.mark.parametrize("name", WAYS)
def test_a_stream_that_fails_has_the_status_of_its_failure_and_keeps_its_messages(name: str) -> None:
    for ending, protocol, status in FAILURES:
        if (protocol == "grpc") != (name == "grpc"):
            continue
        with null_server(stream=emission(name, *evenly(3, MS), size=32, ending=ending)) as server:
            result = load(name, server, timeout_s=3 if status == "timeout" else 60)
        assert set(result.samples["status"]) == {status}, (ending, result.generator.reasons)
        assert result.chunks is not None
        counts = result.chunks.groupby("sequence").size()
        assert (counts >= 3).all()
        assert len(counts) == STREAMS
        assert (result.samples["first_byte_ns"] >= result.samples["sent_ns"]).all()


@pytest.mark.parametrize("name", [name for name in WAYS if name != "chunks-2"])  # whose frames hold at most 16 kB
def test_a_large_message_is_one_message(name: str) -> None:
    with null_server(stream=emission(name, *evenly(4, MS), size=262_144)) as server:
        result = load(name, server, expected=4)
    assert (result.samples["status"] == "ok").all(), result.generator.reasons
    assert result.chunks is not None
    assert set(result.chunks["bytes"]) == {262_144}


def test_a_stream_without_messages_is_empty() -> None:
    with null_server(stream=Emission()) as server:
        for name in ("grpc", "sse-1", "sse-2"):
            assert set(load(name, server).samples["status"]) == {"stream_empty"}
