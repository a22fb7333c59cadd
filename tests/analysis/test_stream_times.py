"""If these fail, a stream's first message, gaps or stalls are other than its rows say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infscale.analysis.streams import gaps_ns, stream_times
from infscale.records import samples

MS = 1_000_000


def rows_of(first_ms: list[float], status: list[str]) -> pd.DataFrame:
    """Rows scheduled 10 ms apart and sent 1 ms late, whose first message came so long after the schedule."""
    scheduled = np.arange(len(first_ms)) * 10 * MS
    rows = samples.synthetic(scheduled, np.full(len(first_ms), 99 * MS), lag_ns=MS, status=np.array(status))
    first = np.array(first_ms) * MS
    return rows.assign(first_byte_ns=np.where(first >= 0, scheduled + first, -1).astype(np.int64))


def chunks_of(times_ms: list[list[float]]) -> pd.DataFrame:
    """Messages of request k at ``times_ms[k]``."""
    flat = [(k, i, int(at * MS), 5) for k, times in enumerate(times_ms) for i, at in enumerate(times)]
    table = np.array(flat, dtype=np.int64).reshape(-1, 4)
    return pd.DataFrame(table, columns=["sequence", "index", "at_ns", "bytes"])


def test_times_of_two_streams() -> None:
    chunks = chunks_of([[4, 6, 6, 9], [15]])
    times = stream_times(rows_of([4, 5], ["ok", "ok"]), chunks, 1000)
    assert times.first.ordered.tolist() == [4, 5]
    assert times.first_from_send.ordered.tolist() == [3, 4]
    assert times.gaps_ms.tolist() == [0, 2, 3]
    assert times.stalls_ms.tolist() == [3]
    assert times.messages.tolist() == [4, 1]
    assert (times.reads, times.per_read) == (4, 1.25)
    assert times.together == pytest.approx(1 / 3)


def test_failures_stand_above_the_first_messages_and_lend_no_gaps() -> None:
    chunks = chunks_of([[4, 5], [15, 95], [25, 26]])
    times = stream_times(rows_of([4, 5, 5, -1], ["ok", "stream_error", "timeout", "reset"]), chunks, 1000)
    assert (times.first.n, times.first.timeouts, times.first.ordered.tolist()) == (4, 1, [4])
    assert times.gaps_ms.tolist() == [1, 1]
    assert times.first.percentile(0.5).bound


def test_messages_of_requests_that_are_left_out_do_not_count() -> None:
    rows = rows_of([4, 5], ["ok", "ok"]).iloc[1:]
    assert stream_times(rows, chunks_of([[4, 5], [15, 18]]), 1000).gaps_ms.tolist() == [3]


def test_without_messages_there_is_nothing_and_no_error() -> None:
    times = stream_times(rows_of([-1], ["stream_empty"]), chunks_of([]), 1000)
    assert (len(times.gaps_ms), len(times.stalls_ms), times.messages.sum(), times.reads) == (0, 0, 0, 0)
    assert np.isnan(times.per_read)
    assert np.isnan(times.together)


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=5))
def test_gaps_are_those_of_each_stream_alone(gaps: list[list[int]]) -> None:
    chunks = chunks_of([list(np.cumsum(each) / 1) for each in gaps])
    expected = [gap * MS for each in gaps for gap in each[1:]]
    assert gaps_ns(chunks).tolist() == expected
    rows = rows_of([0.0] * len(gaps), ["ok"] * len(gaps)) if gaps else rows_of([0.0], ["ok"])
    times = stream_times(rows, chunks, 1000)
    assert times.stalls_ms.tolist() == sorted(max(each[1:]) for each in gaps if len(each) > 1)
    assert len(times.gaps_ms) + np.count_nonzero([len(each) > 0 for each in gaps]) == times.messages.sum()
