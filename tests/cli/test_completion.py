"""If these fail, the tab key does nothing, or ends in a traceback between what a user types."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem

from helpers.project import ROOT
from infscale import cli
from infscale.analysis.queueing.simulate import BALANCERS
from infscale.cli import audit, candidates, options, schemas
from infscale.deployment import FRAMEWORKS
from infscale.findings import FINDINGS
from infscale.load import schedule
from infscale.models import reference, stream
from infscale.records.imported.run import READERS
from infscale.vocabulary import PROTOCOLS

SAMPLE = "data/sample/2026-11-26T165910-quick"
LINES = {
    "bash": 'eval "$(infscale completion bash)"',
    "zsh": 'eval "$(infscale completion zsh)"',
    "fish": "infscale completion fish | source",
}
"""What a user puts into the shell's start-up file."""


def completed(*words: str) -> list[str]:
    """What bash is told for the last of some words, in a process of its own, as bash asks."""
    asked = {"_INFSCALE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["infscale", *words])}
    result = subprocess.run(
        [sys.executable, "-m", "infscale.cli"],
        env={**os.environ, **asked, "COMP_CWORD": str(len(words))},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["com"], ["compare", "completion"]),
        (["load", "--ra"], ["--rate"]),
        (["load", "http://127.0.0.1/", "--arrivals", "p"], ["poisson"]),
        (["plan", "capacity", "--balancer", "ro"], ["round-robin"]),
        (["finding", "enc"], ["encodings"]),
        (["schema", "manifest-l"], ["manifest-load"]),
        (["show", SAMPLE[:-6]], [SAMPLE]),
        (["serve", "tri"], ["triton"]),
        (["import", "g"], ["guidellm"]),
        (["no-such-command", "x"], []),
        (["plan", "--budget", "15", "--pro"], ["--profile"]),
    ],
)
def test_what_follows_is_known(words: list[str], expected: list[str]) -> None:
    """Also behind a value that the command would refuse, and without a traceback behind an unknown command."""
    assert completed(*words) == expected


def test_files_and_folders_are_left_to_the_shell() -> None:
    """The shell knows them best."""
    context = cli.APP.make_context("infscale", [], resilient_parsing=True)
    kinds: dict[str, list[CompletionItem]] = {}
    for name in ("load", "paper"):
        command = cli.APP.get_command(context, name)
        assert command is not None
        kinds |= {param.opts[0]: param.shell_complete(context, "x") for param in command.params}
    assert [kinds[name][0].type for name in ("--body", "--ca", "--out", "--data")] == ["file", "file", "file", "dir"]
    assert kinds["--rate"] == []


def test_the_values_that_are_offered_are_those_that_are_taken() -> None:
    """A framework, a process or a balancer more, and the shell would hide it."""
    offered = {name: set(values) for name, values in candidates.VALUES.items()}
    assert offered["--frameworks"] == set(FRAMEWORKS)
    assert offered["--protocols"] == offered["--protocol"] == set(PROTOCOLS)
    assert offered["--arrivals"] == set(schedule.PROCESSES)
    assert offered["--order"] == set(schedule.ORDERS)
    assert offered["--cache"] == set(audit.WHERE)
    assert offered["--balancer"] == set(BALANCERS)
    assert set(offered) <= set(options.NAMES)
    assert {"finding": tuple(FINDINGS), "schema": tuple(schemas.kinds())} == candidates.NAMES
    assert set(candidates.OF_ARGUMENTS["tool"]) == set(READERS)
    assert set(candidates.OF_ARGUMENTS["model"]) == {*reference.MODELS, stream.NAME}


@pytest.mark.parametrize("shell", LINES)
def test_the_line_of_a_shell_is_in_the_help_and_in_the_documentation(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", "--help"]) == 0
    assert LINES[shell] in " ".join(capsys.readouterr().out.split())
    assert LINES[shell] in (ROOT / "docs" / "results.md").read_text()


@pytest.mark.parametrize("shell", LINES)
def test_a_shell_reads_the_script(shell: str, tmp_path: Path) -> None:
    """The line as it stands in the start-up file, with the program on PATH."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    own = tmp_path / "infscale"
    own.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m infscale.cli "$@"\n')
    own.chmod(0o755)
    check = {"bash": "complete -p infscale", "zsh": "true", "fish": "complete -c infscale"}[shell]
    start = "autoload -U compinit; compinit -u; " if shell == "zsh" else ""
    result = subprocess.run(
        [program, "-c", f"{start}{LINES[shell]} && {check}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_an_unknown_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "csh"]) == 1
    assert capsys.readouterr().err == "infscale: shell='csh' is not known; accepted: bash, fish, zsh\n"
