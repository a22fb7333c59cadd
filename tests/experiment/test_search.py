"""If these fail, a capacity is reported that an arm does not have, or with an interval that claims too much."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from benchmarks.truth.capacity import truth
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers.synthetic_run import TRANSPORT_NS
from helpers.virtual_lab import Lab, move_in, quiet, run_in, trials_of
from infscale.analysis.tables import tabulate
from infscale.analysis.tables.saturation import lifetime_logs
from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import CAPACITY as CAPACITY_RATE
from infscale.experiment.design.design import USUAL, Contrast, Design
from infscale.experiment.design.slo import Slo
from infscale.experiment.folder import folder_for
from infscale.experiment.lifetime import pilot, search
from infscale.experiment.lifetime.search import CEILING_SHARE, MOST_INVALID, MOST_TRIALS, STEP
from infscale.experiment.session import Session
from infscale.experiment.trial import Plan
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Verdict
from infscale.records.gates.late import late_share
from infscale.records.manifest import Pilot
from infscale.records.runs import load_run
from infscale.report.wording import contrast_text

REST, GRPC = Arm("rest", framework="triton"), Arm("grpc", framework="triton")
CAPACITY = {REST: 300.0, GRPC: 800.0}


def pair(**changes: Any) -> Design:
    """Return a small design of two arms with two lifetimes."""
    fields: dict[str, Any] = {
        "finding": "test",
        "arms": (REST, GRPC),
        "contrasts": (Contrast(1, 0),),
        "least": 2,
        "budget_s": 1.0,
        "trial_s": 0.5,
        "requests": 100,
        "seed": 1,
    }
    return Design(**(fields | changes))


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab in which trials run in virtual time."""
    return move_in(Lab(lambda arm: CAPACITY[arm]), monkeypatch)


# ----------------------------------------------------------------------------- brackets, on verdicts that are imagined

