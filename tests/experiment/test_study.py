"""Findings: if these fail, a reader trusts a comparison of encodings that did not carry the same tensor."""

import dataclasses
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from infscale.experiment.design.case import Case
from infscale.experiment.design.grid import Grid

from helpers.project import ROOT
from infscale.analysis.intervals import Interval
from infscale.analysis.tables import cases as study_tables
from infscale.analysis.tables.saturation import capacity_ratio
from infscale.cli.notebooks import execute
from infscale.deployment import FRAMEWORKS
from infscale.errors import ConfigError, InfscaleError, ServerLostError
from infscale.experiment import cases as study
from infscale.experiment import search as pilot
from infscale.experiment.check import check
from infscale.experiment.folder import folder_for
from infscale.experiment.trial import Arm
from infscale.findings import report as study_report
from infscale.findings import studies
from infscale.findings import topology as study_topology
from infscale.models.reference import inputs
from infscale.records import runs
from infscale.vocabulary import PROTOCOLS

make_sample = runpy.run_path(str(ROOT / "data" / "make_sample.py"))["main"]
EVERY = [(f, p, e) for f, one in FRAMEWORKS.items() for p in PROTOCOLS for e in one.interface.encodings(p)]


@pytest.mark.parametrize(("framework", "protocol", "encoding"), EVERY)
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_a_body_carries_every_byte_of_its_tensor(framework: str, protocol: str, encoding: str, batch: int) -> None:
    """``make_tensor_proto`` with a fill value sends 3 kB at every batch size, and gRPC looks ever faster."""
    rows, interface = inputs("mlp", 64), FRAMEWORKS[framework].interface
    body = interface.payload(protocol, "mlp", rows, encoding=encoding, batch=batch).bodies[0]
    tensor = 4 * 784 * batch
    assert len(body) >= tensor
    if encoding in ("raw", "npy", "protobuf", "float_val", "contents"):
        assert len(body) <= tensor + 400


