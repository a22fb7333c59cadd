"""What commands print of services, servers and this machine."""

from infscale.cli.printed.base import Result


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

    caching: list[CachingAudit]
    accuracy: list[AccuracyAudit]


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
