"""How long 10⁷ samples take to be summarised with all intervals, beside a plain pandas ``groupby.quantile``.

Synthetic rows, FIFO queues at several loads. The two run one after the other in this process, from the same files; the
peak of memory is that of a process of its own.

    python -m benchmarks.summary_speed [--samples 10000000] [--trials 50]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from infscale.analysis.tables import tabulate
from infscale.records import runs


def build(folder: Path, rows: int, trials: int) -> None:
    """A stored run of one implementation, two protocols, five lifetimes, with about ``rows`` samples in all."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from helpers import synthetic_run

    rates, lifetimes = trials // 10, 5
    capacities = {("torchserve", "rest"): 1000.0, ("torchserve", "grpc"): 1200.0}
    grid = tuple(map(float, np.linspace(0.3, 0.8, rates)))
    seconds = float(rows) / (10 * 1200.0 * sum(grid))
    synthetic_run.build(folder, capacities, lifetimes=lifetimes, duration_s=seconds, grid=grid)


def plain(run: runs.Run) -> pd.DataFrame:
    """Percentiles by trial and nothing else, as a notebook would do it."""
    columns = ("scheduled_ns", "done_ns")
    parts = [trial.samples(columns).assign(trial=i) for i, trial in enumerate(run.trials)]
    rows = pd.concat(parts, ignore_index=True)
    rows["response_ms"] = (rows["done_ns"] - rows["scheduled_ns"]) / 1e6
    return rows.groupby("trial")["response_ms"].quantile(np.array([0.5, 0.95, 0.99])).unstack()


def once(folder: Path, what: str) -> None:
    """One of the two in this process: prints seconds and the peak of memory in GiB."""
    run = runs.load_run(folder)
    start = time.perf_counter()
    if what == "plain":
        plain(run)
    else:
        tabulate(run)
    seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    """Build, then time both three times in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--once", nargs=2)
    options = parser.parse_args()
    if options.once:
        once(Path(options.once[0]), options.once[1])
        return
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch), options.samples, options.trials)
        (folder,) = Path(scratch).iterdir()
        run = runs.load_run(folder)
        rows = sum(trial.manifest.rows for trial in run.trials)
        print(
            f"{rows:,} samples in {len(run.trials)} trials; load average {Path('/proc/loadavg').read_text().split()[0]}"
        )
        times: dict[str, list[list[float]]] = {"plain": [], "all": []}
        for _ in range(3):
            for what, values in times.items():
                command = [sys.executable, "-m", "benchmarks.summary_speed", "--once", str(folder), what]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                values.append([float(number) for number in output.split()])
        for what, values in times.items():
            seconds, memory = np.median(np.array(values), axis=0)
            print(f"{what}: median {seconds:.1f} s of {[round(v[0], 1) for v in values]}, {memory:.2f} GiB at most")
        ratio = np.median([a[0] / b[0] for a, b in zip(times["all"], times["plain"], strict=True)])
        print(f"all intervals ÷ plain quantiles: {ratio:.1f}")


if __name__ == "__main__":
    main()
