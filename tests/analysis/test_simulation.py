"""If these fail, a plan for replicas that nobody has yet rests on a simulation that is wrong."""

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infscale.analysis.queueing import kernels
from infscale.analysis.queueing.replicas import DedicatedReplicas, SharedReplicas
from infscale.analysis.queueing.service import UNBOUNDED, Service, split
from infscale.analysis.queueing.simulate import BALANCERS, PERCENTILES, Cache, System, simulate
from infscale.errors import ConfigError, DataError

MEAN_S = 0.01
LEVELS = (np.arange(50_000) + 0.5) / 50_000


def exponential() -> Service:
    """Service times at equal steps of probability of an exponential distribution, so that their moments are known."""
    held = -np.log1p(-LEVELS)
    return Service((MEAN_S * held / held.mean(),))


def two_kinds() -> Service:
    """One request in ten takes ten times as long as the others."""
    held = np.where(LEVELS < 0.9, 1.0, 10.0)
    return Service((MEAN_S * held / held.mean(),))


def pollaczek_khinchine(service: Service, rate: float) -> float:
    """Return the mean response time of M/G/1, s: Kleinrock (1975), equation 5.70."""
    held = service.held
    return float(held.mean() + rate * (held**2).mean() / (2 * (1 - rate * held.mean())))


def erlang(workers: int, load: float) -> float:
    """Return the mean response time of M/M/k in service times, ``load`` = λS ÷ k: Kleinrock (1975), equation 3.41."""
    offered = workers * load
    waiting = offered**workers / math.factorial(workers) / (1 - load)
    probability = waiting / (sum(offered**n / math.factorial(n) for n in range(workers)) + waiting)
    return 1 + probability / (workers * (1 - load))


# --- known queues -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("load", "requests"), [(0.5, 2_000_000), (0.9, 20_000_000)])
@pytest.mark.parametrize("make", [exponential, two_kinds], ids=["M/M/1", "M/G/1"])
def test_the_mean_of_one_worker_is_that_of_pollaczek_and_khinchine(make: Any, load: float, requests: int) -> None:
    service = make()
    mean = simulate(service, System(), load / MEAN_S, requests=requests, seed=3).mean_ms.value / 1e3
    assert mean == pytest.approx(pollaczek_khinchine(service, load / MEAN_S), rel=0.01)


@pytest.mark.parametrize("load", [0.5, 0.9])
@pytest.mark.parametrize("workers", [2, 8])
def test_the_mean_of_several_workers_is_erlangs(workers: int, load: float) -> None:
    service = Service(exponential().parts, workers=workers)
    mean = simulate(service, System(), workers * load / MEAN_S, requests=8_000_000, seed=4).mean_ms.value / 1e3
    assert mean == pytest.approx(MEAN_S * erlang(workers, load), rel=0.01)


@pytest.mark.parametrize("make", [exponential, two_kinds], ids=["M/M/1-PS", "M/G/1-PS"])
def test_a_shared_core_gives_the_mean_of_processor_sharing_whatever_the_distribution(make: Any) -> None:
    """Of a core that n requests share the mean response time is S ÷ (1 − λS): Kleinrock, volume 2 (1976), 4.4."""
    service = Service(make().parts, workers=UNBOUNDED)
    mean = simulate(service, System(cores=1.0), 0.8 / MEAN_S, requests=8_000_000, seed=5).mean_ms.value / 1e3
    assert mean == pytest.approx(MEAN_S / 0.2, rel=0.01)


def test_the_percentiles_of_replicas_that_are_drawn_at_random_are_those_of_one_queue() -> None:
    """Poisson arrivals that are dealt at random are Poisson at each replica; the response of M/M/1 is exponential."""
    result = simulate(exponential(), System(16, "random"), 16 * 0.7 / MEAN_S, requests=4_000_000)
    for name, p in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        truth = -math.log(1 - p) * MEAN_S / 0.3 * 1e3
        assert result.percentiles[name].value == pytest.approx(truth, rel=0.02)
        assert result.percentiles[name].low <= result.percentiles[name].value <= result.percentiles[name].high


