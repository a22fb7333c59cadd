"""The committed sample runs: read, tabulated and drawn once for all tests that look at them."""

import functools
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from helpers.project import ROOT
from infscale.analysis.tables import Tables, load_tables, save_tables, tabulate
from infscale.findings import FINDINGS
from infscale.records import runs
from infscale.records.runs import Run
from infscale.report import results

SAMPLE = ROOT / "data" / "sample"
"""Folder of the sample runs."""

_temporary = tempfile.TemporaryDirectory(prefix="infscale-sample-")


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
    """Tabulate and draw all sample runs, a process for each of two cores; return the folder."""
    folder = Path(_temporary.name)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_draw, FINDINGS, [folder] * len(FINDINGS)))
    return folder


def _draw(name: str, folder: Path) -> None:
    run = runs.load_run(sample_folder(name))
    tables = tabulate(run)
    save_tables(tables, folder / "tables" / name)
    results.save(FINDINGS[name], run, tables, folder / "figures")
