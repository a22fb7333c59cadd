"""``infscale paper``: measure the headline experiment, in full also every finding, and draw everything."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from infscale.cli import figures as drawing
from infscale.cli import finding as findings
from infscale.cli.options import Command, option
from infscale.errors import InfscaleError


def paper(
    profile: str, *, new: bool, frameworks: Sequence[str] = (), data: Path | None = None, figures: str = "figures"
) -> Path:
    """Measure the protocols finding (F0), or go on with an interrupted run of it, and draw.

    Args:
        profile: "quick", "full" or "tiny"; "full" without ``frameworks`` measures every finding as well.
        new: measure afresh.
        frameworks: only these; empty for all.
        data: folder of runs; None for data/raw of the project.
        figures: folder to draw into, from the project's root.

    Returns:
        The run's folder.

    Raises:
        InfscaleError: an unknown profile or framework, a folder that cannot be written, or a notebook that failed.
    """
    from infscale.analysis import power
    from infscale.cli import notebooks
    from infscale.deployment.processes.pids import record_pids
    from infscale.experiment.check import check
    from infscale.experiment.folder import default_place, folder_for
    from infscale.findings import protocols

    chosen = list(frameworks) or None
    design = protocols.grid(frameworks).design(profile)
    check(design)
    print(power.plan(design), flush=True)
    folder = folder_for(design, (data or default_place()).resolve(), fresh=new)
    print(f"run: {folder}", flush=True)
    record_pids(folder / "pids.txt", {os.getpid(): "infscale paper", os.getppid(): "its parent"})
    parameters = {"profile": profile, "run": str(folder), **({"frameworks": chosen} if chosen else {})}
    notebooks.execute(
        notebooks.MEASURING,
        parameters,
        folder / "notebooks",
        progress=lambda: notebooks.trials_bar(folder, design.expected_trials()),
    )
    if profile == "full" and not chosen:
        _measure_findings(new=new, data=data, figures=figures)
    drawing.draw(str(folder), figures, folder / "notebooks")
    return folder


def _measure_findings(*, new: bool, data: Path | None, figures: str) -> None:
    """Measure every finding in full; print why one cannot be measured on this machine, and go on with the next."""
    from infscale.findings import FINDINGS
    from infscale.records.runs import HEADLINE

    for name in [name for name in FINDINGS if name != HEADLINE]:
        try:
            findings.finding(name, "full", new=new, data=data, figures=figures)
        except InfscaleError as error:
            print(f"infscale: finding {name}: {error}", file=sys.stderr)


def _run(profile: str, new: bool, frameworks: tuple[str, ...], data: str, figures: str) -> None:
    paper(profile, new=new, frameworks=frameworks, data=Path(data) if data else None, figures=figures)


command = Command(
    "paper",
    _run,
    [
        option("--profile", section="Measurement", default="quick"),
        option("--new", section="Measurement"),
        option("--frameworks", section="Measurement"),
        option("--data", section="Folders", note="Default: data/raw."),
        option("--figures", section="Folders", default="figures"),
    ],
    help="Measure the headline experiment (REST and gRPC on every serving system, at several arrival rates), summarise "
    "it and draw every figure. An interrupted run is continued, a complete one is reused.",
    examples=("infscale paper", "infscale paper --profile tiny --frameworks triton --new"),
)
