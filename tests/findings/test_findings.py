"""Findings: if these fail, a night answers another question than was asked, or a report says what no data say."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.project import ROOT
from helpers.synthetic_run import GRPC_FASTER, REST_FASTER, build
from helpers.tables import searched
from infscale.analysis.tables import tabulate
from infscale.deployment import FRAMEWORKS
from infscale.errors import ConfigError
from infscale.experiment.check import check
from infscale.experiment.design import labels, time_plan
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import P95, SATURATION, STREAMED, USUAL
from infscale.findings import FINDINGS, encodings, finding_of, protocols, save_all, stored_runs
from infscale.findings.finding import SIZES, Finding, counterpart
from infscale.records import manifest as manifests
from infscale.records.runs import find_run, load_run
from infscale.report.figures.arms.summary import SUMMARY
from infscale.vocabulary import number

OTHERS = [name for name in FINDINGS if name != "protocols"]
TWO = Finding("two", "REST or gRPC?", [[Arm("rest", framework="triton"), Arm("grpc", framework="triton")]])


# --- designs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", list(SIZES))
@pytest.mark.parametrize("name", list(FINDINGS))
def test_every_finding_can_be_measured_as_planned(name: str, profile: str) -> None:
    """An arm that no server takes, or two arms of one label, would be found at three in the morning."""
    design = FINDINGS[name].design(profile)
    check(design)
    time_plan.check_budget(design)
    assert (design.finding, design.profile, design.question) == (name, profile, FINDINGS[name].question)
    assert design.contrasts
    names = labels.labels(design.every_arm())
    assert len(set(names)) == len(names)
    compared = {contrast.arm for contrast in design.contrasts}
    references = {contrast.reference for contrast in design.contrasts}
    assert not compared & references
    if name != "planning":  # whose arms are compared with predictions
        assert compared | references == set(range(len(design.arms)))


@pytest.mark.parametrize("name", list(FINDINGS))
def test_a_quick_run_is_a_matter_of_minutes(name: str) -> None:
    """The README promises ten minutes for a finding, fifteen for the protocols and for planning."""
    design = FINDINGS[name].design("quick")
    assert len(design.arms) <= {"protocols": 12, "load-tools": 8, "streaming": 7, "planning": 8}.get(name, 6)
    assert design.budget_s == (900 if name in ("protocols", "planning") else 600)


def test_an_unknown_profile_is_named_with_the_accepted_ones() -> None:
    """A misspelled profile must not fall back on another size."""
    with pytest.raises(ConfigError, match="profile='quik' is not known; accepted: full, quick, tiny"):
        TWO.design("quik")


def test_sizes_that_are_given_replace_those_of_the_profile_and_none_keeps_them() -> None:
    """A parameter that silently does nothing is found after the night."""
    design = TWO.design("full", least=9, trial_s=None, budget_s=60.0)
    assert (design.least, design.trial_s, design.budget_s) == (9, 2.0, 60.0)
    with pytest.raises(ConfigError, match="least=0"):
        TWO.design(least=0)


@pytest.mark.parametrize(
    ("frameworks", "sides", "message"),
    [
        (["tensorflow"], [], "frameworks='tensorflow' is not known"),
        ([], ["rest", "rest"], "names a level twice"),
        ("torchserve", [], "frameworks='torchserve' is no list; accepted: a list of tfserving, torchserve, triton"),
        (0.5, [], "frameworks=0.5 is no list; accepted: a list of tfserving"),
        ([], "rest", "protocols='rest' is no list; accepted: a list of rest, grpc, empty for all"),
    ],
)
def test_a_framework_or_protocol_that_cannot_be_is_refused(frameworks: Any, sides: Any, message: str) -> None:
    """The grid would be measured without it, or twice with it; and of a name alone the first letter is no framework."""
    with pytest.raises(ConfigError, match=message):
        protocols.grid(frameworks, sides)


def test_the_grid_takes_some_frameworks_and_one_protocol() -> None:
    """Whoever has no Java measures the others; one protocol alone has nothing to be compared with."""
    design = protocols.grid(["triton"], model="noop").design()
    assert [(arm.protocol, arm.framework, arm.model, arm.batch) for arm in design.arms] == [
        ("rest", "triton", "noop", 1),
        ("grpc", "triton", "noop", 1),
        ("rest", "triton", "noop", 16),
        ("grpc", "triton", "noop", 16),
    ]
    assert design.groups() == [[0, 1, 2, 3]], "one lifetime of the server for both payloads"
    assert len(design.sensitivity) == 2
    assert protocols.grid(["triton"], ["rest"]).design().contrasts == ()


@pytest.mark.parametrize("framework", ["tfserving", "torchserve", "triton"])
def test_an_image_is_sent_in_every_encoding_that_a_framework_takes(framework: str) -> None:
    """An encoding that is left out is one that a reader believes was no better."""
    interface = FRAMEWORKS[framework].interface
    for ways, dtype in ((encodings.PIXELS, "uint8"), (encodings.FILES, "bytes")):
        every = {(p, encoding) for p in ("rest", "grpc") for encoding in interface.encodings(p, dtype)}
        assert set(ways[framework]) == every
        assert len(ways[framework]) == len(every)
    known = {(p, encoding) for p in ("rest", "grpc") for encoding in interface.encodings(p)}
    assert {(p, encoding) for p, encoding, _ in encodings.TENSORS[framework]} <= known


# --- answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["tiny", "full"])
@pytest.mark.parametrize("name", OTHERS)
def test_every_finding_answers_for_every_arm_of_every_profile(name: str, profile: str) -> None:
    """Arms that an answer fails to select are silently missing from the report of a night."""
    finding = FINDINGS[name]
    run, tables = searched(finding.design(profile))
    sentences = finding.answer(run, tables)
    for label in run.labels:
        assert any(sentence.startswith(f"{label}: ") for sentence in sentences), label
    for picture in finding.pictures:
        assert picture.numbers(run, tables) is not None


@pytest.mark.parametrize("name", OTHERS)
def test_an_arm_that_could_not_be_measured_costs_only_its_own_sentences(name: str) -> None:
    """A missing program must not take the answer about the others with it."""
    finding = FINDINGS[name]
    for left_out in (0, 1):
        run, tables = searched(finding.design("quick"), left_out=[left_out])
        sentences = finding.answer(run, tables)
        for arm in run.measured:
            assert any(sentence.startswith(f"{run.labels[arm]}: ") for sentence in sentences)
        assert not any(sentence.startswith(f"{run.labels[left_out]}: ") for sentence in sentences)


def test_contrasts_are_of_p95_and_of_saturation_with_the_blocks_reference() -> None:
    """Both questions of the study are named before the run, in every finding."""
    for finding in (*FINDINGS.values(), TWO):
        design = finding.design("quick")
        every = (*USUAL, *STREAMED)
        metrics = {metric: {(c.arm, c.reference) for c in design.contrasts if c.metric == metric} for metric in every}
        if any(arm.streams for arm in design.arms):  # which are compared by their messages
            assert all(len(metrics[metric]) == len(design.arms) - len(design.blocks()) for metric in STREAMED)
            assert not metrics[P95] | metrics[SATURATION]
            continue
        assert metrics[SATURATION] == {pair for pair in metrics[P95] if not any(design.arms[k].closed for k in pair)}
        assert len(metrics[P95]) == len(design.arms) - len(design.blocks())
    assert {one.reference for one in protocols.FINDING.design("quick").contrasts} == {1, 3, 5, 7, 9, 11}, "REST ÷ gRPC"


@pytest.mark.parametrize(
    ("rest", "grpc", "time", "load"), [(500, 1000, "faster", "more"), (1000, 500, "slower", "less")]
)
def test_the_sentence_of_an_arm_turns_with_the_data(rest: float, grpc: float, time: str, load: str) -> None:
    """A sentence that knows its direction beforehand is an opinion."""
    rates = {"rest": rest, "grpc": grpc}
    run, tables = searched(TWO.design("quick"), lambda arm: rates[arm.protocol], lambda arm: 1000 / rates[arm.protocol])
    factor = number(rest / grpc)
    first, second = TWO.answer(run, tables)
    assert first.startswith("REST: its saturation rate λ* is ")
    assert re.match(
        rf"gRPC: it is {time} than REST: its p95 response time is {factor} times as long \(95 % interval [^)]*, "
        rf"4 lifetimes\); it keeps up with {load} load than REST: its λ\* is {number(grpc / rest)} times as high "
        r"\(95 % interval [^)]*, 4 lifetimes\)\. Its saturation rate λ\* is ",
        second,
    ), second


def test_what_is_equal_is_said_to_be_equal() -> None:
    """That it does not matter is an answer, and not a lack of one."""
    run, tables = searched(TWO.design("quick"))
    sentence = TWO.answer(run, tables)[1]
    assert "it and REST are equal within 10 % in p95 response time (ratio 1.00, 95 % interval" in sentence
    assert "it and REST are equal within 15 % in λ* (ratio 1.00, 95 % interval" in sentence


def test_what_looks_do_not_decide_is_said_to_be_undecided() -> None:
    """A p95 of which one cannot say which is smaller is no result in any direction."""
    run, tables = searched(TWO.design("quick"))
    open_ = tables.contrasts.assign(answer="undecided", ratio_low=0.5, ratio_high=1.5)
    sentence = TWO.answer(run, dataclasses.replace(tables, contrasts=open_))[1]
    assert "undecided whether it or REST is faster (p95 response time ratio 1.00, 95 % interval 0.500 to" in sentence
    assert "undecided whether it or REST has the higher λ* (" in sentence


def test_without_a_usable_lifetime_nothing_is_compared() -> None:
    """ "Its p95 is unknown times that of REST" is no sentence."""
    run, tables = searched(TWO.design("quick"))
    unknown = tables.contrasts.assign(ratio=float("nan"), lifetimes=0, looked_at=0, answer="undecided")
    sentence = TWO.answer(run, dataclasses.replace(tables, contrasts=unknown))[1]
    assert "it and REST cannot be compared in p95 response time: no lifetime has a usable value of both" in sentence


@pytest.mark.parametrize(
    ("capacities", "verb", "load"), [(GRPC_FASTER, "slower", "less"), (REST_FASTER, "faster", "more")]
)
def test_the_answer_of_f0_turns_with_the_data(
    capacities: dict[tuple[str, str], float], verb: str, load: str, tmp_path: Path
) -> None:
    """By the contrasts of each framework, in both directions; what is decided comes first."""
    run = load_run(build(tmp_path, capacities, spread=0.01, searches=True))
    *sentences, valid = protocols.answer(run, tabulate(run))
    (response,) = (text for text in sentences if text.startswith(f"TF Serving API, embedded: REST is {verb} than gRPC"))
    assert "its p95 response time is " in response
    assert "; over the rates that were tried the ratio goes from " in response
    start = f"TF Serving API, embedded: REST keeps up with {load} load than gRPC: its λ* is "
    assert any(text.startswith(start) for text in sentences)
    undecided = [place for place, text in enumerate(sentences) if "undecided" in text]
    assert undecided == list(range(len(sentences) - len(undecided), len(sentences))), "what is decided comes first"
    assert "trials below λ* are VALID" in valid


def test_one_protocol_alone_is_answered_by_its_saturation_rate() -> None:
    """Half an experiment has no contrast, and still an answer."""
    design = protocols.grid(["triton"], ["rest"]).design("quick")
    run, tables = searched(design)
    sentences = protocols.answer(run, tables)
    assert [sentence.partition(" requests/s (95 % interval ")[0] for sentence in sentences[:-1]] == [
        "1 row: λ* is 999",
        "16 rows: λ* is 999",
    ]


# --- selection ----------------------------------------------------------------------------------------


def test_a_level_that_no_arm_can_have_is_an_error_and_not_an_empty_selection() -> None:
    """ "50% repeats" for "50% repeat" once gave no rows, and nobody saw it."""
    run, _ = searched(TWO.design("quick"))
    assert counterpart(run, 0, protocol="grpc") == 1
    assert counterpart(run, 0, batch=16) is None, "an arm that could be, and was not measured"
    with pytest.raises(ConfigError, match="protocol='grcp' is not known"):
        counterpart(run, 0, protocol="grcp")
    with pytest.raises(ConfigError, match=r"repeat=50\.0 is not a fraction"):
        counterpart(run, 0, repeat=50)
    with pytest.raises(TypeError):
        counterpart(run, 0, repeats=0.5)


# --- findings of one's own ----------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [[Arm("rest"), Arm("grpc")], Arm("rest")])
def test_blocks_that_are_no_lists_of_arms_are_refused_by_name(blocks: Any) -> None:
    """One pair of brackets is soon forgotten, and "Arm has no len()" says nothing."""
    with pytest.raises(ConfigError, match=r"blocks: accepted: a list of blocks, each a list of arms"):
        Finding("mine", "Which?", blocks=blocks).design()


def test_a_run_of_ones_own_finding_is_answered_from_its_stored_design() -> None:
    """It once ended in a ValueError because the list of findings did not hold its name."""
    run, tables = searched(TWO.design("quick"))
    finding = finding_of(run)
    assert (finding.name, finding.question, tuple(finding.pictures)) == ("two", TWO.question, (SUMMARY,))
    assert finding.answer(run, tables) == TWO.answer(run, tables)


def test_every_finding_has_a_committed_run() -> None:
    """A reader with a fresh clone draws every figure without a server."""
    assert [run.manifest.design.finding for run in stored_runs(ROOT / "data" / "sample")] == list(FINDINGS)


def test_every_complete_run_is_heard_the_newest_of_a_finding_first_and_one_that_cannot_be_read_is_warned_of(
    tmp_path: Path,
) -> None:
    """Advice once rested on the newest run alone, whether or not an earlier one was longer."""
    for name, day in (("a", "2026-01-01"), ("b", "2026-01-03"), ("c", "2026-01-02")):
        folder = build(tmp_path / name, GRPC_FASTER, lifetimes=1, grid=(0.3,))
        manifest = manifests.read(folder / "run.json", manifests.RunManifest)
        manifest.started_at = f"{day}T00:00:00+00:00"
        manifest.status = "complete" if name != "c" else "interrupted"
        manifests.write(folder / "run.json", manifest)
        folder.rename(tmp_path / f"run-{name}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{}")
    with pytest.warns(UserWarning, match="passed over"):
        runs = stored_runs(tmp_path)
    assert [run.folder.name for run in runs] == ["run-b", "run-a"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "not UTF-8": lambda text: text.replace(b"synthetic", b"Z\xfcrich"),
    "a list": lambda text: b"[]",
    "lacks a key": lambda text: text.replace(b'"design"', b'"dream"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_run_that_cannot_be_read_is_passed_over_with_a_warning_by_figures_advice_and_paper(
    damage: str, tmp_path: Path
) -> None:
    """One damaged file beside sound runs ended them all."""
    place = tmp_path / "data" / "raw"
    sound = build(place, GRPC_FASTER, lifetimes=1, grid=(0.3,))
    (place / "broken").mkdir()
    (place / "broken" / "run.json").write_bytes(DAMAGES[damage]((sound / "run.json").read_bytes()))
    looks: tuple[Callable[[], list[Path]], ...] = (
        lambda: [find_run(root=tmp_path)],
        lambda: [run.folder for run in stored_runs(place)],
        lambda: [sound, *(Path(result.run_id) for result in save_all(place, tmp_path / "figures"))],
    )
    for look in looks:
        with pytest.warns(UserWarning, match=r"passed over: .*broken"):
            assert look() == [sound]
