"""Advice from stored trials: for a payload, an arrival rate and a limit of response time, which deployment.

Comparisons stay within a run (runs of different machines or days are not pooled), and every line names the run and the
arms that it rests on. An arm *meets* the limit if it was VALID at some rate of at least λ and the upper end of the
interval of its percentile there lies within the limit. It *fails* if λ lies above the interval of its saturation rate,
or if the lower end of its percentile's interval lies above the limit at some rate of at most λ. That takes for granted
that response times do not fall as λ rises. Otherwise it is *open*.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.tables import Tables
from infscale.analysis.tables.ratios import Ratios
from infscale.analysis.tables.trials import QUANTILES, Row, metric
from infscale.errors import ConfigError, DataError, one_of
from infscale.experiment.design import labels
from infscale.experiment.design.arm import Arm
from infscale.records.gate import VALID
from infscale.records.runs import Run
from infscale.report.figures.files import write
from infscale.report.wording import quoted, ratio_text
from infscale.vocabulary import CANNOT, NAMES, number

PAYLOADS = {
    "row": ("mlp", 1, "one row of 784 fp32 (3 kB)"),
    "rows": ("mlp", 16, "16 rows of 784 fp32 (50 kB)"),
    "grey image": ("cnn", 1, "one 28×28 image as fp32 (3 kB), a costlier model"),
    "pixels": ("image", 1, "224×224×3 pixels as uint8 (150 kB)"),
    "photograph": ("photo", 1, "a JPEG file of 224×224 pixels (about 12 kB)"),
}
"""Name → reference model, rows of a request, and what it is."""

CHOICES = ("protocol", "encoding", "framework", "replicas", "cache")
WOULD = {
    "row": "make paper",
    "rows": "make finding F=encodings",
    "grey image": "make finding F=load-balancing (and make finding F=caching)",
    "pixels": "make finding F=encodings PROFILE=full",
    "photograph": "make finding F=encodings PROFILE=full",
}
"""Payload → the command whose run would answer for it."""
WOULD_CHOOSE = {
    ("framework", "rows"): "make finding F=encodings PROFILE=full",
    ("framework", "grey image"): "make finding F=porting PROFILE=full",
    ("protocol", "grey image"): "make finding F=caching PROFILE=full",
    ("encoding", "grey image"): "make finding F=porting PROFILE=full",
    ("replicas", "grey image"): "make finding F=load-balancing",
    ("cache", "grey image"): "make finding F=caching",
    ("cache", "row"): "make finding F=caching PROFILE=full",
}
"""Choice and payload → the command whose run would decide that choice, where it is not the one in :data:`WOULD`."""
FULL = " PROFILE=full"
"""What the command of a run in full ends in."""
CACHED_REPEATS = {"": (0.0, 0.5, 0.75), FULL: (0.0, 0.25, 0.5, 0.75, 0.95)}
"""The fractions of repeating requests that the finding on caching measures, in its quick and in its full profile."""
REPEAT_WITHIN = 0.05
"""Trials at one fraction of repeats are used for questions about fractions that differ from it by at most this much."""
FIXED = {
    "protocol": ["framework"],
    "encoding": ["framework"],
    "framework": ["protocol", "form"],
    "replicas": ["protocol", "framework"],
    "cache": ["protocol", "framework"],
}
"""Choice → the factors in which arms must be equal to be compared for it; else two differences would be mixed up.
``form`` is JSON, base64 or binary."""


@dataclass(frozen=True)
class Question:
    """What a user wants to serve.

    Attributes:
        payload: a key of :data:`PAYLOADS`.
        rate_per_s: λ, requests/s.
        slo_ms: the limit of a percentile of the response time, ms.
        repeat: the fraction of requests that repeat (decides about a cache).
        quantile: the percentile: "p50", "p95", or "p99", which needs longer trials than those of the quick profile.
    """

    payload: str
    rate_per_s: float
    slo_ms: float
    repeat: float = 0.0
    quantile: str = "p95"

    def __post_init__(self) -> None:
        one_of("payload", self.payload, PAYLOADS)
        one_of("quantile", self.quantile, QUANTILES)
        for name in ("rate_per_s", "slo_ms"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"{name}={value} is no number above 0")
        if not 0 <= self.repeat <= 1:
            raise ConfigError(f"repeat={self.repeat} is not a fraction; accepted: 0 to 1")


# -------------------------------------------------------------------------------------------- evidence


@dataclass(frozen=True)
class Evidence:
    """What a run says of its arms.

    Attributes:
        run: the run.
        arms: one row per compared arm: λ*, and the choices that it stands for (:data:`CHOICES`) in words; ``repeat``,
            NaN where answers are not cached; ``plain``: whether nothing else about it is out of the ordinary.
        points: percentiles by arm and rate.
        ratios: between arms.
    """

    run: Run
    arms: pd.DataFrame
    points: pd.DataFrame
    ratios: Ratios


def evidence(run: Run, tables: Tables) -> Evidence:
    """Return what a run says of its arms."""
    arms = tables.arms
    own = ["arm", "label", "model", "batch", "bound", "saturation_per_s", "high_per_s"]
    choices = [
        _choices(run.manifest.design.arms[row["arm"]], row["encoding"], "embedded" in row["implementation"])
        for _, row in arms.iterrows()
    ]
    table = arms[own].join(pd.DataFrame(choices, index=arms.index))
    return Evidence(run, table, tables.points, Ratios(run.manifest, tables.trials))


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
        "repeat": arm.repeat if cached and arm.repeat is not None else float("nan"),
        "plain": _plain(arm),
    }


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


# ---------------------------------------------------------------------------------------------- advice


def advise(question: Question, known: Sequence[Evidence]) -> pd.DataFrame:
    """Return one row per choice (:data:`CHOICES`): ``choice``, ``advice``, ``why``, ``run_id``, ``arms`` (labels).

    Args:
        question: what a user wants to serve.
        known: of stored runs; the first one that decides a choice does.

    Raises:
        DataError: no stored trial carries this payload; with the run that would.
    """
    model, batch, what = PAYLOADS[question.payload]
    every = [(one, one.arms[(one.arms["model"] == model) & (one.arms["batch"] == batch)]) for one in known]
    fit = [(one, arms[arms["plain"]]) for one, arms in every if arms["plain"].any()]
    if not fit:
        raise DataError(
            f"no stored trial carries {what}: {WOULD[question.payload]} measures it; for a service of your own, "
            "infscale compare"
        )
    return pd.DataFrame([_choose(question, choice, fit) for choice in CHOICES])


def _choose(question: Question, choice: str, fit: Iterable[tuple[Evidence, pd.DataFrame]]) -> dict[str, str]:
    """Return the advice of the first run whose arms differ in ``choice``."""
    for one, arms in fit:
        own = _comparable(question, choice, one, _alike(question, choice, arms))
        if own[choice].nunique() > 1:
            return {"choice": choice, **_among(question, choice, one, own), "run_id": one.run.id}
    command = would(question, choice)
    why = f"not measured: {command} would" if command else "no run of this project measures it for this question"
    return {"choice": choice, "advice": CANNOT, "why": why, "run_id": "", "arms": ""}


def would(question: Question, choice: str) -> str:
    """Return the command whose run would decide ``choice``; empty if none would."""
    default = "" if choice in ("replicas", "cache") else WOULD[question.payload]
    command = WOULD_CHOOSE.get((choice, question.payload), default)
    if choice != "cache" or not command or _near(question.repeat, CACHED_REPEATS[""]):
        return command
    return f"{command.removesuffix(FULL)}{FULL}" if _near(question.repeat, CACHED_REPEATS[FULL]) else ""


def _near(repeat: float, measured: Iterable[float]) -> bool:
    return any(abs(repeat - one) <= REPEAT_WITHIN for one in measured)


def _comparable(question: Question, choice: str, one: Evidence, arms: pd.DataFrame) -> pd.DataFrame:
    """Keep the arms that can be compared fairly, best first.

    Find the best arm that has at least one alternative for this choice, keep the arms with the same levels of
    ``FIXED[choice]``, and sort them best first.
    """
    judged = arms.assign(state=[int(state(question, one, row)) for _, row in arms.iterrows()])
    judged["capacity"] = judged["saturation_per_s"].fillna(0.0)
    order = judged.sort_values(["state", "capacity"], ascending=[True, False])
    rivals = order.groupby(FIXED[choice])[choice].transform("nunique") > 1
    order = order[rivals]
    for factor in FIXED[choice] if len(order) else []:
        order = order[order[factor] == order[factor].iloc[0]]
    return order


def _alike(question: Question, choice: str, arms: pd.DataFrame) -> pd.DataFrame:
    """Return the arms that may be set side by side: one replica and no cache, unless that is the choice."""
    if choice != "replicas":
        arms = arms[arms["replicas"] == "1"]
    if choice != "cache":
        return arms[arms["cache"] == NO_CACHE]
    near = arms["repeat"].isna() | ((arms["repeat"].astype(float) - question.repeat).abs() <= REPEAT_WITHIN)
    return arms[near]


def _among(question: Question, choice: str, one: Evidence, order: pd.DataFrame) -> dict[str, str]:
    """Return the advice that a run gives between the best arms of each level, and why."""
    best = order.drop_duplicates(choice)
    limit = f"the limit ({question.quantile} of at most {question.slo_ms:g} ms at {question.rate_per_s:g} requests/s)"
    levels = "; ".join(
        f"{row[choice]} ({row['label']}) {WORDS[State(row['state'])]} {'it' if k else limit}, {_capacity(row)}"
        for k, (_, row) in enumerate(best.iterrows())
    )
    names = ", ".join(best["label"])
    meets = best[best["state"] == State.MEETS]
    if meets.empty:
        none = (best["state"] == State.FAILS).all()
        return {"advice": "none of those measured meets the limit" if none else CANNOT, "why": levels, "arms": names}
    if choice == "replicas" and (meets[choice] == "1").any():
        return {"advice": "1 replica is enough", "why": levels, "arms": names}
    top, others = meets.iloc[0], meets.iloc[1:]
    gaps = {int(arm): one.ratios.capacity(int(top["arm"]), int(arm)) for arm in others["arm"]}
    whose = f"the saturation rate of {quoted(top['label'])}"
    ratios = (
        f"; {ratio_text(whose, gaps[int(arm)], f'that of {quoted(label)}')}"
        for arm, label in zip(others["arm"], others["label"], strict=True)
    )
    why = levels + "".join(ratios)
    near = meets[[arm not in gaps or not gaps[arm].low > 1 for arm in meets["arm"]]]
    if len(near) == 1:
        others_open = " (other choices not measured well enough)" if (best["state"] == State.OPEN).any() else ""
        return {"advice": f"{top[choice]}{others_open}", "why": why, "arms": names}
    *most, last = near[choice]
    between = "; " if any("," in name for name in near[choice]) else ", "
    which = f"{between.join(most)} and {last} {'both' if len(most) == 1 else 'all'} meet the limit"
    return {"advice": f"{which}; the trials do not show which takes more load", "why": why, "arms": names}


def _capacity(arm: "pd.Series[Any]") -> str:
    """Return an arm's saturation rate in a few words."""
    if arm["bound"] == "?":
        return "its λ* is unknown"
    where = {"": "is about", "≥": "is at least", "<": "is below"}[arm["bound"]]
    return f"its λ* {where} {number(arm['saturation_per_s'])} requests/s"


