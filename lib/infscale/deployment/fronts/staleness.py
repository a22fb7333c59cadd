"""Count the answers of the old model after a new one has replaced it behind a warm cache."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from infscale.deployment import tfserving
from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint, predict
from infscale.deployment.fronts import gateway
from infscale.deployment.processes.folder import working_folder
from infscale.errors import DeploymentError
from infscale.models.reference import inputs

UNNOTICED = "before the gateway had noticed the new version"
NOTICED = "after the gateway had noticed the new version"
UNVERSIONED = "when the model version is not part of the cache key"
"""When answers were counted, as a sentence of the report ends."""

ASKED = 16
"""Number of predictions that are asked for, before and after the swap."""
PATIENCE_S = 60.0
"""Longest time that the server may take to load the new version, seconds."""


def measure(*, log_folder: Path | None = None, pid_log: Path | None = None) -> dict[str, dict[str, int]]:
    """Return how many answers were stale after the server began to serve a new version, by what the gateway knew of it.

    The server is TensorFlow Serving (the real one where there is one). An answer from the cache is the old version's,
    because the cache was filled before the swap.

    Raises:
        DeploymentError: a server did not start, or did not load the new version.
    """
    counts = {}
    with _swapped(True, log_folder, pid_log) as front:
        counts[UNNOTICED] = _stale(front)
        gateway.refresh(front)
        counts[NOTICED] = _stale(front)
    with _swapped(False, log_folder, pid_log) as front:
        gateway.refresh(front)
        counts[UNVERSIONED] = _stale(front)
    return counts


@contextlib.contextmanager
def _swapped(by_version: bool, log_folder: Path | None, pid_log: Path | None) -> Iterator[Endpoint]:
    """Yield a gateway whose cache was warm when the server behind it took a new version."""
    with working_folder("swap") as folder:
        base = Path(shutil.copytree(tfserving.export("mlp"), folder / "mlp"))
        (old,) = (path for path in base.iterdir() if path.name.isdigit())
        with (
            tfserving.deploy("mlp", artifact=base, log_folder=log_folder, pid_log=pid_log) as server,
            gateway.serve(server, mode="cache", by_version=by_version, log_folder=log_folder, pid_log=pid_log) as front,
        ):
            _ask(front)
            new = str(int(old.name) + 1)
            shutil.copytree(old, folder / "copying")
            (folder / "copying").rename(base / new)  # at once, as the server may look at any time
            _await(server, new)
            yield front


def _ask(front: Endpoint) -> None:
    for row in inputs("mlp", ASKED):
        predict(front, "grpc", row[None])


def _stale(front: Endpoint) -> dict[str, int]:
    before = gateway.stats(front)["hits"]
    _ask(front)
    return {"stale": gateway.stats(front)["hits"] - before, "asked": ASKED}


def _await(server: Endpoint, version: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        states = json.loads(fetch(server.rest, "GET", "/v1/models/mlp", timeout_s=5))["model_version_status"]
        if any(state["version"] == version and state["state"] == "AVAILABLE" for state in states):
            return
        time.sleep(0.1)
    raise DeploymentError(f"{server.label} did not load version {version}", server.log_tail())