def grid_of(*cases: Case) -> Grid:
    frameworks = tuple(dict.fromkeys(case.framework for case in cases))
    return Grid(frameworks=frameworks, cases=cases, sensitivity=False)


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        ([Case("a", "tfserving", Arm("rest", "raw"))], "accepted: json, b64"),
        ([Case("a", "triton", Arm("rest", "json", batch=20_000))], "limit of 64 MiB; accepted with json: 1 to"),
        ([Case("a", "triton", Arm("rest")), Case("a", "triton", Arm("grpc"))], "different names"),
        ([Case("b", "triton", Arm("rest"), against="a")], "against=.a. is not known"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_deployed(cases: list[Case], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(grid_of(*cases))


@pytest.mark.parametrize("profile", list(studies.SIZES))
@pytest.mark.parametrize("name", list(studies.STUDIES))
def test_every_finding_can_be_measured_as_planned(name: str, profile: str) -> None:
    grid = studies.grid_of(name, profile)
    check(grid)
    assert grid.contrasts()
    if profile == "quick":
        assert len(grid.cases) <= 6
        assert grid.seconds() <= 600


def test_an_unknown_finding_is_named() -> None:
    with pytest.raises(ConfigError, match="finding='caching2' is not known; accepted: caching, client-stacks"):
        studies.grid_of("caching2")


def cases_table(faster: str) -> dict[str, pd.DataFrame]:
    """Two cases of which one is faster and takes more."""
    rows: list[dict[str, Any]] = []
    for name in ("JSON", "binary"):
        good = name == faster
        low = 1000.0 if good else 500.0
        rows.append(
            {
                "label": name,
                "rate_per_s": 250.0,
                "bytes_out": {"JSON": 900.0, "binary": 300.0}[name],
                "bytes_in": 100.0,
                "bound": "",
                "low_per_s": low,
                "high_per_s": 1.1 * low,
                "interval_low_per_s": 0.9 * low,
                "interval_high_per_s": 1.2 * low,
            }
        )
    ratio = 0.5 if faster == "binary" else 2.0
    contrast = {
        "label": "binary",
        "reference": "JSON",
        "replicates": 5,
        "exploratory": False,
        "ratio": ratio,
        "ratio_low": 0.9 * ratio,
        "ratio_high": 1.1 * ratio,
        "note": "",
        "conclusion": "faster" if ratio < 1 else "slower",
        "capacity_ratio": 1 / ratio,
        "capacity_ratio_low": 0.9 / ratio,
        "capacity_ratio_high": 1.1 / ratio,
        "capacity_conclusion": "higher" if ratio < 1 else "lower",
    }
    return {"cases": pd.DataFrame(rows), "contrasts": pd.DataFrame([contrast])}


def test_the_sentence_turns_with_the_data() -> None:
    better, worse = (study_tables.sentences(cases_table(name))[1] for name in ("binary", "JSON"))
    assert "binary is faster" in better
    assert "higher: 2.00 times that of JSON (95 % interval 1.80 to 2.20)" in better
    assert "binary is slower" in worse
    assert "lower: 0.500 times that of JSON" in worse
    assert "0.333 times" in better


def test_capacities_that_overlap_are_not_told_apart() -> None:
    tables = cases_table("binary")
    tables["contrasts"] = tables["contrasts"].assign(capacity_ratio_low=0.9, capacity_conclusion="cannot conclude")
    assert "cannot conclude which is higher" in study_tables.sentences(tables)[1]
    tables["contrasts"]["capacity_ratio_low"] = np.nan
    assert "cannot conclude whether higher" in study_tables.sentences(tables)[1]


@pytest.mark.server
@pytest.mark.parametrize("name", list(studies.STUDIES))
def test_the_notebook_measures_a_finding_and_draws_it(name: str, tmp_path: Path) -> None:
    """The whole way at its smallest, on real servers."""
    folder = folder_for(studies.grid_of(name, "tiny"), tmp_path / "raw")
    figures = tmp_path / "figures"
    given = {"profile": "tiny", "run": str(folder), "figures_folder": str(figures)}
    try:
        execute(studies.STUDIES[name].notebook, given, tmp_path / "out")
    except InfscaleError as error:
        if "MissingError" in str(error):
            pytest.skip(f"this machine cannot measure {name}: {error}")
        raise
    run = runs.load_run(folder)
    assert run.manifest["status"] == "complete"
    told = json.loads((figures / f"finding-{name}.json").read_text())
    cases = pd.read_csv(figures / f"finding-{name}.csv").set_index("label")
    assert set(run.case_labels()) == {c.name for c in studies.grid_of(name, "tiny").cases} - set(told["left_out"])
    assert list(cases.index) == list(run.case_labels().values())
    for label in cases.index:
        assert any(sentence.startswith(label) for sentence in told["sentences"])
    seen = cases["bytes_out"].dropna()  # of a foreign client it is not
    assert (seen > 4 * 784).all()
    assert name == "client-stacks" or len(seen) == len(cases)
    servers = cases[[name for name in cases if str(name).startswith("cpu_us_server")]]
    assert (servers.max(axis="columns") > 0).any(), "at least one trial at the common rate was VALID or SATURATED"
    assert all((figures / figure["file"]).is_file() for figure in told["figures"])
    sample = runs.load_run(make_sample(folder, tmp_path / "sample"))
    whole, small = (study_tables.study_tables(one)["cases"].drop(columns="trials") for one in (run, sample))
    pd.testing.assert_frame_equal(small, whole)  # else a reader with a clone draws other figures than were measured


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9, 1.0, 1.7, 2.5, 6.0])
def test_a_search_brackets_a_capacity_closely_however_wrong_the_pilot_was(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide bracket is in every interval, and one without an end withholds the ratio."""
    tried = []

    def run(session: Any, endpoint: Any, name: str, case: Case, rate: float, key: Any, labels: Any) -> str:
        tried.append(rate)
        return "VALID" if rate < 1000 * share else "SATURATED"

    monkeypatch.setattr(study, "_run", run)
    grid = studies.grid_of("encodings")
    found = {case.name: {"capacity_per_s": 1000.0} for case in grid.cases}
    session: Any = SimpleNamespace(grid=grid, manifest={"pilot": found})
    study._capacity(session, None, 0, grid.cases[0])  # type: ignore[arg-type]
    low, high = max(r for r in tried if r < 1000 * share), min(r for r in tried if r >= 1000 * share)
    assert low < high <= (1.3 if 0.5 <= share <= 2.5 else 2) * low
    assert len(tried) <= grid.bisections + study.MORE


def test_a_trial_at_a_low_rate_has_requests_enough_for_its_percentile() -> None:
    grid = studies.grid_of("network")
    assert grid.duration_s(10.0) * 10.0 >= 100
    assert grid.duration_s(1000.0) == grid.trial_s


@pytest.mark.server
def test_a_server_that_is_lost_again_and_again_costs_the_case_that_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night's study must not end at the one case that a server does not survive, nor blame the one after it."""
    fragile, once = "gRPC", ["once"]
    search = pilot.bracket

    def lose(session: Any, endpoint: Any, arm: Arm, name: str, *more: Any, **labels: Any) -> tuple[float, float]:
        if labels["case"] == fragile or (labels["case"] == "JSON" and once and once.pop()):
            raise ServerLostError(f"lost under {labels['case']}")
        return search(session, endpoint, arm, name, *more, **labels)

    monkeypatch.setattr(study, "bracket", lose)
    arms = {"JSON": Arm("rest", "json"), fragile: Arm("grpc"), "binary": Arm("rest", "raw")}
    cases = tuple(Case(name, "triton", arm, against="" if name == "JSON" else "JSON") for name, arm in arms.items())
    sizes: dict[str, Any] = {**studies.SIZES["tiny"], "fractions": (0.4,), "sensitivity": False}
    grid = Grid(("triton",), cases=cases, experiment="encodings", **sizes)
    run = runs.load_run(study.measure(grid, folder_for(grid, tmp_path), say=lambda _: None))
    assert set(run.manifest["pilot"]) == {"JSON", "binary"}
    assert run.manifest["skipped"] == {fragile: f"lost under {fragile}"}
    assert {trial.manifest["case"] for trial in run.trials} == {"JSON", "binary"}
    assert run.manifest["status"] == "complete"


def brackets(**cases: list[tuple[float, float]]) -> pd.DataFrame:
    rows = [(name, r, low, high) for name, ends in cases.items() for r, (low, high) in enumerate(ends)]
    return pd.DataFrame(rows, columns=["label", "replicate", "low_per_s", "high_per_s"])


def test_a_ratio_of_capacities_holds_the_width_of_the_brackets() -> None:
    found = capacity_ratio(brackets(a=[(200, 220)] * 4, b=[(100, 110)] * 4), "a", "b")
    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(200 / 110)
    assert found.high == pytest.approx(220 / 100)


def test_a_replicate_that_never_saturated_withholds_the_ratio() -> None:
    """Left out, it would take the fastest replicate from the side that it speaks for."""
    nan = float("nan")
    censored = capacity_ratio(brackets(a=[(200, 220)] * 3 + [(900, nan)], b=[(100, 110)] * 4), "a", "b")
    assert np.isnan([censored.value, censored.low, censored.high]).all()
    assert censored.replicates == 3
    invalid = capacity_ratio(brackets(a=[(200, 220)] * 3 + [(nan, nan)], b=[(100, 110)] * 4), "a", "b")
    assert invalid.value == pytest.approx(2.0)
    assert invalid.replicates == 3


def run_of_shares(each: list[list[float]], slow_ms: float = 0) -> tuple[runs.Run, dict[str, pd.DataFrame]]:
    options = [["replicas", 2], ["balancer", "envoy-l4"]] + ([["slow_ms", slow_ms]] if slow_ms else [])
    pilot = {"a": {"implementation": "tritonx2"}}
    case = {"name": "a", "options": options, "arm": {"protocol": "grpc", "reuse": True, "connections": 0}}
    labels = {"case": "a", "implementation": "tritonx2", "phase": "grid", "verdict": {"verdict": "VALID"}}
    trials = tuple(runs.Trial({**labels, "shares": shares}, Path()) for shares in each)
    row = {"label": "a", "protocol": "grpc", "saturation_per_s": 100.0, "bound": ""}
    row |= {"interval_low_per_s": 90.0, "interval_high_per_s": 110.0}
    tables = {"cases": pd.DataFrame([row]), "points": pd.DataFrame([{"label": "a", "response_p99_ms": 5.0}])}
    return runs.Run(Path(), {"config": {"cases": [case]}, "pilot": pilot}, trials), tables


def test_no_two_cases_share_a_point_of_the_capacity_by_replicas() -> None:
    """Else a line joins two balancers (the client has two ways to choose), and a law is fitted to both."""
    cases = [dataclasses.asdict(case) for case in studies.grid_of("load-balancing", "full").cases]
    manifest = {"config": {"cases": cases}, "pilot": {c["name"]: {"implementation": "triton"} for c in cases}}
    known = {"saturation_per_s": 100.0, "bound": "", "interval_low_per_s": 90.0, "interval_high_per_s": 110.0}
    rows = pd.DataFrame([{"label": c["name"], "protocol": c["arm"]["protocol"], **known} for c in cases])
    points = pd.DataFrame({"label": rows["label"], "response_p99_ms": 5.0})
    found = study_topology.balancing_table(runs.Run(Path(), manifest, ()), {"cases": rows, "points": points})
    drawn = found[found["scaling"]]
    assert not drawn.duplicated(["protocol", "balancer", "replicas"]).any()
    assert {2, 4} == set(drawn.loc[drawn["balancer"] == "client, power of two", "replicas"])


def test_a_capacity_without_a_bracket_is_no_point_of_the_scalability_law() -> None:
    """A lower bound that is drawn or fitted as a value bends the law."""
    run, tables = run_of_shares([[50, 50]])
    tables["cases"]["bound"] = "≥"
    assert np.isnan(study_topology.balancing_table(run, tables)["saturation_per_s"].iloc[0])


def cases_of(name: str, profile: str) -> tuple[runs.Run, dict[str, pd.DataFrame]]:
    """A finding's cases with one made-up result for all."""
    cases = [dataclasses.asdict(case) for case in studies.grid_of(name, profile).cases]
    implementations = {c["framework"]: {"label": c["framework"]} for c in cases}
    manifest: dict[str, Any] = {"config": {"cases": cases, "model": "mlp"}, "implementations": implementations}
    manifest["pilot"] = {c["name"]: {"implementation": c["framework"]} for c in cases}
    result = {"verdict": "VALID", "response_p95_ms": 2.0, "response_p95_ms_low": 1.0, "response_p95_ms_high": 3.0}
    result |= {"bound": "", "saturation_per_s": 200.0, "interval_low_per_s": 100.0, "interval_high_per_s": 300.0}
    rows = [
        {"label": c["name"], "implementation": c["framework"], "protocol": c["arm"]["protocol"], **result}
        for c in cases
    ]
    return runs.Run(Path(), manifest, ()), {"cases": pd.DataFrame(rows)}


def test_encodings_are_drawn_against_the_size_of_the_tensor_where_it_varies() -> None:
    (picture,) = study_report.PICTURES["encodings"]
    assert picture.numbers(*cases_of("encodings", "quick")).empty
    table = picture.numbers(*cases_of("encodings", "full"))
    assert set(table["tensor_bytes"]) == {4 * 784 * batch for batch in (1, 4, 16, 64, 256, 1024, 4096)}
    assert not table.duplicated(["label", "protocol", "way", "tensor_bytes"]).any()
    (legend,) = picture.draw(table).legends
    lines = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in legend.get_lines()]
    assert len(set(lines)) == len(lines) == len(table[["protocol", "way"]].drop_duplicates())


