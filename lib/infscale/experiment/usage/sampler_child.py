"""The process that reads what others use: standard library only, so that it starts fast and costs little.

Started by :mod:`infscale.experiment.usage.sampler` as a plain script. Each line of standard input is a JSON list of
[group, pid] to add to those that are watched; it is followed at once by a reading, and answered with one byte. End of
file, be it by the owner's death, ends it; it then writes its readings, pickled, to standard output.

Files in /proc are opened once and read again with ``pread``: an open file belongs to its process, and never to another
that gets the same pid later.
"""

import json
import os
import pickle
import resource
import select
import sys
import time
from array import array

THREADS_EVERY = 10
"""Readings between two counts of all threads' context switches: a server may have hundreds of threads."""

NONE = -1
"""Stands for what is not known, and for the index of the whole machine among the watched processes."""


class _Threads:
    """Context switches of a process: the kernel keeps them by thread, and forgets a thread with its end."""

    def __init__(self, pid: int) -> None:
        self._folder = f"/proc/{pid}/task"
        self._files: dict[str, int] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        self._ended = (0, 0)
        self.total = (0, 0)

    def read(self) -> None:
        try:
            living = set(os.listdir(self._folder))
        except OSError:
            return
        for tid in living - self._files.keys():
            try:
                self._files[tid] = os.open(f"{self._folder}/{tid}/status", os.O_RDONLY)
            except OSError:
                continue
        for tid, file in list(self._files.items()):
            try:
                self._counts[tid] = _switches(os.pread(file, 4096, 0))
            except (OSError, IndexError):
                self._retire(tid)
        self.total = _sum([self._ended, *self._counts.values()])

    def _retire(self, tid: str) -> None:
        os.close(self._files.pop(tid))
        self._ended = _sum([self._ended, self._counts.pop(tid, (0, 0))])

    def close(self) -> None:
        for tid in list(self._files):
            self._retire(tid)


def _sum(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def _switches(status: bytes) -> tuple[int, int]:
    """Return voluntary and involuntary context switches, the last two lines of a thread's status."""
    lines = status.split(b"ctxt_switches:")
    return int(lines[1].split()[0]), int(lines[2].split()[0])


class _Watched:
    """One process, and its last reading."""

    def __init__(self, group: str, pid: int) -> None:
        self.group, self.pid = group, pid
        self._file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        self._threads = _Threads(pid)
        self.ended = False
        self.name = ""
        self.last = (0, 0, 0, 0)

    def read(self, threads: bool) -> None:
        """Read ticks of user and system time, pages and threads; an ended process keeps its last reading."""
        if self.ended:
            return
        try:
            name, _, rest = os.pread(self._file, 2048, 0).partition(b"(")[2].rpartition(b")")
            fields = rest.split()
            self.name = name.decode(errors="replace")
            ticks = int(fields[11]), int(fields[12])
            self.ended = fields[0] in (b"Z", b"X")  # CPU time is final then, and memory given back
            # A process that is ending has given its memory back before it is a zombie: no pages are no reading.
            gone = self.ended or not int(fields[21])
            self.last = (*ticks, *(self.last[2:] if gone else (int(fields[21]), int(fields[17]))))
        except (OSError, IndexError):
            self.ended = True
        if self.ended:
            self._threads.close()
            os.close(self._file)
        elif threads:
            self._threads.read()

    def switches(self) -> tuple[int, int]:
        return self._threads.total


class Readings:
    """The watched processes, and a flat array of rows: time, index, user, system, pages, threads, voluntary,
    involuntary, ended, bytes through the loopback interface."""

    def __init__(self) -> None:
        self.watched: list[_Watched] = []
        self.rows = array("q")
        self._net = os.open("/proc/net/dev", os.O_RDONLY)

    def add(self, pairs: list[tuple[str, int]]) -> None:
        """Watch these (group, pid) too."""
        for group, pid in pairs:
            try:
                self.watched.append(_Watched(group, pid))
            except OSError:  # it has ended since
                continue

    def read(self, threads: bool) -> None:
        """Read all processes once, with context switches if ``threads`` are to be counted."""
        now = time.monotonic_ns()
        for index, process in enumerate(self.watched):
            process.read(threads)
            self.rows.extend((now, index, *process.last, *process.switches(), process.ended, NONE))
        self.rows.extend((now, NONE, 0, 0, 0, 0, 0, 0, False, self._loopback()))

    def _loopback(self) -> int:
        """Return the bytes that the loopback interface carried, of all processes of this network namespace."""
        for line in os.pread(self._net, 65536, 0).splitlines():
            name, _, counts = line.partition(b":")
            if name.strip() == b"lo":
                return int(counts.split()[0])
        return NONE


def _more_files() -> None:
    """Allow this process as many open files as the system does: each thread takes one."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Read every ``argv[1]`` seconds until the end of standard input."""
    period_s, readings, rest, count = float(sys.argv[1]), Readings(), b"", 0
    _more_files()
    due = time.monotonic()
    while True:
        if select.select([0], [], [], max(0.0, due - time.monotonic()))[0]:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                readings.add(json.loads(line))
                readings.read(threads=True)
                os.write(1, b".")
        else:
            readings.read(threads=count % THREADS_EVERY == 0)
            count += 1
            due = max(due + period_s, time.monotonic())  # what was missed is not made up for
    readings.read(threads=True)
    watched = [(process.group, process.pid, process.name) for process in readings.watched]
    with open(1, "wb") as out:
        out.write(pickle.dumps((watched, readings.rows)))


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the owner is gone
        os._exit(0)
