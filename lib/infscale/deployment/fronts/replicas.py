"""Replicas of one model behind a balancer: the same endpoint as that of one server, with shares by replica.

"envoy-l4" passes TCP connections on, so what shares a connection shares a replica; "envoy-round-robin",
"envoy-least-request" and "nginx" pass requests on; "client" leaves the choice to the load engine
(``trial.Arm.pick``); "none" is one server alone.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from infscale.deployment import deploy as deploy_one
from infscale.deployment.counters import answered
from infscale.deployment.endpoint import Endpoint, answers
from infscale.deployment.fronts import envoy as balancers
from infscale.deployment.fronts.envoy import PROTOCOLS
from infscale.deployment.fronts.nginx import nginx, nginx_command, nginx_config
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import free_ports
from infscale.deployment.processes.process import Process, wait_ready
from infscale.errors import ConfigError, one_of

BALANCERS = ("none", *balancers.ENVOY, "nginx", "client")
MOST_REPLICAS = 8
START_TIMEOUT_S = 20.0

_NAMES = {
    "none": "",
    "envoy-l4": "behind {} (TCP connections in turn)",
    "envoy-round-robin": "behind {} (requests in turn)",
    "envoy-least-request": "behind {} (fewer requests of two)",
    "nginx": "behind {} (requests in turn)",
    "client": "chosen by the client",
}


@dataclass(frozen=True)
class Slow:
    """A simulated slow replica: ``replica`` (from 1) answers ``delay_ms`` later."""

    replica: int
    delay_ms: float

    def check(self, replicas: int) -> None:
        """Raise ConfigError for a replica that there is not, or no delay."""
        if not 1 <= self.replica <= replicas:
            raise ConfigError(f"slow: replica={self.replica} is none of {replicas}; accepted: 1 to {replicas}")
        if not 0 < self.delay_ms <= 60_000:
            raise ConfigError(f"slow: delay_ms={self.delay_ms} is no delay; accepted: above 0, at most 60000")


@contextlib.contextmanager
def deploy(
    framework: str,
    model: str | Path = "mlp",
    *,
    replicas: int = 2,
    balancer: str = "envoy-round-robin",
    slow: Slow | Mapping[str, float] | None = None,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    **options: Any,
) -> Iterator[Endpoint]:
    """Start ``replicas`` servers of ``framework`` and a balancer before them; yields one endpoint.

    ``slow``, as in ``{"replica": 1, "delay_ms": 20}``, puts an Envoy before that replica which holds every request
    up without keeping it busy: a *simulated* slow replica, as the endpoint's label says. ``options`` go to each server
    (ports excepted). Beside the endpoint's usual fields: ``parts`` by "server 1", "balancer", "delay"; ``shares``;
    ``replicas`` where the client is to choose.

    Raises:
        ConfigError: unknown balancer, or a number of replicas or a slow replica that cannot be.
        MissingError, DeploymentError: as :func:`infscale.deployment.deploy`; nginx is not installed.
    """
    _check(replicas, balancer, options)
    late = _slow(slow, replicas)
    program = _program(balancer)  # what is missing is said before servers start
    if framework == "tfserving":
        options = {"monitoring": True, **options}
    with contextlib.ExitStack() as stack:
        members = []
        for k in range(1, replicas + 1):
            folder = log_folder / f"server-{k}" if log_folder else None
            one = deploy_one(framework, model, log_folder=folder, pid_log=pid_log, **options)
            members.append(stack.enter_context(one))
        run = stack.enter_context(working_folder("lb"))
        logs, doors = log_folder or run, [{p: m.address(p) for p in PROTOCOLS} for m in members]
        parts = {f"server {k}": member.processes for k, member in enumerate(members, 1)}
        if late:
            doors[late.replica - 1], parts["delay"] = _delayed(stack, doors, late, logs, pid_log)
        upstreams = {p: [door[p] for door in doors] for p in PROTOCOLS}
        front = _joined(members, upstreams, balancer, program, late)
        if program:
            front, parts["balancer"] = _balanced(stack, front, upstreams, balancer, program, run, logs, pid_log)

        def living() -> list[psutil.Process]:
            """None if a replica or the balancer has ended: the others would answer for it."""
            each = [part() for part in parts.values()]
            return [process for part in each for process in part] if all(each) else []

        yield replace(front, parts=parts, processes=living)


def _check(replicas: int, balancer: str, options: Mapping[str, Any]) -> None:
    one_of("balancer", balancer, BALANCERS)
    if replicas < 1:
        raise ConfigError(f"replicas={replicas} is not a number of servers; accepted: 1 to {MOST_REPLICAS}")
    if replicas > MOST_REPLICAS:
        raise ConfigError(
            f"replicas={replicas} may not fit in memory (a server takes up to 0.7 GB); accepted: 1 to {MOST_REPLICAS}"
        )
    if balancer == "none" and replicas > 1:
        raise ConfigError(f"replicas={replicas} need a balancer; accepted with balancer='none': 1")
    for name in ("rest_port", "grpc_port"):
        if options.get(name):
            raise ConfigError(f"{name}={options[name]} cannot be given to several servers; ports are chosen")


def _slow(given: "Slow | Mapping[str, float] | None", replicas: int) -> Slow | None:
    if isinstance(given, Mapping):
        if set(given) != {"replica", "delay_ms"}:
            raise ConfigError(f"slow={dict(given)}: accepted: {{'replica': 1, 'delay_ms': 20}}")
        given = Slow(int(given["replica"]), float(given["delay_ms"]))
    if given:
        given.check(replicas)
    return given


def _program(balancer: str) -> str:
    if balancer in balancers.ENVOY:
        return balancers.envoy()
    return nginx() if balancer == "nginx" else ""


def _joined(
    members: Sequence[Endpoint], upstreams: Mapping[str, Sequence[str]], balancer: str, program: str, late: Slow | None
) -> Endpoint:
    """The first replica's endpoint as that of all."""
    first, count = members[0], len(members)
    slow = f"-slow{late.delay_ms:g}ms" if late else ""
    said = f", replica {late.replica} simulated slow by {late.delay_ms:g} ms" if late else ""
    many = f"{count} replica{'s' if count > 1 else ''} {_NAMES[balancer]}".strip()
    return replace(
        first,
        implementation=f"{first.implementation}x{count}{f'+{balancer}' if balancer != 'none' else ''}{slow}",
        label=f"{first.label}, {many.format(balancers.version(program) if program else '')}{said}",
        rest=upstreams["rest"][0],
        grpc=upstreams["grpc"][0],
        metrics="",
        http=first.http if balancer in ("none", "client", "envoy-l4") and not late else ("1.1",),
        members=tuple(members),
        replicas=upstreams if balancer == "client" else {},
        shares=lambda: [answered(member) for member in members],
        ready_s=sum(member.ready_s for member in members),
        log_tail=lambda: "\n".join(member.log_tail() for member in members),
    )


