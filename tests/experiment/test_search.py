"""If these fail, a capacity is reported that an arm does not have, or one arm's crash costs a night's finding."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.virtual_lab import Lab, move_in
from infscale.deployment.endpoint import Endpoint
from infscale.errors import MissingError, ServerLostError
from infscale.experiment import search
from infscale.experiment.bracket import PASSING, bracket
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import SEARCH, Contrast, Design, against_first
from infscale.experiment.folder import folder_for
from infscale.experiment.measure import measure
from infscale.experiment.session import Session
from infscale.experiment.trial import Plan
from infscale.records import manifest as manifests
from infscale.records.gate import INVALID, SATURATED, VALID, Verdict
from infscale.records.manifest import TrialManifest
from infscale.records.runs import Run, load_run

JSON = Arm("rest", "json", framework="triton")
BINARY = Arm("rest", "raw", framework="triton")
GRPC = Arm("grpc", framework="triton")
OTHER = Arm("rest", framework="torchserve")
ARMS, CONTRASTS = against_first([JSON, BINARY, GRPC, OTHER])
CAPACITY = {JSON: 150.0, BINARY: 300.0, GRPC: 400.0, OTHER: 200.0}


def capacity(arm: Arm) -> float:
    return CAPACITY[arm]


def design_of(**changes: Any) -> Design:
    """Return a small search: four arms that are compared, on two deployments."""
    fields: dict[str, Any] = {
        "finding": "test",
        "arms": ARMS,
        "contrasts": CONTRASTS,
        "rates": SEARCH,
        "replicates": 2,
        "trial_s": 0.5,
        "fractions": (0.4,),
        "bisections": 2,
    }
    return Design(**(fields | changes))


def pair(**changes: Any) -> Design:
    """Return a search of two arms with one replicate."""
    fields: dict[str, Any] = {"arms": (JSON, GRPC), "contrasts": (Contrast(1, 0),), "replicates": 1}
    return design_of(**(fields | changes))


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab in which trials run in virtual time."""
    return move_in(Lab(capacity), monkeypatch)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Lab]:
    """Return a complete run of the small search, and the lab in which it was measured."""
    with pytest.MonkeyPatch.context() as patched:
        lab = move_in(Lab(capacity), patched)
        return run_in(lab, design_of(), tmp_path_factory.mktemp("raw")), lab


def run_in(lab: Lab, design: Design, place: Path, **more: Any) -> Run:
    """Measure a design in a lab."""
    return measure(design, place, say=more.pop("say", quiet), start=more.pop("start", lab.start), **more)


def trials_of(run: Run, phase: str) -> list[TrialManifest]:
    """Return the manifests of a run's trials of one phase."""
    return [one.manifest for one in run.trials if one.manifest.phase == phase]


# ----------------------------------------------------------------------------------------------- what is measured


def test_every_arm_is_measured_at_the_common_rate_of_its_block(done: tuple[Run, Lab]) -> None:
    """The rate that all arms keep up with: at others, one would be compared with its own collapse."""
    run, _ = done
    pilots = run.manifest.pilot
    assert set(pilots) == {0, 1, 2, 3}
    (rate,) = run.manifest.rates_per_s[0]
    assert rate == pytest.approx(0.4 * min(pilot.saturation_per_s for pilot in pilots.values()), rel=0.01)
    common = trials_of(run, "grid")
    assert Counter((m.arm_number, m.replicate) for m in common) == {(arm, r): 1 for arm in range(4) for r in (0, 1)}
    assert {m.rate_per_s for m in common} == {rate}
    assert {m.judged.name for m in common} == {VALID}
    for number, pilot in pilots.items():
        assert pilot.encode_us == pilot.decode_us == 1.0
        assert pilot.differences == {"rest/json": 1e-7}
        assert 0.6 * capacity(ARMS[number]) < pilot.saturation_per_s < 1.5 * capacity(ARMS[number])


