"""Advice: if these fail, a user deploys what no trial speaks for."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.sample import sample_folder, sample_run, sample_tables
from helpers.tables import bracketed, manifest_with, searched
from infscale.analysis.answers import DIFFERS, EQUAL, UNDECIDED
from infscale.analysis.tables.contrasts import CONTRAST_COLUMNS
from infscale.analysis.tables.ratios import Ratios
from infscale.cli import main
from infscale.cli.notebooks import execute
from infscale.errors import ConfigError, DataError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import P95, SATURATION
from infscale.findings import FINDINGS
from infscale.findings.caching import FULL_REPEATS, QUICK_REPEATS
from infscale.records.gate import SATURATED, UNSTEADY, VALID
from infscale.report import advice
from infscale.report.advice import arms as judging
from infscale.report.advice import lines as texts
from infscale.report.advice import question as asked
from infscale.report.advice.arms import State
from infscale.report.advice.decision import decisions
from infscale.report.advice.question import Question
from infscale.vocabulary import CANNOT, number

Evidence = judging.Evidence
NUMBERS = {"REST": 0, "gRPC": 1, "other": 2}


def brackets_of(**capacities: float) -> Ratios:
    """Ratios of arms whose λ* lies within 5 % of a capacity in each of four lifetimes, which differ by about 1 %."""
    ends = {
        NUMBERS[name]: [(0.95 * capacity * step, 1.05 * capacity * step) for step in (0.99, 1.0, 1.01, 1.0)]
        for name, capacity in capacities.items()
    }
    turned = {arm: brackets[::-1] if arm else brackets for arm, brackets in ends.items()}
    return Ratios(manifest_with(), bracketed(turned))


def known(fast: str = "gRPC", slow_p95_ms: float = 10.0) -> Evidence:
    """One run with two protocols of which ``fast`` keeps up with 2,000/s and the other with 1,000/s."""
    capacities = {p: 2000.0 if p == fast else 1000.0 for p in ("REST", "gRPC")}
    arms = pd.DataFrame(
        {
            "arm": [NUMBERS[p] for p in capacities],
            "label": list(capacities),
            "protocol": list(capacities),
            "encoding": [f"{p} with x" for p in capacities],
            "form": "binary",
            "framework": "Triton",
            "replicas": "1",
            "parts": 1,
            "cache": judging.NO_CACHE,
            "repeat": float("nan"),
            "plain": True,
            "model": "mlp",
            "batch": 1,
            "bound": "",
            "saturation_per_s": list(capacities.values()),
            "low_per_s": [0.9 * c for c in capacities.values()],
            "high_per_s": [1.1 * c for c in capacities.values()],
            "saturation_lifetimes": 4,
        }
    )
    rows = [
        {
            "arm": NUMBERS[p],
            "rate_per_s": rate,
            "verdict": VALID if rate < c else SATURATED,
            "lifetimes": 4,
            "valid": 4,
            "unsteady": 0,
            "response_p95_ms_below_floor": False,
            "response_p95_ms_low": 0.9 * (5.0 if p == fast else slow_p95_ms),
            "response_p95_ms_high": 1.1 * (5.0 if p == fast else slow_p95_ms),
        }
        for p, c in capacities.items()
        for rate in (500.0, 1500.0)
    ]
    return Evidence(sample_run("hybrid"), arms, pd.DataFrame(rows), named(), brackets_of(**capacities))


def named(answer: str = "", ratio: float = 1.0, metric: str = SATURATION) -> pd.DataFrame:
    """The named contrast REST ÷ gRPC with its answer; none without an answer."""
    row = {
        "arm": NUMBERS["REST"],
        "label": "REST",
        "reference": NUMBERS["gRPC"],
        "reference_label": "gRPC",
        "metric": metric,
        "ratio": ratio,
        "ratio_low": 0.95 * ratio,
        "ratio_high": 1.05 * ratio,
        "answer": answer,
        "lifetimes": 7,
        "looked_at": 7,
        "needed": np.nan,
        "needed_ratio": np.nan,
    }
    return pd.DataFrame([row] if answer else [], columns=["arm", "label", *CONTRAST_COLUMNS])


def of_run(one: Evidence, run_id: str) -> Evidence:
    """The same evidence from a run of another name."""
    manifest = msgspec.structs.replace(one.run.manifest, run_id=run_id)
    return dataclasses.replace(one, run=dataclasses.replace(one.run, manifest=manifest))


def advised(question: Question, *known: Evidence, choice: str = "protocol") -> dict[str, str]:
    """The line of one choice."""
    lines = advice.advise(question, known).to_dict("records")
    return next({str(k): str(v) for k, v in line.items()} for line in lines if line["choice"] == choice)


# --- one run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", ["REST", "gRPC"])
def test_the_advice_turns_with_the_data(fast: str) -> None:
    result = advised(Question("row", 400, 20), known(fast))
    assert result["advice"] == f"{fast} on Triton", "both meet it; the one with more room above is advised"
    assert result["run_ids"] == sample_run("hybrid").id
    slow = "gRPC" if fast == "REST" else "REST"
    assert f"the saturation rate of {fast} is 2.00 times that of {slow} (95 % interval " in result["why"]
    assert "4 lifetimes, a comparison not named before the run" in result["why"]


def test_every_advice_names_rate_percentile_interval_lifetimes_and_run() -> None:
    """Nobody can check, or trust, an advice without them."""
    one = known()
    assert advised(Question("row", 400, 20), one)["evidence"] == (
        f"p95 at {number(500)} requests/s is {number(4.5)} to {number(5.5)} ms: 95 % interval, 4 lifetimes, "
        f"run {one.run.id}"
    )


def test_equal_choices_without_a_simpler_one_are_not_ranked() -> None:
    """REST and gRPC have the same number of parts."""
    for near in (brackets_of(REST=1000.0, gRPC=1001.0), brackets_of(REST=1001.0, gRPC=1000.0)):
        result = advised(Question("row", 400, 20), dataclasses.replace(known(), ratios=near))
        assert result["advice"] == "REST and gRPC both do on Triton"


@pytest.mark.parametrize(
    ("answer", "ratio", "metric", "expected"),
    [
        (DIFFERS, 2.0, SATURATION, "REST"),
        (DIFFERS, 0.5, SATURATION, "gRPC"),
        (DIFFERS, 2.0, P95, "gRPC"),
        (DIFFERS, 0.5, P95, "REST"),
        (EQUAL, 1.01, SATURATION, "REST and gRPC both do"),
        (UNDECIDED, 0.5, SATURATION, "REST and gRPC both do"),
    ],
)
def test_a_named_contrast_decides_before_any_other_ratio(answer: str, ratio: float, metric: str, expected: str) -> None:
    """The ratio of λ* alone, which is not corrected, says gRPC each time."""
    one = dataclasses.replace(known(), contrasts=named(answer, ratio, metric))
    assert advised(Question("row", 400, 20), one)["advice"] == f"{expected} on Triton"


def test_a_choice_that_takes_more_load_and_answers_later_is_not_ranked() -> None:
    both = pd.concat([named(DIFFERS, 2.0), named(DIFFERS, 2.0, P95)])
    result = advised(Question("row", 400, 20), dataclasses.replace(known(), contrasts=both))
    assert result["advice"] == "REST and gRPC both do on Triton"
    assert "REST keeps up with more load than gRPC" in result["why"]
    assert "REST is slower than gRPC" in result["why"]


def test_lifetimes_that_are_all_alike_rank_nothing() -> None:
    """Their ratios come from one grid of rates; the interval has no width, and once decided for a cache."""
    alike = Ratios(manifest_with(), bracketed({0: [(950.0, 1050.0)] * 4, 1: [(1900.0, 2100.0)] * 4}))
    result = advised(Question("row", 400, 20), dataclasses.replace(known(), ratios=alike))
    assert result["advice"] == "REST and gRPC both do on Triton"


def test_what_is_known_to_take_less_is_not_among_those_that_cannot_be_told_apart() -> None:
    """With three: the best two are near one another, and the third is not near the best."""
    result = advised(Question("row", 400, 20), three(brackets_of(REST=1000.0, gRPC=2000.0, other=2000.0)))
    assert result["advice"] == "gRPC and other both do on Triton"
    assert "REST" in result["why"]


def three(ratios: Ratios) -> Evidence:
    """One run with a third protocol that is as good as gRPC."""
    one = known()
    third = one.arms[one.arms["protocol"] == "gRPC"].assign(label="other", protocol="other", arm=NUMBERS["other"])
    points = pd.concat([one.points, one.points[one.points["arm"] == 1].assign(arm=NUMBERS["other"])])
    return dataclasses.replace(one, arms=pd.concat([one.arms, third]), points=points, ratios=ratios)


def test_the_simpler_choice_is_advised_where_another_is_not_shown_to_be_better() -> None:
    """A cache that gains nothing measurable only adds a part."""
    one = known(slow_p95_ms=5.0)
    cached = one.arms.assign(
        protocol="gRPC", cache=["in the server", judging.NO_CACHE], parts=[2, 1], repeat=[0.0, np.nan]
    )
    near = dataclasses.replace(one, arms=cached, ratios=brackets_of(REST=1001.0, gRPC=1000.0))
    assert advised(Question("row", 400, 20), near, choice="cache")["advice"] == "no cache is enough on Triton over gRPC"
    better = dataclasses.replace(near, ratios=brackets_of(REST=2000.0, gRPC=1000.0))
    assert advised(Question("row", 400, 20), better, choice="cache")["advice"] == "in the server on Triton over gRPC"


def test_one_replica_that_is_enough_is_advised_whatever_more_would_take() -> None:
    """The second costs as much again."""
    one = known()
    several = dataclasses.replace(
        one, arms=one.arms.assign(protocol="gRPC", replicas=["1", "2 behind x"], parts=[1, 3])
    )
    said = functools.partial(advised, choice="replicas")
    assert said(Question("row", 400, 20), several)["advice"] == "1 is enough on Triton over gRPC"
    assert said(Question("row", 1400, 20), several)["advice"] == "2 behind x on Triton over gRPC"


@pytest.mark.parametrize(
    ("simpler", "other"),
    [
        (Arm("grpc"), Arm("grpc", cache=True)),
        (Arm("grpc", cache=True), Arm("grpc", front="cache", store="memory")),
        (Arm("grpc", front="cache", store="memory"), Arm("grpc", front="cache", store="redis")),
        (Arm("grpc"), Arm("grpc", front="balanced", replicas=2, balancer="client")),
        (
            Arm("grpc", front="balanced", replicas=2, balancer="client"),
            Arm("grpc", front="balanced", replicas=2, balancer="nginx"),
        ),
    ],
)
def test_simpler_means_fewer_parts_and_no_protocol_encoding_or_framework_is(simpler: Arm, other: Arm) -> None:
    assert judging._parts(simpler) < judging._parts(other)
    rest = msgspec.structs.replace(simpler, protocol="rest", encoding="json", framework="triton")
    assert judging._parts(rest) == judging._parts(simpler)


def test_the_only_arm_that_meets_the_question_is_advised() -> None:
    assert advised(Question("row", 1400, 20), known())["advice"] == "gRPC on Triton"
    assert advised(Question("row", 500, 7), known())["advice"] == "gRPC on Triton"


def test_a_question_that_all_fail_says_so() -> None:
    for question in (Question("row", 100_000, 20), Question("row", 500, 1)):
        result = advised(question, known())
        assert result["advice"] == f"{texts.NONE_MEETS} on Triton"
        assert "gRPC does not meet it: " in result["why"]


def test_an_alternative_that_was_not_measured_well_enough_is_said_beside_the_advice() -> None:
    result = advised(Question("row", 900, 20), known())
    assert result["advice"] == "gRPC on Triton (REST not measured well enough)"
    assert f"REST is not measured well enough to say; its λ* is {number(1000)} requests/s" in result["why"]


@pytest.mark.parametrize(
    ("rate", "slo", "expected"),
    [
        (400, 20, State.MEETS),
        (1200, 20, State.FAILS),
        (900, 20, State.OPEN),
        (500, 5, State.FAILS),
        (400, 10.5, State.OPEN),
    ],
)
def test_an_arm_meets_fails_or_is_open(rate: float, slo: float, expected: State) -> None:
    assert state(Question("row", rate, slo), known(), "REST") == expected


def state(question: Question, one: Evidence, label: str) -> State:
    """Whether the arm of a label meets the limit."""
    (arm,) = (row for _, row in one.arms.iterrows() if row["label"] == label)
    return judging.judge(question, one, arm).state


@pytest.mark.parametrize(
    "mark",
    [
        {"verdict": UNSTEADY},
        {"unsteady": 4},
        {"response_p95_ms_below_floor": True},
        {"response_p95_ms_high": np.nan, "response_p95_ms_low": np.nan},
    ],
)
@pytest.mark.parametrize("question", [Question("row", 400, 20), Question("row", 500, 5)])
def test_no_advice_rests_on_a_point_that_is_unsteady_has_a_dagger_or_no_interval(
    mark: Mapping[str, str | float], question: Question
) -> None:
    """For neither answer: with sound points, REST meets one limit and fails the other."""
    one = known()
    assert state(question, one, "REST") != State.OPEN
    assert state(question, dataclasses.replace(one, points=one.points.assign(**mark)), "REST") == State.OPEN


def test_an_arm_that_kept_up_with_no_rate_may_do_with_less() -> None:
    """All that is known of it lies at the rates that were tried: λ* below 1,000 says nothing of 100."""
    one = dataclasses.replace(known(), points=known().points[:0])
    none = dataclasses.replace(one, arms=one.arms.assign(bound="<", saturation_per_s=1000.0, high_per_s=0.0))
    assert state(Question("row", 100, 20), none, "REST") == State.OPEN
    assert state(Question("row", 1100, 20), none, "REST") == State.FAILS


def test_an_arm_that_kept_up_with_every_rate_does_not_fail() -> None:
    """Its λ* has no upper end."""
    one = known()
    every = dataclasses.replace(one, arms=one.arms.assign(bound="≥", high_per_s=np.inf))
    assert state(Question("row", 1e5, 20), every, "REST") == State.OPEN


def test_names_with_commas_can_be_told_from_the_list_that_they_are_in() -> None:
    """ "in the server, 2 behind x, 1 connection and 1" may be two choices, or four."""
    one = three(brackets_of(REST=1000.0, gRPC=1001.0, other=1002.0))
    commas = one.arms.assign(protocol=["REST", "gRPC", "other, x"])
    result = advised(Question("row", 400, 20), dataclasses.replace(one, arms=commas))
    assert result["advice"] == "REST, gRPC and “other, x” all do on Triton"


# --- several runs -------------------------------------------------------------------------------------


def test_a_run_that_decides_beats_one_that_does_not_whichever_is_first() -> None:
    """The first run that held the arms was once the only one that was heard."""
    undecided = of_run(dataclasses.replace(known(), contrasts=named(UNDECIDED)), "undecided")
    deciding = of_run(dataclasses.replace(known(), contrasts=named(DIFFERS, 0.5)), "deciding")
    for order in ((undecided, deciding), (deciding, undecided)):
        result = advised(Question("row", 400, 20), *order)
        assert result["advice"] == "gRPC on Triton"
        assert {"undecided", "deciding"} == set(result["run_ids"].split(", "))


def test_a_run_that_has_no_sound_point_does_not_hide_one_that_has() -> None:
    empty = of_run(dataclasses.replace(known(), points=known().points[:0]), "empty")
    result = advised(Question("row", 400, 20), empty, of_run(known(), "measured"))
    assert result["advice"] == "gRPC on Triton"
    assert result["evidence"].endswith("run measured")


@pytest.mark.parametrize("second", [named(DIFFERS, 2.0), named(EQUAL)])
def test_runs_that_decide_differently_rank_nothing_and_it_is_said(second: pd.DataFrame) -> None:
    first = of_run(dataclasses.replace(known(), contrasts=named(DIFFERS, 0.5)), "first")
    other = of_run(dataclasses.replace(known(), contrasts=second), "other")
    for order in ((first, other), (other, first)):
        result = advised(Question("row", 400, 20), *order)
        assert result["advice"] == "REST and gRPC both do on Triton (runs differ on which is better)"


def test_what_beats_one_encoding_of_a_protocol_does_not_beat_the_protocol() -> None:
    """gRPC takes more load than REST with JSON, and less than REST with binary bodies: no two runs that differ."""
    json = of_run(dataclasses.replace(known(), contrasts=named(DIFFERS, 0.5)), "json")
    both = three(brackets_of(REST=4000.0, gRPC=2000.0, other=1000.0))
    both = of_run(
        dataclasses.replace(
            both,
            arms=both.arms.assign(
                protocol=["REST", "gRPC", "REST"], encoding=["REST with y", "gRPC with x", "REST with x"]
            ),
        ),
        "both",
    )
    for order in ((json, both), (both, json)):
        result = advised(Question("row", 400, 20), *order)
        assert result["advice"] == "REST on Triton (each with its best encoding)"


def test_runs_that_differ_on_whether_the_limit_is_met_are_said_to() -> None:
    """Of another machine, perhaps: one of them is the user's."""
    slow = known()
    slow = of_run(
        dataclasses.replace(slow, points=slow.points.assign(response_p95_ms_low=30, response_p95_ms_high=40)), "slow"
    )
    for order in ((slow, known()), (known(), slow)):
        result = advised(Question("row", 500, 20), *order)
        assert result["advice"] == "gRPC on Triton (runs differ on whether gRPC meets the limit)"


