"""A run that is killed again and again: nothing may be lost, doubled, torn or left behind.

A small design (REST and gRPC on Triton, two lifetimes) is measured by a process of its own, once undisturbed; then by
one that SIGKILL ends at a random moment of the time which that took, and which is started again until the run is
complete; then the next run begins, until there were so many kills. After each kill every trial on disk must read
whole, and the processes that the killed one had started must end. A complete run must hold each trial of its plan
exactly once, and nothing else may be in its folder, or among temporary files.

    python -m benchmarks.kills [--kills 50] [--seed 1]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from infscale.deployment.processes.pids import living
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Contrast, Design
from infscale.experiment.measure import measure
from infscale.records import manifest as manifests
from infscale.records.manifest import RunManifest
from infscale.records.runs import load_run

PATIENCE_S = 30.0
"""Longest time that the processes of a killed one may take to end, s."""

MOST_STARTS = 60
"""Starts after which a run that is still not complete counts as one that makes no progress."""

DESIGN = Design(
    finding="kills",
    arms=tuple(Arm(protocol, framework="triton", model="noop") for protocol in ("rest", "grpc")),
    contrasts=(Contrast(0, 1),),
    least=2,
    most=2,
    budget_s=1.0,
    trial_s=0.3,
    requests=60,
    most_per_s=400.0,
    seed=1,
)
FILES = {"run.json", "pids.txt", "logs", "trials.parquet", "samples.parquet", "usage.parquet", ".lock"}
"""What may be in the folder of a complete run."""


def survive(kills: int, seed: int, say: Callable[[str], None] = print) -> list[str]:
    """Kill runs until there were ``kills`` kills, and return what was wrong."""
    rng, left = random.Random(seed), kills
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        _, faults = _one_run(Path(scratch), rng, 0.0, 0, say)
    whole_s = time.monotonic() - began
    while left > 0 and not faults:
        with tempfile.TemporaryDirectory() as scratch:
            used, faults = _one_run(Path(scratch), rng, whole_s, left, say)
            left -= used
    return faults


def _one_run(
    scratch: Path, rng: random.Random, whole_s: float, most: int, say: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Kill one run at most ``most`` times until it is complete; return the number of kills, and what was wrong.

    A kill comes at a random moment of the ``whole_s`` seconds that a run takes.
    """
    place, temporary = scratch / "raw", scratch / "tmp"
    temporary.mkdir()
    kills = 0
    for _ in range(MOST_STARTS):
        limit_s = rng.uniform(0.0, whole_s) if kills < most else None
        errors = (scratch / "errors.txt").open("wb")
        with (
            errors,
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.kills", "--measure", str(place)],
                env={**os.environ, "TMPDIR": str(temporary)},
                stdout=subprocess.DEVNULL,
                stderr=errors,  # a file: the end of a pipe would be waited for until all who hold it have ended
            ) as process,
        ):
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                state, faults = _after_kill(place)
                say(f"kill {kills} after {limit_s:.2f} s: {state}")
                if faults:
                    return kills, faults
                continue
        if process.returncode:
            return kills, [f"measuring ended with {process.returncode}: {_end_of(scratch / 'errors.txt')}"]
        state, faults = _at_the_end(place, temporary)
        say(f"complete after {kills} kills: {state}")
        return kills, faults
    return kills, [f"not complete after {MOST_STARTS} starts"]


def _end_of(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")[-1000:]


def _after_kill(place: Path) -> tuple[str, list[str]]:
    """Return what is on disk, and what is wrong with it; wait for the end of what was left running."""
    faults = []
    for folder in place.glob("*") if place.exists() else ():
        if not (folder / "run.json").exists():
            continue
        deadline = time.monotonic() + PATIENCE_S
        while (alive := _alive(folder)) and time.monotonic() < deadline:
            time.sleep(0.1)
        faults += [f"still running: {line}" for line in alive]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a trial of which only the rows were written
            run = load_run(folder)
        faults += [f"{trial.manifest.trial_id} is torn" for trial in run.trials if not len(trial.samples())]
        return f"{len(run.trials)} trials, {len(run.manifest.lifetimes)} lifetimes", faults
    return "no run yet", faults


def _alive(folder: Path) -> list[str]:
    return living(folder / "pids.txt") if (folder / "pids.txt").exists() else []


def _at_the_end(place: Path, temporary: Path) -> tuple[str, list[str]]:
    """Return what a complete run holds, and what is wrong with it."""
    folders = [folder for folder in place.iterdir() if folder.is_dir()]
    if len(folders) != 1:
        return "", [f"{len(folders)} runs instead of one"]
    run = load_run(folders[0])
    manifest = manifests.read(folders[0] / "run.json", RunManifest)
    faults = [f"left behind: {path.name}" for path in folders[0].iterdir() if path.name not in FILES]
    faults += [f"left behind: {path}" for path in temporary.iterdir()]
    faults += [f"still running: {line}" for line in _alive(folders[0])]
    if manifest.status != "complete" or len(manifest.lifetimes) != DESIGN.least:
        faults.append(f"{manifest.status}, {len(manifest.lifetimes)} lifetimes")
    grid = [trial.manifest for trial in run.trials if trial.manifest.phase == "grid"]
    last = {(m.arm_number, m.rate_per_s, m.lifetime): m.attempt for m in grid}
    rates = manifest.rates_per_s[DESIGN.block(0)]
    planned = {(arm, rate, number) for arm in (0, 1) for rate in rates for number in range(DESIGN.least)}
    faults += [f"lost: {cell}" for cell in planned - set(last)]
    cells = Counter((m.arm_number, m.rate_per_s, m.lifetime, m.attempt, tuple(m.seeds.arrivals)) for m in grid)
    faults += [f"doubled: {name}" for name, n in cells.items() if n > 1]
    faults += [f"{trial.manifest.trial_id} has no rows" for trial in run.trials if not len(trial.samples())]
    return f"{len(run.trials)} trials in {len(manifest.sessions)} sessions", faults


def main() -> None:
    """Read the options, kill and report; exit code 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--measure", type=Path, help="measure, and be killed")
    options = parser.parse_args()
    if options.measure:
        measure(DESIGN, options.measure, say=lambda _: None)
        return
    faults = survive(options.kills, options.seed)
    print("\n".join(faults) or f"{options.kills} kills: nothing lost, doubled, torn or left behind")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