def test_a_tail_that_the_simulation_does_not_know_is_not_given_an_interval() -> None:
    """Of 100,000 requests of a queue that is busy 90 %, the 95 % interval of a p99.9 held it in 43 of 100 cases."""
    few = simulate(exponential(), System(), 0.9 / MEAN_S, requests=100_000)
    assert not few.percentiles["p99.9"].known
    assert few.percentiles["p99.9"].high == math.inf
    assert few.percentiles["p50"].known


@pytest.mark.parametrize(("load", "name"), [(0.5, "p99"), (0.9, "p95")])
def test_intervals_hold_the_percentile_of_the_queue_as_often_as_they_say(load: float, name: str) -> None:
    """The response time of M/M/1 is exponential. All of it: benchmarks.truth.planning."""
    truth_ms = -math.log(1 - PERCENTILES[name]) * 1e3 * MEAN_S / (1 - load)
    rate = load / MEAN_S
    found = [simulate(exponential(), System(), rate, requests=400_000, seed=k).percentiles[name] for k in range(60)]
    held = sum(one.low <= truth_ms <= one.high for one in found)
    assert held >= stats.binom.ppf(0.001, 60, 0.95)
    assert all(one.known for one in found)


def test_workers_with_cores_enough_are_like_workers_with_cores_of_their_own() -> None:
    for balancer in BALANCERS:
        alone, shared = (
            simulate(exponential(), System(8, balancer, cores=cores), 300, requests=200_000) for cores in (None, 8.0)
        )
        assert alone.mean_ms.value == pytest.approx(shared.mean_ms.value, rel=1e-3)


# --- request for request, beside plain Python -------------------------------------------------------------

TRACES = st.lists(
    st.tuples(st.floats(0, 3, width=32), st.floats(0.015625, 4, width=32), st.integers(0, 2**64 - 1)),
    min_size=1,
    max_size=60,
)


def arrays(trace: list[tuple[float, float, int]]) -> tuple[Any, Any, Any]:
    gaps, work, bits = zip(*trace, strict=True)
    return np.cumsum(np.array(gaps, float)), np.array(work, float), np.array(bits, np.uint64)


def check_choice(rule: int, number: int, bits: int, counts: list[int], chosen: int, pins: list[int]) -> None:
    """Check that a replica is one that the rule may choose, given how many requests each has."""
    high, low, many = bits >> 32, bits & 0xFFFFFFFF, len(counts)
    first, any_other = high * many >> 32, low * many >> 32
    distinct = low * (many - 1) >> 32
    distinct += distinct >= first
    expected = {
        kernels.IN_TURN: [number % many],
        kernels.RANDOM: [first],
        kernels.LEAST: [k for k in range(many) if counts[k] == min(counts)],
        kernels.TWO: [first if many == 1 or counts[first] <= counts[distinct] else distinct],
        kernels.TWO_REPLACED: [first if counts[first] <= counts[any_other] else any_other],
        kernels.PINNED: [pins[high * len(pins) >> 32]],
    }
    assert chosen in expected[rule]


@settings(max_examples=60, deadline=None)
@given(TRACES, st.sampled_from(list(BALANCERS.values())), st.integers(1, 4), st.integers(1, 3), st.integers(0, 60))
def test_each_request_goes_where_the_balancer_says_and_ends_when_first_come_first_served_says(
    trace: list[tuple[float, float, int]], rule: int, replicas: int, workers: int, cut: int
) -> None:
    arrive, work, bits = arrays(trace)
    pins = np.arange(5, dtype=np.int64) % replicas
    system = DedicatedReplicas(rule, pins, replicas, workers)
    parts = [part for span in (slice(None, cut), slice(cut, None)) if len(arrive[span])
             for part in system.send(arrive[span], work[span], bits[span])]  # fmt: skip
    response, chosen = (np.concatenate(column) for column in zip(*parts, strict=True))
    free = [[0.0] * workers for _ in range(replicas)]  # when each worker is free
    departures: list[list[float]] = [[] for _ in range(replicas)]
    for i, now in enumerate(arrive):
        counts = [sum(time > now for time in own) for own in departures]
        k = int(chosen[i])
        check_choice(rule, i, int(bits[i]), counts, k, pins.tolist())
        first = free[k].index(min(free[k]))
        free[k][first] = max(now, free[k][first]) + work[i]
        departures[k].append(free[k][first])
        assert response[i] == pytest.approx(free[k][first] - now, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(TRACES, st.sampled_from(list(BALANCERS.values())), st.integers(1, 3), st.integers(1, 3),
       st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 60))  # fmt: skip
