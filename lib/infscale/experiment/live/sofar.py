"""What can be said of a load in its middle, from the rows that the engine is filling (:class:`Watched`).

Every look takes only the requests that have ended since the last one, so that it costs the same late in a long load.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from infscale.load.engine import status
from infscale.load.engine.interfaces import Watched
from infscale.records.gate import INVALID, SATURATED
from infscale.records.gates.generator import LAG_FLOOR_NS, LAG_SHARE_OF_MEDIAN
from infscale.records.gates.server import BATCHES, BEHIND_MAX, FAILED_MAX, FIRST_PART, QUEUE_MIN, growth

RECENT_S = 2.0
"""Time over which the rates of the moment are taken, s."""

LEAST_MS, PER_DECADE, DECADES = 1e-3, 100, 9
"""Times are counted in bins: the end of the first, ms; how many there are to each factor of ten, which tells times
apart that differ by 2.3 %; and the factors of ten."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SoFar:
    """A load in its middle.

    Attributes:
        elapsed_s: time since the schedule's start, s.
        duration_s: length of the arrivals, s.
        offered, ended, failed: requests that were scheduled; those with an outcome; those whose outcome is no success.
        offered_per_s, answered_per_s: rates of the last seconds, requests/s: scheduled, and with an outcome.
        p50_ms, p99_ms: response times of the requests that ended, ms, a failed one being ∞; NaN without any.
        queue: requests in flight at each look, as pairs of time (s) and number.
        fault: what speaks against the trial so far; "" for nothing.
    """

    elapsed_s: float
    duration_s: float
    offered: int = 0
    ended: int = 0
    failed: int = 0
    offered_per_s: float = 0.0
    answered_per_s: float = 0.0
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    queue: Sequence[tuple[float, int]] = ()
    fault: str = ""

    @property
    def in_flight(self) -> int:
        """Requests that were scheduled and have no outcome."""
        return self.offered - self.ended

    @property
    def left_s(self) -> float:
        """Time until the last arrival, s."""
        return max(0.0, self.duration_s - self.elapsed_s)


class Reader:
    """Reads one load, look by look.

    Args:
        duration_s: length of the arrivals, s.
    """

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s
        self._shards: list[_Shard] = []
        self._response, self._lag = _Counts(), _Counts()
        self._queue: list[tuple[float, int]] = []
        self._recent: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def look(self, elapsed_s: float, rows: Sequence[Watched]) -> SoFar:
        """Return what is known after ``elapsed_s``; without ``rows`` that is the time alone."""
        if not rows or elapsed_s <= 0:
            return SoFar(elapsed_s, self._duration_s)
        self._shards = self._shards or [_Shard(one) for one in rows]
        for shard in self._shards:
            shard.look(round(elapsed_s * 1e9), self._response, self._lag)
        offered, ended = sum(shard.offered for shard in self._shards), self._response.total
        self._queue.append((elapsed_s, offered - ended))
        while len(self._recent) > 1 and self._recent[1][0] <= elapsed_s - RECENT_S:
            self._recent.popleft()
        since_s, *before = self._recent[0]
        self._recent.append((elapsed_s, offered, ended))
        span_s = max(elapsed_s - since_s, 1e-9)
        return SoFar(
            elapsed_s=elapsed_s,
            duration_s=self._duration_s,
            offered=offered,
            ended=ended,
            failed=self._response.failed,
            offered_per_s=(offered - before[0]) / span_s,
            answered_per_s=(ended - before[1]) / span_s,
            p50_ms=self._response.quantile(0.50),
            p99_ms=self._response.quantile(0.99),
            queue=self._queue,
            fault=self._fault(offered),
        )

    def _fault(self, offered: int) -> str:
        """Return the first of the gates' rules that the load so far breaks; most can only be judged at its end."""
        median_ms, late_ms = self._response.quantile(0.5), self._lag.quantile(0.99)
        allowed_ms = LAG_FLOOR_NS / 1e6
        if math.isfinite(median_ms):
            allowed_ms = max(allowed_ms, LAG_SHARE_OF_MEDIAN * median_ms)
        if late_ms > allowed_ms:
            return f"{INVALID} so far: the generator is {late_ms:.1f} ms late at p99"
        failed, ended = self._response.failed, self._response.total
        if failed > FAILED_MAX * ended:
            return f"{SATURATED} so far: {failed / ended:.1%} failed"
        queue = max(QUEUE_MIN, BEHIND_MAX * (1 - FIRST_PART) * offered)
        if not growth("in_flight", "requests in flight", self._batches(), queue).passed:
            return f"{SATURATED} so far: ever more requests are in flight"
        return ""

    def _batches(self) -> Floats:
        """Return the mean requests in flight in equal parts of the time so far, NaN without a look: (BATCHES,)."""
        at, number = np.array(self._queue).T
        part = np.floor((at / at[-1] - FIRST_PART) / (1 - FIRST_PART) * BATCHES).astype(int).clip(max=BATCHES - 1)
        count = np.bincount(part[part >= 0], minlength=BATCHES)
        total = np.bincount(part[part >= 0], weights=number[part >= 0], minlength=BATCHES)
        return np.divide(total, count, out=np.full(BATCHES, np.nan), where=count > 0)


@dataclass
class _Counts:
    """Times, counted by size; those that failed are above any."""

    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(PER_DECADE * DECADES + 1, np.int64))
    failed: int = 0
    total: int = 0

    def add(self, times_ms: Floats, failed: int = 0) -> None:
        place = np.ceil(np.log10(np.maximum(times_ms, LEAST_MS) / LEAST_MS) * PER_DECADE).astype(np.int64)
        self.bins += np.bincount(place.clip(max=PER_DECADE * DECADES), minlength=len(self.bins))
        self.failed += failed
        self.total += len(times_ms) + failed

    def quantile(self, level: float) -> float:
        """Return a quantile in ms: the middle of its bin; NaN of nothing, ∞ where it failed."""
        if not self.total:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self.bins), math.ceil(level * self.total)))
        return math.inf if place == len(self.bins) else LEAST_MS * 10 ** ((place - 0.5) / PER_DECADE)


class _Shard:
    """The rows of one engine process, and which of them were counted."""

    def __init__(self, rows: Watched) -> None:
        self._rows = rows
        self._counted = np.zeros(len(rows.scheduled), bool)
        self._first = 0  # all before it were counted
        self.offered = 0

    def look(self, now_ns: int, response: _Counts, lag: _Counts) -> None:
        """Count the requests that have ended since the last look."""
        rows, first = self._rows, self._first
        self.offered = last = int(np.searchsorted(rows.scheduled, now_ns, side="right"))
        scheduled, done, counted = (one[first:last] for one in (rows.scheduled, rows.done, self._counted))
        new = np.flatnonzero((done >= 0) & ~counted)
        counted[new] = True
        ok = rows.outcome[first:last][new] == status.OK
        response.add((done[new] - scheduled[new])[ok] / 1e6, int(len(new) - ok.sum()))
        lag.add((rows.due[first:last][new] - scheduled[new]) / 1e6)
        open_ = np.flatnonzero(~counted)
        self._first = first + int(open_[0]) if len(open_) else last