class State(IntEnum):
    """Whether an arm meets the limit, is not measured well enough to say (open), or fails; the best comes first."""

    MEETS = 0
    OPEN = 1
    FAILS = 2


WORDS = {State.MEETS: "meets", State.OPEN: "may or may not meet", State.FAILS: "does not meet"}
"""A state as the verb of a sentence, before "the limit"."""


def state(question: Question, one: Evidence, arm: "pd.Series[Any]") -> State:
    """Return whether an arm (a row of ``one.arms``) meets the limit, fails, or is open.

    See the module's text for the rule.
    """
    points, name = one.points[one.points["arm"] == arm["arm"]], metric("response", question.quantile)
    sound = points[(points["verdict"] == VALID) & np.isfinite(points[f"{name}_high"].astype(float))]
    above = sound[sound["rate_per_s"] >= question.rate_per_s]
    if (above[f"{name}_high"] <= question.slo_ms).any():
        return State.MEETS
    top = arm["high_per_s"]  # NaN: not known well enough to say that it fails
    if arm["bound"] == "<":  # whatever was tried was too much: less may not be
        top = max(top, arm["saturation_per_s"])
    below = sound[sound["rate_per_s"] <= question.rate_per_s]
    if question.rate_per_s > top or (below[f"{name}_low"] > question.slo_ms).any():
        return State.FAILS
    return State.OPEN


