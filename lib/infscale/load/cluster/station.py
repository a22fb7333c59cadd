"""What a worker runs: one Dask task that connects to the driver and makes loads for it until the line ends.

A shard belongs to the line over which it came. When the line breaks, its engine processes end with it and nothing of it
is tried again: Dask would run the task of a dead worker once more, elsewhere and too late, and the driver takes no
token twice.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

import infscale
from infscale import machine
from infscale.errors import ConfigError, InfscaleError
from infscale.load import schedule as arrivals
from infscale.load.cluster import rows
from infscale.load.cluster.line import (
    Failed,
    Go,
    Hello,
    Line,
    LineBrokenError,
    Load,
    Message,
    Ping,
    Pong,
    Pool,
    Ready,
    Rows,
    Stop,
    Stopped,
)
from infscale.load.engine import run as engine

CONNECT_S = 10.0
"""Longest time to connect to the driver, s."""

POOLS = 4
"""How many pools of bodies a worker keeps."""

FILES = ("ca", "certificate", "key")
"""Options of the engine that name files, which travel with the work."""


@dataclass(frozen=True)
class Work:
    """The shards of one worker.

    Attributes:
        url, schedules, choices: as of :func:`infscale.load.engine.run.run`.
        pool: name of the bodies, sent before.
        options: further arguments of that function.
        files: contents of the files of :data:`FILES`, by option.
    """

    url: str
    pool: str
    schedules: Sequence[npt.NDArray[np.int64]]
    choices: Sequence[npt.NDArray[np.int32]]
    options: Mapping[str, Any] = field(repr=False)  # headers are secret
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def facts(token: str = "") -> Hello:
    """Return what this process is: versions, a digest of the code that measures, and of what a seed draws here."""
    return msgspec.structs.replace(_facts(), token=token)


@functools.cache
def _facts() -> Hello:
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    drawn = arrivals.poisson(10_000.0, 0.1, np.random.SeedSequence(1))
    return Hello(
        token="",
        version=infscale.__version__,
        code=machine.code_digest(),
        draws=hashlib.sha256(drawn.tobytes()).hexdigest()[:16],
        numpy=np.__version__,
        pid=os.getpid(),
        host=socket.gethostname(),
        boot=boot,
        net=os.stat("/proc/self/ns/net").st_ino,
    )


def serve(host: str, port: int, token: str, *, apart: bool) -> None:
    """Connect to the driver and work for it until the line ends; the Dask task of a worker.

    Args:
        host, port: of the driver.
        token: tells this task's line from others; it serves once.
        apart: leave the process group, so that Ctrl-C in the driver's terminal does not end the worker.
    """
    if apart:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
    with (
        _quiet(),
        contextlib.suppress(LineBrokenError),
        socket.create_connection((host, port), CONNECT_S) as sock,
    ):
        line = Line(sock)
        line.send(facts(token))
        _Station(line).work()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Stop the worker's own profiler meanwhile, which looks at its threads a hundred times a second."""
    from distributed import get_worker

    worker = get_worker()
    callbacks = [worker.periodic_callbacks.get(name) for name in ("profile", "profile-cycle")]
    running = [one for one in callbacks if one is not None and one.is_running()]
    for one in running:
        worker.loop.add_callback(one.stop)
    try:
        yield
    finally:
        for one in running:
            worker.loop.add_callback(one.start)


class _Station:
    """The worker's end of a line: a thread that reads it and tells the time at once, and one that works."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._tasks: queue.SimpleQueue[tuple[Message, bytes] | None] = queue.SimpleQueue()
        self._starts: queue.SimpleQueue[Go | None] = queue.SimpleQueue()
        self._stop, self._gone = threading.Event(), threading.Event()
        self._pools: dict[str, list[bytes]] = {}

    def work(self) -> None:
        """Do what the driver asks for until the line ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        while (task := self._tasks.get()) is not None:
            message, data = task
            if isinstance(message, Pool):
                self._pools[message.name] = pickle.loads(data)
                while len(self._pools) > POOLS:
                    del self._pools[next(iter(self._pools))]
            elif isinstance(message, Load):
                self._load(pickle.loads(data))

    def _listen(self) -> None:
        try:
            while True:
                message, data = self._line.receive()
                if isinstance(message, Ping):
                    received = time.monotonic_ns()
                    self._line.send(Pong(received, time.monotonic_ns()))
                elif isinstance(message, Go):
                    self._starts.put(message)
                elif isinstance(message, Stop):
                    self._stop.set()
                    self._starts.put(None)
                else:
                    self._tasks.put((message, data))
        except LineBrokenError:
            self._gone.set()
            self._starts.put(None)
            self._tasks.put(None)

    def _load(self, work: Work) -> None:
        while not self._starts.empty():  # of a load that had ended when it was stopped
            self._starts.get()
        self._stop.clear()
        try:
            with _placed(work) as options:
                self._send_load(work, options)
        except InfscaleError as error:
            self._line.send(Failed(str(error), isinstance(error, ConfigError)))

    def _send_load(self, work: Work, options: Mapping[str, Any]) -> None:
        told = False

        def start() -> int:
            self._line.send(Ready())
            go = self._starts.get()
            if go is None:
                raise KeyboardInterrupt
            return go.start_ns

        def progress(elapsed_s: float, _: object) -> None:
            nonlocal told
            if self._gone.is_set() or (self._stop.is_set() and not told):
                told = True
                raise KeyboardInterrupt

        steal, used = machine.steal_ticks(), time.process_time()
        schedules, choices, pool = work.schedules, work.choices, self._pools[work.pool]
        try:
            result = engine.run(work.url, pool, schedules, choices, start=start, progress=progress, **options)
        except engine.Interrupted as error:
            result = error.result
        except KeyboardInterrupt:
            self._line.send(Stopped())
            return
        stolen, ticks = (after - before for after, before in zip(machine.steal_ticks(), steal, strict=True))
        cpu_s = time.process_time() - used
        tables = rows.packed(result)
        sizes = [len(one) for one in tables]
        self._line.send(Rows(result.generator, sizes, cpu_s, stolen / ticks if ticks else None), b"".join(tables))


@contextlib.contextmanager
def _placed(work: Work) -> Iterator[dict[str, Any]]:
    """Yield the engine's options, with the files that came along written to a folder that only this user may read."""
    with tempfile.TemporaryDirectory(prefix="infscale-") as folder:
        options = dict(work.options)
        for name, content in work.files.items():
            path = Path(folder, name)
            path.touch(0o600)
            path.write_bytes(content)
            options[name] = str(path)
        yield options
