"""Gates on the load generator and the host: may the trial's numbers be believed?"""

import math

import msgspec
import numpy as np
import pandas as pd

from infscale.experiment.design.design import REQUESTS_MIN
from infscale.records.gate import Floats, Gate
from infscale.records.manifest import ForeignCpu, Generator, Host, Reported, ServerProcess
from infscale.records.samples import NEVER, TIMES, ordered
from infscale.vocabulary import CLIENT_LIMITS

DELIVERED_MIN = 0.999
"""Smallest accepted share of the scheduled requests that came due before the trial's end."""

LAG_FLOOR_NS = 1e6
"""Lag (due − scheduled) that is accepted at p99 however fast the server is, ns."""

LAG_SHARE_OF_MEDIAN = 0.05
"""Lag that is accepted at p99, as a share of the median response time, where that is more than the floor."""

DISPERSION_TOLERANCE = 0.05
"""Largest accepted difference of the indices of dispersion, as a share of max(1, the schedule's index)."""

DISPERSION_MIN_ARRIVALS = 400
"""Arrivals below which dispersion is reported and does not decide."""

ENGINE_CPU_MAX = 0.70
"""Largest accepted CPU time of the generator's busiest process, as a share of one core."""

RUN_DELAY_MAX = 0.02
"""Largest accepted share of the trial in which the generator was ready to run and waited for a core."""

CEILING_MAX = 0.80
"""Largest accepted λ, as a share of the rate at which a server that does no work (the null server) answered."""

STEAL_MAX = 0.02
"""Largest accepted share of the CPU time that the hypervisor gave to others."""

FOREIGN_MAX = 0.10
"""Largest accepted CPU time of processes without a part in the trial, as a share of one core."""

IDLE_IN_FLIGHT, IDLE_REQUESTS_MIN = 0.5, 10
"""Mean number of requests in flight below which a server is mostly idle, and the fewest requests that show it."""

RAISE = {
    "EMFILE": "open files of a process: raise its hard limit (ulimit -Hn), or allow fewer connections",
    "ENFILE": "open files of the system: raise fs.file-max (sysctl)",
    "EADDRNOTAVAIL": "local ports: widen net.ipv4.ip_local_port_range (sysctl), or keep connections open",
    "ENOBUFS": "network buffers: raise net.core.wmem_max and net.ipv4.tcp_mem (sysctl)",
    "ENOMEM": "memory: end other programs, or raise the limit of this one (ulimit -v, cgroup)",
}
"""What runs out on the client, by the name of the error, and what to do then."""

GAP_BINS = 1_000_000
"""Gaps between arrivals are compared on a grid of so many steps of 1 µs; longer ones share the last step."""


def of_a_client(generator: list[Gate], server: list[Gate]) -> tuple[list[Gate], list[Gate]]:
    """Return the gates on the generator and on the server for a trial in which a client library is what is measured.

    The library's lag is part of its response times, which count from the schedule, so the gates on the generator are
    shown and do not decide. Requests that it does not send in time count as saturation; only the host,
    or a limit of the client's, can make the trial INVALID.
    """
    shown = [
        gate
        if gate.name in ("host", "delivered", "own_limits", "server", "clock", "enough")
        else msgspec.structs.replace(gate, passed=True, text=f"{gate.text}; shown only, does not affect the verdict")
        for gate in generator
    ]
    return [gate for gate in shown if gate.name != "delivered"], [shown[0], *server]


NOMINAL_MIN = 0.90
"""Smallest accepted share of the nominal rate that a closed loop sent, beside three standard deviations of a Poisson
count: with less, its times are those of another load."""

OPEN_ONLY = {
    "lag": "a closed loop has no schedule that it could be late for",
    "arrivals": "a closed loop has no schedule of arrivals",
    "in_flight": "the queue of a closed loop ends at its users, or at its one query",
    "response": "the queue of a closed loop ends at its users, or at its one query",
}
"""Gates that have no meaning in a closed loop, and why."""

UNRATED = "the client has no nominal rate: it sends as many requests as are answered in the time of the trial"
"""Why the number of requests of such a client is not judged."""


