"""Two stored runs of one design on one machine: the second is the candidate, the first its reference.

They share no lifetimes: each contrast is one between two independent samples, by Welch's t on the logarithms. What
changed on the machine between the runs is in the ratio, and not in the interval.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from infscale.analysis.answers import ALPHA, LEAST, SAME, UNDECIDED
from infscale.analysis.candidate.judgement import NOT_WORSE, endless, judge, worsening
from infscale.analysis.tables.contrasts import lifetime_tables, values_at_moderate_load
from infscale.analysis.tables.trials import trials_table
from infscale.errors import DataError
from infscale.experiment.design.design import FIRST, GAP, P95, SATURATION, TIMES
from infscale.records.gate import Floats
from infscale.records.manifest import RunManifest
from infscale.records.runs import Run

ALIKE = ("arms", "trial_s", "requests", "timeout_s", "most_per_s")
"""Fields of a design on which what is compared depends; two runs may differ in their budgets."""


def check_comparable(reference: Run, candidate: Run) -> None:
    """Find out whether two runs can be compared.

    Raises:
        DataError: they cannot; the message says in what they differ.
    """
    first, second = reference.manifest, candidate.manifest
    if first.run_id == second.run_id:
        raise DataError(
            f"{reference.folder} and {candidate.folder} are the same run: a run cannot be its own candidate"
        )
    for run in (reference, candidate):
        if run.manifest.status != "complete":
            raise DataError(f"{run.folder} is not complete: measure it to its end before it is compared")
    differing = [
        f"the machine's {name} ({getattr(first.machine, name)} and {getattr(second.machine, name)})"
        for name in first.machine.__struct_fields__
        if getattr(first.machine, name) != getattr(second.machine, name)
    ]
    differing += differing_designs(first, second)
    if not differing and (missing := sorted(set(reference.measured) ^ set(candidate.measured))):
        differing.append(f"what was measured ({', '.join(reference.labels[arm] for arm in missing)} in one of them)")
    if differing:
        raise DataError(f"{reference.id} and {candidate.id} cannot be compared; they differ in {'; '.join(differing)}")


def differing_designs(first: RunManifest, second: RunManifest) -> list[str]:
    """Return in what two runs' designs differ, as far as their values depend on it, and whether their code does."""
    differing = [
        "the design's arms" if name == "arms" else f"the design's {name} ({one} and {other})"
        for name in ALIKE
        if (one := getattr(first.design, name)) != (other := getattr(second.design, name))
    ]
    return [*differing, "the code that measures"] if first.code_digest != second.code_digest else differing


@dataclass(frozen=True)
class Between:
    """What two runs say of one arm and one metric.

    Attributes:
        arm, label, metric: what is compared.
        ratio, low, high: candidate ÷ reference with its 95 % interval; NaN where there is none.
        lifetimes: with a value, of the reference and of the candidate.
        judgement: worse, not worse or undecided.
        rate_per_s: the arrival rate at which a time is compared; NaN for λ*.
        why: why there is no interval; "" where there is one.
    """

    arm: int
    label: str
    metric: str
    ratio: float
    low: float
    high: float
    lifetimes: tuple[int, int]
    judgement: str
    rate_per_s: float = math.nan
    why: str = ""


def compared(reference: Run, candidate: Run, edges: dict[str, float]) -> list[Between]:
    """Return what the candidate's run says of each arm and metric, against the reference's.

    "Worse" is corrected (Bonferroni) for the number of contrasts.

    Args:
        reference, candidate: two runs that :func:`check_comparable` accepts.
        edges: the margin of each metric, as a ratio above 1.

    Raises:
        DataError: they cannot be compared.
    """
    check_comparable(reference, candidate)
    tables = [trials_table(run) for run in (reference, candidate)]
    manifests = reference.manifest, candidate.manifest
    saturation = [lifetime_tables(*both)[SATURATION] for both in zip(manifests, tables, strict=True)]
    arms = reference.manifest.design.arms
    times = {arm: (P95, FIRST, GAP) if arms[arm].streams else (P95,) for arm in reference.measured}
    family = sum(1 + len(metrics) for metrics in times.values())
    every = dict.fromkeys(metric for metrics in times.values() for metric in metrics)
    moderate = {
        metric: [values_at_moderate_load(*both, metric) for both in zip(manifests, tables, strict=True)]
        for metric in every
    }
    found = []
    for arm, metrics in times.items():
        for metric in metrics:
            rate, logs = _at_common_rate(*(rows[rows["arm"] == arm] for rows in moderate[metric]))
            found.append(_between(reference, arm, metric, logs, edges[metric], family, rate))
        sides = [table.get(arm, pd.Series(dtype=np.float64)).to_numpy(dtype=np.float64) for table in saturation]
        found.append(_between(reference, arm, SATURATION, sides, edges[SATURATION], family))
    return found


