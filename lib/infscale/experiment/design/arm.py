"""Arms: combinations of factor levels. An arm says what is deployed, and how it is asked."""

import math
from dataclasses import dataclass

import msgspec

from infscale.display import Shown, Summary
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.types import check_types
from infscale.vocabulary import CONNECTIONS, HTTP, OTHER, PICKS, PROTOCOLS

FRONT_LEVELS = ("", "edge", "cache", "balanced", "network", "buffered")
"""What stands between the load and a server: nothing; a REST edge that asks over gRPC; a caching gateway; a balancer
before replicas; a network link or TLS; a proxy that buffers (options: ``hold_ms``, ``hold_bytes``)."""

STREAM_MODEL = "stream"
"""The reference model that answers with streams of messages (:mod:`infscale.models.stream`)."""

STORES = ("", "memory", "redis")
"""Where a caching gateway keeps answers."""


@dataclass(frozen=True)
class Client:
    """What a client can drive, and how.

    Attributes:
        protocols: those that it speaks.
        closed: whether it is a closed loop: a request waits for the answer of an earlier one, so that a slow server is
            asked less. It has no schedule of arrivals, and no arrival rate that it could fail to keep up with.
        tool: the load tool that it is a part of: "locust", "loadgen"; "" for none.
        rated: whether λ sets how many requests it sends: what is sent of the nominal rate is judged then.
        counted: whether that number is known before, so that repeats can be planned.
        at_once: whether all requests are scheduled at the start: each waits for those before it.
    """

    protocols: tuple[str, ...] = PROTOCOLS
    closed: bool = False
    tool: str = ""
    rated: bool = True
    counted: bool = True
    at_once: bool = False


CLIENTS = {
    "wire": Client(),
    "requests": Client(("rest",)),
    "grpcio": Client(("grpc",)),
    "locust": Client(closed=True, tool="locust", counted=False),
    "locust-poisson": Client(closed=True, tool="locust", counted=False),
    "loadgen-single": Client(closed=True, tool="loadgen", rated=False, counted=False),
    "loadgen-server": Client(tool="loadgen"),
    "loadgen-offline": Client(closed=True, tool="loadgen", at_once=True),
}
"""The load engine ("wire"), client libraries, and load tools: users of Locust, paced evenly or with its exponential
wait; MLPerf LoadGen's scenarios SingleStream (one request after the other), Server (Poisson arrivals) and Offline (all
requests at once)."""


Level = str | int | float | bool
"""The level of a factor."""

IMPORTED = {
    "guidellm": Client(("rest",), tool="guidellm"),
    "guidellm-users": Client(("rest",), closed=True, tool="guidellm", rated=False, counted=False),
    "k6": Client(("rest",), closed=True, tool="k6", rated=False, counted=False),
}
"""Load tools whose result files are read (:mod:`infscale.records.imported`) and that make no load here: guidellm's
schedules (constant, poisson) and its users (synchronous, concurrent, throughput); k6, whose files do not say when a
request was scheduled."""

EVERY_CLIENT = CLIENTS | IMPORTED
"""What may have sent the requests of a stored trial."""


