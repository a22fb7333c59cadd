"""Measuring a design: the generator's ceilings, then lifetime after lifetime until the budget is spent.

Every trial is on disk when it ends.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from infscale.deployment import deploy
from infscale.deployment.fronts import staleness
from infscale.errors import ConfigError, DeploymentError, Interrupt, MissingError, check_duration
from infscale.experiment.beside import tools
from infscale.experiment.check import check
from infscale.experiment.design.design import Design
from infscale.experiment.design.time_plan import first_look
from infscale.experiment.folder import check_same, folder_for, locked
from infscale.experiment.lifetime import lifetime
from infscale.experiment.live.view import View, viewing
from infscale.experiment.session import Report, Session, Start
from infscale.experiment.usage.elsewhere import Elsewhere
from infscale.load.cluster.connect import connected
from infscale.load.cluster.spec import parse
from infscale.records.manifest import Stale
from infscale.records.pack import pack, unpack
from infscale.records.runs import Run, load_run, run_folder

Allocate = Callable[[Run, Sequence[Sequence[int]]], Sequence[int]]
"""A function that orders groups of arms by how much a further lifetime of each would decide, best first: it gets the
run and the groups, and returns the places of the groups that are worth one."""


def in_turn(run: Run, groups: Sequence[Sequence[int]]) -> Sequence[int]:
    """Order groups by their lifetimes so far, fewest first."""
    counts = [sum(list(arms) == one.arms for one in run.manifest.lifetimes) for arms in groups]
    return sorted(range(len(groups)), key=counts.__getitem__)


def measure(
    design: Design,
    place: Path | None = None,
    *,
    fresh: bool = False,
    say: Report = print,
    start: Start = deploy,
    allocate: Allocate = in_turn,
    cluster: str = "",
    workers: int | None = None,
    watched: Mapping[str, str] | None = None,
) -> Run:
    """Measure a design and return its run; an interrupted one is continued, a complete one is returned as it is.

    Args:
        design: what to measure.
        place: folder of runs, absolute or from the project's root; None takes ``data/raw``.
        fresh: start a new run in any case.
        say: gets a line for each step.
        start: starts a server, as :func:`infscale.deployment.deploy` does.
        allocate: who gets the lifetimes after the first look.
        cluster: the workers that make the load, as ``--cluster`` says it (:mod:`infscale.load.cluster.spec`); "" for
            this machine alone.
        workers: how many of them.
        watched: of servers on other machines, what tells their usage, by the name of their group, such as ``{"server":
            "10.0.0.2:8000"}``: see :mod:`infscale.experiment.usage.elsewhere`.

    Raises:
        ConfigError: the design cannot be measured.
        DeploymentError, MissingError: a server could not be started.
        DataError: the folder cannot be written, or another process writes in it.
    """
    check(design)
    said = asked(cluster, workers, design)
    folder = folder_for(design, place or Path("data/raw"), fresh=fresh, cluster=said, watched=watched)
    return measure_in(folder, say=say, start=start, allocate=allocate)


def measure_in(
    folder: Path | str,
    *,
    more_s: float = 0.0,
    say: Report = print,
    start: Start = deploy,
    allocate: Allocate = in_turn,
) -> Run:
    """Measure what a run's folder lacks of its design, and return the run, complete and packed.

    Meanwhile it is shown how each trial goes. Interrupted by an exception or Ctrl-C, finished trials stay.

    Args:
        folder: of a run, absolute or from the project's root.
        more_s: seconds to be added to the budget of a complete run; 0 for none.
        say, start, allocate: as of :func:`measure`.

    Raises:
        Interrupt: Ctrl-C ended it.
        ConfigError, DeploymentError, MissingError, DataError: as :func:`measure`; also where the run was measured by
            another machine or other code, ``folder`` is no run, or ``more_s`` no duration.
    """
    folder = run_folder(folder)
    if more_s != 0:
        check_duration(more_s, "more_s")
    with locked(folder), contextlib.ExitStack() as stack:
        view = stack.enter_context(viewing())
        session = Session(folder, view.say if say is print else say, start, view=view)  # a bar would be printed into
        stack.enter_context(_telling(session, view))
        say = session.say
        if session.manifest.status == "complete" and not more_s:
            say(f"{folder.name} is complete: nothing to measure")
        else:
            check_same(session.manifest)
            check(session.design)
            if more_s:
                _reopen(session, more_s)
            _reach(session, stack)
            with session.measuring():
                if "tools" in session.design.beside and not session.manifest.tools:
                    session.manifest.tools = tools.measure(session.design, say)
                    session.save()
                _lifetimes(session, allocate)
                if "staleness" in session.design.beside and not session.manifest.staleness:
                    session.manifest.staleness = _staleness(session)
        pack(folder)
    return load_run(folder)


@contextlib.contextmanager
def _telling(session: Session, view: View) -> Iterator[None]:
    """Let a view say how far a run is; an interruption says what is kept, and how to go on."""
    name, manifest = session.folder.name, session.manifest
    view.head = lambda: f"{name}: {session.elapsed_s():.0f} of about {manifest.ends_at_s:.0f} s"
    try:
        yield
    except KeyboardInterrupt as error:
        finished = sum(1 for _ in (session.folder / "trials").glob("[!.]*.json"))
        kept = f"{finished} finished trials are" if finished else "no trial was finished; what is known is"
        raise Interrupt(f"{kept} kept in {session.folder}; the same call goes on") from error
    view.result = f"{name}: {manifest.status}, {session.elapsed_s():.0f} s"


def asked(cluster: str, workers: int | None, design: Design) -> str:
    """Return what a run's manifest says of its cluster, checked; "" for none.

    Raises:
        ConfigError: an unknown form, or an arm whose client does not run on a cluster.
    """
    if not cluster:
        if workers:
            raise ConfigError(f"workers={workers} needs a cluster, such as cluster='local'")
        return ""
    spec = parse(cluster, workers)
    if others := sorted({arm.client for arm in design.every_arm()} - {"wire"}):
        raise ConfigError(f"cluster={cluster!r}: client={others[0]!r} runs on this machine alone; accepted: 'wire'")
    return spec.with_workers()


def _reach(session: Session, stack: contextlib.ExitStack) -> None:
    """Connect to the workers that a run's manifest names, and to what tells the usage of servers elsewhere."""
    manifest = session.manifest
    if manifest.watched:
        session.elsewhere = Elsewhere(dict(manifest.watched))
    if manifest.cluster:
        reserve = session.elsewhere.hosts() if session.elsewhere else []
        session.cluster = stack.enter_context(connected(parse(manifest.cluster), reserve=reserve))
    if session.elsewhere:
        session.elsewhere.reach(session.cluster)


