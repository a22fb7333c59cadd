"""Runs the load engine: a schedule in, samples out.

:func:`run` starts the engine's processes, sends them their shards of a schedule and one start time, and returns the
samples.
"""

import mmap
import os
import pickle
import select
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import union_categoricals

from infscale.errors import ConfigError, EngineError, Interrupt, one_of
from infscale.load.engine import status
from infscale.load.engine.interfaces import SHARED_BYTES, GiveUp, Limits, Progress, Streaming, Watched
from infscale.load.engine.job import Ended, Greeting, Job, check_streaming, named, parse
from infscale.records.manifest import Generator, Reason, Shard, commonest
from infscale.vocabulary import PICKS

_SIZE = struct.Struct("<Q")
START_IN_NS = 50_000_000
"""Time between the processes' readiness and the schedule's start, ns."""
_PROGRESS_S = 0.25
"""Time between two reports of progress, s."""

REASONS_KEPT = 20
"""How many reasons of failures a trial keeps, the most frequent ones."""

Columns = dict[str, npt.NDArray[Any]]
"""The engine's arrays by name: times and bytes in int64, codes of outcomes; each of shape (requests,)."""


@dataclass(frozen=True)
class Result:
    """The result of a trial's engine processes.

    Attributes:
        samples: columns of :data:`infscale.records.samples.SCHEMA` without ``trial_id``.
        generator: CPU seconds, run delay and connections, over all shards and of each.
        logs: what a load tool wrote itself, by the name of the file.
        chunks: of streams, columns of :data:`infscale.records.chunks.SCHEMA` without ``trial_id``, a row per message,
            ordered by request; None of replies that are no streams.
        tokens: of streams, how many tokens the server counted, −1 for unknown; int32 of shape (requests,), as the rows.
    """

    samples: pd.DataFrame
    generator: Generator
    logs: Mapping[str, str] = field(default_factory=dict)
    chunks: pd.DataFrame | None = None
    tokens: npt.NDArray[np.int32] | None = None


