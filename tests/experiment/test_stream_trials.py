"""Streams in trials and tables: if these fail, a run loses messages, or says of streams what their messages do not."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from helpers.virtual_lab import Lab, move_in, run_in, trials_of
from infscale import deployment
from infscale.analysis.tables import load_tables, save_tables, tabulate
from infscale.analysis.tables.trials import STREAM_METRICS
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.fronts import FRONTS
from infscale.errors import ConfigError, DataError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import FIRST, GAP, PER_CORE, PER_MESSAGE, STREAMED, Contrast, Design
from infscale.experiment.trial import Plan
from infscale.records.gate import COALESCED, VALID
from infscale.records.pack import pack_copy, unpack
from infscale.records.runs import Run, load_run

GRPC = Arm("grpc", messages=20, message_bytes=32, interval_ms=5.0, framework="triton", model="stream")
REST = msgspec.structs.replace(GRPC, protocol="rest")
DESIGN = Design(
    finding="own",
    arms=(REST, GRPC),
    contrasts=tuple(Contrast(0, 1, metric) for metric in STREAMED),
    least=4,
    most=4,
    trial_s=0.5,
    budget_s=400.0,
)


def capacity(arm: Arm) -> float:
    """REST takes half as many streams, and so longer to the first message."""
    return 400.0 if arm.protocol == "rest" else 800.0


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which something on the way to REST holds messages for 20 ms."""
    with pytest.MonkeyPatch.context() as patch:  # undone before the real servers below are loaded
        lab = Lab(capacity, held_ms=lambda arm: 20.0 if arm.protocol == "rest" else 0.0)
        return run_in(move_in(lab, patch), DESIGN, tmp_path_factory.mktemp("runs"))


# --- records ---


def test_every_trial_keeps_its_messages(measured: Run) -> None:
    for one in measured.trials:
        messages, rows = one.chunks(), one.samples()
        assert messages is not None
        assert len(messages) == one.manifest.messages
        ended = rows.loc[rows["status"] == "ok", "sequence"]
        counts = messages.groupby("sequence").size()
        assert (counts.reindex(ended) == 20).all()
        first = messages[messages["index"] == 0].set_index("sequence")["at_ns"]
        assert (first.reindex(ended).to_numpy() == rows.set_index("sequence")["first_byte_ns"].reindex(ended)).all()


def test_a_packed_run_reads_as_a_loose_one_and_can_be_measured_further(measured: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(measured.folder, tmp_path / measured.folder.name))
    assert (folder / "chunks.parquet").is_file()
    unpack(folder)
    assert not (folder / "chunks.parquet").exists()
    assert len(list((folder / "trials").glob("*.chunks.parquet"))) == len(measured.trials)
    for one, other in zip(measured.trials, load_run(folder).trials, strict=True):
        mine, theirs = one.chunks(), other.chunks()
        assert mine is not None
        assert theirs is not None
        pd.testing.assert_frame_equal(mine, theirs, check_categorical=False)


def test_a_small_copy_gives_the_same_tables(measured: Run, tmp_path: Path) -> None:
    small = load_run(pack_copy(measured.folder, tmp_path, small=True))
    kept = [one for one in small.trials if len(one.samples())]
    assert {one.manifest.phase for one in kept} == {"grid"}
    assert sum(len(found) for one in small.trials if (found := one.chunks()) is not None) == sum(
        one.manifest.messages or 0 for one in kept
    )
    whole, copied = tabulate(measured), tabulate(small)
    for name in ("points", "summary", "contrasts", "gaps"):
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(copied, name))


@pytest.mark.parametrize("damage", ["absent", "short"])
def test_messages_that_were_lost_afterwards_are_missed(damage: str, measured: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(measured.folder, tmp_path / measured.folder.name))
    path = folder / "chunks.parquet"
    if damage == "absent":
        path.unlink()
    else:
        file = pq.ParquetFile(path)
        groups = [file.read_row_group(k) for k in range(file.num_row_groups)]
        with pq.ParquetWriter(path, file.schema_arrow) as writer:
            for table in [groups[0].slice(1), *groups[1:]]:
                writer.write_table(table)
    with pytest.raises(DataError, match=r"chunks\.parquet"):
        load_run(folder)


# --- tables ---


def test_tables_tell_when_messages_came(measured: Run, tmp_path: Path) -> None:
    tables = tabulate(measured)
    rest, grpc = (row for _, row in tables.summary.iterrows())
    assert [grpc["gap_p50_ms"], grpc[GAP]] == pytest.approx([5.0, 5.0])
    assert grpc["messages_per_read"] == 1
    assert grpc["messages_together"] == grpc["coalesced_share"] == grpc["coalesced"] == 0
    assert rest["gap_p50_ms"] == 0
    assert [rest[GAP], rest["stall_ms"]] == pytest.approx([20.0, 20.0])
    assert rest["messages_per_read"] == pytest.approx(4.0)
    assert rest["coalesced"] == 4, "lifetimes"
    assert rest["coalesced_share"] == pytest.approx(15 / 19)
    assert rest[FIRST] > 20 > grpc[FIRST] > 0
    assert rest["response_p95_ms"] > 95 + 20
    assert grpc[PER_MESSAGE] == pytest.approx(1.0)
    assert rest[f"{FIRST}_low"] <= rest[FIRST] <= rest[f"{FIRST}_high"]
    save_tables(tables, tmp_path)
    pd.testing.assert_frame_equal(load_tables(tmp_path).gaps, tables.gaps)


