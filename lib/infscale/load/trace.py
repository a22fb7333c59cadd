"""Arrival traces from files: one column of arrival times in a CSV or Parquet file.

The column's name says its unit: it ends in ``_s`` (seconds, fractions allowed) or ``_ns`` (whole nanoseconds).
Unless one is named, the first of ``arrival_ns``, ``arrival_s``, ``scheduled_ns``, ``timestamp_ns`` and
``timestamp_s`` that the file has is taken; so the table that ``infscale load --out`` writes can be replayed.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from infscale.errors import DataError
from infscale.load.schedule import Schedule

COLUMNS = ("arrival_ns", "arrival_s", "scheduled_ns", "timestamp_ns", "timestamp_s")
"""Names of columns of arrival times; the first that a file has is read."""


def read(path: Path, column: str = "") -> Schedule:
    """Return the arrival times of a trace in int64 ns, in the file's order and from its origin.

    Raises:
        DataError: the file cannot be read, has no such column, or holds something else than finite times.
    """
    name, values = _column(path, column)
    if not len(values):
        raise DataError(f"{path}: the trace holds no arrival")
    if values.dtype == bool or not pd.api.types.is_numeric_dtype(values):
        raise DataError(f"{path}: column {name!r} does not hold numbers")
    exact = name.endswith("_ns") and pd.api.types.is_integer_dtype(values) and not values.isna().any()
    scale = 1.0 if name.endswith("_ns") else 1e9
    times = values.to_numpy(dtype=np.float64, na_value=np.nan) * scale
    wrong = np.flatnonzero(~(np.abs(times) < 2.0**62))  # half of int64's range, so that differences fit, too
    if wrong.size:
        raise DataError(f"{path}: column {name!r}, row {wrong[0] + 1}: {values.iloc[wrong[0]]} is not a time")
    return np.asarray(values if exact else np.rint(times), dtype=np.int64)


def _column(path: Path, column: str) -> tuple[str, "pd.Series[float]"]:
    """Return name and values of the column that holds the times."""
    frame = _frame(path)
    names = [name for name in ([column] if column else COLUMNS) if name in frame.columns]
    if not names:
        wanted = repr(column) if column else "any of " + ", ".join(COLUMNS)
        raise DataError(f"{path}: no column {wanted}; it has: {', '.join(map(str, frame.columns))}")
    if not names[0].endswith(("_s", "_ns")):
        raise DataError(f"{path}: column {names[0]!r} does not say its unit; accepted: a name that ends in _s or _ns")
    return names[0], frame[names[0]]


def _frame(path: Path) -> pd.DataFrame:
    """Return the file's table; Parquet is known by its first four bytes, anything else is read as CSV."""
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        return pd.read_parquet(path) if parquet else pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' and Arrow's own errors are ValueErrors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"the trace {path} cannot be read: {reason}") from error
