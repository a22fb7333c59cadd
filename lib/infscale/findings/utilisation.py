"""Utilisation (F3): what CPU and memory does a request cost the client and the server, by protocol?"""

from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis import cost
from infscale.analysis.tables import Tables
from infscale.analysis.tables.usage import at_capacity
from infscale.experiment.design.arm import Arm
from infscale.findings.finding import Blocks, Finding, column, compared, measured
from infscale.records.runs import Run
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.arms.usage import CORES, COSTS
from infscale.report.wording import quoted, with_interval
from infscale.vocabulary import FRAMEWORK_NAMES, number

EXAMPLE_PRICE = 0.10
"""Price of an hour of the machine for which the report gives costs, in :data:`CURRENCY`."""

CURRENCY = "USD"
"""Of the example price; costs are proportional to it."""


def blocks(profile: str) -> Blocks:
    """Return JSON, binary bodies and gRPC on every framework, a block each; fewer for "quick" and "tiny"."""
    if profile == "tiny":
        return [_block("triton", ("json",))]
    if profile == "quick":
        return [_block("triton", ("json", "raw")), _block("torchserve", ("json",))]
    return [_block(name, ("json",) if name == "tfserving" else ("json", "raw")) for name in FRAMEWORK_NAMES]


def _block(framework: str, encodings: tuple[str, ...]) -> list[Arm]:
    return [
        *(Arm("rest", encoding, framework=framework) for encoding in encodings),
        Arm("grpc", framework=framework),
    ]


def lead(_: Run, tables: Tables) -> list[str]:
    """Return a sentence on the CPU of a request, and one on what a million requests cost, by arm."""
    table = costs_table(tables)
    if table.empty:
        return []
    cpu = ", ".join(
        f"{quoted(row['label'])} {measured(tables, 'cpu_us_server', row['arm'])} and "
        f"{measured(tables, 'cpu_us_client', row['arm'])}"
        for _, row in table.iterrows()
    )
    costs = ", ".join(f"{quoted(row['label'])} {_cost(row)}" for _, row in table.iterrows())
    return [
        f"CPU of a request on the server and at the client, in µs with 95 % intervals, at moderate load: {cpu}.",
        f"Cost of a million requests at the saturation rate, in {CURRENCY} with 95 % intervals, at an example price of "
        f"{EXAMPLE_PRICE:.2f} {CURRENCY} an hour of this machine: {costs}.",
    ]


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on the CPU of a request by group of processes, and on what a million requests cost."""
    return [*_costs(tables), *compared(run, tables)]


def _costs(tables: Tables) -> list[str]:
    rates = column(tables, "rate_per_s")
    return [
        f"{row['label']}: a request takes {measured(tables, 'cpu_us_client', row['arm'])} µs of the client's CPU and "
        f"{measured(tables, 'cpu_us_server', row['arm'])} µs of the server's at λ = {number(rates[row['arm']])} "
        f"requests/s. At its saturation rate the deployment answers {number(row['per_core'])} requests/s per core used "
        f"and {number(row['per_gb'])} requests/s per GB of memory; a million requests cost {_cost(row)} {CURRENCY} at "
        f"an example price of {EXAMPLE_PRICE:.2f} {CURRENCY} an hour of this machine. In brackets: 95 % intervals."
        for _, row in costs_table(tables).iterrows()
    ]


def _cost(row: "pd.Series[Any]") -> str:
    return with_interval(row["cost_per_million"], row["cost_low"], row["cost_high"])


def costs_table(tables: Tables, price_per_hour: float = EXAMPLE_PRICE) -> pd.DataFrame:
    """Return what each deployment uses at its saturation rate λ* and what that costs, one row per arm.

    The columns are those of :func:`infscale.analysis.cost.table`, beside ``arm``, ``label`` and ``protocol``, and
    ``cost_low`` and ``cost_high``: the cost at the ends of the 95 % interval of λ*, which has one value a lifetime. NaN
    where λ* has no bracket, or its verdicts contradict one another. Without readings of processes there are no rows.

    Args:
        tables: of a run whose processes were watched.
        price_per_hour: of the machine, in any currency.

    Raises:
        ConfigError: the price is negative or no number.
    """
    summary = tables.summary
    known = summary["saturation_per_s"].where(summary["bound"] == "", np.nan)
    used = at_capacity(tables.usage, dict(zip(summary["arm"], known, strict=True)))
    costs = cost.table(used, price_per_hour)
    for end, rate in (("low", "high_per_s"), ("high", "low_per_s")):  # the more requests, the less each costs
        rates = costs["arm"].map(summary.set_index("arm")[rate]).where(costs["capacity_per_s"].notna())
        finite = rates.where(np.isfinite(rates))
        costs[f"cost_{end}"] = [cost.per_million(value, price_per_hour) for value in finite]
    return summary[["arm", "label", "protocol"]].merge(costs, on="arm")


FINDING = Finding(
    name="utilisation",
    question="What CPU and memory does a request cost the client and the server, by protocol?",
    blocks=blocks,
    answer=answer,
    lead=lead,
    pictures=(SUMMARY, CORES, COSTS),
    notebook="14-utilisation",
    sizes={"quick": {"curve": 2}, "full": {"curve": 3}},
)
