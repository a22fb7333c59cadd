"""``infscale figures``: draw a run's figures, values and report again from stored data."""

import json
from pathlib import Path

from infscale.cli.options import Command, option


def draw(run: str, figures: str, executed: Path | None = None) -> None:
    """Summarise a run, draw its figures, values and report, and print what share of its trials is valid.

    Args:
        run: the run's folder; "" for the newest complete one, else the committed sample.
        figures: folder to draw into, from the project's root.
        executed: folder that keeps the executed notebooks; None for one beside the derived tables.

    Raises:
        InfscaleError: the folder holds no run, or a notebook failed.
    """
    from tqdm import tqdm

    from infscale.analysis.tables import summary
    from infscale.cli import notebooks
    from infscale.paths import project_root
    from infscale.records import runs
    from infscale.records.manifest import read_json
    from infscale.report import sentences

    folder = runs.find_run(run)
    target = executed or project_root() / "data" / "derived" / folder.name / "notebooks"
    for name in tqdm(notebooks.DRAWING, unit="notebook", desc=f"drawing {folder.name}"):
        if name == "50-paper-values":
            _draw_findings(figures, folder.parent, target)
            parameters = {"payload": "", "runs_folder": str(folder.parent), "figures_folder": figures}
            notebooks.execute("60-advice", parameters, target)
        parameters = {"run": str(folder)}
        if name != "30-summarise":
            parameters["figures_folder"] = figures
        notebooks.execute(name, parameters, target)
    run_id = read_json(folder / "run.json")["run_id"]
    print(sentences.validity_finding(summary.load_tables(project_root() / "data" / "derived" / run_id)))
    print(f"figures, values.tex and report.html are in {project_root() / figures}")


def _draw_findings(figures: str, runs_folder: Path, executed: Path) -> None:
    """Draw every finding again that has a complete run in ``runs_folder``."""
    from infscale.cli import notebooks
    from infscale.findings import studies
    from infscale.records import runs

    for name, study in studies.STUDIES.items():
        folder = runs.newest(runs_folder, name)
        if folder is None:
            continue
        profile = json.loads((folder / "run.json").read_text(encoding="utf-8"))["profile"]
        parameters = {"profile": profile, "run": str(folder), "figures_folder": figures}
        notebooks.execute(study.notebook, parameters, executed)


command = Command(
    "figures",
    draw,
    [
        option("--run", section="Folders", default=""),
        option("--figures", section="Folders", default="figures"),
    ],
    help="Draw every figure, the report and the paper's values again from stored data, without any server.",
    examples=("infscale figures", "infscale figures --figures draft"),
)
