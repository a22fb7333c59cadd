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
