"""Before a run: what it compares, how long it takes, and which differences it could find."""

import numpy as np
import pandas as pd
from scipy import stats

from infscale import machine
from infscale.analysis.intervals import CONFIDENCE, MIN_REPLICATES
from infscale.analysis.tables.ratios import contrasts_table
from infscale.analysis.tables.trials import trials_table
from infscale.errors import ConfigError, DataError
from infscale.experiment.design import time_plan
from infscale.experiment.design.design import SWEEP, Design
from infscale.experiment.design.labels import labels
from infscale.records.gate import VALID
from infscale.records.runs import Run, find_run, load_run
from infscale.vocabulary import clock

POWER = 0.8
"""The probability of finding a difference for which the replicates are reckoned."""


def plan(design: Design, run: str = "", effect: float = 1.1) -> str:
    """Return arms, contrasts, time and power as text, to be read before anything starts.

    Args:
        design: what would be measured.
        run: folder of an earlier run, whose spread between replicates is taken; "" takes the newest complete one of
            the same finding.
        effect: the smallest ratio of a contrast that should be detected, such as 1.1 for 10 %.

    Raises:
        ConfigError: ``effect`` is not a positive number other than 1.
    """
    if not (0 < effect < np.inf) or effect == 1:
        raise ConfigError(f"effect={effect:g} is no difference; accepted: a ratio other than 1, such as 1.1 or 0.9")
    names = labels(design.every_arm())
    contrasts = [f"{names[c.arm]} ÷ {names[c.reference]} of {c.metric}" for c in design.contrasts]
    family = "all comparisons at all rates" if design.rates == SWEEP else "all comparisons"
    named = "; ".join(contrasts) or "nothing to compare"
    lines = [
        time_plan.time_plan(design),
        f"Arms: {'; '.join(names[: len(design.arms)])}; λ at {', '.join(f'{f:g}' for f in design.fractions)} of the "
        "saturation rate.",
        f"Named before the run, paired by replicate, corrected (Holm) over {family}: {named}.",
    ]
    return "\n".join([*lines, *power_lines(design, run, effect)])


def power_lines(design: Design, run: str, effect: float) -> list[str]:
    """Return which difference ``design.replicates`` replicates could detect, judging by an earlier run."""
    if not design.contrasts:
        return []
    try:
        earlier = load_run(find_run(run, finding=design.finding))
        spreads = earlier_spread(earlier)
    except DataError as error:
        return [f"Power: not known before a first run ({error})."]
    if spreads.empty:
        return [f"Power: not known, {earlier.folder.name} has no comparison with {MIN_REPLICATES} replicates or more."]
    other = "" if earlier.manifest.machine == machine.describe() else ", measured on another machine"
    lines = [f"Power, by the spread between replicates in {earlier.folder.name}{other}:"]
    for name, between in spreads.items():
        needed, power = replicates_needed(effect, between, POWER), power_of(effect, between, design.replicates)
        duration_s = time_plan.seconds(design) * needed / design.replicates
        many = "more than 1,000" if needed >= 1000 else f"{needed}"
        percent = [f"{100 * share:.0f} %" for share in (between, abs(effect - 1), power, POWER)]
        lines.append(
            f"  {name}: ratios differ by {percent[0]} between replicates; {design.replicates} replicates find a "
            f"difference of {percent[1]} with a probability of {percent[2]}; a probability of {percent[3]} needs "
            f"{many} replicates, about {clock(duration_s)} for the whole run."
        )
    return lines


def earlier_spread(run: Run) -> "pd.Series[float]":
    """Return the median spread of the replicates' ratios below saturation, by contrast, in words.

    Only of ratios with three pairs or more; the spread is :func:`infscale.analysis.intervals.spread`.
    """
    trials = trials_table(run)
    ratios = contrasts_table(trials[trials["verdict"] == VALID], run.manifest.design.contrasts)
    known = ratios[ratios["replicates"] >= MIN_REPLICATES]
    names = known["label"] + " ÷ " + known["reference_label"]
    return known.groupby(names, sort=False)["spread"].median()


def power_of(effect: float, spread: float, replicates: int) -> float:
    """Return the probability that ``replicates`` pairs tell ``effect`` apart from 1 at 5 %, by the ratios' spread."""
    if replicates < MIN_REPLICATES:
        return 0.0
    sigma = np.log1p(spread)
    return achieved_power(abs(np.log(effect)) / sigma * np.sqrt(replicates), replicates) if sigma > 0 else 1.0


def replicates_needed(effect: float, spread: float, power: float = 0.8) -> int:
    """Return the fewest replicates at which a paired t test at 5 % finds a ratio with some probability.

    Args:
        effect: the ratio to be told apart from 1, e.g. 1.1.
        spread: of the pairs' ratios over replicates (:func:`infscale.analysis.intervals.spread`).
        power: the probability, in (0, 1).

    Source: the noncentral t distribution, as in J. Cohen, "Statistical power analysis" (1988), chapter 2.
    """
    sigma = np.log1p(spread)
    for n in range(MIN_REPLICATES, 1000):
        shift = abs(np.log(effect)) / sigma * np.sqrt(n) if sigma > 0 else np.inf
        if not np.isfinite(shift) or achieved_power(shift, n) >= power:
            return n
    return 1000


def achieved_power(shift: float, n: int) -> float:
    """Return the probability that a two-sided t test at 5 % of n values rejects.

    ``shift`` is by how much a true difference shifts the test's statistic (its noncentrality).
    """
    critical = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))
