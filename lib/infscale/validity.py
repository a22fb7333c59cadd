"""The verdict of a trial: may its numbers be believed, and did the server keep up?

Every gate is a pure function of the samples table and of values in the trial's manifest. A verdict is

- ``INVALID`` when the generator or the host failed: the numbers say nothing about the server;
- ``SATURATED`` when the generator was sound and the server did not keep up: a finding, not a failure;
- ``VALID`` otherwise.

The order matters: a generator that cannot keep up looks just like a server that cannot.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from infscale.estimates import ordered
from infscale.samples import NEVER

INVALID, SATURATED, VALID = "INVALID", "SATURATED", "VALID"

DELIVERED_MIN = 0.999
LAG_FLOOR_NS = 1e6
LAG_SHARE_OF_MEDIAN = 0.05
DISPERSION_TOLERANCE = 0.05
DISPERSION_MIN_ARRIVALS = 400
ENGINE_CPU_MAX = 0.70
RUN_DELAY_MAX = 0.02
CEILING_MAX = 0.80
STEAL_MAX = 0.02
FAILED_MAX = 0.01
GROWTH_MAX = 0.25
GROWTH_ALPHA = 0.01
BATCHES = 20
GAP_BINS = 1_000_000
FIRST_PART = 0.10
"""The share of a trial, from its start, that neither the growth rule nor the percentiles look at."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gate:
    """One rule applied to one trial: what was found (``value``), what is allowed (``limit``), and a sentence.

    ``value`` is NaN where the machine or the trial offers nothing to measure; the sentence says so.
    """

    name: str
    passed: bool
    value: float
    limit: float
    text: str


@dataclass(frozen=True)
class Verdict:
    """``verdict`` with the names of the gates that decided it, every gate, and the errors by kind."""

    verdict: str
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]
    errors: dict[str, int]

    @property
    def text(self) -> str:
        """The verdict and the sentence of every gate that decided it."""
        causes = [gate.text for gate in self.gates if gate.name in self.reasons]
        return "; ".join([self.verdict, *causes])

    def as_dict(self) -> dict[str, Any]:
        """A form for JSON: numbers that are not finite become ``None``."""
        value = asdict(self)
        value["reasons"] = list(self.reasons)
        value["gates"] = [{k: _jsonable(v) for k, v in asdict(gate).items()} for gate in self.gates]
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`as_dict` (``None`` becomes NaN)."""
        gates = tuple(
            Gate(g["name"], g["passed"], _number(g["value"]), _number(g["limit"]), g["text"]) for g in value["gates"]
        )
        return cls(value["verdict"], tuple(value["reasons"]), gates, dict(value["errors"]))


def trials_of_grid(run: Mapping[str, Any]) -> int:
    """How many trials the grid of a run's manifest plans: frameworks × protocols × rates × replicates."""
    config = run["config"]
    if config.get("cases"):
        return int(config["trials_n"])
    return int(len(config["frameworks"]) * len(config["protocols"]) * config["rates_n"] * config["replicates"])


def judge(samples: pd.DataFrame, manifest: Mapping[str, Any], trials_of_grid: int) -> Verdict:
    """Give one trial its verdict.

    Args:
        samples: the trial's rows (``infscale.samples``), in any order.
        manifest: the trial's manifest; read are ``duration_s``, ``engine`` (``cpu_s``, ``wall_s``,
            ``run_delay_s``), ``host`` (``steal_fraction``, ``loadavg_1m``, ``same_host``) and, where they are known,
            ``rate_per_s`` and ``ceiling_per_s``.
        trials_of_grid: how many trials the whole grid plans; the growth rule shares its false alarms over them.
    """
    duration_ns = manifest["duration_s"] * 1e9
    generator = [
        delivered(samples, duration_ns),
        lag(samples),
        arrivals(samples, duration_ns),
        engine_cpu(manifest["engine"]),
        run_delay(manifest["engine"]),
        ceiling(manifest),
        host(manifest["host"]),
    ]
    server: list[Gate] = [*saturated(samples, duration_ns, trials_of_grid)]
    if (manifest.get("arm") or {}).get("client", "wire") != "wire":
        generator, server = _of_a_client(generator, server)
    verdict, reasons = VALID, _failed(server)
    if reasons:
        verdict = SATURATED
    if _failed(generator):
        verdict, reasons = INVALID, _failed(generator)
    return Verdict(verdict, reasons, (*generator, *server), errors_by_kind(samples))


