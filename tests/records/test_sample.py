"""If these fail, a reader with a fresh clone cannot draw the figures, or sees none in the README."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.image import imread

from helpers.project import ROOT
from helpers.sample import SAMPLE, sample_figures, sample_folder, sample_run, sample_tables
from infscale.analysis.answers import UNDECIDED
from infscale.findings import FINDINGS
from infscale.records.gate import VALID
from infscale.records.runs import HEADLINE
from infscale.report import results
from infscale.report.figures.arms.sizes import SIZES
from infscale.report.figures.files import file_stem


def test_there_is_a_real_complete_run_of_the_main_finding() -> None:
    run = sample_run(HEADLINE)
    assert {trial.manifest.arm.protocol for trial in run.trials} == {"rest", "grpc"}
    assert {trial.manifest.arm.framework for trial in run.trials} == set(run.manifest.design.frameworks())


@pytest.mark.parametrize("name", [name for name in FINDINGS if name != HEADLINE])
def test_there_is_a_small_real_complete_run_of_every_finding(name: str) -> None:
    run = sample_run(name)
    arms = set(range(len(run.manifest.design.arms)))
    assert {trial.manifest.arm_number for trial in run.trials} == arms - set(run.manifest.skipped)
    assert sum(path.stat().st_size for path in sample_folder(name).rglob("*") if path.is_file()) < 5e6


@pytest.mark.parametrize("name", FINDINGS)
def test_it_is_packed_and_every_measured_arm_has_a_valid_trial(name: str) -> None:
    run = sample_run(name)
    assert (run.manifest.status, run.manifest.packed) == ("complete", True)
    assert run.manifest.design.digest() == run.manifest.design_digest
    for number in run.measured:
        own = [trial.manifest for trial in run.trials if trial.manifest.arm_number == number]
        assert any(m.judged.name == VALID for m in own), run.labels[number]
        assert {m.implementation for m in own} == {run.implementation(number)}
    assert all({contrast.arm, contrast.reference} <= set(run.measured) for contrast in run.manifest.design.contrasts)


@pytest.mark.parametrize("name", FINDINGS)
def test_every_trial_of_it_can_be_read(name: str) -> None:
    """Rows and readings, each of its own trial."""
    for trial in sample_run(name).trials:
        rows = trial.samples(["trial_id", "done_ns"])
        left_out = trial.manifest.phase == "search"  # whose verdicts are kept alone
        assert len(rows) == (0 if left_out else trial.manifest.rows)
        assert set(rows["trial_id"]) == (set() if left_out else {trial.manifest.trial_id})
        readings = trial.usage()
        # A client library counts its own use: it may start after the last reading.
        assert readings.empty or set(trial.manifest.usage) - {"client"} <= set(readings["group"])


def test_it_is_small_and_names_no_machines_paths() -> None:
    files = [path for path in SAMPLE.rglob("*") if path.is_file()]
    assert len(files) <= 4 * len(FINDINGS) + 1  # "streaming" has its messages, too
    assert sum(path.stat().st_size for path in files) < 25e6, "a clone is waited for"
    texts = {path: path.read_text() for path in files if path.suffix == ".json"}
    texts |= {path: "\n".join(pd.read_parquet(path)["manifest"]) for path in files if path.name == "trials.parquet"}
    assert len(texts) == 2 * len(FINDINGS)
    for path, text in texts.items():
        absolute = re.findall(r'[="](/[a-z][^"]*)', text)
        of_urls = ("/models/", "/v2/models/", "/inference.")
        assert [name for name in absolute if not name.startswith(("/tmp/", *of_urls))] == [], path


@pytest.mark.parametrize("name", list(FINDINGS))
def test_every_picture_of_every_finding_is_drawn_from_it(name: str) -> None:
    # A figure that the sample cannot show, a reader without servers never sees.
    for picture in FINDINGS[name].pictures:
        png = sample_figures() / f"{file_stem(name, picture.name)}.png"
        if picture is SIZES:  # the sample's encodings are of one size
            assert not png.exists()
        else:
            numbers = pd.read_csv(png.with_suffix(".csv"))
            assert len(numbers)
            assert set(numbers["run_id"]) == {sample_run(name).id}
            assert imread(png).shape[1] in (700, 1440)
            assert png.with_suffix(".pdf").stat().st_size > 5000


@pytest.mark.parametrize("name", ["caching", "load-balancing", "utilisation"])
def test_drawn_again_the_files_are_the_same(name: str, tmp_path: Path) -> None:
    # A figure that differs from drawing to drawing cannot be checked against its data.
    results.save(FINDINGS[name], sample_run(name), sample_tables(name), tmp_path)
    again = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(again) > 5
    assert {file: (sample_figures() / file).read_bytes() for file in again} == again


def test_the_images_of_the_pages_are_there_and_alone() -> None:
    # A broken picture is the first thing that a visitor sees; one that nothing shows is dead weight.
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {name for page in pages for name in re.findall(r"\((?:docs/)?images/([^)]+)\)", page.read_text())}
    assert shown == {path.name for path in (ROOT / "docs" / "images").iterdir()}
    for name in shown:
        assert imread(ROOT / "docs" / "images" / name).shape[1] == 1440


def test_the_numbers_in_the_readme_are_the_samples() -> None:
    # A number of last year's machine beside this year's picture would be found by the reader who checks.
    (text,) = re.findall(r"\nIn that run (.*?)\n\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    table = sample_tables(HEADLINE).contrasts
    ratios = {f"{ratio:.{digits}f}" for ratio in table["ratio"] for digits in (1, 2)}
    said = set(re.findall(r"\d+\.\d+", text))
    assert len(said) > 5
    assert said <= ratios
    undecided = int((table["answer"] == UNDECIDED).sum())
    assert f"{['Twelve', 'Eleven', 'Ten'][undecided]} of the twelve contrasts" in text


def test_the_sentence_in_the_tutorial_is_the_samples() -> None:
    """It explains how to read one, beside the figure of the same run."""
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    quoted = " ".join(re.findall(r"^> (.*)$", tutorial, re.MULTILINE)).replace("\\", "")
    assert quoted in results.load(results.result_file(sample_figures(), "client-stacks")).sentences


def test_the_query_in_the_data_folders_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads the data with another program starts from it."""
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(import pandas.*?)```", (ROOT / "data" / "README.md").read_text(), re.DOTALL)
    *statements, last = code.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(statements), names)
    table = eval(last, names)
    assert len(table) == len(sample_run("encodings").manifest.design.arms)
    assert (table > 0).all(axis=None)
