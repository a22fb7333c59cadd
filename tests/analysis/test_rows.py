"""If these fail, a percentile of many rows is wrong, or its interval is narrower than it should be."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from benchmarks.truth import machines as simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infscale import cli
from infscale.analysis.merging.blocks import BLOCKS, uncertainty
from infscale.analysis.merging.rows import LEVELS, Summary, summarise
from infscale.analysis.percentiles import trial_times
from infscale.errors import ConfigError, DataError, MissingError
from infscale.records import samples

CASES = 2000


def rows_of(n: int, seed: int = 1, trial_id: str = "t", first: int = 0) -> pd.DataFrame:
    """Rows of a load with some failures and timeouts."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1e6, n)).astype(np.int64)
    response = rng.exponential(5e6, n).astype(np.int64)
    status = np.where(rng.random(n) < 0.0005, "http_500", np.where(rng.random(n) < 0.002, "timeout", "ok"))
    late = np.where(status == "timeout", 100_000_000, np.minimum(response, 99_000_000))
    rows = samples.synthetic(arrivals, late, trial_id=trial_id, status=status)
    return rows.assign(sequence=rows["sequence"] + first)


def stored(path: Path, rows: pd.DataFrame) -> Path:
    samples.write(path, rows)
    return path


def values(one: Summary) -> list[float]:
    return [percentile.value_ms for percentile in one.percentiles]


def test_percentiles_of_rows_are_exact(tmp_path: Path) -> None:
    """To the nanosecond, failures above all successes, whatever files the rows lie in, and beside other trials."""
    rows, other = rows_of(20_000), rows_of(500, 2, "other")
    files = [stored(tmp_path / "1", pd.concat([rows.iloc[::2], other])), stored(tmp_path / "2", rows.iloc[1::2])]
    found = {one.trial_id: one for one in summarise(files)}
    assert set(found) == {"t", "other"}
    times = np.where(rows["status"] == "ok", (rows["done_ns"] - rows["scheduled_ns"]) / 1e6, np.inf)
    assert values(found["t"])[:3] == np.quantile(times, LEVELS[:3], method="inverted_cdf").tolist()
    beyond = found["t"].percentiles[3]
    assert (beyond.bound, beyond.value_ms) == (True, 100.0), "that request timed out: it would have taken longer"
    assert found["t"].requests == 20_000
    assert found["t"].timeouts == (rows["status"] == "timeout").sum()
    for one in found["t"].percentiles[:2]:
        assert one.low_ms < one.value_ms < one.high_ms
        assert one.why == ""
    assert "fewer than 3,200 requests" in found["other"].percentiles[0].why


def test_they_are_those_that_the_report_of_a_trial_has(tmp_path: Path) -> None:
    rows = rows_of(5_000)
    (found,) = summarise([stored(tmp_path / "rows", rows)])
    times = trial_times(rows, 100.0)["response"]
    for one in found.percentiles:
        assert (one.value_ms, one.bound) == (times.percentile(one.level).value, times.percentile(one.level).bound)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(0, 10**14), min_size=1, max_size=60), st.integers(1, 3))
def test_any_times_are_ordered_exactly_and_within_a_microsecond_from_counts(
    tmp_path_factory: pytest.TempPathFactory, response_ns: list[int], parts: int
) -> None:
    """Up to a day: 10¹¹ µs are beyond 32 bits."""
    folder = tmp_path_factory.mktemp("rows")
    rows = samples.synthetic(np.arange(len(response_ns)), np.array(response_ns, dtype=np.int64))
    counts = []
    for k in range(min(parts, len(rows))):
        part = stored(folder / f"{k}", rows.iloc[k::parts])
        counts.append(folder / f"{k}.counts")
        summarise([part], counts=counts[-1])
    (whole,) = summarise([stored(folder / "all", rows)])
    expected = np.quantile(np.array(response_ns), LEVELS, method="inverted_cdf") / 1e6
    assert values(whole) == expected.tolist()
    (added,) = summarise(counts)
    assert not added.exact
    assert added.requests == len(rows)
    errors_us = [1000 * (a - b) for a, b in zip(values(added), values(whole), strict=True)]
    assert all(-1e-3 <= error <= 1 + 1e-3 for error in errors_us), errors_us
    assert {one.why for one in added.percentiles} == {"counts do not say which requests followed one another"}


