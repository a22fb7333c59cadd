"""If these fail, a night's run is repeated instead of continued, unbalanced, or mixed with what is not its own."""

import errno
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from helpers.virtual_lab import CALIBRATION, Lab, move_in, quiet, run_in, trials_of
from infscale import machine
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.processes.pids import living
from infscale.errors import ConfigError, DataError, Interrupt, MissingError, ServerLostError
from infscale.experiment import measure as measuring
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Contrast, Design, against_first
from infscale.experiment.folder import folder_for
from infscale.experiment.measure import LATE, measure_in
from infscale.experiment.session import Session, options
from infscale.experiment.trial import Plan
from infscale.load.engine.run import Interrupted, Result
from infscale.records import manifest as manifests
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID
from infscale.records.manifest import RunManifest
from infscale.records.runs import Run, load_run

BLOCKS = [[Arm(protocol, framework=name) for protocol in ("rest", "grpc")] for name in ("torchserve", "triton")]
ARMS, CONTRASTS = against_first(*BLOCKS)
CAPACITY = {"rest": 300.0, "grpc": 500.0}
BUDGET_S = 140.0
"""Time for some five lifetimes of each framework in the virtual laboratory, s."""


def capacity(arm: Arm) -> float:
    return CAPACITY[arm.protocol]


def design_of(**changes: Any) -> Design:
    """Return a small design of two frameworks."""
    fields: dict[str, Any] = {
        "finding": "test",
        "arms": ARMS,
        "contrasts": CONTRASTS,
        "least": 2,
        "budget_s": BUDGET_S,
        "trial_s": 0.5,
        "requests": 100,
        "seed": 1,
    }
    return Design(**(fields | changes))


def single(**changes: Any) -> Design:
    """Return a design of one framework, and time for two lifetimes of it."""
    arms, contrasts = against_first(BLOCKS[1])
    fields: dict[str, Any] = {"arms": arms, "contrasts": contrasts, "budget_s": 1.0}
    return design_of(**(fields | changes))


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab in which trials run in virtual time."""
    return move_in(Lab(capacity), monkeypatch)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Lab]:
    """Return a complete run of the small design, and the lab in which it was measured."""
    with pytest.MonkeyPatch.context() as patched:
        lab = move_in(Lab(capacity), patched)
        return run_in(lab, design_of(), tmp_path_factory.mktemp("raw")), lab


def lifetimes_of(run: Run) -> Counter[int]:
    """Return the number of lifetimes of each group, by its first arm."""
    return Counter(one.arms[0] for one in run.manifest.lifetimes)


# --------------------------------------------------------------------------------------------------- the budget


def test_a_run_is_measured_until_its_budget_is_spent(done: tuple[Run, Lab]) -> None:
    run, lab = done
    assert (run.manifest.status, run.manifest.packed) == ("complete", True)
    assert run.manifest.finished_at
    assert [one.calibration for one in run.manifest.sessions] == [CALIBRATION]
    longest = max(one.seconds for one in run.manifest.lifetimes)
    assert BUDGET_S - longest < lab.clock_s < BUDGET_S + longest
    counts = lifetimes_of(run)
    assert set(counts) == {0, 2}
    assert abs(counts[0] - counts[2]) <= 1, "nobody says which is worth more: they take turns"
    for m in (one.manifest for one in run.trials):
        assert m.arm.protocol == run.manifest.design.every_arm()[m.arm_number].protocol
        assert m.block == run.manifest.design.block(m.arm_number)
        assert m.implementation == run.implementation(m.arm_number)


def test_each_group_is_first_in_as_many_turns_as_the_others(done: tuple[Run, Lab]) -> None:
    """A machine that becomes slower from hour to hour would punish who always comes last."""
    run, _ = done
    assert run.manifest.first_look
    turns = [run.manifest.lifetimes[2 * k].arms[0] for k in range(run.manifest.first_look)]
    assert turns == [2, 0, 2, 0, 2, 0][: len(turns)]


def test_the_first_look_is_set_from_the_budget_and_stored(lab: Lab, tmp_path: Path) -> None:
    """Looked at whenever somebody likes, every run would differ some day."""
    looks = []
    for budget_s in (100.0, 200.0):
        lab.clock_s = 0.0
        lines: list[str] = []
        run = run_in(lab, single(budget_s=budget_s), tmp_path, say=lines.append)
        look = run.manifest.first_look
        assert look
        assert f"the first look at the contrasts is at {look} lifetimes" in lines
        assert look <= lifetimes_of(run)[0] <= 1.5 * look + 1, "as many as the budget buys, by the length of the first"
        looks.append(look)
    assert 2 < looks[0] < looks[1]


@pytest.mark.parametrize(("budget_s", "look"), [(104.0, 7), (106.0, 8), (114.0, 8)])
def test_the_first_look_is_at_the_number_of_lifetimes_nearest_to_the_budget(
    budget_s: float, look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded down, a run that lacked a tenth of a round for the lifetimes it had promised stopped short of them."""
    monkeypatch.setattr(measuring, "_seconds", lambda *_: 10.0)
    manifest = SimpleNamespace(ends_at_s=budget_s, lifetimes=[SimpleNamespace(extra_s=0.0)], skipped={})
    session = SimpleNamespace(manifest=manifest, design=single(), elapsed_s=lambda: 40.0)
    assert measuring._first_look(cast(Session, session)) == look


