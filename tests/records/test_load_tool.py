"""If these fail, a trial that LoadGen calls INVALID is VALID here, or a finding about a server is thrown away."""

import msgspec
import numpy as np
import pandas as pd
import pytest

from helpers.synthetic_run import generator_of, host_of, manifest_of, poisson
from infscale.experiment.design.arm import Arm
from infscale.load.loadgen_client import SCENARIOS
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Verdict
from infscale.records.gates.verdict import judge
from infscale.records.manifest import Reported, TrialManifest, decode


def rows(failed: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    scheduled = poisson(rng, 800, 2)
    frame = samples.synthetic(scheduled, rng.exponential(2e6, len(scheduled)).astype(np.int64) + 1_000_000)
    frame.loc[rng.random(len(frame)) < failed, "status"] = "timeout"
    return frame


def verdict_of(said: Reported, frame: pd.DataFrame | None = None, client: str = "loadgen-server") -> Verdict:
    frame = rows() if frame is None else frame
    return judge(frame, 2.0, generator_of(client=client, reported=said), host_of())


def said(unmet: list[str], **changes: object) -> Reported:
    return Reported(**{"tool": "MLPerf LoadGen 6", "valid": not unmet, "unmet": unmet, **changes})  # type: ignore[arg-type]


def text_of(verdict: Verdict) -> str:
    return next(gate.text for gate in verdict.gates if gate.name == "load_tool")


def test_what_both_call_valid_is_valid() -> None:
    verdict = verdict_of(said([]))
    assert verdict.name == VALID
    assert text_of(verdict) == "MLPerf LoadGen 6 says VALID"


def test_a_limit_of_latency_that_only_loadgen_sees_missed_is_invalid_and_named() -> None:
    verdict = verdict_of(said(["performance", "early_stopping"]))
    assert (verdict.name, verdict.reasons) == (INVALID, ("load_tool",))
    assert "says INVALID for its constraint performance, early_stopping" in verdict.text


def test_one_that_both_see_missed_stays_a_finding_about_the_server() -> None:
    """As INVALID it would be repeated, and no search for λ* would ever find an end."""
    verdict = verdict_of(said(["performance"]), rows(failed=0.2))
    assert (verdict.name, verdict.reasons) == (SATURATED, ("errors",))
    assert "does not affect the verdict" in text_of(verdict)


def test_a_limit_that_a_search_at_an_slo_goes_beyond_is_no_fault() -> None:
    """It must find rates on both sides: an INVALID one says nothing, and the search would end without an upper end."""
    missed = generator_of(client="loadgen-server", reported=said(["performance", "early_stopping"]))
    assert judge(rows(), 2.0, missed, host_of(), at_slo=True).name == VALID
    failed = generator_of(client="loadgen-server", reported=said(["performance"], errors=["x"]))
    assert judge(rows(), 2.0, failed, host_of(), at_slo=True).name == INVALID


@pytest.mark.parametrize("unmet", ["min_duration", "min_queries", "early_stopping"])
def test_a_length_that_we_have_set_ourselves_makes_no_trial_invalid(unmet: str) -> None:
    verdict = verdict_of(said([unmet]))
    assert verdict.name == VALID
    assert f"says INVALID for its constraint {unmet}; it does not affect the verdict" in text_of(verdict)


def test_an_error_that_it_logged_counts_whatever_else_it_says() -> None:
    verdict = verdict_of(said([], errors=["Ran out of generated queries"]))
    assert verdict.name == INVALID
    assert "Ran out of generated queries" in verdict.text
    assert verdict_of(said(["performance"], errors=["x"]), rows(failed=0.2)).name == INVALID


def test_an_invalid_without_a_reason_is_not_explained_away() -> None:
    assert verdict_of(said([], valid=False)).name == INVALID


def test_a_tool_without_a_verdict_is_judged_by_our_gates_alone() -> None:
    assert verdict_of(Reported(tool="some tool")).name == VALID


def test_requests_that_are_all_scheduled_at_once_are_not_unsteady() -> None:
    """Offline: each waits for those before it, which is no drift of the server's."""
    n = 1000
    frame = samples.synthetic(np.zeros(n, np.int64), np.arange(1, n + 1) * 1_500_000)
    assert verdict_of(said([]), frame, "loadgen-offline").name == VALID
    assert verdict_of(said([]), frame, "loadgen-single").name == UNSTEADY, "the rule is for Offline alone"


@pytest.mark.parametrize("client", SCENARIOS)
def test_what_a_tool_said_is_kept_with_the_trial(client: str) -> None:
    reported = said(["early_stopping"], p50_ms=1.5, p99_ms=2.5, throughput_per_s=99.5, requests=12)
    manifest = manifest_of(Arm("grpc", client=client), generator=generator_of(client=client, reported=reported))
    assert decode(msgspec.json.encode(manifest), TrialManifest, "x").generator.reported == reported
