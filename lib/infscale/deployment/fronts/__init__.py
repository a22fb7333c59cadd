"""Fronts: programs and links that are put between the load engine and a server.

A front is a REST edge, a cache, a balancer before replicas, a network link, or a proxy that buffers. The factor
``front`` of an arm names it.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.fronts import buffer, gateway, link, replicas
from infscale.deployment.fronts.redis import redis_server
from infscale.payloads.encoders import Interface


@dataclass(frozen=True)
class Front:
    """One kind of front.

    Attributes:
        start: called as :func:`infscale.deployment.deploy`; yields the endpoint that is loaded.
        interface: what it takes as requests; None where that is the framework's own affair.
    """

    start: Callable[..., AbstractContextManager[Endpoint]]
    interface: Interface | None = None


@contextlib.contextmanager
def _edge(
    framework: str, model: str, *, log_folder: Path | None = None, pid_log: Path | None = None, **options: Any
) -> Iterator[Endpoint]:
    """Start a server and a REST edge that asks it over gRPC."""
    with (
        deploy(framework, model, log_folder=log_folder, pid_log=pid_log, **options) as upstream,
        gateway.serve(upstream, mode="edge", log_folder=log_folder, pid_log=pid_log) as edge,
    ):
        yield edge


@contextlib.contextmanager
def _cache(
    framework: str,
    model: str,
    *,
    store: str = "memory",
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    **options: Any,
) -> Iterator[Endpoint]:
    """Start a server and a gateway that answers from its cache."""
    with (
        deploy(framework, model, log_folder=log_folder, pid_log=pid_log, **options) as upstream,
        gateway.serve(upstream, mode="cache", store=store, log_folder=log_folder, pid_log=pid_log) as cache,
    ):
        yield cache


@contextlib.contextmanager
def _cache_redis(
    framework: str, model: str, *, log_folder: Path | None = None, pid_log: Path | None = None, **options: Any
) -> Iterator[Endpoint]:
    """Start a Redis, a server, and a gateway that keeps its answers in the Redis."""
    with (
        redis_server(log_folder=log_folder, pid_log=pid_log) as url,
        _cache(framework, model, store=url, log_folder=log_folder, pid_log=pid_log, **options) as cache,
    ):
        yield cache


@contextlib.contextmanager
def _network(
    framework: str,
    model: str,
    *,
    linked: bool = False,
    rate_mbit: float | None = None,
    delay_ms: float = 0,
    **options: Any,
) -> Iterator[Endpoint]:
    """Start a server behind a link, if ``linked``, a rate or a delay asks for one, and behind TLS, if ``tls`` does."""
    shaped = link.Link(rate_mbit, delay_ms) if linked or rate_mbit or delay_ms else None
    with link.deploy(framework, model, link=shaped, **options) as endpoint:
        yield endpoint


@contextlib.contextmanager
def _balanced(framework: str, model: str, *, slow_ms: float = 0, **options: Any) -> Iterator[Endpoint]:
    """Start replicas behind a balancer; with ``slow_ms`` the first of them answers so much later."""
    slow = replicas.Slow(replica=1, delay_ms=slow_ms) if slow_ms else None
    with replicas.deploy(framework, model, slow=slow, **options) as endpoint:
        yield endpoint


FRONTS: dict[str, Front] = {
    "edge": Front(_edge, gateway.EDGE),
    "cache": Front(_cache),
    "cache-redis": Front(_cache_redis),
    "balanced": Front(_balanced),
    "network": Front(_network),
    "buffered": Front(buffer.deploy),
}
"""Name → front. The names are the levels of the factor ``front``, and "cache-redis" for a cache that keeps its answers
in Redis (``front="cache"``, ``store="redis"``)."""
