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
from infscale.records.manifest import RunManifest, TrialManifest
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
    """Pack a complete run in place.

    ``run.json`` says last that the run is packed, and only then are the trials' own files removed: whenever this is
    interrupted, the run reads as before.

    Raises:
        DataError: the run is not complete, or a file of it cannot be read.
    """
    run = load_run(folder)
    if run.manifest.status != "complete":
        raise DataError(f"{folder} is not complete: only complete runs are packed")
    if run.manifest.packed:
        return
    ordered = list(run.trials)
    frames = [_usage(trial.usage(), trial.manifest.trial_id) for trial in ordered if trial.usage_path]
    samples.write_groups(folder / SAMPLES, (trial.samples() for trial in ordered))
    if frames:
        _write(folder / USAGE, pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False))
    _write(folder / TRIALS, pa.Table.from_pylist([_row(trial.manifest) for trial in ordered]))
    run.manifest.packed = True
    manifests.write(folder / "run.json", run.manifest)
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
    """Copy a run's data to ``destination`` (logs and notebooks are left behind), packed; return the new folder.

    Raises:
        DataError: ``source`` is no complete run.
    """
    if not (source / "run.json").is_file():
        raise DataError(f"{source} is not a run: it has no run.json")
    if manifests.read(source / "run.json", RunManifest).status != "complete":
        raise DataError(f"{source} is not complete: only complete runs are packed")
    wanted = {"run.json", "trials", TRIALS, SAMPLES, USAGE}
    target = destination / source.name
    shutil.copytree(source, target, ignore=lambda at, names: set(names) - wanted if Path(at) == source else set())
    pack(target)
    return target
