"""Labels of arms, made here alone and for display: no program reads a label. Programs select by factors."""

from collections.abc import Callable, Sequence

from infscale.experiment.design.arm import EVERY_CLIENT, FACTORS, Arm
from infscale.vocabulary import FRAMEWORK_NAMES, NAMES, OTHER

ENCODINGS = {
    "json": "JSON",
    "b64": "base64 in JSON",
    "raw": "binary",
    "npy": "npy",
    "protobuf": "protobuf",
    "contents": "protobuf floats",
    "float_val": "protobuf floats",
    "jpeg": "JPEG",
    "sse": "server-sent events",
    "chunks": "chunks",
    "lines": "lines",
    "grpc": "messages",
}
"""How encodings are shown; others are shown by their own names."""

BALANCERS = {
    "none": "",
    "envoy-l4": "L4",
    "envoy-round-robin": "L7 in turn",
    "envoy-least-request": "L7 least requests",
    "nginx": "nginx",
}
"""How balancers are shown."""

PICKED = {"": "client", "round_robin": "client in turn", "power_of_two": "client, power of two"}
"""How a client is shown that chooses among replicas itself."""

EMBEDDED = "embedded"
"""What names of implementations contain if the server is this project's own, and what labels say then."""


def labels(arms: Sequence[Arm], implementations: Sequence[str] = ()) -> list[str]:
    """Return a label for each arm, of the factors that tell it apart from others of those shown with it.

    Arms that differ have different labels.

    Args:
        arms: all arms that are shown together, shape (n,).
        implementations: what really answered each arm, shape (n,); an embedded server is named as one in its label.
    """
    parts: list[tuple[str, ...]] = [() for _ in arms]
    for describe in DESCRIPTIONS:
        names = [describe(arm) for arm in arms]
        alternatives: dict[tuple[str, ...], set[str]] = {}  # of arms whose labels are equal so far
        for part, name in zip(parts, names, strict=True):
            alternatives.setdefault(part, set()).add(name)
        parts = [
            (*part, name) if len(alternatives[part]) > 1 or describe in ALWAYS else part
            for part, name in zip(parts, names, strict=True)
        ]
    texts = [", ".join(filter(None, part)) or NAMES[arm.protocol] for part, arm in zip(parts, arms, strict=True)]
    return [
        _with_embedded(text, implementation)
        for text, implementation in zip(_distinct(texts, arms), implementations or [""] * len(arms), strict=True)
    ]


def _distinct(texts: Sequence[str], arms: Sequence[Arm]) -> list[str]:
    """Make equal labels distinct: add the levels in which their arms differ, as in "batch=16".

    This is for factors that no entry of :data:`DESCRIPTIONS` describes.
    """
    alike: dict[str, list[Arm]] = {}
    for text, arm in zip(texts, arms, strict=True):
        alike.setdefault(text, []).append(arm)
    differing = {
        text: [name for name in FACTORS if len({getattr(arm, name) for arm in same}) > 1]
        for text, same in alike.items()
    }
    return [
        ", ".join([text, *(f"{name}={getattr(arm, name)!r}" for name in differing[text])])
        for text, arm in zip(texts, arms, strict=True)
    ]


def _with_embedded(label: str, implementation: str) -> str:
    return f"{label} ({EMBEDDED})" if EMBEDDED in implementation else label


def framework(arm: Arm) -> str:
    """Return the name of the arm's framework as it is shown."""
    return FRAMEWORK_NAMES.get(arm.framework, arm.framework)


def where_cached(arm: Arm) -> str:
    """Return where answers are cached, as it is shown."""
    if arm.front == "cache":
        return "gateway with Redis" if arm.store == "redis" else "gateway"
    return "in the server" if arm.cache else "no cache"


def front(arm: Arm) -> str:
    """Return what stands before the server, if it is an edge or a buffering proxy."""
    return {"edge": "edge", "buffered": "buffering proxy"}.get(arm.front, "")


def balancer(arm: Arm) -> str:
    """Return what shares the requests among replicas, as it is shown; "" for one server alone."""
    if arm.balancer == "client":
        return PICKED[arm.pick]
    return BALANCERS.get(arm.balancer, arm.balancer)


def link(arm: Arm) -> str:
    """Return the network between client and server, as it is shown."""
    if arm.front == "balanced" and arm.replicas == 1 and arm.balancer != "none":
        return "loopback, one hop"
    if not (arm.linked or arm.rate_mbit or arm.delay_ms):
        return "loopback"
    limit = arm.rate_mbit or 0.0
    rate = f"{limit / 1000:g} Gb/s" if limit >= 1000 else f"{limit:g} Mb/s"
    delay = f"{arm.delay_ms:g} ms" if arm.delay_ms else ""
    return ", ".join(filter(None, (rate if limit else "link without a limit", delay)))


def protocol(arm: Arm) -> str:
    """Return the protocol as it is shown, with REST's HTTP version where it is not 1.1."""
    return f"{NAMES[arm.protocol]} on HTTP/2" if arm.http == "2" else NAMES[arm.protocol]


def encoding(arm: Arm) -> str:
    """Return the encoding as it is shown."""
    return ENCODINGS.get(arm.encoding, arm.encoding)


def slow(arm: Arm) -> str:
    """Return by how much one replica is simulated to be slower, if one is."""
    return f"one simulated slower by {arm.slow_ms:g} ms" if arm.slow_ms else ""


def message_size(arm: Arm) -> str:
    """Return the size of a stream's messages: "32 B", "4 kB"; "" where it is not known."""
    if not arm.message_bytes:
        return ""
    return f"{arm.message_bytes} B" if arm.message_bytes < 1000 else f"{arm.message_bytes / 1000:g} kB"


def interval(arm: Arm) -> str:
    """Return how far apart a stream's messages are sent, if they are."""
    return f"{arm.interval_ms:g} ms apart" if arm.interval_ms else ""


def own_speed(arm: Arm) -> str:
    """Return that a stream comes as fast as its server can send: its gaps are the backend's, not the protocol's."""
    known = arm.streams and arm.framework not in ("", OTHER)
    return "at the backend's own speed" if known and not arm.interval_ms else ""


def connections(arm: Arm) -> str:
    """Return the number of connections, or of Locust's users, if it is not the default."""
    if not arm.reuse:
        return "one connection a request"
    noun = "user" if EVERY_CLIENT[arm.client].tool in ("locust", "guidellm") else "connection"
    return count(arm.connections, noun) if arm.connections else ""


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


DESCRIPTIONS: tuple[Callable[[Arm], str], ...] = (
    lambda arm: arm.model,
    framework,
    front,
    where_cached,
    lambda arm: count(arm.replicas, "replica"),
    balancer,
    slow,
    link,
    lambda arm: "TLS" if arm.tls else "",
    lambda arm: arm.options_text,
    protocol,
    encoding,
    lambda arm: count(arm.messages, "message") if arm.messages else "",
    message_size,
    interval,
    own_speed,
    lambda arm: "gzip" if arm.gzip else "",
    lambda arm: count(arm.batch, "row"),
    lambda arm: arm.client,
    connections,
    lambda arm: f"{100 * arm.repeat:g} % repeats" if arm.repeat is not None else "",
    lambda arm: f"Zipf {arm.zipf:g}" if arm.zipf is not None else "",
)
"""The parts of a label in their order, each from one factor or a few that belong together."""

ALWAYS = (slow, interval, own_speed, connections)
"""Descriptions that are part of a label even where all arms have the same: a reader must always see a simulated delay,
how far apart messages are sent, or that gaps between them are the backend's own, and a number of connections that is
not the default."""
