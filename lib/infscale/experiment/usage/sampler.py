"""What every process uses while a trial runs: CPU, memory, context switches; read by a small process of its own."""

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import psutil

from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError, EngineError
from infscale.experiment.usage.sampler_child import NONE
from infscale.records.usage import HOST

Groups = Mapping[str, Callable[[], list[psutil.Process]]]

REFRESH_S = 2.0
"""Seconds between looks for new processes, which cost milliseconds; one that came meanwhile brings all its CPU time
along."""

_WIDTH = 10
"""Numbers of one row of readings, see :class:`infscale.experiment.usage.sampler_child.Readings`."""

_SCRIPT = Path(__file__).with_name("sampler_child.py")
_CLIENTS = tuple(f"infscale.load.{name}" for name in ("engine", "clients", "loadgen_client", "locust_client"))
"""The modules by which a load generator is started."""


def clients() -> list[psutil.Process]:
    """Return the load generators that this process has started."""
    generators = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(part.startswith(_CLIENTS) for part in child.cmdline()):
                generators.append(child)
    return generators


def groups_of(endpoint: Endpoint) -> dict[str, Callable[[], list[psutil.Process]]]:
    """Return the processes to be read in a trial, by group: the client, and the endpoint's parts, or the server."""
    return {"client": clients, **(endpoint.parts or {"server": endpoint.processes})}


class Sampler:
    """A context manager in which the processes of ``groups`` are read every ``period_s`` seconds.

    Members of a group are looked for at the start, every 2 s, and at every :meth:`refresh`; a process that is in
    several groups belongs to the first. :meth:`rows` gives the readings after the end.

    Raises:
        ConfigError: ``period_s`` is not positive, or a group is called "host".
    """

    def __init__(self, groups: Groups, period_s: float = 0.1) -> None:
        if not 0.001 <= period_s < 3600:
            raise ConfigError(f"period_s={period_s} is not a sampling period; accepted: 0.001 to 3600 s")
        if HOST in groups:
            raise ConfigError(f"groups: {HOST!r} is the name of the host's own; accepted: any other")
        self._groups, self._period_s = groups, period_s
        self._known: set[tuple[int, float]] = set()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._readings: tuple[list[tuple[str, int, str]], array[int]] | None = None

    def __enter__(self) -> "Sampler":
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(_SCRIPT), str(self._period_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self.pid = self._process.pid
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)
        try:
            self.refresh()
        except BaseException:
            self._process.kill()
            self._close()
            raise
        self._thread.start()
        return self

    def refresh(self) -> None:
        """Look for the groups' processes, and take a reading now; returns after it.

        Raises:
            EngineError: the reading process has ended.
        """
        with self._lock:
            pairs = self._new()
            self._send(pairs)

    def _new(self) -> list[tuple[str, int]]:
        pairs = []
        for group, processes in self._groups.items():
            for process in processes():
                with contextlib.suppress(psutil.Error):
                    key = process.pid, process.create_time()
                    if key not in self._known:
                        self._known.add(key)
                        pairs.append((group, process.pid))
        return pairs

    def _send(self, pairs: list[tuple[str, int]]) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(pairs).encode() + b"\n")
            if stdout.read(1):
                return
        raise EngineError(f"the process that reads what others use ended with code {self._process.wait()}")

    def _keep_looking(self) -> None:
        while not self._over.wait(REFRESH_S):
            with contextlib.suppress(EngineError, psutil.Error), self._lock:
                if pairs := self._new():
                    self._send(pairs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        data = self._close()
        if data:
            self._readings = pickle.loads(data)

    def _close(self) -> bytes:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(OSError):
            stdin.close()
        data: bytes = stdout.read()
        stdout.close()
        self._process.wait()
        return data

    def rows(self, origin_ns: int | None = None) -> pd.DataFrame:
        """Return a row for each reading and process, in the order of time.

        Columns:
            time_ns: since ``origin_ns`` (CLOCK_MONOTONIC), else since the first reading.
            group, pid, name: of the process.
            user_s, system_s: CPU seconds since the process began, all threads; the kernel counts in steps of 10 ms.
            rss_bytes: resident memory, shared pages included.
            voluntary, involuntary: context switches summed over threads, as of the last second; those of a thread
                that lived less are lost.
            threads: how many there are.
            network_bytes: −1 for a process, of which it is not known; the group "host" has the bytes that the loopback
                interface carried, of everybody in this network namespace.
            ended: whether the process is gone, and this its last reading, repeated.

        Raises:
            EngineError: the reading process did not survive.
        """
        if self._readings is None:
            raise EngineError("there are no readings: the process that reads what others use was ended from outside")
        watched, flat = self._readings
        table = np.asarray(flat, dtype=np.int64).reshape(-1, _WIDTH)
        time_ns, index, user, system, pages, threads, voluntary, involuntary, ended, network = table.T
        owners = [*watched, (HOST, 0, "lo")]  # which index −1 picks
        tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        of_process = index != NONE
        columns = {
            "time_ns": time_ns - (time_ns[0] if origin_ns is None else origin_ns),
            "group": pd.Categorical([owners[i][0] for i in index]),
            "pid": [owners[i][1] for i in index],
            "name": pd.Categorical([owners[i][2] for i in index]),
            "user_s": np.where(of_process, user / tick, np.nan),
            "system_s": np.where(of_process, system / tick, np.nan),
            "rss_bytes": pages * page,
            "voluntary": voluntary,
            "involuntary": involuntary,
            "threads": threads,
            "network_bytes": network,
            "ended": ended.astype(bool),
        }
        return pd.DataFrame(columns)