def test_a_budget_for_nothing_buys_the_least_lifetimes(lab: Lab, tmp_path: Path) -> None:
    """Two values are no interval: a run that stopped before would have measured in vain."""
    run = run_in(lab, single(least=3), tmp_path)
    assert run.manifest.first_look == 3
    assert lifetimes_of(run) == {0: 3}


def test_where_lifetimes_take_longer_than_the_first_one_the_first_look_comes_with_the_budgets_end(
    lab: Lab, tmp_path: Path
) -> None:
    """A server that needs minutes to start from then on would keep a run of an hour going until the morning."""

    def slower(plan: Plan) -> None:
        lab.clock_s += 3.0 if plan.lifetime else 0.0

    lab.before = slower
    lines: list[str] = []
    run = run_in(lab, single(budget_s=200.0), tmp_path, say=lines.append)
    count = lifetimes_of(run)[0]
    planned = int(next(line for line in lines if "first look" in line).split()[-2])
    assert 2 <= count < planned
    assert run.manifest.first_look == count
    assert f"the budget is spent: the first look at the contrasts is at {count} lifetimes" in lines
    assert 200 < lab.clock_s < 200 * LATE + max(one.seconds for one in run.manifest.lifetimes)


def test_a_run_has_no_more_lifetimes_than_its_design_allows(lab: Lab, tmp_path: Path) -> None:
    """Who asks for four gets the time back; and the first look is one that comes."""
    run = run_in(lab, single(most=4, budget_s=1e4), tmp_path)
    assert lifetimes_of(run) == {0: 4}
    assert run.manifest.first_look == 4
    assert lab.clock_s < 200