class Interrupted(Interrupt):
    """A load was ended before its schedule was.

    Attributes:
        result: with every row; requests that were not sent have the status "unsent". In a notebook the exception is
            ``sys.last_value``.
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        rows = result.samples
        sent = int((rows["status"] != "unsent").sum())
        super().__init__(
            f"ended after {sent:,} of {len(rows):,} requests; rows in sys.last_value.result.samples; run it again"
        )


def _watched(job: Job, shared: mmap.mmap) -> Watched:
    """Return what is seen of the rows of a job in the memory that its process shares."""
    count = len(job.schedule)
    due: npt.NDArray[np.int64] = np.ndarray(count, np.int64, shared, 0)
    done: npt.NDArray[np.int64] = np.ndarray(count, np.int64, shared, 8 * count)
    outcome: npt.NDArray[np.int16] = np.ndarray(count, np.int16, shared, 16 * count)
    return Watched(np.asarray(job.schedule), due, done, outcome)


class _Child:
    """One engine process."""

    def __init__(self, job: Job) -> None:
        rows_fd = os.memfd_create("infscale-rows")
        try:
            os.ftruncate(rows_fd, max(1, SHARED_BYTES * len(job.schedule)))
            self.watched = _watched(job, mmap.mmap(rows_fd, 0))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infscale.load.engine.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches the owner, which then asks for the rows so far
                pass_fds=(rows_fd,),
            )
        finally:
            os.close(rows_fd)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.pid = self._process.pid
        data = pickle.dumps(replace(job, rows_fd=rows_fd), protocol=5)
        self._write(_SIZE.pack(len(data)) + data)

    def _write(self, data: bytes) -> None:
        try:
            self._in.write(data)
            self._in.flush()
        except BrokenPipeError as error:
            raise EngineError(f"the engine ended with code {self._process.wait()}") from error

    def has_answer(self, patience_s: float) -> bool:
        """Wait up to ``patience_s`` (s) and return whether something can be read."""
        return bool(select.select([self._out], [], [], patience_s)[0])

    def _read(self) -> Any:
        head = self._out.read(8)
        data = self._out.read(_SIZE.unpack(head)[0]) if len(head) == 8 else b""
        if not data:
            raise EngineError(f"the engine ended with code {self._process.wait()} and no result")
        return pickle.loads(data)

    def greet(self) -> None:
        """Wait until the process is ready to start.

        Raises:
            ConfigError: it cannot load what it was asked to.
        """
        greeting: Greeting = self._read()
        if reason := greeting.get("failed"):
            raise ConfigError(f"the load cannot start: {reason}")

    def result(self) -> tuple[Ended, Columns]:
        """Wait for the end of the load, and return what the process used, and its arrays by name."""
        ended: Ended = self._read()
        return ended, self._columns(ended["columns"])

    def _columns(self, shapes: Mapping[str, tuple[str, int]]) -> Columns:
        """Return the engine's arrays, which follow its result."""
        columns = {}
        for name, (kind, count) in shapes.items():
            columns[name] = np.empty(count, dtype=kind)
            if self._out.readinto(columns[name]) < columns[name].nbytes:  # type: ignore[attr-defined]
                raise EngineError("the engine ended in the middle of its result")
        return columns

    def go(self, start_ns: int) -> None:
        self._write(_SIZE.pack(start_ns))

    def ask_to_stop(self) -> None:
        if not self._in.closed:
            self._in.close()

    def close(self) -> None:
        self.ask_to_stop()
        self._out.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run(
    url: str,
    bodies: Sequence[bytes],
    schedules: Sequence[npt.NDArray[np.int64]],
    choices: Sequence[npt.NDArray[np.int32]],
    *,
    timeout_s: float,
    connections: int = 256,
    open_first: int = 1,
    keep_alive: bool = True,
    headers: Mapping[str, str] | None = None,
    max_streams: int = 2**31,
    cores: Collection[int] = (),
    gzip: bool = False,
    ca: str = "",
    insecure: bool = False,
    targets: Sequence[str] = (),
    pick: str = "",
    method: str = "POST",
    authority: str = "",
    certificate: str = "",
    key: str = "",
    give_up: GiveUp | None = None,
    streaming: Streaming | None = None,
    progress: Progress | None = None,
    mark: Callable[[], None] | None = None,
    start: Callable[[], int] | None = None,
) -> Result:
    """Send a schedule from one or several engine processes (shards), and return when every request has an outcome.

    Args:
        url: as :func:`infscale.load.engine.job.parse` takes it.
        bodies: the pool.
        schedules: one of each shard, int64 ns, ascending.
        choices: the body that each request of each shard carries, as an index into the pool.
        timeout_s: time from a request's scheduled time to giving it up, s.
        connections: most connections at a time of each shard.
        open_first: number of connections that each shard opens before the start.
        keep_alive: False opens a connection for every request.
        headers: sent with every request, beside those that the protocol needs.
        max_streams: most requests at a time on an HTTP/2 connection; the server's own limit holds, too.
        cores: CPUs that the processes may use; empty for any.
        gzip: compress the bodies (gRPC: the messages).
        ca: file of trusted certificates; "" for the system's.
        insecure: trust any certificate.
        targets: ``host:port`` of several servers, one of which is picked for each request; the URL then gives scheme,
            authority and path. Each gets an even share of the connections, at least one, and a row's ``connection``
            modulo the number of targets is its target. Of one: where to connect instead of the URL's own address.
        pick: how a target is picked: one of :data:`infscale.vocabulary.PICKS`; "" without ``targets``, or with one.
        method: of HTTP requests.
        authority: ``host`` or ``host:port`` that the requests name (``Host``, ``:authority``) and whose certificate
            is expected; "" for that of a header ``host``, or the URL's own.
        certificate, key: files of the client's own certificate and its key; "" for none.
        give_up: when each engine process ends its load early; what it did not send is "unsent" then. None for never.
        streaming: how replies bring several messages, whose times are kept; None for replies that are no streams.
        progress: called a few times a second from the start on.
        mark: called just before the start, and after the end while the engine's processes still run.
        start: called once every engine process is ready; returns the schedule's time 0, ns of the monotonic clock. None
            starts 50 ms later.

    Raises:
        ConfigError: a bad URL, target, pick or authority, an unknown host, an unreadable file of certificates, no
            body, no request to send, or a way of streaming that does not fit the URL.
        EngineError: an engine process failed.
        Interrupted: Ctrl-C ended it in its middle.
    """
    parse(url)
    _check_targets(url, targets, pick)
    if streaming:
        check_streaming(streaming, parse(url).grpc, gzip=gzip)
    if not bodies:
        raise ConfigError("bodies=[] is empty; accepted: at least one body")
    if not sum(map(len, schedules)):
        raise ConfigError("the schedule holds no request (rate × duration is too small)")
    if timeout_s <= 0 or connections < 1:
        raise ConfigError(f"timeout_s={timeout_s} and connections={connections} must be positive")
    limits = Limits(int(timeout_s * 1e9), connections, open_first, keep_alive, give_up)
    children: list[_Child] = []
    try:
        for schedule, choice in zip(schedules, choices, strict=True):
            arrays = array("q", schedule.tobytes()), array("i", choice.tobytes())
            job = Job(url, bodies, *arrays, limits, headers or {}, max_streams, cores, gzip, ca, insecure)
            job = replace(job, targets=tuple(targets), pick=pick, method=method, authority=authority)
            job = replace(job, certificate=certificate, key=key, streaming=streaming)
            named(job)
            children.append(_Child(job))
        ended, interrupted, start_ns = _run(children, progress, mark or (lambda: None), start)
    finally:
        for child in children:
            child.close()
    result = merged(
        [
            _result(*one, schedule, choice, shard, child.pid, start_ns, streams=streaming is not None)
            for shard, (one, schedule, choice, child) in enumerate(
                zip(ended, schedules, choices, children, strict=True)
            )
        ]
    )
    if interrupted:
        raise Interrupted(result)
    return result


