"""``infscale compare``: is a candidate worse than its reference? Two endpoints, or two stored runs."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from infscale.cli.load import bodies_of, headers_of, streaming_of
from infscale.cli.options import (
    Argument,
    Command,
    Duration,
    Milliseconds,
    Number,
    Percent,
    Whole,
    cluster_options,
    option,
)
from infscale.errors import ConfigError, DeploymentError, InfscaleError
from infscale.vocabulary import NAMES, OTHER

if TYPE_CHECKING:
    from infscale.cli.compare_report import Comparison
    from infscale.deployment.endpoint import Endpoint
    from infscale.experiment.design.design import Design
    from infscale.findings.finding import Sizes
    from infscale.payloads.encoders import Payload, Stream
    from infscale.records.runs import Run

SCHEMES = {"http": "rest", "https": "rest", "grpc": "grpc", "grpcs": "grpc"}
"""Schemes of the addresses that can be compared, and what each speaks."""

SIDES = ("reference", "candidate")
"""The two that are compared, as the ``model`` of their arms."""

CODES = {"not worse": 0, "worse": 1, "undecided": 3}
"""Exit codes by judgement; an error of any kind is 2 (:data:`infscale.cli.JUDGING`)."""

SHORT_S = 0.5
"""Length of a trial, s, where the budget does not hold the fewest lifetimes with trials of a second and a curve."""

# ------------------------------------------------------------------------------------------ the command


def _run(
    *,
    reference: str,
    candidate: str,
    at_most: float,
    at_most_load: float | None,
    junit: str,
    markdown: str,
    slo: float,
    data: str,
    json: bool,
    **others: Any,
) -> int:
    """Judge the candidate, print why, and return the exit code.

    Raises:
        InfscaleError: bad input, an endpoint that does not answer, or runs that cannot be compared.
    """
    from infscale.analysis.candidate.judgement import margins
    from infscale.cli import compare_report as reports
    from infscale.cli import printed

    files = {reports.junit: _out("--junit", junit), reports.markdown: _out("--markdown", markdown)}
    edges = margins(at_most, at_most_load)
    try:
        if "://" in reference and "://" in candidate:
            comparison = _endpoints(reference, candidate, edges, slo, data, **others)
        elif "://" in reference or "://" in candidate:
            raise ConfigError(
                f"{reference} and {candidate}: accepted: two addresses, or the folders of two stored runs"
            )
        else:
            comparison = _stored(reference, candidate, edges)
    except InfscaleError as error:
        for write, file in files.items():
            if file:
                write(file, str(error))
        raise
    if json:
        printed.emit(reports.record(comparison))
    else:
        print(reports.text(comparison))
    for write, file in files.items():
        if file:
            write(file, comparison)
    return CODES[comparison.judgement]


def _out(name: str, file: str) -> Path | None:
    """Return where a report goes; a minute of load must not end with a folder that is not there."""
    if not file:
        return None
    path = Path(file)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{name} {file!r} cannot be written")
    return path


def _stored(reference: str, candidate: str, edges: dict[str, float]) -> "Comparison":
    """Return what two stored runs say."""
    from infscale.analysis.candidate.stored import compared
    from infscale.cli import compare_report as reports
    from infscale.records.runs import load_run

    runs = load_run(reference), load_run(candidate)
    return reports.of_runs(*runs, compared(*runs, edges), edges)


def _endpoints(
    reference: str,
    candidate: str,
    edges: dict[str, float],
    slo: float,
    data: str,
    *,
    body: Sequence[str],
    body_reference: Sequence[str],
    body_candidate: Sequence[str],
    header: Sequence[str],
    header_reference: Sequence[str],
    header_candidate: Sequence[str],
    header_from: Sequence[str],
    budget: float,
    more: float | None,
    timeout: float,
    ca: str,
    max_rate: float,
    stream: bool,
    sse: bool,
    messages: int,
    cluster: str,
    workers: int | None,
) -> "Comparison":
    """Load two endpoints in turn, and return what that says."""
    from infscale.analysis.answers import UNDECIDED
    from infscale.analysis.candidate.judgement import judgements, overall
    from infscale.analysis.tables import tabulate
    from infscale.analysis.tables.contrasts import contrasts_table
    from infscale.analysis.tables.trials import trials_table
    from infscale.cli import compare_report as reports
    from infscale.experiment.design.time_plan import check_budget, time_plan
    from infscale.experiment.measure import measure, measure_in

    if body and protocol_of(reference) != protocol_of(candidate):
        raise ConfigError(
            "--body goes to both, of which one is REST and one gRPC; give --body-reference and --body-candidate"
        )
    if messages and not (stream or sse):
        raise ConfigError("--messages needs --stream or --sse")
    if sse and {protocol_of(url) for url in (reference, candidate)} == {"grpc"}:
        raise ConfigError("--sse is a way of REST, and both addresses are gRPC; accepted: --stream")
    common = {"timeout_s": max(Requests.timeout_s, timeout), "ca": ca}
    sides = {
        name: Requests.of(
            url,
            bodies_of(f"--body-{name}", own_body) or shared,
            headers_of([*header, *own_header], sources=header_from),
            stream=_stream(url, stream=stream, sse=sse, messages=messages),
            messages=messages,
            **common,
        )
        for shared in [bodies_of("--body", body) or (b"",)]
        for name, url, own_body, own_header in (
            (SIDES[0], reference, body_reference, header_reference),
            (SIDES[1], candidate, body_candidate, header_candidate),
        )
    }
    streams = messages if stream or sse else None
    design = design_of(reference, candidate, messages=streams, budget_s=budget, timeout_s=timeout, most_per_s=max_rate)
    folder = _to_continue(data, design) if more else None
    if folder is None:
        check_budget(design)
    if faults := [fault for one in sides.values() if (fault := one.fault())]:
        raise DeploymentError(f"no good answer from {'; '.join(faults)}")
    start = partial(attached, sides)

    def allocate(run: "Run", groups: Sequence[Sequence[int]]) -> list[int]:
        """Go on while the candidate is not judged: looks keep claims within their error however long that is."""
        said = judgements(run, contrasts_table(run.manifest, trials_table(run)), edges)
        return [0] if overall(said) == UNDECIDED else []

    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            print(time_plan(design), flush=True)
            run = measure(
                design,
                Path(data or scratch),
                fresh=True,
                start=start,
                allocate=allocate,
                cluster=cluster,
                workers=workers,
            )
        else:
            run = measure_in(folder, more_s=more or 0.0, start=start, allocate=allocate)
        comparison = reports.of_endpoints(run, tabulate(run, slo), names_of(reference, candidate), edges, slo)
    if data:
        print(f"The run is in {run.folder}; infscale figures --run {run.folder} draws it.")
    return comparison


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


def _stream(url: str, *, stream: bool, sse: bool, messages: int) -> "Stream | None":
    """Return how an endpoint's replies bring messages; None if no option says so. gRPC has one way, whatever REST's is.

    Raises:
        ConfigError: options that exclude each other, or do not fit the address.
    """
    from infscale.load.engine.job import parse
    from infscale.payloads.encoders import Stream
    from infscale.payloads.streams import as_it_is

    target = parse(url)
    only_grpc = target.grpc and (stream or sse)
    way = streaming_of(
        target,
        stream=stream or only_grpc,
        sse=sse and not only_grpc,
        lines=False,
        messages=messages,
        done="",
        gzip=False,
    )
    if way is None:
        return None
    return Stream(target.path, None, way.way, _no_encoder, as_it_is, way.errors, way.done, way.needs_done)


def design_of(reference: str, candidate: str, messages: int | None = None, **sizes: "Unpack[Sizes]") -> "Design":
    """Return the design of a comparison: both endpoints in turn, p95 at moderate load and λ*.

    Of streams, with as many ``messages`` (0: any number), the time to the first message and the gaps too.
    """
    import msgspec

    from infscale.experiment.design.arm import Arm
    from infscale.experiment.design.design import FIRST, GAP, USUAL, Contrast, Design
    from infscale.experiment.design.time_plan import least_s

    urls = dict(zip(SIDES, (reference, candidate), strict=True))
    design = Design(
        finding="compare",
        question=f"Is {candidate} worse than {reference}?",
        arms=tuple(Arm(protocol_of(url), framework=OTHER, model=side, messages=messages) for side, url in urls.items()),
        contrasts=tuple(Contrast(1, 0, metric) for metric in (*USUAL, *(() if messages is None else (FIRST, GAP)))),
        profile="compare",
        curve=2,
    )
    design = msgspec.structs.replace(design, **sizes)
    short = design.budget_s < least_s(design)
    return msgspec.structs.replace(design, trial_s=SHORT_S, curve=0) if short else design


def protocol_of(url: str) -> str:
    """Return what an address speaks, "rest" or "grpc".

    Raises:
        ConfigError: another scheme, or a Unix socket.
    """
    from infscale.load.engine.job import parse

    target = parse(url)
    if target.scheme not in SCHEMES or target.socket_path:
        accepted = " or ".join(f"{scheme}://host:port/path" for scheme in SCHEMES)
        raise ConfigError(f"{url!r} cannot be compared; accepted: {accepted}")
    return SCHEMES[target.scheme]


def names_of(reference: str, candidate: str) -> list[str]:
    """Return how sentences name the reference and the candidate: what each speaks, and where."""
    from infscale.load.engine.job import parse

    targets = [parse(url) for url in (reference, candidate)]
    short = [f"{NAMES[SCHEMES[target.scheme]]} at {target.authority}" for target in targets]
    long = [f"{text}{target.path}" for text, target in zip(short, targets, strict=True)]
    shown = long if short[0] == short[1] and long[0] != long[1] else short
    return [f"the {side} ({text})" for side, text in zip(SIDES, shown, strict=True)]


# ----------------------------------------------------------------------------------------- the endpoints


@dataclass(frozen=True)
class Requests:
    """The user's own requests to one endpoint, sent unchanged.

    The first one, before the measurement, may take ``timeout_s`` seconds. ``ca`` is the file of the certificates that
    are trusted; "" for the system's. ``stream`` says how replies bring ``messages`` (0: any number); None for
    single ones.
    """

    url: str
    protocol: str
    path: str
    bodies: tuple[bytes, ...]
    headers: Mapping[str, str]
    timeout_s: float = 5.0
    ca: str = ""
    stream: "Stream | None" = None
    messages: int = 0

    @classmethod
    def of(cls, url: str, bodies: tuple[bytes, ...], headers: Mapping[str, str], **others: Any) -> "Requests":
        """Return the requests to a URL."""
        from infscale.load.engine.job import parse

        return cls(url, protocol_of(url), parse(url).path, bodies, headers, **others)

    def payload(self, endpoint: "Endpoint", protocol: str, encoding: str, batch: int) -> "Payload":
        """Return the pool; ``encoding`` and ``batch`` are the user's, whatever is asked for."""
        from infscale.payloads.encoders import Payload

        return Payload(
            self.protocol,
            "as given",
            self.path,
            list(self.bodies),
            _no_decoder,
            dict(self.headers),
            stream=self.stream,
            messages=self.messages,
        )

    def answered(self, endpoint: "Endpoint") -> bool:
        """Return whether a request succeeds."""
        return not self.fault()

    def fault(self) -> str:
        """Send one request and return why it failed; "" if it succeeded."""
        import numpy as np

        from infscale.experiment.trial import streaming
        from infscale.load.engine import run as engine

        one = np.zeros(1, np.int64)
        result = engine.run(
            self.url,
            self.bodies[:1],
            [one],
            [one.astype(np.int32)],
            timeout_s=self.timeout_s,
            connections=1,
            headers=self.headers,
            ca=self.ca,
            streaming=streaming(self.stream, self.messages),
        )
        status = str(result.samples["status"].iloc[0])
        why = next((reason.text for reason in result.generator.reasons), result.generator.error)
        return "" if status == "ok" else f"{self.url}: {status} {why}".rstrip()


