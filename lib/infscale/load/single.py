"""``infscale load``: the load engine alone, against any URL. It knows nothing of models or frameworks."""

import argparse
import datetime as dt
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from infscale import machine
from infscale.cli import load_options
from infscale.cli.load_options import Load
from infscale.errors import ConfigError
from infscale.load import schedule as arrivals
from infscale.load.engine import run as engine
from infscale.load.engine.job import parse
from infscale.load.schedule import Process, Schedule
from infscale.records.manifest import write_json
from infscale.records.samples import SCHEMA_VERSION, write

MEASURED, BAD, GENERATOR_FAILED, NOTHING_SUCCEEDED, INTERRUPTED = 0, 1, 3, 4, 130
"""Exit codes; 1 is given by :func:`infscale.cli.main` for any :class:`infscale.errors.InfscaleError`."""

_DRAWS = ("arrivals", "payload", "warmup")


@dataclass(frozen=True)
class Outcome:
    """A finished load: every row (``infscale.records.samples``), warm-up included, and its manifest.

    The manifest's ``duration_s`` is that of all arrivals, of which the first ``warmup_s`` are left out of the
    numbers; of an interrupted load, it is the time until the interruption.
    """

    samples: pd.DataFrame
    manifest: dict[str, Any]
    interrupted: bool


def main(words: argparse.Namespace) -> int:
    """Check the options, load, report; returns the exit code.

    Raises:
        InfscaleError: bad input, or the engine failed.
    """
    load = load_options.check(words)
    try:
        plan = schedules(load)
        with _ended_by_signals(), _bar(plan.duration_s) as progress:
            outcome = run(load, plan, progress)
            if not outcome.interrupted:
                progress(plan.duration_s)
    except KeyboardInterrupt:
        print("infscale: interrupted before the first request", file=sys.stderr)
        return INTERRUPTED
    from infscale.cli import load_report  # not before: SciPy takes a second of the CPU

    found = load_report.summarise(outcome.samples, outcome.manifest)
    if load.out:
        _store(load, outcome, found)
    print(load_report.as_json(found) if load.json else load_report.as_text(found))
    return _exit_code(found, outcome)


def _exit_code(found: Mapping[str, Any], outcome: Outcome) -> int:
    if outcome.interrupted:
        print("infscale: interrupted; what was not sent is 'unsent'", file=sys.stderr)
        return INTERRUPTED
    if not found["succeeded"]:
        kinds = ", ".join(f"{n} {kind}" for kind, n in found["errors"].items())
        reason = f" ({outcome.manifest['engine']['error']})" if outcome.manifest["engine"]["error"] else ""
        print(f"infscale: no request to {found['url']} succeeded: {kinds}{reason}", file=sys.stderr)
        return NOTHING_SUCCEEDED
    return GENERATOR_FAILED if found["verdict"] == "INVALID" else MEASURED


# ---------------------------------------------------------------------------------------- the schedule


@dataclass(frozen=True)
class Plan:
    """The schedules and choices of bodies, one for each shard, warm-up first.

    ``duration_s`` includes the warm-up; ``rate_per_s`` is the mean rate of the measured part (of a trace, its own).
    """

    schedules: list[Schedule]
    choices: list[Any]
    duration_s: float
    rate_per_s: float


def schedules(load: Load) -> Plan:
    """Draw what ``load`` asks for; the measured part is the same whatever the warm-up is.

    Raises:
        ConfigError: no request falls into the duration, or there would be too many.
        DataError: the trace cannot be read.
    """
    seeds = {name: np.random.SeedSequence(load.seed, spawn_key=(i,)) for i, name in enumerate(_DRAWS)}
    process = _process(load)
    duration = load.duration_s or _length_s(arrivals.replay(_trace(process), None, *load.rates_per_s))
    parts = arrivals.shards(load.rates_per_s, duration, seeds["arrivals"], load.shards, process)
    count = sum(map(len, parts))
    if not count:
        rate = ",".join(f"{rate:g}" for rate in load.rates_per_s) or "the trace's"
        raise ConfigError(f"--rate {rate} and --duration {duration:g} make no request; accepted: more of either")
    rates = load.rates_per_s if load.arrivals in ("ramp", "steps") else load.rates_per_s[:1] or (count / duration,)
    warm = _warmup(load, rates[0], seeds["warmup"])
    shift = round(load.warmup_s * 1e9)
    whole = [np.concatenate([w, p + shift]) for w, p in zip(warm, parts, strict=True)]
    choice = arrivals.payload_choice(sum(map(len, whole)), len(load.bodies), seeds["payload"])
    cuts = np.cumsum([len(s) for s in whole])[:-1]
    return Plan(whole, np.split(choice, cuts), load.warmup_s + duration, float(np.mean(rates)))


