"""Sends a schedule through a common client library instead of the load engine: ``requests`` (REST), ``grpcio`` (gRPC).

The rows are like the load engine's, with the same scheduled times and the same clock, so that a difference in response
time is the library's. The client has a process of its own, with the engine's cores and priority. One thread follows the
schedule; ``requests`` sends from a pool of threads with a session, and so a connection, each; ``grpcio`` from its own
threads, over one channel for each connection. The bytes that a library sends cannot be seen:
they are :data:`~infscale.records.samples.NEVER`.
"""

import gc
import os
import pickle
import re
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from infscale.errors import EngineError, one_of
from infscale.load.engine import status
from infscale.load.engine.child import allow_files, peak_memory_bytes, prioritise
from infscale.load.engine.loop import MOST_REASON
from infscale.load.engine.run import REASONS_KEPT, Result
from infscale.load.engine.wire.http1 import excerpt
from infscale.records.manifest import Generator, Reason
from infscale.records.samples import NEVER

THREADS = 64
"""Most sessions of ``requests``, each in a thread of its own."""
_START_IN_NS = 100_000_000
"""Time between the end of the preparations and the schedule's start, ns."""
_PATIENCE_S = 60.0
"""Longest wait for the client's process after the last request's timeout, s."""

Ints = npt.NDArray[np.int64]


@dataclass
class Job:
    """What the client's process needs; times in ns since the schedule's start."""

    client: str
    url: str
    bodies: Sequence[bytes]
    schedule: Ints
    choice: npt.NDArray[np.int32]
    timeout_ns: int
    connections: int
    headers: Mapping[str, str]
    ca: str = ""
    cores: Sequence[int] = ()


def run(
    client: str,
    url: str,
    bodies: Sequence[bytes],
    schedule: Ints,
    choice: npt.NDArray[np.int32],
    *,
    timeout_s: float,
    connections: int,
    headers: Mapping[str, str],
    ca: str = "",
    cores: Sequence[int] = (),
) -> Result:
    """Send a schedule through a client library and return when every request has an outcome.

    Args:
        client: "requests" or "grpcio".
        url: ``http://host:port/path`` or ``grpc://host:port/package.Service/Method``, or the same with https or grpcs.
        bodies: the pool.
        schedule: int64 ns, ascending.
        choice: the body that each request carries, as an index into the pool.
        timeout_s: time from a request's scheduled time to giving it up, s.
        connections: most connections at a time.
        headers: sent with every request; ``host`` is the authority that is asked for.
        ca: file of trusted certificates; "" for the client's own.
        cores: CPUs that the process may use; empty for any.

    Raises:
        ConfigError: an unknown client.
        EngineError: its process failed.
        KeyboardInterrupt: Ctrl-C ended it in its middle; the library's process gives no rows then.
    """
    one_of("client", client, ("requests", "grpcio"))
    job = Job(client, url, bodies, schedule, choice, int(timeout_s * 1e9), connections, headers, ca, cores)
    command, data = [sys.executable, "-m", "infscale.load.clients"], pickle.dumps(job, protocol=5)
    longest_s = float(schedule[-1]) / 1e9 + timeout_s + _PATIENCE_S if len(schedule) else _PATIENCE_S
    try:
        process = subprocess.run(command, input=data, capture_output=True, timeout=longest_s)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"the client {client} had not ended after {longest_s:.0f} s") from error
    if process.returncode:
        raise EngineError(f"the client {client} failed: {process.stderr.decode(errors='replace')[-2000:]}")
    answer: _Answer = pickle.loads(process.stdout)
    n = len(schedule)
    columns = {
        "sequence": np.arange(n, dtype=np.int64),
        "scheduled_ns": schedule,
        "due_ns": answer["due"],
        "sent_ns": answer["sent"],
        "first_byte_ns": answer["done"],
        "done_ns": answer["done"],
        "status": pd.Categorical(answer["status"]),
        "bytes_out": np.full(n, NEVER),
        "bytes_in": np.full(n, NEVER),
        "payload": choice,
        "connection": np.zeros(n, np.int32),
        "shard": np.zeros(n, np.int32),
    }
    return Result(pd.DataFrame(columns), answer["generator"])


# ------------------------------------------------------------------------------------- in the process


class _Answer(TypedDict):
    """What the process sends back; times in ns from its start, each of shape (requests,)."""

    due: Ints
    sent: Ints
    done: Ints
    status: list[str]
    generator: Generator


class _Rows:
    """Times and outcome of each request; every slot is written by one thread only."""

    def __init__(self, job: Job) -> None:
        n = len(job.schedule)
        self.due, self.sent, self.done = (np.full(n, NEVER, np.int64) for _ in range(3))
        self.status = ["unsent"] * n
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.start = 0
        self._left, self._all = n, threading.Event()
        self._lock = threading.Lock()

    def now(self) -> int:
        return time.monotonic_ns() - self.start

    def end(self, i: int, status: str, why: str = "", answer: bytes = b"") -> None:
        """Note the outcome of request ``i``, and why it failed; who wants its ``answer`` overrides this."""
        self.done[i], self.status[i] = self.now(), status
        with self._lock:
            if why:
                self.reasons[status, why[:MOST_REASON]] += 1
            self._left -= 1
            if not self._left:
                self._all.set()

    def wait(self) -> None:
        self._all.wait()


Send = Callable[[int], None]


def _why(message: str) -> str:
    """Return the status of a request that failed with this message of requests, which holds that of the system."""
    number = re.search(r"\[Errno (\d+)\]", message)
    otherwise = status.REFUSED if "refused" in message else status.RESET
    return status.name(status.of_errno(int(number[1]) if number else None, otherwise))


