"""``infscale compare``: REST or gRPC, for a service of one's own: a search, a short paired grid, and a sentence."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from infscale.cli.load import body_of, headers_of
from infscale.cli.options import Command, Milliseconds, Number, Whole, option
from infscale.errors import ConfigError, DeploymentError
from infscale.vocabulary import CANNOT, NAMES, OTHER, PROTOCOLS, clock, number

if TYPE_CHECKING:
    import pandas as pd

    from infscale.analysis.tables import Tables
    from infscale.deployment.endpoint import Endpoint
    from infscale.experiment.design.design import Design
    from infscale.findings.finding import Sizes
    from infscale.payloads.encoders import Payload


SCHEMES = {"rest": ("http", "https"), "grpc": ("grpc", "grpcs")}
"""Schemes of the addresses that can be compared, by protocol."""
FRACTIONS = (0.15, 0.4, 0.65, 0.85, 1.1)
"""Rates of the grid, as shares of the larger saturation rate of the two protocols."""
EFFECT = 1.1
"""Ratio of two p95 response times; the number of replicates that would find it is reported."""


# ------------------------------------------------------------------------------------------ the command


def _run(
    *,
    rest: str,
    grpc: str,
    body_rest: Sequence[str],
    body_grpc: Sequence[str],
    header_rest: Sequence[str],
    header_grpc: Sequence[str],
    slo: float,
    replicates: int,
    duration: float,
    timeout: float,
    max_rate: float,
    data: str,
) -> None:
    """Check the options, measure, and print the comparison.

    Raises:
        InfscaleError: bad input, or an endpoint that does not answer.
    """
    from infscale.analysis.tables import tabulate
    from infscale.experiment.design.time_plan import seconds, time_plan
    from infscale.experiment.measure import measure

    requests = Requests(
        bodies={"rest": tuple(map(body_of, body_rest)), "grpc": tuple(map(body_of, body_grpc))},
        headers={"rest": headers_of(header_rest), "grpc": headers_of(header_grpc)},
        paths={"rest": _path("rest", rest), "grpc": _path("grpc", grpc)},
    )
    design = design_of(rest, grpc, replicates=replicates, trial_s=duration, timeout_s=timeout, most_per_s=max_rate)
    start = partial(attached, rest, grpc, requests)
    with start(OTHER, ""):
        print(time_plan(design), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = measure(design, Path(data or scratch), fresh=True, start=start)
        print("\n".join(report(tabulate(run, slo), slo, seconds(design) / replicates)))
        if data:
            print(f"The run is in {run.folder}; infscale figures --run {run.folder} draws it.")


def design_of(rest: str, grpc: str, **sizes: "Unpack[Sizes]") -> "Design":
    """Return the design of a comparison: both protocols at shares of the larger saturation rate."""
    import msgspec

    from infscale.experiment.design.arm import Arm
    from infscale.experiment.design.design import SWEEP, Contrast, Design

    design = Design(
        finding="compare",
        question=f"Which answers faster, {rest} or {grpc}, and up to which arrival rate?",
        arms=tuple(Arm(protocol, framework=OTHER, model="as given") for protocol in PROTOCOLS),
        contrasts=(Contrast(0, 1),),
        rates=SWEEP,
        profile="compare",
        fractions=FRACTIONS,
    )
    return msgspec.structs.replace(design, **sizes)


def _path(protocol: str, url: str) -> str:
    from infscale.load.engine.job import parse

    target = parse(url)
    if target.scheme not in SCHEMES[protocol] or target.socket_path:
        accepted = " or ".join(f"{scheme}://host:port/path" for scheme in SCHEMES[protocol])
        raise ConfigError(f"--{protocol} {url!r} cannot be compared; accepted: {accepted}")
    return target.path


# ------------------------------------------------------------------------------------------ the endpoint


@dataclass(frozen=True)
class Requests:
    """The user's own requests, sent unchanged: bodies, headers and path by protocol."""

    bodies: Mapping[str, tuple[bytes, ...]]
    headers: Mapping[str, dict[str, str]]
    paths: Mapping[str, str]

    def payload(self, endpoint: "Endpoint", protocol: str, encoding: str, batch: int) -> "Payload":
        """Return the pool of one protocol; ``encoding`` and ``batch`` are the user's, whatever is asked for."""
        from infscale.payloads.encoders import Payload

        bodies, headers = list(self.bodies[protocol]), self.headers[protocol]
        return Payload(protocol, "as given", self.paths[protocol], bodies, _no_decoder, headers)

    def answered(self, endpoint: "Endpoint") -> bool:
        """Return whether a request succeeds over each protocol."""
        return not any(self.fault(endpoint, protocol) for protocol in PROTOCOLS)

    def fault(self, endpoint: "Endpoint", protocol: str) -> str:
        """Send one request and return why it failed; "" if it succeeded."""
        import numpy as np

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
        return "" if status == "ok" else f"{url}: {status} {result.generator.error}".rstrip()


def _no_decoder(body: bytes) -> Any:
    raise NotImplementedError("the responses of a service of one's own are not decoded")


@contextmanager
def attached(rest: str, grpc: str, requests: Requests, framework: str, model: str, **_: object) -> "Iterator[Endpoint]":
    """Yield the user's service as an endpoint, after one request over each protocol has succeeded.

    Raises:
        DeploymentError: a request failed; with the reason.
    """
    from infscale.deployment.endpoint import Endpoint
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
        own=requests,
        tls=tuple(p for p, target in targets.items() if target.tls),
    )
    faults = [fault for protocol in PROTOCOLS if (fault := requests.fault(endpoint, protocol))]
    if faults:
        raise DeploymentError(f"no good answer from {'; '.join(faults)}")
    yield endpoint


# -------------------------------------------------------------------------------------------- the answer


