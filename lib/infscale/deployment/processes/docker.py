"""Servers in Docker containers."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from infscale.deployment.processes.process import Process
from infscale.errors import DeploymentError

PULL_TIMEOUT_S = 1800.0
"""Longest time that an image may take to arrive, seconds."""


def run(command: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end and return its exit status and output.

    Raises:
        DeploymentError: it cannot be executed, or takes longer.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeploymentError(f"{' '.join(command)}: {error}") from error


def docker(timeout_s: float = 10.0) -> str | None:
    """Return the path of the Docker client if its daemon answers, else None: a client alone is of no use."""
    client = shutil.which("docker")
    if client is None:
        return None
    try:
        reply = run([client, "version", "--format", "{{.Server.Version}}"], timeout_s)
    except DeploymentError:
        return None
    return client if reply.returncode == 0 and reply.stdout.strip() else None


def image(client: str, name: str) -> str:
    """Return an image's name and id; it is fetched first if it is not here, so that a server's start does not take it.

    Raises:
        DeploymentError: it cannot be fetched.
    """
    inspect = [client, "image", "inspect", "--format", "{{.Id}}", name]
    reply = run(inspect, 30)
    if reply.returncode:
        pull = run([client, "pull", name], PULL_TIMEOUT_S)
        if pull.returncode:
            raise DeploymentError(f"docker pull {name} failed", pull.stderr)
        reply = run(inspect, 30)
    return f"{name}@{reply.stdout.strip()[:19]}"


@dataclass(frozen=True)
class Container:
    """A container by its name. The Docker engine starts its server and owns its ports, so it is no child of ours.

    Attributes:
        client: path of the Docker client.
        name: the container's.
        rest_port: a port that stands on the server's command line.
    """

    client: str
    name: str
    rest_port: int

    def pid(self) -> int:
        """Return the server's process id as this machine counts it while it runs, else 0."""
        reply = run([self.client, "inspect", "--format", "{{.State.Running}} {{.State.Pid}}", self.name], 10)
        running, _, pid = reply.stdout.strip().partition(" ")
        return int(pid) if running == "true" and pid.isdigit() else 0

    def server(self) -> psutil.Process | None:
        """Return the server's process; None where the engine runs in a machine of its own, with its own ids."""
        try:
            root = psutil.Process(self.pid())
            return root if str(self.rest_port) in " ".join(root.cmdline()) else None
        except (psutil.Error, DeploymentError, ValueError):
            return None

    def processes(self, client: Process) -> Callable[[], list[psutil.Process]]:
        """Return a function that lists the server's living processes.

        It lists those of the client where the server's are out of sight, and none once the client has ended.
        """
        roots: list[psutil.Process] = []

        def inside() -> list[psutil.Process]:
            if not roots and (server := self.server()):
                roots.append(server)
            with contextlib.suppress(psutil.NoSuchProcess):
                return [p for root in roots for p in (root, *root.children(recursive=True)) if p.is_running()]
            return []

        return lambda: client.tree() and (inside() or client.tree())
