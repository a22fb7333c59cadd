"""Service times as a simulation needs them, from the rows of an arm with one replica at light load.

Of a request that met no other, the round trip is what a worker held it for, and what passed beside: network, a proxy's
hop, the server's other threads. The two are told apart by requests that queued: behind one worker they leave apart by
what the worker holds each for, whatever passes beside. So the worker's time has the mean of those gaps and the spread
of the lone round trips, and the rest is a constant. This is Lindley's recursion read backwards.
Where a cache answered some, its hits are what passes beside.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from infscale.errors import DataError
from infscale.experiment.design.arm import Arm
from infscale.records.gate import VALID, Floats
from infscale.records.runs import Run, Trial

FEWEST = 100
"""Fewest lone requests from which service times are drawn."""

BEYOND = 5
"""Fewest drawn values that must lie beyond a percentile for it to be simulated: of fewer, single requests decide."""

GAPS = 30
"""Fewest requests that queued, by which a worker's time is told from what passes beside."""

UNBOUNDED = 1 << 30
"""Workers of a replica that takes any number of requests at a time."""

WORKERS = {"triton": ("instances", 1), "torchserve": ("workers", 1)}
"""The option of a framework that sets its workers, and their number without it; another has :data:`UNBOUNDED`."""

COMPUTING = 0.5
"""Share of a worker's time that the server's processes spend on a core, from which on a model is said to compute."""


@dataclass(frozen=True)
class Service:
    """What a request takes of one replica.

    Attributes:
        parts: for how long a worker holds a request, s, drawn from as they are; those of each lifetime, shape (n,).
        beside_s: what passes beside, s: the same for every request.
        workers: how many requests a replica works on at a time.
        hit_share, hit_s: the share of requests that a cache answered, and how long such a one took, s; 0 without.
        server_cpu_s, other_cpu_s: CPU of a request more in the replica's processes, and in all others (client,
            balancer), s; NaN where it was not measured.
        rate_per_s: λ at which it was measured; NaN for none.
        source: what it was taken from, in words.
        note: what could not be told, in words; "" for nothing.
    """

    parts: tuple[Floats, ...]
    beside_s: float = 0.0
    workers: int = 1
    hit_share: float = 0.0
    hit_s: float = 0.0
    server_cpu_s: float = float("nan")
    other_cpu_s: float = float("nan")
    rate_per_s: float = float("nan")
    source: str = ""
    note: str = ""

    @property
    def held(self) -> Floats:
        """Return all values of how long a worker holds a request, s, in ascending order."""
        return np.sort(np.concatenate(self.parts))

    @property
    def mean_s(self) -> float:
        """Return their mean, s."""
        return float(self.held.mean())

    @property
    def computes(self) -> bool:
        """Whether the server's processes are on a core for most of a worker's time; False where that is unknown."""
        return bool(self.server_cpu_s >= COMPUTING * self.mean_s)

    def check(self, percentile: float) -> None:
        """Check that there are enough values to simulate a percentile (between 0 and 1).

        Raises:
            DataError: there are not; with the least number.
        """
        least = max(FEWEST, round(BEYOND / (1 - percentile)))
        if len(self.held) < least:
            raise DataError(
                f"{self.source or 'service times'}: {len(self.held)} requests that met no other are too few to "
                f"simulate p{100 * percentile:g}; needed: {least} (measure more lifetimes, or ask for a lower one)"
            )


def split(parts: Sequence[Floats], share: float) -> tuple[tuple[Floats, ...], Floats]:
    """Return the misses of each part, and the hits of all, where a cache answered a share of the requests.

    Rows do not say which were hits: the fastest ones are taken for them.

    Args:
        parts: times, shape (n,) each.
        share: of hits, from 0 to below 1.
    """
    ordered = [np.sort(part) for part in parts]
    cuts = [round(share * len(part)) for part in ordered]
    misses = tuple(part[cut:] for part, cut in zip(ordered, cuts, strict=True))
    return misses, np.concatenate([part[:cut] for part, cut in zip(ordered, cuts, strict=True)])


def of_arm(run: Run, number: int) -> Service:
    """Return the service times of an arm with one replica, from its VALID trials at the lowest rate that has some.

    Args:
        run: a stored run.
        number: of the arm.

    Raises:
        DataError: it has several replicas, is a closed loop or streams, has no such trial, or too few lone requests.
    """
    arm, label = run.manifest.design.every_arm()[number], run.labels[number]
    if arm.replicas > 1 or arm.closed or arm.streams or arm.slow_ms:
        raise DataError(
            f"{label}: service times come from an open loop on one replica with single replies; accepted: such an arm"
        )
    trials = [
        trial
        for trial in run.trials
        if trial.manifest.arm_number == number
        and trial.manifest.phase == "grid"
        and trial.manifest.judged.name == VALID
    ]
    if not trials:
        raise DataError(f"{label}: no VALID trial at a set rate, and so no service times; measure it again")
    rate = min(trial.manifest.rate_per_s for trial in trials)
    light = [trial for trial in trials if trial.manifest.rate_per_s == rate]
    return _service(arm, light, trials, f"{label} at {rate:g} requests/s")


