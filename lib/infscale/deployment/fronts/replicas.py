"""Replicas of one model behind a balancer: the same endpoint as that of one server, with shares by replica.

"envoy-l4" passes TCP connections on, so that the requests of one connection go to one replica; "envoy-round-robin",
"envoy-least-request" and "nginx" pass requests on; "client" leaves the choice to the load engine (an arm's ``pick``);
"none" is one server alone.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from infscale.deployment import FRAMEWORKS
from infscale.deployment import deploy as deploy_one
from infscale.deployment.counters import answered
from infscale.deployment.endpoint import Endpoint, Processes, answers
from infscale.deployment.fronts import envoy, nginx
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import free_ports
from infscale.deployment.processes.process import Process, serving
from infscale.errors import ConfigError, one_of

BALANCERS = ("none", *envoy.BALANCERS, "nginx", "client")
"""What can choose among replicas, or "none" for one server alone."""
MOST_REPLICAS = 8
"""Most servers of one deployment: more may not fit in memory."""
START_TIMEOUT_S = 20.0
"""Longest time that a proxy may take to start, seconds."""

_DESCRIPTIONS = {
    "none": "",
    "envoy-l4": "behind {} (TCP connections in turn)",
    "envoy-round-robin": "behind {} (requests in turn)",
    "envoy-least-request": "behind {} (fewer requests of two)",
    "nginx": "behind {} (requests in turn)",
    "client": "chosen by the client",
}


@dataclass(frozen=True)
class Slow:
    """A replica that is simulated to be slow.

    Attributes:
        replica: its number, from 1.
        delay_ms: how much later it answers.
    """

    replica: int
    delay_ms: float

    def check(self, replicas: int) -> None:
        """Check the numbers against those of the deployment.

        Raises:
            ConfigError: there is no such replica, or no delay.
        """
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
    """Start ``replicas`` servers of ``framework`` and a balancer before them, and yield one endpoint.

    ``slow``, as in ``{"replica": 1, "delay_ms": 20}``, puts an Envoy before that replica which holds every request up
    without keeping the replica busy: a *simulated* slow replica, as the endpoint's label says. ``options`` are those of
    each server, ports excepted. Beside the usual fields the endpoint has ``parts`` ("server 1", "balancer", "delay"),
    ``answered_by_replica``, and ``replicas`` where the client is to choose.

    Raises:
        ConfigError: an unknown framework or balancer, or a number of replicas or a slow replica that cannot be.
        MissingError, DeploymentError: as :func:`infscale.deployment.deploy`; nginx is not installed.
    """
    one_of("framework", framework, FRAMEWORKS)
    _check(replicas, balancer, options)
    late = _slow(slow, replicas)
    program = _program(balancer)  # a missing one is reported before servers start
    options = {**FRAMEWORKS[framework].counting, **options}
    with contextlib.ExitStack() as stack:
        members = []
        for number in range(1, replicas + 1):
            folder = log_folder / f"server-{number}" if log_folder else None
            server = deploy_one(framework, model, log_folder=folder, pid_log=pid_log, **options)
            members.append(stack.enter_context(server))
        run = stack.enter_context(working_folder("lb"))
        starter = _Starter(stack, log_folder or run, pid_log)
        protocols = members[0].protocols()
        addresses = {protocol: [member.address(protocol) for member in members] for protocol in protocols}
        parts = {f"server {number}": member.processes for number, member in enumerate(members, 1)}
        if late:
            parts["delay"] = starter.delay(addresses, late)
        front = _joined(members, addresses, balancer, program, late)
        if program:
            front, parts["balancer"] = starter.balancer(front, addresses, balancer, program, run)

        def processes() -> list[psutil.Process]:
            """List all; none once a replica or the balancer has ended, since the others would answer for it."""
            lists = [living() for living in parts.values()]
            return [process for living in lists for process in living] if all(lists) else []

        yield replace(front, parts=parts, processes=processes)


def _check(replicas: int, balancer: str, options: Mapping[str, object]) -> None:
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


def _slow(slow: Slow | Mapping[str, float] | None, replicas: int) -> Slow | None:
    if isinstance(slow, Mapping):
        if set(slow) != {"replica", "delay_ms"}:
            raise ConfigError(f"slow={dict(slow)}: accepted: {{'replica': 1, 'delay_ms': 20}}")
        slow = Slow(int(slow["replica"]), float(slow["delay_ms"]))
    if slow:
        slow.check(replicas)
    return slow


def _program(balancer: str) -> str:
    """Return the path of a balancer's program; empty for one without."""
    if balancer in envoy.BALANCERS:
        return envoy.program()
    return nginx.program() if balancer == "nginx" else ""


