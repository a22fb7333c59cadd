"""Advice in words: a line for each choice, with the evidence and the reasons behind it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from infscale.analysis.tables.trials import Row
from infscale.errors import DataError
from infscale.experiment.design.labels import ENCODINGS, count
from infscale.report.advice.arms import Evidence, compare
from infscale.report.advice.decision import Decision, Heard, decisions, fitting
from infscale.report.advice.question import CHOICES, PAYLOADS, STANDARD, WOULD, Question, would
from infscale.report.figures.files import write
from infscale.report.results import machine_text
from infscale.report.wording import quoted
from infscale.vocabulary import CANNOT, number

NONE_MEETS = "none of those measured meets the limit"

WHERE = {
    "protocol": "on {0}",
    "encoding": "on {0}",
    "framework": "over {0}, {1}",
    "replicas": "on {1} over {0}",
    "cache": "on {1} over {0}",
}
"""Choice → how a setting is called, from the levels that it fixes."""

TEXTS = ["choice", "advice", "evidence", "why", "run_ids"]
"""The columns of :func:`advise`."""


def advise(question: Question, known: Sequence[Evidence]) -> pd.DataFrame:
    """Return one row per choice, of texts.

    ``advice`` says what to take, setting by setting. ``evidence`` is how it is known to meet the limit: λ, percentile,
    interval, lifetimes and runs; without advice, it is what would decide. ``why`` has a line for each run that was
    heard, and ``run_ids`` names them.

    Args:
        question: what a user wants to serve.
        known: what each stored run says.

    Raises:
        DataError: no stored trial carries this payload; with the run that would.
    """
    if all(fitting(question, one.arms).empty for one in known):
        what, command = PAYLOADS[question.payload][2], WOULD[question.payload]
        raise DataError(
            f"no stored trial carries {what}: {command} measures it; for a service of your own, infscale compare"
        )
    return pd.DataFrame([_line(question, choice, known) for choice in CHOICES], columns=TEXTS)


def _line(question: Question, choice: str, known: Sequence[Evidence]) -> dict[str, str]:
    found = decisions(question, choice, known)
    heard = [(decision, one) for decision in found for one in decision.heard]
    return {
        "choice": choice,
        "advice": _advice(choice, found),
        "evidence": _evidence(question, found) or _missing(question, choice, found),
        "why": "\n".join(f"{_where(choice, decision)}, {_reasons(decision, one)}." for decision, one in heard),
        "run_ids": _runs(one for _, one in heard),
    }


def _missing(question: Question, choice: str, found: Sequence[Decision]) -> str:
    """Return why there is no advice."""
    if any(not decision.fails for decision in found):
        rate = f"{number(question.rate_per_s)} requests/s or more"
        return f"no trials at {rate} were steady enough, and enough, to show that one meets the limit"
    if found:
        return "shown by λ* or by a percentile whose whole interval lies above the limit, in every setting"
    command = would(question, choice)
    return f"not measured: {command} would" if command else "no run of this project measures it for this question"


# ------------------------------------------------------------------------------------------ the line


def _advice(choice: str, found: Sequence[Decision]) -> str:
    """Return what to take, the settings that say the same together."""
    said: dict[tuple[str, str], list[str]] = {}
    for decision in found:
        said.setdefault(_said(decision), []).append(_where(choice, decision))
    parts = [f"{what} {' and '.join(places)}{caveat}" for (what, caveat), places in said.items()]
    if all(what == CANNOT for what, _ in said):
        return CANNOT
    return "; ".join(parts)


def _said(decision: Decision) -> tuple[str, str]:
    """Return what a decision advises, and what must be known beside it, each in words."""
    advised = [quoted(level) for level in decision.advised]
    if not advised:
        return NONE_MEETS if decision.fails else CANNOT, ""
    caveats = [
        f"{_joined(map(quoted, decision.unknown))} not measured well enough" if decision.unknown else "",
        f"runs differ on whether {_joined(map(quoted, decision.doubted))} meets the limit" if decision.doubted else "",
        "runs differ on which is better" if decision.contrary else "",
        "each with its best encoding" if _several_encodings(decision) else "",
    ]
    known = "; ".join(filter(None, caveats))
    return _taken(decision), f" ({known})" if known else ""


def _several_encodings(decision: Decision) -> bool:
    """Return whether protocols are compared, one of them with several encodings: the best may speak for it."""
    return any(
        one.choice == "protocol" and len(one.encodings(level)) > 1 for one in decision.heard for level in one.arms
    )


def _taken(decision: Decision) -> str:
    if len(decision.advised) > 1:
        every = "both" if len(decision.advised) == 2 else "all"
        return f"{_joined(map(quoted, decision.advised))} {every} do"
    (level,) = decision.advised
    return f"{level} is enough" if decision.simplest else level


def _joined(names: Iterable[str]) -> str:
    *most, last = names
    return " and ".join(filter(None, (", ".join(most), last)))


def _where(choice: str, decision: Decision) -> str:
    return WHERE[choice].format(*(ENCODINGS.get(level, level) for level in decision.setting))


def _evidence(question: Question, found: Sequence[Decision]) -> str:
    """Return how the advised levels are known to meet the limit: the ends of all their intervals together."""
    arms = [
        (one, arm.point)
        for decision in found
        for one in decision.heard
        for level in decision.advised
        for arm in one.meeting(level)
        if arm.point is not None
    ]
    if not arms:
        return ""
    points = [point for _, point in arms]
    rates = _range([point.rate_per_s for point in points])
    times = f"{number(min(point.low_ms for point in points))} to {number(max(point.high_ms for point in points))} ms"
    fewest, most = (f(point.lifetimes for point in points) for f in (min, max))
    lifetimes = count(most, "lifetime") if fewest == most else f"{fewest} to {most} lifetimes"
    intervals = "95 % interval" if len(points) == 1 else f"{len(points)} intervals of 95 % together"
    runs = _runs(one for one, _ in arms)
    return (
        f"{question.quantile} at {rates} requests/s is {times}: {intervals}, {lifetimes}, "
        f"run{'s' if ',' in runs else ''} {runs}"
    )


def _range(values: Sequence[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def _runs(heard: Iterable[Heard]) -> str:
    return ", ".join(dict.fromkeys(one.one.run.id for one in heard))


# --------------------------------------------------------------------------------------- the reasons


def _reasons(decision: Decision, heard: Heard) -> str:
    """Return what one run says of each arm, and of the advised ones beside the others that meet the limit."""
    run = heard.one.run
    arms = [arm for own in heard.arms.values() for arm in own]
    advised = [arm for level in decision.advised for arm in heard.meeting(level)]
    others = [arm for level in heard.arms for arm in heard.meeting(level)]
    pairs = {frozenset((a.arm, b.arm)): (a, b) for a in advised for b in others if a.arm != b.arm}
    sentences = [*(arm.text for arm in arms), *(compare(heard.one, a, b)[1] for a, b in pairs.values())]
    return f"run {run.id} on {machine_text(run.manifest.machine)}: {'; '.join(sentences)}"


# ---------------------------------------------------------------------------------- several questions

FILE = "advice.csv"
"""The file that holds the answers to the questions of the report."""


def table(known: Sequence[Evidence], questions: Iterable[Question] = STANDARD) -> pd.DataFrame:
    """Return the lines of :func:`advise` for every question, each after ``question``, its text.

    A question whose payload no trial carries has one line, without a choice.
    """
    return pd.DataFrame(
        [row for question in questions for row in _answered(question, known)], columns=["question", *TEXTS]
    )


def _answered(question: Question, known: Sequence[Evidence]) -> list[Row]:
    try:
        lines = advise(question, known)
    except DataError as error:
        lines = pd.DataFrame([{**dict.fromkeys(TEXTS, ""), "advice": CANNOT, "evidence": str(error)}])
    heard, unheard = lines[lines["run_ids"] != ""], lines[lines["run_ids"] == ""]
    if len(unheard) > 1:  # no reader needs a line for each
        reasons = "; ".join(f"{row['choice']}: {row['evidence']}" for row in unheard.to_dict("records"))
        together = {**dict.fromkeys(TEXTS, ""), "choice": " and ".join(unheard["choice"]), "advice": CANNOT}
        lines = pd.concat([heard, pd.DataFrame([{**together, "evidence": reasons}])])
    return [{"question": question.text, **{str(k): v for k, v in row.items()}} for row in lines.to_dict("records")]


def save(lines: pd.DataFrame, folder: Path) -> Path:
    """Write what :func:`table` returned to ``folder`` as ``advice.csv``, which the report takes in; return its path."""
    return write(folder / FILE, lines.to_csv(index=False, lineterminator="\n"))


def load(folder: Path) -> pd.DataFrame | None:
    """Return what :func:`save` wrote to ``folder``; None where it has not."""
    path = folder / FILE
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else None
