"""Manifests: what is known of a run and of each of its trials, as typed records that are checked when they are read.

JSON holds neither NaN nor infinity: both are written as null. So a number that may be either is typed ``float | None``,
and None stands for what was not measured.

Version history: 1 — dictionaries, one file per trial. 2 — these records; factors of an arm in one place; arms are
numbered by their place in the design. 3 — lifetimes of servers in place of replicates; budgets; brackets of λ*.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from infscale.errors import DataError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.machine import Calibration, Machine
from infscale.records.gate import Verdict

VERSION = 3
"""The version of manifests that this program writes and reads."""

Phase = Literal["pilot", "grid", "sensitivity", "search", "capacity"]
"""Why a trial was made: the rough search of the first lifetime, a trial at a set rate, the same of an arm of the
sensitivity check, or a step in the search for λ* or for the rate at the SLO."""


class Record(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of all records: an unknown field is an error."""


# ---------------------------------------------------------------------------------------------- trials


class Seeds(Record, kw_only=True):
    """Seeds of a trial's draws: ``numpy.random.SeedSequence(entropy, spawn_key=…)`` for arrivals and payload choice."""

    entropy: int
    arrivals: list[int]
    payload: list[int]


class Shard(Record, kw_only=True):
    """One process of the load engine: CPU seconds, seconds waited for a core, and connections."""

    cpu_user_s: float
    cpu_system_s: float
    run_delay_s: float | None
    wall_s: float
    connections_opened: int
    connections_lost: int
    scheduler: str
    peak_memory_bytes: int
    error: str
    pid: int


class Reason(Record, kw_only=False):
    """Why requests of a trial failed: their status, what the server, the connection or the reply said, how many."""

    status: str
    text: str
    requests: int


def commonest(reasons: Iterable[Reason]) -> list[Reason]:
    """Return the different reasons of several trials, or processes, the most frequent ones first."""
    counts: Counter[tuple[str, str]] = Counter()
    for reason in reasons:
        counts[reason.status, reason.text] += reason.requests
    return [Reason(status, text, requests) for (status, text), requests in counts.most_common()]


PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
"""Percentiles of times, ms, by the names that :class:`Reported` and :class:`KnownLoad` have for them."""


class Reported(Record, kw_only=True):
    """What a load tool of the field said of its own trial, by its own clock and rules, beside what our rows say.

    Attributes:
        tool: name and version.
        valid: its own verdict; None for a tool that gives none.
        unmet: the constraints behind a verdict that is not valid, by the tool's names.
        errors: what it logged as an error.
        requests: how many it counts as answered; for most tools any answer is one, failures too.
        p50_ms, p95_ms, p99_ms: its percentiles of what it takes for the latency, ms; None where it prints none.
        throughput_per_s: answered requests per second; None where it prints none.
        files: names of its own logs, which are kept in the run's folder of logs; empty where none are kept.
        left_out: of a tool whose file was imported, requests without a row: those that were in flight when it ended,
            and those that were scheduled after the first of them.
    """

    tool: str
    valid: bool | None = None
    unmet: list[str] = []
    errors: list[str] = []
    requests: int | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    throughput_per_s: float | None = None
    files: list[str] = []
    left_out: int = 0


class ClusterWorker(Record, kw_only=True):
    """One worker process of a cluster in a trial.

    Attributes:
        name, host: its address within Dask, and its machine's name.
        shards: the numbers of the shards that it was given.
        offset_ns: its monotonic clock less the driver's at the start of the schedule, ns.
        drift_ppm: µs that its clock gains on the driver's in each second.
        within_ns: half of the shortest round trip, within which the offset is known, ns.
        skew_ns: by how much its schedule's start, and its end, came later than the driver's clock said, ns; by clocks
            that were read before and after.
        cpu_s: CPU seconds of the worker's own process, Dask's share included, without the engine's; None if lost.
        steal_fraction: share of CPU time that the hypervisor took on its machine; None where unknown.
        lost: why the worker was lost in the trial; "" if it was not.
    """

    name: str
    host: str
    shards: list[int]
    offset_ns: int
    drift_ppm: float
    within_ns: int
    skew_ns: tuple[int, int]
    cpu_s: float | None = None
    steal_fraction: float | None = None
    lost: str = ""


