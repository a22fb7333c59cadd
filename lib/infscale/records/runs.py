"""Stored runs: finding one, and reading its manifest and the list of its trials.

A run is a folder with ``run.json`` and ``trials/<trial_id>.parquet`` + ``trials/<trial_id>.json``. A trial
exists when both of its files do. ``trials/<trial_id>.usage.parquet`` are the readings of ``infscale.experiment.usage.sampler``, if any.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from infscale.errors import DataError
from infscale.paths import project_root
from infscale.records import samples
from infscale.records.manifest import read_json
from infscale.vocabulary import FRAMEWORKS

COMPLETE = "complete"


API = FRAMEWORKS["tfserving"]


@dataclass(frozen=True)
class Trial:
    """One stored trial: its manifest, and the Parquet file of its rows (read only when asked for)."""

    manifest: dict[str, Any]
    path: Path

    def samples(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """The trial's rows (``infscale.records.samples``); raises :class:`DataError` if they cannot be read."""
        return samples.read(self.path, columns)


@dataclass(frozen=True)
class Run:
    """One stored run: its folder, its manifest, and its trials in a fixed order."""

    folder: Path
    manifest: dict[str, Any]
    trials: tuple[Trial, ...]

    @property
    def id(self) -> str:
        """The run's identifier."""
        return str(self.manifest["run_id"])

    def label(self, implementation: str) -> str:
        """The name by which figures and reports call an implementation (it says what is embedded)."""
        return str(self.manifest["implementations"].get(implementation, {}).get("label", implementation))

    def label_of(self, trial: Mapping[str, Any]) -> str:
        """The name of a trial's case, by its manifest; of the headline experiment, the implementation's label."""
        implementation = str(trial["implementation"])
        return case_label(str(trial["case"]), implementation) if trial.get("case") else self.label(implementation)

    def case_labels(self) -> dict[str, str]:
        """The labels of a finding's cases that were measured, by their names, in the order of the configuration."""
        pilot = self.manifest["pilot"]
        names = [case["name"] for case in self.manifest["config"]["cases"] if case["name"] in pilot]
        return {name: case_label(name, str(pilot[name]["implementation"])) for name in names}


def case_label(name: str, implementation: str) -> str:
    """A case's name as tables and figures show it: it says if the server was embedded, which the machine decides."""
    return name.replace(API, f"{API}, embedded") if "embedded" in implementation else name


def load_run(folder: Path) -> Run:
    """Read a run's manifests.

    A file without its partner is an interrupted write: left out with a warning.

    Raises:
        DataError: the folder is no run, or a run that says it is complete lacks a file.
    """
    if not (folder / "run.json").is_file():
        raise DataError(f"{folder} is not a run: it has no run.json")
    manifest = read_json(folder / "run.json")
    stems = {
        suffix: {file.stem for file in (folder / "trials").glob(f"[!.]*{suffix}")} for suffix in (".json", ".parquet")
    }
    stems[".parquet"] = {stem for stem in stems[".parquet"] if not stem.endswith(".usage")}
    unpaired = sorted(stems[".json"] ^ stems[".parquet"])
    if unpaired:
        message = f"{folder}: only one of two files exists for the trials {', '.join(unpaired)}"
        if manifest["status"] == COMPLETE:
            raise DataError(f"{message}, although the run is complete: its data were damaged afterwards")
        warnings.warn(f"{message} (interrupted while writing): left out", stacklevel=2)
    names = sorted(stems[".json"] & stems[".parquet"])
    trials = [_load_trial(folder / "trials", name) for name in names]
    _check_origin(folder, manifest, trials)
    return Run(folder, manifest, tuple(sorted(trials, key=_order)))


def _check_origin(folder: Path, manifest: Mapping[str, Any], trials: Iterable[Trial]) -> None:
    """Every trial is of this run and of one machine; raises :class:`DataError`."""
    machines = set()
    for trial in trials:
        if trial.manifest["run_id"] != manifest["run_id"]:
            told = f"{trial.path.stem} belongs to the run {trial.manifest['run_id']}"
            raise DataError(f"{folder}: {told}, not to {manifest['run_id']}: runs must not be pooled")
        machines.add(trial.manifest.get("machine_digest"))
    if len(machines) > 1:
        told = ", ".join(sorted(map(str, machines)))
        raise DataError(f"{folder}: trials of {len(machines)} machines ({told}) must not be pooled")


def find_run(run: str = "", root: Path | None = None, experiment: str = "protocol-grid") -> Path:
    """The folder of a run.

    Args:
        run: a path, absolute or from the project's root; "" takes the newest complete run of ``experiment`` in
            ``data/raw``, else in ``data/sample``.
        root: the project's root (default: found from the working directory).
        experiment: "protocol-grid", or the name of a finding.

    Raises:
        DataError: there is none; the message says how to get one.
    """
    root = root or project_root()
    if run:
        folder = root / run
        if not (folder / "run.json").is_file():
            raise DataError(
                f"{folder} is not a run (no run.json); give the path of a folder below data/raw or data/sample"
            )
        return folder
    for place in (root / "data" / "raw", root / "data" / "sample"):
        if found := newest(place, experiment):
            return found
    raise DataError(
        f"no complete run of {experiment} in {root / 'data' / 'raw'} or {root / 'data' / 'sample'}: "
        "measure one with the notebooks 1x, or give the path of an interrupted one"
    )


def newest(place: Path, experiment: str) -> Path | None:
    """The newest complete run of an experiment directly below ``place``; None if there is none."""
    complete = [
        (str(m["started_at"]), folder)
        for folder in _runs(place)
        if (m := _peek(folder))["status"] == COMPLETE and m.get("experiment") == experiment
    ]
    return max(complete)[1] if complete else None


def _runs(place: Path) -> list[Path]:
    """The folders of runs directly below ``place``."""
    return sorted(file.parent for file in place.glob("*/run.json"))


def _peek(folder: Path) -> dict[str, Any]:
    """A run's manifest; one that cannot be read counts as not complete, with a warning."""
    try:
        return read_json(folder / "run.json")
    except DataError as error:
        warnings.warn(f"passed over: {error}", stacklevel=3)
        return {"status": "unreadable"}


def _load_trial(folder: Path, name: str) -> Trial:
    """One trial whose two files exist."""
    return Trial(read_json(folder / f"{name}.json"), folder / f"{name}.parquet")


def _order(trial: Trial) -> tuple[Any, ...]:
    """By phase, arm, rate, replicate and attempt: independent of names and of the order of measuring."""
    keys = ("phase", "implementation", "protocol", "rate_per_s", "replicate", "attempt", "trial_id")
    return tuple(trial.manifest[key] for key in keys)


def trials_of_grid(run: Mapping[str, Any]) -> int:
    """How many trials the grid of a run's manifest plans: frameworks × protocols × rates × replicates."""
    config = run["config"]
    if config.get("cases"):
        return int(config["trials_n"])
    return int(len(config["frameworks"]) * len(config["protocols"]) * config["rates_n"] * config["replicates"])
