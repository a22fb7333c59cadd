"""TensorFlow Serving: by binary, else by Docker, else embedded (our own compatible server).

One code path: all three take the same flags. The endpoint's ``implementation`` says which it is, and
results of the embedded one are never reported as TensorFlow Serving's.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

import infscale
from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint, Requests, answers
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place, check_port, free_ports
from infscale.deployment.processes.process import Process, wait_ready
from infscale.errors import ConfigError, DeploymentError, MissingError, one_of
from infscale.machine import split_cores
from infscale.models.export import export
from infscale.servers.embedded.versions import versions_at

BINARY = "tensorflow_model_server"
IMAGE = "tensorflow/serving"
WAYS = ("auto", "binary", "docker", "embedded")
START_TIMEOUT_S = 60.0
PULL_TIMEOUT_S = 1800.0


def binary() -> str | None:
    """Path of TensorFlow Serving's binary: ``$TENSORFLOW_MODEL_SERVER``, else on PATH; None if absent.

    Raises:
        MissingError: the variable names something that is no program.
    """
    named = os.environ.get("TENSORFLOW_MODEL_SERVER")
    if not named:
        return shutil.which(BINARY)
    found = shutil.which(named)
    if found is None:
        raise MissingError(f"TENSORFLOW_MODEL_SERVER={named!r} is no program; name {BINARY} or unset the variable")
    return found


def docker(timeout_s: float = 10.0) -> str | None:
    """Path of the Docker client if its daemon answers (a client alone is of no use), else None."""
    client = shutil.which("docker")
    if client is None:
        return None
    try:
        asked = _run([client, "version", "--format", "{{.Server.Version}}"], timeout_s)
    except DeploymentError:
        return None
    return client if asked.returncode == 0 and asked.stdout.strip() else None


def _run(command: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeploymentError(f"{' '.join(command)}: {error}") from error


@dataclass(frozen=True)
class _Container:
    """A container by name. Its server is no child of ours: the engine starts it, and owns its ports."""

    client: str
    name: str
    rest_port: int

    def pid(self) -> int:
        """Of the server while it runs, as this machine's processes are counted; else 0."""
        asked = _run([self.client, "inspect", "--format", "{{.State.Running}} {{.State.Pid}}", self.name], 10)
        running, _, pid = asked.stdout.strip().partition(" ")
        return int(pid) if running == "true" and pid.isdigit() else 0

    def processes(self) -> list[psutil.Process]:
        """The server and its children; none where the engine runs in a machine of its own, with its own pids."""
        try:
            root = psutil.Process(self.pid())
            ours = str(self.rest_port) in " ".join(root.cmdline())
            return [root, *root.children(recursive=True)] if ours else []
        except (psutil.Error, DeploymentError, ValueError):
            return []


@dataclass(frozen=True)
class _Start:
    """One way to start the server: command and what to call it."""

    command: Sequence[str]
    implementation: str
    version: str
    label: str
    runtime: str
    container: _Container | None = None
    http: Sequence[str] = ("1.1",)

    def on_exit(self) -> list[str] | None:
        """What to run at the end. Killing the client leaves a container running: it is removed by name."""
        return [self.container.client, "rm", "-f", self.container.name] if self.container else None

    def has_port(self, process: Process, port: int) -> bool:
        """Whether it is ours that listens. Of a container the engine owns the port: ours runs only if it got it."""
        return process.owns_port(port) if self.container is None else self.container.pid() != 0

    def processes(self, process: Process) -> Callable[[], list[psutil.Process]]:
        """The server's processes; of a container out of sight, the client's."""
        if self.container is None:
            return process.tree
        container = self.container
        known: list[psutil.Process] = []

        def inside() -> list[psutil.Process]:
            if not known:
                known.extend(container.processes()[:1])
            with contextlib.suppress(psutil.NoSuchProcess):
                return [p for root in known for p in (root, *root.children(recursive=True)) if p.is_running()]
            return []

        return lambda: process.tree() and (inside() or process.tree())


def _flags(model: str, base: Path | str, rest: int, grpc: int) -> list[str]:
    return [f"--port={grpc}", f"--rest_api_port={rest}", f"--model_name={model}", f"--model_base_path={base}"]


def _by_binary(program: str, model: str, base: Path, rest: int, grpc: int) -> _Start:
    asked = _run([program, "--version"], 30)
    number = " ".join(asked.stdout.split())[:80] or "unknown version"
    command = [program, *_flags(model, base, rest, grpc)]
    return _Start(command, "tfserving", number, "TensorFlow Serving", number)


def _by_docker(client: str, model: str, base: Path, rest: int, grpc: int, name: str) -> _Start:
    image = _image(client)
    mount = f"{base.resolve()}:/models/{model}:ro"
    ports = ["-p", f"127.0.0.1:{rest}:{rest}", "-p", f"127.0.0.1:{grpc}:{grpc}"]
    cores = ["--cpuset-cpus", ",".join(map(str, sorted(split[1])))] if (split := split_cores()) else []
    run = [client, "run", "--rm", "--name", name, *ports, *cores, "-v", mount, "--entrypoint", BINARY, IMAGE]
    command = [*run, *_flags(model, f"/models/{model}", rest, grpc)]
    container = _Container(client, name, rest)
    return _Start(command, "tfserving-docker", image, "TensorFlow Serving (Docker)", "TensorFlow", container)