class Generator(Record, kw_only=True):
    """The load generator of a trial: what it used, and how it ended.

    Attributes:
        client: "wire" for the load engine, else the library.
        cpu_user_s, cpu_system_s, cpu_s: CPU seconds over all processes.
        run_delay_s: seconds in which the worst process was ready to run and had no core; None where unknown.
        wall_s: seconds from the first to the last moment of the longest process.
        start_ns: the trial's time 0 on the monotonic clock, ns.
        connections_opened, connections_lost: None where a library does not tell.
        retried: how often a request was sent again that the server had refused without processing it.
        messages_unkept: messages of streams beyond the engine's bound, which have no row in the table of chunks.
        peak_memory_bytes: of a library's process; the engine's are with its shards.
        scheduler: the scheduling policy of a library's process.
        error: what ended the generator early; "" for nothing.
        limit: the errno, such as "EMFILE", of the first limit of the client that kept a connection from being opened;
            requests then wait for the connections that there are. "" for none.
        reasons: why requests failed, the most frequent reasons first.
        shards: the engine's processes.
        share_by_target: requests sent to each replica, where the client picked.
        reported: what a load tool said itself; None of a generator that is none.
        workers: the worker processes of a cluster; empty where the engine ran on this machine alone.
    """

    client: str = "wire"
    cpu_user_s: float
    cpu_system_s: float
    cpu_s: float
    run_delay_s: float | None = None
    wall_s: float
    start_ns: int | None = None
    connections_opened: int | None = None
    connections_lost: int | None = None
    retried: int = 0
    messages_unkept: int = 0
    peak_memory_bytes: int | None = None
    scheduler: str = ""
    error: str = ""
    limit: str = ""
    reasons: list[Reason] = []
    shards: list[Shard] = []
    share_by_target: list[int] = []
    reported: Reported | None = None
    workers: list[ClusterWorker] = []


class ServerProcess(Record, kw_only=True):
    """The server of a trial: its command line, its processes, its start-up time.

    ``died`` says whether it ended in the trial, ``stopped`` whether it stood still at the trial's end (SIGSTOP),
    ``cut`` whether connections to it were cut, by itself or on the way, in a trial that was to be repeated for that.
    """

    command: list[str]
    pids: list[int]
    ready_s: float
    died: bool = False
    stopped: bool = False
    cut: bool = False


class ForeignCpu(Record, kw_only=True):
    """What processes without a part in a trial used meanwhile: how many cores, and the name of the busiest of them."""

    cores: float
    most: str = ""


class Host(Record, kw_only=True):
    """The machine's state during a trial: load average before it, share of CPU time taken by the hypervisor.

    ``foreign`` is None where it was not measured.
    """

    same_host: bool | None = None
    link: str = ""
    tls: bool = False
    loadavg_1m: float | None = None
    steal_fraction: float | None = None
    cores: int | None = None
    pinned: bool | None = None
    foreign: ForeignCpu | None = None


class Components(Record, kw_only=True):
    """Mean times of a trial's successes in ms: the parts add up to ``response``."""

    lag: float
    wait: float
    transport: float
    queue: float
    compute: float
    response: float


class GroupUsage(Record, kw_only=True):
    """What one group of processes used within a trial's arrivals; see :func:`infscale.records.usage.summarise`."""

    seconds: float
    processes: int | None = None
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    cores: float | None = None
    rss_mean_bytes: float | None = None
    rss_peak_bytes: float | None = None
    voluntary_per_s: float | None = None
    involuntary_per_s: float | None = None
    network_bytes: float | None = None


class Container(Record, kw_only=True):
    """One reading of a server's container, as Docker tells it; ``time_ns`` is on the monotonic clock."""

    time_ns: int
    cores: float
    memory_bytes: float
    received_bytes: float
    sent_bytes: float
    processes: float


