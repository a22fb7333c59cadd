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

from helpers.sample import sample_run, sample_tables
from helpers.synthetic_run import TORCHSERVE, build
from helpers.tables import searched
from infscale.analysis.tables import Tables, tabulate
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import CAPACITY, P95, SATURATION, USUAL
from infscale.findings import FINDINGS
from infscale.findings.finding import Finding
from infscale.findings.planning import PREDICTIONS
from infscale.models import reference
from infscale.records import runs
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID
from infscale.records.runs import Run
from infscale.report import claims
from infscale.report.figures import overview, parts, sweep
from infscale.report.figures.arms import sizes, usage
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.files import rounded, save_picture
from infscale.report.figures.picture import Picture

OTHERS = [name for name in FINDINGS if name != "protocols"]
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


# --- the curves of F0 --------------------------------------------------------------------------------------------


@every_sweep
def test_a_figure_has_units_on_every_axis_and_names_what_is_our_implementation(
    picture: Picture, run: Run, tables: Tables
) -> None:
    # ms or µs, requests or trials: a reader cannot guess. "TensorFlow Serving" alone would be read as the real one.
    figure = draw(picture, run, tables)
    texts = axis_labels(figure)
    assert len(texts) >= 3
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


@pytest.mark.parametrize("verdict", [SATURATED, UNSTEADY, INVALID])
def test_what_is_not_valid_is_hollow_and_grey(verdict: str, run: Run, tables: Tables) -> None:
    # Drawn like the others, a number that may not be believed is believed.
    spoiled = dataclasses.replace(tables, points=tables.points.assign(verdict=verdict))
    for picture in (sweep.PERCENTILES, sweep.ACHIEVED):
        drawn = lines(draw(picture, run, spoiled), "o", "s")
        assert drawn
        assert all(line.get_markerfacecolor() == "white" and line.get_color() == parts.GREY for line in drawn)


def test_only_lower_bounds_have_arrows(run: Run, tables: Tables) -> None:
    # An arrow on another point would promise that the truth is higher; without one a bound reads as a value.
    arrows, free = {}, {f"response_{quantile}_ms_bound": False for quantile in ("p50", "p95", "p99")}
    for verdict in (VALID, SATURATED, UNSTEADY, INVALID):
        points = tables.points.assign(verdict=verdict, **free)
        figure = draw(sweep.PERCENTILES, run, dataclasses.replace(tables, points=points))
        arrows[verdict] = sum(len(ax.texts) for ax in figure.axes)
    assert arrows == {VALID: 0, SATURATED: len(tables.points), UNSTEADY: 0, INVALID: 0}


def test_an_infinite_percentile_stays_in_the_figure(run: Run, tables: Tables) -> None:
    # The rate at which everything failed would be the only one without a mark.
    points = tables.points.copy()
    worst = points["rate_per_s"] == points["rate_per_s"].max()
    points["response_p95_ms"] = points["response_p95_ms"].mask(worst, np.inf)
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


def test_the_ratio_of_every_valid_rate_is_drawn_with_its_interval(run: Run, tables: Tables) -> None:
    # A rate that is left out may be the one at which the ratio turns.
    numbers = sweep.RATIO.numbers(run, tables)
    known = tables.ratios[np.isfinite(tables.ratios["ratio"])]
    assert len(numbers) == len(known) > 0
    figure = draw(sweep.RATIO, run, tables)
    assert sum(np.size(line.get_xdata()) for line in lines(figure, "D")) == len(known)
    assert "claim nothing" in sweep.RATIO.caption(run, tables)
    unknown = dataclasses.replace(tables, ratios=tables.ratios.assign(ratio=np.nan))
    assert sweep.RATIO.numbers(run, unknown).empty
    assert sweep.RATIO.caption(run, unknown) == "No ratio of the protocols: at no rate were both VALID."


def test_a_median_has_no_interval_beside_that_of_p95(run: Run, tables: Tables) -> None:
    # Two bars at one place are read as one, of whichever mark is nearer.
    bars = [bar for ax in draw(sweep.PERCENTILES, run, tables).axes for bar in ax.containers]
    assert len(bars) == tables.points["arm"].nunique()


def test_payloads_of_a_system_have_panels_of_their_own() -> None:
    # Times of 3 kB and of 50 kB on one line would be a curve of nothing.
    run, tables = searched(FINDINGS["protocols"].design("quick"))
    titles = [ax.get_title().replace("\n", " ") for ax in draw(sweep.PERCENTILES, run, tables).axes if ax.get_visible()]
    assert [title.rpartition(", ")[2] for title in titles] == ["1 row"] * 3 + ["16 rows"] * 3
    for picture in sweep.PICTURES:
        if len(picture.numbers(run, tables)):
            check_layout(draw(picture, run, tables))


