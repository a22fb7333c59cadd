"""If these fail, a night's run is repeated instead of continued, unbalanced, or ends at the first crash."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from helpers.virtual_lab import Lab, move_in
from infscale import machine
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.processes.pids import living
from infscale.errors import ConfigError, DataError, MissingError, ServerLostError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import SWEEP, Contrast, Design
from infscale.experiment.design.time_plan import seconds, time_plan
from infscale.experiment.folder import folder_for
from infscale.experiment.measure import measure, measure_in
from infscale.experiment.session import Session, options
from infscale.experiment.sweep import order
from infscale.experiment.trial import Plan
from infscale.findings import FINDINGS
from infscale.records import manifest as manifests
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.manifest import RunManifest, TrialManifest
from infscale.records.runs import Run, load_run

FRAMEWORKS = ("torchserve", "triton")
ARMS = tuple(Arm(protocol, framework=name) for name in FRAMEWORKS for protocol in ("rest", "grpc"))
SENSITIVITY = Arm("grpc", framework="triton", connections=1)
CAPACITY = {"rest": 300.0, "grpc": 500.0}


def capacity(arm: Arm) -> float:
    return CAPACITY[arm.protocol]


def sweep_of(**changes: Any) -> Design:
    """Return a small sweep of two frameworks, and one arm of a sensitivity check."""
    fields: dict[str, Any] = {
        "finding": "test",
        "arms": ARMS,
        "contrasts": (Contrast(0, 1), Contrast(2, 3)),
        "sensitivity": (SENSITIVITY,),
        "rates": SWEEP,
        "replicates": 2,
        "trial_s": 0.5,
        "fractions": (0.3, 0.6, 1.1),
    }
    return Design(**(fields | changes))


def single(**changes: Any) -> Design:
    """Return a sweep of one framework with one replicate."""
    fields: dict[str, Any] = {"arms": ARMS[:2], "contrasts": (Contrast(0, 1),), "sensitivity": (), "replicates": 1}
    return sweep_of(**(fields | changes))


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab in which trials run in virtual time."""
    return move_in(Lab(capacity), monkeypatch)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Lab]:
    """Return a complete run of the small sweep, and the lab in which it was measured."""
    with pytest.MonkeyPatch.context() as patched:
        lab = move_in(Lab(capacity), patched)
        return run_in(lab, sweep_of(bisections=1), tmp_path_factory.mktemp("raw")), lab


def run_in(lab: Lab, design: Design, place: Path, **more: Any) -> Run:
    """Measure a design in a lab."""
    return measure(design, place, say=more.pop("say", quiet), start=lab.start, **more)


def trials_of(run: Run, phase: str) -> list[TrialManifest]:
    """Return the manifests of a run's trials of one phase."""
    return [one.manifest for one in run.trials if one.manifest.phase == phase]


# ------------------------------------------------------------------------------------------- what is measured


def test_the_quick_profile_fits_its_promise_with_three_frameworks() -> None:
    quick, full = (FINDINGS["protocols"].design(profile) for profile in ("quick", "full"))
    assert (quick.replicates, quick.trial_s, len(quick.fractions)) == (3, 4.0, 6)
    assert len(quick.frameworks()) == 3
    assert seconds(quick) <= 15 * 60, "a rough plan; the measured time is in the README"
    assert full.replicates >= 8
    assert full.trial_s >= 60
    assert "in all" in time_plan(full)


def test_every_replicate_holds_every_arm_once_at_every_rate_in_another_order() -> None:
    design = sweep_of()
    orders = [order(design, replicate) for replicate in range(3)]
    for blocks in orders:
        assert sorted(block for block, _ in blocks) == [[0, 1], [2, 3]]
        for block, pairs in blocks:
            assert sorted(pairs) == [(arm, rate) for arm in block for rate in range(3)]
    assert orders[0] != orders[1]
    assert order(design, 0) == orders[0]


