"""Designs: everything that is decided before a run, from its arms and contrasts to its budget and its seed."""

import hashlib
import secrets
from collections.abc import Sequence

import msgspec

from infscale.display import Shown, Summary
from infscale.errors import ConfigError, check_duration, check_rate, one_of
from infscale.experiment.design.arm import STREAM_FACTORS, Arm
from infscale.experiment.design.labels import labels
from infscale.experiment.design.slo import SCOUT_LATE, Slo, parse
from infscale.experiment.design.types import check_types
from infscale.vocabulary import clock

P95 = "response_p95_ms"
"""Metric of a contrast: the 95th percentile of the response time at moderate load, ms."""

SATURATION = "saturation_per_s"
"""Metric of a contrast: the saturation rate λ*, requests/s."""

CAPACITY = "capacity_per_s"
"""Metric of a contrast: the rate at the design's SLO, requests/s."""

FIRST = "first_message_p95_ms"
"""Metric of a contrast of streams: the 95th percentile of the time from the schedule to the first message, at moderate
load, ms."""

GAP = "gap_p99_ms"
"""Metric of a contrast of streams: the 99th percentile of the gaps between messages at moderate load, ms."""

PER_CORE = "messages_per_core_s"
"""Metric of a contrast of streams: messages that came for a second of CPU of the deployment, at moderate load."""

PER_MESSAGE = "client_cpu_us_per_message"
"""Metric of a contrast of streams: the client's CPU for a message at moderate load, µs."""

STREAMED = FIRST, GAP, PER_CORE, PER_MESSAGE
"""The metrics by which streams are compared: their response time is mostly the time that their messages are apart."""

METRIC_NAMES = {
    P95: "p95 response time",
    SATURATION: "saturation rate λ*",
    CAPACITY: "rate at the SLO",
    FIRST: "p95 time to the first message",
    GAP: "p99 gap between messages",
    PER_CORE: "rate of messages per core of the deployment",
    PER_MESSAGE: "client CPU a message",
}
"""How metrics of contrasts are called."""

AT_MODERATE_LOAD = P95, *STREAMED
"""Metrics that are taken at moderate load."""

MARGINS = {P95: 1.10, SATURATION: 1.15, CAPACITY: 1.15, FIRST: 1.10, GAP: 1.10, PER_CORE: 1.15, PER_MESSAGE: 1.15}
"""The metrics of contrasts, each with the ratio within which two arms count as equal."""

TIMES = P95, FIRST, GAP
"""Metrics that are times: of an arm that does not keep up they have no end."""

MORE_IS_BETTER = SATURATION, CAPACITY, PER_CORE
"""Metrics of which a larger value is a better one; of the others a smaller one is."""

USUAL = P95, SATURATION
"""The metrics by which arms are compared where nothing else is said: the third needs an SLO."""

TOOLS = "load-tools"
"""The finding that compares load tools: the only one in which a closed loop is compared with an open one."""

SHARES = (0.2, 0.4)
"""Moderate load: shares of the smallest saturation rate of a block, as the first lifetime found it."""

REQUESTS_MIN = 60
"""Fewest requests by which a trial is judged. Of trials with fewer at 1.5 times what a server with one worker can do,
more than one in twenty would be VALID (docs/gates-simulated.md)."""

FEWEST = 90
"""Fewest requests that a trial is planned for: a Poisson count of that mean is below the minimum once in 3,000."""

SEARCH_REQUESTS = 500
"""Fewest requests of a trial in the search for λ*: growth over a trial needs that many to be seen."""

BESIDE = ("staleness", "tools")
"""What can be measured once, beside the trials: how many answers of a cache are stale after the model was swapped; and
what each of the design's clients says of a server that stalls once, and sends at most, on the null server."""


