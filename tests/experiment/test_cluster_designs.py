"""If these fail, a design that is measured from several workers ends with the first that is lost, or hides it."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from infscale import Arm, Design, measure
from infscale.analysis.tables.trials import trials_table
from infscale.cli.compare import Requests, attached
from infscale.errors import ConfigError
from infscale.experiment import session
from infscale.experiment.folder import folder_for
from infscale.experiment.measure import asked
from infscale.load.null_server import null_server
from infscale.vocabulary import OTHER

SIZES = {"least": 1, "most": 1, "trial_s": 0.3, "requests": 90, "budget_s": 20.0, "most_per_s": 300.0}


def design(**factors: object) -> Design:
    return Design(finding="cluster", arms=(Arm("rest", framework=OTHER, model="candidate", **factors),), **SIZES)  # type: ignore[arg-type]


@pytest.mark.server
def test_a_design_goes_on_when_a_worker_is_killed_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial is INVALID and kept, the same is measured once more by a new worker, and the run is whole."""
    lines: list[str] = []
    killed: list[int] = []
    original = session.Session._try

    def kill_once(self: session.Session, endpoint: object, plan: object) -> object:
        if not killed:
            assert self.cluster is not None
            killed.append(self.cluster.members[1].hello.pid)
            member = self.cluster.members[1]
            send = member.line.send

            def send_and_die(message: object, data: bytes = b"") -> None:
                send(message, data)  # type: ignore[arg-type]
                if type(message).__name__ == "Go":
                    os.kill(killed[0], signal.SIGKILL)

            monkeypatch.setattr(member.line, "send", send_and_die)
        return original(self, endpoint, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(session.Session, "_try", kill_once)
    with null_server() as server:
        sides = {"candidate": Requests.of(f"http://{server.rest}/", (b"a",), {})}
        run = measure(design(), tmp_path, say=lines.append, start=partial(attached, sides), cluster="local", workers=2)
    assert killed
    assert run.manifest.cluster == "local?workers=2"
    assert run.manifest.status == "complete"
    manifests = [trial.manifest for trial in run.trials]
    lost = [one for one in manifests if any(worker.lost for worker in one.generator.workers)]
    assert [one.judged.name for one in lost] == ["INVALID"]
    assert "lost_shard" in lost[0].judged.reasons
    assert lost[0].trial_id.endswith("-lost1")
    whole = [one for one in manifests if one.trial_id == lost[0].trial_id.removesuffix("-lost1")]
    assert len(whole) == 1
    assert not any(worker.lost for worker in whole[0].generator.workers)
    assert any("a worker was lost" in line for line in lines)
    table = trials_table(run)  # verdicts judged anew from the stored rows, as for every figure
    assert dict(zip(table["trial_id"], table["verdict"], strict=True)) == {m.trial_id: m.judged.name for m in manifests}


def test_a_run_is_continued_only_on_its_cluster(tmp_path: Path) -> None:
    """Other workers have other clocks and cores."""
    here = folder_for(design(), tmp_path)
    there = folder_for(design(), tmp_path, cluster="local?workers=2")
    assert here != there
    assert folder_for(design(), tmp_path, cluster="local?workers=2") == there
    assert folder_for(design(), tmp_path) == here


def test_what_cannot_run_on_a_cluster_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match="needs a cluster"):
        asked("", 2, design())
    with pytest.raises(ConfigError, match="client='requests' runs on this machine alone"):
        asked("local", None, design(client="requests"))
    assert asked("tcp://10.0.0.1:8786", None, design()) == "tcp://10.0.0.1:8786"
    assert asked("", None, design()) == ""
