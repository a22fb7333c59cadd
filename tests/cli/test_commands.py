"""If these fail, a user waits for help, reads wrong help, or types an option that has another name elsewhere."""

import errno
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from helpers.project import ROOT
from helpers.synthetic_run import MACHINE
from helpers.waiting import await_true, first_line, gone
from infscale import __version__, cli
from infscale.cli import finding, options, paper
from infscale.errors import ConfigError
from infscale.experiment import folder
from infscale.experiment.design.design import CAPACITY, P95, SATURATION
from infscale.findings import FINDINGS
from infscale.records import manifest as manifests

COMMANDS = [name for commands in cli.SECTIONS.values() for name in commands]
WAITING = """
import os, signal, sys
from infscale import cli

def wait(**_):
    with open({file!r}, "w") as file:
        print(os.getpid(), file=file)
    signal.pause()

cli.APP.get_command(None, "plan").callback = wait
sys.exit(cli.main(["--end-with-parent", "plan"]))
"""
"""A command that writes its process's id and then waits for a signal."""
BELOW = "plan capacity"
"""The one command below another."""
INFSCALE = [sys.executable, "-m", "infscale.cli"]


def command_of(name: str) -> options.Command:
    """Return a command by its name, or "plan capacity" by both of its names."""
    command: click.Command | None = cli.APP
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), part)
    assert isinstance(command, options.Command)
    return command


def test_every_module_of_a_command_is_a_command() -> None:
    """A module that is not listed is a command that nobody finds."""
    modules = {
        path.stem.rstrip("_")
        for path in (ROOT / "lib" / "infscale" / "cli").glob("*.py")
        if "\ncommand = " in path.read_text()
    }
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("name", [*COMMANDS, BELOW])
def test_the_help_of_a_command_shows_every_option_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    command = command_of(name)
    assert f"Examples:\n  infscale {name}" in printed
    for param in command.params:
        if isinstance(param, click.Option):
            assert set(param.opts) <= set(options.NAMES), "an option of that name is nowhere agreed on"
            assert f"  {param.opts[0]}" in printed
        elif isinstance(param, click.Argument):
            assert param.help


def test_every_agreed_name_is_of_use() -> None:
    used = {opt for name in (*COMMANDS, BELOW) for param in command_of(name).params for opt in param.opts}
    assert set(options.NAMES) <= used


@pytest.mark.parametrize("name", [*COMMANDS, BELOW])
def test_examples_are_understood(name: str) -> None:
    for example in command_of(name).examples:
        program, *words = shlex.split(example.replace("\\\n", " "))
        called, arguments = words[: len(name.split())], words[len(name.split()) :]
        assert (program, called) == ("infscale", name.split())
        command_of(name).make_context(name, arguments)


def test_the_commands_are_listed_by_section_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert [title for title in cli.SECTIONS if f"{title}:\n" not in printed] == []
    assert [name for name in COMMANDS if f"\n  {name} " not in printed] == []
    assert "Examples:\n  infscale " in printed


def test_help_imports_neither_a_framework_nor_what_measures_or_draws() -> None:
    """Help that imports pandas takes seconds."""
    heavy = (
        "numpy",
        "pandas",
        "scipy",
        "matplotlib",
        "papermill",
        "grpc",
        "infscale.load",
        "infscale.experiment",
    )
    code = f"""
import sys
from infscale import cli
for name in {[*COMMANDS, BELOW]}:
    assert cli.main([*name.split(), "--help"]) == 0
print(*[module for module in {heavy} if module in sys.modules], file=sys.stderr)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr.strip()) == (0, "")


def test_a_command_is_imported_only_when_it_is_called() -> None:
    code = """
