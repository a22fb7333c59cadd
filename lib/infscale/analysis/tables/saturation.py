"""The saturation rate λ* of each arm, with its interval over lifetimes."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, special

from infscale.analysis.answers import interval
from infscale.analysis.intervals import CONFIDENCE, MIN_LIFETIMES
from infscale.analysis.tables.trials import Row, identified
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Floats


def arms_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: the saturation rate λ* and how its trials went.

    Each lifetime has a bracket of λ* from its own trials (:func:`lifetime_brackets`), and a value
    (:func:`lifetime_logs`). ``saturation_per_s`` is their geometric mean over ``saturation_lifetimes``, with the 95 %
    interval ``low_per_s`` to ``high_per_s`` (Student's t on the logarithms; NaN below three lifetimes). ``bound`` is ""
    for such an estimate, "≥" where an arm kept up with every rate in a lifetime, "<" where it kept up with none, "?"
    where no trial could be used, or the arm is a closed loop; the value is then the median over lifetimes, of the known
    end where a bracket has one only. ``steps`` is the ratio of the two ends of a bracket (its geometric mean).

    Of a run whose design has an SLO, ``capacity_per_s`` is the rate at which it is kept, by the same rules, with
    ``capacity_low_per_s``, ``capacity_high_per_s``, ``capacity_bound``, ``capacity_lifetimes`` and ``capacity_steps``.
    """
    own = trials[~trials["phase"].isin(("sensitivity", CAPACITY_PHASE))]
    brackets = dict(iter(lifetime_brackets(own).groupby("arm")))
    values = {arm: group["value"].to_numpy() for arm, group in lifetime_logs(own).groupby("arm")}
    rows = [
        {"arm": arm, **_estimate(brackets.get(arm), values.get(arm)), **_counts(group)}
        for arm, group in own.groupby("arm")
    ]
    table = pd.DataFrame(rows)
    tried = by_slo(trials)
    if len(tried):
        ends, logs = lifetime_brackets(tried), lifetime_logs(tried)
        rates = [
            {"arm": arm, **_estimate(ends[ends["arm"] == arm], logs.loc[logs["arm"] == arm, "value"].to_numpy())}
            for arm in sorted(set(tried["arm"]))
        ]
        table = table.merge(pd.DataFrame(rates).rename(columns=CAPACITY_COLUMNS), on="arm", how="left")
    return identified(table, own)


CAPACITY_PHASE = "capacity"
"""The phase of trials in the search for the rate at the SLO."""

CAPACITY_COLUMNS = {
    "saturation_per_s": "capacity_per_s",
    "low_per_s": "capacity_low_per_s",
    "high_per_s": "capacity_high_per_s",
    "bound": "capacity_bound",
    "saturation_lifetimes": "capacity_lifetimes",
    "steps": "capacity_steps",
}
"""The columns of λ*, and those of the rate at the SLO."""