def test_rows_of_a_warm_up_are_left_out(tmp_path: Path) -> None:
    rows = rows_of(1_000)
    file = stored(tmp_path / "rows", rows)
    (found,) = summarise([file], warmup_s=0.5)
    assert found.requests == (rows["scheduled_ns"] >= 500_000_000).sum()
    with pytest.raises(DataError, match="no request is in"):
        summarise([file], warmup_s=1e6)


def test_intervals_hold_the_percentile_of_a_queue_whose_requests_wait_for_one_another() -> None:
    """By simulation of M/M/1 at a load of 0.5 and 20,000 requests: an interval is given, and rarely wrong."""
    most = float(stats.binom.ppf(0.99, CASES, 0.05)) / CASES
    shares = simulated.covers(0.5, 20_000, CASES)
    assert {level: wrong for level, (_, wrong) in shares.items() if wrong > most} == {}
    assert shares[0.5][0] > 0.99
    assert shares[0.95][0] > 0.99


def test_requests_that_depend_on_one_another_count_for_fewer() -> None:
    rng = np.random.default_rng(1)
    n = np.full(BLOCKS, 1_000)
    independent = uncertainty(n, rng.binomial(1_000, 0.9, BLOCKS))
    bursts = uncertainty(n, rng.binomial(100, 0.9, BLOCKS) * 10)
    assert independent.n_eff > 3 * bursts.n_eff > 0
    assert independent.half < bursts.half


def test_a_drift_has_no_interval() -> None:
    """A server that becomes slower and slower has no percentile of its own; it is the trial's, by its length."""
    assert "drift" in uncertainty(np.full(BLOCKS, 1_000), np.linspace(990, 500, BLOCKS)).why


# --------------------------------------------------------------------------------------- bad input


def test_files_that_cannot_be_summarised_get_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = stored(tmp_path / "rows", rows_of(100))
    pd.DataFrame({"trial_id": ["t"], "sequence": [1], "scheduled_ns": [0], "done_ns": [1]}).to_parquet(
        tmp_path / "bare"
    )
    (tmp_path / "text").write_text("no Parquet")
    counts = tmp_path / "counts"
    summarise([good], counts=counts)
    for arguments, said in (
        (["nowhere.parquet"], "nowhere.parquet does not exist"),
        ([str(tmp_path / "bare")], "lacks the columns status"),
        ([str(tmp_path / "text")], "cannot be read as Parquet"),
        ([str(tmp_path)], "is not a run"),
        ([str(good), str(good)], "a file is given twice"),
        ([str(counts), "--warmup", "1"], "--warmup needs rows"),
    ):
        assert cli.main(["summary", *arguments]) == 1, arguments
        shown = capsys.readouterr()
        assert said in shown.err
        assert shown.err.count("\n") == 1
        assert not shown.out


def test_rows_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    """Two loads of one name, or a shard under two names, would be one trial that never was."""
    files = [stored(tmp_path / name, rows_of(100)) for name in ("one", "other")]
    with pytest.raises(DataError, match="has rows twice"):
        summarise(files)
    assert summarise([files[0], stored(tmp_path / "next", rows_of(100, first=100))])[0].requests == 200
    with pytest.raises(ConfigError, match="given twice"):
        summarise([files[0], files[0]])


def test_a_request_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    rows = rows_of(100)
    with pytest.raises(DataError, match="ended before it was scheduled"):
        summarise([stored(tmp_path / "rows", rows.assign(done_ns=rows["scheduled_ns"] - 5))])


def test_without_duckdb_the_command_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(MissingError, match="pip install duckdb"):
        summarise([Path("rows")])


def test_the_command_prints_percentiles_and_takes_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = stored(tmp_path / "rows", rows_of(10_000))
    assert cli.main(["summary", str(file), "--counts", str(tmp_path / "counts")]) == 0
    printed = capsys.readouterr().out
    assert "t: 10,000 requests" in printed
    assert "independent requests" in printed
    assert cli.main(["summary", str(tmp_path / "counts"), "--json"]) == 0
    (trial,) = msgspec.json.decode(capsys.readouterr().out)["trials"]
    assert trial["exact"] is False
    assert all(math.isfinite(one["value_ms"]) for one in trial["percentiles"])