def test_runs_that_contradict_one_another_on_replicas_are_not_settled_by_simplicity() -> None:
    one = known(slow_p95_ms=5.0)
    cached = one.arms.assign(
        protocol="gRPC", cache=["in the server", judging.NO_CACHE], parts=[2, 1], repeat=[0.0, np.nan]
    )
    runs = [
        of_run(dataclasses.replace(one, arms=cached, contrasts=named(DIFFERS, ratio)), name)
        for ratio, name in ((2.0, "a"), (0.5, "b"))
    ]
    assert advised(Question("row", 400, 20), *runs, choice="cache")["advice"] == (
        "in the server and no cache both do on Triton over gRPC (runs differ on which is better)"
    )


def test_each_setting_has_its_own_answer_and_no_favourite() -> None:
    """gRPC on one framework, REST on another: the framework with the highest λ* once spoke for both."""
    one, other = known("gRPC"), known("REST")
    torchserve = dataclasses.replace(other, arms=other.arms.assign(framework="TorchServe"))
    result = advised(Question("row", 400, 20), one, torchserve)
    assert result["advice"] == "gRPC on Triton; REST on TorchServe"
    same = dataclasses.replace(one, arms=one.arms.assign(framework="TorchServe"))
    assert advised(Question("row", 400, 20), one, same)["advice"] == "gRPC on Triton and on TorchServe"


