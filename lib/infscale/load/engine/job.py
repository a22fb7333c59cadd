"""A job: everything that one engine process needs, and its requests encoded for their protocol."""

import re
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict
from urllib.parse import urlsplit

from infscale.errors import ConfigError, one_of
from infscale.load.engine.interfaces import CodecFactory, Limits, Messages, Streaming
from infscale.load.engine.wire import http1, http2, tls
from infscale.load.engine.wire.streams.http1 import StreamHttp1
from infscale.load.engine.wire.streams.http2 import StreamHttp2
from infscale.vocabulary import STREAMS

SCHEMES = ("http", "https", "h2c", "h2", "grpc", "grpcs")
"""Schemes of URLs: HTTP/1.1, HTTP/2 and gRPC, each in clear text and over TLS."""

_PORTS = {"http": 80, "https": 443, "h2": 443}
_TLS = ("https", "h2", "grpcs")


@dataclass(frozen=True)
class Target:
    """Where requests go: scheme, address and path of a URL such as ``grpc://127.0.0.1:8500/pkg.Service/Method``.

    ``socket_path`` is the path of a Unix socket, as in ``grpc://unix:/run/server.sock:/pkg.Service/Method``, or "".
    """

    scheme: str
    host: str
    port: int
    path: str
    socket_path: str = ""

    @property
    def authority(self) -> str:
        """Return ``host:port``, IPv6 in brackets; ``localhost`` for a Unix socket."""
        if self.socket_path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def grpc(self) -> bool:
        """Return whether bodies are protobuf messages to be framed for gRPC."""
        return self.scheme in ("grpc", "grpcs")

    @property
    def tls(self) -> bool:
        """Return whether the connection is encrypted."""
        return self.scheme in _TLS


def parse(url: str) -> Target:
    """Return the parts of a URL.

    Raises:
        ConfigError: an unknown scheme, or no host, port or (gRPC) method.
    """
    if not re.fullmatch(r"[!-~]+", url):
        raise ConfigError(f"url={url!r} holds a character that must be percent-encoded")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"url={url!r} is no URL: {error}") from error
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"url={url!r} has the scheme {parts.scheme!r}; accepted: {', '.join(SCHEMES)}")
    unix, path = "", parts.path
    if parts.netloc == "unix:":
        unix, _, path = parts.path.rpartition(":/")
        path = "/" + path
        if not unix:
            raise ConfigError(f"url={url!r} needs a socket and a path, as in {parts.scheme}://unix:/run/server.sock:/…")
    if "@" in parts.netloc:
        raise ConfigError("the URL holds a user name, which is not sent: give a header 'Authorization: …' instead")
    try:
        port = _PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        port = 0
    if not unix and (not parts.hostname or not port):
        raise ConfigError(f"url={url!r} needs a host and a port (1 to 65535), as in {parts.scheme}://127.0.0.1:8500/…")
    if parts.scheme in ("grpc", "grpcs") and path.count("/") != 2:
        raise ConfigError(f"url={url!r} needs a method, as in {parts.scheme}://host:port/package.Service/Method")
    query = f"?{parts.query}" if parts.query else ""
    return Target(parts.scheme, "localhost" if unix else parts.hostname or "", port, (path or "/") + query, unix)


class Greeting(TypedDict, total=False):
    """What an engine's process sends before its start: how many requests it holds, or why it cannot start."""

    ready: int
    failed: str


class Ended(TypedDict):
    """What an engine's process sends at its end, before its arrays; see :class:`infscale.records.manifest.Shard`.

    ``columns`` are type code and length of each array; ``share_by_target`` are the requests sent to each target;
    ``reasons`` are status, text and number of failed requests; ``unkept`` messages of streams have no row.
    """

    columns: dict[str, tuple[str, int]]
    cpu_user_s: float
    cpu_system_s: float
    run_delay_s: float | None
    wall_s: float
    connections_opened: int
    connections_lost: int
    retried: int
    scheduler: str
    peak_memory_bytes: int
    error: str
    limit: str
    reasons: list[tuple[str, str, int]]
    share_by_target: list[int]
    unkept: int


@dataclass(frozen=True)
class Job:
    """The work of one engine process.

    Attributes:
        url: as :func:`parse` takes it.
        bodies: the pool; request i carries body ``choice[i]``.
        schedule: int64 ns since the trial's start, ascending.
        choice: int32 indices into ``bodies``.
        limits: timeout and connections.
        headers: sent beside those that the protocol needs.
        max_streams: most requests at a time on an HTTP/2 connection; the server's own limit holds, too.
        cores: CPUs that the process may use; empty for any.
        gzip: compress the bodies (gRPC: the messages).
        ca: file of trusted certificates; "" for the system's.
        insecure: trust any certificate.
        targets: ``host:port`` of each of several servers to balance over, or of one to connect to; empty for the
            URL's own.
        pick: one of :data:`infscale.vocabulary.PICKS`, where there are several ``targets``.
        method: of HTTP requests.
        authority: ``host`` or ``host:port`` that the requests name, and whose certificate is expected; "" for that of
            a header ``host``, or the URL's own.
        certificate, key: files of the client's own certificate and its key; "" for none.
        streaming: how replies bring several messages; None for replies that are no streams.
        rows_fd: descriptor of the memory for the rows, which the process inherits; set by who starts it.
    """

    url: str
    bodies: Sequence[bytes]
    schedule: "array[int]"
    choice: "array[int]"
    limits: Limits
    headers: Mapping[str, str] = field(default_factory=dict)
    max_streams: int = 2**31
    cores: Collection[int] = ()
    gzip: bool = False
    ca: str = ""
    insecure: bool = False
    targets: Sequence[str] = ()
    pick: str = ""
    method: str = "POST"
    authority: str = ""
    certificate: str = ""
    key: str = ""
    streaming: Streaming | None = None
    rows_fd: int = -1


