"""``infscale serve``: deploy a model, hold it open until Ctrl-C, and print commands that speak to it."""

import contextlib
import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infscale.cli.options import Argument, Command, Number, Whole, option
from infscale.errors import DeploymentError
from infscale.vocabulary import NAMES, SCHEME

if TYPE_CHECKING:
    from infscale.deployment.endpoint import Endpoint


def _run(framework: str, model: str, **options: Any) -> None:
    until_interrupted(lambda: serve(framework, model, say, **deploying(options)))


def say(text: str) -> None:
    """Print a text at once, also where the output is read by a program."""
    print(text, flush=True)


def deploying(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command as :func:`infscale.deployment.deploy` takes them, without those not given."""
    longer = {"start_timeout": "start_timeout_s", "answer_timeout": "answer_timeout_s"}
    return {longer.get(name, name): value for name, value in options.items() if value not in (None, ())}


def until_interrupted(work: Callable[[], None]) -> None:
    """Work until Ctrl-C or SIGTERM, which are the normal end."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        work()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def serve(framework: str, model: str, say: Callable[[str], None], **options: Any) -> None:
    """Deploy a model, report how to speak to it, and wait until interrupted.

    Args:
        framework: "tfserving", "torchserve" or "triton".
        model: name of a reference model, or path of a model of one's own.
        say: gets the instructions as text.
        options: as :func:`infscale.deployment.deploy` takes them.

    Raises:
        InfscaleError: as :func:`infscale.deployment.deploy`.
        DeploymentError: the server ended by itself; with the end of its log.
    """
    from infscale import deployment as servers
    from infscale.deployment.processes.folder import working_folder

    with servers.deploy(framework, model, **options) as endpoint, working_folder("serve") as folder:
        say(instructions(endpoint, folder))
        wait_for_end(endpoint)
        raise DeploymentError(f"{endpoint.label} ended by itself", endpoint.log_tail())


def instructions(endpoint: "Endpoint", folder: Path) -> str:
    """Return addresses, and commands that work as they stand.

    Args:
        endpoint: to speak to.
        folder: gets the bodies of the requests; the commands work while it exists.
    """
    lines = [f"{endpoint.label}, model {endpoint.model}, {endpoint.runtime}; ready in {endpoint.ready_s:.1f} s"]
    lines += [*(f"{NAMES[protocol]}  {endpoint.address(protocol)}" for protocol in endpoint.protocols()), ""]
    for protocol in endpoint.protocols():
        payload = endpoint.request(protocol)
        body = folder / f"{protocol}.body"
        body.write_bytes(payload.bodies[0])
        url = f"{SCHEME[protocol]}://{endpoint.address(protocol)}{payload.path}"
        headers = [f"{name}: {value}" for name, value in payload.headers.items()]
        if protocol == "rest":
            lines.append(_curl(url, headers, body, unbuffered=payload.stream is not None))
        stream = payload.stream and ("--sse" if payload.stream.way == "sse" else "--stream")
        lines.append(_load(url, headers, body, stream or ""))
    return "\n".join([*lines, "", "Ctrl-C ends it."])


def _curl(url: str, headers: list[str], body: Path, *, unbuffered: bool) -> str:
    options = [part for header in headers for part in ("-H", header)]
    return shlex.join(
        ["curl", "-sSN" if unbuffered else "-sS", "--noproxy", "*", *options, "--data-binary", f"@{body}", url]
    )


def _load(url: str, headers: list[str], body: Path, stream: str) -> str:
    options = [*filter(None, [stream]), *(part for header in headers for part in ("--header", header))]
    return shlex.join(["infscale", "load", url, "--rate", "100", "--duration", "5", "--body", str(body), *options])


def wait_for_end(endpoint: "Endpoint", *others: int) -> None:
    """Wait until the server's first process ends, or one of other processes, without polling.

    Return at once if there is none of the server's.

    Args:
        endpoint: of the server.
        others: ids of processes.
    """
    running = endpoint.processes()
    if not running:
        return
    with contextlib.ExitStack() as stack:
        descriptors = []
        for pid in (running[0].pid, *others):
            try:
                descriptors.append(os.pidfd_open(pid))
            except ProcessLookupError:
                return
            stack.callback(os.close, descriptors[-1])
        select.select(descriptors, [], [])


EXITS = {0: "Ended by Ctrl-C or SIGTERM, which is the normal end.", 130: ""}
"""Exit codes of a command that holds a deployment open."""

DEPLOYMENT: tuple[click.Parameter, ...] = (
    Argument(["framework"], help="tfserving, torchserve or triton."),
    click.Argument(
        ["model"],
        required=False,
        default="mlp",
        help="noop, mlp, cnn, image, photo or stream, or the path of a model of your own. Default: mlp.",
    ),
    option(
        "--payload",
        section="Model",
        type=click.Path(path_type=Path),
        metavar="FILE",
        note="A file or a folder of files, for a model of your own.",
    ),
    option("--protocols", section="Model", note="Default: both."),
    option("--way", section="Server", note="Default: auto."),
    option("--start-timeout", section="Server", type=Number(above=0), note="Default: 60."),
    option("--answer-timeout", section="Server", type=Number(above=0), note="Default: 10."),
    option("--rest-port", section="Server", default="0", type=Whole(0)),
    option("--grpc-port", section="Server", default="0", type=Whole(0)),
    option("--log-folder", section="Server", type=click.Path(path_type=Path)),
    option("--pid-log", section="Server", type=click.Path(path_type=Path)),
)
"""What is deployed, and how: arguments and options of a command."""

command = Command(
    "serve",
    _run,
    DEPLOYMENT,
    help="Deploy a model on a real serving system and hold it open until Ctrl-C. Prints a curl line and a load line "
    "for it that work.",
    exits=EXITS,
    examples=("infscale serve triton mlp", "infscale serve tfserving cnn --rest-port 8501 --grpc-port 8500"),
)