class TrialManifest(Record, kw_only=True):
    """What is known of one trial beside its rows.

    Attributes:
        version: of this record.
        trial_id, run_id: the trial's name, and its run's.
        machine_digest: of the machine that measured it.
        phase: why it was made.
        lifetime, attempt: which lifetime of the arm's servers (from 0), and which try of the trial (from 1).
        arm_number: the arm's place in the design.
        arm: its factors, defaults put in.
        block: the number of the arm with which it is compared.
        implementation: what really answered, e.g. "tfserving-embedded".
        rate_per_s: arrival rate λ, requests/s.
        duration_s, timeout_s: length of the arrivals, and time limit of a request, s.
        pool: distinct request bodies.
        header_names: of the headers that an attached server was sent; names only, because values may be secret.
        rows: scheduled requests.
        messages: of streams, rows of the table of chunks; None of replies that are no streams.
        ceiling_per_s: the most that a null server answered to this generator, requests/s; None if not measured.
        cache: hits and misses of a cache, and what else it counted.
        usage: by group of processes; empty if not asked for.
        counters: the server's own counters that grew.
        shares: requests that each replica answered, None for one that does not tell; empty without replicas.
        started_at: UTC.
        verdict: as judged when measured; None before.
    """

    version: int = VERSION
    trial_id: str = ""
    run_id: str = ""
    machine_digest: str = ""
    phase: Phase = "grid"
    lifetime: int = 0
    attempt: int = 1
    arm_number: int = 0
    arm: Arm
    block: int = 0
    implementation: str
    rate_per_s: float
    duration_s: float
    timeout_s: float
    seeds: Seeds
    pool: int
    header_names: list[str] = []
    generator: Generator
    server: ServerProcess
    rows: int
    messages: int | None = None
    ceiling_per_s: float | None = None
    host: Host
    components: Components | None = None
    cache: dict[str, float] = {}
    usage: dict[str, GroupUsage] = {}
    counters: dict[str, float] = {}
    containers: list[Container] = []
    shares: list[float | None] = []
    started_at: str
    verdict: Verdict | None = None

    @property
    def judged(self) -> Verdict:
        """The verdict of a trial that has one.

        Raises:
            DataError: it was not judged.
        """
        if self.verdict is None:
            raise DataError(f"the trial {self.trial_id} has no verdict")
        return self.verdict


class LoadManifest(Record, kw_only=True):
    """What determined one load of a URL (``infscale load``), and how it went.

    Attributes:
        url: what was loaded.
        arrivals, cv, trace, rates_per_s: the arrival process and its parameters.
        rate_per_s: mean rate of the measured part, requests/s.
        planned_s: length of the schedule, warm-up included, s.
        duration_s: the same, or the time until an interruption, s.
        pool, order: number of bodies, and how they were taken from the pool.
        authority, connect_to: what the requests named, and where they went, if not as the URL says.
        streaming, expected_messages, done: the way in which replies bring several messages (one of
            :data:`infscale.vocabulary.STREAMS`, "" for none), their number (0 for any), and the mark that ends them.
        header_names: names only, because values may be secret.
        shards: number of engine processes, over all workers.
        cluster: what --cluster said; "" without one.
        rows: scheduled requests.
        machine, commit, versions, summary: added when it is stored; the summary is that of the command.
    """

    version: int = VERSION
    url: str
    arrivals: str
    cv: float | None = None
    trace: str | None = None
    rates_per_s: list[float]
    rate_per_s: float
    planned_s: float
    duration_s: float
    warmup_s: float
    timeout_s: float
    seed: int
    pool: int
    order: str = "random"
    method: str = "POST"
    authority: str = ""
    connect_to: str = ""
    streaming: str = ""
    expected_messages: int = 0
    done: str = ""
    header_names: list[str]
    connections: int
    streams: int | None = None
    shards: int
    cluster: str = ""
    keep_alive: bool
    gzip: bool
    insecure: bool
    rows: int
    interrupted: bool
    started_at: str
    generator: Generator
    host: Host
    machine: Machine | None = None
    commit: str = "unknown"
    versions: dict[str, str] = {}
    summary: dict[str, object] = {}


# ------------------------------------------------------------------------------------------------ runs


class Implementation(Record, kw_only=True):
    """A deployment that answered in a run: names, version, and the runtime that computes."""

    name: str
    framework: str
    implementation: str
    version: str
    label: str
    runtime: str
    model: str


