"""Stored runs: finding one, and reading its manifest and its trials.

A run is a folder with ``run.json``. While it is measured, each trial has files of its own, so that a crash loses none:
``trials/<trial_id>.parquet`` (rows), ``trials/<trial_id>.json`` (manifest) and, where usage was read,
``trials/<trial_id>.usage.parquet``, of streams also ``trials/<trial_id>.chunks.parquet`` (messages); a trial exists
when the first two do. A complete run is packed into ``trials.parquet``, ``samples.parquet``, ``usage.parquet`` and
``chunks.parquet`` (:mod:`infscale.records.pack`). Both read alike.
"""

import operator
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from infscale.display import Shown, Summary
from infscale.errors import DataError
from infscale.experiment.design.labels import labels
from infscale.paths import in_project, project_root
from infscale.records import chunks, packed, samples
from infscale.records import manifest as manifests
from infscale.records.manifest import RunManifest, TrialManifest
from infscale.vocabulary import clock

HEADLINE = "protocols"
"""The name of the headline finding, REST or gRPC (F0), for which :func:`find_run` looks by default."""


@dataclass(frozen=True)
class Trial:
    """One stored trial.

    Attributes:
        manifest: what is known of it.
        path: the Parquet file that holds its rows (read only when asked for).
        row_group: the trial's row group in that file; None where the file holds this trial alone.
        usage_path: the Parquet file that holds its readings of processes; None where there is none.
        chunks_path: the Parquet file that holds the messages of its streams; None of replies that are no streams.
        chunk_group: the trial's row group in that file; None where the file holds this trial alone.
    """

    manifest: TrialManifest
    path: Path
    row_group: int | None = None
    usage_path: Path | None = None
    chunks_path: Path | None = None
    chunk_group: int | None = None

    def samples(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the trial's rows (:mod:`infscale.records.samples`); none where a small copy has its verdict alone.

        Raises:
            DataError: they cannot be read, or are more or fewer than were measured.
        """
        rows = samples.read(self.path, columns, self.row_group)
        self._check_whole(rows, self.path, self.manifest.rows, "rows")
        return rows

    def chunks(self) -> pd.DataFrame | None:
        """Return the messages of the trial's streams (:mod:`infscale.records.chunks`), ordered by request and index.

        None of replies that are no streams; no rows where a small copy has the trial's verdict alone.

        Raises:
            DataError: they cannot be read, or are more or fewer than were measured.
        """
        if self.chunks_path is None or self.manifest.messages is None:
            return None
        found = chunks.read(self.chunks_path, self.chunk_group)
        self._check_whole(found, self.chunks_path, self.manifest.messages, "messages")
        return found

    def _check_whole(self, table: pd.DataFrame, path: Path, measured: int, what: str) -> None:
        """Raise DataError unless a table has all that was measured; a small copy leaves out trials of a search."""
        left_out = table.empty and self.row_group is not None and self.manifest.phase == "search"
        if len(table) != measured and not left_out:
            there = f"{path} has {len(table)} {what}"
            raise DataError(f"{there}; the trial {self.manifest.trial_id} has {measured}")

    def usage(self) -> pd.DataFrame:
        """Return the readings of processes (:mod:`infscale.records.usage`); empty where none were taken.

        Raises:
            DataError: they cannot be read.
        """
        if self.usage_path is None:
            return pd.DataFrame()
        if self.row_group is None:
            return samples.read_table(self.usage_path)
        readings = samples.read_table(self.usage_path, filters=[("trial_id", "==", self.manifest.trial_id)])
        return readings.drop(columns="trial_id").astype({"group": "category", "name": "category"})


@dataclass(frozen=True)
class Run(Shown):
    """One stored run: its folder, its manifest, and its trials in a fixed order."""

    folder: Path
    manifest: RunManifest
    trials: tuple[Trial, ...]

    @property
    def id(self) -> str:
        """The run's identifier."""
        return self.manifest.run_id

    def summary(self) -> Summary:
        """Return what was measured, where and when, with the trials by verdict, in a table."""
        manifest = self.manifest
        verdicts = Counter(one.manifest.verdict.name for one in self.trials if one.manifest.verdict)
        counts = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
        return Summary(
            manifest.design.question or manifest.design.finding,
            (
                ("run", str(self.folder)),
                ("status", f"{manifest.status}, begun {manifest.started_at[:16].replace('T', ' ')}"),
                ("machine", f"{manifest.machine.cpu}, {manifest.machine.cores} cores"),
                ("measured", f"{clock(manifest.measured_s)}, {len(manifest.lifetimes)} lifetimes"),
                ("trials", f"{len(self.trials)}: {counts}" if counts else str(len(self.trials))),
                *((f"arm {number}", self.labels[number]) for number in self.measured),
            ),
        )

    @cached_property
    def labels(self) -> list[str]:
        """The label of every arm of the design, by its number; an embedded server is named as one."""
        arms = self.manifest.design.every_arm()
        return labels(arms, [self.implementation(number) for number in range(len(arms))])

    @cached_property
    def measured(self) -> list[int]:
        """The numbers of the compared arms that were measured, in the order of the design."""
        return [number for number in range(len(self.manifest.design.arms)) if number in self.manifest.pilot]

    def implementation(self, arm: int) -> str:
        """Return what answered an arm, by its number; "" where it was not measured."""
        design, pilots = self.manifest.design, self.manifest.pilot
        if arm in pilots:
            return pilots[arm].implementation
        if arm < len(design.arms):
            return ""
        alike = (k for k in pilots if design.arms[k].deployment == design.every_arm()[arm].deployment)
        return next((pilots[k].implementation for k in alike), "")

    def system(self, implementation: str) -> str:
        """Return the name by which figures and reports call an implementation; it says what is embedded."""
        known = self.manifest.implementations.get(implementation)
        return known.label if known else implementation


def run_folder(folder: Path | str) -> Path:
    """Return the absolute path of a run's folder, which may be given from the project's root.

    Raises:
        DataError: it is no run.
    """
    path = in_project(folder)
    if not (path / "run.json").is_file():
        accepted = "the folder of a run, absolute or from the project's root, such as data/raw/<run>"
        raise DataError(f"{path} is not a run: it has no run.json; accepted: {accepted}")
    return path


def load_run(folder: Path | str) -> Run:
    """Read a run's manifests.

    A file without its partner is an interrupted write: left out with a warning.

    Args:
        folder: as :func:`run_folder` takes it.

    Raises:
        DataError: the folder is no run, a record is damaged (the message names file and field), a complete run lacks
            a file, or trials of several runs or machines are mixed.
    """
    folder = run_folder(folder)
    manifest = manifests.read(folder / "run.json", RunManifest)
    trials = _packed(folder) if manifest.packed else _loose(folder, manifest)
    _check_origin(folder, manifest, trials)
    return Run(folder, manifest, tuple(sorted(trials, key=order)))


def _packed(folder: Path) -> list[Trial]:
    trials = packed.read_trials(folder)
    with_usage, groups = packed.trials_with_usage(folder, trials), packed.chunk_groups(folder, trials)
    return [
        Trial(
            trial,
            folder / packed.SAMPLES,
            group,
            folder / packed.USAGE if trial.trial_id in with_usage else None,
            folder / packed.CHUNKS if trial.trial_id in groups else None,
            groups.get(trial.trial_id),
        )
        for group, trial in enumerate(trials)
    ]


def _loose(folder: Path, manifest: RunManifest) -> list[Trial]:
    stems = {
        suffix: {file.stem for file in (folder / "trials").glob(f"[!.]*{suffix}")} for suffix in (".json", ".parquet")
    }
    stems[".parquet"] = {stem for stem in stems[".parquet"] if not stem.endswith((".usage", ".chunks"))}
    unpaired = sorted(stems[".json"] ^ stems[".parquet"])
    if unpaired:
        message = f"{folder}: only one of two files exists for the trials {', '.join(unpaired)}"
        if manifest.status == "complete":
            raise DataError(f"{message}, although the run is complete: its data were damaged afterwards")
        warnings.warn(f"{message} (interrupted while writing): left out", stacklevel=3)
    return [_loose_trial(folder / "trials", name) for name in sorted(stems[".json"] & stems[".parquet"])]


def _loose_trial(folder: Path, name: str) -> Trial:
    usage = folder / f"{name}.usage.parquet"
    manifest = manifests.read(folder / f"{name}.json", TrialManifest)
    messages = None if manifest.messages is None else folder / f"{name}.chunks.parquet"
    return Trial(manifest, folder / f"{name}.parquet", None, usage if usage.is_file() else None, messages)


def _check_origin(folder: Path, manifest: RunManifest, trials: Iterable[Trial]) -> None:
    """Raise DataError unless every trial is of this run and of one machine."""
    machines = set()
    for trial in trials:
        if trial.manifest.run_id != manifest.run_id:
            stranger = f"{trial.manifest.trial_id} belongs to the run {trial.manifest.run_id}"
            raise DataError(f"{folder}: {stranger}, not to {manifest.run_id}: runs must not be pooled")
        machines.add(trial.manifest.machine_digest)
    if len(machines) > 1:
        names = ", ".join(sorted(machines))
        raise DataError(f"{folder}: trials of {len(machines)} machines ({names}) must not be pooled")


def find_run(run: str = "", root: Path | None = None, finding: str = HEADLINE) -> Path:
    """Return the folder of a run.

    Args:
        run: a path, absolute or from the project's root; "" takes the newest complete run of ``finding`` in
            ``data/raw``, else in ``data/sample``.
        root: the project's root (default: found from the working directory).
        finding: the name of the question that the run answers.

    Raises:
        DataError: there is none; the message says how to get one.
    """
    root = root or project_root()
    if run:
        return run_folder(root / run)
    for place in (root / "data" / "raw", root / "data" / "sample"):
        if latest := newest(place, finding):
            return latest
    command = "'make paper'" if finding == HEADLINE else f"'make finding F={finding}'"
    raise DataError(
        f"no complete run of {finding} in {root / 'data' / 'raw'} or {root / 'data' / 'sample'}: "
        f"measure one with {command}, or give the folder of an interrupted run"
    )


def newest(place: Path, finding: str) -> Path | None:
    """Return the newest complete run of a finding directly below ``place``; None if there is none."""
    complete = [
        (manifest.started_at, folder)
        for folder, manifest in readable(place)
        if manifest.status == "complete" and manifest.design.finding == finding
    ]
    return max(complete)[1] if complete else None


def complete_runs(place: Path | str) -> dict[str, list[Run]]:
    """Return the complete runs directly below ``place`` by finding, the newest first.

    One whose manifest cannot be read, or that of a trial, is warned of and passed over.
    """
    found: dict[str, list[Run]] = {}
    for folder, manifest in readable(place):
        if manifest.status == "complete":
            try:
                run = load_run(folder)
            except DataError as error:
                warnings.warn(f"passed over: {error}", stacklevel=2)
            else:
                found.setdefault(manifest.design.finding, []).append(run)
    newest_first = operator.attrgetter("manifest.started_at")
    return {name: sorted(runs, key=newest_first, reverse=True) for name, runs in found.items()}


def readable(place: Path | str) -> list[tuple[Path, RunManifest]]:
    """Return folder and manifest of the runs directly below ``place`` (from the project's root), by name.

    One whose manifest cannot be read is warned of and passed over: one damaged file must not end what does without it.
    """
    found = []
    for file in sorted(in_project(place).glob("[!.]*/run.json")):  # hidden ones are still being made, or were left so
        try:
            found.append((file.parent, manifests.read(file, RunManifest)))
        except DataError as error:
            warnings.warn(f"passed over: {error}", stacklevel=3)
    return found


def order(trial: Trial) -> tuple[str, str, int, float, int, int, str]:
    """Return the key by which trials are ordered: independent of names and of the order of measuring."""
    m = trial.manifest
    return m.phase, m.implementation, m.arm_number, m.rate_per_s, m.lifetime, m.attempt, m.trial_id
