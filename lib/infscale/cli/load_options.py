"""The options of ``infscale load``: from words to a checked :class:`Load`. Imports nothing heavy.

Numbers are taken as words and converted here, so that a bad one is one line that names it.
"""

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infscale.errors import ConfigError, one_of

CONNECTIONS = {"http": 256, "https": 256}
"""Most connections by default; over HTTP/2, which carries many requests on each: :data:`CONNECTIONS_HTTP2`."""
CONNECTIONS_HTTP2 = 8
SET_BY_ENGINE = ("connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade")

EPILOG = """\
URL: http, https (HTTP/1.1), h2c, h2 (HTTP/2), grpc, grpcs, as in http://host:8080/path and
grpc://host:8500/package.Service/Method, or over a Unix socket: http://unix:/run/server.sock:/path.
FILEs are HTTP bodies, or protobuf messages; each request carries one of them at random. Without --body it is empty.

--rate: requests/s; ramp takes START,END, steps one rate for each step (as in 100,500,100), trace none or one,
to which it is scaled. A trace is a CSV or Parquet file; its column of times is named arrival_ns, arrival_s,
scheduled_ns (as in --out), timestamp_ns or timestamp_s, or --trace-column names one that ends in _s or _ns.

exit codes: 0 measured (VALID, or SATURATED, a finding about the server); 1 bad input, or the engine failed; 2 unknown
option; 3 INVALID: the generator or its host failed; 4 no request succeeded; 130 ended by Ctrl-C
or SIGTERM (rows are kept).
"""


@dataclass(frozen=True)
class Load:
    """What to do, checked; times in seconds, bodies as bytes, header names in lower case.

    ``rates_per_s`` has one value, except for "ramp" (two), "steps" (any number) and "trace" (none or one).
    ``duration_s`` is None for the whole of a trace. ``warmup_s`` comes before it. ``connections`` is the total
    over all shards, ``streams`` the most on each connection (0: as the server allows).
    """

    url: str
    rates_per_s: tuple[float, ...]
    duration_s: float | None
    bodies: tuple[bytes, ...]
    headers: dict[str, str]
    arrivals: str
    cv: float
    trace: Path | None
    trace_column: str
    connections: int
    streams: int
    shards: int
    timeout_s: float
    warmup_s: float
    seed: int
    keep_alive: bool
    gzip: bool
    ca: str
    insecure: bool
    out: Path | None
    json: bool


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand ``load``."""
    load = commands.add_parser(
        "load",
        help="send an open-loop load to a URL and judge what came back",
        description="Send an open-loop load to a URL; knows nothing of models or frameworks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    load.add_argument("url", metavar="URL")
    load.add_argument("--rate", default="", metavar="R[,R…]", help="arrival rate, requests/s")
    load.add_argument("--duration", default="", metavar="S", help="of the arrivals (default: 10; a trace: all of it)")
    load.add_argument("--body", nargs="+", action="extend", default=[], metavar="FILE", help="request bodies")
    load.add_argument("--header", action="append", default=[], metavar="'K: V'", help="may be repeated")
    load.add_argument(
        "--arrivals",
        default="poisson",
        metavar="PROCESS",
        help="poisson (default), constant, gamma, ramp, steps or trace",
    )
    load.add_argument("--cv", default="", metavar="CV", help="gamma: coefficient of variation of the gaps")
    load.add_argument("--trace", default="", metavar="FILE", help="trace: CSV or Parquet file of arrival times")
    load.add_argument("--trace-column", default="", metavar="NAME", help="its column, if not found by name")
    load.add_argument("--connections", default="", metavar="N", help="most at a time (default: 256; HTTP/2: 8)")
    load.add_argument(
        "--streams", default="0", metavar="N", help="most on an HTTP/2 connection (0: the server's limit)"
    )
    load.add_argument("--shards", default="1", metavar="K", help="engine processes, which share rate and connections")
    load.add_argument("--timeout", default="5", metavar="S", help="from the scheduled time (default: 5)")
    load.add_argument("--warmup", default="0", metavar="S", help="load before the measured part, at the first rate")
    load.add_argument(
        "--seed", default="1", metavar="N", help="of the arrivals and of the choice of bodies (default: 1)"
    )
    load.add_argument("--no-keep-alive", action="store_true", help="open a connection for every request")
    load.add_argument("--gzip", action="store_true", help="compress bodies (gRPC: messages)")
    load.add_argument("--ca", default="", metavar="FILE", help="trust this file of certificates, not the system's")
    load.add_argument("--insecure", action="store_true", help="trust any certificate")
    load.add_argument("--out", default="", metavar="FILE.parquet", help="write every request; the manifest beside it")
    load.add_argument("--json", action="store_true", help="print one JSON object; keys carry their units")


def check(words: argparse.Namespace) -> Load:
    """Check and convert every option, and read the bodies.

    Raises:
        ConfigError: naming the option, its value and what is accepted.
    """
    from infscale.load.engine.job import parse
    from infscale.load.schedule import PROCESSES

    target = parse(words.url)
    process = one_of("--arrivals", words.arrivals, PROCESSES)
    if (words.trace != "") != (process == "trace"):
        raise ConfigError(f"--arrivals {process} and --trace {words.trace!r}: a trace needs both, others neither")
    if words.trace_column and process != "trace":
        raise ConfigError(f"--trace-column {words.trace_column!r} is for --arrivals trace only")
    if (words.cv != "") != (process == "gamma"):
        raise ConfigError(f"--arrivals {process} and --cv {words.cv!r}: gamma needs both, others neither")
    default_connections = CONNECTIONS.get(target.scheme, CONNECTIONS_HTTP2)
    shards = _whole("--shards", words.shards, 1, most=256)
    connections = _whole("--connections", words.connections or str(max(default_connections, shards)), 1)
    if connections < shards:
        raise ConfigError(
            f"--connections {connections} cannot be shared by {shards} shards; accepted: {shards} or more"
        )
    return Load(
        url=words.url,
        rates_per_s=_rates(words.rate, process),
        duration_s=_duration(words.duration, process),
        bodies=tuple(map(body_of, words.body)) or (b"",),
        headers=headers_of(words.header, gzip=words.gzip),
        arrivals=process,
        cv=number("--cv", words.cv or "1"),
        trace=Path(words.trace) if words.trace else None,
        trace_column=words.trace_column,
        connections=connections,
        streams=_whole("--streams", words.streams, 0),
        shards=shards,
        timeout_s=number("--timeout", words.timeout, above=0),
        warmup_s=number("--warmup", words.warmup),
        seed=_whole("--seed", words.seed, 0),
        keep_alive=not words.no_keep_alive,
        gzip=words.gzip,
        ca=words.ca,
        insecure=words.insecure,
        out=_out(words.out),
        json=words.json,
    )


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
    return tuple(number("--rate", part) for part in parts)


def _duration(text: str, process: str) -> float | None:
    if process == "trace" and not text:
        return None
    return number("--duration", text or "10", above=0)


def number(option: str, text: str, above: float | None = None) -> float:
    """A finite number ≥ 0, or > ``above``; raises :class:`ConfigError`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (above is not None and value <= above):
        kind = "a number above 0" if above is not None else "a number, 0 or more"
        raise ConfigError(f"{option} {text!r} cannot be used; accepted: {kind}")
    return value