def _requests(job: Job, rows: _Rows) -> tuple[Send, Callable[[], None]]:
    import requests

    local = threading.local()
    pool = ThreadPoolExecutor(min(job.connections, THREADS))

    def one(i: int) -> None:
        session = getattr(local, "session", None)
        if session is None:
            session = local.session = requests.Session()
            session.trust_env = False
            session.verify = job.ca or True
        rows.sent[i] = rows.now()
        left = (job.schedule[i] + job.timeout_ns - rows.sent[i]) / 1e9
        try:
            if left <= 0:
                raise requests.Timeout
            answer = session.post(job.url, data=job.bodies[job.choice[i]], headers=job.headers, timeout=left)
            if answer.status_code < 300:
                rows.end(i, "ok", answer=answer.content)
            else:
                rows.end(i, f"http_{answer.status_code}", excerpt(answer.content))
        except requests.Timeout:
            rows.end(i, "timeout")
        except (requests.RequestException, OSError) as error:
            rows.end(i, _why(str(error)), re.sub(r" object at 0x[0-9a-f]+", "", str(error)))

    def send(i: int) -> None:
        pool.submit(one, i)

    return send, pool.shutdown


def _grpcio(job: Job, rows: _Rows) -> tuple[Send, Callable[[], None]]:
    import grpc

    scheme, _, rest = job.url.partition("://")
    address, _, path = rest.partition("/")
    metadata = {name.lower(): value for name, value in job.headers.items()}
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    options += [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if host := metadata.pop("host", ""):
        options.append(("grpc.default_authority", host))
    sent = tuple(metadata.items())
    trusted = grpc.ssl_channel_credentials(Path(job.ca).read_bytes() if job.ca else None)
    channels = [
        grpc.secure_channel(address, trusted, options=options)
        if scheme == "grpcs"
        else grpc.insecure_channel(address, options=options)
        for _ in range(job.connections)
    ]
    calls: list[Any] = [channel.unary_unary(f"/{path}", None, None) for channel in channels]

    def ended(i: int, future: Any) -> None:
        code = future.code()
        if code is grpc.StatusCode.OK:
            rows.end(i, "ok", answer=future.result())
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            rows.end(i, "timeout")
        else:
            rows.end(i, f"grpc_{code.name}", future.details() or "")

    def send(i: int) -> None:
        rows.sent[i] = rows.now()
        left = max(0.0, (job.schedule[i] + job.timeout_ns - rows.sent[i]) / 1e9)
        future = calls[i % len(calls)].future(job.bodies[job.choice[i]], timeout=left, metadata=sent)
        future.add_done_callback(lambda f: ended(i, f))

    def close() -> None:
        for channel in channels:
            channel.close()

    return send, close


def _run_delay_s() -> float | None:
    """Return the time in which this process's living threads were ready to run but had no core, s.

    None where the kernel keeps none.
    """
    delays = [int(file.read_text().split()[1]) for file in Path("/proc/self/task").glob("*/schedstat")]
    return sum(delays) / 1e9 if delays else None


class Meter:
    """Measures what a client's process uses from the making of the meter, or its last beginning, to its reading."""

    def __init__(self, scheduler: str) -> None:
        gc.collect()
        gc.disable()
        self.scheduler = scheduler
        self.begin()

    def begin(self) -> None:
        """Begin anew: what was used before does not count."""
        self._before, self._delayed = resource.getrusage(resource.RUSAGE_SELF), _run_delay_s()

    def read(self, client: str, start_ns: int, reasons: Counter[tuple[str, str]]) -> Generator:
        """Return the record of a generator whose load began at ``start_ns`` on the monotonic clock and ends now.

        Args:
            client: its name.
            start_ns: the trial's time 0, ns.
            reasons: how many requests failed, by status and what was said.
        """
        after, wall_s, delayed = (
            resource.getrusage(resource.RUSAGE_SELF),
            (time.monotonic_ns() - start_ns) / 1e9,
            _run_delay_s(),
        )
        user, system = after.ru_utime - self._before.ru_utime, after.ru_stime - self._before.ru_stime
        return Generator(
            client=client,
            cpu_s=user + system,
            cpu_user_s=user,
            cpu_system_s=system,
            wall_s=wall_s,
            start_ns=start_ns,
            # Threads that ended meanwhile take their delays along.
            run_delay_s=None if delayed is None or self._delayed is None else max(0.0, delayed - self._delayed),
            scheduler=self.scheduler,
            peak_memory_bytes=peak_memory_bytes(),
            reasons=[Reason(*key, count) for key, count in reasons.most_common(REASONS_KEPT)],
        )


def _drive(job: Job) -> _Answer:
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    allow_files()
    scheduler = prioritise()  # threads that start from here on have it, too
    rows = _Rows(job)
    send, close = {"requests": _requests, "grpcio": _grpcio}[job.client](job, rows)
    meter = Meter(scheduler)
    rows.start = time.monotonic_ns() + _START_IN_NS
    for i, scheduled in enumerate(job.schedule.tolist()):
        early = scheduled - rows.now()
        if early > 0:
            time.sleep(early / 1e9)
        rows.due[i] = rows.now()
        send(i)
    rows.wait()
    generator = meter.read(job.client, rows.start, rows.reasons)
    close()
    return {"due": rows.due, "sent": rows.sent, "done": rows.done, "status": rows.status, "generator": generator}


if __name__ == "__main__":
    # Under -m this module is __main__: a job pickled by its own name must be found there too.
    sys.modules["infscale.load.clients"] = sys.modules["__main__"]
    sys.stdout.buffer.write(pickle.dumps(_drive(pickle.load(sys.stdin.buffer)), protocol=5))
