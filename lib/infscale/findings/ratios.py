"""Ratios of a finding's cases, and how they are told."""

import numpy as np
import pandas as pd

from infscale.analysis.intervals import Interval, geometric_mean
from infscale.analysis.tables.summary import withheld_because
from infscale.analysis.tables.trials import comparable
from infscale.vocabulary import number

Tables = dict[str, pd.DataFrame]
P95 = "response_p95_ms"


def ratio(trials: pd.DataFrame, over: str, under: str, column: str = P95) -> Interval:
    """One case ÷ another in ``column``, paired by λ and replicate, of rows that are ``comparable``."""
    wide = comparable(trials, column).pivot_table(index=["rate_per_s", "replicate"], columns="label", values=column)
    both = {over, under} <= set(wide.columns)
    return geometric_mean((wide[over] / wide[under]).dropna().to_numpy() if both else np.array([]))


def told(estimate: Interval) -> str:
    """A ratio with its interval, or why there is none."""
    if not np.isfinite(estimate.value):
        return f"unknown ({withheld_because(estimate.replicates) or 'a bracket is missing'})"
    if not np.isfinite(estimate.low):
        return f"{number(estimate.value)} ({withheld_because(estimate.replicates) or 'a bracket is missing'})"
    return f"{number(estimate.value)} (95 % interval {number(estimate.low)} to {number(estimate.high)})"


def capacities_told(estimate: Interval) -> str:
    """The same of a ratio of two capacities."""
    if np.isfinite(estimate.value) and np.isfinite(estimate.low):
        return told(estimate)
    known = f"{number(estimate.value)} (no interval: " if np.isfinite(estimate.value) else "unknown ("
    return f"{known}both capacities have a bracket in {estimate.replicates} replicates)"


def prefixes(tables: Tables, ending: str) -> list[str]:
    """What stands before ``ending`` in the names of the cases: a framework's name, a model's, or nothing."""
    return [name.removesuffix(ending) for name in tables["cases"]["label"] if name.endswith(ending)]


def column(tables: Tables, name: str) -> dict[str, float]:
    """A column of ``cases`` by case; NaN where it was not measured."""
    table = tables["cases"].set_index("label")
    if name not in table:
        return dict.fromkeys(map(str, table.index), float("nan"))
    return {str(label): float(value) for label, value in table[name].items()}
