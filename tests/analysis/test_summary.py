"""Tables: percentiles of censored times, intervals over replicates, λ*, ratios; runs as they lie on disk."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers.synthetic_run import GRPC_FASTER, TFSERVING, TORCHSERVE, build
from infscale.analysis.intervals import geometric_mean, holm
from infscale.analysis.percentiles import Times
from infscale.analysis.tables import summary
from infscale.analysis.tables.saturation import arms_table, saturation_interval
from infscale.analysis.tables.trials import METRICS, measures, trials_table, used, with_warm_up
from infscale.errors import DataError
from infscale.records import runs, samples
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.manifest import write_json

Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tables(path: Path) -> Tables:
    return summary.summarise(runs.load_run(path))


def rows_of(**changes: Any) -> pd.DataFrame:
    """Trials of one arm and its pair as ``trials_table`` gives them: 3 replicates at 3 rates, all VALID."""
    base = {
        "run_id": "r",
        "framework": "torchserve",
        "implementation": TORCHSERVE,
        "label": "TorchServe",
        "phase": "grid",
        "attempt": 1,
        "verdict": VALID,
        "reasons": "",
        "encoding": "json",
        "connections": 8,
        "n": 1000,
        "failed": 0,
        "engine_cpu_us_per_request": 50.0,
        "lag_p50_ms": 0.1,
        "lag_p99_ms": 0.2,
        "steady": True,
        "slo_passed": True,
        "dispersion_difference": 0.01,
        "gaps_distance": 0.02,
        "response_mean_ms": 1.5,
    }
    rows = []
    for protocol in ("rest", "grpc"):
        for rate in (100.0, 200.0, 400.0):
            for replicate in range(3):
                row: dict[str, Any] = base | {"protocol": protocol, "rate_per_s": rate, "replicate": replicate}
                row |= dict.fromkeys(("offered_per_s", "achieved_per_s", "goodput_per_s"), rate)
                for name in METRICS:
                    row |= {name: 2.0 + 0.1 * replicate, f"{name}_bound": False}
                rows.append(row | changes)
    return pd.DataFrame(rows)


def put(trials: pd.DataFrame, where: str, **values: Any) -> pd.DataFrame:
    """The trials with some values changed in the rows that a query selects."""
    changed = trials.copy()
    index = changed.query(where).index
    assert len(index)
    for name, value in values.items():
        changed.loc[index, name] = value
    return changed


def row_of(table: pd.DataFrame, **where: Any) -> Any:
    """The only row in which these columns have these values."""
    chosen = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    assert len(chosen) == 1
    return chosen.iloc[0]


# --- percentiles --------------------------------------------------------------------------------------

times = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)
levels = st.sampled_from([0.5, 0.95, 0.99])


@given(times, levels)
def test_percentiles_of_finite_times_are_numpys_order_statistics(values: list[float], p: float) -> None:
    # The headline numbers of every figure: one rank off is another number.
    found = Times(values).percentile(p)
    if len(values) * (1 - p) < 1 - 1e-9:
        assert np.isnan(found.value)
    else:
        assert found.value == np.quantile(values, p, method="inverted_cdf")
        assert not found.bound


@given(times, st.integers(0, 50), st.integers(0, 50), levels)
def test_failures_only_ever_raise_a_percentile(values: list[float], timeouts: int, failures: int, p: float) -> None:
    # A server that drops its slowest requests must not look faster than one that serves them.
    all_served = Times([*values, *[2e6] * (timeouts + failures)]).percentile(p)
    dropped = Times(values, timeouts, failures, limit=2e6).percentile(p)
    assert dropped.value >= all_served.value or np.isnan(all_served.value)
    assert np.isnan(dropped.value) == np.isnan(all_served.value)


@pytest.mark.parametrize(
    ("ok", "timeouts", "failures", "value", "bound"),
    [(100, 0, 0, 1.0, False), (90, 10, 0, 3000.0, True), (90, 0, 10, np.inf, True), (0, 100, 0, 3000.0, True)],
)
def test_a_percentile_among_failures_is_a_bound(
    ok: int, timeouts: int, failures: int, value: float, bound: bool
) -> None:
    # A censored value taken for an estimate would be averaged, and given an interval.
    found = Times(np.ones(ok), timeouts, failures, limit=3000.0).percentile(0.95)
    assert (found.value, found.bound) == (value, bound)


@pytest.mark.parametrize(("n", "withheld"), [(99, True), (100, False)])
def test_a_percentile_that_n_cannot_carry_is_withheld(n: int, withheld: bool) -> None:
    # The p99 of 50 requests is their maximum: a number about nothing.
    assert np.isnan(Times(np.ones(n)).percentile(0.99).value) == withheld


def test_the_first_tenth_is_left_out_of_percentiles_and_rates() -> None:
    # Cold caches and empty queues at the start would pull every percentile.
    scheduled = np.arange(1000) * 1_000_000
    frame = samples.synthetic(scheduled, np.where(scheduled < 100_000_000, 90_000_000, 2_000_000))
    found = measures(frame, 1.0, 3.0, slo_ms=1.0)
    assert (found["n"], found["response_p99_ms"], found["goodput_per_s"]) == (900, 2.0, 0.0)
    assert found["achieved_per_s"] == pytest.approx(1000, rel=0.12)


def test_goodput_counts_successes_within_the_limit_only() -> None:
    # Fast errors would be the best goodput of all.
    scheduled = np.arange(1000) * 1_000_000
    status = np.where(np.arange(1000) % 2, "http_503", "ok")
    found = measures(samples.synthetic(scheduled, np.full(1000, 100_000), status=status), 1.0, 3.0, slo_ms=50.0)
    assert found["goodput_per_s"] == pytest.approx(500, rel=0.01)
    assert found["response_p99_ms"] == np.inf
    assert found["response_ok_p99_ms"] == pytest.approx(0.1)


def test_round_trips_do_not_hide_the_wait_in_the_response_time() -> None:
    # Coordinated omission: measured from sending, a generator that waits makes every server fast.
    scheduled = np.arange(1000) * 1_000_000
    found = measures(samples.synthetic(scheduled, np.full(1000, 9_000_000), wait_ns=7_000_000), 1.0, 3.0, 100.0)
    assert (found["response_p50_ms"], found["roundtrip_p50_ms"], found["wait_p99_ms"]) == (9.0, 2.0, 7.0)


# --- intervals ----------------------------------------------------------------------------------------


def test_intervals_cover_the_truth_95_times_in_100() -> None:
    # Too narrow, and the paper's differences are noise.
    rng = np.random.default_rng(3)
    found = [geometric_mean(np.exp(rng.normal(1, 0.3, 4))) for _ in range(2000)]
    covered = sum(f.low <= np.exp(1) <= f.high for f in found)
    assert stats.binom.ppf(0.005, 2000, 0.95) <= covered <= stats.binom.ppf(0.995, 2000, 0.95)


@pytest.mark.parametrize(
    ("n", "known", "exploratory"),
    [(1, False, False), (2, False, False), (3, True, True), (4, True, True), (5, True, False)],
)
def test_few_replicates_get_no_interval_or_a_warning(n: int, known: bool, exploratory: bool) -> None:
    # Two runs have an interval by formula, and it says nothing.
    found = geometric_mean(np.linspace(1, 2, n))
    assert (np.isfinite(found.low), found.exploratory) == (known, exploratory)


def test_equal_replicates_do_not_divide_by_zero() -> None:
    # Constant synthetic data would crash the summary of a whole run.
    found = geometric_mean([2.0, 2.0, 2.0])
    assert (found.low, found.high, found.p_value) == pytest.approx((2.0, 2.0, 0.0))


def test_holm_by_its_published_rule() -> None:
    # Uncorrected, one figure of 18 ratios finds a difference by chance more often than not.
    assert holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)


# --- points, arms, shares, ratios ---------------------------------------------------------------------


def test_a_saturated_replicate_makes_the_point_a_bound() -> None:
    # Leaving it out would keep the lucky replicates only.
    trials = put(rows_of(), "rate_per_s == 400 and protocol == 'rest' and replicate == 1", verdict=SATURATED)
    points = summary.points_table(trials)
    point = row_of(points, protocol="rest", rate_per_s=400.0)
    assert (point["verdict"], point["replicates"], point["response_p95_ms_bound"]) == (SATURATED, 3, True)
    assert np.isnan(point["response_p95_ms_low"])
    assert row_of(points, protocol="grpc", rate_per_s=400.0)["verdict"] == VALID


def test_a_censored_replicate_makes_the_point_a_bound() -> None:
    # The mean of two times and a timeout is not an estimate of anything.
    trials = put(rows_of(), "rate_per_s == 400 and replicate == 1", response_p99_ms=3000.0, response_p99_ms_bound=True)
    point = summary.points_table(trials).query("rate_per_s == 400").iloc[0]
    assert point["response_p99_ms_bound"]
    assert np.isnan(point["response_p99_ms_low"])
    assert np.isfinite(point["response_p95_ms_low"])


def test_an_invalid_replicate_is_left_out_and_counted() -> None:
    # The generator's trouble would enter the server's percentile.
    trials = put(rows_of(), "rate_per_s == 400 and replicate == 1", verdict=INVALID, response_p95_ms=500.0)
    point = summary.points_table(trials).query("rate_per_s == 400").iloc[0]
    assert (point["verdict"], point["replicates"], point["invalid"]) == (VALID, 2, 1)
    assert point["response_p95_ms"] < 3


def test_a_repeated_trial_replaces_the_invalid_one() -> None:
    # Without the repeat the point loses a replicate although it was measured.
    first = put(rows_of(), "rate_per_s == 100 and replicate == 0", verdict=INVALID, reasons="lag")
    trials = pd.concat([first, first[first["verdict"] == INVALID].assign(attempt=2, verdict=VALID)], ignore_index=True)
    assert (used(trials)["verdict"] == VALID).all()
    assert len(used(trials)) == 18
    point = summary.points_table(trials).query("rate_per_s == 100").iloc[0]
    assert (point["replicates"], point["valid"], point["invalid"]) == (3, 3, 1)


def test_the_bracket_of_the_saturation_rate() -> None:
    # λ* is the second headline.
    trials = put(rows_of(), "rate_per_s == 400 and protocol == 'rest'", verdict=SATURATED)
    arms = arms_table(trials).set_index("protocol")
    rest, grpc = arms.loc["rest"], arms.loc["grpc"]
    assert (rest["low_per_s"], rest["high_per_s"], rest["bound"]) == (200, 400, "")
    assert rest["saturation_per_s"] == pytest.approx(np.sqrt(200 * 400))
    assert (grpc["saturation_per_s"], grpc["bound"]) == (400, "≥")


def test_a_bracket_without_a_lower_end_says_so() -> None:
    # "λ* = 100" would be read as an estimate.
    arms = arms_table(rows_of(verdict=SATURATED)).set_index("protocol")
    assert (arms.loc["rest", "bound"], arms.loc["rest", "saturation_per_s"]) == ("<", 100)


def test_mixed_verdicts_widen_what_two_arms_are_told_apart_by() -> None:
    # One false alarm at a low rate would decide which protocol saturates first.
    one = put(rows_of(), "rate_per_s == 100 and protocol == 'rest' and replicate == 0", verdict=SATURATED)
    arm = arms_table(put(one, "rate_per_s == 400", verdict=SATURATED)).set_index("protocol").loc["rest"]
    assert (arm["low_per_s"], arm["high_per_s"], arm["settled_per_s"]) == (200, 400, 400)
    assert arm["contradictions"] == 1


def test_a_step_that_verdicts_do_not_place_widens_the_bracket() -> None:
    # Where one replicate of two saturates, λ* may lie on either side: a narrow bracket would be made up.
    two = rows_of().query("replicate < 2")
    half = put(two, "rate_per_s == 200 and protocol == 'rest' and replicate == 0", verdict=SATURATED)
    arm = arms_table(put(half, "rate_per_s == 400", verdict=SATURATED)).set_index("protocol").loc["rest"]
    assert (arm["low_per_s"], arm["high_per_s"]) == (100, 400)


def test_the_sensitivity_check_does_not_move_an_arms_saturation_rate() -> None:
    # One connection saturates earlier: taken for the arm's own trial it would lower λ*.
    odd = rows_of(phase="sensitivity", verdict=SATURATED, connections=1).query(
        "protocol == 'grpc' and rate_per_s == 100"
    )
    arms = arms_table(pd.concat([rows_of(), odd], ignore_index=True)).set_index("protocol")
    assert (arms.loc["grpc", "bound"], arms.loc["grpc", "trials"]) == ("≥", 9)


def test_the_sensitivity_check_is_a_paired_ratio() -> None:
    # Otherwise nobody learns how much the defaults that were fixed decide.
    odd = rows_of(phase="sensitivity", connections=1).query("protocol == 'grpc' and rate_per_s == 200")
    odd = odd.assign(response_p95_ms=odd["response_p95_ms"] * np.array([3.0, 3.1, 2.9]))
    row = summary.sensitivity_table(pd.concat([rows_of(), odd], ignore_index=True)).iloc[0]
    assert (row["connections"], row["rate_per_s"], row["replicates"], row["differs"]) == (1, 200, 3, True)
    assert row["ratio"] == pytest.approx(3, rel=0.01)


def test_the_parts_of_a_mean_still_add_up_over_replicates() -> None:
    # Parts that are averaged over other trials than their sum would send the reader looking for lost milliseconds.
    parts = ("lag", "wait", "transport", "queue", "compute")
    trials = rows_of().assign(**{f"mean_{part}_ms": 0.5 * i for i, part in enumerate(parts)}, mean_response_ms=5.0)
    trials["mean_queue_ms"] += trials["replicate"]
    trials["mean_response_ms"] += trials["replicate"]
    trials = put(trials, "protocol == 'grpc'", mean_response_ms=np.nan)
    trials = put(trials, "rate_per_s == 400 and replicate == 2", verdict=INVALID)
    table = summary.components_table(trials)
    assert set(table["protocol"]) == {"rest"}
    assert table["replicates"].tolist() == [3, 3, 2]
    sums = table[[f"mean_{part}_ms" for part in parts]].sum(axis=1)
    assert sums.to_numpy() == pytest.approx(table["mean_response_ms"].to_numpy())


def test_the_share_of_valid_trials_names_the_reasons() -> None:
    # "92 % valid" without the reasons cannot be acted on.
    trials = put(rows_of(), "rate_per_s == 400", verdict=SATURATED)
    trials = put(trials, "rate_per_s == 100 and replicate == 0", verdict=INVALID, reasons="lag run_delay")
    share = summary.shares_table(trials, arms_table(trials)).iloc[0]
    assert (share["trials"], share["valid"], share["reasons"]) == (6, 5, "lag 1, run_delay 1")


def test_ratios_pair_the_replicates() -> None:
    # Unpaired, the spread between replicates hides a ratio that is the same in each.
    trials = rows_of()
    noise = trials["replicate"].map({0: 1.0, 1: 5.0, 2: 25.0})
    factor = trials["protocol"].map({"rest": 1.5, "grpc": 1.0}) * (1 + 0.001 * trials["replicate"])
    table = summary.ratios_table(trials.assign(response_p95_ms=noise * factor**2))
    assert table["ratio"].to_numpy() == pytest.approx(2.25)
    assert (table["conclusion"] == "rest").all()


@pytest.mark.parametrize("status", [SATURATED, INVALID])
def test_no_ratio_without_both_arms_valid(status: str) -> None:
    # A lower bound in a ratio is an invented number.
    trials = put(rows_of(), "rate_per_s == 200 and protocol == 'grpc'", verdict=status)
    row = summary.ratios_table(trials).query("rate_per_s == 200").iloc[0]
    assert (row["replicates"], row["conclusion"]) == (0, "cannot conclude")
    assert np.isnan(row["ratio"])


def test_no_difference_is_found_where_there_is_none() -> None:
    # An A/A comparison that finds differences would find any direction anybody wants.
    rng = np.random.default_rng(5)
    one = rows_of()
    runs_ = [one.assign(rate_per_s=one["rate_per_s"] + 1000 * i) for i in range(700)]
    trials = pd.concat(runs_, ignore_index=True)
    trials["response_p95_ms"] = np.exp(rng.normal(0, 0.2, len(trials)))
    table = summary.ratios_table(trials)
    assert len(table) == 2100
    assert (table["conclusion"] != "cannot conclude").sum() <= stats.binom.ppf(0.995, len(table), 0.05)
    assert (table["p_holm"] < 0.05).sum() <= 1, "Holm over the figure lets through one family in twenty"


def test_a_whole_run_says_what_it_was_made_of(tables: Tables) -> None:
    # The seams: from files to every table, against the capacities that the run was drawn with.
    for (name, protocol), capacity in GRPC_FASTER.items():
        arm = row_of(tables["arms"], implementation=name, protocol=protocol)
        assert arm["low_per_s"] <= 1.1 * capacity
        assert arm["high_per_s"] >= 0.9 * capacity
    ratio = row_of(tables["ratios"], metric="response_p95_ms", implementation=TFSERVING, rate_per_s=200.0)
    assert ratio["conclusion"] == "rest"
    assert (tables["trials"]["verdict"] == tables["trials"]["verdict_stored"]).all()
    assert tables["distributions"].groupby(["implementation", "protocol", "rate_per_s"]).size().max() <= 300
    assert set(tables["queues"]["model"]) == {"M/M/1", "M/D/1", "M/G/1"}
    assert (tables["timeline"]["p95_ms"] >= tables["timeline"]["p50_ms"]).all()


def test_tables_come_back_as_they_were_saved(tables: Tables, tmp_path: Path) -> None:
    # Figures are drawn from the files: a lost column or type changes them.
    summary.save_tables(tables, tmp_path)
    again = summary.load_tables(tmp_path)
    assert set(again) == set(tables)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(again[name], table, check_dtype=False)
    with pytest.raises(DataError, match="30-summarise"):
        summary.load_tables(tmp_path / "nothing")


# --- runs on disk -------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return build(
        tmp_path / "data" / "raw", {(TORCHSERVE, "rest"): 100.0, (TORCHSERVE, "grpc"): 100.0}, grid=(0.5,), replicates=1
    )


def test_trials_of_two_machines_are_not_pooled(small: Path) -> None:
    # The mean over a laptop and a server is about neither.
    for i, file in enumerate(sorted((small / "trials").glob("*.json"))):
        write_json(file, json.loads(file.read_text()) | {"machine_digest": f"m{i}"})
    with pytest.raises(DataError, match=r"2 machines \(m0, m1\) must not be pooled"):
        runs.load_run(small)


def test_trials_of_another_run_are_not_pooled(small: Path) -> None:
    # Copied into one folder, two nights would look like one with more replicates.
    file = next((small / "trials").glob("*.json"))
    write_json(file, json.loads(file.read_text()) | {"run_id": "another"})
    with pytest.raises(DataError, match="belongs to the run another"):
        runs.load_run(small)


def test_an_unknown_schema_version_is_named(small: Path) -> None:
    # Read with other rules, columns mean other things.
    manifest = json.loads((small / "run.json").read_text())
    (small / "run.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(DataError, match="schema version 99"):
        runs.load_run(small)


def test_a_truncated_file_is_named(small: Path) -> None:
    # Half a trial's rows are those of its beginning.
    file = next((small / "trials").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated"):
        summary.summarise(runs.load_run(small))


def test_an_empty_arm_of_a_complete_run_is_an_error(small: Path) -> None:
    # A figure with one line fewer looks complete.
    for file in (small / "trials").glob("*grpc*"):
        file.unlink()
    with pytest.raises(DataError, match="no trial of torchserve over grpc"):
        summary.summarise(runs.load_run(small))


def test_a_run_in_which_every_request_failed_says_so(small: Path) -> None:
    # Percentiles of nothing would be drawn as an empty figure.
    for file in (small / "trials").glob("*.parquet"):
        samples.write(file, samples.read(file).assign(status="refused"))
    with pytest.raises(DataError, match=r"every request failed \(refused\)"):
        summary.summarise(runs.load_run(small))


def test_a_withheld_interval_says_why() -> None:
    # A dash in a table is read as a mistake of the program.
    point = row_of(summary.points_table(rows_of().query("replicate < 2")), protocol="rest", rate_per_s=100.0)
    assert point["response_p95_ms_note"] == "2 of at least 3 replicates"
    ratio = row_of(summary.ratios_table(rows_of().query("replicate < 2")), rate_per_s=100.0)
    assert ratio["note"] == "2 of at least 3 replicates"
    none = summary.ratios_table(put(rows_of(), "protocol == 'rest'", verdict=SATURATED))
    assert set(none["note"]) == {"no replicate in which both are VALID and steady, or one of them was SATURATED"}


def test_arms_of_a_pair_are_cut_at_the_same_time() -> None:
    # Cut apart, one protocol would be measured on other arrivals than the other.
    pair = pd.DataFrame(
        {
            "phase": "grid",
            "block": "x",
            "rate_per_s": 100.0,
            "replicate": [0, 0, 1, 1],
            "duration_s": 10.0,
            "verdict": [VALID, VALID, VALID, SATURATED],
            "own_warm_up_s": [0.5, 2.0, 1.5, 9.0],
        }
    )
    found = with_warm_up(pair)
    assert found["warm_up_s"].tolist() == [2.0, 2.0, 1.5, 1.0]
    assert found["steady"].all()


def test_an_arm_that_never_became_steady_does_not_withhold_the_others() -> None:
    # Else one drifting arm of six leaves a finding without any interval.
    block = pd.DataFrame(
        {
            "phase": "grid",
            "block": "x",
            "rate_per_s": 100.0,
            "replicate": 0,
            "duration_s": 10.0,
            "verdict": [VALID, VALID, VALID, SATURATED],
            "own_warm_up_s": [0.1, 0.4, np.inf, np.inf],
        }
    )
    found = with_warm_up(block)
    assert found["steady"].tolist() == [True, True, False, True]
    assert found["warm_up_s"].tolist() == [0.4, 0.4, 1.0, 1.0]


def test_a_replicate_that_never_became_steady_is_left_out_and_counted() -> None:
    # Its percentile is that of a drift, and depends on when the trial ended.
    trials = put(rows_of(), "rate_per_s == 400 and replicate == 1", steady=False, response_p95_ms=np.nan)
    point = row_of(summary.points_table(trials), protocol="rest", rate_per_s=400.0)
    assert (point["replicates"], point["unsteady"]) == (2, 1)
    assert point["response_p95_ms"] == pytest.approx(np.sqrt(2.0 * 2.2))


def test_the_interval_of_a_saturation_rate_covers_it() -> None:
    # Too narrow, and two protocols are told apart by the luck of a few replicates. 2,000 cases of five replicates that
    # differ by 10 %; the grid's steps are narrowed twice.
    rng = np.random.default_rng(31)
    cases, grid, covered = 2000, np.array([300.0, 500, 700, 850, 950, 1100, 1300, 1600]), 0
    for _ in range(cases):
        ends: list[tuple[float, str, int]] = []
        for true in 900 * np.exp(rng.normal(0, 0.1, 5)):
            low, high = grid[grid <= true].max(), grid[grid > true].min()
            for _ in range(2):
                middle = np.sqrt(low * high)
                low, high = (middle, high) if middle <= true else (low, middle)
            ends += [(rate, verdict, len(ends) // 2) for rate, verdict in ((low, VALID), (high, SATURATED))]
        group = pd.DataFrame(ends, columns=["rate_per_s", "verdict", "replicate"]).assign(phase="grid")
        found = saturation_interval(group)
        covered += found["interval_low_per_s"] <= 900 <= found["interval_high_per_s"]
    assert covered >= stats.binom.ppf(0.005, cases, 0.95)


def test_a_half_written_trial_of_an_interrupted_run_is_left_out(small: Path) -> None:
    # One killed write would make every finished trial of the night unreadable.
    manifest = json.loads((small / "run.json").read_text())
    write_json(small / "run.json", manifest | {"status": "interrupted"})
    next((small / "trials").glob("*.json")).unlink()
    with pytest.warns(UserWarning, match="interrupted while writing"):
        assert len(runs.load_run(small).trials) == 1


def test_a_complete_run_that_lacks_a_file_is_an_error(small: Path) -> None:
    # Silently fewer replicates, and nobody would know.
    file = next((small / "trials").glob("*.json"))
    file.unlink()
    with pytest.raises(DataError, match=file.stem):
        runs.load_run(small)


def test_a_run_with_nothing_to_summarise_says_so(small: Path) -> None:
    # A traceback from pandas tells nobody that the run was interrupted in its pilot.
    for file in (small / "trials").glob("*.json"):
        write_json(file, json.loads(file.read_text()) | {"phase": "pilot"})
    with pytest.raises(DataError, match="no trial of the grid"):
        summary.points_table(trials_table(runs.load_run(small)))
    for file in (small / "trials").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no finished trial"):
        trials_table(runs.load_run(small))


def test_the_newest_complete_run_is_found(small: Path, tmp_path: Path) -> None:
    # Figures would silently show last week's run, or half of tonight's.
    newer, running = small.with_name("newer"), small.with_name("running")
    for copy, changes in ((newer, {"started_at": "2027"}), (running, {"started_at": "2028", "status": "interrupted"})):
        shutil.copytree(small, copy)
        write_json(copy / "run.json", json.loads((small / "run.json").read_text()) | changes)
    assert runs.find_run(root=tmp_path) == newer
    assert runs.find_run("data/raw/running", root=tmp_path) == running


def test_the_sample_is_taken_when_nothing_was_measured(small: Path, tmp_path: Path) -> None:
    # A fresh clone has no raw data: `make figures` must work there.
    shutil.move(tmp_path / "data" / "raw", tmp_path / "data" / "sample")
    assert runs.find_run(root=tmp_path) == tmp_path / "data" / "sample" / small.name


def test_no_run_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    # A FileNotFoundError of a path that nobody typed helps nobody.
    with pytest.raises(DataError, match="measure one"):
        runs.find_run(root=tmp_path)
    with pytest.raises(DataError, match="is not a run"):
        runs.find_run("data/raw/typo", root=tmp_path)
