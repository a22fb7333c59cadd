"""If these fail, a plan names too few replicas, or passes a guess off as an answer."""

import functools
import json
import math
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from helpers.sample import sample_folder, sample_run
from infscale import cli
from infscale.analysis.planning.capacity import plan
from infscale.analysis.planning.predict import predict
from infscale.analysis.planning.validation import base_of, shared_cores, system_of, validation_table
from infscale.analysis.queueing.service import Service, of_arm
from infscale.analysis.queueing.simulate import Cache, System
from infscale.analysis.tables import Tables, tabulate
from infscale.errors import ConfigError, DataError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.slo import parse
from infscale.findings import planning
from infscale.records.runs import Run
from infscale.report.figures.arms import predictions as drawing

MEAN_S = 0.01
HELD = -np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
EXPONENTIAL = Service((MEAN_S * HELD / HELD.mean(),))
RANDOM = System(balancer="random")
BALANCING = "load-balancing"


@functools.cache
def tables_of(finding: str) -> Tables:
    return tabulate(sample_run(finding))


# --- how many replicas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "limit_ms"), [(50.0, 100), (1000.0, 100), (1000.0, 60), (20_000.0, 150)])
def test_the_number_of_replicas_is_that_of_the_theory(rate: float, limit_ms: float) -> None:
    """Replicas drawn at random are queues of their own, whose response is exponential: p99 = ln 100 ÷ (μ − λ/N)."""
    truth = math.ceil(rate / (1 / MEAN_S - math.log(100) / (limit_ms / 1e3)))
    found = plan(EXPONENTIAL, RANDOM, rate, parse(f"p99<{limit_ms}ms"))
    assert found.fewest <= truth <= found.most
    assert found.most <= math.ceil(1.02 * truth)
    assert found.per_replica_per_s == rate / found.most


def test_a_limit_within_the_interval_is_undecided() -> None:
    """A number of replicas that chance has chosen would be bought."""
    p95 = predict(EXPONENTIAL, System(10, "random"), 800).percentiles["p95"]
    found = plan(EXPONENTIAL, RANDOM, 800, parse(f"p95<{p95.value:.4f}ms"))
    assert not found.decided
    assert found.fewest <= 10 < found.most


def test_lifetimes_that_differ_make_intervals_wider() -> None:
    """Restarts of a server that differ by a third say more about another one than a million simulated requests."""
    lives = [factor * EXPONENTIAL.held for factor in (0.8, 0.9, 1.0, 1.1, 1.2)]
    alike, different = Service(tuple([EXPONENTIAL.held] * 5)), Service(tuple(lives))
    narrow, wide = (predict(one, System(2), 100, requests=100_000).percentiles["p95"] for one in (alike, different))
    assert math.log(wide.high / wide.low) > 3 * math.log(narrow.high / narrow.low)
    assert wide.value == pytest.approx(narrow.value, rel=0.1)


def test_a_plan_has_its_cost_and_its_cores() -> None:
    service = Service(EXPONENTIAL.parts, server_cpu_s=0.002)
    found = plan(service, RANDOM, 1000, parse("p99<100ms"), price_per_hour=0.36)
    assert found.per_million == pytest.approx(found.most * 0.36 / 3600 / 1000 * 1e6)
    assert found.cpu_cores == pytest.approx(2.0)
    assert math.isnan(plan(EXPONENTIAL, RANDOM, 100, parse("p99<100ms")).per_million)


def test_a_cache_and_a_better_balancer_need_fewer_replicas() -> None:
    slo = parse("p99<100ms")
    drawn, two = (plan(EXPONENTIAL, System(balancer=name), 1000, slo).most for name in ("random", "power-of-two"))
    cached = plan(EXPONENTIAL, System(balancer="random", cache=Cache(share=0.5)), 1000, slo).most
    assert two < drawn
    assert cached <= drawn / 2 + 1


