"""If these fail, JupyterLab shows a dictionary, or a picture that hides failures, where a result should stand."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell

from helpers.synthetic_run import GRPC_FASTER, build
from infscale import Arm, Endpoint, load_run
from infscale.display import HEIGHT, WIDTH, Shown, Summary, as_html, as_text, ecdf
from infscale.experiment.trial import Outcome
from infscale.findings import FINDINGS
from infscale.programs import native_log


def test_what_a_user_types_shows_itself_in_a_notebook_and_in_a_terminal(tmp_path: Path) -> None:
    run = load_run(build(tmp_path, GRPC_FASTER, lifetimes=1, duration_s=0.5, grid=(0.3,)))
    one = run.trials[0]
    shown: dict[str, Shown] = {
        f"{one.manifest.rate_per_s:g} requests/s": Outcome(one.samples(), one.manifest),
        "127.0.0.1:8501": Endpoint(
            "triton", "triton", "2", "Triton", "numpy", "mlp", "127.0.0.1:8500", "127.0.0.1:8501"
        ),
        "batch": Arm("grpc", framework="triton", batch=16),
        "÷": FINDINGS["protocols"].design("quick", seed=1),
        "Synthetic CPU": run,
    }
    formatter: Any = DisplayFormatter()
    for expected, thing in shown.items():
        bundle, _ = formatter.format(thing)
        html, text = bundle["text/html"], bundle["text/plain"]
        assert expected in html
        assert expected in text
        assert "<table>" in html
        assert "\n" in text, "a table of lines, not a repr"


def test_a_trial_says_its_verdict_with_the_reason_and_its_failures(tmp_path: Path) -> None:
    run = load_run(build(tmp_path, GRPC_FASTER, lifetimes=1, duration_s=0.5, grid=(0.3,)))
    rows, manifest = run.trials[0].samples(), run.trials[0].manifest
    rows["status"] = rows["status"].astype(str)
    rows.loc[:3, "status"] = "timeout"
    html = as_html(Outcome(rows, manifest).summary())
    assert manifest.judged.text in re.sub("&#x27;", "'", html)
    assert f"{len(rows) - 4:,} succeeded" in html
    assert f"{4 / len(rows):.1%} failed" in html


@given(st.lists(st.floats(min_value=0, allow_nan=False), max_size=50))
def test_the_picture_of_any_times_lies_within_its_frame(times: list[float]) -> None:
    picture = ecdf(times)
    points = [point.split(",") for line in re.findall(r'points="([^"]*)"', picture) for point in line.split()]
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in points)
    assert bool(points) == bool(np.isfinite(times).any())
    assert ("failed" in picture) == bool(np.isinf(times).any())


def test_an_error_of_a_user_is_one_line_in_a_notebook() -> None:
    """A page of this package's own calls hides which value was wrong."""
    shell: Any = InteractiveShell()  # type: ignore[no-untyped-call]
    shown: list[list[str]] = []
    shell._showtraceback = lambda kind, error, lines: shown.append(lines)
    shell.run_cell("from infscale import Arm; Arm('soap')")
    shell.run_cell("from infscale.errors import Interrupt; raise Interrupt('3 trials are kept')")
    assert shown == [
        ["ConfigError: protocol='soap' is not known; accepted: grpc, rest"],
        ["Interrupt: 3 trials are kept"],
    ]


def test_what_native_code_writes_goes_beside_the_servers_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with native_log("tensorflow", beside=tmp_path / "server.log"):
        os.write(2, b"a red line\n")
    os.write(2, b"another\n")
    with native_log("tensorflow", beside=None):
        os.write(2, b"of no server of ours\n")
    assert (tmp_path / "tensorflow.log").read_text() == "a red line\n"
    assert capfd.readouterr().err == "another\nof no server of ours\n"


def test_text_of_a_server_is_no_markup() -> None:
    evil = Summary("<script>", (("name", "<img src=x>"), ("empty", "")))
    assert "<script>" not in as_html(evil)
    assert "<img" not in as_html(evil)
    assert as_text(evil).splitlines() == ["<script>", "  name  <img src=x>"]
