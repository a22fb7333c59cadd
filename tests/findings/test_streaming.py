"""The finding streaming: if these fail, a report says of streams what their numbers do not, or hides a proxy."""

from pathlib import Path

import numpy as np
import pytest

from helpers.tables import searched
from infscale.analysis.tables import Tables
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import STREAMED
from infscale.findings import streaming
from infscale.findings.finding import Finding
from infscale.findings.streaming import FINDING
from infscale.records.runs import Run
from infscale.report import results
from infscale.report.claims import table
from infscale.report.figures import overview


def made(profile: str = "quick") -> tuple[Run, Tables]:
    return searched(FINDING.design(profile))


# --- the design ---


@pytest.mark.parametrize("profile", ["tiny", "quick", "full"])
def test_protocols_are_compared_within_a_framework_alone(profile: str) -> None:
    """A worker of TorchServe serves one stream at a time: between frameworks the workers would be compared."""
    design = FINDING.design(profile)
    for one in design.contrasts:
        arm, reference = design.arms[one.arm], design.arms[one.reference]
        assert arm.framework == reference.framework
        assert (arm.message_bytes, arm.interval_ms) == (reference.message_bytes, reference.interval_ms)
        assert reference.protocol == "grpc"
        assert reference.front == ""
        assert (arm.protocol == "rest") != (arm.front == "buffered")
    assert {one.metric for one in design.contrasts} == set(STREAMED)


def test_the_quick_profile_has_six_arms_and_one_proxy() -> None:
    arms = FINDING.design("quick").arms
    assert [arm.front for arm in arms].count("buffered") == 1
    assert len(arms) == 7
    assert {arm.messages for arm in arms} == {20}
    assert {(arm.framework, arm.message_bytes, arm.interval_ms) for arm in arms} == {
        ("triton", 32, 5.0),
        ("triton", 4_000, 0.0),
        ("torchserve", 32, 0.0),
    }


def test_the_full_profile_has_every_size_and_interval() -> None:
    arms = FINDING.design("full").arms
    every = {(size, interval) for size in (32, 4_000) for interval in (0.0, 5.0)} | {(256_000, 5.0)}
    for name in ("triton", "torchserve"):
        assert {(arm.message_bytes, arm.interval_ms) for arm in arms if arm.framework == name} == every
    assert all(dict(arm.options)["workers"] for arm in arms if arm.framework == "torchserve")


# --- what is said ---


def test_sentences_name_the_proxy_the_workers_and_whose_speed_it_is() -> None:
    run, tables = made()
    sentences = FINDING.answer(run, tables)
    proxy = next(label for label in run.labels if "buffering proxy" in label)
    assert sentences[0].startswith(
        f"{proxy}: in 8 of 8 VALID trials messages arrived together although they were sent 5 ms"
    )
    assert "75 % of them within 1 ms of the one before" in sentences[0]
    assert sum("arrived together" in one for one in sentences) == 1
    text = " ".join(sentences)
    assert "TorchServe has 2 workers here, and each serves one stream at a time" in text
    assert "Without an interval the gaps and the rate of messages are the backend's own speed" in text
    for label in run.labels:
        assert any(one.startswith(f"{label}, at ") for one in sentences), label
        assert any(one.startswith(f"{label}: ") for one in sentences), label
    own = [label for label, arm in zip(run.labels, run.manifest.design.arms, strict=True) if not arm.interval_ms]
    assert all("at the backend's own speed" in label for label in own)


def test_each_contrast_is_a_sentence_with_its_interval() -> None:
    run, tables = made()
    rest = next(one for one in FINDING.answer(run, tables) if "brings its first message later than" in one)
    assert "p95 time to the first message is 1.50 times as long (95 % interval 1.50 to 1.50, 4 lifetimes)" in rest
    assert "has longer gaps between messages than" in rest
    assert "sends fewer messages for its CPU than" in rest
    assert "costs the client more CPU a message than" in rest


def test_without_a_proxy_nothing_is_said_to_be_collected() -> None:
    run, tables = searched(FINDING.design("quick"), left_out=[2])
    assert FINDING.answer(run, tables)[0] == "In no VALID trial did messages arrive together that were sent apart."
    assert FINDING.lead(run, tables) == ["In no VALID trial did messages arrive together that were sent apart."]


def test_a_run_that_was_ended_before_its_first_stream_is_no_traceback() -> None:
    run, tables = searched(Finding("own", "?", [[Arm("rest", framework="triton")]]).design("tiny"))
    assert streaming.lead(run, tables) == []
    assert streaming.first_numbers(run, tables).empty
    assert streaming.gaps_numbers(run, tables).empty


# --- pictures ---


def test_the_figure_of_the_first_message_marks_the_proxy() -> None:
    run, tables = made()
    numbers = streaming.first_numbers(run, tables)
    assert numbers["panel"].nunique() == 3
    assert set(numbers.loc[numbers["coalesced"], "front"]) == {"buffered"}
    figure = streaming.FIRST_MESSAGE.draw(numbers)
    assert len([ax for ax in figure.axes if ax.get_visible()]) == 3
    crosses = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "X"]
    assert crosses
    assert "gRPC, messages arrived together" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert streaming.FIRST_MESSAGE.caption(run, tables)


def test_the_figure_of_gaps_has_a_line_for_each_arm() -> None:
    run, tables = made()
    figure = streaming.GAPS.draw(streaming.gaps_numbers(run, tables))
    lines = [line for ax in figure.axes for line in ax.lines if np.size(line.get_xdata()) > 100]
    assert len(lines) == 7
    assert [line.get_marker() for line in lines].count("X") == 1
    assert streaming.GAPS.caption(run, tables).endswith(" 4,000 gaps an arm (4 lifetimes).")


def test_the_finding_is_saved_with_its_figures(tmp_path: Path) -> None:
    run, tables = made()
    result = results.save(FINDING, run, tables, tmp_path)
    assert [figure.file for figure in result.figures] == [
        "finding-streaming.png",
        "finding-streaming-gaps.png",
        "finding-streaming-first-message.png",
        "finding-streaming-cost.png",
    ]
    assert any("arrived together" in one for one in result.lead)
    drawn = overview.draw(table(result.claims))
    assert len(drawn.axes) == 2, "metrics of streams share the axes of times and rates"
    assert any("p99 gap between" in text.get_text().replace("\n", " ") for text in drawn.axes[0].get_yticklabels())