def _process(load: Load) -> Process:
    if load.trace is None:
        return Process(load.arrivals, load.cv)
    from infscale.load import trace as load_trace

    return Process(load.arrivals, trace=load_trace.read(load.trace, load.trace_column))


def _trace(process: Process) -> Schedule:
    assert process.trace is not None
    return process.trace


def _length_s(trace: Schedule) -> float:
    """A duration that holds the last arrival, and one mean gap after it."""
    last = int(trace[-1])
    return (last + max(1, round(last / max(1, len(trace) - 1)))) / 1e9


def _warmup(load: Load, rate: float, seed: np.random.SeedSequence) -> list[Schedule]:
    """Load before the measured part: the same process at its first rate; Poisson where the rate changes or is read."""
    if not load.warmup_s or not rate:
        return [np.empty(0, np.int64)] * load.shards
    steady = load.arrivals in ("constant", "gamma")
    process = Process(load.arrivals, load.cv) if steady else arrivals.POISSON
    return list(arrivals.shards(rate, load.warmup_s, seed, load.shards, process))


# -------------------------------------------------------------------------------------------- the load


def run(load: Load, plan: Plan, progress: Callable[[float], None] | None = None) -> Outcome:
    """Send the load and return all rows; Ctrl-C ends it early.

    Raises:
        ConfigError: an unknown host, or a file of certificates that cannot be read.
        EngineError: the engine failed.
    """
    loadavg, steal, started = os.getloadavg()[0], machine.steal_ticks(), dt.datetime.now(dt.UTC)
    each = load.connections // load.shards
    result = engine.run(
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
        cores=cores[0] if (cores := machine.split_cores()) and load.shards == 1 else (),
        gzip=load.gzip,
        ca=load.ca,
        insecure=load.insecure,
        progress=progress,
    )
    samples, duration_s = result.samples, plan.duration_s
    if result.interrupted:
        duration_s = max(float(samples["due_ns"].max()) / 1e9, 1e-9)
    manifest = _manifest(load, plan, duration_s) | {
        "rows": len(samples),
        "interrupted": result.interrupted,
        "started_at": started.isoformat(timespec="seconds"),
        "engine": result.stats,
        "host": {**_host(load.url, steal), "loadavg_1m": round(loadavg, 2)},
    }
    return Outcome(samples.assign(trial_id=load.out.stem if load.out else "load"), manifest, result.interrupted)


def _manifest(load: Load, plan: Plan, duration_s: float) -> dict[str, Any]:
    """What determined the load; values of headers may be secret and are left out."""
    return {
        "schema_version": SCHEMA_VERSION,
        "url": load.url,
        "arrivals": load.arrivals,
        "cv": load.cv if load.arrivals == "gamma" else None,
        "trace": str(load.trace) if load.trace else None,
        "rates_per_s": list(load.rates_per_s),
        "rate_per_s": plan.rate_per_s,
        "planned_s": plan.duration_s,
        "duration_s": duration_s,
        "warmup_s": load.warmup_s,
        "timeout_s": load.timeout_s,
        "seed": load.seed,
        "pool": len(load.bodies),
        "header_names": sorted(load.headers),
        "connections": load.connections,
        "streams": load.streams,
        "shards": load.shards,
        "keep_alive": load.keep_alive,
        "gzip": load.gzip,
        "insecure": load.insecure,
    }


def _host(url: str, steal: tuple[int, int]) -> dict[str, Any]:
    stolen, ticks = (after - before for after, before in zip(machine.steal_ticks(), steal, strict=True))
    return {
        "same_host": _is_here(url),
        "steal_fraction": stolen / ticks if ticks else 0.0,
        "cores": len(os.sched_getaffinity(0)),
    }


def _is_here(url: str) -> bool:
    """Whether a URL's host is this machine: a Unix socket, a loopback address, or one of its own."""
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


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM (``timeout``, ``kill``) keep the rows as Ctrl-C does, and SIGINT where a shell's ``&`` masks it."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(total_s: float) -> Iterator[Callable[[float], None]]:
    """A progress bar over the schedule, on standard error."""
    from tqdm import tqdm

    total = round(total_s, 1)
    with tqdm(total=total, unit="s", bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} s") as bar:

        def show(elapsed_s: float) -> None:
            bar.update(max(0.0, min(elapsed_s, total) - bar.n))

        yield show


def _store(load: Load, outcome: Outcome, found: Mapping[str, Any]) -> None:
    """Write the rows and, beside them, the manifest with the machine and what was found."""
    assert load.out is not None
    write(load.out, outcome.samples)
    described = {"machine": machine.describe(), "commit": machine.commit(), "versions": machine.versions()}
    write_json(load.out.with_suffix(".json"), {**outcome.manifest, "found": dict(found), **described})
