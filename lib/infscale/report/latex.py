r"""What a paper written in LaTeX includes: every number as a macro, and a table.

Both are functions of stored data: equal data give equal texts. No date of writing enters them; the run does.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.tables import Tables
from infscale.analysis.tables.trials import QUANTILES, metric
from infscale.experiment.design.design import CAPACITY, FIRST, GAP, P95, PER_CORE, PER_MESSAGE, SATURATION
from infscale.experiment.design.labels import labels
from infscale.records.manifest import RunManifest
from infscale.report.claims import Claim
from infscale.vocabulary import number

DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
TENS = ("", "", "Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")

SIGNS = {"≥": r"\ensuremath{\geq}", "<": r"\ensuremath{<}"}
"""What stands before a saturation rate that is a bound, by :data:`infscale.analysis.tables.Tables.arms`'s ``bound``."""

Macro = tuple[str, str, str]
"""A macro's name without backslash, its value, and a comment that holds the unit."""

# ---------------------------------------------------------------------------------------------- macros


def macro_name(*parts: object) -> str:
    r"""Return a LaTeX macro's name, letters only: ``infTorchserveRestPNinetyFive`` for "torchserve", "rest", "p95".

    Numbers become words, up to 99 in tens and ones, digit by digit beyond.
    """
    words = re.findall(r"[A-Za-z]+|[0-9]+", " ".join(str(part) for part in parts))
    return "inf" + "".join(_spelled(word) if word.isdigit() else word[0].upper() + word[1:] for word in words)


def values_tex(run: RunManifest, tables: Tables, others: Iterable[Claim] = ()) -> str:
    r"""Return the text of ``values.tex``: a ``\newcommand`` for each number with three digits, its unit in a comment.

    Arms are named after what answered and their protocol; where that is not unique, after their number too. Rates are
    numbered in ascending order for each implementation (``…RateOne``). A lower bound carries its ≥, and a number that
    is withheld reads "n/a", so that neither can be taken for an estimate.

    Args:
        run, tables: the run that the paper is about.
        others: the named contrasts of other findings.

    Raises:
        ValueError: two numbers would have the same name.
    """
    design = run.design
    origin = {
        "run_id": run.run_id,
        "commit": run.commit,
        "environment_digest": run.environment_digest,
        "code_digest": run.code_digest,
        "profile": design.profile,
    }
    macros = [*_run_macros(run, tables), *_arm_macros(tables), *_point_macros(tables), *_ratio_macros(tables)]
    macros += [macro for claim in others for macro in _claim_macros(claim)]
    names = [name for name, _, _ in macros]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several numbers would be called {', '.join(twice)}")
    head = ["% Generated from stored data; do not edit.", *(f"% {key}: {value}" for key, value in origin.items())]
    lines = [f"\\newcommand{{\\{name}}}{{{value}}} % {comment}" for name, value, comment in macros]
    return "\n".join([*head, *lines, ""])


def _run_macros(run: RunManifest, tables: Tables) -> Iterator[Macro]:
    share = tables.shares["valid"].sum() / max(1, tables.shares["trials"].sum())
    yield macro_name("first look"), str(run.first_look or 0), "lifetimes at the first look"
    yield macro_name("trial seconds"), number(run.design.trial_s), "s, length of a trial"
    yield macro_name("valid share"), number(100 * share), "%, VALID trials below saturation"


def _arm_names(tables: Tables) -> dict[int, tuple[object, ...]]:
    """Return the parts of each arm's name by its number."""
    arms = tables.arms.drop_duplicates("arm")
    alike = arms.duplicated(["implementation", "protocol"], keep=False)
    return {
        int(arm["arm"]): (arm["implementation"], arm["protocol"], *(("arm", arm["arm"]) if twice else ()))
        for (_, arm), twice in zip(arms.iterrows(), alike, strict=True)
    }


def _arm_macros(tables: Tables) -> Iterator[Macro]:
    names = _arm_names(tables)
    for _, arm in tables.arms.iterrows():
        name = (*names[arm["arm"]], "saturation")
        yield macro_name(*name), SIGNS.get(arm["bound"], "") + number(arm["saturation_per_s"]), "requests/s, lambda*"
        for end in ("low", "high"):
            interval = f"requests/s, {end} end of its 95 % interval, {arm['saturation_lifetimes']} lifetimes"
            yield macro_name(*name, end), _tex_number(arm[f"{end}_per_s"]), interval


def _point_macros(tables: Tables) -> Iterator[Macro]:
    names = _arm_names(tables)
    for implementation, group in tables.points.groupby("implementation"):
        order = _numbered(group)
        for rate, index in order.items():
            yield macro_name(implementation, "rate", index), number(rate), "requests/s, arrival rate"
        for _, point in group.iterrows():
            name = names[point["arm"]]
            for quantile in QUANTILES:
                yield from _percentile_macros(point, name, quantile, order[point["rate_per_s"]])


def _percentile_macros(point: "pd.Series[Any]", arm: tuple[object, ...], quantile: str, index: int) -> Iterator[Macro]:
    column = metric("response", quantile)
    name = (*arm, quantile, "rate", index)
    prefix = SIGNS["≥"] if point[f"{column}_bound"] else ""
    where = f"ms, response time at {number(point['rate_per_s'])} requests/s, {point['verdict']}"
    yield macro_name(*name), prefix + _tex_number(point[column]), where
    for end in ("low", "high"):
        yield macro_name(*name, end), _tex_number(point[f"{column}_{end}"]), f"ms, {end} end of its 95 % interval"


