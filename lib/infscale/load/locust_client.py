"""Drives a load with users of Locust, a load-testing framework: without its page in a trial, or with it for exploring.

The users are a closed loop: each waits for its answer before it goes on. Users of "locust" are paced by Locust's
``constant_throughput``, those of "locust-poisson" wait by its ``poisson`` after every answer; each has an even share of
the nominal rate. So an answer that is late delays the next request of its user, and what was not sent meanwhile is
never sent: the nominal rate is, on average, the most that is sent. Where it is beyond what the users can do, they do
not wait: each sends at once after every answer.

The rows have the load engine's columns and clock. As there is no schedule, ``scheduled_ns`` is the time at which a user
was ready to send: when its wait had ended. Locust's own statistics are kept beside the rows. REST is sent by Locust's
``FastHttpUser``, gRPC by ``grpcio`` under gevent, as Locust's documentation says. A process of its own is patched by
gevent and has the engine's cores and priority; nothing of Locust is imported in this one.
"""

if __name__ == "__main__":
    import locust  # it patches the standard library, which must be done before anything else uses it

import contextlib
import os
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from infscale.errors import ConfigError, EngineError, MissingError
from infscale.load.clients import Meter
from infscale.load.engine import status
from infscale.load.engine.child import allow_files, prioritise
from infscale.load.engine.loop import MOST_REASON
from infscale.load.engine.run import Result
from infscale.load.engine.wire.http1 import excerpt
from infscale.programs import package_version
from infscale.records.manifest import Generator, Reported
from infscale.records.samples import NEVER

if TYPE_CHECKING:
    import locust

NAME = "predict"
"""The name of the requests in Locust's statistics."""

_START_IN_NS = 100_000_000
"""Time between the start of all users and the load's, ns."""
_PATIENCE_S = 60.0
"""Longest wait for the client's process after the last request's timeout, s."""
_GRACE_S = 1.0
"""Time beyond a request's timeout after which a user that still waits is ended, s."""
_PAGE = "page "
"""What stands before the address of Locust's page on standard output."""


@dataclass(frozen=True)
class Job:
    """What the process of Locust needs.

    Attributes:
        client: "locust" or "locust-poisson"; "" serves Locust's page, and does without what follows ``ca``.
        url: ``http://host:port/path`` or ``grpc://host:port/package.Service/Method``, or the same with https or grpcs.
        bodies: the pool.
        headers: sent with every request; ``host`` is the authority that is asked for.
        timeout_s: time from a request's sending to giving it up, s.
        ca: file of trusted certificates; "" for the client's own.
        choice: the bodies that requests carry in the order of their sending, as indices into the pool.
        users: how many are started.
        rate_per_s: nominal rate of all users, requests/s.
        duration_s: time after which no request is sent, s.
        seed: of the users' waits.
        cores: CPUs that the process may use; empty for any.
        host, port: where the page is served; port 0 takes a free one.
    """

    client: str
    url: str
    bodies: Sequence[bytes]
    headers: Mapping[str, str]
    timeout_s: float
    ca: str = ""
    choice: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(1, np.int32))
    users: int = 1
    rate_per_s: float = 0.0
    duration_s: float = 0.0
    seed: int = 0
    cores: Sequence[int] = ()
    host: str = ""
    port: int = 0


def check_installed() -> None:
    """Find out whether Locust is installed.

    Raises:
        MissingError: it is not; the message has the command that installs it.
    """
    if not package_version(("locust", "gevent"), "locust"):
        raise MissingError(f"Locust is not installed: {sys.executable} -m pip install locust")


