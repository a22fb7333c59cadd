"""Tables of trials made up for tests, as :mod:`infscale.analysis.tables` takes them. Nothing here was measured."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from helpers.synthetic_run import TORCHSERVE, manifest_of, run_manifest_of
from infscale.analysis.tables import Tables
from infscale.analysis.tables.run_tables import from_trials
from infscale.analysis.tables.trials import METRICS, STREAM_METRICS, WITHHELD, factors, reported
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import PER_CORE, PER_MESSAGE, SHARES, Design
from infscale.experiment.design.labels import labels
from infscale.records.components import PARTS
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Floats
from infscale.records.manifest import (
    GroupUsage,
    Implementation,
    KnownLoad,
    Lifetime,
    Pilot,
    Reported,
    RunManifest,
    Tool,
)
from infscale.records.runs import Run, Trial

ARMS = (Arm("rest", "json", framework="torchserve"), Arm("grpc", "raw", framework="torchserve"))
"""REST and gRPC on one framework: arms 0 and 1, compared with arm 1."""


def identity(arms: Sequence[Arm] = ARMS, reference: int = -1) -> dict[int, dict[str, Any]]:
    """The columns that identify each arm, by its number; all arms are of the block of one."""
    block = reference % len(arms)
    return {
        number: {
            "run_id": "r",
            "arm": number,
            "block": block,
            "label": label,
            "system": "TorchServe",
            "implementation": TORCHSERVE,
            **factors(arm),
        }
        for number, (arm, label) in enumerate(zip(arms, labels(arms), strict=True))
    }


def rows_of(
    arms: Sequence[Arm] = ARMS,
    rates: Sequence[float] = (100.0, 200.0, 400.0),
    lifetimes: int = 4,
    reference: int = -1,
    **changes: Any,
) -> pd.DataFrame:
    """Trials as ``trials_table`` returns them: each arm at each rate, in each lifetime, VALID and equally fast."""
    base: dict[str, Any] = {
        "phase": "grid",
        "attempt": 1,
        "verdict": VALID,
        "reasons": "",
        "scheduled": 1000,
        "n": 1000,
        "response_p99_ms_n_eff": 1000.0,
        "failed": 0,
        "bytes_out": 3200.0,
        "bytes_in": 100.0,
        "hit_ratio": float("nan"),
        "engine_cpu_us_per_request": 50.0,
        "lag_p50_ms": 0.1,
        "lag_p99_ms": 0.2,
        "slo_passed": True,
        "dispersion_difference": 0.01,
        "gaps_distance": 0.02,
        "ceiling_share": 0.1,
        "verdict_stored": "",
        "duration_s": 1.0,
        "warm_up_s": 0.1,
        "engine_cpu_share": 0.2,
        "same_host": True,
        "pinned": False,
        "loadavg_1m": 0.4,
        "steal_fraction": 0.0,
    }
    rows = []
    for identifier in identity(arms, reference).values():
        for rate in rates:
            for lifetime in range(lifetimes):
                row = {**identifier, **base, "rate_per_s": rate, "lifetime": lifetime}
                row |= dict.fromkeys(("offered_per_s", "achieved_per_s", "goodput_per_s", "finished_per_s"), rate)
                row |= reported(None)
                row |= {f"mean_{part}_ms": float("nan") for part in (*PARTS, "response")}
                row |= dict.fromkeys(WITHHELD, 2.0 + 0.1 * lifetime)
                row |= {f"{name}_bound": False for name in METRICS}
                row |= {f"{name}_below_floor": False for name in METRICS if name.startswith("response")}
                rows.append(row | changes)
    return pd.DataFrame(rows).assign(trial_id=[f"t{k}" for k in range(len(rows))])


def put(trials: pd.DataFrame, where: str, **values: Any) -> pd.DataFrame:
    """The trials with some values changed in the rows that a query selects; a query that selects none is a mistake."""
    changed = trials.copy()
    index = changed.query(where).index
    assert len(index)
    for name, value in values.items():
        changed.loc[index, name] = value
    return changed


def row_of(table: pd.DataFrame, **where: Any) -> Any:
    """The only row in which these columns have these values."""
    chosen = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def verdicts_of(letters: Mapping[int, str], values: Mapping[int, float]) -> pd.DataFrame:
    """Trials of arms at one rate: a letter for each lifetime's verdict (V, U, S, I), and each arm's p95 in ms.

    The p95 rises by 1 ms with each lifetime.
    """
    words = {"V": VALID, "U": UNSTEADY, "S": SATURATED, "I": INVALID}
    arms = [Arm("rest", "json", batch=1 + number, framework="torchserve") for number in letters]
    trials = rows_of(arms, (100.0,), max(map(len, letters.values())), reference=0)
    trials["verdict"] = [words[letters[arm][k]] for arm, k in zip(trials["arm"], trials["lifetime"], strict=True)]
    return trials.assign(response_p95_ms=trials["arm"].map(values) + trials["lifetime"])


def manifest_with(
    rates: Sequence[float] = (100.0, 200.0), lifetimes: int = 4, first_look: int = 4, arms: Sequence[Arm] = ARMS
) -> RunManifest:
    """The manifest of a run of :func:`rows_of`: its rates of moderate load, for every block, and its looks."""
    base = run_manifest_of([TORCHSERVE], {(TORCHSERVE, "rest"): 1.0, (TORCHSERVE, "grpc"): 1.0}, 3, 1.0, (0.5,))
    design = Design(finding="f", arms=tuple(arms))
    every = list(range(len(arms)))
    return msgspec.structs.replace(
        base,
        design=design,
        rates_per_s={block: list(rates) for block in every},
        lifetimes=[Lifetime(arms=every, number=number, seconds=10.0) for number in range(lifetimes)],
        first_look=first_look,
    )


def bracketed(ends: Mapping[int, Sequence[tuple[float, float]]]) -> pd.DataFrame:
    """Trials of a search for λ*: the bracket of each arm in each lifetime; NaN for an end that was not found."""
    rows = [
        {"arm": arm, "lifetime": lifetime, "rate_per_s": rate, "verdict": verdict}
        for arm, brackets in ends.items()
        for lifetime, bracket in enumerate(brackets)
        for rate, verdict in zip(bracket, (VALID, SATURATED), strict=True)
        if rate == rate
    ]
    arms = [Arm("rest", "json", batch=1 + number, framework="torchserve") for number in ends]
    template = rows_of(arms, (1.0,), 1, reference=0).drop(columns=["lifetime", "rate_per_s", "verdict", "phase"])
    return pd.DataFrame(rows).merge(template, on="arm").assign(phase="search")


# --- a whole run -----------------------------------------------------------------------------------

LIFETIMES = 4
"""Of the servers of every group of arms in :func:`searched`."""
Of = Callable[[Arm], float]
"""A value of every arm."""
DEFAULT_ENCODING = {("tfserving", "grpc"): "protobuf", ("torchserve", "grpc"): "raw", ("triton", "grpc"): "protobuf"}


def searched(
    design: Design,
    saturation_per_s: Of = lambda arm: 1000.0,
    p95_ms: Of = lambda arm: 2.0,
    *,
    usage: bool = True,
    left_out: Sequence[int] = (),
) -> tuple[Run, Tables]:
    """A run of four lifetimes, and its tables: every arm brackets its λ* within 5 %, and has its p95 at both rates.

    Arms that are closed loops have no λ*. Of a design with an SLO the rate that keeps it is 80 % of λ*.

    Lifetimes differ by less than 0.1 %. Each trial used 100 µs of the client's and of every server's CPU a request.
    ``left_out``: arms that could not be measured.
    """
    manifest = _manifest_of(design, saturation_per_s, left_out)
    run = Run(Path(), manifest, ())
    rows: list[dict[str, Any]] = []
    trials: list[Trial] = []
    for number in run.measured:
        arm, block = design.arms[number], design.block(number)
        capacity = saturation_per_s(arm)
        ends = [(0.95 * capacity, "search", VALID), (1.05 * capacity, "search", SATURATED)]
        if design.slo:
            ends += [(0.75 * capacity, "capacity", VALID), (0.85 * capacity, "capacity", SATURATED)]
        ends = [] if arm.closed else ends  # of a closed loop no λ* is searched
        rates = [(rate, "grid", VALID) for rate in manifest.rates_per_s[block]]
        for rate, phase, verdict in (*rates, *ends):
            for lifetime in range(LIFETIMES):
                noise = 1 + 0.0001 * ((7 * number + lifetime) % 5)
                name = f"t{len(trials)}"
                at = rate if phase == "grid" else rate * noise
                rows.append(
                    {"arm": number, "phase": phase, "rate_per_s": at, "lifetime": lifetime, "verdict": verdict}
                    | {"trial_id": name, "response_p95_ms": p95_ms(arm) * noise, "hit_ratio": _hit_ratio(arm)}
                    | {"bytes_out": 3200.0 * arm.batch, "response_p50_ms": p95_ms(arm) * noise / 2}
                    | ({"slo_kept": verdict == VALID} if design.slo else {})
                    | (_messages(arm, noise) if arm.streams else {})
                )
                known = manifest_of(
                    arm,
                    trial_id=name,
                    arm_number=number,
                    rate_per_s=at,
                    lifetime=lifetime,
                    usage=_usage(arm, at) if usage else {},
                    messages=2000 if arm.streams else None,
                    shares=[100.0] * arm.replicas if arm.front == "balanced" else [],
                )
                trials.append(Trial(known, Path()))
    run = Run(Path(), manifest, tuple(trials))
    template = rows_of(rates=(1.0,), lifetimes=1).iloc[:1].drop(columns=list(identity()[0]))
    every = pd.DataFrame(rows)
    missing = template.loc[template.index.repeat(len(every)), template.columns.difference(every.columns)]
    every = every.join(missing.reset_index(drop=True))
    arms = pd.DataFrame([_identity_in(run, number) for number in run.measured])
    every = arms.merge(every, on="arm").assign(finished_per_s=lambda table: table["rate_per_s"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infscale.analysis.tables.distributions._responses", lambda trial: _responses(p95_ms, trial))
        patch.setattr("infscale.analysis.tables.distributions._gaps", lambda trial, _: _gaps(trial))
        return run, from_trials(run, every)


def _messages(arm: Arm, noise: float) -> dict[str, Any]:
    """What the streams of a trial brought: over gRPC sooner and for less CPU; behind a proxy together."""
    slower = (1.5 if arm.protocol == "rest" else 1.0) * noise
    held = arm.front == "buffered"
    times = dict.fromkeys(STREAM_METRICS, 2.0 * slower * (10 if held else 1))
    return {
        **times,
        **{f"{metric}_bound": False for metric in STREAM_METRICS},
        "gaps": 5000,
        "stall_ms": 30.0,
        "messages_per_read": 4.0 if held else 1.0,
        "messages_together": 0.75 if held else 0.0,
        "messages_per_s": 4000.0,
        PER_CORE: 8000.0 / slower,
        PER_MESSAGE: 10.0 * slower,
        "coalesced_share": (0.75 if held else 0.01) if arm.interval_ms else float("nan"),
        "coalesced": held,
    }


def _gaps(trial: Trial) -> Floats:
    """Gaps of 1,000 messages; behind a proxy three of four come together."""
    gaps = np.linspace(4.0, 6.0, 1000)
    gaps[: 750 if trial.manifest.arm.front == "buffered" else 0] = 0.0
    return gaps


def _responses(p95_ms: Of, trial: Trial) -> tuple[Floats, Floats]:
    """Scheduled times (s) and response times (ms) of a trial; nineteen of twenty within the arm's p95."""
    return np.linspace(0, 1, 60), p95_ms(trial.manifest.arm) * np.linspace(0.05, 1 / 0.95, 60)


