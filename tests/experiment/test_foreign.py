"""Foreign CPU: if these fail, a stranger's work is published as a server's, or a sound trial is thrown away for it."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import pytest

from helpers.synthetic_run import host_of
from infscale.deployment.endpoint import Endpoint
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.trial import Plan
from infscale.experiment.usage import foreign
from infscale.experiment.usage.foreign import Process, Watch, used
from infscale.load.null_server import null_server
from infscale.payloads.encoders import Payload
from infscale.records.gates.generator import host
from infscale.records.manifest import ForeignCpu

ME, SERVER, WORKER, OTHER_ARM, ENGINE, SHELL, STRANGER, KWORKER = os.getpid(), 50, 51, 60, 70, 80, 81, 90
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PARENTS = {1: 0, 2: 0, ME: 1, SERVER: ME, WORKER: SERVER, OTHER_ARM: ME, SHELL: 1, STRANGER: SHELL, KWORKER: 2}


def table(**ticks: int) -> dict[int, Process]:
    """All processes of :data:`PARENTS`, each with 1,000 ticks, and as many more as ``ticks`` says by name."""
    more = {globals()[name]: count for name, count in ticks.items()}
    names = {2: "kthreadd", STRANGER: "stranger"}
    return {pid: Process(names.get(pid, ""), up, 1000 + more.get(pid, 0), 0) for pid, up in PARENTS.items()}


class Server(psutil.Process):
    """Stands for a server's process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid


def endpoint(command: tuple[str, ...] = ("server",), rest: str = "127.0.0.1:1", *pids: int) -> Endpoint:
    living: list[psutil.Process] = [Server(pid) for pid in pids or (SERVER, WORKER)]
    return Endpoint("f", "i", "", "", "", "m", rest, rest, command=command, processes=lambda: living)


Look = Callable[..., ForeignCpu | None]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """A function that returns what a watch tells of two tables that lie a second apart."""

    def result(after: dict[int, Process], served: Endpoint | None = None) -> ForeignCpu | None:
        tables, now = iter((table(), table(), after)), iter((0, 10**9))
        monkeypatch.setattr(foreign, "processes", lambda: next(tables))
        monkeypatch.setattr(time, "monotonic_ns", lambda: next(now))
        watch = Watch(served or endpoint())
        watch.mark()
        watch.mark()
        return watch.result()

    return result


def test_what_serves_and_what_measures_is_not_foreign(look: Look) -> None:
    """Servers, their workers, this process, what it started for the trial, and the kernel's own threads."""
    after = table(ME=40, SERVER=90, WORKER=90, KWORKER=30) | {ENGINE: Process("", ME, 60, 0)}
    assert look(after) == ForeignCpu(cores=0.0)


def test_a_stranger_is(look: Look) -> None:
    assert look(table(SERVER=90, STRANGER=20, SHELL=5)) == ForeignCpu(cores=25 / TICKS_PER_S, most="stranger")


def test_so_is_the_server_of_another_arm(look: Look) -> None:
    """It was started here, too, and may still work off what an earlier trial left."""
    found = look(table(OTHER_ARM=30))
    assert found is not None
    assert found.cores == 30 / TICKS_PER_S


def test_a_process_that_ended_counts_what_it_used_in_the_trial_alone(look: Look) -> None:
    """Its parent inherits its whole life, which may be hours."""
    after = table()
    del after[STRANGER]
    after[SHELL] = replace(after[SHELL], reaped=1020)
    found = look(after)
    assert found is not None
    assert found.cores == 20 / TICKS_PER_S


def test_short_lived_processes_count_with_their_parent() -> None:
    """A compiler's processes come and go between the two looks."""
    before = {1: Process("", 0, 0, 0), SHELL: Process("make", 1, 5, 100)}
    after = {1: Process("", 0, 0, 0), SHELL: Process("make", 1, 6, 170)}
    assert used(before, after) == {1: 0, SHELL: 71}


def test_one_whose_heir_is_out_of_sight_hides_nobody_elses_time() -> None:
    """Taken off all the same, it would make up for what others used."""
    before = {1: Process("", 0, 0, 0), SHELL: Process("", 0, 5000, 0), STRANGER: Process("", 1, 0, 0)}
    after = {1: Process("", 0, 0, 0), STRANGER: Process("", 1, 30, 0)}
    assert used(before, after) == {1: 0, STRANGER: 30}


def test_where_it_cannot_be_known_nothing_is_told(look: Look) -> None:
    """A server elsewhere, in a container, or one that ended in the trial: its work would be called foreign."""
    assert look(table(STRANGER=50), endpoint(rest="192.0.2.1:80")) is None
    assert look(table(STRANGER=50), endpoint(("docker", "run", "--name", "x", "image"))) is None
    assert look(table(STRANGER=50), endpoint(("server",), "127.0.0.1:1", 4_000_000)) is None
    ended = table(STRANGER=50)
    del ended[WORKER]
    assert look(ended) is None


def test_time_is_counted_as_the_kernel_counts_it() -> None:
    before = foreign.processes()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert used(before, foreign.processes())[ME] >= 0.08 * TICKS_PER_S


@pytest.mark.parametrize(("cores", "passed"), [(0.0, True), (0.1, True), (0.11, False), (1.3, False)])
def test_a_tenth_of_a_core_is_allowed(cores: float, passed: bool) -> None:
    gate = host(host_of(foreign=ForeignCpu(cores=cores, most="browser")))
    assert gate.passed is passed
    assert f"foreign processes used {cores:.0%} of a core, most of it browser (at most 10%)" in gate.text


class Own:
    """Makes requests for a server that answers all of them alike."""

    def payload(self, endpoint: Endpoint, protocol: str, encoding: str, batch: int) -> Payload:
        path = "/" if protocol == "rest" else "/a.Service/Method"
        return Payload(protocol, encoding, path, [b"a body"], lambda body: np.frombuffer(body, dtype=np.float32))

    def answered(self, endpoint: Endpoint) -> bool:
        return True


@pytest.mark.server
@pytest.mark.parametrize("client", ["wire", "requests"])
def test_every_trial_tells_it(client: str) -> None:
    """Usage was not asked for. Other tests may run beside this one, so that nothing is said of how much it is."""
    with null_server() as server:
        served = replace(endpoint(("server",), server.rest, server.pid), own=Own())
        outcome = trial.run(served, Plan(Arm("rest", client=client), 100.0, 0.3))
    assert outcome.manifest.host.foreign is not None
    (gate,) = (gate for gate in outcome.manifest.judged.gates if gate.name == "host")
    assert "foreign processes used" in gate.text
