"""Advice from stored trials: for a payload, an arrival rate and a limit of response time, which deployment.

Comparisons stay within a run (runs of different machines or days are not pooled), and every line names the run and the
cases that it rests on. An arm *meets* a question if it was VALID at some rate of at least λ and the upper end of the
interval of its percentile there lies within the limit; it *fails* if λ lies above its capacity's interval, or if the
lower end of that interval lies above the limit at some rate of at most λ. That takes for granted that response times
do not fall as λ rises. Otherwise it is open.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.tables.saturation import arms_table, capacity_ratio, replicate_brackets
from infscale.analysis.tables.summary import points_table
from infscale.analysis.tables.trials import QUANTILES, metric, trials_table
from infscale.errors import ConfigError, DataError, one_of
from infscale.findings.cases import FULL_REPEATS, QUICK_REPEATS
from infscale.findings.cases import NAMES as FRAMEWORK_NAMES
from infscale.findings.ratios import capacities_told
from infscale.paths import project_root
from infscale.records import runs
from infscale.records.gate import VALID
from infscale.records.runs import Run
from infscale.report.figures.files import write
from infscale.report.figures.rates import NAMES
from infscale.vocabulary import CANNOT, number

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
"""The run that would answer for a payload."""
WOULD_CHOOSE = {
    ("framework", "rows"): "make finding F=encodings PROFILE=full",
    ("framework", "grey image"): "make finding F=porting PROFILE=full",
    ("protocol", "grey image"): "make finding F=caching PROFILE=full",
    ("encoding", "grey image"): "make finding F=porting PROFILE=full",
    ("replicas", "grey image"): "make finding F=load-balancing",
    ("cache", "grey image"): "make finding F=caching",
    ("cache", "row"): "make finding F=caching PROFILE=full",
}
"""The same for one choice, where it is another."""
FULL = " PROFILE=full"
REPEAT_WITHIN = 0.05
"""An arm speaks for fractions of repeats so near to its own."""
FIXED = {
    "protocol": ["framework"],
    "encoding": ["framework"],
    "framework": ["protocol", "form"],
    "replicas": ["protocol", "framework"],
    "cache": ["protocol", "framework"],
}
"""What must be equal in arms that are compared for a choice: else the difference is that of both."""


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


def stored(place: Path | None = None) -> list[Run]:
    """The newest complete run of every experiment: below ``place``, or in ``data/raw``, else in ``data/sample``."""
    from infscale.findings.studies import STUDIES

    places = [place] if place else [project_root() / "data" / "raw", project_root() / "data" / "sample"]
    found = (
        next(filter(None, (runs.newest(where, name) for where in places)), None) for name in ("protocol-grid", *STUDIES)
    )
    return [runs.load_run(folder) for folder in found if folder]


# -------------------------------------------------------------------------------------------- evidence


@dataclass(frozen=True)
class Evidence:
    """One run: ``arms`` a row each with factors and λ*, ``points`` their percentiles by rate, ``brackets`` of λ*."""

    run: Run
    arms: pd.DataFrame
    points: pd.DataFrame
    brackets: pd.DataFrame


def evidence(run: Run) -> Evidence:
    """What a run says of its arms; ``label`` tells them apart."""
    trials = trials_table(run)
    every = run.manifest["config"].get("cases", ())
    labels = run.case_labels() if every else {}
    cases = {labels[case["name"]]: case for case in every if case["name"] in labels}
    if not cases:
        trials = trials.assign(label=trials["label"] + ", " + trials["protocol"].map(NAMES))
    own = {"grid", "bisection"} | (set() if cases else {"pilot"})  # replicates of a finding search for themselves
    trials = trials[trials["phase"].isin(own)]
    first = trials.drop_duplicates("label").set_index("label")
    factors = [_factors(label, row, cases.get(str(label))) for label, row in first.iterrows()]
    arms = arms_table(trials).drop(columns=["protocol", "framework"]).merge(pd.DataFrame(factors), on="label")
    return Evidence(run, arms, points_table(trials), replicate_brackets(trials))


NO_CACHE = "no cache"
EMBEDDED = ", embedded (our implementation)"


def _factors(label: Any, row: "pd.Series[Any]", case: dict[str, Any] | None) -> dict[str, Any]:
    arm = (case or {}).get("arm", {})
    options = dict((case or {}).get("options", ()))
    front = (case or {}).get("front", "")
    cached = front.startswith("cache") or bool(options.get("cache"))
    special = front == "edge" or any(
        options.get(name) for name in ("slow_ms", "rate_mbit", "delay_ms", "linked", "tls")
    )
    special = special or arm.get("zipf") is not None or arm.get("http") == "2"
    special = special or bool(arm.get("gzip"))  # bodies are compressed before a trial: the client's cost is not in it
    special = special or (options.get("replicas") == 1 and options.get("balancer") not in (None, "none"))
    replicas = int(options.get("replicas", 1))
    by_client = options.get("balancer") == "client"
    where = ", chosen by the client" if by_client else f" behind {options.get('balancer')}"
    balancer = where if replicas > 1 else ""
    connections = f", {arm['connections']} connection(s)" if balancer and arm.get("connections") else ""
    behind = (case or row)["framework"]  # trials behind a gateway carry the gateway's name
    return {
        "label": label,
        "model": row["model"],
        "batch": int(row["batch"]),
        "protocol": NAMES[row["protocol"]],
        "encoding": f"{NAMES[row['protocol']]} with {row['encoding']}",
        "form": row["encoding"] if row["encoding"] in ("json", "b64") else "binary",
        "framework": f"{FRAMEWORK_NAMES[behind]}{EMBEDDED if 'embedded' in row['implementation'] else ''}",
        "replicas": f"{replicas}{balancer}{connections}",
        "cache": ("in a gateway" if front else "in the server") if cached else NO_CACHE,
        "repeat": arm.get("repeat") if cached else None,
        "plain": not special and arm.get("client", "wire") == "wire" and arm.get("reuse", True),
    }


# ---------------------------------------------------------------------------------------------- advice


def advise(question: Question, known: Sequence[Evidence]) -> pd.DataFrame:
    """One row per choice (:data:`CHOICES`): ``choice``, ``advice``, ``why``, ``run_id``, ``cases``.

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


