"""Writing figures with the numbers that they draw. Equal data give equal files, byte by byte."""

import io
from pathlib import Path

import msgspec
import pandas as pd
from matplotlib.figure import Figure

from infscale.analysis.tables import Tables
from infscale.records.manifest import RunManifest
from infscale.records.runs import HEADLINE, Run
from infscale.report.figures.parts import house_style
from infscale.report.figures.picture import Picture

DIGITS = 6
"""Significant digits of the numbers that are drawn and stored. The last of a float's sixteen differ between machines
(docs/decisions/0020-rounded-figures.md)."""

METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": "infscale", "Producer": "infscale"},
    "png": {"Software": None},
}
"""What files say of their making: neither a date nor the version of a program, so that equal data give equal bytes."""


SUFFIXES = (".pdf", ".png", ".csv")
"""Of the files of a figure."""

DPI = 200
"""Resolution of PNG files, dots per inch: less is blurred on paper."""


class Drawn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure that was written.

    Attributes:
        file: name of its PNG; the PDF and the CSV have the same stem.
        caption: text below it.
        alternative: text for those who cannot see it.
    """

    file: str
    caption: str
    alternative: str


def save_picture(picture: Picture, run: Run, tables: Tables, folder: Path) -> Drawn | None:
    """Draw a picture of a run, and write it to ``folder`` as PDF, PNG and CSV.

    Returns:
        what was written; None if the picture has no numbers in this run: files of its name are removed then, because
        they are of another run.
    """
    name = file_stem(run.manifest.design.finding, picture.name)
    numbers = picture.numbers(run, tables)
    if numbers.empty:
        for suffix in SUFFIXES:
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
        return None
    numbers = rounded(numbers)
    path = save_figure(picture.draw(numbers), name, folder, numbers, run.manifest)
    return Drawn(path.name, picture.caption(run, tables), picture.alternative)


def file_stem(finding: str, picture: str) -> str:
    """Return the stem of a figure's files: ``f0-ratio``, ``finding-caching`` or ``finding-caching-gain``."""
    start = "f0" if finding == HEADLINE else f"finding-{finding}"
    return f"{start}-{picture}" if picture else start


def save_figure(figure: Figure, name: str, folder: Path, numbers: pd.DataFrame, run: RunManifest) -> Path:
    """Write ``name.pdf``, ``name.png`` and ``name.csv`` to ``folder``, and return the PNG's path.

    The CSV holds ``numbers``, with the run's id, commit and digest of the environment in every row.
    """
    origin = {"run_id": run.run_id, "commit": run.commit, "environment_digest": run.environment_digest}
    save_files(figure, name, folder, numbers.assign(**origin))
    return folder / f"{name}.png"


def save_files(figure: Figure, name: str, folder: Path, numbers: pd.DataFrame) -> list[Path]:
    """Write ``name.pdf``, ``name.png``, and ``numbers`` as ``name.csv``, to ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with house_style():
        figure.set_dpi(DPI)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it has placed the panels: once is enough for both files
        for kind, metadata in METADATA.items():
            figure.savefig(folder / f"{name}.{kind}", metadata=metadata)
    write(folder / f"{name}.csv", numbers.to_csv(index=False, lineterminator="\n"))
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]


def png_of(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    buffer = io.BytesIO()
    with house_style():
        figure.savefig(buffer, format="png", dpi=DPI, metadata=METADATA["png"])
    return buffer.getvalue()


def rounded(table: pd.DataFrame, digits: int = DIGITS) -> pd.DataFrame:
    """Return a copy of ``table`` with every float rounded to ``digits`` significant digits; NaN and ∞ stay."""
    floats = table.select_dtypes(float)
    return table.assign(**{str(name): significant(column, digits) for name, column in floats.items()})


def significant(values: "pd.Series[float]", digits: int) -> list[float]:
    """Return ``values``, shape (n,), rounded to ``digits`` significant digits."""
    return [float(f"{value:.{digits - 1}e}") for value in values]


def write(path: Path, text: str) -> Path:
    """Write a generated text, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
