"""What single findings say beyond a sentence for each arm: if these fail, advice rests on the wrong comparison."""

import msgspec
import numpy as np
import pandas as pd
import pytest

from helpers.sample import sample_run
from helpers.tables import searched
from infscale.analysis.intervals import Interval
from infscale.deployment.fronts import staleness
from infscale.findings import FINDINGS, caching, load_balancing, utilisation
from infscale.findings.caching import Gain
from infscale.records.gate import INVALID
from infscale.report.figures.arms.sizes import SIZES

# --- hybrid, network, client stacks -------------------------------------------------------------------


def test_an_edge_is_compared_with_both_direct_ways_and_its_own_cpu_is_named() -> None:
    """An edge looks free beside the server alone, and slow beside gRPC alone."""
    speeds = {("edge", "rest"): 4.0, ("", "grpc"): 1.0, ("", "rest"): 2.0}
    run, tables = searched(
        FINDINGS["hybrid"].design("quick"),
        lambda arm: 1000 / speeds[arm.front, arm.protocol],
        lambda arm: speeds[arm.front, arm.protocol],
    )
    json, binary = FINDINGS["hybrid"].answer(run, tables)[:2]
    for sentence, name in ((json, "edge, JSON"), (binary, "edge, binary")):
        assert sentence.startswith(f"{name}: its p95 response time is 2.0")
        assert " times that of direct REST with JSON (95 % interval" in sentence
        assert "), and its saturation rate is 0.500 times that of direct REST with JSON (95 %" in sentence
        assert "); its p95 response time is 4.0" in sentence
        assert "), and its saturation rate is 0.250 times that of direct gRPC (95 % interval" in sentence
        assert "). A request takes 100 [100, 100] µs of the edge's CPU beside 100 [100, 100] µs" in sentence


@pytest.mark.parametrize(("factor", "words"), [(2.0, "gRPC is slower"), (0.5, "gRPC is faster")])
def test_a_link_says_which_is_slower_as_the_data_do(factor: float, words: str) -> None:
    """One direction on every link would be the opinion of the program."""
    finding = FINDINGS["network"]
    run, tables = searched(
        finding.design("quick"), p95_ms=lambda arm: 5.0 * (factor if arm.protocol == "grpc" else 1.0)
    )
    sentences = finding.answer(run, tables)[:3]
    subjects = [sentence.partition(":")[0] for sentence in sentences]
    assert subjects == ["loopback", "100 Mb/s", "loopback, TLS"]
    assert all(f": {words} than REST with JSON: its p95 response time is " in sentence for sentence in sentences)
    assert all("; gRPC and REST with JSON are equal within 15 % in λ* (" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("requests_ms", "grpcio_ms", "words"),
    [
        (8.0, 2.0, "the libraries move the gap in favour of gRPC"),
        (2.0, 8.0, "the libraries move the gap in favour of REST"),
        (3.0, 3.0, "cannot conclude whether the libraries move the gap"),
    ],
)
def test_the_part_of_the_libraries_turns_with_the_data(requests_ms: float, grpcio_ms: float, words: str) -> None:
    """Which library costs more decides whether a protocol is praised for its client."""
    times = {"wire": 1.0, "requests": requests_ms, "grpcio": grpcio_ms}
    finding = FINDINGS["client-stacks"]
    run, tables = searched(finding.design("quick"), p95_ms=lambda arm: times[arm.client])
    assert words in finding.answer(run, tables)[0]


def test_a_library_that_could_not_be_measured_leaves_its_part_undecided() -> None:
    """Without grpcio there is no gap of the libraries to compare."""
    finding = FINDINGS["client-stacks"]
    run, tables = searched(finding.design("quick"), left_out=[3])
    sentence = finding.answer(run, tables)[0]
    unmeasured = "the p95 response time of REST cannot be compared with that of gRPC (one of them was not measured)"
    assert f": through the libraries {unmeasured}; through the wire engine it is 1.0" in sentence
    assert " times that of gRPC (95 % interval" in sentence
    assert "cannot conclude how much of the gap is the libraries'" in sentence
    assert "gRPC through grpcio n/a" in sentence