def test_arms_of_a_block_get_the_same_arrivals_at_the_common_rate(done: tuple[Run, Lab]) -> None:
    run, _ = done
    for replicate in (0, 1):
        schedules = {
            tuple(one.samples(["scheduled_ns"])["scheduled_ns"])
            for one in run.trials
            if (one.manifest.phase, one.manifest.replicate) == ("grid", replicate)
        }
        assert len(schedules) == 1


def test_every_replicate_brackets_the_capacity_of_every_arm(done: tuple[Run, Lab]) -> None:
    run, _ = done
    for number, arm in enumerate(ARMS):
        for replicate in (0, 1):
            own = [m for m in trials_of(run, "bisection") if (m.arm_number, m.replicate) == (number, replicate)]
            low = max(m.rate_per_s for m in own if m.judged.name == VALID)
            high = min(m.rate_per_s for m in own if m.judged.name == SATURATED)
            assert 0.6 * capacity(arm) < low < high < 1.4 * capacity(arm)
            assert high / low < 1.3


def test_arms_of_one_deployment_share_a_server_within_a_replicate(done: tuple[Run, Lab]) -> None:
    _, lab = done
    assert Counter(lab.starts) == {"triton": 3, "torchserve": 3}, "one for the pilot, one for each replicate"


def test_what_processes_used_is_read_in_the_trials_that_are_compared(done: tuple[Run, Lab]) -> None:
    run, _ = done
    assert all(m.usage for m in trials_of(run, "grid") + trials_of(run, "bisection"))
    assert not any(m.usage for m in trials_of(run, "pilot"))
    assert {one.manifest.phase for one in run.trials if not one.usage().empty} == {"grid", "bisection"}


def test_a_complete_search_is_packed_and_not_measured_again(done: tuple[Run, Lab], lab: Lab) -> None:
    run, _ = done
    assert run.manifest.packed
    lines: list[str] = []
    run_in(lab, design_of(), run.folder.parent, say=lines.append)
    assert lines == [f"{run.folder.name} is complete: nothing to measure"]


