"""One load on one URL: draws its schedule, sends it and returns its rows. It knows nothing of models or frameworks."""

import datetime as dt
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from infscale import machine
from infscale.errors import ConfigError
from infscale.load import schedule as arrivals
from infscale.load import trace
from infscale.load.cluster import run as distributed
from infscale.load.cluster.connect import Cluster
from infscale.load.engine import run as engine
from infscale.load.engine.interfaces import GiveUp, Progress, Streaming
from infscale.load.engine.job import parse
from infscale.load.schedule import Process, Schedule
from infscale.records import chunks
from infscale.records import manifest as manifests
from infscale.records.manifest import Generator, Host, LoadManifest
from infscale.records.samples import write

_DRAWS = ("arrivals", "payload", "warmup")
"""What is drawn at random, each from a seed of its own."""


@dataclass(frozen=True)
class Load:
    """What to send, checked; times in seconds, bodies as bytes, header names in lower case.

    Attributes:
        url: as :func:`infscale.load.engine.job.parse` takes it.
        rates_per_s: one value; two for "ramp", any number for "steps", none or one for "trace".
        duration_s: length of the arrivals without the warm-up; None for the whole of a trace.
        bodies: the pool, of which each request carries one.
        order: how they are taken, one of :data:`infscale.load.schedule.ORDERS`.
        method: of HTTP requests.
        headers: sent with every request, beside those that the protocol needs.
        authority: ``host`` or ``host:port`` that the requests name; "" for that of a header ``host``, or the URL's.
        connect_to: ``host:port`` to connect to; "" for the URL's.
        arrivals: one of :data:`infscale.load.schedule.PROCESSES`.
        cv: coefficient of variation of the gaps, for "gamma".
        trace: file of arrival times, for "trace".
        trace_column: its column; "" for the first that is known.
        connections: most connections at a time, over all shards.
        streams: most requests at a time on an HTTP/2 connection; 0 for the server's limit.
        shards: number of engine processes.
        timeout_s: from a request's scheduled time to giving it up.
        warmup_s: load before the measured part.
        seed: of the arrivals and of the choice of bodies.
        keep_alive: False opens a connection for every request.
        gzip: compress the bodies (gRPC: the messages).
        ca: file of trusted certificates; "" for the system's.
        insecure: trust any certificate.
        certificate, key: files of the client's own certificate and its key; "" for none.
        out: where the rows are to be stored; None for nowhere.
        give_up: when each shard ends its load early; None for never.
        streaming: how replies bring several messages; None for replies that are no streams.
    """

    url: str
    rates_per_s: tuple[float, ...]
    duration_s: float | None
    bodies: tuple[bytes, ...]
    order: str
    method: str
    headers: dict[str, str]
    authority: str
    connect_to: str
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
    certificate: str
    key: str
    out: Path | None
    give_up: GiveUp | None = None
    streaming: Streaming | None = None


@dataclass(frozen=True)
class Outcome:
    """A finished load: every row (:mod:`infscale.records.samples`), warm-up included, and its manifest.

    Of streams, ``chunks`` has a row per message (:mod:`infscale.records.chunks`), and ``tokens`` the number of tokens
    that the server counted for each row, −1 for unknown.

    The manifest's ``duration_s`` is that of all arrivals, of which the first ``warmup_s`` are left out of the
    numbers; of an interrupted load, it is the time until the interruption.
    """

    samples: pd.DataFrame
    manifest: LoadManifest
    interrupted: bool
    chunks: pd.DataFrame | None = None
    tokens: npt.NDArray[np.int32] | None = None


# ---------------------------------------------------------------------------------------- the schedule


@dataclass(frozen=True)
class Plan:
    """Schedules and choices of bodies, one of each for every shard, warm-up first.

    Attributes:
        schedules: ascending arrival times in ns.
        choices: the body that each request carries, as an index into the pool.
        duration_s: length of all arrivals, warm-up included.
        rate_per_s: mean rate of the measured part; of a trace, its own.
    """

    schedules: list[Schedule]
    choices: list[npt.NDArray[np.int32]]
    duration_s: float
    rate_per_s: float


