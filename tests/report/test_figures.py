"""Figures: labelled with units, honest about what is not VALID, and the same each time."""

import io
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.synthetic_run import TORCHSERVE, build
from infscale.analysis.tables import summary
from infscale.records import runs
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.report.figures import captions
from infscale.report.figures import catalogue as drawing
from infscale.report.figures import parts as figure_parts
from infscale.report.figures import rates as figures

Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return summary.summarise(runs.load_run(build(tmp_path_factory.mktemp("run"))))


def draw(name: str, tables: Tables) -> Figure:
    return drawing.FIGURES[name](tables)[0]


def one_implementation(tables: Tables) -> Tables:
    return {name: table[table["implementation"] == TORCHSERVE] for name, table in tables.items()}


def lines(figure: Figure, *markers: str) -> list[Line2D]:
    """Every line in the panels that is not empty, with one of these marks if any are given."""
    found = [line for ax in figure.axes for line in ax.get_lines() if np.size(line.get_xdata())]
    return [line for line in found if not markers or line.get_marker() in markers]


every_figure = pytest.mark.parametrize("name", list(captions.CAPTIONS))


@every_figure
def test_every_axis_has_a_unit(name: str, tables: Tables) -> None:
    # ms or µs, requests or trials: a reader cannot guess.
    figure = draw(name, tables)
    told = [ax.get_xlabel() for ax in figure.axes if ax.get_xlabel()] + [
        ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()
    ]
    assert len(told) >= (1 if name == "verdicts" else 3)  # a map names its rows
    assert all("(" in text or text.startswith("share of requests") for text in told)


@every_figure
def test_panels_say_what_is_our_implementation(name: str, tables: Tables) -> None:
    # A panel called "TensorFlow Serving" would be read as a finding about TensorFlow Serving.
    titles = " ".join(ax.get_title() for ax in draw(name, tables).axes).replace("\n", " ")
    assert "embedded (our implementation)" in titles
    assert "TorchServe" in titles


@every_figure
def test_figures_fit_a_column_or_a_page(name: str, tables: Tables) -> None:
    # Scaled by the typesetter, 8 pt become unreadable.
    assert draw(name, tables).get_figwidth() == 7.2
    assert draw(name, one_implementation(tables)).get_figwidth() == 3.5


@every_figure
def test_no_text_overlaps_or_leaves_the_figure(name: str, tables: Tables) -> None:
    # A legend over the data hides what it explains.
    for size in (tables, one_implementation(tables)):
        figure = draw(name, size)
        with figures.house_style():
            figure.draw_without_rendering()
            texts = [
                text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label) if text.get_text()
            ]
            boxes = [text.get_window_extent() for text in texts]
        (legend,) = figure.legends
        boxes.append(legend.get_window_extent())
        for i, box in enumerate(boxes):
            assert box.x0 >= -1
            assert box.x1 <= figure.bbox.x1 + 1
            assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_protocols_differ_without_colour(tables: Tables) -> None:
    # On paper and for colour-blind readers, the two lines would be one.
    assert len(set(figures.MARKERS.values())) == len(set(figures.LINES.values())) == 2
    weights = (0.2126, 0.7152, 0.0722)
    grey = [float(np.dot(weights, to_rgb(colour))) for colour in figures.COLOURS.values()]
    assert abs(grey[0] - grey[1]) > 0.05


@pytest.mark.parametrize("verdict", [SATURATED, INVALID])
def test_what_is_not_valid_is_hollow_and_grey(verdict: str, tables: Tables) -> None:
    # Drawn like the others, a number that may not be believed is believed.
    points = tables["points"].assign(verdict=verdict)
    for figure in (figures.percentiles_vs_rate(points, tables["arms"]), figures.offered_vs_achieved(points)):
        drawn = lines(figure, "o", "s")
        assert drawn
        assert all(line.get_markerfacecolor() == "white" and line.get_color() == figure_parts.GREY for line in drawn)


