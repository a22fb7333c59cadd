"""If these fail, a notebook does not run, ignores a parameter, or leaves processes when its runner is killed."""

import difflib
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from jupyter_client.manager import start_new_kernel

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


TELL = """
import sys
from pathlib import Path

from infscale.load.engine import run as engine

_run = engine._run
engine._run = lambda children, _, *rest: _run(children, lambda *_: Path({file!r}).touch(), *rest)
"""
"""Lets the engine make a file as soon as a load runs."""


@pytest.mark.server
def test_one_interrupt_in_a_trial_cell_ends_it_with_its_rows_and_no_later_cell_runs(tmp_path: Path) -> None:
    """The next trial ran on, and the cell after it drew a smooth curve to 1.0 of requests that were never sent."""
    cells = nbformat.read(ROOT / "notebooks" / "00-explore.ipynb", as_version=4).cells
    parameters, deploy, *others = [cell.source for cell in cells if cell.cell_type == "code"]
    (trials,) = [source for source in others if "trial.run(" in source]
    running = tmp_path / "running"
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        changed = 'framework, duration_s = "triton", 600.0'
        for source in (parameters, changed, deploy, TELL.format(file=str(running))):
            content = client.execute(source, reply=True, timeout=300)["content"]
            assert content["status"] == "ok", content
        ended, later = client.execute(trials), client.execute("later = True")
        await_true(running.exists)
        manager.interrupt_kernel()
        messages = [client.get_shell_msg(timeout=120) for _ in (ended, later)]
        replies = {message["parent_header"]["msg_id"]: message["content"] for message in messages}
        assert replies[ended]["ename"] == "Interrupted"
        assert "rows in sys.last_value.result.samples" in replies[ended]["evalue"]
        assert replies[later]["status"] == "aborted"
        look = "assert len(sys.last_value.result.samples) > 50_000 and not outcomes and 'later' not in globals()"
        content = client.execute(look, reply=True, timeout=60)["content"]
        assert content["status"] == "ok", content
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


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
        assert notebook.PARAMETER.fullmatch(line), "a literal with type and unit"
    assert any("check_parameters()" in cell.source for cell in code)


def test_an_unknown_parameter_is_an_error_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown parameters: rate; accepted: .*rate_per_s"):
        notebook.execute("00-explore", {"rate": 5}, tmp_path)
    assert list(tmp_path.iterdir()) == []


FRAMEWORKS = 'accepted: list of str: "tfserving", "torchserve", "triton"; None: all'
SEED = "accepted: int: of arrivals, payload choice and order; None: a fresh one, which the run stores"
BUDGET = "accepted: float, s: time for measuring; None: the profile's"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("10-protocols", {"frameworks": "torchserve"}, f"frameworks='torchserve' cannot be used; {FRAMEWORKS}"),
        ("10-protocols", {"frameworks": 0.5}, f"frameworks=0.5 cannot be used; {FRAMEWORKS}"),
        ("10-protocols", {"frameworks": ["triton", 1]}, f"frameworks=['triton', 1] cannot be used; {FRAMEWORKS}"),
        ("10-protocols", {"seed": 1.5}, f"seed=1.5 cannot be used; {SEED}"),
        ("10-protocols", {"seed": True}, f"seed=True cannot be used; {SEED}"),
        ("10-protocols", {"budget_s": math.nan}, f"budget_s=nan cannot be used; {BUDGET}"),
        ("10-protocols", {"budget_s": "8h"}, f"budget_s='8h' cannot be used; {BUDGET}"),
        ("10-protocols", {"more_s": None}, "more_s=None cannot be used; accepted: float, s: time to be added"),
        ("00-explore", {"seed": 1.5}, "seed=1.5 cannot be used; accepted: int: of the arrivals"),
        ("00-explore", {"duration_s": math.inf}, "duration_s=inf cannot be used; accepted: float, s: length of"),
        ("14-utilisation", {"price_per_hour": "free"}, "price_per_hour='free' cannot be used; accepted: float: USD"),
        ("30-summarise", {"run": 5}, "run=5 cannot be used; accepted: str: path of a run's folder, from the project's"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_parameter_and_what_it_takes_before_anything_starts(
    name: str, parameters: dict[str, object], message: str, tmp_path: Path
) -> None:
    """It was "frameworks='t'", a TypeError, an error about arrival rates, or one after the server's start."""
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        notebook.execute(name, parameters, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["-p", "profle", "tiny"], "unknown parameters: profle; accepted: budget_s, frameworks"),
        (["-y", "frameworks: torchserve"], "frameworks='torchserve' cannot be used; accepted: list of str"),
        (["-p", "budget_s", "nan"], "budget_s=nan cannot be used; accepted: float, s"),
    ],
)
def test_so_it_is_in_plain_papermill(given: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", "notebooks/10-protocols.ipynb", str(tmp_path / "o.ipynb"), *given]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode != 0
    assert message in shown.stderr


def test_a_value_that_was_typed_into_the_cell_is_checked_like_one_that_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So is a notebook used in JupyterLab."""
    cell = 'frameworks = "torchserve"  # list of str: "tfserving", "torchserve", "triton"; None: all'
    shell = SimpleNamespace(user_ns={"In": ["", cell, "check_parameters()"], "frameworks": "torchserve"})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    with pytest.raises(ConfigError, match="frameworks='torchserve' cannot be used; accepted: list of str"):
        notebook.check_parameters()
    shell.user_ns["frameworks"] = ["torchserve"]
    notebook.check_parameters()


def test_a_failed_cell_is_an_error_before_anything_starts_and_its_notebook_is_kept(tmp_path: Path) -> None:
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
