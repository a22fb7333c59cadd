"""``infscale audit``: is a served reference model right, and does its server remember requests?"""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infscale.cli.options import Argument, Command, Number, Whole, option
from infscale.errors import one_of
from infscale.vocabulary import NAMES, PROTOCOLS

if TYPE_CHECKING:
    from infscale.cli import printed
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
    json: bool,
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
    from infscale.cli import printed

    found = printed.Audit(caching=[], accuracy=[])
    with _served(framework, model, cache) as endpoint:
        for protocol in chosen:
            if accuracy:
                found.accuracy.append(_accuracy(endpoint, protocol))
            else:
                one = _caching(endpoint, protocol, rate=rate, duration=duration, rounds=rounds, seed=seed)
                found.caching.append(one)
    if json:
        printed.emit(found)
    return max([*map(_code, found.caching), *map(_code, found.accuracy)])


@contextlib.contextmanager
def _served(framework: str, model: str, cache: str) -> "Iterator[Endpoint]":
    from infscale.deployment import deploy
    from infscale.deployment.fronts import gateway

    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"cache": True} if cache == "server" else {}
        endpoint = stack.enter_context(deploy(framework, model, **options))
        yield stack.enter_context(gateway.serve(endpoint, mode="cache")) if cache == "gateway" else endpoint


def _code(found: "printed.CachingAudit | printed.AccuracyAudit") -> int:
    """Return the exit code of one protocol's judgement."""
    return PASSED if found.passed else UNDECIDED if getattr(found, "answer", "") == "undecided" else FAILED


def _accuracy(endpoint: "Endpoint", protocol: str) -> "printed.AccuracyAudit":
    from infscale.cli import printed
    from infscale.experiment.beside import audit

    found = audit.accuracy(endpoint, protocol)
    print(f"{endpoint.label}: {found.text}.", flush=True)
    return printed.AccuracyAudit(
        server=endpoint.label,
        protocol=found.protocol,
        encoding=found.encoding,
        passed=found.passed,
        answers=found.answers,
        agreeing=found.agreeing,
        failed=found.failed,
        largest_difference=found.largest,
        limit=found.limit,
        sentence=f"{found.text}.",
    )


def _caching(
    endpoint: "Endpoint", protocol: str, *, rate: float, duration: float, rounds: int, seed: int
) -> "printed.CachingAudit":
    from infscale.cli import printed
    from infscale.experiment.beside import audit
    from infscale.experiment.design.arm import Arm
    from infscale.findings.cache_audit import judge, sentence

    table = audit.rounds(
        endpoint, Arm(protocol), rate_per_s=rate, duration_s=duration, count=rounds, seed=seed, say=_say
    )
    found = judge(table)
    print(f"{endpoint.label}, {NAMES[protocol]}, {rate:g}/s, seed {seed}: {sentence(found)}", flush=True)
    fresh, repeated = found.hit_ratios
    return printed.CachingAudit(
        server=endpoint.label,
        protocol=protocol,
        rate_per_s=rate,
        seed=seed,
        passed=found.passed,
        answer=found.answer,
        ratio=found.ratio.value,
        ratio_low=found.ratio.low,
        ratio_high=found.ratio.high,
        rounds=found.ratio.lifetimes,
        hit_ratio_fresh=fresh,
        hit_ratio_repeated=repeated,
        sentence=sentence(found),
    )


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


command = Command(
    "audit",
    _run,
    [
        Argument(["framework"], help="tfserving, torchserve or triton."),
        Argument(["model"], required=False, default="mlp", help="noop, mlp or cnn. Default: mlp."),
        option("--protocols", section="Server", note="Default: both."),
        option("--cache", section="Server", default="none"),
        option("--rate", section="Load", default="100", type=Number(above=0)),
        option("--duration", section="Load", default="2", type=Number(above=0), note="Of each trial."),
        option("--rounds", section="Load", default="12", type=Whole(3)),
        option("--seed", section="Load", type=Whole(0), note="Default: drawn, and printed."),
        option("--accuracy", section="Accuracy"),
        option("--json", section="Output"),
    ],
    help="Deploy a reference model and load it with repeated and with fresh requests in turn, in the manner of "
    "MLPerf's TEST04: they must not differ in speed unless a cache is deployed. With --accuracy, compare its answers "
    "instead.",
    examples=(
        "infscale audit triton mlp",
        "infscale audit triton mlp --cache gateway --protocols grpc",
        "infscale audit tfserving cnn --accuracy --json",
    ),
    exits={
        PASSED: "Equally fast, or faster by a cache that counted its hits (--accuracy: every answer agrees).",
        1: "Bad input, or no server.",
        UNDECIDED: "Undecided.",
        FAILED: "A difference that no cache explains (--accuracy: an answer does not agree).",
    },
)
