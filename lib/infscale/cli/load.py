"""``infscale load``: the load engine alone, against any URL: checks the options, sends the load, prints the result."""

import contextlib
import dataclasses
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infscale.cli.options import Argument, Command, Number, Option, Whole, cluster_options, option, parse_number
from infscale.errors import SET_BY_CLIENTS, ConfigError, DeploymentError, check_header, one_of

if TYPE_CHECKING:
    from infscale.cli.load_report import Summary
    from infscale.load.cluster.connect import Cluster
    from infscale.load.engine.interfaces import Streaming
    from infscale.load.engine.job import Target
    from infscale.load.single import Load, Outcome

MEASURED, GENERATOR_FAILED, NOTHING_SUCCEEDED, NOT_STORED, INTERRUPTED = 0, 3, 4, 5, 130
"""Exit codes; for 1 and 2 see :func:`infscale.cli.main`."""

CONNECTIONS = {"http": 256, "https": 256}
"""Most connections at a time, by scheme, unless an option says otherwise."""
CONNECTIONS_HTTP2 = 8
"""The same for every other scheme: HTTP/2 carries many requests on each connection."""

NOTES = """\
URL: http, https (HTTP/1.1), h2c, h2 (HTTP/2), grpc or grpcs, as in http://host:8080/path and \
grpc://host:8500/package.Service/Method, or over a Unix socket: http://unix:/run/server.sock:/path.

A trace's column of times is the first of arrival_ns, arrival_s, scheduled_ns (as in --out), timestamp_ns and \
timestamp_s, unless --trace-column names another.

Streams: --stream, --sse or --lines. A message is a gRPC message, an event, a line or a chunk; the first one is timed \
from the schedule, and from the send. An error within a stream, a stream cut short, and one without messages or with \
another number than --messages have the statuses stream_error, stream_cut, stream_empty, stream_few and stream_many. \
With --sse an event [DONE] ends a stream; at a path that ends in /completions it must. With --out, the times of \
messages are beside the rows, in FILE-chunks.parquet.

A reply other than 2xx is a failure with the status http_CODE: redirects are not followed, and 304 is no success.
"""

EXITS = {
    MEASURED: "Measured: VALID or UNSTEADY, or SATURATED, a finding about the server.",
    1: "Bad input, or the engine failed.",
    GENERATOR_FAILED: "INVALID: the generator or its host failed.",
    NOTHING_SUCCEEDED: "No request succeeded.",
    NOT_STORED: "Measured, but --out could not be written; the rows are in a temporary folder, which is named.",
    INTERRUPTED: "Ended by Ctrl-C, SIGTERM or SIGHUP; the rows are kept.",
}
"""Exit codes and what they mean."""


# ------------------------------------------------------------------------------------------------ the command


def _run(*, json: bool, cluster: str, workers: int | None, **options: Any) -> int:
    """Send the load and print what came of it; returns the exit code.

    Raises:
        InfscaleError: bad input, or the engine failed.
    """
    load = checked(**options)
    from infscale.experiment.live.view import viewing
    from infscale.load import single

    try:
        with contextlib.ExitStack() as stack:
            load, reached = on_cluster(load, cluster, workers, stack)
            plan = single.schedules(load)
            with _ended_by_signals(), viewing() as view, view.load("", plan.duration_s) as progress:
                outcome = single.run(load, plan, progress, reached)
    except KeyboardInterrupt:
        print("infscale: interrupted before the first request", file=sys.stderr)
        return INTERRUPTED
    if (workers_lost := outcome.manifest.generator.workers) and all(one.lost for one in workers_lost):
        raise DeploymentError(f"every worker of {cluster} was lost in the load: {workers_lost[0].lost}")
    from infscale.cli import load_report, printed  # not before the load: importing SciPy takes a second of the CPU

    summary = load_report.summarise(outcome.samples, outcome.manifest, outcome.chunks, outcome.tokens)
    fault = _store(load.out, outcome, summary) if load.out else ""
    code, note = (NOT_STORED, fault) if fault else _exit_code(summary, outcome)
    try:
        if json:
            printed.emit(load_report.record(summary))
        else:
            print(load_report.as_text(summary), flush=True)
        if note:
            print(f"infscale: {note}", file=sys.stderr, flush=True)
    except OSError:  # the terminal is gone, or a pipe's reader: what was measured has its exit code all the same
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    return code


