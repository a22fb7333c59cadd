"""LoadGen's trials on real servers: if these fail, a run lacks what its load tool said, or says it of another trial."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.trials import MACHINE
from infscale.deployment.endpoint import Endpoint
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.experiment.design.slo import Slo
from infscale.experiment.folder import folder_for
from infscale.experiment.session import Session
from infscale.experiment.trial import Outcome, Plan
from infscale.load.loadgen_client import DETAIL, SCENARIOS, SUMMARY
from infscale.records import manifest as manifests
from infscale.records.manifest import TrialManifest


def run(endpoint: Endpoint, protocol: str, client: str) -> Outcome:
    return trial.run(endpoint, Plan(Arm(protocol, client=client), rate_per_s=60, duration_s=1, usage=True))


@pytest.mark.parametrize("client", SCENARIOS)
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_loadgen_drives_a_trial_on_every_framework(endpoint: Endpoint, protocol: str, client: str) -> None:
    outcome = run(endpoint, protocol, client)
    manifest = outcome.manifest
    assert (outcome.samples["status"] == "ok").all()
    failed = {gate.name for gate in manifest.judged.gates if not gate.passed}
    assert failed <= {*MACHINE, "steady", "response", "in_flight"}, "what a busy machine cannot fail"
    said = manifest.generator.reported
    assert said is not None
    assert said.requests == manifest.rows == len(outcome.samples)
    assert said.p50_ms is not None
    assert said.errors == []
    assert {"load_tool", "clock"} <= {gate.name for gate in manifest.judged.gates}
    assert manifest.arm.client == client
    assert manifest.usage["client"].cpu_user_s == manifest.generator.cpu_user_s
    assert manifest.usage["server"].processes


def test_in_a_search_at_an_slo_it_judges_itself_by_that_slo(deployed: Callable[[str], Endpoint]) -> None:
    """Else its Server metric would be of another limit: that of a request, after which it counts as failed."""
    arm, slo = Arm("grpc", client="loadgen-server"), Slo("p95", 0.01)
    plan = Plan(arm, rate_per_s=100, duration_s=2, phase="capacity", slo=slo)
    outcome = trial.run(deployed("tfserving"), plan)
    assert re.search(r'"effective_target_latency_ns", "value": 10000\b', outcome.logs[DETAIL])
    assert re.search(r'"effective_target_latency_percentile", "value": 0.95\b', outcome.logs[DETAIL])
    said = outcome.manifest.generator.reported
    assert said is not None
    assert said.valid is False
    assert "performance" in said.unmet
    assert "load_tool" not in outcome.manifest.judged.reasons, "what ends the search is what its rows say"


def test_its_logs_are_kept_with_the_run_by_the_name_of_the_trial(
    deployed: Callable[[str], Endpoint], tmp_path: Path
) -> None:
    outcome = run(deployed("tfserving"), "grpc", "loadgen-server")
    arms = (Arm("grpc", framework="tfserving"), Arm("grpc", framework="tfserving", client="loadgen-server"))
    session = Session(folder_for(Design(finding="x", question="?", arms=arms), tmp_path), print)
    session.store("the-trial", outcome)
    kept = session.folder / "logs"
    assert {file.name for file in kept.iterdir()} == {f"the-trial.{name}" for name in (SUMMARY, DETAIL)}
    assert (kept / f"the-trial.{SUMMARY}").read_text().startswith("=====")
    stored = manifests.read(session.folder / "trials" / "the-trial.json", TrialManifest)
    assert stored.generator.reported == outcome.manifest.generator.reported
    assert stored.generator.reported is not None
    assert stored.generator.reported.files == [SUMMARY, DETAIL]
