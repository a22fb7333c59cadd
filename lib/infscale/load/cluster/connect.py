"""Reaching the workers: starts or finds a Dask cluster, and draws a line to each of its workers."""

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from infscale.errors import DeploymentError, EngineError
from infscale.load.cluster import clocks, scheduler, station
from infscale.load.cluster.clocks import Reading
from infscale.load.cluster.line import Hello, Line, LineBrokenError
from infscale.load.cluster.spec import Spec

CONNECT_S = 60.0
"""Longest wait for a worker to run its task and connect, s: its first imports take some."""

HELLO_S = 10.0
"""Longest wait for what a worker says first, s."""

ROUND_TRIPS, BURSTS, BURST_GAP_S = 40, 4, 0.08
"""Round trips of one reading of a clock; readings when a worker joins, and the seconds between them."""

Serve = Callable[..., None]
"""What a worker runs: :func:`infscale.load.cluster.station.serve`, or that of an agent."""


@dataclass
class Member:
    """A worker process with a line to it.

    Attributes:
        name: its address within Dask.
        line: to it.
        hello: what it is.
        future: of its task; kept, because Dask forgets a task that nobody waits for.
        readings: of its clock.
        pools: names of the bodies that it has, oldest first.
        lost: why the line ended; "" while it holds.
    """

    name: str
    line: Line
    hello: Hello
    future: Any = field(repr=False)
    readings: list[Reading] = field(default_factory=list)
    pools: list[str] = field(default_factory=list)
    lost: str = ""

    def clock(self) -> clocks.Clock:
        """Return its clock, by all readings."""
        return clocks.fit(self.readings)

    def read_clock(self) -> Reading:
        """Read its clock once more, by the fastest of some round trips.

        Raises:
            LineBrokenError: it is gone.
        """
        self.readings.append(clocks.best([self.line.exchange() for _ in range(ROUND_TRIPS)]))
        return self.readings[-1]

    def drop(self, why: str) -> None:
        """Give it up."""
        self.lost = self.lost or why
        self.line.close()


@dataclass
class Cluster:
    """Workers that are ready for loads.

    Attributes:
        spec: what was asked for.
        client: Dask's, connected to the scheduler.
        listener: where workers connect to.
        members: the workers that make load; lost ones are replaced by :func:`renew`.
        wanted: how many there were at first: the load is made of so many parts, whoever sends them.
        engines: engine processes of each.
        reserved: names of workers that make no load.
        gone: names of workers that were lost; their scheduler may not know yet.
    """

    spec: Spec
    client: Any = field(repr=False)
    listener: socket.socket = field(repr=False)
    members: list[Member] = field(default_factory=list)
    wanted: int = 0
    engines: int = 1
    reserved: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)

    @property
    def shards(self) -> int:
        """Return into how many processes every load is divided."""
        return self.wanted * self.engines

    def pids_here(self) -> set[int]:
        """Return the ids of those workers' processes that run on this machine."""
        boot = station.facts().boot
        return {member.hello.pid for member in self.members if member.hello.boot == boot}


@contextlib.contextmanager
def connected(spec: Spec, *, engines: int = 1, reserve: Sequence[str] = ()) -> Iterator[Cluster]:
    """Start the workers of a cluster, or find them, check them, and measure their clocks.

    Args:
        spec: which cluster.
        engines: engine processes of each worker.
        reserve: hosts on which one worker makes no load; of a local cluster it is one more, as it is of a scheduler
            that runs.

    Raises:
        DeploymentError: no scheduler or no worker answers, or one cannot connect to this machine.
        EngineError: a worker has another version of the package, draws another schedule, or has a clock that cannot be
            aligned.
        MissingError: Dask, or what the kind of cluster needs, is not installed.
    """
    with contextlib.ExitStack() as stack:
        scheduler.check_installed()
        stack.enter_context(scheduler.quiet())
        more = len(reserve) if spec.kind in ("local", "tcp", "kubernetes") else 0
        whole = replace(spec, workers=spec.workers + more) if spec.workers else spec
        client = stack.enter_context(scheduler.client_of(whole))
        own = scheduler.own_address(spec, client)
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        listener = stack.enter_context(socket.create_server((own, 0), family=family))
        cluster = Cluster(spec, client, listener, engines=engines)
        stack.callback(_drop_all, cluster)
        names = scheduler.await_workers(whole, client, 1 + len(reserve))
        for host in reserve:
            cluster.reserved.add(_at(host, [name for name in names if name not in cluster.reserved]))
        free = [name for name in names if name not in cluster.reserved]
        cluster.members = join(cluster, free[: spec.workers or None], station.serve)
        cluster.wanted = len(cluster.members)
        yield cluster


def _drop_all(cluster: Cluster) -> None:
    for member in cluster.members:
        member.drop("the load has ended")


