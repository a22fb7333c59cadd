"""The answer of each finding beyond its cases: sentences that follow the data, with intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from infscale import cost
from infscale.estimates import Interval, geometric_mean
from infscale.findings import CANNOT, number
from infscale.runs import Run
from infscale.saturation import capacity_ratio, replicate_brackets
from infscale.summary import withheld_because
from infscale.trial_table import used
from infscale.validity import VALID

Tables = dict[str, pd.DataFrame]
P95 = "response_p95_ms"
EXAMPLE_PRICE = 0.10
"""Of an hour of the machine, in any currency: what the report reckons with."""


def ratio(trials: pd.DataFrame, over: str, under: str, column: str = P95) -> Interval:
    """One case ÷ another in ``column``, paired by λ and replicate where both are VALID and steady."""
    frame = used(trials)
    frame = frame[(frame["verdict"] == VALID) & frame["steady"] & np.isfinite(frame[column].astype(float))]
    wide = frame.pivot_table(index=["rate_per_s", "replicate"], columns="label", values=column)
    both = {over, under} <= set(wide.columns)
    return geometric_mean((wide[over] / wide[under]).dropna().to_numpy() if both else np.array([]))


def told(estimate: Interval) -> str:
    """A ratio with its interval, or why there is none."""
    if not np.isfinite(estimate.value):
        return f"unknown ({withheld_because(estimate.replicates) or 'a bracket is missing'})"
    if not np.isfinite(estimate.low):
        return f"{number(estimate.value)} ({withheld_because(estimate.replicates) or 'a bracket is missing'})"
    return f"{number(estimate.value)} (95 % interval {number(estimate.low)} to {number(estimate.high)})"


def which(estimate: Interval, more: str, less: str) -> str:
    """``more`` where the interval lies above 1, ``less`` where below."""
    if estimate.low > 1:
        return more
    return less if estimate.high < 1 else f"{CANNOT} which"


def prefixes(tables: Tables, ending: str) -> list[str]:
    """What stands before ``ending`` in the names of the cases: a framework's name, a model's, or nothing."""
    return [name.removesuffix(ending) for name in tables["cases"]["label"] if name.endswith(ending)]


def _column(tables: Tables, name: str) -> dict[str, float]:
    """A column of ``cases`` by case; NaN where it was not measured."""
    table = tables["cases"].set_index("label")
    if name not in table:
        return dict.fromkeys(map(str, table.index), float("nan"))
    return {str(label): float(value) for label, value in table[name].items()}


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
    gateway, server = _column(tables, "cpu_us_gateway"), _column(tables, "cpu_us_server")
    for prefix in prefixes(tables, "gRPC"):
        for edge in ("edge, JSON", "edge, binary"):
            name = f"{prefix}{edge}"
            if name not in gateway:
                continue
            found = {d: ratio(tables["trials"], name, f"{prefix}{d}") for d in ("REST JSON", "gRPC")}
            most = {d: capacity_ratio(brackets, name, f"{prefix}{d}") for d in ("REST JSON", "gRPC")}
            compared = "; ".join(
                f"against direct {d} its p95 is {told(found[d])} times and its capacity {told(most[d])} times"
                for d in found
                if f"{prefix}{d}" in gateway
            )
            sentences.append(
                f"{name}: {compared}. A request takes {number(gateway[name])} µs of the edge's CPU beside "
                f"{number(server[name])} µs of the model server's."
            )
    return sentences


def caching(run: Run, tables: Tables) -> list[str]:
    """The hit ratio and the gain of every cache, and the fraction of repeats from which it gains."""
    sentences = []
    for prefix in prefixes(tables, "no cache"):
        for where in ("gateway", "in the server"):
            sentences += _cache(tables, prefix, where)
    return sentences + [str(text) for text in (run.manifest.get("probe") or {}).get("sentences", ())]


def _cache(tables: Tables, prefix: str, where: str) -> list[str]:
    gains = gain_by_repeat(tables, prefix, where)
    if gains.empty:
        return []
    parts = [
        f"at {row['repeat']:.0%} repeats (hit ratio {number(row['hit_ratio'])}) capacity is {told(row['gain'])} times"
        for _, row in gains.iterrows()
    ]
    return [f"{prefix}{where}: {'; '.join(parts)} that without a cache. {break_even(gains)}"]


def gain_by_repeat(tables: Tables, prefix: str, where: str) -> pd.DataFrame:
    """Capacity with a cache ÷ without: columns ``label``, ``repeat``, ``hit_ratio``, ``gain`` (an interval)."""
    brackets, hits = replicate_brackets(tables["trials"]), _column(tables, "hit_ratio")
    rows = []
    for name in hits:
        found = name.removeprefix(f"{prefix}{where}, ")
        if found != name and found.endswith("% repeat"):
            share = float(found.removesuffix("% repeat")) / 100
            gain = capacity_ratio(brackets, name, f"{prefix}no cache")
            rows.append({"label": name, "repeat": share, "hit_ratio": hits[name], "gain": gain})
    return pd.DataFrame(rows).sort_values("repeat") if rows else pd.DataFrame()


def break_even(gains: pd.DataFrame) -> str:
    """From which fraction of repeats a cache gains, by the time per request, which falls in proportion to hits."""
    share = gains["repeat"].to_numpy(dtype=float)
    ends = []
    for end in ("low", "value", "high"):
        lost = np.array([1 / getattr(gain, end) - 1 for gain in gains["gain"]])
        ends.append(_crossing(share, lost))
    late, middle, early = ends
    if np.isnan(middle):
        return f"Break-even: {CANNOT}."
    if np.isinf(middle):
        return "It does not break even at any fraction tried."
    interval = f"{early:.0%} to {'more than was tried' if not np.isfinite(late) else f'{late:.0%}'}"
    return f"It breaks even at about {middle:.0%} of repeats (by the ends of the intervals: {interval})."


def _crossing(share: Any, lost: Any) -> float:
    """Where ``lost`` falls to 0: 0 if it never was above, ∞ if it does not within ``share``."""
    if not np.isfinite(lost).all():
        return float("nan")
    if lost[0] <= 0:
        return 0.0
    below = np.flatnonzero(lost <= 0)
    if not below.size:
        return float("inf")
    k = int(below[0])
    return float(share[k - 1] + (share[k] - share[k - 1]) * lost[k - 1] / (lost[k - 1] - lost[k]))


def utilisation(run: Run, tables: Tables, price_per_hour: float = EXAMPLE_PRICE) -> list[str]:
    """CPU of a request by group of processes, and what a million requests cost."""
    cases = tables["cases"].merge(costs_table(tables, price_per_hour), on="label", suffixes=("", "_at_capacity"))
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
    """What a deployment uses at its highest VALID rate and what that costs (:func:`infscale.cost.table`).

    ``capacity_per_s`` is λ*; CPU and memory are those of all processes but the client's.
    """
    usage = tables["usage"]
    served = usage[(usage["group"] != "client") & (usage["verdict"] == VALID)]
    top = served[served["rate_per_s"] == served.groupby("label")["rate_per_s"].transform("max")]
    sums = top.assign(cores=top["user_s_per_s"] + top["system_s_per_s"], rss_peak_bytes=top["rss_bytes"])
    columns = ["cores", "rss_peak_bytes", "cpu_us_per_request"]
    found = sums.groupby("label", sort=False)[columns].sum()
    cores_at_capacity = tables["cases"].set_index("label")["saturation_per_s"]
    found = found.join(cores_at_capacity.rename("capacity_per_s"), how="inner")
    # Cores at λ* follow from the CPU of a request at the highest VALID rate below it.
    found["cores"] = found["cpu_us_per_request"] * found["capacity_per_s"] / 1e6
    return cost.table(found.reset_index(), price_per_hour)


def porting(run: Run, tables: Tables) -> list[str]:
    """How far the outputs differ from the reference, and what took how many steps."""
    pilots = run.manifest["pilot"]
    labels = {i: run.label(i) for i in run.manifest["implementations"]}
    worst: dict[str, float] = {}
    for found in pilots.values():
        most = max(found["differences"].values())
        worst[found["implementation"]] = max(most, worst.get(found["implementation"], 0.0))
    outputs = ", ".join(f"{labels.get(name, name)} {value:.1e}" for name, value in worst.items())
    return [
        "The same weights answer alike: the largest absolute difference from the numpy reference over all protocols "
        f"and encodings is {outputs} (outputs are probabilities).",
        *(f"Steps to port to {name}: {steps}" for name, steps in STEPS.items()),
    ]


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
    """The gap between JSON and gRPC by link."""
    brackets, sentences = replicate_brackets(tables["trials"]), []
    for prefix in prefixes(tables, "JSON"):
        p95 = ratio(tables["trials"], f"{prefix}JSON", f"{prefix}gRPC")
        most = capacity_ratio(brackets, f"{prefix}gRPC", f"{prefix}JSON")
        sentences.append(
            f"{prefix.rstrip(', ')}: p95 of REST with JSON ÷ gRPC is {told(p95)} "
            f"({which(p95, 'JSON is slower', 'gRPC is slower')}); capacity of gRPC ÷ JSON is {told(most)}."
        )
    return sentences


ANSWERS: dict[str, Callable[[Run, Tables], list[str]]] = {
    "client-stacks": client_stacks,
    "hybrid": hybrid,
    "caching": caching,
    "utilisation": utilisation,
    "porting": porting,
    "network": network,
}


def answers(run: Run, tables: Tables) -> list[str]:
    """The sentences of the run's own finding; none where its cases say it all."""
    name: Any = run.manifest["experiment"]
    return ANSWERS[name](run, tables) if name in ANSWERS else []
