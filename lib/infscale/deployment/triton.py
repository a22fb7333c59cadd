"""Triton, for real: the ``tritonserver`` that the nvidia-pytriton wheel bundles, on a model repository of ours.

The wheel carries one backend, Python; a reference model's ``model.py`` computes with numpy there. The
server is started by itself (not through pytriton, whose proxy costs a process more per request).
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint, Requests, answers
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place, check_port, free_ports
from infscale.deployment.processes.process import Process, wait_ready
from infscale.errors import ConfigError, DeploymentError, MissingError
from infscale.models.export import export

START_TIMEOUT_S = 60.0
CACHE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class _Options:
    """What a user may tune; None leaves the model's own configuration, whose default is Triton's."""

    instances: int | None
    batch_delay_us: int | None
    cache: bool

    def __post_init__(self) -> None:
        if self.instances is not None and self.instances < 1:
            raise ConfigError(f"instances={self.instances} is not a number of model instances; accepted: 1 or more")
        if self.batch_delay_us is not None and self.batch_delay_us < 0:
            raise ConfigError(f"batch_delay_us={self.batch_delay_us} is not a time; accepted: 0 or more microseconds")

    def config(self) -> str:
        """Lines for the model's ``config.pbtxt``."""
        lines = [f"instance_group [{{ count: {self.instances} kind: KIND_CPU }}]"] if self.instances else []
        if self.batch_delay_us is not None:
            lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {self.batch_delay_us} }}")
        if self.cache:
            lines.append("response_cache { enable: true }")
        return "".join(f"{line}\n" for line in lines)


