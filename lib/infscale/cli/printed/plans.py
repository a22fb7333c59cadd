"""What plans print."""

import msgspec

from infscale.cli.printed.base import Result


class PlannedGroup(Result):
    """Arms whose servers live together: how often, and how long each time."""

    arms: list[str]
    deployments: int
    lifetimes: int
    lifetime_s: float


class PlannedContrast(Result):
    """A contrast that is named before the run."""

    arm: str
    reference: str
    metric: str


class PlannedPower(Result):
    """What the planned lifetimes could detect of one metric, by the spread of an earlier run.

    ``ratio`` is the smallest ratio that is detected with a probability of 80 %; ``power`` the probability of detecting
    ``effect``, and ``needed`` the lifetimes, ``needed_s`` the time for 80 % of that.
    """

    metric: str
    spread: float
    lifetimes: int
    ratio: float | None
    effect: float
    power: float
    needed: int
    needed_s: float


class Plan(Result):
    """``infscale plan``: what a run would measure, how long it takes and what it could detect.

    ``fixed_s`` is the time before the first lifetime, ``total_s`` all of it, roughly. ``power`` is empty where no
    earlier run says how much lifetimes differ; ``power_from`` then says why, else of which run it is.
    """

    profile: str
    budget_s: float
    fixed_s: float
    total_s: float
    lifetimes: int
    first_look: int
    groups: list[PlannedGroup]
    arms: list[str]
    contrasts: list[PlannedContrast]
    power: list[PlannedPower]
    power_from: str


class ServiceTimes(Result):
    """The service times that a plan of capacity draws from."""

    source: str
    requests: int
    lifetimes: int
    held_mean_ms: float
    beside_ms: float
    workers: int
    server_cpu_ms: float | None
    note: str


Simulated = tuple[float | None, float | None, float | None] | None
"""A simulated percentile with the ends of its 95 % interval, ms; null where service times are too few for it."""


class PlannedReplicas(Result):
    """The replicas that keep an SLO behind one balancer; ``replicas`` is null where the interval holds the limit."""

    balancer: str
    decided: bool
    replicas: int | None
    replicas_fewest: int
    replicas_most: int
    rate_per_replica_per_s: float
    utilisation: float
    hit_share: float
    cores: float | None
    cost_per_million: float | None
    p50_ms: Simulated
    p90_ms: Simulated
    p95_ms: Simulated
    p99_ms: Simulated
    p99_9_ms: Simulated = msgspec.field(name="p99.9_ms")


class PlannedCapacity(Result):
    """``infscale plan capacity``: the replicas that a rate and an SLO need, by simulation."""

    run: str
    service: ServiceTimes
    rate_per_s: float
    slo: str
    simulated: bool
    plans: list[PlannedReplicas]
