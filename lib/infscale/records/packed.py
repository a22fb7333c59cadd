"""The files of a packed run, and reading their list of trials."""

from pathlib import Path

from infscale.errors import DataError
from infscale.records import manifest as manifests
from infscale.records import samples
from infscale.records.manifest import TrialManifest

TRIALS, SAMPLES, USAGE = "trials.parquet", "samples.parquet", "usage.parquet"


def read_trials(folder: Path) -> list[TrialManifest]:
    """Return the manifests of a packed run's trials, in the order of the row groups of ``samples.parquet``.

    Raises:
        DataError: a file is absent or damaged; the message names it, and the field.
    """
    path = folder / TRIALS
    texts = samples.read_table(path, ["manifest"])["manifest"]
    trials = [
        manifests.decode(text.encode(), TrialManifest, Path(f"{path}, row {row}")) for row, text in enumerate(texts)
    ]
    groups = samples.row_groups(folder / SAMPLES)
    if groups != len(trials):
        raise DataError(f"{folder / SAMPLES} has rows of {groups} trials; {path} has {len(trials)}")
    if not (folder / USAGE).is_file() and any(trial.usage for trial in trials):
        raise DataError(f"{folder / USAGE} does not exist, although {path} has trials with usage")
    return trials
