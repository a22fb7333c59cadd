"""Runs of one design that several machines have measured, as one table with the machine as a factor."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import pandas as pd

from infscale.analysis.candidate.stored import differing_designs
from infscale.analysis.merging.pooled import Estimate, Pooled, estimate, pool
from infscale.analysis.tables.contrasts import contrasts_table, lifetime_values
from infscale.analysis.tables.trials import trials_table
from infscale.errors import ConfigError, DataError
from infscale.experiment.design.design import AT_MODERATE_LOAD, Contrast
from infscale.records.runs import Run


@dataclass(frozen=True)
class Source:
    """A run and the name of the machine that measured it; ``told`` where the user gave the name."""

    machine: str
    run: Run
    told: bool = False


@dataclass(frozen=True)
class OfMachine:
    """What one machine's run says of a contrast.

    Attributes:
        machine, run_id: where it was measured.
        estimate: from the run's lifetimes.
        answer: what the run by itself says: "differs", "equal" or "undecided"; "" where an arm was not measured.
        rates_per_s: the arrival rates of moderate load on this machine; empty of a metric that is not taken there.
    """

    machine: str
    run_id: str
    estimate: Estimate
    answer: str
    rates_per_s: tuple[float, ...]


@dataclass(frozen=True)
class Merged:
    """What all machines say of one contrast: each by itself, and together; ``pooled`` is None of too few."""

    contrast: Contrast
    machines: tuple[OfMachine, ...]
    pooled: Pooled | None


def check_mergeable(sources: Sequence[Source]) -> None:
    """Find out whether runs can stand in one table.

    Raises:
        DataError: they cannot; the message says why.
        ConfigError: fewer than two runs, or two machines of one name.
    """
    if len(sources) < 2:
        raise ConfigError(
            "merge needs the runs of two machines or more; accepted: RUN RUN ..., or NAME=RUN NAME=RUN ..."
        )
    for source in sources:
        if source.run.manifest.status != "complete":
            raise DataError(f"{source.run.folder} is not complete: measure it to its end before it is merged")
    for one, other in combinations(sources, 2):
        _check_pair(one, other)


def _check_pair(one: Source, other: Source) -> None:
    """Raise unless two runs are of one design, and of two machines."""
    first, second = one.run.manifest, other.run.manifest
    if first.run_id == second.run_id and first.machine == second.machine:
        raise DataError(f"{one.run.folder} and {other.run.folder} are the same run: give each once")
    differing = differing_designs(first, second)
    if first.design.contrasts != second.design.contrasts:
        differing.append("the design's contrasts")
    if first.design.slo != second.design.slo:
        differing.append(f"the design's slo ({first.design.slo} and {second.design.slo})")
    differing += _differing_servers(one.run, other.run)
    if differing:
        raise DataError(
            f"{first.run_id} and {second.run_id} cannot be merged, because not only the machine "
            f"differs: so do {'; '.join(differing)}"
        )
    if one.machine == other.machine:
        raise ConfigError(f"two runs have the machine {one.machine!r}: give one run of each machine")
    if first.machine == second.machine and not (one.told and other.told):
        raise DataError(
            f"{first.run_id} and {second.run_id} look like runs of one machine ({first.machine.cpu}, "
            f"{first.machine.cores} cores): give one of them. If two machines are alike, name them: "
            f"NAME={one.run.folder} OTHER={other.run.folder}"
        )


def _differing_servers(first: Run, second: Run) -> list[str]:
    """Return which arms were answered by other servers in the second run, or by other versions of them."""
    servers = [{arm: _server(run, arm) for arm in run.measured} for run in (first, second)]
    pairs = {(servers[0][arm], servers[1][arm]) for arm in servers[0].keys() & servers[1].keys()}
    return [f"what answers ({one} and {other})" for one, other in sorted(pairs) if one != other]


def _server(run: Run, arm: int) -> str:
    """Return what answered an arm, with its version."""
    name = run.implementation(arm)
    known = run.manifest.implementations.get(name)
    return f"{name} {known.version}" if known else name


def merge(sources: Sequence[Source]) -> list[Merged]:
    """Return what each machine says of every named contrast, and all together.

    Args:
        sources: runs that :func:`check_mergeable` accepts.

    Raises:
        DataError: they cannot be merged, or a run's rows cannot be read.
        ConfigError: as :func:`check_mergeable`.
    """
    check_mergeable(sources)
    by_machine = [dict(_of_run(source)) for source in sources]
    merged = []
    for contrast in sources[0].run.manifest.design.contrasts:
        own = tuple(found[contrast] for found in by_machine)
        merged.append(Merged(contrast, own, pool([one.estimate for one in own])))
    return merged


def _of_run(source: Source) -> Iterator[tuple[Contrast, OfMachine]]:
    """Yield every named contrast with what a run says of it."""
    run, manifest = source.run, source.run.manifest
    trials = trials_table(run)
    there = set(trials["arm"])
    named = [one for one in manifest.design.contrasts if {one.arm, one.reference} <= there]
    values = dict(zip(named, lifetime_values(manifest, trials, named), strict=True))
    said = dict(zip(named, contrasts_table(manifest, trials)["answer"], strict=True))
    for contrast in manifest.design.contrasts:
        moderate = contrast.metric in AT_MODERATE_LOAD
        rates = manifest.rates_per_s.get(manifest.design.block(contrast.arm), []) if moderate else []
        found = estimate(values.get(contrast, []))
        yield contrast, OfMachine(source.machine, run.id, found, str(said.get(contrast, "")), tuple(rates))


def differing_packages(sources: Sequence[Source]) -> dict[str, dict[str, str]]:
    """Return the packages whose versions differ between the machines: by package, the version by machine."""
    versions = {source.machine: source.run.manifest.versions for source in sources}
    names = sorted({name for own in versions.values() for name in own})
    by_name = {name: {machine: own.get(name, "none") for machine, own in versions.items()} for name in names}
    return {name: own for name, own in by_name.items() if len(set(own.values())) > 1}


def table(merged: Sequence[Merged], names: Sequence[str]) -> pd.DataFrame:
    """Return one row for each contrast and machine, and one more for each contrast that is pooled.

    The machine is a factor, in the column ``machine``; a pooled row has :data:`POOLED` there. ``ratio``, ``low`` and
    ``high`` are a ratio with its 95 % interval; ``lifetimes``, or of a pooled row ``machines``, what it rests on.
    ``why`` says why a machine's row enters no pooled one. ``between``, ``next`` and their ends are those of
    :class:`infscale.analysis.merging.pooled.Pooled`.

    Args:
        merged: of :func:`merge`.
        names: what each contrast is called.
    """
    rows: list[dict[str, object]] = []
    for one, name in zip(merged, names, strict=True):
        common: dict[str, object] = {"contrast": name, "metric": one.contrast.metric}
        for own in one.machines:
            rates = " ".join(f"{rate:g}" for rate in own.rates_per_s)
            factors = {"machine": own.machine, "run_id": own.run_id, "answer": own.answer, "rates_per_s": rates}
            rows.append(common | factors | asdict(own.estimate))
        if one.pooled is not None:
            rows.append(common | {"machine": POOLED} | asdict(one.pooled))
    texts = dict.fromkeys(("run_id", "why", "answer", "rates_per_s"), "")
    counts = dict.fromkeys(("lifetimes", "machines"), "Int64")
    return pd.DataFrame(rows, columns=COLUMNS).fillna(texts).astype(counts)


POOLED = "pooled"
"""The machine of a pooled row: none, and all."""

COLUMNS = [
    *("contrast", "metric", "machine", "run_id", "ratio", "low", "high", "lifetimes", "why", "answer", "rates_per_s"),
    *("machines", "between", "between_low", "between_high", "next_low", "next_high"),
]
"""The columns of :func:`table`."""