def _no_encoder(model: str, plan: object) -> bytes:
    raise NotImplementedError("the requests of a service of one's own are given")


def _no_decoder(body: bytes) -> Any:
    raise NotImplementedError("the responses of a service of one's own are not decoded")


@contextmanager
def attached(sides: Mapping[str, Requests], framework: str, model: str, **_: object) -> "Iterator[Endpoint]":
    """Yield one of the user's endpoints, after a request to it has succeeded.

    Args:
        sides: the requests to each of :data:`SIDES`.
        framework: of the arm.
        model: which side.

    Raises:
        DeploymentError: the request failed; with the reason.
    """
    from infscale.deployment.endpoint import Endpoint
    from infscale.load.engine.job import parse

    requests = sides[model]
    target = parse(requests.url)
    if fault := requests.fault():
        raise DeploymentError(f"no good answer from {fault}")
    yield Endpoint(
        framework=framework,
        implementation=model,
        version="unknown",
        label=f"{NAMES[requests.protocol]} at {target.authority}",
        runtime="unknown",
        model=model,
        rest=target.authority if requests.protocol == "rest" else "",
        grpc=target.authority if requests.protocol == "grpc" else "",
        own=requests,
        tls=(requests.protocol,) if target.tls else (),
        ca=requests.ca,
    )


