"""Runs a load on a cluster: shards to the workers, one start for all, rows back and merged.

:func:`run` takes what :func:`infscale.load.engine.run.run` takes, and returns the same.
"""

import contextlib
import hashlib
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infscale.errors import ConfigError, EngineError
from infscale.load.cluster import clocks, rows, station
from infscale.load.cluster.connect import Cluster, Member, renew
from infscale.load.cluster.line import (
    Failed,
    Go,
    LineBrokenError,
    Load,
    Message,
    Pool,
    Ready,
    Rows,
    Stop,
    Stopped,
    speaking,
)
from infscale.load.engine.interfaces import Progress
from infscale.load.engine.job import parse
from infscale.load.engine.run import START_IN_NS, Interrupted, Result, merged
from infscale.records.manifest import ClusterWorker, Generator

READY_S = 60.0
"""Longest time until a worker's engine processes are ready, s."""

GRACE_S, BYTES_PER_S = 30.0, 1e6
"""How long after its last request's time limit a worker may be silent, s; and the slowest way for the rows, bytes/s."""

ROW_BYTES = 40
"""Bytes of a row on its way, about."""

PROGRESS_S = 0.25
"""Time between two reports of progress, s."""

LOOPBACK = ("127.", "localhost", "[::1]", "::1")
"""Beginnings of hosts that are another machine on every machine."""


@dataclass
class _Part:
    """What one worker does in a load: its shards, its start, what came of them, and whether it is ``busy``."""

    member: Member
    shards: list[int]
    start_ns: int = 0
    clock: clocks.Clock | None = None
    said: Rows | None = None
    data: bytes = b""
    busy: bool = False


def run(
    cluster: Cluster,
    url: str,
    bodies: Sequence[bytes],
    schedules: Sequence[npt.NDArray[np.int64]],
    choices: Sequence[npt.NDArray[np.int32]],
    *,
    progress: Progress | None = None,
    mark: Callable[[], None] | None = None,
    **options: Any,
) -> Result:
    """Send a schedule from the workers of a cluster; return when every request has an outcome, or its worker is lost.

    Shard k runs on worker k modulo their number; a worker without a request has no part in the load. The requests of a
    worker that is lost are kept, as never sent; lost workers are replaced before the next load, if others have come.

    Args:
        cluster: the workers.
        url, bodies, schedules, choices: as of :func:`infscale.load.engine.run.run`, one schedule for each shard.
        progress: called a few times a second from the start on; the rows are not seen.
        mark: called just before the start, and after the end.
        options: further arguments of that function.

    Raises:
        ConfigError: as that function; also a loopback address that workers would look for on their own machines.
        DeploymentError: the scheduler has gone, or no worker is left.
        EngineError: an engine process failed.
        Interrupted: Ctrl-C ended it in its middle.
    """
    renew(cluster)
    _check_reachable(cluster, url, options.get("targets", ()))
    parts = [
        _Part(member, list(range(k, len(schedules), len(cluster.members)))) for k, member in enumerate(cluster.members)
    ]
    parts = [part for part in parts if any(len(schedules[k]) for k in part.shards)]
    if not parts:
        raise ConfigError("the schedule holds no request (rate × duration is too small)")
    streams = options.get("streaming") is not None
    try:
        _make_ready(parts, url, bodies, schedules, choices, options)
        (mark or (lambda: None))()
        start_ns = _start(parts)
        last_s = max(int(schedule[-1]) for schedule in schedules if len(schedule)) / 1e9
        end_s = last_s + options["timeout_s"] + GRACE_S + sum(map(len, schedules)) * ROW_BYTES / BYTES_PER_S
        interrupted = _collect(parts, start_ns, end_s, progress)
        (mark or (lambda: None))()
    except BaseException:
        _abandon(parts)
        raise
    results = [_result(part, schedules, choices, streams=streams) for part in parts]
    result = merged(results)
    workers = [_worker(part, start_ns, last_s) for part in parts]
    result = replace(result, generator=_generator(result.generator, workers, start_ns))
    if interrupted:
        raise Interrupted(result)
    return result


