"""Schedules: pure functions of arrival process, λ, duration and seed, which return int64 nanoseconds.

A schedule is ascending and lies within [0, duration). The same arguments always give the same schedule: a
``SeedSequence`` is only read (its ``spawn`` would advance it).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infscale.errors import MAX_DURATION_S, ConfigError, check_duration, check_rate, is_number, one_of

Schedule = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rates = float | Sequence[float]
"""An arrival rate λ, requests/s, or those of a process whose rate changes."""

PROCESSES = ("constant", "gamma", "poisson", "ramp", "steps", "trace")
"""Names of the arrival processes."""
MAX_REQUESTS = 100_000_000
"""Most requests that a schedule may expect."""
CV_RANGE = (0.001, 100.0)
"""Smallest and largest coefficient of variation of gamma gaps."""
LEAST_RATE = 1e-280
"""Arrival rate (1/s) that replaces all lower ones: it expects no request in any duration, and its gaps are floats."""
WEAK = 2.0**-500
"""Share of the highest of several rates below which a rate counts as 0."""


@dataclass(frozen=True)
class Process:
    """An arrival process without its rate, for :func:`draw` and :func:`shards`.

    Attributes:
        name: one of :data:`PROCESSES`.
        cv: coefficient of variation of the gaps, for "gamma".
        trace: arrival times in ns, in any order and from any origin, for "trace".
    """

    name: str = "poisson"
    cv: float = 1.0
    trace: Schedule | None = None


POISSON = Process()

ORDERS = ("random", "in-order", "shuffled")
"""How the bodies of requests are taken from a pool, see :func:`payload_choice`."""


def draw(process: Process, rate: Rates, duration_s: float, seed: np.random.SeedSequence) -> Schedule:
    """Draw a schedule of any process.

    Args:
        process: the arrival process.
        rate: λ, requests/s; for "ramp" the rates at start and end; for "steps" one for each step; for "trace" λ, or
            ``()`` to keep the trace's own.
        duration_s: length of the arrivals, s.
        seed: of the draws.

    Raises:
        ConfigError: an unknown process, the wrong number of rates, or a value that cannot be used.
    """
    one_of("arrivals", process.name, PROCESSES)
    rates = _as_tuple(rate)
    if process.name == "steps":
        return steps(rates, duration_s, seed)
    if process.name == "trace":
        trace = np.empty(0, np.int64) if process.trace is None else process.trace
        own = _exactly(rates, min(1, len(rates)), process)
        return replay(trace, duration_s, *own)
    if process.name == "ramp":
        start, end = _exactly(rates, 2, process)
        return ramp(start, end, duration_s, seed)
    (single,) = _exactly(rates, 1, process)
    if process.name == "gamma":
        return gamma(single, duration_s, seed, process.cv)
    return {"poisson": poisson, "constant": constant}[process.name](single, duration_s, seed)


def shards(
    rate: Rates, duration_s: float, seed: np.random.SeedSequence, count: int, process: Process = POISSON
) -> Sequence[Schedule]:
    """Draw ``count`` schedules whose superposition is the process.

    Superposed Poisson processes, whether their rate is constant or changes, are Poisson: every shard draws its own, of
    a ``count``-th of the rate, from its own seed. Two constant processes make no constant one: of any other process one
    schedule is drawn and dealt in turn, so that shard k sends the requests k, k + count, k + 2·count and so on.
    """
    if count == 1 or process.name not in ("poisson", "ramp", "steps"):
        whole = draw(process, rate, duration_s, seed)
        return [np.ascontiguousarray(whole[k::count]) for k in range(count)]
    # The smallest floats cannot be divided. They expect no request in any duration, so they can stay as they are.
    parts = tuple(r / count or r for r in _rates(_as_tuple(rate)))
    return [draw(process, parts, duration_s, child) for child in _children(seed, count)]


# --------------------------------------------------------------------------------------- the processes


def poisson(rate_per_s: float, duration_s: float, seed: np.random.SeedSequence) -> Schedule:
    """Draw Poisson arrivals of rate λ on [0, duration): independent exponential gaps of mean 1/λ.

    Returns:
        Ascending int64 nanoseconds, shape (n,); n is itself Poisson(λ·duration).

    Raises:
        ConfigError: the rate or the duration is not a positive number, or there would be too many requests.
    """
    rate, duration = _checked(rate_per_s, duration_s)
    rng = _generator(seed)
    return _nanoseconds(_sums(lambda n: rng.exponential(1 / rate, n), rate * duration, 1.0, duration), duration)


def constant(rate_per_s: float, duration_s: float, seed: np.random.SeedSequence) -> Schedule:
    """Draw arrivals with equal gaps of 1/λ; the first comes after a uniformly random part of a gap.

    The random phase makes the process stationary, so that it does not meet a server's own timers always alike.

    Raises:
        ConfigError: as :func:`poisson`.
    """
    rate, duration = _checked(rate_per_s, duration_s)
    phase = _generator(seed).random()
    return _nanoseconds((np.arange(math.ceil(rate * duration) + 1) + phase) / rate, duration)


def gamma(rate_per_s: float, duration_s: float, seed: np.random.SeedSequence, cv: float) -> Schedule:
    """Draw arrivals with independent gamma gaps of mean 1/λ and coefficient of variation ``cv``: 1 is Poisson.

    The gaps' shape is 1/cv². The process is in equilibrium from the start: the first arrival is at a uniform part
    of a length-biased gap, whose shape is one larger (D. R. Cox, Renewal Theory, 1962, ch. 5), so that λ·duration
    requests are expected whatever ``cv`` is.

    Raises:
        ConfigError: as :func:`poisson`, and when ``cv`` is outside :data:`CV_RANGE`.
    """
    rate, duration = _checked(rate_per_s, duration_s)
    if not is_number(cv) or not CV_RANGE[0] <= cv <= CV_RANGE[1]:
        low, high = CV_RANGE
        raise ConfigError(f"cv={cv!r} is no coefficient of variation; accepted: {low} to {high:g} (0 is constant)")
    shape, scale, rng = 1 / cv**2, cv**2 / rate, _generator(seed)
    first = rng.random() * rng.gamma(shape + 1, scale)
    if first >= duration:
        return np.empty(0, np.int64)
    later = _sums(lambda n: rng.gamma(shape, scale, n), rate * duration, cv, duration - first)
    return _nanoseconds(np.concatenate([[first], first + later]), duration)


def ramp(start_per_s: float, end_per_s: float, duration_s: float, seed: np.random.SeedSequence) -> Schedule:
    """Draw Poisson arrivals whose rate goes linearly from ``start_per_s`` to ``end_per_s`` (one of them may be 0).

    The arrivals are those of a Poisson process of rate 1, mapped through the inverse of the expected count
    Λ(t) = r₀t + (r₁ − r₀)t²/2T (E. Çinlar, Introduction to Stochastic Processes, 1975, ch. 4.7): exact, no thinning.

    Raises:
        ConfigError: a rate is negative, both are 0, or as :func:`poisson`.
    """
    first, last = _rates((start_per_s, end_per_s))
    duration = check_duration(duration_s)
    counts = _unit((first + last) / 2 * duration, seed)
    # In units that bring the higher rate and the duration below 1, or a square could be beyond all floats. The units
    # are powers of two, which change no digit.
    (_, rate_unit), (length, time_unit) = math.frexp(max(first, last)), math.frexp(duration)
    start, end = math.ldexp(first, -rate_unit), math.ldexp(last, -rate_unit)
    areas = np.ldexp(counts, -rate_unit - time_unit)
    root = np.sqrt(np.maximum(start**2 + 2 * ((end - start) / length) * areas, 0))  # the rate at each arrival
    times = np.divide(2 * areas, start + root, out=np.zeros_like(areas), where=areas > 0)
    return _nanoseconds(np.ldexp(times, time_unit), duration)


def steps(rates_per_s: Sequence[float], duration_s: float, seed: np.random.SeedSequence) -> Schedule:
    """Draw Poisson arrivals whose rate takes each of ``rates_per_s`` in turn, for equal parts of the duration.

    Drawn as in :func:`ramp`. A rate may be 0 (a pause).

    Raises:
        ConfigError: a rate is negative, all are 0, or as :func:`poisson`.
    """
    rates = _rates(rates_per_s)
    duration = check_duration(duration_s)
    edges = np.linspace(0, duration, len(rates) + 1)
    # A step that is weaker by so much expects no request, and the slope below would exceed all floats.
    weakest = max(rates) * WEAK
    heights = [rate if rate > weakest else 0.0 for rate in rates]
    with np.errstate(over="ignore"):  # infinitely many requests are refused below
        expected = np.concatenate([[0.0], np.cumsum(np.asarray(heights) * duration / len(rates))])
    return _nanoseconds(np.interp(_unit(float(expected[-1]), seed), expected, edges), duration)


def replay(trace: Schedule, duration_s: float | None = None, rate_per_s: float | None = None) -> Schedule:
    """Return the arrivals of a trace, counted from its first and cut at the duration.

    Args:
        trace: int64 ns, in any order and from any origin.
        duration_s: length of the arrivals, s; None for the whole trace. A shorter trace ends early.
        rate_per_s: stretches time so that the whole trace, before it is cut, has this mean rate (n − 1 gaps over its
            length); None keeps its own.

    Raises:
        ConfigError: an empty trace, one that has no length and is to be scaled, or one that would last too long.
    """
    if not len(trace):
        raise ConfigError("the trace holds no arrival")
    if int(np.max(trace)) - int(np.min(trace)) > np.iinfo(np.int64).max:
        raise ConfigError("the trace's first and last arrival lie further apart than int64 nanoseconds reach")
    times: Schedule = np.sort(trace) - np.min(trace)
    until = math.inf if duration_s is None else check_duration(duration_s) * 1e9
    if rate_per_s is None:
        return times[times < until]
    if times[-1] == 0:
        raise ConfigError(f"the trace's {len(times)} arrivals are simultaneous: no rate can be made of them")
    factor = (len(times) - 1) / (float(times[-1]) / 1e9) / check_rate(rate_per_s)
    last = factor * float(times[-1])
    if math.isinf(last) or (duration_s is None and last > MAX_DURATION_S * 1e9):
        raise ConfigError(f"rate={rate_per_s!r} stretches the trace beyond {MAX_DURATION_S:g} s; give a higher rate")
    stretched = np.floor(times * factor)
    return np.asarray(stretched[stretched < until], dtype=np.int64)


def payload_choice(count: int, pool: int, seed: np.random.SeedSequence, order: str = "random") -> npt.NDArray[np.int32]:
    """Draw the body of each of ``count`` requests: indices into a pool of ``pool`` bodies.

    "random" draws them uniformly and independently. "in-order" takes each once, then again from the first;
    "shuffled" takes each once in a random order, then each once in another.
    """
    rng, passes = _generator(seed), -(-count // pool)
    if order == "random":
        return rng.integers(0, pool, count, dtype=np.int32)
    once = np.arange(pool, dtype=np.int32)
    taken: npt.NDArray[np.int32] = np.concatenate(
        [once[:0], *(rng.permutation(once) if order == "shuffled" else once for _ in range(passes))]
    )
    return taken[:count]


# --------------------------------------------------------------------------------------------- helpers


def _as_tuple(rate: Rates) -> tuple[float, ...]:
    return tuple(rate) if isinstance(rate, Sequence) and not isinstance(rate, str) else (rate,)


def _exactly(rates: tuple[float, ...], count: int, process: Process) -> tuple[float, ...]:
    if len(rates) != count:
        raise ConfigError(f"rate={','.join(map(str, rates))} for {process.name} arrivals; accepted: {count} rate(s)")
    return rates


def _rates(rates_per_s: Sequence[float]) -> tuple[float, ...]:
    """Check the rates of a process whose rate changes: none negative, at least one above 0."""
    numbers = all(is_number(rate) and rate >= 0 for rate in rates_per_s)
    if not numbers or not any(rate > 0 for rate in rates_per_s):
        raise ConfigError(f"rates={list(rates_per_s)!r}; accepted: numbers of requests/s, none negative, not all 0")
    return tuple(float(rate) for rate in rates_per_s)


def _checked(rate_per_s: float, duration_s: float) -> tuple[float, float]:
    rate, duration = check_rate(rate_per_s), check_duration(duration_s)
    _check_count(rate * duration)
    return max(rate, LEAST_RATE), duration


def _check_count(expected: float) -> None:
    if expected > MAX_REQUESTS:
        raise ConfigError(f"rate × duration = {expected:.3g} requests; accepted: at most {MAX_REQUESTS:,}")


def _generator(seed: np.random.SeedSequence) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _children(seed: np.random.SeedSequence, count: int) -> list[np.random.SeedSequence]:
    """Return the first result of ``seed.spawn(count)`` without advancing ``seed``."""
    keys = ((*seed.spawn_key, k) for k in range(count))
    return [np.random.SeedSequence(seed.entropy, spawn_key=key, pool_size=seed.pool_size) for key in keys]


def _sums(gaps: Callable[[int], Floats], expected: float, cv: float, until: float) -> Floats:
    """Draw gaps and return their cumulated sums, the last at or beyond ``until``."""
    times: Floats = np.cumsum(gaps(int(expected + 10 * cv * math.sqrt(expected) + 20)))
    while times[-1] < until:  # a draw beyond ten standard deviations
        times = np.concatenate([times, times[-1] + np.cumsum(gaps(100))])
    return times


def _unit(length: float, seed: np.random.SeedSequence) -> Floats:
    """Draw a Poisson process of rate 1 on [0, length), as floats."""
    _check_count(length)
    rng = _generator(seed)
    times = _sums(lambda n: rng.exponential(1.0, n), length, 1.0, length)
    return times[times < length]


def _nanoseconds(times_s: Floats, duration_s: float) -> Schedule:
    times = times_s * 1e9
    return np.asarray(times[times < duration_s * 1e9], dtype=np.int64)
