"""What commands print with ``--json``: one JSON object, encoded from a typed record, and nothing else on that stream.

Keys carry their units (``_ms``, ``_s``, ``_per_s``, ``_bytes``). They are added to, and neither renamed nor removed,
while :data:`infscale.records.manifest.VERSION` stays. A number that is unknown or infinite is null: JSON holds neither.
The result of ``infscale load`` is in :mod:`infscale.cli.load_report`, that of what
draws is a :class:`infscale.report.results.FindingResult`. ``infscale schema`` prints the schemas.
"""

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    import pandas as pd


class Result(msgspec.Struct, kw_only=True):
    """Base of what a command prints, and of its parts."""


R = TypeVar("R", bound=Result)


def emit(result: msgspec.Struct) -> None:
    """Print a result as JSON on standard output, also where everything else that is printed goes to standard error."""
    ctx = click.get_current_context(silent=True)
    stream = sys.stdout if ctx is None else ctx.meta.get(STDOUT, sys.stdout)
    print(text(result), file=stream, flush=True)


def text(result: msgspec.Struct) -> str:
    """Return a result as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(result, enc_hook=_plain), indent=1).decode()


def _plain(value: Any) -> object:
    """Return a number of NumPy as one of Python."""
    return value.item()


STDOUT = "infscale.stdout"
"""The name under which a context of click keeps standard output; see :class:`infscale.cli.options.Command`."""


def rows(table: "pd.DataFrame", kind: type[R]) -> list[R]:
    """Return the rows of a table as records, NaN as None; columns that the record does not have are left out."""
    kept = table[[name for name in table.columns if name in kind.__struct_fields__]].astype(object)
    return msgspec.convert(kept.where(kept.notna(), None).to_dict("records"), list[kind])  # type: ignore[valid-type]


# ------------------------------------------------------------------------------------------------ stored runs


class ListedRun(Result):
    """A stored run at a glance; ``decided`` is "" until its contrasts were computed."""

    run: str
    finding: str
    began: str
    measured_min: float
    machine: str
    status: str
    trials: int
    decided: str
    folder: str


class Runs(Result):
    """``infscale runs``: stored runs, the newest first."""

    runs: list[ListedRun]


class OfArm(Result):
    """What identifies an arm: its number, names, and every factor; see :class:`infscale.experiment.design.arm.Arm`."""

    run_id: str
    arm: int
    block: int
    label: str
    system: str
    implementation: str
    protocol: str
    encoding: str
    connections: int
    batch: int
    gzip: bool
    client: str
    repeat: float | None
    zipf: float | None
    http: str
    pick: str
    reuse: bool
    messages: int | None
    message_bytes: int
    interval_ms: float
    framework: str
    model: str
    front: str
    store: str
    cache: bool
    replicas: int
    balancer: str
    slow_ms: float
    rate_mbit: float | None
    delay_ms: float
    linked: bool
    tls: bool
    options: str
    closed: bool


class ShownArm(OfArm):
    """An arm with its saturation rate λ* and the rate at the run's SLO, each with its 95 % interval over lifetimes.

    ``bound`` is "≥" or "<" where only a bound is known; ``steps`` the ratio of neighbouring rates of the search. The
    other counts are of trials, by verdict.
    """

    saturation_per_s: float | None
    low_per_s: float | None
    high_per_s: float | None
    bound: str
    saturation_lifetimes: int
    steps: float | None
    trials: int
    valid: int
    unsteady: int
    saturated: int
    invalid: int
    capacity_per_s: float | None = None
    capacity_low_per_s: float | None = None
    capacity_high_per_s: float | None = None
    capacity_bound: str | None = None
    capacity_lifetimes: int | None = None
    capacity_steps: float | None = None


class ShownContrast(OfArm):
    """A contrast that was named before the run: its arm ÷ its reference, with its answer.

    The ends of ``ratio`` are null where there is none. ``answer`` is differs, equal or undecided, after Holm's
    correction; ``needed`` lifetimes would decide a ratio of ``needed_ratio``.
    """

    reference: int
    reference_label: str
    metric: str
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    answer: str
    p_holm: float | None
    p_value: float | None
    lifetimes: int
    looked_at: int
    spread: float | None
    needed: float | None
    needed_ratio: float | None
    sessions: str


class ShownRun(Result):
    """``infscale show``: the arms of a run and its contrasts."""

    arms: list[ShownArm]
    contrasts: list[ShownContrast]


class ImportedTrial(Result):
    """A load of another tool; each percentile with its 95 % interval within the trial, null where there is none.

    ``left_out`` requests have no row: those that were in flight when the tool ended, and those scheduled after them.
    """

    trial_id: str
    label: str
    client: str
    lifetime: int
    rate_per_s: float
    requests: int
    left_out: int
    failed: int
    verdict: str
    verdict_text: str
    response_time_from: str
    response_p50_ms: float | None
    response_p50_low_ms: float | None
    response_p50_high_ms: float | None
    response_p95_ms: float | None
    response_p95_low_ms: float | None
    response_p95_high_ms: float | None
    response_p99_ms: float | None
    response_p99_low_ms: float | None
    response_p99_high_ms: float | None


class Unjudged(Result):
    """A gate that a tool's file does not let us judge, and why."""

    client: str
    gate: str
    why: str