class Pilot(Record, kw_only=True):
    """What the search before a run found for one arm.

    Attributes:
        implementation: what answered.
        saturation_per_s: roughly the saturation rate λ*, requests/s; of a closed loop the most that it got answered.
        bracket_per_s: the largest rate that kept up and the smallest that did not, requests/s; None if not kept.
        encode_us, decode_us: the client's CPU time for one request and one answer, µs; None if not measured.
        differences: largest absolute difference of the outputs from the reference, by protocol and encoding; None
            where an output is not a number.
        ready_s: seconds from the server's start to its first right answer.
    """

    implementation: str
    saturation_per_s: float
    bracket_per_s: tuple[float, float] | None = None
    encode_us: float | None = None
    decode_us: float | None = None
    differences: dict[str, float | None] = {}
    ready_s: float | None = None


class Anchor(Record, kw_only=True):
    """What a session measured of the one arm that every run has (:mod:`infscale.experiment.beside.anchor`).

    Attributes:
        rate_per_s: λ, requests/s.
        requests: how many succeeded.
        response_p50_ms, response_p95_ms: of them, ms.
        verdicts: of its trials.
    """

    rate_per_s: float
    requests: int
    response_p50_ms: float
    response_p95_ms: float
    verdicts: list[str]


class Session(Record, kw_only=True):
    """One process's work on a run.

    ``calibration`` says how fast the machine was when it began, ``anchor`` how fast a real server on it.
    """

    started_at: str
    calibration: Calibration | None = None
    anchor: Anchor | None = None
    trials: int = 0
    seconds: float = 0.0


class Lifetime(Record, kw_only=True):
    """One lifetime of a group's servers.

    Attributes:
        arms: numbers of the group's arms.
        number: from 0, of this group.
        seconds: from the first server's start to the last one's end.
        extra_s: of them, the seconds for what later lifetimes do not need: the rough search, and the curve.
        session: the place of the session that ended it in the run's ``sessions``.
    """

    arms: list[int]
    number: int
    seconds: float
    extra_s: float = 0.0
    session: int = 0


class Stale(Record, kw_only=True):
    """Answers of a cache after a model swap: how many were asked for, and how many were still the old model's."""

    asked: int
    stale: int


class KnownLoad(Record, kw_only=True):
    """What one client made of a load on the null server, whose behaviour is known.

    Attributes:
        rate_per_s, stall_ms: nominal rate, requests/s, and how long the server stood still once, ms.
        rows: requests that were sent.
        late: those of them whose answer took longer than :data:`LATE_MS`.
        answered_per_s: successes from the first send to the last answer, per second.
        cpu_us: the client's CPU time for one request, µs.
        response, roundtrip: percentiles from the scheduled time (of a closed loop, from when a user was ready to send)
            and from the send, ms; by :data:`PERCENTILES`.
        corrected: of users who are paced, the former with what coordinated omission left out
            (:func:`infscale.experiment.beside.tools.with_omitted`); empty of others.
        reported: what the client itself says; None of one that is no load tool.
    """

    rate_per_s: float
    stall_ms: float
    rows: int
    late: int
    answered_per_s: float
    cpu_us: float
    response: dict[str, float]
    roundtrip: dict[str, float]
    corrected: dict[str, float] = {}
    reported: Reported | None = None


LATE_MS = 10.0
"""Response time above which an answer of the null server is late, ms: it takes less than one."""


class Tool(Record, kw_only=True):
    """What one client made of a null server that stalls once, and of one that takes whatever comes."""

    stall: KnownLoad
    limit: KnownLoad


