"""The committed sample runs with their tables, read once for all tests that look at them."""

import functools
from pathlib import Path

from helpers.project import ROOT
from infscale.analysis.tables import Tables, tabulate
from infscale.records import runs
from infscale.records.runs import Run

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
    return tabulate(sample_run(finding))