def schedules(load: Load) -> Plan:
    """Draw the arrivals and bodies of a load; the measured part is the same whatever the warm-up is.

    Raises:
        ConfigError: no request falls into the duration, or there would be too many.
        DataError: the trace cannot be read.
    """
    seeds = {name: np.random.SeedSequence(load.seed, spawn_key=(i,)) for i, name in enumerate(_DRAWS)}
    times = trace.read(load.trace, load.trace_column) if load.trace else None
    process = Process(load.arrivals, load.cv, times)
    duration = load.duration_s
    if duration is None:
        whole_trace = np.empty(0, np.int64) if times is None else times
        duration = _length_s(arrivals.replay(whole_trace, None, *load.rates_per_s))
    parts = arrivals.shards(load.rates_per_s, duration, seeds["arrivals"], load.shards, process)
    count = sum(map(len, parts))
    if not count:
        rate = ",".join(f"{rate:g}" for rate in load.rates_per_s) or "the trace's"
        fault = f"--rate {rate} and --duration {duration:g}: no request falls into this time"
        raise ConfigError(f"{fault}: raise --rate or --duration")
    rates = load.rates_per_s if load.arrivals in ("ramp", "steps") else load.rates_per_s[:1] or (count / duration,)
    warm = _warmup(load, rates[0], seeds["warmup"])
    shift = round(load.warmup_s * 1e9)
    whole = [np.concatenate([w, p + shift]) for w, p in zip(warm, parts, strict=True)]
    choice = arrivals.payload_choice(sum(map(len, whole)), len(load.bodies), seeds["payload"], load.order)
    if load.order != "random":  # one order for all shards together
        choice = choice[np.argsort(np.argsort(np.concatenate(whole), kind="stable"), kind="stable")]
    cuts = np.cumsum([len(s) for s in whole])[:-1]
    return Plan(whole, np.split(choice, cuts), load.warmup_s + duration, float(np.mean(rates)))


def _length_s(times: Schedule) -> float:
    """Return a duration (s) that holds a trace's last arrival and one mean gap after it."""
    last = int(times[-1])
    return (last + max(1, round(last / max(1, len(times) - 1)))) / 1e9


def _warmup(load: Load, rate: float, seed: np.random.SeedSequence) -> list[Schedule]:
    """Draw the load before the measured part, at its first rate.

    Its process is the same where the rate is constant, and Poisson where the rate changes or comes from a trace.
    """
    if not load.warmup_s or not rate:
        return [np.empty(0, np.int64)] * load.shards
    steady = load.arrivals in ("constant", "gamma")
    process = Process(load.arrivals, load.cv) if steady else arrivals.POISSON
    return list(arrivals.shards(rate, load.warmup_s, seed, load.shards, process))


# -------------------------------------------------------------------------------------------- the load


