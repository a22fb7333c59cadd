"""What can stand between the load and a server, by the name that a case of a finding calls it."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from infscale.servers import deploy
from infscale.servers.endpoint import Endpoint

Front = Callable[..., AbstractContextManager[Endpoint]]
"""As :func:`infscale.servers.deploy`: framework, model, and options; yields the endpoint that is loaded."""


@contextlib.contextmanager
def _edge(framework: str, model: str, **options: Any) -> Iterator[Endpoint]:
    """A REST edge that speaks gRPC to the server."""
    from infscale import gateway

    with deploy(framework, model, **options) as upstream, gateway.serve(upstream, mode="edge", **_own(options)) as edge:
        yield edge


def _own(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("log_folder", "pid_log")}


FRONTS: dict[str, Front] = {"edge": _edge}