def test_a_case_on_the_embedded_server_says_so() -> None:
    """The same case is of the real TensorFlow Serving elsewhere: a reader must see which it was."""
    assert runs.case_label("TF Serving API, REST", "tfserving-embedded") == "TF Serving API, embedded, REST"
    assert runs.case_label("TF Serving API, REST", "tfserving") == "TF Serving API, REST"
    assert runs.case_label("TorchServe, REST", "torchserve") == "TorchServe, REST"


def test_unevenness_does_not_cancel_over_replicates() -> None:
    """All on one replica, another one after each restart, is not evenly shared."""
    table = study_topology.balancing_table(*run_of_shares([[100, 0], [0, 100], [100, 0], [0, 100]]))
    assert table["jain"].iloc[0] == pytest.approx(0.5)
    assert table["shares"].iloc[0] == [400, 0]
    assert "100% / 0%" in study_topology.load_balancing(*run_of_shares([[100, 0], [0, 100]]))[0]


@pytest.mark.parametrize(
    ("gains", "told"),
    [
        ([(0, 0.4, 0.5, 0.6), (0.5, 0.9, 1.0, 1.1), (0.95, 2.0, 2.5, 3.0)], "at about 50% of repeats"),
        ([(0, 0.4, 0.5, 0.6), (0.95, 0.5, 0.6, 0.7)], "does not break even"),
        ([(0, 0.4, 0.5, 0.6), (0.95, 0.5, 0.9, 1.7)], "cannot conclude (by the ends"),
        ([(0, np.nan, 0.5, np.nan), (0.95, 0.5, 1.9, 2.7)], "Break-even: cannot conclude."),
        ([(0, np.nan, 0.5, np.nan), (0.5, 1.5, 1.9, 2.4), (0.95, 6, 8, 12)], "even: at or below 50% of repeats"),
        (
            [(0, np.nan, 0.5, np.nan), (0.5, 0.6, 1.05, 1.9), (0.95, 5, 6, 8)],
            "even at or below 50% of repeats (by the ends of the intervals: at or below 50% to 7",
        ),
    ],
)
def test_the_break_even_of_a_cache_follows_its_intervals(gains: list[tuple[float, ...]], told: str) -> None:
    rows = [{"repeat": share, "gain": Interval(value, low, high, 4, 0.01)} for share, low, value, high in gains]
    assert told in study_topology.break_even(pd.DataFrame(rows))