def run(load: Load, plan: Plan, progress: Progress | None = None, cluster: Cluster | None = None) -> Outcome:
    """Send a load and return all its rows; Ctrl-C ends it early.

    Args:
        load: what to send.
        plan: its schedules, from :func:`schedules`.
        progress: called a few times a second from the start on.
        cluster: the workers that send it; None for this machine alone.

    Raises:
        ConfigError: an unknown host, or a file of certificates that cannot be read.
        EngineError: the engine failed.
    """
    loadavg, steal, started = os.getloadavg()[0], machine.steal_ticks(), dt.datetime.now(dt.UTC)
    each = load.connections // load.shards
    interrupted = False
    send: Callable[..., engine.Result] = partial(distributed.run, cluster) if cluster else engine.run
    try:
        result = send(
            load.url,
            load.bodies,
            plan.schedules,
            plan.choices,
            timeout_s=load.timeout_s,
            connections=each,
            open_first=min(8, each) if load.keep_alive else 0,
            keep_alive=load.keep_alive,
            headers=load.headers,
            max_streams=load.streams or 2**31,
            cores=cores[0] if (cores := machine.split_cores()) and load.shards == 1 and not cluster else (),
            gzip=load.gzip,
            ca=load.ca,
            insecure=load.insecure,
            targets=(load.connect_to,) if load.connect_to else (),
            method=load.method,
            authority=load.authority,
            certificate=load.certificate,
            key=load.key,
            give_up=load.give_up,
            streaming=load.streaming,
            progress=progress,
        )
    except engine.Interrupted as error:
        result, interrupted = error.result, True
    samples, duration_s = result.samples, plan.duration_s
    if interrupted:
        duration_s = max(float(samples["due_ns"].max()) / 1e9, 1e-9)
    manifest = LoadManifest(
        url=load.url,
        arrivals=load.arrivals,
        cv=load.cv if load.arrivals == "gamma" else None,
        trace=str(load.trace) if load.trace else None,
        rates_per_s=list(load.rates_per_s),
        rate_per_s=plan.rate_per_s,
        planned_s=plan.duration_s,
        duration_s=duration_s,
        warmup_s=load.warmup_s,
        timeout_s=load.timeout_s,
        seed=load.seed,
        pool=len(load.bodies),
        order=load.order,
        method=load.method,
        authority=load.authority,
        connect_to=load.connect_to,
        streaming=load.streaming.way if load.streaming else "",
        expected_messages=load.streaming.expected if load.streaming else 0,
        done=load.streaming.done.decode() if load.streaming else "",
        header_names=sorted(load.headers),  # their values may be secret
        connections=load.connections,
        streams=load.streams,
        shards=load.shards,
        cluster=cluster.spec.text if cluster else "",
        keep_alive=load.keep_alive,
        gzip=load.gzip,
        insecure=load.insecure,
        rows=len(samples),
        interrupted=interrupted,
        started_at=started.isoformat(timespec="seconds"),
        generator=result.generator,
        host=_host(load, loadavg, steal, result.generator),
    )
    messages = result.chunks
    if messages is not None:
        messages = messages.assign(trial_id=_trial_id(load, len(messages)))
    samples = samples.assign(trial_id=load.out.stem if load.out else "load")
    return Outcome(samples, manifest, interrupted, messages, result.tokens)


def _trial_id(load: Load, rows: int) -> "pd.Categorical[str]":
    name = load.out.stem if load.out else "load"
    return pd.Categorical.from_codes(np.zeros(rows, np.int8), pd.Index([name]))


def _host(load: Load, loadavg: float, steal: tuple[int, int], generator: Generator) -> Host:
    stolen, ticks = (after - before for after, before in zip(machine.steal_ticks(), steal, strict=True))
    return Host(
        same_host=_is_here(f"{parse(load.url).scheme}://{load.connect_to}/a/b" if load.connect_to else load.url),
        loadavg_1m=round(loadavg, 2),
        steal_fraction=max(
            [stolen / ticks if ticks else 0.0, *(one.steal_fraction or 0.0 for one in generator.workers)]
        ),
        cores=len(os.sched_getaffinity(0)),
    )


def _is_here(url: str) -> bool:
    """Return whether a URL's host is this machine: a Unix socket, a loopback address, or one of its own."""
    target = parse(url)
    if target.socket_path:
        return True
    try:
        address = str(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)[0][4][0])
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))  # only an own address can be bound
    except OSError:
        return False
    return True


def store(file: Path, outcome: Outcome, summary: dict[str, object]) -> None:
    """Write the rows to a Parquet file and, beside it, those of a stream's messages, and the manifest with the machine
    and the summary of the rows."""
    write(file, outcome.samples)
    if outcome.chunks is not None:
        chunks.write(chunks.beside(file), outcome.chunks)
    manifest = outcome.manifest
    manifest.machine, manifest.commit, manifest.versions = machine.describe(), machine.commit(), machine.versions()
    manifest.summary = summary
    manifests.write(file.with_suffix(".json"), manifest)