def check_streaming(streaming: Streaming, grpc: bool, *, gzip: bool = False) -> None:
    """Check that replies can come in messages in this way, over gRPC or not.

    Raises:
        ConfigError: the way is unknown, or that of another protocol; or ``gzip`` asks for compressed REST replies.
    """
    way = one_of("streaming", streaming.way, STREAMS)
    if (way == "grpc") != grpc:
        accepted = "grpc for gRPC" if grpc else "sse, lines and chunks for REST"
        raise ConfigError(f"streaming={way!r} is not a way of this URL's protocol; accepted: {accepted}")
    if gzip and not grpc:
        raise ConfigError("the messages of a compressed reply cannot be seen: gzip and streaming exclude each other")


def named(job: Job) -> tuple[str, dict[str, str]]:
    """Return the authority that a job's requests name, and its headers without one that names it.

    HTTP/1 sends it as ``Host``, HTTP/2 as ``:authority``: two that differ are refused by servers, as is a TLS name
    that is neither.

    Raises:
        ConfigError: the header ``host`` and ``authority`` differ, or name no host; or a key without its certificate.
    """
    headers = {name.lower(): value for name, value in job.headers.items()}
    host = headers.pop("host", "")
    if job.authority and host not in ("", job.authority):
        raise ConfigError(f"authority={job.authority!r} and the header Host: {host} differ; give one of them")
    if job.key and not job.certificate:
        raise ConfigError(f"key={job.key!r} needs the certificate that it belongs to")
    authority = job.authority or host
    if authority and not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@ ]+)(:[0-9]{1,5})?", authority):
        raise ConfigError(f"authority={authority!r}; accepted: a host name or an address, with or without :port")
    return authority or parse(job.url).authority, headers


def addressed(job: Job) -> list[Target]:
    """Return where the job's connections go: its ``targets``, or the URL's own address.

    Raises:
        ConfigError: a target is no ``host:port``.
    """
    own = parse(job.url)
    if not job.targets:
        return [own]
    return [parse(f"{own.scheme}://{target}{own.path}") for target in job.targets]


def codec_factory(job: Job, kept: Messages | None = None) -> CodecFactory:
    """Return a function that makes the codec of a new connection; the pool is encoded once.

    Args:
        job: the work.
        kept: where the messages of streams go; needed by a job whose replies are streams.

    Raises:
        OSError: a file of certificates or of the key cannot be read.
    """
    target = parse(job.url)
    plain = _http1(job, target, kept) if target.scheme in ("http", "https") else _http2(job, target, kept)
    if not target.tls:
        return plain
    alpn = "http/1.1" if target.scheme == "https" else "h2"
    context = tls.context([alpn], job.ca, insecure=job.insecure, certificate=job.certificate, key=job.key)
    host = urlsplit(f"//{named(job)[0]}").hostname or target.host
    # A server without ALPN speaks HTTP/1.1 (RFC 7301); HTTP/2 must be chosen.
    return lambda: tls.Tls(plain(), context, host, "h2" if alpn == "h2" else "")


def _accepting(job: Job, headers: dict[str, str]) -> dict[str, str]:
    """Return headers that ask for events where replies are to be such, unless they ask for something already."""
    events = job.streaming is not None and job.streaming.way == "sse" and "accept" not in headers
    return headers | {"accept": "text/event-stream"} if events else headers


def _http1(job: Job, target: Target, kept: Messages | None) -> CodecFactory:
    authority, others = named(job)
    headers = _accepting(job, {"host": authority, **others})
    if not job.limits.keep_alive:
        headers["connection"] = "close"
    wire = [http1.encode(job.method, target.path, headers, body, gzip=job.gzip) for body in job.bodies]
    if (streaming := job.streaming) is not None and kept is not None:
        return lambda: StreamHttp1(wire, streaming, kept)
    return lambda: http1.Http1(wire)


def _http2(job: Job, target: Target, kept: Messages | None) -> CodecFactory:
    authority, headers = named(job)
    where = authority, target.path, _accepting(job, headers)
    scheme = "https" if target.tls else "http"
    if target.grpc:
        requests = [http2.encode_grpc(*where, body, gzip=job.gzip, scheme=scheme) for body in job.bodies]
    else:
        requests = [http2.encode_rest(job.method, *where, body, gzip=job.gzip, scheme=scheme) for body in job.bodies]
    if (streaming := job.streaming) is not None and kept is not None:
        return lambda: StreamHttp2(requests, streaming, kept, max_streams=job.max_streams)
    return lambda: http2.Http2(requests, grpc=target.grpc, max_streams=job.max_streams)
