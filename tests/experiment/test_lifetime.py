"""If these fail, arms of a lifetime are not compared like with like, or one lost server costs more than it must."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import pytest

from helpers.virtual_lab import Lab, move_in, run_in, trials_of
from infscale.errors import DeploymentError, MissingError, ServerLostError
from infscale.experiment import trial
from infscale.experiment.design.arm import CLIENTS, Arm
from infscale.experiment.design.design import SHARES, TOOLS, Contrast, Design, against_first
from infscale.experiment.lifetime.lifetime import ATTEMPTS, BEYOND, CHECK_LIFETIMES, CURVE_LIFETIMES, order
from infscale.experiment.session import RESTARTS
from infscale.experiment.trial import Plan
from infscale.records.gate import INVALID, UNSTEADY, VALID
from infscale.records.runs import Run

REST, GRPC = Arm("rest", framework="triton"), Arm("grpc", framework="triton")
BATCH = Arm("rest", framework="triton", batch=4)
OTHER_REST, OTHER_GRPC = Arm("rest", framework="torchserve"), Arm("grpc", framework="torchserve")
ONE_CONNECTION = Arm("grpc", framework="triton", connections=1)
ARMS, CONTRASTS = against_first([REST, GRPC], [OTHER_REST, OTHER_GRPC])
CAPACITY = {REST: 300.0, GRPC: 600.0, BATCH: 250.0, OTHER_REST: 150.0, OTHER_GRPC: 200.0, ONE_CONNECTION: 500.0}


def capacity(arm: Arm) -> float:
    return CAPACITY[arm]


def design_of(**changes: Any) -> Design:
    """Return a small design: two frameworks with two arms each, two lifetimes of each."""
    fields: dict[str, Any] = {
        "finding": "test",
        "arms": ARMS,
        "contrasts": CONTRASTS,
        "least": 2,
        "budget_s": 1.0,
        "trial_s": 0.5,
        "requests": 100,
        "seed": 1,
    }
    return Design(**(fields | changes))


def pair(**changes: Any) -> Design:
    """Return a design of two arms on one server."""
    arms, contrasts = against_first([REST, GRPC])
    return design_of(**({"arms": arms, "contrasts": contrasts} | changes))


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab in which trials run in virtual time."""
    return move_in(Lab(capacity), monkeypatch)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Lab]:
    """Return a complete run of six lifetimes of each framework, with a curve and a check; and its lab."""
    with pytest.MonkeyPatch.context() as patched:
        lab = move_in(Lab(capacity), patched)
        design = design_of(least=6, curve=2, sensitivity=(ONE_CONNECTION,))
        return run_in(lab, design, tmp_path_factory.mktemp("raw")), lab


# ------------------------------------------------------------------------------- what is measured, in which order


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", range(4))
def test_each_of_two_arms_is_first_equally_often_at_every_rate(seed: int, k: int) -> None:
    """What comes second finds warmer caches and an older server: one arm alone must not have that."""
    firsts = Counter(order(design_of(seed=seed), [4, 7], number, k)[0] for number in range(20))
    assert firsts == {4: 10, 7: 10}


def test_orders_of_more_arms_hold_each_once_and_are_reversed_in_every_second_lifetime() -> None:
    orders = [order(design_of(), range(5), number, 1) for number in range(20)]
    assert {tuple(sorted(one)) for one in orders} == {(0, 1, 2, 3, 4)}
    assert all(first == second[::-1] for first, second in zip(orders[::2], orders[1::2], strict=True))
    assert len({tuple(one) for one in orders}) > 10, "else the middle one of three would always be in the middle"


