"""The answer of each finding beyond its cases: sentences that follow the data, with intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis import cost
from infscale.analysis.intervals import Interval
from infscale.analysis.tables import usage as usage_table
from infscale.analysis.tables.saturation import capacity_ratio, replicate_brackets
from infscale.findings.ratios import Tables, capacities_told, column, prefixes, ratio, told
from infscale.findings.topology import caching, load_balancing
from infscale.records.runs import Run
from infscale.vocabulary import CANNOT, number

EXAMPLE_PRICE = 0.10
"""Of an hour of the machine, in any currency: what the report reckons with."""


# --------------------------------------------------------------------------------------- by finding


def client_stacks(run: Run, tables: Tables) -> list[str]:
    """The gap between the protocols through the libraries and through the wire engine, and the client's CPU."""
    sentences = []
    cpu = tables["every"].query("phase == 'grid'").groupby("label")["engine_cpu_us_per_request"].mean()
    for prefix in prefixes(tables, "REST, wire"):
        names = {way: f"{prefix}{way}" for way in ("REST, wire", "REST, requests", "gRPC, wire", "gRPC, grpcio")}
        libraries = ratio(tables["trials"], names["REST, requests"], names["gRPC, grpcio"])
        wire = ratio(tables["trials"], names["REST, wire"], names["gRPC, wire"])
        costs = ", ".join(f"{way} {number(float(cpu.get(name, np.nan)))}" for way, name in names.items())
        sentences.append(
            f"{prefix}p95 of REST ÷ gRPC is {told(libraries)} through the libraries and {told(wire)} through the wire "
            f"engine: {_part(libraries, wire)}. The client's CPU in µs a request: {costs}."
        )
    return sentences


def _part(libraries: Interval, wire: Interval) -> str:
    if not np.isfinite([libraries.low, wire.low]).all():
        return f"{CANNOT} how much of the gap is the libraries'"
    if libraries.low > wire.high:
        return "the libraries move the gap in favour of gRPC"
    if libraries.high < wire.low:
        return "the libraries move the gap in favour of REST"
    return f"{CANNOT} whether the libraries move the gap"


def hybrid(run: Run, tables: Tables) -> list[str]:
    """Each edge against direct REST with JSON and direct gRPC, and the edge's own CPU."""
    sentences, brackets = [], replicate_brackets(tables["trials"])
    gateway, server = column(tables, "cpu_us_gateway"), column(tables, "cpu_us_server")
    for prefix in prefixes(tables, "gRPC"):
        for edge in ("edge, JSON", "edge, binary"):
            name = f"{prefix}{edge}"
            if name not in gateway:
                continue
            found = {d: ratio(tables["trials"], name, f"{prefix}{d}") for d in ("REST JSON", "gRPC")}
            most = {d: capacity_ratio(brackets, name, f"{prefix}{d}") for d in ("REST JSON", "gRPC")}
            compared = "; ".join(
                f"against direct {d} its p95 is {told(found[d])} times and "
                f"its capacity {capacities_told(most[d])} times"
                for d in found
                if f"{prefix}{d}" in gateway
            )
            sentences.append(
                f"{name}: {compared}. A request takes {number(gateway[name])} µs of the edge's CPU beside "
                f"{number(server[name])} µs of the model server's."
            )
    return sentences


def utilisation(run: Run, tables: Tables, price_per_hour: float = EXAMPLE_PRICE) -> list[str]:
    """CPU of a request by group of processes, and what a million requests cost."""
    costs = costs_table(tables, price_per_hour)
    if costs.empty:
        return []
    cases = tables["cases"].merge(costs.drop(columns="protocol"), on="label", suffixes=("", "_at_capacity"))
    sentences = []
    for _, row in cases.iterrows():
        sentences.append(
            f"{row['label']}: a request takes {number(row.get('cpu_us_client', np.nan))} µs of the client's CPU and "
            f"{number(row.get('cpu_us_server', np.nan))} µs of the server's at λ = {number(row['rate_per_s'])}/s; "
            f"{number(row['per_core'])} requests/s per core used and {number(row['per_gb'])} per GB at capacity; a "
            f"million requests cost {number(row['cost_per_million'])} at {price_per_hour:g} an hour of this machine "
            "(an example)."
        )
    return sentences


