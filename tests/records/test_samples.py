"""If these fail, a stored trial is lost, half written, or read as something that it is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infscale.errors import DataError
from infscale.records import samples


def table(n: int = 50) -> pd.DataFrame:
    times = np.arange(n, dtype=np.int64) * 1_000_000
    return samples.synthetic(times, np.full(n, 2_000_000, np.int64))


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    frame = table()
    samples.write(tmp_path / "t.parquet", frame)
    back = samples.read(tmp_path / "t.parquet")
    assert list(back.columns) == samples.SCHEMA.names
    for column in frame:
        assert (back[column].astype(object) == frame[column].astype(object)).all(), column


@settings(max_examples=20)
@given(st.lists(st.integers(-1, 2**62), min_size=1, max_size=50))
def test_nanoseconds_survive_exactly(values: list[int]) -> None:
    import tempfile

    frame = table(len(values)).assign(done_ns=np.array(values, dtype=np.int64))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        samples.write(path, frame)
        assert samples.read(path)["done_ns"].tolist() == values


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    samples.write(path, table())
    before = path.read_bytes()
    with pytest.raises(DataError, match="unknown statuses"):
        samples.write(path, table().assign(status="fine"))
    with pytest.raises(DataError, match="lack the columns due_ns"):
        samples.write(path, table().drop(columns="due_ns"))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_truncated_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    samples.write(path, table())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"t\.parquet cannot be read .*truncated"):
        samples.read(path)
    with pytest.raises(DataError, match="does not exist"):
        samples.read(tmp_path / "none.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(DataError, match="schema version none"):
        samples.read(path)


@pytest.mark.parametrize("status", ["ok", "timeout", "unsent", "http_404", "http_503", "grpc_UNAVAILABLE"])
def test_the_closed_set_of_statuses(status: str) -> None:
    assert samples.is_status(status)
    assert not samples.is_status(status + "!")


def test_rows_are_small_on_disk(tmp_path: Path) -> None:
    """The committed sample has a budget: a row of real times must cost little."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(1e6, 10_000)).astype(np.int64)
    response = rng.exponential(2e6, 10_000).astype(np.int64)
    frame = samples.synthetic(times, response, lag_ns=rng.integers(0, 99_999, 10_000))
    samples.write(tmp_path / "t.parquet", frame)
    assert (tmp_path / "t.parquet").stat().st_size < 25 * 10_000
