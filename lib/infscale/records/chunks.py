"""The table of chunks: one row per message of a stream, beside the rows of the samples table.

A message is what the protocol says: a gRPC message, an event, a line, a chunk. Messages of one request with the same
``at_ns`` came in one read: they arrived together.

Schema history: 1 — first version.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infscale.errors import DataError
from infscale.records.samples import read_row_group, read_table

SCHEMA_VERSION = 1

SCHEMA = pa.schema(
    [
        pa.field("trial_id", pa.dictionary(pa.int32(), pa.string())),
        pa.field("sequence", pa.uint32()),
        pa.field("index", pa.uint32()),
        pa.field("at_ns", pa.int64()),
        pa.field("bytes", pa.uint32()),
    ]
)
"""``sequence`` is the request's, ``index`` the message's place in its stream, from 0; ``at_ns`` when the last byte of
the message was read, on the clock of the samples; ``bytes`` is its size without framing. Rows are ordered by request,
then by index."""


def beside(path: Path) -> Path:
    """Return the file of the messages whose requests are in the file ``path``."""
    return path.with_name(f"{path.stem}-chunks.parquet")


def write(path: Path, frame: pd.DataFrame) -> None:
    """Write messages to ``path`` atomically (a reader sees all of them or nothing).

    Raises:
        DataError: a column is missing.
    """
    write_groups(path, [frame])


def write_groups(path: Path, frames: Iterable[pd.DataFrame], level: int = 9) -> None:
    """Write the messages of several trials to ``path``, a row group for each, atomically, with this level of zstd.

    Raises:
        DataError: as :func:`write`.
    """
    schema = SCHEMA.with_metadata({"infscale_schema_version": str(SCHEMA_VERSION)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    options = {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": ["trial_id", "bytes"],
        "write_statistics": False,
        "column_encoding": dict.fromkeys(("sequence", "index", "at_ns"), "DELTA_BINARY_PACKED"),
    }
    try:
        with pq.ParquetWriter(temporary, schema, **options) as writer:
            for frame in frames:
                if missing := [name for name in SCHEMA.names if name not in frame.columns]:
                    raise DataError(f"chunks for {path.name} lack the columns {', '.join(missing)}")
                table = pa.Table.from_pandas(frame[SCHEMA.names], schema=SCHEMA, preserve_index=False)
                table = table.replace_schema_metadata(None).cast(schema)
                writer.write_table(table, row_group_size=max(1, table.num_rows))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path, row_group: int | None = None) -> pd.DataFrame:
    """Read messages.

    Args:
        path: a file with the messages of one trial or load, or of several.
        row_group: the trial's row group, from 0; None reads the whole file.

    Raises:
        DataError: the file is absent, truncated, or lacks a column.
    """
    if row_group is None:
        return read_table(path, SCHEMA.names)
    return read_row_group(path, row_group, SCHEMA.names)