def _check_reachable(cluster: Cluster, url: str, targets: Sequence[str]) -> None:
    """Refuse an address that is another machine for a worker on another machine, or in another network namespace."""
    here = station.facts()
    target = parse(url)
    hosts = [target.host] if not targets else list(targets)
    if target.socket_path or any(host.startswith(LOOPBACK) for host in hosts):
        for member in cluster.members:
            if (member.hello.boot, member.hello.net) != (here.boot, here.net):
                raise ConfigError(
                    f"url={url!r} is an address on the worker's own machine for {member.name}; "
                    "accepted: one at which every worker reaches the server"
                )


# ------------------------------------------------------------------------------------- before the start


def _make_ready(
    parts: Sequence[_Part],
    url: str,
    bodies: Sequence[bytes],
    schedules: Sequence[npt.NDArray[np.int64]],
    choices: Sequence[npt.NDArray[np.int32]],
    options: Mapping[str, Any],
) -> None:
    """Send every worker its shards, and return when all engine processes are ready.

    Raises:
        ConfigError, EngineError: a worker could not; the others have dropped theirs.
    """
    files = {name: _contents(str(options[name])) for name in station.FILES if options.get(name)}
    others = {name: value for name, value in options.items() if name not in station.FILES}
    pool = pickle.dumps(list(bodies), protocol=5)
    name = hashlib.sha256(pool).hexdigest()
    for part in parts:
        work = station.Work(
            url, name, [schedules[k] for k in part.shards], [choices[k] for k in part.shards], others, files
        )
        with _losing(part.member):
            if part.member.lost:
                continue
            if name not in part.member.pools:
                part.member.line.send(Pool(name), pool)
                part.member.pools = [*part.member.pools, name][-station.POOLS :]
            part.member.line.send(Load(), pickle.dumps(work, protocol=5))
            part.busy = True
    for part in parts:
        message = _receive(part.member, READY_S)
        if isinstance(message, Failed):
            part.busy = False
            raise (ConfigError if message.user else EngineError)(_named(message.text, part.member))
        if message is not None and not isinstance(message, Ready):
            part.member.drop(f"it answered a load with {type(message).__name__}")


