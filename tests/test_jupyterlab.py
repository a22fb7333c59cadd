"""If these fail, the first notebook ends in an error in JupyterLab, nothing moves, or an interrupt is a traceback."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from helpers.browser import CHROMIUM, Notebook, lab
from helpers.project import ROOT
from helpers.waiting import await_true

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: apt-get install chromium (Debian, Ubuntu)"),
]


class Explored(NamedTuple):
    """The notebook after all cells were run, and what the live view said meanwhile, in turn."""

    notebook: Notebook
    seen: list[str]


def watch(notebook: Notebook, ended: Callable[[], bool]) -> list[str]:
    """Return what the live view says in turn, until a condition is true."""
    seen: list[str] = []

    def look() -> bool:
        text = notebook.text(".infscale-live")
        if text and seen[-1:] != [text]:
            seen.append(text)
        return ended()

    await_true(look, 300)
    return seen


def errors(notebook: Notebook) -> list[dict[str, Any]]:
    """Return the errors among the outputs of all cells."""
    return [one for cell in notebook.outputs() for one in cell if one["output_type"] == "error"]


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    folder = tmp_path_factory.mktemp("lab")
    source = (ROOT / "notebooks" / "00-explore.ipynb").read_text()
    (folder / "00-explore.ipynb").write_text(source.replace("duration_s = 5.0", "duration_s = 4.0"))
    with lab(folder, "00-explore.ipynb") as notebook:
        notebook.command("notebook:run-all-cells")
        yield Explored(notebook, watch(notebook, lambda: notebook.ran() or bool(errors(notebook))))


def test_the_first_notebook_runs_to_its_end_and_moves_meanwhile(explored: Explored) -> None:
    assert errors(explored.notebook) == []
    outputs = [one for cell in explored.notebook.outputs() for one in cell]
    assert [one["text"] for one in outputs if one.get("name") == "stderr"] == [], "red lines"
    for protocol in ("REST", "gRPC"):
        seen = [text for text in explored.seen if f"{protocol}, λ" in text]
        assert len(seen) >= 3, "it changes at least twice"
        assert "in flight" in seen[-1]


def test_an_interrupt_is_one_line_and_the_form_goes_on(explored: Explored) -> None:
    notebook = explored.notebook
    notebook.run("trial.run(endpoint, trial.Plan(Arm('grpc'), 100.0, 600.0))")
    await_true(lambda: "600 s" in notebook.text(".infscale-live") and "answered" in notebook.text(".infscale-live"))
    notebook.command("notebook:interrupt-kernel")
    await_true(lambda: notebook.idle() and notebook.outputs()[-1][-1]["output_type"] == "error", 60)
    error = notebook.outputs()[-1][-1]
    assert len(error["traceback"]) == 1
    assert "rows in sys.last_value.result.samples" in error["traceback"][0]
    assert "\n" not in error["traceback"][0]

    notebook.run("form = explore(endpoint); form")
    await_true(lambda: "Run a trial" in notebook.text("button.jupyter-button"))
    notebook.page.js("[...document.querySelectorAll('button.jupyter-button')].at(-1).click()")
    seen = watch(notebook, lambda: "Trials so far" in notebook.text("body"))
    assert any("in flight" in text for text in seen), seen