def report(tables: "Tables", slo_ms: float, replicate_s: float) -> list[str]:
    """Return the answer as lines: the verdict in a sentence, then the numbers that it rests on.

    Args:
        tables: of the run.
        slo_ms: limit of the p95 response time, ms.
        replicate_s: how long a replicate takes, s.
    """
    import numpy as np

    from infscale.report.limits import validity
    from infscale.report.wording import saturation_text

    lines = [verdict(tables, replicate_s), ""]
    for row in tables.contrasts.sort_values("rate_per_s").to_dict("records"):
        known = np.isfinite(row["ratio_low"])
        interval = f"[{number(row['ratio_low'])}, {number(row['ratio_high'])}]" if known else f"({row['note']})"
        lines.append(
            f"  λ = {number(row['rate_per_s'])}/s: p95 REST ÷ gRPC = {number(row['ratio'])} {interval}, "
            f"{row['replicates']} pairs"
        )
    for _, arm in tables.arms.iterrows():
        points = tables.points[tables.points["arm"] == arm["arm"]]
        within = points[(points["verdict"] == "VALID") & (points["response_p95_ms"] <= slo_ms)]
        most = f"up to {number(within['rate_per_s'].max())}/s" if len(within) else "at no rate"
        cpu = points["engine_cpu_us_per_request"].median()
        lines.append(
            f"  {NAMES[arm['protocol']]}: λ* {saturation_text(arm)}; p95 within {slo_ms:g} ms {most}; "
            f"client CPU {number(cpu)} µs a request"
        )
    return [*lines, "  " + validity(tables)]


def verdict(tables: "Tables", replicate_s: float) -> str:
    """Return one sentence: which protocol answers faster at which rates, or that none can be concluded, and each λ*."""
    ratios = tables.contrasts.sort_values("rate_per_s")
    decided = ratios[ratios["conclusion"] != CANNOT]
    parts = [_faster(group) for _, group in decided.groupby("conclusion", sort=False)]
    return f"{'; '.join(parts) or _cannot(ratios, replicate_s)}; {_above(tables.arms)}."


def _faster(group: "pd.DataFrame") -> str:
    """Return at which rates a protocol is faster, and by which factors: the outermost ends of the intervals."""
    slower = group["conclusion"].iloc[0] == "slower"  # the arm is REST, its reference gRPC
    ends = group[["ratio_low", "ratio_high"]].to_numpy()
    low, high = (ends.min(), ends.max()) if slower else (1 / ends.max(), 1 / ends.min())
    rates = [number(rate) for rate in group["rate_per_s"]]
    where = f"at {rates[0]}" if len(rates) == 1 else f"at {len(rates)} rates from {rates[0]} to {rates[-1]}"
    slow, fast = (NAMES["rest"], NAMES["grpc"]) if slower else (NAMES["grpc"], NAMES["rest"])
    times = f"{number(low)} to {number(high)} times that of {fast}"
    return f"{fast} answers faster: the p95 response time of {slow} is {times} {where} requests/s"


def _above(arms: "pd.DataFrame") -> str:
    from infscale.report.wording import saturation_text

    return ", ".join(f"λ* of {NAMES[arm['protocol']]} {saturation_text(arm)}" for _, arm in arms.iterrows())


def _cannot(ratios: "pd.DataFrame", replicate_s: float) -> str:
    import numpy as np

    from infscale.analysis.intervals import MIN_REPLICATES
    from infscale.analysis.power import replicates_needed

    spread = ratios.loc[ratios["replicates"] >= MIN_REPLICATES, "spread"].median()
    cannot = "Cannot conclude which protocol answers faster"
    if np.isnan(spread):
        return (
            f"{cannot}: there is no arrival rate at which both were VALID in at least {MIN_REPLICATES} replicates and "
            "never SATURATED"
        )
    needed = replicates_needed(EFFECT, float(spread))
    if needed >= 1000:
        return (
            f"{cannot}: the ratio differs by {100 * spread:.0f} % between replicates, too much: not even 1,000 "
            f"replicates would show a difference of {100 * (EFFECT - 1):.0f} %"
        )
    return (
        f"{cannot}: finding a difference of {100 * (EFFECT - 1):.0f} % here takes {needed} replicates "
        f"(about {clock(needed * replicate_s)})"
    )


# ------------------------------------------------------------------------------------------ the options

ENDPOINTS, MEASUREMENT = "Endpoints", "Measurement"

command = Command(
    "compare",
    _run,
    [
        option("--rest", section=ENDPOINTS, required=True),
        option("--grpc", section=ENDPOINTS, required=True),
        option("--body-rest", section=ENDPOINTS, required=True),
        option("--body-grpc", section=ENDPOINTS, required=True),
        option("--header-rest", section=ENDPOINTS),
        option("--header-grpc", section=ENDPOINTS),
        option("--slo", section=MEASUREMENT, default="100ms", type=Milliseconds(), note="Of the p95."),
        option("--replicates", section=MEASUREMENT, default="5", type=Whole(1)),
        option("--duration", section=MEASUREMENT, default="3", type=Number(above=0), note="Of each trial."),
        option("--timeout", section=MEASUREMENT, default="2", type=Number(above=0)),
        option("--max-rate", section=MEASUREMENT, default="5000", type=Number(above=0)),
        option("--data", section="Folders", default="", note="Default: the run is thrown away."),
    ],
    help="Load two addresses of one running service beyond what they can take, for about five minutes, and say which "
    "protocol answers faster. Do not point it at what others rely on.",
    examples=(
        "infscale compare --rest http://127.0.0.1:8080/predict --body-rest row.json \\\n"
        "      --grpc grpc://127.0.0.1:8500/package.Service/Method --body-grpc row.bin --slo 50ms",
    ),
)