def run(
    client: str,
    url: str,
    bodies: Sequence[bytes],
    choice: npt.NDArray[np.int32],
    *,
    rate_per_s: float,
    duration_s: float,
    seed: int,
    timeout_s: float,
    connections: int,
    headers: Mapping[str, str],
    ca: str = "",
    cores: Sequence[int] = (),
) -> Result:
    """Load a server with users of Locust, and return when every request has an outcome.

    Args:
        client: "locust" or "locust-poisson".
        url, bodies, headers, ca, cores: as of :func:`infscale.load.clients.run`.
        choice: the body of each request, as an index into the pool; begun again where more requests are sent.
        rate_per_s: nominal rate of all users together, requests/s.
        duration_s: time after which no request is sent, s.
        seed: of the waits.
        timeout_s: time from a request's sending to giving it up, s.
        connections: how many users there are, each with a connection.

    Raises:
        ConfigError: no request to send.
        MissingError: Locust is not installed.
        EngineError: its process failed.
        KeyboardInterrupt: Ctrl-C ended it in its middle; it gives no rows then.
    """
    check_installed()
    if not len(choice):
        raise ConfigError("the nominal rate × the duration is less than a request")
    job = Job(
        client=client,
        url=url,
        bodies=bodies,
        headers=headers,
        timeout_s=timeout_s,
        ca=ca,
        choice=choice,
        users=connections,
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        seed=seed,
        cores=cores,
    )
    longest_s = duration_s + timeout_s + _PATIENCE_S
    try:
        process = subprocess.run(_COMMAND, input=pickle.dumps(job, protocol=5), capture_output=True, timeout=longest_s)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"the client {client} had not ended after {longest_s:.0f} s") from error
    if process.returncode:
        raise EngineError(f"the client {client} failed: {process.stderr.decode(errors='replace')[-2000:]}")
    columns, generator = pickle.loads(process.stdout)
    return Result(_frame(columns), generator)


