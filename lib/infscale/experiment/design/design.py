"""Designs: everything that is decided before a run, from its arms and contrasts to its sizes and its seed."""

import hashlib
import math
from collections.abc import Sequence

import msgspec

from infscale.errors import ConfigError, check_rate, one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.labels import labels

P95 = "response_p95_ms"
"""The metric of contrasts: the 95th percentile of the response time, in ms."""

LEAST_REQUESTS = 100
"""Fewest requests of a trial at a common rate: five beyond p95 on average. On a slow link, or with bodies of megabytes,
a short trial would hold a handful."""

SWEEP, SEARCH = "sweep", "search"
"""How rates are set. "sweep": all arms of a block at shares of the larger saturation rate, which gives curves.
"search": each arm's saturation rate by bisection, and all arms of a block at shares of the smallest one."""


class Contrast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A comparison that is named before the run.

    Attributes:
        arm, reference: places of the two arms in the design, from 0; the ratio is arm ÷ reference.
        metric: the column of the tables that is compared.
    """

    arm: int
    reference: int
    metric: str = P95


class Design(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run measures, and how much of it.

    Attributes:
        finding: the name of the question that the run answers.
        question: that question in words.
        arms: what is compared, shape (n,).
        contrasts: the comparisons named before the run.
        sensitivity: further arms, tried at one rate, that show how much fixed defaults decide; each belongs to the
            block of the arms with its framework. They follow ``arms`` in the numbering of arms.
        rates: :data:`SWEEP` or :data:`SEARCH`.
        beside: what else is measured once, beside trials ("staleness").
        profile: the name under which the sizes are known.
        replicates: repeats of every arm, on restarted servers in a new random order.
        trial_s: length of a trial's arrivals, s.
        fractions: rates as shares of a saturation rate.
        timeout_s: time limit of a request, from the scheduled time, s.
        seed: of arrivals, payload choice and order.
        fill_tail: let a trial last until it holds 1,000 requests at least, so that p99 is known.
        restart: start the server anew after a SATURATED trial; otherwise it drains until it is idle.
        bisections: trials that narrow an arm's bracket of λ* in each replicate.
        most_per_s: no rate above is tried, requests/s.

    Raises:
        ConfigError: a size is not what it must be, two arms are equal, or a contrast names an arm that is not there.
    """

    finding: str
    question: str = ""
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...] = ()
    sensitivity: tuple[Arm, ...] = ()
    rates: str = SEARCH
    beside: tuple[str, ...] = ()
    profile: str = "quick"
    replicates: int = 3
    trial_s: float = 4.0
    fractions: tuple[float, ...] = (0.4,)
    timeout_s: float = 1.0
    seed: int = 1
    fill_tail: bool = False
    restart: bool = False
    bisections: int = 0
    most_per_s: float = 30_000.0

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError("arms=[] makes an empty design; accepted: one arm or more")
        if len(set(self.arms)) < len(self.arms):
            raise ConfigError(f"arms {', '.join(labels(self.arms))}: two of them are equal")
        one_of("rates", self.rates, (SWEEP, SEARCH))
        for contrast in self.contrasts:
            if (
                not {contrast.arm, contrast.reference} <= set(range(len(self.arms)))
                or contrast.arm == contrast.reference
            ):
                raise ConfigError(f"contrasts: {contrast} does not name two of {len(self.arms)} arms")
        if not self.fractions:
            raise ConfigError("fractions=[] sets no rate; accepted: shares of the saturation rate, such as 0.5")
        for fraction in self.fractions:
            check_rate(fraction, "fractions")
        check_rate(self.trial_s, "trial_s")
        check_rate(self.timeout_s, "timeout_s")
        if isinstance(self.replicates, bool) or not isinstance(self.replicates, int) or self.replicates < 1:
            raise ConfigError(f"replicates={self.replicates!r} is not a number of repeats; accepted: 1 or more")

    def digest(self) -> str:
        """Return twelve hexadecimal digits that differ where any factor or size does."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    def every_arm(self) -> tuple[Arm, ...]:
        """Return all arms in their numbering: those compared, then those of the sensitivity check."""
        return self.arms + self.sensitivity

    def block(self, arm: int) -> int:
        """Return the number of the arm with which ``arm`` is compared; its own where others are compared with it.

        Arms of one block get the same arrivals, at common rates. An arm of the sensitivity check belongs to the block
        of the first arm with its deployment.
        """
        if arm >= len(self.arms):
            alike = (
                k
                for k, one in enumerate(self.arms)
                if one.deployment == self.sensitivity[arm - len(self.arms)].deployment
            )
            return self.block(next(alike))
        return next((c.reference for c in self.contrasts if c.arm == arm), arm)

    def blocks(self) -> list[list[int]]:
        """Return the numbers of the arms of each block, in the order of the arms."""
        groups: dict[int, list[int]] = {}
        for arm in range(len(self.arms)):
            groups.setdefault(self.block(arm), []).append(arm)
        return list(groups.values())

    def deployments(self, arms: Sequence[int] | None = None) -> list[list[int]]:
        """Return the numbers of arms (default: all compared ones), grouped by what must run for them."""
        groups: dict[object, list[int]] = {}
        for arm in range(len(self.arms)) if arms is None else arms:
            groups.setdefault(self.every_arm()[arm].deployment, []).append(arm)
        return list(groups.values())

    def duration_s(self, rate_per_s: float) -> float:
        """Return the seconds of arrivals of a trial at one rate, long enough for the requests that it must hold."""
        least = 1000 if self.fill_tail else LEAST_REQUESTS if self.rates == SEARCH else 0
        return max(self.trial_s, least / rate_per_s)

    def trials(self) -> int:
        """Return how many trials are judged together: those at set rates, and in a search those that bisect."""
        bisections = self.bisections if self.rates == SEARCH else 0
        return len(self.arms) * self.replicates * (len(self.fractions) + bisections)

    def extra_trials(self) -> int:
        """Return the number of trials of the sensitivity check."""
        return len(self.sensitivity) * self.replicates

    def expected_trials(self) -> int:
        """Return roughly how many trials the run will store, pilot and sensitivity check included, repeats apart."""
        if self.rates == SEARCH:
            return self.trials() + 6 * len(self.arms)
        narrowing = self.bisections * len(self.arms) * self.replicates
        return self.trials() + 8 * len(self.arms) + self.extra_trials() + narrowing

    def protocols(self) -> tuple[str, ...]:
        """Return the protocols of the arms, each once."""
        return tuple(dict.fromkeys(arm.protocol for arm in self.arms))

    def frameworks(self) -> tuple[str, ...]:
        """Return the frameworks of the arms, each once."""
        return tuple(dict.fromkeys(arm.framework for arm in self.arms))

    def saturated_trials(self) -> int:
        """Return roughly how many trials of a sweep saturate, and so drain into timeouts: a third."""
        return math.ceil(self.trials() / 3)


def compared(*blocks: Sequence[Arm]) -> tuple[tuple[Arm, ...], tuple[Contrast, ...]]:
    """Return the arms of all blocks, and contrasts of each arm with the first of its block.

    The two fit :class:`Design`'s ``arms`` and ``contrasts``.
    """
    arms = tuple(arm for block in blocks for arm in block)
    contrasts: list[Contrast] = []
    start = 0
    for block in blocks:
        contrasts += [Contrast(start + k, start) for k in range(1, len(block))]
        start += len(block)
    return arms, tuple(contrasts)
