"""Shared servers: each framework is deployed once for the tests that only talk to it."""

import signal
from collections.abc import Iterator

import pytest

from infscale import deployment as servers
from infscale.deployment.endpoint import Endpoint
from infscale.vocabulary import FRAMEWORKS

# A background job of a shell ignores Ctrl-C, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=FRAMEWORKS)
def endpoint(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    """Each framework's endpoint in turn, serving ``mlp``."""
    with servers.deploy(request.param, "mlp") as deployed:
        yield deployed
