"""Audits of real servers: if these fail, wrong answers are called right, or a cache before a server goes unseen."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from infscale.deployment import tfserving
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.fronts import gateway
from infscale.errors import ConfigError, MissingError
from infscale.experiment.beside import audit
from infscale.experiment.design.arm import Arm
from infscale.findings.cache_audit import MARGIN, judge
from infscale.load import loadgen_client
from infscale.models.reference import model

PROTOCOLS = ("rest", "grpc")


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trials count that a busy machine makes late or restless; the medians of a round are late together."""
    monkeypatch.setattr("infscale.records.gates.generator.LAG_FLOOR_NS", 1e9)
    monkeypatch.setattr("infscale.records.gates.generator.RUN_DELAY_MAX", 1.0)
    monkeypatch.setattr("infscale.records.gates.generator.STEAL_MAX", 1.0)
    monkeypatch.setattr("infscale.records.gates.generator.DISPERSION_TOLERANCE", 10.0)
    monkeypatch.setattr("infscale.records.gates.generator.ENGINE_CPU_MAX", 1.0)
    monkeypatch.setattr(audit, "UNSTEADY", "")


@contextmanager
def answering(reply: Callable[[int, list[float]], tuple[int, object]]) -> Iterator[str]:
    """A server in a thread of the test, with TensorFlow Serving's REST; ``reply`` gets the number of the request."""
    lock, count = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two of them would wait 40 ms for each other

        def do_POST(self) -> None:
            row = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"][0]
            with lock:
                count[0] += 1
            status, answer = reply(count[0], row)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def endpoint_at(address: str) -> Endpoint:
    return Endpoint(
        "tfserving", "fake", "1", "fake", "none", "mlp", address, "", interface=tfserving.FRAMEWORK.interface
    )


# -------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_answer_of_a_right_server_agrees(endpoint: Endpoint, protocol: str) -> None:
    found = audit.accuracy(endpoint, protocol)
    assert (found.answers, found.agreeing, found.failed) == (256, 256, 0)
    assert found.passed
    assert 0 <= found.largest < found.limit
    assert '"effective_test_mode", "value": "AccuracyOnly"' in found.logs[loadgen_client.DETAIL]


def test_wrong_and_failed_answers_are_counted() -> None:
    def reply(number: int, row: list[float]) -> tuple[int, object]:
        right = model("mlp").predict(np.array([row], np.float32))[0]
        if number % 4 == 0:
            return 500, {"error": "no"}
        if number % 4 == 1:
            return 200, {"predictions": "none"}
        return 200, {"predictions": [(right + (0.01 if number % 4 == 2 else 0)).tolist()]}

    with answering(reply) as address:
        found = audit.accuracy(endpoint_at(address), "rest")
    assert (found.answers, found.agreeing, found.failed) == (256, 64, 128)
    assert not found.passed
    assert found.largest == pytest.approx(0.01, rel=0.01)
    assert found.text.startswith("64 of 256 answers over rest (json) agree with the reference model within 0.0001")


def test_an_answer_for_another_row_does_not_agree() -> None:
    """A server that sends one right answer to everybody is wrong, whatever its speed."""
    right = model("mlp").predict(np.zeros((1, 784), np.float32))

    with answering(lambda *_: (200, {"predictions": right.tolist()})) as address:
        assert audit.accuracy(endpoint_at(address), "rest").agreeing == 0


def test_a_model_of_ones_own_has_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(endpoint_at("127.0.0.1:1"), own=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has no reference output"):
        audit.accuracy(own, "rest")
    with pytest.raises(ConfigError, match="accepted: noop, mlp, cnn"):
        audit.rounds(own, Arm("rest"), rate_per_s=100, duration_s=1, count=3, seed=1)
    with pytest.raises(ConfigError, match="accepted: noop, mlp, cnn"):
        audit.rounds(replace(own, own=None, model="photo"), Arm("rest"), rate_per_s=9, duration_s=1, count=3, seed=1)
    monkeypatch.setattr(loadgen_client, "package_version", lambda *_: "")
    with pytest.raises(MissingError, match="pip install mlcommons-loadgen"):
        audit.accuracy(endpoint_at("127.0.0.1:1"), "rest")


# --------------------------------------------------------------------------------------------- caching


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cache_in_front_of_a_server_is_found_and_named(
    deployed: Callable[[str], Endpoint], busy: None, protocol: str
) -> None:
    lines: list[str] = []
    with gateway.serve(deployed("tfserving"), mode="cache") as front:
        table = audit.rounds(front, Arm(protocol), rate_per_s=100, duration_s=0.6, count=4, seed=1, say=lines.append)
    found = judge(table)
    assert found.ratio.lifetimes == 4, lines
    fresh, repeated = found.hit_ratios
    assert fresh == 0, "fresh requests were sent before"
    assert repeated > 0.95, "repeated requests are the same in every round, and most were asked for before the first"
    assert found.cached
    assert found.ratio.value > MARGIN, lines
    assert table["kind"].tolist()[:4] in (
        ["fresh", "repeated"] * 2,
        ["fresh", "repeated", "repeated", "fresh"],
        ["repeated", "fresh", "fresh", "repeated"],
    )


def test_a_server_without_a_cache_is_not_suspected(deployed: Callable[[str], Endpoint], busy: None) -> None:
    table = audit.rounds(deployed("tfserving"), Arm("grpc"), rate_per_s=100, duration_s=0.6, count=4, seed=1)
    found = judge(table)
    assert (found.ratio.lifetimes, found.cached) == (4, False)
    assert not found.ratio.low > 1.5, "the statistics have their own test; here only the gross would show"
    assert (table["requests"] >= 30).all()


def test_loadgen_can_drive_an_audit(deployed: Callable[[str], Endpoint], busy: None) -> None:
    arm = Arm("rest", client="loadgen-server")
    table = audit.rounds(deployed("tfserving"), arm, rate_per_s=100, duration_s=0.6, count=1, seed=2)
    assert sorted(table["kind"]) == ["fresh", "repeated"]
