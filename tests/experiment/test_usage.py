"""Usage: if these fail, a user pays for cores that nobody used, or blames the server for what the client took."""

import contextlib
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

from helpers import synthetic_run
from helpers.docker_stand_in import docker
from helpers.waiting import await_true, gone
from infscale import load
from infscale.analysis import cost
from infscale.analysis.tables import usage as usage_table
from infscale.analysis.tables.trials import trials_table
from infscale.deployment import deploy, prometheus, tfserving
from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError, EngineError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Contrast, Design
from infscale.experiment.folder import folder_for
from infscale.experiment.session import Session
from infscale.experiment.trial import Plan
from infscale.experiment.usage import containers
from infscale.experiment.usage import sampler as usage
from infscale.records.gate import VALID
from infscale.records.manifest import GroupUsage, nan_if_none
from infscale.records.runs import Run, load_run
from infscale.records.usage import summarise
from infscale.report.figures.arms import usage as pictures

BURN = """
import sys, time
sys.stdin.readline()
while time.process_time() < float(sys.argv[1]):
    pass
print(time.process_time(), flush=True)
sys.stdin.readline()
"""
HOLD = """
import sys
held = bytearray(int(sys.argv[1]))
for i in range(0, len(held), 4096):
    held[i] = 1
print(flush=True)
sys.stdin.readline()
"""
# Threads that each wait 300 times: at least so many voluntary switches, none of them in the main thread.
WAIT = """
import sys, threading, time
def wait():
    for _ in range(300):
        time.sleep(0.0005)
    done.release()
    time.sleep(600)
done = threading.Semaphore(0)
sys.stdin.readline()
for _ in range(3):
    threading.Thread(target=wait, daemon=True).start()
for _ in range(3):
    done.acquire()
print(flush=True)
sys.stdin.readline()
"""


