"""What one run says of single arms: whether one meets a question's limit, and which of two does better."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.answers import DIFFERS, EQUAL, SAME
from infscale.analysis.tables import Tables
from infscale.analysis.tables.ratios import Ratios
from infscale.analysis.tables.trials import QUANTILES, Row, metric
from infscale.experiment.design import labels
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import MARGINS, MORE_IS_BETTER, SATURATION
from infscale.records.gate import VALID
from infscale.records.runs import Run
from infscale.report.advice.question import Question
from infscale.report.wording import contrast_text, quoted, ratio_text, saturation_text
from infscale.vocabulary import NAMES, number

POINT_COLUMNS = [
    *("arm", "rate_per_s", "verdict", "lifetimes", "valid", "unsteady"),
    *(f"{metric('response', quantile)}_{part}" for quantile in QUANTILES for part in ("low", "high", "below_floor")),
]
"""The columns of ``Tables.points`` that advice looks at."""


@dataclass(frozen=True)
class Evidence:
    """What a run says of its arms.

    Attributes:
        run: the run.
        arms: one row per measured arm: λ*, the levels of the choices (``CHOICES``) in words; ``form`` of the body
            (json, b64 or binary); ``parts``, how many parts its deployment has (:func:`_parts`); ``repeat``, NaN where
            answers are not cached; ``plain``: whether nothing else about it is out of the ordinary.
        points: percentiles by arm and rate, with :data:`POINT_COLUMNS`.
        contrasts: those named before the run, with their answers after Holm's correction.
        ratios: between any two arms, for pairs of which no contrast was named.
    """

    run: Run
    arms: pd.DataFrame
    points: pd.DataFrame
    contrasts: pd.DataFrame
    ratios: Ratios

    @functools.cached_property
    def named(self) -> Mapping[frozenset[int], list["pd.Series[Any]"]]:
        """The rows of ``contrasts`` by the two arms that they compare."""
        found: dict[frozenset[int], list[pd.Series[Any]]] = {}
        for _, row in self.contrasts.iterrows():
            found.setdefault(frozenset((row["arm"], row["reference"])), []).append(row)
        return found


def evidence(run: Run, tables: Tables) -> Evidence:
    """Return what a run says of its arms."""
    arms = tables.arms
    own = ["arm", "label", "model", "batch", "bound", "saturation_per_s", "low_per_s", "high_per_s"]
    choices = [
        _choices(run.manifest.design.arms[row["arm"]], row["encoding"], "embedded" in row["implementation"])
        for _, row in arms.iterrows()
    ]
    table = arms[[*own, "saturation_lifetimes"]].join(pd.DataFrame(choices, index=arms.index))
    return Evidence(run, table, tables.points[POINT_COLUMNS], tables.contrasts, Ratios(run.manifest, tables.trials))


NO_CACHE = "no cache"
EMBEDDED = ", embedded (our implementation)"


def _choices(arm: Arm, encoding: str, embedded: bool) -> Row:
    """Return the choices that an arm stands for, in words; ``encoding`` is the one that its trials had."""
    cached = arm.front == "cache" or arm.cache
    protocol = NAMES[arm.protocol]
    return {
        "protocol": protocol,
        "encoding": f"{protocol} with {labels.ENCODINGS.get(encoding, encoding)}",
        "form": encoding if encoding in ("json", "b64") else "binary",
        "framework": f"{labels.framework(arm)}{EMBEDDED if embedded else ''}",
        "replicas": f"{arm.replicas}{_balancer(arm)}",
        "cache": ("in a gateway" if arm.front else "in the server") if cached else NO_CACHE,
        "parts": _parts(arm),
        "repeat": arm.repeat if cached and arm.repeat is not None else float("nan"),
        "plain": _plain(arm),
    }


def _parts(arm: Arm) -> int:
    """Return how many parts a deployment has: fewer are simpler.

    Each server counts, and what stands before or beside it: a balancer, a gateway, a store of its own, and a cache,
    wherever it is. Protocols, encodings and frameworks have no simpler one: they add no part.
    """
    balancer = arm.balancer not in ("none", "client")
    gateway = arm.front in ("cache", "edge")
    return arm.replicas + balancer + gateway + (arm.store == "redis") + (arm.cache or arm.front == "cache")


def _balancer(arm: Arm) -> str:
    """Return in words what shares the requests among replicas, if there are several."""
    if arm.replicas == 1:
        return ""
    where = ", chosen by the client" if arm.balancer == "client" else f" behind {arm.balancer}"
    return f"{where}, {labels.count(arm.connections, 'connection')}" if arm.connections else where


def _plain(arm: Arm) -> bool:
    """Return whether an arm varies nothing but what is asked about.

    Compressed bodies are compressed before a trial: the client's cost is not in its times.
    """
    network = arm.rate_mbit or arm.delay_ms or arm.linked or arm.tls
    hop = arm.replicas == 1 and arm.balancer != "none"
    special = (
        network or hop or arm.front == "edge" or arm.slow_ms or arm.zipf is not None or arm.http == "2" or arm.gzip
    )
    return not special and arm.client == "wire" and arm.reuse


# ------------------------------------------------------------------------------------------- one arm


class State(IntEnum):
    """Whether an arm meets the limit, is not measured well enough to say (open), or fails; the best comes first."""

    MEETS = 0
    OPEN = 1
    FAILS = 2


@dataclass(frozen=True)
class Point:
    """A percentile that was measured: ``rate_per_s`` in requests/s, the ends of its 95 % interval in ms."""

    rate_per_s: float
    low_ms: float
    high_ms: float
    lifetimes: int


@dataclass(frozen=True)
class Judged:
    """An arm before a question.

    Attributes:
        arm, label, encoding, parts: its number, its name, its encoding in words, and its number of parts.
        state: whether it meets the limit.
        point: the percentile that shows that it does; None where it does not.
        text: the reason, as a sentence without a full stop.
    """

    arm: int
    label: str
    encoding: str
    parts: int
    state: State
    point: Point | None
    text: str


def judge(question: Question, one: Evidence, arm: "pd.Series[Any]") -> Judged:
    """Return whether an arm (a row of ``one.arms``) meets the limit, fails, or is open, with the reason.

    It *meets* the limit if the interval of its percentile at some rate of at least λ lies within the limit. Else it
    *fails* if λ lies above the interval of its λ*, or if the interval lies above the limit at some rate of at most λ.
    Only points count that :func:`sound` returns.
    """
    name = metric("response", question.quantile)
    points = sound(one.points[one.points["arm"] == arm["arm"]], name).sort_values("rate_per_s")
    meets = points[(points["rate_per_s"] >= question.rate_per_s) & (points[f"{name}_high"] <= question.slo_ms)]
    slow = points[(points["rate_per_s"] <= question.rate_per_s) & (points[f"{name}_low"] > question.slo_ms)]
    label = quoted(arm["label"])
    point, state = None, State.FAILS
    if not meets.empty:
        point, state = _point(meets.iloc[0], name), State.MEETS
        text = f"{label} meets the limit: {_point_text(point, question.quantile)}"
    elif question.rate_per_s > _most(arm):
        text = f"{label} does not meet it: its λ* {saturation_text(arm)}"
    elif not slow.empty:
        text = f"{label} does not meet it: {_point_text(_point(slow.iloc[-1], name), question.quantile)}"
    else:
        state = State.OPEN
        text = f"{label} is not measured well enough to say; its λ* {saturation_text(arm)}"
    return Judged(int(arm["arm"]), str(arm["label"]), str(arm["encoding"]), int(arm["parts"]), state, point, text)


def sound(points: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the points that advice may rest on.

    They are VALID, fewer of their trials were UNSTEADY than VALID, and the percentile ``name`` has an interval and no †
    (in most lifetimes there are enough independent requests for it).
    """
    settled = (points["verdict"] == VALID) & (points["unsteady"] < points["valid"])
    known = np.isfinite(points[f"{name}_high"].astype(float)) & ~points[f"{name}_below_floor"].astype(bool)
    return points[settled & known]