@pytest.mark.parametrize(
    ("system", "rate", "slo", "message"),
    [
        (RANDOM, 100.0, "p50<5ms", "a request that waits for nothing has p50 6.93 ms, so that no number of replicas"),
        (System(cores=4), 400.0, "p95<1s", "beyond every capacity: 4 shared cores can compute 400 requests/s, however"),
        (RANDOM, 1e9, "p95<40ms", "beyond every capacity: not kept by 100000 replicas with balancer='random'"),
        (System(balancer="l4", connections=4), 1e3, "p95<40ms", "not kept by 4 replicas .* or more connections"),
        (RANDOM, 0.0, "p95<40ms", "rate_per_s=0.0 is not an arrival rate"),
    ],
)
def test_what_no_number_of_replicas_can_do_is_refused_with_the_reason(
    system: System, rate: float, slo: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(EXPONENTIAL, system, rate, parse(slo))


def test_service_times_too_few_for_the_percentile_are_refused() -> None:
    few = Service((EXPONENTIAL.held[:200],), source="a server")
    with pytest.raises(DataError, match=r"a server: 200 requests .* too few to simulate p99; needed: 500"):
        plan(few, RANDOM, 1.0, parse("p99<1s"))


# --- service times from rows ------------------------------------------------------------------------------


def test_what_a_worker_holds_is_told_from_what_passes_beside() -> None:
    """Were the network's time held against the worker, a plan would buy replicas for it."""
    run = sample_run(BALANCING)
    service = of_arm(run, 0)
    rate = float(tables_of(BALANCING).summary["saturation_per_s"].iloc[0])
    assert 1 / service.mean_s == pytest.approx(rate, rel=0.2), "λ* of the same server, from other trials"
    assert 0 < service.beside_s < service.mean_s
    assert (service.workers, service.note, len(service.parts)) == (1, "", 7)
    assert service.computes
    assert service.server_cpu_s > service.mean_s, "the server's other threads compute, too"


@pytest.mark.parametrize(("arm", "message"), [(1, "one replica"), (5, "one replica")])
def test_an_arm_with_several_replicas_has_no_service_times(arm: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        of_arm(sample_run(BALANCING), arm)


def test_a_run_of_few_requests_is_refused_with_the_least_number(monkeypatch: pytest.MonkeyPatch) -> None:
    run = sample_run(BALANCING)
    light = [t for t in run.trials if t.manifest.arm_number == 0 and t.manifest.phase == "grid"][:1]
    for trial in light:
        rows = trial.samples().iloc[:80]
        monkeypatch.setattr(type(trial), "samples", lambda _, columns=None, rows=rows: rows)
    with pytest.raises(DataError, match=r"too few to simulate from; needed: 100"):
        of_arm(Run(run.folder, run.manifest, tuple(light)), 0)


def test_the_hits_of_a_measured_cache_are_told_from_its_misses() -> None:
    """A plan for misses alone would buy servers for requests that never reach them."""
    run = sample_run("caching")
    without, cached = (of_arm(run, run.labels.index(label)) for label in ("no cache", "gateway, 75 % repeats"))
    assert (without.hit_share, without.hit_s) == (0, 0)
    assert cached.hit_share == pytest.approx(0.75, abs=0.03)
    assert 0 < cached.hit_s == cached.beside_s
    assert cached.mean_s > 0


# --- predicted against measured -----------------------------------------------------------------------------


def test_the_arms_behind_balancers_are_predicted_from_the_one_replica() -> None:
    table = validation_table(sample_run(BALANCING), tables_of(BALANCING))
    assert set(table["arm"]) == {0, 1, 2, 3, 4}, "the one that is simulated slow is none"
    assert table["own"].sum() == 1
    own = table[table["own"]].iloc[0]
    assert own["ratio"] == pytest.approx(1, abs=0.15), "what was measured, simulated again"
    assert (table["cores"] < 2).all(), "a model that computes shares the machine's cores with the client"
    assert set(table.loc[~table["hop"], "arm"]) == {1, 2, 3}


def test_one_replica_behind_a_balancer_is_preferred_since_its_hop_is_in_it() -> None:
    run = sample_run("planning")
    arms = run.manifest.design.arms
    for arm in arms:
        base = base_of(run, arm)
        assert base is not None
        assert (arms[base].replicas, arms[base].framework, arms[base].model) == (1, arm.framework, arm.model)
    assert base_of(run, msgspec.structs.replace(arms[0], model="mlp")) is None
    assert base_of(run, Arm("grpc", framework="triton")) is None


def test_a_model_that_waits_has_a_device_for_each_replica_and_one_that_computes_shares_cores() -> None:
    waits = Service(EXPONENTIAL.parts, server_cpu_s=0.001, other_cpu_s=0.0002)
    computes = Service(EXPONENTIAL.parts, server_cpu_s=0.012, other_cpu_s=0.001)
    assert shared_cores(waits, 2, 50) is None
    assert shared_cores(computes, 2, 50) == pytest.approx(2 - 50 * 0.003)
    l4 = Arm("grpc", framework="triton", front="balanced", replicas=2, balancer="envoy-l4")
    assert system_of(l4, None).balancer == "round-robin", "the engine's streams go round its eight connections"
    assert system_of(msgspec.structs.replace(l4, connections=1), None).balancer == "l4"


def test_every_sentence_has_its_numbers_and_every_miss_its_reason() -> None:
    run, tables = sample_run("planning"), tables_of("planning")
    table, sentences = planning.predictions(run, tables), planning.answer(run, tables)
    missed = table[~table["within"] & ~table["own"]]
    counted = planning.lead(run, tables)
    assert len(counted) == table[~table["own"]].groupby(["framework", "model"]).ngroups
    assert sum("; " in text and " predicted " in text for text in sentences) >= len(missed)
    assert any("share the machine's cores, and are simulated so" in text for text in sentences)
    assert any("a device for each replica" in text for text in sentences)


def test_a_prediction_that_is_not_known_leaves_the_figure_to_the_others() -> None:
    """Its interval from 0 to infinity stretched the axis, so that most points of the report's figure were beyond it."""
    table = planning.predictions(sample_run("planning"), tables_of("planning"))
    assert table["predicted_ms_low"].isna().any(), "one is at a utilisation of 96 %"
    low, high = drawing.draw(table).axes[0].get_xlim()
    shown = table[["measured_ms", "predicted_ms"]].to_numpy(float)
    assert low < shown.min() < shown.max() < high
    assert any("the simulation does not know it" in planning._reason(row) for _, row in table.iterrows())


def test_without_predictions_that_is_said() -> None:
    assert planning._counted(pd.DataFrame()) == [
        "No arm could be predicted: that needs VALID trials of one replica, and of several."
    ]


# --- the command --------------------------------------------------------------------------------------------


def command(*arguments: str, arm: str = "1 replica") -> int:
    folder = str(sample_folder(BALANCING))
    return cli.main(["plan", "capacity", "--run", folder, "--arm", arm, *arguments])


def test_the_command_says_how_many_replicas_and_what_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--rate", "4000", "--slo", "p95<5ms", "--balancer", "random", "round-robin", "--price", "1") == 0
    shown = capsys.readouterr().out
    assert "Service times of 1 replica at 433 requests/s" in shown
    assert "Simulated, for 4000 requests/s and p95<5ms" in shown
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith(("random ", "round-robin "))}
    assert set(lines) == {"random", "round-robin"}
    assert shown.count(" p95<5ms.") + shown.count("undecided between") >= 2


def test_json_has_keys_with_units_and_says_what_is_undecided(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        command("--rate", "3000", "--slo", "p95<20ms", "--balancer", "least-requests", "--hits", "50%", "--json") == 0
    )
    result = json.loads(capsys.readouterr().out)
    (one,) = result["plans"]
    assert result["simulated"] is True
    assert one["decided"] is (one["replicas"] is not None)
    assert one["replicas_fewest"] <= one["replicas_most"]
    assert one["p95_ms"][1] <= one["p95_ms"][0] <= one["p95_ms"][2] <= 20
    assert one["p99.9_ms"] is None, "2,191 requests are too few for it"
    assert one["hit_share"] == pytest.approx(0.5, abs=0.01)
    assert one["cost_per_million"] is None


@pytest.mark.parametrize(
    ("arguments", "arm", "message"),
    [
        (["--rate", "100", "--slo", "p95<5ms"], "9 replicas", "--arm '9 replicas' names none of them in the run"),
        (["--rate", "100", "--slo", "95<5ms"], "0", "--slo='95<5ms' is no limit of a percentile"),
        (["--rate", "100", "--slo", "p95<5ms", "--balancer", "best"], "0", "--balancer='best' is not known"),
        (["--rate", "100", "--slo", "p95<0.1ms"], "0", "slo=p95<0.1ms: a request that waits for nothing has p95"),
        (["--rate", "9000", "--slo", "p95<50ms", "--cores", "2"], "0", "beyond every capacity: 2 shared cores"),
        (["--rate", "1", "--slo", "p95<5ms", "--items", "9"], "0", "items=9 need a cache that holds some"),
        (["--rate", "0", "--slo", "p95<5ms"], "0", "--rate '0' cannot be used"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], arm: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments, arm=arm) == 1
    shown: Any = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
