"""Before a run: what it compares, how long it takes, and which differences it could find."""

from pathlib import Path

import numpy as np
import pandas as pd

from infscale import machine
from infscale.errors import ConfigError, DataError
from infscale.estimates import achieved_power, replicates_needed
from infscale.grid import Grid, clock
from infscale.runs import find_run, load_run
from infscale.samples import read_json
from infscale.summary import ratios_table
from infscale.trial_table import trials_table
from infscale.validity import VALID

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