def _at_common_rate(*sides: pd.DataFrame) -> tuple[float, list[Floats]]:
    """Return an arrival rate that lies within the moderate rates of both runs, and each lifetime's log p95 at it.

    The moderate rates of a run are shares of the λ* that its own first lifetime found. A candidate that is slower has
    lower ones, so that p95 at the same share would hide a part of it. Between its two rates a lifetime's log p95 is
    taken as linear in log λ. NaN, and nothing, where the rates of the runs do not overlap.
    """
    rates = [np.sort(rows["rate_per_s"].unique()) for rows in sides]
    if not all(own.size for own in rates):
        return math.nan, [np.array([]), np.array([])]
    low, high = max(own[0] for own in rates), min(own[-1] for own in rates)
    if low > high:
        return math.nan, [np.array([]), np.array([])]
    rate = math.sqrt(low * high)
    return rate, [_interpolated(rows, own, rate) for rows, own in zip(sides, rates, strict=True)]


def _interpolated(rows: pd.DataFrame, rates: Floats, rate: float) -> Floats:
    table = rows.pivot_table(index="lifetime", columns="rate_per_s", values="value", aggfunc="mean").dropna()
    if table.shape[1] < rates.size:
        return np.array([])
    below, above = table[rates[0]].to_numpy(), table[rates[-1]].to_numpy()
    share = math.log(rate / rates[0]) / math.log(rates[-1] / rates[0]) if rates[-1] > rates[0] else 0.0
    endless_ = np.isinf(below) | np.isinf(above)
    with np.errstate(invalid="ignore"):  # 0 × ∞, which is replaced
        values: Floats = np.where(endless_, np.inf, (1 - share) * below + share * above)
    return values


def _between(
    reference: Run, arm: int, metric: str, sides: list[Floats], margin: float, family: int, rate: float = math.nan
) -> Between:
    first, second = (side[~np.isnan(side)] for side in sides)
    counts, label = (first.size, second.size), reference.labels[arm]
    if why := _no_interval(metric, first, second, rate):
        said = NOT_WORSE if metric == SATURATION and endless(second) else UNDECIDED
        return Between(arm, label, metric, math.nan, math.nan, math.nan, counts, said, rate, why)
    return Between(
        arm, label, metric, *welch(first, second, ALPHA), counts, said_of(metric, first, second, margin, family), rate
    )


def said_of(metric: str, first: Floats, second: Floats, margin: float, family: int) -> str:
    """Return what two samples of finite logarithms say of the candidate, whose values are ``second``.

    Args:
        metric: what they are of.
        first, second: as of :func:`welch`.
        margin: a ratio above 1.
        family: how many contrasts share the error of calling a candidate worse.
    """
    _, low, high = welch(first, second, ALPHA)
    _, *wide = welch(first, second, 2 * ALPHA / family)
    return judge(metric, margin, low, high, least=worsening(metric, wide[0], wide[1])[0])


def _no_interval(metric: str, first: Floats, second: Floats, rate: float) -> str:
    """Return why two samples have no interval; "" where they have one."""
    if metric in TIMES and math.isnan(rate):
        return "the moderate rates of the two runs do not overlap"
    if min(first.size, second.size) < LEAST:
        return f"only {min(first.size, second.size)} lifetimes of one run have a value; an interval needs {LEAST}"
    if not np.isfinite([*first, *second]).all():
        return (
            "in a lifetime an arm did not keep up, or did not answer in time"
            if metric in TIMES
            else "in a lifetime an arm kept up with every rate, or with none"
        )
    return "all values of each run are the same" if np.ptp(first) < SAME and np.ptp(second) < SAME else ""


def welch(first: Floats, second: Floats, alpha: float) -> tuple[float, float, float]:
    """Return the ratio of the geometric means of two samples, second ÷ first, and its interval at level 1 − ``alpha``.

    Args:
        first, second: logarithms, finite, each of shape (n,) with n ≥ 2; not both constant.
        alpha: the error.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34 (1947).
    """
    parts = [float(np.var(side, ddof=1)) / side.size for side in (first, second)]
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(
        part**2 / (side.size - 1) for part, side in zip(parts, (first, second), strict=True)
    )
    half = float(special.stdtrit(freedom, 1 - alpha / 2)) * error
    middle = float(np.mean(second) - np.mean(first))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)