def on_cluster(
    load: "Load", text: str, workers: int | None, stack: contextlib.ExitStack
) -> "tuple[Load, Cluster | None]":
    """Return a load whose shards are those of all workers, and the workers, which end with ``stack``.

    Without ``text`` (of ``--cluster``) the load is returned as it is.

    Raises:
        InfscaleError: the cluster cannot be used; see :func:`infscale.load.cluster.connect.connected`.
    """
    if not text:
        if workers:
            raise ConfigError(f"--workers {workers} needs --cluster, such as --cluster local")
        return load, None
    from infscale.load.cluster.connect import connected
    from infscale.load.cluster.spec import parse

    reached = stack.enter_context(connected(parse(text, workers), engines=load.shards))
    if load.connections < reached.shards:
        each = f"{reached.shards} engine processes; accepted: {reached.shards} or more"
        raise ConfigError(f"--connections {load.connections} cannot be shared by {each}")
    return dataclasses.replace(load, shards=reached.shards), reached


def _store(file: Path, outcome: "Outcome", summary: "Summary") -> str:
    """Store rows and manifest, and return what went wrong; then they are in the folder of temporary files, if possible.

    A load of an hour is not thrown away because a disk is full.
    """
    from infscale.load import single

    faults = []
    for place in (file, Path(tempfile.gettempdir()) / f"infscale-{os.getpid()}-{file.name}"):
        try:
            single.store(place, outcome, summary)
        except OSError as error:
            faults.append(f"{place} cannot be written: {error.strerror or error}")
        else:
            return f"{faults[0]}; the rows are in {place}" if faults else ""
    return f"{'; '.join(faults)}; the rows are lost"


