"""What can stand between the load and a server, by the name that a case of a finding calls it."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint

Front = Callable[..., AbstractContextManager[Endpoint]]
"""As :func:`infscale.deployment.deploy`: framework, model, and options; yields the endpoint that is loaded."""


@contextlib.contextmanager
def _edge(framework: str, model: str, **options: Any) -> Iterator[Endpoint]:
    """A REST edge that speaks gRPC to the server."""
    from infscale.deployment.fronts import gateway

    with deploy(framework, model, **options) as upstream, gateway.serve(upstream, mode="edge", **_own(options)) as edge:
        yield edge


@contextlib.contextmanager
def _cache(framework: str, model: str, *, store: str = "memory", **options: Any) -> Iterator[Endpoint]:
    """A gateway that answers from its cache."""
    from infscale.deployment.fronts import gateway

    given = {"mode": "cache", "store": store, **_own(options)}
    with deploy(framework, model, **options) as upstream, gateway.serve(upstream, **given) as cached:
        yield cached


@contextlib.contextmanager
def _cache_redis(framework: str, model: str, **options: Any) -> Iterator[Endpoint]:
    """The same with a Redis server that is started for it."""
    from infscale.deployment.fronts.redis import redis_server

    with redis_server(**_own(options)) as url, _cache(framework, model, store=url, **options) as cached:
        yield cached


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
    """A link of its own, where it is asked for, or a rate or a delay is given; TLS, where asked for."""
    from infscale.deployment.fronts import link as network

    link = network.Link(rate_mbit, delay_ms) if linked or rate_mbit or delay_ms else None
    with network.deploy(framework, model, link=link, **options) as endpoint:
        yield endpoint


@contextlib.contextmanager
def _balanced(framework: str, model: str, *, slow_ms: float = 0, **options: Any) -> Iterator[Endpoint]:
    """Replicas behind a balancer; with ``slow_ms`` the first of them answers so much later."""
    from infscale.deployment.fronts import replicas as balancing

    slow = {"replica": 1, "delay_ms": slow_ms} if slow_ms else None
    with balancing.deploy(framework, model, slow=slow, **options) as endpoint:
        yield endpoint


def _own(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("log_folder", "pid_log")}


FRONTS: dict[str, Front] = {
    "edge": _edge,
    "cache": _cache,
    "cache-redis": _cache_redis,
    "balanced": _balanced,
    "network": _network,
}
