"""``infscale capacity``: the highest arrival rate at which an endpoint keeps a limit of its response time."""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from infscale.cli.load import ARRIVALS, OUTPUT, checked, request_options
from infscale.cli.options import Argument, Command, Number, Whole, option
from infscale.errors import ConfigError, DeploymentError
from infscale.vocabulary import number

if TYPE_CHECKING:
    import pandas as pd

    from infscale.cli import printed
    from infscale.experiment.capacity import Found, Trial
    from infscale.experiment.design.slo import Slo
    from infscale.experiment.live.view import View
    from infscale.load.single import Load, Outcome
    from infscale.records.manifest import Reason

FOUND, GENERATOR_FAILED, NO_BRACKET = 0, 3, 4
"""Exit codes; for 1 and 2 see :func:`infscale.cli.main`."""

PROBES = 20
"""Requests to the idle endpoint, one after another, that say what its response time is without load."""

FIRST_LOAD = 0.5
"""The first rate, as a share of one request in the response time of the idle endpoint."""

ATTEMPTS = 3
"""Most attempts at a trial in which the generator or the host fails."""

DRAINS = 20
"""Most single requests, each of which may take the timeout, until the endpoint has finished what a trial left."""

NOTES = """\
A request is late where it has not succeeded by its scheduled time plus the limit; failures and timeouts are late. The \
interval holds the rate of a server in steady state with a probability of 95 % or more: in simulations of queues whose \
answer is known (docs/capacity-simulated.md). Near its limit a server's queue may take longer to build up than a trial \
lasts; the interval is wider then, and a larger --duration makes it narrower.

Trials that are hopeless are ended early, but the endpoint is loaded beyond what it can take: do not point this at \
what others rely on.
"""


# ------------------------------------------------------------------------------------------------ the command


def _run(*, slo: str, max_rate: float, duration: float, seed: int | None, json: bool, **requests: Any) -> int:
    """Search the rate at the SLO and print it; returns the exit code.

    Raises:
        InfscaleError: bad input, an endpoint that does not answer, or the engine failed.
    """
    from infscale.experiment import capacity
    from infscale.experiment.design.slo import parse
    from infscale.experiment.live.view import viewing

    objective = parse(slo, "--slo")
    load = checked(
        rate="1",  # of each trial its own
        duration=1.0,
        arrivals="poisson",
        cv=None,
        trace="",
        trace_column="",
        warmup=0.0,
        seed=secrets.randbits(31) if seed is None else seed,
        out="",
        **requests,
    )
    if load.timeout_s * 1e3 <= objective.limit_ms:
        raise ConfigError(f"--timeout {load.timeout_s:g} does not exceed the limit of --slo {slo}; accepted: more")
    with viewing() as view:
        endpoint = Endpoint(load, objective, view.say, view)
        unloaded_ms = endpoint.unloaded_ms()
        first = min(FIRST_LOAD * 1e3 / unloaded_ms, max_rate)
        found = capacity.search(endpoint.trial, objective, first, most=max_rate, longest_s=duration)
    if json:
        from infscale.cli import printed

        printed.emit(_record(found, endpoint, unloaded_ms))
    else:
        print("\n".join(["", *sentences(found, objective, unloaded_ms), *_failures(endpoint)]), flush=True)
    if not found.bound:
        return FOUND
    return GENERATOR_FAILED if endpoint.spoilt else NO_BRACKET


# ----------------------------------------------------------------------------------------------- the endpoint


