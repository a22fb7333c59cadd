"""``infscale finding``: measure one finding of the study and draw it."""

from pathlib import Path

import click

from infscale.cli.options import Command, option
from infscale.errors import one_of


def finding(name: str, profile: str, *, new: bool, data: Path | None = None, figures: str = "figures") -> Path:
    """Measure a finding, or go on with an interrupted run of it, draw it, and print what it found.

    Args:
        name: such as "encodings".
        profile: "quick", "full" or "tiny".
        new: measure afresh.
        data: folder of runs; None for data/raw of the project.
        figures: folder to draw into, from the project's root.

    Returns:
        The run's folder.

    Raises:
        InfscaleError: an unknown finding or profile, a folder that cannot be written, or a notebook that failed.
    """
    from infscale.cli import notebooks
    from infscale.experiment.check import check
    from infscale.experiment.design.time_plan import time_plan
    from infscale.experiment.folder import default_place, folder_for
    from infscale.findings import FINDINGS
    from infscale.paths import project_root
    from infscale.report.results import load, result_file

    one_of("finding", name, FINDINGS)
    design = FINDINGS[name].design(profile)
    check(design)
    print(time_plan(design), flush=True)
    folder = folder_for(design, (data or default_place()).resolve(), fresh=new)
    print(f"run: {folder}", flush=True)
    notebooks.execute(
        FINDINGS[name].notebook,
        {"profile": profile, "run": str(folder), "figures_folder": figures},
        folder / "notebooks",
        progress=lambda: notebooks.trials_bar(folder, design.expected_trials()),
    )
    print("\n".join(load(result_file(project_root() / figures, name)).sentences))
    return folder


def _run(name: str, profile: str, new: bool, data: str, figures: str) -> None:
    finding(name, profile, new=new, data=Path(data) if data else None, figures=figures)


command = Command(
    "finding",
    _run,
    [
        click.Argument(["name"], help="Such as encodings, hybrid or caching; an unknown name lists them all."),
        option("--profile", section="Measurement", default="quick"),
        option("--new", section="Measurement"),
        option("--data", section="Folders", note="Default: data/raw."),
        option("--figures", section="Folders", default="figures"),
    ],
    help="Measure one finding of the study (at most ten minutes as a quick run), draw it and print its answer. An "
    "interrupted run is continued, a complete one is reused.",
    examples=("infscale finding encodings", "infscale finding hybrid --profile tiny --new"),
)