def _of_a_client(generator: list[Gate], server: list[Gate]) -> tuple[list[Gate], list[Gate]]:
    """The gates where a client library is itself what is measured.

    Its lag is in its response times, which count from the schedule: told, not gated. Requests that it does not send in
    time are its saturation; only the host can void the trial.
    """
    told = [
        gate if gate.name in ("host", "delivered") else replace(gate, passed=True, text=f"{gate.text}; not gated")
        for gate in generator
    ]
    return [gate for gate in told if gate.name != "delivered"], [told[0], *server]


def errors_by_kind(samples: pd.DataFrame) -> dict[str, int]:
    """How many rows ended in each status other than ``ok``, most frequent first."""
    counts = samples["status"].value_counts()  # of a categorical column, in one pass
    return {str(kind): int(n) for kind, n in counts.items() if kind != "ok" and n > 0}


# ------------------------------------------------------------------------ the generator and the host


def delivered(samples: pd.DataFrame, duration_ns: float) -> Gate:
    """Due before the end ÷ scheduled before the end.

    *Due*, not sent: a server that holds every connection is not the generator's fault. And against the
    schedule, not λT: a fair draw may differ from its mean. The end is extended by the 1 ms that the lag
    gate allows anyway; without that, one arrival in the trial's last 60 µs would void a short trial.
    """
    scheduled = int((samples["scheduled_ns"] < duration_ns).sum())
    if scheduled == 0:
        return Gate("delivered", False, float("nan"), DELIVERED_MIN, "no request was scheduled")
    due = samples["due_ns"]
    in_time = int(((due != NEVER) & (due < duration_ns + LAG_FLOOR_NS)).sum())
    share = in_time / scheduled
    text = f"{in_time} of {scheduled} scheduled requests came due in time ({share:.2%}; at least {DELIVERED_MIN:.1%})"
    return Gate("delivered", share >= DELIVERED_MIN, share, DELIVERED_MIN, text)


def lag(samples: pd.DataFrame) -> Gate:
    """The 99th percentile of due − scheduled (ns), against max(1 ms, 5 % of the median response time)."""
    came_due = (samples["due_ns"] != NEVER).to_numpy()
    late = (samples["due_ns"] - samples["scheduled_ns"]).to_numpy()[came_due]
    if late.size == 0:
        return Gate("lag", False, float("nan"), LAG_FLOOR_NS, "no request came due")
    answered = (samples["status"] == "ok").to_numpy()
    responses = (samples["done_ns"] - samples["scheduled_ns"]).to_numpy()[answered]
    typical = float(np.median(responses)) if responses.size else 0.0
    limit = max(LAG_FLOOR_NS, LAG_SHARE_OF_MEDIAN * typical)
    value = float(np.quantile(late, 0.99))
    text = f"the generator was {value / 1e6:.2f} ms late at p99 (at most {limit / 1e6:.2f} ms)"
    return Gate("lag", value <= limit, value, limit, text)


def arrivals(samples: pd.DataFrame, duration_ns: float) -> Gate:
    """Whether the requests came due with the dispersion of their schedule.

    The index of dispersion of counts (variance ÷ mean over equal windows: 1 for Poisson, 0 for constant
    arrivals) of the due times, minus that of the scheduled times, over windows of 10 ms and of ten mean
    gaps; the larger difference counts, relative to max(1, the schedule's index). In trials of fewer than
    400 arrivals one displaced arrival can move the index by the whole tolerance: reported, not gated.
    """
    times = samples.loc[samples["due_ns"] != NEVER, ["scheduled_ns", "due_ns"]].to_numpy(dtype=np.float64)
    n = len(times)
    if n == 0:
        return Gate("arrivals", True, float("nan"), DISPERSION_TOLERANCE, "no request came due")
    differences = [_dispersion_difference(times, window, duration_ns) for window in (1e7, 10 * duration_ns / n)]
    value = float(np.max(differences))
    gated = n >= DISPERSION_MIN_ARRIVALS
    note = "" if gated else f"; not gated below {DISPERSION_MIN_ARRIVALS} arrivals"
    text = f"the dispersion of arrivals differs by {value:.1%} from the schedule's (at most 5 %{note})"
    return Gate("arrivals", not gated or value <= DISPERSION_TOLERANCE, value, DISPERSION_TOLERANCE, text)


