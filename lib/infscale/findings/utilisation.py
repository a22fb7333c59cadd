"""Utilisation (F3): what CPU and memory does a request cost the client and the server, by protocol?"""

import numpy as np
import pandas as pd

from infscale.analysis import cost
from infscale.analysis.tables import Tables
from infscale.analysis.tables.usage import at_capacity
from infscale.experiment.design.arm import Arm
from infscale.findings.finding import Blocks, Finding, column, compared
from infscale.records.runs import Run
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.arms.usage import CORES, COSTS
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


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on the CPU of a request by group of processes, and on what a million requests cost."""
    return [*_costs(tables, EXAMPLE_PRICE), *compared(run, tables)]


def _costs(tables: Tables, price_per_hour: float) -> list[str]:
    client, server, rates = (column(tables, name) for name in ("cpu_us_client", "cpu_us_server", "rate_per_s"))
    return [
        f"{row['label']}: a request takes {number(client[row['arm']])} µs of the client's CPU and "
        f"{number(server[row['arm']])} µs of the server's at λ = {number(rates[row['arm']])} requests/s. At its "
        f"saturation rate the deployment answers {number(row['per_core'])} requests/s per core used and "
        f"{number(row['per_gb'])} per GB of memory; a million requests cost {number(row['cost_per_million'])} at an "
        f"example price of {price_per_hour:g} an hour of this machine."
        for _, row in costs_table(tables, price_per_hour).iterrows()
    ]


def costs_table(tables: Tables, price_per_hour: float = EXAMPLE_PRICE) -> pd.DataFrame:
    """Return what each deployment uses at its saturation rate λ* and what that costs, one row per arm.

    The columns are those of :func:`infscale.analysis.cost.table`, beside ``arm``, ``label`` and ``protocol``. NaN where
    λ* has no bracket, or its verdicts contradict one another. Without readings of processes there are no rows.

    Args:
        tables: of a run whose processes were watched.
        price_per_hour: of the machine, in any currency.

    Raises:
        ConfigError: the price is negative or no number.
    """
    summary = tables.summary
    known = summary["saturation_per_s"].where(summary["bound"] == "", np.nan)
    used = at_capacity(tables.usage, dict(zip(summary["arm"], known, strict=True)))
    return summary[["arm", "label", "protocol"]].merge(cost.table(used, price_per_hour), on="arm")


FINDING = Finding(
    name="utilisation",
    question="What CPU and memory does a request cost the client and the server, by protocol?",
    blocks=blocks,
    answer=answer,
    pictures=(SUMMARY, CORES, COSTS),
    notebook="14-utilisation",
    sizes={"quick": {"curve": 2}, "full": {"curve": 3}},
)
