"""Stored runs at a glance: a table of those in a folder, and one run in a few lines."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infscale.analysis.answers import UNDECIDED
from infscale.analysis.tables import Tables, load_tables, save_tables, tabulate
from infscale.errors import DataError
from infscale.paths import in_project
from infscale.records import packed
from infscale.records.gate import IMPORTED
from infscale.records.manifest import RunManifest
from infscale.records.runs import Run, load_run, readable
from infscale.report.results import machine_text
from infscale.report.wording import contrast_text, saturation_range

COLUMNS = ["run", "finding", "began", "measured_min", "machine", "status", "trials", "decided"]
"""The columns of :func:`runs_table`."""


def runs_table(place: Path | str = "data/raw") -> pd.DataFrame:
    """Return the runs directly below a folder, the newest first: one row each, by :data:`COLUMNS`.

    Only ``run.json`` is read, so that hundreds of runs are listed at once. ``decided`` ("11 of 12") is known of runs
    that were shown (:func:`stored_tables`) or drawn, and "" of others. A run that cannot be read is warned of and left
    out.

    Args:
        place: folder of runs, absolute or from the project's root.
    """
    rows = [
        {
            "run": folder.name,
            "finding": manifest.design.finding,
            "began": manifest.started_at[:16].replace("T", " "),
            "measured_min": round(manifest.measured_s / 60, 1),
            "machine": machine_text(manifest.machine).partition(" (")[0],
            "status": manifest.status,
            "trials": _trials(folder, manifest),
            "decided": _decided(manifest),
        }
        for folder, manifest in sorted(readable(place), key=lambda one: one[1].started_at, reverse=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def stored_tables(run: Run) -> Tables:
    """Return all tables of a run; of a complete one they are kept in ``data/derived/<run>`` and read from there.

    Raises:
        DataError: no trial at a set rate was finished, or the run is damaged.
    """
    folder, run_file = derived(run.id), run.folder / "run.json"
    kept = folder / "contrasts.parquet"
    if run.manifest.status == "complete" and kept.is_file() and kept.stat().st_mtime > run_file.stat().st_mtime:
        try:
            return load_tables(folder)
        except (DataError, OSError, pa.ArrowException):  # of an older version, or half written: made again
            pass
    tables = tabulate(run)
    if run.manifest.status == "complete":
        save_tables(tables, folder)
    return tables


def derived(run_id: str) -> Path:
    """Return the folder in which tables of a run are kept."""
    return in_project("data/derived") / run_id


def describe_run(folder: Path | str) -> list[str]:
    """Return what a run is and what it found, as lines of text.

    Args:
        folder: of the run, absolute or from the project's root.

    Raises:
        DataError: it is no run, or none of its trials can be tabulated.
    """
    run = load_run(folder)
    manifest = run.manifest
    lines = [
        f"{run.id}: {manifest.design.question}",
        f"{manifest.status}, begun {manifest.started_at[:16].replace('T', ' ')}, measured for "
        f"{manifest.measured_s / 60:.3g} min in {len(manifest.sessions)} session{'s' * (len(manifest.sessions) != 1)}",
        machine_text(manifest.machine),
    ]
    if not run.trials:
        return [*lines, "no trial yet; the command that began it goes on"]
    tables = stored_tables(run)
    verdicts = tables.trials["verdict"].value_counts()
    lines.append(f"{len(run.trials)} trials: " + ", ".join(f"{count} {name}" for name, count in verdicts.items()))
    lines += [f"left out: {run.labels[arm]} ({reason})" for arm, reason in manifest.skipped.items()]
    lines += [
        "",
        "Saturation rates:",
        *(f"  {row['label']}: {saturation_range(row)}" for _, row in tables.arms.iterrows()),
    ]
    contrasts = tables.contrasts
    if len(contrasts):
        decided = int((contrasts["answer"] != UNDECIDED).sum())
        named = "of the imported files" if manifest.design.profile == IMPORTED else "named before the run"
        lines += ["", f"Contrasts {named}: {decided} of {len(contrasts)} decided"]
        lines += [f"  {contrast_text(row)}" for _, row in contrasts.iterrows()]
    return lines


def _trials(folder: Path, manifest: RunManifest) -> int:
    """Return how many trials a run has, without reading them."""
    if not manifest.packed:
        return sum(1 for _ in (folder / "trials").glob("[!.]*.json"))
    try:
        return int(pq.read_metadata(folder / packed.TRIALS).num_rows)
    except (OSError, pa.ArrowException):
        return 0


def _decided(manifest: RunManifest) -> str:
    try:
        answers = pd.read_parquet(derived(manifest.run_id) / "contrasts.parquet", columns=["answer"])["answer"]
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return ""
    return f"{int((answers != UNDECIDED).sum())} of {len(answers)}"
