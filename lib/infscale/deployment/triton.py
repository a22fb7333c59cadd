"""Triton: the ``tritonserver`` that the nvidia-pytriton wheel bundles, on a model repository.

The wheel carries one backend, Python; a reference model's ``model.py`` computes with numpy there. The server is started
by itself, not through pytriton, whose proxy costs a process more per request.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infscale import vocabulary
from infscale.deployment.client import fetch
from infscale.deployment.endpoint import ANSWER_TIMEOUT_S, Endpoint, Requests, answers
from infscale.deployment.framework import Framework, TensorApi
from infscale.deployment.processes.folder import copy_tree, working_folder
from infscale.deployment.processes.ports import HERE, Place, choose_ports
from infscale.deployment.processes.process import START_TIMEOUT_S, Process, serving
from infscale.deployment.repository import Settings, copy, only_model
from infscale.errors import ConfigError, MissingError
from infscale.models import export as exports
from infscale.models import stream
from infscale.payloads import codecs, json_bodies, streams, tensors
from infscale.payloads.encoders import FILES_TOO, JSON, NUMBERS, OCTETS, Encoder, Interface, Stream
from infscale.payloads.tensors import Input, Target
from infscale.programs import Requirement, package_version
from infscale.servers.gateway.settings import VersionQuery

CACHE_BYTES = 16 * 2**20
"""Size of the response cache, bytes."""
_PREDICT = "/v2/models/{model}/infer"
_SERVICE = "/inference.GRPCInferenceService"


def export(model: str) -> Path:
    """Return the model repository of a reference model, exported once."""
    if model == stream.NAME:
        own = "infscale.deployment.exporters.streaming.repository"
        return exports.export(model, own, ("triton_model",), weights=False)
    return exports.export(model, "infscale.deployment.exporters.repository", ("triton_model",))


def _wheel() -> Path:
    """Return the folder ``tritonserver`` of the wheel.

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
    """Make a folder of backends in which the Python backend lies beside the stub for this Python."""
    folder = run / "backends"
    copy_tree(wheel / "backends" / "python", folder / "python")
    shutil.copy(_stub(wheel), folder / "python")
    return folder