# ------------------------------------------------------------------------------------------ the options

REQUESTS, STREAMS, JUDGEMENT = "Requests", "Streams", "Judgement"
MEASUREMENT, OUTPUT = "Measurement of two endpoints", "Output"

NOTES = """\
REFERENCE and CANDIDATE are two addresses (http, https, grpc or grpcs, each with its path), which are loaded in turn, \
or the folders of two complete runs of one design on one machine.

The candidate is worse where the 95 % interval of its p95 response time at moderate load, or of its λ*, lies wholly \
beyond the margin; not worse where both end within it; else undecided. With --stream or --sse the p95 time from the \
schedule to the first message and the p99 of the gaps between messages are judged too, by the margin of the p95. \
Of candidates that are as good as their references, fewer than one in twenty are called worse.
"""

command = Command(
    "compare",
    _run,
    [
        Argument(["reference"], help="The old one: an address, or the folder of a run."),
        Argument(["candidate"], help="The new one."),
        option("--body", section=REQUESTS, note="Of both."),
        option("--body-reference", section=REQUESTS),
        option("--body-candidate", section=REQUESTS),
        option("--header", section=REQUESTS),
        option("--header-reference", section=REQUESTS),
        option("--header-candidate", section=REQUESTS),
        option("--header-from", section=REQUESTS, note="Of both."),
        option("--ca", section=REQUESTS, default=""),
        option("--stream", section=STREAMS),
        option("--sse", section=STREAMS, note="A gRPC side streams its messages."),
        option("--messages", section=STREAMS, default="0", type=Whole(0)),
        option("--at-most", section=JUDGEMENT, default="5%", type=Percent()),
        option("--at-most-load", section=JUDGEMENT, type=Percent(), note="Default: 20%, or --at-most if that is more."),
        option("--budget", section=MEASUREMENT, default="3m", type=Duration()),
        option("--more", section=MEASUREMENT, type=Duration(), note="Needs --data."),
        option("--timeout", section=MEASUREMENT, default="2", type=Number(above=0)),
        option("--max-rate", section=MEASUREMENT, default="30000", type=Number(above=0)),
        option("--slo", section=MEASUREMENT, default="100ms", type=Milliseconds(), note="Of the p95; judges nothing."),
        *cluster_options(),
        option("--json", section=OUTPUT),
        option("--junit", section=OUTPUT, default=""),
        option("--markdown", section=OUTPUT, default=""),
        option("--data", section=OUTPUT, default="", note="Default: the run is thrown away."),
    ],
    help="Say whether a candidate is worse than its reference: two versions, frameworks or protocols of a service. "
    "Both are loaded beyond what they can take, for about three minutes: do not point it at what others rely on.",
    notes=NOTES,
    exits={
        CODES["not worse"]: "The candidate is not worse.",
        CODES["worse"]: "It is worse.",
        2: "An error of any kind, also in the options.",
        CODES["undecided"]: "Undecided.",
    },
    examples=(
        "infscale compare http://127.0.0.1:8080/predict http://127.0.0.1:8081/predict --body row.json --at-most 5%",
        "infscale compare grpc://127.0.0.1:8500/package.Service/Method http://127.0.0.1:8080/predict \\\n"
        "      --body-reference row.bin --body-candidate row.json --junit compare.xml",
        "infscale compare https://127.0.0.1:8000/v1/completions https://127.0.0.1:8001/v1/completions --sse \\\n"
        "      --body chat.json --timeout 60",
        "infscale compare data/raw/2026-11-26T165910-quick data/raw/2026-11-27T091532-quick",
    ),
)
