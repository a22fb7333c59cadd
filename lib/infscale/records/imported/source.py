"""What the reader of a tool's file returns, and what readers share."""

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from infscale.errors import DataError
from infscale.records.manifest import Reason, Reported
from infscale.records.samples import NEVER

LONGEST_S = 100_000.0
"""Longest time that a load is believed to last, s: 28 hours."""

TEXT_MOST = 200
"""Most characters of a reason that are kept."""


@dataclass(frozen=True)
class Load:
    """One load of a tool: what is known of it from the tool's file.

    Attributes:
        client: one of :data:`infscale.experiment.design.arm.IMPORTED`.
        connections: users that send one request at a time; 0 where the file does not say.
        rate_per_s: the nominal arrival rate, requests/s; None of users, and where the file does not say.
        rows: one a request (:mod:`infscale.records.samples`), without ``trial_id``; ns since the first was scheduled.
        duration_s: length of the arrivals, s.
        timeout_s: that no request that timed out had waited for longer before the tool gave it up, s.
        started_at: the first request's time, UTC.
        reported: what the tool itself says, and how many of its requests have no row.
        reasons: why requests failed.
    """

    client: str
    connections: int
    rate_per_s: float | None
    rows: pd.DataFrame
    duration_s: float
    timeout_s: float
    started_at: str
    reported: Reported
    reasons: list[Reason] = field(default_factory=list)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, also one that gzip has compressed, for reading bytes.

    Raises:
        DataError: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if packed:
                with gzip.open(plain) as file:
                    yield file  # type: ignore[misc]  # a GzipFile reads as a BinaryIO does
            else:
                yield plain
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def rows_of(columns: Mapping[str, Sequence[int]], status: Sequence[str], source: str) -> tuple[pd.DataFrame, int]:
    """Return rows in the order of their schedule, and the time of the first, ns, from which the others count.

    Args:
        columns: the times of :data:`infscale.records.samples.TIMES` by name, ns on the tool's clock;
            :data:`infscale.records.samples.NEVER` for one that is not there.
        status: of each request.
        source: the file, for messages.

    Raises:
        DataError: there is no request, or the times span more than :data:`LONGEST_S`.
    """
    if not status:
        raise DataError(f"{source} holds no request")
    first = min(columns["scheduled_ns"])
    known = [t for times in columns.values() for t in times if t != NEVER]
    if max(known) - min(known) > LONGEST_S * 1e9:
        raise DataError(f"{source}: its times are further apart than {LONGEST_S / 3600:.0f} hours; accepted: one load")
    moved = {name: np.array([t if t == NEVER else t - first for t in times]) for name, times in columns.items()}
    frame = pd.DataFrame({**moved, "status": list(status)}).sort_values("scheduled_ns", kind="stable")
    others = {"bytes_out": NEVER, "bytes_in": NEVER, "payload": 0, "connection": 0, "shard": 0}
    return frame.assign(sequence=np.arange(len(frame)), **others).reset_index(drop=True), first


def length_s(rows: pd.DataFrame) -> float:
    """Return the length of arrivals whose end is not known: to the last one, and a mean gap more, s."""
    last = float(rows["scheduled_ns"].max())
    return max(1e-6, (last + last / max(1, len(rows) - 1)) / 1e9)


def limit_s(rows: pd.DataFrame, usual_s: float) -> float:
    """Return the time after which a request had timed out: the shortest that did, or what the tool's default is, s."""
    late = rows[rows["status"] == "timeout"]
    waited = float((late["done_ns"] - late["scheduled_ns"]).min()) / 1e9 if len(late) else math.inf
    return max(1e-6, min(waited, usual_s))