def _environment(wheel: Path) -> dict[str, str]:
    """Return variables that name the libraries of the wheel and of this Python, and limit BLAS to one thread.

    The backend finds its Python on PATH, where this environment has to come first: with another Python's numpy it
    answers with empty tensors.
    """
    libraries = [str(wheel.parents[1] / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    libraries += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    path = [str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    places = {"LD_LIBRARY_PATH": ":".join(libraries), "PATH": ":".join(path)}
    return {**places, **threads, "PYTHONDONTWRITEBYTECODE": "1"}


def _command(wheel: Path, run: Path, host: str, ports: list[int], *, cache: bool, complete: bool) -> list[str]:
    """Return the command line; ``complete`` lets the server complete the configuration of its model."""
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
    arguments = (f"--{name}={value}" for name, value in (flags | cached).items())
    return [program, *([] if complete else ["--disable-auto-complete-config"]), *arguments]


@contextlib.contextmanager
def deploy(
    model: str,
    *,
    artifact: Path | None = None,
    protocols: Collection[str] = vocabulary.PROTOCOLS,
    start_timeout_s: float = START_TIMEOUT_S,
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
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
    """Serve ``model`` from the repository, or the model's folder, ``artifact`` (default: the reference model's).

    Ports of 0 are chosen. The server completes the configuration of an artifact. ``own`` makes the requests of one that
    is no reference model. The model takes requests over ``protocols``. ``instances`` of it run side by side (Triton's
    default: 1). ``batch_delay_us`` turns dynamic batching on; it is the longest wait for a batch to fill, in
    microseconds. ``cache`` turns the response cache on. These three take the place of what the model's configuration
    says of them. It may take ``start_timeout_s`` to be ready, and ``answer_timeout_s`` for an answer.

    Raises:
        MissingError: the wheel is not installed.
        ConfigError: a port is taken, or an option has no meaning.
        DeploymentError: it did not become ready; the message has the errors of its log.
    """
    if model == stream.NAME and artifact is None and (cache or batch_delay_us is not None):
        raise ConfigError(
            f"{cache=}, {batch_delay_us=}: a decoupled model has no cache and no batches; accepted: neither"
        )
    wheel, settings = _wheel(), Settings(instances, batch_delay_us, cache)
    ports = choose_ports({"rest_port": rest_port, "grpc_port": grpc_port, "metrics": 0}, place)
    rest, grpc, metrics = (f"{place.host}:{port}" for port in ports)
    source = (artifact or export(model)).resolve()
    with working_folder("tr") as run:
        _backends(wheel, run)
        copy(source, model, run / "repository", settings)

        def endpoint(process: Process) -> Endpoint:
            return Endpoint(
                framework="triton",
                implementation="triton",
                version="",
                label="Triton",
                runtime=f"numpy {version('numpy')} in the Python backend",
                model=model,
                rest=rest if "rest" in protocols else "",
                grpc=grpc if "grpc" in protocols else "",
                interface=INTERFACE,
                command=process.command,
                processes=process.tree,
                ready_s=process.ready_s,
                log=process.log,
                log_tail=process.log_tail,
                metrics=f"{metrics}/metrics",
                management=rest,
                own=own,
                timeout_s=answer_timeout_s,
            )

        with serving(
            _command(wheel, run, place.host, ports, cache=cache, complete=artifact is not None),
            what="Triton",
            log=(log_folder or run) / "triton.log",
            ports=ports[:2],
            ready=lambda process: answers(endpoint(process)),
            timeout_s=start_timeout_s,
            log_tail=_errors,
            env=_environment(wheel),
            cwd=run,
            remove=[run],
            # A killed server leaves the shared memory of its backend behind.
            on_exit=["sh", "-c", f"rm -f /dev/shm/{run.name}*"],
            pid_log=pid_log,
            place=place,
        ) as process:
            yield _named(endpoint(process), settings)


def _errors(process: Process) -> str:
    """Return the errors in the log, without Triton's tables of settings."""
    lines = process.log_tail(500).splitlines()
    return "\n".join(line for line in lines if re.match(r"E\d{4} |error: ", line)) or process.log_tail()


def _named(endpoint: Endpoint, settings: Settings) -> Endpoint:
    """Return the endpoint with the version that the server tells, and the settings in its label."""
    number = _version(endpoint)
    decoupled = ["decoupled"] if endpoint.model == stream.NAME and endpoint.own is None else []
    remarks = ", ".join(["Python backend", *decoupled, *settings.remarks()])
    return replace(endpoint, version=number, label=f"Triton {number} ({remarks})")


def _version(endpoint: Endpoint) -> str:
    return str(_tells(endpoint, "/v2")["version"])


def _tells(endpoint: Endpoint, path: str) -> Any:
    """Return what the server tells of itself, by HTTP also where the model takes no requests over REST."""
    if endpoint.management:
        return json.loads(fetch(endpoint.management, "GET", path, timeout_s=5))
    return json.loads(endpoint.fetch("GET", path, timeout_s=5))


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """Return what Triton has counted for the model since its start; empty where only gRPC leads to it.

    ``requests`` that succeeded, and ``cache_hits`` among them. Milliseconds, summed over requests: ``queue_ms``,
    ``compute_input_ms``, ``compute_infer_ms``, ``compute_output_ms``, and, with the response cache, ``cache_hit_ms``
    and ``cache_miss_ms`` (look-up, and insertion after a miss).

    Raises:
        DeploymentError: it does not answer.
    """
    if not endpoint.management and not endpoint.rest:
        return {}
    answer = _tells(endpoint, f"{_model_path(Target(endpoint.model))}/stats")
    versions = [entry["inference_stats"] for entry in answer["model_stats"]]

    def total(kind: str, unit: str) -> int:
        return sum(int(counts.get(kind, {}).get(unit, 0)) for counts in versions)

    kinds = ("queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    times = {f"{kind}_ms": total(kind, "ns") / 1e6 for kind in kinds}
    return {"requests": total("success", "count"), "cache_hits": total("cache_hit", "count"), **times}


# -------------------------------------------------------------------------------- models of the user's own


def _model_path(target: Target) -> str:
    # Triton takes the path as it comes: what may stand in it must not be escaped.
    model, number = (quote(text, safe="!$&'()*+,;=:@") for text in (target.model, target.version))
    return f"/v2/models/{model}/versions/{number}" if number else f"/v2/models/{model}"


def _rest_path(target: Target) -> str:
    return f"{_model_path(target)}/infer"


def _inputs_over_rest(endpoint: Endpoint, target: Target) -> dict[str, Input]:
    body = endpoint.fetch("GET", _model_path(target))
    return {
        each["name"]: Input(tensors.numpy_type(each["name"], each["datatype"]), tuple(map(int, each["shape"])))
        for each in json.loads(body)["inputs"]
    }


def _inputs_over_grpc(endpoint: Endpoint, target: Target) -> dict[str, Input]:
    from infscale.payloads.messages import triton

    request = triton["ModelMetadataRequest"](name=target.model, version=target.version).SerializeToString()
    body = endpoint.call(f"{_SERVICE}/ModelMetadata", request)
    return {
        each.name: Input(tensors.numpy_type(each.name, each.datatype), tuple(map(int, each.shape)))
        for each in triton["ModelMetadataResponse"].FromString(body).inputs
    }


# ---------------------------------------------------------------------------------------------- the object


def _requirements() -> list[Requirement]:
    number = package_version(("pytriton",), "nvidia-pytriton")
    spec = importlib.util.find_spec("pytriton") if number else None
    folders = (spec.submodule_search_locations if spec else None) or ()
    program = any((Path(folder) / "tritonserver" / "bin" / "tritonserver").is_file() for folder in folders)
    present = f"in nvidia-pytriton {number}" if program else ""
    return [Requirement("Triton", present, "triton", "pip install nvidia-pytriton", needed=True)]


INTERFACE = Interface(
    "triton",
    {
        "rest": {
            "json": Encoder(_PREDICT, JSON, codecs.v2_json, codecs.v2_answer, dtypes=NUMBERS),
            "raw": Encoder(_PREDICT, OCTETS, codecs.v2_raw, codecs.v2_answer, codecs.v2_head_length, FILES_TOO),
        },
        "grpc": {
            "protobuf": Encoder(
                f"{_SERVICE}/ModelInfer", None, codecs.triton_request, codecs.triton_answer, dtypes=FILES_TOO
            ),
            "contents": Encoder(f"{_SERVICE}/ModelInfer", None, codecs.triton_contents, codecs.triton_answer),
        },
    },
    streams={
        "rest": Stream(
            "/v2/models/{model}/generate_stream",
            JSON,
            "sse",
            streams.plan_json,
            streams.generate_content,
            re.compile(rb'\{\s*"error"\s*:\s*"?'),
        ),
        "grpc": Stream(
            f"{_SERVICE}/ModelStreamInfer",
            None,
            "grpc",
            streams.triton_plan,
            streams.triton_content,
            streams.TRITON_ERRORS,
        ),
    },
)
"""Triton tells an error within a stream by a message, and ends the stream well: 200, or the status OK; over REST one
before the first message is a status of its own. A call of a decoupled model that is not streaming is 501 or
UNIMPLEMENTED. ``generate_stream`` answers 200 with no event for no messages. The client's half of ``ModelStreamInfer``
may be closed right behind its one request."""

FRAMEWORK = Framework(
    name="triton",
    title=vocabulary.FRAMEWORK_NAMES["triton"],
    start=deploy,
    interface=INTERFACE,
    statistics=statistics,
    version=_version,
    own=TensorApi(
        rest_path=_rest_path,
        grpc_path=f"{_SERVICE}/ModelInfer",
        inputs={"rest": _inputs_over_rest, "grpc": _inputs_over_grpc},
        encode={"rest": tensors.kserve_json, "grpc": tensors.kserve_message},
        message_of=json_bodies.kserve_message_of,
        json_form='{"inputs": [{"name": …, "datatype": …, "shape": …, "data": …}]}',
    ),
    artifact_name=only_model,
    predictions=r"/v2/models/.+/infer",
    # A number that stays when a model is loaded anew under it.
    versions=VersionQuery("/v2/models/{model}", entries="versions"),
    waits=True,
    requirements=_requirements,
)
