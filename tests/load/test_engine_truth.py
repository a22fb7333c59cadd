"""If these fail, the engine's clock is wrong: against a server whose every answer is known, its rows must be exact.

The engine runs in virtual time over an in-memory FIFO server, so that measured and true times agree to the nanosecond
or the test fails. The last tests send over real sockets to a server that stalls.
"""

import math
from array import array
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers.virtual_server import VirtualServer
from infscale.load import schedule as arrivals
from infscale.load.engine import run as engine
from infscale.load.engine import status
from infscale.load.engine.interfaces import GiveUp, Limits
from infscale.load.engine.job import Job, codec_factory
from infscale.load.engine.loop import Engine
from infscale.load.null_server import Times, lindley, null_server, service_times, stall
from infscale.servers.null.http1 import Http1Server, replies
from infscale.servers.null.http2 import Http2Server

URLS = {"http": "http://127.0.0.1:1/", "h2c": "h2c://127.0.0.1:1/", "grpc": "grpc://127.0.0.1:1/p.S/M"}
SERVICE_S = 0.004
LONG_NS = 10**15
MANY = 10**6

ONE_CONNECTION_OR_MORE = [("http", 1), ("http", MANY), ("h2c", 1), ("h2c", 4), ("grpc", 1), ("grpc", 4)]
by_connections = pytest.mark.parametrize(("scheme", "connections"), ONE_CONNECTION_OR_MORE)

workloads = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=40)
"""Gaps and service times, in ns."""


def measure(
    scheme: str,
    schedule: npt.ArrayLike,
    service: npt.ArrayLike,
    *,
    connections: int = MANY,
    open_first: int = 1,
    timeout_ns: int = LONG_NS,
    max_streams: int | None = None,
    keep_alive: bool = True,
    edges: bool = False,
    give_up: GiveUp | None = None,
) -> tuple[pd.DataFrame, Engine, VirtualServer]:
    """The engine's rows of one trial in virtual time."""
    times = np.asarray(schedule, np.int64)
    bodies = [b"first body", b"", b"third body" * 5000]
    choice = np.arange(len(times), dtype=np.int32) % len(bodies)
    limits = Limits(timeout_ns, connections, open_first, keep_alive, give_up)
    job = Job(URLS[scheme], bodies, array("q", times.tobytes()), array("i", choice.tobytes()), limits)
    http1 = partial(Http1Server, replies(b"reply"), {})
    served = http1 if scheme == "http" else partial(Http2Server, b"reply", max_streams)
    world = VirtualServer(served, np.asarray(service, np.int64).tolist(), edges=edges)
    loop = Engine(world, codec_factory(job), job.schedule, job.choice, limits)
    loop.open(10**9)
    loop.run(world.now() + 12_345)
    loop.close()
    rows = pd.DataFrame({name: np.asarray(column) for name, column in vars(loop.rows).items()})
    return rows.assign(scheduled=times), loop, world


@by_connections
def test_a_load_is_given_up_when_so_many_requests_were_late_and_not_before(scheme: str, connections: int) -> None:
    """A server that takes 2 ms for each of 1,000 requests/s falls behind by 1 ms with each."""
    schedule, service = np.arange(1_000) * 10**6, np.full(1_000, 2 * 10**6)
    after, begin, most = 20 * 10**6, 100 * 10**6, 50
    rows, _, _ = measure(scheme, schedule, service, connections=connections, give_up=GiveUp(after, begin, most))
    whole, _, _ = measure(scheme, schedule, service, connections=connections)
    sent = rows["outcome"] != status.UNSENT
    late = schedule[(whole["done"] - schedule > after) & (schedule >= begin)]
    assert 0 < sent.sum() < 1_000
    assert sent[: sent.sum()].all()
    last = int(rows["due"].max())
    assert late[most - 1] + after <= last + 2 * 10**6
    assert late[most - 1] + after > last - 3 * 10**6
    done = rows["outcome"] == status.OK
    pd.testing.assert_series_equal(rows.loc[done, "done"], whole.loc[done, "done"])
    more, _, _ = measure(
        scheme, schedule, service, connections=connections, give_up=GiveUp(after, begin, len(late) + 1)
    )
    pd.testing.assert_frame_equal(more, whole)


def from_gaps(workload: Sequence[tuple[int, int]]) -> tuple[Times, Times]:
    gaps, service = np.array(workload, np.int64).T
    return np.cumsum(gaps), service


