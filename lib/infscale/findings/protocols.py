"""Protocols (F0): does REST or gRPC keep up with the higher arrival rate, and which answers sooner?"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.intervals import ALPHA, MIN_REPLICATES
from infscale.analysis.tables import Tables
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import SWEEP
from infscale.experiment.design.labels import count, labels
from infscale.findings.finding import Finding
from infscale.records.runs import Run
from infscale.report.figures.sweep import PICTURES
from infscale.report.limits import validity
from infscale.report.wording import interval_text, metric_text, saturation_text
from infscale.vocabulary import CANNOT, FRAMEWORK_NAMES, NAMES, PROTOCOLS, number


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on saturation rates and response times for each contrast, and on how many trials are valid."""
    return [*saturation_sentences(run, tables), *response_sentences(run, tables), validity(tables)]


def saturation_sentences(run: Run, tables: Tables) -> list[str]:
    """Return a sentence for each pair of arms: which saturates at the higher rate, where the brackets decide."""
    rows = {int(row["arm"]): row for _, row in tables.arms.iterrows()}
    pairs = [(arm, reference) for arm, reference in _pairs(run) if arm in rows and reference in rows]
    alone = [arm for arm in rows if arm not in {one for pair in pairs for one in pair}]
    sentences = [
        _saturation(subject, [rows[arm], rows[reference]], names)
        for (arm, reference), subject, names in zip(
            pairs, _subjects(run, pairs), (_names(run, *pair) for pair in pairs), strict=True
        )
    ]
    return [*sentences, *(f"{rows[arm]['label']}: λ* {saturation_text(rows[arm])}." for arm in alone)]


def _saturation(subject: str, arms: "list[pd.Series[Any]]", names: list[str]) -> str:
    rates = "; ".join(f"λ* of {name} {saturation_text(arm)}" for name, arm in zip(names, arms, strict=True))
    for later, sooner in ((0, 1), (1, 0)):
        late, early = arms[later], arms[sooner]
        if early["bound"] != "?" and late["low_per_s"] >= early["settled_per_s"] and not _overlap(early, late):
            return f"{subject}: {names[later]} kept up with higher arrival rates than {names[sooner]}: {rates}."
    return f"{subject}: {CANNOT} whether {names[0]} or {names[1]} saturates at the higher rate: {rates}."


def _overlap(one: "pd.Series[Any]", other: "pd.Series[Any]") -> bool:
    """Return whether two arms' intervals of λ* over replicates, where both are known, have a rate in common."""
    low = max(one["interval_low_per_s"], other["interval_low_per_s"])
    high = min(one["interval_high_per_s"], other["interval_high_per_s"])
    return bool(np.isfinite([low, high]).all() and low <= high)


def response_sentences(run: Run, tables: Tables) -> list[str]:
    """Return a sentence for each contrast: the ratio at the largest comparable rate, and how it changes over rates."""
    table, groups = tables.contrasts, {}
    for contrast in run.manifest.design.contrasts:
        arm, reference, metric = contrast.arm, contrast.reference, contrast.metric
        if {arm, reference} <= set(run.measured):
            chosen = (table["arm"] == arm) & (table["reference"] == reference) & (table["metric"] == metric)
            groups[arm, reference, metric] = table[chosen]
    pairs = [(arm, reference) for arm, reference, _ in groups]
    subjects = _subjects(run, pairs)
    return [
        _response(subject, _names(run, arm, reference), metric_text(metric), group)
        for subject, ((arm, reference, metric), group) in zip(subjects, groups.items(), strict=True)
    ]


