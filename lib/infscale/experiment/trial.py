"""One trial: one arm at one λ, once — load, rows, the host's state, a verdict."""

import datetime as dt
import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypedDict, Unpack

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from infscale import machine
from infscale.deployment.counters import cache_counts, statistics
from infscale.deployment.endpoint import Endpoint
from infscale.display import Shown, Summary, ecdf
from infscale.errors import ConfigError, Interrupt, check_duration, check_rate, one_of
from infscale.experiment.design.arm import CLIENTS, Arm
from infscale.experiment.design.slo import Slo
from infscale.experiment.live.view import View, ticking, viewing
from infscale.experiment.settle import await_counts
from infscale.experiment.usage import resources
from infscale.experiment.usage.elsewhere import Elsewhere
from infscale.experiment.usage.foreign import Watch
from infscale.load import ceiling, clients, loadgen_client, locust_client, schedule
from infscale.load.ceiling import Points
from infscale.load.cluster import run as distributed
from infscale.load.cluster.connect import Cluster
from infscale.load.engine import run as engine
from infscale.load.engine.interfaces import Progress, Streaming
from infscale.models.stream import StreamPlan
from infscale.paths import project_root
from infscale.payloads import limits, similarity
from infscale.payloads.encoders import Payload, Stream
from infscale.records import components
from infscale.records.gates.verdict import judge_trial
from infscale.records.manifest import ClusterWorker, ForeignCpu, Host, Phase, Seeds, ServerProcess, TrialManifest
from infscale.vocabulary import NAMES, number

POOL = 256
"""Distinct request bodies of a payload, so that no cache is hit by accident."""

DRAWS = ("arrivals", "payload")
"""What is drawn for a trial, each from a seed of its own."""

Schedule = npt.NDArray[np.int64]
Choice = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Plan:
    """Everything that determines a trial.

    Attributes:
        arm: factor levels.
        rate_per_s: arrival rate λ, requests/s; of a closed loop the nominal rate, which is the most that it sends. λ
            does not set how fast LoadGen's SingleStream and Offline send, see :mod:`infscale.load.loadgen_client`.
        duration_s: length of the arrivals, s; the trial ends when the last request has an outcome.
        timeout_s: time limit of a request, from the scheduled time, s.
        seed: of the run; ``key`` tells this trial's draws apart. Arms with the same seed and key get the same
            arrivals and the same payload choice, which is what pairs them.
        phase, lifetime, attempt, arm_number, block: as of :class:`infscale.records.manifest.TrialManifest`.
        usage: whether to read meanwhile what every process uses (:mod:`infscale.experiment.usage`).
        slo: the objective whose rate is searched, for load tools that judge it themselves; None in other trials.

    Raises:
        ConfigError: λ, the duration or the time limit is not a positive number, or the seed not a whole one.
    """

    arm: Arm
    rate_per_s: float
    duration_s: float
    timeout_s: float = 5.0
    seed: int = 1
    key: tuple[int, ...] = (0,)
    phase: Phase = "grid"
    lifetime: int = 0
    attempt: int = 1
    arm_number: int = 0
    block: int = 0
    usage: bool = False
    slo: Slo | None = None

    def __post_init__(self) -> None:
        check_rate(self.rate_per_s, "rate_per_s")
        for name in ("duration_s", "timeout_s"):
            check_duration(getattr(self, name), name)
        if not isinstance(self.seed, numbers.Integral) or self.seed < 0:
            raise ConfigError(f"seed={self.seed!r} cannot be used; accepted: a whole number, 0 or more")