@dataclass
class Endpoint:
    """A URL that trials are run on.

    Attributes:
        load: what is sent; rate, duration and seed are those of each trial.
        slo: the objective.
        say: takes a line of what happens.
        view: shows each load while it runs.
        reasons: why requests failed, over all trials.
        spoilt: why the generator or the host failed at the end of the search; "" if they did not.
    """

    load: "Load"
    slo: "Slo"
    say: Callable[[str], None]
    view: "View"
    reasons: "list[Reason]" = field(default_factory=list)
    spoilt: str = ""
    _loads: int = 0
    _trials: int = 0

    def unloaded_ms(self) -> float:
        """Return the median response time of the idle endpoint, from requests one after another, ms.

        Raises:
            DeploymentError: a request failed, or that time is above the limit.
        """
        alone = self._single_ms()
        every_s = max(2 * alone, 1.0) / 1e3
        load = replace(self.load, arrivals="constant", rates_per_s=(1 / every_s,), duration_s=PROBES * every_s)
        median = float((self._good(self._sent(load))["response_ms"]).median())
        if median > self.slo.limit_ms:
            raise DeploymentError(
                f"--slo {self.slo} is below the response time without load: half of {PROBES} requests to the idle "
                f"endpoint took {median:.3g} ms or more"
            )
        self.say(f"{self.load.url}: {median:.3g} ms without load (median of {PROBES} requests), seed {self.load.seed}")
        return median

    def trial(self, rate_per_s: float, planned: int, long: bool) -> "Trial":
        """Run a trial; one that the generator or the host spoils is repeated with other arrivals.

        Raises:
            SpoiltError: three times in a row.
        """
        from infscale.experiment.capacity import SpoiltError

        self._trials += 1
        for _ in range(ATTEMPTS):
            self._drain()
            one, self.spoilt = self._attempt(rate_per_s, planned, long)
            self.say(f"trial {self._trials:2}: {line(one, self.slo)}{f'; spoilt: {self.spoilt}' * bool(self.spoilt)}")
            if not self.spoilt:
                return one
        raise SpoiltError(f"{self.spoilt}, {ATTEMPTS} times at {number(rate_per_s)} requests/s")

    def _attempt(self, rate_per_s: float, planned: int, long: bool) -> "tuple[Trial, str]":
        from infscale.experiment.capacity import WARM_UP, most_late, observe
        from infscale.load.engine.interfaces import GiveUp

        duration_s = planned / (1 - WARM_UP) / rate_per_s
        warm_ns, limit_ns = round(WARM_UP * duration_s * 1e9), round(self.slo.limit_ms * 1e6)
        most = most_late(self.slo, planned)
        give_up = GiveUp(limit_ns, warm_ns, math.ceil(most / self.load.shards))
        load = replace(self.load, rates_per_s=(rate_per_s,), duration_s=duration_s, give_up=give_up)
        outcome = self._sent(load, f"trial {self._trials}, λ = {number(rate_per_s)}/s")
        rows = outcome.samples
        ended = bool((rows["status"] == "unsent").any())
        end_ns = int(rows["due_ns"].max()) if ended else round(duration_s * 1e9)
        sent = rows[rows["scheduled_ns"] <= (end_ns - limit_ns if ended else end_ns)]
        fault = spoilt_by(sent, outcome, max(1e-3, (end_ns - limit_ns * ended) / 1e9))
        counted = sent[sent["scheduled_ns"] >= warm_ns]
        response_ms = _response_ms(counted).to_numpy(dtype=float)
        late = int((response_ms > self.slo.limit_ms).sum())
        return observe(rate_per_s, response_ms, self.slo, planned, hopeless=ended or late >= most, long=long), fault

    def _sent(self, load: "Load", title: str = "single requests") -> "Outcome":
        """Send a load with arrivals of its own, and show it by this title.

        Raises:
            KeyboardInterrupt: it was ended by Ctrl-C.
        """
        from infscale.load import single

        self._loads += 1
        load = replace(load, seed=self.load.seed + self._loads)
        plan = single.schedules(load)
        with self.view.load(title, plan.duration_s) as progress:
            outcome = single.run(load, plan, progress)
        if outcome.interrupted:
            raise KeyboardInterrupt
        self.reasons += outcome.manifest.generator.reasons
        return outcome

    def _single_ms(self) -> float:
        """Return the response time of one request, ms; the second one's, as the first may open what stays open."""
        load = replace(self.load, arrivals="constant", rates_per_s=(1.0,), duration_s=1.0, shards=1)
        return min(float(self._good(self._sent(load))["response_ms"].iloc[0]) for _ in range(2))

    def _good(self, outcome: "Outcome") -> "pd.DataFrame":
        """Return the rows of an outcome in which every request succeeded.

        Raises:
            DeploymentError: one did not, with its status and the commonest reason.
        """
        failed = outcome.samples[outcome.samples["status"] != "ok"]
        if len(failed):
            generator = outcome.manifest.generator
            status = str(failed["status"].astype(str).mode().iloc[0])
            why = next((reason.text for reason in generator.reasons if reason.status == status), generator.error)
            because = f" ({why})" if why else ""
            raise DeploymentError(
                f"no good answer from {self.load.url} without load: {len(failed)} of {len(outcome.samples)} requests "
                f"ended in {status}{because}"
            )
        return outcome.samples.assign(response_ms=_response_ms(outcome.samples))

    def _drain(self) -> None:
        """Wait until a single request succeeds in time: then what the last trial left is done."""
        load = replace(self.load, arrivals="constant", rates_per_s=(1.0,), duration_s=1.0, shards=1)
        for _ in range(DRAINS):
            if _response_ms(self._sent(load).samples).max() <= self.slo.limit_ms:
                return
        raise DeploymentError(
            f"{self.load.url} did not recover from a trial: of {DRAINS} single requests after it none succeeded "
            f"within {self.slo.limit_ms:g} ms"
        )


def _response_ms(rows: "pd.DataFrame") -> "pd.Series[float]":
    """Return the response times from the schedule, ms; ∞ for requests that did not succeed."""
    times: pd.Series[float] = (rows["done_ns"] - rows["scheduled_ns"]) / 1e6
    return times.where(rows["status"] == "ok", math.inf)


def spoilt_by(rows: "pd.DataFrame", outcome: "Outcome", duration_s: float) -> str:
    """Return what of the generator or its host failed in a trial; "" where it says something of the server."""
    from infscale.records.gate import INVALID
    from infscale.records.gates.verdict import judge

    verdict = judge(rows, duration_s, outcome.manifest.generator, outcome.manifest.host)
    failed = [gate.text for gate in verdict.gates if gate.name in verdict.reasons]
    return "; ".join(failed) if verdict.name == INVALID else ""