# --- monotone in the limit ----------------------------------------------------------------------------

RATES, LIMITS = st.floats(1, 1e5), st.floats(0.05, 1e3)


@st.composite
def any_evidence(draw: st.DrawFn) -> Evidence:
    """A run of three arms whose points, λ* and contrasts are as they happen to be, whether or not that makes sense."""
    one = three(brackets_of(**{name: draw(st.sampled_from([500.0, 1000.0, 2000.0])) for name in NUMBERS}))
    rows = []
    for arm in NUMBERS.values():
        for rate in draw(st.lists(st.floats(10, 1e4), max_size=3)):
            low = draw(st.floats(0.1, 100))
            rows.append(
                {"arm": arm, "rate_per_s": rate, "lifetimes": 4, "valid": 4}
                | {"verdict": draw(st.sampled_from([VALID, VALID, UNSTEADY, SATURATED]))}
                | {"unsteady": draw(st.sampled_from([0, 4])), "response_p95_ms_below_floor": draw(st.booleans())}
                | {"response_p95_ms_low": low, "response_p95_ms_high": low * draw(st.floats(1, 3))}
            )
    high = [draw(st.sampled_from([100.0, 1000.0, np.inf, np.nan])) for _ in NUMBERS]
    bounds = [draw(st.sampled_from(["", "≥", "<", "?"])) for _ in NUMBERS]
    parts = [draw(st.integers(1, 2)) for _ in NUMBERS]
    contrast = named(draw(st.sampled_from(["", DIFFERS, EQUAL, UNDECIDED])), draw(st.sampled_from([0.5, 2.0])))
    arms = one.arms.assign(high_per_s=high, bound=bounds, parts=parts)
    return dataclasses.replace(
        one, arms=arms, points=pd.DataFrame(rows, columns=one.points.columns), contrasts=contrast
    )