def _image(client: str) -> str:
    """Name and id of the image, fetched if it is not there: the time that takes is not the server's."""
    inspect = [client, "image", "inspect", "--format", "{{.Id}}", IMAGE]
    asked = _run(inspect, 30)
    if asked.returncode:
        pulled = _run([client, "pull", IMAGE], PULL_TIMEOUT_S)
        if pulled.returncode:
            raise DeploymentError(f"docker pull {IMAGE} failed", pulled.stderr)
        asked = _run(inspect, 30)
    return f"{IMAGE}@{asked.stdout.strip()[:19]}"


def _embedded(model: str, base: Path, rest: int, grpc: int, host: str) -> _Start:
    for package in ("tensorflow", "tensorflow_serving", "pyvoy"):
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"the embedded TensorFlow Serving needs {package!r}: pip install 'infscale[servers]'")
    command = [sys.executable, "-m", "infscale.servers.embedded", f"--address={host}", *_flags(model, base, rest, grpc)]
    runtime = f"TensorFlow {version('tensorflow')}"
    label = "TensorFlow Serving API, embedded (our implementation)"
    return _Start(command, "tfserving-embedded", infscale.__version__, label, runtime, http=("1.1", "2"))


def _choose(way: str, model: str, base: Path, rest: int, grpc: int, name: str, place: Place) -> _Start:
    program = binary() if way in ("auto", "binary") else None
    if program:
        return _by_binary(program, model, base, rest, grpc)
    if way == "binary":
        raise MissingError(f"{BINARY} is not on PATH; name it in TENSORFLOW_MODEL_SERVER, or use docker or embedded")
    client = docker() if way in ("auto", "docker") else None
    if client and place.prefix:
        raise ConfigError(f"way={way!r}: a container has a network of its own; accepted on a link: binary, embedded")
    if client:
        return _by_docker(client, model, base, rest, grpc, name)
    if way == "docker":
        raise MissingError("no Docker daemon answers; start one, or use binary or embedded")
    return _embedded(model, base, rest, grpc, place.host)


@contextlib.contextmanager
def deploy(
    model: str,
    *,
    way: str = "auto",
    base_path: Path | None = None,
    rest_port: int = 0,
    grpc_port: int = 0,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    own: Requests | None = None,
    monitoring: bool = False,
    place: Place = HERE,
) -> Iterator[Endpoint]:
    """Serve ``model`` from a SavedModel base path (default: the reference model's); ports of 0 are chosen.

    ``own`` makes the requests of a SavedModel that is no reference model; ``monitoring`` lets the server show its
    counters (:mod:`infscale.deployment.prometheus`, :func:`statistics`), which costs it some time a request.

    ``way`` is "binary", "docker", "embedded", or "auto" for the first of them that this machine has.

    Raises:
        MissingError: the way asked for is not installed.
        ConfigError: an unknown way, or a taken port.
        DeploymentError: it did not become ready, with the end of its log.
    """
    one_of("way", way, WAYS)
    rest, grpc = free_ports(2)
    rest = check_port("rest_port", rest_port, place) if rest_port else rest
    grpc = check_port("grpc_port", grpc_port, place) if grpc_port else grpc
    base = base_path or export(model, "savedmodel")
    if not base.is_dir():
        raise DeploymentError(f"the SavedModel base path {base} does not exist")
    if not versions_at(base):  # the real server would wait for one for ever
        raise DeploymentError(
            f"no version in {base}: TensorFlow Serving wants {base.name}/1/saved_model.pb or the like"
        )
    with working_folder("tf") as run:
        start = _choose(way, model, base, rest, grpc, run.name, place)
        if monitoring:
            start = _monitored(start, run)
        log = (log_folder or run) / f"{start.implementation}.log"
        env = {"TF_CPP_MIN_LOG_LEVEL": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        given: Any = {"on_exit": start.on_exit(), "pid_log": pid_log, "place": place}
        with Process(start.command, log=log, env=env, remove=[run], **given) as process:
            endpoint = Endpoint(
                framework="tfserving",
                implementation=start.implementation,
                version=start.version,
                label=start.label,
                runtime=start.runtime,
                model=model,
                rest=f"{place.host}:{rest}",
                grpc=f"{place.host}:{grpc}",
                command=start.command,
                processes=start.processes(process),
                log_tail=process.log_tail,
                metrics=f"{place.host}:{rest}" if monitoring else "",
                own=own,
                http=start.http,
            )

            def ready() -> bool:
                return all(start.has_port(process, port) for port in (rest, grpc)) and answers(endpoint)

            seconds = wait_ready(process, ready, what=start.label, timeout_s=START_TIMEOUT_S)
            yield replace(endpoint, ready_s=seconds)


def _monitored(start: _Start, run: Path) -> _Start:
    """The same with a Prometheus page; a container sees the file at the same path."""
    file = run / "monitoring.txt"
    file.write_text(f'prometheus_config {{ enable: true, path: "{_METRICS_PATH}" }}\n', encoding="utf-8")
    command = [*start.command, f"--monitoring_config_file={file}"]
    if start.container is not None:
        command[2:2] = ["-v", f"{file}:{file}:ro"]
    return replace(start, command=command)


_METRICS_PATH = "/monitoring/prometheus/metrics"
_COUNTER = re.compile(r'^:tensorflow:serving:request_count\{[^}]*model_name="([^"]*)"[^}]*\} (\S+)', re.MULTILINE)


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """``requests`` counted for the model since the server's start, failed ones included; empty without ``monitoring``.

    Raises:
        DeploymentError: it does not answer.
    """
    if not endpoint.metrics:
        return {}
    text = fetch(endpoint.metrics, "GET", _METRICS_PATH, timeout_s=5).decode()
    return {"requests": sum(float(value) for model, value in _COUNTER.findall(text) if model == endpoint.model)}
