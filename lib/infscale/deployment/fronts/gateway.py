"""Gateways as supervised processes in front of an endpoint."""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint, answers
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import free_ports
from infscale.deployment.processes.process import Process, wait_ready
from infscale.errors import ConfigError, DeploymentError, MissingError, one_of
from infscale.payloads import encoders as payloads
from infscale.servers.gateway.settings import Settings

MODES = ("edge", "cache")
START_TIMEOUT_S = 30.0
_OF_THE_SERVER = ("framework", "implementation", "model", "rest", "grpc", "management")


@contextlib.contextmanager
def serve(
    upstream: Endpoint,
    *,
    mode: str,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    store: str = "memory",
    capacity_bytes: int = 256 << 20,
    ttl_s: float = 3600.0,
    by_version: bool = True,
    timeout_s: float = 30.0,
) -> Iterator[Endpoint]:
    """Put a gateway in front of ``upstream``; a context manager that yields the gateway's endpoint.

    Mode "edge" takes REST (``POST /v1/models/MODEL:predict`` with ``{"instances": …}``, or with raw little-endian
    fp32 rows as application/octet-stream) and asks the server over gRPC.

    Mode "cache" passes both protocols on and answers a request that it has seen from ``store``: "memory"
    (``capacity_bytes`` of keys and values, the least recently used goes first), or ``redis://host:port/db``, whose
    capacity is Redis's own ``maxmemory``. An answer lives ``ttl_s`` seconds. ``by_version`` makes the model's version,
    as last read from the server, part of the key. ``timeout_s`` is the longest wait for the server.

    Raises:
        ConfigError: an unknown mode or store, a number without meaning, Redis does not answer, or an edge in front
            of a server without gRPC or of a model of the user's own.
        MissingError: pyvoy or redis-py is not installed.
        DeploymentError: nothing answers at the server's address, or the gateway did not start.
    """
    _check(upstream, mode, store, {"capacity_bytes": capacity_bytes, "ttl_s": ttl_s, "timeout_s": timeout_s})
    (port,) = free_ports(1)
    server = {key: getattr(upstream, key) for key in _OF_THE_SERVER}
    kept: dict[str, Any] = {"capacity_bytes": capacity_bytes, "ttl_s": ttl_s, "by_version": by_version}
    settings = Settings(port, mode, **server, store=store, **kept, timeout_s=timeout_s)
    command = [sys.executable, "-m", "infscale.servers.gateway", settings.to_json()]
    with working_folder("gw") as run:
        log = (log_folder or run) / f"gateway-{mode}.log"
        env = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        with Process(command, log=log, env=env, remove=[run], pid_log=pid_log) as process:
            endpoint = _endpoint(upstream, mode, port, process)

            def ready() -> bool:
                return process.owns_port(port) and _answers(endpoint, mode)

            seconds = wait_ready(process, ready, what=endpoint.label, timeout_s=START_TIMEOUT_S)
            yield replace(endpoint, ready_s=seconds)


def _answers(endpoint: Endpoint, mode: str) -> bool:
    """Whether the gateway is ready. A prediction would be kept by a cache: that one has asked the server itself."""
    if mode == "edge":
        return answers(endpoint)
    try:
        return bool(stats(endpoint))
    except DeploymentError:
        return False


def _check(upstream: Endpoint, mode: str, store: str, numbers: dict[str, float]) -> None:
    one_of("mode", mode, MODES)
    for name, value in numbers.items():
        if not 0 < value < float("inf"):
            raise ConfigError(f"{name}={value} has no meaning here; accepted: a number above 0")
    for package in ("pyvoy", "aiohttp", "orjson"):
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"a gateway needs {package!r}: pip install 'infscale[servers]'")
    if upstream.tls:
        raise ConfigError(f"{upstream.label} is encrypted ({', '.join(upstream.tls)}); accepted: a server without TLS")
    if mode == "edge":
        _check_edge(upstream)
    else:
        check_store(store)
    if not answers(upstream):
        addresses = " and ".join(f"{protocol} {upstream.address(protocol)}" for protocol in upstream.protocols())
        raise DeploymentError(f"the gateway's server, {upstream.label}, does not answer at {addresses}")


