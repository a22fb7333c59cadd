"""If these fail, a user waits for help, reads wrong help, or types an option that has another name elsewhere."""

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from helpers.project import ROOT
from helpers.waiting import await_true, first_line, gone
from infscale import __version__, cli
from infscale.cli import finding, options, paper
from infscale.errors import ConfigError

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
INFSCALE = [sys.executable, "-m", "infscale.cli"]


def command_of(name: str) -> options.Command:
    command = cli.APP.get_command(click.Context(cli.APP), name)
    assert isinstance(command, options.Command)
    return command


def test_every_module_of_a_command_is_a_command() -> None:
    """A module that is not listed is a command that nobody finds."""
    modules = {
        path.stem for path in (ROOT / "lib" / "infscale" / "cli").glob("*.py") if "\ncommand = " in path.read_text()
    }
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_every_option_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
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
    used = {opt for name in COMMANDS for param in command_of(name).params for opt in param.opts}
    assert set(options.NAMES) <= used


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_understood(name: str) -> None:
    for example in command_of(name).examples:
        program, called, *arguments = shlex.split(example.replace("\\\n", " "))
        assert (program, called) == ("infscale", name)
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
for name in {COMMANDS}:
    assert cli.main([name, "--help"]) == 0
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
        (["compare", "--rest", "http://127.0.0.1:1/"], "infscale: Missing option '--grpc'."),
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
    "arguments", [["plan", "--replicates", "x"], ["plan", "--effect", "-1"], ["advice", "--slo", "20"]]
)
def test_a_value_that_cannot_be_used_is_one_line_and_exit_code_1(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"infscale: {arguments[1]} {arguments[2]!r}")
    assert len(shown.err.splitlines()) == 1


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
    from infscale.findings import FINDINGS

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