def _exit_code(summary: "Summary", outcome: "Outcome") -> tuple[int, str]:
    """Return the exit code of a load, and what to say of it; "" for nothing."""
    if outcome.interrupted:
        return INTERRUPTED, "interrupted; requests not yet sent have the status 'unsent'"
    if not summary["succeeded"]:
        kinds = ", ".join(f"{n} {kind}" for kind, n in summary["errors"].items())
        why = next((reason["text"] for reason in summary["reasons"]), summary["connection_error"])
        because = f" ({why})" if why else ""
        return NOTHING_SUCCEEDED, f"no request to {summary['url']} succeeded: {kinds}{because}"
    return GENERATOR_FAILED if summary["verdict"] == "INVALID" else MEASURED, ""


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM (``timeout``, ``kill``) and SIGHUP (a terminal that is gone) keep the rows as Ctrl-C does, and SIGINT
    where a shell's ``&`` masks it. ``nohup``, which masks SIGHUP, is heeded.
    """
    ending = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        ending.append(signal.SIGHUP)
    before = {one: signal.signal(one, signal.default_int_handler) for one in ending}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


# ------------------------------------------------------------------------------------------------ the options


def checked(
    *,
    url: str,
    rate: str,
    duration: float | None,
    body: Sequence[str],
    header: Sequence[str],
    arrivals: str,
    cv: float | None,
    trace: str,
    trace_column: str,
    connections: int | None,
    streams: int,
    shards: int,
    timeout: float,
    warmup: float,
    seed: int,
    no_keep_alive: bool,
    gzip: bool,
    ca: str,
    insecure: bool,
    cert: str,
    key: str,
    order: str,
    method: str,
    authority: str,
    connect_to: str,
    out: str,
    header_from: Sequence[str] = (),
    stream: bool = False,
    sse: bool = False,
    lines: bool = False,
    messages: int = 0,
    done: str = "",
) -> "Load":
    """Check the options against each other, and read the bodies; arguments are named after the options.

    Raises:
        ConfigError: naming the option, its value and what is accepted.
    """
    from infscale.load.engine.job import parse
    from infscale.load.schedule import ORDERS, PROCESSES
    from infscale.load.single import Load

    target = parse(url)
    if connect_to:
        parse(f"{target.scheme}://{connect_to}{target.path}")
    process = one_of("--arrivals", arrivals, PROCESSES)
    if (trace != "") != (process == "trace"):
        raise ConfigError("--trace FILE is required with --arrivals trace and not allowed otherwise")
    if trace_column and process != "trace":
        raise ConfigError("--trace-column NAME is allowed only with --arrivals trace")
    if (cv is not None) != (process == "gamma"):
        raise ConfigError("--cv CV is required with --arrivals gamma and not allowed otherwise")
    if connections is None:
        connections = max(CONNECTIONS.get(target.scheme, CONNECTIONS_HTTP2), shards)
    if connections < shards:
        raise ConfigError(
            f"--connections {connections} cannot be shared by {shards} shards; accepted: {shards} or more"
        )
    return Load(
        url=url,
        rates_per_s=_rates(rate, process),
        duration_s=10.0 if duration is None and process != "trace" else duration,
        bodies=bodies_of("--body", body) or (b"",),
        order=one_of("--order", order, ORDERS),
        method=_method(method, target.grpc),
        headers=headers_of(header, gzip=gzip, sources=header_from),
        authority=authority,
        connect_to=connect_to,
        arrivals=process,
        cv=1.0 if cv is None else cv,
        trace=Path(trace) if trace else None,
        trace_column=trace_column,
        connections=connections,
        streams=streams,
        shards=shards,
        timeout_s=timeout,
        warmup_s=warmup,
        seed=seed,
        keep_alive=not no_keep_alive,
        gzip=gzip,
        ca=ca,
        insecure=insecure,
        certificate=cert,
        key=key,
        out=_out(out),
        streaming=streaming_of(target, stream=stream, sse=sse, lines=lines, messages=messages, done=done, gzip=gzip),
    )


DONE = "[DONE]"
"""What ends a stream of events in chat-completion interfaces."""


def streaming_of(
    target: "Target", *, stream: bool, sse: bool, lines: bool, messages: int, done: str, gzip: bool
) -> "Streaming | None":
    """Return how replies bring several messages; None if no option says so.

    Raises:
        ConfigError: options that exclude each other, or do not fit the URL.
    """
    from infscale.load.engine.interfaces import Streaming
    from infscale.load.engine.job import check_streaming

    given = [name for name, value in (("--stream", stream), ("--sse", sse), ("--lines", lines)) if value]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other; accepted: one of them")
    if not given:
        if messages or done:
            raise ConfigError("--messages and --done need --stream, --sse or --lines")
        return None
    from infscale.payloads.streams import GRPC_ERRORS, JSON_ERRORS  # of models: single replies need none

    if stream and done:
        raise ConfigError(f"--done {done!r} is no message of --stream; accepted: with --sse or --lines")
    if target.grpc and not stream:
        raise ConfigError(f"{given[0]} is a way of REST; accepted for {target.scheme}: --stream")
    way = "sse" if sse else "lines" if lines else "grpc" if target.grpc else "chunks"
    errors = GRPC_ERRORS.get(target.path) if target.grpc else JSON_ERRORS
    mark = done or (DONE if sse else "")
    needs = bool(done) or (sse and target.path.partition("?")[0].endswith("/completions"))
    result = Streaming(way, messages, mark.encode(), needs, errors)
    check_streaming(result, target.grpc, gzip=gzip)
    return result


def _method(name: str, grpc: bool) -> str:
    if not re.fullmatch(r"[A-Z]+", name) or name in ("HEAD", "CONNECT") or (grpc and name != "POST"):
        accepted = "POST, which gRPC always uses" if grpc else "POST, GET, PUT and others, but HEAD and CONNECT"
        raise ConfigError(f"--method {name!r}; accepted: {accepted}")
    return name


def _rates(text: str, process: str) -> tuple[float, ...]:
    accepted: dict[str, tuple[str, Callable[[int], bool]]] = {
        "ramp": ("START,END", lambda n: n == 2),
        "steps": ("a rate for each step, as in 100,500,100", lambda n: n > 0),
        "trace": ("one rate, or none", lambda n: n < 2),
    }
    form, fits = accepted.get(process, ("one rate, as in 2000", lambda n: n == 1))
    parts = text.split(",") if text else []
    if not fits(len(parts)):
        raise ConfigError(f"--rate {text!r} for {process} arrivals; accepted: {form}")
    return tuple(parse_number("--rate", part) for part in parts)


def bodies_of(option: str, names: Sequence[str]) -> tuple[bytes, ...]:
    """Return the bodies in the files that ``option`` names, and in the folders, in the order of their files' names.

    Raises:
        ConfigError: a file or folder cannot be read, or is empty.
    """
    bodies = []
    for name in names:
        path = Path(name)
        try:
            inside = [one for one in sorted(path.iterdir()) if one.is_file()] if path.is_dir() else [path]
            found = [one.read_bytes() for one in inside if one.name[0] != "." or one is path]
        except OSError as error:
            raise ConfigError(f"{option} {name!r} cannot be read: {error.strerror}") from error
        if not all(found) or not found:
            raise ConfigError(f"{option} {name!r} is empty, or holds an empty file; without {option} bodies are empty")
        bodies += found
    return tuple(bodies)


def headers_of(lines: Sequence[str], *, gzip: bool = False, sources: Sequence[str] = ()) -> dict[str, str]:
    """Return headers such as ``"Accept: */*"`` as the engine takes them, names in lower case.

    Args:
        lines: of ``--header``.
        gzip: whether the engine sets the headers of compressed bodies.
        sources: of ``--header-from``, whose values are read elsewhere, and are in no message.

    Raises:
        ConfigError: a line is no header, names one that the engine sets itself, or names one again; a source cannot be
            read.
    """
    own = {*SET_BY_CLIENTS, *(("content-encoding", "grpc-encoding") if gzip else ())}
    headers: dict[str, str] = {}
    for given, line in [*(("--header", line) for line in lines), *(("--header-from", line) for line in sources)]:
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        shown = f"{given} {line!r}"
        if given == "--header-from":
            value = _from_source(shown, value)
        key = check_header(shown, name if colon else "", value, own)
        if key in headers:
            raise ConfigError(f"{shown}: {name} is given twice")
        headers[key] = value
    return headers


def _from_source(shown: str, value: str) -> str:
    """Return a header's value, whose last word says where the rest of it is read from."""
    before, _, word = value.rpartition(" ")
    kind, colon, name = word.partition(":")
    if not colon or kind not in ("env", "file") or not name:
        raise ConfigError(f"{shown}; accepted: a last word env:NAME or file:PATH, as in 'X-Key: env:MY_KEY'")
    if kind == "env":
        text = os.environ.get(name, "")
    else:
        try:
            text = Path(name).read_text(encoding="latin-1")
        except OSError as error:
            raise ConfigError(f"{shown}: the file cannot be read: {error.strerror or error}") from error
    text = text.strip()
    if not text:
        what = "the variable is not set, or empty" if kind == "env" else "the file is empty"
        raise ConfigError(f"{shown}: {what}")
    return f"{before} {text}".lstrip(" ")


