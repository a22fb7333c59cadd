"""Advice: if these fail, a user deploys what no trial speaks for."""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.sample import sample_folder, sample_run, sample_tables
from helpers.tables import bracketed, manifest_with, searched
from infscale.analysis.tables.ratios import Ratios
from infscale.cli import main
from infscale.cli.notebooks import execute
from infscale.errors import ConfigError, DataError
from infscale.findings import FINDINGS
from infscale.findings.caching import FULL_REPEATS, QUICK_REPEATS
from infscale.records.gate import SATURATED, VALID
from infscale.report import advice
from infscale.report.advice import Evidence, Question, State

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
            "cache": advice.NO_CACHE,
            "repeat": float("nan"),
            "plain": True,
            "model": "mlp",
            "batch": 1,
            "bound": "",
            "saturation_per_s": list(capacities.values()),
            "high_per_s": [1.1 * c for c in capacities.values()],
        }
    )
    rows = [
        {
            "arm": NUMBERS[p],
            "rate_per_s": rate,
            "verdict": VALID if rate < c else SATURATED,
            "response_p95_ms_low": 0.9 * (5.0 if p == fast else slow_p95_ms),
            "response_p95_ms_high": 1.1 * (5.0 if p == fast else slow_p95_ms),
        }
        for p, c in capacities.items()
        for rate in (500.0, 1500.0)
    ]
    return Evidence(sample_run("hybrid"), arms, pd.DataFrame(rows), brackets_of(**capacities))


def advised(question: Question, one: Evidence, choice: str = "protocol") -> dict[str, str]:
    """The line of one choice."""
    lines = advice.advise(question, [one]).to_dict("records")
    return next({str(k): str(v) for k, v in line.items()} for line in lines if line["choice"] == choice)


@pytest.mark.parametrize("fast", ["REST", "gRPC"])
def test_the_advice_turns_with_the_data(fast: str) -> None:
    result = advised(Question("row", 400, 20), known(fast))
    assert result["advice"] == fast, "both meet it; the one with more room above is advised"
    assert result["run_id"] == sample_run("hybrid").id
    slow = "gRPC" if fast == "REST" else "REST"
    limit = r"the limit \(p95 of at most 20 ms at 400 requests/s\), its λ\* is about 2000 requests/s"
    other = rf"{slow} \({slow}\) meets it, its λ\* is about 1000 requests/s"
    ratio = rf"the saturation rate of {fast} is 2\.00 times that of {slow} \(95 % interval [^)]*\)"
    assert re.fullmatch(rf"{fast} \({fast}\) meets {limit}; {other}; {ratio}", result["why"])


def test_capacities_that_are_not_told_apart_are_no_advice() -> None:
    near = dataclasses.replace(known(), ratios=brackets_of(REST=1000.0, gRPC=1001.0))
    result = advised(Question("row", 400, 20), near)
    undecided = "gRPC and REST both meet the limit; the trials do not show which takes more load"
    assert result["advice"] == undecided


def test_what_is_known_to_take_less_is_not_among_those_that_cannot_be_told_apart() -> None:
    """With three: the best two are near one another, and the third is not near the best."""
    one = known()
    third = one.arms[one.arms["protocol"] == "gRPC"].assign(label="other", protocol="other", arm=NUMBERS["other"])
    points = pd.concat([one.points, one.points[one.points["arm"] == 1].assign(arm=NUMBERS["other"])])
    ratios = brackets_of(REST=1000.0, gRPC=2000.0, other=2000.0)
    three = Evidence(one.run, pd.concat([one.arms, third.assign(saturation_per_s=1990.0)]), points, ratios)
    result = advised(Question("row", 400, 20), three)
    assert result["advice"] == "gRPC and other both meet the limit; the trials do not show which takes more load"
    assert "REST" in result["why"]


def test_one_replica_that_is_enough_is_advised_whatever_more_would_take() -> None:
    """The second costs as much again."""
    one = known()
    several = dataclasses.replace(one, arms=one.arms.assign(protocol="gRPC", replicas=["1", "2 behind x"]))
    assert advised(Question("row", 400, 20), several, "replicas")["advice"] == "1 replica is enough"
    assert advised(Question("row", 1400, 20), several, "replicas")["advice"] == "2 behind x"


def test_the_only_arm_that_meets_the_question_is_advised() -> None:
    assert advised(Question("row", 1400, 20), known())["advice"] == "gRPC"
    assert advised(Question("row", 500, 7), known())["advice"] == "gRPC"


def test_a_question_that_all_fail_says_so() -> None:
    for question in (Question("row", 100_000, 20), Question("row", 500, 1)):
        result = advised(question, known())
        assert result["advice"] == "none of those measured meets the limit"
        assert "gRPC (gRPC) does not meet the limit (p95 of at most" in result["why"]


def test_an_alternative_that_was_not_measured_well_enough_is_said_beside_the_advice() -> None:
    result = advised(Question("row", 900, 20), known())
    assert result["advice"] == "gRPC (other choices not measured well enough)"
    assert "; REST (REST) may or may not meet it, its λ* is about 1000 requests/s" in result["why"]


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
    one = known()
    (arm,) = (row for _, row in one.arms.iterrows() if row["label"] == "REST")
    assert advice.state(Question("row", rate, slo), one, arm) == expected


def test_an_arm_that_kept_up_with_no_rate_may_do_with_less() -> None:
    """All that is known of it lies at the rates that were tried: λ* below 1,000 says nothing of 100."""
    one = known()
    rest = one.arms.query("label == 'REST'").assign(bound="<", saturation_per_s=1000.0, high_per_s=0.0).iloc[0]
    assert advice.state(Question("row", 100, 20), dataclasses.replace(one, points=one.points[:0]), rest) == State.OPEN
    assert advice.state(Question("row", 1100, 20), dataclasses.replace(one, points=one.points[:0]), rest) == State.FAILS


