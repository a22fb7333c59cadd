"""How long a run takes, roughly, and how many lifetimes its budget buys: printed before anything starts."""

import math
from collections.abc import Sequence

from infscale.errors import ConfigError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import SHARES, Design
from infscale.experiment.design.labels import count
from infscale.vocabulary import DEVICE, DEVICE_S, OTHER, clock

# Seconds beside the arrivals themselves, measured on two cores; they only feed the plan: the generator's ceiling by
# protocol, the anchor, the start of a server, the warm-up of an arm, the pause after a trial, the pilot of an arm; and
# the trials of a search for λ* or for the rate at an SLO; the loads of a client on servers whose behaviour is known.
_CEILING_S, _ANCHOR_S, _WARM_S, _BETWEEN_S, _PILOT_S, _SEARCH_TRIALS = 2.0, 8.0, 1.2, 0.3, 6.0, 3
_START_S = {OTHER: 0.0, "tfserving": 5.0, "torchserve": 11.0, "triton": 4.0}
_ADDED_START_S = 5.0  # of a framework that a user has added
_TOOL_S = 9.0

MOST_AT_FIRST = 40
"""Most lifetimes before the first look: a long run looks early, so that later lifetimes go where they decide most."""


def lifetime_s(design: Design, arms: Sequence[int]) -> float:
    """Return the rough duration of one lifetime of a group of arms, s."""
    ours = [design.arms[alike[0]] for alike in design.deployments(arms)]
    starts = sum(arm.replicas * _START_S.get(arm.framework, _ADDED_START_S) for arm in ours)
    return starts + sum(_WARM_S + _trials_s(design, design.arms[arm]) for arm in arms)


def _trials_s(design: Design, arm: Arm) -> float:
    """Return the rough duration of an arm's trials in one lifetime, s: moderate load, and the searches."""
    most = _most_per_s(arm)
    loads = [design.duration_s(share * most) for share in SHARES]
    loads += [design.duration_s(most, search=True)] * _SEARCH_TRIALS * (2 if design.slo else 1)
    return sum(loads) + len(loads) * _BETWEEN_S


def _most_per_s(arm: Arm) -> float:
    """Return what an arm can take at most, requests/s, where its model says so: slow arms need long trials."""
    return arm.replicas / DEVICE_S if arm.model == DEVICE else math.inf


def first_s(design: Design, arms: Sequence[int]) -> float:
    """Return how much longer the first lifetime of a group of arms is than later ones, s: the pilot and the curve."""
    curve = 2 * design.curve * len(arms) * (design.trial_s + _BETWEEN_S)
    return _PILOT_S * len(arms) + curve


def fixed_s(design: Design) -> float:
    """Return the rough time that the first lifetimes take beyond the later ones, the ceilings and the anchor, s."""
    once = _CEILING_S * len(design.protocols()) + _ANCHOR_S * design.anchor
    if "tools" in design.beside:
        once += _TOOL_S * len({arm.sending for arm in design.arms})
    return once + sum(first_s(design, arms) for arms in design.groups())


def round_s(design: Design) -> float:
    """Return the rough duration of one lifetime of each group, s."""
    return sum(lifetime_s(design, arms) for arms in design.groups())


def least_s(design: Design) -> float:
    """Return the rough duration of a run with the least number of lifetimes, s."""
    return fixed_s(design) + design.least * round_s(design)


def lifetimes(design: Design) -> int:
    """Return how many lifetimes of each group the budget buys, by the plan: the nearest number, as the run takes it."""
    bought = max(design.least, round((design.budget_s - fixed_s(design)) / round_s(design)))
    return min(bought, design.most or bought)


def first_look(lifetimes: int, least: int) -> int:
    """Return the number of lifetimes of the first look, R₁, if the budget buys ``lifetimes`` of them."""
    return min(max(least, lifetimes), max(least, MOST_AT_FIRST))


def check_budget(design: Design) -> None:
    """Find out whether the budget is enough for the least lifetimes.

    Raises:
        ConfigError: it is not; the message names the least budget.
    """
    if design.budget_s < least_s(design):
        raise ConfigError(
            f"budget_s={design.budget_s:g} is too little: {count(design.least, 'lifetime')} of each of "
            f"{count(len(design.groups()), 'group')} of arms take about {clock(least_s(design))}; "
            f"accepted: {math.ceil(least_s(design))} s or more"
        )


def time_plan(design: Design) -> str:
    """Return the plan as text: what takes how long."""
    lines = [f"Time plan, profile {design.profile}, budget {clock(design.budget_s)}:"]
    lines.append(f"  {clock(fixed_s(design)):>10}  the generator's ceiling, a rough search for every λ*, the curve")
    many = lifetimes(design)
    for arms in design.groups():
        seconds = lifetime_s(design, arms)
        what = f"{count(many, 'lifetime')} of {clock(seconds)}: {count(len(arms), 'arm')} on "
        what += count(len(design.deployments(arms)), "deployment")
        lines.append(f"  {clock(many * seconds):>10}  {what}")
    total = fixed_s(design) + many * round_s(design)
    look = first_look(many, design.least)
    return "\n".join(
        [
            *lines,
            f"  {clock(total):>10}  in all, roughly; the first look at the contrasts is at {count(look, 'lifetime')}",
        ]
    )