@dataclass(frozen=True)
class Outcome(Shown):
    """A finished trial.

    Attributes:
        samples: its rows (:mod:`infscale.records.samples`).
        manifest: what is known beside them, verdict included.
        usage: readings of processes (:mod:`infscale.records.usage`), if asked for.
        logs: what a load tool wrote itself, by the name of the file.
        chunks: the messages of streams (:mod:`infscale.records.chunks`); None of replies that are no streams.
    """

    samples: pd.DataFrame
    manifest: TrialManifest
    usage: pd.DataFrame | None = None
    logs: Mapping[str, str] = field(default_factory=dict)
    chunks: pd.DataFrame | None = None

    @property
    def verdict(self) -> str:
        """VALID, UNSTEADY, SATURATED or INVALID."""
        return self.manifest.judged.name

    def summary(self) -> Summary:
        """Return the trial in a table: rates, response times, failures, and the verdict with its reason."""
        manifest, rows = self.manifest, self.samples
        done = (rows["status"] == "ok").to_numpy()
        response = np.where(done, (rows["done_ns"] - rows["scheduled_ns"]) / 1e6, np.inf)
        levels = [level for level in (50, 95, 99) if len(rows) >= 100 / (100 - level)]
        quantiles = [(f"p{level}", np.quantile(response, level / 100, method="higher")) for level in levels]
        errors = ", ".join(f"{count} {status}" for status, count in manifest.judged.errors.items())
        return Summary(
            f"{manifest.implementation}, {NAMES[manifest.arm.protocol]}, at {manifest.rate_per_s:g} requests/s",
            (
                ("arm", ", ".join(f"{name} {value}" for name, value in manifest.arm.summary().rows)),
                ("verdict", manifest.judged.text),
                ("requests", f"{len(rows):,} in {manifest.duration_s:.3g} s, {int(done.sum()):,} succeeded"),
                ("failed", errors),
                ("response time", ", ".join(f"{name} {number(value)} ms" for name, value in quantiles)),
            ),
            ecdf(response),
        )


def run(
    endpoint: Endpoint,
    plan: Plan,
    *,
    ceilings: Mapping[str, Points] | None = None,
    cluster: Cluster | None = None,
    elsewhere: Elsewhere | None = None,
    view: View | None = None,
) -> Outcome:
    """Load ``endpoint`` as ``plan`` says, show meanwhile how it goes, and judge what came back.

    Args:
        endpoint: a running deployment.
        plan: the trial.
        ceilings: by protocol, what a null server answered to this generator in the same run
            (:mod:`infscale.load.ceiling`).
        cluster: the workers that send the load, if the arm's client is the load engine; None for this machine alone.
        elsewhere: what tells the usage of servers on other machines; None where it is not asked for.
        view: what shows it; None for one of its own.

    Raises:
        ConfigError: the encoding is unknown, or the server's REST does not speak the arm's HTTP version.
        MissingError: the arm's client is not installed.
        EngineError: the load engine, or the client, failed.
        Interrupt: Ctrl-C ended it; in the middle of a load by the engine the exception has the rows
            (:class:`infscale.load.engine.run.Interrupted`).
    """
    try:
        with viewing(view) as shown:
            outcome = _run(endpoint, plan, ceilings or {}, cluster, elsewhere, shown)
            shown.result = f"{_title(endpoint, plan)}: {outcome.manifest.judged.short}"
    except Interrupt:
        raise
    except KeyboardInterrupt as error:
        raise Interrupt("the trial was ended, and has no rows yet; run it again") from error
    return outcome


def _title(endpoint: Endpoint, plan: Plan) -> str:
    """Return what a view calls a trial."""
    return f"{endpoint.label}, {NAMES[plan.arm.protocol]}, λ = {plan.rate_per_s:g}/s"


