"""How objects show themselves in a notebook (a small HTML table, perhaps with a picture) and in a terminal (lines)."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

WIDTH, HEIGHT = 320, 64
"""Size of a picture, px."""


@dataclass(frozen=True)
class Summary:
    """What an object shows of itself: a title, rows of a name and a value, and perhaps a picture (SVG)."""

    title: str
    rows: tuple[tuple[str, str], ...]
    picture: str = ""


class Shown:
    """Mix-in for objects with a ``summary``: IPython and JupyterLab show it instead of the ``repr``."""

    __slots__ = ()

    def summary(self) -> Summary:
        """Return what is shown."""
        raise NotImplementedError

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        summary = self.summary()
        return {"text/html": as_html(summary), "text/plain": as_text(summary)}


def as_html(summary: Summary) -> str:
    """Return a summary as a table with its picture below."""
    left = "text-align:left"
    rows = "".join(
        f'<tr><th style="{left};white-space:nowrap">{escape(name)}</th><td style="{left}">{escape(value)}</td></tr>'
        for name, value in summary.rows
        if value
    )
    return f"<div><strong>{escape(summary.title)}</strong><table>{rows}</table>{summary.picture}</div>"


def as_text(summary: Summary) -> str:
    """Return a summary as lines."""
    shown = [(name, value) for name, value in summary.rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join([summary.title, *(f"  {name:<{width}}  {value}" for name, value in shown)])


def ecdf(times_ms: "ArrayLike") -> str:
    """Return the empirical distribution of times as a small picture (SVG), the time on a logarithmic axis.

    Args:
        times_ms: times, ms, shape (n,); +∞ for what failed, which is a red bar as high as its share at the right edge.
            Without a finite time there is no curve, without any time no picture.
    """
    import numpy as np  # designs show themselves, too, and are read without it

    times = np.sort(np.asarray(times_ms, dtype=np.float64))
    finite = times[np.isfinite(times)]
    if not times.size:
        return ""
    failed = 1 - finite.size / times.size
    curve = labels = ""
    if finite.size:
        low, high = np.log10(np.maximum(finite[[0, -1]], 1e-6))
        span = high - low or 1.0
        kept = np.unique(np.linspace(0, finite.size - 1, min(finite.size, 200)).astype(np.int64))
        x = (np.log10(np.maximum(finite[kept], 1e-6)) - low) / span * (WIDTH - 12) + 2
        y = HEIGHT - 14 - (kept + 1) / times.size * (HEIGHT - 18)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        curve = f'<polyline points="{points}" fill="none" stroke="#1f6fb4" stroke-width="1.5"/>'
        labels = (
            f'<text x="2" y="{HEIGHT - 2}" font-size="10" fill="currentColor">{finite[0]:.3g} ms</text>'
            f'<text x="{WIDTH - 10}" y="{HEIGHT - 2}" font-size="10" fill="currentColor" text-anchor="end">'
            f"{finite[-1]:.3g} ms</text>"
        )
    tall = failed * (HEIGHT - 18)
    bar = f'<rect x="{WIDTH - 7}" y="{HEIGHT - 14 - tall:.1f}" width="6" height="{tall:.1f}" fill="#c0392b"/>'
    spoken = "share of requests by response time" + (f"; {failed:.1%} failed" if failed else "")
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{spoken}" xmlns="http://www.w3.org/2000/svg">'
        f'<line x1="2" x2="{WIDTH}" y1="{HEIGHT - 14}" y2="{HEIGHT - 14}" stroke="currentColor" stroke-opacity="0.3"/>'
        f"{curve}{bar if failed else ''}{labels}</svg>"
    )
