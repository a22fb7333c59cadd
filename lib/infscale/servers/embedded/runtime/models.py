"""Which versions of which models are served: a model's base path and policy decide.

Requests never wait for changes: they read dictionaries that are replaced as a whole. A version that is no longer served
is only removed from them; requests that run on it hold it, and with the last of them its memory is freed.
"""

import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from infscale.servers.asgi.status import Code, StatusError, invalid
from infscale.servers.embedded import config, versions
from infscale.servers.embedded.runtime.servable import Servable

LOAD_ATTEMPTS = 5
"""Number of attempts to load a version that fails."""

Load = Callable[[str, int, Path], Servable]


@dataclass(frozen=True)
class VersionStatus:
    """The answer of GetModelStatus for one version: a state of the real server and, for END, the reason."""

    state: str
    code: Code = Code.OK
    message: str = ""


@dataclass
class Model:
    """One model: the versions that are served, and the states of all versions that were ever seen."""

    name: str
    load: Load
    base: Path = Path()
    policy: Any = None
    serving: dict[int, Servable] = field(default_factory=dict)
    states: dict[int, VersionStatus] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _retired: list[weakref.ref[Servable]] = field(default_factory=list)
    _reported: object = None

    def update(self) -> None:
        """Serve what the policy asks for: new versions first, so that some version always answers.

        A version that fails to load is tried a few times, because it may still be being copied.

        Raises:
            OSError: the base path cannot be read now; what is served stays.
        """
        folders = versions.versions_at(self.base)
        present = {v: path for v, path in folders.items() if v in self.serving or versions.has_model(path)}
        wanted = versions.chosen(self.policy, present)
        if wanted != self._reported:
            versions.report_missing(self.name, self.base, self.policy, wanted)
            self._reported = wanted
        self._failures = {v: count for v, count in self._failures.items() if v in folders}
        for version in sorted(wanted - self.serving.keys(), reverse=True):
            if self._failures.get(version, 0) < LOAD_ATTEMPTS:
                self._adopt(version, present[version])
        if not wanted or wanted & self.serving.keys():
            self.retire(self.serving.keys() - wanted)

    def retire(self, old: set[int]) -> None:
        """Stop serving some versions, and free the memory of those on which no request runs."""
        gone = [self.serving[version] for version in old]
        self.serving = {version: servable for version, servable in self.serving.items() if version not in old}
        self.states |= dict.fromkeys(old, VersionStatus("END"))
        self._retired += [weakref.ref(servable) for servable in gone]
        del gone
        if self._retired:  # TensorFlow's graphs and sessions hold one another: reference counts do not free them
            gc.collect()
            self._retired = [reference for reference in self._retired if reference() is not None]

    def _adopt(self, version: int, path: Path) -> None:
        self.states[version] = VersionStatus("LOADING")
        try:
            servable = self.load(self.name, version, path)
        except Exception as error:  # whatever a broken model raises, the server goes on with the ones it has
            self._failures[version] = self._failures.get(version, 0) + 1
            self.states[version] = VersionStatus("END", _code_of(error), str(error))
            reason = traceback.format_exception_only(error)[-1].strip()
            print(f"Loading {self.name} version {version} from {path} failed: {reason}", file=sys.stderr, flush=True)
            return
        self.serving = {**self.serving, version: servable}
        self.states[version] = VersionStatus("AVAILABLE")

    def why_not(self) -> str:
        """Return why no version of this model is served, as a part of the real server's error text."""
        failed = {version: state for version, state in self.states.items() if state.code != Code.OK}
        each = [
            f"{{{{name: {self.name} version: {version}}} due to error: {state.code.name}: {state.message}}}, "
            for version, state in failed.items()
        ]
        return "".join(each) or f"{{{{name: {self.name}}} due to error: no version of it at {self.base}}}, "


def _code_of(error: Exception) -> Code:
    code = getattr(error, "error_code", Code.UNKNOWN)  # TensorFlow's errors carry one
    return Code(code) if code in list(Code) else Code.UNKNOWN


