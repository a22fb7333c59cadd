"""The offset and drift of another machine's monotonic clock, from round trips of which the fastest are kept.

An exchange brings four times: sent here, received there, answered there, received here. With equal ways there and back
the offset of the other clock is ((t1 − t0) + (t2 − t3)) ÷ 2, and whatever the ways are it lies within half the round
trip of that (D. L. Mills, RFC 5905, section 8). A delay on the way only lengthens a round trip, so that the shortest of
many bounds the offset best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_UNCERTAIN_NS = 5_000_000
"""Largest half of the shortest round trip with which clocks count as aligned, ns."""

DRIFT_PRIOR = 1e-4
"""Standard deviation of the drift that a clock is expected to have before it is measured: quartz is within 100 ppm."""

DRIFT_MOST = 5e-4
"""The fastest that a clock which is being corrected gains on another (the kernel slews by 500 ppm at most)."""

KEPT_NS = 300_000_000_000
"""How far back readings are used, ns: drift changes with the temperature."""

Exchange = tuple[int, int, int, int]
"""Times of one round trip, ns: sent here, received there, answered there, received here."""


@dataclass(frozen=True)
class Reading:
    """The best of some round trips.

    Attributes:
        at_ns: the middle of it, on this machine's clock.
        offset_ns: the other clock less this one.
        within_ns: half the round trip, which bounds the error of the offset.
    """

    at_ns: int
    offset_ns: int
    within_ns: int


def best(exchanges: Sequence[Exchange]) -> Reading:
    """Return the reading of the shortest of some round trips, the time between receipt and answer taken off."""
    t0, t1, t2, t3 = min(exchanges, key=lambda e: (e[3] - e[0]) - (e[2] - e[1]))
    return Reading((t0 + t3) // 2, ((t1 - t0) + (t2 - t3)) // 2, max(1, ((t3 - t0) - (t2 - t1)) // 2))


@dataclass(frozen=True)
class Clock:
    """Another machine's clock: its offset at one time of this machine's, its drift, and how well they are known.

    Attributes:
        at_ns: the time at which the offset holds, on this machine's clock.
        offset_ns: the other clock less this one, then.
        drift: seconds that it gains in each second of this machine's.
        within_ns: half of the shortest round trip.
    """

    at_ns: int
    offset_ns: int
    drift: float
    within_ns: int

    def offset_at(self, here_ns: int) -> int:
        """Return the other clock less this one at a time of this machine's, ns."""
        return self.offset_ns + round(self.drift * (here_ns - self.at_ns))


def fit(readings: Sequence[Reading]) -> Clock:
    """Fit a line through readings: weighted least squares, with a drift near 0 (:data:`DRIFT_PRIOR`) until it is seen.

    A reading's weight is the inverse square of half its round trip. Those of the last :data:`KEPT_NS` count.
    """
    latest = readings[-1].at_ns
    kept = [one for one in readings if latest - one.at_ns <= KEPT_NS]
    # Relative to the latest reading: monotonic clocks count from each machine's start, and floats have 53 bits.
    seconds = np.array([(one.at_ns - latest) / 1e9 for one in kept])
    offsets = np.array([float(one.offset_ns - kept[-1].offset_ns) for one in kept])
    weights = np.array([1.0 / one.within_ns**2 for one in kept])
    design = np.stack([np.ones_like(seconds), seconds], axis=1)
    normal = design.T @ (weights[:, None] * design) + np.diag([0.0, 1 / (DRIFT_PRIOR * 1e9) ** 2])
    offset, drift_ns = np.linalg.solve(normal, design.T @ (weights * offsets))
    within = min(one.within_ns for one in kept)
    return Clock(latest, kept[-1].offset_ns + round(float(offset)), float(drift_ns) / 1e9, within)


def jump_ns(clock: Clock, reading: Reading) -> int:
    """Return by how much a new reading lies beyond what a clock that runs on can show, ns; 0 if it does not."""
    room = clock.within_ns + reading.within_ns + DRIFT_MOST * abs(reading.at_ns - clock.at_ns)
    off = reading.offset_ns - clock.offset_at(reading.at_ns)
    return off if abs(off) > room else 0
