"""Gateways in front of a server: a REST edge that asks it over gRPC, or a cache for both protocols."""

import contextlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from infscale.deployment.client import UnansweredError, fetch
from infscale.deployment.endpoint import Endpoint, answers
from infscale.deployment.framework import FRAMEWORKS
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import free_ports
from infscale.deployment.processes.process import Process, serving
from infscale.errors import ConfigError, DeploymentError, MissingError, one_of
from infscale.payloads import codecs
from infscale.payloads.encoders import JSON, OCTETS, Encoder, Interface
from infscale.servers.gateway.settings import Settings, Stats

MODES = ("edge", "cache")
"""What a gateway can be."""
START_TIMEOUT_S = 30.0
"""Longest time that a gateway may take to start, seconds."""

_PATH = "/v1/models/{model}:predict"
EDGE = Interface(
    "edge",
    {
        "rest": {
            "json": Encoder(_PATH, JSON, codecs.instances, codecs.predictions),
            "raw": Encoder(_PATH, OCTETS, codecs.raw, codecs.from_raw),
        }
    },
    http=("1.1", "2"),
    gzip=(),
)
"""The requests that an edge takes."""


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
    """Put a gateway in front of ``upstream`` and yield the gateway's endpoint.

    Mode "edge" takes REST (``POST /v1/models/MODEL:predict`` with ``{"instances": …}``, or with raw little-endian
    fp32 rows as application/octet-stream) and asks the server over gRPC.

    Mode "cache" passes both protocols on, and answers a request that it has seen from ``store``: "memory"
    (``capacity_bytes`` of keys and values; the least recently used goes first), or ``redis://host:port/db``, whose
    capacity is Redis's own ``maxmemory``. An answer lives ``ttl_s`` seconds. With ``by_version`` the model's version,
    as last read from the server, is a part of the key. ``timeout_s`` is the longest wait for the server.

    Raises:
        ConfigError: an unknown mode or store, a number without meaning, Redis does not answer, or an edge in front
            of a server without gRPC or of a model of the user's own.
        MissingError: pyvoy or redis-py is not installed.
        DeploymentError: nothing answers at the server's address, or the gateway did not start.
    """
    _check(upstream, mode, store, {"capacity_bytes": capacity_bytes, "ttl_s": ttl_s, "timeout_s": timeout_s})
    (port,) = free_ports(1)
    settings = Settings(
        port,
        mode,
        implementation=upstream.implementation,
        model=upstream.model,
        rest=upstream.rest,
        grpc=upstream.grpc,
        management=upstream.management,
        store=store,
        capacity_bytes=capacity_bytes,
        ttl_s=ttl_s,
        by_version=by_version,
        timeout_s=timeout_s,
    )
    settings = _edge_settings(settings, upstream) if mode == "edge" else _cache_settings(settings, upstream)
    with (
        working_folder("gw") as run,
        serving(
            [sys.executable, "-m", "infscale.servers.gateway", settings.to_json()],
            what=f"the gateway (mode {mode})",
            log=(log_folder or run) / f"gateway-{mode}.log",
            ports=[port],
            ready=lambda process: _answers(_endpoint(upstream, mode, port, process), mode),
            timeout_s=START_TIMEOUT_S,
            env={"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            remove=[run],
            pid_log=pid_log,
        ) as process,
    ):
        yield _endpoint(upstream, mode, port, process)


def _edge_settings(settings: Settings, upstream: Endpoint) -> Settings:
    encoder = next(iter(upstream.interface.encoders["grpc"].values()))
    return replace(settings, call=encoder.path, encode=_name(encoder.encode), decode=_name(encoder.decode))


def _name(function: Callable[..., object]) -> str:
    """Return a function as ``module:name``, by which the gateway's process imports it."""
    return f"{function.__module__}:{function.__qualname__}"


def _cache_settings(settings: Settings, upstream: Endpoint) -> Settings:
    encoders = upstream.interface.encoders
    paths = {encoder.path for encoder in encoders.get("rest", {}).values()}
    known = "|".join(re.escape(path).replace(re.escape("{model}"), "[^/]+") for path in sorted(paths))
    calls = tuple({encoder.path for encoder in encoders.get("grpc", {}).values()})
    framework = FRAMEWORKS.get(upstream.framework)
    predictions, versions = (framework.predictions, framework.versions) if framework else ("", None)
    return replace(settings, predictions=predictions or known, calls=calls, versions=versions)


def _answers(endpoint: Endpoint, mode: str) -> bool:
    """Return whether the gateway is ready. A cache would keep a prediction, so that it is asked for its counts."""
    if mode == "edge":
        return answers(endpoint)
    try:
        return bool(stats(endpoint))
    except DeploymentError:
        return False


def _check(upstream: Endpoint, mode: str, store: str, numbers: Mapping[str, float]) -> None:
    one_of("mode", mode, MODES)
    for name, value in numbers.items():
        if not 0 < value < float("inf"):
            raise ConfigError(f"{name}={value} has no meaning here; accepted: a number above 0")
    for package in ("pyvoy", "aiohttp", "orjson"):
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"a gateway needs {package!r}: pip install 'infscale[servers]'")
    if upstream.tls:
        raise ConfigError(f"{upstream.label} is encrypted ({', '.join(upstream.tls)}); accepted: a server without TLS")
    if upstream.headers:
        names = ", ".join(upstream.headers)
        raise ConfigError(f"{upstream.label} is asked with headers ({names}); accepted: a server that needs none")
    if mode == "edge":
        _check_edge(upstream)
    else:
        check_store(store)
    try:
        if not answers(upstream):
            raise UnansweredError("a request failed")
    except UnansweredError as error:
        raise DeploymentError(f"the gateway's server, {upstream.label}, does not answer: {error.reason}") from error