def _choose(question: Question, choice: str, fit: Iterable[tuple[Evidence, pd.DataFrame]]) -> dict[str, Any]:
    """The advice of the first run whose arms differ in ``choice``."""
    for one, arms in fit:
        own = _comparable(question, choice, one, _alike(question, choice, arms))
        if own[choice].nunique() > 1:
            return {"choice": choice, **_among(choice, one, own), "run_id": one.run.id}
    would = _would(question, choice)
    why = f"not measured: {would} would" if would else "no run of this project measures it for this question"
    return {"choice": choice, "advice": CANNOT, "why": why, "run_id": "", "cases": ""}


def _would(question: Question, choice: str) -> str:
    """The command whose run would decide ``choice``; empty if none would."""
    default = "" if choice in ("replicas", "cache") else WOULD[question.payload]
    would = WOULD_CHOOSE.get((choice, question.payload), default)
    if choice != "cache" or not would or _near(question.repeat, QUICK_REPEATS):
        return would
    return f"{would.removesuffix(FULL)}{FULL}" if _near(question.repeat, FULL_REPEATS) else ""


def _near(repeat: float, measured: Iterable[float]) -> bool:
    return any(abs(repeat - one) <= REPEAT_WITHIN for one in measured)


def _comparable(question: Question, choice: str, one: Evidence, arms: pd.DataFrame) -> pd.DataFrame:
    """The arms from the best to the worst that equal the best of those with a rival in what must be equal."""
    judged = arms.assign(state=[state(question, one, row) for _, row in arms.iterrows()])
    order = judged.sort_values(["state", "saturation_per_s"], ascending=[True, False], key=_rank)
    rivals = order.groupby(FIXED[choice])[choice].transform("nunique") > 1
    order = order[rivals]
    for factor in FIXED[choice] if len(order) else []:
        order = order[order[factor] == order[factor].iloc[0]]
    return order


def _alike(question: Question, choice: str, arms: pd.DataFrame) -> pd.DataFrame:
    """The arms that may be set side by side: one replica and no cache, unless that is the choice."""
    if choice != "replicas":
        arms = arms[arms["replicas"] == "1"]
    if choice != "cache":
        return arms[arms["cache"] == NO_CACHE]
    near = arms["repeat"].isna() | ((arms["repeat"].astype(float) - question.repeat).abs() <= REPEAT_WITHIN)
    return arms[near]


