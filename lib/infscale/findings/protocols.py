"""Protocols (F0): does REST or gRPC keep up with the higher arrival rate, and which answers sooner?"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from infscale.analysis.answers import UNDECIDED
from infscale.analysis.tables import Tables
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import P95
from infscale.findings.finding import Finding
from infscale.records.runs import Run
from infscale.report.claims import names
from infscale.report.figures.sweep import PICTURES
from infscale.report.limits import validity
from infscale.report.wording import contrast_text, saturation_text
from infscale.vocabulary import FRAMEWORK_NAMES, NAMES, PROTOCOLS, number


def answer(run: Run, tables: Tables) -> list[str]:
    """Return a sentence for each named contrast, those that are decided first, and how many trials are valid."""
    called = names(run)
    sentences: dict[bool, list[str]] = {True: [], False: []}
    for _, row in tables.contrasts.iterrows():
        pair = int(row["arm"]), int(row["reference"])
        subject, arm, reference = called[pair]
        said = f"{contrast_text(row, arm, reference)}{_along(tables, *pair, row['metric'])}."
        sentences[row["answer"] != UNDECIDED].append(f"{subject}: {said}" if subject else said)
    compared = {arm for pair in called for arm in pair}
    alone = [row for _, row in tables.arms.iterrows() if row["arm"] not in compared]
    rates = [f"{row['label']}: λ* {saturation_text(row)}." for row in alone if row["arm"] in run.measured]
    return [*sentences[True], *sentences[False], *rates, validity(tables)]


def _along(tables: Tables, arm: int, reference: int, metric: str) -> str:
    """Return how the ratio of p95 changes along the curve, where its ends differ by a factor of two or more."""
    table = tables.ratios
    own = table[(table["arm"] == arm) & (table["reference"] == reference) & np.isfinite(table["ratio"])]
    if metric != P95 or len(own) < 3 or not max(own["ratio"]) >= 2 * min(own["ratio"]):
        return ""
    ends = [own.loc[own["rate_per_s"].idxmin()], own.loc[own["rate_per_s"].idxmax()]]
    texts = [f"{number(end['ratio'])} at {number(end['rate_per_s'])} requests/s" for end in ends]
    return f"; over the rates that were tried the ratio goes from {texts[0]} to {texts[1]}"


def grid(frameworks: Sequence[str] = (), protocols: Sequence[str] = (), model: str = "mlp") -> Finding:
    """Return the finding with some frameworks, protocols or another model.

    Args:
        frameworks: empty for all.
        protocols: empty for both.
        model: the name of a reference model.

    Raises:
        ConfigError: a framework or protocol is not known, or named twice, or what should be a list is none.
    """
    chosen = _levels("frameworks", frameworks, tuple(FRAMEWORK_NAMES))
    ways = _levels("protocols", protocols, PROTOCOLS)
    blocks = [
        [Arm(way, framework=framework, model=model, batch=batch) for way in ways]
        for framework in chosen
        for batch in BATCHES
    ]
    checked = [arm for framework in chosen for arm in _variants(framework, model) if arm.protocol in ways]
    return dataclasses.replace(
        PROTOCOL_GRID,
        blocks=lambda profile: blocks if profile != "tiny" else blocks[:: len(BATCHES)],
        sensitivity=lambda profile: checked if profile != "tiny" else (),
    )


def _levels(name: str, values: Sequence[str], accepted: Sequence[str]) -> list[str]:
    """Return the levels of a factor that are asked for; without any, all that are accepted."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{name}={values!r} is no list; accepted: a list of {', '.join(accepted)}, empty for all")
    for value in values:
        one_of(name, value, accepted)
    if len(set(values)) < len(values):
        raise ConfigError(f"{name}={list(values)} names a level twice")
    return list(values or accepted)


BATCHES = (1, 16)
"""Rows of a request: 3 kB and 50 kB as fp32. With one row the protocols lie close together on a fast server."""


def _variants(framework: str, model: str) -> list[Arm]:
    """Return arms that show how much fixed defaults decide: one connection for gRPC, binary bodies over REST."""
    arms = [Arm("grpc", connections=1, framework=framework, model=model)]
    if framework != "tfserving":  # whose REST takes JSON only
        arms.append(Arm("rest", encoding="raw", framework=framework, model=model))
    return arms


PROTOCOL_GRID = Finding(
    name="protocols",
    question=f"How do the protocol ({' or '.join(NAMES.values())}) and the serving framework change a model's response "
    "time, and the arrival rate that it can keep up with?",
    blocks=(),
    answer=answer,
    pictures=PICTURES,
    notebook="10-protocols",
    sizes={
        "tiny": {"budget_s": 180.0, "curve": 1},
        "quick": {"budget_s": 900.0, "curve": 2},
        "full": {"budget_s": 28_800.0, "curve": 4},
    },
    reference=1,
)

FINDING = grid()