OF_METRIC = {
    P95: "p95",
    SATURATION: "saturation",
    CAPACITY: "capacity",
    FIRST: "first message",
    GAP: "gap",
    PER_CORE: "messages per core",
    PER_MESSAGE: "cpu per message",
}
"""What the names of macros hold of a contrast's metric."""


def _ratio_macros(tables: Tables) -> Iterator[Macro]:
    names = _arm_names(tables)
    for _, row in tables.contrasts.iterrows():
        name = (*names[row["arm"]], "ratio", OF_METRIC[row["metric"]])
        what = f"{row['label']} / {row['reference_label']}, {row['lifetimes']} lifetimes: {row['answer']}"
        yield macro_name(*name), _tex_number(row["ratio"]), what
        for end in ("low", "high"):
            yield macro_name(*name, end), _tex_number(row[f"ratio_{end}"]), f"{end} end of its 95 % interval"
        yield macro_name(*name, "answer"), row["answer"], "after Holm's correction over the contrasts of the run"
        yield macro_name(*name, "lifetimes"), f"{row['lifetimes']:,}", "lifetimes that have a value"


def _claim_macros(claim: Claim) -> Iterator[Macro]:
    """Yield a contrast of another finding, named after it and both arms: ratio, interval, answer and lifetimes."""
    what = OF_METRIC[claim.metric]
    name = (claim.finding, claim.subject, claim.arm, "over", claim.reference, what)
    pair = f"{claim.arm} / {claim.reference}{f' ({claim.subject})' if claim.subject else ''}, run {claim.run_id}"
    values = {"ratio": claim.ratio, "low": claim.low, "high": claim.high}
    comments = {"ratio": pair, "low": "low end of its 95 % interval", "high": "high end of its 95 % interval"}
    for part, value in values.items():
        yield macro_name(*name, part), "n/a" if value is None else number(value), comments[part]
    yield macro_name(*name, "answer"), claim.answer, "after Holm's correction over the contrasts of its run"
    yield macro_name(*name, "lifetimes"), f"{claim.lifetimes:,}", "lifetimes that the interval rests on"


# ----------------------------------------------------------------------------------------------- table


def table_tex(run: RunManifest, tables: Tables) -> str:
    """Return the text of ``table-f0.tex``: for each arm λ* with its interval, and percentiles at moderate load.

    Needs the LaTeX package booktabs. Percentiles are in ms with their 95 % intervals.
    """
    shares, rows = tables.shares.set_index("arm"), []
    for _, group in tables.summary.groupby("system", sort=False):
        names = labels([run.design.arms[arm] for arm in group["arm"]])
        rows += [
            _table_row(arm, name, shares.loc[arm["arm"]])
            for (_, arm), name in zip(group.iterrows(), names, strict=True)
        ]
    return "\n".join(
        [
            "% Generated from stored data; do not edit.",
            f"% run_id: {run.run_id}  commit: {run.commit}",
            r"\begin{tabular}{llrrrrrr}",
            r"\toprule",
            r"Serving system & Arm & $\lambda^*$ [95\,\%] (1/s) & VALID & $\lambda$ (1/s) "
            r"& p50 (ms) & p95 (ms) & p99 (ms) \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _table_row(arm: "pd.Series[Any]", name: str, share: "pd.Series[Any]") -> str:
    known = arm["bound"] == "" and np.isfinite(arm["low_per_s"])
    bracket = f" [{number(arm['low_per_s'])}, {number(arm['high_per_s'])}]" if known else ""
    rate = arm["rate_per_s"]
    cells = [
        tex_escape(arm["system"]),
        tex_escape(name),
        SIGNS.get(arm["bound"], "") + number(arm["saturation_per_s"]) + bracket,
        f"{share['valid']}/{share['trials']}",
        "--" if np.isnan(rate) else number(rate),
        *(_cell(arm, metric("response", quantile)) for quantile in QUANTILES),
    ]
    return " & ".join(cells) + r" \\"


def _cell(arm: "pd.Series[Any]", column: str) -> str:
    """Return a value with its interval, or what there is of it."""
    if np.isnan(arm[column]):
        return "--"
    low, high = arm[f"{column}_low"], arm[f"{column}_high"]
    interval = f" [{number(low)}, {number(high)}]" if np.isfinite(low) else ""
    return (SIGNS["≥"] if arm[f"{column}_bound"] else "") + _tex_number(arm[column]) + interval


# --------------------------------------------------------------------------------------------- helpers


def tex_escape(text: str) -> str:
    """Return text with LaTeX's special characters escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _numbered(group: pd.DataFrame) -> dict[float, int]:
    """Return the numbers of an implementation's rates, from 1 in ascending order."""
    return {float(rate): index for index, rate in enumerate(sorted(group["rate_per_s"].unique()), start=1)}


def _tex_number(value: float) -> str:
    return r"\ensuremath{\infty}" if np.isinf(value) else number(value)


def _spelled(digits: str) -> str:
    """Return a number in words, without spaces."""
    if len(digits) == 2 and digits[0] not in "01":
        return TENS[int(digits[0])] + ("" if digits[1] == "0" else DIGITS[int(digits[1])])
    return "".join(DIGITS[int(digit)] for digit in digits)
