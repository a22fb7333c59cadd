"""If these fail, a night's run is repeated instead of continued, unbalanced, or started on nonsense."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from infscale.experiment.design.grid import Grid
from infscale.experiment.design.profiles import PROFILES, from_parameters

from infscale.deployment.endpoint import Endpoint
from infscale.deployment.processes.pids import living
from infscale.errors import ConfigError, DataError, ServerLostError
from infscale.experiment import sweep as experiment
from infscale.experiment import trial
from infscale.experiment.session import Session
from infscale.experiment.trial import Arm, Plan
from infscale.records import runs
from infscale.records.manifest import read_json

TINY: dict[str, Any] = {**PROFILES["tiny"], "profile": "tiny"}


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"frameworks": ()}, r"frameworks=\[\] makes an empty grid; accepted: any of tfserving, torchserve"),
        ({"protocols": ()}, r"protocols=\[\] makes an empty grid"),
        ({"fractions": ()}, r"fractions=\[\] makes an empty grid"),
        ({"frameworks": ("kserve",)}, r"frameworks='kserve' is not known; accepted: tfserving, torchserve"),
        ({"protocols": ("soap",)}, r"protocols='soap' is not known; accepted: grpc, rest"),
        ({"protocols": ("rest", "rest")}, "names a level twice"),
        ({"model": "vgg"}, "accepted: cnn, image, mlp, noop, photo"),
        ({"fractions": (0.0,)}, r"fractions=0.0 is not an arrival rate"),
        ({"fractions": ("fast",)}, r"fractions='fast' is not an arrival rate"),
        ({"replicates": 0}, "replicates=0 is not a number of repeats"),
        ({"trial_s": -1}, "trial_s=-1 is not"),
        ({"timeout_s": float("nan")}, "timeout_s=nan is not"),
    ],
)
def test_a_bad_factor_is_named_with_the_accepted_ones(factors: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Grid(**factors)


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(ConfigError, match=r"profile='fast' is not known; accepted: full, quick, tiny"):
        from_parameters("fast")


def test_the_quick_profile_fits_its_promise_also_with_a_third_framework() -> None:
    quick = from_parameters("quick")
    assert (quick.replicates, quick.trial_s, len(quick.fractions)) == (3, 4.0, 6)
    assert len(quick.frameworks) == 3
    assert quick.seconds() <= 15 * 60, "a rough plan; the measured time is in the README"
    full = from_parameters("full")
    assert full.replicates >= 8
    assert full.trial_s >= 60
    assert "in all" in full.time_plan()


def test_every_replicate_holds_every_arm_once_in_another_order() -> None:
    plan = from_parameters("quick")
    orders = [plan.order(replicate) for replicate in range(3)]
    for order in orders:
        assert sorted(f for f, _ in order) == sorted(plan.frameworks)
        for _, pairs in order:
            assert len(set(pairs)) == len(pairs) == 12
    assert orders[0] != orders[1]
    assert plan.order(0) == orders[0]


def test_arms_of_a_replicate_get_the_same_arrivals(endpoint: Any) -> None:
    """Pairing: a difference between protocols must not be a difference between draws."""
    plans = [Plan(Arm(protocol), 50, 0.5, seed=3, key=(1, 2)) for protocol in ("rest", "grpc")]
    rest, grpc = (trial.run(endpoint, plan).samples for plan in plans)
    other = trial.run(endpoint, Plan(Arm("rest"), 50, 0.5, seed=3, key=(2, 2))).samples
    assert rest["scheduled_ns"].tolist() == grpc["scheduled_ns"].tolist() != other["scheduled_ns"].tolist()
    assert rest["payload"].tolist() == grpc["payload"].tolist()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, server_process: None) -> tuple[Path, list[str]]:
    """A tiny run that was interrupted in its middle and then continued; and what its second session said."""
    place = tmp_path_factory.mktemp("raw")
    plan = Grid(**{**TINY, "frameworks": ("torchserve",)})
    folder = experiment.folder_for(plan, place)

    def stop(line: str) -> None:
        if line.startswith("replicate"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.measure(plan, folder, say=stop)
    assert read_json(folder / "run.json")["status"] == "interrupted"
    assert living(folder / "pids.txt") == [line for line in living(folder / "pids.txt") if "measuring process" in line]
    assert experiment.folder_for(plan, place) == folder
    said: list[str] = []
    experiment.measure(plan, folder, say=said.append)
    return folder, said


def test_an_interrupted_run_is_continued_not_repeated(measured: tuple[Path, list[str]]) -> None:
    folder, said = measured
    run = runs.load_run(folder)
    assert run.manifest["status"] == "complete"
    assert len(run.manifest["sessions"]) == 2
    assert run.manifest["sessions"][0]["trials"] > 0
    assert not any("saturation near" in line for line in said), "the pilot was repeated"
    grid_trials = [t.manifest for t in run.trials if t.manifest["phase"] == "grid"]
    assert len({(m["protocol"], m["rate_per_s"]) for m in grid_trials}) == 4


def test_a_complete_run_is_not_measured_again_unless_asked(measured: tuple[Path, list[str]]) -> None:
    folder, _ = measured
    plan = Grid(**{**TINY, "frameworks": ("torchserve",)})
    said: list[str] = []
    experiment.measure(plan, folder, say=said.append)
    assert said == [f"{folder.name} is complete: nothing to measure"]
    assert experiment.folder_for(plan, folder.parent) == folder
    other = Grid(**{**TINY, "frameworks": ("torchserve",), "seed": 2})
    assert experiment.folder_for(other, folder.parent) != folder


def test_a_manifest_tells_what_was_run(measured: tuple[Path, list[str]]) -> None:
    run = runs.load_run(measured[0])
    for key in ("machine", "versions", "commit", "code_digest", "environment_digest", "clock", "pilot", "started_at"):
        assert run.manifest[key], key
    for stored in run.trials:
        m = stored.manifest
        assert m["verdict"]["verdict"] in ("VALID", "SATURATED", "INVALID")
        assert m["rows"] == len(stored.samples())
        assert m["server"]["command"]
        assert m["seeds"]["arrivals"] != m["seeds"]["payload"]
    assert json.loads((measured[0] / "run.json").read_text())["implementations"]["torchserve"]["runtime"]


def test_a_run_of_changed_code_is_not_continued(
    measured: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infscale.machine.code_digest", lambda: "other")
    plan = Grid(**{**TINY, "frameworks": ("torchserve",)})
    assert experiment.folder_for(plan, measured[0].parent) != measured[0]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write in"):
        experiment.folder_for(Grid(**TINY), tmp_path / "file")


@pytest.mark.server
def test_a_server_that_is_killed_is_started_anew_and_it_is_told(tmp_path: Path) -> None:
    """One crash at three in the morning must not end the night's run, nor go unmentioned."""
    plan = Grid(**{**TINY, "frameworks": ("torchserve",), "protocols": ("rest",), "trial_s": 1.0})
    folder = experiment.folder_for(plan, tmp_path)

    def kill(line: str) -> None:
        for entry in living(folder / "pids.txt"):
            if entry.endswith("java"):
                import os

                os.kill(int(entry.split()[0]), 9)

    experiment.measure(plan, folder, say=kill)
    manifest = read_json(folder / "run.json")
    assert manifest["status"] == "complete"
    assert manifest["restarts"]
    assert all("died" in text or "does not answer" in text for text in manifest["restarts"])


def test_a_server_that_is_lost_again_and_again_ends_the_run(tmp_path: Path) -> None:
    """A server that cannot live would otherwise be started until the morning."""
    plan = Grid(**{**TINY, "frameworks": ("torchserve",)})
    endpoint = Endpoint("torchserve", "torchserve", "1", "TorchServe", "none", "mlp", "127.0.0.1:1", "127.0.0.1:1")

    @contextlib.contextmanager
    def start(*_: Any, **__: Any) -> Iterator[Endpoint]:
        yield endpoint

    def lose(_: Endpoint) -> None:
        raise ServerLostError("TorchServe died", "the end of its log")

    lost = Session(plan, experiment.folder_for(plan, tmp_path), lambda _: None, start)
    with pytest.raises(ServerLostError, match="the end of its log"):
        lost.patiently("torchserve", lose)
    assert len(lost.manifest["restarts"]) == 3