def test_an_arm_that_kept_up_with_every_rate_does_not_fail() -> None:
    """Its λ* has no upper end."""
    one = known()
    rest = one.arms.query("label == 'REST'").assign(bound="≥", high_per_s=np.inf).iloc[0]
    assert advice.state(Question("row", 1e5, 20), one, rest) == State.OPEN
    result = advised(Question("row", 400, 20), dataclasses.replace(one, arms=one.arms.assign(bound="≥")))
    assert "its λ* is at least 2000 requests/s" in result["why"]


def test_names_with_commas_can_be_told_from_the_list_that_they_are_in() -> None:
    """ "in the server, 2 behind x, 1 connection and 1" may be two choices, or four."""
    one = dataclasses.replace(known(), ratios=brackets_of(REST=1000.0, gRPC=1001.0, other=1002.0))
    third = one.arms.iloc[:1].assign(arm=NUMBERS["other"], label="REST, JSON", protocol="other, x")
    points = pd.concat([one.points, one.points[one.points["arm"] == 0].assign(arm=NUMBERS["other"])])
    three = dataclasses.replace(one, arms=pd.concat([one.arms, third]), points=points)
    result = advised(Question("row", 400, 20), three)
    assert "gRPC; " in result["advice"]
    assert "that of “REST, JSON”" in result["why"]


def test_encodings_have_the_names_of_labels() -> None:
    """ "REST with raw" is a name of this program's files."""
    table = advice.evidence(*searched(FINDINGS["encodings"].design("quick"))).arms
    assert {"REST with binary", "REST with JSON", "gRPC with protobuf floats"} <= set(table["encoding"])


def test_what_was_not_varied_is_not_advised_and_names_the_run_that_would() -> None:
    result = advised(Question("row", 400, 20), known(), "cache")
    assert result["advice"] == "cannot conclude"
    assert "make finding F=caching" in result["why"]


@pytest.mark.parametrize(
    ("repeat", "reason"),
    [(0.5, "make finding F=caching would"), (0.25, "F=caching PROFILE=full would"), (0.4, "no run of this project")],
)
def test_the_run_that_would_decide_about_a_cache_measures_that_fraction(repeat: float, reason: str) -> None:
    one = known()
    grey = dataclasses.replace(one, arms=one.arms.assign(model="cnn"))
    assert reason in advised(Question("grey image", 400, 20, repeat), grey, "cache")["why"]


def test_frameworks_are_compared_by_like_encodings_only() -> None:
    """Binary bodies on one against JSON on another: the difference would be the encoding's."""
    one = known()
    arms = one.arms.assign(protocol="REST", framework=["Triton", "TorchServe"])
    alike = advised(Question("row", 400, 20), dataclasses.replace(one, arms=arms), "framework")
    assert alike["advice"] == "TorchServe"
    unlike = arms.assign(form=["json", "binary"])
    result = advised(Question("row", 400, 20), dataclasses.replace(one, arms=unlike), "framework")
    assert result["advice"] == "cannot conclude"
    assert "not measured" in result["why"]


def test_a_payload_without_trials_is_an_error_with_the_run_that_would_answer() -> None:
    with pytest.raises(DataError, match="make finding F=encodings PROFILE=full"):
        advice.advise(Question("photograph", 10, 100), [known()])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("sound", 1, 1), "payload='sound' is not known"),
        (("row", -1, 1), "rate_per_s=-1"),
        (("row", 1, np.nan), "slo_ms=nan"),
        (("row", 1, 1, 2.0), "repeat=2.0"),
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
    command = advice.would(question, choice)
    if not command:
        return
    assert advised(question, measured_by(command), choice)["run_id"], f"{command} does not vary the {choice}"


@functools.cache
def measured_by(command: str) -> Evidence:
    """What a run of a command would say: simulated, but for that of F0, which is in the sample."""
    if command == "make paper":
        return advice.evidence(sample_run("protocols"), sample_tables("protocols"))
    finding, full = re.findall(r"F=([a-z-]+)( PROFILE=full)?", command)[0]
    return advice.evidence(*searched(FINDINGS[finding].design("full" if full else "quick")))


def test_the_fractions_of_repeats_are_those_of_the_finding() -> None:
    """Else advice about a cache names a run that does not measure the fraction."""
    assert advice.CACHED_REPEATS == {"": QUICK_REPEATS, advice.FULL: FULL_REPEATS}


def test_every_line_is_traceable_to_stored_trials() -> None:
    """On the committed runs: each choice that is advised names a run of them and arms that it has."""
    every = {sample_run(name).id: advice.evidence(sample_run(name), sample_tables(name)) for name in FINDINGS}
    lines = advice.advise(Question("row", 100, 50), list(every.values()))
    assert list(lines["choice"]) == list(advice.CHOICES)
    for row in lines[lines["run_id"] != ""].to_dict("records"):
        labels = set(every[row["run_id"]].arms["label"])
        assert any(label in row["arms"] for label in labels)
    packed = advice.advise(Question("rows", 200, 20), list(every.values()))
    assert not packed["arms"].str.contains("gzip").any(), "what compressing costs the client is not in those times"


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
    assert len(lines) == len(advice.STANDARD)


def test_the_command_prints_every_choice(one_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the run that would answer, where none is stored."""
    arguments = ["advice", "--data", str(one_run), "--slo", "50ms"]
    assert main([*arguments, "--payload", "rows", "--rate", "100"]) == 0
    lines = capsys.readouterr().out
    assert all(f"{choice}: " in lines for choice in advice.CHOICES)
    assert main([*arguments, "--payload", "photograph"]) == 1
    assert "PROFILE=full" in capsys.readouterr().err
