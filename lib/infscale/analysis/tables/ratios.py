"""Ratios of two arms that describe a run and claim nothing: by arrival rate, and of whichever arms are asked for.

The claims of a run are its named contrasts (:mod:`infscale.analysis.tables.contrasts`). What is here has plain 95 %
intervals over lifetimes, without a correction for how many there are.
"""

import functools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from infscale.analysis.intervals import Interval, geometric_mean
from infscale.analysis.tables.contrasts import lifetime_tables, ratio_of
from infscale.analysis.tables.trials import Row, comparable, identified, used
from infscale.experiment.design.design import P95, SATURATION, Contrast, Design
from infscale.records.gate import VALID
from infscale.records.manifest import RunManifest

RATIO_COLUMNS = (
    "rate_per_s",
    "share",
    "reference",
    "reference_label",
    "metric",
    "lifetimes",
    "ratio",
    "ratio_low",
    "ratio_high",
)
"""The columns of :func:`ratios_table` beside those that identify the arm."""


class Ratios:
    """Ratios between any two arms of a run, paired by lifetime, with their 95 % intervals.

    Args:
        manifest: of the run.
        trials: of :func:`infscale.analysis.tables.trials.trials_table`.
    """

    def __init__(self, manifest: RunManifest, trials: pd.DataFrame) -> None:
        self.manifest, self.trials = manifest, trials

    def ratio(self, arm: int, reference: int) -> Interval:
        """Return p95 of one arm ÷ another at moderate load, the mean over lifetimes, with its interval.

        Arms of different blocks have none: they got different arrivals. Nor is there one where a lifetime's value is
        infinite.
        """
        design = self.manifest.design
        if design.block(arm) != design.block(reference):
            return geometric_mean([])
        return self._mean(Contrast(arm, reference, P95))

    def capacity(self, arm: int, reference: int) -> Interval:
        """Return λ* of one arm ÷ another, the mean over lifetimes, with its interval."""
        return self._mean(Contrast(arm, reference, SATURATION))

    @functools.cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        return lifetime_tables(self.manifest, self.trials)

    def _mean(self, contrast: Contrast) -> Interval:
        values = ratio_of(contrast, self._tables)
        known = values[~np.isnan(values)]
        if not np.isfinite(known).all():
            return Interval(np.nan, np.nan, np.nan, known.size, np.nan)
        return geometric_mean(np.exp(known))


def ratios_table(trials: pd.DataFrame, contrasts: Iterable[Contrast]) -> pd.DataFrame:
    """Return p95 ratios by arrival rate, one row per pair of arms that is compared and rate at which both were tried.

    ``ratio`` is the geometric mean over ``lifetimes`` in which both arms are VALID, with its 95 % interval (NaN below
    three); NaN where an arm did not keep up. ``share`` is the rate as a share of the smaller λ* of the two arms, NaN
    where it is not known.

    Args:
        trials: of :func:`infscale.analysis.tables.trials.trials_table`.
        contrasts: the named ones, of whatever metric.
    """
    labels = dict(zip(trials["arm"], trials["label"], strict=True))
    pairs = dict.fromkeys((one.arm, one.reference) for one in contrasts if {one.arm, one.reference} <= labels.keys())
    frame, fit = used(trials), comparable(trials, P95)
    values = fit.pivot(index=["rate_per_s", "lifetime"], columns="arm", values=P95)
    tried = {int(group["arm"].iloc[0]): set(group["rate_per_s"]) for _, group in frame.groupby("arm")}
    rows: list[Row] = []
    for arm, reference in pairs:
        for rate in sorted(tried.get(arm, set()) & tried.get(reference, set())):
            known = {arm, reference} <= set(values.columns) and rate in values.index.get_level_values(0)
            own = values.loc[rate] if known else pd.DataFrame({arm: [], reference: []}, dtype=float)
            mean = geometric_mean((own[arm] / own[reference]).dropna())
            rows.append(
                {"arm": arm, "reference": reference, "reference_label": labels[reference], "metric": P95}
                | {"rate_per_s": rate, "share": np.nan, "lifetimes": mean.lifetimes}
                | {"ratio": mean.value, "ratio_low": mean.low, "ratio_high": mean.high}
            )
    kinds = {"arm": int, "reference": int} | dict.fromkeys(
        ("rate_per_s", "share", "ratio", "ratio_low", "ratio_high"), float
    )
    return identified(pd.DataFrame(rows, columns=["arm", *RATIO_COLUMNS]).astype(kinds), trials)


def with_shares(ratios: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Return ``ratios`` with each rate as a share of the smaller λ* of its two arms.

    Args:
        ratios: of :func:`ratios_table`.
        arms: of :func:`infscale.analysis.tables.saturation.arms_table`.
    """
    known = arms.set_index("arm")["saturation_per_s"]
    smaller = np.minimum(ratios["arm"].map(known), ratios["reference"].map(known))
    return ratios.assign(share=ratios["rate_per_s"] / smaller)


SENSITIVITY_COLUMNS = (
    "rate_per_s",
    "reference",
    "reference_label",
    "trials",
    "lifetimes",
    "ratio",
    "ratio_low",
    "ratio_high",
    "differs",
)
"""The columns of :func:`sensitivity_table` beside those that identify the arm."""


def sensitivity_table(trials: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Return how much fixed defaults decide: each arm of the sensitivity check ÷ the compared arm that it varies.

    One row per arm of the check and rate, of p95, paired by lifetime where both are VALID. ``differs`` is true when the
    95 % interval excludes 1. Empty when the run made no such check.
    """
    usable = trials[(trials["verdict"] == VALID) & ~trials[f"{P95}_bound"].astype(bool) & np.isfinite(trials[P95])]
    own = used(usable)
    labels = dict(zip(trials["arm"], trials["label"], strict=True))
    rows: list[Row] = []
    checked = trials[trials["phase"] == "sensitivity"]
    for (arm, rate), group in checked.groupby(["arm", "rate_per_s"]):
        reference = design.varied(int(group["arm"].iloc[0]))
        tried = usable.loc[usable.index.intersection(group.index)].drop_duplicates("lifetime", keep="last")
        values = tried.set_index("lifetime")[P95]
        default = own[(own["arm"] == reference) & (own["rate_per_s"] == rate)].set_index("lifetime")[P95]
        mean = geometric_mean((values / default.reindex(values.index)).dropna())
        rows.append(
            {"arm": arm, "rate_per_s": rate, "reference": reference, "reference_label": labels.get(reference, "")}
            | {"trials": len(group), "lifetimes": mean.lifetimes, "ratio": mean.value}
            | {"ratio_low": mean.low, "ratio_high": mean.high, "differs": mean.low > 1 or mean.high < 1}
        )
    table = pd.DataFrame(rows, columns=["arm", *SENSITIVITY_COLUMNS]).astype({"arm": int})
    return identified(table, trials)