def of_a_closed_loop(
    generator: list[Gate], server: list[Gate], rows: int, planned: float | None
) -> tuple[list[Gate], list[Gate]]:
    """Return the gates on the generator and on the server for a trial in which requests wait for answers.

    As of any client that is measured (:func:`of_a_client`), but without those of :data:`OPEN_ONLY`. A slow server makes
    a closed loop send less, so two gates are by the nominal rate: whether it was reached, in place of what came due,
    which counts as saturation; and whether it is enough requests. A client without a nominal rate sends as many as the
    server answers in time: neither is judged, and few requests only leave out its percentiles
    (:func:`infscale.analysis.percentiles.fewest_queries`).

    Args:
        generator, server: the gates of an open loop, by :func:`infscale.records.gates.verdict.judge`.
        rows: requests that were sent.
        planned: the nominal rate × the duration, requests; 0 where it is not known, None of a client that has none.
    """
    generator, server = of_a_client(generator, server)
    if planned is None:
        generator = [_not_judged(gate, UNRATED) if gate.name == "enough" else gate for gate in generator]
    elif planned:
        generator = [_enough(planned) if gate.name == "enough" else gate for gate in generator]
    others = [gate for gate in server if gate.name != "delivered"]
    return [_of_open(gate) for gate in generator], [_nominal(rows, planned), *(_of_open(gate) for gate in others)]


def _of_open(gate: Gate) -> Gate:
    """Return a gate without a judgement if it has no meaning in a closed loop."""
    return _not_judged(gate, OPEN_ONLY[gate.name]) if gate.name in OPEN_ONLY else gate


def _not_judged(gate: Gate, why: str) -> Gate:
    return msgspec.structs.replace(gate, passed=True, value=None, text=f"not judged: {why}")


def _nominal(rows: int, planned: float | None) -> Gate:
    if not planned:
        why = f"not judged: {UNRATED}" if planned is None else "the nominal rate is not known"
        return Gate("delivered", True, None, NOMINAL_MIN, why)
    least, share = NOMINAL_MIN - 3 / math.sqrt(planned), rows / planned
    text = f"the client sent {rows} of {planned:.0f} requests of the nominal rate ({share:.1%}; at least {least:.1%})"
    return Gate("delivered", share >= least, share, least, text)


def load_tool(said: Reported, *, too_slow_counts: bool) -> Gate:
    """Judge what a load tool says of its own run, which we may not call VALID where it says INVALID.

    An error that it logged always counts. Of the constraints of LoadGen,

    - ``min_duration`` and ``min_queries`` do not: both are settings of ours, and a trial that lacks requests fails the
      gates on the rows;
    - ``early_stopping`` does not either: where the share of slow queries is within the limit, more queries of the same
      kind would meet it. The percentiles that so few cannot show are left out of the tables instead
      (:func:`infscale.analysis.percentiles.fewest_queries`);
    - ``performance`` (Server's percentile above its limit, which is the time limit of a trial, or the SLO that is
      searched for) does, unless our own gates say that the server did not keep up: then both say the same, and it is a
      finding about the server, SATURATED, without which no search could find λ*. In the search for the rate at an SLO
      it never does: a limit that is not kept is what ends it.

    Args:
        said: what it says.
        too_slow_counts: whether ``performance`` does: not where our own gates say that the server did not keep up, nor
            in a search for the rate at an SLO.
    """
    unmet = [name for name in said.unmet if name not in ("min_duration", "min_queries", "early_stopping")]
    if not too_slow_counts:
        unmet = [name for name in unmet if name != "performance"]
    verdict = {True: "says VALID", False: "says INVALID", None: "gives no verdict"}[said.valid]
    because = f" for its constraint {', '.join(said.unmet)}" if said.unmet else ""
    errors = f"; it logged: {'; '.join(said.errors)}" if said.errors else ""
    # A verdict without a reason that we know is not explained away.
    passed = not unmet and not said.errors and (said.valid is not False or bool(said.unmet))
    note = "" if passed is (said.valid is not False) else "; it does not affect the verdict"
    return Gate("load_tool", passed, None, 0.0, f"{said.tool} {verdict}{because}{errors}{note}")


def delivered(samples: pd.DataFrame, duration_ns: float) -> Gate:
    """Judge the share of the requests scheduled before the trial's end that came due before it.

    *Due*, not sent: a server that holds every connection is not the generator's fault. And against the
    schedule, not λT: a fair draw may differ from its mean. The end is extended by the 1 ms that the lag
    gate allows anyway; without that, one arrival in the last 60 µs would make a short trial INVALID.
    """
    scheduled = int((samples["scheduled_ns"] < duration_ns).sum())
    if scheduled == 0:
        return Gate("delivered", False, None, DELIVERED_MIN, "no request was scheduled")
    due = samples["due_ns"]
    in_time = int(((due != NEVER) & (due < duration_ns + LAG_FLOOR_NS)).sum())
    share = in_time / scheduled
    text = f"{in_time} of {scheduled} scheduled requests came due in time ({share:.2%}; at least {DELIVERED_MIN:.1%})"
    return Gate("delivered", share >= DELIVERED_MIN, share, DELIVERED_MIN, text)