def _check_edge(upstream: Endpoint) -> None:
    if not upstream.grpc:
        raise ConfigError(f"mode='edge': {upstream.label} has no gRPC address, and an edge asks over gRPC")
    if not upstream.interface.encoders.get("grpc"):
        raise ConfigError(f"mode='edge': framework={upstream.framework!r} has no gRPC encoding")
    if upstream.own is not None:
        raise ConfigError(f"mode='edge': {upstream.model!r} is a model of your own; accepted: reference models")


def check_store(store: str) -> None:
    """Check that ``store`` can be used now.

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

    def processes() -> list[psutil.Process]:
        """List both; none once either has ended, since a cache would hide the loss of its server."""
        gateway, server = process.tree(), upstream.processes()  # an attached server has no processes here
        return [*gateway, *server] if gateway and (server or not upstream.command) else []

    endpoint = replace(
        upstream,
        command=(*process.command, "--", *upstream.command),
        processes=processes,
        ready_s=process.ready_s,
        members=(upstream,),
        log_tail=lambda: f"{process.log_tail()}\n{upstream.log_tail()}".strip(),
        parts={"gateway": process.tree, **(upstream.parts or {"server": upstream.processes})},
    )
    if mode == "edge":
        return replace(
            endpoint,
            label=f"REST edge → {upstream.label}",
            implementation=f"edge-{upstream.implementation}",
            framework="edge",
            interface=EDGE,
            rest=address,
            grpc="",
            http=EDGE.http,
            cache=dict,
        )
    return replace(
        endpoint,
        label=f"cache → {upstream.label}",
        implementation=f"{upstream.implementation}+cache",
        rest=address if upstream.rest else "",
        grpc=address if upstream.grpc else "",
        cache=lambda: _cache_counts(address),
    )


def _cache_counts(address: str) -> dict[str, float]:
    try:
        counts = _ask(address, "GET", "/gateway/stats")
    except DeploymentError:
        return {}
    names = ("hits", "misses", "store_errors", "bytes")
    return {name: float(value) for name, value in counts.items() if name in names and isinstance(value, int) and value}


def stats(endpoint: Endpoint) -> Stats:
    """Return what a gateway has counted since its start, or since :func:`clear`.

    Raises:
        DeploymentError: it does not answer, or is no gateway.
    """
    return _ask(_address(endpoint), "GET", "/gateway/stats")


def refresh(endpoint: Endpoint) -> Stats:
    """Let a cache read the model's version again, and return its :func:`stats`.

    Raises:
        DeploymentError: the gateway or the server behind it does not answer.
    """
    return _ask(_address(endpoint), "POST", "/gateway/refresh")


def clear(endpoint: Endpoint) -> Stats:
    """Empty a cache, set its counters to 0, and return its :func:`stats`. In Redis the entries of all gateways go.

    Raises:
        DeploymentError: it does not answer, or Redis does not.
    """
    return _ask(_address(endpoint), "DELETE", "/gateway/cache")


def _address(endpoint: Endpoint) -> str:
    return endpoint.rest or endpoint.grpc  # one port takes both protocols


def _ask(address: str, method: str, path: str) -> Stats:
    try:
        counts: Stats = json.loads(fetch(address, method, path, timeout_s=10))
    except ValueError as error:
        raise DeploymentError(f"{address} does not answer as a gateway: {error}") from error
    return counts