def _out(name: str) -> Path | None:
    if not name:
        return None
    path = Path(name)
    if path.suffix != ".parquet":
        raise ConfigError(f"--out {name!r}: accepted: a name that ends in .parquet (the manifest gets .json)")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise ConfigError(f"--out {name!r} cannot be written: {path.parent} is no folder that can be written to")
    return path


ARRIVALS, REQUESTS, STREAMS, CONNECTION, OUTPUT = "Arrivals", "Requests", "Streams", "Connections", "Output"


def request_options() -> list[Option]:
    """Return the options of what is sent, and how: those of every command that loads a URL."""
    return [
        option("--body", section=REQUESTS),
        option("--order", section=REQUESTS, default="random"),
        option("--method", section=REQUESTS, default="POST"),
        option("--header", section=REQUESTS),
        option("--header-from", section=REQUESTS),
        option("--gzip", section=REQUESTS),
        option("--timeout", section=CONNECTION, default="5", type=Number(above=0)),
        option("--connections", section=CONNECTION, type=Whole(1), note="Default: 256; over HTTP/2 and gRPC 8."),
        option("--streams", section=CONNECTION, default="0", type=Whole(0)),
        option("--shards", section=CONNECTION, default="1", type=Whole(1, most=256)),
        option("--no-keep-alive", section=CONNECTION),
        option("--authority", section=CONNECTION, default=""),
        option("--connect-to", section=CONNECTION, default=""),
        option("--ca", section=CONNECTION, default=""),
        option("--cert", section=CONNECTION, default=""),
        option("--key", section=CONNECTION, default=""),
        option("--insecure", section=CONNECTION),
    ]


command = Command(
    "load",
    _run,
    [
        Argument(["url"], help="Address of an HTTP/1.1, HTTP/2 or gRPC endpoint, see below."),
        option(
            "--rate",
            section=ARRIVALS,
            default="",
            metavar="R[,R...]",
            note="Ramp takes START,END; steps one rate for each step, as in 100,500,100; trace none, or the rate to "
            "which the trace is scaled.",
        ),
        option("--duration", section=ARRIVALS, type=Number(above=0), note="Default: 10; the whole of a trace."),
        option("--arrivals", section=ARRIVALS, default="poisson"),
        option("--cv", section=ARRIVALS, type=Number()),
        option("--trace", section=ARRIVALS, default=""),
        option("--trace-column", section=ARRIVALS, default=""),
        option("--warmup", section=ARRIVALS, default="0", type=Number()),
        option("--seed", section=ARRIVALS, default="1", type=Whole(0)),
        *request_options(),
        option("--stream", section=STREAMS),
        option("--sse", section=STREAMS),
        option("--lines", section=STREAMS),
        option("--messages", section=STREAMS, default="0", type=Whole(0)),
        option("--done", section=STREAMS, default="", note="Default: [DONE] with --sse, where it may be missing."),
        *cluster_options(),
        option("--out", section=OUTPUT, default=""),
        option("--json", section=OUTPUT),
    ],
    help="Send an open-loop load to a URL, whose arrivals never wait for responses, and print response times, rates, "
    "the generator's own cost and a verdict. It knows nothing of models or frameworks.",
    notes=NOTES,
    exits=EXITS,
    examples=(
        "infscale load http://127.0.0.1:8080/ --rate 200 --duration 5",
        "infscale load https://127.0.0.1:8000/v1/chat/completions --rate 2 --sse --body chat.json --timeout 60 "
        "--header 'Content-Type: application/json' --header-from 'Authorization: Bearer env:API_KEY'",
        "infscale load http://127.0.0.1:8080/ --rate 2000 --cluster local:2",
        "infscale load http://127.0.0.1:8080/ --rate 50,500 --arrivals ramp --duration 60 --json --out rows.parquet",
    ),
)