def test_a_sweep_measures_every_arm_at_every_rate_of_its_block(done: tuple[Run, Lab]) -> None:
    run, _ = done
    assert run.manifest.status == "complete"
    assert run.manifest.packed
    assert run.manifest.finished_at
    counts = Counter((m.arm_number, m.rate_per_s, m.replicate) for m in trials_of(run, "grid"))
    assert set(counts) == {
        (arm, rate, replicate)
        for arm in range(4)
        for rate in run.manifest.rates_per_s[1 if arm < 2 else 3]
        for replicate in range(2)
    }
    assert Counter(m.arm_number for m in trials_of(run, "sensitivity")) == {4: 2}
    for m in (one.manifest for one in run.trials):
        assert m.arm.protocol == run.manifest.design.every_arm()[m.arm_number].protocol
        assert m.block == run.manifest.design.block(m.arm_number)
        assert m.implementation == run.implementation(m.arm_number)


def test_the_rates_of_a_sweep_surround_the_larger_saturation_rate_of_a_block(done: tuple[Run, Lab]) -> None:
    """Else the knee of the faster arm lies outside the figure."""
    run, _ = done
    for number, pilot in run.manifest.pilot.items():
        truth = capacity(ARMS[number])
        assert 0.6 * truth < pilot.saturation_per_s < 1.3 * truth
        assert pilot.bracket_per_s
        assert pilot.bracket_per_s[0] < pilot.bracket_per_s[1]
    for rates in run.manifest.rates_per_s.values():
        assert rates[0] < CAPACITY["rest"] < CAPACITY["grpc"] < 1.3 * rates[-1]
    of_grpc = [m.judged.name for m in trials_of(run, "grid") if m.arm_number == 1]
    assert {VALID, SATURATED} <= set(of_grpc)


def test_arms_of_a_block_get_the_same_arrivals(done: tuple[Run, Lab]) -> None:
    """Pairing: a difference between arms must not be a difference between draws."""
    run, _ = done
    schedules: dict[tuple[int, float, int], set[tuple[int, ...]]] = {}
    for one in run.trials:
        m = one.manifest
        if m.phase == "grid":
            arrivals = tuple(one.samples(["scheduled_ns"])["scheduled_ns"])
            schedules.setdefault((m.block, m.rate_per_s, m.replicate), set()).add(arrivals)
    assert {len(alike) for alike in schedules.values()} == {1}
    first, second = ([schedules[3, rate, r] for rate in run.manifest.rates_per_s[3]] for r in (0, 1))
    assert not any(one == other for one, other in zip(first, second, strict=True)), "replicates draw anew"


def test_each_block_has_a_server_of_its_own_in_each_replicate(done: tuple[Run, Lab]) -> None:
    """Replicates on one server share its luck: their spread would be too small."""
    _, lab = done
    assert Counter(lab.starts) == {"torchserve": 5, "triton": 5}, "for the pilot, for each replicate and its bisections"


def test_a_saturated_server_is_started_anew_if_the_design_says_so(lab: Lab, tmp_path: Path) -> None:
    run = run_in(lab, single(restart=True), tmp_path)
    saturated = [m for m in trials_of(run, "grid") if m.judged.name == SATURATED]
    assert saturated
    assert 2 < len(lab.starts) <= 2 + len(saturated)


def test_an_invalid_trial_is_tried_once_more(lab: Lab, tmp_path: Path) -> None:
    """A passing disturbance must not cost a replicate, nor a lasting one the whole night."""
    lab.disturbed = lambda plan: plan.phase == "grid" and plan.replicate == 0 and (plan.attempt < 2 or plan.block == 1)
    run = run_in(lab, sweep_of(), tmp_path)
    attempts = {(m.arm_number, m.rate_per_s, m.replicate, m.attempt): m.judged.name for m in trials_of(run, "grid")}
    assert {key[3] for key in attempts if key[2] == 0} == {1, 2}
    assert {name for key, name in attempts.items() if key[0] < 2 and key[2] == 0} == {INVALID}
    assert INVALID not in {name for key, name in attempts.items() if key[0] >= 2 and key[2:] == (0, 2)}
    assert {key[3] for key in attempts if key[2] == 1} == {1}


def test_bisections_narrow_the_bracket_of_every_arm(lab: Lab, tmp_path: Path) -> None:
    run = run_in(lab, single(bisections=2, fractions=(0.2, 0.4, 1.1)), tmp_path)
    for number, arm in enumerate(ARMS[:2]):
        bracketed = [
            (m.rate_per_s, m.judged.name)
            for m in trials_of(run, "grid") + trials_of(run, "bisection")
            if m.arm_number == number and m.replicate == 0
        ]
        low = max(rate for rate, name in bracketed if name == VALID)
        high = min(rate for rate, name in bracketed if name == SATURATED)
        assert 0.6 * capacity(arm) < low < high < 1.6 * capacity(arm)
        assert high / low < 2


