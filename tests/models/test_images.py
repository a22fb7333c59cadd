"""Pixels and files: if these fail, an encoding looks small because it does not carry the picture."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infscale import deployment as servers
from infscale.deployment import FRAMEWORKS
from infscale.deployment.client import AnsweredError
from infscale.deployment.endpoint import PARITY, Endpoint, ask, check_answers
from infscale.errors import ConfigError
from infscale.experiment import trial
from infscale.experiment.check import check
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.models import photographs
from infscale.models.reference import inputs, model
from infscale.vocabulary import PROTOCOLS

PIXELS = 224 * 224 * 3
EVERY = [(f, p, e) for f in FRAMEWORKS for p in PROTOCOLS for e in FRAMEWORKS[f].interface.encodings(p, "uint8")]
FILES = [(f, p, e) for f in FRAMEWORKS for p in PROTOCOLS for e in FRAMEWORKS[f].interface.encodings(p, "bytes")]


def body(framework: str, protocol: str, encoding: str, name: str, batch: int) -> bytes:
    rows = inputs(name, 8)[:batch]
    return FRAMEWORKS[framework].interface.payload(protocol, name, rows, encoding=encoding, batch=batch).bodies[0]


@pytest.mark.parametrize(("framework", "protocol", "encoding"), EVERY)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_body_carries_every_pixel(framework: str, protocol: str, encoding: str, batch: int) -> None:
    size = len(body(framework, protocol, encoding, "image", batch))
    assert size >= PIXELS * batch
    if encoding in ("raw", "npy", "protobuf"):
        assert size <= PIXELS * batch + 400
    elif encoding == "b64":
        assert size <= 4 / 3 * PIXELS * batch + 400


@pytest.mark.parametrize(("framework", "protocol", "encoding"), FILES)
def test_a_body_carries_the_whole_file(framework: str, protocol: str, encoding: str) -> None:
    size = len(inputs("photo", 1)[0].item())
    sent = len(body(framework, protocol, encoding, "photo", 1))
    assert sent >= (4 / 3 if encoding == "b64" else 1) * size
    assert sent <= (4 / 3 if encoding == "b64" else 1) * size + 400


def test_files_are_jpegs_that_lose_no_byte() -> None:
    """numpy strips zero bytes from the ends of its fixed-length bytes."""
    for file in inputs("photo", 64):
        assert file.item().startswith(b"\xff\xd8")
        assert file.item().endswith(b"\xff\xd9")


def test_a_photograph_is_the_picture_that_the_pixels_are() -> None:
    assert np.abs(photographs.decoded(inputs("photo", 4)).astype(int) - inputs("image", 4)).mean() < 5


@pytest.fixture(scope="module", params=[(f, m) for m in ("image", "photo") for f in FRAMEWORKS])
def served(request: pytest.FixtureRequest, server_process: None) -> Iterator[Endpoint]:
    framework, name = request.param
    with servers.deploy(framework, name) as endpoint:
        yield endpoint


def test_every_encoding_gets_the_references_answer(served: Endpoint) -> None:
    differences = check_answers(served)
    known = {p: served.interface.encodings(p, model(served.model).dtype) for p in PROTOCOLS}
    assert set(differences) == {f"{p}/{e}" for p, encodings in known.items() for e in encodings}
    assert max(differences.values()) < PARITY[model(served.model).dtype]


def test_bytes_on_the_wire_are_those_of_the_picture(served: Endpoint) -> None:
    """The sizes of the figure are counted by the engine, whatever the encoders say."""
    least = PIXELS if served.model == "image" else min(len(file.item()) for file in inputs(served.model))
    for protocol in PROTOCOLS:
        for encoding in served.interface.encodings(protocol, model(served.model).dtype):
            plan = trial.Plan(Arm(protocol, encoding, connections=2), rate_per_s=10, duration_s=1)
            rows = trial.run(served, plan).samples
            assert set(rows["status"]) == {"ok"}
            assert rows["bytes_out"].min() >= least
            assert rows["bytes_in"].min() >= 4 * 10


@pytest.mark.parametrize("served", [("torchserve", "image")], indirect=True)
def test_numbers_that_are_no_pixels_are_refused_by_torchserve(served: Endpoint) -> None:
    """numpy would wrap 300 to 44, and a wrong picture would be answered."""
    payload = FRAMEWORKS["torchserve"].interface.payload("rest", "image", inputs("image", 1), encoding="json")
    for wrong in (b"300", b"-1", b"0.5"):
        head, _, tail = payload.bodies[0].partition(b",")
        body = head.rstrip(b"0123456789") + wrong + b"," + tail
        with pytest.raises(AnsweredError, match="400"):
            ask(served, replace(payload, bodies=[body]))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("triton", "rest", "json", "photo", 1), "accepted: raw"),
        (("torchserve", "rest", "raw", "photo", 2), "takes one row of photo in a request; accepted: 1"),
        (("tfserving", "grpc", "protobuf", "image", 1000), "limit of 64 MiB"),
    ],
)
def test_what_a_picture_cannot_be_sent_as_is_said_first(given: Any, told: str) -> None:
    framework, protocol, encoding, name, batch = given
    arm = Arm(protocol, encoding, batch=batch, framework=framework, model=name)
    with pytest.raises(ConfigError, match=told):
        check(Design(finding="one", arms=(arm,)))


@pytest.mark.parametrize(
    ("framework", "protocol", "encoding"),
    [
        ("triton", "rest", "raw"),
        ("triton", "grpc", "protobuf"),
        ("tfserving", "grpc", "protobuf"),
        ("tfserving", "rest", "json"),
    ],
)
def test_batches_of_4096_rows_are_answered(
    deployed: Callable[[str], Endpoint], framework: str, protocol: str, encoding: str
) -> None:
    """12.8 MB of fp32 (26 MB as JSON): the largest batch of the study."""
    arm = Arm(protocol, encoding, batch=4096, connections=1)
    plan = trial.Plan(arm, rate_per_s=2, duration_s=1.5, timeout_s=60)
    rows = trial.run(deployed(framework), plan).samples
    assert set(rows["status"]) == {"ok"}
    assert rows["bytes_out"].min() >= 4096 * 784 * 4
