"""A server that does nothing: it sends a fixed reply to every request, over HTTP/1.1 and HTTP/2 (gRPC and REST).

It shows what a load generator can do at most. With service times that are set, its response times are known beforehand
(:func:`lindley`), which shows how well a generator measures. With an :class:`Emission` it answers with streams whose
messages are stamped when they are written (:class:`Stamps`).
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from infscale.errors import ConfigError, DeploymentError, one_of
from infscale.machine import split_cores
from infscale.servers.null.emission import Emission, evenly, identity

__all__ = [
    "Emission",
    "NullServer",
    "Stamps",
    "Times",
    "evenly",
    "identity",
    "lindley",
    "null_server",
    "service_times",
    "stall",
]

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stamps:
    """When a null server received requests and wrote the messages of their streams, ns of CLOCK_MONOTONIC.

    Attributes:
        received_ns: by request, in the order of arrival, shape (requests,).
        request: number of each message's request, in the order of the writes, shape (messages,).
        index: the message's number within its stream, from 0, shape (messages,).
        written_ns: just before the message's write, shape (messages,).
    """

    received_ns: Times
    request: Times
    index: Times
    written_ns: Times

    def of(self, request: int) -> Times:
        """Return the stamps of one request's messages, in their order, shape (messages of it,)."""
        return np.asarray(self.written_ns[self.request == request], dtype=np.int64)


@dataclass(frozen=True)
class NullServer:
    """A running null server.

    Attributes:
        rest: ``host:port`` of HTTP/1.1.
        grpc: ``host:port`` of HTTP/2 cleartext, for gRPC (any method) and for REST (``h2c://``).
        discard: ``host:port`` that reads and throws away whatever comes, and never answers.
        pid: id of its process.
        scheduler: scheduling policy of its process, "fifo" or "other".
        stamps: returns those of all requests and messages so far, while the server runs; call it after a load and not
            during one, since it holds up what is due.
    """

    rest: str
    grpc: str
    discard: str
    pid: int
    scheduler: str
    stamps: Callable[[], Stamps] = field(repr=False)


@contextlib.contextmanager
def null_server(
    *,
    reply_bytes: int = 2,
    chunked: bool = False,
    service_ns: Times | None = None,
    workers: int = 1,
    max_streams: int | None = None,
    real_time: bool = True,
    stream: Emission | None = None,
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
        stream: answer each request with this stream of messages; None for a reply.

    Raises:
        ConfigError: a negative size, service time or limit, no worker, or service times of streams.
        DeploymentError: the process did not start.
    """
    service = np.ascontiguousarray([] if service_ns is None else service_ns, dtype=np.int64)
    if reply_bytes < 0 or (service < 0).any() or (max_streams is not None and max_streams < 0):
        raise ConfigError(f"{reply_bytes=}, {max_streams=} and service_ns must not be negative; accepted: 0 or more")
    if workers < 1:
        raise ConfigError(f"{workers=} cannot answer; accepted: 1 or more")
    if stream is not None and service_ns is not None:
        raise ConfigError("service_ns has no meaning for a stream, whose times are its own; accepted: one of the two")
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
        "stream": None if stream is None else stream.settings(),
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
    return NullServer(**address, pid=process.pid, scheduler=hello["scheduler"], stamps=lambda: _stamps(process))


def _stamps(process: "subprocess.Popen[bytes]") -> Stamps:
    """Ask a null server's process for the stamps."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"?")
    process.stdin.flush()
    requests, messages = json.loads(process.stdout.readline())
    received, written = (np.frombuffer(process.stdout.read(8 * count), np.int64) for count in (requests, messages))
    request = np.frombuffer(process.stdout.read(4 * messages), np.int32).astype(np.int64)
    order = np.argsort(request, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(request, minlength=requests))])
    index = np.empty(messages, np.int64)
    index[order] = np.arange(messages) - first[request[order]]
    return Stamps(received, request, index, written)


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