def test_no_rate_above_the_allowed_one_is_tried(lab: Lab, tmp_path: Path) -> None:
    """On somebody else's endpoint a limit is a promise."""
    run = run_in(lab, single(most_per_s=120.0), tmp_path)
    assert max(plan.rate_per_s for plan in lab.plans + lab.warm_ups) <= 120
    assert {m.judged.name for m in trials_of(run, "grid")} == {VALID}


def test_what_was_measured_beside_is_stored_once(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def staleness(**where: object) -> dict[str, dict[str, int]]:
        calls.append(where)
        return {"once": {"asked": 16, "stale": 3}}

    monkeypatch.setattr("infscale.deployment.fronts.staleness.measure", staleness)
    with monkeypatch.context() as patched:
        patched.setattr("infscale.experiment.measure.pack", lambda folder: None)
        run = run_in(lab, single(beside=("staleness",)), tmp_path)
    assert run.manifest.staleness["once"].stale == 3
    assert len(calls) == 1
    run.manifest.status = "interrupted"
    manifests.write(run.folder / "run.json", run.manifest)
    measure_in(run.folder, say=quiet, start=lab.start)
    assert len(calls) == 1, "it is not measured again when the run is continued"


# -------------------------------------------------------------------------------------------------- continuing


@pytest.mark.parametrize("after", [0, 1, 15, 45])
def test_an_interrupted_run_is_continued_not_repeated(
    after: int, done: tuple[Run, Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the night costs one trial."""

    def stop(plan: Plan) -> None:
        if len(interrupted.plans) > after:
            raise KeyboardInterrupt

    whole, _ = done
    design = whole.manifest.design
    interrupted = move_in(Lab(capacity, before=stop), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_in(interrupted, design, tmp_path)
    folder = folder_for(design, tmp_path)
    assert manifests.read(folder / "run.json", RunManifest).status == "interrupted"
    assert len(load_run(folder).trials) == after
    continued = move_in(Lab(capacity), monkeypatch)
    run = run_in(continued, design, tmp_path)
    assert run.folder == folder
    assert [session.trials for session in run.manifest.sessions] == [after, len(continued.plans)]
    assert [one.manifest.trial_id for one in run.trials] == [one.manifest.trial_id for one in whole.trials]
    assert run.manifest.rates_per_s == whole.manifest.rates_per_s


def test_a_trial_that_was_ended_early_is_not_stored(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine ends a trial on Ctrl-C and returns what it has: half a trial is none."""
    monkeypatch.setattr(
        "infscale.experiment.trial.run", lambda *args, **more: replace(lab.run(*args, **more), interrupted=True)
    )
    design = sweep_of()
    with pytest.raises(KeyboardInterrupt):
        run_in(lab, design, tmp_path)
    assert not load_run(folder_for(design, tmp_path)).trials


def test_a_complete_run_is_not_measured_again_unless_asked(done: tuple[Run, Lab], lab: Lab) -> None:
    run, _ = done
    design, place = run.manifest.design, run.folder.parent
    lines: list[str] = []
    assert run_in(lab, design, place, say=lines.append).folder == run.folder
    assert lines == [f"{run.folder.name} is complete: nothing to measure"]
    assert not lab.plans
    assert folder_for(sweep_of(seed=2), place) != run.folder
    assert folder_for(design, place, fresh=True) != run.folder


def test_a_run_that_was_measured_and_not_packed_is_packed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("infscale.experiment.measure.pack", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_in(lab, single(), tmp_path)
    before = load_run(folder_for(single(), tmp_path))
    assert (before.manifest.status, before.manifest.packed) == ("complete", False)
    lab.plans.clear()
    after = run_in(lab, single(), tmp_path)
    assert after.manifest.packed
    assert not lab.plans
    assert [one.manifest for one in after.trials] == [one.manifest for one in before.trials]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("what", "value"),
    [("code_digest", "other"), ("environment_digest", "other"), ("describe", None)],
)
def test_a_run_of_other_code_environment_or_machine_is_not_continued(
    what: str, value: str | None, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials of two programs or machines in one table would be compared with one another."""
    folder = folder_for(sweep_of(), tmp_path)
    assert folder_for(sweep_of(), tmp_path) == folder
    here = msgspec.structs.replace(machine.describe(), cpu="another")
    monkeypatch.setattr(f"infscale.machine.{what}", lambda: value or here)
    assert folder_for(sweep_of(), tmp_path) != folder


def test_a_damaged_run_is_passed_over(tmp_path: Path) -> None:
    folder = folder_for(sweep_of(), tmp_path)
    (folder / "run.json").write_text("{}")
    assert folder_for(sweep_of(), tmp_path) != folder


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write in"):
        folder_for(sweep_of(), tmp_path / "file")


def test_a_full_disk_is_named_and_what_is_stored_stays(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(plan: Plan) -> None:
        if len(lab.plans) > 5:
            raise OSError(28, "No space left on device")

    lab.before = full
    with pytest.raises(DataError, match=r"cannot write in .*No space left"):
        run_in(lab, sweep_of(), tmp_path)
    assert len(load_run(folder_for(sweep_of(), tmp_path)).trials) == 5


def test_nothing_is_deployed_for_a_design_that_cannot_be_measured(lab: Lab, tmp_path: Path) -> None:
    bad = sweep_of(arms=(Arm("rest", framework="tfserving", encoding="raw"),), contrasts=(), sensitivity=())
    with pytest.raises(ConfigError, match="accepted: b64, json"):
        run_in(lab, bad, tmp_path)
    assert not lab.starts
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------- servers that are lost


def losing(lab: Lab, when: Callable[[Plan], bool], times: int) -> None:
    """Let the server be lost at the first trials that fit."""
    losses = [0]

    def before(plan: Plan) -> None:
        if when(plan) and losses[0] < times:
            losses[0] += 1
            raise ServerLostError("the server died", "the end of its log")

    lab.before = before


def test_a_server_that_is_lost_is_started_anew_and_the_run_says_so(lab: Lab, tmp_path: Path) -> None:
    """One crash at three in the morning must not end the night's run, nor go unmentioned."""
    losing(lab, lambda plan: plan.phase == "grid" and plan.replicate == 1, 3)
    lines: list[str] = []
    run = run_in(lab, single(replicates=2), tmp_path, say=lines.append)
    assert run.manifest.status == "complete"
    assert run.manifest.restarts == ["A server was lost under load and started again: the server died."] * 3
    assert lines.count("the server died: started anew") == 3
    assert len(trials_of(run, "grid")) == 2 * 3 * 2


def test_a_server_that_is_lost_again_and_again_ends_a_sweep(lab: Lab, tmp_path: Path) -> None:
    """A server that cannot live would otherwise be started until the morning."""
    losing(lab, lambda plan: plan.phase == "grid", 4)
    with pytest.raises(ServerLostError, match="the end of its log"):
        run_in(lab, single(), tmp_path)
    folder = folder_for(single(), tmp_path)
    assert len(manifests.read(folder / "run.json", RunManifest).restarts) == 3
    assert run_in(lab, single(), tmp_path).folder == folder, "it can be continued"


def test_a_server_that_did_not_survive_a_trial_is_in_its_record(lab: Lab, tmp_path: Path) -> None:
    """The trial's rows are what brought the server down: they are kept."""
    session = Session(folder_for(sweep_of(), tmp_path), quiet, lab.start)
    dead = Endpoint("triton", "triton", "1", "Triton", "none", "mlp", ":1", ":2", command=["tritonserver"])
    with pytest.raises(ServerLostError, match="Triton died during the trial t"):
        session.run(dead, "t", session.plan(2, 50.0, (1, 0), 0.5, phase="grid"))
    (stored,) = load_run(session.folder).trials
    assert stored.manifest.server.died


def test_what_a_machine_lacks_ends_a_sweep(lab: Lab, tmp_path: Path) -> None:
    def missing(*_: object, **more: object) -> Any:
        raise MissingError("TorchServe is not installed: pip install torchserve")

    with pytest.raises(MissingError, match="pip install torchserve"):
        measure(sweep_of(), tmp_path, say=quiet, start=missing)


# ----------------------------------------------------------------------------------------------- what is deployed


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        (Arm("rest", framework="triton"), {}),
        (Arm("rest", framework="triton", cache=True, batch=4), {"cache": True}),
        (Arm("rest", front="balanced"), {"replicas": 1, "balancer": "none"}),
        (
            Arm("rest", front="balanced", replicas=2, balancer="nginx", slow_ms=20.0),
            {"replicas": 2, "balancer": "nginx", "slow_ms": 20.0},
        ),
        (Arm("rest", front="network", rate_mbit=100.0, tls=True), {"rate_mbit": 100.0, "tls": True}),
        (Arm("rest", front="network", linked=True, delay_ms=1.0), {"linked": True, "delay_ms": 1.0}),
        (Arm("rest", front="cache", store="memory"), {}),
        (Arm("rest", options=(("workers", 2),)), {"workers": 2}),
    ],
)
def test_a_deployment_gets_the_levels_that_concern_it(arm: Arm, expected: dict[str, Any]) -> None:
    """An option that does not arrive is measured as the default, under another name."""
    assert options(arm) == expected


# ----------------------------------------------------------------------------------------------- on real servers


def test_arms_get_the_same_arrivals_on_a_real_server(endpoint: Endpoint) -> None:
    plans = [Plan(Arm(protocol), 50, 0.5, seed=3, key=(1, 2)) for protocol in ("rest", "grpc")]
    rest, grpc = (trial.run(endpoint, plan).samples for plan in plans)
    other = trial.run(endpoint, Plan(Arm("rest"), 50, 0.5, seed=3, key=(2, 2))).samples
    assert rest["scheduled_ns"].tolist() == grpc["scheduled_ns"].tolist() != other["scheduled_ns"].tolist()
    assert rest["payload"].tolist() == grpc["payload"].tolist()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, server_process: None) -> Run:
    """Return a tiny run on a real server, which is killed in the middle of it, and interrupted, and continued."""
    place = tmp_path_factory.mktemp("raw")
    arms = tuple(Arm(protocol, framework="triton", model="noop") for protocol in ("rest", "grpc"))
    design = sweep_of(
        arms=arms, contrasts=(Contrast(0, 1),), sensitivity=(), replicates=1, fractions=(0.1, 0.2), most_per_s=400.0
    )
    folder = folder_for(design, place)
    killed: list[int] = []

    def interrupt(line: str) -> None:
        if line.startswith("replicate"):
            raise KeyboardInterrupt

    def kill(line: str) -> None:
        for entry in [] if killed or not line.startswith("replicate") else living(folder / "pids.txt"):
            if entry.endswith("tritonserver"):
                killed.append(int(entry.split()[0]))
                os.kill(killed[-1], 9)

    with pytest.raises(KeyboardInterrupt):
        measure_in(folder, say=interrupt)
    assert manifests.read(folder / "run.json", RunManifest).status == "interrupted"
    assert all("measuring process" in line for line in living(folder / "pids.txt")), "a server was left running"
    run = measure_in(folder, say=kill)
    assert killed
    return run


def test_a_killed_server_is_started_anew(real: Run) -> None:
    assert real.manifest.status == "complete"
    assert real.manifest.restarts
    assert all("died" in text or "does not answer" in text for text in real.manifest.restarts)
    assert len(real.manifest.sessions) == 2
    assert {(m.arm_number, m.rate_per_s) for m in trials_of(real, "grid")} == {
        (arm, rate) for arm in (0, 1) for rate in real.manifest.rates_per_s[1]
    }


def test_the_records_tell_what_was_run(real: Run) -> None:
    manifest = real.manifest
    assert manifest.versions
    assert manifest.commit
    assert manifest.code_digest
    assert manifest.environment_digest
    assert manifest.clock == "CLOCK_MONOTONIC"
    assert set(manifest.ceilings) == {"rest", "grpc"}
    assert manifest.implementations["triton"].runtime
    assert manifest.time_plan[0].startswith("Time plan")
    assert {one.manifest.machine_digest for one in real.trials} == {manifest.machine.digest()}
    for one in real.trials:
        m = one.manifest
        assert m.judged.name in (VALID, SATURATED, INVALID)
        assert m.rows == len(one.samples())
        assert m.server.command
        assert m.server.pids
        assert m.seeds.arrivals != m.seeds.payload
        assert m.arm.encoding
        assert m.arm.connections == m.arm.limit()
        assert m.generator.shards[0].pid
        assert m.host.same_host
        assert m.ceiling_per_s