def test_shared_cores_advance_every_busy_worker_alike(
    trace: list[tuple[float, float, int]], rule: int, replicas: int, workers: int, cores: float, cut: int
) -> None:
    arrive, work, bits = arrays(trace)
    # Two requests that come long after all others have ended show when those did.
    arrive = np.append(arrive, arrive[-1] + 1e6 + np.arange(2))
    work, bits = np.append(work, [1.0, 1.0]), np.append(bits, np.zeros(2, np.uint64))
    pins = np.arange(5, dtype=np.int64) % replicas
    system = SharedReplicas(rule, pins, replicas, workers, cores)
    found: dict[int, tuple[float, int]] = {}
    for span in (slice(None, cut), slice(cut, None)):
        for response, finished, chosen in system.ended(arrive[span], work[span], bits[span]):
            found |= {int(n): (float(r), int(k)) for r, n, k in zip(response, finished, chosen, strict=True)}
    assert set(range(len(trace))) <= set(found)
    queues: list[list[int]] = [[] for _ in range(replicas)]
    left, now = dict(enumerate(work.tolist())), 0.0
    for i in range(len(trace) + 1):
        while True:  # let time pass, worker by worker, until the next arrival
            busy = [n for queue in queues for n in queue[:workers]]
            pace = min(1.0, cores / len(busy)) if busy else 1.0
            soonest = min((left[n] for n in busy), default=math.inf) / pace
            step = min(soonest, arrive[i] - now)
            now += step
            for n in busy:
                left[n] -= step * pace
            if soonest > step or not busy:
                break
            for queue in queues:
                for n in [n for n in queue[:workers] if left[n] <= 1e-9]:
                    assert found[n][0] == pytest.approx(now - arrive[n], abs=1e-6)
                    queue.remove(n)
        now = arrive[i]
        if i < len(trace):
            k = found[i][1]
            check_choice(rule, i, int(bits[i]), [len(queue) for queue in queues], k, pins.tolist())
            queues[k].append(i)


@pytest.mark.parametrize("cores", [None, 1.0])
def test_a_burst_that_outgrows_the_first_room_loses_no_request(cores: float | None) -> None:
    """Room grows while requests wait in it: one that is overwritten would never have come."""
    system = System(2, "power-of-two", cores=cores)
    result = simulate(exponential(), system, 97 if cores else 195, requests=200_000)
    assert result.requests == 200_000
    assert result.percentiles["p99"].value > 20 * 2 * 1e3 * MEAN_S, "or more room than at first was never needed"
    assert result.shares.sum() == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.integers(1, 12))
def test_a_cache_drops_what_was_not_used_for_longest(keys: list[int], most: int) -> None:
    kept: OrderedDict[int, None] = OrderedDict()
    expected = []
    for key in keys:
        expected.append(key in kept)
        kept[key] = None
        kept.move_to_end(key)
        if len(kept) > most:
            kept.popitem(last=False)
    hit, state = np.empty(len(keys), np.bool_), (np.full(10, -2), np.full(10, -1), np.array([-1, -1, 0]))
    uniform = (np.array(keys) + 0.5) / 10
    kernels.least_recent(uniform, np.ones(10), np.arange(10), *state, most, hit)
    assert hit.tolist() == expected


@pytest.mark.parametrize("weights", [[1.0], [3.0, 1.0], [0.1, 5.0, 1.0, 0.0, 2.5]])
def test_items_are_drawn_in_proportion_to_their_weights(weights: list[float]) -> None:
    threshold, other = kernels.alias(np.array(weights))
    share = np.zeros(len(weights))
    for k, value in enumerate(threshold):
        share[k] += value / len(weights)
        share[other[k]] += (1 - value) / len(weights)
    assert share == pytest.approx(np.array(weights) / sum(weights))


# --- what must hold of any result -------------------------------------------------------------------------


def test_a_balancer_that_knows_more_is_never_slower() -> None:
    means = {
        name: simulate(exponential(), System(10, name, connections=10), 850, requests=2_000_000).mean_ms.value
        for name in BALANCERS
    }
    order = ("least-requests", "power-of-two", "envoy-least-request", "round-robin", "random")
    assert sorted(order, key=lambda name: means[name]) == list(order)
    assert means["l4"] == pytest.approx(means["random"], rel=0.05), "a connection at random, one for each replica"