class Child:
    """A Python program that is told to go on by lines, and answers by lines."""

    def __init__(self, code: str, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def group(self) -> list[psutil.Process]:
        return [psutil.Process(self.pid)]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> None:
        self.go()
        self.process.wait()


@contextlib.contextmanager
def child(code: str, *words: str) -> Iterator[Child]:
    started = Child(code, *words)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


def of(rows: pd.DataFrame, group: str) -> pd.DataFrame:
    return rows[rows["group"] == group].reset_index(drop=True)


def cpu_s(used: GroupUsage) -> float:
    """Return the CPU seconds of a group, user and system."""
    return nan_if_none(used.cpu_user_s) + nan_if_none(used.cpu_system_s)


def test_cpu_seconds_are_those_the_process_counts_itself() -> None:
    with child(BURN, "0.6") as one, usage.Sampler({"server": one.group}) as sampler:
        one.go()
        own = float(one.line())
        sampler.refresh()
    last = of(sampler.rows(), "server").iloc[-1]
    assert last["user_s"] + last["system_s"] == pytest.approx(own, abs=0.03)  # the kernel's step is 10 ms
    summary = summarise(sampler.rows())["server"]
    assert cpu_s(summary) <= own + 0.03
    assert summary.cores == pytest.approx(cpu_s(summary) / summary.seconds)


def test_a_process_that_ends_keeps_its_last_reading() -> None:
    """Else the CPU of a worker that crashed is nobody's, or a group's use falls below zero."""
    with child(BURN, "0.3") as one, child(BURN, "0.1") as other:
        groups = {"server": lambda: [p for c in (one, other) if not gone(c.pid) for p in c.group()]}
        with usage.Sampler(groups, period_s=0.02) as sampler:
            for each in (one, other):
                each.go()
                each.line()
            sampler.refresh()
            one.end()
            for _ in range(3):
                sampler.refresh()
    rows = of(sampler.rows(), "server")
    ended = rows[rows["pid"] == one.pid]
    assert ended["ended"].iloc[-1]
    assert not ended["ended"].iloc[0]
    assert ended["user_s"].iloc[-1] + ended["system_s"].iloc[-1] >= 0.28
    assert not rows.loc[rows["pid"] == other.pid, "ended"].any()
    for name in ("user_s", "system_s", "voluntary", "involuntary"):
        assert (rows.groupby("time_ns")[name].sum().diff().dropna() >= 0).all()
    assert (ended["rss_bytes"] > 0).all()
    # It keeps its reading, but no memory.
    last = rows["time_ns"].iloc[-1]
    alone = summarise(sampler.rows(), last - 1, last)["server"].rss_peak_bytes
    assert alone == rows.loc[rows["pid"] == other.pid, "rss_bytes"].iloc[-1]


def test_memory_is_what_was_taken() -> None:
    with child(HOLD, "0") as small, child(HOLD, str(64 * 2**20)) as large:
        small.line()
        large.line()
        with usage.Sampler({"small": small.group, "large": large.group}) as sampler:
            sampler.refresh()
    peak = {group: nan_if_none(used.rss_peak_bytes) for group, used in summarise(sampler.rows()).items()}
    assert peak["large"] - peak["small"] == pytest.approx(64 * 2**20, rel=0.05)


def test_context_switches_are_those_of_all_threads() -> None:
    """/proc/PID/status tells those of the main thread alone, which in a server does nothing."""
    with child(WAIT) as one, usage.Sampler({"server": one.group}) as sampler:
        one.go()
        one.line()
        sampler.refresh()
    rows = of(sampler.rows(), "server")
    assert rows["voluntary"].iloc[-1] - rows["voluntary"].iloc[0] >= 900
    assert rows["threads"].iloc[-1] == 4


def test_a_process_that_came_later_is_seen_and_began_at_zero() -> None:
    started: list[Child] = []
    with contextlib.ExitStack() as stack:
        groups = {"server": lambda: [p for one in started for p in one.group()]}
        with usage.Sampler(groups) as sampler:
            sampler.refresh()
            started.append(stack.enter_context(child(BURN, "0.2")))
            started[0].go()
            own = float(started[0].line())
            sampler.refresh()
            sampler.refresh()
    assert cpu_s(summarise(sampler.rows())["server"]) == pytest.approx(own, abs=0.03)


def test_a_group_without_processes_costs_nothing_and_is_no_error() -> None:
    with usage.Sampler({"server": list}) as sampler:
        sampler.refresh()
    summary = summarise(sampler.rows())
    assert list(summary) == ["host"]
    assert nan_if_none(summary["host"].network_bytes) >= 0
    assert summary["host"].rss_peak_bytes is None


OWNER = """
import sys, time
from infscale.experiment.usage import sampler as usage
with usage.Sampler({"server": list}) as sampler:
    print(sampler.pid, flush=True)
    time.sleep(600)
"""


def test_the_reading_process_ends_with_an_owner_killed_by_kill_9() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    await_true(lambda: gone(pid))


def test_a_reading_process_that_was_killed_is_an_error_not_a_hole() -> None:
    with usage.Sampler({"server": list}) as sampler:
        psutil.Process(sampler.pid).kill()
        with pytest.raises(EngineError, match="ended with code -9"):
            sampler.refresh()
    with pytest.raises(EngineError, match="ended from outside"):
        sampler.rows()


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(ConfigError, match=r"period_s=0.* accepted: 0.001"):
        usage.Sampler({}, period_s=0)
    with pytest.raises(ConfigError, match="'host' is the name"):
        usage.Sampler({"host": list})
    with usage.Sampler({}) as sampler:
        pass
    with pytest.raises(ConfigError, match="must be after"):
        summarise(sampler.rows(), 5, 5)


# ---------------------------------------------------------------------------------------------- real trials


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_trial_tells_what_client_and_server_used(endpoint: Endpoint, protocol: str) -> None:
    """The client's CPU is what its own getrusage says; the server's is neither nothing nor more than there is."""
    outcome = trial.run(endpoint, Plan(Arm(protocol), 200.0, 1.0, usage=True))
    assert outcome.usage is not None
    used, generator = outcome.manifest.usage, outcome.manifest.generator
    assert set(used) == {"client", "server", "host"}
    assert used["client"].processes == 1
    assert cpu_s(used["client"]) == pytest.approx(generator.cpu_s, abs=0.04, rel=0.3)
    server = used["server"]
    assert 0 < nan_if_none(server.cores) <= (psutil.cpu_count() or 1) * 1.1
    assert nan_if_none(server.rss_peak_bytes) > 20e6
    assert (server.processes or 0) >= len(outcome.manifest.server.pids)
    assert nan_if_none(used["host"].network_bytes) >= outcome.samples["bytes_out"].sum() * 0.8
    own = outcome.usage
    assert own["time_ns"].min() < 0 < own["time_ns"].max()
    assert set(of(own, "client")["pid"]) == {shard.pid for shard in generator.shards}


def test_every_program_that_sends_a_load_is_read_as_the_client() -> None:
    """One that is not known would be a stranger's CPU, and a trial without a client."""
    package = Path(load.__file__).parent
    files = [file for file in package.rglob("*.py") if 'if __name__ == "__main__"' in file.read_text()]
    names = [".".join(("infscale.load", *file.relative_to(package).with_suffix("").parts)) for file in files]
    assert "infscale.load.locust_client" in names
    for name in names:
        command = [sys.executable, "-c", "import sys; sys.stdin.read()", name]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.pid in [one.pid for one in usage.clients()], name


@pytest.mark.parametrize(("protocol", "client"), [("rest", "requests"), ("grpc", "grpcio")])
def test_what_a_client_library_used_is_what_it_counts(
    deployed: Callable[[str], Endpoint], protocol: str, client: str
) -> None:
    """Its imports cost more than a short trial does, and are no part of it."""
    outcome = trial.run(deployed("triton"), Plan(Arm(protocol, client=client), 50.0, 1.0, usage=True))
    used, generator = outcome.manifest.usage, outcome.manifest.generator
    assert used["client"].cpu_user_s == generator.cpu_user_s
    assert used["client"].cores == pytest.approx(generator.cpu_s / 1.0)
    assert nan_if_none(used["client"].rss_peak_bytes) > 20e6, "a Python process that holds a client library"
    assert nan_if_none(used["server"].cores) > 0


def test_a_trial_that_was_not_asked_tells_nothing(endpoint: Endpoint) -> None:
    outcome = trial.run(endpoint, Plan(Arm("rest"), 100.0, 0.3))
    assert outcome.usage is None
    assert outcome.manifest.usage == {}


COUNTER = {
    "triton": 'nv_inference_request_success_total{model="mlp",version="1"}',
    "torchserve": 'Requests2XX_total{Hostname="*",Level="Host"}',
}


def test_a_servers_own_counters_grow_by_the_requests(endpoint: Endpoint) -> None:
    outcome = trial.run(endpoint, Plan(Arm("rest"), 100.0, 0.5, usage=True))
    counters = outcome.manifest.counters
    if endpoint.framework == "tfserving":
        assert counters == {}
        return
    begin = COUNTER[endpoint.framework].partition("*")[0]
    (grown,) = [value for name, value in counters.items() if name.startswith(begin)]
    # TorchServe counts the scrape itself, too.
    assert len(outcome.samples) <= grown <= len(outcome.samples) + 2


@pytest.mark.server
def test_tensorflow_serving_shows_counters_when_told_to() -> None:
    with tfserving.deploy("noop", way="embedded", monitoring=True) as endpoint:
        outcome = trial.run(endpoint, Plan(Arm("grpc"), 100.0, 0.5, usage=True))
    name = ':tensorflow:serving:request_count_total{model_name="noop",status="OK"}'
    assert outcome.manifest.counters[name] == len(outcome.samples)


@pytest.mark.server
def test_a_run_stores_readings_and_its_table_and_figures_read_them(tmp_path: Path) -> None:
    """Readings lie beside a trial's rows and must not be taken for a trial."""
    arms = tuple(Arm(protocol, framework="triton", model="noop") for protocol in ("rest", "grpc"))
    design = Design(finding="test", arms=arms, contrasts=(Contrast(0, 1),), trial_s=0.5)
    session = Session(folder_for(design, tmp_path), lambda _: None)
    with session.servers([0, 1]) as endpoints:
        for number in (0, 1):
            plan = session.plan(number, 200.0, (1, 0), 0.5, phase="grid", usage=True)
            session.run(endpoints[number], f"t-{number}", plan)
    assert len(pd.read_parquet(session.folder / "trials" / "t-0.usage.parquet")) > 10
    run = load_run(session.folder)
    assert [len(one.usage()) > 10 for one in run.trials] == [True, True]
    usage = usage_of(run).assign(verdict=VALID)  # a busy machine makes a trial INVALID, and is not what is tested
    assert set(zip(usage["protocol"], usage["group"], strict=True)) == {
        (protocol, group) for protocol in ("rest", "grpc") for group in ("client", "server")
    }
    assert pictures.draw_cores(usage).axes
    assert pictures.draw_costs(usage).axes
    priced = cost.table(usage_table.at_capacity(usage, {0: 1000.0, 1: 2000.0}), price_per_hour=0.1)
    assert len(priced) == 2
    assert (priced["per_core"] > 0).all()


# ------------------------------------------------------------------------------ the table, on known numbers


def usage_of(run: Run) -> pd.DataFrame:
    """Return the table of what each group of processes used."""
    return usage_table.usage_table(run, trials_table(run))


def stored(folder: Path, used: dict[str, GroupUsage]) -> Run:
    """Return a synthetic run whose every trial used the same."""
    run = load_run(synthetic_run.build(folder, lifetimes=1, duration_s=1.0, grid=(0.3, 0.6)))
    for one in run.trials:
        one.manifest.usage = used
    return run


def test_cpu_of_a_request_is_cores_by_what_was_achieved(tmp_path: Path) -> None:
    second: Any = {"seconds": 1.0, "rss_peak_bytes": 1e8, "voluntary_per_s": 30.0, "involuntary_per_s": 12.0}
    server = GroupUsage(**second, cpu_user_s=0.4, cpu_system_s=0.1)
    gateway = GroupUsage(**second, cpu_user_s=0.1, cpu_system_s=0.1)
    host = GroupUsage(seconds=1.0, network_bytes=1.0)
    usage = usage_of(stored(tmp_path, {"client": server, "server": server, "gateway": gateway, "host": host}))
    assert set(usage["group"]) == {"client", "server", "gateway"}
    of_server = usage[usage["group"] == "server"]
    assert np.allclose(of_server["cpu_us_per_request"] * of_server["achieved_per_s"], 5e5)
    assert (usage["switches_per_s"] == 42).all()
    best = usage_table.at_capacity(usage, dict.fromkeys(range(4), 1e3))
    assert len(best) == 4
    assert np.allclose(best["rss_peak_bytes"], 2e8), "the client is no part of what a deployment costs"
    assert np.allclose(best["cores"], best["cpu_us_per_request"] / 1e3), "at 1,000/s a ms of CPU a request is one core"


def test_a_run_without_readings_has_an_empty_table(tmp_path: Path) -> None:
    usage = usage_of(load_run(synthetic_run.build(tmp_path, lifetimes=1, duration_s=0.5, grid=(0.3,))))
    assert usage.empty
    assert usage_table.at_capacity(usage, {}).empty


# ------------------------------------------------------------------------------------ counters and containers


def test_counters_are_told_from_gauges_and_buckets() -> None:
    page = """# TYPE a_total counter
a_total{x="1",b="y"} 3
# TYPE g gauge
g 5
# TYPE h histogram
h_bucket{le="+Inf"} 2
h_sum 7.5
h_count 2
"""
    assert prometheus.parse(page) == {'a_total{b="y",x="1"}': 3, "h_sum": 7.5, "h_count": 2}


def test_only_what_grew_is_told_and_a_restarted_server_counts_from_zero() -> None:
    before, after = {"a": 5.0, "b": 5.0, "c": 5.0}, {"a": 5.0, "b": 7.0, "c": 2.0, "d": 1.0, "e": 0.0}
    assert prometheus.grown(before, after) == {"b": 2.0, "c": 2.0, "d": 1.0}


STATS = (
    '{"BlockIO":"0B / 0B","CPUPerc":"151.25%","Container":"c","ID":"c","MemPerc":"5.0%",'
    '"MemUsage":"512.5MiB / 7.6GiB","Name":"c","NetIO":"1.2kB / 3MB","PIDs":"17"}'
)


def test_dockers_units_are_understood() -> None:
    """Memory comes in powers of 1024, network in powers of 1000."""
    assert containers.parse(STATS) == {
        "cores": 1.5125,
        "memory_bytes": 512.5 * 2**20,
        "received_bytes": 1200.0,
        "sent_bytes": 3e6,
        "processes": 17.0,
    }


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"NetIO":"--","CPUPerc":"--","MemUsage":"-- / --","PIDs":"--"}'])
def test_what_docker_does_not_tell_is_an_error_not_a_zero(line: str) -> None:
    """A container that is just starting shows dashes."""
    with pytest.raises(ValueError, match=r".+"):
        containers.parse(line)


