"""Tables: if these fail, a reader is shown lucky lifetimes, invented numbers, or figures that lack an arm."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.sample import sample_tables
from helpers.synthetic_run import GRPC_FASTER, TFSERVING, TORCHSERVE, build
from helpers.tables import ARMS, bracketed, manifest_with, put, row_of, rows_of, verdicts_of
from infscale.analysis.intervals import geometric_mean
from infscale.analysis.tables import Tables, load_tables, save_tables, tabulate
from infscale.analysis.tables.contrasts import LEAST_REQUESTS, SESSIONS_ALPHA, by_session, contrasts_table
from infscale.analysis.tables.distributions import pools, with_p99
from infscale.analysis.tables.points import FEW, components_table, points_table, shares_table
from infscale.analysis.tables.ratios import Ratios, ratios_table, sensitivity_table, with_shares
from infscale.analysis.tables.saturation import arms_table, lifetime_brackets
from infscale.analysis.tables.trials import IDENTITY, WITHHELD, trials_table, used, with_warm_up
from infscale.analysis.tables.usage import PHASES
from infscale.errors import DataError
from infscale.experiment.design.arm import FACTORS, Arm
from infscale.experiment.design.design import P95, SATURATION, Contrast, Design
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Gate
from infscale.records.runs import load_run

P95_OF_REST = [Contrast(0, 1)]
NAN = float("nan")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four arms, written to disk."""
    return build(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tables(path: Path) -> Tables:
    """All tables of that run."""
    return tabulate(load_run(path))


@pytest.fixture(scope="module")
def stored() -> Tables:
    """All tables of a committed run, which watched processes."""
    return sample_tables("utilisation")


# --- points, arms, shares -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "verdict", "lifetimes"),
    [("VVVV", VALID, 4), ("VVVS", VALID, 3), ("VVSS", SATURATED, 2), ("VSSI", SATURATED, 2), ("VSII", SATURATED, 1)],
)
def test_a_point_is_saturated_where_at_least_half_of_the_usable_lifetimes_are(
    letters: str, verdict: str, lifetimes: int
) -> None:
    """One hiccup in a long run would make every point a bound; most lifetimes left out would keep the lucky ones."""
    point = points_table(verdicts_of({0: letters}, {0: 10.0})).iloc[0]
    assert (point["verdict"], point["lifetimes"], point["response_p95_ms_bound"]) == (
        verdict,
        lifetimes,
        verdict == SATURATED,
    )
    assert np.isnan(point["response_p95_ms_low"]) == (lifetimes < 3)
    assert point["saturated"] == letters.count("S")


def test_unsteady_lifetimes_are_left_out_and_counted() -> None:
    """The percentile of a drift depends on when the trial ended; and nobody would know how often it happened."""
    trials = verdicts_of({0: "VVVU", 1: "UUUU", 2: "UUUS"}, {0: 10.0, 1: 10.0, 2: 10.0})
    trials.loc[trials["verdict"] == UNSTEADY, WITHHELD] = np.nan
    points = points_table(trials)
    assert points["verdict"].tolist() == [VALID, UNSTEADY, UNSTEADY]
    assert points["unsteady"].tolist() == [1, 4, 3]
    assert points["lifetimes"].tolist() == [3, 4, 3]
    assert points["response_p95_ms"].iloc[0] == pytest.approx((10 * 11 * 12) ** (1 / 3))
    assert points["response_p95_ms"].iloc[1:].isna().all()


def test_a_censored_lifetime_makes_the_point_a_bound() -> None:
    """The mean of three times and a timeout is not an estimate of anything."""
    trials = put(rows_of(), "rate_per_s == 400 and lifetime == 1", response_p99_ms=3000.0, response_p99_ms_bound=True)
    point = points_table(trials).query("rate_per_s == 400").iloc[0]
    assert point["response_p99_ms_bound"]
    assert np.isnan(point["response_p99_ms_low"])
    assert np.isfinite(point["response_p95_ms_low"])