class RunManifest(Record, kw_only=True):
    """What is known of one run beside its trials.

    Attributes:
        version: of this record.
        run_id: the run's name.
        design: what it measures.
        status: "complete", or "interrupted" until then.
        packed: whether trials lie in Parquet files of the whole run.
        ceilings: by protocol, points of (body bytes, requests/s) that a null server answered to this generator.
        rates_per_s: by block, the rates of moderate load.
        curve_per_s: by block, further rates up to saturation.
        lifetimes: those that ended, in order.
        brackets: by arm and lifetime, the largest rate that kept up and the smallest that did not in the search for
            λ*, requests/s; None for one that was not found.
        capacity_brackets: the same of the rate at the design's SLO: the largest that kept it and the smallest that did
            not.
        first_look: the number of lifetimes at the first look at a contrast; None before it is set.
        ends_at_s: seconds of measuring after which no lifetime is begun.
        more_s: seconds that were added to the budget, one for each time.
        pilot: by arm.
        skipped: by arm, why it was left out.
        lost: arms that were given up because their server was lost again and again.
        implementations: by name.
        restarts: sentences on servers that were lost under load.
        staleness: by circumstance, what a cache answered after a swap.
        tools: by arm, what its client made of servers whose behaviour is known.
        cluster: the workers that make the load, as --cluster says it; "" for this machine alone.
        watched: what is read of the servers by an agent on their machine, or from Prometheus, by group.
        design_digest, code_digest, environment_digest, machine: what must be equal for a run to be continued.
    """

    version: int = VERSION
    run_id: str
    design: Design
    status: Literal["complete", "interrupted"] = "interrupted"
    packed: bool = False
    ceilings: dict[str, list[tuple[float, float]]] = {}
    rates_per_s: dict[int, list[float]] = {}
    curve_per_s: dict[int, list[float]] = {}
    lifetimes: list[Lifetime] = []
    brackets: dict[int, dict[int, tuple[float | None, float | None]]] = {}
    capacity_brackets: dict[int, dict[int, tuple[float | None, float | None]]] = {}
    first_look: int | None = None
    ends_at_s: float = 0.0
    more_s: list[float] = []
    pilot: dict[int, Pilot] = {}
    skipped: dict[int, str] = {}
    lost: list[int] = []
    implementations: dict[str, Implementation] = {}
    restarts: list[str] = []
    staleness: dict[str, Stale] = {}
    tools: dict[int, Tool] = {}
    cluster: str = ""
    watched: dict[str, str] = {}
    design_digest: str
    code_digest: str
    environment_digest: str
    machine: Machine
    versions: dict[str, str] = {}
    commit: str = "unknown"
    clock: str = "CLOCK_MONOTONIC"
    time_plan: list[str] = []
    sessions: list[Session] = []
    started_at: str
    finished_at: str | None = None

    @property
    def measured_s(self) -> float:
        """The seconds that all sessions together measured."""
        return sum(session.seconds for session in self.sessions)


# ----------------------------------------------------------------------------------- reading and writing


class _Version(msgspec.Struct):
    version: int | None = None


R = TypeVar("R", bound=Record)


def decode(text: bytes, kind: type[R], source: str) -> R:
    """Return the record that ``text`` (JSON) holds.

    Args:
        text: one JSON object.
        kind: :class:`RunManifest` or :class:`TrialManifest`.
        source: where the text comes from, for messages: a file, and the row of a table.

    Raises:
        DataError: not JSON, of another version, or a field is missing, unknown or of another type; the message names
            file, field and what was expected.
    """
    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version != VERSION:
            problem = "is missing" if version is None else f"is {version}"
            raise DataError(f"{source}: field version {problem}; this program reads version {VERSION}")
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{source}: {_field(str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{source} is not valid JSON: {error}") from error


def _field(message: str) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.a.b`" into "field a.b: Expected `int`, got `str`"."""
    parts = re.fullmatch(r"(.*) - at (`key` in )?`\$\.?(.*)`", message, re.DOTALL)
    if not parts or not parts[3]:
        return message
    return f"{'a key of ' if parts[2] else ''}field {parts[3]}: {parts[1]}"


def read(path: Path, kind: type[R]) -> R:
    """Read a manifest.

    Raises:
        DataError: the file is absent, or as :func:`decode`.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return decode(text, kind, str(path))


def write(path: Path, record: Record) -> None:
    """Write a manifest so that a reader sees all of it or nothing."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(text + b"\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def nan_if_none(value: float | None) -> float:
    """Return ``value``, or NaN for None, which stands for what was not measured."""
    return float("nan") if value is None else value