def _joined(
    members: Sequence[Endpoint], addresses: Mapping[str, Sequence[str]], balancer: str, program: str, late: Slow | None
) -> Endpoint:
    """Return the first replica's endpoint as that of all."""
    first, count = members[0], len(members)
    behind = _DESCRIPTIONS[balancer].format(envoy.version(program) if program else "")
    many = f"{count} replica{'s' if count > 1 else ''} {behind}".strip()
    simulated = f", replica {late.replica} simulated slow by {late.delay_ms:g} ms" if late else ""
    suffix = f"{f'+{balancer}' if balancer != 'none' else ''}{f'-slow{late.delay_ms:g}ms' if late else ''}"
    return replace(
        first,
        implementation=f"{first.implementation}x{count}{suffix}",
        label=f"{first.label}, {many}{simulated}",
        rest=addresses.get("rest", [""])[0],
        grpc=addresses.get("grpc", [""])[0],
        metrics="",
        http=first.http if balancer in ("none", "client", "envoy-l4") and not late else ("1.1",),
        members=tuple(members),
        replicas=addresses if balancer == "client" else {},
        answered_by_replica=lambda: [answered(member) for member in members],
        ready_s=sum(member.ready_s for member in members),
        streams_at_once=count * first.streams_at_once if first.streams_at_once else None,
        log_tail=lambda: "\n".join(member.log_tail() for member in members),
    )


@dataclass(frozen=True)
class _Starter:
    """Starts proxies that live as long as the deployment.

    Attributes:
        stack: ends them.
        logs: folder of their logs.
        pid_log: file to which their process ids are appended.
    """

    stack: contextlib.ExitStack
    logs: Path
    pid_log: Path | None

    def delay(self, addresses: dict[str, list[str]], late: Slow) -> Processes:
        """Start the delay before one replica, put its addresses in place of the replica's, and return its processes."""
        ports, which = free_ports(len(addresses)), late.replica - 1
        doors = [
            envoy.Door(protocol, port, [addresses[protocol][which]], policy="ROUND_ROBIN", delay_ms=late.delay_ms)
            for protocol, port in zip(addresses, ports, strict=True)
        ]
        command = envoy.command(envoy.program(), envoy.configuration(doors))
        process = self._start(command, "Envoy", "delay.log", ports)
        for door in doors:
            addresses[door.name][which] = f"{door.host}:{door.port}"
        return process.tree

    def balancer(
        self, front: Endpoint, addresses: Mapping[str, Sequence[str]], balancer: str, program: str, run: Path
    ) -> tuple[Endpoint, Processes]:
        """Start the balancer and return the endpoint with its addresses, and its processes."""
        ports = dict(zip(addresses, free_ports(len(addresses)), strict=True))
        if balancer == "nginx":
            (run / "nginx.conf").write_text(nginx.configuration(ports, addresses, run), encoding="utf-8")
            command = nginx.command(program, run / "nginx.conf")
        else:
            policy = envoy.BALANCERS[balancer]
            doors = [envoy.Door(name, port, addresses[name], policy=policy) for name, port in ports.items()]
            command = envoy.command(program, envoy.configuration(doors))
        local = {protocol: f"127.0.0.1:{port}" for protocol, port in ports.items()}
        front = replace(front, rest=local.get("rest", ""), grpc=local.get("grpc", ""))
        process = self._start(command, balancer, "balancer.log", list(ports.values()), front)
        return replace(front, ready_s=front.ready_s + process.ready_s), process.tree

    def _start(
        self, command: Sequence[str], what: str, log: str, ports: Sequence[int], front: Endpoint | None = None
    ) -> Process:
        return self.stack.enter_context(
            serving(
                command,
                what=what,
                log=self.logs / log,
                ports=ports,
                ready=lambda _: front is None or answers(front),
                timeout_s=START_TIMEOUT_S,
                grace_s=3.0,
                pid_log=self.pid_log,
            )
        )
