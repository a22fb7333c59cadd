"""Findings: if these fail, a night answers another question than was asked, or a report says what no data say."""

import dataclasses
import re
from pathlib import Path

import msgspec
import pytest

from helpers.project import ROOT
from helpers.sample import sample_run
from helpers.synthetic_run import GRPC_FASTER, REST_FASTER, TFSERVING, build
from helpers.tables import searched
from infscale.analysis.tables import tabulate
from infscale.deployment import FRAMEWORKS
from infscale.errors import ConfigError
from infscale.experiment.check import check
from infscale.experiment.design import labels, time_plan
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import SEARCH
from infscale.findings import FINDINGS, encodings, finding_of, protocols, stored_runs
from infscale.findings.finding import SIZES, Finding, counterpart
from infscale.records.runs import load_run
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.sweep import PICTURES

SEARCHES = [name for name, finding in FINDINGS.items() if finding.rates == SEARCH]
TWO = Finding("two", "REST or gRPC?", [[Arm("rest", framework="triton"), Arm("grpc", framework="triton")]])


# --- designs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", list(SIZES))
@pytest.mark.parametrize("name", list(FINDINGS))
def test_every_finding_can_be_measured_as_planned(name: str, profile: str) -> None:
    """An arm that no server takes, or two arms of one label, would be found at three in the morning."""
    design = FINDINGS[name].design(profile)
    check(design)
    assert (design.finding, design.profile, design.question) == (name, profile, FINDINGS[name].question)
    assert design.contrasts
    names = labels.labels(design.every_arm())
    assert len(set(names)) == len(names)
    compared = {contrast.arm for contrast in design.contrasts}
    references = {contrast.reference for contrast in design.contrasts}
    assert not compared & references
    assert compared | references == set(range(len(design.arms)))


@pytest.mark.parametrize("name", list(FINDINGS))
def test_a_quick_run_is_a_matter_of_minutes(name: str) -> None:
    """The README promises ten minutes for a finding, fifteen for the protocols."""
    design = FINDINGS[name].design("quick")
    assert len(design.arms) <= 6
    assert time_plan.seconds(design) <= (600 if name in SEARCHES else 900)


def test_an_unknown_profile_is_named_with_the_accepted_ones() -> None:
    """A misspelled profile must not fall back on another size."""
    with pytest.raises(ConfigError, match="profile='quik' is not known; accepted: full, quick, tiny"):
        TWO.design("quik")


def test_sizes_that_are_given_replace_those_of_the_profile_and_none_keeps_them() -> None:
    """A parameter that silently does nothing is found after the night."""
    design = TWO.design("full", replicates=9, trial_s=None, fractions=[0.2, 0.4])
    assert (design.replicates, design.trial_s, design.fractions) == (9, 6.0, (0.2, 0.4))
    with pytest.raises(ConfigError, match="replicates=0"):
        TWO.design(replicates=0)


@pytest.mark.parametrize(
    ("frameworks", "sides", "message"),
    [(["tensorflow"], [], "frameworks='tensorflow' is not known"), ([], ["rest", "rest"], "names a level twice")],
)
def test_a_framework_or_protocol_that_cannot_be_is_refused(
    frameworks: list[str], sides: list[str], message: str
) -> None:
    """The grid would be measured without it, or twice with it."""
    with pytest.raises(ConfigError, match=message):
        protocols.grid(frameworks, sides)


def test_the_grid_takes_some_frameworks_and_one_protocol() -> None:
    """Whoever has no Java measures the others; one protocol alone has nothing to be compared with."""
    design = protocols.grid(["triton"], model="noop").design()
    assert [(arm.protocol, arm.framework, arm.model) for arm in design.arms] == [
        ("rest", "triton", "noop"),
        ("grpc", "triton", "noop"),
    ]
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
@pytest.mark.parametrize("name", SEARCHES)
def test_every_finding_answers_for_every_arm_of_every_profile(name: str, profile: str) -> None:
    """Arms that an answer fails to select are silently missing from the report of a night."""
    finding = FINDINGS[name]
    run, tables = searched(finding.design(profile, replicates=3))
    sentences = finding.answer(run, tables)
    for label in run.labels:
        assert any(sentence.startswith(f"{label}: ") for sentence in sentences), label
    for picture in finding.pictures:
        assert picture.numbers(run, tables) is not None


@pytest.mark.parametrize("name", SEARCHES)
def test_an_arm_that_could_not_be_measured_costs_only_its_own_sentences(name: str) -> None:
    """A missing program must not take the answer about the others with it."""
    finding = FINDINGS[name]
    for left_out in (0, 1):
        run, tables = searched(finding.design("quick"), left_out=[left_out])
        sentences = finding.answer(run, tables)
        for number in run.measured:
            assert any(sentence.startswith(f"{run.labels[number]}: ") for sentence in sentences)
        assert not any(sentence.startswith(f"{run.labels[left_out]}: ") for sentence in sentences)


