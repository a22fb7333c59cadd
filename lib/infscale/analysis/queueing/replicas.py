"""Replicas whose state goes from block to block of requests; the loops over requests are compiled."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from infscale.errors import ConfigError
from infscale.records.gate import Floats

Whole = npt.NDArray[np.int64]
Ended = tuple[Floats, Whole]
"""Response times of requests, s, and the replica that answered each."""

_FIRST = 16  # requests that a replica's ring has room for at first, a power of two
_ROOM = 1 << 25  # most that all rings together have: a quarter of a GB


def replicas_of(
    rule: int, pins: Whole, replicas: int, workers: int, cores: float | None
) -> "DedicatedReplicas | SharedReplicas":
    """Return replicas without a request.

    Args:
        rule: how one is chosen, as :mod:`infscale.analysis.queueing.kernels` numbers it.
        pins: the replica of each connection.
        replicas: how many there are.
        workers: of each.
        cores: that all share; None where every worker has its own.
    """
    if cores is None:
        return DedicatedReplicas(rule, pins, replicas, workers)
    return SharedReplicas(rule, pins, replicas, workers, cores)


def _grown(ring: npt.NDArray[Any], head: Whole) -> npt.NDArray[Any]:
    """Return rings with twice the room, each beginning at 0.

    Raises:
        ConfigError: there is no room for that.
    """
    replicas, room = ring.shape
    if 2 * ring.size > max(_ROOM, 4 * _FIRST * replicas):
        raise ConfigError(
            f"more than {ring.size:,} requests wait: the rate is too near to the capacity to be simulated; accepted: a "
            "lower rate, or more replicas"
        )
    grown = np.zeros((replicas, 2 * room), ring.dtype)
    columns = (head[:, None] + np.arange(room)) & (room - 1)
    grown[:, :room] = np.take_along_axis(ring, columns, axis=1)
    return grown


class _Counted:
    """How many requests each replica has, as the loops keep it: replicas ordered by that, and where counts begin."""

    def __init__(self, replicas: int, most: int) -> None:
        self.size = np.zeros(replicas, np.int64)
        self.order = np.arange(replicas, dtype=np.int64)
        self.position = np.arange(replicas, dtype=np.int64)
        self.start = np.full(most + 3, replicas, np.int64)
        self.start[0] = 0

    def grow(self, most: int) -> None:
        """Make room for larger counts, which no replica has yet."""
        more = np.full(most + 3 - len(self.start), len(self.size), np.int64)
        self.start = np.concatenate([self.start, more])


class DedicatedReplicas:
    """Replicas whose workers have a core, or a device, of their own."""

    def __init__(self, rule: int, pins: Whole, replicas: int, workers: int) -> None:
        self._rule, self._workers, self._pins = rule, workers, pins
        self._ring, self._head = np.zeros((replicas, _FIRST)), np.zeros(replicas, np.int64)
        self._counted = _Counted(replicas, _FIRST)
        self._heap = np.zeros(replicas * _FIRST), np.zeros(replicas * _FIRST, np.int64)
        self._counts = np.zeros(2, np.int64)

    def send(self, arrive: Floats, work: Floats, bits: npt.NDArray[np.uint64]) -> Iterator[Ended]:
        """Send requests by time of arrival, with the work of each, s, and its random bits; yield all of them."""
        from infscale.analysis.queueing import kernels

        response, chosen, done = np.empty(len(arrive)), np.empty(len(arrive), np.int64), 0
        while True:
            counted = self._counted
            done = kernels.dedicated(
                self._rule, self._workers, done, arrive, work, bits, self._pins, self._ring, self._head,
                counted.size, counted.order, counted.position, counted.start, *self._heap, self._counts,
                response, chosen,
            )  # fmt: skip
            if done == len(arrive):
                break
            self._ring = _grown(self._ring, self._head)
            self._head[:] = 0
            counted.grow(self._ring.shape[1])
            times, items = self._heap
            self._heap = np.resize(times, self._ring.size), np.resize(items, self._ring.size)
        yield response, chosen


class SharedReplicas:
    """Replicas whose workers share cores: of n busy workers each advances at min(1, cores/n)."""

    def __init__(self, rule: int, pins: Whole, replicas: int, workers: int, cores: float) -> None:
        self._rule, self._workers, self._cores, self._pins = rule, workers, cores, pins
        self._ring, self._head = np.zeros((replicas, _FIRST), np.int64), np.zeros(replicas, np.int64)
        room = _FIRST * replicas
        self._counted = _Counted(replicas, room)
        self._heap = np.zeros(room), np.zeros(room, np.int64)
        self._counts, self._clock = np.array([0, 0, room], np.int64), np.zeros(2)
        self._slots, self._owner = np.zeros((room, 2)), np.zeros((room, 2), np.int64)
        self._free = np.arange(room, dtype=np.int64)

    def send(self, arrive: Floats, work: Floats, bits: npt.NDArray[np.uint64]) -> Iterator[Ended]:
        """Send requests as :meth:`DedicatedReplicas.send`; yield those that end before the last of them arrives."""
        for response, _, chosen in self.ended(arrive, work, bits):
            yield response, chosen

    def ended(
        self, arrive: Floats, work: Floats, bits: npt.NDArray[np.uint64]
    ) -> Iterator[tuple[Floats, Whole, Whole]]:
        """Send requests, and yield response time, number (from 0, over all calls) and replica of those that end."""
        from infscale.analysis.queueing import kernels

        done = 0
        while done < len(arrive):
            most = len(arrive) - done + len(self._free)
            response, finished, chosen = np.empty(most), np.empty(most, np.int64), np.empty(most, np.int64)
            counted = self._counted
            done, count = kernels.shared(
                self._rule, self._workers, self._cores, done, arrive, work, bits, self._pins, self._ring, self._head,
                counted.size, counted.order, counted.position, counted.start, *self._heap, self._counts, self._clock,
                self._slots, self._owner, self._free, response, finished, chosen,
            )  # fmt: skip
            yield response[:count], finished[:count], chosen[:count]
            if done < len(arrive):
                self._grow()

    def _grow(self) -> None:
        """Double the room for requests, and for those that wait at a replica."""
        self._ring = _grown(self._ring, self._head)
        self._head[:] = 0
        room = len(self._free)
        self._counted.grow(2 * room)
        times, items = self._heap
        self._heap = np.resize(times, 2 * room), np.resize(items, 2 * room)
        self._slots, self._owner = (np.concatenate([kept, np.zeros_like(kept)]) for kept in (self._slots, self._owner))
        spare = int(self._counts[2])
        self._free = np.concatenate([self._free[:spare], np.arange(room, 2 * room), self._free[spare:]])
        self._counts[2] = spare + room