class Contrast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A comparison that is named before the run.

    Attributes:
        arm, reference: places of the two arms in the design, from 0; the ratio is arm ÷ reference.
        metric: a key of :data:`MARGINS`.
    """

    arm: int
    reference: int
    metric: str = P95


class Design(msgspec.Struct, Shown, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run measures, and how much of it.

    The servers of a group of arms are started, loaded and ended many times; each time is a *lifetime*. In a lifetime
    every arm has one trial at each rate, in turn with the others, then λ* of all arms is searched.

    Attributes:
        finding: the name of the question that the run answers.
        question: that question in words.
        arms: what is compared, shape (n,).
        contrasts: the comparisons named before the run.
        sensitivity: further arms that show how much fixed defaults decide; each belongs to the block of the arms with
            its deployment. They follow ``arms`` in the numbering of arms.
        beside: what else is measured once, beside the trials, see :data:`BESIDE`.
        anchor: whether every session begins with the arm that all runs share
            (:mod:`infscale.experiment.beside.anchor`).
        profile: the name under which the sizes are known.
        budget_s: time for measuring, s.
        least: fewest lifetimes of each group of arms, whatever the budget; also the fewest of a first look.
        most: most lifetimes of each group; 0 for no limit but the budget.
        trial_s, requests: a trial's arrivals last ``trial_s`` seconds, and longer where they would be fewer than
            ``requests``.
        curve: how many rates between moderate load and saturation are tried in the first two lifetimes.
        timeout_s: time limit of a request, from the scheduled time, s.
        seed: of arrivals, payload choice and order.
        most_per_s: no rate above is tried, requests/s.
        slo: a percentile of the response time and its limit, such as "p99<50ms"; the rate at which it is kept is then
            searched in every lifetime, beside λ*. None for no such search.

    Raises:
        ConfigError: a size is not what it must be, two arms are equal, or a contrast names an arm that is not there.
    """

    finding: str
    question: str = ""
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...] = ()
    sensitivity: tuple[Arm, ...] = ()
    beside: tuple[str, ...] = ()
    anchor: bool = False
    profile: str = "quick"
    budget_s: float = 600.0
    least: int = 4
    most: int = 0
    trial_s: float = 1.0
    requests: int = 250
    curve: int = 0
    timeout_s: float = 1.0
    seed: int = msgspec.field(default_factory=lambda: secrets.randbits(48))
    most_per_s: float = 30_000.0
    slo: str | None = None

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
        for name in self.beside:
            one_of("beside", name, BESIDE)
        self._check_slo()
        self._check_streams()
        self._check_contrasts()
        self._check_sensitivity()
        self._check_sizes()

    def _check_slo(self) -> None:
        if (slo := self.objective) and slo.limit_ms >= 1e3 * self.timeout_s:
            raise ConfigError(f"slo={self.slo!r}: the limit is not below timeout_s={self.timeout_s:g}; accepted: less")
        if not slo and any(one.metric == CAPACITY for one in self.contrasts):
            raise ConfigError(f"contrasts: metric={CAPACITY!r} needs the design's slo, such as slo='p99<50ms'")

    def _check_streams(self) -> None:
        """Refuse streams that none could receive in time, even at no load."""
        for arm in self.every_arm():
            if arm.stream_s >= self.timeout_s:
                raise ConfigError(
                    f"timeout_s={self.timeout_s:g} is too short for {arm.messages} messages {arm.interval_ms:g} ms "
                    f"apart, which take {arm.stream_s:g} s; accepted: more"
                )

    @property
    def objective(self) -> Slo | None:
        """Return what :attr:`slo` says; None without one."""
        return None if self.slo is None else parse(self.slo)

    def _check_contrasts(self) -> None:
        references: dict[int, int] = {}
        if len(set(self.contrasts)) < len(self.contrasts):
            raise ConfigError("contrasts: one of them is named twice, and would share the error with itself")
        for contrast in self.contrasts:
            one_of("contrasts: metric", contrast.metric, tuple(MARGINS))
            pair = {contrast.arm, contrast.reference}
            if len(pair) < 2 or not pair <= set(range(len(self.arms))):
                raise ConfigError(f"contrasts: {contrast} does not name two of {len(self.arms)} arms")
            self._check_loops(contrast)
            self._check_kinds(contrast)
            if references.setdefault(contrast.arm, contrast.reference) != contrast.reference:
                raise ConfigError(f"contrasts: arm {contrast.arm} has two references; accepted: one, of its block")
        if both := references.keys() & set(references.values()):
            raise ConfigError(
                f"contrasts: arm {min(both)} is compared with a reference, and is one itself; accepted: "
                "one reference for all arms of a block, which get the same arrivals"
            )

    def _check_loops(self, contrast: Contrast) -> None:
        """Refuse what a closed loop cannot be compared in: it sends less where the server is slower."""
        arm, reference = (self.arms[k] for k in (contrast.arm, contrast.reference))
        if arm.closed != reference.closed and self.finding != TOOLS:
            raise ConfigError(
                f"contrasts: {' and '.join(labels([arm, reference]))} are a closed and an open loop, whose times do "
                f"not compare; accepted: both of one kind (only the finding {TOOLS} compares the kinds)"
            )
        if contrast.metric != P95 and (arm.closed or reference.closed):
            closed = arm if arm.closed else reference
            raise ConfigError(
                f"contrasts: {contrast.metric} of a closed loop (client={closed.client!r}): "
                "it cannot be asked for more than it answers, so that it has no saturation rate λ*; "
                f"accepted: {', '.join(metrics_of(arm, reference))}"
            )

    def _check_kinds(self, contrast: Contrast) -> None:
        """Refuse to compare streams with single replies, and single replies in the times of messages."""
        pair = [self.arms[k] for k in (contrast.arm, contrast.reference)]
        if pair[0].streams != pair[1].streams:
            raise ConfigError(
                f"contrasts: {' and '.join(labels(pair))} are a stream and a single reply; accepted: both of one kind"
            )
        if contrast.metric in STREAMED and not pair[0].streams:
            raise ConfigError(f"contrasts: {contrast.metric} is of streams; accepted: {', '.join(metrics_of(*pair))}")

    def _check_sensitivity(self) -> None:
        deployments = {arm.deployment for arm in self.arms}
        for arm in self.sensitivity:
            if arm.deployment not in deployments:
                raise ConfigError(f"sensitivity: no arm of the design has the deployment of {labels([arm])[0]}: {arm}")
            if arm.closed:
                raise ConfigError(f"sensitivity: client={arm.client!r} is a closed loop; accepted: open loops")

    def _check_sizes(self) -> None:
        for name in ("trial_s", "timeout_s", "budget_s"):
            check_duration(getattr(self, name), name)
        check_rate(self.most_per_s, "most_per_s")
        for name in ("least", "requests"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is too few; accepted: 1 or more")
        for name in ("curve", "seed", "most"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is negative; accepted: 0 or more")

    def digest(self) -> str:
        """Return twelve hexadecimal digits that differ where any factor or size does, except the seed.

        An interrupted run is continued by the same question and sizes, with the seed that it has stored. Fields with
        their default do not count, so that a new one leaves the digests of earlier designs as they are; nor do the
        factors of streams of arms that have none.
        """
        defaults = {field.name: field.default for field in msgspec.structs.fields(self)}
        chosen = {name: value for name, value in msgspec.structs.asdict(self).items() if value != defaults[name]}
        chosen.pop("seed", None)
        for name in {"arms", "sensitivity"} & chosen.keys():
            chosen[name] = [_chosen_levels(arm) for arm in getattr(self, name)]
        return hashlib.sha256(msgspec.json.encode(chosen)).hexdigest()[:12]

    def summary(self) -> Summary:
        """Return the question, the arms and the named contrasts, in a table."""
        names = labels(self.every_arm())
        contrasts = (f"{names[one.arm]} ÷ {names[one.reference]}: {one.metric}" for one in self.contrasts)
        return Summary(
            self.question or self.finding,
            (
                ("profile", f"{self.profile}, {clock(self.budget_s)} of measuring, {self.least} lifetimes at least"),
                *((f"arm {number}", name) for number, name in enumerate(names)),
                *((f"contrast {number}", text) for number, text in enumerate(contrasts, 1)),
            ),
        )

    def every_arm(self) -> tuple[Arm, ...]:
        """Return all arms in their numbering: those compared, then those of the sensitivity check."""
        return self.arms + self.sensitivity

    def block(self, arm: int) -> int:
        """Return the block's identifier, which is the number of its reference arm.

        Arms of one block get the same arrivals at the same rates. An arm without a contrast is a block of its own; an
        arm of the sensitivity check belongs to the block of the arm that it varies.
        """
        if arm >= len(self.arms):
            return self.block(self.varied(arm))
        return next((c.reference for c in self.contrasts if c.arm == arm), arm)

    def varied(self, arm: int) -> int:
        """Return the number of the arm that an arm of the sensitivity check varies.

        It is the first one with the same deployment, protocol and batch, else the first with the same deployment.
        """
        checked = self.every_arm()[arm]
        alike = [k for k, one in enumerate(self.arms) if one.deployment == checked.deployment]
        key = checked.protocol, checked.batch
        return next((k for k in alike if (self.arms[k].protocol, self.arms[k].batch) == key), alike[0])

    def blocks(self) -> list[list[int]]:
        """Return the numbers of the compared arms of each block, in the order of the arms."""
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

    def groups(self) -> list[list[int]]:
        """Return the numbers of the compared arms that are measured in one lifetime, for each group of them.

        Arms of one block belong together, and so do blocks that share a running server.
        """
        groups: list[list[int]] = []
        for arms in [*self.blocks(), *self.deployments()]:
            joined = [group for group in groups if set(group) & set(arms)]
            groups = [group for group in groups if group not in joined]
            groups.append(sorted(set(arms).union(*joined)))
        return sorted(groups)

    def checked_with(self, arms: Sequence[int]) -> list[int]:
        """Return the numbers of the arms of the sensitivity check that belong to one of ``arms``."""
        every = range(len(self.arms), len(self.every_arm()))
        return [arm for arm in every if self.varied(arm) in arms]

    def duration_s(self, rate_per_s: float, *, search: bool = False) -> float:
        """Return the seconds of arrivals of a trial at one rate, long enough for the requests that it must hold."""
        least = max(self.requests, min(SEARCH_REQUESTS, 3 * self.requests)) if search else self.requests
        return max(self.trial_s, max(least, FEWEST) / rate_per_s)

    def slo_duration_s(self, rate_per_s: float) -> float:
        """Return the seconds of arrivals of a trial in the search for the rate at the SLO.

        It holds the requests of one in the search for λ*, and so many that the limit allows ten late ones.
        """
        least = SCOUT_LATE / self.objective.late if self.objective else 0.0
        return max(self.duration_s(rate_per_s, search=True), least / rate_per_s)

    def protocols(self) -> tuple[str, ...]:
        """Return the protocols of the arms, each once."""
        return tuple(dict.fromkeys(arm.protocol for arm in self.arms))

    def frameworks(self) -> tuple[str, ...]:
        """Return the frameworks of the arms, each once."""
        return tuple(dict.fromkeys(arm.framework for arm in self.arms))


def _chosen_levels(arm: Arm) -> dict[str, object]:
    """Return an arm's factors by name; of an arm without streams those of streams are left out."""
    return {
        name: level for name, level in msgspec.structs.asdict(arm).items() if arm.streams or name not in STREAM_FACTORS
    }


def metrics_of(arm: Arm, reference: Arm, *, slo: bool = False) -> tuple[str, ...]:
    """Return the metrics by which two arms are compared; the rate at the SLO where the design has one.

    A closed loop has no saturation rate and no rate at an SLO. Streams are compared by their messages; their saturation
    rates are described.
    """
    if arm.closed or reference.closed:
        return (P95,)
    usual = STREAMED if arm.streams and reference.streams else USUAL
    return (*usual, CAPACITY) if slo else usual


def against_first(*blocks: Sequence[Arm]) -> tuple[tuple[Arm, ...], tuple[Contrast, ...]]:
    """Return the arms of all blocks, and contrasts of p95 and of λ* of each arm with the first of its block.

    Those of a closed loop are of p95 alone, those of streams of :data:`STREAMED`.

    The two fit :class:`Design`'s ``arms`` and ``contrasts``.
    """
    arms = tuple(arm for block in blocks for arm in block)
    pairs: list[tuple[int, int]] = []
    start = 0
    for block in blocks:
        pairs += [(start + k, start) for k in range(1, len(block))]
        start += len(block)
    return arms, tuple(
        Contrast(arm, reference, metric)
        for metric in (*USUAL, *STREAMED)
        for arm, reference in pairs
        if metric in metrics_of(arms[arm], arms[reference])
    )
