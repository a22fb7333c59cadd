"""How many replicas a rate and an SLO need, behind each balancer, by simulation of measured service times."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from infscale.analysis.cost import per_million
from infscale.analysis.planning.predict import predict, requests_for
from infscale.analysis.queueing.service import UNBOUNDED, Service, of_arm
from infscale.analysis.queueing.simulate import PERCENTILES, Simulated, System, simulate
from infscale.errors import ConfigError, DataError, check_rate
from infscale.experiment.design.slo import Slo
from infscale.records.runs import Run

MOST = 100_000
"""Most replicas that are tried."""


@dataclass(frozen=True)
class Plan:
    """The replicas that a rate and an SLO need behind one balancer.

    Attributes:
        system: what was simulated, with ``most`` replicas.
        fewest: the fewest replicas that were not shown to break the SLO.
        most: the fewest that were shown to keep it. Where both are one number, that is the answer; else it is undecided
            between them, as an interval holds the limit.
        simulated: at ``most`` replicas.
        per_replica_per_s: λ ÷ ``most``, requests/s.
        per_million: cost of a million requests, in the currency of the price; NaN without one.
        cpu_cores: cores that the replicas use, by the CPU of a request; NaN where it was not measured.
    """

    system: System
    fewest: int
    most: int
    simulated: Simulated
    per_replica_per_s: float
    per_million: float
    cpu_cores: float

    @property
    def decided(self) -> bool:
        """Whether one number of replicas is the answer."""
        return self.fewest == self.most


def plan_text(run: Run, arm: int, system: System, rate_per_s: float, slo: Slo) -> str:
    """Return how many replicas of a measured arm keep an SLO at a rate, in words; or why the run cannot say."""
    try:
        found = plan(of_arm(run, arm), system, rate_per_s, slo)
    except (ConfigError, DataError) as error:
        return f"{run.labels[arm]}: {error}"
    count = f"{found.fewest:,}" if found.fewest == found.most else f"{found.fewest:,} to {found.most:,}"
    return f"{run.labels[arm]}: {count} replicas behind {system.balancer} keep the SLO at {rate_per_s:,.0f} requests/s"


def plan(
    service: Service, system: System, rate_per_s: float, slo: Slo, *, price_per_hour: float = math.nan, seed: int = 1
) -> Plan:
    """Return how many replicas keep an SLO at a rate.

    More replicas are taken to mean shorter response times, so that the number is found by doubling and halving; around
    it intervals decide (:func:`infscale.analysis.planning.predict.predict`), with the same draws for every number.

    Args:
        service: what a request takes of one replica.
        system: balancer, cache, cores; its ``replicas`` do not matter.
        rate_per_s: λ.
        slo: a percentile of the response time and its limit.
        price_per_hour: of one replica; NaN for none.
        seed: of all draws.

    Raises:
        DataError: there are too few service times for the percentile.
        ConfigError: no number of replicas is enough; with the reason.
    """
    check_rate(rate_per_s, "rate_per_s")
    service.check(PERCENTILES[slo.percentile])
    _check_reachable(service, system, rate_per_s, slo)
    limit = system.connections if system.balancer == "l4" else MOST

    def value(count: int) -> float:
        """Return the percentile with so many replicas, ms; infinite beyond the capacity."""
        try:
            sized = replace(system, replicas=count)
            found = simulate(service, sized, rate_per_s, requests=requests_for(count), seed=seed)
        except ConfigError:
            return math.inf
        return found.percentiles[slo.percentile].value

    near = _smallest(lambda count: value(count) <= slo.limit_ms, _floor(service, system, rate_per_s), limit)
    if near is None:
        raise ConfigError(
            f"rate={rate_per_s:g}, slo={slo}: beyond every capacity: not kept by {limit} replicas with "
            f"balancer={system.balancer!r}; accepted: a lower rate, a longer limit"
            + (", or more connections" if system.balancer == "l4" else "")
        )
    fewest, most, simulated = _decide(service, system, rate_per_s, slo, near, limit, seed)
    cost = per_million(rate_per_s, price_per_hour * most) if math.isfinite(price_per_hour) else math.nan
    cores = service.server_cpu_s * rate_per_s * (1 - simulated.hits)
    return Plan(replace(system, replicas=most), fewest, most, simulated, rate_per_s / most, cost, cores)


def _check_reachable(service: Service, system: System, rate_per_s: float, slo: Slo) -> None:
    """Refuse a limit that even an idle replica breaks, and a load that replicas on shared cores cannot carry."""
    share = 0.0 if system.cache.items else system.cache.share
    p = PERCENTILES[slo.percentile]
    if not system.cache.items and p > share:
        alone = 1e3 * (service.beside_s + float(np.quantile(service.held, (p - share) / (1 - share))))
        if alone > slo.limit_ms:
            raise ConfigError(
                f"slo={slo}: a request that waits for nothing has {slo.percentile} {alone:.3g} ms, so that no number "
                f"of replicas is enough; accepted: a limit above that"
            )
    if system.cores is not None and not system.cache.items:
        most = system.cores / service.mean_s / (1 - share)
        if rate_per_s >= most:
            raise ConfigError(
                f"rate={rate_per_s:g} is beyond every capacity: {system.cores:g} shared cores can compute "
                f"{most:.4g} requests/s, however many replicas share them; accepted: a lower rate, or more cores"
            )


def _floor(service: Service, system: System, rate_per_s: float) -> int:
    """Return a number of replicas below which queues grow without end; 1 where that depends on a cache's hits."""
    if system.cache.items or service.workers >= UNBOUNDED:
        return 1
    each = service.workers / service.mean_s
    return max(1, math.ceil(rate_per_s * (1 - system.cache.share) / each))


def _smallest(holds: Callable[[int], bool], least: int, most: int) -> int | None:
    """Return the smallest number for which a condition holds that goes on to hold; None if it does up to none."""
    below, above = least - 1, least
    while above < most and not holds(above):
        below, above = above, min(most, 2 * above)
    if above > most or (above == most and not holds(above)):
        return None
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if holds(middle) else (middle, above)
    return above


def _decide(
    service: Service, system: System, rate_per_s: float, slo: Slo, near: int, limit: int, seed: int
) -> tuple[int, int, Simulated]:
    """Return the fewest replicas not shown to break the SLO, the fewest shown to keep it, and what these do.

    Raises:
        ConfigError: none up to the limit is shown to keep it.
    """

    def predicted(count: int) -> Simulated | None:
        try:
            return predict(service, replace(system, replicas=count), rate_per_s, seed=seed)
        except ConfigError:
            return None

    most, kept = near, None
    for most in (near, *_steps(near, limit)):
        kept = predicted(most)
        if kept is not None and kept.percentiles[slo.percentile].high <= slo.limit_ms:
            break
    else:
        raise ConfigError(
            f"rate={rate_per_s:g}, slo={slo}: beyond every capacity: {most} replicas with balancer={system.balancer!r} "
            "may keep it, and more were not tried; accepted: a lower rate, a longer limit"
        )
    fewest = near
    for count in (near - step for step in (1, 2, 4, 8, 16, 32, 64) if step < near):
        found = predicted(count)
        if found is None or found.percentiles[slo.percentile].low > slo.limit_ms:
            break
        fewest = count
    return fewest, most, kept


def _steps(near: int, limit: int) -> Iterator[int]:
    """Yield numbers of replicas above the first guess, ever farther apart."""
    step = 1
    while near + step <= limit and step <= max(64, near):
        yield near + step
        step *= 2
