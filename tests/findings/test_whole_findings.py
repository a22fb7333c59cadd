"""Findings as a whole, on real servers at their smallest: if these fail, a finding cannot be reproduced."""

from pathlib import Path

import pandas as pd
import pytest

from infscale import Arm, Finding, measure, save, tabulate
from infscale.cli.notebooks import execute
from infscale.errors import InfscaleError
from infscale.experiment.folder import folder_for
from infscale.findings import FINDINGS, finding_of
from infscale.records.pack import pack_copy
from infscale.records.runs import load_run
from infscale.report.results import load, result_file

OTHERS = [name for name in FINDINGS if name != "protocols"]


@pytest.mark.server
@pytest.mark.parametrize("name", OTHERS)
def test_the_notebook_measures_a_finding_and_draws_it(name: str, tmp_path: Path) -> None:
    """From the parameters of the notebook to the sentences and figures of the report."""
    finding, figures = FINDINGS[name], tmp_path / "figures"
    folder = folder_for(finding.design("tiny"), tmp_path / "raw")
    parameters = {"profile": "tiny", "run": str(folder), "figures_folder": str(figures)}
    try:
        execute(finding.notebook, parameters, tmp_path / "out")
    except InfscaleError as error:
        if "MissingError" in str(error):
            pytest.skip(f"this machine cannot measure {name}: {error}")
        raise
    run = load_run(folder)
    assert run.manifest.status == "complete"
    result = load(result_file(figures, name))
    drawn = pd.read_csv(figures / f"finding-{name}.csv").set_index("label")
    labels = [run.labels[arm] for arm in run.measured]
    assert list(drawn.index) == labels
    assert set(labels) | set(result.left_out) == set(run.labels[: len(run.manifest.design.arms)])
    for label in labels:
        assert any(sentence.startswith(f"{label}: ") for sentence in result.sentences)
    seen = drawn["bytes_out"].dropna()  # what a library puts on the wire is not seen
    assert (seen > (4 * 784 if name != "streaming" else 100)).all()
    assert name in ("client-stacks", "load-tools") or len(seen) == len(drawn)
    compared = [trial for trial in run.trials if trial.manifest.phase in ("grid", "search")]
    assert all(any(group.startswith("server") for group in trial.manifest.usage) for trial in compared)
    assert all((figures / figure.file).is_file() for figure in result.figures)
    copy = load_run(pack_copy(folder, tmp_path / "sample"))
    whole, small = tabulate(run).summary, tabulate(copy).summary
    pd.testing.assert_frame_equal(small, whole)  # else a reader with a clone draws other figures than were measured


@pytest.mark.server
def test_a_finding_of_ones_own_is_measured_tabulated_drawn_and_reported(tmp_path: Path) -> None:
    """A researcher's own question takes ten lines in a notebook, and no other file."""
    small, large = Arm("grpc", framework="triton"), Arm("grpc", framework="triton", batch=16)
    finding = Finding("batch", "Does a batch of 16 pay?", blocks=[[small, large]])
    run = measure(finding.design("tiny"), tmp_path / "raw")
    tables = tabulate(run)
    result = save(finding, run, tables, tmp_path / "figures")

    assert [sentence.partition(":")[0] for sentence in result.sentences] == ["1 row", "16 rows"]
    assert result.question == "Does a batch of 16 pay?"
    assert (tmp_path / "figures" / result.figures[0].file).is_file()
    again = finding_of(load_run(run.folder))  # as the report meets it, without the notebook that made it
    assert again.answer(run, tables) == result.sentences
