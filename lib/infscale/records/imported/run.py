"""A run of this project from the result files of another tool: a file is a lifetime, each load in it a trial."""

import datetime as dt
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from infscale import machine
from infscale.errors import MAX_DURATION_S, ConfigError, DataError, one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import P95, Contrast, Design
from infscale.machine import Machine
from infscale.records import manifest as manifests
from infscale.records import samples
from infscale.records.gates.verdict import judge_trial
from infscale.records.imported import guidellm, k6
from infscale.records.imported.source import Load
from infscale.records.manifest import (
    Generator,
    Host,
    Implementation,
    Lifetime,
    Pilot,
    RunManifest,
    Seeds,
    ServerProcess,
    Session,
    TrialManifest,
)
from infscale.vocabulary import OTHER

READERS = {"guidellm": guidellm.read, "k6": k6.read}
"""The tools whose files can be read."""

UNKNOWN = Machine("unknown (imported)", 0, None, 0.0, "unknown", "unknown", "unknown")
"""The machine of a tool whose file does not describe it."""

SIDES = ("reference", "candidate")
"""The ``model`` of the arms of two sides that are compared; of one side it is "imported"."""

LEAST = 4
"""Fewest lifetimes by which a contrast is looked at; as :data:`infscale.analysis.answers.LEAST`."""

Kind = tuple[str, str, int]
"""What makes an arm: the side, the client, and the number of users."""


@dataclass(frozen=True)
class Part:
    """One load: of which arm it is a trial, in which lifetime, which attempt, and at which rate, requests/s."""

    kind: Kind
    lifetime: int
    attempt: int
    rate_per_s: float
    load: Load


def store(tool: str, files: Sequence[Sequence[Path]], place: Path) -> Path:
    """Write a run from result files, and return its folder.

    Args:
        tool: one of :data:`READERS`.
        files: of one side, or of the reference and the candidate; the k-th file of each side is lifetime k.
        place: the folder of runs, absolute.

    Raises:
        ConfigError: an unknown tool, another number of files on the other side, or a folder that cannot be written.
        DataError: a file cannot be read, or is none of the tool's.
    """
    one_of("tool", tool, READERS)
    if len({len(side) for side in files}) > 1:
        counts = " and ".join(str(len(side)) for side in files)
        raise ConfigError(f"{counts} files: the k-th of each side are compared; accepted: as many of both sides")
    names = SIDES if len(files) == 2 else ("imported",)
    loads = [
        (name, lifetime, load)
        for name, side in zip(names, files, strict=True)
        for lifetime, file in enumerate(side)
        for load in READERS[tool](file)
    ]
    parts = _parts(loads)
    manifest = _manifest(tool, parts, len(files[0]))
    folder, unfinished = place / manifest.run_id, place / f".new-{os.getpid()}"
    try:
        (unfinished / "trials").mkdir(parents=True)
        manifests.write(unfinished / "run.json", manifest)
        for part in parts:
            _write(unfinished / "trials", manifest, part)
        unfinished.rename(folder)
    except OSError as error:
        raise ConfigError(f"{place} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _parts(loads: Sequence[tuple[str, int, Load]]) -> list[Part]:
    """Return the trials. Users have no nominal rate: theirs is the mean of what all their loads got answered."""
    answered: dict[tuple[str, int], list[float]] = {}
    for _, _, load in loads:
        if load.rate_per_s is None:
            answered.setdefault((load.client, load.connections), []).append(_answered_per_s(load))
    tries: Counter[tuple[Kind, int, float]] = Counter()
    parts = []
    for side, lifetime, load in loads:
        rate = load.rate_per_s or float(f"{np.mean(answered[load.client, load.connections]):.3g}") or 1.0
        kind = side, load.client, load.connections
        tries[kind, lifetime, rate] += 1
        parts.append(Part(kind, lifetime, tries[kind, lifetime, rate], rate, load))
    return parts


def _answered_per_s(load: Load) -> float:
    done = load.rows["status"].eq("ok") & (load.rows["done_ns"] < load.duration_s * 1e9)
    return float(done.sum()) / load.duration_s


def _manifest(tool: str, parts: Sequence[Part], lifetimes: int) -> RunManifest:
    kinds = list(dict.fromkeys(part.kind for part in parts))
    arms = {kind: _arm(kind) for kind in kinds}
    numbers = {kind: number for number, kind in enumerate(kinds)}
    pairs = [(kind, (SIDES[0], *kind[1:])) for kind in kinds if kind[0] == SIDES[1]]
    contrasts = tuple(Contrast(numbers[kind], numbers[other], P95) for kind, other in pairs if other in numbers)
    design = Design(
        finding=f"import-{tool}",
        question=f"What do the files of {tool} show?",
        arms=tuple(arms.values()),
        contrasts=contrasts,
        profile="imported",
        budget_s=min(MAX_DURATION_S, sum(part.load.duration_s for part in parts)),
        least=min(LEAST, lifetimes),
        trial_s=max(part.load.duration_s for part in parts),
        timeout_s=max(part.load.timeout_s for part in parts),
        seed=0,
    )
    began, ended = (pick(part.load.started_at for part in parts) for pick in (min, max))
    rates = {
        block[0]: _rates([part for part in parts if numbers[part.kind] in block], lifetimes)
        for block in design.blocks()
    }
    return RunManifest(
        run_id=f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H%M%S}-{tool}-{secrets.token_hex(2)}",
        design=design,
        status="complete",
        rates_per_s={block: common for block, (common, _) in rates.items()},
        curve_per_s={block: others for block, (_, others) in rates.items() if others},
        first_look=max(LEAST, lifetimes),
        lifetimes=[_lifetime(numbers, parts, number) for number in range(lifetimes)],
        pilot={numbers[kind]: _pilot(kind, parts) for kind in kinds},
        implementations={name: _implementation(name, tool) for name in dict.fromkeys(kind[0] for kind in kinds)},
        design_digest=design.digest(),
        code_digest="imported",
        environment_digest="imported",
        machine=UNKNOWN,
        versions=dict.fromkeys([part.load.reported.tool for part in parts], "imported"),
        commit=machine.commit(),
        clock=f"as {tool} read it",
        sessions=[Session(started_at=began, trials=len(parts), seconds=design.budget_s)],
        started_at=began,
        finished_at=ended,
    )


