"""``infscale paper``: measure the headline experiment, in full also every finding, and draw everything."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from infscale.cli import figures as drawing
from infscale.cli import finding as findings
from infscale.cli.options import Command, Duration, cluster_options, option
from infscale.errors import ConfigError, InfscaleError


def paper(
    profile: str = "quick",
    *,
    budget_s: float | None = None,
    more_s: float = 0.0,
    new: bool = False,
    frameworks: Sequence[str] = (),
    data: Path | None = None,
    figures: str = "figures",
    cluster: str = "",
    workers: int | None = None,
) -> Path:
    """Measure the protocols finding (F0), or go on with an interrupted run of it, and draw.

    Args:
        profile: "quick", "full" or "tiny"; "full" without ``frameworks`` measures every finding as well.
        budget_s: time for measuring, s; None takes the profile's.
        more_s: time to be added to the newest complete run, s; the other arguments of measuring are that run's then.
        new: measure afresh.
        frameworks: only these; empty for all.
        data: folder of runs, from the project's root; None for data/raw.
        figures: folder to draw into, from the project's root.
        cluster, workers: the workers that make the load, as of :func:`infscale.experiment.measure.measure`.

    Returns:
        The run's folder.

    Raises:
        InfscaleError: an unknown profile or framework, a budget that is too small, a folder that cannot be written, a
            run of another machine or other code, or a notebook that failed.
    """
    from infscale.cli import notebooks
    from infscale.deployment.processes.pids import record_pids
    from infscale.paths import in_project
    from infscale.records.manifest import RunManifest, read

    place = in_project(data or "data/raw")
    if more_s and cluster:
        raise ConfigError(f"cluster={cluster!r} with more_s={more_s:g}: a run that goes on keeps its cluster")
    where = (cluster, workers)
    folder = findings.to_continue(place) if more_s else _begun(profile, budget_s, frameworks, place, where, new=new)
    print(f"run: {folder}", flush=True)
    record_pids(folder / "pids.txt", {os.getpid(): "infscale paper", os.getppid(): "its parent"})
    design = read(folder / "run.json", RunManifest).design
    sizes = {"profile": design.profile, "frameworks": list(design.frameworks()), "budget_s": design.budget_s}
    notebooks.execute(
        notebooks.MEASURING,
        {**sizes, "run": str(folder), "more_s": more_s},
        folder / "notebooks",
        progress=lambda: notebooks.budget_bar(folder, more_s),
    )
    if profile == "full" and not frameworks and not more_s:
        _measure_findings(new=new, data=data, figures=figures, cluster=cluster, workers=workers)
    drawing.draw(str(folder), figures, folder / "notebooks")
    return folder


def _begun(
    profile: str,
    budget_s: float | None,
    frameworks: Sequence[str],
    place: Path,
    where: tuple[str, int | None],
    *,
    new: bool,
) -> Path:
    """Return the folder of a run by this profile: a new one, or one to be continued."""
    from infscale.analysis import power
    from infscale.experiment.check import check
    from infscale.experiment.design.time_plan import check_budget
    from infscale.experiment.folder import folder_for
    from infscale.experiment.measure import asked
    from infscale.findings import protocols

    design = protocols.grid(frameworks).design(profile, budget_s=budget_s)
    check(design)
    check_budget(design)
    print(power.plan(design), flush=True)
    return folder_for(design, place, fresh=new, cluster=asked(*where, design))


def _measure_findings(
    *, new: bool, data: Path | None, figures: str, cluster: str = "", workers: int | None = None
) -> None:
    """Measure every finding in full; print why one cannot be measured on this machine, and go on with the next."""
    from infscale.findings import FINDINGS
    from infscale.records.runs import HEADLINE

    for name in [name for name in FINDINGS if name != HEADLINE]:
        try:
            findings.finding(name, "full", new=new, data=data, figures=figures, cluster=cluster, workers=workers)
        except InfscaleError as error:
            print(f"infscale: finding {name}: {error}", file=sys.stderr)


def _run(
    profile: str,
    budget: float | None,
    more: float | None,
    new: bool,
    frameworks: tuple[str, ...],
    data: str,
    figures: str,
    cluster: str,
    workers: int | None,
    json: bool,
) -> None:
    folder = paper(
        profile,
        budget_s=budget,
        more_s=more or 0.0,
        new=new,
        frameworks=frameworks,
        data=Path(data) if data else None,
        figures=figures,
        cluster=cluster,
        workers=workers,
    )
    if json:
        drawing.emit_result(folder, figures)


command = Command(
    "paper",
    _run,
    [
        option("--profile", section="Measurement", default="quick"),
        option("--budget", section="Measurement", type=Duration(), note="Default: the profile's."),
        option("--more", section="Measurement", type=Duration()),
        option("--new", section="Measurement"),
        option("--frameworks", section="Measurement"),
        *cluster_options(),
        option("--data", section="Folders", note="Default: data/raw."),
        option("--figures", section="Folders", default="figures"),
        option("--json", section="Output"),
    ],
    help="Measure the headline experiment (REST and gRPC on every serving system, with two payloads), summarise it and "
    "draw every figure. An interrupted run is continued, a complete one is reused; --more adds time to it.",
    examples=("infscale paper", "infscale paper --budget 45m", "infscale paper --more 15m"),
)
