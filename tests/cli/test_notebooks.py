"""If these fail, a notebook does not run, ignores a parameter, or leaves processes when its runner is killed."""

import difflib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest

from helpers.project import ROOT
from helpers.waiting import await_true
from infscale.cli import main
from infscale.cli import notebooks as notebook
from infscale.deployment.processes.pids import living
from infscale.errors import ConfigError, InfscaleError
from infscale.records import runs
from infscale.vocabulary import FRAMEWORK_NAMES

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INFSCALE = [sys.executable, "-m", "infscale.cli"]


@pytest.fixture(autouse=True)
def at_the_projects_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory, server_process: None) -> tuple[Path, Path, str]:
    """``make paper`` at tiny size: the run's folder, the figures' folder and what was printed."""
    folder = tmp_path_factory.mktemp("paper")
    arguments = ["--profile", "tiny", "--data", str(folder / "raw"), "--figures", str(folder / "figures")]
    shown = subprocess.run([*INFSCALE, "paper", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr[-3000:]
    return next((folder / "raw").iterdir()), folder / "figures", shown.stdout


def test_the_paper_is_measured_and_drawn(paper: tuple[Path, Path, str]) -> None:
    run, figures, printed = paper
    assert "Time plan" in printed
    assert runs.load_run(run).manifest.status == "complete"
    assert {t.manifest.arm.framework for t in runs.load_run(run).trials} == set(FRAMEWORK_NAMES)
    for name in ("f0-percentiles.pdf", "f0-percentiles.png", "f0-achieved.pdf", "f0-lag.pdf", "contrasts.csv"):
        assert (figures / name).stat().st_size > 500
    assert (figures / "values.tex").read_text().count("\\newcommand") > 10
    assert "<html" in (figures / "report.html").read_text()


def test_the_executed_copies_are_kept_with_the_run(paper: tuple[Path, Path, str]) -> None:
    names = {path.stem for path in (paper[0] / "notebooks").iterdir()}
    assert names == {notebook.MEASURING, *notebook.DRAWING}


def test_no_recorded_process_lives_after_the_paper(paper: tuple[Path, Path, str]) -> None:
    mine = {os.getpid()}
    assert [line for line in living(paper[0] / "pids.txt") if int(line.split()[0]) not in mine] == []


def test_figures_drawn_twice_are_equal_byte_for_byte(paper: tuple[Path, Path, str], tmp_path: Path) -> None:
    run, figures, _ = paper
    assert main(["figures", "--run", str(run), "--figures", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in figures.iterdir()}
    for file in sorted(figures.iterdir()):
        again = (tmp_path / file.name).read_bytes()
        old, new = (text.decode(errors="replace").splitlines() for text in (file.read_bytes(), again))
        assert again == file.read_bytes(), "\n".join(line[:500] for line in difflib.unified_diff(old, new, n=0))


@pytest.mark.server
@pytest.mark.parametrize("framework", FRAMEWORK_NAMES)
def test_exploring_runs(framework: str, tmp_path: Path) -> None:
    parameters = {"framework": framework, "duration_s": 0.5, "rate_per_s": 50.0}
    executed = notebook.execute("00-explore", parameters, tmp_path)
    text = executed.read_text()
    assert "REST, gRPC and the reference agree" in text
    assert "image/png" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_parameters_prose_and_calls_only(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    (parameters,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in code)
    for cell in code:
        assert not re.search(r"^\s*(def|for|while|class) |[\"']/", cell.source, re.MULTILINE)
        assert len(cell.source.splitlines()) <= 12
    for line in parameters.source.splitlines():
        assert re.fullmatch(r"\w+ = .+  # [\w ]+(, [^:]+)?: .+", line), "a literal with type and unit"
    assert any("check_parameters()" in cell.source for cell in code)


def test_an_unknown_parameter_is_an_error_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown parameters: rate; accepted: .*rate_per_s"):
        notebook.execute("00-explore", {"rate": 5}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_parameter_is_an_error_in_plain_papermill_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", "notebooks/10-protocols.ipynb", str(tmp_path / "o.ipynb")]
    shown = subprocess.run([*command, "-p", "profle", "tiny"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode != 0
    assert "unknown parameters: profle; accepted: budget_s, frameworks" in shown.stderr


@pytest.mark.server
def test_a_failed_cell_is_an_error_and_its_notebook_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InfscaleError, match=r"rate_per_s=-1.* accepted: a number of requests/s above 0"):
        notebook.execute("00-explore", {"rate_per_s": -1.0, "framework": "torchserve"}, tmp_path)
    assert "rate_per_s=-1" in (tmp_path / "00-explore.ipynb").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper", "--profile", "fast"], "profile='fast' is not known; accepted: full, quick, tiny"),
        (["paper", "--frameworks", "kserve"], "frameworks='kserve' is not known; accepted: tfserving, torchserve"),
        (["figures", "--run", "nowhere"], "is not a run"),
    ],
)
def test_a_bad_argument_ends_with_one_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["paper", "--profile", "tiny", "--data", str(tmp_path / "file")]) == 1
    assert "cannot write in" in capsys.readouterr().err


# --- whatever is killed, nothing is left ---


def make_victim(make: psutil.Process) -> psutil.Process:
    return make


def papermill_victim(make: psutil.Process) -> psutil.Process:
    return next(p for p in make.children(recursive=True) if "infscale" in " ".join(p.cmdline()))


def kernel_victim(make: psutil.Process) -> psutil.Process:
    return next(p for p in make.children(recursive=True) if "ipykernel_launcher" in " ".join(p.cmdline()))


@pytest.mark.server
@pytest.mark.parametrize(
    ("victim", "number"),
    [
        (make_victim, signal.SIGKILL),
        (papermill_victim, signal.SIGKILL),
        (kernel_victim, signal.SIGKILL),
        (make_victim, signal.SIGINT),
    ],
    ids=["kill -9 make", "kill -9 papermill", "kill -9 kernel", "Ctrl-C"],
)
def test_nothing_is_left_when_something_above_is_killed(
    victim: Callable[[psutil.Process], psutil.Process], number: int, tmp_path: Path
) -> None:
    arguments = f"--end-with-parent paper --profile quick --frameworks torchserve --data {tmp_path}"
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"paper:\n\t{' '.join(INFSCALE)} {arguments}\n")
    command = ["make", "-f", str(makefile), "paper"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as make:
        await_true(lambda: any(tmp_path.glob("*/trials/*.json")), 300)
        pids = next(tmp_path.glob("*/pids.txt"))
        assert any(line.endswith("java") for line in living(pids))
        if number == signal.SIGINT:  # as a terminal does, to the whole foreground group
            os.killpg(make.pid, number)
        else:
            os.kill(victim(psutil.Process(make.pid)).pid, number)
        mine = str(os.getpid())
        await_true(lambda: not [line for line in living(pids) if line.split()[0] != mine])
    status = json.loads(next(tmp_path.glob("*/run.json")).read_text())["status"]
    assert status == "interrupted"