def _check_targets(url: str, targets: Sequence[str], pick: str) -> None:
    if (len(targets) > 1 and not pick) or (pick and not targets):
        raise ConfigError(f"targets={list(targets)}, pick={pick!r}: several targets and pick must be given together")
    if pick:
        one_of("pick", pick, PICKS)
    if targets:
        scheme, path = parse(url).scheme, parse(url).path
        for target in targets:
            parse(f"{scheme}://{target}{path}")


def _run(
    children: Sequence[_Child],
    progress: Progress | None,
    mark: Callable[[], None],
    begin: Callable[[], int] | None,
) -> tuple[list[tuple[Ended, Columns]], bool, int]:
    for child in children:
        child.greet()
    mark()
    start = begin() if begin else time.monotonic_ns() + START_IN_NS
    for child in children:
        child.go(start)
    results: list[tuple[Ended, Columns]] = []
    interrupted = False
    while len(results) < len(children):
        try:
            child = children[len(results)]
            while progress and not child.has_answer(_PROGRESS_S):
                progress((time.monotonic_ns() - start) / 1e9, [each.watched for each in children])
            results.append(child.result())
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            for child in children:
                child.ask_to_stop()
    mark()
    return results, interrupted, start


def _frame(
    columns: Columns, schedule: npt.NDArray[np.int64], choice: npt.NDArray[np.int32], shard: int
) -> pd.DataFrame:
    codes, where = np.unique(columns["outcome"], return_inverse=True)
    return pd.DataFrame(
        {
            "sequence": np.arange(len(schedule), dtype=np.int64),
            "scheduled_ns": schedule,
            "due_ns": columns["due"],
            "sent_ns": columns["sent"],
            "first_byte_ns": columns["first"],
            "done_ns": columns["done"],
            "status": pd.Categorical.from_codes(where, pd.Index([status.name(int(c)) for c in codes])),
            "bytes_out": columns["bytes_out"],
            "bytes_in": columns["bytes_in"],
            "payload": choice,
            "connection": columns["connection"],
            "shard": np.int32(shard),
        }
    )


def _result(
    ended: Ended,
    columns: Columns,
    schedule: npt.NDArray[np.int64],
    choice: npt.NDArray[np.int32],
    shard: int,
    pid: int,
    start_ns: int,
    *,
    streams: bool,
) -> Result:
    """Return what one engine process brought."""
    result = Result(_frame(columns, schedule, choice, shard), _generator(ended, pid, start_ns))
    if not streams:
        return result
    chunks = {
        name: columns[f"message_{source}"]
        for name, source in (("sequence", "sequence"), ("index", "index"), ("at_ns", "at"), ("bytes", "bytes"))
    }
    return replace(result, chunks=pd.DataFrame(chunks), tokens=columns["message_tokens"])


