"""The committed sample runs: read, tabulated and drawn once for all tests that look at them."""

import functools
import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import filelock

from helpers.project import ROOT
from infscale.analysis.tables import Tables, load_tables, save_tables, tabulate
from infscale.findings import FINDINGS
from infscale.records import runs
from infscale.records.runs import Run
from infscale.report import results

SAMPLE = ROOT / "data" / "sample"
"""Folder of the sample runs."""


def sample_folder(finding: str) -> Path:
    """Return the folder of a finding's sample run."""
    folder = runs.newest(SAMPLE, finding)
    assert folder is not None, f"no complete run of {finding} in {SAMPLE}"
    return folder


@functools.cache
def sample_run(finding: str) -> Run:
    """Return a finding's sample run."""
    return runs.load_run(sample_folder(finding))


@functools.cache
def sample_tables(finding: str) -> Tables:
    """Return the tables of a finding's sample run. They are shared: no test may change them."""
    return load_tables(_drawn() / "tables" / finding)


def sample_figures() -> Path:
    """Return a folder with every finding's figures and result, drawn from the sample runs."""
    return _drawn() / "figures"


@functools.cache
def _drawn() -> Path:
    """Tabulate and draw all sample runs, a process for each of two cores; return the folder.

    The first of pytest's worker processes that comes here does it for all of them.
    """
    place = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    folder = Path(tempfile.gettempdir()) / f"infscale-sample-{place}"
    folder.mkdir(exist_ok=True)
    with filelock.FileLock(folder / "lock"):
        if not (folder / "done").exists():
            with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
                # One without a sample fails the tests that ask for it, and no other.
                there = [name for name in FINDINGS if runs.newest(SAMPLE, name)]
                list(pool.map(_draw, there, [folder] * len(there)))
            (folder / "done").touch()
    return folder


def remove_drawn(place: str) -> None:
    """Remove what was drawn by the workers of the test run ``place``, or by the process of that number."""
    shutil.rmtree(Path(tempfile.gettempdir()) / f"infscale-sample-{place}", ignore_errors=True)


def _draw(name: str, folder: Path) -> None:
    run = runs.load_run(sample_folder(name))
    tables = tabulate(run)
    save_tables(tables, folder / "tables" / name)
    results.save(FINDINGS[name], run, tables, folder / "figures")