def check_monotone(known: Sequence[Evidence], strict: Question, loose: Question) -> None:
    """In no run is a level worse off with a looser limit, and no setting loses its advice by it."""
    for choice in advice.CHOICES:
        before, after = ({d.setting: d for d in decisions(question, choice, known)} for question in (strict, loose))
        assert before.keys() == after.keys()
        for setting, decision in before.items():
            assert not decision.advised or after[setting].advised
            for one, other in zip(decision.heard, after[setting].heard, strict=True):
                assert all(other.state(level) <= one.state(level) for level in one.arms)


@settings(max_examples=50)
@given(st.lists(any_evidence(), min_size=1, max_size=3), RATES, LIMITS, st.floats(0, 1), st.floats(1, 100))
def test_a_looser_limit_or_less_load_never_takes_advice_back(
    known: Sequence[Evidence], rate: float, slo: float, less: float, more: float
) -> None:
    """A user who asks for less must not hear that nothing is known any more."""
    check_monotone(known, Question("row", rate, slo), Question("row", max(rate * less, 1e-3), slo * more))


@functools.cache
def sampled() -> tuple[Evidence, ...]:
    """What the committed runs say."""
    return tuple(advice.evidence(sample_run(name), sample_tables(name)) for name in FINDINGS)


@settings(max_examples=12)
@given(
    st.sampled_from(["row", "rows", "grey image"]),
    st.floats(10, 5000),
    st.floats(0.3, 50),
    st.sampled_from([0.0, 0.5, 0.75]),
    st.floats(0.01, 1),
    st.floats(1, 20),
)
def test_nor_does_it_on_the_committed_runs(
    payload: str, rate: float, slo: float, repeat: float, less: float, more: float
) -> None:
    check_monotone(sampled(), Question(payload, rate, slo, repeat), Question(payload, rate * less, slo * more, repeat))


