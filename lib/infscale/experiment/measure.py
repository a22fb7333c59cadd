"""Measuring a design: ceilings, pilot, trials in random order, restarts, resuming.

Every trial is on disk when it ends.
"""

from pathlib import Path

from infscale.deployment import deploy
from infscale.deployment.fronts import staleness
from infscale.experiment import search, sweep
from infscale.experiment.check import check
from infscale.experiment.design.design import SWEEP, Design
from infscale.experiment.folder import default_place, folder_for
from infscale.experiment.session import Report, Session, Start
from infscale.records.manifest import Stale
from infscale.records.pack import pack
from infscale.records.runs import Run, load_run


def measure(
    design: Design,
    place: Path | None = None,
    *,
    fresh: bool = False,
    say: Report = print,
    start: Start = deploy,
) -> Run:
    """Measure a design and return its run; an interrupted one is continued, a complete one is returned as it is.

    Args:
        design: what to measure.
        place: folder of runs; None takes ``data/raw`` of the project.
        fresh: start a new run in any case.
        say: gets a line for each step.
        start: starts a server, as :func:`infscale.deployment.deploy` does.

    Raises:
        ConfigError: the design cannot be measured.
        DeploymentError, MissingError: a server could not be started.
        DataError: the folder cannot be written.
    """
    check(design)
    return measure_in(folder_for(design, place or default_place(), fresh=fresh), say=say, start=start)


def measure_in(folder: Path, *, say: Report = print, start: Start = deploy) -> Run:
    """Measure what a run's folder lacks of its design, and return the run, complete and packed.

    Interrupted by an exception or Ctrl-C, finished trials stay.

    Raises:
        ConfigError, DeploymentError, MissingError, DataError: as :func:`measure`.
    """
    session = Session(folder, say, start)
    if session.manifest.status == "complete":
        say(f"{folder.name} is complete: nothing to measure")
    else:
        check(session.design)
        with session.measuring():
            (sweep if session.design.rates == SWEEP else search).measure(session)
            if "staleness" in session.design.beside and not session.manifest.staleness:
                session.manifest.staleness = _staleness(session)
    pack(folder)
    return load_run(folder)


def _staleness(session: Session) -> dict[str, Stale]:
    counts = staleness.measure(log_folder=session.folder / "logs", pid_log=session.pids)
    return {name: Stale(**count) for name, count in counts.items()}
