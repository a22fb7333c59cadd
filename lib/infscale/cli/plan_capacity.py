"""``infscale plan capacity``: how many replicas a rate and an SLO need, by simulation of measured service times."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infscale.cli.options import Command, Milliseconds, Number, Percent, Whole, option
from infscale.errors import ConfigError
from infscale.vocabulary import number

if TYPE_CHECKING:
    from infscale.analysis.planning.capacity import Plan
    from infscale.analysis.queueing.service import Service
    from infscale.analysis.queueing.simulate import Cache
    from infscale.cli import printed
    from infscale.experiment.design.slo import Slo
    from infscale.records.runs import Run

FINDING = "planning"
"""The finding whose newest run is taken where none is named."""

NOTES = """\
Everything but the service times is simulated: Poisson arrivals, replicas that are alike and do not fail, one queue at \
each, no time for the network beyond what was measured. Service times are those of requests that met no other, at the \
arm's lowest rate; an arm behind a balancer has its hop in them. An interval holds what measuring again would change, \
by lifetimes, and what simulating again would. Where it holds the limit, the number of replicas is undecided. How far \
such predictions are from measurements is the finding "planning".
"""


def _run(
    *,
    run: str,
    arm: str,
    rate: float,
    slo: str,
    balancer: tuple[str, ...],
    connections: int,
    concurrency: int | None,
    cores: float | None,
    hits: float | None,
    hit_time: float,
    items: int,
    zipf: float,
    entries: int,
    price: float | None,
    seed: int,
    json: bool,
) -> None:
    """Print the replicas that are needed behind each balancer.

    Raises:
        InfscaleError: no such run or arm, too few service times, or a rate beyond every capacity.
    """
    from dataclasses import replace

    from infscale.analysis.planning.capacity import plan
    from infscale.analysis.queueing.service import of_arm
    from infscale.analysis.queueing.simulate import BALANCERS, Cache, System
    from infscale.errors import check_rate, one_of
    from infscale.experiment.design.slo import parse
    from infscale.records.runs import find_run, load_run

    check_rate(rate, "--rate")
    objective = parse(slo, "--slo")
    for name in balancer:
        one_of("--balancer", name, BALANCERS)
    stored = load_run(find_run(run, finding=FINDING))
    service = of_arm(stored, _chosen(stored, arm))
    service = replace(service, workers=concurrency) if concurrency else service
    if hits is None and not items:  # as measured
        cache = Cache(service.hit_share, hit_s=service.hit_s)
    else:
        cache = Cache(hits or 0.0, items, zipf, entries, hit_time / 1e3)
    plans = [
        plan(
            service,
            System(1, name, connections, cores, cache),
            rate,
            objective,
            price_per_hour=math.nan if price is None else price,
            seed=seed,
        )
        for name in balancer or BALANCERS
    ]
    if json:
        from infscale.cli import printed

        printed.emit(_record(stored, service, rate, objective, plans))
    else:
        print("\n".join(_lines(stored, service, cache, rate, objective, plans)))


def _chosen(run: "Run", text: str) -> int:
    """Return the number of the arm that a text names; without a text the only one with one replica.

    Raises:
        ConfigError: it names none, or several; with those that there are.
    """
    arms = run.manifest.design.arms
    alone = [n for n in run.measured if arms[n].replicas == 1 and not arms[n].closed and not arms[n].streams]
    named = [n for n in alone if text in (str(n), run.labels[n])] or [n for n in alone if text in run.labels[n]]
    if len(named) == 1:
        return named[0]
    accepted = "; ".join(f"{n} ({run.labels[n]})" for n in alone) or "none: no arm of this run has one replica"
    what = f"--arm {text!r} names {len(named) or 'none'} of them" if text else "--arm is needed"
    raise ConfigError(f"{what} in the run {run.id}; accepted: {accepted}")


def _lines(
    run: "Run", service: "Service", cache: "Cache", rate: float, slo: "Slo", plans: Sequence["Plan"]
) -> list[str]:
    held = service.held
    workers = "any number of requests" if service.workers >= 1 << 30 else f"{service.workers} at a time"
    cores = plans[0].system.cores
    return [
        f"Service times of {service.source} (run {run.id}): {len(held)} requests that met no other, "
        f"{len(service.parts)} lifetimes.",
        f"A worker holds one for {number(1e3 * service.mean_s)} ms on average, {workers} in a replica; "
        f"{number(1e3 * service.beside_s)} ms pass beside." + (f" Note: {service.note}." if service.note else ""),
        *_few(service),
        *_computing(service, cores),
        *([_cached(cache, plans[0])] if cache.share or cache.items else []),
        "",
        f"Simulated, for {rate:g} requests/s and {slo} (response times in ms with 95 % intervals):",
        *(table := _table(plans, service)),
        *([UNKNOWN_NOTE] if any(UNKNOWN in line for line in table) else []),
        "",
        *(_sentence(one, slo) for one in plans),
    ]


UNKNOWN = "unknown"
UNKNOWN_NOTE = f"{UNKNOWN}: too few of the long queues that make this percentile were simulated."


def _few(service: "Service") -> list[str]:
    from infscale.analysis.intervals import MIN_LIFETIMES

    if len(service.parts) >= MIN_LIFETIMES:
        return []
    return [
        f"Below {MIN_LIFETIMES} lifetimes nothing says how much they differ: intervals are of the simulation alone."
    ]


def _computing(service: "Service", cores: float | None) -> list[str]:
    if cores is not None:
        return [f"All replicas share {cores:g} cores: of n busy workers each advances at min(1, {cores:g}/n)."]
    if service.computes:
        return ["The model computes: each replica is taken to have cores of its own; --cores C shares C among all."]
    return []


def _cached(cache: "Cache", plan: "Plan") -> str:
    what = f"{cache.entries:,} of {cache.items:,} different requests" if cache.items else "requests at random"
    return (
        f"A cache before the replicas answers {100 * plan.simulated.hits:.0f} % of the requests ({what}), each in "
        f"{number(1e3 * cache.hit_s)} ms."
    )


def _table(plans: Sequence["Plan"], service: "Service") -> list[str]:
    priced = any(math.isfinite(plan.per_million) for plan in plans)
    names = list(plans[0].simulated.percentiles)
    head = ["balancer", "replicas", "requests/s each", "busy", *names, *(["cost per million"] if priced else [])]
    rows = [
        [
            plan.system.balancer,
            _replicas(plan),
            number(plan.per_replica_per_s),
            f"{100 * plan.simulated.utilisation:.0f} %",
            *(_percentile(plan, name, service) for name in names),
            *([number(plan.per_million)] if priced else []),
        ]
        for plan in plans
    ]
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def _replicas(plan: "Plan") -> str:
    return str(plan.most) if plan.decided else f"{plan.fewest} to {plan.most}"


def _percentile(plan: "Plan", name: str, service: "Service") -> str:
    from infscale.analysis.queueing.simulate import PERCENTILES
    from infscale.errors import DataError

    try:
        service.check(PERCENTILES[name])
    except DataError:
        return "-"
    value = plan.simulated.percentiles[name]
    return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]" if value.known else UNKNOWN


def _sentence(plan: "Plan", slo: "Slo") -> str:
    name = plan.system.balancer
    if plan.decided:
        return f"{name}: {plan.most} replica{'s' if plan.most > 1 else ''} keep {slo}."
    return (
        f"{name}: undecided between {plan.fewest} and {plan.most} replicas: {plan.most} keep {slo}, and of fewer the "
        "interval holds the limit."
    )


def _record(
    run: "Run", service: "Service", rate: float, slo: "Slo", plans: Sequence["Plan"]
) -> "printed.PlannedCapacity":
    """Return the result as it is printed as JSON."""
    from infscale.cli import printed

    return printed.PlannedCapacity(
        run=run.id,
        service=printed.ServiceTimes(
            source=service.source,
            requests=len(service.held),
            lifetimes=len(service.parts),
            held_mean_ms=1e3 * service.mean_s,
            beside_ms=1e3 * service.beside_s,
            workers=service.workers,
            server_cpu_ms=1e3 * service.server_cpu_s,
            note=service.note,
        ),
        rate_per_s=rate,
        slo=str(slo),
        simulated=True,
        plans=[_replicas_record(plan, service) for plan in plans],
    )


def _replicas_record(plan: "Plan", service: "Service") -> "printed.PlannedReplicas":
    from infscale.cli import printed

    times = {
        f"{name.replace('.', '_')}_ms": (value.value, value.low, value.high)
        if _percentile(plan, name, service) != "-"
        else None
        for name, value in plan.simulated.percentiles.items()
    }
    return printed.PlannedReplicas(
        balancer=plan.system.balancer,
        decided=plan.decided,
        replicas=plan.most if plan.decided else None,
        replicas_fewest=plan.fewest,
        replicas_most=plan.most,
        rate_per_replica_per_s=plan.per_replica_per_s,
        utilisation=plan.simulated.utilisation,
        hit_share=plan.simulated.hits,
        cores=plan.cpu_cores,
        cost_per_million=plan.per_million,
        **times,
    )


CAPACITY = Command(
    "capacity",
    _run,
    [
        option("--rate", section="Question", type=Number(above=0), required=True),
        option(
            "--slo",
            section="Question",
            metavar="LIMIT",
            required=True,
            note="Here a percentile and its limit: 'p99<50ms'.",
        ),
        option("--run", section="Service times", default="", note="Of the finding planning, where none is named."),
        option("--arm", section="Service times", default="", note="With one replica; needed where there are several."),
        option("--concurrency", section="Service times", type=Whole(1)),
        option("--balancer", section="Replicas", note="Default: all."),
        option("--connections", section="Replicas", default=64, type=Whole(1, 1_000_000), note="Of l4, in all."),
        option("--cores", section="Replicas", type=Number(above=0)),
        option("--price", section="Replicas", type=Number()),
        option("--hits", section="Cache", type=Percent(), note="Without it, and without --items, as in the run."),
        option("--hit-time", section="Cache", default="0.5ms", type=Milliseconds()),
        option("--items", section="Cache", default=0, type=Whole(0, 100_000_000)),
        option("--zipf", section="Cache", default="1", type=Number()),
        option("--entries", section="Cache", default=0, type=Whole(0, 100_000_000)),
        option("--seed", section="Output", default=1, type=Whole(0), note="Here of all draws."),
        option("--json", section="Output"),
    ],
    help="Say how many replicas of a measured server a rate and an SLO need behind each balancer, with and without a "
    "cache, and what they cost: a simulation with service times from the rows of a run.",
    examples=(
        "infscale plan capacity --arm 'device, Triton, 1 replica' --rate 1000 --slo 'p95<50ms'",
        "infscale plan capacity --arm cnn --rate 20000 --slo 'p95<20ms' --balancer power-of-two --hits 50% --json",
    ),
    notes=NOTES,
)  # fmt: skip
