"""What the commands share: option names, types of values, and help with sections and examples.

Every option of every command is named in :data:`NAMES`, so that one thing has one name everywhere.
"""

import contextlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from infscale.errors import ConfigError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

NAMES: dict[str, tuple[str, str]] = {
    # What is run, and where it is kept.
    "--profile": ("NAME", "Size of the run: quick (minutes), full (overnight) or tiny (a smoke test)."),
    "--new": ("", "Measure afresh instead of continuing or reusing a run."),
    "--frameworks": ("NAME...", "Only these: tfserving, torchserve, triton."),
    "--budget": ("TIME", "Time for measuring, such as 90s, 15m or 8h."),
    "--more": ("TIME", "Add time to the newest complete run, such as 30m, and measure on under the same rules."),
    "--run": (
        "FOLDER",
        "Folder of a run, from the project's root; without it the newest complete one in data/raw, else the committed "
        "sample.",
    ),
    "--against": ("FILE...", "Result files of the reference, as many: the k-th of each are compared."),
    "--data": ("FOLDER", "Folder of runs, from the project's root."),
    "--figures": ("FOLDER", "Folder to draw into, from the project's root."),
    "--out": ("FILE.parquet", "Write a row per request to this file, and the manifest beside it as .json."),
    "--into": ("FOLDER", "Write every schema to this folder, as NAME.schema.json."),
    "--timestamps": ("", "Give every sample the time at which the run ended."),
    "--counts": (
        "FILE.parquet",
        "Write the numbers of requests in bins of 1 µs to this file, which summary can add to others.",
    ),
    "--json": (
        "",
        "Print one JSON object, whose keys carry their units, and nothing else; 'infscale schema' describes it.",
    ),
    # Arrivals.
    "--rate": ("R", "Arrival rate λ, requests/s."),
    "--max-rate": ("R", "Highest arrival rate to offer, requests/s."),
    "--duration": ("S", "Length of the arrivals, s."),
    "--warmup": ("S", "Seconds of unmeasured load before the measurement, at the first rate."),
    "--arrivals": ("PROCESS", "poisson, constant, gamma, ramp, steps or trace."),
    "--cv": ("CV", "Coefficient of variation of the gaps; required with --arrivals gamma."),
    "--trace": ("FILE", "CSV or Parquet file of arrival times; required with --arrivals trace."),
    "--trace-column": (
        "NAME",
        "Column with the arrival times; its name must end in _s (seconds) or _ns (nanoseconds).",
    ),
    "--seed": ("N", "Seed of the arrivals and of the choice of bodies."),
    # Requests.
    "--body": ("FILE...", "Request bodies, or folders of them. Without it they are empty."),
    "--order": ("NAME", "How bodies are taken: random, in-order or shuffled (each once, then all again)."),
    "--method": ("NAME", "HTTP method."),
    "--body-reference": ("FILE...", "Bodies of the requests to the reference; over gRPC serialised protobuf messages."),
    "--body-candidate": ("FILE...", "The same of the candidate."),
    "--header": ("'K: V'", "Header of every request; may be repeated."),
    "--header-from": (
        "'K: SOURCE'",
        "Header whose value, or its last word, is read from a file or the environment, and never shown or stored: "
        "'Authorization: Bearer env:NAME' or 'file:PATH'; may be repeated.",
    ),
    "--header-reference": ("'K: V'", "Header of every request to the reference; may be repeated."),
    "--header-candidate": ("'K: V'", "The same of the candidate."),
    "--payload": ("WHAT", "What a request carries."),
    "--protocol": ("NAME", "rest or grpc."),
    "--protocols": ("NAME...", "Only these: rest, grpc."),
    "--encoding": ("NAME", "How a tensor becomes bytes; without it the framework's own form."),
    "--batch": ("N", "Rows in one request."),
    "--repeat": ("F", "Fraction of the requests that repeat an earlier one, 0 to 1."),
    "--gzip": ("", "Compress the bodies (gRPC: the messages)."),
    "--stream": ("", "Replies are streams: of gRPC messages, or over REST of chunks (HTTP/2: of DATA frames)."),
    "--sse": ("", "Replies are streams of server-sent events."),
    "--lines": ("", "Replies are streams of lines, such as NDJSON."),
    "--messages": ("N", "Messages that every stream must bring; 0 for any number but none."),
    "--done": ("TEXT", "Event or line that ends every stream and is no message; a stream without it is cut short."),
    # Connections.
    "--timeout": ("S", "Time from a request's scheduled time to giving it up, s."),
    "--connections": ("N", "Most connections at a time."),
    "--streams": ("N", "Most requests at a time on an HTTP/2 connection; 0 for the server's limit."),
    "--shards": (
        "N",
        "Processes of the load engine, which share rate and connections; with --cluster, of each worker.",
    ),
    "--cluster": (
        "WHERE",
        "Workers that make the load, instead of this machine alone: local[:N], tcp://HOST:8786 (a Dask scheduler), "
        "ssh:HOST,HOST, slurm:PARTITION or kubernetes:NAMESPACE/NAME.",
    ),
    "--workers": ("N", "Worker processes of the cluster."),
    "--no-keep-alive": ("", "Open a connection for every request."),
    "--authority": ("HOST[:PORT]", "What requests name as their host (Host, :authority, TLS), if not the URL's."),
    "--connect-to": ("HOST:PORT", "Where to connect, if not to the URL's host and port."),
    "--ca": ("FILE", "File of certificates to trust instead of the system's."),
    "--cert": ("FILE", "The client's own certificate (PEM), for servers that ask for one."),
    "--key": ("FILE", "The key of --cert (PEM); not needed if that file holds it."),
    "--insecure": ("", "Trust any certificate."),
    # Judgement.
    "--slo": ("TIME", "Limit of the response time, such as 50ms, 0.2s or 800us."),
    "--at-most": ("SHARE", "Most by which the candidate's p95 response time may be longer, such as 5%."),
    "--at-most-load": ("SHARE", "Most by which the reference's λ* may be above the candidate's, such as 15%."),
    "--junit": ("FILE.xml", "Write a test case for each contrast to this file."),
    "--markdown": ("FILE", 'Append the judgement and a table to this file, such as "$GITHUB_STEP_SUMMARY".'),
    "--details": ("", "Say what every run shows, below each line."),
    "--quantile": ("NAME", "Percentile of the response time that the limit is for: p50, p95 or p99."),
    "--effect": ("RATIO", "Smallest ratio of two response times that should be detected, e.g. 1.1 for 10 %."),
    "--rounds": ("N", "Rounds of one trial of each kind."),
    "--accuracy": (
        "",
        "Have MLPerf LoadGen ask for every answer of the pool once, and compare them with the reference model's.",
    ),
    # Planning.
    "--arm": ("NAME", "The arm whose service times are used: its number, or its label or a part of it."),
    "--balancer": (
        "NAME...",
        "Only these: round-robin, random, least-requests, power-of-two, envoy-least-request, l4.",
    ),
    "--cores": ("C", "Cores that all replicas share, for a model that computes; without it each replica has its own."),
    "--concurrency": ("K", "Requests that a replica works on at a time; without it as in the run."),
    "--hits": ("SHARE", "Share of the requests that a cache before the replicas answers, such as 75%."),
    "--hit-time": ("TIME", "How long a hit takes, such as 0.5ms."),
    "--items": ("N", "Different requests, of which a cache holds the last --entries, instead of --hits."),
    "--zipf": ("S", "Exponent of the popularity of the different requests; 0 for all alike."),
    "--entries": ("N", "Answers that the cache holds; the least recently used one goes."),
    "--price": ("P", "Price of one replica for an hour, in any currency."),
    # Servers.
    "--host": ("HOST", "Address at which the page is served."),
    "--port": ("PORT", "TCP port of the page; 0 for a free one."),
    "--cache": ("WHERE", "Where a cache of answers is deployed: none, gateway or server (Triton's own)."),
    "--rest-port": ("PORT", "TCP port of the REST endpoint; 0 for a free one."),
    "--grpc-port": ("PORT", "TCP port of the gRPC endpoint; 0 for a free one."),
    "--way": ("WAY", "How to run TensorFlow Serving: auto, binary, docker or embedded."),
    "--start-timeout": ("S", "Longest time until the model answers, s."),
    "--answer-timeout": ("S", "Longest wait for one answer, s."),
    "--log-folder": ("FOLDER", "Keep the server's log in this folder."),
    "--pid-log": ("FILE", "Append the ids of the processes started to this file."),
}
"""Option → placeholder of its value ("" for a switch) and what it means, with the unit of a quantity."""


