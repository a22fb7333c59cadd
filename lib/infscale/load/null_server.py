"""A server that does nothing: it sends a fixed reply to every request, over HTTP/1.1 and HTTP/2 (gRPC and REST).

It shows what a load generator can do at most. With service times that are set, its response times are known beforehand
(:func:`lindley`), which shows how well a generator measures.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infscale.errors import ConfigError, DeploymentError, one_of
from infscale.machine import split_cores

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NullServer:
    """A running null server.

    Attributes:
        rest: ``host:port`` of HTTP/1.1.
        grpc: ``host:port`` of HTTP/2 cleartext, for gRPC (any method) and for REST (``h2c://``).
        discard: ``host:port`` that reads and throws away whatever comes, and never answers.
        pid: id of its process.
        scheduler: scheduling policy of its process, "fifo" or "other".
    """

    rest: str
    grpc: str
    discard: str
    pid: int
    scheduler: str


@contextlib.contextmanager
def null_server(
    *,
    reply_bytes: int = 2,
    chunked: bool = False,
    service_ns: Times | None = None,
    workers: int = 1,
    max_streams: int | None = None,
    real_time: bool = True,
) -> Iterator[NullServer]:
    """Start a null server in a process of its own, which ends with the context or with this process; yields it.

    Args:
        reply_bytes: size of a reply's body (gRPC: of its message).
        chunked: send HTTP/1.1 replies in one chunk instead of with a Content-Length.
        service_ns: service times of one FIFO server for both ports: the reply to the i-th request received is sent at
            end_i = max(receipt_i, end_{i−1}) + service_ns[i]; requests beyond the array take 0. None replies at once.
        workers: how many requests the FIFO server works on at a time; each takes the first worker that is free.
        max_streams: most streams of an HTTP/2 connection, announced and enforced; None for no limit.
        real_time: ask for SCHED_FIFO, as the engine does.

    Raises:
        ConfigError: a negative size, service time or limit, or no worker.
        DeploymentError: the process did not start.
    """
    service = np.ascontiguousarray([] if service_ns is None else service_ns, dtype=np.int64)
    if reply_bytes < 0 or (service < 0).any() or (max_streams is not None and max_streams < 0):
        raise ConfigError(f"{reply_bytes=}, {max_streams=} and service_ns must not be negative; accepted: 0 or more")
    if workers < 1:
        raise ConfigError(f"{workers=} cannot answer; accepted: 1 or more")
    cores = split_cores()
    spec = {
        "host": "127.0.0.1",
        "reply_bytes": reply_bytes,
        "chunked": chunked,
        "max_streams": max_streams,
        "fifo": service_ns is not None,
        "service_bytes": service.nbytes,
        "workers": workers,
        "cores": sorted(cores[1]) if cores else None,
        "real_time": real_time,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "infscale.servers.null.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the owner only
    )
    try:
        yield _greet(process, json.dumps(spec).encode() + b"\n" + service.tobytes())
    finally:
        _end(process)


def _greet(process: "subprocess.Popen[bytes]", spec: bytes) -> NullServer:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(spec)
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise DeploymentError(f"the null server ended while starting (exit code {process.wait()})")
    hello = json.loads(line)
    address = {name: f"127.0.0.1:{hello[name]}" for name in ("rest", "grpc", "discard")}
    return NullServer(**address, pid=process.pid, scheduler=hello["scheduler"])


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def service_times(kind: str, mean_s: float, count: int, seed: int = 0) -> Times:
    """Return ``count`` service times in ns with mean ``mean_s``.

    Args:
        kind: "constant", or "exponential" (drawn by PCG64).
        mean_s: mean service time, s.
        count: how many.
        seed: of the draws.

    Raises:
        ConfigError: an unknown kind.
    """
    one_of("kind", kind, ("constant", "exponential"))
    if kind == "constant":
        return np.full(count, round(mean_s * 1e9), np.int64)
    return np.asarray(np.random.Generator(np.random.PCG64(seed)).exponential(mean_s * 1e9, count), dtype=np.int64)


def stall(at: int, stall_s: float) -> Times:
    """Return service times, ns, of a server that takes ``stall_s`` for request ``at`` (from 0) and 0 for any other."""
    return np.array([0] * at + [round(stall_s * 1e9)], np.int64)


def lindley(arrivals_ns: Times, service_ns: Times) -> Times:
    """Return the response times in a FIFO queue of one server, int64 ns, shape (n,).

    The wait is W_i = max(0, W_{i−1} + S_{i−1} − (a_i − a_{i−1})), with S the service and a the arrival times; the
    response time is W_i + S_i. Computed exactly in integers: with C_i the sum of the steps so far,
    W_i = C_i − min(C_0, ..., C_i).

    Args:
        arrivals_ns: arrival times, ascending, shape (n,).
        service_ns: service times, shape (n,) or longer; the first n count.

    Source: D. V. Lindley, "The theory of queues with a single server" (1952).
    """
    service = service_ns[: len(arrivals_ns)]
    steps = np.concatenate([np.zeros(min(1, len(arrivals_ns)), np.int64), service[:-1] - np.diff(arrivals_ns)])
    walk = np.cumsum(steps)
    return np.asarray(walk - np.minimum.accumulate(walk) + service, dtype=np.int64)
