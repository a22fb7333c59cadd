"""guidellm's report (``--output kind=json``): the requests of each of its benchmarks, with the times of their lives.

Its schedules (constant, poisson) say when each request was to start, so that they are an open loop with a response time
from the schedule; its users (synchronous, concurrent, throughput) send when an answer has come. Times of messages are
not in the report but the first and the last, so that a stream is one reply here, whose first byte is its first token.

Requests that were in flight when guidellm ended have no outcome. One that had waited for longer than any that was
answered is kept as timed out. Of the others nothing is known, and to leave out them alone would leave out the slow
ones: all requests are left out that were scheduled after the first of them.

Source: the report's schema, guidellm.benchmark.schemas.report (version 2, of guidellm 0.8.1).
"""

import datetime as dt
import math
import re
from collections import Counter
from pathlib import Path

import msgspec

from infscale.errors import DataError
from infscale.records.imported.source import TEXT_MOST, Load, length_s, limit_s, opened, rows_of
from infscale.records.manifest import Reason, Reported
from infscale.records.samples import NEVER, TIMES

VERSION = 2
"""The version of reports that is read."""

SCHEDULES = ("constant", "poisson")
USERS = ("synchronous", "concurrent", "throughput")
"""Strategies with a schedule, and those of users who wait for answers."""

TIMEOUT_S = 3600.0
"""A time that no request is believed to be waited for, s: guidellm has no limit of its own."""

EARLIEST_S = 1e6
"""Times before are none of a clock, s since 1970."""

LATEST_S = 4e9
"""Latest time that is believed, s since 1970."""


class Timings(msgspec.Struct):
    """Times of a request, s since 1970."""

    targeted_start: float | None = None
    resolve_start: float | None = None
    request_start: float | None = None
    first_token_iteration: float | None = None
    request_end: float | None = None
    resolve_end: float | None = None


class Info(msgspec.Struct):
    """What is known of a request."""

    timings: Timings
    error: str | None = None


class Request(msgspec.Struct):
    """A request."""

    info: Info


class Requests(msgspec.Struct):
    """The requests of a benchmark by their end."""

    successful: list[Request] = []
    incomplete: list[Request] = []
    errored: list[Request] = []


class Counts(msgspec.Struct):
    """How many requests there were."""

    successful: int = 0
    incomplete: int = 0
    errored: int = 0


class Distribution(msgspec.Struct):
    """A distribution of times, s, or rates."""

    mean: float | None = None
    percentiles: dict[str, float | None] | None = None


class ByEnd(msgspec.Struct):
    """Distributions by the end of requests."""

    successful: Distribution | None = None


class Metrics(msgspec.Struct):
    """What guidellm itself says."""

    request_totals: Counts
    request_latency: ByEnd | None = None
    requests_per_second: ByEnd | None = None


class Strategy(msgspec.Struct):
    """How a benchmark sends."""

    type_: str
    rate: float | None = None
    streams: int | None = None


class Config(msgspec.Struct):
    """How a benchmark was set."""

    strategy: Strategy


class Benchmark(msgspec.Struct):
    """A benchmark: one load."""

    config: Config
    metrics: Metrics
    requests: Requests


class Metadata(msgspec.Struct):
    """The report's version, and guidellm's."""

    version: int = 0
    guidellm_version: str = ""


class Head(msgspec.Struct):
    """What says whether the rest can be read."""

    metadata: Metadata | None = None


class Report(msgspec.Struct):
    """A report."""

    metadata: Metadata
    benchmarks: list[Benchmark]


def read(path: Path) -> list[Load]:
    """Return the loads of a report, one for each benchmark.

    Raises:
        DataError: it cannot be read, is no report of a version that is known, or lacks requests.
    """
    with opened(path) as file:
        return of_text(file.read(), str(path))