def _arm(kind: Kind) -> Arm:
    side, client, users = kind
    return Arm("rest", framework=OTHER, model=side, client=client, connections=users)


def _rates(parts: Sequence[Part], lifetimes: int) -> tuple[list[float], list[float]]:
    """Return the rates at which every arm of a block has a trial in every lifetime, and the others.

    Where there is none, the rates that most lifetimes have.
    """
    kinds = {part.kind for part in parts}
    times = Counter(rate for rate, *_ in {(part.rate_per_s, part.kind, part.lifetime) for part in parts})
    most = max(times.values())
    common = sorted(rate for rate, count in times.items() if count == min(most, lifetimes * len(kinds)))
    return common, sorted(rate for rate in times if rate not in common)


def _lifetime(numbers: Mapping[Kind, int], parts: Sequence[Part], number: int) -> Lifetime:
    own = [part for part in parts if part.lifetime == number]
    return Lifetime(arms=sorted(numbers.values()), number=number, seconds=sum(part.load.duration_s for part in own))


def _pilot(kind: Kind, parts: Sequence[Part]) -> Pilot:
    most = max(_answered_per_s(part.load) for part in parts if part.kind == kind)
    return Pilot(implementation=kind[0], saturation_per_s=most)


def _implementation(name: str, tool: str) -> Implementation:
    label = f"a server, by {tool}" if name == "imported" else f"the {name}, by {tool}"
    return Implementation(
        name=name, framework=OTHER, implementation=name, version="unknown", label=label, runtime="unknown", model=name
    )


def _write(folder: Path, run: RunManifest, part: Part) -> None:
    """Write one trial's rows, and its manifest with its verdict."""
    load, number = part.load, run.design.arms.index(_arm(part.kind))
    users = f"-{part.kind[2]}-users" if part.kind[2] else ""
    name = f"{part.kind[0]}-{part.kind[1]}{users}-{part.rate_per_s:.9g}-l{part.lifetime}-a{part.attempt}"
    rows = load.rows.assign(trial_id=name)
    trial = TrialManifest(
        trial_id=name,
        run_id=run.run_id,
        machine_digest=run.machine.digest(),
        lifetime=part.lifetime,
        attempt=part.attempt,
        arm_number=number,
        arm=msgspec.structs.replace(run.design.arms[number], encoding="as sent"),
        block=run.design.block(number),
        implementation=part.kind[0],
        rate_per_s=part.rate_per_s,
        duration_s=load.duration_s,
        timeout_s=load.timeout_s,
        seeds=Seeds(entropy=0, arrivals=[], payload=[]),
        pool=1,
        generator=Generator(
            client=load.client,
            cpu_user_s=0.0,
            cpu_system_s=0.0,
            cpu_s=0.0,
            wall_s=load.duration_s,
            reasons=load.reasons,
            reported=load.reported,
        ),
        server=ServerProcess(command=[], pids=[], ready_s=0.0),
        rows=len(rows),
        host=Host(),
        started_at=load.started_at,
    )
    trial.verdict = judge_trial(rows, trial)
    try:
        samples.write(folder / f"{name}.parquet", rows)
    except (OverflowError, ValueError) as error:
        raise DataError(f"{name}: its rows cannot be stored: {error}") from error
    manifests.write(folder / f"{name}.json", trial)
