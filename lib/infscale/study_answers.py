"""The answer of each finding beyond its cases: sentences that follow the data, with intervals."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from infscale.estimates import Interval, geometric_mean
from infscale.findings import number
from infscale.runs import Run
from infscale.summary import withheld_because
from infscale.trial_table import used
from infscale.validity import VALID

Tables = dict[str, pd.DataFrame]
P95 = "response_p95_ms"


def ratio(trials: pd.DataFrame, over: str, under: str, column: str = P95) -> Interval:
    """One case ÷ another in ``column``, paired by replicate where both are VALID and steady."""
    frame = used(trials)
    frame = frame[(frame["verdict"] == VALID) & frame["steady"] & np.isfinite(frame[column].astype(float))]
    wide = frame.pivot_table(index=["rate_per_s", "replicate"], columns="label", values=column)
    both = {over, under} <= set(wide.columns)
    return geometric_mean((wide[over] / wide[under]).dropna().to_numpy() if both else np.array([]))


def told(estimate: Interval) -> str:
    """A ratio with its interval, or why there is none."""
    if not np.isfinite(estimate.value):
        return f"unknown ({withheld_because(estimate.replicates)})"
    if not np.isfinite(estimate.low):
        return f"{number(estimate.value)} ({withheld_because(estimate.replicates)})"
    return f"{number(estimate.value)} (95 % interval {number(estimate.low)} to {number(estimate.high)})"


def client_stacks(run: Run, tables: Tables) -> list[str]:
    """The gap between the protocols through the libraries and through the wire engine, and the client's CPU."""
    sentences = []
    for prefix in _prefixes(run, "REST, wire"):
        names = {way: f"{prefix}{way}" for way in ("REST, wire", "REST, requests", "gRPC, wire", "gRPC, grpcio")}
        trials, cpu = tables["trials"], _client_cpu(tables)
        libraries = ratio(trials, names["REST, requests"], names["gRPC, grpcio"])
        wire = ratio(trials, names["REST, wire"], names["gRPC, wire"])
        costs = ", ".join(f"{way} {number(cpu.get(name, float('nan')))}" for way, name in names.items())
        sentences.append(
            f"{prefix}p95 of REST ÷ gRPC is {told(libraries)} through the libraries and {told(wire)} through the wire "
            f"engine: {_part(libraries, wire)}. The client's CPU in µs a request: {costs}."
        )
    return sentences


def _part(libraries: Interval, wire: Interval) -> str:
    if not np.isfinite([libraries.low, wire.low]).all():
        return "cannot conclude how much of the gap is the libraries'"
    if libraries.low > wire.high:
        return "the libraries widen the gap"
    if libraries.high < wire.low:
        return "the libraries narrow the gap"
    return "cannot conclude whether the libraries widen or narrow the gap"


def _client_cpu(tables: Tables) -> dict[str, float]:
    grid = tables["trials"][tables["trials"]["phase"] == "grid"]
    return {str(k): float(v) for k, v in grid.groupby("label")["engine_cpu_us_per_request"].mean().items()}


def _prefixes(run: Run, ending: str) -> Iterable[str]:
    """What stands before ``ending`` in the names of cases: a framework's name, or nothing."""
    names = [case["name"] for case in run.manifest["config"]["cases"]]
    return [name.removesuffix(ending) for name in names if name.endswith(ending)]


ANSWERS: dict[str, Callable[[Run, Tables], list[str]]] = {"client-stacks": client_stacks}


def answers(run: Run, tables: Tables) -> list[str]:
    """The sentences of the run's own finding; none where its cases say it all."""
    name: Any = run.manifest["experiment"]
    return ANSWERS[name](run, tables) if name in ANSWERS else []