def test_arms_are_loaded_in_turn_at_one_rate_before_the_next(done: tuple[Run, Lab]) -> None:
    """Minutes apart, a difference between arms may be the machine's."""
    _, lab = done
    plans = [one for one in lab.plans if one.phase == "grid" and one.arm_number < 2 and one.lifetime >= CURVE_LIFETIMES]
    rounds = [list(own) for _, own in groupby(plans, key=lambda one: (one.lifetime, one.rate_per_s))]
    assert len(rounds) == len(SHARES) * (6 - CURVE_LIFETIMES)
    assert all({one.arm_number for one in own} == {0, 1} for own in rounds)
    firsts = {rate: Counter(own[0].arm_number for own in rounds if own[0].rate_per_s == rate) for rate in _rates(done)}
    assert all(count == {0: 2, 1: 2} for count in firsts.values())


def _rates(done: tuple[Run, Lab]) -> list[float]:
    return done[0].manifest.rates_per_s[0]


def test_arms_of_a_block_get_the_same_arrivals_in_a_round(done: tuple[Run, Lab]) -> None:
    """Pairing: a difference between arms must not be a difference between draws."""
    run, _ = done
    schedules: dict[tuple[int, float, int, int], set[tuple[int, ...]]] = {}
    for one in run.trials:
        if (m := one.manifest).phase in ("grid", "sensitivity"):
            arrivals = tuple(one.samples(["scheduled_ns"])["scheduled_ns"])
            schedules.setdefault((m.block, m.rate_per_s, m.lifetime, m.attempt), set()).add(arrivals)
    assert {len(alike) for alike in schedules.values()} == {1}
    drawn = [next(iter(schedules[0, _rates(done)[0], number, 1])) for number in range(6)]
    assert len(set(drawn)) == 6, "lifetimes draw anew"


def found_first(run: Run, arm: int) -> float:
    """Return λ* of an arm as the first lifetime found it, requests/s."""
    low, high = run.manifest.brackets[arm][0]
    assert low
    assert high
    return math.sqrt(low * high)


def test_moderate_rates_are_shares_of_the_smallest_saturation_rate_of_a_block(done: tuple[Run, Lab]) -> None:
    """At others, one arm would be compared with the collapse of the other."""
    run, _ = done
    assert SHARES == (0.2, 0.4)
    for block, arms in ((0, (0, 1)), (2, (2, 3))):
        rough = [found_first(run, arm) for arm in arms]
        assert run.manifest.rates_per_s[block] == pytest.approx([0.2 * min(rough), 0.4 * min(rough)], rel=0.01)
        for arm, found in zip(arms, rough, strict=True):
            assert 0.7 * capacity(ARMS[arm]) < found < 1.4 * capacity(ARMS[arm])


