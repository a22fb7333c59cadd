"""The engine's process: reads a pickled job, reports that it is ready, waits for its start time, runs, writes the rows.

Standard input stays open while it runs: its end, or a further byte, stops the trial, and what was measured so far is
still written. :func:`infscale.load.engine.run.run` starts it with ``python -m``.
"""

import gc
import mmap
import os
import pickle
import resource
import struct
import sys
from array import array

from infscale.load.engine import status
from infscale.load.engine.balanced import Balanced
from infscale.load.engine.interfaces import CodecFactory, Messages, Rows
from infscale.load.engine.io import SocketIo, resolve
from infscale.load.engine.job import Ended, Greeting, Job, addressed, codec_factory
from infscale.load.engine.loop import Engine

OPEN_PATIENCE_NS = 2_000_000_000
"""Longest wait for the first connections before the trial, ns."""
_SIZE = struct.Struct("<Q")


def _read(count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        part = os.readv(0, [view])
        if not part:
            sys.exit(0)  # the owner is gone
        view = view[part:]
    return data


def _write(value: Greeting | Ended, *buffers: "array[int] | memoryview") -> None:
    """Write a pickled value, then buffers without copying them: copies would take more memory than the rows."""
    data = pickle.dumps(value, protocol=5)
    for part in (_SIZE.pack(len(data)) + data, *buffers):
        view = memoryview(part).cast("B")
        while view:
            view = view[os.write(1, view) :]


def _run_delay_ns() -> int | None:
    """Return the time in which this process was ready to run but had no core, ns; None where the kernel keeps none."""
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return None


def peak_memory_bytes() -> int:
    """Return this process's peak resident memory in bytes."""
    # Not ru_maxrss, which an exec inherits from the process that forked.
    with open("/proc/self/status") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)


def prioritise() -> str:
    """Ask for the real-time policy SCHED_FIFO, and return the policy that this process has: "fifo" or "other".

    On a machine whose cores the servers fill, an ordinary process waits a scheduler slice for its turn, before a send
    and before it sees a response, and its times are late by as much (docs/decisions/0004-engine-priority.md). The
    engine sleeps most of the time, so that running first takes no CPU from the servers.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return "other"
    return "fifo"


def allow_files() -> None:
    """Raise the soft limit of open files to the hard one: each connection takes one."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _engine(job: Job, io: SocketIo, factory: CodecFactory) -> Engine:
    work = job.schedule, job.choice, job.limits
    rows = Rows(len(job.schedule), mmap.mmap(job.rows_fd, 0))
    if job.pick:
        return Balanced(io, factory, *work, len(job.targets), job.pick, rows=rows)
    return Engine(io, factory, *work, rows=rows)


def main() -> None:
    """Read one job from standard input, run it and write the result to standard output."""
    job: Job = pickle.loads(_read(_SIZE.unpack(_read(8))[0]))
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    allow_files()
    kept = Messages(len(job.schedule)) if job.streaming else None
    try:
        io = SocketIo([resolve(t.host, t.port, t.socket_path) for t in addressed(job)], owner=0)
        factory = codec_factory(job, kept)
    except OSError as error:  # an unknown host, or a file of certificates that cannot be read
        _write({"failed": str(error)})
        return
    scheduler = prioritise()
    engine = _engine(job, io, factory)
    engine.open(OPEN_PATIENCE_NS)
    gc.collect()
    gc.freeze()
    gc.disable()
    _write({"ready": len(job.schedule)})
    (start,) = _SIZE.unpack(_read(8))
    before, delayed, began = resource.getrusage(resource.RUSAGE_SELF), _run_delay_ns(), io.now()
    engine.run(start)
    after, delayed_since, ended = resource.getrusage(resource.RUSAGE_SELF), _run_delay_ns(), io.now()
    engine.close()
    columns = vars(engine.rows) | ({f"message_{k}": v for k, v in kept.columns().items()} if kept else {})
    _write(
        {
            "columns": {
                name: (column.format if isinstance(column, memoryview) else column.typecode, len(column))
                for name, column in columns.items()
            },
            "cpu_user_s": after.ru_utime - before.ru_utime,
            "cpu_system_s": after.ru_stime - before.ru_stime,
            "run_delay_s": None if delayed is None or delayed_since is None else (delayed_since - delayed) / 1e9,
            "wall_s": (ended - max(began, start)) / 1e9,
            "connections_opened": engine.opened,
            "connections_lost": engine.lost,
            "retried": engine.retried,
            "scheduler": scheduler,
            "peak_memory_bytes": peak_memory_bytes(),
            "error": engine.error,
            "limit": status.limit_name(engine.limit),
            "reasons": [(status.name(outcome), text, count) for (outcome, text), count in engine.reasons.items()],
            "share_by_target": engine.share_by_target() if isinstance(engine, Balanced) else [],
            "unkept": kept.unkept if kept else 0,
        },
        *columns.values(),
    )


if __name__ == "__main__":
    main()