def own_limits(samples: pd.DataFrame, limit: str = "") -> Gate:
    """Judge whether the client ran out of descriptors, ports, buffers or memory: no request may fail or wait for it.

    Args:
        samples: the trial's rows.
        limit: :attr:`infscale.records.manifest.Generator.limit`.
    """
    counts = {name: int((samples["status"] == f"client_{name}").sum()) for name in CLIENT_LIMITS}
    failed = sum(counts.values())
    if not failed and not limit:
        return Gate("own_limits", True, 0.0, 0.0, "no request failed for a limit of the client")
    why = "; ".join(f"{RAISE[name]} ({name})" for name, count in counts.items() if count or name == limit)
    ended = f"a limit of the client ended {failed} of {len(samples)} requests"
    kept = "a limit of the client kept connections from being opened, so that requests waited"
    return Gate("own_limits", False, failed, 0.0, f"{ended if failed else kept}: {why}")


def server(process: ServerProcess | None) -> Gate:
    """Judge whether the server was there during the whole trial: one that was killed, or stopped, is not saturated.

    Neither is one whose connections were cut once; one that sheds load so cuts them again when the trial is repeated.
    """
    faults = (
        {}
        if process is None
        else {
            "the server died during the trial": process.died,
            "the server was stopped (SIGSTOP) during the trial": process.stopped,
            "connections to the server were cut, without any other sign that it did not keep up": process.cut,
        }
    )
    found = [text for text, is_so in faults.items() if is_so]
    return Gate("server", not found, None, 0.0, found[0] if found else "the server was there to the end")


def clock(samples: pd.DataFrame) -> Gate:
    """Judge whether the times of each request follow each other: scheduled, due, sent, first byte, done.

    They are of one monotonic clock, so that others are of another clock, or of damaged rows.
    """
    times = samples[[name for name in TIMES if name in samples.columns]].to_numpy()
    known = times != NEVER
    latest = np.maximum.accumulate(np.where(known, times, NEVER), axis=1)
    disordered = int((known & (times < latest)).any(axis=1).sum())
    wrong = f"the times of {disordered} of {len(samples)} requests are out of order"
    return Gate("clock", not disordered, disordered, 0.0, wrong if disordered else "times are in order")


def enough(samples: pd.DataFrame, duration_ns: float) -> Gate:
    """Judge whether there are enough requests to tell a server that keeps up from one that does not.

    A few are enough where a server mostly has none: by Little's law a saturated one has at least one in flight.
    """
    in_flight = float((samples["done_ns"] - samples["scheduled_ns"]).sum()) / duration_ns
    return _enough(len(samples), IDLE_REQUESTS_MIN if in_flight < IDLE_IN_FLIGHT else REQUESTS_MIN)


def _enough(n: float, least: int = REQUESTS_MIN) -> Gate:
    return Gate("enough", n >= least, n, least, f"{n:.0f} requests (too few to say below {least})")


def lag(samples: pd.DataFrame) -> Gate:
    """Judge the 99th percentile of due − scheduled (ns) by max(1 ms, 5 % of the median response time)."""
    came_due = (samples["due_ns"] != NEVER).to_numpy()
    late = (samples["due_ns"] - samples["scheduled_ns"]).to_numpy()[came_due]
    if late.size == 0:
        return Gate("lag", False, None, LAG_FLOOR_NS, "no request came due")
    answered = (samples["status"] == "ok").to_numpy()
    responses = (samples["done_ns"] - samples["scheduled_ns"]).to_numpy()[answered]
    typical = float(np.median(responses)) if responses.size else 0.0
    limit = max(LAG_FLOOR_NS, LAG_SHARE_OF_MEDIAN * typical)
    value = float(np.quantile(late, 0.99))
    text = f"the generator was {value / 1e6:.2f} ms late at p99 (at most {limit / 1e6:.2f} ms)"
    return Gate("lag", value <= limit, value, limit, text)


def arrivals(samples: pd.DataFrame, duration_ns: float) -> Gate:
    """Judge whether the requests came due with the dispersion of their schedule.

    The value is the index of dispersion of counts (variance ÷ mean over equal windows: 1 for Poisson, 0 for
    constant arrivals) of the due times, minus that of the scheduled times, over windows of 10 ms and of ten
    mean gaps; the larger difference counts, relative to max(1, the schedule's index). The median lag is taken off
    first: a constant delay changes no process of arrivals, and in a trial of 1 s it moves enough arrivals over the
    edges of windows to make one sound trial in twenty INVALID. With fewer than 400 arrivals one displaced arrival can
    move the index by the whole tolerance: then it is reported and does not decide.
    """
    times = samples.loc[samples["due_ns"] != NEVER, ["scheduled_ns", "due_ns"]].to_numpy(dtype=np.float64)
    n = len(times)
    if n == 0:
        return Gate("arrivals", True, None, DISPERSION_TOLERANCE, "no request came due")
    times = times - [0, np.median(times[:, 1] - times[:, 0])]
    differences = [_dispersion_difference(times, window, duration_ns) for window in (1e7, 10 * duration_ns / n)]
    value = float(np.max(differences))
    gated = n >= DISPERSION_MIN_ARRIVALS
    note = "" if gated else f"; below {DISPERSION_MIN_ARRIVALS} arrivals shown only, does not affect the verdict"
    text = f"the dispersion of arrivals differs by {value:.1%} from the schedule's (at most 5 %{note})"
    return Gate("arrivals", not gated or value <= DISPERSION_TOLERANCE, value, DISPERSION_TOLERANCE, text)


