"""Designs: everything that is decided before a run, from its arms and contrasts to its sizes and its seed."""

import hashlib
import math
from collections.abc import Sequence

import msgspec

from infscale.errors import ConfigError, check_duration, check_rate, check_share, one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.labels import labels
from infscale.experiment.design.types import check_types

P95 = "response_p95_ms"
"""The metric of contrasts: the 95th percentile of the response time, in ms."""

LEAST_REQUESTS = 100
"""Fewest requests of a trial at a common rate: five beyond p95 on average. On a slow link, or with bodies of megabytes,
a short trial would hold a handful."""

SWEEP, SEARCH = "sweep", "search"
"""How rates are set. "sweep": all arms of a block at shares of the largest saturation rate in the block, which gives
curves. "search": each arm's saturation rate by bisection, and all arms of a block at shares of the smallest one in the
block."""

BESIDE = ("staleness",)
"""What can be measured once, beside the trials: how many answers of a cache are stale after the model was swapped."""


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
        beside: what else is measured once, beside the trials, see :data:`BESIDE`.
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
        check_types(self)
        if not self.arms:
            raise ConfigError("arms=[] makes an empty design; accepted: one arm or more")
        if len(set(self.every_arm())) < len(self.every_arm()):
            raise ConfigError(f"arms {', '.join(labels(self.every_arm()))}: two of them are equal")
        for name in ("finding", "profile"):
            value = getattr(self, name)
            if not value or value.startswith(".") or not value.isprintable() or "/" in value:
                raise ConfigError(f"{name}={value!r} is not a name for files; accepted: a name without '/'")
        one_of("rates", self.rates, (SWEEP, SEARCH))
        for name in self.beside:
            one_of("beside", name, BESIDE)
        self._check_contrasts()
        self._check_sensitivity()
        self._check_sizes()

    def _check_contrasts(self) -> None:
        references: dict[int, int] = {}
        for contrast in self.contrasts:
            pair = {contrast.arm, contrast.reference}
            if len(pair) < 2 or not pair <= set(range(len(self.arms))):
                raise ConfigError(f"contrasts: {contrast} does not name two of {len(self.arms)} arms")
            if references.setdefault(contrast.arm, contrast.reference) != contrast.reference:
                raise ConfigError(f"contrasts: arm {contrast.arm} has two references; accepted: one, of its block")
        if both := references.keys() & set(references.values()):
            raise ConfigError(
                f"contrasts: arm {min(both)} is compared with a reference, and is one itself; accepted: "
                "one reference for all arms of a block, which get the same arrivals"
            )

    def _check_sensitivity(self) -> None:
        deployments = {arm.deployment for arm in self.arms}
        for arm in self.sensitivity:
            if arm.deployment not in deployments:
                raise ConfigError(f"sensitivity: no arm of the design has the deployment of {labels([arm])[0]}: {arm}")

    def _check_sizes(self) -> None:
        if not self.fractions:
            raise ConfigError("fractions=[] sets no rate; accepted: shares of the saturation rate, such as 0.5")
        for fraction in self.fractions:
            check_share(fraction, "fractions")
        for name in ("trial_s", "timeout_s"):
            check_duration(getattr(self, name), name)
        check_rate(self.most_per_s, "most_per_s")
        if self.replicates < 1:
            raise ConfigError(f"replicates={self.replicates} is not a number of repeats; accepted: 1 or more")
        if self.bisections < 0:
            raise ConfigError(f"bisections={self.bisections} is not a number of trials; accepted: 0 or more")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} is not a seed; accepted: 0 or more")

    def digest(self) -> str:
        """Return twelve hexadecimal digits that differ where any factor or size does."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    def every_arm(self) -> tuple[Arm, ...]:
        """Return all arms in their numbering: those compared, then those of the sensitivity check."""
        return self.arms + self.sensitivity

    def block(self, arm: int) -> int:
        """Return the block's id, which is the number of its reference arm.

        Arms of one block get the same arrivals, at common rates. An arm of the sensitivity check belongs to the block
        of the first arm with its deployment.
        """
        if arm >= len(self.arms):
            deployment = self.every_arm()[arm].deployment
            return self.block(next(k for k, one in enumerate(self.arms) if one.deployment == deployment))
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


def against_first(*blocks: Sequence[Arm]) -> tuple[tuple[Arm, ...], tuple[Contrast, ...]]:
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
