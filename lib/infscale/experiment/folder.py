"""The folder of a run: a new one, or one to be continued."""

import contextlib
import datetime as dt
import itertools
from pathlib import Path
from typing import Any

from infscale import machine
from infscale.errors import DataError
from infscale.experiment.design.grid import Grid
from infscale.records import samples
from infscale.records.manifest import read_json, write_json


def folder_for(grid: Grid, place: Path, *, fresh: bool = False) -> Path:
    """The folder of this grid's run below ``place``: an interrupted one is continued, a complete one kept.

    A run is continued only by the same grid, code, environment and machine. ``fresh`` always starts a new one.

    Raises:
        DataError: the folder cannot be written.
    """
    if not fresh:
        for file in sorted(place.glob("*/run.json"), reverse=True):
            with contextlib.suppress(DataError):
                manifest = read_json(file)
                if all(manifest.get(key) == value for key, value in _identity(grid).items()):
                    return file.parent
    stamp = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%S")
    names = itertools.chain([f"{stamp}-{grid.profile}"], (f"{stamp}-{grid.profile}-{i}" for i in itertools.count(2)))
    folder = next(place / name for name in names if not (place / name).exists())
    try:
        (folder / "trials").mkdir(parents=True)
        (folder / "logs").mkdir()
    except OSError as error:
        raise DataError(f"cannot write in {place}: {error.strerror}") from error
    write_json(folder / "run.json", _new_manifest(grid, folder.name))
    return folder


def _identity(grid: Grid) -> dict[str, Any]:
    """What must be equal for two sessions' trials to belong to one run."""
    return {
        "grid_digest": grid.digest(),
        "code_digest": machine.code_digest(),
        "environment_digest": machine.environment_digest(),
        "machine": machine.describe(),
    }


def _new_manifest(grid: Grid, run_id: str) -> dict[str, Any]:
    return {
        "schema_version": samples.SCHEMA_VERSION,
        "run_id": run_id,
        "experiment": grid.experiment,
        "profile": grid.profile,
        "status": "interrupted",  # until it is complete
        "config": grid.config(),
        "contrasts": grid.contrasts(),
        "ceilings": {},
        "rates_per_s": {},
        "pilot": {},
        "implementations": {},
        **_identity(grid),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "clock": "CLOCK_MONOTONIC",
        "time_plan": grid.time_plan().splitlines(),
        "sessions": [],
        "started_at": now(),
        "finished_at": None,
    }


def now() -> str:
    """The time for a manifest, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
