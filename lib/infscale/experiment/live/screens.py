"""Where a load is seen: a figure in JupyterLab, a bar in a terminal, a line every few seconds elsewhere."""

import contextlib
import sys
from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

from infscale.experiment.live.sofar import SoFar
from infscale.vocabulary import number

FIGURE_S, BAR_S, LINE_S = 2.0, 0.25, 5.0
"""Least time between two pictures, s: of a figure, a bar, and lines. A figure costs the browser more than the process
that draws it (docs/decisions/0034-live-view.md), and that browser may run on the machine that is measured."""

WIDTH, HEIGHT = 480, 40
"""Size of the picture of the requests in flight, px."""

POINTS = 240
"""Most looks that the picture shows."""


class Screen(Protocol):
    """Shows loads, one after another."""

    every_s: float
    """Least time between two pictures, s."""

    def show(self, title: str, so_far: SoFar) -> None:
        """Show a load as it is."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def close(self, line: str) -> None:
        """End, and leave this line; "" for nothing."""


def screen() -> Screen:
    """Return the screen of this process: what its output is shown by.

    In a kernel it is a figure where somebody can type (JupyterLab, VS Code), and lines under papermill and nbconvert,
    which allow no input.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        return Figure() if getattr(kernel, "_allow_stdin", True) else Lines(sys.stdout)
    return Bar() if sys.stderr is not None and sys.stderr.isatty() else Lines(sys.stderr)


# ---------------------------------------------------------------------------------------------- in words


def numbers(so_far: SoFar) -> list[tuple[str, str]]:
    """Return what is known of a load, as pairs of a name and a value; nothing where rows come at its end alone."""
    if not so_far.offered:
        return []
    return [
        ("offered", f"{number(so_far.offered_per_s)}/s"),
        ("answered", f"{number(so_far.answered_per_s)}/s"),
        ("in flight", f"{so_far.in_flight:,}"),
        ("p50", _ms(so_far.p50_ms)),
        ("p99", _ms(so_far.p99_ms)),
        ("failed", f"{so_far.failed:,}"),
    ]


def _ms(value: float) -> str:
    return "–" if value != value else f"{number(value)} ms"


def judged(so_far: SoFar) -> str:
    """Return the verdict so far in words."""
    return so_far.fault or ("keeps up so far" if so_far.ended else "")


def clock(so_far: SoFar) -> str:
    """Return the time that has passed, and that is left until the last arrival."""
    if so_far.elapsed_s <= 0:
        return f"starts, {so_far.duration_s:.3g} s"
    if so_far.left_s:
        return f"{so_far.elapsed_s:.1f} of {so_far.duration_s:.3g} s, {so_far.left_s:.0f} s left"
    return f"all sent after {so_far.duration_s:.3g} s" + (", waiting for answers" if so_far.in_flight else "")


def line(title: str, so_far: SoFar) -> str:
    """Return a load in one line."""
    known = ", ".join(f"{name} {value}" for name, value in numbers(so_far))
    return ": ".join(filter(None, [title, "; ".join(filter(None, [clock(so_far), known, judged(so_far)]))]))


# ------------------------------------------------------------------------------------------ the screens


class Lines:
    """Prints a line every few seconds."""

    every_s = LINE_S

    def __init__(self, file: Any) -> None:
        self._file = file

    def show(self, title: str, so_far: SoFar) -> None:
        """Print a load that is under way; a line that cannot be written is lost, and not the load."""
        if so_far.elapsed_s >= LINE_S / 2 and so_far.left_s and self._file is not None:
            with contextlib.suppress(OSError, ValueError):
                print(line(title, so_far), file=self._file, flush=True)

    def say(self, line: str) -> None:
        """Print a line on standard output."""
        print(line, flush=True)

    def close(self, line: str) -> None:
        """End; the caller says the result."""


class Bar:
    """Shows one bar on standard error (tqdm), which goes away at the end."""

    every_s = BAR_S

    def __init__(self) -> None:
        from tqdm import tqdm

        layout = "{desc}{percentage:3.0f}%|{bar:12}| {unit}"
        self._bar = tqdm(total=1.0, unit="", bar_format=layout, leave=False, dynamic_ncols=True, mininterval=0)

    def show(self, title: str, so_far: SoFar) -> None:
        """Show a load on the bar; a terminal that is gone takes the bar along, and not the load."""
        known = [f"{name} {value}" for name, value in numbers(so_far)]
        with contextlib.suppress(OSError):
            self._bar.total = so_far.duration_s
            self._bar.n = max(0.0, min(so_far.elapsed_s, so_far.duration_s))
            self._bar.desc = f"{title} " if title else ""
            self._bar.unit = ", ".join(filter(None, [so_far.fault, f"{so_far.left_s:.0f} s left", *known]))
            self._bar.refresh()

    def say(self, line: str) -> None:
        """Print a line above the bar, on standard output."""
        with contextlib.suppress(OSError):
            self._bar.write(line)

    def close(self, line: str) -> None:
        """Take the bar away."""
        with contextlib.suppress(OSError):
            self._bar.close()


class Figure:
    """Shows one figure below the cell, which is updated."""

    every_s = FIGURE_S

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, title: str, so_far: SoFar) -> None:
        """Show a load in the figure."""
        self._put(figure(title, so_far), line(title, so_far))

    def say(self, line: str) -> None:
        """Print a line below the figure."""
        print(line)

    def close(self, line: str) -> None:
        """Leave one line in place of the figure."""
        if self._handle is not None:
            self._put(f"<div>{escape(line)}</div>" if line else "", line)

    def _put(self, html: str, text: str) -> None:
        from IPython.display import display

        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)


def figure(title: str, so_far: SoFar) -> str:
    """Return a load as a bar of its time, a table of its numbers, and a picture of its requests in flight (HTML)."""
    share = min(1.0, max(0.0, so_far.elapsed_s) / so_far.duration_s)
    cell = 'style="text-align:right;white-space:nowrap;padding:2px 8px"'
    known = numbers(so_far)
    heads = "".join(f"<th {cell}>{escape(name)}</th>" for name, _ in known)
    values = "".join(f"<td {cell}>{escape(value)}</td>" for _, value in known)
    colour = "#c0392b" if so_far.fault else "inherit"
    table = f"<table><tr>{heads}</tr><tr>{values}</tr></table>" if known else ""
    return (
        f'<div class="infscale-live"><strong>{escape(title)}</strong> {escape(clock(so_far))}'
        f'<div style="width:{WIDTH}px;height:4px;background:rgba(128,128,128,.3)">'
        f'<div style="width:{share:.1%};height:4px;background:#1f6fb4"></div></div>'
        f"{table}{_picture(so_far.queue)}"
        f'<div style="color:{colour}">{escape(judged(so_far))}</div></div>'
    )


def _picture(queue: Sequence[tuple[float, int]]) -> str:
    """Return the requests in flight so far as a small picture (SVG); "" where there are too few looks."""
    if len(queue) < 2:
        return ""
    most, step, span_s = max(1, max(count for _, count in queue)), -(-len(queue) // POINTS), queue[-1][0]
    points = " ".join(
        f"{2 + at / span_s * (WIDTH - 4):.1f},{HEIGHT - 2 - count / most * (HEIGHT - 14):.1f}"
        for at, count in queue[-1::-step]
    )
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="requests in flight over time" '
        f'xmlns="http://www.w3.org/2000/svg"><polyline points="{points}" fill="none" stroke="#1f6fb4"/>'
        f'<text x="2" y="9" font-size="10" fill="currentColor">in flight so far, at most {most:,}</text></svg>'
    )
