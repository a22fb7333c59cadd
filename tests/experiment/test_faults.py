"""If these fail, one fault of a server, a disk or a port costs more than the trial that it fell into."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.raw_server import Proxy, server
from infscale.deployment import deploy
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.processes import ports
from infscale.deployment.processes.pids import living
from infscale.errors import DataError, DeploymentError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Contrast, Design
from infscale.experiment.folder import folder_for
from infscale.experiment.measure import measure_in
from infscale.records.gate import INVALID
from infscale.records.runs import Run, load_run

DESIGN = Design(
    finding="faults",
    arms=tuple(Arm(protocol, framework="triton", model="noop") for protocol in ("rest", "grpc")),
    contrasts=(Contrast(0, 1),),
    least=2,
    most=2,
    budget_s=1.0,
    trial_s=0.5,
    requests=60,
    timeout_s=0.5,
    most_per_s=400.0,
    seed=1,
)


def cells(run: Run) -> set[tuple[int, float, int]]:
    """Arm, rate and lifetime of all trials at set rates but those that the server was lost to.

    What only a busy machine makes INVALID was run, and is in them.
    """
    grid = (one.manifest for one in run.trials if one.manifest.phase == "grid")
    return {(m.arm_number, m.rate_per_s, m.lifetime) for m in grid if "server" not in m.judged.reasons}


def planned(run: Run) -> set[tuple[int, float, int]]:
    rates = run.manifest.rates_per_s[DESIGN.block(0)]
    return {(arm, rate, number) for arm in (0, 1) for rate in rates for number in range(DESIGN.least)}


@pytest.mark.server
@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "the server died during the trial"), (signal.SIGSTOP, "the server was stopped (SIGSTOP)")],
    ids=["killed", "stopped"],
)
def test_a_trial_whose_server_is_lost_is_invalid_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    """It was SATURATED: what a user kills, or the kernel for want of memory, is no limit of the server's."""
    from infscale.experiment import trial

    folder = folder_for(DESIGN, tmp_path)
    send, hit = trial._send, list[int]()

    def sabotaged(endpoint, plan, *rest):  # type: ignore[no-untyped-def]
        if plan.phase == "grid" and plan.lifetime == 1 and not hit:
            hit.extend(int(line.split()[0]) for line in living(folder / "pids.txt") if line.endswith("tritonserver"))
            for pid in hit:
                os.kill(pid, number)
        return send(endpoint, plan, *rest)

    monkeypatch.setattr(trial, "_send", sabotaged)
    run = measure_in(folder, say=lambda _: None)
    assert hit
    assert run.manifest.status == "complete"
    lost = [one.manifest for one in run.trials if "server" in one.manifest.judged.reasons]
    assert len(lost) == 1
    assert reason in lost[0].judged.text
    assert cells(run) == planned(run), "the trial is repeated, and the next ones run"
    assert not [line for line in living(folder / "pids.txt") if "measuring process" not in line]


@pytest.mark.server
def test_a_trial_whose_connections_a_proxy_cuts_is_invalid_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was SATURATED at a rate that the server can do twice over, and the arm lost a lifetime by it."""
    from infscale.experiment import trial

    folder = folder_for(DESIGN, tmp_path)
    send, proxies = trial._send, list[Proxy]()

    @contextmanager
    def proxied(*args: Any, **options: Any) -> Iterator[Endpoint]:
        with deploy(*args, **options) as endpoint, ExitStack() as stack:
            proxies[:] = [Proxy(endpoint.address(protocol)) for protocol in ("rest", "grpc")]
            rest, grpc = (stack.enter_context(server(proxy)).split("/")[2] for proxy in proxies)
            yield replace(endpoint, rest=rest, grpc=grpc)

    def sabotaged(endpoint, plan, *rest):  # type: ignore[no-untyped-def]
        if plan.phase == "grid" and plan.lifetime == 1 and plan.attempt == 1:
            for proxy in proxies:
                proxy.cut(10)
        return send(endpoint, plan, *rest)

    monkeypatch.setattr(trial, "_send", sabotaged)
    run = measure_in(folder, say=lambda _: None, start=proxied)
    assert run.manifest.status == "complete"
    first = [one.manifest for one in run.trials if one.manifest.lifetime == 1 and one.manifest.phase == "grid"]
    lost = [m for m in first if "server" in m.judged.reasons]
    assert lost, "a machine so busy that requests piled up in each of four trials"
    assert {m.judged.name for m in lost} == {INVALID}
    texts = [m.judged.text for m in lost]
    assert any("connections to the server were cut" in text for text in texts), texts
    assert not [m.judged.short for m in first if m.attempt == 1 and m.judged.name != INVALID and not m.judged.errors]
    assert cells(run) == planned(run), "the trial is repeated, and the next ones run"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
@pytest.mark.server
def test_a_disk_that_takes_no_more_ends_the_run_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    from infscale.records import samples

    folder = folder_for(DESIGN, tmp_path)
    write, written = samples.write, list[str]()

    def full(path: Path, frame: object) -> None:
        if len(written) == 4:
            raise error
        written.append(path.stem)
        write(path, frame)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(samples, "write", full)
        with pytest.raises(DataError, match=f"cannot write in .*{error.strerror}"):
            measure_in(folder, say=lambda _: None)
    assert {one.manifest.trial_id for one in load_run(folder).trials} == set(written)
    run = measure_in(folder, say=lambda _: None)
    assert run.manifest.status == "complete"
    assert cells(run) == planned(run)
    assert set(written) <= {one.manifest.trial_id for one in run.trials}


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.server
@pytest.mark.parametrize("framework", ["tfserving", "torchserve", "triton"])
def test_a_port_that_is_taken_between_choosing_and_binding_is_chosen_anew(
    framework: str, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The night's run ended there."""
    free, calls = ports.free_ports, list[int]()

    def first_taken(count: int) -> list[int]:
        calls.append(count)
        found = free(count)
        return [taken, *found[1:]] if len(calls) == 1 else found

    monkeypatch.setattr(ports, "free_ports", first_taken)
    with deploy(framework, "noop") as endpoint:
        assert endpoint.rest != f"127.0.0.1:{taken}"
    assert len(calls) > 1


def test_a_port_that_is_taken_again_and_again_is_told(taken: int) -> None:
    class Never:
        def __enter__(self) -> None:
            raise DeploymentError(f"bind: 127.0.0.1:{taken}: Address already in use")

        def __exit__(self, *_: object) -> None: ...

    with pytest.raises(DeploymentError, match="already in use"), ports.other_ports_if_taken(Never):
        pass


def test_chosen_ports_are_not_those_of_outgoing_connections() -> None:
    """A load opens thousands of them, and would take a server's port before the server does."""
    first = ports._first_outgoing()
    assert all(port < first for port in ports.free_ports(200)) or first <= 20_000
    assert len(set(ports.free_ports(200))) == 200
