"""If these fail, a load from several processes or machines is another load than its numbers say, or ends with the first
worker that is lost."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from helpers.waiting import await_true, gone
from infscale.errors import ConfigError, DeploymentError, EngineError
from infscale.load import schedule
from infscale.load.cluster import connect, scheduler, station
from infscale.load.cluster.connect import Cluster, connected
from infscale.load.cluster.run import run
from infscale.load.cluster.spec import parse
from infscale.load.engine.interfaces import Streaming
from infscale.load.engine.run import Interrupted, Result
from infscale.load.null_server import Emission, NullServer, evenly, null_server
from infscale.records.gates.verdict import judge
from infscale.records.manifest import Host
from infscale.records.samples import TIMES

pytestmark = pytest.mark.server

SECRET = "Bearer of-nobody-but-the-server"


@pytest.fixture(scope="module")
def server(server_process: None) -> Iterator[NullServer]:
    with null_server() as running:
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two worker processes, for tests that leave them as they are, or kill one."""
    with connected(parse("local:2")) as workers:
        yield workers


def drawn(cluster: Cluster, rate: float = 300, seconds: float = 1.0, seed: int = 5) -> list[schedule.Schedule]:
    return list(schedule.shards(rate, seconds, np.random.SeedSequence(seed), cluster.shards))


def sent(cluster: Cluster, server: NullServer, parts: list[schedule.Schedule], **options: object) -> Result:
    choices = [np.arange(len(part), dtype=np.int32) % 3 for part in parts]
    arguments: dict[str, Any] = {"timeout_s": 2.0, "headers": {"authorization": SECRET}, **options}
    return run(cluster, f"http://{server.rest}/", [b"a", b"bb", b"ccc"], parts, choices, **arguments)


def test_the_merged_rows_are_the_sum_of_the_shards_in_order(cluster: Cluster, server: NullServer) -> None:
    parts = drawn(cluster)
    result = sent(cluster, server, parts)
    rows = result.samples
    assert np.array_equal(rows["scheduled_ns"], np.sort(np.concatenate(parts)))
    assert np.array_equal(rows["sequence"], np.arange(len(rows)))
    for number, part in enumerate(parts):
        own = rows[rows["shard"] == number]
        assert np.array_equal(own["scheduled_ns"], part)
        assert np.array_equal(own["payload"], np.arange(len(part)) % 3)
    assert (rows["status"] == "ok").all()
    times = rows[list(TIMES)].to_numpy()
    assert (np.diff(times, axis=1) >= 0).all()
    assert [worker.shards for worker in result.generator.workers] == [[0], [1]]
    assert len(result.generator.shards) == 2


def test_workers_begin_together(cluster: Cluster, server: NullServer) -> None:
    """On one machine all clocks are one: what is estimated of them is nothing but error."""
    result = sent(cluster, server, drawn(cluster))
    for worker in result.generator.workers:
        assert abs(worker.offset_ns) <= worker.within_ns
        assert abs(worker.skew_ns[0]) <= 2 * worker.within_ns
    verdict = judge(result.samples, 1.0, result.generator, Host())
    gates = {gate.name: gate for gate in verdict.gates}
    assert gates["lost_shard"].passed
    assert gates["skew"].passed, gates["skew"].text


def test_a_worker_may_run_several_engines(server: NullServer, cluster: Cluster) -> None:
    parts = list(schedule.shards(200, 0.5, np.random.SeedSequence(6), 4))
    result = sent(cluster, server, parts)
    assert [worker.shards for worker in result.generator.workers] == [[0, 2], [1, 3]]
    for number, part in enumerate(parts):
        assert np.array_equal(result.samples.loc[result.samples["shard"] == number, "scheduled_ns"], part)


def test_a_shard_without_a_request_costs_nothing(server: NullServer, cluster: Cluster) -> None:
    """At a few requests, Poisson arrivals leave some worker without one."""
    nothing = np.empty(0, np.int64)
    result = sent(cluster, server, [nothing, np.array([0, 1000], np.int64)])
    assert result.samples["shard"].tolist() == [1, 1]
    assert [worker.shards for worker in result.generator.workers] == [[1]]
    with pytest.raises(ConfigError, match="no request"):
        sent(cluster, server, [nothing, nothing])


def test_streams_keep_the_messages_of_their_requests(cluster: Cluster) -> None:
    with null_server(stream=Emission(evenly(3, 1_000_000))) as server:
        parts = drawn(cluster, 60)
        result = sent(cluster, server, parts, streaming=Streaming("sse", 3))
    assert result.chunks is not None
    assert (result.samples["status"] == "ok").all()
    assert np.array_equal(result.chunks["sequence"], np.repeat(np.arange(len(result.samples)), 3))
    assert np.array_equal(result.chunks["index"], np.tile([0, 1, 2], len(result.samples)))
    begins = result.samples["sent_ns"].to_numpy()[result.chunks["sequence"].to_numpy()]
    assert (result.chunks["at_ns"].to_numpy() >= begins).all()