def costs_table(tables: Tables, price_per_hour: float = EXAMPLE_PRICE) -> pd.DataFrame:
    """What a deployment uses at λ* and what that costs (:func:`infscale.analysis.cost.table`), a row a case.

    NaN where λ* has no bracket, or its verdicts contradict one another.
    """
    cases = tables["cases"].set_index("label")
    known = cases["saturation_per_s"].where(cases["bound"] == "").to_dict()
    found = usage_table.at_capacity(tables["usage"], {str(label): float(rate) for label, rate in known.items()})
    return cost.table(found, price_per_hour) if len(found) else found


def porting(run: Run, tables: Tables) -> list[str]:
    """How far the outputs differ from the reference, and what took how many steps."""
    pilots = run.manifest["pilot"]
    labels = {i: run.label(i) for i in run.manifest["implementations"]}
    worst: dict[str, float] = {}
    for found in pilots.values():
        most = max(found["differences"].values())
        worst[found["implementation"]] = max(most, worst.get(found["implementation"], 0.0))
    outputs = ", ".join(f"{labels.get(name, name)} {value:.1e}" for name, value in worst.items())
    alike = "answer alike" if max(worst.values()) < ALIKE else "do not answer alike"
    return [
        f"The same weights {alike} (accepted: {ALIKE:.0e}): the largest absolute difference from the numpy reference "
        f"over all protocols and encodings is {outputs}.",
        *(f"Steps to port to {name}: {steps}" for name, steps in STEPS.items()),
    ]


ALIKE = 1e-5
"""Largest difference of two implementations of the same float32 arithmetic."""
STEPS = {
    "TensorFlow Serving": "weights into TensorFlow constants, tf.function with a signature, tf.saved_model.save into "
    "a numbered folder; nothing else is configured.",
    "TorchServe": "weights into a torch module, transposed; torch.jit.trace; a handler of our own that decodes and "
    "encodes every content type; torch-model-archiver into a .mar; TorchServe's configuration file.",
    "Triton": "weights into an .npz file, a forward pass in numpy as model.py for the Python backend (the wheel has no "
    "other), config.pbtxt with names, types, shapes and the largest batch.",
}
"""What exports.py and the servers' modules do, in words."""


def network(run: Run, tables: Tables) -> list[str]:
    """The gap between JSON and gRPC by link; in words as far as Holm's correction leaves it."""
    brackets, sentences = replicate_brackets(tables["trials"]), []
    concluded = {row["label"]: row["conclusion"] for _, row in tables["contrasts"].iterrows()}
    words = {"faster": "JSON is slower", "slower": "gRPC is slower"}
    for prefix in prefixes(tables, "JSON"):
        found = words.get(concluded.get(f"{prefix}gRPC", ""), f"{CANNOT} which is slower")
        p95 = ratio(tables["trials"], f"{prefix}JSON", f"{prefix}gRPC")
        most = capacity_ratio(brackets, f"{prefix}gRPC", f"{prefix}JSON")
        sentences.append(
            f"{prefix.rstrip(', ')}: p95 of REST with JSON ÷ gRPC is {told(p95)} "
            f"({found}); capacity of gRPC ÷ JSON is {capacities_told(most)}."
        )
    return sentences


ANSWERS: dict[str, Callable[[Run, Tables], list[str]]] = {
    "client-stacks": client_stacks,
    "hybrid": hybrid,
    "caching": caching,
    "utilisation": utilisation,
    "porting": porting,
    "load-balancing": load_balancing,
    "network": network,
}


def answers(run: Run, tables: Tables) -> list[str]:
    """The sentences of the run's own finding; none where its cases say it all."""
    name: Any = run.manifest["experiment"]
    return ANSWERS[name](run, tables) if name in ANSWERS else []
