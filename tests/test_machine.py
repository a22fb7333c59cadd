"""If these fail, runs of two machines are taken for one, or a run names code that did not measure it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import nbformat
import pytest

from helpers.project import ROOT
from infscale import machine


def test_a_machine_is_described_by_more_than_its_processors_name() -> None:
    """Two hosts of one cloud image share name, kernel and system; their caches and memory may differ."""
    here = machine.describe()
    assert here == machine.describe()
    for name, other in (("caches", "L1d 1K"), ("kernel", "0"), ("memory_gib", here.memory_gib + 1)):
        assert msgspec.structs.replace(here, **{name: other}).digest() != here.digest()


def test_the_calibration_times_work_of_every_kind() -> None:
    measured = msgspec.structs.asdict(machine.calibrate())
    assert set(measured) == {"python", "numpy", "calls", "loopback"}
    assert all(value > 0 for value in measured.values())
    assert measured["calls"] > measured["loopback"], "a round trip is made of several system calls"


# --- the commit ---


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a repository with a module and a notebook of one cell, both committed."""
    folder = tmp_path / "checkout"
    for name in ("lib/infscale/module.py", "pyproject.toml", "requirements.txt", "figures/f0.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1\n")
    (folder / "notebooks").mkdir()
    cell = nbformat.v4.new_code_cell("rate = 1.0\nprint(rate)", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "notebooks" / "00.ipynb")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    return folder


def test_the_commit_is_that_of_the_code_that_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert machine.commit(checkout) == name
    assert ROOT.resolve() == machine.CHECKOUT
    here = machine.commit()
    monkeypatch.chdir(checkout)
    assert machine.commit() == here, "wherever it is called from"


def test_unpacked_inside_another_repository_the_commit_is_unknown(checkout: Path, tmp_path: Path) -> None:
    """The other repository's commit led to code that is not there."""
    inner = shutil.copytree(checkout / "lib", checkout / "vendor" / "project" / "lib").parent
    assert machine.commit(inner) == "unknown"
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "vendored")
    assert machine.commit(inner) == "unknown"
    assert machine.commit(tmp_path) == "unknown", "and outside of any repository"


@pytest.mark.parametrize("change", ["kernel", "outputs", "identifier", "lines", "checkpoint"])
def test_a_notebook_that_jupyterlab_saved_is_not_dirty(change: str, checkout: Path) -> None:
    """Whoever looked at one had no run with a clean commit."""
    path = checkout / "notebooks" / "00.ipynb"
    notebook = nbformat.read(path, as_version=4)
    (cell,) = notebook.cells
    if change == "kernel":
        notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    elif change == "outputs":
        cell.execution_count = 3
        cell.outputs = [nbformat.v4.new_output("stream", text="1.0\n")]
    elif change == "identifier":
        cell.id = "another"
    elif change == "checkpoint":
        path = path.parent / ".ipynb_checkpoints" / "00-checkpoint.ipynb"
        path.parent.mkdir()
    nbformat.write(notebook, path)
    if change == "lines":
        stored = json.loads(path.read_text())
        path.write_text(json.dumps({**stored, "cells": [{**stored["cells"][0], "source": cell.source}]}))
    assert not machine.commit(checkout).endswith("-dirty")


@pytest.mark.parametrize("change", ["code", "tags", "damaged", "removed"])
def test_a_notebook_that_runs_otherwise_is_dirty(change: str, checkout: Path) -> None:
    path = checkout / "notebooks" / "00.ipynb"
    notebook = nbformat.read(path, as_version=4)
    (cell,) = notebook.cells
    if change == "code":
        cell.source = cell.source.replace("1.0", "2.0")
    elif change == "tags":
        cell.metadata["tags"] = []
    nbformat.write(notebook, path)
    if change == "damaged":
        path.write_text(path.read_text()[:50])
    elif change == "removed":
        path.unlink()
    assert machine.commit(checkout).endswith("-dirty")


@pytest.mark.parametrize("ignored", ["", "lib/"])
def test_an_untracked_module_is_dirty_also_where_git_is_told_to_ignore_it(ignored: str, checkout: Path) -> None:
    """It measured, and no commit holds it. Many a Python template of .gitignore ignores lib/."""
    (checkout / ".git" / "info" / "exclude").write_text(ignored)
    (checkout / "lib" / "infscale" / "new.py").write_text("x = 1\n")
    assert machine.commit(checkout).endswith("-dirty")


def test_a_changed_module_is_dirty_and_a_drawn_figure_is_not(checkout: Path) -> None:
    (checkout / "figures" / "f0.csv").write_text("x = 2\n")
    (checkout / "lib" / "notes.txt").write_text("what to do\n")
    (checkout / "notebooks" / "Untitled.ipynb").write_text("{}")  # which JupyterLab makes at a click
    (checkout / "lib" / ".ipynb_checkpoints").mkdir()
    (checkout / "lib" / ".ipynb_checkpoints" / "module-checkpoint.py").write_text("x = 2\n")
    assert re.fullmatch("[0-9a-f]{12}", machine.commit(checkout))
    (checkout / "lib" / "infscale" / "module.py").write_text("x = 2\n")
    assert re.fullmatch("[0-9a-f]{12}-dirty", machine.commit(checkout))