def merged(results: Sequence[Result]) -> Result:
    """Return the results of several shards as one: rows by scheduled time and numbered anew, messages by request."""
    frames = [result.samples for result in results]
    statuses = union_categoricals([frame["status"] for frame in frames])
    samples = pd.concat([frame.drop(columns="status") for frame in frames], ignore_index=True)
    samples.insert(frames[0].columns.tolist().index("status"), "status", pd.Series(statuses))
    order = np.argsort(samples["scheduled_ns"].to_numpy(), kind="stable")
    samples = samples.take(order).reset_index(drop=True)
    samples["sequence"] = np.arange(len(samples), dtype=np.int64)
    result = Result(samples, _total([result.generator for result in results]))
    tokens = [each.tokens for each in results if each.tokens is not None]
    chunks = [each.chunks for each in results if each.chunks is not None]
    if not chunks:
        return result
    return replace(result, chunks=_chunks(frames, chunks, order), tokens=np.concatenate(tokens)[order])


def _chunks(
    frames: Sequence[pd.DataFrame], chunks: Sequence[pd.DataFrame], order: npt.NDArray[np.intp]
) -> pd.DataFrame:
    """Return the messages of all shards, ordered by request; ``order``: the places of the sorted rows before."""
    place = np.empty(len(order), np.uint32)
    place[order] = np.arange(len(order), dtype=np.uint32)
    begins = np.cumsum([0, *map(len, frames)])[:-1]
    numbered = [
        own.assign(sequence=place[begin + own["sequence"].to_numpy()])
        for begin, own in zip(begins, chunks, strict=True)
    ]
    every = pd.concat(numbered, ignore_index=True)
    by_request = np.argsort(every["sequence"].to_numpy(), kind="stable")
    return every.take(by_request).reset_index(drop=True)


def _total(parts: Sequence[Generator]) -> Generator:
    """Return what several generators used together: sums, and of waits the worst, which no other makes good."""
    user, system = sum(part.cpu_user_s for part in parts), sum(part.cpu_system_s for part in parts)
    delays = [part.run_delay_s for part in parts if part.run_delay_s is not None]
    shares = [part.share_by_target for part in parts]
    return Generator(
        cpu_user_s=user,
        cpu_system_s=system,
        cpu_s=user + system,
        run_delay_s=max(delays, default=None),
        wall_s=max(part.wall_s for part in parts),
        start_ns=parts[0].start_ns,
        connections_opened=sum(part.connections_opened or 0 for part in parts),
        connections_lost=sum(part.connections_lost or 0 for part in parts),
        retried=sum(part.retried for part in parts),
        messages_unkept=sum(part.messages_unkept for part in parts),
        error=next((part.error for part in parts if part.error), ""),
        limit=next((part.limit for part in parts if part.limit), ""),
        reasons=commonest(reason for part in parts for reason in part.reasons)[:REASONS_KEPT],
        shards=[shard for part in parts for shard in part.shards],
        share_by_target=[sum(counts) for counts in zip(*shares, strict=True)] if any(shares) else [],
    )


def _generator(ended: Ended, pid: int, start_ns: int) -> Generator:
    """Return what one engine process used."""
    user, system = ended["cpu_user_s"], ended["cpu_system_s"]
    return Generator(
        cpu_user_s=user,
        cpu_system_s=system,
        cpu_s=user + system,
        run_delay_s=ended["run_delay_s"],
        wall_s=ended["wall_s"],
        start_ns=start_ns,
        connections_opened=ended["connections_opened"],
        connections_lost=ended["connections_lost"],
        retried=ended["retried"],
        messages_unkept=ended["unkept"],
        error=ended["error"],
        limit=ended["limit"],
        reasons=[Reason(*reason) for reason in ended["reasons"]],
        shards=[_shard(ended, pid)],
        share_by_target=ended["share_by_target"],
    )


def _shard(ended: Ended, pid: int) -> Shard:
    return Shard(
        cpu_user_s=ended["cpu_user_s"],
        cpu_system_s=ended["cpu_system_s"],
        run_delay_s=ended["run_delay_s"],
        wall_s=ended["wall_s"],
        connections_opened=ended["connections_opened"],
        connections_lost=ended["connections_lost"],
        scheduler=ended["scheduler"],
        peak_memory_bytes=ended["peak_memory_bytes"],
        error=ended["error"],
        pid=pid,
    )
