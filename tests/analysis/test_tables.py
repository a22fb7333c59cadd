"""Tables: if these fail, a reader is shown lucky replicates, invented numbers, or figures that lack an arm."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.sample import sample_tables
from helpers.synthetic_run import GRPC_FASTER, TFSERVING, TORCHSERVE, build
from helpers.tables import ARMS, put, row_of, rows_of, verdicts_of
from infscale.analysis.intervals import Interval
from infscale.analysis.tables import Tables, load_tables, save_tables, tabulate
from infscale.analysis.tables.points import common_rates, components_table, points_table, shares_table
from infscale.analysis.tables.ratios import Ratios, contrasts_table, sensitivity_table
from infscale.analysis.tables.saturation import arms_table, saturation_interval
from infscale.analysis.tables.trials import IDENTITY, trials_table, used, with_warm_up
from infscale.errors import DataError
from infscale.experiment.design.arm import FACTORS, Arm
from infscale.experiment.design.design import Contrast, Design
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.runs import load_run

REST_OVER_GRPC = [Contrast(0, 1)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four arms, written to disk."""
    return build(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tables(path: Path) -> Tables:
    """All tables of that run."""
    return tabulate(load_run(path))


@pytest.fixture(scope="module")
def searched() -> Tables:
    """All tables of a committed run that searched for λ*, with four common rates."""
    return sample_tables("utilisation")


# --- points, arms, shares -----------------------------------------------------------------------------


def test_a_saturated_replicate_makes_the_point_a_bound() -> None:
    """Leaving it out would keep the lucky replicates only."""
    trials = put(rows_of(), "rate_per_s == 400 and protocol == 'rest' and replicate == 1", verdict=SATURATED)
    points = points_table(trials)
    point = row_of(points, protocol="rest", rate_per_s=400.0)
    assert (point["verdict"], point["replicates"], point["response_p95_ms_bound"]) == (SATURATED, 3, True)
    assert np.isnan(point["response_p95_ms_low"])
    assert row_of(points, protocol="grpc", rate_per_s=400.0)["verdict"] == VALID


def test_a_censored_replicate_makes_the_point_a_bound() -> None:
    """The mean of two times and a timeout is not an estimate of anything."""
    trials = put(rows_of(), "rate_per_s == 400 and replicate == 1", response_p99_ms=3000.0, response_p99_ms_bound=True)
    point = points_table(trials).query("rate_per_s == 400").iloc[0]
    assert point["response_p99_ms_bound"]
    assert np.isnan(point["response_p99_ms_low"])
    assert np.isfinite(point["response_p95_ms_low"])


def test_an_invalid_replicate_is_left_out_and_counted() -> None:
    """The generator's trouble would enter the server's percentile."""
    trials = put(rows_of(), "rate_per_s == 400 and replicate == 1", verdict=INVALID, response_p95_ms=500.0)
    point = points_table(trials).query("rate_per_s == 400").iloc[0]
    assert (point["verdict"], point["replicates"], point["invalid"]) == (VALID, 2, 1)
    assert point["response_p95_ms"] < 3


def test_a_repeated_trial_replaces_the_invalid_one() -> None:
    """Without the repeat the point loses a replicate although it was measured."""
    first = put(rows_of(), "rate_per_s == 100 and replicate == 0", verdict=INVALID, reasons="lag")
    trials = pd.concat([first, first[first["verdict"] == INVALID].assign(attempt=2, verdict=VALID)], ignore_index=True)
    assert (used(trials)["verdict"] == VALID).all()
    assert len(used(trials)) == 18
    point = points_table(trials).query("rate_per_s == 100").iloc[0]
    assert (point["replicates"], point["valid"], point["invalid"]) == (3, 3, 1)


def test_the_bracket_of_the_saturation_rate() -> None:
    """λ* is the second headline."""
    trials = put(rows_of(), "rate_per_s == 400 and protocol == 'rest'", verdict=SATURATED)
    arms = arms_table(trials).set_index("protocol", drop=False)
    rest, grpc = arms.loc["rest"], arms.loc["grpc"]
    assert (rest["low_per_s"], rest["high_per_s"], rest["bound"]) == (200, 400, "")
    assert rest["saturation_per_s"] == pytest.approx(np.sqrt(200 * 400))
    assert (grpc["saturation_per_s"], grpc["bound"]) == (400, "≥")


def test_a_bracket_without_a_lower_end_says_so() -> None:
    """ "λ* = 100" would be read as an estimate."""
    arms = arms_table(rows_of(verdict=SATURATED)).set_index("protocol", drop=False)
    assert (arms.loc["rest", "bound"], arms.loc["rest", "saturation_per_s"]) == ("<", 100)


def test_mixed_verdicts_widen_what_two_arms_are_told_apart_by() -> None:
    """One false alarm at a low rate would decide which protocol saturates first."""
    one = put(rows_of(), "rate_per_s == 100 and protocol == 'rest' and replicate == 0", verdict=SATURATED)
    arm = arms_table(put(one, "rate_per_s == 400", verdict=SATURATED)).set_index("protocol", drop=False).loc["rest"]
    assert (arm["low_per_s"], arm["high_per_s"], arm["settled_per_s"]) == (200, 400, 400)
    assert arm["contradictions"] == 1


def test_a_step_that_verdicts_do_not_place_widens_the_bracket() -> None:
    """Where one replicate of two saturates, λ* may lie on either side: a narrow bracket would be made up."""
    two = rows_of().query("replicate < 2")
    half = put(two, "rate_per_s == 200 and protocol == 'rest' and replicate == 0", verdict=SATURATED)
    arm = arms_table(put(half, "rate_per_s == 400", verdict=SATURATED)).set_index("protocol", drop=False).loc["rest"]
    assert (arm["low_per_s"], arm["high_per_s"]) == (100, 400)


def test_the_sensitivity_check_does_not_move_an_arms_saturation_rate() -> None:
    """One connection saturates earlier: taken for the arm's own trial it would lower λ*."""
    arms = arms_table(pd.concat([rows_of(), sensitivity(verdict=SATURATED)], ignore_index=True))
    assert list(arms["arm"]) == [0, 1]
    assert (row_of(arms, arm=1)["bound"], row_of(arms, arm=1)["trials"]) == ("≥", 9)


def sensitivity(**changes: Any) -> pd.DataFrame:
    """Trials of a third arm, gRPC on one connection, at one rate."""
    arms = (*ARMS, msgspec.structs.replace(ARMS[1], connections=1))
    return rows_of(arms, (200.0,), reference=1, phase="sensitivity", **changes).query("arm == 2")


def test_the_sensitivity_check_is_a_paired_ratio_to_the_arm_that_it_varies() -> None:
    """Otherwise nobody learns how much the defaults that were fixed decide."""
    odd = sensitivity()
    odd = odd.assign(response_p95_ms=odd["response_p95_ms"] * np.array([3.0, 3.1, 2.9]))
    design = Design(finding="f", arms=ARMS, sensitivity=(msgspec.structs.replace(ARMS[1], connections=1),))
    row = sensitivity_table(pd.concat([rows_of(), odd], ignore_index=True), design).iloc[0]
    assert (row["connections"], row["rate_per_s"], row["replicates"], row["differs"]) == (1, 200, 3, True)
    assert (row["reference"], row["reference_label"]) == (1, "gRPC")
    assert row["ratio"] == pytest.approx(3, rel=0.01)


def test_the_parts_of_a_mean_still_add_up_over_replicates() -> None:
    """Parts that are averaged over other trials than their sum would send the reader looking for lost milliseconds."""
    parts = ("lag", "wait", "transport", "queue", "compute")
    trials = rows_of().assign(**{f"mean_{part}_ms": 0.5 * i for i, part in enumerate(parts)}, mean_response_ms=5.0)
    trials["mean_queue_ms"] += trials["replicate"]
    trials["mean_response_ms"] += trials["replicate"]
    trials = put(trials, "protocol == 'grpc'", mean_response_ms=np.nan)
    trials = put(trials, "rate_per_s == 400 and replicate == 2", verdict=INVALID)
    table = components_table(trials)
    assert set(table["protocol"]) == {"rest"}
    assert table["replicates"].tolist() == [3, 3, 2]
    sums = table[[f"mean_{part}_ms" for part in parts]].sum(axis=1)
    assert sums.to_numpy() == pytest.approx(table["mean_response_ms"].to_numpy())


def test_the_share_of_valid_trials_names_the_reasons() -> None:
    """ "92 % valid" without the reasons cannot be acted on."""
    trials = put(rows_of(), "rate_per_s == 400", verdict=SATURATED)
    trials = put(trials, "rate_per_s == 100 and replicate == 0", verdict=INVALID, reasons="lag run_delay")
    share = shares_table(trials, arms_table(trials)).iloc[0]
    assert (share["trials"], share["valid"], share["reasons"]) == (6, 5, "lag 1, run_delay 1")


def test_the_common_rate_is_one_at_which_every_arm_of_the_block_is_valid() -> None:
    """Else distributions of a server that keeps up and of one that does not are laid over each other."""
    points = points_table(put(rows_of(), "rate_per_s == 400 and arm == 0", verdict=SATURATED))
    assert common_rates(points) == {1: 200.0}
    assert common_rates(points_table(rows_of(verdict=SATURATED))) == {}


def test_a_trial_that_never_became_steady_has_no_percentile_of_any_kind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One column that is forgotten shows a drift as if it were a response time."""
    monkeypatch.setattr("infscale.analysis.tables.trials.own_warm_up_s", lambda *_: np.inf)
    table = trials_table(load_run(path))
    times = [name for name in map(str, table) if name.endswith("_ms") and name.startswith(("response", "roundtrip"))]
    assert not table.loc[table["verdict"] == VALID, "steady"].any()
    assert table.loc[~table["steady"], times].isna().all(axis=None)
    assert table.loc[table["steady"], "response_p50_ms"].notna().any(), "SATURATED trials keep theirs, as bounds"


# --- ratios -------------------------------------------------------------------------------------------


def test_ratios_pair_the_replicates() -> None:
    """Unpaired, the spread between replicates hides a ratio that is the same in each."""
    trials = rows_of()
    noise = trials["replicate"].map({0: 1.0, 1: 5.0, 2: 25.0})
    factor = trials["protocol"].map({"rest": 1.5, "grpc": 1.0}) * (1 + 0.001 * trials["replicate"])
    trials = trials.assign(response_p95_ms=noise * factor**2)
    table = contrasts_table(trials, REST_OVER_GRPC)
    assert table["ratio"].to_numpy() == pytest.approx(2.25)
    assert (table["conclusion"] == "slower").all()
    assert Ratios(trials).ratio(0, 1).value == pytest.approx(2.25)
    assert Ratios(trials).ratio(0, 1).replicates == 9, "over all rates"


@pytest.mark.parametrize("status", [SATURATED, INVALID])
def test_no_ratio_without_both_arms_valid(status: str) -> None:
    """A lower bound in a ratio is an invented number."""
    trials = put(rows_of(), "rate_per_s == 200 and protocol == 'grpc'", verdict=status)
    row = row_of(contrasts_table(trials, REST_OVER_GRPC), rate_per_s=200.0)
    assert (row["replicates"], row["conclusion"]) == (0, "cannot conclude")
    assert np.isnan(row["ratio"])


def test_a_contrast_turns_with_the_data() -> None:
    """A conclusion that does not turn with its arms favours one of them."""
    trials = put(rows_of(), "arm == 0", response_p95_ms=9.0)
    trials["response_p95_ms"] *= 1 + 0.001 * trials["replicate"]
    turned = contrasts_table(trials, [Contrast(0, 1), Contrast(1, 0)])
    assert set(turned.query("arm == 0")["conclusion"]) == {"slower"}
    assert set(turned.query("arm == 1")["conclusion"]) == {"faster"}
    assert set(turned.query("arm == 0")["reference_label"]) == {"gRPC"}


def test_arms_of_two_blocks_are_not_paired() -> None:
    """They got other arrivals: their ratio holds the luck of the draw."""
    trials = rows_of()
    trials["block"] = trials["arm"]
    assert Ratios(trials).ratio(0, 1).replicates == 0
    assert contrasts_table(trials, REST_OVER_GRPC)["ratio"].isna().all()


def test_a_contrast_of_an_arm_that_was_left_out_has_no_row() -> None:
    """A row of NaN would be counted as a contrast that cannot be decided."""
    assert contrasts_table(rows_of().query("arm == 0"), REST_OVER_GRPC).empty


def test_no_difference_is_found_where_there_is_none() -> None:
    """An A/A comparison that finds differences would find any direction anybody wants."""
    rng = np.random.default_rng(5)
    trials = rows_of(rates=[100.0 + k for k in range(2100)])
    trials["response_p95_ms"] = np.exp(rng.normal(0, 0.2, len(trials)))
    table = contrasts_table(trials, REST_OVER_GRPC)
    assert len(table) == 2100
    assert (table["interval_conclusion"] != "cannot conclude").sum() <= stats.binom.ppf(0.995, len(table), 0.05)
    assert (table["conclusion"] != "cannot conclude").sum() <= 1, "Holm lets through one family in twenty"


def test_a_difference_that_holms_correction_does_not_leave_is_none() -> None:
    """With thirty equal arms, chance alone makes some look different."""
    rng = np.random.default_rng(1)
    arms = [Arm("rest", "json", batch=1 + k, framework="torchserve") for k in range(31)]
    trials = rows_of(arms, (100.0,), 6, reference=0)
    trials["response_p95_ms"] = np.exp(rng.normal(0, 0.3, len(trials)))
    table = contrasts_table(trials, [Contrast(k, 0) for k in range(1, 31)])
    assert (table["interval_conclusion"] != "cannot conclude").any(), "by intervals alone some are told apart"
    assert (table["conclusion"] == "cannot conclude").all()


def test_contrasts_of_another_metric_are_corrected_apart() -> None:
    """Otherwise a description of p50 costs the named p95 its significance."""
    trials = rows_of()
    both = [Contrast(0, 1), Contrast(0, 1, "response_p50_ms")]
    alone = contrasts_table(trials, REST_OVER_GRPC)
    named = contrasts_table(trials, both).query("metric == 'response_p95_ms'").reset_index(drop=True)
    pd.testing.assert_frame_equal(named, alone)


def test_an_arm_that_was_saturated_in_any_replicate_is_in_no_ratio() -> None:
    """Else the slow arm is judged by the replicates that were kind to it."""

    def contrast(letters: str) -> Any:
        trials = verdicts_of({0: "VVVV", 1: letters}, {0: 1.0, 1: 2.0})
        return contrasts_table(trials, [Contrast(1, 0)]).iloc[0]

    sound, invalid, spoiled = contrast("VVVV"), contrast("VVVI"), contrast("VVVS")
    assert sound["replicates"] == 4
    assert sound["ratio_low"] > 1
    assert invalid["replicates"] == 3, "a disturbed trial says nothing of the server"
    assert (spoiled["replicates"], spoiled["conclusion"]) == (0, "cannot conclude")
    assert "SATURATED" in spoiled["note"]


def test_a_withheld_interval_says_why() -> None:
    """A dash in a table is read as a mistake of the program."""
    few = rows_of(replicates=2)
    point = row_of(points_table(few), protocol="rest", rate_per_s=100.0)
    assert point["response_p95_ms_note"] == "only 2 replicates; an interval needs 3"
    assert set(contrasts_table(few, REST_OVER_GRPC)["note"]) == {"only 2 replicates; an interval needs 3"}
    none = contrasts_table(put(rows_of(), "protocol == 'rest'", verdict=SATURATED), REST_OVER_GRPC)
    assert set(none["note"]) == {"no replicate in which both are VALID and steady, or one of them was SATURATED"}


def capacity(*arms: list[tuple[float, float]]) -> Interval:
    """The ratio of two saturation rates, of brackets by arm and replicate (NaN: no rate on that side)."""
    rows = [
        {"arm": arm, "replicate": replicate, "rate_per_s": rate, "verdict": verdict if np.isfinite(rate) else INVALID}
        for arm, ends in enumerate(arms)
        for replicate, bracket in enumerate(ends)
        for rate, verdict in zip(bracket, (VALID, SATURATED), strict=True)
    ]
    return Ratios(pd.DataFrame(rows).assign(phase="bisection")).capacity(0, 1)


def test_a_ratio_of_saturation_rates_holds_the_width_of_the_brackets() -> None:
    """Without it, two searches that stopped early would be told apart by where they stopped."""
    estimate = capacity([(200, 220)] * 4, [(100, 110)] * 4)
    assert estimate.value == pytest.approx(2.0)
    assert estimate.low == pytest.approx(200 / 110)
    assert estimate.high == pytest.approx(220 / 100)


def test_a_replicate_that_never_saturated_withholds_the_ratio() -> None:
    """Left out, it would take the fastest replicate from the side that it speaks for."""
    nan = float("nan")
    censored = capacity([(200, 220)] * 3 + [(900, nan)], [(100, 110)] * 4)
    assert np.isnan([censored.value, censored.low, censored.high]).all()
    assert censored.replicates == 3
    invalid = capacity([(200, 220)] * 3 + [(nan, nan)], [(100, 110)] * 4)
    assert invalid.value == pytest.approx(2.0)
    assert invalid.replicates == 3


# --- whole runs ---------------------------------------------------------------------------------------


def test_a_whole_run_says_what_it_was_made_of(tables: Tables) -> None:
    """The seams: from files to every table, against the capacities that the run was drawn with."""
    for (name, protocol), capacity in GRPC_FASTER.items():
        arm = row_of(tables.arms, implementation=name, protocol=protocol)
        assert arm["low_per_s"] <= 1.1 * capacity
        assert arm["high_per_s"] >= 0.9 * capacity
    assert row_of(tables.contrasts, implementation=TFSERVING, rate_per_s=200.0)["interval_conclusion"] == "slower"
    assert (tables.every["verdict"] == tables.every["verdict_stored"]).all()
    assert tables.distributions.groupby(["arm", "rate_per_s"]).size().max() <= 300
    assert set(tables.queues["queue"]) == {"M/M/1", "M/D/1", "M/G/1"}
    assert (tables.timeline["p95_ms"] >= tables.timeline["p50_ms"]).all()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Tables)])
def test_every_table_names_arm_system_and_every_factor(name: str, tables: Tables, searched: Tables) -> None:
    """A figure that selects by a factor that a table lacks would have to read labels."""
    for each in (tables, searched):
        table: pd.DataFrame = getattr(each, name)
        assert list(table.columns[: len(IDENTITY)]) == IDENTITY
        assert set(FACTORS) <= set(table.columns)
        assert not table["arm"].isna().any()
        assert not table["system"].isna().any()


def test_factors_are_those_that_the_trials_had(tables: Tables) -> None:
    """ "0 connections" or an empty encoding in a table leaves the reader to look up defaults."""
    rest, grpc = (row_of(tables.arms, implementation=TORCHSERVE, protocol=name) for name in ("rest", "grpc"))
    assert (rest["encoding"], rest["connections"], rest["framework"]) == ("json", 256, "torchserve")
    assert (grpc["encoding"], grpc["connections"], grpc["block"]) == ("protobuf", 8, grpc["arm"])
    assert rest["block"] == grpc["arm"], "compared with gRPC"


def test_a_search_is_compared_at_one_rate_and_shown_at_all(searched: Tables) -> None:
    """Contrasts at four rates would cost each its significance; a curve of one point is none."""
    assert searched.contrasts.groupby("arm")["rate_per_s"].nunique().max() == 1
    assert searched.points.groupby("arm")["rate_per_s"].nunique().min() == 4
    assert list(searched.summary["arm"]) == sorted(searched.summary["arm"])
    both = searched.summary.merge(searched.contrasts, on="arm", suffixes=("", "_of_contrast"))
    assert (both["rate_per_s"] == both["rate_per_s_of_contrast"]).all()
    assert "pilot" not in set(searched.every["phase"])


def test_usage_is_saturated_where_any_replicate_was(searched: Tables) -> None:
    """A mean over a server that kept up and one that did not is taken for the cost of a request."""
    grid = searched.every[(searched.every["phase"] == "grid") & (searched.every["verdict"] != INVALID)]
    saturated = (grid["verdict"] == SATURATED).groupby([grid["arm"], grid["rate_per_s"]]).any()
    assert saturated.any()
    usage = searched.usage.groupby(["arm", "rate_per_s"])["verdict"].agg(set)
    expected = saturated.map({True: {SATURATED}, False: {VALID}})
    assert usage.reindex(expected.index).to_dict() == expected.to_dict()


def test_tables_come_back_as_they_were_saved(tables: Tables, searched: Tables, tmp_path: Path) -> None:
    """Figures are drawn from the files: a lost column or type changes them."""
    for number, each in enumerate((tables, searched)):
        save_tables(each, tmp_path / str(number))
        again = load_tables(tmp_path / str(number))
        for name, table in each.by_name().items():
            pd.testing.assert_frame_equal(getattr(again, name), table, check_dtype=False)
    (tmp_path / "0" / "arms.parquet").unlink()
    with pytest.raises(DataError, match=r"lacks the tables arms: run notebooks/30-summarise"):
        load_tables(tmp_path / "0")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A run of two arms at one rate."""
    return build(tmp_path, {(TORCHSERVE, "rest"): 100.0, (TORCHSERVE, "grpc"): 100.0}, grid=(0.5,), replicates=1)


def test_a_truncated_file_is_named(small: Path) -> None:
    """Half a trial's rows are those of its beginning."""
    file = next((small / "trials").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated"):
        tabulate(load_run(small))


def test_an_empty_arm_of_a_complete_run_is_an_error(small: Path) -> None:
    """A figure with one line fewer looks complete."""
    for file in (small / "trials").glob("*grpc*"):
        file.unlink()
    with pytest.raises(DataError, match="no trial of gRPC, although the run is complete"):
        tabulate(load_run(small))


def test_a_run_in_which_every_request_failed_says_so(small: Path) -> None:
    """Percentiles of nothing would be drawn as an empty figure."""
    for file in (small / "trials").glob("*.parquet"):
        samples.write(file, samples.read(file).assign(status="refused"))
    with pytest.raises(DataError, match=r"every request failed \(refused\)"):
        tabulate(load_run(small))


def test_a_run_with_nothing_to_summarise_says_so(small: Path) -> None:
    """A traceback from pandas tells nobody that the run was interrupted in its pilot."""
    manifest = json.loads((small / "run.json").read_text())
    (small / "run.json").write_text(json.dumps(manifest | {"status": "interrupted"}))
    for file in (small / "trials").glob("*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"phase": "pilot"}))
    with pytest.raises(DataError, match="no trial at a set rate"):
        tabulate(load_run(small))
    for file in (small / "trials").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no finished trial"):
        tabulate(load_run(small))


# --- warm-up, λ* --------------------------------------------------------------------------------------


def test_arms_of_a_pair_are_cut_at_the_same_time() -> None:
    """Cut apart, one protocol would be measured on other arrivals than the other."""
    pair = pd.DataFrame(
        {
            "phase": "grid",
            "block": 0,
            "rate_per_s": 100.0,
            "replicate": [0, 0, 1, 1],
            "duration_s": 10.0,
            "verdict": [VALID, VALID, VALID, SATURATED],
            "own_warm_up_s": [0.5, 2.0, 1.5, 9.0],
        }
    )
    result = with_warm_up(pair)
    assert result["warm_up_s"].tolist() == [2.0, 2.0, 1.5, 1.0]
    assert result["steady"].all()


def test_an_arm_that_never_became_steady_does_not_withhold_the_others() -> None:
    """Else one drifting arm of six leaves a finding without any interval."""
    block = pd.DataFrame(
        {
            "phase": "grid",
            "block": 0,
            "rate_per_s": 100.0,
            "replicate": 0,
            "duration_s": 10.0,
            "verdict": [VALID, VALID, VALID, SATURATED],
            "own_warm_up_s": [0.1, 0.4, np.inf, np.inf],
        }
    )
    result = with_warm_up(block)
    assert result["steady"].tolist() == [True, True, False, True]
    assert result["warm_up_s"].tolist() == [0.4, 0.4, 1.0, 1.0]


def test_a_replicate_that_never_became_steady_is_left_out_and_counted() -> None:
    """Its percentile is that of a drift, and depends on when the trial ended."""
    trials = put(rows_of(), "rate_per_s == 400 and replicate == 1", steady=False, response_p95_ms=np.nan)
    point = row_of(points_table(trials), protocol="rest", rate_per_s=400.0)
    assert (point["replicates"], point["unsteady"]) == (2, 1)
    assert point["response_p95_ms"] == pytest.approx(np.sqrt(2.0 * 2.2))


def test_the_interval_of_a_saturation_rate_covers_it() -> None:
    """Too narrow, and two protocols are told apart by the luck of a few replicates. 2,000 cases of five replicates that
    differ by 10 %; the grid's steps are narrowed twice."""
    rng = np.random.default_rng(31)
    cases, grid, covered = 2000, np.array([300.0, 500, 700, 850, 950, 1100, 1300, 1600]), 0
    for _ in range(cases):
        ends: list[tuple[float, float]] = []
        for true in 900 * np.exp(rng.normal(0, 0.1, 5)):
            low, high = grid[grid <= true].max(), grid[grid > true].min()
            for _ in range(2):
                middle = np.sqrt(low * high)
                low, high = (middle, high) if middle <= true else (low, middle)
            ends.append((low, high))
        interval = saturation_interval(np.array(ends))
        covered += interval["interval_low_per_s"] <= 900 <= interval["interval_high_per_s"]
    assert covered >= stats.binom.ppf(0.005, cases, 0.95)
