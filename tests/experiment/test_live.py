"""If these fail, nothing moves while a load runs, what moves is wrong, or looking at a load disturbs it."""

import io
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from numpy.typing import ArrayLike

from helpers.raw_server import REPLY, replying, server
from infscale.experiment.live.screens import LINE_S, Figure, Lines, figure, line
from infscale.experiment.live.sofar import Reader, SoFar
from infscale.experiment.live.view import SHARE, View
from infscale.load.engine import run as engine
from infscale.load.engine import status
from infscale.load.engine.interfaces import Watched
from infscale.records.gate import INVALID, SATURATED


class Load:
    """A load whose rows are known beforehand, and are filled as time goes on."""

    def __init__(self, scheduled_s: ArrayLike, response_s: ArrayLike, outcome: ArrayLike) -> None:
        self.scheduled = np.round(np.sort(np.array(scheduled_s)) * 1e9).astype(np.int64)
        self.done = self.scheduled + np.round(np.array(response_s) * 1e9).astype(np.int64)
        self.outcome = np.array(outcome, np.int16)
        never = np.full(len(self.scheduled), -1, np.int64)
        self.lag_ns = 0
        self.rows = Watched(self.scheduled, never.copy(), never.copy(), np.zeros(len(never), np.int16))

    def at(self, elapsed_s: float) -> list[Watched]:
        """Return the rows after so many seconds."""
        now = round(elapsed_s * 1e9)
        rows, due, ended = self.rows, self.scheduled + self.lag_ns, self.done <= now
        rows.due[due <= now] = due[due <= now]
        rows.done[ended], rows.outcome[ended] = self.done[ended], self.outcome[ended]
        return [rows]


requests = st.lists(
    st.tuples(st.floats(0, 10), st.floats(1e-5, 20), st.sampled_from([status.OK, status.OK, status.TIMEOUT])),
    min_size=1,
    max_size=60,
)


@given(requests, st.lists(st.floats(0.01, 40), max_size=8))
def test_every_request_is_counted_once_whenever_it_is_looked_at(
    rows: list[tuple[float, float, int]], looks: list[float]
) -> None:
    load, reader = Load(*zip(*rows, strict=True)), Reader(10.0)
    for elapsed_s in sorted(looks):
        seen, now = reader.look(elapsed_s, load.at(elapsed_s)), round(elapsed_s * 1e9)
        ended = load.done <= now
        assert seen.offered == (load.scheduled <= now).sum()
        assert seen.in_flight == seen.offered - ended.sum()
        assert seen.failed == (load.outcome[ended] != status.OK).sum()
        times = np.where(load.outcome == status.OK, (load.done - load.scheduled) / 1e6, np.inf)[ended]
        for level, value in ((0.5, seen.p50_ms), (0.99, seen.p99_ms)):
            if ended.any():
                truth = np.quantile(times, level, method="inverted_cdf")
                assert value == pytest.approx(truth, rel=0.025)


def test_a_load_that_goes_well_has_no_fault_and_one_that_does_not_says_which() -> None:
    at = np.linspace(0, 10, 2000)
    well = np.full(2000, 0.003)
    ok = np.full(2000, status.OK)

    def said(load: Load) -> str:
        reader = Reader(10.0)
        return [reader.look(elapsed_s, load.at(elapsed_s)).fault for elapsed_s in np.arange(0.5, 10, 0.5)][-1]

    assert said(Load(at, well, ok)) == ""
    assert said(Load(at, 0.003 + at / 4, ok)) == f"{SATURATED} so far: ever more requests are in flight"
    assert f"{SATURATED} so far: 5.0% failed" in said(Load(at, well, np.where(np.arange(2000) % 20, status.OK, 2)))
    late = Load(at, well, ok)
    late.lag_ns = 2_000_000
    assert f"{INVALID} so far: the generator is 2.0 ms late" in said(late)


def test_the_rows_of_every_engine_process_are_seen_while_it_runs() -> None:
    seen: list[SoFar] = []
    reader = Reader(1.5)

    def look(elapsed_s: float, rows: Sequence[Watched]) -> None:
        seen.append(reader.look(elapsed_s, rows))

    at = np.arange(0, 1_500_000_000, 10_000_000, dtype=np.int64)
    choice = np.zeros(len(at), np.int32)
    with server(replying(REPLY)) as url:
        result = engine.run(url, [b"x"], [at, at + 5_000_000], [choice, choice], timeout_s=5, progress=look)
    ended = [one.ended for one in seen]
    assert 0 < max(ended) <= 300
    assert ended == sorted(ended)
    assert len(set(ended)) > 2
    assert (result.samples["status"] == "ok").all()
    assert seen[-1].p50_ms > 0


class Slow:
    """A screen that takes half a second of CPU for every look."""

    every_s = 0.0

    def __init__(self, clock: list[float]) -> None:
        self.looks, self._clock = -1, clock  # the first is before the load

    def show(self, title: str, so_far: SoFar) -> None:
        self.looks += 1
        self._clock[0] += 0.5

    def say(self, line: str) -> None: ...

    def close(self, line: str) -> None: ...


def test_looks_take_no_more_than_their_share_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "thread_time", lambda: clock[0])
    screen = Slow(clock)
    with View(screen).load("a load", 1000.0) as look:
        for _ in range(4000):
            clock[0] += 0.25
            look(clock[0], [])
    assert 0 < screen.looks * 0.5 <= SHARE * clock[0] + 0.5


MIDDLE = SoFar(3.0, 10.0, 300, 290, 2, 100.0, 99.0, 4.0, 20.0, [(1.0, 3), (2.0, 10)])


def test_a_load_is_one_line_every_few_seconds_where_nobody_looks() -> None:
    file = io.StringIO()
    with View(Lines(file)).load("Triton, REST, λ = 100/s", 10.0) as look:
        look(3.0, [])
        look(3.5, [])
    assert file.getvalue() == "Triton, REST, λ = 100/s: 3.0 of 10 s, 7 s left\n"
    said = "offered 100/s, answered 99.0/s, in flight 10, p50 4.00 ms, p99 20.0 ms, failed 2; keeps up so far"
    assert line("a", MIDDLE) == f"a: 3.0 of 10 s, 7 s left; {said}"
    assert LINE_S >= 2


def test_a_figure_has_the_numbers_and_no_markup_of_others() -> None:
    html = figure("<img>", MIDDLE)
    assert "<img>" not in html
    for word in ("offered", "100/s", "in flight", "20.0 ms", "7 s left", "keeps up so far", "<polyline"):
        assert word in html


def test_a_terminal_has_one_bar_and_no_other_line() -> None:
    with server(replying(REPLY)) as url:
        owner, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 160))
        command = [sys.executable, "-m", "infscale.cli", "load", url, "--rate", "50", "--duration", "1.5"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal) as process:
            os.close(terminal)
            text = ""
            while select.select([owner], [], [], 120)[0]:
                try:
                    text += os.read(owner, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
            process.wait(60)
        os.close(owner)
    assert "in flight" in text
    assert "left" in text
    assert "\n" not in text.rstrip()


KERNEL = "from infscale.experiment.live import screens; type(screens.screen()).__name__"


def test_a_kernel_shows_a_figure_to_somebody_and_lines_to_nobody() -> None:
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        code = KERNEL.replace("type(", "name = type(") + f"; assert name == {Figure.__name__!r}, name"
        shown = client.execute(code, reply=True, allow_stdin=True, timeout=60)["content"]
        assert shown["status"] == "ok", shown
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    notebook = new_notebook(cells=[new_code_cell(KERNEL)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[0]["data"]["text/plain"] == repr(Lines.__name__)