ENDPOINT = Endpoint("", "", "", "", "", "", "", "")
TRUTH = 1000.0
Judge = Callable[[float], str]
"""Gives the verdict of a trial by its rate."""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Return a session whose trials are all imagined."""
    return Session(folder_for(pair(), tmp_path_factory.mktemp("raw")), quiet)


def sharp(rate: float) -> str:
    """Judge as a server does that keeps up with every rate below its limit, and with none above."""
    return VALID if rate < TRUTH else SATURATED


def searched(
    session: Session, judge: Judge, lifetimes: int, *, seed: int = 1, start: float = TRUTH, most: float = 1e9
) -> tuple[list[tuple[float | None, float | None]], list[list[float]]]:
    """Return the bracket of each of some lifetimes, and the rates that were tried."""
    tried: list[list[float]] = []

    def verdict(_: Session, __: Endpoint, one: Any, number: int, *, slo: bool) -> str:
        tried[-1].append(one.rate)
        return judge(one.rate)

    session.manifest.brackets = {}
    session.manifest.pilot = {0: Pilot(implementation="triton", saturation_per_s=start)}
    session.design = pair(seed=seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "_verdict", verdict)
        patched.setattr(search, "_most", lambda *_: most)
        patched.setattr(session, "save", lambda: None)
        for number in range(lifetimes):
            tried.append([])
            search.run(session, {0: ENDPOINT}, number)
    return [session.manifest.brackets[0][number] for number in range(lifetimes)], tried


def middles(brackets: list[tuple[float | None, float | None]]) -> list[float]:
    """Return the logarithm of the geometric middle of each bracket."""
    return [math.log(low * high) / 2 for low, high in brackets if low and high]


@pytest.mark.parametrize("start", [1 / 3, 0.8, 1.0, 1.12, 3.0])
def test_brackets_average_to_the_capacity_however_wrong_the_first_rate_was(start: float, session: Session) -> None:
    """The pilot is rough: a mean that were tied to where it began would be a number of the pilot's, not the arm's."""
    errors, firsts = [], []
    for seed in range(20):
        brackets, tried = searched(session, sharp, 30, seed=seed, start=start * TRUTH)
        assert all(low and high and low < TRUTH <= high < 1.002 * STEP * low for low, high in brackets)
        assert len(middles(brackets)) == 30
        assert all(len(own) <= 4 for own in tried[1:]), "later lifetimes begin near it"
        errors.append(np.mean(middles(brackets)) - math.log(TRUTH))
        firsts += [own[0] for own in tried]
    assert np.max(np.abs(errors)) < 0.05
    assert abs(np.mean(errors)) < 0.01
    assert len(set(firsts)) == len(firsts), "no two lifetimes begin at one rate"


@pytest.mark.parametrize("softness", [0.05, 0.12])
@pytest.mark.parametrize("start", [1 / 3, 3.0])
def test_so_they_do_where_chance_has_a_part_in_the_verdicts(softness: float, start: float, session: Session) -> None:
    rng = np.random.default_rng(3)

    def judge(rate: float) -> str:
        return VALID if math.log(rate / TRUTH) + softness * rng.logistic() < 0 else SATURATED

    errors = []
    for seed in range(40):
        brackets, _ = searched(session, judge, 30, seed=seed, start=start * TRUTH)
        errors.append(np.mean(middles(brackets)) - math.log(TRUTH))
    assert abs(np.mean(errors)) < 0.02


def test_lifetimes_of_a_server_with_a_sharp_limit_are_independent_of_one_another(session: Session) -> None:
    """Each begins at what the earlier ones found: if that decided its bracket, intervals of λ* would be too narrow.

    Of 300 intervals of Student's t from 20 lifetimes 95 % must hold the truth, less what chance allows (99 %).
    """
    held = 0
    for seed in range(300):
        logs = np.array(middles(searched(session, sharp, 20, seed=seed)[0])) - math.log(TRUTH)
        held += abs(logs.mean()) <= stats.t.ppf(0.975, 19) * logs.std(ddof=1) / math.sqrt(20)
    assert held >= stats.binom.ppf(0.005, 300, 0.95)


@pytest.mark.parametrize("softness", [0.02, 0.06, 0.12])
def test_intervals_hold_the_capacity_where_chance_has_a_part_in_the_verdicts(softness: float, session: Session) -> None:
    """A lifetime begins where earlier ones ended, and a chance verdict there moves all that follow: intervals over the
    middles of brackets hold the truth in 90 % then, those over what all verdicts say in 95 %.
    """
    rng, held = np.random.default_rng(5), 0
    made: list[str] = []

    def judge(rate: float) -> str:
        made.append(VALID if math.log(rate / TRUTH) + softness * rng.logistic() < 0 else SATURATED)
        return made[-1]

    for seed in range(300):
        made.clear()
        _, tried = searched(session, judge, 14, seed=seed, start=TRUTH * float(np.exp(rng.normal(0, 0.3))))
        lifetimes = np.repeat(np.arange(14), [len(own) for own in tried])
        columns = {"rate_per_s": np.concatenate(tried), "verdict": made, "lifetime": lifetimes}
        trials = pd.DataFrame({**columns, "arm": 0, "phase": "search", "closed": False})
        values = lifetime_logs(trials)["value"].to_numpy()
        error = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
        held += abs(values.mean() - math.log(TRUTH)) <= error
    assert held >= stats.binom.ppf(0.005, 300, 0.94)


@given(
    verdicts=st.lists(
        st.sampled_from([VALID, SATURATED, UNSTEADY, INVALID]), min_size=MOST_TRIALS, max_size=MOST_TRIALS
    ),
    start=st.floats(0.1, 1e5),
    most=st.floats(0.1, 1e5),
)
def test_a_search_ends_with_a_bracket_or_without_an_end_whatever_the_verdicts(
    verdicts: list[str], start: float, most: float, session: Session
) -> None:
    """Disturbances turn verdicts around: none may cost the rest of the night, nor a rate above the allowed one."""
    left = iter(verdicts)
    ((low, high),), (tried,) = searched(session, lambda _: next(left), 1, start=start, most=most)
    assert 1 <= len(tried) <= MOST_TRIALS
    assert max(tried) <= most
    assert min(tried) > 0
    assert verdicts[: len(tried)].count(INVALID) <= MOST_INVALID
    assert low is None or high is None or low < high
    kept_up = [rate for rate, name in zip(tried, verdicts, strict=False) if name == VALID]
    assert low == max(kept_up, default=None)


def test_a_trial_that_never_became_steady_counts_as_not_kept_up_with(session: Session) -> None:
    brackets, _ = searched(session, lambda rate: VALID if rate < TRUTH else UNSTEADY, 1)
    ((low, high),) = brackets
    assert low
    assert high
    assert low < TRUTH <= high


# -------------------------------------------------------------------------------------------- in the virtual laboratory


def test_arms_are_searched_in_turn_and_neither_is_always_first(lab: Lab, tmp_path: Path) -> None:
    """An arm that is searched minutes after the other has another machine."""
    run_in(lab, pair(), tmp_path)
    for number in (0, 1):
        own = [plan.arm_number for plan in lab.plans if plan.phase == "search" and plan.lifetime == number]
        assert set(own[:2]) == set(own[2:4]) == {0, 1}
        assert own[0] == own[3] == number, "the order is turned around by trial and by lifetime"


def test_the_capacity_of_every_arm_is_bracketed_in_the_records(lab: Lab, tmp_path: Path) -> None:
    run = run_in(lab, pair(requests=300, least=6), tmp_path)
    for number, arm in enumerate((REST, GRPC)):
        found = middles([run.manifest.brackets[number][lifetime] for lifetime in range(6)])
        assert math.exp(np.mean(found)) == pytest.approx(CAPACITY[arm], rel=0.15)
        for lifetime, (low, high) in run.manifest.brackets[number].items():
            own = [m for m in trials_of(run, "search") if (m.arm_number, m.lifetime) == (number, lifetime)]
            assert low == max(m.rate_per_s for m in own if m.judged.name == VALID)
            assert high == min(m.rate_per_s for m in own if m.judged.name != VALID and m.rate_per_s > low)


def test_an_end_that_the_clients_ceiling_hides_is_none(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above it the client is measured: a number there would be called the server's."""
    points = [(256.0, 500.0), (16_384.0, 500.0), (1_048_576.0, 500.0)]
    monkeypatch.setattr("infscale.load.ceiling.measure", lambda protocols: dict.fromkeys(protocols, points))
    run = run_in(lab, pair(), tmp_path)
    top = pytest.approx(CEILING_SHARE * 0.99 * 500)
    assert max(m.rate_per_s for m in trials_of(run, "search")) == top
    assert all(low == top and high is None for low, high in run.manifest.brackets[1].values())
    assert all(low and high for low, high in run.manifest.brackets[0].values())


