"""If these fail, make goes on with an environment that cannot work, or makes one anew that could."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.project import ROOT

ANEW = "-m venv --clear .venv\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with a whole environment, of which there is no more than what make looks at."""
    folder = tmp_path / "project"
    (folder / ".venv").mkdir(parents=True)
    for age, name in enumerate((".venv/.complete", "requirements.txt", "pyproject.toml")):
        (folder / name).touch()
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    made(folder / ".venv")
    return folder


def made(environment: Path, python: str = "3.11.2") -> None:
    """Write what venv notes of an environment that it makes."""
    command = f"/usr/bin/python3 -m venv {environment}"
    (environment / "pyvenv.cfg").write_text(f"home = /usr/{python}/bin\nversion = {python}\ncommand = {command}\n")


def planned(folder: Path, target: str, **variables: str) -> str:
    """Return the commands that ``make target`` would run in a folder."""
    return make(folder, "--dry-run", target, **variables)


def make(folder: Path, *arguments: str, **variables: str) -> str:
    """Run the project's Makefile in a folder, and return what it prints."""
    command = ["make", "--file", str(ROOT / "Makefile"), *arguments]
    own = ("MAKE", "PYTHON", "TORCH_INDEX")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)} | variables
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment).stdout


def test_a_whole_environment_is_used_as_it_is(project: Path) -> None:
    commands = planned(project, "paper")
    assert ".venv/bin/infscale --end-with-parent paper" in commands
    assert "-m venv" not in commands
    assert "-m pip" not in commands
    assert ".venv/bin/infscale --end-with-parent figures" in planned(project, "figures")


def test_an_environment_that_python_3_12_was_tried_for_is_made_anew(project: Path) -> None:
    """venv puts no other Python into an environment that is there: the next try with 3.11 failed like the first."""
    (project / ".venv" / ".complete").unlink()
    made(project / ".venv", "3.12.3")
    assert ANEW in planned(project, "paper")
    made(project / ".venv")
    assert ANEW in planned(project, "paper"), "as earlier versions left it: written again over the other's programs"
    (project / ".venv" / ".complete").touch()
    assert ANEW not in planned(project, "paper")
    made(project / ".venv", "3.12.3")
    assert ANEW in planned(project, "paper")


def test_another_python_is_told_before_minutes_of_downloads(project: Path) -> None:
    """pip says which Python the project takes when it comes to the project."""
    shutil.rmtree(project / ".venv")
    venv, first, second, *_ = planned(project, "paper", PYTHON="python3.12").splitlines()
    assert venv == "python3.12 -m venv --clear .venv"
    assert first.endswith("--no-deps --editable .")
    assert second.endswith("--requirement requirements.txt")


def test_the_environment_of_a_project_that_was_moved_is_made_anew(project: Path) -> None:
    """Its programs begin with the path of a Python that is there no more, or belongs to the project's copy."""
    moved = Path(shutil.copytree(project, project.parent / "moved"))
    assert ANEW in planned(moved, "paper")
    commands = planned(moved, "figures")
    assert "-m venv --clear .venv-figures\n" in commands, "the smaller one, for who only draws"
    assert ".venv-figures/bin/infscale --end-with-parent figures" in commands


@pytest.mark.parametrize("made_through_link", [True, False])
def test_an_environment_behind_a_link_is_used_as_it_is(made_through_link: bool, project: Path) -> None:
    """Some have it on a larger disk."""
    elsewhere = project.parent / "elsewhere"
    (project / ".venv").rename(elsewhere)
    (project / ".venv").symlink_to(elsewhere)
    made(project / ".venv" if made_through_link else elsewhere)
    assert "-m venv" not in planned(project, "paper")


def test_a_changed_set_of_packages_is_installed_into_the_environment_that_is_there(project: Path) -> None:
    os.utime(project / "requirements.txt")
    commands = planned(project, "paper")
    assert "-m venv" not in commands
    assert "-m pip install --quiet --no-compile --requirement requirements.txt" in commands


@pytest.mark.parametrize(("user", "option"), [("0", "--allow-root "), ("1000", "")])
def test_jupyterlab_starts_also_as_root(user: str, option: str, project: Path, tmp_path: Path) -> None:
    """It refused, and make said no more than that; links of a known rate need root."""
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    commands = planned(project, "lab", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert " ".join(commands.splitlines()[-1].split()) == f".venv/bin/jupyter lab {option}data/notebooks"


def test_exploring_changes_no_tracked_notebook_and_loses_no_work(project: Path) -> None:
    """JupyterLab saved outputs into the notebooks that git tracks."""
    tracked = project / "notebooks" / "00-explore.ipynb"
    tracked.parent.mkdir(exist_ok=True)
    tracked.write_text("the project's")
    jupyter = project / ".venv" / "bin" / "jupyter"
    jupyter.parent.mkdir(exist_ok=True)
    jupyter.write_text("#!/bin/sh\necho saved > data/notebooks/00-explore.ipynb\n")
    jupyter.chmod(0o755)
    copy = project / "data" / "notebooks" / "00-explore.ipynb"
    for _ in range(2):
        make(project, "lab")
        assert (tracked.read_text(), copy.read_text()) == ("the project's", "saved\n")
    os.utime(tracked, (copy.stat().st_mtime + 10,) * 2)
    jupyter.write_text("#!/bin/sh\n")
    make(project, "lab")
    assert copy.read_text() == "the project's"
    assert copy.with_name("00-explore.ipynb.~1~").read_text() == "saved\n", "what a user wrote is kept"
