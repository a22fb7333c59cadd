"""``infscale compare``: REST or gRPC, for a service of one's own: paired trials, searches for λ*, and two sentences."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from infscale.cli.load import bodies_of, headers_of
from infscale.cli.options import Command, Duration, Milliseconds, Number, option
from infscale.errors import ConfigError, DeploymentError
from infscale.vocabulary import NAMES, OTHER, PROTOCOLS, number

if TYPE_CHECKING:
    from infscale.analysis.tables import Tables
    from infscale.deployment.endpoint import Endpoint
    from infscale.experiment.design.design import Design
    from infscale.findings.finding import Sizes
    from infscale.payloads.encoders import Payload
    from infscale.records.runs import Run


SCHEMES = {"rest": ("http", "https"), "grpc": ("grpc", "grpcs")}
"""Schemes of the addresses that can be compared, by protocol."""

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
    budget: float,
    more: float | None,
    timeout: float,
    ca: str,
    max_rate: float,
    data: str,
) -> None:
    """Check the options, measure, and print the comparison.

    Raises:
        InfscaleError: bad input, or an endpoint that does not answer.
    """
    from infscale.analysis.allocation import allocate
    from infscale.analysis.tables import tabulate
    from infscale.experiment.design.time_plan import check_budget, time_plan
    from infscale.experiment.measure import measure, measure_in

    requests = Requests(
        bodies={"rest": bodies_of("--body-rest", body_rest), "grpc": bodies_of("--body-grpc", body_grpc)},
        headers={"rest": headers_of(header_rest), "grpc": headers_of(header_grpc)},
        paths={"rest": _path("rest", rest), "grpc": _path("grpc", grpc)},
        timeout_s=max(Requests.timeout_s, timeout),
        ca=ca,
    )
    design = design_of(rest, grpc, budget_s=budget, timeout_s=timeout, most_per_s=max_rate)
    folder = _to_continue(data, design) if more else None
    if folder is None:
        check_budget(design)
    start = partial(attached, rest, grpc, requests)
    with start(OTHER, ""):
        if folder is None:
            print(time_plan(design), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            run = measure(design, Path(data or scratch), fresh=True, start=start, allocate=allocate)
        else:
            run = measure_in(folder, more_s=more or 0.0, start=start, allocate=allocate)
        print("\n".join([*report(tabulate(run, slo), slo), *failures(run)]))
        if data:
            print(f"The run is in {run.folder}; infscale figures --run {run.folder} draws it.")


def _to_continue(data: str, design: "Design") -> Path:
    """Return the folder of the newest complete comparison in ``data``, to which time is added.

    Raises:
        ConfigError: there is none, or it compares other addresses.
        DataError: it was measured by another machine or other code.
    """
    from infscale.experiment.folder import check_same
    from infscale.records.manifest import RunManifest, read
    from infscale.records.runs import newest

    if not data:
        raise ConfigError("--more needs --data, the folder of the comparison that time is added to")
    folder = newest(Path(data), design.finding)
    if folder is None:
        raise ConfigError(f"--more: there is no complete comparison in {data}")
    manifest = read(folder / "run.json", RunManifest)
    if manifest.design.question != design.question:
        raise ConfigError(f"--more: {folder} compares other addresses; give those that it was measured with")
    check_same(manifest)
    return folder


def design_of(rest: str, grpc: str, **sizes: "Unpack[Sizes]") -> "Design":
    """Return the design of a comparison: both protocols in turn, p95 at moderate load and λ*."""
    import msgspec

    from infscale.experiment.design.arm import Arm
    from infscale.experiment.design.design import USUAL, Contrast, Design

    design = Design(
        finding="compare",
        question=f"Which answers faster, {rest} or {grpc}, and up to which arrival rate?",
        arms=tuple(Arm(protocol, framework=OTHER, model="as given") for protocol in PROTOCOLS),
        contrasts=tuple(Contrast(0, 1, metric) for metric in USUAL),
        profile="compare",
        curve=2,
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
    """The user's own requests, sent unchanged: bodies, headers and path by protocol.

    The first one of each, before the measurement, may take ``timeout_s`` seconds. ``ca`` is the file of the
    certificates that vouch for the service; "" for the system's.
    """

    bodies: Mapping[str, tuple[bytes, ...]]
    headers: Mapping[str, dict[str, str]]
    paths: Mapping[str, str]
    timeout_s: float = 5.0
    ca: str = ""

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
            timeout_s=self.timeout_s,
            connections=1,
            headers=self.headers[protocol],
            ca=self.ca,
        )
        status = str(result.samples["status"].iloc[0])
        why = next((reason.text for reason in result.generator.reasons), result.generator.error)
        return "" if status == "ok" else f"{url}: {status} {why}".rstrip()


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
        ca=requests.ca,
    )
    faults = [fault for protocol in PROTOCOLS if (fault := requests.fault(endpoint, protocol))]
    if faults:
        raise DeploymentError(f"no good answer from {'; '.join(faults)}")
    yield endpoint


# -------------------------------------------------------------------------------------------- the answer


def report(tables: "Tables", slo_ms: float) -> list[str]:
    """Return the answer as lines: a sentence for each contrast, then the numbers that they rest on.

    Args:
        tables: of the run.
        slo_ms: limit of the p95 response time, ms.
    """
    import numpy as np

    from infscale.report.limits import validity
    from infscale.report.wording import contrast_text, saturation_text

    names = [NAMES[protocol] for protocol in PROTOCOLS]
    sentences = [contrast_text(row, *names) for _, row in tables.contrasts.iterrows()]
    lines = [f"{text[0].upper()}{text[1:]}." for text in sentences] + [""]
    for row in tables.ratios.sort_values("rate_per_s").to_dict("records"):
        known = np.isfinite(row["ratio_low"])
        interval = f"[{number(row['ratio_low'])}, {number(row['ratio_high'])}]" if known else "(no interval)"
        value = f"{number(row['ratio'])} {interval}" if np.isfinite(row["ratio"]) else "unknown: one did not keep up"
        lines.append(
            f"  λ = {number(row['rate_per_s'])} requests/s: p95 REST ÷ gRPC {value}, {row['lifetimes']} lifetimes"
        )
    for _, arm in tables.arms.iterrows():
        points = tables.points[tables.points["arm"] == arm["arm"]]
        within = points[(points["verdict"] == "VALID") & (points["response_p95_ms"] <= slo_ms)]
        most = f"up to {number(within['rate_per_s'].max())} requests/s" if len(within) else "at no rate that was tried"
        cpu = points["engine_cpu_us_per_request"].median()
        lines.append(
            f"  {NAMES[arm['protocol']]}: λ* {saturation_text(arm)}; p95 within {slo_ms:g} ms {most}; "
            f"client CPU {number(cpu)} µs a request"
        )
    return [*lines, "  " + validity(tables)]


def failures(run: "Run") -> list[str]:
    """Return why requests failed, the most frequent reasons of each protocol, as lines."""
    from infscale.cli.load_report import SHOWN
    from infscale.records.manifest import commonest

    lines = []
    for protocol in PROTOCOLS:
        trials = [trial.manifest for trial in run.trials if trial.manifest.arm.protocol == protocol]
        reasons = commonest(reason for trial in trials for reason in trial.generator.reasons)
        lines += [f"  {NAMES[protocol]}: {r.requests:,} × {r.status}: {r.text}" for r in reasons[:SHOWN]]
    return ["  Failed requests, at any rate:", *lines] if lines else []


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
        option("--ca", section=ENDPOINTS, default=""),
        option("--slo", section=MEASUREMENT, default="100ms", type=Milliseconds(), note="Of the p95."),
        option("--budget", section=MEASUREMENT, default="4m", type=Duration()),
        option("--more", section=MEASUREMENT, type=Duration(), note="Needs --data."),
        option("--timeout", section=MEASUREMENT, default="2", type=Number(above=0)),
        option("--max-rate", section=MEASUREMENT, default="30000", type=Number(above=0)),
        option("--data", section="Folders", default="", note="Default: the run is thrown away."),
    ],
    help="Load two addresses of one running service beyond what they can take, for about four minutes, and say which "
    "protocol answers faster. Do not point it at what others rely on.",
    examples=(
        "infscale compare --rest http://127.0.0.1:8080/predict --body-rest row.json \\\n"
        "      --grpc grpc://127.0.0.1:8500/package.Service/Method --body-grpc row.bin --slo 50ms",
    ),
)
