"""Times of streams: the first message, the gaps between messages, and how many came together.

Everything here is a function of the samples table and the table of chunks (:mod:`infscale.records.chunks`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from infscale.analysis.percentiles import Times
from infscale.records.gate import Floats
from infscale.records.samples import ordered
from infscale.vocabulary import STREAMS_ENDED


@dataclass(frozen=True)
class StreamTimes:
    """What the streams of one trial brought, and when.

    Attributes:
        first: from the scheduled time to the first message, ms, of all requests; a request that timed out or failed
            stands above the others, as in :func:`infscale.analysis.percentiles.trial_times`.
        first_from_send: the same from the send.
        gaps_ms: between successive messages of a stream, ascending, shape (gaps,); messages that came in one read have
            a gap of 0.
        stalls_ms: the longest gap of each stream that has one, ascending, shape (streams with two messages or more,).
        messages: number of messages of each stream that is counted, shape (streams,).
        reads: number of reads that completed these messages.
    """

    first: Times
    first_from_send: Times
    gaps_ms: Floats
    stalls_ms: Floats
    messages: npt.NDArray[np.int64]
    reads: int

    @property
    def per_read(self) -> float:
        """Return the mean number of messages of a stream that came in one read; NaN without messages."""
        return int(self.messages.sum()) / self.reads if self.reads else np.nan

    @property
    def together(self) -> float:
        """Return the share of the gaps that are 0: of messages that came in one read with the one before them."""
        gaps = len(self.gaps_ms)
        return float(np.searchsorted(self.gaps_ms, 0.0, side="right")) / gaps if gaps else np.nan


def gaps_ns(chunks: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the time from each message to the next of the same stream, ns, shape (messages − streams,).

    Args:
        chunks: columns ``sequence`` and ``at_ns``, ordered by request and index.
    """
    same = _same(chunks)
    return np.diff(chunks["at_ns"].to_numpy())[same]


def _same(chunks: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return, for each message but the last, whether the next one is of the same stream."""
    sequence = chunks["sequence"].to_numpy()
    return np.equal(sequence[1:], sequence[:-1])


def stream_times(rows: pd.DataFrame, chunks: pd.DataFrame, timeout_ms: float) -> StreamTimes:
    """Return the times of one trial's streams.

    Args:
        rows: the trial's samples, with ``sequence``, ``status``, ``scheduled_ns``, ``sent_ns`` and ``first_byte_ns``.
        chunks: messages, ordered by request and index; those of requests that are not in ``rows`` are left out.
        timeout_ms: the limit that a request with status "timeout" exceeded.
    """
    status = rows["status"]
    ok = (status == "ok").to_numpy()
    timeouts = int((status == "timeout").sum())
    failures = len(rows) - int(ok.sum()) - timeouts
    scheduled, sent, first = (rows[name].to_numpy()[ok] for name in ("scheduled_ns", "sent_ns", "first_byte_ns"))
    counted = rows["sequence"].to_numpy()[status.isin(STREAMS_ENDED).to_numpy()]
    kept = chunks[np.isin(chunks["sequence"].to_numpy(), counted)]
    sequence = kept["sequence"].to_numpy()
    same = _same(kept)
    gaps = gaps_ns(kept) / 1e6
    streams, messages = np.unique(sequence, return_counts=True)
    return StreamTimes(
        first=Times((first - scheduled) / 1e6, timeouts, failures, timeout_ms),
        first_from_send=Times((first - sent) / 1e6, timeouts, failures, timeout_ms),
        gaps_ms=ordered(gaps),
        stalls_ms=ordered(_longest(sequence[1:][same], gaps)),
        messages=messages.astype(np.int64),
        reads=len(streams) + int((gaps > 0).sum()),
    )


def _longest(sequence: npt.NDArray[np.uint32], gaps: Floats) -> Floats:
    """Return the longest gap of each stream; ``sequence``, ascending, says whose gap each is."""
    if not len(gaps):
        return gaps
    begins = np.flatnonzero(np.r_[True, sequence[1:] != sequence[:-1]])
    longest: Floats = np.maximum.reduceat(gaps, begins)
    return longest
