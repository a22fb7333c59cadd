"""The cases of every finding, by profile: at most six of them for "quick", two or three for "tiny"."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from infscale.experiment.design.case import Case
from infscale.experiment.trial import Arm
from infscale.vocabulary import FRAMEWORKS

NAMES = FRAMEWORKS

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
    return tuple(replace(case, against="" if case.name == first else first) for case in every)


def encodings(profile: str) -> Cases:
    """Ways to write one tensor: fp32 on Triton with 16 rows (quick); everywhere and by batch (full)."""
    if profile != "full":
        chosen = itertools.islice(TRITON.items(), 2 if profile == "tiny" else 6)
        return compared(Case(name, "triton", Arm(p, e, batch=16, gzip=z)) for name, (p, e, z) in chosen)
    return (*_tensors(), *_pictures(), *_versions_of_http())


BATCHES = (1, 16, 256)
MORE_BATCHES = (4, 64, 1024, 4096)
"""Only of Triton's three plain encodings: all of them everywhere would take days."""


def _tensors() -> Cases:
    """fp32 in every encoding on every framework, a block for each batch."""
    blocks = [(framework, batch, ways) for framework, ways in WAYS.items() for batch in BATCHES]
    plain = {name: TRITON[name] for name in ("JSON", "binary tensor", "protobuf")}
    blocks += [("triton", batch, plain) for batch in MORE_BATCHES]
    return tuple(
        case
        for framework, batch, ways in blocks
        for case in compared(
            Case(f"{NAMES[framework]}, {name}, {batch} rows", framework, Arm(p, e, batch=batch, gzip=z))
            for name, (p, e, z) in ways.items()
        )
    )


PICTURES: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("tfserving", "rest", "image"): ("json", "b64"),
    ("tfserving", "rest", "photo"): ("b64",),
    ("tfserving", "grpc", "image"): ("protobuf",),
    ("tfserving", "grpc", "photo"): ("protobuf",),
    ("torchserve", "rest", "image"): ("json", "raw", "npy", "b64"),
    ("torchserve", "rest", "photo"): ("raw", "b64"),
    ("torchserve", "grpc", "image"): ("raw", "json", "npy"),
    ("torchserve", "grpc", "photo"): ("raw",),
    ("triton", "rest", "image"): ("json", "raw"),
    ("triton", "rest", "photo"): ("raw",),
    ("triton", "grpc", "image"): ("protobuf",),
    ("triton", "grpc", "photo"): ("protobuf",),
}
"""Encodings in which each framework takes pictures, by framework, protocol and model."""


def _pictures() -> Cases:
    """224×224 pixels as uint8 and as a JPEG file: a block for each framework."""
    return tuple(
        case
        for framework in dict.fromkeys(framework for framework, _, _ in PICTURES)
        for case in compared(
            Case(
                f"{NAMES[framework]}, {name}, {encoding} over {protocol}",
                framework,
                Arm(protocol, encoding),
                model=model,
            )
            for model, name in (("image", "pixels"), ("photo", "JPEG"))
            for protocol in ("rest", "grpc")
            for encoding in PICTURES[framework, protocol, model]
        )
    )


def _versions_of_http() -> Cases:
    """The same bytes by REST on HTTP/1.1, by REST on HTTP/2 and by gRPC: on the servers that speak all three.

    The edge is in front of both, so that the framing alone differs.
    """
    embedded = compared(
        [
            Case("TF Serving API, HTTP/1.1", "tfserving", Arm("rest", "json", batch=16)),
            Case("TF Serving API, HTTP/2", "tfserving", Arm("rest", "json", batch=16, http="2")),
            Case("TF Serving API, gRPC", "tfserving", Arm("grpc", batch=16)),
        ]
    )
    edge = compared(
        Case(f"edge, {name}, HTTP/{http}", "triton", Arm("rest", e, batch=16, http=http), front="edge")
        for name, e in (("JSON", "json"), ("binary", "raw"))
        for http in ("1.1", "2")
    )
    return (*embedded, *edge)


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
        return compared(_hybrid("triton", 1, "")[2:4])
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