class Option(click.Option):
    """A command's option, shown under a heading of its help; ``several`` values may follow it."""

    def __init__(self, names: Sequence[str], *, section: str, several: bool, **attributes: Any) -> None:
        super().__init__(names, **attributes)
        self.section = section
        self.several = several

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return what could be written for the value that begins with ``incomplete``."""
        from infscale.cli.candidates import candidates

        return candidates(self, ctx, incomplete)


def option(
    name: str,
    *,
    section: str = "Options",
    default: object = None,
    note: str = "",
    type: click.ParamType[Any] | None = None,
    metavar: str = "",
    required: bool = False,
) -> Option:
    """Return the option ``name`` of :data:`NAMES` for one command.

    Args:
        name: as typed, such as "--rate".
        section: the heading of the help under which it stands.
        default: the value without the option; shown in the help.
        note: what holds for this command alone, added to the help.
        type: of the value; text without it.
        metavar: placeholder of the value instead of the one in :data:`NAMES`.
        required: whether the command needs it.

    Raises:
        KeyError: the name is not in :data:`NAMES`.
    """
    usual, meaning = NAMES[name]
    several = usual.endswith("...")
    attributes = {} if default is None else {"default": default}
    return Option(
        [name],
        section=section,
        several=several,
        multiple=several or usual in ("'K: V'", "'K: SOURCE'"),
        is_flag=not usual,
        metavar=metavar or usual or None,
        help=f"{meaning} {note}".rstrip(),
        show_default=default not in (None, ""),
        required=required,
        type=type,
        **attributes,
    )


class Argument(click.Argument):
    """A command's argument, whose values a shell completes."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return what could be written for the value that begins with ``incomplete``."""
        from infscale.cli.candidates import candidates

        return candidates(self, ctx, incomplete)