def _reopen(session: Session, more_s: float) -> None:
    """Add time to a run, so that it is measured further."""
    if session.manifest.status != "complete":
        raise ConfigError(f"{session.folder.name} is not complete: go on with it before time is added to it")
    unpack(session.folder)
    manifest = session.manifest
    manifest.packed, manifest.status = False, "interrupted"
    manifest.more_s.append(more_s)
    manifest.ends_at_s = manifest.measured_s + more_s
    session.save()


def _lifetimes(session: Session, allocate: Allocate) -> None:
    """Run lifetimes until the budget is spent: of all groups in turn to the first look, then as ``allocate`` says."""
    manifest, design = session.manifest, session.design
    groups, most = design.groups(), design.most or sys.maxsize
    if not manifest.pilot:  # an earlier session could measure nothing: what it lacked may be there now
        manifest.skipped = {arm: manifest.skipped[arm] for arm in manifest.lost}
        manifest.lifetimes.clear()
    while (count := _fewest(session, groups)) < (manifest.first_look or design.least):
        if manifest.first_look and count >= design.least and session.elapsed_s() > LATE * manifest.ends_at_s:
            manifest.first_look = count  # no contrast was looked at yet, and only the clock decides
            session.say(f"the budget is spent: the first look at the contrasts is at {count} lifetimes")
            return
        for k in _turn(design, len(groups), count):
            if _count(session, groups[k]) == count and lifetime.there(session, groups[k]):
                lifetime.run(session, groups[k], count)
        _check_any(session)
        if manifest.first_look is None:
            manifest.first_look = _first_look(session)
            session.say(f"the first look at the contrasts is at {manifest.first_look} lifetimes")
    _check_any(session)
    while (left_s := manifest.ends_at_s - session.elapsed_s()) > 0:
        session.save()
        wanted = allocate(load_run(session.folder), groups)
        if not wanted:
            session.say("every named contrast is decided: the rest of the time is not needed")
        for k in wanted:
            fits = _seconds(session, groups[k]) <= left_s and _count(session, groups[k]) < most
            if fits and lifetime.there(session, groups[k]):
                lifetime.run(session, groups[k], _count(session, groups[k]))
                break
        else:
            return


LATE = 1.15
"""Share of the budget after which the first look is taken earlier than planned, because lifetimes took longer."""


def _turn(design: Design, groups: int, count: int) -> list[int]:
    """Return the order of groups in one turn: each is first, second and so on equally often."""
    return [(k + count + design.seed) % groups for k in range(groups)]


def _count(session: Session, arms: Sequence[int]) -> int:
    return sum(one.arms == list(arms) for one in session.manifest.lifetimes)


def _fewest(session: Session, groups: Sequence[Sequence[int]]) -> int:
    """Return the lifetimes of the group that has the fewest of those that can be measured; the most without any."""
    return min((_count(session, arms) for arms in groups if lifetime.there(session, arms)), default=sys.maxsize)


def _seconds(session: Session, arms: Sequence[int]) -> float:
    """Return how long a further lifetime of a group takes, by those that it had."""
    own = [one.seconds - one.extra_s for one in session.manifest.lifetimes if one.arms == list(arms)]
    return sum(own) / len(own) if own else 0.0


def _first_look(session: Session) -> int:
    """Return the number of lifetimes of the first look: what the budget buys, by the length of the first ones.

    It is the nearest number: a run ends up to half a round after its budget as often as before it.
    """
    manifest, design = session.manifest, session.design
    groups = [arms for arms in design.groups() if lifetime.there(session, arms)]
    left_s = manifest.ends_at_s - session.elapsed_s()
    second_s = sum(one.extra_s for one in manifest.lifetimes) / 2  # the curve's second half
    each_s = sum(_seconds(session, arms) for arms in groups)
    bought = 1 + round(max(0.0, left_s - second_s) / max(each_s, 0.1))
    return first_look(min(bought, design.most or bought), design.least)


def _check_any(session: Session) -> None:
    if session.manifest.pilot:
        return
    reasons = [f"{session.labels[arm]}: {reason}" for arm, reason in sorted(session.manifest.skipped.items())]
    if not reasons:
        raise DeploymentError(session.manifest.restarts[-1] if session.manifest.restarts else "no arm was measured")
    raise MissingError("; ".join(reasons))


def _staleness(session: Session) -> dict[str, Stale]:
    counts = staleness.measure(log_folder=session.folder / "logs", pid_log=session.pids)
    return {name: Stale(**count) for name, count in counts.items()}
