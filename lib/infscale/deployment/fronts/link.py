"""A deployment behind a link of a known rate, or behind TLS, on this machine.

A link is a veth pair: at one end the server, in a network namespace of its own, at the other end this machine. The
kernel's token bucket (tc-tbf(8)) shapes both directions, so that a body of b bytes takes at least 8·b / rate to pass.
The namespace has a route to its other end only: nothing leaves the machine.
"""

import contextlib
import ipaddress
import itertools
import json
import math
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from infscale.deployment import deploy as _deploy
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.fronts.tls import terminate
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place
from infscale.deployment.processes.process import Process
from infscale.errors import ConfigError, DeploymentError, MissingError
from infscale.programs import find_program

FRAME_BYTES = 1_600
"""Size of an Ethernet frame, rounded up."""
BURST_S = 0.0001
"""The bucket holds a frame, and what passes in this time at the link's rate, seconds.

A real link has no burst: after a pause, what the bucket holds comes that much too early. But a bucket below a frame
lets nothing pass, and one without room for late timers (tens of µs) is slower than its rate.
"""
QUEUE_S = 0.1
"""Longest time that a packet waits in the link's queue, seconds; what exceeds it is dropped."""
QUEUE_BYTES = 1 << 18
"""Least size of that queue, bytes, however slow the link."""
_NETWORKS = ipaddress.ip_network("10.200.0.0/16")
_NAME = re.compile(r"infscale-(\d+)-\d+")
_INSIDE = "eth0"
_DEFAULTS = {"::/0", "0.0.0.0/0", "default"}
_numbers = itertools.count()


@dataclass(frozen=True)
class Link:
    """A link's properties, the same in both directions.

    Attributes:
        rate_mbit: rate in Mb/s (10⁶ bits); None: not limited.
        delay_ms: round-trip delay, half of which is added in each direction.
    """

    rate_mbit: float | None
    delay_ms: float = 0

    def __post_init__(self) -> None:
        if self.rate_mbit is not None and not 0.01 <= self.rate_mbit <= 100_000:
            raise ConfigError(f"rate_mbit={self.rate_mbit} is no rate of a link; accepted: 0.01 to 100000, or None")
        if not 0 <= self.delay_ms <= 10_000:
            raise ConfigError(f"delay_ms={self.delay_ms} is no delay of a link; accepted: 0 to 10000")

    def __str__(self) -> str:
        rate = "no limit" if self.rate_mbit is None else f"{self.rate_mbit:g} Mb/s"
        return f"{rate}, {self.delay_ms:g} ms"

    def burst_bytes(self) -> int:
        """Return how many bytes pass at once after a pause."""
        return FRAME_BYTES + math.ceil((self.rate_mbit or 0) * 1e6 / 8 * BURST_S)

    def _delayed_packets(self) -> int:
        """Return how many packets netem's queue must hold.

        With netem below tbf, packets wait in netem's queue, and the limit in bytes that tbf was given has no effect.
        """
        if self.rate_mbit is None:
            return 100_000
        per_s = self.rate_mbit * 1e6 / 8
        return max(2, math.ceil((max(QUEUE_BYTES, per_s * QUEUE_S) + per_s * self.delay_ms / 2e3) / 1514))

    def queueing(self) -> list[list[str]]:
        """Return the arguments of ``tc qdisc add dev DEVICE`` that shape one direction, in order."""
        commands, parent = [], ["root"]
        if self.rate_mbit is not None:
            limit = max(QUEUE_BYTES, math.ceil(self.rate_mbit * 1e6 / 8 * QUEUE_S))
            rate, burst = f"{round(self.rate_mbit * 1e6)}bit", f"{self.burst_bytes()}b"
            commands.append([*parent, "handle", "1:", "tbf", "rate", rate, "burst", burst, "limit", f"{limit}b"])
            parent = ["parent", "1:1"]
        if self.delay_ms:
            commands.append(
                [*parent, "netem", "delay", f"{self.delay_ms / 2:g}ms", "limit", str(self._delayed_packets())]
            )
        return commands


@contextlib.contextmanager
def deploy(
    framework: str,
    model: str | Path = "mlp",
    *,
    link: Link | None = None,
    tls: bool = False,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    **options: Any,
) -> Iterator[Endpoint]:
    """Start a serving system at the other end of ``link``, behind TLS if ``tls``, and yield its endpoint.

    ``link=None`` is the loopback, which needs no root. ``options`` are those of :func:`infscale.deployment.deploy`;
    ``rest_port`` and ``grpc_port`` are those that clients see.

    Raises:
        ConfigError: as :func:`infscale.deployment.deploy`; TensorFlow Serving by Docker on a link.
        MissingError: no root, no ``ip`` or ``tc``, no Envoy, or a kernel without the shaping that the link needs.
        DeploymentError: it did not become ready, or the namespace could not be made or removed.
    """
    with contextlib.ExitStack() as stack:
        place = HERE if link is None else stack.enter_context(namespace(link, pid_log=pid_log))
        ports = {name: options.pop(name, 0) for name in ("rest_port", "grpc_port")}
        if not tls:
            options |= ports
        server = _deploy(framework, model, place=place, log_folder=log_folder, pid_log=pid_log, **options)
        endpoint = replace(stack.enter_context(server), link=str(link) if link else "")
        if tls:
            encrypted = terminate(endpoint, place=place, log_folder=log_folder, pid_log=pid_log, **ports)
            endpoint = stack.enter_context(encrypted)
        yield endpoint


