"""Advice: if these fail, a user deploys what no trial speaks for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.project import ROOT
from infscale.cli import main
from infscale.cli.notebooks import execute
from infscale.errors import ConfigError, DataError
from infscale.records.gate import SATURATED, VALID
from infscale.records.runs import Run
from infscale.report import advice
from infscale.report.advice import FAILS, MEETS, OPEN, Evidence, Question


def run_of(name: str) -> Run:
    return Run(Path(name), {"run_id": name, "implementations": {}}, ())


def known(fast: str = "gRPC", slow_p95_ms: float = 10.0) -> Evidence:
    """One run with two protocols of which ``fast`` keeps up with 2,000/s and the other with 1,000/s."""
    capacities = {p: 2000.0 if p == fast else 1000.0 for p in ("REST", "gRPC")}
    arms = pd.DataFrame(
        {
            "label": list(capacities),
            "protocol": list(capacities),
            "encoding": [f"{p} with x" for p in capacities],
            "form": "binary",
            "framework": "Triton",
            "replicas": "1",
            "cache": advice.NO_CACHE,
            "repeat": None,
            "plain": True,
            "model": "mlp",
            "batch": 1,
            "bound": "",
            "saturation_per_s": list(capacities.values()),
            "high_per_s": [1.1 * c for c in capacities.values()],
            "interval_high_per_s": [1.1 * c for c in capacities.values()],
        }
    )
    rows = [
        {
            "label": p,
            "rate_per_s": rate,
            "verdict": VALID if rate < c else SATURATED,
            "response_p95_ms_low": 0.9 * (5.0 if p == fast else slow_p95_ms),
            "response_p95_ms_high": 1.1 * (5.0 if p == fast else slow_p95_ms),
        }
        for p, c in capacities.items()
        for rate in (500.0, 1500.0)
    ]
    brackets = [(p, r, 0.95 * c, 1.05 * c) for p, c in capacities.items() for r in range(4)]
    columns = ["label", "replicate", "low_per_s", "high_per_s"]
    return Evidence(run_of("r1"), arms, pd.DataFrame(rows), pd.DataFrame(brackets, columns=columns))


def advised(question: Question, one: Evidence, choice: str = "protocol") -> dict[str, str]:
    lines = advice.advise(question, [one]).to_dict("records")
    return next({str(k): str(v) for k, v in line.items()} for line in lines if line["choice"] == choice)


@pytest.mark.parametrize("fast", ["REST", "gRPC"])
def test_the_advice_turns_with_the_data(fast: str) -> None:
    found = advised(Question("row", 400, 20), known(fast))
    assert found["advice"] == fast, "both meet it; the one with more room above is advised"
    assert found["run_id"] == "r1"
    assert "÷" in found["why"]


def test_capacities_that_are_not_told_apart_are_no_advice() -> None:
    one = known()
    wide = one.brackets.assign(low_per_s=500.0, high_per_s=2500.0)
    found = advised(Question("row", 400, 20), Evidence(one.run, one.arms, one.points, wide))
    assert found["advice"].startswith("cannot conclude which: gRPC and REST meet it")


def test_what_is_known_to_take_less_is_not_among_those_that_cannot_be_told_apart() -> None:
    """With three: the best two are near one another, and the third is not near the best."""
    one = known()
    third = one.arms[one.arms["protocol"] == "gRPC"].assign(label="other", protocol="other", saturation_per_s=1990.0)
    points = pd.concat([one.points, one.points[one.points["label"] == "gRPC"].assign(label="other")])
    brackets = pd.concat([one.brackets, one.brackets[one.brackets["label"] == "gRPC"].assign(label="other")])
    three = Evidence(one.run, pd.concat([one.arms, third], ignore_index=True), points, brackets)
    found = advised(Question("row", 400, 20), three)
    assert found["advice"] == "cannot conclude which: gRPC and other meet it"
    assert "REST" in found["why"]


def test_one_replica_that_is_enough_is_advised_whatever_more_would_take() -> None:
    one = known()
    arms = one.arms.assign(protocol="gRPC", replicas=["1", "2 behind x"])  # the second takes twice as much
    several = Evidence(one.run, arms, one.points, one.brackets)
    assert advised(Question("row", 400, 20), several, "replicas")["advice"] == "1: no more are needed"
    assert advised(Question("row", 1400, 20), several, "replicas")["advice"] == "2 behind x"


def test_the_only_arm_that_meets_the_question_is_advised() -> None:
    assert advised(Question("row", 1400, 20), known())["advice"] == "gRPC"
    assert advised(Question("row", 500, 7), known())["advice"] == "gRPC"


def test_a_question_that_all_fail_says_so() -> None:
    assert advised(Question("row", 100_000, 20), known())["advice"] == "none of those measured"
    assert advised(Question("row", 500, 1), known())["advice"] == "none of those measured"


@pytest.mark.parametrize(
    ("rate", "slo", "expected"),
    [(400, 20, MEETS), (1200, 20, FAILS), (900, 20, OPEN), (500, 5, FAILS), (400, 10.5, OPEN)],
)
def test_an_arm_meets_fails_or_is_open(rate: float, slo: float, expected: str) -> None:
    one = known()
    (arm,) = (row for _, row in one.arms.iterrows() if row["label"] == "REST")
    assert advice.state(Question("row", rate, slo), one, arm) == expected


def test_what_was_not_varied_is_not_advised_and_names_the_run_that_would() -> None:
    found = advised(Question("row", 400, 20), known(), "cache")
    assert found["advice"] == "cannot conclude"
    assert "make finding F=caching" in found["why"]


@pytest.mark.parametrize(
    ("repeat", "told"),
    [(0.5, "make finding F=caching would"), (0.25, "F=caching PROFILE=full would"), (0.4, "no run of this project")],
)
def test_the_run_that_would_decide_about_a_cache_measures_that_fraction(repeat: float, told: str) -> None:
    one = known()
    grey = Evidence(one.run, one.arms.assign(model="cnn"), one.points, one.brackets)
    assert told in advised(Question("grey image", 400, 20, repeat), grey, "cache")["why"]


def test_frameworks_are_compared_by_like_encodings_only() -> None:
    """Binary bodies on one against JSON on another: the difference would be the encoding's."""
    one = known()
    arms = one.arms.assign(protocol="REST", framework=["Triton", "TorchServe"])
    alike = advised(Question("row", 400, 20), Evidence(one.run, arms, one.points, one.brackets), "framework")
    assert alike["advice"] == "TorchServe"
    unlike = arms.assign(form=["json", "binary"])
    found = advised(Question("row", 400, 20), Evidence(one.run, unlike, one.points, one.brackets), "framework")
    assert found["advice"] == "cannot conclude"
    assert "not measured" in found["why"]