def test_the_sentence_of_an_arm_turns_with_the_data() -> None:
    """A sentence that knows its direction beforehand is an opinion."""

    def sentence(rates: dict[str, float]) -> str:
        design = TWO.design("quick", replicates=5)
        run, tables = searched(design, lambda arm: rates[arm.protocol], lambda arm: 1000 / rates[arm.protocol])
        return TWO.answer(run, tables)[1]

    grpc_better, rest_better = sentence({"rest": 500.0, "grpc": 1000.0}), sentence({"rest": 1000.0, "grpc": 500.0})
    assert "gRPC: at λ = 200 requests/s its p95 response time is 0.5" in grpc_better
    assert "times that of REST" in grpc_better
    assert ": it is faster. Its saturation rate λ* lies between 950 and 1050 requests/s" in grpc_better
    assert "2.00 times that of REST" in grpc_better
    assert "it is higher." in grpc_better
    assert ": it is slower. Its saturation rate" in rest_better
    assert "0.500 times that of REST" in rest_better
    assert "it is lower." in rest_better


def test_what_intervals_do_not_decide_is_said_to_be_undecided() -> None:
    """Brackets that overlap, or a p95 that is the same, are no result in any direction."""
    run, tables = searched(TWO.design("quick"))
    sentence = TWO.answer(run, tables)[1]
    assert "cannot conclude which is faster" in sentence
    assert "cannot conclude which is higher" in sentence


def test_saturation_rates_without_a_ratio_are_said_to_be_undecided() -> None:
    """An arm that never saturated has a rate, and nothing that it could be compared by."""
    run, tables = searched(TWO.design("quick"))
    unknown = tables.contrasts.assign(capacity_ratio=float("nan"), capacity_ratio_low=float("nan"))
    sentence = TWO.answer(run, dataclasses.replace(tables, contrasts=unknown))[1]
    rate = r"Its saturation rate λ\* lies between 950 and 1050 requests/s \(95 % interval [^)]*\)"
    assert re.search(f"{rate}; the trials do not decide whether it is higher or lower than that of REST\\. A", sentence)


def test_response_times_without_a_ratio_are_said_not_to_be_comparable() -> None:
    """ "Its p95 is unknown times that of REST" is no sentence."""
    run, tables = searched(TWO.design("quick"))
    unknown = tables.contrasts.assign(ratio=float("nan"), note="a reason")
    sentence = TWO.answer(run, dataclasses.replace(tables, contrasts=unknown))[1]
    assert "its p95 response time cannot be compared with that of REST (a reason)" in sentence


@pytest.mark.parametrize(
    ("capacities", "later", "sooner"), [(GRPC_FASTER, "gRPC", "REST"), (REST_FASTER, "REST", "gRPC")]
)
def test_the_headline_turns_with_the_data(
    capacities: dict[tuple[str, str], float], later: str, sooner: str, tmp_path: Path
) -> None:
    """By the contrast of each framework, in both directions."""
    own = {arm: rate for arm, rate in capacities.items() if arm[0] == TFSERVING}
    run = load_run(build(tmp_path, own, replicates=3, duration_s=3.0))
    saturation, response, _ = protocols.answer(run, tabulate(run))
    system = "TensorFlow Serving API, embedded (our implementation)"
    assert saturation.startswith(f"{system}: {later} kept up with higher arrival rates than {sooner}: λ* of REST lies")
    assert response.startswith(f"{system}: at λ = ")
    assert f"{sooner} was slower" in response
    assert "the p95 response time of REST was" in response


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


def test_a_run_of_ones_own_finding_is_answered_from_its_stored_design() -> None:
    """It once ended in a ValueError because the list of findings did not hold its name."""
    run, tables = searched(TWO.design("quick"))
    finding = finding_of(run)
    assert (finding.name, finding.question, tuple(finding.pictures)) == ("two", TWO.question, (SUMMARY,))
    assert finding.answer(run, tables) == TWO.answer(run, tables)


def test_a_sweep_of_ones_own_is_answered_as_the_protocols_are() -> None:
    """``infscale compare`` stores one: its figures are those of a sweep."""
    run = sample_run("protocols")
    assert finding_of(run) is FINDINGS["protocols"]
    design = msgspec.structs.replace(run.manifest.design, finding="compare", question="Mine?")
    own = finding_of(dataclasses.replace(run, manifest=msgspec.structs.replace(run.manifest, design=design)))
    assert (own.name, own.question, own.pictures) == ("compare", "Mine?", PICTURES)


def test_every_finding_has_a_committed_run() -> None:
    """A reader with a fresh clone draws every figure without a server."""
    assert [run.manifest.design.finding for run in stored_runs(ROOT / "data" / "sample")] == list(FINDINGS)