def _manifest_of(design: Design, saturation_per_s: Of, left_out: Sequence[int]) -> RunManifest:
    base = run_manifest_of([TORCHSERVE], {(TORCHSERVE, "rest"): 1.0, (TORCHSERVE, "grpc"): 1.0}, 3, 1.0, (0.5,))
    measured = [number for number in range(len(design.arms)) if number not in left_out]
    blocks: dict[int, list[float]] = {design.block(number): [] for number in measured}
    for number in measured:
        blocks[design.block(number)].append(saturation_per_s(design.arms[number]))
    names = {_implementation(design.arms[number]) for number in measured}
    return msgspec.structs.replace(
        base,
        design=design,
        rates_per_s={block: [share * min(rates) for share in SHARES] for block, rates in blocks.items()},
        pilot={
            number: Pilot(
                implementation=_implementation(design.arms[number]),
                saturation_per_s=saturation_per_s(design.arms[number]),
                encode_us=10.0,
                decode_us=5.0,
                differences={"grpc": 1e-7},
            )
            for number in measured
        },
        skipped=dict.fromkeys(left_out, "not installed"),
        lifetimes=[
            Lifetime(arms=arms, number=number, seconds=10.0) for number in range(LIFETIMES) for arms in design.groups()
        ],
        first_look=LIFETIMES,
        tools={number: _tool(design.arms[number]) for number in measured} if "tools" in design.beside else {},
        implementations={
            name: Implementation(
                name=name,
                framework=name,
                implementation=name,
                version="1",
                label=f"The system {name}",
                runtime="synthetic",
                model="mlp",
            )
            for name in names
        },
    )


