"""``infscale serve``: hold a deployment open until Ctrl-C, and say how to speak to it.

Servers are imported where they are used: every other command of ``infscale`` imports this module for its options.
"""

import argparse
import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infscale.errors import ConfigError, DeploymentError

if TYPE_CHECKING:
    from infscale.deployment.endpoint import Endpoint

_LOAD = {"rest": "http", "grpc": "grpc"}


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand ``serve``."""
    serve = commands.add_parser("serve", help="deploy a model and hold it open until Ctrl-C")
    serve.add_argument("framework", help="tfserving, torchserve or triton")
    serve.add_argument("model", nargs="?", default="mlp", help="noop, mlp, cnn, or the path of a model of your own")
    serve.add_argument("--payload", type=Path, help="requests for a model of your own: a file, or a folder of files")
    serve.add_argument("--rest-port", type=int, default=0, help="(default: a free one)")
    serve.add_argument("--grpc-port", type=int, default=0, help="(default: a free one)")
    serve.add_argument("--way", help="TensorFlow Serving: auto (default), binary, docker or embedded")
    serve.add_argument("--log-folder", type=Path, help="keep the server's log here")
    serve.add_argument("--pid-log", type=Path, help="append the ids of the processes started to this file")


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand; Ctrl-C and SIGTERM are its normal end.

    Raises:
        InfscaleError: as :func:`serve`.
    """
    if arguments.way and arguments.framework != "tfserving":
        raise ConfigError(f"--way {arguments.way}: only tfserving can be had in several ways")
    names = ("payload", "way", "log_folder", "pid_log")
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    options |= {"rest_port": arguments.rest_port, "grpc_port": arguments.grpc_port}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        serve(arguments.framework, arguments.model, lambda text: print(text, flush=True), **options)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


def serve(framework: str, model: str, say: Callable[[str], None], **options: Any) -> None:
    """Deploy ``model``, say how to speak to it, and wait until interrupted.

    Raises:
        InfscaleError: as :func:`infscale.deployment.deploy`.
        DeploymentError: the server ended by itself; with the end of its log.
    """
    from infscale import deployment as servers
    from infscale.deployment.processes.folder import working_folder

    with servers.deploy(framework, model, **options) as endpoint, working_folder("serve") as folder:
        say(instructions(endpoint, folder))
        _wait_for_end(endpoint)
        raise DeploymentError(f"{endpoint.label} ended by itself", endpoint.log_tail())


def instructions(endpoint: "Endpoint", folder: Path) -> str:
    """Addresses, and commands that work as they stand while ``folder``, which gets the request bodies, exists."""
    lines = [f"{endpoint.label}, model {endpoint.model}, {endpoint.runtime}; ready in {endpoint.ready_s:.1f} s"]
    lines += [f"REST  {endpoint.rest}", f"gRPC  {endpoint.grpc}", ""]
    for protocol in endpoint.protocols():
        payload = endpoint.payload(protocol, count=1)
        body = folder / f"{protocol}.body"
        body.write_bytes(payload.bodies[0])
        url = f"{_LOAD[protocol]}://{endpoint.address(protocol)}{payload.path}"
        headers = [f"{name}: {value}" for name, value in payload.headers.items()]
        if protocol == "rest":
            lines.append(_curl(url, headers, body))
        lines.append(_load(url, headers, body))
    return "\n".join([*lines, "", "Ctrl-C ends it."])


def _curl(url: str, headers: list[str], body: Path) -> str:
    given = [part for header in headers for part in ("-H", header)]
    return shlex.join(["curl", "-sS", "--noproxy", "*", *given, "--data-binary", f"@{body}", url])


def _load(url: str, headers: list[str], body: Path) -> str:
    given = [part for header in headers for part in ("--header", header)]
    return shlex.join(["infscale", "load", url, "--rate", "100", "--duration", "5", "--body", str(body), *given])


def _wait_for_end(endpoint: "Endpoint") -> None:
    """Wait, without waking up, for the server's first process."""
    running = endpoint.processes()
    if not running:
        return
    try:
        descriptor = os.pidfd_open(running[0].pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)
