"""The saturation rate λ* of each arm, with its interval over lifetimes."""

import numpy as np
import pandas as pd

from infscale.analysis.answers import interval
from infscale.analysis.intervals import CONFIDENCE, MIN_LIFETIMES
from infscale.analysis.tables.trials import Row, identified
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Floats


def arms_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: the saturation rate λ* and how its trials went.

    Each lifetime has a bracket of λ* from its own trials (:func:`lifetime_brackets`). ``saturation_per_s`` is the
    geometric mean of their middles over ``saturation_lifetimes``, with the 95 % interval ``low_per_s`` to
    ``high_per_s`` (Student's t on the logarithms; NaN below three lifetimes). ``bound`` is "" for such an estimate, "≥"
    where an arm kept up with every rate in a lifetime, "<" where it kept up with none, "?" where no trial could be
    used; the value is then the median over lifetimes, of the known end where a bracket has one only. ``steps`` is the
    ratio of the two ends of a bracket (its geometric mean).
    """
    own = trials[trials["phase"] != "sensitivity"]
    brackets = dict(iter(lifetime_brackets(own).groupby("arm")))
    rows = [{"arm": arm, **_estimate(brackets.get(arm)), **_counts(group)} for arm, group in own.groupby("arm")]
    return identified(pd.DataFrame(rows), own)


def _counts(group: pd.DataFrame) -> Row:
    counts = {
        verdict.lower(): int((group["verdict"] == verdict).sum()) for verdict in (VALID, UNSTEADY, SATURATED, INVALID)
    }
    return {"trials": len(group), **counts}


def _estimate(brackets: pd.DataFrame | None) -> Row:
    """Return λ* from the brackets of an arm's lifetimes."""
    none = {
        "saturation_per_s": np.nan,
        "low_per_s": np.nan,
        "high_per_s": np.nan,
        "bound": "?",
        "saturation_lifetimes": 0,
    }
    if brackets is None or brackets.empty:
        return {**none, "steps": np.nan}
    low, high = (brackets[name].to_numpy(dtype=np.float64) for name in ("low_per_s", "high_per_s"))
    whole = np.isfinite(low) & np.isfinite(high)
    steps = float(np.exp(np.mean(np.log(high[whole] / low[whole])))) if whole.any() else np.nan
    middle = np.where(whole, np.sqrt(low * high), np.where(np.isfinite(low), low, high))
    logs = np.where(whole, np.log(middle), np.where(np.isfinite(low), np.inf, -np.inf))
    bound = "≥" if np.isposinf(logs).any() else "<" if np.isneginf(logs).any() else ""
    value = float(np.median(middle) if bound else np.exp(np.mean(logs)))
    ends = interval(logs, 1 - CONFIDENCE) if len(logs) >= MIN_LIFETIMES else (np.nan, np.nan)
    return {
        "saturation_per_s": value,
        "low_per_s": float(np.exp(ends[0])),
        "high_per_s": float(np.exp(ends[1])),
        "bound": bound,
        "saturation_lifetimes": len(logs),
        "steps": steps,
    }


def lifetime_brackets(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the bracket of λ* in each lifetime: columns ``arm``, ``lifetime``, ``low_per_s``, ``high_per_s``.

    It comes from the trials of the search, and where those alone do not have both ends, from those at set rates too. It
    lies where a step from "kept up" (VALID) to "did not" (SATURATED, or UNSTEADY in the search) contradicts the fewest
    verdicts. NaN where nothing kept up, or everything did.
    """
    own = trials[trials["phase"].isin(("grid", "search"))]
    rows = []
    for (arm, lifetime), group in own.groupby(["arm", "lifetime"]):
        search = group[group["phase"] == "search"]
        bracket = _bracket(search)
        if not np.isfinite(bracket).all():
            bracket = _bracket(group)
        if not np.isnan(bracket).all():
            rows.append((arm, lifetime, *bracket))
    return pd.DataFrame(rows, columns=["arm", "lifetime", "low_per_s", "high_per_s"])


def _bracket(group: pd.DataFrame) -> tuple[float, float]:
    rates, verdicts = group["rate_per_s"].to_numpy(dtype=np.float64), group["verdict"].to_numpy(dtype=object)
    kept_up, saturated = rates[verdicts == VALID], rates[verdicts == SATURATED]
    unsteady = np.unique(rates[(verdicts == UNSTEADY) & (group["phase"] == "search").to_numpy()])
    left = np.setdiff1d(unsteady, np.concatenate([kept_up, saturated]))  # the others were repeated
    return _step(kept_up, np.concatenate([saturated, left]))


def _step(kept_up: Floats, failed: Floats) -> tuple[float, float]:
    """Return the rates on both sides of the step that contradicts the fewest verdicts; NaN where there is none."""
    rates = np.unique(np.concatenate([kept_up, failed]))
    cuts = np.arange(len(rates) + 1)  # cut k: the rates before index k keep up
    ends = np.append(rates, np.inf)
    wrong = np.array([(failed < end).sum() + (kept_up >= end).sum() for end in ends])
    best = cuts[wrong == wrong.min()]
    low = float(rates[best[0] - 1]) if best[0] > 0 else float("nan")
    high = float(rates[best[-1]]) if best[-1] < len(rates) else float("nan")
    return low, high
