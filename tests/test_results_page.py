"""If these fail, what a reader copies from docs/results.md ends in an error."""

import re
import shlex
from pathlib import Path

import pytest

from helpers import k6_lines
from helpers.project import ROOT
from infscale import cli
from infscale.report import listing

PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
FILES = ("points.json", *(f"{side}-{k}.json" for side in ("new", "old") for k in range(1, 5)))
"""Files of k6 that a reader has."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with what a checkout has, and with a reader's own files."""
    for seed, name in enumerate(FILES):
        (tmp_path / name).write_bytes(k6_lines.lines(seed=seed))
    (tmp_path / "data").mkdir()
    for name in ("data/sample", "docs", "tests", "lib", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listing, "derived", lambda run_id: tmp_path / "derived" / run_id)


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 9
    assert all(line.startswith("infscale ") for line in COMMANDS)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_works(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out


def test_the_code_of_the_page_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "results.md", "exec"), {})