# --------------------------------------------------------------------------------------------------- the answer


def line(one: "Trial", slo: "Slo") -> str:
    """Return what a trial has shown, as a line."""
    share = one.late / max(1, one.requests)
    said = "hopeless, ended early" if one.hopeless else "limit kept" if one.kept(slo) else "limit not kept"
    kind = "" if one.long else " (short)"
    return (
        f"λ = {number(one.rate_per_s)}/s{kind}: {one.late:,} of {one.requests:,} requests late ({100 * share:.3g} %), "
        f"goodput {number(one.rate_per_s * (1 - share))}/s: {said}"
    )


def sentences(found: "Found", slo: "Slo", unloaded_ms: float) -> list[str]:
    """Return the result as sentences."""
    from infscale.experiment.capacity import ALPHA, goodput_per_s

    count, limit = f"{len(found.trials)} trials", f"{slo.percentile} within {slo.limit_ms:g} ms"
    if found.bound == "≥":
        return [f"{limit} at {number(found.value)} requests/s and maybe more, {count}: {found.why}."]
    if found.bound == "<":
        return [f"{limit} at no rate that was tried, down to {number(found.value)} requests/s, {count}: {found.why}."]
    if found.bound:
        return [f"{limit}: unknown, {count}: {found.why}."]
    rate, good = goodput_per_s(found)
    return [
        f"{limit} up to {number(found.value)} requests/s (95 % interval {number(found.low)} to {number(found.high)}; "
        f"the rate lies outside with a probability of {100 * ALPHA:g} % or less; {count}).",
        f"Goodput {number(good)}/s at {number(rate)} requests/s; {unloaded_ms:.3g} ms without load.",
    ]


def _failures(endpoint: Endpoint) -> list[str]:
    from infscale.cli.load_report import SHOWN
    from infscale.records.manifest import commonest

    reasons = commonest(endpoint.reasons)[:SHOWN]
    lines = [f"  {reason.requests:,} × {reason.status}: {reason.text}" for reason in reasons]
    return ["Failed requests, at any rate:", *lines] if lines else []


def _record(found: "Found", endpoint: Endpoint, unloaded_ms: float) -> "printed.Capacity":
    """Return the result as it is printed as JSON."""
    import msgspec

    from infscale.cli import printed
    from infscale.experiment.capacity import ALPHA, goodput_per_s
    from infscale.records.manifest import commonest

    known = not found.bound
    goodput = goodput_per_s(found) if known else (None, None)
    trials = [
        printed.CapacityTrial(
            rate_per_s=one.rate_per_s,
            planned=one.planned,
            requests=one.requests,
            late=one.late,
            goodput_per_s=one.rate_per_s * (1 - one.late / max(1, one.requests)),
            kept=one.kept(endpoint.slo),
            hopeless=one.hopeless,
            long=one.long,
        )
        for one in found.trials
    ]
    return printed.Capacity(
        url=endpoint.load.url,
        slo=str(endpoint.slo),
        capacity_per_s=found.value,
        low_per_s=found.low if known else None,
        high_per_s=found.high if known else None,
        error_probability=ALPHA if known else None,
        bound=found.bound,
        why=found.why,
        goodput_per_s=goodput[1],
        goodput_at_per_s=goodput[0],
        unloaded_ms=unloaded_ms,
        seed=endpoint.load.seed,
        timeout_s=endpoint.load.timeout_s,
        trials=trials,
        reasons=msgspec.convert(commonest(endpoint.reasons), list[printed.Failure], from_attributes=True),
    )


command = Command(
    "capacity",
    _run,
    [
        Argument(["url"], help="Address of an HTTP/1.1, HTTP/2 or gRPC endpoint, as of infscale load."),
        option(
            "--slo",
            section=ARRIVALS,
            required=True,
            metavar="'pNN<TIME'",
            note="Here with its percentile: p50, p90, p95 or p99, as in 'p99<50ms'.",
        ),
        option("--max-rate", section=ARRIVALS, default="30000", type=Number(above=0)),
        option(
            "--duration",
            section=ARRIVALS,
            default="20",
            type=Number(above=0),
            note="Here the longest that a trial "
            "is made for the sake of the server's queue; one with too few requests is longer.",
        ),
        option("--seed", section=ARRIVALS, type=Whole(0), note="Default: drawn, and printed."),
        *request_options(),
        option("--json", section=OUTPUT),
    ],
    help="Find the highest arrival rate at which a percentile of the response time stays within its limit, on any "
    "endpoint, from at most twelve trials, with its interval.",
    notes=NOTES,
    exits={
        FOUND: "Found.",
        1: "Bad input, an endpoint that answers with errors, or one that does not keep the limit when idle.",
        GENERATOR_FAILED: "The generator or its host failed.",
        NO_BRACKET: "The limit was kept at every rate that was tried, or at none: only a bound is known.",
    },
    examples=(
        "infscale capacity http://127.0.0.1:8080/ --slo 'p99<50ms'",
        "infscale capacity grpc://127.0.0.1:8500/package.Service/Method --body row.bin --slo 'p95<0.2s' --json",
    ),
)