def cluster_options() -> list[Option]:
    """Return the options of where a load comes from: those of every command that can use a cluster."""
    return [
        option("--cluster", section="Cluster", default=""),
        option(
            "--workers", section="Cluster", type=Whole(1), note="Default: 2 of local, one a host, all of a scheduler."
        ),
    ]


EXITS = {
    0: "Done.",
    1: "A known error, which one message on standard error describes.",
    2: "An unknown command or option, or one that is missing.",
    130: "Ended by Ctrl-C.",
}
"""Exit codes of every command, and what they mean where a command says nothing else."""


class Command(click.Command):
    """A command whose help shows its options by section, its exit codes, and examples that work as they stand.

    ``exits`` are those of its exit codes that :data:`EXITS` lacks, or that mean something else here; "" for one that
    it never has.
    """

    def __init__(
        self,
        name: str,
        callback: Callable[..., int | None],
        params: Sequence[click.Parameter],
        *,
        help: str,
        examples: Sequence[str],
        notes: str = "",
        exits: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(name, callback=callback, params=list(params), help=help)
        self.examples = tuple(examples)
        self.notes = notes
        self.exits = {code: text for code, text in sorted({**EXITS, **(exits or {})}.items()) if text}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; an option for several values takes all up to the next option (``--body a b``)."""
        several = {name for param in self.params if isinstance(param, Option) and param.several for name in param.opts}
        return super().parse_args(ctx, list(_repeated(args, several)))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; with ``--json`` whatever it prints beside its result goes to standard error."""
        if not ctx.params.get("json"):
            return super().invoke(ctx)
        ctx.meta["infscale.stdout"] = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a heading for each section, in the order of their definition."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", "Help"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=24)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the notes, and the examples unwrapped, so that they can be copied."""
        if self.notes:
            formatter.write_paragraph()
            formatter.write_text(self.notes)
        write_exits(formatter, self.exits)
        write_examples(formatter, self.examples)


def write_exits(formatter: click.HelpFormatter, exits: Mapping[int, str]) -> None:
    """Write exit codes and what they mean under the heading "Exit codes"."""
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), meaning) for code, meaning in exits.items()])


def write_examples(formatter: click.HelpFormatter, examples: Iterable[str]) -> None:
    """Write command lines under the heading "Examples", unwrapped."""
    with formatter.section("Examples"):
        for line in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def _repeated(args: Iterable[str], several: set[str]) -> Iterator[str]:
    """Yield ``args`` with each option in ``several`` written again before its second and later values."""
    name, values = "", 0
    for arg in args:
        if arg.startswith("-") and len(arg) > 1:
            name, values = arg if arg in several else "", 0
        elif name:
            values += 1
            if values > 1:
                yield name
        yield arg


# --------------------------------------------------------------------------------------------- types of values


class Number(click.ParamType[float]):
    """A finite number of at least 0, or ``above`` a limit; another is a :class:`ConfigError` that names the option."""

    name = "number"

    def __init__(self, above: float | None = None) -> None:
        self._above = above

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        return parse_number(_name(param), value, self._above)


class Whole(click.ParamType[int]):
    """A whole number from ``least`` to ``most``; another is a :class:`ConfigError` that names the option."""

    name = "whole number"

    def __init__(self, least: int, most: int = 2**31 - 1) -> None:
        self._least, self._most = least, most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        result = int(str(value)) if re.fullmatch(r"[0-9]{1,10}", str(value)) else -1
        if not self._least <= result <= self._most:
            accepted = f"a whole number from {self._least} to {self._most}"
            raise ConfigError(f"{_name(param)} {value!r} cannot be used; accepted: {accepted}")
        return result


class Milliseconds(click.ParamType[float]):
    """A time with its unit, such as ``50ms``; the value is in ms."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time in ms."""
        return milliseconds(str(value), _name(param))


