"""``infscale audit``: is a served reference model right, and does its server remember requests?"""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from infscale.cli.options import Command, Number, Whole, option
from infscale.errors import one_of
from infscale.vocabulary import NAMES, PROTOCOLS

if TYPE_CHECKING:
    from infscale.deployment.endpoint import Endpoint

PASSED, UNDECIDED, FAILED = 0, 3, 4
"""Exit codes; for 1 and 2 see :func:`infscale.cli.main`."""

WHERE = ("none", "gateway", "server")
"""Where a cache is deployed."""


def _run(
    framework: str,
    model: str,
    protocols: Sequence[str],
    cache: str,
    rate: float,
    duration: float,
    rounds: int,
    seed: int | None,
    accuracy: bool,
) -> int:
    """Deploy, audit each protocol, print a sentence for each, and return the exit code.

    Raises:
        InfscaleError: an unknown level, or the server did not start.
    """
    one_of("--cache", cache, WHERE)
    chosen = [one_of("--protocols", protocol, PROTOCOLS) for protocol in protocols or PROTOCOLS]
    seed = secrets.randbits(31) if seed is None else seed
    if accuracy:
        from infscale.load.loadgen_client import check_installed

        check_installed()  # before a server is started
    with _served(framework, model, cache) as endpoint:
        codes = [
            _accuracy(endpoint, protocol)
            if accuracy
            else _caching(endpoint, protocol, rate=rate, duration=duration, rounds=rounds, seed=seed)
            for protocol in chosen
        ]
    return max(codes)


@contextlib.contextmanager
def _served(framework: str, model: str, cache: str) -> "Iterator[Endpoint]":
    from infscale.deployment import deploy
    from infscale.deployment.fronts import gateway

    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"cache": True} if cache == "server" else {}
        endpoint = stack.enter_context(deploy(framework, model, **options))
        yield stack.enter_context(gateway.serve(endpoint, mode="cache")) if cache == "gateway" else endpoint


def _accuracy(endpoint: "Endpoint", protocol: str) -> int:
    from infscale.experiment.beside import audit

    found = audit.accuracy(endpoint, protocol)
    print(f"{endpoint.label}: {found.text}.", flush=True)
    return PASSED if found.passed else FAILED


def _caching(endpoint: "Endpoint", protocol: str, *, rate: float, duration: float, rounds: int, seed: int) -> int:
    from infscale.analysis.answers import UNDECIDED as OPEN
    from infscale.experiment.beside import audit
    from infscale.experiment.design.arm import Arm
    from infscale.findings.cache_audit import judge, sentence

    table = audit.rounds(
        endpoint, Arm(protocol), rate_per_s=rate, duration_s=duration, count=rounds, seed=seed, say=_say
    )
    found = judge(table)
    print(f"{endpoint.label}, {NAMES[protocol]}, {rate:g}/s, seed {seed}: {sentence(found)}", flush=True)
    return PASSED if found.passed else UNDECIDED if found.answer == OPEN else FAILED


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


command = Command(
    "audit",
    _run,
    [
        click.Argument(["framework"], help="tfserving, torchserve or triton."),
        click.Argument(["model"], required=False, default="mlp", help="noop, mlp or cnn. Default: mlp."),
        option("--protocols", section="Server", note="Default: both."),
        option("--cache", section="Server", default="none"),
        option("--rate", section="Load", default="100", type=Number(above=0)),
        option("--duration", section="Load", default="2", type=Number(above=0), note="Of each trial."),
        option("--rounds", section="Load", default="12", type=Whole(3)),
        option("--seed", section="Load", type=Whole(0), note="Default: drawn, and printed."),
        option("--accuracy", section="Accuracy"),
    ],
    help="Deploy a reference model and load it with repeated and with fresh requests in turn, in the manner of "
    "MLPerf's TEST04: they must not differ in speed unless a cache is deployed. With --accuracy, compare its answers "
    "instead.",
    examples=(
        "infscale audit triton mlp",
        "infscale audit triton mlp --cache gateway --protocols grpc",
        "infscale audit tfserving cnn --accuracy",
    ),
    notes="Exit codes: 0 equally fast, or faster by a cache that counted its hits (--accuracy: every answer agrees); "
    "1 bad input, or no server; 2 unknown option; 3 undecided; 4 a difference that no cache explains (--accuracy: an "
    "answer does not agree).",
)
