"""The view of a load, a design or a search while it runs.

A look reads the memory that the engine fills anyway (:class:`infscale.load.engine.interfaces.Watched`), in the process
that has started the engine and only waits for it. After a look it waits for so long that all looks together take at
most half a percent of a core (benchmarks/live_cost.py measures it).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from infscale.experiment.live.screens import Screen, screen
from infscale.experiment.live.sofar import Reader, SoFar
from infscale.load.engine.interfaces import Progress, Watched

SHARE, LOOK_S = 0.005, 0.25
"""Largest share of a core that looks take, and least time between two of them, s; not every look is shown."""


class View:
    """Shows loads, one after another, on the screen of this process.

    Args:
        on: the screen; None takes what this process's output is shown by.
    """

    def __init__(self, on: Screen | None = None) -> None:
        self._screen = on or screen()
        self.head: Callable[[], str] = str  # what stands before the title of each load
        self.result = ""  # what stays where a figure was, when the view is closed

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._screen.say(line)

    def close(self) -> None:
        """End the view."""
        self._screen.close(self.result)

    @contextlib.contextmanager
    def load(self, title: str, duration_s: float) -> Iterator[Progress]:
        """Show one load; yields what is called while it runs, with the time since its start (s) and its rows.

        Args:
            title: what it is.
            duration_s: length of the arrivals, s.
        """
        reader, look_s, show_s = Reader(duration_s), 0.0, 0.0
        named = " · ".join(filter(None, [self.head(), title]))
        self._screen.show(named, SoFar(0.0, duration_s))

        def look(elapsed_s: float, rows: Sequence[Watched]) -> None:
            nonlocal look_s, show_s
            if (now := time.monotonic()) < look_s:
                return
            began = time.thread_time()
            so_far = reader.look(elapsed_s, rows)
            if now >= show_s:
                self._screen.show(named, so_far)
                show_s = now + self._screen.every_s
            look_s = now + max(LOOK_S, (time.thread_time() - began) / SHARE)

        yield look


@contextlib.contextmanager
def ticking(progress: Progress, every_s: float = 0.5) -> Iterator[None]:
    """Tell the time alone while the context lasts: of a client whose rows come at its end."""
    began, ended = time.monotonic(), threading.Event()

    def tick() -> None:
        while not ended.wait(every_s):
            progress(time.monotonic() - began, ())

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def viewing(on: View | None = None) -> Iterator[View]:
    """Yield a view: the one that is given, or one of its own, which is closed, and leaves its ``result``."""
    if on is not None:
        yield on
        return
    view = View()
    try:
        yield view
    finally:
        view.close()
