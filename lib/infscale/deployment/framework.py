"""Frameworks: an object for each says how it is started, which requests it takes, and which counts it keeps."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infscale import vocabulary
from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError, check_duration, one_of
from infscale.payloads.encoders import Interface
from infscale.payloads.tensors import Input, Target, Tensors
from infscale.programs import Requirement
from infscale.servers.gateway.settings import VersionQuery

Start = Callable[..., AbstractContextManager[Endpoint]]
"""Called as ``start(model, artifact=…, own=…, protocols=…, start_timeout_s=…, rest_port=…, …)``.

All arguments but the model's name are optional, and a framework may add its own. :func:`infscale.deployment.deploy`
refuses an argument that the framework does not have.

- ``artifact``: the file or folder of a model of the user's own, for which ``own`` makes the requests;
- ``protocols``: those over which the model takes requests; the endpoint has no address for another one;
- ``start_timeout_s``, ``answer_timeout_s``: longest time until the first answer, and longest wait for one, s;
- ``rest_port``, ``grpc_port``, ``log_folder``, ``pid_log``, ``place``: where it listens, logs and runs.
"""


@dataclass(frozen=True)
class TensorApi:
    """Requests for a model of the user's own, on a server that describes the model's inputs and takes tensors by name.

    Attributes:
        rest_path: REST path of a prediction.
        grpc_path: ``/package.Service/Method`` of a prediction.
        inputs: reads the model's inputs from the server, by protocol. It returns none for an unknown signature, so
            that the server itself refuses the request, and raises AnsweredError with an error that the server answers.
        encode: makes a body or message, by protocol.
        message_of: makes the message for a REST body, which carries the same.
        json_form: what such a body looks like, for messages.
        numeric_versions: whether a model's versions are numbers.
        signature_of: reads which signature a REST body runs; None if models have no signatures.
    """

    rest_path: Callable[[Target], str]
    grpc_path: str
    inputs: Mapping[str, Callable[[Endpoint, Target], dict[str, Input]]]
    encode: Mapping[str, Callable[[Target, Tensors], bytes]]
    message_of: Callable[[Target, Any, Mapping[str, Input]], bytes]
    json_form: str
    numeric_versions: bool = False
    signature_of: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class FileApi:
    """Requests for a model of the user's own, on a server that describes no inputs and takes any bytes.

    Attributes:
        rest_path: REST path of a prediction.
        grpc_path: ``/package.Service/Method`` of a prediction.
        message: makes a gRPC message from the bytes of a file.
    """

    rest_path: Callable[[Target], str]
    grpc_path: str
    message: Callable[[Target, bytes], bytes]


_INTERNAL = {"artifact", "own", "place"}  # options that this package sets, not the user
_LIMITS_S = ("start_timeout_s", "answer_timeout_s")


def _no_statistics(endpoint: Endpoint) -> dict[str, float]:
    return {}


def _unknown_version(endpoint: Endpoint) -> str:
    return "unknown"


def file_name(artifact: Path) -> str:
    """Return the name of a file without its suffix, or that of a folder, as :func:`served_name` makes it."""
    return served_name(artifact.stem if artifact.is_file() else artifact.name)


def check_protocols(protocols: object) -> None:
    """Check the protocols over which a model takes requests: a name, or several.

    Raises:
        ConfigError: there is none, or an unknown one.
    """
    names = [protocols] if isinstance(protocols, str) else list(protocols) if isinstance(protocols, Collection) else []
    if not names:
        raise ConfigError(f"protocols={protocols!r} names none; accepted: {' and '.join(vocabulary.PROTOCOLS)}, or one")
    for name in names:
        one_of("protocols", str(name), vocabulary.PROTOCOLS)


def served_name(name: str) -> str:
    """Return a name under which every server can serve a model: "_" stands for what URLs would have to escape.

    Servers differ in what they make of an escaped name, of spaces, and of letters beyond ASCII.
    """
    return re.sub(r"[^A-Za-z0-9._~+-]", "_", name)


@dataclass(frozen=True)
class Framework:
    """A serving framework.

    Attributes:
        name: as users and stored runs call it.
        title: as figures and sentences call it.
        start: deploys one model; a context manager that yields its endpoint.
        interface: what it takes as requests for the reference models.
        statistics: reads what a server has counted for its model since its start: ``requests``, ``cache_hits`` among
            them where it caches, and sums of milliseconds (names in ``…_ms``).
        counting: options of ``start`` without which a server does not count.
        metrics_path: path of the counters in Prometheus' format on the REST port; empty if they have their own address.
        version: reads the version of a server that has a REST address.
        own: how requests for models of the user's own are made; None if it serves only the reference models.
        artifact_name: the name under which the file or folder of such a model is served.
        predictions: regular expression of the REST paths of predictions, which a cache may answer; empty for those of
            ``interface``.
        versions: how a cache reads which versions of a model are served; None where the server does not tell.
        waits: whether its exports can wait: it serves the reference model ``device``.
        requirements: looks for what a deployment needs on this machine.
    """

    name: str
    title: str
    start: Start
    interface: Interface
    statistics: Callable[[Endpoint], dict[str, float]] = _no_statistics
    counting: Mapping[str, object] = field(default_factory=dict)
    metrics_path: str = ""
    version: Callable[[Endpoint], str] = _unknown_version
    own: TensorApi | FileApi | None = None
    artifact_name: Callable[[Path], str] = file_name
    predictions: str = ""
    versions: VersionQuery | None = None
    waits: bool = False
    requirements: Callable[[], Sequence[Requirement]] = list

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Check that ``start`` takes these options, and that those of every framework have values that it can take.

        Raises:
            ConfigError: it does not take one of them.
        """
        parameters = inspect.signature(self.start).parameters.values()
        accepted = {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
        for name, value in options.items():
            if name not in accepted:
                known = ", ".join(sorted(accepted - _INTERNAL))
                raise ConfigError(f"{name}={value!r} is no option of {self.title}; accepted: {known}")
        check_protocols(options.get("protocols", vocabulary.PROTOCOLS))
        for name in _LIMITS_S:
            check_duration(options.get(name, 1.0), name)

    def own_api(self) -> TensorApi | FileApi:
        """Return how requests for models of the user's own are made.

        Raises:
            ConfigError: it serves only the reference models.
        """
        if self.own is None:
            raise ConfigError(f"framework={self.name!r} serves the reference models only, and no model of your own")
        return self.own


FRAMEWORKS: dict[str, Framework] = {}
"""All frameworks, by name; :func:`add` adds one."""


def add(framework: Framework) -> None:
    """Add a framework to :data:`FRAMEWORKS`, and its title to those that tables and figures show."""
    FRAMEWORKS[framework.name] = framework
    vocabulary.FRAMEWORK_NAMES[framework.name] = framework.title
