"""Two runs beside each other: what each says of the same contrasts and arms."""

from pathlib import Path

import numpy as np
import pandas as pd

from infscale.records.runs import Run, load_run
from infscale.report.listing import stored_tables
from infscale.report.results import machine_text
from infscale.report.wording import metric_text, with_interval

COLUMNS = ["what", "first", "second", "ratio"]
"""The columns of :func:`compare_runs`."""

NOTE = """\
Two runs are two occasions: what differs between them may be the machine, its day, or the code. "apart" stands where the
95 % intervals do not overlap; where they do, the runs do not contradict each other. Runs of one design on several
machines are put together by 'infscale merge'."""
"""What a comparison of runs means."""


def compare_runs(first: Run | Path | str, second: Run | Path | str) -> pd.DataFrame:
    """Return what two runs say of the same contrasts and arms, a row each, by :data:`COLUMNS`.

    ``first`` and ``second`` are ratios of named contrasts, and saturation rates of arms (requests/s), each with its
    95 % interval and a contrast's answer; "–" where a run has none. ``ratio`` is second ÷ first, with "apart" where the
    intervals do not overlap. What only one of the runs measured comes last.

    Args:
        first, second: runs, or their folders, absolute or from the project's root.

    Raises:
        DataError: a folder is no run, or none of its trials can be tabulated.
    """
    runs = [one if isinstance(one, Run) else load_run(one) for one in (first, second)]
    found = [_known(run) for run in runs]
    names = [name for name in found[0] if name in found[1]]
    names += [name for one in found for name in one if name not in names]
    rows = [(name, *_pair(*(one.get(name) for one in found))) for name in names]
    return pd.DataFrame(rows, columns=COLUMNS)


BOUNDS = ("≥", "<", "?")
"""What stands before a saturation rate that is known as a bound alone, and for one that is not known."""

Known = tuple[float, float, float, str]
"""A value, the ends of its interval (NaN without one), and what is said of it."""


def _known(run: Run) -> dict[str, Known]:
    """Return what a run says, by what it says it of."""
    tables = stored_tables(run)
    known: dict[str, Known] = {}
    for _, row in tables.contrasts.iterrows():
        name = f"{row['label']} ÷ {row['reference_label']}, {metric_text(row['metric'])}"
        known[name] = row["ratio"], row["ratio_low"], row["ratio_high"], row["answer"]
    for _, row in tables.arms.iterrows():
        known[f"{row['label']}, λ*"] = row["saturation_per_s"], row["low_per_s"], row["high_per_s"], row["bound"]
    return known


def _pair(first: Known | None, second: Known | None) -> tuple[str, str, str]:
    """Return two values in words, and how they stand to each other."""
    ratio = ""
    if first and second and np.isfinite([first[0], second[0]]).all() and first[0] > 0:
        ratio = f"{second[0] / first[0]:.3g}"
        ends = np.array([first[1:3], second[1:3]], dtype=float)
        if np.isfinite(ends).all() and (ends[0, 0] > ends[1, 1] or ends[1, 0] > ends[0, 1]):
            ratio += ", apart"
    return _text(first), _text(second), ratio


def _text(known: Known | None) -> str:
    if known is None:
        return "–"
    value, low, high, said = known
    if not np.isfinite(value):
        return "unknown" if said in ("", *BOUNDS) else said
    if said in BOUNDS:
        return f"{said} {with_interval(value, low, high)}"
    return ", ".join(filter(None, [with_interval(value, low, high), said]))


def describe_two(first: Path | str, second: Path | str) -> list[str]:
    """Return two runs beside each other, as lines of text; arguments and errors as of :func:`compare_runs`."""
    runs = [load_run(first), load_run(second)]
    lines = [
        f"{number} {run.id}, {run.manifest.design.finding}: {machine_text(run.manifest.machine)}"
        for number, run in enumerate(runs, 1)
    ]
    table = compare_runs(*runs).rename(columns={"first": "1", "second": "2", "ratio": "2 ÷ 1"})
    for name in table.columns:
        table[name] = table[name].str.ljust(int(table[name].str.len().max())) if len(table) else table[name]
    return [*lines, "", table.to_string(index=False, justify="left"), "", NOTE]