class Percent(click.ParamType[float]):
    """A share above 0 and up to 100 %, such as ``5%``; the value is the share, such as 0.05."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share."""
        if isinstance(value, float):
            return value
        known = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", str(value).strip())
        if known is None or not 0 < float(known[1]) <= 100:
            accepted = "above 0% and up to 100%, as in 5%"
            raise ConfigError(f"{_name(param)} {value!r} cannot be used; accepted: {accepted}")
        return float(known[1]) / 100


SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
"""Units of a :class:`Duration`, s."""


class Duration(click.ParamType[float]):
    """A time with its unit, such as ``90s``, ``15m`` or ``8h``; the value is in s."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time in s."""
        if isinstance(value, float):  # a default
            return value
        known = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", str(value).strip())
        if known is None or float(known[1]) == 0:
            raise ConfigError(f"{_name(param)} {value!r} is no time; accepted: above 0 with a unit, as 90s, 15m or 8h")
        return float(known[1]) * SECONDS[known[2]]


def parse_number(option: str, value: object, above: float | None = None) -> float:
    """Return a finite number that is at least 0, or larger than ``above``.

    Raises:
        ConfigError: ``value`` is another, or no number at all.
    """
    try:
        result = float(str(value))
    except ValueError:
        result = math.nan
    if not math.isfinite(result) or result < 0 or (above is not None and result <= above):
        accepted = f"a number above {above:g}" if above is not None else "a number, 0 or more"
        raise ConfigError(f"{option} {value!r} cannot be used; accepted: {accepted}")
    return result


def milliseconds(text: str, option: str = "--slo") -> float:
    """Return a time such as ``50ms``, ``0.2s`` or ``800us`` in ms.

    Raises:
        ConfigError: the text is no such time, or not above 0.
    """
    match = re.fullmatch(r"([0-9.]+)\s*(us|µs|ms|s)", text.strip())
    if match is None:
        raise ConfigError(f"{option} {text!r} is not a time; accepted: such as 50ms, 0.2s or 800us")
    return parse_number(option, match[1], above=0) * {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}[match[2]]


def _name(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "value"
