"""Dask's side of a cluster: starts it, or connects to a scheduler that runs, and lists its workers."""

import contextlib
import logging
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

from infscale.errors import DeploymentError, MissingError
from infscale.load.cluster.spec import Spec
from infscale.programs import find_program

JOIN_S = {"local": 60.0, "tcp": 30.0, "ssh": 60.0, "slurm": 300.0, "kubernetes": 120.0}
"""Longest wait for a cluster's workers, s, by its kind."""

REACH_S = 10.0
"""Longest wait for a scheduler's answer, s."""


def check_installed() -> None:
    """Import Dask, which sets up its loggers then.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise MissingError(f"--cluster needs Dask ({error.name}): pip install 'infscale[cluster]'") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Dask's own warnings of workers that go and come out of the terminal: what matters of them is said by us."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.nanny", "asyncssh", "tornado")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


CONFIG = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.resources": {},
    "distributed.scheduler.worker-ttl": None,
    "distributed.admin.large-graph-warning-threshold": "1GB",
    "distributed.comm.retry.count": 0,
    "distributed.comm.timeouts.connect": f"{REACH_S}s",
}
"""Settings of Dask for clusters that are started here: what would use a worker's core beside the load is off."""


@contextlib.contextmanager
def client_of(spec: Spec) -> Iterator[Any]:
    """Yield Dask's client of a cluster that is started, or of a scheduler that runs."""
    import dask
    import distributed

    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(CONFIG))
        try:
            place = spec.address if spec.kind == "tcp" else stack.enter_context(_started(spec))
            client = distributed.Client(place, timeout=REACH_S, set_as_default=False, direct_to_workers=False)
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            where = (
                f"no Dask scheduler answers at {spec.address}" if spec.kind == "tcp" else f"{spec.text} did not start"
            )
            raise DeploymentError(f"{where}: {_reason(error)}") from error
        stack.callback(_close, client)
        yield client


def _close(client: Any) -> None:
    with contextlib.suppress(Exception):  # a scheduler that is gone
        client.close(timeout=3)


def _reason(error: BaseException) -> str:
    """Return an error's first line, or that of what caused it where it has none."""
    text = str(error).strip() or (str(error.__cause__).strip() if error.__cause__ else "") or type(error).__name__
    return text.splitlines()[0].rstrip(".")


@contextlib.contextmanager
def _started(spec: Spec) -> Iterator[Any]:
    """Yield a Dask cluster that ends with the context."""
    start = {"local": _local, "ssh": _ssh, "slurm": _slurm, "kubernetes": _kubernetes}[spec.kind]
    cluster = start(spec)
    try:
        yield cluster
    finally:
        with contextlib.suppress(Exception):  # what is gone need not be ended
            cluster.close(timeout=10)


def _local(spec: Spec) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=spec.workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        memory_limit=0,  # the rows of a load are few, and a nanny that ends a worker for its memory ends the trial
    )


def _ssh(spec: Spec) -> Any:
    from distributed import SSHCluster

    each = spec.workers // len(spec.hosts)
    return SSHCluster(
        [spec.hosts[0], *spec.hosts],
        worker_options={"nthreads": 1, "n_workers": each, "memory_limit": 0},
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
        remote_python=spec.settings.get("python", sys.executable),
    )


def _slurm(spec: Spec) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise MissingError("slurm needs dask-jobqueue: pip install 'infscale[cluster]'") from error
    if find_program("sbatch") is None:
        raise MissingError("slurm needs SLURM's program sbatch: run the command on a machine that submits jobs")
    options = {"queue": spec.address} if spec.address else {}
    cluster = SLURMCluster(
        cores=1,
        processes=1,
        memory="1GiB",
        python=spec.settings.get("python", sys.executable),
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
        worker_extra_args=["--memory-limit", "0"],
        **options,
    )
    cluster.scale(spec.workers)
    return cluster


def _kubernetes(spec: Spec) -> Any:
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise MissingError("kubernetes: needs the package dask-kubernetes, which is not among our pins") from error
    namespace, _, name = spec.address.partition("/")
    return KubeCluster.from_name(name, namespace=namespace)


def workers_of(spec: Spec, client: Any) -> list[str]:
    """Return the names of the workers that the scheduler knows.

    Raises:
        DeploymentError: the scheduler does not answer.
    """
    try:
        found = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=REACH_S)["workers"]
    except Exception as error:
        raise DeploymentError(f"the scheduler of {spec.text} does not answer any more: {_reason(error)}") from error
    return sorted(found)


def await_workers(spec: Spec, client: Any, least: int) -> list[str]:
    """Return the workers' names, once there are as many as asked for.

    Raises:
        DeploymentError: too few came in time.
    """
    wanted = max(least, spec.workers)
    end = time.monotonic() + JOIN_S[spec.kind]
    while len(names := workers_of(spec, client)) < wanted:
        if time.monotonic() > end:
            count = "no worker has" if not names else f"only {len(names)} of {wanted} workers have"
            start = f"; start one: dask worker {spec.address} --nthreads 1" if spec.kind == "tcp" else ""
            raise DeploymentError(f"{count} joined {spec.text} within {JOIN_S[spec.kind]:g} s{start}")
        time.sleep(0.05)
    return names


def host_of(name: str) -> str:
    """Return the host in a worker's name, ``tcp://host:port``."""
    return urlsplit(name).hostname or ""


def own_address(spec: Spec, client: Any) -> str:
    """Return the address of this machine on the way to the scheduler, where workers are taken to reach it."""
    if "host" in spec.settings:
        return spec.settings["host"]
    host = host_of(client.scheduler.address)
    family: Literal[socket.AddressFamily.AF_INET, socket.AddressFamily.AF_INET6] = (
        socket.AF_INET6 if ":" in host else socket.AF_INET
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])