def _check_edge(upstream: Endpoint) -> None:
    if not upstream.grpc:
        raise ConfigError(f"mode='edge': {upstream.label} has no gRPC address, and an edge asks over gRPC")
    if not payloads.ENCODERS.get((upstream.framework, "grpc")):
        raise ConfigError(f"mode='edge': framework={upstream.framework!r} has no gRPC encoding")
    if upstream.own is not None:
        raise ConfigError(f"mode='edge': {upstream.model!r} is a model of your own; accepted: reference models")


def check_store(store: str) -> None:
    """Whether ``store`` can be used now.

    Raises:
        ConfigError: neither "memory" nor the URL of a Redis that answers.
        MissingError: redis-py is not installed.
    """
    if store == "memory":
        return
    if not store.startswith("redis://"):
        raise ConfigError(f"store={store!r} is not known; accepted: memory, redis://host:port/db")
    try:
        import redis
    except ImportError:
        raise MissingError("store='redis://…' needs 'redis': pip install 'infscale[servers]'") from None
    try:
        with redis.Redis.from_url(store, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        raise ConfigError(f"store={store!r}: no Redis answers there ({error}); start one, or use memory") from error


def _endpoint(upstream: Endpoint, mode: str, port: int, process: Process) -> Endpoint:
    address = f"127.0.0.1:{port}"
    parts: dict[str, Callable[[], list[psutil.Process]]] = {"gateway": process.tree}

    def living() -> list[psutil.Process]:
        """None if either has ended: an answer from a cache would hide that the server has. (Attached, it has none.)"""
        own, served = process.tree(), upstream.processes()
        return [*own, *served] if own and (served or not upstream.command) else []

    given: dict[str, Any] = {
        "command": (*process.command, "--", *upstream.command),
        "processes": living,
        "members": (upstream,),
        "log_tail": lambda: f"{process.log_tail()}\n{upstream.log_tail()}".strip(),
        "parts": {**parts, **(upstream.parts or {"server": upstream.processes})},
    }
    if mode == "edge":
        label, implementation = f"REST edge → {upstream.label}", f"edge-{upstream.implementation}"
        given |= {"framework": "edge", "rest": address, "grpc": "", "http": ("1.1", "2")}
    else:
        label, implementation = f"cache → {upstream.label}", f"{upstream.implementation}+cache"
        given |= dict.fromkeys(upstream.protocols(), address)
    return replace(upstream, label=label, implementation=implementation, **given)


def _own_address(endpoint: Endpoint) -> str:
    return endpoint.rest or endpoint.grpc  # one port takes both protocols


def stats(endpoint: Endpoint) -> dict[str, Any]:
    """What a gateway has counted since its start, or since :func:`clear`.

    Of a cache: ``hits, misses, stored, evicted, expired, bytes, entries, store_errors, upstream_errors`` and the
    model's ``version`` in the keys; with Redis ``evicted, expired, bytes, entries`` are Redis's own, of all its users,
    and None while it does not answer. Of an edge: ``requests, refused, upstream_errors``.

    Raises:
        DeploymentError: it does not answer, or is no gateway.
    """
    return _ask(endpoint, "GET", "/gateway/stats")


def refresh(endpoint: Endpoint) -> dict[str, Any]:
    """Let a cache read the model's version again; returns its :func:`stats`.

    Raises:
        DeploymentError: the gateway or the server behind it does not answer.
    """
    return _ask(endpoint, "POST", "/gateway/refresh")


def clear(endpoint: Endpoint) -> dict[str, Any]:
    """Empty a cache and set its counters to 0; returns its :func:`stats`. In Redis all gateways' entries go.

    Raises:
        DeploymentError: it does not answer, or Redis does not.
    """
    return _ask(endpoint, "DELETE", "/gateway/cache")


def _ask(endpoint: Endpoint, method: str, path: str) -> dict[str, Any]:
    try:
        return dict(json.loads(fetch(_own_address(endpoint), method, path, timeout_s=10)))
    except ValueError as error:
        raise DeploymentError(f"{endpoint.label} does not answer as a gateway: {error}") from error
