"""A server that does nothing: a fixed reply to whatever it is asked, over HTTP/1.1 and HTTP/2 (gRPC and REST).

It shows what a load generator can do at most, and, with service times of its own choice, it is the server whose answers
are known beforehand: see :func:`lindley`.
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
        pid: of its process.
        scheduler: "fifo" or "other", the policy its process got.
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
    max_streams: int | None = None,
    real_time: bool = True,
) -> Iterator[NullServer]:
    """Start a null server in a process of its own; it ends with the context, or with this process.

    Args:
        reply_bytes: size of a reply's body (gRPC: of its message).
        chunked: HTTP/1.1 replies in one chunk instead of with a Content-Length.
        service_ns: None answers at once. Otherwise a single FIFO server for both ports: the i-th request received is
            answered at end_i = max(receipt_i, end_{i−1}) + service_ns[i]; those beyond the end of the array take 0.
        max_streams: most streams of an HTTP/2 connection, announced and held; None: no limit.
        real_time: ask for SCHED_FIFO, as the engine does.

    Raises:
        ConfigError: a negative size, service time or limit.
        DeploymentError: the process did not start.
    """
    service = np.ascontiguousarray([] if service_ns is None else service_ns, dtype=np.int64)
    if reply_bytes < 0 or (service < 0).any() or (max_streams is not None and max_streams < 0):
        raise ConfigError(f"{reply_bytes=}, {max_streams=} and service_ns must not be negative; accepted: 0 or more")
    cores = split_cores()
    spec = {
        "host": "127.0.0.1",
        "reply_bytes": reply_bytes,
        "chunked": chunked,
        "max_streams": max_streams,
        "fifo": service_ns is not None,
        "service_bytes": service.nbytes,
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
    """``count`` service times in ns: "constant", or "exponential" (PCG64, by seed) with mean ``mean_s``.

    Raises:
        ConfigError: unknown kind.
    """
    one_of("kind", kind, ("constant", "exponential"))
    if kind == "constant":
        return np.full(count, round(mean_s * 1e9), np.int64)
    return np.asarray(np.random.Generator(np.random.PCG64(seed)).exponential(mean_s * 1e9, count), dtype=np.int64)


def stall(at: int, stall_s: float) -> Times:
    """Service times of a server that answers at once, but for request ``at`` (from 0), which takes ``stall_s``."""
    return np.array([0] * at + [round(stall_s * 1e9)], np.int64)


def lindley(arrivals_ns: Times, service_ns: Times) -> Times:
    """Response times in a FIFO queue of one server: W_i + S_i, W_i = max(0, W_{i−1} + S_{i−1} − (a_i − a_{i−1})).

    Exact in integers: with C_i the sum of the steps so far, W_i = C_i − min(C_0, …, C_i) (Lindley 1952).

    Args:
        arrivals_ns: ascending, shape (n,).
        service_ns: shape (n,) or longer; only the first n count.
    """
    service = service_ns[: len(arrivals_ns)]
    steps = np.concatenate([np.zeros(min(1, len(arrivals_ns)), np.int64), service[:-1] - np.diff(arrivals_ns)])
    walk = np.cumsum(steps)
    return np.asarray(walk - np.minimum.accumulate(walk) + service, dtype=np.int64)