import sys
from infscale import cli
cli.main(["plan", "--help"])
print(*[name for name in sys.modules if name.startswith("infscale.cli.")], file=sys.stderr)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(shown.stderr.split()) == {"infscale.cli.options", "infscale.cli.plan"}


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"infscale {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lod"], "infscale: No such command 'lod'. Did you mean 'load'?"),
        (["--quick"], "infscale: No such option '--quick'."),
        (["plan", "--profil", "full"], "infscale: No such option '--profil'. Did you mean '--profile'?"),
        (["load"], "infscale: Missing argument 'URL'."),
        (["compare", "http://127.0.0.1:1/"], "infscale: Missing argument 'CANDIDATE'."),
        (["figures", "draft"], "infscale: Got unexpected extra argument (draft)"),
    ],
)
def test_what_is_not_known_is_two_lines_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first == message
    assert second.startswith("Try 'infscale")


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--budget", "15"],
        ["paper", "--budget", "0m"],
        ["paper", "--more", "5 minutes"],
        ["finding", "--more", "1e3s", "encodings"],
        ["finding", "--budget", "quarter", "encodings"],
        ["plan", "--effect", "-1"],
        ["advice", "--slo", "20"],
    ],
)
def test_a_value_that_cannot_be_used_is_one_line_and_exit_code_1(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"infscale: {arguments[1]} {arguments[2]!r}")
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("8h", 28_800), ("1.5h", 5400), ("4 m", 240)])
def test_a_budget_is_a_time_with_its_unit(text: str, seconds: float) -> None:
    """ "15" could be minutes or seconds, and a night is lost over it."""
    for name in ("paper", "plan"):
        assert command_of(name).make_context(name, ["--budget", text]).params["budget"] == seconds
    assert command_of("paper").make_context("paper", ["--more", text]).params["more"] == seconds
    assert command_of("paper").make_context("paper", []).params["budget"] is None, "the profile's"
    assert command_of("compare").make_context("compare", ["http://a/", "grpc://a/b.C/D"]).params["budget"] == 180


def test_an_option_takes_several_values_up_to_the_next_option() -> None:
    """So that a shell's pattern (--body *.json) gives all of its files."""
    arguments = ["http://127.0.0.1:1/", "--body", "a", "b", "--rate", "5", "--body", "c", "--header", "k: v"]
    parsed = command_of("load").make_context("load", arguments).params
    assert parsed["body"] == ("a", "b", "c")
    assert parsed["rate"] == "5"
    assert parsed["header"] == ("k: v",)


@pytest.mark.parametrize(
    ("name", "advice"), [("paper", "; finished trials are kept, the same command continues"), ("plan", "")]
)
def test_ctrl_c_is_130_and_says_what_is_kept(
    name: str, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_of(name), "callback", interrupt)
    assert cli.main([name]) == 130
    assert capsys.readouterr().err == f"\ninfscale: interrupted{advice}\n"


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [(["plan", "--frameworks", "triton"], "saturation rate ?*"), (["load", "--help"], "Arrival rate ?, requests/s.")],
)
def test_an_output_whose_encoding_is_latin_1_is_no_traceback(arguments: list[str], printed: str) -> None:
    """It has no λ, and a terminal that has it may still be read."""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    shown = subprocess.run([*INFSCALE, *arguments], capture_output=True, env=environment, encoding="latin-1")
    assert shown.returncode == 0, shown.stderr
    assert printed in shown.stdout