def test_only_lower_bounds_have_arrows(tables: Tables) -> None:
    # An arrow on an INVALID point would promise that the truth is higher; without one a bound reads as a value.
    arms, points = tables["arms"], tables["points"]
    arrows = {}
    for verdict in (VALID, SATURATED, INVALID):
        free = {f"response_{q}_ms_bound": False for q in ("p50", "p95", "p99")}
        figure = figures.percentiles_vs_rate(points.assign(verdict=verdict, **free), arms)
        arrows[verdict] = sum(len(ax.texts) for ax in figure.axes)
    assert arrows == {VALID: 0, SATURATED: 3 * len(points), INVALID: 0}


def test_an_infinite_percentile_stays_in_the_figure(tables: Tables) -> None:
    # The rate at which everything failed would be the only one without a mark.
    points = tables["points"].copy()
    worst = points["rate_per_s"] == points["rate_per_s"].max()
    points["response_p99_ms"] = points["response_p99_ms"].mask(worst, np.inf)
    points["verdict"] = points["verdict"].mask(worst, SATURATED)
    figure = figures.percentiles_vs_rate(points, tables["arms"])
    assert sum(np.size(line.get_xdata()) for line in lines(figure, "^")) == worst.sum()


def test_failed_requests_keep_a_curve_below_one(tables: Tables) -> None:
    # A distribution of the successes only says that a failing server answers everything.
    table = tables["distributions"].copy()
    table.loc[table["level"] > 0.9, "response_ms"] = np.inf
    for line in lines(figures.latency_ecdf(table)):
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        assert y[x <= line.axes.get_xlim()[1]].max() == pytest.approx(0.9, abs=0.01)  # type: ignore[union-attr]


def test_the_ratio_is_filled_only_where_it_is_significant(tables: Tables) -> None:
    # Filled marks are what readers quote.
    ratios = captions.headline_ratios(tables).assign(p_holm=0.2)
    marks = lines(figures.ratio_vs_rate(ratios), "D")
    assert marks
    assert all(line.get_markerfacecolor() == "white" for line in marks)
    ratios["p_holm"] = 0.01
    marks = lines(figures.ratio_vs_rate(ratios), "D")
    assert all(line.get_markerfacecolor() == "black" for line in marks)


def test_runs_without_replicates_can_be_drawn(tmp_path: Path) -> None:
    # The smallest profile is the first that anybody tries.
    run = runs.load_run(build(tmp_path, {(TORCHSERVE, "rest"): 300.0, (TORCHSERVE, "grpc"): 300.0}, replicates=1))
    small = summary.summarise(run)
    for name in captions.CAPTIONS:
        draw(name, small)
    assert "no interval" in captions.percentiles_vs_rate(small)


@every_figure
def test_captions_say_what_the_numbers_rest_on(name: str, tables: Tables) -> None:
    # Three replicates look like thirty in a figure.
    text = captions.CAPTIONS[name](tables)
    assert re.search(r"\d replicates(, exploratory|, no interval below 3)", text)
    assert len(captions.ALTERNATIVES[name]) > 40
    if name in ("percentiles", "achieved", "lag"):
        assert "n = " in text
        assert "Hollow grey marks are not VALID" in text


@every_figure
def test_drawing_leaves_nothing_behind(name: str, tables: Tables) -> None:
    # Figures kept by pyplot fill the memory of a long notebook; changed settings change the next figure.
    before, size = plt.get_fignums(), mpl.rcParams["font.size"]
    draw(name, tables)
    assert plt.get_fignums() == before
    assert mpl.rcParams["font.size"] == size


def test_the_callers_settings_do_not_change_a_figure(tables: Tables) -> None:
    # The same data would give another picture in a notebook with its own style.
    def picture() -> bytes:
        buffer = io.BytesIO()
        figure = draw("achieved", tables)
        with figures.house_style():
            figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()

    plain = picture()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "lines.linewidth": 9}):
        assert picture() == plain