def _run(
    endpoint: Endpoint,
    plan: Plan,
    ceilings: Mapping[str, Points],
    cluster: Cluster | None,
    elsewhere: Elsewhere | None,
    view: View,
) -> Outcome:
    check_client(plan.arm.client)
    payload = payload_of(endpoint, plan.arm)
    seeds = {name: np.random.SeedSequence(plan.seed, spawn_key=(*plan.key, i)) for i, name in enumerate(DRAWS)}
    cluster = cluster if plan.arm.client == "wire" else None
    shards = cluster.shards if cluster else 1
    arrivals = schedule.shards(plan.rate_per_s, plan.duration_s, seeds["arrivals"], shards)
    payload, choice = _chosen(payload, plan, sum(map(len, arrivals)), seeds["payload"])
    if endpoint.own is None:  # a handler of the user's own may decompress
        limits.check_gzip(endpoint.interface, plan.arm.protocol, gzip=plan.arm.gzip)
    counted, cached = statistics(endpoint), cache_counts(endpoint)
    load, steal, started = os.getloadavg()[0], machine.steal_ticks(), dt.datetime.now(dt.UTC)
    shares, foreign = endpoint.answered_by_replica(), Watch(endpoint, cluster.pids_here() if cluster else ())
    with (
        view.load(_title(endpoint, plan), plan.duration_s) as progress,
        resources.watching(endpoint, plan.usage, elsewhere) as used,
    ):

        def mark() -> None:
            used.mark()
            foreign.mark()

        result = _send(endpoint, plan, payload, arrivals, choice, mark, progress, cluster)
    manifest = TrialManifest(
        phase=plan.phase,
        lifetime=plan.lifetime,
        attempt=plan.attempt,
        arm_number=plan.arm_number,
        arm=_resolved(endpoint, plan.arm, payload),
        block=plan.block,
        implementation=endpoint.implementation,
        rate_per_s=plan.rate_per_s,
        duration_s=plan.duration_s,
        timeout_s=plan.timeout_s,
        seeds=Seeds(entropy=plan.seed, arrivals=[*plan.key, 0], payload=[*plan.key, 1]),
        pool=len(payload.bodies),
        header_names=sorted({*endpoint.headers, *payload.headers} - {"content-type"}),
        generator=result.generator,
        server=_server(endpoint),
        rows=len(result.samples),
        messages=None if result.chunks is None else len(result.chunks),
        ceiling_per_s=_ceiling(ceilings, payload, plan.arm.http),
        host=_host(endpoint, load, steal, foreign.result(), result.generator.workers),
        # What a server times of a stream is when it took the request, and not what it sent since.
        components=None if plan.arm.streams else components.split(result.samples, counted, statistics(endpoint)),
        cache={name: value - cached.get(name, 0.0) for name, value in cache_counts(endpoint).items()},
        usage=used.groups(result.generator, plan.duration_s),
        counters=used.counters,
        containers=used.containers,
        shares=_shares(endpoint, shares, int((result.samples["status"] == "ok").sum())),
        started_at=started.isoformat(timespec="seconds"),
    )
    manifest.verdict = judge_trial(result.samples, manifest, result.chunks)
    return Outcome(result.samples, manifest, used.rows, result.logs, result.chunks)


def _chosen(payload: Payload, plan: Plan, count: int, seed: np.random.SeedSequence) -> tuple[Payload, Choice]:
    """Return the bodies of this trial, and which of them each request carries."""
    arm = plan.arm
    name = f"{arm} {plan.attempt}"
    if arm.repeat is not None:
        bodies, choice = similarity.repeating(payload.bodies, arm.repeat, count, seed, name)
    elif arm.zipf is not None:
        bodies, choice = similarity.popular(payload.bodies, arm.zipf, count, seed, name)
    else:
        return payload, schedule.payload_choice(count, len(payload.bodies), seed)
    return replace(payload, bodies=bodies), choice


def _ceiling(ceilings: Mapping[str, Points], payload: Payload, http: str) -> float | None:
    # REST on HTTP/2 has the engine's gRPC codec and connections: against the null server both came within 12 %.
    return ceiling.of_payload(ceilings, "grpc" if http == "2" else payload.protocol, payload.bodies)


def _targets(endpoint: Endpoint, arm: Arm) -> Sequence[str]:
    """Return the replicas among which the client picks; none if it does not."""
    if not arm.pick:
        return ()
    if not endpoint.replicas.get(arm.protocol):
        raise ConfigError(f"pick={arm.pick!r} needs replicas to pick from: deploy them with balancer='client'")
    return endpoint.replicas[arm.protocol]