QUICK_REPEATS, FULL_REPEATS = (0.0, 0.5, 0.75), (0.0, 0.25, 0.5, 0.75, 0.95)


def caching(profile: str) -> Cases:
    """A cache in a gateway and in the server, at several fractions of requests that repeat."""
    if profile != "full":
        every = _caching("triton", "cnn", "grpc", {"gateway": QUICK_REPEATS, "in the server": (0.0, 0.75)}, "")
        return every[:2] if profile == "tiny" else every
    shares = {"gateway": FULL_REPEATS, "in the server": (0.0, 0.5, 0.95)}
    return tuple(
        case
        for model in ("noop", "mlp", "cnn")
        for protocol, title in (("rest", "REST"), ("grpc", "gRPC"))
        for case in _caching("triton", model, protocol, shares, f"{model}, {title}, ")
    )


_CACHES: dict[str, tuple[str, tuple[tuple[str, bool], ...]]] = {
    "gateway": ("cache", ()),
    "gateway with Redis": ("cache-redis", ()),
    "in the server": ("", (("cache", True),)),
}
"""Front and options of a deployment, by where the cache is."""


def _caching(framework: str, model: str, protocol: str, shares: dict[str, tuple[float, ...]], prefix: str) -> Cases:
    def case(name: str, where: str, **alike: Any) -> Case:
        front, options = _CACHES[where]
        return Case(f"{prefix}{name}", framework, Arm(protocol, **alike), front=front, options=options, model=model)

    cases = [Case(f"{prefix}no cache", framework, Arm(protocol, repeat=0.0), model=model)]
    cases += [case(f"{where}, {r:.0%} repeat", where, repeat=r) for where, repeats in shares.items() for r in repeats]
    if prefix:
        cases.append(case("gateway, Zipf 1", "gateway", zipf=1.0))
        cases.append(case("gateway with Redis, 95% repeat", "gateway with Redis", repeat=0.95))
    return compared(cases)


def utilisation(profile: str) -> Cases:
    """Protocols at several rates: what they cost the machine."""
    arms = {"JSON": Arm("rest", "json"), "binary": Arm("rest", "raw"), "gRPC": Arm("grpc")}
    some = {"JSON": arms["JSON"], "gRPC": arms["gRPC"]}
    if profile == "tiny":
        return compared(_of_each(["triton"], some))
    frameworks = ["triton", "torchserve"] if profile == "quick" else list(NAMES)
    return tuple(
        case
        for name in frameworks
        for case in compared(
            _of_each([name], some if (name, profile) == ("torchserve", "quick") else _taken(name, arms))
        )
    )


def _short(framework: str, profile: str) -> bool:
    return framework == "torchserve" and profile == "quick"


def porting(profile: str) -> Cases:
    """The same weights on every framework, a block for each protocol and model."""
    frameworks = list(NAMES) if profile != "tiny" else ["torchserve", "triton"]
    if profile != "full":
        arms = {"REST": Arm("rest"), "gRPC": Arm("grpc")} if profile == "quick" else {"gRPC": Arm("grpc")}
        return tuple(c for name, arm in arms.items() for c in compared(_of_each(frameworks, {name: arm})))
    return tuple(
        replace(case, name=f"{model}, {case.name}", model=model, against=case.against and f"{model}, {case.against}")
        for model in ("noop", "mlp", "cnn")
        for name, arm in (("REST", Arm("rest")), ("gRPC", Arm("grpc")))
        for case in compared(_of_each(frameworks, {name: arm}))
    )