def renew(cluster: Cluster, patience_s: float = 10.0) -> None:
    """Ask every worker whether it is there, and replace those that are not; new ones are awaited ``patience_s`` (s).

    Raises:
        DeploymentError: the scheduler has gone, or no worker is left.
    """
    for member in cluster.members:
        try:
            if not member.lost:
                member.line.exchange()
        except LineBrokenError as error:
            member.drop(str(error))
    cluster.gone |= {member.name for member in cluster.members if member.lost}
    cluster.members = [member for member in cluster.members if not member.lost]
    end = time.monotonic() + patience_s
    while len(cluster.members) < cluster.wanted:
        known = {member.name for member in cluster.members} | cluster.reserved | cluster.gone
        new = [name for name in scheduler.workers_of(cluster.spec, cluster.client) if name not in known]
        if new:
            cluster.members += join(cluster, new[: cluster.wanted - len(cluster.members)], station.serve)
        elif time.monotonic() > end:
            break
        else:
            time.sleep(0.1)
    if not cluster.members:
        raise DeploymentError(f"no worker of {cluster.spec.text} is left: all were lost, and none came back")


def join(cluster: Cluster, names: Sequence[str], serve: Serve) -> list[Member]:
    """Let workers run ``serve``, and return them once each has connected, was checked, and its clock was read.

    Raises:
        DeploymentError, EngineError: as :func:`connected`.
    """
    local = cluster.spec.kind == "local"
    pending = {}
    for name in names:
        token = secrets.token_hex(16)
        # Never on another worker, never again: a shard that comes late is no shard.
        future = cluster.client.submit(
            serve,
            *cluster.listener.getsockname()[:2],
            token,
            apart=local,
            workers=[name],
            allow_other_workers=False,
            retries=0,
            pure=False,
            key=f"infscale-{secrets.token_hex(8)}",
        )
        pending[token] = (name, future)
    members = []
    end = time.monotonic() + CONNECT_S
    try:
        while pending:
            if (member := _accepted(cluster, pending, end)) is not None:
                members.append(member)
                _check(member)
        for _ in range(BURSTS):
            for member in members:
                member.read_clock()
            time.sleep(BURST_GAP_S)
        for member in members:
            _check_clock(member)
    except BaseException:
        for member in members:
            member.drop("refused")
        raise
    return members


def _accepted(cluster: Cluster, pending: dict[str, tuple[str, Any]], end: float) -> Member | None:
    """Return the next worker that connects with a token of ``pending``; None if nobody did for a moment."""
    cluster.listener.settimeout(0.1)
    try:
        sock, _ = cluster.listener.accept()
    except TimeoutError:
        _check_tasks(cluster, pending, late=time.monotonic() > end)
        return None
    line = Line(sock)
    try:
        hello, _ = line.receive(HELLO_S, most=1 << 12)
    except LineBrokenError:
        line.close()
        return None
    if not isinstance(hello, Hello) or hello.token not in pending:
        line.close()  # a stranger, or a task that Dask runs again
        return None
    name, future = pending.pop(hello.token)
    return Member(name, line, hello, future)


def _check_tasks(cluster: Cluster, pending: dict[str, tuple[str, Any]], *, late: bool) -> None:
    """Raise an error for a worker whose task failed, or who did not connect in time."""
    for name, future in pending.values():
        if future.status == "error":
            error = future.exception()
            if isinstance(error, ModuleNotFoundError | ImportError | AttributeError):
                raise EngineError(
                    f"the worker {name} has not the package of this machine ({error}): install the same version there"
                ) from error
            raise DeploymentError(f"the worker {name} cannot be used: {type(error).__name__}: {error}") from error
        if late:
            host, port = cluster.listener.getsockname()[:2]
            here = _scheduler_here(cluster)
            raise DeploymentError(
                f"the worker {name} did not connect to {host}:{port} on this machine: it is gone or busy, a firewall "
                "is between, or it has another way here "
                f"(--cluster '{cluster.spec.text.partition('?')[0]}?host=ADDRESS')"
                if here
                else f"the scheduler of {cluster.spec.text} does not answer any more"
            )


def _check(member: Member) -> None:
    """Refuse a worker that would send another load."""
    here, there = station.facts(), member.hello
    if (there.version, there.code) != (here.version, here.code):
        raise EngineError(
            f"the worker {member.name} has infscale {there.version} (code {there.code}), this machine {here.version} "
            f"(code {here.code}): install the same version on both"
        )
    if there.draws != here.draws:
        raise EngineError(
            f"the worker {member.name} draws another schedule from the same seed (numpy {there.numpy} there, "
            f"{here.numpy} here): install the same version on both"
        )


def _check_clock(member: Member) -> None:
    """Refuse a worker whose clock is not known well enough."""
    clock = member.clock()
    if clock.within_ns > clocks.MOST_UNCERTAIN_NS:
        raise EngineError(
            f"the clock of the worker {member.name} cannot be aligned: it is {clock.offset_ns / 1e9:+.3f} s from this "
            f"machine's, known within ±{clock.within_ns / 1e6:.1f} ms by round trips of "
            f"{2 * clock.within_ns / 1e6:.1f} ms at best; accepted: ±{clocks.MOST_UNCERTAIN_NS / 1e6:g} ms. Use "
            "workers nearer to this machine, or run the command on one of theirs"
        )


def _scheduler_here(cluster: Cluster) -> bool:
    try:
        scheduler.workers_of(cluster.spec, cluster.client)
    except DeploymentError:
        return False
    return True


def _at(host: str, names: Sequence[str]) -> str:
    """Return the name of a worker on a host."""
    addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    for name in names:
        if scheduler.host_of(name) in {host, *addresses}:
            return name
    raise DeploymentError(
        f"no worker runs on {host}, where one is to read what the server uses; start it there: "
        "dask worker SCHEDULER --nthreads 1"
    )
