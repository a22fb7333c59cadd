"""Which versions are served: the base path is polled, the newest version wins, a request names what it wants."""

import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from infscale.tfserving.errors import Code, StatusError, invalid
from infscale.tfserving.servable import Servable
from infscale.tfserving.versions import versions_at

LOAD_ATTEMPTS = 5


@dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus tells of one version: a state of the real server and, for END, why."""

    state: str
    code: Code = Code.OK
    message: str = ""


@dataclass
class Model:
    """One model by name: the version being served and the history of the others."""

    name: str
    base: Path
    load: Callable[[str, int, Path], Servable] = Servable
    serving: dict[int, Servable] = field(default_factory=dict)
    states: dict[int, VersionStatus] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)

    def start(self) -> None:
        """Serve the newest version that loads."""
        found = versions_at(self.base)
        for version in sorted(found, reverse=True):
            if self._adopt(version, found[version]):
                return

    def poll(self) -> None:
        """Adopt the newest version at the base path; the one before serves until that is loaded.

        An empty base path changes nothing: a model that answers is worth more than a missing folder. A version that
        fails to load is tried a few times, because it may still be being copied.
        """
        found = versions_at(self.base)
        usable = [version for version in found if self._failures.get(version, 0) < LOAD_ATTEMPTS]
        if usable and max(usable) not in self.serving:
            self._adopt(max(usable), found[max(usable)])

    def _adopt(self, version: int, path: Path) -> bool:
        servable = self._load(version, path)
        if servable is None:
            return False
        retired = [other for other in self.serving if other != version]
        self.serving = {version: servable}
        self.states |= {other: VersionStatus("END") for other in retired}
        return True

    def _load(self, version: int, path: Path) -> Servable | None:
        self.states[version] = VersionStatus("LOADING")
        try:
            servable = self.load(self.name, version, path)
        except Exception as error:  # whatever a broken model raises, the server goes on with the one it has
            self._failures[version] = self._failures.get(version, 0) + 1
            self.states[version] = VersionStatus("END", Code.UNKNOWN, str(error))
            reason = traceback.format_exception_only(error)[-1].strip()
            print(f"Loading {self.name} version {version} from {path} failed: {reason}", file=sys.stderr, flush=True)
            return None
        self.states[version] = VersionStatus("AVAILABLE")
        return servable


class Models:
    """Every model of the server, safe to read from any thread while one thread polls."""

    def __init__(self, models: list[Model]) -> None:
        self._models = {model.name: model for model in models}

    def start(self) -> list[Model]:
        """Load every model; return those of which no version could be."""
        for model in self._models.values():
            model.start()
        return [model for model in self._models.values() if not model.serving]

    def poll_every(self, seconds: float) -> None:
        """Go on looking, in a thread that ends with the process."""
        clock = threading.Event()

        def run() -> None:
            while not clock.wait(seconds):
                for model in self._models.values():
                    try:
                        model.poll()
                    except OSError as error:  # a folder that cannot be read now may be readable later
                        print(f"Looking for versions of {model.name}: {error}", file=sys.stderr, flush=True)

        threading.Thread(target=run, name="poll", daemon=True).start()

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """Return the servable a request names: by version, or the newest.

        Raises:
            StatusError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND otherwise.
        """
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label:
            raise invalid(f"Unrecognized servable version label: {label}")
        model = self._models.get(name)
        serving = model.serving if model is not None else {}
        if version is None:
            if serving:
                return serving[max(serving)]
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
        if version in serving:
            return serving[version]
        raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")

    def status(self, name: str, version: int | None = None) -> dict[int, VersionStatus]:
        """Return the state of one version or of all that were ever seen, newest first.

        Raises:
            StatusError: NOT_FOUND.
        """
        model = self._models.get(name)
        states = dict(model.states) if model is not None else {}
        if version is not None:
            if version not in states:
                raise StatusError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
            return {version: states[version]}
        if not states:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return dict(sorted(states.items(), reverse=True))