class Models:
    """All models of the server. Requests read them from any thread; one thread at a time changes them."""

    def __init__(self, load: Load = Servable, *, unavailable_labels: bool = False) -> None:
        """Make it empty; ``unavailable_labels`` lets a new label name a version that is not served (yet)."""
        self._load = load
        self._unavailable_labels = unavailable_labels
        self._models: dict[str, Model] = {}  # those that were ever configured: their states can be asked for
        self._configured: set[str] = set()
        self._labels: dict[str, dict[str, int]] = {}
        self._changing = threading.Lock()

    def reload(self, wanted: model_server_config_pb2.ModelServerConfig) -> None:
        """Serve the models that a configuration lists and no others; return when they are loaded.

        The real server returns when the *new* ones are, and waits for ever for a model that has no version.

        Raises:
            StatusError: the configuration is not legal (then nothing changed), or a new model could not be loaded.
        """
        config.check(wanted)
        if wanted.WhichOneof("config") is None:
            return
        with self._changing:
            self._labels = self._checked_labels(wanted)
            before, self._configured = self._configured, {each.name for each in wanted.model_config_list.config}
            for each in wanted.model_config_list.config:
                model = self._models.get(each.name)
                if model is None or each.name not in before:
                    model = Model(each.name, self._load, states=model.states if model is not None else {})
                model.base, model.policy = Path(each.base_path), each.model_version_policy
                self._models = {**self._models, each.name: model}
            for name in before - self._configured:
                self._models[name].retire(set(self._models[name].serving))
            self._update()
            failed = [self._models[name] for name in sorted(self._configured - before)]
            failed = [model for model in failed if not model.serving]
        if failed:
            why = "".join(model.why_not() for model in failed)
            raise StatusError(Code.UNKNOWN, f"{len(failed)} model(s) did not become available: {{{why}}}")

    def _checked_labels(self, wanted: model_server_config_pb2.ModelServerConfig) -> dict[str, dict[str, int]]:
        for each in wanted.model_config_list.config:
            served = self._models[each.name].serving if each.name in self._configured else {}
            known = self._labels.get(each.name, {})
            for label, version in each.version_labels.items():
                allowed = self._unavailable_labels and known.get(label, version) == version
                if version not in served and not allowed:
                    raise StatusError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {each.name}, which is not currently "
                        "available for inference",
                    )
        return {each.name: dict(each.version_labels) for each in wanted.model_config_list.config}

    def poll(self) -> None:
        """Look once for new and removed versions of every model."""
        with self._changing:
            self._update()

    def _update(self) -> None:
        for name in sorted(self._configured):
            try:
                self._models[name].update()
            except OSError as error:  # a folder that cannot be read now may be readable later
                print(f"Looking for versions of {name}: {error}", file=sys.stderr, flush=True)

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """Return the servable that a request asks for: by version or label, or the newest.

        Raises:
            StatusError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND otherwise.
        """
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label:
            version = self._labelled(name, label)
        model = self._models.get(name)
        serving = model.serving if model is not None else {}
        if version is None:
            if serving:
                return serving[max(serving)]
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
        if version in serving:
            return serving[version]
        raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")

    def _labelled(self, name: str, label: str) -> int:
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise invalid(f"Unrecognized servable version label: {label}")
        return version

    def status(self, name: str, version: int | None = None, label: str | None = None) -> dict[int, VersionStatus]:
        """Return the state of one version or of all that were ever seen, newest first.

        Raises:
            StatusError: INVALID_ARGUMENT for an unknown label, NOT_FOUND otherwise.
        """
        if label:
            version = self._labelled(name, label)
        model = self._models.get(name)
        states = dict(model.states) if model is not None else {}
        if version is not None:
            if version not in states:
                raise StatusError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
            return {version: states[version]}
        if not states:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return dict(sorted(states.items(), reverse=True))
