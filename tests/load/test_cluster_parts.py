"""If these fail, a load from several machines is merged wrongly, or begins at another time on each."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infscale.errors import ConfigError
from infscale.load import schedule
from infscale.load.cluster import clocks, rows
from infscale.load.cluster.clocks import Clock, Exchange, Reading, best, fit, jump_ns
from infscale.load.cluster.line import Line, LineBrokenError, Ping, Pong, Rows, speaking
from infscale.load.cluster.spec import KINDS, parse
from infscale.load.engine.run import Result, merged
from infscale.records.gates.cluster import on_one_clock, workers
from infscale.records.manifest import ClusterWorker, Generator
from infscale.records.samples import NEVER, synthetic

MS = 1_000_000


# ------------------------------------------------------------------------------------- what --cluster says


@pytest.mark.parametrize(
    ("text", "workers", "kind", "count"),
    [
        ("local", None, "local", 2),
        ("local:4", None, "local", 4),
        ("local", 3, "local", 3),
        ("local?workers=5", None, "local", 5),
        ("tcp://10.0.0.1:8786", None, "tcp", 0),
        ("tcp://[fd00::1]:8786?host=fd00::2", 4, "tcp", 4),
        ("ssh:a,user@b", None, "ssh", 2),
        ("ssh:a,b?python=/opt/python", 4, "ssh", 4),
        ("slurm", None, "slurm", 2),
        ("slurm:batch", 8, "slurm", 8),
        ("kubernetes:default/load", None, "kubernetes", 0),
    ],
)
def test_forms_of_clusters(text: str, workers: int | None, kind: str, count: int) -> None:
    spec = parse(text, workers)
    assert (spec.kind, spec.workers) == (kind, count)
    again = parse(spec.with_workers())
    assert (again.kind, again.workers, again.address, again.hosts) == (kind, count, spec.address, spec.hosts)


@pytest.mark.parametrize(
    "text", ["", "lokal", "local:x", "tcp://host", "http://host:1", "ssh:", "ssh:a b", "slurm:a/b", "local?x=1"]
)
def test_other_forms_are_refused_with_those_that_are_known(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--cluster .* accepted: "):
        parse(text)


@pytest.mark.parametrize(
    ("text", "workers", "said"),
    [
        ("local:4", 2, "differ"),
        ("ssh:a,b", 3, "cannot be shared by 2 hosts"),
        ("local", 1000, "accepted: 1 to 256"),
        ("local?workers=0", None, "is no number"),
    ],
)
def test_numbers_of_workers_that_cannot_be(text: str, workers: int | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text, workers)


@given(st.text(max_size=30))
def test_any_text_is_a_cluster_or_an_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse(text).kind in KINDS


# -------------------------------------------------------------------------------------------------- clocks


def exchanges(at_ns: int, offset_ns: int, delays: list[tuple[int, int]]) -> list[Exchange]:
    """Round trips to a clock that is ahead by ``offset_ns``, with these delays there and back, ns."""
    trips = []
    for there, back in delays:
        received = at_ns + there + offset_ns
        trips.append((at_ns, received, received + 1000, at_ns + there + 1000 + back))
        at_ns = trips[-1][3] + 1
    return trips


delays = st.lists(st.tuples(st.integers(1, 10**8), st.integers(1, 10**8)), min_size=1, max_size=20)


@given(st.integers(-(10**15), 10**15), delays)
def test_the_offset_is_within_half_of_the_shortest_round_trip(offset: int, ways: list[tuple[int, int]]) -> None:
    reading = best(exchanges(10**12, offset, ways))
    assert abs(reading.offset_ns - offset) <= reading.within_ns + 1
    assert reading.within_ns <= min(there + back for there, back in ways) // 2 + 1


@pytest.mark.parametrize("drift", [-80e-6, 0.0, 40e-6])
@pytest.mark.parametrize("offset", [0, 7 * 10**15])
def test_a_line_through_readings_finds_the_drift(drift: float, offset: int) -> None:
    """200 clocks, each read at four moments as one that joins, and before and after two loads of ten seconds; delays as
    of a network with a floor of 50 µs each way and a long tail."""
    rng, errors, ahead = np.random.default_rng(2), [], []
    for _ in range(200):
        readings = []
        for second in (0.0, 0.1, 0.2, 0.3, 10.5, 11.0, 21.5):
            at = 10**12 + round(second * 1e9)
            ways = (50_000 + rng.exponential(100_000, (40, 2))).astype(np.int64)
            readings.append(
                best(exchanges(at, offset + round(drift * second * 1e9), [(int(a), int(b)) for a, b in ways]))
            )
        clock = fit(readings)
        errors.append(abs(clock.drift - drift))
        ahead.append(abs(clock.offset_at(10**12 + round(22e9)) - offset - drift * 22e9))
    assert np.median(errors) < 2e-6
    assert np.quantile(ahead, 0.99) < 60_000


def test_a_first_reading_alone_takes_the_clock_to_run_on() -> None:
    clock = fit([Reading(10**9, 5000, 100)])
    assert (clock.offset_at(10**9), clock.drift) == (5000, 0.0)


def test_a_machine_that_slept_is_noticed() -> None:
    clock = Clock(0, 1000, 0.0, 20_000)
    assert jump_ns(clock, Reading(10**9, 30_000, 20_000)) == 0
    assert jump_ns(clock, Reading(10**9, -(10**9), 20_000)) == -(10**9) - 1000


# ---------------------------------------------------------------------------------------------------- lines


@contextlib.contextmanager
def pair() -> Iterator[tuple[Line, Line]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = Line(socket.create_connection(listener.getsockname()))
        far = Line(listener.accept()[0])
    try:
        yield near, far
    finally:
        near.close()
        far.close()


def test_an_exchange_over_a_line_knows_a_clock_that_is_an_hour_ahead() -> None:
    ahead = 3600 * 10**9

    def answer(line: Line) -> None:
        with contextlib.suppress(LineBrokenError):
            while True:
                line.receive()
                now = time.monotonic_ns() + ahead
                line.send(Pong(now, now))

    with pair() as (near, far):
        threading.Thread(target=answer, args=(far,), daemon=True).start()
        reading = best([near.exchange(60) for _ in range(20)])
    assert abs(reading.offset_ns - ahead) <= reading.within_ns


def test_messages_and_bytes_arrive_whole() -> None:
    data = np.random.default_rng(1).bytes(3_000_000)
    with pair() as (near, far):
        generator = Generator(cpu_user_s=1, cpu_system_s=2, cpu_s=3, wall_s=4)
        thread = threading.Thread(target=near.send, args=(Rows(generator, [1], 0.1, None), data))
        thread.start()
        assert speaking([far], 60) == [far]
        message, came = far.receive(60)
        thread.join()
    assert isinstance(message, Rows)
    assert message.generator.cpu_s == 3
    assert came == data


def test_the_end_of_the_other_side_is_seen_at_once() -> None:
    with pair() as (near, far):
        far.close()
        assert speaking([near], 60) == [near]
        with pytest.raises(LineBrokenError, match="its process has ended"):
            near.receive(60)


@given(st.binary(min_size=1, max_size=200))
def test_a_stranger_cannot_make_the_driver_read_much_or_fail(data: bytes) -> None:
    with pair() as (near, far):
        far.sock.sendall(data)
        far.close()
        try:
            message, _ = near.receive(60, most=4096)
        except LineBrokenError:
            return
        assert isinstance(message, Ping) or message is not None


# ----------------------------------------------------------------------------------------------------- rows


def result(scheduled: schedule.Schedule, shard: int, chunks: int = 0) -> Result:
    frame = synthetic(scheduled, np.full(len(scheduled), MS, np.int64)).drop(columns="trial_id")
    frame["status"] = pd.Categorical(["ok"] * len(frame))
    frame["shard"] = np.int32(shard)
    generator = Generator(cpu_user_s=1.0, cpu_system_s=0.5, cpu_s=1.5, wall_s=2.0, start_ns=1)
    if not chunks:
        return Result(frame, generator)
    numbers = np.repeat(np.arange(len(frame)), chunks).astype(np.uint32)
    messages = pd.DataFrame({"sequence": numbers, "index": np.tile(np.arange(chunks), len(frame)).astype(np.uint32)})
    messages["at_ns"] = scheduled[numbers]
    messages["bytes"] = np.uint32(shard)
    return Result(frame, generator, chunks=messages, tokens=np.full(len(frame), shard, np.int32))


parts = st.lists(
    st.lists(st.integers(0, 1000), min_size=1, max_size=30).map(lambda values: np.sort(np.array(values, np.int64))),
    min_size=1,
    max_size=5,
)


@given(parts, st.integers(0, 2))
def test_merged_rows_are_those_of_the_shards_and_nothing_else(schedules: list[schedule.Schedule], chunks: int) -> None:
    whole = merged([result(one, shard, chunks) for shard, one in enumerate(schedules)])
    found = whole.samples
    assert len(found) == sum(map(len, schedules))
    assert found["scheduled_ns"].is_monotonic_increasing
    for shard, one in enumerate(schedules):
        assert np.array_equal(found.loc[found["shard"] == shard, "scheduled_ns"], one)
    assert whole.generator.cpu_s == pytest.approx(1.5 * len(schedules))
    if chunks:
        assert whole.chunks is not None
        assert whole.tokens is not None
        owner = whole.chunks["sequence"].to_numpy()
        assert (np.diff(owner.astype(np.int64)) >= 0).all()
        assert np.array_equal(found["scheduled_ns"].to_numpy()[owner], whole.chunks["at_ns"])
        assert np.array_equal(found["shard"].to_numpy()[owner], whole.chunks["bytes"])
        assert np.array_equal(whole.tokens, found["shard"])


def test_rows_come_through_parquet_as_they_were() -> None:
    sent = result(np.arange(100, dtype=np.int64) * MS, 0, 2)
    tables = rows.packed(sent)
    came = rows.unpacked(b"".join(tables), [len(one) for one in tables], sent.generator, [3])
    pd.testing.assert_frame_equal(came.samples, sent.samples.assign(shard=np.int32(3)), check_categorical=False)
    assert came.chunks is not None
    assert sent.chunks is not None
    pd.testing.assert_frame_equal(came.chunks, sent.chunks)
    assert np.array_equal(came.tokens, sent.tokens)  # type: ignore[arg-type]


def test_a_lost_shard_keeps_its_schedule_as_never_sent() -> None:
    times = np.array([5, 9], np.int64)
    lost = rows.never_sent([times], [np.zeros(2, np.int32)], [1], streams=False)
    whole = merged([result(np.array([7], np.int64), 0), lost]).samples
    assert whole["status"].tolist() == ["unsent", "ok", "unsent"]
    assert whole["due_ns"].tolist()[::2] == [NEVER, NEVER]


# ---------------------------------------------------------------------------------------------------- gates


def cluster_of(*skews: tuple[int, int], lost: str = "") -> Generator:
    members = [
        ClusterWorker(
            name=f"tcp://w{k}:1",
            host="h",
            shards=[k],
            offset_ns=0,
            drift_ppm=0,
            within_ns=1000,
            skew_ns=skew,
            lost=lost,
        )
        for k, skew in enumerate(skews)
    ]
    return Generator(cpu_user_s=0, cpu_system_s=0, cpu_s=0, wall_s=1, workers=members)


def test_workers_that_begin_too_far_apart_and_lost_ones_fail_their_gates() -> None:
    assert [gate.passed for gate in workers(cluster_of((0, 0), (900_000, 0)))] == [True, True]
    assert [gate.passed for gate in workers(cluster_of((0, 0), (-1_100_000, 0)))] == [True, False]
    assert [gate.passed for gate in workers(cluster_of((0, 0), lost="its process has ended"))] == [False, True]
    assert workers(Generator(cpu_user_s=0, cpu_system_s=0, cpu_s=0, wall_s=1)) == []


def test_the_arrivals_are_judged_on_the_drivers_clock() -> None:
    frame = synthetic(np.array([0, 0, MS, MS], np.int64), np.full(4, MS, np.int64))
    frame["shard"] = [0, 1, 0, 1]
    frame.loc[3, "due_ns"] = NEVER
    moved = on_one_clock(frame, cluster_of((100, 300), (-50, -50)), MS)
    assert moved["due_ns"].tolist() == [100, -50, MS + 300, NEVER]
    assert clocks.MOST_UNCERTAIN_NS > 0