@contextlib.contextmanager
def page(
    url: str,
    bodies: Sequence[bytes],
    *,
    timeout_s: float,
    headers: Mapping[str, str],
    host: str,
    port: int,
    ca: str = "",
) -> Iterator[tuple[int, str]]:
    """Serve Locust's own page, whose users send requests of one pool, while the context lasts.

    Its process ends when its standard input does, and so with the one that started it.

    Yields:
        The id of its process, and the page's address.

    Args:
        url, bodies, timeout_s, headers, ca: as of :func:`run`.
        host, port: where the page is served; port 0 takes a free one.

    Raises:
        MissingError: Locust is not installed.
        EngineError: its process failed, also because the port is taken.
    """
    check_installed()
    job = Job("", url, bodies, headers, timeout_s, ca, host=host, port=port)
    process = subprocess.Popen(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the owner only
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(job, process.stdin, protocol=5)
            process.stdin.flush()
        line = process.stdout.readline().decode().strip()
        if not line.startswith(_PAGE):
            raise EngineError(f"Locust cannot serve its page at {host}:{port}: {line or 'its process ended'}")
        yield process.pid, line.removeprefix(_PAGE)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_COMMAND = [sys.executable, "-m", "infscale.load.locust_client"]


def _frame(columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    """Return the rows of a load by the time at which their users were ready to send them."""
    n = len(columns["ready"])
    ready, sent, done = (np.array(columns[name], np.int64) for name in ("ready", "sent", "done"))
    frame = pd.DataFrame(
        {
            "scheduled_ns": ready,
            "due_ns": ready,
            "sent_ns": sent,
            "first_byte_ns": done,
            "done_ns": done,
            "status": pd.Categorical(columns["status"]),
            "bytes_out": np.full(n, NEVER),
            "bytes_in": np.full(n, NEVER),
            "payload": np.array(columns["payload"], np.int32),
            "connection": np.array(columns["user"], np.int32),
            "shard": np.zeros(n, np.int32),
        }
    ).sort_values("scheduled_ns", kind="stable", ignore_index=True)
    frame.insert(0, "sequence", np.arange(n, dtype=np.int64))
    return frame


# ------------------------------------------------------------------------------------- in the process


class _Rows:
    """The rows so far, each an entry of every column. One thread runs all users, so that nothing is locked."""

    def __init__(self, job: Job) -> None:
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("ready", "sent", "done", "status", "payload", "user")
        }
        self.reasons: Counter[tuple[str, str]] = Counter()
        self._job, self.start, self._sent = job, 0, 0

    def now(self) -> int:
        return time.monotonic_ns() - self.start

    def next_body(self) -> int:
        """Return the place in the pool of the next request's body."""
        self._sent += 1
        return int(self._job.choice[(self._sent - 1) % len(self._job.choice)])

    def add(self, ready: int, sent: int, payload: int, user: int, outcome: tuple[str, str]) -> None:
        """Add a row that ends now, with its status and why it failed."""
        row = (ready, sent, self.now(), outcome[0], payload, user)
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        if outcome[1]:
            self.reasons[outcome[0], outcome[1][:MOST_REASON]] += 1


def _of_error(error: Exception) -> tuple[str, str]:
    """Return the status and the reason of a REST request that ended in an exception."""
    error = getattr(error, "original", None) or error  # of geventhttpclient's ConnectionError
    text = re.sub(r" object at 0x[0-9a-f]+", "", str(error) or type(error).__name__)
    if isinstance(error, TimeoutError):
        return "timeout", ""
    otherwise = status.REFUSED if isinstance(error, ConnectionRefusedError) else status.RESET
    number = error.errno if isinstance(error, OSError) else None
    return status.name(status.of_errno(number, otherwise)), text


Send = Callable[[int], tuple[str, str]]
"""Sends the body at a place in the pool, and returns the status and why it failed."""


def _rest_user(job: Job) -> "type[locust.User]":
    import ssl

    import locust

    # Locust would ask for compressed answers, which no other client here does.
    headers = {"accept-encoding": "identity", **job.headers}

    scheme, _, rest = job.url.partition("://")
    address, _, path = rest.partition("/")

    class RestUser(locust.FastHttpUser):
        abstract = True
        host = f"{scheme}://{address}"
        network_timeout = connection_timeout = job.timeout_s
        insecure = False
        ssl_context_factory = staticmethod(lambda: ssl.create_default_context(cafile=job.ca or None))

        def transmit(self, body: int) -> tuple[str, str]:
            answer: Any = self.client.post(f"/{path}", data=job.bodies[body], headers=headers, name=NAME)  # type: ignore[arg-type]
            if not answer.status_code:
                return _of_error(answer.error)
            if answer.status_code < 300:
                return "ok", ""
            return f"http_{answer.status_code}", excerpt(answer.content or b"")

    return RestUser


def _grpc_user(job: Job) -> "type[locust.User]":
    import grpc
    import grpc.experimental.gevent
    import locust

    grpc.experimental.gevent.init_gevent()
    scheme, _, rest = job.url.partition("://")
    address, _, path = rest.partition("/")
    metadata = {name.lower(): value for name, value in job.headers.items()}
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    options += [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if host := metadata.pop("host", ""):
        options.append(("grpc.default_authority", host))
    sent = tuple(metadata.items())

    class GrpcUser(locust.User):
        abstract = True

        def __init__(self, environment: Any) -> None:
            super().__init__(environment)
            if scheme == "grpcs":
                trusted = grpc.ssl_channel_credentials(Path(job.ca).read_bytes() if job.ca else None)
                channel = grpc.secure_channel(address, trusted, options=options)
            else:
                channel = grpc.insecure_channel(address, options=options)
            self.call: Any = channel.unary_unary(f"/{path}", None, None)

        def transmit(self, body: int) -> tuple[str, str]:
            began, answer, failed = time.perf_counter(), b"", None
            try:
                answer = self.call(job.bodies[body], timeout=job.timeout_s, metadata=sent)
            except grpc.RpcError as error:
                failed = error
            self.environment.events.request.fire(
                request_type="grpc",
                name=NAME,
                response_time=1000 * (time.perf_counter() - began),
                response_length=len(answer),
                exception=failed,
                context={},
                response=answer,
            )
            if failed is None:
                return "ok", ""
            code = failed.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                return "timeout", ""
            return f"grpc_{code.name}", failed.details() or ""

    return GrpcUser


def _user(job: Job) -> "type[locust.User]":
    """Return the class of users that send the job's requests; ``transmit`` sends one."""
    return _grpc_user(job) if job.url.startswith("grpc") else _rest_user(job)


def _measure(job: Job) -> tuple[dict[str, list[Any]], Generator]:
    """Run the load, and return the columns of the rows and the record of the generator."""
    import random

    import gevent
    import gevent.event
    import locust
    from locust.env import Environment

    random.seed(job.seed)  # Locust's waits are drawn from it
    rows, go, end_ns = _Rows(job), gevent.event.Event(), int(job.duration_s * 1e9)
    each_per_s, paced = job.rate_per_s / job.users, job.client == "locust"
    waits = locust.constant_throughput(each_per_s) if paced else locust.poisson(each_per_s)
    numbers = iter(range(job.users))
    kind: Any = _user(job)

    class Loading(kind):  # type: ignore[misc]
        wait_time = waits

        def on_start(self) -> None:
            """Begin with a wait, so that users who are started together do not send together."""
            self.number = next(numbers)
            go.wait()
            first_s = self.number / job.rate_per_s if paced else self.wait_time()
            gevent.sleep(max(0.0, min(first_s, job.duration_s) - rows.now() / 1e9))
            self._cp_last_run = time.perf_counter()  # constant_throughput would count from the user's making

        @locust.task
        def send(self) -> None:
            ready = rows.now()
            if ready >= end_ns:
                raise locust.exception.StopUser
            body = rows.next_body()
            sent = rows.now()
            rows.add(ready, sent, body, self.number, self.transmit(body))

    environment = Environment(user_classes=[Loading], stop_timeout=job.timeout_s + _GRACE_S)
    runner = environment.create_local_runner()
    scheduler = prioritise()
    runner.start(job.users, spawn_rate=job.users)
    assert runner.spawning_greenlet is not None
    runner.spawning_greenlet.join()
    environment.stats.reset_all()
    meter = Meter(scheduler)
    rows.start = time.monotonic_ns() + _START_IN_NS
    gevent.sleep(_START_IN_NS / 1e9)
    environment.stats.total.start_time = time.time()
    go.set()
    gevent.sleep(max(0.0, job.duration_s - rows.now() / 1e9))
    runner.stop()  # users that wait for an answer get it, or their timeout
    generator = meter.read(job.client, rows.start, rows.reasons)
    generator.reported = _reported(environment.stats.total)
    return rows.columns, generator


def _reported(own: Any) -> Reported:
    """Return what Locust says by an entry of its statistics, in whole ms; failures are among its requests."""
    said = Reported(tool=f"Locust {package_version(('locust',), 'locust')}", requests=own.num_requests)
    if own.num_requests:
        said.p50_ms, said.p95_ms, said.p99_ms = (float(own.get_response_time_percentile(p)) for p in (0.5, 0.95, 0.99))
        said.throughput_per_s = float(own.total_rps)
    return said


def _explore(job: Job, out: int) -> None:
    """Serve Locust's page until standard input ends; write its address to ``out``, or why there is none."""
    import random
    import socket

    import gevent
    import gevent.os
    import locust
    from locust.env import Environment
    from locust.stats import stats_history

    kind: Any = _user(job)

    class Exploring(kind):  # type: ignore[misc]
        @locust.task
        def send(self) -> None:
            self.transmit(random.randrange(len(job.bodies)))

    try:
        with socket.create_server((job.host, job.port)) as there:
            port = there.getsockname()[1]
    except OSError as error:
        os.write(out, f"{error.strerror}\n".encode())
        return
    environment = Environment(user_classes=[Exploring], stop_timeout=job.timeout_s)
    runner = environment.create_local_runner()
    web = environment.create_web_ui(job.host, port)
    while not (web.server and web.server.started):
        gevent.sleep(0.01)
    gevent.spawn(stats_history, runner)  # the curves of the page
    os.write(out, f"{_PAGE}http://{job.host}:{port}\n".encode())
    gevent.os.tp_read(0, 1)
    runner.quit()


def main() -> None:
    """Read a job from standard input, and do it. What Locust prints goes to standard error."""
    job: Job = pickle.load(sys.stdin.buffer)
    out = os.dup(1)
    os.dup2(2, 1)
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    allow_files()
    if not job.client:
        _explore(job, out)
        return
    with open(out, "wb") as answer:
        pickle.dump(_measure(job), answer, protocol=5)


if __name__ == "__main__":
    # Under -m this module is __main__: a job pickled by its own name must be found there too.
    sys.modules["infscale.load.locust_client"] = sys.modules["__main__"]
    main()