# --- caching ------------------------------------------------------------------------------------------


def test_every_cached_arm_with_repeats_is_in_the_gain() -> None:
    """A fraction that a selection misses is a break-even at another place."""
    for profile in ("tiny", "quick", "full"):
        run, tables = searched(FINDINGS["caching"].design(profile))
        cached = {
            number
            for number, arm in enumerate(run.manifest.design.arms)
            if (arm.cache or arm.front == "cache") and arm.repeat is not None
        }
        groups = caching.gains(run, tables)
        assert {gain.arm for group in groups.values() for gain in group} == cached
        for (without, _), group in groups.items():
            assert all(gain.without == without for gain in group)
            assert [gain.repeat for gain in group] == sorted(gain.repeat for gain in group)
            arms = run.manifest.design.arms
            assert all(arms[gain.arm].model == arms[without].model for gain in group)
        numbers = caching.gain_numbers(run, tables)
        assert len(numbers) == len(cached)
        assert numbers["panel"].nunique() == len({without for without, _ in groups})


def test_the_gain_of_a_cache_is_its_capacity_over_that_without() -> None:
    """And what it costs where nothing repeats stands beside it."""
    run, tables = searched(
        FINDINGS["caching"].design("quick"), lambda arm: 1000 * (0.8 + (arm.repeat or 0) if arm.front else 1)
    )
    sentence = FINDINGS["caching"].answer(run, tables)[0]
    assert sentence.startswith("cache in a gateway: at 0 % repeats (hit ratio 0) the saturation rate is 0.800")
    assert "at 75 % repeats (hit ratio 0.750) the saturation rate is 1.55" in sentence
    assert " times that without a cache (95 % interval " in sentence
    assert ". Break-even at about " in sentence
    assert "Where nothing repeats, the p95 response time is 1.00 times that without a cache (95 %" in sentence
    assert "), and the gateway takes 100 [100, 100] µs of its CPU a request and 100 MB of memory." in sentence


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        (
            [(0, 0.4, 0.5, 0.6), (0.5, 0.9, 1.0, 1.1), (0.95, 2.0, 2.5, 3.0)],
            "Break-even at about 50 % repeats: by the 95 % intervals the cache loses below 44 %, and gains above 58 %.",
        ),
        (
            [(0, 0.4, 0.5, 1.1), (0.5, 0.8, 1.2, 1.5)],
            "Break-even at about 43 % repeats: by the 95 % intervals the cache is not certain to lose anywhere, and "
            "is not certain to gain at any that was tried.",
        ),
        (
            [(0, np.nan, 0.5, np.nan), (0.25, 0.4, 0.5, 1.1), (0.5, 1.1, 1.2, 1.5)],
            "Break-even at about 46 % repeats: by the 95 % intervals the cache is not certain to lose anywhere, and "
            "gains above 49 %.",
        ),
        (
            [(0, 0.4, 0.5, 0.6), (0.95, 0.5, 0.6, 0.7)],
            "Break-even: never; the cache loses at every fraction of repeats that was tried.",
        ),
        (
            [(0, 0.4, 0.5, 0.6), (0.95, 0.5, 0.9, 1.7)],
            "Break-even beyond what was tried: by the 95 % intervals the cache loses below 59 %, and is not certain "
            "to gain at any that was tried.",
        ),
        (
            [(0, np.nan, 0.5, np.nan), (0.95, 0.5, 1.9, 2.7)],
            "Break-even unknown: fewer than two fractions of repeats could be judged.",
        ),
        (
            [(0, np.nan, 0.5, np.nan), (0.5, 1.5, 1.9, 2.4), (0.95, 6, 8, 12)],
            "Break-even: none; the cache gains at 50 % repeats, the lowest that could be judged, and above.",
        ),
        (
            [(0, np.nan, 0.5, np.nan), (0.5, 0.6, 1.05, 1.9), (0.95, 5, 6, 8)],
            "Break-even at or below 50 % repeats, the lowest that could be judged: by the 95 % intervals the cache is "
            "not certain to lose anywhere, and gains above 7",
        ),
    ],
)
def test_the_break_even_of_a_cache_follows_its_intervals(gains: list[tuple[float, ...]], words: str) -> None:
    """A point estimate alone would sell a cache that may lose."""
    group = [Gain(1, 0, repeat, repeat, Interval(value, low, high, 4, 0.01)) for repeat, low, value, high in gains]
    assert caching.break_even(group).startswith(words)


