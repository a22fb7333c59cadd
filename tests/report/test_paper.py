"""Paper and report: the same bytes from the same data, every number with its unit, notebooks that run."""

import base64
import dataclasses
import html as markup
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import papermill
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread, imsave

from helpers.project import ROOT
from helpers.synthetic_run import GRPC_FASTER, TFSERVING, TORCHSERVE, build
from helpers.tables import searched
from infscale.analysis.tables import Tables, tabulate
from infscale.errors import DataError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import P95
from infscale.findings import FINDINGS, finding_of
from infscale.findings.finding import Finding
from infscale.records import manifest as manifests
from infscale.records import runs
from infscale.records.gate import INVALID, UNSTEADY, VALID
from infscale.records.runs import Run
from infscale.report import advice, claims, latex, limits, results
from infscale.report.figures.files import file_stem, save_picture
from infscale.report.figures.picture import Picture
from infscale.report.page import page
from infscale.vocabulary import number

NOTEBOOKS = ["30-summarise", "40-figures", "60-advice", "50-paper-values"]
F0 = FINDINGS["protocols"]
OTHERS = ("encodings", "hybrid", "caching", "load-balancing", "porting", "client-stacks", "network", "load-tools")
TWO = Finding("two", "Is REST slower?", [[Arm("grpc", framework="triton"), Arm("rest", framework="triton")]])


def saved(folder: Path, run: Run, tables: Tables, pictures: Sequence[Picture] = F0.pictures) -> Path:
    """Figures of F0, written as the notebook writes them."""
    for picture in pictures:
        save_picture(picture, run, tables, folder)
    return folder


