"""The saturation rate λ* of each arm: the bracket that it lies in, and its interval over replicates."""

import numpy as np
import pandas as pd

from infscale.analysis.intervals import geometric_mean
from infscale.analysis.tables.trials import Row, identified
from infscale.records.gate import INVALID, SATURATED, VALID, Floats

INTERVAL = ["interval_low_per_s", "interval_high_per_s", "interval_replicates"]
"""The columns of λ*'s interval over replicates."""


def arms_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: the saturation rate λ* and the bracket that it lies in.

    λ* is where a step from VALID to SATURATED contradicts the fewest verdicts of pilot, set rates and bisection (one
    false alarm, or one lucky replicate, then moves nothing). The bracket runs from the last rate before the step
    (``low_per_s``) to the first one after it (``high_per_s``), over all steps that do equally well;
    ``saturation_per_s`` is its geometric mean, ``contradictions`` the verdicts that disagree. ``bound`` is "≥" when the
    step lies above all rates (the value is then the largest), "<" when it lies below all, "~" where one of these is
    contradicted by other verdicts, "?" when no trial could be used. ``settled_per_s`` is the
    lowest SATURATED rate above every VALID one (NaN if there is none). An arm counts as better only if it was VALID at
    or above the other's.

    ``interval_low_per_s`` and ``interval_high_per_s`` are the 95 % interval over ``interval_replicates``: each
    replicate has a bracket of its own, bisected where the run did so, and the interval goes from the lower
    end of the t interval of the brackets' lower ends to the upper end of that of their upper ends, so that the width of
    the brackets is in it. NaN below three replicates, or where one of them has no bracket.
    """
    own = trials[trials["phase"] != "sensitivity"]
    brackets = {arm: group[["low_per_s", "high_per_s"]] for arm, group in replicate_brackets(own).groupby("arm")}
    none = pd.DataFrame(columns=["low_per_s", "high_per_s"])
    rows = [
        {"arm": arm, **_bracket(group), **saturation_interval(brackets.get(arm, none).to_numpy(dtype=np.float64))}
        for arm, group in own.groupby("arm")
    ]
    return identified(pd.DataFrame(rows), own)


def _bracket(group: pd.DataFrame) -> Row:
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
        "trials": len(group),
        "valid": len(valid),
        "saturated": len(saturated),
        "invalid": int((group["verdict"] == INVALID).sum()),
    }


def _step(valid: Floats, saturated: Floats) -> tuple[float, float, int]:
    """Return the rates on both sides of the step that contradicts the fewest verdicts, and how many it contradicts.

    NaN where there is no rate on that side.
    """
    rates = np.unique(np.concatenate([valid, saturated]))
    cuts = np.arange(len(rates) + 1)  # cut k: the rates before index k keep up
    ends = np.append(rates, np.inf)
    wrong = np.array([(saturated < end).sum() + (valid >= end).sum() for end in ends])
    best = cuts[wrong == wrong.min()]
    low = float(rates[best[0] - 1]) if best[0] > 0 else float("nan")
    high = float(rates[best[-1]]) if best[-1] < len(rates) else float("nan")
    return low, high, int(wrong.min())


def saturation_interval(brackets: Floats) -> dict[str, float]:
    """Return the columns :data:`INTERVAL` from the bracket of λ* in each replicate.

    Args:
        brackets: shape (replicates, 2), requests/s; NaN where there is no rate on that side.
    """
    low, high = geometric_mean(brackets[:, 0]).low, geometric_mean(brackets[:, 1]).high
    known = np.isfinite(low) and np.isfinite(high)
    return dict(zip(INTERVAL, (low if known else np.nan, high if known else np.nan, len(brackets)), strict=True))


def replicate_brackets(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the bracket of λ* in each replicate: columns ``arm``, ``replicate``, ``low_per_s``, ``high_per_s``.

    NaN where nothing was VALID, or nothing SATURATED.
    """
    own = trials[trials["phase"].isin(("grid", "bisection"))]
    rates, verdicts = own["rate_per_s"].to_numpy(dtype=np.float64), own["verdict"].to_numpy(dtype=object)
    valid, saturated = verdicts == VALID, verdicts == SATURATED
    rows = [
        (
            own["arm"].iloc[at[0]],
            own["replicate"].iloc[at[0]],
            *_step(rates[at][valid[at]], rates[at][saturated[at]])[:2],
        )
        for at in own.groupby(["arm", "replicate"]).indices.values()
    ]
    return pd.DataFrame(rows, columns=["arm", "replicate", "low_per_s", "high_per_s"])