@pytest.mark.parametrize("number", cli.NOT_ALLOWED)
@pytest.mark.parametrize("file", ["/project/data/derived", None])
def test_a_project_that_cannot_be_written_is_one_line(
    file: str | None, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback hides the name of the folder under what led there."""

    def write(**_: object) -> None:
        raise OSError(number, os.strerror(number), file)

    monkeypatch.setattr(command_of("plan"), "callback", write)
    assert cli.main(["plan"]) == 1
    assert capsys.readouterr().err == f"infscale: {f'{file}: ' if file else ''}{os.strerror(number)}\n"


def test_an_error_of_the_system_that_nobody_expects_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a fault of this program could not be found."""

    def read(**_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/project/lib")

    monkeypatch.setattr(command_of("plan"), "callback", read)
    with pytest.raises(FileNotFoundError):
        cli.main(["plan"])


def test_a_reader_that_ends_early_is_no_error() -> None:
    """As in ``infscale load --help | head -1``."""
    line = f"{shlex.join([*INFSCALE, 'load', '--help'])}; echo $? >&2"
    with subprocess.Popen(["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stderr is not None
        shell.stdout.close()
        errors = shell.stderr.read()
    assert "Traceback" not in errors
    assert errors.split()[-1] in ("0", "141")  # the pipe may hold all of it


def test_full_measures_every_finding_and_goes_on_after_one_that_cannot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def measure(name: str, profile: str, **_: object) -> Path:
        measured.append(name)
        if name == "network":
            raise ConfigError("no root")
        return Path()

    monkeypatch.setattr(finding, "finding", measure)
    paper._measure_findings(new=False, data=None, figures="figures")
    assert measured == [name for name in FINDINGS if name != "protocols"]
    assert capsys.readouterr().err == "infscale: finding network: no root\n"


def test_it_ends_with_the_process_that_started_it_also_by_kill_9(tmp_path: Path) -> None:
    """make starts it so; a measurement that goes on without its owner spoils the next one."""
    child, file = tmp_path / "child.py", tmp_path / "pid"
    child.write_text(WAITING.format(file=str(file)))
    start = f"import subprocess, sys; subprocess.run([sys.executable, {str(child)!r}])"
    with subprocess.Popen([sys.executable, "-c", start]) as parent:
        pid = int(first_line(file))
        parent.kill()
    await_true(lambda: gone(pid))


# --- budgets, and time that is added ---


@pytest.fixture
def notebooks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Nothing is measured or drawn: the notebooks that would be executed, with their parameters."""
    executed: list[tuple[str, dict[str, Any]]] = []

    def execute(name: str, parameters: dict[str, Any], *_: object, **__: object) -> None:
        executed.append((name, parameters))

    monkeypatch.setattr("infscale.cli.notebooks.execute", execute)
    monkeypatch.setattr("infscale.cli.figures.draw", lambda *_: None)
    return executed


def stored(place: Path, **changes: Any) -> Path:
    """A complete run of F0, as if it had been measured here, but for some changes."""
    path = folder.folder_for(FINDINGS["protocols"].design("quick"), place)
    manifest = manifests.read(path / "run.json", manifests.RunManifest)
    manifests.write(path / "run.json", msgspec.structs.replace(manifest, status="complete", **changes))
    return path


def test_a_budget_is_that_of_the_run(notebooks: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> None:
    """An option that silently does nothing is found after the night."""
    path = paper.paper(budget_s=1234.0, data=tmp_path)
    assert manifests.read(path / "run.json", manifests.RunManifest).design.budget_s == 1234
    sizes = {"profile": "quick", "frameworks": ["tfserving", "torchserve", "triton"], "budget_s": 1234.0}
    assert notebooks == [("10-protocols", {**sizes, "run": str(path), "more_s": 0.0})], "it prints the plan of this run"


def test_a_folder_of_runs_begins_at_the_projects_root_as_those_of_a_run_and_of_figures_do(
    notebooks: list[tuple[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib" / "infscale").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    path = paper.paper(data=Path("mine"))
    assert path.parent == tmp_path / "mine"
    assert notebooks[0][1]["run"] == str(path)


@pytest.mark.parametrize("arguments", [["paper"], ["finding", "encodings"]])
def test_a_budget_that_is_too_little_is_refused_before_anything_starts(
    arguments: list[str],
    notebooks: list[tuple[str, dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fewer lifetimes than a look needs are minutes without an answer; the message says what is enough."""
    assert cli.main([*arguments, "--budget", "20s", "--data", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    found = re.search(
        r"budget_s=20 is too little: 4 lifetimes of each of \d groups? .*accepted: (\d+) s or more", message
    )
    assert found, message
    assert (notebooks, list(tmp_path.iterdir())) == ([], [])
    assert cli.main([*arguments, "--budget", f"{found[1]}s", "--data", str(tmp_path / "runs")]) in (0, 1)
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_finding_takes_an_slo_and_compares_the_rates_at_which_it_is_kept(
    notebooks: list[tuple[str, dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asks how much a server takes within 50 ms must not get an answer about λ*."""
    words = ["finding", "encodings", "--data", str(tmp_path), "--slo"]
    assert cli.main([*words, "50ms"]) == 1
    assert "slo='50ms' is no limit of a percentile; accepted: p50, p90, p95 or p99" in capsys.readouterr().err
    assert cli.main([*words, "p99<2s"]) == 1
    assert "the limit is not below timeout_s=1" in capsys.readouterr().err
    assert cli.main([*words, "p99<50ms", "--more", "5m"]) == 1
    assert "a run that goes on keeps its design" in capsys.readouterr().err
    assert (notebooks, list(tmp_path.iterdir())) == ([], [])
    cli.main([*words, "p99<50ms", "--budget", "30m"])
    (path,) = tmp_path.iterdir()
    design = manifests.read(path / "run.json", manifests.RunManifest).design
    assert design.slo == "p99<50ms"
    assert {one.metric for one in design.contrasts} == {P95, SATURATION, CAPACITY}


def test_more_time_goes_to_the_newest_complete_run(
    notebooks: list[tuple[str, dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run would be begun, and the interval stays as wide as it was."""
    path = stored(tmp_path)
    assert cli.main(["paper", "--profile", "full", "--more", "15m", "--data", str(tmp_path)]) == 0
    ((name, parameters),) = notebooks
    assert (name, parameters["run"], parameters["more_s"]) == ("10-protocols", str(path), 900.0), "of F0 alone"
    assert parameters["profile"] == "quick", "that of the run"
    assert f"run: {path}" in capsys.readouterr().out
    assert [one for one in tmp_path.iterdir() if one.is_dir()] == [path]


@pytest.mark.parametrize(("arguments", "name"), [(["paper"], "protocols"), (["finding", "encodings"], "encodings")])
def test_more_time_without_a_complete_run_is_an_error(
    arguments: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new run of fifteen minutes is not what was asked for."""
    folder.folder_for(FINDINGS[name].design("quick"), tmp_path)  # interrupted
    assert cli.main([*arguments, "--more", "15m", "--data", str(tmp_path)]) == 1
    assert f"no complete run of {name} in {tmp_path}: there is nothing to add time to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"machine": MACHINE}, "the machine differs from the one that measured it"),
        ({"environment_digest": "e"}, "the environment differs from the one"),
        ({"code_digest": "c", "machine": MACHINE}, "the code that measures and the machine differ from those that"),
    ],
)
def test_more_time_where_something_is_another_is_refused_by_name(
    change: dict[str, Any], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lifetimes of two machines in one run would be told apart by the machine; and one must know what to restore."""
    path = stored(tmp_path, **change)
    assert cli.main(["paper", "--more", "15m", "--data", str(tmp_path)]) == 1
    assert f"{path.name} cannot be continued here: {what}" in capsys.readouterr().err


def test_the_plan_says_what_a_budget_buys(capsys: pytest.CaptureFixture[str]) -> None:
    """Before a night, not after it."""
    assert cli.main(["plan", "--budget", "45m", "--frameworks", "triton"]) == 0
    printed = capsys.readouterr().out
    assert "Time plan, profile quick, budget 45 min 00 s:" in printed
    assert re.search(r"in all, roughly; the first look at the contrasts is at \d+ lifetimes", printed)
    assert "Named before the run: 4 contrasts, with one value in each lifetime, corrected (Holm) over all: " in printed