def _most(arm: "pd.Series[Any]") -> float:
    """Return the rate, in requests/s, above which an arm is known to fail; NaN where none is known."""
    top = float(arm["high_per_s"])
    if arm["bound"] == "<":  # whatever was tried was too much: less may not be
        return max(top, float(arm["saturation_per_s"]))
    return top


def _point(row: "pd.Series[Any]", name: str) -> Point:
    low, high = float(row[f"{name}_low"]), float(row[f"{name}_high"])
    return Point(float(row["rate_per_s"]), low, high, int(row["lifetimes"]))


def _point_text(point: Point, quantile: str) -> str:
    return (
        f"{quantile} at {number(point.rate_per_s)} requests/s is {number(point.low_ms)} to {number(point.high_ms)} ms "
        f"(95 % interval, {labels.count(point.lifetimes, 'lifetime')})"
    )


# ------------------------------------------------------------------------------------------ two arms


class Answer(Enum):
    """What a run says of two arms: the first is better, the second is, they are equal, or nothing is shown."""

    FIRST = "first"
    SECOND = "second"
    EQUAL = "equal"
    UNDECIDED = "undecided"


def compare(one: Evidence, first: Judged, second: Judged) -> tuple[Answer, str]:
    """Return which of two arms a run shows to be better, and its sentence on them.

    By the named contrasts between them where there are any: the better one takes more load or answers faster, and is
    shown to be worse in neither. Else by the ratio of their λ*, whose interval must leave out 1 and not lie within
    the margin of equality.
    """
    named = one.named.get(frozenset((first.arm, second.arm)))
    if not named:
        return _unnamed(one, first, second)
    text = "; ".join(map(contrast_text, named))
    better = {_better(row) for row in named if row["answer"] == DIFFERS}
    if len(better) == 1:
        return Answer.FIRST if better == {first.arm} else Answer.SECOND, text
    return Answer.EQUAL if all(row["answer"] == EQUAL for row in named) else Answer.UNDECIDED, text


def _better(row: "pd.Series[Any]") -> int:
    """Return which arm of a contrast that differs is better: the one with the higher rate, or the shorter time."""
    more_is_better = row["metric"] in MORE_IS_BETTER
    return int(row["arm"] if (row["ratio"] > 1) == more_is_better else row["reference"])


def _unnamed(one: Evidence, first: Judged, second: Judged) -> tuple[Answer, str]:
    """Return the same from the ratio of λ*, which was not named before the run and is not corrected."""
    ratio, margin = one.ratios.capacity(first.arm, second.arm), MARGINS[SATURATION]
    said = ratio_text(f"the saturation rate of {quoted(first.label)}", ratio, f"that of {quoted(second.label)}")
    text = f"{said}, {labels.count(ratio.lifetimes, 'lifetime')}, a comparison not named before the run"
    spread = ratio.high / ratio.low > 1 + SAME  # lifetimes that are all alike come from one grid of rates
    if spread and ratio.low > 1 and ratio.high > margin:
        return Answer.FIRST, text
    if spread and ratio.high < 1 and ratio.low < 1 / margin:
        return Answer.SECOND, text
    return Answer.UNDECIDED, text