def _contents(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def _named(text: str, member: Member) -> str:
    return f"{text} (on the worker {member.name})"


@contextlib.contextmanager
def _losing(member: Member) -> Iterator[None]:
    """Drop a worker whose line breaks within the context."""
    try:
        yield
    except LineBrokenError as error:
        member.drop(str(error))


def _receive(member: Member, patience_s: float) -> Message | None:
    """Return a worker's next message; None if it is lost."""
    if not member.lost:
        try:
            return member.line.receive(patience_s)[0]
        except LineBrokenError as error:
            member.drop(str(error))
    return None


def _start(parts: Sequence[_Part]) -> int:
    """Read every clock once more, tell the workers when to start, and return that time on this machine's clock, ns."""
    for part in parts:
        with _losing(part.member):
            if not part.member.lost and clocks.jump_ns(part.member.clock(), part.member.read_clock()):
                part.member.readings = part.member.readings[-1:]  # its machine slept: the clock is known anew
        part.clock = part.member.clock()
    slowest = max((part.clock.within_ns for part in parts if part.clock), default=0)
    start_ns = time.monotonic_ns() + START_IN_NS + 10 * slowest
    for part in parts:
        assert part.clock is not None
        part.start_ns = start_ns + part.clock.offset_at(start_ns)
        if not part.member.lost:
            with _losing(part.member):
                part.member.line.send(Go(part.start_ns))
    return start_ns


# ----------------------------------------------------------------------------------- while it is loaded


def _collect(parts: Sequence[_Part], start_ns: int, end_s: float, progress: Progress | None) -> bool:
    """Take what each worker sends at its end; a worker that is silent beyond ``end_s`` is lost.

    Returns:
        Whether Ctrl-C ended the load.
    """
    interrupted = False
    by_line: dict[int, _Part] = {id(part.member.line): part for part in parts}
    while waiting := [part for part in parts if part.said is None and not part.member.lost]:
        try:
            elapsed_s = (time.monotonic_ns() - start_ns) / 1e9
            if progress:
                progress(elapsed_s, ())
            for line in speaking([part.member.line for part in waiting], PROGRESS_S):
                _take(by_line[id(line)])
            if elapsed_s > end_s:
                for part in waiting:
                    if part.said is None:
                        part.member.drop("it was silent beyond the end of the load")
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            for part in waiting:
                with _losing(part.member):
                    part.member.line.send(Stop())
    return interrupted


def _take(part: _Part) -> None:
    """Take one message of a worker during the load.

    Raises:
        EngineError: its engine failed.
    """
    try:
        message, data = part.member.line.receive(GRACE_S)
    except LineBrokenError as error:
        part.member.drop(str(error))
        return
    if isinstance(message, Failed):
        part.busy = False
        raise EngineError(_named(message.text, part.member))
    if isinstance(message, Rows):
        part.said, part.data, part.busy = message, data, False
    else:
        part.member.drop(f"it sent {type(message).__name__} during the load")


def _abandon(parts: Sequence[_Part]) -> None:
    """Let every worker drop its load; one that does not say so is dropped itself."""
    for part in parts:
        if not part.busy or part.member.lost:
            continue
        with _losing(part.member):
            part.member.line.send(Stop())
            message: Message | None = None
            while not isinstance(message, Rows | Failed | Stopped):
                message, _ = part.member.line.receive(5.0)


# ------------------------------------------------------------------------------------------ what came


def _result(
    part: _Part,
    schedules: Sequence[npt.NDArray[np.int64]],
    choices: Sequence[npt.NDArray[np.int32]],
    *,
    streams: bool,
) -> Result:
    """Return the rows of one worker; those of one that was lost were never sent."""
    if part.said is None:
        own = [schedules[k] for k in part.shards], [choices[k] for k in part.shards]
        return rows.never_sent(*own, part.shards, streams=streams)
    return rows.unpacked(part.data, part.said.sizes, part.said.generator, part.shards)


def _worker(part: _Part, start_ns: int, last_s: float) -> ClusterWorker:
    """Return what is known of a worker, its skew by a clock that was read before and after the load."""
    member = part.member
    if not member.lost and part.said is not None:
        with _losing(member):
            member.read_clock()
    assert part.clock is not None
    clock = member.clock()
    lag = [part.start_ns - (start_ns + clock.offset_at(start_ns)), 0]
    # The worker's clock gains on this one by the drift: what it calls a second after the start comes sooner.
    lag[1] = lag[0] - round(clock.drift * last_s * 1e9)
    return ClusterWorker(
        name=member.name,
        host=member.hello.host,
        shards=part.shards,
        offset_ns=clock.offset_at(start_ns),
        drift_ppm=round(1e6 * clock.drift, 3),
        within_ns=clock.within_ns,
        skew_ns=(lag[0], lag[1]),
        cpu_s=part.said.cpu_s if part.said else None,
        steal_fraction=part.said.steal_fraction if part.said else None,
        lost="" if part.said else member.lost,
    )


def _generator(total: Generator, workers: Sequence[ClusterWorker], start_ns: int) -> Generator:
    """Return what the engines used together, their shards in the order of the numbers, and the workers."""
    total.start_ns, total.workers = start_ns, list(workers)
    numbers = [number for worker in workers if not worker.lost for number in worker.shards]
    total.shards = [shard for _, shard in sorted(zip(numbers, total.shards, strict=True), key=lambda pair: pair[0])]
    return total
