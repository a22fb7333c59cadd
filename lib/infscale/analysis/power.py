"""Before a run: what it compares, how long it takes, and which differences it could find."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from infscale import machine
from infscale.analysis.answers import ALPHA, LEAST, needed, weight
from infscale.analysis.intervals import MIN_LIFETIMES
from infscale.analysis.tables.contrasts import contrasts_table
from infscale.analysis.tables.trials import trials_table
from infscale.errors import ConfigError, DataError
from infscale.experiment.design import time_plan
from infscale.experiment.design.design import AT_MODERATE_LOAD, MARGINS, METRIC_NAMES, Design
from infscale.experiment.design.labels import count, labels
from infscale.records.runs import Run, find_run, load_run
from infscale.vocabulary import clock, number

POWER = 0.8
"""The probability of finding a difference for which lifetimes are counted."""


def plan(design: Design, run: str = "", effect: float = 1.2) -> str:
    """Return arms, contrasts, time and power as text, to be read before anything starts.

    Args:
        design: what would be measured.
        run: folder of an earlier run, whose spread between lifetimes is taken; "" takes the newest complete one of
            the same finding.
        effect: the smallest ratio of a contrast that should be detected, such as 1.2 for 20 %.

    Raises:
        ConfigError: ``effect`` is not a positive number other than 1.
    """
    check_effect(effect)
    names = labels(design.every_arm())
    pairs = "; ".join(dict.fromkeys(f"{names[c.arm]} ÷ {names[c.reference]}" for c in design.contrasts))
    metrics = " and ".join(dict.fromkeys(_named(c.metric) for c in design.contrasts))
    many = count(len(design.contrasts), "contrast")
    named = f"{many}, with one value in each lifetime, corrected (Holm) over all: {metrics} of {pairs}"
    lines = [
        time_plan.time_plan(design),
        f"Arms: {'; '.join(names[: len(design.arms)])}.",
        f"Named before the run: {named if pairs else 'nothing to compare'}.",
    ]
    return "\n".join([*lines, *power_lines(design, run, effect)])


def check_effect(effect: float) -> None:
    """Find out whether a ratio is a difference.

    Raises:
        ConfigError: it is not a positive number other than 1.
    """
    if not (0 < effect < np.inf) or effect == 1:
        raise ConfigError(f"effect={effect:g} is no difference; accepted: a ratio other than 1, such as 1.1 or 0.9")


@dataclass(frozen=True)
class Power:
    """What planned lifetimes could detect of one metric, by how much lifetimes differed in an earlier run.

    Attributes:
        metric: of the contrasts.
        spread: standard deviation of the logarithms of their ratios between lifetimes.
        lifetimes: that the budget buys.
        ratio: the smallest ratio above 1 that they detect with a probability of :data:`POWER`; ∞ of too few.
        effect, power: a ratio, and the probability of detecting it.
        needed, needed_s: the lifetimes, at most 1,000, and the time, s, that detect it with that of :data:`POWER`.
    """

    metric: str
    spread: float
    lifetimes: int
    ratio: float
    effect: float
    power: float
    needed: int
    needed_s: float


def powers(design: Design, run: str, effect: float) -> tuple[list[Power], str]:
    """Return what the budget could detect of each metric, and what that rests on, or why it is not known.

    The arguments are those of :func:`plan`.
    """
    try:
        earlier = load_run(find_run(run, finding=design.finding))
        spreads = earlier_spread(earlier)
    except DataError as error:
        return [], f"Power: not known before a first run ({error})."
    if spreads.empty:
        return [], f"Power: not known, {earlier.folder.name} has no contrast with {MIN_LIFETIMES} lifetimes or more."
    other = "" if earlier.manifest.machine == machine.describe() else ", measured on another machine"
    lifetimes, family = time_plan.lifetimes(design), len(design.contrasts)
    found = []
    for metric, spread in spreads.items():
        most = needed(float(spread), effect, family, look=0)
        found.append(
            Power(
                str(metric),
                float(spread),
                lifetimes,
                detectable(float(spread), lifetimes, family),
                effect,
                power_of(effect, float(spread), lifetimes, family),
                most,
                time_plan.fixed_s(design) + most * time_plan.round_s(design),
            )
        )
    return found, f"Power, by the spread between lifetimes in {earlier.folder.name}{other}:"


def power_lines(design: Design, run: str, effect: float) -> list[str]:
    """Return which difference the budget could detect, judging by how much lifetimes differed in an earlier run."""
    if not design.contrasts:
        return []
    found, head = powers(design, run, effect)
    return [head, *map(_power_line, found)]


def _power_line(one: Power) -> str:
    many = "more than 1,000" if one.needed >= 1000 else f"{one.needed}"
    percent = [f"{100 * share:.0f} %" for share in (one.spread, abs(one.effect - 1), one.power, POWER)]
    ratios = (
        f"ratios of {number(one.ratio)} and more, or of {number(1 / one.ratio)} and less"
        if one.ratio < 100
        else "no ratio"
    )
    return (
        f"  {_named(one.metric)}: ratios differ by {percent[0]} between lifetimes. "
        f"{count(one.lifetimes, 'lifetime')} decide {ratios} with probability {percent[3]}, even if all others "
        f"are 1; a difference of {percent[1]} with probability {percent[2]}; that one needs {many} lifetimes for "
        f"{percent[3]}, about {clock(one.needed_s)}."
    )


def _named(metric: str) -> str:
    """Return how a metric is called, with the load at which it is taken."""
    return f"{METRIC_NAMES[metric]}{' at moderate load' if metric in AT_MODERATE_LOAD else ''}"


def earlier_spread(run: Run) -> "pd.Series[float]":
    """Return the spread of a run's contrasts between lifetimes by metric: root mean square of their deviations.

    Only of contrasts with three lifetimes or more. A median of deviations from few lifetimes would be too small.
    """
    table = contrasts_table(run.manifest, trials_table(run))
    known = table[(table["lifetimes"] >= MIN_LIFETIMES) & np.isfinite(table["spread"])]
    metrics = [metric for metric in MARGINS if (known["metric"] == metric).any()]
    values = [float(np.sqrt((known.loc[known["metric"] == metric, "spread"] ** 2).mean())) for metric in metrics]
    return pd.Series(np.array(values, dtype=np.float64), index=metrics)


def detectable(spread: float, lifetimes: int, family: int = 1) -> float:
    """Return the smallest ratio above 1 that the first look finds with a probability of :data:`POWER`.

    ∞ of too few lifetimes for a look. The arguments are those of :func:`power_of`.
    """
    from scipy import optimize  # costs a tenth of a second

    if lifetimes < LEAST:
        return float("inf")
    if spread <= 0:
        return 1.0

    def lacking(log: float) -> float:
        return power_of(float(np.exp(log)), spread, lifetimes, family) - POWER

    most = spread
    while lacking(most) < 0:
        most *= 1.5
    return float(np.exp(optimize.brentq(lacking, 0.0, most)))


def power_of(effect: float, spread: float, lifetimes: int, family: int = 1) -> float:
    """Return the probability that the first look, at so many lifetimes, tells ``effect`` apart from 1.

    Args:
        effect: the true ratio.
        spread: standard deviation of the logarithms between lifetimes.
        lifetimes: at the first look.
        family: number of contrasts that share the error; the first step of Holm's procedure is reckoned with.

    Source: the noncentral t distribution, as in J. Cohen, "Statistical power analysis" (1988), chapter 2.
    """
    if lifetimes < LEAST:
        return 0.0
    if spread <= 0:
        return 1.0
    alpha = ALPHA * weight(0) / family
    critical = float(special.stdtrit(lifetimes - 1, 1 - alpha / 2))
    shift = abs(np.log(effect)) / spread * np.sqrt(lifetimes)
    beyond = (special.nctdtr(lifetimes - 1, shift, critical), special.nctdtr(lifetimes - 1, shift, -critical))
    below, opposite = (0.0 if np.isnan(share) else float(share) for share in beyond)  # NaN where it is next to nothing
    return 1 - below + opposite