def test_a_payload_without_trials_is_an_error_with_the_run_that_would_answer() -> None:
    with pytest.raises(DataError, match="make finding F=encodings PROFILE=full"):
        advice.advise(Question("photograph", 10, 100), [known()])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("sound", 1, 1), "payload='sound' is not known"),
        (("row", -1, 1), "rate_per_s=-1"),
        (("row", 1, np.nan), "slo_ms=nan"),
        (("row", 1, 1, 2.0), "repeat=2.0"),
        (("row", 1, 1, 0.0, "p42"), "quantile='p42'"),
    ],
)
def test_a_question_without_sense_is_refused(given: tuple[object, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Question(*given)  # type: ignore[arg-type]


def test_every_line_is_traceable_to_stored_trials(tmp_path: Path) -> None:
    """On the committed runs: each choice that is advised names a run of them and cases that it has."""
    runs = advice.stored(ROOT / "data" / "sample")
    every = {run.id: advice.evidence(run) for run in runs}
    lines = advice.advise(Question("row", 100, 50), list(every.values()))
    assert list(lines["choice"]) == list(advice.CHOICES)
    for row in lines[lines["run_id"] != ""].to_dict("records"):
        labels = set(every[row["run_id"]].arms["label"])
        assert any(label in row["cases"] for label in labels)
    packed = advice.advise(Question("rows", 200, 20), list(every.values()))
    assert not packed["cases"].str.contains("gzip").any(), "what compressing costs the client is not in those times"
    execute("60-advice", {"runs_folder": str(ROOT / "data" / "sample"), "figures_folder": str(tmp_path)}, tmp_path)
    assert (tmp_path / "advice.csv").is_file()


def test_the_command_prints_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advice", "--data", str(ROOT / "data" / "sample"), "--rate", "100", "--slo", "50ms"]) == 0
    told = capsys.readouterr().out
    assert all(f"{choice}: " in told for choice in advice.CHOICES)
    assert main(["advice", "--data", str(ROOT / "data" / "sample"), "--payload", "photograph"]) == 1
    assert "PROFILE=full" in capsys.readouterr().err
