"""If these fail, a proxy that collects messages goes unseen, or a sound path is said to collect them."""

import msgspec
import numpy as np
import pandas as pd
import pytest

from helpers.synthetic_run import manifest_of, poisson
from helpers.virtual_lab import messages_of
from infscale.experiment.design.arm import Arm
from infscale.records import samples
from infscale.records.gate import COALESCED, INVALID, SATURATED, VALID, Gate, Verdict
from infscale.records.gates.coalesced import COALESCED_MAX, coalesced
from infscale.records.gates.verdict import judge_trial
from infscale.records.manifest import TrialManifest

TOKENS = Arm("grpc", messages=20, message_bytes=32, interval_ms=5.0, framework="triton", model="stream")
DURATION_S = 2.0


def trial(held_ms: float = 0.0, arm: Arm = TOKENS) -> tuple[pd.DataFrame, pd.DataFrame, TrialManifest]:
    """A trial with which nothing is wrong but what a proxy does to messages."""
    arrivals = poisson(np.random.default_rng(3), 200.0, DURATION_S)
    last = 2_000_000 + round(19e6 * arm.interval_ms) + round(1e6 * held_ms)
    rows = samples.synthetic(arrivals, np.full(len(arrivals), last), lag_ns=50_000)
    chunks = messages_of(arm, arrivals + 2_000_000, arrivals + 10**10, held_ms)
    known = manifest_of(arm, duration_s=DURATION_S, rate_per_s=200.0, rows=len(rows), messages=len(chunks))
    return rows, chunks, known


def gate_of(verdict: Verdict) -> Gate:
    (gate,) = [gate for gate in verdict.gates if gate.name == COALESCED]
    return gate


def test_a_sound_path_passes() -> None:
    verdict = judge_trial(*_ordered(*trial()))
    assert verdict.name == VALID
    assert gate_of(verdict).passed
    assert gate_of(verdict).value == 0
    assert verdict.short == verdict.text == VALID


def test_a_proxy_that_buffers_is_said_with_its_share_and_spoils_no_verdict() -> None:
    """It is a finding about the path: an INVALID trial would be repeated, and the finding lost."""
    verdict = judge_trial(*_ordered(*trial(held_ms=20.0)))
    assert verdict.name == VALID
    assert verdict.reasons == ()
    gate = gate_of(verdict)
    assert not gate.passed
    assert gate.value == pytest.approx(15 / 19, abs=0.01), (
        "of the 19 gaps of a stream, those between five groups remain"
    )
    assert verdict.short == "VALID, coalesced"
    assert verdict.text.startswith("VALID; 79% of the messages arrived within 1 ms of the one before, sent 5 ms apart")
    assert verdict.failed == set()
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


@pytest.mark.parametrize(("share", "passed"), [(COALESCED_MAX - 0.05, True), (COALESCED_MAX + 0.05, False)])
def test_now_and_then_a_server_owes_messages_and_sends_them_at_once(share: float, passed: bool) -> None:
    rows, chunks, _ = trial()
    rng = np.random.default_rng(1)
    late = (chunks["index"] < 19) & (rng.uniform(size=len(chunks)) < share)
    at = chunks["at_ns"].mask(late, chunks["at_ns"] + 4_900_000)
    assert coalesced(rows, chunks.assign(at_ns=at), 5.0).passed == passed


def test_what_was_not_sent_apart_or_sent_late_is_not_judged() -> None:
    rows, chunks, _ = trial(held_ms=20.0)
    assert coalesced(rows, chunks, 0.0).value is None
    assert coalesced(rows, chunks.iloc[:50], 5.0).passed
    late = coalesced(rows, chunks, 5.0, kept_up=False)
    assert late.passed
    assert "not judged of a server that does not keep up" in late.text


def test_streams_that_failed_are_left_out() -> None:
    rows, chunks, _ = trial(held_ms=20.0)
    gate = coalesced(rows.assign(status="stream_cut"), chunks, 5.0)
    assert gate.passed
    assert gate.value is None


def test_an_invalid_trial_stays_invalid() -> None:
    rows, chunks, known = trial(held_ms=20.0)
    known.server.died = True
    verdict = judge_trial(rows, known, chunks)
    assert verdict.name == INVALID
    assert gate_of(verdict).passed


def test_the_remark_is_no_sign_of_overload() -> None:
    """Else a trial whose connections were cut behind a proxy would be SATURATED."""
    failed = [Gate(name, False, 1.0, 0.0, "") for name in ("errors", COALESCED)]
    assert Verdict(SATURATED, ("errors",), tuple(failed), {"reset": 5}).cut


def _ordered(
    rows: pd.DataFrame, chunks: pd.DataFrame, known: TrialManifest
) -> tuple[pd.DataFrame, TrialManifest, pd.DataFrame]:
    return rows, known, chunks