def test_after_the_first_look_lifetimes_go_where_they_decide_most(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infscale.experiment.design.time_plan.MOST_AT_FIRST", 2)
    asked: list[Counter[int]] = []

    def allocate(run: Run, groups: Any) -> list[int]:
        assert groups == [[0, 1], [2, 3]]
        asked.append(lifetimes_of(run))
        return [1] if len(asked) < 3 else []

    lines: list[str] = []
    run = run_in(lab, design_of(), tmp_path, allocate=allocate, say=lines.append)
    assert lines[-1] == "every named contrast is decided: the rest of the time is not needed"
    assert run.manifest.first_look == 2
    assert asked == [{0: 2, 2: 2}, {0: 2, 2: 3}, {0: 2, 2: 4}]
    assert lifetimes_of(run) == asked[-1], "where all is decided, the run ends before its time"
    assert lab.clock_s < BUDGET_S
    assert {m.lifetime for m in trials_of(run, "grid") if m.arm_number == 2} == {0, 1, 2, 3}


# ----------------------------------------------------------------------------------- measuring further, with more time


def test_with_more_time_a_complete_run_goes_on_and_what_it_had_stays(lab: Lab, tmp_path: Path) -> None:
    """Undecided is no last word: one more night is added to the nights before, not begun anew."""
    before = run_in(lab, design_of(), tmp_path)
    had = {one.manifest.trial_id: one.samples() for one in before.trials}
    stored = {one.manifest.trial_id: one.manifest for one in before.trials}
    after = before
    for count in (1, 2):
        lab.clock_s = 0.0
        earlier = after.manifest
        after = measure_in(before.folder, more_s=60.0, say=quiet, start=lab.start)
        assert after.manifest.more_s == [60.0] * count
        assert after.manifest.ends_at_s == pytest.approx(earlier.measured_s + 60, abs=0.5)
        assert 20 < lab.clock_s < 100
        assert (after.manifest.status, after.manifest.packed) == ("complete", True)
        assert after.manifest.lifetimes[: len(earlier.lifetimes)] == earlier.lifetimes
        assert len(after.manifest.lifetimes) > len(earlier.lifetimes) + 2
        assert len(after.manifest.sessions) == count + 1
    for name in ("first_look", "rates_per_s", "pilot", "design"):
        assert getattr(after.manifest, name) == getattr(before.manifest, name)
    again = {one.manifest.trial_id: one for one in after.trials}
    assert {name: again[name].manifest for name in stored} == stored
    for name, rows in had.items():
        assert again[name].samples().equals(rows)
    for arm, brackets in before.manifest.brackets.items():
        assert {number: after.manifest.brackets[arm][number] for number in brackets} == brackets
    numbers = [one.number for one in after.manifest.lifetimes if one.arms == [0, 1]]
    assert numbers == list(range(len(numbers)))


def test_more_time_is_for_complete_runs(lab: Lab, tmp_path: Path) -> None:
    folder = folder_for(single(), tmp_path)
    with pytest.raises(ConfigError, match="is not complete: go on with it before time is added"):
        measure_in(folder, more_s=60.0, say=quiet, start=lab.start)
    assert not lab.plans


def test_more_time_that_was_interrupted_is_gone_on_with(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(lab, single(), tmp_path)

    def stop(plan: Plan) -> None:
        if len(lab.plans) > plans + 8:
            raise KeyboardInterrupt

    plans, lab.before = len(lab.plans), stop
    with pytest.raises(KeyboardInterrupt):
        measure_in(run.folder, more_s=60.0, say=quiet, start=lab.start)
    half = load_run(run.folder)
    assert (half.manifest.status, half.manifest.packed) == ("interrupted", False)
    assert len(half.trials) == len(run.trials) + 8
    lab.before = lambda plan: None
    after = measure_in(run.folder, say=quiet, start=lab.start)
    assert after.manifest.packed
    assert after.manifest.more_s == [60.0]
    assert {one.manifest.trial_id for one in half.trials} < {one.manifest.trial_id for one in after.trials}
    assert lifetimes_of(after)[0] > 2


# -------------------------------------------------------------------------------------------------- continuing


@pytest.mark.parametrize("after", [0, 1, 15, 30])
def test_an_interrupted_run_is_continued_with_its_own_seed_not_repeated(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the night costs one trial."""

    def stop(plan: Plan) -> None:
        if len(interrupted.plans) > after:
            raise KeyboardInterrupt

    design = design_of(budget_s=1.0, seed=11)
    interrupted = move_in(Lab(capacity, before=stop), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_in(interrupted, design, tmp_path / "one")
    folder = folder_for(design, tmp_path / "one")
    assert manifests.read(folder / "run.json", RunManifest).status == "interrupted"
    assert len(load_run(folder).trials) == after
    continued = move_in(Lab(capacity), monkeypatch)
    run = run_in(continued, design_of(budget_s=1.0, seed=12), tmp_path / "one")
    assert run.folder == folder
    assert run.manifest.design == design, "with the seed that it was begun with"
    assert [session.trials for session in run.manifest.sessions] == [after, len(continued.plans)]
    whole = run_in(move_in(Lab(capacity), monkeypatch), design, tmp_path / "two")
    assert [one.manifest.trial_id for one in run.trials] == [one.manifest.trial_id for one in whole.trials]
    assert [one.manifest.seeds for one in run.trials] == [one.manifest.seeds for one in whole.trials]
    assert run.manifest.rates_per_s == whole.manifest.rates_per_s
    assert run.manifest.brackets == whole.manifest.brackets


def interrupt_trials(lab: Lab, monkeypatch: pytest.MonkeyPatch, *keys: int) -> None:
    """Let Ctrl-C come in the middle of every trial of a lab whose key begins with one of ``keys``; of all without."""

    def run(endpoint: Endpoint, plan: Plan, **more: Any) -> trial.Outcome:
        outcome = lab.run(endpoint, plan, **more)
        if not keys or plan.key[0] in keys:
            raise Interrupted(Result(outcome.samples, outcome.manifest.generator))
        return outcome

    monkeypatch.setattr("infscale.experiment.trial.run", run)


def test_a_trial_that_was_ended_early_is_not_stored(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine ends a trial on Ctrl-C and gives back what it has: half a trial is none."""
    interrupt_trials(lab, monkeypatch)
    design = single()
    with pytest.raises(Interrupt, match=r"no trial was finished; .* is kept in .*; the same call goes on"):
        run_in(lab, design, tmp_path)
    assert not load_run(folder_for(design, tmp_path)).trials


def test_an_interrupted_run_says_how_many_trials_it_keeps(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_trials(lab, monkeypatch, 2)
    with pytest.raises(Interrupt) as caught:
        run_in(lab, single(), tmp_path)
    folder = folder_for(single(), tmp_path)
    kept = len(load_run(folder).trials)
    assert kept
    assert str(caught.value) == f"{kept} finished trials are kept in {folder}; the same call goes on"


def test_a_complete_run_is_not_measured_again_unless_asked(done: tuple[Run, Lab], lab: Lab) -> None:
    run, _ = done
    design, place = design_of(), run.folder.parent
    lines: list[str] = []
    assert run_in(lab, design, place, say=lines.append).folder == run.folder
    assert lines == [f"{run.folder.name} is complete: nothing to measure"]
    assert not lab.plans
    assert folder_for(design_of(requests=101), place) != run.folder
    assert folder_for(design, place, fresh=True) != run.folder


def test_a_run_that_was_killed_while_it_began_is_not_continued(tmp_path: Path) -> None:
    # Its folder has no name yet, and is removed by the next: what was measured into it would go, too.
    with subprocess.Popen(["true"]) as ended:
        pass
    folder_for(single(), tmp_path).rename(tmp_path / f".new-{ended.pid}")
    folder = folder_for(single(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert not folder.name.startswith(".")


def test_runs_that_begin_in_the_same_second_have_names_of_their_own(tmp_path: Path) -> None:
    # Tables and figures lie by a run's name: those of one would be taken for the other's.
    names = {folder_for(single(), tmp_path / str(place)).name for place in range(5)}
    assert len(names) == 5


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


# ------------------------------------------------------------------------------ what does not belong in a run's folder

OTHERS = {
    "the code that measures": ("code_digest", "other"),
    "the environment": ("environment_digest", "other"),
    "the machine": ("describe", msgspec.structs.replace(machine.describe(), cpu="another")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_of_other_code_environment_or_machine_is_not_continued(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials of two programs or machines in one table would be compared with one another."""
    folder = folder_for(design_of(), tmp_path)
    assert folder_for(design_of(seed=2), tmp_path) == folder, "whatever the seed"
    what, value = OTHERS[name]
    monkeypatch.setattr(f"infscale.machine.{what}", lambda: value)
    assert folder_for(design_of(), tmp_path) != folder


@pytest.mark.parametrize("more_s", [0.0, 60.0])
@pytest.mark.parametrize("name", OTHERS)
def test_where_such_a_run_is_named_itself_the_difference_is_told(
    name: str, more_s: float, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from the other laptop looks as if it could go on here."""
    folder = folder_for(single(), tmp_path)
    if more_s:
        folder = run_in(lab, single(), tmp_path).folder
    before = {path: path.read_bytes() for path in folder.glob("[!.]*") if path.is_file()}
    lab.plans.clear()
    what, value = OTHERS[name]
    monkeypatch.setattr(f"infscale.machine.{what}", lambda: value)
    with pytest.raises(DataError, match=f"cannot be continued here: {name} differ.* measure anew"):
        measure_in(folder, more_s=more_s, say=quiet, start=lab.start)
    assert not lab.plans
    assert {path: path.read_bytes() for path in folder.glob("[!.]*") if path.is_file()} == before
    monkeypatch.setattr("infscale.machine.code_digest", lambda: "other")
    monkeypatch.setattr("infscale.machine.environment_digest", lambda: "other")
    with pytest.raises(DataError, match="the code that measures and the environment"):
        measure_in(folder, more_s=more_s, say=quiet, start=lab.start)


HOLD = """
import sys
from pathlib import Path
from infscale.experiment.folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_write_in_one_folder(lab: Lab, tmp_path: Path) -> None:
    """Started twice by mistake, a run would load its own servers twice at a time."""
    folder = folder_for(single(), tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(DataError, match="is being measured by another process: wait for its end, or measure anew"):
            measure_in(folder, say=quiet, start=lab.start)
        assert not lab.starts
    finally:
        child.communicate(timeout=20)
    assert measure_in(folder, say=quiet, start=lab.start).manifest.status == "complete", "a lock ends with its process"


def test_a_damaged_run_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    """Silently, the half of a night that it holds was measured again."""
    folder = folder_for(design_of(), tmp_path)
    (folder / "run.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"passed over: .*run\.json: field version is missing"):
        assert folder_for(design_of(), tmp_path) != folder


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write in"):
        folder_for(design_of(), tmp_path / "file")


def test_so_is_a_run_that_may_only_be_read(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    folder = folder_for(design_of(), tmp_path)
    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.raises(DataError, match=f"cannot write in {folder}: Read-only file system"):
        measure_in(folder, say=quiet, start=lab.start)
    assert not lab.starts


def test_the_folder_of_a_run_begins_at_the_projects_root_also_in_the_folder_of_notebooks(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In JupyterLab a run went to notebooks/data/raw, and nothing found it again."""
    (tmp_path / "lib" / "infscale").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    run = run_in(lab, single(), Path("data/raw"))
    assert run.folder.parent == tmp_path / "data" / "raw"
    assert measure_in(f"data/raw/{run.id}", say=quiet, start=lab.start).folder == run.folder


def test_a_folder_that_is_no_run_is_named_and_not_made(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"typo is not a run: it has no run\.json; accepted: the folder of a run"):
        measure_in(tmp_path / "typo", say=quiet, start=lab.start)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more_s", [float("nan"), -5.0, "1h"])
def test_added_time_that_is_none_is_refused_and_the_run_stays(more_s: Any, lab: Lab, tmp_path: Path) -> None:
    """Stored as no number, it would make the run unreadable."""
    folder = run_in(lab, single(), tmp_path).folder
    before = (folder / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=r"more_s=.* is not a duration; accepted: seconds above 0"):
        measure_in(folder, more_s=more_s, say=quiet, start=lab.start)
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_per_s": 0.0}, r"rate_per_s=0.0 is not an arrival rate; accepted: a number of requests/s above 0"),
        ({"duration_s": float("nan")}, r"duration_s=nan is not a duration; accepted: seconds above 0"),
        ({"timeout_s": -1.0}, r"timeout_s=-1.0 is not a duration; accepted: seconds above 0"),
        ({"seed": 1.5}, r"seed=1.5 cannot be used; accepted: a whole number, 0 or more"),
    ],
)
def test_a_trial_that_cannot_be_is_refused_when_it_is_planned(changes: dict[str, Any], message: str) -> None:
    """Not by NumPy, when the server runs, in words about something else."""
    with pytest.raises(ConfigError, match=message):
        Plan(Arm("rest"), **{"rate_per_s": 10.0, "duration_s": 1.0, **changes})


def test_a_full_disk_is_named_and_what_is_stored_stays(lab: Lab, tmp_path: Path) -> None:
    def full(plan: Plan) -> None:
        if len(lab.plans) > 5:
            raise OSError(28, "No space left on device")

    lab.before = full
    with pytest.raises(DataError, match=r"cannot write in .*No space left"):
        run_in(lab, single(), tmp_path)
    assert len(load_run(folder_for(single(), tmp_path)).trials) == 5


def test_nothing_is_deployed_for_a_design_that_cannot_be_measured(lab: Lab, tmp_path: Path) -> None:
    bad = design_of(arms=(Arm("rest", framework="tfserving", encoding="raw"),), contrasts=())
    with pytest.raises(ConfigError, match="accepted: b64, json"):
        run_in(lab, bad, tmp_path)
    assert not lab.starts
    assert not list(tmp_path.iterdir())


def test_a_server_that_did_not_survive_a_trial_is_in_its_record(lab: Lab, tmp_path: Path) -> None:
    """The trial's rows are what brought the server down: they are kept."""
    session = Session(folder_for(design_of(), tmp_path), quiet, lab.start)
    dead = Endpoint("triton", "triton", "1", "Triton", "none", "mlp", ":1", ":2", command=["tritonserver"])
    with pytest.raises(ServerLostError, match="Triton died during the trial t"):
        session.run(dead, "t", session.plan(2, 50.0, (1, 0), 0.5, phase="grid"))
    (stored,) = load_run(session.folder).trials
    assert stored.manifest.server.died


def test_every_session_begins_with_the_anchor(lab: Lab, tmp_path: Path) -> None:
    """Two runs, or two days of one, are on one machine only if the same server is as fast on it."""
    run = run_in(lab, single(anchor=True), tmp_path)
    more = measure_in(run.folder, more_s=5.0, say=quiet, start=lab.start).manifest.sessions
    first, second = (one.anchor for one in more)
    assert first is not None
    assert first == second, "in virtual time no session is slower"
    assert 0 < first.response_p50_ms <= first.response_p95_ms
    assert first.requests == pytest.approx(3 * first.rate_per_s, rel=0.1)
    assert len(first.verdicts) == 3


@pytest.mark.parametrize("key", [98, 97], ids=["warm-up", "anchor"])
def test_ctrl_c_ends_a_run_also_in_a_load_that_is_not_recorded(
    key: int, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to stop, the night went on."""
    interrupt_trials(lab, monkeypatch, key)
    with pytest.raises(KeyboardInterrupt):
        run_in(lab, single(anchor=True), tmp_path)


def test_a_machine_without_the_anchors_server_measures_the_rest(lab: Lab, tmp_path: Path) -> None:
    arms, contrasts = against_first(BLOCKS[0])

    def start(framework: str, *args: Any, **more: Any) -> Any:
        if framework == "triton":
            raise MissingError("Triton is not installed")
        return lab.start(framework, *args, **more)

    lines: list[str] = []
    run = run_in(lab, single(arms=arms, contrasts=contrasts, anchor=True), tmp_path, start=start, say=lines.append)
    assert run.manifest.status == "complete"
    assert [one.anchor for one in run.manifest.sessions] == [None]
    assert any("anchor could not be measured" in line for line in lines)


def test_what_was_measured_beside_is_stored_once(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def staleness(**where: object) -> dict[str, dict[str, int]]:
        calls.append(where)
        return {"once": {"asked": 16, "stale": 3}}

    monkeypatch.setattr("infscale.deployment.fronts.staleness.measure", staleness)
    run = run_in(lab, single(beside=("staleness",)), tmp_path)
    assert run.manifest.staleness["once"].stale == 3
    assert len(calls) == 1
    measure_in(run.folder, more_s=20.0, say=quiet, start=lab.start)
    assert len(calls) == 1, "it is not measured again when the run goes on"


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
    design = design_of(arms=arms, contrasts=(Contrast(0, 1),), budget_s=1.0, most_per_s=400.0)
    folder = folder_for(design, place)
    killed: list[int] = []

    def interrupt(line: str) -> None:
        if line.startswith("lifetime"):
            raise KeyboardInterrupt

    def kill(line: str) -> None:
        for entry in [] if killed or not line.startswith("lifetime") else living(folder / "pids.txt"):
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
    assert {(m.arm_number, m.rate_per_s, m.lifetime) for m in trials_of(real, "grid")} == {
        (arm, rate, number) for arm in (0, 1) for rate in real.manifest.rates_per_s[1] for number in (0, 1)
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
        assert m.judged.name in (VALID, UNSTEADY, SATURATED, INVALID)
        assert m.rows == len(one.samples())
        assert m.server.command
        assert m.server.pids
        assert m.seeds.arrivals != m.seeds.payload
        assert m.arm.encoding
        assert m.arm.connections == m.arm.limit()
        assert m.generator.shards[0].pid
        assert m.host.same_host
        assert m.ceiling_per_s
