"""If these fail, a reader with a fresh clone cannot draw the figures, or draws others than the README shows."""

import re
from pathlib import Path

import pytest
from infscale.findings.studies import STUDIES

from helpers.project import ROOT
from infscale.cli import main
from infscale.records import runs

SAMPLE = ROOT / "data" / "sample"


def test_there_is_a_real_complete_run_of_the_main_experiment() -> None:
    folder = runs.newest(SAMPLE, "protocol-grid")
    assert folder is not None
    run = runs.load_run(folder)
    assert {t.manifest["protocol"] for t in run.trials} == {"rest", "grpc"}
    assert {t.manifest["framework"] for t in run.trials} == set(run.manifest["config"]["frameworks"])


@pytest.mark.parametrize("name", list(STUDIES))
def test_there_is_a_small_real_complete_run_of_every_finding(name: str) -> None:
    folder = runs.newest(SAMPLE, name)
    assert folder is not None
    run = runs.load_run(folder)
    cases = {case["name"] for case in run.manifest["config"]["cases"]}
    assert {trial.manifest["case"] for trial in run.trials} == cases - set(run.manifest.get("skipped", {}))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5e6


def test_it_is_small_and_names_no_machines_paths() -> None:
    files = [path for path in SAMPLE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15e6 + len(STUDIES) * 5e6
    for path in files:
        if path.suffix == ".json":
            absolute = re.findall(r'[="](/[a-z][^"]*)', path.read_text())
            assert [found for found in absolute if not found.startswith(("/tmp/", "/models/"))] == []


def test_the_committed_figures_are_those_of_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["figures", "--run", str(runs.newest(SAMPLE, "protocol-grid")), "--figures", str(tmp_path)]) == 0
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(drawn) == sorted(path.name for path in (ROOT / "figures").iterdir())
    assert {name for name, data in drawn.items() if (ROOT / "figures" / name).read_bytes() != data} == set()