def test_connections_that_are_fewer_than_replicas_leave_replicas_without_work() -> None:
    result = simulate(exponential(), System(4, "l4", connections=2), 100, requests=20_000)
    assert result.shares.tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=0.02)
    assert result.utilisation == pytest.approx(0.5)


def test_a_cache_spares_replicas_its_hits() -> None:
    half = simulate(exponential(), System(cache=Cache(share=0.5, hit_s=0.001)), 140, requests=1_000_000)
    alone = simulate(exponential(), System(), 70, requests=1_000_000)
    assert half.hits == pytest.approx(0.5, abs=0.005)
    assert half.utilisation == pytest.approx(0.7)
    assert half.mean_ms.value == pytest.approx(0.5 + alone.mean_ms.value / 2, rel=0.05)
    few, many = (
        simulate(exponential(), System(2, cache=Cache(items=10_000, zipf=1.0, entries=entries)), 100, requests=200_000)
        for entries in (100, 5_000)
    )
    assert 0.3 < few.hits < many.hits < 1
    everything = Cache(items=50, entries=50)
    assert simulate(exponential(), System(cache=everything), 1e4, requests=20_000).hits == 1.0, "no request is left"


def test_what_passes_beside_the_worker_is_added_and_takes_no_capacity() -> None:
    beside = Service(exponential().parts, beside_s=0.005)
    assert System().capacity_per_s(beside) == pytest.approx(1 / MEAN_S)
    with_it, without = (simulate(one, System(), 50, requests=100_000).mean_ms.value for one in (beside, exponential()))
    assert with_it - without == pytest.approx(5)


def test_the_same_seed_gives_the_same_result_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (simulate(exponential(), System(3), 200, requests=50_000).percentiles for _ in range(2))
    assert first == second


def test_hits_are_the_fastest_requests() -> None:
    misses, hits = split([np.array([3.0, 1.0, 2.0, 4.0]), np.array([5.0, 0.5])], 0.5)
    assert [part.tolist() for part in misses] == [[3.0, 4.0], [5.0]]
    assert hits.tolist() == [1.0, 2.0, 0.5]


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "rate", "message"),
    [
        (System(4), 400.0, "rate=400 is beyond the capacity: 400 requests/s reach replicas that can answer 400 in all"),
        (System(4, cores=2), 200.0, "can answer 200 in all"),
        (System(4, "l4", connections=5), 251.0, "can answer 250 in all"),
        (System(1, cache=Cache(share=0.5)), 201.0, "100.5 requests/s reach replicas that can answer 100"),
        (System(1), -1.0, "rate_per_s=-1.0 is not an arrival rate"),
        (System(1), math.nan, "rate_per_s=nan is not an arrival rate"),
    ],
)
def test_a_rate_beyond_the_capacity_is_refused_with_the_capacity(system: System, rate: float, message: str) -> None:
    """Else the simulation would report how long it lasted."""
    with pytest.raises(ConfigError, match=message):
        simulate(Service((np.full(100, MEAN_S),)), system, rate, requests=2_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: System(0), "replicas=0 cannot be simulated"),
        (lambda: System(balancer="best"), "balancer='best' is not known; accepted: envoy-least-request, l4,"),
        (lambda: System(connections=0), "connections=0 is not a number of connections"),
        (lambda: System(cores=0.0), "cores=0.0 is not a number of cores"),
        (lambda: Cache(share=1.0), "share=1.0 is not a share of hits"),
        (lambda: Cache(items=5), "items=5 need a cache that holds some"),
        (lambda: simulate(exponential(), System(), 1.0, requests=10), "requests=10 are too few for intervals"),
    ],
)
def test_what_cannot_be_simulated_is_named_with_what_can(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_service_times_too_few_for_a_percentile_are_refused_with_the_least_number() -> None:
    few = Service((np.full(499, MEAN_S),), source="an arm at 20 requests/s")
    few.check(0.95)
    with pytest.raises(
        DataError, match=r"an arm at 20 requests/s: 499 requests .* too few to simulate p99; needed: 500"
    ):
        few.check(0.99)