def test_a_p99_is_that_of_all_lifetimes_together_and_withheld_of_too_few(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 250 requests it is one of the largest two or three, and too low; of all lifetimes' it is a percentile."""
    run = load_run(path)
    trials = trials_table(run)
    points = points_table(trials)
    pooled = pools(run, trials, points)
    found = with_p99(points, trials, pooled).query("verdict == 'VALID'")
    enough = found[found["response_p99_ms_note"] == ""]
    assert len(enough)
    for row in enough.to_dict("records"):
        times = np.concatenate(pooled[row["arm"], row["rate_per_s"]])
        assert row["response_p99_ms"] == pytest.approx(np.quantile(times, 0.99, method="inverted_cdf"))
        assert row["response_p99_ms_low"] < row["response_p99_ms"] < row["response_p99_ms_high"]
    few = found[found["response_p99_ms_note"] == FEW]
    assert few[["response_p99_ms", "response_p99_ms_low", "response_p99_ms_high"]].isna().all(axis=None)
    monkeypatch.setattr("infscale.analysis.tables.distributions.P99_REQUESTS", 10**9)
    none = with_p99(points, trials, pooled).query("verdict == 'VALID'")
    assert (none["response_p99_ms_note"] == FEW).all()
    assert np.isfinite(none["response_p95_ms_low"]).all(), "p95 needs fewer, and stays"


def test_an_invalid_lifetime_is_left_out_and_counted() -> None:
    """The generator's trouble would enter the server's percentile."""
    trials = put(rows_of(), "rate_per_s == 400 and lifetime == 1", verdict=INVALID, response_p95_ms=500.0)
    point = points_table(trials).query("rate_per_s == 400").iloc[0]
    assert (point["verdict"], point["lifetimes"], point["invalid"]) == (VALID, 3, 1)
    assert point["response_p95_ms"] < 3


def test_a_repeated_trial_replaces_the_invalid_one() -> None:
    """Without the repeat the point loses a lifetime although it was measured."""
    first = put(rows_of(), "rate_per_s == 100 and lifetime == 0", verdict=INVALID, reasons="lag")
    trials = pd.concat([first, first[first["verdict"] == INVALID].assign(attempt=2, verdict=VALID)], ignore_index=True)
    assert (used(trials)["verdict"] == VALID).all()
    assert len(used(trials)) == 24
    point = points_table(trials).query("rate_per_s == 100").iloc[0]
    assert (point["lifetimes"], point["valid"], point["invalid"]) == (4, 4, 1)


def test_the_interval_of_a_saturation_rate_is_over_lifetimes() -> None:
    """λ* is the second headline. The width of one bracket says how it was searched, not how servers differ."""
    ends = [(95.0, 105.0), (95.0, 105.0), (190.0, 210.0), (190.0, 210.0)]
    arms = arms_table(bracketed({0: ends, 1: ends[:2]}).assign(phase="grid"))
    one, few = arms.iloc[0], arms.iloc[1]
    middles = [np.sqrt(low * high) for low, high in ends]
    expected = geometric_mean(middles)
    assert (one["saturation_lifetimes"], one["bound"]) == (4, "")
    assert one[["saturation_per_s", "low_per_s", "high_per_s"]].tolist() == pytest.approx(
        [expected.value, expected.low, expected.high]
    )
    assert one["steps"] == pytest.approx(105 / 95)
    assert (few["saturation_lifetimes"], few["bound"]) == (2, "")
    assert np.isnan(few["low_per_s"]), "two lifetimes have an interval by formula, and it says nothing"


@pytest.mark.parametrize(("bracket", "bound", "value"), [((400.0, NAN), "≥", 210.0), ((NAN, 50.0), "<", 190.0)])
def test_a_lifetime_without_an_end_makes_a_saturation_rate_a_bound(
    bracket: tuple[float, float], bound: str, value: float
) -> None:
    """Left out, it would take the fastest lifetime (or the slowest) from the side that it speaks for."""
    arm = arms_table(bracketed({0: [(180.0, 190**2 / 180), (200.0, 210**2 / 200), bracket]})).iloc[0]
    assert (arm["bound"], arm["saturation_per_s"], arm["saturation_lifetimes"]) == (bound, pytest.approx(value), 3)


def test_an_arm_without_a_usable_trial_has_no_saturation_rate() -> None:
    """A number would be made up."""
    arm = arms_table(rows_of(verdict=INVALID)).iloc[0]
    assert (arm["bound"], arm["saturation_lifetimes"]) == ("?", 0)
    assert np.isnan(arm["saturation_per_s"])


def test_a_bracket_lies_where_the_fewest_verdicts_contradict_it() -> None:
    """One false alarm at a low rate would decide which protocol saturates first."""
    trials = put(rows_of(rates=(50.0, 100.0, 200.0, 400.0)), "rate_per_s == 400", verdict=SATURATED)
    trials = put(trials, "rate_per_s == 50 and lifetime == 0", verdict=SATURATED)
    trials = put(trials, "rate_per_s == 200 and lifetime == 1", verdict=SATURATED)
    trials = put(trials, "rate_per_s == 100 and lifetime == 2", verdict=SATURATED)
    brackets = lifetime_brackets(trials).query("arm == 0")
    assert brackets["low_per_s"].tolist() == [200.0, 100.0, 50.0, 200.0]
    assert brackets["high_per_s"].tolist() == [400.0, 200.0, 400.0, 400.0], "in the third it may lie on either side"


def test_an_unsteady_step_of_the_search_did_not_keep_up() -> None:
    """Its response time still rose: taken for kept up it raises λ* of the arm that drifts. At a set rate it is no
    evidence on either side."""
    search = bracketed({0: [(100.0, 200.0)]}).replace({"verdict": {SATURATED: UNSTEADY}})
    assert lifetime_brackets(search)[["low_per_s", "high_per_s"]].iloc[0].tolist() == [100.0, 200.0]
    assert np.isnan(lifetime_brackets(search.assign(phase="grid"))["high_per_s"].iloc[0])


def test_trials_at_set_rates_close_a_bracket_that_the_search_left_open() -> None:
    """Rates of the curve lie beyond saturation: without them a search that was cut short gives a bound only."""
    search = bracketed({0: [(100.0, NAN)]})
    curve = bracketed({0: [(80.0, 150.0)]}).assign(phase="grid")
    bracket = lifetime_brackets(pd.concat([search, curve], ignore_index=True)).iloc[0]
    assert (bracket["low_per_s"], bracket["high_per_s"]) == (100.0, 150.0)


def test_the_sensitivity_check_does_not_move_an_arms_saturation_rate() -> None:
    """One connection saturates earlier: taken for the arm's own trial it would lower λ*."""
    arms = arms_table(pd.concat([rows_of(), sensitivity(verdict=SATURATED)], ignore_index=True))
    assert list(arms["arm"]) == [0, 1]
    assert (row_of(arms, arm=1)["bound"], row_of(arms, arm=1)["trials"]) == ("≥", 12)


def sensitivity(**changes: Any) -> pd.DataFrame:
    """Trials of a third arm, gRPC on one connection, at one rate."""
    arms = (*ARMS, msgspec.structs.replace(ARMS[1], connections=1))
    return rows_of(arms, (200.0,), 3, reference=1, phase="sensitivity", **changes).query("arm == 2")


def test_the_sensitivity_check_is_a_paired_ratio_to_the_arm_that_it_varies() -> None:
    """Otherwise nobody learns how much the defaults that were fixed decide."""
    odd = sensitivity()
    odd = odd.assign(response_p95_ms=odd["response_p95_ms"] * np.array([3.0, 3.1, 2.9]))
    design = Design(finding="f", arms=ARMS, sensitivity=(msgspec.structs.replace(ARMS[1], connections=1),))
    row = sensitivity_table(pd.concat([rows_of(), odd], ignore_index=True), design).iloc[0]
    assert (row["connections"], row["rate_per_s"], row["lifetimes"], row["differs"]) == (1, 200, 3, True)
    assert (row["reference"], row["reference_label"]) == (1, "gRPC")
    assert row["ratio"] == pytest.approx(3, rel=0.01)


def test_the_parts_of_a_mean_still_add_up_over_lifetimes() -> None:
    """Parts that are averaged over other trials than their sum would send the reader looking for lost milliseconds."""
    parts = ("lag", "wait", "transport", "queue", "compute")
    trials = rows_of().assign(**{f"mean_{part}_ms": 0.5 * i for i, part in enumerate(parts)}, mean_response_ms=5.0)
    trials["mean_queue_ms"] += trials["lifetime"]
    trials["mean_response_ms"] += trials["lifetime"]
    trials = put(trials, "protocol == 'grpc'", mean_response_ms=np.nan)
    trials = put(trials, "rate_per_s == 400 and lifetime == 2", verdict=INVALID)
    table = components_table(trials)
    assert set(table["protocol"]) == {"rest"}
    assert table["lifetimes"].tolist() == [4, 4, 3]
    sums = table[[f"mean_{part}_ms" for part in parts]].sum(axis=1)
    assert sums.to_numpy() == pytest.approx(table["mean_response_ms"].to_numpy())


def test_the_share_of_valid_trials_names_the_reasons() -> None:
    """ "92 % valid" without the reasons cannot be acted on."""
    trials = put(rows_of(), "rate_per_s == 400", verdict=SATURATED)
    trials = put(trials, "rate_per_s == 100 and lifetime == 0", verdict=INVALID, reasons="lag run_delay")
    share = shares_table(trials, arms_table(trials)).iloc[0]
    assert (share["trials"], share["valid"], share["reasons"]) == (8, 7, "lag 1, run_delay 1")


def test_a_trial_that_never_became_steady_has_no_percentile_of_any_kind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One column that is forgotten shows a drift as if it were a response time."""
    never = Gate("steady", False, None, 0.5, "the response time never settled")
    monkeypatch.setattr("infscale.records.gates.verdict.steady", lambda *_: never)
    table = trials_table(load_run(path))
    times = [name for name in map(str, table) if name.endswith("_ms") and name.startswith(("response", "roundtrip"))]
    assert set(table["verdict"]) == {UNSTEADY, SATURATED}
    assert table.loc[table["verdict"] == UNSTEADY, times].isna().all(axis=None)
    assert table.loc[table["verdict"] == SATURATED, "response_p50_ms"].notna().any(), "those keep theirs, as bounds"


# --- contrasts ----------------------------------------------------------------------------------------


def contrasts(trials: pd.DataFrame, named: Sequence[Contrast] = P95_OF_REST, **changes: Any) -> pd.DataFrame:
    """The contrasts of REST with gRPC in a run of two moderate rates."""
    return contrasts_table(manifest_with(**changes), trials, named)


def judged(letters: str, reference: str = "VVVVVVVV") -> Any:
    """The contrast of an arm that takes 2 ms with one that takes 1 ms, of verdicts by lifetime, at one rate."""
    trials = verdicts_of({0: reference, 1: letters}, {0: 1.0, 1: 2.0})
    trials["response_p95_ms"] = trials["arm"].map({0: 1.0, 1: 2.0}) * (1 + 0.01 * (trials["lifetime"] * trials["arm"]))
    return contrasts(trials, [Contrast(1, 0)], rates=(100.0,), lifetimes=len(letters), first_look=len(letters)).iloc[0]


def test_a_lifetime_has_one_value_the_mean_over_moderate_rates_paired() -> None:
    """Unpaired, what servers differ by from start to start hides a ratio that is the same in each."""
    trials = rows_of()
    noise = trials["lifetime"].map({0: 1.0, 1: 5.0, 2: 25.0, 3: 125.0})
    factor = trials["protocol"].map({"rest": 1.5, "grpc": 1.0}) * (1 + 0.001 * trials["lifetime"] * (1 - trials["arm"]))
    trials = trials.assign(response_p95_ms=noise * factor)
    trials = put(trials, "rate_per_s == 200", response_p95_ms=trials.query("rate_per_s == 200")["response_p95_ms"] ** 2)
    row = contrasts(trials).iloc[0]
    assert row["ratio"] == pytest.approx(1.5**1.5 * noise.groupby(trials["lifetime"]).first().pow(0).mean(), rel=0.01)
    assert (row["answer"], row["lifetimes"], row["looked_at"]) == ("differs", 4, 4)
    curve = put(trials, "rate_per_s == 400", response_p95_ms=1e6)
    pd.testing.assert_frame_equal(contrasts(curve), contrasts(trials), obj="rates of the curve are not in it")


def test_a_contrast_turns_with_the_data() -> None:
    """A conclusion that does not turn with its arms favours one of them."""
    trials = put(rows_of(), "arm == 0", response_p95_ms=9.0)
    trials["response_p95_ms"] *= 1 + 0.001 * trials["lifetime"] * trials["arm"]
    one, other = (contrasts(trials, [Contrast(arm, 1 - arm)]).iloc[0] for arm in (0, 1))
    assert one["answer"] == other["answer"] == "differs"
    assert [one["ratio_low"], one["ratio_high"]] == pytest.approx([1 / other["ratio_high"], 1 / other["ratio_low"]])
    assert (one["reference_label"], other["reference_label"]) == ("gRPC", "REST")


def test_saturated_in_a_minority_of_lifetimes_is_a_lifetime_and_no_bound() -> None:
    """One hiccup would take the whole contrast away, or decide it."""
    row = judged("VVVVVVVS")
    assert (row["answer"], row["lifetimes"]) == ("differs", 8)
    assert np.isfinite(row[["ratio", "ratio_low", "ratio_high"]].tolist()).all()


def test_saturated_in_half_of_the_lifetimes_counts_against_the_arm_and_is_no_number() -> None:
    """Its p95 there grows with the length of the trial; and left out, the slow arm is judged by its lucky lifetimes."""
    row = judged("VVVVSSSS")
    assert (row["lifetimes"], row["ratio"], row["ratio_high"]) == (8, np.inf, np.inf)
    assert row["ratio_low"] > 1
    assert (row["answer"], row["p_holm"] < 0.05) == ("differs", True), "all eight lifetimes speak against it"
    turned = judged("VVVVVVVV", "VVVVSSSS")
    assert (turned["ratio"], turned["ratio_low"]) == (0, 0), "and for the other one where that is the reference"


def test_a_request_that_did_not_succeed_at_p95_counts_as_infinite() -> None:
    """A timeout at its limit would look like a response time."""
    trials = put(rows_of(), "arm == 0 and lifetime < 3", response_p95_ms=1000.0, response_p95_ms_bound=True)
    assert contrasts(trials).iloc[0]["ratio"] == np.inf


def test_what_would_decide_takes_more_lifetimes_than_there_are() -> None:
    """ "About 12 would decide a ratio of 1.2" behind 13 lifetimes tells nobody what to do: that ratio is ruled out."""
    trials = verdicts_of({0: "VVVVVVVV", 1: "VVVVVVVV"}, {0: 1.0, 1: 1.0})
    noise = trials["lifetime"].map(dict(enumerate([-0.06, 0.12, 0.03, -0.02, 0.11, -0.05, 0.09, 0.06])))
    trials["response_p95_ms"] = np.exp(noise * trials["arm"])
    row = contrasts(trials, [Contrast(1, 0)], rates=(100.0,), lifetimes=8, first_look=8).iloc[0]
    assert (row["answer"], row["looked_at"]) == ("undecided", 8)
    assert row["needed_ratio"] < 1.2
    assert row["needed"] > 8


@pytest.mark.parametrize("letter", ["U", "I"])
def test_a_lifetime_without_a_usable_value_is_left_out_and_the_count_shows_it(letter: str) -> None:
    """A reader must see on how many lifetimes an answer rests; the others say nothing of the server."""
    row = judged(f"VVVVVV{letter}{letter}")
    assert (row["lifetimes"], row["looked_at"]) == (6, 6)
    assert row["ratio_low"] < judged("VVVVVVVV")["ratio_low"], "fewer values have a wider interval"
    assert row["ratio"] == pytest.approx(2, rel=0.1)


def test_sessions_are_told_apart_only_where_they_differ() -> None:
    """A continuation on a slower day would be averaged away; but not every pair of days is a finding."""
    rng = np.random.default_rng(4)
    alike = sum(by_session(rng.normal(0, 0.15, 14), [0] * 7 + [1] * 7) != "" for _ in range(1000))
    assert alike <= stats.binom.ppf(0.995, 1000, SESSIONS_ALPHA)
    three = sum(by_session(rng.normal(0, 0.15, 21), [0, 1, 2] * 7) != "" for _ in range(1000))
    assert three <= stats.binom.ppf(0.995, 1000, SESSIONS_ALPHA)
    moved = np.log([1.0, 1.02, 0.98, 1.0, 1.52, 1.5, 1.48, 1.5])
    assert by_session(moved, [0, 0, 0, 0, 2, 2, 2, 2]) == "1.00, 1.50"
    assert by_session(moved, [0, 1, 0, 1, 0, 1, 0, 1]) == ""
    assert by_session(moved, [0] * 7 + [1]) == "", "of one lifetime nothing can be said"
    assert by_session(np.array([0.1, np.inf, np.nan, 0.2]), [0, 0, 1, 1]) == ""


def test_too_few_requests_are_no_value() -> None:
    """The p95 of twenty requests is one of them."""
    row = contrasts(put(rows_of(), "lifetime == 0 and rate_per_s == 200", n=LEAST_REQUESTS - 1)).iloc[0]
    assert row["lifetimes"] == 3
    assert contrasts(put(rows_of(), "lifetime == 0", n=LEAST_REQUESTS)).iloc[0]["lifetimes"] == 4


def test_a_lifetime_that_lacks_a_moderate_rate_has_no_value() -> None:
    """The mean over other rates than those of the reference is another quantity."""
    row = contrasts(rows_of().query("not (arm == 0 and lifetime == 2 and rate_per_s == 200)")).iloc[0]
    assert row["lifetimes"] == 3


def test_the_contrast_of_saturation_rates_is_that_of_the_middles_of_brackets() -> None:
    """A bracket's width is not an uncertainty of the ratio over lifetimes; an end that is missing is a direction."""
    named = [Contrast(1, 0, SATURATION)]
    ends = {0: [(100.0, 110.0), (103.0, 113.0)] * 2, 1: [(205.0, 225.0), (206.0, 226.0)] * 2}
    row = contrasts_table(manifest_with(), bracketed(ends), named).iloc[0]
    assert (row["answer"], row["lifetimes"]) == ("differs", 4)
    assert row["ratio"] == pytest.approx(np.sqrt(205 * 225 / 100 / 110), rel=0.02)
    endless = contrasts_table(manifest_with(), bracketed(ends | {1: [(900.0, NAN)] * 4}), named).iloc[0]
    assert (endless["ratio"], endless["lifetimes"]) == (np.inf, 4)
    none = contrasts_table(manifest_with(), bracketed(ends | {1: [(NAN, 50.0)] * 4}), named).iloc[0]
    assert (none["ratio"], none["lifetimes"]) == (0, 4)
    both = contrasts_table(manifest_with(), bracketed(dict.fromkeys((0, 1), [(900.0, NAN)] * 4)), named).iloc[0]
    assert both["lifetimes"] == 0, "of two that kept up with everything neither is ahead"


def test_a_contrast_of_an_arm_that_was_left_out_has_no_row() -> None:
    """A row of NaN would be counted as a contrast that is undecided, and cost the others their significance."""
    assert contrasts(rows_of().query("arm == 0")).empty


def test_before_the_first_look_a_contrast_has_an_estimate_and_no_answer() -> None:
    """An interval at whatever number there is would be one look too many."""
    row = contrasts(put(rows_of(), "arm == 0", response_p95_ms=9.0), first_look=8).iloc[0]
    assert (row["answer"], row["looked_at"], row["lifetimes"]) == ("undecided", 0, 4)
    assert np.isnan(row[["ratio_low", "ratio_high", "p_holm"]].astype(float).tolist()).all()
    assert row["ratio"] > 1


def test_an_undecided_contrast_says_how_many_lifetimes_would_decide_it() -> None:
    """Without it nobody knows whether an hour more would help."""
    rng = np.random.default_rng(4)
    trials = rows_of()
    trials["response_p95_ms"] = np.exp(rng.normal(0, 0.3, len(trials)))
    row = contrasts(trials).iloc[0]
    assert row["answer"] == "undecided"
    assert row["needed"] > 4
    decided = contrasts(put(rows_of(), "arm == 0", response_p95_ms=9.0)).iloc[0]
    assert np.isnan(decided["needed"])


def test_equal_arms_are_said_to_be_equal_not_undecided() -> None:
    """That it does not matter is what many readers want to know."""
    trials = rows_of()
    trials["response_p95_ms"] = 2 + 0.001 * trials["lifetime"] * trials["arm"]
    assert contrasts(trials).iloc[0]["answer"] == "equal"


def test_among_many_equal_arms_none_is_called_different() -> None:
    """With thirty arms, chance alone makes some look different: the named contrasts share one error."""
    rng = np.random.default_rng(1)
    arms = [Arm("rest", "json", batch=1 + k, framework="torchserve") for k in range(31)]
    trials = rows_of(arms, (100.0,), 6, reference=0)
    trials["response_p95_ms"] = np.exp(rng.normal(0, 0.3, len(trials)))
    manifest = manifest_with((100.0,), 6, 6, arms)
    table = contrasts_table(manifest, trials, [Contrast(k, 0) for k in range(1, 31)])
    assert (table["p_value"] <= 0.05).any(), "one by one some would be told apart"
    assert (table["answer"] == "undecided").all()


# --- ratios that describe -----------------------------------------------------------------------------


def test_ratios_by_rate_are_paired_and_of_valid_lifetimes() -> None:
    """A lower bound in a ratio is an invented number."""
    trials = put(rows_of(), "arm == 0", response_p95_ms=9.0)
    trials = put(trials, "rate_per_s == 200 and lifetime == 1 and arm == 0", verdict=SATURATED, response_p95_ms=900.0)
    trials = put(trials, "rate_per_s == 400 and lifetime < 2 and arm == 1", verdict=SATURATED)
    table = with_shares(ratios_table(trials, P95_OF_REST), arms_table(trials))
    assert table["lifetimes"].tolist() == [4, 3, 0]
    assert np.isfinite(table["ratio"]).tolist() == [True, True, False]
    assert table["ratio"].iloc[0] == pytest.approx(9 / np.prod([2.0, 2.1, 2.2, 2.3]) ** 0.25)
    assert set(table["reference_label"]) == {"gRPC"}


def test_the_share_of_a_rate_is_that_of_the_smaller_saturation_rate() -> None:
    """At the larger one, the figure would show the slower arm at half load where it is saturated."""
    trials = put(rows_of(), "rate_per_s == 400", verdict=SATURATED)
    arms = arms_table(trials).assign(saturation_per_s=[1000.0, 500.0])
    assert with_shares(ratios_table(trials, P95_OF_REST), arms)["share"].tolist() == [0.2, 0.4, 0.8]


def test_arms_of_two_blocks_are_not_paired() -> None:
    """They got other arrivals: their ratio holds the luck of the draw."""
    apart = Ratios(manifest_with(), rows_of())
    assert apart.ratio(0, 1).lifetimes == 0
    manifest = manifest_with()
    design = msgspec.structs.replace(manifest.design, contrasts=(Contrast(0, 1),))
    together = Ratios(msgspec.structs.replace(manifest, design=design), rows_of())
    assert (together.ratio(0, 1).lifetimes, together.ratio(0, 1).value) == (4, 1)


def test_a_lifetime_without_an_end_withholds_a_ratio_of_saturation_rates() -> None:
    """Left out, it would take the fastest lifetime from the side that it speaks for."""
    ends = [(200.0, 220.0)] * 3
    sound = Ratios(manifest_with(), bracketed({0: ends, 1: [(100.0, 110.0)] * 3})).capacity(0, 1)
    assert sound.value == pytest.approx(2)
    assert sound.lifetimes == 3
    open_ = Ratios(manifest_with(), bracketed({0: [*ends, (900.0, NAN)], 1: [(100.0, 110.0)] * 4})).capacity(0, 1)
    assert np.isnan([open_.value, open_.low, open_.high]).all()
    assert open_.lifetimes == 4


def test_a_withheld_interval_says_why() -> None:
    """A dash in a table is read as a mistake of the program."""
    point = row_of(points_table(rows_of(lifetimes=2)), protocol="rest", rate_per_s=100.0)
    assert point["response_p95_ms_note"] == "only 2 lifetimes; an interval needs 3"


# --- whole runs ---------------------------------------------------------------------------------------


def test_a_whole_run_says_what_it_was_made_of(tables: Tables) -> None:
    """The seams: from files to every table, against the capacities that the run was drawn with."""
    for (name, protocol), capacity in GRPC_FASTER.items():
        arm = row_of(tables.arms, implementation=name, protocol=protocol)
        assert arm["saturation_per_s"] == pytest.approx(capacity, rel=0.25)  # the grid is coarse
    slower = row_of(tables.contrasts, implementation=TFSERVING, metric=P95)
    assert (slower["answer"], slower["ratio"] > 1) == ("differs", True)
    assert (tables.trials["verdict"] == tables.trials["verdict_stored"]).all()
    assert tables.distributions.groupby(["arm", "rate_per_s"]).size().max() <= 300
    assert set(tables.queues["queue"]) == {"M/M/1", "M/D/1", "M/G/1"}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Tables)])
