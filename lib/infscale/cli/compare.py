"""``infscale compare``: REST or gRPC, for an endpoint of one's own. A pilot, a short paired grid, a sentence."""

import argparse
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infscale.cli import load_options
from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError, DeploymentError
from infscale.payloads.encoders import Payload
from infscale.vocabulary import PROTOCOLS

NAMES = {"rest": "REST", "grpc": "gRPC"}
SCHEMES = {"rest": ("http", "https"), "grpc": ("grpc", "grpcs")}
FRACTIONS = (0.15, 0.4, 0.65, 0.85, 1.1)
EFFECT = 1.1

Tables = Mapping[str, pd.DataFrame]


def main(words: argparse.Namespace) -> int:
    """Check the options, measure, and print what was found.

    Raises:
        InfscaleError: bad input, or an endpoint that does not answer.
    """
    from infscale.analysis.tables import summary
    from infscale.experiment import sweep as experiment
    from infscale.experiment.design.grid import Grid
    from infscale.records import runs
    from infscale.vocabulary import OTHER

    slo_ms = milliseconds(words.slo)
    options = {name: _number(f"--{name}", getattr(words, name.replace("-", "_"))) for name in _NUMBERS}
    bodies = Bodies(
        {p: tuple(map(load_options.body_of, getattr(words, f"body_{p}"))) for p in PROTOCOLS},
        {p: load_options.headers_of(getattr(words, f"header_{p}")) for p in PROTOCOLS},
        {p: _path(p, getattr(words, p)) for p in PROTOCOLS},
    )
    grid = Grid(
        frameworks=(OTHER,),
        model=f"{words.rest} {words.grpc}",
        replicates=int(options["replicates"]),
        trial_s=options["seconds"],
        fractions=FRACTIONS,
        timeout_s=options["timeout"],
        sensitivity=False,
        most_per_s=options["max-rate"],
        profile="compare",
        experiment="compare",
    )
    start = partial(attached, words.rest, words.grpc, bodies)
    with start(OTHER, grid.model):
        print(grid.time_plan(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(words.out) if words.out else Path(scratch)
        folder = experiment.folder_for(grid, place, fresh=True)
        experiment.measure(grid, folder, start=start)
        tables = summary.summarise(runs.load_run(folder), slo_ms)
        print("\n".join(report(tables, slo_ms, grid.seconds() / grid.replicates)))
        if words.out:
            print(f"The run is in {folder}; infscale figures --run {folder} draws it.")
    return 0


_NUMBERS = ("replicates", "seconds", "timeout", "max-rate")


def _number(option: str, text: str) -> float:
    value = load_options.number(option, text, above=0)
    if option == "--replicates" and value != int(value):
        raise ConfigError(f"--replicates {text!r} is not a number of repeats; accepted: a whole number from 1")
    return value


def milliseconds(text: str) -> float:
    """A time such as ``50ms``, ``0.2s`` or ``800us`` in ms.

    Raises:
        ConfigError: something else.
    """
    found = re.fullmatch(r"([0-9.]+)\s*(us|µs|ms|s)", text.strip())
    value = load_options.number("--slo", found[1], above=0) if found else 0.0
    if not found:
        raise ConfigError(f"--slo {text!r} is not a time; accepted: such as 50ms, 0.2s or 800us")
    return value * {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def _path(protocol: str, url: str) -> str:
    from infscale.load.engine.job import parse

    target = parse(url)
    if target.scheme not in SCHEMES[protocol] or target.socket_path:
        accepted = " or ".join(f"{scheme}://host:port/path" for scheme in SCHEMES[protocol])
        raise ConfigError(f"--{protocol} {url!r} cannot be compared; accepted: {accepted}")
    return target.path


# ------------------------------------------------------------------------------------------ the endpoint


@dataclass(frozen=True)
class Bodies:
    """The user's own requests, as they are: bodies, headers and path by protocol."""

    bodies: Mapping[str, tuple[bytes, ...]]
    headers: Mapping[str, dict[str, str]]
    paths: Mapping[str, str]

    def payload(self, endpoint: Endpoint, protocol: str, encoding: str, batch: int) -> Payload:
        """The pool of one protocol; there is no encoding or batch to choose."""
        return Payload(
            protocol, "as given", self.paths[protocol], list(self.bodies[protocol]), _no_decoder, self.headers[protocol]
        )

    def answered(self, endpoint: Endpoint) -> bool:
        """Whether one request is answered well over each protocol."""
        return not any(self.fault(endpoint, protocol) for protocol in PROTOCOLS)

    def fault(self, endpoint: Endpoint, protocol: str) -> str:
        """What one request came to, empty if it succeeded."""
        from infscale.load.engine import run as engine

        url = f"{endpoint.scheme(protocol)}://{endpoint.address(protocol)}{self.paths[protocol]}"
        one = np.zeros(1, np.int64)
        result = engine.run(
            url,
            self.bodies[protocol][:1],
            [one],
            [one.astype(np.int32)],
            timeout_s=5,
            connections=1,
            headers=self.headers[protocol],
        )
        status = str(result.samples["status"].iloc[0])
        return "" if status == "ok" else f"{url}: {status} {result.stats.get('error') or ''}".rstrip()


def _no_decoder(body: bytes) -> Any:
    raise NotImplementedError("answers of an endpoint of one's own are not looked into")


@contextmanager
def attached(rest: str, grpc: str, bodies: Bodies, framework: str, model: str, **_: Any) -> Iterator[Endpoint]:
    """The user's service as an endpoint; one request has been answered over each protocol.

    Raises:
        DeploymentError: one was not; with what happened.
    """
    from infscale.load.engine.job import parse

    targets = {"rest": parse(rest), "grpc": parse(grpc)}
    endpoint = Endpoint(
        framework=framework,
        implementation="endpoint",
        version="unknown",
        label=f"{targets['rest'].authority}, {targets['grpc'].authority}",
        runtime="unknown",
        model="as given",
        rest=targets["rest"].authority,
        grpc=targets["grpc"].authority,
        own=bodies,
        tls=tuple(p for p, target in targets.items() if target.tls),
    )
    faults = [fault for protocol in PROTOCOLS if (fault := bodies.fault(endpoint, protocol))]
    if faults:
        raise DeploymentError(f"no good answer from {'; '.join(faults)}")
    yield endpoint


# -------------------------------------------------------------------------------------------- the answer


def report(tables: Tables, slo_ms: float, replicate_s: float) -> list[str]:
    """The verdict in a sentence first, then what it rests on, as lines."""
    from infscale.report.sentences import saturation, validity_finding
    from infscale.vocabulary import number

    ratios = tables["ratios"].query("metric == 'response_p95_ms'").sort_values("rate_per_s")
    lines = [verdict(tables, replicate_s), ""]
    for row in ratios.to_dict("records"):
        known = np.isfinite(row["ratio_low"])
        interval = f"[{number(row['ratio_low'])}, {number(row['ratio_high'])}]" if known else f"({row['note']})"
        lines.append(
            f"  λ = {number(row['rate_per_s'])}/s: p95 REST ÷ gRPC = {number(row['ratio'])} {interval}, "
            f"{row['replicates']} pairs"
        )
    for _, arm in tables["arms"].iterrows():
        name = arm["protocol"]
        points = tables["points"].query("protocol == @name")
        within = points[(points["verdict"] == "VALID") & (points["response_p95_ms"] <= slo_ms)]
        most = f"up to {number(within['rate_per_s'].max())}/s" if len(within) else "at no rate"
        cpu = points["engine_cpu_us_per_request"].median()
        lines.append(
            f"  {NAMES[name]}: λ* {saturation(arm)}; p95 within {slo_ms:g} ms {most}; "
            f"client CPU {number(cpu)} µs a request"
        )
    return [*lines, "  " + validity_finding(tables)]


def verdict(tables: Tables, replicate_s: float) -> str:
    """One sentence: which protocol is faster up to which rate, what happens above, or that it cannot be concluded."""
    ratios = tables["ratios"].query("metric == 'response_p95_ms'").sort_values("rate_per_s")
    decided = ratios[ratios["p_holm"] < 1 - 0.95]
    parts = [_faster(group) for _, group in decided.groupby("conclusion", sort=False)]
    return f"{'; '.join(parts) or _cannot(ratios, replicate_s)}; {_above(tables['arms'])}."


def _faster(group: pd.DataFrame) -> str:
    """The rates at which one protocol is faster; the factors are those of their intervals."""
    from infscale.vocabulary import number

    slower = str(group["conclusion"].iloc[0])
    quick = NAMES["grpc" if slower == "rest" else "rest"]
    ends = group[["ratio_low", "ratio_high"]].to_numpy()
    low, high = (ends.min(), ends.max()) if slower == "rest" else (1 / ends.max(), 1 / ends.min())
    rates = [number(rate) for rate in group["rate_per_s"]]
    where = f"at {rates[0]}/s" if len(rates) == 1 else f"at {len(rates)} rates from {rates[0]} to {rates[-1]}/s"
    return f"{quick} answers p95 {number(low)}–{number(high)}× faster {where}"


def _above(arms: pd.DataFrame) -> str:
    from infscale.report.sentences import saturation

    return ", ".join(f"λ* of {NAMES[arm['protocol']]} lies {saturation(arm)}" for _, arm in arms.iterrows())


def _cannot(ratios: pd.DataFrame, replicate_s: float) -> str:
    from infscale.analysis.power import replicates_needed
    from infscale.vocabulary import clock

    spread = ratios.loc[ratios["replicates"] >= 3, "spread"].median()
    which = "Cannot conclude which answers faster"
    if np.isnan(spread):
        return f"{which}: at no rate were both protocols VALID in three replicates or more, and SATURATED in none"
    needed = replicates_needed(EFFECT, float(spread))
    if needed >= 1000:
        return f"{which}: ratios differ by {spread:.0%} between replicates, too much for any number of them"
    return (
        f"{which}: to tell a difference of {EFFECT - 1:.0%} apart here needs {needed} replicates, "
        f"{clock(needed * replicate_s)}"
    )
