"""If these fail, a table shows a percentile that LoadGen would not, or hides what a load tool said of its trial."""

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from helpers.synthetic_run import TORCHSERVE, build
from infscale.analysis.tables import Tables, tabulate
from infscale.analysis.tables.points import points_table
from infscale.analysis.tables.trials import trials_table
from infscale.records import manifest as manifests
from infscale.records import samples
from infscale.records.manifest import Reported
from infscale.records.runs import load_run

PERCENTILES = ["response_p50_ms", "response_p95_ms", "response_p99_ms"]
SHORT, LONG = 100.0, 600.0
"""Rates at which a trial of 2 s has fewer queries than a p99 needs, 662, and more."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of a run whose gRPC was driven by LoadGen, and its REST by our engine."""
    capacities = {(TORCHSERVE, "rest"): 2000.0, (TORCHSERVE, "grpc"): 2000.0}
    folder = build(tmp_path_factory.mktemp("runs"), capacities, grid=(SHORT / 2000, LONG / 2000))
    for trial in load_run(folder).trials:
        manifest = trial.manifest
        if manifest.arm.protocol == "grpc":
            manifest.arm = msgspec.structs.replace(manifest.arm, client="loadgen-server")
            manifest.generator.client = "loadgen-server"
            manifest.generator.reported = Reported(
                tool="MLPerf LoadGen 6",
                valid=False,
                unmet=["early_stopping"],
                requests=manifest.rows,
                p50_ms=1.0,
                p95_ms=2.0,
                p99_ms=3.0,
                throughput_per_s=98.5,
            )
            manifests.write(trial.path.with_suffix(".json"), manifest)
    return tabulate(load_run(folder))


def rows(table: pd.DataFrame, protocol: str, rate: float) -> pd.DataFrame:
    return table[(table["protocol"] == protocol) & (table["rate_per_s"] == rate)]


def test_a_percentile_below_the_floor_is_left_out_with_the_reason(tables: Tables) -> None:
    short = rows(tables.trials, "grpc", SHORT)
    assert (short["n"] < 662).all()
    assert short[PERCENTILES[:2]].notna().all().all()
    assert short[["response_p99_ms", "response_ok_p99_ms", "roundtrip_p99_ms"]].isna().all().all()
    assert set(short["floor_note"]) == {"p99 needs 662 queries"}
    point = rows(tables.points, "grpc", SHORT).iloc[0]
    assert np.isnan(point["response_p99_ms"])
    assert "roundtrip_p99_ms_note" in point


def test_one_above_it_stays(tables: Tables) -> None:
    long = rows(tables.trials, "grpc", LONG)
    assert (long["n"] >= 662).all()
    assert long[PERCENTILES].notna().all().all()
    assert set(long["floor_note"]) == {""}


def test_the_floor_is_loadgens_alone(tables: Tables) -> None:
    own = rows(tables.trials, "rest", SHORT)
    assert (own["n"] < 662).all()
    assert own[PERCENTILES].notna().all().all()
    assert set(own["floor_note"]) == {""}


def test_what_loadgen_says_stands_beside_ours_with_the_same_floor(tables: Tables) -> None:
    short, long = (rows(tables.trials, "grpc", rate) for rate in (SHORT, LONG))
    assert set(long["reported_p99_ms"]) == {3.0}
    assert short["reported_p99_ms"].isna().all()
    assert set(short["reported_p95_ms"]) == {2.0}
    assert set(short["reported_throughput_per_s"]) == {98.5}
    assert set(short["reported_verdict"]) == {"INVALID"}
    assert set(short["reported_unmet"]) == {"early_stopping"}
    assert set(short["reported_by"]) == {"MLPerf LoadGen 6"}
    assert set(short["verdict"]) == {"VALID"}, "its count of queries is a setting of ours"
    own = rows(tables.trials, "rest", SHORT)
    assert own["reported_p50_ms"].isna().all()
    assert set(own["reported_verdict"]) == {""}


def test_an_offline_trial_is_counted_from_its_start_to_its_last_answer(tmp_path: Path) -> None:
    """All its requests are scheduled at 0: a warm-up that is cut off would leave none of them."""
    n, duration_s = 800, 2.0
    capacities = {(TORCHSERVE, "rest"): 2000.0, (TORCHSERVE, "grpc"): 2000.0}
    folder = build(tmp_path, capacities, grid=(0.1, 0.2), lifetimes=3)
    for trial in load_run(folder).trials:
        manifest = trial.manifest
        if manifest.arm.protocol == "grpc":
            manifest.arm = msgspec.structs.replace(manifest.arm, client="loadgen-offline")
            manifest.generator.client, manifest.rows = "loadgen-offline", n
            manifests.write(trial.path.with_suffix(".json"), manifest)
            frame = samples.synthetic(np.zeros(n, np.int64), np.arange(1, n + 1) * 1_000_000)
            samples.write(trial.path, frame.assign(trial_id=manifest.trial_id))
    tables = tabulate(load_run(folder))
    offline = tables.trials[tables.trials["client"] == "loadgen-offline"]
    assert set(offline["verdict"]) == {"VALID"}
    assert set(offline["n"]) == {n}
    assert offline["achieved_per_s"].to_numpy() == pytest.approx(1000, rel=0.01), f"not {n} in {duration_s} s"
    assert offline["response_p50_ms"].to_numpy() == pytest.approx(400)
    assert set(tables.trials.loc[tables.trials["client"] == "wire", "warm_up_s"]) != {0.0}


def test_a_point_says_how_many_queries_a_trial_needs(tmp_path: Path) -> None:
    capacities = {(TORCHSERVE, "rest"): 2000.0, (TORCHSERVE, "grpc"): 2000.0}
    folder = build(tmp_path, capacities, grid=(0.02, 0.025), lifetimes=3)  # 80 queries and 100, of which 90 % count
    for trial in load_run(folder).trials:
        trial.manifest.arm = msgspec.structs.replace(trial.manifest.arm, client="loadgen-server")
        manifests.write(trial.path.with_suffix(".json"), trial.manifest)
    points = points_table(trials_table(load_run(folder)))
    assert points["response_p95_ms"].isna().all()
    assert set(points["response_p95_ms_note"]) == {
        "too few requests, or never steady (p95 needs 130 queries in a trial, by LoadGen's bound)"
    }
    assert points["response_p50_ms"].notna().all()
    assert not points["response_p50_ms_note"].str.contains("LoadGen").any()
