"""Findings: the questions of the project, one module each."""

import operator
import warnings
from pathlib import Path

from infscale.analysis.tables import tabulate
from infscale.errors import DataError
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
from infscale.records.manifest import RunManifest, read
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
    """Return every complete run of the findings of the project: in the order of the findings, the newest first.

    Args:
        place: folder of runs; None takes ``data/raw`` of the project, and ``data/sample`` for findings that have no run
            there.
    """
    places = [place] if place else [project_root() / "data" / "raw", project_root() / "data" / "sample"]
    found = [_complete(one) for one in places]
    return [run for name in FINDINGS for run in next((runs[name] for runs in found if runs[name]), [])]


def _complete(place: Path) -> dict[str, list[Run]]:
    """Return the complete runs directly below ``place`` by finding, the newest first; warn of unreadable ones."""
    found: dict[str, list[Run]] = {name: [] for name in FINDINGS}
    for file in place.glob("*/run.json"):
        try:
            manifest = read(file, RunManifest)
            if manifest.status == "complete" and manifest.design.finding in FINDINGS:
                found[manifest.design.finding].append(load_run(file.parent))
        except DataError as error:
            warnings.warn(f"passed over: {error}", stacklevel=3)
    newest_first = operator.attrgetter("manifest.started_at")
    return {name: sorted(runs, key=newest_first, reverse=True) for name, runs in found.items()}
