"""How many answers are the old model's after a model is swapped behind a warm cache."""

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from infscale.deployment import tfserving
from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint, predict
from infscale.deployment.fronts import gateway
from infscale.deployment.processes.folder import working_folder
from infscale.errors import DeploymentError
from infscale.models.export import export
from infscale.models.reference import inputs

ASKED = 16
PATIENCE_S = 60.0


def measure(**where: Any) -> dict[str, dict[str, int]]:
    """Answers from the cache after the server began to serve a new version, by what the gateway knew of it.

    ``where`` are ``log_folder`` and ``pid_log``. The server is TensorFlow Serving (the real one where there is one).
    An answer from the cache is the old version's: the cache was filled before the swap.

    Raises:
        DeploymentError: a server did not start, or did not load the new version.
    """
    found = {}
    for by_version in (True, False):
        with _swapped(by_version, where) as front:
            if by_version:
                found["as long as the gateway did not read the version again"] = _stale(front)
            gateway.refresh(front)
            name = "once it had read it" if by_version else "where the key holds no version"
            found[name] = _stale(front)
    return found


@contextlib.contextmanager
def _swapped(by_version: bool, where: dict[str, Any]) -> Any:
    """A gateway whose cache was warm when the server behind it took a new version."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(working_folder("swap"))
        base = Path(shutil.copytree(export("mlp", "savedmodel"), folder / "mlp"))
        (old,) = (path for path in base.iterdir() if path.name.isdigit())
        server = stack.enter_context(tfserving.deploy("mlp", base_path=base, **where))
        front = stack.enter_context(gateway.serve(server, mode="cache", by_version=by_version, **where))
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
    return {"stale": int(gateway.stats(front)["hits"] - before), "asked": ASKED}


def _await(server: Endpoint, version: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        states = json.loads(fetch(server.rest, "GET", "/v1/models/mlp", timeout_s=5))["model_version_status"]
        if any(state["version"] == version and state["state"] == "AVAILABLE" for state in states):
            return
        time.sleep(0.1)
    raise DeploymentError(f"{server.label} did not load version {version}", server.log_tail())