def gaps_distance(samples: pd.DataFrame) -> float:
    """The Kolmogorov distance between the gaps of the due times and those of the schedule; reported, not gated.

    At thousands of requests per second any timer's jitter is of the order of the gap. Gaps are compared on a grid of
    1 µs, up to 1 s. NaN below two requests.
    """
    due = samples.loc[samples["due_ns"] != NEVER, "due_ns"]
    if len(due) < 2:
        return float("nan")
    gaps = [np.diff(ordered(times)) / 1e3 for times in (due, samples["scheduled_ns"])]
    bins = min(GAP_BINS, int(max(gap.max() for gap in gaps)) + 1)
    shares = [np.cumsum(np.bincount(np.minimum(one, bins).astype(np.int64), minlength=bins)) for one in gaps]
    difference = shares[0][:bins] / len(gaps[0]) - shares[1][:bins] / len(gaps[1])
    return float(np.max(np.abs(difference)))


def engine_cpu(engine: Mapping[str, Any]) -> Gate:
    """CPU time ÷ wall time of the generator's busiest process: above 70 % of a core it may be the bottleneck itself."""
    shards = [shard["cpu_user_s"] + shard["cpu_system_s"] for shard in engine.get("shards", ())]
    value = max(shards, default=engine["cpu_s"]) / engine["wall_s"]
    text = f"the generator used {value:.0%} of a core (at most {ENGINE_CPU_MAX:.0%})"
    return Gate("engine_cpu", value <= ENGINE_CPU_MAX, value, ENGINE_CPU_MAX, text)


def run_delay(engine: Mapping[str, Any]) -> Gate:
    """The share of wall time in which the generator was ready to run and had no core (schedstat)."""
    if engine.get("run_delay_s") is None:
        return Gate("run_delay", True, float("nan"), RUN_DELAY_MAX, "run delay was not measured on this machine")
    value = engine["run_delay_s"] / engine["wall_s"]
    text = f"the generator waited for a core during {value:.1%} of the trial (at most {RUN_DELAY_MAX:.0%})"
    return Gate("run_delay", value <= RUN_DELAY_MAX, value, RUN_DELAY_MAX, text)


def ceiling(manifest: Mapping[str, Any]) -> Gate:
    """λ ÷ the most that the generator was answered by a server that does nothing (``infscale.ceiling``).

    Of the same protocol and body size, in the same run: beyond 80 % of that a limit may be the generator's.
    """
    most = manifest.get("ceiling_per_s")
    if not most:
        return Gate("ceiling", True, float("nan"), CEILING_MAX, "the generator's ceiling was not measured in this run")
    value = manifest["rate_per_s"] / most
    text = f"λ is {value:.0%} of what a null server answered, {most:,.0f}/s (at most {CEILING_MAX:.0%})"
    return Gate("ceiling", value <= CEILING_MAX, value, CEILING_MAX, text)


def host(host: Mapping[str, Any]) -> Gate:
    """Steal: CPU time that a hypervisor gave to others. Load and co-location are told, not gated."""
    where = "on one host with the server" if host.get("same_host") else "on another host than the server"
    load = host.get("loadavg_1m")
    context = f"generator {where}" + ("" if load is None else f", load average {load:.1f}")
    steal = host.get("steal_fraction")
    if steal is None:
        return Gate("host", True, float("nan"), STEAL_MAX, f"steal was not measured on this machine; {context}")
    text = f"the hypervisor took {steal:.1%} of the CPU time (at most {STEAL_MAX:.0%}); {context}"
    return Gate("host", steal <= STEAL_MAX, float(steal), STEAL_MAX, text)


# ----------------------------------------------------------------------------------------- the server


def saturated(samples: pd.DataFrame, duration_ns: float, trials_of_grid: int) -> tuple[Gate, Gate, Gate]:
    """The three signs that a server is not keeping up: in-flight grows, response time grows, requests fail.

    Growth is judged on the means of twenty equal batches of time after the first 10 % of the trial.
    """
    in_flight, response_ms = batch_means(samples, duration_ns)
    alpha = GROWTH_ALPHA / max(1, trials_of_grid)
    return (
        growth("in_flight", "requests in flight", in_flight, alpha),
        growth("response", "response time", response_ms, alpha),
        failures(samples),
    )


