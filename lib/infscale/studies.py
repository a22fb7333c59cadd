"""The findings that can be measured by name: their question, their cases, and their sizes by profile."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infscale.errors import one_of
from infscale.grid import Case, Grid
from infscale.trial import Arm

NAMES = {"tfserving": "TF Serving API", "torchserve": "TorchServe", "triton": "Triton"}


@dataclass(frozen=True)
class Study:
    """A finding of the project.

    Attributes:
        question: what it answers, for the report.
        notebook: that measures and shows it.
        cases: the arms of a profile, and which of them the others are compared with.
    """

    question: str
    notebook: str
    cases: Callable[[str], tuple[tuple[Case, ...], str]]


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"replicates": 1, "trial_s": 0.5, "bisections": 1},
    "quick": {"replicates": 3, "trial_s": 2.0, "bisections": 3},
    "full": {"replicates": 6, "trial_s": 6.0, "bisections": 4, "timeout_s": 5.0},
}


def _encodings(profile: str) -> tuple[tuple[Case, ...], str]:
    """Ways to write one fp32 tensor: on Triton with 16 rows (quick), or everywhere and by batch (full)."""
    ways = {
        "JSON": ("rest", "json", False),
        "JSON, gzip": ("rest", "json", True),
        "binary tensor": ("rest", "raw", False),
        "protobuf": ("grpc", "protobuf", False),
        "protobuf, gzip": ("grpc", "protobuf", True),
        "protobuf floats": ("grpc", "contents", False),
    }
    if profile != "full":
        chosen = dict(itertools.islice(ways.items(), 2 if profile == "tiny" else 6))
        cases = [Case(name, "triton", Arm(p, e, batch=16, gzip=z)) for name, (p, e, z) in chosen.items()]
        return tuple(cases), "JSON"
    more = {
        "triton": ways,
        "torchserve": {
            "JSON": ("rest", "json", False),
            "base64 in JSON": ("rest", "b64", False),
            "raw body": ("rest", "raw", False),
            "npy": ("rest", "npy", False),
            "protobuf": ("grpc", "raw", False),
            "protobuf, gzip": ("grpc", "raw", True),
        },
        "tfserving": {
            "JSON": ("rest", "json", False),
            "JSON, gzip": ("rest", "json", True),
            "base64 in JSON": ("rest", "b64", False),
            "protobuf": ("grpc", "protobuf", False),
            "protobuf, gzip": ("grpc", "protobuf", True),
            "protobuf floats": ("grpc", "float_val", False),
        },
    }
    cases = [
        Case(f"{NAMES[framework]}, {name}, {batch} rows", framework, Arm(p, e, batch=batch, gzip=z))
        for framework, known in more.items()
        for name, (p, e, z) in known.items()
        for batch in (1, 16, 256)
    ]
    return tuple(cases), cases[0].name


def _client_stacks(profile: str) -> tuple[tuple[Case, ...], str]:
    """The same tensor through the wire engine and through the libraries that people use, on one server."""
    ways = {
        "REST, wire": ("rest", "wire"),
        "REST, requests": ("rest", "requests"),
        "gRPC, wire": ("grpc", "wire"),
        "gRPC, grpcio": ("grpc", "grpcio"),
    }
    chosen = dict(itertools.islice(ways.items(), 2 if profile == "tiny" else 4))
    if profile != "full":
        return tuple(Case(name, "triton", Arm(p, client=c)) for name, (p, c) in chosen.items()), "REST, wire"
    cases = [
        Case(f"{NAMES[framework]}, {name}", framework, Arm(p, client=c))
        for framework in NAMES
        for name, (p, c) in ways.items()
    ]
    return tuple(cases), cases[0].name


STUDIES = {
    "encodings": Study(
        "What does the encoding of a tensor cost, over REST and over gRPC: bytes on the wire, capacity, response time?",
        "11-encodings",
        _encodings,
    ),
    "client-stacks": Study(
        "How much of the difference between REST and gRPC is the client library's?", "17-client-stacks", _client_stacks
    ),
}


def grid_of(name: str, profile: str = "quick", **given: Any) -> Grid:
    """The grid of a finding; values that are None keep the profile's.

    Raises:
        ConfigError: an unknown finding or profile, or a value that a grid cannot have.
    """
    one_of("finding", name, STUDIES)
    one_of("profile", profile, SIZES)
    cases, reference = STUDIES[name].cases(profile)
    chosen = {key: value for key, value in given.items() if value is not None}
    frameworks = tuple(dict.fromkeys(case.framework for case in cases))
    protocols = tuple(dict.fromkeys(case.arm.protocol for case in cases))
    sizes = {**SIZES[profile], **chosen}
    return Grid(
        frameworks=frameworks,
        protocols=protocols,
        fractions=(0.5,),
        sensitivity=False,
        profile=profile,
        experiment=name,
        cases=cases,
        reference=reference,
        **sizes,
    )
