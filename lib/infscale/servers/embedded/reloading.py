"""Looking for changes of the models' folders and of the configuration file while the server runs."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from infscale.servers.asgi.status import StatusError
from infscale.servers.embedded import config
from infscale.servers.embedded.flags import Settings
from infscale.servers.embedded.runtime import metrics
from infscale.servers.embedded.runtime.metrics import Metrics
from infscale.servers.embedded.runtime.models import Load, Models
from infscale.servers.embedded.runtime.servable import Servable


def watch(settings: Settings, models: Models) -> None:
    """Start threads that look for versions, and for a new configuration, as often as the flags say."""
    if settings.file_system_poll_wait_seconds > 0:
        _every(settings.file_system_poll_wait_seconds, "versions", models.poll)
    if settings.model_config_file and settings.model_config_file_poll_wait_seconds > 0:
        seconds = settings.model_config_file_poll_wait_seconds
        _every(seconds, "config", lambda: models.reload(config.models_of(settings)))


def _every(seconds: float, name: str, look: Callable[[], None]) -> None:
    clock = threading.Event()

    def run() -> None:
        last = ""
        while not clock.wait(seconds):
            try:
                look()
                last = ""
            except StatusError as error:  # what is served stays; the error is printed once, not every second
                if str(error) != last:
                    print(f"Looking for changes ({name}): {error}", file=sys.stderr, flush=True)
                last = str(error)

    threading.Thread(target=run, name=f"poll-{name}", daemon=True).start()


def loader(counted: Metrics | None) -> Load:
    """Return the function that loads a version; it counts loads in ``counted`` if that is given."""
    if counted is None:
        return Servable

    def load(name: str, version: int, path: Path) -> Servable:
        started = time.perf_counter()
        try:
            servable = Servable(name, version, path)
        except Exception:
            counted.count(metrics.LOADS, str(path), "fail")
            raise
        counted.count(metrics.LOADS, str(path), "success")
        counted.count(metrics.LOAD_LATENCY, str(path), by=(time.perf_counter() - started) * 1e6)
        return servable

    return load
