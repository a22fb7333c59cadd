"""Encodings (F1): what does it cost to write a tensor as JSON, base64, raw bytes or protobuf?"""

import itertools
from collections.abc import Mapping

from infscale.experiment.design.arm import Arm
from infscale.findings.finding import Blocks, Finding
from infscale.report.figures.arms.sizes import SIZES
from infscale.report.figures.arms.summary import SUMMARY

Way = tuple[str, str, bool]
"""Protocol, encoding, whether bodies are compressed."""

TENSORS: Mapping[str, tuple[Way, ...]] = {
    "tfserving": (
        ("rest", "json", False),
        ("rest", "json", True),
        ("rest", "b64", False),
        ("grpc", "protobuf", False),
        ("grpc", "protobuf", True),
        ("grpc", "float_val", False),
    ),
    "torchserve": (
        ("rest", "json", False),
        ("rest", "b64", False),
        ("rest", "raw", False),
        ("rest", "npy", False),
        ("grpc", "raw", False),
        ("grpc", "raw", True),
    ),
    "triton": (
        ("rest", "json", False),
        ("rest", "json", True),
        ("rest", "raw", False),
        ("grpc", "protobuf", False),
        ("grpc", "protobuf", True),
        ("grpc", "contents", False),
    ),
}
"""How each framework takes fp32 tensors; the first way is what others are compared with."""

PLAIN: tuple[Way, ...] = (("rest", "json", False), ("rest", "raw", False), ("grpc", "protobuf", False))
"""Triton's encodings that are tried at :data:`MORE_BATCHES` too: all of them everywhere would take days."""

BATCHES, MORE_BATCHES = (1, 16, 256), (4, 64, 1024, 4096)
"""Rows of a request, and further ones."""

PIXELS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "tfserving": (("rest", "json"), ("rest", "b64"), ("grpc", "protobuf")),
    "torchserve": (
        ("rest", "json"),
        ("rest", "raw"),
        ("rest", "npy"),
        ("rest", "b64"),
        ("grpc", "raw"),
        ("grpc", "json"),
        ("grpc", "npy"),
    ),
    "triton": (("rest", "json"), ("rest", "raw"), ("grpc", "protobuf")),
}
"""How each framework takes an image as 224×224 pixels of uint8: protocol and encoding."""

FILES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "tfserving": (("rest", "b64"), ("grpc", "protobuf")),
    "torchserve": (("rest", "raw"), ("rest", "b64"), ("grpc", "raw")),
    "triton": (("rest", "raw"), ("grpc", "protobuf")),
}
"""How each framework takes an image as a JPEG file: protocol and encoding."""


def blocks(profile: str) -> Blocks:
    """Return ways to write one tensor: on Triton with 16 rows (quick); everywhere, by batch, and of images (full)."""
    if profile == "full":
        return [*_tensors(), *_images(), _edge()]
    ways = itertools.islice(TENSORS["triton"], 2 if profile == "tiny" else None)
    return [[_arm("triton", way, 16) for way in ways]]


def _arm(framework: str, way: Way, batch: int) -> Arm:
    protocol, encoding, gzip = way
    return Arm(protocol, encoding, batch=batch, gzip=gzip, framework=framework)


def _tensors() -> Blocks:
    """Return fp32 in every encoding on every framework, a block for each batch.

    The embedded server also takes JSON on HTTP/2: with HTTP/1.1 and gRPC beside it, the framing is told apart from the
    encoding.
    """
    everywhere = {
        (framework, batch): [_arm(framework, way, batch) for way in ways]
        for framework, ways in TENSORS.items()
        for batch in BATCHES
    }
    everywhere["tfserving", 16].append(Arm("rest", "json", batch=16, framework="tfserving", http="2"))
    return [*everywhere.values(), *([_arm("triton", way, batch) for way in PLAIN] for batch in MORE_BATCHES)]


def _images() -> Blocks:
    """Return an image as pixels and as a JPEG file, a block for each framework."""
    kinds = {"image": PIXELS, "photo": FILES}
    return [
        [
            Arm(protocol, encoding, framework=framework, model=model)
            for model, ways in kinds.items()
            for protocol, encoding in ways[framework]
        ]
        for framework in TENSORS
    ]


def _edge() -> list[Arm]:
    """Return the same bytes by REST on HTTP/1.1 and on HTTP/2 to the edge: the framing alone differs."""
    return [
        Arm("rest", encoding, batch=16, framework="triton", front="edge", http=http)
        for encoding in ("json", "raw")
        for http in ("1.1", "2")
    ]


FINDING = Finding(
    name="encodings",
    question="What does the encoding of a tensor cost, over REST and over gRPC: bytes on the wire, saturation "
    "rate, response time?",
    blocks=blocks,
    pictures=(SUMMARY, SIZES),
    notebook="11-encodings",
)
