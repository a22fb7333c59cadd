"""If these fail, the first code that a reader of the README copies ends in an error."""

import os
import re
from pathlib import Path

import pytest

from helpers.project import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_every_name_that_the_readme_imports_is_there() -> None:
    """A renamed function breaks the README first, and it is read by nobody who knows the new name."""
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec("\n".join(line for line in block.splitlines() if line.startswith(("from ", "import "))), {})


@pytest.mark.server
@pytest.mark.parametrize("block", BLOCKS, ids=["a trial", "a finding of one's own", "parts"])
def test_the_readme_runs_word_for_word(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied as it stands."""
    monkeypatch.chdir(tmp_path)  # where measured data and figures go
    if "link.deploy" in block and os.geteuid():  # which needs root
        block = block[: block.index("with link.deploy")]
    exec(compile(block, "README.md", "exec"), {})
