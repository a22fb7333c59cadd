"""The saturation rate λ* of each arm: the bracket that it lies in, and its interval over replicates."""

from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.intervals import Interval, geometric_mean
from infscale.analysis.tables.trials import ARM
from infscale.records.gate import INVALID, SATURATED, VALID, Floats

INTERVAL = ["interval_low_per_s", "interval_high_per_s", "interval_replicates"]


def arms_table(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: the saturation rate λ* and the bracket that it lies in.

    λ* is where a step from VALID to SATURATED contradicts the fewest verdicts of pilot and grid (one false alarm,
    or one lucky replicate, then moves nothing). The bracket runs from the last rate before the step (``low_per_s``)
    to the first one after it (``high_per_s``), over all steps that do equally well; ``saturation_per_s`` is its
    geometric mean, ``contradictions`` the verdicts that disagree. ``bound`` is "≥" when the step lies above all rates
    (the value is then the largest), "<" when it lies below all, "~" where one of these is contradicted by other
    verdicts, "?" when no trial could be used. From
    ``settled_per_s`` on nothing was VALID any more (NaN if the largest rate was); two arms are told apart beyond it.

    ``interval_low_per_s`` and ``interval_high_per_s`` are the 95 % interval over ``interval_replicates``: each
    replicate of the grid has a bracket of its own, bisected where the run did so, and the interval goes from the lower
    end of the t interval of the brackets' lower ends to the upper end of that of their upper ends, so that the width of
    the brackets is in it. NaN below three replicates, or where one of them has no bracket.
    """
    own = trials[trials["phase"].isin(("pilot", "grid", "bisection"))]  # the sensitivity check varies an arm
    rows = [dict(zip(ARM, key, strict=True)) | _bracket(group) for key, group in own.groupby(ARM)]
    return pd.DataFrame(rows)


def _bracket(group: pd.DataFrame) -> dict[str, Any]:
    valid = group.loc[group["verdict"] == VALID, "rate_per_s"]
    saturated = group.loc[group["verdict"] == SATURATED, "rate_per_s"]
    low, high, contradictions = _step(valid.to_numpy(dtype=float), saturated.to_numpy(dtype=float))
    bound, value = "", float(np.sqrt(low * high))
    if np.isnan(value):
        bound, value = ("<", high) if np.isnan(low) else ("≥", low)
    return {
        "saturation_per_s": value,
        "low_per_s": low,
        "high_per_s": high,
        "contradictions": contradictions,
        "settled_per_s": float(saturated[~(saturated <= valid.max())].min()),
        "bound": "?" if np.isnan(value) else "~" if bound and contradictions else bound,
        **saturation_interval(group),
        "trials": len(group),
        "valid": len(valid),
        "saturated": len(saturated),
        "invalid": int((group["verdict"] == INVALID).sum()),
    }


def _step(valid: Floats, saturated: Floats) -> tuple[float, float, int]:
    """Rates on both sides of the step that contradicts the fewest verdicts (NaN: none on that side), and how many."""
    rates = np.unique(np.concatenate([valid, saturated]))
    cuts = np.arange(len(rates) + 1)  # cut k: the rates before index k keep up
    ends = np.append(rates, np.inf)
    wrong = np.array([(saturated < end).sum() + (valid >= end).sum() for end in ends])
    best = cuts[wrong == wrong.min()]
    low = float(rates[best[0] - 1]) if best[0] > 0 else float("nan")
    high = float(rates[best[-1]]) if best[-1] < len(rates) else float("nan")
    return low, high, int(wrong.min())


def saturation_interval(group: pd.DataFrame) -> dict[str, Any]:
    """The columns ``INTERVAL`` from one arm's trials: from the bracket of each replicate's grid and bisection."""
    own = group[group["phase"] != "pilot"]
    ends = [_replicate_bracket(trials) for _, trials in own.groupby("replicate")]
    lows, highs = np.array(ends, dtype=np.float64).reshape(-1, 2).T
    low, high = geometric_mean(lows).low, geometric_mean(highs).high
    known = np.isfinite(low) and np.isfinite(high)
    return dict(zip(INTERVAL, (low if known else np.nan, high if known else np.nan, len(ends)), strict=True))


def _replicate_bracket(trials: pd.DataFrame) -> tuple[float, float]:
    valid, saturated = (
        trials.loc[trials["verdict"] == v, "rate_per_s"].to_numpy(dtype=float) for v in (VALID, SATURATED)
    )
    low, high, _ = _step(valid, saturated)
    return low, high


def replicate_brackets(trials: pd.DataFrame) -> pd.DataFrame:
    """The bracket of λ* in each replicate: columns ``label``, ``replicate``, ``low_per_s``, ``high_per_s``.

    NaN where nothing was VALID, or nothing SATURATED.
    """
    own = trials[trials["phase"].isin(("grid", "bisection"))]
    rows = [
        (label, replicate, *_replicate_bracket(group))
        for (label, replicate), group in own.groupby(["label", "replicate"])
    ]
    return pd.DataFrame(rows, columns=["label", "replicate", "low_per_s", "high_per_s"])


def capacity_ratio(brackets: pd.DataFrame, over: str, under: str) -> Interval:
    """λ* of one case ÷ that of another, paired by replicate, with the width of the brackets in its interval.

    ``brackets`` is of :func:`replicate_brackets`. The interval goes from the lower end of the t interval of
    low ÷ high to the upper end of that of high ÷ low; the value is that of the brackets' geometric means. All is NaN
    where a replicate lacks an end of its bracket: to leave it out would leave out the fastest, or the slowest.
    """
    if not {over, under} <= set(brackets["label"]):
        return geometric_mean([])
    wide = brackets.pivot(index="replicate", columns="label", values=["low_per_s", "high_per_s"])
    low, high = wide["low_per_s"], wide["high_per_s"]
    said = [
        ~(low[case].isna() & high[case].isna()) for case in (over, under)
    ]  # all INVALID: the replicate says nothing
    ends = pd.DataFrame({"least": low[over] / high[under], "most": high[over] / low[under]})[said[0] & said[1]]
    if ends.isna().any(axis=None):  # one never SATURATED, or never kept up: its ratio has no end on that side
        return Interval(float("nan"), float("nan"), float("nan"), int(ends.notna().all(axis=1).sum()), float("nan"))
    least, most = geometric_mean(ends["least"]), geometric_mean(ends["most"])
    value = float(np.sqrt(least.value * most.value))
    return Interval(value, least.low, most.high, least.replicates, max(least.p_value, most.p_value))
