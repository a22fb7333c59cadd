"""The folder of a run: a new one, or one to be continued."""

import contextlib
import datetime as dt
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock
import psutil

from infscale import machine
from infscale.errors import DataError
from infscale.experiment.design.design import Design
from infscale.experiment.design.time_plan import time_plan
from infscale.paths import in_project
from infscale.records import manifest as manifests
from infscale.records.manifest import RunManifest
from infscale.records.runs import readable


def folder_for(
    design: Design,
    place: Path,
    *,
    fresh: bool = False,
    cluster: str = "",
    watched: Mapping[str, str] | None = None,
) -> Path:
    """Return the folder of this design's run below ``place``: an interrupted one is continued, a complete one kept.

    A run is continued only by the same design, code, environment and machine. ``fresh`` always starts a new one.
    A run that cannot be read is warned of and passed over. ``place`` may be given from the project's root; the folder
    is absolute. ``cluster`` and ``watched`` are as of :class:`infscale.records.manifest.RunManifest`.

    Raises:
        DataError: the folder cannot be written.
    """
    place = in_project(place)
    new = _new_manifest(design, cluster, watched)
    if not fresh:
        for stored, manifest in reversed(readable(place)):
            if _identity(manifest) == _identity(new):
                return stored
    folder = place / new.run_id
    unfinished = place / f"{_UNFINISHED}{os.getpid()}"
    try:
        _remove_left(place)
        for name in ("trials", "logs"):
            (unfinished / name).mkdir(parents=True)
        manifests.write(unfinished / "run.json", new)
        unfinished.rename(folder)  # so that a folder of a run is never without its manifest
    except OSError as error:
        raise DataError(f"cannot write in {place}: {error.strerror}") from error
    return folder


_UNFINISHED = ".new-"
"""Beginning of the name of a folder that will be a run's; the id of the process that makes it follows."""


def _remove_left(place: Path) -> None:
    """Remove the unfinished folders of processes that live no more."""
    for left in place.glob(f"{_UNFINISHED}*"):
        owner = left.name.removeprefix(_UNFINISHED)
        if owner == str(os.getpid()) or not (owner.isdigit() and psutil.pid_exists(int(owner))):
            shutil.rmtree(left)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing in a run's folder meanwhile.

    Raises:
        DataError: another process writes in it, or the folder cannot be written.
    """
    try:
        held = filelock.FileLock(folder / ".lock", blocking=False).acquire()
    except filelock.Timeout as error:
        raise DataError(f"{folder} is being measured by another process: wait for its end, or measure anew") from error
    except OSError as error:
        raise DataError(f"cannot write in {folder}: {error.strerror}") from error
    with held:
        for half in (*folder.glob(".*.*"), *(folder / "trials").glob(".*.*")):
            if half.suffix[1:].isdigit():  # a file that a killed process was writing, by its id
                half.unlink()
        yield


def check_same(manifest: RunManifest) -> None:
    """Find out whether this process may go on with a run: same machine, environment and measuring code.

    Raises:
        DataError: it may not; the message says in what they differ.
    """
    here = _new_manifest(manifest.design, manifest.cluster, manifest.watched)
    differing = [
        name for name, there, now in zip(IDENTITY, _identity(manifest), _identity(here), strict=True) if there != now
    ]
    if differing:
        what = "differs from the one" if len(differing) == 1 else "differ from those"
        names = " and ".join(differing)
        raise DataError(f"{manifest.run_id} cannot be continued here: {names} {what} that measured it; measure anew")


IDENTITY = ("the design", "the code that measures", "the environment", "the machine", "the cluster")
"""What must be equal for two sessions' trials to belong to one run, in words."""


def _identity(manifest: RunManifest) -> tuple[object, ...]:
    return (
        manifest.design.digest(),
        manifest.code_digest,
        manifest.environment_digest,
        manifest.machine,
        manifest.cluster,
    )


def _new_manifest(design: Design, cluster: str = "", watched: Mapping[str, str] | None = None) -> RunManifest:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%S")
    return RunManifest(
        run_id=f"{stamp}-{design.profile}-{secrets.token_hex(2)}",  # two runs may begin in the same second
        design=design,
        design_digest=design.digest(),
        code_digest=machine.code_digest(),
        environment_digest=machine.environment_digest(),
        machine=machine.describe(),
        versions=machine.versions(),
        commit=machine.commit(),
        time_plan=time_plan(design).splitlines(),
        cluster=cluster,
        watched=dict(watched or {}),
        ends_at_s=design.budget_s,
        started_at=now(),
    )


def now() -> str:
    """Return the time for a manifest, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
