"""Simulation of replicas behind a balancer: percentiles of the response time with intervals, in bounded memory.

Poisson arrivals of rate λ, service times drawn from those that were measured, replicas that are all alike, no failures
and no limits of queues. Everything about a request is drawn in blocks and sent through the loops of
:mod:`infscale.analysis.queueing.kernels`; response times are counted in bins of at most 0.2 %, so that a percentile is
exact to 0.1 % and 10⁸ requests need no more memory than 10⁶.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import special

from infscale.analysis.intervals import CONFIDENCE
from infscale.analysis.queueing.replicas import Whole, replicas_of
from infscale.analysis.queueing.service import UNBOUNDED, Service
from infscale.errors import ConfigError, check_rate, one_of
from infscale.records.gate import Floats

BALANCERS = {
    "round-robin": 0,
    "random": 1,
    "least-requests": 2,
    "power-of-two": 3,
    "envoy-least-request": 4,
    "l4": 5,
}
"""The rules by which a replica is chosen, as the loops number them.

Requests in turn; at random; the replica with the fewest requests under way; the one with fewer of two distinct ones
drawn at random; the same of two that may be one and the same, as Envoy's LEAST_REQUEST draws them; and that of the
request's connection, which was given one when it was opened, in turn, and is drawn at random.
"""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
"""What is reported."""

BATCHES = 10
"""Batches of a simulation, of which Student's t makes intervals. One more of the same size, the first, is dropped."""

KNOWN = 0.5
"""Largest half-width of the interval of a tail's share, relative to the share, by which its percentile is known. Beyond
it a batch holds too few of the queues that make the tail, and its interval would miss the truth too often
(docs/planning-simulated.md)."""

REQUESTS = 1_000_000
"""Requests of a simulation where nothing else is said."""

_BLOCK = 1 << 15  # so that its arrays stay in a core's cache
_FILLING = 20  # most requests for each item that fill a cache
_SHIFT = 43  # of a float64's 64 bits: what is left are bins of at most 0.2 %
_FIRST = int(np.float64(1e-7).view(np.int64)) >> _SHIFT
_BINS = (int(np.float64(1e5).view(np.int64)) >> _SHIFT) - _FIRST + 1


@dataclass(frozen=True)
class Cache:
    """A cache before the replicas, which answers some requests itself.

    Attributes:
        share: of requests that it answers, at random; where there are no ``items``.
        items: different requests that clients make; the popularity of the k-th is as k^(−``zipf``).
        zipf: 0 for all alike.
        entries: how many answers it holds; the least recently used one goes. An answer is there from the request on, so
            that what comes while it is computed counts as a hit.
        hit_s: how long a hit takes, s.
    """

    share: float = 0.0
    items: int = 0
    zipf: float = 1.0
    entries: int = 0
    hit_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"share={self.share} is not a share of hits; accepted: 0 to below 1")
        if not (0 <= self.items <= 10**8 and 0 <= self.zipf < 10 and self.entries >= 0 and self.hit_s >= 0):
            raise ConfigError(
                f"items={self.items}, zipf={self.zipf}, entries={self.entries}, hit_s={self.hit_s}: accepted: at most "
                "10⁸ items, an exponent from 0 to below 10, and nothing negative"
            )
        if self.items and not self.entries:
            raise ConfigError(f"items={self.items} need a cache that holds some; accepted: entries above 0")


NO_CACHE = Cache()


@dataclass(frozen=True)
class System:
    """What is simulated.

    Attributes:
        replicas: N, servers that are all alike.
        balancer: a key of :data:`BALANCERS`.
        connections: of the balancer "l4", in all.
        cores: c, which all replicas share, each busy worker alike; None where every worker has its own.
        cache: before the replicas.
    """

    replicas: int = 1
    balancer: str = "round-robin"
    connections: int = 8
    cores: float | None = None
    cache: Cache = NO_CACHE

    def __post_init__(self) -> None:
        one_of("balancer", self.balancer, BALANCERS)
        if not 1 <= self.replicas <= 1_000_000:
            raise ConfigError(f"replicas={self.replicas} cannot be simulated; accepted: 1 to 1000000")
        if self.connections < 1:
            raise ConfigError(f"connections={self.connections} is not a number of connections; accepted: 1 or more")
        if self.cores is not None and not 0 < self.cores < math.inf:
            raise ConfigError(f"cores={self.cores} is not a number of cores; accepted: above 0")

    @property
    def rule(self) -> int:
        """The number of the balancer's rule."""
        return BALANCERS[self.balancer]

    @property
    def pins(self) -> Whole:
        """The replica of each connection."""
        return np.arange(self.connections, dtype=np.int64) % self.replicas

    def capacity_per_s(self, service: Service) -> float:
        """Return the rate of requests that reach replicas, beyond which queues grow without end, requests/s.

        With "l4" it is that of the replica with the most connections.
        """
        each = service.workers / service.mean_s if service.workers < UNBOUNDED else math.inf
        busiest = 1 / self.replicas
        if self.balancer == "l4":
            busiest = float(np.bincount(self.pins).max()) / self.connections
        least = each / busiest
        return least if self.cores is None else min(least, self.cores / service.mean_s)