@pytest.mark.parametrize("most", [120.0, 123.45, 236.7])
def test_no_rate_above_the_allowed_one_is_tried_nor_one_below_it_again_and_again(
    most: float, lab: Lab, tmp_path: Path
) -> None:
    """On somebody else's endpoint a limit is a promise, also where a rate is rounded."""
    run = run_in(lab, pair(most_per_s=most, curve=2), tmp_path)
    assert max(plan.rate_per_s for plan in lab.plans + lab.warm_ups) <= most
    assert all(one.saturation_per_s == pytest.approx(most, rel=1e-3) for one in run.manifest.pilot.values())
    assert set(run.manifest.brackets[1].values()) == {(most, None)}
    assert sum(m.arm_number == 1 for m in trials_of(run, "search")) <= 2 * 2


def test_an_invalid_trial_is_no_side_of_a_bracket(lab: Lab, tmp_path: Path) -> None:
    lab.disturbed = lambda plan: plan.phase == "search" and plan.key[1] == 50
    run = run_in(lab, pair(), tmp_path)
    for number in (0, 1):
        verdicts = [m.judged.name for m in trials_of(run, "search") if m.arm_number == number]
        assert verdicts.count(INVALID) >= 2
        assert all(low and high for low, high in run.manifest.brackets[number].values())


def test_a_search_on_a_host_that_is_always_disturbed_ends_without_a_bracket(lab: Lab, tmp_path: Path) -> None:
    lab.disturbed = lambda plan: plan.phase == "search" and plan.arm == GRPC
    run = run_in(lab, pair(), tmp_path)
    assert set(run.manifest.brackets[1].values()) == {(None, None)}
    assert sum(m.arm_number == 1 for m in trials_of(run, "search")) == 2 * MOST_INVALID
    assert all(low and high for low, high in run.manifest.brackets[0].values())


# --------------------------------------------------------------------------------------------- the rate at the SLO

SLO = Slo("p95", 20.0)


def by_slo(**changes: Any) -> Design:
    """Return a design that compares the two arms by the rate at an SLO, beside p95 and λ*."""
    contrasts = tuple(Contrast(1, 0, metric) for metric in (*USUAL, CAPACITY_RATE))
    return pair(slo="p95<20ms", contrasts=contrasts, least=6, requests=300, **changes)


def test_the_rate_at_the_slo_is_that_of_the_queue_and_its_ratio_a_contrast(lab: Lab, tmp_path: Path) -> None:
    """Of two servers with constant service it is known; that of REST is far below its λ*."""
    run = run_in(lab, by_slo(), tmp_path)
    tables = tabulate(run)
    arms = tables.arms.sort_values("arm").to_dict("records")
    truths = []
    for number, arm in enumerate((REST, GRPC)):
        service_ms = 1e3 / CAPACITY[arm]
        truths.append(CAPACITY[arm] * truth("M/D/1", Slo("p95", (SLO.limit_ms - TRANSPORT_NS / 1e6) / service_ms)))
        found = arms[number]
        assert found["capacity_low_per_s"] < found["capacity_per_s"] < found["capacity_high_per_s"]
        assert found["capacity_per_s"] == pytest.approx(truths[-1], rel=0.12)
        assert found["capacity_lifetimes"] == 6
        assert found["capacity_bound"] == ""
    assert arms[0]["capacity_high_per_s"] < arms[0]["saturation_per_s"]
    row = tables.contrasts[tables.contrasts["metric"] == CAPACITY_RATE].iloc[0]
    assert row["ratio_low"] < truths[1] / truths[0] < row["ratio_high"]
    assert row["answer"] == "differs"
    assert "gRPC keeps the SLO up to a higher rate than REST: its rate at the SLO is" in contrast_text(
        row, "gRPC", "REST"
    )