def test_every_table_names_arm_system_and_every_factor(name: str, tables: Tables, stored: Tables) -> None:
    """A figure that selects by a factor that a table lacks would have to read labels."""
    for each in (tables, stored):
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


def test_arms_are_shown_side_by_side_at_the_larger_moderate_rate_of_their_block(stored: Tables) -> None:
    """At rates of their own, the arm that is shown at less load looks faster."""
    assert list(stored.summary["arm"]) == sorted(stored.summary["arm"])
    assert (stored.summary.groupby("block")["rate_per_s"].nunique() == 1).all()
    assert stored.points.groupby("arm")["rate_per_s"].nunique().min() > 1
    assert not stored.contrasts.duplicated(["arm", "reference", "metric"]).any(), "one value in each lifetime"
    assert "pilot" not in set(stored.trials["phase"])


def test_usage_is_saturated_where_at_least_half_of_the_lifetimes_were(stored: Tables) -> None:
    """A mean over servers that kept up and some that did not is taken for the cost of a request."""
    own = stored.trials[stored.trials["phase"].isin(PHASES) & (stored.trials["verdict"] != INVALID)]
    saturated = (own["verdict"] == SATURATED).groupby([own["arm"], own["rate_per_s"]]).mean() >= 0.5
    assert saturated.any()
    usage = stored.usage.groupby(["arm", "rate_per_s"])["verdict"].agg(set)
    expected = saturated.map({True: {SATURATED}, False: {VALID}})
    assert usage.reindex(expected.index).to_dict() == expected.to_dict()


