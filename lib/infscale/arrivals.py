"""Schedules: pure functions of (process, λ, duration, seed) to int64 nanosecond offsets."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from infscale.errors import ConfigError

Schedule = npt.NDArray[np.int64]


def check_rate(rate_per_s: float, name: str = "rate") -> float:
    """Return an arrival rate λ (1/s) that is a positive finite number.

    Raises:
        ConfigError: not a number, infinite, zero or negative.
    """
    number = isinstance(rate_per_s, int | float | np.integer | np.floating) and not isinstance(rate_per_s, bool)
    if not number or not math.isfinite(rate_per_s) or rate_per_s <= 0:
        raise ConfigError(f"{name}={rate_per_s!r} is not an arrival rate; accepted: a number of requests/s above 0")
    return float(rate_per_s)


def poisson(rate_per_s: float, duration_s: float, seed: np.random.SeedSequence) -> Schedule:
    """Poisson arrivals of rate λ on [0, duration): independent exponential gaps of mean 1/λ.

    Returns ascending int64 nanoseconds; their count is itself Poisson(λ·duration).

    Raises:
        ConfigError: the rate or the duration is not a positive number.
    """
    rate, duration = check_rate(rate_per_s), check_rate(duration_s, "duration_s")
    rng = np.random.Generator(np.random.PCG64(seed))
    expected = rate * duration
    gaps = rng.exponential(1 / rate, int(expected + 10 * math.sqrt(expected) + 20))
    times = np.cumsum(gaps)
    while times[-1] < duration:  # a draw beyond ten standard deviations
        times = np.concatenate([times, times[-1] + np.cumsum(rng.exponential(1 / rate, 100))])
    return np.asarray(times[times < duration] * 1e9, dtype=np.int64)


def payload_choice(count: int, pool: int, seed: np.random.SeedSequence) -> npt.NDArray[np.int32]:
    """Which body of a pool of ``pool`` each of ``count`` requests carries: uniform, independent."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, pool, count, dtype=np.int32)


def shards(rate_per_s: float, duration_s: float, seed: np.random.SeedSequence, count: int) -> Sequence[Schedule]:
    """``count`` independent Poisson(λ/count) schedules, whose superposition is Poisson(λ)."""
    return [poisson(rate_per_s / count, duration_s, child) for child in seed.spawn(count)]
