"""Rows on their way from a worker to the driver: Parquet in memory; and the rows of a shard that was lost."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infscale.load.engine.run import Result
from infscale.records.manifest import Generator
from infscale.records.samples import NEVER

TIMES = ["sequence", "scheduled_ns", "due_ns", "sent_ns", "first_byte_ns", "done_ns"]
"""Columns that grow with few steps, which are stored as differences."""


def packed(result: Result) -> list[bytes]:
    """Return the tables of a result as Parquet files: samples, and of streams messages and tokens."""
    tables = [file(result.samples)]
    if result.chunks is not None and result.tokens is not None:
        tables += [file(result.chunks), file(pd.DataFrame({"tokens": result.tokens}))]
    return tables


def unpacked(data: bytes, sizes: Sequence[int], generator: Generator, shards: Sequence[int]) -> Result:
    """Return what a worker sent.

    Args:
        data: Parquet files, one after another.
        sizes: their lengths.
        generator: what its engine used.
        shards: the numbers that its shards have in the whole load.
    """
    ends = np.cumsum(sizes)
    tables = [table(data[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    samples = tables[0]
    samples["shard"] = np.asarray(shards, np.int32)[samples["shard"].to_numpy()]
    if len(tables) == 1:
        return Result(samples, generator)
    return Result(samples, generator, chunks=tables[1], tokens=tables[2]["tokens"].to_numpy())


def file(frame: pd.DataFrame) -> bytes:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    integers = [field.name for field in arrow.schema if pa.types.is_int64(field.type)]
    differences = [name for name in TIMES if name in integers]
    pq.write_table(
        arrow,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in arrow.column_names if name not in differences],
        column_encoding=dict.fromkeys(differences, "DELTA_BINARY_PACKED"),
        write_statistics=False,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def table(data: bytes) -> pd.DataFrame:
    """Return the table of a Parquet file."""
    frame: pd.DataFrame = pq.read_table(pa.BufferReader(data)).to_pandas()
    return frame


def never_sent(
    schedules: Sequence[npt.NDArray[np.int64]],
    choices: Sequence[npt.NDArray[np.int32]],
    shards: Sequence[int],
    *,
    streams: bool,
) -> Result:
    """Return the rows of shards whose worker was lost: scheduled, and never sent as far as anybody knows."""
    frames = []
    for schedule, choice, shard in zip(schedules, choices, shards, strict=True):
        count = len(schedule)
        never = np.full(count, NEVER, np.int64)
        frames.append(
            pd.DataFrame(
                {
                    "sequence": np.arange(count, dtype=np.int64),
                    "scheduled_ns": schedule,
                    **dict.fromkeys(("due_ns", "sent_ns", "first_byte_ns", "done_ns"), never),
                    "status": pd.Categorical.from_codes(np.zeros(count, np.int8), pd.Index(["unsent"])),
                    **dict.fromkeys(("bytes_out", "bytes_in"), np.zeros(count, np.int64)),
                    "payload": choice,
                    "connection": np.full(count, NEVER, np.int32),
                    "shard": np.int32(shard),
                }
            )
        )
    samples = pd.concat(frames, ignore_index=True)
    nothing = Generator(cpu_user_s=0.0, cpu_system_s=0.0, cpu_s=0.0, wall_s=1e-9)
    if not streams:
        return Result(samples, nothing)
    chunks = pd.DataFrame(
        {
            "sequence": np.empty(0, np.uint32),
            "index": np.empty(0, np.uint32),
            "at_ns": np.empty(0, np.int64),
            "bytes": np.empty(0, np.uint32),
        }
    )
    return Result(samples, nothing, chunks=chunks, tokens=np.full(len(samples), -1, np.int32))