def replicates_of(**verdicts: str) -> pd.DataFrame:
    """Trials of two cases at one rate, ``a`` twice as slow as ``b``; a letter a replicate: V, S, or I."""
    words = {"V": "VALID", "S": "SATURATED", "I": "INVALID"}
    rows = [
        {"label": label, "replicate": r, "verdict": words[letter], "response_p95_ms": {"a": 2.0, "b": 1.0}[label] + r}
        for label, letters in verdicts.items()
        for r, letter in enumerate(letters)
    ]
    fixed: dict[str, Any] = dict.fromkeys(("block", "run_id", "framework", "implementation"), "x")
    fixed |= {"phase": "grid", "rate_per_s": 100.0, "attempt": 1, "steady": True, "protocol": "rest"}
    return pd.DataFrame(rows).assign(response_p95_ms_bound=False, **fixed)


def test_a_case_that_was_saturated_in_any_replicate_is_in_no_ratio() -> None:
    """Else the slow case is judged by the replicates that were kind to it."""
    sound = study_tables.contrasts_table(replicates_of(a="VVVV", b="VVVV"), {"a": "b"}).iloc[0]
    assert sound["replicates"] == 4
    assert sound["ratio_low"] > 1
    invalid = study_tables.contrasts_table(replicates_of(a="VVVI", b="VVVV"), {"a": "b"}).iloc[0]
    assert invalid["replicates"] == 3, "a disturbed trial says nothing of the server"
    spoiled = study_tables.contrasts_table(replicates_of(a="VVVS", b="VVVV"), {"a": "b"}).iloc[0]
    assert spoiled["replicates"] == 0
    assert spoiled["conclusion"] == "cannot conclude"
    assert "SATURATED" in spoiled["note"]


def test_a_difference_that_holms_correction_does_not_leave_is_none() -> None:
    rng = np.random.default_rng(1)
    labels = ["first", *(f"case {k}" for k in range(30))]
    rows = [
        {"label": label, "replicate": r, "response_p95_ms": float(np.exp(rng.normal(0, 0.3)))}
        for label in labels
        for r in range(6)
    ]
    fixed: dict[str, Any] = {"phase": "grid", "verdict": "VALID", "response_p95_ms_bound": False, "rate_per_s": 100.0}
    fixed |= {"attempt": 1, "steady": True}
    fixed |= {
        "block": "first",
        "run_id": "r",
        "framework": "f",
        "implementation": "i",
        "protocol": "rest",
        "steady": True,
    }
    table = study_tables.contrasts_table(pd.DataFrame(rows).assign(**fixed), dict.fromkeys(labels[1:], "first"))
    alone = (table["ratio_low"] > 1) | (table["ratio_high"] < 1)
    assert alone.sum() > 0, "by intervals alone some of thirty equal cases look different"
    assert (table["conclusion"] == "cannot conclude").all()