def of_text(text: bytes, source: str) -> list[Load]:
    """Return the loads of a report.

    Args:
        text: the report, JSON.
        source: the file, for messages.

    Raises:
        DataError: as :func:`read`.
    """
    try:
        head = msgspec.json.decode(text, type=Head).metadata
        if head is None or head.version != VERSION:
            found = "has no version" if head is None else f"is a report of version {head.version}"
            raise DataError(f"{source} {found}; accepted: guidellm's JSON report of version {VERSION} (guidellm 0.8)")
        report = msgspec.json.decode(text, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{source} is no report of guidellm in JSON: {error}") from error
    if not report.benchmarks:
        raise DataError(f"{source} holds no benchmark")
    tool = f"guidellm {report.metadata.guidellm_version[:20]}".rstrip()
    return [_load(one, tool, f"{source}, benchmark {k}") for k, one in enumerate(report.benchmarks, 1)]


def _load(one: Benchmark, tool: str, source: str) -> Load:
    strategy = one.config.strategy
    if strategy.type_ not in (*SCHEDULES, *USERS):
        raise DataError(
            f"{source}: its strategy is {strategy.type_[:40]!r}; accepted: {', '.join((*SCHEDULES, *USERS))}"
        )
    open_loop = strategy.type_ in SCHEDULES
    if open_loop and not (strategy.rate is not None and 0 < strategy.rate < 1e9):
        raise DataError(f"{source}: its rate is {strategy.rate}; accepted: requests/s above 0")
    _check_whole(one, source)
    ended, cut = _ended(one.requests, open_loop, source), _cut(one.requests, open_loop, source)
    longest = max((times[-1] - times[0] for times, status, _ in ended if status == "ok"), default=0)
    slow = [(times, "timeout", "") for times in cut if times[-1] - times[0] > longest]
    until = min((times[0] for times in cut if times[-1] - times[0] <= longest), default=None)
    kept = [row for row in [*ended, *slow] if until is None or row[0][0] < until]
    columns = {name: [times[k] for times, _, _ in kept] for k, name in enumerate(TIMES)}
    rows, began = rows_of(columns, [status for _, status, _ in kept], source)
    reasons = Counter((status, why) for _, status, why in kept if why)
    return Load(
        client="guidellm" if open_loop else "guidellm-users",
        connections=0 if open_loop else _users(strategy, source),
        rate_per_s=strategy.rate if open_loop else None,
        rows=rows,
        duration_s=length_s(rows) if until is None else max(1e-6, (until - began) / 1e9),
        timeout_s=limit_s(rows, TIMEOUT_S),
        started_at=dt.datetime.fromtimestamp(began / 1e9, dt.UTC).isoformat(timespec="seconds"),
        reported=_reported(one.metrics, tool, left_out=len(ended) + len(cut) - len(kept)),
        reasons=[Reason(status, why, count) for (status, why), count in reasons.most_common()],
    )


Row = tuple[list[int], str, str]
"""A request: the times of :data:`infscale.records.samples.TIMES`, ns since 1970, its status, and why it failed."""


def _ended(requests: Requests, open_loop: bool, source: str) -> list[Row]:
    """Return the requests that guidellm saw to their end; of one that failed before it was sent nothing is known."""
    rows: list[Row] = []
    for request in requests.successful:
        times = _times(request.info.timings, open_loop, source)
        if times is None:
            raise DataError(f"{source}: a successful request lacks the times of its start and end")
        rows.append((times, "ok", ""))
    for request in requests.errored:
        times = _times(request.info.timings, open_loop, source)
        if times is not None:
            times[3] = NEVER  # what came before an error is no sign of how soon an answer begins
            rows.append((times, *_fault(request.info.error or "")))
    return rows


def _cut(requests: Requests, open_loop: bool, source: str) -> list[list[int]]:
    """Return the times of requests that were in flight when guidellm ended; those that were never due are none."""
    every = (_times(request.info.timings, open_loop, source) for request in requests.incomplete)
    return [times for times in every if times is not None and times[-1] >= times[0]]


def _times(timings: Timings, open_loop: bool, source: str) -> list[int] | None:
    """Return the times of a request, ns since 1970; None where its start or its end is not known."""
    due = timings.request_start if timings.resolve_start is None else timings.resolve_start
    sent = due if timings.request_start is None else timings.request_start
    done = timings.resolve_end if timings.request_end is None else timings.request_end
    scheduled = timings.targeted_start if open_loop else due
    if scheduled is None or due is None or sent is None or done is None:
        return None
    if open_loop and scheduled < EARLIEST_S:
        raise DataError(
            f"{source}: a request was scheduled {scheduled:.3g} s after 1970: guidellm 0.8 loses the start of a "
            "poisson schedule where its processes start slowly, and sends the first requests at once; accepted: a run "
            "in which all have a schedule, so repeat it"
        )
    known = [scheduled, due, sent, timings.first_token_iteration, done]
    if any(at is not None and not 0 < at < LATEST_S for at in known):
        raise DataError(f"{source}: a request's time is not between 1970 and 2096")
    return [NEVER if at is None else round(at * 1e9) for at in known]


def _fault(error: str) -> tuple[str, str]:
    """Return the status of a failed request by its error's text, and the text."""
    why, text = " ".join(error.split())[:TEXT_MOST], error.lower()
    if "timeout" in text or "timed out" in text:
        return "timeout", why
    if code := re.search(r"(?:error '|status(?: code)?[ :=]*)([45][0-9]{2})\b", text):
        return f"http_{code[1]}", why
    return "refused" if "refused" in text or "connecterror" in text else "bad_response", why


def _users(strategy: Strategy, source: str) -> int:
    users = 1 if strategy.type_ == "synchronous" else strategy.streams or 0
    if not 0 <= users <= 1_000_000:
        raise DataError(f"{source}: {users} users at a time; accepted: 1 to 1,000,000")
    return users


def _check_whole(one: Benchmark, source: str) -> None:
    """Raise DataError where the report has a sample of the requests: who follows whom, and how many, is lost."""
    for name in ("successful", "errored", "incomplete"):
        there, were = len(getattr(one.requests, name)), getattr(one.metrics.request_totals, name)
        if there < were:
            raise DataError(
                f"{source} has {there:,} of {were:,} {name} requests; accepted: all of them "
                "(guidellm without sample_size)"
            )


def _reported(metrics: Metrics, tool: str, left_out: int) -> Reported:
    latency, rate = (by and by.successful for by in (metrics.request_latency, metrics.requests_per_second))
    p50, p95, p99 = (_ms((latency.percentiles or {}).get(name)) if latency else None for name in ("p50", "p95", "p99"))
    throughput = rate.mean if rate and rate.mean is not None and math.isfinite(rate.mean) else None
    requests = metrics.request_totals.successful + metrics.request_totals.errored
    return Reported(
        tool=tool,
        requests=requests,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        throughput_per_s=throughput,
        left_out=left_out,
    )


def _ms(seconds: float | None) -> float | None:
    return 1e3 * seconds if seconds is not None and math.isfinite(1e3 * seconds) else None