class Imported(Result):
    """``infscale import``: what files of another tool show, the folder of the run, and what cannot be judged."""

    run: str
    trials: list[ImportedTrial]
    unjudged: list[Unjudged]
    contrasts: list[ShownContrast]


class MergedContrast(Result):
    """A contrast on one machine, or over all of them (``machine`` is "pooled"), with its plain 95 % interval."""

    contrast: str
    metric: str
    machine: str
    run_id: str
    ratio: float | None
    low: float | None
    high: float | None
    lifetimes: int | None
    why: str
    answer: str
    rates_per_s: str
    machines: int | None
    between: float | None
    between_low: float | None
    between_high: float | None
    next_low: float | None
    next_high: float | None


class MergedRuns(Result):
    """``infscale merge``: every contrast by machine, and pooled."""

    contrasts: list[MergedContrast]


class RowPercentile(Result):
    """A percentile of the response time; see :class:`infscale.analysis.merging.rows.Percentile`."""

    level: float
    value_ms: float | None
    bound: bool
    low_ms: float | None
    high_ms: float | None
    n_eff: float | None
    why: str


class TrialSummary(Result):
    """What the rows of one trial say; ``exact`` is false where some were known only by their counts."""

    trial_id: str
    requests: int
    timeouts: int
    failed: int
    exact: bool
    percentiles: list[RowPercentile]


class Summary(Result):
    """``infscale summary``: percentiles of every trial in some files."""

    trials: list[TrialSummary]


class Choice(Result):
    """Advice on one choice, such as the protocol; ``why`` has a line for each run that was heard."""

    choice: str
    advice: str
    evidence: str
    why: list[str]
    runs: list[str]


class Advice(Result):
    """``infscale advice``: what stored trials advise for a load."""

    question: str
    choices: list[Choice]


# ------------------------------------------------------------------------------------------------- plans


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


# -------------------------------------------------------------------------------------- services and machines


class Case(Result):
    """One contrast of a comparison: candidate ÷ reference with its 95 % interval, and what it may be.

    ``margin`` is "at most 1.05" or, of rates, "at least 0.83"; ``limit`` that number.
    """

    name: str
    metric: str
    judgement: str
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    margin: str
    limit: float
    sentence: str


class Comparison(Result):
    """``infscale compare``: whether the candidate is worse; ``judgement`` is not worse, worse or undecided."""

    judgement: str
    sentence: str
    cases: list[Case]
    details: list[str]


class Failure(Result):
    """Why requests failed: their status, what the server, the connection or the reply said, and how many."""

    status: str
    text: str
    requests: int


class CapacityTrial(Result):
    """A trial of the search for a rate at an SLO; ``late`` requests did not succeed within the limit."""

    rate_per_s: float
    planned: int
    requests: int
    late: int
    goodput_per_s: float
    kept: bool
    hopeless: bool
    long: bool


class Capacity(Result):
    """``infscale capacity``: the highest rate that keeps an SLO, with its 95 % interval.

    ``bound`` is "" where it was found, "≥" or "<" where only a bound is known, and ``why`` then says why.
    """

    url: str
    slo: str
    capacity_per_s: float | None
    low_per_s: float | None
    high_per_s: float | None
    error_probability: float | None
    bound: str
    why: str
    goodput_per_s: float | None
    goodput_at_per_s: float | None
    unloaded_ms: float
    seed: int
    timeout_s: float
    trials: list[CapacityTrial]
    reasons: list[Failure]


class CachingAudit(Result):
    """Whether one protocol's repeated requests are answered as fast as fresh ones.

    ``ratio`` is the p50 response time of fresh ÷ of repeated requests; hit ratios are null without a cache that counts.
    """

    server: str
    protocol: str
    rate_per_s: float
    seed: int
    passed: bool
    answer: str
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    rounds: int
    hit_ratio_fresh: float | None
    hit_ratio_repeated: float | None
    sentence: str


class AccuracyAudit(Result):
    """Whether one protocol's answers agree with the reference model's."""

    server: str
    protocol: str
    encoding: str
    passed: bool
    answers: int
    agreeing: int
    failed: int
    largest_difference: float | None
    limit: float
    sentence: str


class Audit(Result):
    """``infscale audit``: a judgement for each protocol; of ``caching`` and ``accuracy`` one is empty."""

    caching: list[CachingAudit] = []
    accuracy: list[AccuracyAudit] = []


class Check(Result):
    """Something that measuring needs: ``present`` is "" if it is not here; ``get`` says how to get it."""

    name: str
    present: str
    enables: str
    get: str
    needed: bool


class Doctor(Result):
    """``infscale doctor``: what this machine has; ``missing`` names what ``infscale paper`` cannot do without."""

    ready: bool
    missing: list[str]
    checks: list[Check]