def by_slo(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials of the search for the rate at the SLO as those of a search for λ*: VALID where it was kept.

    So :func:`lifetime_brackets` and :func:`lifetime_logs` give that rate: the one at which half of the trials keep it.
    """
    own = trials[trials["phase"] == CAPACITY_PHASE]
    if own.empty:
        return own
    kept = own["slo_kept"].map({True: VALID, False: SATURATED})
    return own.assign(phase="search", verdict=own["verdict"].where(own["verdict"] == INVALID, kept))


def _counts(group: pd.DataFrame) -> Row:
    counts = {
        verdict.lower(): int((group["verdict"] == verdict).sum()) for verdict in (VALID, UNSTEADY, SATURATED, INVALID)
    }
    return {"trials": len(group), **counts}


def _estimate(brackets: pd.DataFrame | None, logs: Floats | None) -> Row:
    """Return λ* from the brackets of an arm's lifetimes, and their values."""
    none = {
        "saturation_per_s": np.nan,
        "low_per_s": np.nan,
        "high_per_s": np.nan,
        "bound": "?",
        "saturation_lifetimes": 0,
    }
    if brackets is None or brackets.empty or logs is None:
        return {**none, "steps": np.nan}
    low, high = (brackets[name].to_numpy(dtype=np.float64) for name in ("low_per_s", "high_per_s"))
    whole = np.isfinite(low) & np.isfinite(high)
    steps = float(np.exp(np.mean(np.log(high[whole] / low[whole])))) if whole.any() else np.nan
    middle = np.where(whole, np.sqrt(low * high), np.where(np.isfinite(low), low, high))
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


SOFTNESS = 0.15
"""Scale of the logistic curve, over the logarithm of the rate, by which trials keep up with less and less likelihood.
Of real servers it was 0.02 to 0.09, with the differences between lifetimes in it. A larger one makes intervals wider;
with 0.1 they were still too narrow at 0.09 (docs/answers-simulated.md)."""


def lifetime_logs(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the logarithm of λ* in each lifetime: columns ``arm``, ``lifetime``, ``value``.

    A search begins where earlier lifetimes have found λ*. Where chance has a part in verdicts, brackets stay near where
    they began: their middles depend on one another, and an interval over them is too narrow
    (docs/decisions/0022-answers.md). So λ* is estimated from all trials of the searches together, as the θ at which as
    many keep up as a logistic curve through θ expects at their rates, whatever made the rates what they are. The value
    of lifetime l is its pseudo-value θ + n u ÷ I: u is by how many more of its trials kept up than expected, I the
    derivative of the expectation, n the number of lifetimes. Their mean is θ.

    Where a lifetime lacks an end of its bracket, or has it from trials at set rates, all values are the middles of
    brackets, ±∞ where one of its ends was not found.

    Source: P. J. Huber, "Robust Statistics" (1981), one-step estimates; the u of lifetimes are martingale differences.
    """
    brackets = lifetime_brackets(trials)
    search = trials[(trials["phase"] == "search") & (trials["verdict"] != INVALID)]
    rates = search.assign(kept_up=search["verdict"] == VALID, log=np.log(search["rate_per_s"].astype(float)))
    # Of trials at one rate the later ones repeat an UNSTEADY one.
    judged = rates.groupby(["arm", "lifetime", "log"])["kept_up"].any().reset_index()
    values = pd.Series(np.nan, brackets.index)
    for arm, own in brackets.groupby("arm"):
        low, high = own["low_per_s"].to_numpy(dtype=np.float64), own["high_per_s"].to_numpy(dtype=np.float64)
        middles = np.log(low * high) / 2
        middles[np.isnan(low) & np.isfinite(high)], middles[np.isnan(high) & np.isfinite(low)] = -np.inf, np.inf
        tried = judged[judged["arm"] == arm]
        both = tried.groupby("lifetime")["kept_up"].nunique().reindex(own["lifetime"]) == 2
        whole = np.isfinite(middles).all() and bool(both.all())
        values[own.index] = _pseudo_values(tried, own["lifetime"].to_numpy()) if whole else middles
    return brackets[["arm", "lifetime"]].assign(value=values)


def _pseudo_values(tried: pd.DataFrame, lifetimes: npt.NDArray[np.int64]) -> Floats:
    """Return the pseudo-value of each lifetime, from trials with ``lifetime``, ``log`` and ``kept_up``."""
    tried = tried[tried["lifetime"].isin(lifetimes)]
    log, kept_up = tried["log"].to_numpy(dtype=np.float64), tried["kept_up"].to_numpy(dtype=np.float64)

    def expected(theta: float) -> Floats:
        share: Floats = special.expit((theta - log) / SOFTNESS)
        return share

    far = 50 * SOFTNESS
    theta = optimize.brentq(lambda x: float(expected(x).sum() - kept_up.sum()), log.min() - far, log.max() + far)
    share = expected(theta)
    information = float((share * (1 - share)).sum()) / SOFTNESS
    surplus = pd.Series(kept_up - share).groupby(tried["lifetime"].to_numpy()).sum().reindex(lifetimes).to_numpy()
    values: Floats = theta + len(lifetimes) * surplus / information
    return values


def lifetime_brackets(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the bracket of λ* in each lifetime: columns ``arm``, ``lifetime``, ``low_per_s``, ``high_per_s``.

    It comes from the trials of the search, and where those alone do not have both ends, from those at set rates too. It
    lies where a step from "kept up" (VALID) to "did not" (SATURATED, or UNSTEADY in the search) contradicts the fewest
    verdicts. NaN where nothing kept up, or everything did. A closed loop has none: it is never asked for more than it
    answers.
    """
    own = trials[trials["phase"].isin(("grid", "search")) & ~trials["closed"].astype(bool)]
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