@pytest.mark.server
def test_a_containers_readings_are_stored_with_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    monkeypatch.delenv("TENSORFLOW_MODEL_SERVER", raising=False)
    with docker(folder) as engine, deploy("tfserving", "noop", way="docker") as endpoint:
        outcome = trial.run(endpoint, Plan(Arm("grpc"), 100.0, 0.5, usage=True))
        (container,) = engine.started
        readings = outcome.manifest.containers
        assert readings
        assert all(one.processes >= 1 and one.memory_bytes > 20e6 for one in readings)
        assert ["stats", "--no-stream", "--format", "json", container.name] in engine.calls
        # And, where the engine's processes are in sight, as any other server's.
        assert nan_if_none(outcome.manifest.usage["server"].cores) > 0


def test_reading_does_not_hold_up_who_is_read() -> None:
    """The mark is awaited: it must come back while groups are looked for in another thread, too."""
    with usage.Sampler({"server": list}) as sampler:
        others = [threading.Thread(target=sampler.refresh) for _ in range(8)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(20)
        assert not any(thread.is_alive() for thread in others)
    assert len(sampler.rows()) >= 9


def test_switches_in_a_short_trial_are_those_of_its_time() -> None:
    """They are counted once a second and repeated in between: the last repeated total is not the one at the end."""
    at = np.arange(21)
    rows = pd.DataFrame(
        {
            "time_ns": at * 10**8,
            "group": "server",
            "pid": 7,
            "name": "x",
            "user_s": at / 100,
            "system_s": 0.0,
            "rss_bytes": 10**6,
            "voluntary": (at // 10) * 1000,
            "involuntary": 0,
            "threads": 1,
            "network_bytes": -1,
            "ended": False,
        }
    )
    used = summarise(rows, 0, 1_500_000_000)["server"]
    assert nan_if_none(used.voluntary_per_s) * 1.5 == pytest.approx(1500)
    assert used.cpu_user_s == pytest.approx(0.15)