def drawn(folder: Path, run: Run, tables: Tables) -> Path:
    """Figures of F0, drawn, but written as PNG files of one pixel: which is what takes time."""
    folder.mkdir()
    for picture in F0.pictures:
        numbers = picture.numbers(run, tables)
        if len(numbers):
            assert picture.draw(numbers).axes
            imsave(folder / f"f0-{picture.name}.png", np.zeros((1, 1)))
            numbers.assign(run_id=run.id).to_csv(folder / f"f0-{picture.name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runs.load_run(build(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def tables(run: Run) -> Tables:
    return tabulate(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tables: Tables, run: Run) -> Path:
    return saved(tmp_path_factory.mktemp("figures"), run, tables)


# --- figures on disk ----------------------------------------------------------------------------------


def test_drawn_later_files_are_equal_byte_by_byte(folder: Path, tables: Tables, run: Run, tmp_path: Path) -> None:
    # Otherwise nobody can tell whether a figure belongs to its data.
    time.sleep(1.1)  # a date of drawing, in seconds, would differ
    assert len(list(folder.iterdir())) == 3 * len(F0.pictures)
    saved(tmp_path, run, tables, F0.pictures[:2])
    files = list(tmp_path.iterdir())
    assert len(files) == 6
    for file in files:
        assert file.read_bytes() == (folder / file.name).read_bytes(), file.name


def test_files_hold_no_date_and_no_program_version(folder: Path) -> None:
    # An upgrade of Matplotlib would change every figure of a paper.
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
    for picture in F0.pictures:
        numbers = pd.read_csv(folder / f"{file_stem('protocols', picture.name)}.csv")
        assert len(numbers)
        assert set(numbers["run_id"]) == {run.id}
        assert set(numbers["commit"]) == {run.manifest.commit}
        assert set(numbers["environment_digest"]) == {run.manifest.environment_digest}


# --- macros and table ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,230"),
        (9.996, "10.0"),
        (0.012345, "0.0123"),
        (3, "3.00"),
        (0, "0"),
        (-1.5, "-1.50"),
        (999.6, "1,000"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    # 12.345678 ms of three lifetimes is a false precision, 1.23e+03 no number for a text.
    assert number(value) == text


@given(st.floats(1e-9, 1e12))
def test_rounding_stays_within_half_a_digit(value: float) -> None:
    # Printed and stored numbers would disagree.
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


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
    assert latex.macro_name(*parts) == name


def macros(text: str) -> dict[str, str]:
    """Name → value of every macro; a line that is neither one nor a comment fails."""
    pattern = re.compile(r"\\newcommand\{\\(inf[A-Za-z]+)\}\{([^{}]*(?:\{\\[a-z]+\})?[^{}]*)\} % (.+)")
    matches = [pattern.fullmatch(line) for line in text.splitlines() if not line.startswith("%")]
    assert all(matches)
    names = {match[1]: match[2] for match in matches if match}
    assert len(names) == len(matches)
    return names


def test_values_tex_is_sound_latex(tables: Tables, run: Run) -> None:
    # One bad line, and the paper does not compile; a name twice, and it quotes the wrong number.
    text = latex.values_tex(run.manifest, tables)
    assert len(macros(text)) > 100
    head = "\n".join(line for line in text.splitlines() if line.startswith("%"))
    for origin in (run.id, run.manifest.commit, run.manifest.environment_digest):
        assert origin in head


def test_arms_of_one_protocol_have_macros_of_their_own() -> None:
    # Two encodings over REST on one server: the second would overwrite the first.
    run, tables = searched(FINDINGS["encodings"].design("quick"))
    names = macros(latex.values_tex(run.manifest, tables))
    assert len([name for name in names if name.endswith("Saturation") and "Ratio" not in name]) == len(run.measured)


def test_values_tex_holds_every_named_contrast_with_its_answer(tables: Tables, run: Run) -> None:
    # A paper quotes claims; without the answer beside it, an undecided ratio is quoted as one.
    text = latex.values_tex(run.manifest, tables)
    names = macros(text)
    row = tables.contrasts[tables.contrasts["framework"] == "tfserving"].iloc[0]
    assert names["infTfservingEmbeddedRestRatioPNinetyFive"] == number(row["ratio"])
    assert names["infTfservingEmbeddedRestRatioPNinetyFiveLow"] == number(row["ratio_low"])
    assert f"{row['label']} / {row['reference_label']}, 4 lifetimes: {row['answer']}" in text
    assert "infTorchserveRestRatioSaturation" in names
    assert names["infFirstLook"] == "4"


def test_values_tex_holds_the_contrasts_of_other_findings(tables: Tables, run: Run) -> None:
    # A paper on eight questions would have copied seven of them by hand.
    others = [claim for name in OTHERS for claim in claims.claims(*searched(FINDINGS[name].design("quick")))]
    text = latex.values_tex(run.manifest, tables, others)
    names, start = macros(text), "infEncodingsTritonRESTBinaryOverRESTJSON"
    one = next(one for one in others if one.finding == "encodings" and one.arm == "REST, binary" and one.metric == P95)
    assert names[f"{start}PNinetyFiveRatio"] == number(one.ratio or np.nan)
    assert names[f"{start}PNinetyFiveLow"] == number(one.low or np.nan)
    assert names[f"{start}PNinetyFiveAnswer"] == one.answer
    assert names[f"{start}SaturationLifetimes"] == str(one.lifetimes)
    assert len(names) == len(macros(latex.values_tex(run.manifest, tables))) + 5 * len(others)


def test_values_tex_holds_the_numbers_of_the_tables(tables: Tables, run: Run) -> None:
    # The text of the paper would contradict its figures.
    names = macros(latex.values_tex(run.manifest, tables))
    points = tables.points
    point = points[(points["framework"] == "torchserve") & (points["protocol"] == "rest")].iloc[1]
    assert names["infTorchserveRestPNinetyFiveRateTwo"] == number(point["response_p95_ms"])
    assert names["infTorchserveRateTwo"] == number(point["rate_per_s"])


def test_bounds_and_gaps_cannot_be_quoted_as_estimates(tables: Tables, run: Run) -> None:
    # "p95 is 371 ms" of a saturated trial is a number about the trial's length.
    names = macros(latex.values_tex(run.manifest, tables))
    assert names["infTorchserveRestPNinetyFiveRateSix"].startswith(r"\ensuremath{\geq}")
    assert names["infTorchserveRestPNinetyFiveRateSixLow"] == "n/a"


def test_what_has_no_end_is_written_for_latex(tables: Tables, run: Run) -> None:
    # A character that a font lacks stops the compiler, or leaves a gap where a bound was.
    endless = tables.contrasts.assign(ratio=np.inf, ratio_low=1.2, ratio_high=np.inf)
    arms = tables.arms.assign(high_per_s=np.inf, bound="≥")
    text = latex.values_tex(run.manifest, dataclasses.replace(tables, contrasts=endless, arms=arms))
    assert macros(text)["infTorchserveRestRatioPNinetyFiveHigh"] == r"\ensuremath{\infty}"
    assert macros(text)["infTorchserveRestSaturationHigh"] == r"\ensuremath{\infty}"
    assert "∞" not in text


def test_a_saturation_rate_of_two_lifetimes_has_no_interval_in_the_table(tables: Tables, run: Run) -> None:
    few = tables.summary.assign(low_per_s=np.nan, high_per_s=np.nan)
    text = latex.table_tex(run.manifest, dataclasses.replace(tables, summary=few))
    assert "n/a" not in text


def test_the_table_has_a_row_for_each_arm(tables: Tables, run: Run) -> None:
    # booktabs lines with another number of cells do not compile.
    text = latex.table_tex(run.manifest, tables)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5
    assert len({row.count(" & ") for row in rows}) == 1
    assert "embedded (our implementation)" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_latex_specials_are_escaped() -> None:
    # A label with an underscore stops the compiler.
    assert latex.tex_escape("a_b & 5 % {x}~\\") == r"a\_b \& 5 \% \{x\}\textasciitilde{}\textbackslash{}"


# --- limits -------------------------------------------------------------------------------------------


def test_limits_come_from_the_data(tables: Tables, run: Run) -> None:
    # The reader of a quick run on two shared cores has to know it.
    text = " ".join(limits.limits(run, tables)).lower()
    for words in ("quick profile: 4 lifetimes", "our implementation", "2 cores, not pinned", "governor"):
        assert words in text
    assert "rest with json, grpc with protobuf)" in text
    design = msgspec.structs.replace(run.manifest.design, profile="full")
    machine = msgspec.structs.replace(run.manifest.machine, governor="performance")
    torchserve = {TORCHSERVE: run.manifest.implementations[TORCHSERVE]}
    long = msgspec.structs.replace(run.manifest, design=design, machine=machine, implementations=torchserve)
    apart = dataclasses.replace(tables, trials=tables.trials.assign(pinned=True, same_host=False))
    text = " ".join(limits.limits(dataclasses.replace(run, manifest=long), apart))
    for words in ("our implementation", "not pinned", "governor", "Time was added"):
        assert words not in text


def test_what_was_left_out_is_a_limit_with_its_reason() -> None:
    # An arm that is not in the report reads as one that was never asked for.
    run, tables = searched(FINDINGS["network"].design("quick"), left_out=(2, 3))
    assert f"Left out: {run.labels[2]} (not installed)." in limits.limits(run, tables)


def test_arms_that_differ_in_encoding_alone_are_not_said_to_differ_in_protocol() -> None:
    # The sentence on protocol and encoding would be wrong where encodings are what is compared.
    run, tables = searched(FINDINGS["encodings"].design("quick"))
    assert not any("together with an encoding" in text for text in limits.limits(run, tables))


def test_changed_verdicts_are_said(tables: Tables, run: Run) -> None:
    # Rules that changed since a run was measured change its figures without a word.
    changed = dataclasses.replace(tables, trials=tables.trials.assign(verdict_stored=INVALID))
    assert any("another verdict" in text for text in limits.limits(run, changed))


def test_trials_that_never_settled_are_a_limit(tables: Tables, run: Run) -> None:
    # One trial, or several: both are sentences.
    sound = tables.trials["verdict"].replace(UNSTEADY, VALID)
    rest = "response times had not settled by half of the trial:"
    for many, words in ((1, f"In 1 trial {rest} its"), (3, f"In 3 trials {rest} their")):
        verdicts = sound.where(np.arange(len(sound)) >= many, UNSTEADY)
        unsteady = dataclasses.replace(tables, trials=tables.trials.assign(verdict=verdicts))
        assert f"{words} percentiles are not used." in limits.limits(run, unsteady)


def test_what_happened_to_servers_is_said_as_it_was_stored(tables: Tables, run: Run) -> None:
    # "A server was lost under load and started again: lifetime 2 of X was given up" says two things at once.
    given_up = "Lifetime 2 of REST was given up: Triton died."
    manifest = msgspec.structs.replace(run.manifest, restarts=[given_up])
    assert given_up in limits.limits(dataclasses.replace(run, manifest=manifest), tables)


# --- page ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def html(run: Run, tables: Tables, folder: Path) -> str:
    return page(run, tables, F0, folder)


def test_the_page_needs_nothing_else(html: str) -> None:
    # Mailed to a reader, a page with links to files shows broken pictures.
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert "@import" not in html
    assert "url(" not in html
    assert html.count("<img") == html.count('alt="') == len(F0.pictures) + 1, "and the overview"


def test_the_page_holds_the_drawn_pictures(html: str, folder: Path) -> None:
    # Pictures of another run under this run's sentences.
    pictures = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", html)]
    files = [folder / f"{file_stem('protocols', picture.name)}.png" for picture in F0.pictures]
    assert pictures[1:] == [file.read_bytes() for file in files]
    assert pictures[0].startswith(b"\x89PNG"), "the overview, drawn for the page"


def test_the_page_is_the_same_each_time(html: str, run: Run, tables: Tables, folder: Path) -> None:
    # A time of writing in it makes two drawings of one run differ.
    assert page(run, tables, F0, folder) == html


def test_the_page_says_answer_verdicts_machine_and_limits(html: str, run: Run, tables: Tables) -> None:
    # For a reader who was not there, what is missing did not happen.
    text = re.sub(r"\s+", " ", html)
    sentences = [*F0.answer(run, tables), *limits.limits(run, tables), limits.validity(tables)]
    for words in (*sentences, run.manifest.machine.cpu, run.manifest.commit, F0.question):
        assert words.replace("'", "&#39;") in text


def test_pictures_of_another_run_are_refused(run: Run, tables: Tables, folder: Path, tmp_path: Path) -> None:
    # As above, and a missing one says what to run.
    shutil.copytree(folder, tmp_path / "figures")
    other = dataclasses.replace(run, manifest=msgspec.structs.replace(run.manifest, run_id="another"))
    with pytest.raises(DataError, match="drawn from"):
        page(other, tables, F0, tmp_path / "figures")
    (tmp_path / "figures" / "f0-lag.png").unlink()
    with pytest.raises(DataError, match=r"f0-lag\.png is absent: draw again with infscale figures"):
        page(run, tables, F0, tmp_path / "figures")


def test_a_finding_of_ones_own_is_drawn_reported_and_taken_in(
    run: Run, tables: Tables, folder: Path, tmp_path: Path
) -> None:
    # Somebody's question in a notebook would end as a table that nobody else sees.
    shutil.copytree(folder, tmp_path / "figures")
    own = searched(TWO.design("tiny"))
    result = results.save(finding_of(own[0]), *own, tmp_path / "figures")
    assert result.sentences
    (loaded,) = results.load_all(tmp_path / "figures", list(FINDINGS))
    assert loaded == result
    text = page(run, tables, F0, tmp_path / "figures", [loaded])
    assert text.count("<img") == len(F0.pictures) + 2
    assert '<h2 id="finding-two">2 Is REST slower?</h2>' in text
    alone = page(*own, finding_of(own[0]), tmp_path / "figures")
    assert "<h1>Is REST slower?</h1>" in alone


def test_results_come_in_the_order_of_the_report_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    # The report would jump from question to question; or leave one out without a word.
    run, tables = searched(TWO.design("tiny"))
    for name in ("aaa", "network", "encodings"):
        finding = dataclasses.replace(TWO, name=name, pictures=())
        results.save(finding, run, tables, tmp_path)
    assert [one.name for one in results.load_all(tmp_path, list(FINDINGS))] == ["encodings", "network", "aaa"]
    path = results.result_file(tmp_path, "aaa")
    path.write_text(path.read_text().replace('"question"', '"asked"'))
    with pytest.raises(DataError, match=r"finding-aaa.json.*asked"):
        results.load_all(tmp_path)


def test_results_go_to_the_projects_folder_also_from_the_folder_of_notebooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # make figures looks for them there, and not in notebooks/figures.
    (tmp_path / "lib" / "infscale").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    results.save(dataclasses.replace(TWO, pictures=()), *searched(TWO.design("tiny")), Path("figures"))
    assert results.result_file(tmp_path / "figures", "two").is_file()


def test_the_first_screen_has_the_headline_and_the_picture_of_all_contrasts(
    html: str, run: Run, tables: Tables, folder: Path
) -> None:
    # Below ten tables nobody finds what was found.
    found = claims.claims(run, tables)
    first, _, rest = html.partition('<p class="meta">')
    places = [first.index(f"<li>{sentence}</li>") for sentence in claims.headline(found)]
    assert places == sorted(places)
    assert first.index("<h1>") < places[0] <= places[-1] < first.index('<figure id="overview">')
    assert first.count("<h2") == first.count("<table") == 0
    assert "Every answer in full" in rest
    pd.testing.assert_frame_equal(pd.read_csv(folder / "contrasts.csv"), claims.table(found))


def test_the_headline_takes_in_the_contrasts_of_every_finding(
    run: Run, tables: Tables, folder: Path, tmp_path: Path
) -> None:
    # The picture of the whole study would be one of a ninth of it.
    shutil.copytree(folder, tmp_path / "figures")
    own = searched(TWO.design("tiny"), p95_ms=lambda arm: {"rest": 4.0, "grpc": 2.0}[arm.protocol])
    result = results.save(dataclasses.replace(TWO, pictures=()), *own, tmp_path / "figures")
    text = page(run, tables, F0, tmp_path / "figures", [result])
    assert "REST is slower than gRPC: its p95 response time at moderate load is 2.00 times as long" in text
    assert set(pd.read_csv(tmp_path / "figures" / "contrasts.csv")["finding"]) == {"protocols", "two"}


def test_the_page_shows_the_advice_before_what_was_run(run: Run, tables: Tables, folder: Path) -> None:
    # What a platform engineer looks for would be in a CSV file that nobody opens, or below all tables.
    lines = advice.table([advice.evidence(run, tables)])
    text = page(run, tables, F0, folder, advice=lines)
    assert text.count("one row of 784 fp32 (3 kB), λ = ") == 2
    for choice in ("Protocol", "Encoding", "Framework", "Replicas and cache"):  # of the last two there is no trial
        assert f"<strong>{choice}:</strong>" in text
    assert "<details><summary>Why</summary>" in text
    assert text.index('id="overview"') < text.index('id="advice"') < text.index('id="design"')


def test_the_page_counts_every_verdict_of_every_arm(html: str, tables: Tables) -> None:
    # Trials that never settled were once in no column: the counts of an arm did not add up.
    assert '<th scope="col" class="n">UNSTEADY</th>' in html
    for _, arm in tables.arms.iterrows():
        counts = [arm[name] for name in ("valid", "unsteady", "saturated", "invalid")]
        assert sum(counts) == arm["trials"]
        cells = [f'<td class="n">{count}</td>' for count in counts]
        assert re.search(r"\s*".join(cells), html)


def test_the_contents_lead_to_every_numbered_section(run: Run, tables: Tables, folder: Path, tmp_path: Path) -> None:
    # A link to nothing, or a section that no link names, is not found among forty screens.
    shutil.copytree(folder, tmp_path / "figures")
    own = searched(TWO.design("tiny"))
    result = results.save(dataclasses.replace(TWO, pictures=()), *own, tmp_path / "figures")
    text = page(run, tables, F0, tmp_path / "figures", [result])
    contents, _, rest = text.partition('<nav id="contents"')[2].partition("</nav>")
    links = re.findall(r'href="#([a-z-]+)"', contents)
    sections = re.findall(r'<h[23] id="([a-z-]+)">([0-9.]+) ', rest)
    assert links == [name for name, _ in sections]
    numbers = ["1", "1.1", "1.2", "2", "3", "3.1", "3.2", "3.3", "3.4", "3.5", "4"]
    assert [number for _, number in sections] == numbers


def test_a_section_has_its_answer_in_few_sentences_and_its_contrasts_in_a_table(
    run: Run, tables: Tables, folder: Path, tmp_path: Path
) -> None:
    # Thirty lines of sentences were read by nobody.
    shutil.copytree(folder, tmp_path / "figures")
    own = searched(TWO.design("tiny"), p95_ms=lambda arm: {"rest": 4.0, "grpc": 2.0}[arm.protocol])
    result = results.save(dataclasses.replace(TWO, pictures=()), *own, tmp_path / "figures")
    assert result.lead == claims.headline(result.claims)
    section = markup.unescape(page(run, tables, F0, tmp_path / "figures", [result])).partition('id="finding-two"')[2]
    before, _, inside = section.partition("<details>")
    assert all(sentence in before for sentence in result.lead)
    assert all(sentence not in before and sentence in inside for sentence in result.sentences)
    assert before.count("REST ÷ gRPC</td>") == len(result.claims)


def test_the_page_explains_its_words(html: str) -> None:
    # A lifetime and three answers are this project's words.
    words = html.partition('id="words"')[2]
    for word in ("Lifetime", "Differs, equal, undecided", "Moderate load", "Saturation rate λ*"):
        assert f"<dt>{word}</dt>" in words


def test_time_that_was_added_after_a_look_is_said(tables: Tables, run: Run) -> None:
    # A reader must be able to judge whether somebody measured until the result was to their liking.
    manifest = msgspec.structs.replace(run.manifest, more_s=[900.0, 60.0])
    text = "Time was added after a look at the results: 15 min 00 s, 1 min 00 s. The looks allow it."
    assert text in limits.limits(dataclasses.replace(run, manifest=manifest), tables)


# --- notebooks ----------------------------------------------------------------------------------------


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
    places = (project, project / "notebooks", project, project / "notebooks")
    for name, place in zip(NOTEBOOKS, places, strict=True):
        source, executed = ROOT / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb"
        papermill.execute_notebook(source, executed, cwd=place, progress_bar=False, log_output=False)
    names = {file.name for file in (project / "figures").iterdir()}
    assert {
        "report.html",
        "values.tex",
        "table-f0.tex",
        "f0-percentiles.pdf",
        "f0-ratio.csv",
        "advice.csv",
        "contrasts.csv",
    } <= names


# --- runs that went otherwise than planned ------------------------------------------------------------


def test_the_report_of_an_interrupted_run_of_one_lifetime(tmp_path: Path) -> None:
    # What is on disk after Ctrl-C is what the user wants to look at first.
    path = build(tmp_path, {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 300.0}, lifetimes=1, grid=(0.3, 0.6))
    manifest = manifests.read(path / "run.json", manifests.RunManifest)
    manifest.status, manifest.finished_at = "interrupted", None
    manifests.write(path / "run.json", manifest)
    run = runs.load_run(path)
    tables = tabulate(run)
    text = page(run, tables, F0, drawn(tmp_path / "figures", run, tables))
    assert "not finished" in text
    assert "Undecided: 2 of 2 named contrasts." in text
    assert "The run was interrupted" in text
    latex.values_tex(run.manifest, tables)
    latex.table_tex(run.manifest, tables)


@pytest.mark.parametrize("capacity", [20.0, 5000.0], ids=["everything saturated", "nothing saturated"])
def test_one_sided_runs_are_drawn_and_reported(capacity: float, tmp_path: Path) -> None:
    # A grid that missed the saturation rate must say so, not fail after a night of measuring.
    path = build(tmp_path, {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 300.0}, grid=(0.7, 1.4), shrink=capacity)
    run = runs.load_run(path)
    tables = tabulate(run)
    text = page(run, tables, F0, drawn(tmp_path / "figures", run, tables))
    assert "cannot be compared in λ*" in text, "of two that keep up with everything, or nothing, neither is ahead"
    assert ("it kept up with every rate)" in text) == (capacity > 1000)
    assert ("it kept up with no rate)" in text) == (capacity < 1000)
    assert ("(not drawn: this run has no numbers for it)" in text) == (capacity < 1000)


def test_a_run_of_one_protocol_has_no_ratio(tmp_path: Path) -> None:
    # Half an experiment is what an interrupted one leaves.
    path = build(tmp_path, {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 300.0}, grid=(0.3, 0.6))
    for file in (path / "trials").glob("*-grpc-*"):
        file.unlink()
    manifest = manifests.read(path / "run.json", manifests.RunManifest)
    manifest.status = "interrupted"
    manifests.write(path / "run.json", manifest)
    run = runs.load_run(path)
    tables = tabulate(run)
    text = page(run, tables, F0, drawn(tmp_path / "figures", run, tables))
    assert "Contrasts named before the run:" not in text, "an empty table of claims"
    assert 'id="overview"' not in text
    latex.values_tex(run.manifest, tables)
    latex.table_tex(run.manifest, tables)