def _response(subject: str, names: list[str], metric: str, group: pd.DataFrame) -> str:
    over, under = names
    known = group[np.isfinite(group["ratio_low"])].sort_values("rate_per_s")
    if known.empty:
        return (
            f"{subject}: {CANNOT} about response times: there is no arrival rate at which {over} and {under} were both "
            f"VALID in at least {MIN_REPLICATES} replicates and never SATURATED."
        )
    last = known.iloc[-1]
    conclusions = {"slower": f"{over} was slower", "faster": f"{under} was slower", CANNOT: f"{CANNOT} which is slower"}
    counts = {name: int((known["interval_conclusion"] == name).sum()) for name in conclusions}
    corrected = int((known["p_holm"] < ALPHA).sum())
    basis = f"{last['replicates']} replicates{', exploratory' if last['exploratory'] else ''}"
    interval = interval_text(last["ratio_low"], last["ratio_high"])
    return (
        f"{subject}: at λ = {number(last['rate_per_s'])} requests/s, the largest at which they can be compared, "
        f"{conclusions[last['interval_conclusion']]}: the {metric} of {over} was {number(last['ratio'])} times that of "
        f"{under} ({interval}, {basis}). Of {count(len(known), 'arrival rate')} compared, {over} was slower at "
        f"{counts['slower']}, {under} at {counts['faster']}, and {counts[CANNOT]} cannot be decided; {corrected} "
        "differ after Holm's correction."
    )


def _pairs(run: Run) -> list[tuple[int, int]]:
    """Return arm and reference of every contrast, each pair once."""
    return list(dict.fromkeys((one.arm, one.reference) for one in run.manifest.design.contrasts))


def _names(run: Run, arm: int, reference: int) -> list[str]:
    """Return short names of two arms, of what tells them apart: "REST" and "gRPC"."""
    arms = run.manifest.design.arms
    return labels([arms[arm], arms[reference]])


def _subjects(run: Run, pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Return what each pair of arms is measured on: the serving system, and what tells the pairs on it apart."""
    arms = run.manifest.design.arms
    systems = [run.system(run.implementation(reference)) for _, reference in pairs]
    subjects = []
    for (_, reference), system in zip(pairs, systems, strict=True):
        alike = [other for (_, other), one in zip(pairs, systems, strict=True) if one == system]
        apart = dict(zip(alike, labels([arms[other] for other in alike]), strict=True))
        subjects.append(f"{system}, {apart[reference]}" if len(set(alike)) > 1 else system)
    return subjects


def grid(frameworks: Sequence[str] = (), protocols: Sequence[str] = (), model: str = "mlp") -> Finding:
    """Return the finding with some frameworks, protocols or another model.

    Args:
        frameworks: empty for all.
        protocols: empty for both.
        model: the name of a reference model.

    Raises:
        ConfigError: a framework or protocol is not known, or named twice.
    """
    chosen, ways = list(frameworks or FRAMEWORK_NAMES), list(protocols or PROTOCOLS)
    for name, values, accepted in (("frameworks", chosen, tuple(FRAMEWORK_NAMES)), ("protocols", ways, PROTOCOLS)):
        for value in values:
            one_of(name, value, accepted)
        if len(set(values)) < len(values):
            raise ConfigError(f"{name}={values} names a level twice")
    blocks = [[Arm(way, framework=framework, model=model) for way in ways] for framework in chosen]
    checked = [arm for framework in chosen for arm in _variants(framework, model) if arm.protocol in ways]
    return dataclasses.replace(
        PROTOCOL_GRID, blocks=blocks, sensitivity=lambda profile: checked if profile != "tiny" else ()
    )


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
        "tiny": {"replicates": 1, "trial_s": 0.5, "fractions": (0.3, 0.6), "bisections": 0},
        "quick": {"replicates": 3, "trial_s": 4.0, "fractions": (0.1, 0.3, 0.5, 0.7, 0.9, 1.1), "bisections": 0},
        "full": {
            "replicates": 8,
            "trial_s": 60.0,
            "fractions": (0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 1.1),
            "timeout_s": 10.0,
            "fill_tail": True,
            "restart": True,
            "bisections": 2,
        },
    },
    rates=SWEEP,
    reference=1,
)

FINDING = grid()
