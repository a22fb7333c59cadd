"""The search for the rate at an SLO, on queues whose answer is known: how often its interval holds it.

    python -m benchmarks.truth.capacity [RUNS]

prints the tables of docs/capacity-simulated.md. Service times have a mean of 1 ms. The search is
the one of ``infscale capacity`` (:func:`infscale.experiment.capacity.search`); only its trials are simulated: Poisson
arrivals at an idle server, response times by Lindley's recursion. A second table is of the metric of designs: the ratio
of two arms' rates, from a short search in each lifetime.
"""

import math
import sys
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize

from benchmarks.truth.search import START_ERROR
from infscale.analysis.answers import interval
from infscale.analysis.tables.saturation import by_slo, lifetime_logs
from infscale.experiment.capacity import ALPHA, WARM_UP, Found, Trial, most_late, observe, search
from infscale.experiment.design.design import SEARCH_REQUESTS
from infscale.experiment.design.slo import SCOUT_LATE, Slo
from infscale.experiment.lifetime.search import DITHER, STEP, _Search
from infscale.records.gate import SATURATED, VALID

Floats = npt.NDArray[np.float64]

QUEUES = "M/M/1", "M/D/1"
CASES = (
    *((queue, "p99", limit, 40.0) for limit in (10, 35, 100) for queue in QUEUES),
    *((queue, percentile, limit, 40.0) for percentile, limit in (("p95", 20), ("p50", 6)) for queue in QUEUES),
    *((queue, "p99", limit, 5.0) for limit in (35, 100) for queue in QUEUES),
)
"""Queue, percentile, its limit in ms (mean service times), and the longest trial for the sake of the queue in s."""

SPREAD = 0.05
"""Standard deviation of the logarithm of a server's speed between lifetimes."""


@cache
def truth(queue: str, slo: Slo) -> float:
    """Return the rate at which the percentile of the response time in steady state is the limit, as a load.

    M/M/1: the response time is exponential with rate μ − λ. M/D/1: the distribution of A. K. Erlang (1909) and
    C. D. Crommelin (1932), whose alternating sum is computed with as many digits as it cancels.
    """
    limit = slo.limit_ms
    if queue == "M/M/1":
        return 1 + math.log(slo.late) / limit
    return float(optimize.brentq(lambda rate: md1_late(rate, limit) - slo.late, 1e-6, 1 - 1e-9, xtol=1e-12))


def md1_late(rate: float, limit: float) -> float:
    """Return the probability that the response time in M/D/1 with service time 1 is above ``limit``, at least 1."""
    with localcontext() as context:
        context.prec = 60 + 2 * int(limit)
        load, wait, total, factorial = Decimal(rate), Decimal(limit) - 1, Decimal(0), Decimal(1)
        for k in range(int(wait) + 1):
            factorial *= max(k, 1)
            x = load * (k - wait)
            total += (x**k if k else Decimal(1)) / factorial * (-x).exp()
        return float(1 - (1 - load) * total)


def responses(rng: np.random.Generator, queue: str, rate: float, requests: int) -> Floats:
    """Return the response times of requests that come to an idle server, by the recursion of D. V. Lindley (1952)."""
    service = rng.exponential(1.0, requests) if queue == "M/M/1" else np.ones(requests)
    steps = np.concatenate([[0.0], service[:-1] - rng.exponential(1 / rate, requests - 1)])
    walk = np.cumsum(steps)
    times: Floats = walk - np.minimum.accumulate(walk) + service
    return times


def trial(rng: np.random.Generator, queue: str, slo: Slo, rate: float, planned: int, long: bool) -> Trial:
    """Simulate a trial, which ends early when it is hopeless, as the engine ends one."""
    warm = math.ceil(planned * WARM_UP / (1 - WARM_UP))
    response_ms = responses(rng, queue, rate / 1e3, warm + planned)[warm:]
    late = np.cumsum(response_ms > slo.limit_ms)
    most = most_late(slo, planned)
    hopeless = bool(late[-1] >= most)
    if hopeless:
        response_ms = response_ms[: int(np.searchsorted(late, most)) + 1]
    return observe(rate, response_ms, slo, planned, hopeless=hopeless, long=long)


def found(seed: int, number: int, queue: str, slo: Slo, longest_s: float) -> Found:
    """Return the result of a simulated search whose first rate lies anywhere from a twentieth to 2.7 of the truth."""
    rng = np.random.default_rng([seed, number])
    first = 1e3 * truth(queue, slo) * math.exp(rng.uniform(-3, 1))
    return search(lambda *what: trial(rng, queue, slo, *what), slo, first, longest_s=longest_s)