def test_tables_come_back_as_they_were_saved(tables: Tables, stored: Tables, tmp_path: Path) -> None:
    """Figures are drawn from the files: a lost column or type changes them."""
    for number, each in enumerate((tables, stored)):
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
    return build(tmp_path, {(TORCHSERVE, "rest"): 100.0, (TORCHSERVE, "grpc"): 100.0}, grid=(0.5,), lifetimes=1)


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


# --- warm-up ------------------------------------------------------------------------------------------


def pair(**columns: Any) -> pd.DataFrame:
    """Trials of one block at one rate, 10 s each."""
    return pd.DataFrame({"phase": "grid", "block": 0, "rate_per_s": 100.0, "duration_s": 10.0, **columns})


def test_arms_of_a_pair_are_cut_at_the_same_time() -> None:
    """Cut apart, one protocol would be measured on other arrivals than the other."""
    verdicts = [VALID, VALID, VALID, SATURATED]
    result = with_warm_up(pair(lifetime=[0, 0, 1, 1], verdict=verdicts, own_warm_up_s=[0.5, 2.0, 1.5, 9.0]))
    assert result["warm_up_s"].tolist() == [2.0, 2.0, 1.5, 1.0]


def test_an_arm_that_never_became_steady_does_not_move_the_cut_of_the_others() -> None:
    """Else one drifting arm of six leaves a finding without any percentile."""
    verdicts = [VALID, VALID, UNSTEADY, SATURATED]
    result = with_warm_up(pair(lifetime=0, verdict=verdicts, own_warm_up_s=[0.1, 0.4, np.nan, np.nan]))
    assert result["warm_up_s"].tolist() == [0.4, 0.4, 1.0, 1.0]
