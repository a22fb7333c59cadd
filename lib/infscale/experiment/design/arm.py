"""An arm: one combination of the factors' levels, as far as they are the client's."""

from dataclasses import dataclass

from infscale.errors import ConfigError, one_of
from infscale.payloads import similarity
from infscale.vocabulary import CONNECTIONS, HTTP, PICKS, PROTOCOLS


@dataclass(frozen=True)
class Arm:
    """A combination of factor levels; empty ``encoding`` and 0 ``connections`` take F0's; ``gzip`` compresses.

    ``repeat`` is the fraction of requests that repeat, ``zipf`` the exponent of their popularity
    (:mod:`infscale.payloads.similarity`); without either, requests are drawn from a pool of 256.
    ``http`` is REST's version: "1.1", or "2" (in clear text by prior knowledge, RFC 9113 3.3; over TLS by ALPN).
    ``pick`` is how the client chooses among the endpoint's replicas ("": the first takes all); without ``reuse`` every
    request has a connection of its own.
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

    def __post_init__(self) -> None:
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("client", self.client, {"rest": ("wire", "requests"), "grpc": ("wire", "grpcio")}[self.protocol])
        one_of("pick", self.pick, ("", *PICKS))
        if self.client != "wire" and (self.pick or not self.reuse):
            raise ConfigError(f"client={self.client!r} neither picks replicas nor renews connections; accepted: wire")
        if self.connections < 0:
            raise ConfigError(f"connections={self.connections} is not a number of connections; accepted: 1 or more")
        similarity.check(self.repeat, self.zipf)
        if self.batch > 1 and (self.repeat, self.zipf) != (None, None):
            raise ConfigError(f"batch={self.batch}: requests repeat, or are popular, one row at a time")
        one_of("http", self.http, HTTP)
        if self.http == "2" and self.protocol == "grpc":
            raise ConfigError("http='2' is for REST; gRPC is always on HTTP/2: leave it out")
        if self.client != "wire" and (self.gzip or self.http != "1.1"):
            raise ConfigError(
                f"client={self.client!r} sends no gzip and speaks no HTTP version but its own; "
                f"accepted with gzip={self.gzip} and http={self.http!r}: wire"
            )

    def key(self) -> str:
        """A name for files: the protocol, and what differs from F0."""
        parts = [self.protocol, self.encoding, f"c{self.connections}" if self.connections else ""]
        parts += [f"b{self.batch}" if self.batch > 1 else "", "gzip" if self.gzip else ""]
        parts += [self.client if self.client != "wire" else "", "h2" if self.http == "2" else ""]
        parts += [f"repeat{self.repeat:g}" if self.repeat is not None else ""]
        parts += [f"zipf{self.zipf:g}" if self.zipf is not None else ""]
        parts += [self.pick.replace("_", "-"), "" if self.reuse else "fresh"]
        return "-".join(part for part in parts if part)

    def limit(self) -> int:
        """Most connections at a time."""
        return self.connections or CONNECTIONS["grpc" if self.http == "2" else self.protocol]
