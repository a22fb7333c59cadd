"""TensorFlow Serving: by binary, else by Docker, else embedded (our own compatible server).

One code path: all three take the same flags. The endpoint's ``implementation`` says which it is, and
results of the embedded one are never reported as TensorFlow Serving's.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import infscale
from infscale import models
from infscale.errors import DeploymentError, MissingError, one_of
from infscale.servers.endpoint import Endpoint, answers
from infscale.servers.process import Process, check_port, free_ports, wait_ready, working_folder

BINARY = "tensorflow_model_server"
IMAGE = "tensorflow/serving"
WAYS = ("auto", "binary", "docker", "embedded")
START_TIMEOUT_S = 60.0


def binary() -> str | None:
    """Path of TensorFlow Serving's binary: ``$TENSORFLOW_MODEL_SERVER``, else on PATH; None if absent."""
    named = os.environ.get("TENSORFLOW_MODEL_SERVER")
    return shutil.which(named) if named else shutil.which(BINARY)


def docker() -> str | None:
    """Path of the Docker client if its daemon answers (a client alone is of no use), else None."""
    client = shutil.which("docker")
    if client is None:
        return None
    try:
        asked = subprocess.run([client, "version", "--format", "{{.Server.Version}}"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return client if asked.returncode == 0 and asked.stdout.strip() else None


@dataclass(frozen=True)
class _Start:
    """One way to start the server: command, what to run at its end, and what to call it."""

    command: Sequence[str]
    implementation: str
    version: str
    label: str
    runtime: str
    on_exit: Sequence[str] | None = None


def _flags(model: str, base: Path | str, rest: int, grpc: int) -> list[str]:
    return [f"--port={grpc}", f"--rest_api_port={rest}", f"--model_name={model}", f"--model_base_path={base}"]


def _by_binary(program: str, model: str, base: Path, rest: int, grpc: int) -> _Start:
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
    number = " ".join(asked.stdout.split())[:80] or "unknown version"
    command = [program, *_flags(model, base, rest, grpc)]
    return _Start(command, "tfserving", number, "TensorFlow Serving", number)


def _by_docker(client: str, model: str, base: Path, rest: int, grpc: int, name: str) -> _Start:
    mount = f"{base.resolve()}:/models/{model}:ro"
    ports = ["-p", f"127.0.0.1:{rest}:{rest}", "-p", f"127.0.0.1:{grpc}:{grpc}"]
    run = [client, "run", "--rm", "--name", name, *ports, "-v", mount, "--entrypoint", BINARY, IMAGE]
    command = [*run, *_flags(model, f"/models/{model}", rest, grpc)]
    label = "TensorFlow Serving (Docker)"
    # Killing the client leaves the container running: it is removed by name.
    return _Start(command, "tfserving-docker", IMAGE, label, "TensorFlow", [client, "rm", "-f", name])


def _embedded(model: str, base: Path, rest: int, grpc: int) -> _Start:
    for package in ("tensorflow", "tensorflow_serving", "pyvoy"):
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"the embedded TensorFlow Serving needs {package!r}: pip install 'infscale[servers]'")
    command = [sys.executable, "-m", "infscale.tfserving", *_flags(model, base, rest, grpc)]
    runtime = f"TensorFlow {version('tensorflow')}"
    label = "TensorFlow Serving API, embedded (our implementation)"
    return _Start(command, "tfserving-embedded", infscale.__version__, label, runtime)


def _choose(way: str, model: str, base: Path, rest: int, grpc: int, name: str) -> _Start:
    program = binary() if way in ("auto", "binary") else None
    if program:
        return _by_binary(program, model, base, rest, grpc)
    if way == "binary":
        raise MissingError(f"{BINARY} is not on PATH; name it in TENSORFLOW_MODEL_SERVER, or use docker or embedded")
    client = docker() if way in ("auto", "docker") else None
    if client:
        return _by_docker(client, model, base, rest, grpc, name)
    if way == "docker":
        raise MissingError("no Docker daemon answers; start one, or use binary or embedded")
    return _embedded(model, base, rest, grpc)


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
) -> Iterator[Endpoint]:
    """Serve ``model`` from a SavedModel base path (default: the reference model's); ports of 0 are chosen.

    ``way`` is "binary", "docker", "embedded", or "auto" for the first of them that this machine has.

    Raises:
        MissingError: the way asked for is not installed.
        ConfigError: an unknown way, or a taken port.
        DeploymentError: it did not become ready, with the end of its log.
    """
    one_of("way", way, WAYS)
    rest, grpc = free_ports(2)
    rest = check_port("rest_port", rest_port) if rest_port else rest
    grpc = check_port("grpc_port", grpc_port) if grpc_port else grpc
    base = base_path or models.export(model, "savedmodel")
    if not base.is_dir():
        raise DeploymentError(f"the SavedModel base path {base} does not exist")
    with working_folder("tf") as run:
        start = _choose(way, model, base, rest, grpc, run.name)
        log = (log_folder or run) / f"{start.implementation}.log"
        env = {"TF_CPP_MIN_LOG_LEVEL": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with Process(start.command, log=log, env=env, remove=[run], on_exit=start.on_exit, pid_log=pid_log) as process:
            endpoint = Endpoint(
                framework="tfserving",
                implementation=start.implementation,
                version=start.version,
                label=start.label,
                runtime=start.runtime,
                model=model,
                rest=f"127.0.0.1:{rest}",
                grpc=f"127.0.0.1:{grpc}",
                command=start.command,
                processes=process.tree,
            )
            ours = start.on_exit is not None  # Docker's proxy owns the ports of a container

            def ready() -> bool:
                return (ours or (process.owns_port(rest) and process.owns_port(grpc))) and answers(endpoint)

            seconds = wait_ready(process, ready, what=start.label, timeout_s=START_TIMEOUT_S)
            yield replace(endpoint, ready_s=seconds)
