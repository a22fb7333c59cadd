"""What commands print of stored runs, of rows, and of the files of other tools."""

from infscale.cli.printed.base import Result


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


class Beside(Result):
    """What two runs say of a contrast or an arm, in words, and second ÷ first (:mod:`infscale.report.beside`)."""

    what: str
    first: str
    second: str
    ratio: str


class TwoRuns(Result):
    """``infscale show`` with two runs."""

    rows: list[Beside]


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