def test_every_lifetime_has_every_arm_once_at_each_moderate_rate_and_a_bracket(done: tuple[Run, Lab]) -> None:
    run, _ = done
    moderate = Counter(
        (m.arm_number, m.lifetime, m.rate_per_s)
        for m in trials_of(run, "grid")
        if m.rate_per_s in run.manifest.rates_per_s[m.block] and m.attempt == 1
    )
    assert moderate == {
        (arm, number, rate): 1
        for arm in range(4)
        for number in range(6)
        for rate in run.manifest.rates_per_s[2 * (arm // 2)]
    }
    for arm in range(4):
        brackets = run.manifest.brackets[arm]
        assert set(brackets) == set(range(6))
        assert all(low and high and 1.2 < high / low < 1.26 for low, high in brackets.values())


def test_the_curve_is_measured_in_the_first_lifetimes_alone_and_no_arm_far_beyond_its_limit(
    done: tuple[Run, Lab],
) -> None:
    """The figure of a run needs the knee; but trials of a collapsed server take time, and bring it down."""
    run, _ = done
    curve = run.manifest.curve_per_s[0]
    rough = [found_first(run, arm) for arm in (0, 1)]
    assert run.manifest.rates_per_s[0][-1] < curve[0] < curve[1]
    assert curve[1] == pytest.approx(1.1 * max(rough), rel=0.01)
    own = [m for m in trials_of(run, "grid") if m.rate_per_s in curve and m.block == 0]
    expected = {
        (arm, rate, number)
        for arm in (0, 1)
        for rate in curve
        for number in range(CURVE_LIFETIMES)
        if rate <= BEYOND * rough[arm]
    }
    assert {(m.arm_number, m.rate_per_s, m.lifetime) for m in own} == expected
    assert (0, curve[1], 0) not in expected


def test_the_sensitivity_check_is_made_beside_the_arm_that_it_varies(done: tuple[Run, Lab]) -> None:
    run, _ = done
    checked = trials_of(run, "sensitivity")
    assert {(m.arm_number, m.lifetime) for m in checked} == {(4, number) for number in range(CHECK_LIFETIMES)}
    assert {m.rate_per_s for m in checked} == {_rates(done)[-1]}
    assert {m.arm.connections for m in checked} == {1}


def test_arms_of_one_deployment_share_a_server_that_is_started_once_in_a_lifetime(done: tuple[Run, Lab]) -> None:
    """Lifetimes on one server share its luck: their spread would be too small."""
    _, lab = done
    assert Counter(lab.starts) == {"triton": 6, "torchserve": 6}


def test_what_processes_used_is_read_in_the_trials_that_are_compared(done: tuple[Run, Lab]) -> None:
    run, _ = done
    assert all(m.usage for m in trials_of(run, "grid") + trials_of(run, "search"))
    assert not any(m.usage for m in trials_of(run, "pilot"))
    assert {one.manifest.phase for one in run.trials if not one.usage().empty} == {"grid", "sensitivity", "search"}


def test_the_records_say_which_lifetimes_there_were_and_what_only_the_first_ones_took(done: tuple[Run, Lab]) -> None:
    """The time that is left is divided by them."""
    run, _ = done
    for arms in ([0, 1], [2, 3]):
        own = [one for one in run.manifest.lifetimes if one.arms == arms]
        assert [one.number for one in own] == list(range(6))
        assert own[0].extra_s > own[1].extra_s > 0, "the rough search, and the curve"
        assert all(one.extra_s < one.seconds for one in own)
        assert own[5].extra_s == 0


def test_every_arm_is_warm_before_its_first_trial_of_a_lifetime(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JIT compiler's first second would be in the p95 of whoever comes first."""
    warmed: set[Arm] = set()

    def before(plan: Plan) -> None:
        assert plan.phase == "pilot" or plan.arm in warmed

    def start(framework: str, *args: Any, **more: Any) -> Any:
        warmed.clear()
        return lab.start(framework, *args, **more)

    def run(endpoint: Any, plan: Plan, **more: Any) -> Any:
        outcome = lab.run(endpoint, plan, **more)
        warmed.update(one.arm for one in lab.warm_ups[-1:])
        return outcome

    lab.before = before
    monkeypatch.setattr("infscale.experiment.trial.run", run)
    assert run_in(lab, pair(), tmp_path, start=start).manifest.status == "complete"


def test_a_server_that_was_started_again_is_warm_before_the_lifetime_goes_on(lab: Lab, tmp_path: Path) -> None:
    """The search would take a cold server for one that does not keep up, and λ* would be too low."""
    lose = losing(lab, lambda plan: plan.phase == "search" and plan.lifetime == 1, 1)
    warm_ups: list[int] = []

    def before(plan: Plan) -> None:
        lose(plan)
        warm_ups.append(len(lab.warm_ups))

    lab.before = before
    run_in(lab, pair(), tmp_path)
    at = next(k for k, plan in enumerate(lab.plans) if plan.phase == "search" and plan.lifetime == 1)
    assert {plan.arm for plan in lab.warm_ups[warm_ups[at - 1] : warm_ups[at]]} == {REST, GRPC}


# ------------------------------------------------------------------------------------------------ what goes wrong


def losing(lab: Lab, when: Callable[[Plan], bool], times: int) -> Callable[[Plan], None]:
    """Let the server be lost at the first trials that fit."""
    losses = [0]

    def before(plan: Plan) -> None:
        if when(plan) and losses[0] < times:
            losses[0] += 1
            raise ServerLostError("the server died", "the end of its log")

    lab.before = before
    return before


def test_an_invalid_trial_is_repeated_at_once_up_to_three_times(lab: Lab, tmp_path: Path) -> None:
    """A passing disturbance must not cost a lifetime, nor a lasting one the whole night."""
    lab.disturbed = lambda plan: plan.phase == "grid" and (plan.arm == GRPC or plan.attempt < ATTEMPTS)
    run = run_in(lab, pair(), tmp_path)
    grid = [plan for plan in lab.plans if plan.phase == "grid"]
    assert [plan.attempt for plan in grid] == [1, 2, 3] * 8
    names = {(m.arm_number, m.attempt): m.judged.name for m in trials_of(run, "grid") if m.judged.name != "UNSTEADY"}
    assert [names[0, attempt] for attempt in (1, 2, 3)] == [INVALID, INVALID, VALID]
    assert [names[1, attempt] for attempt in (1, 2, 3)] == [INVALID] * 3
    assert run.manifest.status == "complete"


def test_a_trial_that_never_became_steady_is_repeated_too(lab: Lab, tmp_path: Path) -> None:
    """A lifetime without its percentile says nothing, and a sound trial is unsteady by chance now and then."""
    lab.drifting = lambda plan: plan.phase == "grid" and plan.arm == GRPC and plan.attempt == 1
    run = run_in(lab, pair(), tmp_path)
    names = [(m.attempt, m.judged.name) for m in trials_of(run, "grid") if m.arm_number == 1]
    assert {name for attempt, name in names if attempt == 1} == {UNSTEADY}
    assert sum(attempt == 2 for attempt, _ in names) == 4
    assert all(plan.attempt <= ATTEMPTS for plan in lab.plans)


def test_servers_that_do_not_fit_into_memory_together_are_not_started(lab: Lab, tmp_path: Path) -> None:
    """The machine would begin to swap, or kill one of them: hours later, and without a word."""
    lab.free_gib = 0.5
    with pytest.raises(DeploymentError, match=r"0\.5 GiB of memory are left for a server that may take 0\.75 GiB"):
        run_in(lab, pair(), tmp_path)
    assert not lab.starts


def test_a_lifetime_whose_server_is_lost_goes_on_where_it_was(lab: Lab, tmp_path: Path) -> None:
    """One crash at three in the morning must not end the night's run, nor go unmentioned."""
    losing(lab, lambda plan: plan.phase == "grid" and plan.lifetime == 1 and plan.key[1] == 1, 3)
    lines: list[str] = []
    run = run_in(lab, pair(), tmp_path, say=lines.append)
    text = "A server was lost under load and started again: the server died."
    assert run.manifest.status == "complete"
    assert run.manifest.restarts == [text] * 3
    assert lines.count(text) == 3
    assert [one.number for one in run.manifest.lifetimes] == [0, 1]
    assert Counter((m.arm_number, m.lifetime) for m in trials_of(run, "grid")) == {
        (arm, number): 2 for arm in (0, 1) for number in (0, 1)
    }
    before = [plan for plan in lab.plans if plan.phase == "grid" and plan.lifetime == 1 and plan.key[1] == 0]
    assert len(before) == 2, "what was measured before the loss is not measured again"
    assert len(lab.starts) == 2 + 3
    assert set(run.manifest.brackets[0]) == {0, 1}


def test_a_lifetime_whose_servers_are_lost_again_and_again_is_given_up_and_said(lab: Lab, tmp_path: Path) -> None:
    """What it has is kept, and later lifetimes have their own chance."""
    losing(lab, lambda plan: plan.phase == "search" and plan.lifetime == 1, RESTARTS + 1)
    run = run_in(lab, pair(least=3), tmp_path)
    assert run.manifest.status == "complete"
    assert len(run.manifest.restarts) == RESTARTS + 1
    assert run.manifest.restarts[-1] == (
        "Lifetime 2 of REST, gRPC was given up because its servers were lost again and again: the server died."
    )
    assert [one.number for one in run.manifest.lifetimes] == [0, 1, 2]
    assert {m.lifetime for m in trials_of(run, "grid")} == {0, 1, 2}
    assert {m.lifetime for m in trials_of(run, "search")} == {0, 2}


def test_a_server_that_is_lost_again_and_again_costs_the_arm_that_loses_it(lab: Lab, tmp_path: Path) -> None:
    """A night's finding must not end at the one arm that a server does not survive, nor blame the one before it."""
    arms, contrasts = against_first([REST, BATCH, GRPC])
    once = [None]

    def lose(plan: Plan) -> None:
        if plan.phase == "pilot" and (plan.arm == BATCH or (plan.arm == REST and once and once.pop() is None)):
            raise ServerLostError(f"lost under {plan.arm.batch} rows")

    lab.before = lose
    lines: list[str] = []
    run = run_in(lab, design_of(arms=arms, contrasts=contrasts), tmp_path, say=lines.append)
    assert run.measured == [0, 2]
    assert run.manifest.skipped == {1: "lost under 4 rows"}
    assert run.manifest.lost == [1]
    assert "left out: lost under 4 rows" in "\n".join(lines)
    assert {one.manifest.arm_number for one in run.trials} == {0, 2}
    assert {m.lifetime for m in trials_of(run, "grid")} == {0, 1}, "the first lifetime goes on without it"


def test_a_server_that_is_lost_under_no_arm_ends_the_run_with_its_reason(lab: Lab, tmp_path: Path) -> None:
    def start(*_: object, **more: object) -> Any:
        raise ServerLostError("the port is taken again and again")

    with pytest.raises(DeploymentError, match="the port is taken"):
        run_in(lab, pair(), tmp_path, start=start)


def test_what_a_machine_lacks_leaves_out_the_arms_of_that_deployment_alone(lab: Lab, tmp_path: Path) -> None:
    """A finding on a machine without one framework still has the others."""
    arms, contrasts = against_first([REST, OTHER_REST, GRPC], [OTHER_GRPC])

    def start(framework: str, *args: Any, **more: Any) -> Any:
        if framework == "torchserve":
            raise MissingError("TorchServe is not installed\npip install torchserve")
        return lab.start(framework, *args, **more)

    run = run_in(lab, design_of(arms=arms, contrasts=contrasts), tmp_path, start=start)
    assert run.manifest.status == "complete"
    assert run.manifest.skipped == dict.fromkeys((1, 3), "TorchServe is not installed")
    assert run.measured == [0, 2]
    assert {(m.arm_number, m.lifetime) for m in trials_of(run, "grid")} == {(a, n) for a in (0, 2) for n in (0, 1)}


def test_a_machine_on_which_no_arm_can_be_measured_is_told_all_reasons(lab: Lab, tmp_path: Path) -> None:
    def start(framework: str, *args: Any, **more: Any) -> Any:
        raise MissingError(f"{framework} is not installed")

    with pytest.raises(MissingError, match=r"Triton, REST: triton is not .*; TorchServe, gRPC: torchserve is"):
        run_in(lab, design_of(), tmp_path, start=start)
    run = run_in(lab, design_of(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert run.measured == [0, 1, 2, 3], "who has installed what was lacking goes on"
    assert {m.lifetime for m in trials_of(run, "grid")} == {0, 1}


def test_a_run_ends_when_what_it_needs_is_gone_in_its_middle(lab: Lab, tmp_path: Path) -> None:
    """It has lifetimes, and waiting for more would take for ever."""

    def start(framework: str, *args: Any, **more: Any) -> Any:
        if lab.starts:
            raise MissingError("Triton is not installed")
        return lab.start(framework, *args, **more)

    run = run_in(lab, pair(budget_s=1e6), tmp_path, start=start)
    assert run.manifest.status == "complete"
    assert {m.lifetime for m in trials_of(run, "grid")} == {0}
    assert run.manifest.skipped == dict.fromkeys((0, 1), "Triton is not installed")


CLOSED = Arm("rest", framework="triton", client="locust", connections=8)


def test_a_closed_loop_has_no_search_and_its_throughput_has_a_part_in_the_rates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A search for the λ* of users who wait would go up for ever, and rates that they do not reach are no load."""
    lab = move_in(Lab(lambda arm: 100.0 if arm.closed else 300.0), monkeypatch)
    contrasts = (Contrast(1, 0),)
    run = run_in(lab, design_of(finding=TOOLS, arms=(REST, CLOSED), contrasts=contrasts), tmp_path)
    assert {one.arm_number for one in lab.plans if one.phase == "search"} == {0}
    assert set(run.manifest.brackets) == {0}
    throughput = run.manifest.pilot[1].saturation_per_s
    assert throughput == pytest.approx(100.0, rel=0.2)
    assert run.manifest.rates_per_s[0] == pytest.approx([share * throughput for share in SHARES], rel=0.01)
    assert {one.arm_number for one in lab.plans if one.phase == "grid"} == {0, 1}


def test_a_client_without_a_nominal_rate_is_tried_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """λ does not set how much LoadGen's SingleStream sends: at every rate it is the same load."""
    lab = move_in(Lab(lambda arm: 1000.0), monkeypatch)
    arms = (CLOSED, msgspec.structs.replace(CLOSED, client="loadgen-single", connections=0))
    run = run_in(lab, design_of(arms=arms, contrasts=(Contrast(1, 0),)), tmp_path)
    tried = Counter(one.arm_number for one in trials_of(run, "pilot"))
    assert tried[0] > 2
    assert tried[1] == 2


@pytest.mark.parametrize("client", ["locust", "loadgen-server"])
def test_a_client_that_is_not_installed_leaves_its_arm_out_with_the_command(
    client: str, lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing() -> None:
        raise MissingError("it is not installed: pip install it")

    monkeypatch.setitem(trial.CHECKS, CLIENTS[client].tool, missing)
    arms = (REST, msgspec.structs.replace(REST, client=client))
    run = run_in(lab, design_of(finding=TOOLS, arms=arms, contrasts=(Contrast(1, 0),)), tmp_path)
    assert run.manifest.skipped == {1: "it is not installed: pip install it"}
    assert run.measured == [0]


def test_a_version_of_http_that_this_server_does_not_speak_leaves_its_arm_out(lab: Lab, tmp_path: Path) -> None:
    """The embedded server speaks HTTP/2 in clear text and the real one does not: the machine decides."""
    arms = (Arm("rest", framework="tfserving"), Arm("rest", framework="tfserving", http="2"))
    lab.capacity = lambda arm: 200.0
    run = run_in(lab, pair(arms=arms), tmp_path)
    assert "does not speak it; accepted: 1.1" in run.manifest.skipped[1]
    assert run.measured == [0]
    assert run.manifest.rates_per_s[0], "the rates are set without it"


def test_servers_of_one_framework_that_were_deployed_in_two_ways_are_told_apart(lab: Lab, tmp_path: Path) -> None:
    """Triton with its cache and without are two systems in the report."""
    lab.capacity = lambda arm: 200.0
    run = run_in(lab, pair(arms=(GRPC, Arm("grpc", framework="triton", cache=True))), tmp_path)
    assert {name: one.label for name, one in run.manifest.implementations.items()} == {
        "triton": "triton",
        "triton with a cache": "triton with a cache",
    }
