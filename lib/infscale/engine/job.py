"""A job: everything one engine process needs, and the wire form of its requests."""

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from infscale.engine import http1, http2
from infscale.engine.loop import Codec, Limits
from infscale.errors import ConfigError

SCHEMES = ("http", "h2c", "grpc")


@dataclass(frozen=True)
class Target:
    """Where requests go: scheme, address and path of a URL such as ``grpc://127.0.0.1:8500/pkg.Service/Method``."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """``host:port``, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(url: str) -> Target:
    """Take a URL apart.

    Raises:
        ConfigError: unknown scheme, or no host, port or (gRPC) method.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"url={url!r} has the scheme {parts.scheme!r}; accepted: {', '.join(SCHEMES)}")
    try:
        port = parts.port or {"http": 80}.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if not parts.hostname or not port:
        raise ConfigError(f"url={url!r} needs a host and a port (1 to 65535), as in {parts.scheme}://127.0.0.1:8500/…")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "grpc" and parts.path.count("/") != 2:
        raise ConfigError(f"url={url!r} needs a method, as in grpc://host:port/package.Service/Method")
    return Target(parts.scheme, parts.hostname, port, path or "/")


@dataclass(frozen=True)
class Job:
    """One engine process's work.

    Attributes:
        url: see :func:`parse`.
        bodies: the pool; ``choice[i]`` says which one request i carries.
        schedule: int64 ns since the trial's start, ascending.
        choice: int32 indices into ``bodies``.
        limits: timeouts and connections.
        headers: beside those that the protocol needs.
        max_streams: most streams on an HTTP/2 connection (the server's own limit holds beside it).
        cores: CPU affinity of the process; empty leaves it alone.
    """

    url: str
    bodies: Sequence[bytes]
    schedule: "array[int]"
    choice: "array[int]"
    limits: Limits
    headers: Mapping[str, str] = field(default_factory=dict)
    max_streams: int = 2**31
    cores: Collection[int] = ()


def codec_factory(job: Job) -> Callable[[], Codec]:
    """A function that makes the codec of a new connection; the pool is encoded once."""
    target = parse(job.url)
    if target.scheme == "http":
        headers = {"host": target.authority, **job.headers}
        if not job.limits.keep_alive:
            headers["connection"] = "close"
        wire = [http1.encode("POST", target.path, headers, body) for body in job.bodies]
        return lambda: http1.Http1(wire)
    grpc = target.scheme == "grpc"
    if grpc:
        requests = [http2.encode_grpc(target.authority, target.path, job.headers, body) for body in job.bodies]
    else:
        requests = [http2.encode_rest("POST", target.authority, target.path, job.headers, body) for body in job.bodies]
    return lambda: http2.Http2(requests, grpc=grpc, max_streams=job.max_streams)