def gaps_distance(samples: pd.DataFrame) -> float:
    """Return the Kolmogorov distance between the gaps of the due times and those of the schedule; it decides nothing.

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


def engine_cpu(generator: Generator) -> Gate:
    """Judge CPU time ÷ wall time of the generator's busiest process: above 70 % of a core it may be the bottleneck."""
    shards = [shard.cpu_user_s + shard.cpu_system_s for shard in generator.shards]
    value = max(shards, default=generator.cpu_s) / generator.wall_s
    text = f"the generator used {value:.0%} of a core (at most {ENGINE_CPU_MAX:.0%})"
    return Gate("engine_cpu", value <= ENGINE_CPU_MAX, value, ENGINE_CPU_MAX, text)


def run_delay(generator: Generator) -> Gate:
    """Judge the share of wall time in which the generator was ready to run and had no core (schedstat)."""
    if generator.run_delay_s is None:
        return Gate("run_delay", True, None, RUN_DELAY_MAX, "run delay was not measured on this machine")
    value = generator.run_delay_s / generator.wall_s
    text = f"the generator waited for a core during {value:.1%} of the trial (at most {RUN_DELAY_MAX:.0%})"
    return Gate("run_delay", value <= RUN_DELAY_MAX, value, RUN_DELAY_MAX, text)


def ceiling(rate_per_s: float, ceiling_per_s: float | None) -> Gate:
    """Judge λ ÷ the highest rate that a server that does no work answered (:mod:`infscale.load.ceiling`).

    The ceiling is of the same protocol and body size, in the same run: beyond 80 % of it, a limit may be the
    generator's.
    """
    if not ceiling_per_s:
        return Gate("ceiling", True, None, CEILING_MAX, "the generator's ceiling was not measured in this run")
    value = rate_per_s / ceiling_per_s
    most = f"what a server that does no work (the null server) answered, {ceiling_per_s:,.0f}/s"
    text = f"λ is {value:.0%} of {most} (at most {CEILING_MAX:.0%})"
    return Gate("ceiling", value <= CEILING_MAX, value, CEILING_MAX, text)


def host(state: Host) -> Gate:
    """Judge CPU time that others took: the hypervisor (steal), and processes without a part in the trial.

    Load and co-location are shown, not judged. The value is the one that is judged worse.
    """
    where = "on one host with the server" if state.same_host else "on another host than the server"
    load = "" if state.loadavg_1m is None else f", load average {state.loadavg_1m:.1f}"
    shares = [(state.steal_fraction, STEAL_MAX), (state.foreign.cores if state.foreign else None, FOREIGN_MAX)]
    value, limit = max(shares, key=lambda share: -1.0 if share[0] is None else share[0] / share[1])
    text = f"{_steal(state.steal_fraction)}; {_foreign(state.foreign)}; generator {where}{load}"
    return Gate("host", value is None or value <= limit, value, limit, text)


def _steal(share: float | None) -> str:
    if share is None:
        return "steal was not measured on this machine"
    return f"the hypervisor took {share:.1%} of the CPU time (at most {STEAL_MAX:.0%})"


def _foreign(cpu: ForeignCpu | None) -> str:
    if cpu is None:
        return "the CPU time of foreign processes was not measured"
    most = f", most of it {cpu.most}" if cpu.most else ""
    return f"foreign processes used {cpu.cores:.0%} of a core{most} (at most {FOREIGN_MAX:.0%})"


def _dispersion_difference(times: Floats, window: float, duration_ns: float) -> float:
    """Return the difference of the indices of dispersion of the columns 0 (scheduled) and 1 (due) of ``times``."""
    windows = int(duration_ns / window)
    if windows < 2:
        return 0.0
    scheduled, due = (np.histogram(column, windows, (0, windows * window))[0] for column in times.T)
    if scheduled.sum() == 0 or due.sum() == 0:
        return 0.0
    index = float(scheduled.var() / scheduled.mean())
    return abs(float(due.var() / due.mean()) - index) / max(1.0, index)