def starts(schedule: Times, done: Times, limit: int) -> Times:
    """When each request is sent if at most ``limit`` are under way and answers come in order."""
    earlier = np.concatenate([np.zeros(limit, np.int64), done])[: len(done)]
    return np.maximum(schedule, earlier)


# --- exactness in virtual time ---


@by_connections
@pytest.mark.parametrize("kind", ["constant", "exponential"])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_response_times_are_lindley_s_to_the_nanosecond(scheme: str, connections: int, kind: str, load: float) -> None:
    schedule = arrivals.poisson(load / SERVICE_S, 8 / load, np.random.SeedSequence(5))
    service = service_times(kind, SERVICE_S, len(schedule), seed=6)
    rows, loop, world = measure(
        scheme, schedule, service, connections=connections, open_first=connections if scheme != "http" else 1
    )
    truth = lindley(schedule, service)
    assert len(rows) == len(schedule) > 1500
    assert (rows["outcome"] == status.OK).all()
    assert (rows["done"] - rows["scheduled"] == truth).all()
    assert (rows["first"] == rows["done"]).all()
    assert (rows["due"] == rows["scheduled"]).all(), "there is no lag in virtual time"
    expected_sent = starts(schedule, schedule + truth, 1) if (scheme, connections) == ("http", 1) else schedule
    assert (rows["sent"] == expected_sent).all()
    assert (rows[["bytes_in", "bytes_out"]] > 0).all(axis=None)
    assert loop.lost == 0
    if scheme == "http":
        assert loop.opened == min(connections, world.most_in_system)
    else:
        assert loop.opened == connections
        assert max(world.requests_on) - min(world.requests_on) <= 1, "streams go round the connections"


@by_connections
@given(workload=workloads, edges=st.booleans())
def test_any_schedule_and_any_service_times(
    scheme: str, connections: int, workload: list[tuple[int, int]], edges: bool
) -> None:
    schedule, service = from_gaps(workload)
    first = min(connections, 4)
    rows, _, _ = measure(scheme, schedule, service, connections=connections, open_first=first, edges=edges)
    assert (rows["outcome"] == status.OK).all()
    assert (rows["due"] == schedule).all()
    assert (rows["done"] - schedule == lindley(schedule, service)).all()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@given(workload=workloads, limit=st.integers(1, 5))
def test_what_exceeds_the_limit_waits_inside_the_response_time(
    scheme: str, workload: list[tuple[int, int]], limit: int
) -> None:
    """k connections of HTTP/1.1, or k streams of one HTTP/2 connection: request i is sent when i − k is answered."""
    schedule, service = from_gaps(workload)
    connections, streams = (limit, None) if scheme == "http" else (1, limit)
    rows, loop, world = measure(scheme, schedule, service, connections=connections, max_streams=streams)
    done = schedule + lindley(schedule, service)
    assert (rows["outcome"] == status.OK).all(), "a stream beyond the server's limit is refused"
    assert (rows["done"] == done).all()
    assert (rows["due"] == schedule).all(), "waiting for a connection is not lag"
    assert (rows["sent"] == starts(schedule, done, limit)).all()
    assert world.most_in_system <= limit
    assert loop.opened <= (limit if scheme == "http" else 1)


@pytest.mark.parametrize("scheme", ["http", "h2c", "grpc"])
@given(workload=workloads, timeout=st.integers(1, 4000))
def test_a_timeout_is_censored_at_its_limit_and_leaves_the_others_exact(
    scheme: str, workload: list[tuple[int, int]], timeout: int
) -> None:
    schedule, service = from_gaps(workload)
    rows, _, _ = measure(scheme, schedule, service, timeout_ns=timeout)
    truth = lindley(schedule, service)
    late = truth > timeout
    assert (rows["outcome"] == np.where(late, status.TIMEOUT, status.OK)).all()
    assert (rows["done"] - schedule == np.minimum(truth, timeout)).all()
    assert (rows["sent"] == schedule).all()
    assert (rows["first"][late] == -1).all()


