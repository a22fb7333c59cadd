"""Shared servers: each framework is deployed once for the tests that only talk to it. And the marker ``server``."""

import contextlib
import functools
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from helpers.sample import remove_drawn
from helpers.watch import sitecustomize as watch
from infscale import deployment as servers
from infscale.deployment.endpoint import Endpoint
from infscale.vocabulary import FRAMEWORK_NAMES

# A background job of a shell ignores Ctrl-C, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine must not fail an example that only took long, to run or to draw.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def server_process() -> None:
    """Ask for this in every fixture that starts a server process: tests that use it get the marker ``server``."""


@pytest.fixture(autouse=True)
def beside_other_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trials be VALID although other tests use the CPU beside them; those of foreign processes want to see it."""
    if request.path.name != "test_foreign.py":
        monkeypatch.setattr("infscale.records.gates.generator.FOREIGN_MAX", 100.0)


@pytest.fixture(scope="session")
def deployed(server_process: None) -> Iterator[Callable[[str], Endpoint]]:
    """Return a framework's endpoint, which serves ``mlp``: started when first asked for, and shared since then."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda framework: stack.enter_context(servers.deploy(framework, "mlp")))


@pytest.fixture(params=FRAMEWORK_NAMES)
def endpoint(request: pytest.FixtureRequest, deployed: Callable[[str], Endpoint]) -> Endpoint:
    """Return each framework's shared endpoint in turn."""
    return deployed(request.param)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove what was drawn of the sample, when the last worker has ended."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        remove_drawn(str(getattr(session.config, "_infscale_run", os.getpid())))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Note by which name the workers of this run know one another."""
    node.config._infscale_run = node.workerinput["testrunuid"]


# --- the marker ``server`` ---

sys.addaudithook(watch.note)


LONGEST = ("test_whole_findings.py", "test_notebooks.py", "test_kills.py", "test_faults.py", "test_compare.py")
"""Modules that take minutes, because they measure on real servers; the longest first."""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a fixture which starts a server, and put the longest modules first.

    Processes get whole modules, so that servers are shared: a long one that comes last would keep one of them busy
    alone.
    """
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    for item in items:
        if "server_process" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch what a test without the marker starts, also in its fixtures and in its Python children."""
    if item.get_closest_marker("server"):
        return (yield)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = (str(Path(watch.__file__).parent), os.environ.get("PYTHONPATH", ""))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        patch.setenv(watch.NOTES, f"{folder}/started")
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test without the marker that has started a server."""
    result = yield
    notes = Path(os.environ.get(watch.NOTES, ""))
    if not item.get_closest_marker("server") and notes.is_file():
        started = ", ".join(sorted(set(notes.read_text().splitlines())))
        pytest.fail(f"starts {started}: it needs the marker pytest.mark.server", pytrace=False)
    return result