def test_its_brackets_are_stored_and_hold_what_the_trials_kept(lab: Lab, tmp_path: Path) -> None:
    run = run_in(lab, by_slo(), tmp_path)
    for number in (0, 1):
        for lifetime, (low, high) in run.manifest.capacity_brackets[number].items():
            assert low is not None
            assert high is not None
            own = [one for one in run.trials if one.manifest.phase == "capacity"]
            own = [one for one in own if (one.manifest.arm_number, one.manifest.lifetime) == (number, lifetime)]
            shares = {
                one.manifest.rate_per_s: late_share(one.samples(), SLO.limit_ms, one.manifest.duration_s) for one in own
            }
            assert shares[low] <= SLO.late < shares[high]
            assert len(own) <= MOST_TRIALS
            assert all(one.manifest.duration_s * one.manifest.rate_per_s > 200 for one in own)
    stored = tabulate(load_run(run.folder)).trials  # packed: the rows are still there
    kept = stored[stored["phase"] == "capacity"]
    assert (kept["slo_kept"] == (kept["late_share"] <= SLO.late)).all()


def test_an_interrupted_search_for_it_goes_on_where_it_was(lab: Lab, tmp_path: Path) -> None:
    """Its trials are long: none is measured twice."""
    whole = run_in(lab, by_slo(), tmp_path / "whole")
    tried: list[tuple[int, ...]] = []

    def stop(plan: Plan) -> None:
        if plan.phase == "capacity":
            tried.append(plan.key)
            if len(tried) == 3:
                raise KeyboardInterrupt

    lab.before = stop
    with pytest.raises(KeyboardInterrupt):
        run_in(lab, by_slo(), tmp_path / "parts")
    run = run_in(lab, by_slo(), tmp_path / "parts")
    assert len(tried) == len(set(tried)) + 1, "only the trial that was interrupted is measured again"
    assert run.manifest.capacity_brackets == whole.manifest.capacity_brackets


def test_a_run_without_an_slo_searches_none_and_has_no_such_columns(lab: Lab, tmp_path: Path) -> None:
    run = run_in(lab, pair(), tmp_path)
    assert trials_of(run, "capacity") == []
    assert run.manifest.capacity_brackets == {}
    assert not any("capacity" in name for name in tabulate(run).arms.columns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slo": "50ms"}, "slo='50ms' is no limit of a percentile"),
        ({"slo": "p95<2s"}, "slo='p95<2s': the limit is not below timeout_s=1; accepted: less"),
        ({"contrasts": (Contrast(1, 0, CAPACITY_RATE),)}, "metric='capacity_per_s' needs the design's slo"),
    ],
)
def test_a_design_whose_slo_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pair(**changes)


# ---------------------------------------------------------------------------------------------------------- the pilot


@given(truth=st.floats(0.05, 200_000), wrong=st.sets(st.integers(0, 15), max_size=4), leap=st.floats(0, 1e6))
def test_the_pilots_bracket_is_one_whatever_the_verdicts(
    truth: float, wrong: set[int], leap: float, session: Session
) -> None:
    """Disturbances turn verdicts around: rates are set from the bracket, and none can be set from 0."""
    tried: list[float] = []

    def trial(_: Session, __: Endpoint, arm: int, rate: float, step: int) -> Any:
        tried.append(rate)
        name = VALID if (rate < truth) != (step in wrong) else SATURATED
        return SimpleNamespace(judged=Verdict(name, (), (), {}))

    session.design = pair()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pilot, "_pilot_trial", trial)
        patched.setattr(pilot, "_completed_per_s", lambda *_: truth)
        patched.setattr(pilot, "_requests_in_response_time", lambda *_: leap)
        patched.setattr(pilot, "drain", lambda _: None)
        low, high = pilot.bracket(session, ENDPOINT, 0)
    assert 0 < low <= high < math.inf
    assert len(tried) <= pilot.MOST_TRIALS
    assert max(tried) <= session.design.most_per_s
    if not wrong and 0.5 < truth < session.design.most_per_s:
        assert low < truth <= high <= 1.01 * pilot.NEAR * low


def test_a_passing_disturbance_does_not_end_the_pilots_search(lab: Lab, tmp_path: Path) -> None:
    """A busy second would be taken for a saturated server, and the rates set far below what it does."""
    assert {"host", "lag", "run_delay", "arrivals", "steady", "enough"} == pilot.TRANSIENT_GATES
    lab.disturbed = lambda plan: plan.phase == "pilot" and plan.key[-1] in (0, 2)
    run = run_in(lab, pair(), tmp_path)
    for number, arm in enumerate((REST, GRPC)):
        assert run.manifest.pilot[number].saturation_per_s > 0.6 * CAPACITY[arm]