def test_a_run_of_one_lifetime_is_drawn_without_intervals(tmp_path: Path) -> None:
    # The smallest profile is the first that anybody tries.
    path = build(tmp_path, {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 300.0}, lifetimes=1)
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
    assert "No protocol is VALID at moderate load" in sweep.ECDF.caption(run, none)


@every_sweep
def test_captions_say_what_the_numbers_rest_on(picture: Picture, run: Run, tables: Tables) -> None:
    # Three lifetimes look like thirty in a figure.
    text = picture.caption(run, tables)
    assert re.search(r"\d lifetimes\b", text)
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


# --- other findings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
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
            assert picture in (sizes.SIZES, PREDICTIONS)


def test_predictions_of_the_sample_fit_their_page() -> None:
    # They are made from rows, which a run that is searched in virtual time does not keep.
    run, tables = sample_run("planning"), sample_tables("planning")
    figure = PREDICTIONS.draw(PREDICTIONS.numbers(run, tables))
    assert all("(" in text or "÷" in text for text in axis_labels(figure))
    check_layout(figure)
    assert len(PREDICTIONS.caption(run, tables)) > 100


@pytest.mark.parametrize("name", OTHERS)
def test_every_picture_of_a_finding_in_full_has_numbers(name: str) -> None:
    # After a night of measuring, a figure that a quick run never draws must not be the one that fails.
    run, tables = searched(FINDINGS[name].design("full"), lambda arm: 1000.0 * arm.replicas)
    for picture in FINDINGS[name].pictures:
        numbers = picture.numbers(run, tables)
        assert len(numbers) or picture is PREDICTIONS  # of rows, as above
        if picture not in (PREDICTIONS, SUMMARY, usage.COSTS):  # a hundred rows, drawn as six are
            assert picture.draw(numbers).axes


def test_the_summary_marks_what_is_not_valid_and_parts_blocks(run: Run) -> None:
    # Arms of two blocks got other arrivals: side by side they look comparable.
    blocks = [[Arm(p, framework=f) for p in ("rest", "grpc")] for f in ("triton", "torchserve")]
    run, tables = searched(Finding("two", "?", blocks).design("tiny"))
    spoiled = dataclasses.replace(tables, summary=tables.summary.assign(verdict=INVALID, bound="<"))
    figure = draw(SUMMARY, run, spoiled)
    marks = lines(figure, *parts.MARKERS.values())
    assert marks
    assert all(line.get_markerfacecolor() == "white" and line.get_color() == parts.GREY for line in marks)
    separators = [line for line in figure.axes[-1].get_lines() if line.get_marker() == "None"]
    assert len(separators) == 1


def test_the_summary_has_no_panel_that_is_alike_in_every_row_and_shows_a_slow_link(run: Run) -> None:
    # On a linear axis the rates of two slow links are two marks at 0; an interval of an undecided arm stretched it.
    _, tables = searched(FINDINGS["network"].design("quick"))
    alike = tables.summary.assign(bytes_out=3190.0, bytes_in=101.0)
    slow = alike.assign(saturation_per_s=np.linspace(80.0, 4000.0, len(alike)), low_per_s=1.0, high_per_s=1e6)
    for table, panels, scale in ((alike, 2, "linear"), (slow, 2, "log"), (slow.assign(bytes_out=slow.index), 3, "log")):
        figure = draw(SUMMARY, run, dataclasses.replace(tables, summary=table))
        assert (len(figure.axes), figure.axes[-2].get_xscale()) == (panels, scale)
    assert figure.axes[-2].get_xlim()[1] < 1e5
    arrows = [line for line in figure.axes[-2].get_lines() if line.get_marker() == ">" and np.size(line.get_xdata())]
    assert len(arrows) == len(slow)


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


# --- the whole study ------------------------------------------------------------------------------------


def contrast(name: str, **changes: object) -> dict[str, object]:
    """A row of the table of contrasts: one of p95 that differs."""
    row = {"finding": "protocols", "contrast": name, "metric": P95, "ratio": 1.5, "low": 1.2, "high": 1.9}
    return row | {"answer": "differs", "lifetimes": 8, "run": "r"} | changes


def shown(*rows: dict[str, object]) -> Figure:
    return overview.draw(pd.DataFrame(rows).astype(dict.fromkeys(("ratio", "low", "high"), float)))


def rows_named(figure: Figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.axes[0].get_yticklabels()]


