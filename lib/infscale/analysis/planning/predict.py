"""Predictions: simulated percentiles whose intervals hold the service times' own uncertainty, too."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from infscale.analysis.intervals import CONFIDENCE, MIN_LIFETIMES
from infscale.analysis.queueing.service import Service
from infscale.analysis.queueing.simulate import PERCENTILES, REQUESTS, Estimate, Simulated, System, simulate
from infscale.errors import ConfigError
from infscale.records.gate import Floats

GROUPS = 8
"""Most groups into which lifetimes are put: one group at a time is left out."""

PER_REPLICA, MOST_REQUESTS = 2_000, 20_000_000
"""Requests that are simulated for each replica where they are more than usual, and the most in all."""


def requests_for(replicas: int) -> int:
    """Return how many requests to simulate: with many replicas more, since each needs time to reach its usual state."""
    return min(max(REQUESTS, PER_REPLICA * replicas), MOST_REQUESTS)


def predict(service: Service, system: System, rate_per_s: float, *, requests: int = 0, seed: int = 1) -> Simulated:
    """Simulate a system, with intervals that hold what measuring the service times again would change.

    A group of lifetimes at a time is left out of the service times, and the same draws are simulated again: the
    jackknife, on logarithms. Its variance and that of the simulation add up. With fewer than three lifetimes, the
    interval is that of the simulation alone.

    Args:
        service, system, rate_per_s, seed: as :func:`infscale.analysis.queueing.simulate.simulate` takes them.
        requests: how many are simulated; 0 takes :func:`requests_for`.

    Raises:
        ConfigError: λ is beyond the capacity.
    """
    requests = requests or requests_for(system.replicas)
    whole = simulate(service, system, rate_per_s, requests=requests, seed=seed)
    groups = _groups(service.parts)
    if len(groups) < MIN_LIFETIMES:
        return whole
    without = []
    for k in range(len(groups)):
        rest = replace(service, parts=tuple(part for i, part in enumerate(groups) if i != k))
        try:
            without.append(simulate(rest, system, rate_per_s, requests=requests, seed=seed).percentiles)
        except ConfigError:  # without these lifetimes it would be beyond the capacity
            without.append({name: Estimate(math.inf, math.inf, math.inf) for name in PERCENTILES})
    widened = {
        name: _widened(value, [values[name].value for values in without]) for name, value in whole.percentiles.items()
    }
    return replace(whole, percentiles=widened)


def _groups(parts: Sequence[Floats]) -> list[Floats]:
    """Return the parts, or so many groups of them."""
    count = min(len(parts), GROUPS)
    return [np.concatenate(parts[k::count]) for k in range(count)]


def _widened(value: Estimate, without: Sequence[float]) -> Estimate:
    if not value.known or not np.isfinite(without).all():
        return Estimate(value.value, value.low, math.inf)
    count = len(without)
    error = float(np.std(np.log(without), ddof=1)) * (count - 1) / math.sqrt(count)
    other = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    below, above = (math.hypot(math.log(end / value.value), other) for end in (value.low, value.high))
    return Estimate(value.value, value.value * math.exp(-below), value.value * math.exp(above))