def _start_envoy(
    config: Mapping[str, Any], ports: Sequence[int], log: Path, pid_log: Path | None
) -> contextlib.AbstractContextManager[Process]:
    command = balancers.envoy_command(balancers.envoy(), config)
    return _listening(command, ports, log, pid_log, "Envoy")


@contextlib.contextmanager
def _listening(
    command: Sequence[str], ports: Sequence[int], log: Path, pid_log: Path | None, what: str
) -> Iterator[Process]:
    with Process(command, log=log, grace_s=3.0, pid_log=pid_log) as process:
        ready: Callable[[], bool] = lambda: all(process.owns_port(port) for port in ports)  # noqa: E731
        wait_ready(process, ready, what=what, timeout_s=START_TIMEOUT_S)
        yield process


def _delayed(
    stack: contextlib.ExitStack,
    doors: Sequence[Mapping[str, str]],
    late: Slow,
    logs: Path,
    pid_log: Path | None,
) -> tuple[dict[str, str], Callable[[], list[psutil.Process]]]:
    """Start the delay before one replica; returns its addresses and processes."""
    ports = dict(zip(PROTOCOLS, free_ports(2), strict=True))
    behind = {p: [doors[late.replica - 1][p]] for p in PROTOCOLS}
    config = balancers.envoy_config(ports, behind, "ROUND_ROBIN", delay_ms=late.delay_ms)
    process = stack.enter_context(_start_envoy(config, list(ports.values()), logs / "delay.log", pid_log))
    return {p: f"127.0.0.1:{port}" for p, port in ports.items()}, process.tree


def _balanced(
    stack: contextlib.ExitStack,
    front: Endpoint,
    upstreams: Mapping[str, Sequence[str]],
    balancer: str,
    program: str,
    run: Path,
    logs: Path,
    pid_log: Path | None,
) -> tuple[Endpoint, Callable[[], list[psutil.Process]]]:
    """Start the balancer; returns the endpoint with its addresses, and its processes."""
    ports = dict(zip(PROTOCOLS, free_ports(2), strict=True))
    if balancer == "nginx":
        (run / "nginx.conf").write_text(nginx_config(ports, upstreams, run), encoding="utf-8")
        command = nginx_command(program, run / "nginx.conf")
    else:
        config = balancers.envoy_config(ports, upstreams, balancers.ENVOY[balancer])
        command = balancers.envoy_command(program, config)
    log = logs / "balancer.log"
    process = stack.enter_context(_listening(command, list(ports.values()), log, pid_log, balancer))
    address = {p: f"127.0.0.1:{port}" for p, port in ports.items()}
    front = replace(front, rest=address["rest"], grpc=address["grpc"])
    seconds = wait_ready(process, lambda: answers(front), what=balancer, timeout_s=START_TIMEOUT_S)
    return replace(front, ready_s=front.ready_s + seconds), process.tree
