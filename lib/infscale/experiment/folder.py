"""The folder of a run: a new one, or one to be continued."""

import contextlib
import datetime as dt
import itertools
from pathlib import Path

from infscale import machine
from infscale.errors import DataError
from infscale.experiment.design.design import Design
from infscale.experiment.design.time_plan import time_plan
from infscale.paths import project_root
from infscale.records import manifest as manifests
from infscale.records.manifest import RunManifest


def default_place() -> Path:
    """Return the folder where runs are stored: ``data/raw`` of the project."""
    return project_root() / "data" / "raw"


def folder_for(design: Design, place: Path, *, fresh: bool = False) -> Path:
    """Return the folder of this design's run below ``place``: an interrupted one is continued, a complete one kept.

    A run is continued only by the same design, code, environment and machine. ``fresh`` always starts a new one.

    Raises:
        DataError: the folder cannot be written.
    """
    new = _new_manifest(design)
    if not fresh:
        for file in sorted(place.glob("*/run.json"), reverse=True):
            with contextlib.suppress(DataError):
                if _identity(manifests.read(file, RunManifest)) == _identity(new):
                    return file.parent
    names = itertools.chain([new.run_id], (f"{new.run_id}-{i}" for i in itertools.count(2)))
    folder = next(place / name for name in names if not (place / name).exists())
    try:
        (folder / "trials").mkdir(parents=True)
        (folder / "logs").mkdir()
    except OSError as error:
        raise DataError(f"cannot write in {place}: {error.strerror}") from error
    new.run_id = folder.name
    manifests.write(folder / "run.json", new)
    return folder


def _identity(manifest: RunManifest) -> tuple[object, ...]:
    """Return what must be equal for two sessions' trials to belong to one run."""
    return manifest.design_digest, manifest.code_digest, manifest.environment_digest, manifest.machine


def _new_manifest(design: Design) -> RunManifest:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%S")
    return RunManifest(
        run_id=f"{stamp}-{design.profile}",
        design=design,
        design_digest=design.digest(),
        code_digest=machine.code_digest(),
        environment_digest=machine.environment_digest(),
        machine=machine.describe(),
        versions=machine.versions(),
        commit=machine.commit(),
        time_plan=time_plan(design).splitlines(),
        started_at=now(),
    )


def now() -> str:
    """Return the time for a manifest, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