FILE = "advice.csv"
"""The file that holds the answers to :data:`STANDARD` questions."""

STANDARD = (
    Question("row", 100, 20),
    Question("row", 1000, 20),
    Question("rows", 200, 20),
    Question("rows", 1000, 50),
    Question("grey image", 100, 50),
    Question("grey image", 100, 50, repeat=0.5),
    Question("grey image", 100, 50, repeat=0.75),
)
"""What the report answers."""


def table(known: Sequence[Evidence], questions: Iterable[Question] = STANDARD) -> pd.DataFrame:
    """Return the advice for every question: its four values, then a column per choice, then ``why`` and ``run_ids``."""
    return pd.DataFrame([_line(question, known) for question in questions])


def _line(question: Question, known: Sequence[Evidence]) -> Row:
    asked: Row = {
        "payload": PAYLOADS[question.payload][2],
        "rate_per_s": question.rate_per_s,
        "slo_ms": question.slo_ms,
        "repeat": question.repeat,
    }
    try:
        lines = advise(question, known)
    except DataError as error:
        return {**asked, **dict.fromkeys(CHOICES, CANNOT), "why": str(error), "run_ids": ""}
    why = " ".join(f"{row['choice'].capitalize()}: {row['why']}." for _, row in lines.iterrows())
    ids = ", ".join(dict.fromkeys(filter(None, lines["run_id"])))
    return {**asked, **dict(zip(lines["choice"], lines["advice"], strict=True)), "why": why, "run_ids": ids}


def save(lines: pd.DataFrame, folder: Path) -> Path:
    """Write what :func:`table` returned to ``folder`` as ``advice.csv``, which the report takes in; return its path."""
    return write(folder / FILE, lines.to_csv(index=False, lineterminator="\n"))


def load(folder: Path) -> pd.DataFrame | None:
    """Return what :func:`save` wrote to ``folder``; None where it has not."""
    texts = dict.fromkeys((*CHOICES, "payload", "why", "run_ids"), str)
    path = folder / FILE
    return pd.read_csv(path, dtype=texts, keep_default_na=False) if path.is_file() else None