# --- nothing favours a direction ----------------------------------------------------------------------


def swapped(text: str) -> str:
    """The text with REST and gRPC exchanged."""
    return re.sub("REST|gRPC", lambda name: {"REST": "gRPC", "gRPC": "REST"}[name[0]], text)


def exchanged(one: Evidence) -> Evidence:
    """The same run, in which each protocol has what the other had."""
    names = ["label", "protocol", "encoding"]
    arms = one.arms.assign(**{name: one.arms[name].map(swapped) for name in names})
    labels = {name: one.contrasts[name].map(swapped) for name in ("label", "reference_label")}
    return dataclasses.replace(one, arms=arms, contrasts=one.contrasts.assign(**labels))


@pytest.mark.parametrize("question", advice.STANDARD, ids=lambda question: question.text)
def test_with_the_protocols_exchanged_in_the_committed_runs_every_word_turns(question: Question) -> None:
    before = advice.advise(question, sampled())
    after = advice.advise(question, [exchanged(one) for one in sampled()])
    for column in ("advice", "evidence", "why", "run_ids"):
        assert list(after[column]) == [swapped(text) for text in before[column]]


# --- what is not measured, and whole runs -------------------------------------------------------------


def test_encodings_have_the_names_of_labels() -> None:
    """ "REST with raw" is a name of this program's files."""
    table = advice.evidence(*searched(FINDINGS["encodings"].design("quick"))).arms
    assert {"REST with binary", "REST with JSON", "gRPC with protobuf floats"} <= set(table["encoding"])


