"""``infscale figures``: draw figures, values and report again from stored data."""

from pathlib import Path

from infscale.cli.options import Command, option


def draw(run: str, figures: str, executed: Path | None = None) -> None:
    """Draw a run and every finding that has a complete run beside it, and print what was found.

    A run of the protocols finding (F0) gets its tables, figures, values and the report, into
    which the other findings and the advice go. A run of another finding is drawn alone.

    Args:
        run: the run's folder; "" for the newest complete one of F0, else the committed sample.
        figures: folder to draw into, from the project's root.
        executed: folder that keeps the executed notebooks; None for one beside the derived tables.

    Raises:
        InfscaleError: the folder holds no run, or a notebook failed.
    """
    from infscale.paths import project_root
    from infscale.records.manifest import RunManifest, read
    from infscale.records.runs import HEADLINE, find_run

    folder = find_run(run)
    manifest = read(folder / "run.json", RunManifest)
    if manifest.design.finding == HEADLINE:
        target = executed or project_root() / "data" / "derived" / manifest.run_id / "notebooks"
        _draw_all(folder, manifest.run_id, figures, target)
    else:
        _draw_alone(folder, figures)


def _draw_all(folder: Path, run_id: str, figures: str, executed: Path) -> None:
    from tqdm import tqdm

    from infscale.analysis.tables import load_tables
    from infscale.cli import notebooks
    from infscale.paths import project_root
    from infscale.report.limits import validity

    place = {"figures_folder": figures}
    parameters: dict[str, dict[str, object]] = {
        "30-summarise": {"run": str(folder)},
        "40-figures": {"run": str(folder), **place},
        "60-advice": {"payload": "", "runs_folder": str(folder.parent), **place},
        "50-paper-values": {"run": str(folder), **place},
    }
    for name in tqdm(notebooks.DRAWING, unit="notebook", desc=f"drawing {folder.name}"):
        notebooks.execute(name, parameters[name], executed)
    print(validity(load_tables(project_root() / "data" / "derived" / run_id)))
    print(f"figures, values.tex and report.html are in {project_root() / figures}")


def _draw_alone(folder: Path, figures: str) -> None:
    from infscale.analysis.tables import tabulate
    from infscale.findings import finding_of
    from infscale.paths import project_root
    from infscale.records.runs import load_run
    from infscale.report.results import save

    run = load_run(folder)
    result = save(finding_of(run), run, tabulate(run), project_root() / figures)
    print("\n".join(result.sentences))
    print(f"figures are in {project_root() / figures}; infscale figures takes them into the report")


def emit_result(folder: Path | str, figures: str) -> None:
    """Print what a drawn run says as JSON: its finding's result, which for all but F0 lies beside the figures, too.

    Raises:
        DataError: the folder is no run, or was not drawn.
    """
    from infscale.cli import printed
    from infscale.findings import finding_of
    from infscale.paths import in_project
    from infscale.records.runs import HEADLINE, load_run
    from infscale.report.listing import stored_tables
    from infscale.report.results import load, result_file, result_of

    run = load_run(folder)
    finding = run.manifest.design.finding
    if finding == HEADLINE:
        printed.emit(result_of(finding_of(run), run, stored_tables(run)))
    else:
        printed.emit(load(result_file(in_project(figures), finding)))


def _run(run: str, figures: str, json: bool) -> None:
    from infscale.records.runs import find_run

    draw(run, figures)
    if json:
        emit_result(find_run(run), figures)


command = Command(
    "figures",
    _run,
    [
        option("--run", section="Folders", default=""),
        option("--figures", section="Folders", default="figures"),
        option("--json", section="Output"),
    ],
    help="Draw every figure, the report and the paper's values again from stored data, without any server.",
    examples=("infscale figures", "infscale figures --figures draft --json"),
)
