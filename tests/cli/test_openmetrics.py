"""If these fail, Prometheus refuses a run, or shows a server that failed as a fast one."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from helpers.synthetic_run import GRPC_FASTER, TFSERVING, build
from infscale import cli
from infscale.analysis.tables import Tables, tabulate
from infscale.cli import openmetrics
from infscale.records.runs import Run, load_run
from infscale.report import listing


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Tables]:
    """A run with rates beyond what the servers can take, where requests time out."""
    one = {arm: rate for arm, rate in GRPC_FASTER.items() if arm[0] == TFSERVING}
    path = build(tmp_path_factory.mktemp("raw"), one, grid=(0.3, 0.45, 4.0), duration_s=2.0)
    run = load_run(path)
    return run, tabulate(run)


@pytest.fixture(scope="module")
def families(stored: tuple[Run, Tables]) -> dict[str, Metric]:
    """What the parser of Prometheus's own library reads; it checks names, units, buckets and the end of the text."""
    return {family.name: family for family in parsed(openmetrics.text(*stored))}


def parsed(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def test_names_and_units_are_by_the_rules_of_the_field(families: dict[str, Metric]) -> None:
    assert set(families) == {
        "infscale_run",
        "infscale_arm",
        "infscale_response_time_seconds",
        "infscale_round_trip_time_seconds",
        "infscale_requests",
        "infscale_trials",
        "infscale_saturation_rate_per_second",
        "infscale_contrast_ratio",
    }
    assert families["infscale_response_time_seconds"].unit == "seconds"
    assert {name: family.type for name, family in families.items() if family.type != "gauge"} == {
        "infscale_run": "info",
        "infscale_arm": "info",
        "infscale_response_time_seconds": "histogram",
        "infscale_round_trip_time_seconds": "histogram",
        "infscale_requests": "counter",
    }
    assert all(family.documentation for family in families.values())


def test_a_histogram_holds_every_request_and_failures_only_beyond_every_limit(
    stored: tuple[Run, Tables], families: dict[str, Metric]
) -> None:
    run, tables = stored
    rows: dict[tuple[str, ...], list[pd.DataFrame]] = defaultdict(list)
    verdicts = dict(zip(tables.trials["trial_id"], tables.trials["verdict"], strict=True))
    for trial in run.trials:
        one = trial.manifest
        rows[str(one.arm_number), f"{one.rate_per_s:g}", verdicts[one.trial_id]].append(trial.samples())
    buckets: dict[tuple[str, ...], dict[float, float]] = defaultdict(dict)
    sums: dict[tuple[str, ...], float] = {}
    for sample in families["infscale_response_time_seconds"].samples:
        key = sample.labels["arm"], sample.labels["rate_per_s"], sample.labels["verdict"]
        if sample.name.endswith("_bucket"):
            buckets[key][float(sample.labels["le"])] = sample.value
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    assert buckets.keys() == rows.keys()
    assert {key[2] for key in buckets} >= {"VALID", "SATURATED"}
    failed = 0
    for point, parts in rows.items():
        whole = pd.concat(parts)
        ok = whole["status"] == "ok"
        seconds = ((whole["done_ns"] - whole["scheduled_ns"]) / 1e9)[ok].to_numpy()
        assert buckets[point][np.inf] == len(whole)
        for end, count in buckets[point].items():
            assert count == (seconds <= end).sum() or end == np.inf
        assert (point in sums) == bool(ok.all()), "a sum over failures would be infinite"
        failed += int((~ok).sum())
    assert failed > 0
    counted = sum(s.value for s in families["infscale_requests"].samples if s.labels["status"] == "timeout")
    assert counted == failed


def test_contrasts_and_saturation_rates_have_their_intervals(
    stored: tuple[Run, Tables], families: dict[str, Metric]
) -> None:
    _, tables = stored
    (row,) = tables.contrasts[tables.contrasts["metric"] == "response_p95_ms"].to_dict("records")
    found = {
        s.labels["end"]: (s.value, s.labels["answer"])
        for s in families["infscale_contrast_ratio"].samples
        if s.labels["metric"] == "response_p95_ms"
    }
    for end, column in (("estimate", "ratio"), ("low", "ratio_low"), ("high", "ratio_high")):
        value, answer = found[end]
        assert value == pytest.approx(row[column])
        assert answer == row["answer"]
    rates = {s.labels["arm"] for s in families["infscale_saturation_rate_per_second"].samples}
    assert rates == {str(arm) for arm in tables.arms.loc[np.isfinite(tables.arms["saturation_per_s"]), "arm"]}


def test_the_command_writes_text_with_and_without_times(
    stored: tuple[Run, Tables], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listing, "derived", lambda run_id: tmp_path / run_id)
    run, _ = stored
    assert cli.main(["export", str(run.folder)]) == 0
    plain = capsys.readouterr().out
    assert plain.endswith("# EOF\n")
    assert cli.main(["export", str(run.folder), "--timestamps"]) == 0
    timed = parsed(capsys.readouterr().out)
    ended = pd.Timestamp(run.manifest.finished_at or "").timestamp()
    assert {float(str(sample.timestamp)) for family in timed for sample in family.samples} == {ended}
    assert {s.timestamp for f in parsed(plain) for s in f.samples} == {None}
    assert cli.main(["export", str(tmp_path)]) == 1
    assert "is not a run" in capsys.readouterr().err
