"""Shared servers: each framework is deployed once for the tests that only talk to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infscale import servers
from infscale.servers.endpoint import Endpoint

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", params=servers.FRAMEWORKS)
def endpoint(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    """Each framework's endpoint in turn, serving ``mlp``."""
    with servers.deploy(request.param, "mlp") as deployed:
        yield deployed