@contextlib.contextmanager
def namespace(link: Link, *, pid_log: Path | None = None) -> Iterator[Place]:
    """Make a network namespace at the other end of ``link``, and yield it as a place to start processes in.

    It is removed at the end, and also when this process is killed; any that were left nevertheless are removed first.

    Raises:
        MissingError: no root, no ``ip`` or ``tc``, or a kernel without the shaping.
        DeploymentError: it could not be made, or not be removed.
    """
    ip, tc = _programs()
    _sweep(ip)
    number = next(n for n in _numbers if not _exists(f"infscale-{os.getpid()}-{n}"))
    name, device = f"infscale-{os.getpid()}-{number}", f"is{os.getpid()}-{number}"
    # The keeper outlives us for a moment: its supervisor then removes what we could not.
    remove = ["sh", "-c", f"{ip} link del {device}; {ip} netns del {name}"]
    with working_folder("net") as run:
        log = run / "keeper.log"
        with Process(["sleep", "infinity"], log=log, remove=[run], on_exit=remove, pid_log=pid_log):
            _run(ip, "netns", "add", name)
            try:
                host = _connect(ip, name, device)
                _shape(ip, tc, name, device, link)
                yield Place((ip, "netns", "exec", name), host)
            finally:
                _remove(ip, name, device)


def leftovers() -> list[str]:
    """Return the names of namespaces that an earlier process of ours made and did not remove before it ended.

    Raises:
        MissingError: no root, no ``ip`` or ``tc``.
    """
    ip, _ = _programs()
    matches = (_NAME.fullmatch(name) for name in _names(ip))
    return [match[0] for match in matches if match and not psutil.pid_exists(int(match[1]))]


def _sweep(ip: str) -> None:
    for name in leftovers():
        try:
            _run(ip, "netns", "del", name)
        except DeploymentError:
            if _exists(name):  # else another process swept it at the same time
                raise


def _programs() -> tuple[str, str]:
    """Return the paths of ``ip`` and ``tc``; they may lie outside the PATH of a root shell."""
    if os.geteuid() != 0:
        raise MissingError("namespaces need root: run as root (sudo), or deploy with link=None")
    return _program("ip"), _program("tc")


def _program(name: str) -> str:
    path = find_program(name)
    if path is None:
        raise MissingError(f"links need the program {name!r}: apt-get install iproute2")
    return path


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if result.returncode == 0:
        return result.stdout
    reason = result.stderr.strip()
    if "not permitted" in reason:
        raise MissingError(f"namespaces need root with CAP_SYS_ADMIN and CAP_NET_ADMIN: {' '.join(command)}: {reason}")
    if "Unknown device type" in reason:
        raise MissingError(f"this kernel cannot make links (module veth): {' '.join(command)}: {reason}")
    raise DeploymentError(f"{' '.join(command)} failed: {reason}")


def _names(ip: str) -> list[str]:
    return [line.split()[0] for line in _run(ip, "netns", "list").splitlines() if line.strip()]


def _exists(name: str) -> bool:
    return Path("/run/netns", name).exists()


def _connect(ip: str, name: str, device: str) -> str:
    """Make the veth pair, give each end an address, and return the namespace's."""
    _run(ip, "link", "add", device, "type", "veth", "peer", "name", _INSIDE, "netns", name)
    here, there = _addresses(ip, device)
    _run(ip, "addr", "add", f"{here}/30", "dev", device)
    _run(ip, "link", "set", device, "up")
    inside = (ip, "-n", name)
    _run(*inside, "addr", "add", f"{there}/30", "dev", _INSIDE)
    _run(*inside, "link", "set", _INSIDE, "up")
    _run(*inside, "link", "set", "lo", "up")
    return there


def _addresses(ip: str, device: str) -> tuple[str, str]:
    """Return both addresses of a /30 network that is not in use; the search starts at the device's own number."""
    routes = json.loads(_run(ip, "-j", "-4", "route", "show", "table", "all"))
    taken = [ipaddress.ip_network(r["dst"], strict=False) for r in routes if r["dst"] not in _DEFAULTS]
    size = _NETWORKS.num_addresses // 4
    first = socket.if_nametoindex(device)
    for number in range(first, first + size):
        base = _NETWORKS.network_address + 4 * (number % size)
        if not any(ipaddress.ip_network(f"{base}/30").overlaps(network) for network in taken):
            return str(base + 1), str(base + 2)
    raise DeploymentError(f"no addresses for a link: all of {_NETWORKS} is routed elsewhere on this machine")


def _shape(ip: str, tc: str, name: str, device: str, link: Link) -> None:
    for qdisc in link.queueing():
        for here in ([tc, "qdisc", "add", "dev", device], [tc, "-n", name, "qdisc", "add", "dev", _INSIDE]):
            try:
                _run(*here, *qdisc)
            except DeploymentError as error:
                kind = "netem" if "netem" in qdisc else "tbf"
                if "qdisc kind is unknown" not in str(error):
                    raise
                what = f"the link {link} cannot be made: the kernel has no sch_{kind}"
                raise MissingError(f"{what}; try `modprobe sch_{kind}`, or another kernel") from error


def _remove(ip: str, name: str, device: str) -> None:
    """Remove the link, then the namespace.

    Raises:
        DeploymentError: the namespace is still there, with the reason.
    """
    with contextlib.suppress(DeploymentError):  # not made yet, or gone with its namespace
        _run(ip, "link", "del", device)
    _run(ip, "netns", "del", name)
