"""Packing a complete run: its trials, samples and usage in one Parquet file each, instead of files of each trial.

``trials.parquet`` has a row for each trial: its factors and sizes as columns, for whoever reads it with other programs,
and the whole manifest as JSON in the column ``manifest``, which is what this program reads. ``samples.parquet`` has a
row group for each trial, in the order of those rows. ``usage.parquet`` has all readings of processes; a run without any
has none.
"""

import os
import shutil
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infscale.errors import DataError
from infscale.records import manifest as manifests
from infscale.records import samples
from infscale.records.manifest import TrialManifest
from infscale.records.packed import SAMPLES, TRIALS, USAGE
from infscale.records.runs import load_run

COLUMNS = (
    "trial_id",
    "phase",
    "replicate",
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
"""Fields of a trial's manifest that are columns of ``trials.parquet``, beside the arm's factors and the verdict."""


def pack(folder: Path) -> None:
    """Pack a complete run in place; a packed one stays as it is.

    ``run.json`` says last that the run is packed, and only then are the trials' own files removed: whenever this is
    interrupted, the run reads as before, and the next call completes it.

    Raises:
        DataError: the run is not complete, or a file of it cannot be read.
    """
    run = load_run(folder)
    if run.manifest.status != "complete":
        raise DataError(f"{folder} is not complete: only complete runs are packed")
    if run.manifest.packed:
        _remove_trials(folder)
        return
    ordered = list(run.trials)
    frames = [_usage(trial.usage(), trial.manifest.trial_id) for trial in ordered if trial.usage_path]
    samples.write_groups(folder / SAMPLES, (trial.samples() for trial in ordered))
    if frames:
        _write(folder / USAGE, pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False))
    _write(folder / TRIALS, pa.Table.from_pylist([_row(trial.manifest) for trial in ordered]))
    run.manifest.packed = True
    manifests.write(folder / "run.json", run.manifest)
    _remove_trials(folder)


def _remove_trials(folder: Path) -> None:
    if (folder / "trials").exists():
        shutil.rmtree(folder / "trials")


def _usage(readings: pd.DataFrame, trial_id: str) -> pd.DataFrame:
    return readings.assign(trial_id=trial_id)


def _row(manifest: TrialManifest) -> dict[str, object]:
    fixed = {name: getattr(manifest, name) for name in COLUMNS}
    verdict = manifest.verdict.name if manifest.verdict else ""
    return {**fixed, **manifest.arm.levels(), "verdict": verdict, "manifest": msgspec.json.encode(manifest).decode()}


def _write(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, temporary, compression="zstd", compression_level=9)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def pack_copy(source: Path, destination: Path) -> Path:
    """Copy a run's data into the folder ``destination``, packed, without logs and notebooks; return the new folder.

    Raises:
        DataError: ``source`` is no complete run, or ``destination`` has a run of this name.
    """
    run = load_run(source)
    if run.manifest.status != "complete":
        raise DataError(f"{source} is not complete: only complete runs are packed")
    target = destination / source.name
    if target.exists():
        raise DataError(f"{target} exists already: remove it, or choose another destination")
    target.mkdir(parents=True)
    try:
        for name in (TRIALS, SAMPLES, USAGE) if run.manifest.packed else ("trials",):
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name)
            elif (source / name).exists():
                shutil.copy(source / name, target / name)
        shutil.copy(source / "run.json", target / "run.json")
        pack(target)
    except BaseException:
        shutil.rmtree(target)
        raise
    return target