def _wheel() -> Path:
    """The folder ``tritonserver`` of the wheel.

    Raises:
        MissingError: the package is not installed, or has no backend for this Python.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise MissingError("Triton needs its wheel: pip install nvidia-pytriton (or pip install 'infscale[servers]')")
    folder = Path(spec.submodule_search_locations[0]) / "tritonserver"
    if not _stub(folder).is_file():
        raise MissingError(f"nvidia-pytriton has no Python backend for {sys.version.split()[0]}; use Python 3.11")
    return folder


def _stub(wheel: Path) -> Path:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return wheel / "python_backend_stubs" / python / "triton_python_backend_stub"


def _backends(wheel: Path, run: Path) -> Path:
    """A folder of backends in which the Python backend lies beside the stub of this Python."""
    folder = run / "backends"
    shutil.copytree(wheel / "backends" / "python", folder / "python")
    shutil.copy(_stub(wheel), folder / "python")
    return folder


def _repository(source: Path, model: str, run: Path, options: _Options) -> Path:
    folder = run / "repository"
    try:
        shutil.copytree(source / model, folder / model)
        with open(folder / model / "config.pbtxt", "a", encoding="utf-8") as file:
            file.write(options.config())
    except OSError as error:
        raise DeploymentError(f"cannot read the model {model} of the repository {source}: {error}") from error
    return folder


def _environment(wheel: Path) -> dict[str, str]:
    """Libraries of the wheel and of this Python; this environment first on PATH, where the backend finds its Python.

    With another Python's numpy the backend answers with empty tensors. One BLAS thread, as for the other servers.
    """
    libraries = [str(wheel.parents[1] / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    libraries += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    path = [str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    places = {"LD_LIBRARY_PATH": ":".join(libraries), "PATH": ":".join(path)}
    return {**places, **threads, "PYTHONDONTWRITEBYTECODE": "1"}


def _command(wheel: Path, run: Path, host: str, ports: list[int], cache: bool) -> list[str]:
    rest, grpc, metrics = ports
    flags = {
        "model-repository": run / "repository",
        "backend-directory": run / "backends",
        "cache-directory": wheel / "caches",
        "backend-config": f"python,shm-region-prefix-name={run.name}",
        "http-address": host,
        "http-port": rest,
        "grpc-address": host,
        "grpc-port": grpc,
        "metrics-address": host,
        "metrics-port": metrics,
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": 5,
    }
    cached = {"cache-config": f"local,size={CACHE_BYTES}"} if cache else {}
    program = str(wheel / "bin" / "tritonserver")
    given = (f"--{name}={value}" for name, value in (flags | cached).items())
    return [program, "--disable-auto-complete-config", *given]


@contextlib.contextmanager
def deploy(
    model: str,
    *,
    repository: Path | None = None,
    rest_port: int = 0,
    grpc_port: int = 0,
    instances: int | None = None,
    batch_delay_us: int | None = None,
    cache: bool = False,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    own: Requests | None = None,
    place: Place = HERE,
) -> Iterator[Endpoint]:
    """Serve ``model`` from a model repository (default: the reference model's own); ports of 0 are chosen.

    ``instances`` of the model run side by side (Triton's default: 1); ``batch_delay_us`` turns dynamic batching
    on, with that longest wait for a batch to fill; ``cache`` turns the response cache on.

    Raises:
        MissingError: the wheel is not installed.
        ConfigError: a port is taken, or an option has no meaning.
        DeploymentError: it did not become ready, with the end of its log.
    """
    wheel, ports, options = _wheel(), free_ports(3), _Options(instances, batch_delay_us, cache)
    if rest_port:
        ports[0] = check_port("rest_port", rest_port, place)
    if grpc_port:
        ports[1] = check_port("grpc_port", grpc_port, place)
    source = repository or export(model, "triton")
    with working_folder("tr") as run:
        _backends(wheel, run)
        _repository(source, model, run, options)
        log = (log_folder or run) / "triton.log"
        command, env = _command(wheel, run, place.host, ports, cache), _environment(wheel)
        # A killed server leaves the shared memory of its backend behind.
        sweep = ["sh", "-c", f"rm -f /dev/shm/{run.name}*"]
        given: Any = {"on_exit": sweep, "pid_log": pid_log, "place": place}
        with Process(command, log=log, env=env, cwd=run, remove=[run], **given) as process:
            endpoint = replace(_endpoint(model, place.host, ports, process), own=own)

            def ready() -> bool:
                return all(process.owns_port(port) for port in ports[:2]) and answers(endpoint)

            seconds = _wait(process, ready)
            yield replace(endpoint, **_named(endpoint, cache), ready_s=seconds)


def _wait(process: Process, ready: Callable[[], bool]) -> float:
    """Wait until Triton is ready; its errors, not its tables of settings, are what a failure passes on."""
    try:
        return wait_ready(process, ready, what="Triton", timeout_s=START_TIMEOUT_S)
    except DeploymentError as error:
        errors = [line for line in process.log_tail(500).splitlines() if re.match(r"E\d{4} |error: ", line)]
        raise DeploymentError(str(error).partition("\n")[0], "\n".join(errors) or error.log_tail) from error


def _endpoint(model: str, host: str, ports: list[int], process: Process) -> Endpoint:
    return Endpoint(
        framework="triton",
        implementation="triton",
        version="",
        label="Triton",
        runtime=f"numpy {version('numpy')} in the Python backend",
        model=model,
        rest=f"{host}:{ports[0]}",
        grpc=f"{host}:{ports[1]}",
        command=process.command,
        processes=process.tree,
        log_tail=process.log_tail,
        metrics=f"{host}:{ports[2]}",
    )


def _named(endpoint: Endpoint, cache: bool) -> dict[str, Any]:
    """Version and label by the server's own word."""
    number = str(_get(endpoint, "/v2")["version"])
    remark = "Python backend, response cache" if cache else "Python backend"
    return {"version": number, "label": f"Triton {number} ({remark})"}


def _get(endpoint: Endpoint, path: str) -> Any:
    return json.loads(fetch(endpoint.rest, "GET", path, timeout_s=5, ca=endpoint.ca))


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """What Triton has counted for the model since its start, from its statistics endpoint.

    ``requests`` that succeeded and ``cache_hits`` among them; milliseconds summed over requests: ``queue_ms``,
    ``compute_input_ms``, ``compute_infer_ms``, ``compute_output_ms``, and, with the response cache, ``cache_hit_ms``
    and ``cache_miss_ms`` (look-up, and insertion after a miss).

    Empty for an attached server without a REST address.

    Raises:
        DeploymentError: it does not answer.
    """
    if not endpoint.rest:
        return {}
    path = f"/v2/models/{endpoint.model}/stats"
    counted = [entry["inference_stats"] for entry in _get(endpoint, path)["model_stats"]]  # one entry per version

    def total(kind: str, what: str) -> int:
        return sum(int(entry.get(kind, {}).get(what, 0)) for entry in counted)

    kinds = ("queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    times = {f"{kind}_ms": total(kind, "ns") / 1e6 for kind in kinds}
    return {"requests": total("success", "count"), "cache_hits": total("cache_hit", "count"), **times}