def _whole(option: str, text: str, least: int, most: int = 2**31 - 1) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else -1
    if not least <= value <= most:
        raise ConfigError(f"{option} {text!r} cannot be used; accepted: a whole number from {least} to {most}")
    return value


def body_of(name: str) -> bytes:
    """The bytes of a file that is not empty; raises :class:`ConfigError`."""
    try:
        body = Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"--body {name!r} cannot be read: {error.strerror}") from error
    if not body:
        raise ConfigError(f"--body {name!r} is empty; leave --body out to send empty bodies")
    return body


def headers_of(lines: Sequence[str], *, gzip: bool = False) -> dict[str, str]:
    """Headers as the engine takes them, names in lower case; raises :class:`ConfigError`."""
    own = {*SET_BY_ENGINE, *(("content-encoding", "grpc-encoding") if gzip else ())}
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key, value = name.lower(), value.strip(" \t")
        token = re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", key)  # RFC 9110, 5.6.2
        if not colon or not token or not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            raise ConfigError(f"--header {line!r} is not a header; accepted: 'Name: value', in one line")
        if key in own:
            raise ConfigError(f"--header {line!r}: {name} is set by the engine")
        if key in headers:
            raise ConfigError(f"--header {line!r}: {name} is given twice")
        headers[key] = value
    return headers


def _out(name: str) -> Path | None:
    if not name:
        return None
    path = Path(name)
    if path.suffix != ".parquet":
        raise ConfigError(f"--out {name!r}: accepted: a name that ends in .parquet (the manifest gets .json)")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise ConfigError(f"--out {name!r} cannot be written: {path.parent} is no folder that can be written to")
    return path
