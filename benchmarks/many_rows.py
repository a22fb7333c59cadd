"""How long 10⁸ rows take to be summarised with intervals, and how much memory; the percentiles beside numpy's.

The rows are those of a queue (Poisson arrivals) before a model whose times are lognormal, so that they lie in many
bins of 1 µs; they are written in bounded memory. Each summary is a process of its own, as a user's command is, whose
peak of memory is read when it ends.

    python -m benchmarks.many_rows [--rows 100000000] [--folder FOLDER] [--times 3]

Rows that are in the folder already are not written again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from infscale.analysis.merging.rows import LEVELS, summarise
from infscale.machine import describe
from infscale.records import samples

RESULTS = Path(__file__).parent / "results" / "many-rows"
GROUP = 1_000_000
RATE, LOAD = 100_000.0, 0.8
"""Arrivals per second, and the share of the time in which the server is busy."""
MODEL_NS = 5e6
"""Median of the times that are added to the queue's, ns."""
SMALL = 5_000_000
"""Rows that are compared with numpy's percentiles."""


def frames(rows: int) -> Iterator[pd.DataFrame]:
    """Rows of a queue in groups; 1 in 10,000 fails and 1 in 10,000 times out."""
    rng = np.random.default_rng(20261127)
    at = free = 0
    for first in range(0, rows, GROUP):
        n = min(GROUP, rows - first)
        arrivals = at + np.cumsum(rng.exponential(1e9 / RATE, n)).astype(np.int64)
        service = rng.exponential(1e9 * LOAD / RATE, n).astype(np.int64)
        done = np.cumsum(service)
        begun = np.maximum(np.maximum.accumulate(arrivals - (done - service)), free)
        at, free = int(arrivals[-1]), int(begun[-1] + done[-1])
        status = np.where(rng.random(n) < 1e-4, "reset", np.where(rng.random(n) < 1e-4, "timeout", "ok"))
        model = rng.lognormal(np.log(MODEL_NS), 1, n).astype(np.int64)
        frame = samples.synthetic(arrivals, begun + done + model - arrivals, trial_id="many", status=status)
        yield frame.assign(sequence=frame["sequence"] + first)


def written(folder: Path, rows: int) -> Path:
    """The file of so many rows."""
    file = folder / f"rows-{rows}.parquet"
    if not file.exists():
        start = time.perf_counter()
        samples.write_groups(file, frames(rows), level=1)
        print(f"{rows:,} rows written in {time.perf_counter() - start:.0f} s", flush=True)
    return file


def apart(*arguments: str) -> tuple[float, float, str]:
    """Run ``infscale summary`` as a process: seconds, its peak of memory in GB (10⁹ bytes), what it printed."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "infscale.cli", "summary", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9, printed


def values(printed: str) -> list[float]:
    """The percentiles of a summary that was printed as JSON, ms."""
    (trial,) = msgspec.json.decode(printed)
    return [one["value_ms"] for one in trial["percentiles"]]


def same_as_numpy(file: Path) -> bool:
    """Whether every percentile is the order statistic that numpy finds, failures above all."""
    rows = samples.read(file, ["scheduled_ns", "done_ns", "status"])
    times = np.where(rows["status"] == "ok", (rows["done_ns"] - rows["scheduled_ns"]) / 1e6, np.inf)
    expected = np.quantile(times, LEVELS, method="inverted_cdf")
    (found,) = summarise([file])
    return bool(np.array_equal([one.value_ms for one in found.percentiles], expected))


def main() -> None:
    """Write the rows, summarise them, and store what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--folder", default="")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or scratch)
        file, small = written(folder, options.rows), written(folder, SMALL)
        if options.times < 1:
            return
        lines = [f"load average before: {Path('/proc/loadavg').read_text().split()[0]}"]
        size = file.stat().st_size / 1e9
        for _ in range(options.times):
            seconds, memory, printed = apart(str(file))
            lines.append(
                f"{options.rows:,} rows ({size:.1f} GB) with intervals: {seconds:.1f} s, {memory:.2f} GB at most"
            )
        counts = folder / "counts.parquet"
        apart(str(file), "--counts", str(counts))
        seconds, memory, again = apart(str(counts), "--json")
        pairs = zip(values(again), values(apart(str(file), "--json")[2]), strict=True)
        errors_us = [1000 * (of_counts - of_rows) for of_counts, of_rows in pairs]
        lines.append(
            f"counts of them ({counts.stat().st_size / 1e3:,.0f} kB): {seconds:.1f} s, {memory:.2f} GB at most; "
            f"percentiles longer by {min(errors_us):.3f} to {max(errors_us):.3f} µs"
        )
        # Last: a child's peak of memory is never below what this process has when it starts it.
        lines.append(f"{SMALL:,} rows: percentiles equal to numpy's: {'yes' if same_as_numpy(small) else 'NO'}")
        machine = "; ".join(f"{key}: {value}" for key, value in msgspec.structs.asdict(describe()).items())
        text = "\n".join([*lines, "", printed.strip(), "", machine])
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "results.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