@given(workload=workloads, timeout=st.integers(1, 4000))
def test_on_one_connection_who_times_out_while_waiting_was_never_sent(
    workload: list[tuple[int, int]], timeout: int
) -> None:
    """A connection whose request was given up is replaced; the server still works through what it has received."""
    schedule, service = from_gaps(workload)
    rows, loop, world = measure("http", schedule, service, connections=1, timeout_ns=timeout)
    sent, done, outcome = one_connection(schedule.tolist(), service.tolist(), timeout)
    assert rows["sent"].tolist() == sent
    assert rows["done"].tolist() == done
    assert rows["outcome"].tolist() == outcome
    lost = sum(s >= 0 and o == status.TIMEOUT for s, o in zip(sent, outcome, strict=True))
    assert loop.opened <= 1 + lost
    assert sum(world.requests_on) == sum(s >= 0 for s in sent)


def one_connection(schedule: list[int], service: list[int], timeout: int) -> tuple[list[int], list[int], list[int]]:
    """The same trial by hand: sent, done and outcome of each request."""
    sent: list[int] = []
    done: list[int] = []
    outcome: list[int] = []
    free, by_answer, server_free, received = 0, True, 0, 0
    for scheduled in schedule:
        limit = scheduled + timeout
        start = max(scheduled, free)
        # At the same instant an answer is read before a timeout is looked for.
        if start > limit or (start == limit and not by_answer):
            sent, done, outcome = [*sent, -1], [*done, limit], [*outcome, status.TIMEOUT]
            continue
        server_free = max(start, server_free) + service[received]
        received += 1
        by_answer = server_free <= limit
        free = min(server_free, limit)
        sent, done = [*sent, start], [*done, free]
        outcome.append(status.OK if by_answer else status.TIMEOUT)
    return sent, done, outcome


@pytest.mark.parametrize("scheme", ["http", "h2c", "grpc"])
@given(workload=workloads)
def test_without_keep_alive_every_request_has_a_connection_and_all_are_counted(
    scheme: str, workload: list[tuple[int, int]]
) -> None:
    schedule, service = from_gaps(workload)
    rows, loop, world = measure(scheme, schedule, service, keep_alive=False)
    assert (rows["outcome"] == status.OK).all()
    assert (rows["done"] - schedule == lindley(schedule, service)).all()
    assert loop.opened == len(schedule) == rows["connection"].nunique()
    assert world.requests_on == [1] * len(schedule)
    assert loop.lost == 0


@pytest.mark.parametrize(("scheme", "connections"), [("http", 3), ("http", MANY), ("grpc", 1)])
@given(workload=workloads)
def test_little_s_law_is_an_identity_of_the_table(
    scheme: str, connections: int, workload: list[tuple[int, int]]
) -> None:
    """In-flight integrated over time, by the server and from the rows' events, is the sum of the times in the rows."""
    schedule, service = from_gaps(workload)
    rows, _, world = measure(scheme, schedule, service, connections=connections)
    assert (rows["done"] - rows["sent"]).sum() == world.in_system_ns
    for begin in ("scheduled", "sent"):
        assert in_flight_ns(rows[begin], rows["done"]) == (rows["done"] - rows[begin]).sum()


def in_flight_ns(begin: "pd.Series[int]", end: "pd.Series[int]") -> int:
    """∫ N(t) dt, by a sweep over all events."""
    events = sorted([(t, 1) for t in begin] + [(t, -1) for t in end])
    area, number, last = 0, 0, events[0][0]
    for at, step in events:
        area, number, last = area + number * (at - last), number + step, at
    return int(area)


# --- the truth itself ---


