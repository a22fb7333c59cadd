"""Findings: the questions of the project, one module each."""

from pathlib import Path

from infscale.analysis.tables import tabulate
from infscale.findings import (
    caching,
    client_stacks,
    encodings,
    hybrid,
    load_balancing,
    load_tools,
    network,
    planning,
    porting,
    protocols,
    streaming,
    utilisation,
)
from infscale.findings.finding import Finding
from infscale.records.runs import HEADLINE, Run, complete_runs
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
        load_tools,
        streaming,
        planning,
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

    User-defined findings are among them. A run that cannot be read is warned of, and an earlier one is drawn.

    Args:
        place: folder of runs, absolute or from the project's root.
        folder: folder of figures, given likewise, where the results are written too.
    """
    newest_runs = [runs[0] for name, runs in complete_runs(place).items() if name != HEADLINE]
    return [save(finding_of(run), run, tabulate(run), folder) for run in newest_runs]


def stored_runs(place: Path | str = "") -> list[Run]:
    """Return every complete run of the findings of the project: in the order of the findings, the newest first.

    One that cannot be read is warned of and left out.

    Args:
        place: folder of runs, absolute or from the project's root; "" takes ``data/raw``, and ``data/sample`` for
            findings that have no run there.
    """
    places: list[Path | str] = [place] if place else ["data/raw", "data/sample"]
    found = [complete_runs(one) for one in places]
    return [run for name in FINDINGS for run in next((runs[name] for runs in found if name in runs), [])]