def workers_of(arm: Arm) -> int:
    """Return how many requests a replica of the arm works on at a time."""
    if arm.framework not in WORKERS:
        return UNBOUNDED
    option, usual = WORKERS[arm.framework]
    return int(dict(arm.options).get(option, usual))


def _service(arm: Arm, light: Sequence[Trial], trials: Sequence[Trial], source: str) -> Service:
    tables = list(_rows(light))
    lone = [_lone(rows) for rows in tables]
    workers = workers_of(arm)
    hit_share, hit_s = _hit_share(light), 0.0
    if hit_share:
        misses, hits = split(lone, hit_share)
        lone, hit_s = list(misses), float(hits.mean()) if len(hits) else 0.0
    count = sum(len(part) for part in lone)
    if count < FEWEST:
        what = "requests that met no other" + (" and were no hits of a cache" if hit_share else "")
        raise DataError(
            f"{source}: {count} {what} are too few to simulate from; needed: {FEWEST} (measure more lifetimes)"
        )
    every = np.concatenate(lone)
    if hit_share:
        beside, note = hit_s, "a worker's time is that of a request that was no hit, less that of a hit"
    else:
        held, note = _held_s(tables, float(np.median(every)), light, workers)
        beside = max(0.0, float(every.mean()) - held) if held else 0.0
    server, other = _cpu_s(trials)
    return Service(
        tuple(np.maximum(part - beside, 1e-9) for part in lone if len(part)),
        beside,
        workers,
        hit_share,
        hit_s,
        server,
        other,
        light[0].manifest.rate_per_s,
        source,
        note,
    )


def _hit_share(light: Sequence[Trial]) -> float:
    """Return the share of the requests that a cache answered; 0 without one."""
    hits, misses = (sum(trial.manifest.cache.get(name, 0.0) for trial in light) for name in ("hits", "misses"))
    return hits / (hits + misses) if hits else 0.0


def _rows(light: Sequence[Trial]) -> Iterator[pd.DataFrame]:
    """Yield the rows of each lifetime's trial that succeeded, in the order of sending; times in s."""
    for trial in light:
        rows = trial.samples(["scheduled_ns", "sent_ns", "done_ns", "status"])
        ok = rows[rows["status"] == "ok"].sort_values("sent_ns")
        times = {name: ok[f"{name}_ns"].to_numpy() / 1e9 for name in ("scheduled", "sent", "done")}
        yield pd.DataFrame(times)


def _lone(rows: pd.DataFrame) -> Floats:
    """Return the response times of the requests that met no other, s."""
    ended = np.maximum.accumulate(rows["done"].to_numpy())
    alone = np.append(True, rows["sent"].to_numpy()[1:] >= ended[:-1])
    times: Floats = (rows["done"] - rows["scheduled"]).to_numpy()[alone]
    return times


def _held_s(tables: Sequence[pd.DataFrame], median: float, light: Sequence[Trial], workers: int) -> tuple[float, str]:
    """Return for how long a worker holds a request on average, s, 0 where unknown, and what could not be told."""
    if workers == 1:
        gaps = np.concatenate([_gaps(rows, median / 2) for rows in tables])
        if len(gaps) >= GAPS:
            return float(gaps.mean()), ""
    told = [trial.manifest.components.compute for trial in light if trial.manifest.components]
    if told and np.isfinite(told).all():
        return float(np.mean(told)) / 1e3, "a worker's time is the server's own mean"
    return 0.0, "a worker's time is not told from what passes beside: all of it counts as the worker's"


def _gaps(rows: pd.DataFrame, margin: float) -> Floats:
    """Return the times between the ends of requests that queued and of those before them, s.

    A request queued for certain if it was sent more than a margin before the one ahead of it came back.
    """
    sent, done = (rows[name].to_numpy()[np.argsort(rows["done"].to_numpy())] for name in ("sent", "done"))
    gaps: Floats = np.diff(done)[sent[1:] < done[:-1] - margin]
    return gaps


def _cpu_s(trials: Sequence[Trial]) -> tuple[float, float]:
    """Return the CPU of a request in the server's processes and in others, s.

    It is how much the cores in use grow with the rate: at low rates a server's own housekeeping, which no request
    causes, is more than all requests. With one rate alone it counts as theirs.
    """
    used = np.array([[trial.manifest.rate_per_s, *_cores(trial)] for trial in trials if trial.manifest.usage])
    if not len(used):
        return math.nan, math.nan
    if len(set(used[:, 0])) == 1:
        server, other = used[:, 1:].mean(axis=0) / used[0, 0]
    else:
        (server, other), _ = np.polyfit(used[:, 0], used[:, 1:], 1)
    return max(0.0, float(server)), max(0.0, float(other))


def _cores(trial: Trial) -> tuple[float, float]:
    """Return how many cores the server's processes used in a trial, and how many all others."""
    groups = [(name, used.cores) for name, used in trial.manifest.usage.items() if used.cores is not None]
    server = sum(cores for name, cores in groups if name.startswith("server"))
    return server, sum(cores for _, cores in groups) - server