def test_stale_answers_are_told_by_what_the_gateway_knew() -> None:
    """With the counts of the committed run: a reader must know which key, and what the gateway had noticed."""
    run, tables = searched(FINDINGS["caching"].design("tiny"))
    run.manifest.staleness = sample_run("caching").manifest.staleness
    assert set(run.manifest.staleness) == {staleness.UNNOTICED, staleness.NOTICED, staleness.UNVERSIONED}
    sentence = "After a model swap behind a warm cache, 16 of 16 answers were the old model's "
    sentences = FINDINGS["caching"].answer(run, tables)
    assert f"{sentence}when the model version is not part of the cache key." in sentences
    assert f"{sentence}before the gateway had noticed the new version." in sentences


# --- load balancing -----------------------------------------------------------------------------------


def with_shares(each: list[list[float]], slow_ms: float = 0.0) -> tuple[pd.DataFrame, list[str]]:
    """The table and the sentences of one arm whose replicas answered these shares, a list for each of 4 lifetimes."""
    design = load_balancing.FINDING.design("tiny")
    arm = msgspec.structs.replace(design.arms[1], slow_ms=slow_ms)
    run, tables = searched(msgspec.structs.replace(design, arms=(arm,), contrasts=()))
    for trial in run.trials:
        trial.manifest.shares = [*each[trial.manifest.lifetime % len(each)]]
    return load_balancing.balancing_table(run, tables), load_balancing.FINDING.answer(run, tables)


def test_unevenness_does_not_cancel_over_lifetimes() -> None:
    """All on one replica, another one after each restart, is not evenly shared."""
    table, sentences = with_shares([[100, 0], [0, 100], [100, 0], [0, 100]])
    assert table["jain"].iloc[0] == pytest.approx(0.5)
    assert table["shares"].iloc[0] == [800, 0], "at both rates of moderate load"
    assert "answered 100 % / 0 % of the requests" in sentences[0]


def test_the_slow_replica_keeps_its_place() -> None:
    """Sorted by load, a reader could not see that the slow one got less."""
    table, _ = with_shares([[20, 80], [30, 70]], slow_ms=20.0)
    assert table["shares"].iloc[0] == [200, 600]


def test_no_two_arms_share_a_point_of_the_saturation_rate_by_replicas() -> None:
    """Else a line joins two balancers (the client has two ways to choose), and a law is fitted to both."""
    run, tables = searched(load_balancing.FINDING.design("full"))
    table = load_balancing.balancing_table(run, tables)
    assert len(table) == len(run.manifest.design.arms)
    drawn = table[table["scaling"]]
    assert not drawn.duplicated(["protocol", "balancer", "replicas"]).any()
    assert {2, 4} == set(drawn.loc[drawn["balancer"] == "client, power of two", "replicas"])
    laws = [s for s in load_balancing.FINDING.answer(run, tables) if "Universal Scalability Law" in s]
    assert len(laws) == 2 * len(load_balancing.BALANCERS)
    assert all("contention (the share of the work that replicas cannot do at the same time) is" in law for law in laws)
    assert all(law.endswith("(fitted to only 3 points, so it has no error estimate).") for law in laws)


def test_a_saturation_rate_without_a_bracket_is_no_point_of_the_scalability_law() -> None:
    """A lower bound that is drawn or fitted as a value bends the law."""
    run, tables = searched(load_balancing.FINDING.design("tiny"))
    tables.summary["bound"] = "≥"
    assert load_balancing.balancing_table(run, tables)["saturation_per_s"].isna().all()


