"""CPU time of foreign processes during a trial: of all but the generator, the servers under test and this process.

Two looks at /proc, each of a millisecond or two, just before the load and just after it. The times of processes are
added up, rather than taken from the host's busy time less our own: /proc/stat samples by ticks on most kernels, and
interrupts of the load's own network traffic are in it or not, depending on the kernel. On an idle host with two cores
the difference was −0.17 to 0 of a core in trials of 1 s, the sum 0 to 0.03 (docs/decisions/0023-gates.md).
"""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from infscale.deployment.endpoint import Endpoint
from infscale.experiment.usage.containers import container_of
from infscale.records.manifest import ForeignCpu

KERNEL = 2
"""The process whose children are the kernel's threads: they work for others, us among them, and are nobody's."""


@dataclass(frozen=True)
class Process:
    """One process at one moment.

    Attributes:
        name: of its program, at most 15 characters.
        parent: id of its parent.
        own, reaped: ticks of CPU time since its start: of its own, and of its children that have ended.
    """

    name: str
    parent: int
    own: int
    reaped: int


Table = Mapping[int, Process]
"""Processes by id."""


def processes() -> dict[int, Process]:
    """Return all processes that can be seen now."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    head, _, rest = file.read().rpartition(b")")
            except OSError:  # it has ended since
                continue
            fields = rest.split()
            name = head.partition(b"(")[2].decode(errors="replace")
            ticks = [int(field) for field in fields[11:15]]
            found[int(entry)] = Process(name, int(fields[1]), ticks[0] + ticks[1], ticks[2] + ticks[3])
    return found


def with_descendants(table: Table, roots: Collection[int]) -> set[int]:
    """Return the ids of those of ``roots`` that live, and of all that descend from them."""
    found = {pid for pid in roots if pid in table}
    while more := {pid for pid, process in table.items() if process.parent in found and pid not in found}:
        found |= more
    return found


def used(before: Table, after: Table) -> dict[int, int]:
    """Return the ticks of CPU time between two looks, by id of the processes that are there at the second.

    A process that ended meanwhile counts with its parent, or the next living ancestor: its time is in that one's
    ``reaped`` once it was waited for, together with what it had used before the first look, which is taken off.
    """
    earlier = dict.fromkeys(after, 0)
    for pid, process in before.items():
        if pid not in after and (heir := next((a for a in _ancestors(before, pid) if a in after), None)) is not None:
            earlier[heir] += process.own + process.reaped
    grown = {}
    for pid, process in after.items():
        start = before.get(pid, Process("", 0, 0, 0))
        if process.own < start.own:  # another process that got the same id
            start = Process("", 0, 0, 0)
        reaped = process.reaped - start.reaped - earlier[pid]
        grown[pid] = process.own - start.own + max(0, reaped)
    return grown


def _ancestors(table: Table, pid: int) -> Iterator[int]:
    while pid in table and table[pid].parent != pid:
        pid = table[pid].parent
        yield pid


class Watch:
    """Tells the CPU time of foreign processes between its first :meth:`mark` and its last one.

    Whatever this process starts after the watch was made belongs to the trial (generator, sampler). What it had started
    before does only if it serves ``endpoint``: the server of another arm is foreign. So do the ``workers`` of a
    cluster, by their ids, wherever they come from.
    """

    def __init__(self, endpoint: Endpoint, workers: Collection[int] = ()) -> None:
        self._endpoint, self._workers = endpoint, workers
        self._visible = _visible(endpoint)
        if self._visible:
            self._servers = self._living()
            self._earlier = with_descendants(processes(), {os.getpid()}) - {os.getpid()}
        self._first: tuple[int, dict[int, Process]] | None = None
        self._last: tuple[int, dict[int, Process]] | None = None

    def _living(self) -> set[int]:
        lists = [self._endpoint.processes, *self._endpoint.parts.values()]
        return {process.pid for processes in lists for process in processes()}

    def mark(self) -> None:
        """Look at all processes now."""
        if self._visible:
            self._last = time.monotonic_ns(), processes()
            self._first = self._first or self._last

    def result(self) -> ForeignCpu | None:
        """Return what foreign processes used; None where that is not known.

        It is not where servers run elsewhere, in a container or out of sight, and where a server ended in the trial,
        whose whole CPU time then goes to whoever inherits it.
        """
        if self._first is None or self._last is None or self._first is self._last:
            return None
        (start_ns, before), (end_ns, after) = self._first, self._last
        if not self._servers or not self._servers <= after.keys() or 1 not in after:
            return None
        others = self._foreign(used(before, after), after)
        most = max(others, key=lambda pid: others[pid], default=0)
        return ForeignCpu(
            cores=sum(others.values()) / os.sysconf("SC_CLK_TCK") / ((end_ns - start_ns) / 1e9),
            most=after[most].name if others.get(most) else "",
        )

    def _foreign(self, grown: Mapping[int, int], table: Table) -> dict[int, int]:
        strangers = with_descendants(table, self._earlier - with_descendants(table, self._servers))
        own = with_descendants(table, {os.getpid()}) - strangers
        own |= with_descendants(table, {*self._servers, *self._workers})
        nobody = with_descendants(table, {KERNEL} if table.get(KERNEL, table[1]).name == "kthreadd" else ())
        return {pid: ticks for pid, ticks in grown.items() if pid not in own and pid not in nobody}


def _visible(endpoint: Endpoint) -> bool:
    """Return whether all processes that serve ``endpoint`` may be seen from here."""
    everybody: Iterable[Endpoint] = (endpoint, *endpoint.members)
    # What carries a container's bytes (its proxy, its daemon) is no process of the endpoint.
    return endpoint.same_host() and not any(container_of(each.command) for each in everybody)