def in_lifetimes(rng: np.random.Generator, slo: Slo, speed: float, lifetimes: int, spread: float) -> pd.DataFrame:
    """Return the trials of one arm, M/M/1, in the search for the rate at an SLO that every lifetime of a run has.

    Args:
        rng: of everything.
        slo: the objective.
        speed: of the server: its mean service time is 1 ms ÷ speed.
        lifetimes: how many.
        spread: standard deviation of the logarithm of the speed between lifetimes.
    """
    start, rows = math.log(1e3 * speed * truth("M/M/1", Slo(slo.percentile, speed * slo.limit_ms))), []
    middles: list[float] = []
    for number in range(lifetimes):
        now = speed * math.exp(rng.normal(0, spread))
        middle = float(np.mean(middles)) if middles else start + rng.normal(0, START_ERROR)
        one = _Search(0, math.exp(middle + math.log(STEP) * rng.uniform(-DITHER, DITHER)), 1e9)
        while not one.done:
            requests = math.ceil(max(SEARCH_REQUESTS, SCOUT_LATE / slo.late))
            warm = math.ceil(WARM_UP * requests)
            late = responses(rng, "M/M/1", one.rate / 1e3 / now, requests)[warm:] > slo.limit_ms * now
            kept = bool(late.mean() <= slo.late)
            rows.append((number, one.rate, kept))
            one.judge(VALID if kept else SATURATED)
        if one.low and math.isfinite(one.high):
            middles.append(math.log(one.low * one.high) / 2)
    table = pd.DataFrame(rows, columns=["lifetime", "rate_per_s", "slo_kept"])
    return table.assign(arm=0, phase="capacity", verdict=VALID, closed=False)


def contrasts(runs: int) -> None:
    """Print how often the interval of a ratio of two arms' rates at an SLO holds it, and how far it is off."""
    print(
        "| objective | speeds | lifetimes | true ratio | holds it | mean ratio | ends differ by |\n" + "|---" * 7 + "|"
    )
    for percentile, limit in (("p99", 10), ("p99", 35), ("p95", 20)):
        slo = Slo(percentile, limit)
        for speeds, lifetimes in (((1.0, 1.0), 7), ((1.0, 1.5), 7), ((1.0, 1.5), 20)):
            first, second = (one * truth("M/M/1", Slo(percentile, one * limit)) for one in speeds)
            rng, found = np.random.default_rng(20261126), []
            for _ in range(runs):
                logs = [
                    lifetime_logs(by_slo(in_lifetimes(rng, slo, speed, lifetimes, SPREAD)))["value"].to_numpy()
                    for speed in speeds
                ]
                low, high = interval(logs[1] - logs[0], ALPHA)
                found.append((low, high, float(np.mean(logs[1] - logs[0]))))
            low, high, mean = np.array(found).T
            true = math.log(second / first)
            cells = [
                f"{percentile} < {limit} ms",
                f"{speeds[0]:g}, {speeds[1]:g}",
                f"{lifetimes}",
                f"{second / first:.3f}",
                f"{((low <= true) & (true <= high)).mean():.1%}",
                f"{np.exp(np.mean(mean[np.isfinite(mean)])):.3f}",
                f"{np.median(np.exp(high - low)) - 1:.1%}",
            ]
            print(f"| {' | '.join(cells)} |".replace("%", " %"), flush=True)


def main(runs: int) -> None:
    """Print the table of searches."""
    print(
        "| queue | objective | longest trial | truth | holds it | truth below | above | ends differ by | bias |"
        " trials | hopeless | requests | no interval |"
    )
    print("|" + "---|" * 13)
    for queue, percentile, limit, longest_s in CASES:
        slo = Slo(percentile, limit)
        true = 1e3 * truth(queue, slo)
        results = [found(20261126, k, queue, slo, longest_s) for k in range(runs)]
        known = [one for one in results if not one.bound]
        below, above = np.mean([(true < one.low, true > one.high) for one in known], axis=0)
        cells = [
            queue,
            f"{percentile} < {limit} ms",
            f"{longest_s:g} s",
            f"{true / 1e3:.4f}",
            f"{1 - below - above:.1%}",
            f"{below:.1%}",
            f"{above:.1%}",
            f"{np.median([one.high / one.low - 1 for one in known]):.1%}",
            f"{np.mean([one.value for one in known]) / true - 1:+.1%}",
            f"{np.median([len(one.trials) for one in results]):.0f}",
            f"{np.mean([sum(t.hopeless for t in one.trials) for one in results]):.1f}",
            f"{np.median([sum(t.requests for t in one.trials) for one in results]):,.0f}",
            f"{sum(bool(one.bound) for one in results)}",
        ]
        print(f"| {' | '.join(cells)} |".replace("%", " %"), flush=True)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    main(count)
    print()
    contrasts(3 * count // 10)  # a run has up to forty searches