def test_what_was_not_varied_is_not_advised_and_names_the_run_that_would() -> None:
    result = advised(Question("row", 400, 20), known(), choice="cache")
    assert result["advice"] == CANNOT
    assert "make finding F=caching" in result["evidence"]


@pytest.mark.parametrize(
    ("repeat", "reason"),
    [(0.5, "make finding F=caching would"), (0.25, "F=caching PROFILE=full would"), (0.4, "no run of this project")],
)
def test_the_run_that_would_decide_about_a_cache_measures_that_fraction(repeat: float, reason: str) -> None:
    one = known()
    grey = dataclasses.replace(one, arms=one.arms.assign(model="cnn"))
    assert reason in advised(Question("grey image", 400, 20, repeat), grey, choice="cache")["evidence"]


def test_frameworks_are_compared_by_like_encodings_only() -> None:
    """Binary bodies on one against JSON on another: the difference would be the encoding's."""
    one = known()
    arms = one.arms.assign(protocol="REST", framework=["Triton", "TorchServe"])
    alike = advised(Question("row", 400, 20), dataclasses.replace(one, arms=arms), choice="framework")
    assert alike["advice"] == "TorchServe over REST, binary"
    unlike = arms.assign(form=["json", "binary"])
    result = advised(Question("row", 400, 20), dataclasses.replace(one, arms=unlike), choice="framework")
    assert result["advice"] == CANNOT
    assert "not measured" in result["evidence"]