def _tool(arm: Arm) -> Tool:
    """What a client makes of known servers: an open loop has 60 late answers, a closed one 8."""
    times = {"p50_ms": 0.3, "p95_ms": 0.5, "p99_ms": 5.0 if arm.closed else 260.0}
    said = Reported(tool="a tool", p50_ms=0.3, p95_ms=0.5, p99_ms=times["p99_ms"], throughput_per_s=200.0)
    load = KnownLoad(
        rate_per_s=200.0,
        stall_ms=300.0,
        rows=1200,
        late=8 if arm.closed else 60,
        answered_per_s=900.0,
        cpu_us=50.0,
        response=times,
        roundtrip=times,
        corrected={**times, "p99_ms": 250.0} if arm.closed else {},
        reported=said if arm.client != "wire" else None,
    )
    return Tool(stall=load, limit=load)


def _implementation(arm: Arm) -> str:
    return "-".join(filter(None, (arm.front, arm.framework)))


def _hit_ratio(arm: Arm) -> float:
    cached = arm.cache or arm.front == "cache"
    return arm.repeat if cached and arm.repeat is not None else float("nan")


def _identity_in(run: Run, number: int) -> dict[str, Any]:
    arm = run.manifest.design.arms[number]
    default = DEFAULT_ENCODING.get((arm.framework, arm.protocol), "json")
    resolved = msgspec.structs.replace(arm, encoding=arm.encoding or default, connections=arm.limit())
    return {
        "run_id": run.id,
        "arm": number,
        "block": run.manifest.design.block(number),
        "label": run.labels[number],
        "system": run.system(run.implementation(number)),
        "implementation": run.implementation(number),
        **factors(resolved),
    }


def _usage(arm: Arm, rate: float) -> dict[str, GroupUsage]:
    front = ["gateway"] if arm.front in ("edge", "cache") else []
    groups = ["client", *front, *(["server"] if arm.replicas == 1 else [f"server {k}" for k in range(arm.replicas)])]
    cpu = 50e-6 * rate
    used = GroupUsage(seconds=1.0, cpu_user_s=cpu, cpu_system_s=cpu, rss_peak_bytes=1e8)
    return dict.fromkeys(groups, used)