def load_balancing(profile: str) -> Cases:
    """Two replicas behind balancers, by connections; more replicas, balancers and protocols in full."""
    one = _replicated("1 replica", 1, "none", Arm("grpc"))
    l4 = [_replicated(f"2, L4, {_count(c)}", 2, "envoy-l4", Arm("grpc", connections=c)) for c in (1, 8)]
    if profile == "tiny":
        return compared([one, l4[0]])
    if profile == "quick":
        l7 = _replicated("2, L7 in turn, 1 connection", 2, "envoy-round-robin", Arm("grpc", connections=1))
        client = _replicated("2, client, power of two", 2, "client", Arm("grpc", pick="power_of_two"))
        slow = _replicated("2, one slow, L7 least requests", 2, "envoy-least-request", Arm("grpc"), slow_ms=20)
        return compared([one, *l4, l7, client, slow])
    return tuple(
        case
        for protocol, title in (("rest", "REST"), ("grpc", "gRPC"))
        for case in compared(replace(case, name=f"{title}, {case.name}") for case in _balanced(protocol))
    )


BALANCERS = {
    "L4": ("envoy-l4", ""),
    "L7 in turn": ("envoy-round-robin", ""),
    "L7 least requests": ("envoy-least-request", ""),
    "nginx": ("nginx", ""),
    "client in turn": ("client", "round_robin"),
    "client, power of two": ("client", "power_of_two"),
}
"""A balancer of :mod:`infscale.deployment.fronts.replicas` and the client's own choice, by name."""


def _balanced(protocol: str) -> list[Case]:
    cases = [_replicated("1 replica", 1, "none", Arm(protocol))]
    for name, (balancer, pick) in BALANCERS.items():
        cases += [_replicated(f"{n}, {name}", n, balancer, Arm(protocol, pick=pick)) for n in (2, 4)]
        arm = Arm(protocol, pick=pick)
        cases.append(_replicated(f"2, one slow, {name}", 2, balancer, arm, slow_ms=20))
    for name in ("L4", "L7 in turn"):
        balancer = BALANCERS[name][0]
        cases.append(_replicated(f"2, {name}, 1 connection", 2, balancer, Arm(protocol, connections=1)))
        cases.append(_replicated(f"2, {name}, one a request", 2, balancer, Arm(protocol, reuse=False)))
    return cases


def _replicated(name: str, replicas: int, balancer: str, arm: Arm, slow_ms: float = 0) -> Case:
    options: dict[str, Any] = {"replicas": replicas, "balancer": balancer}
    options |= {"slow_ms": slow_ms} if slow_ms else {}
    return Case(name, "triton", arm, front="balanced", options=tuple(options.items()), model="cnn")


def _count(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


def network(profile: str) -> Cases:
    """JSON and protobuf over links and TLS, a block for each link."""
    arms = {"JSON": Arm("rest", "json", batch=16), "gRPC": Arm("grpc", batch=16)}
    links: dict[str, dict[str, Any]] = {"loopback": {}, "100 Mb/s": {"rate_mbit": 100}, "TLS": {"tls": True}}
    if profile == "tiny":
        links = {"100 Mb/s": links["100 Mb/s"]}
    if profile == "full":
        arms["binary"] = Arm("rest", "raw", batch=16)
        links |= {
            "link without a limit": {"linked": True},
            "1 Gb/s": {"rate_mbit": 1000},
            "100 Mb/s, 20 ms": {"rate_mbit": 100, "delay_ms": 20},
            "100 Mb/s, TLS": {"rate_mbit": 100, "tls": True},
        }
    fronts = [(link, "network", tuple(options.items())) for link, options in links.items()]
    if profile == "full":  # the hop that TLS takes, without TLS
        fronts.append(("loopback, one hop", "balanced", (("replicas", 1), ("balancer", "envoy-l4"))))
    return tuple(
        case
        for link, front, options in fronts
        for case in compared(
            Case(f"{link}, {name}", "triton", arm, front=front, options=options) for name, arm in arms.items()
        )
    )


def _of_each(frameworks: Sequence[str], arms: dict[str, Arm]) -> list[Case]:
    """Every arm on every framework, named after both."""
    return [Case(f"{NAMES[f]}, {name}", f, arm) for f in frameworks for name, arm in arms.items()]


def _taken(framework: str, arms: dict[str, Arm]) -> dict[str, Arm]:
    """The arms whose encoding ``framework`` takes: TensorFlow Serving's REST takes no binary body."""
    return {name: arm for name, arm in arms.items() if framework != "tfserving" or arm.encoding != "raw"}