def _among(choice: str, one: Evidence, order: pd.DataFrame) -> dict[str, Any]:
    """The best arm of each level, those that meet the question first; advice where the data decide."""
    best = order.drop_duplicates(choice)
    told_of = "; ".join(
        f"{row[choice]} ({row['label']}): {WORDS[row['state']]}, λ* {row['bound']}{number(row['saturation_per_s'])}/s"
        for _, row in best.iterrows()
    )
    labels = ", ".join(best["label"])
    meets = best[best["state"] == MEETS]
    if meets.empty:
        none = (best["state"] == FAILS).all()
        return {"advice": "none of those measured" if none else CANNOT, "why": told_of, "cases": labels}
    if choice == "replicas" and (meets[choice] == "1").any():
        return {"advice": "1: no more are needed", "why": told_of, "cases": labels}
    top, others = meets.iloc[0], [str(label) for label in meets["label"].iloc[1:]]
    gaps = {label: capacity_ratio(one.brackets, top["label"], label) for label in others}
    others_open = " (others open)" if (best["state"] == OPEN).any() else ""
    ratios = (f"; λ* of {top['label']} ÷ {label} is {capacities_told(gap)}" for label, gap in gaps.items())
    why = told_of + "".join(ratios)
    near = meets[[label not in gaps or not gaps[label].low > 1 for label in meets["label"]]]
    if len(near) == 1:
        return {"advice": f"{top[choice]}{others_open}", "why": why, "cases": labels}
    names = " and ".join(near[choice]) if len(near) == 2 else "; ".join(near[choice]) + ": all"
    return {"advice": f"{CANNOT} which: {names} meet it", "why": why, "cases": labels}


MEETS, OPEN, FAILS = "a meets", "b open", "c fails"
WORDS = {MEETS: "meets it", OPEN: "open", FAILS: "fails"}


def _rank(column: "pd.Series[Any]") -> "pd.Series[Any]":
    return column.fillna(0.0) if column.name == "saturation_per_s" else column


def state(question: Question, one: Evidence, arm: "pd.Series[Any]") -> str:
    """Whether an arm meets the question, fails, or leaves it open; see the module's text."""
    points, name = one.points[one.points["label"] == arm["label"]], metric("response", question.quantile)
    sound = points[(points["verdict"] == VALID) & np.isfinite(points[f"{name}_high"].astype(float))]
    above = sound[sound["rate_per_s"] >= question.rate_per_s]
    if (above[f"{name}_high"] <= question.slo_ms).any():
        return MEETS
    top = arm["interval_high_per_s"]  # NaN: not known well enough to say that it fails
    below = sound[sound["rate_per_s"] <= question.rate_per_s]
    if question.rate_per_s > top or (below[f"{name}_low"] > question.slo_ms).any():
        return FAILS
    return OPEN


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
    """The advice for every question: its four values, then a column per choice, then ``why`` and ``run_ids``."""
    return pd.DataFrame([_line(question, known) for question in questions])


def _line(question: Question, known: Sequence[Evidence]) -> dict[str, Any]:
    asked = {
        "payload": PAYLOADS[question.payload][2],
        "rate_per_s": question.rate_per_s,
        "slo_ms": question.slo_ms,
        "repeat": question.repeat,
    }
    try:
        found = advise(question, known)
    except DataError as error:
        return {**asked, **dict.fromkeys(CHOICES, CANNOT), "why": str(error), "run_ids": ""}
    why = " ".join(f"{row['choice'].capitalize()}: {row['why']}." for _, row in found.iterrows())
    ids = ", ".join(dict.fromkeys(filter(None, found["run_id"])))
    return {**asked, **dict(zip(found["choice"], found["advice"], strict=True)), "why": why, "run_ids": ids}


def save(lines: pd.DataFrame, folder: Path) -> Path:
    """Write ``advice.json``, which the report takes in, and ``advice.csv``; returns the former."""

    rows = lines.astype({"rate_per_s": object, "slo_ms": object}).to_dict("records")
    for row in rows:
        row |= {
            "rate_per_s": f"{row['rate_per_s']:g}",
            "slo_ms": f"{row['slo_ms']:g}",
            "repeat": f"{row['repeat']:.0%}",
        }
    write(folder / "advice.csv", lines.to_csv(index=False, lineterminator="\n"))
    text = json.dumps({"choices": CHOICES, "rows": rows}, indent=1, ensure_ascii=False)
    return write(folder / "advice.json", text + "\n")
