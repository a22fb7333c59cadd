"""The samples table: one row per scheduled request, failures included.

Rows are facts; everything else in the project is a function of rows. This module owns the column
names, their types, the closed set of statuses, the files that hold them, and a builder of
synthetic tables for tests.

Schema history: 1 — first version.
"""

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infscale.errors import DataError
from infscale.vocabulary import CLIENT_LIMITS, STREAM_FAULTS

SCHEMA_VERSION = 1

NEVER = -1
"""A time that does not exist: a request that was never sent has no ``sent_ns``."""

TIMES = ("scheduled_ns", "due_ns", "sent_ns", "first_byte_ns", "done_ns")

SCHEMA = pa.schema(
    [
        pa.field("trial_id", pa.dictionary(pa.int32(), pa.string())),
        pa.field("sequence", pa.int64()),
        *(pa.field(name, pa.int64()) for name in TIMES),
        pa.field("status", pa.dictionary(pa.int32(), pa.string())),
        pa.field("bytes_out", pa.int64()),
        pa.field("bytes_in", pa.int64()),
        pa.field("payload", pa.int32()),
        pa.field("connection", pa.int32()),
        pa.field("shard", pa.int32()),
    ]
)
"""Times are int64 nanoseconds since the trial's start by one monotonic clock, ``NEVER`` if absent.

``scheduled_ns`` is when the arrival process says a request starts, ``due_ns`` when the engine got
to it, ``sent_ns`` when a connection was free and the send began, ``first_byte_ns`` and ``done_ns``
when its answer began and ended. The ``done_ns`` of a request that timed out is the moment at
which the engine gave it up; its answer would have come later. ``bytes_out`` and ``bytes_in`` count
the bytes that this request sent and received, framing included; over TLS, ``bytes_in`` counts them
after decryption. They are ``NEVER`` where they were not counted, as with a client library.

Of a stream, ``first_byte_ns`` is the time of its first message (``NEVER`` if none came), not of the head before it, and
``done_ns`` that of the reply's end; the times of all messages are in :mod:`infscale.records.chunks`.

A closed loop (:attr:`infscale.experiment.design.arm.Arm.closed`) has no schedule: ``scheduled_ns`` and ``due_ns`` are
when a user was ready to send, and what it did not send while it waited has no row. In LoadGen's Offline, where all is
sent at once, ``scheduled_ns`` is the start.
"""

FIXED_STATUSES = frozenset({"ok", "timeout", "refused", "reset", "bad_response", "unsent", *STREAM_FAULTS})
"""The statuses beside ``http_<code>`` (400–599), ``grpc_<CODE>`` and ``client_<errno>``, by which a limit of the client
ended a request (:data:`infscale.vocabulary.CLIENT_LIMITS`); ``unsent`` is a request that was not sent because its trial
was ended first. Those of streams alone are :data:`infscale.vocabulary.STREAM_FAULTS`; a stream that goes on at its
timeout is a ``timeout``."""

_STATUSES = rf"http_[1-5][0-9]{{2}}|grpc_[A-Z_]+|client_({'|'.join(CLIENT_LIMITS)})"

_DELTA = ("sequence", *TIMES)
_SPLIT = ("bytes_out", "bytes_in", "payload", "connection", "shard")  # byte by byte: 5 % less than with dictionaries


def is_status(status: str) -> bool:
    """Return whether ``status`` belongs to the closed set of the table."""
    return status in FIXED_STATUSES or re.fullmatch(_STATUSES, status) is not None