class Arm(msgspec.Struct, Shown, frozen=True, forbid_unknown_fields=True):
    """A combination of factor levels. Every field is a factor, and a column of every table.

    The client's factors say how requests are made and sent; the deployment's say what answers them. Arms with equal
    deployment factors are measured on one running server.

    Attributes:
        protocol: "rest" or "grpc".
        encoding: how a tensor becomes bytes; "" takes the framework's own form (JSON over REST, tensors over gRPC).
        connections: most connections at a time; 0 takes :data:`infscale.vocabulary.CONNECTIONS`. A user of Locust is a
            connection: so many users are started.
        batch: rows in one request.
        gzip: whether request bodies are compressed.
        client: what sends the requests, see :data:`EVERY_CLIENT`.
        repeat: fraction of requests that repeat an earlier one; None draws from a pool of distinct bodies.
        zipf: exponent of the popularity of requests by Zipf's law; None for no such law.
        http: REST's HTTP version, "1.1" or "2" (in clear text by prior knowledge, RFC 9113 3.3; over TLS by ALPN).
        pick: how the client chooses among replicas, see :data:`infscale.vocabulary.PICKS`; "" leaves it to a balancer.
        reuse: whether connections are kept; False opens one for each request.
        messages: how many messages a reply brings, which is a stream then; 0 for any number, of an endpoint that is
            known by its address alone; None for replies that are no streams. The way in which they come follows from
            the server and the protocol, and is the ``encoding``.
        message_bytes: size of a message, bytes; 0 where it is not known.
        interval_ms: time between the messages as the server sends them, ms; 0 for as fast as it can.
        framework: the serving system; "" where an endpoint is given.
        model: the name of a reference model.
        front: see :data:`FRONT_LEVELS`.
        store: the caching gateway's store, see :data:`STORES`.
        cache: whether the server's own response cache is on.
        replicas: how many servers stand behind the balancer.
        balancer: what shares requests among replicas; "none" for one server alone.
        slow_ms: milliseconds by which the first replica is simulated to answer later.
        rate_mbit: limit of the network link, Mb/s; None for no limit.
        delay_ms: delay that the network link adds to a round trip, ms; half of it in each direction.
        linked: whether a network link is used although it has neither limit nor delay.
        tls: whether the connection is encrypted.
        options: further options of the deployment, as names and values.

    Raises:
        ConfigError: a level is unknown, or two levels exclude each other.
    """

    protocol: str
    encoding: str = ""
    connections: int = 0
    batch: int = 1
    gzip: bool = False
    client: str = "wire"
    repeat: float | None = None
    zipf: float | None = None
    http: str = "1.1"
    pick: str = ""
    reuse: bool = True
    messages: int | None = None
    message_bytes: int = 0
    interval_ms: float = 0.0
    framework: str = ""
    model: str = "mlp"
    front: str = ""
    store: str = ""
    cache: bool = False
    replicas: int = 1
    balancer: str = "none"
    slow_ms: float = 0.0
    rate_mbit: float | None = None
    delay_ms: float = 0.0
    linked: bool = False
    tls: bool = False
    options: tuple[tuple[str, Level], ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        one_of("protocol", self.protocol, PROTOCOLS)
        known = IMPORTED if self.client in IMPORTED else CLIENTS
        one_of("client", self.client, [name for name, one in known.items() if self.protocol in one.protocols])
        one_of("pick", self.pick, ("", *PICKS))
        one_of("http", self.http, HTTP)
        one_of("front", self.front, FRONT_LEVELS)
        one_of("store", self.store, STORES)
        if self.connections < 0:
            raise ConfigError(f"connections={self.connections} is not a number of connections; accepted: 1 or more")
        if self.batch < 1:
            raise ConfigError(f"batch={self.batch} is not a number of rows; accepted: 1 or more")
        _check_similarity(self)
        _check_client(self)
        _check_streams(self)
        _check_deployment(self)

    def limit(self) -> int:
        """Return the most connections at a time, with the default put in."""
        return self.connections or CONNECTIONS["grpc" if self.http == "2" else self.protocol]

    @property
    def closed(self) -> bool:
        """Whether the arm is a closed loop; see :class:`Client`."""
        return EVERY_CLIENT[self.client].closed

    @property
    def streams(self) -> bool:
        """Whether replies are streams of messages."""
        return self.messages is not None

    @property
    def stream_s(self) -> float:
        """Return how long a reply takes by its messages and their interval, s; 0 where that is not known."""
        return (self.messages or 0) * self.interval_ms / 1e3

    @property
    def sending(self) -> tuple[object, ...]:
        """Return what decides how much a client can send, whatever the server."""
        return self.protocol, self.client, self.connections

    @property
    def deployment(self) -> tuple[object, ...]:
        """Return the levels of the deployment's factors: equal for arms that one running server can answer."""
        return tuple(getattr(self, name) for name in DEPLOYMENT_FACTORS)

    def levels(self) -> dict[str, Level | None]:
        """Return every factor with its level, as columns of a table hold them (options as one text)."""
        return {**msgspec.structs.asdict(self), "options": self.options_text}

    def summary(self) -> Summary:
        """Return the factors that are not at their default, in a table."""
        usual = {field.name: field.default for field in msgspec.structs.fields(self)}
        chosen = ((name, level) for name, level in self.levels().items() if level != usual[name] and level != "")
        return Summary("Arm", tuple((name.replace("_", " "), str(level)) for name, level in chosen))

    @property
    def options_text(self) -> str:
        """Return the further options of the deployment as one text, such as "threads=2 fast=True"."""
        return " ".join(f"{name}={level}" for name, level in self.options)


FACTORS = Arm.__struct_fields__
"""The names of all factors, in the order of tables."""

STREAM_FACTORS = ("messages", "message_bytes", "interval_ms")
"""The factors that say what a stream brings."""

DEPLOYMENT_FACTORS = FACTORS[FACTORS.index("framework") :]
"""The factors that say what is deployed."""


def _check_similarity(arm: Arm) -> None:
    if arm.repeat is not None and arm.zipf is not None:
        raise ConfigError(f"repeat={arm.repeat} and zipf={arm.zipf} exclude each other")
    if arm.repeat is not None and not 0 <= arm.repeat <= 1:
        raise ConfigError(f"repeat={arm.repeat} is not a fraction; accepted: 0 to 1")
    if arm.zipf is not None and not 0 < arm.zipf < 10:
        raise ConfigError(f"zipf={arm.zipf} is not an exponent; accepted: above 0, below 10")
    if arm.batch > 1 and (arm.repeat, arm.zipf) != (None, None):
        raise ConfigError(f"batch={arm.batch}: repeat and zipf need batch=1")


def _check_client(arm: Arm) -> None:
    if arm.client != "wire" and (arm.pick or not arm.reuse):
        raise ConfigError(f"client={arm.client!r} supports neither pick nor reuse=False; use client='wire'")
    if arm.http == "2" and arm.protocol == "grpc":
        raise ConfigError("http='2' is for REST; gRPC is always on HTTP/2: leave it out")
    if arm.client != "wire" and (arm.gzip or arm.http != "1.1"):
        lacking = "neither gzip nor HTTP/2" if arm.protocol == "rest" else "no gzip"
        raise ConfigError(f"client={arm.client!r} supports {lacking}; use client='wire'")
    if not EVERY_CLIENT[arm.client].counted and (arm.repeat, arm.zipf) != (None, None):
        raise ConfigError(
            f"client={arm.client!r} supports neither repeat nor zipf: how many requests it sends is not known before; "
            "use client='wire'"
        )


def _check_streams(arm: Arm) -> None:
    known = arm.framework not in ("", OTHER)
    if known and (arm.model == STREAM_MODEL) != arm.streams:
        what = "sends one reply and no stream" if arm.streams else "answers with streams"
        accepted = f"model={STREAM_MODEL!r}" if arm.streams else "the number of its messages, such as messages=20"
        raise ConfigError(f"messages={arm.messages}: model={arm.model!r} {what}; accepted: {accepted}")
    if not arm.message_bytes >= 0 or not 0 <= arm.interval_ms < math.inf:
        raise ConfigError(
            f"message_bytes={arm.message_bytes}, interval_ms={arm.interval_ms}: accepted: 0 or more of both"
        )
    if not arm.streams:
        if arm.message_bytes or arm.interval_ms:
            raise ConfigError("message_bytes and interval_ms are of streams; give messages, such as messages=20")
        return
    if arm.messages is not None and arm.messages < known:
        raise ConfigError(f"messages={arm.messages} is not a number of messages; accepted: {int(known)} or more")
    if arm.client != "wire":
        kind = "load tool" if EVERY_CLIENT[arm.client].tool else "client library"
        raise ConfigError(
            f"client={arm.client!r}: a {kind} times whole replies and no messages; accepted for streams: client='wire'"
        )
    if (
        arm.batch > 1
        or arm.gzip
        or (arm.repeat, arm.zipf) != (None, None)
        or arm.cache
        or arm.front in ("edge", "cache")
    ):
        raise ConfigError(
            f"messages={arm.messages}: streams have no batch, gzip, repeat, zipf or cache, and neither an edge nor a "
            "caching gateway before them"
        )


def _check_deployment(arm: Arm) -> None:
    if arm.replicas < 1:
        raise ConfigError(f"replicas={arm.replicas} is not a number of servers; accepted: 1 or more")
    for name in ("slow_ms", "delay_ms"):
        if not 0 <= getattr(arm, name) < math.inf:
            raise ConfigError(f"{name}={getattr(arm, name)} is not a delay; accepted: 0 ms or more")
    if arm.rate_mbit is not None and not 0 < arm.rate_mbit < math.inf:
        raise ConfigError(f"rate_mbit={arm.rate_mbit} is not a rate; accepted: above 0 Mb/s, or None for no limit")
    for name, level in arm.options:
        if isinstance(level, float) and not math.isfinite(level):
            raise ConfigError(f"options: {name}={level} is not a finite number")
    if arm.store and arm.front != "cache":
        raise ConfigError(f"store={arm.store!r} belongs to front='cache', not to front={arm.front!r}")
    if arm.front != "balanced" and (arm.replicas, arm.balancer, arm.slow_ms) != (1, "none", 0):
        raise ConfigError(f"replicas, balancer and slow_ms belong to front='balanced', not to front={arm.front!r}")
    if arm.front != "network" and (arm.rate_mbit, arm.delay_ms, arm.linked, arm.tls) != (None, 0, False, False):
        raise ConfigError(f"rate_mbit, delay_ms, linked and tls belong to front='network', not to front={arm.front!r}")