@dataclass(frozen=True)
class Estimate:
    """A simulated value with the ends of its 95 % interval: 0 and ∞ where too little was simulated to know it."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether the simulation says anything of the value."""
        return self.low > 0


@dataclass(frozen=True)
class Simulated:
    """What a simulation says.

    Attributes:
        requests: simulated, the dropped ones left out.
        rate_per_s: λ.
        mean_ms: mean response time, ms.
        percentiles: response times by the names of :data:`PERCENTILES`, ms.
        shares: the share of the requests that each replica answered, shape (replicas,).
        hits: the share of the requests that the cache answered.
        utilisation: λ of the misses ÷ capacity.
    """

    requests: int
    rate_per_s: float
    mean_ms: Estimate
    percentiles: Mapping[str, Estimate]
    shares: Floats
    hits: float
    utilisation: float


def simulate(
    service: Service, system: System, rate_per_s: float, *, requests: int = REQUESTS, seed: int = 1
) -> Simulated:
    """Simulate requests that arrive at random (Poisson) at a system.

    Intervals are of the simulation alone: what measuring the service times again would change is not in them
    (:mod:`infscale.analysis.planning.predict`). Of service times shorter than 0.1 µs they say nothing.

    Args:
        service: what a request takes of one replica.
        system: replicas, balancer, cache.
        rate_per_s: λ, all requests, hits too.
        requests: how many are simulated, at least 100 a batch.
        seed: of all draws.

    Raises:
        ConfigError: λ is beyond the capacity, or queues outgrow the memory; with the capacity.
    """
    check_rate(rate_per_s, "rate_per_s")
    if requests < 100 * BATCHES:
        raise ConfigError(f"requests={requests} are too few for intervals; accepted: {100 * BATCHES} or more")
    source = _Source(service, system, rate_per_s, np.random.default_rng(seed))
    each = -(-requests // BATCHES)
    capacity, misses = system.capacity_per_s(service), rate_per_s * (1 - source.hit_share(each))
    check_capacity(misses, capacity, rate_per_s)
    source.run(each)  # from empty to its usual state
    batches = [source.run(each) for _ in range(BATCHES)]
    counts = np.array([batch.bins for batch in batches])
    values = {name: _percentile(counts, p) for name, p in PERCENTILES.items()}
    means = [batch.total_s / batch.requests for batch in batches]
    mean = _mean(means)
    shares = sum((batch.shares for batch in batches), np.zeros(system.replicas))
    hits = float(np.mean([batch.hits / batch.requests for batch in batches]))
    return Simulated(BATCHES * each, rate_per_s, mean, values, shares / max(1.0, shares.sum()), hits, misses / capacity)


def check_capacity(misses_per_s: float, capacity_per_s: float, rate_per_s: float) -> None:
    """Check that requests do not come faster than replicas can answer.

    Raises:
        ConfigError: they do; with the capacity.
    """
    if misses_per_s >= capacity_per_s * (1 - 1e-9):
        raise ConfigError(
            f"rate={rate_per_s:g} is beyond the capacity: {misses_per_s:g} requests/s reach replicas that can answer "
            f"{capacity_per_s:.4g} in all; accepted: a lower rate, or more replicas"
        )


def _mean(batches: Sequence[float]) -> Estimate:
    """Return the mean of batches' means (s) in ms, with its interval: Student's t on their logarithms."""
    half = _half(np.log(np.maximum(batches, 1e-7)))
    value = 1e3 * float(np.mean(batches))
    return Estimate(value, value * math.exp(-half), value * math.exp(half))


def _percentile(counts: Whole, p: float) -> Estimate:
    """Return the p-quantile of all batches (ms), with its interval.

    The share of requests beyond it differs from batch to batch. Student's t of these shares says how far the share of
    the whole may be off, and the quantiles at the ends of that interval are those of the interval (sectioning: Asmussen
    & Glynn, Stochastic Simulation, 2007, III.5a).

    Args:
        counts: requests in each bin of response time, shape (batches, bins).
        p: between 0 and 1.
    """
    whole = counts.sum(0)
    bin_number = _bin_of(whole, p)
    half = _half(counts[:, bin_number + 1 :].sum(1) / counts.sum(1))
    value = _middle_ms(bin_number)
    if half > KNOWN * (1 - p):
        return Estimate(value, 0.0, math.inf)
    return Estimate(value, *(_middle_ms(_bin_of(whole, at)) for at in (max(0.0, p - half), p + half)))


def _half(batches: Floats) -> float:
    """Return half of the width of Student's interval of the mean of batches."""
    error = float(np.std(batches, ddof=1)) / math.sqrt(BATCHES)
    return float(special.stdtrit(BATCHES - 1, (1 + CONFIDENCE) / 2)) * error


def _bin_of(whole: Whole, p: float) -> int:
    """Return the number of the bin that holds the p-quantile of counted values."""
    cumulative = np.cumsum(whole)
    return int(np.searchsorted(cumulative, max(1, math.ceil(p * cumulative[-1]))))


def _middle_ms(number: int) -> float:
    """Return the middle of a bin, ms."""
    edges = np.array([_FIRST + number, _FIRST + number + 1], np.int64) << _SHIFT
    return 1e3 * float(edges.view(np.float64).mean())


# ---------------------------------------------------------------------------------------------- blocks


@dataclass
class _Batch:
    """What a batch of requests brought."""

    bins: Whole = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    requests: int = 0
    total_s: float = 0.0
    hits: int = 0
    shares: Floats = field(default_factory=lambda: np.zeros(0))


class _Source:
    """Draws requests and sends them through the loops, block after block."""

    def __init__(self, service: Service, system: System, rate_per_s: float, rng: np.random.Generator) -> None:
        self._held, self._beside_s = service.held, service.beside_s
        self._rate, self._rng, self._system, self._now = rate_per_s, rng, system, 0.0
        self._keys = _Keys(system.cache) if system.cache.items else None
        self._replicas = replicas_of(system.rule, system.pins, system.replicas, service.workers, system.cores)

    def hit_share(self, requests: int) -> float:
        """Return the share of hits, of so many requests; a cache that starts empty is filled before."""
        if self._keys is None:
            return self._system.cache.share
        for _ in range(_FILLING * self._system.cache.items // _BLOCK + 1):
            self._keys.ask(self._rng.random(_BLOCK))
            if self._keys.full:
                break
        return float(self._keys.ask(self._rng.random(min(requests, _BLOCK))).mean())

    def run(self, requests: int) -> _Batch:
        """Send so many requests and return what came of them."""
        batch = _Batch(shares=np.zeros(self._system.replicas))
        for begin in range(0, requests, _BLOCK):
            self._block(min(_BLOCK, requests - begin), batch)
        return batch

    def _block(self, count: int, batch: _Batch) -> None:
        from infscale.analysis.queueing import kernels

        gaps = self._rng.standard_exponential(count)
        arrive = self._now + np.cumsum(gaps) / self._rate
        self._now = float(arrive[-1])
        hit = self._hits(count)
        if hit is not None:
            arrive = arrive[~hit]
            batch.hits += int(hit.sum())
            hits = np.full(count - len(arrive), self._system.cache.hit_s)
            kernels.tally(hits.view(np.int64), _SHIFT, _FIRST, batch.bins)
            batch.total_s += float(hits.sum())
        work = self._held[self._rng.integers(0, len(self._held), len(arrive), dtype=np.int32)]
        bits = self._rng.bit_generator.random_raw(len(arrive))
        for response, chosen in self._replicas.send(arrive, work, bits):
            response += self._beside_s
            kernels.tally(response.view(np.int64), _SHIFT, _FIRST, batch.bins)
            batch.total_s += float(response.sum())
            batch.requests += len(response)
            batch.shares += np.bincount(chosen, minlength=self._system.replicas)
        batch.requests += count - len(arrive)

    def _hits(self, count: int) -> npt.NDArray[np.bool_] | None:
        cache = self._system.cache
        if self._keys:
            return self._keys.ask(self._rng.random(count))
        return self._rng.random(count) < cache.share if cache.share else None


class _Keys:
    """A cache and what it is asked for."""

    def __init__(self, cache: Cache) -> None:
        from infscale.analysis.queueing import kernels

        self._threshold, self._other = kernels.alias(np.arange(1, cache.items + 1, dtype=np.float64) ** -cache.zipf)
        self._before, self._after = np.full(cache.items, -2, np.int64), np.full(cache.items, -1, np.int64)
        self._ends, self._most = np.array([-1, -1, 0], np.int64), cache.entries

    @property
    def full(self) -> bool:
        """Whether it holds as many answers as it can."""
        return bool(self._ends[2] == self._most)

    def ask(self, uniform: Floats) -> npt.NDArray[np.bool_]:
        """Ask for a request each, and return which were hits."""
        from infscale.analysis.queueing import kernels

        hit = np.empty(len(uniform), np.bool_)
        kernels.least_recent(
            uniform, self._threshold, self._other, self._before, self._after, self._ends, self._most, hit
        )
        return hit