@pytest.mark.parametrize("after", [0, 9, 30])
def test_an_interrupted_search_is_continued_not_repeated(
    after: int, done: tuple[Run, Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(plan: Plan) -> None:
        if len(interrupted.plans) > after:
            raise KeyboardInterrupt

    interrupted = move_in(Lab(capacity, before=stop), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_in(interrupted, design_of(), tmp_path)
    assert len(load_run(folder_for(design_of(), tmp_path)).trials) == after
    run, (whole, _) = run_in(move_in(Lab(capacity), monkeypatch), design_of(), tmp_path), done
    assert [one.manifest.trial_id for one in run.trials] == [one.manifest.trial_id for one in whole.trials]
    assert run.manifest.rates_per_s == whole.manifest.rates_per_s


def test_a_trial_at_the_common_rate_is_tried_three_times(lab: Lab, tmp_path: Path) -> None:
    """An interval needs three valid pairs; a host that is always disturbed must not be measured without end."""
    lab.disturbed = lambda plan: plan.phase == "grid" and (plan.arm == GRPC or plan.attempt < 3)
    run = run_in(lab, pair(), tmp_path)
    names = {(m.arm_number, m.attempt): m.judged.name for m in trials_of(run, "grid")}
    assert [names[0, attempt] for attempt in (1, 2, 3)] == [INVALID, INVALID, VALID]
    assert [names[1, attempt] for attempt in (1, 2, 3)] == [INVALID] * 3
    assert len(names) == 6


def test_an_invalid_trial_is_no_side_of_a_bracket(lab: Lab, tmp_path: Path) -> None:
    lab.disturbed = lambda plan: plan.phase == "bisection" and plan.key[-1] == 50
    run = run_in(lab, pair(), tmp_path)
    for number in (0, 1):
        verdicts = [m.judged.name for m in trials_of(run, "bisection") if m.arm_number == number]
        assert verdicts.count(INVALID) == 1
        assert {VALID, SATURATED} < set(verdicts)


def test_no_rate_above_the_allowed_one_is_tried_by_the_pilot(lab: Lab, tmp_path: Path) -> None:
    run = run_in(lab, pair(most_per_s=120.0), tmp_path)
    assert {pilot.saturation_per_s for pilot in run.manifest.pilot.values()} == {120.0}
    assert max(m.rate_per_s for m in trials_of(run, "pilot")) == 120


# --------------------------------------------------------------------------------------- brackets, whatever comes


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9, 1.0, 1.7, 2.5, 6.0])
def test_a_search_brackets_a_capacity_closely_however_wrong_the_pilot_was(
    share: float, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide bracket is in every interval, and one without an end withholds the ratio."""
    tried = []

    def run(session: Session, endpoint: Endpoint, name: str, arm: int, rate: float, *more: Any) -> str:
        tried.append(rate)
        return VALID if rate < 1000 * share else SATURATED

    monkeypatch.setattr(search, "_run", run)
    design = pair(bisections=3)
    session = Session(folder_for(design, tmp_path), quiet, lab.start)
    session.manifest.pilot[0] = manifests.Pilot(implementation="triton", saturation_per_s=1000.0)
    search._capacity(session, Endpoint("", "", "", "", "", "", "", ""), 0, 0)
    low, high = max(r for r in tried if r < 1000 * share), min(r for r in tried if r >= 1000 * share)
    assert low < high <= (1.3 if 0.5 <= share <= 2.5 else 2) * low
    assert len(tried) <= design.bisections + search.MORE


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Return a session whose trials are all imagined."""
    return Session(folder_for(pair(), tmp_path_factory.mktemp("raw")), quiet)


@given(truth=st.floats(0.05, 200_000), wrong=st.sets(st.integers(0, 15), max_size=4))
def test_the_pilots_bracket_is_one_whatever_the_verdicts(truth: float, wrong: set[int], session: Session) -> None:
    """Disturbances turn verdicts around: rates are set from the bracket, and none can be set from 0."""
    tried: list[float] = []

    def keep_up(_: Session, __: Endpoint, arm: int, rate: float, step: int) -> Any:
        tried.append(rate)
        name = VALID if (rate < truth) != (step in wrong) else SATURATED
        return _Judged(name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("infscale.experiment.bracket._keep_up", keep_up)
        patched.setattr("infscale.experiment.bracket._completed_per_s", lambda *_: truth)
        patched.setattr("infscale.experiment.bracket.drain", lambda _: None)
        low, high = bracket(session, Endpoint("", "", "", "", "", "", "", ""), 0)
    assert 0 < low <= high < float("inf")
    assert len(tried) <= 16
    assert max(tried) <= session.design.most_per_s
    if not wrong and 0.5 < truth < session.design.most_per_s:
        assert low < truth <= high <= 1.31 * low


class _Judged:
    """A trial's manifest of which only the verdict is known."""

    def __init__(self, name: str) -> None:
        self.judged = Verdict(name, (), (), {})


def test_a_passing_disturbance_does_not_end_the_pilots_search(lab: Lab, tmp_path: Path) -> None:
    """A busy second would be taken for a saturated server, and the rates set far below what it does."""
    assert {"host", "lag", "run_delay", "arrivals"} == PASSING
    lab.disturbed = lambda plan: plan.phase == "pilot" and plan.key[-1] in (0, 2)
    run = run_in(lab, pair(), tmp_path)
    for number, arm in enumerate((JSON, GRPC)):
        assert run.manifest.pilot[number].saturation_per_s > 0.6 * capacity(arm)


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_a_server_that_is_lost_again_and_again_costs_the_arm_that_loses_it(lab: Lab, tmp_path: Path) -> None:
    """A night's finding must not end at the one arm that a server does not survive, nor blame the one after it."""
    once = [None]

    def lose(plan: Plan) -> None:
        if plan.phase == "pilot" and (plan.arm == GRPC or (plan.arm == JSON and once and once.pop() is None)):
            raise ServerLostError(f"lost under {plan.arm.protocol}")

    lab.before = lose
    lines: list[str] = []
    run = run_in(lab, design_of(replicates=1), tmp_path, say=lines.append)
    assert set(run.manifest.pilot) == {0, 1, 3}
    assert run.manifest.skipped == {2: "lost under grpc"}
    assert run.manifest.lost == [2]
    assert "gRPC: left out: lost under grpc" in "\n".join(lines)
    assert {one.manifest.arm_number for one in run.trials} == {0, 1, 3}
    assert run.manifest.status == "complete"
    assert run.measured == [0, 1, 3]


def test_a_server_that_is_lost_under_no_arm_ends_the_run(lab: Lab, tmp_path: Path) -> None:
    def start(*_: object, **more: object) -> Any:
        raise ServerLostError("the port is taken again and again")

    with pytest.raises(ServerLostError, match="the port is taken"):
        run_in(lab, pair(), tmp_path, start=start)


def test_a_replicate_whose_server_is_lost_again_and_again_is_given_up_and_said(lab: Lab, tmp_path: Path) -> None:
    """What the others have is kept."""

    def lose(plan: Plan) -> None:
        if plan.phase == "bisection" and plan.replicate == 0:
            raise ServerLostError("lost in a search")

    lab.before = lose
    run = run_in(lab, pair(replicates=2), tmp_path)
    assert run.manifest.status == "complete"
    lost, given_up = run.manifest.restarts[:3], run.manifest.restarts[3]
    assert lost == ["A server was lost under load and started again: lost in a search."] * 3
    assert given_up.startswith("Replicate 1 of ")
    assert given_up.endswith(" was given up: lost in a search.")
    assert {m.replicate for m in trials_of(run, "grid")} == {0, 1}
    assert {m.replicate for m in trials_of(run, "bisection")} == {1}


def test_what_a_machine_lacks_leaves_its_arms_out_with_the_reason(lab: Lab, tmp_path: Path) -> None:
    """A finding on a machine without one framework still has the others."""

    def start(framework: str, *args: Any, **more: Any) -> Any:
        if framework == "torchserve":
            raise MissingError("TorchServe is not installed\npip install torchserve")
        return lab.start(framework, *args, **more)

    run = run_in(lab, design_of(replicates=1), tmp_path, start=start)
    assert run.manifest.skipped == {3: "TorchServe is not installed"}
    assert run.measured == [0, 1, 2]
    assert {one.manifest.arm_number for one in run.trials} == {0, 1, 2}


def test_a_machine_on_which_no_arm_can_be_measured_is_told_all_reasons(lab: Lab, tmp_path: Path) -> None:
    def start(framework: str, *args: Any, **more: Any) -> Any:
        raise MissingError(f"{framework} is not installed")

    with pytest.raises(MissingError, match=r"REST, JSON: triton is not installed; .*torchserve is not installed"):
        run_in(lab, design_of(), tmp_path, start=start)


def test_a_version_of_http_that_this_server_does_not_speak_leaves_its_arm_out(lab: Lab, tmp_path: Path) -> None:
    """The embedded server speaks HTTP/2 in clear text and the real one does not: the machine decides."""
    arms = (Arm("rest", framework="tfserving"), Arm("rest", framework="tfserving", http="2"))
    lab.capacity = lambda arm: 200.0
    run = run_in(lab, pair(arms=arms), tmp_path)
    assert "does not speak it; accepted: 1.1" in run.manifest.skipped[1]
    assert run.measured == [0]


def test_servers_of_one_framework_that_were_deployed_in_two_ways_are_told_apart(lab: Lab, tmp_path: Path) -> None:
    """Triton with its cache and without are two systems in the report."""
    arms = (GRPC, Arm("grpc", framework="triton", cache=True))
    lab.capacity = lambda arm: 200.0
    run = run_in(lab, pair(arms=arms), tmp_path)
    assert {name: one.label for name, one in run.manifest.implementations.items()} == {
        "triton": "triton",
        "triton with a cache": "triton with a cache",
    }
