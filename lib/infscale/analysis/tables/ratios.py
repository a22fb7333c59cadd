"""Ratios of two arms, paired by replicate: of percentiles at one arrival rate, and of saturation rates."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from infscale.analysis.intervals import ALPHA, MIN_REPLICATES, Interval, geometric_mean, hodges_lehmann, holm, spread
from infscale.analysis.tables.saturation import replicate_brackets
from infscale.analysis.tables.trials import Row, comparable, identified, used
from infscale.experiment.design.design import P95, Contrast, Design
from infscale.experiment.design.labels import count
from infscale.records.gate import VALID, Floats
from infscale.vocabulary import CANNOT

RATIO_COLUMNS = (
    "rate_per_s",
    "reference",
    "reference_label",
    "metric",
    "replicates",
    "exploratory",
    "ratio",
    "ratio_low",
    "ratio_high",
    "note",
    "hodges_lehmann",
    "spread",
    "p_value",
    "interval_conclusion",
    "p_holm",
    "conclusion",
    "capacity_ratio",
    "capacity_ratio_low",
    "capacity_ratio_high",
    "capacity_replicates",
    "capacity_conclusion",
)
"""The columns of :func:`contrasts_table` beside those that identify the arm."""
RATIO_NUMBERS = (
    "rate_per_s",
    "ratio",
    "ratio_low",
    "ratio_high",
    "hodges_lehmann",
    "spread",
    "p_value",
    "capacity_ratio",
    "capacity_ratio_low",
    "capacity_ratio_high",
)
"""Those of them that are real numbers, NaN where unknown."""


class Ratios:
    """Ratios between the arms of a run, paired by replicate, with their 95 % intervals.

    Args:
        trials: of :func:`infscale.analysis.tables.trials.trials_table`; those at the rates at which arms are compared,
            and those of the search for λ*.
    """

    def __init__(self, trials: pd.DataFrame) -> None:
        self.trials = trials
        self._values: dict[str, pd.DataFrame] = {}

    @cached_property
    def _brackets(self) -> dict[int, pd.DataFrame]:
        """By arm the bracket of λ* (low, high) in each replicate."""
        brackets = replicate_brackets(self.trials).set_index("replicate")
        return {int(own["arm"].iloc[0]): own[["low_per_s", "high_per_s"]] for _, own in brackets.groupby("arm")}

    def pairs(self, arm: int, reference: int, name: str = P95) -> "pd.Series[float]":
        """Return one arm ÷ another in the column ``name``, for each block, λ and replicate in which both are known.

        A pair counts where both are VALID and steady, both values are known, and neither was SATURATED in another
        replicate (:func:`infscale.analysis.tables.trials.comparable`). Arms of different blocks have no pairs: they
        got different arrivals.
        """
        if name not in self._values:
            fit = comparable(self.trials, name)
            self._values[name] = fit.pivot(index=["block", "rate_per_s", "replicate"], columns="arm", values=name)
        values = self._values[name]
        if not {arm, reference} <= set(values.columns):
            return pd.Series(dtype=float, index=values.index[:0])
        return (values[arm] / values[reference]).dropna()

    def ratio(self, arm: int, reference: int, name: str = P95) -> Interval:
        """Return the mean of :meth:`pairs` over all rates, with its interval."""
        return geometric_mean(self.pairs(arm, reference, name))

    def capacity(self, arm: int, reference: int) -> Interval:
        """Return λ* of one arm ÷ that of another, with the width of the brackets in its interval.

        The interval goes from the lower end of the t interval of low ÷ high to the upper end of that of high ÷ low; the
        value is that of the brackets' geometric means. All is NaN where a replicate lacks an end of its bracket: to
        leave it out would leave out the fastest, or the slowest.
        """
        if not {arm, reference} <= self._brackets.keys():
            return geometric_mean([])
        over, under = self._brackets[arm].align(self._brackets[reference], join="inner")
        judged = over.notna().any(axis=1) & under.notna().any(axis=1)  # else one was INVALID in all: it says nothing
        (low, high), (low_under, high_under) = over[judged].to_numpy().T, under[judged].to_numpy().T
        ends = np.array([low / high_under, high / low_under])
        if np.isnan(ends).any():  # one never SATURATED, or never kept up: its ratio has no end on that side
            known = int((~np.isnan(ends)).all(axis=0).sum())
            return Interval(float("nan"), float("nan"), float("nan"), known, float("nan"))
        least, most = geometric_mean(ends[0]), geometric_mean(ends[1])
        value = float(np.sqrt(least.value * most.value))
        return Interval(value, least.low, most.high, least.replicates, max(least.p_value, most.p_value))


def contrasts_table(trials: pd.DataFrame, contrasts: Iterable[Contrast]) -> pd.DataFrame:
    """Return one row per contrast and arrival rate: the ratio of the arm's metric to its reference's.

    The ratio and its 95 % interval are those of :meth:`Ratios.ratio`, at one rate. ``interval_conclusion`` is "slower"
    or "faster" where that interval excludes 1, else "cannot conclude". ``conclusion`` is the same where the difference
    remains significant after Holm's correction (``p_holm``) over all rows of the same metric, else "cannot conclude".
    ``hodges_lehmann`` is a second, robust estimate of the ratio, from six replicates on; ``spread`` is how much the
    replicates' ratios differ; ``note`` says why there is no interval.
    ``capacity_…``: the ratio of the saturation rates (:meth:`Ratios.capacity`), the same at every rate, "higher",
    "lower" or "cannot conclude" by its interval.

    A contrast of which an arm has no trial has no row.

    Args:
        trials: those at the rates at which arms are compared, and those of the search for λ*.
        contrasts: the comparisons.
    """
    every, frame, named = Ratios(trials), used(trials), list(contrasts)
    labels = dict(zip(trials["arm"], trials["label"], strict=True))
    rates = {int(group["arm"].iloc[0]): set(group["rate_per_s"]) for _, group in frame.groupby("arm")}
    tried = [contrast for contrast in named if {contrast.arm, contrast.reference} <= rates.keys()]
    compared = {(contrast.arm, contrast.reference) for contrast in tried}
    capacities = {pair: _capacities(every.capacity(*pair)) for pair in compared}
    rows: list[Row] = []
    for contrast in tried:
        arm, reference = contrast.arm, contrast.reference
        by_rate = dict(iter(every.pairs(arm, reference, contrast.metric).groupby(level="rate_per_s")))
        for rate in sorted(rates[arm] | rates[reference]):
            what = {"arm": arm, "reference": reference, "metric": contrast.metric, "rate_per_s": rate}
            estimate = _estimate(by_rate.get(rate, pd.Series(dtype=float)).to_numpy())
            rows.append(what | {"reference_label": labels[reference]} | estimate | capacities[arm, reference])
    kinds = dict.fromkeys(RATIO_NUMBERS, float) | {"arm": int, "reference": int}  # also where there is no row
    table = pd.DataFrame(rows, columns=["arm", *RATIO_COLUMNS]).astype(kinds)
    table["p_holm"] = table.groupby("metric")["p_value"].transform(lambda p: pd.Series(holm(p), p.index))
    table["conclusion"] = table["interval_conclusion"].where(table["p_holm"] < ALPHA, CANNOT)
    return identified(table, trials)


def _estimate(ratios: Floats) -> Row:
    """Return the columns that describe the ratios of one contrast at one rate."""
    mean = geometric_mean(ratios)
    return {
        "replicates": mean.replicates,
        "exploratory": mean.exploratory,
        "ratio": mean.value,
        "ratio_low": mean.low,
        "ratio_high": mean.high,
        "note": withheld_because(len(ratios)),
        "hodges_lehmann": hodges_lehmann(ratios),
        "spread": spread(ratios),
        "p_value": mean.p_value,
        "interval_conclusion": "slower" if mean.low > 1 else "faster" if mean.high < 1 else CANNOT,
    }


def withheld_because(ratios: int) -> str:
    """Return why this number of ratios has no interval; "" where it has one."""
    if ratios == 0:
        return "no replicate in which both are VALID and steady, or one of them was SATURATED"
    return too_few(ratios)


def too_few(replicates: int) -> str:
    """Return that so few replicates have no interval; "" where they have one."""
    few = f"only {count(replicates, 'replicate')}; an interval needs {MIN_REPLICATES}"
    return few if replicates < MIN_REPLICATES else ""


def _capacities(estimate: Interval) -> Row:
    """Return the columns that describe the ratio of two saturation rates."""
    return {
        "capacity_ratio": estimate.value,
        "capacity_ratio_low": estimate.low,
        "capacity_ratio_high": estimate.high,
        "capacity_replicates": estimate.replicates,
        "capacity_conclusion": "higher" if estimate.low > 1 else "lower" if estimate.high < 1 else CANNOT,
    }


SENSITIVITY_COLUMNS = (
    "rate_per_s",
    "reference",
    "reference_label",
    "trials",
    "replicates",
    "ratio",
    "ratio_low",
    "ratio_high",
    "differs",
)
"""The columns of :func:`sensitivity_table` beside those that identify the arm."""


def sensitivity_table(trials: pd.DataFrame, design: Design, name: str = P95) -> pd.DataFrame:
    """Return how much fixed defaults decide: each arm of the sensitivity check ÷ the compared arm that it varies.

    One row per arm of the check and rate, paired by replicate where both are VALID. ``differs`` is true when the 95 %
    interval excludes 1. Empty when the run made no such check.
    """
    usable = trials[(trials["verdict"] == VALID) & ~trials[f"{name}_bound"].astype(bool) & np.isfinite(trials[name])]
    own = used(usable)
    labels = dict(zip(trials["arm"], trials["label"], strict=True))
    rows: list[Row] = []
    checked = trials[trials["phase"] == "sensitivity"]
    for (arm, rate), group in checked.groupby(["arm", "rate_per_s"]):
        reference = varied(design, int(group["arm"].iloc[0]))
        tried = usable.loc[usable.index.intersection(group.index)].set_index("replicate")[name]
        default = own[(own["arm"] == reference) & (own["rate_per_s"] == rate)].set_index("replicate")[name]
        mean = geometric_mean((tried / default.reindex(tried.index)).dropna())
        rows.append(
            {"arm": arm, "rate_per_s": rate, "reference": reference, "reference_label": labels.get(reference, "")}
            | {"trials": len(group), "replicates": mean.replicates, "ratio": mean.value}
            | {"ratio_low": mean.low, "ratio_high": mean.high, "differs": mean.low > 1 or mean.high < 1}
        )
    table = pd.DataFrame(rows, columns=["arm", *SENSITIVITY_COLUMNS]).astype({"arm": int})
    return identified(table, trials)


def varied(design: Design, arm: int) -> int:
    """Return the number of the compared arm that an arm of the sensitivity check varies: its deployment and protocol.

    Both exist in every design that was measured; -1 stands for none.
    """
    every: Sequence[object] = [(one.deployment, one.protocol) for one in design.arms]
    checked = design.every_arm()[arm]
    key = (checked.deployment, checked.protocol)
    return every.index(key) if key in every else -1