@given(workload=workloads)
def test_lindley_by_sums_is_the_recursion(workload: list[tuple[int, int]]) -> None:
    schedule, service = from_gaps(workload)
    wait, expected = 0, []
    for i in range(len(schedule)):
        wait = max(0, wait + int(service[i - 1]) - int(schedule[i] - schedule[i - 1])) if i else 0
        expected.append(wait + int(service[i]))
    assert lindley(schedule, service).tolist() == expected


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_lindley_agrees_with_queueing_theory(load: float) -> None:
    """M/D/1: W = S + λS²/(2(1−λS)); M/M/1: W = S/(1−λS), p99 = W·ln 100; within the simulation's 99.9 % interval."""
    rate = load / SERVICE_S
    for kind, mean in (
        ("constant", SERVICE_S + rate * SERVICE_S**2 / (2 * (1 - load))),
        ("exponential", SERVICE_S / (1 - load)),
    ):
        schedule = arrivals.poisson(rate, 3e6 / rate, np.random.SeedSequence(7))
        response = lindley(schedule, service_times(kind, SERVICE_S, len(schedule), seed=8))[100_000:] / 1e9
        batches = response[: len(response) // 40 * 40].reshape(40, -1)
        assert inside(batches.mean(axis=1), mean)
        if kind == "exponential":
            assert inside(np.quantile(batches, 0.99, axis=1), mean * math.log(100))


def inside(values: npt.NDArray[np.float64], truth: float) -> bool:
    """Whether the t interval at 99.9 % of batch values covers the truth, and is narrow enough to tell."""
    half = float(stats.t.ppf(0.9995, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return abs(float(values.mean()) - truth) <= half < 0.1 * truth


# --- a server that stalls, over real sockets ---

STALLED, STALL_S, GAP_MS = 20, 0.6, 5


def stalled_trial(scheme: str, **options: int) -> pd.DataFrame:
    """Rows of 160 requests, one each 5 ms, with times in ns; request 20 stalls the server once."""
    schedule = np.arange(160, dtype=np.int64) * GAP_MS * 1_000_000
    limit = {"max_streams": options.pop("server_streams")} if "server_streams" in options else {}
    with null_server(service_ns=stall(STALLED, STALL_S), **limit) as server:  # type: ignore[arg-type]
        url = f"http://{server.rest}/" if scheme == "http" else f"grpc://{server.grpc}/p.S/M"
        choice = np.zeros(len(schedule), np.int32)
        rows = engine.run(url, [b"body"], [schedule], [choice], timeout_s=20, **options).samples  # type: ignore[arg-type]
    assert (rows["status"] == "ok").all()
    return rows


@pytest.mark.server
@pytest.mark.parametrize(
    ("scheme", "options"),
    [("http", {"connections": 1}), ("grpc", {"connections": 1, "server_streams": 1})],
    ids=["REST", "gRPC"],
)
def test_one_request_at_a_time_shows_the_stall_in_the_response_times_only(scheme: str, options: dict[str, int]) -> None:
    """The round trip alone would call a server fast that let a hundred requests wait: coordinated omission."""
    rows = stalled_trial(scheme, **options)
    stalled, later = rows.iloc[STALLED], rows.iloc[STALLED + 1 :]
    assert stalled["done_ns"] - stalled["sent_ns"] >= STALL_S * 1e9
    behind = later[later["scheduled_ns"] < stalled["done_ns"]]
    assert len(behind) >= STALL_S * 1000 / GAP_MS - 1
    assert (behind["sent_ns"] >= stalled["done_ns"]).all(), "none was sent before the connection was free"
    assert (behind["done_ns"] - behind["scheduled_ns"] >= stalled["done_ns"] - behind["scheduled_ns"]).all()
    response, round_trip = rows["done_ns"] - rows["scheduled_ns"], rows["done_ns"] - rows["sent_ns"]
    assert response.quantile(0.99) > STALL_S * 1e9 * 0.9
    assert (round_trip >= STALL_S * 1e9).sum() == 1, "one round trip in 160 holds the stall: less than 1 %"


@pytest.mark.server
@pytest.mark.parametrize(
    ("scheme", "options"),
    [("http", {"connections": 256}), ("grpc", {"connections": 1}), ("grpc", {"connections": 4, "open_first": 4})],
    ids=["REST", "gRPC on one connection", "gRPC on four"],
)
def test_without_a_limit_response_and_round_trip_both_show_the_stall(scheme: str, options: dict[str, int]) -> None:
    """The loop is open: requests go out on schedule while the server stalls, and their round trips show it."""
    rows = stalled_trial(scheme, **options)
    stalled, later = rows.iloc[STALLED], rows.iloc[STALLED + 1 :]
    # The first half of the stall: an engine that is late by less than the other half has sent them before its end.
    behind = later[later["scheduled_ns"] < stalled["scheduled_ns"] + STALL_S * 1e9 / 2]
    assert len(behind) == STALL_S * 1000 / GAP_MS / 2 - 1
    assert (behind["sent_ns"] < stalled["done_ns"]).all()
    assert (behind["done_ns"] >= stalled["done_ns"]).all()
    response, round_trip = rows["done_ns"] - rows["scheduled_ns"], rows["done_ns"] - rows["sent_ns"]
    assert (response - round_trip).median() < STALL_S * 1e9 / 2
    assert round_trip.quantile(0.99) > STALL_S * 1e9 * 0.9