def test_gaps_are_kept_as_a_distribution(measured: Run) -> None:
    gaps = tabulate(measured).gaps
    assert set(gaps["arm"]) == {0, 1}
    together = gaps[(gaps["arm"] == 0) & (gaps["gap_ms"] == 0)]["level"].max()
    assert together == pytest.approx(15 / 19, abs=0.01)
    assert gaps.groupby("arm")["level"].max().tolist() == [1, 1]


def test_contrasts_compare_the_messages(measured: Run) -> None:
    ratios = tabulate(measured).contrasts.set_index("metric")["ratio"].astype(float).to_dict()
    assert set(ratios) == set(STREAMED)
    assert ratios[FIRST] > 5
    assert ratios[GAP] == pytest.approx(4.0, rel=0.01)
    assert ratios[PER_MESSAGE] == pytest.approx(1.0)
    assert np.isfinite(ratios[PER_CORE])


def test_trials_say_what_the_path_did(measured: Run) -> None:
    valid = [known for known in trials_of(measured, "grid") if known.judged.name == VALID]
    assert {known.arm.protocol for known in valid} == {"rest", "grpc"}
    for known in valid:
        said = known.judged.short
        assert said == ("VALID, coalesced" if known.arm.protocol == "rest" else "VALID")


def test_a_run_without_streams_has_no_columns_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Design(finding="own", arms=(Arm("rest", framework="triton"),), least=1, most=1, trial_s=0.5, budget_s=100.0)
    run = run_in(move_in(Lab(lambda arm: 2000.0), monkeypatch), plain, tmp_path)
    tables = tabulate(run)
    assert not set(STREAM_METRICS) & set(tables.points)
    assert tables.gaps.empty
    assert all(one.chunks() is None for one in run.trials)
    assert not (run.folder / "chunks.parquet").exists()


# --- real servers ---


@pytest.fixture(scope="module", params=["triton", "torchserve"])
def served(request: pytest.FixtureRequest, server_process: None) -> Iterator[Endpoint]:
    with deployment.deploy(request.param, "stream") as endpoint:
        yield endpoint


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("interval_ms", [0.0, 2.0])
def test_a_trial_times_the_streams_of_a_real_server(served: Endpoint, protocol: str, interval_ms: float) -> None:
    arm = Arm(protocol, messages=5, message_bytes=100, interval_ms=interval_ms, model="stream")
    outcome = trial.run(served, Plan(arm, 20.0, 2.0))
    rows, messages, known = outcome.samples, outcome.chunks, outcome.manifest
    assert set(rows["status"]) == {"ok"}
    assert messages is not None
    assert len(messages) == known.messages == 5 * len(rows)
    assert (messages["bytes"] >= 100).all()
    assert (messages.groupby("sequence")["at_ns"].first().to_numpy() == rows["first_byte_ns"].to_numpy()).all()
    assert (
        known.arm.encoding
        == {"rest": {"triton": "sse", "torchserve": "chunks"}[served.framework], "grpc": "grpc"}[protocol]
    )
    assert known.components is None
    gate = next(gate for gate in known.judged.gates if gate.name == COALESCED)
    assert (gate.value is None) == (interval_ms == 0 or len(messages) < 100)
    if interval_ms:
        spans = messages.groupby("sequence")["at_ns"].agg(np.ptp)
        assert spans.median() >= 7.5e6, "four intervals"


def test_a_model_with_one_reply_is_not_loaded_as_a_stream(deployed: Callable[[str], Endpoint]) -> None:
    arm = Arm("grpc", messages=5, message_bytes=100)
    with pytest.raises(ConfigError, match="sends one reply and no stream"):
        trial.run(deployed("torchserve"), Plan(arm, 20.0, 1.0))


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_trial_of_a_buffering_proxy_is_marked(protocol: str) -> None:
    arm = Arm(protocol, messages=20, message_bytes=32, interval_ms=10.0, framework="triton", model="stream")
    with FRONTS["buffered"].start("triton", "stream", hold_ms=60) as endpoint:
        judged = trial.run(endpoint, Plan(arm, 20.0, 4.0)).manifest.judged
    gate = next(gate for gate in judged.gates if gate.name == COALESCED)
    assert gate.value is not None
    assert gate.value > 0.5
    if judged.name == VALID:
        assert judged.short == "VALID, coalesced"
