"""Who gets the next lifetime: the group of arms whose contrasts it would decide soonest.

It may look at everything that was measured: looks at fixed numbers of lifetimes keep false claims within 5 % whatever
it chooses (:mod:`infscale.analysis.answers`).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from infscale.analysis.answers import ALPHA, UNDECIDED, Claim, answers, claim, looks, weight
from infscale.analysis.tables.contrasts import lifetime_values, values_at_looks
from infscale.analysis.tables.trials import trials_table
from infscale.experiment.design.design import MARGINS
from infscale.records.gate import Floats
from infscale.records.runs import Run


def allocate(run: Run, groups: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of the groups that have an undecided contrast, the one that decides most per second first.

    Args:
        run: as far as it was measured.
        groups: the numbers of the arms of each group.
    """
    manifest, trials = run.manifest, trials_table(run)
    there = set(trials["arm"])
    named = [one for one in manifest.design.contrasts if {one.arm, one.reference} <= there]
    values = lifetime_values(manifest, trials, named)
    places = [next(k for k, arms in enumerate(groups) if one.arm in arms) for one in named]
    seconds = [
        float(np.mean([one.seconds - one.extra_s for one in manifest.lifetimes if one.arms == list(arms)] or [1.0]))
        for arms in groups
    ]
    margins = [MARGINS[one.metric] for one in named]
    first = manifest.first_look or manifest.design.least
    seen = values_at_looks(manifest, trials, named, first)
    claims = [claim(logs, first, margin, own) for logs, margin, own in zip(values, margins, seen, strict=True)]
    return order(claims, values, margins, places, seconds, first)


def order(
    claims: Sequence[Claim],
    values: Sequence[Floats],
    margins: Sequence[float],
    places: Sequence[int],
    seconds: Sequence[float],
    first: int,
) -> list[int]:
    """Return the places of the groups that have an undecided contrast, in the order in which they should go on.

    A group's worth is how many of its undecided contrasts its next look would decide if estimates and spreads stayed
    as they are, divided by the time until then; where that is none, the inverse of the time alone, at a tenth.

    Args:
        claims: what can be claimed of each contrast so far.
        values: of each contrast, the logarithms of its ratio by lifetime; NaN where one says nothing.
        margins: of each contrast, the ratio within which arms count as equal.
        places: of each contrast, the group that it belongs to.
        seconds: of each group, the length of a lifetime.
        first: the number of lifetimes of the first look.
    """
    said = answers(claims)
    undecided = [k for k, answer in enumerate(said) if answer == UNDECIDED]
    worth: dict[int, float] = {}
    for place in dict.fromkeys(places[k] for k in undecided):
        own = [k for k in undecided if places[k] == place]
        gains = [_would_decide(values[k], margins[k], first, len(undecided)) for k in own]
        cost_s = max(1, min(_until_next(values[k], first) for k in own)) * seconds[place]
        worth[place] = (sum(gains) + 0.1) / cost_s
    return sorted(worth, key=lambda place: -worth[place])


def _next_look(values: Floats, first: int) -> tuple[int, int]:
    """Return the number of the next look at a contrast, and its number of lifetimes."""
    done = len(looks(first, values.size))
    return done, first * 2**done


def _until_next(values: Floats, first: int) -> int:
    return _next_look(values, first)[1] - values.size


def _would_decide(values: Floats, margin: float, first: int, family: int) -> bool:
    known = values[np.isfinite(values)]
    if known.size < 2:
        return False
    look, size = _next_look(values, first)
    critical = float(special.stdtrit(size - 1, 1 - ALPHA * weight(look) / family / 2))
    middle, half = abs(float(np.mean(known))), critical * float(np.std(known, ddof=1)) / math.sqrt(size)
    return middle > half or middle + half < math.log(margin)