def test_every_contrast_has_a_row_below_its_question_and_no_word_is_broken() -> None:
    # Contrasts of one name were once drawn over one another; and "RE ST" is no protocol.
    run, tables = searched(FINDINGS["load-balancing"].design("full"))
    table = claims.table(
        [one for name in ("protocols", "encodings") for one in _claims(name)] + claims.claims(run, tables)
    )
    figure = overview.draw(table)
    names = rows_named(figure)
    assert len(names) == table["contrast"].nunique() + 3
    assert [name for name in names if "÷" not in name] == ["Protocols", "Encodings", "Load balancing"]
    assert set(names) - {"Protocols", "Encodings", "Load balancing"} == set(table["contrast"])
    for ax, metric in zip(figure.axes, USUAL, strict=True):
        marks = [line for line in ax.get_lines() if line.get_marker() in ("D", "s", "o")]
        heights = {float(np.asarray(line.get_ydata())[0]) for line in marks}
        assert len(heights) == (table["metric"] == metric).sum()
    check_layout(figure)


def test_the_rate_at_an_slo_has_a_row_where_a_contrast_has_it() -> None:
    # A third column was empty but for one question, and so narrow that the titles lay over one another.
    figure = shown(contrast("a ÷ b"), contrast("a ÷ b", metric=CAPACITY), contrast("a ÷ b", metric=SATURATION))
    assert rows_named(figure) == ["a ÷ b", "a ÷ b, rate at the SLO"]
    assert [ax.get_title().split("\n")[-1] for ax in figure.axes] == ["(ratio)", "or what the row names (ratio)"]
    heights = [float(np.asarray(line.get_ydata())[0]) for line in lines(figure, "D") if line.axes is figure.axes[1]]
    assert sorted(heights) == [0.0, 1.0]
    check_layout(figure)


def _claims(name: str) -> list[claims.Claim]:
    return claims.claims(*searched(FINDINGS[name].design("quick")))


def test_one_question_alone_needs_no_heading() -> None:
    assert rows_named(shown(contrast("a ÷ b"), contrast("c ÷ b"))) == ["a ÷ b", "c ÷ b"]


def test_an_undecided_interval_does_not_stretch_the_axis_and_ends_in_an_arrow() -> None:
    # One contrast of three lifetimes, from 0.01 to 300, would press all others onto the line at 1.
    wide = contrast("wide ÷ b", answer="undecided", ratio=1.3, low=0.01, high=300.0)
    figure = shown(contrast("a ÷ b"), wide)
    assert figure.axes[0].get_xlim() == shown(contrast("a ÷ b")).axes[0].get_xlim()
    assert [line.get_marker() for line in lines(figure, "<", ">")] == ["<", ">"]
    bounded = shown(contrast("a ÷ b", low=1.2, high=np.nan))
    assert [line.get_marker() for line in lines(bounded, "<", ">")] == [">"], (
        "no upper end is an arrow, not a short bar"
    )


def test_a_decided_interval_is_within_the_axis() -> None:
    # The largest effect of a study must not be the one that is cut off.
    figure = shown(contrast("a ÷ b", ratio=24.5, low=22.6, high=26.6))
    assert figure.axes[0].get_xlim()[1] > 26.6
    assert lines(figure, "<", ">") == []


def test_a_ratio_beyond_the_axis_is_an_arrow_with_its_number() -> None:
    # A mark at the edge of the axis reads as the value of the edge.
    figure = shown(contrast("a ÷ b", answer="undecided", ratio=35.4, low=2.8, high=446.0))
    assert lines(figure, "o") == []
    assert [line.get_marker() for line in lines(figure, ">")] == [">"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["35.4"]


def test_answers_differ_without_colour_and_undecided_is_hollow() -> None:
    # Printed in grey, a result would look like none.
    assert len(set(overview.MARKS.values())) == 3
    rows = [contrast(f"{answer} ÷ b", answer=answer, ratio=1.02) for answer in overview.MARKS]
    marks = {line.get_marker(): line.get_markerfacecolor() for line in lines(shown(*rows), "D", "s", "o")}
    assert marks == {"D": overview.COLOURS["differs"], "s": overview.COLOURS["equal"], "o": "white"}


def test_a_contrast_that_was_not_looked_at_has_no_bar() -> None:
    # A bar over the whole axis would be read as an interval.
    figure = shown(contrast("a ÷ b", answer="undecided", low=np.nan, high=np.nan))
    assert len(lines(figure, "o")) == 1
    assert lines(figure, "<", ">") == []
    assert not figure.axes[0].collections


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