def ordered(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the values sorted, as float64; sorted ones are returned as they are, which costs far less."""
    x = np.asarray(values, dtype=np.float64)
    return x if bool((x[1:] >= x[:-1]).all()) else np.sort(x)


def write(path: Path, frame: pd.DataFrame) -> None:
    """Write one trial's rows to ``path`` atomically (a reader sees all of them or nothing).

    Raises:
        DataError: a column is missing, or a status is outside the closed set.
    """
    write_groups(path, [frame])


def write_groups(path: Path, frames: Iterable[pd.DataFrame], level: int = 9) -> None:
    """Write the rows of several trials to ``path``, a row group for each, atomically, with this level of zstd.

    Raises:
        DataError: as :func:`write`.
    """
    repeated = [name for name in SCHEMA.names if name not in (*_DELTA, *_SPLIT)]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    options = {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": repeated,
        "write_statistics": False,  # nobody filters by them, and a run has thousands of row groups
        "column_encoding": {
            **dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
            **dict.fromkeys(_SPLIT, "BYTE_STREAM_SPLIT"),
        },
    }
    schema = SCHEMA.with_metadata({"infscale_schema_version": str(SCHEMA_VERSION)})
    try:
        with pq.ParquetWriter(temporary, schema, **options) as writer:
            for frame in frames:
                table = _table(frame, path)
                writer.write_table(table.cast(schema), row_group_size=max(1, table.num_rows))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _table(frame: pd.DataFrame, path: Path) -> pa.Table:
    missing = [name for name in SCHEMA.names if name not in frame.columns]
    if missing:
        raise DataError(f"samples for {path.name} lack the columns {', '.join(missing)}")
    unknown = [s for s in frame["status"].unique() if not is_status(str(s))]
    if unknown:
        raise DataError(f"samples for {path.name} hold unknown statuses: {unknown}")
    table = pa.Table.from_pandas(frame[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    return table.replace_schema_metadata(None)


def read(path: Path, columns: Iterable[str] | None = None, row_group: int | None = None) -> pd.DataFrame:
    """Read the rows of one trial.

    Args:
        path: a file with the rows of one trial, or of several.
        columns: their names; None reads all.
        row_group: the trial's row group, from 0; None reads the whole file.

    Raises:
        DataError: the file is absent, truncated, or of another schema version.
    """
    names = list(columns) if columns is not None else None
    with _open(path) as file:
        version = (file.schema_arrow.metadata or {}).get(b"infscale_schema_version", b"none").decode()
        if version != str(SCHEMA_VERSION):
            raise DataError(f"{path} has schema version {version}; this program reads version {SCHEMA_VERSION}")
        try:
            table = file.read(names) if row_group is None else file.read_row_group(row_group, names)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} cannot be read as Parquet (truncated?): {error}") from error
    frame: pd.DataFrame = table.to_pandas()
    return frame


def row_counts(path: Path) -> list[int]:
    """Return the number of rows of each trial that a file holds, in their order.

    Raises:
        DataError: the file is absent or truncated.
    """
    with _open(path) as file:
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def read_table(
    path: Path, columns: Sequence[str] | None = None, filters: list[tuple[str, str, str]] | None = None
) -> pd.DataFrame:
    """Read a Parquet file, or the rows of it that fit ``filters`` (as PyArrow's).

    Raises:
        DataError: the file is absent, truncated, or lacks a column.
    """
    with _open(path) as file:
        lacking = sorted(set(columns or ()) - set(file.schema_arrow.names))
    if lacking:
        raise DataError(f"{path} lacks the columns {', '.join(lacking)}")
    try:
        frame: pd.DataFrame = pq.read_table(path, columns=columns, filters=filters).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet (truncated?): {error}") from error
    return frame


def read_row_group(path: Path, row_group: int, columns: Sequence[str]) -> pd.DataFrame:
    """Read one row group of a Parquet file, from 0.

    Raises:
        DataError: the file is absent, truncated, lacks a column, or has fewer row groups.
    """
    with _open(path) as file:
        if row_group >= file.num_row_groups or (lacking := set(columns) - set(file.schema_arrow.names)):
            what = f"the columns {', '.join(sorted(lacking))}" if row_group < file.num_row_groups else "row groups"
            raise DataError(f"{path} lacks {what}")
        try:
            frame: pd.DataFrame = file.read_row_group(row_group, columns).to_pandas()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} cannot be read as Parquet (truncated?): {error}") from error
    return frame


def _open(path: Path) -> pq.ParquetFile:
    try:
        state = path.stat()
        return pq.ParquetFile(path, metadata=_metadata(path, state.st_mtime_ns, state.st_size))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet (truncated?): {error}") from error


@functools.lru_cache(maxsize=32)
def _metadata(path: Path, modified_ns: int, size: int) -> pq.FileMetaData:
    """Return a file's metadata; of a packed run it is long, and is needed for each of its trials."""
    return pq.read_metadata(path)


def synthetic(
    scheduled_ns: npt.NDArray[np.int64],
    response_ns: npt.NDArray[np.int64],
    *,
    trial_id: str = "synthetic",
    lag_ns: int | npt.NDArray[np.int64] = 0,
    wait_ns: int | npt.NDArray[np.int64] = 0,
    status: str | npt.NDArray[np.str_] = "ok",
) -> pd.DataFrame:
    """Build a table from arrival times and response times, both int64 nanoseconds of shape (n,).

    ``response_ns`` counts from the scheduled time, as the headline does.
    """
    n = len(scheduled_ns)
    due = scheduled_ns + lag_ns
    done = scheduled_ns + response_ns
    columns = {
        "trial_id": trial_id,
        "sequence": np.arange(n, dtype=np.int64),
        "scheduled_ns": scheduled_ns,
        "due_ns": due,
        "sent_ns": due + wait_ns,
        "first_byte_ns": done,
        "done_ns": done,
        "status": status,
        "bytes_out": 100,
        "bytes_in": 100,
        "payload": np.arange(n, dtype=np.int32) % 64,
        "connection": 0,
        "shard": 0,
    }
    return pd.DataFrame(columns)
