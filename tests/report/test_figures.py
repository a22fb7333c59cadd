"""Figures: labelled with units, honest about what is not VALID, and the same each time and on each machine."""

import dataclasses
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.synthetic_run import TORCHSERVE, build
from helpers.tables import searched
from infscale.analysis.tables import Tables, tabulate
from infscale.experiment.design.arm import Arm
from infscale.findings import FINDINGS
from infscale.findings.finding import Finding
from infscale.models import reference
from infscale.records import runs
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.runs import Run
from infscale.report.figures import parts, sweep
from infscale.report.figures.arms import sizes, usage
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.files import rounded, save_picture
from infscale.report.figures.picture import Picture

SEARCHES = [name for name, finding in FINDINGS.items() if sweep.PERCENTILES not in finding.pictures]
ROUGH = {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}
"""Settings under which numpy computes as on an older machine."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runs.load_run(build(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def tables(run: Run) -> Tables:
    return tabulate(run)


def draw(picture: Picture, run: Run, tables: Tables) -> Figure:
    return picture.draw(rounded(picture.numbers(run, tables)))


def one_system(tables: Tables) -> Tables:
    return Tables(**{name: table[table["implementation"] == TORCHSERVE] for name, table in tables.by_name().items()})


def lines(figure: Figure, *markers: str) -> list[Line2D]:
    """Every line in the panels that is not empty, with one of these marks if any are given."""
    drawn = [line for ax in figure.axes for line in ax.get_lines() if np.size(line.get_xdata())]
    return [line for line in drawn if not markers or line.get_marker() in markers]


def axis_labels(figure: Figure) -> list[str]:
    texts = [text for ax in figure.axes for text in (ax.get_xlabel(), ax.get_ylabel())]
    return [text for text in texts if text]


def check_layout(figure: Figure) -> None:
    """Fail where titles, labels of axes or the legend overlap, or leave the figure."""
    with parts.house_style():
        figure.draw_without_rendering()
        texts = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label) if text.get_text()]
        boxes = [text.get_window_extent() for text in texts]
        boxes += [legend.get_window_extent() for legend in figure.legends]
    for i, box in enumerate(boxes):
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


every_sweep = pytest.mark.parametrize("picture", sweep.PICTURES, ids=lambda picture: picture.name)


# --- a sweep --------------------------------------------------------------------------------------------


@every_sweep
def test_a_figure_has_units_on_every_axis_and_names_what_is_our_implementation(
    picture: Picture, run: Run, tables: Tables
) -> None:
    # ms or µs, requests or trials: a reader cannot guess. "TensorFlow Serving" alone would be read as the real one.
    figure = draw(picture, run, tables)
    texts = axis_labels(figure)
    assert len(texts) >= (1 if picture.name == "verdicts" else 3)  # a map names its rows
    assert all("(" in text or text.startswith("share of requests") for text in texts)
    titles = " ".join(ax.get_title() for ax in figure.axes).replace("\n", " ")
    assert "embedded (our implementation)" in titles
    assert "TorchServe" in titles
    assert figure.get_figwidth() == parts.PAGE_IN
    check_layout(figure)


@every_sweep
def test_the_figure_of_one_system_fits_a_column(picture: Picture, run: Run, tables: Tables) -> None:
    # Scaled by the typesetter, 8 pt become unreadable.
    figure = draw(picture, run, one_system(tables))
    assert figure.get_figwidth() == parts.COLUMN_IN
    check_layout(figure)


def test_protocols_differ_without_colour() -> None:
    # On paper and for colour-blind readers, the two lines would be one.
    assert len(set(parts.MARKERS.values())) == len(set(parts.LINES.values())) == 2
    weights = (0.2126, 0.7152, 0.0722)
    grey = [float(np.dot(weights, to_rgb(colour))) for colour in parts.COLOURS.values()]
    assert abs(grey[0] - grey[1]) > 0.05


@pytest.mark.parametrize("verdict", [SATURATED, INVALID])
def test_what_is_not_valid_is_hollow_and_grey(verdict: str, run: Run, tables: Tables) -> None:
    # Drawn like the others, a number that may not be believed is believed.
    spoiled = dataclasses.replace(tables, points=tables.points.assign(verdict=verdict))
    for picture in (sweep.PERCENTILES, sweep.ACHIEVED):
        drawn = lines(draw(picture, run, spoiled), "o", "s")
        assert drawn
        assert all(line.get_markerfacecolor() == "white" and line.get_color() == parts.GREY for line in drawn)


def test_only_lower_bounds_have_arrows(run: Run, tables: Tables) -> None:
    # An arrow on an INVALID point would promise that the truth is higher; without one a bound reads as a value.
    arrows, free = {}, {f"response_{quantile}_ms_bound": False for quantile in ("p50", "p95", "p99")}
    for verdict in (VALID, SATURATED, INVALID):
        points = tables.points.assign(verdict=verdict, **free)
        figure = draw(sweep.PERCENTILES, run, dataclasses.replace(tables, points=points))
        arrows[verdict] = sum(len(ax.texts) for ax in figure.axes)
    assert arrows == {VALID: 0, SATURATED: 3 * len(tables.points), INVALID: 0}


def test_an_infinite_percentile_stays_in_the_figure(run: Run, tables: Tables) -> None:
    # The rate at which everything failed would be the only one without a mark.
    points = tables.points.copy()
    worst = points["rate_per_s"] == points["rate_per_s"].max()
    points["response_p99_ms"] = points["response_p99_ms"].mask(worst, np.inf)
    points["verdict"] = points["verdict"].mask(worst, SATURATED)
    figure = draw(sweep.PERCENTILES, run, dataclasses.replace(tables, points=points))
    assert sum(np.size(line.get_xdata()) for line in lines(figure, "^")) == worst.sum()


def test_failed_requests_keep_a_curve_below_one(run: Run, tables: Tables) -> None:
    # A distribution of the successes only says that a failing server answers everything.
    table = tables.distributions.copy()
    table.loc[table["level"] > 0.9, "response_ms"] = np.inf
    for line in lines(draw(sweep.ECDF, run, dataclasses.replace(tables, distributions=table))):
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        assert y[x <= line.axes.get_xlim()[1]].max() == pytest.approx(0.9, abs=0.01)  # type: ignore[union-attr]


def test_the_ratio_is_filled_only_where_it_is_significant(run: Run, tables: Tables) -> None:
    # Filled marks are what readers quote.
    for p_holm, face in ((0.2, "white"), (0.01, "black")):
        contrasts = tables.contrasts.assign(p_holm=p_holm)
        marks = lines(draw(sweep.RATIO, run, dataclasses.replace(tables, contrasts=contrasts)), "D")
        assert marks
        assert all(line.get_markerfacecolor() == face for line in marks)


def test_a_run_without_replicates_is_drawn_without_intervals(tmp_path: Path) -> None:
    # The smallest profile is the first that anybody tries.
    path = build(tmp_path, {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 300.0}, replicates=1)
    run = runs.load_run(path)
    small = tabulate(run)
    for picture in sweep.PICTURES:
        assert draw(picture, run, small).axes
    assert "no interval" in sweep.PERCENTILES.caption(run, small)


def test_a_run_without_a_common_rate_leaves_out_what_is_drawn_at_it(run: Run, tables: Tables, tmp_path: Path) -> None:
    # An empty panel reads as "nothing took any time"; the picture of an earlier run must not stay in its place.
    (tmp_path / "f0-ecdf.png").touch()
    none = dataclasses.replace(tables, distributions=tables.distributions.assign(common=False))
    assert save_picture(sweep.ECDF, run, none, tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert "no λ at which every protocol is VALID" in sweep.ECDF.caption(run, none)


@every_sweep
def test_captions_say_what_the_numbers_rest_on(picture: Picture, run: Run, tables: Tables) -> None:
    # Three replicates look like thirty in a figure.
    text = picture.caption(run, tables)
    assert re.search(r"\d replicates(, exploratory|, no interval below 3)", text)
    assert len(picture.alternative) > 40
    if picture.name in ("percentiles", "achieved", "lag"):
        assert "n = " in text
        assert "Hollow grey marks are not VALID" in text


@every_sweep
def test_drawing_leaves_nothing_behind(picture: Picture, run: Run, tables: Tables) -> None:
    # Figures kept by pyplot fill the memory of a long notebook; changed settings change the next figure.
    before, size, numbers = plt.get_fignums(), mpl.rcParams["font.size"], picture.numbers(run, tables)
    copy = numbers.copy()
    picture.draw(numbers)
    assert plt.get_fignums() == before
    assert mpl.rcParams["font.size"] == size
    pd.testing.assert_frame_equal(numbers, copy)


def test_the_callers_settings_do_not_change_a_figure(run: Run, tables: Tables) -> None:
    # The same data would give another picture in a notebook with its own style.
    def picture() -> bytes:
        buffer = io.BytesIO()
        figure = draw(sweep.ACHIEVED, run, tables)
        with parts.house_style():
            figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()

    plain = picture()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "lines.linewidth": 9}):
        assert picture() == plain


# --- a search -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_every_picture_of_a_finding_fits_its_page(name: str) -> None:
    # Long names push panels off the page, or their labels into one another.
    run, tables = searched(FINDINGS[name].design("quick"), lambda arm: 1000.0 * arm.replicas)
    for picture in FINDINGS[name].pictures:
        numbers = picture.numbers(run, tables)
        if len(numbers):
            figure = picture.draw(numbers)
            assert figure.get_figwidth() in (parts.COLUMN_IN, parts.PAGE_IN)
            assert all("(" in text or "÷" in text for text in axis_labels(figure))
            check_layout(figure)
            assert len(picture.caption(run, tables)) > 100
        else:
            assert picture is sizes.SIZES


@pytest.mark.parametrize("name", SEARCHES)
def test_every_picture_of_a_finding_in_full_has_numbers(name: str) -> None:
    # After a night of measuring, a figure that a quick run never draws must not be the one that fails.
    run, tables = searched(FINDINGS[name].design("full"), lambda arm: 1000.0 * arm.replicas)
    for picture in FINDINGS[name].pictures:
        numbers = picture.numbers(run, tables)
        assert len(numbers)
        if picture not in (SUMMARY, usage.COSTS):  # a hundred rows, drawn as six are
            assert picture.draw(numbers).axes


def test_the_summary_marks_what_is_not_valid_and_parts_blocks(run: Run) -> None:
    # Arms of two blocks got other arrivals: side by side they look comparable.
    blocks = [[Arm(p, framework=f) for p in ("rest", "grpc")] for f in ("triton", "torchserve")]
    run, tables = searched(Finding("two", "?", blocks).design("tiny"))
    spoiled = dataclasses.replace(tables, summary=tables.summary.assign(verdict=INVALID, bound="~"))
    figure = draw(SUMMARY, run, spoiled)
    marks = lines(figure, *parts.MARKERS.values())
    assert marks
    assert all(line.get_markerfacecolor() == "white" and line.get_color() == parts.GREY for line in marks)
    separators = [line for line in figure.axes[2].get_lines() if line.get_marker() == "None"]
    assert len(separators) == 1


def test_arms_are_compared_at_one_rate_and_an_unread_part_is_said() -> None:
    # A request costs less CPU the more there are; and a bar without a part that was not read looks cheap.
    finding = FINDINGS["utilisation"]
    run, tables = searched(finding.design("quick"))
    numbers = usage.at_common_rate(run, tables)
    assert (numbers.groupby("block")["rate_per_s"].nunique() == 1).all()
    unread = tables.usage.assign(rss_bytes=tables.usage["rss_bytes"].where(tables.usage["group"] != "client"))
    figure = draw(usage.COSTS, run, dataclasses.replace(tables, usage=unread))
    assert {text.get_text() for text in figure.axes[1].texts} == {" + ?"}
    assert "not read" in usage.COSTS.caption(run, dataclasses.replace(tables, usage=unread))


def test_a_run_without_usage_has_no_figure_of_it() -> None:
    # Runs of others may have been measured without watching processes.
    run, tables = searched(FINDINGS["utilisation"].design("quick"), usage=False)
    for picture in (usage.CORES, usage.COSTS):
        assert picture.numbers(run, tables).empty
        assert "No usage" in picture.caption(run, tables)


def test_sizes_of_tensors_are_those_of_the_model() -> None:
    # The axis of bytes would be off by a factor.
    assert reference.inputs(sizes.MODEL, 1)[0].nbytes == sizes.ROW_BYTES


# --- equal data, equal files ----------------------------------------------------------------------------


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1), st.integers(1, 9))
def test_rounding_keeps_what_cannot_be_rounded_and_is_final(values: list[float], digits: int) -> None:
    # Rounded twice, numbers of a figure and its CSV would differ.
    table = pd.DataFrame({"value": values, "name": "a"})
    once = rounded(table, digits)
    pd.testing.assert_frame_equal(rounded(once, digits), once)
    finite = table["value"].abs().between(1e-300, 1e300)
    assert np.allclose(once["value"][finite], table["value"][finite], rtol=10.0 ** (1 - digits))
    assert once["value"][~np.isfinite(table["value"])].equals(table["value"][~np.isfinite(table["value"])])


def test_another_machine_draws_the_same_files(tmp_path: Path) -> None:
    # The last digits of sums and fits depend on the processor; a figure must not.
    capacities = {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 400.0}
    path = build(tmp_path, capacities, grid=(0.1, 0.2, 0.4, 0.5, 0.6), duration_s=1.0)
    script = (
        "import sys; from pathlib import Path; from infscale.analysis.tables import tabulate;"
        "from infscale.records.runs import load_run; from infscale.report.figures.files import save_picture;"
        "from infscale.report.figures import sweep; run = load_run(Path(sys.argv[1]));"
        "save_picture(sweep.QUEUES, run, tabulate(run), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "there")]
    subprocess.run(command, check=True, env=os.environ | ROUGH)
    run = runs.load_run(path)
    assert save_picture(sweep.QUEUES, run, tabulate(run), tmp_path / "here")
    numbers = pd.read_csv(tmp_path / "here" / "f0-queues.csv")
    assert numbers["s_ms"].notna().sum() == 6
    for suffix in (".csv", ".pdf", ".png"):
        here, there = (tmp_path / place / f"f0-queues{suffix}" for place in ("here", "there"))
        assert here.read_bytes() == there.read_bytes(), suffix
