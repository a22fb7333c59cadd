"""Findings: the questions of the project, one module each."""

from pathlib import Path

from infscale.analysis.tables import tabulate
from infscale.findings import (
    caching,
    client_stacks,
    encodings,
    hybrid,
    load_balancing,
    network,
    porting,
    protocols,
    utilisation,
)
from infscale.findings.finding import Finding
from infscale.paths import project_root
from infscale.records.runs import HEADLINE, Run, findings_of, load_run, newest
from infscale.report.results import FindingResult, save

FINDINGS: dict[str, Finding] = {
    module.FINDING.name: module.FINDING
    for module in (
        protocols,
        encodings,
        hybrid,
        caching,
        utilisation,
        load_balancing,
        porting,
        client_stacks,
        network,
    )
}
"""The findings of the project by name, in the order of the report."""


def finding_of(run: Run) -> Finding:
    """Return the finding that a run belongs to.

    For a user-defined finding, make one from the stored design, with a sentence for each arm.
    """
    design = run.manifest.design
    if design.finding in FINDINGS:
        return FINDINGS[design.finding]
    return Finding(design.finding, design.question, blocks=())


def save_all(place: Path, folder: Path) -> list[FindingResult]:
    """Draw every finding but the protocols that has a complete run directly below ``place``; see :func:`save`.

    User-defined findings are among them.

    Args:
        place: folder of runs.
        folder: folder of figures, where the results are written too.
    """
    names = [name for name in findings_of(place) if name != HEADLINE]
    newest_runs = [load_run(path) for path in (newest(place, name) for name in names) if path]
    return [save(finding_of(run), run, tabulate(run), folder) for run in newest_runs]


def stored_runs(place: Path | None = None) -> list[Run]:
    """Return the newest complete run of each finding of the project, in their order.

    Args:
        place: folder of runs; None takes ``data/raw`` of the project, and ``data/sample`` for what is not there.
    """
    places = [place] if place else [project_root() / "data" / "raw", project_root() / "data" / "sample"]
    folders = (next(filter(None, (newest(one, name) for one in places)), None) for name in FINDINGS)
    return [load_run(folder) for folder in folders if folder]
