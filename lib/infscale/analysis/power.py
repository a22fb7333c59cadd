"""Before a run: what it compares, how long it takes, and which differences it could find."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from infscale import machine
from infscale.analysis.intervals import CONFIDENCE, MIN_REPLICATES
from infscale.analysis.tables.summary import ratios_table
from infscale.analysis.tables.trials import trials_table
from infscale.errors import ConfigError, DataError
from infscale.experiment.design.grid import Grid
from infscale.records.gate import VALID
from infscale.records.manifest import read_json
from infscale.records.runs import find_run, load_run
from infscale.vocabulary import clock

POWER = 0.8


def plan(grid: Grid, run: str = "", effect: float = 1.1) -> str:
    """Arms, trials, time, contrasts and power as text, to be read before anything starts.

    Args:
        grid: what would be run.
        run: folder of an earlier run, whose spread between replicates is taken ("": the newest complete one).
        effect: the ratio of two protocols' p95 that should be told apart from 1.

    Raises:
        ConfigError: ``effect`` is not a positive number other than 1.
    """
    if not (0 < effect < np.inf) or effect == 1:
        raise ConfigError(f"effect={effect:g} is no difference; accepted: a ratio other than 1, such as 1.1 or 0.9")
    arms = [f"{framework} over {protocol}" for framework in grid.frameworks for protocol in grid.protocols]
    named = [f"{c['framework']}: {c['over']} ÷ {c['under']} of {c['metric']}" for c in grid.contrasts()]
    lines = [
        grid.time_plan(),
        f"Arms: {', '.join(arms)}; λ at {', '.join(f'{f:g}' for f in grid.fractions)} of the saturation rate.",
        f"Named before the run, paired by replicate, Holm over λ: {'; '.join(named) or 'nothing to compare'}.",
    ]
    return "\n".join([*lines, *power_lines(grid, run, effect)])


def power_lines(grid: Grid, run: str, effect: float) -> list[str]:
    """What ``grid.replicates`` replicates could find, by the spread of an earlier run's ratios."""
    if len(grid.protocols) < 2:
        return []
    try:
        folder = find_run(run)
        table = earlier_spread(folder)
    except DataError as error:
        return [f"Power: not known before a first run ({error})."]
    if table.empty:
        return [f"Power: not known, {folder.name} has no ratio of three pairs or more."]
    other = "" if _same_machine(folder) else ", measured on another machine"
    lines = [f"Power, by the spread between replicates in {folder.name}{other}:"]
    for name, found in table.items():
        needed, power = replicates_needed(effect, found, POWER), power_of(effect, found, grid.replicates)
        hours = grid.seconds() * needed / grid.replicates
        most = "more than 1,000" if needed >= 1000 else f"{needed}"
        lines.append(
            f"  {name}: ratios differ by {found:.0%} between replicates; {grid.replicates} replicates find a "
            f"difference of {abs(effect - 1):.0%} with probability {power:.0%}; {POWER:.0%} needs {most}, "
            f"about {clock(hours)} for the whole grid."
        )
    return lines


def earlier_spread(folder: Path) -> "pd.Series[float]":
    """The median spread of the p95 ratio's replicates below saturation, by framework; only of three pairs or more."""
    trials = trials_table(load_run(folder))
    ratios = ratios_table(trials[trials["verdict"] == VALID])
    known = ratios[ratios["replicates"] >= 3]
    return known.groupby("framework")["spread"].median()


def power_of(effect: float, spread: float, replicates: int) -> float:
    """Probability that ``replicates`` pairs tell ``effect`` apart from 1 at 5 %, ratios differing by ``spread``."""
    if replicates < 3:
        return 0.0
    sigma = np.log1p(spread)
    return achieved_power(abs(np.log(effect)) / sigma * np.sqrt(replicates), replicates) if sigma > 0 else 1.0


def _same_machine(folder: Path) -> bool:
    found = read_json(folder / "run.json").get("machine", {})
    return bool(found == machine.describe())


def replicates_needed(effect: float, spread: float, power: float = 0.8) -> int:
    """Fewest replicates at which a paired t test at 5 % finds a ratio of ``effect`` with probability ``power``.

    Args:
        effect: the ratio to be told apart from 1, e.g. 1.1.
        spread: of the pairs' ratios over replicates (:func:`spread`).
        power: in (0, 1).

    Source: the noncentral t distribution, as in J. Cohen, "Statistical power analysis" (1988), chapter 2.
    """
    sigma = np.log1p(spread)
    for n in range(MIN_REPLICATES, 1000):
        shift = abs(np.log(effect)) / sigma * np.sqrt(n) if sigma > 0 else np.inf
        if not np.isfinite(shift) or achieved_power(shift, n) >= power:
            return n
    return 1000


def achieved_power(shift: float, n: int) -> float:
    """Probability that a two-sided t test at 5 % of n values rejects, its statistic being shifted by ``shift``."""
    critical = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))
