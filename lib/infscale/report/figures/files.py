"""Writing figures with the numbers that they draw, equal byte by byte for equal data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from infscale.report.figures.rates import house_style

METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": "infscale", "Producer": "infscale"},
    "png": {"Software": None},
}


def save_figure(figure: Figure, name: str, folder: Path, data: pd.DataFrame, run: Mapping[str, Any]) -> Path:
    """Write ``name.pdf``, ``name.png`` (200 dpi) and ``name.csv`` to ``folder``, and return the PNG's path.

    The CSV holds the numbers that were drawn, with the run's id, commit and environment digest in every row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with house_style():
        for kind, metadata in METADATA.items():
            figure.savefig(folder / f"{name}.{kind}", metadata=metadata)
    told = data.assign(run_id=run["run_id"], commit=run["commit"], environment_digest=run["environment_digest"])
    told.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    return folder / f"{name}.png"


def write(path: Path, text: str) -> Path:
    """Write a generated text, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
