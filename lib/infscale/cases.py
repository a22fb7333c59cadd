"""The cases of every finding, by profile: at most six of them for "quick", two or three for "tiny"."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from infscale.grid import Case
from infscale.trial import Arm

NAMES = {"tfserving": "TF Serving API", "torchserve": "TorchServe", "triton": "Triton"}

Cases = tuple[Case, ...]
Way = tuple[str, str, bool]
"""Protocol, encoding, whether compressed."""

TRITON: dict[str, Way] = {
    "JSON": ("rest", "json", False),
    "JSON, gzip": ("rest", "json", True),
    "binary tensor": ("rest", "raw", False),
    "protobuf": ("grpc", "protobuf", False),
    "protobuf, gzip": ("grpc", "protobuf", True),
    "protobuf floats": ("grpc", "contents", False),
}
WAYS: dict[str, dict[str, Way]] = {
    "triton": TRITON,
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


def compared(cases: Iterable[Case], first: str = "") -> Cases:
    """``cases``, all compared with the one called ``first`` (default: their first)."""
    every = tuple(cases)
    first = first or every[0].name
    return tuple(case if case.name == first else replace(case, against=first) for case in every)


def encodings(profile: str) -> Cases:
    """Ways to write one tensor: fp32 on Triton with 16 rows (quick); everywhere and by batch (full)."""
    if profile != "full":
        chosen = itertools.islice(TRITON.items(), 2 if profile == "tiny" else 6)
        return compared(Case(name, "triton", Arm(p, e, batch=16, gzip=z)) for name, (p, e, z) in chosen)
    return tuple(
        case
        for framework, ways in WAYS.items()
        for batch in (1, 16, 256)
        for case in compared(
            Case(f"{NAMES[framework]}, {name}, {batch} rows", framework, Arm(p, e, batch=batch, gzip=z))
            for name, (p, e, z) in ways.items()
        )
    )


def client_stacks(profile: str) -> Cases:
    """The same tensor through the wire engine and through the libraries that people use, on one server."""
    ways = {
        "REST, wire": ("rest", "wire"),
        "REST, requests": ("rest", "requests"),
        "gRPC, wire": ("grpc", "wire"),
        "gRPC, grpcio": ("grpc", "grpcio"),
    }
    chosen = dict(itertools.islice(ways.items(), 2 if profile == "tiny" else 4))
    if profile != "full":
        return compared(Case(name, "triton", Arm(p, client=c)) for name, (p, c) in chosen.items())
    return tuple(
        case
        for framework, title in NAMES.items()
        for case in compared(Case(f"{title}, {name}", framework, Arm(p, client=c)) for name, (p, c) in ways.items())
    )


def hybrid(profile: str) -> Cases:
    """A REST edge in front of gRPC, with both of its bodies, beside the server's own REST and gRPC."""
    if profile == "tiny":
        return _hybrid("triton", 1, "")[2:4]
    if profile == "quick":
        return _hybrid("triton", 16, "")
    return tuple(
        case
        for framework, title in NAMES.items()
        for batch in (1, 16, 256)
        for case in _hybrid(framework, batch, f"{title}, {batch} rows, ")
    )


def _hybrid(framework: str, batch: int, prefix: str) -> Cases:
    direct = Case(f"{prefix}REST JSON", framework, Arm("rest", "json", batch=batch))
    cases = [
        direct,
        Case(f"{prefix}REST binary", framework, Arm("rest", "raw", batch=batch)),
        Case(f"{prefix}gRPC", framework, Arm("grpc", batch=batch)),
        Case(f"{prefix}edge, JSON", framework, Arm("rest", "json", batch=batch), front="edge"),
        Case(f"{prefix}edge, binary", framework, Arm("rest", "raw", batch=batch), front="edge"),
    ]
    return compared(cases[:1] + cases[2:] if framework == "tfserving" else cases)  # whose REST takes no binary body


def of_each(frameworks: Sequence[str], arms: dict[str, Arm]) -> list[Case]:
    """Every arm on every framework, named after both."""
    return [Case(f"{NAMES[f]}, {name}", f, arm) for f in frameworks for name, arm in arms.items()]