# ------------------------------------------------------------------------------------ what goes wrong


def in_thread(work: Callable[[], Result]) -> tuple[threading.Thread, list[Result | BaseException]]:
    """Start work beside the test, and return its thread and where its result will be."""
    came: list[Result | BaseException] = []

    def do() -> None:
        try:
            came.append(work())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    return thread, came


def engines_of(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(pid).children(recursive=True)
        return [child for child in children if "infscale.load.engine.child" in " ".join(child.cmdline())]
    return []


def test_a_worker_that_is_killed_costs_its_shard_alone(cluster: Cluster, server: NullServer) -> None:
    parts = drawn(cluster, 200, 4.0)
    began = threading.Event()
    thread, came = in_thread(
        lambda: sent(cluster, server, parts, progress=lambda s, _: began.set() if s > 0.5 else None)
    )
    victim = cluster.members[1]
    assert began.wait(60)
    engines = engines_of(victim.hello.pid)
    assert engines
    os.kill(victim.hello.pid, signal.SIGKILL)
    thread.join(60)
    (result,) = came
    assert isinstance(result, Result), result
    rows = result.samples
    assert (rows.loc[rows["shard"] == 0, "status"] == "ok").all()
    lost = rows[rows["shard"] == 1]
    assert np.array_equal(lost["scheduled_ns"], parts[1])
    assert (lost["status"] == "unsent").all()
    assert [bool(worker.lost) for worker in result.generator.workers] == [False, True]
    verdict = judge(rows, 4.0, result.generator, Host())
    assert verdict.name == "INVALID"
    assert "lost_shard" in verdict.reasons
    assert victim.name in verdict.text
    await_true(lambda: all(gone(engine.pid) for engine in engines))


def test_the_next_load_has_a_new_worker(cluster: Cluster, server: NullServer) -> None:
    """Dask's nanny starts one; nothing of the lost shard is sent by it."""
    os.kill(cluster.members[0].hello.pid, signal.SIGKILL)
    connect.renew(cluster, 60)
    result = sent(cluster, server, drawn(cluster))
    assert (result.samples["status"] == "ok").all()
    assert len(result.generator.workers) == 2
    assert not any(worker.lost for worker in result.generator.workers)


def test_bad_addresses_are_the_users_mistake(cluster: Cluster, server: NullServer) -> None:
    part = drawn(cluster, 50)
    choices = [np.zeros(len(one), np.int32) for one in part]
    with pytest.raises(ConfigError, match=r"the load cannot start: .* \(on the worker tcp://"):
        run(cluster, "http://no-such-host.invalid:80/", [b""], part, choices, timeout_s=1.0)
    with pytest.raises(ConfigError, match="cannot be read"):
        run(cluster, f"http://{server.rest}/", [b""], part, choices, timeout_s=1.0, ca="/no/such/file.pem")
    assert (sent(cluster, server, part).samples["status"] == "ok").all(), "the workers are usable afterwards"


def test_an_address_on_this_machine_is_refused_for_workers_on_another(
    cluster: Cluster, server: NullServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.members[0].hello, "boot", "another machine's")
    with pytest.raises(ConfigError, match="the worker's own machine"):
        sent(cluster, server, drawn(cluster))


class Outside:
    """A scheduler and a worker that run without us, as users' do."""

    def __init__(self, folder: Path) -> None:
        self.file, self.log = folder / "scheduler.json", folder / "dask.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start("scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")

    def start(self, kind: str, *options: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--scheduler-file", str(self.file), *options]
        environment = os.environ | {"DASK_LOGGING__DISTRIBUTED": "debug"}
        with self.log.open("ab") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        return self.processes[-1]

    def worker(self) -> "subprocess.Popen[bytes]":
        """Start a worker, and wait until the scheduler knows it."""
        process = self.start("worker", "--nthreads", "1", "--no-dashboard", "--no-nanny")
        await_true(lambda: "Register worker" in self.log.read_text(), 120, alive=lambda: process.poll() is None)
        return process

    @property
    def address(self) -> str:
        import json

        return str(json.loads(self.file.read_text())["address"])

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    running = Outside(tmp_path)
    try:
        await_true(lambda: running.file.exists() and running.file.stat().st_size, 120)
        yield running
    finally:
        running.end()


def test_a_running_scheduler_is_used_and_keeps_no_secret(outside: Outside, server: NullServer) -> None:
    """Dask logs the arguments of a task that fails; headers are in none."""
    outside.worker()
    with connected(parse(outside.address)) as cluster:
        assert (sent(cluster, server, drawn(cluster)).samples["status"] == "ok").all()
        with pytest.raises(ConfigError):
            run(
                cluster,
                "http://no-such-host.invalid:80/",
                [b""],
                drawn(cluster, 50),
                [np.zeros(len(one), np.int32) for one in drawn(cluster, 50)],
                timeout_s=1.0,
                headers={"authorization": SECRET},
            )
    assert outside.log.stat().st_size > 0
    assert SECRET not in outside.log.read_text()


def test_a_scheduler_that_vanishes_is_named(outside: Outside, server: NullServer) -> None:
    worker = outside.worker()
    with connected(parse(outside.address)) as cluster:
        parts = drawn(cluster, 100, 3.0)
        began = threading.Event()
        thread, came = in_thread(
            lambda: sent(cluster, server, parts, progress=lambda s, _: began.set() if s > 0.3 else None)
        )
        assert began.wait(60)
        outside.processes[0].kill()
        thread.join(120)
        (result,) = came
        assert isinstance(result, Result), "what the worker sent or did not send is kept"
        assert len(result.samples) == len(parts[0])
        worker.kill()
        worker.wait()
        for member in cluster.members:
            member.drop("its process has ended")
        with pytest.raises(DeploymentError, match="does not answer any more"):
            sent(cluster, server, parts)


def test_no_scheduler_and_no_worker_are_said(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "REACH_S", 1.0)
    with pytest.raises(DeploymentError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        connected(parse("tcp://127.0.0.1:1")).__enter__()
    monkeypatch.setitem(scheduler.JOIN_S, "tcp", 0.5)
    with pytest.raises(DeploymentError, match=r"no worker has joined .* start one: dask worker"):
        connected(parse(outside.address)).__enter__()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("code", "0123456789abcdef", "install the same version on both"),
        ("version", "0.0.1", r"has infscale 0\.1\.0 .*this machine 0\.0\.1"),
        ("draws", "0123456789abcdef", "draws another schedule from the same seed"),
    ],
)
def test_a_worker_that_would_send_another_load_is_refused(
    cluster: Cluster, name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = station.facts()
    setattr(facts, name, value)
    monkeypatch.setattr(station, "facts", lambda: facts)
    with pytest.raises(EngineError, match=said):
        connect._check(cluster.members[0])


def test_clocks_that_cannot_be_aligned_are_told_with_their_distance(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infscale.load.cluster.clocks.MOST_UNCERTAIN_NS", 0)
    with pytest.raises(EngineError, match=r"cannot be aligned: it is [+-]0\.000 s from this machine's, known within ±"):
        connect._check_clock(cluster.members[0])


# ---------------------------------------------------------------------------------------- the command


@contextlib.contextmanager
def command(*options: str) -> Iterator["subprocess.Popen[str]"]:
    line = [sys.executable, "-m", "infscale.cli", "load", *options]
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, text=True, start_new_session=True, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_keeps_the_rows_of_all_workers(server: NullServer, tmp_path: Path) -> None:
    """It reaches the whole terminal's group: workers that died of it would take their rows along."""
    out = tmp_path / "rows.parquet"
    url = f"http://{server.rest}/"
    with command(url, "--rate", "200", "--duration", "300", "--cluster", "local:2", "--out", str(out)) as process:
        assert process.stderr is not None
        seen = ""
        while not re.search(r"[1-9][0-9]*\.[0-9] of 300 s", seen):  # it has been loading for seconds
            part = process.stderr.read(1)
            assert part, seen
            seen += part
        everybody = psutil.Process(process.pid).children(recursive=True)
        assert len(engines_of(process.pid)) == 2
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=240)
    assert process.returncode == 130, said
    rows = pd.read_parquet(out)
    assert set(rows["shard"]) == {0, 1}
    for shard in (0, 1):
        assert {"ok", "unsent"} <= set(map(str, rows.loc[rows["shard"] == shard, "status"]))
    await_true(lambda: all(gone(one.pid) for one in everybody))


def test_when_the_driver_is_killed_engines_and_workers_end(server: NullServer) -> None:
    url = f"http://{server.rest}/"
    with command(url, "--rate", "100", "--duration", "300", "--cluster", "local:2") as process:
        await_true(lambda: len(engines_of(process.pid)) == 2, 240, alive=lambda: process.poll() is None)
        everybody = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    await_true(lambda: all(gone(one.pid) for one in everybody), 120)


def test_ctrl_c_in_python_raises_with_the_rows(cluster: Cluster, server: NullServer) -> None:
    def interrupt(elapsed_s: float, _: object) -> None:
        if elapsed_s > 0.3 and not told:
            told.append(True)
            raise KeyboardInterrupt

    told: list[bool] = []
    with pytest.raises(Interrupted) as caught:
        sent(cluster, server, drawn(cluster, 100, 30.0), progress=interrupt)
    assert set(map(str, caught.value.result.samples["status"])) == {"ok", "unsent"}
    assert not any(member.lost for member in cluster.members)


def test_dask_is_quiet(cluster: Cluster) -> None:
    assert logging.getLogger("distributed").level == logging.CRITICAL
