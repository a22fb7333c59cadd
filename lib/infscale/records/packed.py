"""The files of a packed run, and reading its list of trials."""

from pathlib import Path

from infscale.errors import DataError
from infscale.records import manifest as manifests
from infscale.records import samples
from infscale.records.manifest import TrialManifest

TRIALS, SAMPLES, USAGE, CHUNKS = "trials.parquet", "samples.parquet", "usage.parquet", "chunks.parquet"


def read_trials(folder: Path) -> list[TrialManifest]:
    """Return the manifests of a packed run's trials, in the order of the row groups of ``samples.parquet``.

    Raises:
        DataError: a file is absent or damaged; the message names it, and the field.
    """
    path = folder / TRIALS
    texts = samples.read_table(path, ["manifest"])["manifest"]
    trials = [_decode(text, f"{path}, row {row}") for row, text in enumerate(texts)]
    counts = samples.row_counts(folder / SAMPLES)
    if len(counts) != len(trials):
        raise DataError(f"{folder / SAMPLES} has rows of {len(counts)} trials; {path} has {len(trials)} trials")
    for group, (count, trial) in enumerate(zip(counts, trials, strict=True)):
        if count != trial.rows and (count or trial.phase != "search"):
            raise DataError(
                f"{folder / SAMPLES}: row group {group} has {count} rows; the trial {trial.trial_id} has {trial.rows}"
            )
    return trials


def _decode(text: object, source: str) -> TrialManifest:
    if not isinstance(text, str):
        raise DataError(f"{source}: column manifest: expected text, got {type(text).__name__}")
    return manifests.decode(text.encode(), TrialManifest, source)


def trials_with_usage(folder: Path, trials: list[TrialManifest]) -> set[str]:
    """Return the identifiers of the trials that have readings of processes in ``usage.parquet``.

    Raises:
        DataError: the file is absent although trials have usage, or is damaged.
    """
    path = folder / USAGE
    if path.is_file():
        return set(samples.read_table(path, ["trial_id"])["trial_id"])
    if any(trial.usage for trial in trials):
        raise DataError(f"{path} does not exist, although {folder / TRIALS} has trials with usage")
    return set()


def chunk_groups(folder: Path, trials: list[TrialManifest]) -> dict[str, int]:
    """Return the row group in ``chunks.parquet`` of every trial whose replies were streams, by its identifier.

    Raises:
        DataError: the file is absent although there are such trials, or has more or fewer messages than were measured.
    """
    streamed = [trial for trial in trials if trial.messages is not None]
    if not streamed:
        return {}
    path = folder / CHUNKS
    counts = samples.row_counts(path)
    if len(counts) != len(streamed):
        raise DataError(
            f"{path} has messages of {len(counts)} trials; {folder / TRIALS} has {len(streamed)} of streams"
        )
    for group, (count, trial) in enumerate(zip(counts, streamed, strict=True)):
        if count != trial.messages and (count or trial.phase != "search"):
            raise DataError(
                f"{path}: row group {group} has {count} messages; the trial {trial.trial_id} has {trial.messages}"
            )
    return {trial.trial_id: group for group, trial in enumerate(streamed)}
