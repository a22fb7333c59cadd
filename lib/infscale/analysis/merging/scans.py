"""What DuckDB is asked about files of rows: counts in bins of 1 µs, the rows of a few bins, shares of blocks.

Each function is one pass over the rows, or over the counts; what does not fit in memory is kept on disk.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from infscale.analysis.merging.blocks import BLOCKS
from infscale.errors import ConfigError, DataError, MissingError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROWS = ("trial_id", "sequence", "scheduled_ns", "done_ns", "status")
"""Columns of a file of rows that are read (:mod:`infscale.records.samples`)."""

COUNTS = ("trial_id", "outcome", "us", "requests")
"""Columns of a file of counts: how many requests of a trial ended with an outcome after ``us`` whole µs. Outcomes are 0
for success, 1 for a timeout and 2 for any other failure, whose ``us`` is 0."""

MEMORY = "2GB"
"""Memory that DuckDB may use for tables; it takes some more for what it reads."""


@contextmanager
def connected() -> "Iterator[DuckDBPyConnection]":
    """Open a database that keeps in a temporary folder what does not fit in :data:`MEMORY`.

    Raises:
        MissingError: DuckDB is not installed.
        DataError: DuckDB cannot do what it is asked for, within the context.
    """
    try:
        import duckdb
    except ImportError as error:
        raise MissingError(f"DuckDB is not installed: {sys.executable} -m pip install duckdb") from error
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as db:
        try:
            settings = {"memory_limit": MEMORY, "temp_directory": folder, "preserve_insertion_order": "false"}
            for name, value in settings.items():
                db.execute(f"SET {name} = '{value}'")
            yield db
        except (duckdb.OperationalError, duckdb.DataError) as error:
            raise DataError(f"the rows cannot be summarised: {str(error).splitlines()[0]}") from error


def open_files(db: "DuckDBPyConnection", files: Sequence[Path], warmup_ns: int) -> bool:
    """Make the rows of some files known as ``observed`` and the counts as ``given``; return whether all are rows.

    Raises:
        DataError: a file is absent, is no Parquet file, or lacks a column.
        ConfigError: a file is given twice, or has counts although there is a warm-up.
    """
    kinds: dict[tuple[str, ...], list[str]] = {ROWS: [], COUNTS: []}
    for file in files:
        kinds[_kind(db, file)].append(str(file))
    if len({file.resolve() for file in files}) < len(files):
        raise ConfigError("a file is given twice; accepted: each once")
    if kinds[COUNTS] and warmup_ns:
        raise ConfigError(
            f"--warmup needs rows; {kinds[COUNTS][0]} has counts, which do not say when a request was sent"
        )
    for name, kind in (("stored", ROWS), ("given", COUNTS)):
        if kinds[kind]:
            db.read_parquet(kinds[kind]).create_view(name)
        else:
            columns = [f"{column} {'TEXT' if column in ('trial_id', 'status') else 'BIGINT'}" for column in kind]
            db.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
    db.execute(
        f"""CREATE VIEW observed AS
        SELECT trial_id, sequence, scheduled_ns, done_ns - scheduled_ns AS response_ns,
            CASE status WHEN 'ok' THEN 0 WHEN 'timeout' THEN 1 ELSE 2 END AS outcome
        FROM stored WHERE scheduled_ns >= {warmup_ns}"""
    )
    return not kinds[COUNTS]


def _kind(db: "DuckDBPyConnection", file: Path) -> tuple[str, ...]:
    """Return the columns that are read of a file: :data:`ROWS` or :data:`COUNTS`."""
    import duckdb

    if not file.is_file():
        raise DataError(f"{file} does not exist")
    try:
        columns = db.read_parquet(str(file)).columns
    except duckdb.Error as error:
        raise DataError(f"{file} cannot be read as Parquet (truncated?): {str(error).splitlines()[0]}") from error
    if set(COUNTS) <= set(columns):
        return COUNTS
    if missing := [name for name in ROWS if name not in columns]:
        raise DataError(
            f"{file} lacks the columns {', '.join(missing)}; accepted: a row per request, as load --out writes"
        )
    return ROWS


def _frame(db: "DuckDBPyConnection", query: str) -> pd.DataFrame:
    """Return what a query finds."""
    found: pd.DataFrame = db.sql(query).df()
    return found


def count(db: "DuckDBPyConnection") -> pd.DataFrame:
    """Count all requests in bins of 1 µs, and return one row a trial.

    The columns are ``trial_id``, ``requests``, ``timeouts``, ``failed``, ``longest_us`` (of the successes) and, where
    the rows are known, ``rows``, ``least_ns`` (the shortest response time), ``first_ns`` and ``last_ns`` (when the
    first and the last request was scheduled) and ``span``, how many sequence numbers lie from the first to the last.
    """
    db.execute(
        """CREATE TABLE counts AS
        SELECT trial_id, outcome, us, sum(requests)::BIGINT AS requests FROM (
            SELECT trial_id, outcome, CASE WHEN outcome < 2 THEN response_ns // 1000 ELSE 0 END AS us,
                count(*) AS requests
            FROM observed GROUP BY ALL
            UNION ALL SELECT trial_id, outcome, us, requests FROM given
        ) GROUP BY ALL"""
    )
    db.execute(
        """CREATE TABLE ranked AS
        SELECT trial_id, outcome, us, requests AS here,
            sum(requests) OVER (PARTITION BY trial_id ORDER BY outcome, us)::BIGINT AS upto
        FROM counts"""
    )
    return _frame(
        db,
        """SELECT * FROM (
            SELECT trial_id, sum(requests)::BIGINT AS requests,
                coalesce(sum(requests) FILTER (outcome = 1), 0)::BIGINT AS timeouts,
                coalesce(sum(requests) FILTER (outcome = 2), 0)::BIGINT AS failed,
                max(us) FILTER (outcome = 0) AS longest_us
            FROM counts GROUP BY trial_id
        ) LEFT JOIN (
            SELECT trial_id, min(scheduled_ns) AS first_ns, max(scheduled_ns) AS last_ns,
                max(sequence) - min(sequence) + 1 AS span, count(*) AS rows,
                min(response_ns) FILTER (outcome < 2) AS least_ns
            FROM observed GROUP BY trial_id
        ) USING (trial_id) ORDER BY trial_id""",
    )


def store(db: "DuckDBPyConnection", file: Path) -> None:
    """Write the counts to a Parquet file."""
    db.table("counts").write_parquet(str(file), compression="zstd")


def places(db: "DuckDBPyConnection", ranks: pd.DataFrame) -> pd.DataFrame:
    """Return where ranks lie: ``outcome`` and ``us``, and ``within``, the rank among the requests of that bin.

    Args:
        ranks: with ``trial_id`` and ``rank``, from 1; other columns are kept.
    """
    db.register("asked", ranks)
    return _frame(
        db,
        """SELECT asked.*, outcome, us, rank - (upto - here) AS within
        FROM asked JOIN ranked ON asked.trial_id = ranked.trial_id AND rank <= upto AND rank > upto - here""",
    )


def exact(db: "DuckDBPyConnection", found: pd.DataFrame) -> pd.DataFrame:
    """Return ``found``, of :func:`places`, with the response time ``ns`` of successes, from the rows of their bins."""
    db.register("found", found)
    return _frame(
        db,
        """SELECT found.*, ns FROM found LEFT JOIN (
            SELECT trial_id, rank, min(response_ns) AS ns
            FROM found JOIN (
                SELECT trial_id, us, response_ns,
                    sum(count(*)) OVER (PARTITION BY trial_id, us ORDER BY response_ns) AS upto
                FROM (SELECT trial_id, response_ns // 1000 AS us, response_ns FROM observed WHERE outcome = 0)
                SEMI JOIN found USING (trial_id, us)
                GROUP BY trial_id, us, response_ns
            ) AS inside USING (trial_id, us)
            WHERE outcome = 0 AND upto >= within GROUP BY ALL
        ) USING (trial_id, rank)""",
    )


def blocks(db: "DuckDBPyConnection", spans: pd.DataFrame, levels: int) -> pd.DataFrame:
    """Return how many requests each consecutive block of a trial has, and how many of them were within a percentile.

    The columns are ``trial_id``, ``block``, ``requests`` and ``within_0``, ``within_1``, …

    Args:
        spans: with ``trial_id``, ``first_ns``, ``last_ns`` and a column ``q_0``, ``q_1``, … for each percentile, ns.
        levels: how many percentiles.
    """
    db.register("spans", spans)
    within = ", ".join(f"count(*) FILTER (outcome = 0 AND response_ns <= q_{k}) AS within_{k}" for k in range(levels))
    return _frame(
        db,
        f"""SELECT trial_id, (scheduled_ns - first_ns) * {BLOCKS} // (last_ns - first_ns + 1) AS block,
            count(*) AS requests, {within}
        FROM observed JOIN spans USING (trial_id) GROUP BY ALL""",
    )
