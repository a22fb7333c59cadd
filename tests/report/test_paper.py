"""Paper: the same bytes from the same data, sentences that follow the data, notebooks that run."""

import base64
import json
import re
import shutil
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread

from helpers.project import ROOT
from helpers.synthetic_run import GRPC_FASTER, REST_FASTER, TFSERVING, TORCHSERVE, build
from infscale.analysis.tables import summary
from infscale.analysis.tables.saturation import arms_table
from infscale.errors import DataError
from infscale.records import runs
from infscale.records.gate import INVALID
from infscale.records.manifest import write_json
from infscale.records.runs import Run
from infscale.report import html as report
from infscale.report import latex as paper
from infscale.report import sentences as findings
from infscale.report.figures import captions
from infscale.report.figures import catalogue as drawing
from infscale.report.figures.files import save_figure
from infscale.vocabulary import number

Tables = dict[str, pd.DataFrame]
NOTEBOOKS = ["30-summarise", "40-figures", "50-paper-values"]


def drawn(tables: Tables) -> dict[str, tuple[Figure, pd.DataFrame]]:
    """Every figure with the numbers in it."""
    return {name: draw(tables) for name, draw in drawing.FIGURES.items()}


def saved(folder: Path, tables: Tables, run: Run) -> Path:
    """Every figure, written as the notebook writes them."""
    for name, (figure, data) in drawn(tables).items():
        save_figure(figure, f"f0-{name}", folder, data, run.manifest)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runs.load_run(build(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def tables(run: Run) -> Tables:
    return summary.summarise(run)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of a run in which the protocols changed places."""
    return summary.summarise(runs.load_run(build(tmp_path_factory.mktemp("turned"), REST_FASTER, replicates=6)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tables: Tables, run: Run) -> Path:
    return saved(tmp_path_factory.mktemp("figures"), tables, run)


# --- figures on disk ----------------------------------------------------------------------------------


def test_drawn_twice_files_are_equal_byte_by_byte(folder: Path, tables: Tables, run: Run, tmp_path: Path) -> None:
    # Otherwise nobody can tell whether a figure in the repository belongs to its data.
    time.sleep(1.1)  # a date of drawing, in seconds, would differ
    saved(tmp_path, tables, run)
    files = sorted(file.name for file in folder.iterdir() if file.name.startswith("f0-"))
    assert len(files) == 3 * len(drawing.FIGURES)
    for name in files:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_files_hold_no_date_and_no_program_version(folder: Path) -> None:
    # An upgrade of Matplotlib would change every figure in the repository.
    for file in folder.glob("f0-*.p*"):
        content = file.read_bytes()
        assert b"CreationDate" not in content
        assert b"Matplotlib" not in content
        assert b"matplotlib" not in content


def test_pictures_have_the_resolution_of_print(folder: Path) -> None:
    # 200 dpi at 7.2 in: less is blurred on paper.
    assert imread(folder / "f0-percentiles.png").shape[1] == 1440


def test_every_figure_has_its_numbers_and_their_origin_beside_it(folder: Path, run: Run) -> None:
    # A figure without its run cannot be checked or redrawn.
    for name in captions.CAPTIONS:
        numbers = pd.read_csv(folder / f"f0-{name}.csv")
        assert len(numbers)
        assert set(numbers["run_id"]) == {run.id}
        assert set(numbers["commit"]) == {run.manifest["commit"]}
        assert set(numbers["environment_digest"]) == {run.manifest["environment_digest"]}


# --- macros and table ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1230"), (9.996, "10.0"), (0.012345, "0.0123"), (3, "3.00"), (0, "0"), (-1.5, "-1.50"), (999.6, "1000")],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    # 12.345678 ms of three replicates is a false precision, 1.23e+03 no number for a text.
    assert number(value) == text


@given(st.floats(1e-9, 1e12))
def test_rounding_stays_within_half_a_digit(value: float) -> None:
    # Printed and stored numbers would disagree.
    assert float(number(value)) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ((TFSERVING, "rest", "p95", "rate", 3), "infTfservingEmbeddedRestPNinetyFiveRateThree"),
        (("torchserve", "grpc", "p50"), "infTorchserveGrpcPFifty"),
        (("a_b.c", 10), "infABCOneZero"),
    ],
)
def test_macro_names(parts: tuple[object, ...], name: str) -> None:
    # LaTeX takes letters only; a name that changes breaks the paper that quotes it.
    assert paper.macro_name(*parts) == name


def test_values_tex_is_sound_latex(tables: Tables, run: Run) -> None:
    # One bad line, and the paper does not compile; a name twice, and it quotes the wrong number.
    lines = paper.values_tex(run.manifest, tables).splitlines()
    pattern = re.compile(r"\\newcommand\{\\(inf[A-Za-z]+)\}\{([^{}]*(?:\{\\[a-z]+\})?[^{}]*)\} % (.+)")
    found = [pattern.fullmatch(line) for line in lines if not line.startswith("%")]
    assert all(found)
    names = [match[1] for match in found if match]
    assert len(set(names)) == len(names) > 100
    head = "\n".join(line for line in lines if line.startswith("%"))
    for key in ("run_id", "commit", "environment_digest"):
        assert str(run.manifest[key]) in head


def test_values_tex_holds_the_numbers_of_the_tables(tables: Tables, run: Run) -> None:
    # The text of the paper would contradict its figures.
    text = paper.values_tex(run.manifest, tables)
    point = tables["points"].query(f"implementation == '{TORCHSERVE}' and protocol == 'rest'").iloc[1]
    assert f"\\infTorchserveRestPNinetyFiveRateTwo}}{{{number(point['response_p95_ms'])}}}" in text
    assert f"\\infTorchserveRateTwo}}{{{number(point['rate_per_s'])}}}" in text


def test_bounds_and_gaps_cannot_be_quoted_as_estimates(tables: Tables, run: Run) -> None:
    # "p95 is 371 ms" of a saturated trial is a number about the trial's length.
    text = paper.values_tex(run.manifest, tables)
    assert r"\infTorchserveRestPNinetyFiveRateSix}{\ensuremath{\geq}" in text
    assert r"\infTorchserveRatioPNinetyFiveRateSix}{n/a}" in text


def test_the_table_has_a_row_for_each_arm(tables: Tables, run: Run) -> None:
    # booktabs lines with another number of cells do not compile.
    text = paper.table_tex(run.manifest, tables)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5
    assert len({row.count(" & ") for row in rows}) == 1
    assert "embedded (our implementation)" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_latex_specials_are_escaped() -> None:
    # A label with an underscore stops the compiler.
    assert paper.tex_escape("a_b & 5 % {x}~\\") == r"a\_b \& 5 \% \{x\}\textasciitilde{}\textbackslash{}"


# --- findings -----------------------------------------------------------------------------------------


def test_the_saturation_sentence_turns_with_the_data(tables: Tables, turned: Tables) -> None:
    # A sentence that is written before the data are seen is an opinion.
    first, last = (findings.saturation_findings(found["arms"])[0] for found in (tables, turned))
    assert "gRPC kept up with higher arrival rates than REST" in first
    assert "REST kept up with higher arrival rates than gRPC" in last


def test_brackets_that_lie_apart_are_no_finding_where_replicates_disagree(tables: Tables) -> None:
    # One replicate's luck places a bracket; the interval over replicates knows.
    arms = tables["arms"].assign(interval_low_per_s=100.0, interval_high_per_s=5000.0)
    assert all("cannot conclude" in sentence for sentence in findings.saturation_findings(arms))


def test_the_latency_sentence_turns_with_the_data(tables: Tables, turned: Tables) -> None:
    # As above.
    first, last = (findings.latency_findings(found)[0] for found in (tables, turned))
    assert "REST was slower: p95 REST ÷ gRPC" in first
    assert "gRPC was slower: p95 REST ÷ gRPC" in last


def test_equal_brackets_are_no_finding(tables: Tables) -> None:
    # Two arms saturating between the same rates of the grid are not told apart by it.
    sentence = findings.saturation_findings(tables["arms"])[1]
    assert "cannot conclude which protocol saturates at the higher rate" in sentence


@pytest.mark.parametrize(
    ("low", "high", "conclusion"), [(0.9, 1.2, "cannot conclude"), (np.nan, np.nan, "cannot conclude")]
)
def test_an_interval_over_one_or_none_is_no_finding(low: float, high: float, conclusion: str, tables: Tables) -> None:
    # The most frequent way to find what was expected.
    ratios = tables["ratios"].assign(ratio_low=low, ratio_high=high, conclusion=conclusion)
    for sentence in findings.latency_findings(tables | {"ratios": ratios}):
        assert "cannot conclude" in sentence
        assert "was slower: p95" not in sentence


def test_an_arm_that_never_saturated_is_at_least_so_fast(tables: Tables) -> None:
    # "λ* = 780" of an arm that was not pushed further is wrong.
    arms = tables["arms"].copy()
    rest = arms["protocol"] == "rest"
    arms.loc[rest, ["high_per_s", "settled_per_s"]] = np.nan
    arms.loc[rest, "bound"] = "≥"
    sentence = findings.saturation_findings(arms)[1]
    assert "at or above 552 requests/s (never SATURATED in this run)" in sentence
    assert "cannot conclude" in sentence


def test_limits_come_from_the_data(tables: Tables, run: Run) -> None:
    # The reader of a quick run on two shared cores has to know it.
    told = " ".join(findings.limits(run.manifest, tables))
    for words in ("quick profile", "our implementation", "2 cores, not pinned", "rest", "json", "governor"):
        assert words.lower() in told.lower()
    long = run.manifest | {
        "profile": "full",
        "config": run.manifest["config"] | {"replicates": 8},
        "implementations": {TORCHSERVE: run.manifest["implementations"][TORCHSERVE]},
        "machine": run.manifest["machine"] | {"governor": "performance"},
    }
    told = " ".join(findings.limits(long, tables | {"trials": tables["trials"].assign(pinned=True, same_host=False)}))
    for words in ("exploratory", "our implementation", "not pinned", "governor"):
        assert words not in told


def test_changed_verdicts_are_told(tables: Tables, run: Run) -> None:
    # Rules that changed since a run was measured change its figures without a word.
    trials = tables["trials"].assign(verdict_stored=INVALID)
    assert any("another verdict" in text for text in findings.limits(run.manifest, tables | {"trials": trials}))


# --- report -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(run: Run, tables: Tables, folder: Path) -> str:
    return report.report_html(run.manifest, tables, folder)


def test_the_report_needs_nothing_else(page: str) -> None:
    # Mailed to a reader, a page with links to files shows broken pictures.
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "@import" not in page
    assert "url(" not in page
    assert page.count("<img") == page.count('alt="') == len(drawing.FIGURES)


def test_the_report_holds_the_drawn_pictures(page: str, folder: Path) -> None:
    # Pictures of another run under this run's sentences.
    found = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert found == [(folder / f"f0-{name}.png").read_bytes() for name in captions.CAPTIONS]


def test_the_report_is_the_same_each_time(page: str, run: Run, tables: Tables, folder: Path) -> None:
    # A time of writing in it makes every checkout dirty.
    assert report.report_html(run.manifest, tables, folder) == page


def test_the_report_says_findings_verdicts_machine_and_limits(page: str, run: Run, tables: Tables) -> None:
    # For a reader who was not there, what is missing did not happen.
    text = re.sub(r"\s+", " ", page)
    sentences = findings.saturation_findings(tables["arms"]) + findings.latency_findings(tables)
    for words in (
        *sentences,
        findings.validity_finding(tables),
        run.manifest["machine"]["cpu"],
        run.manifest["commit"],
    ):
        assert words.replace("'", "&#39;") in text
    for words in findings.limits(run.manifest, tables):
        assert words.replace("'", "&#39;") in text


def test_pictures_of_another_run_are_refused(run: Run, tables: Tables, folder: Path, tmp_path: Path) -> None:
    # As above, and a missing one says what to run.
    shutil.copytree(folder, tmp_path / "figures")
    with pytest.raises(DataError, match="drawn from"):
        report.report_html(run.manifest | {"run_id": "another"}, tables, tmp_path / "figures")
    (tmp_path / "figures" / "f0-lag.png").unlink()
    with pytest.raises(DataError, match="40-figures"):
        report.report_html(run.manifest, tables, tmp_path / "figures")


# --- notebooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_thin(name: str) -> None:
    # Code in a notebook is code without tests; an absolute path works on one machine.
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags") for cell in cells].count(["parameters"]) == 1
    for cell in cells:
        assert not cell.outputs
        assert len(cell.source.splitlines()) <= 10
        assert not re.search(r"^\s*(def|for|while|class) |[\"']/", cell.source, re.MULTILINE)
    for line in next(cell for cell in cells if cell.metadata.get("tags")).source.splitlines():
        assert re.fullmatch(r"\w+ = .+  # \w+(, \S+)?: .+", line)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folders with one small run, apart from the real one."""
    root = tmp_path_factory.mktemp("project")
    (root / "lib" / "infscale").mkdir(parents=True)
    (root / "notebooks").mkdir()
    build(root / "data" / "raw", GRPC_FASTER, grid=(0.2, 0.45, 1.2), duration_s=1.0)
    return root


def test_notebooks_draw_everything_from_a_stored_run(project: Path, tmp_path: Path) -> None:
    # JupyterLab starts in notebooks/, papermill where it was called: both must find the data.
    for name, place in zip(NOTEBOOKS, (project, project / "notebooks", project), strict=True):
        source, executed = ROOT / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb"
        papermill.execute_notebook(source, executed, cwd=place, progress_bar=False, log_output=False)
    made = {file.name for file in (project / "figures").iterdir()}
    assert {"report.html", "values.tex", "table-f0.tex", "f0-percentiles.pdf", "f0-ratio.csv"} <= made


def test_the_report_of_an_interrupted_run_without_replicates(tmp_path: Path, folder: Path) -> None:
    # What is on disk after Ctrl-C is what the user wants to look at first.
    path = build(tmp_path, {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 300.0}, replicates=1, grid=(0.3, 0.6))
    manifest = json.loads((path / "run.json").read_text())
    write_json(path / "run.json", manifest | {"status": "interrupted", "finished_at": None})
    run = runs.load_run(path)
    tables = summary.summarise(run)
    assert all(figure.axes for figure, _ in drawn(tables).values())
    page = report.report_html(run.manifest, tables, folder)
    assert "not finished" in page
    assert "cannot conclude" in page
    assert "The run was interrupted" in page
    paper.values_tex(run.manifest, tables)
    paper.table_tex(run.manifest, tables)


@pytest.mark.parametrize("capacity", [20.0, 5000.0], ids=["everything saturated", "nothing saturated"])
def test_one_sided_runs_are_drawn_and_reported(capacity: float, tmp_path: Path, folder: Path) -> None:
    # A grid that missed the saturation rate must say so, not fail after a night of measuring.
    path = build(tmp_path, {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 300.0}, grid=(0.7, 1.4), shrink=capacity)
    run = runs.load_run(path)
    tables = summary.summarise(run)
    assert all(figure.axes for figure, _ in drawn(tables).values())
    page = report.report_html(run.manifest, tables, folder)
    assert "cannot conclude which protocol saturates" in page
    assert ("never SATURATED" in page) == (capacity > 1000)
    assert ("nothing below was VALID" in page) == (capacity < 1000)


def test_a_run_of_one_protocol_has_no_ratio(tables: Tables, folder: Path, run: Run) -> None:
    # Half an experiment is what an interrupted one leaves.
    trials = tables["trials"].query("protocol == 'rest'")
    points, arms = summary.points_table(trials), arms_table(trials)
    half = tables | {"trials": trials, "points": points, "arms": arms, "ratios": summary.ratios_table(trials)}
    half |= {"shares": summary.shares_table(trials, arms)}
    half["distributions"] = tables["distributions"].query("protocol == 'rest'")
    assert "λ* of REST" in findings.saturation_findings(arms)[0]
    assert "cannot conclude about response times" in findings.latency_findings(half)[0]
    assert all(figure.axes for figure, _ in drawn(half).values())
    report.report_html(run.manifest, half, folder)