def _send(
    endpoint: Endpoint,
    plan: Plan,
    payload: Payload,
    arrivals: Sequence[Schedule],
    choice: Choice,
    mark: Callable[[], None],
    progress: Progress,
    cluster: Cluster | None,
) -> engine.Result:
    """Send the load by the arm's client; on a cluster, from all workers."""
    arm, cores = plan.arm, tuple((machine.split_cores() or ((),))[0])
    url = f"{endpoint.scheme(arm.protocol, arm.http)}://{endpoint.address(arm.protocol)}{payload.path}"
    targets = _targets(endpoint, arm)
    headers = {**endpoint.headers, **payload.headers}
    if arm.client != "wire":
        mark()
        with ticking(progress):
            result = SENDERS[arm.client](
                plan,
                url,
                payload.bodies,
                arrivals[0],
                choice,
                timeout_s=plan.timeout_s,
                connections=arm.limit(),
                headers=headers,
                ca=endpoint.ca,
                cores=cores,
            )
        mark()
        return result
    each = max(1, arm.limit() // len(arrivals))
    run_engine: Callable[..., engine.Result] = partial(distributed.run, cluster) if cluster else engine.run
    return run_engine(
        url,
        payload.bodies,
        arrivals,
        np.split(choice, np.cumsum([len(one) for one in arrivals])[:-1]),
        timeout_s=plan.timeout_s,
        connections=each,
        open_first=min(8, each),
        headers=headers,
        cores=() if cluster else cores,
        gzip=arm.gzip,
        ca=endpoint.ca,
        keep_alive=arm.reuse,
        targets=targets,
        pick=arm.pick,
        streaming=streaming(payload.stream, payload.messages),
        progress=progress,
        mark=mark,
    )


def streaming(stream: Stream | None, messages: int) -> Streaming | None:
    """Return how the engine reads replies of so many messages (0: any number); None of replies that are no streams."""
    if stream is None:
        return None
    return Streaming(stream.way, messages, stream.done, stream.needs_done, stream.errors)


class Connecting(TypedDict):
    """How a client is connected, beside the URL; as of :func:`infscale.load.clients.run`."""

    timeout_s: float
    connections: int
    headers: Mapping[str, str]
    ca: str
    cores: Sequence[int]


class Sender(Protocol):
    """A function that sends the load of a plan by another client than the load engine."""

    def __call__(
        self,
        plan: Plan,
        url: str,
        bodies: Sequence[bytes],
        arrivals: Schedule,
        choice: Choice,
        **connecting: Unpack[Connecting],
    ) -> engine.Result:
        """Send it, and return when every request has an outcome; a closed loop leaves the arrivals alone."""


def _by_library(
    plan: Plan,
    url: str,
    bodies: Sequence[bytes],
    arrivals: Schedule,
    choice: Choice,
    **connecting: Unpack[Connecting],
) -> engine.Result:
    return clients.run(plan.arm.client, url, bodies, arrivals, choice, **connecting)


def _by_tool(run: Callable[..., engine.Result], *, judges: bool = False) -> Sender:
    """Return what sends a load by the ``run`` of a load tool, which draws its own arrivals or waits.

    One that ``judges`` by a limit itself is given that of the plan.
    """

    def send(
        plan: Plan,
        url: str,
        bodies: Sequence[bytes],
        arrivals: Schedule,
        choice: Choice,
        **connecting: Unpack[Connecting],
    ) -> engine.Result:
        seed = np.random.SeedSequence(plan.seed, spawn_key=(*plan.key, 0))  # as of arrivals
        return run(
            plan.arm.client,
            url,
            bodies,
            choice,
            rate_per_s=plan.rate_per_s,
            duration_s=plan.duration_s,
            seed=int(seed.generate_state(1)[0]),
            **({"slo": plan.slo} if judges else {}),
            **connecting,
        )

    return send


SENDERS: dict[str, Sender] = {
    "requests": _by_library,
    "grpcio": _by_library,
    "locust": _by_tool(locust_client.run),
    "locust-poisson": _by_tool(locust_client.run),
    "loadgen-single": _by_tool(loadgen_client.run, judges=True),
    "loadgen-server": _by_tool(loadgen_client.run, judges=True),
    "loadgen-offline": _by_tool(loadgen_client.run, judges=True),
}
"""What sends the load, by the client of :data:`infscale.experiment.design.arm.CLIENTS`; but for the load engine."""

CHECKS: dict[str, Callable[[], None]] = {
    "locust": locust_client.check_installed,
    "loadgen": loadgen_client.check_installed,
}
"""What finds out whether a load tool is installed, by its name."""


def check_client(client: str) -> None:
    """Find out whether a client can be used here.

    Raises:
        ConfigError: it makes no load here.
        MissingError: it is not installed; the message says how to get it.
    """
    one_of("client", client, CLIENTS)
    if tool := CLIENTS[client].tool:
        CHECKS[tool]()


def send(plan: Plan, url: str, bodies: Sequence[bytes], arrivals: Schedule, choice: Choice) -> engine.Result:
    """Send a load by the client of a plan's arm to an address, and return when every request has an outcome.

    For servers that no deployment has started: it is as in a trial, without what a trial records beside the rows.

    Args:
        plan: the arm, λ, the length and the time limit.
        url: as of :func:`infscale.load.clients.run`.
        bodies, arrivals, choice: the pool, the scheduled times (ns), and which body each request carries.

    Raises:
        MissingError: the client is not installed.
    """
    check_client(plan.arm.client)
    connecting = Connecting(
        timeout_s=plan.timeout_s,
        connections=plan.arm.limit(),
        headers={},
        ca="",
        cores=tuple((machine.split_cores() or ((),))[0]),
    )
    if plan.arm.client == "wire":
        first = min(8, plan.arm.limit())
        return engine.run(url, bodies, [arrivals], [choice], open_first=first, **connecting)
    return SENDERS[plan.arm.client](plan, url, bodies, arrivals, choice, **connecting)


_payloads: dict[tuple[object, ...], Payload] = {}
"""Payloads by everything that decides their bodies: a pool takes seconds to encode."""


def payload_of(endpoint: Endpoint, arm: Arm) -> Payload:
    """Return the pool of requests of an arm, encoded when it is first asked for.

    Raises:
        ConfigError: the server does not take the encoding, or does not answer with the streams of the arm.
    """
    if endpoint.own is not None:  # it keeps its own
        return endpoint.payload(arm.protocol, encoding=arm.encoding, batch=arm.batch)
    if arm.streams:
        payload = endpoint.stream(arm.protocol, plan_of(arm))
        if arm.encoding not in ("", payload.encoding):
            accepted = f"{payload.encoding!r}, or '' for it"
            raise ConfigError(
                f"encoding={arm.encoding!r} is not how {endpoint.label} streams over {arm.protocol}; "
                f"accepted: {accepted}"
            )
        return payload
    change = similarity.marked if arm.repeat is not None or arm.zipf is not None else None
    key = endpoint.framework, endpoint.model, arm.protocol, arm.encoding, arm.batch, change
    if key not in _payloads:
        _payloads[key] = endpoint.payload(
            arm.protocol, encoding=arm.encoding, batch=arm.batch, count=POOL, change=change
        )
    return _payloads[key]


def plan_of(arm: Arm) -> StreamPlan:
    """Return what the model ``stream`` is asked for by an arm.

    Raises:
        ConfigError: it cannot send such messages.
    """
    return StreamPlan(arm.messages or 0, arm.message_bytes, round(1e3 * arm.interval_ms))


def _resolved(endpoint: Endpoint, arm: Arm, payload: Payload) -> Arm:
    """Return the arm with the defaults that this trial had."""
    return msgspec.structs.replace(
        arm,
        encoding=payload.encoding,
        connections=arm.limit(),
        framework=arm.framework or endpoint.framework,
        model=endpoint.model,
    )


def _server(endpoint: Endpoint) -> ServerProcess:
    # Below the project's root, paths are the same on every machine.
    command = [part.replace(str(project_root()), ".") for part in endpoint.command]
    pids = [process.pid for process in endpoint.processes()]
    return ServerProcess(command=command, pids=pids, ready_s=round(endpoint.ready_s, 3))


def _host(
    endpoint: Endpoint,
    load: float,
    steal: tuple[int, int],
    foreign: ForeignCpu | None,
    workers: Sequence[ClusterWorker],
) -> Host:
    stolen, ticks = (after - before for after, before in zip(machine.steal_ticks(), steal, strict=True))
    shares = [worker.steal_fraction for worker in workers if worker.steal_fraction is not None]
    shares += [stolen / ticks] if ticks else []
    return Host(
        same_host=endpoint.same_host(),
        link=endpoint.link,
        tls=bool(endpoint.tls),
        loadavg_1m=round(load, 2),
        steal_fraction=max(shares, default=None),
        cores=len(os.sched_getaffinity(0)),
        pinned=machine.split_cores() is not None,
        foreign=foreign,
    )


def _shares(endpoint: Endpoint, before: Sequence[float], succeeded: int) -> list[float | None]:
    """Return the requests that each replica answered in the trial; None for one that does not tell."""
    if not before:
        return []
    await_counts(endpoint, sum(before) + succeeded)
    gained = [after - earlier for earlier, after in zip(before, endpoint.answered_by_replica(), strict=True)]
    return [None if math.isnan(count) else count for count in gained]