def test_shares_of_a_disturbed_trial_do_not_count() -> None:
    """What a generator that stumbled sent says nothing of the balancer."""
    run, tables = searched(load_balancing.FINDING.design("tiny"))
    grid = tables.trials["phase"] == "grid"
    tables.trials.loc[grid & (tables.trials["lifetime"] > 0), "verdict"] = INVALID
    shares = load_balancing.balancing_table(run, tables).set_index("arm")["shares"]
    assert shares.loc[1] == [200, 200]


# --- utilisation, porting, encodings ------------------------------------------------------------------


def test_the_cost_of_a_deployment_leaves_the_client_out() -> None:
    """The load generator is not what a user rents."""
    run, tables = searched(FINDINGS["utilisation"].design("quick"), lambda arm: 500.0)
    table = utilisation.costs_table(tables, price_per_hour=3.6)
    assert list(table["arm"]) == run.measured
    assert table["cpu_us_per_request"].to_numpy() == pytest.approx(100.0)
    assert table["per_core"].to_numpy() == pytest.approx(1e4)
    assert table["cost_per_million"].to_numpy() == pytest.approx(2.0, rel=0.01)


def test_the_cost_has_the_interval_of_the_saturation_rate() -> None:
    """More requests for the same hour cost less each: the ends change places."""
    run, tables = searched(FINDINGS["utilisation"].design("quick"), lambda arm: 500.0)
    tables.summary["low_per_s"], tables.summary["high_per_s"] = 250.0, 1000.0
    table = utilisation.costs_table(tables, price_per_hour=3.6)
    assert table["cost_low"].to_numpy() == pytest.approx(1.0)
    assert table["cost_high"].to_numpy() == pytest.approx(4.0)
    assert "[0.0278, 0.111]" in FINDINGS["utilisation"].lead(run, tables)[1]


def test_a_saturation_rate_without_a_bracket_has_no_price() -> None:
    """A lower bound of λ* is an upper one of the price."""
    _, tables = searched(FINDINGS["utilisation"].design("quick"))
    tables.summary["bound"] = "≥"
    assert utilisation.costs_table(tables)["cost_per_million"].isna().all()


def test_a_run_whose_processes_were_not_watched_has_no_costs() -> None:
    """And does not end in an error: the other sentences stand."""
    run, tables = searched(FINDINGS["utilisation"].design("quick"), usage=False)
    assert utilisation.costs_table(tables).empty
    assert len(FINDINGS["utilisation"].answer(run, tables)) == len(run.measured)


@pytest.mark.parametrize(("difference", "words"), [(1e-7, "answer alike"), (1e-3, "do not answer alike")])
def test_ported_weights_that_answer_otherwise_are_said_to(difference: float, words: str) -> None:
    """A fast server that computes something else is no port."""
    run, tables = searched(FINDINGS["porting"].design("quick"))
    run.manifest.pilot[2].differences = {"grpc raw": difference}
    assert f"The same weights {words} (accepted: 1e-05)" in FINDINGS["porting"].answer(run, tables)[0]


def test_encodings_are_drawn_against_the_size_of_the_tensor_where_it_varies() -> None:
    """Two arms at one point of a line, or an encoding that shares the look of another, cannot be read."""
    assert SIZES.numbers(*searched(FINDINGS["encodings"].design("quick"))).empty
    table = SIZES.numbers(*searched(FINDINGS["encodings"].design("full")))
    assert set(table["tensor_bytes"]) == {4 * 784 * batch for batch in (1, 4, 16, 64, 256, 1024, 4096)}
    assert not table.duplicated(["system", "protocol", "way", "tensor_bytes"]).any()
    (legend,) = SIZES.draw(table).legends
    lines = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in legend.get_lines()]
    assert len(set(lines)) == len(lines) == len(table[["protocol", "way"]].drop_duplicates())