def batch_means(samples: pd.DataFrame, duration_ns: float, batches: int = BATCHES) -> tuple[Floats, Floats]:
    """Means over equal batches of [10 %, 100 %] of the trial, each of shape (batches,).

    First the requests in flight (scheduled, not yet done), averaged over time exactly: the integral up to x
    of a counting process with events t is Σ (x − t) over the events before x. Then the response time in ms
    of the requests scheduled in each batch (NaN where there are none); one that was given up counts with
    the time until then.
    """
    edges = np.linspace(FIRST_PART * duration_ns, duration_ns, batches + 1)
    scheduled = samples["scheduled_ns"].to_numpy(dtype=np.float64)
    done = samples["done_ns"].to_numpy(dtype=np.float64)
    ended = done != NEVER
    in_flight = np.diff(_integral(scheduled, edges) - _integral(done[ended], edges)) / np.diff(edges)
    # Equal batches are counted by arithmetic: np.histogram with edges given sorts all values.
    batch = np.floor((scheduled - edges[0]) / (edges[1] - edges[0])).astype(np.int64)
    inside = ended & (batch >= 0) & (batch < batches)
    count = np.bincount(batch[inside], minlength=batches)
    total = np.bincount(batch[inside], weights=(done - scheduled)[inside], minlength=batches)
    response_ms = np.divide(total / 1e6, count, out=np.full(batches, np.nan), where=count > 0)
    return in_flight, response_ms


def growth(name: str, what: str, means: Floats, alpha: float) -> Gate:
    """Whether batch means grow by more than 25 % of their mean, and beyond chance.

    Both are needed. The slope's t interval takes batches for independent, which those of a busy queue are
    not: alone, at 5 %, it condemns most stationary queues at ρ = 0.9. The strict level and the floor on the
    size of the growth hold false alarms down (``tests/test_validity.py`` simulates both sides).
    """
    known = np.isfinite(means)
    y = means[known]
    if y.size < BATCHES // 2 or y.mean() <= 0 or np.ptp(y) == 0:
        return Gate(name, True, 0.0, GROWTH_MAX, f"{what}: no growth to judge")
    fit = stats.linregress(np.flatnonzero(known), y)
    value = float(fit.slope * len(means) / y.mean())
    half_width = float(stats.t.ppf(1 - alpha / 2, y.size - 2) * fit.stderr)
    passed = not (value > GROWTH_MAX and fit.slope - half_width > 0)
    chance = "beyond chance" if fit.slope - half_width > 0 else "within chance"
    text = f"{what}: change of {value:+.0%} of its mean over the trial, {chance} (at most +{GROWTH_MAX:.0%})"
    return Gate(name, passed, value, GROWTH_MAX, text)


def failures(samples: pd.DataFrame) -> Gate:
    """The share of requests that did not succeed: a server that sheds load is not keeping up with it."""
    n = len(samples)
    failed = int((samples["status"] != "ok").sum())
    value = failed / n if n else 0.0
    text = f"{failed} of {n} requests failed or timed out ({value:.2%}; at most {FAILED_MAX:.0%})"
    return Gate("errors", value <= FAILED_MAX, value, FAILED_MAX, text)


# --------------------------------------------------------------------------------------------- helpers


def _integral(events: Floats, edges: Floats) -> Floats:
    """∫₀ˣ (number of events before t) dt at every edge x."""
    rising = ordered(events)
    before = np.searchsorted(rising, edges)
    sums = np.concatenate(([0.0], np.cumsum(rising)))
    integral: Floats = before * edges - sums[before]
    return integral


def _dispersion_difference(times: Floats, window: float, duration_ns: float) -> float:
    """Difference of the indices of dispersion of columns 0 (scheduled) and 1 (due)."""
    windows = int(duration_ns / window)
    if windows < 2:
        return 0.0
    scheduled, due = (np.histogram(column, windows, (0, windows * window))[0] for column in times.T)
    if scheduled.sum() == 0 or due.sum() == 0:
        return 0.0
    index = float(scheduled.var() / scheduled.mean())
    return abs(float(due.var() / due.mean()) - index) / max(1.0, index)


def _failed(gates: Iterable[Gate]) -> tuple[str, ...]:
    """The names of the gates that were not passed."""
    return tuple(gate.name for gate in gates if not gate.passed)


def _number(value: float | None) -> float:
    """The inverse of :func:`_jsonable`."""
    return float("nan") if value is None else value


def _jsonable(value: Any) -> Any:
    """``None`` for a float that JSON cannot hold."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
