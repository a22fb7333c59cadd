"""Packing a complete run: its trials, samples and usage in one Parquet file each, instead of files of each trial.

``trials.parquet`` has a row for each trial: its factors and sizes as columns, for whoever reads it with other programs,
and the whole manifest as JSON in the column ``manifest``, which is what this program reads. ``samples.parquet`` has a
row group for each trial, in the order of those rows. ``usage.parquet`` has all readings of processes; a run without any
has none. ``chunks.parquet`` has the messages of streams, a row group for each trial that has some, in the same order; a
run without streams has none.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infscale.errors import DataError
from infscale.paths import in_project
from infscale.records import chunks, samples
from infscale.records import manifest as manifests
from infscale.records.gate import INVALID
from infscale.records.manifest import TrialManifest
from infscale.records.packed import CHUNKS, SAMPLES, TRIALS, USAGE
from infscale.records.runs import Run, Trial, load_run

COLUMNS = (
    "trial_id",
    "phase",
    "lifetime",
    "attempt",
    "arm_number",
    "block",
    "implementation",
    "rate_per_s",
    "duration_s",
    "timeout_s",
    "rows",
    "started_at",
)
"""Fields of a trial's manifest that are columns of ``trials.parquet``, beside the arm's factors, whether it is a
closed loop, and the verdict."""

LEVEL = 19
"""Level of zstd of a packed run's files, which are written once and cloned often: 2 % smaller than by level 9."""


def pack(folder: Path) -> None:
    """Pack a complete run in place; a packed one stays as it is.

    ``run.json`` says last that the run is packed, and only then are the trials' own files removed: whenever this is
    interrupted, the run reads as before, and the next call completes it.

    Raises:
        DataError: the run is not complete, or a file of it cannot be read.
    """
    run = _complete(folder)
    folder = run.folder
    if not run.manifest.packed:
        _write_files(folder, run.trials, [trial for trial in run.trials if trial.usage_path])
        run.manifest.packed = True
        manifests.write(folder / "run.json", run.manifest)
    if (folder / "trials").exists():
        shutil.rmtree(folder / "trials")


def unpack(folder: Path) -> None:
    """Give the trials of a packed run files of their own again, so that it can be measured further; see :func:`pack`.

    Raises:
        DataError: a file of it cannot be read.
    """
    run = load_run(folder)
    folder = run.folder
    if not run.manifest.packed:
        return
    place = folder / "trials"
    place.mkdir(exist_ok=True)
    for trial in run.trials:
        name = trial.manifest.trial_id
        samples.write(place / f"{name}.parquet", trial.samples().assign(trial_id=name))
        if (messages := trial.chunks()) is not None:
            chunks.write(place / f"{name}.chunks.parquet", messages.assign(trial_id=name))
        if trial.usage_path:
            trial.usage().to_parquet(place / f"{name}.usage.parquet", index=False, compression="zstd")
        manifests.write(place / f"{name}.json", trial.manifest)
    run.manifest.packed, run.manifest.status = False, "interrupted"
    manifests.write(folder / "run.json", run.manifest)
    for file in (TRIALS, SAMPLES, USAGE, CHUNKS):
        (folder / file).unlink(missing_ok=True)


def pack_copy(source: Path, destination: Path, *, small: bool = False) -> Path:
    """Copy a run's data into the folder ``destination``, packed, without logs and notebooks; return the new folder.

    Args:
        source: the run's folder, absolute or from the project's root.
        destination: a folder of runs, given likewise; it is made if it is not there.
        small: leave out what no table needs: the pilot's trials (their result is in ``run.json``), the INVALID trials
            of the search for λ*, the rows and messages of its other trials (the verdicts of the measurement stand), and
            all readings of processes but those of trials at set rates that are not INVALID.

    Raises:
        DataError: ``source`` is no complete run, or ``destination`` has a run of this name.
    """
    run = _complete(source)
    trials = [trial for trial in run.trials if not small or _tabulated(trial)]
    watched = [trial for trial in trials if trial.usage_path and not (small and _without_readings(trial))]
    target = in_project(destination) / run.folder.name
    if target.exists():
        raise DataError(f"{target} exists already: remove it, or choose another destination")
    target.mkdir(parents=True)
    try:
        _write_files(target, trials, watched, small=small)
        run.manifest.packed = True
        manifests.write(target / "run.json", run.manifest)
    except BaseException:
        shutil.rmtree(target)
        raise
    return target


def _complete(folder: Path) -> Run:
    run = load_run(folder)
    if run.manifest.status != "complete":
        raise DataError(f"{folder} is not complete: only complete runs are packed")
    return run


def _tabulated(trial: Trial) -> bool:
    """Return whether a table needs the trial."""
    phase, invalid = trial.manifest.phase, trial.manifest.judged.name == INVALID
    return not (phase == "pilot" or (phase == "search" and invalid))


def _without_readings(trial: Trial) -> bool:
    """Return whether no figure needs the readings of the trial."""
    return trial.manifest.phase != "grid" or trial.manifest.judged.name == INVALID


def _write_files(folder: Path, trials: Sequence[Trial], watched: Sequence[Trial], *, small: bool = False) -> None:
    """Write the files of a packed run, with the readings of the trials in ``watched``."""

    def kept(trial: Trial, table: pd.DataFrame) -> pd.DataFrame:
        return table.iloc[: 0 if small and trial.manifest.phase == "search" else None]

    samples.write_groups(folder / SAMPLES, (kept(trial, trial.samples()) for trial in trials), LEVEL)
    if any(trial.manifest.messages is not None for trial in trials):
        messages = ((trial, trial.chunks()) for trial in trials)
        own = (kept(trial, table) for trial, table in messages if table is not None)
        chunks.write_groups(folder / CHUNKS, own, LEVEL)
    readings = [trial.usage().assign(trial_id=trial.manifest.trial_id) for trial in watched]
    if readings:
        _write(folder / USAGE, pa.Table.from_pandas(pd.concat(readings, ignore_index=True), preserve_index=False))
    elif any(trial.manifest.usage for trial in trials):
        _write(folder / USAGE, pa.table({"trial_id": pa.array([], pa.string())}))
    _write(folder / TRIALS, pa.Table.from_pylist([_row(trial.manifest) for trial in trials]))


def _row(manifest: TrialManifest) -> dict[str, object]:
    fixed = {name: getattr(manifest, name) for name in COLUMNS}
    verdict = manifest.verdict.name if manifest.verdict else ""
    arm = {**manifest.arm.levels(), "closed": manifest.arm.closed}
    return {**fixed, **arm, "verdict": verdict, "manifest": msgspec.json.encode(manifest).decode()}


def _write(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, temporary, compression="zstd", compression_level=LEVEL, write_statistics=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