def test_a_payload_without_trials_is_an_error_with_the_run_that_would_answer() -> None:
    with pytest.raises(DataError, match="make finding F=encodings PROFILE=full"):
        advice.advise(Question("photograph", 10, 100), [known()])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("sound", 1, 1), "payload='sound' is not known"),
        (("row", -1, 1), "rate_per_s=-1"),
        (("row", "fast", 1), "rate_per_s='fast' cannot be used; accepted: a number above 0"),
        (("row", 1, np.nan), "slo_ms=nan"),
        (("row", 1, None), "slo_ms=None cannot be used; accepted: a number above 0"),
        (("row", 1, 1, 2.0), "repeat=2.0"),
        (("row", 1, 1, "half"), "repeat='half' is not a fraction; accepted: 0 to 1"),
        (("row", 1, 1, 0.0, "p42"), "quantile='p42'"),
    ],
)
def test_a_question_without_sense_is_refused(values: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Question(*values)  # type: ignore[arg-type]


@pytest.mark.parametrize("payload", list(advice.PAYLOADS))
@pytest.mark.parametrize("choice", advice.CHOICES)
@pytest.mark.parametrize("repeat", [0.0, 0.25, 0.5])
def test_the_run_that_is_named_would_decide(payload: str, choice: str, repeat: float) -> None:
    """A user measures for an hour, asks again, and must not be sent on to yet another run."""
    question = Question(payload, 10, 100, repeat)
    command = asked.would(question, choice)
    if not command:
        return
    assert advised(question, measured_by(command), choice=choice)["run_ids"], f"{command} does not vary the {choice}"


@functools.cache
def measured_by(command: str) -> Evidence:
    """What a run of a command would say: simulated, but for that of F0, which is in the sample."""
    if command == "make paper":
        return advice.evidence(sample_run("protocols"), sample_tables("protocols"))
    finding, full = re.findall(r"F=([a-z-]+)( PROFILE=full)?", command)[0]
    return advice.evidence(*searched(FINDINGS[finding].design("full" if full else "quick")))


def test_the_fractions_of_repeats_are_those_of_the_finding() -> None:
    """Else advice about a cache names a run that does not measure the fraction."""
    assert asked.CACHED_REPEATS == {"": QUICK_REPEATS, asked.FULL: FULL_REPEATS}


def test_every_line_is_traceable_to_stored_trials() -> None:
    """On the committed runs: each choice that was measured names runs of them and arms that they have."""
    every = {one.run.id: one for one in sampled()}
    lines = advice.advise(Question("row", 100, 50), sampled())
    assert list(lines["choice"]) == list(advice.CHOICES)
    for row in lines[lines["run_ids"] != ""].to_dict("records"):
        for run_id in row["run_ids"].split(", "):
            own = [line for line in row["why"].splitlines() if f"run {run_id} on " in line]
            assert own
            assert all(any(label in line for label in every[run_id].arms["label"]) for line in own)
    given = lines[lines["advice"].str.contains("gRPC")]
    assert given["evidence"].str.fullmatch(r"p95 at .* requests/s is .* ms: .*95 %.*, .* lifetimes?, runs? .*").all()
    packed = advice.advise(Question("rows", 200, 20), sampled())
    assert not packed["why"].str.contains("gzip").any(), "what compressing costs the client is not in those times"


@pytest.fixture
def one_run(tmp_path: Path) -> Path:
    """A folder that holds the run of one finding alone: all of them take long to judge."""
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "run").symlink_to(sample_folder("hybrid"))
    return folder


def test_the_notebook_answers_and_stores_the_questions_of_the_report(one_run: Path, tmp_path: Path) -> None:
    """The report takes in what it stores."""
    execute("60-advice", {"payload": "", "runs_folder": str(one_run), "figures_folder": str(tmp_path)}, tmp_path)
    lines = advice.load(tmp_path)
    assert lines is not None
    assert set(lines["question"]) == {question.text for question in advice.STANDARD}


def test_the_command_prints_a_line_a_choice_and_details_on_demand(
    one_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the run that would answer, where none is stored."""
    arguments = ["advice", "--data", str(one_run), "--slo", "50ms"]
    assert main([*arguments, "--payload", "rows", "--rate", "100"]) == 0
    short = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in short[1:]] == list(advice.CHOICES)
    assert main([*arguments, "--payload", "rows", "--rate", "100", "--details"]) == 0
    whole = capsys.readouterr().out.splitlines()
    assert [line for line in whole if not line.startswith("    ")] == short
    assert len(whole) > len(short)
    assert main([*arguments, "--payload", "photograph"]) == 1
    assert "PROFILE=full" in capsys.readouterr().err
